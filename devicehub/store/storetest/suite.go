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
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

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
