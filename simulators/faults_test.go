package simulators

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/mappers/builtin"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/simulators/modbussim"
	"github.com/whimbrel-edge/whimbrel/simulators/opcuasim"
	"github.com/whimbrel-edge/whimbrel/simulators/serialsim"
)

// watcher is where a Runner reports to: what each property is now.
type watcher struct {
	mu       sync.Mutex
	samples  map[int]models.Sample
	mute     []string // bad values without a reason
	batches  int      // in which the device answered
	seenBad  bool
	expected int
}

func (w *watcher) Report(b mappers.Batch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, o := range b.Changed {
		w.samples[o.Property] = o.Sample
		if o.Sample.Quality != models.Good {
			w.seenBad = true
			if o.Sample.Reason == models.ReasonNone {
				w.mute = append(w.mute, fmt.Sprintf("property %d is %v", o.Property, o.Sample.Quality))
			}
		}
	}
	if len(b.Refreshed) > 0 {
		w.batches++
	}
}

func (w *watcher) Written(mappers.WriteResult) {}

func (w *watcher) State(state models.DeviceState, reason models.Reason, _ error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if state == models.StateOffline && reason == models.ReasonNone {
		w.mute = append(w.mute, "the device is offline")
	}
}

// good tells whether every property is.
func (w *watcher) good() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, s := range w.samples {
		if s.Quality == models.Good {
			n++
		}
	}
	return n == w.expected
}

func (w *watcher) state() (seenBad bool, batches int, mute []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seenBad, w.batches, slices.Clone(w.mute)
}

// await waits for a condition.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// subject is a mapper's device and all that its simulator can do to it.
type subject struct {
	protocol, connection string
	properties           []models.Property
	faults               map[string]func() error
	clear                func() error
	harmless             []string // faults that the values survive
}

// TestFaults: whatever a simulator does to a mapper's device, nothing crashes,
// every bad value says why, and the device comes back by itself. That nothing is
// left over, the package's leak check says.
func TestFaults(t *testing.T) {
	var all sync.WaitGroup // more of them than processors: they mostly wait
	defer all.Wait()
	for name, begin := range subjects() {
		all.Go(func() { t.Run(name, func(t *testing.T) { misuse(t, begin(t)) }) })
	}
}

// misuse injects all faults of a subject, one after the other.
func misuse(t *testing.T, s subject) {
	m := &models.DeviceModel{Spec: models.DeviceModelSpec{Protocol: s.protocol, Properties: s.properties, Defaults: models.PropertySettings{Every: new(models.Duration(20 * time.Millisecond))}}}
	m.Default()
	properties, err := models.Resolve(m, &models.Device{})
	if err != nil {
		t.Fatal(err)
	}
	device, err := builtin.Drivers()[s.protocol].Open(mappers.DeviceConfig{Name: "device", Connection: json.RawMessage(s.connection), Points: mappers.PointsOf(properties)})
	if err != nil {
		t.Fatal(err)
	}
	w := &watcher{samples: map[int]models.Sample{}, expected: len(properties)}
	runner := mappers.NewRunner(mappers.RunnerConfig{Name: "device", Protocol: s.protocol, Device: device, Properties: properties, Sink: w})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- runner.Run(ctx) }()
	defer func() {
		cancel()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Error("the runner does not end")
		}
	}()
	await(t, "all is good", w.good)
	for _, fault := range slices.Sorted(maps.Keys(s.faults)) {
		w.mu.Lock()
		w.seenBad = false
		w.mu.Unlock()
		_, before, _ := w.state()
		if err := s.faults[fault](); err != nil {
			t.Fatalf("%s: %v", fault, err)
		}
		await(t, fault+": it shows", func() bool {
			bad, batches, _ := w.state()
			return bad || slices.Contains(s.harmless, fault) && batches > before+2
		})
		if err := s.clear(); err != nil {
			t.Fatalf("%s: %v", fault, err)
		}
		await(t, fault+": all is good again", w.good)
		if _, _, mute := w.state(); len(mute) > 0 {
			t.Errorf("%s: %s, and nobody says why", fault, strings.Join(mute, ", "))
		}
	}
}

func subjects() map[string]func(t *testing.T) subject {
	out := map[string]func(t *testing.T) subject{"serial asked": serialSubject(false), "serial unasked": serialSubject(true),
		"opcua subscribed": opcuaSubject(true), "opcua polled": opcuaSubject(false)}
	for _, listen := range []string{"tcp://127.0.0.1:0", "rtutcp://127.0.0.1:0", "rtu://?baud=115200", "ascii://?baud=115200"} {
		scheme, _, _ := strings.Cut(listen, ":")
		out["modbus "+scheme] = modbusSubject(scheme, listen)
	}
	return out
}

func modbusSubject(scheme, listen string) func(t *testing.T) subject {
	return func(t *testing.T) subject {
		sim := modbussim.Start(t, modbussim.Config{Listen: listen, Units: []modbussim.Unit{{Unit: 1, Name: "u", Points: []modbussim.Point{
			{Name: "level", Table: "input", Register: new(uint16(3)), Encoding: "float32", Value: 4.5},
			{Name: "on", Table: "coil", Register: new(uint16(0)), Writable: true}}}}})
		s := subject{protocol: "modbus", connection: fmt.Sprintf(`{"url": %q, "timeout": "150ms"}`, sim.URL("u")),
			properties: []models.Property{
				{Name: "level", Type: models.TypeFloat, Address: json.RawMessage(`{"table":"input","register":3,"encoding":"float32"}`)},
				{Name: "on", Type: models.TypeBool, Access: models.ReadWrite, Address: json.RawMessage(`{"table":"coil","register":0}`)}},
			faults: map[string]func() error{"unplugged": func() error { sim.Unplug(); return nil }},
			clear: func() error {
				sim.Clear("u")
				return sim.Plug()
			},
			harmless: []string{modbussim.Duplicate}}
		for _, f := range []modbussim.Fault{{Kind: modbussim.Silent}, {Kind: modbussim.Slow, Delay: 400 * time.Millisecond}, {Kind: modbussim.Refuse},
			{Kind: modbussim.WrongTransaction}, {Kind: modbussim.WrongChecksum}, {Kind: modbussim.Truncated}, {Kind: modbussim.Reset},
			{Kind: modbussim.Garbage}, {Kind: modbussim.Duplicate}} {
			if f.Kind != modbussim.WrongChecksum || scheme != "tcp" { // which has none
				s.faults[f.Kind] = func() error { return sim.Inject("u", f) }
			}
		}
		return s
	}
}

func serialSubject(unasked bool) func(t *testing.T) subject {
	return func(t *testing.T) subject {
		cfg := serialsim.Config{Checksum: "crc16", Inputs: map[string]any{"level": 4.5}}
		connection, address := `{"url": %q, "timeout": "150ms", "checksum": "crc16"}`, `{"read":"L?","match":"L=([0-9.]+)"}`
		if unasked {
			cfg.Unasked = []serialsim.Unasked{{Every: 20 * time.Millisecond, Send: "L={level}"}}
			connection, address = `{"url": %q, "timeout": "150ms", "checksum": "crc16", "listen": true}`, `{"match":"L=([0-9.]+)"}`
		} else {
			cfg.Commands = []serialsim.Command{{Ask: `L\?`, Answer: "L={level}"}}
		}
		sim := serialsim.Start(t, cfg)
		s := subject{protocol: "serial", connection: fmt.Sprintf(connection, sim.URL()),
			properties: []models.Property{{Name: "level", Type: models.TypeFloat, Address: json.RawMessage(address)}},
			faults:     map[string]func() error{"unplugged": func() error { sim.Unplug(); return nil }},
			clear: func() error {
				sim.Clear()
				return sim.Plug()
			}}
		if unasked { // it comes late, but it comes
			s.harmless = []string{serialsim.Slow}
		}
		for _, f := range []serialsim.Fault{{Kind: serialsim.Silent}, {Kind: serialsim.Slow, Delay: 400 * time.Millisecond}, {Kind: serialsim.Partial},
			{Kind: serialsim.Garbage}, {Kind: serialsim.WrongChecksum}, {Kind: serialsim.HangUp}} {
			s.faults[f.Kind] = func() error { return sim.Inject(f) }
		}
		return s
	}
}

func opcuaSubject(subscribe bool) func(t *testing.T) subject {
	return func(t *testing.T) subject {
		sim := opcuasim.Start(t, opcuasim.Config{Nodes: []opcuasim.Node{{Name: "level", Type: "Float", Value: 4.5}, {Name: "on", Type: "Boolean", Writable: true}}})
		status := func(code ua.StatusCode) func() error { return func() error { return sim.SetStatus("level", code) } }
		s := subject{protocol: "opcua", connection: fmt.Sprintf(`{"url": %q, "timeout": "250ms", "publishingInterval": "50ms", "subscribe": %v}`, sim.URL(), subscribe),
			properties: []models.Property{
				{Name: "level", Type: models.TypeFloat, Address: json.RawMessage(`{"node":"ns=2;s=level"}`)},
				{Name: "on", Type: models.TypeBool, Access: models.ReadWrite, Address: json.RawMessage(`{"node":"ns=2;s=on"}`)}},
			faults: map[string]func() error{
				"unplugged": func() error { sim.Unplug(); return nil },
				"silence":   func() error { sim.Silence(); return nil },
				"hang-up":   func() error { sim.HangUp(); return nil },
				"bad":       status(ua.StatusBadSensorFailure),
				"uncertain": status(ua.StatusUncertainLastUsableValue),
			},
			clear: func() error {
				sim.Speak()
				if err := sim.SetStatus("level", ua.StatusOK); err != nil {
					return err
				}
				return sim.Plug()
			},
			harmless: []string{"hang-up"}, // the next session may be there before anybody asks
		}
		if subscribe {
			s.faults["subscriptions dropped"] = func() error { sim.DropSubscriptions(); return nil }
			s.harmless = append(s.harmless, "subscriptions dropped")
		}
		return s
	}
}
