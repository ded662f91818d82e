package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/devices"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/link"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/outbox"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/store"
	"github.com/whimbrel-edge/whimbrel/internal/pgtest"
	"github.com/whimbrel-edge/whimbrel/internal/pki"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

// postgresSettings are those of a small server of its own: what is measured is
// the hub and not a cache of 32 MB.
var postgresSettings = map[string]string{"shared_buffers": "512MB", "max_wal_size": "4GB"}

// fleet is what is measured: so many edges with so many devices each, of so many
// properties.
type fleet struct {
	edges, devices, properties int
	// perRecord is how many values of a property come into one record at most; 0: as
	// many as fit.
	perRecord int
}

func (f fleet) series() int { return f.edges * f.devices * f.properties }

// property i of a device is called so, of every device.
func propertyName(i int) string { return fmt.Sprintf("p%02d", i) }

// value is the n-th value of a property: a slow wave with some noise, in
// hundredths, as an instrument shows it.
func (f fleet) value(series, n int) float64 {
	noise := float64((uint32(n)*2654435761 + uint32(series)*40503) >> 24)
	return math.Round(5000+2000*math.Sin(float64(n)/500+float64(series))+noise/16) / 100
}

// feeder is an edge without devices of its own: what it has in its outbox was
// put there.
type feeder struct {
	name  string
	dir   string
	f     fleet
	first int // number of its first series
	store *store.Store
	box   *outbox.Outbox
	link  link.Config
	refs  []edgelink.DeviceRef

	mu    sync.Mutex
	last  uint64 // seq of the last record put in
	acked uint64
	done  chan struct{} // closed when last is acknowledged
}

// noDevices is what the link hears of devices.
type noDevices struct{ wake chan struct{} }

func (noDevices) Apply([]store.Item)                           {}
func (noDevices) Latest(devices.LatestWanted) []*pb.LatestTwin { return nil }
func (d noDevices) LatestWake() <-chan struct{}                { return d.wake }
func (noDevices) Seen() []*pb.Seen                             { return nil }

// watched tells the feeder of acknowledgements.
type watched struct {
	*outbox.Outbox
	f *feeder
}

func (w watched) Ack(epoch string, seq uint64) error {
	err := w.Outbox.Ack(epoch, seq)
	w.f.mu.Lock()
	defer w.f.mu.Unlock()
	w.f.acked = max(w.f.acked, seq)
	if w.f.done != nil && w.f.acked >= w.f.last {
		close(w.f.done)
		w.f.done = nil
	}
	return err
}

// run runs the loops of an outbox and, when linked, a link until ctx ends.
func (f *feeder) run(ctx context.Context, linked bool) (wait func() error) {
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	errs := make([]error, 2)
	group.Go(func() { errs[0] = f.box.Run(ctx) })
	if linked {
		group.Go(func() {
			var l *link.Link
			if l, errs[1] = link.New(f.link); errs[1] == nil {
				errs[1] = l.Run(ctx)
			}
		})
	}
	return func() error {
		cancel()
		group.Wait()
		for _, err := range errs {
			if err != nil && !errors.Is(err, context.Canceled) {
				return err
			}
		}
		return nil
	}
}

// fleetWorld is a hub and a fleet that has joined it.
type fleetWorld struct {
	*world
	pg    *pgtest.Server // nil: the hub is on SQLite
	url   string
	fleet fleet
	edges []*feeder
}

// newFleet starts Postgres, a hub, and edges that have joined and know their
// devices; they are not linked.
func newFleet(ctx context.Context, f fleet) (*fleetWorld, error) {
	pg, err := pgtest.Open(pgtest.Options{Fsync: true, Settings: postgresSettings})
	if err != nil {
		return nil, err
	}
	return newFleetOn(ctx, pg, f)
}

// newFleetOn does so on a server, which it closes in the end, or with nil on SQLite.
func newFleetOn(ctx context.Context, pg *pgtest.Server, f fleet) (w *fleetWorld, err error) {
	w = &fleetWorld{fleet: f, pg: pg}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	if pg != nil {
		w.url = pg.URL("postgres")
	}
	if w.world, err = newHub(ctx, w.url); err != nil {
		return w, err
	}
	properties := make([]map[string]any, f.properties)
	for i := range properties {
		properties[i] = map[string]any{"name": propertyName(i), "type": "float", "access": "Read", "every": "1s",
			"address": map[string]any{"table": "holding", "register": 2 * i, "encoding": "float32"}}
	}
	if err := w.model(ctx, "fleet", properties); err != nil {
		return w, err
	}
	for e := range f.edges {
		feeder := &feeder{name: fmt.Sprintf("edge-%d", e), f: f, first: e * f.devices * f.properties}
		for d := range f.devices {
			if err := w.device(ctx, "fleet", feeder.name, fmt.Sprintf("%s-dev-%d", feeder.name, d), "127.0.0.1:1"); err != nil {
				return w, err
			}
		}
		w.edges = append(w.edges, feeder)
		if err := w.open(ctx, feeder); err != nil {
			return w, err
		}
	}
	return w, nil
}

// open opens an edge's files, joins the hub, and waits for its devices.
func (w *fleetWorld) open(ctx context.Context, f *feeder) error {
	url, token, err := w.join(ctx, f.name)
	if err != nil {
		return err
	}
	f.dir = filepath.Join(w.dir, f.name)
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return err
	}
	if f.store, err = store.Open(ctx, filepath.Join(f.dir, "edge.db"), pki.NewSealKey()); err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	if f.box, err = outbox.Open(ctx, outbox.Config{Path: filepath.Join(f.dir, "outbox.db"), MaxBytes: 4 << 30, Log: log, Now: time.Now}); err != nil {
		return err
	}
	f.link = link.Config{URL: url, Node: f.name, Token: token, Dir: filepath.Join(f.dir, "pki"), Store: f.store, Outbox: watched{f.box, f},
		Devices: noDevices{make(chan struct{})}, Log: log}
	stop := f.run(ctx, true)
	err = w.until(ctx, 30*time.Second, f.name+" to know its devices", func() bool {
		items, err := f.store.Items(ctx)
		if err != nil {
			return false
		}
		f.refs = f.refs[:0]
		for _, item := range items {
			if item.Kind == store.KindDevice {
				f.refs = append(f.refs, edgelink.DeviceRef{UID: item.UID, Assignment: item.Assignment})
			}
		}
		return len(f.refs) == f.f.devices
	})
	return errors.Join(err, stop(), f.reopen(ctx))
}

// reopen begins a new life of the outbox: one that has run cannot run again.
func (f *feeder) reopen(ctx context.Context) (err error) {
	if err := f.box.Close(); err != nil {
		return err
	}
	f.link.Token = ""
	f.box, err = outbox.Open(ctx, outbox.Config{Path: filepath.Join(f.dir, "outbox.db"), MaxBytes: 4 << 30, Log: f.link.Log, Now: time.Now})
	f.link.Outbox = watched{f.box, f}
	return err
}

// fill puts so many values of every property into the outbox, in turns, as
// devices report them: all properties of a device at once.
func (f *feeder) fill(ctx context.Context, from, n int, begin time.Time, every time.Duration) error {
	stop := f.run(ctx, false)
	samples := make([]outbox.Sample, f.f.properties)
	for p := range samples {
		samples[p].Property = propertyName(p)
	}
	var pending sync.WaitGroup
	var failed error
	for i := from; i < from+n && ctx.Err() == nil; i++ {
		at := begin.Add(time.Duration(i) * every)
		for d, ref := range f.refs {
			for p := range samples {
				samples[p].Sample = models.Sample{Time: at, Value: models.Float(f.f.value(f.first+d*f.f.properties+p, i))}
			}
			pending.Add(1)
			if err := f.box.Append(ctx, outbox.Entry{Device: ref, Samples: samples, Urgent: f.flushes(i-from+1) && d == len(f.refs)-1},
				func(seq uint64, err error) {
					f.mu.Lock()
					f.last, failed = max(f.last, seq), errors.Join(failed, err)
					f.mu.Unlock()
					pending.Done()
				}); err != nil {
				return errors.Join(err, stop())
			}
		}
		if f.flushes(i - from + 1) {
			pending.Wait()
		}
	}
	pending.Wait()
	return errors.Join(failed, stop(), f.reopen(ctx))
}

// flushes says whether a record ends after so many values of a property.
func (f *feeder) flushes(n int) bool { return f.f.perRecord > 0 && n%f.f.perRecord == 0 }

// drain links all edges and waits until everything is acknowledged.
func (w *fleetWorld) drain(ctx context.Context) (took time.Duration, err error) {
	var stops []func() error
	var dones []chan struct{}
	began := time.Now()
	for _, f := range w.edges {
		f.mu.Lock()
		f.done = make(chan struct{})
		done := f.done
		f.mu.Unlock()
		stops = append(stops, f.run(ctx, true))
		dones = append(dones, done)
	}
	for _, done := range dones {
		select {
		case <-done:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	took = time.Since(began)
	for i, stop := range stops {
		err = errors.Join(err, stop(), w.edges[i].reopen(ctx))
	}
	return took, err
}

// count is how many samples there are to be read.
func (w *fleetWorld) count(ctx context.Context) (n int, err error) {
	c, err := pgx.Connect(ctx, w.url)
	if err != nil {
		return 0, err
	}
	defer c.Close(ctx)
	err = c.QueryRow(ctx, `SELECT sum(n) FROM (SELECT o.name, s.property, (SELECT count(*) FROM samples('default', o.name, s.property, '-infinity', 'infinity')) AS n
		FROM objects o JOIN series s ON s.device_uid = o.uid WHERE o.kind = 'Device') x`).Scan(&n)
	return n, err
}

func (w *fleetWorld) close() (err error) {
	for _, f := range w.edges {
		if f.box != nil {
			err = errors.Join(err, f.box.Close())
		}
		if f.store != nil {
			err = errors.Join(err, f.store.Close())
		}
	}
	if w.world != nil {
		err = errors.Join(err, w.world.close())
	}
	if w.pg != nil {
		err = errors.Join(err, w.pg.Close())
	}
	return err
}

// benchIngest measures samples from the outboxes of a fleet, over TLS, until they
// are committed, next to a bare COPY of the same samples.
func benchIngest(ctx context.Context, s settings) (out []result, err error) {
	// Each record has one value of each of its edge's properties: as dear as it gets.
	f := fleet{edges: 20, devices: 20, properties: 50, perRecord: 1}
	const each = 100 // values of a property in a round
	rounds := min(s.rounds, 3)
	w, err := newFleet(ctx, f)
	if err != nil {
		return nil, err
	}
	defer func() { _ = w.close() }()
	var ours, bare, ratios []float64
	begin := time.Now().Add(-time.Duration(rounds*each) * 100 * time.Millisecond)
	for round := range rounds {
		for _, e := range w.edges {
			if err := e.fill(ctx, round*each, each, begin, 100*time.Millisecond); err != nil {
				return out, err
			}
		}
		took, err := w.drain(ctx)
		if err != nil {
			return out, err
		}
		o := float64(f.series()*each) / took.Seconds()
		b, err := w.copyRate(ctx, f.series()*each)
		if err != nil {
			return out, err
		}
		ours, bare, ratios = append(ours, o), append(bare, b), append(ratios, o/b)
	}
	n, err := w.count(ctx)
	if err != nil {
		return out, err
	}
	if want := f.series() * each * rounds; n != want {
		return out, fmt.Errorf("%d samples can be read, %d were sent", n, want)
	}
	return append(out, result{fmt.Sprintf("samples/s, outboxes of %d edges to Postgres, %d properties", f.edges, f.series()), fmt.Sprintf("%.0f", median(ours)),
		fmt.Sprintf("%.0f (COPY)", median(bare)), fmt.Sprintf("%.2f", median(ratios)), "≥ 1.0", median(ratios) >= 1}), nil
}

// copyRate is what a bare COPY of as many samples reaches, by one connection or
// two, whichever is better.
func (w *fleetWorld) copyRate(ctx context.Context, n int) (best float64, err error) {
	for _, connections := range []int{1, 2} {
		rate, err := w.copyBy(ctx, connections, n)
		if err != nil {
			return 0, fmt.Errorf("COPY: %w", err)
		}
		best = max(best, rate)
	}
	return best, nil
}

func (w *fleetWorld) copyBy(ctx context.Context, connections, n int) (perSecond float64, err error) {
	const rows = 10_000
	var conns []*pgx.Conn
	for range connections {
		c, err := pgx.Connect(ctx, w.url)
		if err != nil {
			return 0, err
		}
		defer c.Close(ctx)
		conns = append(conns, c)
	}
	if _, err := conns[0].Exec(ctx, `DROP TABLE IF EXISTS bare; CREATE TABLE bare (series int, time timestamptz, value float8, quality smallint); CREATE INDEX ON bare (series, time)`); err != nil {
		return 0, err
	}
	series, begin := w.fleet.series(), time.Now()
	errs := make([]error, connections)
	var wait sync.WaitGroup
	started := time.Now()
	for i, c := range conns {
		wait.Go(func() {
			row := make([]any, 4)
			for at := i * rows; at < n && errs[i] == nil; at += connections * rows {
				next := at
				_, errs[i] = c.CopyFrom(ctx, pgx.Identifier{"bare"}, []string{"series", "time", "value", "quality"}, pgx.CopyFromFunc(func() ([]any, error) {
					if next == min(at+rows, n) {
						return nil, nil
					}
					row[0], row[1], row[2], row[3] = int32(next%series), begin.Add(time.Duration(next/series)*100*time.Millisecond), w.fleet.value(next%series, next/series), int16(0)
					next++
					return row, nil
				}))
			}
		})
	}
	wait.Wait()
	took := time.Since(started)
	if err := errors.Join(errs...); err != nil {
		return 0, err
	}
	_, err = conns[0].Exec(ctx, `DROP TABLE bare`)
	return float64(n) / took.Seconds(), err
}
