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
	out  io.Writer // what it prints

	mu   sync.Mutex
	cmd  *exec.Cmd     // nil when it was not started; under mu, as a device's Slow signals from a timer
	over chan struct{} // closed when it is gone
}

func (p *process) start() error {
	cmd := exec.Command(p.args[0], p.args[1:]...)
	cmd.Env = append(os.Environ(), p.env...)
	cmd.Stdout, cmd.Stderr = p.out, p.out
	cmd.WaitDelay = time.Second // for what its children keep open
	// A group of its own: what it starts ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	over := make(chan struct{})
	go func() { // ends with the process, which end sees to
		_ = cmd.Wait()
		close(over)
	}()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cmd, p.over = cmd, over
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

// listening waits until somebody listens at tcp://addr, or nobody does.
func listening(ctx context.Context, addr string, want bool) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", strings.TrimPrefix(addr, "tcp://"))
		if err == nil {
			_ = conn.Close()
		}
		if (err == nil) == want {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the device is not ready at %s within %v", addr, readyWithin)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// command runs a command of the test file to its end.
func command(ctx context.Context, args []string) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
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
