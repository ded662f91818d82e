package registry

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
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

// Retention returns the rules by which history is kept: those of the devices that
// have one.
func (r *Registry) Retention(now time.Time) (rules []store.Retention) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for uid, e := range r.byUID {
		d, ok := e.object.(*models.Device)
		if !ok {
			continue
		}
		m, ok := r.modelOfLocked(d)
		if !ok {
			continue
		}
		if age, keep := models.ResolveRetention(m, d); age > 0 {
			rules = append(rules, store.Retention{DeviceUID: uid, BeforeUS: now.Add(-age).UnixMicro(), Keep: keep})
		}
	}
	return rules
}

func (r *Registry) modelOfLocked(d *models.Device) (*models.DeviceModel, bool) {
	e := r.objects[models.Key{Kind: "DeviceModel", Namespace: d.Metadata.Namespace, Name: d.Spec.Model}]
	if e == nil {
		return nil, false
	}
	m, ok := e.object.(*models.DeviceModel)
	return m, ok
}

// NodeDevices returns the uids of a node's devices.
func (r *Registry) NodeDevices(node string) []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Collect(maps.Keys(r.byNode[node]))
}

// ModelDevices returns the uids of a model's devices.
func (r *Registry) ModelDevices(namespace, name string) []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Collect(maps.Keys(r.byModel[models.Key{Kind: "DeviceModel", Namespace: namespace, Name: name}]))
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
		checked, err := checkPatch(e.props, patch)
		if err != nil {
			return err
		}
		c := twin.Change{Time: r.now().UTC(), By: o.By, Reason: o.Reason, Trace: o.Trace, NewID: NewUID}
		if o.Expire > 0 {
			c.Expires = new(c.Time.Add(o.Expire))
		}
		after := before.Patch(checked, c)
		if after.Version != before.Version {
			if r.followed(d.Spec.Node) { // or it is noted when it is handed over
				after, _ = give(after, e.props, unless(s.holder(e)))
			}
			if err := s.setDesired(uid, after, told{OriginCloud, r.reportedOf(uid)}); err != nil {
				return err
			}
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

// escape writes a name as a step of a JSON Pointer.
var escape = strings.NewReplacer("~", "~0", "/", "~1")

// checkPatch checks every value of a patch and returns them in their types.
func checkPatch(props []models.ResolvedProperty, patch map[string]models.Value) (map[string]models.Value, error) {
	out := make(map[string]models.Value, len(patch))
	var errs []models.FieldError
	for _, name := range slices.Sorted(maps.Keys(patch)) {
		pointer := "/" + escape.Replace(name)
		v := patch[name]
		i := slices.IndexFunc(props, func(p models.ResolvedProperty) bool { return p.Name == name })
		if i < 0 {
			if v.IsNull() { // withdraw what a former model had, or nothing
				out[name] = v
				continue
			}
			if len(errs) == maxErrors {
				break
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

// Judgement is what became of a write made at an edge.
type Judgement struct {
	Verdict twin.Verdict
	By      string // Overridden: the write whose value stands, "" when there is none
	Why     string // Overridden: why, where that is not the conflict rule
}

// reportedOf is what is reported of a device now.
func (r *Registry) reportedOf(uid string) func(string) twin.Reported {
	return func(property string) twin.Reported {
		if r.statuses == nil {
			return twin.Reported{}
		}
		return r.statuses.Reported(uid, property)
	}
}

// AcceptLocal takes a write made at an edge, by the conflict rule. It is
// durable when it returns, and harmless to repeat. A device that is gone is no
// error: there is nothing left to want.
func (r *Registry) AcceptLocal(ctx context.Context, deviceUID string, l twin.Local) (Judgement, error) {
	verdict := Judgement{Verdict: twin.Overridden}
	err := r.change(ctx, func(s *stage) error {
		e := s.byUID(deviceUID)
		if e == nil {
			return nil
		}
		if !l.Value.IsNull() {
			// What no longer fits the model (it changed meanwhile) is overridden by it.
			i := slices.IndexFunc(e.props, func(p models.ResolvedProperty) bool { return p.Name == l.Property })
			if i < 0 {
				verdict.Why = "the model has no property of this name any more"
				return nil
			}
			v, err := e.props[i].CheckDesired(l.Value, "")
			if err != nil {
				verdict.Why = "the value does not fit the model any more: " + err.Error()
				return nil
			}
			l.Value = v
		}
		if y := l.Time.Year(); y < 1 || y > 9999 { // an edge without a clock; JSON has no such years
			l.Time = r.now().UTC()
		}
		after, v := s.desiredOf(deviceUID).Accept(l)
		if v == twin.Accepted && after.Version != s.desiredOf(deviceUID).Version {
			origin := l.Origin
			if origin == "" {
				origin = OriginEdge
			}
			after, _ = give(after, e.props, unless(s.holder(e))) // whoever made it has it
			if err := s.setDesired(deviceUID, after, told{origin, func(string) twin.Reported { return l.Before }}); err != nil {
				r.log.Warn("a write made at the edge cannot be taken", "device", deviceUID, "property", l.Property, "error", err)
				verdict.Why = err.Error()
				return nil
			}
		}
		verdict.Verdict = v
		if v == twin.Overridden {
			verdict.By = s.desiredOf(deviceUID).Properties[l.Property].ID
		}
		return nil
	})
	return verdict, err
}

func (s *stage) byUID(uid string) *entry {
	e := s.r.byUID[uid]
	if e == nil {
		return nil
	}
	e = s.get(models.KeyOf(e.object))
	if e == nil || e.object.Meta().UID != uid { // another one of its name
		return nil
	}
	return e
}

// Withdraw takes a desired value back if it is still the write with this id.
func (r *Registry) Withdraw(ctx context.Context, deviceUID, property, id string) error {
	return r.change(ctx, func(s *stage) error {
		if after, ok := s.desiredOf(deviceUID).Withdraw(property, id, r.now().UTC()); ok && s.byUID(deviceUID) != nil {
			return s.setDesired(deviceUID, after, told{OriginCloud, r.reportedOf(deviceUID)})
		}
		return nil
	})
}

// Expiring is a desired value that is withdrawn when it is still unconfirmed.
type Expiring struct {
	DeviceUID, Property, ID string
	At                      time.Time
}

// Expiring lists the desired values that are due to expire.
func (r *Registry) Expiring(now time.Time) (out []Expiring) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, properties := range r.expiring {
		for _, e := range properties {
			if !now.Before(e.At) {
				out = append(out, e)
			}
		}
	}
	return out
}

// Confirmed says that a desired value no longer expires, because its write was
// confirmed in time. After a restart it has to be said again.
func (r *Registry) Confirmed(e Expiring) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if properties := r.expiring[e.DeviceUID]; properties[e.Property].ID == e.ID {
		delete(properties, e.Property)
		if len(properties) == 0 {
			delete(r.expiring, e.DeviceUID)
		}
	}
}

// setDesiredLocked stores a device's desired values. r.mu is held, or r is not
// shared yet.
func (r *Registry) setDesiredLocked(uid string, d desiredEntry) {
	before := r.desired[uid].desired.Properties
	r.desired[uid] = d
	for name, v := range d.desired.Properties {
		if before[name].ID == v.ID && before[name].Value.IsNull() == v.Value.IsNull() {
			continue // as it was; it may have been confirmed
		}
		if v.Expires != nil && !v.Value.IsNull() {
			if r.expiring[uid] == nil {
				r.expiring[uid] = map[string]Expiring{}
			}
			r.expiring[uid][name] = Expiring{uid, name, v.ID, *v.Expires}
		} else {
			delete(r.expiring[uid], name)
		}
	}
	if len(r.expiring[uid]) == 0 {
		delete(r.expiring, uid)
	}
}
