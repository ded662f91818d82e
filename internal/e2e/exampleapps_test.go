package e2e

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/whimbrel-edge/whimbrel/internal/need"
)

// example is the text of an example's file.
func example(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../examples", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// listen subscribes to the broker of `whimbrel up`.
func listen(t testing.TB, broker, filter string, take func(topic string, payload []byte)) {
	t.Helper()
	client := mqtt.NewClient(mqtt.NewClientOptions().AddBroker("tcp://" + broker).SetClientID("listener"))
	if token := client.Connect(); !token.WaitTimeout(10*time.Second) || token.Error() != nil {
		t.Fatal(token.Error())
	}
	t.Cleanup(func() { client.Disconnect(100) })
	if token := client.Subscribe(filter, 1, func(_ mqtt.Client, m mqtt.Message) { take(m.Topic(), m.Payload()) }); !token.WaitTimeout(10*time.Second) || token.Error() != nil {
		t.Fatal(token.Error())
	}
}

// upWithImage builds an example's image as its reader does, into an engine that
// `whimbrel up` uses, and returns the client commands.
func upWithImage(t *testing.T, name string) (*containers, *up, func(stdin string, args ...string) string) {
	t.Helper()
	need.Program(t, "docker", "docker.io")
	c := newContainers(t)
	build := exec.Command("sh", "build.sh")
	build.Dir, build.Env = filepath.Join("../../examples", name), append(os.Environ(), "DOCKER_HOST="+c.Host())
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build.sh: %v\n%s", err, out)
	}
	data := filepath.Join(t.TempDir(), "data")
	p := newProcess(t, "up", program(t, "whimbrel"))
	p.env = []string{"DOCKER_HOST=" + c.Host()}
	u := startUp(t, p, data)
	return c, u, func(stdin string, args ...string) string {
		t.Helper()
		r := run(t, stdin, program(t, "whimbrel"), append([]string{"--context", filepath.Join(data, "context.json")}, args...)...)
		if r.code != 0 {
			t.Fatalf("%v: %v", args, r)
		}
		return r.stdout
	}
}

// TestExampleInGo runs examples/app-anomaly-go beside the simulated plant, faster
// than real.
func TestExampleInGo(t *testing.T) {
	t.Parallel()
	c, u, cli := upWithImage(t, "app-anomaly-go")
	type alarm struct {
		Device, Property, State string
		Severity                int
		Score, Value, Usual     float64
	}
	alarms := make(chan alarm, 1000)
	listen(t, u.mqtt, "alarms/#", func(topic string, payload []byte) {
		var a alarm
		if err := json.Unmarshal(payload, &a); err != nil || topic != "alarms/"+a.Device+"/"+a.Property {
			t.Errorf("%s %s: %v", topic, payload, err)
		}
		alarms <- a
	})
	until := func(property string, holds func(alarm) bool) alarm {
		t.Helper()
		for limit := time.After(40 * time.Second); ; {
			select {
			case a := <-alarms:
				t.Logf("%+v", a)
				if a.Property == property && holds(a) {
					return a
				}
			case <-limit:
				t.Fatalf("no such alarm of %s", property)
			}
		}
	}
	lamp := func(want string) {
		t.Helper()
		d := u.awaitTwin(t, 20*time.Second, hubAPI, "scale-1", "its lamp is "+want, func(d twinDoc) bool { return d.value("lamp") == want && d.write("lamp") == "applied" })
		if by := d.Properties["lamp"].Desired.By; by != "default.anomaly-0" {
			t.Errorf("the lamp was set by %s", by)
		}
	}

	step(t, "deployed", func(t *testing.T) {
		cli("", "twin", "set", "boiler-1", "running=false", "--wait", "5s")
		u.awaitTwin(t, 30*time.Second, hubAPI, "boiler-1", "is calm", func(d twinDoc) bool {
			burner, err := d.number("burner")
			return err == nil && burner < 1
		})
		// The temperature follows slowly: its alarms would come when they like.
		cli(strings.NewReplacer("-every=1s", "-every=50ms", "        - -watch=boiler-1/temperature\n", "").Replace(example(t, "app-anomaly-go/deployment.yaml")), "apply", "-f", "-")
		cli("", "rollout", "status", "anomaly", "--timeout", "40s")
		until("vibration", func(a alarm) bool { return a.State == "cleared" })
	})
	step(t, "raised", func(t *testing.T) {
		cli("", "twin", "set", "boiler-1", "running=true", "setpoint=90", "--wait", "5s")
		a := until("vibration", func(a alarm) bool { return a.Severity == 3 })
		if a.State != "raised" || a.Score < 4.5 { // the first drop may be what is unusual
			t.Errorf("%+v", a)
		}
		lamp("true")
	})
	step(t, "scores", func(t *testing.T) {
		for _, l := range c.list() {
			resp, err := (&http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}).Get("http://" + l.IP + ":8080/scores")
			if err != nil {
				t.Fatal(err)
			}
			var got map[string]struct {
				Good, Ready bool
				Samples     int
			}
			err = errors.Join(json.NewDecoder(resp.Body).Decode(&got), resp.Body.Close())
			if s := got["boiler-1/vibration"]; err != nil || len(got) != 1 || !s.Good || !s.Ready || s.Samples < 30 {
				t.Errorf("%+v, %v", got, err)
			}
		}
	})
	step(t, "cleared", func(t *testing.T) {
		// The burner at its full power is usual, too, after a while.
		until("vibration", func(a alarm) bool { return a.State == "cleared" })
		lamp("false")
	})
}

// TestExampleInPython runs examples/app-setpoint-python beside the simulated plant.
// Its image is made of Debian packages, which a mirror must hand out: that takes
// half a minute, or much longer, and so it is tested on request.
func TestExampleInPython(t *testing.T) {
	t.Parallel()
	if os.Getenv("WHIMBREL_TEST_DEBIAN") != "1" {
		t.Skip("it fetches Debian packages; WHIMBREL_TEST_DEBIAN=1 runs it")
	}
	need.Program(t, "mmdebstrap", "mmdebstrap")
	_, u, cli := upWithImage(t, "app-setpoint-python")
	type forecast struct {
		Temperature, Setpoint float64
		Forecast, Model       []float64
	}
	forecasts := make(chan forecast, 1000)
	listen(t, u.mqtt, "forecasts/boiler-1", func(_ string, payload []byte) {
		var f forecast
		if err := json.Unmarshal(payload, &f); err != nil {
			t.Errorf("%s: %v", payload, err)
		}
		forecasts <- f
	})
	next := func() forecast {
		t.Helper()
		select {
		case f := <-forecasts:
			t.Logf("%+v", f)
			return f
		case <-time.After(30 * time.Second):
			t.Fatal("no forecast")
			return forecast{}
		}
	}
	step(t, "deployed", func(t *testing.T) {
		cli(strings.Replace(example(t, "app-setpoint-python/deployment.yaml"), `"60"]`, `"60", --every, "0.25", --decide, "4"]`, 1), "apply", "-f", "-")
		cli("", "rollout", "status", "setpoint", "--timeout", "40s")
		if f := next(); len(f.Forecast) == 0 || len(f.Model) != 3 || f.Model[0] <= 0 || f.Model[0] >= 1 {
			t.Errorf("%+v", f)
		}
	})
	step(t, "warm", func(t *testing.T) {
		d := u.awaitTwin(t, 60*time.Second, hubAPI, "boiler-1", "is warm", func(d twinDoc) bool {
			temperature, err := d.number("temperature")
			return err == nil && temperature > 59 && temperature < 65 && d.write("setpoint") == "applied"
		})
		if by := d.Properties["setpoint"].Desired.By; by != "default.setpoint-0" {
			t.Errorf("the setpoint is by %s", by)
		}
	})
	step(t, "alarmed", func(t *testing.T) {
		// Another app speaks up, and an operator turns the boiler down: it stays so.
		client := mqtt.NewClient(mqtt.NewClientOptions().AddBroker("tcp://" + u.mqtt).SetClientID("another app"))
		if token := client.Connect(); !token.WaitTimeout(10*time.Second) || token.Error() != nil {
			t.Fatal(token.Error())
		}
		t.Cleanup(func() { client.Disconnect(100) })
		client.Publish("alarms/boiler-1/vibration", 1, true, `{"severity": 3}`).WaitTimeout(10 * time.Second)
		next()
		cli("", "twin", "set", "boiler-1", "setpoint=30", "--wait", "10s")
		for len(forecasts) > 0 {
			<-forecasts
		}
		next()
		if f := next(); f.Setpoint > 30 {
			t.Errorf("it asks for more heat: %+v", f)
		}
		client.Publish("alarms/boiler-1/vibration", 1, true, `{"severity": 0}`).WaitTimeout(10 * time.Second)
		u.awaitTwin(t, 20*time.Second, hubAPI, "boiler-1", "is turned up again", func(d twinDoc) bool {
			setpoint, err := d.number("setpoint")
			return err == nil && setpoint > 40
		})
	})
}
