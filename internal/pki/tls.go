package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"
)

// HubTLS returns the server side of the link.
//
// Clients are asked for a certificate and need not have one, because a node that
// joins has none yet; whoever handles a request looks at
// r.TLS.PeerCertificates. A certificate that is shown must be a node's and from
// one of the CAs, or the handshake fails. That it has expired does not matter here:
// an edge back from a year in a warehouse must be able to ask for renewal.
// The caller decides what an expired one may do.
//
// cas is called at each handshake; now decides when the server renews its own.
func HubTLS(server *ServerCert, cas func() []*x509.Certificate, now func() time.Time) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		Time:       now,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return server.Current(now())
		},
		ClientAuth: tls.RequestClientCert,
		// Not VerifyPeerCertificate: that one is skipped when a session resumes.
		VerifyConnection: func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) == 0 {
				return nil
			}
			_, err := VerifyNode(state.PeerCertificates[0], cas())
			return err
		},
	}
}

// VerifyNode checks that a certificate is a node's, from one of the CAs, and returns
// the node's name. Its dates are not looked at.
func VerifyNode(leaf *x509.Certificate, cas []*x509.Certificate) (string, error) {
	if err := verify(leaf, cas, x509.ExtKeyUsageClientAuth); err != nil {
		return "", fmt.Errorf("node certificate: %w", err)
	}
	name, err := NodeName(leaf)
	if err != nil {
		return "", fmt.Errorf("node certificate: %w", err)
	}
	return name, nil
}

// ErrOtherHub: a join token does not belong to the server that was dialled.
var ErrOtherHub = errors.New("the server is not the hub that made the join token: its chain lacks the token's CA")

// JoinTLS returns the client side for an edge that has not joined yet: it trusts
// a hub whose chain includes the CA with the given hash, from the join token.
func JoinTLS(caHash string) *tls.Config {
	return hubClient(func(state tls.ConnectionState) ([]*x509.Certificate, error) {
		for _, cert := range state.PeerCertificates {
			if cert.IsCA && CertHash(cert) == caHash {
				return []*x509.Certificate{cert}, nil
			}
		}
		return nil, ErrOtherHub
	})
}

// EdgeTLS returns the client side for an edge that has joined. certificate and
// cas are called at each handshake, so that what a renewal brought is used from
// the next connection on.
func EdgeTLS(certificate func() (*tls.Certificate, error), cas func() []*x509.Certificate) *tls.Config {
	config := hubClient(func(tls.ConnectionState) ([]*x509.Certificate, error) {
		return cas(), nil
	})
	// Unlike Certificates this is not matched against what the server says it
	// accepts, and an expired one is sent too.
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return certificate()
	}
	return config
}

// hubClient checks a server by what it is, not by the host name dialled: edges
// reach the hub through forwarded ports, tunnels and bare addresses, and the CA
// gives the hub's URI to nobody but the hub.
//
// The library's own check is off because it insists on the host name and on the
// clock of the edge.
func hubClient(trusted func(tls.ConnectionState) ([]*x509.Certificate, error)) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // VerifyConnection does it
		VerifyConnection: func(state tls.ConnectionState) error {
			cas, err := trusted(state)
			if err != nil {
				return err
			}
			leaf := state.PeerCertificates[0] // a server always has one
			if err := verify(leaf, cas, x509.ExtKeyUsageServerAuth); err != nil {
				return fmt.Errorf("hub certificate: %w", err)
			}
			if !isHub(leaf) {
				return errors.New("hub certificate: it is not a hub's")
			}
			return nil
		},
	}
}

// verify checks a leaf that one of the CAs signed directly, as on its first day:
// a leaf lives within the life of its CA, so no date is in the way.
func verify(leaf *x509.Certificate, cas []*x509.Certificate, usage x509.ExtKeyUsage) error {
	roots := x509.NewCertPool()
	for _, ca := range cas {
		roots.AddCert(ca)
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots:       roots,
		CurrentTime: leaf.NotBefore,
		KeyUsages:   []x509.ExtKeyUsage{usage},
	})
	return err
}

// A ServerCert is the hub's own certificate. It lives in memory only and is made
// anew at each start and, in a hub that runs for long, before it expires.
type ServerCert struct {
	ca    *CA
	hosts []string

	mu   sync.Mutex
	cert *tls.Certificate // never changed once it is here
}

// NewServerCert issues the first one for the hosts: IP addresses or DNS names.
func NewServerCert(ca *CA, hosts []string, now time.Time) (*ServerCert, error) {
	s := &ServerCert{ca: ca, hosts: hosts}
	if _, err := s.Current(now); err != nil {
		return nil, err
	}
	return s, nil
}

// Current returns the certificate to show at now. The caller must not change it.
func (s *ServerCert) Current(now time.Time) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// One that was made while the clock was ahead is not valid yet. One from the
	// CA's first moment cannot be made earlier.
	early := s.cert != nil && now.Before(s.cert.Leaf.NotBefore) && s.cert.Leaf.NotBefore.After(s.ca.Cert.NotBefore)
	if s.cert != nil && !RenewDue(s.cert.Leaf, now) && !early {
		return s.cert, nil
	}
	cert, err := s.ca.IssueServer(s.hosts, now)
	if err != nil {
		// An old one is better than none: it may be this clock that is wrong, and
		// who connects has one of their own.
		if s.cert != nil {
			return s.cert, nil
		}
		return nil, err
	}
	s.cert = &cert
	return s.cert, nil
}
