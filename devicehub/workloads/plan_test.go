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

var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// world plays the registry and the nodes of one Deployment: it does what plans
// say, and its pods come up or not as a test says.
type world struct {
	pulls  string // what pods say that have not come up
	t      testing.TB
	in     Input
	uids   int
	broken map[string]bool  // images that do not come up
	away   map[string]bool  // nodes that are not connected
	moved  int              // pods that were made anew
	oldest map[string]int64 // node to the revision that runs there, by pod
	runs   map[string]running
	slowly bool              // pods take their time to end
	ending map[string]string // pods that do, to their nodes
	plan   Plan
}

// running is what a pod's node has of it.
type running struct {
	uid      string
	revision int64
	image    string
}

func newWorld(t testing.TB, replicas int32, nodes ...string) *world {
	w := &world{t: t, broken: map[string]bool{}, away: map[string]bool{}, runs: map[string]running{}, ending: map[string]string{}}
	d := &models.Deployment{TypeMeta: models.TypeMeta{APIVersion: models.APIVersionApps, Kind: "Deployment"}, Metadata: models.ObjectMeta{Name: "app", Namespace: "default", UID: "d1", Generation: 1}}
	d.Spec.Replicas = &replicas
	d.Spec.Template.Spec.Containers = []models.Container{{Name: "c", Image: "v1"}}
	d.Default()
	w.in = Input{App: d, Now: start}
	for _, n := range nodes {
		w.in.Cluster.Nodes = append(w.in.Cluster.Nodes, placement.Node{Name: n})
	}
	return w
}

func (w *world) deployment() *models.Deployment { return w.in.App.(*models.Deployment) }

func (w *world) image(v string) {
	app := models.WithStanding(w.in.App, models.Standing{}) // another one
	t := app.PodTemplate()
	*t = copied(*t)
	t.Spec.Containers[0].Image = v
	app.Meta().Generation++
	w.in.App = app
}

// connect says which nodes are not connected.
func (w *world) disconnect(nodes ...string) {
	w.away = map[string]bool{}
	for _, n := range nodes {
		w.away[n] = true
	}
}

// show gives each pod the status that its node would tell.
func (w *world) show() {
	w.in.Cluster.Load = map[string]int{}
	for i := range w.in.Pods {
		p := &w.in.Pods[i]
		w.in.Cluster.Load[p.Spec.NodeName]++
		p.Held = w.slowly && p.Spec.NodeName != ""
		p.Reachable = p.Spec.NodeName != "" && !w.away[p.Spec.NodeName]
		r, ok := w.runs[p.Metadata.Name]
		switch {
		case p.Spec.NodeName == "":
			p.Status = models.PodStatus{Phase: models.PodPending, Reason: models.ReasonUnschedulable}
		case !p.Reachable:
			p.Status = models.PodStatus{Phase: models.PodUnknown, Reason: models.ReasonNodeLost}
		case !ok:
			p.Status = models.PodStatus{Phase: models.PodPending, Reason: models.ReasonPodScheduled}
			if w.pulls != "" {
				p.Status.Reason, p.Status.Message = models.ReasonContainerCreating, w.pulls
			}
		default:
			p.Status = models.PodStatus{Phase: models.PodRunning, Ready: !w.broken[r.image], Revision: r.revision}
			if !p.Status.Ready {
				p.Status.Reason, p.Status.Message = models.ReasonCrashLoopBackOff, "exit code 1"
			}
			if p.Revision() != r.revision {
				image := p.Spec.Containers[0].Image
				p.Status.Update = &models.PodUpdate{Revision: p.Revision(), Reason: models.ReasonContainerCreating}
				if w.broken[image] {
					p.Status.Update = &models.PodUpdate{Revision: p.Revision(), Failed: true, Reason: models.ReasonCrashLoopBackOff, Message: "exit code 1"}
				}
			}
		}
	}
	for i := range w.in.Cluster.Nodes {
		n := &w.in.Cluster.Nodes[i]
		if n.Trouble = ""; w.away[n.Name] {
			n.Trouble = "is not connected"
		}
	}
}

// work lets the connected nodes bring up what they are to run, up to n pods.
func (w *world) work() {
	for name, node := range w.ending {
		if !w.away[node] {
			delete(w.ending, name)
			delete(w.in.Ending, name)
		}
	}
	for _, p := range w.in.Pods {
		if p.Spec.NodeName == "" || w.away[p.Spec.NodeName] {
			continue
		}
		r, ok := w.runs[p.Metadata.Name]
		image := p.Spec.Containers[0].Image
		if !ok || r.uid != p.Metadata.UID || !w.broken[image] { // a broken one does not take the place of one that works
			w.runs[p.Metadata.Name] = running{p.Metadata.UID, p.Revision(), image}
		}
	}
}

// step makes a plan and does it. It returns the plan as text.
func (w *world) step() string {
	w.t.Helper()
	w.show()
	w.plan = Reconcile(w.in)
	w.in.Before = w.plan.Progress
	for _, key := range w.plan.Drop {
		if key.Kind == "Pod" {
			w.in.Pods = slices.DeleteFunc(w.in.Pods, func(p Pod) bool { return p.Metadata.Name == key.Name })
			delete(w.runs, key.Name)
			delete(w.ending, key.Name)
			delete(w.in.Ending, key.Name)
		} else {
			w.in.Revisions = slices.DeleteFunc(w.in.Revisions, func(r *models.ControllerRevision) bool { return r.Metadata.Name == key.Name })
		}
	}
	for _, o := range w.plan.Put {
		o.Default()
		valid := o
		if errs := valid.Validate(); len(errs) > 0 {
			w.t.Fatalf("the plan makes %s wrong: %v", models.KeyOf(o), errs)
		}
		switch o := o.(type) {
		case *models.ControllerRevision:
			w.in.Revisions = append(slices.DeleteFunc(w.in.Revisions, func(r *models.ControllerRevision) bool { return r.Metadata.Name == o.Metadata.Name }), o)
		case *models.Pod:
			i := slices.IndexFunc(w.in.Pods, func(p Pod) bool { return p.Metadata.Name == o.Metadata.Name })
			if o.Metadata.DeletionTimestamp != nil {
				if w.in.Ending == nil {
					w.in.Ending = map[string]bool{}
				}
				w.in.Ending[o.Metadata.Name], w.ending[o.Metadata.Name] = true, o.Spec.NodeName
				w.in.Pods = slices.Delete(w.in.Pods, i, i+1)
				delete(w.runs, o.Metadata.Name)
				continue
			}
			if _, is := w.ending[o.Metadata.Name]; is {
				w.t.Fatalf("%s is made before the one before it has ended", o.Metadata.Name)
			}
			if i >= 0 {
				o.Metadata.UID = w.in.Pods[i].Metadata.UID
				w.in.Pods[i].Pod = o
				continue
			}
			w.uids++
			o.Metadata.UID = fmt.Sprint("p", w.uids)
			w.in.Pods = append(w.in.Pods, Pod{Pod: o})
		}
	}
	return w.plan.String()
}

func (w *world) condition(typ string) string {
	c := conditionOf(w.plan.Status.Conditions, typ)
	return c.Status + " " + c.Reason + " " + c.Message
}

func (w *world) want(what, got, want string) {
	w.t.Helper()
	if got != want {
		w.t.Fatalf("%s: got\n  %s\nwant\n  %s", what, got, want)
	}
}

// settle goes on until there is nothing to do.
func (w *world) settle() (steps int) {
	w.t.Helper()
	for range 1000 {
		done := w.step() == ""
		w.work()
		if done && w.step() == "" {
			return steps
		}
		steps++
	}
	w.t.Fatal("it never settles")
	return 0
}

func TestRollout(t *testing.T) {
	w := newWorld(t, 3, "a", "b")
	w.want("first", w.step(), "+ControllerRevision/app-1 +Pod/app-0@a r1 +Pod/app-1@b r1 +Pod/app-2@a r1")
	w.want("progress", w.condition("Progressing"), "True RollingOut revision 1: 0 of 3 pods are up; next pod app-0 begins on node a")
	w.want("nothing told", w.step(), "")
	w.want("available", w.condition("Available"), "False PodsNotReady 0 of 3 pods are ready; pod app-0 on node a: Scheduled")
	w.work()
	w.want("settled", w.step(), "")
	w.want("progress", w.condition("Progressing"), "True RolloutComplete all pods are at revision 1")
	w.want("available", w.condition("Available"), "True AllPodsReady ")
	if s := w.plan.Status; s.Wanted != 3 || s.Ready != 3 || s.Updated != 3 || s.Revision != 1 || s.ObservedGeneration != 1 {
		t.Fatalf("%+v", s)
	}

	w.image("v2")
	w.want("one", w.step(), "+ControllerRevision/app-2 +Pod/app-0@a r2")
	w.want("waits", w.step(), "")
	w.want("still", w.condition("Available"), "True AllPodsReady ")
	w.work()
	w.want("two", w.step(), "+Pod/app-1@b r2")
	w.work()
	w.want("three", w.step(), "+Pod/app-2@a r2")
	w.work()
	w.want("settled", w.step(), "")
	w.want("progress", w.condition("Progressing"), "True RolloutComplete all pods are at revision 2")
}

func TestRolloutStopsAtAFailure(t *testing.T) {
	w := newWorld(t, 3, "a", "b", "c")
	w.settle()
	w.broken["v2"] = true
	w.image("v2")
	w.settle()
	w.want("progress", w.condition("Progressing"), "False RolloutFailed revision 2: pod app-0 on node a does not come up: CrashLoopBackOff: exit code 1")
	w.want("the old ones serve", w.condition("Available"), "True AllPodsReady ")
	for _, p := range w.in.Pods[1:] {
		if p.Revision() != 1 {
			t.Errorf("%s is at revision %d", p.Metadata.Name, p.Revision())
		}
	}
	if w.plan.Status.Updated != 0 || w.plan.Status.Ready != 3 {
		t.Errorf("%+v", w.plan.Status)
	}

	// Undone: the first revision's template becomes the newest.
	w.image("v1")
	w.want("undo", w.step(), "-ControllerRevision/app-1 +ControllerRevision/app-3 +Pod/app-0@a r3")
	w.settle()
	w.want("progress", w.condition("Progressing"), "True RolloutComplete all pods are at revision 3")
}

func TestRolloutMendsTheBrokenFirst(t *testing.T) {
	w := newWorld(t, 3, "a", "b", "c")
	w.settle()
	r := w.runs["app-2"]
	w.runs["app-2"] = running{r.uid, r.revision, "bad"}
	w.broken["bad"] = true
	w.image("v2")
	w.want("the broken one", w.step(), "+ControllerRevision/app-2 +Pod/app-2@c r2")
}

func TestRolloutPassesOverNodesThatAreAway(t *testing.T) {
	w := newWorld(t, 3, "a", "b", "c")
	w.settle()
	w.disconnect("a")
	w.image("v2")
	w.want("b goes first", w.step(), "+ControllerRevision/app-2 +Pod/app-1@b r2")
	w.work()
	w.want("then c", w.step(), "+Pod/app-2@c r2")
	w.work()
	w.want("then what is away", w.step(), "+Pod/app-0@a r2")
	w.want("waits", w.step(), "")
	w.want("progress", w.condition("Progressing"), "True WaitingForNodes revision 2: 2 of 3 pods are up, the others wait for nodes that are not connected: a")
	w.disconnect()
	w.work()
	w.step()
	w.want("progress", w.condition("Progressing"), "True RolloutComplete all pods are at revision 2")

	// With all of them away one is the first, and the others wait for it.
	w.disconnect("a", "b", "c")
	w.image("v3")
	w.want("one", w.step(), "+ControllerRevision/app-3 +Pod/app-0@a r3")
	w.want("waits", w.step(), "")
	w.disconnect("c")
	w.want("one that is there waits for it too", w.step(), "")
	w.work()
	w.want("goes on", w.step(), "+Pod/app-1@b r3")
}

func TestScaleAndMove(t *testing.T) {
	w := newWorld(t, 2, "a", "b")
	w.settle()
	w.deployment().Spec.Replicas = new(int32(4))
	w.want("up", w.step(), "+Pod/app-2@a r1 +Pod/app-3@b r1")
	w.settle()
	w.deployment().Spec.Replicas = new(int32(1))
	w.want("down", w.step(), "-Pod/app-1 -Pod/app-2 -Pod/app-3")
	w.in.Cluster.Nodes = w.in.Cluster.Nodes[1:]
	w.want("node gone", w.step(), "-Pod/app-0 +Pod/app-0@b r1")
	w.in.Cluster.Nodes[0].Labels = map[string]string{"x": "y"}
	w.settle()
	w.disconnect("b")
	w.want("offline keeps", w.step(), "")
	w.in.Cluster.Nodes = nil
	w.want("nowhere", w.step(), "-Pod/app-0 +Pod/app-0@ r1")
	w.want("nowhere still", w.step(), "")
	w.want("why", w.condition("Available"), "False PodsNotReady 0 of 1 pods are ready; pod app-0: Unschedulable: there is no node")
	w.in.Cluster.Nodes = []placement.Node{{Name: "z"}}
	w.want("somewhere", w.step(), "+Pod/app-0@z r1")
	w.deployment().Spec.Replicas = new(int32(0))
	w.want("none", w.step(), "-Pod/app-0")
	w.step()
	w.want("none is fine", w.condition("Available")+w.condition("Progressing"), "True AllPodsReady True RolloutComplete all pods are at revision 1")
}

func TestDeletedPodIsMadeAnew(t *testing.T) {
	w := newWorld(t, 2, "a", "b")
	w.settle()
	w.in.Pods = w.in.Pods[1:]
	w.want("anew", w.step(), "+Pod/app-0@a r1")
}

func TestRevisionsAreBounded(t *testing.T) {
	w := newWorld(t, 1, "a")
	for i := range 30 {
		w.image(fmt.Sprint("v", i))
		w.settle()
	}
	if len(w.in.Revisions) != models.RevisionsKept+1 {
		t.Fatalf("%d revisions", len(w.in.Revisions))
	}
	if first := w.in.Revisions[0].Revision; first != 20 {
		t.Errorf("the oldest is %d", first)
	}
}

func TestProgressDeadline(t *testing.T) {
	w := newWorld(t, 1, "a")
	w.step()
	w.in.Now = start.Add(ProgressDeadline - time.Second)
	w.step()
	w.want("in time", w.condition("Progressing"), "True RollingOut revision 1: 0 of 1 pods are up; next pod app-0 on node a: Scheduled")
	w.in.Now = start.Add(ProgressDeadline)
	w.step()
	w.want("late", w.condition("Progressing"), "False ProgressDeadlineExceeded revision 1: no step forward for 10m0s, 0 of 1 pods are up; pod app-0 on node a: Scheduled")
	w.work()
	w.step()
	w.want("at last", w.condition("Progressing"), "True RolloutComplete all pods are at revision 1")
}

// An image that comes over a thin line takes hours. As long as it comes, that is no
// standstill.
func TestPullIsProgress(t *testing.T) {
	w := newWorld(t, 1, "a")
	w.pulls = "pulling app:1: 1 of 9 MB"
	w.step()
	w.in.Now = start.Add(ProgressDeadline - time.Second)
	w.pulls = "pulling app:1: 2 of 9 MB"
	w.step()
	w.in.Now = start.Add(2*ProgressDeadline - 2*time.Second)
	w.step()
	w.want("it comes", w.condition("Progressing"), "True RollingOut revision 1: 0 of 1 pods are up; next pod app-0 on node a: ContainerCreating: pulling app:1: 2 of 9 MB")
	w.pulls = "pulling app:1: 2 of 9 MB (waits: there is no link)"
	w.in.Now = start.Add(2*ProgressDeadline - time.Second)
	w.step()
	w.want("it does not", w.condition("Progressing"), "False ProgressDeadlineExceeded revision 1: no step forward for 10m0s, 0 of 1 pods are up; pod app-0 on node a: ContainerCreating: pulling app:1: 2 of 9 MB (waits: there is no link)")
}

// TestPlansHold checks on random histories what must hold at every step: no more
// than one working pod is being brought to a new revision, pods do not move
// without a reason, and when all is well everything gets there.
func TestPlansHold(t *testing.T) {
	for seed := range uint64(80) {
		r := rand.New(rand.NewPCG(seed, 7))
		names := []string{"a", "b", "c", "d"}[:1+r.IntN(4)]
		w := newWorld(t, int32(r.IntN(6)), names...)
		for i := range 60 {
			switch r.IntN(12) {
			case 0:
				w.image(fmt.Sprint("v", r.IntN(4)))
			case 1:
				w.disconnect(names[r.IntN(len(names))])
			case 2:
				w.disconnect()
			case 3:
				w.broken = map[string]bool{fmt.Sprint("v", r.IntN(4)): true}
			case 4:
				d := *w.deployment()
				d.Spec.Replicas = new(int32(r.IntN(6)))
				w.in.App = &d
			case 5:
				if len(w.in.Pods) > 0 {
					i := r.IntN(len(w.in.Pods))
					w.in.Pods = slices.Delete(slices.Clone(w.in.Pods), i, i+1)
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
				if !ok {
					continue
				}
				was, had := before[p.Metadata.Name]
				if had && was.Spec.NodeName != "" && p.Spec.NodeName != was.Spec.NodeName {
					t.Fatalf("seed %d step %d: %s moves from %s to %s", seed, i, p.Metadata.Name, was.Spec.NodeName, p.Spec.NodeName)
				}
				if had && was.Reachable && was.Status.Ready {
					taken++
				}
			}
			if taken > 1 {
				t.Fatalf("seed %d step %d: %d pods that work are changed at once: %s", seed, i, taken, w.plan.String())
			}
		}
		w.disconnect()
		w.broken = map[string]bool{}
		w.settle()
		replicas := int(*w.deployment().Spec.Replicas)
		if !strings.HasPrefix(w.condition("Progressing"), "True RolloutComplete") || int(w.plan.Status.Ready) != replicas || len(w.in.Pods) != replicas {
			t.Fatalf("seed %d: %+v with %d pods", seed, w.plan.Status, len(w.in.Pods))
		}
	}
}
