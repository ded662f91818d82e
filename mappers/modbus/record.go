package modbus

import (
	"errors"
	"time"

	wire "github.com/whimbrel-edge/whimbrel/protocols/modbus"
	"github.com/whimbrel-edge/whimbrel/protocols/recording"
)

// Record implements mappers.Recordable.
func (d *device) Record(tell func(recording.Event, time.Time)) {
	if tell == nil {
		d.tap.Show(nil)
		return
	}
	d.tap.Show(func(x wire.Exchange) {
		e := recording.Event{Send: x.Sent, Took: recording.Millis(x.Took)}
		for _, p := range x.Pieces {
			e.Came = append(e.Came, recording.Piece{After: recording.Millis(p.After), Bytes: p.Bytes})
		}
		switch {
		case x.Sent == nil:
			e.End = recording.NoLine
		case x.Lost:
			e.End = recording.HungUp
		case errors.Is(x.Err, wire.ErrTimeout):
			e.End = recording.Silence
		}
		if x.Err != nil {
			e.Error = x.Err.Error()
		}
		tell(e, x.Began)
	})
}
