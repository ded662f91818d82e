package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"time"
)

// How long certificates live.
const (
	CALifetime     = 10 * 365 * day
	ServerLifetime = 365 * day
	NodeLifetime   = 30 * day // unless configured otherwise

	day = 24 * time.Hour
	// backdate forgives hosts whose clock is a little behind the issuer's.
	backdate = time.Hour
)

const trustDomain = "whimbrel"

// hubURI is in every server certificate. Edges check it instead of a host name.
var hubURI = &url.URL{Scheme: "spiffe", Host: trustDomain, Path: "/hub"}

func nodeURI(name string) *url.URL {
	return &url.URL{Scheme: "spiffe", Host: trustDomain, Path: "/node/" + name}
}

// GenerateKey makes a new P-256 key.
func GenerateKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	return key, nil
}

// A CA signs certificates. It is immutable.
type CA struct {
	Cert *x509.Certificate
	key  crypto.Signer
}

// clockFloor is earlier than any start of this program. A CA made on a host
// that believes in 1970 would be over once the host learns the time.
var clockFloor = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// NewCA makes an authority that is valid for CALifetime from now.
func NewCA(now time.Time) (*CA, error) {
	now = later(now, clockFloor)
	key, err := GenerateKey()
	if err != nil {
		return nil, err
	}
	cert, err := sign(&x509.Certificate{
		Subject:               pkix.Name{CommonName: "Whimbrel CA"},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(CALifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}, nil, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &CA{Cert: cert, key: key}, nil
}

// Hash names the CA: see CertHash.
func (ca *CA) Hash() string { return CertHash(ca.Cert) }

// EncodePEM returns certificate and private key, for ParseCA. Keep it sealed.
func (ca *CA) EncodePEM() ([]byte, error) {
	key, err := EncodeKey(ca.key)
	if err != nil {
		return nil, err
	}
	return append(EncodeCerts(ca.Cert), key...), nil
}

// ParseCA reads what EncodePEM wrote.
func ParseCA(data []byte) (*CA, error) {
	certs, key, err := decodePair(data)
	if err != nil {
		return nil, fmt.Errorf("parse CA: %w", err)
	}
	if len(certs) != 1 || !certs[0].IsCA {
		return nil, errors.New("parse CA: want one certificate, and a CA's")
	}
	return &CA{Cert: certs[0], key: key}, nil
}

// IssueServer makes a key and a certificate for the hub itself, for
// ServerLifetime. Each host is an IP address or a DNS name. The chain
// includes the CA certificate, so that an edge that knows only its hash can check it.
func (ca *CA) IssueServer(hosts []string, now time.Time) (tls.Certificate, error) {
	key, err := GenerateKey()
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "Whimbrel hub"},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		URIs:        []*url.URL{hubURI},
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	// Counted from the backdated beginning: some clients refuse more.
	leaf, err := ca.issue(template, key.Public(), ServerLifetime-backdate, now)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("issue server certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{leaf.Raw, ca.Cert.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

// SignNode makes the client certificate of a node for a checked request. Of
// the request only the public key is used.
func (ca *CA) SignNode(csr *NodeCSR, lifetime time.Duration, now time.Time) (*x509.Certificate, error) {
	cert, err := ca.issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: csr.Node},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		URIs:        []*url.URL{nodeURI(csr.Node)},
	}, csr.PublicKey, lifetime, now)
	if err != nil {
		return nil, fmt.Errorf("sign certificate of node %s: %w", csr.Node, err)
	}
	return cert, nil
}

// issue signs a leaf for a lifetime from now, within the life of the CA. A clock that
// is before the CA's beginning is wrong, and must not keep the hub from starting.
func (ca *CA) issue(template *x509.Certificate, pub crypto.PublicKey, lifetime time.Duration, now time.Time) (*x509.Certificate, error) {
	if lifetime <= 0 {
		return nil, errors.New("its lifetime is not positive")
	}
	if now.After(ca.Cert.NotAfter) {
		return nil, fmt.Errorf("the CA expired on %s", ca.Cert.NotAfter.Format(time.DateOnly))
	}
	now = later(now, ca.Cert.NotBefore)
	template.NotBefore = later(now.Add(-backdate), ca.Cert.NotBefore)
	template.NotAfter = now.Add(lifetime)
	if template.NotAfter.After(ca.Cert.NotAfter) {
		template.NotAfter = ca.Cert.NotAfter
	}
	return sign(template, ca.Cert, pub, ca.key)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// sign signs and parses; a nil parent means self-signed. The serial number is
// left to x509, which picks a random one.
func sign(template, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, key)
	if err != nil {
		return nil, fmt.Errorf("create certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse created certificate: %w", err)
	}
	return cert, nil
}

// NodeName returns the name that a node certificate was issued for. It does
// not check who issued it: see VerifyNode.
func NodeName(cert *x509.Certificate) (string, error) {
	name := cert.Subject.CommonName
	if err := CheckNodeName(name); err != nil {
		return "", err
	}
	if len(cert.URIs) != 1 || cert.URIs[0].String() != nodeURI(name).String() {
		return "", fmt.Errorf("certificate of %q does not carry %s", name, nodeURI(name))
	}
	return name, nil
}

func isHub(cert *x509.Certificate) bool {
	return slices.ContainsFunc(cert.URIs, func(u *url.URL) bool { return u.String() == hubURI.String() })
}

// RenewDue says whether a certificate has lived two thirds of its life.
func RenewDue(cert *x509.Certificate, now time.Time) bool {
	life := cert.NotAfter.Sub(cert.NotBefore)
	return !now.Before(cert.NotBefore.Add(life * 2 / 3))
}

// CheckNodeName accepts DNS subdomains as RFC 1123 has them.
func CheckNodeName(name string) error {
	if len(name) == 0 || len(name) > 253 {
		return errors.New("a node's name has 1 to 253 characters")
	}
	label := 0 // length of the label so far
	for i := range len(name) {
		c := name[i]
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
			label++
		case c == '-' && label > 0:
			label++
		case c == '.' && label > 0 && name[i-1] != '-':
			label = 0
		default:
			return fmt.Errorf("node name %q is not a DNS subdomain", name)
		}
		if label > 63 {
			return fmt.Errorf("node name %q has a label longer than 63", name)
		}
	}
	if label == 0 || name[len(name)-1] == '-' {
		return fmt.Errorf("node name %q is not a DNS subdomain", name)
	}
	return nil
}
