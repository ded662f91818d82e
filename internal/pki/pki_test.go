package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var now = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

func newCA(t testing.TB) *CA {
	t.Helper()
	ca, err := NewCA(now)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// csrFor makes a request with any template.
func csrFor(t testing.TB, key crypto.Signer, template *x509.CertificateRequest) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: csrType, Bytes: der})
}

func nodeCert(t testing.TB, ca *CA, key crypto.Signer, name string, at time.Time) *x509.Certificate {
	t.Helper()
	data, err := NewCSR(key, name)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := CheckCSR(data, name)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.SignNode(csr, NodeLifetime, at)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestCARoundTrip(t *testing.T) {
	ca := newCA(t)
	data, err := ca.EncodePEM()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseCA(data)
	if err != nil {
		t.Fatal(err)
	}
	if again.Hash() != ca.Hash() || !strings.HasPrefix(ca.Hash(), "sha256:") || len(ca.Hash()) != 7+64 {
		t.Fatalf("hash %s became %s", ca.Hash(), again.Hash())
	}
	if years := ca.Cert.NotAfter.Sub(now) / (365 * 24 * time.Hour); years != 10 {
		t.Errorf("CA lives %d years", years)
	}
	// What the parsed one signs, the first one's certificate verifies.
	if _, err := VerifyNode(nodeCert(t, again, newKey(t), "n", now), []*x509.Certificate{ca.Cert}); err != nil {
		t.Error(err)
	}

	otherKey, err := EncodeKey(newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseCA(append(EncodeCerts(ca.Cert), otherKey...)); err == nil {
		t.Error("a CA with a foreign key was accepted")
	}
	if _, err := ParseCA(data[:len(data)-10]); err == nil {
		t.Error("a truncated CA was accepted")
	}
}

func TestServerCertificate(t *testing.T) {
	ca := newCA(t)
	cert, err := ca.IssueServer([]string{"hub.example.com", "10.0.0.1", "::1"}, now)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.Cert)
	for _, host := range []string{"hub.example.com", "10.0.0.1", "::1"} {
		if _, err := cert.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: host, CurrentTime: now}); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	if _, err := cert.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: "other.example.com", CurrentTime: now}); err == nil {
		t.Error("valid for a host that was not asked for")
	}
	if life := cert.Leaf.NotAfter.Sub(cert.Leaf.NotBefore); life > 365*24*time.Hour {
		t.Errorf("lives %v", life)
	}
}

func TestServerCertIsRenewedWhileRunning(t *testing.T) {
	ca := newCA(t)
	s, err := NewServerCert(ca, []string{"localhost"}, now)
	if err != nil {
		t.Fatal(err)
	}
	serial := func(at time.Time) string {
		cert, err := s.Current(at)
		if err != nil {
			t.Fatal(err)
		}
		if !at.Before(cert.Leaf.NotAfter) {
			t.Fatalf("at %v shows a certificate that ended %v", at, cert.Leaf.NotAfter)
		}
		return cert.Leaf.SerialNumber.String()
	}
	first := serial(now)
	if serial(now.Add(200*24*time.Hour)) != first {
		t.Error("renewed too early")
	}
	if serial(now.Add(250*24*time.Hour)) == first {
		t.Error("not renewed")
	}
	// A clock that jumps, ahead and back: what was made meanwhile is of no use.
	ahead := serial(now.Add(3 * 365 * 24 * time.Hour))
	back, err := s.Current(now)
	if err != nil || back.Leaf.SerialNumber.String() == ahead || now.Before(back.Leaf.NotBefore) {
		t.Errorf("back from a jump of the clock: %v, valid from %v", err, back.Leaf.NotBefore)
	}
	// After the end of the CA none can be made. It may be the clock that is wrong.
	old, err := s.Current(now.Add(11 * 365 * 24 * time.Hour))
	if err != nil || old != back {
		t.Errorf("after the end of the CA: %v", err)
	}
	if _, err := NewServerCert(ca, []string{"localhost"}, now.Add(11*365*24*time.Hour)); err == nil {
		t.Error("issued after the end of the CA")
	}
	// Before its beginning there is none better than from then on.
	first = serial(now.Add(-40 * 365 * 24 * time.Hour))
	if serial(now.Add(-40*365*24*time.Hour)) != first {
		t.Error("made anew each time")
	}
}

func TestNodeCertificateTakesNothingButTheKeyFromTheRequest(t *testing.T) {
	ca, key := newCA(t), newKey(t)
	greedy := csrFor(t, key, &x509.CertificateRequest{
		Subject:     pkix.Name{CommonName: "gateway-1", Organization: []string{"system:masters"}},
		DNSNames:    []string{"hub.example.com"},
		IPAddresses: []net.IP{net.IPv4(10, 0, 0, 1)},
		URIs:        []*url.URL{hubURI, nodeURI("gateway-2")},
	})
	csr, err := CheckCSR(greedy, "gateway-1")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.SignNode(csr, time.Hour, now)
	if err != nil {
		t.Fatal(err)
	}
	if len(cert.DNSNames)+len(cert.IPAddresses)+len(cert.Subject.Organization) != 0 || cert.IsCA {
		t.Errorf("asked-for extensions came through: %+v", cert.Subject)
	}
	if len(cert.URIs) != 1 || cert.URIs[0].String() != "spiffe://whimbrel/node/gateway-1" {
		t.Errorf("URIs %v", cert.URIs)
	}
	if !cert.NotAfter.Equal(now.Add(time.Hour)) {
		t.Errorf("ends %v", cert.NotAfter)
	}
	name, err := NodeName(cert)
	if err != nil || name != "gateway-1" {
		t.Errorf("name %q, %v", name, err)
	}
	if hash, _ := KeyHash(cert.PublicKey); hash != csr.KeyHash {
		t.Error("the certificate has another key than the request")
	}
}

func TestCertificatesEndWithTheCA(t *testing.T) {
	ca := newCA(t)
	late := ca.Cert.NotAfter.Add(-time.Hour)
	if cert := nodeCert(t, ca, newKey(t), "n", late); !cert.NotAfter.Equal(ca.Cert.NotAfter) {
		t.Errorf("outlives the CA: %v", cert.NotAfter)
	}
}

func TestCheckCSRRefuses(t *testing.T) {
	key := newKey(t)
	named := &x509.CertificateRequest{Subject: pkix.Name{CommonName: "gateway-1"}}
	good := csrFor(t, key, named)
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(good)
	forged := bytes.Clone(block.Bytes)
	forged[len(forged)-1] ^= 1 // in the signature

	for name, c := range map[string]struct {
		csr  []byte
		node string
		want string
	}{
		"another name":    {good, "gateway-2", `for "gateway-1", not for node "gateway-2"`},
		"no name":         {csrFor(t, key, &x509.CertificateRequest{}), "gateway-1", `for ""`},
		"a bad name":      {good, "Gateway_1", "not a DNS subdomain"},
		"rsa":             {csrFor(t, rsaKey, named), "gateway-1", "none of P-256"},
		"p-224":           {csrFor(t, p224, named), "gateway-1", "none of P-256"},
		"bad signature":   {pem.EncodeToMemory(&pem.Block{Type: csrType, Bytes: forged}), "gateway-1", "certificate request"},
		"not pem":         {block.Bytes, "gateway-1", "one PEM block"},
		"another type":    {pem.EncodeToMemory(&pem.Block{Type: certType, Bytes: block.Bytes}), "gateway-1", "one PEM block"},
		"two blocks":      {append(bytes.Clone(good), good...), "gateway-1", "one PEM block"},
		"empty":           {nil, "gateway-1", "one PEM block"},
		"too long":        {append(bytes.Clone(good), make([]byte, maxCSR)...), "gateway-1", "longer than"},
		"a truncated one": {pem.EncodeToMemory(&pem.Block{Type: csrType, Bytes: block.Bytes[:40]}), "gateway-1", "parse certificate request"},
	} {
		if _, err := CheckCSR(c.csr, c.node); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: have error %v, want one with %q", name, err, c.want)
		}
	}

	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := CheckCSR(csrFor(t, edKey, named), "gateway-1"); err != nil {
		t.Errorf("ed25519: %v", err)
	}
}

func TestNodeNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"gateway-1": true, "a": true, "0.b-c.d9": true, strings.Repeat("a", 63): true,
		"": false, "A": false, "-a": false, "a-": false, "a.": false, ".a": false, "a..b": false, "a-.b": false,
		"a.-b": false, "a/b": false, "ä": false, strings.Repeat("a", 64): false, strings.Repeat("a.", 127): false,
	} {
		if err := CheckNodeName(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestVerifyNode(t *testing.T) {
	ca, other := newCA(t), newCA(t)
	cert := nodeCert(t, ca, newKey(t), "gateway-1", now)
	server, err := ca.IssueServer([]string{"localhost"}, now)
	if err != nil {
		t.Fatal(err)
	}
	cas := []*x509.Certificate{other.Cert, ca.Cert} // as during a rotation
	for name, c := range map[string]struct {
		cert *x509.Certificate
		cas  []*x509.Certificate
		ok   bool
	}{
		"good":          {cert, cas, true},
		"unknown CA":    {cert, cas[:1], false},
		"no CA":         {cert, nil, false},
		"the hub's":     {server.Leaf, cas, false},
		"the CA's own":  {ca.Cert, cas, false},
		"first of two":  {cert, []*x509.Certificate{ca.Cert, other.Cert}, true},
		"last possible": {nodeCert(t, ca, newKey(t), "gateway-1", ca.Cert.NotAfter), cas, true},
	} {
		node, err := VerifyNode(c.cert, c.cas)
		if (err == nil) != c.ok || c.ok && node != "gateway-1" {
			t.Errorf("%s: %q, %v", name, node, err)
		}
	}
}

func TestNoCAOf1970(t *testing.T) {
	ca, err := NewCA(time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	if ca.Cert.NotAfter.Before(now.Add(9 * 365 * 24 * time.Hour)) {
		t.Errorf("ends %v", ca.Cert.NotAfter)
	}
	if cert := nodeCert(t, ca, newKey(t), "n", time.Unix(0, 0)); !cert.NotAfter.After(cert.NotBefore) || cert.NotBefore.Before(ca.Cert.NotBefore) {
		t.Errorf("a node certificate from %v to %v", cert.NotBefore, cert.NotAfter)
	}
}

func TestRenewDue(t *testing.T) {
	cert := &x509.Certificate{NotBefore: now, NotAfter: now.Add(30 * time.Hour)}
	for hours, want := range map[int]bool{-5: false, 19: false, 20: true, 100: true} {
		if RenewDue(cert, now.Add(time.Duration(hours)*time.Hour)) != want {
			t.Errorf("after %d hours: want %v", hours, want)
		}
	}
}

func TestFiles(t *testing.T) {
	dir, key := t.TempDir(), newKey(t)
	path := filepath.Join(dir, "key.pem")
	if _, err := ReadKeyFile(path); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("absent: %v", err)
	}
	if err := WriteKeyFile(path, key); err != nil {
		t.Fatal(err)
	}
	again, err := ReadKeyFile(path)
	if err != nil || !key.Equal(again) {
		t.Fatalf("read back %v, %v", again, err)
	}

	ca := newCA(t)
	cert := nodeCert(t, ca, key, "gateway-1", now)
	identity := filepath.Join(dir, "node.pem")
	if err := WriteIdentity(identity, EncodeCerts(cert), key); err != nil {
		t.Fatal(err)
	}
	pair, err := ReadIdentity(identity)
	if err != nil || !pair.Leaf.Equal(cert) || !key.Equal(pair.PrivateKey) {
		t.Fatalf("read back %v, %v", pair, err)
	}
	if err := WriteIdentity(identity, EncodeCerts(cert), newKey(t)); err == nil {
		t.Error("wrote a certificate with a foreign key")
	}
	if pair, err := ReadIdentity(identity); err != nil || !pair.Leaf.Equal(cert) {
		t.Errorf("a refused write changed the file: %v", err)
	}
	for _, f := range []string{path, identity} {
		info, err := os.Stat(f)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, %v", f, info.Mode(), err)
		}
	}
	if err := os.WriteFile(path, []byte("-----BEGIN PRIV"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadKeyFile(path); err == nil || errors.Is(err, os.ErrNotExist) {
		t.Errorf("a damaged file reads as %v", err)
	}
}

func FuzzCheckCSR(f *testing.F) {
	good, err := NewCSR(newKey(f), "gateway-1")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good, "gateway-1")
	f.Add(good[:len(good)/2], "gateway-1")
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n"), "a.b")
	f.Fuzz(func(t *testing.T, data []byte, node string) {
		csr, err := CheckCSR(data, node)
		if err != nil {
			return
		}
		if csr.Node != node || CheckNodeName(node) != nil || csr.KeyHash == "" || checkKey(csr.PublicKey) != nil {
			t.Errorf("accepted %+v", csr)
		}
	})
}

func FuzzDecodeCerts(f *testing.F) {
	ca := newCA(f)
	f.Add(EncodeCerts(ca.Cert, ca.Cert))
	key, err := ca.EncodePEM()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(key)
	f.Fuzz(func(t *testing.T, data []byte) {
		certs, err := DecodeCerts(data)
		if err != nil {
			return
		}
		again, err := DecodeCerts(EncodeCerts(certs...))
		if err != nil || len(again) != len(certs) {
			t.Errorf("%d certificates became %d, %v", len(certs), len(again), err)
		}
	})
}
