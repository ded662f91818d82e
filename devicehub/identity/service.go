package identity

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/whimbrel-edge/whimbrel/internal/pki"
)

// Config is what a Service needs. Stores and CA have no default.
type Config struct {
	Stores Stores
	// CA signs node certificates: see EnsureCA.
	CA *pki.CA
	// OtherCAs are trusted besides CA, by the hub and by the edges that it tells.
	// While one CA replaces another, the other one is here.
	OtherCAs []*x509.Certificate
	// CertificateLifetime of nodes; default pki.NodeLifetime.
	CertificateLifetime time.Duration
	// CacheTTL is how long an API token is believed without asking the stores.
	// Tokens deleted through this Service are forgotten at once; with several
	// hub replicas the others may take this long. Default 5 s.
	CacheTTL time.Duration
	Limits   Limits
	// Record is told of what an operator would want to see, one call after
	// the other or several at once. It must be quick: callers wait for it.
	// Default: nobody is told.
	Record func(context.Context, Event)
	Log    *slog.Logger     // default: discarded
	Now    func() time.Time // default time.Now
}

// An Event is something about identities that an operator would want to see.
// It never holds a secret.
type Event struct {
	Time    time.Time
	Reason  Reason
	Remote  string // address of the caller, "" when not known
	Node    string // as far as it concerns one; what the caller said, not always proved
	User    string
	Message string
	// Suppressed is how many like it, from the same address, were not
	// recorded since the last one: a flood must not fill the events.
	Suppressed int64
}

// A Reason says in one word what happened.
type Reason string

// Reasons of events.
const (
	NodeJoined         Reason = "NodeJoined"
	NodeKeyReplaced    Reason = "NodeKeyReplaced" // a node joined again with another key
	CertificateRenewed Reason = "CertificateRenewed"
	JoinRefused        Reason = "JoinRefused"
	CertificateRefused Reason = "CertificateRefused"
	TokenRefused       Reason = "TokenRefused"
	AdminReset         Reason = "AdminReset"
)

// A Service authenticates nodes and users and hands out what they authenticate
// with. Its methods may be called concurrently. It has no loop and needs no closing.
type Service struct {
	config  Config
	cas     []*x509.Certificate
	limiter *limiter
	cache   *cache
}

// New returns a Service.
func New(config Config) (*Service, error) {
	s := config.Stores
	if s.Secrets == nil || s.JoinTokens == nil || s.APITokens == nil || s.Users == nil || s.Nodes == nil {
		return nil, errors.New("identity: a store is missing")
	}
	if config.CA == nil {
		return nil, errors.New("identity: the CA is missing")
	}
	if config.CertificateLifetime < 0 || config.CacheTTL < 0 {
		return nil, errors.New("identity: a negative lifetime")
	}
	if config.CertificateLifetime == 0 {
		config.CertificateLifetime = pki.NodeLifetime
	}
	if config.CacheTTL == 0 {
		config.CacheTTL = 5 * time.Second
	}
	if config.Record == nil {
		config.Record = func(context.Context, Event) {}
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	return &Service{
		config:  config,
		cas:     append([]*x509.Certificate{config.CA.Cert}, config.OtherCAs...),
		limiter: newLimiter(config.Limits),
		cache:   newCache(),
	}, nil
}

// CAs returns the certificates that node certificates may be signed by, the
// signing one first.
func (s *Service) CAs() []*x509.Certificate { return slices.Clone(s.cas) }

// CABundle is CAs in PEM, as edges keep it.
func (s *Service) CABundle() []byte { return pki.EncodeCerts(s.cas...) }

func (s *Service) record(ctx context.Context, e Event) {
	e.Time = s.config.Now()
	// Callers that nobody knows yet have a say in these.
	e.Node, e.User, e.Message = cut(e.Node), cut(e.User), cut(e.Message)
	s.config.Record(ctx, e)
}

// cut bounds a text for an event.
func cut(text string) string {
	const longest = 512
	if len(text) > longest {
		text = text[:longest] + "…"
	}
	return strings.ToValidUTF8(text, "?")
}

// refuse counts a wrong token from e.Remote and returns what the caller is told:
// err, or that there were too many.
func (s *Service) refuse(ctx context.Context, e Event, err error) error {
	e.Message = err.Error()
	if e.Remote == "" {
		// Within this process; there is nobody to slow down.
		s.record(ctx, e)
		return err
	}
	verdict, report, suppressed := s.limiter.fail(addrKey(e.Remote), s.config.Now())
	if verdict != nil {
		e.Message += "; further ones from this address are slowed down"
	}
	if report {
		e.Suppressed = suppressed
		s.record(ctx, e)
	}
	if verdict != nil {
		return verdict
	}
	return err
}

// admit returns a ThrottledError when the address is to be refused unheard.
func (s *Service) admit(remote string) error {
	if remote == "" {
		return nil
	}
	return s.limiter.admit(addrKey(remote), s.config.Now())
}

func newID(now time.Time) (string, error) {
	id, err := ulid.New(ulid.Timestamp(now), rand.Reader)
	if err != nil {
		return "", fmt.Errorf("make an id: %w", err)
	}
	return id.String(), nil
}
