package twin

import (
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

// Past is what is known of a twin at a time that is over.
type Past struct {
	Device, Namespace string
	At                time.Time
	Properties        []models.ResolvedProperty
	State             models.DeviceState  // the last one told until then, "" for none
	Reported          map[string]Reported // by what was reported until then
	Desired           []LedgerEntry       // what was desired then
}

// Document shows the twin as it was. What was not refreshed for longer than its
// heartbeat and three intervals is stale, since nobody heard of it: a property
// that is read is reported at least once a heartbeat.
func (p Past) Document() Document {
	doc := Document{Device: p.Device, At: new(p.At.UTC()), State: models.StateUnknown, Properties: make(map[string]PropertyDoc, len(p.Properties))}
	if p.Namespace != models.DefaultNamespace {
		doc.Namespace = p.Namespace
	}
	fresh, heard := false, time.Time{}
	desired := map[string]LedgerEntry{}
	for _, e := range p.Desired {
		desired[e.Property] = e
		doc.DesiredVersion = max(doc.DesiredVersion, e.Version)
	}
	for i := range p.Properties {
		def := &p.Properties[i]
		out := PropertyDoc{Unit: def.Unit}
		r := p.Reported[def.Name]
		if late := r.Time.Add(def.Heartbeat + staleAfter*def.Every); r.Known() && def.Access.Readable() && p.At.After(late) {
			r = r.Degrade(late)
		}
		if r.Known() && r.Reason != models.ReasonStale {
			fresh = true
		}
		if r.Time.After(heard) {
			heard = r.Time
		}
		out.Reported = r.doc(def.Enum)
		out.Note = models.NotKept(def.History, def.Uplink)
		if e, ok := desired[def.Name]; ok {
			e.show(&out, def.Enum, p.At)
		}
		doc.Properties[def.Name] = out
	}
	for name, e := range desired { // of a property the model no longer has
		if _, shown := doc.Properties[name]; !shown && !e.Value.IsNull() {
			var out PropertyDoc
			e.show(&out, nil, p.At)
			doc.Properties[name] = out
		}
	}
	if !heard.IsZero() {
		doc.LastSeen = new(heard.UTC())
	}
	if p.State != "" && (fresh || p.State == models.StateOffline) {
		doc.State = p.State
	}
	return doc
}

// show shows a write as it was at a time.
func (e *LedgerEntry) show(out *PropertyDoc, enum map[int64]string, at time.Time) {
	if e.Value.IsNull() {
		return
	}
	out.Desired = &DesiredDoc{Value: e.Value, Name: enumName(e.Value, enum), Time: e.Asked.UTC(), By: e.By, Reason: e.Reason, Version: e.Version, Expires: e.Expires}
	w := &WriteDoc{ID: e.ID, State: Pending, Time: e.Asked.UTC()}
	switch {
	case e.Confirmed != nil && !e.Confirmed.After(at):
		w.State, w.Time, w.Late = Applied, *e.Confirmed, e.Late
	case e.Ended != nil && !e.Ended.After(at):
		w.State, w.Time, w.Error, w.Late = WriteState(e.State), *e.Ended, e.Error, e.Late
	}
	out.Write = w
}
