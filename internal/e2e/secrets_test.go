package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/protocols/opcua"
	"github.com/whimbrel-edge/whimbrel/simulators/opcuasim"
)

const pressModel = `
apiVersion: whimbrel/v1
kind: DeviceModel
metadata: {name: press}
spec:
  protocol: opcua
  defaults: {every: 100ms}
  properties:
  - {name: speed, type: float, address: {node: "ns=2;s=speed"}}
`

// press is the Device of a simulated press, in JSON; connection is more of its
// fields.
func press(sim *opcuasim.Server, name, connection string) string {
	return fmt.Sprintf(`{"apiVersion": "whimbrel/v1", "kind": "Device", "metadata": {"name": %q},
		"spec": {"model": "press", "node": "gateway", "connection": {"url": %q, "timeout": "1s"%s}}}`, name, sim.URL(), connection)
}

func secret(name, data string) string {
	return fmt.Sprintf(`{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": %q}, "stringData": %s}`, name, data)
}

// TestSecrets serves OPC UA devices whose users and trusted servers are told bit by
// bit, and then looks for the secrets everywhere.
func TestSecrets(t *testing.T) {
	const marker = "Correct-Horse-Battery-Staple"
	user, err := opcua.MakeIdentity(opcua.Application{Name: "operator", URI: "urn:operator"})
	if err != nil {
		t.Fatal(err)
	}
	certificate := filepath.Join(t.TempDir(), "operator.pem")
	if err := os.WriteFile(certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: user.Certificate}), 0o600); err != nil {
		t.Fatal(err)
	}
	sim := opcuasim.Start(t, opcuasim.Config{Security: []string{"all"}, Users: map[string]string{"operator": marker}, UserCertificates: []string{certificate},
		Nodes: []opcuasim.Node{{Name: "speed", Type: "Double", Value: 12.5}}})
	h := newHub(t, "")
	newEdge := newEdge(t, h, "gateway", h.link)
	h.apply(pressModel)
	good := func(t *testing.T, name string) {
		t.Helper()
		h.awaitTwin(t, 20*time.Second, hubAPI, name, "is good", isGood("speed"))
	}
	condition := func(t *testing.T, name, typ, status, reason, says string) string {
		t.Helper()
		var message string
		eventually(t, 20*time.Second, fmt.Sprintf("%s is %s=%s %s", name, typ, status, reason), func() error {
			o, err := h.object(hubAPI + "/devices/" + name)
			if err != nil {
				return err
			}
			c := o.condition(typ)
			if c.Status != status || c.Reason != reason || !strings.Contains(c.Message, says) {
				return fmt.Errorf("it is %+v", c)
			}
			message = c.Message
			return nil
		})
		return message
	}
	const passwordFrom = `, "username": "operator", "passwordFrom": {"secret": "plc", "key": "password"}`

	step(t, "password", func(t *testing.T) {
		h.apply(press(sim, "press-1", passwordFrom))
		condition(t, "press-1", "SecretsAvailable", "False", "SecretNotFound", "Secret plc")
		condition(t, "press-1", "Ready", "False", "Misconfigured", "Secret plc is not there")
		h.apply(secret("plc", `{"pin": "1"}`))
		condition(t, "press-1", "SecretsAvailable", "False", "SecretKeyNotFound", "key password of Secret plc")
		condition(t, "press-1", "Ready", "False", "Misconfigured", "has no key password")
		h.apply(secret("plc", fmt.Sprintf(`{"password": %q}`, marker)))
		good(t, "press-1")
		condition(t, "press-1", "SecretsAvailable", "True", "SecretsFound", "")
		// Another one, and back.
		h.apply(secret("plc", `{"password": "wrong"}`))
		condition(t, "press-1", "Ready", "False", "Offline", "identity-rejected")
		h.apply(secret("plc", fmt.Sprintf(`{"password": %q}`, marker)))
		good(t, "press-1")
	})

	step(t, "trust", func(t *testing.T) {
		h.apply(press(sim, "press-2", passwordFrom+`, "policy": "Basic256Sha256", "mode": "SignAndEncrypt"`))
		message := condition(t, "press-2", "Ready", "False", "Offline", "whimbrel trust press-2 sha256:")
		command := regexp.MustCompile(`whimbrel (trust press-2 sha256:[0-9a-f]{64})`).FindStringSubmatch(message)
		if command == nil {
			t.Fatalf("no command in %q", message)
		}
		if out := h.must("", strings.Fields(command[1])...); !strings.Contains(out, "device/press-2 trusts sha256:") {
			t.Errorf("printed %s", out)
		}
		good(t, "press-2")
	})

	step(t, "certificate", func(t *testing.T) {
		text, err := json.Marshal(map[string]string{"user.pem": string(user.PEM())})
		if err != nil {
			t.Fatal(err)
		}
		h.apply(secret("who", string(text)))
		h.apply(press(sim, "press-3", `, "certificateFrom": {"secret": "who", "key": "user.pem"}`))
		good(t, "press-3")
		p := h.want(t, 422, "PUT", hubAPI+"/devices/press-4", press(sim, "press-4", `, "password": "x", "username": "u", "passwordFrom": {"secret": "plc", "key": "password"}`)).problem(t)
		if !strings.Contains(p.Detail, "cannot stand beside") {
			t.Errorf("%+v", p)
		}
	})

	step(t, "restart without a hub", func(t *testing.T) {
		h.stop()
		newEdge.stop()
		newEdge.again()
		local := newEdge.local()
		local.awaitTwin(t, 20*time.Second, edgeAPI, "press-1", "is good", isGood("speed"))
		h.begin()
		h.awaitReady()
		good(t, "press-1")
	})

	step(t, "nowhere in the clear", func(t *testing.T) {
		key := user.PEM()[100:160]
		var hidden [][]byte
		for _, s := range [][]byte{[]byte(marker), key} {
			hidden = append(hidden, s, []byte(base64.StdEncoding.EncodeToString(s)), []byte(strings.ReplaceAll(string(s), "\n", `\n`)))
		}
		check := func(where string, text []byte) {
			t.Helper()
			for _, s := range hidden {
				if bytes.Contains(text, s) {
					t.Errorf("%s shows a secret", where)
				}
			}
		}
		viewer := h.as(strings.TrimSpace(h.must("", "user", "create", "vera", "--role", "viewer")))
		for _, path := range []string{"/devices", "/devices/press-1", "/devices/press-3/twin", "/twins", "/nodes", "/audit", "/secrets", "/secrets?watch=true"} {
			if path == "/secrets" || strings.HasPrefix(path, "/secrets?") {
				viewer.want(t, 403, "GET", hubAPI+path, "")
				if strings.Contains(path, "watch") {
					continue // it does not end
				}
			}
			check(path, h.want(t, 200, "GET", hubAPI+path, "").body)
		}
		viewer.want(t, 403, "GET", hubAPI+"/secrets/plc", "")
		check("/metrics", h.want(t, 200, "GET", "/metrics", "").body)
		check("the edge's /metrics", newEdge.local().want(t, 200, "GET", "/metrics", "").body)
		check("the edge's twin", newEdge.local().want(t, 200, "GET", edgeAPI+"/devices/press-1/twin", "").body)
		for _, args := range [][]string{{"get", "secrets", "-o", "json"}, {"describe", "secret", "plc"}, {"describe", "device", "press-1"}, {"get", "devices", "-o", "yaml"}} {
			check(strings.Join(args, " "), []byte(h.must("", args...)))
		}
		if got := h.must("", "get", "secret", "plc", "-o", "yaml"); !strings.Contains(got, base64.StdEncoding.EncodeToString([]byte(marker))) {
			t.Errorf("an admin who asks for it gets %s", got)
		}
		for _, dir := range []string{h.data, newEdge.data, h.dir, newEdge.dir} { // databases with their logs, keys, outputs
			err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				text, err := os.ReadFile(path)
				check(path, text)
				return err
			})
			if err != nil {
				t.Error(err)
			}
		}
		for _, key := range []string{filepath.Join(h.data, "hub.key"), filepath.Join(newEdge.data, "edge.key")} {
			if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s: %v, %v", key, info, err)
			}
		}
	})

	step(t, "withdrawn", func(t *testing.T) {
		h.must("", "delete", "device", "press-1", "press-2")
		h.must("", "delete", "secret", "who")
		condition(t, "press-3", "SecretsAvailable", "False", "SecretNotFound", "who")
		condition(t, "press-3", "Ready", "False", "Misconfigured", "Secret who is not there")
	})
}
