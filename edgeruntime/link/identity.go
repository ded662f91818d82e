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
	"github.com/whimbrel-edge/whimbrel/internal/pki"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
)

// The files of the pki directory.
const (
	identityFile = "node.pem" // certificate and key
	caFile       = "ca.pem"   // the hub's authorities
	joinKeyFile  = "join.key" // of a join under way: an answer that got lost is asked for again with it
)

// requestTimeout bounds a join or a renewal.
const requestTimeout = 30 * time.Second

// keys is who the edge is, and whom it trusts. What is in memory is what is on
// the disk.
type keys struct {
	dir string

	mu   sync.Mutex // protects all below
	cert *tls.Certificate
	cas  []*x509.Certificate
}

// Joined reports whether the edge whose pki directory this is has joined a hub.
func Joined(dir string) (bool, error) {
	_, err := os.Stat(filepath.Join(dir, identityFile))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// load reads the files; without a node.pem there is no certificate.
func (k *keys) load() error {
	cert, err := pki.ReadIdentity(filepath.Join(k.dir, identityFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(k.dir, caFile))
	if err != nil {
		return fmt.Errorf("read the hub's authority: %w", err)
	}
	cas, err := pki.DecodeCerts(text)
	if err != nil {
		return fmt.Errorf("%s: %w", caFile, err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cert, k.cas = &cert, cas
	return nil
}

// store keeps what a hub issued, on the disk first.
func (k *keys) store(certPEM, caPEM []byte, key crypto.Signer) error {
	cas, err := pki.DecodeCerts(caPEM)
	if err != nil {
		return fmt.Errorf("the hub's authority: %w", err)
	}
	// The authority first: an identity without it could not be used.
	if err := atomicfile.WriteFile(filepath.Join(k.dir, caFile), pki.EncodeCerts(cas...), 0o600); err != nil {
		return err
	}
	if err := pki.WriteIdentity(filepath.Join(k.dir, identityFile), certPEM, key); err != nil {
		return err
	}
	return k.load()
}

func (k *keys) certificate() (*tls.Certificate, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.cert == nil {
		return nil, errors.New("this edge has not joined a hub")
	}
	return k.cert, nil
}

func (k *keys) authorities() []*x509.Certificate {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.cas
}

func (k *keys) tls() *tls.Config { return pki.EdgeTLS(k.certificate, k.authorities) }

// post sends a JSON body to the hub's link server. A refusal is a
// *edgelink.RefusedError.
func post(ctx context.Context, url string, config *tls.Config, body, into any) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(text))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	client := http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true, Proxy: http.ProxyFromEnvironment},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		var p models.Problem
		if json.Unmarshal(answer, &p) != nil || p.Detail == "" {
			p.Detail = strings.ToValidUTF8(string(answer[:min(len(answer), 200)]), "")
		}
		return &edgelink.RefusedError{Status: resp.StatusCode, Detail: p.Detail}
	}
	return json.Unmarshal(answer, into)
}

// join asks the hub to admit this node. Until it has, the key of the request
// stays on the disk: the hub answers the same key again for a while, so an
// answer that was lost does not cost the token.
func (l *Link) join(ctx context.Context) error {
	token, err := pki.ParseJoinToken(l.cfg.Token)
	if err != nil {
		return permanent{fmt.Errorf("--token: %w", err)}
	}
	path := filepath.Join(l.keys.dir, joinKeyFile)
	key, err := pki.ReadKeyFile(path)
	if errors.Is(err, os.ErrNotExist) {
		fresh, err := pki.GenerateKey()
		if err != nil {
			return err
		}
		if err := pki.WriteKeyFile(path, fresh); err != nil {
			return fmt.Errorf("keep the key of the join: %w", err)
		}
		key = fresh
	} else if err != nil {
		return err
	}
	csr, err := pki.NewCSR(key, l.cfg.Node)
	if err != nil {
		return permanent{err}
	}
	var resp edgelink.JoinResponse
	err = post(ctx, l.url(edgelink.PathJoin), pki.JoinTLS(token.CAHash), edgelink.JoinRequest{Token: l.cfg.Token, Node: l.cfg.Node, CSR: string(csr), Labels: l.cfg.Labels}, &resp)
	var refused *edgelink.RefusedError
	if errors.As(err, &refused) && (refused.Status == http.StatusForbidden || refused.Status == http.StatusUnprocessableEntity || refused.Status == http.StatusUnauthorized) {
		return permanent{fmt.Errorf("the hub refused the join: %s", refused.Detail)}
	}
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	if err := l.keys.store([]byte(resp.Certificate), []byte(resp.CA), key); err != nil {
		return fmt.Errorf("keep the node's certificate: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		l.log.Warn("remove the key file of the join; it is no longer needed", "file", path, "error", err)
	}
	if err := l.cfg.Store.SetSettings(ctx, map[string]string{settingNodeUID: resp.NodeUID}); err != nil {
		return err
	}
	l.log.Info("joined the hub", "node", l.cfg.Node, "hub", l.cfg.HubURL)
	return nil
}

// permanent is an error that trying again does not mend: the user must act.
type permanent struct{ error }

// Unwrap returns the error itself.
func (p permanent) Unwrap() error { return p.error }

// renewIfDue renews the certificate when two thirds of its life are over, or
// all of it.
func (l *Link) renewIfDue(ctx context.Context) error {
	cert, err := l.keys.certificate()
	if err != nil {
		return err
	}
	if !pki.RenewDue(cert.Leaf, l.now()) {
		return nil
	}
	return l.renew(ctx)
}

func (l *Link) renew(ctx context.Context) error {
	key, err := pki.GenerateKey()
	if err != nil {
		return err
	}
	csr, err := pki.NewCSR(key, l.cfg.Node)
	if err != nil {
		return err
	}
	var resp edgelink.RenewResponse
	if err := post(ctx, l.url(edgelink.PathRenew), l.keys.tls(), edgelink.RenewRequest{CSR: string(csr)}, &resp); err != nil {
		return fmt.Errorf("renew the certificate: %w", err)
	}
	if err := l.keys.store([]byte(resp.Certificate), []byte(resp.CA), key); err != nil {
		return fmt.Errorf("keep the renewed certificate: %w", err)
	}
	l.log.Info("certificate renewed")
	return nil
}

func (l *Link) url(path string) string { return strings.TrimSuffix(l.cfg.HubURL, "/") + path }
