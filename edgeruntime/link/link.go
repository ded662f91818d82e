// Package link keeps an edge linked to its hub: it joins, renews its
// certificate, dials, and runs one session after the other over
// protocols/edgelink. Down comes what the hub wants, which is stored before the
// hub is told so; up go the log lane, from the outbox and acknowledged, and the
// latest lane, which nothing waits for. FORMAT.md there has the rules.
//
// Nothing at the edge depends on it: with no link the outbox grows.
package link

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/devices"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/outbox"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/store"
	"github.com/whimbrel-edge/whimbrel/internal/backoff"
	"github.com/whimbrel-edge/whimbrel/internal/pki"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

// Store keeps what the hub wants. *store.Store is one.
type Store interface {
	Items(ctx context.Context) ([]store.Item, error)
	Held(ctx context.Context) ([]*pb.Held, error)
	// ApplySync returns when what the hub wants is on the disk.
	ApplySync(ctx context.Context, sync *pb.Sync) error
	ForgetRevisions(ctx context.Context) error
	Setting(ctx context.Context, name string) (string, error)
	SetSettings(ctx context.Context, settings map[string]string) error
}

// Outbox is the log. *outbox.Outbox is one.
type Outbox interface {
	Next(ctx context.Context, from outbox.Cursor, maxBytes int) ([]outbox.Record, error)
	Ack(epoch string, seq uint64) error
	Epoch() string
	Epochs() []*pb.Epoch
	Stats() outbox.Stats
}

// Devices are what the hub wants and hears of. *devices.Manager is one.
type Devices interface {
	Apply(items []store.Item)
	Latest(want devices.LatestWanted) []*pb.LatestTwin
	LatestWake() <-chan struct{}
	Seen() []*pb.Seen
}

// Config is what a Link needs. Token is for the first start, or to join anew.
type Config struct {
	URL     string // the hub's link, https://host:port
	Node    string
	Labels  map[string]string
	Token   string
	Dir     string // of the identity's files
	Version string
	Store   Store
	Outbox  Outbox
	Devices Devices
	Log     *slog.Logger
}

// The settings that a Link keeps.
const (
	settingLineage = "hub.lineage"   // of the hub's database
	settingNodeUID = "hub.node-uid"  // this node's
	settingToken   = "hub.join-hash" // hash of the token that the edge joined with
)

// times are the intervals of a link; tests have shorter ones.
type times struct {
	ping, pong time.Duration // how often to ask, how long to wait: together how long a dead link is believed in
	welcome    time.Duration // for the hub's first word
	report     time.Duration
	latest     time.Duration // between values on the latest lane, while the log lane is behind
	behind     time.Duration // of the log lane, from where on it is
	stable     time.Duration // a session of that length was a good one
	revoked    time.Duration // between attempts of a node that was deleted
	renewCheck time.Duration
	retry      backoff.Policy
}

var defaultTimes = times{ping: 15 * time.Second, pong: 30 * time.Second, welcome: 30 * time.Second, report: 10 * time.Second,
	latest: 500 * time.Millisecond, behind: 2 * time.Second, stable: time.Minute, revoked: 10 * time.Minute, renewCheck: time.Hour,
	retry: backoff.Policy{Min: time.Second, Max: time.Minute, Factor: 2, Jitter: 0.5}}

// Status is how a link is doing.
type Status struct {
	Connected bool
	Since     time.Time // of Connected
	Error     string    // why not
}

// Link is the edge's end. Run is its loop; Status may be called from anywhere.
type Link struct {
	cfg      Config
	times    times
	log      *slog.Logger
	identity identity
	now      func() time.Time

	mu     sync.Mutex
	status Status

	// The rest belongs to Run.
	renewed time.Time // when the certificate was last asked to be renewed
}

// New checks the configuration. Nothing is dialled before Run.
func New(cfg Config) (*Link, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.User != nil {
		return nil, fmt.Errorf("the hub's link URL must look like https://host:8443, got %q", cfg.URL)
	}
	if err := pki.CheckNodeName(cfg.Node); err != nil {
		return nil, err
	}
	l := &Link{cfg: cfg, times: defaultTimes, log: cfg.Log, identity: identity{dir: cfg.Dir}, now: time.Now, status: Status{Since: time.Now()}}
	if err := l.identity.load(); err != nil {
		return nil, err
	}
	leaf := l.identity.leaf()
	if cfg.Token != "" {
		if _, err := pki.ParseJoinToken(cfg.Token); err != nil {
			return nil, err
		}
	} else if leaf == nil {
		return nil, errors.New("this edge has not joined a hub yet: it needs a join token")
	}
	if leaf != nil && cfg.Token == "" {
		if name, err := pki.NodeName(leaf); err != nil || name != cfg.Node {
			return nil, fmt.Errorf("this edge has joined as %q, and is now called %q: to change its name it has to join anew, with a token", name, cfg.Node)
		}
	}
	return l, nil
}

// Status returns how the link is doing.
func (l *Link) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.status
}

func (l *Link) setStatus(connected bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.status.Connected != connected {
		l.status.Since = l.now()
	}
	l.status.Connected, l.status.Error = connected, ""
	if err != nil {
		l.status.Error = err.Error()
	}
}

// ErrJoinRefused is wrapped by the error of Run when the hub does not let in an
// edge that has no identity yet: waiting does not help.
var ErrJoinRefused = errors.New("the hub does not let this edge join")

// errAgain asks to dial again at once.
var errAgain = errors.New("the session begins anew")

// goodbye is the error of a session that the hub has ended.
type goodbye struct{ *pb.Goodbye }

func (g goodbye) Error() string {
	text := "the hub said goodbye: " + g.Reason
	if g.Message != "" {
		text += ": " + g.Message
	}
	return text
}

// Run keeps the edge linked until ctx ends, and returns nil then. No failure of
// the network or the hub ends it before, except that an edge which has never
// joined is refused (ErrJoinRefused).
func (l *Link) Run(ctx context.Context) error {
	retry, err := backoff.New(l.times.retry, rand.Float64)
	if err != nil {
		return fmt.Errorf("link: %w", err)
	}
	last := ""
	for {
		start := l.now()
		connected := false
		err := l.attempt(ctx, &connected)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, ErrJoinRefused) {
			return err
		}
		l.setStatus(false, err)
		if errors.Is(err, errAgain) {
			continue
		}
		if connected && l.now().Sub(start) >= l.times.stable {
			retry.Reset()
		}
		wait := max(retry.Next(), l.wish(err))
		// The same failure again and again is said once, then it is noise.
		level := slog.LevelWarn
		if !connected && err.Error() == last {
			level = slog.LevelDebug
		}
		last = err.Error()
		l.log.Log(ctx, level, "no link to the hub", "hub", l.cfg.URL, "error", err, "retry", wait.Round(time.Millisecond))
		if !sleep(ctx, wait) {
			return nil
		}
	}
}

// wish is how long the hub wants the edge to stay away for.
func (l *Link) wish(err error) time.Duration {
	var bye goodbye
	if errors.As(err, &bye) {
		wait := min(time.Duration(bye.RetryAfterS)*time.Second, l.times.revoked)
		if bye.Reason == edgelink.GoodbyeRevoked {
			return l.times.revoked
		}
		return wait
	}
	var refused *edgelink.RefusedError
	if errors.As(err, &refused) && refused.Status == edgelink.RevokedStatus {
		return l.times.revoked
	}
	return 0
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// attempt joins or renews where that is due, and then runs one session.
func (l *Link) attempt(ctx context.Context, connected *bool) error {
	if err := l.ensureJoined(ctx); err != nil {
		return err
	}
	l.renewIfDue(ctx)
	err := l.session(ctx, connected)
	var refused *edgelink.RefusedError
	if errors.As(err, &refused) && refused.Status == http.StatusUnauthorized {
		// By the hub's clock the certificate has expired: it may only renew.
		if err := l.identity.renew(ctx, l.cfg.URL); err != nil {
			return fmt.Errorf("the certificate has expired, and renewing it failed: %w", err)
		}
		l.sayRenewed()
		err = l.session(ctx, connected)
	}
	if errors.As(err, &refused) && refused.Status == edgelink.RevokedStatus {
		return fmt.Errorf("this node was deleted at the hub, or another edge has joined in its name; it has to join anew, with a new token: %w", err)
	}
	var stranger x509.UnknownAuthorityError
	if errors.As(err, &stranger) {
		return fmt.Errorf("what answers at %s is not the hub that this edge has joined: %w", l.cfg.URL, err)
	}
	return err
}

// renewIfDue renews a certificate of which two thirds are over, or seem to be by a
// clock that is wrong: not at each attempt, therefore. Where it has really
// expired the hub says so.
func (l *Link) renewIfDue(ctx context.Context) {
	leaf, now := l.identity.leaf(), l.now()
	if !pki.RenewDue(leaf, now) || now.Sub(l.renewed) < l.times.renewCheck {
		return
	}
	l.renewed = now
	if err := l.identity.renew(ctx, l.cfg.URL); err != nil {
		l.log.Warn("renewing the certificate failed", "expires", leaf.NotAfter, "error", err)
		return
	}
	l.sayRenewed()
}

func (l *Link) sayRenewed() {
	l.log.Info("certificate renewed", "expires", l.identity.leaf().NotAfter)
}

// ensureJoined joins unless the edge has joined, with this token or when none is
// given. A token that does not work does not keep an edge with an identity from
// using that.
func (l *Link) ensureJoined(ctx context.Context) error {
	if l.cfg.Token == "" {
		return nil
	}
	token, err := pki.ParseJoinToken(l.cfg.Token)
	if err != nil {
		return err
	}
	used, err := l.cfg.Store.Setting(ctx, settingToken)
	if err != nil {
		return err
	}
	leaf := l.identity.leaf()
	if used == token.SecretHash() && leaf != nil {
		l.cfg.Token = ""
		return nil
	}
	answer, err := l.identity.join(ctx, l.cfg.URL, l.cfg.Node, l.cfg.Labels, token)
	if err != nil {
		err = fmt.Errorf("join %s as %s: %w", l.cfg.URL, l.cfg.Node, err)
		var refused *edgelink.RefusedError
		if !errors.As(err, &refused) || refused.Status >= 500 || refused.Status == http.StatusTooManyRequests || refused.Status == http.StatusRequestTimeout {
			return err
		}
		if leaf == nil {
			return fmt.Errorf("%w: %w", ErrJoinRefused, err)
		}
		l.log.Warn("the join token does not work; the edge goes on with the identity that it has", "error", err)
		l.cfg.Token = ""
		return nil
	}
	l.cfg.Token = ""
	l.log.Info("joined", "hub", l.cfg.URL, "node", l.cfg.Node, "uid", answer.NodeUID)
	settings := map[string]string{settingToken: token.SecretHash(), settingNodeUID: answer.NodeUID}
	if leaf == nil && answer.Lineage != "" {
		settings[settingLineage] = answer.Lineage // nothing is held yet that another database may have counted
	}
	return l.cfg.Store.SetSettings(ctx, settings)
}
