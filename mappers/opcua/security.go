package opcua

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gopcua/opcua/ua"

	"github.com/whimbrel-edge/whimbrel/internal/atomicfile"
	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
)

const policyURI = "http://opcfoundation.org/UA/SecurityPolicy#"

var modeOf = map[string]ua.MessageSecurityMode{
	none: ua.MessageSecurityModeNone, "Sign": ua.MessageSecurityModeSign, "SignAndEncrypt": ua.MessageSecurityModeSignAndEncrypt,
}

var tokenNames = map[ua.UserTokenType]string{ua.UserTokenTypeAnonymous: "anonymous", ua.UserTokenTypeUserName: "username/password"}

// strength orders the policies; those that are broken or unknown have none.
var strength = map[string]int{none: 1, "Basic256Sha256": 2, "Aes128_Sha256_RsaOaep": 3, "Aes256_Sha256_RsaPss": 4}

// choose takes the strongest endpoint that fits the connection.
func choose(endpoints []*ua.EndpointDescription, t target) (*ua.EndpointDescription, error) {
	var best *ua.EndpointDescription
	rank := func(ep *ua.EndpointDescription) int {
		return 10*int(ep.SecurityMode) + strength[strings.TrimPrefix(ep.SecurityPolicyURI, policyURI)]
	}
	var offered []string
	for _, ep := range endpoints {
		policy := strings.TrimPrefix(ep.SecurityPolicyURI, policyURI)
		offered = append(offered, policy+"/"+strings.TrimPrefix(ep.SecurityMode.String(), "MessageSecurityMode"))
		switch {
		case strength[policy] == 0,
			t.policy != auto && t.policy != policy,
			t.mode != auto && modeOf[t.mode] != ep.SecurityMode,
			!strings.HasPrefix(ep.EndpointURL, "opc.tcp:"):
			continue
		}
		if best == nil || rank(ep) > rank(best) {
			best = ep
		}
	}
	if best == nil {
		slices.Sort(offered)
		return nil, refused(fmt.Errorf("the server does not offer policy %s with mode %s, only %s", t.policy, t.mode,
			strings.Join(slices.Compact(offered), ", ")))
	}
	return best, nil
}

// offers reports whether users may identify themselves in this way.
func offers(ep *ua.EndpointDescription, token ua.UserTokenType) bool {
	return slices.ContainsFunc(ep.UserIdentityTokens, func(p *ua.UserTokenPolicy) bool { return p.TokenType == token })
}

// reasonUntrusted is why a server is refused whose certificate is not trusted.
const reasonUntrusted models.Reason = "untrusted-certificate"

// trusted refuses a server that shows no certificate, or one that is not among
// those to trust.
func trusted(certificate []byte, trust []string) error {
	certs, err := x509.ParseCertificates(certificate)
	if err != nil || len(certs) == 0 {
		return mappers.Fail(reasonUntrusted, errors.New("the server shows no certificate"))
	}
	sum := sha256.Sum256(certs[0].Raw)
	fingerprint := "sha256:" + hex.EncodeToString(sum[:])
	if slices.Contains(trust, fingerprint) {
		return nil
	}
	return mappers.Fail(reasonUntrusted, fmt.Errorf("the server's certificate is not trusted; if %s is its fingerprint, add that to connection.trust", fingerprint))
}

// identity is what the driver shows to servers.
type identity struct {
	key         *rsa.PrivateKey
	certificate []byte // DER
}

// identities makes or loads an identity per data directory, once.
type identities struct {
	mu    sync.Mutex
	byDir map[string]*identity
}

// in returns the identity kept in a directory; without one, it is forgotten
// with the process.
func (i *identities) in(dir string) (*identity, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if id := i.byDir[dir]; id != nil {
		return id, nil
	}
	id, err := load(dir)
	if err != nil {
		return nil, &mappers.Failure{Reason: models.ReasonConfiguration, Err: fmt.Errorf("the client's certificate: %w", err)}
	}
	if i.byDir == nil {
		i.byDir = map[string]*identity{}
	}
	i.byDir[dir] = id
	return id, nil
}

// identityFile is the name of an identity in its directory: PEM, key and
// certificate.
const identityFile = "opcua-client.pem"

func load(dir string) (*identity, error) {
	if dir == "" {
		return generate()
	}
	path := filepath.Join(dir, identityFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		id, err := generate()
		if err != nil {
			return nil, err
		}
		return id, id.save(path)
	}
	if err != nil {
		return nil, err
	}
	id := &identity{}
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case "RSA PRIVATE KEY":
			if id.key, err = x509.ParsePKCS1PrivateKey(block.Bytes); err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
		case "CERTIFICATE":
			id.certificate = block.Bytes
		}
	}
	if id.key == nil || id.certificate == nil {
		return nil, fmt.Errorf("%s holds no key and certificate", path)
	}
	return id, nil
}

// generate makes an identity that signs for itself. Servers that check it have
// to be told to trust it.
func generate() (*identity, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: "Whimbrel", Organization: []string{"Whimbrel"}},
		// A year ago: the clock may be wrong. Servers check the end, and nobody
		// renews it.
		NotBefore: now.AddDate(-1, 0, 0), NotAfter: now.AddDate(20, 0, 0),
		URIs: []*url.URL{{Scheme: "urn", Opaque: url.PathEscape(host) + ":whimbrel"}}, DNSNames: []string{host},
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment | x509.KeyUsageKeyEncipherment |
			x509.KeyUsageDataEncipherment | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	return &identity{key: key, certificate: der}, nil
}

func (id *identity) save(path string) error {
	text := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(id.key)})
	text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: id.certificate})...)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return atomicfile.WriteFile(path, text, 0o600)
}
