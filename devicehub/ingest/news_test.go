package ingest

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/history"
	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/devicehub/store/postgres"
	"github.com/whimbrel-edge/whimbrel/devicehub/store/sqlite"
	"github.com/whimbrel-edge/whimbrel/devicehub/store/storetest"
	"github.com/whimbrel-edge/whimbrel/internal/backoff"
	"github.com/whimbrel-edge/whimbrel/internal/pgtest"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

// TestNewsOnce: whatever fails and whatever is sent again, what an edge says of
// states, writes and drops is recorded once, with its own times.
func TestNewsOnce(t *testing.T) {
	happened := 0
	r := start(t, func(c *Config) {
		c.Retry = backoff.Policy{Min: time.Millisecond, Max: time.Millisecond, Factor: 1}
		c.Happened = func() { happened++ }
	})
	dev := edgelink.DeviceRef{UID: "d0", Assignment: assignment}
	at := func(minute int) time.Time { return time.Date(2026, 3, 4, 5, minute, 0, 0, time.UTC) }
	record := func(seq uint64, f func(*edgelink.Builder)) *pb.Numbered {
		var b edgelink.Builder
		f(&b)
		return &pb.Numbered{Seq: seq, Record: b.Bytes()}
	}
	stateOf := func(s models.DeviceState, reason string, minute int) func(*edgelink.Builder) {
		return func(b *edgelink.Builder) {
			b.AddState(edgelink.StateEvent{Device: dev, State: s, Reason: reason, Time: at(minute)})
		}
	}
	asked := edgelink.LocalDesired{Property: "p", ID: "w1", Value: models.Int(7), Time: at(1), By: "panel", Origin: "mqtt", Reason: "cold",
		Before: &models.Sample{Value: models.Int(5), Time: at(0)}}
	overridden := edgelink.LocalDesired{Device: dev, Property: "p", ID: "w2", Value: models.Int(8), Base: -1, Time: at(2), By: "panel"}
	records := []*pb.Numbered{
		record(1, stateOf(models.StateUnknown, "", 0)),
		record(2, stateOf(models.StateOnline, "", 0)),
		record(3, stateOf(models.StateOffline, "timeout", 1)),
		record(4, stateOf(models.StateUnknown, "", 12)), // the edge starts anew
		record(5, stateOf(models.StateOffline, "timeout", 12)),
		record(6, stateOf(models.StateOffline, "configuration", 13)),
		record(7, stateOf(models.StateOnline, "", 14)),
		record(8, func(b *edgelink.Builder) {
			b.AddWrite(edgelink.WriteEvent{Device: dev, Property: "p", ID: "w1", State: "pending", Time: at(1), Asked: &asked})
			b.AddWrite(edgelink.WriteEvent{Device: dev, Property: "p", ID: "w1", State: "failed", Error: "no", Refused: true, Time: at(3), Sent: at(2)})
			b.AddLocal(overridden)
			b.AddGap(edgelink.Gap{Reason: edgelink.GapOutboxFull, Epoch: "e", FirstSeq: 1, LastSeq: 2, Samples: 30, From: at(0), To: at(1)})
		}),
		record(9, func(b *edgelink.Builder) { // an edge that was killed does not know whether it has told
			b.AddWrite(edgelink.WriteEvent{Device: dev, Property: "p", ID: "w1", State: "failed", Error: "no", Refused: true, Time: at(3), Sent: at(2)})
		}),
	}
	faults := 0
	r.store.Fault(func(step string) error {
		if step == "Ingest" || step == "Ingest:done" || step == "LastSamples" || step == "Samples" {
			if faults++; faults%2 == 1 {
				return errors.New("injected")
			}
		}
		return nil
	})
	for range 3 { // as after a cut, or a crash of the hub: the log comes again from its beginning
		s := r.session(t, 0, "e")
		for _, rec := range records {
			must(t, s.submit(rec))
		}
		for acked := uint64(0); acked < 9; {
			var err error
			acked, _, err = s.state()
			must(t, err)
			time.Sleep(time.Millisecond) //sleep: between looks
		}
	}
	r.store.Fault(nil)
	found, err := r.store.EventsPage(t.Context(), store.EventQuery{Limit: 100})
	must(t, err)
	got := map[string]string{}
	for _, e := range slices.Backward(found) {
		got[e.Reason] = fmt.Sprint(e.Kind, " ", e.Name, " ", e.Field, " ", e.Count, " ", e.Last.Format("04"), " ", e.Node, " ", e.Message)
	}
	check(t, "events", got, map[string]string{
		"DeviceOnline":        "Device name-of-d0  1 14 n0 the device answers",
		"DeviceOffline":       "Device name-of-d0  1 01 n0 timeout",
		"DeviceMisconfigured": "Device name-of-d0  1 13 n0 configuration",
		"WriteFailed":         "Device name-of-d0 p 1 03 n0 no",
		"WriteConflict":       "Device name-of-d0 p 1 02 n0 a write made at the edge by panel was superseded: the property was changed at the hub meanwhile, and the hub's value stands",
		"SamplesDropped":      "Node n0  1 01 n0 30 samples (from 2026-03-04T05:00:00Z to 2026-03-04T05:01:00Z) were dropped by the edge and will be missing in history: its outbox was full (--outbox-bytes)",
	})
	if len(found) != 7 { // online in two windows
		t.Errorf("%d events", len(found))
	}
	if happened == 0 {
		t.Error("nobody was told")
	}
	var states []string
	must(t, r.store.Samples(t.Context(), "d0", StateSeries, -1<<63, 1<<63-1, func(v store.Sample) error {
		states = append(states, time.UnixMicro(v.TimeUS).UTC().Format("04 ")+v.Text+" "+v.Reason)
		return nil
	}))
	check(t, "states", states, []string{"00 online ", "01 offline timeout", "13 offline configuration", "14 online "})
	writes, err := r.store.WritesPage(t.Context(), store.WriteQuery{DeviceUID: "d0", Limit: 9})
	must(t, err)
	if len(writes) != 2 {
		t.Fatalf("writes %+v", writes)
	}
	writes[0].Ended = time.Time{} // by the hub's clock
	check(t, "overridden write", writes[0], store.Write{ID: "w2", DeviceUID: "d0", Property: "p", Value: "8", By: "panel", Origin: "edge", Asked: at(2),
		State: "superseded", Error: "the property was changed at the hub meanwhile, and the hub's value stands", SupersededBy: "winner", Settled: store.SettledByHub})
	check(t, "failed write", writes[1], store.Write{ID: "w1", DeviceUID: "d0", Property: "p", Value: "7", By: "panel", Origin: "mqtt", Reason: "cold",
		Before: `{"value":5,"quality":"good","time":"2026-03-04T05:00:00Z"}`, Asked: at(1), Sent: at(2), Ended: at(3), State: "failed", Error: "no", Refused: true, Settled: store.SettledByEdge})
}

// TestMixedRecords: states and writes are stored beside samples of every kind,
// whatever columns a batch has: a record may have one kind of sample, or all, or
// none. Many records are submitted at once, so that they share batches.
func TestMixedRecords(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	for name, open := range map[string]func(t *testing.T) (store.Store, error){
		"memory": func(*testing.T) (store.Store, error) { return storetest.NewMemory(), nil },
		"sqlite": func(t *testing.T) (store.Store, error) {
			return sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "hub.db"), log)
		},
		"postgres": func(t *testing.T) (store.Store, error) { return postgres.Open(t.Context(), pgtest.New(t), log) },
	} {
		t.Run(name, func(t *testing.T) {
			s, err := open(t)
			must(t, err)
			t.Cleanup(func() { s.Close() })
			mixedRecords(t, s)
		})
	}
}

func mixedRecords(t *testing.T, db store.Store) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	r := start(t, func(c *Config) { c.Store = db })
	t.Cleanup(func() { r.stop() }) // before the store goes
	dev := edgelink.DeviceRef{UID: "d0", Assignment: assignment}
	values := map[string]models.Value{"null": models.Null, "bool": models.Bool(true), "int": models.Int(-7), "uint": models.Uint(1<<64 - 1), "float": models.Float(1.5),
		"string": models.String("größe"), "bytes": models.Bytes([]byte{0, 0xff}), "json": mustJSON(t, `{"a":[1]}`)}
	kinds := slices.Sorted(maps.Keys(values))
	states := []edgelink.StateEvent{{State: models.StateOnline}, {State: models.StateOffline, Reason: "timeout"}, {State: models.StateOffline, Reason: "mapper-lost"}, {State: models.StateDegraded, Reason: "device-error"}}
	const records = 120
	at := func(seq uint64) time.Time { return time.Date(2026, 3, 4, 5, 0, int(seq), 0, time.UTC) }
	want := map[string][]string{}
	told, writes := "", []string{}
	session := r.session(t, 0, "e")
	for seq := uint64(1); seq <= records; seq++ {
		var b edgelink.Builder
		for _, kind := range kinds {
			if random.IntN(4) > 0 {
				continue
			}
			sample := models.Sample{Value: values[kind], Time: at(seq)}
			if kind == "null" || random.IntN(5) == 0 {
				sample.Quality, sample.Reason = models.Bad, "timeout"
			}
			b.AddSample(dev, kind, sample)
			want[kind] = append(want[kind], fmt.Sprint(seq, " ", sample.Quality, " ", sample.Reason))
		}
		if random.IntN(3) == 0 {
			e := states[random.IntN(len(states))]
			e.Device, e.Time = dev, at(seq)
			b.AddState(e)
			if is := fmt.Sprint(e.State, " ", e.Reason); is != told {
				told = is
				want[StateSeries] = append(want[StateSeries], fmt.Sprint(seq, " ", is))
			}
		}
		if random.IntN(3) == 0 {
			id := fmt.Sprintf("w%03d", seq)
			asked := edgelink.LocalDesired{Property: "int", ID: id, Value: models.Int(int64(seq)), Time: at(seq), Origin: "mqtt"}
			b.AddWrite(edgelink.WriteEvent{Device: dev, Property: "int", ID: id, State: "pending", Time: at(seq), Asked: &asked})
			b.AddWrite(edgelink.WriteEvent{Device: dev, Property: "int", ID: id, State: "applied", Time: at(seq), Sent: at(seq)})
			writes = append(writes, id+" applied")
		}
		must(t, session.submit(&pb.Numbered{Seq: seq, Record: b.Bytes()}))
	}
	for acked := uint64(0); acked < records; {
		var err error
		acked, _, err = session.state()
		must(t, err)
		time.Sleep(time.Millisecond) //sleep: polls a condition
	}
	for _, property := range append(kinds, StateSeries) {
		var have []string
		must(t, db.Samples(t.Context(), "d0", property, math.MinInt64, math.MaxInt64, func(v store.Sample) error {
			seq := uint64(time.UnixMicro(v.TimeUS).Sub(at(0)) / time.Second)
			if property == StateSeries {
				have = append(have, fmt.Sprint(seq, " ", v.Text, " ", v.Reason))
				return nil
			}
			value, err := history.Value(v)
			if fmt.Sprint(value) != fmt.Sprint(values[property]) {
				t.Errorf("%s: stored as %v, want %v", property, value, values[property])
			}
			have = append(have, fmt.Sprint(seq, " ", models.Quality(v.Quality), " ", v.Reason))
			return err
		}))
		check(t, property, have, want[property])
	}
	found, err := db.WritesPage(t.Context(), store.WriteQuery{DeviceUID: "d0", Limit: records})
	must(t, err)
	var have []string
	for _, w := range slices.Backward(found) {
		have = append(have, w.ID+" "+w.State)
	}
	check(t, "writes", have, writes)
	told = ""
	counts := map[string]int64{}
	for _, is := range want[StateSeries] {
		_, is, _ = strings.Cut(is, " ")
		reason := map[string]string{"online ": "DeviceOnline", "offline timeout": "DeviceOffline", "offline mapper-lost": "MapperLost", "degraded device-error": "DeviceDegraded"}[is]
		if reason == "DeviceOnline" && told == "MapperLost" {
			reason = "MapperBack"
		}
		counts[reason]++
		told = reason
	}
	all, err := db.EventsPage(t.Context(), store.EventQuery{Kind: "Device", Limit: 100})
	must(t, err)
	got := map[string]int64{}
	for _, e := range all {
		got[e.Reason] += e.Count
	}
	check(t, "events", got, counts)
}

func mustJSON(t *testing.T, text string) models.Value {
	t.Helper()
	var v models.Value
	must(t, json.Unmarshal([]byte(text), &v))
	return v
}
