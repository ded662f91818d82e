package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/engine"
	"github.com/whimbrel-edge/whimbrel/models"
)

const fleetManifest = `
apiVersion: v1
kind: Secret
metadata: {name: fleet}
stringData: {password: %q}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: fleet}
spec:
  replicas: 2
  template:
    metadata: {labels: {app: fleet}}
    spec:
      nodeSelector: {site: north}
      terminationGracePeriodSeconds: 2
      containers:
      - name: main
        image: whimbrel.test/app:1
        args: [serve=8080]
        env:
        - {name: VERSION, value: %q}
        - {name: PASSWORD, valueFrom: {secretKeyRef: {name: fleet, key: password}}}
        readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
`

const setsManifest = `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  template:
    spec:
      nodeSelector: {agent: "yes"}
      terminationGracePeriodSeconds: 2
      containers:
      - {name: main, image: "whimbrel.test/app:1", args: [serve=8080], readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: store}
spec:
  replicas: 2
  template:
    spec:
      nodeSelector: {site: north}
      terminationGracePeriodSeconds: 2
      containers:
      - name: main
        image: whimbrel.test/app:1
        args: [serve=8080]
        env: [{name: VERSION, value: %q}]
        readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
`

// sets has a DaemonSet follow the labels of two edges, and a StatefulSet come up and
// change in its order.
func sets(t *testing.T, h *hub, engines map[string]*containers) {
	pods := func() (out []models.Pod) {
		t.Helper()
		var list struct{ Items []models.Pod }
		if err := json.Unmarshal([]byte(h.must("", "get", "pods", "-o", "json")), &list); err != nil {
			t.Fatal(err)
		}
		return list.Items
	}
	where := func() string {
		var out []string
		for _, p := range pods() {
			if p.Metadata.OwnerReferences[0].Name == "agent" && p.Status.Ready {
				out = append(out, p.Metadata.Name+"@"+p.Spec.NodeName)
			}
		}
		return strings.Join(out, " ")
	}
	label := func(node, value, want string) {
		t.Helper()
		h.want(t, 200, "PATCH", hubAPI+"/nodes/"+node, `{"metadata": {"labels": {"agent": `+value+`}}}`)
		eventually(t, 30*time.Second, "the agents are "+want, func() error {
			if got := where(); got != want {
				return fmt.Errorf("they are %q", got)
			}
			return nil
		})
	}
	h.apply(fmt.Sprintf(setsManifest, "1"))
	label("gateway-1", `"yes"`, "agent-gateway-1@gateway-1")
	label("gateway-2", `"yes"`, "agent-gateway-1@gateway-1 agent-gateway-2@gateway-2")
	label("gateway-1", "null", "agent-gateway-2@gateway-2")

	// begun returns since when the containers of both pods run, that at a revision.
	begun := func(revision int64) (out [2]time.Time) {
		t.Helper()
		if r := h.cli("", "rollout", "status", "sts/store", "--timeout", "40s"); r.code != 0 {
			t.Fatalf("%v\n%s", r, h.must("", "describe", "sts", "store"))
		}
		for _, p := range pods() {
			for i := range out {
				if p.Metadata.Name == fmt.Sprint("store-", i) && p.Status.Revision == revision && p.Status.ContainerStatuses[0].State.Running != nil {
					out[i] = p.Status.ContainerStatuses[0].State.Running.StartedAt
				}
			}
		}
		if out[0].IsZero() || out[1].IsZero() {
			t.Fatalf("not both are at revision %d: %s", revision, h.must("", "get", "pods"))
		}
		return out
	}
	if at := begun(1); !at[0].Before(at[1]) {
		t.Errorf("store-0 began at %s, store-1 at %s", at[0], at[1])
	}
	h.apply(fmt.Sprintf(setsManifest, "2"))
	if at := begun(2); !at[1].Before(at[0]) {
		t.Errorf("at revision 2 store-0 began at %s, store-1 at %s", at[0], at[1])
	}
	h.must("", "delete", "ds", "agent")
	h.must("", "delete", "sts", "store")
	eventually(t, 30*time.Second, "all of them are gone", func() error {
		for node, c := range engines {
			if n := len(c.list()); n > 0 {
				return fmt.Errorf("%d containers on %s", n, node)
			}
		}
		if left := pods(); len(left) > 0 {
			return fmt.Errorf("%d pods", len(left))
		}
		return nil
	})
}

// TestAppOnTwoEdges spreads an app over two real edges with an engine each, and
// brings it to a new revision while one of them is away.
func TestAppOnTwoEdges(t *testing.T) {
	t.Parallel()
	h := newHub(t, "")
	edges, engines := map[string]*edge{}, map[string]*containers{}
	for _, name := range []string{"gateway-1", "gateway-2"} {
		c := newContainers(t)
		e := &edge{process: newProcess(t, "edge "+name, program(t, "whimbrel-edge")), node: name, data: t.TempDir(), mqtt: holdPort(t), addr: holdPort(t)}
		e.env = []string{"DOCKER_HOST=" + c.Host()}
		e.start("--hub", "https://"+h.link, "--token", h.joinToken(name), "--name", name, "--labels", "site=north", "--data", e.data, "--mqtt", e.mqtt, "--api", e.addr)
		edges[name], engines[name] = e, c
	}
	eventually(t, 20*time.Second, "both are there", func() error {
		if got := h.must("", "get", "nodes"); strings.Count(got, " Ready ") != 2 {
			return fmt.Errorf("%s", got)
		}
		return nil
	})
	// serves checks what the one app of an edge says.
	serves := func(node, path, want string) {
		t.Helper()
		eventually(t, 20*time.Second, node+" serves "+want, func() error {
			app, err := engines[node].app()
			if err != nil {
				return err
			}
			got, err := app.do("GET", path, "")
			if err == nil && !strings.Contains(string(got.body), want) {
				err = fmt.Errorf("it says %s", got.body)
			}
			return err
		})
	}
	rollout := func(want string, args ...string) {
		t.Helper()
		r := h.cli("", append([]string{"rollout", "status", "fleet"}, args...)...)
		if !strings.Contains(r.stdout+r.stderr, want) {
			t.Fatalf("%v\n%s", r, h.must("", "describe", "app", "fleet"))
		}
	}
	step(t, "sets", func(t *testing.T) { sets(t, h, engines) })
	step(t, "spread", func(t *testing.T) {
		h.apply(fmt.Sprintf(fleetManifest, "first", "1"))
		rollout("all pods are at revision 1", "--timeout", "40s")
		for node := range edges {
			serves(node, "/", "hello from 1")
			serves(node, "/env", `"PASSWORD":"first"`)
		}
	})
	step(t, "one is away", func(t *testing.T) {
		edges["gateway-2"].kill()
		eventually(t, 60*time.Second, "the hub knows", func() error {
			if got := h.must("", "get", "pods"); !strings.Contains(got, "NodeLost") {
				return fmt.Errorf("%s", got)
			}
			return nil
		})
		h.apply(fmt.Sprintf(fleetManifest, "second", "2"))
		rollout("1 of 2 pods are up, the others wait for nodes that are not connected: gateway-2", "--timeout", "4s")
		serves("gateway-1", "/", "hello from 2")
		serves("gateway-1", "/env", `"PASSWORD":"second"`)
		serves("gateway-2", "/", "hello from 1") // its app does not know that anybody is away
	})
	step(t, "it comes back", func(t *testing.T) {
		edges["gateway-2"].again()
		rollout("all pods are at revision 2", "--timeout", "40s")
		serves("gateway-2", "/", "hello from 2")
		serves("gateway-2", "/env", `"PASSWORD":"second"`)
	})
	step(t, "a node is deleted", func(t *testing.T) {
		edges["gateway-2"].stop()
		h.must("", "delete", "node", "gateway-2")
		rollout("all pods are at revision 2", "--timeout", "40s")
		eventually(t, 20*time.Second, "both run on the other", func() error {
			running := 0
			for _, c := range engines["gateway-1"].list() {
				if c.State == engine.Running {
					running++
				}
			}
			if got := h.must("", "get", "pods"); strings.Count(got, "gateway-1") != 2 || running != 2 {
				return fmt.Errorf("%d containers, %s", running, got)
			}
			return nil
		})
	})
}
