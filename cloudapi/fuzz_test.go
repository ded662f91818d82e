package cloudapi_test

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/whimbrel-edge/whimbrel/cloudapi"
	"github.com/whimbrel-edge/whimbrel/cloudapi/cloudapitest"
)

// bare is the API without a socket, for many requests in little time.
type bare struct {
	t testing.TB
	h http.Handler
}

func newBare(t testing.TB) bare {
	t.Helper()
	hub := cloudapitest.New()
	h, err := cloudapi.New(cloudapi.Config{Objects: hub, Twins: hub, Devices: hub, Routes: hub, History: hub, Audit: hub, Events: hub, Access: hub, Idempotency: hub, Log: slog.New(slog.DiscardHandler), Rate: -1})
	if err != nil {
		t.Fatal(err)
	}
	b := bare{t, h}
	for path, body := range map[string]string{"/api/v1/devicemodels/boiler": boilerModel, "/api/v1/devices/boiler-1": device("boiler-1")} {
		b.do("PUT", path, body)
	}
	b.do("PUT", "/api/v1/devices/boiler-1", device("boiler-1")) // the map's order is any
	return b
}

func (b bare) do(method, path, body string) (status int, text string) {
	b.t.Helper()
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	req.Header.Set("Authorization", "Bearer "+cloudapitest.AdminToken)
	w := httptest.NewRecorder()
	b.h.ServeHTTP(w, req)
	if w.Code >= 500 || w.Code < 200 {
		b.t.Fatalf("%s %s %q: %d %s", method, path, body, w.Code, w.Body)
	}
	if w.Body.Len() > 0 && !json.Valid(w.Body.Bytes()) {
		b.t.Fatalf("%s %s %q: the answer is no JSON: %q", method, path, body, w.Body)
	}
	return w.Code, w.Body.String()
}

var bodies = []string{
	"", "{}", "[]", "null", "{", "a: b", "--- {}\n---\n{}", boilerModel, device("x"), `{"metadata":{"name":"x"},"spec":{"model":"boiler"}}`,
	`{"metadata":null}`, `{"metadata":5}`, `{"spec":[]}`, `{"kind":5}`, `{"metadata":{"name":"x","namespace":5}}`, "&a [*a]", "a: &a {b: *a}", "? [x]\n: y", "!!binary x", "\x00", "\xff\xfe",
	`{"setpoint":1e999}`, `{"setpoint":-0}`, `{"setpoint":null}`, `{"":null}`, `{"$id":1}`, `{"recipe":{"a":[{}]}}`, `{"serial":99999999999999999999}`, strings.Repeat(`{"a":`, 100),
	`{"metadata":{"name":"x"},"spec":{"connection":{"a":null}}}`, "0x10", "<<: {a: b}", `{"status":{"x":1}}`, `{"metadata":{"uid":"x","resourceVersion":7}}`,
}

// FuzzObjectBody checks that no body of an object is the hub's fault, and that
// one that is refused changes nothing.
func FuzzObjectBody(f *testing.F) {
	for _, b := range bodies {
		f.Add(b)
	}
	b := newBare(f)
	version := func(b bare) string {
		_, text := b.do("GET", "/api/v1/devices?limit=1", "")
		var list struct {
			Metadata struct{ ResourceVersion string }
		}
		_ = json.Unmarshal([]byte(text), &list) // do has checked that it is JSON
		return list.Metadata.ResourceVersion
	}
	f.Fuzz(func(t *testing.T, body string) {
		b := bare{t, b.h}
		for _, r := range [][2]string{{"POST", "/api/v1/devices"}, {"PUT", "/api/v1/devices/x"}, {"PATCH", "/api/v1/devices/boiler-1"}, {"POST", "/api/v1/devicemodels"},
			{"PUT", "/api/v1/mappers/x"}, {"PATCH", "/api/v1/nodes/x"}, {"POST", "/api/v1/users"}, {"POST", "/api/v1/devices?namespace=plant"}} {
			before := version(b)
			if status, text := b.do(r[0], r[1], body); status >= 400 && version(b) != before {
				t.Fatalf("%s %s %q: refused with %s, and the version moved", r[0], r[1], body, text)
			}
		}
	})
}

// FuzzDesiredBody is FuzzObjectBody for patches of desired values.
func FuzzDesiredBody(f *testing.F) {
	for _, b := range bodies {
		f.Add(b)
	}
	b := newBare(f)
	f.Fuzz(func(t *testing.T, body string) {
		b := bare{t, b.h}
		_, before := b.do("GET", desired, "")
		status, text := b.do("PATCH", desired, body)
		if _, after := b.do("GET", desired, ""); status >= 400 && after != before {
			t.Fatalf("%q: refused with %s, and desired became %s", body, text, after)
		}
		b.do("POST", "/api/v1/tokens", body)
	})
}
