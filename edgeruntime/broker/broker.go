package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/whimbrel-edge/whimbrel/protocols/mqtt"
)

const (
	maxPacket   = 1 << 20            // bytes in one packet
	maxPending  = 1024               // messages queued for one client inside mochi; above, they are dropped and counted
	maxInflight = 8192               // unacknowledged messages per session; above, new ones are dropped and counted
	maxClients  = 1024               // connected; above, CONNECT is refused
	maxSessions = 2048               // connected or absent; above, a client without a session is refused
	maxRetained = 65536              // retained messages, those of the edge included; above, apps add no more
	maxLevels   = 128                // levels of a topic: mochi's matching is quadratic in them
	sessionLife = 7 * 24 * time.Hour // of an absent client's session
	recheck     = time.Second        // between two looks at whether the connected may still be so
)

// Config is what New needs.
type Config struct {
	Addr string // host:port to listen on; port 0 takes a free one
	// Anonymous lets clients in that give neither name nor password. They read
	// the devices, write desired values and use topics of their own. Only for a
	// loopback Addr.
	Anonymous bool
	Auth      Authenticator // nil: nobody has a name
	Devices   Devices
	Mappers   Mappers // nil: nobody may speak for a mapper
	Routes    Routes  // nil: none
	Log       *slog.Logger
}

// Routes take what apps publish on topics of their own.
type Routes interface {
	// Wants reports whether Published is to be asked.
	Wants(topic string) bool
	// Published takes a message. When it returns nil the publisher is told that it
	// was taken; with an error the message goes nowhere, and who published it
	// with QoS 1 or 2 is not told so, or told that it was not. It does not keep payload.
	Published(ctx context.Context, topic, contentType string, payload []byte) error
}

// Devices takes what apps ask of devices.
type Devices interface {
	// Desired applies a desired merge patch, a JSON object that may have a
	// "$id", to the device with that local id, on behalf of the identity called
	// by, which is an app's in a pod or not. What it returns is published as the answer: the result document, or
	// the problem that err is (models.ProblemOf). When err is nil the patch is
	// durable: its publisher is told so next. Called from many goroutines; ctx
	// ends with Run. Desired may keep patch.
	Desired(ctx context.Context, device, by string, app bool, patch []byte) (result []byte, err error)
}

// A Broker is an MQTT broker. Its methods may be called from any goroutine.
type Broker struct {
	cfg      Config
	log      *slog.Logger
	ctx      context.Context // Run's; set before the first connection is served
	listener *listener
	server   *mochi.Server
	edge     *mochi.Client // publishes for the edge itself
	order    ordering
	peers    peers

	// sessions keeps a message from falling between a session's old connection
	// and its new one: held for reading while a message is handed to sessions,
	// for writing while a session changes hands. Neither side blocks on a client
	// meanwhile. Never locked twice by one goroutine.
	sessions sync.RWMutex

	received, dropped atomic.Uint64
}

// New opens the address and returns a broker whose Run is to be called: Run
// serves the address and closes it.
func New(cfg Config) (*Broker, error) {
	if cfg.Auth == nil && !cfg.Anonymous {
		return nil, errors.New("mqtt broker: neither an authenticator nor anonymous access: nobody could connect")
	}
	if cfg.Devices == nil {
		return nil, errors.New("mqtt broker: no devices")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	ln, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("mqtt broker: %w", err)
	}
	// The address that was opened decides, not how it was written.
	if tcp, ok := ln.Addr().(*net.TCPAddr); cfg.Anonymous && (!ok || !tcp.IP.IsLoopback()) {
		_ = ln.Close()
		return nil, fmt.Errorf("mqtt broker: anonymous access on %s: only a loopback address may have it", cfg.Addr)
	}

	caps := mochi.NewDefaultServerCapabilities()
	caps.MaximumClients = maxClients
	caps.MaximumClientWritesPending = maxPending
	caps.MaximumInflight = maxInflight
	caps.MaximumPacketSize = maxPacket
	caps.MaximumSessionExpiryInterval = uint32(sessionLife / time.Second)
	// The default drops whatever is older than a day, retained values included.
	caps.MaximumMessageExpiryInterval = 0
	// The access check comes before an alias is resolved, so there are none.
	caps.TopicAliasMaximum = 0
	// Otherwise a PUBLISH with user properties gets a PUBACK that is not legal.
	caps.Compatibilities.NoInheritedPropertiesOnAck = true
	// Otherwise a client is cut off before it has read why; hook.OnPacketSent
	// closes instead.
	caps.Compatibilities.PassiveClientDisconnect = true

	b := &Broker{cfg: cfg, log: cfg.Log, ctx: context.Background()}
	b.server = mochi.New(&mochi.Options{
		Capabilities:             caps,
		ClientNetWriteBufferSize: 1,  // no buffering: conn relies on one packet per Write, and buffers itself
		SysTopicResendInterval:   60, // seconds; each time stops the world to read memory statistics
		Logger:                   slog.New(newMochiLog(cfg.Log.Handler())),
	})
	b.listener = newListener(b, ln)
	b.edge = b.server.NewClient(nil, "edge", "\x00edge", true) // an id that no client can have
	b.edge.Properties.ProtocolVersion = 5
	if err := errors.Join(b.server.AddHook(&hook{b: b}, nil), b.server.AddListener(b.listener)); err != nil {
		_ = ln.Close()
		return nil, fmt.Errorf("mqtt broker: %w", err)
	}
	return b, nil
}

// Addr is the host:port that the broker listens on.
func (b *Broker) Addr() string { return b.listener.Address() }

// Listen serves a further address, host:port, until end is called or Run ends.
// Clients need a name there.
func (b *Broker) Listen(addr string) (end func(), err error) {
	if end, err = b.listener.listen(addr); err != nil {
		return nil, fmt.Errorf("mqtt broker: %w", err)
	}
	return end, nil
}

// Run serves clients until ctx ends, then says goodbye to them and returns nil.
// An error is one that keeps the broker from serving at all. Run is called once.
func (b *Broker) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	b.ctx = ctx
	if err := b.server.Serve(); err != nil {
		_ = b.listener.ln.Close()
		return fmt.Errorf("mqtt broker: serve: %w", err)
	}
	look := time.NewTicker(recheck)
	defer look.Stop()
	var err error
	for ctx.Err() == nil && err == nil {
		select {
		case <-ctx.Done():
		case err = <-b.listener.failed:
			err = fmt.Errorf("mqtt broker: accept: %w", err)
		case <-look.C:
			b.endRevoked()
		}
	}
	cancel()
	if cerr := b.server.Close(); cerr != nil && err == nil {
		err = fmt.Errorf("mqtt broker: close: %w", cerr)
	}
	return err
}

// Publish publishes for the edge itself, to any topic, with QoS 1. A retained
// message is served to later subscribers; an empty retained one clears the
// topic. Publish waits for nobody: what a subscriber cannot take is queued, then
// dropped for that subscriber. It does not keep payload. It may be called before
// Run.
func (b *Broker) Publish(topic string, payload []byte, retain bool) error {
	return b.publish(topic, payload, 1, retain, packets.Properties{})
}

// Message is one to publish, with what MQTT 5 has besides the payload.
type Message struct {
	Payload     []byte
	QoS         byte // 0, 1 or 2: at most
	Retain      bool
	ContentType string
	Properties  [][2]string // users' own: name, value
}

// PublishMessage publishes for the edge itself, as Publish does. Subscribers with MQTT
// 3.1.1 get the payload alone.
func (b *Broker) PublishMessage(topic string, m Message) error {
	p := packets.Properties{}
	if utf8.ValidString(m.ContentType) { // else subscribers could not read the packet; a header of HTTP may have any bytes
		p.ContentType = m.ContentType
	}
	for _, u := range m.Properties {
		p.User = append(p.User, packets.UserProperty{Key: u[0], Val: u[1]})
	}
	return b.publish(topic, m.Payload, m.QoS, m.Retain, p)
}

func (b *Broker) publish(topic string, payload []byte, qos byte, retain bool, props packets.Properties) error {
	if err := mqtt.ValidateTopic(topic); err != nil {
		return fmt.Errorf("mqtt publish to %q: %w", topic, err)
	}
	b.sessions.RLock()
	defer b.sessions.RUnlock()
	err := b.server.InjectPacket(b.edge, packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: qos, Retain: retain},
		PacketID:    uint16(min(qos, 1)), // asked for from QoS 1 on, and not used
		TopicName:   topic,
		Payload:     bytes.Clone(payload),
		Properties:  props,
	})
	if err != nil {
		return fmt.Errorf("mqtt publish to %q: %w", topic, err)
	}
	return nil
}

// Clients is how many clients are connected.
func (b *Broker) Clients() int { return int(atomic.LoadInt64(&b.server.Info.ClientsConnected)) }

// Received is how many messages clients have published, refused ones included.
func (b *Broker) Received() uint64 { return b.received.Load() }

// Dropped is how many messages were refused, and how many deliveries were
// dropped because a subscriber did not keep up.
func (b *Broker) Dropped() uint64 {
	return b.dropped.Load() + uint64(atomic.LoadInt64(&b.server.Info.InflightDropped))
}

// An ordering numbers queued messages. mochi sends a session's messages again
// sorted by the low 16 bits of their Created time in seconds, which is no order
// at all; it uses Created for nothing else here (MaximumMessageExpiryInterval is
// 0), so the number goes there.
type ordering struct {
	mu   sync.Mutex
	last int64
}

// next is the number of a new message.
func (o *ordering) next() int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last++
	return o.last
}

// renumber reserves n numbers, n below 65,536, whose low 16 bits rise too, for
// messages that are about to be sorted by those. It returns the first.
func (o *ordering) renumber(n int) int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	first := (o.last>>16 + 1) << 16
	o.last = first + int64(n)
	return first
}
