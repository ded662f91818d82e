package broker

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/mochi-mqtt/server/v2/packets"
	"go.uber.org/goleak"

	"github.com/whimbrel-edge/whimbrel/internal/need"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second

// eventually waits for cond.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); {
		time.Sleep(2 * time.Millisecond) //sleep: polls real sockets
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// fakeAuth has the users of the tests; the password is the name backwards.
type fakeAuth map[string]Identity

func (a fakeAuth) Authenticate(username, password string) (Identity, bool) {
	id, ok := a[username]
	return id, ok && password == reverse(username)
}

func reverse(s string) string {
	b := []byte(s)
	for i, j := 0, len(b)-1; i < j; i, j = i+1, j-1 {
		b[i], b[j] = b[j], b[i]
	}
	return string(b)
}

var testUsers = fakeAuth{
	"admin": {Name: "admin", Admin: true},
	"app": {Name: "app", Rules: []Rule{
		{Filter: "apps/app/#", Publish: true, Subscribe: true},
		{Filter: "devices/boiler-1/#", Subscribe: true},
		{Filter: "devices/boiler-1/desired", Publish: true},
	}},
	"other": {Name: "other", Rules: []Rule{{Filter: "#", Publish: true, Subscribe: true}}},
}

// fakeDevices remembers what it was asked; do answers.
type fakeDevices struct {
	mu    sync.Mutex
	asked []string // "device by patch", with "by(app)" for apps
	do    func(device string, patch []byte) ([]byte, error)
}

func (d *fakeDevices) Desired(_ context.Context, device, by string, app bool, patch []byte) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if app {
		by += "(app)"
	}
	d.asked = append(d.asked, device+" "+by+" "+string(patch))
	if d.do == nil {
		return []byte(`{"desiredVersion":1}`), nil
	}
	return d.do(device, patch)
}

func (d *fakeDevices) calls() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]string(nil), d.asked...)
}

// testLog sends the log of a broker through t until the test is over.
type testLog struct {
	t  testing.TB
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *testLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *testLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

type testBroker struct {
	*Broker
	devices *fakeDevices
	log     *testLog
	stop    func()
}

// start runs a broker with testUsers for the time of the test.
func start(t testing.TB, change func(*Config)) *testBroker {
	t.Helper()
	tb := &testBroker{devices: &fakeDevices{}, log: &testLog{t: t}}
	cfg := Config{Addr: "127.0.0.1:0", Anonymous: true, Auth: testUsers, Devices: tb.devices,
		Log: slog.New(slog.NewTextHandler(tb.log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	if change != nil {
		change(&cfg)
	}
	b, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	tb.Broker = b
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	tb.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			t.Error("Run does not end")
		}
	})
	t.Cleanup(func() {
		tb.stop()
		if t.Failed() {
			t.Log(tb.log.String())
		}
	})
	return tb
}

// A raw client sends and receives packets one by one.
type raw struct {
	t  testing.TB
	nc net.Conn
	r  *bufio.Reader
	v  byte
}

func dial(t testing.TB, b *testBroker, version byte) *raw {
	t.Helper()
	nc, err := net.Dial("tcp", b.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return &raw{t: t, nc: nc, r: bufio.NewReader(nc), v: version}
}

// connect dials and connects; change may add to the CONNECT.
func connect(t testing.TB, b *testBroker, version byte, user, clientID string, change func(*packets.Packet)) (*raw, packets.Packet) {
	t.Helper()
	c := dial(t, b, version)
	pk := packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Connect},
		Connect: packets.ConnectParams{ProtocolName: []byte("MQTT"), Clean: true, ClientIdentifier: clientID,
			Keepalive: 60},
	}
	if user != "" {
		pk.Connect.UsernameFlag, pk.Connect.Username = true, []byte(user)
		pk.Connect.PasswordFlag, pk.Connect.Password = true, []byte(reverse(user))
	}
	if change != nil {
		change(&pk)
	}
	c.send(pk)
	return c, c.receive()
}

func (c *raw) send(pk packets.Packet) {
	c.t.Helper()
	pk.ProtocolVersion = c.v
	var buf bytes.Buffer
	var err error
	switch pk.FixedHeader.Type {
	case packets.Connect:
		err = pk.ConnectEncode(&buf)
	case packets.Publish:
		err = pk.PublishEncode(&buf)
	case packets.Puback:
		err = pk.PubackEncode(&buf)
	case packets.Pubrel:
		err = pk.PubrelEncode(&buf)
	case packets.Subscribe:
		err = pk.SubscribeEncode(&buf)
	case packets.Pingreq:
		err = pk.PingreqEncode(&buf)
	case packets.Disconnect:
		err = pk.DisconnectEncode(&buf)
	default:
		err = errors.New("cannot encode this one")
	}
	if err != nil {
		c.t.Fatal(err)
	}
	c.write(buf.Bytes())
}

func (c *raw) write(p []byte) {
	c.t.Helper()
	if _, err := c.nc.Write(p); err != nil {
		c.t.Fatalf("write: %v", err)
	}
}

// next reads a packet; io.EOF or a reset is an error, silence fails the test.
func (c *raw) next() (packets.Packet, error) {
	c.t.Helper()
	_ = c.nc.SetReadDeadline(time.Now().Add(patience))
	pk := packets.Packet{ProtocolVersion: c.v}
	first, err := c.r.ReadByte()
	if err != nil {
		return pk, err
	}
	if err := pk.FixedHeader.Decode(first); err != nil {
		c.t.Fatalf("header %#x: %v", first, err)
	}
	n, _, err := packets.DecodeLength(c.r)
	if err != nil {
		return pk, err
	}
	pk.FixedHeader.Remaining = n
	body := make([]byte, n)
	if _, err := io.ReadFull(c.r, body); err != nil {
		return pk, err
	}
	switch pk.FixedHeader.Type {
	case packets.Connack:
		err = pk.ConnackDecode(body)
	case packets.Publish:
		err = pk.PublishDecode(body)
	case packets.Puback:
		err = pk.PubackDecode(body)
	case packets.Pubrec:
		err = pk.PubrecDecode(body)
	case packets.Pubcomp:
		err = pk.PubcompDecode(body)
	case packets.Suback:
		err = pk.SubackDecode(body)
	case packets.Disconnect:
		err = pk.DisconnectDecode(body)
	case packets.Pingresp:
	default:
		c.t.Fatalf("unexpected packet type %d", pk.FixedHeader.Type)
	}
	if err != nil {
		c.t.Fatalf("packet type %d %x: %v", pk.FixedHeader.Type, body, err)
	}
	return pk, nil
}

func (c *raw) receive() packets.Packet {
	c.t.Helper()
	pk, err := c.next()
	if err != nil {
		c.t.Fatalf("read: %v", err)
	}
	return pk
}

// expect receives a packet of that type.
func (c *raw) expect(typ byte) packets.Packet {
	c.t.Helper()
	pk := c.receive()
	if pk.FixedHeader.Type != typ {
		c.t.Fatalf("packet type %d (%s %q), want %d", pk.FixedHeader.Type, pk.TopicName, pk.Payload, typ)
	}
	return pk
}

// ends expects the connection to be closed, after nothing more.
func (c *raw) ends() {
	c.t.Helper()
	if pk, err := c.next(); err == nil {
		c.t.Fatalf("packet type %d, want the end of the connection", pk.FixedHeader.Type)
	} else if ne, ok := err.(net.Error); ok && ne.Timeout() {
		c.t.Fatal("the connection stays open")
	}
}

func (c *raw) subscribe(id uint16, filter string, qos byte) byte {
	c.t.Helper()
	c.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, PacketID: id,
		Filters: packets.Subscriptions{{Filter: filter, Qos: qos}}})
	pk := c.expect(packets.Suback)
	if pk.PacketID != id {
		c.t.Fatalf("SUBACK for %d, want %d", pk.PacketID, id)
	}
	return pk.ReasonCodes[0]
}

func (c *raw) publish(id uint16, topic, payload string, retain bool) {
	c.t.Helper()
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Retain: retain}, TopicName: topic, Payload: []byte(payload)}
	if id > 0 {
		pk.FixedHeader.Qos, pk.PacketID = 1, id
	}
	c.send(pk)
}

func (c *raw) ack(id uint16) {
	c.t.Helper()
	c.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Puback}, PacketID: id})
}

// ping makes sure that everything sent so far has been processed.
func (c *raw) ping() {
	c.t.Helper()
	c.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pingreq}})
	c.expect(packets.Pingresp)
}

// A client is a paho client with what it received, as "topic payload", with
// " (retained)" behind.
type client struct {
	paho.Client
	got chan string
}

func pahoConnect(t testing.TB, b *testBroker, user string, change func(*paho.ClientOptions)) *client {
	t.Helper()
	c := &client{got: make(chan string, 1000)}
	o := paho.NewClientOptions().AddBroker("tcp://" + b.Addr()).SetAutoReconnect(false).SetConnectTimeout(patience).SetProtocolVersion(4)
	if user != "" {
		o.SetUsername(user).SetPassword(reverse(user))
	}
	o.SetDefaultPublishHandler(func(_ paho.Client, m paho.Message) {
		s := m.Topic() + " " + string(m.Payload())
		if m.Retained() {
			s += " (retained)"
		}
		c.got <- s
	})
	if change != nil {
		change(o)
	}
	c.Client = paho.NewClient(o)
	done(t, c.Connect())
	t.Cleanup(func() { c.Disconnect(0) })
	return c
}

func done(t testing.TB, token paho.Token) {
	t.Helper()
	if !token.WaitTimeout(patience) {
		t.Fatal("no answer")
	}
	if token.Error() != nil {
		t.Fatal(token.Error())
	}
}

func (c *client) want(t testing.TB, want ...string) {
	t.Helper()
	for _, w := range want {
		select {
		case got := <-c.got:
			if got != w {
				t.Errorf("received %q, want %q", got, w)
			}
		case <-time.After(patience):
			t.Fatalf("received nothing, want %q", w)
		}
	}
}

// tool runs mosquitto_pub or mosquitto_sub and returns its output.
func tool(t *testing.T, b *testBroker, name string, args ...string) (string, error) {
	t.Helper()
	path := need.Program(t, name, "mosquitto-clients")
	host, port, _ := net.SplitHostPort(b.Addr())
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, append([]string{"-h", host, "-p", port}, args...)...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}
