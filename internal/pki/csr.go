package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
)

const (
	csrType = "CERTIFICATE REQUEST"
	// maxCSR is far above what a request with an accepted key needs.
	maxCSR = 8 << 10
)

// NewCSR makes the request, in PEM, for a client certificate of the node.
func NewCSR(key crypto.Signer, node string) ([]byte, error) {
	if err := CheckNodeName(node); err != nil {
		return nil, fmt.Errorf("create certificate request: %w", err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: node},
	}, key)
	if err != nil {
		return nil, fmt.Errorf("create certificate request: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: csrType, Bytes: der}), nil
}

// A NodeCSR is a checked request: whoever made it holds the private key and
// asked for this name. Nothing else of a request counts.
type NodeCSR struct {
	Node      string
	PublicKey crypto.PublicKey
	KeyHash   string // see KeyHash
}

// CheckCSR reads a request and checks that it is signed by the key that it carries,
// that we accept such keys, and that it asks for the given node name.
func CheckCSR(data []byte, node string) (*NodeCSR, error) {
	if err := CheckNodeName(node); err != nil {
		return nil, err
	}
	if len(data) > maxCSR {
		return nil, fmt.Errorf("certificate request is longer than %d bytes", maxCSR)
	}
	block, rest := pem.Decode(data)
	if block == nil || block.Type != csrType || len(rest) != 0 {
		return nil, errors.New("certificate request is not one PEM block of type " + csrType)
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parse certificate request: %w", err)
	}
	if err := checkKey(csr.PublicKey); err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	if csr.Subject.CommonName != node {
		return nil, fmt.Errorf("certificate request is for %q, not for node %q", csr.Subject.CommonName, node)
	}
	hash, err := KeyHash(csr.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	return &NodeCSR{Node: node, PublicKey: csr.PublicKey, KeyHash: hash}, nil
}

// checkKey accepts what every TLS 1.3 peer of ours can verify at a modest cost.
func checkKey(pub crypto.PublicKey) error {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() || k.Curve == elliptic.P384() {
			return nil
		}
	case ed25519.PublicKey:
		return nil
	}
	return errors.New("the key is none of P-256, P-384, Ed25519")
}
