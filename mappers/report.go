package mappers

import (
	"context"
	"time"
)

// Reporter is a Device that reads by itself, each point at its Every, and hands
// over what it has found: a device behind a mapper in a process of its own. The
// Runner polls and subscribes nothing of it, and does everything else.
type Reporter interface {
	// Report hands over what is read, and how the device is doing, until ctx
	// ends: it outlives every loss. It runs beside Read and Write, in a
	// goroutine of its own, and calls deliver from one goroutine. deliver may
	// block; false means that ctx has ended and the delivery was not taken. Only
	// what is delivered counts as fresh.
	Report(ctx context.Context, deliver func(Delivery) bool)
}

// Delivery is what a Reporter has found.
type Delivery struct {
	// Points and Results belong together; a point may come several times, the
	// oldest first. They are the callee's to keep.
	Points  []int
	Results []Result
	// Err says that the device as a whole does not answer (see Fail); there are
	// no results then.
	Err error
	// Ask says that the device is served, from now on or again, after Err if there
	// is one too: the Runner reads what it has not heard of since the device was
	// lost, and need not wait until each point is due.
	Ask bool
	// Stored, unless nil, is called once for a delivery that was taken, from any
	// goroutine: with nil when what there is to keep of it is on the disk, with
	// an error when that failed.
	Stored func(error)
}

// collect takes what a Reporter delivers.
func (r *Runner) collect(ctx context.Context, events chan<- event) {
	r.reporter.Report(ctx, func(d Delivery) bool {
		select {
		case events <- event{points: d.Points, results: d.Results, lost: d.Err, ask: d.Ask, stored: d.Stored}:
			return true
		case <-ctx.Done():
			return false
		}
	})
}

// catchUp reads what a Reporter has not reported since it was lost, or at all.
func (r *Runner) catchUp(ctx context.Context) {
	r.unheard = false
	r.points = r.points[:0]
	for _, s := range r.subscribed {
		if !r.properties[s.Point].has {
			r.points = append(r.points, s.Point)
		}
	}
	var failure *Failure
	if len(r.points) > 0 {
		if _, failure = r.read(ctx, r.points); ctx.Err() != nil {
			return
		}
	}
	now := time.Now()
	r.refreshed, r.changed = r.refreshed[:0], r.changed[:0]
	if failure != nil {
		if !r.live { // else it has reported others, and these alone are bad
			r.lost = failure
		}
		for _, p := range r.points {
			r.spoil(p, failure.Reason, now)
		}
	} else {
		r.live, r.lost, r.failed = true, nil, nil
		for i, p := range r.points {
			r.observe(p, r.results[i], now, false)
		}
	}
	r.report(now)
	r.tellState()
}

// answers takes note that a Reporter's device has answered, so that it is not
// lost, whatever was said last. What else is not known of it is then read too.
func (r *Runner) answers() {
	if r.reporter == nil {
		return
	}
	if r.lost != nil && len(r.subscribed) > 0 {
		r.unheard = true
	}
	r.live, r.lost, r.failed = true, nil, nil
}
