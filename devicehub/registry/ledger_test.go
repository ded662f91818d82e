package registry

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/devicehub/store/storetest"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/twin"
)

// TestLedger: every way by which desired values change is in the ledger, with who
// and why, and in the same commit.
func TestLedger(t *testing.T) {
	s := storetest.NewMemory()
	r := plant(t, s, "b1")
	mustPatch(t, r, "b1", `{"setpoint": 1, "mode": 1}`, models.DesiredOptions{By: "ann", Reason: "cold", Trace: "00-t", Expire: time.Minute})
	v, _ := r.Device("default", "b1")
	uid := v.Device.Metadata.UID
	first, mode := v.Desired.Properties["setpoint"].ID, v.Desired.Properties["mode"].ID
	for range 2 { // a resend is harmless
		if j, err := r.AcceptLocal(t.Context(), uid, twin.Local{Property: "setpoint", Value: models.Int(20), ID: "L1", Base: 1, By: "panel", Origin: "mqtt", Reason: "why not",
			Before: twin.Reported{Value: models.Float(3), Time: time.Unix(9, 0)}, Time: time.Unix(10, 0)}); err != nil || j.Verdict != twin.Accepted {
			t.Fatal(j, err)
		}
	}
	if j, err := r.AcceptLocal(t.Context(), uid, twin.Local{Property: "setpoint", Value: models.Int(21), ID: "L2", Base: 0}); err != nil || j.Verdict != twin.Overridden || j.By != "L1" {
		t.Fatal(j, err)
	}
	mustPatch(t, r, "b1", `{"setpoint": null}`, models.DesiredOptions{By: "bob"})
	if err := r.Withdraw(t.Context(), uid, "mode", mode); err != nil {
		t.Fatal(err)
	}
	mustPatch(t, r, "b1", `{"setpoint": 5}`, models.DesiredOptions{By: "bob"})
	if _, err := r.Delete(t.Context(), deviceKey("b1"), models.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	page, err := s.WritesPage(t.Context(), store.WriteQuery{DeviceUID: uid, Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	byID := map[string]store.Write{}
	for _, w := range page {
		byID[w.ID] = w
		if w.Since.IsZero() || w.Until.IsZero() || w.Until.Before(w.Since) {
			t.Errorf("write %s was desired from %s to %s", w.ID, w.Since, w.Until)
		}
	}
	if len(page) != 5 {
		t.Fatalf("%d writes: %+v", len(page), page)
	}
	w := byID[first]
	if w.By != "ann" || w.Reason != "cold" || w.Trace != "00-t" || w.Origin != "cloud" || w.Value != "1.0" && w.Value != "1" || w.Expires.IsZero() || w.SupersededBy != "L1" || w.State != "superseded" || w.Version != 1 {
		t.Errorf("first %+v", w)
	}
	w = byID["L1"]
	if w.By != "panel" || w.Origin != "mqtt" || w.Reason != "why not" || !w.Asked.Equal(time.Unix(10, 0)) || !strings.Contains(w.Before, `"value":3`) || w.State != "superseded" {
		t.Errorf("local %+v", w)
	}
	if w = byID[mode]; w.State != "expired" || w.SupersededBy != "" {
		t.Errorf("expired %+v", w)
	}
	deleted := 0 // ids of one millisecond are in no order
	for _, w := range page {
		if w.Error == "the device was deleted" && w.State == "superseded" && w.By == "bob" {
			deleted++
		}
	}
	if deleted != 1 {
		t.Errorf("%d writes ended with their device: %+v", deleted, page)
	}
	gone, err := s.DeletedDevices(t.Context(), "default", "b1")
	if err != nil || len(gone) != 1 || gone[0].UID != uid {
		t.Errorf("deleted devices %+v, error %v", gone, err)
	}
	// What is not stored is in no ledger.
	apply(t, r, deviceText("b2", "n1"))
	s.Fault(func(step string) error {
		if step == "Commit" {
			return errors.New("injected")
		}
		return nil
	})
	if _, _, err := patch(r, "b2", `{"setpoint": 1}`, models.DesiredOptions{}); err == nil {
		t.Fatal("no error")
	}
	s.Fault(nil)
	v, _ = r.Device("default", "b2")
	if page, err := s.WritesPage(t.Context(), store.WriteQuery{DeviceUID: v.Device.Metadata.UID, Limit: 9}); err != nil || len(page) != 0 {
		t.Errorf("writes %+v, error %v", page, err)
	}
}
