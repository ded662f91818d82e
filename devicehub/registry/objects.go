package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/whimbrel-edge/whimbrel/models"
)

// ETag returns the ETag of a resourceVersion.
func ETag(resourceVersion string) string { return `"` + resourceVersion + `"` }

// matches reports whether an If-Match header value allows a version.
func matches(ifMatch, version string) bool {
	if ifMatch == "" || ifMatch == "*" {
		return true
	}
	for tag := range strings.SplitSeq(ifMatch, ",") {
		if tag = strings.TrimSpace(tag); tag == ETag(version) || tag == version {
			return true
		}
	}
	return false
}

// clone returns a copy of an object that shares nothing.
func clone(o models.Object) models.Object {
	info, _ := models.KindByName(o.Type().Kind)
	c := info.New()
	if text, err := json.Marshal(o); err == nil {
		_ = json.Unmarshal(text, c) // its own text always decodes
	}
	return c
}

// Get returns one object with its status.
func (r *Registry) Get(_ context.Context, key models.Key) (models.Object, error) {
	r.mu.RLock()
	e := r.objects[key]
	r.mu.RUnlock()
	if e == nil {
		return nil, notFound(key)
	}
	return r.withStatus(e), nil
}

func notFound(key models.Key) error { return models.Errorf(models.KindNotFound, "%s not found", key) }

// withStatus returns the object with its status filled in.
func (r *Registry) withStatus(e *entry) models.Object {
	if r.statuses == nil {
		return e.object
	}
	switch o := e.object.(type) {
	case *models.Device:
		shown := *o
		status := *r.statuses.DeviceStatus(o, e.assignment)
		status.Conditions = append(slices.Clone(status.Conditions), r.deviceCondition(o))
		if c, refers := r.secretCondition(o); refers {
			status.Conditions = append(status.Conditions, c)
		}
		if c, disagreed := r.lineCondition(o); disagreed {
			status.Conditions = append(status.Conditions, c)
		}
		shown.Status = &status
		return &shown
	case *models.Node:
		shown := *o
		shown.Status = r.statuses.NodeStatus(o)
		return &shown
	case *models.Mapper:
		shown := *o
		shown.Status = r.statuses.MapperStatus(o)
		return &shown
	case models.Workload, *models.Pod:
		return r.statuses.WorkloadStatus(o)
	case *models.Route:
		shown := *o
		shown.Status = r.statuses.RouteStatus(o)
		return &shown
	}
	return e.object
}

// deviceCondition says whether a node serves a device.
func (r *Registry) deviceCondition(d *models.Device) models.Condition {
	since := *d.Metadata.CreationTimestamp
	if d.Spec.Node == "" {
		return models.Condition{Type: "Assigned", Status: "False", Reason: "NoNode", Message: "spec.node is empty: no node serves the device", LastTransitionTime: since}
	}
	r.mu.RLock()
	_, there := r.objects[models.Key{Kind: "Node", Name: d.Spec.Node}]
	r.mu.RUnlock()
	if !there {
		return models.Condition{Type: "Assigned", Status: "False", Reason: "NodeNotFound", Message: fmt.Sprintf("node %s has not joined", d.Spec.Node), LastTransitionTime: since}
	}
	return models.Condition{Type: "Assigned", Status: "True", Reason: "NodeFound", LastTransitionTime: since}
}

// List returns the objects of a kind in the order of namespace and name.
func (r *Registry) List(_ context.Context, o models.ListOptions) (models.List, error) {
	list := models.List{Items: []models.Object{}}
	revision, after, err := decodeContinue(o.Continue)
	if err != nil {
		return list, err
	}
	entries, now := r.selected(o)
	if after == nil {
		revision = now
	}
	list.ResourceVersion = strconv.FormatInt(revision, 10)
	for _, e := range entries {
		key := models.KeyOf(e.object)
		if after != nil && comparePlace(key, *after) <= 0 {
			continue
		}
		if o.Limit > 0 && len(list.Items) == o.Limit {
			list.Continue = encodeContinue(revision, models.KeyOf(list.Items[len(list.Items)-1]))
			break
		}
		list.Items = append(list.Items, r.withStatus(e))
	}
	return list, nil
}

// selected returns the chosen entries in order, and the revision they are of.
func (r *Registry) selected(o models.ListOptions) ([]*entry, int64) {
	type placed struct {
		key models.Key
		e   *entry
	}
	r.mu.RLock()
	var chosen []placed
	for key, e := range r.objects {
		if inScope(key, o) && o.Selector.Matches(e.object.Meta().Labels) {
			chosen = append(chosen, placed{key, e})
		}
	}
	revision := r.revision
	r.mu.RUnlock()
	// Changes need not wait for this.
	slices.SortFunc(chosen, func(a, b placed) int { return comparePlace(a.key, b.key) })
	out := make([]*entry, len(chosen))
	for i := range chosen {
		out[i] = chosen[i].e
	}
	return out, revision
}

func comparePlace(a, b models.Key) int {
	if c := strings.Compare(a.Namespace, b.Namespace); c != 0 {
		return c
	}
	return strings.Compare(a.Name, b.Name)
}

// A continue token is the revision of the first page, from where a watch misses
// nothing of any page, and the place where the page before ended:
// "41/namespace/name".
func encodeContinue(revision int64, k models.Key) string {
	return strconv.FormatInt(revision, 10) + "/" + k.Namespace + "/" + k.Name
}

func decodeContinue(token string) (revision int64, after *models.Key, err error) {
	if token == "" {
		return 0, nil, nil
	}
	number, place, _ := strings.Cut(token, "/")
	ns, name, ok := strings.Cut(place, "/")
	revision, err = strconv.ParseInt(number, 10, 64)
	if err != nil || !ok {
		return 0, nil, models.BadParameter(models.KindMalformed, "continue", "%q is not one that a list gave", token)
	}
	return revision, &models.Key{Namespace: ns, Name: name}, nil
}

// Update makes one object what change returns. See cloudapi.Objects.
func (r *Registry) Update(ctx context.Context, key models.Key, o models.WriteOptions, change func(models.Object) (models.Object, error)) (stored models.Object, created bool, err error) {
	var result *entry
	err = r.change(ctx, func(s *stage) error {
		s.by = o.By
		before := s.get(key)
		var current models.Object
		if before != nil {
			if o.Create {
				return models.Errorf(models.KindConflict, "%s already exists", key)
			}
			if !matches(o.IfMatch, before.object.Meta().ResourceVersion) {
				return stale(key, before)
			}
			current = clone(before.object)
		} else if o.IfMatch != "" {
			return models.Errorf(models.KindPrecondition, "%s does not exist, and If-Match asks that it does", key)
		}
		wanted, err := change(current)
		if err != nil {
			return err
		}
		if got := models.KeyOf(wanted); got != key {
			return models.Invalid("/metadata/name", "is %s, and the request is for %s", got, key)
		}
		created = before == nil
		result, err = s.check(wanted)
		if err != nil {
			return err
		}
		return s.put(wanted, result)
	})
	if err != nil {
		return nil, false, err
	}
	return r.withStatus(result), created, nil
}

func stale(key models.Key, e *entry) error {
	return models.Errorf(models.KindPrecondition, "%s has been changed since: its ETag is %s", key, ETag(e.object.Meta().ResourceVersion))
}

// Delete removes one object unless others refer to it.
func (r *Registry) Delete(ctx context.Context, key models.Key, o models.WriteOptions) (models.Object, error) {
	var before *entry
	err := r.change(ctx, func(s *stage) error {
		s.by = o.By
		if before = s.get(key); before == nil {
			return notFound(key)
		}
		if !matches(o.IfMatch, before.object.Meta().ResourceVersion) {
			return stale(key, before)
		}
		if err := s.inUse(before.object); err != nil {
			return err
		}
		s.drop(key)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return before.object, nil
}

// Seed makes mappers what the binary ships, whatever is stored, and leaves
// those alone that are not among them.
func (r *Registry) Seed(ctx context.Context, mappers []*models.Mapper) error {
	for _, given := range mappers {
		err := r.change(ctx, func(s *stage) error {
			m := &models.Mapper{TypeMeta: models.TypeMeta{APIVersion: models.APIVersion, Kind: "Mapper"},
				Metadata: models.ObjectMeta{Name: given.Metadata.Name}, Spec: given.Spec}
			m.Default()
			if errs := m.Validate(); len(errs) > 0 {
				return &models.Error{Kind: models.KindInvalid, Fields: errs}
			}
			compiled, err := compileSchemas(m)
			if err != nil {
				return err
			}
			m.Metadata.Labels, m.Metadata.Annotations = given.Metadata.Labels, given.Metadata.Annotations
			if before := s.get(models.KeyOf(m)); before != nil { // keep what users added
				meta := before.object.Meta()
				m.Metadata.Labels, m.Metadata.Annotations = meta.Labels, meta.Annotations
			}
			return s.put(m, &entry{schemas: compiled})
		})
		if err != nil {
			return fmt.Errorf("seed mapper %s: %w", given.Metadata.Name, err)
		}
	}
	return nil
}

// EnsureNode makes a node object when there is none, and returns it.
func (r *Registry) EnsureNode(ctx context.Context, name string) (*models.Node, error) {
	return r.updateNode(ctx, name, func(node *models.Node) (*models.Node, error) {
		if node == nil {
			node = &models.Node{TypeMeta: models.TypeMeta{APIVersion: models.APIVersionCore, Kind: "Node"}, Metadata: models.ObjectMeta{Name: name}}
		}
		return node, nil
	})
}

// LabelNode gives a node the labels that its edge was started with. They hold
// for their keys, others stay as they are. It never makes a node: one that is
// gone was deleted.
func (r *Registry) LabelNode(ctx context.Context, name string, labels map[string]string) error {
	_, err := r.updateNode(ctx, name, func(node *models.Node) (*models.Node, error) {
		if node == nil {
			return nil, notFound(models.Key{Kind: "Node", Name: name})
		}
		if node.Metadata.Labels == nil {
			node.Metadata.Labels = map[string]string{}
		}
		maps.Copy(node.Metadata.Labels, labels)
		return node, nil
	})
	return err
}

func (r *Registry) updateNode(ctx context.Context, name string, change func(*models.Node) (*models.Node, error)) (*models.Node, error) {
	o, _, err := r.Update(ctx, models.Key{Kind: "Node", Name: name}, models.WriteOptions{}, func(current models.Object) (models.Object, error) {
		node, _ := current.(*models.Node)
		node, err := change(node)
		if err != nil {
			return nil, err
		}
		if errs := node.Validate(); len(errs) > 0 {
			return nil, &models.Error{Kind: models.KindInvalid, Fields: errs}
		}
		return node, nil
	})
	if err != nil {
		return nil, err
	}
	return o.(*models.Node), nil
}
