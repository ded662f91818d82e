package devicehub_test

import (
	"slices"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

// TestNodeNews: what happens to a node is an event, and its joining is audited.
func TestNodeNews(t *testing.T) {
	h := start(t)
	h.plant()
	h.join("n1")
	h.until("the event", func() bool {
		list, err := h.Events(t.Context(), models.EventOptions{Kind: "Node", Name: "n1", Limit: 10})
		return err == nil && slices.ContainsFunc(list.Items, func(e models.LoggedEvent) bool {
			return e.Reason == "NodeJoined" && e.Type == models.SeverityNormal
		})
	})
	if _, err := h.TwinAt(t.Context(), "default", "b1", time.Now().Add(time.Hour)); models.KindOf(err) != models.KindInvalid {
		t.Errorf("the future: %v", err)
	}
	if _, err := h.TwinAt(t.Context(), "default", "b1", time.Now().Add(-time.Hour)); models.KindOf(err) != models.KindNotFound {
		t.Errorf("before it was there: %v", err)
	}
	b1, err := h.Get(t.Context(), models.Key{Kind: "Device", Namespace: "default", Name: "b1"})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := h.PatchDesired(t.Context(), "default", "b1", map[string]models.Value{"setpoint": models.Int(4)}, models.DesiredOptions{By: "ann"}); err != nil {
		t.Fatal(err)
	}
	asked := time.Now()
	doc, err := h.TwinAt(t.Context(), "default", "b1", asked)
	if err != nil || doc.Properties["setpoint"].Desired == nil || doc.Properties["setpoint"].Write.State != "pending" || doc.State != models.StateUnknown {
		t.Errorf("twin %+v, error %v", doc, err)
	}
	if _, err := h.Delete(t.Context(), models.KeyOf(b1), models.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := h.Writes(t.Context(), "default", "b1", models.LedgerQuery{Limit: 5}); models.KindOf(err) != models.KindNotFound {
		t.Errorf("a deleted device's writes: %v", err)
	}
	entries, _, err := h.Writes(t.Context(), "default", "b1", models.LedgerQuery{UID: b1.Meta().UID, Limit: 5})
	if err != nil || len(entries) != 1 || entries[0].By != "ann" || entries[0].State != "superseded" {
		t.Errorf("writes %+v, error %v", entries, err)
	}
}
