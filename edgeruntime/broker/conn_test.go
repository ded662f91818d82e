package broker

import (
	"bytes"
	"net"
	"slices"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
)

func encodePublish(t *testing.T, id uint16, qos byte, dup bool, payload string) []byte {
	t.Helper()
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: qos, Dup: dup}, PacketID: id,
		TopicName: "t", Payload: []byte(payload), ProtocolVersion: 4}
	var b bytes.Buffer
	if err := pk.PublishEncode(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// What is held back goes out in order, old messages before new ones and each
// once, also when there is room again in between.
func TestConnOrder(t *testing.T) {
	a, z := net.Pipe()
	defer a.Close()
	defer z.Close()
	c := newConn(a, func() { t.Error("dropped") })
	c.window = 2
	write := func(id uint16, dup bool) {
		if _, err := c.Write(encodePublish(t, id, 1, dup, "")); err != nil {
			t.Fatal(err)
		}
	}
	c.resume()
	write(4, false) // new
	write(1, true)
	write(2, true)
	write(3, true)
	write(4, true) // the new one was among those collected
	write(5, false)
	c.resumed()
	c.mu.Lock()
	c.unacked = 0 // room, and nobody has released anything yet
	c.mu.Unlock()
	write(6, false)
	for range 6 {
		c.acked()
	}
	var got []uint16
	c.mu.Lock()
	defer c.mu.Unlock()
	for out := c.out; len(out) > 0; {
		n := int(out[1]) + 2
		id, _ := publishID(out[:n])
		got = append(got, id)
		out = out[n:]
	}
	if want := []uint16{1, 2, 3, 4, 5, 6}; !slices.Equal(got, want) {
		t.Errorf("sent %v, want %v", got, want)
	}
}

// Packet ids that wrapped around do not change the order of a session.
func TestSessionOrder(t *testing.T) {
	b := start(t, nil)
	h := &hook{b: b.Broker}
	old := b.server.NewClient(nil, "tcp", "id", false)
	var want []uint16
	for range 3 {
		for _, id := range []uint16{65534, 65535, 1, 2, 40000, 3} {
			id += uint16(len(want)) // other ids in each round
			pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1}, PacketID: id, Created: 1_800_000_000}
			old.State.Inflight.Set(pk)
			h.OnQosPublish(old, pk, 0, 0)
			want = append(want, id)
		}
		// Each time the numbers are close to where their low 16 bits wrap.
		b.order.last |= 0xfffd
		b.server.Clients.Add(old)
		a, z := net.Pipe()
		defer a.Close()
		defer z.Close()
		h.OnSessionEstablish(b.server.NewClient(newConn(a, nil), "tcp", "id", false), packets.Packet{})
		var got []uint16
		for _, pk := range old.State.Inflight.GetAll(false) { // the order in which mochi sends again
			got = append(got, pk.PacketID)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("sent again %v, want %v", got, want)
		}
	}
}

func TestPublishID(t *testing.T) {
	for _, size := range []int{0, 100, 200, 20000} {
		p := encodePublish(t, 0x1234, 1, false, string(make([]byte, size)))
		if id, ok := publishID(p); !ok || id != 0x1234 {
			t.Errorf("payload of %d: id %#x %v", size, id, ok)
		}
		for n := range min(len(p), 12) {
			_, _ = publishID(p[:n])
		}
	}
}

func FuzzPublishID(f *testing.F) {
	f.Add([]byte{0x32, 5, 0, 1, 't', 0x12, 0x34})
	f.Fuzz(func(_ *testing.T, p []byte) { _, _ = publishID(p) })
}
