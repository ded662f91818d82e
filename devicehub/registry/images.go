package registry

import "github.com/whimbrel-edge/whimbrel/models"

// RunsImage reports whether a node is to run a container with this image.
func (r *Registry) RunsImage(node, image string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, e := range r.pods[node] {
		if p, ok := e.object.(*models.Pod); ok {
			for i := range p.Spec.Containers {
				if p.Spec.Containers[i].Image == image {
					return true
				}
			}
		}
	}
	return false
}

// ImagesNamed returns the images that templates of apps name, those of revisions
// that a rollout could go back to and of pods too.
func (r *Registry) ImagesNamed() (names []string) {
	add := func(s *models.PodSpec) {
		for i := range s.Containers {
			names = append(names, s.Containers[i].Image)
		}
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, e := range r.objects {
		switch o := e.object.(type) {
		case *models.Pod:
			add(&o.Spec)
		case models.Workload:
			add(&o.PodTemplate().Spec)
		case *models.ControllerRevision:
			add(&o.Data.Spec.Template.Spec)
		}
	}
	return names
}
