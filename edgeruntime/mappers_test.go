package edgeruntime

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/store"
	"github.com/whimbrel-edge/whimbrel/internal/pki"
	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

// puppet is a mapper in a process of its own, as far as the edge can tell. It
// keeps what it is told, and says what a test wants it to.
type puppet struct {
	t      *testing.T
	client paho.Client
	name   string

	mu       sync.Mutex
	got      map[string][]map[string]any // by the last level of the topic
	serve    bool                        // answer requests from values
	values   map[string]any
	accepted map[string]string // assignments by device
}

// newPuppet connects with the mapper's credential, and subscribes.
func newPuppet(t *testing.T, e *Edge, c Credential, clientID string) *puppet {
	t.Helper()
	p := &puppet{t: t, name: strings.TrimPrefix(c.Username, "mapper-"), got: map[string][]map[string]any{}, serve: true, values: map[string]any{}, accepted: map[string]string{}}
	p.client = paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + e.MQTTAddr()).SetUsername(c.Username).SetPassword(c.Password).
		SetAutoReconnect(false).SetClientID(clientID).SetOrderMatters(true))
	if token := p.client.Connect(); !token.WaitTimeout(patience) || token.Error() != nil {
		t.Fatal(token.Error())
	}
	t.Cleanup(func() { p.client.Disconnect(10) })
	if token := p.client.Subscribe("mappers/"+p.name+"/#", 1, p.take); !token.WaitTimeout(patience) || token.Error() != nil {
		t.Fatal(token.Error())
	}
	return p
}

func (p *puppet) take(_ paho.Client, m paho.Message) {
	kind := m.Topic()[strings.LastIndex(m.Topic(), "/")+1:]
	var body map[string]any
	if err := json.Unmarshal(m.Payload(), &body); err != nil {
		p.t.Errorf("%s: %v", m.Topic(), err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.got[kind] = append(p.got[kind], body)
	if !p.serve {
		return
	}
	switch kind {
	case "devices":
		device, id := body["device"].(string), body["assignment"].(string)
		if body["removed"] == true {
			delete(p.accepted, device)
			return
		}
		p.accepted[device] = id
		p.client.Publish("mappers/"+p.name+"/state", 1, false, fmt.Sprintf(`{"device":%q,"assignment":%q,"state":"accepted"}`, device, id))
	case "read", "write":
		var results []any
		properties, _ := body["properties"].([]any)
		for _, prop := range properties {
			results = append(results, map[string]any{"value": p.values[prop.(string)]})
		}
		writes, _ := body["writes"].([]any)
		for _, w := range writes {
			p.values[w.(map[string]any)["property"].(string)] = w.(map[string]any)["value"]
			results = append(results, map[string]any{})
		}
		text, _ := json.Marshal(map[string]any{"id": body["id"], "results": results})
		p.client.Publish("mappers/"+p.name+"/answer", 1, false, text)
	}
}

func (p *puppet) say(kind, payload string) paho.Token {
	return p.client.Publish("mappers/"+p.name+"/"+kind, 1, false, payload)
}

func (p *puppet) announce() {
	p.say("announce", `{"protocol":1,"version":"1.0.0","connection":{"type":"object"},"address":{"type":"object"},"heartbeat":"1s"}`)
}

// count is how many messages came on a topic.
func (p *puppet) count(kind string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.got[kind])
}

func (p *puppet) last(kind string) map[string]any {
	p.mu.Lock()
	defer p.mu.Unlock()
	if m := p.got[kind]; len(m) > 0 {
		return m[len(m)-1]
	}
	return nil
}

func (p *puppet) assignment(device string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.accepted[device]
}

// report reports a value and returns whether it was acknowledged within wait.
func (p *puppet) report(device, assignment, property, value string, wait time.Duration) bool {
	return p.say("batch", fmt.Sprintf(`{"device":%q,"assignment":%q,"samples":[{"property":%q,"value":%s}]}`, device, assignment, property, value)).WaitTimeout(wait)
}

func (p *puppet) kill() { p.client.Disconnect(0) }

// acmeDir is a data directory of an edge with a device of the protocol acme,
// which nothing built in speaks.
func acmeDir(t *testing.T) string {
	t.Helper()
	dir := joinedDir(t)
	s, err := store.Open(t.Context(), filepath.Join(dir, "edge.db"), pki.SealKey{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.ApplySync(t.Context(), &pb.Sync{Full: true, Items: []*pb.Item{
		{Kind: "DeviceModel", Namespace: "default", Name: "box", Uid: "m", Revision: 1, Json: []byte(`{"spec":{"protocol":"acme","defaults":{"every":"1s"},"properties":[
			{"name":"level","type":"int","access":"Read","maximum":100,"address":{"cell":1}},{"name":"setpoint","type":"float","access":"ReadWrite","every":"24h","address":{"cell":2}}]}}`)},
		{Kind: "Device", Namespace: "default", Name: "box-1", Uid: "d", Revision: 1, Assignment: 1, Json: []byte(`{"spec":{"model":"box","connection":{"url":"x"}}}`)},
	}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestMapperGetsSecrets: a mapper that asks for them gets what its devices refer
// to; whoever else listens does not.
func TestMapperGetsSecrets(t *testing.T) {
	dir := acmeDir(t)
	key, err := pki.LoadSealKey(filepath.Join(dir, keyName))
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), filepath.Join(dir, "edge.db"), key)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.ApplySync(t.Context(), &pb.Sync{Items: []*pb.Item{
		{Kind: "Secret", Namespace: "default", Name: "plc", Uid: "s", Revision: 2, Json: []byte(`{"data":{"password":"Y29ycmVjdC1ob3JzZQ=="}}`)},
		{Kind: "Device", Namespace: "default", Name: "box-1", Uid: "d", Revision: 2, Assignment: 1, Json: []byte(`{"spec":{"model":"box","connection":{"url":"x","passwordFrom":{"secret":"plc","key":"password"}}}}`)},
	}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	e, _ := acmeEdge(t, dir)
	var admin mqttFile
	if err := readSecret(filepath.Join(dir, mqttName), &admin); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var heard []string
	listener := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + e.MQTTAddr()).SetUsername(admin.Username).SetPassword(admin.Password).SetAutoReconnect(false))
	if token := listener.Connect(); !token.WaitTimeout(patience) || token.Error() != nil {
		t.Fatal(token.Error())
	}
	defer listener.Disconnect(10)
	hear := func(_ paho.Client, m paho.Message) {
		mu.Lock()
		defer mu.Unlock()
		heard = append(heard, m.Topic()+" "+string(m.Payload()))
	}
	for _, filter := range []string{"#", "mappers/acme/devices", "$share/g/mappers/#"} {
		if token := listener.Subscribe(filter, 1, hear); !token.WaitTimeout(patience) || token.Error() != nil {
			t.Fatal(token.Error())
		}
	}
	p := newPuppet(t, e, acmeCredential(t, dir), "one")
	p.announce()
	eventually(t, "a mapper that takes no secrets", func() bool {
		_, text := rest(t, dir, "GET", "/v1/devices", "")
		return strings.Contains(text, "/spec/connection/passwordFrom: mapper acme does not take secrets")
	})
	p.say("announce", `{"protocol":1,"version":"1.0.0","connection":{"type":"object"},"address":{"type":"object"},"heartbeat":"1s","secrets":true}`)
	eventually(t, "the device is handed over", func() bool { return p.assignment("box-1") != "" })
	if got := fmt.Sprint(p.last("devices")["secrets"]); got != "map[passwordFrom:correct-horse]" {
		t.Errorf("secrets are %s", got)
	}
	p.report("box-1", p.assignment("box-1"), "level", "7", patience)
	twinHas(t, dir, "the value", `"value":7,"quality":"good"`)
	eventually(t, "the listener hears the value", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return slices.ContainsFunc(heard, func(s string) bool { return strings.Contains(s, `devices/box-1/properties/level {"value":7`) })
	})
	mu.Lock()
	defer mu.Unlock()
	for _, s := range heard {
		if strings.Contains(s, "correct-horse") || strings.HasPrefix(s, "mappers/acme/devices") {
			t.Errorf("somebody else hears %s", s)
		}
	}
}

func acmeEdge(t *testing.T, dir string) (*Edge, func() error) {
	return run(t, Config{Node: "gateway-1", HubURL: "https://127.0.0.1:1", DataDir: dir, MQTTAddr: "127.0.0.1:0", APIAddr: "127.0.0.1:0",
		Drivers: map[string]mappers.Driver{"memory": newMemory()}})
}

func acmeCredential(t *testing.T, dir string) Credential {
	t.Helper()
	c, err := NewMapperCredential(dir, "acme")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// twinHas waits until the twin of box-1 holds each of the texts.
func twinHas(t *testing.T, dir, what string, texts ...string) {
	t.Helper()
	var text string
	defer func() {
		if t.Failed() {
			t.Log(text)
		}
	}()
	eventually(t, what, func() bool {
		_, text = rest(t, dir, "GET", "/v1/devices/box-1/twin", "")
		for _, want := range texts {
			if !strings.Contains(text, want) {
				return false
			}
		}
		return true
	})
}

func TestMapperInAProcessOfItsOwn(t *testing.T) {
	dir := acmeDir(t)
	e, stop := acmeEdge(t, dir)
	_, text := rest(t, dir, "GET", "/v1/devices", "")
	if !strings.Contains(text, "no driver for protocol acme") {
		t.Errorf("before the mapper came: %s", text)
	}
	credential := acmeCredential(t, dir)
	p := newPuppet(t, e, credential, "one")
	p.announce()
	eventually(t, "the device is handed over", func() bool { return p.assignment("box-1") != "" })
	if w := p.last("welcome"); w["protocol"] != 1.0 || w["mapper"] != "acme" || w["node"] != "gateway-1" || w["client"] != "one" || w["heartbeat"] != "1s" {
		t.Errorf("welcome %v", w)
	}
	d := p.last("devices")
	properties, _ := json.Marshal(d["properties"])
	if want := `[{"access":"Read","address":{"cell":1},"every":"1s","name":"level","type":"int"},{"access":"ReadWrite","address":{"cell":2},"every":"24h0m0s","name":"setpoint","type":"float"}]`; string(properties) != want {
		t.Errorf("properties %s", properties)
	}
	id := p.assignment("box-1")
	if !p.report("box-1", id, "level", "7", patience) {
		t.Error("a batch is not acknowledged")
	}
	if stats := e.outbox.Stats(); stats.Records == 0 {
		t.Error("a batch is acknowledged before it is in the outbox")
	}
	twinHas(t, dir, "the value", `"value":7,"quality":"good"`)
	p.report("box-1", id, "level", "101", patience)
	twinHas(t, dir, "out of range", `"value":101,"quality":"uncertain","reason":"out-of-range"`)
	p.say("batch", fmt.Sprintf(`{"device":"box-1","assignment":%q,"samples":[{"property":"level","quality":"bad","reason":"device-error"}]}`, id))
	twinHas(t, dir, "bad", `"quality":"bad","reason":"device-error"`)

	// Writes go out and are read back.
	status, text := rest(t, dir, "PATCH", "/v1/devices/box-1/twin/desired?wait=5s", `{"setpoint": 45.5}`)
	if status != 200 || !strings.Contains(text, `"state":"applied"`) {
		t.Errorf("write: %d %s", status, text)
	}

	// A device that is gone is so for as long as the mapper says, and not a moment longer.
	p.say("state", fmt.Sprintf(`{"device":"box-1","assignment":%q,"state":"offline","reason":"timeout","message":"no answer within 1s"}`, id))
	twinHas(t, dir, "the device offline", `"state":"offline"`, `"quality":"bad","reason":"timeout"`)
	p.report("box-1", id, "level", "8", patience)
	p.report("box-1", id, "setpoint", "45.5", patience)
	twinHas(t, dir, "the device online again", `"state":"online"`, `"value":8,"quality":"good"`)

	// Killed: everything is bad at once, and comes back with the mapper.
	p.kill()
	twinHas(t, dir, "the mapper is lost", `"state":"offline"`, `"quality":"bad","reason":"mapper-lost"`)
	status, text = rest(t, dir, "PATCH", "/v1/devices/box-1/twin/desired?wait=200ms", `{"setpoint": 50}`)
	if status == 200 {
		t.Errorf("a write without a mapper: %d %s", status, text)
	}
	p = newPuppet(t, e, credential, "two")
	p.announce()
	eventually(t, "the device is handed over again", func() bool { return p.assignment("box-1") == id })
	p.report("box-1", id, "level", "9", patience)
	twinHas(t, dir, "good again", `"value":9,"quality":"good"`, `"value":50,`, `"state":"applied"`)

	// An edge that starts anew knows the mapper, and takes what was not acknowledged.
	p.kill()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	e, _ = acmeEdge(t, dir)
	if infos := e.mapperInfos(); len(infos) != 2 || infos[1].Name != "acme" || infos[1].Version != "1.0.0" {
		t.Errorf("mappers %v", infos)
	}
	p = newPuppet(t, e, credential, "three")
	late := p.say("batch", fmt.Sprintf(`{"device":"box-1","assignment":%q,"samples":[{"property":"level","value":10}]}`, id))
	p.announce()
	if !late.WaitTimeout(patience) {
		t.Error("what was sent again after a restart is not acknowledged")
	}
	twinHas(t, dir, "what was sent again", `"value":10,"quality":"good"`)
}

func TestMapperThatIsRefused(t *testing.T) {
	dir := acmeDir(t)
	e, _ := acmeEdge(t, dir)
	credential := acmeCredential(t, dir)
	p := newPuppet(t, e, credential, "one")
	problem := func(kind, payload, want string) {
		t.Helper()
		before := p.count("problem")
		if !p.say(kind, payload).WaitTimeout(patience) {
			t.Errorf("%s: not acknowledged", payload)
		}
		eventually(t, "a problem with "+want, func() bool { return p.count("problem") > before })
		if got := p.last("problem"); !strings.Contains(fmt.Sprint(got["detail"]), want) || got["topic"] != "mappers/acme/"+kind || got["client"] != "one" {
			t.Errorf("%s: problem %v", payload, got)
		}
	}
	problem("heartbeat", `{}`, "announce first")
	problem("heartbeats", `{}`, "mappers publish no \"heartbeats\", but announce")
	problem("batch", `{"device":"box-1","assignment":"x","samples":[]}`, "announce first")
	problem("announce", `{"protocol":2,"version":"1","connection":true,"address":true}`, "this edge speaks 1")
	problem("announce", `{"protocol":1,"connection":true,"address":true}`, "/version")
	problem("announce", `{"protocol":1,"version":"1","conection":true,"address":true}`, "did you mean connection?")
	problem("announce", `null`, "not a JSON object")
	p.announce()
	eventually(t, "the device is handed over", func() bool { return p.assignment("box-1") != "" })
	id := p.assignment("box-1")
	problem("batch", `{"device":"box-1","assignment":"`+id+`","samples":[{"property":"nope","value":1}]}`, "no readable property")
	problem("state", `{"device":"box-1","assignment":"`+id+`","state":"busy"}`, "accepted, refused or offline")
	before := p.count("problem")
	if !p.report("box-1", "0000", "level", "77", patience) {
		t.Error("a batch of a former assignment is not acknowledged")
	}
	p.report("box-1", id, "level", "5", patience)
	twinHas(t, dir, "the present value", `"value":5,"quality":"good"`)
	if p.count("problem") != before {
		t.Errorf("problem %v", p.last("problem"))
	}

	// A second one is refused while the first lives, and hears nothing of what the first is told.
	second := newPuppet(t, e, credential, "two")
	second.announce()
	eventually(t, "the second one is refused", func() bool { return second.count("problem") > 0 })
	if got := second.last("problem"); !strings.Contains(fmt.Sprint(got["detail"]), "runs already, as client one") || got["client"] != "two" {
		t.Errorf("problem %v", got)
	}
	if !second.report("box-1", id, "level", "99", patience) {
		t.Error("the second one's batch is not acknowledged")
	}
	if status, text := rest(t, dir, "PATCH", "/v1/devices/box-1/twin/desired?wait=5s", `{"setpoint": 1}`); status != 200 {
		t.Errorf("write: %d %s", status, text)
	}
	if second.count("write")+second.count("devices")+second.count("read") != 0 {
		t.Error("the second one is told what is for the first")
	}
	if _, text := rest(t, dir, "GET", "/v1/devices/box-1/twin", ""); !strings.Contains(text, `"value":5,`) {
		t.Errorf("the second one's value was taken: %s", text)
	}

	// A mapper that lives and says nothing is lost, and its connection ended.
	eventually(t, "the silent mapper is lost", func() bool { return !e.bridge.Mapper("acme").Live() && !p.client.IsConnectionOpen() })
	twinHas(t, dir, "the mapper is lost", `"quality":"bad","reason":"mapper-lost"`)
	second.announce()
	eventually(t, "the second one's turn", func() bool { return second.assignment("box-1") == id })

	// A device that the mapper refuses says why.
	second.say("state", `{"device":"box-1","assignment":"`+id+`","state":"refused","errors":[{"pointer":"/spec/connection/url","detail":"must be tcp://…"}]}`)
	twinHas(t, dir, "the refusal", `"state":"offline"`, `"reason":"configuration"`)
	_, text := rest(t, dir, "GET", "/v1/devices", "")
	if !strings.Contains(text, "/spec/connection/url: must be tcp://…") {
		t.Errorf("devices: %s", text)
	}
}

func TestMapperCredentials(t *testing.T) {
	dir := acmeDir(t)
	e, _ := acmeEdge(t, dir)
	if _, err := NewMapperCredential(t.TempDir(), "acme"); err == nil || !strings.Contains(err.Error(), "no edge keeps its data") {
		t.Errorf("a credential for no edge: %v", err)
	}
	if _, err := NewMapperCredential(dir, "../acme"); err == nil {
		t.Error("a credential for a path")
	}
	acme := acmeCredential(t, dir)
	if info, err := os.Stat(clientPath(dir, "mapper-acme")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	other, err := NewMapperCredential(dir, "memory")
	if err != nil {
		t.Fatal(err)
	}
	connected := func(c Credential) bool {
		client := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + e.MQTTAddr()).SetUsername(c.Username).SetPassword(c.Password).SetClientID("probe").SetAutoReconnect(false))
		token := client.Connect()
		defer client.Disconnect(10)
		return token.WaitTimeout(patience) && token.Error() == nil
	}
	if !connected(acme) {
		t.Error("the credential does not work")
	}
	if connected(Credential{Username: "mapper-acme", Password: other.Password}) || connected(Credential{Username: "../context", Password: "x"}) {
		t.Error("another one's password works")
	}
	again := acmeCredential(t, dir)
	if connected(acme) || !connected(again) {
		t.Error("the former password goes on to work")
	}
	// A connection ends with its credential: with a new one, and with none.
	lost := func(c Credential, take func()) {
		t.Helper()
		gone := make(chan error, 1) // the one connection's end
		client := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + e.MQTTAddr()).SetUsername(c.Username).SetPassword(c.Password).
			SetClientID("live").SetAutoReconnect(false).SetConnectionLostHandler(func(_ paho.Client, err error) { gone <- err }))
		if token := client.Connect(); !token.WaitTimeout(patience) || token.Error() != nil {
			t.Fatal(token.Error())
		}
		take()
		select {
		case <-gone:
		case <-time.After(patience):
			t.Error("a connection outlives its credential")
		}
	}
	lost(again, func() { again = acmeCredential(t, dir) })
	lost(again, func() {
		if err := RemoveMapperCredential(dir, "acme"); err != nil || connected(again) {
			t.Errorf("removed, and it works: %v", err)
		}
	})
	if err := RemoveMapperCredential(dir, "acme"); err == nil {
		t.Error("removed twice")
	}

	// A mapper reaches its own topics alone, and no driver that is built in.
	p := newPuppet(t, e, other, "m")
	p.client.Publish("mappers/acme/announce", 1, false, `{"protocol":1,"version":"1.0.0","connection":true,"address":true}`).WaitTimeout(patience)
	if e.bridge.Mapper("acme") != nil {
		t.Error("a mapper announced another one")
	}
	for _, filter := range []string{"devices/#", "mappers/acme/#"} {
		token := p.client.Subscribe(filter, 1, func(paho.Client, paho.Message) {})
		token.WaitTimeout(patience)
		if code := token.(*paho.SubscribeToken).Result()[filter]; code != 0x80 {
			t.Errorf("subscribed to %s: %#x", filter, code)
		}
	}
	p.announce()
	eventually(t, "the built-in name is refused", func() bool { return p.count("problem") > 0 })
	if got := fmt.Sprint(p.last("problem")["detail"]); !strings.Contains(got, "built into this edge") {
		t.Errorf("problem %s", got)
	}
}
