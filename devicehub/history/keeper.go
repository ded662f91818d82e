// Package history keeps what devices reported and answers questions about it:
// raw samples by pages, and buckets of them. The keeper tends the store, so that
// history stays small and quick to read.
package history

import (
	"context"
	"log/slog"
	"time"
)

// Compacting is what a Keeper needs of the store.
type Compacting interface {
	// Compact does some of the work and reports whether there is more to do now.
	Compact(ctx context.Context, now time.Time) (more bool, err error)
}

// DefaultEvery is how often a Keeper looks for work. Samples are in the shape
// that is quick to read some seconds after they have come.
const DefaultEvery = 2 * time.Second

// Keeper tends the store. All fields but Every are required.
type Keeper struct {
	Store Compacting
	Now   func() time.Time
	Log   *slog.Logger
	Every time.Duration // default DefaultEvery
}

// Run works until ctx ends. A store that fails is tried again: nothing is lost
// meanwhile, only larger.
func (k *Keeper) Run(ctx context.Context) error {
	every := k.Every
	if every == 0 {
		every = DefaultEvery
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		err := k.work(ctx)
		if err != nil && ctx.Err() == nil {
			k.Log.Error("history is not compacted; nothing is lost", "error", err)
		} else if failing {
			k.Log.Info("history is compacted again")
		}
		failing = err != nil
	}
}

// work does all there is to do.
func (k *Keeper) work(ctx context.Context) error {
	for more := true; more && ctx.Err() == nil; {
		var err error
		if more, err = k.Store.Compact(ctx, k.Now()); err != nil {
			return err
		}
	}
	return nil
}
