package e2e

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// guardedManifest is an app with a Secret: its namespace, name, image, first
// argument and access.
const guardedManifest = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[2]s, namespace: %[1]s}
spec:
  replicas: 1
  template:
    metadata: {labels: {app: %[2]s}}
    spec:
      nodeName: gateway-1
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: %[3]s
        args: [%[4]q]
        env:
        - {name: KEY, valueFrom: {secretKeyRef: {name: vault, key: key}}}
        volumeMounts: [{name: vault, mountPath: /vault}]
      volumes: [{name: vault, secret: {secretName: vault}}]
      access: [%[5]s]
`

// heard is what a client was sent, by topic.
type heard struct {
	mu  sync.Mutex
	all map[string]int
}

func (h *heard) take(_ mqtt.Client, m mqtt.Message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.all == nil {
		h.all = map[string]int{}
	}
	h.all[m.Topic()]++
}

func (h *heard) count(topic string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.all[topic]
}

// besides are the topics that h has heard and that do not begin with any of these.
func (h *heard) besides(prefixes ...string) (topics []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
next:
	for topic := range h.all {
		for _, p := range prefixes {
			if strings.HasPrefix(topic, p) {
				continue next
			}
		}
		topics = append(topics, topic)
	}
	return topics
}

// TestAppsReachNoFurther lets an app try what its access does not say: topics,
// devices and credentials of others, and the hub's API. Then it looks for what is
// secret everywhere.
func TestAppsReachNoFurther(t *testing.T) {
	t.Parallel()
	const marker = "Quite-The-Secret-Of-The-Vault"
	c := newContainers(t)
	h := newHub(t, "")
	sim := tanks(t, 2)
	h.apply(tankModel)
	h.want(t, 201, "POST", hubAPI+"/devices", tank(sim, "tank-1", "gateway-1"))
	h.want(t, 201, "POST", hubAPI+"/devices", tank(sim, "tank-2", "gateway-1"))
	lab := strings.NewReplacer(`"name": "tank-1"`, `"name": "tank-1", "namespace": "lab"`)
	h.apply(strings.Replace(tankModel, "{name: tank}", "{name: tank, namespace: lab}", 1))
	h.want(t, 201, "POST", hubAPI+"/devices?namespace=lab", lab.Replace(tank(sim, "tank-1", "gateway-1")))
	for _, ns := range []string{"default", "lab"} {
		h.apply(strings.Replace(secret("vault", fmt.Sprintf(`{"key": %q}`, marker)), `"name"`, fmt.Sprintf(`"namespace": %q, "name"`, ns), 1))
	}
	e := &edge{process: newProcess(t, "edge gateway-1", program(t, "whimbrel-edge")), node: "gateway-1", data: t.TempDir(), mqtt: holdPort(t), addr: holdPort(t)}
	e.env = []string{"DOCKER_HOST=" + c.Host()}
	e.start("--hub", "https://"+h.link, "--token", h.joinToken("gateway-1"), "--name", "gateway-1", "--data", e.data, "--mqtt", e.mqtt, "--api", e.addr, "--log-level", "debug")
	h.awaitTwin(t, 20*time.Second, hubAPI, "tank-2", "good", isGood("level"))

	for _, name := range []string{"mine", "theirs"} {
		h.apply(fmt.Sprintf("apiVersion: whimbrel/v1\nkind: Route\nmetadata: {name: %[1]s}\nspec: {from: {rest: true}, to: {mqtt: {topic: %[1]s/posted}}}\n", name))
	}
	app := func(ns, name, access string) {
		h.apply(fmt.Sprintf(guardedManifest, ns, name, "whimbrel.test/app:1", "serve=8080", access))
	}
	app("default", "mine", `{devices: [tank-1], properties: [level], verbs: [read]}, {topics: ["mine/#"], verbs: [publish, subscribe]}, {routes: [mine], verbs: [publish]}`)
	app("default", "theirs", `{devices: [tank-2], properties: [dose], verbs: [write]}, {topics: ["theirs/#"], verbs: [publish, subscribe]}`)
	app("lab", "mine", `{devices: [tank-1], verbs: [read, write]}`)
	// env are the variables of a pod, by NAMESPACE.POD.
	env := map[string]map[string]string{}
	eventually(t, 40*time.Second, "three apps run", func() error {
		for _, l := range c.list() {
			if l.IP == "" {
				continue
			}
			a := &api{url: "http://" + l.IP + ":8080", http: &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}}
			got, err := a.do("GET", "/env", "")
			var vars map[string]string
			if err == nil && json.Unmarshal(got.body, &vars) == nil {
				env[vars["WHIMBREL_MQTT_USERNAME"]] = vars
			}
		}
		if len(env) != 3 {
			return fmt.Errorf("%d answer", len(env))
		}
		return nil
	})
	mine, theirs, labs := env["default.mine-0"], env["default.theirs-0"], env["lab.mine-0"]
	if mine == nil || theirs == nil || labs == nil || mine["KEY"] != marker {
		t.Fatalf("the apps are %v", env)
	}

	// connect returns the connection's error.
	connect := func(username, password, id string, more func(*mqtt.ClientOptions)) (mqtt.Client, error) {
		o := mqtt.NewClientOptions().AddBroker("tcp://" + e.mqtt).SetClientID(id).SetUsername(username).SetPassword(password).SetAutoReconnect(false)
		if more != nil {
			more(o)
		}
		client := mqtt.NewClient(o)
		token := client.Connect()
		if !token.WaitTimeout(10 * time.Second) {
			return nil, fmt.Errorf("no answer")
		}
		return client, token.Error()
	}
	must := func(vars map[string]string, id string) mqtt.Client {
		t.Helper()
		client, err := connect(vars["WHIMBREL_MQTT_USERNAME"], vars["WHIMBREL_MQTT_PASSWORD"], id, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Disconnect(100) })
		return client
	}
	var admin struct{ Username, Password string }
	if err := json.Unmarshal([]byte(read(filepath.Join(e.data, "mqtt.json"))), &admin); err != nil {
		t.Fatal(err)
	}
	subscribe := func(client mqtt.Client, filter string, h *heard) byte {
		t.Helper()
		token := client.Subscribe(filter, 1, h.take).(*mqtt.SubscribeToken)
		if !token.WaitTimeout(10 * time.Second) {
			t.Fatalf("subscribe %s: no answer", filter)
		}
		for _, code := range token.Result() { // under the filter, or what of it follows $share/NAME/
			return code
		}
		return 0x80
	}

	step(t, "as somebody else", func(t *testing.T) {
		for i, c := range [][2]string{{"default.mine-0", theirs["WHIMBREL_MQTT_PASSWORD"]}, {"default.theirs-0", mine["WHIMBREL_MQTT_PASSWORD"]}, {"lab.mine-0", mine["WHIMBREL_MQTT_PASSWORD"]},
			{"default.mine-0", mine["WHIMBREL_API_TOKEN"]}, {"default.mine-0", ""}, {"", ""}, {"", mine["WHIMBREL_MQTT_PASSWORD"]}, {admin.Username, mine["WHIMBREL_MQTT_PASSWORD"]},
			{"default.mine-1", mine["WHIMBREL_MQTT_PASSWORD"]}, {"default.mine", mine["WHIMBREL_MQTT_PASSWORD"]}} {
			if client, err := connect(c[0], c[1], fmt.Sprintf("somebody-%d", i), nil); err == nil {
				client.Disconnect(0)
				t.Errorf("%d: %q is let in", i, c[0])
			}
		}
	})
	step(t, "topics", func(t *testing.T) {
		all, theirsHeard, mineHeard := &heard{}, &heard{}, &heard{}
		root, err := connect(admin.Username, admin.Password, "root", nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { root.Disconnect(100) })
		subscribe(root, "#", all)
		m, th := must(mine, "mine"), must(theirs, "theirs")
		subscribe(th, "theirs/#", theirsHeard)
		th.Publish("theirs/kept", 1, true, "x").WaitTimeout(10 * time.Second)
		for _, filter := range []string{"theirs/#", "theirs/kept", "+/kept/x/../theirs", "$share/g/theirs/#", "devices/tank-2/#", "devices/tank-2/properties/level", "devices/tank-1/properties/valve",
			"devices/lab.tank-1/#", "devices/default.tank-2/#", "mappers/#", "whimbrel/#", "$SYS/#", "$share/g/$SYS/#"} {
			if code := subscribe(m, filter, mineHeard); code < 0x80 && filter != "+/kept/x/../theirs" {
				t.Errorf("subscribe %s: %#x", filter, code)
			}
		}
		for _, filter := range []string{"#", "+/#", "+/+", "$share/g/#", "devices/#", "devices/+/properties/+", "devices/+/desired", "devices/+/writes"} {
			subscribe(m, filter, mineHeard) // let in or not: it is what comes that counts
		}
		for _, topic := range []string{"theirs/x", "theirs", "other", "devices/tank-2/desired", "devices/tank-1/desired", "devices/lab.tank-1/desired", "devices/tank-1/properties/level", "devices/tank-1/state",
			"devices/tank-1/writes", "devices/tank-1/desired/result", "mappers/x/hello", "whimbrel/x", "$SYS/x"} {
			m.Publish(topic, 1, true, `{"dose": 99, "valve": 99}`).WaitTimeout(time.Second)
			if !m.IsConnectionOpen() { // that is an answer, too
				m = must(mine, "mine")
			}
		}
		th.Publish("theirs/live", 1, false, "x").WaitTimeout(10 * time.Second)
		// What a connection leaves behind is its will.
		var conn net.Conn
		_, err = connect("default.mine-0", mine["WHIMBREL_MQTT_PASSWORD"], "will", func(o *mqtt.ClientOptions) {
			o.SetWill("theirs/will", "x", 1, true).SetCustomOpenConnectionFn(func(u *url.URL, _ mqtt.ClientOptions) (net.Conn, error) {
				var err error
				conn, err = net.Dial("tcp", u.Host)
				return conn, err
			})
		})
		t.Logf("a client with a will of others' topics: %v", err)
		if conn != nil {
			_ = conn.Close()
		}
		m.Publish("mine/last", 1, false, "x").WaitTimeout(10 * time.Second)
		eventually(t, 10*time.Second, "the last message", func() error {
			if all.count("mine/last") == 0 || theirsHeard.count("theirs/live") == 0 {
				return fmt.Errorf("the broker's own hears %v", all.besides())
			}
			return nil
		})
		if got := all.besides("devices/", "mine/last", "theirs/kept", "theirs/live"); len(got) > 0 {
			t.Errorf("got through: %v", got)
		}
		if got := theirsHeard.besides("theirs/kept", "theirs/live"); len(got) > 0 {
			t.Errorf("reached the other: %v", got)
		}
		if got := mineHeard.besides("mine/last", "devices/tank-1/properties/level", "devices/tank-1/state"); len(got) > 0 {
			t.Errorf("it hears %v", got)
		}
		for _, name := range []string{"tank-1", "tank-2"} {
			if d, err := h.twin(hubAPI, name); err != nil || d.DesiredVersion != 0 {
				t.Errorf("%s: %+v, %v", name, d, err)
			}
		}
		th.Publish("theirs/kept", 1, true, "").WaitTimeout(10 * time.Second)
	})
	step(t, "devices, over REST", func(t *testing.T) {
		local := e.local()
		as := func(vars map[string]string) *api { return local.as(vars["WHIMBREL_API_TOKEN"]) }
		for _, r := range [][3]string{
			{"GET", "/v1/devices/tank-2/twin"}, {"GET", "/v1/devices/lab.tank-1/twin"}, {"GET", "/v1/devices/tank-1/../tank-2/twin"}, {"GET", "/v1/devices/tank-1%2f..%2ftank-2/twin"},
			{"GET", "/v1/devices/tank-1/%2e%2e/tank-2/twin"}, {"GET", "/v1//devices/tank-2/twin"}, {"GET", "/v1/devices/tank-2/twin/"}, {"GET", "/v1/devices/TANK-2/twin"}, {"GET", "/v1/devices/tank-2%00/twin"},
			{"PATCH", "/v1/devices/tank-1/twin/desired", `{"level": 1}`}, {"PATCH", "/v1/devices/tank-1/twin/desired", `{"valve": 1}`}, {"PATCH", "/v1/devices/tank-2/twin/desired", `{"dose": 1}`},
			{"POST", "/v1/devices/tank-1/read", `{"properties": ["valve"]}`}, {"POST", "/v1/devices/tank-2/read", `{}`}, {"GET", "/v1/devices/tank-1/recording?for=1s"},
			{"GET", "/metrics"}, {"POST", "/v1/routes/none", `{}`}, {"POST", "/v1/routes/theirs", `{}`}, {"POST", "/v1/routes/default.mine", `{}`}, {"POST", "/v1/routes/mine/", `{}`}, {"GET", "/v1/services/theirs/"}, {"GET", "/api/v1/secrets"},
		} {
			got, err := as(mine).do(r[0], r[1], r[2])
			if err != nil {
				t.Fatal(err)
			}
			if got.status < 400 || got.status >= 500 || bytes.Contains(got.body, []byte(`"properties"`)) {
				t.Errorf("%v: %v", r, got)
			}
		}
		// One that it may write and one that it may not: neither is written.
		as(theirs).want(t, 403, "PATCH", edgeAPI+"/devices/tank-2/twin/desired", `{"dose": 5, "valve": 5}`)
		for _, token := range []string{"", "guess", mine["WHIMBREL_MQTT_PASSWORD"], h.token} {
			if got := local.as(token).want(t, 401, "GET", edgeAPI+"/devices", ""); got.header.Get("WWW-Authenticate") == "" {
				t.Errorf("%v", got)
			}
		}
		as(mine).want(t, 202, "POST", edgeAPI+"/routes/mine?wait=0s", `{}`)
		as(theirs).want(t, 403, "POST", edgeAPI+"/routes/mine", `{}`)
		as(labs).want(t, 403, "POST", edgeAPI+"/routes/mine", `{}`)
		as(labs).want(t, 403, "GET", edgeAPI+"/services/default.theirs/", "")
		as(labs).want(t, 403, "GET", edgeAPI+"/devices/tank-1/twin", "")
		as(labs).want(t, 200, "GET", edgeAPI+"/devices/lab.tank-1/twin", "")
		if got := as(theirs).want(t, 202, "PATCH", edgeAPI+"/devices/tank-2/twin/desired", `{"dose": 5}`); strings.Contains(got.String(), "level") {
			t.Errorf("who writes the dose sees %v", got)
		}
	})
	step(t, "the hub", func(t *testing.T) {
		edgeToken := e.local().token
		refused := func(token, method, path, body string, headers ...string) {
			t.Helper()
			got, err := h.as(token).do(method, path, body, headers...)
			if err != nil {
				t.Fatal(err)
			}
			if got.status != 401 && got.status != 429 { // who guesses is slowed down
				t.Errorf("%s %s: %v", method, path, got)
			}
		}
		for _, token := range []string{mine["WHIMBREL_API_TOKEN"], mine["WHIMBREL_MQTT_PASSWORD"], edgeToken} {
			refused(token, "GET", hubAPI+"/nodes", "")
			refused(token, "GET", hubAPI+"/secrets/vault", "")
			refused(token, "POST", hubAPI+"/tokens", `{"node": "mine"}`)
			refused("", "GET", hubAPI+"/nodes", "", "Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("admin:"+token)))
		}
		for _, path := range []string{hubAPI + "/devices", hubAPI + "/users", hubAPI + "/pods", hubAPI + "/audit", hubAPI + "/twins", hubAPI + "/devices/tank-1/twin", "/metrics", "/v2/"} {
			refused("", "GET", path, "")
		}
		// The link takes certificates, and no token but of joining.
		insecure := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}}}
		link := &api{url: "https://" + h.link, token: mine["WHIMBREL_API_TOKEN"], http: insecure}
		for _, path := range []string{"/", "/link", "/api/v1/nodes", "/renew"} {
			if got, err := link.do("GET", path, ""); err == nil && got.status < 400 {
				t.Errorf("the link answers %s with %v", path, got)
			}
		}
		if got, err := link.do("POST", "/join", `{"token": "`+mine["WHIMBREL_API_TOKEN"]+`"}`); err != nil || got.status < 400 || got.status >= 500 {
			t.Errorf("joining: %v, %v", got, err)
		}
	})
	step(t, "trouble with a secret in it", func(t *testing.T) {
		h.apply(fmt.Sprintf(guardedManifest, "default", "crashes", "whimbrel.test/app:1", "exit=4", ""))
		h.apply(fmt.Sprintf(guardedManifest, "default", "missing", "whimbrel.test/none:1", "serve=8080", ""))
		h.apply(strings.Replace(fmt.Sprintf(guardedManifest, "default", "nocommand", "whimbrel.test/app:1", "x", ""), "args:", "command: [/nope]\n        args:", 1))
		h.apply(strings.Replace(fmt.Sprintf(guardedManifest, "default", "unready", "whimbrel.test/app:1", "serve=8080", ""), "env:", "livenessProbe: {exec: {command: [/nope]}, periodSeconds: 1, failureThreshold: 1}\n        env:", 1))
		h.apply(strings.Replace(fmt.Sprintf(guardedManifest, "default", "talks", "whimbrel.test/app:1", "serve=8080", ""), "env:",
			"readinessProbe: {exec: {command: [/app, env=KEY, env=WHIMBREL_API_TOKEN, cat=/vault/key, exit=3]}, periodSeconds: 1, failureThreshold: 1}\n        env:", 1))
		eventually(t, 40*time.Second, "they are in trouble", func() error {
			got := h.must("", "get", "pods") + h.must("", "describe", "pod", "talks-0")
			for _, reason := range []string{"crashes-0", "CrashLoopBackOff", "missing-0", "Err", "exit code 3"} {
				if !strings.Contains(got, reason) {
					return fmt.Errorf("%s", got)
				}
			}
			return nil
		})
	})
	step(t, "nowhere in the clear", func(t *testing.T) {
		var hidden []string
		for _, vars := range env {
			for _, s := range []string{vars["WHIMBREL_MQTT_PASSWORD"], vars["WHIMBREL_API_TOKEN"]} {
				hidden = append(hidden, s, base64.StdEncoding.EncodeToString([]byte(s)))
			}
		}
		hidden = append(hidden, marker, base64.StdEncoding.EncodeToString([]byte(marker)))
		check := func(where string, text []byte) {
			t.Helper()
			for _, s := range hidden {
				if bytes.Contains(text, []byte(s)) {
					t.Errorf("%s shows %.8s…", where, s)
				}
			}
		}
		for _, path := range []string{"/pods", "/deployments", "/nodes", "/events", "/audit", "/devices/tank-2/writes", "/twins"} {
			check(path, h.want(t, 200, "GET", hubAPI+path, "").body)
		}
		for _, args := range [][]string{{"describe", "app", "crashes"}, {"describe", "app", "nocommand"}, {"describe", "pod", "unready-0"}, {"describe", "pod", "talks-0"}, {"get", "pod", "talks-0", "-o", "json"}, {"describe", "node", "gateway-1"}, {"get", "events"},
			{"get", "pods", "-o", "yaml"}, {"rollout", "history", "mine"}} {
			check(strings.Join(args, " "), []byte(h.must("", args...)))
		}
		check("/metrics", h.want(t, 200, "GET", "/metrics", "").body)
		check("the edge's /metrics", e.local().want(t, 200, "GET", "/metrics", "").body)
		for _, dir := range []string{h.data, e.data, h.dir, e.dir} { // databases with their logs, keys, outputs
			err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
				if err != nil || !d.Type().IsRegular() {
					return err
				}
				text, err := os.ReadFile(path)
				if os.IsNotExist(err) {
					return nil
				}
				check(path, text)
				return err
			})
			if err != nil {
				t.Error(err)
			}
		}
	})
	step(t, "gone", func(t *testing.T) {
		root, err := connect(admin.Username, admin.Password, "root again", nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { root.Disconnect(100) })
		all, own := &heard{}, &heard{}
		subscribe(root, "#", all)
		client := must(mine, "last")
		subscribe(client, "mine/#", own)
		client.Publish("mine/before", 1, false, "x").WaitTimeout(10 * time.Second)
		eventually(t, 10*time.Second, "it hears itself", func() error {
			if own.count("mine/before") == 0 {
				return fmt.Errorf("it hears %v", own.besides())
			}
			return nil
		})
		h.must("", "delete", "deployment", "mine")
		eventually(t, 30*time.Second, "its credentials end", func() error {
			got, err := e.local().as(mine["WHIMBREL_API_TOKEN"]).do("GET", edgeAPI+"/devices", "")
			if err == nil && got.status != 401 {
				err = fmt.Errorf("%v", got)
			}
			return err
		})
		if other, err := connect("default.mine-0", mine["WHIMBREL_MQTT_PASSWORD"], "again", nil); err == nil {
			other.Disconnect(0)
			t.Error("its password is good still")
		}
		// Whoever holds a connection from before has nothing of it.
		client.Publish("mine/after", 1, false, "x").WaitTimeout(time.Second)
		root.Publish("mine/of-root", 1, false, "x").WaitTimeout(10 * time.Second)
		// Both have come to whom they are for when the next message of root has.
		root.Publish("end", 1, false, "x").WaitTimeout(10 * time.Second)
		eventually(t, 10*time.Second, "the end", func() error {
			if all.count("end") == 0 || all.count("mine/of-root") == 0 {
				return fmt.Errorf("heard %v", all.besides())
			}
			return nil
		})
		if all.count("mine/after") > 0 || own.count("mine/of-root") > 0 {
			t.Errorf("its old connection is good still: %v, %v", all.besides("devices/"), own.besides())
		}
		eventually(t, 10*time.Second, "its old connection ends", func() error {
			if client.IsConnectionOpen() {
				return fmt.Errorf("it is open")
			}
			return nil
		})
	})
}
