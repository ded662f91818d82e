package cloudapitest

import (
	"context"
	"strconv"

	"github.com/whimbrel-edge/whimbrel/models"
)

// Audit implements cloudapi.Audit with the changes that are kept for watches. All
// are the admin's. Of what chooses entries it knows action, kind and name.
func (h *Hub) Audit(_ context.Context, o models.AuditOptions, before int64, limit int) (out []models.AuditEntry, _ error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	actions := map[models.EventType]string{models.Added: "created", models.Modified: "changed", models.Deleted: "deleted"}
	for i := len(h.events) - 1; i >= 0 && len(out) < limit; i-- {
		ev := h.events[i]
		if id := int64(i) + 1; before == 0 || id < before {
			key := models.KeyOf(ev.object)
			e := models.AuditEntry{ID: strconv.FormatInt(id, 10), By: "admin", Action: actions[ev.typ], Kind: key.Kind,
				Namespace: key.Namespace, Name: key.Name, ResourceVersion: strconv.FormatInt(ev.revision, 10)}
			if (o.Action == "" || o.Action == e.Action) && (o.Kind == "" || o.Kind == e.Kind) && (o.Name == "" || o.Name == e.Name) {
				out = append(out, e)
			}
		}
	}
	return out, nil
}
