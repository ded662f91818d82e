package serial

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/mappers/drivertest"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/serial"
	"github.com/whimbrel-edge/whimbrel/simulators/serialsim"
	"github.com/whimbrel-edge/whimbrel/simulators/signal"
)

func pt(name string, kind models.Type, access models.Access, address string) mappers.Point {
	return mappers.Point{Property: name, Type: kind, Access: access, Address: json.RawMessage(address)}
}

// pump is a device that is asked: two values in one answer, and four inputs.
func pump() serialsim.Config {
	return serialsim.Config{
		Signals: map[string]signal.Spec{"temp": {Constant: 21.5}, "press": {Constant: -3}},
		Inputs:  map[string]any{"sp": 45.5, "mode": 1, "run": true, "name": "P-1"},
		Commands: []serialsim.Command{
			{Ask: `ALL\?`, Answer: "TEMP={temp:06.2f};PRESS={press}"},
			{Ask: `SP\?`, Answer: "SP={sp}"}, {Ask: `SP ([-0-9.]+)`, Set: "sp", Answer: "OK", Refuse: "ERR"},
			{Ask: `MODE\?`, Answer: "MODE={mode}"}, {Ask: `MODE (\d+)`, Set: "mode", Answer: "OK", Refuse: "ERR"},
			{Ask: `RUN\?`, Answer: "RUN={run}"}, {Ask: `RUN ([01])`, Set: "run", Answer: "OK", Refuse: "ERR"},
			{Ask: `NAME\?`, Answer: "{name}"}, {Ask: `NAME (.*)`, Set: "name", Answer: "OK", Refuse: "ERR"},
		},
	}
}

const (
	r  = models.Read
	rw = models.ReadWrite
)

func pumpPoints() []drivertest.Point {
	point := func(name string, kind models.Type, access models.Access, address string, value, other, beyond models.Value) drivertest.Point {
		return drivertest.Point{Point: pt(name, kind, access, address), Value: value, Other: other, Beyond: beyond}
	}
	return []drivertest.Point{
		point("temp", models.TypeFloat, r, `{"read": "ALL?", "match": "TEMP=([-0-9.]+)"}`, models.Float(21.5), models.Null, models.Null),
		point("press", models.TypeInt, r, `{"read": "ALL?", "match": "PRESS=([-0-9.]+)"}`, models.Int(-3), models.Null, models.Null),
		point("sp", models.TypeFloat, rw, `{"read": "SP?", "match": "SP=([-0-9.]+)", "write": "SP {value}", "expect": "OK"}`, models.Float(45.5), models.Float(-1.25), models.Null),
		point("mode", models.TypeInt, rw, `{"read": "MODE?", "match": "MODE=([0-9]+)", "write": "MODE {value}", "expect": "OK"}`, models.Int(1), models.Int(65535), models.Null),
		point("run", models.TypeBool, rw, `{"read": "RUN?", "match": "RUN=([01])", "write": "RUN {value}", "expect": "OK"}`, models.Bool(true), models.Bool(false), models.Null),
		point("name", models.TypeString, rw, `{"read": "NAME?", "write": "NAME {value}", "expect": "OK"}`, models.String("P-1"), models.String("Süd 2"), models.String("a\r\nSP 99")),
	}
}

func harness(d *Driver, cfg serialsim.Config, points []drivertest.Point, extra string) drivertest.Harness {
	return drivertest.Harness{
		Driver:     d,
		Parallel:   true,
		BadAddress: json.RawMessage(`{"read": "X?", "match": "("}`),
		Ignore: []goleak.Option{
			goleak.IgnoreAnyFunction("github.com/whimbrel-edge/whimbrel/simulators/serialsim.(*Server).Run"),
			goleak.IgnoreAnyFunction("github.com/whimbrel-edge/whimbrel/simulators/serialsim.(*Server).serveAll"),
			goleak.IgnoreAnyFunction("github.com/whimbrel-edge/whimbrel/simulators/serialsim.(*Server).talk"),
		},
		Start: func(t *testing.T) drivertest.Device {
			sim := serialsim.Start(t, cfg)
			return drivertest.Device{
				Connection: json.RawMessage(fmt.Sprintf(`{"url": %q, "timeout": "1s"%s}`, sim.URL(), extra)),
				Points:     points,
				Unplug:     sim.Unplug,
				Plug: func() {
					if err := sim.Plug(); err != nil {
						t.Error(err)
					}
				},
				Silence: func() {
					if err := sim.Inject(serialsim.Fault{Kind: serialsim.Silent}); err != nil {
						t.Error(err)
					}
					time.Sleep(100 * time.Millisecond) //sleep: what was said before arrives
				},
				Speak: sim.Clear,
			}
		},
	}
}

// withRefused adds a point that the device does not know.
func withRefused(h drivertest.Harness, address string) drivertest.Harness {
	start := h.Start
	h.Start = func(t *testing.T) drivertest.Device {
		dev := start(t)
		dev.Refused = pt("refused", models.TypeInt, models.Read, address)
		return dev
	}
	return h
}

func TestConformance(t *testing.T) {
	for _, sum := range []serial.Checksum{serial.NoChecksum, serial.CRC16} {
		t.Run(string(sum), func(t *testing.T) {
			cfg := pump()
			cfg.Checksum = sum
			h := harness(New(), cfg, pumpPoints(), fmt.Sprintf(`, "checksum": %q`, sum))
			drivertest.Run(t, withRefused(h, `{"read": "WHAT?", "match": "WHAT=(.)"}`))
		})
	}
}

// TestListeningConformance: the same for a device that talks unasked, and takes
// commands among that.
func TestListeningConformance(t *testing.T) {
	cfg := pump()
	cfg.Terminator, cfg.Checksum = "\n", serial.XOR
	cfg.Unasked = []serialsim.Unasked{
		{Every: 10 * time.Millisecond, Send: "TEMP={temp:06.2f};PRESS={press}"},
		{Every: 10 * time.Millisecond, Send: "SP={sp} MODE={mode} RUN={run} NAME={name}"},
	}
	points := pumpPoints()
	for i, address := range []string{
		`{"match": "TEMP=([-0-9.]+)"}`, `{"match": "PRESS=([-0-9.]+)"}`,
		`{"match": "SP=([-0-9.]+)", "write": "SP {value}", "expect": "OK"}`, `{"match": "MODE=([0-9]+)", "write": "MODE {value}", "expect": "OK"}`,
		`{"match": "RUN=([01])", "write": "RUN {value}", "expect": "OK"}`, `{"match": "NAME=(.*)$", "write": "NAME {value}", "expect": "O."}`,
	} {
		points[i].Address = json.RawMessage(address)
	}
	h := harness(New(), cfg, points, `, "terminator": "\n", "checksum": "xor", "listen": true`)
	h.BadAddress = json.RawMessage(`{"read": "X?", "match": "(.)"}`)
	drivertest.Run(t, withRefused(h, `{"match": "WHAT=(.)"}`))
}
