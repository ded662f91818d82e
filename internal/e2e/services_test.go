package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

const serviceManifest = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  template:
    metadata: {labels: {app: web}}
    spec:
      nodeName: gateway-1
      terminationGracePeriodSeconds: 2
      containers:
      - name: main
        image: whimbrel.test/app:1
        args: ["say=begins", "serve=8080"]
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: asker}
spec:
  replicas: 1
  template:
    metadata: {labels: {app: asker}}
    spec:
      nodeName: gateway-2
      terminationGracePeriodSeconds: 2
      containers:
      - {name: main, image: whimbrel.test/app:1, args: ["serve=8080"], ports: [{name: http, containerPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http}, {name: nobody, port: 81, targetPort: 8081}]
---
apiVersion: v1
kind: Service
metadata: {name: asker}
spec:
  selector: {app: asker}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: none}
spec:
  selector: {app: none}
  ports: [{port: 80}]
`

// rawSeen is what an app saw of a request.
type rawSeen struct {
	Method, URI, Host, Body, Pod string
	Header                       http.Header
}

// appNode starts an edge with an engine.
func (c *containers) appNode(h *hub, node string) *edge {
	e := &edge{process: newProcess(c.t, "edge "+node, program(c.t, "whimbrel-edge")), node: node, data: c.t.TempDir(), mqtt: holdPort(c.t), addr: holdPort(c.t)}
	e.env = []string{"DOCKER_HOST=" + c.Host()}
	e.start("--hub", "https://"+h.link, "--token", h.joinToken(node), "--name", node, "--data", e.data, "--mqtt", e.mqtt, "--api", e.addr)
	h.awaitNode(c.t, node, true)
	return e
}

// TestServices asks apps through the hub, through their edge, and from another edge.
func TestServices(t *testing.T) {
	t.Parallel()
	c := newContainers(t)
	h := newHub(t, "")
	e1, _ := c.appNode(h, "gateway-1"), c.appNode(h, "gateway-2")
	h.apply(serviceManifest)
	for _, app := range []string{"web", "asker"} {
		if r := h.cli("", "rollout", "status", app); r.code != 0 {
			t.Fatal(r)
		}
	}
	const web = hubAPI + "/services/web/proxy"
	step(t, "through the hub", func(t *testing.T) {
		pods := map[string]bool{}
		for range 8 {
			var s rawSeen
			got := h.want(t, 200, "POST", web+"/raw/a%20b?x=1&namespace=default", "body", "X-Own", "1")
			got.into(t, &s)
			pods[s.Pod] = true
			if s.URI != "/raw/a%20b?x=1" || s.Body != "body" || s.Host != "web.default" || s.Header.Get("X-Own") != "1" || s.Header.Get("Authorization") != "" || s.Header.Get("X-Whimbrel-User") != "admin" || s.Header.Get("X-Forwarded-Prefix") != web {
				t.Fatalf("%+v", s)
			}
		}
		if len(pods) != 2 {
			t.Errorf("only %v were asked", pods)
		}
		h.want(t, 200, "GET", hubAPI+"/nodes/gateway-1/services/default.web:http/proxy/raw/", "")
	})
	step(t, "what is wrong", func(t *testing.T) {
		for _, w := range []struct {
			status    int
			path, say string
		}{
			{404, hubAPI + "/services/nix/proxy/", "nix"},
			{404, hubAPI + "/services/web:ftp/proxy/", "http"},
			{502, hubAPI + "/services/web:nobody/proxy/", "takes connections"},
			{503, hubAPI + "/services/none/proxy/", "no pod"},
			{503, hubAPI + "/nodes/gateway-2/services/web/proxy/", "no pod"},
			{404, hubAPI + "/nodes/gateway-9/services/web/proxy/", "gateway-9"},
			{404, hubAPI + "/services/web/proxy/?namespace=other", "web"},
			{400, web + "/%2e%2e/x", ". and .."},
			{400, web + "/a%2fb", "encoded slash"},
			{400, web + "/a%0d%0ab", "control character"},
		} {
			if got := h.want(t, w.status, "GET", w.path, ""); !strings.Contains(got.String(), w.say) {
				t.Errorf("%s: %v", w.path, got)
			}
		}
		if got := h.want(t, 504, "GET", web+"/silent", "", "X-Whimbrel-Timeout", "300ms"); !strings.Contains(got.String(), "300ms") {
			t.Error(got)
		}
		h.must("", "user", "create", "vera", "--role", "viewer", "-n", "default")
	})
	step(t, "streams, and a caller that goes", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, "GET", h.url+web+"/ticks", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+h.token)
		res, err := h.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		lines := bufio.NewReader(res.Body)
		for want := range 5 {
			if got, err := lines.ReadString('\n'); got != fmt.Sprintln(want) {
				t.Fatalf("%q %v", got, err)
			}
		}
	})
	step(t, "a WebSocket", func(t *testing.T) {
		ws, _, err := websocket.Dial(t.Context(), h.url+web+"/ws", &websocket.DialOptions{HTTPClient: h.http, HTTPHeader: http.Header{"Authorization": {"Bearer " + h.token}}})
		if err != nil {
			t.Fatal(err)
		}
		defer ws.CloseNow()
		for range 3 {
			if err := ws.Write(t.Context(), websocket.MessageText, []byte("hello")); err != nil {
				t.Fatal(err)
			}
			if _, text, err := ws.Read(t.Context()); string(text) != "HELLO" {
				t.Fatalf("%q %v", text, err)
			}
		}
	})
	step(t, "much of it", func(t *testing.T) {
		req, _ := http.NewRequestWithContext(t.Context(), "GET", h.url+web+"/bytes?n=50000000", nil)
		req.Header.Set("Authorization", "Bearer "+h.token)
		began := time.Now()
		res, err := h.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		n, err := io.Copy(io.Discard, res.Body)
		if n != 50_000_000 || err != nil {
			t.Errorf("%d %v", n, err)
		}
		t.Logf("50 MB in %v", time.Since(began).Round(time.Millisecond))
	})
	local := e1.local()
	step(t, "through its edge", func(t *testing.T) {
		var s rawSeen
		local.want(t, 200, "PUT", "/v1/services/web/raw/x?namespace=y", "b").into(t, &s)
		if s.URI != "/raw/x?namespace=y" || s.Body != "b" || s.Header.Get("Authorization") != "" {
			t.Errorf("%+v", s)
		}
		local.want(t, 503, "GET", "/v1/services/none/", "")
		local.want(t, 400, "GET", "/v1/services/web/a%2fb", "")
	})
	step(t, "from an app on another node", func(t *testing.T) {
		var env map[string]string
		h.want(t, 200, "GET", hubAPI+"/services/asker/proxy/env", "").into(t, &env)
		ask := func(path string) answer {
			t.Helper()
			got, err := h.do("POST", hubAPI+"/services/asker/proxy/get?method=GET&url="+url.QueryEscape(env["WHIMBREL_API_URL"]+path), "", "X-Whimbrel-App-Authorization", "Bearer "+env["WHIMBREL_API_TOKEN"])
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		got := ask("/v1/services/web/raw/hi")
		var s rawSeen
		if err := json.Unmarshal(got.body, &s); err != nil || s.URI != "/raw/hi" || s.Header.Get("X-Whimbrel-User") != "default.asker-0" {
			t.Errorf("%v: %+v", got, s)
		}
		if got := ask("/v1/services/other.web/raw/hi"); got.status != 403 {
			t.Errorf("of another namespace: %v", got)
		}
		if got := ask("/v1/services/none/"); got.status != 503 {
			t.Errorf("nowhere: %v", got)
		}
	})
	step(t, "its node is away", func(t *testing.T) {
		e1.kill()
		h.awaitNode(t, "gateway-1", false)
		if got := h.want(t, 503, "GET", web+"/raw/", ""); !strings.Contains(got.String(), "gateway-1") {
			t.Error(got)
		}
		e1.again()
		h.awaitNode(t, "gateway-1", true)
		eventually(t, 30*time.Second, "the app answers again", func() error {
			got, err := h.do("GET", web+"/raw/", "")
			if err == nil && got.status != 200 {
				err = fmt.Errorf("%v", got)
			}
			return err
		})
	})
}
