package registry

import (
	"cmp"

	"github.com/whimbrel-edge/whimbrel/devicehub/events"
	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/models"
)

// happened is what people are told of the staged changes, beside what the audit
// keeps: it is stored with them.
func (s *stage) happened() (out []store.Event) {
	for _, ch := range s.changes {
		if ch.typ != models.Deleted || ch.entry == nil {
			continue
		}
		n, ok := ch.entry.object.(*models.Node)
		if !ok {
			continue
		}
		out = append(out, events.Of(models.Occurrence{Object: models.ObjectReference{Kind: "Node", Name: n.Metadata.Name, UID: n.Metadata.UID},
			Severity: models.SeverityWarning, Reason: "CertificateRevoked", Source: "identity",
			Message: "the node was deleted by " + cmp.Or(ch.by, "the hub") + "; its certificate is worthless"}, "", s.r.now()))
	}
	return out
}
