package modbus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
	wire "github.com/whimbrel-edge/whimbrel/protocols/modbus"
	"github.com/whimbrel-edge/whimbrel/simulators/modbussim"
)

func at(register int) *uint16 { r := uint16(register); return &r }

// pt is a property for Open.
func pt(name string, t models.Type, access models.Access, address string, args ...any) mappers.Point {
	return mappers.Point{Property: name, Type: t, Access: access, Address: json.RawMessage(fmt.Sprintf(address, args...))}
}

// urlOf is the url of a TCP address, or the url that it already is.
func urlOf(addr string) string {
	if strings.Contains(addr, "://") {
		return addr
	}
	return "tcp://" + addr
}

// open opens a device at an address, closed when the test ends. extra is more
// of the connection, such as `, "unit": 2`.
func open(t testing.TB, drv *Driver, addr, extra string, points ...mappers.Point) *device {
	t.Helper()
	dev, err := drv.Open(mappers.DeviceConfig{Name: "test", Points: points,
		Connection: json.RawMessage(fmt.Sprintf(`{"url": %q%s}`, urlOf(addr), extra))})
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() { dev.Close() })
	return dev.(*device)
}

func all(d *device) []int {
	points := make([]int, len(d.points))
	for i := range points {
		points[i] = i
	}
	return points
}

func read(t testing.TB, d *device, points ...int) []mappers.Result {
	t.Helper()
	if points == nil {
		points = all(d)
	}
	out := make([]mappers.Result, len(points))
	if err := d.Read(t.Context(), points, out); err != nil {
		t.Fatalf("read: %v", err)
	}
	return out
}

func memory(unit byte, tables ...modbussim.Memory) modbussim.Unit {
	return modbussim.Unit{Unit: unit, Name: fmt.Sprint("u", unit), Memory: tables}
}

func TestEveryEncodingInEveryOrder(t *testing.T) {
	var f32 float64 = float64(float32(-12.3456))
	values := map[string][]struct {
		sim  any
		want models.Value
	}{
		"int16":   {{int64(-32768), models.Int(-32768)}, {int64(258), models.Int(258)}},
		"uint16":  {{int64(65535), models.Int(65535)}, {int64(258), models.Int(258)}},
		"int32":   {{int64(math.MinInt32), models.Int(math.MinInt32)}, {int64(0x01020304), models.Int(0x01020304)}},
		"uint32":  {{int64(math.MaxUint32), models.Int(math.MaxUint32)}, {int64(0x01020304), models.Int(0x01020304)}},
		"int64":   {{int64(math.MinInt64), models.Int(math.MinInt64)}, {int64(0x0102030405060708), models.Int(0x0102030405060708)}},
		"uint64":  {{uint64(math.MaxUint64), models.Uint(math.MaxUint64)}, {int64(9007199254740993), models.Int(9007199254740993)}},
		"float32": {{f32, models.Float(f32)}, {1e-40, models.Float(float64(float32(1e-40)))}},
		"float64": {{math.Pi, models.Float(math.Pi)}, {-math.MaxFloat64, models.Float(-math.MaxFloat64)}},
		"string":  {{"Whimbrel", models.String("Whimbrel")}, {"", models.String("")}},
		"bool":    {{true, models.Bool(true)}, {false, models.Bool(false)}},
	}
	kinds := map[string]models.Type{"float32": models.TypeFloat, "float64": models.TypeFloat, "string": models.TypeString, "bool": models.TypeBool}
	u := modbussim.Unit{Unit: 1}
	var points []mappers.Point
	var want []models.Value
	register := 0
	for encoding, cases := range values {
		kind := kinds[encoding]
		if kind == "" {
			kind = models.TypeInt
		}
		e, _ := wire.ParseEncoding(encoding)
		width, length := e.Registers(), ""
		p := modbussim.Point{Encoding: encoding, Writable: true}
		if e == wire.String {
			width, length, p.Length = 5, `, "length": 5`, 5
		}
		for _, order := range []string{"ABCD", "CDAB", "BADC", "DCBA"} {
			for _, table := range []string{"holding", "input"} {
				for _, c := range cases {
					p.Name, p.Table, p.Register, p.Order = fmt.Sprint("p", len(points)), table, at(register), order
					p.Value, p.Writable = c.sim, table == "holding"
					u.Points = append(u.Points, p)
					access := models.Read
					if p.Writable {
						access = models.ReadWrite
					}
					points = append(points, pt(p.Name, kind, access, `{"table": %q, "register": %d, "encoding": %q, "order": %q%s}`, table, register, encoding, order, length))
					want = append(want, c.want)
					register += width
				}
			}
		}
	}
	for _, table := range []string{"coil", "discrete"} {
		for i := range 20 {
			p := modbussim.Point{Name: fmt.Sprint(table, i), Table: table, Register: at(i), Value: i%3 == 0, Writable: table == "coil"}
			u.Points = append(u.Points, p)
			points = append(points, pt(p.Name, models.TypeBool, models.Read, `{"table": %q, "register": %d}`, table, i))
			want = append(want, models.Bool(i%3 == 0))
		}
	}
	sim := modbussim.Start(t, modbussim.Config{Units: []modbussim.Unit{u}})
	d := open(t, New(), sim.Addr(), "", points...)
	for i, r := range read(t, d) {
		if r.Value != want[i] || r.Quality != models.Good {
			t.Errorf("%s: %v (%v %v), want %v", points[i].Address, r.Value, r.Quality, r.Reason, want[i])
		}
	}
	// Written to another value and back, each ends where it was.
	for i, p := range points {
		if !p.Access.Writable() {
			continue
		}
		other := map[models.Type]models.Value{models.TypeInt: models.Int(77), models.TypeFloat: models.Float(0.5), models.TypeString: models.String("other"),
			models.TypeBool: models.Bool(!want[i].IsNumber() && want[i] != models.Bool(true))}[p.Type]
		for _, v := range []models.Value{other, want[i]} {
			canonical, err := d.Canonical(i, v)
			if err != nil {
				t.Errorf("%s: %v cannot be written: %v", p.Address, v, err)
				continue
			}
			if err := d.Write(t.Context(), []mappers.WriteRequest{{Point: i, Value: v}})[0]; err != nil {
				t.Errorf("%s: writing %v: %v", p.Address, v, err)
			}
			if got := read(t, d, i)[0]; got.Value != canonical {
				t.Errorf("%s: wrote %v, canonical %v, read %v", p.Address, v, canonical, got.Value)
			}
		}
	}
}

func TestScalesAndNulls(t *testing.T) {
	sim := modbussim.Start(t, modbussim.Config{Units: []modbussim.Unit{memory(1, modbussim.Memory{Table: "holding", Register: 0, Count: 40})}})
	line := wire.NewLine(wire.LineConfig{Address: sim.Addr()})
	defer line.Close()
	poke := func(register uint16, words ...uint16) {
		t.Helper()
		b := make([]byte, 0, 2*len(words))
		for _, w := range words {
			b = append(b, byte(w>>8), byte(w))
		}
		if err := line.Client(1, time.Second).WriteRegisters(t.Context(), register, b); err != nil {
			t.Fatal(err)
		}
	}
	neg := func(i int16) uint16 { return uint16(i) }
	poke(0, 3, neg(-653), 21, neg(-2), 0x8000, 0x8000, 0xffff, 0x7fc0, 0, 0x7f80, 0, 235, 0x0008)
	d := open(t, New(), sim.Addr(), "",
		pt("tenth", models.TypeFloat, models.ReadWrite, `{"table": "holding", "register": 0, "encoding": "int16", "scale": 0.1}`),
		pt("offset", models.TypeFloat, models.ReadWrite, `{"table": "holding", "register": 1, "encoding": "int16", "scale": 0.1, "offset": -40}`),
		pt("sunspec", models.TypeFloat, models.ReadWrite, `{"table": "holding", "register": 2, "encoding": "int16", "scaleFrom": 3}`),
		pt("no factor", models.TypeFloat, models.ReadWrite, `{"table": "holding", "register": 2, "encoding": "int16", "scaleFrom": 4}`),
		pt("null signed", models.TypeInt, models.ReadWrite, `{"table": "holding", "register": 5, "encoding": "int16", "nullValue": -32768}`),
		pt("null hex", models.TypeInt, models.ReadWrite, `{"table": "holding", "register": 5, "encoding": "int16", "nullValue": 32768}`),
		pt("null unsigned", models.TypeInt, models.Read, `{"table": "holding", "register": 6, "nullValue": -1}`),
		pt("nan", models.TypeFloat, models.Read, `{"table": "holding", "register": 7, "encoding": "float32"}`),
		pt("inf", models.TypeFloat, models.Read, `{"table": "holding", "register": 9, "encoding": "float32"}`),
		pt("whole", models.TypeInt, models.ReadWrite, `{"table": "holding", "register": 11, "encoding": "int16", "scale": 10, "offset": 5}`),
		pt("bit", models.TypeBool, models.ReadWrite, `{"table": "holding", "register": 12, "bit": 3}`),
		pt("bit swapped", models.TypeBool, models.ReadWrite, `{"table": "holding", "register": 12, "bit": 11, "order": "BADC"}`),
		pt("reference", models.TypeInt, models.Read, `{"reference": 40012}`),
		pt("reference text", models.TypeInt, models.Read, `{"reference": "400012"}`),
	)
	good := func(v models.Value) mappers.Result { return mappers.Result{Value: v} }
	want := []mappers.Result{good(models.Float(0.3)), good(models.Float(-105.3)), good(models.Float(0.21)), bad(models.ReasonNotImplemented),
		bad(models.ReasonNotImplemented), bad(models.ReasonNotImplemented), bad(models.ReasonNotImplemented), bad(models.ReasonNotANumber),
		bad(models.ReasonNotANumber), good(models.Int(2355)), good(models.Bool(true)), good(models.Bool(true)), good(models.Int(235)), good(models.Int(235))}
	for i, r := range read(t, d) {
		if r != want[i] {
			t.Errorf("%s: %+v, want %+v", d.names[i].Property, r, want[i])
		}
	}

	for _, c := range []struct {
		point    string
		value    models.Value
		problem  string       // part of the error
		reads    models.Value // else what it becomes
		register int          // and where raw is then
		raw      uint16
	}{
		{"tenth", models.Float(23.5), "", models.Float(23.5), 0, 235},
		{"tenth", models.Float(23.449), "", models.Float(23.4), 0, 234},
		{"tenth", models.Float(-3276.8), "", models.Float(-3276.8), 0, 0x8000},
		{"tenth", models.Float(4000), "must be from -3276.8 to 3276.7 (int16 with scale 0.1), got 4000", models.Null, 0, 0},
		{"offset", models.Float(25.3), "", models.Float(25.3), 1, 653},
		{"sunspec", models.Float(1.5), "", models.Float(1.5), 2, 150},
		{"sunspec", models.Float(1e6), "must be from -327.68 to 327.67 (int16 and scale factor -2), got 1000000", models.Null, 0, 0},
		{"no factor", models.Float(1), "does not implement", models.Null, 0, 0},
		{"null signed", models.Int(-32768), "means not implemented", models.Null, 0, 0},
		{"null signed", models.Int(40000), "must be from -32768 to 32767 (int16), got 40000", models.Null, 0, 0},
		{"whole", models.Int(126), "", models.Int(125), 11, 12},
		{"whole", models.Int(math.MaxInt64), "must be from -327675 to 327675", models.Null, 0, 0},
		{"bit", models.Bool(false), "", models.Bool(false), 12, 0},
		{"bit swapped", models.Bool(true), "", models.Bool(true), 12, 8},
	} {
		i := -1
		for j, n := range d.names {
			if n.Property == c.point {
				i = j
			}
		}
		err := d.Write(t.Context(), []mappers.WriteRequest{{Point: i, Value: c.value}})[0]
		if c.problem != "" {
			if err == nil || !strings.Contains(err.Error(), c.problem) || !mappers.FailureOf(err).Refused {
				t.Errorf("%s = %v: error %v, want %q", c.point, c.value, err, c.problem)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s = %v: %v", c.point, c.value, err)
			continue
		}
		if got := read(t, d, i)[0].Value; got != c.reads {
			t.Errorf("%s = %v reads back %v, want %v", c.point, c.value, got, c.reads)
		}
		if got, err := d.Canonical(i, c.value); got != c.reads || err != nil {
			t.Errorf("%s = %v is canonically %v (%v), want %v", c.point, c.value, got, err, c.reads)
		}
		regs, err := line.Client(1, time.Second).ReadHolding(t.Context(), uint16(c.register), 1)
		if err != nil || uint16(regs[0])<<8|uint16(regs[1]) != c.raw {
			t.Errorf("%s = %v: the register holds %x (%v), want %x", c.point, c.value, regs, err, c.raw)
		}
	}
}

func TestWriteFunctions(t *testing.T) {
	sim := modbussim.Start(t, modbussim.Config{Units: []modbussim.Unit{memory(1,
		modbussim.Memory{Table: "holding", Register: 0, Count: 10}, modbussim.Memory{Table: "coil", Register: 0, Count: 10})}})
	d := open(t, New(), sim.Addr(), "",
		pt("a", models.TypeInt, models.Write, `{"table": "holding", "register": 0}`),
		pt("b", models.TypeInt, models.Write, `{"table": "holding", "register": 1, "writeFunction": "multiple"}`),
		pt("c", models.TypeFloat, models.Write, `{"table": "holding", "register": 2, "encoding": "float32"}`),
		pt("d", models.TypeBool, models.Write, `{"table": "coil", "register": 0}`),
		pt("e", models.TypeBool, models.Write, `{"table": "coil", "register": 1, "writeFunction": "multiple"}`),
		pt("f", models.TypeBool, models.Write, `{"table": "holding", "register": 5, "bit": 0, "writeFunction": "multiple"}`))
	var writes []mappers.WriteRequest
	for i, v := range []models.Value{models.Int(1), models.Int(2), models.Float(3), models.Bool(true), models.Bool(true), models.Bool(true)} {
		writes = append(writes, mappers.WriteRequest{Point: i, Value: v})
	}
	for i, err := range d.Write(t.Context(), writes) {
		if err != nil {
			t.Errorf("%s: %v", d.names[i].Property, err)
		}
	}
	want := []wire.Function{wire.WriteOneRegister, wire.WriteManyRegisters, wire.WriteManyRegisters, wire.WriteOneCoil, wire.WriteManyCoils, wire.WriteManyRegisters}
	for i, w := range sim.Writes() {
		if w.Function != want[i] {
			t.Errorf("%s was written with function %d, want %d", d.names[i].Property, w.Function, want[i])
		}
	}
}

// TestBitsOfOneRegisterDoNotUndoEachOther has two devices on one line switch
// bits of the same register at the same time.
func TestBitsOfOneRegisterDoNotUndoEachOther(t *testing.T) {
	sim := modbussim.Start(t, modbussim.Config{Units: []modbussim.Unit{memory(1, modbussim.Memory{Table: "holding", Register: 0, Count: 1})}})
	drv := New()
	var group sync.WaitGroup
	for bit := range 2 {
		d := open(t, drv, sim.Addr(), "", pt("bit", models.TypeBool, models.ReadWrite, `{"table": "holding", "register": 0, "bit": %d}`, bit))
		group.Go(func() {
			for i := range 101 {
				v := models.Bool(i%2 == 0)
				if err := d.Write(t.Context(), []mappers.WriteRequest{{Value: v}})[0]; err != nil {
					t.Error(err)
				}
				out := make([]mappers.Result, 1)
				if err := d.Read(t.Context(), []int{0}, out); err != nil || out[0].Value != v {
					t.Errorf("bit %d reads %v (%v) after %v was written", bit, out[0], err, v)
				}
			}
		})
	}
	group.Wait()
}

func TestAHundredMixedPointsTakeTwoRequests(t *testing.T) {
	sim := modbussim.Start(t, modbussim.Config{Units: []modbussim.Unit{memory(1, modbussim.Memory{Table: "holding", Register: 0, Count: 250})}})
	var points []mappers.Point
	register := 0
	for i := range 100 {
		encoding, kind := []string{"uint16", "int16", "float32", "uint32", "uint16"}[i%5], models.TypeFloat
		points = append(points, pt(fmt.Sprint("p", i), kind, models.Read, `{"table": "holding", "register": %d, "encoding": %q, "scale": 0.5}`, register, encoding))
		e, _ := wire.ParseEncoding(encoding)
		register += e.Registers()
	}
	d := open(t, New(), sim.Addr(), "", points...)
	read(t, d)
	if n := sim.Requests("u1"); n > 2 {
		t.Errorf("%d requests, want at most 2", n)
	}
	plan := d.Plan(all(d))
	if len(plan) != 2 || plan[0].Text != "holding 0-124 (125 registers)" && plan[0].Text != "holding 0-123 (124 registers)" || plan[0].Points+plan[1].Points != 100 {
		t.Errorf("plan %+v", plan)
	}
}

// TestARefusedPointIsBadAlone: a device without some registers refuses the
// request that reads over them; only the points in them are bad, in the same
// cycle, and what was learned keeps the next cycle short.
func TestARefusedPointIsBadAlone(t *testing.T) {
	u := modbussim.Unit{Unit: 1, Name: "u"}
	present := func(register int) bool { return register != 17 && register != 40 && register != 41 && register != 60 }
	for r := range 64 {
		if present(r) {
			u.Memory = append(u.Memory, modbussim.Memory{Table: "holding", Register: uint16(r), Count: 1})
		}
	}
	sim := modbussim.Start(t, modbussim.Config{Units: []modbussim.Unit{u}})
	var points []mappers.Point
	for r := range 64 {
		if r != 40 && r != 41 { // a gap that may not be read over
			points = append(points, pt(fmt.Sprint("r", r), models.TypeInt, models.Read, `{"table": "holding", "register": %d}`, r))
		}
	}
	d := open(t, New(), sim.Addr(), "", points...)
	check := func(when string, badOnes ...string) {
		t.Helper()
		for i, r := range read(t, d) {
			want := mappers.Result{Value: models.Int(0)}
			for _, b := range badOnes {
				if points[i].Property == b {
					want = bad(models.ReasonDeviceError)
				}
			}
			if want.Reason != "" && (r.Err == nil || r.Err.Error() != fmt.Sprintf("holding %s: the device answers with exception 2, illegal data address", points[i].Property[1:])) {
				t.Errorf("%s: %s is bad because of %v", when, points[i].Property, r.Err)
			}
			if r.Err = nil; r != want {
				t.Errorf("%s: %s is %+v, want %+v", when, points[i].Property, r, want)
			}
		}
	}
	// Finding two holes takes more than one read may spend.
	read(t, d)
	check("second", "r17", "r60")
	before := sim.Requests("u")
	check("third", "r17", "r60")
	// 0-16, 18-39, 42-59, 61-63, and one of the refused points.
	if n := sim.Requests("u") - before; n > 6 {
		t.Errorf("%d requests in a cycle, plan %+v", n, d.Plan(all(d)))
	}
}

func TestADeviceThatRefusesLongRequests(t *testing.T) {
	sim := modbussim.Start(t, modbussim.Config{Units: []modbussim.Unit{memory(1, modbussim.Memory{Table: "holding", Register: 0, Count: 100})}})
	var points []mappers.Point
	for r := range 100 {
		points = append(points, pt(fmt.Sprint("r", r), models.TypeInt, models.Read, `{"table": "holding", "register": %d}`, r))
	}
	d := open(t, New(), sim.Addr(), "", points...)
	// The first request is refused, as one that is too long is.
	if err := sim.Inject("u1", modbussim.Fault{Kind: modbussim.Refuse, Exception: wire.IllegalDataValue, Count: 1}); err != nil {
		t.Fatal(err)
	}
	for _, r := range read(t, d) {
		if r.Quality != models.Good {
			t.Fatalf("%+v", r)
		}
	}
	if plan := d.Plan(all(d)); len(plan) != 2 {
		t.Errorf("plan %+v, want two halves", plan)
	}
}

// TestRefusedPointsComeBack: a device that refused everything for a while, as
// one that restarts does, is read whole again.
func TestRefusedPointsComeBack(t *testing.T) {
	sim := modbussim.Start(t, modbussim.Config{Units: []modbussim.Unit{memory(1, modbussim.Memory{Table: "holding", Register: 0, Count: 30},
		modbussim.Memory{Table: "coil", Register: 0, Count: 4})}})
	points := []mappers.Point{pt("coil", models.TypeBool, models.Read, `{"table": "coil", "register": 3}`)}
	for r := range 30 {
		points = append(points, pt(fmt.Sprint("r", r), models.TypeInt, models.Read, `{"table": "holding", "register": %d}`, r))
	}
	d := open(t, New(), sim.Addr(), "", points...)
	if err := sim.Inject("u1", modbussim.Fault{Kind: modbussim.Refuse, Exception: wire.IllegalDataAddress}); err != nil {
		t.Fatal(err)
	}
	for i := range 8 {
		for _, r := range read(t, d) {
			if r.Err = nil; r != bad(models.ReasonDeviceError) {
				t.Fatalf("read %d: %+v", i, r)
			}
		}
	}
	before := sim.Requests("u1")
	read(t, d)
	if n := sim.Requests("u1") - before; n > 1 {
		t.Errorf("a device that refuses everything is asked %d times a cycle", n)
	}
	sim.Clear("u1")
	for _, r := range read(t, d) {
		if r.Quality != models.Good {
			t.Errorf("after the end: %+v", r)
		}
	}
	if plan := d.Plan(all(d)); len(plan) != 2 {
		t.Errorf("plan %+v, want one request a table", plan)
	}
}

func TestFailuresOfTheDevice(t *testing.T) {
	t.Parallel()
	sim := modbussim.Start(t, modbussim.Config{Units: []modbussim.Unit{memory(1, modbussim.Memory{Table: "holding", Register: 0, Count: 4})}})
	drv, register := New(), pt("a", models.TypeInt, models.ReadWrite, `{"table": "holding", "register": 0}`)
	// Only where no answer comes in time is a timeout waited for.
	patient, hasty := open(t, drv, sim.Addr(), `, "timeout": "10s"`, register), open(t, drv, sim.Addr(), `, "timeout": "500ms"`, register)
	for _, c := range []struct {
		name    string
		fault   modbussim.Fault
		reason  models.Reason
		outcome string // of a write: refused, unsent, unknown
	}{
		{"silent", modbussim.Fault{Kind: modbussim.Silent}, models.ReasonTimeout, "unknown"},
		{"slow", modbussim.Fault{Kind: modbussim.Slow, Delay: 2 * time.Second}, models.ReasonTimeout, "unknown"},
		{"reset", modbussim.Fault{Kind: modbussim.Reset}, models.ReasonNotConnected, "unknown"},
		{"garbage", modbussim.Fault{Kind: modbussim.Garbage}, models.ReasonProtocolError, "unknown"},
		{"truncated", modbussim.Fault{Kind: modbussim.Truncated}, "", "unknown"},
		{"wrong transaction", modbussim.Fault{Kind: modbussim.WrongTransaction}, "", "unknown"},
		{"gateway path", modbussim.Fault{Kind: modbussim.Refuse, Exception: wire.GatewayPathUnusable}, models.ReasonNotConnected, "unsent"},
		{"gateway target", modbussim.Fault{Kind: modbussim.Refuse, Exception: wire.GatewayTargetSilent}, models.ReasonTimeout, "unknown"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := sim.Inject("u1", c.fault); err != nil {
				t.Fatal(err)
			}
			d := patient
			switch c.fault.Kind {
			case modbussim.Silent, modbussim.Slow, modbussim.Truncated, modbussim.WrongTransaction:
				d = hasty
			}
			err := d.Read(t.Context(), []int{0}, make([]mappers.Result, 1))
			f := mappers.FailureOf(err)
			if err == nil || c.reason != "" && f.Reason != c.reason {
				t.Errorf("read: %v, want %s", err, c.reason)
			}
			werr := d.Write(t.Context(), []mappers.WriteRequest{{Value: models.Int(1)}})[0]
			if f := mappers.FailureOf(werr); werr == nil || f.Unsent != (c.outcome == "unsent") || f.Refused {
				t.Errorf("write: %+v, want %s", werr, c.outcome)
			}
			sim.Clear("u1")
			if r := read(t, patient)[0]; r.Quality != models.Good {
				t.Errorf("afterwards: %+v", r)
			}
		})
	}
	t.Run("write refused", func(t *testing.T) {
		if err := sim.Inject("u1", modbussim.Fault{Kind: modbussim.Refuse, Exception: wire.IllegalDataValue, On: "writes"}); err != nil {
			t.Fatal(err)
		}
		defer sim.Clear("u1")
		err := patient.Write(t.Context(), []mappers.WriteRequest{{Value: models.Int(1)}})[0]
		if f := mappers.FailureOf(err); err == nil || !f.Refused || f.Unsent || f.Reason != models.ReasonDeviceError {
			t.Errorf("%+v", err)
		}
	})
	t.Run("unplugged", func(t *testing.T) {
		sim.Unplug()
		err := patient.Read(t.Context(), []int{0}, make([]mappers.Result, 1))
		if f := mappers.FailureOf(err); err == nil || f.Reason != models.ReasonNotConnected {
			t.Errorf("read: %v", err)
		}
		errs := patient.Write(t.Context(), []mappers.WriteRequest{{Value: models.Int(1)}, {Value: models.Int(2)}})
		for _, err := range errs {
			if f := mappers.FailureOf(err); err == nil || !f.Unsent || f.Reason != models.ReasonNotConnected {
				t.Errorf("write: %+v", err)
			}
		}
		if err := sim.Plug(); err != nil {
			t.Fatal(err)
		}
		if r := read(t, patient)[0]; r.Quality != models.Good {
			t.Errorf("afterwards: %+v", r)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		if err := sim.Inject("u1", modbussim.Fault{Kind: modbussim.Silent}); err != nil {
			t.Fatal(err)
		}
		defer sim.Clear("u1")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := patient.Read(ctx, []int{0}, make([]mappers.Result, 1)); !errors.Is(err, context.Canceled) {
			t.Errorf("read: %v", err)
		}
		err := patient.Write(ctx, []mappers.WriteRequest{{Value: models.Int(1)}})[0]
		if f := mappers.FailureOf(err); err == nil || !f.Unsent {
			t.Errorf("write: %v", err)
		}
	})
}

func TestUnitsShareALine(t *testing.T) {
	area := modbussim.Memory{Table: "holding", Register: 0, Count: 4}
	sim := modbussim.Start(t, modbussim.Config{Units: []modbussim.Unit{memory(1, area), memory(2, area), memory(3, area)}})
	drv := New()
	var devices []*device
	for unit := 1; unit <= 3; unit++ {
		d := open(t, drv, sim.Addr(), fmt.Sprintf(`, "unit": %d, "pause": "%dms"`, unit, unit-1), pt("a", models.TypeInt, models.ReadWrite, `{"table": "holding", "register": 0}`))
		if err := d.Write(t.Context(), []mappers.WriteRequest{{Value: models.Int(int64(unit))}})[0]; err != nil {
			t.Fatal(err)
		}
		devices = append(devices, d)
	}
	for i, d := range devices {
		if got := read(t, d)[0].Value; got != models.Int(int64(i+1)) {
			t.Errorf("unit %d reads %v", i+1, got)
		}
		if d.Line() != "tcp://"+sim.Addr() {
			t.Errorf("line %s", d.Line())
		}
	}
	if n := sim.Connections(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
	began := time.Now()
	for range 10 {
		read(t, devices[0])
	}
	if took := time.Since(began); took < 18*time.Millisecond {
		t.Errorf("10 reads took %v: the longest pause of the line does not hold", took)
	}
	devices[2].Close()
	devices[2].Close() // twice does nothing
	devices[0].Close()
	if got := read(t, devices[1])[0].Value; got != models.Int(2) {
		t.Errorf("after the others have left: %v", got)
	}
	devices[1].Close()
	if len(drv.lines.byTarget) != 0 {
		t.Errorf("lines left: %v", drv.lines.byTarget)
	}
	for deadline := time.Now().Add(30 * time.Second); sim.Connections() > 0; time.Sleep(time.Millisecond) { //sleep: polls a condition
		if time.Now().After(deadline) {
			t.Fatal("the connection was not hung up")
		}
	}
}
