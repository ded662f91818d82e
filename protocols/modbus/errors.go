package modbus

import (
	"context"
	"errors"
	"fmt"
	"net"
)

// What went wrong on a line, for errors.Is. A refusal by the device is an
// *Exception, for errors.As, and is the only failure that leaves the
// connection open. Anything that is none of these was wrong before it was sent
// (a quantity of 0), or is the context's own error.
var (
	// ErrTimeout: the request went out, no answer came in time. Whether a
	// write was done is unknown.
	ErrTimeout = errors.New("timeout")
	// ErrNotConnected: the connection could not be made, or broke. A write
	// under way when it broke may have been done.
	ErrNotConnected = errors.New("not connected")
	// ErrProtocol: what came back is no answer to the request.
	ErrProtocol = errors.New("protocol error")
)

// lineError is a failure on a line: errors.Is finds kind and, if cause is a
// context's error, that.
type lineError struct {
	kind  error
	cause error
}

func (e *lineError) Error() string { return fmt.Sprintf("modbus: %v: %v", e.kind, e.cause) }

// Is does not look into the cause: net's own deadline errors claim to be
// context.DeadlineExceeded, and a slow device must not look like a caller that
// gave up.
func (e *lineError) Is(target error) bool {
	if target == e.kind {
		return true
	}
	return (e.cause == context.Canceled || e.cause == context.DeadlineExceeded) && target == e.cause
}

// unsent marks an error that came before anything was sent.
type unsent struct{ error }

func (e unsent) Unwrap() error { return e.error }

// Unsent tells whether the request certainly never left: the line was not free
// in time, there was no connection, or the request was wrong in itself. A write
// of which this is true was not done and may be tried again; after any other
// error that is no *Exception it may have been.
func Unsent(err error) bool {
	var u unsent
	return errors.As(err, &u)
}

func invalid(format string, args ...any) error {
	return unsent{fmt.Errorf("modbus: "+format, args...)}
}

// isTimeout tells a deadline that passed from a connection that broke.
func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}
