package cloudapi_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/cloudapi"
	"github.com/whimbrel-edge/whimbrel/cloudapi/cloudapitest"
	"github.com/whimbrel-edge/whimbrel/models"
)

const desired = "/api/v1/devices/boiler-1/twin/desired"

func TestTwin(t *testing.T) {
	p := newPlant(t)
	p.boilers("boiler-1")
	at := time.Date(2026, 1, 1, 0, 0, 0, 123e6, time.UTC)
	p.hub.Report("default", "boiler-1", "temperature", models.Sample{Value: models.Float(71.5), Time: at})
	r := p.want(200, "GET", "/api/v1/devices/boiler-1/twin", "")
	if got := fmt.Sprint(r.at("properties", "temperature")); got != "map[reported:map[quality:good time:2026-01-01T00:00:00.123Z value:71.5] unit:°C]" {
		t.Errorf("temperature %s", got)
	}
	if r.Header.Get("ETag") != `"`+fmt.Sprint(r.json["version"])+`"` || r.json["device"] != "boiler-1" || r.json["state"] != "online" {
		t.Errorf("ETag %s of %s", r.Header.Get("ETag"), r.text)
	}
	p.want(404, "GET", "/api/v1/devices/nix/twin", "")
	p.want(404, "GET", "/api/v1/devices/boiler-1/twin?namespace=plant", "")

	p.hub.SetAway("default", "boiler-1", true)
	r = p.want(200, "GET", "/api/v1/devices/boiler-1/twin", "", headers{"If-None-Match": r.Header.Get("ETag")})
	if r.at("properties", "temperature", "reported", "quality") != "uncertain" {
		t.Errorf("a value of a node that is away is %v", r.at("properties", "temperature"))
	}

	list := p.want(200, "GET", "/api/v1/twins?labelSelector=area%3Dhall-a&limit=1", "")
	items, _ := list.json["items"].([]any)
	if list.json["kind"] != "TwinList" || len(items) != 1 || list.at("metadata", "continue") != "" {
		t.Errorf("twins %s", list.text)
	}
	if list = p.want(200, "GET", "/api/v1/twins?labelSelector=area%3Dnix", ""); !strings.Contains(list.text, `"items":[]`) {
		t.Errorf("no twins are %s", list.text)
	}
}

func TestPatchDesired(t *testing.T) {
	p := newPlant(t)
	p.boilers("boiler-1")
	p.hub.Behave("default", "boiler-1", cloudapitest.Silent)
	trace := "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	r := p.want(202, "PATCH", desired, `{"setpoint":45.5,"mode":"heat","serial":18446744073709551615,"recipe":{"b":[1,2],"a":null}}`,
		headers{"as": "operator", "traceparent": trace, "X-Whimbrel-Reason": "frost, süß"})
	if r.Header.Get("traceparent") != trace || r.Header.Get("ETag") != `"1"` || r.json["device"] != "boiler-1" {
		t.Errorf("answer %v %s", r.Header, r.text)
	}
	set := r.at("properties", "setpoint")
	if dig(set, "desired", "by") != "operator" || dig(set, "desired", "reason") != "frost, süß" || dig(set, "write", "state") != "pending" {
		t.Errorf("setpoint %v", set)
	}
	if got := p.hub.Traces("default", "boiler-1")["setpoint"]; got != trace {
		t.Errorf("the write carries %q", got)
	}
	r = p.want(200, "GET", desired, "")
	if r.text != `{"mode":1,"recipe":{"a":null,"b":[1,2]},"serial":18446744073709551615,"setpoint":45.5}`+"\n" || r.Header.Get("ETag") != `"1"` {
		t.Errorf("desired %s, ETag %s", r.text, r.Header.Get("ETag"))
	}
	p.want(304, "GET", desired, "", headers{"If-None-Match": `"1"`})

	p.want(412, "PATCH", desired, `{"setpoint":1}`, headers{"If-Match": `"0"`})
	r = p.want(202, "PATCH", desired, "recipe: {a: 1}\nmode: null\nold: null\n", headers{"If-Match": `"1"`, "Content-Type": "application/yaml"})
	if r.Header.Get("ETag") != `"2"` || fmt.Sprint(r.at("properties", "recipe", "desired", "value")) != "map[a:1]" || r.at("properties", "mode", "desired") != nil {
		t.Errorf("patched: %s", r.text)
	}
	for _, nothing := range []string{`{}`, `{"mode":null}`} {
		if r = p.want(202, "PATCH", desired, nothing); r.Header.Get("ETag") != `"2"` {
			t.Errorf("%s made version %s", nothing, r.Header.Get("ETag"))
		}
		p.want(200, "PATCH", desired+"?wait=1s", nothing)
	}

	for _, c := range []struct {
		body, query string
		h           headers
		status      int
		pointer     string
	}{
		{`{"setpoint":96}`, "", nil, 422, "/setpoint"},
		{`{"setpoint":"hot"}`, "", nil, 422, "/setpoint"},
		{`{"temperature":20}`, "", nil, 422, "/temperature"},
		{`{"mode":"cool"}`, "", nil, 422, "/mode"},
		{`{"nix":1}`, "", nil, 422, "/nix"},
		{`{"setpoint":1,"$id":"7"}`, "", nil, 422, "/$id"},
		{`[1]`, "", nil, 400, ""},
		{`{`, "", nil, 400, ""},
		{``, "", nil, 400, ""},
		{`{"setpoint":1,"setpoint":2}`, "", nil, 400, ""},
		{`{"setpoint":1}`, "?wait=soon", nil, 400, ""},
		{`{"setpoint":1}`, "?wait=6m", nil, 400, ""},
		{`{"setpoint":1}`, "?wait=-1s", nil, 400, ""},
		{`{"setpoint":1}`, "?expire=0s", nil, 400, ""},
		{`{"setpoint":1}`, "", headers{"If-Match": "a b"}, 400, ""},
		{`{"setpoint":1}`, "", headers{"X-Whimbrel-Reason": strings.Repeat("x", 257)}, 400, ""},
		{`{"setpoint":1}`, "", headers{"Idempotency-Key": strings.Repeat("x", 256)}, 400, ""},
		{`{"setpoint":1}`, "?namespace=plant", nil, 404, ""},
	} {
		r := p.want(c.status, "PATCH", desired+c.query, c.body, c.h)
		if c.pointer != "" && !slices.Equal(r.pointers(), []string{c.pointer}) {
			t.Errorf("%s: pointers %v: %s", c.body, r.pointers(), r.text)
		}
	}
	if got := p.want(200, "GET", desired, "").Header.Get("ETag"); got != `"2"` {
		t.Errorf("refused patches made version %s", got)
	}
	r = p.want(202, "PATCH", desired+"?expire=30s", `{"setpoint":7}`)
	if r.at("properties", "setpoint", "desired", "expires") == nil {
		t.Errorf("expire is not kept: %s", r.text)
	}
	p.want(200, "PATCH", "/api/v1/devices/boiler-1", `{"spec":{"locked":true}}`)
	p.want(423, "PATCH", desired, `{"setpoint":8}`)
}

func TestWait(t *testing.T) {
	p := newPlant(t)
	p.boilers("boiler-1")
	set := func(status int, wait, value string) reply {
		t.Helper()
		return p.want(status, "PATCH", desired+"?wait="+wait, `{"setpoint":`+value+`}`)
	}
	state := func(r reply, path ...string) any {
		return r.at(append(path, "properties", "setpoint", "write", "state")...)
	}
	if r := set(200, "5s", "1"); state(r) != "applied" || r.at("properties", "setpoint", "reported", "value") == nil {
		t.Errorf("confirmed: %s", r.text)
	}
	p.hub.Behave("default", "boiler-1", cloudapitest.Refuses)
	if r := set(502, "5s", "2"); state(r, "twin") != "failed" || !strings.Contains(fmt.Sprint(r.json["detail"]), "illegal data value") {
		t.Errorf("refused: %s", r.text)
	}
	p.hub.Behave("default", "boiler-1", cloudapitest.Silent)
	if r := set(504, "30ms", "3"); state(r, "twin") != "pending" {
		t.Errorf("in time: %s", r.text)
	}
	p.hub.SetAway("default", "boiler-1", true)
	start := time.Now()
	if r := set(503, "1m", "4"); state(r, "twin") != "pending" || r.at("twin", "desiredVersion") == nil {
		t.Errorf("offline: %s", r.text)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("503 took %s", took)
	}
	// What was pending is written when the node is back.
	p.hub.Behave("default", "boiler-1", cloudapitest.Confirms)
	p.hub.SetAway("default", "boiler-1", false)
	if got := p.want(200, "GET", "/api/v1/devices/boiler-1/twin", ""); fmt.Sprint(got.at("properties", "setpoint", "reported", "value")) != "4" {
		t.Errorf("afterwards: %s", got.text)
	}
}

func TestIdempotency(t *testing.T) {
	p := newPlant(t)
	key := func(k string) headers { return headers{"Idempotency-Key": k} }
	first := p.want(201, "POST", "/api/v1/devicemodels", boilerModel, key("m"))
	again := p.want(201, "POST", "/api/v1/devicemodels", boilerModel, key("m"))
	if again.Header.Get("Idempotency-Replayed") != "true" || first.Header.Get("Idempotency-Replayed") != "" || again.text != first.text {
		t.Errorf("replayed %q %s, first %s", again.Header.Get("Idempotency-Replayed"), again.text, first.text)
	}
	for _, h := range []string{"ETag", "Location", "Content-Type"} {
		if again.Header.Get(h) != first.Header.Get(h) {
			t.Errorf("%s %q, first %q", h, again.Header.Get(h), first.Header.Get(h))
		}
	}
	p.want(409, "POST", "/api/v1/devicemodels", strings.Replace(boilerModel, "boiler", "b2", 1), key("m"))
	p.want(409, "POST", "/api/v1/devicemodels", boilerModel)

	// A refusal does not use the key up.
	p.want(422, "POST", "/api/v1/devices", strings.Replace(device("d-1"), `"boiler"`, `"nix"`, 1), key("d"))
	p.want(201, "POST", "/api/v1/devices", device("boiler-1"), key("d"))
	// Keys are each caller's own.
	p.want(202, "PATCH", desired, `{"setpoint":5}`, key("d"), headers{"as": "operator"})

	p.hub.Behave("default", "boiler-1", cloudapitest.Silent)
	first = p.want(504, "PATCH", desired+"?wait=10ms", `{"setpoint":6}`, key("w"))
	again = p.want(504, "PATCH", desired+"?wait=10ms", `{"setpoint":6}`, key("w"))
	if again.text != first.text || again.Header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("replayed %s, first %s", again.text, first.text)
	}
	if got := p.want(200, "GET", desired, "").Header.Get("ETag"); got != `"2"` {
		t.Errorf("version %s: the write was done twice", got)
	}
	p.want(409, "PATCH", desired+"?wait=10ms", `{"setpoint":6}`, key("w"), headers{"If-Match": `"2"`})

	// Who leaves while waiting finds the write accepted.
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan struct{})
	go func() {
		defer close(left)
		req, _ := http.NewRequestWithContext(ctx, "PATCH", p.url+desired+"?wait=4m", strings.NewReader(`{"setpoint":9}`))
		req.Header.Set("Authorization", "Bearer "+cloudapitest.AdminToken)
		req.Header.Set("Idempotency-Key", "gone")
		if resp, err := p.client.Do(req); err == nil {
			resp.Body.Close()
		}
	}()
	eventually(t, "the write is stored", func() bool { return strings.Contains(p.want(200, "GET", desired, "").text, `"setpoint":9`) })
	leave()
	<-left
	eventually(t, "the key is answered", func() bool {
		r := p.do("PATCH", desired+"?wait=4m", `{"setpoint":9}`, key("gone"))
		return r.StatusCode == 202 && r.Header.Get("Idempotency-Replayed") == "true"
	})
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for tick := time.NewTicker(5 * time.Millisecond); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

func TestTraceparent(t *testing.T) {
	p := newPlant(t)
	good := []string{
		"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
		"00-4bf92f3577b34da6a3ce929d0e0e4730-00f067aa0ba90200-00",
		"cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
	}
	bad := []string{
		"", "00", "00-4BF92F3577B34DA6A3CE929D0E0E4736-00F067AA0BA902B7-00",
		"ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
		"00-00000000000000000000000000000000-00f067aa0ba902b7-00",
		"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-00",
		"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
		"00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
		"cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01more",
	}
	for _, tp := range append(good, bad...) {
		got := p.want(200, "GET", "/healthz", "", headers{"traceparent": tp}).Header.Get("traceparent")
		if kept := got == tp; kept != slices.Contains(good, tp) || len(got) < 55 {
			t.Errorf("%q is answered %q", tp, got)
		}
	}
}

// broken is a hub that panics, and one that fails with a secret in its error.
type broken struct{ cloudapi.Objects }

func (broken) Get(_ context.Context, k models.Key) (models.Object, error) {
	if k.Name == "panic" {
		panic("password=hunter2")
	}
	return nil, fmt.Errorf("connect postgres://hub:hunter2@db/hub: refused")
}

func TestFaults(t *testing.T) {
	p := newPlant(t, func(c *cloudapi.Config) { c.Objects = broken{c.Objects} })
	for _, name := range []string{"panic", "error"} {
		r := p.want(500, "GET", "/api/v1/devices/"+name, "")
		if strings.Contains(r.text, "hunter2") {
			t.Errorf("the error's text is shown: %s", r.text)
		}
	}
	p.want(200, "GET", "/api/v1/devices", "")
}
