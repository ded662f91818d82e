package storetest

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/models"
)

func epochs(t *testing.T, s *subject) {
	ctx := t.Context()
	if list := readEpochs(t, s, "n1"); len(list) != 0 {
		t.Fatalf("epochs of an unknown node: %+v", list)
	}
	want := []store.Epoch{
		{NodeUID: "n1", ID: "z", Rank: 1, Started: now},
		{NodeUID: "n1", ID: "a", Rank: 2, Started: now.Add(-time.Hour)}, // clocks jump; ranks do not
	}
	for range 2 {
		for _, w := range want {
			e, err := s.StartEpoch(ctx, "n1", w.ID, w.Started)
			must(t, err)
			e.Started = e.Started.UTC()
			wantSame(t, "started", e, w)
		}
	}
	e, err := s.StartEpoch(ctx, "n2", "z", now)
	must(t, err)
	if e.Rank != 1 || e.NodeUID != "n2" {
		t.Fatalf("another node's epoch of the same id: %+v", e)
	}
	wantSame(t, "listed", readEpochs(t, s, "n1"), want)

	// Numbers are unsigned, and compared so.
	for _, acked := range []uint64{1, math.MaxInt64, math.MaxInt64 + 1, math.MaxUint64 - 1, math.MaxUint64} {
		b := []store.Batch{{NodeUID: "n1", Epoch: "z", After: want[0].Acked, Acked: acked, Received: now}}
		must(t, s.Ingest(ctx, b))
		wantErr(t, "the same again", s.Ingest(ctx, b), store.ErrConflict)
		want[0].Acked = acked
		wantSame(t, "acknowledged", readEpochs(t, s, "n1"), want)
	}
	e, err = s.StartEpoch(ctx, "n1", "z", now.Add(time.Hour))
	must(t, err)
	e.Started = e.Started.UTC()
	wantSame(t, "started once more", e, want[0])
}

func epochsByMany(t *testing.T, s *subject) {
	race(t, 16, nil, func(i int) error {
		_, err := s.StartEpoch(t.Context(), "n", fmt.Sprint("epoch", i/2), now)
		return err
	})
	for i, e := range readEpochs(t, s, "n") {
		if e.Rank != uint64(i)+1 {
			t.Fatalf("epoch %d has rank %d", i, e.Rank)
		}
	}
	if n := len(readEpochs(t, s, "n")); n != 8 {
		t.Fatalf("%d epochs, want 8", n)
	}
}

func series(t *testing.T, s *subject) {
	ctx := t.Context()
	keys := []store.SeriesKey{
		keyOf("d", 1, "p"), keyOf("d", 2, "p"), keyOf("d", 1, "q"), keyOf("e", 1, "p"), keyOf("d", math.MaxUint64, "p"), keyOf("d", 0, "größe.日本"), keyOf("d", 1, "p"),
	}
	ids, err := s.SeriesIDs(ctx, keys)
	must(t, err)
	if len(ids) != len(keys) || ids[0] != ids[6] {
		t.Fatalf("ids %v", ids)
	}
	if unique := slices.Compact(slices.Sorted(slices.Values(ids))); len(unique) != 6 {
		t.Fatalf("%d different ids for 6 series: %v", len(unique), ids)
	}
	slices.Reverse(keys)
	again, err := s.SeriesIDs(ctx, append(keys, store.SeriesKey{DeviceUID: "new", Property: "p"}))
	must(t, err)
	slices.Reverse(ids)
	wantSame(t, "asked again", again[:7], ids)
	if slices.Contains(ids, again[7]) {
		t.Fatalf("a new series got an id that is taken: %v", again)
	}
}

func seriesByMany(t *testing.T, s *subject) {
	got := make([][]int64, 8)
	race(t, len(got), nil, func(i int) error {
		var keys []store.SeriesKey
		for k := range 50 {
			keys = append(keys, store.SeriesKey{DeviceUID: "d", Assignment: 1, Property: fmt.Sprint("p", k)})
		}
		if i%2 == 1 {
			slices.Reverse(keys)
		}
		ids, err := s.SeriesIDs(t.Context(), keys)
		if i%2 == 1 {
			slices.Reverse(ids)
		}
		got[i] = ids
		return err
	})
	for _, ids := range got[1:] {
		wantSame(t, "ids", ids, got[0])
	}
}

// exact holds values that are easily spoilt on the way.
var exact = []store.Sample{
	{Kind: uint8(models.KindNull), Quality: 2, Reason: "timeout"},
	{Kind: uint8(models.KindBool)},
	{Kind: uint8(models.KindBool), Int: 1},
	{Kind: uint8(models.KindInt)},
	{Kind: uint8(models.KindInt), Int: math.MaxInt64},
	{Kind: uint8(models.KindInt), Int: math.MinInt64},
	{Kind: uint8(models.KindInt), Int: 1<<53 + 1, Quality: 1, Reason: "out-of-range"},
	{Kind: uint8(models.KindUint), Int: -1},                  // the largest uint64
	{Kind: uint8(models.KindUint), Int: math.MinInt64},       // the smallest that is no int64
	{Kind: uint8(models.KindFloat)},                          //
	{Kind: uint8(models.KindFloat), Float: 5},                // stays a float
	{Kind: uint8(models.KindFloat), Float: 0.1},              //
	{Kind: uint8(models.KindFloat), Float: -math.MaxFloat64}, //
	{Kind: uint8(models.KindFloat), Float: math.SmallestNonzeroFloat64},
	{Kind: uint8(models.KindFloat), Float: 1e22, Quality: 2},
	{Kind: uint8(models.KindString)},
	{Kind: uint8(models.KindString), Text: "größe 日本 \U0001f600 '\"\\ {NULL}"},
	{Kind: uint8(models.KindString), Text: "a\x00b"},
	{Kind: uint8(models.KindString), Text: "NULL"},
	{Kind: uint8(models.KindBytes)},
	{Kind: uint8(models.KindBytes), Text: "\x00\xff\xfe\x80 \x00"},
	{Kind: uint8(models.KindBytes), Text: strings.Repeat("\xc3", 200_000)},
	{Kind: uint8(models.KindJSON), Text: `{"a":[1,18446744073709551615,"\u0000"]}`, Reason: "größe"},
	{Kind: uint8(models.KindInt), Int: 1, Quality: 255, Reason: "of a newer release"},
}

func samplesExact(t *testing.T, s *subject) {
	ctx := t.Context()
	s.start(t, "n", "e")
	id := s.seriesID(t, "d", "p")
	// All in one batch, and each in one of its own: a column that says nothing may
	// be left out.
	batch := store.Batch{NodeUID: "n", Epoch: "e", Acked: 1, Received: now}
	var want []store.Sample
	for i, v := range exact {
		v.TimeUS = int64(i) - 10
		Add(&batch.Samples, id, v)
		want = append(want, v)
	}
	must(t, s.Ingest(ctx, []store.Batch{batch}))
	for i, v := range exact {
		v.TimeUS, v.Backfill = int64(1000+i), i%2 == 0
		one := store.Batch{NodeUID: "n", Epoch: "e", After: uint64(i) + 1, Acked: uint64(i) + 2, Received: now, Backfill: v.Backfill}
		Add(&one.Samples, id, v)
		must(t, s.Ingest(ctx, []store.Batch{one}))
		want = append(want, v)
	}
	wantSame(t, "samples", readSamples(t, s, "d", "p", math.MinInt64, everything), want)
	for range 2 {
		compact(t, s, time.Now().Add(time.Hour))
		wantSame(t, "compacted", readSamples(t, s, "d", "p", math.MinInt64, everything), want)
	}
}

func samplesInOrder(t *testing.T, s *subject) {
	ctx := t.Context()
	s.start(t, "n1", "e")
	s.start(t, "n2", "e")
	ids, err := s.SeriesIDs(ctx, []store.SeriesKey{keyOf("d", 1, "p"), keyOf("d", 2, "p"), keyOf("d", 1, "other"), keyOf("other", 1, "p")})
	must(t, err)
	// Order of arrival is told by the value.
	var v int64
	batch := func(node string, acked uint64, backfill bool, at ...[2]int64) store.Batch {
		b := store.Batch{NodeUID: node, Epoch: "e", After: acked - 1, Acked: acked, Received: now, Backfill: backfill}
		for _, a := range at {
			v++
			Add(&b.Samples, a[0], intSample(a[1], v))
		}
		return b
	}
	const first, last = math.MinInt64, math.MaxInt64
	must(t, s.Ingest(ctx, []store.Batch{
		batch("n1", 1, false, [2]int64{ids[0], 10}, [2]int64{ids[2], 10}, [2]int64{ids[0], 10}, [2]int64{ids[0], 5}), // 1 2 3 4
		batch("n2", 1, true, [2]int64{ids[1], 10}, [2]int64{ids[1], first}, [2]int64{ids[3], 10}),                    // 5 6 7
		batch("n1", 2, false, [2]int64{ids[0], 10}, [2]int64{ids[0], last}, [2]int64{ids[0], 20}),                    // 8 9 10
	}))
	must(t, s.Ingest(ctx, []store.Batch{batch("n1", 3, false, [2]int64{ids[0], 10}, [2]int64{ids[0], 7})})) // 11 12
	values := func(from, to int64) (out []int64) {
		for _, v := range readSamples(t, s, "d", "p", from, to) {
			out = append(out, v.Int)
			if want := v.Int == 5 || v.Int == 6; v.Backfill != want {
				t.Errorf("sample %d: backfill %v", v.Int, v.Backfill)
			}
		}
		return out
	}
	cases := []struct {
		from, to int64
		want     []int64
	}{
		{first, last, []int64{6, 4, 12, 1, 3, 8, 11, 5, 10}},
		{first + 1, last, []int64{4, 12, 1, 3, 8, 11, 5, 10}},
		{5, 10, []int64{4, 12}},
		{10, 11, []int64{1, 3, 8, 11, 5}},
		{11, 20, nil},
		{20, 21, []int64{10}},
		{20, 20, nil},
		{21, 5, nil},
	}
	for _, when := range []string{"as it came", "compacted", "compacted later"} {
		for _, c := range cases {
			wantSame(t, fmt.Sprintf("%s, from %d to %d", when, c.from, c.to), values(c.from, c.to), c.want)
		}
		compact(t, s, now.Add(time.Duration(len(when))*time.Hour))
	}
	wantSame(t, "unknown device", len(readSamples(t, s, "nobody", "p", first, last)), 0)
	wantSame(t, "unknown property", len(readSamples(t, s, "d", "nothing", first, last)), 0)
}

func samplesMany(t *testing.T, s *subject) {
	ctx := t.Context()
	const series, samples, perCall = 20, 30_000, 15_000
	s.start(t, "n", "e")
	var keys []store.SeriesKey
	for i := range series {
		keys = append(keys, store.SeriesKey{DeviceUID: "d", Assignment: 1, Property: fmt.Sprint("p", i)})
	}
	ids, err := s.SeriesIDs(ctx, keys)
	must(t, err)
	for call := range samples / perCall {
		b := store.Batch{NodeUID: "n", Epoch: "e", After: uint64(call), Acked: uint64(call) + 1, Received: now}
		for i := range perCall {
			n := call*perCall + i
			Add(&b.Samples, ids[n%series], store.Sample{TimeUS: int64(n), Kind: uint8(models.KindFloat), Float: float64(n) / 8})
		}
		must(t, s.Ingest(ctx, []store.Batch{b}))
	}
	compact(t, s, now)
	for i := range series {
		got := readSamples(t, s, "d", fmt.Sprint("p", i), 0, everything)
		if len(got) != samples/series {
			t.Fatalf("series %d has %d samples, want %d", i, len(got), samples/series)
		}
		for k, v := range got {
			if n := k*series + i; v.TimeUS != int64(n) || v.Float != float64(n)/8 {
				t.Fatalf("series %d, sample %d: %+v", i, k, v)
			}
		}
	}
}

func ingestConflicts(t *testing.T, s *subject) {
	ctx := t.Context()
	s.start(t, "n", "e")
	s.start(t, "m", "e")
	id := s.seriesID(t, "d", "p")
	batch := func(node, epoch string, after, acked uint64) store.Batch {
		b := store.Batch{NodeUID: node, Epoch: epoch, After: after, Acked: acked, Received: now, Gaps: []store.Gap{{NodeUID: node, Reason: "r", Recorded: now}}}
		Add(&b.Samples, id, intSample(1, int64(acked)))
		return b
	}
	must(t, s.Ingest(ctx, []store.Batch{batch("n", "e", 0, 5)}))
	for what, call := range map[string][]store.Batch{
		"the same again":              {batch("n", "e", 0, 5)},
		"after less":                  {batch("n", "e", 4, 6)},
		"after more":                  {batch("n", "e", 6, 7)},
		"backwards":                   {batch("n", "e", 5, 4)},
		"nothing new":                 {batch("n", "e", 5, 5)},
		"nothing new in a new epoch":  {batch("m", "e", 0, 0)},
		"an epoch not started":        {batch("n", "other", 0, 9)},
		"a node not known":            {batch("nobody", "e", 0, 9)},
		"good, then stale":            {batch("m", "e", 0, 1), batch("n", "e", 4, 6)},
		"stale, then good":            {batch("n", "e", 4, 6), batch("m", "e", 0, 1)},
		"one epoch twice":             {batch("n", "e", 5, 7), batch("n", "e", 5, 7)},
		"one epoch, in wrong order":   {batch("n", "e", 7, 8), batch("n", "e", 5, 7)},
		"one epoch, with a seq to go": {batch("n", "e", 5, 7), batch("n", "e", 8, 9)},
	} {
		wantErr(t, what, s.Ingest(ctx, call), store.ErrConflict)
	}
	if got := readSamples(t, s, "d", "p", 0, everything); len(got) != 1 {
		t.Fatalf("%d samples are there after conflicts, want 1", len(got))
	}
	if n, m := len(readGaps(t, s, "n")), len(readGaps(t, s, "m")); n != 1 || m != 0 {
		t.Fatalf("%d and %d gaps are there after conflicts, want 1 and 0", n, m)
	}
	if e := readEpochs(t, s, "n")[0]; e.Acked != 5 {
		t.Fatalf("acknowledged is %d after conflicts, want 5", e.Acked)
	}
	must(t, s.Ingest(ctx, []store.Batch{batch("n", "e", 5, 6), batch("m", "e", 0, 1), batch("n", "e", 6, 70)}))
	if e := readEpochs(t, s, "n")[0]; e.Acked != 70 {
		t.Fatalf("acknowledged is %d, want 70", e.Acked)
	}
}

func ingestAtomic(t *testing.T, s *subject) {
	ctx := t.Context()
	s.start(t, "n", "e")
	s.start(t, "m", "e")
	id := s.seriesID(t, "d", "p")
	var call []store.Batch
	for _, node := range []string{"n", "m"} {
		b := store.Batch{NodeUID: node, Epoch: "e", Acked: 3, Received: now, Gaps: []store.Gap{{NodeUID: node, Reason: "r", Recorded: now}}}
		for i := range 500 {
			Add(&b.Samples, id, intSample(int64(i), int64(i)))
		}
		call = append(call, b)
	}
	counts := func() [4]uint64 {
		return [4]uint64{
			uint64(len(readSamples(t, s, "d", "p", 0, everything))), uint64(len(readGaps(t, s, "n")) + len(readGaps(t, s, "m"))),
			readEpochs(t, s, "n")[0].Acked, readEpochs(t, s, "m")[0].Acked,
		}
	}
	for _, table := range []string{"samples", "gaps"} {
		repair := s.db.Break(t, table)
		err := s.Ingest(ctx, call)
		repair()
		if err == nil || errors.Is(err, store.ErrConflict) {
			t.Fatalf("ingest with %s broken: error %v", table, err)
		}
		wantSame(t, "after a fault in "+table, counts(), [4]uint64{})
	}
	must(t, s.Ingest(ctx, call))
	wantSame(t, "after the repair", counts(), [4]uint64{1000, 2, 3, 3})
}

// ingestLateAgain: what hours come to has all that comes late for them, also where
// the store did not take it the first time.
func ingestLateAgain(t *testing.T, s *subject) {
	began := time.Now().UnixMicro()
	want, have := killedWork{NewMemory(), began}, killedWork{s, began}
	for round := range 6 {
		must(t, want.ingest(t.Context(), round))
		if round >= 3 { // late for what is rolled up
			repair := s.db.Break(t, "gaps")
			err := have.ingest(t.Context(), round)
			repair()
			if err == nil {
				t.Fatal("a broken store takes it")
			}
		}
		must(t, have.ingest(t.Context(), round))
		if round >= 2 {
			must(t, have.compact(t.Context()))
			compareHistory(t, fmt.Sprint("round ", round), s, want.Store)
		}
	}
}

func ingestManyNodes(t *testing.T, s *subject) {
	const nodes, calls, perCall = 8, 10, 20
	race(t, nodes, nil, func(i int) error {
		ctx, node := t.Context(), fmt.Sprint("n", i)
		if _, err := s.StartEpoch(ctx, node, "e", now); err != nil {
			return err
		}
		ids, err := s.SeriesIDs(ctx, []store.SeriesKey{{DeviceUID: node + "-device", Assignment: 1, Property: "p"}})
		if err != nil {
			return err
		}
		for call := range calls {
			b := store.Batch{NodeUID: node, Epoch: "e", After: uint64(call), Acked: uint64(call) + 1, Received: now}
			for k := range perCall {
				Add(&b.Samples, ids[0], intSample(int64(k%3), int64(call*perCall+k)))
			}
			if err := s.Ingest(ctx, []store.Batch{b}); err != nil {
				return err
			}
		}
		return nil
	})
	for i := range nodes {
		got := readSamples(t, s, fmt.Sprintf("n%d-device", i), "p", 0, everything)
		if len(got) != calls*perCall {
			t.Fatalf("node %d has %d samples", i, len(got))
		}
		for k := 1; k < len(got); k++ {
			if got[k].TimeUS == got[k-1].TimeUS && got[k].Int <= got[k-1].Int {
				t.Fatalf("node %d: %d came before %d", i, got[k].Int, got[k-1].Int)
			}
		}
	}
}

func ingestContended(t *testing.T, s *subject) {
	s.start(t, "n", "e")
	id := s.seriesID(t, "d", "p")
	won := race(t, 8, store.ErrConflict, func(int) error {
		b := store.Batch{NodeUID: "n", Epoch: "e", Acked: 1, Received: now}
		Add(&b.Samples, id, intSample(1, 1))
		return s.Ingest(t.Context(), []store.Batch{b})
	})
	if got := readSamples(t, s, "d", "p", 0, everything); won != 1 || len(got) != 1 {
		t.Fatalf("%d of 8 succeeded and stored %d samples", won, len(got))
	}
}

func gaps(t *testing.T, s *subject) {
	ctx := t.Context()
	a := store.Gap{
		NodeUID: "n", Reason: "outbox-full", Epoch: "e", FirstSeq: 1, LastSeq: math.MaxUint64, Samples: math.MaxUint64,
		From: now, To: now.Add(time.Hour), Recorded: now,
	}
	b := store.Gap{NodeUID: "n", Reason: "größe", From: time.UnixMicro(math.MinInt64).UTC(), To: time.UnixMicro(math.MaxInt64).UTC(), Recorded: now.Add(-time.Hour)}
	c := store.Gap{NodeUID: "n", Reason: "unreadable", From: time.UnixMicro(0).UTC(), Recorded: now}
	s.start(t, "n", "e")
	must(t, s.AddGaps(ctx, []store.Gap{a, b, {NodeUID: "other", Reason: "r", Recorded: now}}))
	must(t, s.Ingest(ctx, []store.Batch{{NodeUID: "n", Epoch: "e", Acked: 1, Received: now, Gaps: []store.Gap{c, a}}}))
	wantSame(t, "gaps", readGaps(t, s, "n"), []store.Gap{a, b, c, a})
	wantSame(t, "of nobody", len(readGaps(t, s, "nobody")), 0)
}
