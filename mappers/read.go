package mappers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

// MaxQueuedReads bounds the reads on demand that wait for the device. Beyond it
// Runner.Read refuses. Those that wait together are one read.
const MaxQueuedReads = 64

// ErrBusy: too many reads on demand wait for the device already.
var ErrBusy = errors.New("too many reads wait for the device")

// ErrClosed is the cause of failures of requests that a device was closed under,
// as when its configuration changes: asked again, its successor answers.
var ErrClosed = errors.New("the device was closed")

// readOrder is a read on demand that waits for the loop.
type readOrder struct {
	ctx    context.Context // of who waits for it
	points []int
	reply  chan readReply // one slot: the loop waits for nobody
}

type readReply struct {
	samples []models.Sample // of the points
	err     error
}

// Read reads properties (indices into RunnerConfig.Properties, readable ones) from
// the device now, whatever their intervals, ahead of polls. What it finds is
// reported to the Sink, before Read returns, and then returned: samples[i] is of
// properties[i], and may be bad. The error is a *Failure when the device as a
// whole did not answer, ErrBusy, or the cause of ctx's end.
//
// A demoted device is asked too, but not so often that others on its line would
// be held up: then the error is the one it failed with before.
func (r *Runner) Read(ctx context.Context, properties []int) (samples []models.Sample, err error) {
	for _, p := range properties {
		if p < 0 || p >= len(r.cfg.Properties) || !r.cfg.Properties[p].Access.Readable() {
			return nil, &Failure{Reason: models.ReasonConfiguration, Refused: true, Err: fmt.Errorf("property %d cannot be read", p)}
		}
	}
	o := readOrder{ctx: ctx, points: properties, reply: make(chan readReply, 1)}
	select {
	case r.reads <- o:
	default:
		return nil, ErrBusy
	}
	select {
	case a := <-o.reply:
		return a.samples, a.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-r.ended:
		return nil, &Failure{Reason: models.ReasonMapperLost, Unsent: true, Err: ErrClosed}
	}
}

// waitingReads takes what waits beside the first, without those that nobody waits
// for any more.
func (r *Runner) waitingReads(first readOrder) (orders []readOrder) {
	for o := first; ; {
		if o.ctx.Err() == nil {
			orders = append(orders, o)
		}
		select {
		case o = <-r.reads:
		default:
			return orders
		}
	}
}

// readNow reads what was asked for, all of it at once.
func (r *Runner) readNow(ctx context.Context, orders []readOrder) {
	if len(orders) == 0 {
		return
	}
	answer := func(err error) {
		for _, o := range orders {
			o.reply <- readReply{err: err}
		}
	}
	if r.demoted && r.line.use().shared() && time.Now().Before(r.readAgain) {
		answer(&Failure{Reason: r.failed.Reason, Err: fmt.Errorf("the device does not answer, and others wait for its line (asked again in %s): %w",
			time.Until(r.readAgain).Round(time.Second/10), r.failed.Err)})
		return
	}
	r.points = r.points[:0]
	for _, o := range orders {
		r.points = append(r.points, o.points...)
	}
	slices.Sort(r.points)
	r.points = slices.Compact(r.points)

	took, err := r.read(ctx, r.points)
	if err != nil && r.worthRetrying(err, took) && ctx.Err() == nil {
		var again time.Duration
		again, err = r.read(ctx, r.points)
		took += again
	}
	if ctx.Err() != nil {
		return // Read sees that Run has ended
	}
	if err != nil {
		r.readAgain = time.Now().Add(lineShare * took)
		// The policy's probes of a demoted device go on as they are. What is only
		// subscribed is judged by its subscription.
		if !r.demoted && r.polled > 0 {
			r.refreshed, r.changed = r.refreshed[:0], r.changed[:0]
			r.deviceFailed(err, took)
		}
		answer(err)
		return
	}
	if r.failed != nil {
		r.everything = true // the rest is bad still
	}
	r.deviceAnswered()
	r.answers()
	now := time.Now()
	r.refreshed, r.changed = r.refreshed[:0], r.changed[:0]
	found := make(map[int]models.Sample, len(r.points))
	for i, p := range r.points {
		found[p] = sampleOf(&r.cfg.Properties[p], r.results[i], now)
		if property := &r.properties[p]; property.has {
			property.latest = r.results[i] // else the next confirmation would bring the older one back
		}
		// Reported even within the deadband: the twin must not show another value
		// than the one who asked was told.
		r.observe(p, r.results[i], now, true)
	}
	r.report(now)
	if !r.everything && !r.unheard { // else once the rest is read
		r.tellState()
	}
	for _, o := range orders {
		samples := make([]models.Sample, len(o.points))
		for i, p := range o.points {
			samples[i] = found[p]
		}
		o.reply <- readReply{samples: samples}
	}
}
