package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/sessions/sessionstest"
)

const appManifest = `
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {level: debug}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: main
        image: %s
        envFrom: [{configMapRef: {name: settings}}]
`

// TestRollout deploys an app as a person does it, by commands, to edges that play
// their containers. The hub is killed in the middle.
func TestRollout(t *testing.T) {
	h := newHub(t, "")
	join := func(node string) *sessionstest.PodEdge {
		return sessionstest.RunPods(t, sessionstest.Joined(t, "https://"+h.link, node, h.joinToken(node)))
	}
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
	step(t, "before there is a node", func(t *testing.T) {
		h.apply(fmt.Sprintf(appManifest, "web:v1"))
		eventually(t, 5*time.Second, "why", func() error {
			if r := h.cli("", "describe", "app", "web"); !strings.Contains(r.stdout, "Unschedulable") || !strings.Contains(r.stdout, "there is no node") {
				return fmt.Errorf("%v", r)
			}
			return nil
		})
		says(h.cli("", "rollout", "status", "web", "--timeout", "300ms"), 1, "there is no node", "deployment/web is not through after 300ms; it goes on")
	})
	a := join("gateway-1")
	b := join("gateway-2")
	step(t, "rolled out", func(t *testing.T) {
		says(h.cli("", "rollout", "status", "web"), 0, "all pods are at revision 1")
		says(h.cli("", "get", "deploy"), 0, "web    2/2     2            Available")
		says(h.cli("", "get", "pods", "-o", "wide"), 0, "web-0", "1/1     Running", "web:v1")
		says(h.cli("", "get", "svc,cm,nodes"), 0, "80→8080", "settings", "gateway-2")
		says(h.cli("", "describe", "pod", "web-0"), 0, "PodScheduled", "running for", "sha256:web:v1")
		says(h.cli("", "describe", "svc", "web"), 0, "web-1")
	})
	step(t, "a revision that fails", func(t *testing.T) {
		a.Break("web:v2", true)
		b.Break("web:v2", true)
		h.apply(fmt.Sprintf(appManifest, "web:v2"))
		says(h.cli("", "rollout", "status", "web"), 1, "error: deployment/web: revision 2: pod web-0 on node gateway-", "CrashLoopBackOff: back-off 10s")
		says(h.cli("", "get", "deploy"), 0, "web    2/2     0            RolloutFailed")
		says(h.cli("", "describe", "app", "web"), 0, "revision 2: CrashLoopBackOff")
	})
	step(t, "the hub is killed, and undone", func(t *testing.T) {
		h.kill()
		a.Disconnect()
		b.Disconnect()
		h.begin()
		h.awaitReady()
		says(h.cli("", "get", "pods"), 0, "NodeLost")
		a.Connect()
		b.Connect()
		says(h.cli("", "rollout", "history", "web"), 0, "1          ", "web:v2")
		says(h.cli("", "rollout", "undo", "web", "--to-revision", "9"), 1, "has no revision 9")
		says(h.cli("", "rollout", "undo", "web"), 0, "deployment/web goes back to the template of revision 1")
		says(h.cli("", "rollout", "status", "web"), 0, "all pods are at revision 3")
		if a.Runs()["web-0"]+b.Runs()["web-0"] != "web:v1" {
			t.Errorf("a runs %v, b runs %v", a.Runs(), b.Runs())
		}
	})
	step(t, "what is refused", func(t *testing.T) {
		says(h.cli(h.must("", "get", "pod", "web-0", "-o", "yaml"), "apply", "-f", "-"), 1, "the hub makes these itself: apply a Deployment")
		says(h.cli(h.must("", "get", "app", "web", "-o", "yaml"), "diff", "-f", "-"), 0)
		says(h.cli(strings.Replace(fmt.Sprintf(appManifest, "x"), "envFrom:", "securityContext: {}\n        envFrom:", 1), "apply", "-f", "-"), 1, "/spec/template/spec/containers/0/securityContext: unknown field")
	})
	step(t, "gone", func(t *testing.T) {
		h.must(fmt.Sprintf(appManifest, "web:v1"), "delete", "-f", "-")
		eventually(t, 10*time.Second, "nothing is left", func() error {
			if left := h.must("", "get", "pods,controllerrevisions", "-o", "name"); left != "" || len(a.Holds())+len(b.Holds()) != 0 {
				return fmt.Errorf("%s; a holds %v, b holds %v", left, a.Holds(), b.Holds())
			}
			return nil
		})
	})
}

// TestAppRights checks who may deploy what.
func TestAppRights(t *testing.T) {
	h := newHub(t, "")
	as := func(name, role string, more ...string) func(document string) answer {
		token := strings.TrimSpace(h.must("", append([]string{"user", "create", name, "--role", role}, more...)...))
		a := &api{url: h.api.url, token: token, http: h.api.http}
		return func(document string) answer {
			got, err := a.do("POST", hubAPI+"/deployments?namespace=team", document)
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
	}
	admin, team, operator := as("root", "admin", "--all-namespaces"), as("lead", "admin", "-n", "team"), as("op", "operator", "--all-namespaces")
	app := func(name, spec string) string {
		return fmt.Sprintf(`{"metadata":{"name":%q},"spec":{"template":{"spec":{"containers":[{"name":"c","image":"i"}]%s}}}}`, name, spec)
	}
	plain, host := "", `,"hostNetwork":true,"volumes":[{"name":"tty","hostPath":{"path":"/dev/ttyUSB0"}}]`
	for i, c := range []struct {
		who    func(string) answer
		spec   string
		status int
	}{{operator, plain, 403}, {team, plain, 201}, {team, host, 403}, {admin, host, 201}, {team, `,"access":[{"devices":"a=b","verbs":["read","write"]}]`, 201}} {
		if got := c.who(app(fmt.Sprint("app-", i), c.spec)); got.status != c.status {
			t.Errorf("%d: %v, want %d", i, got, c.status)
		} else if c.status == 403 && c.spec == host && (!strings.Contains(got.String(), "/spec/template/spec/volumes/0/hostPath") || !strings.Contains(got.String(), "/spec/template/spec/hostNetwork")) {
			t.Errorf("%d: %v", i, got)
		}
	}
}
