// Package storetest holds the suite that every store of the hub must pass, and
// Memory, a store in memory that does. For tests only.
//
// Where package store leaves something open the suite settles it:
//
//   - In a Commit, what is put comes before what is deleted; a later entry for
//     one object, or one device, replaces an earlier one; a Delete whose UID is
//     not the stored one does nothing.
//   - A Batch for an epoch that was not started is ErrConflict, like any other
//     sign that this is not the database that it was.
//   - Several batches of one Ingest may belong to one epoch, in order.
//   - AnswerKey keeps the fingerprint that was reserved, and does nothing for a
//     key that is gone.
//   - Times come back equal to the microsecond, JSON to the byte.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/oklog/ulid/v2"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/models"
)

// Database is one database, empty at first.
type Database struct {
	// Open opens it. The suite closes it before it opens it again, and closes
	// what it has opened.
	Open func(t *testing.T) store.Store
	// Break makes every later insert into one of the tables fail, until repair is
	// called: "objects", "desired", "samples", "gaps", "events". It is called while the
	// database is open.
	Break func(t *testing.T, table string) (repair func())
}

// Run checks everything that package store promises. create makes a new database.
func Run(t *testing.T, create func(t *testing.T) Database) {
	for _, c := range []struct {
		name string
		test func(*testing.T, *subject)
	}{
		{"lineage", lineage},
		{"date", date}, {"versions", versions},
		{"objects", objects},
		{"objects replaced and deleted in one group", replacedInGroup},
		{"commit conflicts", commitConflicts},
		{"commit by many", commitByMany},
		{"commit is whole or not", commitAtomic},
		{"twins", twins},
		{"epochs", epochs},
		{"epochs started by many", epochsByMany},
		{"series", series},
		{"series made by many", seriesByMany},
		{"samples come back exactly", samplesExact},
		{"samples in order", samplesInOrder},
		{"many samples", samplesMany},
		{"samples are the same when compacted", samplesCompacted},
		{"samples expire", samplesExpire},
		{"ingest conflicts", ingestConflicts},
		{"ingest is whole or not", ingestAtomic},
		{"ingest again of what is late", ingestLateAgain},
		{"ingest of many nodes", ingestManyNodes},
		{"ingest of one epoch by many", ingestContended},
		{"gaps", gaps},
		{"audit", audit},
		{"events", events},
		{"events are trimmed", eventsTrimmed},
		{"events are followed", eventsFollowed},
		{"writes", writes},
		{"writes settle", writesSettle},
		{"lives of devices", lives},
		{"last samples", lastSamples},
		{"idempotency", idempotency},
		{"routes", routes},
		{"states of pods", pods},
		{"nothing to do", nothing},
		{"cancelled", cancelled},
		{"callbacks stop", callbacksStop},
		{"bytes are not shared", notShared},
		{"reopened", reopened},
		{"random calls", randomCalls},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &subject{db: create(t)}
			s.Store = s.db.Open(t)
			t.Cleanup(func() {
				if err := s.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			})
			c.test(t, s)
		})
	}
}

// subject is an open database under test.
type subject struct {
	store.Store
	db Database
}

func (s *subject) reopen(t *testing.T) {
	t.Helper()
	must(t, s.Close())
	s.Store = s.db.Open(t)
}

const everything = math.MaxInt64 // as the end of a time range

var now = time.Date(2026, 3, 4, 5, 6, 7, 890123000, time.UTC)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%s: have error %v, want %v", what, err, want)
	}
}

func wantSame(t *testing.T, what string, have, want any) {
	t.Helper()
	if reflect.DeepEqual(have, want) { // far quicker than Diff
		return
	}
	if d := cmp.Diff(want, have, cmpopts.EquateEmpty()); d != "" {
		t.Fatalf("%s (- want, + have):\n%s", what, d)
	}
}

// state is what Load, LoadTwins return, in order.
type state struct {
	Revision int64
	Objects  []store.Object
	Desired  []store.Desired
	Twins    []store.Checkpoint
}

func load(t failer, s store.Store) (st state) {
	t.Helper()
	ctx := context.Background()
	var err error
	st.Revision, err = s.Load(ctx, func(o store.Object) error {
		o.Created = o.Created.UTC()
		st.Objects = append(st.Objects, o)
		return nil
	}, func(d store.Desired) error {
		st.Desired = append(st.Desired, d)
		return nil
	})
	if err != nil {
		t.Fatalf("load: %v", err)
	}
	err = s.LoadTwins(ctx, func(c store.Checkpoint) error {
		st.Twins = append(st.Twins, c)
		return nil
	})
	if err != nil {
		t.Fatalf("load twins: %v", err)
	}
	slices.SortFunc(st.Objects, func(a, b store.Object) int {
		return strings.Compare(a.Kind+"\xff"+a.Namespace+"\xff"+a.Name, b.Kind+"\xff"+b.Namespace+"\xff"+b.Name)
	})
	slices.SortFunc(st.Desired, func(a, b store.Desired) int { return strings.Compare(a.DeviceUID, b.DeviceUID) })
	slices.SortFunc(st.Twins, func(a, b store.Checkpoint) int { return strings.Compare(a.DeviceUID, b.DeviceUID) })
	return st
}

// failer is a testing.T or a rapid.T.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

func readSamples(t failer, s store.Store, device, property string, from, to int64) (out []store.Sample) {
	t.Helper()
	err := s.Samples(context.Background(), device, property, from, to, func(v store.Sample) error {
		out = append(out, v)
		return nil
	})
	if err != nil {
		t.Fatalf("samples: %v", err)
	}
	return out
}

func readGaps(t failer, s store.Store, node string) (out []store.Gap) {
	t.Helper()
	err := s.Gaps(context.Background(), node, func(g store.Gap) error {
		g.From, g.To, g.Recorded = g.From.UTC(), g.To.UTC(), g.Recorded.UTC()
		out = append(out, g)
		return nil
	})
	if err != nil {
		t.Fatalf("gaps: %v", err)
	}
	return out
}

func readEpochs(t failer, s store.Store, node string) []store.Epoch {
	t.Helper()
	out, err := s.Epochs(context.Background(), node)
	if err != nil {
		t.Fatalf("epochs: %v", err)
	}
	for i := range out {
		out[i].Started = out[i].Started.UTC()
	}
	return out
}

// Add appends one sample to the columns of s.
func Add(s *store.Samples, series int64, v store.Sample) {
	s.Series, s.TimeUS, s.Kind = append(s.Series, series), append(s.TimeUS, v.TimeUS), append(s.Kind, v.Kind)
	s.Int, s.Float, s.Text = append(s.Int, v.Int), append(s.Float, v.Float), append(s.Text, v.Text)
	s.Quality, s.Reason = append(s.Quality, v.Quality), append(s.Reason, v.Reason)
}

func intSample(at, v int64) store.Sample {
	return store.Sample{TimeUS: at, Kind: uint8(models.KindInt), Int: v}
}

func object(kind, name string, revision int64) store.Object {
	return store.Object{
		Kind: kind, Namespace: "default", Name: name, UID: "uid-of-" + name, Revision: revision, Generation: 1,
		Created: now, JSON: fmt.Appendf(nil, `{"revision": %d}`, revision),
	}
}

func twinOf(uid string, json []byte) store.Checkpoint {
	return store.Checkpoint{DeviceUID: uid, JSON: json}
}

func desiredOf(uid string, revision int64, json []byte) store.Desired {
	return store.Desired{DeviceUID: uid, Revision: revision, JSON: json}
}

func keyOf(device string, assignment uint64, property string) store.SeriesKey {
	return store.SeriesKey{DeviceUID: device, Assignment: assignment, Property: property}
}

func (s *subject) start(t *testing.T, node, epoch string) {
	t.Helper()
	_, err := s.StartEpoch(t.Context(), node, epoch, now)
	must(t, err)
}

func (s *subject) seriesID(t *testing.T, device, property string) int64 {
	t.Helper()
	ids, err := s.SeriesIDs(t.Context(), []store.SeriesKey{{DeviceUID: device, Assignment: 1, Property: property}})
	must(t, err)
	return ids[0]
}

func lineage(t *testing.T, s *subject) {
	first, err := s.Lineage(t.Context())
	must(t, err)
	if _, err := ulid.Parse(first); err != nil {
		t.Fatalf("lineage %q: %v", first, err)
	}
	s.reopen(t)
	again, err := s.Lineage(t.Context())
	must(t, err)
	if again != first {
		t.Fatalf("the lineage changed from %s to %s", first, again)
	}
}

func date(t *testing.T, s *subject) {
	first, err := s.Date(t.Context())
	if must(t, err); !first.Time.IsZero() || first.Doubted != 0 {
		t.Fatalf("a new store says it is %+v", first)
	}
	for _, want := range []store.Date{
		{Time: time.Date(2026, 11, 22, 12, 0, 0, 123000, time.UTC), Doubted: 90 * time.Minute},
		{Time: time.Date(1969, 1, 1, 0, 0, 0, 0, time.UTC)}, {Time: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)},
	} {
		must(t, s.SetDate(t.Context(), want))
		s.reopen(t)
		got, err := s.Date(t.Context())
		if must(t, err); !got.Time.Equal(want.Time) || got.Doubted != want.Doubted {
			t.Fatalf("got %+v, want %+v", got, want)
		}
	}
}

func versions(t *testing.T, s *subject) {
	for _, want := range []store.Versions{{}, {Era: 3, Open: true}, {Era: 1 << 40}} {
		if want != (store.Versions{}) {
			must(t, s.SetVersions(t.Context(), want))
			s.reopen(t)
		}
		if got, err := s.Versions(t.Context()); err != nil || got != want {
			t.Fatalf("got %+v, %v; want %+v", got, err, want)
		}
	}
}

func objects(t *testing.T, s *subject) {
	ctx := t.Context()
	if st := load(t, s); !cmp.Equal(st, state{}) {
		t.Fatalf("an empty store holds %+v", st)
	}
	a := store.Object{
		Kind: "Device", Namespace: "plant", Name: "größe", UID: "01J", Revision: math.MaxInt64 - 5, Generation: math.MaxInt64,
		Assignment: math.MaxInt64, Created: now,
		JSON: []byte("{ \"b\": 18446744073709551615,\n\"a\":\"\\u0000 ' \\\\ 日本 \U0001f600\", \"b\":-9223372036854775808, \"c\":1e400}"),
	}
	b := store.Object{Kind: "Node", Name: "größe", UID: "01K", Revision: 1, Created: time.Time{}, JSON: []byte(`{}`)}
	d := store.Desired{DeviceUID: "01J", Revision: 7, JSON: []byte(`{"properties": {"a":0.1}}`)}
	must(t, s.Commit(ctx, store.Commit{Revision: math.MaxInt64 - 5, Put: []store.Object{a, b}, PutDesired: []store.Desired{d}}))
	wantSame(t, "stored", load(t, s), state{Revision: math.MaxInt64 - 5, Objects: []store.Object{a, b}, Desired: []store.Desired{d}})

	a.UID, a.Revision, a.Generation, a.Assignment, a.JSON, a.Created = "01L", 2, 3, 4, []byte(`[]`), now.Add(time.Microsecond)
	d.Revision, d.JSON = 8, []byte(`null`)
	must(t, s.Commit(ctx, store.Commit{Revision: math.MaxInt64 - 4, Put: []store.Object{a}, PutDesired: []store.Desired{d}}))
	wantSame(t, "replaced", load(t, s), state{Revision: math.MaxInt64 - 4, Objects: []store.Object{a, b}, Desired: []store.Desired{d}})

	must(t, s.SaveTwins(ctx, []store.Checkpoint{{DeviceUID: "01J", JSON: []byte(`{}`)}, {DeviceUID: "stays", JSON: []byte(`{}`)}}))
	must(t, s.Commit(ctx, store.Commit{
		Revision: math.MaxInt64 - 3, DeletedDevices: []string{"01J", "never there"},
		Delete: []store.Object{{Kind: "Device", Namespace: "plant", Name: "größe", UID: "01L"}, {Kind: "Device", Name: "never there"}},
	}))
	wantSame(t, "deleted", load(t, s), state{
		Revision: math.MaxInt64 - 3, Objects: []store.Object{b},
		Twins: []store.Checkpoint{{DeviceUID: "stays", JSON: []byte(`{}`)}},
	})
	must(t, s.Commit(ctx, store.Commit{Revision: math.MaxInt64}))
	if r := load(t, s).Revision; r != math.MaxInt64 {
		t.Fatalf("the revision is %d after an empty group", r)
	}
}

// replacedInGroup is about groups in which one name is used more than once.
func replacedInGroup(t *testing.T, s *subject) {
	ctx := t.Context()
	first, second := object("Device", "a", 1), object("Device", "a", 3)
	second.UID = "second"
	must(t, s.Commit(ctx, store.Commit{Revision: 1, Put: []store.Object{first}}))

	// Deleted and made again.
	must(t, s.Commit(ctx, store.Commit{Revision: 3, Put: []store.Object{second}, Delete: []store.Object{first}}))
	wantSame(t, "made again", load(t, s).Objects, []store.Object{second})

	// Changed twice, and the desired values too.
	changed := second
	changed.Revision, changed.JSON = 5, []byte(`{"last":true}`)
	d1, d2 := store.Desired{DeviceUID: "second", Revision: 4, JSON: []byte(`1`)}, store.Desired{DeviceUID: "second", Revision: 5, JSON: []byte(`2`)}
	must(t, s.Commit(ctx, store.Commit{Revision: 5, Put: []store.Object{second, changed}, PutDesired: []store.Desired{d1, d2}}))
	st := load(t, s)
	wantSame(t, "changed twice", st.Objects, []store.Object{changed})
	wantSame(t, "desired twice", st.Desired, []store.Desired{d2})

	// Changed and deleted, and another one made and deleted.
	passing := object("Device", "b", 7)
	must(t, s.Commit(ctx, store.Commit{
		Revision: 8, Put: []store.Object{second, passing}, Delete: []store.Object{second, passing},
		PutDesired: []store.Desired{d1, {DeviceUID: passing.UID, Revision: 7, JSON: []byte(`{}`)}}, DeletedDevices: []string{second.UID, passing.UID},
	}))
	wantSame(t, "gone", load(t, s), state{Revision: 8})
}

func commitConflicts(t *testing.T, s *subject) {
	ctx := t.Context()
	must(t, s.Commit(ctx, store.Commit{Revision: 5, Put: []store.Object{object("Device", "a", 5)}}))
	before := load(t, s)
	for _, revision := range []int64{5, 4, 0, -1, math.MinInt64} {
		err := s.Commit(ctx, store.Commit{
			Revision: revision, Put: []store.Object{object("Device", "b", revision)}, Delete: []store.Object{object("Device", "a", 5)},
			PutDesired: []store.Desired{{DeviceUID: "b", Revision: revision, JSON: []byte(`{}`)}},
		})
		wantErr(t, fmt.Sprint("revision ", revision), err, store.ErrConflict)
	}
	wantSame(t, "after conflicts", load(t, s), before)
	must(t, s.Commit(ctx, store.Commit{Revision: 100}))
}

func commitByMany(t *testing.T, s *subject) {
	won := race(t, 8, store.ErrConflict, func(i int) error {
		return s.Commit(t.Context(), store.Commit{Revision: 1, Put: []store.Object{object("Device", fmt.Sprint("d", i), 1)}})
	})
	if st := load(t, s); won != 1 || len(st.Objects) != 1 || st.Revision != 1 {
		t.Fatalf("%d commits of revision 1 succeeded, %d objects are there", won, len(st.Objects))
	}
}

// race runs f n times at once and counts the calls that succeeded. The others
// must have failed with want.
func race(t *testing.T, n int, want error, f func(i int) error) int64 {
	t.Helper()
	var won atomic.Int64
	var wg sync.WaitGroup
	begin := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-begin
			switch err := f(i); {
			case err == nil:
				won.Add(1)
			case want == nil || !errors.Is(err, want):
				t.Errorf("call %d: have error %v, want %v", i, err, want)
			}
		})
	}
	close(begin)
	wg.Wait()
	return won.Load()
}

func commitAtomic(t *testing.T, s *subject) {
	ctx := t.Context()
	must(t, s.Commit(ctx, store.Commit{
		Revision: 1, Put: []store.Object{object("Device", "a", 1)},
		PutDesired: []store.Desired{{DeviceUID: "uid-of-a", Revision: 1, JSON: []byte(`{}`)}},
	}))
	before := load(t, s)
	group := store.Commit{
		Revision: 2, Put: []store.Object{object("Device", "b", 2)}, Delete: []store.Object{object("Device", "a", 1)},
		PutDesired: []store.Desired{{DeviceUID: "uid-of-b", Revision: 2, JSON: []byte(`{}`)}}, DeletedDevices: []string{"uid-of-a"},
	}
	for _, table := range []string{"objects", "desired"} {
		repair := s.db.Break(t, table)
		err := s.Commit(ctx, group)
		repair()
		if err == nil || errors.Is(err, store.ErrConflict) {
			t.Fatalf("commit with %s broken: error %v", table, err)
		}
		wantSame(t, "after a fault in "+table, load(t, s), before)
	}
	must(t, s.Commit(ctx, group))
	if st := load(t, s); st.Revision != 2 || len(st.Objects) != 1 || st.Objects[0].Name != "b" {
		t.Fatalf("after the repair: %+v", st)
	}
}

func twins(t *testing.T, s *subject) {
	ctx := t.Context()
	long := []byte(`"` + strings.Repeat("x\\u0000", 100_000) + `"`)
	must(t, s.SaveTwins(ctx, []store.Checkpoint{twinOf("a", []byte(`1`)), twinOf("b", long), twinOf("a", []byte(`{"b":2, "a":1}`))}))
	wantSame(t, "saved", load(t, s).Twins, []store.Checkpoint{twinOf("a", []byte(`{"b":2, "a":1}`)), twinOf("b", long)})
	must(t, s.SaveTwins(ctx, []store.Checkpoint{twinOf("b", []byte(`null`)), twinOf("c", []byte(`[]`))}))
	wantSame(t, "replaced", load(t, s).Twins, []store.Checkpoint{twinOf("a", []byte(`{"b":2, "a":1}`)), twinOf("b", []byte(`null`)), twinOf("c", []byte(`[]`))})
}

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

func idempotency(t *testing.T, s *subject) {
	ctx := t.Context()
	const hour = time.Hour
	reserve := func(caller, key, fingerprint string, at time.Time) (store.IdempotentAnswer, error) {
		return s.ReserveKey(ctx, caller, key, fingerprint, at, hour)
	}
	_, err := reserve("a", "k", "f", now)
	must(t, err)
	have, err := reserve("a", "k", "other", now)
	wantErr(t, "reserved", err, store.ErrConflict)
	wantSame(t, "while it runs", have, store.IdempotentAnswer{Fingerprint: "f"})
	for _, free := range [][2]string{{"b", "k"}, {"a", "K"}, {"a", "\x00\xff größe"}, {"", ""}} {
		_, err := reserve(free[0], free[1], "f", now)
		must(t, err)
		_, err = reserve(free[0], free[1], "f", now)
		wantErr(t, "reserved", err, store.ErrConflict)
	}

	want := store.IdempotentAnswer{Fingerprint: "f", Status: 201, Head: `"5"`, Body: []byte("\x00\xffbody")}
	must(t, s.AnswerKey(ctx, "a", "k", want))
	for _, at := range []time.Time{now, now.Add(-hour), now.Add(hour)} {
		have, err = reserve("a", "k", "f", at)
		wantErr(t, "answered", err, store.ErrConflict)
		wantSame(t, "answer", have, want)
	}
	late := now.Add(hour + time.Microsecond)
	have, err = reserve("a", "k", "f2", late)
	must(t, err)
	wantSame(t, "too old", have, store.IdempotentAnswer{})
	have, err = reserve("a", "k", "f", late)
	wantErr(t, "reserved anew", err, store.ErrConflict)
	wantSame(t, "anew", have, store.IdempotentAnswer{Fingerprint: "f2"})

	must(t, s.AnswerKey(ctx, "a", "k", store.IdempotentAnswer{}))
	_, err = reserve("a", "k", "f3", late)
	must(t, err)
	must(t, s.AnswerKey(ctx, "a", "not reserved", want))
	_, err = reserve("a", "not reserved", "f", late)
	must(t, err)

	won := race(t, 8, store.ErrConflict, func(int) error {
		_, err := reserve("a", "contended", "f", late)
		return err
	})
	if won != 1 {
		t.Fatalf("%d calls reserved one key", won)
	}
	won = race(t, 8, store.ErrConflict, func(int) error {
		_, err := reserve("a", "contended", "f", late.Add(hour+time.Second))
		return err
	})
	if won != 1 {
		t.Fatalf("%d calls took over one old key", won)
	}
}

func nothing(t *testing.T, s *subject) {
	ctx := t.Context()
	must(t, s.SaveTwins(ctx, nil))
	must(t, s.AddGaps(ctx, nil))
	must(t, s.Ingest(ctx, nil))
	ids, err := s.SeriesIDs(ctx, nil)
	must(t, err)
	if len(ids) != 0 {
		t.Fatalf("ids %v", ids)
	}
	wantSame(t, "still empty", load(t, s), state{})
}

func cancelled(t *testing.T, s *subject) {
	s.start(t, "n", "e")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantErr(t, "commit", s.Commit(ctx, store.Commit{Revision: 1}), context.Canceled)
	wantErr(t, "ingest", s.Ingest(ctx, []store.Batch{{NodeUID: "n", Epoch: "e", Acked: 1, Received: now}}), context.Canceled)
	_, err := s.Epochs(ctx, "n")
	wantErr(t, "epochs", err, context.Canceled)
	if e := readEpochs(t, s, "n")[0]; e.Acked != 0 || load(t, s).Revision != 0 {
		t.Fatal("a cancelled call changed something")
	}
}

func callbacksStop(t *testing.T, s *subject) {
	ctx := t.Context()
	stop := errors.New("stop")
	s.start(t, "n", "e")
	id := s.seriesID(t, "d", "p")
	must(t, s.Commit(ctx, store.Commit{
		Revision: 1, Put: []store.Object{object("Device", "a", 1), object("Device", "b", 1)},
		PutDesired: []store.Desired{desiredOf("a", 1, []byte(`{}`)), desiredOf("b", 1, []byte(`{}`))},
	}))
	must(t, s.SaveTwins(ctx, []store.Checkpoint{twinOf("a", []byte(`{}`)), twinOf("b", []byte(`{}`))}))
	b := store.Batch{NodeUID: "n", Epoch: "e", Acked: 1, Received: now, Gaps: []store.Gap{{NodeUID: "n", Recorded: now}, {NodeUID: "n", Recorded: now}}}
	Add(&b.Samples, id, intSample(1, 1))
	Add(&b.Samples, id, intSample(2, 2))
	must(t, s.Ingest(ctx, []store.Batch{b}))

	// More often than there are connections: one that is not given back is missed.
	for range 20 {
		calls := 0
		once := func() error { calls++; return stop }
		_, err := s.Load(ctx, func(store.Object) error { return once() }, func(store.Desired) error { return nil })
		wantErr(t, "objects", err, stop)
		_, err = s.Load(ctx, func(store.Object) error { return nil }, func(store.Desired) error { return once() })
		wantErr(t, "desired", err, stop)
		wantErr(t, "twins", s.LoadTwins(ctx, func(store.Checkpoint) error { return once() }), stop)
		wantErr(t, "gaps", s.Gaps(ctx, "n", func(store.Gap) error { return once() }), stop)
		wantErr(t, "samples", s.Samples(ctx, "d", "p", 0, everything, func(store.Sample) error { return once() }), stop)
		if calls != 5 {
			t.Fatalf("%d calls, want 5: a callback that failed is not called again", calls)
		}
	}
}

func notShared(t *testing.T, s *subject) {
	ctx := t.Context()
	o, d, c := []byte(`{"a":1}`), []byte(`{"b":1}`), []byte(`{"c":1}`)
	must(t, s.Commit(ctx, store.Commit{
		Revision: 1, Put: []store.Object{{Kind: "Device", Name: "a", Created: now, JSON: o}}, PutDesired: []store.Desired{{DeviceUID: "a", JSON: d}},
	}))
	must(t, s.SaveTwins(ctx, []store.Checkpoint{{DeviceUID: "a", JSON: c}}))
	check := func(what string) (st state) {
		st = load(t, s)
		have := string(st.Objects[0].JSON) + string(st.Desired[0].JSON) + string(st.Twins[0].JSON)
		if want := `{"a":1}{"b":1}{"c":1}`; have != want {
			t.Fatalf("%s: %s, want %s", what, have, want)
		}
		return st
	}
	o[1], d[1], c[1] = 'x', 'x', 'x'
	st := check("the caller's bytes changed")
	st.Objects[0].JSON[1], st.Desired[0].JSON[1], st.Twins[0].JSON[1] = 'x', 'x', 'x'
	check("the returned bytes changed")

	_, err := s.ReserveKey(ctx, "a", "k", "f", now, time.Hour)
	must(t, err)
	body := []byte("body")
	must(t, s.AnswerKey(ctx, "a", "k", store.IdempotentAnswer{Status: 200, Body: body}))
	body[0] = 'x'
	a, err := s.ReserveKey(ctx, "a", "k", "f", now, time.Hour)
	wantErr(t, "reserved", err, store.ErrConflict)
	if string(a.Body) != "body" {
		t.Fatalf("body %q", a.Body)
	}
}

func reopened(t *testing.T, s *subject) {
	ctx := t.Context()
	must(t, s.Commit(ctx, store.Commit{
		Revision: 9, Put: []store.Object{object("Device", "a", 9)}, PutDesired: []store.Desired{desiredOf("a", 9, []byte(`{}`))},
	}))
	must(t, s.SaveTwins(ctx, []store.Checkpoint{twinOf("a", []byte(`{}`))}))
	s.start(t, "n", "e")
	id := s.seriesID(t, "d", "p")
	b := store.Batch{NodeUID: "n", Epoch: "e", Acked: 4, Received: now, Gaps: []store.Gap{{NodeUID: "n", Reason: "r", Recorded: now}}}
	for i, v := range exact {
		v.TimeUS = int64(i % 3)
		Add(&b.Samples, id, v)
	}
	must(t, s.Ingest(ctx, []store.Batch{b}))
	_, err := s.ReserveKey(ctx, "a", "k", "f", now, time.Hour)
	must(t, err)

	type all struct {
		State   state
		Epochs  []store.Epoch
		Samples []store.Sample
		Gaps    []store.Gap
	}
	read := func() all {
		return all{load(t, s), readEpochs(t, s, "n"), readSamples(t, s, "d", "p", 0, everything), readGaps(t, s, "n")}
	}
	before := read()
	s.reopen(t)
	wantSame(t, "after reopening", read(), before)
	if again := s.seriesID(t, "d", "p"); again != id {
		t.Fatalf("the series' id changed from %d to %d", id, again)
	}
	_, err = s.ReserveKey(ctx, "a", "k", "f", now, time.Hour)
	wantErr(t, "key", err, store.ErrConflict)
	wantErr(t, "commit", s.Commit(ctx, store.Commit{Revision: 9}), store.ErrConflict)
	wantErr(t, "ingest", s.Ingest(ctx, []store.Batch{b}), store.ErrConflict)

	// What comes now still comes after what was there.
	b.After, b.Acked, b.Samples = 4, 5, store.Samples{}
	Add(&b.Samples, id, intSample(0, 4711))
	must(t, s.Ingest(ctx, []store.Batch{b}))
	at0 := readSamples(t, s, "d", "p", 0, 1)
	if last := at0[len(at0)-1]; last.Int != 4711 || len(at0) != len(exact)/3+1 {
		t.Fatalf("the newest sample of its time comes back as %+v of %d", last, len(at0))
	}
}
