package modbus

import (
	"bytes"
	"errors"
	"math"
	"testing"

	"pgregory.net/rapid"
)

var orders = []Order{ABCD, CDAB, BADC, DCBA}

// layouts says for one value of every width what its bytes are in each order:
// word order is reversed over all words of a value, bytes swap within a word.
var layouts = []struct {
	encoding Encoding
	value    Value
	regs     map[string]string // by order
}{
	{Bool, BoolValue(true), map[string]string{"ABCD": "\x00\x01", "CDAB": "\x00\x01", "BADC": "\x01\x00", "DCBA": "\x01\x00"}},
	{Int16, IntValue(-2), map[string]string{"ABCD": "\xff\xfe", "CDAB": "\xff\xfe", "BADC": "\xfe\xff", "DCBA": "\xfe\xff"}},
	{Uint16, UintValue(0xabcd), map[string]string{"ABCD": "\xab\xcd", "CDAB": "\xab\xcd", "BADC": "\xcd\xab", "DCBA": "\xcd\xab"}},
	{Int32, IntValue(-0x01020304), map[string]string{"ABCD": "\xfe\xfd\xfc\xfc", "CDAB": "\xfc\xfc\xfe\xfd", "BADC": "\xfd\xfe\xfc\xfc", "DCBA": "\xfc\xfc\xfd\xfe"}},
	{Uint32, UintValue(0x0a0b0c0d), map[string]string{"ABCD": "\x0a\x0b\x0c\x0d", "CDAB": "\x0c\x0d\x0a\x0b", "BADC": "\x0b\x0a\x0d\x0c", "DCBA": "\x0d\x0c\x0b\x0a"}},
	{Int64, IntValue(0x0102030405060708), map[string]string{
		"ABCD": "\x01\x02\x03\x04\x05\x06\x07\x08", "CDAB": "\x07\x08\x05\x06\x03\x04\x01\x02",
		"BADC": "\x02\x01\x04\x03\x06\x05\x08\x07", "DCBA": "\x08\x07\x06\x05\x04\x03\x02\x01"}},
	{Uint64, UintValue(0xf102030405060708), map[string]string{
		"ABCD": "\xf1\x02\x03\x04\x05\x06\x07\x08", "CDAB": "\x07\x08\x05\x06\x03\x04\xf1\x02",
		"BADC": "\x02\xf1\x04\x03\x06\x05\x08\x07", "DCBA": "\x08\x07\x06\x05\x04\x03\x02\xf1"}},
	// 123.456 is 42 F6 E9 79 as a single, 40 5E DD 2F 1A 9F BE 77 as a double.
	{Float32, FloatValue(float64(float32(123.456))), map[string]string{"ABCD": "\x42\xf6\xe9\x79", "CDAB": "\xe9\x79\x42\xf6", "BADC": "\xf6\x42\x79\xe9", "DCBA": "\x79\xe9\xf6\x42"}},
	{Float64, FloatValue(123.456), map[string]string{
		"ABCD": "\x40\x5e\xdd\x2f\x1a\x9f\xbe\x77", "CDAB": "\xbe\x77\x1a\x9f\xdd\x2f\x40\x5e",
		"BADC": "\x5e\x40\x2f\xdd\x9f\x1a\x77\xbe", "DCBA": "\x77\xbe\x9f\x1a\x2f\xdd\x5e\x40"}},
	{String, StringValue("WB-20"), map[string]string{"ABCD": "WB-20\x00", "CDAB": "WB-20\x00", "BADC": "BW2-\x000", "DCBA": "BW2-\x000"}},
}

func TestLayouts(t *testing.T) {
	for _, c := range layouts {
		for _, o := range orders {
			want := []byte(c.regs[o.String()])
			got := bytes.Repeat([]byte{0x55}, len(want))
			if err := c.encoding.Encode(o, got, c.value); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%v %v: encode %v = % x, %v, want % x", c.encoding, o, c.value, got, err, want)
			}
			if v, err := c.encoding.Decode(o, want); err != nil || v != c.value {
				t.Errorf("%v %v: decode % x = %v, %v, want %v", c.encoding, o, want, v, err, c.value)
			}
		}
	}
}

func TestEncodeLimits(t *testing.T) {
	cases := []struct {
		encoding Encoding
		value    Value
		want     Value // what comes back; zero: overflow
	}{
		{Int16, IntValue(32767), IntValue(32767)},
		{Int16, IntValue(-32768), IntValue(-32768)},
		{Int16, IntValue(32768), Value{}},
		{Int16, IntValue(-32769), Value{}},
		{Int16, FloatValue(455.5), IntValue(456)},
		{Int16, FloatValue(-32768.4), IntValue(-32768)},
		{Int16, FloatValue(32767.5), Value{}},
		{Int16, FloatValue(math.NaN()), Value{}},
		{Int16, FloatValue(math.Inf(1)), Value{}},
		{Uint16, IntValue(-1), Value{}},
		{Uint16, FloatValue(-0.4), UintValue(0)},
		{Uint16, UintValue(65535), UintValue(65535)},
		{Uint16, UintValue(65536), Value{}},
		{Uint16, BoolValue(true), UintValue(1)},
		{Int32, IntValue(math.MinInt32), IntValue(math.MinInt32)},
		{Int32, IntValue(math.MaxInt32 + 1), Value{}},
		{Uint32, UintValue(math.MaxUint32), UintValue(math.MaxUint32)},
		{Uint32, UintValue(math.MaxUint32 + 1), Value{}},
		{Int64, IntValue(math.MinInt64), IntValue(math.MinInt64)},
		{Int64, UintValue(math.MaxInt64 + 1), Value{}},
		{Int64, FloatValue(1 << 63), Value{}},
		{Int64, FloatValue(-1 << 63), IntValue(math.MinInt64)},
		{Uint64, UintValue(math.MaxUint64), UintValue(math.MaxUint64)},
		{Uint64, FloatValue(1 << 64), Value{}},
		{Uint64, IntValue(-1), Value{}},
		{Float32, FloatValue(1e39), Value{}},
		{Float32, FloatValue(math.Inf(-1)), FloatValue(math.Inf(-1))},
		{Float32, IntValue(7), FloatValue(7)},
		{Float64, FloatValue(math.MaxFloat64), FloatValue(math.MaxFloat64)},
		{Bool, IntValue(4), BoolValue(true)},
		{Bool, FloatValue(0), BoolValue(false)},
	}
	for _, c := range cases {
		regs := bytes.Repeat([]byte{0x55}, 2*c.encoding.Registers())
		err := c.encoding.Encode(CDAB, regs, c.value)
		if c.want == (Value{}) {
			if !errors.Is(err, ErrOverflow) || regs[0] != 0x55 {
				t.Errorf("%v as %v: %v, regs % x, want overflow and regs untouched", c.value, c.encoding, err, regs)
			}
			continue
		}
		got, derr := c.encoding.Decode(CDAB, regs)
		if err != nil || derr != nil || got != c.want {
			t.Errorf("%v as %v: %v, %v, %v, want %v", c.value, c.encoding, got, err, derr, c.want)
		}
	}
	nan := make([]byte, 4)
	if err := Float32.Encode(ABCD, nan, FloatValue(math.NaN())); err != nil {
		t.Error(err)
	}
	if v, _ := Float32.Decode(ABCD, nan); !math.IsNaN(v.Float()) {
		t.Errorf("NaN came back as %v", v)
	}
}

func TestEncodeRefuses(t *testing.T) {
	for e := Bool; e <= Float64; e++ {
		for _, n := range []int{0, 1, 2*e.Registers() - 1, 2*e.Registers() + 2} {
			if _, err := e.Decode(ABCD, make([]byte, n)); err == nil {
				t.Errorf("%v decodes %d bytes", e, n)
			}
			if err := e.Encode(ABCD, make([]byte, n), IntValue(1)); err == nil {
				t.Errorf("%v encodes into %d bytes", e, n)
			}
		}
		if err := e.Encode(ABCD, make([]byte, 2*e.Registers()), StringValue("1")); err == nil {
			t.Errorf("%v encodes a string", e)
		}
	}
	if err := String.Encode(ABCD, make([]byte, 4), IntValue(1)); err == nil {
		t.Error("string encodes a number")
	}
	if err := String.Encode(ABCD, make([]byte, 4), StringValue("12345")); !errors.Is(err, ErrOverflow) {
		t.Errorf("5 characters in 2 registers: %v", err)
	}
	if _, err := String.Decode(ABCD, make([]byte, 3)); err == nil {
		t.Error("string decodes 3 bytes")
	}
	if err := Encoding(0).Encode(ABCD, make([]byte, 2), IntValue(1)); err == nil {
		t.Error("the zero encoding encodes")
	}
}

func TestStringPadding(t *testing.T) {
	for regs, want := range map[string]string{
		"ab\x00\x00": "ab", "ab  ": "ab", "a b ": "a b", "\x00\x00": "", "ab \x00": "ab", " ab\x00": " ab",
	} {
		if v, err := String.Decode(ABCD, []byte(regs)); err != nil || v.Text() != want {
			t.Errorf("%q reads %q, %v, want %q", regs, v.Text(), err, want)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := Encoding(rapid.IntRange(int(Bool), int(Float64)).Draw(t, "encoding"))
		o := orders[rapid.IntRange(0, 3).Draw(t, "order")]
		regs := rapid.SliceOfN(rapid.Byte(), 2*e.Registers(), 2*e.Registers()).Draw(t, "regs")
		v, err := e.Decode(o, regs)
		if err != nil {
			t.Fatal(err)
		}
		if e == Bool || math.IsNaN(v.Float()) {
			return // several patterns mean the same
		}
		back := make([]byte, len(regs))
		if err := e.Encode(o, back, v); err != nil || !bytes.Equal(back, regs) {
			t.Fatalf("% x is %v and comes back as % x, %v", regs, v, back, err)
		}
	})
}

func FuzzDecode(f *testing.F) {
	for _, c := range layouts {
		for i, o := range orders {
			f.Add(uint8(c.encoding), uint8(i), []byte(c.regs[o.String()]))
		}
	}
	f.Fuzz(func(t *testing.T, encoding, order uint8, regs []byte) {
		e, o := Encoding(encoding), orders[order%4]
		v, err := e.Decode(o, regs)
		if err != nil {
			return
		}
		back := make([]byte, len(regs))
		if err := e.Encode(o, back, v); err != nil {
			t.Fatalf("%v %v: % x decodes to %v, which does not encode: %v", e, o, regs, v, err)
		}
		again, err := e.Decode(o, back)
		if err != nil || again != v && !math.IsNaN(v.Float()) {
			t.Fatalf("%v %v: %v comes back as %v, %v", e, o, v, again, err)
		}
	})
}

func TestNames(t *testing.T) {
	for _, o := range orders {
		if got, err := ParseOrder(o.String()); err != nil || got != o {
			t.Errorf("%v: %v, %v", o, got, err)
		}
	}
	if o, err := ParseOrder(""); err != nil || o != ABCD {
		t.Errorf("no order is %v, %v", o, err)
	}
	for _, bad := range []string{"abcd", "ABDC", "little"} {
		if _, err := ParseOrder(bad); err == nil {
			t.Errorf("order %q is accepted", bad)
		}
	}
	for e := Bool; e <= String; e++ {
		if got, err := ParseEncoding(e.String()); err != nil || got != e {
			t.Errorf("%v: %v, %v", e, got, err)
		}
	}
	for _, bad := range []string{"", "none", "float", "INT16"} {
		if _, err := ParseEncoding(bad); err == nil {
			t.Errorf("encoding %q is accepted", bad)
		}
	}
	for tb := Coil; tb <= Holding; tb++ {
		if got, err := ParseTable(tb.String()); err != nil || got != tb {
			t.Errorf("%v: %v, %v", tb, got, err)
		}
	}
	if _, err := ParseTable("none"); err == nil {
		t.Error("table none is accepted")
	}
}

func TestParseReference(t *testing.T) {
	for s, want := range map[string]struct {
		table Table
		addr  uint16
	}{
		"40001": {Holding, 0}, "49999": {Holding, 9998}, "400001": {Holding, 0}, "465536": {Holding, 65535},
		"30011": {Input, 10}, "10003": {Discrete, 2}, "00001": {Coil, 0}, "000017": {Coil, 16},
	} {
		table, addr, err := ParseReference(s)
		if err != nil || table != want.table || addr != want.addr {
			t.Errorf("%s is %v %d, %v, want %v %d", s, table, addr, err, want.table, want.addr)
		}
	}
	for _, bad := range []string{"", "1", "4001", "40000", "400000", "465537", "20001", "50001", "4x001", "4+001", "-0001", "4000001"} {
		if table, addr, err := ParseReference(bad); err == nil {
			t.Errorf("%q is accepted as %v %d", bad, table, addr)
		}
	}
}

func TestBits(t *testing.T) {
	bits := []bool{true, false, true, true, false, false, true, true, true, false}
	packed := PackBits(bits) // CD 01, as in APS 6.1
	if !bytes.Equal(packed, []byte{0xcd, 0x01}) {
		t.Fatalf("packed % x", packed)
	}
	for i, on := range bits {
		if Bit(packed, i) != on {
			t.Errorf("bit %d is %v", i, !on)
		}
	}
	if Bit(packed, 16) {
		t.Error("a bit beyond the end is on")
	}
	SetBit(packed, 0, false)
	if packed[0] != 0xcc {
		t.Errorf("% x", packed)
	}
}

func BenchmarkDecodeFloat32(b *testing.B) {
	regs := []byte("\xe9\x79\x42\xf6")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Float32.Decode(CDAB, regs); err != nil {
			b.Fatal(err)
		}
	}
}
