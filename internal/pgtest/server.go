package pgtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/whimbrel-edge/whimbrel/internal/childproc"
	"github.com/whimbrel-edge/whimbrel/internal/holdport"
	"github.com/whimbrel-edge/whimbrel/internal/need"
)

const (
	startTimeout = 60 * time.Second // crash recovery on a busy machine included
	stopTimeout  = 30 * time.Second
	pollInterval = 10 * time.Millisecond
)

// Options for a server of one's own. The zero Options suit most tests.
type Options struct {
	// Fsync makes commits wait for the disk. Off, everything is quicker and a
	// killed server still loses nothing, because the kernel keeps its writes;
	// only a power cut would. On is for measuring.
	Fsync bool
	// Settings are added to the server's configuration, for example
	// {"max_connections": "200"}.
	Settings map[string]string
}

// A Server is one Postgres cluster and, while it runs, its processes. Its
// address and data last until Close. The methods may be called from any
// goroutine, one at a time.
type Server struct {
	bin  string // directory of initdb and postgres
	dir  string // holds data/, the unix socket and the log
	as   *syscall.Credential
	port *holdport.Port
	args []string

	mu   sync.Mutex
	proc *childproc.Process // nil when not running
}

// StartServer starts a server for this test alone and closes it at the end.
// Where no Postgres is installed the test is skipped, or failed with
// WHIMBREL_REQUIRE=1.
func StartServer(tb testing.TB, opts Options) *Server {
	tb.Helper()
	s, err := open(programs(tb), opts)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("postgres log ends:\n%s", s.logTail())
		}
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

// Open starts a server for a program that is no test, which closes it.
func Open(opts Options) (*Server, error) {
	bin, err := find()
	if err != nil {
		return nil, err
	}
	if bin == "" {
		return nil, errors.New("pgtest: no PostgreSQL server (initdb, postgres) is installed")
	}
	return open(bin, opts)
}

// programs finds the directory with the server programs, or ends the test.
func programs(tb testing.TB) string {
	tb.Helper()
	bin, err := find()
	if err != nil {
		tb.Fatal(err)
	}
	if bin == "" {
		need.Missing(tb, "PostgreSQL server (initdb, postgres)", "postgresql-15") // ends the test
	}
	return bin
}

// find returns the directory with the server programs, "" when there is none.
func find() (string, error) {
	var candidates []string
	if path, err := exec.LookPath("initdb"); err == nil {
		candidates = append(candidates, filepath.Dir(path))
	}
	debian, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil {
		return "", err
	}
	slices.SortFunc(debian, func(a, b string) int { return majorVersion(b) - majorVersion(a) })
	candidates = append(candidates, debian...)
	candidates = append(candidates, "/usr/local/bin", "/usr/local/pgsql/bin")
	for _, dir := range candidates {
		if isProgram(filepath.Join(dir, "initdb")) && isProgram(filepath.Join(dir, "postgres")) {
			return dir, nil
		}
	}
	return "", nil
}

// majorVersion of a Debian directory such as /usr/lib/postgresql/15/bin.
func majorVersion(bin string) int {
	v, err := strconv.Atoi(filepath.Base(filepath.Dir(bin)))
	if err != nil {
		return 0
	}
	return v
}

func isProgram(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
}

// open makes a cluster and starts it.
func open(bin string, opts Options) (_ *Server, err error) {
	s := &Server{bin: bin}
	defer func() {
		if err != nil {
			err = fmt.Errorf("pgtest: %w", errors.Join(err, s.remove()))
		}
	}()
	if s.as, err = credential(); err != nil {
		return nil, err
	}
	// Not tb.TempDir: a socket's path has room for 107 bytes only, and the
	// postgres user must be able to reach it.
	if s.dir, err = os.MkdirTemp("", "whimbrel-pg-"); err != nil {
		return nil, err
	}
	if s.as != nil {
		if err := os.Chown(s.dir, int(s.as.Uid), int(s.as.Gid)); err != nil {
			return nil, err
		}
	}
	if s.port, err = holdport.Hold(); err != nil {
		return nil, err
	}
	if err := s.initdb(); err != nil {
		return nil, err
	}
	s.args = arguments(s.dir, s.port.Number(), opts)
	if err := s.Start(); err != nil {
		return nil, err
	}
	return s, nil
}

// credential is whom the server runs as: Postgres refuses root. nil means the
// current user.
func credential() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("root needs a user for Postgres to run as: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

func (s *Server) initdb() error {
	cmd := exec.Command(filepath.Join(s.bin, "initdb"),
		"--pgdata", filepath.Join(s.dir, "data"), "--username", "postgres", "--auth", "trust",
		"--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync")
	cmd.Dir = s.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.as}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return nil
}

func arguments(dir string, port int, opts Options) []string {
	settings := map[string]string{
		"listen_addresses":        "127.0.0.1",
		"port":                    strconv.Itoa(port),
		"unix_socket_directories": dir,
		"fsync":                   "off",
		"full_page_writes":        "off",
		"shared_buffers":          "32MB",
		"max_connections":         "100",
		"log_min_messages":        "warning",
		// Files and not /dev/shm, which has 64 MB only in many containers.
		"dynamic_shared_memory_type": "mmap",
	}
	if opts.Fsync {
		settings["fsync"], settings["full_page_writes"] = "on", "on"
	}
	maps.Copy(settings, opts.Settings)
	args := []string{"-D", filepath.Join(dir, "data")}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		args = append(args, "-c", name+"="+settings[name])
	}
	return args
}

// URL is where to connect to a database over TCP. It stays the same over
// restarts.
func (s *Server) URL(database string) string {
	u := url.URL{
		Scheme: "postgres", User: url.User("postgres"), Host: s.port.Addr(), Path: "/" + database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// socketURL is the maintenance database over the unix socket, which works when
// max_connections' last places are taken or TCP is configured away.
func (s *Server) socketURL() string {
	q := url.Values{"host": {s.dir}, "port": {strconv.Itoa(s.port.Number())}, "user": {"postgres"}}
	return "postgres:///postgres?" + q.Encode()
}

// Addr is the server's host:port, for a proxy in front of it.
func (s *Server) Addr() string { return s.port.Addr() }

// Start starts the stopped or killed server and waits until it answers.
func (s *Server) Start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc != nil {
		return errors.New("start postgres: already running")
	}
	p, err := s.spawn()
	if err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	s.proc = p
	if err := s.waitReady(p); err != nil {
		return fmt.Errorf("start postgres: %w\n%s", errors.Join(err, s.kill9()), s.logTail())
	}
	return nil
}

// spawn starts the postmaster.
func (s *Server) spawn() (*childproc.Process, error) {
	logFile, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer logFile.Close()
	cmd := exec.Command(filepath.Join(s.bin, "postgres"), s.args...)
	cmd.Dir = s.dir
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.as}
	return childproc.Start(cmd, syscall.SIGQUIT) // at which Postgres quits at once
}

func (s *Server) waitReady(p *childproc.Process) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for {
		// TCP, as the tests do: the unix socket is open a moment earlier.
		err := ping(ctx, s.URL("postgres"))
		if err == nil {
			return nil
		}
		select {
		case <-p.Exited:
			return fmt.Errorf("it exited: %w", p.Err())
		case <-ctx.Done():
			return fmt.Errorf("not ready after %v: %w", startTimeout, err)
		case <-time.After(pollInterval):
		}
	}
}

func ping(ctx context.Context, url string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	return errors.Join(conn.Ping(ctx), conn.Close(ctx))
}

// Stop shuts the server down in good order: open transactions are rolled back,
// a checkpoint is written. Stopping a stopped server does nothing.
func (s *Server) Stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil {
		return nil
	}
	if err := syscall.Kill(s.proc.Pid, syscall.SIGINT); err != nil {
		return fmt.Errorf("stop postgres: %w", err)
	}
	select {
	case <-s.proc.Exited:
		s.proc = nil
		return nil
	case <-time.After(stopTimeout):
		return fmt.Errorf("stop postgres: %w", errors.Join(fmt.Errorf("still running after %v", stopTimeout), s.kill9()))
	}
}

// Restart stops the server in good order and starts it again. To restart after
// Kill9, call Start.
func (s *Server) Restart() error {
	if err := s.Stop(); err != nil {
		return err
	}
	return s.Start()
}

// Kill9 ends every process of the server at once, with no chance to finish
// anything, and returns when all of them are gone. Killing a stopped server
// does nothing.
func (s *Server) Kill9() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kill9()
}

func (s *Server) kill9() error {
	if s.proc == nil {
		return nil
	}
	postmaster := s.proc
	// Stopped first, it can neither notice dead children nor make new ones
	// while they are being listed.
	if err := syscall.Kill(postmaster.Pid, syscall.SIGSTOP); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill postgres: %w", err)
	}
	children, err := childrenOf(postmaster.Pid)
	if err != nil {
		return fmt.Errorf("kill postgres: %w", err)
	}
	for _, pid := range append(children, postmaster.Pid) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("kill postgres: %w", err)
		}
	}
	<-postmaster.Exited
	s.proc = nil
	deadline := time.Now().Add(stopTimeout)
	for _, pid := range children {
		for !gone(pid) {
			if time.Now().After(deadline) {
				return fmt.Errorf("kill postgres: process %d is still there", pid)
			}
			time.Sleep(pollInterval)
		}
	}
	return nil
}

// childrenOf lists the processes whose parent is pid.
func childrenOf(pid int) ([]int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	var children []int
	for _, stat := range stats {
		_, parent, err := readStat(stat)
		if err != nil {
			continue // it ended while we were looking
		}
		if parent == pid {
			child, err := strconv.Atoi(filepath.Base(filepath.Dir(stat)))
			if err != nil {
				return nil, err
			}
			children = append(children, child)
		}
	}
	return children, nil
}

// CPU returns the CPU time that the server's processes have taken, those that have
// ended included: autovacuum's workers live for a moment.
func (s *Server) CPU() (total time.Duration, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil {
		return 0, errors.New("postgres is not running")
	}
	pids, err := childrenOf(s.proc.Pid)
	if err != nil {
		return 0, err
	}
	for _, pid := range append(pids, s.proc.Pid) {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue // it has just ended
		}
		fields := strings.Fields(string(line[bytes.LastIndexByte(line, ')')+1:]))
		if len(fields) < 15 {
			continue
		}
		for _, field := range fields[11:15] { // in user mode and in the kernel, its own and that of children that it has waited for
			ticks, err := strconv.Atoi(field)
			if err != nil {
				return 0, err
			}
			total += time.Duration(ticks) * 10 * time.Millisecond // a hundred a second
		}
	}
	return total, nil
}

// gone reports whether pid has ended. An orphan that nobody reaps, as in a
// container without an init, has ended too.
func gone(pid int) bool {
	state, _, err := readStat(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || state == "Z" || state == "X"
}

// readStat takes state and parent from a /proc/PID/stat line:
// "PID (NAME) STATE PARENT …", where NAME may contain anything.
func readStat(path string) (state string, parent int, err error) {
	line, err := os.ReadFile(path)
	if err != nil {
		return "", 0, err
	}
	fields := strings.Fields(string(line[bytes.LastIndexByte(line, ')')+1:]))
	if len(fields) < 2 {
		return "", 0, fmt.Errorf("%s: unexpected %q", path, line)
	}
	parent, err = strconv.Atoi(fields[1])
	return fields[0], parent, err
}

// Close ends the server and deletes everything of it.
func (s *Server) Close() error {
	// Nothing is kept, so nothing need be finished.
	return errors.Join(s.Kill9(), s.remove())
}

func (s *Server) remove() error {
	var err error
	if s.port != nil {
		err = s.port.Close()
		s.port = nil
	}
	if s.dir != "" {
		err = errors.Join(err, os.RemoveAll(s.dir))
	}
	return err
}

// logTail is the end of the server's log.
func (s *Server) logTail() string {
	const most = 4 << 10
	data, err := os.ReadFile(filepath.Join(s.dir, "log"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err.Error()
	}
	return string(data[max(0, len(data)-most):])
}
