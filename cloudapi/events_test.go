package cloudapi_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

func (p *plant) raise(kind, namespace, name, reason string, at time.Time) {
	p.hub.Raise(models.Occurrence{Object: models.ObjectReference{Kind: kind, Namespace: namespace, Name: name}, Severity: models.SeverityWarning,
		Reason: reason, Message: "it did", Source: "test", Time: at})
}

func TestEvents(t *testing.T) {
	p := newPlant(t)
	now := time.Now()
	p.raise("Device", "default", "boiler-1", "DeviceOffline", now.Add(-3*time.Hour))
	p.raise("Node", "", "gateway-1", "NodeNotReady", now)
	p.raise("User", "", "anna", "TokenRefused", now)
	p.raise("Device", "plant", "boiler-2", "DeviceOffline", now)
	reasons := func(query string, as string) string {
		t.Helper()
		var list struct {
			Items []models.LoggedEvent
		}
		r := p.want(200, "GET", "/api/v1/events"+query, "", headers{"as": as})
		if err := json.Unmarshal([]byte(r.text), &list); err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, e := range list.Items {
			out = append(out, e.InvolvedObject.Name)
		}
		return strings.Join(out, " ")
	}
	for _, c := range []struct{ query, as, want string }{
		{"", "admin", "boiler-2 anna gateway-1 boiler-1"},
		{"?limit=2", "admin", "boiler-2 anna"},
		{"?kind=node", "admin", "gateway-1"},
		{"?name=boiler-1&type=warning&reason=DeviceOffline", "admin", "boiler-1"},
		{"?type=Normal", "admin", ""},
		{"?since=1h", "admin", "boiler-2 anna gateway-1"},
		{"?since=" + now.Add(-time.Minute).UTC().Format(time.RFC3339), "admin", "boiler-2 anna gateway-1"},
		{"?namespace=plant", "admin", "boiler-2"},
		{"", "viewer", "boiler-2 gateway-1 boiler-1"},
		{"", "plant-viewer", "boiler-2 gateway-1"},
		{"", "plant-admin", "boiler-2 gateway-1"},
	} {
		if got := reasons(c.query, c.as); got != c.want {
			t.Errorf("%s as %s: %q, want %q", c.query, c.as, got, c.want)
		}
	}
	list := p.want(200, "GET", "/api/v1/events?limit=1", "")
	if list.json["kind"] != "EventList" || list.at("metadata", "resourceVersion") != "4" {
		t.Errorf("list %s", list.text)
	}
	p.want(403, "GET", "/api/v1/events?namespace=default", "", headers{"as": "plant-viewer"})
	p.want(403, "GET", "/api/v1/events?namespace=*", "", headers{"as": "plant-viewer"})
	for query, status := range map[string]int{"limit=x": 400, "limit=20000": 422, "type=Bad": 422, "kind=Foo": 422, "kind=Token": 422, "watch=true&kind=Foo": 422, "since=yesterday": 400, "since=-1h": 200, "since=1w2d": 200, "watch=x": 400, "watch=true&limit=1": 400,
		"watch=true&resourceVersion=x": 400, "resourceVersion=1": 400, "continue=x": 400, "reasn=x": 400} {
		p.want(status, "GET", "/api/v1/events?"+query, "")
	}
}

func TestEventsWatch(t *testing.T) {
	p := newPlant(t)
	p.raise("Node", "", "n1", "NodeReady", time.Now())
	lines := p.open(t, "/api/v1/events?watch=true&kind=Node")
	if ct := lines.resp.Header.Get("Content-Type"); ct != "application/json" {
		t.Errorf("Content-Type %s", ct)
	}
	version := lines.events("ADDED n1.1")
	later := p.open(t, "/api/v1/events?watch=true&resourceVersion="+version)
	sse := p.open(t, "/api/v1/events?watch=true", headers{"Accept": "text/event-stream", "Last-Event-ID": version})
	if ct := sse.resp.Header.Get("Content-Type"); ct != "text/event-stream" {
		t.Errorf("Content-Type %s", ct)
	}
	p.raise("Device", "default", "b1", "DeviceOffline", time.Now())
	p.raise("Node", "", "n2", "NodeReady", time.Now())
	lines.events("ADDED n2.3")
	later.events("ADDED b1.2", "ADDED n2.3")
	var got []string
	for len(got) < 3 {
		line, _ := sse.next()
		if line != "" && !strings.HasPrefix(line, ":") {
			got = append(got, line)
		}
	}
	if got[0] != "event: event" || got[1] != "id: 2" || !strings.HasPrefix(got[2], `data: {"type":"ADDED","object":{"apiVersion":"v1","kind":"Event"`) {
		t.Errorf("server-sent event %q", got)
	}
	p.want(410, "GET", "/api/v1/events?watch=true&resourceVersion=99", "")
}

func TestAuditWatch(t *testing.T) {
	p := newPlant(t)
	version := p.want(200, "GET", "/api/v1/audit?limit=1", "").at("metadata", "resourceVersion").(string)
	s := p.open(t, "/api/v1/audit?watch=true&resourceVersion="+version)
	p.boilers("boiler-1")
	line, _ := s.next()
	var ev struct {
		Type   string
		Object struct{ Action, Kind string }
	}
	if err := json.Unmarshal([]byte(line), &ev); err != nil || ev.Type != "ADDED" || ev.Object.Action != "created" || ev.Object.Kind == "" {
		t.Errorf("line %s: %v", line, err)
	}
	p.want(403, "GET", "/api/v1/audit?watch=true", "", headers{"as": "operator"})
	p.want(400, "GET", "/api/v1/audit?resourceVersion=1", "")
}
