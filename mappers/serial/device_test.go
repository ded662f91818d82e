package serial

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
	wire "github.com/whimbrel-edge/whimbrel/protocols/serial"
	"github.com/whimbrel-edge/whimbrel/simulators/serialsim"
	"github.com/whimbrel-edge/whimbrel/simulators/signal"
)

func open(t testing.TB, d *Driver, connection string, points ...mappers.Point) mappers.Device {
	t.Helper()
	dev, err := d.Open(mappers.DeviceConfig{Name: "test", Connection: json.RawMessage(connection), Points: points})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	return dev
}

func all(n int) []int {
	points := make([]int, n)
	for i := range points {
		points[i] = i
	}
	return points
}

func asked(sim *serialsim.Server) map[string]int {
	n := map[string]int{}
	for _, r := range sim.Requests() {
		n[r.Text]++
	}
	return n
}

func TestEqualQuestionsAreAskedOnce(t *testing.T) {
	t.Parallel()
	sim := serialsim.Start(t, pump())
	points := pumpPoints()
	var pts []mappers.Point
	for _, p := range points {
		pts = append(pts, p.Point)
	}
	dev := open(t, New(), fmt.Sprintf(`{"url": %q}`, sim.URL()), pts...)
	out := make([]mappers.Result, len(pts))
	if err := dev.Read(t.Context(), all(len(pts)), out); err != nil {
		t.Fatal(err)
	}
	for i, p := range points {
		if out[i].Value != p.Value {
			t.Errorf("%s: %v", p.Property, out[i])
		}
	}
	if got := fmt.Sprint(asked(sim)); got != "map[ALL?:1 MODE?:1 NAME?:1 RUN?:1 SP?:1]" {
		t.Error(got)
	}
	plan := dev.(mappers.Planner).Plan(all(len(pts)))
	if len(plan) != 5 || plan[0].Text != `"ALL?"` || plan[0].Points != 2 {
		t.Errorf("%+v", plan)
	}
}

// TestDevicesTakeTurns: several devices on one port, with a pause between
// exchanges.
func TestDevicesTakeTurns(t *testing.T) {
	t.Parallel()
	cfg := serialsim.Config{Signals: map[string]signal.Spec{"a": {Constant: 1}, "b": {Constant: 2}, "c": {Constant: 3}}}
	for _, name := range []string{"a", "b", "c"} {
		cfg.Commands = append(cfg.Commands, serialsim.Command{Ask: name + `\?`, Answer: "{" + name + "}"})
	}
	sim := serialsim.Start(t, cfg)
	d := New()
	const pause, reads = 15 * time.Millisecond, 5
	var wg sync.WaitGroup
	for i, name := range []string{"a", "b", "c"} {
		extra := ""
		if name == "b" { // one that wants a pause gets it before and after
			extra = `, "pause": "15ms"`
		}
		dev := open(t, d, fmt.Sprintf(`{"url": %q%s}`, sim.URL(), extra), pt(name, "int", r, fmt.Sprintf(`{"read": "%s?"}`, name)))
		wg.Go(func() {
			for range reads {
				out := make([]mappers.Result, 1)
				if err := dev.Read(t.Context(), []int{0}, out); err != nil || out[0].Value != models.Int(int64(i+1)) {
					t.Errorf("%s: %v, %v", name, out[0], err)
				}
			}
		})
	}
	wg.Wait()
	log := sim.Requests()
	if len(log) != 3*reads {
		t.Errorf("%d requests", len(log))
	}
	for i := 1; i < len(log); i++ {
		if apart := log[i].Time.Sub(log[i-1].Time); (log[i].Text == "b?" || log[i-1].Text == "b?") && apart < pause {
			t.Errorf("%s came %v after %s", log[i].Text, apart, log[i-1].Text)
		}
	}
}

// TestOtherSettings: a port cannot be open in two ways, and says so.
func TestOtherSettings(t *testing.T) {
	t.Parallel()
	sim := serialsim.Start(t, pump())
	d := New()
	out := make([]mappers.Result, 1)
	one := open(t, d, fmt.Sprintf(`{"url": %q}`, sim.URL()), pt("sp", "float", r, `{"read": "SP?", "match": "SP=(.*)"}`))
	if err := one.Read(t.Context(), []int{0}, out); err != nil {
		t.Fatal(err)
	}
	two := open(t, d, fmt.Sprintf(`{"url": "%s?baud=19200", "timeout": "100ms"}`, sim.URL()), pt("sp", "float", r, `{"read": "SP?"}`))
	err := two.Read(t.Context(), []int{0}, out)
	if f := mappers.FailureOf(err); err == nil || f.Reason != models.ReasonNotConnected || !f.Unsent {
		t.Errorf("%v", err)
	}
}

// TestWhatADeviceDoesNotKnow: a question that is never answered costs its own
// point only, and little time.
func TestWhatADeviceDoesNotKnow(t *testing.T) {
	t.Parallel()
	sim := serialsim.Start(t, pump())
	dev := open(t, New(), fmt.Sprintf(`{"url": %q, "timeout": "1s"}`, sim.URL()),
		pt("x", "float", r, `{"read": "X?", "match": "X=(.*)"}`), pt("sp", "float", r, `{"read": "SP?", "match": "SP=(.*)"}`))
	out := make([]mappers.Result, 2)
	for range 20 {
		if err := dev.Read(t.Context(), []int{0, 1}, out); err != nil {
			t.Fatal(err)
		}
		if out[0].Reason != models.ReasonTimeout || out[1].Value != models.Float(45.5) {
			t.Fatalf("%+v", out)
		}
	}
	if n := asked(sim); n["SP?"] != 20 || n["X?"] < quietAfter || n["X?"] > quietAfter+2 {
		t.Errorf("%v", n)
	}
	// Alone, it does not make the device look lost.
	if err := dev.Read(t.Context(), []int{0}, out[:1]); err != nil || out[0].Reason != models.ReasonTimeout {
		t.Errorf("%v, %v", out[0], err)
	}
	// One that is lost is lost, whatever was known of it.
	if err := sim.Inject(serialsim.Fault{Kind: serialsim.Silent}); err != nil {
		t.Fatal(err)
	}
	if err := dev.Read(t.Context(), []int{0, 1}, out); mappers.FailureOf(err).Reason != models.ReasonTimeout {
		t.Errorf("%v", err)
	}
}

// TestLength: binary messages of a fixed length.
func TestLength(t *testing.T) {
	t.Parallel()
	cfg := serialsim.Config{Length: 5, Checksum: wire.CRC16, Signals: map[string]signal.Spec{"v": {Constant: "\x01þ"}}, Inputs: map[string]any{"w": "ab"},
		Commands: []serialsim.Command{{Ask: "\x02\u00fe", Answer: "\x02{v}"}, {Ask: "r", Answer: "R{w}"}, {Ask: "W(..)", Set: "w", Answer: "\x06  "}}}
	sim := serialsim.Start(t, cfg)
	dev := open(t, New(), fmt.Sprintf(`{"url": %q, "length": 5, "checksum": "crc16", "timeout": "10s"}`, sim.URL()),
		pt("v", "bytes", r, `{"read": "\u0002\u00fe", "match": "(?s)^\u0002(..)$"}`),
		pt("w", "string", rw, `{"read": "r", "match": "R(..)", "write": "W{value}", "expect": "\u0006 *"}`))
	out := make([]mappers.Result, 2)
	if err := dev.Read(t.Context(), []int{0, 1}, out); err != nil {
		t.Fatal(err)
	}
	if out[0].Value != models.Bytes([]byte{1, 0xFE}) || out[1].Value != models.String("ab") {
		t.Errorf("%+v", out)
	}
	if errs := dev.Write(t.Context(), []mappers.WriteRequest{{Point: 1, Value: models.String("çd")}}); errs[0] != nil {
		t.Error(errs)
	}
	if err := dev.Read(t.Context(), []int{1}, out[:1]); err != nil || out[0].Value != models.String("çd") {
		t.Errorf("%+v, %v", out[0], err)
	}
}

// TestWrites: what a write says of answers that are not the expected one.
func TestWrites(t *testing.T) {
	t.Parallel()
	cfg := pump()
	low, high := 0.0, 95.0
	for i := range cfg.Commands {
		if cfg.Commands[i].Set == "sp" {
			cfg.Commands[i].Minimum, cfg.Commands[i].Maximum = &low, &high
		}
	}
	cfg.Checksum = wire.Sum8
	sim := serialsim.Start(t, cfg)
	d := New()
	waiting := func(timeout string) mappers.Device {
		return open(t, d, fmt.Sprintf(`{"url": %q, "timeout": %q, "checksum": "sum8"}`, sim.URL(), timeout),
			pt("sp", "float", rw, `{"read": "SP?", "match": "SP=(.*)", "write": "SP {value}", "expect": "OK"}`))
	}
	// Only where there is no answer, or no whole one, is a timeout waited for.
	patient, hasty := waiting("10s"), waiting("1s")
	for _, c := range []struct {
		fault   serialsim.Fault
		value   float64
		reason  models.Reason // none: it succeeds
		refused bool
		done    bool
	}{
		{serialsim.Fault{}, 50, models.ReasonNone, false, true},
		{serialsim.Fault{}, 96, models.ReasonDeviceError, true, false},
		{serialsim.Fault{Kind: serialsim.Silent}, 51, models.ReasonTimeout, false, false},
		{serialsim.Fault{Kind: serialsim.Silent, Executed: true}, 52, models.ReasonTimeout, false, true},
		{serialsim.Fault{Kind: serialsim.Slow, Delay: 50 * time.Millisecond}, 53, models.ReasonNone, false, true},
		{serialsim.Fault{Kind: serialsim.Partial}, 54, models.ReasonProtocolError, false, true},
		{serialsim.Fault{Kind: serialsim.Garbage}, 55, ReasonChecksum, false, true},
		{serialsim.Fault{Kind: serialsim.WrongChecksum}, 56, ReasonChecksum, false, true},
		{serialsim.Fault{Kind: serialsim.HangUp}, 57, models.ReasonNotConnected, false, false},
	} {
		sim.Clear()
		if c.fault.Kind != "" {
			c.fault.Count = 1
			if err := sim.Inject(c.fault); err != nil {
				t.Fatal(err)
			}
		}
		before, dev := len(sim.Writes()), patient
		if c.fault.Kind == serialsim.Silent || c.fault.Kind == serialsim.Partial {
			dev = hasty
		}
		err := dev.Write(t.Context(), []mappers.WriteRequest{{Point: 0, Value: models.Float(c.value)}})[0]
		switch {
		case c.reason == models.ReasonNone && err != nil:
			t.Errorf("%v %v: %v", c.fault.Kind, c.value, err)
		case c.reason != models.ReasonNone:
			if f := mappers.FailureOf(err); err == nil || f.Reason != c.reason || f.Refused != c.refused || f.Unsent {
				t.Errorf("%v %v: %v (%+v), want %s", c.fault.Kind, c.value, err, f, c.reason)
			}
		}
		if got := len(sim.Writes()) - before; (got == 1) != c.done {
			t.Errorf("%v %v: carried out %d times", c.fault.Kind, c.value, got)
		}
		sim.Clear()
		// After a right answer the next wrong one is not taken for a late one.
		eventually(t, "an answer", func() bool { // a line that was hung up comes back
			return patient.Read(t.Context(), []int{0}, make([]mappers.Result, 1)) == nil
		})
	}
}

// sink keeps the last of everything that a Runner tells.
type sink struct {
	mu    sync.Mutex
	last  map[int]models.Sample
	state models.DeviceState
	why   models.Reason
	ids   map[string]mappers.WriteResult
}

func (s *sink) Report(b mappers.Batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range b.Changed {
		s.last[o.Property] = o.Sample
	}
}

func (s *sink) State(state models.DeviceState, reason models.Reason, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state, s.why = state, reason
}

func (s *sink) Written(r mappers.WriteResult) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ids[r.ID] = r
}

func (s *sink) now() (models.DeviceState, models.Reason, []models.Sample) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var samples []models.Sample
	for i := range len(s.last) {
		samples = append(samples, s.last[i])
	}
	return s.state, s.why, samples
}

func (s *sink) result(id string) (mappers.WriteResult, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.ids[id]
	return r, ok
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) { //sleep: polls a condition
		if time.Now().After(deadline) {
			t.Fatalf("not within 30s: %s", what)
		}
	}
}

func run(t testing.TB, dev mappers.Device, points ...mappers.Point) (*mappers.Runner, *sink) {
	t.Helper()
	properties := make([]models.ResolvedProperty, len(points))
	for i, p := range points {
		properties[i] = models.ResolvedProperty{Name: p.Property, Type: p.Type, Access: p.Access, Every: 30 * time.Millisecond, Heartbeat: time.Minute, Address: p.Address}
	}
	out := &sink{last: map[int]models.Sample{}, ids: map[string]mappers.WriteResult{}}
	r := mappers.NewRunner(mappers.RunnerConfig{Name: "test", Protocol: Name, Device: dev, Properties: properties, Sink: out})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return r, out
}

// TestEveryFaultHasAReasonAndAnEnd puts each fault of the simulator before a
// device that is asked and one that talks, both under a Runner.
func TestEveryFaultHasAReasonAndAnEnd(t *testing.T) {
	t.Parallel()
	for _, listen := range []bool{false, true} {
		for _, c := range []struct {
			fault   serialsim.Fault
			reasons []models.Reason // asked, any of them
			heard   []models.Reason // listened to
		}{
			{serialsim.Fault{Kind: serialsim.Silent}, []models.Reason{models.ReasonTimeout}, []models.Reason{models.ReasonTimeout}},
			{serialsim.Fault{Kind: serialsim.Slow, Delay: time.Second}, []models.Reason{models.ReasonTimeout}, []models.Reason{models.ReasonTimeout}},
			{serialsim.Fault{Kind: serialsim.Partial}, []models.Reason{models.ReasonProtocolError}, []models.Reason{models.ReasonTimeout, ReasonChecksum}},
			{serialsim.Fault{Kind: serialsim.Garbage}, []models.Reason{ReasonChecksum}, []models.Reason{models.ReasonTimeout}},
			{serialsim.Fault{Kind: serialsim.WrongChecksum}, []models.Reason{ReasonChecksum}, []models.Reason{ReasonChecksum}},
			{serialsim.Fault{Kind: serialsim.HangUp}, []models.Reason{models.ReasonNotConnected}, []models.Reason{models.ReasonNotConnected, models.ReasonTimeout}},
		} {
			t.Run(fmt.Sprintf("%s listen=%v", c.fault.Kind, listen), func(t *testing.T) {
				t.Parallel()
				cfg := pump()
				cfg.Checksum = wire.XOR
				connection, wanted := `{"url": %q, "timeout": "300ms", "checksum": "xor"}`, c.reasons
				point := pt("sp", "float", r, `{"read": "SP?", "match": "P=([0-9.]+)"}`)
				if listen {
					cfg.Unasked = []serialsim.Unasked{{Every: 20 * time.Millisecond, Send: "SP={sp}"}}
					connection, wanted = `{"url": %q, "timeout": "300ms", "checksum": "xor", "listen": true}`, c.heard
					point.Address = json.RawMessage(`{"match": "P=([0-9.]+)"}`)
				}
				sim := serialsim.Start(t, cfg)
				dev, err := New().Open(mappers.DeviceConfig{Connection: json.RawMessage(fmt.Sprintf(connection, sim.URL())), Points: []mappers.Point{point}})
				if err != nil {
					t.Fatal(err)
				}
				_, out := run(t, dev, point)
				good := func() bool {
					state, _, samples := out.now()
					return state == models.StateOnline && len(samples) == 1 && samples[0].Quality == models.Good && samples[0].Value == models.Float(45.5)
				}
				eventually(t, "a good value", good)
				for range 2 {
					if err := sim.Inject(c.fault); err != nil {
						t.Fatal(err)
					}
					eventually(t, fmt.Sprintf("bad because of one of %v", wanted), func() bool {
						state, why, samples := out.now()
						return state != models.StateOnline && samples[0].Quality == models.Bad && slices.Contains(wanted, samples[0].Reason) && slices.Contains(wanted, why)
					})
					sim.Clear()
					eventually(t, "a good value again", good)
				}
			})
		}
	}
}

// TestUnplugged: a line that is pulled out and put in again comes back, and a
// write meanwhile is not sent later.
func TestUnplugged(t *testing.T) {
	t.Parallel()
	for _, listen := range []bool{false, true} {
		t.Run(fmt.Sprintf("listen=%v", listen), func(t *testing.T) {
			t.Parallel()
			cfg := pump()
			point := pt("sp", "float", rw, `{"read": "SP?", "match": "SP=(.*)", "write": "SP {value}", "expect": "OK"}`)
			connection := `{"url": %q, "timeout": "3s"}`
			if listen {
				cfg.Unasked = []serialsim.Unasked{{Every: 20 * time.Millisecond, Send: "SP={sp}"}}
				point.Address = json.RawMessage(`{"match": "SP=(.*)", "write": "SP {value}", "expect": "OK"}`)
				connection = `{"url": %q, "timeout": "3s", "listen": true}`
			}
			sim := serialsim.Start(t, cfg)
			dev, err := New().Open(mappers.DeviceConfig{Connection: json.RawMessage(fmt.Sprintf(connection, sim.URL())), Points: []mappers.Point{point}})
			if err != nil {
				t.Fatal(err)
			}
			r, out := run(t, dev, point)
			is := func(v float64) func() bool {
				return func() bool {
					state, _, samples := out.now()
					return state == models.StateOnline && len(samples) == 1 && samples[0].Quality == models.Good && samples[0].Value == models.Float(v)
				}
			}
			eventually(t, "a good value", is(45.5))
			sim.Unplug()
			eventually(t, "offline", func() bool {
				state, why, _ := out.now()
				return state == models.StateOffline && why == models.ReasonNotConnected
			})
			r.Write(mappers.Write{ID: "lost", Property: 0, Value: models.Float(1), Verify: true})
			eventually(t, "the write's fate", func() bool { _, ok := out.result("lost"); return ok })
			if got, _ := out.result("lost"); got.Outcome != mappers.Unsent {
				t.Errorf("%v, %v", got.Outcome, got.Err)
			}
			if err := sim.Plug(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the value again", is(45.5))
			r.Write(mappers.Write{ID: "w", Property: 0, Value: models.Float(60.25), Verify: true})
			eventually(t, "the write's fate", func() bool { _, ok := out.result("w"); return ok })
			if got, _ := out.result("w"); got.Outcome != mappers.Applied {
				t.Errorf("%v, %v", got.Outcome, got.Err)
			}
			eventually(t, "the new value", is(60.25))
		})
	}
}

// TestChatter: announcements, echoes and late answers are not taken for the
// answer.
func TestChatter(t *testing.T) {
	t.Parallel()
	cfg := pump()
	cfg.Unasked = []serialsim.Unasked{{Every: 3 * time.Millisecond, Send: "LOG all is well"}}
	sim := serialsim.Start(t, cfg)
	dev := open(t, New(), fmt.Sprintf(`{"url": %q, "timeout": "10s"}`, sim.URL()),
		pt("sp", "float", rw, `{"read": "SP?", "match": "^SP=(.*)", "write": "SP {value}", "expect": "OK"}`))
	out := make([]mappers.Result, 1)
	good := 0
	for i := range 20 {
		err := dev.Read(t.Context(), []int{0}, out)
		switch {
		case err == nil && out[0].Value == models.Float(45.5):
			good++
		case err != nil || out[0].Quality == models.Good:
			t.Fatalf("read %d: %v, %v", i, out[0], err)
		default: // a busy machine lets more than the grace pass between an announcement and the answer
			t.Logf("read %d: %v", i, out[0].Err)
		}
	}
	if good < 10 {
		t.Errorf("%d of 20 reads found the answer", good)
	}
}

// TestBadValuesSayWhy: which question, what was said instead, what to look at.
func TestBadValuesSayWhy(t *testing.T) {
	t.Parallel()
	cfg := pump()
	cfg.Commands = append(cfg.Commands, serialsim.Command{Ask: `BUSY\?`, Answer: "BUSY, ask later"})
	sim := serialsim.Start(t, cfg)
	dev := open(t, New(), fmt.Sprintf(`{"url": %q, "timeout": "1s"}`, sim.URL()), pt("sp", "float", r, `{"read": "SP?", "match": "SP=(.*)"}`),
		pt("x", "float", r, `{"read": "X?"}`), pt("busy", "float", r, `{"read": "BUSY?", "match": "T=(.*)"}`), pt("name", "float", r, `{"read": "NAME?"}`))
	out := make([]mappers.Result, 4)
	if err := dev.Read(t.Context(), []int{0, 1, 2, 3}, out); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"<nil>", `no answer to "X?" within 1s`, `the answer to "BUSY?" is "BUSY, ask later", which does not fit match T=(.*)`, `the device says "P-1", which is no float`} {
		if got := fmt.Sprint(out[i].Err); got != want {
			t.Errorf("%d: %s, want %s", i, got, want)
		}
	}
	for connection, want := range map[string]string{
		`"checksum": "none"`: `fits no property's match: waited 1s, last it said "LOG all is well"`,
		`"terminator": "@"`:  "has no end within 1s: are baud rate and terminator",
		`"checksum": "xor"`:  `nothing of use within 1s; last it said`,
	} {
		cfg := serialsim.Config{Unasked: []serialsim.Unasked{{Every: 10 * time.Millisecond, Send: "LOG all is well"}}}
		talking, err := New().Open(mappers.DeviceConfig{Connection: json.RawMessage(fmt.Sprintf(`{"url": %q, "timeout": "1s", "listen": true, %s}`, serialsim.Start(t, cfg).URL(), connection)),
			Points: []mappers.Point{pt("sp", "float", r, `{"match": "SP=(.*)"}`)}})
		if err != nil {
			t.Fatal(err)
		}
		if err := talking.Read(t.Context(), []int{0}, out[:1]); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", connection, err)
		}
		if err := talking.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestSilentPoint: of a device that talks, one property may fall silent alone.
func TestSilentPoint(t *testing.T) {
	t.Parallel()
	cfg := pump()
	cfg.Unasked = []serialsim.Unasked{{Every: 20 * time.Millisecond, Send: "SP={sp}"}}
	sim := serialsim.Start(t, cfg)
	points := []mappers.Point{pt("sp", "float", r, `{"match": "SP=(.*)"}`), pt("x", "float", r, `{"match": "X=(.*)"}`)}
	dev, err := New().Open(mappers.DeviceConfig{Connection: json.RawMessage(fmt.Sprintf(`{"url": %q, "timeout": "200ms", "listen": true}`, sim.URL())), Points: points})
	if err != nil {
		t.Fatal(err)
	}
	_, out := run(t, dev, points...)
	eventually(t, "one good, one bad", func() bool {
		state, why, s := out.now()
		return state == models.StateDegraded && why == models.ReasonTimeout && len(s) == 2 && s[0].Quality == models.Good && s[1].Reason == models.ReasonTimeout
	})
	sim.Say("X=7")
	eventually(t, "both good", func() bool {
		state, _, s := out.now()
		return state == models.StateOnline && s[1].Value == models.Float(7)
	})
	eventually(t, "one bad again", func() bool {
		_, _, s := out.now()
		return s[1].Reason == models.ReasonTimeout && s[0].Quality == models.Good
	})
}
