// Package twins is the hub's memory of every device's twin: what edges report
// lands here after it is committed, and readers, streams and those who wait
// for a write are served from here. Shadows are checkpointed to the store about
// once a second; where nothing but values has changed, which history has, and there
// are many of them, they take turns over half a minute. After a restart what was
// committed since is taken from history; an edge that is connected says everything
// anew, and one that is not is shown as it was, and stale.
package twins

import (
	"container/list"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/registry"
	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/internal/failpoint"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/twin"
)

const (
	// checkpointEvery is how often changed shadows are stored, unless storing
	// them takes long: it gets no more than a tenth of the time.
	checkpointEvery = time.Second
	// checkpointPart bounds how many shadows are encoded before others get at the
	// cache, and how many are stored at once.
	checkpointPart = 256
	// Of the devices of which history has all that is new, so many checkpoints pass
	// until each has had its turn, unless they are few enough for one. To store all of
	// them every second would cost as much as their samples do.
	checkpointTurns = 30
	checkpointFew   = 64
)

// Registry is what the cache needs to know of devices. The cache asks with its
// own lock held: the registry's comes after it, never before.
type Registry interface {
	Device(namespace, name string) (registry.DeviceView, error)
	DeviceByUID(uid string) (registry.DeviceView, bool)
	DeviceUIDs(o models.ListOptions) []string
	NodeDevices(node string) []string
	StatusChanged(key models.Key)
	Expiring(now time.Time) []registry.Expiring
	Confirmed(e registry.Expiring)
	Withdraw(ctx context.Context, deviceUID, property, id string) error
}

// Store is what a cache needs of the store.
type Store interface {
	store.Twins
	Versions(ctx context.Context) (store.Versions, error)
	SetVersions(ctx context.Context, v store.Versions) error
	DesiredAt(ctx context.Context, deviceUID string, at time.Time) ([]store.Write, error)
}

// Config is what a Cache needs.
type Config struct {
	Store    Store
	History  History // may be nil: then a restart shows what was checkpointed
	Registry Registry
	Now      func() time.Time
	Log      *slog.Logger
}

// Cache holds the shadows. Its methods are safe for concurrent use.
type Cache struct {
	store    Store
	history  History
	registry Registry
	now      func() time.Time
	log      *slog.Logger
	boot     string    // names this life of the cache in cursors
	started  time.Time // and when it began
	era      int64     // of versions
	unread   []string  // uids of devices whose writes may be further than the checkpoint says; Run's own

	mu      sync.Mutex // protects all below; held only for memory work
	devices map[string]*device
	nodes   map[string]*node
	serial  uint64              // counts changes over all devices, from 1
	order   list.List           // of *device, by serial: the latest change is last
	dirty   map[string]struct{} // uids of devices that changed since they were stored, in a way that only a checkpoint keeps
	turns   []string            // uids of devices of which history has what is new, each once, the longest waiting first
	news    chan struct{}       // closed when serial grows; nil while no stream waits
	gone    []goneDevice        // devices that were deleted, by serial: at most goneKept, the latest
	floor   uint64              // the serial of the last one that gone has forgotten
}

// goneKept bounds how many deletions streams can catch up on. One that is further
// behind begins anew.
const goneKept = 4096

// goneDevice is a device that was deleted.
type goneDevice struct {
	uid, namespace, name string
	labels               map[string]string
	serial               uint64
}

// node is a node as devices need it.
type node struct {
	live    bool
	session uint64    // counts its sessions
	away    time.Time // when the last one ended
}

type device struct {
	uid        string
	shadow     twin.Shadow
	assignment uint64
	session    uint64        // of its node, in which the edge last said everything of it
	serial     uint64        // the Cache's when this device last changed, 0: not in this life
	whole      uint64        // the Cache's when more changed than properties: shown whole to streams
	at         *list.Element // in order, nil while serial is 0
	waits      bool          // in turns
	unkept     bool          // the model, when first was, has properties without history
	first      *models.ResolvedProperty
	wake       chan struct{} // closed when it changes; nil while nobody waits for a write
	stateSince time.Time
}

// Open loads the checkpoints.
func Open(ctx context.Context, cfg Config) (*Cache, error) {
	c := &Cache{store: cfg.Store, history: cfg.History, registry: cfg.Registry, now: cfg.Now, log: cfg.Log, boot: strconv.FormatUint(rand.Uint64(), 36),
		devices: map[string]*device{}, nodes: map[string]*node{}, dirty: map[string]struct{}{}, serial: 1}
	if c.now == nil {
		c.now = time.Now
	}
	c.started = c.now()
	highest := uint64(0)
	err := cfg.Store.LoadTwins(ctx, func(cp store.Checkpoint) error {
		if _, there := c.registry.DeviceByUID(cp.DeviceUID); !there {
			return nil // deleted while it was being stored
		}
		var s stored
		if err := json.Unmarshal(cp.JSON, &s); err != nil {
			c.log.Error("a stored twin cannot be read; its edge will say it anew", "device", cp.DeviceUID, "error", err)
			return nil
		}
		c.devices[cp.DeviceUID] = &device{uid: cp.DeviceUID, shadow: s.Shadow(), assignment: s.Assignment, stateSince: s.StateSince}
		highest = max(highest, s.Version)
		return nil
	})
	if err == nil {
		err = c.beginVersions(ctx, highest)
	}
	if err != nil {
		return nil, fmt.Errorf("load twins: %w", err)
	}
	c.unread = c.unsettled()
	c.readWrites(ctx) // mostly all there is to read
	return c, nil
}

// stored is a checkpoint's content.
type stored struct {
	twin.StoredShadow
	Assignment uint64    `json:"assignment"`
	StateSince time.Time `json:"stateSince,omitzero"`
}

// Run checkpoints and withdraws expired desired values until ctx ends, and
// checkpoints a last time then.
func (c *Cache) Run(ctx context.Context) error {
	timer := time.NewTimer(checkpointEvery)
	defer timer.Stop()
	var replay sync.WaitGroup
	replay.Go(func() { c.replay(ctx) })
	defer replay.Wait()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			if c.checkpoint(last, true) {
				c.endVersions(last)
			}
			return ctx.Err()
		case <-timer.C:
			began := time.Now()
			c.checkpoint(ctx, false)
			took := time.Since(began)
			if c.readWrites(ctx) { // else what looks overdue may be confirmed
				c.expire(ctx)
			}
			timer.Reset(max(checkpointEvery, 10*took))
		}
	}
}

// checkpoint stores the shadows that changed, and of those of which history has the
// changes all, or those whose turn it is. It reports whether that worked; what fails
// is tried again with the next.
func (c *Cache) checkpoint(ctx context.Context, all bool) bool {
	uids := c.due(all)
	failpoint.Here("twins.checkpoint")
	for len(uids) > 0 {
		part := uids[:min(len(uids), checkpointPart)]
		batch := c.encode(part)
		if len(batch) > 0 {
			if err := c.store.SaveTwins(ctx, batch); err != nil {
				c.log.Warn("checkpoint twins; will try again", "devices", len(uids), "error", err)
				c.mu.Lock()
				for _, uid := range uids {
					c.dirty[uid] = struct{}{}
				}
				c.mu.Unlock()
				return false
			}
		}
		uids = uids[len(part):]
	}
	return true
}

// due takes the devices that the next checkpoint stores.
func (c *Cache) due(all bool) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	dirty := c.dirty
	c.dirty = map[string]struct{}{}
	n := max(checkpointFew, (len(c.turns)+checkpointTurns-1)/checkpointTurns)
	if all || n > len(c.turns) {
		n = len(c.turns)
	}
	for _, uid := range c.turns[:n] {
		if d := c.devices[uid]; d != nil {
			d.waits = false
			dirty[uid] = struct{}{}
		}
	}
	c.turns = slices.Delete(c.turns, 0, n)
	return sortedKeys(dirty)
}

// encode makes the checkpoints of devices that are still there.
func (c *Cache) encode(uids []string) (batch []store.Checkpoint) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, uid := range uids {
		d := c.devices[uid]
		if d == nil {
			continue
		}
		text, err := d.appendJSON(nil)
		if err != nil {
			c.log.Error("encode a twin", "device", uid, "error", err)
			continue
		}
		batch = append(batch, store.Checkpoint{DeviceUID: uid, JSON: text})
	}
	return batch
}

// appendJSON appends what stored reads.
func (d *device) appendJSON(b []byte) ([]byte, error) {
	b = strconv.AppendUint(append(b, `{"assignment":`...), d.assignment, 10)
	if !d.stateSince.IsZero() {
		text, err := d.stateSince.MarshalJSON()
		if err != nil {
			return nil, err
		}
		b = append(append(b, `,"stateSince":`...), text...)
	}
	fields := len(b)
	b, err := d.shadow.AppendJSON(b)
	if err == nil {
		b[fields] = ',' // the shadow's are fields of the same object
	}
	return b, err
}

// expireGrace lets an edge that is connected give its own verdict first.
const expireGrace = 2 * time.Second

// expire withdraws desired values that were not confirmed in time.
func (c *Cache) expire(ctx context.Context) {
	now := c.now()
	for _, e := range c.registry.Expiring(now) {
		if !c.overdue(e, now) {
			continue
		}
		if err := c.registry.Withdraw(ctx, e.DeviceUID, e.Property, e.ID); err != nil {
			c.log.Warn("withdraw an expired desired value", "device", e.DeviceUID, "property", e.Property, "error", err)
			continue
		}
		c.mu.Lock()
		if view, there := c.registry.DeviceByUID(e.DeviceUID); there {
			d := c.deviceLocked(view)
			d.shadow.SetWrite(e.Property, twin.Write{ID: e.ID, State: twin.Expired, Error: "not confirmed in time", Time: now}, e.ID)
			d.shadow.Touch(e.Property)
			c.changedLocked(d, false)
		}
		c.mu.Unlock()
	}
}

// overdue reports whether a desired value whose time is over is to be withdrawn
// now.
func (c *Cache) overdue(e registry.Expiring, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	view, there := c.registry.DeviceByUID(e.DeviceUID)
	if !there {
		return false
	}
	switch c.writeLocked(e.DeviceUID, e.Property, e.ID).State {
	case twin.Applied:
		c.registry.Confirmed(e)
		return false
	case twin.Expired:
		return true
	}
	return !c.liveLocked(view.Device.Spec.Node) || !now.Before(e.At.Add(expireGrace))
}

// writeLocked returns what is known of a write.
func (c *Cache) writeLocked(uid, property, id string) twin.Write {
	if d := c.devices[uid]; d != nil && id != "" {
		if w := d.shadow.Property(property).Write(); w.ID == id {
			return w
		}
	}
	return twin.Write{}
}

// WriteState returns how far a write is known to have come, "" when nothing is
// known of it.
func (c *Cache) WriteState(deviceUID, property, id string) twin.WriteState {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writeLocked(deviceUID, property, id).State
}

// Reported returns what is known of a property, as a reader would see it.
func (c *Cache) Reported(deviceUID, property string) twin.Reported {
	c.mu.Lock()
	defer c.mu.Unlock()
	view, there := c.registry.DeviceByUID(deviceUID)
	d := c.devices[deviceUID]
	if !there || d == nil {
		return twin.Reported{}
	}
	p := d.shadow.Property(property)
	if p == nil {
		return twin.Reported{}
	}
	r := p.Reported
	if away := c.awayLocked(d, view.Device.Spec.Node); !away.IsZero() {
		r = r.Degrade(away)
	}
	return r
}

// deviceLocked returns the device of a view, which must have been taken under
// the same lock. After a move to another node it counts anew, since positions in
// two nodes' logs do not compare, and what is known of it is old.
func (c *Cache) deviceLocked(view registry.DeviceView) *device {
	uid := view.Device.Metadata.UID
	d := c.devices[uid]
	if d == nil {
		d = &device{uid: uid, assignment: view.Assignment, stateSince: c.now(), shadow: twin.Shadow{Version: c.firstVersion()}}
		c.devices[uid] = d
		c.dirty[uid] = struct{}{}
	}
	if p := view.Properties; len(p) > 0 && d.first != &p[0] {
		d.first = &p[0]
		d.unkept = slices.ContainsFunc(p, func(p models.ResolvedProperty) bool { return !p.History })
		d.arrange(p)
	}
	if d.assignment < view.Assignment {
		now := c.now()
		d.assignment, d.session, d.stateSince = view.Assignment, 0, now
		d.shadow.State, d.shadow.Message, d.shadow.StateAt = "", "", twin.Position{}
		d.shadow.Problem, d.shadow.ReadPlan = "", nil
		for _, name := range d.shadow.Names() {
			p := d.shadow.Property(name)
			p.At, p.Reported = twin.Position{}, p.Reported.Degrade(now)
			d.shadow.Touch(name)
		}
		c.changedLocked(d, true)
	}
	return d
}

// changedLocked counts a change of a device and wakes who waits.
func (c *Cache) changedLocked(d *device, whole bool) {
	c.dirty[d.uid] = struct{}{}
	c.tellLocked(d, whole)
}

// reportedLocked does so where history has what is new, but for properties that are
// not kept.
func (c *Cache) reportedLocked(d *device) {
	if d.unkept {
		c.dirty[d.uid] = struct{}{}
	} else {
		c.waitLocked(d)
	}
	c.tellLocked(d, false)
}

// waitLocked has a device stored when it is its turn.
func (c *Cache) waitLocked(d *device) {
	if !d.waits {
		d.waits = true
		c.turns = append(c.turns, d.uid)
	}
}

func (c *Cache) tellLocked(d *device, whole bool) {
	c.serial++
	d.serial = c.serial
	if d.at == nil {
		d.at = c.order.PushBack(d)
	} else {
		c.order.MoveToBack(d.at)
	}
	if whole {
		d.whole = c.serial
		d.shadow.Version++
	}
	d.wakeUp()
	if c.news != nil {
		close(c.news)
		c.news = nil
	}
}

func (d *device) wakeUp() {
	if d.wake != nil {
		close(d.wake)
		d.wake = nil
	}
}

func (c *Cache) liveLocked(name string) bool {
	n := c.nodes[name]
	return n != nil && n.live
}

// awayLocked returns since when a device has not been heard of, zero while what
// is known of it is fresh. When a node comes back its devices are fresh one by
// one, as it says everything of them: what they were before says nothing.
func (c *Cache) awayLocked(d *device, name string) time.Time {
	n := c.nodes[name]
	switch {
	case n == nil:
		return c.started
	case n.live && d != nil && d.session == n.session:
		return time.Time{}
	}
	return n.away
}

// NodeLive says that a node's session has begun or ended.
func (c *Cache) NodeLive(name string, live bool) {
	c.mu.Lock()
	n := c.nodes[name]
	if n == nil {
		n = &node{away: c.started}
		c.nodes[name] = n
	}
	if live {
		n.session++
	} else if n.live {
		n.away = c.now()
	}
	n.live = live
	var keys []models.Key
	for _, uid := range c.registry.NodeDevices(name) {
		if view, ok := c.registry.DeviceByUID(uid); ok {
			d := c.deviceLocked(view)
			c.waitLocked(d) // nothing new is known of it: with a plant's devices there is no hurry
			c.tellLocked(d, true)
			keys = append(keys, models.KeyOf(view.Device))
		}
	}
	c.mu.Unlock()
	for _, key := range keys {
		c.registry.StatusChanged(key)
	}
}

// DesiredChanged says that desired values of a device have changed.
func (c *Cache) DesiredChanged(uid string, properties ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	view, ok := c.registry.DeviceByUID(uid)
	if !ok {
		return
	}
	d := c.deviceLocked(view)
	for _, p := range properties {
		d.shadow.Touch(p)
	}
	c.changedLocked(d, false)
}

// DeviceChanged says that a device's object, or its model, has changed.
func (c *Cache) DeviceChanged(uid string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if view, ok := c.registry.DeviceByUID(uid); ok {
		c.changedLocked(c.deviceLocked(view), true)
	}
}

// Forget drops what is known of a device that is gone, and tells streams.
func (c *Cache) Forget(gone *models.Device) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := gone.Metadata
	uid := m.UID
	c.serial++
	c.gone = append(c.gone, goneDevice{uid, m.Namespace, m.Name, m.Labels, c.serial})
	if len(c.gone) > goneKept {
		c.floor = c.gone[0].serial
		c.gone = slices.Delete(c.gone, 0, 1)
	}
	if c.news != nil {
		close(c.news)
		c.news = nil
	}
	d := c.devices[uid]
	if d == nil {
		return
	}
	delete(c.devices, uid)
	if d.at != nil {
		c.order.Remove(d.at)
	}
	d.wakeUp()
}
