package modbus

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"sync"
	"testing"
	"time"

	"github.com/goburrow/modbus"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
	wire "github.com/whimbrel-edge/whimbrel/protocols/modbus"
	"github.com/whimbrel-edge/whimbrel/simulators/modbussim"
)

// sink keeps the last of everything that a Runner tells.
type sink struct {
	mu      sync.Mutex
	last    map[int]models.Sample
	cycles  []time.Time
	points  int
	state   models.DeviceState
	reason  models.Reason
	results map[string]mappers.WriteResult
}

func newSink() *sink {
	return &sink{last: map[int]models.Sample{}, results: map[string]mappers.WriteResult{}}
}

func (s *sink) Report(b mappers.Batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range b.Changed {
		s.last[o.Property] = o.Sample
	}
	if len(b.Refreshed) > 0 {
		s.cycles = append(s.cycles, b.Time)
		s.points += len(b.Refreshed)
	}
}

func (s *sink) State(state models.DeviceState, reason models.Reason, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state, s.reason = state, reason
}

func (s *sink) Written(r mappers.WriteResult) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.results[r.ID] = r
}

func (s *sink) sample(p int) models.Sample {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last[p]
}

func (s *sink) result(id string) (mappers.WriteResult, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.results[id]
	return r, ok
}

func eventually(t testing.TB, what string, within time.Duration, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(within); !ok(); time.Sleep(2 * time.Millisecond) { //sleep: polls a condition
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", within, what)
		}
	}
}

// run polls points on a device until the test ends.
func run(t testing.TB, drv *Driver, addr, extra string, every time.Duration, seed uint64, points ...mappers.Point) (*mappers.Runner, *sink) {
	t.Helper()
	dev, err := drv.Open(mappers.DeviceConfig{Points: points, Connection: json.RawMessage(fmt.Sprintf(`{"url": %q%s}`, urlOf(addr), extra))})
	if err != nil {
		t.Fatal(err)
	}
	properties := make([]models.ResolvedProperty, len(points))
	for i, p := range points {
		properties[i] = models.ResolvedProperty{Name: p.Property, Type: p.Type, Access: p.Access, Every: every, Heartbeat: time.Minute, Address: p.Address}
	}
	out := newSink()
	r := mappers.NewRunner(mappers.RunnerConfig{Name: "test", Protocol: Name, Device: dev, Properties: properties, Sink: out, Seed: seed})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return r, out
}

// TestEveryFaultHasAReasonAndAnEnd puts each fault of the simulator before a
// polled device.
func TestEveryFaultHasAReasonAndAnEnd(t *testing.T) {
	for _, c := range []struct {
		fault  modbussim.Fault
		reason models.Reason
		state  models.DeviceState
	}{
		{modbussim.Fault{Kind: modbussim.Silent}, models.ReasonTimeout, models.StateOffline},
		{modbussim.Fault{Kind: modbussim.Slow, Delay: 400 * time.Millisecond}, models.ReasonTimeout, models.StateOffline},
		{modbussim.Fault{Kind: modbussim.Refuse}, models.ReasonDeviceError, models.StateDegraded},
		{modbussim.Fault{Kind: modbussim.Refuse, Exception: wire.IllegalDataAddress}, models.ReasonDeviceError, models.StateDegraded},
		{modbussim.Fault{Kind: modbussim.Refuse, Exception: wire.DeviceBusy}, models.ReasonDeviceError, models.StateDegraded},
		{modbussim.Fault{Kind: modbussim.Refuse, Exception: wire.GatewayPathUnusable}, models.ReasonNotConnected, models.StateOffline},
		{modbussim.Fault{Kind: modbussim.Refuse, Exception: wire.GatewayTargetSilent}, models.ReasonTimeout, models.StateOffline},
		{modbussim.Fault{Kind: modbussim.WrongTransaction}, models.ReasonTimeout, models.StateOffline},
		{modbussim.Fault{Kind: modbussim.Truncated}, models.ReasonTimeout, models.StateOffline},
		{modbussim.Fault{Kind: modbussim.Reset}, models.ReasonNotConnected, models.StateOffline},
		{modbussim.Fault{Kind: modbussim.Garbage}, models.ReasonProtocolError, models.StateOffline},
	} {
		name := c.fault.Kind
		if c.fault.Exception != 0 {
			name = c.fault.Exception.String()
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sim := modbussim.Start(t, modbussim.Config{Units: []modbussim.Unit{memory(1, modbussim.Memory{Table: "holding", Register: 0, Count: 10})}})
			_, out := run(t, New(), sim.Addr(), `, "timeout": "80ms"`, 30*time.Millisecond, 1,
				pt("a", models.TypeInt, models.ReadWrite, `{"table": "holding", "register": 0}`), pt("b", models.TypeInt, models.Read, `{"table": "holding", "register": 9}`))
			good := func() bool {
				return out.sample(0).Value == models.Int(0) && out.sample(1).Quality == models.Good && !out.sample(1).Time.IsZero()
			}
			eventually(t, "the first values", 30*time.Second, good)
			if err := sim.Inject("", c.fault); err != nil {
				t.Fatal(err)
			}
			eventually(t, "bad with the reason "+string(c.reason), 30*time.Second, func() bool {
				out.mu.Lock()
				defer out.mu.Unlock()
				a, b := out.last[0], out.last[1]
				return a.Quality == models.Bad && a.Reason == c.reason && b == models.Sample{Quality: models.Bad, Reason: c.reason, Time: b.Time} && out.state == c.state && out.reason == c.reason
			})
			sim.Clear("")
			eventually(t, "good again", 30*time.Second, func() bool {
				out.mu.Lock()
				defer out.mu.Unlock()
				return out.last[0].Quality == models.Good && out.last[1].Quality == models.Good && out.state == models.StateOnline
			})
		})
	}
	t.Run("duplicate", func(t *testing.T) { // answers that come twice do no harm
		t.Parallel()
		sim := modbussim.Start(t, modbussim.Config{Units: []modbussim.Unit{memory(1, modbussim.Memory{Table: "holding", Register: 0, Count: 10})},
			Faults: []modbussim.Fault{{Kind: modbussim.Duplicate}}})
		r, out := run(t, New(), sim.Addr(), `, "timeout": "10s"`, 5*time.Millisecond, 1, pt("a", models.TypeInt, models.ReadWrite, `{"table": "holding", "register": 0}`))
		for i := range 50 {
			id := fmt.Sprint(i)
			r.Write(mappers.Write{ID: id, Value: models.Int(int64(i)), Verify: true})
			eventually(t, "write "+id, 30*time.Second, func() bool { _, ok := out.result(id); return ok })
			if got, _ := out.result(id); got.Outcome != mappers.Applied {
				t.Fatalf("write %d: %v %v", i, got.Outcome, got.Err)
			}
		}
	})
}

func TestWritesThroughTheRunner(t *testing.T) {
	limit := 60.0
	sim := modbussim.Start(t, modbussim.Config{Units: []modbussim.Unit{{Unit: 1, Name: "u", Points: []modbussim.Point{
		{Name: "setpoint", Table: "holding", Register: at(0), Encoding: "float32", Writable: true, Value: 40.0, Maximum: &limit}}}}})
	r, out := run(t, New(), sim.Addr(), `, "timeout": "2s"`, 50*time.Millisecond, 1,
		pt("setpoint", models.TypeFloat, models.ReadWrite, `{"table": "holding", "register": 0, "encoding": "float32"}`))
	eventually(t, "the first value", 30*time.Second, func() bool { return out.sample(0).Value == models.Float(40) })
	write := func(id string, v float64) mappers.WriteResult {
		t.Helper()
		if !r.Write(mappers.Write{ID: id, Value: models.Float(v), Verify: true}) {
			t.Fatal("not accepted")
		}
		eventually(t, "write "+id, 30*time.Second, func() bool { _, ok := out.result(id); return ok })
		got, _ := out.result(id)
		return got
	}
	if got := write("rounded", 21.3); got.Outcome != mappers.Applied || got.ReadBack.Value != models.Float(float64(float32(21.3))) {
		t.Errorf("%+v", got)
	}
	if got := write("too much for the device", 61); got.Outcome != mappers.Refused {
		t.Errorf("%+v", got)
	}
	if got := write("too much for the encoding", 1e300); got.Outcome != mappers.Refused {
		t.Errorf("%+v", got)
	}
	// The device does it, and nobody is told.
	if err := sim.Inject("u", modbussim.Fault{Kind: modbussim.Silent, On: "writes", Count: 1, Executed: true}); err != nil {
		t.Fatal(err)
	}
	if got := write("answer lost", 50); got.Outcome != mappers.Unconfirmed {
		t.Errorf("%+v", got)
	}
	eventually(t, "the value that was written", 30*time.Second, func() bool { return out.sample(0).Value == models.Float(50) })
	if n := len(sim.Writes()); n != 2 {
		t.Errorf("the device was written to %d times, want 2", n)
	}
	sim.Unplug()
	if got := write("unplugged", 30); got.Outcome != mappers.Unsent && got.Outcome != mappers.Unconfirmed {
		t.Errorf("%+v", got)
	}
	if got := write("unplugged still", 30); got.Outcome != mappers.Unsent {
		t.Errorf("%+v", got)
	}
	if err := sim.Plug(); err != nil {
		t.Fatal(err)
	}
}

// TestADeadUnitAmongThirty polls thirty units, one of them dead: behind one
// connection, after its demotion, it takes less than a twentieth of the line's
// time; with connections of their own the others do not notice it.
func TestADeadUnitAmongThirty(t *testing.T) {
	const units, every, timeout = 30, 100 * time.Millisecond, 60 * time.Millisecond
	const span = 1600 * time.Millisecond // a probe of the shared line and the rest before it
	for _, shared := range []bool{true, false} {
		t.Run(fmt.Sprintf("shared=%v", shared), func(t *testing.T) {
			t.Parallel() // with the other one: they mostly wait
			cfg := modbussim.Config{}
			for i := range units {
				u := memory(byte(i+1), modbussim.Memory{Table: "holding", Register: 0, Count: 10})
				if !shared {
					u.Listen = "127.0.0.1:0"
				}
				cfg.Units = append(cfg.Units, u)
			}
			sim := modbussim.Start(t, cfg)
			if err := sim.Inject("u1", modbussim.Fault{Kind: modbussim.Silent}); err != nil {
				t.Fatal(err)
			}
			drv := New()
			var sinks []*sink
			for i := range units {
				name := fmt.Sprint("u", i+1)
				_, out := run(t, drv, sim.UnitAddr(name), fmt.Sprintf(`, "unit": %d, "timeout": "%s"`, i+1, timeout), every, uint64(i)*uint64(every)/units,
					pt("a", models.TypeInt, models.Read, `{"table": "holding", "register": 0}`))
				sinks = append(sinks, out)
			}
			eventually(t, "the demotion of the dead unit", 30*time.Second, func() bool { return sim.Requests("u1") >= 3 })
			// measure tells of one span how the line's time was spent.
			measure := func() error {
				probes, began := sim.Requests("u1"), time.Now()
				time.Sleep(span) //sleep: measures how the line's time is spent
				// A busy machine's failed reads take longer, and so do the rests after them.
				eventually(t, "a probe", 30*time.Second, func() bool { return sim.Requests("u1") > probes })
				probes, took := sim.Requests("u1")-probes, time.Since(began)
				if share := float64(probes) * timeout.Seconds() / took.Seconds(); probes == 0 || shared && share >= 0.05 {
					return fmt.Errorf("%d probes took %.1f %% of the line's time", probes, 100*share)
				}
				var gaps []time.Duration
				for _, s := range sinks[1:] {
					s.mu.Lock()
					for i := 1; i < len(s.cycles); i++ {
						if s.cycles[i].After(began) {
							gaps = append(gaps, s.cycles[i].Sub(s.cycles[i-1]))
						}
					}
					s.mu.Unlock()
				}
				sort.Slice(gaps, func(i, j int) bool { return gaps[i] < gaps[j] })
				want := int(took/every) * (units - 1)
				if len(gaps) < want*9/10 {
					return fmt.Errorf("%d cycles of the other units, want about %d", len(gaps), want)
				}
				// A busy machine shifts cycles on its own: the median tells.
				if median := gaps[len(gaps)/2]; median < every*95/100 || median > every*105/100 {
					return fmt.Errorf("the median cycle of the others takes %v instead of %v", median, every)
				}
				return nil
			}
			// A machine may be busy for a while; a dead unit that takes the others' time
			// takes it always.
			var err error
			for range 4 {
				if err = measure(); err == nil {
					return
				}
			}
			t.Error(err)
		})
	}
}

// The cost of the whole path, simulator to Sink, against a bare loop over
// goburrow's own client: points/s of 100 registers in one request.
func BenchmarkRunner(b *testing.B) {
	sim := modbussim.Start(b, modbussim.Config{Units: []modbussim.Unit{memory(1, modbussim.Memory{Table: "holding", Register: 0, Count: 100})}})
	var points []mappers.Point
	for i := range 100 {
		points = append(points, pt(fmt.Sprint("p", i), models.TypeFloat, models.Read, `{"table": "holding", "register": %d, "encoding": "int16", "scale": 0.1}`, i))
	}
	_, out := run(b, New(), sim.Addr(), "", time.Microsecond, 0, points...)
	polled := func() int {
		out.mu.Lock()
		defer out.mu.Unlock()
		return out.points
	}
	eventually(b, "the first values", 5*time.Second, func() bool { return polled() > 0 })
	start := polled()
	for b.Loop() {
		for enough := polled() + 100*100; polled() < enough; {
			time.Sleep(100 * time.Microsecond) //sleep: waits for the Runner
		}
	}
	b.ReportMetric(float64(polled()-start)/b.Elapsed().Seconds(), "points/s")
}

func BenchmarkGoburrow(b *testing.B) {
	sim := modbussim.Start(b, modbussim.Config{Units: []modbussim.Unit{memory(1, modbussim.Memory{Table: "holding", Register: 0, Count: 100})}})
	h := modbus.NewTCPClientHandler(sim.Addr())
	h.SlaveId = 1
	defer h.Close()
	client := modbus.NewClient(h)
	n, sum := 0, 0.0
	for b.Loop() {
		for range 100 {
			data, err := client.ReadHoldingRegisters(0, 100)
			if err != nil {
				b.Fatal(err)
			}
			for i := range 100 {
				sum += float64(int16(uint16(data[2*i])<<8|uint16(data[2*i+1]))) * 0.1
			}
			n += 100
		}
	}
	if sum != 0 {
		fmt.Fprintln(os.Stderr, sum)
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "points/s")
}
