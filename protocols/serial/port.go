package serial

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// ErrGone says that the device went away: the cable was pulled, the adapter
// removed, the other end of a pty closed. The Port is of no more use; Close it
// and Open again when the device is back.
var ErrGone = errors.New("serial: the device is gone")

// ErrInUse says that another Port of this process has the device, or that an
// earlier one could not let go of it because the device does not take what was
// written.
var ErrInUse = errors.New("serial: the device is in use")

// tick is how long one read of the device takes at most, and so about how long
// Close does.
const tick = 100 * time.Millisecond

// maxUnread bounds what is kept for a reader that does not come. When it is
// full the oldest bytes go: of a device that talks unasked the newest matter.
const maxUnread = 64 << 10

// maxWrite is the longest Write.
const maxWrite = 64 << 10

// device is what a tarm port can do.
type device interface {
	io.ReadWriteCloser
	Flush() error
}

// Port is an open serial port: a net.Conn, so that deadlines and errors are
// those of net. Reads and writes beyond their deadline fail with
// os.ErrDeadlineExceeded, after Close with net.ErrClosed, and without the
// device with ErrGone. All methods may be called concurrently.
type Port struct {
	cfg    Config
	dev    device
	held   *holder
	reader chan struct{} // closed when the reading loop has ended
	closed chan struct{}

	writing chan struct{} // a one-slot lock, so that waiting for it can end

	mu      sync.Mutex
	unread  []byte
	failed  error         // why nothing more will be read
	news    chan struct{} // closed and replaced when unread, failed or a deadline change
	readBy  time.Time
	writeBy time.Time
	over    bool // Close was called
}

var _ net.Conn = (*Port)(nil)

// Open opens the device. While another Port of this process has it, it waits
// until ctx ends and then fails with ErrInUse.
func Open(ctx context.Context, cfg Config) (*Port, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	held, err := hold(ctx, cfg.Device)
	if err != nil {
		return nil, err
	}
	dev, err := openDevice(cfg)
	if err != nil {
		held.release()
		var of *os.PathError
		if errors.As(err, &of) { // says the path already
			return nil, fmt.Errorf("serial: %w", err)
		}
		return nil, fmt.Errorf("serial: open %s: %w", cfg.Device, err)
	}
	p := &Port{cfg: cfg, dev: dev, held: held, reader: make(chan struct{}), closed: make(chan struct{}),
		writing: make(chan struct{}, 1), news: make(chan struct{})}
	go p.readLoop() // ends with Close, which waits for it, or with the device
	return p, nil
}

// Config is how the port was opened.
func (p *Port) Config() Config { return p.cfg }

// readLoop takes in what the device sends. tarm's reads neither know deadlines
// nor can be interrupted, but each ends within tick.
func (p *Port) readLoop() {
	defer close(p.reader)
	buf := make([]byte, 4096)
	hasty := 0
	for {
		began := time.Now()
		n, err := p.dev.Read(buf)
		p.mu.Lock()
		if p.over {
			p.mu.Unlock()
			return
		}
		if n > 0 {
			if spill := len(p.unread) + n - maxUnread; spill > 0 {
				p.unread = append(p.unread[:0], p.unread[min(spill, len(p.unread)):]...)
			}
			p.unread = append(p.unread, buf[:n]...)
			p.tellLocked()
		}
		switch {
		case n > 0:
			hasty = 0
		case (err == nil || err == io.EOF) && time.Since(began) >= tick/2:
			hasty = 0 // nothing came
		case err == nil || err == io.EOF:
			// Nothing, too soon: once may be chance, twice is a hang-up.
			if hasty++; hasty >= 2 {
				p.failed = ErrGone
			}
		default:
			p.failed = fmt.Errorf("%w: %v", ErrGone, err)
		}
		failed := p.failed != nil
		if failed {
			p.tellLocked()
		}
		p.mu.Unlock()
		if failed {
			return
		}
	}
}

func (p *Port) tellLocked() {
	close(p.news)
	p.news = make(chan struct{})
}

// Read waits until there is at least one byte, the read deadline passes, or
// the device is gone.
func (p *Port) Read(b []byte) (int, error) {
	for {
		p.mu.Lock()
		by, news := p.readBy, p.news
		switch {
		case p.over:
			p.mu.Unlock()
			return 0, net.ErrClosed
		case expired(by):
			p.mu.Unlock()
			return 0, os.ErrDeadlineExceeded
		case len(p.unread) > 0 || len(b) == 0:
			n := copy(b, p.unread)
			p.unread = append(p.unread[:0], p.unread[n:]...)
			p.mu.Unlock()
			return n, nil
		case p.failed != nil:
			err := p.failed
			p.mu.Unlock()
			return 0, err
		}
		p.mu.Unlock()
		wait(news, by)
	}
}

func expired(by time.Time) bool { return !by.IsZero() && !time.Now().Before(by) }

// wait returns when there are news or the time has come.
func wait(news <-chan struct{}, by time.Time) {
	if by.IsZero() {
		<-news
		return
	}
	t := time.NewTimer(time.Until(by))
	defer t.Stop()
	select {
	case <-news:
	case <-t.C:
	}
}

// Write hands b to the device. It returns when the system has taken all of it,
// which is before the last character is on the wire. A write that the device
// does not take before the deadline fails, and with it the port: how much went
// out is not known.
func (p *Port) Write(b []byte) (int, error) {
	if len(b) > maxWrite {
		return 0, fmt.Errorf("serial: a write of %d bytes is more than %d", len(b), maxWrite)
	}
	for {
		p.mu.Lock()
		by, news, over, failed := p.writeBy, p.news, p.over, p.failed
		p.mu.Unlock()
		switch {
		case over:
			return 0, net.ErrClosed
		case failed != nil:
			return 0, failed
		case expired(by):
			return 0, os.ErrDeadlineExceeded
		}
		select {
		case p.writing <- struct{}{}:
			return p.write(b)
		default:
		}
		// Somebody else writes. Its end is told as news.
		wait(news, by)
	}
}

// write has the lock p.writing.
func (p *Port) write(b []byte) (int, error) {
	type outcome struct {
		n   int
		err error
	}
	done := make(chan outcome, 1)
	own := append([]byte(nil), b...) // outlives this call if the device is stuck
	go func() {                      // Close waits for it, or leaves it to the holder
		n, err := p.dev.Write(own)
		done <- outcome{n, err}
		<-p.writing
		p.mu.Lock()
		p.tellLocked()
		p.mu.Unlock()
	}()
	for {
		p.mu.Lock()
		by, news, over := p.writeBy, p.news, p.over
		p.mu.Unlock()
		select {
		case out := <-done:
			if out.err != nil {
				out.err = fmt.Errorf("%w: %v", ErrGone, out.err)
				p.fail(out.err)
			}
			return out.n, out.err
		default:
		}
		switch {
		case over:
			return 0, net.ErrClosed
		case expired(by):
			p.fail(fmt.Errorf("%w: it does not take what is written", ErrGone))
			return 0, os.ErrDeadlineExceeded
		}
		wait(news, by)
	}
}

func (p *Port) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failed == nil {
		p.failed = err
		p.tellLocked()
	}
}

// Flush drops what was received and not read, and what was written and not
// sent.
func (p *Port) Flush() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.over:
		return net.ErrClosed
	case p.failed != nil:
		return p.failed
	}
	p.unread = p.unread[:0]
	if err := p.dev.Flush(); err != nil {
		p.failed = fmt.Errorf("%w: %v", ErrGone, err)
		p.tellLocked()
		return p.failed
	}
	return nil
}

// Gone tells whether the port has failed, without waiting.
func (p *Port) Gone() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failed != nil || p.over
}

// Close lets go of the device. It takes up to about tick, after which nothing
// of the port is left, unless the device does not take what was written: then
// Close fails with ErrInUse, and so does Open until the device lets go.
func (p *Port) Close() error {
	p.mu.Lock()
	if p.over {
		p.mu.Unlock()
		<-p.closed
		return nil
	}
	p.over = true
	_ = p.dev.Flush() // lets most drivers end a write that is stuck
	p.tellLocked()
	p.mu.Unlock()
	defer close(p.closed)

	let := make(chan struct{})
	go func() { // ends when the device has let go of the last write
		defer close(let)
		<-p.reader
		p.writing <- struct{}{}
		_ = p.dev.Close() // nothing can be done about it, and nothing is lost
		p.held.release()
	}()
	t := time.NewTimer(5 * tick)
	defer t.Stop()
	select {
	case <-let:
		return nil
	case <-t.C:
		return fmt.Errorf("%w: %s does not take what was written", ErrInUse, p.cfg.Device)
	}
}

// SetDeadline implements net.Conn.
func (p *Port) SetDeadline(t time.Time) error { return p.deadline(&t, &t) }

// SetReadDeadline implements net.Conn.
func (p *Port) SetReadDeadline(t time.Time) error { return p.deadline(&t, nil) }

// SetWriteDeadline implements net.Conn.
func (p *Port) SetWriteDeadline(t time.Time) error { return p.deadline(nil, &t) }

func (p *Port) deadline(read, write *time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return net.ErrClosed
	}
	if read != nil {
		p.readBy = *read
	}
	if write != nil {
		p.writeBy = *write
	}
	p.tellLocked()
	return nil
}

// addr is a port's address: the device's path.
type addr string

func (addr) Network() string  { return "serial" }
func (a addr) String() string { return string(a) }

// LocalAddr implements net.Conn.
func (p *Port) LocalAddr() net.Addr { return addr(p.cfg.Device) }

// RemoteAddr implements net.Conn.
func (p *Port) RemoteAddr() net.Addr { return addr(p.cfg.Device) }

// holders are the devices that this process has open. The system would let
// them be opened twice, and the two would steal each other's answers.
var holders struct {
	mu    sync.Mutex
	byDev map[string]*holder
}

type holder struct {
	path string
	free chan struct{} // closed when the device is let go of
}

func hold(ctx context.Context, path string) (*holder, error) {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // one device by several names is one device
	}
	for {
		holders.mu.Lock()
		h := holders.byDev[path]
		if h == nil {
			h = &holder{path: path, free: make(chan struct{})}
			if holders.byDev == nil {
				holders.byDev = map[string]*holder{}
			}
			holders.byDev[path] = h
			holders.mu.Unlock()
			return h, nil
		}
		holders.mu.Unlock()
		select {
		case <-h.free:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %s", ErrInUse, path)
		}
	}
}

func (h *holder) release() {
	holders.mu.Lock()
	defer holders.mu.Unlock()
	delete(holders.byDev, h.path)
	close(h.free)
}
