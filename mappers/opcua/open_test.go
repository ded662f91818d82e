package opcua

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
	wire "github.com/whimbrel-edge/whimbrel/protocols/opcua"
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
		`{` + url + `, "username": "u", "passwordFrom": {"secret": "a"}}`: "/passwordFrom",
		`{` + url + `, "passwordFrom": {"name": "a", "key": "b"}}`:        "/passwordFrom/name",
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

func TestOpenTakesSecrets(t *testing.T) {
	id, err := wire.MakeIdentity(wire.Application{Name: "operator", URI: "urn:operator"})
	if err != nil {
		t.Fatal(err)
	}
	other, err := wire.MakeIdentity(wire.Application{Name: "other", URI: "urn:other"})
	if err != nil {
		t.Fatal(err)
	}
	cert := func(id *wire.Identity) []byte {
		_, rest := pem.Decode(id.PEM())
		return rest
	}
	key := id.PEM()[:len(id.PEM())-len(cert(id))]
	const from = `: {"secret": "s", "key": "k"}`
	open := func(fields string, secrets map[string][]byte) error {
		given := map[string]mappers.Secret{}
		for field, value := range secrets {
			given[field] = mappers.NewSecret(value)
		}
		d, err := New().Open(mappers.DeviceConfig{Connection: json.RawMessage(`{"url": "opc.tcp://h", ` + fields + `}`), Secrets: given})
		if err == nil {
			_ = d.Close()
		}
		return err
	}
	for _, c := range []struct {
		fields  string
		secrets map[string][]byte
		pointer string // "" for none
	}{
		{`"username": "u", "passwordFrom"` + from, map[string][]byte{"passwordFrom": []byte("p4ssw0rd")}, ""},
		{`"username": "u", "password": "x", "passwordFrom"` + from, map[string][]byte{"passwordFrom": []byte("p4ssw0rd")}, "/passwordFrom"},
		{`"certificateFrom"` + from, map[string][]byte{"certificateFrom": id.PEM()}, ""},
		{`"username": "u", "certificateFrom"` + from, map[string][]byte{"certificateFrom": id.PEM()}, "/certificateFrom"},
		{`"certificateFrom"` + from, map[string][]byte{"certificateFrom": []byte("p4ssw0rd")}, "/certificateFrom"},
		{`"certificateFrom"` + from, map[string][]byte{"certificateFrom": key}, "/certificateFrom"},
		{`"certificateFrom"` + from, map[string][]byte{"certificateFrom": cert(id)}, "/certificateFrom"},
		{`"certificateFrom"` + from, map[string][]byte{"certificateFrom": append(slices.Clone(key), cert(other)...)}, "/certificateFrom"},
	} {
		err := open(c.fields, c.secrets)
		if c.pointer == "" {
			if err != nil {
				t.Errorf("%s: %v", c.fields, err)
			}
			continue
		}
		pointsTo(t, c.fields, err, "/spec/connection"+c.pointer)
		if err != nil && (strings.Contains(err.Error(), "p4ssw0rd") || strings.Contains(err.Error(), "MII")) {
			t.Errorf("the error tells of the secret: %v", err)
		}
	}
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
		if len(c.Found()) > 0 || got.policy != want[0] || got.mode != want[1] {
			t.Errorf("%s: %s/%s, %v", text, got.policy, got.mode, c.Found())
		}
	}
	c := checker{}
	if got := c.target(json.RawMessage(`{"url": "opc.tcp://[::1]/a/b"}`)); got.url != "opc.tcp://[::1]:4840/a/b" {
		t.Errorf("url is %s", got.url)
	}
}
