// Package twins is the hub's memory of every device's twin: what edges report
// lands here after it is committed, and readers, streams and those who wait
// for a write are served from here. Shadows are checkpointed to the store about
// once a second; after a restart an edge that is connected says everything
// anew, and one that is not is shown as it was at the checkpoint, and stale.
package twins

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/registry"
	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
	"github.com/whimbrel-edge/whimbrel/twin"
)

// checkpointEvery is how often changed shadows are stored.
const checkpointEvery = time.Second

// Registry is what the cache needs to know of devices.
type Registry interface {
	Device(namespace, name string) (registry.DeviceView, error)
	DeviceByUID(uid string) (registry.DeviceView, bool)
	DeviceUIDs(o models.ListOptions) []string
	NodeDevices(node string) []string
	StatusChanged(key models.Key)
	Expiring() []registry.Expiring
	Withdraw(ctx context.Context, deviceUID, property, id string) error
}

// Config is what a Cache needs.
type Config struct {
	Store    store.Twins
	Registry Registry
	Now      func() time.Time
	Log      *slog.Logger
}

// Cache holds the shadows. Its methods are safe for concurrent use.
type Cache struct {
	store    store.Twins
	registry Registry
	now      func() time.Time
	log      *slog.Logger

	mu      sync.Mutex // protects all below; held only for memory work
	devices map[string]*device
	nodes   map[string]time.Time // node name to when it went away; zero while its session is live
	started time.Time
	serial  uint64        // counts changes over all devices
	changed chan struct{} // closed and replaced when serial grows
}

type device struct {
	shadow     twin.Shadow
	assignment uint64
	serial     uint64 // the Cache's when this device last changed
	whole      uint64 // the Cache's when more changed than properties: shown whole to streams
	dirty      bool   // changed since the checkpoint
	stateSince time.Time
}

// Open loads the checkpoints.
func Open(ctx context.Context, cfg Config) (*Cache, error) {
	c := &Cache{store: cfg.Store, registry: cfg.Registry, now: cfg.Now, log: cfg.Log, devices: map[string]*device{},
		nodes: map[string]time.Time{}, changed: make(chan struct{})}
	if c.now == nil {
		c.now = time.Now
	}
	c.started = c.now()
	err := cfg.Store.LoadTwins(ctx, func(cp store.Checkpoint) error {
		var s stored
		if err := json.Unmarshal(cp.JSON, &s); err != nil {
			return fmt.Errorf("stored twin of %s: %w", cp.DeviceUID, err)
		}
		c.devices[cp.DeviceUID] = &device{shadow: s.Shadow, assignment: s.Assignment, stateSince: s.StateSince}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("load twins: %w", err)
	}
	return c, nil
}

// stored is a checkpoint's content.
type stored struct {
	twin.Shadow
	Assignment uint64    `json:"assignment"`
	StateSince time.Time `json:"stateSince,omitzero"`
}

// Run checkpoints and withdraws expired desired values until ctx ends, and
// checkpoints a last time then.
func (c *Cache) Run(ctx context.Context) error {
	tick := time.NewTicker(checkpointEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			c.checkpoint(last)
			return ctx.Err()
		case <-tick.C:
			c.checkpoint(ctx)
			c.expire(ctx)
		}
	}
}

// checkpoint stores the shadows that changed. What fails is tried again with
// the next.
func (c *Cache) checkpoint(ctx context.Context) {
	c.mu.Lock()
	var batch []store.Checkpoint
	for uid, d := range c.devices {
		if !d.dirty {
			continue
		}
		if _, there := c.registry.DeviceByUID(uid); !there {
			delete(c.devices, uid)
			continue
		}
		text, err := json.Marshal(stored{d.shadow, d.assignment, d.stateSince})
		if err != nil {
			c.log.Error("encode a twin", "device", uid, "error", err)
			continue
		}
		d.dirty = false
		batch = append(batch, store.Checkpoint{DeviceUID: uid, JSON: text})
	}
	c.mu.Unlock()
	if len(batch) == 0 {
		return
	}
	if err := c.store.SaveTwins(ctx, batch); err != nil {
		c.log.Warn("checkpoint twins; will try again", "devices", len(batch), "error", err)
		c.mu.Lock()
		for _, cp := range batch {
			if d := c.devices[cp.DeviceUID]; d != nil {
				d.dirty = true
			}
		}
		c.mu.Unlock()
	}
}

// expireGrace lets an edge that is connected give its own verdict first.
const expireGrace = 2 * time.Second

// expire withdraws desired values that were not confirmed in time.
func (c *Cache) expire(ctx context.Context) {
	now := c.now()
	for _, e := range c.registry.Expiring() {
		view, ok := c.registry.DeviceByUID(e.DeviceUID)
		if !ok || now.Before(e.At) {
			continue
		}
		c.mu.Lock()
		d := c.deviceLocked(e.DeviceUID, view.Assignment)
		var w twin.Write
		if p := d.shadow.Properties[e.Property]; p != nil && p.Write.ID == e.ID {
			w = p.Write
		}
		live := c.awayLocked(view.Device.Spec.Node).IsZero()
		c.mu.Unlock()
		if w.State == twin.Applied || w.State != twin.Expired && live && now.Before(e.At.Add(expireGrace)) {
			continue
		}
		if err := c.registry.Withdraw(ctx, e.DeviceUID, e.Property, e.ID); err != nil {
			c.log.Warn("withdraw an expired desired value", "device", view.Device.Metadata.Name, "property", e.Property, "error", err)
			continue
		}
		c.mu.Lock()
		d.shadow.SetWrite(e.Property, twin.Write{ID: e.ID, State: twin.Expired, Error: "not confirmed in time", Time: now}, e.ID)
		d.shadow.Touch(e.Property)
		c.changedLocked(d, false)
		c.mu.Unlock()
	}
}

// deviceLocked returns the device as it is under this assignment. A new
// assignment keeps what is known, and starts counting anew: positions in two
// nodes' logs do not compare.
func (c *Cache) deviceLocked(uid string, assignment uint64) *device {
	d := c.devices[uid]
	if d == nil {
		d = &device{assignment: assignment, stateSince: c.now()}
		c.devices[uid] = d
	}
	if d.assignment != assignment {
		d.assignment = assignment
		d.shadow.StateAt = twin.Position{}
		for _, p := range d.shadow.Properties {
			p.At = twin.Position{}
		}
	}
	return d
}

// changedLocked counts a change of a device and wakes who waits.
func (c *Cache) changedLocked(d *device, whole bool) {
	c.serial++
	d.serial, d.dirty = c.serial, true
	if whole {
		d.whole = c.serial
	}
	close(c.changed)
	c.changed = make(chan struct{})
}

// awayLocked returns when a node went away, zero while it is connected.
func (c *Cache) awayLocked(node string) time.Time {
	at, known := c.nodes[node]
	if !known {
		return c.started
	}
	return at
}

// NodeLive says that a node's session has begun or ended.
func (c *Cache) NodeLive(node string, live bool) {
	c.mu.Lock()
	if live {
		c.nodes[node] = time.Time{}
	} else {
		c.nodes[node] = c.now()
	}
	uids := c.registry.NodeDevices(node)
	for _, uid := range uids {
		if view, ok := c.registry.DeviceByUID(uid); ok {
			c.changedLocked(c.deviceLocked(uid, view.Assignment), true)
		}
	}
	c.mu.Unlock()
	for _, uid := range uids {
		c.statusChanged(uid)
	}
}

func (c *Cache) statusChanged(uid string) {
	if view, ok := c.registry.DeviceByUID(uid); ok {
		c.registry.StatusChanged(models.KeyOf(view.Device))
	}
}

// DesiredChanged says that desired values of a device have changed.
func (c *Cache) DesiredChanged(uid string, properties ...string) {
	view, ok := c.registry.DeviceByUID(uid)
	if !ok {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.deviceLocked(uid, view.Assignment)
	for _, p := range properties {
		d.shadow.Touch(p)
	}
	c.changedLocked(d, false)
}

// Committed takes a record of a node's log after it was committed.
func (c *Cache) Committed(node string, rank, seq uint64, rec *edgelink.Decoded) {
	at := twin.Position{Rank: rank, Seq: seq}
	status := map[string]bool{}
	c.mu.Lock()
	touched := map[*device]bool{}
	// of finds the device if this node serves it under this assignment: what a
	// former assignment left in a log is history, not news.
	of := func(ref edgelink.DeviceRef) (*device, registry.DeviceView) {
		view, ok := c.registry.DeviceByUID(ref.UID)
		if !ok || view.Assignment != ref.Assignment || view.Device.Spec.Node != node {
			return nil, view
		}
		return c.deviceLocked(ref.UID, ref.Assignment), view
	}
	for i := range rec.Series {
		s := &rec.Series[i]
		if d, _ := of(s.Device); d != nil {
			sample := s.At(s.Len() - 1)
			if sample.Quality == models.Bad && s.Len() > 1 { // keep the last good value on the way
				for j := s.Len() - 2; j >= 0; j-- {
					if before := s.At(j); before.Quality != models.Bad {
						d.shadow.Report(s.Property, before, at)
						break
					}
				}
			}
			if d.shadow.Report(s.Property, sample, at) {
				touched[d] = true
			}
			if sample.Quality != models.Bad && sample.Time.After(d.shadow.LastSeen) && !at.Before(d.shadow.StateAt) {
				d.shadow.LastSeen = sample.Time
			}
		}
	}
	for _, w := range rec.Writes {
		if d, view := of(w.Device); d != nil {
			if d.setWrite(view, w.Property, twin.Write{ID: w.ID, State: twin.WriteState(w.State), Error: w.Error, Refused: w.Refused, Late: w.Late, Time: w.Time}) {
				touched[d] = true
			}
		}
	}
	for _, s := range rec.States {
		if d, _ := of(s.Device); d != nil && d.setState(s.State, s.Message, at, s.Time) {
			touched[d] = true
			status[s.Device.UID] = true
		}
	}
	for d := range touched {
		c.changedLocked(d, false)
	}
	c.mu.Unlock()
	for uid := range status {
		c.statusChanged(uid)
	}
}

func (d *device) setWrite(view registry.DeviceView, property string, w twin.Write) bool {
	return d.shadow.SetWrite(property, w, view.Desired.Properties[property].ID)
}

func (d *device) setState(s models.DeviceState, message string, at twin.Position, when time.Time) bool {
	before := d.shadow.State
	changed := d.shadow.SetState(s, message, at)
	if before != d.shadow.State {
		d.stateSince = when
	}
	return changed
}

// Latest takes the newest state of devices from a node's session.
func (c *Cache) Latest(node string, rank uint64, l *pb.Latest) {
	status := map[string]bool{}
	c.mu.Lock()
	for _, t := range l.Twins {
		view, ok := c.registry.DeviceByUID(t.GetDevice().GetUid())
		if !ok || view.Assignment != t.Device.Assignment || view.Device.Spec.Node != node {
			continue
		}
		d := c.deviceLocked(t.Device.Uid, t.Device.Assignment)
		if c.latestLocked(d, view, rank, t) {
			status[t.Device.Uid] = true
		}
	}
	c.mu.Unlock()
	for uid := range status {
		c.statusChanged(uid)
	}
}

func (c *Cache) latestLocked(d *device, view registry.DeviceView, rank uint64, t *pb.LatestTwin) (status bool) {
	before := d.shadow.Version
	for _, v := range t.Values {
		value, err := models.FromRaw(models.Kind(v.Kind), v.Bits, string(v.Text))
		if err != nil || v.Quality > uint32(models.Bad) || v.Property == "" {
			continue // from a newer edge: the log lane has it
		}
		r := twin.Reported{Value: value, Quality: models.Quality(v.Quality), Reason: models.Reason(v.Reason)}
		if v.TimeUs != 0 {
			r.Time = time.UnixMicro(v.TimeUs)
		}
		if v.SinceUs != 0 {
			r.Since = time.UnixMicro(v.SinceUs)
		}
		d.shadow.Set(v.Property, r, twin.Position{Rank: rank, Seq: max(v.Seq, t.Seq)})
	}
	for _, w := range t.Writes {
		d.setWrite(view, w.Property, twin.Write{ID: w.Id, State: twin.WriteState(w.State), Error: w.Error, Refused: w.Refused, Late: w.Late, Time: time.UnixMicro(w.TimeUs)})
	}
	if t.State != "" && d.setState(models.DeviceState(t.State), t.StateReason, twin.Position{Rank: rank, Seq: t.Seq}, c.now()) {
		status = true
	}
	if t.SeenUs != 0 {
		d.shadow.LastSeen = time.UnixMicro(t.SeenUs)
	}
	if len(t.ReadPlan) > 0 {
		var plan models.ReadPlan
		if json.Unmarshal(t.ReadPlan, &plan) == nil {
			d.shadow.ReadPlan = &plan
			status = true
		}
	}
	if t.Full || t.Problem != "" {
		if d.shadow.Problem != t.Problem {
			d.shadow.Problem = t.Problem
			d.shadow.Version++
			status = true
		}
	}
	if t.Full {
		d.shadow.Drop(func(name string) bool {
			return slices.ContainsFunc(view.Properties, func(p models.ResolvedProperty) bool { return p.Name == name })
		})
	}
	if d.shadow.Version != before || status {
		c.changedLocked(d, false)
	}
	return status
}

// Seen takes when devices of a node last answered.
func (c *Cache) Seen(node string, seen []*pb.Seen) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range seen {
		view, ok := c.registry.DeviceByUID(s.Uid)
		if ok && view.Device.Spec.Node == node && s.SeenUs != 0 {
			d := c.deviceLocked(s.Uid, view.Assignment)
			d.shadow.LastSeen = time.UnixMicro(s.SeenUs)
			d.dirty = true
		}
	}
}

// document shows a device's twin. since leaves out properties not changed
// after that version.
func (c *Cache) documentLocked(view registry.DeviceView, since uint64) twin.Document {
	m := view.Device.Metadata
	d := c.deviceLocked(m.UID, view.Assignment)
	away := c.awayLocked(view.Device.Spec.Node)
	return d.shadow.Document(twin.View{Device: m.Name, Namespace: m.Namespace, Properties: view.Properties, Desired: view.Desired, Away: away, Since: since})
}

// DeviceStatus returns a device's status for its document.
func (c *Cache) DeviceStatus(dev *models.Device, assignment uint64) *models.DeviceStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &models.DeviceStatus{State: models.StateUnknown}
	d := c.devices[dev.Metadata.UID]
	if d == nil {
		return s
	}
	if !d.shadow.LastSeen.IsZero() {
		s.LastSeen = new(d.shadow.LastSeen.UTC())
	}
	s.ReadPlan = d.shadow.ReadPlan
	away := c.awayLocked(dev.Spec.Node)
	if away.IsZero() && d.assignment == assignment && d.shadow.State != "" {
		s.State = d.shadow.State
	}
	ready := models.Condition{Type: "Ready", Status: "True", Reason: "Online", LastTransitionTime: d.stateSince.UTC()}
	switch {
	case !away.IsZero():
		ready.Status, ready.Reason, ready.Message, ready.LastTransitionTime = "Unknown", "NodeOffline", "its node is not connected", away.UTC()
	case d.shadow.Problem != "":
		ready.Status, ready.Reason, ready.Message = "False", "Misconfigured", d.shadow.Problem
	case s.State == models.StateUnknown:
		ready.Status, ready.Reason, ready.Message = "Unknown", "NotReported", "the edge has not said anything of it yet"
	case s.State != models.StateOnline:
		ready.Status, ready.Reason, ready.Message = "False", map[models.DeviceState]string{models.StateOffline: "Offline", models.StateDegraded: "Degraded"}[s.State], d.shadow.Message
	}
	s.Conditions = []models.Condition{ready}
	return s
}

// Forget drops what is known of devices that are gone.
func (c *Cache) Forget(uid string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.devices, uid)
}

// sortedKeys is the order in which documents are sent.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
