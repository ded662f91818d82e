package workloads

import (
	"maps"
	"slices"

	"github.com/whimbrel-edge/whimbrel/devicehub/placement"
	"github.com/whimbrel-edge/whimbrel/models"
)

// seen is what the loop has seen of the registry, by what it asks for.
type seen struct {
	apps      map[models.Key]models.Workload
	live      map[string]bool                                  // uids of apps
	near      map[models.Key]map[models.Key]bool               // Device to the apps near it
	pods      map[string]map[string]*models.Pod                // owner's uid to its pods by name
	revisions map[string]map[string]*models.ControllerRevision // the same
	byKey     map[models.Key]models.Object                     // pods and revisions
	ending    map[string]map[string]*models.Pod                // by namespace and name: pods that their nodes are to end; none of pods
	podsOn    map[string]map[models.Key]bool                   // node to its pods
	load      map[string]int                                   // node to its number of pods
	ports     map[string]map[placement.HostPort]placement.Owner
	nodes     map[string]*models.Node
	list      []placement.Node // made of nodes and what their sessions say; nil: to be made
}

func newSeen() *seen {
	return &seen{apps: map[models.Key]models.Workload{}, live: map[string]bool{}, near: map[models.Key]map[models.Key]bool{}, pods: map[string]map[string]*models.Pod{},
		revisions: map[string]map[string]*models.ControllerRevision{}, byKey: map[models.Key]models.Object{}, ending: map[string]map[string]*models.Pod{}, podsOn: map[string]map[models.Key]bool{}, load: map[string]int{},
		ports: map[string]map[placement.HostPort]placement.Owner{}, nodes: map[string]*models.Node{}}
}

func (s *seen) nodesChanged() { s.list = nil }

// ownerOf returns the uid of the app that an object was made for.
func ownerOf(o models.Object) string {
	if refs := o.Meta().OwnerReferences; len(refs) > 0 {
		return refs[0].UID
	}
	return ""
}

// appOf returns the app that an object is, or was made for.
func appOf(o models.Object) models.Key {
	key := models.KeyOf(o)
	if refs := o.Meta().OwnerReferences; len(refs) > 0 {
		key.Kind, key.Name = refs[0].Kind, refs[0].Name
	}
	return key
}

// takenFrom returns a function that says which other app than one has a pod of a name.
// One that is being ended is nobody's any more.
func (s *seen) takenFrom(app models.Workload) func(string) string {
	return func(name string) string {
		o := s.byKey[models.Key{Kind: "Pod", Namespace: app.Meta().Namespace, Name: name}]
		if o == nil || ownerOf(o) == app.Meta().UID || o.Meta().DeletionTimestamp != nil {
			return ""
		}
		owner := appOf(o)
		return owner.Kind + " " + owner.Name
	}
}

func (s *seen) allKeys() map[models.Key]bool {
	out := make(map[models.Key]bool, len(s.apps))
	for key := range s.apps {
		out[key] = true
	}
	return out
}

func (s *seen) podUIDs() map[string]bool {
	out := make(map[string]bool, len(s.byKey))
	for _, o := range s.byKey {
		out[o.Meta().UID] = true
	}
	return out
}

// object returns what has been seen, nil when nothing has.
func (s *seen) object(key models.Key) models.Object {
	switch key.Kind {
	case "Deployment", "DaemonSet", "StatefulSet":
		if d := s.apps[key]; d != nil {
			return d
		}
	case "Pod", "ControllerRevision":
		return s.byKey[key]
	case "Node":
		if n := s.nodes[key.Name]; n != nil {
			return n
		}
	}
	return nil
}

// orphans returns what was made for apps that are gone, be it that one of
// the same name has come.
func (s *seen) orphans() (keys []models.Key) {
	for owner, pods := range s.pods {
		if !s.live[owner] {
			for _, p := range pods {
				keys = append(keys, models.KeyOf(p))
			}
		}
	}
	for owner, revisions := range s.revisions {
		if !s.live[owner] {
			for _, r := range revisions {
				keys = append(keys, models.KeyOf(r))
			}
		}
	}
	return keys
}

func (s *seen) set(o models.Object) {
	key := models.KeyOf(o)
	s.drop(key)
	m := o.Meta()
	switch o := o.(type) {
	case models.Workload:
		s.apps[key], s.live[m.UID] = o, true
		if name := o.PodTemplate().Spec.NearDevice; name != "" {
			into(s.near, models.Key{Kind: "Device", Namespace: m.Namespace, Name: name})[key] = true
		}
	case *models.ControllerRevision:
		s.byKey[key] = o
		into(s.revisions, ownerOf(o))[m.Name] = o
	case *models.Pod:
		s.byKey[key] = o
		if m.DeletionTimestamp != nil {
			into(s.ending, m.Namespace)[m.Name] = o
		} else {
			into(s.pods, ownerOf(o))[m.Name] = o
		}
		if node := o.Spec.NodeName; node != "" {
			into(s.podsOn, node)[key] = true
			s.load[node]++
			owner := appOf(o)
			for _, port := range placement.HostPorts(&o.Spec) {
				into(s.ports, node)[port] = placement.Owner{App: owner.Namespace + "/" + owner.Name, Pod: m.Namespace + "/" + m.Name}
			}
		}
	case *models.Node:
		s.nodes[m.Name] = o
		s.nodesChanged()
	}
}

func (s *seen) drop(key models.Key) {
	before := s.object(key)
	if before == nil {
		return
	}
	m := before.Meta()
	switch o := before.(type) {
	case models.Workload:
		delete(s.apps, key)
		delete(s.live, m.UID)
		outOf(s.near, models.Key{Kind: "Device", Namespace: m.Namespace, Name: o.PodTemplate().Spec.NearDevice}, key)
	case *models.ControllerRevision:
		delete(s.byKey, key)
		outOf(s.revisions, ownerOf(o), m.Name)
	case *models.Pod:
		delete(s.byKey, key)
		outOf(s.ending, m.Namespace, m.Name)
		outOf(s.pods, ownerOf(o), m.Name)
		if node := o.Spec.NodeName; node != "" {
			outOf(s.podsOn, node, key)
			if s.load[node]--; s.load[node] == 0 {
				delete(s.load, node)
			}
			name := m.Namespace + "/" + m.Name
			for port, owner := range maps.Clone(s.ports[node]) {
				if owner.Pod == name {
					outOf(s.ports, node, port)
				}
			}
		}
	case *models.Node:
		delete(s.nodes, m.Name)
		s.nodesChanged()
	}
}

// into returns the inner map of a key, made when there is none.
func into[A, B comparable, V any](m map[A]map[B]V, a A) map[B]V {
	if m[a] == nil {
		m[a] = map[B]V{}
	}
	return m[a]
}

// outOf takes an entry out of an inner map, and the inner map when it was the
// last.
func outOf[A, B comparable, V any](m map[A]map[B]V, a A, b B) {
	delete(m[a], b)
	if len(m[a]) == 0 {
		delete(m, a)
	}
}

// sortedPods returns pods in the order of their numbers.
func sortedPods(pods map[string]*models.Pod) []*models.Pod {
	return slices.SortedFunc(maps.Values(pods), func(a, b *models.Pod) int {
		if d := len(a.Metadata.Name) - len(b.Metadata.Name); d != 0 {
			return d
		}
		if a.Metadata.Name < b.Metadata.Name {
			return -1
		}
		return 1
	})
}
