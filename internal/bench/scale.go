package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// scaleSamples and scaleEach are how many samples there are at least in a round: all
// together, for fewer cannot be told from what an idle hub takes, and of each
// property, so that most go the whole way into chunks, which needs about a hundred.
const (
	scaleSamples = 2_000_000
	scaleEach    = 120
)

// scaleMost bounds the samples of a round. A million properties get 24 each, after
// which the compactor puts theirs together for the first time; that they become chunks
// takes four times as many, which -each can ask for when there is time for it.
const scaleMost = 24_000_000

// benchScale measures what a sample costs the hub and Postgres in CPU, compaction
// included, at more and more properties with one sample a second each, as fast as
// they are taken in. The least of all is what each is compared with.
func benchScale(ctx context.Context, s settings) (out []result, err error) {
	var costs []scaleCost
	for _, f := range []fleet{{edges: 1, devices: 10, properties: 100}, {edges: 10, devices: 10, properties: 100}, {edges: 20, devices: 50, properties: 100},
		{edges: 20, devices: 500, properties: 100}} {
		if f.series() > s.scale || f.series() < s.scaleFrom {
			continue
		}
		f.perRecord = 1
		each := s.each
		if each == 0 {
			each = min(max(scaleEach, scaleSamples/f.series()), max(1, scaleMost/f.series()))
		}
		c, err := costPerSample(ctx, f, each)
		if err != nil {
			return out, fmt.Errorf("%d properties: %w", f.series(), err)
		}
		costs = append(costs, c)
	}
	if len(costs) == 0 {
		return nil, nil
	}
	least := costs[0].perSample()
	for _, c := range costs {
		least = min(least, c.perSample())
	}
	for _, c := range costs {
		out = append(out, result{fmt.Sprintf("CPU of hub and Postgres for a sample, %d properties, %d samples of each", c.series, c.each),
			fmt.Sprintf("%.2f µs (hub %.2f)", c.perSample(), c.hub.Seconds()*1e6/float64(c.samples())), fmt.Sprintf("%.2f µs (the least)", least),
			fmt.Sprintf("%.2f", c.perSample()/least), "≤ 1.3", c.perSample() <= 1.3*least})
	}
	last := costs[len(costs)-1]
	return append(out, result{fmt.Sprintf("RSS of the hub, %d properties", last.series), fmt.Sprintf("%.0f MiB", float64(last.rss)/(1<<20)), "-",
		fmt.Sprintf("%.0f B a property", float64(last.rss)/float64(last.series)), "-", true}), nil
}

// scaleCost is what a round took.
type scaleCost struct {
	series, each  int
	hub, postgres time.Duration
	rss           int64 // of the hub, afterwards
}

func (c scaleCost) samples() int { return c.series * c.each }

// perSample is in microseconds.
func (c scaleCost) perSample() float64 {
	return (c.hub + c.postgres).Seconds() * 1e6 / float64(c.samples())
}

func costPerSample(ctx context.Context, f fleet, each int) (c scaleCost, err error) {
	w, err := newFleet(ctx, f)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	db, err := pgx.Connect(ctx, w.url)
	if err != nil {
		return c, err
	}
	defer db.Close(ctx)
	// First a round that does not count. That a property is new costs once; and so do
	// memory and log that hub and Postgres use for the first time: in a virtual machine
	// a page of them costs more than the samples in it.
	before := min(each, max(1, scaleMost/f.series()))
	begin := time.Now().Add(-time.Duration(before+each) * time.Second)
	if err := w.round(ctx, db, 0, before, begin); err != nil {
		return c, err
	}
	if _, err := db.Exec(ctx, `CHECKPOINT`); err != nil { // which keeps the log's files for use again
		return c, err
	}
	if err := w.fillAll(ctx, before, each, begin); err != nil {
		return c, err
	}
	hub, postgres, err := w.cpu()
	if err != nil {
		return c, err
	}
	if err := w.round(ctx, db, before+each, 0, begin); err != nil {
		return c, err
	}
	c = scaleCost{series: f.series(), each: each}
	if c.hub, c.postgres, err = w.cpu(); err != nil {
		return c, err
	}
	c.hub, c.postgres = c.hub-hub, c.postgres-postgres
	c.rss, err = rss(w.hub.cmd.Process.Pid)
	return c, err
}

// round adds n values of each property to the outboxes and drains them, until what
// has arrived is compacted as far as it goes.
func (w *fleetWorld) round(ctx context.Context, db *pgx.Conn, from, n int, begin time.Time) error {
	if err := w.fillAll(ctx, from, n, begin); err != nil {
		return err
	}
	if _, err := w.drain(ctx); err != nil {
		return err
	}
	var failed error
	err := w.until(ctx, 2*time.Minute, "the compactor", func() bool {
		sleep(ctx, time.Second)
		var waits bool
		failed = db.QueryRow(ctx, `SELECT EXISTS (SELECT FROM samples_batch WHERE level = 0)`).Scan(&waits)
		return failed != nil || !waits
	})
	sleep(ctx, 6*time.Second) // the compactor looks every five, whether there is more to put together
	return errors.Join(err, failed)
}

// fillAll fills the outboxes of all edges at once.
func (w *fleetWorld) fillAll(ctx context.Context, from, n int, begin time.Time) error {
	if n == 0 {
		return nil
	}
	errs := make(chan error, len(w.edges))
	for _, e := range w.edges {
		go func() { errs <- e.fill(ctx, from, n, begin, time.Second) }()
	}
	var err error
	for range w.edges {
		err = errors.Join(err, <-errs)
	}
	return err
}

// cpu is what hub and Postgres have taken.
func (w *fleetWorld) cpu() (hub, postgres time.Duration, err error) {
	if hub, err = cpuOf(w.hub.cmd.Process.Pid); err != nil {
		return 0, 0, err
	}
	postgres, err = w.pg.CPU()
	return hub, postgres, err
}
