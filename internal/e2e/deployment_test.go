package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/devicehub/store/postgres"
	"github.com/whimbrel-edge/whimbrel/internal/faultproxy"
	"github.com/whimbrel-edge/whimbrel/internal/need"
	"github.com/whimbrel-edge/whimbrel/internal/pgtest"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/simulators/modbussim"
	"github.com/whimbrel-edge/whimbrel/simulators/signal"
)

// tanks is a simulator of n devices with addresses of their own: tank-1, tank-2…
// Each has a level that counts up by one ten times a second, and a valve.
func tanks(t testing.TB, n int) *modbussim.Server {
	t.Helper()
	cfg := modbussim.Config{Signals: map[string]signal.Spec{"level": {Expr: "self + 1"}}}
	for i := range n {
		name := fmt.Sprintf("tank-%d", i+1)
		cfg.Units = append(cfg.Units, modbussim.Unit{Unit: 1, Name: name, Listen: "127.0.0.1:0", Points: []modbussim.Point{
			{Name: "level", Table: "input", Register: new(uint16(0)), Encoding: "uint32"},
			{Name: "valve", Table: "holding", Register: new(uint16(0)), Encoding: "uint16", Signal: fmt.Sprintf("valve_%d", i+1), Writable: true},
			{Name: "dose", Table: "holding", Register: new(uint16(1)), Encoding: "uint16", Signal: fmt.Sprintf("dose_%d", i+1), Writable: true},
		}})
	}
	return modbussim.Start(t, cfg)
}

// tankModel is the DeviceModel of tanks, in YAML.
const tankModel = `
apiVersion: whimbrel/v1
kind: DeviceModel
metadata: {name: tank}
spec:
  protocol: modbus
  defaults: {every: 200ms}
  properties:
  - {name: level, type: int, unit: l, access: Read, address: {table: input, register: 0, encoding: uint32}}
  - {name: valve, type: int, access: ReadWrite, minimum: 0, maximum: 100, write: hold, address: {table: holding, register: 0, encoding: uint16}}
  - {name: dose, type: int, access: ReadWrite, address: {table: holding, register: 1, encoding: uint16}}
`

// tank is the Device of one of them, in JSON.
func tank(sim *modbussim.Server, name, node string) string {
	return fmt.Sprintf(`{"apiVersion": "whimbrel/v1", "kind": "Device", "metadata": {"name": %q, "labels": {"area": "yard"}},
		"spec": {"model": "tank", "node": %q, "connection": {"url": "tcp://%s", "timeout": "500ms"}}}`, name, node, sim.UnitAddr(name))
}

func isGood(props ...string) func(twinDoc) bool {
	return func(d twinDoc) bool {
		for _, p := range props {
			if d.quality(p) != "good" {
				return false
			}
		}
		return d.State == "online"
	}
}

// TestRealDeployment goes through the life of a hub with Postgres and TLS and
// an edge on another machine, as an operator would set them up.
func TestRealDeployment(t *testing.T) {
	t.Parallel()
	database := pgtest.New(t)
	h := newHub(t, database)
	proxy := faultproxy.New(t, h.link)
	sim := tanks(t, 3)

	if !strings.HasPrefix(h.url, "https://") {
		t.Errorf("the hub's API is at %s, want TLS", h.url)
	}

	// Join with the command that was printed, but for the ports, which this
	// machine shares, and the way through the proxy.
	printed := h.must("", "token", "create", "--node", "gateway-1")
	command := regexp.MustCompile(`whimbrel edge .*`).FindString(printed)
	if command == "" {
		t.Fatalf("no command in what token create printed:\n%s", printed)
	}
	words := strings.Fields(strings.ReplaceAll(command, `\`, ""))
	for _, flag := range []string{"--hub", "--token", "--name"} {
		if !strings.Contains(command, flag+" ") {
			t.Fatalf("no %s in %q", flag, command)
		}
	}
	if !strings.Contains(command, "https://"+h.link) {
		t.Errorf("the command does not lead to the hub's link %s: %s", h.link, command)
	}
	token := regexp.MustCompile(`--token (\S+)`).FindStringSubmatch(command)[1]
	e := &edge{process: newProcess(t, "edge gateway-1", program(t, "whimbrel")), node: "gateway-1", data: t.TempDir(), mqtt: holdPort(t), addr: holdPort(t), command: []string{"edge"}}
	// The certificate names 127.0.0.1, so the proxy there is the hub as well.
	viaProxy := strings.Fields(strings.ReplaceAll(strings.Join(words[1:], " "), h.link, proxy.Addr()))
	e.start(append(viaProxy, "--data", e.data, "--mqtt", e.mqtt, "--api", e.addr, "--labels", "site=north")...)
	h.awaitNode(t, "gateway-1", true)

	step(t, "token works once", func(t *testing.T) {
		for _, c := range []struct{ token, name, says string }{
			{token, "gateway-1", "used"},
			{h.joinToken("gateway-7"), "gateway-8", "another node"},
		} {
			other := newProcess(t, "edge that may not join", program(t, "whimbrel-edge"))
			other.start("--hub", "https://"+h.link, "--token", c.token, "--name", c.name, "--data", t.TempDir(), "--mqtt", "127.0.0.1:0", "--api", "127.0.0.1:0")
			eventually(t, 10*time.Second, c.name+" is told why it may not join, and ends", func() error {
				if how, gone := other.gone(); !gone || how != "exit status 1" {
					return fmt.Errorf("it is running, or ended with %q", how)
				}
				if text := other.stderr(); !strings.Contains(text, "join") || !strings.Contains(text, c.says) {
					return fmt.Errorf("it says %q, want %q in it", text, c.says)
				}
				return nil
			})
			other.kill()
		}
		if got, err := h.do("GET", hubAPI+"/nodes/gateway-8", ""); err != nil || got.status != 404 {
			t.Errorf("a node that could not join: %v, %v", got, err)
		}
		if o := h.awaitNode(t, "gateway-1", true); o.Kind != "Node" {
			t.Errorf("the node is %+v", o)
		}
	})

	step(t, "no anonymous apps", func(t *testing.T) {
		host, port, _ := strings.Cut(e.mqtt, ":")
		r := run(t, "", need.Program(t, "mosquitto_sub", "mosquitto-clients"), "-h", host, "-p", port, "-t", "#", "-W", "2")
		if r.code == 0 || !strings.Contains(r.stderr, "refused") && !strings.Contains(r.stderr, "authori") {
			t.Errorf("an anonymous subscriber: %v", r)
		}
	})

	step(t, "certificates", func(t *testing.T) { certificates(t, h, e) })

	step(t, "roles", func(t *testing.T) { roles(t, h) })

	step(t, "register", func(t *testing.T) {
		h.want(t, 201, "POST", hubAPI+"/devicemodels", tankModel, "Content-Type", "application/yaml")
		h.want(t, 201, "POST", hubAPI+"/devices", tank(sim, "tank-1", "gateway-1"))
		h.want(t, 409, "POST", hubAPI+"/devices", tank(sim, "tank-1", "gateway-1"))
		h.want(t, 201, "PUT", hubAPI+"/devices/tank-2", tank(sim, "tank-2", "gateway-1"))
		h.want(t, 201, "POST", hubAPI+"/devices", tank(sim, "tank-3", "gateway-1"))
		wrong := h.want(t, 422, "POST", hubAPI+"/devices", strings.NewReplacer(`"url"`, `"uri"`, `"tank-1"`, `"tank-4"`).Replace(tank(sim, "tank-1", "gateway-1")))
		if pr := wrong.problem(t); len(pr.Errors) == 0 || !strings.HasPrefix(pr.Errors[0].Pointer, "/spec/connection") {
			t.Errorf("a misspelt connection: %v", wrong)
		}
		d := h.awaitTwin(t, 10*time.Second, hubAPI, "tank-1", "is good", isGood("level", "valve", "dose"))
		if age := time.Since(d.Properties["level"].Reported.Time); age < 0 || age > 3*time.Second {
			t.Errorf("the level is %v old", age)
		}
		if d.Properties["level"].Unit != "l" {
			t.Errorf("the level's unit is %q", d.Properties["level"].Unit)
		}
		// GET, edit, PUT.
		got := h.want(t, 200, "GET", hubAPI+"/devices/tank-2", "")
		edited := strings.Replace(string(got.body), `"yard"`, `"garden"`, 1)
		h.want(t, 200, "PUT", hubAPI+"/devices/tank-2", edited, "If-Match", got.header.Get("ETag"))
		h.want(t, 412, "PUT", hubAPI+"/devices/tank-2", edited, "If-Match", got.header.Get("ETag"))
		if list := h.must("", "get", "devices", "-l", "area=garden", "-o", "json"); !strings.Contains(list, "tank-2") || strings.Contains(list, "tank-1") {
			t.Errorf("devices with area=garden: %s", list)
		}
		h.want(t, 409, "DELETE", hubAPI+"/devicemodels/tank", "") // in use
	})

	step(t, "unplug", func(t *testing.T) {
		h.awaitTwin(t, 10*time.Second, hubAPI, "tank-2", "is good", isGood("level"))
		before := h.awaitTwin(t, 10*time.Second, hubAPI, "tank-1", "is good", isGood("level"))
		sim.Unplug("tank-1")
		bad := h.awaitTwin(t, 10*time.Second, hubAPI, "tank-1", "is bad", func(d twinDoc) bool { return d.quality("level") == "bad/not-connected" })
		r := bad.Properties["level"].Reported
		if string(r.Value) == "null" || r.Since.IsZero() || !r.Since.After(r.Time) {
			t.Errorf("a bad level keeps its last good value and that one's time: %+v", r)
		}
		if r.Time.Before(before.Properties["level"].Reported.Time) {
			t.Errorf("the bad level's value is of %v, before it was of %v", r.Time, before.Properties["level"].Reported.Time)
		}
		// The neighbour does not notice: five reads a second, as before.
		reads := sim.Requests("tank-2")
		at := time.Now()
		eventually(t, 10*time.Second, "tank-2 is read on", func() error {
			if n := sim.Requests("tank-2") - reads; n < 20 {
				return fmt.Errorf("%d requests", n)
			}
			return nil
		})
		perRead := time.Since(at) / 10 // input and holding registers are read apart
		if perRead > 300*time.Millisecond {
			t.Errorf("tank-2 is read every %v while tank-1 is unplugged, want 200 ms", perRead)
		}
		o, err := h.object(hubAPI + "/devices/tank-1")
		if err != nil || o.Status.State != "offline" {
			t.Errorf("tank-1 is %q, %v; want offline", o.Status.State, err)
		}
		if err := sim.Plug("tank-1"); err != nil {
			t.Fatal(err)
		}
		h.awaitTwin(t, 30*time.Second, hubAPI, "tank-1", "is good again", isGood("level", "valve"))
	})

	step(t, "write", func(t *testing.T) {
		h.want(t, 200, "PATCH", hubAPI+"/devices/tank-1/twin/desired?wait=5s", `{"valve": 40}`)
		if v, _ := sim.Get("tank-1", "valve"); fmt.Sprint(v) != "40" {
			t.Errorf("the valve is at %v", v)
		}
		// Someone turns it by hand; it is held.
		if err := sim.Set("tank-1", "valve", 41); err != nil {
			t.Fatal(err)
		}
		eventually(t, 10*time.Second, "the valve is held", func() error {
			if v, _ := sim.Get("tank-1", "valve"); fmt.Sprint(v) != "40" {
				return fmt.Errorf("at %v", v)
			}
			return nil
		})
	})

	step(t, "hub restarts", func(t *testing.T) {
		h.stop()
		h.begin()
		h.awaitReady()
		h.awaitNode(t, "gateway-1", true)
		h.awaitTwin(t, 10*time.Second, hubAPI, "tank-1", "is live", isGood("level", "valve"))
	})

	step(t, "edge restarts with its data alone", func(t *testing.T) {
		e.stop()
		h.awaitNode(t, "gateway-1", false)
		h.awaitTwin(t, 10*time.Second, hubAPI, "tank-1", "is stale", func(d twinDoc) bool { return d.quality("level") == "uncertain/stale" })
		start := time.Now()
		got := h.want(t, 503, "PATCH", hubAPI+"/devices/tank-1/twin/desired?wait=10s", `{"valve": 50}`)
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("503 took %v, want it at once", took)
		}
		got.problem(t)
		e.again()
		h.awaitNode(t, "gateway-1", true)
		h.awaitTwin(t, 10*time.Second, hubAPI, "tank-1", "has what was desired meanwhile", func(d twinDoc) bool {
			return d.value("valve") == "50" && d.write("valve") == "applied" && isGood("level")(d)
		})
		if got := e.local().want(t, 200, "GET", edgeAPI+"/devices", ""); !strings.Contains(string(got.body), "tank-1") {
			t.Errorf("the edge's devices: %v", got)
		}
	})

	step(t, "edge alone", func(t *testing.T) { alone(t, h, e, sim, proxy) })

	step(t, "history is whole", func(t *testing.T) {
		o, err := h.object(hubAPI + "/devices/tank-1")
		if err != nil {
			t.Fatal(err)
		}
		db := openStore(t, database)
		var last int64 = -1
		n, backfilled := 0, 0
		err = db.Samples(t.Context(), o.Metadata.UID, "level", 0, time.Now().Add(time.Hour).UnixMicro(), func(s store.Sample) error {
			if models.Quality(s.Quality) != models.Good {
				return nil
			}
			if s.Int <= last {
				t.Errorf("the level went from %d to %d", last, s.Int)
			}
			last = s.Int
			n++
			if s.Backfill {
				backfilled++
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if n < 20 || backfilled < 8 {
			t.Errorf("%d samples of the level, %d of them backfilled", n, backfilled)
		}
	})

	step(t, "delete", func(t *testing.T) {
		before := sim.Requests("tank-3")
		if before == 0 {
			t.Error("tank-3 was never read")
		}
		h.must("", "delete", "device", "tank-3")
		h.want(t, 404, "GET", hubAPI+"/devices/tank-3", "")
		h.want(t, 404, "GET", hubAPI+"/devices/tank-3/twin", "")
		eventually(t, 10*time.Second, "tank-3 is gone from the edge", func() error {
			got, err := e.local().do("GET", edgeAPI+"/devices/tank-3/twin", "")
			if err == nil && got.status != 404 {
				err = fmt.Errorf("%v", got)
			}
			return err
		})
		h.must("", "delete", "device", "tank-1")
		h.must("", "delete", "device", "tank-2")
		h.must("", "delete", "devicemodel", "tank")
		if r := h.cli("", "get", "devices"); r.code != 0 {
			t.Errorf("get with nothing there: %v", r)
		}
		if r := h.cli("", "get", "device", "tank-1"); r.code != 1 || !strings.Contains(r.stderr, "tank-1") {
			t.Errorf("get of what is not there: %v", r)
		}
	})
}

// certificates checks that the link talks to its nodes only, under their names.
func certificates(t *testing.T, h *hub, e *edge) {
	dial := func(cert *tls.Certificate) (answer, error) {
		config := &tls.Config{InsecureSkipVerify: true} // who we are is the question, not who the hub is
		if cert != nil {
			config.Certificates = []tls.Certificate{*cert}
		}
		a := &api{url: "https://" + h.link, http: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: config}}}
		return a.do("GET", "/link", "")
	}
	if got, err := dial(nil); err == nil && got.status != 401 {
		t.Errorf("the link without a certificate: %v", got)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	forged := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "gateway-1"}, DNSNames: []string{"gateway-1"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, forged, forged, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := dial(&tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}); err == nil && got.status != 401 && got.status != 403 {
		t.Errorf("the link with a forged certificate: %v", got)
	}
	// A node's own certificate under another node's name.
	stolen := &edge{process: newProcess(t, "edge under another name", e.path), data: filepath.Join(t.TempDir(), "copy"), command: e.command}
	copyDir(t, e.data, stolen.data)
	stolen.start(append(stolen.command, "--data", stolen.data, "--name", "gateway-9", "--mqtt", "127.0.0.1:0", "--api", "127.0.0.1:0")...)
	eventually(t, 10*time.Second, "an edge under another's name ends", func() error {
		if how, gone := stolen.gone(); !gone || how == "exit status 0" {
			return fmt.Errorf("it is running, or ended with %q", how)
		}
		return nil
	})
	if text := stolen.stderr(); !strings.Contains(text, "gateway-1") {
		t.Errorf("an edge under another's name says %q", text)
	}
	if got, err := h.do("GET", hubAPI+"/nodes/gateway-9", ""); err != nil || got.status != 404 {
		t.Errorf("a node that never joined: %v, %v", got, err)
	}
}

// roles checks who may do what.
func roles(t *testing.T, h *hub) {
	h.want(t, 201, "POST", hubAPI+"/devicemodels", `{"apiVersion": "whimbrel/v1", "kind": "DeviceModel", "metadata": {"name": "switch"}, "spec": {"protocol": "modbus",
		"properties": [{"name": "on", "type": "bool", "access": "ReadWrite", "address": {"table": "coil", "register": 0}}]}}`)
	device := `{"apiVersion": "whimbrel/v1", "kind": "Device", "metadata": {"name": "switch-1"}, "spec": {"model": "switch", "node": "nowhere", "connection": {"url": "tcp://127.0.0.1:9"}}}`
	h.want(t, 201, "POST", hubAPI+"/devices", device)
	user := func(name string, args ...string) *api {
		var made struct{ Token string }
		out := h.must("", append([]string{"user", "create", name, "-o", "json"}, args...)...)
		if err := json.Unmarshal([]byte(out), &made); err != nil || made.Token == "" {
			t.Fatalf("user create printed %q: %v", out, err)
		}
		return h.as(made.Token)
	}
	users := map[string]*api{
		"nobody":   h.as(""),
		"stranger": h.as("wbu_0000000000000000"),
		"viewer":   user("vera", "--role", "viewer"),
		"operator": user("otto", "--role", "operator"),
		"admin":    user("ada", "--role", "admin", "--all-namespaces"),
		"foreign":  user("fritz", "--role", "operator", "-n", "elsewhere"),
	}
	// A user object without a role is none.
	h.want(t, 422, "POST", hubAPI+"/users", `{"apiVersion": "whimbrel/v1", "kind": "User", "metadata": {"name": "norole"}, "spec": {}}`)
	for _, c := range []struct {
		method, path, body string
		want               map[string]int
	}{
		{"GET", "/devices/switch-1", "", map[string]int{"nobody": 401, "stranger": 401, "viewer": 200, "operator": 200, "admin": 200, "foreign": 403}},
		{"GET", "/devices/switch-1/twin", "", map[string]int{"nobody": 401, "stranger": 401, "viewer": 200, "operator": 200, "admin": 200, "foreign": 403}},
		{"PATCH", "/devices/switch-1/twin/desired", `{"on": true}`, map[string]int{"nobody": 401, "stranger": 401, "viewer": 403, "operator": 202, "admin": 202, "foreign": 403}},
		{"PUT", "/devices/switch-1", device, map[string]int{"nobody": 401, "stranger": 401, "viewer": 403, "operator": 403, "admin": 200, "foreign": 403}},
		{"POST", "/tokens", `{"node": "evil"}`, map[string]int{"nobody": 401, "stranger": 401, "viewer": 403, "operator": 403, "admin": 201, "foreign": 403}},
		{"GET", "/users", "", map[string]int{"nobody": 401, "stranger": 401, "viewer": 403, "operator": 403, "admin": 200, "foreign": 403}},
	} {
		for who, status := range c.want {
			got, err := users[who].do(c.method, hubAPI+c.path, c.body)
			if err != nil || got.status != status {
				t.Errorf("%s %s by %s: %v, %v; want %d", c.method, c.path, who, got, err, status)
			}
		}
	}
	if got, err := h.do("GET", hubAPI+"/devices/switch-1", ""); err != nil || !strings.Contains(string(got.body), "NodeNotFound") {
		t.Errorf("a device of a node that does not exist: %v, %v", got, err)
	}
	h.want(t, 200, "DELETE", hubAPI+"/devices/switch-1", "")
	h.want(t, 200, "DELETE", hubAPI+"/devicemodels/switch", "")
}

// alone cuts the edge off: it works on, restarts on its own, and both sides
// agree afterwards.
func alone(t *testing.T, h *hub, e *edge, sim *modbussim.Server, proxy *faultproxy.Proxy) {
	local := e.local()
	h.want(t, 200, "PATCH", hubAPI+"/devices/tank-1/twin/desired?wait=5s", `{"valve": 10, "dose": 1}`)
	h.awaitTwin(t, 5*time.Second, hubAPI, "tank-2", "is live", isGood("level"))

	proxy.Set(faultproxy.Refuse)
	h.awaitNode(t, "gateway-1", false)
	h.awaitTwin(t, 10*time.Second, hubAPI, "tank-2", "is stale", func(d twinDoc) bool { return d.quality("level") == "uncertain/stale" })
	from := sim.Requests("tank-2")
	// The cloud may say what it wants meanwhile.
	h.want(t, 202, "PATCH", hubAPI+"/devices/tank-2/twin/desired", `{"valve": 77}`)
	h.want(t, 202, "PATCH", hubAPI+"/devices/tank-1/twin/desired", `{"valve": 20}`)

	local.want(t, 200, "PATCH", edgeAPI+"/devices/tank-1/twin/desired?wait=5s", `{"dose": 5}`)
	if v, _ := sim.Get("tank-1", "dose"); fmt.Sprint(v) != "5" {
		t.Errorf("the dose is %v after a local write", v)
	}
	// Restarted, with nobody to ask.
	e.kill()
	e.again()
	local = e.local()
	local.awaitTwin(t, 15*time.Second, edgeAPI, "tank-2", "is good without a hub", isGood("level", "valve"))
	d := local.awaitTwin(t, 10*time.Second, edgeAPI, "tank-1", "remembers", func(d twinDoc) bool { return isGood("level")(d) && d.value("dose") == "5" })
	if p := d.Properties["valve"]; p.Desired == nil || string(p.Desired.Value) != "10" {
		t.Errorf("the edge wants the valve at %+v, want the 10 it knew", p.Desired)
	}
	// Both change the valve of tank-1: the cloud's stands. The dose was changed
	// here alone: it becomes the desired value.
	local.want(t, 200, "PATCH", edgeAPI+"/devices/tank-1/twin/desired?wait=5s", `{"valve": 30}`)
	if v, _ := sim.Get("tank-1", "valve"); fmt.Sprint(v) != "30" {
		t.Errorf("the valve is at %v, want the local 30", v)
	}
	eventually(t, 10*time.Second, "there is something to tell", func() error {
		if n := sim.Requests("tank-2") - from; n < 40 {
			return fmt.Errorf("%d requests", n)
		}
		return nil
	})
	proxy.Set(faultproxy.Pass)
	h.awaitNode(t, "gateway-1", true)
	h.awaitTwin(t, 15*time.Second, hubAPI, "tank-2", "has what was desired while it was away", func(d twinDoc) bool {
		return d.value("valve") == "77" && d.write("valve") == "applied"
	})
	h.awaitTwin(t, 15*time.Second, hubAPI, "tank-1", "is as the conflict rule says", func(d twinDoc) bool {
		valve, dose := d.Properties["valve"], d.Properties["dose"]
		return valve.Desired != nil && string(valve.Desired.Value) == "20" && d.value("valve") == "20" &&
			dose.Desired != nil && string(dose.Desired.Value) == "5" && d.value("dose") == "5"
	})
	local.awaitTwin(t, 10*time.Second, edgeAPI, "tank-1", "agrees", func(d twinDoc) bool {
		valve := d.Properties["valve"]
		return valve.Desired != nil && string(valve.Desired.Value) == "20" && d.value("valve") == "20"
	})
	for unit, want := range map[string]string{"tank-1": "20", "tank-2": "77"} {
		if v, _ := sim.Get(unit, "valve"); fmt.Sprint(v) != want {
			t.Errorf("the valve of %s is at %v, want %s", unit, v, want)
		}
	}
	doses := 0
	for _, w := range sim.Writes() {
		if w.Unit == "tank-1" && w.Point == "dose" && fmt.Sprint(w.Value) == "5" {
			doses++
		}
	}
	if doses != 1 {
		t.Errorf("the dose, marked once, was written %d times", doses)
	}
}

// openStore opens the hub's database beside it, to look at what is there.
func openStore(t testing.TB, database string) *postgres.Store {
	t.Helper()
	s, err := postgres.Open(t.Context(), database, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}
