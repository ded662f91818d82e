// Package history keeps what devices reported and answers questions about it:
// raw samples by pages, and buckets of them. The keeper tends the store, so that
// history stays small and quick to read.
package history

import (
	"context"
	"log/slog"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
)

// Kept is what a Keeper needs of the store.
type Kept interface {
	// Compact does some of the work and reports whether there is more to do now.
	Compact(ctx context.Context, now time.Time) (more bool, err error)
	// Expire deletes what is older than the rules say.
	Expire(ctx context.Context, rules []store.Retention, now time.Time) error
}

// The defaults of a Keeper. Samples are in the shape that is quick to read some
// seconds after they have come.
const (
	DefaultEvery       = 5 * time.Second
	DefaultExpireEvery = 15 * time.Minute
)

// Keeper tends the store. All fields but the last three are required.
type Keeper struct {
	Store Kept
	Rules func(now time.Time) []store.Retention // how long devices' history is kept
	Now   func() time.Time
	Log   *slog.Logger

	// Late is how late it is for what is deleted; nil: as Now says.
	Late        func(ctx context.Context) time.Time
	Every       time.Duration // how often it looks for work, DefaultEvery
	ExpireEvery time.Duration // how often it looks for what is too old, DefaultExpireEvery
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
	expireEvery := k.ExpireEvery
	if expireEvery == 0 {
		expireEvery = DefaultExpireEvery
	}
	old := time.NewTicker(expireEvery)
	defer old.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-old.C:
			now := k.Now()
			if k.Late != nil {
				now = k.Late(ctx)
			}
			if err := k.Store.Expire(ctx, k.Rules(now), now); err != nil && ctx.Err() == nil {
				k.Log.Error("history that is too old is not deleted", "error", err)
			}
			continue
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
