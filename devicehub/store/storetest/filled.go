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
func Fill(t *testing.T, s store.Store, ids identity.Stores) {
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
	must(t, ids.Secrets.SwapSecret(ctx, "ca", nil, []byte{0, 1, 2, 0xff}))
	must(t, ids.JoinTokens.CreateJoinToken(ctx, identity.JoinToken{ID: "j", Hash: "jh", Node: "gateway-1", Created: now, Expires: now}))
	must(t, ids.APITokens.CreateAPIToken(ctx, identity.APIToken{ID: "a", Hash: "ah", User: "anna", UserUID: "uid-of-anna", Created: now}))
	_, err = ids.Nodes.EnrollNode(ctx, "gateway-1", "key-hash")
	must(t, err)
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
func CheckFilled(t *testing.T, s store.Store, ids identity.Stores) {
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
	secret, err := ids.Secrets.Secret(ctx, "ca")
	must(t, err)
	wantSame(t, "secret", secret, []byte{0, 1, 2, 0xff})
	token, err := ids.APITokens.APITokenByHash(ctx, "ah")
	must(t, err)
	user, err := ids.Users.User(ctx, token.User)
	must(t, err)
	wantSame(t, "user", user, identity.User{Name: "anna", UID: "uid-of-anna", Bindings: []identity.Binding{{Role: identity.Operator, Namespace: "plant"}}})
	node, err := ids.Nodes.NodeRecord(ctx, "gateway-1")
	must(t, err)
	wantSame(t, "node", node, identity.NodeRecord{Name: "gateway-1", UID: "uid-of-gateway-1", Keys: identity.NodeKeys{Current: "key-hash"}})
	if tokens, err := ids.JoinTokens.JoinTokens(ctx); err != nil || len(tokens) != 1 {
		t.Fatalf("join tokens %+v, error %v", tokens, err)
	}
}

// RunIdentityObjects checks that what decides about users and nodes follows
// their objects, in the same commit.
func RunIdentityObjects(t *testing.T, s store.Store, ids identity.Stores) {
	ctx := t.Context()
	node, user := object("Node", "gateway-1", 1), object("User", "anna", 1)
	node.Namespace, user.Namespace, user.JSON = "", "", []byte(`{"spec":{"role":"viewer"}}`)
	must(t, s.Commit(ctx, store.Commit{Revision: 1, Put: []store.Object{node, user}}))

	made, err := ids.Nodes.NodeRecord(ctx, "gateway-1")
	must(t, err)
	wantSame(t, "a node that has not joined", made, identity.NodeRecord{Name: "gateway-1", UID: node.UID})
	joined, err := ids.Nodes.EnrollNode(ctx, "gateway-1", "key")
	must(t, err)
	wantSame(t, "joined", joined, identity.NodeRecord{Name: "gateway-1", UID: node.UID, Keys: identity.NodeKeys{Current: "key"}})
	u, err := ids.Users.User(ctx, "anna")
	must(t, err)
	wantSame(t, "user", u, identity.User{Name: "anna", UID: user.UID, Bindings: []identity.Binding{{Role: identity.Viewer, Namespace: "default"}}})

	node.Revision, user.Revision, user.JSON = 2, 2, []byte(`{"spec":{"role":"admin","namespace":"*"}}`)
	must(t, s.Commit(ctx, store.Commit{Revision: 2, Put: []store.Object{node, user}}))
	have, err := ids.Nodes.NodeRecord(ctx, "gateway-1")
	must(t, err)
	wantSame(t, "the keys outlast a change of the object", have, joined)
	u, err = ids.Users.User(ctx, "anna")
	must(t, err)
	wantSame(t, "changed", u.Bindings, []identity.Binding{{Role: identity.Admin, Namespace: "*"}})

	again := node
	again.UID, again.Revision, user.JSON = "another", 3, []byte(`{"spec":{"role":5}}`)
	must(t, s.Commit(ctx, store.Commit{Revision: 3, Put: []store.Object{again, user}, Delete: []store.Object{node}}))
	have, err = ids.Nodes.NodeRecord(ctx, "gateway-1")
	must(t, err)
	wantSame(t, "deleted and made again", have, identity.NodeRecord{Name: "gateway-1", UID: "another"})
	u, err = ids.Users.User(ctx, "anna")
	must(t, err)
	wantSame(t, "a role that cannot be read", len(u.Bindings), 0)

	must(t, s.Commit(ctx, store.Commit{Revision: 4, Delete: []store.Object{again, user}}))
	_, err = ids.Nodes.NodeRecord(ctx, "gateway-1")
	wantErr(t, "deleted node", err, identity.ErrNotFound)
	_, err = ids.Users.User(ctx, "anna")
	wantErr(t, "deleted user", err, identity.ErrNotFound)
}
