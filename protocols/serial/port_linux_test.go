package serial

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
)

// line is a pty whose far end is the test's.
type line struct {
	*os.File        // the far end
	path     string // of the port's end
	near     *os.File
}

func newLine(t *testing.T) *line {
	t.Helper()
	far, near, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	// A file of its own that knows deadlines: pty's own has given its
	// descriptor away.
	fd, err := syscall.Dup(int(far.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	far.Close()
	if err := syscall.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	l := &line{File: os.NewFile(uintptr(fd), "far end"), path: near.Name(), near: near}
	t.Cleanup(l.unplug)
	return l
}

// unplug hangs up on the port.
func (l *line) unplug() {
	l.near.Close()
	l.File.Close()
}

func (l *line) open(t *testing.T) *Port {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	p, err := Open(ctx, Config{Device: l.path, Baud: 115200, DataBits: 8, Parity: None, StopBits: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func within(t *testing.T, what string, low, high time.Duration, f func()) {
	t.Helper()
	began := time.Now()
	f()
	if took := time.Since(began); took < low || took > high {
		t.Errorf("%s took %v, want %v to %v", what, took, low, high)
	}
}

func TestBothWays(t *testing.T) {
	l := newLine(t)
	p := l.open(t)
	p.SetDeadline(time.Now().Add(30 * time.Second))
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i) // no character means anything to the line
	}
	got := make([]byte, 256)
	if _, err := p.Write(all); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(l, got); err != nil || !bytes.Equal(got, all) {
		t.Fatalf("out: % x, %v", got, err)
	}
	clear(got)
	for _, b := range all { // byte by byte
		l.Write([]byte{b})
	}
	if _, err := io.ReadFull(p, got); err != nil || !bytes.Equal(got, all) {
		t.Fatalf("in: % x, %v", got, err)
	}
	if p.LocalAddr().String() != l.path || p.Config().Baud != 115200 || p.Gone() {
		t.Errorf("%v %+v %v", p.LocalAddr(), p.Config(), p.Gone())
	}
}

func TestDeadlines(t *testing.T) {
	l := newLine(t)
	p := l.open(t)
	b := make([]byte, 8)
	least := time.Hour
	for range 10 { // a machine may be busy for a while
		began := time.Now()
		p.SetReadDeadline(began.Add(30 * time.Millisecond))
		_, err := p.Read(b)
		var ne net.Error
		if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &ne) || !ne.Timeout() {
			t.Error(err)
		}
		if least = min(least, time.Since(began)); least < 90*time.Millisecond {
			break
		}
	}
	if least < 25*time.Millisecond || least >= 90*time.Millisecond {
		t.Errorf("a read of 30ms took %v", least)
	}
	// Silence for longer than several of the system's timeouts is no hang-up.
	p.SetReadDeadline(time.Now().Add(5 * tick))
	if _, err := p.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) || p.Gone() {
		t.Error(err, p.Gone())
	}
	// A deadline set meanwhile ends a read without one.
	p.SetReadDeadline(time.Time{})
	done := make(chan error, 1)
	go func() { _, err := p.Read(b); done <- err }()
	p.SetDeadline(time.Unix(1, 0))
	if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	if _, err := p.Write(b); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	// And the port lives.
	p.SetDeadline(time.Now().Add(30 * time.Second))
	l.Write([]byte("x"))
	if n, err := p.Read(b); n != 1 || err != nil {
		t.Error(n, err)
	}
}

func TestFlushDropsWhatIsUnread(t *testing.T) {
	l := newLine(t)
	p := l.open(t)
	p.SetDeadline(time.Now().Add(30 * time.Second))
	l.Write([]byte("late"))
	b := make([]byte, 1)
	if _, err := p.Read(b); err != nil || b[0] != 'l' {
		t.Fatal(err)
	}
	if err := p.Flush(); err != nil {
		t.Fatal(err)
	}
	l.Write([]byte("new"))
	if _, err := p.Read(b); err != nil || b[0] != 'n' {
		t.Errorf("%q, %v", b, err)
	}
}

func TestHangUp(t *testing.T) {
	l := newLine(t)
	p := l.open(t)
	p.SetDeadline(time.Now().Add(30 * time.Second))
	l.Write([]byte("x"))
	b := make([]byte, 1)
	if _, err := p.Read(b); err != nil {
		t.Fatal(err)
	}
	within(t, "noticing", 0, 10*time.Second, func() {
		l.unplug()
		if _, err := p.Read(b); !errors.Is(err, ErrGone) {
			t.Errorf("read: %v", err)
		}
	})
	if !p.Gone() {
		t.Error("the port believes in its device")
	}
	if _, err := p.Write(b); !errors.Is(err, ErrGone) {
		t.Errorf("write: %v", err)
	}
	if err := p.Flush(); !errors.Is(err, ErrGone) {
		t.Errorf("flush: %v", err)
	}
	within(t, "closing", 0, 10*time.Second, func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := Open(t.Context(), p.Config()); err == nil {
		t.Error("the device that is gone was opened")
	}
}

// TestReopenUnderTheSameName: a cable pulled and put back, at a path that
// stays, as /dev/serial/by-id does.
func TestReopenUnderTheSameName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "port")
	var l *line
	for range 3 {
		l = newLine(t)
		os.Remove(path)
		if err := os.Symlink(l.path, path); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		p, err := Open(ctx, Config{Device: path, Baud: 9600, DataBits: 8, Parity: Even, StopBits: 1})
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		p.SetDeadline(time.Now().Add(30 * time.Second))
		l.Write([]byte("x"))
		if n, err := p.Read(make([]byte, 1)); n != 1 || err != nil {
			t.Error(n, err)
		}
		l.unplug()
		if _, err := p.Read(make([]byte, 1)); !errors.Is(err, ErrGone) {
			t.Error(err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestStuckPeer: a device that takes nothing costs a write its deadline and no
// more.
func TestStuckPeer(t *testing.T) {
	l := newLine(t)
	p := l.open(t)
	within(t, "the write", 100*time.Millisecond, 10*time.Second, func() {
		p.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		if _, err := p.Write(make([]byte, maxWrite)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("write: %v", err)
		}
	})
	p.SetDeadline(time.Now().Add(30 * time.Second))
	within(t, "the next write", 0, 10*time.Second, func() {
		if _, err := p.Write([]byte("x")); !errors.Is(err, ErrGone) {
			t.Errorf("next write: %v", err)
		}
	})
	var closing error
	within(t, "closing", 0, 10*time.Second, func() { closing = p.Close() })
	if closing != nil { // the system holds on to it: so must we, and not open it again and again
		if !errors.Is(closing, ErrInUse) {
			t.Error(closing)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if _, err := Open(ctx, p.Config()); !errors.Is(err, ErrInUse) {
			t.Errorf("open: %v", err)
		}
	}
	// It takes something at last: the device is free again.
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		io.Copy(io.Discard, l)
	}()
	again := l.open(t)
	again.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := again.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	again.Close()
	l.unplug()
	<-stop
}

func TestCloseEndsEverything(t *testing.T) {
	l := newLine(t)
	p := l.open(t)
	reads, writes := make(chan error, 1), make(chan error, 1)
	go func() { _, err := p.Read(make([]byte, 1)); reads <- err }()
	go func() { _, err := p.Write(make([]byte, maxWrite)); writes <- err }()
	go io.Copy(io.Discard, l) // ends with the line
	within(t, "closing", 0, 10*time.Second, func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := <-reads; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if err := <-writes; err != nil && !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if err := p.SetDeadline(time.Now()); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if _, err := p.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if err := p.Flush(); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

func TestOneOwner(t *testing.T) {
	l := newLine(t)
	p := l.open(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := Open(ctx, p.Config()); !errors.Is(err, ErrInUse) {
		t.Fatalf("opened twice: %v", err)
	}
	got := make(chan *Port, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		q, err := Open(ctx, p.Config())
		if err != nil {
			t.Error(err)
		}
		got <- q
	}()
	p.Close()
	if q := <-got; q != nil {
		q.Close()
	}
}

// TestOverflowKeepsTheNewest: a device that talks and nobody listens.
func TestOverflowKeepsTheNewest(t *testing.T) {
	l := newLine(t)
	p := l.open(t)
	l.SetWriteDeadline(time.Now().Add(10 * time.Second))
	chunk := bytes.Repeat([]byte("old."), 256)
	for range 2 * maxUnread / len(chunk) {
		if _, err := l.Write(chunk); err != nil {
			t.Fatal(err)
		}
	}
	l.Write([]byte("the end"))
	p.SetReadDeadline(time.Now().Add(30 * time.Second))
	got := make([]byte, 0, 3*maxUnread)
	for !bytes.HasSuffix(got, []byte("the end")) {
		n, err := p.Read(got[len(got):cap(got)])
		if err != nil {
			t.Fatalf("after %d bytes: %v", len(got), err)
		}
		got = got[:len(got)+n]
	}
}

func TestOpenErrors(t *testing.T) {
	good := Config{Device: "/dev/null", Baud: 9600, DataBits: 8, Parity: None, StopBits: 1}
	for what, cfg := range map[string]Config{
		"no device":    {Device: "/dev/whimbrel-none", Baud: 9600, DataBits: 8, Parity: None, StopBits: 1},
		"no tty":       good,
		"no path":      {Device: "ttyUSB0", Baud: 9600, DataBits: 8, Parity: None, StopBits: 1},
		"zero":         {},
		"unknown baud": {Device: "/dev/null", Baud: 1, DataBits: 8, Parity: None, StopBits: 1},
	} {
		for range 2 { // the first leaves nothing behind
			p, err := Open(t.Context(), cfg)
			if err == nil {
				p.Close()
				t.Errorf("%s: opened", what)
			}
			if errors.Is(err, ErrInUse) {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
}
