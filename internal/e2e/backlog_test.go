package e2e

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/outbox"
	"github.com/whimbrel-edge/whimbrel/internal/pgtest"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
)

// TestBacklog gives an edge the log of a long time without a hub, at 1,000 values
// a second, and then the hub back. Live values are at most a second old while the
// backlog drains, in order, nothing missing and nothing twice, and the edge needs
// no more memory than without it.
//
//	WHIMBREL_BACKLOG=8h go test -run TestBacklog -v -timeout 1h ./internal/e2e
func TestBacklog(t *testing.T) {
	// The short form runs beside all other tests, and so proves order and completeness
	// only: a value that waited behind this backlog would hardly be older.
	outage, fresh := 5*time.Minute, 5*time.Second
	if text := os.Getenv("WHIMBREL_BACKLOG"); text != "" {
		var err error
		if outage, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
		fresh = time.Second
	}
	h := newHub(t, pgtest.StartServer(t, pgtest.Options{Fsync: true}).URL("postgres"))
	plant, live := newCounters(t, "plant", 50, 20, 0), newCounters(t, "live", 1, 1, 1000)
	live.node = plant.node
	h.apply(plant.manifests(time.Second))
	h.apply(live.manifests(100 * time.Millisecond))
	e := newEdge(t, h, plant.node, h.link)
	h.awaitNode(t, plant.node, true)
	plant.eventuallyLive(t, h)
	// What it takes with the same load, freshly started, and no backlog.
	e.stop()
	e.again()
	h.awaitNode(t, plant.node, true)
	lean := int64(0)
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
		lean = max(lean, e.rss(t))
		time.Sleep(50 * time.Millisecond) //sleep: samples the memory of a process
	}
	e.stop()

	fed := feed(t, h, e, plant, outage)
	info, err := os.Stat(filepath.Join(e.data, "outbox.db"))
	if err != nil {
		t.Fatal(err)
	}
	full := info.Size()
	t.Logf("outage of %v: %d samples in %d MB of outbox", outage, fed.samples, full>>20)

	db := openStore(t, h.database)
	began := time.Now()
	e.again()
	var ages []time.Duration
	most, drained := int64(0), false
	var took time.Duration
	for deadline := time.Now().Add(30 * time.Minute); !drained || len(ages) < 10; { // a short one is drained before there are ten looks
		if time.Now().After(deadline) {
			t.Fatal("the backlog does not drain")
		}
		// The link takes a moment; what counts is from the first live value on.
		if d, err := h.twin(hubAPI, live.names[0]); err == nil {
			if r := d.Properties[counter(0)].Reported; r != nil && r.Quality == "good" && r.Time.After(began) {
				ages = append(ages, time.Since(r.Time))
			}
		}
		most = max(most, e.rss(t))
		if !drained && (len(ages)%50 == 49 || outage < time.Hour) {
			drained = fed.drained(t, h, db, plant)
			took = time.Since(began)
		}
		time.Sleep(50 * time.Millisecond) //sleep: samples the age of a live value
	}
	slices.Sort(ages)
	p99 := ages[len(ages)*99/100]
	t.Logf("drained in %v (%d samples/s); a value read every 100 ms was %v old (median), %v (p99), %v (max) at the hub's REST, %d looks; RSS of the edge %d MB without a backlog, at most %d MB with it",
		took.Round(time.Millisecond), int(float64(fed.samples)/took.Seconds()), ages[len(ages)/2].Round(time.Millisecond), p99.Round(time.Millisecond),
		ages[len(ages)-1].Round(time.Millisecond), len(ages), lean>>20, most>>20)
	if p99 > fresh {
		t.Errorf("live values were up to %v old (p99)", p99)
	}
	if most-lean > 10<<20 {
		t.Errorf("the edge took %d MB more with a backlog", (most-lean)>>20)
	}
	fed.check(t, h, db, plant)
	eventually(t, time.Minute, "space is given back", func() error {
		if info, err := os.Stat(filepath.Join(e.data, "outbox.db")); err != nil || info.Size() > max(full/10, 32<<20) {
			return fmt.Errorf("outbox.db has %d MB of %d, %w", info.Size()>>20, full>>20, err)
		}
		return nil
	})
}

// fed is a backlog: for every counter of a fleet a value a second.
type fed struct {
	samples, perSeries int
	from               time.Time
	uids               []string
}

// feed puts a backlog into the outbox of an edge that does not run, as the edge
// would have: a record for each 50 ms.
func feed(t *testing.T, h *hub, e *edge, c *counters, outage time.Duration) fed {
	t.Helper()
	f := fed{perSeries: int(outage / time.Second), from: time.Now().Add(-outage).Truncate(time.Second)}
	f.samples = f.perSeries * len(c.names) * c.props
	var refs []edgelink.DeviceRef
	for _, name := range c.names {
		o, err := h.object(hubAPI + "/devices/" + name)
		if err != nil {
			t.Fatal(err)
		}
		f.uids = append(f.uids, o.Metadata.UID)
		refs = append(refs, edgelink.DeviceRef{UID: o.Metadata.UID, Assignment: 1}) // it has never moved
	}
	o, err := outbox.Open(t.Context(), outbox.Config{Path: filepath.Join(e.data, "outbox.db"), Log: slog.New(slog.DiscardHandler), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- o.Run(ctx) }() // ends below, or with the test
	failed := make(chan error, 1)
	// Twenty records a second: of two or three devices each.
	for s := range f.perSeries {
		for i, ref := range refs {
			entry := outbox.Entry{Device: ref, Urgent: i*20/len(refs) != (i+1)*20/len(refs)}
			for k := range c.props {
				entry.Samples = append(entry.Samples, outbox.Sample{Property: counter(k), Sample: models.Sample{Value: models.Int(f.value(s)),
					Quality: models.Good, Time: f.from.Add(time.Duration(s)*time.Second + time.Duration(i)*time.Millisecond)}})
			}
			var done func(uint64, error)
			if entry.Urgent { // waits, so that records do not grow larger than life
				stored := make(chan struct{})
				done = func(_ uint64, err error) {
					if err != nil {
						select {
						case failed <- err:
						default:
						}
					}
					close(stored)
				}
				if err := o.Append(t.Context(), entry, done); err != nil {
					t.Fatal(err)
				}
				<-stored
				continue
			}
			if err := o.Append(t.Context(), entry, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-failed:
		t.Fatal(err)
	default:
	}
	if s := o.Stats(); s.Dropped > 0 {
		t.Fatalf("the backlog does not fit: %+v", s)
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	return f
}

// value is what every counter shows s seconds into the outage: below what the live
// ones have.
func (fed) value(s int) int64 { return int64(s) - 1<<40 }

// drained reports whether the last of the backlog is in the history.
func (f fed) drained(t *testing.T, h *hub, db store.Store, c *counters) bool {
	t.Helper()
	at := f.from.Add(time.Duration(f.perSeries-1) * time.Second).UnixMicro()
	found := false
	err := db.Samples(t.Context(), f.uids[len(f.uids)-1], counter(c.props-1), at, at+1_000_000, func(x store.Sample) error {
		found = found || x.Int == f.value(f.perSeries-1)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// check wants every value of the backlog once, in order, and flagged.
func (f fed) check(t *testing.T, h *hub, db store.Store, c *counters) {
	t.Helper()
	complaints := 0
	for i, uid := range f.uids {
		for k := range c.props {
			next := 0
			err := db.Samples(t.Context(), uid, counter(k), f.from.UnixMicro(), f.from.Add(time.Duration(f.perSeries)*time.Second).UnixMicro(), func(x store.Sample) error {
				if x.Int >= 0 {
					return nil // live
				}
				if (x.Int != f.value(next) || !x.Backfill) && complaints < 10 {
					complaints++
					t.Errorf("%s of %s: %d (backfill %v) after %d seconds, want %d", counter(k), c.names[i], x.Int, x.Backfill, next, f.value(next))
				}
				next++
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if next != f.perSeries {
				t.Errorf("%s of %s: %d values of the backlog, want %d", counter(k), c.names[i], next, f.perSeries)
			}
		}
	}
}

// rss is how much memory the process takes.
func (p *process) rss(t testing.TB) int64 {
	t.Helper()
	for line := range strings.Lines(read(fmt.Sprintf("/proc/%d/status", p.pid()))) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "VmRSS:" {
			n, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Fatalf("%s has no memory", p.name)
	return 0
}
