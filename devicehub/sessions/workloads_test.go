package sessions_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/sessions/sessionstest"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

func appText(name, image string, replicas int, more string) string {
	return fmt.Sprintf(`{kind: Deployment, apiVersion: apps/v1, metadata: {name: %s}, spec: {replicas: %d, template: {metadata: {labels: {app: %s}},
		spec: {containers: [{name: c, image: %q}]%s}}}}`, name, replicas, name, image, more)
}

// joined returns the edge of a node that has an object, as a join makes it.
func (h *hub) joined(name string) *sessionstest.Edge {
	h.t.Helper()
	e := h.edge(name)
	if _, err := h.registry.EnsureNode(h.t.Context(), name); err != nil {
		h.t.Fatal(err)
	}
	return e
}

func (h *hub) deployment(name string) *models.Deployment {
	o, err := h.registry.Get(h.t.Context(), models.Key{Kind: "Deployment", Namespace: "default", Name: name})
	if err != nil {
		h.t.Fatal(err)
	}
	return o.(*models.Deployment)
}

// pods returns the pods in a line each: name, node, phase, reason, ready.
func (h *hub) pods() string {
	l, err := h.registry.List(h.t.Context(), models.ListOptions{Kind: "Pod"})
	if err != nil {
		h.t.Fatal(err)
	}
	var out []string
	for _, o := range l.Items {
		p := o.(*models.Pod)
		line := p.Metadata.Name + " " + p.Spec.NodeName + " " + string(p.Status.Phase)
		if p.Status.Reason != "" {
			line += " " + p.Status.Reason
		}
		if p.Status.Ready {
			line += " ready"
		}
		out = append(out, line)
	}
	return strings.Join(out, "; ")
}

func (h *hub) untilPods(want string) {
	h.t.Helper()
	last := ""
	defer func() {
		if h.t.Failed() {
			h.t.Logf("last: %s", last)
		}
	}()
	h.until("pods: "+want, func() bool { last = h.pods(); return last == want })
}

func condition(conditions []models.Condition, typ string) models.Condition {
	for _, c := range conditions {
		if c.Type == typ {
			return c
		}
	}
	return models.Condition{}
}

// untilRollout waits until a Deployment is through with its newest generation,
// one way or the other, and returns why.
func (h *hub) untilRollout(name, reason string) {
	h.t.Helper()
	h.until(name+" "+reason, func() bool {
		d := h.deployment(name)
		return d.Status != nil && d.Status.ObservedGeneration == d.Metadata.Generation && condition(d.Status.Conditions, "Progressing").Reason == reason
	})
}

func TestPodsReachTheirNodes(t *testing.T) {
	h := start(t)
	a := sessionstest.RunPods(t, h.joined("a"))
	b := sessionstest.RunPods(t, h.joined("b"))
	h.apply(`{kind: ConfigMap, apiVersion: v1, metadata: {name: used}, data: {k: "1"}}`)
	h.apply(`{kind: ConfigMap, apiVersion: v1, metadata: {name: unused}, data: {k: "1"}}`)
	h.apply(`{kind: Service, apiVersion: v1, metadata: {name: web}, spec: {selector: {app: web}, ports: [{port: 80}]}}`)
	for _, name := range []string{"used", "unused"} {
		h.apply(`{kind: Secret, apiVersion: v1, metadata: {name: ` + name + `}, stringData: {k: "1"}}`)
	}
	h.apply(appText("web", "v1", 2, `, volumes: [{name: v, configMap: {name: used}}, {name: w, secret: {secretName: used}}]`))
	h.untilPods("web-0 a Running ready; web-1 b Running ready")
	if got := strings.Join(a.Holds(), " "); got != "ConfigMap/used Pod/web-0 Secret/used Service/web" {
		t.Errorf("a holds %s", got)
	}
	h.untilRollout("web", "RolloutComplete")

	// What pods use is brought when it changes, and taken when nothing uses it.
	h.apply(appText("web", "v1", 1, `, volumes: [{name: v, configMap: {name: used}}]`))
	h.until("b has nothing", func() bool { return len(b.Holds()) == 0 })
	h.apply(`{kind: ConfigMap, apiVersion: v1, metadata: {name: late}, data: {k: "1"}}`)
	h.apply(appText("web", "v1", 1, `, volumes: [{name: v, configMap: {name: late, optional: true}}]`))
	h.until("a has the other", func() bool { return strings.Join(a.Holds(), " ") == "ConfigMap/late Pod/web-0 Service/web" })

	// A deleted pod is made anew: another uid.
	key := models.Key{Kind: "Pod", Namespace: "default", Name: "web-0"}
	before, err := h.registry.Delete(t.Context(), key, models.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	h.until("another pod", func() bool {
		o, err := h.registry.Get(t.Context(), key)
		return err == nil && o.Meta().UID != before.Meta().UID
	})
	h.untilRollout("web", "RolloutComplete")

	if _, err := h.registry.Delete(t.Context(), models.Key{Kind: "Deployment", Namespace: "default", Name: "web"}, models.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	h.untilPods("")
	h.until("a has nothing", func() bool { return len(a.Holds()) == 0 })
	l, err := h.registry.List(t.Context(), models.ListOptions{Kind: "ControllerRevision"})
	if err != nil || len(l.Items) != 0 {
		t.Errorf("%d revisions are left, %v", len(l.Items), err)
	}
}

func TestRolloutOverTheLink(t *testing.T) {
	h := start(t)
	a := sessionstest.RunPods(t, h.joined("a"))
	b := sessionstest.RunPods(t, h.joined("b"))
	h.apply(appText("web", "v1", 2, ""))
	h.untilRollout("web", "RolloutComplete")
	a.Break("v2", true)
	b.Break("v2", true)
	h.apply(appText("web", "v2", 2, ""))
	h.untilRollout("web", "RolloutFailed")
	d := h.deployment("web")
	if m := condition(d.Status.Conditions, "Progressing").Message; m != "revision 2: pod web-0 on node a does not come up: CrashLoopBackOff: back-off 10s: the container ended with exit code 1" {
		t.Error(m)
	}
	if d.Status.ReadyReplicas != 2 || a.Runs()["web-0"] != "v1" || b.Runs()["web-1"] != "v1" {
		t.Errorf("%+v; a runs %v, b runs %v", d.Status, a.Runs(), b.Runs())
	}
	a.Break("v2", false) // mended: it goes on, and stops at the next
	h.until("b's pod is next", func() bool {
		return strings.Contains(condition(h.deployment("web").Status.Conditions, "Progressing").Message, "pod web-1 on node b")
	})
	h.apply(appText("web", "v1", 2, ""))
	h.untilRollout("web", "RolloutComplete")
	if rev := h.deployment("web").Status.Revision; rev != 3 || a.Runs()["web-0"] != "v1" {
		t.Errorf("revision %d, a runs %v", rev, a.Runs())
	}
}

func TestNodesComeAndGo(t *testing.T) {
	h := start(t)
	h.apply(appText("web", "v1", 1, `, nodeSelector: {site: north}`))
	h.untilPods("web-0  Pending Unschedulable")
	edge := h.joined("a")
	h.untilPods("web-0  Pending Unschedulable")
	h.until("why", func() bool {
		return strings.Contains(condition(h.deployment("web").Status.Conditions, "Available").Message, "node a has no label site=north")
	})
	a := sessionstest.RunPods(t, edge)
	h.apply(`{kind: Node, apiVersion: v1, metadata: {name: a, labels: {site: north}}}`)
	h.untilPods("web-0 a Running ready")
	a.Disconnect()
	h.untilPods("web-0 a Unknown NodeLost")
	a.Connect()
	h.untilPods("web-0 a Running ready")

	// The engine goes: what is there stays, and nothing new comes.
	a.SetEngine(&pb.Engine{Reason: models.ReasonEngineUnavailable, Message: "no socket"})
	h.until("the node's condition", func() bool {
		n, err := h.registry.Get(t.Context(), models.Key{Kind: "Node", Name: "a"})
		c := condition(n.(*models.Node).Status.Conditions, "EngineReady")
		return err == nil && c.Status == "False" && c.Reason == models.ReasonEngineUnavailable && c.Message == "no socket"
	})
	h.apply(appText("more", "v1", 1, ""))
	h.untilPods("more-0  Pending Unschedulable; web-0 a Running ready")
	a.SetEngine(&pb.Engine{Ready: true, Version: "28"})
	h.untilPods("more-0 a Running ready; web-0 a Running ready")
	n, err := h.registry.Get(t.Context(), models.Key{Kind: "Node", Name: "a"})
	if info := n.(*models.Node).Status.NodeInfo; err != nil || info.ContainerRuntimeVersion != "28" {
		t.Errorf("%+v, %v", info, err)
	}
}

func TestDeletedNodeLosesItsPods(t *testing.T) {
	h := start(t)
	sessionstest.RunPods(t, h.joined("a"))
	sessionstest.RunPods(t, h.joined("b"))
	h.apply(appText("web", "v1", 2, ""))
	h.untilPods("web-0 a Running ready; web-1 b Running ready")
	h.sessions.Kick("a", edgelink.GoodbyeRevoked, "deleted")
	if _, err := h.registry.Delete(t.Context(), models.Key{Kind: "Node", Name: "a"}, models.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	h.untilPods("web-0 b Running ready; web-1 b Running ready")
}

// TestWatchPods follows pods and Deployments: what nodes tell is a change, too.
func TestWatchPods(t *testing.T) {
	h := start(t)
	a := sessionstest.RunPods(t, h.joined("a"))
	watch := func(kind string, state func(models.Object) string) chan string {
		ctx, cancel := context.WithCancel(context.Background())
		seen, ended := make(chan string, 1000), make(chan error, 1)
		go func() {
			last := ""
			ended <- h.registry.Watch(ctx, models.ListOptions{Kind: kind}, "", func(ev models.Event) error {
				if ev.Type == models.Bookmark {
					return nil
				}
				if s := string(ev.Type) + " " + state(ev.Object); s != last {
					seen <- s
					last = s
				}
				return nil
			})
		}()
		t.Cleanup(func() { cancel(); <-ended })
		return seen
	}
	await := func(seen chan string, want string) {
		t.Helper()
		var got []string
		for {
			select {
			case s := <-seen:
				if got = append(got, s); s == want {
					return
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("%q never comes after %q", want, got)
			}
		}
	}
	pods := watch("Pod", func(o models.Object) string {
		s := o.(*models.Pod).Status
		if s == nil {
			return ""
		}
		return strings.TrimSpace(string(s.Phase) + " " + s.Reason)
	})
	apps := watch("Deployment", func(o models.Object) string {
		s := o.(*models.Deployment).Status
		if s == nil {
			return ""
		}
		return condition(s.Conditions, "Progressing").Reason
	})
	h.apply(appText("web", "v1", 1, ""))
	await(pods, "MODIFIED Running")
	await(apps, "MODIFIED RolloutComplete")
	a.Break("v1", true)
	await(pods, "MODIFIED Running CrashLoopBackOff")
	await(apps, "MODIFIED RolloutFailed")
	a.Disconnect()
	await(pods, "MODIFIED Unknown NodeLost")
	if _, err := h.registry.Delete(t.Context(), models.Key{Kind: "Deployment", Namespace: "default", Name: "web"}, models.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	await(apps, "DELETED ")
	await(pods, "MODIFIED Unknown Terminating") // the node has it still
	a.Connect()
	await(pods, "DELETED ")
}

func TestNearDevice(t *testing.T) {
	h := start(t)
	sessionstest.RunPods(t, h.joined("a"))
	sessionstest.RunPods(t, h.joined("b"))
	h.apply(appText("web", "v1", 1, `, nearDevice: boiler-1`))
	h.untilPods("web-0  Pending Unschedulable")
	h.device("boiler-1", "b")
	h.untilPods("web-0 b Running ready")
	h.device("boiler-1", "a")
	h.untilPods("web-0 a Running ready")
}

func TestOldEdgeGetsNoPods(t *testing.T) {
	h := start(t)
	e := h.joined("a")
	l := e.Connect(t, e.Hello("E1")) // without the capability
	l.FullSync()
	h.apply(`{kind: ConfigMap, apiVersion: v1, metadata: {name: used}, data: {k: "1"}}`)
	h.apply(appText("web", "v1", 1, `, nodeName: a, volumes: [{name: v, configMap: {name: used}}]`))
	h.untilPods("web-0  Pending NotSupportedByNode")
	h.device("b1", "a") // it gets the rest
	if s := l.Sync(); names(s.Items) != "DeviceModel boiler, Device b1" {
		t.Fatalf("%v", s)
	}
	l.Quiet(50 * time.Millisecond)
	l.Drop()

	// Of a later release it had pods, and is brought back: what it holds of them goes.
	a := sessionstest.RunPods(t, e)
	h.untilPods("web-0 a Running ready")
	a.Disconnect()
	hello := e.Hello("E3")
	hello.Lineage = h.lineage
	l = e.Connect(t, hello)
	if _, full := l.FullSync(); slices.ContainsFunc(full.Keep, func(k *pb.Held) bool { return k.Kind == "Pod" || k.Kind == "ConfigMap" }) {
		t.Errorf("it is to keep %s", heldNames(full.Keep))
	}
	h.untilPods("web-0  Pending NotSupportedByNode")
}

// TestPodStatusesAreChecked sends what a node must not say.
func TestPodStatusesAreChecked(t *testing.T) {
	h := start(t)
	sessionstest.RunPods(t, h.joined("a"))
	h.apply(appText("web", "v1", 1, ""))
	h.untilPods("web-0 a Running ready")
	o, err := h.registry.Get(t.Context(), models.Key{Kind: "Pod", Namespace: "default", Name: "web-0"})
	if err != nil {
		t.Fatal(err)
	}
	e := h.joined("b")
	hello := e.Hello("E1")
	hello.Capabilities = []string{edgelink.CapabilityWorkloads}
	l := e.Connect(t, hello)
	failed := []byte(`{"phase":"Failed"}`)
	huge := []byte(`{"phase":"Failed","message":"` + strings.Repeat("x", edgelink.MaxPodStatus) + `"}`)
	for _, p := range []*pb.PodState{
		{Namespace: "default", Name: "web-0", Uid: o.Meta().UID, Json: failed}, // another node's
		{Namespace: "default", Name: "web-0", Uid: o.Meta().UID, Gone: true},
		{Namespace: "default", Name: "nothing", Uid: "u", Json: failed},
		{Namespace: "default", Name: "web", Uid: "u", Json: failed},
	} {
		l.Say(&pb.Frame{Body: &pb.Frame_PodStatuses{PodStatuses: &pb.PodStatuses{Full: true, Pods: []*pb.PodState{p}}}})
	}
	h.apply(appText("other", "v1", 1, `, nodeName: b`))
	h.untilPods("other-0 b Pending Scheduled; web-0 a Running ready")
	o, err = h.registry.Get(t.Context(), models.Key{Kind: "Pod", Namespace: "default", Name: "other-0"})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range [][]byte{huge, []byte("{"), nil, []byte(`{"phase":"Running","ready":true,"revision":1,"later":{"x":1}}`)} {
		l.Say(&pb.Frame{Body: &pb.Frame_PodStatuses{PodStatuses: &pb.PodStatuses{Pods: []*pb.PodState{{Namespace: "default", Name: "other-0", Uid: o.Meta().UID, Json: text}}}}})
	}
	h.untilPods("other-0 b Running ready; web-0 a Running ready")
	l.Say(&pb.Frame{Body: &pb.Frame_PodStatuses{PodStatuses: &pb.PodStatuses{Full: true}}}) // it has lost it
	h.untilPods("other-0 b Pending Scheduled; web-0 a Running ready")
}
