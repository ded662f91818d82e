package broker

import (
	"sync"
	"sync/atomic"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/whimbrel-edge/whimbrel/protocols/mqtt"
)

// resendAfter is how long after a message of a mapper's could not be stored its
// connection is ended: the client sends the message again when it is back.
const resendAfter = 30 * time.Second

// Mappers takes what mappers in processes of their own say.
type Mappers interface {
	// Message takes a message to mappers/{mapper}/{kind}, of a kind that mappers
	// publish, from a connection that may. It does not wait: the client's next
	// message is read when it returns.
	Message(MapperMessage)
	// Gone is told of the end of every connection that had a Message.
	Gone(conn uint64)
	// MayRead reports whether a connection is to get a message that is being
	// published to such a topic. Called from many goroutines.
	MayRead(conn uint64, mapper string, kind mqtt.MapperTopicKind) bool
}

// MapperMessage is a message that a mapper published.
type MapperMessage struct {
	Conn    uint64 // of the connection; every connection has its own
	Client  string // the client's id
	Clean   bool   // its session ends with the connection
	Local   bool   // nothing of it leaves this machine
	Mapper  string
	Kind    mqtt.MapperTopicKind
	Payload []byte // the callee's to keep
	// Done is to be called once, from any goroutine: with nil the message is
	// acknowledged, with an error it is not, and comes again.
	Done func(error)
}

// peers are the connections that speak for mappers.
type peers struct {
	last atomic.Uint64 // number given out

	mu   sync.Mutex
	byID map[uint64]*conn
}

// number returns the number of a connection, which has one from now on.
func (p *peers) number(c *conn) uint64 {
	if id := c.peer.Load(); id != 0 {
		return id
	}
	id := p.last.Add(1)
	c.peer.Store(id)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.byID == nil {
		p.byID = map[uint64]*conn{}
	}
	p.byID[id] = c
	return id
}

func (p *peers) get(id uint64) *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.byID[id]
}

func (p *peers) remove(id uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.byID, id)
}

// Disconnect ends a connection that MapperMessage named, if it is there still.
// It does not wait.
func (b *Broker) Disconnect(conn uint64) {
	if c := b.peers.get(conn); c != nil {
		b.disconnect(c, packets.ErrUnspecifiedError)
	}
}

// gone tells of the end of a connection.
func (b *Broker) gone(c *conn) {
	id := c.peer.Load()
	if id == 0 {
		return
	}
	b.peers.remove(id)
	b.cfg.Mappers.Gone(id)
}

// mistaken hands over that a mapper publishes to a topic of its own name that
// there is not, so that it is told: a misspelt topic is a message that is missing.
func (b *Broker) mistaken(c *conn, cl *mochi.Client, topic string) {
	mapper, kind, ok := mqtt.ParseMapperTopic(topic)
	if !ok || b.cfg.Mappers == nil || kind.FromMapper() || !c.who().mayPublish(mqtt.MapperTopic(mapper, mqtt.MapperAnnounce)) {
		return
	}
	b.cfg.Mappers.Message(MapperMessage{Conn: b.peers.number(c), Client: cl.ID, Clean: !keepsSession(cl), Local: c.local, Mapper: mapper, Kind: kind, Done: func(error) {}})
}

// fromMapper hands a mapper's message over. The message is acknowledged when it
// is done with, which may be after later ones: the client waits for each by its
// id. So neither a slow disk nor a slow device holds up the others.
func (b *Broker) fromMapper(c *conn, cl *mochi.Client, pk packets.Packet, mapper string, kind mqtt.MapperTopicKind) {
	if pk.FixedHeader.Qos > 1 {
		b.log.Warn("mqtt: a mapper publishes with QoS 2; its connection is ended", "client", cl.ID, "topic", pk.TopicName)
		b.disconnect(c, packets.ErrQosNotSupported)
		return
	}
	done := func(error) {}
	if pk.FixedHeader.Qos == 1 {
		id := pk.PacketID // mochi is not told of it any more
		if outer, ok := c.outer[id]; ok {
			delete(c.outer, id)
			delete(c.inner, outer)
			id = outer
		}
		done = func(err error) {
			if err == nil {
				_, _ = c.Write([]byte{packets.Puback << 4, 2, byte(id >> 8), byte(id)}) // one that has ended has no use for it
				return
			}
			c.resend.Do(func() {
				b.log.Warn("mqtt: what a mapper said cannot be stored; it is to send it again", "client", cl.ID, "error", err)
				time.AfterFunc(resendAfter, func() { b.disconnect(c, packets.ErrUnspecifiedError) }) // harmless where it has ended
			})
		}
	}
	b.cfg.Mappers.Message(MapperMessage{Conn: b.peers.number(c), Client: cl.ID, Clean: !keepsSession(cl), Local: c.local, Mapper: mapper, Kind: kind,
		Payload: pk.Payload, Done: done})
}
