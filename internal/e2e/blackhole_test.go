package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/whimbrel-edge/whimbrel/internal/faultproxy"
)

const holeManifest = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 1
  template:
    metadata: {labels: {app: web}}
    spec:
      nodeName: gateway-1
      terminationGracePeriodSeconds: 1
      containers:
      - {name: main, image: whimbrel.test/app:1, args: ["say=begins", "serve=8080"], ports: [{name: http, containerPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
`

// TestBlackHole has the network between edge and hub swallow everything while the
// apps there are asked, listened to and worked in: all of it ends, with an error, and
// works again when the network does.
func TestBlackHole(t *testing.T) {
	t.Parallel()
	c := newContainers(t)
	h := newHub(t, "")
	network := faultproxy.New(t, h.link)
	e := &edge{process: newProcess(t, "edge gateway-1", program(t, "whimbrel-edge")), node: "gateway-1", data: t.TempDir(), mqtt: holdPort(t), addr: holdPort(t)}
	e.env = []string{"DOCKER_HOST=" + c.Host()}
	e.start("--hub", "https://"+network.Addr(), "--token", h.joinToken("gateway-1"), "--name", "gateway-1", "--data", e.data, "--mqtt", e.mqtt, "--api", e.addr)
	h.awaitNode(t, "gateway-1", true)
	h.apply(holeManifest)
	if r := h.cli("", "rollout", "status", "web"); r.code != 0 {
		t.Fatal(r)
	}
	const web = hubAPI + "/services/web/proxy"
	authorized := http.Header{"Authorization": {"Bearer " + h.token}}
	follow := func(path string) *bufio.Reader {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), "GET", h.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = authorized
		res, err := (&http.Client{Transport: h.http.Transport}).Do(req) // without its own limit of time
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = res.Body.Close() })
		lines := bufio.NewReader(res.Body)
		if line, err := lines.ReadString('\n'); err != nil {
			t.Fatalf("%s: %q %v", path, line, err)
		}
		return lines
	}
	stream, log := follow(web+"/ticks"), follow(hubAPI+"/pods/web-0/log?follow=true")
	ws, _, err := websocket.Dial(t.Context(), h.url+web+"/ws", &websocket.DialOptions{HTTPClient: h.http, HTTPHeader: authorized})
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	exec := make(chan result, 1)
	go func() { exec <- h.cli("", "exec", "web-0", "--", "/app", "sleep=1h") }() // ends with its stream
	eventually(t, 20*time.Second, "the command runs", func() error {
		if got := h.want(t, 200, "GET", "/api/v1/audit", "").String(); !strings.Contains(got, `"action":"exec"`) {
			return errors.New("nobody has begun one")
		}
		return nil
	})

	network.Set(faultproxy.Blackhole)
	began := time.Now()
	type end struct {
		what string
		err  error
	}
	ends := make(chan end, 8)
	for what, wait := range map[string]func() error{
		"a stream":    func() error { _, err := io.Copy(io.Discard, stream); return err },
		"a log":       func() error { _, err := io.Copy(io.Discard, log); return err },
		"a WebSocket": func() error { _, _, err := ws.Read(context.Background()); return err },
		"a command": func() error {
			if r := <-exec; r.code == 0 {
				return nil
			}
			return errors.New("it has failed, as it should")
		},
	} {
		go func() { ends <- end{what, wait()} }() // ends with the test's hub at the latest
	}
	// Who asks now, and says how long they can wait, is not held up longer.
	for _, path := range []string{"/raw/x", "/silent"} {
		asked := time.Now()
		got, err := h.do("GET", web+path, "", "X-Whimbrel-Timeout", "2s")
		if err != nil || got.status != 504 {
			t.Errorf("%s: %v %v", path, got, err)
		}
		if took := time.Since(asked); took > 15*time.Second {
			t.Errorf("%s: answered after %s", path, took)
		}
	}
	for range 4 {
		select {
		case e := <-ends:
			t.Logf("%s ended after %s: %v", e.what, time.Since(began).Round(time.Second), e.err)
			if e.err == nil {
				t.Errorf("%s ended as if it were whole", e.what)
			}
		case <-time.After(90*time.Second - time.Since(began)):
			t.Fatalf("after %s not all have ended", time.Since(began))
		}
	}
	network.Set(faultproxy.Pass)
	eventually(t, 90*time.Second, "the app answers again", func() error {
		got, err := h.do("GET", web+"/raw/x", "", "X-Whimbrel-Timeout", "2s")
		if err == nil && got.status != 200 {
			err = fmt.Errorf("%v", got)
		}
		return err
	})
}
