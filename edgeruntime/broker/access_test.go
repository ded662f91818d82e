package broker

import (
	"net"
	"slices"
	"strings"
	"testing"

	paho "github.com/eclipse/paho.mqtt.golang"
)

// fakeAccess reads boiler-1's temperature, writes boiler-2's setpoint, publishes
// alarms/# and subscribes to orders/#.
type fakeAccess struct{}

func (fakeAccess) Device(device, property string, write bool) bool {
	if write {
		return device == "boiler-2" && (property == "" || property == "setpoint")
	}
	return device == "boiler-1" && (property == "" || property == "temperature")
}
func (fakeAccess) AnyDevice(bool) bool { return true }
func (fakeAccess) Topic(filter string, publish bool) bool {
	if publish {
		return strings.HasPrefix(filter, "alarms/")
	}
	return strings.HasPrefix(filter, "orders/")
}

func TestAccess(t *testing.T) {
	id := Identity{Name: "pod", Access: fakeAccess{}}
	for topic, want := range map[string][2]bool{ // publish, read
		"devices/boiler-1/properties/temperature": {false, true},
		"devices/boiler-1/properties/setpoint":    {false, false},
		"devices/boiler-1/properties/#":           {false, true},
		"devices/boiler-1/state":                  {false, true},
		"devices/boiler-1/desired":                {false, true},
		"devices/boiler-2/desired":                {true, true},
		"devices/boiler-2/desired/result":         {false, true},
		"devices/boiler-2/writes":                 {false, true},
		"devices/boiler-2/properties/setpoint":    {false, false},
		"devices/boiler-2/properties/+":           {false, false},
		"devices/boiler-3/desired":                {false, false},
		"devices/boiler-3/#":                      {false, false},
		"devices/+/properties/temperature":        {false, true}, // for the part that it may read
		"devices/#":                               {false, true},
		"$share/g/devices/boiler-3/#":             {false, false},
		"$share/g/orders/#":                       {false, true},
		"alarms/x":                                {true, false},
		"orders/x":                                {false, true},
		"x":                                       {false, false},
		"mappers/m/report":                        {false, false},
		"mappers/#":                               {false, false},
		"whimbrel/x":                              {false, false},
		"$SYS/#":                                  {false, false},
		"+/+":                                     {false, true},
	} {
		if got := id.mayPublish(topic); got != want[0] {
			t.Errorf("may publish %s: %v", topic, got)
		}
		if got := id.mayRead(topic); got != want[1] {
			t.Errorf("may read %s: %v", topic, got)
		}
	}
	for property, want := range map[string]bool{"setpoint": true, "mode": false} {
		if got := id.mayWrite("boiler-2", property); got != want {
			t.Errorf("may write %s: %v", property, got)
		}
	}
	if !testUsers["app"].mayWrite("boiler-1", "x") || !testUsers["admin"].mayWrite("boiler-1", "x") || !anonymous.mayWrite("boiler-1", "x") {
		t.Error("who has a rule for a desired topic may write all of the device")
	}
}

// TestAppOnTheWire connects as an app, to a further address.
func TestAppOnTheWire(t *testing.T) {
	b := start(t, func(c *Config) {
		c.Auth = fakeAuth{"pod": {Name: "pod", Access: fakeAccess{}}}
	})
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.Addr().String()
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	end, err := b.Listen(addr)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Listen(addr); err == nil {
		t.Error("an address twice")
	}
	connect := func(user string) (paho.Client, error) {
		o := paho.NewClientOptions().AddBroker("tcp://" + addr).SetAutoReconnect(false).SetConnectRetry(false).SetClientID("c" + user)
		if user != "" {
			o.SetUsername(user).SetPassword(reverse(user))
		}
		c := paho.NewClient(o)
		token := c.Connect()
		token.WaitTimeout(patience)
		return c, token.Error()
	}
	if _, err := connect(""); err == nil {
		t.Error("somebody came in without a name")
	}
	c, err := connect("pod")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Disconnect(100)
	got := make(chan string, 100)
	subscribe := func(filter string) byte {
		token := c.Subscribe(filter, 1, func(_ paho.Client, m paho.Message) { got <- m.Topic() }).(*paho.SubscribeToken)
		token.WaitTimeout(patience)
		return token.Result()[filter]
	}
	for _, d := range []string{"devices/boiler-1/properties/temperature", "devices/boiler-1/properties/setpoint", "devices/boiler-3/properties/temperature"} {
		if err := b.Publish(d, []byte("1"), true); err != nil {
			t.Fatal(err)
		}
	}
	if code := subscribe("devices/boiler-3/#"); code != 0x80 {
		t.Errorf("another device: %#x", code)
	}
	if code := subscribe("devices/#"); code != 1 {
		t.Errorf("all devices, for the part that it may read: %#x", code)
	}
	if code := subscribe("orders/#"); code != 1 {
		t.Errorf("its topics: %#x", code)
	}
	for _, d := range []string{"devices/boiler-3/state", "devices/boiler-1/state", "orders/last"} {
		if err := b.Publish(d, []byte("2"), false); err != nil {
			t.Fatal(err)
		}
	}
	var topics []string
	for topic := ""; topic != "orders/last"; topics = append(topics, topic) {
		topic = <-got
	}
	if want := []string{"devices/boiler-1/properties/temperature", "devices/boiler-1/state", "orders/last"}; !slices.Equal(topics, want) {
		t.Errorf("got %v, want %v", topics, want)
	}
	publish := func(topic, payload string) {
		if token := c.Publish(topic, 1, false, payload); !token.WaitTimeout(patience) || token.Error() != nil {
			t.Errorf("publish %s: %v", topic, token.Error())
		}
	}
	publish("devices/boiler-2/desired", `{"setpoint":1,"$id":"a"}`)
	publish("devices/boiler-2/desired", `{"setpoint":1,"mode":2}`)
	publish("devices/boiler-1/desired", `{"temperature":1}`)
	eventually(t, "one patch", func() bool { return len(b.devices.calls()) > 0 })
	if calls := b.devices.calls(); len(calls) != 1 || calls[0] != `boiler-2 pod(app) {"setpoint":1,"$id":"a"}` {
		t.Errorf("asked for %v", calls)
	}
	end()
	if _, err := connect("pod"); err == nil {
		t.Error("the address is still served")
	}
	if again, err := b.Listen(addr); err != nil {
		t.Errorf("once more: %v", err)
	} else {
		_ = again // ends with the broker
	}
}
