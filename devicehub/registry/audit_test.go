package registry

import (
	"errors"
	"slices"
	"testing"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/devicehub/store/storetest"
	"github.com/whimbrel-edge/whimbrel/models"
)

// TestRevokedWithTheNode: the event is there when the node is gone, and only then.
func TestRevokedWithTheNode(t *testing.T) {
	s := storetest.NewMemory()
	r := plant(t, s)
	apply(t, r, nodeText("n1"))
	events := func() []store.Event {
		t.Helper()
		found, err := s.EventsPage(t.Context(), store.EventQuery{Limit: 10})
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	remove := func() error {
		_, err := r.Delete(t.Context(), models.Key{Kind: "Node", Name: "n1"}, models.WriteOptions{By: "anna"})
		return err
	}
	s.Fault(func(step string) error {
		if step == "Commit" {
			return errors.New("injected")
		}
		return nil
	})
	if err := remove(); err == nil || len(events()) != 0 {
		t.Fatalf("%v, and events %+v", err, events())
	}
	s.Fault(nil)
	if err := remove(); err != nil {
		t.Fatal(err)
	}
	if found := events(); len(found) != 1 || found[0].Reason != "CertificateRevoked" || found[0].Name != "n1" || found[0].Message != "the node was deleted by anna; its certificate is worthless" {
		t.Errorf("events %+v", found)
	}
}

func TestChangedFields(t *testing.T) {
	for _, c := range []struct {
		before, after string
		want          []string
	}{
		{`{"a":1}`, `{"a":1}`, nil},
		{`{"a":1,"b":{"c":1,"d":[1]}}`, `{"a":2,"b":{"c":1,"d":[2]}}`, []string{"/a", "/b/d"}},
		{`{"spec":{"x":1}}`, `{"spec":{"y/z~":1}}`, []string{"/spec/x", "/spec/y~1z~0"}},
		{`{"spec":{"x":null}}`, `{"spec":{"x":{}}}`, []string{"/spec/x"}},
		{`{"spec":{"x":1}}`, `{}`, []string{"/spec"}},
		{`1`, `2`, []string{""}},
	} {
		if have := changedFields([]byte(c.before), []byte(c.after)); !slices.Equal(have, c.want) {
			t.Errorf("%s to %s: %q, want %q", c.before, c.after, have, c.want)
		}
	}
}
