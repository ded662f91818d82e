// Package calendar says how late it is to those who delete what is old. What is
// deleted does not come back when a clock does: a hub that wakes up in 2100, because
// somebody set its clock or its machine lost it, would otherwise delete all history
// that has a retention, and its events and ledger, within minutes.
//
// So this clock does not follow a leap forward before the machine's has stood by it
// for a day of running time, over as many starts as that takes. Being late deletes
// too little, which the disk can bear; nothing else goes by this clock.
package calendar

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
)

const (
	// leap is how far the machine's clock may be ahead of what is expected before it
	// is doubted. A restart takes less.
	leap = 10 * time.Minute
	// patience is for how long it has to stay ahead to be believed.
	patience = 24 * time.Hour
)

// Next returns how late it is believed to be, ran after d and with the machine's
// clock showing wall. It is a pure function.
func Next(d store.Date, wall time.Time, ran time.Duration) store.Date {
	expected := d.Time.Add(max(ran, 0))
	switch {
	case d.Time.IsZero(), // nobody has said anything yet
		!wall.After(expected.Add(leap)),
		d.Doubted+ran >= patience:
		return store.Date{Time: wall}
	}
	return store.Date{Time: expected, Doubted: d.Doubted + max(ran, 0)}
}

// Calendar is the hub's. Its methods are safe for concurrent use.
type Calendar struct {
	store store.Meta
	now   func() time.Time
	log   *slog.Logger

	mu   sync.Mutex
	date store.Date
	at   time.Time // of date, by the machine's clock, and by the one that does not jump
}

// Open goes on where the hub's last life ended.
func Open(ctx context.Context, s store.Meta, now func() time.Time, log *slog.Logger) (*Calendar, error) {
	d, err := s.Date(ctx)
	if err != nil {
		return nil, fmt.Errorf("open calendar: %w", err)
	}
	return &Calendar{store: s, now: now, log: log, date: d, at: now()}, nil
}

// Now returns how late it is for what is old, and stores that. Where it cannot be
// stored the next start doubts more than it would have to.
func (c *Calendar) Now(ctx context.Context) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	wall := c.now()
	next := Next(c.date, wall, wall.Sub(c.at))
	switch {
	case next.Doubted > 0 && c.date.Doubted == 0:
		c.log.Warn("the clock is ahead of what was expected: nothing is deleted for its age until it has stood by that for a day of running time",
			"clock", wall.UTC(), "expected", next.Time.UTC())
	case next.Doubted == 0 && c.date.Doubted > 0:
		c.log.Info("what is old is deleted by the clock again", "clock", wall.UTC())
	}
	c.date, c.at = next, wall
	if err := c.store.SetDate(ctx, next); err != nil && ctx.Err() == nil {
		c.log.Warn("how late it is is not stored", "error", err)
	}
	return next.Time
}
