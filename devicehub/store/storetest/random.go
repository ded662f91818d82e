package storetest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
)

// randomCalls makes the same random calls to the store and to a Memory and wants
// the same results. The two live on from one round to the next, so rounds find
// ever fuller stores.
func randomCalls(t *testing.T, s *subject) {
	m := &machine{have: s.Store, want: NewMemory(), haveIDs: map[store.SeriesKey]int64{}, wantIDs: map[store.SeriesKey]int64{}}
	rapid.Check(t, func(t *rapid.T) {
		t.Repeat(map[string]func(*rapid.T){
			"commit": m.commit, "twins": m.saveTwins, "epoch": m.startEpoch, "ingest": m.ingest, "gap": m.addGap,
			"reserve": m.reserve, "answer": m.answer, "compact": m.compact,
		})
		m.compare(t)
	})
}

type machine struct {
	have, want       store.Store
	haveIDs, wantIDs map[store.SeriesKey]int64
	clock            int
}

var (
	someNames  = rapid.SampledFrom([]string{"a", "b", "größe"})
	someKinds  = rapid.SampledFrom([]string{"Device", "Node", "User", "DeviceModel"})
	someUIDs   = rapid.SampledFrom([]string{"u1", "u2", "u3"})
	someJSON   = rapid.SampledFrom([]string{`{}`, ` { "a" : [1, 2] } `, `"\u0000"`, `null`, `{"spec":{"role":"admin","namespace":"*"}}`, `{"spec":5}`})
	someValues = rapid.SampledFrom(exact)
	someTimes  = rapid.OneOf(rapid.Int64Range(0, 3), rapid.Int64())
)

// tick is a time that differs from one call to the next.
func (m *machine) tick() time.Time {
	m.clock++
	return now.Add(time.Duration(m.clock) * time.Second)
}

// same compares the errors of a call by what callers can tell apart.
func same(t *rapid.T, have, want error) {
	t.Helper()
	if (have == nil) != (want == nil) || errors.Is(have, store.ErrConflict) != errors.Is(want, store.ErrConflict) {
		t.Fatalf("have error %v, want %v", have, want)
	}
}

func equal(t *rapid.T, what string, have, want any) {
	t.Helper()
	if reflect.DeepEqual(have, want) { // far quicker than Diff
		return
	}
	if d := cmp.Diff(want, have, cmpopts.EquateEmpty()); d != "" {
		t.Fatalf("%s (- want, + have):\n%s", what, d)
	}
}

func (m *machine) commit(t *rapid.T) {
	revision := load(t, m.want).Revision + rapid.Int64Range(0, 3).Draw(t, "ahead")
	c := store.Commit{Revision: revision, DeletedDevices: rapid.SliceOfN(someUIDs, 0, 2).Draw(t, "gone")}
	objects := rapid.Custom(func(t *rapid.T) store.Object {
		return store.Object{
			Kind: someKinds.Draw(t, "kind"), Namespace: rapid.SampledFrom([]string{"", "default"}).Draw(t, "namespace"),
			Name: someNames.Draw(t, "name"), UID: someUIDs.Draw(t, "uid"), Revision: revision, Created: now, JSON: []byte(someJSON.Draw(t, "json")),
			Generation: rapid.Int64().Draw(t, "generation"), Assignment: rapid.Int64().Draw(t, "assignment"),
		}
	})
	c.Put, c.Delete = rapid.SliceOfN(objects, 0, 4).Draw(t, "put"), rapid.SliceOfN(objects, 0, 3).Draw(t, "delete")
	c.PutDesired = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) store.Desired {
		return store.Desired{DeviceUID: someUIDs.Draw(t, "uid"), Revision: revision, JSON: []byte(someJSON.Draw(t, "json"))}
	}), 0, 3).Draw(t, "desired")
	same(t, m.have.Commit(context.Background(), c), m.want.Commit(context.Background(), c))
}

func (m *machine) saveTwins(t *rapid.T) {
	c := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) store.Checkpoint {
		return store.Checkpoint{DeviceUID: someUIDs.Draw(t, "uid"), JSON: []byte(someJSON.Draw(t, "json"))}
	}), 0, 4).Draw(t, "twins")
	same(t, m.have.SaveTwins(context.Background(), c), m.want.SaveTwins(context.Background(), c))
}

func (m *machine) startEpoch(t *rapid.T) {
	node, epoch, at := someNames.Draw(t, "node"), someUIDs.Draw(t, "epoch"), m.tick()
	have, err := m.have.StartEpoch(context.Background(), node, epoch, at)
	want, wantErr := m.want.StartEpoch(context.Background(), node, epoch, at)
	same(t, err, wantErr)
	have.Started = have.Started.UTC()
	equal(t, "epoch", have, want)
}

func (m *machine) ingest(t *rapid.T) {
	var have, want []store.Batch
	for range rapid.IntRange(1, 3).Draw(t, "batches") {
		b := store.Batch{
			NodeUID: someNames.Draw(t, "node"), Epoch: someUIDs.Draw(t, "epoch"), Received: m.tick(),
			Backfill: rapid.Bool().Draw(t, "backfill"),
		}
		// Mostly what is due; now and then a resend or an unknown epoch.
		for _, e := range readEpochs(t, m.want, b.NodeUID) {
			if e.ID == b.Epoch {
				b.After = e.Acked
			}
		}
		for i := range want {
			if want[i].NodeUID == b.NodeUID && want[i].Epoch == b.Epoch {
				b.After = want[i].Acked
			}
		}
		b.Acked = b.After + rapid.Uint64Range(1, 5).Draw(t, "ahead")
		switch rapid.IntRange(0, 19).Draw(t, "fault") {
		case 0:
			b.After++
		case 1:
			b.Acked = b.After
		}
		for range rapid.IntRange(0, 2).Draw(t, "gaps") {
			b.Gaps = append(b.Gaps, m.gap(t))
		}
		w := b
		for range rapid.IntRange(0, 8).Draw(t, "samples") {
			key := store.SeriesKey{
				DeviceUID: someUIDs.Draw(t, "device"), Assignment: rapid.Uint64Range(0, 2).Draw(t, "assignment"), Property: someNames.Draw(t, "property"),
			}
			v := someValues.Draw(t, "value")
			v.TimeUS = someTimes.Draw(t, "time")
			Add(&b.Samples, m.id(t, m.have, m.haveIDs, key), v)
			Add(&w.Samples, m.id(t, m.want, m.wantIDs, key), v)
		}
		have, want = append(have, b), append(want, w)
	}
	same(t, m.have.Ingest(context.Background(), have), m.want.Ingest(context.Background(), want))
}

func (m *machine) compact(t *rapid.T) {
	compact(t, m.have, time.Now().Add(rapid.SampledFrom([]time.Duration{0, time.Hour, 365 * 24 * time.Hour}).Draw(t, "later")))
}

func (m *machine) id(t *rapid.T, s store.Store, known map[store.SeriesKey]int64, key store.SeriesKey) int64 {
	ids, err := s.SeriesIDs(context.Background(), []store.SeriesKey{key})
	if err != nil || len(ids) != 1 {
		t.Fatalf("series ids %v, error %v", ids, err)
	}
	if before, ok := known[key]; ok && before != ids[0] {
		t.Fatalf("the id of %+v changed from %d to %d", key, before, ids[0])
	}
	known[key] = ids[0]
	return ids[0]
}

func (m *machine) gap(t *rapid.T) store.Gap {
	g := store.Gap{
		NodeUID: someNames.Draw(t, "node"), Reason: someNames.Draw(t, "reason"), Epoch: someUIDs.Draw(t, "epoch"),
		FirstSeq: rapid.Uint64().Draw(t, "first"), LastSeq: rapid.Uint64().Draw(t, "last"), Samples: rapid.Uint64().Draw(t, "samples"), Recorded: m.tick(),
	}
	if rapid.Bool().Draw(t, "timed") {
		g.From, g.To = time.UnixMicro(rapid.Int64().Draw(t, "from")).UTC(), time.UnixMicro(rapid.Int64().Draw(t, "to")).UTC()
	}
	return g
}

func (m *machine) addGap(t *rapid.T) {
	g := []store.Gap{m.gap(t), m.gap(t)}
	same(t, m.have.AddGaps(context.Background(), g), m.want.AddGaps(context.Background(), g))
}

func (m *machine) reserve(t *rapid.T) {
	caller, key, at := someNames.Draw(t, "caller"), someUIDs.Draw(t, "key"), m.tick()
	fingerprint := fmt.Sprint(m.clock)
	have, err := m.have.ReserveKey(context.Background(), caller, key, fingerprint, at, 10*time.Second)
	want, wantErr := m.want.ReserveKey(context.Background(), caller, key, fingerprint, at, 10*time.Second)
	same(t, err, wantErr)
	equal(t, "answer", have, want)
}

func (m *machine) answer(t *rapid.T) {
	caller, key := someNames.Draw(t, "caller"), someUIDs.Draw(t, "key")
	a := store.IdempotentAnswer{Status: rapid.IntRange(0, 2).Draw(t, "status"), Head: someNames.Draw(t, "etag"), Body: rapid.SliceOfN(rapid.Byte(), 0, 5).Draw(t, "body")}
	// An old key that nobody asked for since may be gone from one and not the other.
	for _, s := range []store.Store{m.have, m.want} {
		if _, err := s.ReserveKey(context.Background(), caller, key, "f", now.Add(time.Duration(m.clock)*time.Second), 10*time.Second); err != nil && !errors.Is(err, store.ErrConflict) {
			t.Fatalf("reserve: %v", err)
		}
	}
	same(t, m.have.AnswerKey(context.Background(), caller, key, a), m.want.AnswerKey(context.Background(), caller, key, a))
}

// compare reads all that can be read.
func (m *machine) compare(t *rapid.T) {
	equal(t, "objects, desired values and twins", load(t, m.have), load(t, m.want))
	for _, node := range []string{"a", "b", "größe", "nobody"} {
		equal(t, "epochs", readEpochs(t, m.have, node), readEpochs(t, m.want, node))
		equal(t, "gaps", readGaps(t, m.have, node), readGaps(t, m.want, node))
	}
	from, to := someTimes.Draw(t, "from"), someTimes.Draw(t, "to")
	for _, device := range []string{"u1", "u2", "u3"} {
		for _, property := range []string{"a", "b", "größe"} {
			want := readSamples(t, m.want, device, property, from, to)
			if have := readSamples(t, m.have, device, property, from, to); !slices.Equal(have, want) {
				equal(t, "samples", have, want)
			}
		}
	}
}
