package identity_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/whimbrel-edge/whimbrel/devicehub/identity"
	"github.com/whimbrel-edge/whimbrel/devicehub/identity/identitytest"
	"github.com/whimbrel-edge/whimbrel/internal/pki"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const day = 24 * time.Hour

// A bench is a Service on a store in memory with a clock that is set by hand.
type bench struct {
	*identity.Service
	t     *testing.T
	store *identitytest.Memory
	ca    *pki.CA
	log   bytes.Buffer

	mu     sync.Mutex
	now    time.Time
	events []identity.Event
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, store: identitytest.NewMemory(), now: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)}
	var err error
	b.ca, err = identity.EnsureCA(t.Context(), b.store, pki.NewSealKey(), b.now)
	if err != nil {
		t.Fatal(err)
	}
	b.Service = b.service()
	return b
}

// service starts another hub on the same store.
func (b *bench) service() *identity.Service {
	b.t.Helper()
	s, err := identity.New(identity.Config{
		Stores: b.store.Stores(), CA: b.ca, Now: b.clock,
		Log: slog.New(slog.NewTextHandler(&b.log, nil)),
		Record: func(_ context.Context, e identity.Event) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.events = append(b.events, e)
		},
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

func (b *bench) clock() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}

func (b *bench) pass(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now = b.now.Add(d)
}

func (b *bench) reasons() (out []identity.Reason) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.events {
		out = append(out, e.Reason)
	}
	return out
}

func (b *bench) key() crypto.Signer {
	b.t.Helper()
	key, err := pki.GenerateKey()
	if err != nil {
		b.t.Fatal(err)
	}
	return key
}

func (b *bench) csr(key crypto.Signer, node string) []byte {
	b.t.Helper()
	csr, err := pki.NewCSR(key, node)
	if err != nil {
		b.t.Fatal(err)
	}
	return csr
}

func (b *bench) token(node string) string {
	b.t.Helper()
	token, _, err := b.CreateJoinToken(b.t.Context(), node, 0, "admin")
	if err != nil {
		b.t.Fatal(err)
	}
	return token
}

func (b *bench) cert(issued identity.Issued) *x509.Certificate {
	b.t.Helper()
	certs, err := pki.DecodeCerts(issued.Certificate)
	if err != nil || len(certs) != 1 {
		b.t.Fatalf("issued %d certificates, %v", len(certs), err)
	}
	return certs[0]
}

// join joins a node with a key, and must succeed.
func (b *bench) join(node string, key crypto.Signer) (identity.Issued, *x509.Certificate) {
	b.t.Helper()
	issued, err := b.Join(b.t.Context(), identity.JoinRequest{
		Token: b.token(node), Node: node, CSR: b.csr(key, node), Remote: "10.0.0.1:999",
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return issued, b.cert(issued)
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%s: have error %v, want %v", what, err, want)
	}
}

func TestEnsureCA(t *testing.T) {
	ctx, now := t.Context(), time.Date(2026, 3, 4, 0, 0, 0, 0, time.UTC)
	store, key := identitytest.NewMemory(), pki.NewSealKey()
	hashes := make([]string, 8)
	var wg sync.WaitGroup
	for i := range hashes {
		wg.Go(func() {
			ca, err := identity.EnsureCA(ctx, store, key, now)
			if err != nil {
				t.Error(err)
				return
			}
			hashes[i] = ca.Hash()
		})
	}
	wg.Wait()
	if len(slices.Compact(hashes)) != 1 {
		t.Fatalf("hubs that start at once have different CAs: %v", hashes)
	}
	blob, err := store.Secret(ctx, "ca")
	if err != nil || bytes.Contains(blob, []byte("PRIVATE KEY")) {
		t.Fatalf("the CA's key is stored in the clear, or not at all: %v", err)
	}
	_, err = identity.EnsureCA(ctx, store, pki.NewSealKey(), now)
	wantErr(t, "with another key file", err, pki.ErrUnseal)
	if again, err := identity.EnsureCA(ctx, store, key, now); err != nil || again.Hash() != hashes[0] {
		t.Fatalf("a refused start replaced the CA: %v", err)
	}
}

func TestJoin(t *testing.T) {
	b := newBench(t)
	ctx, key := t.Context(), b.key()
	text := b.token("gateway-1")
	token, err := pki.ParseJoinToken(text)
	if err != nil || token.CAHash != b.ca.Hash() {
		t.Fatalf("token %v, %v", token, err)
	}
	request := identity.JoinRequest{Token: text, Node: "gateway-1", CSR: b.csr(key, "gateway-1")}

	// None of these uses the token up.
	wrong := request
	wrong.CSR = b.csr(key, "gateway-2")
	_, err = b.Join(ctx, wrong)
	wantErr(t, "request for another name", err, identity.ErrRequest)
	wrong.Node = "gateway-2"
	_, err = b.Join(ctx, wrong)
	wantErr(t, "another node", err, identity.ErrTokenWrongNode)
	wrong = request
	wrong.Token = pki.NewJoinToken(b.ca.Hash()).Encode()
	_, err = b.Join(ctx, wrong)
	wantErr(t, "unknown token", err, identity.ErrTokenUnknown)
	wrong.Token = "wt1.nonsense"
	_, err = b.Join(ctx, wrong)
	wantErr(t, "malformed token", err, pki.ErrJoinToken)

	issued, err := b.Join(ctx, request)
	if err != nil {
		t.Fatal(err)
	}
	cert := b.cert(issued)
	if !cert.NotAfter.Equal(b.clock().Add(30*day)) || !issued.Expires.Equal(cert.NotAfter) {
		t.Errorf("ends %v", cert.NotAfter)
	}
	if cas, err := pki.DecodeCerts(issued.CA); err != nil || len(cas) != 1 || pki.CertHash(cas[0]) != b.ca.Hash() {
		t.Errorf("CA bundle %v, %v", cas, err)
	}
	id, err := b.Authenticate(ctx, cert)
	if err != nil || id.Name != "gateway-1" || id.UID != issued.NodeUID || id.UID == "" {
		t.Errorf("identity %+v, %v", id, err)
	}

	// A second use, by somebody who has seen the token.
	theft := request
	theft.CSR = b.csr(b.key(), "gateway-1")
	_, err = b.Join(ctx, theft)
	wantErr(t, "second use", err, identity.ErrTokenUsed)
	if _, err := b.Authenticate(ctx, cert); err != nil {
		t.Errorf("a refused second use disturbs the node: %v", err)
	}

	want := []identity.Reason{identity.JoinRefused, identity.JoinRefused, identity.JoinRefused, identity.JoinRefused, identity.NodeJoined, identity.JoinRefused}
	if have := b.reasons(); !slices.Equal(have, want) {
		t.Errorf("events %v, want %v", have, want)
	}
	list, err := b.JoinTokens(ctx)
	if err != nil || len(list) != 1 || list[0].UsedAt.IsZero() || list[0].Node != "gateway-1" || list[0].CreatedBy != "admin" {
		t.Errorf("list %+v, %v", list, err)
	}
	b.assertNoSecret(text, list)
}

// assertNoSecret checks that what operators see has no part of a secret.
func (b *bench) assertNoSecret(text string, shown ...any) {
	b.t.Helper()
	secret := text[len(text)-43:]
	all, err := json.Marshal([]any{shown, b.events, b.log.String()})
	if err != nil {
		b.t.Fatal(err)
	}
	if strings.Contains(string(all), secret) || strings.Contains(string(all), `"Hash":"sha256`) {
		b.t.Errorf("a secret or its hash is shown: %s", all)
	}
}

func TestJoinTokenExpires(t *testing.T) {
	b := newBench(t)
	key := b.key()
	request := identity.JoinRequest{Token: b.token("gateway-1"), Node: "gateway-1", CSR: b.csr(key, "gateway-1")}
	b.pass(time.Hour)
	_, err := b.Join(t.Context(), request)
	wantErr(t, "after an hour", err, identity.ErrTokenExpired)
	request.Token = b.token("gateway-1")
	b.pass(time.Hour - time.Second)
	if _, err := b.Join(t.Context(), request); err != nil {
		t.Errorf("in time: %v", err)
	}
	for _, c := range []struct {
		node string
		ttl  time.Duration
	}{{"Gateway 1", time.Hour}, {"", time.Hour}, {"gateway-1", -time.Second}} {
		if _, _, err := b.CreateJoinToken(t.Context(), c.node, c.ttl, "admin"); err == nil {
			t.Errorf("made a token for %+v", c)
		}
	}
	b.pass(30 * day)
	b.token("gateway-2")
	if list, err := b.JoinTokens(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("old tokens stay listed: %v, %v", list, err)
	}
}

func TestDeletedJoinTokenDoesNotAdmit(t *testing.T) {
	b := newBench(t)
	text, rec, err := b.CreateJoinToken(t.Context(), "gateway-1", time.Hour, "admin")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.DeleteJoinToken(t.Context(), rec.ID); err != nil {
		t.Fatal(err)
	}
	wantErr(t, "again", b.DeleteJoinToken(t.Context(), rec.ID), identity.ErrNotFound)
	_, err = b.Join(t.Context(), identity.JoinRequest{Token: text, Node: "gateway-1", CSR: b.csr(b.key(), "gateway-1")})
	wantErr(t, "deleted", err, identity.ErrTokenUnknown)
}

func TestOneTokenTwoEdgesAtOnce(t *testing.T) {
	b := newBench(t)
	other := b.service()
	text := b.token("gateway-1")
	const edges = 8
	keys, errs := make([]crypto.Signer, edges), make([]error, edges)
	issued := make([]identity.Issued, edges)
	var wg sync.WaitGroup
	for i := range edges {
		keys[i] = b.key()
		request := identity.JoinRequest{Token: text, Node: "gateway-1", CSR: b.csr(keys[i], "gateway-1")}
		hub := []*identity.Service{b.Service, other}[i%2]
		wg.Go(func() { issued[i], errs[i] = hub.Join(t.Context(), request) })
	}
	wg.Wait()
	winner := -1
	for i, err := range errs {
		switch {
		case err == nil && winner >= 0:
			t.Fatalf("edges %d and %d both joined", winner, i)
		case err == nil:
			winner = i
		case !errors.Is(err, identity.ErrTokenUsed):
			t.Errorf("edge %d: %v", i, err)
		}
	}
	if winner < 0 {
		t.Fatal("nobody joined")
	}
	if _, err := b.Authenticate(t.Context(), b.cert(issued[winner])); err != nil {
		t.Errorf("the winner is refused: %v", err)
	}
}

func TestLostJoinAnswerCanBeFetchedAgain(t *testing.T) {
	b := newBench(t)
	ctx, key := t.Context(), b.key()
	request := identity.JoinRequest{Token: b.token("gateway-1"), Node: "gateway-1", CSR: b.csr(key, "gateway-1")}
	first, err := b.Join(ctx, request)
	if err != nil {
		t.Fatal(err)
	}
	request.CSR = b.csr(key, "gateway-1")
	b.pass(time.Minute)
	again, err := b.Join(ctx, request)
	if err != nil || again.NodeUID != first.NodeUID {
		t.Fatalf("asked again: %+v, %v", again, err)
	}

	// Not to undo what was decided since.
	_, _ = b.join("gateway-1", b.key())
	_, err = b.Join(ctx, request)
	wantErr(t, "after another key joined", err, identity.ErrTokenUsed)

	request.Token, request.Node, request.CSR = b.token("gateway-2"), "gateway-2", b.csr(key, "gateway-2")
	if _, err := b.Join(ctx, request); err != nil {
		t.Fatal(err)
	}
	b.store.DeleteNode("gateway-2")
	_, err = b.Join(ctx, request)
	wantErr(t, "after the node was deleted", err, identity.ErrTokenUsed)

	request.Token, request.Node, request.CSR = b.token("gateway-3"), "gateway-3", b.csr(key, "gateway-3")
	if _, err := b.Join(ctx, request); err != nil {
		t.Fatal(err)
	}
	b.pass(11 * time.Minute)
	_, err = b.Join(ctx, request)
	wantErr(t, "too late", err, identity.ErrTokenUsed)
}

func TestJoiningAgainReplacesTheKey(t *testing.T) {
	b := newBench(t)
	first, cert := b.join("gateway-1", b.key())
	second, replacement := b.join("gateway-1", b.key())
	if first.NodeUID != second.NodeUID {
		t.Error("new hardware became another node")
	}
	_, err := b.Authenticate(t.Context(), cert)
	wantErr(t, "the former hardware", err, identity.ErrKeyMismatch)
	if _, err := b.Authenticate(t.Context(), replacement); err != nil {
		t.Error(err)
	}
	want := []identity.Reason{identity.NodeJoined, identity.NodeKeyReplaced, identity.CertificateRefused}
	if have := b.reasons(); !slices.Equal(have, want) {
		t.Errorf("events %v, want %v", have, want)
	}
}

func TestDeletingTheNodeRevokes(t *testing.T) {
	b := newBench(t)
	key := b.key()
	_, cert := b.join("gateway-1", key)
	b.store.DeleteNode("gateway-1")
	_, err := b.Authenticate(t.Context(), cert)
	wantErr(t, "deleted", err, identity.ErrNodeUnknown)
	_, err = b.Renew(t.Context(), cert, b.csr(key, "gateway-1"))
	wantErr(t, "renewal of a deleted one", err, identity.ErrNodeUnknown)
	b.pass(60 * day)
	_, err = b.Renew(t.Context(), cert, b.csr(key, "gateway-1"))
	wantErr(t, "renewal of an expired, deleted one", err, identity.ErrNodeUnknown)

	// One that is made again under the name starts from nothing.
	_, _ = b.join("gateway-1", b.key())
	_, err = b.Authenticate(t.Context(), cert)
	wantErr(t, "made again", err, identity.ErrKeyMismatch)
}

func TestExpiredCertificateMayOnlyBeRenewed(t *testing.T) {
	b := newBench(t)
	ctx, key := t.Context(), b.key()
	_, cert := b.join("gateway-1", key)
	b.pass(30 * day)
	if _, err := b.Authenticate(ctx, cert); err != nil {
		t.Fatalf("on its last day: %v", err)
	}
	b.pass(5 * 365 * day)
	id, err := b.Authenticate(ctx, cert)
	wantErr(t, "after five years", err, identity.ErrExpired)
	if id.Name != "gateway-1" || id.UID == "" {
		t.Errorf("identity %+v", id)
	}
	_, err = b.Renew(ctx, cert, b.csr(key, "gateway-2"))
	wantErr(t, "renewal as another", err, identity.ErrRequest)
	issued, err := b.Renew(ctx, cert, b.csr(key, "gateway-1"))
	if err != nil || issued.NodeUID != id.UID {
		t.Fatalf("renewed %+v, %v", issued, err)
	}
	if _, err := b.Authenticate(ctx, b.cert(issued)); err != nil {
		t.Errorf("renewed: %v", err)
	}
}

func TestRenewalWithANewKey(t *testing.T) {
	b := newBench(t)
	ctx, one, two, three := t.Context(), b.key(), b.key(), b.key()
	_, cert := b.join("gateway-1", one)

	lost, err := b.Renew(ctx, cert, b.csr(two, "gateway-1"))
	if err != nil {
		t.Fatal(err)
	}
	// The answer was lost; the node is not.
	if _, err := b.Authenticate(ctx, cert); err != nil {
		t.Fatalf("the old key, while the new one is unused: %v", err)
	}
	issued, err := b.Renew(ctx, cert, b.csr(three, "gateway-1"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.Authenticate(ctx, b.cert(lost))
	wantErr(t, "the key that was lost", err, identity.ErrKeyMismatch)

	// From first use on, by several sessions at once, only the new key is good.
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, err := b.Authenticate(ctx, b.cert(issued)); err != nil {
				t.Errorf("the new key: %v", err)
			}
		})
	}
	wg.Wait()
	_, err = b.Authenticate(ctx, cert)
	wantErr(t, "the old key", err, identity.ErrKeyMismatch)
	_, err = b.Renew(ctx, cert, b.csr(one, "gateway-1"))
	wantErr(t, "renewal with the old key", err, identity.ErrKeyMismatch)
}

func TestStoreFaultIsNotARefusal(t *testing.T) {
	b := newBench(t)
	ctx, key := t.Context(), b.key()
	_, cert := b.join("gateway-1", key)
	admin, err := b.EnsureAdmin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	text := b.token("gateway-2")
	before := len(b.events)
	fault := errors.New("connection refused")
	b.store.Fail(fault)
	_, err = b.Authenticate(ctx, cert)
	wantErr(t, "node", err, fault)
	_, err = b.Renew(ctx, cert, b.csr(key, "gateway-1"))
	wantErr(t, "renewal", err, fault)
	for range 20 {
		_, err = b.AuthenticateToken(ctx, admin, "10.0.0.9")
		wantErr(t, "API token", err, fault)
		_, err = b.Join(ctx, identity.JoinRequest{Token: text, Node: "gateway-2", CSR: b.csr(key, "gateway-2"), Remote: "10.0.0.9"})
		wantErr(t, "join", err, fault)
	}
	if len(b.events) != before {
		t.Errorf("a broken store made events: %+v", b.events[before:])
	}
	b.store.Fail(nil)
	if _, err = b.AuthenticateToken(ctx, admin, "10.0.0.9"); err != nil {
		t.Errorf("after the fault: %v", err)
	}
}

// The link as the hub has it: one handler for joining, one for the rest.
func TestOverTLS(t *testing.T) {
	b := newBench(t)
	server, err := pki.NewServerCert(b.ca, []string{"hub.example.com"}, b.clock())
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /join", func(w http.ResponseWriter, r *http.Request) {
		var request identity.JoinRequest
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		request.Remote = r.RemoteAddr
		issued, err := b.Join(r.Context(), request)
		if err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		_ = json.NewEncoder(w).Encode(issued)
	})
	mux.HandleFunc("POST /renew", func(w http.ResponseWriter, r *http.Request) {
		csr, _ := io.ReadAll(r.Body)
		issued, err := b.Renew(r.Context(), r.TLS.PeerCertificates[0], csr)
		if err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		_ = json.NewEncoder(w).Encode(issued)
	})
	mux.HandleFunc("GET /link", func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.PeerCertificates) == 0 {
			http.Error(w, "no certificate", http.StatusUnauthorized)
			return
		}
		id, err := b.Authenticate(r.Context(), r.TLS.PeerCertificates[0])
		if err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		fmt.Fprint(w, id.Name)
	})
	l, err := tls.Listen("tcp", "127.0.0.1:0", pki.HubTLS(server, b.CAs, b.clock))
	if err != nil {
		t.Fatal(err)
	}
	hub := &http.Server{Handler: mux, ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan struct{})
	go func() { // ends with Close below
		defer close(done)
		_ = hub.Serve(l)
	}()
	defer func() {
		_ = hub.Close()
		<-done
	}()

	call := func(config *tls.Config, method, path string, body []byte) (string, error) {
		transport := &http.Transport{TLSClientConfig: config}
		defer transport.CloseIdleConnections()
		req, err := http.NewRequestWithContext(t.Context(), method, "https://"+l.Addr().String()+path, bytes.NewReader(body))
		if err != nil {
			return "", err
		}
		res, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Do(req)
		if err != nil {
			return "", err
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err == nil && res.StatusCode != http.StatusOK {
			err = fmt.Errorf("%d: %s", res.StatusCode, text)
		}
		return string(text), err
	}
	with := func(cert *x509.Certificate, key crypto.Signer) *tls.Config {
		return pki.EdgeTLS(func() (*tls.Certificate, error) {
			return &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}, nil
		}, b.CAs)
	}
	refused := func(what string, config *tls.Config, want string) {
		t.Helper()
		if body, err := call(config, "GET", "/link", nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: have %q, %v; want an error with %q", what, body, err, want)
		}
	}
	decode := func(body string) (issued identity.Issued) {
		t.Helper()
		if err := json.Unmarshal([]byte(body), &issued); err != nil {
			t.Fatal(err)
		}
		return issued
	}

	text := b.token("gateway-1")
	token, err := pki.ParseJoinToken(text)
	if err != nil {
		t.Fatal(err)
	}
	key := b.key()
	body, err := json.Marshal(identity.JoinRequest{Token: text, Node: "gateway-1", CSR: b.csr(key, "gateway-1")})
	if err != nil {
		t.Fatal(err)
	}
	refused("before it joined", pki.JoinTLS(token.CAHash), "no certificate")
	answer, err := call(pki.JoinTLS(token.CAHash), "POST", "/join", body)
	if err != nil {
		t.Fatal(err)
	}
	cert := b.cert(decode(answer))
	if name, err := call(with(cert, key), "GET", "/link", nil); err != nil || name != "gateway-1" {
		t.Fatalf("joined as %q, %v", name, err)
	}

	// The right name and key hash of nothing: a certificate of a foreign CA.
	foreign, err := pki.NewCA(b.clock())
	if err != nil {
		t.Fatal(err)
	}
	checked, err := pki.CheckCSR(b.csr(key, "gateway-1"), "gateway-1")
	if err != nil {
		t.Fatal(err)
	}
	forged, err := foreign.SignNode(checked, time.Hour, b.clock())
	if err != nil {
		t.Fatal(err)
	}
	refused("forged", with(forged, key), "tls: ")

	// Our CA and the right key, but another name: gateway-2 exists with its own key.
	_, _ = b.join("gateway-2", b.key())
	checked, err = pki.CheckCSR(b.csr(key, "gateway-2"), "gateway-2")
	if err != nil {
		t.Fatal(err)
	}
	other, err := b.ca.SignNode(checked, time.Hour, b.clock())
	if err != nil {
		t.Fatal(err)
	}
	refused("as another node", with(other, key), "another key")

	// The certificate without its key.
	refused("without the key", with(cert, b.key()), "tls: ")

	b.pass(365 * day)
	refused("expired", with(cert, key), "may only be renewed")
	answer, err = call(with(cert, key), "POST", "/renew", b.csr(key, "gateway-1"))
	if err != nil {
		t.Fatal(err)
	}
	if name, err := call(with(b.cert(decode(answer)), key), "GET", "/link", nil); err != nil || name != "gateway-1" {
		t.Errorf("renewed as %q, %v", name, err)
	}
}

func TestAPITokens(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	_, _, err := b.IssueAPIToken(ctx, "anna", "", 0)
	wantErr(t, "for a user that is not there", err, identity.ErrNotFound)
	bindings := []identity.Binding{{Role: identity.Operator, Namespace: "plant"}}
	if _, err := b.store.PutUser(ctx, identity.User{Name: "anna", Bindings: bindings}); err != nil {
		t.Fatal(err)
	}
	text, rec, err := b.IssueAPIToken(ctx, "anna", "laptop", time.Hour)
	if err != nil || !strings.HasPrefix(text, "whk_") || len(text) != 47 {
		t.Fatalf("issued %q, %v", text, err)
	}
	id, err := b.AuthenticateToken(ctx, text, "10.0.0.1:5")
	if err != nil || id.User != "anna" || id.TokenID != rec.ID || !slices.Equal(id.Bindings, bindings) {
		t.Fatalf("identity %+v, %v", id, err)
	}
	list, err := b.APITokens(ctx, "anna")
	if err != nil || len(list) != 1 || !list[0].LastUsed.Equal(b.clock()) || list[0].Description != "laptop" {
		t.Fatalf("list %+v, %v", list, err)
	}
	_, err = b.AuthenticateToken(ctx, "", "10.0.0.1:5")
	wantErr(t, "none", err, identity.ErrUnauthenticated)
	if n := len(b.reasons()); n != 0 {
		t.Errorf("a request without a token made %d events", n)
	}

	last := text[:46] + "A"
	if last == text {
		last = text[:46] + "Q"
	}
	for _, wrong := range []string{last, text + "A", "Bearer " + text, "whk_", strings.ToUpper(text), "\x00"} {
		_, err := b.AuthenticateToken(ctx, wrong, "10.0.0.1:5")
		wantErr(t, wrong, err, identity.ErrUnauthenticated)
	}
	b.pass(time.Hour)
	_, err = b.AuthenticateToken(ctx, text, "10.0.0.1:5")
	wantErr(t, "expired", err, identity.ErrUnauthenticated)
	b.assertNoSecret(text, list)

	// The cache does not make a token live longer.
	text, _, err = b.IssueAPIToken(ctx, "anna", "", 2*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.AuthenticateToken(ctx, text, "10.0.0.2"); err != nil {
		t.Fatal(err)
	}
	b.pass(2 * time.Second)
	_, err = b.AuthenticateToken(ctx, text, "10.0.0.2")
	wantErr(t, "expired while cached", err, identity.ErrUnauthenticated)
}

func TestAPITokenIsCachedButNotForLong(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	other := b.service() // another replica on the same database
	admin, err := b.EnsureAdmin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	auth := func(s *identity.Service) error {
		_, err := s.AuthenticateToken(ctx, admin, "10.0.0.1")
		return err
	}
	if err := errors.Join(auth(b.Service), auth(other)); err != nil {
		t.Fatal(err)
	}
	fault := errors.New("connection refused")
	b.store.Fail(fault)
	if err := auth(b.Service); err != nil {
		t.Errorf("the hot path asks the store: %v", err)
	}
	b.store.Fail(nil)

	list, err := b.APITokens(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.DeleteAPIToken(ctx, list[0].ID); err != nil {
		t.Fatal(err)
	}
	wantErr(t, "deleted", auth(b.Service), identity.ErrUnauthenticated)
	b.pass(5 * time.Second)
	wantErr(t, "deleted at another replica", auth(other), identity.ErrUnauthenticated)
}

func TestUsersThatChange(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	put := func(role identity.Role) {
		t.Helper()
		_, err := b.store.PutUser(ctx, identity.User{Name: "anna", Bindings: []identity.Binding{{Role: role, Namespace: "*"}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	put(identity.Admin)
	text, _, err := b.IssueAPIToken(ctx, "anna", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	role := func() identity.Role {
		t.Helper()
		id, err := b.AuthenticateToken(ctx, text, "10.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		return id.Bindings[0].Role
	}
	if role() != identity.Admin {
		t.Fatal("not an admin")
	}
	put(identity.Viewer)
	b.UserChanged("anna")
	if role() != identity.Viewer {
		t.Error("still an admin after the change")
	}
	b.store.DeleteUser("anna")
	b.UserChanged("anna")
	_, err = b.AuthenticateToken(ctx, text, "10.0.0.1")
	wantErr(t, "deleted user", err, identity.ErrUnauthenticated)
	put(identity.Admin)
	_, err = b.AuthenticateToken(ctx, text, "10.0.0.1")
	wantErr(t, "token of a namesake", err, identity.ErrUnauthenticated)
	revoked, err := b.RevokeUser(ctx, "anna")
	if err != nil || len(revoked) != 1 || revoked[0].User != "anna" || revoked[0].ID == "" || revoked[0].Hash != "" {
		t.Fatalf("revoked %+v, error %v", revoked, err)
	}
	if list, err := b.APITokens(ctx, "anna"); err != nil || len(list) != 0 {
		t.Errorf("tokens left: %v, %v", list, err)
	}
}

func TestWrongTokensAreSlowedDown(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	admin, err := b.EnsureAdmin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	wrong := func(i int) string { return fmt.Sprintf("whk_%043d", i) }
	for i := range 10 {
		_, err := b.AuthenticateToken(ctx, wrong(i), "10.0.0.1:1000")
		wantErr(t, "within the limit", err, identity.ErrUnauthenticated)
	}
	var throttled *identity.ThrottledError
	for i := range 100 {
		_, err := b.AuthenticateToken(ctx, wrong(i), fmt.Sprintf("10.0.0.1:%d", 2000+i))
		if !errors.As(err, &throttled) || throttled.RetryAfter < time.Second || throttled.RetryAfter > time.Minute {
			t.Fatalf("attempt %d: %v", i, err)
		}
	}
	// Join tokens count in the same purse.
	_, err = b.Join(ctx, identity.JoinRequest{Token: "wt1.x.y", Node: "n", Remote: "10.0.0.1:3000"})
	if !errors.As(err, &throttled) {
		t.Errorf("join: %v", err)
	}
	if n := len(b.reasons()); n != 11 {
		t.Errorf("%d events for 110 wrong tokens, want 11", n)
	}
	// Others are not concerned, nor is a right token once the flood is over.
	if _, err := b.AuthenticateToken(ctx, admin, "10.0.0.2:1"); err != nil {
		t.Errorf("another address: %v", err)
	}
	b.pass(time.Second)
	b.UserChanged("admin") // out of the cache
	if _, err := b.AuthenticateToken(ctx, admin, "10.0.0.1:1"); err != nil {
		t.Errorf("a right token from the noisy address: %v", err)
	}
	b.assertNoSecret(wrong(3), b.events)
}

func TestAdmin(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	first, err := b.EnsureAdmin(ctx)
	if err != nil || first == "" {
		t.Fatalf("first start: %q, %v", first, err)
	}
	id, err := b.AuthenticateToken(ctx, first, "")
	if err != nil || id.User != "admin" || identity.Authorize(id, identity.Admin, identity.ClusterScope) != nil {
		t.Fatalf("identity %+v, %v", id, err)
	}
	if again, err := b.EnsureAdmin(ctx); err != nil || again != "" {
		t.Fatalf("second start: %q, %v", again, err)
	}

	_, err = b.store.PutUser(ctx, identity.User{Name: "admin", Bindings: []identity.Binding{{Role: identity.Viewer, Namespace: "plant"}}})
	if err != nil {
		t.Fatal(err)
	}
	second, err := b.ResetAdmin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if len(second.Revoked) != 1 || second.Revoked[0].ID != id.TokenID || second.Made.ID == "" || second.Made.ID == id.TokenID {
		t.Errorf("the reset did %+v", second)
	}
	_, err = b.AuthenticateToken(ctx, first, "")
	wantErr(t, "the token before the reset", err, identity.ErrUnauthenticated)
	id, err = b.AuthenticateToken(ctx, second.Token, "")
	if err != nil || identity.Authorize(id, identity.Admin, identity.AllNamespaces) != nil {
		t.Errorf("after the reset: %+v, %v", id, err)
	}

	b.store.DeleteUser("admin")
	if again, err := b.EnsureAdmin(ctx); err != nil || again != "" {
		t.Errorf("a deleted admin came back with %q, %v", again, err)
	}
	if third, err := b.ResetAdmin(ctx); err != nil || third.Token == "" {
		t.Errorf("reset without an admin: %v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	b := newBench(t)
	good := identity.Config{Stores: b.store.Stores(), CA: b.ca}
	for name, change := range map[string]func(*identity.Config){
		"no store":          func(c *identity.Config) { c.Stores.Nodes = nil },
		"no CA":             func(c *identity.Config) { c.CA = nil },
		"negative lifetime": func(c *identity.Config) { c.CertificateLifetime = -1 },
		"negative ttl":      func(c *identity.Config) { c.CacheTTL = -1 },
	} {
		config := good
		change(&config)
		if _, err := identity.New(config); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if _, err := identity.New(good); err != nil {
		t.Error(err)
	}
}

// While one CA replaces another, nodes of both are let in and told of both.
func TestTwoCAs(t *testing.T) {
	b := newBench(t)
	key := b.key()
	_, cert := b.join("gateway-1", key)
	next, err := pki.NewCA(b.clock())
	if err != nil {
		t.Fatal(err)
	}
	s, err := identity.New(identity.Config{
		Stores: b.store.Stores(), CA: next, OtherCAs: []*x509.Certificate{b.ca.Cert}, Now: b.clock,
	})
	if err != nil {
		t.Fatal(err)
	}
	issued, err := s.Renew(t.Context(), cert, b.csr(key, "gateway-1"))
	if err != nil {
		t.Fatal(err)
	}
	if cas, err := pki.DecodeCerts(issued.CA); err != nil || len(cas) != 2 {
		t.Errorf("told of %d CAs, %v", len(cas), err)
	}
	if _, err := s.Authenticate(t.Context(), b.cert(issued)); err != nil {
		t.Errorf("renewed by the new CA: %v", err)
	}
	_, err = b.Authenticate(t.Context(), b.cert(issued))
	wantErr(t, "where only the old CA is known", err, identity.ErrCertificate)
}
