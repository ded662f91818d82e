package sessions_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/whimbrel-edge/whimbrel/devicehub/identity"
	"github.com/whimbrel-edge/whimbrel/devicehub/identity/identitytest"
	"github.com/whimbrel-edge/whimbrel/devicehub/ingest"
	"github.com/whimbrel-edge/whimbrel/devicehub/registry"
	"github.com/whimbrel-edge/whimbrel/devicehub/sessions"
	"github.com/whimbrel-edge/whimbrel/devicehub/sessions/sessionstest"
	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/devicehub/store/storetest"
	"github.com/whimbrel-edge/whimbrel/devicehub/twins"
	"github.com/whimbrel-edge/whimbrel/devicehub/workloads"
	"github.com/whimbrel-edge/whimbrel/internal/faultproxy"
	"github.com/whimbrel-edge/whimbrel/internal/pki"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
	"github.com/whimbrel-edge/whimbrel/twin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hub is the parts of a hub that a link needs, behind a real listener.
type hub struct {
	t         testing.TB
	store     *storetest.Memory
	ids       *identitytest.Memory
	identity  *identity.Service
	registry  *registry.Registry
	twins     *twins.Cache
	sessions  *sessions.Manager
	workloads *workloads.Controller
	url       string
	addr      string
	ahead     atomic.Int64 // of the clock, nanoseconds
	lineage   string
	events    chan identity.Event
	stop      func()

	secondIdle time.Duration // of sessions opened from now on
}

func (h *hub) now() time.Time { return time.Now().Add(time.Duration(h.ahead.Load())) }

// devices is what ingest needs of the registry.
type devices struct{ r *registry.Registry }

func (d devices) AcceptLocal(ctx context.Context, uid string, l twin.Local) (registry.Judgement, error) {
	return d.r.AcceptLocal(ctx, uid, l)
}
func (d devices) Reference(uid string) (models.ObjectReference, bool) {
	return models.ObjectReference{Kind: "Device", Name: uid}, true
}
func (d devices) Current(uid string) (uint64, string, bool) { return d.r.Current(uid) }

// statuses is what the registry needs of the parts.
type statuses struct{ h *hub }

func (s statuses) DeviceStatus(d *models.Device, assignment uint64) *models.DeviceStatus {
	return s.h.twins.DeviceStatus(d, assignment)
}
func (s statuses) NodeStatus(n *models.Node) *models.NodeStatus { return s.h.sessions.NodeStatus(n) }
func (s statuses) MapperStatus(m *models.Mapper) *models.MapperStatus {
	return s.h.sessions.MapperStatus(m)
}
func (s statuses) RouteStatus(*models.Route) *models.RouteStatus { return &models.RouteStatus{} }
func (s statuses) WorkloadStatus(o models.Object) models.Object {
	return s.h.workloads.WorkloadStatus(o)
}
func (statuses) Reported(_, _ string) twin.Reported { return twin.Reported{} }

func (s statuses) WriteState(uid, property, id string) twin.WriteState {
	return s.h.twins.WriteState(uid, property, id)
}

func start(t testing.TB) *hub {
	h := &hub{t: t, store: storetest.NewMemory(), ids: identitytest.NewMemory(), events: make(chan identity.Event, 1000)}
	h.open()
	h.apply(`{kind: Mapper, apiVersion: whimbrel/v1, metadata: {name: m}, spec: {version: "1"}}`)
	h.apply(`{kind: DeviceModel, apiVersion: whimbrel/v1, metadata: {name: boiler}, spec: {protocol: m, properties: [
		{name: temperature, type: float, address: {}}, {name: setpoint, type: float, access: ReadWrite, address: {}}]}}`)
	return h
}

func (h *hub) open() {
	t := h.t
	t.Helper()
	ctx := context.Background()
	logger := slog.New(slog.DiscardHandler)
	fatal := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ca, err := identity.EnsureCA(ctx, h.ids, pki.SealKey{}, h.now())
	fatal(err)
	h.identity, err = identity.New(identity.Config{CA: ca, Stores: h.ids.Stores(), Now: h.now, Record: func(_ context.Context, e identity.Event) { h.events <- e }})
	fatal(err)
	h.registry, err = registry.Open(ctx, registry.Config{Store: h.store, Log: logger})
	fatal(err)
	h.twins, err = twins.Open(ctx, twins.Config{Store: h.store, Registry: h.registry, Log: logger})
	fatal(err)
	if h.lineage == "" {
		h.lineage, err = h.store.Lineage(ctx)
		fatal(err)
	}
	in := ingest.New(ingest.Config{Store: h.store, Devices: devices{h.registry}, Sink: h.twins, Log: logger})
	if h.workloads, err = workloads.New(t.Context(), workloads.Config{Registry: h.registry, Store: h.store, Now: h.now, Log: logger}); err != nil {
		t.Fatal(err)
	}
	h.registry.SetStatuses(statuses{h})
	h.sessions = sessions.New(sessions.Config{Registry: h.registry, Ingest: in, Twins: h.twins, Workloads: h.workloads, Log: h.store, Identity: h.identity,
		Lineage: h.lineage, Now: h.now, Logger: logger, SecondIdle: h.secondIdle})
	cert, err := pki.NewServerCert(ca, []string{"127.0.0.1"}, h.now())
	fatal(err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	fatal(err)
	srv := &http.Server{Handler: h.sessions.Handler(), TLSConfig: pki.HubTLS(cert, h.identity.CAs, h.now), ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelDebug)}
	running, cancel := context.WithCancel(ctx)
	var wait sync.WaitGroup
	wait.Go(func() { _ = h.registry.Run(running) })
	wait.Go(func() { _ = in.Run(running) })
	wait.Go(func() { _ = h.workloads.Run(running) })
	wait.Go(func() { _ = srv.ServeTLS(listener, "", "") })
	h.addr = listener.Addr().String()
	h.url = "https://" + h.addr
	manager := h.sessions
	h.stop = sync.OnceFunc(func() {
		_ = srv.Close()
		manager.Close()
		cancel()
		wait.Wait()
	})
	t.Cleanup(h.stop)
}

func (h *hub) apply(text string) models.Object {
	h.t.Helper()
	o, err := models.DecodeObject([]byte("---\n" + text))
	if err != nil {
		h.t.Fatal(err)
	}
	stored, _, err := h.registry.Update(context.Background(), models.KeyOf(o), models.WriteOptions{}, func(models.Object) (models.Object, error) { return o, nil })
	if err != nil {
		h.t.Fatal(err)
	}
	return stored
}

func (h *hub) device(name, node string) edgelink.DeviceRef {
	h.t.Helper()
	uid := h.apply(fmt.Sprintf(`{kind: Device, apiVersion: whimbrel/v1, metadata: {name: %s}, spec: {model: boiler, node: %q}}`, name, node)).Meta().UID
	assignment, _, _ := h.registry.Current(uid)
	return edgelink.DeviceRef{UID: uid, Assignment: assignment}
}

func (h *hub) patch(device, text string) {
	h.t.Helper()
	p, _, err := models.DecodePatch([]byte(text))
	if err == nil {
		_, _, err = h.registry.PatchDesired(context.Background(), "default", device, p, models.DesiredOptions{})
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *hub) token(node string) string {
	h.t.Helper()
	text, _, err := h.identity.CreateJoinToken(context.Background(), node, 0, "test")
	if err != nil {
		h.t.Fatal(err)
	}
	return text
}

func (h *hub) edge(node string) *sessionstest.Edge {
	h.t.Helper()
	return sessionstest.Joined(h.t, h.url, node, h.token(node))
}

// condition is a node's condition as "status reason".
func (h *hub) condition(node, typ string) string {
	s := h.sessions.NodeStatus(&models.Node{Metadata: models.ObjectMeta{Name: node, CreationTimestamp: new(time.Now())}})
	for _, c := range s.Conditions {
		if c.Type == typ {
			return c.Status + " " + c.Reason
		}
	}
	return ""
}

func (h *hub) until(what string, ok func() bool) {
	h.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) { //sleep: polls a condition
		if time.Now().After(deadline) {
			h.t.Fatalf("never: %s", what)
		}
	}
}

func refused(t testing.TB, err error, kind models.ErrorKind, words string) {
	t.Helper()
	if models.KindOf(err) != kind || !strings.Contains(err.Error(), words) {
		t.Fatalf("error %v of kind %q, want %q and %q", err, models.KindOf(err), kind, words)
	}
}

func batch(epoch string, records ...*pb.Numbered) *pb.Frame {
	return &pb.Frame{Body: &pb.Frame_Batch{Batch: &pb.Batch{Epoch: epoch, Records: records}}}
}

func sample(ref edgelink.DeviceRef, seq uint64, v float64) *pb.Numbered {
	var b edgelink.Builder
	b.AddSample(ref, "temperature", models.Sample{Value: models.Float(v), Time: time.Now()})
	return &pb.Numbered{Seq: seq, Record: b.Bytes()}
}

func TestJoin(t *testing.T) {
	h := start(t)
	token := h.token("n1")
	e := sessionstest.New(t, h.url, "n1")
	if err := e.Join(token, map[string]string{"site": "north"}); err != nil {
		t.Fatal(err)
	}
	if e.UID == "" || e.Cert.Leaf.Subject.CommonName != "n1" {
		t.Fatalf("%+v", e)
	}
	refused(t, sessionstest.New(t, h.url, "n1").Join(token, nil), models.KindForbidden, "used already")
	refused(t, sessionstest.New(t, h.url, "n2").Join(h.token("n3"), nil), models.KindForbidden, "another node")
	other := sessionstest.New(t, h.url, "n5")
	csr, _ := pki.NewCSR(other.Key, "n6") // for another name than it says
	token = h.token("n5")
	parsed, _ := pki.ParseJoinToken(token)
	refused(t, other.JoinWith(pki.JoinTLS(parsed.CAHash), edgelink.JoinRequest{Token: token, Node: "n5", CSR: string(csr)}), models.KindInvalid, "/csr")
	refused(t, other.JoinWith(pki.JoinTLS(parsed.CAHash), edgelink.JoinRequest{Token: token, Node: "N 5", CSR: string(csr)}), models.KindInvalid, "/metadata/name")
	refused(t, other.JoinWith(pki.JoinTLS(parsed.CAHash), edgelink.JoinRequest{Token: "wt1.x", Node: "n5", CSR: string(csr)}), models.KindForbidden, "")
	refused(t, other.JoinWith(pki.JoinTLS(parsed.CAHash), edgelink.JoinRequest{Token: token, Node: "n5", CSR: strings.Repeat("x", 70_000)}), models.KindTooLarge, "")
	if err := other.Join(token, nil); err != nil { // the refusals have not used the token up
		t.Fatal(err)
	}
	var reasons []identity.Reason
	for len(h.events) > 0 {
		reasons = append(reasons, (<-h.events).Reason)
	}
	if !slices.Contains(reasons, identity.NodeJoined) || !slices.Contains(reasons, identity.JoinRefused) {
		t.Errorf("events: %v", reasons)
	}
}

func TestRenew(t *testing.T) {
	h := start(t)
	e := h.edge("n1")
	h.ahead.Store(int64(2 * 365 * 24 * time.Hour)) // a long time in a warehouse
	if _, err := e.Dial(t); !isRefused(err, 401) {
		t.Fatalf("an expired certificate links: %v", err)
	}
	if err := e.Renew(nil); err != nil {
		t.Fatal(err)
	}
	l := e.Connect(t, e.Hello("E1"))
	l.Drop()
	key, _ := pki.GenerateKey()
	if err := e.Renew(key); err != nil { // to another key
		t.Fatal(err)
	}
	e.Connect(t, e.Hello("E1"))
	wrong := e.Clone()
	wrong.Node = "n2"
	refused(t, wrong.Renew(nil), models.KindInvalid, "/csr")
	h.ids.DeleteNode("n1")
	refused(t, e.Renew(nil), models.KindForbidden, "no such node")
}

func isRefused(err error, status int) bool {
	var r *edgelink.RefusedError
	return errors.As(err, &r) && r.Status == status
}

func TestLinkNeedsACertificateOfOurs(t *testing.T) {
	h := start(t)
	e := h.edge("n1")
	bare := e.Clone()
	bare.Cert = &tls.Certificate{}
	if _, err := bare.Dial(t); !isRefused(err, 401) {
		t.Errorf("without a certificate: %v", err)
	}
	ca, err := pki.NewCA(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	text, _ := pki.NewCSR(e.Key, "n1")
	csr, err := pki.CheckCSR(text, "n1")
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ca.SignNode(csr, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	foreign := e.Clone()
	foreign.Cert = &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: e.Key, Leaf: leaf}
	if _, err := foreign.Dial(t); err == nil {
		t.Error("a certificate of another authority is let in")
	}
	stranger := e.Clone()
	stranger.CAs = []*x509.Certificate{ca.Cert}
	if _, err := stranger.Dial(t); err == nil {
		t.Error("an edge trusts a hub of another authority")
	}
	resp, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: e.TLS(), DisableKeepAlives: true}}).Get(h.url + "/api/v1/devices")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 404 || resp.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("%d %s", resp.StatusCode, resp.Header)
	}
}

func TestHellos(t *testing.T) {
	h := start(t)
	e := h.edge("n1")
	hello := e.Hello("E1")
	hello.Epochs = []*pb.Epoch{{Id: "E0", Last: 5, First: 3}, {Id: "E1", Parent: "E0", ParentLast: 5}}
	l := e.Connect(t, hello)
	w := l.Welcome
	if w.Lineage != h.lineage || w.NodeUid != e.UID || w.Capability != edgelink.Capability || w.WindowBytes == 0 || len(w.Acks) != 2 || w.ClockUs == 0 {
		t.Fatalf("%v", w)
	}
	if got := h.condition("n1", "Ready"); got != "True Connected" || h.sessions.Connected() != 1 || !h.sessions.Live("n1") {
		t.Fatal(got)
	}
	l.Drop()
	h.until("it is gone", func() bool { return h.condition("n1", "Ready") == "False Disconnected" && h.sessions.Connected() == 0 })
	for name, spoil := range map[string]func(*pb.Hello){
		"another node":  func(p *pb.Hello) { p.Node = "n2" },
		"no epoch":      func(p *pb.Hello) { p.Epochs = nil },
		"an odd epoch":  func(p *pb.Hello) { p.Epochs[0].Id = strings.Repeat("x", 100) },
		"no capability": func(p *pb.Hello) { p.Capability = 0 },
	} {
		hello := e.Hello("E1")
		spoil(hello)
		l, f := e.Greet(t, hello)
		if f.GetGoodbye().GetReason() != edgelink.GoodbyeProtocolError {
			t.Errorf("%s: %v", name, f)
		}
		l.Drop()
	}
	first, err := e.Dial(t)
	if err != nil {
		t.Fatal(err)
	}
	first.Say(batch("E1"))
	if got := first.Ended(); got != edgelink.GoodbyeProtocolError {
		t.Errorf("a batch first: %q", got)
	}
	// A later release may speak higher numbers.
	hello = e.Hello("E2")
	hello.Capability, hello.Capabilities = 99, []string{"teleport"}
	if w := e.Connect(t, hello).Welcome; w.Capability != edgelink.Capability || len(w.Capabilities) != 0 {
		t.Errorf("%v", w)
	}
}

func names(items []*pb.Item) string {
	var out []string
	for _, i := range items {
		out = append(out, i.Kind+" "+i.Name)
	}
	return strings.Join(out, ", ")
}

func heldNames(held []*pb.Held) string {
	var out []string
	for _, i := range held {
		out = append(out, i.Kind+" "+i.Name)
	}
	return strings.Join(out, ", ")
}

func TestSync(t *testing.T) {
	h := start(t)
	e := h.edge("n1")
	h.device("b1", "n1")
	h.device("b2", "n1")
	h.device("x", "other")
	h.patch("b1", `{"setpoint": 3}`)
	l := e.Connect(t, e.Hello("E1"))
	items, full := l.FullSync()
	const everything = "DeviceModel boiler, Device b1, Device b2, Desired b1"
	if got := names(items); got != everything || heldNames(full.Keep) != everything {
		t.Fatalf("%s; keep %s", got, heldNames(full.Keep))
	}
	// Later changes, one by one, and nothing beside them.
	h.patch("b2", `{"setpoint": 4}`)
	if s := l.Sync(); names(s.Items) != "Desired b2" || s.Full || len(s.Removed) != 0 {
		t.Fatalf("%v", s)
	}
	h.apply(`{kind: Device, apiVersion: whimbrel/v1, metadata: {name: b2}, spec: {model: boiler, node: n1, locked: true}}`)
	if s := l.Sync(); names(s.Items) != "Device b2" || len(s.Removed) != 0 {
		t.Fatalf("%v", s)
	}
	if _, err := h.registry.Delete(t.Context(), models.Key{Kind: "Device", Namespace: "default", Name: "b2"}, models.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if s := l.Sync(); len(s.Items) != 0 || heldNames(s.Removed) != "Device b2, Desired b2" {
		t.Fatalf("%v", s)
	}
	h.device("y", "other")
	h.apply(`{kind: User, apiVersion: whimbrel/v1, metadata: {name: u}, spec: {role: viewer}}`)
	l.Quiet(50 * time.Millisecond)
	l.Drop()

	// Offline changes: only what differs comes.
	h.apply(`{kind: DeviceModel, apiVersion: whimbrel/v1, metadata: {name: boiler}, spec: {protocol: m, description: new, properties: [
		{name: temperature, type: float, address: {}}, {name: setpoint, type: float, access: ReadWrite, address: {}}]}}`)
	hello := e.Hello("E1")
	hello.Lineage, hello.Held = h.lineage, append(slices.Clone(full.Keep), &pb.Held{Kind: "Device", Namespace: "default", Name: "old", Uid: "u", Revision: 1})
	l = e.Connect(t, hello)
	items, full = l.FullSync()
	if names(items) != "DeviceModel boiler" || heldNames(full.Keep) != "DeviceModel boiler, Device b1, Desired b1" {
		t.Fatalf("%s; keep %s", names(items), heldNames(full.Keep))
	}
	l.Drop()
	hello.Held = full.Keep
	l = e.Connect(t, hello)
	if items, _ := l.FullSync(); len(items) != 0 {
		t.Fatalf("nothing differs, %s comes", names(items))
	}
	// To the other node and back.
	h.device("b1", "other")
	if s := l.Sync(); heldNames(s.Removed) != "DeviceModel boiler, Device b1, Desired b1" || len(s.Items) != 0 {
		t.Fatalf("%v", s)
	}
	h.device("b1", "n1")
	if s := l.Sync(); names(s.Items) != "DeviceModel boiler, Device b1, Desired b1" || s.Items[1].Assignment != 3 {
		t.Fatalf("%v", s)
	}
	l.Drop()
	// What an edge holds of another database says nothing here.
	hello.Lineage = "another"
	if items, _ := e.Connect(t, hello).FullSync(); names(items) != "DeviceModel boiler, Device b1, Desired b1" {
		t.Fatal(names(items))
	}
}

func TestLanesUp(t *testing.T) {
	h := start(t)
	e := h.edge("n1")
	ref := h.device("b1", "n1")
	hello := e.Hello("E1")
	hello.ClockUs = time.Now().Add(-time.Hour).UnixMicro() // it is behind
	l := e.Connect(t, hello)
	l.Say(batch("E1", sample(ref, 1, 1), sample(ref, 2, 2)))
	l.Acked("E1", 2)
	doc := func() twin.Document {
		d, err := h.twins.Twin(t.Context(), "default", "b1")
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	if r := doc().Properties["temperature"].Reported; r == nil || r.Value != models.Float(2) {
		t.Fatalf("%+v", r)
	}
	l.Say(&pb.Frame{Body: &pb.Frame_Latest{Latest: &pb.Latest{Epoch: "E1", Twins: []*pb.LatestTwin{{Device: &pb.DeviceRef{Uid: ref.UID, Assignment: ref.Assignment}, Full: true, Seq: 3,
		State: "online", SeenUs: time.Now().Add(-time.Hour).UnixMicro(), Values: []*pb.LatestValue{{Property: "temperature", Kind: uint32(models.KindInt), Bits: 7, Seq: 3, TimeUs: 1}}}}}}})
	h.until("the latest value", func() bool { return doc().Properties["temperature"].Reported.Value == models.Int(7) })
	if d := doc(); d.State != models.StateOnline || d.LastSeen == nil || time.Since(*d.LastSeen) > time.Minute {
		t.Fatalf("state %s, last seen %v", d.State, d.LastSeen)
	}
	// A lane of an epoch that the hello did not name has no place in the order.
	l.Say(&pb.Frame{Body: &pb.Frame_Latest{Latest: &pb.Latest{Epoch: "E9"}}})
	l.Say(&pb.Frame{Body: &pb.Frame_Report{Report: &pb.NodeReport{OutboxRecords: 3, OutboxBytes: 300, OutboxDropped: 4, LastSeq: 10, ClockUs: time.Now().UnixMicro(), Seen: []*pb.Seen{{Uid: ref.UID, SeenUs: time.Now().UnixMicro()}}}}})
	node := &models.Node{Metadata: models.ObjectMeta{Name: "n1", CreationTimestamp: new(time.Now())}}
	h.until("the report", func() bool { return h.sessions.NodeStatus(node).Outbox != nil })
	s := h.sessions.NodeStatus(node)
	if o := s.Outbox; o.Dropped != 4 || o.AckedSeq != 7 || o.Epoch != "E1" || s.NodeInfo.Architecture != "riscv64" || s.CertificateExpires == nil {
		t.Fatalf("%+v %+v", o, s)
	}
	// The same again after a reconnect is recognised.
	l.Drop()
	again := e.Connect(t, e.Hello("E1"))
	if a := again.Welcome.Acks[0]; a.Epoch != "E1" || a.Seq != 2 {
		t.Fatalf("%v", a)
	}
	again.Say(batch("E1", sample(ref, 1, 1), sample(ref, 2, 2), sample(ref, 4, 4)))
	again.Acked("E1", 4)
	n := 0
	err := h.store.Samples(t.Context(), ref.UID, "temperature", 0, time.Now().Add(time.Hour).UnixMicro(), func(store.Sample) error { n++; return nil })
	if err != nil || n != 3 {
		t.Fatalf("%d samples, %v", n, err)
	}
}

// TestEdgeThatCannotStore: the node says so for as long as it is so.
func TestEdgeThatCannotStore(t *testing.T) {
	h := start(t)
	e := h.edge("n1")
	h.device("b1", "n1")
	l := e.Connect(t, e.Hello("E1"))
	l.FullSync()
	node := &models.Node{Metadata: models.ObjectMeta{Name: "n1", CreationTimestamp: new(time.Now())}}
	condition := func() (c models.Condition) {
		for _, c := range h.sessions.NodeStatus(node).Conditions {
			if c.Type == "DiskReady" {
				return c
			}
		}
		return c
	}
	report := func(failing string) {
		l.Say(&pb.Frame{Body: &pb.Frame_Report{Report: &pb.NodeReport{LastSeq: 1, Failing: failing}}})
	}
	report("")
	h.until("the report", func() bool { return h.sessions.NodeStatus(node).Outbox != nil })
	if c := condition(); c.Type != "" {
		t.Errorf("nobody asked: %+v", c)
	}
	report("the disk is full")
	h.until("it is told", func() bool { return condition().Status == "False" })
	if c := condition(); c.Reason != "CannotStore" || !strings.Contains(c.Message, "the disk is full") {
		t.Errorf("%+v", c)
	}
	since := condition().LastTransitionTime
	report("the disk is full")
	report("I/O error")
	h.until("its cause has changed", func() bool { return strings.Contains(condition().Message, "I/O error") })
	if !condition().LastTransitionTime.Equal(since) {
		t.Error("it is as long ago as it was")
	}
	report("")
	h.until("it is over", func() bool { return condition().Status == "True" })
}

// TestIngestThatWaitsHoldsUpNothingElse has a store that does not take samples.
func TestIngestThatWaitsHoldsUpNothingElse(t *testing.T) {
	h := start(t)
	e := h.edge("n1")
	ref := h.device("b1", "n1")
	l := e.Connect(t, e.Hello("E1"))
	l.FullSync()
	held := make(chan struct{})
	release := sync.OnceFunc(func() { close(held) })
	defer release()
	h.store.Fault(func(step string) error {
		if step == "Ingest" {
			<-held
		}
		return nil
	})
	record := sample(ref, 1, 1)
	for seq := uint64(1); seq <= 2000; seq++ { // far more than ingest's queue holds of one node
		l.Say(batch("E1", &pb.Numbered{Seq: seq, Record: record.Record}))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := l.Ping(ctx); err != nil {
		t.Fatalf("no pong: %v", err)
	}
	l.Say(&pb.Frame{Body: &pb.Frame_Latest{Latest: &pb.Latest{Epoch: "E1", Twins: []*pb.LatestTwin{{Device: &pb.DeviceRef{Uid: ref.UID, Assignment: ref.Assignment}, Full: true, Seq: 3000, State: "online"}}}}})
	h.until("the latest lane", func() bool {
		d, _ := h.twins.Twin(t.Context(), "default", "b1")
		return d.State == models.StateOnline
	})
	release()
	l.Acked("E1", 2000)
}

func TestIngestThatFailsEndsTheSession(t *testing.T) {
	h := start(t)
	e := h.edge("n1")
	ref := h.device("b1", "n1")
	l := e.Connect(t, e.Hello("E1"))
	l.Say(batch("E1", sample(ref, 1, 1)))
	l.Acked("E1", 1)
	// Somebody else takes this node's log in.
	if err := h.store.Ingest(t.Context(), []store.Batch{{NodeUID: e.UID, Epoch: "E1", After: 1, Acked: 50, Received: time.Now()}}); err != nil {
		t.Fatal(err)
	}
	l.Say(batch("E1", sample(ref, 2, 2)))
	l.Ended()
	l = e.Connect(t, e.Hello("E1"))
	if got := l.Welcome.Acks[0].Seq; got != 50 {
		t.Fatalf("acked %d", got)
	}
	l.Say(batch("E1", sample(ref, 51, 1)))
	l.Acked("E1", 51)
}

func TestDuplicateIdentity(t *testing.T) {
	h := start(t)
	e := h.edge("n1")
	l := e.Connect(t, e.Hello("E1"))
	l.FullSync()
	twice, f := e.Clone().Greet(t, e.Hello("E2"))
	if f.GetGoodbye().GetReason() != edgelink.GoodbyeDuplicateIdentity {
		t.Fatalf("%v", f)
	}
	twice.Drop()
	if got := h.condition("n1", "IdentityUnique"); got != "False DuplicateIdentity" {
		t.Errorf("condition %q", got)
	}
	if l.Quiet(20 * time.Millisecond); h.condition("n1", "Ready") != "True Connected" {
		t.Error("the first one suffers")
	}
	// The same edge again takes its place at once.
	began := time.Now()
	again := e.Connect(t, e.Hello("E1"))
	if took := time.Since(began); took >= 2*time.Second { // as long as a dead rival is waited for
		t.Errorf("it took %s", took)
	}
	l.Ended()
	again.FullSync()
	// A restarted one, too, when the former has closed.
	again.Drop()
	e.Connect(t, e.Hello("E3")).FullSync()
	h.ahead.Add(int64(time.Hour))
	if got := h.condition("n1", "IdentityUnique"); got != "" {
		t.Errorf("after an hour without a second one %q", got)
	}
}

func TestCopiesOfARunningMachine(t *testing.T) {
	h := start(t)
	e := h.edge("n1")
	for range 6 { // they take each other's place again and again
		e.Connect(t, e.Hello("E1"))
	}
	if got := h.condition("n1", "IdentityUnique"); got != "False DuplicateIdentity" {
		t.Errorf("condition %q", got)
	}
}

func TestDeadRivalIsReplaced(t *testing.T) {
	h := start(t)
	e := h.edge("n1")
	proxy := faultproxy.New(t, h.addr)
	through := e.Clone()
	through.URL = "https://" + proxy.Addr()
	through.Connect(t, e.Hello("E1")).FullSync()
	proxy.Set(faultproxy.Blackhole) // it has lost its power
	began := time.Now()
	e.Connect(t, e.Hello("E2")).FullSync()
	if took := time.Since(began); took > 15*time.Second { // without a question to the rival it is more than 30
		t.Errorf("it took %s", took)
	}
	if got := h.condition("n1", "IdentityUnique"); got != "" {
		t.Errorf("condition %q", got)
	}
}

// TestManyAtOnce has a node's sessions come all at the same time: in the end
// there is one.
func TestManyAtOnce(t *testing.T) {
	h := start(t)
	e := h.edge("n1")
	var wait sync.WaitGroup
	for range 10 {
		wait.Go(func() {
			l, err := e.Dial(t)
			if err != nil {
				t.Error(err)
				return
			}
			_ = l.Send(t.Context(), &pb.Frame{Body: &pb.Frame_Hello{Hello: e.Hello("E1")}}) // it may be replaced already
		})
	}
	wait.Wait()
	var since time.Time
	h.until("one that stays", func() bool { // the others have had their turn, and are over
		if h.sessions.Connected() != 1 {
			since = time.Time{}
			return false
		}
		if since.IsZero() {
			since = time.Now()
		}
		return time.Since(since) > 500*time.Millisecond
	})
	l := e.Connect(t, e.Hello("E1"))
	l.FullSync()
	l.Quiet(20 * time.Millisecond)
}

func TestMalformedFramesEndTheSessionOnly(t *testing.T) {
	h := start(t)
	e := h.edge("n1")
	ref := h.device("b1", "n1")
	l := e.Connect(t, e.Hello("E1"))
	l.Say(batch("E7", sample(ref, 1, 1)))
	if got := l.Ended(); got != edgelink.GoodbyeProtocolError {
		t.Errorf("goodbye %q", got)
	}
	// Nils wherever protobuf allows them, and an unreadable record.
	l = e.Connect(t, e.Hello("E1"))
	for _, f := range []*pb.Frame{{}, {Body: &pb.Frame_Latest{Latest: &pb.Latest{Epoch: "E1", Twins: []*pb.LatestTwin{{}, {Device: &pb.DeviceRef{}}}}}},
		{Body: &pb.Frame_Report{Report: &pb.NodeReport{Seen: []*pb.Seen{{}}}}}, {Body: &pb.Frame_SyncDone{SyncDone: &pb.SyncDone{}}},
		{Body: &pb.Frame_Ack{Ack: &pb.Ack{}}}, {Body: &pb.Frame_Welcome{Welcome: &pb.Welcome{}}}, batch("E1"), batch("E1", &pb.Numbered{}),
		batch("E1", &pb.Numbered{Seq: 1, Record: []byte("garbage")})} {
		l.Say(f)
	}
	l.Acked("E1", 1)
	l.Drop()
	if got := e.Connect(t, e.Hello("E1")); got.Welcome.Acks[0].Seq != 1 {
		t.Error(got.Welcome)
	}
}

func TestKick(t *testing.T) {
	h := start(t)
	e := h.edge("n1")
	l := e.Connect(t, e.Hello("E1"))
	l.FullSync()
	h.ids.DeleteNode("n1")
	h.sessions.Kick("n1", edgelink.GoodbyeRevoked, "the node was deleted")
	if got := l.Ended(); got != edgelink.GoodbyeRevoked {
		t.Errorf("goodbye %q", got)
	}
	h.until("forgotten", func() bool { return h.condition("n1", "Ready") == "Unknown NeverConnected" })
	if _, err := e.Dial(t); !isRefused(err, edgelink.RevokedStatus) {
		t.Errorf("a deleted node links: %v", err)
	}
	h.sessions.Kick("n1", edgelink.GoodbyeRevoked, "again")
}

// TestDeletedBeforeItsHello deletes a node when its link is open but nobody
// knows it as a session yet.
func TestDeletedBeforeItsHello(t *testing.T) {
	h := start(t)
	e := h.edge("n1")
	l, err := e.Dial(t)
	if err != nil {
		t.Fatal(err)
	}
	h.ids.DeleteNode("n1")
	h.sessions.Kick("n1", edgelink.GoodbyeRevoked, "the node was deleted")
	l.Say(&pb.Frame{Body: &pb.Frame_Hello{Hello: e.Hello("E1")}})
	if got := l.Ended(); got != edgelink.GoodbyeRevoked {
		t.Errorf("goodbye %q", got)
	}
}

func TestJoinedAgainElsewhere(t *testing.T) {
	h := start(t)
	old := h.edge("n1")
	l := old.Connect(t, old.Hello("E1"))
	l.FullSync()
	fresh := h.edge("n1") // new hardware, while the old still runs
	hello := fresh.Hello("N1")
	fresh.Connect(t, hello).FullSync()
	if got := l.Ended(); got != edgelink.GoodbyeRevoked {
		t.Errorf("the old one's goodbye: %q", got)
	}
	if _, err := old.Dial(t); !isRefused(err, edgelink.RevokedStatus) {
		t.Errorf("the old one links: %v", err)
	}
	if got := h.condition("n1", "IdentityUnique"); got != "" {
		t.Errorf("condition %q", got)
	}
}

func TestClose(t *testing.T) {
	h := start(t)
	var links []*sessionstest.Link
	for i := range 5 {
		e := h.edge(fmt.Sprintf("n%d", i))
		l := e.Connect(t, e.Hello("E1"))
		l.FullSync()
		links = append(links, l)
	}
	silent := h.edge("silent")
	mute, err := silent.Dial(t) // never says hello
	if err != nil {
		t.Fatal(err)
	}
	h.until("all are there", func() bool { return h.sessions.Connected() == 5 })
	began := time.Now()
	closed := make(chan struct{})
	go func() { h.stop(); close(closed) }()
	for _, l := range links {
		if got := l.Ended(); got != edgelink.GoodbyeShutdown {
			t.Errorf("goodbye %q", got)
		}
	}
	<-closed
	mute.Ended()
	if took := time.Since(began); took >= 10*time.Second { // then the one that never says hello is given up
		t.Errorf("it took %s", took)
	}
	if h.sessions.Connected() != 0 {
		t.Error("sessions are left")
	}
}

func TestLineageFindings(t *testing.T) {
	h := start(t)
	e := h.edge("n1")
	ref := h.device("b1", "n1")
	l := e.Connect(t, e.Hello("E1"))
	_, full := l.FullSync()
	l.Say(batch("E1", sample(ref, 1, 1), sample(ref, 9, 2)))
	l.Acked("E1", 9)
	if got := h.condition("n1", "LogContinuous"); got != "True Continuous" {
		t.Fatal(got)
	}
	l.Drop()
	// It was told of more than is here.
	hello := e.Hello("E1")
	hello.Lineage, hello.Held = h.lineage, full.Keep
	hello.Epochs[0].Acked, hello.Epochs[0].Last = 20, 20
	for range 2 { // told each time, noted once
		l = e.Connect(t, hello)
		if got := h.condition("n1", "LogContinuous"); got != "False HubRestored" {
			t.Fatal(got)
		}
		if items, _ := l.FullSync(); len(items) != 2 {
			t.Fatalf("a restored hub trusts revisions: %s", names(items))
		}
		l.Drop()
	}
	var gaps []store.Gap
	if err := h.store.Gaps(t.Context(), e.UID, func(g store.Gap) error { gaps = append(gaps, g); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(gaps) != 1 || gaps[0].Reason != edgelink.GapHubRestored || gaps[0].FirstSeq != 10 || gaps[0].LastSeq != 20 {
		t.Fatalf("%+v", gaps)
	}
	// After a restart of the hub the condition is still there, for a while.
	l = e.Connect(t, e.Hello("E1"))
	l.Say(batch("E1", sample(ref, 21, 1)))
	l.Acked("E1", 21)
	h.stop()
	h.open()
	e.URL = h.url
	l = e.Connect(t, e.Hello("E1"))
	if got := h.condition("n1", "LogContinuous"); got != "False HubRestored" {
		t.Fatal(got)
	}
	l.Drop()
	h.ahead.Store(int64(30 * 24 * time.Hour))
	if err := e.Renew(nil); err != nil {
		t.Fatal(err)
	}
	e.Connect(t, e.Hello("E1"))
	if got := h.condition("n1", "LogContinuous"); got != "True Continuous" {
		t.Fatal(got)
	}
}

func TestStoreThatIsAwayAtTheHello(t *testing.T) {
	h := start(t)
	e := h.edge("n1")
	h.store.Fault(func(step string) error {
		if step == "StartEpoch" {
			return errors.New("connection refused")
		}
		return nil
	})
	l, f := e.Greet(t, e.Hello("E1"))
	if f.GetGoodbye().GetReason() != edgelink.GoodbyeShutdown || f.GetGoodbye().RetryAfterS == 0 {
		t.Fatalf("%v", f)
	}
	l.Drop()
	h.store.Fault(nil)
	e.Connect(t, e.Hello("E1")).FullSync()
}
