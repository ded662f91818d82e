package plant

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"net/url"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/modbus"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newPlant(t *testing.T) *Plant {
	t.Helper()
	p, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Unplug() })
	return p
}

// clock steps a plant that does not run through time.
type clock struct {
	t   *testing.T
	p   *Plant
	now time.Time
}

func (c *clock) pass(d time.Duration) {
	c.t.Helper()
	for end := c.now.Add(d); c.now.Before(end); {
		c.now = c.now.Add(100 * time.Millisecond)
		if err := c.p.Step(c.now); err != nil {
			c.t.Fatal(err)
		}
	}
}

func (c *clock) get(unit, point string) float64 {
	c.t.Helper()
	v, err := c.p.Get(unit, point)
	if err != nil {
		c.t.Fatal(err)
	}
	switch v := v.(type) {
	case float64:
		return v
	case int64:
		return float64(v)
	case uint64:
		return float64(v)
	}
	c.t.Fatalf("%s %s is %v", unit, point, v)
	return 0
}

func (c *clock) near(unit, point string, want, within float64) {
	c.t.Helper()
	if got := c.get(unit, point); math.Abs(got-want) > within {
		c.t.Errorf("%s %s is %v, want %v ± %v", unit, point, got, want, within)
	}
}

// TestPhysics: what is turned in one device shows in the others, in time that
// somebody who watches has.
func TestPhysics(t *testing.T) {
	p := newPlant(t)
	c := &clock{t: t, p: p, now: time.Now().Add(time.Second)}
	set := func(unit, point string, v any) {
		t.Helper()
		if err := p.Set(unit, point, v); err != nil {
			t.Fatal(err)
		}
	}
	c.pass(60 * time.Second)
	c.near("boiler-1", "temperature", 45, 0.5)
	c.near("pump-1", "speed", 1450, 2)
	c.near("pump-1", "flow", 12, 0.1)
	before, counted := c.get("meter-1", "power"), c.get("meter-1", "energyTotal")

	set("boiler-1", "setpoint", 60.0)
	c.pass(5 * time.Second)
	if got := c.get("boiler-1", "temperature"); got < 47 || got > 59 {
		t.Errorf("5 s after the setpoint went to 60 the temperature is %v", got)
	}
	if got := c.get("meter-1", "power"); got < before+5 {
		t.Errorf("the burner heats and the meter shows %v kW after %v", got, before)
	}
	c.pass(30 * time.Second)
	c.near("boiler-1", "temperature", 60, 0.5)

	set("boiler-1", "running", false)
	set("pump-1", "running", false)
	c.pass(30 * time.Second)
	c.near("boiler-1", "burner", 0, 0.1)
	c.near("pump-1", "current", 0, 0.01)
	c.near("meter-1", "power", 1.2, 0.01)
	if got := c.get("boiler-1", "temperature"); got > 50 {
		t.Errorf("30 s without a burner the temperature is %v", got)
	}
	if got := c.get("meter-1", "energyTotal"); got <= counted {
		t.Errorf("energy went from %v to %v Wh", counted, got)
	}
	if kwh := c.get("meter-1", "energy"); math.Abs(kwh*1000-c.get("meter-1", "energyTotal")) > 10 {
		t.Errorf("%v kWh and %v Wh", kwh, c.get("meter-1", "energyTotal"))
	}

	set("boiler-1", "setpoint", 95.0)
	set("boiler-1", "running", true)
	c.pass(60 * time.Second)
	if v, _ := p.Get("boiler-1", "alarm"); v != true {
		t.Errorf("alarm is %v at %v degrees", v, c.get("boiler-1", "temperature"))
	}
	// A long sleep of the machine does not blow anything up.
	c.now = c.now.Add(12 * time.Hour)
	c.pass(time.Second)
	c.near("boiler-1", "temperature", 95, 5)
}

// TestManifests: the objects are valid, name the devices of the contract, and
// every property reads, over the wire, what the simulator shows.
func TestManifests(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	p, err := Start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		if err := p.Wait(); err != nil {
			t.Error(err)
		}
	}()
	objects, err := models.DecodeObjects(p.Manifests())
	if err != nil {
		t.Fatal(err)
	}
	byModel := map[string]*models.DeviceModel{}
	var devices []*models.Device
	for _, o := range objects {
		switch o := o.(type) {
		case *models.DeviceModel:
			if errs := o.Validate(); len(errs) > 0 {
				t.Errorf("model %s: %v", o.Metadata.Name, errs)
			}
			byModel[o.Metadata.Name] = o
		case *models.Device:
			if errs := o.Validate(); len(errs) > 0 {
				t.Errorf("device %s: %v", o.Metadata.Name, errs)
			}
			devices = append(devices, o)
		default:
			t.Errorf("a %T among the manifests", o)
		}
	}
	if len(devices) != 3 {
		t.Fatalf("%d devices", len(devices))
	}
	seen := map[string]bool{}
	for _, d := range devices {
		name := d.Metadata.Name
		if d.Spec.Node != "local" {
			t.Errorf("%s is on node %q", name, d.Spec.Node)
		}
		var connection struct{ URL string }
		if err := json.Unmarshal(d.Spec.Connection, &connection); err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(connection.URL)
		if err != nil || u.Scheme != "tcp" || u.Host != p.UnitAddr(name) || u.Port() == "0" || seen[u.Host] {
			t.Errorf("%s connects to %v, listens on %s", name, u, p.UnitAddr(name))
			continue
		}
		seen[u.Host] = true
		line := modbus.NewLine(modbus.LineConfig{Address: u.Host})
		defer line.Close()
		client := line.Client(1, time.Second)
		for _, prop := range byModel[d.Spec.Model].Spec.Properties {
			t.Run(name+" "+prop.Name, func(t *testing.T) { check(t, p, client, name, prop.Name, prop.Address) })
		}
	}
}

// check reads a property as its address says and compares with the simulator.
func check(t *testing.T, p *Plant, client *modbus.Client, device, property string, addressJSON json.RawMessage) {
	var address map[string]any
	if err := json.Unmarshal(addressJSON, &address); err != nil {
		t.Fatal(err)
	}
	text := func(key, or string) string {
		if v, ok := address[key]; ok {
			return fmt.Sprint(v)
		}
		return or
	}
	number := func(key string, or float64) float64 {
		var f float64
		if _, err := fmt.Sscan(text(key, fmt.Sprint(or)), &f); err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		return f
	}
	table, err := modbus.ParseTable(text("table", ""))
	if err != nil {
		t.Fatal(err)
	}
	encoding, err := modbus.ParseEncoding(text("encoding", "bool"))
	if err != nil {
		t.Fatal(err)
	}
	order, err := modbus.ParseOrder(text("order", ""))
	if err != nil {
		t.Fatal(err)
	}
	count := encoding.Registers() + int(number("length", 0))
	data, err := client.Read(t.Context(), table, uint16(number("register", -1)), uint16(count))
	if err != nil {
		t.Fatal(err)
	}
	if table.Bits() {
		data = binary.BigEndian.AppendUint16(nil, uint16(data[0]))
	}
	raw, err := encoding.Decode(order, data)
	if err != nil {
		t.Fatal(err)
	}
	want, err := p.Get(device, property)
	if err != nil {
		t.Fatal(err)
	}
	switch want := want.(type) {
	case bool:
		if raw.Bool() != want {
			t.Errorf("read %v, shows %v", raw, want)
		}
	case string:
		if raw.Text() != want {
			t.Errorf("read %v, shows %v", raw, want)
		}
	default:
		var shown float64
		if _, err := fmt.Sscan(fmt.Sprint(want), &shown); err != nil {
			t.Fatal(err)
		}
		got := raw.Float() * number("scale", 1)
		if math.Abs(got-shown) > 0.02*math.Abs(shown)+2 { // a tick may lie between
			t.Errorf("read %v, shows %v", got, shown)
		}
	}
}
