// Package sessions is the hub's end of the link: it admits nodes, keeps one
// session for each connected one, brings the state that each is to hold down to
// it and takes its log and its latest values up.
package sessions

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/identity"
	"github.com/whimbrel-edge/whimbrel/devicehub/ingest"
	"github.com/whimbrel-edge/whimbrel/devicehub/registry"
	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

// Registry is what sessions need of the objects.
type Registry interface {
	Follow(node string) *registry.Follower
	Wanted(node string) []registry.Item
	Item(node string, ref registry.Ref) (registry.Item, bool)
	// Hand is called before desired values go to a node, Forgot when it has lost
	// what it knew of them.
	Hand(ctx context.Context, node string, refs []registry.Ref) error
	Forgot(ctx context.Context, node string, all bool) error
	LabelNode(ctx context.Context, name string, labels map[string]string) error
	StatusChanged(key models.Key)
	// Announce is registry.Registry.Announce.
	Announce(ctx context.Context, node, name string, spec models.MapperSpec) error
}

// Ingest takes the log lane.
type Ingest interface {
	// Submit hands a batch over and blocks while too much waits; done is called
	// once it is committed or never will be.
	Submit(ctx context.Context, from ingest.Origin, b *pb.Batch, done func(acked uint64, err error)) error
}

// Twins takes the latest lane, and hears who is there.
type Twins interface {
	Latest(node string, rank uint64, l *pb.Latest)
	Seen(node string, seen []*pb.Seen)
	NodeLive(node string, live bool)
}

// Workloads hears how pods are doing, and who is there to run them.
type Workloads interface {
	NodeLive(node string, live bool, capabilities []string)
	PodStatuses(node string, s *pb.PodStatuses)
}

// Log is what sessions need of the stored logs.
type Log interface {
	Epochs(ctx context.Context, nodeUID string) ([]store.Epoch, error)
	StartEpoch(ctx context.Context, nodeUID, epoch string, now time.Time) (store.Epoch, error)
	AddGaps(ctx context.Context, gaps []store.Gap) error
	Gaps(ctx context.Context, nodeUID string, f func(store.Gap) error) error
}

// Identity admits nodes.
type Identity interface {
	Join(ctx context.Context, r identity.JoinRequest) (identity.Issued, error)
	Renew(ctx context.Context, peer Certificate, csr []byte) (identity.Issued, error)
	Authenticate(ctx context.Context, peer Certificate) (identity.NodeIdentity, error)
}

// Config is what a Manager needs.
type Config struct {
	Registry  Registry
	Ingest    Ingest
	Twins     Twins
	Workloads Workloads
	Log       Log
	Identity  Identity
	Events    Events // may be nil
	Routes    Routes // nil: none
	// Streams serve what nodes open on their second connections, by kind.
	Streams map[string]StreamHandler
	// Crowded is called when streams to a node's apps wait for others to end; see
	// bulk.Conn. nil: it is not.
	Crowded func()
	// SecondIdle is how long a second connection without streams is kept, default
	// bulk.IdleAfter.
	SecondIdle time.Duration
	Lineage    string // the database's
	Window     uint32 // bytes of the log lane that may be on the way, default DefaultWindow
	Now        func() time.Time
	Logger     *slog.Logger
}

// rivalMemory is how long a node's condition tells of a second edge with its
// identity after that one was last refused.
const rivalMemory = 10 * time.Minute

// DefaultWindow is how much of its log an edge may send unacknowledged.
const DefaultWindow = 1 << 20

// Manager keeps the sessions. Its methods are safe for concurrent use.
type Manager struct {
	Config
	now func() time.Time
	log *slog.Logger

	wait sync.WaitGroup // one for each session that runs

	ctx   context.Context // ends with Close; of links that are no session yet
	close context.CancelFunc

	mu       sync.Mutex // protects all below
	closing  bool
	sessions map[string]*session // by node name
	nodes    map[string]*node    // what is known of nodes, connected or not
}

// node is what the hub knows of a node beside its object.
type node struct {
	info       models.NodeInfo
	lastSeen   time.Time
	outbox     *models.OutboxState
	expires    time.Time // of its certificate
	readySince time.Time
	live       bool
	conditions map[string]models.Condition // by type; others than Ready
	rivalAt    time.Time                   // when a second edge with its identity was last met
	replaced   int                         // how often a session took another's place since replacedAt
	replacedAt time.Time
	mappers    map[string]models.MapperNode // it announced, at most edgelink.MaxMappers
}

// New returns a Manager.
func New(cfg Config) *Manager {
	m := &Manager{Config: cfg, now: cfg.Now, log: cfg.Logger, sessions: map[string]*session{}, nodes: map[string]*node{}}
	m.ctx, m.close = context.WithCancel(context.Background())
	if m.now == nil {
		m.now = time.Now
	}
	if m.Window == 0 {
		m.Window = DefaultWindow
	}
	return m
}

// Connected returns how many nodes have a live session.
func (m *Manager) Connected() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.sessions)
}

// Live reports whether a node has a live session.
func (m *Manager) Live(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sessions[name] != nil
}

// Kick ends a node's session, because the node is gone.
func (m *Manager) Kick(name, reason, message string) {
	m.mu.Lock()
	s := m.sessions[name]
	if s == nil {
		delete(m.nodes, name)
	}
	m.mu.Unlock()
	if s != nil {
		s.end(&pb.Goodbye{Reason: reason, Message: message})
	}
}

// Close ends every session and waits for them. No new one begins.
func (m *Manager) Close() {
	m.mu.Lock()
	m.closing = true
	all := slices.Collect(maps.Values(m.sessions))
	m.mu.Unlock()
	m.close()
	for _, s := range all {
		s.end(&pb.Goodbye{Reason: edgelink.GoodbyeShutdown, Message: "the hub is stopping", RetryAfterS: 1})
	}
	m.wait.Wait()
}

func (m *Manager) nodeLocked(name string) *node {
	n := m.nodes[name]
	if n == nil {
		n = &node{conditions: map[string]models.Condition{}}
		m.nodes[name] = n
	}
	return n
}

// setCondition notes a condition other than Ready.
func (m *Manager) setCondition(name string, c models.Condition) {
	m.mu.Lock()
	n := m.nodeLocked(name)
	if old := n.conditions[c.Type]; old.Status == c.Status && old.Reason == c.Reason {
		c.LastTransitionTime = old.LastTransitionTime
	}
	n.conditions[c.Type] = c
	if c.Reason == duplicateIdentity {
		n.rivalAt = m.now()
	}
	m.mu.Unlock()
	m.Registry.StatusChanged(models.Key{Kind: "Node", Name: name})
}

// duplicate notes that two edges use one identity.
func (m *Manager) duplicate(id identity.NodeIdentity, message string) {
	name := id.Name
	m.raise(name, id.UID, models.SeverityWarning, duplicateIdentity, "%s", message)
	m.log.Error("two edges use one identity", "node", name, "message", message)
	m.setCondition(name, models.Condition{Type: "IdentityUnique", Status: "False", Reason: duplicateIdentity, Message: message, LastTransitionTime: m.now().UTC()})
}

// An edge that connects anew has lost its link before; a machine that was copied
// while it ran makes two that take each other's place again and again.
const (
	replacedOften  = 5
	replacedWithin = time.Minute
)

// replaced counts that a session takes the place of another of the same process.
func (m *Manager) replaced(id identity.NodeIdentity) {
	m.mu.Lock()
	n, now := m.nodeLocked(id.Name), m.now()
	if now.Sub(n.replacedAt) > replacedWithin {
		n.replaced, n.replacedAt = 0, now
	}
	n.replaced++
	often := n.replaced >= replacedOften
	m.mu.Unlock()
	if often {
		m.duplicate(id, "sessions of this node replace each other: two copies of one running machine may share its identity")
	}
}

// NodeStatus returns a node's status for its document.
func (m *Manager) NodeStatus(o *models.Node) *models.NodeStatus {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.nodes[o.Metadata.Name]
	if n == nil {
		return &models.NodeStatus{Conditions: []models.Condition{{Type: "Ready", Status: "Unknown", Reason: "NeverConnected",
			Message: "the node has not connected since the hub started", LastTransitionTime: *o.Metadata.CreationTimestamp}}}
	}
	ready := models.Condition{Type: "Ready", Status: "False", Reason: "Disconnected", Message: "the node has no live session", LastTransitionTime: n.readySince.UTC()}
	if n.live {
		ready.Status, ready.Reason, ready.Message = "True", "Connected", ""
	}
	s := &models.NodeStatus{Conditions: []models.Condition{ready}, NodeInfo: n.info, Outbox: n.outbox}
	for _, typ := range []string{"LogContinuous", "IdentityUnique", diskReady, mappersTaken, engineReady} {
		if typ == "IdentityUnique" && m.now().Sub(n.rivalAt) > rivalMemory {
			continue
		}
		if c, ok := n.conditions[typ]; ok {
			if typ == engineReady && !n.live {
				c.Status, c.Reason, c.Message, c.LastTransitionTime = "Unknown", ready.Reason, ready.Message, ready.LastTransitionTime
			}
			s.Conditions = append(s.Conditions, c)
		}
	}
	if !n.lastSeen.IsZero() {
		s.LastSeen = new(n.lastSeen.UTC())
	}
	if n.live {
		s.LastSeen = new(m.now().UTC())
	}
	if !n.expires.IsZero() {
		s.CertificateExpires = new(n.expires.UTC())
	}
	s.NodeInfo.Capabilities = slices.Clone(n.info.Capabilities)
	return s
}
