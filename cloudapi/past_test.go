package cloudapi_test

import (
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

func TestTwinAt(t *testing.T) {
	p := newPlant(t)
	p.boilers("boiler-1")
	p.hub.Report("default", "boiler-1", "temperature", models.Sample{Value: models.Float(71.5), Time: time.Now()})
	at := func(when time.Time) string {
		return "/api/v1/devices/boiler-1/twin?at=" + url.QueryEscape(when.UTC().Format(time.RFC3339Nano))
	}
	doc := p.want(200, "GET", at(time.Now()), "", headers{"as": "viewer"})
	if fmt.Sprint(doc.at("properties", "temperature", "reported", "value")) != "71.5" || doc.at("at") == "" {
		t.Errorf("twin %s", doc.text)
	}
	p.want(422, "GET", at(time.Now().Add(time.Hour)), "")
	p.want(404, "GET", at(time.Now().Add(-time.Hour)), "")
	p.want(400, "GET", "/api/v1/devices/boiler-1/twin?at=yesterday", "")
	p.want(404, "GET", at(time.Now())+"&uid=nobody", "")
	p.want(422, "GET", "/api/v1/devices/boiler-1/twin?uid=nobody", "")
}
