package link

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/whimbrel-edge/whimbrel/internal/atomicfile"
	"github.com/whimbrel-edge/whimbrel/internal/failpoint"
	"github.com/whimbrel-edge/whimbrel/internal/pki"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
)

// The files of an identity.
const (
	identityFile = "identity.pem" // the node's certificate with its key
	caFile       = "ca.pem"       // the hub's authorities
	joiningFile  = "joining.key"  // the key of a join that has not been answered
)

// Joined reports whether an edge that keeps its identity in dir has joined a hub.
func Joined(dir string) (bool, error) {
	_, err := pki.ReadIdentity(filepath.Join(dir, identityFile))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// identity is who the edge is to its hub, and whom it trusts. It is used from
// several goroutines.
type identity struct {
	dir string

	mu   sync.Mutex
	cert *tls.Certificate // nil before the join; what it points to is never changed
	cas  []*x509.Certificate
}

// load reads what an earlier life has left, if anything.
func (i *identity) load() error {
	cert, err := pki.ReadIdentity(filepath.Join(i.dir, identityFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	path := filepath.Join(i.dir, caFile)
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read the hub's authorities: %w", err)
	}
	cas, err := pki.DecodeCerts(text)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	i.set(&cert, cas)
	return nil
}

func (i *identity) set(cert *tls.Certificate, cas []*x509.Certificate) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.cert, i.cas = cert, cas
}

// leaf returns the certificate, nil before the join.
func (i *identity) leaf() *x509.Certificate {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.cert == nil {
		return nil
	}
	return i.cert.Leaf
}

func (i *identity) certificate() (*tls.Certificate, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.cert == nil {
		return nil, errors.New("the edge has not joined")
	}
	return i.cert, nil
}

func (i *identity) authorities() []*x509.Certificate {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.cas
}

func (i *identity) tls() *tls.Config { return pki.EdgeTLS(i.certificate, i.authorities) }

// join makes the edge known to its hub by a token, and keeps what the hub gives
// it. The key is on the disk before the token is used, so that an answer that
// gets lost can be fetched again with it.
func (i *identity) join(ctx context.Context, hub, node string, labels map[string]string, token pki.JoinToken) (edgelink.JoinResponse, error) {
	key, err := i.joiningKey()
	if err != nil {
		return edgelink.JoinResponse{}, err
	}
	csr, err := pki.NewCSR(key, node)
	if err != nil {
		return edgelink.JoinResponse{}, err
	}
	var answer edgelink.JoinResponse
	request := edgelink.JoinRequest{Token: token.Encode(), Node: node, CSR: string(csr), Labels: labels}
	if err := post(ctx, hub, edgelink.PathJoin, pki.JoinTLS(token.CAHash), request, &answer); err != nil {
		return answer, err
	}
	failpoint.Here("join.answered")
	cas, err := pki.DecodeCerts([]byte(answer.CA))
	if err != nil {
		return answer, fmt.Errorf("the hub's authorities: %w", err)
	}
	known := false
	for _, ca := range cas {
		known = known || pki.CertHash(ca) == token.CAHash
	}
	if !known {
		return answer, errors.New("the authority that made the token is not among those of the hub")
	}
	if err := i.keep([]byte(answer.Certificate), key, cas, node); err != nil {
		return answer, err
	}
	_ = os.Remove(filepath.Join(i.dir, joiningFile)) // one that stays is used for the next join
	return answer, nil
}

func (i *identity) joiningKey() (crypto.Signer, error) {
	if err := os.MkdirAll(i.dir, 0o700); err != nil {
		return nil, fmt.Errorf("keep a key: %w", err)
	}
	path := filepath.Join(i.dir, joiningFile)
	key, err := pki.ReadKeyFile(path)
	if err == nil {
		return key, nil
	}
	if errors.As(err, new(*os.PathError)) && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	// There is none, or one that is damaged, which would stay so.
	made, err := pki.GenerateKey()
	if err != nil {
		return nil, err
	}
	return made, pki.WriteKeyFile(path, made)
}

// renew fetches a new certificate for the same key.
func (i *identity) renew(ctx context.Context, hub string) error {
	cert, err := i.certificate()
	if err != nil {
		return err
	}
	key, ok := cert.PrivateKey.(crypto.Signer)
	if !ok {
		return errors.New("the node's key cannot sign")
	}
	node, err := pki.NodeName(cert.Leaf)
	if err != nil {
		return err
	}
	csr, err := pki.NewCSR(key, node)
	if err != nil {
		return err
	}
	var answer edgelink.RenewResponse
	if err := post(ctx, hub, edgelink.PathRenew, i.tls(), edgelink.RenewRequest{CSR: string(csr)}, &answer); err != nil {
		return err
	}
	cas, err := pki.DecodeCerts([]byte(answer.CA))
	if err != nil {
		return fmt.Errorf("the hub's authorities: %w", err)
	}
	return i.keep([]byte(answer.Certificate), key, cas, node)
}

// keep checks a certificate that the hub has given and writes it to the disk,
// and only then uses it. The authorities go first: an old certificate is as good
// with the new ones, while a new one without them knows no hub.
func (i *identity) keep(certPEM []byte, key crypto.Signer, cas []*x509.Certificate, node string) error {
	certs, err := pki.DecodeCerts(certPEM)
	if err != nil {
		return fmt.Errorf("the certificate from the hub: %w", err)
	}
	name, err := pki.VerifyNode(certs[0], cas)
	if err != nil {
		return fmt.Errorf("the certificate from the hub: %w", err)
	}
	if name != node {
		return fmt.Errorf("the certificate from the hub is for %q, this is %q", name, node)
	}
	if err := atomicfile.WriteFile(filepath.Join(i.dir, caFile), pki.EncodeCerts(cas...), 0o600); err != nil {
		return err
	}
	path := filepath.Join(i.dir, identityFile)
	if err := pki.WriteIdentity(path, certPEM, key); err != nil {
		return err
	}
	cert, err := pki.ReadIdentity(path)
	if err != nil {
		return err
	}
	i.set(&cert, cas)
	return nil
}

// requestTimeout bounds a join or a renewal.
const requestTimeout = 30 * time.Second

// post sends a request to the hub's link server. What the hub refuses is an
// *edgelink.RefusedError.
func post(ctx context.Context, hub, path string, config *tls.Config, request, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	body, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(hub, "/")+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("hub URL: %w", err)
	}
	r.Header.Set("Content-Type", "application/json")
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: config, TLSHandshakeTimeout: requestTimeout, DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport,
		// A token is not for whoever a captive portal points at.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("read the hub's answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		refused := &edgelink.RefusedError{Status: resp.StatusCode}
		var problem models.Problem
		if json.Unmarshal(text, &problem) == nil {
			refused.Detail = problem.Detail
		}
		return refused
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return fmt.Errorf("the hub's answer is not one: %w", err)
	}
	return nil
}
