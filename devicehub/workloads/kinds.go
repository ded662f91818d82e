package workloads

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/placement"
	"github.com/whimbrel-edge/whimbrel/models"
)

// rules is what the kinds of apps differ in, besides which pods there are to be.
type rules struct {
	atOnce   models.PodCount // so many pods change at a time; one at least
	minReady time.Duration   // a pod counts when it has been ready for so long
	kept     int             // revisions before the newest
	onDelete bool            // pods change only when they are deleted

	ordered   bool // pods change from the highest number down, and one that is not up holds up those below it
	oneByOne  bool // pods are made when those before them are up, and go from the highest down
	homes     bool // pods are where they were first, even after they were gone
	partition int  // pods with smaller numbers stay at their revision
}

func rulesOf(app models.Workload) rules {
	r := rules{atOnce: models.PodCount{Number: 1}, kept: models.RevisionsKept}
	switch o := app.(type) {
	case *models.DaemonSet:
		u := o.Spec.UpdateStrategy
		r.onDelete = u.Type == models.OnDelete
		if u.RollingUpdate != nil && u.RollingUpdate.MaxUnavailable != nil {
			r.atOnce = *u.RollingUpdate.MaxUnavailable
		}
		r.minReady, r.kept = time.Duration(o.Spec.MinReadySeconds)*time.Second, int(*o.Spec.RevisionHistoryLimit)
	case *models.StatefulSet:
		u := o.Spec.UpdateStrategy
		r.onDelete, r.ordered, r.homes, r.oneByOne = u.Type == models.OnDelete, true, true, o.Spec.PodManagementPolicy == models.OrderedReady
		if u.RollingUpdate != nil {
			r.partition = int(u.RollingUpdate.Partition)
		}
		r.minReady, r.kept = time.Duration(o.Spec.MinReadySeconds)*time.Second, int(*o.Spec.RevisionHistoryLimit)
	}
	return r
}

// wanted names the pods that there are to be, and returns what placement is to know of
// where they may be.
func (p *planner) wanted(pods map[string]*Pod) placement.Request {
	meta := p.App.Meta()
	r := placement.Request{App: meta.Namespace + "/" + meta.Name, Spec: &p.App.PodTemplate().Spec, Bound: map[int]string{}, Home: map[int]string{},
		NearNode: p.NearNode, NearTrouble: p.NearTrouble}
	if _, is := p.App.(*models.DaemonSet); is {
		for i := range p.Cluster.Nodes {
			if n := &p.Cluster.Nodes[i]; placement.Selects(r.Spec, n.Labels) {
				r.Home[len(p.slots)] = n.Name
				p.slots = append(p.slots, slot{name: p.daemonName(n.Name, pods)})
			}
		}
	} else {
		p.slots = make([]slot, p.App.Standing().Wanted)
		for i := range p.slots {
			s := &p.slots[i]
			s.name = models.PodName(meta.Name, i)
			if s.taken = p.taken(s.name); s.taken == "" && i < len(p.homes) {
				r.Home[i] = p.homes[i]
			}
		}
	}
	r.Slots = len(p.slots)
	for i := range p.slots {
		s := &p.slots[i]
		if s.pod = pods[s.name]; s.pod != nil && s.pod.Spec.NodeName != "" {
			r.Bound[i] = s.pod.Spec.NodeName
			if p.rules.homes {
				r.Home[i] = r.Bound[i]
			}
		}
	}
	return r
}

// taken returns which other app has a pod of a name, "" for none.
func (p *planner) taken(name string) string {
	if p.Taken == nil {
		return ""
	}
	return p.Taken(name)
}

// daemonName is the name of the pod on a node: that which it has, else the plain one
// unless that is another app's pod's.
func (p *planner) daemonName(node string, pods map[string]*Pod) string {
	set := p.App.Meta().Name
	plain, apart := models.DaemonPodName(set, node), models.DaemonPodNameApart(set, node)
	if pods[plain] == nil && (pods[apart] != nil || p.taken(plain) != "") {
		return apart
	}
	return plain
}

// surplus returns those of the pods that no slot is for that go now. Of an app whose
// pods go one by one it is the one with the highest number, when the one before has
// ended.
func (p *planner) surplus(pods map[string]*Pod) []string {
	names := slices.SortedFunc(maps.Keys(pods), func(a, b string) int { return cmp.Or(cmp.Compare(number(b), number(a)), strings.Compare(a, b)) })
	if p.rules.oneByOne {
		for _, own := range p.Ending {
			if own {
				return nil
			}
		}
		return names[:min(1, len(names))]
	}
	return names
}

// number is what a pod's name ends with.
func number(name string) int {
	n, err := strconv.Atoi(name[strings.LastIndexByte(name, '-')+1:])
	if err != nil {
		return -1
	}
	return n
}

// turnDown returns the slot of an ordered app that gets the current revision now: the
// highest that does not have it, when all above are up.
func (p *planner) turnDown(waiting []*slot) []*slot {
	for i := len(p.slots) - 1; i >= 0; i-- {
		s := &p.slots[i]
		switch {
		case slices.Contains(waiting, s):
			return []*slot{s}
		case s.pod == nil && !s.next, p.held(i): // not yet made, or stays as it is
		case s.next || !s.up(p.revision):
			return nil
		}
	}
	return nil
}

// held reports whether a slot's pod stays at an older revision though it could change.
func (p *planner) held(i int) bool {
	s := &p.slots[i]
	return (p.rules.onDelete || i < p.rules.partition) && s.placed() && !s.current(p.revision) && !(s.next && s.target == p.revision)
}

// behind is the revision of which a pod is made that stays behind: the one that all
// pods were at last. There is none before the first rollout is through.
func (p *planner) behind() *models.ControllerRevision {
	for _, r := range p.revisions {
		if r.Metadata.Annotations[models.AnnotationCurrent] != "" {
			return r
		}
	}
	return p.revisions[len(p.revisions)-1]
}

// readHomes reads where pods of the app are at home.
func (p *planner) readHomes() {
	if !p.rules.homes {
		return
	}
	var newest int64
	for _, r := range p.Revisions { // those that the plan drops, too
		if text := r.Metadata.Annotations[models.AnnotationHomes]; text != "" && r.Revision > newest {
			p.homes, newest = nil, r.Revision
			_ = json.Unmarshal([]byte(text), &p.homes) // the hub's own
		}
	}
}

// note writes down where pods are at home, and which revision all of them are at.
func (p *planner) note() {
	if !p.rules.homes {
		return
	}
	through := true
	for i := range p.slots {
		s := &p.slots[i]
		if node := s.place.Node; node != "" && (s.next || s.placed()) {
			for len(p.homes) <= i {
				p.homes = append(p.homes, "")
			}
			p.homes[i] = node
		}
		through = through && s.up(p.revision)
	}
	text, _ := json.Marshal(p.homes) // its types always encode
	newest := p.revisions[len(p.revisions)-1]
	for _, r := range p.revisions {
		want := maps.Clone(r.Metadata.Annotations)
		if want == nil {
			want = map[string]string{}
		}
		if r != newest {
			delete(want, models.AnnotationHomes)
		} else if len(p.homes) > 0 {
			want[models.AnnotationHomes] = string(text)
		}
		if through && r == newest {
			want[models.AnnotationCurrent] = "true"
		} else if through {
			delete(want, models.AnnotationCurrent)
		}
		if maps.Equal(want, r.Metadata.Annotations) {
			continue
		}
		next := *r
		next.Metadata.Annotations = want
		at := slices.IndexFunc(p.plan.Put, func(o models.Object) bool { return o == models.Object(r) })
		if at >= 0 {
			p.plan.Put[at] = &next
		} else {
			p.plan.Put = append(p.plan.Put, &next)
		}
	}
}
