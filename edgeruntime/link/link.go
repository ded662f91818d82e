package link

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/devices"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/outbox"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/store"
	"github.com/whimbrel-edge/whimbrel/internal/backoff"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

// Store keeps the wanted state. *store.Store is one.
type Store interface {
	Held(ctx context.Context) ([]*pb.Held, error)
	ApplySync(ctx context.Context, sync *pb.Sync) error
	Items(ctx context.Context) ([]store.Item, error)
	Setting(ctx context.Context, name string) (string, error)
	SetSettings(ctx context.Context, settings map[string]string) error
}

// Outbox is the log. *outbox.Outbox is one.
type Outbox interface {
	Next(ctx context.Context, from outbox.Cursor, maxBytes int) ([]outbox.Record, error)
	Ack(epoch string, seq uint64) error
	Epochs() []*pb.Epoch
	Epoch() string
	Stats() outbox.Stats
}

// Devices is what runs the devices. *devices.Manager is one.
type Devices interface {
	Apply(items []store.Item)
	Latest(want devices.LatestWanted) []*pb.LatestTwin
	LatestWake() <-chan struct{}
	Seen() []*pb.Seen
}

// Config is what a Link needs. Labels and Token may be empty.
type Config struct {
	Dir     string // of keys and certificates, mode 0700
	Node    string
	HubURL  string // the hub's link URL, https://host:port
	Token   string // for the first join
	Labels  map[string]string
	Version string
	Store   Store
	Outbox  Outbox
	Devices Devices
	Now     func() time.Time
	Log     *slog.Logger
}

// The settings the link keeps in the store.
const (
	settingLineage = "link.lineage"
	settingNodeUID = "link.node-uid"
)

// Link is the edge's end of the link.
type Link struct {
	cfg  Config
	log  *slog.Logger
	now  func() time.Time
	keys keys

	mu        sync.Mutex // protects all below
	connected bool
	lastErr   error
}

// New reads who the edge is. A damaged identity is an error; none is not, if
// there is a token to join with.
func New(cfg Config) (*Link, error) {
	l := &Link{cfg: cfg, log: cfg.Log, now: cfg.Now, keys: keys{dir: cfg.Dir}}
	if l.now == nil {
		l.now = time.Now
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of keys: %w", err)
	}
	if err := l.keys.load(); err != nil {
		return nil, fmt.Errorf("read this node's identity: %w", err)
	}
	if _, err := l.keys.certificate(); err != nil && cfg.Token == "" {
		return nil, errors.New("this edge has not joined a hub: a token is needed (`whimbrel token create --node NAME` on the hub makes one)")
	}
	return l, nil
}

// Connected reports whether there is a live session, and why not.
func (l *Link) Connected() (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.connected, l.lastErr
}

// Lag returns how long the oldest record that the hub has not acknowledged has
// been waiting.
func (l *Link) Lag() time.Duration {
	oldest := l.cfg.Outbox.Stats().Oldest
	if oldest.IsZero() {
		return 0
	}
	return max(l.now().Sub(oldest), 0)
}

func (l *Link) setConnected(connected bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.connected, l.lastErr = connected, err
}

// Times between attempts.
const (
	steadyAfter   = time.Minute // a session this long makes the next failure a first one
	maxPause      = 15 * time.Second
	revokedPause  = 10 * time.Minute
	refusedPause  = time.Minute
	firstAttempts = 2 // quick ones, for a hub that restarts
)

// Run keeps the link until ctx ends. No fault of the network or the hub ends
// it.
func (l *Link) Run(ctx context.Context) error {
	b, err := backoff.New(backoff.Policy{Min: time.Second, Max: maxPause, Factor: 2, Jitter: 0.5}, rand.Float64)
	if err != nil {
		return err
	}
	quick := firstAttempts
	said := ""
	for {
		began := time.Now()
		err := l.session(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		l.setConnected(false, err)
		if time.Since(began) > steadyAfter {
			b.Reset()
			quick = firstAttempts
		}
		pause := time.Duration(0)
		var bye *goodbyeError
		var stop permanent
		switch {
		case errors.As(err, &stop):
			pause = refusedPause
		case errors.As(err, &bye) && bye.reason == edgelink.GoodbyeRevoked, refusedWith(err, edgelink.RevokedStatus):
			pause = revokedPause
		case errors.As(err, &bye):
			pause = min(bye.retryAfter, revokedPause)
		}
		if text := err.Error(); text != said { // a hub that is away for a week is not news every minute
			l.log.Warn("no link to the hub; the edge goes on alone and tries again", "hub", l.cfg.HubURL, "error", err)
			said = text
		}
		switch {
		case pause > 0:
			pause += time.Duration(rand.Float64() * float64(pause) / 4)
		case quick > 0:
			quick--
			pause = 100*time.Millisecond + time.Duration(rand.Float64()*float64(200*time.Millisecond))
		default:
			pause = b.Next()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

func refusedWith(err error, status int) bool {
	var refused *edgelink.RefusedError
	return errors.As(err, &refused) && refused.Status == status
}

// goodbyeError is why the hub ended a session.
type goodbyeError struct {
	reason, message string
	retryAfter      time.Duration
}

func (e *goodbyeError) Error() string {
	text := "the hub ended the session: " + e.reason
	if e.message != "" {
		text += " (" + e.message + ")"
	}
	return text
}

// session joins and renews if need be, connects, and serves one session to its
// end.
func (l *Link) session(ctx context.Context) error {
	if _, err := l.keys.certificate(); err != nil {
		if err := l.join(ctx); err != nil {
			return err
		}
	}
	if err := l.renewIfDue(ctx); err != nil {
		cert, _ := l.keys.certificate()
		if cert == nil || l.now().After(cert.Leaf.NotAfter) {
			return err
		}
		l.log.Warn("the certificate is still good; it is renewed later", "expires", cert.Leaf.NotAfter, "error", err)
	}
	dial, cancel := context.WithTimeout(ctx, requestTimeout)
	conn, err := edgelink.Dial(dial, l.cfg.HubURL, l.keys.tls())
	cancel()
	if refusedWith(err, http.StatusUnauthorized) { // the hub's clock says that it has expired
		if renewErr := l.renew(ctx); renewErr != nil {
			return errors.Join(err, renewErr)
		}
	}
	if err != nil {
		return err
	}
	defer conn.CloseNow()
	s := &session{l: l, conn: conn, log: l.log, syncs: make(chan *pb.Frame, 64), acked: make(chan struct{}, 1), began: l.now(), flying: map[string]uint64{}}
	return s.run(ctx)
}

// hello says who this is and what it has.
func (l *Link) hello(ctx context.Context) (*pb.Hello, error) {
	held, err := l.cfg.Store.Held(ctx)
	if err != nil {
		return nil, fmt.Errorf("read what is held: %w", err)
	}
	lineage, err := l.cfg.Store.Setting(ctx, settingLineage)
	if err != nil {
		return nil, fmt.Errorf("read the hub's lineage: %w", err)
	}
	return &pb.Hello{Capability: edgelink.Capability, Capabilities: edgelink.Capabilities(), Node: l.cfg.Node, Version: l.cfg.Version,
		Os: runtime.GOOS, Arch: runtime.GOARCH, Lineage: lineage, Epochs: l.cfg.Outbox.Epochs(), Held: held, ClockUs: l.now().UnixMicro(), Labels: l.cfg.Labels}, nil
}
