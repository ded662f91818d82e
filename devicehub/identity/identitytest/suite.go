// Package identitytest holds the suite that every implementation of the stores
// of package identity must pass, and one in memory that does. For tests only.
package identitytest

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/identity"
)

// at is a time with microseconds, in a zone that no store keeps.
var at = time.Date(2026, 3, 4, 5, 6, 7, 890123000, time.FixedZone("", 3600))

// Run checks the contracts in package identity against the stores that open
// returns, empty ones at each call. They are used concurrently.
func Run(t *testing.T, open func(t *testing.T) identity.Stores) {
	for _, c := range []struct {
		name string
		test func(*testing.T, identity.Stores)
	}{
		{"secrets", secrets},
		{"secrets swapped by many", secretsContended},
		{"join tokens kept", joinTokensKept},
		{"join tokens redeemed", joinTokensRedeemed},
		{"join token redeemed by many", joinTokenContended},
		{"api tokens", apiTokens},
		{"api token touched while deleted", apiTokenTouched},
		{"users", users},
		{"nodes", nodes},
		{"node enrolled by many", nodeContended},
		{"node keys swapped by many", nodeKeysContended},
		{"cancelled", cancelled},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%s: have error %v, want %v", what, err, want)
	}
}

// winners runs f n times at once and counts the calls that succeeded. The
// others must have failed with want.
func winners(t *testing.T, n int, want error, f func(i int) error) int64 {
	t.Helper()
	var won atomic.Int64
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			switch err := f(i); {
			case err == nil:
				won.Add(1)
			case want == nil || !errors.Is(err, want):
				t.Errorf("call %d: have error %v, want %v", i, err, want)
			}
		})
	}
	close(start)
	wg.Wait()
	return won.Load()
}

func secrets(t *testing.T, s identity.Stores) {
	ctx := t.Context()
	_, err := s.Secrets.Secret(ctx, "ca")
	wantErr(t, "absent", err, identity.ErrNotFound)
	wantErr(t, "swap of an absent one", s.Secrets.SwapSecret(ctx, "ca", []byte("x"), []byte("y")), identity.ErrConflict)

	blob := []byte{0, 1, 0xff, '\''}
	must(t, s.Secrets.SwapSecret(ctx, "ca", nil, blob))
	blob[1] = 9
	have, err := s.Secrets.Secret(ctx, "ca")
	must(t, err)
	if !slices.Equal(have, []byte{0, 1, 0xff, '\''}) {
		t.Fatalf("have %v", have)
	}

	wantErr(t, "create over", s.Secrets.SwapSecret(ctx, "ca", nil, []byte("new")), identity.ErrConflict)
	wantErr(t, "swap of another", s.Secrets.SwapSecret(ctx, "ca", []byte("other"), []byte("new")), identity.ErrConflict)
	must(t, s.Secrets.SwapSecret(ctx, "ca", have, []byte("new")))
	must(t, s.Secrets.SwapSecret(ctx, "other", nil, []byte("2")))
	have, err = s.Secrets.Secret(ctx, "ca")
	must(t, err)
	if string(have) != "new" {
		t.Fatalf("have %q after the swap", have)
	}
}

func secretsContended(t *testing.T, s identity.Stores) {
	ctx := t.Context()
	for _, swap := range [][2][]byte{{nil, []byte("first")}, {[]byte("first"), []byte("second")}} {
		won := winners(t, 8, identity.ErrConflict, func(int) error {
			return s.Secrets.SwapSecret(ctx, "k", swap[0], swap[1])
		})
		if won != 1 {
			t.Fatalf("to %q: %d swaps succeeded", swap[1], won)
		}
	}
}

func joinToken(n int, node string) identity.JoinToken {
	return identity.JoinToken{
		ID:        "id-" + strconv.Itoa(n),
		Hash:      "hash-" + strconv.Itoa(n),
		Node:      node,
		CreatedBy: "admin",
		Created:   at,
		Expires:   at.Add(time.Hour),
	}
}

func sameJoinToken(a, b identity.JoinToken) bool {
	times := a.Created.Equal(b.Created) && a.Expires.Equal(b.Expires) &&
		a.UsedAt.Equal(b.UsedAt) && a.UsedAt.IsZero() == b.UsedAt.IsZero()
	a.Created, a.Expires, a.UsedAt = b.Created, b.Expires, b.UsedAt
	return times && a == b
}

func joinTokensKept(t *testing.T, s identity.Stores) {
	ctx := t.Context()
	if list, err := s.JoinTokens.JoinTokens(ctx); err != nil || len(list) != 0 {
		t.Fatalf("empty store lists %v, %v", list, err)
	}
	two, one := joinToken(2, "b"), joinToken(1, "a")
	two.Expires = at.Add(2 * time.Hour)
	must(t, s.JoinTokens.CreateJoinToken(ctx, two))
	must(t, s.JoinTokens.CreateJoinToken(ctx, one))

	sameID, sameHash := joinToken(3, "c"), joinToken(4, "d")
	sameID.ID, sameHash.Hash = one.ID, one.Hash
	wantErr(t, "same id", s.JoinTokens.CreateJoinToken(ctx, sameID), identity.ErrExists)
	wantErr(t, "same hash", s.JoinTokens.CreateJoinToken(ctx, sameHash), identity.ErrExists)

	list, err := s.JoinTokens.JoinTokens(ctx)
	must(t, err)
	if !slices.EqualFunc(list, []identity.JoinToken{one, two}, sameJoinToken) {
		t.Fatalf("have %+v", list)
	}

	n, err := s.JoinTokens.PruneJoinTokens(ctx, one.Expires)
	must(t, err)
	if n != 0 {
		t.Fatalf("pruned %d that had not expired before", n)
	}
	n, err = s.JoinTokens.PruneJoinTokens(ctx, one.Expires.Add(time.Microsecond))
	must(t, err)
	if n != 1 {
		t.Fatalf("pruned %d, want 1", n)
	}
	wantErr(t, "delete of a pruned one", s.JoinTokens.DeleteJoinToken(ctx, one.ID), identity.ErrNotFound)
	must(t, s.JoinTokens.DeleteJoinToken(ctx, two.ID))
	_, err = s.JoinTokens.RedeemJoinToken(ctx, identity.Redemption{Hash: two.Hash, Node: two.Node, KeyHash: "k", Now: at})
	wantErr(t, "redemption of a deleted one", err, identity.ErrTokenUnknown)
}

func joinTokensRedeemed(t *testing.T, s identity.Stores) {
	ctx := t.Context()
	good, late := joinToken(1, "gateway-1"), joinToken(2, "gateway-1")
	must(t, s.JoinTokens.CreateJoinToken(ctx, good))
	must(t, s.JoinTokens.CreateJoinToken(ctx, late))
	redeem := func(hash, node, key string, now time.Time) (identity.JoinToken, error) {
		return s.JoinTokens.RedeemJoinToken(ctx, identity.Redemption{Hash: hash, Node: node, KeyHash: key, Now: now})
	}

	_, err := redeem("no such", "gateway-1", "k1", at)
	wantErr(t, "unknown", err, identity.ErrTokenUnknown)
	_, err = redeem(good.Hash, "gateway-2", "k1", at)
	wantErr(t, "other node", err, identity.ErrTokenWrongNode)
	_, err = redeem(late.Hash, "gateway-2", "k1", late.Expires)
	wantErr(t, "other node, expired", err, identity.ErrTokenWrongNode)
	_, err = redeem(late.Hash, "gateway-1", "k1", late.Expires)
	wantErr(t, "expired", err, identity.ErrTokenExpired)

	want := good
	want.UsedAt, want.UsedKey = good.Expires.Add(-time.Microsecond), "k1"
	have, err := redeem(good.Hash, "gateway-1", "k1", want.UsedAt)
	must(t, err)
	if !sameJoinToken(have, want) {
		t.Fatalf("redeemed %+v, want %+v", have, want)
	}
	have, err = redeem(good.Hash, "gateway-1", "k2", good.Expires.Add(time.Hour))
	wantErr(t, "second use", err, identity.ErrTokenUsed)
	if !sameJoinToken(have, want) {
		t.Fatalf("second use returned %+v, want the stored record %+v", have, want)
	}
	_, err = redeem(good.Hash, "gateway-2", "k2", at)
	wantErr(t, "second use by another node", err, identity.ErrTokenWrongNode)

	list, err := s.JoinTokens.JoinTokens(ctx)
	must(t, err)
	if !slices.EqualFunc(list, []identity.JoinToken{want, late}, sameJoinToken) {
		t.Fatalf("have %+v", list)
	}
}

func joinTokenContended(t *testing.T, s identity.Stores) {
	ctx := t.Context()
	must(t, s.JoinTokens.CreateJoinToken(ctx, joinToken(1, "a")))
	won := winners(t, 16, identity.ErrTokenUsed, func(i int) error {
		_, err := s.JoinTokens.RedeemJoinToken(ctx, identity.Redemption{
			Hash: "hash-1", Node: "a", KeyHash: "k" + strconv.Itoa(i), Now: at,
		})
		return err
	})
	if won != 1 {
		t.Fatalf("%d redemptions succeeded", won)
	}
}

func apiToken(n int, user string) identity.APIToken {
	return identity.APIToken{
		ID:          "id-" + strconv.Itoa(n),
		Hash:        "hash-" + strconv.Itoa(n),
		User:        user,
		UserUID:     "uid of " + user,
		Description: "it's \"quoted\", größer",
		Created:     at,
	}
}

func sameAPIToken(a, b identity.APIToken) bool {
	times := a.Created.Equal(b.Created) &&
		a.Expires.Equal(b.Expires) && a.Expires.IsZero() == b.Expires.IsZero() &&
		a.LastUsed.Equal(b.LastUsed) && a.LastUsed.IsZero() == b.LastUsed.IsZero()
	a.Created, a.Expires, a.LastUsed = b.Created, b.Expires, b.LastUsed
	return times && a == b
}

func apiTokens(t *testing.T, s identity.Stores) {
	ctx := t.Context()
	_, err := s.APITokens.APITokenByHash(ctx, "hash-1")
	wantErr(t, "absent", err, identity.ErrNotFound)

	one, two, three := apiToken(1, "anna"), apiToken(2, "bert"), apiToken(3, "anna")
	three.Expires = at.Add(time.Hour)
	for _, tok := range []identity.APIToken{three, one, two} {
		must(t, s.APITokens.CreateAPIToken(ctx, tok))
	}
	sameID, sameHash := apiToken(4, "x"), apiToken(5, "x")
	sameID.ID, sameHash.Hash = one.ID, one.Hash
	wantErr(t, "same id", s.APITokens.CreateAPIToken(ctx, sameID), identity.ErrExists)
	wantErr(t, "same hash", s.APITokens.CreateAPIToken(ctx, sameHash), identity.ErrExists)

	have, err := s.APITokens.APITokenByHash(ctx, three.Hash)
	must(t, err)
	if !sameAPIToken(have, three) {
		t.Fatalf("have %+v, want %+v", have, three)
	}
	for user, want := range map[string][]identity.APIToken{
		"": {one, two, three}, "anna": {one, three}, "bert": {two}, "nobody": nil,
	} {
		list, err := s.APITokens.APITokens(ctx, user)
		must(t, err)
		if !slices.EqualFunc(list, want, sameAPIToken) {
			t.Fatalf("tokens of %q: %+v", user, list)
		}
	}

	must(t, s.APITokens.TouchAPIToken(ctx, one.ID, at.Add(time.Minute)))
	must(t, s.APITokens.TouchAPIToken(ctx, one.ID, at))
	have, err = s.APITokens.APITokenByHash(ctx, one.Hash)
	must(t, err)
	if one.LastUsed = at.Add(time.Minute); !sameAPIToken(have, one) {
		t.Fatalf("after touch: have %+v, want %+v", have, one)
	}

	must(t, s.APITokens.DeleteAPIToken(ctx, one.ID))
	wantErr(t, "second delete", s.APITokens.DeleteAPIToken(ctx, one.ID), identity.ErrNotFound)
	wantErr(t, "touch of a deleted one", s.APITokens.TouchAPIToken(ctx, one.ID, at), identity.ErrNotFound)
	_, err = s.APITokens.APITokenByHash(ctx, one.Hash)
	wantErr(t, "deleted", err, identity.ErrNotFound)
}

func apiTokenTouched(t *testing.T, s identity.Stores) {
	ctx := t.Context()
	tok := apiToken(1, "anna")
	must(t, s.APITokens.CreateAPIToken(ctx, tok))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			err := s.APITokens.TouchAPIToken(ctx, tok.ID, at.Add(time.Duration(i)*time.Second))
			if err != nil && !errors.Is(err, identity.ErrNotFound) {
				t.Errorf("touch: %v", err)
			}
		})
	}
	must(t, s.APITokens.DeleteAPIToken(ctx, tok.ID))
	wg.Wait()
	_, err := s.APITokens.APITokenByHash(ctx, tok.Hash)
	wantErr(t, "deleted while touched", err, identity.ErrNotFound)
}

func users(t *testing.T, s identity.Stores) {
	ctx := t.Context()
	_, err := s.Users.User(ctx, "anna")
	wantErr(t, "absent", err, identity.ErrNotFound)

	bindings := []identity.Binding{
		{Role: identity.Operator, Namespace: "plant"},
		{Role: identity.Viewer, Namespace: identity.AllNamespaces},
	}
	made, err := s.Users.PutUser(ctx, identity.User{Name: "anna", UID: "ignored", Bindings: slices.Clone(bindings)})
	must(t, err)
	if made.UID == "" || made.UID == "ignored" || made.Name != "anna" || !slices.Equal(made.Bindings, bindings) {
		t.Fatalf("made %+v", made)
	}
	other, err := s.Users.PutUser(ctx, identity.User{Name: "bert"})
	must(t, err)
	if other.UID == made.UID {
		t.Fatal("two users share a UID")
	}
	have, err := s.Users.User(ctx, "anna")
	must(t, err)
	if have.UID != made.UID || !slices.Equal(have.Bindings, bindings) {
		t.Fatalf("have %+v, want %+v", have, made)
	}

	changed, err := s.Users.PutUser(ctx, identity.User{Name: "anna", Bindings: bindings[:1]})
	must(t, err)
	if changed.UID != made.UID || !slices.Equal(changed.Bindings, bindings[:1]) {
		t.Fatalf("changed to %+v", changed)
	}
	have, err = s.Users.User(ctx, "anna")
	must(t, err)
	if have.UID != made.UID || !slices.Equal(have.Bindings, bindings[:1]) {
		t.Fatalf("have %+v, want %+v", have, changed)
	}
}

func nodes(t *testing.T, s identity.Stores) {
	ctx := t.Context()
	_, err := s.Nodes.NodeRecord(ctx, "gateway-1")
	wantErr(t, "absent", err, identity.ErrNotFound)
	err = s.Nodes.SwapNodeKeys(ctx, identity.NodeRecord{Name: "gateway-1"}, identity.NodeKeys{Current: "k"})
	wantErr(t, "swap of an absent one", err, identity.ErrNotFound)

	made, err := s.Nodes.EnrollNode(ctx, "gateway-1", "k1")
	must(t, err)
	want := identity.NodeRecord{Name: "gateway-1", UID: made.UID, Keys: identity.NodeKeys{Current: "k1"}}
	if made != want || made.UID == "" {
		t.Fatalf("enrolled %+v", made)
	}
	other, err := s.Nodes.EnrollNode(ctx, "gateway-2", "k1")
	must(t, err)
	if other.UID == made.UID {
		t.Fatal("two nodes share a UID")
	}

	rolling := identity.NodeKeys{Current: "k1", Next: "k2"}
	must(t, s.Nodes.SwapNodeKeys(ctx, made, rolling))
	wantErr(t, "swap from an old state", s.Nodes.SwapNodeKeys(ctx, made, identity.NodeKeys{Current: "k9"}), identity.ErrConflict)
	stale := identity.NodeRecord{Name: "gateway-1", UID: "another", Keys: rolling}
	wantErr(t, "swap of another UID", s.Nodes.SwapNodeKeys(ctx, stale, identity.NodeKeys{Current: "k9"}), identity.ErrConflict)
	have, err := s.Nodes.NodeRecord(ctx, "gateway-1")
	must(t, err)
	if want.Keys = rolling; have != want {
		t.Fatalf("have %+v, want %+v", have, want)
	}

	again, err := s.Nodes.EnrollNode(ctx, "gateway-1", "k3")
	must(t, err)
	if want.Keys = (identity.NodeKeys{Current: "k3"}); again != want {
		t.Fatalf("enrolled again as %+v, want %+v", again, want)
	}
}

func nodeContended(t *testing.T, s identity.Stores) {
	ctx := t.Context()
	uids := make([]string, 8)
	won := winners(t, len(uids), nil, func(i int) error {
		n, err := s.Nodes.EnrollNode(ctx, "a", "k"+strconv.Itoa(i))
		uids[i] = n.UID
		return err
	})
	if slices.Sort(uids); int(won) != len(uids) || len(slices.Compact(uids)) != 1 {
		t.Fatalf("%d enrolled, with UIDs %v", won, uids)
	}
}

func nodeKeysContended(t *testing.T, s identity.Stores) {
	ctx := t.Context()
	was, err := s.Nodes.EnrollNode(ctx, "a", "k")
	must(t, err)
	won := winners(t, 8, identity.ErrConflict, func(i int) error {
		return s.Nodes.SwapNodeKeys(ctx, was, identity.NodeKeys{Current: "k", Next: "n" + strconv.Itoa(i)})
	})
	if won != 1 {
		t.Fatalf("%d swaps succeeded", won)
	}
}

// cancelled checks that a call that was given up is not taken for "not there".
func cancelled(t *testing.T, s identity.Stores) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.APITokens.APITokenByHash(ctx, "x")
	wantErr(t, "token", err, context.Canceled)
	_, err = s.Nodes.NodeRecord(ctx, "x")
	wantErr(t, "node", err, context.Canceled)
	_, err = s.JoinTokens.RedeemJoinToken(ctx, identity.Redemption{Hash: "x", Node: "x", Now: at})
	wantErr(t, "redemption", err, context.Canceled)
}
