package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/simulators/modbussim"
)

const fleetSize = 30

// units is a fleet of one-property devices, each at an address of its own or
// all on one connection, and their manifests. A device is read once per every.
func units(t testing.TB, shared bool, every, timeout time.Duration) (*modbussim.Server, string) {
	t.Helper()
	cfg := modbussim.Config{}
	for i := range fleetSize {
		u := modbussim.Unit{Unit: byte(i + 1), Name: fmt.Sprintf("unit-%d", i+1), Points: []modbussim.Point{
			{Name: "level", Table: "input", Register: new(uint16(0)), Value: i}}}
		if !shared {
			u.Listen = "127.0.0.1:0"
		}
		cfg.Units = append(cfg.Units, u)
	}
	sim := modbussim.Start(t, cfg)
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: whimbrel/v1\nkind: DeviceModel\nmetadata: {name: unit}\nspec: {protocol: modbus, defaults: {every: %v}, properties: [{name: level, type: int, access: Read, address: {table: input, register: 0}}]}\n", every)
	for _, u := range cfg.Units {
		fmt.Fprintf(&b, "---\napiVersion: whimbrel/v1\nkind: Device\nmetadata: {name: %s}\nspec: {model: unit, node: gateway, connection: {url: \"tcp://%s\", unit: %d, timeout: %v}}\n",
			u.Name, sim.UnitAddr(u.Name), u.Unit, timeout)
	}
	return sim, b.String()
}

// reads counts requests over a while: of the living units together, of the
// slowest of them, and of the first unit, which is the one that dies.
func reads(sim *modbussim.Server, d time.Duration) (living, slowest, dead uint64, took time.Duration) {
	var before [fleetSize]uint64
	began := time.Now()
	for i := range before {
		before[i] = sim.Requests(fmt.Sprintf("unit-%d", i+1))
	}
	time.Sleep(d) //sleep: the length of a measurement
	took = time.Since(began)
	slowest = 1 << 62
	for i := range before {
		n := sim.Requests(fmt.Sprintf("unit-%d", i+1)) - before[i]
		if i == 0 {
			dead = n
			continue
		}
		living += n
		slowest = min(slowest, n)
	}
	return living, slowest, dead, took
}

// probes returns when the first unit was asked, over a while; longer when that saw it
// asked only once: how long it is let be is partly chance, and grows.
func probes(sim *modbussim.Server, d time.Duration) (at []time.Duration) {
	last := sim.Requests("unit-1")
	for began := time.Now(); time.Since(began) < d || len(at) < 2 && time.Since(began) < 3*d; time.Sleep(5 * time.Millisecond) { //sleep: polls a simulator
		if n := sim.Requests("unit-1"); n != last {
			last = n
			at = append(at, time.Since(began).Round(time.Millisecond))
		}
	}
	return at
}

// TestDeadUnit lets one of thirty devices go silent.
func TestDeadUnit(t *testing.T) {
	t.Run("connections of their own", func(t *testing.T) {
		const every = 200 * time.Millisecond
		sim, manifests := units(t, false, every, time.Second)
		h := newHub(t, "")
		newEdge(t, h, "gateway", h.link)
		h.apply(manifests)
		for i := range fleetSize {
			h.awaitTwin(t, 20*time.Second, hubAPI, fmt.Sprintf("unit-%d", i+1), "is good", isGood("level"))
		}
		const while = 4 * time.Second
		before, slowestBefore, _, tookBefore := reads(sim, while)
		if err := sim.Inject("unit-1", modbussim.Fault{Kind: modbussim.Silent}); err != nil {
			t.Fatal(err)
		}
		after, slowest, _, took := reads(sim, while)
		h.awaitTwin(t, 20*time.Second, hubAPI, "unit-1", "is bad", func(d twinDoc) bool { return d.quality("level") == "bad/timeout" })
		cycle := func(n uint64, took time.Duration, devices int) time.Duration {
			return took * time.Duration(devices) / time.Duration(max(n, 1))
		}
		was, is := cycle(before, tookBefore, fleetSize-1), cycle(after, took, fleetSize-1)
		t.Logf("the others' cycle was %v and is %v; the slowest one's %v and %v", was, is, cycle(slowestBefore, tookBefore, 1), cycle(slowest, took, 1))
		if is > was*105/100 {
			t.Errorf("the others' cycle went from %v to %v, more than 5 %%", was, is)
		}
		if was > every*110/100 {
			t.Errorf("the cycle is %v with all units alive, want %v", was, every)
		}
		sim.Clear("unit-1")
		h.awaitTwin(t, 60*time.Second, hubAPI, "unit-1", "is good again", isGood("level"))
	})

	t.Run("one connection", func(t *testing.T) {
		const every, timeout = time.Second, 250 * time.Millisecond
		sim, manifests := units(t, true, every, timeout)
		h := newHub(t, "")
		newEdge(t, h, "gateway", h.link)
		if err := sim.Inject("unit-1", modbussim.Fault{Kind: modbussim.Silent}); err != nil {
			t.Fatal(err)
		}
		h.apply(manifests)
		for i := range fleetSize - 1 {
			h.awaitTwin(t, 20*time.Second, hubAPI, fmt.Sprintf("unit-%d", i+2), "is good", isGood("level"))
		}
		h.awaitTwin(t, 20*time.Second, hubAPI, "unit-1", "is bad", func(d twinDoc) bool { return d.quality("level") == "bad/timeout" })
		eventually(t, 20*time.Second, "unit-1 is demoted", func() error {
			if _, _, dead, _ := reads(sim, 2*time.Second); dead > 1 {
				return fmt.Errorf("asked %d times within 2s", dead)
			}
			return nil
		})
		while := time.Duration(setting(t, "WHIMBREL_DEAD_UNIT_SECONDS", 12)) * time.Second
		probed := make(chan []time.Duration)
		go func() { probed <- probes(sim, while) }() // received from below
		living, slowest, _, took := reads(sim, while)
		at := <-probed
		if len(at) < 2 {
			t.Fatalf("the dead unit was probed %d times in %v", len(at), 3*while)
		}
		// From one probe to another, so that it does not depend on when we began.
		share := float64(len(at)-1) * timeout.Seconds() / (at[len(at)-1] - at[0]).Seconds()
		t.Logf("probes of the dead unit at %v take %.1f %% of the line's time; in %v the others were read %d times, the slowest one %d times",
			at, 100*share, took.Round(time.Millisecond), living, slowest)
		if share > 0.05 {
			t.Errorf("probes of the dead unit take %.1f %% of the line's time, want 5 %% at most", 100*share)
		}
		if want := uint64(took/every) * (fleetSize - 1); living < want*90/100 {
			t.Errorf("the others were read %d times in %v, want about %d", living, took, want)
		}
		sim.Clear("unit-1")
		h.awaitTwin(t, 60*time.Second, hubAPI, "unit-1", "is good again", isGood("level"))
	})
}
