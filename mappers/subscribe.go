package mappers

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/whimbrel-edge/whimbrel/internal/backoff"
	"github.com/whimbrel-edge/whimbrel/models"
)

// event is what the goroutine of a subscription, or of a Reporter, tells the
// loop: a delivery, or that the subscription or the device is lost.
type event struct {
	points  []int
	results []Result
	lost    error
	ask     bool // see Delivery
	stored  func(error)
}

// resubscribing spaces attempts to subscribe again.
var resubscribing = backoff.Policy{Min: time.Second, Max: 30 * time.Second, Factor: 2, Jitter: 0.2}

// subscribe keeps the subscription up until ctx ends. It, or collect, is the one
// goroutine beside the loop, and shares nothing with it but events.
func (r *Runner) subscribe(ctx context.Context, events chan<- event) {
	device := r.cfg.Device.(Subscriber)
	failures := 0
	var delivered atomic.Bool // deliver need not be called from this goroutine
	tell := func(e event) {
		select {
		case events <- e:
		case <-ctx.Done():
		}
	}
	for ctx.Err() == nil {
		err := device.Subscribe(ctx, r.subscribed, func(points []int, results []Result) {
			delivered.Store(true)
			tell(event{points: points, results: results})
		})
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = Fail(models.ReasonNotConnected, errors.New("the subscription ended"))
		}
		tell(event{lost: err})
		if delivered.Swap(false) {
			failures = 0
		}
		failures++
		if !sleep(ctx, resubscribing.Delay(failures, float64(r.cfg.Seed%97)/97)) {
			return
		}
	}
}

// handle takes what a subscription tells.
func (r *Runner) handle(e event) {
	now := time.Now()
	r.refreshed, r.changed = r.refreshed[:0], r.changed[:0]
	r.stored = e.stored
	r.unheard = r.unheard || e.ask
	switch {
	case e.lost != nil:
		was := r.lost
		live := r.live
		r.live, r.lost = false, FailureOf(e.lost)
		switch { // a Reporter tells again and again; the state is logged
		case r.reporter != nil:
		case live:
			r.log.Warn("the subscription is lost", "err", e.lost)
		case was == nil || was.Error() != r.lost.Error():
			r.log.Warn("the device cannot be subscribed to", "err", e.lost)
		default:
			r.log.Debug("the device still cannot be subscribed to", "err", e.lost)
		}
		for _, s := range r.subscribed {
			r.properties[s.Point].has = false
			r.spoil(s.Point, r.lost.Reason, now)
		}
	case e.ask:
		return // nothing is known of it yet
	default:
		r.live, r.lost = true, nil
		for i, p := range e.points {
			r.properties[p].latest, r.properties[p].has = e.results[i], true
			r.observe(p, e.results[i], now, false)
		}
	}
	r.report(now)
	r.tellState()
}

// confirm vouches for subscribed points that have not changed.
func (r *Runner) confirm(points []int, now time.Time) {
	for _, p := range points {
		if property := &r.properties[p]; property.has {
			unchanged := property.latest
			unchanged.Time = time.Time{} // true now, whenever it became so
			r.observe(p, unchanged, now, false)
		}
	}
}
