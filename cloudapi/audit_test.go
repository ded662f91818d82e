package cloudapi_test

import (
	"fmt"
	"strings"
	"testing"
)

func TestAudit(t *testing.T) {
	p := newPlant(t)
	p.boilers("boiler-1")
	p.want(200, "PATCH", "/api/v1/devices/boiler-1", `{"metadata":{"labels":{"area":"hall-b"}}}`)
	list := p.want(200, "GET", "/api/v1/audit?limit=1", "")
	items, _ := list.json["items"].([]any)
	if list.json["kind"] != "AuditList" || len(items) != 1 || list.at("metadata", "continue") == "" {
		t.Fatalf("audit %s", list.text)
	}
	newest, _ := items[0].(map[string]any)
	if newest["by"] != "admin" || newest["action"] != "changed" || newest["kind"] != "Device" || newest["name"] != "boiler-1" {
		t.Errorf("newest entry %v", newest)
	}
	next := fmt.Sprint(list.at("metadata", "continue"))
	list = p.want(200, "GET", "/api/v1/audit?continue="+next, "")
	items, _ = list.json["items"].([]any)
	if first, _ := items[0].(map[string]any); first["id"] == newest["id"] || list.at("metadata", "continue") != "" {
		t.Errorf("next page %s", list.text)
	}
	for query, want := range map[string]string{"kind=Device": "changed created", "kind=devices&action=created": "created", "kind=dm": "created", "name=boiler-1&limit=1": "changed", "name=nix": ""} {
		var have []string
		items, _ := p.want(200, "GET", "/api/v1/audit?"+query, "").json["items"].([]any)
		for _, item := range items {
			entry, _ := item.(map[string]any)
			have = append(have, fmt.Sprint(entry["action"]))
		}
		if strings.Join(have, " ") != want {
			t.Errorf("%s: %q, want %q", query, have, want)
		}
	}
	if r := p.want(422, "GET", "/api/v1/audit?kind=Foo", ""); !strings.Contains(r.text, "kind must be one of ConfigMap, ControllerRevision, DaemonSet,") || !strings.Contains(r.text, "StatefulSet, Token, User, got \\\"Foo\\\"") {
		t.Error(r.text)
	}
	p.want(200, "GET", "/api/v1/audit?kind=Tokens", "")
	p.want(403, "GET", "/api/v1/audit", "", headers{"as": "operator"})
	p.want(405, "DELETE", "/api/v1/audit", "")
	for query, status := range map[string]int{"limit=x": 400, "limit=-1": 400, "continue=x": 400, "limit=100000": 422, "nix=1": 400,
		"since=x": 400, "since=-1s": 200, "since=2d": 200, "action=made": 422, "watch=true&kind=Foo": 422, "namespace=_": 400, "watch=true&limit=1": 400, "resourceVersion=1": 400,
		"since=1h&by=admin&namespace=default&uid=x": 200} {
		p.want(status, "GET", "/api/v1/audit?"+query, "")
	}
}
