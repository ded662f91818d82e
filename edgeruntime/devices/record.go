package devices

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/recording"
)

const (
	// maxRecorded bounds the events that wait for whoever wants the recording. When
	// it is full further ones are dropped and counted: the device does not wait.
	maxRecorded = 1024
	// maxRecordedBytes is how much is put together before it is handed on, and
	// flushRecorded how long that takes at most.
	maxRecordedBytes = 32 << 10
	flushRecorded    = 250 * time.Millisecond
)

// Bounds of how long a recording takes.
const (
	MinRecord = 10 * time.Millisecond
	MaxRecord = 24 * time.Hour
)

// Record hands what the device with a local id sees on the wire to lines, as the
// lines of a recording, for as long as length says. lines may block, and gets
// whole lines. Errors are *models.Error: KindConflict while the device is being
// recorded already, KindRefused for one that cannot be; or lines' own, or why ctx
// ended.
func (m *Manager) Record(ctx context.Context, id string, length time.Duration, lines func([]byte) error) error {
	return m.record(ctx, func() (*loop, error) { return m.loop(id) }, length, false, lines)
}

// RecordForHub is Record of the device with a uid, for the hub. A device of which
// something is to stay at the edge cannot be recorded: what is on the wire holds
// all of it.
func (m *Manager) RecordForHub(ctx context.Context, uid string, length time.Duration, lines func([]byte) error) error {
	return m.record(ctx, func() (*loop, error) { return m.loopOf(uid) }, length, true, lines)
}

func (m *Manager) record(ctx context.Context, find func() (*loop, error), length time.Duration, uplink bool, lines func([]byte) error) error {
	if length < MinRecord || length > MaxRecord {
		return models.Errorf(models.KindMalformed, "a recording takes from %s to %s, not %s", MinRecord, MaxRecord, length)
	}
	l, err := find()
	for tries := 0; models.KindOf(err) == models.KindUnavailable && tries < restartTries && pause(ctx, restartPause); tries++ {
		l, err = find() // a device that is opened anew is back soon
	}
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(l.d.defs, func(p models.ResolvedProperty) bool { return p.Uplink == models.UplinkNone }); uplink && i >= 0 {
		return models.Errorf(models.KindRefused, "device %s cannot be recorded from here: its property %s is to stay at the edge (uplink: none); ask the edge's local API", l.d.id, l.d.defs[i].Name)
	}
	if l.runner == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		return models.Errorf(models.KindRefused, "device %s cannot be served: %s", l.d.id, l.twin.Problem)
	}
	return l.record(ctx, length, lines)
}

// seen is an event and when it was.
type seen struct {
	event recording.Event
	at    time.Time
}

func (l *loop) record(ctx context.Context, length time.Duration, lines func([]byte) error) error {
	if !l.recording.CompareAndSwap(false, true) {
		return models.Errorf(models.KindConflict, "device %s is being recorded already", l.d.id)
	}
	defer l.recording.Store(false)
	r := &recorder{lines: lines, started: time.Now(), events: make(chan seen, maxRecorded)}
	if err := r.put(l.d.header(r.started)); err != nil {
		return err
	}
	if err := l.runner.Record(r.tell); errors.Is(err, mappers.ErrNotRecordable) {
		return models.Errorf(models.KindRefused, "device %s cannot be recorded: %v", l.d.id, err)
	} else if err != nil {
		return err
	}
	defer func() { _ = l.runner.Record(nil) }() // it could begin, so it can end
	ctx, cancel := context.WithCancel(ctx)
	// What is subscribed and does not change, or is polled once a minute, would not
	// be heard of otherwise. What becomes of this read is in the recording.
	var first sync.WaitGroup
	first.Go(func() {
		if at, err := models.Readable(l.d.defs, nil, false); err == nil && len(at) > 0 {
			_, _ = l.runner.Read(ctx, at)
		}
	})
	defer first.Wait()
	defer cancel()
	return r.run(ctx, length, l.runner.Ended())
}

// header describes the device.
func (d *device) header(started time.Time) recording.Header {
	h := recording.Header{Version: recording.Version, Protocol: d.protocol, Device: d.name, Started: started, Connection: withoutSecrets(d.connection)}
	for i := range d.defs {
		p := &d.defs[i]
		q := models.Property{Name: p.Name, Type: p.Type, Unit: p.Unit, Access: p.Access, Enum: p.Enum, Address: p.Address, Every: new(models.Duration(p.Every))}
		if p.Access.Writable() {
			q.Write = p.Write
		}
		if !p.Minimum.IsNull() {
			q.Minimum = &p.Minimum
		}
		if !p.Maximum.IsNull() {
			q.Maximum = &p.Maximum
		}
		h.Properties = append(h.Properties, q)
	}
	return h
}

// harmless are the settings of connections that shape the traffic and tell
// nothing of who uses it. What is not among them stays here.
var harmless = []string{"url", "unit", "timeout", "maxRegisters", "maxBits", "maxGap", "pause", "terminator", "length", "checksum", "listen",
	"subscribe", "publishingInterval", "samplingInterval", "queueSize"}

func withoutSecrets(connection json.RawMessage) json.RawMessage {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(connection, &all); err != nil {
		return json.RawMessage("{}")
	}
	for field := range all {
		if !slices.Contains(harmless, field) {
			delete(all, field)
		}
	}
	text, err := json.Marshal(all)
	if err != nil {
		return json.RawMessage("{}")
	}
	return text
}

// recorder writes a recording.
type recorder struct {
	lines   func([]byte) error
	started time.Time
	events  chan seen    // maxRecorded
	dropped atomic.Int64 // since the last event that was not
	buf     []byte
}

// tell takes an event from the device.
func (r *recorder) tell(e recording.Event, at time.Time) {
	e.Dropped = int(r.dropped.Swap(0))
	select {
	case r.events <- seen{e, at}:
	default:
		r.dropped.Add(int64(e.Dropped) + 1)
	}
}

// run writes events until it is over.
func (r *recorder) run(ctx context.Context, length time.Duration, ended <-chan struct{}) error {
	over := time.NewTimer(length)
	defer over.Stop()
	flush := time.NewTicker(flushRecorded)
	defer flush.Stop()
	last := recording.Event{Over: true}
	for done := false; !done; {
		select {
		case s := <-r.events:
			if err := r.event(s); err != nil {
				return err
			}
		case <-flush.C:
			if err := r.flush(); err != nil {
				return err
			}
		case <-over.C:
			done = true
		case <-ended:
			last.Error, done = "the device was closed, or configured anew", true
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	for {
		select {
		case s := <-r.events:
			if err := r.event(s); err != nil {
				return err
			}
			continue
		default:
		}
		break
	}
	last.At, last.Dropped = recording.Millis(time.Since(r.started)), int(r.dropped.Swap(0))
	if err := r.put(last); err != nil {
		return err
	}
	return r.flush()
}

func (r *recorder) event(s seen) error {
	// A request that was on its way when the recording began is of its beginning.
	s.event.At = max(0, recording.Millis(s.at.Sub(r.started)))
	for i := range s.event.Values {
		if source := s.event.Values[i].Source; source != nil {
			*source += s.event.At
		}
	}
	err := r.put(s.event)
	if err == nil && len(r.buf) >= maxRecordedBytes {
		err = r.flush()
	}
	return err
}

// put appends a line. One that is too long is told as dropped.
func (r *recorder) put(v any) error {
	line, err := recording.Line(v)
	if e, ok := v.(recording.Event); ok && err != nil {
		line, err = recording.Line(recording.Event{At: e.At, Dropped: e.Dropped + 1, Error: err.Error()})
	}
	if len(r.buf)+len(line) > maxRecordedBytes && err == nil {
		err = r.flush()
	}
	r.buf = append(r.buf, line...)
	return err
}

func (r *recorder) flush() error {
	if len(r.buf) == 0 {
		return nil
	}
	err := r.lines(r.buf)
	r.buf = nil
	return err
}
