package storetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
)

func routed(n int, target string) store.RoutedMessage {
	return store.RoutedMessage{Key: fmt.Sprint("key", n), Target: target, Route: "route-uid", Namespace: "plant", Name: "alarms", Lane: "gw/alarms/ä", Node: "gw",
		Topic: "alarms/ä", Device: "boiler-1", Property: "p", ContentType: "text/plain", Payload: []byte{0, 255, byte(n)}, To: []byte(`{"http":{}}`),
		Accepted: now, Deadline: now.Add(time.Hour), TTL: time.Hour, Retries: 5}
}

func routes(t *testing.T, s *subject) {
	ctx := t.Context()
	add := func(ms ...store.RoutedMessage) []store.RoutedMessage {
		t.Helper()
		added, err := s.AddRouted(ctx, ms)
		must(t, err)
		return added
	}
	read := func(q store.RoutedQuery) []store.RoutedMessage {
		t.Helper()
		if q.Limit == 0 {
			q.Limit = 100
		}
		out, err := s.Routed(ctx, q)
		must(t, err)
		return out
	}
	empty := store.RoutedMessage{Key: "empty", Target: "hub", Route: "other", Accepted: now, Deadline: now}
	added := add(routed(1, "hub"), routed(2, "node:gw"), routed(3, "hub"), empty)
	if len(added) != 4 || !slices.IsSortedFunc(added, func(a, b store.RoutedMessage) int { return int(a.ID - b.ID) }) || added[0].ID == added[1].ID {
		t.Fatalf("added %+v", added)
	}
	// The same again, and the same key to elsewhere.
	elsewhere := routed(1, "node:gw2")
	again := add(routed(1, "hub"), elsewhere, routed(4, "hub"))
	if len(again) != 2 || again[0].Target != "node:gw2" || again[1].Key != "key4" || again[0].ID <= added[3].ID {
		t.Fatalf("added again %+v", again)
	}
	all := append(slices.Clone(added), again...)
	s.reopen(t)
	wantSame(t, "all", read(store.RoutedQuery{}), all)
	wantSame(t, "a page", read(store.RoutedQuery{After: all[1].ID, Limit: 2}), all[2:4])
	wantSame(t, "of a target", read(store.RoutedQuery{Target: "node:gw"}), all[1:2])
	wantSame(t, "overdue", read(store.RoutedQuery{Overdue: now}), all[3:4])
	wantSame(t, "overdue later", read(store.RoutedQuery{Overdue: now.Add(time.Hour), Target: "hub"}), []store.RoutedMessage{all[0], all[2], all[3], all[5]})
	wantSame(t, "of a route", read(store.RoutedQuery{Route: "other"}), all[3:4])

	at := now.Add(time.Minute)
	outcomes := []store.RoutedOutcome{
		{ID: all[0].ID, Delivered: true, At: at},
		{ID: all[1].ID, Handed: true, At: at},
		{ID: all[2].ID, Attempts: 2, Error: "500", At: at},
		{ID: all[4].ID, Dead: true, Attempts: 6, Error: "refused ü", At: at.Add(time.Second)},
	}
	must(t, s.SettleRouted(ctx, outcomes))
	must(t, s.SettleRouted(ctx, outcomes[:2])) // heard of twice
	must(t, s.SettleRouted(ctx, outcomes[3:]))
	must(t, s.SettleRouted(ctx, nil))
	must(t, s.SetRouteTotals(ctx, []store.RouteTotal{{Route: "route-uid", Place: "queue-1", Node: "gw", Delivered: 7, Queued: 3, LastError: "x", LastAt: at}, {Route: "route-2", Place: "queue-1", Node: "gw"}}))
	must(t, s.SetRouteTotals(ctx, []store.RouteTotal{{Route: "route-uid", Place: "queue-1", Node: "gw", Delivered: 9}}))
	must(t, s.SetRouteTotals(ctx, nil))
	s.reopen(t)
	tried, dead := all[2], all[4]
	tried.Attempts, tried.Error = 2, "500"
	dead.Dead, dead.Died, dead.Attempts, dead.Error = true, at.Add(time.Second), 6, "refused ü"
	wantSame(t, "waiting", read(store.RoutedQuery{}), []store.RoutedMessage{tried, all[3], all[5]})
	wantSame(t, "dead", read(store.RoutedQuery{Dead: true}), []store.RoutedMessage{dead})
	totals := func() (out []store.RouteTotal) {
		t.Helper()
		must(t, s.RouteTotals(ctx, func(v store.RouteTotal) error { out = append(out, v); return nil }))
		slices.SortFunc(out, func(a, b store.RouteTotal) int { return strings.Compare(a.Route+a.Place, b.Route+b.Place) })
		return out
	}
	wantSame(t, "totals", totals(), []store.RouteTotal{{Route: "route-2", Place: "queue-1", Node: "gw"},
		{Route: "route-uid", Place: "hub", Delivered: 1, Failed: 1, LastError: "refused ü", LastAt: at.Add(time.Second)},
		{Route: "route-uid", Place: "queue-1", Node: "gw", Delivered: 9}})

	// Dead letters come back behind all others.
	later := at.Add(time.Hour)
	none, err := s.ReviveRouted(ctx, "route-uid", []int64{all[2].ID, 99999}, later)
	must(t, err)
	wantSame(t, "nothing revived", none, []store.RoutedMessage(nil))
	revived, err := s.ReviveRouted(ctx, "route-uid", nil, later)
	must(t, err)
	want := all[4]
	want.Deadline = later.Add(time.Hour)
	if len(revived) != 1 || revived[0].ID <= all[5].ID {
		t.Fatalf("revived %+v", revived)
	}
	want.ID = revived[0].ID
	wantSame(t, "revived", revived, []store.RoutedMessage{want})
	wantSame(t, "waiting then", read(store.RoutedQuery{After: all[5].ID}), []store.RoutedMessage{want})

	must(t, s.SettleRouted(ctx, []store.RoutedOutcome{{ID: want.ID, Dead: true, Error: "e", At: later}, {ID: all[5].ID, Dead: true, Error: "e", At: later}}))
	n, err := s.DropRouted(ctx, "route-uid", []int64{all[5].ID, all[2].ID})
	must(t, err)
	if n != 1 {
		t.Fatalf("dropped %d", n)
	}
	must(t, s.ForgetRoute(ctx, "route-uid"))
	wantSame(t, "dead ones of a forgotten route", read(store.RoutedQuery{Dead: true}), []store.RoutedMessage(nil))
	wantSame(t, "waiting ones of a forgotten route", read(store.RoutedQuery{Route: "route-uid"}), []store.RoutedMessage{tried})
	wantSame(t, "totals then", totals(), []store.RouteTotal{{Route: "route-2", Place: "queue-1", Node: "gw"}})
	// An id is never given out again.
	if next := add(routed(9, "hub")); next[0].ID <= want.ID {
		t.Fatalf("id %d after %d", next[0].ID, want.ID)
	}

	keep := time.Hour
	must(t, s.SetRouteSpec(ctx, "r", 1, []byte("one"), now, keep))
	must(t, s.SetRouteSpec(ctx, "r", 2, []byte("two"), now.Add(time.Minute), keep))
	must(t, s.SetRouteSpec(ctx, "r", 1, []byte("ignored"), now.Add(time.Hour+30*time.Second), keep))
	must(t, s.SetRouteSpec(ctx, "r", 3, nil, now.Add(time.Hour+2*time.Minute), keep))
	spec, err := s.RouteSpec(ctx, "r", 1)
	must(t, err)
	wantSame(t, "spec", string(spec), "one")
	_, err = s.RouteSpec(ctx, "r", 2)
	wantErr(t, "a spec of long ago", err, store.ErrNotFound)
}
