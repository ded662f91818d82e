package simulators

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

	"github.com/gopcua/opcua/ua"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/mappers/builtin"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/modbus"
	"github.com/whimbrel-edge/whimbrel/protocols/recording"
	"github.com/whimbrel-edge/whimbrel/simulators/modbussim"
	"github.com/whimbrel-edge/whimbrel/simulators/opcuasim"
	"github.com/whimbrel-edge/whimbrel/simulators/serialsim"
	"github.com/whimbrel-edge/whimbrel/simulators/signal"
)

// tape records a device as the edge does.
type tape struct {
	mu      sync.Mutex
	started time.Time
	lines   []byte
}

func record(t *testing.T, d mappers.Device, h recording.Header) *tape {
	t.Helper()
	h.Version, h.Started = recording.Version, time.Now()
	tp := &tape{started: h.Started}
	tp.put(t, h)
	d.(mappers.Recordable).Record(func(e recording.Event, at time.Time) {
		tp.mu.Lock()
		defer tp.mu.Unlock()
		e.At = max(0, recording.Millis(at.Sub(tp.started)))
		for i := range e.Values {
			if e.Values[i].Source != nil {
				*e.Values[i].Source += e.At
			}
		}
		tp.put(t, e)
	})
	return tp
}

func (tp *tape) put(t *testing.T, v any) {
	line, err := recording.Line(v)
	if err != nil {
		t.Error(err)
	}
	tp.lines = append(tp.lines, line...)
}

// end writes the file.
func (tp *tape) end(t *testing.T, d mappers.Device) string {
	t.Helper()
	d.(mappers.Recordable).Record(nil)
	tp.put(t, recording.Event{At: recording.Millis(time.Since(tp.started)), Over: true})
	path := filepath.Join(t.TempDir(), "device.jsonl")
	if err := os.WriteFile(path, tp.lines, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// bench is a device to record, and what can be done to it.
type bench struct {
	protocol   string
	connection func() string // with %q for the URL
	url        func() string
	properties []models.Property
	set        func(v float64) error
	faults     map[string]func() error // begin; each is cleared after its step
	clear      func()
}

// outcome is what a read brought, in words.
func outcome(t *testing.T, d mappers.Device, n int) string {
	t.Helper()
	points, results := make([]int, n), make([]mappers.Result, n)
	for i := range points {
		points[i] = i
	}
	if err := d.Read(t.Context(), points, results); err != nil {
		return string(mappers.FailureOf(err).Reason)
	}
	var words []string
	for _, r := range results {
		words = append(words, strings.TrimSpace(fmt.Sprintf("%v %v %v", r.Value, r.Quality, r.Reason)))
	}
	return strings.Join(words, "; ")
}

func opened(t *testing.T, protocol, connection string, properties []models.Property) mappers.Device {
	t.Helper()
	m := &models.DeviceModel{Spec: models.DeviceModelSpec{Protocol: protocol, Properties: properties}}
	m.Default()
	resolved, err := models.Resolve(m, &models.Device{})
	if err != nil {
		t.Fatal(err)
	}
	d, err := builtin.Drivers()[protocol].Open(mappers.DeviceConfig{Name: "device", Connection: json.RawMessage(connection), Points: mappers.PointsOf(resolved)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// TestRecordings: a device that was recorded while its values moved and things
// went wrong, played again, is the same to the mapper, step by step.
func TestRecordings(t *testing.T) {
	for name, make := range benches() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := make(t)
			d := opened(t, b.protocol, fmt.Sprintf(b.connection(), b.url()), b.properties)
			outcome(t, d, len(b.properties)) // connects
			tp := record(t, d, recording.Header{Protocol: b.protocol, Device: "device", Connection: json.RawMessage(fmt.Sprintf(b.connection(), b.url())), Properties: b.properties})
			steps := []string{"1", "2"}
			for f := range b.faults {
				steps = append(steps, f)
			}
			slices.Sort(steps)
			steps = append(steps, "3")
			var want []string
			var times []time.Duration
			for _, step := range steps {
				if f := b.faults[step]; f != nil {
					if err := f(); err != nil {
						t.Fatal(err)
					}
				} else if err := b.set(float64(step[0] - '0')); err != nil {
					t.Fatal(err)
				}
				want = append(want, outcome(t, d, len(b.properties)))
				times = append(times, time.Since(tp.started))
				b.clear()
			}
			t.Log(strings.Join(want, " | "))
			path := tp.end(t, d)
			d.Close()

			played := StartRecording(t, path, Replay{})
			device, err := played.Device()
			if err != nil {
				t.Fatal(err)
			}
			again := opened(t, b.protocol, string(device.Spec.Connection), played.Recording.Properties)
			for i, step := range steps {
				played.Seek(times[i])
				if got := outcome(t, again, len(b.properties)); got != want[i] {
					t.Errorf("%s: played %q, recorded %q", step, got, want[i])
				}
			}
			for _, line := range played.Report() {
				t.Errorf("report: %s", line)
			}
		})
	}
}

func benches() map[string]func(t *testing.T) bench {
	out := map[string]func(t *testing.T) bench{}
	for _, listen := range []string{"tcp://127.0.0.1:0", "rtutcp://127.0.0.1:0", "rtu://?baud=115200", "ascii://?baud=115200"} {
		scheme, _, _ := strings.Cut(listen, ":")
		out["modbus "+scheme] = func(t *testing.T) bench { return modbusBench(t, listen) }
	}
	out["serial"] = serialBench
	out["opcua"] = opcuaBench
	return out
}

func modbusBench(t *testing.T, listen string) bench {
	sim := modbussim.Start(t, modbussim.Config{Listen: listen, Units: []modbussim.Unit{{Unit: 1, Name: "u", Points: []modbussim.Point{
		{Name: "level", Table: "input", Register: new(uint16(3)), Encoding: "float32", Signal: "level"},
		{Name: "on", Table: "coil", Register: new(uint16(0)), Writable: true},
	}}}, Signals: map[string]signal.Spec{"level": {Constant: 0.5}}})
	fault := func(f modbussim.Fault) func() error { return func() error { return sim.Inject("u", f) } }
	b := bench{protocol: "modbus", url: func() string { return sim.URL("u") }, connection: func() string { return `{"url": %q, "unit": 1, "timeout": "500ms"}` },
		properties: []models.Property{
			{Name: "level", Type: models.TypeFloat, Access: models.Read, Address: json.RawMessage(`{"table":"input","register":3,"encoding":"float32"}`)},
			{Name: "on", Type: models.TypeBool, Access: models.ReadWrite, Address: json.RawMessage(`{"table":"coil","register":0}`)},
		},
		set: func(v float64) error { return sim.Set("u", "level", v) }, clear: func() { sim.Clear("u") },
		faults: map[string]func() error{
			"exception": fault(modbussim.Fault{Kind: modbussim.Refuse, Exception: 4}),
			"silent":    fault(modbussim.Fault{Kind: modbussim.Silent}),
			"garbage":   fault(modbussim.Fault{Kind: modbussim.Garbage}),
			"slow":      fault(modbussim.Fault{Kind: modbussim.Slow, Delay: 40 * time.Millisecond}),
			"truncated": fault(modbussim.Fault{Kind: modbussim.Truncated}),
			"wrong":     fault(modbussim.Fault{Kind: modbussim.WrongTransaction}),
		}}
	if strings.HasPrefix(listen, "tcp") || strings.HasPrefix(listen, "rtutcp") {
		b.faults["reset"] = fault(modbussim.Fault{Kind: modbussim.Reset})
	}
	return b
}

func serialBench(t *testing.T) bench {
	sim := serialsim.Start(t, serialsim.Config{Checksum: "crc16", Inputs: map[string]any{"level": 0.5, "on": true}, Commands: []serialsim.Command{
		{Ask: `L\?`, Answer: "L={level:.1f}"}, {Ask: `ON\?`, Answer: "ON={on}"}}})
	fault := func(f serialsim.Fault) func() error { return func() error { return sim.Inject(f) } }
	return bench{protocol: "serial", url: sim.URL, connection: func() string { return `{"url": %q, "timeout": "500ms", "checksum": "crc16"}` },
		properties: []models.Property{
			{Name: "level", Type: models.TypeFloat, Access: models.Read, Address: json.RawMessage(`{"read":"L?","match":"L=([0-9.]+)"}`)},
			{Name: "on", Type: models.TypeBool, Access: models.Read, Address: json.RawMessage(`{"read":"ON?","match":"ON=([01])"}`)},
		},
		set: func(v float64) error { return sim.Set("level", v) }, clear: sim.Clear,
		faults: map[string]func() error{
			"silent":  fault(serialsim.Fault{Kind: serialsim.Silent}),
			"garbage": fault(serialsim.Fault{Kind: serialsim.Garbage}),
			"partial": fault(serialsim.Fault{Kind: serialsim.Partial}),
			"slow":    fault(serialsim.Fault{Kind: serialsim.Slow, Delay: 40 * time.Millisecond}),
			"sum":     fault(serialsim.Fault{Kind: serialsim.WrongChecksum}),
		}}
}

func opcuaBench(t *testing.T) bench {
	sim := opcuasim.Start(t, opcuasim.Config{Nodes: []opcuasim.Node{
		{Name: "level", Type: "Float", Writable: true, Value: 0.5}, {Name: "on", Type: "Boolean", Value: true},
		{Name: "list", Type: "Int16", Array: true, Value: []any{1, 2}}}})
	status := func(s ua.StatusCode) func() error { return func() error { return sim.SetStatus("level", s) } }
	return bench{protocol: "opcua", url: sim.URL, connection: func() string { return `{"url": %q, "timeout": "1s", "subscribe": false}` },
		properties: []models.Property{
			{Name: "level", Type: models.TypeFloat, Access: models.ReadWrite, Address: json.RawMessage(`{"node":"ns=2;s=level"}`)},
			{Name: "on", Type: models.TypeBool, Access: models.Read, Address: json.RawMessage(`{"node":"nsu=urn:whimbrel:simulator:opcua:nodes;s=on"}`)},
			{Name: "second", Type: models.TypeInt, Access: models.Read, Address: json.RawMessage(`{"node":"ns=2;s=list","index":1}`)},
			{Name: "list", Type: models.TypeArray, Access: models.Read, Address: json.RawMessage(`{"node":"ns=2;s=list"}`)},
			{Name: "gone", Type: models.TypeInt, Access: models.Read, Address: json.RawMessage(`{"node":"ns=2;s=gone"}`)},
		},
		set: func(v float64) error { return sim.Set("level", v) },
		clear: func() {
			if err := sim.SetStatus("level", ua.StatusOK); err != nil {
				t.Error(err)
			}
			sim.Speak()
		},
		faults: map[string]func() error{
			"bad":       status(ua.StatusBadSensorFailure),
			"uncertain": status(ua.StatusUncertainLastUsableValue),
			"silent":    func() error { sim.Silence(); return nil },
		}}
}

// What is not in a recording, what was written while it played, and a line that
// goes away.
func TestRecordingOfItsOwn(t *testing.T) {
	head := `{"recording":1,"protocol":"modbus","device":"d","started":"2026-01-31T12:00:00Z","connection":{"url":"tcp://192.0.2.7:502","unit":1}}` + "\n"
	lines := head +
		// holding 10 and 11: 1, 2; then 3, 4; then the line is gone for a second.
		`{"ms":0,"send":"0001000000060103000a0002","came":[{"after":0,"bytes":"0001000000070103040001"},{"after":1,"bytes":"0002"}],"took":1}
{"ms":1000,"send":"0002000000060103000a0002","came":[{"after":0,"bytes":"00020000000701030400030004"}],"took":1}
{"ms":2000,"end":"no-line","error":"refused"}
{"ms":3000,"send":"0003000000060103000a0002","came":[{"after":0,"bytes":"000300000003018306"}],"took":1,"dropped":7}
{"ms":4000,"send":"000400000006010600140007","came":[{"after":0,"bytes":"000400000006010600140007"}],"took":1}
`
	path := filepath.Join(t.TempDir(), "d.jsonl")
	if err := os.WriteFile(path, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	played := StartRecording(t, path, Replay{})
	if says := played.Describe()[0]; !strings.Contains(says, "lacks 7 events") || !strings.Contains(says, "ends early") {
		t.Errorf("it says %s", says)
	}
	if _, err := played.Model(); err == nil {
		t.Error("a model of nothing")
	}
	line := modbus.NewLine(modbus.LineConfig{Address: played.Addr()})
	defer line.Close()
	client := line.Client(1, time.Second)
	read := func(at time.Duration, register, count uint16) string {
		t.Helper()
		played.Seek(at)
		regs, err := client.ReadHolding(t.Context(), register, count)
		if err != nil {
			return err.Error()
		}
		return fmt.Sprintf("% x", regs)
	}
	for _, c := range []struct {
		at              time.Duration
		register, count uint16
		want            string
	}{
		{0, 10, 2, "00 01 00 02"},
		{999 * time.Millisecond, 10, 2, "00 01 00 02"},
		{1500 * time.Millisecond, 10, 2, "00 03 00 04"},
		{1500 * time.Millisecond, 11, 1, "00 04"}, // pieced together
		{2500 * time.Millisecond, 10, 2, "not connected"},
		{3500 * time.Millisecond, 10, 2, "exception 6"},
		{0, 11, 2, "exception 2"},
	} {
		if got := read(c.at, c.register, c.count); !strings.Contains(got, c.want) {
			t.Errorf("at %s, %d registers from %d: %s, want %s", c.at, c.count, c.register, got, c.want)
		}
	}
	played.Seek(0)
	if err := client.WriteRegister(t.Context(), 20, []byte{0, 7}); err != nil {
		t.Error(err)
	}
	if err := client.WriteRegister(t.Context(), 20, []byte{0, 8}); err == nil || !strings.Contains(err.Error(), "exception 2") {
		t.Error(err)
	}
	got := strings.Join(played.Report(), "\n")
	for _, want := range []string{"not recorded, asked 1 times: unit 1: function 3, holding 11 to 12", "not recorded, asked 1 times: unit 1: function 6, holding 20 to 20",
		"pieced together of other answers, asked 1 times: unit 1: function 3, holding 11 to 11", "written: holding 20: 00 07", "written: holding 20: 00 08"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
}

// A device that talks unasked talks again, faster; a file of events is what Load
// makes a simulator of.
func TestRecordingUnasked(t *testing.T) {
	lines := `{"recording":1,"protocol":"serial","device":"scale","started":"2026-01-31T12:00:00Z","connection":{"url":"serial:///dev/ttyUSB0?baud=9600","listen":true}}
{"ms":0,"came":[{"after":0,"bytes":"532031320d0a"}]}
{"ms":1000,"came":[{"after":0,"bytes":"5320"}]}
{"ms":1001,"came":[{"after":0,"bytes":"31330d0a"}]}
{"ms":2000,"over":true}
`
	path := filepath.Join(t.TempDir(), "scale.jsonl")
	if err := os.WriteFile(path, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	if sims, err := Load(path); err != nil || len(sims) != 1 {
		t.Fatal(sims, err)
	}
	played := StartRecording(t, path, Replay{Speed: 100, Loop: true})
	device, err := played.Device()
	if err != nil {
		t.Fatal(err)
	}
	d := opened(t, "serial", string(device.Spec.Connection), []models.Property{{Name: "w", Type: models.TypeInt, Access: models.Read, Address: json.RawMessage(`{"match":"S ([0-9]+)"}`)}})
	seen := map[string]bool{}
	for deadline := time.Now().Add(10 * time.Second); len(seen) < 2 && time.Now().Before(deadline); {
		seen[outcome(t, d, 1)] = true
	}
	if !seen["12 good"] || !seen["13 good"] {
		t.Errorf("heard %v", seen)
	}
}

func TestRecordingsRefused(t *testing.T) {
	for text, want := range map[string]string{
		`{"recording":9}` + "\n":                                                                                     "use a newer one",
		`{"recording":1,"protocol":"mqtt","connection":{}}` + "\n":                                                   "not of mqtt",
		`{"recording":1,"protocol":"modbus","connection":{"url":"x://"}}` + "\n":                                     "listen",
		`{"recording":1,"protocol":"opcua","connection":{}}` + "\n":                                                  "no nodes",
		`{"recording":1,"protocol":"opcua","connection":{}}` + "\n" + `{"ms":0,"values":[{"node":"q=1","value":1}]}`: "must be a node id",
		`{"recording":1,"protocol":"serial","connection":{"length":-1}}` + "\n":                                      "length",
	} {
		path := filepath.Join(t.TempDir(), "x.jsonl")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want …%s…", err, want)
		}
	}
}
