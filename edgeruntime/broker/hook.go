package broker

import (
	"cmp"
	"log/slog"
	"slices"
	"strings"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/whimbrel-edge/whimbrel/protocols/mqtt"
)

// takeoverTimeout is how long a client waits for its former connection to end.
const takeoverTimeout = 10 * time.Second

// A hook is what mochi calls. Unless said otherwise, it does so in the goroutine
// that reads the client's connection.
type hook struct {
	mochi.HookBase
	b *Broker
}

func (h *hook) ID() string { return "whimbrel" }

func (h *hook) Provides(what byte) bool {
	switch what {
	case mochi.OnConnect, mochi.OnConnectAuthenticate, mochi.OnACLCheck, mochi.OnSessionEstablish, mochi.OnSessionEstablished,
		mochi.OnPacketRead, mochi.OnPacketEncode, mochi.OnPacketSent, mochi.OnPacketProcessed, mochi.OnSubscribe, mochi.OnPublish,
		mochi.OnWillSent, mochi.OnPublishDropped, mochi.OnRetainPublished, mochi.OnQosPublish, mochi.OnClientExpired:
		return true
	}
	return false
}

// OnConnect decides whether the client comes in. It returns holding
// Broker.sessions for writing, until the CONNACK: its session then exists and
// belongs to this connection.
func (h *hook) OnConnect(cl *mochi.Client, pk packets.Packet) error {
	c, v5 := connOf(cl), pk.ProtocolVersion == 5
	id, ok := h.b.authenticate(c, pk)
	if !ok {
		return h.refuse(cl, packets.ErrBadUsernameOrPassword, "unknown name or wrong password")
	}
	if pk.Connect.WillFlag {
		// mochi publishes wills unchecked, and past OnPublish.
		topic := pk.Connect.WillTopic
		if !id.mayPublish(topic) || mqtt.ParseTopic(topic).Kind == mqtt.Desired || isMapperSpeech(topic) && !isMapperBye(topic) || tooDeep(topic) {
			return h.refuse(cl, packets.ErrNotAuthorized, "last will on a topic it may not publish to: "+topic)
		}
	}
	for _, r := range id.Rules {
		if err := mqtt.ValidateFilter(r.Filter); err != nil {
			h.b.log.Error("mqtt: rule of an identity", "identity", id.Name, "filter", r.Filter, "error", err)
			return h.refuse(cl, packets.ErrImplementationSpecificError, "its rules are not valid")
		}
	}

	// Topic aliases towards the client lose the messages of a resumed session;
	// its Receive Maximum is kept by conn, mochi's count of it leaks.
	receiveMaximum := cl.Properties.Props.ReceiveMaximum
	cl.Properties.Props.TopicAliasMaximum = 0
	cl.Properties.Props.ReceiveMaximum = 0
	cl.State.Inflight.ResetSendQuota(0)

	if code, why := h.takeOver(c, cl.ID, id); why != "" {
		return h.refuse(cl, code, why)
	}
	c.identified(cl, id, v5, receiveMaximum)
	return nil
}

// takeOver ends the session's former connection, if there is one, and locks
// Broker.sessions. Only when that connection is gone for good does the new one
// begin: mochi's own way lets the old one's end remove the new one's session.
// why is "" when it worked.
func (h *hook) takeOver(c *conn, clientID string, id Identity) (code packets.Code, why string) {
	timeout := time.NewTimer(takeoverTimeout)
	defer timeout.Stop()
	for {
		c.sessions.lock(&h.b.sessions)
		old, ok := h.b.server.Clients.Get(clientID)
		if !ok {
			if h.b.server.Clients.Len() >= maxSessions {
				c.sessions.release(&h.b.sessions)
				return packets.ErrServerBusy, "too many sessions"
			}
			return packets.CodeSuccess, ""
		}
		oc := connOf(old)
		if oc.who().Name != id.Name {
			c.sessions.release(&h.b.sessions)
			return packets.ErrClientIdentifierNotValid, "its client id belongs to " + oc.who().Name
		}
		if oc.ended() {
			return packets.CodeSuccess, ""
		}
		c.sessions.release(&h.b.sessions)
		h.b.disconnect(oc, packets.ErrSessionTakenOver)
		select {
		case <-oc.done:
		case <-timeout.C:
			return packets.ErrServerBusy, "its former connection does not end"
		case <-h.b.ctx.Done():
			return packets.ErrServerUnavailable, "shutting down"
		}
	}
}

// refuse answers CONNECT and returns the error that makes mochi give up.
func (h *hook) refuse(cl *mochi.Client, code packets.Code, why string) error {
	h.b.log.Warn("mqtt: connection refused", "remote", cl.Net.Remote, "client", cl.ID, "username", string(cl.Properties.Username), "reason", why)
	if cl.Properties.ProtocolVersion < 5 {
		// What mochi's own table lacks (MQTT 3.1.1 section 3.2.2.3).
		switch code {
		case packets.ErrNotAuthorized:
			code = packets.Err3NotAuthorized
		case packets.ErrServerBusy, packets.ErrImplementationSpecificError:
			code = packets.Err3ServerUnavailable
		}
	}
	if err := h.b.server.SendConnack(cl, code, false, nil); err != nil {
		return err
	}
	return code
}

// OnConnectAuthenticate is asked after OnConnect, which has refused whom it did
// not know.
func (h *hook) OnConnectAuthenticate(cl *mochi.Client, _ packets.Packet) bool {
	return connOf(cl).who().Name != ""
}

func (b *Broker) authenticate(c *conn, pk packets.Packet) (Identity, bool) {
	if !pk.Connect.UsernameFlag && !pk.Connect.PasswordFlag && b.cfg.Anonymous && !c.named {
		return anonymous, true
	}
	// Who gives a name is held to it, also where others need none.
	if b.cfg.Auth == nil {
		return Identity{}, false
	}
	id, ok := b.cfg.Auth.Authenticate(string(pk.Connect.Username), string(pk.Connect.Password))
	return id, ok && id.Name != ""
}

// OnSessionEstablish comes right before mochi looks for the session to resume.
func (h *hook) OnSessionEstablish(cl *mochi.Client, _ packets.Packet) {
	connOf(cl).resume()
	old, ok := h.b.server.Clients.Get(cl.ID)
	if !ok {
		return
	}
	queued := slices.DeleteFunc(old.State.Inflight.GetAll(false), func(pk packets.Packet) bool {
		// What the client was publishing with QoS 2 it sends again; here it is
		// under an id of the former connection, see OnPacketRead.
		if typ := pk.FixedHeader.Type; typ == packets.Publish || typ == packets.Pubrel {
			return false
		}
		old.State.Inflight.Delete(pk.PacketID)
		return true
	})
	slices.SortFunc(queued, func(a, b packets.Packet) int {
		return cmp.Or(cmp.Compare(a.Created, b.Created), cmp.Compare(a.PacketID, b.PacketID))
	})
	number := h.b.order.renumber(len(queued))
	for i, pk := range queued {
		pk.Created = number + int64(i)
		old.State.Inflight.Set(pk)
	}
}

// OnSessionEstablished comes after CONNACK and the session's old messages.
func (h *hook) OnSessionEstablished(cl *mochi.Client, _ packets.Packet) {
	c := connOf(cl)
	c.resumed()
	h.b.log.Debug("mqtt: client connected", "remote", cl.Net.Remote, "client", cl.ID, "identity", c.who().Name)
}

// OnClientExpired removes what mochi forgets of an absent session. Called from
// mochi's clock.
func (h *hook) OnClientExpired(cl *mochi.Client) {
	h.b.server.UnsubscribeClient(cl)
	cl.ClearInflights()
}

// OnPacketRead looks at a packet before mochi does.
//
// mochi keeps what it sent and what it received under the packet id in one map.
// The two sides choose ids without knowledge of each other, so a client's
// PUBLISH would delete the message that was sent to it under the same id, and
// its SUBSCRIBE would be refused. mochi numbers from 1 upwards for each
// connection; so what the client numbers gets an id from the other end here, and
// its acknowledgement the right one again in OnPacketEncode.
func (h *hook) OnPacketRead(cl *mochi.Client, pk packets.Packet) (packets.Packet, error) {
	c := connOf(cl)
	switch pk.FixedHeader.Type {
	case packets.Publish:
		if topic := pk.TopicName; topic != "" && (mqtt.ValidateTopic(topic) != nil || tooDeep(topic)) {
			// mochi would ignore it and leave the client waiting.
			if cl.Properties.ProtocolVersion == 5 {
				_ = h.b.server.DisconnectClient(cl, packets.ErrTopicNameInvalid)
			}
			return pk, packets.ErrRejectPacket // the error that ends the connection
		}
		if strings.HasPrefix(strings.ToUpper(pk.TopicName), mochi.SysPrefix) {
			pk.TopicName = "$" + pk.TopicName // mochi would not answer; as it is, it is refused like any reserved topic
		}
		if pk.FixedHeader.Qos > 0 {
			pk.PacketID = innerID(c, cl, pk.PacketID)
		}
	case packets.Subscribe, packets.Unsubscribe:
		pk.PacketID = innerID(c, cl, pk.PacketID)
	case packets.Pubrel:
		if inner, ok := c.inner[pk.PacketID]; ok {
			pk.PacketID = inner
		}
	case packets.Puback, packets.Pubcomp:
		c.acked()
	case packets.Pubrec:
		if pk.ReasonCode >= packets.ErrUnspecifiedError.Code {
			c.acked()
		}
	}
	return pk, nil
}

// innerID is the id that mochi sees for one that the client chose. 0 stays: it is
// an error, which mochi knows.
func innerID(c *conn, cl *mochi.Client, id uint16) uint16 {
	if id == 0 {
		return 0
	}
	if inner, ok := c.inner[id]; ok {
		return inner // the client sends it again
	}
	// There is a free one: maxInflight is far below the number of ids.
	for inner := uint16(0xffff); inner > 0; inner-- {
		_, sent := cl.State.Inflight.Get(inner)
		if _, taken := c.outer[inner]; sent || taken {
			continue
		}
		if c.inner == nil {
			c.inner, c.outer = make(map[uint16]uint16), make(map[uint16]uint16)
		}
		c.inner[id], c.outer[inner] = inner, id
		return inner
	}
	return id
}

// OnPacketEncode sees every packet to a client, from whichever goroutine sends
// it. Acknowledgements come from the one that reads.
func (h *hook) OnPacketEncode(cl *mochi.Client, pk packets.Packet) packets.Packet {
	c := connOf(cl)
	if c == nil {
		return pk
	}
	switch pk.FixedHeader.Type {
	case packets.Connack:
		c.sessions.release(&h.b.sessions)
		if cl.Properties.ProtocolVersion == 5 && pk.ReasonCode == packets.CodeSuccess.Code {
			pk.Properties.MaximumPacketSize = maxPacket
		}
	case packets.Puback, packets.Pubrec, packets.Pubcomp, packets.Suback, packets.Unsuback:
		inner := pk.PacketID
		id, ok := c.outer[inner]
		if !ok {
			break
		}
		pk.PacketID = id
		if pk.FixedHeader.Type != packets.Pubrec || pk.ReasonCode >= packets.ErrUnspecifiedError.Code {
			delete(c.inner, id) // the exchange ends here
			delete(c.outer, inner)
		}
	}
	return pk
}

// OnPacketSent closes a connection after DISCONNECT; from any goroutine.
func (h *hook) OnPacketSent(cl *mochi.Client, pk packets.Packet, _ []byte) {
	if c := connOf(cl); c != nil && pk.FixedHeader.Type == packets.Disconnect {
		_ = c.Close()
	}
}

// OnACLCheck is asked for a PUBLISH, for each filter of a SUBSCRIBE, and for each
// delivery, then from any goroutine.
func (h *hook) OnACLCheck(cl *mochi.Client, topic string, write bool) bool {
	c := connOf(cl)
	if c == nil {
		return false
	}
	if !write {
		if !c.who().mayRead(topic) {
			return false
		}
		mapper, kind, ok := mqtt.ParseMapperTopic(topic)
		return !ok || h.b.cfg.Mappers == nil || h.b.cfg.Mappers.MayRead(c.peer.Load(), mapper, kind)
	}
	if cl.Properties.ProtocolVersion < 5 {
		return true // OnPublish decides: mochi would send a DISCONNECT that 3.1.1 does not have
	}
	if c.who().mayPublish(topic) {
		return true
	}
	h.b.received.Add(1)
	h.refusedPublish(c, cl, topic)
	return false
}

func (h *hook) refusedPublish(c *conn, cl *mochi.Client, topic string) {
	h.b.dropped.Add(1)
	if skipped, ok := c.refusals.allow(time.Now()); ok {
		h.b.log.LogAttrs(h.b.ctx, slog.LevelWarn, "mqtt: publish refused", slog.String("client", cl.ID), slog.String("identity", c.who().Name),
			slog.String("topic", topic), slog.Int("skipped", skipped))
		h.b.mistaken(c, cl, topic)
	}
}

// OnSubscribe makes mochi answer 0x8F to every filter that is not valid; its own
// check knows a part of them.
func (h *hook) OnSubscribe(cl *mochi.Client, pk packets.Packet) packets.Packet {
	if c := connOf(cl); c != nil {
		c.subscribing()
	}
	for i, sub := range pk.Filters {
		if mqtt.ValidateFilter(sub.Filter) != nil || tooDeep(sub.Filter) {
			pk.Filters[i].Filter = ""
		}
	}
	return pk
}

// OnRetainPublished slows a subscriber down to what its connection takes.
func (h *hook) OnRetainPublished(cl *mochi.Client, _ packets.Packet) {
	if c := connOf(cl); c != nil {
		c.retainedQueued()
	}
}

// OnPublish comes before a PUBLISH is acknowledged and delivered. When it lets
// one pass it holds Broker.sessions for reading until OnPacketProcessed.
func (h *hook) OnPublish(cl *mochi.Client, pk packets.Packet) (packets.Packet, error) {
	c := connOf(cl)
	if c == nil {
		return pk, nil // the edge's own
	}
	h.b.received.Add(1)
	if cl.Properties.ProtocolVersion < 5 && !c.who().mayPublish(pk.TopicName) {
		h.refusedPublish(c, cl, pk.TopicName)
		return pk, packets.CodeSuccessIgnore // acknowledged and gone
	}
	if t := mqtt.ParseTopic(pk.TopicName); t.Kind == mqtt.Desired {
		h.b.desired(c, pk, t.Device)
		return pk, packets.CodeSuccessIgnore
	}
	if mapper, kind, ok := mqtt.ParseMapperTopic(pk.TopicName); ok && h.b.cfg.Mappers != nil {
		h.b.fromMapper(c, cl, pk, mapper, kind)
		return pk, packets.ErrRejectPacket // mochi has nothing more to do with it
	}
	if err := h.b.route(pk); err != nil {
		h.refusedPublish(c, cl, pk.TopicName+" ("+err.Error()+")")
		if cl.Properties.ProtocolVersion == 5 && pk.FixedHeader.Qos > 0 {
			return pk, packets.ErrQuotaExceeded
		}
		return pk, packets.ErrRejectPacket // MQTT 3.1.1 has no answer for it: the client sends it again when it connects again
	}
	if pk.FixedHeader.Retain && len(pk.Payload) > 0 && h.b.server.Topics.Retained.Len() >= maxRetained {
		if _, replaces := h.b.server.Topics.Retained.Get(pk.TopicName); !replaces {
			pk.FixedHeader.Retain = false
			h.refusedPublish(c, cl, pk.TopicName+" (retained: too many)")
		}
	}
	c.sessions.rlock(&h.b.sessions)
	return pk, nil
}

// OnWillSent comes when a last will was published: there is nobody to tell that
// routes could not take it.
func (h *hook) OnWillSent(cl *mochi.Client, pk packets.Packet) {
	if err := h.b.route(pk); err != nil {
		h.b.dropped.Add(1)
		h.b.log.Warn("mqtt: a last will was not routed", "client", cl.ID, "topic", pk.TopicName, "error", err)
	}
}

// route hands a message that an app published to the routes.
func (b *Broker) route(pk packets.Packet) error {
	if b.cfg.Routes == nil || reserved(pk.TopicName) || !b.cfg.Routes.Wants(pk.TopicName) {
		return nil
	}
	return b.cfg.Routes.Published(b.ctx, pk.TopicName, pk.Properties.ContentType, pk.Payload)
}

// OnPacketProcessed comes after every packet.
func (h *hook) OnPacketProcessed(cl *mochi.Client, _ packets.Packet, _ error) {
	if c := connOf(cl); c != nil {
		c.sessions.release(&h.b.sessions)
	}
}

// OnQosPublish numbers a message that was just put into a session, before it is
// sent. From any goroutine; mochi also calls it for what it sends again.
func (h *hook) OnQosPublish(cl *mochi.Client, pk packets.Packet, _ int64, _ int) {
	if pk.FixedHeader.Type != packets.Publish || pk.FixedHeader.Dup {
		return
	}
	pk.Created = h.b.order.next()
	cl.State.Inflight.Set(pk)
}

// OnPublishDropped counts; from any goroutine.
func (h *hook) OnPublishDropped(*mochi.Client, packets.Packet) { h.b.dropped.Add(1) }

func tooDeep(topic string) bool { return strings.Count(topic, "/") >= maxLevels }
