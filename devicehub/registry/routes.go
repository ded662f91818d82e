package registry

import (
	"encoding/json"
	"slices"
	"sync"

	"github.com/whimbrel-edge/whimbrel/models"
)

// A node holds the routes whose messages it takes, each with what the other
// nodes mean for it: whether the target is the node itself, others, or both. So an
// item of a route is another one when the nodes are, and when the pods of the
// Service are that it goes to.

// indexRoute and unindexRoute keep what routes are decided by. r.mu is held, or
// r is not shared yet.
func (r *Registry) indexRoute(e *entry) {
	switch e.object.(type) {
	case *models.Route, *models.Node, *models.Pod:
		key := models.KeyOf(e.object)
		if r.places[key.Kind] == nil {
			r.places[key.Kind] = map[models.Key]*entry{}
		}
		r.places[key.Kind][key] = e
	}
	switch e.object.(type) {
	case *models.Node, *models.Pod, *models.Service:
		r.placesRevision = max(r.placesRevision, e.revision)
	}
	r.servicesChangedLocked(e)
}

// servicesChangedLocked forgets which pods the Services of a namespace have.
func (r *Registry) servicesChangedLocked(e *entry) {
	switch e.object.(type) {
	case *models.Pod, *models.Service:
		r.servicePods.mu.Lock()
		defer r.servicePods.mu.Unlock()
		delete(r.servicePods.of, e.object.Meta().Namespace)
	}
}

// servicePods is what Services' selectors choose, by namespace and Service: each is
// looked for once after a change. Its lock is taken with Registry.mu held, which
// whoever changes pods holds alone.
type servicePods struct {
	mu sync.Mutex
	of map[string]map[string][]*models.Pod
}

func (r *Registry) unindexRoute(e *entry) {
	key := models.KeyOf(e.object)
	delete(r.places[key.Kind], key)
	r.servicesChangedLocked(e)
}

// routeChangedLocked marks what a change means for the routes that nodes hold.
func (r *Registry) routeChangedLocked(c change, mark func(node string, refs ...Ref)) {
	var refs []Ref
	switch o := c.entry.object.(type) {
	case *models.Route:
		key := models.KeyOf(o)
		refs = []Ref{{key.Kind, key.Namespace, key.Name}}
		for _, e := range []*entry{c.entry, c.before} {
			if e != nil {
				refs = append(refs, secretRefs(e)...)
			}
		}
	case *models.Node, *models.Pod, *models.Service:
		if c.typ == models.Deleted {
			r.placesRevision = max(r.placesRevision, c.revision)
		}
		for key, e := range r.places["Route"] {
			refs = append(append(refs, Ref{key.Kind, key.Namespace, key.Name}), secretRefs(e)...)
		}
	}
	if len(refs) == 0 {
		return
	}
	for node := range r.follower {
		mark(node, refs...)
	}
}

func secretRefs(e *entry) (refs []Ref) {
	for _, key := range e.secrets {
		refs = append(refs, refOf(key))
	}
	return refs
}

// wantedRoutesLocked lists the routes that a node is to hold.
func (r *Registry) wantedRoutesLocked(node string) (out []Item) {
	for key := range r.places["Route"] {
		if item, ok := r.routeItemLocked(node, key); ok {
			item.JSON = nil
			out = append(out, item)
		}
	}
	return out
}

func (r *Registry) labelsLocked(node string) map[string]string {
	if e := r.objects[models.Key{Kind: "Node", Name: node}]; e != nil {
		return e.object.Meta().Labels
	}
	return nil
}

// takesRouteLocked reports whether a node is to hold a route.
func (r *Registry) takesRouteLocked(node string, e *entry) bool {
	return models.MatchLabels(e.object.(*models.Route).Spec.From.NodeSelector, r.labelsLocked(node))
}

// routeItemLocked is a route as a node is to hold it.
func (r *Registry) routeItemLocked(node string, key models.Key) (Item, bool) {
	e := r.places["Route"][key]
	if e == nil {
		return Item{}, false
	}
	if !r.takesRouteLocked(node, e) {
		return Item{}, false
	}
	o, labels := e.object.(*models.Route), r.labelsLocked(node)
	w := models.NodeRoute{Route: *o}
	switch to := &o.Spec.To; {
	case to.HTTP != nil:
		w.Beyond = true
	case to.Broker != nil:
		w.Here = true
	case to.Service != nil:
		w.Here = slices.Contains(r.serviceNodesLocked(key.Namespace, to.Service.Name), node)
		w.Beyond = !w.Here
	case to.MQTT.NodeSelector == nil:
		w.Here = true
	default:
		w.Here = models.MatchLabels(to.MQTT.NodeSelector, labels)
		for k, other := range r.places["Node"] {
			w.Beyond = w.Beyond || k.Name != node && models.MatchLabels(to.MQTT.NodeSelector, other.object.Meta().Labels)
		}
		if !w.Here && !w.Beyond {
			w.Beyond = true // the hub keeps it, and says that no node matches
		}
	}
	text, err := json.Marshal(w)
	if err != nil { // it was encoded before, to be stored
		r.log.Error("encode a route", "route", key.Name, "error", err)
		return Item{}, false
	}
	// Nodes compare revisions for being the same only.
	return Item{Kind: key.Kind, Namespace: key.Namespace, Name: key.Name, UID: o.Metadata.UID, Revision: uint64(max(e.revision, r.placesRevision)), JSON: text}, true
}

// ServiceNodes returns the nodes that have pods of a Service, by name.
func (r *Registry) ServiceNodes(namespace, name string) []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.serviceNodesLocked(namespace, name)
}

func (r *Registry) serviceNodesLocked(namespace, name string) (nodes []string) {
	for _, p := range r.servicePodsLocked(namespace, name) {
		if !slices.Contains(nodes, p.Spec.NodeName) {
			nodes = append(nodes, p.Spec.NodeName)
		}
	}
	slices.Sort(nodes)
	return nodes
}

// ServicePods returns the pods of a Service that have a node, without their status.
// The slice is shared and must not be changed.
func (r *Registry) ServicePods(namespace, name string) []*models.Pod {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.servicePodsLocked(namespace, name)
}

func (r *Registry) servicePodsLocked(namespace, name string) (pods []*models.Pod) {
	e := r.objects[models.Key{Kind: "Service", Namespace: namespace, Name: name}]
	if e == nil {
		return nil
	}
	r.servicePods.mu.Lock()
	defer r.servicePods.mu.Unlock()
	if pods, ok := r.servicePods.of[namespace][name]; ok {
		return pods
	}
	if r.servicePods.of[namespace] == nil {
		r.servicePods.of[namespace] = map[string][]*models.Pod{}
	}
	defer func() { r.servicePods.of[namespace][name] = pods }()
	selector := e.object.(*models.Service).Spec.Selector
	for key, e := range r.places["Pod"] {
		if key.Namespace != namespace {
			continue
		}
		p := e.object.(*models.Pod)
		if nodeOf(p) != "" && models.MatchLabels(selector, p.Metadata.Labels) {
			pods = append(pods, p)
		}
	}
	return pods
}

// RunsPodsOf reports whether a node has a pod of a namespace.
func (r *Registry) RunsPodsOf(node, namespace string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.hasPodIn(node, namespace)
}
