// Package devices runs the devices of an edge. A Manager makes the running set
// equal what the hub wants; each device has one loop, which owns its twin, feeds
// it from the device's mappers.Runner, sends writes back, and tells what
// happened: first to the outbox, and once that has it, to local apps (MQTT) and
// to the link's latest lane.
//
// The loops:
//
//	Manager.Run    starts and ends slots, checkpoints what was observed
//	slot.run       one per device: runs its loop, anew when its configuration changes
//	loop.run       one per device: owns the twin
//	Runner.Run     one per device that can be served: polls and writes
//
// Only edgeruntime imports it.
package devices

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/outbox"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/store"
	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
	"github.com/whimbrel-edge/whimbrel/twin"
)

// Store keeps twins. *store.Store is one.
type Store interface {
	// Twin returns the stored twin of a device, the zero one when there is none.
	Twin(ctx context.Context, uid string) (twin.Stored, error)
	// SaveIntent returns when the intent survives a power loss.
	SaveIntent(ctx context.Context, uid string, i twin.Intent) error
	// SaveObserved stores what was observed of several devices.
	SaveObserved(ctx context.Context, observed map[string]twin.Observed) error
	// DropTwin forgets a device's twin.
	DropTwin(ctx context.Context, uid string) error
	// KeepTwins forgets all others.
	KeepTwins(ctx context.Context, uids []string) error
}

// Outbox takes what there is to tell the hub. *outbox.Outbox is one.
type Outbox interface {
	// Append is outbox.Outbox.Append.
	Append(ctx context.Context, e outbox.Entry, done func(seq uint64, err error)) error
	// Epochs is outbox.Outbox.Epochs.
	Epochs() []*pb.Epoch
}

// Config is what a Manager needs. Publish and Metrics may be nil.
type Config struct {
	Drivers map[string]mappers.Driver // by protocol; SetDriver adds to them
	Store   Store
	Outbox  Outbox
	// Publish tells local apps. It waits for nobody.
	Publish func(topic string, payload []byte, retain bool) error
	Metrics *mappers.Metrics
	Log     *slog.Logger
	NewID   func() string // of writes, a ULID
	// Era counts the starts of the edge. The versions of its twins go on from one
	// above all that a life before has shown.
	Era uint64
	// DataDir is where drivers keep files of their own, each in a folder named
	// after its protocol; "" is nowhere.
	DataDir string
}

// Manager runs the devices. All methods may be called from any goroutine, Run
// once.
type Manager struct {
	cfg  Config
	wake chan struct{} // one slot: Run looks at wanted again

	latest chan struct{} // one slot: the latest lane has something that does not wait

	unsaid time.Time // until when Run does not log once more that it cannot store what was observed

	applying sync.Mutex                // held while what is wanted changes; before mu
	items    []store.Item              // as Apply said
	drivers  map[string]mappers.Driver // by protocol; replaced, not changed
	compiler compiler

	mu     sync.Mutex
	wanted map[string]*device // by local id, as Apply said
	first  bool               // Apply was called
	began  bool               // Run has seen that
	slots  map[string]*slot   // by local id; also those that are ending
	ready  chan struct{}      // closed when the first wanted set has its loops
}

// New returns a Manager without devices.
func New(cfg Config) *Manager {
	if cfg.Publish == nil {
		cfg.Publish = func(string, []byte, bool) error { return nil }
	}
	return &Manager{cfg: cfg, drivers: cfg.Drivers, wake: make(chan struct{}, 1), latest: make(chan struct{}, 1), wanted: map[string]*device{},
		slots: map[string]*slot{}, ready: make(chan struct{})}
}

// Apply says what the hub wants, all of it. It waits for nothing: the running
// set follows.
func (m *Manager) Apply(items []store.Item) {
	m.applying.Lock()
	defer m.applying.Unlock()
	m.items = items
	m.want()
}

// want makes what was applied wanted. The caller holds applying.
func (m *Manager) want() {
	wanted := m.compiler.compile(m.items, m.drivers, m.cfg.Log)
	m.mu.Lock()
	m.wanted, m.first = wanted, true
	m.mu.Unlock()
	notify(m.wake)
}

// SetDriver adds a driver. Devices of its protocol, which nothing could serve,
// follow.
func (m *Manager) SetDriver(protocol string, d mappers.Driver) {
	m.applying.Lock()
	defer m.applying.Unlock()
	if m.drivers[protocol] == d {
		return
	}
	drivers := maps.Clone(m.drivers)
	if drivers == nil {
		drivers = map[string]mappers.Driver{}
	}
	drivers[protocol] = d
	m.drivers = drivers
	m.compiler.forget()
	if m.items != nil {
		m.want()
	}
}

// notify wakes whoever reads from a channel with one slot; wake-ups coalesce.
func notify(wake chan<- struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// Ready is closed when every device of the first Apply has its twin.
func (m *Manager) Ready() <-chan struct{} { return m.ready }

// checkpointEvery is how often what was observed goes to the disk.
const checkpointEvery = time.Second

// Run runs the devices until ctx ends; then it ends their loops, which tell the
// outbox the last there is, and waits for them. It returns nil.
func (m *Manager) Run(ctx context.Context) error {
	var slots sync.WaitGroup
	tick := time.NewTicker(checkpointEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-m.wake:
			m.reconcile(ctx, &slots)
		case <-tick.C:
			m.checkpoint(ctx)
		}
	}
	slots.Wait()
	m.checkpoint(context.WithoutCancel(ctx))
	return nil
}

// reconcile makes a slot for each device that has none, and wakes those whose
// device has changed or is gone. A device that is wanted again while its slot
// ends gets the same slot: two never run for one device.
func (m *Manager) reconcile(ctx context.Context, slots *sync.WaitGroup) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.first {
		return
	}
	var starting []*slot
	for id := range m.wanted {
		if m.slots[id] == nil {
			s := newSlot(m, id)
			s.told = m.wanted[id]
			m.slots[id] = s
			starting = append(starting, s)
			slots.Go(func() { s.run(ctx) })
		}
	}
	for id, s := range m.slots {
		if d := m.wanted[id]; d != s.told {
			s.told = d
			notify(s.wake)
		}
	}
	if m.began {
		return
	}
	m.began = true
	var uids []string
	for _, d := range m.wanted {
		uids = append(uids, d.uid)
	}
	if err := m.cfg.Store.KeepTwins(ctx, uids); err != nil && ctx.Err() == nil {
		m.cfg.Log.Warn("forgetting the twins of devices that are gone failed", "error", err)
	}
	slots.Go(func() {
		for _, s := range starting {
			<-s.started // s.run closes it in any case
		}
		close(m.ready)
	})
}

// checkpoint stores what was observed of the devices where that has changed.
func (m *Manager) checkpoint(ctx context.Context) {
	dirty := map[string]twin.Observed{}
	var loops []*loop
	for _, l := range m.loops() {
		if o, ok := l.takeObserved(); ok {
			dirty[l.d.uid] = o
			loops = append(loops, l)
		}
	}
	if len(dirty) == 0 {
		return
	}
	if err := m.cfg.Store.SaveObserved(ctx, dirty); err != nil {
		for _, l := range loops {
			l.mu.Lock()
			l.observed = true
			l.mu.Unlock()
		}
		// A full disk is met every second, and the log may be on it.
		if now := time.Now(); ctx.Err() == nil && now.After(m.unsaid) {
			m.unsaid = now.Add(time.Minute)
			m.cfg.Log.Warn("storing what was observed failed; it is tried again", "error", err)
		}
	}
}

// loops returns the running loops, by local id.
func (m *Manager) loops() (out []*loop) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(m.slots)) {
		if l := m.slots[id].loop; l != nil {
			out = append(out, l)
		}
	}
	return out
}

// loop returns a device's running loop.
func (m *Manager) loop(id string) (*loop, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.wanted[id] == nil {
		return nil, models.Errorf(models.KindNotFound, "there is no device %q on this edge", id)
	}
	if s := m.slots[id]; s != nil && s.loop != nil {
		return s.loop, nil
	}
	return nil, models.Errorf(models.KindUnavailable, "device %s is being started", id)
}

// Summary is a device in a list.
type Summary struct {
	ID        string             `json:"id"` // as topics and local paths name it
	Name      string             `json:"name"`
	Namespace string             `json:"namespace"`
	State     models.DeviceState `json:"state"`
	LastSeen  *time.Time         `json:"lastSeen,omitempty"`
	Model     string             `json:"model"`
	Problem   string             `json:"problem,omitempty"` // why it is not online
}

// Devices lists the devices, by local id.
func (m *Manager) Devices() []Summary {
	m.mu.Lock()
	wanted := maps.Clone(m.wanted)
	m.mu.Unlock()
	out := make([]Summary, 0, len(wanted))
	for _, id := range slices.Sorted(maps.Keys(wanted)) {
		d := wanted[id]
		s := Summary{ID: id, Name: d.name, Namespace: d.namespace, State: models.StateUnknown, Model: d.model}
		if l, err := m.loop(id); err == nil {
			l.summary(&s)
		}
		out = append(out, s)
	}
	return out
}

// Document shows the twin of the device with a local id.
func (m *Manager) Document(id string) (twin.Document, error) {
	l, err := m.loop(id)
	if err != nil {
		return twin.Document{}, err
	}
	return l.document(), nil
}

// slot is a device's place: it outlives the loops that serve the device, one
// after the other.
type slot struct {
	m       *Manager
	id      string
	wake    chan struct{} // one slot: wanted may have changed
	started chan struct{} // closed when the first loop runs, or none will

	// Under Manager.mu.
	loop *loop   // nil between two
	told *device // what reconcile has seen wanted last

	// The rest belongs to run.
	published map[string]bool // retained topics
	version   uint64          // of the twin, as the loop before showed it
	unsaved   []byte          // JSON of the twin's intent, where the disk did not take it from the loop before
}

func newSlot(m *Manager, id string) *slot {
	return &slot{m: m, id: id, wake: make(chan struct{}, 1), started: make(chan struct{}), published: map[string]bool{}}
}

// wanted returns what the slot is to run, nil for nothing.
func (s *slot) wanted() *device {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	return s.m.wanted[s.id]
}

// set says which loop answers for the device.
func (s *slot) set(l *loop) {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.loop = l
}

// run serves the device as long as it is wanted. Every loop has ended, its
// connection included, before the next begins.
func (s *slot) run(ctx context.Context) {
	started := sync.OnceFunc(func() { close(s.started) })
	defer started()
	var last *device
	for {
		d := s.wanted()
		if last != nil && (d == nil || d.uid != last.uid) {
			s.forget(ctx, last)
		}
		if d == nil && s.leave() {
			return
		}
		if d == nil {
			continue // wanted again meanwhile
		}
		l, err := newLoop(ctx, s, d)
		if err != nil {
			if ctx.Err() == nil {
				s.m.cfg.Log.Error("starting the device failed; it is tried again", "device", s.id, "error", err)
				select {
				case <-ctx.Done():
				case <-s.wake:
				case <-time.After(5 * time.Second):
				}
			}
			started()
			if ctx.Err() != nil {
				return
			}
			continue
		}
		s.set(l)
		started()
		l.run(ctx)
		if ctx.Err() != nil {
			close(l.over)
			return // the loop stays, for the last checkpoint and readers
		}
		s.finish(l)
		close(l.over)
		last = d
	}
}

// finish stores what a loop observed last before another one reads it.
func (s *slot) finish(l *loop) {
	s.set(nil)
	s.version, s.unsaved = l.twin.Version, nil
	if !l.intentAt.IsZero() {
		s.unsaved = mustJSON(l.intent())
	}
	if o, ok := l.takeObserved(); ok {
		if err := s.m.cfg.Store.SaveObserved(context.Background(), map[string]twin.Observed{l.d.uid: o}); err != nil {
			s.m.cfg.Log.Warn("storing what was observed failed", "device", s.id, "error", err)
		}
	}
}

// forget removes what is left of a device that is gone.
func (s *slot) forget(ctx context.Context, d *device) {
	for topic := range s.published {
		s.publish(topic, nil)
	}
	clear(s.published)
	s.version, s.unsaved = 0, nil
	if err := s.m.cfg.Store.DropTwin(ctx, d.uid); err != nil && ctx.Err() == nil {
		// KeepTwins does it at the next start.
		s.m.cfg.Log.Warn("forgetting a twin failed", "device", s.id, "error", err)
	}
}

// leave gives the slot up unless it is wanted again.
func (s *slot) leave() bool {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	if s.m.wanted[s.id] != nil {
		return false
	}
	delete(s.m.slots, s.id)
	return true
}

// publish publishes a retained message, or with nil clears the topic.
func (s *slot) publish(topic string, payload []byte) {
	if payload != nil {
		s.published[topic] = true
	}
	if err := s.m.cfg.Publish(topic, payload, true); err != nil {
		s.m.cfg.Log.Warn("publishing failed", "topic", topic, "error", err)
	}
}
