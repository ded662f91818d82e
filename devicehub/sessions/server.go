package sessions

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"

	"github.com/whimbrel-edge/whimbrel/devicehub/identity"
	"github.com/whimbrel-edge/whimbrel/internal/pki"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

// Certificate is what a peer showed.
type Certificate = *x509.Certificate

// maxJoinBody bounds the bodies of join and renew.
const maxJoinBody = 64 << 10

// Handler serves the link: POST /join without a client certificate, POST
// /renew, GET /link and GET /bulk with one. It belongs behind pki.HubTLS.
func (m *Manager) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+edgelink.PathJoin, m.join)
	mux.HandleFunc("POST "+edgelink.PathRenew, m.renew)
	mux.HandleFunc("GET "+edgelink.PathLink, m.link)
	mux.HandleFunc("GET "+edgelink.PathBulk, m.bulk)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		problem(w, models.Errorf(models.KindNotFound, "this is the link of a Whimbrel hub, for edges; the REST API is elsewhere"))
	})
	return mux
}

// problem writes an error as problem+json.
func problem(w http.ResponseWriter, err error) {
	p := models.ProblemOf(err)
	w.Header().Set("Content-Type", "application/problem+json")
	var throttled *identity.ThrottledError
	if errors.As(err, &throttled) {
		w.Header().Set("Retry-After", "10")
	}
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the client may be gone
}

// kinded gives identity's errors their kinds.
func kinded(err error) error {
	var throttled *identity.ThrottledError
	switch {
	case errors.As(err, &throttled):
		return models.Errorf(models.KindTooMany, "too many wrong tokens from this address; try again later")
	case errors.Is(err, identity.ErrTokenUsed), errors.Is(err, identity.ErrTokenExpired), errors.Is(err, identity.ErrTokenUnknown),
		errors.Is(err, identity.ErrTokenWrongNode), errors.Is(err, pki.ErrJoinToken):
		return models.Errorf(models.KindForbidden, "%s", rootCause(err))
	case errors.Is(err, identity.ErrRequest):
		return models.Invalid("/csr", "%s", err.Error())
	case errors.Is(err, identity.ErrExpired):
		return models.Errorf(models.KindUnauthorized, "%s", identity.ErrExpired)
	case errors.Is(err, identity.ErrCertificate), errors.Is(err, identity.ErrNodeUnknown), errors.Is(err, identity.ErrKeyMismatch):
		return models.Errorf(models.KindForbidden, "%s", rootCause(err))
	}
	return err
}

func rootCause(err error) string {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err.Error()
		}
		err = next
	}
}

func readBody(w http.ResponseWriter, r *http.Request, into any) error {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxJoinBody))
	if err != nil {
		return models.Errorf(models.KindTooLarge, "the body is larger than %d bytes, or broke off", maxJoinBody)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return models.Errorf(models.KindMalformed, "the body is not JSON of the right form")
	}
	return nil
}

func remoteIP(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

func (m *Manager) join(w http.ResponseWriter, r *http.Request) {
	var req edgelink.JoinRequest
	if err := readBody(w, r, &req); err != nil {
		problem(w, err)
		return
	}
	labels := &models.Node{Metadata: models.ObjectMeta{Name: req.Node, Labels: req.Labels}}
	if errs := labels.Validate(); len(errs) > 0 {
		problem(w, &models.Error{Kind: models.KindInvalid, Fields: errs})
		return
	}
	issued, err := m.Identity.Join(r.Context(), identity.JoinRequest{Token: req.Token, Node: req.Node, CSR: []byte(req.CSR), Remote: remoteIP(r)})
	if err != nil {
		m.log.Warn("join refused", "node", req.Node, "remote", remoteIP(r), "error", err)
		problem(w, kinded(err))
		return
	}
	if len(req.Labels) > 0 {
		if err := m.Registry.LabelNode(r.Context(), req.Node, req.Labels); err != nil {
			m.log.Warn("label a node that joined", "node", req.Node, "error", err)
		}
	}
	m.recheck(r.Context(), req.Node)
	m.log.Info("node joined", "node", req.Node, "uid", issued.NodeUID, "remote", remoteIP(r))
	writeJSON(w, edgelink.JoinResponse{Certificate: string(issued.Certificate), CA: string(issued.CA), NodeUID: issued.NodeUID, Lineage: m.Lineage})
}

// recheck ends a node's session if its key is no longer the node's: a join with
// another key has taken it over.
func (m *Manager) recheck(ctx context.Context, name string) {
	m.mu.Lock()
	s := m.sessions[name]
	m.mu.Unlock()
	if s != nil && !m.current(ctx, s) {
		s.end(&pb.Goodbye{Reason: edgelink.GoodbyeRevoked, Message: "the node has joined again with another key"})
	}
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client may be gone
}

// peer returns the client certificate of a request, or answers 401.
func peer(w http.ResponseWriter, r *http.Request) Certificate {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		problem(w, models.Errorf(models.KindUnauthorized, "a client certificate is needed; join first"))
		return nil
	}
	return r.TLS.PeerCertificates[0]
}

func (m *Manager) renew(w http.ResponseWriter, r *http.Request) {
	cert := peer(w, r)
	if cert == nil {
		return
	}
	var req edgelink.RenewRequest
	if err := readBody(w, r, &req); err != nil {
		problem(w, err)
		return
	}
	issued, err := m.Identity.Renew(r.Context(), cert, []byte(req.CSR))
	if err != nil {
		m.log.Warn("renewal refused", "subject", cert.Subject.CommonName, "remote", remoteIP(r), "error", err)
		problem(w, kinded(err))
		return
	}
	m.log.Info("certificate renewed", "node", cert.Subject.CommonName, "expires", issued.Expires)
	writeJSON(w, edgelink.RenewResponse{Certificate: string(issued.Certificate), CA: string(issued.CA)})
}

// link admits a session. The handler returns at once; the session goes on in a
// goroutine of its own, which Close waits for.
func (m *Manager) link(w http.ResponseWriter, r *http.Request) {
	cert := peer(w, r)
	if cert == nil {
		return
	}
	id, err := m.Identity.Authenticate(r.Context(), cert)
	if err != nil {
		m.log.Warn("link refused", "subject", cert.Subject.CommonName, "remote", remoteIP(r), "error", err)
		problem(w, kinded(err))
		return
	}
	m.mu.Lock()
	closing := m.closing
	if !closing {
		m.wait.Add(1)
	}
	m.mu.Unlock()
	if closing {
		problem(w, models.Errorf(models.KindUnavailable, "the hub is stopping"))
		return
	}
	conn, err := edgelink.Accept(w, r)
	if err != nil {
		m.wait.Done()
		m.log.Warn("link refused", "node", id.Name, "error", err)
		return
	}
	remote := r.RemoteAddr
	go func() { // owned by the Manager: Close waits
		defer m.wait.Done()
		m.serve(conn, cert, id, remote)
	}()
}
