package ingest

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/events"
	"github.com/whimbrel-edge/whimbrel/devicehub/registry"
	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/twin"
)

// What records say beside samples becomes events, rows of the ledger of writes,
// and the history of devices' states, in the transaction that acknowledges them.

// StateSeries is the series of a device's states: a text that is the state, with
// its reason. No property has a name like it.
const StateSeries = "$state"

// source is what events are said to come from.
const source = "edge"

// Bounds of what an edge says of a write.
const (
	maxWriteID   = 64
	maxWriteName = 253
)

// ending is how a write came to a bad end. An edge that was killed may tell of it once
// more, by a record of its own.
type ending struct {
	id, state string
	at        int64
}

// lastKept bounds the caches of states, of who serves what and of how writes ended.
// When one is full it starts anew.
const lastKept = 1 << 16

// state is what was last known of how a device does. It is never unknown.
type state struct {
	state  models.DeviceState
	reason string
}

// served is a device under an assignment at a node.
type served struct {
	node string // uid
	ref  edgelink.DeviceRef
}

// loadStates makes sure that g.states knows what is stored of every device whose
// state the group tells.
func (g *Ingester) loadStates(ctx context.Context, group []*item) error {
	if len(g.states) > lastKept {
		clear(g.states)
	}
	for _, it := range group {
		for _, r := range it.records {
			if r.decoded == nil {
				continue
			}
			for _, s := range r.decoded.States {
				if _, known := g.states[s.Device.UID]; known {
					continue
				}
				last, err := g.cfg.Store.LastSamples(ctx, s.Device.UID, []string{StateSeries}, math.MaxInt64)
				if err != nil {
					return err
				}
				v := last[StateSeries]
				g.states[s.Device.UID] = state{models.DeviceState(v.Text), v.Reason}
			}
		}
	}
	return nil
}

// addNews adds to the batch what a record says beside samples and gaps.
func (g *Ingester) addNews(p *plan, b *store.Batch, from Origin, r record, now time.Time) {
	d := r.decoded
	var last edgelink.DeviceRef
	for i := range d.Series {
		if ref := d.Series[i].Device; r.ids[i] != notServed && ref != last {
			p.addServed(g, b, from, ref)
			last = ref
		}
	}
	for i, l := range d.Locals {
		if j := r.judged[i]; j != nil && j.Verdict == twin.Overridden {
			g.addOverridden(b, from, l, *j, now)
		}
	}
	for _, w := range d.Writes {
		if !r.refused[w.Device] {
			g.addWrite(p, b, from, w, now)
		}
	}
	for i, s := range d.States {
		if r.stateIDs[i] != notServed {
			g.addState(p, b, from, s, r.stateIDs[i], now)
		}
	}
	for _, gap := range d.Gaps {
		o := models.Occurrence{Object: models.ObjectReference{Kind: "Node", Name: from.Node, UID: from.NodeUID}, Severity: models.SeverityWarning, Source: source, Time: gap.To}
		if o.Reason, o.Message = lossOf(gap); o.Reason != "" {
			b.Events = append(b.Events, events.Of(o, from.Node, now))
		}
	}
}

// lossOf is the event of a gap record, "" for one that has an event of its own.
func lossOf(gap edgelink.Gap) (reason, message string) {
	why := map[string]string{
		edgelink.GapOutboxFull: "its outbox was full (--outbox-bytes)",
		edgelink.GapOutboxAge:  "they were in its outbox for longer than --outbox-age",
		edgelink.GapDiskFull:   "its disk was full or failed",
	}[gap.Reason]
	switch {
	case why != "":
		return "SamplesDropped", fmt.Sprintf("%d samples%s were dropped by the edge and will be missing in history: %s", gap.Samples, between(gap.From, gap.To), why)
	case gap.Reason == edgelink.GapUnreadable:
		what := fmt.Sprintf("records %d to %d of the node's log", gap.FirstSeq, gap.LastSeq)
		if gap.LastSeq == 0 {
			what = "the node's log, or a part of it,"
		}
		message = what + " could not be read at the edge: what was in it is lost, and how many samples that is, nobody knows"
		if gap.Samples > 0 {
			message = fmt.Sprintf("%s could not be read at the edge: %d samples or more%s are lost", what, gap.Samples, between(gap.From, gap.To))
		}
		return "LogUnreadable", message
	}
	return "", ""
}

func between(from, to time.Time) string {
	if from.IsZero() || to.IsZero() {
		return ""
	}
	return fmt.Sprintf(" (from %s to %s)", from.UTC().Format(time.RFC3339), to.UTC().Format(time.RFC3339))
}

func (p *plan) addServed(g *Ingester, b *store.Batch, from Origin, ref edgelink.DeviceRef) {
	key := served{from.NodeUID, ref}
	if g.served[key] || p.served[key] {
		return
	}
	p.served[key] = true
	b.Served = append(b.Served, store.Served{DeviceUID: ref.UID, Assignment: ref.Assignment})
}

func stateKey(ref edgelink.DeviceRef) store.SeriesKey {
	return store.SeriesKey{DeviceUID: ref.UID, Assignment: ref.Assignment, Property: StateSeries}
}

// addState records a state that is another than the last one. That an edge does
// not know, because it has just started, is no state of the device.
func (g *Ingester) addState(p *plan, b *store.Batch, from Origin, s edgelink.StateEvent, series int64, now time.Time) {
	is := state{s.State, s.Reason}
	o := models.Occurrence{Severity: models.SeverityWarning, Message: s.Message, Source: source, Time: s.Time}
	switch {
	case s.State == models.StateOnline:
		o.Severity, o.Reason, o.Message = models.SeverityNormal, "DeviceOnline", "the device answers"
	case s.State == models.StateDegraded:
		o.Reason = "DeviceDegraded"
	case s.State == models.StateOffline && s.Reason == string(models.ReasonConfiguration):
		o.Reason = "DeviceMisconfigured"
	case s.State == models.StateOffline && s.Reason == string(models.ReasonMapperLost):
		o.Reason = "MapperLost"
	case s.State == models.StateOffline:
		o.Reason = "DeviceOffline"
	default:
		return // unknown, or of a newer edge
	}
	before, staged := p.states[s.Device.UID]
	if !staged {
		before = g.states[s.Device.UID]
	}
	if assignment, _, ok := g.cfg.Devices.Current(s.Device.UID); ok && assignment == s.Device.Assignment {
		if before == is {
			return
		}
		p.states[s.Device.UID] = is
		if is.state == models.StateOnline && before.reason == string(models.ReasonMapperLost) {
			o.Reason, o.Message = "MapperBack", "the mapper is back and the device answers"
		}
	}
	at := timeOr(s.Time, now)
	appendSamples(&b.Samples, series, &edgelink.Columns{Times: []int64{at.UnixMicro()}, Kinds: []uint8{uint8(models.KindString)},
		Texts: []string{string(s.State)}, Reasons: []string{s.Reason}}, 0, 1)
	if o.Message == "" {
		o.Message = s.Reason
	}
	g.addEvent(b, from, s.Device, "", o, now)
}

// addEvent adds an event of a device, if that is there still.
func (g *Ingester) addEvent(b *store.Batch, from Origin, ref edgelink.DeviceRef, field string, o models.Occurrence, now time.Time) {
	of, ok := g.cfg.Devices.Reference(ref.UID)
	if !ok {
		return
	}
	o.Object = of
	o.Object.FieldPath = field
	b.Events = append(b.Events, events.Of(o, from.Node, now))
}

// addWrite takes what an edge says of a write into the ledger.
func (g *Ingester) addWrite(p *plan, b *store.Batch, from Origin, w edgelink.WriteEvent, now time.Time) {
	switch twin.WriteState(w.State) {
	case twin.Pending, twin.Applied, twin.Failed, twin.Superseded, twin.Expired, twin.Unknown:
	default:
		return // of a newer edge
	}
	if w.ID == "" || len(w.ID) > maxWriteID || len(w.Property) > maxWriteName {
		return
	}
	if w.Asked != nil && w.Asked.ID == w.ID {
		b.Writes = append(b.Writes, localWrite(w.Device.UID, *w.Asked, now))
	}
	final := twin.WriteState(w.State).Final()
	if final || w.Error != "" || !w.Sent.IsZero() {
		o := store.WriteOutcome{ID: w.ID, DeviceUID: w.Device.UID, State: w.State, Error: w.Error, Final: final, Applied: w.State == string(twin.Applied),
			Refused: w.Refused, Late: w.Late, At: timeOr(w.Time, now)}
		if !w.Sent.IsZero() {
			o.Sent = timeOr(w.Sent, now)
		}
		b.Outcomes = append(b.Outcomes, o)
	}
	o := models.Occurrence{Severity: models.SeverityWarning, Message: w.Error, Source: source, Time: w.Time}
	switch twin.WriteState(w.State) {
	case twin.Failed:
		o.Reason = "WriteFailed"
	case twin.Unknown:
		o.Reason = "WriteUnknown"
	default:
		return
	}
	if key := (ending{w.ID, w.State, w.Time.UnixMicro()}); !g.badEnds[key] && !p.badEnds[key] {
		p.badEnds[key] = true
		g.addEvent(b, from, w.Device, w.Property, o, now)
	}
}

// localWrite is a write made at an edge as the ledger keeps it.
func localWrite(uid string, l edgelink.LocalDesired, now time.Time) store.Write {
	w := store.Write{ID: l.ID, DeviceUID: uid, Property: l.Property, Value: string(l.Value.AppendJSON(nil)), By: l.By, Origin: l.Origin, Reason: l.Reason,
		Asked: timeOr(l.Time, now), State: string(twin.Pending)}
	if w.Origin == "" {
		w.Origin = registry.OriginEdge
	}
	if l.Before != nil {
		w.Before = registry.BeforeJSON(twin.Heard(*l.Before))
	}
	if l.Value.IsNull() {
		w.State, w.Ended, w.Settled = registry.StateWithdrawn, w.Asked, store.SettledByEdge
	}
	return w
}

// addOverridden takes a write made at an edge that did not get to be desired.
func (g *Ingester) addOverridden(b *store.Batch, from Origin, l edgelink.LocalDesired, j registry.Judgement, now time.Time) {
	if l.ID == "" || len(l.ID) > maxWriteID || len(l.Property) > maxWriteName {
		return
	}
	why := j.Why
	if why == "" {
		why = "the property was changed at the hub meanwhile, and the hub's value stands"
	}
	b.Writes = append(b.Writes, localWrite(l.Device.UID, l, now))
	b.Ends = append(b.Ends, store.WriteEnd{ID: l.ID, At: now, SupersededBy: j.By, State: string(twin.Superseded), Error: why})
	by := l.By
	if by == "" {
		by = "somebody"
	}
	g.addEvent(b, from, l.Device, l.Property, models.Occurrence{Severity: models.SeverityWarning, Reason: "WriteConflict", Source: source, Time: l.Time,
		Message: fmt.Sprintf("a write made at the edge by %s was superseded: %s", by, why)}, now)
}

// timeOr is a time that an edge says, or now where JSON could not hold it.
func timeOr(t, now time.Time) time.Time {
	if y := t.Year(); t.IsZero() || y < 1 || y > 9999 {
		return now
	}
	return t
}
