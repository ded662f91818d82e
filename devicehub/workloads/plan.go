// Package workloads makes pods of Deployments, DaemonSets and StatefulSets: it
// chooses their nodes, brings them to new revisions of their template one after the
// other, stops where a revision does not come up, and says how far it is. The kinds
// are one machine with different rules.
//
// Reconcile decides, as a function of what is known and the time. The
// Controller knows: it listens to the registry and to what nodes tell of their
// pods, and stores what Reconcile decided. What is stored is delivered to nodes
// like every wanted object; within a pod's place it is the node that starts the
// new containers, waits until they are ready, and only then stops the old ones.
package workloads

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/placement"
	"github.com/whimbrel-edge/whimbrel/models"
)

// ProgressDeadline is how long a rollout may go without a step forward before it
// counts as stuck.
const ProgressDeadline = 10 * time.Minute

// Pod is a pod with what is known of it.
type Pod struct {
	*models.Pod
	Status    models.PodStatus // as it is shown
	Reachable bool             // its node is connected
	// ReadySince is when its node first told of it as it is now that it is ready, by
	// the hub's clock; zero when it is not.
	ReadySince time.Time
	Held       bool // its node may have it: it is to be ended there before it goes
}

// Input is an app with all that its plan depends on.
type Input struct {
	App       models.Workload
	Revisions []*models.ControllerRevision // its own, in any order
	Pods      []Pod                        // its own, in any order
	Cluster   placement.Cluster
	// NearNode and NearTrouble are of the template's nearDevice, see placement.Request.
	NearNode, NearTrouble string
	// Taken returns which other app has a pod of a name in the namespace, "" for none.
	// nil: there is none.
	Taken func(name string) string
	// Ending are the pods of the namespace that their nodes are to end and that have
	// not ended yet, by name: whether they are the app's own.
	Ending map[string]bool
	Before Progress // of the plan before
	Now    time.Time
}

// Progress is how far a rollout was when it last went a step forward.
type Progress struct {
	Revision int64
	Done     int    // pods that are up at the revision
	Begun    int    // pods that are to be
	Pulled   string // how far the images of those are that are being fetched
	Since    time.Time
}

// Plan is what is to be done for an app, and how it is doing.
type Plan struct {
	Put      []models.Object // pods and revisions, made or changed
	Drop     []models.Key    // pods and revisions to delete; one that is put too is made anew
	Unplaced map[string]placement.Place
	Progress Progress
	Status   models.Standing // without times of conditions
	Again    time.Time       // when time alone makes another plan; zero for never
}

// String is for the log.
func (p *Plan) String() string {
	var parts []string
	for _, key := range p.Drop {
		parts = append(parts, "-"+key.Kind+"/"+key.Name)
	}
	for _, o := range p.Put {
		text := "+" + o.Type().Kind + "/" + o.Meta().Name
		if pod, ok := o.(*models.Pod); ok {
			text += fmt.Sprintf("@%s r%d", pod.Spec.NodeName, pod.Revision())
			if pod.Metadata.DeletionTimestamp != nil {
				text += " ends"
			}
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, " ")
}

// Reconcile returns the plan for an app.
func Reconcile(in Input) Plan {
	p := planner{Input: in}
	p.rules = rulesOf(in.App)
	p.revise()
	p.readHomes()
	p.place()
	p.roll()
	p.note()
	p.judge()
	return p.plan
}

type planner struct {
	Input
	rules     rules
	plan      Plan
	revision  int64
	revisions []*models.ControllerRevision // those that stay, the newest last
	slots     []slot
	homes     []string // the nodes of pods by their numbers, where rules.homes
}

// slot is one of the pods that there are to be.
type slot struct {
	name   string
	taken  string // whose pod has the name, "" when none has: then there can be none
	place  placement.Place
	pod    *Pod  // as it is now, nil when there is none
	steady bool  // it is ready, and has been for as long as it is to be
	target int64 // the revision that it is made of when it is made
	next   bool  // the plan makes it
	waits  bool  // for the end of the one before
}

// placed reports whether the slot's pod is on a node and stays there.
func (s *slot) placed() bool {
	return s.pod != nil && s.place.Node != "" && s.pod.Spec.NodeName == s.place.Node
}

// current reports whether the slot's pod is meant to be of a revision.
func (s *slot) current(revision int64) bool { return s.pod != nil && s.pod.Revision() == revision }

// up reports whether the slot's pod is known to be up at a revision.
func (s *slot) up(revision int64) bool {
	if !s.placed() || !s.current(revision) || !s.pod.Reachable || s.pod.Status.Revision != revision {
		return false
	}
	return s.steady || s.pod.Status.Phase == models.PodSucceeded
}

// serves reports whether the slot's pod is known to be up, at whatever revision.
func (s *slot) serves() bool {
	return s.placed() && s.pod.Reachable && (s.steady || s.pod.Status.Phase == models.PodSucceeded)
}

// begun reports whether the slot's pod is meant to be of a revision once the plan is
// done.
func (s *slot) begun(revision int64) bool {
	return s.next && s.target == revision || s.current(revision)
}

// revise finds the template among the revisions, or makes it the newest one. A
// template that is gone back to becomes the newest once more, so that the
// numbers always tell the order.
func (p *planner) revise() {
	revisions := slices.SortedFunc(slices.Values(p.Revisions), func(a, b *models.ControllerRevision) int { return cmp.Compare(a.Revision, b.Revision) })
	template := encoded(*p.App.PodTemplate())
	if n := len(revisions); n > 0 && bytes.Equal(encoded(revisions[n-1].Data.Spec.Template), template) {
		p.revision = revisions[n-1].Revision
	} else {
		p.revision = 1
		if n > 0 {
			p.revision = revisions[n-1].Revision + 1
		}
		for i, r := range revisions {
			if bytes.Equal(encoded(r.Data.Spec.Template), template) {
				p.plan.Drop = append(p.plan.Drop, models.KeyOf(r))
				revisions = slices.Delete(revisions, i, i+1)
				break
			}
		}
		r := &models.ControllerRevision{TypeMeta: models.TypeMeta{APIVersion: models.APIVersionApps, Kind: "ControllerRevision"}, Revision: p.revision}
		p.own(r, p.App.Meta().Name+"-"+strconv.FormatInt(p.revision, 10))
		r.Metadata.Labels = maps.Clone(p.App.PodTemplate().Metadata.Labels)
		r.Data.Spec.Template = copied(*p.App.PodTemplate())
		p.plan.Put = append(p.plan.Put, r)
		revisions = append(revisions, r)
	}
	p.revisions = revisions
	for i := 0; len(p.revisions) > p.rules.kept+1 && i < len(p.revisions)-1; {
		if r := p.revisions[i]; r.Metadata.Annotations[models.AnnotationCurrent] != "" {
			i++ // pods may have to be made of it
		} else {
			p.plan.Drop = append(p.plan.Drop, models.KeyOf(r))
			p.revisions = slices.Delete(p.revisions, i, i+1)
		}
	}
}

func encoded(t models.PodTemplate) []byte {
	text, _ := json.Marshal(t) // its types always encode
	return text
}

// copied returns a copy that shares nothing.
func copied(t models.PodTemplate) (out models.PodTemplate) {
	_ = json.Unmarshal(encoded(t), &out) // its own text always decodes
	return out
}

// own gives an object that is made for the app its name and owner.
func (p *planner) own(o models.Object, name string) {
	meta := p.App.Meta()
	*o.Meta() = models.ObjectMeta{Name: name, Namespace: meta.Namespace, OwnerReferences: []models.OwnerReference{
		{APIVersion: models.APIVersionApps, Kind: p.App.Type().Kind, Name: meta.Name, UID: meta.UID}}}
}

// makePod returns a slot's pod as the template says.
func (p *planner) makePod(s *slot) *models.Pod {
	t := copied(*p.App.PodTemplate())
	if s.target != p.revision {
		t = copied(p.behind().Data.Spec.Template)
	}
	pod := &models.Pod{TypeMeta: models.TypeMeta{APIVersion: models.APIVersionCore, Kind: "Pod"}, Spec: t.Spec}
	p.own(pod, s.name)
	pod.Metadata.Labels, pod.Metadata.Annotations = t.Metadata.Labels, t.Metadata.Annotations
	if pod.Metadata.Annotations == nil {
		pod.Metadata.Annotations = map[string]string{}
	}
	pod.Metadata.Annotations[models.AnnotationRevision] = strconv.FormatInt(s.target, 10)
	if p.rules.homes { // only StatefulSets' names are sure to fit into a label
		if pod.Metadata.Labels == nil {
			pod.Metadata.Labels = map[string]string{}
		}
		pod.Metadata.Labels[models.LabelPodName] = s.name
	}
	pod.Spec.NodeName = s.place.Node
	return pod
}

// place gives each slot its node, and drops the pods that no slot is for.
func (p *planner) place() {
	pods := map[string]*Pod{}
	for i := range p.Pods {
		pods[p.Pods[i].Metadata.Name] = &p.Pods[i]
	}
	places := placement.Choose(p.wanted(pods), p.Cluster)
	p.plan.Unplaced = map[string]placement.Place{}
	for i := range p.slots {
		s := &p.slots[i]
		delete(pods, s.name)
		if s.place = places[i]; places[i].Node == "" {
			p.plan.Unplaced[s.name] = places[i]
		}
		s.steady, s.target = p.steady(s), p.revision
		if i < p.rules.partition {
			s.target = p.behind().Revision
		}
	}
	p.plan.Status.Misplaced = int32(len(pods))
	for _, name := range p.surplus(pods) {
		if pod := pods[name]; pod.Held {
			p.plan.Put = append(p.plan.Put, ended(pod.Pod, p.Now))
		} else {
			p.plan.Drop = append(p.plan.Drop, models.KeyOf(pod.Pod))
		}
	}
	slices.SortFunc(p.plan.Drop, func(a, b models.Key) int { return strings.Compare(a.Name, b.Name) })
}

// steady reports whether a slot's pod is ready and has been for as long as it is to
// be, and notes when that will be.
func (p *planner) steady(s *slot) bool {
	if s.pod == nil || !s.pod.Status.Ready {
		return false
	}
	if p.rules.minReady == 0 {
		return true
	}
	if s.pod.ReadySince.IsZero() {
		return false
	}
	at := s.pod.ReadySince.Add(p.rules.minReady)
	if !p.Now.Before(at) {
		return true
	}
	if p.plan.Again.IsZero() || at.Before(p.plan.Again) {
		p.plan.Again = at
	}
	return false
}

// roll makes the pods that are missing or move, and takes the next step of a
// rollout: as many pods that work at a time as the rules say, and only when those
// before are up.
func (p *planner) roll() {
	var waiting []*slot
	wait := false // of those that are made one by one one is not up
	for i := range p.slots {
		s := &p.slots[i]
		switch {
		case s.taken != "":
		case s.pod == nil && p.rules.homes && p.Ending[s.name]: // its data is the next one's
			s.waits = true
		case s.pod == nil:
			if _, ends := p.Ending[s.name]; ends && !wait { // it makes way
				p.plan.Drop = append(p.plan.Drop, models.Key{Kind: "Pod", Namespace: p.App.Meta().Namespace, Name: s.name})
			}
			s.next = !wait
		case s.pod.Spec.NodeName != "" && !s.placed(): // elsewhere it is another pod
			p.plan.Drop = append(p.plan.Drop, models.KeyOf(s.pod.Pod))
			s.next = !wait
		case s.pod.Spec.NodeName != s.place.Node: // it has never run
			s.next = true
		case s.current(s.target):
		case s.place.Node == "":
			s.next = true
		case !p.held(i):
			waiting = append(waiting, s)
		}
		wait = wait || p.rules.oneByOne && !s.serves()
	}
	next := p.turn
	if p.rules.ordered {
		next = p.turnDown
	}
	for _, s := range next(waiting) {
		s.next = true
	}
	for i := range p.slots {
		if p.slots[i].next {
			p.plan.Put = append(p.plan.Put, p.makePod(&p.slots[i]))
		}
	}
}

// ended is a pod that its node is to end.
func ended(pod *models.Pod, now time.Time) *models.Pod {
	next := *pod
	next.Metadata.DeletionTimestamp = new(now.UTC().Truncate(time.Second))
	return &next
}

// turn returns those of the waiting slots that get the current revision now: one
// after the other, or as many as the rules let be on their way at a time. Those that do not work at
// present go first: there is nothing to lose. Pods of nodes that are not
// connected hold nobody up: they come last, all of them once one pod has come
// up, for nobody can tell when their nodes are back.
func (p *planner) turn(waiting []*slot) []*slot {
	someUp := slices.ContainsFunc(p.slots, func(s slot) bool { return s.up(p.revision) })
	room := max(1, p.rules.atOnce.Of(len(p.slots)))
	for i := range p.slots {
		if p.slots[i].onItsWay(p.revision, someUp) {
			room--
		}
	}
	if room <= 0 {
		return nil
	}
	var there, away []*slot
	for _, s := range waiting {
		if s.pod.Reachable {
			there = append(there, s)
		} else {
			away = append(away, s)
		}
	}
	slices.SortStableFunc(there, func(a, b *slot) int {
		switch {
		case a.pod.Status.Ready == b.pod.Status.Ready:
			return 0
		case a.pod.Status.Ready:
			return 1
		}
		return -1
	})
	switch {
	case len(there) > 0:
		return there[:min(room, len(there))]
	case len(away) > 0 && !someUp:
		return away[:min(room, len(away))]
	}
	return away
}

// onItsWay reports whether the slot's pod is being brought up at a revision. One
// whose node is not connected does not count when others are up.
func (s *slot) onItsWay(revision int64, someUp bool) bool {
	if s.place.Node == "" || s.up(revision) {
		return false
	}
	return s.next || s.placed() && s.current(revision) && (s.pod.Reachable || !someUp)
}

// stuck are the reasons of pods that have failed again and again, or cannot work
// as they are configured. The node goes on trying.
var stuck = map[string]bool{models.ReasonCrashLoopBackOff: true, models.ReasonImagePullBackOff: true, models.ReasonErrImageNeverPull: true, models.ReasonCreateContainerError: true,
	models.ReasonRunContainerError: true, models.ReasonConfigNotFound: true}

// failure returns what a slot's pod fails by at the current revision, "" when it
// does not.
func (s *slot) failure(revision int64) string {
	if !s.placed() || !s.current(revision) || !s.pod.Reachable || s.up(revision) {
		return ""
	}
	st := s.pod.Status
	reason, message := st.Reason, st.Message
	failed := st.Revision == revision && (stuck[reason] || st.Phase == models.PodFailed)
	if u := st.Update; u != nil && u.Revision == revision {
		reason, message, failed = u.Reason, u.Message, u.Failed || stuck[u.Reason]
	}
	if !failed {
		return ""
	}
	return fmt.Sprintf("pod %s on node %s does not come up: %s", s.name, s.place.Node, because(reason, message))
}

func because(reason, message string) string {
	switch {
	case reason == "":
		return cmp.Or(message, "it does not say why")
	case message == "":
		return reason
	}
	return reason + ": " + message
}

// judge says how the app is doing.
func (p *planner) judge() {
	st := models.Standing{ObservedGeneration: p.App.Meta().Generation, Revision: p.revision, Misplaced: p.plan.Status.Misplaced}
	behind := p.behind()
	if p.rules.homes {
		st.CurrentRevision, st.UpdateRevision = behind.Metadata.Name, p.revisions[len(p.revisions)-1].Metadata.Name
	}
	held := 0
	done, begun, failure, away := 0, 0, "", []string(nil)
	notReady := ""
	for i := range p.slots {
		s := &p.slots[i]
		st.Wanted++
		if (s.pod != nil || s.next) && (s.place.Node != "" || p.rules.ordered) { // a DaemonSet counts those that have their node
			st.Made++
		}
		if p.rules.homes && s.current(behind.Revision) {
			st.Current++
		}
		if s.begun(p.revision) {
			begun++
		}
		if s.pod != nil && s.placed() && s.current(p.revision) && s.pod.Status.Revision == p.revision && s.pod.Status.Update == nil {
			st.Updated++
		}
		if s.up(p.revision) {
			done++
		} else if p.held(i) && s.serves() {
			done, held = done+1, held+1
		}
		if s.pod != nil && s.placed() && s.pod.Reachable && s.pod.Status.Ready {
			st.Ready++
		}
		if s.placed() && s.pod.Reachable && s.steady {
			st.Available++
		} else if notReady == "" && !(s.pod != nil && s.pod.Status.Phase == models.PodSucceeded) {
			notReady = s.describe()
		}
		if s.pod != nil && s.placed() && !s.pod.Reachable && !s.up(p.revision) {
			away = append(away, s.place.Node)
		}
		if failure == "" {
			failure = s.failure(p.revision)
		}
	}
	p.plan.Progress = Progress{p.revision, done, begun, p.pulled(), p.Now}
	if b := p.Before; b.Revision == p.revision && b.Done >= done && b.Begun >= begun && b.Pulled == p.plan.Progress.Pulled && !b.Since.IsZero() {
		p.plan.Progress.Since = b.Since
	}
	st.Conditions = []models.Condition{available(len(p.slots), int(st.Available), notReady), p.progressing(done, held, failure, away)}
	p.plan.Status = st
}

// describe says why a slot has no ready pod.
func (s *slot) describe() string {
	switch {
	case s.taken != "":
		return fmt.Sprintf("there can be no pod %s: %s has one of that name", s.name, s.taken)
	case s.place.Node == "":
		return fmt.Sprintf("pod %s: %s", s.name, because(s.place.Reason, s.place.Message))
	case s.waits:
		return fmt.Sprintf("pod %s waits until the one before it has ended", s.name)
	case s.pod == nil && !s.next:
		return fmt.Sprintf("pod %s waits for those before it", s.name)
	case s.pod == nil || !s.placed() || s.next:
		return fmt.Sprintf("pod %s begins on node %s", s.name, s.place.Node)
	}
	if u := s.pod.Status.Update; u != nil {
		return fmt.Sprintf("pod %s on node %s: revision %d: %s", s.name, s.place.Node, u.Revision, because(cmp.Or(u.Reason, "under way"), u.Message))
	}
	if s.pod.Status.Ready && !s.steady {
		return fmt.Sprintf("pod %s on node %s has not been ready for long", s.name, s.place.Node)
	}
	return fmt.Sprintf("pod %s on node %s: %s", s.name, s.place.Node, because(cmp.Or(s.pod.Status.Reason, string(s.pod.Status.Phase)), s.pod.Status.Message))
}

func available(replicas, ready int, notReady string) models.Condition {
	if notReady == "" {
		return models.Condition{Type: "Available", Status: "True", Reason: models.ReasonAllPodsReady}
	}
	return models.Condition{Type: "Available", Status: "False", Reason: models.ReasonPodsNotReady, Message: fmt.Sprintf("%d of %d pods are ready; %s", ready, replicas, notReady)}
}

// pulled says how far images are that are being fetched: over a thin line one takes
// hours, which is no standstill.
func (p *planner) pulled() string {
	var all []string
	for i := range p.slots {
		s := &p.slots[i]
		if s.pod == nil || !s.placed() || !s.pod.Reachable {
			continue
		}
		message := s.pod.Status.Message
		if u := s.pod.Status.Update; u != nil {
			message = u.Message
		}
		if _, how := models.PullingImage(message); strings.HasPrefix(how, "(") { // it waits
			continue
		} else if how != "" {
			how, _, _ = strings.Cut(how, " (")
			all = append(all, s.name+" "+how)
		}
	}
	return strings.Join(all, ", ")
}

// namesShown bounds the nodes that a message names.
const namesShown = 10

func (p *planner) progressing(done, held int, failure string, away []string) models.Condition {
	c := models.Condition{Type: "Progressing", Status: "True"}
	left := len(p.slots) - done
	switch {
	case left == 0 && held > 0:
		c.Reason, c.Message = models.ReasonRolloutComplete, fmt.Sprintf("%d of %d pods are at revision %d; the others stay at theirs, as updateStrategy says", done-held, len(p.slots), p.revision)
	case left == 0:
		c.Reason, c.Message = models.ReasonRolloutComplete, fmt.Sprintf("all pods are at revision %d", p.revision)
	case failure != "":
		c.Status, c.Reason = "False", models.ReasonRolloutFailed
		c.Message = fmt.Sprintf("revision %d: %s", p.revision, failure)
	case left == len(away):
		slices.Sort(away)
		away = slices.Compact(away)
		if more := len(away) - namesShown; more > 0 {
			away = append(away[:namesShown], fmt.Sprintf("and %d more", more))
		}
		c.Reason = models.ReasonWaitingForNodes
		c.Message = fmt.Sprintf("revision %d: %d of %d pods are up, the others wait for nodes that are not connected: %s", p.revision, done, len(p.slots), strings.Join(away, ", "))
	case p.Now.Sub(p.plan.Progress.Since) >= ProgressDeadline+p.rules.minReady:
		c.Status, c.Reason = "False", models.ReasonDeadlineExceeded
		c.Message = fmt.Sprintf("revision %d: no step forward for %s, %d of %d pods are up; %s", p.revision, ProgressDeadline, done, len(p.slots), p.firstNotUp())
	default:
		c.Reason = models.ReasonRollingOut
		c.Message = fmt.Sprintf("revision %d: %d of %d pods are up; next %s", p.revision, done, len(p.slots), p.firstNotUp())
	}
	return c
}

// firstNotUp describes the pod that the rollout waits for.
func (p *planner) firstNotUp() string {
	var waits *slot
	for i := range p.slots {
		s := &p.slots[i]
		if s.up(p.revision) {
			continue
		}
		if s.begun(p.revision) {
			return s.describe()
		}
		if waits == nil {
			waits = s
		}
	}
	if waits == nil {
		return "none"
	}
	return waits.describe()
}
