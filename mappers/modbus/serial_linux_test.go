package modbus

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/simulators/modbussim"
)

// lines3 is the three ways besides Modbus TCP.
var lines3 = []string{"rtu://?baud=115200", "ascii://?baud=115200", "rtutcp://127.0.0.1:0"}

// TestEveryFaultOnALine is TestEveryFaultHasAReasonAndAnEnd on serial lines,
// where another unit on the same line goes on all the while. All lines fail and
// come back together, since most of the time passes in back-off.
func TestEveryFaultOnALine(t *testing.T) {
	t.Parallel()
	type bench struct {
		name          string
		sim           *modbussim.Server
		faulty, other *sink
		fault         modbussim.Fault
		reason        models.Reason
		state         models.DeviceState
	}
	var benches []*bench
	for _, listen := range lines3 {
		for _, b := range []bench{
			{fault: modbussim.Fault{Kind: modbussim.Silent}, reason: models.ReasonTimeout, state: models.StateOffline},
			{fault: modbussim.Fault{Kind: modbussim.Slow, Delay: 300 * time.Millisecond}, reason: models.ReasonTimeout, state: models.StateOffline},
			{fault: modbussim.Fault{Kind: modbussim.Refuse}, reason: models.ReasonDeviceError, state: models.StateDegraded},
			{fault: modbussim.Fault{Kind: modbussim.WrongTransaction}, reason: models.ReasonTimeout, state: models.StateOffline},
			{fault: modbussim.Fault{Kind: modbussim.WrongChecksum}, reason: models.ReasonProtocolError, state: models.StateOffline},
			{fault: modbussim.Fault{Kind: modbussim.Truncated}, reason: models.ReasonProtocolError, state: models.StateOffline},
			{fault: modbussim.Fault{Kind: modbussim.Garbage}, reason: models.ReasonProtocolError, state: models.StateOffline},
			{fault: modbussim.Fault{Kind: modbussim.Reset}, reason: models.ReasonNotConnected, state: models.StateOffline},
		} {
			b.name = listen[:5] + " " + b.fault.Kind
			area := modbussim.Memory{Table: "holding", Register: 0, Count: 10}
			b.sim = modbussim.Start(t, modbussim.Config{Listen: listen, Units: []modbussim.Unit{memory(1, area), memory(3, area)}})
			drv := New()
			poll := func(unit int) *sink {
				_, out := run(t, drv, b.sim.URL("u1"), fmt.Sprintf(`, "timeout": "120ms", "unit": %d`, unit), 50*time.Millisecond, uint64(unit),
					pt("a", models.TypeInt, models.ReadWrite, `{"table": "holding", "register": 0}`),
					pt("b", models.TypeInt, models.Read, `{"table": "holding", "register": 9}`))
				return out
			}
			b.faulty, b.other = poll(1), poll(3)
			benches = append(benches, &b)
		}
	}
	each := func(what string, within time.Duration, ok func(b *bench) bool) {
		t.Helper()
		deadline := time.Now().Add(within)
		for _, b := range benches {
			eventually(t, b.name+": "+what, max(time.Millisecond, time.Until(deadline)), func() bool { return ok(b) })
		}
	}
	good := func(s *sink) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.last[0].Quality == models.Good && s.last[1].Quality == models.Good && s.state == models.StateOnline && s.points > 0
	}
	each("the first values", 90*time.Second, func(b *bench) bool { return good(b.faulty) && good(b.other) })
	for _, b := range benches {
		if err := b.sim.Inject("u1", b.fault); err != nil {
			t.Fatal(err)
		}
	}
	each("bad with the reason", 90*time.Second, func(b *bench) bool {
		b.faulty.mu.Lock()
		defer b.faulty.mu.Unlock()
		first, second := b.faulty.last[0], b.faulty.last[1]
		return first.Quality == models.Bad && first.Reason == b.reason && second.Quality == models.Bad && second.Reason == b.reason &&
			b.faulty.state == b.state && b.faulty.reason == b.reason
	})
	before := map[*bench]int{}
	for _, b := range benches {
		b.other.mu.Lock()
		before[b] = b.other.points
		b.other.mu.Unlock()
	}
	each("more of the other unit", 90*time.Second, func(b *bench) bool {
		b.other.mu.Lock()
		defer b.other.mu.Unlock()
		return b.other.points > before[b]+4
	})
	for _, b := range benches {
		b.sim.Clear("u1")
	}
	each("good again", 90*time.Second, func(b *bench) bool { return good(b.faulty) && good(b.other) })
}

// TestUnitsShareASerialLine: one port for all, however its url is spelt, the
// port let go of after the last, and back after it was pulled.
func TestUnitsShareASerialLine(t *testing.T) {
	t.Parallel()
	area := modbussim.Memory{Table: "holding", Register: 0, Count: 10}
	path := filepath.Join(t.TempDir(), "ttyMeters")
	sim := modbussim.Start(t, modbussim.Config{Listen: "rtu://" + path, Units: []modbussim.Unit{memory(1, area), memory(2, area), memory(3, area)}})
	drv := New()
	var devices []*device
	for i, url := range []string{"rtu://" + path, "rtu://" + path + "?baud=19200", "rtu://" + path + "?stopBits=1&parity=even&dataBits=8"} {
		d := open(t, drv, url, fmt.Sprintf(`, "unit": %d, "timeout": "5s"`, i+1), pt("a", models.TypeInt, models.ReadWrite, `{"table": "holding", "register": 0}`))
		if err := d.Write(t.Context(), []mappers.WriteRequest{{Value: models.Int(int64(i + 1))}})[0]; err != nil {
			t.Fatal(err)
		}
		devices = append(devices, d)
	}
	if len(drv.lines.byTarget) != 1 {
		t.Fatalf("%d lines", len(drv.lines.byTarget))
	}
	for i, d := range devices {
		if got := read(t, d)[0].Value; got != models.Int(int64(i+1)) {
			t.Errorf("unit %d reads %v", i+1, got)
		}
		if want := "rtu://" + path + "?baud=19200&parity=even&dataBits=8&stopBits=1"; d.Line() != want {
			t.Errorf("line %s, want %s", d.Line(), want)
		}
	}
	sim.Unplug()
	for _, d := range devices {
		err := d.Read(t.Context(), []int{0}, make([]mappers.Result, 1))
		if f := mappers.FailureOf(err); err == nil || f.Reason != models.ReasonNotConnected {
			t.Errorf("unplugged: %v", err)
		}
	}
	err := devices[0].Write(t.Context(), []mappers.WriteRequest{{Value: models.Int(9)}})[0]
	if f := mappers.FailureOf(err); err == nil || !f.Unsent || f.Reason != models.ReasonNotConnected {
		t.Errorf("a write, unplugged: %+v", err)
	}
	if err := sim.Plug(); err != nil {
		t.Fatal(err)
	}
	for i, d := range devices {
		eventually(t, "an answer", 30*time.Second, func() bool {
			out := make([]mappers.Result, 1)
			return d.Read(t.Context(), []int{0}, out) == nil && out[0].Value == models.Int(int64(i+1))
		})
	}
	// Others with another idea of the line get it once it is free.
	slow := open(t, drv, "rtu://"+path+"?baud=9600", `, "timeout": "5s"`, pt("a", models.TypeInt, models.Read, `{"table": "holding", "register": 0}`))
	err = slow.Read(t.Context(), []int{0}, make([]mappers.Result, 1))
	if f := mappers.FailureOf(err); err == nil || f.Reason != models.ReasonNotConnected {
		t.Errorf("other settings: %v", err)
	}
	for _, d := range devices {
		d.Close()
	}
	if got := read(t, slow)[0].Value; got != models.Int(1) {
		t.Errorf("alone: %v", got)
	}
}

// TestADeadUnitOnALine: a unit that is off takes less than a tenth of the
// line's time from the others.
func TestADeadUnitOnALine(t *testing.T) {
	t.Parallel()
	const units, every, timeout = 6, 100 * time.Millisecond, 60 * time.Millisecond
	cfg := modbussim.Config{Listen: "rtu://?baud=115200"}
	for i := range units {
		cfg.Units = append(cfg.Units, memory(byte(i+1), modbussim.Memory{Table: "holding", Register: 0, Count: 10}))
	}
	sim := modbussim.Start(t, cfg)
	if err := sim.Inject("u1", modbussim.Fault{Kind: modbussim.Silent}); err != nil {
		t.Fatal(err)
	}
	poll := func(sim *modbussim.Server) (sinks []*sink) {
		drv := New()
		for i := range units {
			_, out := run(t, drv, sim.URL("u1"), fmt.Sprintf(`, "unit": %d, "timeout": "%s"`, i+1, timeout), every, uint64(i)*uint64(every)/units,
				pt("a", models.TypeInt, models.Read, `{"table": "holding", "register": 0}`))
			sinks = append(sinks, out)
		}
		return sinks
	}
	// The same without a dead unit tells what the machine is able to.
	sinks, sound := poll(sim), poll(modbussim.Start(t, cfg))
	eventually(t, "the demotion of the dead unit", 30*time.Second, func() bool { return sim.Requests("u1") >= 3 })
	cycles := func(sinks []*sink) (n int) {
		for _, s := range sinks[1:] {
			s.mu.Lock()
			n += len(s.cycles)
			s.mu.Unlock()
		}
		return n
	}
	measure := func() error {
		before, soundly, probes, began := cycles(sinks), cycles(sound), sim.Requests("u1"), time.Now()
		eventually(t, "twelve cycles of each other unit", 60*time.Second, func() bool { return cycles(sinks)-before >= 12*(units-1) })
		probes, took := sim.Requests("u1")-probes, time.Since(began)
		if share := float64(probes) * timeout.Seconds() / took.Seconds(); share >= 0.1 {
			return fmt.Errorf("%d probes took %.1f %% of the line's time", probes, 100*share)
		}
		if n := cycles(sound) - soundly; n > 2*12*(units-1) {
			return fmt.Errorf("the others were polled twelve times in %v, those on a sound line %d times", took, n/(units-1))
		}
		return nil
	}
	// A machine may be busy for a while; a dead unit that takes the others' time takes
	// it always.
	var err error
	for range 4 {
		if err = measure(); err == nil {
			return
		}
	}
	t.Error(err)
}
