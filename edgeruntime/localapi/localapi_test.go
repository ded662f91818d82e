package localapi

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/devices"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/twin"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeDevices has one device, boiler-1.
type fakeDevices struct {
	patches []devices.Patch
	patch   error
	await   error
}

func (f *fakeDevices) Devices() []devices.Summary {
	return []devices.Summary{{ID: "boiler-1", Name: "boiler-1", Namespace: "default", State: models.StateOnline, Model: "boiler"}}
}

func (f *fakeDevices) Document(id string) (twin.Document, error) {
	if id != "boiler-1" {
		return twin.Document{}, models.Errorf(models.KindNotFound, "there is no device %q on this edge", id)
	}
	return twin.Document{Device: id, DesiredVersion: 4, State: models.StateOnline,
		Properties: map[string]twin.PropertyDoc{"temperature": {Unit: "°C"}, "setpoint": {Unit: "°C"}}}, nil
}

func (f *fakeDevices) Patch(_ context.Context, id string, p devices.Patch) (devices.Patched, error) {
	f.patches = append(f.patches, p)
	return devices.Patched{DesiredVersion: 4, Writes: map[string]string{"setpoint": "w"}}, f.patch
}

func (f *fakeDevices) AwaitWrites(ctx context.Context, _ string, writes map[string]string) error {
	if _, limited := ctx.Deadline(); !limited || writes["setpoint"] != "w" {
		return errors.New("awaited wrongly")
	}
	return f.await
}

func (f *fakeDevices) Read(ctx context.Context, id string, names []string) (map[string]models.Reading, error) {
	if _, limited := ctx.Deadline(); !limited {
		return nil, errors.New("read without an end")
	}
	if id != "boiler-1" {
		return nil, models.Errorf(models.KindNotFound, "there is no device %q on this edge", id)
	}
	out := map[string]models.Reading{}
	for _, n := range names {
		out[n] = models.Reading{Value: models.Float(1.5)}
	}
	return out, nil
}

func TestRead(t *testing.T) {
	url := serve(t, &fakeDevices{}) + "/v1/devices/"
	for _, c := range []struct {
		path, body string
		status     int
		want       string
	}{
		{"boiler-1/read", `{"properties":["a"]}`, 200, `"device":"boiler-1","properties":{"a":{"value":1.5,"quality":"good"`},
		{"boiler-1/read?wait=1s", "", 200, `"properties":{}`},
		{"boiler-1/read?wait=0s", "", 400, "wait must be"},
		{"boiler-1/read", `{"prop":1}`, 422, "/prop"},
		{"nix/read", "", 404, "no device"},
	} {
		if status, _, body := do(t, "POST", url+c.path, c.body); status != c.status || !strings.Contains(body, c.want) {
			t.Errorf("%s %s: %d %s", c.path, c.body, status, body)
		}
	}
}

func serve(t *testing.T, d Devices) (url string) {
	t.Helper()
	s, err := New(Config{Addr: "127.0.0.1:0", Token: "secret", Devices: d, Log: slog.New(slog.DiscardHandler),
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "metrics") })})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return "http://" + s.Addr()
}

func do(t *testing.T, method, url, body string, header ...string) (int, http.Header, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer secret")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(text)
}

func TestAnswers(t *testing.T) {
	f := &fakeDevices{}
	url := serve(t, f)
	for _, c := range []struct {
		method, path, body string
		status             int
		say                string
	}{
		{"GET", "/healthz", "", 200, "ok"},
		{"GET", "/metrics", "", 200, "metrics"},
		{"GET", "/v1/devices", "", 200, `{"items":[{"id":"boiler-1","name":"boiler-1","namespace":"default","state":"online","model":"boiler"}]}`},
		{"GET", "/v1/devices?limit=3", "", 400, "limit"},
		{"GET", "/v1/devices/boiler-1/twin", "", 200, `"desiredVersion":4`},
		{"HEAD", "/v1/devices/boiler-1/twin", "", 200, ""},
		{"GET", "/v1/devices/none/twin", "", 404, "none"},
		{"GET", "/v1/nothing", "", 404, "nothing at this path"},
		{"GET", "/", "", 404, "nothing at this path"},
		{"POST", "/v1/devices", "{}", 405, "Allow"},
		{"GET", "/v1/devices/boiler-1/twin/desired", "", 405, "Allow"},
		{"PATCH", "/v1/devices/boiler-1/twin/desired", `{"setpoint":4}`, 202, `"device":"boiler-1"`},
		{"PATCH", "/v1/devices/boiler-1/twin/desired?wait=5s", `{"setpoint":4}`, 200, `"device":"boiler-1"`},
		{"PATCH", "/v1/devices/boiler-1/twin/desired?wait=soon", `{"setpoint":4}`, 400, `"errors":[{"pointer":"","parameter":"wait"`},
		{"PATCH", "/v1/devices/boiler-1/twin/desired?wait=1s&wait=2s", `{"setpoint":4}`, 400, `"parameter":"wait"`},
		{"PATCH", "/v1/devices/boiler-1/twin/desired?expire=5s", `{"setpoint":4}`, 400, `"parameter":"expire"`},
		{"PATCH", "/v1/devices/boiler-1/twin/desired", strings.Repeat(" ", maxBody+1), 413, "larger"},
	} {
		status, header, body := do(t, c.method, url+c.path, c.body)
		if status != c.status || !strings.Contains(body, c.say) {
			t.Errorf("%s %s: %d %s, want %d and %q", c.method, c.path, status, body, c.status, c.say)
		}
		if want := map[bool]string{true: "application/problem+json", false: "application/json"}[status >= 400]; c.path != "/metrics" && header.Get("Content-Type") != want {
			t.Errorf("%s %s: %s", c.method, c.path, header.Get("Content-Type"))
		}
		if status == 405 && header.Get("Allow") == "" {
			t.Errorf("%s %s: no Allow", c.method, c.path)
		}
	}
	if n := len(f.patches); n != 2 {
		t.Errorf("%d patches arrived, want 2", n)
	}
}

func TestToken(t *testing.T) {
	url := serve(t, &fakeDevices{})
	for _, path := range []string{"/v1/devices", "/v1/devices/boiler-1/twin", "/metrics", "/v1/nothing"} {
		for _, auth := range []string{"", "secret", "Bearer", "Bearer wrong", "Basic secret"} {
			status, header, body := do(t, "GET", url+path, "", "Authorization", auth)
			if status != 401 || header.Get("WWW-Authenticate") == "" {
				t.Errorf("%s with %q: %d %s", path, auth, status, body)
			}
		}
	}
	if status, _, _ := do(t, "GET", url+"/healthz", "", "Authorization", ""); status != 200 {
		t.Errorf("/healthz without a token: %d", status)
	}
	if _, err := New(Config{Addr: "127.0.0.1:0"}); err == nil {
		t.Error("served without a token")
	}
}

func TestPatch(t *testing.T) {
	f := &fakeDevices{}
	url := serve(t, f) + "/v1/devices/boiler-1/twin/desired"
	status, header, _ := do(t, "PATCH", url, `{"setpoint":4}`, "X-Whimbrel-Reason", "test run", "If-Match", `"4"`)
	if p := f.patches[0]; status != 202 || p.Reason != "test run" || p.IfMatch != `"4"` || string(p.Body) != `{"setpoint":4}` || header.Get("ETag") != `"4"` {
		t.Errorf("%d, ETag %s, patch %+v", status, header.Get("ETag"), f.patches[0])
	}
	for kind, want := range map[models.ErrorKind]int{models.KindRefused: 502, models.KindTimeout: 504, models.KindConflict: 409} {
		f.await = models.Errorf(kind, "so it is")
		status, _, body := do(t, "PATCH", url+"?wait=1s", `{"setpoint":4}`)
		var p struct {
			models.Problem
			Twin *twin.Document
		}
		if err := json.Unmarshal([]byte(body), &p); err != nil || status != want || p.Detail != "so it is" || p.Twin == nil || p.Twin.Device != "boiler-1" {
			t.Errorf("%s: %d %s", kind, status, body)
		}
	}
	f.patch = models.Invalid("/setpoint", "setpoint must be from 0 to 95, got 96")
	status, _, body := do(t, "PATCH", url, `{"setpoint":96}`)
	var p models.Problem
	if err := json.Unmarshal([]byte(body), &p); err != nil || status != 422 || len(p.Errors) != 1 || p.Errors[0].Pointer != "/setpoint" {
		t.Errorf("%d %s", status, body)
	}
	f.patch = errors.New("secret detail")
	if status, _, body := do(t, "PATCH", url, `{}`); status != 500 || strings.Contains(body, "secret detail") {
		t.Errorf("%d %s", status, body)
	}
}

func TestStopsWhileSomebodyWaits(t *testing.T) {
	s, err := New(Config{Addr: "127.0.0.1:0", Token: "secret", Devices: &waiting{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	began := make(chan struct{})
	waitBegan = func() { close(began) }
	answered := make(chan int, 1)
	go func() {
		status, _, _ := do(t, "PATCH", "http://"+s.Addr()+"/v1/devices/boiler-1/twin/desired?wait=60s", `{}`)
		answered <- status
	}()
	<-began
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("does not stop")
	}
	if status := <-answered; status != 504 {
		t.Errorf("answered %d", status)
	}
	http.DefaultClient.CloseIdleConnections()
}

var waitBegan func()

type waiting struct{ fakeDevices }

func (*waiting) AwaitWrites(ctx context.Context, _ string, _ map[string]string) error {
	waitBegan()
	<-ctx.Done()
	return models.Errorf(models.KindTimeout, "not confirmed")
}

func (f *fakeDevices) Record(_ context.Context, id string, length time.Duration, lines func([]byte) error) error {
	if id != "boiler-1" {
		return models.Errorf(models.KindNotFound, "there is no device %q on this edge", id)
	}
	if err := lines([]byte(length.String() + "\n")); err != nil {
		return err
	}
	return lines([]byte("the end\n"))
}

func TestRecord(t *testing.T) {
	url := serve(t, &fakeDevices{}) + "/v1/devices/"
	for _, c := range []struct {
		path   string
		status int
		want   string
	}{
		{"boiler-1/recording?for=3s", 200, "3s\nthe end\n"},
		{"boiler-1/recording?for=1d", 200, "24h0m0s\nthe end\n"},
		{"boiler-1/recording", 200, "1m0s\nthe end\n"},
		{"boiler-1/recording?for=soon", 400, `"parameter":"for"`},
		{"boiler-1/recording?until=1s", 400, `"parameter":"until"`},
		{"nix/recording", 404, "no device"},
	} {
		if status, _, body := do(t, "GET", url+c.path, ""); status != c.status || !strings.Contains(body, c.want) {
			t.Errorf("%s: %d %s", c.path, status, body)
		}
	}
}
