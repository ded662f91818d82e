package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/mqtt"
)

const (
	watchEvery = 50 * time.Millisecond
	// DefaultAppearWithin is Config.AppearWithin when nothing is said.
	DefaultAppearWithin = 10 * time.Second
	// missedHeartbeats is how many heartbeats long a mapper may be silent.
	missedHeartbeats = 3
	// maxMappers bounds how many there are, each of which keeps two schemas.
	maxMappers = 256
)

// Config is what New needs.
type Config struct {
	Node string // the edge's name, for mappers to know
	// Publish publishes a message of the edge's to a topic. It waits for nobody.
	Publish func(topic string, payload []byte) error
	// Disconnect ends a connection. Unless nil.
	Disconnect func(conn uint64)
	// Announced is told of a mapper's info when it announces itself, before
	// anything is said to it, and with an error refuses it. Unless nil.
	Announced func(info mappers.Info) error
	NewID     func() string // of requests
	// AppearWithin is how long after a start a mapper that was there before is
	// waited for, before it counts as lost. 0: DefaultAppearWithin
	AppearWithin time.Duration
	Log          *slog.Logger // nil discards
}

// Message is what a mapper published.
type Message struct {
	Conn    uint64 // of the connection; every connection has its own
	Client  string // the client's id
	Clean   bool   // its session ends with the connection
	Local   bool   // nothing of it leaves this machine
	Mapper  string // of the topic; the connection may speak for this mapper
	Kind    mqtt.MapperTopicKind
	Payload []byte // the callee's to keep
	// Done is called once, from any goroutine: with nil when the message is to
	// be acknowledged, with an error when what it says could not be stored.
	Done func(error)
}

// Bridge holds the mappers that are processes of their own. Its methods may be
// called from any goroutine, Run once.
type Bridge struct {
	cfg Config
	log *slog.Logger

	stopped atomic.Bool // Run has ended

	mu      sync.RWMutex
	mappers map[string]*Mapper
}

// New returns a bridge without mappers.
func New(cfg Config) *Bridge {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Disconnect == nil {
		cfg.Disconnect = func(uint64) {}
	}
	if cfg.Announced == nil {
		cfg.Announced = func(mappers.Info) error { return nil }
	}
	if cfg.AppearWithin <= 0 {
		cfg.AppearWithin = DefaultAppearWithin
	}
	return &Bridge{cfg: cfg, log: cfg.Log, mappers: map[string]*Mapper{}}
}

// Add adds a mapper that has announced itself in a former life of the edge.
func (b *Bridge) Add(info mappers.Info) *Mapper {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.addLocked(info)
}

func (b *Bridge) addLocked(info mappers.Info) *Mapper {
	m := b.mappers[info.Name]
	if m == nil {
		m = newMapper(b, info)
		b.mappers[info.Name] = m
	}
	return m
}

// Mapper returns a mapper that has announced itself, nil when there is none of
// that name.
func (b *Bridge) Mapper(name string) *Mapper {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.mappers[name]
}

// Mappers returns all, by name.
func (b *Bridge) Mappers() []*Mapper {
	b.mu.RLock()
	defer b.mu.RUnlock()
	out := make([]*Mapper, 0, len(b.mappers))
	for _, name := range slices.Sorted(maps.Keys(b.mappers)) {
		out = append(out, b.mappers[name])
	}
	return out
}

// Run watches over the mappers until ctx ends, and returns nil. Devices that are
// closed after that are closed because the edge stops.
func (b *Bridge) Run(ctx context.Context) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			b.stopped.Store(true)
			return nil
		case <-tick.C:
		}
		now := time.Now()
		// Who was not heard while this process stood still is not lost.
		stood := max(now.Sub(last)-10*watchEvery, 0)
		last = now
		for _, m := range b.Mappers() {
			m.watch(now, stood)
		}
	}
}

// Message takes what a mapper published. It does not wait.
func (b *Bridge) Message(msg Message) {
	var err error
	handled := true
	switch {
	case !msg.Kind.FromMapper():
		err = models.Errorf(models.KindNotFound, "mappers publish no %q, but announce, heartbeat, state, batch, answer and bye", msg.Kind)
	case msg.Kind == mqtt.MapperAnnounce:
		err = b.announce(msg)
	case msg.Kind == mqtt.MapperBatch:
		handled, err = b.batch(msg)
	default:
		err = b.say(msg)
	}
	if err != nil {
		b.complain(msg, err)
	}
	if handled {
		// Also what is wrong is acknowledged: it would be as wrong again.
		msg.Done(nil)
	}
}

// complain tells a mapper what is wrong with its message.
func (b *Bridge) complain(msg Message, err error) {
	b.log.Warn("a mapper's message is refused", "mapper", msg.Mapper, "client", msg.Client, "topic", msg.Kind, "error", err)
	p := problem{Client: msg.Client, Topic: mqtt.MapperTopic(msg.Mapper, msg.Kind), Detail: cut(err.Error())}
	var e *models.Error
	if errors.As(err, &e) {
		p.Errors = e.Fields
	}
	b.publish(msg.Mapper, mqtt.MapperProblem, p)
}

func (b *Bridge) publish(mapper string, kind mqtt.MapperTopicKind, v any) {
	payload, err := json.Marshal(v)
	if err == nil {
		err = b.cfg.Publish(mqtt.MapperTopic(mapper, kind), payload)
	}
	if err != nil {
		b.log.Error("telling a mapper failed", "mapper", mapper, "topic", kind, "error", err)
	}
}

// announce begins a session.
func (b *Bridge) announce(msg Message) error {
	a, err := decodeAnnounce(msg.Payload)
	if err != nil {
		return err
	}
	if why := models.CheckLabelName(msg.Mapper); why != "" {
		return models.Errorf(models.KindInvalid, "mapper %q: %s", msg.Mapper, why)
	}
	if !msg.Clean {
		return models.Errorf(models.KindInvalid, "a mapper connects with a clean session that ends with the connection: an old write must not come late")
	}
	info := mappers.Info{Name: msg.Mapper, Version: a.Version, Description: a.Description, Connection: a.Connection, Address: a.Address, Property: a.Property}
	b.mu.RLock()
	m, full := b.mappers[msg.Mapper], len(b.mappers) >= maxMappers
	b.mu.RUnlock()
	if m != nil {
		if client, taken := m.takenBy(msg.Conn); taken {
			return models.Errorf(models.KindConflict, "the mapper runs already, as client %s; one at a time", client)
		}
	} else if full {
		return models.Errorf(models.KindTooMany, "there are %d mappers already", maxMappers)
	}
	if m == nil || !sameInfo(m.Info(), info) {
		if err := b.cfg.Announced(info); err != nil {
			return fmt.Errorf("the edge cannot take the mapper: %w", err)
		}
	}
	b.mu.Lock()
	m = b.addLocked(info)
	b.mu.Unlock()
	return m.begin(info, msg, a)
}

func sameInfo(a, b mappers.Info) bool {
	return a.Version == b.Version && a.Description == b.Description && string(a.Connection) == string(b.Connection) && string(a.Address) == string(b.Address) && string(a.Property) == string(b.Property)
}

// say handles what needs a session and is not stored.
func (b *Bridge) say(msg Message) error {
	m := b.Mapper(msg.Mapper)
	if m == nil || !m.heard(msg.Conn) {
		return errNoSession
	}
	switch msg.Kind {
	case mqtt.MapperHeartbeat:
		return decodeNothing(msg.Payload)
	case mqtt.MapperBye:
		m.end(msg.Conn, "it said bye")
		return decodeNothing(msg.Payload)
	case mqtt.MapperState:
		s, err := decodeState(msg.Payload)
		if err != nil {
			return err
		}
		return m.state(s)
	case mqtt.MapperAnswer:
		a, err := decodeAnswer(msg.Payload)
		if err != nil {
			return err
		}
		m.answer(a)
	}
	return nil
}

var errNoSession = models.Errorf(models.KindConflict, "announce first: this connection has no session")

// batch takes a batch; handled is false when its Done is called later.
//
// A client that has reconnected sends what was not acknowledged before it
// announces itself again. So a batch needs no session, as long as no other
// connection has one; that it belongs to the present configuration of its
// device, the assignment tells.
func (b *Bridge) batch(msg Message) (handled bool, err error) {
	m := b.Mapper(msg.Mapper)
	if m == nil {
		return true, errNoSession
	}
	if !m.heard(msg.Conn) {
		if client, taken := m.takenBy(msg.Conn); taken {
			return true, models.Errorf(models.KindConflict, "the mapper runs already, as client %s; one at a time", client)
		}
	}
	got, err := decodeBatch(msg.Payload)
	if err != nil {
		return true, err
	}
	return m.batch(msg, got)
}

// Gone is told that a connection has ended.
func (b *Bridge) Gone(conn uint64) {
	for _, m := range b.Mappers() {
		m.end(conn, "its connection ended")
	}
}

// MayRead reports whether a connection is to get a message that the edge is
// publishing to a topic of a mapper's: what is said in a session is for the
// connection that has it, so that a second process never writes what the first
// one writes too.
func (b *Bridge) MayRead(conn uint64, mapper string, kind mqtt.MapperTopicKind) bool {
	m := b.Mapper(mapper)
	if m == nil || kind == mqtt.MapperProblem || kind.FromMapper() {
		return true
	}
	return m.addresses(conn)
}
