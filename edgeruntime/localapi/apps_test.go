package localapi

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/devices"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/routes"
	"github.com/whimbrel-edge/whimbrel/models"
)

// fakeApp reads everything of boiler-1 but writes only setpoint, and posts to
// one route.
type fakeApp struct{}

func (fakeApp) Name() string      { return "default.pod" }
func (fakeApp) Namespace() string { return "default" }
func (fakeApp) Device(device, property string, write bool) bool {
	return device == "boiler-1" && (property == "" || property == "setpoint")
}

func (fakeApp) Route(name string) bool { return name == "to-erp" }

// fakeRoutes takes everything, and says for whom.
type fakeRoutes struct{}

func (fakeRoutes) Post(_ context.Context, p routes.Posted, _ time.Duration) (models.RouteReply, error) {
	return models.RouteReply{Matched: true, Answered: true, Status: 200, Body: []byte(p.Namespace + "/" + p.Route + " " + string(p.Payload) + p.Key)}, nil
}

func TestApps(t *testing.T) {
	f := &fakeDevices{}
	s, err := New(Config{Addr: "127.0.0.1:0", Token: "secret", Devices: f, Routes: fakeRoutes{}, Log: slog.New(slog.DiscardHandler),
		Apps:    func(token string) (App, bool) { return fakeApp{}, token == "apps" },
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "metrics") })})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }() // ends with cancel
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	url := "http://" + s.Addr()
	for _, c := range []struct {
		method, path, body string
		status             int
		say, silent        string
	}{
		{"GET", "/v1/devices", "", 200, `"boiler-1"`, ""},
		{"GET", "/v1/devices/boiler-1/twin", "", 200, `"properties"`, `"temperature"`},
		{"GET", "/v1/devices/pump-1/twin", "", 403, "access in its pod's spec", ""},
		{"GET", "/v1/devices/nix/twin", "", 403, "", "no device"},
		{"PATCH", "/v1/devices/boiler-1/twin/desired", `{"setpoint":1}`, 202, "", ""},
		{"PATCH", "/v1/devices/boiler-1/twin/desired", `{"setpoint":1,"mode":1}`, 403, "/mode", ""},
		{"PATCH", "/v1/devices/boiler-1/twin/desired", "setpoint: 1\nmode: 1\n", 403, "/mode", ""},
		{"PATCH", "/v1/devices/pump-1/twin/desired", `{"setpoint":1}`, 403, "", ""},
		{"POST", "/v1/devices/boiler-1/read", `{"properties":["setpoint"]}`, 200, `"setpoint"`, ""},
		{"POST", "/v1/devices/boiler-1/read", `{"properties":["temperature"]}`, 403, "temperature", ""},
		{"POST", "/v1/devices/boiler-1/read", ``, 200, ``, `"temperature"`},
		{"POST", "/v1/devices/pump-1/read", ``, 403, "", ""},
		{"GET", "/v1/devices/boiler-1/recording?for=1s", "", 403, "recordings", ""},
		{"GET", "/metrics", "", 403, "/metrics", ""},
		{"POST", "/v1/routes/to-erp", "x", 200, "default/to-erp x", ""},
		{"POST", "/v1/routes/others", "x", 403, "publishing to route others", "default/"},
		{"POST", "/v1/routes/default.to-erp", "x", 403, "publishing to route default.to-erp", "/" + "to-erp x"},
	} {
		status, _, body := do(t, c.method, url+c.path, c.body, "Authorization", "Bearer apps")
		if status != c.status || !strings.Contains(body, c.say) || c.silent != "" && strings.Contains(body, c.silent) {
			t.Errorf("%s %s %s: %d %s", c.method, c.path, c.body, status, body)
		}
	}
	if status, _, _ := do(t, "GET", url+"/v1/devices", "", "Authorization", "Bearer nobodys"); status != 401 {
		t.Errorf("a token of nobody's: %d", status)
	}
	if len(f.patches) != 1 || f.patches[0].By != "default.pod" || f.patches[0].Origin != devices.OriginApp {
		t.Errorf("patched %+v", f.patches)
	}
}

func TestFurtherAddress(t *testing.T) {
	url := "" // of the further address
	s, err := New(Config{Addr: "127.0.0.1:0", Token: "secret", Devices: &fakeDevices{}, Log: slog.New(slog.DiscardHandler), Metrics: http.NotFoundHandler()})
	if err != nil {
		t.Fatal(err)
	}
	before, err := s.Listen("127.0.0.2:0") // served as soon as Run is there
	if err != nil {
		t.Fatal(err)
	}
	for ln := range s.further {
		url = "http://" + ln.Addr().String() + "/healthz"
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }() // ends with cancel
	if status, _, body := do(t, "GET", url, ""); status != 200 {
		t.Errorf("%d %s", status, body)
	}
	http.DefaultClient.CloseIdleConnections()
	before()
	if _, err := http.Get(url); err == nil {
		t.Error("it is still served")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := s.Listen("127.0.0.2:0"); err == nil {
		t.Error("an address after the end")
	}
}
