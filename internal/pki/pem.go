package pki

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"

	"github.com/whimbrel-edge/whimbrel/internal/atomicfile"
)

const (
	certType = "CERTIFICATE"
	keyType  = "PRIVATE KEY"
)

// CertHash is "sha256:" and the hash of the certificate's DER in hex, as
// openssl x509 -fingerprint -sha256 computes it.
func CertHash(cert *x509.Certificate) string { return hash(cert.Raw) }

// KeyHash is the same of a public key's SubjectPublicKeyInfo.
func KeyHash(pub crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", fmt.Errorf("hash public key: %w", err)
	}
	return hash(der), nil
}

func hash(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// EncodeCerts writes certificates as PEM, in order.
func EncodeCerts(certs ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: certType, Bytes: c.Raw})...)
	}
	return out
}

// DecodeCerts reads one or more certificates and nothing else.
func DecodeCerts(data []byte) ([]*x509.Certificate, error) {
	certs, keys, err := decode(data)
	if err != nil {
		return nil, err
	}
	if len(certs) == 0 || len(keys) != 0 {
		return nil, errors.New("want certificates in PEM and nothing else")
	}
	return certs, nil
}

// EncodeKey writes a private key as PKCS #8 in PEM.
func EncodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: keyType, Bytes: der}), nil
}

// DecodeKey reads what EncodeKey wrote.
func DecodeKey(data []byte) (crypto.Signer, error) {
	certs, keys, err := decode(data)
	if err != nil {
		return nil, err
	}
	if len(keys) != 1 || len(certs) != 0 {
		return nil, errors.New("want one private key in PEM and nothing else")
	}
	return keys[0], nil
}

// decodePair reads certificates and the private key of the first one.
func decodePair(data []byte) ([]*x509.Certificate, crypto.Signer, error) {
	certs, keys, err := decode(data)
	if err != nil {
		return nil, nil, err
	}
	if len(keys) != 1 || len(certs) == 0 {
		return nil, nil, fmt.Errorf("have %d certificates and %d private keys, want one key and its certificate", len(certs), len(keys))
	}
	of, err := KeyHash(keys[0].Public())
	if err != nil {
		return nil, nil, err
	}
	in, err := KeyHash(certs[0].PublicKey)
	if err != nil {
		return nil, nil, err
	}
	if of != in {
		return nil, nil, errors.New("the private key does not belong to the certificate")
	}
	return certs, keys[0], nil
}

// decode reads certificates and private keys and refuses anything else, as
// something cut off or misspelt must not pass for absent.
func decode(data []byte) (certs []*x509.Certificate, keys []crypto.Signer, err error) {
	for len(bytes.TrimSpace(data)) > 0 {
		block, rest := pem.Decode(data)
		if block == nil {
			return nil, nil, errors.New("not PEM")
		}
		data = rest
		switch block.Type {
		case certType:
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, nil, fmt.Errorf("parse certificate: %w", err)
			}
			certs = append(certs, cert)
		case keyType:
			parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, nil, fmt.Errorf("parse private key: %w", err)
			}
			key, ok := parsed.(crypto.Signer)
			if !ok {
				return nil, nil, fmt.Errorf("a key of type %T cannot sign", parsed)
			}
			keys = append(keys, key)
		default:
			return nil, nil, fmt.Errorf("unexpected PEM block %q", block.Type)
		}
	}
	return certs, keys, nil
}

// WriteKeyFile keeps a private key in a file of its own, atomically, mode 0600.
func WriteKeyFile(path string, key crypto.Signer) error {
	data, err := EncodeKey(key)
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(path, data, 0o600)
}

// ReadKeyFile reads what WriteKeyFile wrote; the error is os.ErrNotExist when
// there is none.
func ReadKeyFile(path string) (crypto.Signer, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read private key: %w", err)
	}
	key, err := DecodeKey(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// WriteIdentity keeps a certificate and its key in one file, atomically, mode
// 0600: a crash during a renewal leaves the old pair or the new one, never a
// certificate with the other's key.
func WriteIdentity(path string, certPEM []byte, key crypto.Signer) error {
	data, err := EncodeKey(key)
	if err != nil {
		return err
	}
	data = append(data, certPEM...)
	if _, _, err := decodePair(data); err != nil {
		return fmt.Errorf("write identity: %w", err)
	}
	return atomicfile.WriteFile(path, data, 0o600)
}

// ReadIdentity reads what WriteIdentity wrote, with Leaf set; the error is
// os.ErrNotExist when there is none.
func ReadIdentity(path string) (tls.Certificate, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("read identity: %w", err)
	}
	certs, key, err := decodePair(data)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s: %w", path, err)
	}
	out := tls.Certificate{PrivateKey: key, Leaf: certs[0]}
	for _, c := range certs {
		out.Certificate = append(out.Certificate, c.Raw)
	}
	return out, nil
}
