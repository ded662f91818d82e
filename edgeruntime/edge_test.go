package edgeruntime

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"go.uber.org/goleak"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/store"
	"github.com/whimbrel-edge/whimbrel/internal/filelock"
	"github.com/whimbrel-edge/whimbrel/internal/pki"
	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
	"github.com/whimbrel-edge/whimbrel/twin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 60 * time.Second

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); {
		time.Sleep(5 * time.Millisecond) //sleep: polls real sockets
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// memory is a driver whose devices are values in memory, that outlive the edge.
type memory struct {
	mu     sync.Mutex
	values map[string]models.Value // by property
	writes int
}

func newMemory() *memory {
	return &memory{values: map[string]models.Value{"temperature": models.Float(71.5), "setpoint": models.Float(20)}}
}

func (m *memory) Info() mappers.Info { return mappers.Info{Name: "memory"} }

func (m *memory) Open(cfg mappers.DeviceConfig) (mappers.Device, error) {
	return &memoryDevice{m, cfg.Points}, nil
}

func (m *memory) set(property string, v models.Value) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.values[property] = v
}

type memoryDevice struct {
	*memory
	points []mappers.Point
}

func (d *memoryDevice) Read(_ context.Context, points []int, out []mappers.Result) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, p := range points {
		out[i] = mappers.Result{Value: d.values[d.points[p].Property]}
	}
	return nil
}

func (d *memoryDevice) Write(_ context.Context, writes []mappers.WriteRequest) []error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, w := range writes {
		d.values[d.points[w.Point].Property] = w.Value
		d.writes++
	}
	return nil
}

func (d *memoryDevice) Close() error { return nil }

func boiler(revision uint64) []*pb.Item {
	return []*pb.Item{
		{Kind: "DeviceModel", Namespace: "default", Name: "boiler", Uid: "m", Revision: revision, Json: []byte(`{"spec":{"protocol":"memory","defaults":{"every":"50ms"},"properties":[
			{"name":"temperature","type":"float","access":"Read"},{"name":"setpoint","type":"float","access":"ReadWrite","minimum":0,"maximum":95}]}}`)},
		{Kind: "Device", Namespace: "default", Name: "boiler-1", Uid: "d", Revision: revision, Assignment: 1, Json: []byte(`{"spec":{"model":"boiler"}}`)},
		{Kind: "Device", Namespace: "plant", Name: "boiler-2", Uid: "e", Revision: revision, Assignment: 1, Json: []byte(`{"spec":{"model":"boiler"}}`)},
		{Kind: "DeviceModel", Namespace: "plant", Name: "boiler", Uid: "n", Revision: revision, Json: []byte(`{"spec":{"protocol":"memory","properties":[{"name":"temperature","type":"float","access":"Read"}]}}`)},
	}
}

// joinedDir makes a data directory as an edge leaves it that has joined a hub
// and knows its devices.
func joinedDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	ca, err := pki.NewCA(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, err := pki.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	request, err := pki.NewCSR(key, "gateway-1")
	if err != nil {
		t.Fatal(err)
	}
	csr, err := pki.CheckCSR(request, "gateway-1")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.SignNode(csr, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "pki"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := pki.WriteIdentity(filepath.Join(dir, "pki", "identity.pem"), pki.EncodeCerts(cert), key); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "pki", "ca.pem"), pki.EncodeCerts(ca.Cert), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), filepath.Join(dir, "edge.db"), pki.SealKey{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.ApplySync(t.Context(), &pb.Sync{Full: true, Items: boiler(1)}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// run runs an edge until stop, which returns what Run returned.
func run(t *testing.T, cfg Config) (e *Edge, stop func() error) {
	t.Helper()
	cfg.Log = slog.New(slog.DiscardHandler)
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	var once sync.Once
	var result error
	stop = func() error {
		once.Do(func() { http.DefaultClient.CloseIdleConnections(); cancel(); result = <-done })
		return result
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	select {
	case <-e.Ready():
	case <-time.After(patience):
		t.Fatal("not ready")
	}
	return e, stop
}

func readJSON(t *testing.T, path string, v any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, v)
	}
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%s: %v, %v", path, info.Mode(), err)
	}
}

// rest asks the local API as a client with the context file would.
func rest(t *testing.T, dir, method, path, body string) (int, string) {
	t.Helper()
	var c struct{ Server, Token string }
	readJSON(t, filepath.Join(dir, "context.json"), &c)
	r, err := http.NewRequestWithContext(t.Context(), method, c.Server+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+c.Token)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// inbox collects what an MQTT client gets.
type inbox struct {
	mu       sync.Mutex
	messages map[string][]string
}

func (i *inbox) last(topic string) string {
	i.mu.Lock()
	defer i.mu.Unlock()
	if m := i.messages[topic]; len(m) > 0 {
		return m[len(m)-1]
	}
	return ""
}

func (i *inbox) all(topic string) string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return strings.Join(i.messages[topic], " ")
}

// connect connects an MQTT client that reads devices/#, or returns the error.
func connect(t *testing.T, addr, username, password string) (paho.Client, *inbox, error) {
	t.Helper()
	in := &inbox{messages: map[string][]string{}}
	c := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + addr).SetUsername(username).SetPassword(password).
		SetAutoReconnect(false).SetConnectTimeout(5 * time.Second).SetClientID(strings.ReplaceAll(t.Name(), "/", "-")))
	if token := c.Connect(); !token.WaitTimeout(patience) || token.Error() != nil {
		return nil, nil, errors.Join(errors.New("not connected"), token.Error())
	}
	t.Cleanup(func() { c.Disconnect(50) })
	token := c.Subscribe("devices/#", 1, func(_ paho.Client, m paho.Message) {
		in.mu.Lock()
		defer in.mu.Unlock()
		in.messages[m.Topic()] = append(in.messages[m.Topic()], string(m.Payload()))
	})
	if !token.WaitTimeout(patience) || token.Error() != nil {
		t.Fatal(token.Error())
	}
	return c, in, nil
}

func TestWithoutACloud(t *testing.T) {
	dir := joinedDir(t)
	drivers := map[string]mappers.Driver{"memory": newMemory()}
	e, stop := run(t, Config{Node: "gateway-1", HubURL: "https://127.0.0.1:1", DataDir: dir, MQTTAddr: "127.0.0.1:0", APIAddr: "127.0.0.1:0", Drivers: drivers, Version: "1.2.3"})

	var admin struct{ URL, Username, Password string }
	readJSON(t, filepath.Join(dir, "mqtt.json"), &admin)
	if admin.URL != "mqtt://"+e.MQTTAddr() {
		t.Errorf("mqtt.json names %s", admin.URL)
	}
	if _, _, err := connect(t, e.MQTTAddr(), "", ""); err == nil {
		t.Error("anonymous access although nobody allowed it")
	}
	if _, _, err := connect(t, e.MQTTAddr(), admin.Username, "wrong"); err == nil {
		t.Error("a wrong password is good enough")
	}
	client, in, err := connect(t, e.MQTTAddr(), admin.Username, admin.Password)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the values on MQTT", func() bool {
		return strings.Contains(in.last("devices/boiler-1/properties/temperature"), `"value":71.5,"quality":"good"`) && strings.Contains(in.last("devices/plant.boiler-2/state"), "online")
	})
	client.Publish("devices/boiler-1/desired", 1, false, `{"setpoint":45.5,"$id":"p1"}`)
	eventually(t, "the write on MQTT", func() bool { return strings.Contains(in.all("devices/boiler-1/writes"), "applied") })
	eventually(t, "the result on MQTT", func() bool { return in.last("devices/boiler-1/desired/result") != "" }) // after the write, or before
	if got := in.last("devices/boiler-1/desired/result"); got != `{"$id":"p1","desiredVersion":1}` {
		t.Errorf("result %s", got)
	}
	client.Publish("devices/boiler-1/desired", 1, false, `{"setpoint":96,"$id":"p2"}`)
	eventually(t, "the problem on MQTT", func() bool { return strings.Contains(in.last("devices/boiler-1/desired/result"), "p2") })
	if got := in.last("devices/boiler-1/desired/result"); !strings.Contains(got, `"status":422`) || !strings.Contains(got, `"/setpoint"`) {
		t.Errorf("problem %s", got)
	}

	status, text := rest(t, dir, "GET", "/v1/devices", "")
	if status != 200 || !strings.Contains(text, `"name":"boiler-1"`) || !strings.Contains(text, `"namespace":"plant"`) {
		t.Errorf("list: %d %s", status, text)
	}
	status, text = rest(t, dir, "PATCH", "/v1/devices/boiler-1/twin/desired?wait=5s", `{"setpoint": 60}`)
	if status != 200 || !strings.Contains(text, `"state":"applied"`) {
		t.Errorf("write: %d %s", status, text)
	}
	if status, text = rest(t, dir, "PATCH", "/v1/devices/plant.boiler-2/twin/desired", `{"temperature": 60}`); status != 422 {
		t.Errorf("write to what is read-only: %d %s", status, text)
	}
	_, text = rest(t, dir, "GET", "/metrics", "")
	for _, name := range []string{"whimbrel_edge_outbox_records", "whimbrel_edge_outbox_bytes", `whimbrel_edge_dropped_total{reason="outbox-full"} 0`, "whimbrel_link_lag_seconds",
		`whimbrel_build_info{version="1.2.3"} 1`, `whimbrel_mapper_requests_total{protocol="memory",result="ok"}`, "whimbrel_mapper_cycle_overruns_total"} {
		if !strings.Contains(text, name) {
			t.Errorf("/metrics lacks %s", name)
		}
	}
	if _, err := New(Config{DataDir: dir, Drivers: drivers}); !errors.Is(err, filelock.ErrTaken) {
		t.Errorf("a second edge in the same directory: %v", err)
	}
	mqttAddr, apiAddr := e.MQTTAddr(), e.APIAddr()
	client.Disconnect(50)
	if err := stop(); err != nil {
		t.Fatal(err)
	}

	// --data alone is enough, and everything is there again.
	memory := newMemory()
	memory.set("setpoint", models.Float(60))
	e, stop = run(t, Config{DataDir: dir, Drivers: map[string]mappers.Driver{"memory": memory}})
	if e.MQTTAddr() != mqttAddr || e.APIAddr() != apiAddr {
		t.Errorf("at %s and %s, before at %s and %s", e.MQTTAddr(), e.APIAddr(), mqttAddr, apiAddr)
	}
	var doc twin.Document
	eventually(t, "the twin", func() bool {
		_, text := rest(t, dir, "GET", "/v1/devices/boiler-1/twin", "")
		return json.Unmarshal([]byte(text), &doc) == nil && doc.State == models.StateOnline
	})
	if p := doc.Properties["setpoint"]; p.Desired == nil || p.Desired.Value != models.Int(60) || p.Write.State != twin.Applied {
		t.Errorf("setpoint %+v", p)
	}
	if memory.writes != 0 {
		t.Errorf("written %d times by a restart", memory.writes)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}

	// The address that any port had become may be taken; then it is another.
	taken, err := net.Listen("tcp", apiAddr)
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	e, _ = run(t, Config{DataDir: dir, Drivers: drivers, MQTTAnonymous: true})
	if e.APIAddr() == apiAddr {
		t.Error("two servers at one address")
	}
	_, in, err = connect(t, e.MQTTAddr(), "", "")
	if err != nil {
		t.Fatalf("anonymous access: %v", err)
	}
	eventually(t, "values for the anonymous", func() bool { return in.last("devices/boiler-1/state") != "" })
}

func TestFirstStartNeedsAHub(t *testing.T) {
	for name, cfg := range map[string]Config{
		"data directory": {Node: "n", HubURL: "https://h:1"},
		"join token":     {Node: "n", HubURL: "https://h:1", DataDir: t.TempDir()},
		"link URL":       {Node: "n", DataDir: t.TempDir()},
	} {
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	dir := t.TempDir()
	if joined, err := Joined(dir); joined || err != nil {
		t.Errorf("joined: %v, %v", joined, err)
	}
	if joined, err := Joined(joinedDir(t)); !joined || err != nil {
		t.Errorf("joined: %v, %v", joined, err)
	}
}

func TestGivenUp(t *testing.T) {
	e, err := New(Config{Node: "gateway-1", HubURL: "https://127.0.0.1:1", DataDir: joinedDir(t), MQTTAddr: "127.0.0.1:0", APIAddr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	addr := e.APIAddr()
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatalf("the address is still taken: %v", err)
	}
	_ = ln.Close()
}

// smallHub admits one node, sends it one Sync, and commits what comes.
type smallHub struct {
	ca   *pki.CA
	addr string

	mu     sync.Mutex
	sync   *pb.Sync
	values map[string][]string // by property
	writes []string
	locals []string
	latest map[string]*pb.LatestTwin // by uid, the last full one
	done   int
}

func startHub(t *testing.T) *smallHub {
	t.Helper()
	ca, err := pki.NewCA(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cert, err := pki.NewServerCert(ca, []string{"127.0.0.1"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &smallHub{ca: ca, addr: ln.Addr().String(), values: map[string][]string{}, latest: map[string]*pb.LatestTwin{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /join", func(w http.ResponseWriter, r *http.Request) {
		var req edgelink.JoinRequest
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
			w.WriteHeader(400)
			return
		}
		csr, err := pki.CheckCSR([]byte(req.CSR), req.Node)
		if err != nil {
			w.WriteHeader(403)
			return
		}
		node, err := ca.SignNode(csr, time.Hour, time.Now())
		if err != nil {
			w.WriteHeader(500)
			return
		}
		_ = json.NewEncoder(w).Encode(edgelink.JoinResponse{Certificate: string(pki.EncodeCerts(node)), CA: string(pki.EncodeCerts(ca.Cert)), NodeUID: "n", Lineage: "l"})
	})
	mux.HandleFunc("GET /link", func(w http.ResponseWriter, r *http.Request) {
		conn, err := edgelink.Accept(w, r)
		if err != nil {
			return
		}
		defer conn.CloseNow()
		h.serve(context.WithoutCancel(r.Context()), conn)
	})
	srv := &http.Server{Handler: mux, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(tls.NewListener(ln, pki.HubTLS(cert, func() []*x509.Certificate { return []*x509.Certificate{ca.Cert} }, time.Now)))
	}()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return h
}

func (h *smallHub) serve(ctx context.Context, conn *edgelink.Conn) {
	for {
		f, err := conn.Recv(ctx)
		if err != nil {
			return
		}
		h.mu.Lock()
		switch body := f.Body.(type) {
		case *pb.Frame_Hello:
			_ = conn.Send(ctx, &pb.Frame{Re: f.Id, Body: &pb.Frame_Welcome{Welcome: &pb.Welcome{Capability: 1, Lineage: "l", WindowBytes: 1 << 20}}})
			_ = conn.Send(ctx, &pb.Frame{Id: 1, Body: &pb.Frame_Sync{Sync: h.sync}})
		case *pb.Frame_Batch:
			for _, n := range body.Batch.Records {
				h.take(n.Record)
				_ = conn.Send(ctx, &pb.Frame{Body: &pb.Frame_Ack{Ack: &pb.Ack{Acks: []*pb.EpochAck{{Epoch: body.Batch.Epoch, Seq: n.Seq}}}}})
			}
		case *pb.Frame_Latest:
			for _, t := range body.Latest.Twins {
				if t.Full {
					h.latest[t.Device.Uid] = t
				}
			}
		case *pb.Frame_SyncDone:
			h.done++
		}
		h.mu.Unlock()
	}
}

func (h *smallHub) take(data []byte) {
	rec, err := edgelink.DecodeRecord(data)
	if err != nil {
		return
	}
	for _, s := range rec.Series {
		for i := range s.Len() {
			h.values[s.Property] = append(h.values[s.Property], s.At(i).Value.String())
		}
	}
	for _, w := range rec.Writes {
		h.writes = append(h.writes, w.ID+" "+w.State)
	}
	for _, l := range rec.Locals {
		h.locals = append(h.locals, fmt.Sprintf("%s=%s", l.Property, l.Value))
	}
}

func TestWithAHub(t *testing.T) {
	h := startHub(t)
	h.sync = &pb.Sync{Id: 1, Full: true, Items: append(boiler(1), &pb.Item{Kind: "Desired", Namespace: "default", Name: "boiler-1", Uid: "d", Revision: 2,
		Json: []byte(`{"version":1,"properties":{"setpoint":{"value":50,"id":"W1","version":1,"time":"2026-01-01T00:00:00Z","by":"admin"}}}`)})}
	memory := newMemory()
	dir := t.TempDir()
	run(t, Config{Node: "gateway-1", HubURL: "https://" + h.addr, Token: pki.NewJoinToken(h.ca.Hash()).Encode(), DataDir: dir, MQTTAddr: "127.0.0.1:0", APIAddr: "127.0.0.1:0",
		Drivers: map[string]mappers.Driver{"memory": memory}})
	is := func(f func() bool) func() bool {
		return func() bool {
			h.mu.Lock()
			defer h.mu.Unlock()
			return f()
		}
	}
	eventually(t, "the history of a device that the hub wants", is(func() bool { return len(h.values["temperature"]) > 0 }))
	eventually(t, "the fate of a write", is(func() bool { return strings.Contains(strings.Join(h.writes, ","), "W1 pending,W1 applied") }))
	eventually(t, "the latest lane", is(func() bool { return h.latest["d"] != nil && h.latest["e"] != nil && h.done == 1 }))
	memory.mu.Lock()
	if v := memory.values["setpoint"]; v != models.Float(50) {
		t.Errorf("the device has %s", v)
	}
	memory.mu.Unlock()
	if status, text := rest(t, dir, "PATCH", "/v1/devices/boiler-1/twin/desired?wait=5s", `{"setpoint": 70}`); status != 200 {
		t.Errorf("local write: %d %s", status, text)
	}
	eventually(t, "the local write at the hub", is(func() bool { return len(h.locals) == 1 && h.locals[0] == "setpoint=70" }))
}
