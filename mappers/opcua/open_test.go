package opcua

import (
	"encoding/json"
	"errors"
	"slices"
	"testing"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
)

func TestOpenRefuses(t *testing.T) {
	const url = `"url": "opc.tcp://192.0.2.1"`
	for connection, pointer := range map[string]string{
		`{}`:                              "/url",
		`{"url": "tcp://192.0.2.1:4840"}`: "/url",
		`{"url": "opc.tcp://user@192.0.2.1:4840"}`:                        "/url",
		`{"url": "opc.tcp://192.0.2.1:70000"}`:                            "/url",
		`{` + url + `, "policy": "Basic256"}`:                             "/policy",
		`{` + url + `, "mode": "Encrypt"}`:                                "/mode",
		`{` + url + `, "policy": "None", "mode": "Sign"}`:                 "/mode",
		`{` + url + `, "policy": "Basic256Sha256", "mode": "None"}`:       "/mode",
		`{` + url + `, "trust": ["sha1:00"]}`:                             "/trust/0",
		`{` + url + `, "password": "x"}`:                                  "/password",
		`{` + url + `, "passwordFrom": {"secret": "a", "key": "b"}}`:      "/passwordFrom",
		`{` + url + `, "certificateFrom": {"secret": "a", "key": "b"}}`:   "/certificateFrom",
		`{` + url + `, "timeout": "0s"}`:                                  "/timeout",
		`{` + url + `, "publishingInterval": "1ms"}`:                      "/publishingInterval",
		`{` + url + `, "samplingInterval": "-1s"}`:                        "/samplingInterval",
		`{` + url + `, "queueSize": 0}`:                                   "/queueSize",
		`{` + url + `, "subscribe": "yes"}`:                               "/subscribe",
		`{` + url + `, "policy": "auto", "mode": "auto", "retries": "x"}`: "/retries",
	} {
		_, err := New().Open(mappers.DeviceConfig{Connection: json.RawMessage(connection)})
		pointsTo(t, connection, err, "/spec/connection"+pointer)
	}
	for address, pointer := range map[string]string{
		``:                               "",
		`{}`:                             "/node",
		`{"node": "Boiler.Temp"}`:        "/node",
		`{"node": "ns=2;g=no-guid"}`:     "/node",
		`{"node": "nsu=urn:x"}`:          "/node",
		`{"node": "nsu=urn:x;ns=2;i=1"}`: "/node",
		`{"node": "i=1", "index": -1}`:   "/index",
		`{"node": "i=1", "index": 1.5}`:  "/index",
		`{"node": "i=1", "element": 15}`: "/element",
	} {
		_, err := New().Open(mappers.DeviceConfig{Connection: json.RawMessage(`{` + url + `}`),
			Points: []mappers.Point{{Property: "p", Type: models.TypeInt, Access: models.Read, Address: json.RawMessage(address)}}})
		pointsTo(t, address, err, "/spec/properties/p/address"+pointer)
	}
	_, err := New().Open(mappers.DeviceConfig{Connection: json.RawMessage(`{` + url + `}`),
		Points: []mappers.Point{pt("p", models.TypeObject, models.Read, `{"node": "i=1"}`)}})
	pointsTo(t, "an object", err, "/spec/properties/p/address")
}

func pointsTo(t *testing.T, what string, err error, pointer string) {
	t.Helper()
	var e *models.Error
	if !errors.As(err, &e) || !slices.ContainsFunc(e.Fields, func(f models.FieldError) bool { return f.Pointer == pointer }) {
		t.Errorf("%s: %v points not to %s", what, err, pointer)
	}
}

func TestDefaultsAreNotSecured(t *testing.T) {
	for text, want := range map[string][2]string{
		`{"url": "opc.tcp://h"}`:                                       {none, none},
		`{"url": "opc.tcp://h", "policy": "auto"}`:                     {auto, auto},
		`{"url": "opc.tcp://h", "mode": "Sign"}`:                       {auto, "Sign"},
		`{"url": "opc.tcp://h", "policy": "Basic256Sha256"}`:           {"Basic256Sha256", auto},
		`{"url": "opc.tcp://h", "policy": "None", "mode": "auto"}`:     {none, none},
		`{"url": "opc.tcp://h/a/b", "policy": "auto", "mode": "None"}`: {none, none},
	} {
		c := checker{}
		got := c.target(json.RawMessage(text))
		if len(c.fields) > 0 || got.policy != want[0] || got.mode != want[1] {
			t.Errorf("%s: %s/%s, %v", text, got.policy, got.mode, c.fields)
		}
	}
	c := checker{}
	if got := c.target(json.RawMessage(`{"url": "opc.tcp://[::1]/a/b"}`)); got.url != "opc.tcp://[::1]:4840/a/b" {
		t.Errorf("url is %s", got.url)
	}
}
