package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/internal/need"
	"github.com/whimbrel-edge/whimbrel/protocols/modbus"
	"github.com/whimbrel-edge/whimbrel/simulators/modbussim"
)

// up is `whimbrel up` on free ports.
type up struct {
	*process
	*api
	banner   string
	mqtt     string
	readyIn  time.Duration
	edgeData string
}

func startUp(t *testing.T, p *process, data string, more ...string) *up {
	t.Helper()
	u := &up{process: p, edgeData: filepath.Join(data, "edge")}
	before, began := len(p.stdout()), time.Now()
	p.start(append([]string{"up", "--data", data, "--listen", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--api", "127.0.0.1:0"}, more...)...)
	eventually(t, 30*time.Second, "up is up", func() error {
		if how, gone := p.gone(); gone {
			t.Fatalf("up ended: %s", how)
		}
		if u.banner = p.stdout()[before:]; !strings.Contains(u.banner, "Ctrl-C") {
			return fmt.Errorf("it printed %q", u.banner)
		}
		return nil
	})
	u.readyIn = time.Since(began)
	var err error
	if u.api, err = apiOf(data); err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`mqtt://(127\.0\.0\.1:\d+)`).FindStringSubmatch(u.banner)
	if m == nil || strings.HasSuffix(m[1], ":0") {
		t.Fatalf("no address of the broker in:\n%s", u.banner)
	}
	u.mqtt = m[1]
	return u
}

// TestUp plays a newcomer's first quarter of an hour.
func TestUp(t *testing.T) {
	mosquitto := need.Program(t, "mosquitto_sub", "mosquitto-clients")
	publisher := need.Program(t, "mosquitto_pub", "mosquitto-clients")
	dir := t.TempDir()
	data := filepath.Join(dir, "whimbrel-data")
	p := newProcess(t, "up", program(t, "whimbrel"))
	p.wd = dir
	u := startUp(t, p, data)
	t.Logf("ready in %v", u.readyIn.Round(time.Millisecond))
	if u.readyIn > 5*time.Second {
		t.Errorf("ready in %v, want less than 5 s", u.readyIn)
	}

	step(t, "ready", func(t *testing.T) {
		if !strings.Contains(u.banner, u.url+"/api/v1") {
			t.Errorf("the banner does not say where the API is (%s):\n%s", u.url, u.banner)
		}
		// Twins are live the moment it says so.
		d, err := u.twin(hubAPI, "boiler-1")
		if err != nil {
			t.Fatal(err)
		}
		if q := d.quality("temperature"); q != "good" {
			t.Errorf("the temperature is %q once it is up", q)
		}
		info, err := os.Stat(filepath.Join(data, "context.json"))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("context.json: %v, %v; want mode 0600", info.Mode(), err)
		}
	})

	step(t, "plant", func(t *testing.T) {
		promised := []struct{ prop, kind, access string }{{"temperature", "float", "Read"}, {"setpoint", "float", "ReadWrite"}, {"running", "bool", "ReadWrite"}}
		var model struct {
			Spec struct {
				Properties []struct {
					Name, Type, Access string
					Minimum, Maximum   *float64
				}
			}
		}
		u.want(t, 200, "GET", hubAPI+"/devicemodels/boiler", "").into(t, &model)
		for _, want := range promised {
			found := false
			for _, p := range model.Spec.Properties {
				if p.Name == want.prop {
					found = true
					if p.Type != want.kind || p.Access != want.access {
						t.Errorf("%s is %s %s, want %s %s", p.Name, p.Type, p.Access, want.kind, want.access)
					}
					if p.Name == "setpoint" && (p.Minimum == nil || *p.Minimum != 0 || p.Maximum == nil || *p.Maximum != 95) {
						t.Error("setpoint is not 0 to 95")
					}
				}
			}
			if !found {
				t.Errorf("the boiler has no %s", want.prop)
			}
		}
		for _, name := range []string{"boiler-1", "pump-1", "meter-1", "press-1", "scale-1"} {
			u.awaitTwin(t, 5*time.Second, hubAPI, name, "online and good", func(d twinDoc) bool {
				for prop := range d.Properties {
					if d.quality(prop) != "good" {
						return false
					}
				}
				return d.State == "online" && len(d.Properties) > 0
			})
		}
	})

	step(t, "printed commands", func(t *testing.T) {
		lines := regexp.MustCompile(`(?m)^  (whimbrel .*)$`).FindAllStringSubmatch(u.banner, -1)
		if len(lines) != 3 {
			t.Fatalf("%d commands in the banner, want 3:\n%s", len(lines), u.banner)
		}
		for _, l := range lines {
			r := run(t, "", "/bin/sh", "-c", "cd "+dir+" && "+l[1])
			if r.code != 0 || r.stdout == "" {
				t.Errorf("%s: %v", l[1], r)
			}
		}
		if !strings.Contains(u.banner, "setpoint=60 --wait 5s") {
			t.Errorf("none of them sets the setpoint:\n%s", u.banner)
		}
	})

	var boiler struct {
		Spec struct{ Connection struct{ URL string } }
	}
	u.want(t, 200, "GET", hubAPI+"/devices/boiler-1", "").into(t, &boiler)
	address := strings.TrimPrefix(boiler.Spec.Connection.URL, "tcp://")
	register := func(t *testing.T) float64 {
		t.Helper()
		line := modbus.NewLine(modbus.LineConfig{Address: address})
		defer line.Close()
		regs, err := line.Client(1, time.Second).ReadHolding(t.Context(), 10, 2)
		if err != nil {
			t.Fatal(err)
		}
		v, err := modbus.Float32.Decode(modbus.CDAB, regs)
		if err != nil {
			t.Fatal(err)
		}
		return v.Float()
	}

	step(t, "write", func(t *testing.T) {
		before := u.awaitTwin(t, 5*time.Second, hubAPI, "boiler-1", "has a temperature", func(d twinDoc) bool { return d.quality("temperature") == "good" })
		r := run(t, "", u.path, "--context", filepath.Join(data, "context.json"), "twin", "set", "boiler-1", "setpoint=60", "--wait", "5s")
		if r.code != 0 {
			t.Fatal(r)
		}
		if got := register(t); got != 60 {
			t.Errorf("the device holds %v after a confirmed 60", got)
		}
		was, err := before.number("temperature")
		if err != nil {
			t.Fatal(err)
		}
		d := u.awaitTwin(t, 20*time.Second, hubAPI, "boiler-1", "gets warmer", func(d twinDoc) bool {
			now, err := d.number("temperature")
			return err == nil && now > was+1
		})
		if d.value("setpoint") != "60" || d.write("setpoint") != "applied" {
			t.Errorf("setpoint is %s, write %s", d.value("setpoint"), d.write("setpoint"))
		}
	})

	step(t, "refusals", func(t *testing.T) {
		for _, c := range []struct {
			patch string
			says  []string
		}{
			{`{"setpoint": 120}`, []string{"setpoint", "0", "95"}},
			{`{"setpoint": -1}`, []string{"setpoint", "0", "95"}},
			{`{"setpoint": "warm"}`, []string{"setpoint", "float"}},
			{`{"running": 3}`, []string{"running", "bool"}},
			{`{"temperature": 20}`, []string{"temperature", "Read"}},
			{`{"temprature": 20}`, []string{"temprature"}},
			{`{"setpoint": 50, "nonsense": 1}`, []string{"nonsense"}}, // all or nothing
		} {
			got := u.want(t, 422, "PATCH", hubAPI+"/devices/boiler-1/twin/desired?wait=2s", c.patch)
			pr := got.problem(t)
			if len(pr.Errors) == 0 || pr.Errors[0].Pointer == "" {
				t.Errorf("%s: no pointer in %v", c.patch, got)
			}
			for _, s := range c.says {
				if !strings.Contains(fmt.Sprint(pr.Errors, pr.Detail), s) {
					t.Errorf("%s: the answer does not say %q: %v", c.patch, s, got)
				}
			}
		}
		u.want(t, 400, "PATCH", hubAPI+"/devices/boiler-1/twin/desired", `{"setpoint": `)
		u.want(t, 404, "PATCH", hubAPI+"/devices/nobody/twin/desired", `{"setpoint": 1}`)
		r := run(t, "", u.path, "--context", filepath.Join(data, "context.json"), "twin", "set", "boiler-1", "setpoint=120", "--wait", "5s")
		if r.code != 1 || !strings.Contains(r.stderr, "setpoint") || !strings.Contains(r.stderr, "95") {
			t.Errorf("set 120: %v", r)
		}
		if got := register(t); got != 60 {
			t.Errorf("the device holds %v after refused writes, want 60", got)
		}
		if d, err := u.twin(hubAPI, "boiler-1"); err != nil || string(d.Properties["setpoint"].Desired.Value) != "60" {
			t.Errorf("desired is %+v after refused writes, %v", d.Properties["setpoint"].Desired, err)
		}
	})

	step(t, "mqtt", func(t *testing.T) {
		host, port, _ := strings.Cut(u.mqtt, ":")
		r := run(t, "", mosquitto, "-h", host, "-p", port, "-t", "devices/+/properties/#", "-t", "devices/+/state", "-W", "2", "-F", "%r %t %p")
		var retained []string
		for line := range strings.Lines(r.stdout) {
			if topic, ok := strings.CutPrefix(line, "1 "); ok {
				topic, payload, _ := strings.Cut(topic, " ")
				retained = append(retained, topic)
				var body struct {
					Value   any
					State   string
					Quality string
					Time    time.Time
				}
				if err := json.Unmarshal([]byte(payload), &body); err != nil || body.Time.IsZero() || body.Quality == "" && body.State == "" {
					t.Errorf("%s: %s: %v", topic, payload, err)
				}
			}
		}
		for _, topic := range []string{"devices/boiler-1/properties/temperature", "devices/boiler-1/properties/setpoint", "devices/boiler-1/state",
			"devices/pump-1/properties/speed", "devices/meter-1/properties/power"} {
			if !slices.Contains(retained, topic) {
				t.Errorf("%s is not retained; there is %v", topic, retained)
			}
		}
		in := subscribe(t, u.mqtt, "devices/boiler-1/#")
		r = run(t, "", publisher, "-h", host, "-p", port, "-q", "1", "-t", "devices/boiler-1/desired", "-m", `{"setpoint": 62.5, "$id": "mine"}`)
		if r.code != 0 {
			t.Fatal(r)
		}
		in.await(t, "devices/boiler-1/desired/result", `"$id":"mine"`, `"desiredVersion":`)
		in.await(t, "devices/boiler-1/writes", `"$id":"mine"`, `"state":"applied"`, `"property":"setpoint"`)
		in.await(t, "devices/boiler-1/properties/setpoint", `"value":62.5`)
		if got := register(t); got != 62.5 {
			t.Errorf("the device holds %v, want 62.5", got)
		}
		u.awaitTwin(t, 5*time.Second, hubAPI, "boiler-1", "knows what was set at the edge", func(d twinDoc) bool {
			p := d.Properties["setpoint"]
			return p.Desired != nil && string(p.Desired.Value) == "62.5" && d.value("setpoint") == "62.5"
		})
		in.publish(t, "devices/boiler-1/desired", `{"setpoint": 400, "$id": "bad"}`)
		in.await(t, "devices/boiler-1/desired/result", `"$id":"bad"`, "422", "setpoint")
		if got := register(t); got != 62.5 {
			t.Errorf("the device holds %v after a refused patch", got)
		}
	})

	step(t, "local REST", func(t *testing.T) {
		local, err := apiOf(u.edgeData)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(u.banner, local.url) {
			t.Errorf("the banner does not say where the edge's API is (%s)", local.url)
		}
		got := local.want(t, 200, "GET", edgeAPI+"/devices", "")
		for _, name := range []string{"boiler-1", "pump-1", "meter-1", "press-1", "scale-1"} {
			if !strings.Contains(string(got.body), `"`+name+`"`) {
				t.Errorf("%s is not among the edge's devices: %v", name, got)
			}
		}
		local.want(t, 200, "PATCH", edgeAPI+"/devices/boiler-1/twin/desired?wait=5s", `{"setpoint": 64}`)
		if got := register(t); got != 64 {
			t.Errorf("the device holds %v, want 64", got)
		}
		d, err := local.twin(edgeAPI, "boiler-1")
		if err != nil || d.value("setpoint") != "64" || d.quality("temperature") != "good" {
			t.Errorf("the edge's twin is %+v, %v", d, err)
		}
		local.want(t, 422, "PATCH", edgeAPI+"/devices/boiler-1/twin/desired", `{"setpoint": 96}`)
		local.as("").want(t, 401, "GET", edgeAPI+"/devices", "")
		local.as("wrong").want(t, 401, "GET", edgeAPI+"/devices", "")
	})

	step(t, "restart keeps data", func(t *testing.T) {
		sim := modbussim.Start(t, modbussim.Config{Units: []modbussim.Unit{{Unit: 1, Name: "mine", Points: []modbussim.Point{
			{Name: "level", Table: "holding", Register: new(uint16(0)), Writable: true, Value: 7}}}}})
		documents := fmt.Sprintf(`
apiVersion: whimbrel/v1
kind: DeviceModel
metadata: {name: tank}
spec:
  protocol: modbus
  defaults: {every: 200ms}
  properties:
  - {name: level, type: int, access: ReadWrite, write: hold, address: {table: holding, register: 0, encoding: uint16}}
---
apiVersion: whimbrel/v1
kind: Device
metadata: {name: mine, labels: {area: garden}}
spec: {model: tank, node: local, connection: {url: "tcp://%s"}}
`, sim.Addr())
		context := filepath.Join(data, "context.json")
		if r := run(t, documents, u.path, "--context", context, "apply", "-f", "-"); r.code != 0 {
			t.Fatal(r)
		}
		if r := run(t, "", u.path, "--context", context, "twin", "set", "mine", "level=9", "--wait", "5s"); r.code != 0 {
			t.Fatal(r)
		}
		token := u.token
		p.stop()
		sim.Reset() // the tank forgets, the platform does not
		u = startUp(t, p, data)
		t.Logf("ready again in %v", u.readyIn.Round(time.Millisecond))
		if u.token != token {
			t.Error("the admin's token changed")
		}
		d := u.awaitTwin(t, 10*time.Second, hubAPI, "mine", "is back with what was desired", func(d twinDoc) bool {
			return d.value("level") == "9" && d.quality("level") == "good"
		})
		if d.Properties["level"].Desired == nil || string(d.Properties["level"].Desired.Value) != "9" {
			t.Errorf("desired is %+v", d.Properties["level"].Desired)
		}
		if v, err := sim.Get("mine", "level"); err != nil || fmt.Sprint(v) != "9" {
			t.Errorf("the device holds %v, %v; want the held 9", v, err)
		}
		if d, err := u.twin(hubAPI, "boiler-1"); err != nil || d.value("temperature") == "" {
			t.Errorf("the plant after a restart: %+v, %v", d, err)
		}
		if r := run(t, "", u.path, "--context", context, "get", "devices", "-l", "area=garden"); r.code != 0 || !strings.Contains(r.stdout, "mine") || strings.Contains(r.stdout, "pump-1") {
			t.Errorf("get by label: %v", r)
		}
		in := subscribe(t, u.mqtt, "devices/mine/#")
		in.await(t, "devices/mine/properties/level", `"value":9`)
		if r := run(t, "", u.path, "--context", context, "delete", "device", "mine"); r.code != 0 {
			t.Fatal(r)
		}
		eventually(t, 10*time.Second, "what is retained of a deleted device is cleared", func() error {
			cleared := map[string]bool{}
			for _, m := range in.all() {
				cleared[m.topic] = m.payload == ""
			}
			if !cleared["devices/mine/properties/level"] || !cleared["devices/mine/state"] {
				return fmt.Errorf("cleared: %v", cleared)
			}
			return nil
		})
	})
	p.stop()
	if how, _ := p.gone(); how != "not started" {
		t.Errorf("up is still there: %s", how)
	}
}
