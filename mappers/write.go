package mappers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

// readBackAfter is when, after a write, its value is read back: at once, and
// again as long as it is another. Devices take a moment to store a value.
var readBackAfter = [...]time.Duration{0, 50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond}

// maxBatch is how many writes go to the device before it is polled again, so
// that an app that writes without pause does not blind it.
const maxBatch = 64

// writing is a write under way.
type writing struct {
	Write
	outcome Outcome // 0 until it is known
	err     error
	back    *models.Sample
}

// write sends what is queued and tells what became of it.
func (r *Runner) write(ctx context.Context) {
	waiting, superseded := r.queue.take(maxBatch)
	r.tellSuperseded(superseded)
	if len(waiting) == 0 {
		return
	}
	start := time.Now()
	under := make([]writing, len(waiting))
	var requests []WriteRequest
	var sent []*writing // requests[i] is of sent[i]
	for i, w := range waiting {
		under[i] = writing{Write: w}
		if r.admit(&under[i]) {
			requests = append(requests, WriteRequest{Point: w.Property, Value: w.Value})
			sent = append(sent, &under[i])
		}
	}
	if len(requests) > 0 {
		r.send(ctx, requests, sent)
		r.readBack(ctx, sent)
	}
	took := time.Since(start)
	for i := range under {
		r.tell(under[i].Write, under[i].outcome, under[i].back, under[i].err, took)
	}
	if r.onlyWritten() {
		r.tellState()
	}
}

// admit decides whether a write is to be sent; if not, its outcome is known.
func (r *Runner) admit(w *writing) bool {
	refuse := func(err error) bool {
		w.outcome, w.err = Refused, &Failure{Reason: models.ReasonConfiguration, Refused: true, Err: err}
		return false
	}
	if w.Property < 0 || w.Property >= len(r.cfg.Properties) {
		return refuse(fmt.Errorf("there is no property %d", w.Property))
	}
	if p := &r.cfg.Properties[w.Property]; !p.Access.Writable() {
		return refuse(fmt.Errorf("%s is read-only (access %s)", p.Name, p.Access))
	}
	if r.demoted {
		w.outcome, w.err = Unsent, &Failure{Reason: r.failed.Reason, Unsent: true, Err: fmt.Errorf("the device does not answer: %w", r.failed.Err)}
		return false
	}
	if _, err := r.canonical(w.Property, w.Value); err != nil {
		return refuse(err)
	}
	return true
}

// canonical is v as the device would give it back.
func (r *Runner) canonical(p int, v models.Value) (models.Value, error) {
	if c, ok := r.cfg.Device.(Canonicalizer); ok {
		return c.Canonical(p, v)
	}
	return v, nil
}

// send writes and sorts the answers.
func (r *Runner) send(ctx context.Context, requests []WriteRequest, sent []*writing) {
	start := time.Now()
	errs := r.cfg.Device.Write(ctx, requests)
	took := time.Since(start)
	reason := models.ReasonNone
	for i, w := range sent {
		var err error
		switch {
		case i < len(errs):
			err = errs[i]
		case errs != nil:
			err = Fail(models.ReasonProtocolError, errors.New("the driver did not say what became of the write"))
		}
		if err == nil {
			r.wrote(nil)
			if !w.Verify || !r.cfg.Properties[w.Property].Access.Readable() {
				w.outcome = Applied
			}
			continue
		}
		f := FailureOf(err)
		if reason == models.ReasonNone {
			reason = f.Reason
		}
		w.err = err
		switch {
		case f.Refused:
			w.outcome = Refused
		case f.Unsent:
			w.outcome = Unsent
		default:
			w.outcome = Unconfirmed
		}
		if !f.Refused && ctx.Err() == nil {
			r.wrote(f)
		}
	}
	r.count.request(reason, took)
}

// wrote takes note of what a write says about the device. A failure makes it
// polled at once, which then decides; a device that is only written to has
// nothing else to tell by.
func (r *Runner) wrote(f *Failure) {
	switch {
	case r.onlyWritten():
		r.failed = f
	case f != nil:
		r.everything = true
	}
}

// onlyWritten reports whether no property can be read.
func (r *Runner) onlyWritten() bool { return len(r.schedule.groups) == 0 }

// readBack reads what was acknowledged until it is equal or time is up.
func (r *Runner) readBack(ctx context.Context, sent []*writing) {
	for i, after := range readBackAfter {
		points := make([]int, 0, len(sent))
		open := make([]*writing, 0, len(sent))
		for _, w := range sent {
			if w.outcome == 0 {
				points, open = append(points, w.Property), append(open, w)
			}
		}
		if len(open) == 0 {
			return
		}
		if !sleep(ctx, after) {
			unconfirmed(open, context.Cause(ctx))
			return
		}
		_, err := r.read(ctx, points)
		if err != nil {
			unconfirmed(open, err)
			r.everything = r.everything || ctx.Err() == nil
			return
		}
		r.answers()
		r.settle(open, i == len(readBackAfter)-1)
	}
}

// settle compares what was read back. The last time, what is not equal stays
// unconfirmed.
func (r *Runner) settle(open []*writing, last bool) {
	now := time.Now()
	r.refreshed, r.changed = r.refreshed[:0], r.changed[:0]
	for i, w := range open {
		s := sampleOf(&r.cfg.Properties[w.Property], r.results[i], now)
		want, err := r.canonical(w.Property, w.Value)
		equal := err == nil && s.Quality != models.Bad && s.Value == want
		switch {
		case equal:
			w.outcome, w.back = Applied, &s
		case last && s.Quality == models.Bad:
			w.outcome, w.err = Unconfirmed, Fail(s.Reason, errors.New("written, but it cannot be read back"))
		case last:
			w.outcome, w.back = Unconfirmed, &s
			w.err = Fail(models.ReasonDeviceError, fmt.Errorf("read back %s instead of %s", s.Value, want))
		}
		// What settles a write is reported even within the deadband: the
		// reported value must not contradict the outcome.
		r.observe(w.Property, r.results[i], now, w.outcome != 0)
	}
	r.report(now)
}

func unconfirmed(open []*writing, err error) {
	for _, w := range open {
		w.outcome, w.err = Unconfirmed, fmt.Errorf("written, but not read back: %w", err)
	}
}

// sleep waits, and returns false when ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (r *Runner) tellSuperseded(writes []Write) {
	for _, w := range writes {
		r.tell(w, Superseded, nil, errors.New("a later write came before it was sent"), 0)
	}
}

func (r *Runner) tell(w Write, o Outcome, back *models.Sample, err error, took time.Duration) {
	level := slog.LevelInfo
	if o == Unsent || o == Superseded { // nothing happened to the device
		level = slog.LevelDebug
	}
	// Without the value, which may be nobody's business.
	name := "?"
	if w.Property >= 0 && w.Property < len(r.cfg.Properties) {
		name = r.cfg.Properties[w.Property].Name
	}
	attrs := []slog.Attr{slog.String("property", name), slog.String("write", w.ID), slog.String("outcome", o.String())}
	if w.Trace != "" {
		attrs = append(attrs, slog.String("traceparent", w.Trace))
	}
	if err != nil {
		attrs = append(attrs, slog.Any("error", err))
	}
	r.log.LogAttrs(context.Background(), level, "device write", attrs...)
	r.cfg.Sink.Written(WriteResult{ID: w.ID, Property: w.Property, Once: w.Once, Outcome: o, ReadBack: back, Err: err, Took: took})
}
