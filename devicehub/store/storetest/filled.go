package storetest

import (
	"math"
	"testing"

	"github.com/whimbrel-edge/whimbrel/devicehub/identity"
	"github.com/whimbrel-edge/whimbrel/devicehub/store"
)

// Old databases are kept as dumps in the engines' testdata, one for each
// version of the schema. Fill made what is in them; CheckFilled wants to find it
// after every later migration. Fill may grow with new versions, and CheckFilled
// must go on accepting the older dumps.

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

// CheckFilled reads what Fill wrote.
func CheckFilled(t *testing.T, s store.Store, secrets identity.Secrets, joins identity.JoinTokens, tokens identity.APITokens) {
	ctx := t.Context()
	st := load(t, s)
	if st.Revision != 3 || len(st.Objects) != 3 || len(st.Desired) != 1 || len(st.Twins) != 1 {
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
