package broker

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/whimbrel-edge/whimbrel/models"
)

// answer does what the edge runtime does: it echoes "$id" and counts versions.
func answer(device string, patch []byte) ([]byte, error) {
	if device != "boiler-1" {
		return nil, models.Errorf(models.KindNotFound, "no device %s", device)
	}
	var p map[string]any
	if err := json.Unmarshal(patch, &p); err != nil {
		return nil, err
	}
	if p["setpoint"] == float64(999) {
		return nil, models.Invalid("/setpoint", "must be from 0 to 95")
	}
	if p["setpoint"] == "boom" {
		return nil, errors.New("disk on fire")
	}
	out := map[string]any{"desiredVersion": 4}
	if id, ok := p["$id"]; ok {
		out["$id"] = id
	}
	return json.Marshal(out)
}

func TestDesired(t *testing.T) {
	b := start(t, nil)
	b.devices.do = answer
	watcher := pahoConnect(t, b, "admin", nil)
	done(t, watcher.Subscribe("devices/#", 1, nil))
	c := pahoConnect(t, b, "app", nil)
	done(t, c.Subscribe("devices/boiler-1/desired/result", 1, nil))

	for _, tt := range []struct{ patch, want string }{
		{`{"setpoint":45.5,"$id":"a"}`, `{"$id":"a","desiredVersion":4}`},
		{`{"setpoint":45.5}`, `{"desiredVersion":4}`},
		{`{"setpoint":999,"$id":"b"}`, `{"type":"urn:whimbrel:problem:invalid","title":"Unprocessable Content","status":422,` +
			`"detail":"/setpoint: must be from 0 to 95","errors":[{"pointer":"/setpoint","detail":"must be from 0 to 95"}],"$id":"b"}`},
		{`{"setpoint":"boom","$id":"c"}`, `{"type":"urn:whimbrel:problem:internal","title":"Internal Server Error","status":500,` +
			`"detail":"internal error; the log says more","$id":"c"}`},
		{`{"setpoint":999,"$id":18446744073709551615}`, `{"type":"urn:whimbrel:problem:invalid","title":"Unprocessable Content","status":422,` +
			`"detail":"/setpoint: must be from 0 to 95","errors":[{"pointer":"/setpoint","detail":"must be from 0 to 95"}],"$id":18446744073709551615}`},
		{`null`, `{"type":"urn:whimbrel:problem:malformed","title":"Bad Request","status":400,"detail":"not a JSON object: null"}`},
	} {
		// Retained on purpose: it is taken once and never kept.
		done(t, c.Publish("devices/boiler-1/desired", 1, true, tt.patch))
		c.want(t, "devices/boiler-1/desired/result "+tt.want)
		watcher.want(t, "devices/boiler-1/desired/result "+tt.want)
	}
	for _, patch := range []string{`{"setpoint":`, `[]`, `"x"`, ``, `{} {}`} {
		done(t, c.Publish("devices/boiler-1/desired", 1, false, patch))
		if got := <-c.got; !strings.Contains(got, `"status":400`) {
			t.Errorf("patch %s: %s", patch, got)
		}
		<-watcher.got
	}
	if got := b.devices.calls(); len(got) != 5 || got[0] != `boiler-1 app {"setpoint":45.5,"$id":"a"}` {
		t.Errorf("devices were asked %q", got)
	}
	if !strings.Contains(b.log.String(), "disk on fire") {
		t.Error("the internal error is not in the log")
	}

	// An unknown device is answered too.
	done(t, watcher.Publish("devices/plant.pump-9/desired", 0, false, `{"$id":"d"}`))
	watcher.want(t, `devices/plant.pump-9/desired/result {"type":"urn:whimbrel:problem:not-found","title":"Not Found","status":404,`+
		`"detail":"no device plant.pump-9","$id":"d"}`)
	// Nothing was retained.
	late := pahoConnect(t, b, "admin", nil)
	done(t, late.Subscribe("devices/#", 1, nil))
	if err := b.Publish("devices/x/state", []byte("{}"), false); err != nil {
		t.Fatal(err)
	}
	late.want(t, "devices/x/state {}")
}

// The patch has been taken when its PUBACK comes, and not before.
func TestDesiredBeforePuback(t *testing.T) {
	b := start(t, nil)
	asked, release := make(chan struct{}), make(chan struct{})
	b.devices.do = func(string, []byte) ([]byte, error) {
		asked <- struct{}{}
		<-release
		return []byte(`{}`), nil
	}
	for _, version := range []byte{4, 5} {
		c, _ := connect(t, b, version, "app", "c", nil)
		got := make(chan packets.Packet, 1)
		c.publish(1, "devices/boiler-1/desired", `{"a":1}`, false)
		go func() {
			if pk, err := c.next(); err == nil {
				got <- pk
			}
		}()
		<-asked
		select {
		case pk := <-got:
			t.Fatalf("version %d: packet type %d before the patch was taken", version, pk.FixedHeader.Type)
		default:
		}
		release <- struct{}{}
		if pk := <-got; pk.FixedHeader.Type != packets.Puback || pk.PacketID != 1 {
			t.Errorf("version %d: packet type %d id %d", version, pk.FixedHeader.Type, pk.PacketID)
		}
	}
}

func TestDesiredResponseTopic(t *testing.T) {
	b := start(t, nil)
	b.devices.do = answer
	admin, _ := connect(t, b, 5, "admin", "admin", nil)
	admin.subscribe(1, "#", 0)
	app, _ := connect(t, b, 5, "app", "app", nil)
	app.subscribe(1, "#", 0)
	for _, tt := range []struct{ response, want string }{
		{"apps/app/answers", "apps/app/answers"},
		{"devices/boiler-1/desired/result", "devices/boiler-1/desired/result"},
		{"", "devices/boiler-1/desired/result"},
		// What it may not read, what is the edge's, what is no topic name.
		{"apps/other/answers", "devices/boiler-1/desired/result"},
		{"devices/boiler-1/state", "devices/boiler-1/desired/result"},
		{"devices/boiler-1/properties/temperature", "devices/boiler-1/desired/result"},
		{"whimbrel/x", "devices/boiler-1/desired/result"},
	} {
		pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish}, TopicName: "devices/boiler-1/desired", Payload: []byte(`{"$id":"1"}`)}
		pk.Mods.AllowResponseInfo = true
		pk.Properties.ResponseTopic, pk.Properties.CorrelationData = tt.response, []byte("c-1")
		app.send(pk)
		got := admin.expect(packets.Publish)
		if got.TopicName != tt.want || string(got.Payload) != `{"$id":"1","desiredVersion":4}` {
			t.Errorf("response topic %q: %s %s, want %s", tt.response, got.TopicName, got.Payload, tt.want)
		}
		if string(got.Properties.CorrelationData) != "c-1" || got.Properties.ContentType != "application/json" || got.FixedHeader.Retain {
			t.Errorf("response topic %q: correlation %q, content type %q, retain %v", tt.response,
				got.Properties.CorrelationData, got.Properties.ContentType, got.FixedHeader.Retain)
		}
		if got := app.expect(packets.Publish); got.TopicName != tt.want {
			t.Errorf("response topic %q: the app got it on %s", tt.response, got.TopicName)
		}
	}
}

func TestDesiredWithMosquitto(t *testing.T) {
	b := start(t, nil)
	b.devices.do = answer
	admin, _ := connect(t, b, 5, "admin", "admin", nil)
	admin.subscribe(1, "apps/#", 0)
	out, err := tool(t, b, "mosquitto_pub", "-V", "5", "-u", "app", "-P", "ppa", "-q", "1", "-t", "devices/boiler-1/desired",
		"-m", `{"setpoint":7,"$id":"m"}`, "-D", "publish", "response-topic", "apps/app/r", "-D", "publish", "correlation-data", "zz",
		"-D", "publish", "user-property", "k", "v")
	if err != nil {
		t.Fatalf("mosquitto_pub: %v: %s", err, out)
	}
	pk := admin.expect(packets.Publish)
	if pk.TopicName != "apps/app/r" || string(pk.Payload) != `{"$id":"m","desiredVersion":4}` || string(pk.Properties.CorrelationData) != "zz" {
		t.Errorf("answer %s %s %q", pk.TopicName, pk.Payload, pk.Properties.CorrelationData)
	}
	if out, err = tool(t, b, "mosquitto_pub", "-V", "5", "-u", "app", "-P", "wrong", "-t", "x", "-m", "x"); err == nil {
		t.Errorf("a wrong password passes: %s", out)
	}
	// mosquitto_pub is told of a refused publish, in version 5.
	out, err = tool(t, b, "mosquitto_pub", "-d", "-V", "5", "-u", "app", "-P", "ppa", "-q", "1", "-t", "devices/boiler-1/state", "-m", "x")
	if !strings.Contains(out, "RC:135") {
		t.Errorf("refused publish: %v: %s", err, out)
	}
}

func TestPatchID(t *testing.T) {
	for in, want := range map[string]models.Value{
		`{"$id":"a","x":1}`: models.String("a"), `{"$id":7}`: models.Int(7), `{"x":1}`: models.Null, `{`: models.Null, `[]`: models.Null, `{"$id":null}`: models.Null,
	} {
		if got := patchID([]byte(in)); got != want {
			t.Errorf("patchID(%s) = %v, want %v", in, got, want)
		}
	}
}
