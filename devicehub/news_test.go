package devicehub_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/sessions/sessionstest"
	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/models"
)

// TestRouteNews: dead letters are an event of their route, with a count.
func TestRouteNews(t *testing.T) {
	h := start(t)
	route := h.apply("apiVersion: whimbrel/v1\nkind: Route\nmetadata: {name: out}\nspec: {from: {rest: true}, to: {mqtt: {topic: t, nodeSelector: {site: nowhere}}}, delivery: {retries: 0}}\n")
	for range 3 {
		h.until("it is taken", func() bool {
			_, err := h.PublishRoute(t.Context(), "default", "out", "", "text/plain", []byte("x"), 0)
			return err == nil
		})
	}
	h.until("the event", func() bool {
		list, err := h.Events(t.Context(), models.EventOptions{Kind: "Route", Name: "out", Limit: 10})
		if err != nil || len(list.Items) == 0 || list.Items[0].Count != 3 {
			return false
		}
		e := list.Items[0]
		if e.Reason != "RouteFailed" || e.Type != models.SeverityWarning || e.InvolvedObject.UID != route.Meta().UID || !strings.Contains(e.Message, "no node matches") {
			t.Errorf("event %+v", e)
		}
		return true
	})
}

// TestAbsentNodes: a node that was there when the hub ended, and is not there soon
// after it has started, is told of once; one that comes back is not.
func TestAbsentNodes(t *testing.T) {
	h := start(t)
	h.plant()
	told := func(node, reason string) (n int64, message string) {
		t.Helper()
		list, err := h.Events(t.Context(), models.EventOptions{Kind: "Node", Name: node, Reason: reason, Limit: 10})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list.Items {
			n, message = n+e.Count, e.Message
		}
		return n, message
	}
	edges := map[string]*sessionstest.Edge{"n1": h.join("n1"), "n2": h.join("n2"), "n3": h.join("n3")}
	for _, node := range []string{"n1", "n2"} { // n3 never connects
		l := edges[node].Connect(t, edges[node].Hello("E1"))
		l.FullSync()
		if n, _ := told(node, "NodeReady"); n != 1 {
			t.Errorf("%s is there, and %d events say so", node, n)
		}
	}
	h.comeBack = 300 * time.Millisecond
	for range 2 {
		h.stop()
		h.open()
		edges["n2"].URL = h.LinkURL()
		edges["n2"].Connect(t, edges["n2"].Hello("E1")).FullSync()
		h.until("the event", func() bool { n, _ := told("n1", "NodeNotReady"); return n > 0 })
	}
	if n, message := told("n1", "NodeNotReady"); n != 1 || !strings.Contains(message, "has not come back since the hub started") {
		t.Errorf("told %d times: %s", n, message)
	}
	for _, node := range []string{"n2", "n3"} {
		if n, message := told(node, "NodeNotReady"); n != 0 {
			t.Errorf("%s: told %d times: %s", node, n, message)
		}
	}
}

// TestTokensOfDeletedUser: tokens that go with their user are in the audit, with
// who deleted it.
func TestTokensOfDeletedUser(t *testing.T) {
	h := start(t)
	ann := h.apply("apiVersion: whimbrel/v1\nkind: User\nmetadata: {name: ann}\nspec: {role: viewer, namespace: default}\n")
	want := map[string]bool{}
	for range 2 {
		_, token, err := h.Identity.IssueAPIToken(t.Context(), "ann", "", 0)
		if err != nil {
			t.Fatal(err)
		}
		want[token.ID] = true
	}
	if _, err := h.Delete(t.Context(), models.KeyOf(ann), models.WriteOptions{By: "boss"}); err != nil {
		t.Fatal(err)
	}
	entries, err := h.db.AuditPage(t.Context(), store.AuditQuery{}, 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Kind == "Token" && e.Action == store.AuditDeleted && e.By == "boss" && e.Name == "ann" {
			delete(want, e.UID)
		}
	}
	if len(want) > 0 {
		t.Errorf("not in the audit: %v of %+v", want, entries)
	}
}

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
	if _, err := h.TwinAt(t.Context(), "default", "b1", "", time.Now().Add(time.Hour)); models.KindOf(err) != models.KindInvalid {
		t.Errorf("the future: %v", err)
	}
	if _, err := h.TwinAt(t.Context(), "default", "b1", "", time.Now().Add(-time.Hour)); models.KindOf(err) != models.KindNotFound {
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
	doc, err := h.TwinAt(t.Context(), "default", "b1", "", asked)
	if err != nil || doc.Properties["setpoint"].Desired == nil || doc.Properties["setpoint"].Write.State != "pending" || doc.State != models.StateUnknown {
		t.Errorf("twin %+v, error %v", doc, err)
	}
	if _, err := h.Delete(t.Context(), models.KeyOf(b1), models.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := h.Writes(t.Context(), "default", "b1", models.LedgerQuery{Limit: 5}); models.KindOf(err) != models.KindNotFound {
		t.Errorf("a deleted device's writes: %v", err)
	}
	q := models.HistoryQuery{From: asked.Add(-time.Hour), To: asked, Limit: 5}
	if _, err := h.History(t.Context(), "default", "b1", "setpoint", q); models.KindOf(err) != models.KindNotFound || !strings.Contains(err.Error(), "uid="+b1.Meta().UID) {
		t.Errorf("a deleted device's history: %v", err)
	}
	q.UID = "nobody"
	if _, err := h.History(t.Context(), "default", "b1", "setpoint", q); models.KindOf(err) != models.KindNotFound || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("the history of a uid that nobody had: %v", err)
	}
	if _, err := h.TwinAt(t.Context(), "default", "b1", "", asked); models.KindOf(err) != models.KindNotFound || !strings.Contains(err.Error(), "uid="+b1.Meta().UID) {
		t.Errorf("a deleted device's twin: %v", err)
	}
	if _, err := h.TwinAt(t.Context(), "default", "b1", b1.Meta().UID, time.Now()); models.KindOf(err) != models.KindNotFound || !strings.Contains(err.Error(), "deleted at") {
		t.Errorf("a deleted device's twin after that: %v", err)
	}
	doc, err = h.TwinAt(t.Context(), "default", "b1", b1.Meta().UID, asked)
	if err != nil || doc.Properties["setpoint"].Desired == nil || doc.Properties["setpoint"].Write.State != "pending" {
		t.Errorf("a deleted device's twin while it was there: %+v, error %v", doc, err)
	}
	entries, _, err := h.Writes(t.Context(), "default", "b1", models.LedgerQuery{UID: b1.Meta().UID, Limit: 5})
	if err != nil || len(entries) != 1 || entries[0].By != "ann" || entries[0].State != "superseded" {
		t.Errorf("writes %+v, error %v", entries, err)
	}
	for _, at := range []string{"x", "0", entries[0].ID + "0", "' OR ''='"} {
		if _, _, err := h.Writes(t.Context(), "default", "b1", models.LedgerQuery{UID: b1.Meta().UID, Limit: 5, Continue: at}); models.KindOf(err) != models.KindMalformed {
			t.Errorf("a page after %q: %v", at, err)
		}
	}
}
