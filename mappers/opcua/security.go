package opcua

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gopcua/opcua/ua"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
	wire "github.com/whimbrel-edge/whimbrel/protocols/opcua"
)

const policyURI = "http://opcfoundation.org/UA/SecurityPolicy#"

var modeOf = map[string]ua.MessageSecurityMode{
	none: ua.MessageSecurityModeNone, "Sign": ua.MessageSecurityModeSign, "SignAndEncrypt": ua.MessageSecurityModeSignAndEncrypt,
}

var tokenNames = map[ua.UserTokenType]string{ua.UserTokenTypeAnonymous: "anonymous", ua.UserTokenTypeUserName: "username/password",
	ua.UserTokenTypeCertificate: "certificate"}

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
		return nil, refused(fmt.Errorf("the server does not offer policy %s with mode %s, only %s: set the connection's policy and mode to one of these, or mode to auto", t.policy, t.mode,
			strings.Join(slices.Compact(offered), ", ")))
	}
	return best, nil
}

// offers reports whether users may identify themselves in this way.
func offers(ep *ua.EndpointDescription, token ua.UserTokenType) bool {
	return slices.ContainsFunc(ep.UserIdentityTokens, func(p *ua.UserTokenPolicy) bool { return p.TokenType == token })
}

// accepted lists how users may identify themselves.
func accepted(ep *ua.EndpointDescription) string {
	var names []string
	for _, p := range ep.UserIdentityTokens {
		if name := tokenNames[p.TokenType]; name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return "in ways that are not known here"
	}
	return strings.Join(names, ", ")
}

// reasonUntrusted is why a server is refused whose certificate is not trusted.
const reasonUntrusted models.Reason = "untrusted-certificate"

// trusted refuses a server that shows no certificate, or one that is not among
// those to trust.
func trusted(certificate []byte, t target) error {
	certs, err := x509.ParseCertificates(certificate)
	if err != nil || len(certs) == 0 {
		return mappers.Fail(reasonUntrusted, errors.New("the server shows no certificate"))
	}
	sum := sha256.Sum256(certs[0].Raw)
	fingerprint := "sha256:" + hex.EncodeToString(sum[:])
	// Also when it has expired: who trusts a fingerprint means that certificate.
	if slices.Contains(t.trust, fingerprint) {
		return nil
	}
	what := "the server's certificate is not trusted"
	if end := certs[0].NotAfter; time.Now().After(end) {
		what += ", and expired on " + end.UTC().Format(time.DateOnly)
	}
	if t.device == "" { // nobody's yet
		return mappers.Fail(reasonUntrusted, fmt.Errorf("%s; if %s is its fingerprint, say so", what, fingerprint))
	}
	return mappers.Fail(reasonUntrusted, fmt.Errorf("%s; if %s is its fingerprint, run: whimbrel trust %s %s", what, fingerprint, argument(t.device), fingerprint))
}

// argument is a device as the command line names it: a name that the edge made
// of a namespace and a name has a dot, others have none.
func argument(device string) string {
	if namespace, name, ok := strings.Cut(device, "."); ok {
		return "-n " + namespace + " " + name
	}
	return device
}

// proves reports whether a user's certificate would come with a signature: at an
// endpoint without security its policy must ask for one.
func proves(ep *ua.EndpointDescription) bool {
	for _, p := range ep.UserIdentityTokens {
		if p.TokenType == ua.UserTokenTypeCertificate {
			policy := p.SecurityPolicyURI
			if policy == "" {
				policy = ep.SecurityPolicyURI
			}
			return policy != policyURI+none
		}
	}
	return false
}

// identities makes or loads an identity per data directory, once.
type identities struct {
	mu    sync.Mutex
	byDir map[string]*wire.Identity
}

// in returns the identity kept in a directory; without one, it is forgotten
// with the process.
func (i *identities) in(dir string) (*wire.Identity, error) {
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
		i.byDir = map[string]*wire.Identity{}
	}
	i.byDir[dir] = id
	return id, nil
}

// identityFile is the name of the identity in its directory.
const identityFile = "client.pem"

func load(dir string) (*wire.Identity, error) {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	app := wire.Application{Name: "Whimbrel", URI: "urn:" + url.PathEscape(host) + ":whimbrel", DNS: []string{host}}
	if dir == "" {
		return wire.MakeIdentity(app)
	}
	return wire.KeepIdentity(filepath.Join(dir, identityFile), app)
}
