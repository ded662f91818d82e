package workloads

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/placement"
	"github.com/whimbrel-edge/whimbrel/models"
)

// setWorld is a world with an app of a kind, from its spec in YAML.
func setWorld(t testing.TB, kind, spec string, nodes ...string) *world {
	t.Helper()
	w := newWorld(t, 0, nodes...)
	o, err := models.DecodeObject(fmt.Appendf(nil, "---\n{apiVersion: apps/v1, kind: %s, metadata: {name: app}, spec: {template: {spec: {containers: [{name: c, image: v1}]}}%s}}", kind, spec))
	if err != nil {
		t.Fatal(err)
	}
	o.Meta().UID, o.Meta().Generation = "s1", 1
	w.in.App = o.(models.Workload)
	return w
}

// script runs steps: "image v2", "away a b", "break v2", "node c", "nodeless a",
// "label a k=v", "delete app-0", "slowly" (pods end when nodes work), "wait 5s", "replicas 3" change the world; "work" lets
// nodes work; "" makes a plan, which is to be what follows ":".
func (w *world) script(lines string) {
	w.t.Helper()
	for i, line := range strings.Split(strings.TrimSpace(lines), "\n") {
		what, want, isPlan := strings.Cut(strings.TrimSpace(line), ":")
		f := strings.Fields(what)
		switch {
		case isPlan && what == "":
			w.want(fmt.Sprintf("line %d", i+1), w.step(), strings.TrimSpace(want))
		case isPlan:
			w.want(fmt.Sprintf("line %d", i+1), strings.TrimSpace(w.condition(strings.TrimSpace(what))), strings.TrimSpace(want))
		case f[0] == "work":
			w.work()
		case f[0] == "slowly":
			w.slowly = true
		case f[0] == "image":
			w.image(f[1])
		case f[0] == "away":
			w.disconnect(f[1:]...)
		case f[0] == "break":
			w.broken = map[string]bool{}
			for _, v := range f[1:] {
				w.broken[v] = true
			}
		case f[0] == "node":
			n := placement.Node{Name: f[1]}
			at, _ := slices.BinarySearchFunc(w.in.Cluster.Nodes, f[1], func(n placement.Node, name string) int { return strings.Compare(n.Name, name) })
			w.in.Cluster.Nodes = slices.Insert(w.in.Cluster.Nodes, at, n)
		case f[0] == "nodeless":
			w.in.Cluster.Nodes = slices.DeleteFunc(w.in.Cluster.Nodes, func(n placement.Node) bool { return n.Name == f[1] })
			for name, node := range w.ending {
				if node == f[1] {
					delete(w.ending, name)
					delete(w.in.Ending, name)
				}
			}
		case f[0] == "label":
			k, v, _ := strings.Cut(f[2], "=")
			for i := range w.in.Cluster.Nodes {
				if n := &w.in.Cluster.Nodes[i]; n.Name == f[1] {
					n.Labels = map[string]string{k: v}
				}
			}
		case f[0] == "delete":
			w.in.Pods = slices.DeleteFunc(w.in.Pods, func(p Pod) bool { return p.Metadata.Name == f[1] })
			delete(w.runs, f[1])
		case f[0] == "wait":
			d, err := time.ParseDuration(f[1])
			if err != nil {
				w.t.Fatal(err)
			}
			w.in.Now = w.in.Now.Add(d)
		case f[0] == "replicas":
			var n int32
			if _, err := fmt.Sscan(f[1], &n); err != nil {
				w.t.Fatal(err)
			}
			app := models.WithStanding(w.in.App, models.Standing{}).(*models.StatefulSet)
			app.Spec.Replicas = &n
			w.in.App = app
		default:
			w.t.Fatalf("line %d: what is %q?", i+1, line)
		}
	}
}

func TestDaemonSet(t *testing.T) {
	for name, c := range map[string]struct {
		spec, nodes, script string
	}{
		"follows its nodes": {", ", "a b", `
			: +ControllerRevision/app-1 +Pod/app-a@a r1 +Pod/app-b@b r1
			work
			:
			Progressing: True RolloutComplete all pods are at revision 1
			node c
			: +Pod/app-c@c r1
			nodeless a
			: -Pod/app-a
			work
			:
			Available: True AllPodsReady`},
		"one that is away gets its pod": {"", "a b", `
			away b
			: +ControllerRevision/app-1 +Pod/app-a@a r1 +Pod/app-b@b r1
			work
			:
			Progressing: True WaitingForNodes revision 1: 1 of 2 pods are up, the others wait for nodes that are not connected: b
			away
			work
			:
			Progressing: True RolloutComplete all pods are at revision 1`},
		"one at a time": {"", "a b c", `
			: +ControllerRevision/app-1 +Pod/app-a@a r1 +Pod/app-b@b r1 +Pod/app-c@c r1
			work
			image v2
			: +ControllerRevision/app-2 +Pod/app-a@a r2
			:
			work
			: +Pod/app-b@b r2
			work
			: +Pod/app-c@c r2
			work
			:
			Progressing: True RolloutComplete all pods are at revision 2`},
		"half at a time, and a bad one stops it": {`, updateStrategy: {rollingUpdate: {maxUnavailable: "50%"}}`, "a b c", `
			: +ControllerRevision/app-1 +Pod/app-a@a r1 +Pod/app-b@b r1 +Pod/app-c@c r1
			work
			break v2
			image v2
			: +ControllerRevision/app-2 +Pod/app-a@a r2 +Pod/app-b@b r2
			work
			:
			Progressing: False RolloutFailed revision 2: pod app-a on node a does not come up: CrashLoopBackOff: exit code 1`},
		"by hand": {", updateStrategy: {type: OnDelete}", "a b", `
			: +ControllerRevision/app-1 +Pod/app-a@a r1 +Pod/app-b@b r1
			work
			image v2
			: +ControllerRevision/app-2
			Progressing: True RolloutComplete 0 of 2 pods are at revision 2; the others stay at theirs, as updateStrategy says
			delete app-b
			: +Pod/app-b@b r2
			work
			:
			Progressing: True RolloutComplete 1 of 2 pods are at revision 2; the others stay at theirs, as updateStrategy says`},
		"no history": {", revisionHistoryLimit: 0", "a", `
			: +ControllerRevision/app-1 +Pod/app-a@a r1
			work
			image v2
			: -ControllerRevision/app-1 +ControllerRevision/app-2 +Pod/app-a@a r2`},
	} {
		t.Run(name, func(t *testing.T) {
			w := setWorld(t, "DaemonSet", strings.TrimSuffix(c.spec, ", "), strings.Fields(c.nodes)...)
			w.script(c.script)
		})
	}
}

func TestDaemonSetSelects(t *testing.T) {
	w := setWorld(t, "DaemonSet", "", "a", "b")
	w.in.App.PodTemplate().Spec.NodeSelector = map[string]string{"site": "north"}
	w.script(`
		: +ControllerRevision/app-1
		Available: True AllPodsReady
		label a site=north
		: +Pod/app-a@a r1
		work
		label b site=north
		: +Pod/app-b@b r1
		label a site=south
		: -Pod/app-a`)
	if w.plan.Status.Misplaced != 1 || w.plan.Status.Wanted != 1 {
		t.Errorf("%+v", w.plan.Status)
	}
	w.in.Cluster.Nodes[1].CannotRun = "runs an edge that cannot run apps"
	w.script(`
		: -Pod/app-b +Pod/app-b@ r1
		:
		Available: False PodsNotReady 0 of 1 pods are ready; pod app-b: NotSupportedByNode: it is for node b, which runs an edge that cannot run apps`)
}

// A pod's name that is another app's pod's is not taken from it.
func TestDaemonSetKeepsNamesApart(t *testing.T) {
	w := setWorld(t, "DaemonSet", "", "a")
	others := "app-a"
	w.in.Taken = func(name string) string {
		if name == others {
			return "Deployment app-a"
		}
		return ""
	}
	apart := models.DaemonPodNameApart("app", "a")
	w.script(": +ControllerRevision/app-1 +Pod/" + apart + "@a r1")
	others = "" // the other is gone; the pod keeps its name
	w.script("work\n:")

	d := newWorld(t, 1, "a")
	d.in.Taken = func(string) string { return "DaemonSet b" }
	d.script(": +ControllerRevision/app-1\nAvailable: False PodsNotReady 0 of 1 pods are ready; there can be no pod app-0: DaemonSet b has one of that name")
}

func TestMinReadySeconds(t *testing.T) {
	w := setWorld(t, "DaemonSet", ", minReadySeconds: 30", "a", "b")
	w.script(": +ControllerRevision/app-1 +Pod/app-a@a r1 +Pod/app-b@b r1\nwork")
	ready := func(at time.Time) {
		for i := range w.in.Pods {
			w.in.Pods[i].ReadySince = at
		}
	}
	ready(start)
	w.script(":\nAvailable: False PodsNotReady 0 of 2 pods are ready; pod app-a on node a has not been ready for long")
	if s := w.plan.Status; s.Ready != 2 || s.Available != 0 || !w.plan.Again.Equal(start.Add(30*time.Second)) {
		t.Fatalf("%+v, again at %s", s, w.plan.Again)
	}
	w.script("wait 30s\n:\nProgressing: True RolloutComplete all pods are at revision 1\nimage v2\n: +ControllerRevision/app-2 +Pod/app-a@a r2\nwork")
	w.in.Pods[0].ReadySince = w.in.Now
	w.script(":\nwait 30s\n: +Pod/app-b@b r2")
}

func TestStatefulSet(t *testing.T) {
	for name, c := range map[string]struct{ spec, nodes, script string }{
		"in order": {", replicas: 3", "a b", `
			: +ControllerRevision/app-1 +Pod/app-0@a r1
			:
			Available: False PodsNotReady 0 of 3 pods are ready; pod app-0 on node a: Scheduled
			work
			: +Pod/app-1@b r1 +ControllerRevision/app-1
			:
			work
			: +Pod/app-2@a r1 +ControllerRevision/app-1
			work
			: +ControllerRevision/app-1
			:
			Progressing: True RolloutComplete all pods are at revision 1
			replicas 1
			: -Pod/app-2
			: -Pod/app-1
			:
			replicas 2
			: +Pod/app-1@b r1
			work
			:
			image v2
			: +ControllerRevision/app-2 +Pod/app-1@b r2 +ControllerRevision/app-1
			:
			work
			: +Pod/app-0@a r2`},
		"one ends after the other": {", replicas: 3", "a b", `
			slowly
			: +ControllerRevision/app-1 +Pod/app-0@a r1
			work
			: +Pod/app-1@b r1 +ControllerRevision/app-1
			work
			: +Pod/app-2@a r1 +ControllerRevision/app-1
			work
			: +ControllerRevision/app-1
			replicas 1
			: +Pod/app-2@a r1 ends
			:
			work
			: +Pod/app-1@b r1 ends
			away b
			work
			:
			replicas 3
			:
			Available: False PodsNotReady 1 of 3 pods are ready; pod app-1 waits until the one before it has ended
			away
			work
			: +Pod/app-1@b r1
			work
			: +Pod/app-2@a r1`},
		"all end at once": {", replicas: 3, podManagementPolicy: Parallel", "a b", `
			slowly
			: +ControllerRevision/app-1 +Pod/app-0@a r1 +Pod/app-1@b r1 +Pod/app-2@a r1
			work
			: +ControllerRevision/app-1
			replicas 0
			: +Pod/app-2@a r1 ends +Pod/app-1@b r1 ends +Pod/app-0@a r1 ends
			replicas 1
			:
			nodeless a
			: +Pod/app-0@b r1 +ControllerRevision/app-1`},
		"at home": {", replicas: 2", "a b", `
			: +ControllerRevision/app-1 +Pod/app-0@a r1
			work
			: +Pod/app-1@b r1 +ControllerRevision/app-1
			work
			: +ControllerRevision/app-1
			delete app-1
			node aa
			: +Pod/app-1@b r1
			work
			:
			away b
			delete app-1
			: +Pod/app-1@b r1
			away
			work
			:
			nodeless b
			: -Pod/app-1 +Pod/app-1@aa r1 +ControllerRevision/app-1`},
		"one that does not come up stops it": {", replicas: 3, podManagementPolicy: Parallel", "a b c", `
			: +ControllerRevision/app-1 +Pod/app-0@a r1 +Pod/app-1@b r1 +Pod/app-2@c r1
			work
			: +ControllerRevision/app-1
			break v2
			image v2
			: +ControllerRevision/app-2 +Pod/app-2@c r2 +ControllerRevision/app-1
			work
			:
			Progressing: False RolloutFailed revision 2: pod app-2 on node c does not come up: CrashLoopBackOff: exit code 1
			image v3
			: +ControllerRevision/app-3 +Pod/app-2@c r3 +ControllerRevision/app-2
			work
			: +Pod/app-1@b r3`},
		"a node that is away holds it up": {", replicas: 2, podManagementPolicy: Parallel", "a b", `
			: +ControllerRevision/app-1 +Pod/app-0@a r1 +Pod/app-1@b r1
			work
			: +ControllerRevision/app-1
			away b
			image v2
			: +ControllerRevision/app-2 +Pod/app-1@b r2 +ControllerRevision/app-1
			:
			away
			work
			: +Pod/app-0@a r2`},
		"partition": {", replicas: 3, podManagementPolicy: Parallel, updateStrategy: {rollingUpdate: {partition: 2}}", "a b c", `
			: +ControllerRevision/app-1 +Pod/app-0@a r1 +Pod/app-1@b r1 +Pod/app-2@c r1
			work
			: +ControllerRevision/app-1
			image v2
			: +ControllerRevision/app-2 +Pod/app-2@c r2 +ControllerRevision/app-1
			work
			:
			Progressing: True RolloutComplete 1 of 3 pods are at revision 2; the others stay at theirs, as updateStrategy says
			delete app-0
			delete app-1
			: +Pod/app-0@a r1 +Pod/app-1@b r1
			work
			:
			Progressing: True RolloutComplete 1 of 3 pods are at revision 2; the others stay at theirs, as updateStrategy says`},
		"by hand": {", replicas: 2, podManagementPolicy: Parallel, updateStrategy: {type: OnDelete}", "a b", `
			: +ControllerRevision/app-1 +Pod/app-0@a r1 +Pod/app-1@b r1
			work
			: +ControllerRevision/app-1
			image v2
			: +ControllerRevision/app-2 +ControllerRevision/app-1
			delete app-0
			: +Pod/app-0@a r2
			work
			:
			Progressing: True RolloutComplete 1 of 2 pods are at revision 2; the others stay at theirs, as updateStrategy says`},
		"a pod that does not come up stops the making, and the next template mends it": {", replicas: 2", "a", `
			break v1
			: +ControllerRevision/app-1 +Pod/app-0@a r1
			work
			:
			Available: False PodsNotReady 0 of 2 pods are ready; pod app-0 on node a: CrashLoopBackOff: exit code 1
			image v2
			: +ControllerRevision/app-2 +Pod/app-0@a r2 +ControllerRevision/app-1
			work
			: +Pod/app-1@a r2 +ControllerRevision/app-2`},
	} {
		t.Run(name, func(t *testing.T) {
			w := setWorld(t, "StatefulSet", c.spec, strings.Fields(c.nodes)...)
			w.script(c.script)
		})
	}
}

// A pod whose home no longer fits waits for it, and goes nowhere else.
func TestStatefulSetWaitsForItsHome(t *testing.T) {
	w := setWorld(t, "StatefulSet", "", "a", "b")
	w.in.App.PodTemplate().Spec.NodeSelector = map[string]string{"site": "north"}
	w.script(`
		label a site=north
		: +ControllerRevision/app-1 +Pod/app-0@a r1
		work
		: +ControllerRevision/app-1
		label b site=north
		label a site=south
		: -Pod/app-0 +Pod/app-0@ r1
		:
		Available: False PodsNotReady 0 of 1 pods are ready; pod app-0: Unschedulable: it is for node a, which has the label site=south, not north
		label a site=north
		: +Pod/app-0@a r1`)
	if s := w.plan.Status; s.CurrentRevision != "app-1" || s.UpdateRevision != "app-1" {
		t.Errorf("%+v", s)
	}
	for _, p := range w.in.Pods {
		if p.Metadata.Labels[models.LabelPodName] != "app-0" {
			t.Errorf("labels %v", p.Metadata.Labels)
		}
	}
}

// TestSetsHold checks on random histories what must hold at every step: no more pods
// that work are changed at a time than may be, a StatefulSet's pod is at home as long
// as its node exists, and when all is well everything gets there.
func TestSetsHold(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 9))
		c := []struct {
			kind, spec string
			atOnce     int
		}{
			{"DaemonSet", "", 1},
			{"DaemonSet", ", updateStrategy: {rollingUpdate: {maxUnavailable: 2}}", 2},
			{"StatefulSet", ", replicas: 3", 1},
			{"StatefulSet", ", replicas: 4, podManagementPolicy: Parallel", 1},
			{"StatefulSet", ", replicas: 4, revisionHistoryLimit: 0", 1},
		}[r.IntN(5)]
		names := []string{"a", "b", "c", "d"}
		w := setWorld(t, c.kind, c.spec, names...)
		w.slowly = r.IntN(2) == 0
		homes := map[string]string{}
		there := func(node string) bool {
			return slices.ContainsFunc(w.in.Cluster.Nodes, func(n placement.Node) bool { return n.Name == node })
		}
		for i := range 80 {
			node := names[r.IntN(len(names))]
			switch r.IntN(14) {
			case 0:
				w.image(fmt.Sprint("v", r.IntN(4)))
			case 1:
				w.disconnect(node)
			case 2:
				w.disconnect()
			case 3:
				w.broken = map[string]bool{fmt.Sprint("v", r.IntN(4)): true}
			case 4:
				if c.kind == "StatefulSet" {
					w.script(fmt.Sprint("replicas ", r.IntN(5)))
				}
			case 5:
				if len(w.in.Pods) > 0 {
					w.script("delete " + w.in.Pods[r.IntN(len(w.in.Pods))].Metadata.Name)
				}
			case 6:
				if there(node) && len(w.in.Cluster.Nodes) > 1 {
					w.script("nodeless " + node)
				} else if !there(node) {
					w.script("node " + node)
				}
			default:
				w.work()
			}
			w.show()
			before := map[string]Pod{}
			for _, p := range w.in.Pods {
				before[p.Metadata.Name] = p
			}
			w.step()
			taken := 0
			for _, o := range w.plan.Put {
				p, ok := o.(*models.Pod)
				if !ok || p.Metadata.DeletionTimestamp != nil {
					continue
				}
				if home := homes[p.Metadata.Name]; home != "" && there(home) && p.Spec.NodeName != home {
					t.Fatalf("seed %d step %d: %s is at home on %s, and goes to %q", seed, i, p.Metadata.Name, home, p.Spec.NodeName)
				}
				homes[p.Metadata.Name] = p.Spec.NodeName
				if was, had := before[p.Metadata.Name]; had && was.Reachable && was.Status.Ready && was.Spec.NodeName == p.Spec.NodeName {
					taken++
				}
			}
			if taken > c.atOnce {
				t.Fatalf("seed %d step %d: %d pods that work are changed at once: %s", seed, i, taken, w.plan.String())
			}
		}
		w.disconnect()
		w.broken = map[string]bool{}
		w.settle()
		wanted := int(w.in.App.Standing().Wanted)
		if c.kind == "DaemonSet" {
			wanted = len(w.in.Cluster.Nodes)
		}
		if s := w.plan.Status; !strings.HasPrefix(w.condition("Progressing"), "True RolloutComplete") || int(s.Ready) != wanted || int(s.Wanted) != wanted || int(s.Made) != wanted || len(w.in.Pods) != wanted {
			t.Fatalf("seed %d: %s %+v with %d pods", seed, c.kind, s, len(w.in.Pods))
		}
	}
}
