package workloads_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/whimbrel-edge/whimbrel/devicehub/registry"
	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/devicehub/store/storetest"
	"github.com/whimbrel-edge/whimbrel/devicehub/workloads"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
	"github.com/whimbrel-edge/whimbrel/twin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hub is a registry and a controller, on a store that a test can break.
type hub struct {
	t          testing.TB
	store      *storetest.Memory
	registry   *registry.Registry
	controller *workloads.Controller
	stop       func()

	mu       sync.Mutex
	happened []string
}

// Raise notes an event as "Kind name Reason".
func (h *hub) Raise(o models.Occurrence) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.happened = append(h.happened, fmt.Sprintf("%s %s %s %s", o.Object.Kind, o.Object.Name, o.Severity, o.Reason))
}

// events returns what has happened since it was called last, up to last.
func (h *hub) events(last string) (out string) {
	h.t.Helper()
	h.until(last, func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return slices.Contains(h.happened, last)
	})
	h.mu.Lock()
	defer h.mu.Unlock()
	out = strings.Join(slices.Compact(h.happened), "; ") // what is alike becomes one event
	h.happened = nil
	return out
}

type statuses struct{ c *workloads.Controller }

func (statuses) DeviceStatus(*models.Device, uint64) *models.DeviceStatus {
	return &models.DeviceStatus{}
}
func (statuses) NodeStatus(*models.Node) *models.NodeStatus       { return nil }
func (statuses) MapperStatus(*models.Mapper) *models.MapperStatus { return nil }
func (statuses) RouteStatus(*models.Route) *models.RouteStatus    { return nil }
func (s statuses) WorkloadStatus(o models.Object) models.Object   { return s.c.WorkloadStatus(o) }
func (statuses) Reported(_, _ string) twin.Reported               { return twin.Reported{} }

func (statuses) WriteState(_, _, _ string) twin.WriteState { return "" }

func open(t testing.TB, memory *storetest.Memory) *hub {
	t.Helper()
	h := &hub{t: t, store: memory}
	log := slog.New(slog.DiscardHandler)
	var err error
	if h.registry, err = registry.Open(t.Context(), registry.Config{Store: memory, Log: log}); err != nil {
		t.Fatal(err)
	}
	if h.controller, err = workloads.New(t.Context(), workloads.Config{Registry: h.registry, Store: memory, Events: h, Log: log}); err != nil {
		t.Fatal(err)
	}
	h.registry.SetStatuses(statuses{h.controller})
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() { _ = h.registry.Run(ctx) })
	h.stop = sync.OnceFunc(func() { cancel(); wait.Wait() })
	t.Cleanup(h.stop)
	return h
}

// run runs the controller, too.
func (h *hub) run() *hub {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.controller.Run(ctx) }()
	stop := h.stop
	h.stop = sync.OnceFunc(func() { cancel(); <-ended; stop() })
	h.t.Cleanup(h.stop)
	return h
}

func (h *hub) apply(text string) {
	h.t.Helper()
	o, err := models.DecodeObject([]byte("---\n" + text))
	if err != nil {
		h.t.Fatal(err)
	}
	_, _, err = h.registry.Update(context.Background(), models.KeyOf(o), models.WriteOptions{}, func(models.Object) (models.Object, error) { return o, nil })
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *hub) node(name string) {
	h.t.Helper()
	h.apply(fmt.Sprintf(`{kind: Node, apiVersion: v1, metadata: {name: %s}}`, name))
	h.controller.NodeLive(name, true, []string{edgelink.CapabilityWorkloads})
}

func (h *hub) app(name, image string, replicas int) {
	h.t.Helper()
	h.apply(fmt.Sprintf(`{kind: Deployment, apiVersion: apps/v1, metadata: {name: %s}, spec: {replicas: %d, template: {spec: {containers: [{name: c, image: %q}]}}}}`, name, replicas, image))
}

func (h *hub) pods() (out []*models.Pod) {
	l, err := h.registry.List(context.Background(), models.ListOptions{Kind: "Pod"})
	if err != nil {
		h.t.Fatal(err)
	}
	for _, o := range l.Items {
		out = append(out, o.(*models.Pod))
	}
	return out
}

func (h *hub) until(what string, holds func() bool) {
	h.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !holds(); {
		if time.Now().After(deadline) {
			for _, p := range h.pods() {
				h.t.Logf("%s %s %s@%s %+v", p.Metadata.Name, p.Metadata.UID, p.Spec.Containers[0].Image, p.Spec.NodeName, p.Status)
			}
			h.t.Fatalf("never: %s", what)
		}
		time.Sleep(time.Millisecond) //sleep: polls the controller's loop
	}
}

// tell says of each pod what its node would say.
func (h *hub) tell(status func(p *models.Pod) models.PodStatus) {
	h.t.Helper()
	for _, p := range h.pods() {
		text, err := json.Marshal(status(p))
		if err != nil {
			h.t.Fatal(err)
		}
		h.controller.PodStatuses(p.Spec.NodeName, &pb.PodStatuses{Pods: []*pb.PodState{{Namespace: "default", Name: p.Metadata.Name, Uid: p.Metadata.UID, Json: text}}})
	}
}

// end says of pods that are to end that nothing of them is left.
func (h *hub) end() {
	for _, p := range h.pods() {
		if p.Metadata.DeletionTimestamp != nil {
			h.controller.PodStatuses(p.Spec.NodeName, &pb.PodStatuses{Pods: []*pb.PodState{{Namespace: "default", Name: p.Metadata.Name, Uid: p.Metadata.UID, Gone: true}}})
		}
	}
}

func ready(p *models.Pod) models.PodStatus {
	return models.PodStatus{Phase: models.PodRunning, Ready: true, Revision: p.Revision()}
}

func TestStoreFails(t *testing.T) {
	for _, at := range []string{"Commit", "Commit:done"} { // the latter is stored, and does not look so
		t.Run(at, func(t *testing.T) {
			h := open(t, storetest.NewMemory()).run()
			h.node("a")
			var mu sync.Mutex
			failing, failed := true, 0
			h.store.Fault(func(step string) error {
				mu.Lock()
				defer mu.Unlock()
				if step != at || !failing {
					return nil
				}
				if failed++; failed == 1 {
					return nil // the Deployment itself is stored
				}
				return errors.New("disk full")
			})
			h.app("web", "v1", 3)
			h.until("it has tried", func() bool { mu.Lock(); defer mu.Unlock(); return failed > 1 })
			mu.Lock()
			failing = false
			mu.Unlock()
			h.until("pods", func() bool { return len(h.pods()) == 3 })
		})
	}
}

// TestRestart begins with what an earlier life has left half done.
func TestRestart(t *testing.T) {
	h := open(t, storetest.NewMemory()).run()
	h.node("a")
	h.app("web", "v1", 2)
	h.app("gone", "v1", 2)
	h.until("pods", func() bool { return len(h.pods()) == 4 })
	before := h.pods()
	h.stop()

	// While no controller runs: one Deployment is deleted, another is deleted and made anew, a third begins.
	h = open(t, h.store)
	for _, name := range []string{"gone", "web"} {
		if _, err := h.registry.Delete(context.Background(), models.Key{Kind: "Deployment", Namespace: "default", Name: name}, models.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	h.app("web", "v2", 2)
	h.app("new", "v1", 1)
	h.stop()

	h = open(t, h.store).run()
	h.controller.NodeLive("a", true, []string{edgelink.CapabilityWorkloads})
	h.until("the pods of what there is", func() bool {
		h.end()
		pods := h.pods()
		if len(pods) != 3 || pods[0].Metadata.Name != "new-0" {
			return false
		}
		for i, p := range pods[1:] {
			if p.Metadata.Name != fmt.Sprint("web-", i) || p.Spec.Containers[0].Image != "v2" || p.Spec.NodeName != "a" || p.Metadata.UID == before[2+i].Metadata.UID {
				return false
			}
		}
		return true
	})
	// Another restart changes nothing.
	uids := func() (out string) {
		for _, p := range h.pods() {
			out += p.Metadata.UID + p.Metadata.ResourceVersion + " "
		}
		return out
	}
	was := uids()
	h.stop()
	h = open(t, h.store).run()
	h.controller.NodeLive("a", true, []string{edgelink.CapabilityWorkloads})
	h.tell(ready)
	h.until("told", func() bool { return h.pods()[0].Status.Ready })
	if now := uids(); now != was {
		t.Errorf("pods were %s, are %s", was, now)
	}
}

// flaky is a store of pods' states that fails for a while.
type flaky struct {
	*storetest.Memory
	fails atomic.Int32
}

func (f *flaky) SavePodStates(ctx context.Context, put []store.PodState, drop []string) error {
	if f.fails.Add(-1) >= 0 {
		return errors.New("disk full")
	}
	return f.Memory.SavePodStates(ctx, put, drop)
}

// TestLastKnown restarts the hub while nodes are away: what they told last is
// shown, as something that is not known to be so any more.
func TestLastKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := open(t, storetest.NewMemory())
		disk := &flaky{Memory: h.store}
		again := func() { // opens a controller on that disk
			var err error
			if h.controller, err = workloads.New(t.Context(), workloads.Config{Registry: h.registry, Store: disk, Events: h, Log: slog.New(slog.DiscardHandler)}); err != nil {
				t.Fatal(err)
			}
			h.registry.SetStatuses(statuses{h.controller})
			h.run()
		}
		again()
		h.node("a")
		h.app("web", "v1", 2)
		h.until("pods", func() bool { return len(h.pods()) == 2 && h.pods()[1].Spec.NodeName == "a" })
		disk.fails.Store(3)
		h.tell(func(p *models.Pod) models.PodStatus {
			s := ready(p)
			s.ContainerStatuses = []models.ContainerStatus{{Name: "c", RestartCount: 7, ImageID: "sha256:1"}}
			return s
		})
		told := h.pods()[0].Status
		time.Sleep(10 * time.Second) //sleep: of a fake clock; the disk is free again
		h.stop()
		if disk.fails.Load() >= 0 {
			t.Fatal("it was not stored")
		}

		h = open(t, h.store)
		time.Sleep(time.Hour) //sleep: of a fake clock
		again()
		began := time.Now()
		p := h.pods()[0].Status
		if p.Phase != models.PodUnknown || p.Reason != models.ReasonNodeLost || p.Ready || p.ContainerStatuses[0].RestartCount != 7 || p.ContainerStatuses[0].ImageID != "sha256:1" ||
			!p.ReportedAt.Equal(*told.ReportedAt) || p.Revision != told.Revision {
			t.Errorf("the pod was told to be %+v, and is %+v", told, p)
		}
		if c := p.Conditions[1]; c.Type != "Ready" || c.Status != "False" || c.Reason != "NodeLost" || began.Sub(c.LastTransitionTime).Abs() > time.Second {
			t.Errorf("condition %+v", c)
		}
		// One is gone while its node is away, and so is what it told.
		if _, err := h.registry.Delete(t.Context(), models.Key{Kind: "Deployment", Namespace: "default", Name: "web"}, models.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second) //sleep: of a fake clock
		if pods := h.pods(); len(pods) != 2 || pods[0].Metadata.DeletionTimestamp == nil || pods[0].Status.Reason != models.ReasonTerminating || pods[0].Status.Phase != models.PodUnknown {
			t.Errorf("pods on a node that is away %+v", pods)
		}
		if _, err := h.registry.Delete(t.Context(), models.Key{Kind: "Node", Name: "a"}, models.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second) //sleep: of a fake clock
		h.stop()
		if err := h.store.PodStates(t.Context(), func(p store.PodState) error { return fmt.Errorf("%+v is left", p) }); err != nil {
			t.Error(err)
		}
	})
}

// TestFirstNodeDoesNotGetEverything starts a hub whose nodes come back one by one.
func TestFirstNodeDoesNotGetEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := open(t, storetest.NewMemory())
		for _, n := range []string{"a", "b", "c"} {
			h.apply(fmt.Sprintf(`{kind: Node, apiVersion: v1, metadata: {name: %s}}`, n))
		}
		h.app("web", "v1", 2)
		h.app("pinned", "v1", 1)
		h.apply(`{kind: Deployment, apiVersion: apps/v1, metadata: {name: pinned}, spec: {template: {spec: {nodeName: a, containers: [{name: c, image: v1}]}}}}`)
		h.run()
		where := func() (out string) {
			synctest.Wait()
			for _, p := range h.pods() {
				out += p.Metadata.Name + "@" + p.Spec.NodeName + " "
			}
			return out
		}
		come := func(n string) { h.controller.NodeLive(n, true, []string{edgelink.CapabilityWorkloads}) }
		come("a")
		time.Sleep(time.Second)
		if got := where(); got != "pinned-0@a web-0@ web-1@ " {
			t.Errorf("after the first: %s", got)
		}
		come("b")
		time.Sleep(5 * time.Second) // c does not come
		if got := where(); got != "pinned-0@a web-0@b web-1@a " {
			t.Errorf("then: %s", got)
		}
		h.stop()
	})
}

func TestEvents(t *testing.T) {
	h := open(t, storetest.NewMemory()).run()
	h.app("web", "v1", 1)
	h.until("unplaced", func() bool { return len(h.pods()) == 1 && h.pods()[0].Status.Reason == models.ReasonUnschedulable })
	h.node("a")
	h.until("placed", func() bool { return h.pods()[0].Spec.NodeName == "a" })
	h.tell(func(p *models.Pod) models.PodStatus {
		return models.PodStatus{Phase: models.PodPending, Reason: models.ReasonContainerCreating}
	})
	h.tell(ready)
	complete := func() bool {
		o, err := h.registry.Get(context.Background(), models.Key{Kind: "Deployment", Namespace: "default", Name: "web"})
		d := o.(*models.Deployment)
		return err == nil && d.Status != nil && d.Status.ReadyReplicas == 1 && d.Status.UpdatedReplicas == 1
	}
	h.until("complete", complete)
	if got := h.events("Deployment web Normal RolloutComplete"); got != "Pod web-0 Warning Unschedulable; Deployment web Normal RollingOut; Pod web-0 Normal Ready; Deployment web Normal RolloutComplete" &&
		got != "Deployment web Normal RollingOut; Pod web-0 Warning Unschedulable; Pod web-0 Normal Ready; Deployment web Normal RolloutComplete" {
		t.Errorf("brought up: %s", got)
	}
	crash := func(p *models.Pod) models.PodStatus {
		s := models.PodStatus{Phase: models.PodRunning, Reason: models.ReasonCrashLoopBackOff, Message: "back-off 10s", Revision: p.Revision(), RestartCount: 1}
		s.ContainerStatuses = []models.ContainerStatus{{Name: "c", RestartCount: 1, LastState: models.ContainerState{Terminated: &models.ContainerTerminated{ExitCode: 137, Reason: models.ReasonOOMKilled}}}}
		return s
	}
	h.tell(crash)
	h.tell(crash) // the same once more
	h.until("failed", func() bool { return !complete() })
	h.tell(ready)
	h.until("complete", complete)
	before := h.events("Deployment web Normal RolloutComplete") + "; "
	h.controller.PodStatuses("a", &pb.PodStatuses{Engine: &pb.Engine{Reason: models.ReasonEngineUnavailable}})
	h.controller.PodStatuses("a", &pb.PodStatuses{Engine: &pb.Engine{Reason: models.ReasonEngineUnavailable}})
	h.controller.NodeLive("a", false, nil)
	h.node("a") // with an engine that still does not answer: no news
	h.controller.PodStatuses("a", &pb.PodStatuses{Engine: &pb.Engine{Reason: models.ReasonEngineUnavailable}})
	h.controller.PodStatuses("a", &pb.PodStatuses{Engine: &pb.Engine{Ready: true}})
	got := before + h.events("Node a Normal EngineReady")
	for _, want := range []string{"Pod web-0 Warning OOMKilled; Pod web-0 Warning CrashLoopBackOff", "Deployment web Warning RolloutFailed", "Deployment web Warning PodsNotReady",
		"Pod web-0 Normal Ready", "Deployment web Normal RolloutComplete", "Node a Warning EngineUnavailable; Node a Normal EngineReady"} {
		if strings.Count(got, want) != 1 {
			t.Errorf("%q comes %d times in: %s", want, strings.Count(got, want), got)
		}
	}
}

// TestManyNodes lets a crowd of nodes come while many apps wait.
func TestManyNodes(t *testing.T) {
	h := open(t, storetest.NewMemory()).run()
	const apps, replicas, nodes = 60, 5, 150
	for i := range apps {
		h.app(fmt.Sprintf("app-%03d", i), "v1", replicas)
	}
	for i := range nodes {
		h.node(fmt.Sprintf("node-%03d", i))
	}
	began := time.Now()
	h.until("every pod is placed", func() bool {
		pods := h.pods()
		for _, p := range pods {
			if p.Spec.NodeName == "" {
				return false
			}
		}
		return len(pods) == apps*replicas
	})
	t.Logf("%d pods on %d nodes %v after the last node", apps*replicas, nodes, time.Since(began).Round(time.Millisecond))
}

// TestDaemonSetFollowsNodes has a DaemonSet through the registry: nodes come, change
// their labels and go, and it goes itself.
func TestDaemonSetFollowsNodes(t *testing.T) {
	h := open(t, storetest.NewMemory()).run()
	h.node("a")
	h.apply(`{kind: DaemonSet, apiVersion: apps/v1, metadata: {name: agent}, spec: {template: {spec: {nodeSelector: {site: north}, containers: [{name: c, image: v1}]}}}}`)
	names := func() string {
		var out []string
		for _, p := range h.pods() {
			out = append(out, p.Metadata.Name+"@"+p.Spec.NodeName)
		}
		return strings.Join(out, " ")
	}
	label := func(node, site string) {
		t.Helper()
		h.apply(fmt.Sprintf(`{kind: Node, apiVersion: v1, metadata: {name: %s, labels: {site: %s}}}`, node, site))
	}
	label("a", "north")
	h.until("a has its pod", func() bool { return names() == "agent-a@a" })
	h.node("b")
	label("b", "north")
	h.until("b has its pod", func() bool { return names() == "agent-a@a agent-b@b" })
	label("a", "south")
	h.until("a is left", func() bool { h.end(); return names() == "agent-b@b" })
	key := models.Key{Kind: "DaemonSet", Namespace: "default", Name: "agent"}
	h.until("the status says so", func() bool {
		d := h.controller.WorkloadStatus(h.registry.Object(key)).(*models.DaemonSet)
		return d.Status != nil && d.Status.DesiredNumberScheduled == 1 && d.Status.CurrentNumberScheduled == 1 && d.Status.NumberUnavailable == 1
	})

	// Names of pods are their apps'.
	o, err := models.DecodeObject([]byte(`{"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": "agent"}, "spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = h.registry.Update(context.Background(), models.KeyOf(o), models.WriteOptions{}, func(models.Object) (models.Object, error) { return o, nil })
	if models.KindOf(err) != models.KindConflict || !strings.Contains(err.Error(), "DaemonSet default/agent has that name") {
		t.Errorf("a second app of the name: %v", err)
	}
	if _, err := h.registry.Delete(context.Background(), key, models.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	h.until("its pods are gone", func() bool { h.end(); return names() == "" })
	h.app("agent", "v1", 1)
	h.until("the name is free", func() bool { return strings.HasPrefix(names(), "agent-0@") })
}

// TestStatefulSetAtHome has a StatefulSet through the registry and a restart of the
// hub: its pods come in order, and one that was gone comes back to its node.
func TestStatefulSetAtHome(t *testing.T) {
	h := open(t, storetest.NewMemory()).run()
	h.node("a")
	h.node("b")
	set := func(replicas int) {
		t.Helper()
		h.apply(fmt.Sprintf(`{kind: StatefulSet, apiVersion: apps/v1, metadata: {name: db}, spec: {replicas: %d, minReadySeconds: 1, template: {spec: {containers: [{name: c, image: v1}]}}}}`, replicas))
	}
	where := func() string {
		var out []string
		for _, p := range h.pods() {
			out = append(out, p.Metadata.Name+"@"+p.Spec.NodeName)
		}
		return strings.Join(out, " ")
	}
	set(2)
	h.until("the first", func() bool { return where() == "db-0@a" })
	h.tell(ready)
	h.until("the second, when the first has been ready for a second", func() bool { return where() == "db-0@a db-1@b" })
	set(1)
	h.until("one", func() bool { h.end(); return where() == "db-0@a" })
	h.stop()

	h = open(t, h.store).run()
	h.node("a")
	h.node("b")
	h.node("aa") // where a new pod would go
	h.tell(ready)
	set(2)
	h.until("it is at home again", func() bool { return strings.Contains(where(), "db-0@a db-1@b") })
}

// TestPodsEnd: a pod that goes is shown until its node has told that nothing of it is
// left, or is not known to have it.
func TestPodsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := open(t, storetest.NewMemory()).run()
		defer h.stop()
		h.node("a")
		h.app("web", "v1", 4)
		h.until("pods", func() bool { return len(h.pods()) == 4 && h.pods()[3].Spec.NodeName == "a" })
		said := func() (out string) {
			synctest.Wait()
			for _, p := range h.pods() {
				out += fmt.Sprintf("%s %s%s ", p.Metadata.Name, p.Status.Phase, map[bool]string{true: " " + p.Status.Reason}[p.Metadata.DeletionTimestamp != nil])
			}
			return strings.TrimSpace(out)
		}
		want := func(after time.Duration, want string) {
			t.Helper()
			time.Sleep(after) //sleep: of a fake clock
			if got := said(); got != want {
				t.Errorf("%q, want %q", got, want)
			}
		}
		h.tell(func(p *models.Pod) models.PodStatus {
			return ready(p)
		})
		h.app("web", "v1", 3)
		want(time.Minute, "web-0 Running web-1 Running web-2 Running web-3 Running Terminating")
		p := h.pods()[3]
		if p.Status.Ready || p.Status.Conditions[1].Reason != models.ReasonTerminating {
			t.Errorf("it is shown as %+v", p.Status)
		}
		if ready, _ := h.controller.PodServes(p); ready {
			t.Error("it serves")
		}
		h.end()
		want(0, "web-0 Running web-1 Running web-2 Running")

		// One that is wanted again is another one, at once.
		h.app("web", "v1", 2)
		want(time.Second, "web-0 Running web-1 Running web-2 Running Terminating")
		before := h.pods()[2].Metadata.UID
		h.app("web", "v1", 3)
		want(time.Second, "web-0 Running web-1 Running web-2 Pending")
		if h.pods()[2].Metadata.UID == before {
			t.Error("it has come back to life")
		}

		// That the node has never told of it is known after a while.
		h.app("web", "v1", 2)
		want(5*time.Second, "web-0 Running web-1 Running web-2 Pending Terminating")
		want(6*time.Second, "web-0 Running web-1 Running")

		// A node that is away may have it. When it is back it tells of all that it has.
		h.controller.NodeLive("a", false, nil)
		h.app("web", "v1", 0)
		want(time.Hour, "web-0 Unknown Terminating web-1 Unknown Terminating")
		p = h.pods()[1]
		text, err := json.Marshal(models.PodStatus{Phase: models.PodPending, Reason: models.ReasonTerminating})
		if err != nil {
			t.Fatal(err)
		}
		h.controller.NodeLive("a", true, []string{edgelink.CapabilityWorkloads})
		h.controller.PodStatuses("a", &pb.PodStatuses{Full: true, Pods: []*pb.PodState{{Namespace: "default", Name: p.Metadata.Name, Uid: p.Metadata.UID, Json: text}}})
		want(time.Second, "web-1 Pending Terminating")
		h.end()
		want(time.Second, "")
	})
}
