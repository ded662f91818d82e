package pki

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func fixed(at time.Time) func() time.Time { return func() time.Time { return at } }

func only(ca *CA) func() []*x509.Certificate {
	return func() []*x509.Certificate { return []*x509.Certificate{ca.Cert} }
}

// listen starts a TLS server that answers with the name in the client's
// certificate, or "nobody".
func listen(t *testing.T, config *tls.Config) string {
	t.Helper()
	// Not httptest: it adds a certificate of its own, which wins where the
	// client sends no host name.
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if len(r.TLS.PeerCertificates) == 0 {
				fmt.Fprint(w, "nobody")
				return
			}
			fmt.Fprint(w, r.TLS.PeerCertificates[0].Subject.CommonName)
		}),
		ErrorLog: log.New(io.Discard, "", 0),
	}
	done := make(chan struct{})
	go func() { // ends with Close below
		defer close(done)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() {
		_ = s.Close()
		<-done
	})
	return "https://" + l.Addr().String()
}

func hub(t *testing.T, ca *CA, at time.Time) string {
	t.Helper()
	server, err := NewServerCert(ca, []string{"hub.example.com"}, at) // not the address that is dialled
	if err != nil {
		t.Fatal(err)
	}
	return listen(t, HubTLS(server, only(ca), fixed(at)))
}

func get(t *testing.T, url string, config *tls.Config) (string, error) {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: config}
	defer transport.CloseIdleConnections()
	res, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Get(url)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return string(body), err
}

func edge(t *testing.T, trusts, signer *CA, name string, issued time.Time) *tls.Config {
	t.Helper()
	key := newKey(t)
	cert := nodeCert(t, signer, key, name, issued)
	return EdgeTLS(func() (*tls.Certificate, error) {
		return &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}, nil
	}, only(trusts))
}

func TestLink(t *testing.T) {
	ca, foreign := newCA(t), newCA(t)
	good := hub(t, ca, now)

	// A program that has stolen nothing but a node's certificate plays the hub.
	key := newKey(t)
	node := nodeCert(t, ca, key, "gateway-9", now)
	impostor := listen(t, &tls.Config{Certificates: []tls.Certificate{{
		Certificate: [][]byte{node.Raw, ca.Cert.Raw}, PrivateKey: key,
	}}})
	// A server certificate of our CA that lacks the hub's URI.
	server, err := ca.issue(&x509.Certificate{
		DNSNames: []string{"127.0.0.1"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, key.Public(), time.Hour, now)
	if err != nil {
		t.Fatal(err)
	}
	nameless := listen(t, &tls.Config{Certificates: []tls.Certificate{{
		Certificate: [][]byte{server.Raw, ca.Cert.Raw}, PrivateKey: key,
	}}})
	// Somebody who shows our CA, which is public, beside a leaf of his own CA.
	theirs, err := foreign.IssueServer([]string{"127.0.0.1"}, now)
	if err != nil {
		t.Fatal(err)
	}
	theirs.Certificate = append(theirs.Certificate, ca.Cert.Raw)
	decorated := listen(t, &tls.Config{Certificates: []tls.Certificate{theirs}})

	for name, c := range map[string]struct {
		url    string
		config *tls.Config
		want   string // body
		fails  string // or part of the error
	}{
		"join":                            {good, JoinTLS(ca.Hash()), "nobody", ""},
		"join with another hub's token":   {good, JoinTLS(foreign.Hash()), "", "lacks the token's CA"},
		"join at a node":                  {impostor, JoinTLS(ca.Hash()), "", "hub certificate"},
		"join at a server without URI":    {nameless, JoinTLS(ca.Hash()), "", "not a hub's"},
		"join, our CA but a foreign leaf": {decorated, JoinTLS(ca.Hash()), "", "unknown authority"},
		"node":                            {good, edge(t, ca, ca, "gateway-1", now), "gateway-1", ""},
		"node of a foreign CA":            {good, edge(t, ca, foreign, "gateway-1", now), "", "tls"},
		"node that trusts a foreign CA":   {good, edge(t, foreign, ca, "gateway-1", now), "", "unknown authority"},
		"node at an impostor":             {impostor, edge(t, ca, ca, "gateway-1", now), "", "hub certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			body, err := get(t, c.url, c.config)
			if c.fails == "" {
				if err != nil || body != c.want {
					t.Errorf("have %q, %v; want %q", body, err, c.want)
				}
			} else if err == nil || !strings.Contains(err.Error(), c.fails) {
				t.Errorf("have %q, %v; want an error with %q", body, err, c.fails)
			}
		})
	}
}

// The client here has the clock of this machine. Hubs of other times play the part of
// a clock that is far behind, or far ahead.
func TestLinkDoesNotTrustTheClockOfTheEdge(t *testing.T) {
	for _, year := range []int{2027, 2100} {
		at := time.Date(year, 1, 2, 0, 0, 0, 0, time.UTC)
		ca, err := NewCA(at)
		if err != nil {
			t.Fatal(err)
		}
		for offset, what := range map[time.Duration]string{
			0: "fresh CA", 9 * 365 * 24 * time.Hour: "old CA", -40 * 365 * 24 * time.Hour: "hub without a clock",
		} {
			url := hub(t, ca, at.Add(offset))
			if body, err := get(t, url, JoinTLS(ca.Hash())); err != nil || body != "nobody" {
				t.Errorf("%d, %s: join: %q, %v", year, what, body, err)
			}
			if body, err := get(t, url, edge(t, ca, ca, "gateway-1", at.Add(offset))); err != nil || body != "gateway-1" {
				t.Errorf("%d, %s: node: %q, %v", year, what, body, err)
			}
		}
	}
}

// A node whose certificate expired long ago still completes the handshake: what
// it may do then is decided above.
func TestLinkLetsExpiredNodesIn(t *testing.T) {
	ca := newCA(t)
	later := now.Add(3 * 365 * 24 * time.Hour)
	body, err := get(t, hub(t, ca, later), edge(t, ca, ca, "gateway-1", now))
	if err != nil || body != "gateway-1" {
		t.Errorf("have %q, %v", body, err)
	}
}

func TestLinkRefusesOldTLS(t *testing.T) {
	ca := newCA(t)
	config := JoinTLS(ca.Hash())
	config.MinVersion, config.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if _, err := get(t, hub(t, ca, now), config); err == nil || !strings.Contains(err.Error(), "protocol version") {
		t.Errorf("TLS 1.2: %v", err)
	}
}

// A resumed session is checked again: the CA may have been dropped since.
func TestLinkChecksResumedSessions(t *testing.T) {
	ca := newCA(t)
	server, err := NewServerCert(ca, nil, now)
	if err != nil {
		t.Fatal(err)
	}
	cas := []*x509.Certificate{ca.Cert}
	url := listen(t, HubTLS(server, func() []*x509.Certificate { return cas }, fixed(now)))
	config := edge(t, ca, ca, "gateway-1", now)
	config.Time = fixed(now)
	config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	resumed, check := false, config.VerifyConnection
	config.VerifyConnection = func(state tls.ConnectionState) error {
		resumed = state.DidResume
		return check(state)
	}
	for range 2 {
		if _, err := get(t, url, config); err != nil {
			t.Fatal(err)
		}
	}
	if !resumed {
		t.Fatal("the second session was not resumed, so this tests nothing")
	}
	cas = nil
	if body, err := get(t, url, config); err == nil {
		t.Errorf("resumed as %q", body)
	}
}
