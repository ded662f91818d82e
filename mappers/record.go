package mappers

import (
	"errors"
	"time"

	"github.com/whimbrel-edge/whimbrel/protocols/recording"
)

// Recordable is a Device that can tell what it sees on the wire.
type Recordable interface {
	// Record has every event told to tell from now on, with when it was: its At is
	// left to the callee, and source times count from then. nil ends that. Events are told in the order in
	// which they end, from any goroutine but never two at once; the device waits
	// meanwhile, so tell does not. It may be called from any goroutine.
	Record(tell func(e recording.Event, at time.Time))
}

// ErrNotRecordable: the device's mapper does not tell what it sees on the wire.
var ErrNotRecordable = errors.New("its mapper does not tell what it sees on the wire")

// Record lets tell have what the device sees on the wire, see Recordable, until
// it is called with nil or Ended.
func (r *Runner) Record(tell func(e recording.Event, at time.Time)) error {
	d, ok := r.cfg.Device.(Recordable)
	if !ok {
		return ErrNotRecordable
	}
	d.Record(tell)
	return nil
}

// Ended is closed when Run has ended.
func (r *Runner) Ended() <-chan struct{} { return r.ended }
