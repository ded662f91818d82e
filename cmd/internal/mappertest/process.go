package mappertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is a program that the test starts and ends: the mapper or the device.
type process struct {
	name string
	args []string
	env  []string
	dir  string    // where it runs; "" is here
	out  io.Writer // what it prints

	mu   sync.Mutex
	cmd  *exec.Cmd     // nil when it was not started; under mu, as a device's Slow signals from a timer
	over chan struct{} // closed when it is gone
	how  error         // it ended; read after over
}

func (p *process) start() error {
	cmd := exec.Command(p.args[0], p.args[1:]...)
	cmd.Dir = p.dir
	cmd.Env = append(os.Environ(), p.env...)
	cmd.Stdout, cmd.Stderr = p.out, p.out
	cmd.WaitDelay = time.Second // for what its children keep open
	// A group of its own: what it starts ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	over := make(chan struct{})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cmd, p.over = cmd, over
	go func() { // ends with the process, which end sees to
		p.how = cmd.Wait()
		close(over)
	}()
	return nil
}

func (p *process) running() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.over:
		return false
	default:
		return true
	}
}

// signal sends a signal to the process and all that it started.
func (p *process) signal(s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		_ = syscall.Kill(-p.cmd.Process.Pid, s) // one that is gone is fine
	}
}

// stop asks it to end, and reports whether it did within d.
func (p *process) stop(d time.Duration) bool {
	if p.cmd == nil {
		return true
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.over:
		return true
	case <-time.After(d):
		return false
	}
}

// kill ends it, and waits.
func (p *process) kill() {
	if p.cmd == nil {
		return
	}
	p.signal(syscall.SIGKILL)
	<-p.over
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cmd = nil
}

// usage is what a process holds.
type usage struct {
	files, threads int
	memory         int64 // resident, bytes
}

func (u usage) String() string {
	return fmt.Sprintf("%d open files, %d threads, %.1f MiB", u.files, u.threads, float64(u.memory)/(1<<20))
}

var errNoProc = errors.New("what a process holds can only be told on Linux")

// usage reads what the process, without those that it started, holds.
func (p *process) usage() (usage, error) {
	dir := filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid))
	files, err := os.ReadDir(filepath.Join(dir, "fd"))
	if err != nil {
		return usage{}, errNoProc
	}
	text, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return usage{}, errNoProc
	}
	u := usage{files: len(files)}
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(line, ":")
		fields := strings.Fields(rest)
		if len(fields) == 0 {
			continue
		}
		n, err := strconv.ParseInt(fields[0], 10, 64)
		switch {
		case err != nil:
		case name == "Threads":
			u.threads = int(n)
		case name == "VmRSS":
			u.memory = n << 10
		}
	}
	return u, nil
}

// ended says how it ended, and what it printed last. It has ended.
func (p *process) ended() error {
	how := "exit status 0"
	if p.how != nil {
		how = p.how.Error()
	}
	words := ""
	if out, ok := p.out.(*tail); ok {
		if words = strings.TrimSpace(out.String()); words != "" {
			words = ": " + words
		}
	}
	return fmt.Errorf("%s has ended (%s; %s)%s", p.name, strings.Join(p.args, " "), how, words)
}

// listening waits until the process listens at tcp://addr.
func (p *process) listening(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	for {
		if listens(ctx, addr) {
			return nil
		}
		select {
		case <-p.over:
			return p.ended()
		case <-ctx.Done():
			return fmt.Errorf("%s (%s) does not listen at %s, where ready says that it does, within %v", p.name, strings.Join(p.args, " "), addr, readyWithin)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// listens reports whether somebody does at tcp://addr.
func listens(ctx context.Context, addr string) bool {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", strings.TrimPrefix(addr, "tcp://"))
	if err == nil {
		_ = conn.Close()
	}
	return err == nil
}

// command runs a command of the test file to its end.
func command(ctx context.Context, dir string, args []string) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	text []byte
}

const maxTail = 16 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if len(t.text) > maxTail {
		t.text = append([]byte("…"), t.text[len(t.text)-maxTail:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text)
}
