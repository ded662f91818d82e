package twins

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/whimbrel-edge/whimbrel/devicehub/registry"
	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/devicehub/store/storetest"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
	"github.com/whimbrel-edge/whimbrel/twin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hub is a registry and a cache over one store, with a clock of its own.
type hub struct {
	t     testing.TB
	store *storetest.Memory
	reg   *registry.Registry
	cache *Cache
	clock atomic.Int64 // nanoseconds since start
	start time.Time
}

func (h *hub) now() time.Time { return h.start.Add(time.Duration(h.clock.Load())) }

func (h *hub) pass(d time.Duration) { h.clock.Add(int64(d)) }

func newHub(t testing.TB) *hub {
	h := &hub{t: t, store: storetest.NewMemory(), start: time.Now().UTC().Truncate(time.Second)}
	h.open()
	h.apply(`{kind: Mapper, apiVersion: whimbrel/v1, metadata: {name: m}, spec: {version: "1"}}`)
	h.apply(`{kind: DeviceModel, apiVersion: whimbrel/v1, metadata: {name: boiler}, spec: {protocol: m, properties: [
		{name: temperature, type: float, unit: C, address: {}}, {name: setpoint, type: float, access: ReadWrite, address: {}}]}}`)
	h.device("b1", "n1")
	return h
}

// open opens registry and cache, as a start of the hub does.
func (h *hub) open() {
	h.t.Helper()
	log := slog.New(slog.DiscardHandler)
	var err error
	if h.reg, err = registry.Open(context.Background(), registry.Config{Store: h.store, Now: h.now, Log: log}); err != nil {
		h.t.Fatal(err)
	}
	if h.cache, err = Open(context.Background(), Config{Store: h.store, History: h.store, Registry: h.reg, Now: h.now, Log: log}); err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	reg := h.reg
	go func() { defer close(ended); _ = reg.Run(ctx) }()
	h.t.Cleanup(func() { cancel(); <-ended })
}

func (h *hub) apply(text string) models.Object {
	h.t.Helper()
	o, err := models.DecodeObject([]byte("---\n" + text))
	if err != nil {
		h.t.Fatal(err)
	}
	stored, _, err := h.reg.Update(context.Background(), models.KeyOf(o), models.WriteOptions{}, func(models.Object) (models.Object, error) { return o, nil })
	if err != nil {
		h.t.Fatal(err)
	}
	return stored
}

func (h *hub) device(name, node string) edgelink.DeviceRef {
	h.t.Helper()
	uid := h.apply(fmt.Sprintf(`{kind: Device, apiVersion: whimbrel/v1, metadata: {name: %s}, spec: {model: boiler, node: %q}}`, name, node)).Meta().UID
	h.cache.DeviceChanged(uid)
	return h.ref(name)
}

func (h *hub) ref(name string) edgelink.DeviceRef {
	h.t.Helper()
	v, err := h.reg.Device("default", name)
	if err != nil {
		h.t.Fatal(err)
	}
	return edgelink.DeviceRef{UID: v.Device.Metadata.UID, Assignment: v.Assignment}
}

func (h *hub) doc(name string) twin.Document {
	h.t.Helper()
	d, err := h.cache.Twin(context.Background(), "default", name)
	if err != nil {
		h.t.Fatal(err)
	}
	return d
}

// says is the reported part of a property, as "value quality/reason".
func (h *hub) says(name, property string) string {
	h.t.Helper()
	r := h.doc(name).Properties[property].Reported
	if r == nil {
		return "nothing"
	}
	return strings.TrimSuffix(fmt.Sprintf("%s %s/%s", r.Value, r.Quality, r.Reason), "/")
}

// record makes a record the way it comes out of a log.
func record(t testing.TB, fill func(b *edgelink.Builder)) *edgelink.Decoded {
	t.Helper()
	var b edgelink.Builder
	fill(&b)
	d, err := edgelink.DecodeRecord(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// committed takes samples of one property.
func (h *hub) committed(node string, rank, seq uint64, ref edgelink.DeviceRef, property string, samples ...models.Sample) {
	h.t.Helper()
	h.cache.Committed(node, rank, seq, record(h.t, func(b *edgelink.Builder) {
		for _, s := range samples {
			b.AddSample(ref, property, s)
		}
	}))
}

func (h *hub) good(v float64) models.Sample {
	return models.Sample{Value: models.Float(v), Time: h.now()}
}

func (h *hub) bad(r models.Reason) models.Sample {
	return models.Sample{Quality: models.Bad, Reason: r, Time: h.now()}
}

func float(property string, v float64, seq uint64, at time.Time) *pb.LatestValue {
	return &pb.LatestValue{Property: property, Kind: uint32(models.KindFloat), Bits: math.Float64bits(v), TimeUs: at.UnixMicro(), Seq: seq}
}

// latest takes what the latest lane says of one device.
func (h *hub) latest(node string, rank uint64, ref edgelink.DeviceRef, t *pb.LatestTwin) {
	t.Device = &pb.DeviceRef{Uid: ref.UID, Assignment: ref.Assignment}
	h.cache.Latest(node, rank, &pb.Latest{Twins: []*pb.LatestTwin{t}})
}

// live connects a node that says everything of b1.
func (h *hub) live(values ...*pb.LatestValue) edgelink.DeviceRef {
	ref := h.ref("b1")
	h.cache.NodeLive("n1", true)
	h.latest("n1", 1, ref, &pb.LatestTwin{Full: true, State: "online", Values: values})
	return ref
}

func (h *hub) patch(text string, o models.DesiredOptions) map[string]string {
	h.t.Helper()
	p, _, err := models.DecodePatch([]byte(text))
	if err != nil {
		h.t.Fatal(err)
	}
	v, ids, err := h.reg.PatchDesired(context.Background(), "default", "b1", p, o)
	if err != nil {
		h.t.Fatal(err)
	}
	for name := range p {
		h.cache.DesiredChanged(v.Device.Metadata.UID, name)
	}
	return ids
}

func expect(t testing.TB, what, got, want string) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: got %q, want %q", what, got, want)
	}
}

func TestOrderOfReports(t *testing.T) {
	h := newHub(t)
	ref := h.live()
	h.committed("n1", 1, 10, ref, "temperature", h.good(1), h.good(2))
	expect(t, "the last of a record", h.says("b1", "temperature"), "2 good")
	h.latest("n1", 1, ref, &pb.LatestTwin{Seq: 50, Values: []*pb.LatestValue{float("temperature", 50, 50, h.now())}})
	expect(t, "the latest lane", h.says("b1", "temperature"), "50 good")
	for seq := uint64(11); seq <= 50; seq++ {
		h.committed("n1", 1, seq, ref, "temperature", h.good(float64(seq)-100))
		expect(t, "with a backlog behind it", h.says("b1", "temperature"), "50 good")
	}
	h.committed("n1", 1, 51, ref, "temperature", h.good(51))
	expect(t, "the log, caught up", h.says("b1", "temperature"), "51 good")
	h.latest("n1", 1, ref, &pb.LatestTwin{Seq: 50, Values: []*pb.LatestValue{float("temperature", 50, 50, h.now())}})
	expect(t, "a late latest", h.says("b1", "temperature"), "51 good")
	// A value that has not changed for long counts as of the twin's position.
	h.latest("n1", 1, ref, &pb.LatestTwin{Seq: 60, Values: []*pb.LatestValue{float("temperature", 51, 51, h.now())}})
	h.committed("n1", 1, 55, ref, "temperature", h.good(-1))
	expect(t, "position of an unchanged value", h.says("b1", "temperature"), "51 good")
	// A new life of the edge comes after, however low its numbers.
	h.committed("n1", 2, 1, ref, "temperature", h.good(7))
	expect(t, "the next epoch", h.says("b1", "temperature"), "7 good")
	h.committed("n1", 1, 99, ref, "temperature", h.good(8))
	expect(t, "the epoch before", h.says("b1", "temperature"), "7 good")
}

func TestBadKeepsTheLastGoodValue(t *testing.T) {
	h := newHub(t)
	ref := h.live()
	first := h.good(1)
	h.committed("n1", 1, 1, ref, "temperature", first)
	h.pass(time.Second)
	h.committed("n1", 1, 2, ref, "temperature", h.bad(models.ReasonTimeout))
	expect(t, "bad", h.says("b1", "temperature"), "1 bad/timeout")
	r := h.doc("b1").Properties["temperature"].Reported
	if !r.Time.Equal(first.Time) || r.Since == nil || !r.Since.Equal(h.now()) {
		t.Fatalf("%+v", r)
	}
	// Good and bad in one record: the good one on the way is kept.
	since := h.now()
	h.pass(time.Second)
	h.committed("n1", 1, 3, ref, "temperature", h.good(2), h.good(3), h.bad(models.ReasonTimeout), h.bad(models.ReasonDeviceError))
	expect(t, "bad again", h.says("b1", "temperature"), "3 bad/device-error")
	if r := h.doc("b1").Properties["temperature"].Reported; r.Since.Equal(since) {
		t.Fatal("it was good in between")
	}
}

func TestFormerAssignmentsAreHistory(t *testing.T) {
	h := newHub(t)
	old := h.live()
	h.committed("n1", 1, 10, old, "temperature", h.good(1))
	h.committed("n2", 1, 11, old, "temperature", h.good(99)) // n2 does not serve it
	expect(t, "another node", h.says("b1", "temperature"), "1 good")
	h.cache.NodeLive("n2", true)
	ref := h.device("b1", "n2")
	expect(t, "after the move", h.says("b1", "temperature"), "1 uncertain/stale")
	if d := h.doc("b1"); d.State != models.StateUnknown {
		t.Errorf("state %s before the new node has said anything", d.State)
	}
	h.latest("n2", 1, ref, &pb.LatestTwin{Full: true, State: "online", Seq: 1, Values: []*pb.LatestValue{float("temperature", 2, 1, h.now())}})
	expect(t, "the new node, though its numbers are low", h.says("b1", "temperature"), "2 good")
	h.committed("n1", 1, 12, old, "temperature", h.good(1))
	h.latest("n1", 1, old, &pb.LatestTwin{Full: true, State: "offline", Seq: 13})
	expect(t, "the former node's backlog", h.says("b1", "temperature"), "2 good")
	if d := h.doc("b1"); d.State != models.StateOnline {
		t.Error(d.State)
	}
}

func TestNodeAway(t *testing.T) {
	h := newHub(t)
	expect(t, "nothing heard", h.says("b1", "temperature"), "nothing")
	h.live(float("temperature", 5, 1, h.now()))
	expect(t, "live", h.says("b1", "temperature"), "5 good")
	version := h.doc("b1").Version
	h.pass(time.Minute)
	h.cache.NodeLive("n1", false)
	d := h.doc("b1")
	r := d.Properties["temperature"].Reported
	if d.State != models.StateUnknown || r.Quality != models.Uncertain || r.Reason != models.ReasonStale || !r.Since.Equal(h.now()) {
		t.Fatalf("%s %+v", d.State, r)
	}
	if d.Version <= version {
		t.Error("the document changed, its version did not")
	}
	o, _ := h.reg.Get(t.Context(), models.Key{Kind: "Device", Namespace: "default", Name: "b1"})
	v, _ := h.reg.Device("default", "b1")
	s := h.cache.DeviceStatus(o.(*models.Device), v.Assignment)
	if s.State != models.StateUnknown || s.Conditions[0].Reason != "NodeOffline" || !s.Conditions[0].LastTransitionTime.Equal(h.now()) {
		t.Fatalf("%+v", s)
	}
	// Back, but it has not spoken: what was good a year ago is not good now.
	h.pass(365 * 24 * time.Hour)
	h.cache.NodeLive("n1", true)
	expect(t, "back and silent", h.says("b1", "temperature"), "5 uncertain/stale")
	h.latest("n1", 2, h.ref("b1"), &pb.LatestTwin{Seq: 1, Values: []*pb.LatestValue{float("setpoint", 1, 1, h.now())}})
	expect(t, "a part", h.says("b1", "temperature"), "5 uncertain/stale")
	h.latest("n1", 2, h.ref("b1"), &pb.LatestTwin{Full: true, State: "online", Seq: 1, Values: []*pb.LatestValue{float("temperature", 6, 1, h.now())}})
	expect(t, "everything", h.says("b1", "temperature"), "6 good")
	if s := h.cache.DeviceStatus(o.(*models.Device), v.Assignment); s.State != models.StateOnline || s.Conditions[0].Status != "True" {
		t.Fatalf("%+v", s)
	}
}

func TestStates(t *testing.T) {
	h := newHub(t)
	ref := h.live()
	state := func(seq uint64, states ...string) {
		h.cache.Committed("n1", 1, seq, record(t, func(b *edgelink.Builder) {
			for _, s := range states {
				b.AddState(edgelink.StateEvent{Device: ref, State: models.DeviceState(s), Message: "why " + s, Time: h.now()})
			}
		}))
	}
	state(5, "offline", "degraded")
	if got := h.doc("b1").State; got != models.StateDegraded {
		t.Fatal(got)
	}
	h.latest("n1", 1, ref, &pb.LatestTwin{Seq: 9, State: "online"})
	state(8, "offline")
	state(9, "offline")
	state(10, "on fire")
	if got := h.doc("b1").State; got != models.StateOnline {
		t.Fatal(got)
	}
	h.latest("n1", 1, ref, &pb.LatestTwin{Full: true, Seq: 11, State: "offline", StateReason: "no route", Problem: "cannot open", ReadPlan: []byte(`{"requestsPerCycle":3}`)})
	o, _ := h.reg.Get(t.Context(), models.Key{Kind: "Device", Namespace: "default", Name: "b1"})
	s := h.cache.DeviceStatus(o.(*models.Device), ref.Assignment)
	if s.State != models.StateOffline || s.Conditions[0].Reason != "Misconfigured" || s.Conditions[0].Message != "cannot open" || s.ReadPlan.RequestsPerCycle != 3 {
		t.Fatalf("%+v", s)
	}
	h.latest("n1", 1, ref, &pb.LatestTwin{Full: true, Seq: 12, State: "offline", StateReason: "no route"})
	if s := h.cache.DeviceStatus(o.(*models.Device), ref.Assignment); s.Conditions[0].Reason != "Offline" || s.Conditions[0].Message != "no route" {
		t.Fatalf("%+v", s)
	}
}

// TestWhatAnEdgeSaysIsBounded has an edge that is broken or hostile.
func TestWhatAnEdgeSaysIsBounded(t *testing.T) {
	h := newHub(t)
	ref := h.live()
	for i := range 100 {
		h.committed("n1", 1, uint64(i+1), ref, fmt.Sprintf("p%d", i), h.good(1))
		h.latest("n1", 1, ref, &pb.LatestTwin{Seq: uint64(i), Values: []*pb.LatestValue{float(fmt.Sprintf("q%d", i), 1, 1, h.now()), nil, {Property: "temperature", Kind: 77}}[:1],
			Writes: []*pb.WriteEvent{{Property: fmt.Sprintf("r%d", i), Id: "W", State: "applied"}}})
	}
	h.cache.Committed("n1", 1, 200, record(t, func(b *edgelink.Builder) {
		b.AddSample(ref, "temperature", models.Sample{Value: models.Float(1), Time: time.UnixMicro(math.MaxInt64)})
		b.AddSample(ref, "setpoint", models.Sample{Value: models.Float(1), Time: time.UnixMicro(math.MinInt64)})
		b.AddWrite(edgelink.WriteEvent{Device: ref, Property: "setpoint", ID: "W", State: "exploded"})
		b.AddWrite(edgelink.WriteEvent{Device: ref, Property: "setpoint", ID: "W2", State: "failed", Error: strings.Repeat("x", 100_000), Time: time.UnixMicro(math.MaxInt64)})
	}))
	h.latest("n1", 1, ref, &pb.LatestTwin{Seq: 201, SeenUs: math.MaxInt64, Problem: strings.Repeat("\xff", 5), Values: []*pb.LatestValue{
		{Property: "temperature", Kind: 300}, {Property: "temperature", Kind: uint32(models.KindFloat), Bits: math.Float64bits(math.NaN())},
		{Property: "setpoint", Kind: uint32(models.KindFloat), Quality: 1 << 20}, {Property: "setpoint", Kind: uint32(models.KindInt), Quality: 9, Reason: "new", SinceUs: math.MinInt64, TimeUs: math.MaxInt64}}})
	h.cache.Seen("n1", []*pb.Seen{{Uid: ref.UID, SeenUs: math.MaxInt64}, {Uid: "nobody", SeenUs: 1}})
	h.cache.Latest("n1", 1, &pb.Latest{Twins: []*pb.LatestTwin{{}}})
	d := h.doc("b1")
	text, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Properties) != 2 || len(text) > 5000 || d.LastSeen.After(h.now()) {
		t.Fatalf("%s", text)
	}
	if n := len(h.cache.devices[ref.UID].shadow.Names()); n != 2 {
		t.Errorf("%d properties are kept", n)
	}
	if len(h.cache.devices) != 1 {
		t.Errorf("%d devices are kept", len(h.cache.devices))
	}
	expect(t, "a quality of a newer release", h.says("b1", "setpoint"), "0 bad/new")
	h.cache.checkpoint(t.Context(), false)
	if len(h.cache.dirty)+len(h.cache.turns) != 0 {
		t.Error("it cannot be stored")
	}
	h.open()
	expect(t, "stored", h.says("b1", "setpoint"), "0 bad/new")
}

func TestCheckpointAndRestart(t *testing.T) {
	h := newHub(t)
	ref := h.live(float("temperature", 5, 7, h.now()))
	ids := h.patch(`{"setpoint": 3}`, models.DesiredOptions{})
	h.latest("n1", 1, ref, &pb.LatestTwin{Seq: 8, Writes: []*pb.WriteEvent{{Property: "setpoint", Id: ids["setpoint"], State: "applied"}}})
	gone := h.device("b2", "n1")
	h.cache.checkpoint(t.Context(), false)
	if _, err := h.reg.Delete(t.Context(), models.Key{Kind: "Device", Namespace: "default", Name: "b2"}, models.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	h.cache.Forget(&models.Device{Metadata: models.ObjectMeta{UID: gone.UID}})
	// A checkpoint that was on its way when the device went.
	if err := h.store.SaveTwins(t.Context(), []store.Checkpoint{{DeviceUID: gone.UID, JSON: []byte(`{}`)}}); err != nil {
		t.Fatal(err)
	}
	h.pass(time.Hour)
	h.open()
	if len(h.cache.devices) != 1 {
		t.Errorf("%d devices after the restart", len(h.cache.devices))
	}
	d := h.doc("b1")
	if d.State != models.StateUnknown || d.Properties["setpoint"].Write.State != twin.Applied {
		t.Fatalf("%+v", d)
	}
	expect(t, "before the edge is back", h.says("b1", "temperature"), "5 uncertain/stale")
	h.cache.NodeLive("n1", true)
	h.committed("n1", 1, 6, ref, "temperature", h.good(4)) // was not acknowledged
	h.latest("n1", 1, ref, &pb.LatestTwin{Full: true, State: "online", Seq: 7, Values: []*pb.LatestValue{float("temperature", 5, 7, h.now())}})
	expect(t, "and then", h.says("b1", "temperature"), "5 good")
	if got := h.cache.WriteState(ref.UID, "setpoint", ids["setpoint"]); got != twin.Applied {
		t.Error(got)
	}

	// A store that fails gets it the next time, one that is broken does not stop a start.
	h.committed("n1", 1, 9, ref, "temperature", h.good(9))
	h.store.Fault(func(step string) error {
		if step == "SaveTwins" {
			return errors.New("full")
		}
		return nil
	})
	h.cache.checkpoint(t.Context(), false)
	h.store.Fault(nil)
	h.cache.checkpoint(t.Context(), false)
	h.open()
	expect(t, "the second try", h.says("b1", "temperature"), "9 uncertain/stale")
	if err := h.store.SaveTwins(t.Context(), []store.Checkpoint{{DeviceUID: ref.UID, JSON: []byte(`{"version":"x"}`)}}); err != nil {
		t.Fatal(err)
	}
	h.open()
	expect(t, "unreadable", h.says("b1", "temperature"), "nothing")
}

// TestReplay: what was committed after the last checkpoint of a hub that was killed
// is there again, whether or not its edge comes back, and does not turn back what
// the edge has said meanwhile.
func TestReplay(t *testing.T) {
	h := newHub(t)
	ref := h.live(float("temperature", 5, 7, h.now()))
	h.committed("n1", 1, 8, ref, "setpoint", h.good(40))
	h.cache.checkpoint(t.Context(), false)
	// History has them all; the twin's checkpoint only what was before.
	ids, err := h.store.SeriesIDs(t.Context(), []store.SeriesKey{{DeviceUID: ref.UID, Assignment: ref.Assignment, Property: "temperature"},
		{DeviceUID: ref.UID, Assignment: ref.Assignment, Property: "setpoint"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.store.StartEpoch(t.Context(), "u", "e", h.now()); err != nil {
		t.Fatal(err)
	}
	b := store.Batch{NodeUID: "u", Epoch: "e", Acked: 9, Received: h.now()}
	sample := func(id int64, at time.Time, f float64) {
		storetest.Add(&b.Samples, id, store.Sample{TimeUS: at.UnixMicro(), Kind: uint8(models.KindFloat), Float: f})
	}
	sample(ids[0], h.now().Add(time.Second), 6)
	sample(ids[0], h.now().Add(2*time.Second), 7)
	sample(ids[1], h.now().Add(-time.Second), 39)       // late, and older than what is known
	sample(ids[0], h.now().Add(70*365*24*time.Hour), 1) // by a clock that was wrong, some time before
	if err := h.store.Ingest(t.Context(), []store.Batch{b}); err != nil {
		t.Fatal(err)
	}
	h.pass(time.Minute)
	h.open()
	expect(t, "as it was at the checkpoint", h.says("b1", "temperature"), "5 uncertain/stale")
	h.cache.replay(t.Context())
	expect(t, "as it was committed", h.says("b1", "temperature"), "7 uncertain/stale")
	expect(t, "what is older", h.says("b1", "setpoint"), "40 uncertain/stale")

	h.open()
	at, since := h.cache.checkpointed(ref.UID)
	last, err := h.store.LastSince(t.Context(), map[string]map[string]int64{ref.UID: since}, math.MaxInt64)
	if err != nil {
		t.Fatal(err)
	}
	h.cache.NodeLive("n1", true)
	h.latest("n1", 1, ref, &pb.LatestTwin{Full: true, State: "online", Seq: 11, Values: []*pb.LatestValue{float("temperature", 3, 10, h.start)}})
	if h.cache.catchUp(ref.UID, at, last[ref.UID]); h.says("b1", "temperature") != "3 good" {
		t.Errorf("the edge said 3 meanwhile, the twin says %s", h.says("b1", "temperature"))
	}
	h.pass(time.Hour)
	if h.cache.replay(t.Context()); h.says("b1", "temperature") != "3 good" {
		t.Errorf("the edge said 3 before, the twin says %s", h.says("b1", "temperature"))
	}
}

// TestCheckpointTurns: of many devices that report values those take turns of which
// history has all; what history does not have is stored with the next checkpoint.
func TestCheckpointTurns(t *testing.T) {
	h := newHub(t)
	h.apply(`{kind: DeviceModel, apiVersion: whimbrel/v1, metadata: {name: boiler}, spec: {protocol: m, properties: [
		{name: temperature, type: float, address: {}}, {name: setpoint, type: float, access: ReadWrite, address: {}}]}}`)
	const many = 3 * checkpointFew
	var refs []edgelink.DeviceRef
	for i := range many {
		refs = append(refs, h.device(fmt.Sprintf("d-%03d", i), "n1"))
	}
	h.apply(`{kind: DeviceModel, apiVersion: whimbrel/v1, metadata: {name: masked}, spec: {protocol: m, properties: [{name: temperature, type: float, history: false, address: {}}]}}`)
	uid := h.apply(`{kind: Device, apiVersion: whimbrel/v1, metadata: {name: masked}, spec: {model: masked, node: n1}}`).Meta().UID
	masked := h.ref("masked")
	h.cache.NodeLive("n1", true)
	h.cache.checkpoint(t.Context(), true)
	// stored is how many of the devices the store has with a value.
	stored := func(value float64) (n int) {
		t.Helper()
		if err := h.store.LoadTwins(t.Context(), func(cp store.Checkpoint) error {
			if strings.Contains(string(cp.JSON), fmt.Sprintf(`"value":%v`, value)) {
				n++
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return n
	}
	report := func(seq uint64, value float64) {
		for _, ref := range refs {
			h.committed("n1", 1, seq, ref, "temperature", h.good(value))
		}
	}
	report(8, 8)
	h.committed("n1", 1, 9, masked, "temperature", h.good(77))
	h.cache.Committed("n1", 1, 10, record(t, func(b *edgelink.Builder) {
		b.AddState(edgelink.StateEvent{Device: refs[many-1], State: models.StateOffline, Time: h.now()})
	}))
	h.cache.checkpoint(t.Context(), false)
	if got := stored(8); got != checkpointFew+1 {
		t.Errorf("%d devices are stored, want those whose turn it is and the one whose state has changed", got)
	}
	if stored(77) != 1 {
		t.Errorf("what history does not keep of %s is not stored", uid)
	}
	// Who waits keeps its place, and the others come after.
	report(11, 11)
	h.cache.checkpoint(t.Context(), false)
	if got := stored(8); got != checkpointFew+1 {
		t.Errorf("%d devices are as they were first stored", got)
	}
	for range 2 {
		h.cache.checkpoint(t.Context(), false)
	}
	if stored(11) != many || len(h.cache.turns) != 0 {
		t.Errorf("%d devices are stored after everyone's turn, %d wait", stored(11), len(h.cache.turns))
	}
	// That nodes come and go is no reason to hurry.
	report(12, 12)
	h.cache.NodeLive("n1", false)
	h.cache.NodeLive("n1", true)
	h.cache.checkpoint(t.Context(), false)
	if got := stored(12); got != checkpointFew {
		t.Errorf("%d devices are stored at once because their node came back, want %d", got, checkpointFew)
	}
	h.cache.checkpoint(t.Context(), true)
	if stored(12) != many {
		t.Errorf("%d devices are stored at the end", stored(12))
	}
}

func TestRunCheckpointsOnTheWayOut(t *testing.T) {
	h := newHub(t)
	ref := h.live(float("temperature", 5, 7, h.now()))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.cache.Run(ctx) }()
	h.committed("n1", 1, 8, ref, "temperature", h.good(8))
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	h.open()
	expect(t, "the last word", h.says("b1", "temperature"), "8 uncertain/stale")
}

func TestAwaitWrites(t *testing.T) {
	type step func(h *hub, ref edgelink.DeviceRef, id string)
	said := func(w *pb.WriteEvent) step {
		return func(h *hub, ref edgelink.DeviceRef, id string) {
			h.cache.Committed("n1", 1, 5, record(h.t, func(b *edgelink.Builder) {
				b.AddWrite(edgelink.WriteEvent{Device: ref, Property: "setpoint", ID: id, State: w.State, Error: w.Error, Refused: w.Refused, Time: h.now()})
			}))
		}
	}
	for _, c := range []struct {
		name  string
		then  step
		kind  models.ErrorKind
		words string
	}{
		{"applied", said(&pb.WriteEvent{State: "applied"}), "", ""},
		{"refused", said(&pb.WriteEvent{State: "failed", Error: "illegal data address", Refused: true}), models.KindRefused, "setpoint: failed: illegal data address"},
		{"unknown", said(&pb.WriteEvent{State: "unknown"}), models.KindRefused, "setpoint: unknown"},
		{"superseded at the edge", said(&pb.WriteEvent{State: "superseded"}), models.KindRefused, "superseded"},
		{"expired", said(&pb.WriteEvent{State: "expired"}), models.KindTimeout, "expired"},
		{"superseded here", func(h *hub, _ edgelink.DeviceRef, _ string) { h.patch(`{"setpoint": 4}`, models.DesiredOptions{}) }, models.KindRefused, "superseded"},
		{"withdrawn here", func(h *hub, _ edgelink.DeviceRef, _ string) {
			h.patch(`{"setpoint": null}`, models.DesiredOptions{})
		}, models.KindRefused, "superseded"},
		{"its time is over", func(h *hub, ref edgelink.DeviceRef, id string) {
			if err := h.reg.Withdraw(context.Background(), ref.UID, "setpoint", id); err != nil {
				h.t.Error(err)
			}
			h.cache.DesiredChanged(ref.UID, "setpoint")
		}, models.KindTimeout, "expired"},
		{"the node goes", func(h *hub, _ edgelink.DeviceRef, _ string) { h.cache.NodeLive("n1", false) }, models.KindUnavailable, `node "n1" is offline`},
		{"the device goes", func(h *hub, ref edgelink.DeviceRef, _ string) {
			if _, err := h.reg.Delete(context.Background(), models.Key{Kind: "Device", Namespace: "default", Name: "b1"}, models.WriteOptions{}); err != nil {
				h.t.Error(err)
			}
			h.cache.Forget(&models.Device{Metadata: models.ObjectMeta{UID: ref.UID}})
		}, models.KindNotFound, "b1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHub(t)
			ref := h.live()
			ids := h.patch(`{"setpoint": 3}`, models.DesiredOptions{})
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			verdict := make(chan error, 1)
			go func() { verdict <- h.cache.AwaitWrites(ctx, "default", "b1", ids) }()
			said(&pb.WriteEvent{State: "pending"})(h, ref, ids["setpoint"])
			h.committed("n1", 1, 4, ref, "temperature", h.good(1))
			select {
			case err := <-verdict:
				t.Fatalf("a verdict before anything happened: %v", err)
			case <-time.After(10 * time.Millisecond):
			}
			c.then(h, ref, ids["setpoint"])
			err := <-verdict
			if models.KindOf(err) != c.kind || err != nil && !strings.Contains(err.Error(), c.words) {
				t.Fatalf("%v of kind %q, want %q", err, models.KindOf(err), c.kind)
			}
		})
	}
	h := newHub(t)
	ids := h.patch(`{"setpoint": 3}`, models.DesiredOptions{})
	if err := h.cache.AwaitWrites(t.Context(), "default", "b1", ids); models.KindOf(err) != models.KindUnavailable {
		t.Fatalf("an offline node: %v", err)
	}
	if err := h.cache.AwaitWrites(t.Context(), "default", "none", ids); models.KindOf(err) != models.KindNotFound {
		t.Fatal(err)
	}
	ref := h.live()
	h.latest("n1", 1, ref, &pb.LatestTwin{Seq: 2, State: "offline", StateReason: "no answer"})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	err := h.cache.AwaitWrites(ctx, "default", "b1", ids)
	if models.KindOf(err) != models.KindTimeout || !strings.Contains(err.Error(), "setpoint; the device is offline (no answer)") {
		t.Fatal(err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	if err := h.cache.AwaitWrites(ctx, "default", "b1", ids); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

// TestAwaitWritesWakesAtOnce measures what lies between a confirmation and the
// one who waits for it, while other devices keep the cache busy.
func TestAwaitWritesWakesAtOnce(t *testing.T) {
	h := newHub(t)
	ref := h.live()
	other := h.device("b2", "n1")
	stop := make(chan struct{})
	var busy sync.WaitGroup
	busy.Go(func() {
		for seq := uint64(1000); ; seq++ {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Microsecond):
				h.committed("n1", 1, seq, other, "temperature", h.good(float64(seq)))
			}
		}
	})
	var all []time.Duration
	for i := range 50 {
		ids := h.patch(`{"setpoint": 3}`, models.DesiredOptions{})
		done := make(chan time.Time, 1)
		go func() {
			if err := h.cache.AwaitWrites(t.Context(), "default", "b1", ids); err != nil {
				t.Error(err)
			}
			done <- time.Now()
		}()
		for { // until it waits
			h.cache.mu.Lock()
			waits := h.cache.devices[ref.UID].wake != nil
			h.cache.mu.Unlock()
			if waits {
				break
			}
		}
		at := time.Now()
		h.cache.Committed("n1", 1, uint64(i+1), record(t, func(b *edgelink.Builder) {
			b.AddWrite(edgelink.WriteEvent{Device: ref, Property: "setpoint", ID: ids["setpoint"], State: "applied", Time: h.now()})
		}))
		all = append(all, (<-done).Sub(at))
	}
	close(stop)
	busy.Wait()
	slices.Sort(all)
	if median := all[len(all)/2]; median > 250*time.Millisecond { // a busy machine makes some slow
		t.Errorf("half of them took %s", median)
	}
}

func TestExpiredWritesAreWithdrawn(t *testing.T) {
	h := newHub(t)
	ref := h.live()
	ids := h.patch(`{"setpoint": 3}`, models.DesiredOptions{Expire: 30 * time.Second})
	wanted := func() bool {
		v, _ := h.reg.Device("default", "b1")
		_, live := v.Desired.Live("setpoint")
		return live
	}
	h.pass(29 * time.Second)
	h.cache.expire(t.Context())
	h.pass(2 * time.Second) // over, but a connected edge is about to say so itself
	h.cache.expire(t.Context())
	if !wanted() {
		t.Fatal("withdrawn too early")
	}
	h.pass(time.Second)
	h.cache.expire(t.Context())
	if wanted() || h.cache.WriteState(ref.UID, "setpoint", ids["setpoint"]) != twin.Expired {
		t.Fatal("not withdrawn")
	}
	if d := h.doc("b1").Properties["setpoint"]; d.Desired != nil || d.Write.State != twin.Expired || d.Write.Late {
		t.Fatalf("%+v", d.Write)
	}
	// The edge was away and had written it after all.
	h.latest("n1", 1, ref, &pb.LatestTwin{Seq: 9, Writes: []*pb.WriteEvent{{Property: "setpoint", Id: ids["setpoint"], State: "applied", TimeUs: h.now().UnixMicro()}}})
	if w := h.doc("b1").Properties["setpoint"].Write; w.State != twin.Applied || !w.Late {
		t.Fatalf("%+v", w)
	}

	// Confirmed in time: it stays, and nothing looks at it again.
	ids = h.patch(`{"setpoint": 4}`, models.DesiredOptions{Expire: 30 * time.Second})
	h.latest("n1", 1, ref, &pb.LatestTwin{Seq: 10, Writes: []*pb.WriteEvent{{Property: "setpoint", Id: ids["setpoint"], State: "applied"}}})
	h.pass(time.Hour)
	h.cache.expire(t.Context())
	if !wanted() || len(h.reg.Expiring(h.now())) != 0 {
		t.Fatal("a confirmed value expires")
	}
	// Offline nodes get no grace.
	h.patch(`{"setpoint": 5}`, models.DesiredOptions{Expire: 30 * time.Second})
	h.cache.NodeLive("n1", false)
	h.pass(30 * time.Second)
	h.cache.expire(t.Context())
	if wanted() {
		t.Fatal("not withdrawn")
	}
}

func TestPages(t *testing.T) {
	h := newHub(t)
	for _, name := range []string{"b4", "b2", "b3"} {
		h.device(name, "n1")
	}
	var names []string
	o := models.ListOptions{Limit: 3}
	for {
		docs, next, err := h.cache.Twins(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range docs {
			names = append(names, d.Device)
		}
		names = append(names, "|")
		if next == "" {
			break
		}
		o.Continue = next
	}
	expect(t, "pages", strings.Join(names, " "), "b1 b2 b3 | b4 |")
	_, _, err := h.cache.Twins(t.Context(), models.ListOptions{Continue: "x"})
	if models.KindOf(err) != models.KindMalformed {
		t.Error(err)
	}
}
