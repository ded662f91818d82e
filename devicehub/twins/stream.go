package twins

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/twin"
)

// streamEvery is the least time between two rounds of a stream: what changes
// more often is sent as it is then.
const streamEvery = 100 * time.Millisecond

// StreamTwins sends changes of twins. See cloudapi.Twins. What one call sends
// is coalesced: however slow the receiver, it costs no memory but the versions
// it has seen. A cursor stands for every change up to it: those of one round are
// sent in their order, so that a stream that breaks off in the middle goes on
// there.
func (c *Cache) StreamTwins(ctx context.Context, o models.ListOptions, cursor string, send func(twin.StreamChange) error) error {
	from, err := c.parseCursor(cursor)
	if err != nil {
		return err
	}
	sent := map[string]uint64{} // device uid to the Shadow version sent
	if from == 0 {
		if from, err = c.sendAll(o, sent, send); err != nil {
			return err
		}
	}
	pause := time.NewTimer(streamEvery)
	defer pause.Stop()
	for {
		round, news := c.changedSince(from)
		if news != nil {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-news:
			}
			continue
		}
		pause.Reset(streamEvery)
		for _, ch := range round {
			change, ok := c.tell(ch, from, o, sent)
			if !ok {
				continue
			}
			if err := send(change); err != nil {
				return err
			}
		}
		from = round[len(round)-1].serial
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-pause.C:
		}
	}
}

// A cursor is this life of the cache and a place in its changes; 0 is before
// everything.
func (c *Cache) cursor(serial uint64) string { return c.boot + "-" + strconv.FormatUint(serial, 10) }

func (c *Cache) parseCursor(cursor string) (uint64, error) {
	if cursor == "" {
		return 0, nil
	}
	boot, at, ok := strings.Cut(cursor, "-")
	serial, err := strconv.ParseUint(at, 10, 64)
	if !ok || err != nil {
		return 0, models.Errorf(models.KindMalformed, "cursor %q is not one that the stream gave", cursor)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if boot != c.boot || serial > c.serial || serial < c.floor && serial > 0 {
		// The hub restarted, or too many devices were deleted since.
		return 0, models.Errorf(models.KindGone, "the hub does not know any more what happened since the cursor")
	}
	return serial, nil
}

// sendAll sends every chosen twin whole and returns where changes go on. Only
// the last one's cursor says so: a stream that breaks off before begins again.
func (c *Cache) sendAll(o models.ListOptions, sent map[string]uint64, send func(twin.StreamChange) error) (uint64, error) {
	c.mu.Lock()
	from := c.serial
	c.mu.Unlock()
	uids := c.registry.DeviceUIDs(o)
	for i, uid := range uids {
		doc, ok := c.changeOf(uid, 0, o, sent)
		if !ok {
			continue
		}
		at := uint64(0)
		if i == len(uids)-1 {
			at = from
		}
		if err := send(twin.StreamChange{Cursor: c.cursor(at), Document: doc}); err != nil {
			return 0, err
		}
	}
	return from, nil
}

type changed struct {
	uid    string
	serial uint64
	gone   *goneDevice // it was deleted
}

// tell is what a stream is told of a change, if anything.
func (c *Cache) tell(ch changed, from uint64, o models.ListOptions, sent map[string]uint64) (twin.StreamChange, bool) {
	if g := ch.gone; g != nil {
		_, known := sent[ch.uid]
		delete(sent, ch.uid)
		if !known && (o.Namespace != "" && g.namespace != o.Namespace || !o.Selector.Matches(g.labels)) {
			return twin.StreamChange{}, false
		}
		return twin.StreamChange{Cursor: c.cursor(ch.serial), Deleted: true, Document: named(g.namespace, g.name)}, true
	}
	_, known := sent[ch.uid]
	doc, ok := c.changeOf(ch.uid, from, o, sent)
	if ok {
		return twin.StreamChange{Cursor: c.cursor(ch.serial), Document: doc}, true
	}
	// It is there, and was sent, and has labels now that the stream does not choose.
	if view, there := c.registry.DeviceByUID(ch.uid); known && there {
		m := view.Device.Metadata
		return twin.StreamChange{Cursor: c.cursor(ch.serial), Deleted: true, Document: named(m.Namespace, m.Name)}, true
	}
	return twin.StreamChange{}, false
}

// named is a document of nothing but whose it is.
func named(namespace, name string) twin.Document {
	doc := twin.Document{Device: name}
	if namespace != models.DefaultNamespace {
		doc.Namespace = namespace
	}
	return doc
}

// changedSince returns the devices that changed after a serial, in the order of
// their last changes; when there are none, a channel that is closed when there
// are.
func (c *Cache) changedSince(serial uint64) (out []changed, news <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for e := c.order.Back(); e != nil; e = e.Prev() {
		d := e.Value.(*device)
		if d.serial <= serial {
			break
		}
		out = append(out, changed{uid: d.uid, serial: d.serial})
	}
	for i := range slices.Backward(c.gone) {
		g := c.gone[i]
		if g.serial <= serial {
			break
		}
		out = append(out, changed{g.uid, g.serial, &g})
	}
	if len(out) > 0 {
		slices.SortFunc(out, func(a, b changed) int { return cmp.Compare(a.serial, b.serial) })
		return out, nil
	}
	if c.news == nil {
		c.news = make(chan struct{})
	}
	return nil, c.news
}

// changeOf returns what changed of a twin since a stream's last round, if the
// stream is to see it.
func (c *Cache) changeOf(uid string, from uint64, o models.ListOptions, sent map[string]uint64) (twin.Document, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	view, ok := c.registry.DeviceByUID(uid)
	if !ok {
		delete(sent, uid)
		return twin.Document{}, false
	}
	m := view.Device.Metadata
	if o.Namespace != "" && m.Namespace != o.Namespace || !o.Selector.Matches(m.Labels) {
		delete(sent, uid)
		return twin.Document{}, false
	}
	d := c.deviceLocked(view)
	since := sent[uid]
	if d.whole > from {
		since = 0
	}
	doc := c.documentLocked(view, since)
	sent[uid] = d.shadow.Version
	return doc, true
}
