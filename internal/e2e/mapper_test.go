package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/internal/need"
)

const supplyManifests = `
apiVersion: whimbrel/v1
kind: DeviceModel
metadata: {name: psu}
spec:
  protocol: scpi
  defaults: {every: 200ms}
  properties:
  - {name: voltage, type: float, unit: V, address: {query: "MEAS:VOLT?"}}
  - {name: setpoint, type: float, unit: V, access: ReadWrite, minimum: 0, maximum: 60, address: {query: "VOLT?", set: "VOLT {value}"}}
  - {name: output, type: bool, access: ReadWrite, address: {query: "OUTP?", set: "OUTP {value}"}}
  - {name: label, type: string, access: ReadWrite, address: {query: "SYST:LAB?", set: "SYST:LAB {value}"}}
  - {name: nonsense, type: float, every: 24h, address: {query: "NONS?"}}
---
apiVersion: whimbrel/v1
kind: Device
metadata: {name: bench-1}
spec:
  model: psu
  node: local
  connection: {url: "tcp://%s", timeout: 300ms}
`

// TestMapperInPython plays someone whose protocol nobody ships: the example
// mapper and its instrument, beside an edge with its hub.
func TestMapperInPython(t *testing.T) {
	python := need.PythonModule(t, "paho.mqtt.client", "python3-paho-mqtt")
	examples, err := filepath.Abs("../../examples/mapper-python")
	if err != nil {
		t.Fatal(err)
	}
	listen, broker := freeAddr(t), freeAddr(t)
	supply := newProcess(t, "psu", python)
	supply.start(filepath.Join(examples, "psu.py"), "--listen", listen)

	data := filepath.Join(t.TempDir(), "data")
	u := startUp(t, newProcess(t, "up", program(t, "whimbrel")), data, "--no-plant", "--mqtt", broker)
	made := run(t, "", program(t, "whimbrel"), "mapper", "credential", "scpi", "--data", data, "-o", "json")
	var credential struct{ URL, Username, Password string }
	if err := json.Unmarshal([]byte(made.stdout), &credential); err != nil || made.code != 0 {
		t.Fatal(made)
	}
	mapper := newProcess(t, "mapper", python)
	mapper.env = []string{"WHIMBREL_MQTT_URL=" + credential.URL, "WHIMBREL_MQTT_USERNAME=" + credential.Username, "WHIMBREL_MQTT_PASSWORD=" + credential.Password}
	script := filepath.Join(examples, "scpi_mapper.py")
	whimbrel := func(stdin string, args ...string) result {
		return run(t, stdin, program(t, "whimbrel"), append([]string{"--context", filepath.Join(data, "context.json")}, args...)...)
	}

	step(t, "announced", func(t *testing.T) {
		mapper.start(script)
		eventually(t, 20*time.Second, "the hub has the Mapper object", func() error {
			if r := whimbrel("", "get", "mapper", "scpi"); r.code != 0 {
				return fmt.Errorf("%s", r)
			}
			return nil
		})
		if r := whimbrel("", "describe", "mapper", "scpi"); !strings.Contains(r.stdout, "local has 1.0.0") || !strings.Contains(r.stdout, "SCPI instruments over TCP") {
			t.Error(r)
		}
		// The hub refuses what does not fit, before anything reaches the edge.
		r := whimbrel(strings.Replace(fmt.Sprintf(supplyManifests, listen), "tcp://", "udp://", 1), "apply", "-f", "-")
		if r.code != 1 || !strings.Contains(r.stderr, "/spec/connection/url") {
			t.Error(r)
		}
	})
	good := func(props ...string) func(twinDoc) bool {
		return func(d twinDoc) bool {
			for _, p := range props {
				if d.quality(p) != "good" {
					return false
				}
			}
			return true
		}
	}
	step(t, "values", func(t *testing.T) {
		if r := whimbrel(fmt.Sprintf(supplyManifests, listen), "apply", "-f", "-"); r.code != 0 {
			t.Fatal(r)
		}
		d := u.awaitTwin(t, 20*time.Second, hubAPI, "bench-1", "values", good("voltage", "setpoint", "output", "label"))
		if d.value("voltage") != "0" || d.value("setpoint") != "12" || d.value("output") != "false" || d.value("label") != `"bench"` {
			t.Errorf("twin %+v", d)
		}
		u.awaitTwin(t, 20*time.Second, hubAPI, "bench-1", "what the instrument does not know is bad alone",
			func(d twinDoc) bool {
				return d.quality("nonsense") == "bad/device-error" && d.quality("voltage") == "good"
			})
	})
	step(t, "writes", func(t *testing.T) {
		r := whimbrel("", "twin", "set", "bench-1", "setpoint=24.5", "output=true", "label=left \"bench\"", "--wait", "5s")
		if r.code != 0 {
			t.Fatal(r)
		}
		d := u.awaitTwin(t, 10*time.Second, hubAPI, "bench-1", "the output follows", func(d twinDoc) bool { return d.value("voltage") == "24.5" })
		if d.value("label") != `"left \"bench\""` {
			t.Errorf("label %s", d.value("label"))
		}
		if r := whimbrel("", "twin", "set", "bench-1", "setpoint=55", "--wait", "5s"); r.code == 0 || !strings.Contains(r.stdout+r.stderr, "Data out of range") {
			t.Error(r)
		}
		if r := whimbrel("", "twin", "set", "bench-1", "setpoint=24.5", "--wait", "5s"); r.code != 0 {
			t.Error(r)
		}
	})
	step(t, "the instrument goes and comes", func(t *testing.T) {
		supply.kill()
		u.awaitTwin(t, 10*time.Second, hubAPI, "bench-1", "the device is offline", func(d twinDoc) bool {
			return d.State == "offline" && d.quality("voltage") == "bad/not-connected"
		})
		supply.start(filepath.Join(examples, "psu.py"), "--listen", listen)
		u.awaitTwin(t, 20*time.Second, hubAPI, "bench-1", "it is back", good("voltage", "setpoint", "output", "label"))
	})
	step(t, "the mapper is killed and comes back", func(t *testing.T) {
		mapper.kill()
		u.awaitTwin(t, 5*time.Second, hubAPI, "bench-1", "mapper-lost", func(d twinDoc) bool {
			return d.State == "offline" && d.quality("voltage") == "bad/mapper-lost"
		})
		mapper.start(script)
		u.awaitTwin(t, 20*time.Second, hubAPI, "bench-1", "good again", good("voltage", "setpoint", "output", "label"))
	})
	step(t, "the edge is killed and comes back", func(t *testing.T) {
		u.kill()
		u = startUp(t, u.process, data, "--no-plant", "--mqtt", broker)
		u.awaitTwin(t, 30*time.Second, hubAPI, "bench-1", "good again", good("voltage", "setpoint", "output", "label"))
		if how, gone := mapper.gone(); gone {
			t.Errorf("the mapper ended: %s", how)
		}
	})
	step(t, "the mapper stops", func(t *testing.T) {
		began := time.Now()
		mapper.stop()
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

const quietManifests = `
apiVersion: whimbrel/v1
kind: DeviceModel
metadata: {name: quiet}
spec:
  protocol: quiet
  defaults: {every: 24h}
  properties:
  - {name: level, type: float, address: {}}
  - {name: setpoint, type: float, access: ReadWrite, address: {}}
---
apiVersion: whimbrel/v1
kind: Device
metadata: {name: quiet-1}
spec: {model: quiet, node: local, connection: {}}
`

// TestMapperThatSaysLittle: the devices of a mapper that reports nothing by itself
// for hours are online as soon as it serves them, and again after every loss.
func TestMapperThatSaysLittle(t *testing.T) {
	python := need.PythonModule(t, "paho.mqtt.client", "python3-paho-mqtt")
	script, err := filepath.Abs("testdata/quiet_mapper.py")
	if err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(t.TempDir(), "data")
	broker := freeAddr(t)
	u := startUp(t, newProcess(t, "up", program(t, "whimbrel")), data, "--no-plant", "--mqtt", broker)
	made := run(t, "", program(t, "whimbrel"), "mapper", "credential", "quiet", "--data", data, "-o", "json")
	var credential struct{ URL, Username, Password string }
	if err := json.Unmarshal([]byte(made.stdout), &credential); err != nil || made.code != 0 {
		t.Fatal(made)
	}
	mapper := newProcess(t, "mapper", python)
	mapper.env = []string{"WHIMBREL_MQTT_URL=" + credential.URL, "WHIMBREL_MQTT_USERNAME=" + credential.Username, "WHIMBREL_MQTT_PASSWORD=" + credential.Password}
	mapper.start(script)
	eventually(t, 20*time.Second, "the models are taken", func() error {
		if r := run(t, quietManifests, program(t, "whimbrel"), "--context", filepath.Join(data, "context.json"), "apply", "-f", "-"); r.code != 0 {
			return fmt.Errorf("%s", r)
		}
		return nil
	})
	online := func(d twinDoc) bool {
		return d.State == "online" && d.quality("level") == "good" && d.quality("setpoint") == "good"
	}
	u.awaitTwin(t, 10*time.Second, hubAPI, "quiet-1", "online when it is served first", online)
	step(t, "the mapper starts anew", func(t *testing.T) {
		mapper.kill()
		u.awaitTwin(t, 5*time.Second, hubAPI, "quiet-1", "mapper-lost", func(d twinDoc) bool {
			return d.State == "offline" && d.quality("level") == "bad/mapper-lost"
		})
		mapper.start(script)
		u.awaitTwin(t, 10*time.Second, hubAPI, "quiet-1", "online", online)
	})
	step(t, "the broker starts anew", func(t *testing.T) {
		u.kill()
		u = startUp(t, u.process, data, "--no-plant", "--mqtt", broker)
		u.awaitTwin(t, 20*time.Second, hubAPI, "quiet-1", "online", online)
		if how, gone := mapper.gone(); gone {
			t.Errorf("the mapper ended: %s", how)
		}
	})
}

// freeAddr is an address that nobody has now.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestEdgeOfSomebodyElse runs the edge that examples/mapper-go makes, a module of
// its own with a driver that Whimbrel does not ship, against a hub.
func TestEdgeOfSomebodyElse(t *testing.T) {
	python := need.Program(t, "python3", "python3") // for the instrument
	binary := filepath.Join(t.TempDir(), "scpi-edge")
	build := exec.Command("go", "build", "-o", binary, ".")
	build.Dir = "../../examples/mapper-go"
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	psu, err := filepath.Abs("../../examples/mapper-python/psu.py")
	if err != nil {
		t.Fatal(err)
	}
	listen := freeAddr(t)
	supply := newProcess(t, "psu", python)
	supply.start(psu, "--listen", listen)

	h := newHub(t, "")
	e := newProcess(t, "scpi-edge", binary)
	data := t.TempDir()
	e.start("--hub", "https://"+h.link, "--token", h.joinToken("local"), "--name", "local", "--data", data, "--mqtt", "127.0.0.1:0", "--api", "127.0.0.1:0")
	eventually(t, 20*time.Second, "the hub has the Mapper object", func() error {
		o, err := h.object(hubAPI + "/mappers/scpi")
		if err == nil && o.condition("Agreed").Status != "True" {
			err = fmt.Errorf("condition %+v", o.condition("Agreed"))
		}
		return err
	})
	h.apply(fmt.Sprintf(supplyManifests, listen))
	good := func(d twinDoc) bool {
		return d.quality("voltage") == "good" && d.quality("setpoint") == "good" && d.quality("label") == "good" && d.quality("nonsense") == "bad/device-error"
	}
	h.awaitTwin(t, 20*time.Second, hubAPI, "bench-1", "values", good)
	h.want(t, 200, "PATCH", hubAPI+"/devices/bench-1/twin/desired?wait=5s", `{"setpoint": 24.5, "output": true}`)
	h.awaitTwin(t, 10*time.Second, hubAPI, "bench-1", "the output follows", func(d twinDoc) bool { return d.value("voltage") == "24.5" })
	e.stop()
	e.start("--data", data)
	h.awaitNode(t, "local", true)
	h.awaitTwin(t, 20*time.Second, hubAPI, "bench-1", "values again", good)
}
