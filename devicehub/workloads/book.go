package workloads

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/placement"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

// book is what is known that is no object: what nodes tell, and what was decided
// last. It lives as long as the process, but for what nodes told of pods: nodes
// tell all of it anew when they connect, but one may be away for long.
type book struct {
	now   func() time.Time
	began time.Time
	wake  chan struct{} // one slot: take has something

	mu       sync.Mutex // protects all below; held for memory work only, never while the registry is called
	nodes    map[string]nodeState
	reports  map[string]report          // by pod uid; bounded by the pods there are
	unsaved  map[string]bool            // uids of pods whose reports are other than the store's
	ended    map[string]bool            // uids of pods of which nodes have told that nothing is left; bounded by the pods there are
	unplaced map[string]placement.Place // by pod uid
	apps     map[models.Key]appState
	told     told
}

// told is what the loop is to look at because of what nodes told. It is bounded
// by the apps and nodes there are.
type told struct {
	apps  map[models.Key]bool
	nodes map[string]bool // their sessions or engines changed
}

// nodeState is what a node's last session says.
type nodeState struct {
	live        bool
	since       time.Time // live or not
	cannotRun   string    // why it cannot run pods, "" when it can
	servesNamed bool      // streams to its pods may name them
	full        time.Time // when it told of all its pods
	engine      *pb.Engine
	told        *pb.Engine // of the engine, last, in whichever session
}

// report is what a node told of a pod.
type report struct {
	node   string
	at     time.Time
	ready  time.Time // since when it tells that the pod is ready at its revision; zero when it does not
	status models.PodStatus
}

// appState is what was decided for an app last.
type appState struct {
	uid      string
	status   models.Standing
	progress Progress
	pods     map[string]bool // uids of those in unplaced
}

func (b *book) init(now func() time.Time) {
	b.now, b.began, b.wake = now, now(), make(chan struct{}, 1)
	b.unsaved, b.ended = map[string]bool{}, map[string]bool{}
	b.nodes, b.reports, b.unplaced, b.apps = map[string]nodeState{}, map[string]report{}, map[string]placement.Place{}, map[models.Key]appState{}
	b.told = told{map[models.Key]bool{}, map[string]bool{}}
}

func (b *book) signal() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

func (b *book) take() told {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.told
	b.told = told{map[models.Key]bool{}, map[string]bool{}}
	return t
}

// NodeLive hears that a node has a session, with the capabilities of its hello,
// or has it no longer.
func (c *Controller) NodeLive(node string, live bool, capabilities []string) {
	b := &c.book
	b.mu.Lock()
	n := b.nodes[node]
	n.live, n.since = live, b.now()
	if live {
		n.cannotRun, n.engine = "", nil
		if !slices.Contains(capabilities, edgelink.CapabilityWorkloads) {
			n.cannotRun = "runs an edge that cannot run apps"
		}
		n.servesNamed = slices.Contains(capabilities, edgelink.CapabilityServicePod)
	}
	b.nodes[node] = n
	b.told.nodes[node] = true
	b.mu.Unlock()
	b.signal()
}

// PodStatuses takes what a node tells of its pods. Pods that are not, or are no
// longer, the node's are left out.
func (c *Controller) PodStatuses(node string, m *pb.PodStatuses) {
	b := &c.book
	var changed []models.Key
	heard, named := map[string]report{}, map[string]bool{}
	pods := map[string]*models.Pod{}
	owners := map[models.Key]bool{}
	for _, p := range m.Pods {
		key := models.Key{Kind: "Pod", Namespace: p.Namespace, Name: p.Name}
		pod, ok := c.registry.Object(key).(*models.Pod)
		if !ok || pod.Metadata.UID != p.Uid || pod.Spec.NodeName != node {
			continue
		}
		if len(p.Json) > edgelink.MaxPodStatus {
			c.log.Warn("a node tells too much of a pod", "node", node, "pod", key.Name, "bytes", len(p.Json))
			continue
		}
		r := report{node: node, at: b.now()}
		if !p.Gone {
			// Tolerant: the node may be of a newer release.
			if err := json.Unmarshal(p.Json, &r.status); err != nil {
				c.log.Warn("a node tells what cannot be read of a pod", "node", node, "pod", key.Name, "error", err)
				continue
			}
			heard[p.Uid] = r
		}
		named[p.Uid], pods[p.Uid] = true, pod
		changed = append(changed, key)
		if len(pod.Metadata.OwnerReferences) > 0 {
			owners[appOf(pod)] = true
		}
	}
	nodeUID := ""
	if n := c.registry.Object(models.Key{Kind: "Node", Name: node}); n != nil {
		nodeUID = n.Meta().UID
	}
	b.mu.Lock()
	var happened []models.Occurrence
	for uid, r := range heard {
		var before *models.PodStatus
		if old, ok := b.reports[uid]; ok {
			before = &old.status
		}
		if pods[uid].Metadata.DeletionTimestamp == nil {
			happened = append(happened, podHappened(pods[uid], before, r.status)...)
		}
	}
	for uid, r := range b.reports {
		if m.Full && r.node == node && !named[uid] {
			b.dropLocked(uid)
			b.ended[uid] = true
		}
	}
	for uid := range named {
		if r, ok := heard[uid]; ok {
			if old := b.reports[uid]; r.status.Ready {
				r.ready = r.at
				if old.node == r.node && old.status.Ready && old.status.Revision == r.status.Revision && !old.ready.IsZero() {
					r.ready = old.ready
				}
			}
			b.reports[uid], b.unsaved[uid] = r, true
			delete(b.ended, uid)
		} else {
			b.dropLocked(uid)
			b.ended[uid] = true
		}
	}
	nodeChanged := m.Full
	if m.Full {
		n := b.nodes[node]
		n.full = b.now()
		b.nodes[node] = n
	}
	if n := b.nodes[node]; m.Engine != nil {
		happened = append(happened, engineHappened(node, nodeUID, n.told, m.Engine)...)
		nodeChanged = nodeChanged || n.engine == nil || n.engine.Ready != m.Engine.Ready
		n.engine, n.told = m.Engine, m.Engine
		b.nodes[node] = n
	}
	b.mu.Unlock()
	// What happened to pods is told before what comes of it.
	c.raise(happened)
	for _, key := range changed {
		c.registry.StatusChanged(key)
	}
	b.mu.Lock()
	maps.Copy(b.told.apps, owners)
	if nodeChanged {
		b.told.nodes[node] = true
	}
	b.mu.Unlock()
	b.signal()
}

// live reports whether a node has a session.
func (b *book) live(name string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.nodes[name].live
}

// PodServes reports whether a pod is ready as its node says, which is connected, and
// whether streams to it may name it: else the node chooses among a Service's.
func (c *Controller) PodServes(p *models.Pod) (ready, named bool) {
	b := &c.book
	b.mu.Lock()
	defer b.mu.Unlock()
	r, told := b.reports[p.Metadata.UID]
	n := b.nodes[p.Spec.NodeName]
	ready = told && p.Metadata.DeletionTimestamp == nil && r.node == p.Spec.NodeName && n.live && n.cannotRun == "" && r.status.Ready
	return ready, n.servesNamed
}

// nodeState returns why a node cannot run pods, and why it is to get no new ones.
func (b *book) nodeState(name string) (cannotRun, trouble string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := b.nodes[name]
	switch {
	case !n.live:
		trouble = "is not connected"
	case n.engine != nil && !n.engine.Ready:
		trouble = "has no container engine that works: " + because(n.engine.Reason, n.engine.Message)
	}
	return n.cannotRun, trouble
}

// WorkloadStatus returns an app or Pod with its status.
func (c *Controller) WorkloadStatus(o models.Object) models.Object {
	switch o := o.(type) {
	case *models.Pod:
		shown := *o
		status, _ := c.book.podStatus(o)
		shown.Status = &status
		return &shown
	case models.Workload:
		c.book.mu.Lock()
		state, ok := c.book.apps[models.KeyOf(o)]
		c.book.mu.Unlock()
		if !ok || state.uid != o.Meta().UID {
			return o // new: the loop has not seen it
		}
		status := state.status
		status.Conditions = slices.Clone(status.Conditions)
		return models.WithStanding(o, status)
	}
	return o
}

// readySince returns since when a pod is told to be ready as it is, zero when it is
// not.
func (b *book) readySince(p *models.Pod) time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r, told := b.reports[p.Metadata.UID]; told && r.node == p.Spec.NodeName {
		return r.ready
	}
	return time.Time{}
}

// podStatus returns a pod's status as it is shown, and whether its node is
// connected. Nothing looks better than it is known to be: a pod whose node is
// away is Unknown and not ready, though it may well be running.
func (b *book) podStatus(p *models.Pod) (status models.PodStatus, reachable bool) {
	b.mu.Lock()
	place, unplaced := b.unplaced[p.Metadata.UID]
	r, told := b.reports[p.Metadata.UID]
	told = told && r.node == p.Spec.NodeName
	n := b.nodes[p.Spec.NodeName]
	b.mu.Unlock()
	scheduled := models.Condition{Type: "PodScheduled", Status: "True", LastTransitionTime: *p.Metadata.CreationTimestamp}
	ready := models.Condition{Type: "Ready", Status: "False", LastTransitionTime: *p.Metadata.CreationTimestamp}
	status = models.PodStatus{Phase: models.PodPending, Node: p.Spec.NodeName}
	switch {
	case p.Spec.NodeName == "":
		status.Reason, status.Message = models.ReasonUnschedulable, "no node has been chosen yet"
		if unplaced {
			status.Reason, status.Message = place.Reason, place.Message
		}
		scheduled.Status, scheduled.Reason, scheduled.Message = "False", status.Reason, status.Message
	case n.cannotRun != "":
		status.Reason, status.Message = models.ReasonNotSupportedByNode, "node "+p.Spec.NodeName+" "+n.cannotRun
	case told:
		status = r.status
		status.Node, status.ReportedAt = p.Spec.NodeName, new(r.at.UTC().Truncate(time.Millisecond))
		ready.LastTransitionTime = r.at.UTC().Truncate(time.Second)
		if c := conditionOf(r.status.Conditions, "Ready"); c != nil {
			ready.LastTransitionTime = c.LastTransitionTime
		}
		if !n.live {
			status.Phase, status.Ready, status.Reason = models.PodUnknown, false, models.ReasonNodeLost
			status.Message = "node " + p.Spec.NodeName + " is not connected; what is shown is the last that it told"
			if n.since.IsZero() { // it has not been connected in this life of the hub
				n.since = b.began
			}
			ready.LastTransitionTime = n.since.UTC().Truncate(time.Second)
		}
	case !n.live:
		status.Phase, status.Reason = models.PodUnknown, models.ReasonNodeLost
		status.Message = "node " + p.Spec.NodeName + " is not connected"
	default:
		status.Reason, status.Message = models.ReasonPodScheduled, "node "+p.Spec.NodeName+" has not told of it yet"
	}
	if p.Metadata.DeletionTimestamp != nil {
		status.Ready, status.Reason = false, models.ReasonTerminating
		if status.Message = "its containers are being stopped"; !n.live {
			status.Message = "node " + p.Spec.NodeName + " is not connected; it is to stop the pod's containers when it is back"
		}
	}
	if status.Ready {
		ready.Status = "True"
	} else {
		ready.Reason, ready.Message = status.Reason, status.Message
	}
	status.Conditions = []models.Condition{scheduled, ready}
	return status, n.live && n.cannotRun == ""
}

func conditionOf(conditions []models.Condition, typ string) *models.Condition {
	for i := range conditions {
		if conditions[i].Type == typ {
			return &conditions[i]
		}
	}
	return nil
}

// progress returns how far an app's rollout was.
func (b *book) progress(d models.Workload) Progress {
	b.mu.Lock()
	defer b.mu.Unlock()
	if a := b.apps[models.KeyOf(d)]; a.uid == d.Meta().UID {
		return a.progress
	}
	return Progress{}
}

// judged notes what was decided, and returns the keys of what is shown otherwise
// now, and what has happened.
func (b *book) judged(d models.Workload, plan *Plan, unplaced map[string]placement.Place, pods map[string]*models.Pod) (changed []models.Key, happened []models.Occurrence) {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := models.KeyOf(d)
	before := b.apps[key]
	if before.uid != d.Meta().UID {
		before.status = models.Standing{}
	}
	status := plan.Status
	now := b.now().UTC().Truncate(time.Second)
	for i := range status.Conditions {
		c := &status.Conditions[i]
		c.LastTransitionTime = now
		if old := conditionOf(before.status.Conditions, c.Type); old != nil && old.Status == c.Status {
			c.LastTransitionTime = old.LastTransitionTime
		}
	}
	if !equalStatus(before.status, status) {
		changed = append(changed, key)
		happened = rolloutHappened(d, before.status, status)
	}
	state := appState{uid: d.Meta().UID, status: status, progress: plan.Progress, pods: map[string]bool{}}
	for _, p := range sortedPods(pods) {
		uid := p.Metadata.UID
		place, is := unplaced[uid]
		if old, was := b.unplaced[uid]; was != is || old != place {
			changed = append(changed, models.KeyOf(p))
			happened = append(happened, placeHappened(p, old, place)...)
		}
		if is {
			b.unplaced[uid] = place
			state.pods[uid] = true
		}
	}
	for uid := range before.pods {
		if !state.pods[uid] {
			delete(b.unplaced, uid)
		}
	}
	b.apps[key] = state
	return changed, happened
}

func equalStatus(a, b models.Standing) bool {
	return reflect.DeepEqual(a, b)
}

// forget drops what was decided for an app that is gone.
func (b *book) forget(key models.Key) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for uid := range b.apps[key].pods {
		delete(b.unplaced, uid)
	}
	delete(b.apps, key)
}

// keep drops reports of pods that are gone.
func (b *book) keep(uids map[string]bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for uid := range b.reports {
		if !uids[uid] {
			b.dropLocked(uid)
		}
	}
	maps.DeleteFunc(b.ended, func(uid string, _ bool) bool { return !uids[uid] })
}

// left drops what is known of pods that have ended.
func (b *book) left(uids []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, uid := range uids {
		b.dropLocked(uid)
		delete(b.ended, uid)
	}
}

func (b *book) dropLocked(uid string) {
	if _, ok := b.reports[uid]; ok {
		delete(b.reports, uid)
		b.unsaved[uid] = true
	}
}

// unfinished returns the apps whose rollouts are under way.
func (b *book) unfinished() map[models.Key]bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := map[models.Key]bool{}
	for key, a := range b.apps {
		if c := conditionOf(a.status.Conditions, "Progressing"); c != nil && c.Reason != models.ReasonRolloutComplete {
			out[key] = true
		}
	}
	return out
}

// untold is how long a node that is connected may have a pod and not tell of it.
const untold = 10 * time.Second

// endOf is when a pod that is to end counts as ended, and whether that is known: its
// node has told that nothing of it is left, or does not tell of it at all although it
// is connected.
func (b *book) endOf(p *models.Pod) (at time.Time, known bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r, told := b.reports[p.Metadata.UID]
	n := b.nodes[p.Spec.NodeName]
	switch {
	case b.ended[p.Metadata.UID]:
		return *p.Metadata.DeletionTimestamp, true
	case !n.live, told && r.node == p.Spec.NodeName:
		return time.Time{}, false
	}
	at = *p.Metadata.DeletionTimestamp // in whole seconds
	if n.full.After(at.Add(time.Second)) {
		return at, true
	}
	if at.Before(n.since) {
		at = n.since
	}
	return at.Add(untold), true
}
