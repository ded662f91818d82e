package bulk

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/yamux"

	"github.com/whimbrel-edge/whimbrel/models"
)

// Stream is one stream: a net.Conn. Close ends both directions: what the other
// end has not read yet still reaches it, what it sends from then on does not
// reach anybody.
type Stream struct {
	mux    *yamux.Stream
	closed func()
	once   sync.Once

	unanswered atomic.Bool // the other end's answer to the header has not been read
	refusal    atomic.Pointer[error]
	accepted   bool // the handler's own

	aborted  atomic.Bool
	moved    atomic.Int64 // when something last did, unix ns
	deadline atomic.Int64 // of Read, unix ns; 0 for none
	armed    atomic.Int64 // when a Read that waits is woken to look again, unix ns; 0: it is to be set
}

var _ net.Conn = (*Stream)(nil)

func newStream(m *yamux.Stream, closed func()) *Stream {
	s := &Stream{mux: m, closed: closed}
	s.moved.Store(time.Now().UnixNano())
	return s
}

// Accept tells whoever has opened the stream that it is served.
func (s *Stream) Accept() error {
	s.accepted = true
	return writePrefixed(s, answer{})
}

// refuse tells why it is not.
func (s *Stream) refuse(err error) error {
	p := models.ProblemOf(err)
	return writePrefixed(s, answer{Problem: &p})
}

// Refusal is why the other end has refused the stream, nil as long as it is not
// known that it has.
func (s *Stream) Refusal() error {
	if p := s.refusal.Load(); p != nil {
		return *p
	}
	return nil
}

// Read implements net.Conn. The first one of who has opened the stream fails with
// the *models.Error that the other end refuses it with, if it does.
func (s *Stream) Read(p []byte) (int, error) {
	if s.unanswered.Load() {
		if err := s.readAnswer(); err != nil {
			return 0, err
		}
	}
	return s.read(p)
}

// errLost ends a stream whose connection has ended under it.
var errLost = models.Errorf(models.KindTimeout, "the connection to the node was lost")

// readAnswer is called by one goroutine, as Read is.
func (s *Stream) readAnswer() error {
	if err := s.Refusal(); err != nil {
		return err
	}
	var a answer
	err := readPrefixed(readFunc(s.read), &a)
	switch {
	case errors.Is(err, errLost) || errors.Is(err, io.EOF) || errors.Is(err, yamux.ErrConnectionReset) || errors.Is(err, yamux.ErrSessionShutdown):
		err = models.Errorf(models.KindUnavailable, "the connection to the node was lost")
	case err == nil && a.Problem != nil:
		err = a.Problem.Err()
	}
	if err != nil {
		s.refusal.CompareAndSwap(nil, &err)
		return err
	}
	s.unanswered.Store(false)
	return nil
}

// Answered returns when the other end has answered the header: nil, or why it
// refuses the stream. It is a Read of nothing.
func (s *Stream) Answered() error {
	_, err := s.Read(nil)
	return err
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// read reads, and gives up when nothing has moved in either direction for StreamIdle.
func (s *Stream) read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		until := s.moved.Load() + int64(StreamIdle)
		if d := s.deadline.Load(); d != 0 {
			until = min(until, d)
		}
		// yamux wakes who waits each time it is set, so it is not for each piece: woken too
		// early does no harm.
		if armed := s.armed.Load(); until < armed || until-armed > int64(StreamIdle/16) {
			s.armed.Store(until)
			if err := s.mux.SetReadDeadline(time.Unix(0, until)); err != nil {
				return 0, err
			}
		}
		if s.aborted.Load() {
			return 0, net.ErrClosed
		}
		n, err := s.mux.Read(p)
		if err != nil && s.mux.Session().IsClosed() {
			return n, errLost // to yamux it is as if the other end had closed the stream
		}
		if n > 0 {
			s.moved.Store(time.Now().UnixNano())
		}
		var timeout net.Error
		if n == 0 && errors.As(err, &timeout) && timeout.Timeout() {
			s.armed.Store(0)
		}
		if n == 0 && errors.As(err, &timeout) && timeout.Timeout() && !s.aborted.Load() && time.Now().UnixNano() < s.moved.Load()+int64(StreamIdle) {
			if d := s.deadline.Load(); d == 0 || time.Now().UnixNano() < d {
				continue // the other direction has moved
			}
		}
		return n, err
	}
}

// Write implements net.Conn. It blocks while the other end does not read.
func (s *Stream) Write(p []byte) (int, error) {
	n, err := s.mux.Write(p)
	if n > 0 {
		s.moved.Store(time.Now().UnixNano())
	}
	return n, err
}

// Abort makes Reads and Writes fail at once, those that wait already too.
func (s *Stream) Abort() {
	s.aborted.Store(true)
	_ = s.mux.SetDeadline(time.Unix(1, 0)) // never fails
}

// Close implements net.Conn.
func (s *Stream) Close() error {
	s.once.Do(s.closed)
	err := s.mux.Close()
	s.Abort()
	return err
}

// LocalAddr implements net.Conn.
func (s *Stream) LocalAddr() net.Addr { return s.mux.LocalAddr() }

// RemoteAddr implements net.Conn.
func (s *Stream) RemoteAddr() net.Addr { return s.mux.RemoteAddr() }

// SetDeadline implements net.Conn.
func (s *Stream) SetDeadline(t time.Time) error {
	return errors.Join(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn.
func (s *Stream) SetReadDeadline(t time.Time) error {
	defer s.armed.Store(0)
	if t.IsZero() {
		s.deadline.Store(0)
		return nil
	}
	s.deadline.Store(t.UnixNano())
	return s.mux.SetReadDeadline(t)
}

// SetWriteDeadline implements net.Conn.
func (s *Stream) SetWriteDeadline(t time.Time) error {
	if s.aborted.Load() {
		return net.ErrClosed
	}
	return s.mux.SetWriteDeadline(t)
}

// Splice carries bytes both ways until one end has no more, and closes both.
func Splice(a, b net.Conn) {
	var wait sync.WaitGroup
	end := func() { _ = a.Close(); _ = b.Close() }
	wait.Go(func() { carry(a, b); end() })
	carry(b, a)
	end()
	wait.Wait()
}

// carry copies in pieces of a length at which little is lost between them.
func carry(to, from net.Conn) {
	b := pieces.Get().(*[pieceBytes]byte)
	defer pieces.Put(b)
	_, _ = io.CopyBuffer(writerOnly{to}, readerOnly{from}, b[:])
}

const pieceBytes = 64 << 10

var pieces = sync.Pool{New: func() any { return new([pieceBytes]byte) }}

// writerOnly and readerOnly hide what would have io.CopyBuffer take buffers of its own.
type writerOnly struct{ io.Writer }

type readerOnly struct{ io.Reader }
