package client_test

import (
	"context"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/whimbrel-edge/whimbrel/cloudapi"
	"github.com/whimbrel-edge/whimbrel/cloudapi/client"
	"github.com/whimbrel-edge/whimbrel/cloudapi/cloudapitest"
	"github.com/whimbrel-edge/whimbrel/internal/faultproxy"
	"github.com/whimbrel-edge/whimbrel/models"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func decode(t *testing.T, kind, text string) models.Object {
	t.Helper()
	o, err := models.DecodeKind(kind, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func model(t *testing.T) models.Object {
	return decode(t, "DeviceModel", "metadata: {name: boiler}\nspec: {protocol: modbus, properties: ["+
		"{name: temperature, type: float}, {name: setpoint, type: float, access: ReadWrite, maximum: 95}, {name: serial, type: int, access: ReadWrite}]}")
}

func device(t *testing.T, name string) models.Object {
	return decode(t, "Device", "metadata: {name: "+name+", labels: {area: hall-a}}\nspec: {model: boiler, node: gw1}")
}

func newClient(t *testing.T, url, token string) *client.Client {
	t.Helper()
	c, err := client.New(url, token, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// boilers is a served hub with a model and devices, and a client of it.
func boilers(t *testing.T, names ...string) (*cloudapitest.Hub, *client.Client, string) {
	t.Helper()
	hub := cloudapitest.New()
	for _, o := range append([]models.Object{model(t)}, devices(t, names)...) {
		if err := hub.Put(o); err != nil {
			t.Fatal(err)
		}
	}
	url := cloudapitest.Serve(t, hub)
	return hub, newClient(t, url, cloudapitest.AdminToken), url
}

func devices(t *testing.T, names []string) (out []models.Object) {
	for _, n := range names {
		out = append(out, device(t, n))
	}
	return out
}

func wantKind(t *testing.T, err error, kind models.ErrorKind) *models.Error {
	t.Helper()
	var e *models.Error
	if !errors.As(err, &e) || e.Kind != kind {
		t.Fatalf("got error %v (%s), want %s", err, models.KindOf(err), kind)
	}
	return e
}

func TestObjects(t *testing.T) {
	_, c, _ := boilers(t)
	ctx := t.Context()
	stored, created, err := c.Apply(ctx, device(t, "b-1"))
	if err != nil || !created || stored.Meta().UID == "" {
		t.Fatalf("apply: %v %v %v", stored, created, err)
	}
	if _, created, err = c.Apply(ctx, stored, client.IfMatch(stored.Meta().ResourceVersion)); err != nil || created {
		t.Fatalf("apply again: %v %v", created, err)
	}
	_, _, err = c.Apply(ctx, stored, client.CreateOnly())
	wantKind(t, err, models.KindPrecondition)
	_, err = c.Create(ctx, device(t, "b-1"))
	wantKind(t, err, models.KindConflict)
	for range 2 {
		if _, err = c.Create(ctx, device(t, "b-2"), client.IdempotencyKey("k")); err != nil {
			t.Fatal(err)
		}
	}
	key := models.Key{Kind: "Device", Name: "b-1"}
	patched, err := c.Patch(ctx, key, []byte("spec: {locked: true}"))
	if err != nil || !patched.(*models.Device).Spec.Locked {
		t.Fatalf("patch: %v %v", patched, err)
	}
	_, err = c.Patch(ctx, key, []byte("{}"), client.IfMatch(`"1"`))
	wantKind(t, err, models.KindPrecondition)
	got, err := c.Get(ctx, key)
	if err != nil || got.(*models.Device).Status == nil || got.Meta().ResourceVersion != patched.Meta().ResourceVersion {
		t.Fatalf("get: %+v %v", got, err)
	}
	_, err = c.Get(ctx, models.Key{Kind: "device", Namespace: "plant", Name: "b-1"})
	wantKind(t, err, models.KindNotFound)
	page, err := c.List(ctx, "devices", client.ListOptions{Limit: 1, LabelSelector: "area=hall-a"})
	if err != nil || len(page.Items) != 1 || page.Continue == "" || page.ResourceVersion == "" {
		t.Fatalf("list: %+v %v", page, err)
	}
	page, err = c.List(ctx, "devices", client.ListOptions{Limit: 5, Continue: page.Continue})
	if err != nil || len(page.Items) != 1 || page.Items[0].Meta().Name != "b-2" || page.Continue != "" {
		t.Fatalf("second page: %+v %v", page, err)
	}
	_, err = c.Delete(ctx, models.Key{Kind: "DeviceModel", Name: "boiler"})
	wantKind(t, err, models.KindConflict)
	if gone, err := c.Delete(ctx, key); err != nil || gone.Meta().Name != "b-1" {
		t.Fatalf("delete: %v %v", gone, err)
	}
	bad := device(t, "b-3").(*models.Device)
	bad.Spec.Model = "nix"
	_, _, err = c.Apply(ctx, bad)
	if e := wantKind(t, err, models.KindInvalid); len(e.Fields) != 1 || e.Fields[0].Pointer != "/spec/model" || e.Detail != "" {
		t.Fatalf("the error came back as %#v", e)
	}
	_, err = c.Get(ctx, models.Key{Kind: "Spoon", Name: "x"})
	wantKind(t, err, models.KindInvalid)
}

func TestTwins(t *testing.T) {
	hub, c, _ := boilers(t, "b-1", "b-2")
	ctx := t.Context()
	patch := map[string]models.Value{"setpoint": models.Float(45.5), "serial": models.Uint(1<<64 - 1)}
	doc, err := c.PatchDesired(ctx, "", "b-1", patch, client.DesiredOptions{Wait: 5 * time.Second, Expire: time.Minute, Reason: "frost"})
	if err != nil || doc.Properties["setpoint"].Write.State != "applied" || doc.Properties["serial"].Reported.Value != models.Uint(1<<64-1) ||
		doc.Properties["setpoint"].Desired.Reason != "frost" || doc.Properties["setpoint"].Desired.Expires == nil {
		t.Fatalf("patch: %+v %v", doc, err)
	}
	hub.Behave("default", "b-1", cloudapitest.Refuses)
	doc, err = c.PatchDesired(ctx, "default", "b-1", map[string]models.Value{"setpoint": models.Int(1)}, client.DesiredOptions{Wait: 5 * time.Second})
	wantKind(t, err, models.KindRefused)
	if doc.Properties["setpoint"].Write == nil || doc.Properties["setpoint"].Write.State != "failed" {
		t.Fatalf("the twin beside the error: %+v", doc)
	}
	hub.SetAway("default", "b-1", true)
	_, err = c.PatchDesiredText(ctx, "", "b-1", []byte("setpoint: 2"), client.DesiredOptions{Wait: time.Minute})
	wantKind(t, err, models.KindUnavailable)
	_, err = c.PatchDesiredText(ctx, "", "b-1", []byte("setpoint: 99"), client.DesiredOptions{})
	wantKind(t, err, models.KindInvalid)
	values, tag, err := c.Desired(ctx, "", "b-1")
	if err != nil || values["setpoint"] != models.Int(2) && values["setpoint"] != models.Float(2) || tag != `"3"` {
		t.Fatalf("desired %v %s %v", values, tag, err)
	}
	_, err = c.PatchDesired(ctx, "", "b-1", patch, client.DesiredOptions{}, client.IfMatch(`"1"`))
	wantKind(t, err, models.KindPrecondition)
	if doc, err = c.Twin(ctx, "", "b-2"); err != nil || doc.Device != "b-2" {
		t.Fatalf("twin %+v %v", doc, err)
	}
	docs, next, err := c.Twins(ctx, client.ListOptions{Limit: 1})
	if err != nil || len(docs) != 1 || next == "" {
		t.Fatalf("twins %v %q %v", docs, next, err)
	}
}

func TestTokens(t *testing.T) {
	_, c, url := boilers(t)
	ctx := t.Context()
	join, err := c.CreateJoinToken(ctx, "gw1", 0)
	if err != nil || join.Token == "" || join.Expires == nil || !strings.Contains(join.Command, join.Token) {
		t.Fatalf("join token %+v %v", join, err)
	}
	if _, _, err := c.Apply(ctx, decode(t, "User", "metadata: {name: bob}\nspec: {role: viewer}")); err != nil {
		t.Fatal(err)
	}
	token, err := c.CreateUserToken(ctx, "bob", time.Hour)
	if err != nil || token.Expires == nil {
		t.Fatalf("user token %+v %v", token, err)
	}
	bob := newClient(t, url, token.Token)
	if _, err := bob.List(ctx, "Device", client.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err = bob.Tokens(ctx)
	if e := wantKind(t, err, models.KindForbidden); !strings.Contains(e.Detail, "role admin") {
		t.Fatalf("403: %v", e)
	}
	list, err := c.Tokens(ctx)
	if err != nil || !slices.ContainsFunc(list, func(i client.TokenInfo) bool { return i.ID == token.ID && i.User == "bob" && i.Kind == "user" }) {
		t.Fatalf("tokens %+v %v", list, err)
	}
	if err := c.DeleteToken(ctx, token.ID); err != nil {
		t.Fatal(err)
	}
	_, err = bob.List(ctx, "Device", client.ListOptions{})
	wantKind(t, err, models.KindUnauthorized)
	wantKind(t, c.DeleteToken(ctx, token.ID), models.KindNotFound)
}

var errEnough = errors.New("enough")

// TestWatchResumes cuts the connection under a watch: nothing is missed.
func TestWatchResumes(t *testing.T) {
	hub, _, url := boilers(t, "b-1", "b-2")
	proxy := startProxy(t, url)
	c := newClient(t, "http://"+proxy.Addr(), cloudapitest.AdminToken)
	var seen []string
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err := c.Watch(ctx, "Device", client.ListOptions{}, "", func(ev models.Event) error {
		seen = append(seen, string(ev.Type)+" "+ev.Object.Meta().Name)
		switch seen[len(seen)-1] {
		case "BOOKMARK ":
			cut(proxy)
			if err := hub.Put(device(t, "b-3")); err != nil {
				return err
			}
			if _, err := hub.Delete(t.Context(), models.Key{Kind: "Device", Namespace: "default", Name: "b-1"}, models.WriteOptions{}); err != nil {
				return err
			}
		case "ADDED b-3":
			cut(proxy)
		case "DELETED b-1":
			return errEnough
		}
		return nil
	})
	want := []string{"ADDED b-1", "ADDED b-2", "BOOKMARK ", "ADDED b-3", "DELETED b-1"}
	if !errors.Is(err, errEnough) || !slices.Equal(slices.Compact(seen), want) {
		t.Fatalf("%v; seen %v, want %v", err, seen, want)
	}

	list, err := newClient(t, url, cloudapitest.AdminToken).List(t.Context(), "Device", client.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	hub.Forget()
	wantKind(t, c.Watch(t.Context(), "Device", client.ListOptions{}, list.ResourceVersion, func(models.Event) error { return nil }), models.KindGone)
}

func TestStreamTwinsResumes(t *testing.T) {
	hub, _, url := boilers(t, "b-1", "b-2")
	proxy := startProxy(t, url)
	c := newClient(t, "http://"+proxy.Addr(), cloudapitest.AdminToken)
	report := func(v float64) {
		hub.Report("default", "b-1", "temperature", models.Sample{Value: models.Float(v), Time: time.Now()})
	}
	var seen []client.TwinChange
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err := c.StreamTwins(ctx, client.ListOptions{LabelSelector: "area=hall-a"}, "", func(ch client.TwinChange) error {
		seen = append(seen, ch)
		switch len(seen) {
		case 2:
			cut(proxy)
			report(20)
			report(21)
		case 3:
			if ch.Properties["temperature"].Reported.Value == models.Int(21) {
				return errEnough
			}
		case 4:
			return errEnough
		}
		return nil
	})
	last := seen[len(seen)-1]
	if !errors.Is(err, errEnough) || last.Device != "b-1" || len(last.Properties) != 1 || last.Properties["temperature"].Reported.Value != models.Int(21) || last.Cursor == "" {
		t.Fatalf("%v: %+v", err, seen)
	}
}

func startProxy(t *testing.T, url string) *faultproxy.Proxy {
	t.Helper()
	return faultproxy.New(t, strings.TrimPrefix(url, "http://"))
}

// cut resets every connection there is.
func cut(p *faultproxy.Proxy) {
	p.Set(faultproxy.Cut)
	p.Set(faultproxy.Pass)
}

// TestStreamEnds checks what ends a stream: its context, and what the hub will
// answer again.
func TestStreamEnds(t *testing.T) {
	_, c, url := boilers(t)
	ctx, cancel := context.WithCancel(t.Context())
	err := c.Watch(ctx, "Mapper", client.ListOptions{}, "", func(models.Event) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	stranger := newClient(t, url, "whk_nobody")
	wantKind(t, stranger.Watch(t.Context(), "Mapper", client.ListOptions{}, "", func(models.Event) error { return nil }), models.KindUnauthorized)
	wantKind(t, c.StreamTwins(t.Context(), client.ListOptions{LabelSelector: "("}, "", func(client.TwinChange) error { return nil }), models.KindMalformed)

	// Nobody there at first is an error; who is to know that it will come?
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := newClient(t, "http://"+l.Addr().String(), "").Watch(t.Context(), "Mapper", client.ListOptions{}, "", nil); err == nil {
		t.Error("a watch of nobody is no error")
	}
}

func TestTLS(t *testing.T) {
	hub := cloudapitest.New()
	api, err := cloudapi.New(cloudapi.Config{Objects: hub, Twins: hub, Devices: hub, Routes: hub, History: hub, Audit: hub, Events: hub, Access: hub, Idempotency: hub, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(nil)
	s.Config = cloudapi.Server(api)
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	s.StartTLS()
	defer s.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(s.URL, cloudapitest.AdminToken, ca)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.List(t.Context(), "Node", client.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := newClient(t, s.URL, cloudapitest.AdminToken).List(t.Context(), "Node", client.ListOptions{}); err == nil {
		t.Error("a certificate of an unknown authority is trusted")
	}
}

func TestNew(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][2]string{{"", ""}, {"localhost:8080", ""}, {"ftp://x", ""}, {"http://", ""}, {"http://x", "/nix/nix"}, {"http://x", empty}} {
		if _, err := client.New(c[0], "t", c[1]); err == nil {
			t.Errorf("New(%q, ca %q) is no error", c[0], c[1])
		}
	}
}

// TestStrangers checks what is made of answers that no hub gives.
func TestStrangers(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("the token went to another server")
		}
	}))
	defer other.Close()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/api/v1/nodes/redirect":
			http.Redirect(w, r, other.URL, http.StatusFound)
		case "/api/v1/nodes/html":
			http.Error(w, "<h1>no</h1>", http.StatusBadGateway)
		default:
			_, _ = w.Write([]byte("{"))
		}
	}))
	defer s.Close()
	c := newClient(t, s.URL, "secret")
	for _, name := range []string{"redirect", "html", "half"} {
		if _, err := c.Get(t.Context(), models.Key{Kind: "Node", Name: name}); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := c.Get(t.Context(), models.Key{Kind: "Node", Name: "html"})
	wantKind(t, err, models.KindRefused)
}

// TestEdge sends what an edge's local API understands in that one's form.
func TestEdge(t *testing.T) {
	var mu sync.Mutex
	var asked []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if strings.HasPrefix(r.URL.Path, "/v1/devices/") {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, r.Method+" "+r.URL.RequestURI()+" "+string(body))
			_, _ = w.Write([]byte(`{"device":"d"}`))
			return
		}
		w.Header().Set("Server", "whimbrel-edge")
		http.Error(w, "", http.StatusNotFound)
	}))
	defer s.Close()
	c := newClient(t, s.URL, "secret")
	if _, err := c.Twin(t.Context(), "", "d"); err != nil {
		t.Error(err)
	}
	if _, err := c.PatchDesired(t.Context(), "lab", "d", map[string]models.Value{"a": models.Int(1)}, client.DesiredOptions{Wait: time.Second}); err != nil {
		t.Error(err)
	}
	if err := c.RecordDevice(t.Context(), "default", "d", time.Minute, io.Discard); err != nil {
		t.Error(err)
	}
	want := []string{"GET /v1/devices/d/twin ", `PATCH /v1/devices/lab.d/twin/desired?wait=1s {"a":1}`, "GET /v1/devices/d/recording?for=1m0s "}
	if !slices.Equal(asked, want) {
		t.Errorf("asked %q, want %q", asked, want)
	}
	_, err := c.Get(t.Context(), models.Key{Kind: "Device", Name: "d"})
	wantKind(t, err, models.KindMalformed)
	_, err = c.TwinAt(t.Context(), "", "d", "", time.Unix(0, 0)) // what it cannot do is its own to refuse
	if len(asked) != 4 || !strings.Contains(asked[3], "at=1970") {
		t.Errorf("%v, %v", asked, err)
	}
}
