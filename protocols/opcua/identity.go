package opcua

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/whimbrel-edge/whimbrel/internal/atomicfile"
)

// Identity is what an application shows to others: a key and a certificate that
// it signed itself.
type Identity struct {
	Key         *rsa.PrivateKey
	Certificate []byte // DER
}

// Application says who an identity is made for.
type Application struct {
	Name string
	URI  string // the ApplicationUri, a URN
	DNS  []string
	IPs  []net.IP
}

// keyBits suits every policy that is not broken.
const keyBits = 2048

// MakeIdentity makes an application a new one. Others have to be told to trust
// it.
func MakeIdentity(app Application) (*Identity, error) {
	key, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return nil, err
	}
	uri, err := url.Parse(app.URI)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: app.Name, Organization: []string{"Whimbrel"}},
		// A year ago: the clock may be wrong. And for long: nobody renews it.
		NotBefore: now.AddDate(-1, 0, 0), NotAfter: now.AddDate(20, 0, 0),
		URIs: []*url.URL{uri}, DNSNames: app.DNS, IPAddresses: app.IPs,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment | x509.KeyUsageKeyEncipherment |
			x509.KeyUsageDataEncipherment | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	return &Identity{Key: key, Certificate: der}, nil
}

// KeepIdentity reads an application's identity from a file (PEM, the key and the
// certificate), and makes both where there is none.
func KeepIdentity(path string, app Application) (*Identity, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		id, err := MakeIdentity(app)
		if err != nil {
			return nil, err
		}
		return id, id.save(path)
	}
	if err != nil {
		return nil, err
	}
	id, err := ParseIdentity(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return id, nil
}

// ParseIdentity reads a key and its certificate in PEM, in any order. Of several
// certificates the first is its own. Errors tell nothing of the key.
func ParseIdentity(text []byte) (*Identity, error) {
	id := &Identity{}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case "RSA PRIVATE KEY":
			key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
			if err != nil {
				return nil, errors.New("the private key cannot be read")
			}
			id.Key = key
		case "PRIVATE KEY":
			key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, errors.New("the private key cannot be read")
			}
			var isRSA bool
			if id.Key, isRSA = key.(*rsa.PrivateKey); !isRSA {
				return nil, errors.New("the private key must be RSA, as the security policies are")
			}
		case "ENCRYPTED PRIVATE KEY":
			return nil, errors.New("the private key has a passphrase; give it without one")
		case "CERTIFICATE":
			if id.Certificate == nil {
				id.Certificate = block.Bytes
			}
		}
	}
	switch {
	case id.Certificate == nil:
		return nil, errors.New("holds no certificate in PEM (BEGIN CERTIFICATE)")
	case id.Key == nil:
		return nil, errors.New("holds no private key in PEM (BEGIN PRIVATE KEY)")
	}
	cert, err := x509.ParseCertificate(id.Certificate)
	if err != nil {
		return nil, fmt.Errorf("the certificate cannot be read: %w", err)
	}
	if !id.Key.PublicKey.Equal(cert.PublicKey) {
		return nil, errors.New("the private key is not the certificate's")
	}
	return id, nil
}

// PEM is the identity as ParseIdentity reads it.
func (id *Identity) PEM() []byte {
	text := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(id.Key)})
	return append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: id.Certificate})...)
}

func (id *Identity) save(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return atomicfile.WriteFile(path, id.PEM(), 0o600)
}
