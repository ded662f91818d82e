package opcua

import (
	"context"
	"sync"
	"time"

	"github.com/gopcua/opcua/ua"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
	wire "github.com/whimbrel-edge/whimbrel/protocols/opcua"
	"github.com/whimbrel-edge/whimbrel/protocols/recording"
)

// tap is where a device shows what its server says. The zero tap shows it to
// nobody. Reading and subscribing go on side by side: the lock keeps events in
// order.
type tap struct {
	mu   sync.Mutex
	tell func(recording.Event, time.Time)
}

// Record implements mappers.Recordable. What is told is what the server says,
// not the bytes, which may be encrypted.
func (d *device) Record(tell func(recording.Event, time.Time)) {
	d.tap.mu.Lock()
	defer d.tap.mu.Unlock()
	d.tap.tell = tell
}

// event tells of what make returns, and that it began so long ago, if anybody
// wants to know.
func (t *tap) event(ago time.Duration, make func(now time.Time) recording.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.tell == nil {
		return
	}
	now := time.Now()
	t.tell(make(now), now.Add(-ago))
}

// told tells what the server said of points.
func (t *tap) told(all []point, points []int, values []*ua.DataValue) {
	t.event(0, func(now time.Time) (e recording.Event) {
		by := map[string]int{} // several properties may be elements of one node
		for i, p := range points {
			node := all[p].address
			if first, any := by[node]; !any || first == p {
				by[node] = p
				e.Values = append(e.Values, recorded(node, values[i], now))
			}
		}
		return e
	})
}

// recorded is a value for a recording. Its source time counts from now until the
// recorder knows better.
func recorded(node string, dv *ua.DataValue, now time.Time) recording.Value {
	out := recording.Value{Node: node}
	if dv == nil {
		return out
	}
	out.Status = uint32(dv.Status)
	if shape := wire.ShapeOf(dv.Value); shape.Type != 0 {
		if v, err := wire.Plain(dv.Value); err == nil {
			out.Type, out.Array, out.Value = wire.TypeName(shape.Type), shape.Array, v
		}
	}
	if at := timeOf(dv); !at.IsZero() {
		out.Source = new(recording.Millis(at.Sub(now)))
	}
	return out
}

// wrote tells of writes: writes[sent[i]] went out as requests[i].
func (t *tap) wrote(ctx context.Context, timeout time.Duration, all []point, writes []mappers.WriteRequest, sent []int, requests []*ua.WriteValue, answer *ua.WriteResponse, err error) {
	if err != nil {
		t.failed(ctx, err, timeout)
	}
	t.event(0, func(now time.Time) (e recording.Event) {
		for i, r := range requests {
			w := recording.Write{Value: recorded(all[writes[sent[i]].Point].address, r.Value, now), Index: r.IndexRange}
			if w.Status = uint32(ua.StatusBad); err == nil {
				w.Status = uint32(answer.Results[i])
			}
			e.Writes = append(e.Writes, w)
		}
		return e
	})
}

// failed tells why the server could not be asked. A silence began a timeout ago.
func (t *tap) failed(ctx context.Context, err error, timeout time.Duration) {
	if ctx.Err() != nil {
		return // it is the caller's doing
	}
	f := failure(err)
	if f.Reason != models.ReasonTimeout {
		timeout = 0
	}
	t.event(timeout, func(time.Time) recording.Event {
		e := recording.Event{Error: f.Err.Error(), Took: recording.Millis(timeout)}
		switch {
		case f.Reason == models.ReasonNotConnected && f.Unsent:
			e.End = recording.NoLine
		case f.Reason == models.ReasonNotConnected:
			e.End = recording.HungUp
		case f.Reason == models.ReasonTimeout:
			e.End = recording.Silence
		}
		return e
	})
}
