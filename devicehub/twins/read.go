package twins

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/whimbrel-edge/whimbrel/devicehub/registry"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/twin"
)

// Twin returns one twin's document.
func (c *Cache) Twin(_ context.Context, namespace, name string) (twin.Document, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	view, err := c.registry.Device(namespace, name)
	if err != nil {
		return twin.Document{}, err
	}
	return c.documentLocked(view, 0), nil
}

// Twins returns the documents of the chosen devices in the order of namespace
// and name. next is where a further page begins, "" on the last.
func (c *Cache) Twins(_ context.Context, o models.ListOptions) (docs []twin.Document, next string, err error) {
	docs = []twin.Document{}
	after, afterName, paged := strings.Cut(o.Continue, "/")
	if o.Continue != "" && !paged {
		return nil, "", models.BadParameter(models.KindMalformed, "continue", "%q is not one that a list gave", o.Continue)
	}
	last := ""
	for _, uid := range c.registry.DeviceUIDs(o) {
		c.mu.Lock()
		view, ok := c.registry.DeviceByUID(uid)
		if !ok {
			c.mu.Unlock()
			continue
		}
		m := view.Device.Metadata
		if paged && (m.Namespace < after || m.Namespace == after && m.Name <= afterName) {
			c.mu.Unlock()
			continue
		}
		if o.Limit > 0 && len(docs) == o.Limit {
			c.mu.Unlock()
			return docs, last, nil
		}
		docs = append(docs, c.documentLocked(view, 0))
		c.mu.Unlock()
		last = m.Namespace + "/" + m.Name
	}
	return docs, "", nil
}

// documentLocked shows a device's twin; view was taken under the same lock.
// since leaves out properties not changed after that version.
func (c *Cache) documentLocked(view registry.DeviceView, since uint64) twin.Document {
	m := view.Device.Metadata
	d := c.deviceLocked(view)
	away := c.awayLocked(d, view.Device.Spec.Node)
	return d.shadow.Document(twin.View{Device: m.Name, Namespace: m.Namespace, Properties: view.Properties, Desired: view.Desired, Away: away, Since: since})
}

// DeviceStatus returns a device's status for its document.
func (c *Cache) DeviceStatus(dev *models.Device, assignment uint64) *models.DeviceStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &models.DeviceStatus{State: models.StateUnknown}
	node := dev.Spec.Node
	d := c.devices[dev.Metadata.UID]
	if d == nil || d.assignment != assignment {
		d = &device{stateSince: *dev.Metadata.CreationTimestamp}
	}
	if !d.shadow.LastSeen.IsZero() {
		s.LastSeen = new(d.shadow.LastSeen.UTC())
	}
	s.ReadPlan = d.shadow.ReadPlan
	away := c.awayLocked(d, node)
	if away.IsZero() && d.shadow.State != "" {
		s.State = d.shadow.State
	}
	ready := models.Condition{Type: "Ready", Status: "True", Reason: "Online", LastTransitionTime: d.stateSince.UTC()}
	switch {
	case !c.liveLocked(node):
		ready.Status, ready.Reason, ready.Message, ready.LastTransitionTime = "Unknown", "NodeOffline", "its node is not connected", away.UTC()
	case away.IsZero() && d.shadow.Problem != "":
		ready.Status, ready.Reason, ready.Message = "False", "Misconfigured", d.shadow.Problem
	case s.State == models.StateUnknown:
		ready.Status, ready.Reason, ready.Message = "Unknown", "NotReported", "the edge has not said anything of it yet"
	case s.State != models.StateOnline:
		ready.Status, ready.Reason, ready.Message = "False", map[models.DeviceState]string{models.StateOffline: "Offline", models.StateDegraded: "Degraded"}[s.State], d.shadow.Message
	}
	s.Conditions = []models.Condition{ready}
	return s
}

// AwaitWrites blocks until the writes are confirmed. See cloudapi.Twins.
func (c *Cache) AwaitWrites(ctx context.Context, namespace, name string, writes map[string]string) error {
	for {
		c.mu.Lock()
		view, err := c.registry.Device(namespace, name)
		if err != nil {
			c.mu.Unlock()
			return err
		}
		node := view.Device.Spec.Node
		live := c.liveLocked(node)
		d := c.deviceLocked(view)
		waiting, verdict := judge(d, view.Desired, writes)
		state, message := d.shadow.State, d.shadow.Message
		if d.wake == nil {
			d.wake = make(chan struct{})
		}
		wake := d.wake
		c.mu.Unlock()
		switch {
		case verdict != nil:
			return verdict
		case len(waiting) == 0:
			return nil
		case node == "":
			return models.Errorf(models.KindUnavailable, "no node serves the device; the write stays pending")
		case !live:
			return models.Errorf(models.KindUnavailable, "node %q is offline; the write stays pending", node)
		}
		select {
		case <-ctx.Done():
			if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return ctx.Err()
			}
			if state == "" {
				state = models.StateUnknown
			}
			why := "the device is " + string(state)
			if message != "" {
				why += " (" + message + ")"
			}
			return models.Errorf(models.KindTimeout, "not confirmed in time: %s; %s; the write stays pending", strings.Join(waiting, ", "), why)
		case <-wake:
		}
	}
}

// judge says which writes are still unconfirmed, and the verdict if one failed.
func judge(d *device, desired twin.Desired, writes map[string]string) (waiting []string, verdict error) {
	for _, property := range sortedKeys(writes) {
		id := writes[property]
		var w twin.Write
		if known := d.shadow.Property(property).Write(); known.ID == id {
			w = known
		}
		if now := desired.Properties[property]; !w.State.Final() {
			switch {
			case now.ID != id:
				w.State = twin.Superseded
			case now.Value.IsNull(): // withdrawn under its own id: its time was over
				w.State = twin.Expired
			}
		}
		why := ""
		if w.Error != "" {
			why = ": " + w.Error
		}
		switch w.State {
		case twin.Applied:
		case twin.Failed, twin.Unknown:
			return nil, models.Errorf(models.KindRefused, "%s: %s%s", property, w.State, why)
		case twin.Superseded:
			return nil, models.Errorf(models.KindRefused, "%s: superseded by a newer desired value", property)
		case twin.Expired:
			return nil, models.Errorf(models.KindTimeout, "%s: expired before it was confirmed", property)
		default:
			waiting = append(waiting, property)
		}
	}
	return waiting, nil
}

// sortedKeys is the order in which documents are sent.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
