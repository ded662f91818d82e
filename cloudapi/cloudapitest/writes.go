package cloudapitest

import (
	"context"
	"slices"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/twin"
)

// note takes a property's new desired value into the ledger.
func (d *device) note(property string) {
	v := d.desired.Properties[property]
	e := twin.LedgerEntry{ID: v.ID, Property: property, Value: v.Value, Version: v.Version, By: v.By, Origin: "cloud", Reason: v.Reason, Asked: v.Time,
		State: string(twin.Pending), Traceparent: v.Trace}
	if p := d.shadow.Property(property); p != nil {
		e.Before = p.Reported.Doc()
	}
	if v.Value.IsNull() {
		e.State = "withdrawn"
	}
	d.ledger = append(d.ledger, e)
}

// Writes implements cloudapi.Twins.
func (h *Hub) Writes(_ context.Context, namespace, name string, q models.LedgerQuery) (out []twin.LedgerEntry, next string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := deviceKey(namespace, name)
	d := h.devices[key]
	if d == nil || q.UID != "" && q.UID != h.objects[key].Meta().UID {
		return nil, "", notFound(key)
	}
	newer := map[string]bool{}
	for _, e := range slices.Backward(d.ledger) {
		switch w := d.shadow.Property(e.Property).Write(); {
		case newer[e.Property] && e.State == string(twin.Pending):
			e.State = string(twin.Superseded)
		case w.ID == e.ID:
			e.State, e.Error = string(w.State), w.Error
		}
		newer[e.Property] = true
		if q.Property != "" && q.Property != e.Property || q.State != "" && q.State != e.State || e.Asked.Before(q.Since) || q.Continue != "" && e.ID >= q.Continue {
			continue
		}
		if len(out) == q.Limit {
			return out, out[len(out)-1].ID, nil
		}
		out = append(out, e)
	}
	return out, "", nil
}
