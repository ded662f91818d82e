package registry

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/twin"
)

// DeviceView is a device with what its twin's document needs. Its parts are
// shared and must not be changed.
type DeviceView struct {
	Device     *models.Device
	Assignment uint64
	Properties []models.ResolvedProperty
	Desired    twin.Desired
}

// Device returns a device by its name.
func (r *Registry) Device(namespace, name string) (DeviceView, error) {
	key := models.Key{Kind: "Device", Namespace: namespace, Name: name}
	r.mu.RLock()
	defer r.mu.RUnlock()
	e := r.objects[key]
	if e == nil {
		return DeviceView{}, notFound(key)
	}
	return r.viewLocked(e), nil
}

func (r *Registry) viewLocked(e *entry) DeviceView {
	d := e.object.(*models.Device)
	return DeviceView{Device: d, Assignment: e.assignment, Properties: e.props, Desired: r.desired[d.Metadata.UID].desired}
}

// DeviceByUID returns a device by its uid.
func (r *Registry) DeviceByUID(uid string) (DeviceView, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	e := r.byUID[uid]
	if e == nil {
		return DeviceView{}, false
	}
	return r.viewLocked(e), true
}

// Current returns a device's assignment and the node that it is assigned to.
func (r *Registry) Current(deviceUID string) (assignment uint64, node string, ok bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	e := r.byUID[deviceUID]
	if e == nil {
		return 0, "", false
	}
	return e.assignment, e.object.(*models.Device).Spec.Node, true
}

// DeviceUIDs returns the uids of the devices that a list would show, in order.
func (r *Registry) DeviceUIDs(o models.ListOptions) []string {
	o.Kind = "Device"
	entries, _ := r.selected(o)
	out := make([]string, len(entries))
	for i, e := range entries {
		out[i] = e.object.Meta().UID
	}
	return out
}

// NodeDevices returns the uids of a node's devices.
func (r *Registry) NodeDevices(node string) []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Collect(maps.Keys(r.byNode[node]))
}

// PatchDesired checks a merge patch of desired values against the device's
// model and stores it as the next version. It returns the write's id for each
// property the patch sets.
func (r *Registry) PatchDesired(ctx context.Context, namespace, name string, patch map[string]models.Value, o models.DesiredOptions) (DeviceView, map[string]string, error) {
	key := models.Key{Kind: "Device", Namespace: namespace, Name: name}
	var view DeviceView
	ids := map[string]string{}
	err := r.change(ctx, func(s *stage) error {
		e := s.get(key)
		if e == nil {
			return notFound(key)
		}
		d := e.object.(*models.Device)
		if d.Spec.Locked {
			return models.Errorf(models.KindLocked, "device %s is locked for maintenance (spec.locked)", name)
		}
		uid := d.Metadata.UID
		before := s.desiredOf(uid)
		if !matches(o.IfMatch, strconv.FormatInt(before.Version, 10)) {
			return models.Errorf(models.KindPrecondition, "the desired values have been changed since: their ETag is %s", ETag(strconv.FormatInt(before.Version, 10)))
		}
		checked, err := checkPatch(e.props, before, patch)
		if err != nil {
			return err
		}
		c := twin.Change{Time: r.now().UTC(), By: o.By, Reason: o.Reason, Trace: o.Trace, NewID: NewUID}
		if o.Expire > 0 {
			c.Expires = new(c.Time.Add(o.Expire))
		}
		after := before.Patch(checked, c)
		if after.Version != before.Version {
			s.setDesired(uid, after)
		}
		for property, v := range checked {
			if !v.IsNull() {
				ids[property] = after.Properties[property].ID
			}
		}
		view = DeviceView{Device: d, Assignment: e.assignment, Properties: e.props, Desired: after}
		return nil
	})
	return view, ids, err
}

// checkPatch checks every value of a patch and returns them in their types.
func checkPatch(props []models.ResolvedProperty, before twin.Desired, patch map[string]models.Value) (map[string]models.Value, error) {
	out := make(map[string]models.Value, len(patch))
	var errs []models.FieldError
	for _, name := range slices.Sorted(maps.Keys(patch)) {
		pointer := "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
		v := patch[name]
		i := slices.IndexFunc(props, func(p models.ResolvedProperty) bool { return p.Name == name })
		if i < 0 {
			if _, live := before.Live(name); v.IsNull() && live {
				out[name] = v // withdraw what a former model had
				continue
			}
			errs = append(errs, models.FieldError{Pointer: pointer, Detail: fmt.Sprintf("the device has no property %q; it has %s", name, names(props))})
			continue
		}
		if v.IsNull() {
			out[name] = v
			continue
		}
		checked, err := props[i].CheckDesired(v, pointer)
		if err != nil {
			if e, ok := err.(*models.Error); ok {
				errs = append(errs, e.Fields...)
				continue
			}
			return nil, err
		}
		out[name] = checked
	}
	if len(errs) > 0 {
		return nil, &models.Error{Kind: models.KindInvalid, Fields: errs}
	}
	return out, nil
}

func names(props []models.ResolvedProperty) string {
	var out []string
	for i, p := range props {
		if i == 20 {
			out = append(out, "…")
			break
		}
		out = append(out, p.Name)
	}
	return strings.Join(out, ", ")
}

// AcceptLocal takes a write made at an edge, by the conflict rule. It is
// durable when it returns, and harmless to repeat. A device that is gone is no
// error: there is nothing left to want.
func (r *Registry) AcceptLocal(ctx context.Context, deviceUID string, l twin.Local) (twin.Verdict, error) {
	verdict := twin.Overridden
	err := r.change(ctx, func(s *stage) error {
		e := s.byUID(deviceUID)
		if e == nil {
			return nil
		}
		if !l.Value.IsNull() {
			// What no longer fits the model (it changed meanwhile) is overridden by it.
			i := slices.IndexFunc(e.props, func(p models.ResolvedProperty) bool { return p.Name == l.Property })
			if i < 0 {
				return nil
			}
			v, err := e.props[i].CheckDesired(l.Value, "")
			if err != nil {
				return nil
			}
			l.Value = v
		}
		after, v := s.desiredOf(deviceUID).Accept(l)
		if v == twin.Accepted && after.Version != s.desiredOf(deviceUID).Version {
			s.setDesired(deviceUID, after)
		}
		verdict = v
		return nil
	})
	return verdict, err
}

func (s *stage) byUID(uid string) *entry {
	e := s.r.byUID[uid]
	if e == nil {
		return nil
	}
	return s.get(models.KeyOf(e.object))
}

// Withdraw takes a desired value back if it is still the write with this id.
func (r *Registry) Withdraw(ctx context.Context, deviceUID, property, id string) error {
	return r.change(ctx, func(s *stage) error {
		if after, ok := s.desiredOf(deviceUID).Withdraw(property, id, r.now().UTC()); ok && s.byUID(deviceUID) != nil {
			s.setDesired(deviceUID, after)
		}
		return nil
	})
}

// Expiring is a desired value that is withdrawn when it is still unconfirmed.
type Expiring struct {
	DeviceUID, Property, ID string
	At                      time.Time
}

// Expiring lists the desired values that carry an expiry.
func (r *Registry) Expiring() (out []Expiring) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for uid := range r.expiring {
		for name, v := range r.desired[uid].desired.Properties {
			if v.Expires != nil && !v.Value.IsNull() {
				out = append(out, Expiring{uid, name, v.ID, *v.Expires})
			}
		}
	}
	return out
}

// setDesiredLocked stores a device's desired values. r.mu is held, or r is not
// shared yet.
func (r *Registry) setDesiredLocked(uid string, d desiredEntry) {
	r.desired[uid] = d
	delete(r.expiring, uid)
	for _, v := range d.desired.Properties {
		if v.Expires != nil && !v.Value.IsNull() {
			r.expiring[uid] = struct{}{}
		}
	}
}
