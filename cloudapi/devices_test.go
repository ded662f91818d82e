package cloudapi_test

import (
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/cloudapi/cloudapitest"
	"github.com/whimbrel-edge/whimbrel/models"
)

func TestReadDevice(t *testing.T) {
	p := newPlant(t)
	p.boilers("boiler-1")
	const path = "/api/v1/devices/boiler-1/read"
	p.hub.Report("default", "boiler-1", "temperature", models.Sample{Value: models.Float(71.5), Time: time.Now()})
	p.hub.Report("default", "boiler-1", "mode", models.Sample{Value: models.Int(1), Time: time.Now()})
	r := p.want(200, "POST", path, `{"properties":["temperature","mode"]}`, headers{"as": "operator"})
	if r.json["device"] != "boiler-1" || r.at("properties", "temperature", "quality") != "good" || r.at("properties", "mode", "name") != "heat" {
		t.Errorf("read %s", r.text)
	}
	p.want(200, "POST", path, "")
	p.want(403, "POST", path, "", headers{"as": "viewer"})
	p.want(404, "POST", "/api/v1/devices/nix/read", "")
	p.want(422, "POST", path, `{"properties":["nix"]}`)
	p.want(400, "POST", path, `{`)
	p.want(400, "POST", path+"?wait=2m", "")
	p.hub.Behave("default", "boiler-1", cloudapitest.Silent)
	p.want(504, "POST", path+"?wait=10ms", "")
	p.hub.Behave("default", "boiler-1", cloudapitest.Refuses)
	p.want(502, "POST", path, "")
	p.hub.SetAway("default", "boiler-1", true)
	p.want(503, "POST", path, "")
}

func TestRecordDevice(t *testing.T) {
	p := newPlant(t)
	p.boilers("boiler-1")
	const path = "/api/v1/devices/boiler-1/recording"
	r := p.want(200, "GET", path+"?for=20ms", "", headers{"as": "operator"})
	if lines := strings.Split(strings.TrimSpace(r.text), "\n"); !strings.Contains(lines[0], `"device":"boiler-1"`) || !strings.Contains(lines[len(lines)-1], `"over":true`) {
		t.Errorf("recorded %s", r.text)
	}
	p.want(403, "GET", path, "", headers{"as": "viewer"})
	p.want(404, "GET", "/api/v1/devices/nix/recording?for=10ms", "")
	p.want(400, "GET", path+"?for=25h", "")
	p.want(400, "GET", path+"?for=1ms", "")
	p.hub.SetAway("default", "boiler-1", true)
	p.want(503, "GET", path, "")
}

func TestBrowseDevice(t *testing.T) {
	p := newPlant(t)
	p.boilers("boiler-1")
	const path = "/api/v1/devices/boiler-1/browse"
	r := p.want(200, "POST", path, "", headers{"as": "operator"})
	lines := strings.Split(strings.TrimSpace(r.text), "\n")
	if len(lines) < 3 || !strings.Contains(lines[0], `"path":["boiler-1",`) || !strings.Contains(lines[0], `"property":{`) || !strings.Contains(lines[len(lines)-1], "2 dimensions") {
		t.Errorf("found %s", r.text)
	}
	p.want(200, "POST", path, "{}")
	p.want(422, "POST", path, `{"depth":3}`)
	p.want(400, "POST", path, `{`)
	p.want(403, "POST", path, "", headers{"as": "viewer"})
	p.want(404, "POST", "/api/v1/devices/nix/browse", "")
	p.hub.Behave("default", "boiler-1", cloudapitest.Refuses)
	p.want(502, "POST", path, "")
	p.hub.SetAway("default", "boiler-1", true)
	p.want(503, "POST", path, "")
}
