package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/engine"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/engine/docker"
	"github.com/whimbrel-edge/whimbrel/internal/dockertest"
	"github.com/whimbrel-edge/whimbrel/models"
)

const containerManifest = `
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {level: %q}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 1
  template:
    metadata: {labels: {app: web}}
    spec:
      nearDevice: tank-1
      terminationGracePeriodSeconds: 2
      containers:
      - name: main
        image: whimbrel.test/app:1
        args: [%s]
        env: [{name: VERSION, value: %q}]
        readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
        volumeMounts: [{name: settings, mountPath: /settings}]
      volumes: [{name: settings, configMap: {name: settings}}]
      access:
      - {devices: [tank-1], properties: [level, dose], verbs: [read]}
      - {devices: "area=yard", properties: [dose], verbs: [write]}
      - {topics: ["alarms/#"], verbs: [publish]}
`

// containers is an engine, and what is in it.
type containers struct {
	*dockertest.Engine
	t      testing.TB
	engine *docker.Docker
}

func newContainers(t testing.TB) *containers {
	t.Helper()
	c := &containers{Engine: dockertest.Start(t), t: t}
	var err error
	if c.engine, err = docker.New(c.Host()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.engine.Close() })
	if _, err := c.engine.Load(t.Context(), bytes.NewReader(dockertest.App(t, "whimbrel.test/app:1", ""))); err != nil {
		t.Fatal(err)
	}
	return c
}

// list returns the containers of pods.
func (c *containers) list() (out []engine.Container) {
	c.t.Helper()
	all, err := c.engine.List(c.t.Context(), nil)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, l := range all {
		if l.Labels["whimbrel.pod"] != "" {
			out = append(out, l)
		}
	}
	return out
}

// app is the API of the one app that serves.
func (c *containers) app() (*api, error) {
	for _, l := range c.list() {
		if l.State == engine.Running && l.IP != "" {
			a := &api{url: "http://" + l.IP + ":8080", http: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}}
			got, err := a.do("GET", "/healthz", "")
			if err == nil && got.status == 200 {
				return a, nil
			}
		}
	}
	return nil, fmt.Errorf("no app answers among %+v", c.list())
}

// TestApps deploys an app to a real edge with a real engine, and takes away the
// app, the hub, the edge and the engine.
func TestApps(t *testing.T) {
	t.Parallel()
	c := newContainers(t)
	h := newHub(t, "")
	sim := tanks(t, 2)
	h.apply(tankModel)
	h.want(t, 201, "POST", hubAPI+"/devices", tank(sim, "tank-1", "gateway-1"))
	h.want(t, 201, "POST", hubAPI+"/devices", tank(sim, "tank-2", "gateway-1"))
	e := &edge{process: newProcess(t, "edge gateway-1", program(t, "whimbrel-edge")), node: "gateway-1", data: t.TempDir(), mqtt: holdPort(t), addr: holdPort(t)}
	e.env = []string{"DOCKER_HOST=" + c.Host()}
	e.start("--hub", "https://"+h.link, "--token", h.joinToken("gateway-1"), "--name", "gateway-1", "--data", e.data, "--mqtt", e.mqtt, "--api", e.addr)
	h.awaitTwin(t, 20*time.Second, hubAPI, "tank-1", "good", isGood("level"))

	says := func(r result, code int, texts ...string) {
		t.Helper()
		if r.code != code {
			t.Fatalf("%v; want exit %d", r, code)
		}
		for _, text := range texts {
			if !strings.Contains(r.stdout+r.stderr, text) {
				t.Errorf("%v\nand nothing says %q", r, text)
			}
		}
	}
	var app *api
	answers := func(want string) {
		t.Helper()
		eventually(t, 30*time.Second, "the app answers", func() (err error) {
			if app, err = c.app(); err != nil {
				return err
			}
			got, err := app.do("GET", "/", "")
			if err == nil && string(got.body) != want {
				err = fmt.Errorf("it says %q", got.body)
			}
			return err
		})
	}
	step(t, "deployed", func(t *testing.T) {
		h.apply(fmt.Sprintf(containerManifest, "low", `"serve=8080"`, "1"))
		says(h.cli("", "rollout", "status", "web"), 0, "all pods are at revision 1")
		says(h.cli("", "get", "pods", "-o", "wide"), 0, "web-0", "1/1     Running", "gateway-1", "whimbrel.test/app:1")
		says(h.cli("", "describe", "node", "gateway-1"), 0, "docker 20")
		answers("hello from 1\n")
	})
	var env map[string]string
	app.want(t, 200, "GET", "/env", "").into(t, &env)
	step(t, "its access, over REST", func(t *testing.T) {
		ask := func(method, path, body string) answer {
			t.Helper()
			got, err := app.as(env["WHIMBREL_API_TOKEN"]).do("POST", "/get?method="+method+"&url="+url.QueryEscape(env["WHIMBREL_API_URL"]+path), body)
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		if got := ask("GET", "/v1/devices", ""); got.status != 200 || !strings.Contains(got.String(), "tank-1") || strings.Contains(got.String(), "tank-2") {
			t.Errorf("devices: %v", got)
		}
		if got := ask("GET", "/v1/devices/tank-1/twin", ""); got.status != 200 || !strings.Contains(got.String(), "level") || strings.Contains(got.String(), "valve") {
			t.Errorf("tank-1: %v", got)
		}
		for _, r := range [][3]string{{"GET", "/v1/devices/tank-2/twin", ""}, {"PATCH", "/v1/devices/tank-1/twin/desired", `{"valve":1}`}, {"GET", "/metrics", ""}} {
			if got := ask(r[0], r[1], r[2]); got.status != 403 {
				t.Errorf("%v: %v", r, got)
			}
		}
		if got := ask("PATCH", "/v1/devices/tank-2/twin/desired?wait=10s", `{"dose":7}`); got.status != 200 {
			t.Errorf("a dose: %v", got)
		}
		// The value may be there before what was desired at the edge is.
		h.awaitTwin(t, 10*time.Second, hubAPI, "tank-2", "dosed, and by whom", func(d twinDoc) bool {
			text, err := json.Marshal(d)
			return err == nil && d.value("dose") == "7" && strings.Contains(string(text), "default.web-0")
		})
	})
	step(t, "its access, over MQTT", func(t *testing.T) {
		o := mqtt.NewClientOptions().AddBroker(strings.Replace(env["WHIMBREL_MQTT_URL"], "mqtt://", "tcp://", 1)).SetClientID("app").
			SetUsername(env["WHIMBREL_MQTT_USERNAME"]).SetPassword(env["WHIMBREL_MQTT_PASSWORD"])
		client := mqtt.NewClient(o)
		if token := client.Connect(); !token.WaitTimeout(10*time.Second) || token.Error() != nil {
			t.Fatal(token.Error())
		}
		defer client.Disconnect(100)
		got := make(chan string, 1000)
		for filter, code := range map[string]byte{"devices/tank-1/properties/level": 1, "devices/tank-2/#": 1, "devices/tank-2/properties/+": 0x80, "alarms/#": 0x80, "whimbrel/#": 0x80} {
			token := client.Subscribe(filter, 1, func(_ mqtt.Client, m mqtt.Message) { got <- m.Topic() }).(*mqtt.SubscribeToken)
			if token.WaitTimeout(10 * time.Second); token.Result()[filter] != code {
				t.Errorf("subscribe %s: %#x", filter, token.Result()[filter])
			}
		}
		select {
		case topic := <-got:
			if strings.HasPrefix(topic, "devices/tank-2/properties") {
				t.Errorf("got %s", topic)
			}
		case <-time.After(10 * time.Second):
			t.Error("no level")
		}
		stranger := mqtt.NewClient(o.SetPassword("guess").SetClientID("stranger").SetConnectRetry(false))
		if token := stranger.Connect(); !token.WaitTimeout(10*time.Second) || token.Error() == nil {
			t.Error("any password will do")
		}
	})
	step(t, "settings change under it", func(t *testing.T) {
		h.apply(fmt.Sprintf(containerManifest, "high", `"serve=8080"`, "1"))
		eventually(t, 20*time.Second, "the file says high", func() error {
			got, err := app.do("GET", "/file?path=/settings/level", "")
			if err == nil && string(got.body) != "high" {
				err = fmt.Errorf("%v", got)
			}
			return err
		})
	})
	step(t, "a revision that fails, undone", func(t *testing.T) {
		h.apply(fmt.Sprintf(containerManifest, "high", `"grumble=no", "exit=4"`, "2"))
		says(h.cli("", "rollout", "status", "web"), 1, "revision 2: pod web-0 on node gateway-1", "revision 1 runs on")
		answers("hello from 1\n")
		h.must("", "rollout", "undo", "web")
		says(h.cli("", "rollout", "status", "web"), 0, "all pods are at revision 3")
		h.apply(fmt.Sprintf(containerManifest, "high", `"serve=8080"`, "4"))
		says(h.cli("", "rollout", "status", "web"), 0, "all pods are at revision 4")
		answers("hello from 4\n")
	})
	step(t, "a power cut, and no hub", func(t *testing.T) {
		h.kill()
		e.kill()
		if err := c.Kill9(); err != nil {
			t.Fatal(err)
		}
		e.again() // before its engine
		e.local()
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		answers("hello from 4\n")
		got, err := app.do("GET", "/file?path=/settings/level", "")
		if err != nil || string(got.body) != "high" {
			t.Errorf("the settings are %v, %v", got, err)
		}
		for _, l := range c.list() {
			if err := c.engine.Remove(t.Context(), l.ID); err != nil && !errors.Is(err, engine.ErrNotFound) {
				t.Fatal(err)
			}
		}
		answers("hello from 4\n")
	})
	step(t, "the hub is back", func(t *testing.T) {
		h.begin()
		h.awaitReady()
		eventually(t, 30*time.Second, "the hub shows it", func() error {
			var p models.Pod
			h.want(t, 200, "GET", hubAPI+"/pods/web-0", "").into(t, &p)
			if p.Status == nil || !p.Status.Ready || p.Status.Revision != 4 {
				return fmt.Errorf("%+v", p.Status)
			}
			return nil
		})
	})
	step(t, "fifty pods", func(t *testing.T) {
		h.apply(strings.NewReplacer("name: web, labels", "name: many, labels", "replicas: 1", "replicas: 50", "app: web", "app: many").Replace(
			fmt.Sprintf(containerManifest, "high", `"serve=8080"`, "1")))
		began := time.Now()
		says(h.cli("", "rollout", "status", "many", "--timeout", "3m"), 0, "all pods are at revision 1")
		t.Logf("50 pods are ready %v after they were applied", time.Since(began).Round(time.Millisecond))
		says(h.cli("", "get", "deploy"), 0, "many   50/50   50")
	})
	step(t, "gone", func(t *testing.T) {
		h.must("", "delete", "deployment", "web")
		h.must("", "delete", "deployment", "many")
		eventually(t, 60*time.Second, "nothing is left", func() error {
			if left := c.list(); len(left) > 0 {
				return fmt.Errorf("%d containers", len(left))
			}
			if left := h.must("", "get", "pods", "-o", "name"); left != "" {
				return fmt.Errorf("%s", left)
			}
			return nil
		})
	})
}
