package registry

import (
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/twin"
)

// ledger is what a change of desired values adds to the ledger of writes.
type ledger struct {
	writes []store.Write
	ends   []store.WriteEnd
}

// StateWithdrawn is the ledger's word for a desired value that was taken back:
// there is nothing for a device to confirm.
const StateWithdrawn = "withdrawn"

// Origins of writes that the hub itself knows of.
const (
	OriginCloud = "cloud" // the hub's API
	OriginEdge  = "edge"  // made at an edge that does not say how
)

// told is what a change is told with, beside what is in the desired value.
type told struct {
	origin string
	before func(property string) twin.Reported
}

// ledgerOf compares desired values before and after a change. It is a pure
// function.
func ledgerOf(deviceUID string, before, after twin.Desired, t told, now time.Time) (l ledger) {
	for _, property := range slices.Sorted(maps.Keys(after.Properties)) {
		v, was := after.Properties[property], before.Properties[property]
		if v.Version == was.Version {
			continue
		}
		if v.ID == was.ID { // withdrawn under its own id: its time was over
			l.ends = append(l.ends, store.WriteEnd{ID: v.ID, At: now, State: string(twin.Expired), Error: "not confirmed in time"})
			continue
		}
		w := store.Write{ID: v.ID, DeviceUID: deviceUID, Property: property, Value: string(v.Value.AppendJSON(nil)), Version: v.Version,
			By: v.By, Origin: t.origin, Reason: v.Reason, Trace: v.Trace, Before: BeforeJSON(t.before(property)), Asked: v.Time, Since: now, State: string(twin.Pending)}
		if v.Expires != nil {
			w.Expires = *v.Expires
		}
		if v.Value.IsNull() {
			w.State, w.Ended, w.Settled = StateWithdrawn, now, store.SettledByEdge
		}
		l.writes = append(l.writes, w)
		end := store.WriteEnd{ID: was.ID, At: now, SupersededBy: v.ID, State: string(twin.Superseded)}
		if was.Value.IsNull() { // it was withdrawn: nothing is superseded
			end.SupersededBy = ""
		}
		if was.ID != "" {
			l.ends = append(l.ends, end)
		}
	}
	return l
}

// BeforeJSON is what was reported before a write, as the ledger keeps it.
func BeforeJSON(r twin.Reported) string {
	if !r.Known() {
		return ""
	}
	doc := r.Doc()
	text, err := json.Marshal(doc)
	if err != nil {
		return "" // unreachable: a Reported always encodes
	}
	return string(text)
}

// deletedLedger ends what is desired of a device that goes.
func deletedLedger(d twin.Desired, now time.Time) (l ledger) {
	for _, property := range slices.Sorted(maps.Keys(d.Properties)) {
		if v := d.Properties[property]; !v.Value.IsNull() {
			l.ends = append(l.ends, store.WriteEnd{ID: v.ID, At: now, State: string(twin.Superseded), Error: "the device was deleted"})
		}
	}
	return l
}

// kept adds to a commit what the staged changes leave behind: the ledger, which
// node devices are assigned to since when, and which devices are gone.
func (s *stage) kept(c *store.Commit) {
	now := s.r.now().UTC()
	for _, ch := range s.changes {
		c.Writes, c.WriteEnds = append(c.Writes, ch.ledger.writes...), append(c.WriteEnds, ch.ledger.ends...)
		if ch.entry == nil || ch.desired != nil {
			continue
		}
		d, isDevice := ch.entry.object.(*models.Device)
		switch {
		case !isDevice:
		case ch.typ == models.Deleted:
			m := d.Metadata
			c.Gone = append(c.Gone, store.DeletedDevice{UID: m.UID, Namespace: m.Namespace, Name: m.Name, Deleted: now})
		case ch.before == nil || ch.before.assignment != ch.entry.assignment:
			c.Assigned = append(c.Assigned, store.Assignment{DeviceUID: d.Metadata.UID, Assignment: ch.entry.assignment, Since: now})
		}
	}
}
