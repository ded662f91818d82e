package registry

import (
	"fmt"
	"iter"

	"github.com/whimbrel-edge/whimbrel/models"
)

// secretsOf returns the Secrets that an object refers to: whoever runs the
// object needs them.
func secretsOf(o models.Object) (keys []models.Key) {
	names := map[string]bool{}
	switch o := o.(type) {
	case *models.Device:
		for _, ref := range o.SecretRefs() {
			names[ref.Secret] = true
		}
	case *models.Pod:
		_, names = o.Spec.References()
	case *models.Route:
		// What headersFrom names stays at the hub, which makes the requests.
		for _, b := range []*models.RouteBroker{o.Spec.From.Broker, o.Spec.To.Broker} {
			if b == nil {
				continue
			}
			for _, ref := range b.Secrets() {
				names[ref.Secret] = true
			}
		}
	}
	for name := range names {
		keys = append(keys, models.Key{Kind: "Secret", Namespace: o.Meta().Namespace, Name: name})
	}
	return keys
}

// runsLocked yields what a node is to run, and so all that can make it need a
// Secret.
func (r *Registry) runsLocked(node string) iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		for uid := range r.byNode[node] {
			if !yield(r.byUID[uid]) {
				return
			}
		}
		for _, pod := range r.pods[node] {
			if !yield(pod) {
				return
			}
		}
		for _, route := range r.places["Route"] {
			if r.takesRouteLocked(node, route) && !yield(route) {
				return
			}
		}
	}
}

// needsLocked reports whether a node needs a Secret.
func (r *Registry) needsLocked(node string, secret models.Key) bool {
	for e := range r.runsLocked(node) {
		for _, key := range e.secrets {
			if key == secret {
				return true
			}
		}
	}
	return false
}

// secretCondition says whether the Secrets are there that a device refers to; ok
// is false when it refers to none.
func (r *Registry) secretCondition(d *models.Device) (c models.Condition, ok bool) {
	refs := d.SecretRefs()
	if len(refs) == 0 {
		return c, false
	}
	c = models.Condition{Type: "SecretsAvailable", Status: "True", Reason: "SecretsFound", LastTransitionTime: *d.Metadata.CreationTimestamp}
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, ref := range refs {
		e := r.objects[models.Key{Kind: "Secret", Namespace: d.Metadata.Namespace, Name: ref.Secret}]
		if e == nil {
			c.Status, c.Reason = "False", "SecretNotFound"
			c.Message = fmt.Sprintf("%s refers to Secret %s, which is not there", ref.Field, ref.Secret)
			return c, true
		}
		secret := e.object.(*models.Secret)
		if secret.Metadata.CreationTimestamp.After(c.LastTransitionTime) {
			c.LastTransitionTime = *secret.Metadata.CreationTimestamp
		}
		if _, has := secret.Data[ref.Key]; !has {
			c.Status, c.Reason = "False", "SecretKeyNotFound"
			c.Message = fmt.Sprintf("%s refers to key %s of Secret %s, which has no such key", ref.Field, ref.Key, ref.Secret)
			return c, true
		}
	}
	return c, true
}
