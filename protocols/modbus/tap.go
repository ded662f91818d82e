package modbus

import (
	"errors"
	"slices"
	"sync/atomic"
	"time"
)

// Exchange is one request as it went over the line, for whoever taps it.
type Exchange struct {
	Began  time.Time
	Sent   []byte // the frame; nil where there was no connection
	Pieces []Piece
	Took   time.Duration
	Lost   bool  // the connection went away meanwhile
	Err    error // nil when there was an answer, be it a refusal; see errors.go
}

// Piece is bytes that came at once.
type Piece struct {
	After time.Duration // Exchange.Began
	Bytes []byte
}

// Tap is where exchanges are shown. The zero Tap shows nobody anything, and
// costs nothing. It may be used concurrently.
type Tap struct {
	show atomic.Pointer[func(Exchange)]
}

// Show lets f have every exchange from now on, nil nobody. f is called while
// the line waits, so it does not.
func (t *Tap) Show(f func(Exchange)) {
	if f == nil {
		t.show.Store(nil)
		return
	}
	t.show.Store(&f)
}

// begin is the exchange to fill in, nil while nobody looks.
func (t *Tap) begin() *Exchange {
	if t == nil || t.show.Load() == nil {
		return nil
	}
	return &Exchange{Began: time.Now()}
}

// end shows an exchange.
func (t *Tap) end(x *Exchange, err error) {
	show := t.show.Load()
	if show == nil {
		return
	}
	var refusal *Exception
	if !errors.As(err, &refusal) {
		x.Err = err
	}
	x.Took = time.Since(x.Began)
	(*show)(*x)
}

// Read implements net.Conn, and lets who taps the exchange under way have it.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if x := c.seen; x != nil {
		if n > 0 {
			x.Pieces = append(x.Pieces, Piece{After: time.Since(x.Began), Bytes: slices.Clone(b[:n])})
		}
		x.Lost = x.Lost || err != nil && !isTimeout(err)
	}
	return n, err
}

// Write implements net.Conn in the same way.
func (c *conn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if x := c.seen; x != nil {
		x.Sent = append(x.Sent, b[:n]...)
		x.Lost = x.Lost || err != nil && !isTimeout(err)
	}
	return n, err
}
