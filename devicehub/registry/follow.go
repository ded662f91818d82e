package registry

import (
	"encoding/json"
	"slices"
	"strings"
	"sync"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/twin"
)

// Item is one piece of the state that a node is to hold.
type Item struct {
	Kind       string // Secret, DeviceModel, Device, Desired, Pod, ConfigMap, Service
	Namespace  string
	Name       string
	UID        string // of the object; of the device, for Desired
	Revision   uint64
	Assignment uint64 // of a Device
	JSON       []byte // nil in a Wanted list
}

// Ref names an Item.
type Ref struct{ Kind, Namespace, Name string }

// Follower hears which items of one node changed. It holds at most one entry
// for each item, so it is bounded by what the node serves.
type Follower struct {
	r    *Registry
	node string
	c    chan struct{} // one slot

	mu    sync.Mutex
	dirty map[Ref]struct{}
}

// Follow starts to follow a node. Close ends it.
func (r *Registry) Follow(node string) *Follower {
	f := &Follower{r: r, node: node, c: make(chan struct{}, 1), dirty: map[Ref]struct{}{}}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.follower[node] == nil {
		r.follower[node] = map[*Follower]struct{}{}
	}
	r.follower[node][f] = struct{}{}
	return f
}

// Close ends the following.
func (f *Follower) Close() {
	f.r.mu.Lock()
	defer f.r.mu.Unlock()
	delete(f.r.follower[f.node], f)
	if len(f.r.follower[f.node]) == 0 {
		delete(f.r.follower, f.node)
	}
}

// Changed receives when Take has something.
func (f *Follower) Changed() <-chan struct{} { return f.c }

// Take returns the items that changed since the last Take, in sending order.
func (f *Follower) Take() []Ref {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]Ref, 0, len(f.dirty))
	for ref := range f.dirty {
		out = append(out, ref)
	}
	clear(f.dirty)
	slices.SortFunc(out, func(a, b Ref) int { return compareItems(a.Kind, a.Namespace, a.Name, b.Kind, b.Namespace, b.Name) })
	return out
}

// itemOrder sends secrets first, models before their devices, devices before
// their desired values, and what pods use before the pods.
var itemOrder = map[string]int{"Secret": 0, "DeviceModel": 1, "Device": 2, "Desired": 3, "ConfigMap": 4, "Service": 5, "Pod": 6, "Route": 7}

func compareItems(aKind, aNS, aName, bKind, bNS, bName string) int {
	if d := itemOrder[aKind] - itemOrder[bKind]; d != 0 {
		return d
	}
	if c := strings.Compare(aNS, bNS); c != 0 {
		return c
	}
	return strings.Compare(aName, bName)
}

// tellFollowersLocked marks what a change means for the nodes that hold it.
// r.mu is held, and the maps are still as before the change.
func (r *Registry) tellFollowersLocked(c change) {
	mark := func(node string, refs ...Ref) {
		for f := range r.follower[node] {
			f.mu.Lock()
			for _, ref := range refs {
				f.dirty[ref] = struct{}{}
			}
			f.mu.Unlock()
			select {
			case f.c <- struct{}{}:
			default:
			}
		}
	}
	if c.desired != nil {
		if e := r.byUID[c.deviceUID]; e != nil && !c.quiet {
			d := e.object.(*models.Device)
			mark(d.Spec.Node, Ref{"Desired", d.Metadata.Namespace, d.Metadata.Name})
		}
		return
	}
	if c.quiet {
		return // what the node holds is the same; the model tells it the rest
	}
	r.routeChangedLocked(c, mark)
	switch o := c.entry.object.(type) {
	case *models.Secret:
		key := models.KeyOf(o)
		for node := range r.follower {
			if r.needsLocked(node, key) {
				mark(node, refOf(key))
			}
		}
	case *models.DeviceModel:
		key := models.KeyOf(o)
		nodes := map[string]bool{}
		for uid := range r.byModel[key] {
			nodes[r.byUID[uid].object.(*models.Device).Spec.Node] = true
		}
		for node := range nodes {
			mark(node, Ref{"DeviceModel", key.Namespace, key.Name})
		}
	case *models.Device:
		m := o.Metadata
		refs := []Ref{{"Device", m.Namespace, m.Name}, {"Desired", m.Namespace, m.Name}, {"DeviceModel", m.Namespace, o.Spec.Model}}
		for _, key := range c.entry.secrets {
			refs = append(refs, refOf(key))
		}
		if c.before != nil {
			for _, key := range c.before.secrets {
				refs = append(refs, refOf(key))
			}
			before := c.before.object.(*models.Device)
			if before.Spec.Model != o.Spec.Model {
				refs = append(refs, Ref{"DeviceModel", m.Namespace, before.Spec.Model})
			}
			if before.Spec.Node != o.Spec.Node {
				mark(before.Spec.Node, refs...)
			}
		}
		mark(o.Spec.Node, refs...)
	default:
		r.workloadChangedLocked(c, mark)
	}
}

// Wanted lists everything a node is to hold, in sending order, without bodies.
func (r *Registry) Wanted(node string) []Item {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var out []Item
	models_ := map[models.Key]bool{}
	for uid := range r.byNode[node] {
		e := r.byUID[uid]
		d := e.object.(*models.Device)
		out = append(out, Item{Kind: "Device", Namespace: d.Metadata.Namespace, Name: d.Metadata.Name, UID: uid,
			Revision: uint64(e.revision), Assignment: e.assignment})
		if desired, ok := r.desired[uid]; ok {
			out = append(out, Item{Kind: "Desired", Namespace: d.Metadata.Namespace, Name: d.Metadata.Name, UID: uid, Revision: uint64(desired.revision)})
		}
		if key := modelKey(d); !models_[key] && r.objects[key] != nil {
			models_[key] = true
			me := r.objects[key]
			out = append(out, Item{Kind: "DeviceModel", Namespace: key.Namespace, Name: key.Name, UID: me.object.Meta().UID, Revision: uint64(me.revision)})
		}
	}
	out = append(out, r.wantedWorkloadsLocked(node)...)
	out = append(out, r.wantedRoutesLocked(node)...)
	secrets := map[models.Key]bool{}
	for e := range r.runsLocked(node) {
		for _, key := range e.secrets {
			if s := r.objects[key]; s != nil && !secrets[key] {
				secrets[key] = true
				out = append(out, Item{Kind: key.Kind, Namespace: key.Namespace, Name: key.Name, UID: s.object.Meta().UID, Revision: uint64(s.revision)})
			}
		}
	}
	slices.SortFunc(out, func(a, b Item) int { return compareItems(a.Kind, a.Namespace, a.Name, b.Kind, b.Namespace, b.Name) })
	return out
}

// servesLocked reports whether a node has a device of a model.
func (r *Registry) servesLocked(node string, model models.Key) bool {
	a, b := r.byNode[node], r.byModel[model]
	if len(b) < len(a) {
		a, b = b, a
	}
	for uid := range a {
		if b[uid] {
			return true
		}
	}
	return false
}

// Item returns one item with its body if the node is to hold it.
func (r *Registry) Item(node string, ref Ref) (Item, bool) {
	item, desired, to, ok := r.item(node, ref)
	if !ok || ref.Kind != "Desired" {
		return item, ok
	}
	text, err := json.Marshal(r.forEdge(item.UID, desired, to))
	if err != nil { // it was encoded before, to be stored
		r.log.Error("encode desired values", "device", ref.Name, "error", err)
		return item, false
	}
	item.JSON = text
	return item, true
}

// item returns one item, and for desired values without a body: instead with whom
// they are handed to.
func (r *Registry) item(node string, ref Ref) (_ Item, _ twin.Desired, to string, ok bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	item := Item{Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name}
	if key := models.Key(ref); ref.Kind == "Secret" {
		e := r.objects[key]
		if e == nil || !r.needsLocked(node, key) {
			return item, twin.Desired{}, "", false
		}
		item.UID, item.Revision, item.JSON = e.object.Meta().UID, uint64(e.revision), e.json
		return item, twin.Desired{}, "", true
	}
	if r.workloadWantedLocked(node, ref) {
		e := r.objects[models.Key{Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name}]
		item.UID, item.Revision, item.JSON = e.object.Meta().UID, uint64(e.revision), e.json
		return item, twin.Desired{}, "", true
	}
	if ref.Kind == "DeviceModel" {
		key := models.Key{Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name}
		e := r.objects[key]
		if e == nil {
			return item, twin.Desired{}, "", false
		}
		if r.servesLocked(node, key) {
			item.UID, item.Revision, item.JSON = e.object.Meta().UID, uint64(e.revision), e.json
			return item, twin.Desired{}, "", true
		}
		return item, twin.Desired{}, "", false
	}
	if ref.Kind == "Route" {
		item, ok := r.routeItemLocked(node, models.Key{Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name})
		return item, twin.Desired{}, "", ok
	}
	if ref.Kind != "Device" && ref.Kind != "Desired" {
		return item, twin.Desired{}, "", false
	}
	e := r.objects[models.Key{Kind: "Device", Namespace: ref.Namespace, Name: ref.Name}]
	if e == nil || e.object.(*models.Device).Spec.Node != node {
		return item, twin.Desired{}, "", false
	}
	item.UID = e.object.Meta().UID
	if ref.Kind == "Device" {
		item.Revision, item.Assignment, item.JSON = uint64(e.revision), e.assignment, e.json
		return item, twin.Desired{}, "", true
	}
	desired, ok := r.desired[item.UID]
	item.Revision = uint64(desired.revision)
	return item, desired.desired, r.holderLocked(e), ok
}

// forEdge writes expiries as the time that is left, since clocks differ, and
// says what became of writes: an edge that has never heard of one, because it
// lost its disk or another served the device then, must not send it once more.
// Of what nobody knows what became, it says so. to is whom it is for.
func (r *Registry) forEdge(uid string, d twin.Desired, to string) twin.Desired {
	out, now := d.Clone(), r.now()
	for name, v := range out.Properties {
		if v.Expires != nil {
			v.ExpiresInMS = max(v.Expires.Sub(now).Milliseconds(), 1)
			v.Expires = nil
		}
		if r.statuses != nil && !v.Value.IsNull() {
			if state := r.statuses.WriteState(uid, name, v.ID); state.Final() {
				v.Settled = state
			}
		}
		if v.Given != "" && v.Given != to && v.Settled == "" {
			v.Hidden, v.Settled = true, twin.Unknown // the latter for an edge that does not know the former
		}
		v.Given = ""
		out.Properties[name] = v
	}
	return out
}
