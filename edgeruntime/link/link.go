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
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/devices"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/outbox"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/routes"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/store"
	"github.com/whimbrel-edge/whimbrel/internal/backoff"
	"github.com/whimbrel-edge/whimbrel/internal/pki"
	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/bulk"
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

// Pods are what the edge runs. *workload.Manager is one.
type Pods interface {
	// Statuses returns how they are doing: all, or what has changed since the call
	// before, nil when that is nothing.
	Statuses(full bool) *pb.PodStatuses
	// StatusesWake has something to read when something has changed.
	StatusesWake() <-chan struct{}
}

// Routes are the messages of routes. *routes.Router is one.
type Routes interface {
	// Parcel returns the oldest messages for the hub, and Sent what became of
	// them: more is false when the hub has no room now.
	Parcel(ctx context.Context, maxBytes int) (routes.Parcel, error)
	Sent(ctx context.Context, p routes.Parcel, acks *pb.RouteAcks) (more bool, err error)
	Waiting() <-chan struct{}
	// Deliver takes messages of the hub.
	Deliver(ctx context.Context, ms []*pb.RouteMessage) *pb.RouteAcks
	Answer(a *pb.RouteReply)
	Replies() <-chan *pb.RouteReply
	Counts() *pb.RouteCounts
}

// Config is what a Link needs. Token is for the first start, or to join anew; Now
// may be nil.
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
	// Applied hears what the hub wants, after Devices; nil: nobody.
	Applied func(items []store.Item)
	Routes  Routes // nil: none
	Pods    Pods   // nil: the edge runs none
	// Handlers answer what the hub asks, by the method of the request.
	Handlers map[string]Handler
	// Streams serve what the hub opens on the second connection, by kind; nil: the
	// edge opens none.
	Streams map[string]bulk.Handler
	// Mappers returns the edge's drivers, which the hub is told of; nil: none.
	Mappers func() []mappers.Info
	Now     func() time.Time // the edge's clock, by which certificates are renewed; default time.Now
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
	ping       time.Duration // how often to ask whether the hub is there
	silent     time.Duration // nothing heard for so long: it is not
	welcome    time.Duration // for the hello to go out and the hub's first word to come
	leave      time.Duration // for a goodbye
	report     time.Duration
	latest     time.Duration // between values on the latest lane, while the log lane is behind
	behind     time.Duration // of the log lane, from where on it is
	slow       time.Duration // an acknowledgement that takes longer says that less should be on its way
	reread     time.Duration // between attempts to read an outbox that fails
	store      time.Duration // between attempts to store what the hub wants
	stable     time.Duration // a session of that length was a good one
	revoked    time.Duration // between attempts of a node that was deleted
	renewCheck time.Duration // between looks at the certificate, and attempts that fail
	renewAgain time.Duration // between renewals: by a clock that is wrong they may seem due all the time
	quick      time.Duration // before the first attempts after a good session
	retry      backoff.Policy
}

// quickAttempts are for a hub that restarts, or a link that blinks.
const quickAttempts = 2

var defaultTimes = times{ping: 15 * time.Second, silent: 45 * time.Second, welcome: 45 * time.Second, leave: time.Second, report: 10 * time.Second,
	latest: 250 * time.Millisecond, behind: 2 * time.Second, slow: 3 * time.Second, reread: time.Second, store: 2 * time.Second, stable: 10 * time.Second,
	revoked: 10 * time.Minute, renewCheck: 10 * time.Minute, renewAgain: time.Hour, quick: 200 * time.Millisecond,
	retry: backoff.Policy{Min: time.Second, Max: 15 * time.Second, Factor: 2, Jitter: 0.5}}

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
	mappers  chan struct{} // one slot: they have changed
	log      *slog.Logger
	identity identity
	now      func() time.Time

	live atomic.Pointer[session] // the one that is linked, nil for none

	mu     sync.Mutex
	status Status

	// The rest belongs to Run, and while a session lasts to its renewal loop.
	renewNotBefore time.Time
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
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	l := &Link{cfg: cfg, times: defaultTimes, log: cfg.Log, identity: identity{dir: cfg.Dir}, mappers: make(chan struct{}, 1), now: cfg.Now, status: Status{Since: cfg.Now()}}
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

// MappersChanged says that Config.Mappers returns something new.
func (l *Link) MappersChanged() { notify(l.mappers) }

// Status returns how the link is doing.
func (l *Link) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.status
}

// Lag returns for how long the oldest record that the hub has not acknowledged
// has been waiting.
func (l *Link) Lag() time.Duration {
	oldest := l.cfg.Outbox.Stats().Oldest
	if oldest.IsZero() {
		return 0
	}
	return max(l.now().Sub(oldest), 0)
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

// ErrJoinRefused: the hub does not let in an edge that has no identity yet.
// Run returns it: somebody has to do something about it, and asking again with
// the same token would only look like guessing.
var ErrJoinRefused = errors.New("the hub does not let this edge join")

// errAgain ends a session that is to begin anew.
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
// the network or the hub ends it before, but for ErrJoinRefused: an edge that
// has never joined has nothing to go on with.
func (l *Link) Run(ctx context.Context) error {
	retry, err := backoff.New(l.times.retry, rand.Float64)
	if err != nil {
		return fmt.Errorf("link: %w", err)
	}
	defer func() {
		if ctx.Err() != nil { // else the status says why it ended
			l.setStatus(false, nil)
		}
	}()
	quick := quickAttempts
	said := ""
	for {
		var linked time.Time // zero: it came to no session
		err := l.attempt(ctx, &linked)
		if ctx.Err() != nil {
			return nil
		}
		l.setStatus(false, err)
		if errors.Is(err, ErrJoinRefused) {
			return err
		}
		if !linked.IsZero() {
			said = ""
			if time.Since(linked) >= l.times.stable {
				retry.Reset()
				quick = quickAttempts
			}
		}
		wait := l.times.quick/2 + time.Duration(rand.Float64()*float64(l.times.quick))
		if quick > 0 {
			quick--
		} else {
			wait = retry.Next()
		}
		if wish := l.wish(err); wish > 0 { // all edges of a hub have the same, and are not to come in one moment
			wait = max(wait, wish+time.Duration(rand.Float64()*float64(wish)/4))
		}
		// The same failure again and again is said once, then it is noise.
		level := slog.LevelWarn
		if news := withoutNumbers(err.Error()); news == said {
			level = slog.LevelDebug
		} else {
			said = news
		}
		l.log.Log(ctx, level, "no link to the hub; the edge goes on alone and tries again", "hub", l.cfg.URL, "error", err, "retry", wait.Round(time.Millisecond))
		if !sleep(ctx, wait) {
			return nil
		}
	}
}

// withoutNumbers leaves out what differs between two failures that are the same,
// such as a connection's own port.
func withoutNumbers(text string) string {
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, text)
}

// wish is how long the edge should stay away for after an error.
func (l *Link) wish(err error) time.Duration {
	var bye goodbye
	var refused *edgelink.RefusedError
	switch {
	case errors.As(err, &bye) && bye.Reason == edgelink.GoodbyeRevoked:
		return l.times.revoked
	case errors.As(err, &bye):
		return min(time.Duration(bye.RetryAfterS)*time.Second, l.times.revoked)
	case errors.As(err, &refused) && refused.Status == edgelink.RevokedStatus:
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
func (l *Link) attempt(ctx context.Context, linked *time.Time) error {
	if err := l.ensureJoined(ctx); err != nil {
		return err
	}
	l.renewIfDue(ctx)
	err := l.session(ctx, linked)
	var refused *edgelink.RefusedError
	if errors.As(err, &refused) && refused.Status == http.StatusUnauthorized && linked.IsZero() {
		// By the hub's clock the certificate has expired: it may only renew.
		if err := l.identity.renew(ctx, l.cfg.URL); err != nil {
			return fmt.Errorf("the certificate has expired, and renewing it failed: %w", err)
		}
		l.sayRenewed()
		err = l.session(ctx, linked)
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
	if !pki.RenewDue(leaf, now) || now.Before(l.renewNotBefore) {
		return
	}
	l.renewNotBefore = now.Add(l.times.renewCheck)
	if err := l.identity.renew(ctx, l.cfg.URL); err != nil {
		if ctx.Err() == nil {
			l.log.Warn("renewing the certificate failed; it is tried again", "expires", leaf.NotAfter, "error", err)
		}
		return
	}
	l.renewNotBefore = now.Add(l.times.renewAgain)
	l.sayRenewed()
}

func (l *Link) sayRenewed() {
	l.log.Info("certificate renewed", "expires", l.identity.leaf().NotAfter)
}

// joinIsHopeless reports whether asking again with the same token cannot help:
// it is another hub's, wrong or used, or the node's name or labels are wrong.
func joinIsHopeless(err error) bool {
	var refused *edgelink.RefusedError
	if !errors.As(err, &refused) {
		return errors.Is(err, pki.ErrOtherHub)
	}
	switch refused.Status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusUnprocessableEntity:
		return true
	}
	return false
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
		if !joinIsHopeless(err) {
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
	return l.cfg.Store.SetSettings(ctx, map[string]string{settingToken: token.SecretHash(), settingNodeUID: answer.NodeUID})
}
