package storetest

import (
	"fmt"
	"math"
	"path/filepath"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/identity"
	"github.com/whimbrel-edge/whimbrel/devicehub/store"
)

// Old databases are kept as dumps in the engines' testdata, one for each
// version of the schema that had new tables. Fill made what is in them;
// CheckFilled wants to find it after every later migration. Fill may grow with
// new versions, and CheckFilled looks only for what was there at a dump's version.

// newsVersion is the version from which on Fill has fillNews, podsVersion that of
// the states of pods.
const (
	newsVersion = 8
	podsVersion = 13
)

// Fill puts something into every table.
func Fill(t *testing.T, s store.Store, secrets identity.Secrets, joins identity.JoinTokens, tokens identity.APITokens) {
	ctx := t.Context()
	user := object("User", "anna", 3)
	user.Namespace, user.JSON = "", []byte(`{"apiVersion":"whimbrel/v1","kind":"User","metadata":{"name":"anna"},"spec":{"role":"operator","namespace":"plant"}}`)
	node := object("Node", "gateway-1", 2)
	node.Namespace = ""
	must(t, s.Commit(ctx, store.Commit{
		Revision: 3, Put: []store.Object{object("Device", "boiler-1", 1), node, user},
		PutDesired: []store.Desired{desiredOf("uid-of-boiler-1", 3, []byte(`{"version":1}`))},
	}))
	must(t, s.SaveTwins(ctx, []store.Checkpoint{twinOf("uid-of-boiler-1", []byte(`{"version":812}`))}))
	_, err := s.StartEpoch(ctx, "uid-of-gateway-1", "e", now)
	must(t, err)
	series, err := s.SeriesIDs(ctx, []store.SeriesKey{keyOf("uid-of-boiler-1", 1, "p")})
	must(t, err)
	b := store.Batch{NodeUID: "uid-of-gateway-1", Epoch: "e", Acked: math.MaxUint64, Received: now, Backfill: true}
	b.Gaps = []store.Gap{{NodeUID: "uid-of-gateway-1", Reason: "outbox-full", Epoch: "e", FirstSeq: 1, LastSeq: 2, Samples: 3, From: now, Recorded: now}}
	for i, v := range filledSamples() {
		v.TimeUS = int64(i)
		Add(&b.Samples, series[0], v)
	}
	must(t, s.Ingest(ctx, []store.Batch{b}))
	_, err = s.ReserveKey(ctx, "anna", "key", "f", now, 1000*1000*3600*1e9)
	must(t, err)
	must(t, secrets.SwapSecret(ctx, "ca", nil, []byte{0, 1, 2, 0xff}))
	must(t, joins.CreateJoinToken(ctx, identity.JoinToken{ID: "j", Hash: "jh", Node: "gateway-1", Created: now, Expires: now}))
	must(t, tokens.CreateAPIToken(ctx, identity.APIToken{ID: "a", Hash: "ah", User: "anna", UserUID: "uid-of-anna", Created: now}))
	fillNews(t, s)
	must(t, s.SavePodStates(ctx, []store.PodState{podState("uid-of-web-0", 0, `{"phase":"Running"}`)}, nil))
}

// filledWrites are a write that has ended, one that is desired, and one of a
// deleted device.
func filledWrites() []store.Write {
	ended := store.Write{ID: "w1", DeviceUID: "uid-of-boiler-1", Property: "p", Value: "1.5", Version: 1, By: "anna", Origin: "cloud", Reason: "kühl", Trace: "00-ab-cd-01",
		Before: `{"value":1}`, Asked: now, Since: now, Until: now.Add(time.Minute), Expires: now.Add(time.Hour), Sent: now.Add(time.Second), Confirmed: now.Add(2 * time.Second),
		Ended: now.Add(2 * time.Second), State: "applied", SupersededBy: "w2", Late: true, Settled: store.SettledByEdge}
	desired := store.Write{ID: "w2", DeviceUID: "uid-of-boiler-1", Property: "p", Value: "null", Version: 2, Origin: "mqtt", Asked: now, Since: now.Add(time.Minute), State: "pending"}
	gone := store.Write{ID: "w3", DeviceUID: "uid-of-pump-1", Property: "q", Value: `"on"`, Origin: "edge", Asked: now, Ended: now, State: "failed", Error: "nö", Refused: true, Settled: store.SettledByEdge}
	return []store.Write{ended, desired, gone}
}

// filledRun is how many samples the deleted device has, one a second: enough for
// whatever is kept of many.
const filledRun = 1100

func filledAt(i int) int64 { return now.Truncate(time.Hour).UnixMicro() + int64(i)*1_000_000 }

func fillNews(t *testing.T, s store.Store) {
	ctx := t.Context()
	must(t, s.Commit(ctx, store.Commit{Revision: 4, Writes: filledWrites(),
		Assigned: []store.Assignment{{DeviceUID: "uid-of-boiler-1", Assignment: 1, Since: now}, {DeviceUID: "uid-of-boiler-1", Assignment: 2, Since: now.Add(time.Hour)}},
		Gone:     []store.DeletedDevice{{UID: "uid-of-pump-1", Namespace: "plant", Name: "pump-1", Deleted: now}},
		Audit:    []store.AuditEntry{{Time: now, By: "anna", Action: store.AuditDeleted, Kind: "Device", Namespace: "plant", Name: "pump-1", UID: "uid-of-pump-1", Revision: 4}}}))
	_, err := s.StartEpoch(ctx, "uid-of-gateway-2", "f", now)
	must(t, err)
	series, err := s.SeriesIDs(ctx, []store.SeriesKey{keyOf("uid-of-pump-1", 1, "q")})
	must(t, err)
	b := store.Batch{NodeUID: "uid-of-gateway-2", Epoch: "f", Acked: 1, Received: now, Served: []store.Served{{DeviceUID: "uid-of-boiler-1", Assignment: 2}},
		Events: []store.Event{eventOf("k1", "boiler-1", 0), eventOf("k1", "boiler-1", time.Second)}}
	for i := range filledRun {
		Add(&b.Samples, series[0], store.Sample{TimeUS: filledAt(i), Kind: 2, Int: int64(i % 60)})
	}
	must(t, s.Ingest(ctx, []store.Batch{b}))
	for more := true; more; {
		more, err = s.Compact(ctx, now.Add(48*time.Hour))
		must(t, err)
	}
	added, err := s.AddRouted(ctx, []store.RoutedMessage{routed(1, "hub"), routed(2, "node:gw")})
	must(t, err)
	must(t, s.SettleRouted(ctx, []store.RoutedOutcome{{ID: added[1].ID, Dead: true, Attempts: 6, Error: "refused ü", At: now}}))
	must(t, s.SetRouteSpec(ctx, "route-uid", 2, []byte(`{"to":{}}`), now, 1000*1000*time.Hour))
}

// checkNews reads what fillNews wrote.
func checkNews(t *testing.T, s store.Store) {
	ctx := t.Context()
	want := filledWrites()
	boiler, err := s.WritesPage(ctx, store.WriteQuery{DeviceUID: "uid-of-boiler-1", Limit: 9})
	must(t, err)
	wantSame(t, "writes", boiler, []store.Write{want[1], want[0]})
	pump, err := s.WritesPage(ctx, store.WriteQuery{DeviceUID: "uid-of-pump-1", Limit: 9})
	must(t, err)
	wantSame(t, "writes of a deleted device", pump, want[2:])
	desired, err := s.DesiredAt(ctx, "uid-of-boiler-1", now.Add(2*time.Minute))
	must(t, err)
	wantSame(t, "what was desired", desired, want[1:2])
	services, err := s.Services(ctx, "uid-of-boiler-1")
	must(t, err)
	wantSame(t, "services", services, []store.Service{{NodeUID: "uid-of-gateway-2", Since: now.Add(time.Hour)}})
	gone, err := s.DeletedDevices(ctx, "plant", "pump-1")
	must(t, err)
	wantSame(t, "deleted devices", gone, []store.DeletedDevice{{UID: "uid-of-pump-1", Namespace: "plant", Name: "pump-1", Deleted: now}})
	event := eventOf("k1", "boiler-1", time.Second)
	event.First, event.Count = now, 2
	found, err := s.EventsPage(ctx, store.EventQuery{Limit: 9})
	must(t, err)
	if len(found) == 1 {
		event.Revision = found[0].Revision
	}
	wantSame(t, "events", found, []store.Event{event})
	if revision, err := s.EventsRevision(ctx); err != nil || revision != event.Revision || revision == 0 {
		t.Errorf("the events' revision is %d, that of the last one %d, error %v", revision, event.Revision, err)
	}
	audit, err := s.AuditPage(ctx, store.AuditQuery{}, 0, 9)
	must(t, err)
	if len(audit) != 1 || audit[0].UID != "uid-of-pump-1" || audit[0].By != "anna" {
		t.Errorf("audit %+v", audit)
	}
	samples := readSamples(t, s, "uid-of-pump-1", "q", math.MinInt64, everything)
	n, minutes := int64(0), 0
	must(t, s.Rollups(ctx, "uid-of-pump-1", "q", math.MinInt64, everything, store.Minute,
		func(store.Sample) error { n++; return nil },
		func(r *store.Rollup) error { n += r.Count; minutes++; return nil }))
	if len(samples) != filledRun || samples[100].TimeUS != filledAt(100) || samples[100].Int != 40 || n != filledRun || minutes == 0 {
		t.Errorf("%d samples, by %d rollups %d; want %d", len(samples), minutes, n, filledRun)
	}
	waiting, err := s.Routed(ctx, store.RoutedQuery{Limit: 9})
	must(t, err)
	dead, err := s.Routed(ctx, store.RoutedQuery{Dead: true, Limit: 9})
	must(t, err)
	if len(waiting) != 1 || waiting[0].Key != "key1" || string(waiting[0].Payload) != string(routed(1, "hub").Payload) || len(dead) != 1 || dead[0].Error != "refused ü" {
		t.Errorf("messages %+v, dead letters %+v", waiting, dead)
	}
	var totals []store.RouteTotal
	must(t, s.RouteTotals(ctx, func(r store.RouteTotal) error { totals = append(totals, r); return nil }))
	if len(totals) != 1 || totals[0].Failed != 1 || totals[0].Place != "hub" {
		t.Errorf("totals %+v", totals)
	}
	spec, err := s.RouteSpec(ctx, "route-uid", 2)
	must(t, err)
	wantSame(t, "spec", string(spec), `{"to":{}}`)
}

// filledSamples are all but the one that would make a dump large.
func filledSamples() (out []store.Sample) {
	for _, v := range exact {
		if len(v.Text) < 1000 {
			out = append(out, v)
		}
	}
	return out
}

// CheckFilled reads what Fill wrote into a database of a version of the schema,
// which is in the name of its dump: version8.sql.
func CheckFilled(t *testing.T, dump string, s store.Store, secrets identity.Secrets, joins identity.JoinTokens, tokens identity.APITokens) {
	ctx := t.Context()
	version := 0
	if _, err := fmt.Sscanf(filepath.Base(dump), "version%d.sql", &version); err != nil {
		t.Fatalf("%s: %v", dump, err)
	}
	revision := int64(3)
	if version >= newsVersion {
		revision = 4
		checkNews(t, s)
	}
	if version >= podsVersion {
		wantSame(t, "states of pods", podStates(t, s), []store.PodState{podState("uid-of-web-0", 0, `{"phase":"Running"}`)})
	}
	st := load(t, s)
	if st.Revision != revision || len(st.Objects) != 3 || len(st.Desired) != 1 || len(st.Twins) != 1 {
		t.Fatalf("objects, desired values and twins: %+v", st)
	}
	wantSame(t, "device", st.Objects[0], object("Device", "boiler-1", 1))
	wantSame(t, "epochs", readEpochs(t, s, "uid-of-gateway-1"),
		[]store.Epoch{{NodeUID: "uid-of-gateway-1", ID: "e", Rank: 1, Acked: math.MaxUint64, Started: now}})
	var want []store.Sample
	for i, v := range filledSamples() {
		v.TimeUS, v.Backfill = int64(i), true
		want = append(want, v)
	}
	wantSame(t, "samples", readSamples(t, s, "uid-of-boiler-1", "p", math.MinInt64, everything), want)
	if g := readGaps(t, s, "uid-of-gateway-1"); len(g) != 1 || g[0].Samples != 3 || !g[0].From.Equal(now) || !g[0].To.IsZero() {
		t.Fatalf("gaps %+v", g)
	}
	_, err := s.ReserveKey(ctx, "anna", "key", "f", now, 0)
	wantErr(t, "key", err, store.ErrConflict)
	secret, err := secrets.Secret(ctx, "ca")
	must(t, err)
	wantSame(t, "secret", secret, []byte{0, 1, 2, 0xff})
	token, err := tokens.APITokenByHash(ctx, "ah")
	must(t, err)
	wantSame(t, "token", token.UserUID, "uid-of-anna")
	if list, err := joins.JoinTokens(ctx); err != nil || len(list) != 1 {
		t.Fatalf("join tokens %+v, error %v", list, err)
	}
}
