package devicehub_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/whimbrel-edge/whimbrel/cloudapi"
	"github.com/whimbrel-edge/whimbrel/devicehub"
	"github.com/whimbrel-edge/whimbrel/devicehub/identity"
	"github.com/whimbrel-edge/whimbrel/devicehub/sessions/sessionstest"
	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/devicehub/store/sqlite"
	"github.com/whimbrel-edge/whimbrel/internal/pki"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
	"github.com/whimbrel-edge/whimbrel/twin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A hub is what the API needs.
var (
	_ cloudapi.Objects = (*devicehub.Hub)(nil)
	_ cloudapi.Twins   = (*devicehub.Hub)(nil)
)

// hub is a hub over SQLite that can be stopped and started again.
type hub struct {
	*devicehub.Hub
	t    testing.TB
	db   *sqlite.Store
	path string
	key  pki.SealKey
	log  *syncBuffer
	stop func()

	comeBack time.Duration
}

// syncBuffer is where the log goes.
type syncBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func start(t testing.TB) *hub {
	h := &hub{t: t, path: filepath.Join(t.TempDir(), "hub.db"), key: pki.NewSealKey(), log: &syncBuffer{}}
	h.open()
	return h
}

func (h *hub) open() {
	t := h.t
	t.Helper()
	log := slog.New(slog.NewTextHandler(h.log, nil))
	db, err := sqlite.Open(context.Background(), h.path, log)
	if err != nil {
		t.Fatal(err)
	}
	h.db = db
	h.Hub, err = devicehub.New(context.Background(), devicehub.Config{Store: db, Key: h.key, LinkAddr: "127.0.0.1:0", Hosts: []string{"127.0.0.1"}, ComeBack: h.comeBack,
		Log: log, Registerer: prometheus.NewRegistry(), Mappers: []*models.Mapper{{Metadata: models.ObjectMeta{Name: "m"}, Spec: models.MapperSpec{Version: "1"}}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	select {
	case <-h.Ready():
	case err := <-ended:
		t.Fatal(err)
	}
	h.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(h.stop)
}

func (h *hub) apply(text string) models.Object {
	h.t.Helper()
	o, err := models.DecodeObject([]byte("---\n" + text))
	if err != nil {
		h.t.Fatal(err)
	}
	stored, _, err := h.Update(context.Background(), models.KeyOf(o), models.WriteOptions{}, func(models.Object) (models.Object, error) { return o, nil })
	if err != nil {
		h.t.Fatal(err)
	}
	return stored
}

func (h *hub) plant() {
	h.apply(`{kind: DeviceModel, apiVersion: whimbrel/v1, metadata: {name: boiler}, spec: {protocol: m, properties: [
		{name: temperature, type: float, address: {}}, {name: setpoint, type: float, access: ReadWrite, address: {}}]}}`)
	h.apply(`{kind: Device, apiVersion: whimbrel/v1, metadata: {name: b1}, spec: {model: boiler, node: n1}}`)
}

func (h *hub) join(node string) *sessionstest.Edge {
	h.t.Helper()
	text, _, err := h.Identity.CreateJoinToken(context.Background(), node, 0, "test")
	if err != nil {
		h.t.Fatal(err)
	}
	e := sessionstest.New(h.t, h.LinkURL(), node)
	if err := e.Join(text, map[string]string{"site": "north"}); err != nil {
		h.t.Fatal(err)
	}
	return e
}

func (h *hub) until(what string, ok func() bool) {
	h.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) { //sleep: polls a condition
		if time.Now().After(deadline) {
			h.t.Fatalf("never: %s\n%s", what, h.log)
		}
	}
}

func (h *hub) doc() twin.Document {
	h.t.Helper()
	d, err := h.Twin(context.Background(), "default", "b1")
	if err != nil {
		h.t.Fatal(err)
	}
	return d
}

// record sends one record and waits until it is acknowledged.
func record(l *sessionstest.Link, epoch string, seq uint64, fill func(*edgelink.Builder)) {
	var b edgelink.Builder
	fill(&b)
	l.Say(&pb.Frame{Body: &pb.Frame_Batch{Batch: &pb.Batch{Epoch: epoch, Records: []*pb.Numbered{{Seq: seq, Record: b.Bytes()}}}}})
	l.Acked(epoch, seq)
}

func condition(o models.Object, typ string) string {
	conditions := []models.Condition{}
	switch o := o.(type) {
	case *models.Device:
		conditions = o.Status.Conditions
	case *models.Node:
		conditions = o.Status.Conditions
	}
	for _, c := range conditions {
		if c.Type == typ {
			return c.Status + " " + c.Reason
		}
	}
	return ""
}

// TestFromDesiredToConfirmed goes the whole way: a node joins, a device is
// applied, its model and it arrive, a value comes up, a desired one goes down,
// and its confirmation reaches the one who waits.
func TestFromDesiredToConfirmed(t *testing.T) {
	h := start(t)
	h.plant()
	device := models.Key{Kind: "Device", Namespace: "default", Name: "b1"}
	o, _ := h.Get(t.Context(), device)
	if got := condition(o, "Assigned"); got != "False NodeNotFound" {
		t.Fatal(got)
	}
	_, _, err := h.PatchDesired(t.Context(), "default", "b1", map[string]models.Value{"setpoint": models.Int(1)}, models.DesiredOptions{By: "ann"})
	if err != nil {
		t.Fatal(err)
	}
	e := h.join("n1")
	node, err := h.Get(t.Context(), models.Key{Kind: "Node", Name: "n1"})
	if err != nil || node.Meta().Labels["site"] != "north" || node.Meta().UID != e.UID {
		t.Fatalf("%+v %v", node, err)
	}
	hello := e.Hello("E1")
	hello.Labels = map[string]string{"site": "south"}
	l := e.Connect(t, hello)
	items, _ := l.FullSync()
	if len(items) != 3 || items[0].Kind != "DeviceModel" || items[1].Kind != "Device" || items[2].Kind != "Desired" {
		t.Fatalf("%v", items)
	}
	ref := edgelink.DeviceRef{UID: items[1].Uid, Assignment: items[1].Assignment}
	node, _ = h.Get(t.Context(), models.Key{Kind: "Node", Name: "n1"})
	if condition(node, "Ready") != "True Connected" || node.Meta().Labels["site"] != "south" {
		t.Fatalf("%+v", node)
	}

	l.Say(&pb.Frame{Body: &pb.Frame_Latest{Latest: &pb.Latest{Epoch: "E1", Twins: []*pb.LatestTwin{{Device: &pb.DeviceRef{Uid: ref.UID, Assignment: ref.Assignment}, Full: true, State: "online"}}}}})
	record(l, "E1", 1, func(b *edgelink.Builder) {
		b.AddSample(ref, "temperature", models.Sample{Value: models.Float(71.5), Time: time.Now()})
	})
	h.until("online", func() bool { return h.doc().State == models.StateOnline })
	if r := h.doc().Properties["temperature"].Reported; r.Value != models.Float(71.5) || r.Quality != models.Good {
		t.Fatalf("%+v", r)
	}

	// Down, and back.
	doc, ids, err := h.PatchDesired(t.Context(), "default", "b1", map[string]models.Value{"setpoint": models.Float(45.5)}, models.DesiredOptions{By: "ann"})
	if err != nil || doc.DesiredVersion != 2 || doc.Properties["setpoint"].Write.State != twin.Pending {
		t.Fatalf("%+v %v", doc, err)
	}
	verdict := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		verdict <- h.AwaitWrites(ctx, "default", "b1", ids)
	}()
	s := l.Sync()
	var desired twin.Desired
	if len(s.Items) != 1 || s.Items[0].Kind != "Desired" || json.Unmarshal(s.Items[0].Json, &desired) != nil || desired.Properties["setpoint"].Value != models.Float(45.5) {
		t.Fatalf("%v", s)
	}
	record(l, "E1", 2, func(b *edgelink.Builder) {
		b.AddWrite(edgelink.WriteEvent{Device: ref, Property: "setpoint", ID: desired.Properties["setpoint"].ID, State: "applied", Time: time.Now()})
		b.AddSample(ref, "setpoint", models.Sample{Value: models.Float(45.5), Time: time.Now()})
	})
	if err := <-verdict; err != nil {
		t.Fatal(err)
	}
	if p := h.doc().Properties["setpoint"]; p.Write.State != twin.Applied || p.Reported.Value != models.Float(45.5) {
		t.Fatalf("%+v", p)
	}

	// A write made at the edge becomes the next version, once.
	local := func(b *edgelink.Builder) {
		b.AddLocal(edgelink.LocalDesired{Device: ref, Property: "setpoint", ID: "L1", Value: models.Int(50), Base: 2, Time: time.Now(), By: "panel"})
	}
	record(l, "E1", 3, local)
	record(l, "E1", 4, local)
	if d := h.doc(); d.DesiredVersion != 3 || d.Properties["setpoint"].Desired.By != "panel" {
		t.Fatalf("%+v", d)
	}
	if s := l.Sync(); len(s.Items) != 1 || s.Items[0].Kind != "Desired" {
		t.Fatalf("%v", s)
	}

	// Another edge gets the device, and hears what became of the write.
	record(l, "E1", 5, func(b *edgelink.Builder) {
		b.AddWrite(edgelink.WriteEvent{Device: ref, Property: "setpoint", ID: "L1", State: "applied", Time: time.Now()})
	})
	other := h.join("n2")
	l2 := other.Connect(t, other.Hello("F1"))
	l2.FullSync()
	h.apply(`{kind: Device, apiVersion: whimbrel/v1, metadata: {name: b1}, spec: {model: boiler, node: n2}}`)
	s = l2.Sync()
	if len(s.Items) != 3 || json.Unmarshal(s.Items[2].Json, &desired) != nil || desired.Properties["setpoint"].Settled != twin.Applied {
		t.Fatalf("%v", s)
	}
	if d := h.doc(); d.State != models.StateUnknown || d.Properties["temperature"].Reported.Quality != models.Uncertain {
		t.Fatalf("%+v", d)
	}
	if !strings.Contains(h.log.String(), string(identity.NodeJoined)) {
		t.Error("the join was not recorded")
	}
}

func TestHubRestart(t *testing.T) {
	h := start(t)
	h.plant()
	e := h.join("n1")
	l := e.Connect(t, e.Hello("E1"))
	items, full := l.FullSync()
	ref := edgelink.DeviceRef{UID: items[1].Uid, Assignment: items[1].Assignment}
	l.Say(&pb.Frame{Body: &pb.Frame_Latest{Latest: &pb.Latest{Epoch: "E1", Twins: []*pb.LatestTwin{{Device: &pb.DeviceRef{Uid: ref.UID, Assignment: ref.Assignment}, Full: true, State: "online"}}}}})
	record(l, "E1", 1, func(b *edgelink.Builder) {
		b.AddSample(ref, "temperature", models.Sample{Value: models.Float(71.5), Time: time.Now()})
	})
	lineage := l.Welcome.Lineage
	h.stop()
	if got := l.Ended(); got != edgelink.GoodbyeShutdown {
		t.Errorf("goodbye %q", got)
	}
	h.open()
	if d := h.doc(); d.State != models.StateUnknown || d.Properties["temperature"].Reported.Reason != models.ReasonStale || d.Properties["temperature"].Reported.Value != models.Float(71.5) {
		t.Fatalf("%+v", d)
	}
	e.URL = h.LinkURL()
	hello := e.Hello("E1")
	hello.Lineage, hello.Held = lineage, full.Keep
	l = e.Connect(t, hello)
	if l.Welcome.Acks[0].Seq != 1 || l.Welcome.Lineage != lineage {
		t.Fatalf("%v", l.Welcome)
	}
	if items, _ := l.FullSync(); len(items) != 0 {
		t.Fatalf("%v", items)
	}
}

func TestDeletions(t *testing.T) {
	h := start(t)
	h.plant()
	e := h.join("n1")
	l := e.Connect(t, e.Hello("E1"))
	l.FullSync()
	if _, err := h.Delete(t.Context(), models.Key{Kind: "Node", Name: "n1"}, models.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := l.Ended(); got != edgelink.GoodbyeRevoked {
		t.Errorf("goodbye %q", got)
	}
	var refused *edgelink.RefusedError
	if _, err := e.Dial(t); !errors.As(err, &refused) || refused.Status != edgelink.RevokedStatus {
		t.Errorf("a deleted node links: %v", err)
	}
	// Not even when a node of that name is made again.
	h.apply(`{kind: Node, apiVersion: v1, metadata: {name: n1}}`)
	if _, err := e.Dial(t); !errors.As(err, &refused) || refused.Status != edgelink.RevokedStatus {
		t.Errorf("a deleted node links: %v", err)
	}
	if models.KindOf(e.Renew(nil)) != models.KindForbidden {
		t.Error("it may renew")
	}
	again := h.join("n1")
	again.Connect(t, again.Hello("E2")).FullSync()

	if _, err := h.Delete(t.Context(), models.Key{Kind: "Device", Namespace: "default", Name: "b1"}, models.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Twin(t.Context(), "default", "b1"); models.KindOf(err) != models.KindNotFound {
		t.Error(err)
	}
	// A user's tokens go with the user.
	h.apply(`{kind: User, apiVersion: whimbrel/v1, metadata: {name: ann}, spec: {role: operator}}`)
	token, _, err := h.Identity.IssueAPIToken(t.Context(), "ann", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	if id, err := h.Identity.AuthenticateToken(t.Context(), token, ""); err != nil || id.Bindings[0].Role != identity.Operator {
		t.Fatalf("%+v %v", id, err)
	}
	h.apply(`{kind: User, apiVersion: whimbrel/v1, metadata: {name: ann}, spec: {role: viewer}}`)
	if id, err := h.Identity.AuthenticateToken(t.Context(), token, ""); err != nil || id.Bindings[0].Role != identity.Viewer {
		t.Fatalf("%+v %v", id, err)
	}
	if _, err := h.Delete(t.Context(), models.Key{Kind: "User", Name: "ann"}, models.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	h.apply(`{kind: User, apiVersion: whimbrel/v1, metadata: {name: ann}, spec: {role: admin}}`)
	if _, err := h.Identity.AuthenticateToken(t.Context(), token, ""); !errors.Is(err, identity.ErrUnauthenticated) {
		t.Errorf("the token of a deleted user: %v", err)
	}
}

// TestModelChangesShowAtOnce changes a model under a stream.
func TestModelChangesShowAtOnce(t *testing.T) {
	h := start(t)
	h.plant()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	enough := errors.New("enough")
	n := 0
	err := h.StreamTwins(ctx, models.ListOptions{}, "", func(ch twin.StreamChange) error {
		if n++; n == 1 {
			h.apply(`{kind: DeviceModel, apiVersion: whimbrel/v1, metadata: {name: boiler}, spec: {protocol: m, properties: [
				{name: temperature, type: float, unit: K, address: {}}]}}`)
			return nil
		}
		if p := ch.Document.Properties; len(p) != 1 || p["temperature"].Unit != "K" {
			return fmt.Errorf("%+v", ch.Document)
		}
		return enough
	})
	if !errors.Is(err, enough) {
		t.Fatal(err)
	}
}

func TestAnotherHubOnOneDatabaseEndsThisOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub.db")
	log := slog.New(slog.DiscardHandler)
	db, err := sqlite.Open(t.Context(), path, log)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	h, err := devicehub.New(t.Context(), devicehub.Config{Store: db, Key: pki.NewSealKey(), LinkAddr: "127.0.0.1:0", Log: log})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- h.Run(t.Context()) }()
	<-h.Ready()
	if err := db.Commit(t.Context(), store.Commit{Revision: 1000}); err != nil {
		t.Fatal(err)
	}
	user := &models.User{TypeMeta: models.TypeMeta{APIVersion: models.APIVersion, Kind: "User"}, Metadata: models.ObjectMeta{Name: "ann"}, Spec: models.UserSpec{Role: models.Viewer}}
	_, _, err = h.Update(t.Context(), models.KeyOf(user), models.WriteOptions{}, func(models.Object) (models.Object, error) { return user, nil })
	if models.KindOf(err) != models.KindUnavailable {
		t.Errorf("update: %v", err)
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "registry") {
		t.Errorf("the hub ended with %v", err)
	}
}
