package cloudapi_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/whimbrel-edge/whimbrel/twin"
)

func TestWrites(t *testing.T) {
	p := newPlant(t)
	p.boilers("boiler-1")
	const path = "/api/v1/devices/boiler-1/writes"
	p.want(202, "PATCH", "/api/v1/devices/boiler-1/twin/desired", `{"setpoint":40}`, headers{"X-Whimbrel-Reason": "cold"})
	p.want(202, "PATCH", "/api/v1/devices/boiler-1/twin/desired", `{"setpoint":50}`, headers{"as": "operator"})
	p.want(202, "PATCH", "/api/v1/devices/boiler-1/twin/desired", `{"setpoint":null}`)
	read := func(query string) (out []twin.LedgerEntry, text string, next string) {
		t.Helper()
		r := p.want(200, "GET", path+query, "", headers{"as": "viewer"})
		var list struct {
			Items []twin.LedgerEntry
		}
		if err := json.Unmarshal([]byte(r.text), &list); err != nil {
			t.Fatal(err)
		}
		for _, e := range list.Items {
			text += fmt.Sprint(e.Value, " ", e.State, " ", e.By, " ", e.Reason, ";")
		}
		return list.Items, text, fmt.Sprint(r.at("metadata", "continue"))
	}
	all, text, next := read("")
	if want := "null withdrawn admin ;50 applied operator ;40 applied admin cold;"; strings.ReplaceAll(text, "superseded", "applied") != want || next != "" {
		t.Fatalf("writes %s %s", text, next)
	}
	if all[0].Origin != "cloud" || all[0].Traceparent == "" || all[1].Before == nil {
		t.Errorf("writes %+v", all)
	}
	first, _, next := read("?limit=2")
	if len(first) != 2 || next == "" {
		t.Fatalf("page %+v %s", first, next)
	}
	if rest, _, _ := read("?continue=" + next); len(rest) != 1 || rest[0].ID != all[2].ID {
		t.Errorf("second page %+v", rest)
	}
	if some, _, _ := read("?state=withdrawn&property=setpoint&since=1h"); len(some) != 1 {
		t.Errorf("chosen %+v", some)
	}
	p.want(404, "GET", "/api/v1/devices/nope/writes", "")
	p.want(404, "GET", path+"?uid=x", "")
	for query, status := range map[string]int{"limit=x": 400, "limit=20000": 422, "state=done": 422, "since=x": 400, "nix=1": 400} {
		p.want(status, "GET", path+"?"+query, "")
	}
}
