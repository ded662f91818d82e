package registry

import (
	"context"
	"maps"
	"slices"
	"strconv"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/twin"
)

// A once write reaches its device at most once, whatever becomes of the edge that
// was to write it. An edge that keeps its disk sees to that itself: it stores that
// it sends a write before it does. For the others the hub stores to whom it hands
// a write, before it does. Who gets a write that somebody else may have sent is told
// so (twin.DesiredValue.Hidden), and reads the device instead.

// givenLost is in DesiredValue.Given where whoever had the write cannot tell any
// more whether it was sent. It is nobody's holder.
const givenLost = "lost"

// holder is who serves a device under its present assignment, "" when there is no
// such node.
func holder(e *entry, node func(name string) *entry) string {
	n := node(e.object.(*models.Device).Spec.Node)
	if n == nil {
		return ""
	}
	return n.object.Meta().UID + "/" + strconv.FormatUint(e.assignment, 10)
}

func (s *stage) holder(e *entry) string {
	return holder(e, func(name string) *entry { return s.get(models.Key{Kind: "Node", Name: name}) })
}

func (r *Registry) holderLocked(e *entry) string {
	return holder(e, func(name string) *entry { return r.objects[models.Key{Kind: "Node", Name: name}] })
}

// give returns d with what give says in place of Given of its live once values,
// and whether that changes anything. It is a pure function.
func give(d twin.Desired, props []models.ResolvedProperty, to func(twin.DesiredValue) string) (twin.Desired, bool) {
	changed := false
	for i := range props {
		v, live := d.Live(props[i].Name)
		if !live || props[i].Write != models.Once {
			continue
		}
		if given := to(v); given != v.Given {
			if !changed {
				d, changed = d.Clone(), true
			}
			v.Given = given
			d.Properties[props[i].Name] = v
		}
	}
	return d, changed
}

// unless is give's function for a value that is handed over for the first time.
func unless(to string) func(twin.DesiredValue) string {
	return func(v twin.DesiredValue) string {
		if v.Given == "" {
			return to
		}
		return v.Given
	}
}

// Hand takes note that desired values are about to be handed to a node. They may
// be once it has returned nil. It costs nothing where everything has been noted,
// as it has with a value that was set while the node was there.
func (r *Registry) Hand(ctx context.Context, node string, refs []Ref) error {
	r.mu.RLock()
	news := slices.ContainsFunc(refs, func(ref Ref) bool {
		e := r.objects[models.Key{Kind: "Device", Namespace: ref.Namespace, Name: ref.Name}]
		if e == nil || ref.Kind != "Desired" {
			return false
		}
		_, changed := give(r.desired[e.object.Meta().UID].desired, e.props, unless(r.holderLocked(e)))
		return changed
	})
	r.mu.RUnlock()
	if !news {
		return nil
	}
	return r.change(ctx, func(s *stage) error {
		for _, ref := range refs {
			e := s.get(models.Key{Kind: "Device", Namespace: ref.Namespace, Name: ref.Name})
			if e == nil || ref.Kind != "Desired" || e.object.(*models.Device).Spec.Node != node {
				continue // it is no longer that node's to have; the session hears of it
			}
			uid := e.object.Meta().UID
			if d, changed := give(s.desiredOf(uid), e.props, unless(s.holder(e))); changed {
				if err := s.noteDesired(uid, d); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// Forgot takes note that a node has lost what it knew of writes: it has a new disk
// or an older copy of it. With all, the hub itself may have forgotten to whom it
// handed what, since its database is an older copy.
func (r *Registry) Forgot(ctx context.Context, node string, all bool) error {
	lost := func(v twin.DesiredValue) string {
		if v.Given != "" || all {
			return givenLost
		}
		return ""
	}
	r.mu.RLock()
	uids := slices.Sorted(maps.Keys(r.byNode[node]))
	uids = slices.DeleteFunc(uids, func(uid string) bool {
		_, changed := give(r.desired[uid].desired, r.byUID[uid].props, lost)
		return !changed
	})
	r.mu.RUnlock()
	if len(uids) == 0 {
		return nil
	}
	return r.change(ctx, func(s *stage) error {
		for _, uid := range uids {
			e := s.byUID(uid)
			if e == nil {
				continue
			}
			if d, changed := give(s.desiredOf(uid), e.props, lost); changed {
				// A copy that holds the value is to hear of this: it has a new revision.
				if err := s.setDesired(uid, d, told{}); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// followed reports whether a node has a session, so that what is desired of its
// devices is handed over at once.
func (r *Registry) followed(node string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.follower[node]) > 0
}
