package modbus

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/whimbrel-edge/whimbrel/internal/backoff"
	"github.com/whimbrel-edge/whimbrel/protocols/serial"
)

// DefaultTimeout is how long an answer may take when nothing else is said.
const DefaultTimeout = time.Second

// Framing is how requests are wrapped.
type Framing uint8

// The framings. RTU and ASCII travel on serial lines, and over TCP to a gateway
// that passes them on as they are.
const (
	TCP Framing = iota
	RTU
	ASCII
)

// LineConfig describes a line.
type LineConfig struct {
	Framing Framing
	// Serial is the port of a serial line; nil for a line over TCP. RTU then
	// keeps the silence of 3.5 characters between frames (SER 2.5.1.1).
	Serial  *serial.Config
	Address string        // host:port; not used with Serial
	Pause   time.Duration // least time between an answer and the next request
	// Dial makes the connection; nil dials Address over TCP, or opens Serial.
	Dial func(ctx context.Context, address string) (net.Conn, error)
}

// Line is one connection to one or several units. It connects when it is first
// used and again after every failure, and carries one request at a time:
// writes and whoever else is urgent go before waiting reads. It is safe for
// concurrent use. An idle line costs next to nothing and keeps its connection.
//
// A serial port stays open as long as it is there: what a unit did not answer,
// or not rightly, is no reason to shut out the others. What is late is thrown
// away: a request that a late answer to an earlier one could be mistaken for an
// answer to waits until that is twice as late as its timeout allows.
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

// fixedGap is the silence between RTU frames above 19200 baud (SER 2.5.1.1).
const fixedGap = 1750 * time.Microsecond

// NewLine makes a line. Nothing is dialled or opened yet.
func NewLine(cfg LineConfig) *Line {
	l := &Line{cfg: cfg, framing: newFraming(cfg)}
	switch {
	case cfg.Dial != nil:
	case cfg.Serial != nil:
		l.cfg.Address = cfg.Serial.Device
		l.cfg.Dial = (&opener{cfg: *cfg.Serial}).open
	default:
		l.cfg.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", address)
		}
	}
	return l
}

func newFraming(cfg LineConfig) framing {
	f := &serialFraming{settle: settleTCP}
	switch cfg.Framing {
	case RTU:
		f.codec = rtu{}
		if cfg.Serial != nil {
			f.settle, f.rest = settleRTU, Gap(*cfg.Serial)
		}
	case ASCII:
		f.codec, f.settle = ascii{}, settleASCII
	default:
		return &mbap{}
	}
	if cfg.Serial != nil {
		f.char = cfg.Serial.CharTime(1)
		f.settle += 4 * f.char
	}
	return f
}

// Gap is the silence between RTU frames on a line: 3.5 characters, and 1.75 ms
// above 19200 baud (SER 2.5.1.1).
func Gap(line serial.Config) time.Duration {
	if line.Baud > 19200 {
		return fixedGap
	}
	return line.CharTime(7) / 2
}

// opener opens a serial port, and after failures not at once again: opening
// some drivers' devices is slow while they come and go. The gate's holder calls
// it.
type opener struct {
	cfg      serial.Config
	failures int
	not      time.Time // before that
	err      error     // the last one
}

var opening = backoff.Policy{Min: 50 * time.Millisecond, Max: time.Second, Factor: 2}

func (o *opener) open(ctx context.Context, _ string) (net.Conn, error) {
	if time.Now().Before(o.not) {
		return nil, o.err
	}
	p, err := serial.Open(ctx, o.cfg)
	if err == nil {
		*o = opener{cfg: o.cfg}
		return p, nil
	}
	if ctx.Err() == nil {
		o.failures++
		o.not, o.err = time.Now().Add(opening.Delay(o.failures, 0)), err
	}
	return nil, err
}

// Address is where the line leads: host:port, or the device's path.
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
func (l *Line) send(ctx context.Context, timeout time.Duration, urgent bool, tap *Tap, request []byte) ([]byte, error) {
	if err := l.lock(ctx, urgent, request); err != nil {
		return nil, invalid("waiting for the line: %w", err)
	}
	defer l.gate.unlock()
	if err := l.pause(ctx); err != nil {
		return nil, invalid("waiting for the line: %w", err)
	}
	l.stats.requests.Add(1)
	seen := tap.begin()
	answer, err := l.attempt(ctx, timeout, request, seen)
	l.lastUse = time.Now()
	if seen != nil && ctx.Err() == nil { // else it is the caller's doing
		tap.end(seen, err)
	}
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
	if late := l.framing.unanswered(); late != nil && errors.Is(err, ErrTimeout) {
		now := time.Now()
		late.missed(request, now, now.Add(timeout))
	}
	if l.cfg.Serial == nil || errors.Is(err, ErrNotConnected) {
		l.hangUp()
	}
	return nil, err
}

// lock gets the line for a request, once no late answer can be mistaken for
// the one to it. Others have the line while it waits for that.
func (l *Line) lock(ctx context.Context, urgent bool, request []byte) error {
	for {
		if err := l.gate.lock(ctx, urgent); err != nil {
			return err
		}
		late := l.framing.unanswered()
		if late == nil {
			return nil
		}
		rest := late.wait(request, time.Now())
		if rest <= 0 {
			return nil
		}
		l.gate.unlock()
		t := time.NewTimer(rest)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
	}
}

// attempt sends and receives within the timeout, which includes dialling but
// not the time that the characters take on a serial line.
func (l *Line) attempt(ctx context.Context, timeout time.Duration, request []byte, seen *Exchange) ([]byte, error) {
	start := time.Now()
	deadline := start.Add(timeout + l.framing.wireTime(request))
	c, err := l.connect(ctx, deadline)
	if err != nil {
		return nil, err
	}
	c.ctx, c.by, c.seen, c.heard = ctx, deadline, seen, ""
	stop, ended := func() bool { return true }, make(chan struct{})
	if ctx.Done() != nil {
		stop = context.AfterFunc(ctx, func() {
			c.SetDeadline(longAgo)
			close(ended)
		})
	}
	answer, err := l.framing.exchange(c, request)
	if !stop() {
		// Not that the deadline in the past is set under the next request.
		<-ended
		if l.cfg.Serial == nil { // the answer may come under the next, too
			l.hangUp()
		}
	}
	if err != nil {
		return nil, l.explain(ctx, timeout, c.heard, err)
	}
	l.stats.answered(l.framing.wireSize(request), l.framing.wireSize(answer), time.Since(start))
	if request[0] == 0 && l.cfg.Framing != TCP { // a broadcast
		return answer, nil
	}
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
func (l *Line) explain(ctx context.Context, timeout time.Duration, heard string, err error) error {
	switch {
	case l.closed.Load():
		return &lineError{ErrNotConnected, errClosed}
	case errors.Is(err, ErrProtocol):
		return fmt.Errorf("modbus: %w", err)
	case isTimeout(err):
		if cause := ctx.Err(); cause != nil {
			return &lineError{ErrTimeout, cause}
		}
		if heard != "" {
			return &lineError{ErrTimeout, fmt.Errorf("no answer within %v: %s", timeout, heard)}
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
		if err == nil && (l.cfg.Serial == nil && time.Since(l.lastUse) < idleCheck || !hungUp(c.Conn)) {
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
	c := &conn{Conn: raw}
	c.in = bufio.NewReaderSize(c, 2*MaxFrame)
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
// A serial port is looked at every time, which costs nothing.
const idleCheck = 20 * time.Millisecond

func (l *Line) hangUp() {
	if c := l.current.Swap(nil); c != nil {
		c.Close() // what it was used for has failed already
	}
}

// pause waits until the line has rested long enough.
func (l *Line) pause(ctx context.Context) error {
	least := max(l.cfg.Pause, l.framing.gap())
	rest := least - time.Since(l.lastUse)
	if least <= 0 || rest <= 0 {
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
