package broker

import (
	"strings"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
)

func TestIdentity(t *testing.T) {
	app, other, admin := testUsers["app"], testUsers["other"], testUsers["admin"]
	none := Identity{Name: "none"}
	for _, tt := range []struct {
		who           Identity
		topic         string
		publish, read bool
	}{
		{none, "a", false, false},
		{none, "devices/boiler-1/state", false, false},

		{app, "apps/app/x", true, true},
		{app, "apps/app", true, true},
		{app, "apps/other/x", false, false},
		{app, "x", false, false},
		{app, "devices/boiler-1/desired", true, true},
		{app, "devices/boiler-1/desired/result", false, true},
		{app, "devices/boiler-1/state", false, true},
		{app, "devices/boiler-2/state", false, false},
		{app, "devices/boiler-2/desired", false, false},

		// A rule for everything is one for the apps' own topics.
		{other, "x/y", true, true},
		{other, "devices/boiler-1/desired", false, false},
		{other, "devices/boiler-1/state", false, false},
		{other, "whimbrel/x", false, false},
		{other, "mappers/x", false, false},
		{other, "$SYS/broker/version", false, false},

		{anonymous, "x", true, true},
		{anonymous, "devices", false, true},
		{anonymous, "devices/boiler-1/properties/temperature", false, true},
		{anonymous, "devices/boiler-1/state", false, true},
		{anonymous, "devices/boiler-1/desired", true, true},
		{anonymous, "devices/boiler-1/desired/result", false, true},
		{anonymous, "devices/boiler-1/writes", false, true},
		{anonymous, "devices/boiler-1/x", false, true},
		{anonymous, "devices//desired", false, true},
		{anonymous, "whimbrel", false, false},
		{anonymous, "whimbrel/x", false, false},
		{anonymous, "mappers/m/x", false, false},
		{anonymous, "$SYS/broker/version", false, false},
		{anonymous, "$x", false, false},

		{admin, "x", true, true},
		{admin, "devices/boiler-1/desired", true, true},
		{admin, "devices/boiler-1/state", false, true},
		{admin, "devices/boiler-1/properties/a", false, true},
		{admin, "whimbrel/x", false, true},
		{admin, "mappers/x", false, true},
		{admin, "$SYS/x", false, true},
	} {
		if got := tt.who.mayPublish(tt.topic); got != tt.publish {
			t.Errorf("%s may publish %s: %v", tt.who.Name, tt.topic, got)
		}
		if got := tt.who.mayRead(tt.topic); got != tt.read {
			t.Errorf("%s may read %s: %v", tt.who.Name, tt.topic, got)
		}
	}
	for _, tt := range []struct {
		who    Identity
		filter string
		read   bool
	}{
		{none, "#", false},
		{app, "#", true}, // granted for the part that it may read
		{app, "apps/+/x", true},
		{app, "apps/other/#", false},
		{app, "devices/+/state", true},
		{app, "devices/boiler-2/#", false},
		{app, "whimbrel/#", false},
		{app, "$SYS/#", false},
		{app, "$share/g/apps/app/#", true},
		{app, "$share/g/apps/other/#", false},
		{other, "#", true},
		{other, "devices/#", false},
		{other, "$share/g/devices/#", false},
		{other, "mappers/#", false},
		{anonymous, "#", true},
		{anonymous, "devices/#", true},
		{anonymous, "whimbrel/#", false},
		{anonymous, "$SYS/#", false},
		{anonymous, "a/#/b", false},
		{admin, "#", true},
		{admin, "$SYS/#", true},
		{admin, "a#", false},
	} {
		if got := tt.who.mayRead(tt.filter); got != tt.read {
			t.Errorf("%s may subscribe to %s: %v", tt.who.Name, tt.filter, got)
		}
	}
	for _, topic := range []string{"", "+", "#", "a/+", "devices/+/desired", "a\x00"} {
		if admin.mayPublish(topic) {
			t.Errorf("admin may publish to %q", topic)
		}
	}
}

// What a wide subscription does not deliver, and what happens to a refused
// PUBLISH in each version of the protocol.
func TestAccessOnTheWire(t *testing.T) {
	b := start(t, nil)
	all, _ := connect(t, b, 5, "other", "all", nil)
	if code := all.subscribe(1, "#", 1); code != 1 {
		t.Fatalf("subscribe to #: %#x", code)
	}
	if code := all.subscribe(2, "devices/#", 1); code != 0x87 {
		t.Errorf("subscribe to devices/#: %#x, want not authorized", code)
	}
	if code := all.subscribe(3, "a#", 1); code != 0x8f {
		t.Errorf("subscribe to a#: %#x, want topic filter invalid", code)
	}
	three, _ := connect(t, b, 4, "other", "three", nil)
	if code := three.subscribe(2, "devices/#", 1); code != 0x80 {
		t.Errorf("3.1.1: subscribe to devices/#: %#x, want failure", code)
	}

	if err := b.Publish("devices/boiler-1/state", []byte("secret"), true); err != nil {
		t.Fatal(err)
	}
	if err := b.Publish("whimbrel/x", []byte("secret"), false); err != nil {
		t.Fatal(err)
	}

	five, _ := connect(t, b, 5, "other", "five", nil)
	five.publish(1, "devices/boiler-1/state", "forged", true)
	if ack := five.expect(packets.Puback); ack.ReasonCode != 0x87 || ack.PacketID != 1 {
		t.Errorf("PUBACK %d %#x, want 1 with not authorized", ack.PacketID, ack.ReasonCode)
	}
	five.publish(2, "$SYS/broker/version", "forged", true)
	if ack := five.expect(packets.Puback); ack.ReasonCode != 0x87 || ack.PacketID != 2 {
		t.Errorf("PUBACK %d %#x, want 2 with not authorized", ack.PacketID, ack.ReasonCode)
	}
	five.publish(0, "devices/boiler-1/state", "forged", true)
	five.ping()
	three.publish(7, "devices/boiler-1/state", "forged", true)
	if ack := three.expect(packets.Puback); ack.PacketID != 7 {
		t.Errorf("PUBACK %d, want 7", ack.PacketID)
	}
	if got := b.Dropped(); got != 4 {
		t.Errorf("dropped %d, want 4", got)
	}
	if got := b.Received(); got != 4 {
		t.Errorf("received %d, want 4", got)
	}
	if !strings.Contains(b.log.String(), `msg="mqtt: publish refused" client=three identity=other topic=devices/boiler-1/state`) {
		t.Error("the refused publish is not in the log")
	}

	// Nothing of it arrived, so the first thing to arrive is this.
	five.publish(2, "x", "mine", false)
	five.expect(packets.Puback)
	if pk := all.expect(packets.Publish); pk.TopicName != "x" {
		t.Errorf("received %s %s", pk.TopicName, pk.Payload)
	}
	// Nor was it retained.
	admin, _ := connect(t, b, 5, "admin", "admin", nil)
	admin.subscribe(1, "devices/#", 1)
	if pk := admin.expect(packets.Publish); string(pk.Payload) != "secret" {
		t.Errorf("retained: %s", pk.Payload)
	}
}

func TestConnect(t *testing.T) {
	b := start(t, nil)
	auth := func(user, password string) func(*packets.Packet) {
		return func(pk *packets.Packet) {
			pk.Connect.UsernameFlag, pk.Connect.Username = true, []byte(user)
			pk.Connect.PasswordFlag, pk.Connect.Password = true, []byte(password)
		}
	}
	will := func(topic string) func(*packets.Packet) {
		return func(pk *packets.Packet) {
			pk.Connect.WillFlag, pk.Connect.WillTopic, pk.Connect.WillPayload = true, topic, []byte("gone")
		}
	}
	for _, tt := range []struct {
		name   string
		user   string
		change func(*packets.Packet)
		v3, v5 byte
	}{
		{"user", "app", nil, 0, 0},
		{"anonymous", "", nil, 0, 0},
		{"wrong password", "", auth("app", "guess"), 5, 0x86},
		{"unknown user", "", auth("nobody", "ydobon"), 5, 0x86},
		{"will on its own topic", "app", will("apps/app/gone"), 0, 0},
		{"will on a reserved topic", "app", will("devices/boiler-1/properties/temperature"), 5, 0x87},
		{"will on a foreign topic", "app", will("apps/other/x"), 5, 0x87},
		{"will on desired", "app", will("devices/boiler-1/desired"), 5, 0x87},
		{"will with a wildcard", "admin", will("a/#"), 5, 0x87},
	} {
		for version, want := range map[byte]byte{4: tt.v3, 5: tt.v5} {
			c, ack := connect(t, b, version, tt.user, "c", tt.change)
			if ack.FixedHeader.Type != packets.Connack || ack.ReasonCode != want {
				t.Errorf("%s, version %d: %#x, want %#x", tt.name, version, ack.ReasonCode, want)
			}
			if want != 0 {
				c.ends()
			} else {
				c.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect}})
				c.ends()
			}
		}
	}
	eventually(t, "nobody is connected", func() bool { return b.Clients() == 0 })
	if strings.Contains(b.log.String(), "guess") {
		t.Error("a password is in the log")
	}
}

// A session belongs to the identity that began it.
func TestClientIDOfAnother(t *testing.T) {
	b := start(t, nil)
	mine, _ := connect(t, b, 4, "app", "id", func(pk *packets.Packet) { pk.Connect.Clean = false })
	for version, want := range map[byte]byte{4: 2, 5: 0x85} {
		c, ack := connect(t, b, version, "other", "id", nil)
		if ack.ReasonCode != want {
			t.Errorf("version %d: %#x, want %#x", version, ack.ReasonCode, want)
		}
		c.ends()
	}
	mine.ping()
}

func TestNew(t *testing.T) {
	devices := &fakeDevices{}
	for _, tt := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"all addresses", Config{Addr: ":0", Anonymous: true, Devices: devices}, "loopback"},
		{"all of IPv4", Config{Addr: "0.0.0.0:0", Anonymous: true, Auth: testUsers, Devices: devices}, "loopback"},
		{"nobody", Config{Addr: "127.0.0.1:0", Devices: devices}, "nobody"},
		{"no devices", Config{Addr: "127.0.0.1:0", Anonymous: true}, "devices"},
		{"no port", Config{Addr: "127.0.0.1", Anonymous: true, Devices: devices}, "port"},
	} {
		if _, err := New(tt.cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want one with %q", tt.name, err, tt.want)
		}
	}
	b := start(t, func(c *Config) { c.Addr, c.Anonymous = "0.0.0.0:0", false })
	_, port, _ := strings.Cut(strings.TrimPrefix(b.Addr(), "[::]"), ":")
	if port == "0" || port == "" {
		t.Errorf("Addr() = %q", b.Addr())
	}
}

func TestAnonymousRefused(t *testing.T) {
	b := start(t, func(c *Config) { c.Anonymous = false })
	for version, want := range map[byte]byte{4: 5, 5: 0x86} {
		c, ack := connect(t, b, version, "", "c", nil)
		if ack.ReasonCode != want {
			t.Errorf("version %d: %#x, want %#x", version, ack.ReasonCode, want)
		}
		c.ends()
	}
	// Who gives a name is held to it where others need none.
	b = start(t, func(c *Config) { c.Auth = nil })
	_, ack := connect(t, b, 5, "app", "c", nil)
	if ack.ReasonCode != 0x86 {
		t.Errorf("name without an authenticator: %#x", ack.ReasonCode)
	}
}
