package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/simulators/opcuasim"
)

// TestBrowse looks around in an OPC UA server, through hub, link and edge and from
// here, and serves a device with the model that comes of it.
func TestBrowse(t *testing.T) {
	sim := opcuasim.Start(t, opcuasim.Config{Name: "press", Users: map[string]string{"operator": "secret"}, Security: []string{"None", "Basic256Sha256/SignAndEncrypt"},
		Nodes: []opcuasim.Node{{Name: "speed", Type: "Double", Value: 12.5, Unit: "1/min"}, {Name: "setpoint", Type: "Float", Writable: true, Value: 1}}})
	tanks := tanks(t, 1)
	h := newHub(t, "")
	e := newEdge(t, h, "gateway", h.link)
	const user = `, "username": "operator", "passwordFrom": {"secret": "plc", "key": "password"}`
	for _, o := range []string{pressModel, tankModel, tank(tanks, "tank-1", "gateway"), secret("plc", `{"password": "secret"}`), press(sim, "press-1", user)} {
		h.apply(o)
	}
	h.awaitTwin(t, 20*time.Second, hubAPI, "press-1", "is good", isGood("speed"))
	client := func(stdin string, args ...string) result {
		return run(t, stdin, h.path, append([]string{"--context", filepath.Join(h.data, "context.json")}, args...)...)
	}
	out := h.must("", "browse", "press-1")
	for _, want := range []string{"press/", "speed", "Double", "1/min", "ReadWrite", `s=setpoint`} {
		if !strings.Contains(out, want) {
			t.Errorf("%s is not in\n%s", want, out)
		}
	}
	// What it prints can be applied, and served.
	model := client("", "browse", "press-1", "--model", "found")
	if model.code != 0 || !strings.Contains(model.stderr, "model found: 2 properties") || strings.Contains(model.stdout, "model found:") {
		t.Fatal(model)
	}
	h.must(model.stdout, "apply", "-f", "-")
	h.apply(strings.Replace(press(sim, "press-2", user), `"model": "press"`, `"model": "found"`, 1))
	h.awaitTwin(t, 20*time.Second, hubAPI, "press-2", "is good", func(d twinDoc) bool { return d.quality("speed") == "good" && d.quality("setpoint") == "good" })

	// From here, past the hub.
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	direct := client("", "browse", sim.URL(), "--username", "operator", "--password-file", password, "-o", "json")
	if direct.code != 0 || !strings.Contains(direct.stdout, `"unit": "1/min"`) {
		t.Error(direct)
	}
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"nix"}, 1, "not found"},
		{[]string{"tank-1"}, 1, "cannot be browsed"},
		{[]string{"tcp://127.0.0.1:502"}, 1, "cannot be browsed"},
		{[]string{"ftp://127.0.0.1:502"}, 2, "no driver speaks ftp://"},
		{[]string{"press-1", "--username", "x"}, 2, "a device has a connection of its own"},
		{[]string{sim.URL()}, 1, "identity-rejected"},
		{[]string{sim.URL(), "--username", "operator", "--password-file", password, "--mode", "SignAndEncrypt"}, 1, "--trust sha256:"},
		{[]string{"press-1", "--model", "Not A Name"}, 2, "--model"},
	} {
		if r := client("", append([]string{"browse"}, c.args...)...); r.code != c.code || !strings.Contains(r.stderr, c.says) {
			t.Errorf("browse %q: %d %s, want %d %q", c.args, r.code, r.stderr, c.code, c.says)
		}
	}
	h.want(t, 502, "POST", hubAPI+"/devices/tank-1/browse", "")
	sim.Unplug()
	h.want(t, 504, "POST", hubAPI+"/devices/press-1/browse", "")
	e.stop()
	h.want(t, 503, "POST", hubAPI+"/devices/press-1/browse", "")
}
