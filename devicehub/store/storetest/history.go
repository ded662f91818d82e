package storetest

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/models"
)

// compact does all there is to do, as of now.
func compact(t failer, s store.Store, now time.Time) {
	t.Helper()
	for range 1000 {
		more, err := s.Compact(context.Background(), now)
		if err != nil {
			t.Fatalf("compact: %v", err)
		}
		if !more {
			return
		}
	}
	t.Fatalf("compacting does not come to an end")
}

// samplesCompacted fills a store and Memory with the same signals of all sorts, in
// runs that overlap and come late, across the borders of weeks, and compares them
// while the store is compacted now and then.
func samplesCompacted(t *testing.T, s *subject) {
	ctx := t.Context()
	const week = 7 * 24 * 3600 * 1_000_000
	random := rand.New(rand.NewPCG(1, 2))
	want := NewMemory()
	signals := Signals()
	var keys []store.SeriesKey
	for i := range signals {
		keys = append(keys, keyOf("d", 1, fmt.Sprint("p", i)), keyOf("d", 2, fmt.Sprint("p", i)))
	}
	ids, err := s.SeriesIDs(ctx, keys)
	must(t, err)
	wantIDs, err := want.SeriesIDs(ctx, keys)
	must(t, err)
	for _, to := range []store.Store{s, want} {
		_, err := to.StartEpoch(ctx, "n", "e", now)
		must(t, err)
	}
	at := now.UnixMicro()/week*week - 30_000_000
	compare := func(what string, from, to int64) {
		t.Helper()
		for i := range signals {
			property := fmt.Sprint("p", i)
			w := readSamples(t, want, "d", property, from, to)
			if h := readSamples(t, s, "d", property, from, to); !slices.Equal(h, w) {
				wantSame(t, fmt.Sprintf("%s: signal %d from %d to %d", what, i, from, to), h, w)
			}
		}
	}
	const rounds = 40
	for round := range rounds {
		have := store.Batch{NodeUID: "n", Epoch: "e", After: uint64(round), Acked: uint64(round) + 1, Received: now, Backfill: round%7 == 3}
		same := have
		start := at
		if have.Backfill {
			start -= week + 5_000_000 // late
		}
		for i, signal := range signals {
			series := i*2 + round/30 // the last rounds are of the next assignment
			times := slices.Sorted(func(yield func(int64) bool) {
				for n := range 20 {
					t := start + int64(n)*500_000
					if i%3 == 1 {
						t += random.Int64N(900_000)
					}
					if i%5 == 4 && n%4 == 0 {
						t = start // many of one time
					}
					if !yield(t) {
						return
					}
				}
			})
			if round%5 == 0 {
				random.Shuffle(len(times), func(a, b int) { times[a], times[b] = times[b], times[a] })
			}
			for _, at := range times {
				v := signal(random)
				v.TimeUS = at
				Add(&have.Samples, ids[series], v)
				Add(&same.Samples, wantIDs[series], v)
			}
		}
		must(t, s.Ingest(ctx, []store.Batch{have}))
		must(t, want.Ingest(ctx, []store.Batch{same}))
		at += 10_000_000
		if random.IntN(2) == 0 {
			compact(t, s, time.Now().Add(time.Duration(round)*time.Minute))
		}
		if round%10 == 9 {
			compare(fmt.Sprint("round ", round), math.MinInt64, everything)
			from := at - random.Int64N(400_000_000)
			compare(fmt.Sprint("round ", round), from, from+random.Int64N(60_000_000))
			for _, r := range [][2]int64{{0, 0}, {at, at}, {from, from - 1}, {0, everything}, {math.MinInt64, 0}, {everything, math.MinInt64}, {everything - 1, everything}, {math.MinInt64, math.MinInt64 + 1}} {
				compare(fmt.Sprint("round ", round), r[0], r[1])
				for _, step := range []int64{1, store.Minute, store.Hour} {
					if r[0] >= r[1] {
						never := func(store.Sample) error { return fmt.Errorf("a sample from %d to %d", r[0], r[1]) }
						must(t, s.Rollups(ctx, "d", "p1", r[0], r[1], step, never, func(*store.Rollup) error { return never(store.Sample{}) }))
					}
				}
			}
		}
	}
	for _, device := range []string{"d", "nobody"} {
		h, err := s.Properties(ctx, device)
		must(t, err)
		w, err := want.Properties(ctx, device)
		must(t, err)
		if !slices.Equal(h, w) {
			wantSame(t, "properties of "+device, h, w)
		}
	}
	compact(t, s, time.Now().Add(30*24*time.Hour))
	compare("at the end", math.MinInt64, everything)
	s.reopen(t)
	compact(t, s, time.Now().Add(30*24*time.Hour))
	compare("reopened", math.MinInt64, everything)
}

// Signals are what devices say, and what they should not.
func Signals() []func(*rand.Rand) store.Sample {
	float := func(f float64) store.Sample { return store.Sample{Kind: uint8(models.KindFloat), Float: f} }
	level := 20.0
	return []func(*rand.Rand) store.Sample{
		func(*rand.Rand) store.Sample { return intSample(0, 7) },
		func(r *rand.Rand) store.Sample { // a slow one with decimals
			level += math.Round(r.NormFloat64()*10) / 10
			return float(math.Round(level*10) / 10)
		},
		func(r *rand.Rand) store.Sample { return float(float64(float32(r.NormFloat64()))) },
		func(r *rand.Rand) store.Sample { return float(r.NormFloat64() * math.Pow(10, float64(r.IntN(300)))) },
		func(r *rand.Rand) store.Sample { return intSample(0, int64(r.IntN(60_000))-1000) },
		func(r *rand.Rand) store.Sample { return intSample(0, int64(r.Uint64())) },
		func(r *rand.Rand) store.Sample { return intSample(0, math.MaxInt64-r.Int64N(1<<40)) },
		func(r *rand.Rand) store.Sample {
			return store.Sample{Kind: uint8(models.KindUint), Int: math.MinInt64 + r.Int64N(1<<60)}
		},
		func(r *rand.Rand) store.Sample { return store.Sample{Kind: uint8(models.KindBool), Int: r.Int64N(2)} },
		func(r *rand.Rand) store.Sample { return exact[r.IntN(len(exact)-4)] },
		func(r *rand.Rand) store.Sample { // one that fails at times
			if r.IntN(5) == 0 {
				return store.Sample{Quality: 2, Reason: "timeout"}
			}
			return float(float64(r.IntN(1000)) / 100)
		},
		func(r *rand.Rand) store.Sample {
			return store.Sample{Kind: uint8(models.KindString), Text: []string{"", "idle", "größe"}[r.IntN(3)], Quality: uint8(r.IntN(2))}
		},
		func(*rand.Rand) store.Sample { return store.Sample{Quality: 2, Reason: "not-connected"} },
		func(r *rand.Rand) store.Sample { return float(float64(r.IntN(2000)-1000) * 0.1) }, // noise behind the last digit
		func(r *rand.Rand) store.Sample { // decimals, and now and then what is none
			if r.IntN(25) == 0 {
				return float([]float64{r.NormFloat64(), math.Copysign(0, -1), math.MaxFloat64, math.SmallestNonzeroFloat64, 1.0 / 3}[r.IntN(5)])
			}
			return float(float64(r.IntN(3000)) / 100)
		},
	}
}

// samplesExpire fills ten weeks of several devices and lets each one's go by
// another rule.
func samplesExpire(t *testing.T, s *subject) {
	ctx := t.Context()
	s.start(t, "n", "e")
	now := time.Now()
	const devices, hours = 5, 10 * 7 * 24
	b := store.Batch{NodeUID: "n", Epoch: "e", Acked: 1, Received: now}
	times := make([]int64, hours)
	var keys []store.SeriesKey
	for d := range devices {
		keys = append(keys, keyOf(fmt.Sprint("d", d), 1, "p"), keyOf(fmt.Sprint("d", d), 2, "p"), keyOf(fmt.Sprint("d", d), 1, "rare"))
	}
	ids, err := s.SeriesIDs(ctx, keys)
	must(t, err)
	for i := range hours {
		times[i] = now.Add(time.Duration(i-hours) * time.Hour).UnixMicro()
		for d := range devices {
			Add(&b.Samples, ids[3*d+i/(hours-5)], intSample(times[i], int64(i)))
			if i%500 == 0 {
				Add(&b.Samples, ids[3*d+2], intSample(times[i], int64(i)))
			}
		}
	}
	must(t, s.Ingest(ctx, []store.Batch{b}))
	day := 24 * time.Hour
	ago := func(d time.Duration) int64 { return now.Add(-d).UnixMicro() }
	for _, when := range []time.Duration{0, time.Hour} {
		compact(t, s, now.Add(when))
		must(t, s.Expire(ctx, []store.Retention{
			{DeviceUID: "d0", BeforeUS: ago(20 * day)},
			{DeviceUID: "d1", BeforeUS: ago(20 * day), Keep: 1000},
			{DeviceUID: "d2", BeforeUS: ago(0)},
			{DeviceUID: "d3", BeforeUS: ago(1000 * day)},
			{DeviceUID: "nobody", BeforeUS: ago(0)},
		}, now))
	}
	for d, rule := range []struct {
		least, most int // of p
		rare        int // the least of rare
	}{{20 * 24, 28*24 + 1, 0}, {1000, 1000 + 8*24, 4}, {0, 8*24 + 1, 0}, {hours, hours, 4}, {hours, hours, 4}} {
		got := readSamples(t, s, fmt.Sprint("d", d), "p", math.MinInt64, everything)
		if n := len(got); n < rule.least || n > rule.most {
			t.Errorf("device %d has %d samples left, want %d to %d", d, n, rule.least, rule.most)
		}
		for i, v := range got { // the latest ones, without a hole
			if v.TimeUS != times[hours-len(got)+i] {
				t.Fatalf("device %d: sample %d is of %d, want %d", d, i, v.TimeUS, times[hours-len(got)+i])
			}
		}
		if n := len(readSamples(t, s, fmt.Sprint("d", d), "rare", math.MinInt64, everything)); n < rule.rare {
			t.Errorf("device %d has %d rare samples left, want %d", d, n, rule.rare)
		}
	}
}
