package cloudapi_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

const history = "/api/v1/devices/boiler-1/properties/temperature/history"

func TestHistory(t *testing.T) {
	p := newPlant(t)
	p.boilers("boiler-1")
	at := time.Date(2026, 1, 1, 0, 0, 0, 123e6, time.UTC)
	for i := range 10 {
		s := models.Sample{Value: models.Float(70 + float64(i)/2), Time: at.Add(time.Duration(i) * 20 * time.Second)}
		if i == 5 {
			s.Value, s.Quality, s.Reason = models.Null, models.Bad, models.ReasonTimeout
		}
		p.hub.Report("default", "boiler-1", "temperature", s)
	}
	span := "?from=2026-01-01T00:00:00.123Z&to=2026-01-01T00:03:00.123Z"
	r := p.want(200, "GET", history+span, "", headers{"as": "viewer"})
	points, _ := r.json["points"].([]any)
	if len(points) != 9 || r.json["device"] != "boiler-1" || r.json["property"] != "temperature" || r.json["unit"] != "°C" || r.json["continue"] != "" ||
		fmt.Sprint(points[0]) != "map[quality:good time:2026-01-01T00:00:00.123Z value:70]" ||
		fmt.Sprint(points[5]) != "map[quality:bad reason:timeout time:2026-01-01T00:01:40.123Z value:<nil>]" || fmt.Sprint(r.json["gaps"]) != "[]" {
		t.Errorf("history %s", r.text)
	}
	if _, there := r.json["buckets"]; there {
		t.Errorf("buckets without a step: %s", r.text)
	}
	r = p.want(200, "GET", history+span+"&limit=4", "")
	next := fmt.Sprint(r.json["continue"])
	r = p.want(200, "GET", history+span+"&limit=4&continue="+next, "")
	points, _ = r.json["points"].([]any)
	if len(points) != 4 || !strings.Contains(fmt.Sprint(points[0]), "00:01:20") {
		t.Errorf("second page %s", r.text)
	}
	r = p.want(200, "GET", history+span+"&step=1m", "")
	if got := fmt.Sprint(r.json["buckets"]); !strings.HasPrefix(got, "[map[avg:70.5 count:3 max:71 min:70 time:2026-01-01T00:00:00Z] map[avg:71.75 count:2 ") {
		t.Errorf("buckets %s", got)
	}
	r = p.want(200, "GET", history+span+"&step=1m&agg=last,first", "")
	if got := fmt.Sprint(r.json["buckets"]); !strings.HasPrefix(got, "[map[first:70 last:71 time:2026-01-01T00:00:00Z]") {
		t.Errorf("buckets %s", got)
	}
	if r = p.want(200, "GET", history, ""); fmt.Sprint(r.json["points"]) != "[]" {
		t.Errorf("the last hour %s", r.text)
	}
	// How long ago moves between two pages, and the second goes on where the first ended.
	r = p.want(200, "GET", history+"?from=-10000w&to=0s&limit=6", "")
	if r = p.want(200, "GET", history+"?from=1s&limit=4&continue="+fmt.Sprint(r.json["continue"]), ""); len(r.json["points"].([]any)) != 4 {
		t.Errorf("what was so long ago, second page: %s", r.text)
	}
	for query, status := range map[string]int{
		"?from=yesterday": 400, "?step=x": 400, "?limit=x": 400, "?limit=1.5": 400, "?nix=1": 400, "?step=1": 400,
		"?step=-1s": 422, "?step=0": 422, "?step=0s": 422, "?step=1ns": 422, "?step=1.0000001s": 422, "?step=9000h": 422, "?from=2025-01-01T00:00:00Z&step=1ns": 422,
		"?limit=-1": 422, "?limit=100001": 422, "?limit=99999999999999999999": 422,
		"?from=2w&to=-1w&step=1d": 200, "?from=1h&to=2h": 422, "?from=+1h": 400, "?step=1y": 400, "?step=-1d": 422, "?step=52w3d": 422, "?step=52w2d": 200,
		"?limit=0": 200, "?limit=100000": 200, "?step=8784h": 200, "?step=1ms": 200,
		"?from=2026-01-01T02:00:00%2B02:00&to=2026-01-01T00:00:00Z": 200, "?from=0000-01-01T00:00:00Z&to=9999-12-31T23:59:59Z": 200,
		"?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z": 422, "?step=1m&agg=median": 422, "?agg=avg": 422, "?limit=1000000": 422,
		"?namespace=plant": 404,
	} {
		p.want(status, "GET", history+query, "")
	}
	p.want(404, "GET", strings.Replace(history, "boiler-1", "nix", 1), "")
	p.want(404, "GET", strings.Replace(history, "temperature", "nix", 1), "")
	p.want(401, "GET", history, "", headers{"as": "nobody"})
}

func TestHistoryExport(t *testing.T) {
	p := newPlant(t)
	p.boilers("boiler-1")
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	const many = 25_000 // three pages
	for i := range many {
		p.hub.Report("default", "boiler-1", "temperature", models.Sample{Value: models.Float(float64(i)), Time: at.Add(time.Duration(i) * time.Millisecond)})
	}
	span := "?from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z"
	lines := func(accept, query string) []string {
		r := p.want(200, "GET", history+span+query, "", headers{"Accept": accept})
		if got := r.Header.Get("Content-Type"); got != accept {
			t.Errorf("content type %s", got)
		}
		return strings.Split(strings.TrimSuffix(r.text, "\n"), "\n")
	}
	csv := lines("text/csv", "")
	if len(csv) != many+1 || csv[0] != "time,value,quality,reason,backfill" || csv[1] != "2026-01-01T00:00:00Z,0,good,,false" || csv[many] != "2026-01-01T00:00:24.999Z,24999,good,,false" {
		t.Errorf("%d lines of CSV: %q %q … %q", len(csv), csv[0], csv[1], csv[len(csv)-1])
	}
	if got := lines("application/x-ndjson", ""); len(got) != many || got[1] != `{"time":"2026-01-01T00:00:00.001Z","value":1,"quality":"good"}` {
		t.Errorf("%d lines of JSON: %s", len(got), got[1])
	}
	if got := lines("text/csv", "&step=10s&agg=count,max"); strings.Join(got, " ") !=
		"time,count,max 2026-01-01T00:00:00Z,10000,9999 2026-01-01T00:00:10Z,10000,19999 2026-01-01T00:00:20Z,5000,24999" {
		t.Errorf("buckets %q", got)
	}
	if got := lines("text/csv", "&limit=12000"); len(got) != 12_001 {
		t.Errorf("%d lines, the limit was 12000", len(got))
	}
	p.want(404, "GET", strings.Replace(history, "boiler-1", "nix", 1), "", headers{"Accept": "text/csv"})
	for accept, want := range map[string]string{
		"": "application/json", "*/*": "application/json", "text/html": "application/json", "application/json, text/csv;q=0.5": "application/json",
		"application/json;q=0.5, text/csv": "text/csv", "*/*, text/csv": "text/csv", "text/csv, */*": "text/csv", "text/csv;q=0, application/json": "application/json",
		"application/x-ndjson, text/csv": "application/x-ndjson", "application/yaml, text/csv;q=0.9": "application/yaml", "application/jsonl": "application/x-ndjson",
		"TEXT/CSV; charset=utf-8": "text/csv", "text/csv;q=x, nonsense/": "application/json",
	} {
		if got := p.want(200, "GET", history+"?limit=1", "", headers{"Accept": accept}).Header.Get("Content-Type"); got != want {
			t.Errorf("Accept: %s is answered with %s, want %s", accept, got, want)
		}
	}
}
