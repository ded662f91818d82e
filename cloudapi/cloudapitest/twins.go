package cloudapitest

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/whimbrel-edge/whimbrel/cloudapi"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/twin"
)

func deviceKey(namespace, name string) models.Key {
	return models.Key{Kind: "Device", Namespace: namespace, Name: name}
}

// Behave says what a device does with writes from now on. One that confirms
// takes what is pending.
func (h *Hub) Behave(namespace, name string, b Behaviour) {
	h.device(namespace, name, func(d *device) {
		d.behaviour = b
		h.settleLocked(d)
	})
}

// SetAway says that a device's node has gone, or is back.
func (h *Hub) SetAway(namespace, name string, away bool) {
	h.device(namespace, name, func(d *device) {
		d.away = time.Time{}
		if away {
			d.away = time.Now()
		}
		h.touchLocked(d)
		h.settleLocked(d)
	})
}

// Report is a sample that a device's node sends.
func (h *Hub) Report(namespace, name, property string, s models.Sample) {
	h.device(namespace, name, func(d *device) {
		d.shadow.SetState(models.StateOnline, "", twin.Position{})
		if d.shadow.Report(property, s, twin.Position{}) {
			h.touchLocked(d, property)
		}
		if d.history == nil {
			d.history = map[string][]models.HistoryPoint{}
		}
		d.history[property] = append(d.history[property], models.HistoryPoint{Time: s.Time.UTC(), Value: s.Value, Quality: s.Quality, Reason: s.Reason})
	})
}

func (h *Hub) device(namespace, name string, do func(*device)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if d := h.devices[deviceKey(namespace, name)]; d != nil {
		do(d)
		h.wakeLocked()
	}
}

func (h *Hub) touchLocked(d *device, properties ...string) {
	h.twinCursor++
	d.touched = h.twinCursor
	for _, p := range properties {
		d.changed[p] = h.twinCursor
	}
}

// settleLocked lets the device do what it does with what it was not told yet.
func (h *Hub) settleLocked(d *device) {
	if !d.away.IsZero() || d.behaviour == Silent {
		return
	}
	now := time.Now().UTC()
	for _, name := range slices.Sorted(maps.Keys(d.desired.Properties)) {
		v, live := d.desired.Live(name)
		if w := d.shadow.Property(name).Write(); !live || w.ID == v.ID && w.State.Final() {
			continue
		}
		w := twin.Write{ID: v.ID, State: twin.Applied, Time: now}
		if d.behaviour == Refuses {
			w.State, w.Error, w.Refused = twin.Failed, "illegal data value", true
		} else {
			d.shadow.Report(name, models.Sample{Value: v.Value, Time: now}, twin.Position{})
		}
		d.shadow.SetWrite(name, w, v.ID)
		h.touchLocked(d, name)
	}
}

// documentLocked shows a twin; its device exists.
func (h *Hub) documentLocked(key models.Key) twin.Document {
	d := h.devices[key]
	return d.shadow.Document(twin.View{Device: key.Name, Namespace: key.Namespace, Properties: h.propertiesLocked(key),
		Desired: d.desired, Away: d.away})
}

func (h *Hub) propertiesLocked(key models.Key) []models.ResolvedProperty {
	dev, _ := h.objects[key].(*models.Device)
	m, ok := h.objects[models.Key{Kind: "DeviceModel", Namespace: key.Namespace, Name: dev.Spec.Model}].(*models.DeviceModel)
	if !ok {
		return nil
	}
	props, err := models.Resolve(m, dev)
	if err != nil {
		return nil // the model has changed since the device was checked
	}
	return props
}

// Twin implements cloudapi.Twins.
func (h *Hub) Twin(_ context.Context, namespace, name string) (twin.Document, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := deviceKey(namespace, name)
	if h.devices[key] == nil {
		return twin.Document{}, notFound(key)
	}
	return h.documentLocked(key), nil
}

// Twins implements cloudapi.Twins.
func (h *Hub) Twins(_ context.Context, o models.ListOptions) ([]twin.Document, string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	o.Kind = "Device"
	page, next, err := h.pageLocked(o)
	if err != nil {
		return nil, "", err
	}
	var docs []twin.Document
	for _, object := range page {
		docs = append(docs, h.documentLocked(models.KeyOf(object)))
	}
	return docs, next, nil
}

// PatchDesired implements cloudapi.Twins.
func (h *Hub) PatchDesired(_ context.Context, namespace, name string, patch map[string]models.Value, o models.DesiredOptions) (twin.Document, map[string]string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := deviceKey(namespace, name)
	d := h.devices[key]
	if d == nil {
		return twin.Document{}, nil, notFound(key)
	}
	if dev, ok := h.objects[key].(*models.Device); ok && dev.Spec.Locked {
		return twin.Document{}, nil, models.Errorf(models.KindLocked, "%s is locked for maintenance", key)
	}
	if !matches(o.IfMatch, strconv.FormatInt(d.desired.Version, 10)) {
		return twin.Document{}, nil, models.Errorf(models.KindPrecondition, "desired has been changed since: its version is %d", d.desired.Version)
	}
	fitted := map[string]models.Value{}
	var fields []models.FieldError
	defs := h.propertiesLocked(key)
	for _, prop := range slices.Sorted(maps.Keys(patch)) {
		v := patch[prop]
		i := slices.IndexFunc(defs, func(p models.ResolvedProperty) bool { return p.Name == prop })
		var err error
		switch {
		case v.IsNull():
		case i < 0:
			err = models.Invalid("/"+prop, "the model has no property %.40q", prop)
		default:
			v, err = defs[i].CheckDesired(v, "/"+prop)
		}
		if e, ok := err.(*models.Error); ok {
			fields = append(fields, e.Fields...)
		}
		fitted[prop] = v
	}
	if len(fields) > 0 {
		return twin.Document{}, nil, &models.Error{Kind: models.KindInvalid, Fields: fields}
	}
	change := twin.Change{Time: time.Now().UTC(), By: o.By, Reason: o.Reason, Trace: o.Trace, NewID: func() string { return ulid.Make().String() }}
	if o.Expire > 0 {
		change.Expires = new(change.Time.Add(o.Expire))
	}
	before := d.desired.Version
	d.desired = d.desired.Patch(fitted, change)
	writes := map[string]string{}
	if d.desired.Version != before {
		for prop := range fitted {
			d.note(prop)
			d.shadow.Touch(prop)
			h.touchLocked(d, prop)
			if v, live := d.desired.Live(prop); live {
				writes[prop] = v.ID
			}
		}
	}
	doc := h.documentLocked(key)
	h.settleLocked(d)
	h.wakeLocked()
	return doc, writes, nil
}

// Traces returns the traceparent of each desired value of a device.
func (h *Hub) Traces(namespace, name string) map[string]string {
	out := map[string]string{}
	h.device(namespace, name, func(d *device) {
		for prop, v := range d.desired.Properties {
			out[prop] = v.Trace
		}
	})
	return out
}

// AwaitWrites implements cloudapi.Twins.
func (h *Hub) AwaitWrites(ctx context.Context, namespace, name string, writes map[string]string) error {
	for {
		h.mu.Lock()
		changed := h.changed
		done, err := h.fateLocked(deviceKey(namespace, name), writes)
		h.mu.Unlock()
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return models.Errorf(models.KindTimeout, "not confirmed in time; the write stays pending")
		case <-changed:
		}
	}
}

func (h *Hub) fateLocked(key models.Key, writes map[string]string) (done bool, err error) {
	d := h.devices[key]
	if d == nil {
		return false, notFound(key)
	}
	done = true
	for _, prop := range slices.Sorted(maps.Keys(writes)) {
		w := d.shadow.Property(prop).Write()
		switch {
		case w.ID != writes[prop] || !w.State.Final():
			done = false
		case w.State != twin.Applied:
			return false, models.Errorf(models.KindRefused, "%s: %s", prop, w.Error)
		}
	}
	if !done && !d.away.IsZero() {
		return false, models.Errorf(models.KindUnavailable, "the device's node is offline; the write stays pending")
	}
	return done, nil
}

// StreamTwins implements cloudapi.Twins.
func (h *Hub) StreamTwins(ctx context.Context, o models.ListOptions, cursor string, send func(cloudapi.TwinChange) error) error {
	o.Kind = "Device"
	o.Limit, o.Continue = 0, ""
	after, whole := uint64(0), cursor == ""
	if !whole {
		var err error
		if after, err = strconv.ParseUint(cursor, 10, 64); err != nil {
			return models.Errorf(models.KindGone, "the cursor is not one of this hub")
		}
	}
	for {
		h.mu.Lock()
		changed, now, floor := h.changed, h.twinCursor, h.twinFloor
		page, _, err := h.pageLocked(o)
		var changes []cloudapi.TwinChange
		for _, object := range page {
			key := models.KeyOf(object)
			d := h.devices[key]
			if !whole && d.touched <= after {
				continue
			}
			doc := h.documentLocked(key)
			maps.DeleteFunc(doc.Properties, func(prop string, _ twin.PropertyDoc) bool { return !whole && d.changed[prop] <= after })
			// Until all of this round is sent, only the cursor before it is safe.
			changes = append(changes, cloudapi.TwinChange{Cursor: strconv.FormatUint(after, 10), Document: doc})
		}
		h.mu.Unlock()
		if err != nil {
			return err
		}
		if !whole && (after < floor || after > now) {
			return models.Errorf(models.KindGone, "the cursor is too old")
		}
		for i, c := range changes {
			if i == len(changes)-1 {
				c.Cursor = strconv.FormatUint(now, 10)
			} else if whole {
				c.Cursor = ""
			}
			if err := send(c); err != nil {
				return err
			}
		}
		after, whole = now, false
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}
