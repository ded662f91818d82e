package registry

import (
	"github.com/whimbrel-edge/whimbrel/models"
)

// A node holds its pods, the ConfigMaps that they name, and the Services of the
// namespaces that they are in. Nothing else of these kinds leaves the hub.

// nodeOf returns the node that is to have an object, "" for none: also for a pod that
// its node is to end.
func nodeOf(o models.Object) string {
	if p, ok := o.(*models.Pod); ok && p.Metadata.DeletionTimestamp == nil {
		return p.Spec.NodeName
	}
	return ""
}

// uses returns what a node must hold for an object that it has.
func uses(o models.Object) (keys []models.Key) {
	p, ok := o.(*models.Pod)
	if !ok {
		return nil
	}
	configMaps, _ := p.Spec.References()
	for name := range configMaps {
		keys = append(keys, models.Key{Kind: "ConfigMap", Namespace: p.Metadata.Namespace, Name: name})
	}
	return keys
}

// indexWorkload and unindexWorkload keep the maps about nodes and what they
// hold. r.mu is held, or r is not shared yet.
func (r *Registry) indexWorkload(e *entry) {
	m := e.object.Meta()
	if _, ok := e.object.(*models.Service); ok {
		if r.services[m.Namespace] == nil {
			r.services[m.Namespace] = map[models.Key]bool{}
		}
		r.services[m.Namespace][models.KeyOf(e.object)] = true
	}
	node := nodeOf(e.object)
	if node == "" {
		return
	}
	if r.pods[node] == nil {
		r.pods[node] = map[string]*entry{}
	}
	r.pods[node][m.UID] = e
	for _, key := range uses(e.object) {
		if r.users[key] == nil {
			r.users[key] = map[string]int{}
		}
		r.users[key][node]++
	}
}

func (r *Registry) unindexWorkload(e *entry) {
	m := e.object.Meta()
	if _, ok := e.object.(*models.Service); ok {
		delete(r.services[m.Namespace], models.KeyOf(e.object))
		if len(r.services[m.Namespace]) == 0 {
			delete(r.services, m.Namespace)
		}
	}
	node := nodeOf(e.object)
	if node == "" {
		return
	}
	delete(r.pods[node], m.UID)
	if len(r.pods[node]) == 0 {
		delete(r.pods, node)
	}
	for _, key := range uses(e.object) {
		if r.users[key][node]--; r.users[key][node] <= 0 {
			delete(r.users[key], node)
		}
		if len(r.users[key]) == 0 {
			delete(r.users, key)
		}
	}
}

func refOf(key models.Key) Ref { return Ref{key.Kind, key.Namespace, key.Name} }

// workloadChangedLocked marks what a change of a pod, or of what pods use, means
// for nodes. r.mu is held, and the maps are still as before the change.
func (r *Registry) workloadChangedLocked(c change, mark func(node string, refs ...Ref)) {
	key := models.KeyOf(c.entry.object)
	switch o := c.entry.object.(type) {
	case *models.Pod:
		mark(o.Spec.NodeName, r.podRefsLocked(o)...)
		if c.before != nil {
			before := c.before.object.(*models.Pod)
			mark(before.Spec.NodeName, r.podRefsLocked(before)...)
		}
	case *models.Service:
		for node := range r.pods {
			if r.hasPodIn(node, key.Namespace) {
				mark(node, refOf(key))
			}
		}
	default:
		for node := range r.users[key] {
			mark(node, refOf(key))
		}
	}
}

// podRefsLocked returns what a node may begin or cease to hold with a pod.
func (r *Registry) podRefsLocked(p *models.Pod) []Ref {
	refs := []Ref{refOf(models.KeyOf(p))}
	for _, key := range uses(p) {
		refs = append(refs, refOf(key))
	}
	for key := range r.services[p.Metadata.Namespace] {
		refs = append(refs, refOf(key))
	}
	for _, key := range secretsOf(p) {
		refs = append(refs, refOf(key))
	}
	return refs
}

func (r *Registry) hasPodIn(node, namespace string) bool {
	for _, e := range r.pods[node] {
		if e.object.Meta().Namespace == namespace {
			return true
		}
	}
	return false
}

// workloadWantedLocked reports whether a node is to hold an item of a kind that
// this file is about.
func (r *Registry) workloadWantedLocked(node string, ref Ref) bool {
	key := models.Key{Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name}
	e := r.objects[key]
	if e == nil {
		return false
	}
	switch e.object.(type) {
	case *models.Pod:
		return nodeOf(e.object) == node && node != ""
	case *models.Service:
		return r.hasPodIn(node, key.Namespace)
	case *models.ConfigMap:
		return r.users[key][node] > 0
	}
	return false
}

// wantedWorkloadsLocked lists what a node is to hold of these kinds.
func (r *Registry) wantedWorkloadsLocked(node string) (out []Item) {
	seen := map[models.Key]bool{}
	list := func(key models.Key) {
		e := r.objects[key]
		if e == nil || seen[key] {
			return
		}
		seen[key] = true
		out = append(out, Item{Kind: key.Kind, Namespace: key.Namespace, Name: key.Name, UID: e.object.Meta().UID, Revision: uint64(e.revision)})
	}
	for _, e := range r.pods[node] {
		list(models.KeyOf(e.object))
		for _, key := range uses(e.object) {
			list(key)
		}
		for key := range r.services[e.object.Meta().Namespace] {
			list(key)
		}
	}
	return out
}
