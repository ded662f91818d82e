// Package dockertest gives tests a real Docker engine of their own: its files,
// socket and bridges are apart from any other engine's on the machine, and gone
// afterwards. It starts in less than a second. Images are made from Go programs,
// no registry is asked. Imported by tests and test tools only; Linux only; needs
// root.
package dockertest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/internal/childproc"
	"github.com/whimbrel-edge/whimbrel/internal/need"
)

const (
	startTimeout = 60 * time.Second // on a busy machine
	stopTimeout  = 30 * time.Second
	pollInterval = 10 * time.Millisecond
)

// An Engine is a dockerd with a containerd of its own. Its data lasts until the
// test ends, whatever happens to the processes. The methods may be called from
// any goroutine, one at a time.
type Engine struct {
	dockerd string
	dir     string
	pool    string
	proc    *childproc.Process // nil when not running
}

// Start starts an engine for this test and ends it, containers and all, when the
// test does. Where no Docker is installed, or it may not be started, the test is
// skipped, or failed with WHIMBREL_REQUIRE=1.
func Start(tb testing.TB) *Engine {
	tb.Helper()
	dockerd := need.Program(tb, "dockerd", "docker.io")
	if os.Geteuid() != 0 {
		need.Missing(tb, "root (a Docker engine is started)", "docker.io")
	}
	e, err := open(dockerd)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("dockerd's log ends:\n%s", e.logTail())
		}
		if err := e.Close(); err != nil {
			tb.Error(err)
		}
	})
	return e
}

// Open starts an engine outside of a test. It is to be closed.
func Open() (*Engine, error) {
	for _, name := range []string{"dockerd", "/usr/sbin/dockerd", "/usr/local/sbin/dockerd"} {
		if path, err := exec.LookPath(name); err == nil {
			return open(path)
		}
	}
	return nil, errors.New("dockerd not found; install it with: apt-get install docker.io")
}

func open(dockerd string) (*Engine, error) {
	// Not a test's own folder: a socket's path has room for 107 bytes only.
	dir, err := os.MkdirTemp("", "whimbrel-dk-")
	if err != nil {
		return nil, err
	}
	e := &Engine{dockerd: dockerd, dir: dir, pool: newPool()}
	if err := e.Start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return e, nil
}

// Host is where the engine listens, as DOCKER_HOST has it.
func (e *Engine) Host() string { return "unix://" + e.socket() }

func (e *Engine) socket() string { return filepath.Join(e.dir, "docker.sock") }

// Start starts an engine that was stopped or killed, with the data it had. It
// returns when it answers.
func (e *Engine) Start() error {
	if e.proc != nil {
		return errors.New("start dockerd: already running")
	}
	// A killed one leaves its pid here, and its containerd's.
	for _, name := range []string{"docker.pid", "exec/containerd/containerd.pid"} {
		if err := os.Remove(filepath.Join(e.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("start dockerd: %w", err)
		}
	}
	p, err := e.spawn()
	if err != nil {
		return fmt.Errorf("start dockerd: %w", err)
	}
	e.proc = p
	if err := e.waitReady(p); err != nil {
		return fmt.Errorf("start dockerd: %w\n%s", errors.Join(err, e.Kill9()), e.logTail())
	}
	return nil
}

// spawn starts dockerd.
func (e *Engine) spawn() (*childproc.Process, error) {
	logFile, err := os.OpenFile(filepath.Join(e.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer logFile.Close()
	// No firewall rules and no default bridge: those are the machine's, which
	// other engines share. Published ports work all the same, by docker-proxy.
	cmd := exec.Command(e.dockerd, "--host", e.Host(), "--data-root", filepath.Join(e.dir, "data"), "--exec-root", filepath.Join(e.dir, "exec"),
		"--pidfile", filepath.Join(e.dir, "docker.pid"), "--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-masq=false", "--ip-forward=false",
		"--default-address-pool", "base="+e.pool+",size=24", "--log-level", "warn")
	cmd.Stdout, cmd.Stderr = logFile, logFile
	// Mounts of its own: those of another engine, seen from here, could not be
	// removed there.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	return childproc.Start(cmd, syscall.SIGTERM)
}

var engines atomic.Int64

// newPool is addresses for the networks of one engine: engines do not know each
// other, and the machine has one routing table.
func newPool() string {
	return fmt.Sprintf("10.%d.%d.0/20", 128+os.Getpid()%127, 16*(engines.Add(1)%16))
}

func (e *Engine) waitReady(p *childproc.Process) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for {
		err := e.ping(ctx)
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

func (e *Engine) ping(ctx context.Context) error {
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", e.socket())
	}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker/_ping", nil)
	if err != nil {
		return err
	}
	answer, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("ping: %s", answer.Status)
	}
	return nil
}

// Stop ends the engine in good order, its containers with it.
func (e *Engine) Stop() error {
	if e.proc == nil {
		return nil
	}
	if err := syscall.Kill(e.proc.Pid, syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop dockerd: %w", err)
	}
	select {
	case <-e.proc.Exited:
		e.proc = nil
		return nil
	case <-time.After(stopTimeout):
		return fmt.Errorf("stop dockerd: %w", errors.Join(fmt.Errorf("still running after %v", stopTimeout), e.Kill9()))
	}
}

// Kill9 ends the engine and every container at once, as a power cut does.
func (e *Engine) Kill9() error {
	if e.proc == nil {
		return nil
	}
	if err := syscall.Kill(e.proc.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill dockerd: %w", err)
	}
	<-e.proc.Exited
	e.proc = nil
	// containerd, shims, proxies, and what runs in the containers: some of these
	// make others while they end.
	deadline := time.Now().Add(stopTimeout)
	for {
		pids := e.processes()
		if len(pids) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("kill dockerd: processes %v are still there", pids)
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended meanwhile
		}
		time.Sleep(pollInterval)
	}
}

// processes are those of this engine: their arguments, their cgroup or their
// root file system name its directory, or they are children of such.
func (e *Engine) processes() (pids []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*")
	ours := map[int]bool{}
	parents := map[int]int{}
	for _, dir := range stats {
		var pid, parent int
		if _, err := fmt.Sscan(filepath.Base(dir), &pid); err != nil || pid == os.Getpid() {
			continue
		}
		stat, err := os.ReadFile(dir + "/stat")
		if err != nil {
			continue
		}
		rest := string(stat)[strings.LastIndexByte(string(stat), ')')+1:]
		var state string
		if _, err := fmt.Sscan(rest, &state, &parent); err != nil || state == "Z" || state == "X" {
			continue
		}
		parents[pid] = parent
		args, _ := os.ReadFile(dir + "/cmdline")
		mounts := ""
		if parent != os.Getpid() { // the root of a container is an overlay in our directory
			text, _ := os.ReadFile(dir + "/mountinfo")
			mounts = firstLine(string(text))
		}
		ours[pid] = strings.Contains(string(args), e.dir) || strings.Contains(mounts, e.dir)
	}
	for pid := range parents {
		for at, steps := pid, 0; at > 1 && steps < 100; at, steps = parents[at], steps+1 {
			if ours[at] {
				pids = append(pids, pid)
				break
			}
		}
	}
	return pids
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// Close ends the engine and deletes everything of it.
func (e *Engine) Close() error {
	var err error
	if e.proc == nil {
		err = e.Start() // only it finds the bridges again
	}
	if e.proc != nil {
		err = errors.Join(err, e.removeContainers(), e.Stop())
	}
	for _, pid := range e.processes() { // what an engine has lost sight of
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	e.unmount()
	return errors.Join(err, os.RemoveAll(e.dir))
}

// removeContainers takes containers away by hand, and the bridges of networks:
// those would stay.
func (e *Engine) removeContainers() error {
	docker, err := exec.LookPath("docker")
	if err != nil {
		return nil // then Stop ends them; a bridge may stay
	}
	for _, what := range []struct{ list, remove []string }{
		{[]string{"ps", "-aq"}, []string{"rm", "-f", "-v"}},
		{[]string{"network", "ls", "-q", "--filter", "type=custom"}, []string{"network", "rm"}},
	} {
		out, err := exec.Command(docker, append([]string{"-H", e.Host()}, what.list...)...).Output()
		if err != nil {
			return fmt.Errorf("docker %v: %w", what.list, err)
		}
		if ids := strings.Fields(string(out)); len(ids) > 0 {
			args := append(append([]string{"-H", e.Host()}, what.remove...), ids...)
			if out, err := exec.Command(docker, args...).CombinedOutput(); err != nil {
				return fmt.Errorf("docker %v: %w\n%s", what.remove, err, out)
			}
		}
	}
	return nil
}

// unmount takes away what a killed engine has left mounted.
func (e *Engine) unmount() {
	text, _ := os.ReadFile("/proc/self/mountinfo")
	lines := strings.Split(string(text), "\n")
	for i := len(lines) - 1; i >= 0; i-- { // inner ones first
		if fields := strings.Fields(lines[i]); len(fields) > 4 && strings.HasPrefix(fields[4], e.dir+"/") {
			_ = syscall.Unmount(fields[4], syscall.MNT_DETACH)
		}
	}
}

// logTail is the end of dockerd's log.
func (e *Engine) logTail() string {
	const most = 4 << 10
	data, err := os.ReadFile(filepath.Join(e.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-most):])
}

// app is the program of App, built once a test binary.
var app struct {
	sync.Once
	program []byte
	err     error
}

// App is the archive of an image called ref: the program in testdata/app, whose
// steps are the container's arguments. extra is put into the image as /extra, so
// that two images differ.
func App(tb testing.TB, ref, extra string) []byte {
	tb.Helper()
	archive, err := AppArchive(ref, extra)
	if err != nil {
		tb.Fatal(err)
	}
	return archive
}

// AppArchive is App outside of a test.
func AppArchive(ref, extra string) ([]byte, error) {
	app.Do(func() { app.program, app.err = build() })
	if app.err != nil {
		return nil, app.err
	}
	return Image(ref, []string{"/app"}, map[string][]byte{"app": app.program, "extra": []byte(extra)})
}

func build() ([]byte, error) {
	_, file, _, _ := runtime.Caller(0)
	if !filepath.IsAbs(file) { // built with -trimpath: the test runs inside the module
		file = filepath.Join(moduleRoot(), "internal", "dockertest", "dockertest.go")
	}
	dir, err := os.MkdirTemp("", "whimbrel-app-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "app")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, ".")
	cmd.Dir = filepath.Join(filepath.Dir(file), "testdata", "app")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the program for containers: %w\n%s", err, out)
	}
	return os.ReadFile(program)
}

// moduleRoot is the directory with go.mod above the working directory.
func moduleRoot() string {
	dir, err := os.Getwd()
	for err == nil && dir != "/" {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		dir = filepath.Dir(dir)
	}
	return "."
}
