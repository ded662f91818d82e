package modbus

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/whimbrel-edge/whimbrel/mappers/drivertest"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/simulators/modbussim"
)

func TestConformance(t *testing.T) {
	for _, listen := range []string{"tcp://127.0.0.1:0", "rtutcp://127.0.0.1:0", "rtu://?baud=921600", "ascii://?baud=921600"} {
		scheme, _, _ := strings.Cut(listen, ":")
		t.Run(scheme, func(t *testing.T) { conforms(t, listen) })
	}
}

// conforms runs the suite against a simulator that listens so.
func conforms(t *testing.T, listen string) {
	unit := modbussim.Unit{Unit: 7, Name: "u", Points: []modbussim.Point{
		{Name: "temperature", Table: "input", Register: at(0), Encoding: "int16", Scale: 0.1, Value: 21.5},
		{Name: "setpoint", Table: "holding", Register: at(10), Encoding: "float32", Order: "CDAB", Writable: true, Value: 45.5},
		{Name: "mode", Table: "holding", Register: at(12), Encoding: "uint16", Writable: true, Value: int64(1)},
		{Name: "running", Table: "coil", Register: at(0), Writable: true, Value: true},
		{Name: "serial", Table: "holding", Register: at(20), Encoding: "string", Length: 4, Writable: true, Value: "WB-20"},
		{Name: "total", Table: "holding", Register: at(30), Encoding: "uint64", Writable: true, Value: uint64(1<<63 + 1)},
		{Name: "level", Table: "holding", Register: at(14), Encoding: "int16", Scale: 0.5, Writable: true, Value: -2.5},
	}, Memory: []modbussim.Memory{{Table: "holding", Register: 40, Count: 1}}}
	point := func(name string, kind models.Type, access models.Access, address string, value, other, beyond models.Value) drivertest.Point {
		return drivertest.Point{Point: pt(name, kind, access, "%s", address), Value: value, Other: other, Beyond: beyond}
	}
	const r, w = models.Read, models.ReadWrite
	points := []drivertest.Point{
		point("temperature", models.TypeFloat, r, `{"table": "input", "register": 0, "encoding": "int16", "scale": 0.1}`, models.Float(21.5), models.Null, models.Null),
		point("setpoint", models.TypeFloat, w, `{"table": "holding", "register": 10, "encoding": "float32", "order": "CDAB"}`, models.Float(45.5), models.Float(-1.25), models.Float(1e300)),
		point("mode", models.TypeInt, w, `{"reference": 40013}`, models.Int(1), models.Int(65535), models.Int(65536)),
		point("running", models.TypeBool, w, `{"table": "coil", "register": 0}`, models.Bool(true), models.Bool(false), models.Null),
		point("serial", models.TypeString, w, `{"table": "holding", "register": 20, "encoding": "string", "length": 4}`, models.String("WB-20"), models.String("XY"), models.String("123456789")),
		point("total", models.TypeInt, w, `{"table": "holding", "register": 30, "encoding": "uint64"}`, models.Uint(1<<63+1), models.Int(7), models.Int(-1)),
		point("level", models.TypeFloat, w, `{"table": "holding", "register": 14, "encoding": "int16", "scale": 0.5}`, models.Float(-2.5), models.Float(100), models.Float(20000)),
		point("flag", models.TypeBool, w, `{"table": "holding", "register": 40, "bit": 9}`, models.Bool(false), models.Bool(true), models.Null),
		point("other flag", models.TypeBool, w, `{"table": "holding", "register": 40, "bit": 2}`, models.Bool(false), models.Bool(true), models.Null),
	}
	simulator := []goleak.Option{
		goleak.IgnoreAnyFunction("github.com/whimbrel-edge/whimbrel/simulators/modbussim.(*port).run"),
		goleak.IgnoreAnyFunction("github.com/whimbrel-edge/whimbrel/simulators/modbussim.(*port).serve"),
	}
	if !strings.Contains(listen, "tcp") { // on a pty it listens to the line, whether anybody has it open or not
		simulator = append(simulator, goleak.IgnoreAnyFunction("github.com/whimbrel-edge/whimbrel/simulators/modbussim.(*port).talk"))
	}
	drivertest.Run(t, drivertest.Harness{
		Driver:     New(),
		BadAddress: json.RawMessage(`{"table": "holding", "register": 70000}`),
		Ignore:     simulator,
		Start: func(t *testing.T) drivertest.Device {
			sim := modbussim.Start(t, modbussim.Config{Listen: listen, Units: []modbussim.Unit{unit}})
			return drivertest.Device{
				Connection: json.RawMessage(fmt.Sprintf(`{"url": %q, "unit": 7, "timeout": "1s"}`, sim.URL("u"))),
				Points:     points,
				Refused:    pt("refused", models.TypeInt, models.Read, `{"table": "holding", "register": 13}`),
				Unplug:     func() { sim.Unplug() },
				Plug: func() {
					if err := sim.Plug(); err != nil {
						t.Error(err)
					}
				},
				Silence: func() {
					if err := sim.Inject("", modbussim.Fault{Kind: modbussim.Silent}); err != nil {
						t.Error(err)
					}
				},
				Speak: func() { sim.Clear("") },
			}
		},
	})
}
