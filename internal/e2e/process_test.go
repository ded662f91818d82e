package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/internal/childproc"
	"github.com/whimbrel-edge/whimbrel/internal/holdport"
)

// process is a program that a test starts, kills and starts again. Its output
// of all lives goes to two files, whose ends are shown when the test fails.
type process struct {
	t    testing.TB
	name string
	path string
	dir  string   // holds the output
	wd   string   // working directory, "" for dir
	env  []string // beside environment
	in   *os.File // its standard input, nil for none

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited <-chan struct{} // closed when cmd is gone
	lives  int
}

func newProcess(t testing.TB, name, path string) *process {
	p := &process{t: t, name: name, path: path, dir: t.TempDir()}
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("%s, started %d times, ends:\n%s%s", p.name, p.lives, tail(p.stdout(), 2000), tail(p.stderr(), 6000))
		}
	})
	return p
}

func (p *process) file(name string) string { return filepath.Join(p.dir, name) }

func (p *process) stdout() string { return read(p.file("stdout")) }
func (p *process) stderr() string { return read(p.file("stderr")) }

func read(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(text)
}

// tail is the end of a text, from the beginning of a line.
func tail(text string, most int) string {
	if len(text) <= most {
		return text
	}
	text = text[len(text)-most:]
	return "…" + text[strings.IndexByte(text, '\n')+1:]
}

// start runs the program. It must not be running.
func (p *process) start(args ...string) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		p.t.Fatalf("%s is running", p.name)
	}
	out, err := os.OpenFile(p.file("stdout"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		p.t.Fatal(err)
	}
	defer out.Close()
	errs, err := os.OpenFile(p.file("stderr"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		p.t.Fatal(err)
	}
	defer errs.Close()
	cmd := exec.Command(p.path, args...)
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = append(environment(p.dir), p.env...), p.dir, out, errs
	if p.wd != "" {
		cmd.Dir = p.wd
	}
	if p.in != nil {
		cmd.Stdin = p.in
	}
	started, err := childproc.Start(cmd, syscall.SIGKILL) // the test's cleanup kills and awaits it
	if err != nil {
		p.t.Fatal(err)
	}
	p.cmd, p.exited = cmd, started.Exited
	p.lives++
}

// environment is what a program of ours sees of the outside: the binaries in
// the PATH, and no settings that the test did not give.
func environment(home string) []string {
	env := []string{"HOME=" + home, "XDG_CONFIG_HOME=" + home, "TZ=UTC", "PATH=" + binaries.dir + ":" + os.Getenv("PATH")}
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		switch {
		case name == "HOME", name == "XDG_CONFIG_HOME", name == "TZ", name == "PATH", strings.HasPrefix(name, "WHIMBREL_"), strings.HasPrefix(name, "GO"):
		default:
			env = append(env, v)
		}
	}
	return env
}

// kill ends the process with SIGKILL and waits for it. Killing what does not run
// does nothing.
func (p *process) kill() { p.signal(syscall.SIGKILL) }

// stop asks the process to end and waits until it has.
func (p *process) stop() {
	p.t.Helper()
	if !p.signal(syscall.SIGTERM) {
		p.t.Errorf("%s did not stop within 20s of SIGTERM", p.name)
		p.kill()
	}
}

func (p *process) signal(s syscall.Signal) bool {
	p.mu.Lock()
	cmd, exited := p.cmd, p.exited
	p.mu.Unlock()
	if cmd == nil {
		return true
	}
	_ = cmd.Process.Signal(s) // fails for one that is gone already
	select {
	case <-exited:
	case <-time.After(20 * time.Second):
		return false
	}
	p.mu.Lock()
	p.cmd = nil
	p.mu.Unlock()
	return true
}

// pid is 0 when it does not run.
func (p *process) pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// gone reports whether the process ended by itself, and how.
func (p *process) gone() (string, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return "not started", true
	}
	select {
	case <-p.exited:
		return p.cmd.ProcessState.String(), true
	default:
		return "", false
	}
}

// result is what a command that has ended said.
type result struct {
	stdout, stderr string
	code           int
}

func (r result) String() string {
	return fmt.Sprintf("exit %d\nstdout: %s\nstderr: %s", r.code, r.stdout, r.stderr)
}

// run runs a program to its end, which must come within a minute.
func run(t testing.TB, stdin, path string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	var stdout, stderr bytes.Buffer
	dir := t.TempDir()
	cmd.Env, cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = environment(dir), dir, strings.NewReader(stdin), &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s %v: %v", path, args, err)
	}
	if ctx.Err() != nil {
		t.Fatalf("%s %v: still running after a minute\n%s%s", path, args, stdout.String(), stderr.String())
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// step is a part of a story: one that fails ends the story.
func step(t *testing.T, name string, f func(t *testing.T)) {
	t.Helper()
	began := time.Now()
	f(t)
	t.Logf("%s: %v", name, time.Since(began).Round(time.Millisecond))
}

// eventually waits until holds returns nil. What it returned last is shown when
// it never does.
func eventually(t testing.TB, limit time.Duration, what string, holds func() error) {
	t.Helper()
	if err := awaited(limit, holds); err != nil {
		t.Fatalf("%s: not within %v: %v", what, limit, err)
	}
}

func awaited(limit time.Duration, holds func() error) error {
	for deadline := time.Now().Add(limit); ; {
		err := holds()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(25 * time.Millisecond) //sleep: polls another process
	}
}

// holdPort keeps a port for a server that goes away and comes back.
func holdPort(t testing.TB) string {
	t.Helper()
	p, err := holdport.Hold()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p.Addr()
}
