package serial

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/recording"
)

// tap is where a device shows what it sees on the wire. The zero tap shows it
// to nobody.
type tap struct {
	tell atomic.Pointer[func(recording.Event, time.Time)]
}

// seen is an exchange under way that is tapped. A nil one is not.
type seen struct {
	began time.Time
	event recording.Event
}

func (t *tap) set(tell func(recording.Event, time.Time)) {
	if tell == nil {
		t.tell.Store(nil)
		return
	}
	t.tell.Store(&tell)
}

// Record implements mappers.Recordable.
func (d *device) Record(tell func(recording.Event, time.Time)) { d.tap.set(tell) }

// Record implements mappers.Recordable.
func (l *listener) Record(tell func(recording.Event, time.Time)) { l.tap.set(tell) }

func (t *tap) begin() *seen {
	if t.tell.Load() == nil {
		return nil
	}
	return &seen{began: time.Now()}
}

func (x *seen) sent(b []byte) {
	if x != nil {
		x.event.Send = slices.Clone(b)
	}
}

func (x *seen) came(b []byte) {
	if x != nil && len(b) > 0 {
		x.event.Came = append(x.event.Came, recording.Piece{After: recording.Millis(time.Since(x.began)), Bytes: slices.Clone(b)})
	}
}

// end tells of an exchange. Why it failed is f, nil for not at all.
func (t *tap) end(x *seen, f *mappers.Failure) {
	tell := t.tell.Load()
	if x == nil || tell == nil {
		return
	}
	x.event.Took = recording.Millis(time.Since(x.began))
	if f != nil {
		x.event.Error = f.Err.Error()
		switch {
		case f.Reason == models.ReasonNotConnected && x.event.Send == nil:
			x.event.End = recording.NoLine
		case f.Reason == models.ReasonNotConnected:
			x.event.End = recording.HungUp
		case f.Reason == models.ReasonTimeout:
			x.event.End = recording.Silence
		}
	}
	(*tell)(x.event, x.began)
}

// unasked tells of what came by itself, or that the line is gone, which it was
// there before.
func (t *tap) unasked(b []byte, f *mappers.Failure, there bool) {
	tell := t.tell.Load()
	if tell == nil {
		return
	}
	e := recording.Event{}
	if len(b) > 0 {
		e.Came = []recording.Piece{{Bytes: slices.Clone(b)}}
	}
	if f != nil {
		e.Error, e.End = f.Err.Error(), recording.NoLine
		if there {
			e.End = recording.HungUp
		}
	}
	(*tell)(e, time.Now())
}

// said tells of what was sent to a device that talks by itself.
func (t *tap) said(b []byte) {
	if tell := t.tell.Load(); tell != nil {
		(*tell)(recording.Event{Send: slices.Clone(b)}, time.Now())
	}
}
