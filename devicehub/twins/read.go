package twins

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/twin"
)

// Twin returns one twin's document.
func (c *Cache) Twin(_ context.Context, namespace, name string) (twin.Document, error) {
	view, err := c.registry.Device(namespace, name)
	if err != nil {
		return twin.Document{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.documentLocked(view, 0), nil
}

// Twins returns the documents of the chosen devices in the order of namespace
// and name. next is where a further page begins, "" on the last.
func (c *Cache) Twins(_ context.Context, o models.ListOptions) (docs []twin.Document, next string, err error) {
	docs = []twin.Document{}
	after, afterName, paged := strings.Cut(o.Continue, "/")
	if o.Continue != "" && !paged {
		return nil, "", models.Errorf(models.KindMalformed, "continue %q is not one that a list gave", o.Continue)
	}
	last := ""
	for _, uid := range c.registry.DeviceUIDs(o) {
		view, ok := c.registry.DeviceByUID(uid)
		if !ok {
			continue
		}
		m := view.Device.Metadata
		if paged && (m.Namespace < after || m.Namespace == after && m.Name <= afterName) {
			continue
		}
		if o.Limit > 0 && len(docs) == o.Limit {
			return docs, last, nil
		}
		c.mu.Lock()
		docs = append(docs, c.documentLocked(view, 0))
		c.mu.Unlock()
		last = m.Namespace + "/" + m.Name
	}
	return docs, "", nil
}

// AwaitWrites blocks until the writes are confirmed. See cloudapi.Twins.
func (c *Cache) AwaitWrites(ctx context.Context, namespace, name string, writes map[string]string) error {
	for {
		view, err := c.registry.Device(namespace, name)
		if err != nil {
			return err
		}
		c.mu.Lock()
		wake := c.changed
		away := c.awayLocked(view.Device.Spec.Node)
		d := c.deviceLocked(view.Device.Metadata.UID, view.Assignment)
		waiting, verdict := judge(d, view.Desired, writes)
		state, message := d.shadow.State, d.shadow.Message
		c.mu.Unlock()
		switch {
		case verdict != nil:
			return verdict
		case len(waiting) == 0:
			return nil
		case !away.IsZero():
			return models.Errorf(models.KindUnavailable, "node %q is offline; the write stays pending", view.Device.Spec.Node)
		}
		select {
		case <-ctx.Done():
			if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return ctx.Err()
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
		if p := d.shadow.Properties[property]; p != nil && p.Write.ID == id {
			w = p.Write
		} else if now := desired.Properties[property].ID; now != id {
			w.State = twin.Superseded
		}
		switch w.State {
		case twin.Applied:
		case twin.Failed, twin.Unknown:
			return nil, models.Errorf(models.KindRefused, "%s: %s: %s", property, w.State, w.Error)
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

// StreamTwins sends changes of twins. See cloudapi.Twins. What one call sends
// is coalesced: however slow the receiver, it costs no memory but the versions
// it has seen.
func (c *Cache) StreamTwins(ctx context.Context, o models.ListOptions, cursor string, send func(twin.StreamChange) error) error {
	var serial uint64
	if cursor != "" {
		boot, at, _ := strings.Cut(cursor, "-")
		n, err := strconv.ParseUint(at, 10, 64)
		if err != nil {
			return models.Errorf(models.KindMalformed, "cursor %q is not one that the stream gave", cursor)
		}
		if boot == c.boot() { // else the hub restarted: everything may have changed
			serial = n
		}
	}
	sent := map[string]uint64{} // device uid to the Shadow version sent
	for {
		uids := c.registry.DeviceUIDs(o)
		c.mu.Lock()
		wake, upTo := c.changed, c.serial
		c.mu.Unlock()
		for _, uid := range uids {
			view, ok := c.registry.DeviceByUID(uid)
			if !ok {
				continue
			}
			c.mu.Lock()
			d := c.deviceLocked(uid, view.Assignment)
			version, known := sent[uid]
			fresh := d.serial > serial || serial == 0 && !known
			var doc twin.Document
			if fresh {
				since := version
				if d.whole > serial {
					since = 0
				}
				doc = c.documentLocked(view, since)
				sent[uid] = d.shadow.Version
			}
			c.mu.Unlock()
			if fresh {
				if err := send(twin.StreamChange{Cursor: c.boot() + "-" + strconv.FormatUint(upTo, 10), Document: doc}); err != nil {
					return err
				}
			}
		}
		serial = max(upTo, 1)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-wake:
		}
	}
}

// boot names this life of the cache in cursors.
func (c *Cache) boot() string { return strconv.FormatInt(c.started.UnixMilli(), 36) }
