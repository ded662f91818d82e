package twins

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/registry"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
	"github.com/whimbrel-edge/whimbrel/twin"
)

// Bounds of what an edge may have kept of a device beside its values.
const (
	maxText = 2 << 10
	maxPlan = 64 << 10
)

// Committed takes a record of a node's log after it was committed. What the
// latest lane has said since is not turned back: a position is said once by
// each lane, and the latest lane's word at it is the later one.
func (c *Cache) Committed(node string, rank, seq uint64, rec *edgelink.Decoded) {
	at := twin.Position{Rank: rank, Seq: seq}
	var keys []models.Key
	c.mu.Lock()
	touched := map[*device]bool{} // true: by more than values
	now := c.now()
	var d *device
	var view registry.DeviceView
	for i := range rec.Series {
		s := &rec.Series[i]
		if i == 0 || s.Device != rec.Series[i-1].Device {
			d, view = c.servedLocked(node, s.Device)
		}
		if d != nil && d.report(&view, s, at, now) {
			touched[d] = false
		}
	}
	for _, w := range rec.Writes {
		if d, view := c.servedLocked(node, w.Device); d != nil {
			if d.setWrite(view, w.Property, twin.Write{ID: w.ID, State: twin.WriteState(w.State), Error: w.Error, Refused: w.Refused, Late: w.Late, Time: w.Time}) {
				touched[d] = true
			}
		}
	}
	news := map[*device]bool{} // of states: a record may hold several of one device
	for _, s := range rec.States {
		d, view := c.servedLocked(node, s.Device)
		if d == nil {
			continue
		}
		if _, judged := news[d]; !judged {
			news[d] = d.shadow.StateAt.Before(at)
		}
		if news[d] && d.setState(s.State, s.Message, at, s.Time) {
			touched[d] = true
			keys = append(keys, models.KeyOf(view.Device))
		}
	}
	for d, more := range touched {
		if more {
			c.changedLocked(d, false)
		} else {
			c.reportedLocked(d)
		}
	}
	c.mu.Unlock()
	for _, key := range keys {
		c.registry.StatusChanged(key)
	}
}

// servedLocked finds the device if this node serves it under this assignment:
// what a former assignment left in a log is history, not news.
func (c *Cache) servedLocked(node string, ref edgelink.DeviceRef) (*device, registry.DeviceView) {
	view, ok := c.registry.DeviceByUID(ref.UID)
	if !ok || view.Assignment != ref.Assignment || view.Device.Spec.Node != node {
		return nil, view
	}
	return c.deviceLocked(view), view
}

// knows reports whether a property is one of the device's: an edge cannot make
// twins grow by others.
func (d *device) knows(view registry.DeviceView, property string) bool {
	return d.shadow.Property(property) != nil || modelName(view.Properties, property) != ""
}

// arrange puts what is known of a device into the order of its model, in which edges
// mostly report. What was stored has none.
func (d *device) arrange(properties []models.ResolvedProperty) {
	if len(d.shadow.Names()) == 0 {
		return
	}
	order := make([]string, len(properties))
	for i := range properties {
		order[i] = properties[i].Name
	}
	d.shadow.Arrange(order)
}

// modelName returns a property's name as the model has it, "" when it has none such:
// a million twins share the names of their models, and do not keep alive the records
// that named them.
func modelName(properties []models.ResolvedProperty, name string) string {
	for i := range properties {
		if properties[i].Name == name {
			return properties[i].Name
		}
	}
	return ""
}

// report takes the samples of one property in one record.
func (d *device) report(view *registry.DeviceView, s *edgelink.Series, at twin.Position, now time.Time) (changed bool) {
	last := s.At(s.Len() - 1)
	last.Time = clamp(last.Time)
	if last.Quality != models.Bad && !at.Before(d.shadow.StateAt) {
		d.seen(last.Time, now)
	}
	property := s.Property
	if p := d.shadow.Property(property); p != nil && !p.At.Before(at) {
		return false
	} else if p == nil {
		d.shadow.Expect(len(view.Properties))
		if property = modelName(view.Properties, property); property == "" {
			return false
		}
	}
	if last.Quality == models.Bad { // the last good value on the way is worth keeping
		for i := s.Len() - 2; i >= 0; i-- {
			if quality, _ := s.Quality(i); quality != models.Bad {
				before := s.At(i)
				before.Time = clamp(before.Time)
				changed = d.shadow.Report(property, before, at)
				break
			}
		}
	}
	return d.shadow.Report(property, last, at) || changed
}

// seen notes that the device answered. A clock that is ahead must not make it
// look alive for ever.
func (d *device) seen(at, now time.Time) {
	if at.After(now) {
		at = now
	}
	if at.After(d.shadow.LastSeen) {
		d.shadow.LastSeen = at
	}
}

// clamp brings a time that an edge or device said into the years that JSON has.
func clamp(t time.Time) time.Time {
	switch y := t.Year(); {
	case y < 1:
		return time.Date(1, 1, 1, 0, 0, 1, 0, time.UTC)
	case y > 9999:
		return time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)
	}
	return t
}

// text brings a text that an edge said into bounds.
func text(s string) string {
	if len(s) > maxText {
		s = s[:maxText]
	}
	return strings.ToValidUTF8(s, "")
}

// setWrite takes the state of a write.
func (d *device) setWrite(view registry.DeviceView, property string, w twin.Write) bool {
	switch w.State {
	case twin.Pending, twin.Applied, twin.Failed, twin.Superseded, twin.Expired, twin.Unknown:
	default:
		return false // a newer edge's
	}
	desired, wanted := view.Desired.Properties[property]
	if w.ID == "" || len(w.ID) > maxText || !wanted && !d.knows(view, property) {
		return false
	}
	if before := d.shadow.Property(property).Write(); before.ID == w.ID && before.State == twin.Expired && w.State == twin.Applied {
		w.Late = true // the hub gave it up while the edge was away
	}
	w.Error, w.Time = text(w.Error), clamp(w.Time)
	return d.shadow.SetWrite(property, w, desired.ID)
}

func (d *device) setState(s models.DeviceState, message string, at twin.Position, when time.Time) bool {
	switch s {
	case models.StateOnline, models.StateOffline, models.StateDegraded, models.StateUnknown:
	default:
		return false // a newer edge's
	}
	before := d.shadow.State
	changed := d.shadow.SetState(s, text(message), at)
	if before != d.shadow.State {
		d.stateSince = clamp(when)
	}
	return changed
}

// Latest takes the newest state of devices from a node's session.
func (c *Cache) Latest(name string, rank uint64, l *pb.Latest) {
	var keys []models.Key
	c.mu.Lock()
	for _, t := range l.Twins {
		d, view := c.servedLocked(name, edgelink.DeviceRef{UID: t.GetDevice().GetUid(), Assignment: t.GetDevice().GetAssignment()})
		if d != nil && c.latestLocked(d, view, rank, t) {
			keys = append(keys, models.KeyOf(view.Device))
		}
	}
	c.mu.Unlock()
	for _, key := range keys {
		c.registry.StatusChanged(key)
	}
}

// latestLocked takes the newest state of one device and reports whether its
// status changed.
func (c *Cache) latestLocked(d *device, view registry.DeviceView, rank uint64, t *pb.LatestTwin) (status bool) {
	before := d.shadow.Version
	for _, v := range t.Values {
		r, ok := reported(v)
		if !ok || !d.knows(view, v.Property) {
			continue
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
		d.seen(clamp(time.UnixMicro(t.SeenUs)), c.now())
		c.waitLocked(d)
	}
	if len(t.ReadPlan) > 0 && len(t.ReadPlan) <= maxPlan {
		var plan models.ReadPlan
		if json.Unmarshal(t.ReadPlan, &plan) == nil {
			d.shadow.ReadPlan = &plan
			status = true
		}
	}
	if problem := text(t.Problem); problem != d.shadow.Problem && (t.Full || problem != "") {
		d.shadow.Problem = problem
		d.shadow.Version++
		status = true
	}
	fresh := false
	if t.Full {
		d.shadow.Drop(func(name string) bool {
			return slices.ContainsFunc(view.Properties, func(p models.ResolvedProperty) bool { return p.Name == name })
		})
		if n := c.nodes[view.Device.Spec.Node]; n != nil && d.session != n.session {
			d.session, fresh, status = n.session, true, true
		}
	}
	if d.shadow.Version != before || status {
		c.changedLocked(d, fresh)
	}
	return status
}

// reported reads a value of the latest lane; ok is false for one that only a
// newer edge would send: the log lane has it.
func reported(v *pb.LatestValue) (r twin.Reported, ok bool) {
	if v.Kind > math.MaxUint8 || v.Quality > math.MaxUint8 {
		return r, false
	}
	value, err := models.FromRaw(models.Kind(v.Kind), v.Bits, string(v.Text))
	if err != nil {
		return r, false
	}
	r = twin.Reported{Value: value, Quality: min(models.Quality(v.Quality), models.Bad), Reason: models.Reason(text(v.Reason))}
	if v.TimeUs != 0 {
		r.Time = clamp(time.UnixMicro(v.TimeUs))
	}
	if v.SinceUs != 0 {
		r.Since = clamp(time.UnixMicro(v.SinceUs))
	}
	return r, true
}

// Seen takes when devices of a node last answered.
func (c *Cache) Seen(name string, seen []*pb.Seen) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range seen {
		view, ok := c.registry.DeviceByUID(s.Uid)
		if ok && view.Device.Spec.Node == name && s.SeenUs != 0 {
			d := c.deviceLocked(view)
			d.seen(clamp(time.UnixMicro(s.SeenUs)), c.now())
			c.waitLocked(d)
		}
	}
}
