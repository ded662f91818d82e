package history

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/twin"
)

// testReportedAt compares with observing every sample until then, one after the
// other, on random histories that cross the borders of chunks and partitions.
func testReportedAt(t *testing.T, s store.Store) {
	l := newLogbook(t, s)
	r := rand.New(rand.NewPCG(7, 8))
	const week = int64(7 * 24 * 3600 * 1_000_000)
	origin := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	border := origin.UnixMicro()/week*week + week
	names := []string{"good", "mixed", "bad", "stale", "sparse", "never"}
	for round := range 8 {
		for _, name := range names[:5] {
			var samples []store.Sample
			for range 40 {
				us := border + r.Int64N(4*week) - 2*week
				if r.IntN(3) == 0 {
					us = border + r.Int64N(6) - 3
				}
				v := store.Sample{TimeUS: us, Kind: uint8(models.KindInt), Int: r.Int64N(100)}
				switch k := r.IntN(6); {
				case name == "good":
				case name == "bad", k == 0:
					v = store.Sample{TimeUS: us, Quality: uint8(models.Bad), Reason: []string{"timeout", "not-connected"}[r.IntN(2)]}
				case name == "stale", k == 1:
					v.Quality, v.Reason = uint8(models.Uncertain), "stale"
				case k == 2:
					v.Quality, v.Reason = uint8(models.Uncertain), "out-of-range"
				}
				samples = append(samples, v)
			}
			if name == "sparse" {
				samples = samples[:1]
			}
			slices.SortFunc(samples, func(a, b store.Sample) int { return int(a.TimeUS - b.TimeUS) })
			l.add(t, name, round%2 == 1, samples)
		}
		if round%3 == 1 {
			l.compact(t, origin)
		}
	}
	stored := map[string][]store.Sample{}
	for _, name := range names {
		if err := s.Samples(t.Context(), l.name, name, math.MinInt64, math.MaxInt64, func(v store.Sample) error {
			stored[name] = append(stored[name], v)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	times := []int64{math.MinInt64, math.MaxInt64, border, border - 1}
	for _, name := range names[:5] {
		for range 4 {
			us := l.all[name][r.IntN(len(l.all[name]))].TimeUS
			times = append(times, us, us-1)
		}
	}
	for _, at := range times {
		have, _, err := ReportedAt(t.Context(), s, l.name, names, at)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			var want twin.Reported
			for _, v := range stored[name] {
				if v.TimeUS > at {
					continue
				}
				sample, err := sampleOf(v)
				if err != nil {
					t.Fatal(err)
				}
				want, _ = want.Observe(sample)
			}
			if got := have[name]; got != want {
				t.Fatalf("%s at %d: %+v, want %+v", name, at, got, want)
			}
		}
	}
}

// testReportedAtIsQuick: a hundred properties with a day of history each.
func testReportedAtIsQuick(t *testing.T, s store.Store) {
	l := newLogbook(t, s)
	origin := time.Date(2026, 3, 4, 0, 0, 0, 0, time.UTC)
	var names []string
	for i := range 100 {
		names = append(names, fmt.Sprint("p", i))
		var samples []store.Sample
		for k := range 500 {
			samples = append(samples, store.Sample{TimeUS: origin.Add(time.Duration(k) * time.Minute).UnixMicro(), Kind: uint8(models.KindInt), Int: int64(k)})
		}
		l.add(t, names[i], false, samples)
	}
	l.compact(t, origin.Add(24*time.Hour))
	best := time.Hour
	for range 5 {
		began := time.Now()
		got, _, err := ReportedAt(t.Context(), s, l.name, names, origin.Add(5*time.Hour+30*time.Second).UnixMicro())
		best = min(best, time.Since(began))
		if err != nil || len(got) != 100 || got["p42"].Value != models.Int(300) {
			t.Fatalf("%d properties, p42 %+v, error %v", len(got), got["p42"], err)
		}
	}
	t.Logf("100 properties in %s", best)
	if best > 2*time.Second {
		t.Errorf("100 properties took %s", best)
	}
}
