package workload

import (
	"cmp"
	"slices"

	"github.com/whimbrel-edge/whimbrel/models"
)

// Backend is a pod that can be asked: it runs and is ready.
type Backend struct {
	Pod   string
	Host  string           // where its ports are, as this machine finds them
	Ports map[string]int32 // of its containers, by name
}

// Backends returns the ready pods of a namespace that have all the labels, by name.
func (m *Manager) Backends(namespace string, selector map[string]string) (out []Backend) {
	m.mu.Lock()
	all := m.allSlots()
	m.mu.Unlock()
	for _, s := range all {
		if s.key.namespace != namespace {
			continue
		}
		if b, ok := s.backend(selector); ok {
			out = append(out, b)
		}
	}
	slices.SortFunc(out, func(a, b Backend) int {
		if a.Pod < b.Pod {
			return -1
		}
		return 1
	})
	return out
}

// Pods returns all pods by namespace and name: who they are, the names and images of
// their containers, and how they do.
func (m *Manager) Pods() (out []*models.Pod) {
	m.mu.Lock()
	all := m.allSlots()
	m.mu.Unlock()
	for _, s := range all {
		status, uid, ok := s.status()
		s.mu.Lock()
		from := s.wanted
		if g := s.serving(); from == nil && g != nil {
			from = &g.Pod
		}
		s.mu.Unlock()
		if !ok || from == nil {
			continue
		}
		p := &models.Pod{TypeMeta: models.TypeMeta{APIVersion: "v1", Kind: "Pod"}, Status: &status, Spec: models.PodSpec{NodeName: m.cfg.Node},
			Metadata: models.ObjectMeta{Namespace: s.key.namespace, Name: s.key.name, UID: uid, Labels: from.Metadata.Labels, Annotations: from.Metadata.Annotations, OwnerReferences: from.Metadata.OwnerReferences}}
		for _, c := range from.Spec.Containers {
			p.Spec.Containers = append(p.Spec.Containers, models.Container{Name: c.Name, Image: c.Image})
		}
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b *models.Pod) int {
		return cmp.Or(cmp.Compare(a.Metadata.Namespace, b.Metadata.Namespace), cmp.Compare(a.Metadata.Name, b.Metadata.Name))
	})
	return out
}

// backend is the generation that serves, or while that is not ready another one
// that is.
func (s *slot) backend(selector map[string]string) (Backend, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away || s.wanted == nil {
		return Backend{}, false
	}
	gens := slices.Clone(s.gens)
	slices.Reverse(gens)
	if g := s.serving(); g != nil {
		gens = append([]*generation{g}, gens...)
	}
	for _, g := range gens {
		if g.readySince.IsZero() || g.Suspended || g.volumes.spec == nil || !models.MatchLabels(selector, g.Pod.Metadata.Labels) {
			continue
		}
		b := Backend{Pod: s.key.name, Host: s.host(g), Ports: map[string]int32{}}
		if b.Host == "" {
			continue
		}
		for _, c := range g.spec().Containers {
			for _, p := range c.Ports {
				if p.Name != "" {
					b.Ports[p.Name] = p.ContainerPort
				}
			}
		}
		return b, true
	}
	return Backend{}, false
}
