package cloudapi_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/whimbrel-edge/whimbrel/models"
)

// TestPublishing gives routes messages; internal/e2e tests where they go.
func TestPublishing(t *testing.T) {
	p := newPlant(t)
	for name, spec := range map[string]string{
		"ask": `"from":{"rest":true},"to":{"http":{"url":"https://erp.example/"}}`, "down": `"from":{"rest":true},"to":{"mqtt":{"topic":"x"}}`,
		"never": `"from":{"rest":true},"when":"false","to":{"mqtt":{"topic":"x"}}`, "web": `"from":{"rest":true},"to":{"service":{"name":"web"}}`, "up": `"from":{"mqtt":"x"},"to":{"mqtt":{"topic":"y"}}`,
	} {
		p.want(201, "POST", "/api/v1/routes", fmt.Sprintf(`{"apiVersion":"whimbrel/v1","kind":"Route","metadata":{"name":%q},"spec":{%s}}`, name, spec))
	}
	at := "/api/v1/routes/"
	for _, c := range []struct {
		as, path string
		status   int
		say      string
	}{
		{"operator", "ask/publish", 201, "tea"},
		{"operator", "ask/publish?wait=0s", 202, `"id":"01JDKEY","matched":true`},
		{"operator", "down/publish?wait=2m", 200, `"published":true`},
		{"operator", "down/publish", 202, `"detail":"no answer"`},
		{"operator", "down/publish?wait=1s", 504, "no answer"},
		{"operator", "web/publish", 502, "too long an answer"},
		{"operator", "never/publish", 200, `{"matched":false}`},
		{"operator", "up/publish", 422, "does not take messages by REST"},
		{"operator", "nix/publish", 404, "nix"},
		{"operator", "ask/publish?wait=1", 400, "wait"},
		{"operator", "ask/publish?wait=6m", 400, "wait"},
		{"operator", "ask/publish?delay=6m", 400, "delay"},
		{"viewer", "ask/publish", 403, "operator"},
		{"plant-operator", "ask/publish", 403, "operator"},
		{"", "ask/publish", 401, ""},
	} {
		r := p.want(c.status, "POST", at+c.path, "tea", headers{"as": c.as, "Content-Type": "text/plain"})
		if !strings.Contains(r.text, c.say) {
			t.Errorf("%s: %s", c.path, r.text)
		}
		if target := r.Header.Get("X-Whimbrel-Answer") == "target"; target != (c.status == 201) {
			t.Errorf("%s: headers %v", c.path, r.Header)
		}
	}
	// A target's answer is the same when it is given again, down to whose it is.
	first := p.want(201, "POST", at+"ask/publish", `{"kind":"Device","metadata":{"name":"x"}}`, headers{"Content-Type": "text/x-tea", "Idempotency-Key": "k1"})
	again := p.want(201, "POST", at+"ask/publish", `{"kind":"Device","metadata":{"name":"x"}}`, headers{"Content-Type": "text/x-tea", "Idempotency-Key": "k1"})
	if first.Header.Get("Content-Type") != "text/x-tea" || again.Header.Get("Idempotency-Replayed") != "true" || again.text != first.text {
		t.Errorf("answered %q with %v, and again %q with %v", first.text, first.Header, again.text, again.Header)
	}
	for _, name := range []string{"Content-Type", "X-Whimbrel-Answer", "X-Content-Type-Options", "ETag", "Location", "Content-Length"} {
		if was, is := first.Header.Get(name), again.Header.Get(name); was != is {
			t.Errorf("%s: %q, and again %q", name, was, is)
		}
	}
	for id := range int64(3) {
		p.hub.AddDeadLetter(models.DeadLetter{ID: id + 1, Key: "k", Payload: []byte("tea"), Error: "no"})
	}
	at += "ask/deadletters"
	for _, as := range []string{"viewer", "plant-admin"} {
		p.want(403, "GET", at, "", headers{"as": as})
		p.want(403, "DELETE", at, "", headers{"as": as})
		p.want(403, "POST", at+"/replay", "", headers{"as": as})
	}
	if r := p.want(200, "GET", at+"?limit=2", ""); !strings.Contains(r.text, `"continue":"2"`) || !strings.Contains(r.text, `"payload":"dGVh"`) {
		t.Error(r.text)
	}
	// Naming none is not naming all.
	p.want(422, "POST", at+"/replay", `{"ids": []}`)
	p.want(400, "DELETE", at+"?ids=", "")
	p.want(400, "DELETE", at+"?ids=1,x", "")
	if r := p.want(200, "POST", at+"/replay", `{"ids": [1, 9]}`); !strings.Contains(r.text, `"count":1`) {
		t.Error(r.text)
	}
	if r := p.want(200, "DELETE", at, ""); !strings.Contains(r.text, `"count":2`) {
		t.Error(r.text)
	}
}
