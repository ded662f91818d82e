package identity

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/whimbrel-edge/whimbrel/internal/pki"
)

// Why a node is refused.
var (
	// ErrCertificate: not a certificate of ours for a node.
	ErrCertificate = errors.New("not a node certificate of this hub")
	// ErrNodeUnknown: the Node was deleted, which revokes its certificates.
	ErrNodeUnknown = errors.New("there is no such node")
	// ErrKeyMismatch: the node has joined again since with another key.
	ErrKeyMismatch = errors.New("the node is recorded with another key")
	// ErrExpired: all is well but for the date. Only Renew is permitted.
	ErrExpired = errors.New("the node certificate has expired and may only be renewed")
	// ErrRequest: the certificate request will not do.
	ErrRequest = errors.New("certificate request refused")
)

// A NodeIdentity is an authenticated node.
type NodeIdentity struct {
	Name    string
	UID     string
	KeyHash string    // of the key that it showed
	Expires time.Time // end of its certificate
}

// An Issued certificate is the answer to Join and Renew, in PEM.
type Issued struct {
	Certificate []byte
	CA          []byte // every CA that the edge should trust from now on
	NodeUID     string
	Expires     time.Time
}

// Authenticate says which node has shown a certificate in a TLS handshake, where it
// proved that it holds the key. Besides the certificate, the Node must exist
// and be recorded with this key.
//
// With ErrExpired the identity is returned too; the node may then do nothing but Renew.
// Other refusals are ErrCertificate, ErrNodeUnknown and ErrKeyMismatch; any further
// error is a fault of the store.
func (s *Service) Authenticate(ctx context.Context, peer *x509.Certificate) (NodeIdentity, error) {
	id, _, err := s.authenticate(ctx, peer)
	return id, err
}

func (s *Service) authenticate(ctx context.Context, peer *x509.Certificate) (NodeIdentity, NodeRecord, error) {
	now := s.config.Now()
	id, rec, err := s.checkNode(ctx, peer)
	if err == nil && now.After(peer.NotAfter) {
		err = ErrExpired
	}
	for _, refusal := range []error{ErrCertificate, ErrNodeUnknown, ErrKeyMismatch} {
		if !errors.Is(err, refusal) {
			continue
		}
		// A revoked edge dials for ever. It is not slowed down, only its events are.
		if _, report, suppressed := s.limiter.fail("node "+peer.Subject.CommonName, now); report {
			s.record(ctx, Event{
				Reason: CertificateRefused, Node: peer.Subject.CommonName, Message: err.Error(), Suppressed: suppressed,
			})
		}
	}
	return id, rec, err
}

// checkNode is all of Authenticate but the date.
func (s *Service) checkNode(ctx context.Context, peer *x509.Certificate) (NodeIdentity, NodeRecord, error) {
	refused := func(err error) (NodeIdentity, NodeRecord, error) { return NodeIdentity{}, NodeRecord{}, err }

	// The handshake has checked this; it is repeated because forgetting to set that up
	// would let everybody in.
	name, err := pki.VerifyNode(peer, s.cas)
	if err != nil {
		return refused(fmt.Errorf("%w: %w", ErrCertificate, err))
	}
	shown, err := pki.KeyHash(peer.PublicKey)
	if err != nil {
		return refused(fmt.Errorf("%w: %w", ErrCertificate, err))
	}
	// Once more when another session of the node changes its keys meanwhile.
	for range 3 {
		rec, err := s.config.Stores.Nodes.NodeRecord(ctx, name)
		if errors.Is(err, ErrNotFound) {
			return refused(fmt.Errorf("%w as %q", ErrNodeUnknown, name))
		}
		if err != nil {
			return refused(fmt.Errorf("authenticate node %s: %w", name, err))
		}
		id := NodeIdentity{Name: name, UID: rec.UID, KeyHash: shown, Expires: peer.NotAfter}
		switch shown {
		case rec.Keys.Current:
			return id, rec, nil
		case rec.Keys.Next:
			// First use of a new key: it has arrived, and the former one is over.
			keys := NodeKeys{Current: shown}
			err := s.config.Stores.Nodes.SwapNodeKeys(ctx, rec, keys)
			if errors.Is(err, ErrConflict) || errors.Is(err, ErrNotFound) {
				continue
			}
			if err != nil {
				return refused(fmt.Errorf("change the key of node %s: %w", name, err))
			}
			rec.Keys = keys
			return id, rec, nil
		default:
			return refused(fmt.Errorf("%w: %q", ErrKeyMismatch, name))
		}
	}
	return refused(fmt.Errorf("change the key of node %s: %w", name, ErrConflict))
}

// Renew gives a node a new certificate for the one that it has shown, however long
// ago that expired: being unreachable for a year is normal. It is refused as in
// Authenticate, and with ErrRequest when the request is malformed or for another name.
//
// The request may carry a new key. Then both are good until the new one is
// first used, as the answer may be lost on the way; from then on only the new one.
func (s *Service) Renew(ctx context.Context, peer *x509.Certificate, csrPEM []byte) (Issued, error) {
	id, rec, err := s.authenticate(ctx, peer)
	if err != nil && !errors.Is(err, ErrExpired) {
		return Issued{}, err
	}
	csr, err := pki.CheckCSR(csrPEM, id.Name)
	if err != nil {
		return Issued{}, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	if keys := rec.Keys; csr.KeyHash != keys.Current && csr.KeyHash != keys.Next {
		keys.Next = csr.KeyHash
		if err := s.config.Stores.Nodes.SwapNodeKeys(ctx, rec, keys); err != nil {
			return Issued{}, fmt.Errorf("change the key of node %s: %w", id.Name, err)
		}
	}
	issued, err := s.issue(csr, rec.UID)
	if err == nil {
		s.record(ctx, Event{Reason: CertificateRenewed, Node: id.Name, Message: "renewed until " + issued.Expires.UTC().Format(time.RFC3339)})
	}
	return issued, err
}

func (s *Service) issue(csr *pki.NodeCSR, uid string) (Issued, error) {
	cert, err := s.config.CA.SignNode(csr, s.config.CertificateLifetime, s.config.Now())
	if err != nil {
		return Issued{}, err
	}
	return Issued{Certificate: pki.EncodeCerts(cert), CA: s.CABundle(), NodeUID: uid, Expires: cert.NotAfter}, nil
}
