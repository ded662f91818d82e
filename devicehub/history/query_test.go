package history

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"math/big"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/devicehub/store/postgres"
	"github.com/whimbrel-edge/whimbrel/devicehub/store/sqlite"
	"github.com/whimbrel-edge/whimbrel/devicehub/store/storetest"
	"github.com/whimbrel-edge/whimbrel/internal/pgtest"
	"github.com/whimbrel-edge/whimbrel/models"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// TestStores runs the tests that need a store on every kind of store: all of them
// on one, each with a device and a node of its own, since making one takes time.
func TestStores(t *testing.T) {
	tests := map[string]func(*testing.T, store.Store){"AgainstNaive": testAgainstNaive, "Rollups": testRollups, "SameTimeAcrossPages": testSameTimeAcrossPages,
		"Gaps": testGaps, "GapsOfFormerNodes": testGapsOfFormerNodes, "ReportedAt": testReportedAt, "ReportedAtIsQuick": testReportedAtIsQuick}
	log := slog.New(slog.DiscardHandler)
	for name, open := range map[string]func(*testing.T) (store.Store, error){
		"memory": func(*testing.T) (store.Store, error) { return storetest.NewMemory(), nil },
		"sqlite": func(t *testing.T) (store.Store, error) {
			return sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "hub.db"), log)
		},
		"postgres": func(t *testing.T) (store.Store, error) { return postgres.Open(t.Context(), pgtest.New(t), log) },
	} {
		t.Run(name, func(t *testing.T) {
			s, err := open(t)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
			for what, test := range tests {
				t.Run(what, func(t *testing.T) { test(t, s) })
			}
		})
	}
}

// logbook ingests samples of one device, by one node, and knows them.
type logbook struct {
	store.Store
	name  string // of device and node
	ids   map[string]int64
	acked uint64
	all   map[string][]store.Sample
}

func newLogbook(t *testing.T, s store.Store) *logbook {
	t.Helper()
	name := t.Name()
	if _, err := s.StartEpoch(t.Context(), name, "e", time.Now()); err != nil {
		t.Fatal(err)
	}
	return &logbook{Store: s, name: name, ids: map[string]int64{}, all: map[string][]store.Sample{}}
}

func (l *logbook) add(t *testing.T, property string, backfill bool, samples []store.Sample, gaps ...store.Gap) {
	t.Helper()
	id, known := l.ids[property]
	if !known {
		ids, err := l.SeriesIDs(t.Context(), []store.SeriesKey{{DeviceUID: l.name, Assignment: 1, Property: property}})
		if err != nil {
			t.Fatal(err)
		}
		id = ids[0]
		l.ids[property] = id
	}
	b := store.Batch{NodeUID: l.name, Epoch: "e", After: l.acked, Acked: l.acked + 1, Received: time.Now(), Backfill: backfill, Gaps: gaps}
	l.acked++
	for _, v := range samples {
		v.Backfill = backfill
		storetest.Add(&b.Samples, id, v)
		l.all[property] = append(l.all[property], v)
	}
	if err := l.Ingest(t.Context(), []store.Batch{b}); err != nil {
		t.Fatal(err)
	}
}

func (l *logbook) compact(t *testing.T, now time.Time) {
	t.Helper()
	for more := true; more; {
		var err error
		if more, err = l.Compact(t.Context(), now); err != nil {
			t.Fatal(err)
		}
	}
}

// pages reads all pages of a query, and wants each but the last to be full.
func (l *logbook) pages(t *testing.T, property string, q models.HistoryQuery) (all models.History) {
	t.Helper()
	for {
		page, err := Query(t.Context(), l, Subject{DeviceUID: l.name, Nodes: []store.Service{{NodeUID: l.name}}, Property: property}, q)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(page.Points) + len(page.Buckets); n > q.Limit || page.Continue != "" && n != q.Limit {
			t.Fatalf("a page of %d, the limit is %d, continue %q", n, q.Limit, page.Continue)
		}
		all.Points, all.Buckets, all.Gaps = append(all.Points, page.Points...), append(all.Buckets, page.Buckets...), append(all.Gaps, page.Gaps...)
		if q.Continue = page.Continue; q.Continue == "" {
			return all
		}
	}
}

// naive computes what pages must give.
func (l *logbook) naive(t *testing.T, property string, q models.HistoryQuery) (out models.History) {
	t.Helper()
	samples := slices.DeleteFunc(slices.Clone(l.all[property]), func(v store.Sample) bool {
		at := time.UnixMicro(v.TimeUS)
		return at.Before(q.From) || !at.Before(q.To)
	})
	slices.SortStableFunc(samples, func(a, b store.Sample) int { return time.UnixMicro(a.TimeUS).Compare(time.UnixMicro(b.TimeUS)) })
	groups := map[time.Time][]models.Value{}
	var order []time.Time
	inGap := false
	for _, v := range samples {
		value, err := Value(v)
		if err != nil {
			t.Fatal(err)
		}
		at := time.UnixMicro(v.TimeUS).UTC()
		if open := len(out.Gaps) - 1; inGap && (!value.IsNull() || v.Reason != out.Gaps[open].Reason) {
			out.Gaps[open].To, inGap = at, false
		}
		if value.IsNull() && inGap {
			out.Gaps[len(out.Gaps)-1].To = at
		} else if value.IsNull() {
			out.Gaps, inGap = append(out.Gaps, models.HistoryGap{From: at, To: at, Reason: v.Reason}), true
		}
		out.Points = append(out.Points, models.HistoryPoint{Time: at, Value: value, Quality: models.Quality(v.Quality), Reason: models.Reason(v.Reason), Backfill: v.Backfill})
		if q.Step == 0 || value.IsNull() {
			continue
		}
		start := time.Unix(0, 0).UTC().Add(at.Sub(time.Unix(0, 0)).Truncate(q.Step))
		if start.After(at) {
			start = start.Add(-q.Step)
		}
		if groups[start] == nil {
			order = append(order, start)
		}
		groups[start] = append(groups[start], value)
	}
	if q.Step == 0 {
		out.Gaps = nil
		return out
	}
	out.Points = nil
	for _, start := range order {
		values := groups[start]
		b := models.HistoryBucket{Time: start, Count: new(int64(len(values))), First: &values[0], Last: &values[len(values)-1]}
		sum, huge := new(big.Float).SetPrec(4096), false
		n := 0
		for _, v := range values {
			rank := v
			if is, ok := v.AsBool(); ok {
				rank = models.Int(map[bool]int64{true: 1}[is])
			}
			f, ok := rank.AsFloat()
			if !ok {
				continue
			}
			n++
			sum.Add(sum, new(big.Float).SetFloat64(f))
			huge = huge || math.Abs(f) >= 0x1p960
			asNumber := func(w *models.Value) models.Value {
				if is, ok := w.AsBool(); ok {
					return models.Int(map[bool]int64{true: 1}[is])
				}
				return *w
			}
			if b.Min == nil {
				b.Min, b.Max = &v, &v
				continue
			}
			if order, _ := rank.Compare(asNumber(b.Min)); order < 0 {
				b.Min = &v
			}
			if order, _ := rank.Compare(asNumber(b.Max)); order > 0 {
				b.Max = &v
			}
		}
		if n > 0 {
			avg, _ := sum.Float64()
			avg /= float64(n)
			if huge { // the sum may be too large for a float where the average is not
				avg, _ = sum.Quo(sum, new(big.Float).SetInt64(int64(n))).Float64()
			}
			b.Avg = &avg
		}
		out.Buckets = append(out.Buckets, b)
	}
	return out
}

// joined makes gaps that pages cut whole.
func joined(gaps []models.HistoryGap) []models.HistoryGap {
	var out []models.HistoryGap
	for _, g := range gaps {
		if n := len(out); n > 0 && out[n-1].Reason == g.Reason && out[n-1].To.Equal(g.From) {
			out[n-1].To = g.To
			continue
		}
		out = append(out, g)
	}
	return out
}

func shown(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(text), "},{", "},\n{")
}

// testAgainstNaive asks random questions of random signals that cross the borders
// of weeks, come late and out of order, and are compacted now and then.
func testAgainstNaive(t *testing.T, s store.Store) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	l := newLogbook(t, s)
	signals := storetest.Signals()
	border := time.Date(2026, 3, 5, 0, 0, 0, 0, time.UTC).UnixMicro() // partitions change here
	const span = 600_000_000
	for range 6 {
		for p, signal := range signals {
			var samples []store.Sample
			start := border - span/2 + random.Int64N(span)
			for i := range random.IntN(120) {
				v := signal(random)
				v.TimeUS = start + int64(i)*1_000_000
				if random.IntN(4) > 0 {
					v.TimeUS += random.Int64N(3_000_000)
				}
				if i > 0 && random.IntN(8) == 0 {
					v.TimeUS = samples[random.IntN(i)].TimeUS // of one time, and out of order
				}
				samples = append(samples, v)
			}
			l.add(t, fmt.Sprint("p", p), random.IntN(3) == 0, samples)
		}
		if random.IntN(2) == 0 {
			l.compact(t, time.Now().Add(time.Duration(random.IntN(2))*time.Hour))
		}
	}
	for range 150 {
		property := fmt.Sprint("p", random.IntN(len(signals)))
		from := border - span + random.Int64N(span*2)
		q := models.HistoryQuery{From: time.UnixMicro(from), To: time.UnixMicro(from + random.Int64N(span)), Limit: 1 + random.IntN([]int{4, 300, 300, 300, 300}[random.IntN(5)])}
		if random.IntN(3) > 0 {
			q.Step, q.Agg = []time.Duration{time.Millisecond, 700 * time.Millisecond, time.Second, time.Minute, time.Hour}[random.IntN(5)], models.Aggs
		}
		have, want := l.pages(t, property, q), l.naive(t, property, q)
		if h, w := shown(t, have.Points), shown(t, want.Points); len(have.Points)+len(want.Points) > 0 && h != w {
			t.Fatalf("%s %+v: points\n%s\nwant\n%s", property, q, h, w)
		}
		if h, w := shown(t, have.Buckets), shown(t, want.Buckets); len(have.Buckets)+len(want.Buckets) > 0 && h != w {
			t.Fatalf("%s %+v: buckets\n%s\nwant\n%s", property, q, h, w)
		}
		if h, w := shown(t, joined(have.Gaps)), shown(t, joined(want.Gaps)); h != w {
			t.Fatalf("%s %+v: gaps\n%s\nwant\n%s", property, q, h, w)
		}
	}
}

// counting counts what comes as rollups; raw has none.
type counting struct {
	store.Store
	rollups, samples int
	raw              bool
}

func (c *counting) Rollups(ctx context.Context, uid, property string, from, to, step int64, sample func(store.Sample) error, rollup func(*store.Rollup) error) error {
	if c.raw {
		return c.Store.Samples(ctx, uid, property, from, to, sample)
	}
	return c.Store.Rollups(ctx, uid, property, from, to, step, func(v store.Sample) error {
		c.samples++
		return sample(v)
	}, func(r *store.Rollup) error {
		c.rollups++
		return rollup(r)
	})
}

// testRollups asks random questions by the minute and hour of signals that are dense
// enough for rollups, with late pieces, bad values and a second assignment, across
// the borders of weeks, chunks and hours. By rollups and by samples everything must
// come to the same.
func testRollups(t *testing.T, s store.Store) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	l := newLogbook(t, s)
	border := time.Date(2026, 3, 5, 0, 0, 0, 0, time.UTC).UnixMicro() // partitions change here
	kinds := []func() store.Sample{
		func() store.Sample {
			return store.Sample{Kind: uint8(models.KindFloat), Float: float64(random.IntN(2000)) / 10}
		},
		func() store.Sample {
			return store.Sample{Kind: uint8(models.KindFloat), Float: random.NormFloat64() * 1e15}
		},
		func() store.Sample {
			return store.Sample{Kind: uint8(models.KindInt), Int: random.Int64() - 1<<62}
		},
		func() store.Sample {
			return store.Sample{Kind: uint8(models.KindUint), Int: -1 - random.Int64N(1000)}
		},
		func() store.Sample {
			return store.Sample{Kind: uint8(models.KindBool), Int: random.Int64N(2)}
		},
		func() store.Sample {
			return store.Sample{Kind: uint8(models.KindString), Text: fmt.Sprint(random.IntN(9))}
		},
	}
	const n, samples = 6000, int64(6000) // one a second
	start := border - n/2*1_000_000
	for p, kind := range kinds {
		var all []store.Sample
		bad := 0
		for i := range n {
			v := kind()
			if bad == 0 && random.IntN(2000) == 0 {
				bad = 1 + random.IntN(60)
			}
			if bad > 0 {
				bad--
				v = store.Sample{Quality: 2, Reason: []string{"timeout", "not-connected"}[random.IntN(50)/49]}
			}
			v.TimeUS = start + int64(i)*1_000_000
			if p%2 == 1 {
				v.TimeUS += random.Int64N(900_000)
			}
			all = append(all, v)
		}
		late := random.IntN(n - 700)
		l.add(t, fmt.Sprint("p", p), false, slices.Concat(all[:late], all[late+600:]))
		l.compact(t, time.Now().Add(time.Hour))
		if p%3 == 0 { // comes late, and some of it twice
			l.add(t, fmt.Sprint("p", p), true, all[late:late+603])
		}
		if p%3 == 1 {
			l.compact(t, time.Now().Add(time.Hour))
			l.add(t, fmt.Sprint("p", p), true, all[late:late+600])
			l.compact(t, time.Now().Add(time.Hour))
		}
		if p == 4 { // and under a second assignment
			ids, err := l.SeriesIDs(t.Context(), []store.SeriesKey{{DeviceUID: l.name, Assignment: 2, Property: "p4"}})
			if err != nil {
				t.Fatal(err)
			}
			was := l.ids["p4"]
			l.ids["p4"] = ids[0]
			l.add(t, "p4", false, all[n/3:n/3+1500])
			l.compact(t, time.Now().Add(time.Hour))
			l.ids["p4"] = was
		}
	}
	by, raw := &counting{Store: s}, &counting{Store: s, raw: true}
	// ask compares n random questions.
	ask := func(when string, n int) {
		t.Helper()
		for range n {
			p := random.IntN(len(kinds))
			property := fmt.Sprint("p", p)
			from := start + random.Int64N(samples)*1_000_000 - random.Int64N(2)*random.Int64N(store.Hour)
			to := from + random.Int64N(2*store.Hour)
			if random.IntN(3) == 0 { // all of it, which is two weeks in part
				from, to = start-store.Hour, start+samples*1_000_000+store.Hour
			}
			q := models.HistoryQuery{From: time.UnixMicro(from), To: time.UnixMicro(to), Limit: 1 + random.IntN(300), Agg: models.Aggs,
				Step: []time.Duration{time.Minute, 5 * time.Minute, time.Hour, 2 * time.Hour, 7 * time.Second}[random.IntN(5)]}
			l.Store = by
			have := l.pages(t, property, q)
			l.Store = raw
			want := l.pages(t, property, q)
			if h, w := shown(t, have), shown(t, want); h != w {
				t.Fatalf("%s: %s %+v: by rollups\n%s\nby samples\n%s", when, property, q, h, w)
			}
			if h, w := shown(t, have.Buckets), shown(t, l.naive(t, property, q).Buckets); p != 4 && len(have.Buckets) > 0 && h != w {
				t.Fatalf("%s: %s %+v: buckets\n%s\nwant\n%s", when, property, q, h, w)
			}
		}
		l.Store = s
	}
	over := func() time.Time { return time.Now().Add(14 * 24 * time.Hour) } // when both weeks are
	ask("fresh", 10)
	l.compact(t, over())
	ask("merged", 20)
	// What is rolled up by the week, and everything else, must not hide what comes
	// late: as it arrives, in chunks of its own, and merged.
	for p, kind := range kinds[:4] {
		if p == 2 {
			continue // all of which is read by rollups, below
		}
		var late []store.Sample
		at := start + random.Int64N(samples-200)*1_000_000
		for i := range 150 {
			v := kind()
			v.TimeUS = at + int64(i)*1_300_000
			late = append(late, v)
		}
		l.add(t, fmt.Sprint("p", p), true, late)
	}
	ask("late", 12)
	l.compact(t, time.Now())
	ask("late, compacted", 12)
	l.compact(t, over())
	ask("late, merged", 12)
	by.rollups, by.samples, l.Store = 0, 0, by
	l.pages(t, "p2", models.HistoryQuery{From: time.UnixMicro(start - store.Hour), To: time.UnixMicro(start + n*1_000_000 + store.Hour), Limit: 1000, Agg: models.Aggs, Step: time.Minute})
	if _, memory := s.(*storetest.Memory); !memory && (by.rollups < 20 || by.samples > 5500) {
		t.Errorf("%d rollups and %d samples were read of %d samples", by.rollups, by.samples, n)
	}
}

func testSameTimeAcrossPages(t *testing.T, s store.Store) {
	l := newLogbook(t, s)
	var samples []store.Sample
	for i := range 10 {
		samples = append(samples, store.Sample{TimeUS: int64(i / 7), Kind: uint8(models.KindInt), Int: int64(i)})
	}
	l.add(t, "p", false, samples)
	q := models.HistoryQuery{From: time.UnixMicro(0), To: time.UnixMicro(2), Limit: 3}
	for _, compacted := range []bool{false, true} {
		page := l.pages(t, "p", q)
		for i, p := range page.Points {
			if p.Value != models.Int(int64(i)) || len(page.Points) != 10 {
				t.Fatalf("compacted %v: %s", compacted, shown(t, page.Points))
			}
		}
		l.compact(t, time.Now())
	}
	for _, cursor := range []string{"x", "1", "1.x", "1.-1", "5.0", "-1.0", "1.0 ", "01.0"} {
		q.Continue = cursor
		if _, err := Query(t.Context(), l, Subject{DeviceUID: l.name, Property: "p"}, q); models.KindOf(err) != models.KindMalformed {
			t.Errorf("continue %q: error %v", cursor, err)
		}
	}
}

// testGaps wants holes with their causes: what the node's log says, each on one
// page only, and in buckets also what has no value.
func testGaps(t *testing.T, s store.Store) {
	at := func(sec int64) time.Time { return time.Unix(sec, 0).UTC() }
	l := newLogbook(t, s)
	var samples []store.Sample
	for sec := range int64(100) {
		v := store.Sample{TimeUS: sec * 1_000_000, Kind: uint8(models.KindInt), Int: sec}
		switch {
		case sec >= 30 && sec < 40:
			v = store.Sample{TimeUS: v.TimeUS, Quality: 2, Reason: "timeout"}
		case sec >= 40 && sec < 42:
			v = store.Sample{TimeUS: v.TimeUS, Quality: 2, Reason: "not-connected"}
		case sec >= 60 && sec < 80: // lost
			continue
		}
		samples = append(samples, v)
	}
	l.add(t, "p", false, samples,
		store.Gap{NodeUID: l.name, Reason: "outbox-full", From: at(60), To: at(80), Samples: 20, Recorded: at(200)},
		store.Gap{NodeUID: l.name, Reason: "unknown-device", From: at(10), To: at(20), Recorded: at(200)},
		store.Gap{NodeUID: l.name, Reason: "log-epoch-changed", Recorded: at(90)},
		store.Gap{NodeUID: l.name, Reason: "later", From: at(500), To: at(600), Recorded: at(700)})
	lost := models.HistoryGap{From: at(60), To: at(80), Reason: "outbox-full"}
	epoch := models.HistoryGap{From: at(90), To: at(90), Reason: "log-epoch-changed"}
	for _, c := range []struct {
		from, to, step int64
		limit          int
		want           []models.HistoryGap
	}{
		{0, 100, 0, 1000, []models.HistoryGap{lost, epoch}},
		{0, 100, 0, 7, []models.HistoryGap{lost, epoch}},
		{70, 75, 0, 7, []models.HistoryGap{lost}},
		{0, 60, 0, 7, nil},
		{0, 100, 5, 1000, []models.HistoryGap{{From: at(30), To: at(40), Reason: "timeout"}, {From: at(40), To: at(42), Reason: "not-connected"}, lost, epoch}},
		{0, 36, 5, 1000, []models.HistoryGap{{From: at(30), To: at(35), Reason: "timeout"}}},
	} {
		q := models.HistoryQuery{From: at(c.from), To: at(c.to), Step: time.Duration(c.step) * time.Second, Agg: models.DefaultAggs, Limit: c.limit}
		page := l.pages(t, "p", q)
		if h, w := shown(t, page.Gaps), shown(t, c.want); h != w && len(page.Gaps)+len(c.want) > 0 {
			t.Errorf("from %d to %d by %d: gaps\n%s\nwant\n%s", c.from, c.to, c.step, h, w)
		}
		for _, b := range page.Buckets {
			if sec := b.Time.Unix(); sec == 30 || sec == 35 || sec == 60 || sec == 75 {
				t.Errorf("there is a bucket at %d", sec)
			}
		}
	}
}

// testGapsOfFormerNodes: a device that moved has the gaps of each node that served
// it, as far as they are of the time in which it did, by time.
func testGapsOfFormerNodes(t *testing.T, s store.Store) {
	at := func(sec int64) time.Time { return time.Unix(sec, 0).UTC() }
	former, present := t.Name()+"-former", t.Name()+"-present"
	gap := func(node string, from, to int64, reason string) store.Gap {
		return store.Gap{NodeUID: node, Reason: reason, From: at(from), To: at(to), Recorded: at(200)}
	}
	if err := s.AddGaps(t.Context(), []store.Gap{
		gap(present, 70, 75, "e"), gap(present, 10, 15, "not yet served"), gap(present, 48, 55, "d"),
		gap(former, 40, 60, "c"), gap(former, 20, 25, "b"), gap(former, 70, 72, "no longer served"),
	}); err != nil {
		t.Fatal(err)
	}
	of := Subject{DeviceUID: t.Name(), Property: "p", Nodes: []store.Service{{NodeUID: former, Till: at(50)}, {NodeUID: present, Since: at(50)}}}
	page, err := Query(t.Context(), s, of, models.HistoryQuery{From: at(0), To: at(100), Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	want := []models.HistoryGap{{From: at(20), To: at(25), Reason: "b"}, {From: at(40), To: at(50), Reason: "c"}, {From: at(50), To: at(55), Reason: "d"}, {From: at(70), To: at(75), Reason: "e"}}
	if have := shown(t, page.Gaps); have != shown(t, want) {
		t.Errorf("gaps\n%s\nwant\n%s", have, shown(t, want))
	}
}

func TestKeeper(t *testing.T) {
	done := make(chan struct{})
	calls := 0
	k := Keeper{Store: compacting(func() (bool, error) {
		switch calls++; calls {
		case 1:
			return true, nil
		case 2:
			return false, nil
		case 3:
			return false, fmt.Errorf("injected")
		case 4:
			close(done)
		}
		return false, nil
	}), Rules: func(time.Time) []store.Retention { return []store.Retention{{DeviceUID: "d"}} }, ExpireEvery: time.Millisecond, Now: time.Now, Log: slog.New(slog.DiscardHandler), Every: time.Millisecond}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- k.Run(ctx) }()
	<-done
	cancel()
	if err := <-ended; err != context.Canceled {
		t.Errorf("ended with %v", err)
	}
}

type compacting func() (bool, error)

func (compacting) Expire(_ context.Context, rules []store.Retention, _ time.Time) error {
	if len(rules) != 1 {
		panic("the rules are not those of the registry")
	}
	return nil
}

func (f compacting) Compact(context.Context, time.Time) (bool, error) { return f() }
