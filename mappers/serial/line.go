package serial

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
	wire "github.com/whimbrel-edge/whimbrel/protocols/serial"
)

// lines is the ports of a driver's devices that are asked: one for each, made
// for the first device and closed after the last.
type lines struct {
	mu     sync.Mutex
	byPort map[wire.Config]*line
}

// line is one port and the devices that share it, one exchange at a time.
type line struct {
	table *lines
	cfg   wire.Config
	users int // guarded by table.mu
	// turn is the lock of what follows, in the order of asking. It is a channel
	// so that waiting for it can end.
	turn chan struct{}

	port  *wire.Port // nil while there is none
	ended time.Time  // when the last exchange was over
	pause time.Duration
	// stray says that the last exchange ended without a right answer, so that
	// one may still come.
	stray bool
}

func (t *lines) join(cfg wire.Config) *line {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.byPort[cfg]
	if l == nil {
		l = &line{table: t, cfg: cfg, turn: make(chan struct{}, 1)}
		t.byPort[cfg] = l
	}
	l.users++
	return l
}

// leave takes a device from the line, and closes the port after the last.
func (l *line) leave() {
	l.table.mu.Lock()
	l.users--
	last := l.users == 0
	if last {
		delete(l.table.byPort, l.cfg)
	}
	l.table.mu.Unlock()
	if last {
		l.turn <- struct{}{} // free: a device is closed when it is not used
		l.drop()
		<-l.turn
	}
}

// drop closes the port. What that may say, the next opening will.
func (l *line) drop() {
	if l.port != nil {
		_ = l.port.Close()
		l.port = nil
	}
}

// exchange is a message to a device, and what is done with its answer.
type exchange struct {
	framing wire.Framing
	timeout time.Duration
	pause   time.Duration
	text    []byte
	// answer judges a message of the device, as text: nil takes it as the
	// answer; otherwise the failure is why it is none. answer is nil where none
	// is waited for.
	answer func(message []byte) *mappers.Failure
	tap    *tap
}

// grace is how long a right answer may come after a message that is none: the
// late end of something else, or an announcement.
const grace = 100 * time.Millisecond

// do carries an exchange out when it is its turn.
func (l *line) do(ctx context.Context, e exchange) *mappers.Failure {
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return unsent(models.ReasonTimeout, fmt.Errorf("waiting for the line: %w", context.Cause(ctx)))
	}
	if err := sleepUntil(ctx, l.ended.Add(max(l.pause, e.pause))); err != nil {
		return unsent(models.ReasonTimeout, fmt.Errorf("waiting for the line: %w", err))
	}
	x := e.tap.begin()
	f := l.carry(ctx, e, x)
	if ctx.Err() == nil { // else it is the caller's doing
		e.tap.end(x, f)
	}
	return f
}

// carry carries an exchange out. It has the turn.
func (l *line) carry(ctx context.Context, e exchange, x *seen) *mappers.Failure {
	if err := l.ready(ctx, e.timeout); err != nil {
		return unsent(models.ReasonNotConnected, err)
	}
	message := e.framing.Append(nil, e.text)
	sending := l.cfg.CharTime(len(message))
	deadline := time.Now().Add(e.timeout + sending)
	if err := l.port.SetDeadline(deadline); err != nil {
		l.drop()
		return unsent(models.ReasonNotConnected, err)
	}
	port, set := l.port, make(chan struct{})
	stop := context.AfterFunc(ctx, func() { defer close(set); _ = port.SetDeadline(time.Now()) })
	defer func() {
		if !stop() {
			<-set // later it would end another's exchange
		}
	}()
	_, err := l.port.Write(message)
	x.sent(message)
	l.pause = e.pause
	var f *mappers.Failure
	switch {
	case err != nil:
		f = l.broken(ctx, err)
		l.drop() // how much went out is not known
	case e.answer == nil:
		l.ended, l.stray = time.Now().Add(sending), true
		return nil
	default:
		f = l.await(ctx, e, deadline, x)
	}
	l.ended, l.stray = time.Now(), f != nil
	return f
}

// ready makes sure that there is a port, with nothing old in it.
func (l *line) ready(ctx context.Context, timeout time.Duration) error {
	if l.port != nil {
		if err := l.port.Flush(); err == nil {
			return nil
		}
		l.drop() // it went away meanwhile, and may be back
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	port, err := wire.Open(ctx, l.cfg)
	if errors.Is(err, wire.ErrInUse) {
		return fmt.Errorf("%w: another device has it with other settings, or listens on it", err)
	}
	if err != nil {
		return err
	}
	l.port, l.stray = port, false
	return nil
}

// await reads until there is an answer, or will be none.
func (l *line) await(ctx context.Context, e exchange, deadline time.Time, x *seen) *mappers.Failure {
	split := wire.NewSplitter(e.framing)
	var wrong *mappers.Failure // why the last message is not the answer
	done := false
	judge := func(message []byte, err error) bool {
		if err != nil {
			wrong = mappers.Fail(models.ReasonProtocolError, err)
			return true
		}
		text, err := e.framing.Text(message)
		f := mappers.Fail(ReasonChecksum, err)
		if err == nil {
			f = e.answer(text)
		}
		switch {
		case f == nil:
			done = true
		case err == nil && bytes.Equal(text, e.text): // the line's own echo
		default:
			wrong = f
		}
		return !done
	}
	buf := make([]byte, 512)
	for {
		n, err := l.port.Read(buf)
		x.came(buf[:n])
		before := wrong
		split.Feed(buf[:n], judge)
		switch {
		case done:
			return nil
		case wrong != before && !l.stray:
			if soon := time.Now().Add(grace); soon.Before(deadline) && ctx.Err() == nil {
				deadline = soon
				_ = l.port.SetReadDeadline(deadline) // the next Read tells what is wrong with the port
			}
		}
		switch {
		case err == nil:
			continue
		case !errors.Is(err, os.ErrDeadlineExceeded):
			f := l.broken(ctx, err)
			l.drop()
			return f
		case ctx.Err() != nil:
			return mappers.Fail(models.ReasonTimeout, context.Cause(ctx))
		case wrong != nil:
			return wrong
		case split.Pending() > 0:
			return mappers.Fail(models.ReasonProtocolError, fmt.Errorf("the answer broke off after %d bytes", split.Pending()))
		}
		return mappers.Fail(models.ReasonTimeout, fmt.Errorf("no answer to %q within %s", e.text, e.timeout))
	}
}

// broken sorts what went wrong with the port.
func (l *line) broken(ctx context.Context, err error) *mappers.Failure {
	switch {
	case ctx.Err() != nil:
		return mappers.Fail(models.ReasonTimeout, context.Cause(ctx))
	case errors.Is(err, os.ErrDeadlineExceeded):
		return mappers.Fail(models.ReasonTimeout, fmt.Errorf("%s does not take what is sent: %w", l.cfg.Device, err))
	}
	return mappers.Fail(models.ReasonNotConnected, err)
}

// sleepUntil waits, or returns why ctx ended.
func sleepUntil(ctx context.Context, at time.Time) error {
	wait := time.Until(at)
	if wait <= 0 {
		return context.Cause(ctx)
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func refused(err error) *mappers.Failure {
	return &mappers.Failure{Reason: models.ReasonConfiguration, Refused: true, Err: err}
}

func unsent(reason models.Reason, err error) *mappers.Failure {
	return &mappers.Failure{Reason: reason, Unsent: true, Err: err}
}
