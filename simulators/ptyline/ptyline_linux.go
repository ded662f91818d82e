package ptyline

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// listener is a serial device that others open by a path, which is a
// symbolic link to the pty of the moment. It accepts one connection, the far
// end of the line, at once, and when that is hung up on, the next.
type listener struct {
	link string
	temp string // directory to remove at the end, or ""

	mu     sync.Mutex
	next   *conn         // made and not accepted yet
	freed  chan struct{} // one slot: the last connection is gone
	closed chan struct{}
	over   bool
}

// Listen makes a pty under a path, "" for one that is free. The directory of
// the path must exist; a symbolic link that is there is replaced, as one that
// was left over, anything else is not.
func Listen(path string) (net.Listener, error) {
	l := &listener{link: path, freed: make(chan struct{}, 1), closed: make(chan struct{})}
	dir := filepath.Dir(path)
	if path == "" {
		temp, err := os.MkdirTemp("", tempPrefix)
		if err != nil {
			return nil, err
		}
		l.link, l.temp = filepath.Join(temp, "tty"), temp
	} else if matched, _ := filepath.Match(tempPrefix+"*", filepath.Base(dir)); matched && filepath.Base(path) == "tty" {
		// One that was free before, plugged in again.
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		l.temp = dir
	}
	c, err := l.open()
	if err != nil {
		l.removeTemp()
		return nil, err
	}
	l.next = c
	return l, nil
}

const tempPrefix = "whimbrel-line-"

func (l *listener) removeTemp() {
	if l.temp != "" {
		_ = os.Remove(l.temp) // fails when somebody keeps something of theirs in it
	}
}

// open makes a pty, raw so that no byte means anything to it.
func (l *listener) open() (*conn, error) {
	if info, err := os.Lstat(l.link); err == nil && info.Mode()&os.ModeSymlink == 0 {
		return nil, fmt.Errorf("%s is there already, and is no symbolic link", l.link)
	}
	far, near, err := pty.Open()
	if err != nil {
		return nil, fmt.Errorf("make a pty: %w", err)
	}
	fail := func(err error) (*conn, error) {
		far.Close()
		near.Close()
		return nil, fmt.Errorf("make a pty: %w", err)
	}
	settings, err := unix.IoctlGetTermios(int(near.Fd()), unix.TCGETS)
	if err != nil {
		return fail(err)
	}
	settings.Iflag, settings.Oflag, settings.Lflag = unix.IGNPAR, 0, 0
	settings.Cflag = settings.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8 | unix.CREAD | unix.CLOCAL
	settings.Cc[unix.VMIN], settings.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(int(near.Fd()), unix.TCSETS, settings); err != nil {
		return fail(err)
	}
	// pty has asked for the descriptor, after which a file may no longer know
	// deadlines: the new one does.
	fd, err := unix.FcntlInt(far.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fail(err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return fail(err)
	}
	far.Close()
	c := &conn{File: os.NewFile(uintptr(fd), l.link), near: near, from: l}
	next := fmt.Sprintf("%s.%d", l.link, os.Getpid())
	os.Remove(next)
	if err = os.Symlink(near.Name(), next); err == nil {
		err = os.Rename(next, l.link)
	}
	if err != nil {
		os.Remove(next)
		c.File.Close()
		return fail(err)
	}
	return c, nil
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	l.mu.Lock()
	if c := l.next; c != nil {
		l.next = nil
		l.mu.Unlock()
		return c, nil
	}
	l.mu.Unlock()
	select {
	case <-l.closed:
		return nil, net.ErrClosed
	case <-l.freed:
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return nil, net.ErrClosed
	}
	c, err := l.open()
	if err != nil {
		l.freed <- struct{}{} // for the next Accept; it was just emptied
		return nil, err
	}
	return c, nil
}

// Close implements net.Listener.
func (l *listener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return nil
	}
	l.over = true
	close(l.closed)
	if l.next != nil {
		l.next.hangUp()
	}
	l.removeTemp()
	return nil
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return addr(l.link) }

type addr string

func (addr) Network() string  { return "pty" }
func (a addr) String() string { return string(a) }

// conn is the far end of the line. It holds the near end open, too, so that
// the line lives while nobody has it open.
type conn struct {
	*os.File
	near *os.File
	from *listener
	once sync.Once
}

var _ net.Conn = (*conn)(nil)

// Write takes it that nobody listens when the line is full for a while, and
// drops what is in it, as a port does that is not open.
func (c *conn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(full)); err != nil {
		return 0, err
	}
	n, err := c.File.Write(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return n, unix.IoctlSetInt(int(c.near.Fd()), unix.TCFLSH, unix.TCIFLUSH)
	}
	return n, err
}

// full is how long a line may be full.
const full = 200 * time.Millisecond

// Close hangs up on whoever has the line open. It returns when nothing of the
// line is left, whoever closes it, so that the path may be used again.
func (c *conn) Close() error {
	c.once.Do(func() {
		c.hangUp()
		select {
		case c.from.freed <- struct{}{}:
		default: // told already
		}
		c.from.mu.Lock()
		defer c.from.mu.Unlock()
		if c.from.over {
			c.from.removeTemp()
		}
	})
	return nil
}

func (c *conn) hangUp() {
	if to, err := os.Readlink(c.from.link); err == nil && to == c.near.Name() {
		_ = os.Remove(c.from.link) // of a cable that is out nothing is left
	}
	c.near.Close()
	c.File.Close()
}

func (c *conn) LocalAddr() net.Addr  { return addr(c.from.link) }
func (c *conn) RemoteAddr() net.Addr { return addr(c.from.link) }
