package storetest

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
)

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
