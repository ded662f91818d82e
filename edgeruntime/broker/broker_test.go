package broker

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/mochi-mqtt/server/v2/packets"
)

func TestRetained(t *testing.T) {
	b := start(t, nil)
	const topic = "devices/boiler-1/properties/temperature"
	payload := []byte(`{"value":71.5}`)
	if err := b.Publish(topic, payload, true); err != nil {
		t.Fatal(err)
	}
	copy(payload, "xxxxxxxxxxxxxx") // Publish has its own
	c := pahoConnect(t, b, "", nil)
	done(t, c.Subscribe("devices/#", 1, nil))
	c.want(t, topic+` {"value":71.5} (retained)`)
	if out, err := tool(t, b, "mosquitto_sub", "-t", "devices/+/properties/#", "-C", "1", "-v"); err != nil || out != topic+` {"value":71.5}` {
		t.Errorf("mosquitto_sub: %v: %s", err, out)
	}

	if err := b.Publish(topic, nil, true); err != nil {
		t.Fatal(err)
	}
	c.want(t, topic+" ")
	late := pahoConnect(t, b, "", nil)
	done(t, late.Subscribe("devices/#", 1, nil))
	if err := b.Publish("devices/boiler-1/state", []byte("{}"), false); err != nil {
		t.Fatal(err)
	}
	late.want(t, "devices/boiler-1/state {}")

	for _, bad := range []string{"", "a/+", "#", "a\x00"} {
		if err := b.Publish(bad, nil, false); err == nil {
			t.Errorf("published to %q", bad)
		}
	}
}

// A subscriber that meets more retained messages than any queue holds gets them
// all.
func TestManyRetained(t *testing.T) {
	b := start(t, nil)
	const n = 6000
	for i := range n {
		if err := b.Publish(fmt.Sprintf("devices/d%d/properties/p", i), []byte(strings.Repeat("v", 1000)), true); err != nil {
			t.Fatal(err)
		}
	}
	for _, qos := range []byte{0, 1} {
		c, _ := connect(t, b, 4, "", "", nil)
		c.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, PacketID: 1,
			Filters: packets.Subscriptions{{Filter: "devices/#", Qos: qos}}})
		c.expect(packets.Suback)
		seen := make(map[string]bool)
		for len(seen) < n {
			pk := c.expect(packets.Publish)
			if seen[pk.TopicName] {
				t.Fatalf("%s twice", pk.TopicName)
			}
			seen[pk.TopicName] = true
			if qos > 0 {
				c.ack(pk.PacketID)
			}
		}
	}
	if b.Dropped() != 0 {
		t.Errorf("dropped %d", b.Dropped())
	}
}

func TestAppsAmongThemselves(t *testing.T) {
	b := start(t, nil)
	three := pahoConnect(t, b, "", func(o *paho.ClientOptions) { o.SetClientID("three") })
	done(t, three.Subscribe("greetings/#", 2, nil))
	for qos := range byte(3) {
		done(t, three.Publish("greetings/self", qos, false, "hello"))
		three.want(t, "greetings/self hello")
	}
	if out, err := tool(t, b, "mosquitto_pub", "-V", "5", "-q", "2", "-t", "greetings/five", "-m", "hi"); err != nil {
		t.Fatalf("mosquitto_pub: %v: %s", err, out)
	}
	three.want(t, "greetings/five hi")
	if got := b.Received(); got != 4 {
		t.Errorf("received %d, want 4", got)
	}
	eventually(t, "one client is connected", func() bool { return b.Clients() == 1 })
}

// What the edge publishes for others has a quality of service, and what MQTT 5 has
// besides.
func TestPublishMessage(t *testing.T) {
	b := start(t, nil)
	three := pahoConnect(t, b, "", func(o *paho.ClientOptions) { o.SetClientID("three") })
	got := make(chan paho.Message, 4)
	done(t, three.Subscribe("m/#", 2, func(_ paho.Client, m paho.Message) { got <- m }))
	five, _ := connect(t, b, 5, "", "five", nil)
	five.subscribe(1, "m/#", 0)
	for qos := range byte(3) {
		if err := b.PublishMessage("m/x", Message{Payload: []byte("hi"), QoS: qos, ContentType: "text/plain", Properties: [][2]string{{"Idempotency-Key", "k1"}}}); err != nil {
			t.Fatal(err)
		}
		if m := <-got; m.Qos() != qos || string(m.Payload()) != "hi" {
			t.Errorf("QoS %d of %d", m.Qos(), qos)
		}
		pk := five.expect(packets.Publish)
		if p := pk.Properties; p.ContentType != "text/plain" || len(p.User) != 1 || p.User[0] != (packets.UserProperty{Key: "Idempotency-Key", Val: "k1"}) {
			t.Errorf("properties %+v", p)
		}
	}
	// A header of HTTP may have what MQTT's texts may not.
	if err := b.PublishMessage("m/x", Message{ContentType: "text/\xff"}); err != nil {
		t.Fatal(err)
	}
	if pk := five.expect(packets.Publish); pk.Properties.ContentType != "" {
		t.Errorf("content type %q", pk.Properties.ContentType)
	}
}

// Seven bytes that make mochi's decoder index out of range.
func TestMalformedSubscribe(t *testing.T) {
	b := start(t, nil)
	bystander, _ := connect(t, b, 5, "", "bystander", nil)
	bystander.subscribe(1, "x", 0)
	for i := range 3 {
		c, _ := connect(t, b, 5, "", fmt.Sprintf("attacker-%d", i), nil)
		c.write([]byte{0x82, 0x05, 0x00, 0x01, 0x00, 0x00, 0x00})
		c.ends()
	}
	bystander.publish(0, "x", "alive", false)
	if pk := bystander.expect(packets.Publish); string(pk.Payload) != "alive" {
		t.Errorf("received %s", pk.Payload)
	}
	eventually(t, "only the bystander is left", func() bool { return b.Clients() == 1 && b.server.Clients.Len() == 1 })
	if !strings.Contains(b.log.String(), "a packet broke its connection") {
		t.Error("the panic is not in the log")
	}
}

// A client that takes ten messages at a time and acknowledges late gets all of
// them, ten at a time.
func TestReceiveMaximum(t *testing.T) {
	b := start(t, nil)
	c, _ := connect(t, b, 5, "", "slow", func(pk *packets.Packet) { pk.Properties.ReceiveMaximum = 10 })
	c.subscribe(1, "x", 1)
	const n = 3000
	for i := range n {
		if err := b.Publish("x", fmt.Append(nil, i), false); err != nil {
			t.Fatal(err)
		}
		if i%500 == 499 { // leave mochi's own queue room; it holds maxPending
			eventually(t, "queue taken over", func() bool { return queued(b, "slow") >= i+1 })
		}
	}
	for i := 0; i < n; i += 10 {
		var ids []uint16
		for j := range 10 {
			pk := c.expect(packets.Publish)
			if string(pk.Payload) != fmt.Sprint(i+j) {
				t.Fatalf("message %s, want %d", pk.Payload, i+j)
			}
			ids = append(ids, pk.PacketID)
		}
		if i == 0 {
			c.ping() // nothing more comes without acknowledgements
		}
		for _, id := range ids {
			c.ack(id)
		}
	}
	c.ping()
}

// queued is how many messages a client's connection has been given in all, sent
// or held back.
func queued(b *testBroker, clientID string) int {
	cl, ok := b.server.Clients.Get(clientID)
	if !ok {
		return 0
	}
	c := connOf(cl)
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.unacked + len(c.held)
}

// A PUBACK carries nothing of its PUBLISH.
func TestUserPropertyPuback(t *testing.T) {
	b := start(t, nil)
	c, _ := connect(t, b, 5, "", "c", nil)
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1}, PacketID: 3, TopicName: "x"}
	pk.Properties.User = []packets.UserProperty{{Key: "k", Val: "v"}}
	c.send(pk)
	ack := c.expect(packets.Puback)
	if ack.PacketID != 3 || ack.ReasonCode != 0 || len(ack.Properties.User) != 0 {
		t.Errorf("PUBACK %d, reason %#x, properties %v", ack.PacketID, ack.ReasonCode, ack.Properties.User)
	}
}

func persistent(version byte) func(*packets.Packet) {
	return func(pk *packets.Packet) {
		pk.Connect.Clean = false
		if version == 5 {
			pk.Properties.SessionExpiryInterval, pk.Properties.SessionExpiryIntervalFlag = 3600, true
			pk.Properties.TopicAliasMaximum = 10 // with it mochi loses what is queued
		}
	}
}

// What was published while a client was away arrives in order when it is back,
// before what is published then; twice, as the first time it does not
// acknowledge.
func TestRedeliveryInOrder(t *testing.T) {
	for _, version := range []byte{4, 5} {
		b := start(t, nil)
		c, _ := connect(t, b, version, "app", "away", persistent(version))
		c.subscribe(1, "apps/app/#", 1)
		c.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect}})
		c.ends()
		const n = 200
		for i := range n {
			if err := b.Publish("apps/app/x", fmt.Append(nil, i), false); err != nil {
				t.Fatal(err)
			}
		}
		first, next := 0, n
		for round := range 3 {
			c, ack := connect(t, b, version, "app", "away", persistent(version))
			if !ack.SessionPresent {
				t.Fatalf("version %d: the session is not present", version)
			}
			// SUBSCRIBE with the packet id of a message that is on its way.
			c.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, PacketID: 1,
				Filters: packets.Subscriptions{{Filter: "apps/app/#", Qos: 1}}})
			if err := b.Publish("apps/app/x", fmt.Append(nil, next), false); err != nil {
				t.Fatal(err)
			}
			next++
			subscribed := false
			for want := first; want < next; {
				pk := c.receive()
				if pk.FixedHeader.Type == packets.Suback {
					if subscribed = true; pk.PacketID != 1 || pk.ReasonCodes[0] != 1 {
						t.Fatalf("version %d: SUBACK %d %#x", version, pk.PacketID, pk.ReasonCodes)
					}
					continue
				}
				if string(pk.Payload) != fmt.Sprint(want) || pk.TopicName != "apps/app/x" {
					t.Fatalf("version %d, round %d: message %s on %q, want %d", version, round, pk.Payload, pk.TopicName, want)
				}
				want++
				// Acknowledging a few lets new messages have lower packet ids
				// than old ones.
				if round == 2 || want <= 10 {
					c.ack(pk.PacketID)
					first = want
				}
			}
			if !subscribed {
				if pk := c.expect(packets.Suback); pk.PacketID != 1 || pk.ReasonCodes[0] != 1 {
					t.Fatalf("version %d: SUBACK %d %#x", version, pk.PacketID, pk.ReasonCodes)
				}
			}
			c.ping()
			c.nc.Close()
		}
		c, _ = connect(t, b, version, "app", "away", persistent(version))
		c.ping() // everything was acknowledged: nothing comes
		c.nc.Close()
		b.stop()
	}
}

// A client's PUBLISH under the packet id of a message it has not acknowledged
// leaves that message alone.
func TestPacketIDsOfBothSides(t *testing.T) {
	b := start(t, nil)
	for qos := byte(1); qos <= 2; qos++ {
		id := fmt.Sprintf("c%d", qos)
		c, _ := connect(t, b, 4, "app", id, persistent(4))
		c.subscribe(9, "apps/app/#", 1)
		if err := b.Publish("apps/app/x", []byte("kept"), false); err != nil {
			t.Fatal(err)
		}
		sent := c.expect(packets.Publish)
		c.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: qos}, PacketID: sent.PacketID, TopicName: "apps/app"})
		answers := []byte{packets.Puback, packets.Publish}
		if qos == 2 {
			answers = []byte{packets.Pubrec, packets.Publish, packets.Pubcomp}
		}
		for i, typ := range answers {
			if typ == packets.Pubcomp {
				c.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pubrel, Qos: 1}, PacketID: sent.PacketID})
			}
			pk := c.expect(typ)
			if typ == packets.Publish {
				c.ack(pk.PacketID)
			} else if pk.PacketID != sent.PacketID {
				t.Errorf("QoS %d: answer %d has id %d, want %d", qos, i, pk.PacketID, sent.PacketID)
			}
		}
		if qos == 2 { // another one, not completed
			c.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 2}, PacketID: 77, TopicName: "apps/app/x/y"})
			c.expect(packets.Pubrec)
			c.ack(c.expect(packets.Publish).PacketID)
			c.ping()
		}
		c.nc.Close()
		c, _ = connect(t, b, 4, "app", id, persistent(4))
		if pk := c.expect(packets.Publish); string(pk.Payload) != "kept" {
			t.Errorf("QoS %d: redelivered %s %q", qos, pk.TopicName, pk.Payload)
		}
		if qos == 2 {
			c.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pubrel, Qos: 1}, PacketID: 77})
			if pk := c.expect(packets.Pubcomp); pk.PacketID != 77 {
				t.Errorf("PUBCOMP %d, want 77", pk.PacketID)
			}
		}
		c.nc.Close()
	}
}

// A second connection with a client id ends the first, which is told so, and
// keeps working itself.
func TestTakeover(t *testing.T) {
	b := start(t, nil)
	for _, version := range []byte{4, 5} {
		first, _ := connect(t, b, version, "app", "same", nil)
		second, ack := connect(t, b, version, "app", "same", nil)
		if ack.ReasonCode != 0 {
			t.Fatalf("version %d: CONNACK %#x", version, ack.ReasonCode)
		}
		if version == 5 {
			if pk := first.expect(packets.Disconnect); pk.ReasonCode != 0x8e {
				t.Errorf("DISCONNECT %#x, want session taken over", pk.ReasonCode)
			}
		}
		first.ends()
		second.subscribe(1, "apps/app/#", 0)
		second.publish(0, "apps/app/x", "mine", false)
		second.expect(packets.Publish)
		second.nc.Close()
	}
	// Many at once: the last one works, and nothing of the others stays.
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			c := dial(t, b, 4)
			c.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connect},
				Connect: packets.ConnectParams{ProtocolName: []byte("MQTT"), ClientIdentifier: "crowd", Clean: true, Keepalive: 60}})
			_, _ = c.next()
		})
	}
	wg.Wait()
	last, _ := connect(t, b, 4, "", "crowd", nil)
	last.subscribe(1, "x", 0)
	last.publish(0, "x", "mine", false)
	last.expect(packets.Publish)
	eventually(t, "one session is left", func() bool { return b.server.Clients.Len() == 1 })
}

// A subscriber that does not read holds up neither the edge nor others, and
// costs a bounded amount of memory.
func TestStalledSubscriber(t *testing.T) {
	b := start(t, nil)
	for qos := byte(0); qos <= 1; qos++ {
		c, _ := connect(t, b, 4, "", fmt.Sprint("stalled", qos), func(pk *packets.Packet) { pk.Connect.Keepalive = 0 })
		c.subscribe(1, "flood", qos)
	}
	reader, _ := connect(t, b, 4, "", "reader", nil)
	reader.subscribe(1, "after", 1)
	payload := make([]byte, 10<<10)
	begin := time.Now()
	for range 3000 { // 30 MB for each
		if err := b.Publish("flood", payload, false); err != nil {
			t.Fatal(err)
		}
	}
	if d := time.Since(begin); d >= writeTimeout {
		t.Errorf("publishing took %v", d)
	}
	if err := b.Publish("after", nil, false); err != nil {
		t.Fatal(err)
	}
	reader.expect(packets.Publish)
	if b.Dropped() == 0 {
		t.Error("nothing was dropped")
	}
	cl, _ := b.server.Clients.Get("stalled0")
	c := connOf(cl)
	c.mu.Lock()
	waiting := len(c.out)
	c.mu.Unlock()
	if waiting > softLimit+len(payload)+100 {
		t.Errorf("%d bytes wait for a client that does not read", waiting)
	}
}

func TestPacketTooLarge(t *testing.T) {
	b := start(t, nil)
	c, ack := connect(t, b, 5, "", "c", nil)
	if ack.Properties.MaximumPacketSize != maxPacket {
		t.Errorf("CONNACK: maximum packet size %d", ack.Properties.MaximumPacketSize)
	}
	c.write([]byte{0x30, 0xff, 0xff, 0xff, 0x7f})
	c.ends()
}

func TestBadTopics(t *testing.T) {
	b := start(t, nil)
	for _, topic := range []string{"a/#", "+", "a\x00", strings.Repeat("/", maxLevels)} {
		c, _ := connect(t, b, 4, "", "c", nil)
		var pk []byte
		pk = append(pk, 0x32, byte(2+len(topic)+2)&0x7f|0x80, byte((2+len(topic)+2)>>7), 0, byte(len(topic)))
		pk = append(append(pk, topic...), 0, 1)
		c.write(pk)
		c.ends()
	}
}

// Everybody is told that the broker stops, and nobody is waited for who does not
// listen.
func TestStop(t *testing.T) {
	b := start(t, nil)
	five, _ := connect(t, b, 5, "", "five", nil)
	three, _ := connect(t, b, 4, "", "three", nil)
	mute := dial(t, b, 4) // never says CONNECT
	five.ping()
	three.ping()
	begin := time.Now()
	b.stop()
	if d := time.Since(begin); d >= connectTimeout {
		t.Errorf("stopping took %v", d)
	}
	if pk := five.expect(packets.Disconnect); pk.ReasonCode != 0x8b {
		t.Errorf("DISCONNECT %#x, want server shutting down", pk.ReasonCode)
	}
	five.ends()
	three.ends()
	mute.ends()
}

// A message published while its subscriber changes connections is not lost,
// whether the edge publishes it or an app.
func TestNothingLostBetweenConnections(t *testing.T) {
	b := start(t, nil)
	c, _ := connect(t, b, 4, "app", "hopper", persistent(4))
	c.subscribe(1, "apps/app/#", 1)
	const n = 600 // from each; together below maxInflight
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range n {
			if err := b.Publish("apps/app/edge", fmt.Append(nil, i), false); err != nil {
				t.Error(err)
			}
			if i%10 == 0 {
				time.Sleep(100 * time.Microsecond) //sleep: spreads the messages over the hops
			}
		}
	})
	app := pahoConnect(t, b, "app", nil)
	wg.Go(func() {
		for i := range n {
			if !app.Publish("apps/app/app", 1, false, fmt.Append(nil, i)).WaitTimeout(patience) {
				t.Error("no PUBACK")
			}
		}
	})
	published := make(chan struct{})
	go func() {
		defer close(published)
		wg.Wait()
	}()
	for hop := 0; !isClosed(published); hop++ {
		// The new connection comes while the old one stands, or right after.
		if hop%2 == 0 {
			c.nc.Close()
		}
		c, _ = connect(t, b, 4, "app", "hopper", persistent(4))
	}
	c.nc.Close()
	c, _ = connect(t, b, 4, "app", "hopper", persistent(4))
	next := make(map[string]int)
	for i := 0; i < 2*n; i++ {
		pk := c.expect(packets.Publish)
		if want := fmt.Sprint(next[pk.TopicName]); string(pk.Payload) != want {
			t.Fatalf("%s: message %s, want %s", pk.TopicName, pk.Payload, want)
		}
		next[pk.TopicName]++
		c.ack(pk.PacketID)
	}
	if d := b.Dropped(); d != 0 {
		t.Errorf("dropped %d", d)
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// Whatever bytes come, the broker lives and forgets the connection.
func FuzzConnection(f *testing.F) {
	f.Add([]byte{0x82, 0x05, 0x00, 0x01, 0x00, 0x00, 0x00}, true)
	f.Add([]byte{0x10, 0x0c, 0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 60, 0, 0}, false)
	f.Add([]byte{0x32, 0x05, 0, 1, 'x', 0, 1}, true)
	f.Add([]byte{0x62, 0x02, 0, 1}, true)
	f.Add([]byte{0xe0, 0x00}, true)
	b := start(f, nil)
	f.Fuzz(func(t *testing.T, data []byte, connected bool) {
		var c *raw
		if connected {
			c, _ = connect(t, b, 5, "", "", nil)
		} else {
			c = dial(t, b, 5)
		}
		_, _ = c.nc.Write(data)
		c.nc.Close()
		check := dial(t, b, 4)
		check.write([]byte{0x10, 0x0c, 0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 60, 0, 0})
		check.expect(packets.Connack)
		check.nc.Close()
	})
}
