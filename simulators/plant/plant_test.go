package plant

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/mappers/builtin"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/simulators/scenario"
	"github.com/whimbrel-edge/whimbrel/simulators/serialsim"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newPlant(t *testing.T) *Plant {
	t.Helper()
	p, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
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
// every property reads, by the drivers, what the simulators show.
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
	if p.Scale == nil {
		t.Fatalf("no scale: %v", p.NoScale)
	}
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
	drivers := builtin.Drivers()
	var names []string
	for _, d := range devices {
		names = append(names, d.Metadata.Name)
		if d.Spec.Node != "local" {
			t.Errorf("%s is on node %q", d.Metadata.Name, d.Spec.Node)
		}
		t.Run(d.Metadata.Name, func(t *testing.T) {
			m := byModel[d.Spec.Model]
			check(t, p, drivers[m.Spec.Protocol], m, d)
		})
	}
	if want := []string{"boiler-1", "pump-1", "meter-1", "press-1", "scale-1"}; !slices.Equal(names, want) {
		t.Errorf("the devices are %v, want %v", names, want)
	}
}

// check reads a device and compares with what its simulator shows.
func check(t *testing.T, p *Plant, driver mappers.Driver, m *models.DeviceModel, d *models.Device) {
	properties, err := models.Resolve(m, d)
	if err != nil {
		t.Fatal(err)
	}
	device, err := driver.Open(mappers.DeviceConfig{Name: d.Metadata.Name, Connection: d.Spec.Connection, Points: mappers.PointsOf(properties)})
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	points, results := make([]int, len(properties)), make([]mappers.Result, len(properties))
	for i := range points {
		points[i] = i
	}
	if err := device.Read(t.Context(), points, results); err != nil {
		t.Fatal(err)
	}
	for i, r := range results {
		name := properties[i].Name
		if r.Quality != models.Good {
			t.Errorf("%s is %v, %v", name, r.Quality, r.Reason)
			continue
		}
		var shown any
		switch d.Metadata.Name {
		case "press-1":
			shown, err = p.Press.Get(name)
		case "scale-1":
			if name == "weight" {
				name = "net"
			}
			shown, err = p.Scale.Get(name)
		default:
			shown, err = p.Get(d.Metadata.Name, name)
		}
		if err != nil {
			t.Error(err)
			continue
		}
		want, err := strconv.ParseFloat(fmt.Sprint(shown), 64)
		if got, ok := r.Value.AsFloat(); ok && err == nil {
			if math.Abs(got-want) > 0.02*math.Abs(want)+2 { // a tick may lie between
				t.Errorf("%s reads %v, shows %v", name, got, want)
			}
			continue
		}
		if text, ok := r.Value.AsString(); ok && text == fmt.Sprint(shown) {
			continue
		}
		if got := strings.NewReplacer(",", " ", `"`, "").Replace(r.Value.String()); got != fmt.Sprint(shown) {
			t.Errorf("%s reads %v, shows %v", name, got, shown)
		}
	}
}

// Without ptys the plant does without its scale, and says so.
func TestWithoutPtys(t *testing.T) {
	p, err := load()
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	cfg, err := scenario.Load[serialsim.Config]("testdata/nowhere.yaml", serialsim.Kind)
	if err != nil {
		t.Fatal(err)
	}
	if p.Scale, err = serialsim.New(cfg); err != nil {
		t.Fatal(err)
	}
	if err := p.listen(); err != nil {
		t.Fatal(err)
	}
	if said := p.Describe(); p.Scale != nil || len(said) != 5 || !strings.HasPrefix(said[4], "no scale-1: ") {
		t.Errorf("scale %v; it says %q", p.Scale, said)
	}
	objects, err := models.DecodeObjects(p.Manifests())
	if err != nil || len(objects) != 8 {
		t.Errorf("%d objects in the manifests: %v", len(objects), err)
	}
}
