package modbus

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"
)

// DefaultTimeout is how long an answer may take when nothing else is said.
const DefaultTimeout = time.Second

// LineConfig describes a line.
type LineConfig struct {
	Address string        // host:port
	Pause   time.Duration // least time between an answer and the next request
	// Dial makes the connection; nil dials Address over TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)
}

// Line is one connection to one or several units. It connects when it is first
// used and again after every failure, and carries one request at a time:
// writes and whoever else is urgent go before waiting reads. It is safe for
// concurrent use. An idle line costs nothing and keeps its connection.
type Line struct {
	cfg     LineConfig
	framing framing
	gate    gate
	stats   counters
	closed  atomic.Bool
	current atomic.Pointer[conn] // set by the gate's holder; read by Close too

	// The rest belongs to whoever holds the gate.
	lastUse time.Time
	timer   *time.Timer // for Pause
}

// NewLine makes a line of Modbus TCP. Nothing is dialled yet.
func NewLine(cfg LineConfig) *Line {
	if cfg.Dial == nil {
		cfg.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", address)
		}
	}
	return &Line{cfg: cfg, framing: &mbap{}}
}

// Address is where the line leads.
func (l *Line) Address() string { return l.cfg.Address }

var errClosed = errors.New("the line is closed")

// Close hangs up. A request under way ends with ErrNotConnected, and so does
// every later one.
func (l *Line) Close() error {
	l.closed.Store(true)
	if c := l.current.Swap(nil); c != nil {
		return c.Close()
	}
	return nil
}

// send carries one request. It is the only place that touches the connection.
func (l *Line) send(ctx context.Context, timeout time.Duration, urgent bool, request []byte) ([]byte, error) {
	if err := l.gate.lock(ctx, urgent); err != nil {
		return nil, invalid("waiting for the line: %w", err)
	}
	defer l.gate.unlock()
	if err := l.pause(ctx); err != nil {
		return nil, invalid("waiting for the line: %w", err)
	}
	l.stats.requests.Add(1)
	answer, err := l.attempt(ctx, timeout, request)
	l.lastUse = time.Now()
	if err == nil {
		return answer, nil
	}
	var refusal *Exception
	if errors.As(err, &refusal) {
		l.stats.exceptions.Add(1)
		// The frame itself goes back: goburrow's client reads the refusal.
		return answer, nil
	}
	l.stats.failed(err)
	l.hangUp()
	return nil, err
}

// attempt sends and receives within the timeout, which includes dialling.
func (l *Line) attempt(ctx context.Context, timeout time.Duration, request []byte) ([]byte, error) {
	start := time.Now()
	deadline := start.Add(timeout)
	c, err := l.connect(ctx, deadline)
	if err != nil {
		return nil, err
	}
	stop := func() bool { return true }
	if ctx.Done() != nil {
		stop = context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	}
	answer, err := l.framing.exchange(c, request)
	if !stop() {
		// The deadline in the past may be set at any moment now, under the next
		// request: this connection is done for, whatever came over it.
		l.hangUp()
	}
	if err != nil {
		return nil, l.explain(ctx, timeout, err)
	}
	l.stats.answered(len(request), len(answer), time.Since(start))
	if err := checkAnswer(l.framing.pdu(request), l.framing.pdu(answer)); err != nil {
		var refusal *Exception
		if errors.As(err, &refusal) {
			return answer, refusal
		}
		return nil, &lineError{ErrProtocol, err}
	}
	return answer, nil
}

// explain sorts a failed exchange into the kinds of errors.go.
func (l *Line) explain(ctx context.Context, timeout time.Duration, err error) error {
	switch {
	case l.closed.Load():
		return &lineError{ErrNotConnected, errClosed}
	case errors.Is(err, ErrProtocol):
		return fmt.Errorf("modbus: %w", err)
	case isTimeout(err):
		if cause := ctx.Err(); cause != nil {
			return &lineError{ErrTimeout, cause}
		}
		return &lineError{ErrTimeout, fmt.Errorf("no answer within %v", timeout)}
	}
	return &lineError{ErrNotConnected, err}
}

// connect gives the connection with its deadline set, a new one if the old one
// is gone.
func (l *Line) connect(ctx context.Context, deadline time.Time) (*conn, error) {
	if l.closed.Load() {
		return nil, unsent{&lineError{ErrNotConnected, errClosed}}
	}
	if c := l.current.Load(); c != nil {
		err := c.SetDeadline(deadline)
		if err == nil && (time.Since(l.lastUse) < idleCheck || !hungUp(c.Conn)) {
			return c, nil
		}
		l.hangUp()
	}
	dctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	raw, err := l.cfg.Dial(dctx, l.cfg.Address)
	if err != nil {
		if cause := ctx.Err(); cause != nil {
			err = cause
		}
		return nil, unsent{&lineError{ErrNotConnected, err}}
	}
	l.stats.dials.Add(1)
	if err := raw.SetDeadline(deadline); err != nil {
		raw.Close()
		return nil, unsent{&lineError{ErrNotConnected, err}}
	}
	c := &conn{Conn: raw, in: bufio.NewReaderSize(raw, 2*MaxFrame)}
	l.current.Store(c)
	if l.closed.Load() { // Close came while dialling and saw no connection
		l.hangUp()
		return nil, unsent{&lineError{ErrNotConnected, errClosed}}
	}
	return c, nil
}

// idleCheck is how long a connection may rest before it is looked at again: a
// device that restarted, or that hangs up on idle clients, would otherwise cost
// the next request, and of a write it would not be known whether it was done.
const idleCheck = 20 * time.Millisecond

func (l *Line) hangUp() {
	if c := l.current.Swap(nil); c != nil {
		c.Close() // what it was used for has failed already
	}
}

// pause waits until the line has rested long enough.
func (l *Line) pause(ctx context.Context) error {
	rest := l.cfg.Pause - time.Since(l.lastUse)
	if l.cfg.Pause <= 0 || rest <= 0 {
		return nil
	}
	if l.timer == nil {
		l.timer = time.NewTimer(rest)
	} else {
		l.timer.Reset(rest)
	}
	select {
	case <-l.timer.C:
		return nil
	case <-ctx.Done():
		l.timer.Stop()
		return ctx.Err()
	}
}
