package modbus

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/whimbrel-edge/whimbrel/internal/schema"
	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
	wire "github.com/whimbrel-edge/whimbrel/protocols/modbus"
	"github.com/whimbrel-edge/whimbrel/protocols/serial"
)

// fits returns what the hub would say of a document.
func fits(t testing.TB, compile func([]byte) (*schema.Schema, error), text []byte, document string) []models.FieldError {
	t.Helper()
	s, err := compile(text)
	if err != nil {
		t.Fatal(err)
	}
	return s.Check([]byte(document), "")
}

const anyAddress = `{"table": "holding", "register": 0}`

func TestConnections(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text    string
		pointer string // "" when it is fine
		detail  string
	}{
		{`{"url": "tcp://127.0.0.1:5020"}`, "", ""},
		{`{"url": "tcp://plc.example"}`, "", ""},
		{`{"url": "tcp://[::1]:502", "unit": 0, "timeout": "250ms", "maxRegisters": 1, "maxBits": 1, "maxGap": 0, "pause": "20ms"}`, "", ""},
		{`{"url": "tcp://h:1", "unit": 255, "timeout": "1m", "maxRegisters": 125, "maxBits": 2000, "maxGap": 100, "pause": "0s"}`, "", ""},
		{`{}`, "/url", "is required"},
		{`{"url": "rtu:///dev/ttyUSB0"}`, "", ""},
		{`{"url": "rtu:///dev/ttyUSB0?baud=9600&parity=none&dataBits=8&stopBits=2", "unit": 1}`, "", ""},
		{`{"url": "ascii:///dev/serial/by-id/usb-FTDI_A5-if00?parity=odd", "unit": 247}`, "", ""},
		{`{"url": "rtutcp://h:4001", "unit": 247}`, "", ""},
		{`{"url": "rtutcp://h"}`, "/url", "port must be from 1"},
		{`{"url": "rtutcp://h:1/path"}`, "/url", "must be rtutcp://host:port and nothing more"},
		{`{"url": "rtu:///dev/ttyUSB0", "unit": 0}`, "/unit", "must be from 1 to 247, got 0"},
		{`{"url": "rtutcp://h:1", "unit": 248}`, "/unit", "must be from 1 to 247, got 248"},
		{`{"url": "ascii:///dev/x", "unit": 0}`, "/unit", "must be from 1 to 247"},
		{`{"url": "rtu://dev/ttyUSB0"}`, "/url", "three slashes"},
		{`{"url": "rtu:///dev/ttyUSB0?baudrate=9600"}`, "/url", "baudrate is not one of baud, parity, dataBits, stopBits"},
		{`{"url": "rtu:///dev/ttyUSB0?baud=9601"}`, "/url", "baud 9601 is not a usual rate"},
		{`{"url": "rtu:///dev/ttyUSB0?baud=9600&baud=9600"}`, "/url", "given 2 times"},
		{`{"url": "rtu:///dev/ttyUSB0?parity=E"}`, "/url", "none, even or odd"},
		{`{"url": "rtu:///dev/ttyUSB0?dataBits=7"}`, "/url", "RTU line has 8"},
		{`{"url": "ascii:///dev/ttyUSB0?dataBits=6"}`, "/url", "ASCII line has 7 or 8"},
		{`{"url": "ascii:///dev/ttyUSB0?stopBits=3"}`, "/url", "1 or 2"},
		{`{"url": "rtu:///dev/ttyUSB0?baud="}`, "/url", "whole number"},
		{`{"url": "rtu:///dev/ttyUSB0?stopBits=2&baud=38400&"}`, "", ""},
		{`{"url": "http://h:1"}`, "/url", "must begin with tcp://, rtutcp://, rtu:// or ascii://"},
		{`{"url": "tcp://h:1/path"}`, "/url", "nothing more"},
		{`{"url": "tcp://h:70000"}`, "/url", "port must be from 1 to 65535"},
		{`{"url": "tcp://h:1", "unit": 256}`, "/unit", "must be from 0 to 255, got 256"},
		{`{"url": "tcp://h:1", "timeout": 1000}`, "/timeout", "must be a string"},
		{`{"url": "tcp://h:1", "timeout": "0s"}`, "/timeout", "must be from 1ms"},
		{`{"url": "tcp://h:1", "maxRegisters": 126}`, "/maxRegisters", "from 1 to 125"},
		{`{"url": "tcp://h:1", "maxBits": 2001}`, "/maxBits", "from 1 to 2000"},
		{`{"url": "tcp://h:1", "maxGap": -1}`, "/maxGap", "from 0 to 2000"},
		{`{"url": "tcp://h:1", "pause": "2m"}`, "/pause", "from 0s to 1m"},
		{`{"url": "tcp://h:1", "slave": 1}`, "/slave", "unknown field"},
	} {
		drv := New()
		dev, err := drv.Open(mappers.DeviceConfig{Connection: json.RawMessage(c.text)})
		if dev != nil {
			dev.Close()
		}
		checkError(t, c.text, err, "/spec/connection", c.pointer, c.detail)
		if got := fits(t, schema.Compile, connectionSchema, c.text); (len(got) == 0) != (c.pointer == "") {
			t.Errorf("%s: the schema says %v", c.text, got)
		}
		if len(drv.lines.byTarget) != 0 {
			t.Errorf("%s left a line", c.text)
		}
	}
}

func checkError(t *testing.T, what string, err error, at, pointer, detail string) {
	t.Helper()
	if pointer == "" {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		return
	}
	var e *models.Error
	if !errors.As(err, &e) || e.Kind != models.KindInvalid {
		t.Errorf("%s: error %v, want one at %s", what, err, pointer)
		return
	}
	for _, f := range e.Fields {
		if f.Pointer == at+pointer && strings.Contains(f.Detail, detail) {
			return
		}
	}
	t.Errorf("%s: error %v, want %s: …%s…", what, err, at+pointer, detail)
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	const r, w = models.Read, models.ReadWrite
	for _, c := range []struct {
		kind    models.Type
		access  models.Access
		text    string
		pointer string
		detail  string
	}{
		{models.TypeInt, w, anyAddress, "", ""},
		{models.TypeFloat, r, `{"table": "input", "register": 0, "encoding": "int16", "scale": 0.1}`, "", ""},
		{models.TypeFloat, w, `{"table": "holding", "register": 10, "encoding": "float32", "order": "CDAB"}`, "", ""},
		{models.TypeBool, w, `{"table": "coil", "register": 65535}`, "", ""},
		{models.TypeBool, w, `{"reference": "00001"}`, "", ""},
		{models.TypeBool, r, `{"reference": 10001, "encoding": "bool"}`, "", ""},
		{models.TypeInt, r, `{"reference": 465536}`, "", ""},
		{models.TypeInt, r, `{"reference": 30001, "table": "input"}`, "", ""},
		{models.TypeBool, w, `{"table": "holding", "register": 1, "bit": 15}`, "", ""},
		{models.TypeString, w, `{"table": "holding", "register": 1, "encoding": "string", "length": 8}`, "", ""},
		{models.TypeFloat, r, `{"table": "holding", "register": 1, "encoding": "int16", "scaleFrom": 2, "nullValue": -32768}`, "", ""},
		{models.TypeInt, r, `{"table": "holding", "register": 1, "encoding": "uint64", "nullValue": 18446744073709551615}`, "", ""},
		{models.TypeInt, r, `{"table": "holding", "register": 65532, "encoding": "uint64"}`, "", ""},

		{models.TypeInt, r, `{}`, "/register", "is required"},
		{models.TypeInt, r, `{"register": 1}`, "/table", "is required"},
		{models.TypeInt, r, `{"table": "holding"}`, "/register", "is required"},
		{models.TypeInt, r, `{"table": "holding", "register": 1, "reference": 40002}`, "/reference", "must be left out"},
		{models.TypeInt, r, `{"table": "register", "register": 1}`, "/table", "must be coil"},
		{models.TypeInt, r, `{"table": "holding", "register": 65536}`, "/register", "from 0 to 65535"},
		{models.TypeInt, r, `{"table": "holding", "register": -1}`, "/register", "from 0 to 65535"},
		{models.TypeInt, r, `{"table": "holding", "register": 1.5}`, "/register", "must be an int"},
		{models.TypeInt, r, `{"table": "holding", "registr": 1}`, "/registr", "did you mean register"},
		{models.TypeInt, r, `{"reference": 1}`, "/reference", "has to be a string"},
		{models.TypeInt, r, `{"reference": "20001"}`, "/reference", "0 (coil)"},
		{models.TypeInt, r, `{"reference": 40000}`, "/reference", "from 1 to 65536"},
		{models.TypeInt, r, `{"reference": true}`, "/reference", "must be such as 40001"},
		{models.TypeInt, r, `{"reference": 40001, "table": "input"}`, "/table", "is in the table holding"},
		{models.TypeInt, r, `{"table": "holding", "register": 1, "encoding": "int8"}`, "/encoding", "must be bool"},
		{models.TypeInt, r, `{"table": "holding", "register": 1, "order": "AB"}`, "/order", "must be ABCD"},
		{models.TypeInt, r, `{"table": "holding", "register": 65535, "encoding": "int32"}`, "/register", "goes beyond register 65535"},
		{models.TypeInt, r, `{"reference": 465536, "encoding": "int32"}`, "/reference", "goes beyond register 65535"},
		{models.TypeBool, r, `{"table": "coil", "register": 1, "encoding": "int16"}`, "/encoding", "must be bool"},
		{models.TypeBool, r, `{"table": "coil", "register": 1, "bit": 1}`, "/bit", "it holds bits"},
		{models.TypeBool, r, `{"table": "discrete", "register": 1, "nullValue": 1}`, "/nullValue", "it holds bits"},
		{models.TypeBool, r, `{"reference": "00001", "order": "ABCD"}`, "/order", "it holds bits"},
		{models.TypeInt, r, `{"table": "coil", "register": 1}`, "/table", "type int needs an encoding of ints; it cannot hold the table coil"},
		{models.TypeBool, r, `{"table": "holding", "register": 1, "encoding": "float32"}`, "/encoding", "it cannot hold encoding float32"},
		{models.TypeInt, r, `{"table": "holding", "register": 1, "encoding": "float32"}`, "/encoding", "make the property a float"},
		{models.TypeInt, r, `{"table": "holding", "register": 1, "encoding": "int16", "scale": 0.1}`, "/scale", "make the property a float"},
		{models.TypeInt, r, `{"table": "holding", "register": 1, "encoding": "int16", "offset": 0.5}`, "/offset", "make the property a float"},
		{models.TypeInt, r, `{"table": "holding", "register": 1, "encoding": "int16", "scaleFrom": 2}`, "/scaleFrom", "needs type float"},
		{models.TypeInt, r, `{"table": "holding", "register": 1, "bit": 1}`, "/bit", "it cannot hold a bit"},
		{models.TypeFloat, r, `{"table": "holding", "register": 1, "encoding": "bool"}`, "/encoding", "needs an encoding of numbers"},
		{models.TypeFloat, r, `{"table": "holding", "register": 1, "encoding": "int16", "scale": 0}`, "/scale", "must not be 0"},
		{models.TypeString, r, `{"table": "holding", "register": 1}`, "/encoding", "is required for type string"},
		{models.TypeString, r, `{"table": "holding", "register": 1, "encoding": "string"}`, "/length", "is required"},
		{models.TypeString, r, `{"table": "holding", "register": 1, "encoding": "string", "length": 126}`, "/length", "from 1 to 125"},
		{models.TypeString, w, `{"table": "holding", "register": 1, "encoding": "string", "length": 124}`, "/length", "at most 123"},
		{models.TypeString, r, `{"table": "holding", "register": 1, "encoding": "string", "length": 2, "scale": 2}`, "/scale", "needs an encoding of numbers"},
		{models.TypeString, r, `{"table": "holding", "register": 1, "encoding": "uint16"}`, "/encoding", "needs encoding string"},
		{models.TypeInt, r, `{"table": "holding", "register": 1, "length": 1}`, "/length", "needs encoding string"},
		{models.TypeBool, r, `{"table": "holding", "register": 1, "encoding": "int32", "bit": 1}`, "/bit", "needs encoding int16, uint16 or bool"},
		{models.TypeBool, r, `{"table": "holding", "register": 1, "bit": 16}`, "/bit", "from 0 to 15"},
		{models.TypeBool, r, `{"table": "holding", "register": 1, "bit": 1, "scale": 2}`, "/scale", "needs an encoding of numbers"},
		{models.TypeBytes, r, anyAddress, "/encoding", "is required for type bytes"},
		{models.TypeBytes, r, `{"table": "holding", "register": 1, "encoding": "string", "length": 2}`, "", "no values of type bytes"},
		{models.TypeInt, w, `{"table": "input", "register": 1}`, "/table", "is read-only"},
		{models.TypeBool, w, `{"reference": "10001"}`, "/reference", "is read-only"},
		{models.TypeInt, r, `{"table": "input", "register": 1, "writeFunction": "auto"}`, "/writeFunction", "must be left out"},
		{models.TypeInt, w, `{"table": "holding", "register": 1, "encoding": "int32", "writeFunction": "single"}`, "/writeFunction", "single writes one register"},
		{models.TypeInt, w, `{"table": "holding", "register": 1, "writeFunction": "both"}`, "/writeFunction", "must be auto"},
		{models.TypeInt, r, `{"table": "holding", "register": 1, "encoding": "int16", "nullValue": 70000}`, "/nullValue", "must be a raw value"},
		{models.TypeInt, r, `{"table": "holding", "register": 1, "encoding": "int16", "nullValue": "x"}`, "/nullValue", "must be a raw value"},
		{models.TypeInt, r, `{"table": "holding", "register": 1, "encoding": "int16", "nullValue": 0.5}`, "/nullValue", "must be a raw value"},
		{models.TypeInt, r, `[]`, "", "must be an object"},
	} {
		drv := New()
		dev, err := drv.Open(mappers.DeviceConfig{Connection: json.RawMessage(`{"url": "tcp://127.0.0.1:1"}`),
			Points: []mappers.Point{{Property: "fine", Type: models.TypeInt, Access: r, Address: json.RawMessage(anyAddress)},
				{Property: "p", Type: c.kind, Access: c.access, Address: json.RawMessage(c.text)}}})
		if dev != nil {
			dev.Close()
		}
		what := string(c.kind) + " " + c.text
		if c.pointer == "" && c.detail != "" {
			checkError(t, what, err, "", "/spec/properties/p/address", c.detail)
		} else {
			checkError(t, what, err, "/spec/properties/p/address", c.pointer, c.detail)
		}
		got := fits(t, schema.Compile, addressSchema, c.text)
		if len(got) == 0 {
			got = fits(t, schema.CompileProperty, propertySchema, fmt.Sprintf(`{"name": "p", "type": %q, "access": %q, "address": %s}`, c.kind, c.access, c.text))
		}
		if (len(got) == 0) != (c.pointer == "" && c.detail == "") {
			t.Errorf("%s: the schemas say %v", what, got)
		}
	}
}

func TestAPointWiderThanARequest(t *testing.T) {
	_, err := New().Open(mappers.DeviceConfig{Connection: json.RawMessage(`{"url": "tcp://127.0.0.1:1", "maxRegisters": 2}`), Points: []mappers.Point{
		{Property: "p", Type: models.TypeInt, Access: models.Read, Address: json.RawMessage(`{"table": "input", "register": 0, "encoding": "int64"}`)}}})
	checkError(t, "int64", err, "/spec/properties/p/address", "/encoding", "maxRegisters is 2")
}

// FuzzOpen: whatever an address says, Open returns, what the schema and Open
// accept can be planned, and a value that the point accepts survives its own
// encoding.
func FuzzOpen(f *testing.F) {
	f.Add(anyAddress, uint8(1), true, 1.5)
	f.Add(`{"reference": "00001"}`, uint8(0), true, 0.0)
	f.Add(`{"table": "holding", "register": 10, "encoding": "float32", "order": "CDAB", "scale": 0.1, "offset": -3}`, uint8(2), true, 45.5)
	f.Add(`{"table": "holding", "register": 1, "encoding": "string", "length": 8, "nullValue": "x"}`, uint8(3), true, 0.0)
	f.Add(`{"table": "input", "register": 1, "encoding": "int16", "scaleFrom": 7, "nullValue": 32768}`, uint8(2), false, 0.0)
	f.Fuzz(func(t *testing.T, text string, kind uint8, writable bool, number float64) {
		p := mappers.Point{Property: "p", Type: models.Types[int(kind)%len(models.Types)], Access: models.Read, Address: json.RawMessage(text)}
		if writable {
			p.Access = models.ReadWrite
		}
		dev, err := New().Open(mappers.DeviceConfig{Connection: json.RawMessage(`{"url": "tcp://127.0.0.1:1"}`), Points: []mappers.Point{p}})
		if err != nil {
			return
		}
		defer dev.Close()
		d := dev.(*device)
		if plan := d.Plan([]int{0}); len(plan) < 1 || len(plan) > 2 {
			t.Errorf("%s: plan %+v", text, plan)
		}
		for _, v := range []models.Value{models.Float(number), models.Int(int64(number)), models.Bool(number > 0), models.String(text[:min(4, len(text))])} {
			fitted, err := v.Fit(p.Type)
			if err != nil {
				continue
			}
			once, err := d.Canonical(0, fitted)
			if err != nil {
				continue
			}
			if d.points[0].scaleFrom < 0 && once.Kind() == fitted.Kind() {
				if twice, err := d.Canonical(0, once); err == nil && twice != once && fitted.IsNumber() {
					a, _ := once.AsFloat()
					b, _ := twice.AsFloat()
					if math.Abs(a-b) > 1e-9*math.Abs(a) {
						t.Errorf("%s: %v is canonically %v, and that %v", text, fitted, once, twice)
					}
				}
			}
		}
	})
}

func TestLinear(t *testing.T) {
	for _, c := range []struct {
		scale, offset float64
		power         int
		raw, want     float64
	}{
		{0.1, 0, 0, 3, 0.3}, {0.1, 0, 0, 235, 23.5}, {0.1, -40, 0, 653, 25.3}, {0.01, 0, 0, 12345, 123.45}, {0.3, 0, 0, 3, 0.9},
		{1, 0, -2, 21, 0.21}, {1, 0, 3, 21, 21000}, {2.5, 1, 1, 3, 76}, {1e-30, 0, 0, 7, 7e-30}, {0.1, 0, -1, 5, 0.05}, {-0.5, 100, 0, 30, 85},
	} {
		l := newLinear(c.scale, c.offset, c.power)
		if got := l.apply(c.raw); got != c.want {
			t.Errorf("%v*%v*10^%d+%v = %v, want %v", c.raw, c.scale, c.power, c.offset, got, c.want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		scale := float64(rapid.IntRange(1, 9999).Draw(t, "digits")) / math.Pow10(rapid.IntRange(0, 4).Draw(t, "places"))
		l := newLinear(scale, float64(rapid.IntRange(-1000, 1000).Draw(t, "offset")), rapid.IntRange(-4, 4).Draw(t, "power"))
		raw := rapid.Int32().Draw(t, "raw")
		if got := math.Round(l.invert(l.apply(float64(raw)))); got != float64(raw) {
			t.Fatalf("raw %d comes back as %v", raw, got)
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		w := whole{rapid.Int64().Filter(func(i int64) bool { return i != 0 }).Draw(t, "scale"), rapid.Int64().Draw(t, "offset")}
		raw := rapid.Int64().Draw(t, "raw")
		if v, ok := w.apply(raw); ok {
			if got, ok := w.invert(v); ok && got != raw {
				t.Fatalf("%v: raw %d comes back as %d", w, raw, got)
			}
		}
	})
	for _, c := range []struct{ scale, value, want int64 }{{10, 14, 1}, {10, 15, 2}, {10, -14, -1}, {10, -15, -2}, {-10, 15, -2}, {-10, -16, 2}, {3, 2, 1}} {
		if got, ok := (whole{scale: c.scale}).invert(c.value); !ok || got != c.want {
			t.Errorf("%d / %d = %d, want %d", c.value, c.scale, got, c.want)
		}
	}
}

// TestPlan: every span lies wholly in exactly one block, no block is longer
// than the limits or reads over a wider gap or a hole, and unused cells are
// counted.
func TestPlan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := limits{maxRegisters: rapid.IntRange(4, 125).Draw(t, "maxRegisters"), maxBits: rapid.IntRange(1, 300).Draw(t, "maxBits"), maxGap: rapid.IntRange(0, 20).Draw(t, "maxGap")}
		var land terrain
		spans := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) span {
			s := span{table: wire.Table(rapid.IntRange(1, 4).Draw(t, "table")), start: rapid.IntRange(0, 400).Draw(t, "start"), width: 1}
			if !s.table.Bits() {
				s.width = rapid.SampledFrom([]int{1, 1, 2, 4}).Draw(t, "width")
			}
			return s
		}), 0, 80).Draw(t, "spans")
		for i := range spans {
			spans[i].point = i
		}
		holes := map[cell]bool{}
		for range rapid.IntRange(0, 20).Draw(t, "holes") {
			holes[cell{wire.Table(rapid.IntRange(1, 4).Draw(t, "table")), rapid.IntRange(0, 400).Draw(t, "at")}] = true
		}
		used := map[cell]bool{}
		for _, s := range spans {
			for a := s.start; a < s.end(); a++ {
				used[cell{s.table, a}] = true
			}
		}
		land.holes = holes
		seen := map[int]int{}
		for _, b := range plan(spans, l, &land) {
			if b.count < 1 || b.count > l.most(b.table) {
				t.Fatalf("%s is beyond %+v", b.text(), l)
			}
			unused, gap := 0, 0
			for a := b.start; a < b.start+b.count; a++ {
				if used[cell{b.table, a}] {
					gap = 0
					continue
				}
				unused++
				if gap++; gap > l.maxGap || holes[cell{b.table, a}] {
					t.Fatalf("%s reads over %d", b.text(), a)
				}
			}
			if unused != b.unused {
				t.Fatalf("%s counts %d unused, has %d", b.text(), b.unused, unused)
			}
			for _, s := range b.spans {
				seen[s.point]++
				if s.table != b.table || s.start < b.start || s.end() > b.start+b.count {
					t.Fatalf("%s does not hold %+v", b.text(), s)
				}
			}
			parts := 0
			for _, part := range b.split() {
				parts += len(part.spans)
				if len(part.spans) == len(b.spans) {
					t.Fatalf("splitting %s gives all of it", b.text())
				}
			}
			if parts != 0 && parts != len(b.spans) {
				t.Fatalf("splitting %s loses spans", b.text())
			}
		}
		if len(seen) != len(spans) {
			t.Fatalf("%d of %d spans are read", len(seen), len(spans))
		}
		for p, n := range seen {
			if n != 1 {
				t.Fatalf("point %d is read %d times", p, n)
			}
		}
	})
}

// TestTheSchemaKnowsEveryBaud: what the port can do is neither refused nor
// promised in vain.
func TestTheSchemaKnowsEveryBaud(t *testing.T) {
	t.Parallel()
	for _, baud := range serial.Bauds() {
		if wrong := fits(t, schema.Compile, connectionSchema, fmt.Sprintf(`{"url": "rtu:///dev/ttyUSB0?baud=%d"}`, baud)); len(wrong) > 0 {
			t.Errorf("%d: %v", baud, wrong)
		}
	}
	var doc struct {
		Properties struct {
			URL struct {
				Parts struct {
					Properties struct {
						Query struct {
							Properties struct {
								Baud struct{ Enum []int }
							}
						}
					}
				} `json:"x-url"`
			}
		}
	}
	if err := json.Unmarshal(connectionSchema, &doc); err != nil {
		t.Fatal(err)
	}
	if listed := doc.Properties.URL.Parts.Properties.Query.Properties.Baud.Enum; !slices.Equal(listed, serial.Bauds()) {
		t.Errorf("the schema lists %v, the port has %v", listed, serial.Bauds())
	}
}
