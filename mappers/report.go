package mappers

import "context"

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
	// Stored, unless nil, is called once for a delivery that was taken, from any
	// goroutine: with nil when what there is to keep of it is on the disk, with
	// an error when that failed.
	Stored func(error)
}

// collect takes what a Reporter delivers.
func (r *Runner) collect(ctx context.Context, events chan<- event) {
	r.reporter.Report(ctx, func(d Delivery) bool {
		select {
		case events <- event{points: d.Points, results: d.Results, lost: d.Err, stored: d.Stored}:
			return true
		case <-ctx.Done():
			return false
		}
	})
}
