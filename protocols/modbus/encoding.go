package modbus

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Encoding is what the bits in one or more registers stand for.
type Encoding uint8

// The encodings. The zero Encoding is none of them.
const (
	Bool Encoding = iota + 1 // one register: 0 is false, anything else is true
	Int16
	Uint16
	Int32
	Uint32
	Int64
	Uint64
	Float32 // IEEE 754 single
	Float64 // IEEE 754 double
	String  // two characters a register, the first in the high byte
)

var encodingNames = []string{"none", "bool", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64", "string"}

// ErrOverflow says that a value does not fit the encoding or the length.
var ErrOverflow = errors.New("value does not fit")

// ParseEncoding reads an encoding's name.
func ParseEncoding(s string) (Encoding, error) {
	if i := slices.Index(encodingNames, s); i > 0 {
		return Encoding(i), nil
	}
	return 0, fmt.Errorf("modbus: encoding %q is not one of %s", s, strings.Join(encodingNames[1:], ", "))
}

// String gives the name that ParseEncoding reads.
func (e Encoding) String() string {
	if int(e) < len(encodingNames) {
		return encodingNames[e]
	}
	return fmt.Sprintf("encoding(%d)", uint8(e))
}

// Registers is how many registers a value takes; 0 for String, whose length
// is the address's.
func (e Encoding) Registers() int {
	switch e {
	case Bool, Int16, Uint16:
		return 1
	case Int32, Uint32, Float32:
		return 2
	case Int64, Uint64, Float64:
		return 4
	}
	return 0
}

// Kind says which of its forms a Value has.
type Kind uint8

// The kinds of Value. The zero Value has none.
const (
	KindBool Kind = iota + 1
	KindInt
	KindUint
	KindFloat
	KindString
)

// Value is one value as it lies in a device, before any scaling. It is small
// and comparable, and making one allocates nothing but a string.
type Value struct {
	kind Kind
	num  uint64 // the bits of whichever number it is
	text string
}

// BoolValue makes a Value of a truth.
func BoolValue(v bool) Value {
	if v {
		return Value{kind: KindBool, num: 1}
	}
	return Value{kind: KindBool}
}

// IntValue makes a Value of a signed integer.
func IntValue(v int64) Value { return Value{kind: KindInt, num: uint64(v)} }

// UintValue makes a Value of an unsigned integer.
func UintValue(v uint64) Value { return Value{kind: KindUint, num: v} }

// FloatValue makes a Value of a number.
func FloatValue(v float64) Value { return Value{kind: KindFloat, num: math.Float64bits(v)} }

// StringValue makes a Value of a text.
func StringValue(v string) Value { return Value{kind: KindString, text: v} }

// Kind says which accessor fits.
func (v Value) Kind() Kind { return v.kind }

// Bool is the truth of a KindBool.
func (v Value) Bool() bool { return v.num != 0 }

// Int is the number of a KindInt.
func (v Value) Int() int64 { return int64(v.num) }

// Uint is the number of a KindUint.
func (v Value) Uint() uint64 { return v.num }

// Text is the text of a KindString.
func (v Value) Text() string { return v.text }

// Float is the number of any numeric kind, true being 1; for integers beyond
// 2^53 it is the nearest float. A string has none and gives NaN.
func (v Value) Float() float64 {
	switch v.kind {
	case KindInt:
		return float64(int64(v.num))
	case KindBool, KindUint:
		return float64(v.num)
	case KindFloat:
		return math.Float64frombits(v.num)
	}
	return math.NaN()
}

// String is for messages.
func (v Value) String() string {
	switch v.kind {
	case KindBool:
		return fmt.Sprint(v.Bool())
	case KindInt:
		return fmt.Sprint(v.Int())
	case KindUint:
		return fmt.Sprint(v.Uint())
	case KindFloat:
		return fmt.Sprint(v.Float())
	case KindString:
		return fmt.Sprintf("%q", v.text)
	}
	return "none"
}

// Decode reads a value from register bytes as they travelled. It fails when
// regs is not as long as the encoding.
func (e Encoding) Decode(o Order, regs []byte) (Value, error) {
	if err := e.checkLength(regs); err != nil {
		return Value{}, err
	}
	if e == String {
		return StringValue(o.text(regs)), nil
	}
	bits := o.bits(regs)
	switch e {
	case Bool:
		return BoolValue(bits != 0), nil
	case Int16:
		return IntValue(int64(int16(bits))), nil
	case Int32:
		return IntValue(int64(int32(bits))), nil
	case Int64:
		return IntValue(int64(bits)), nil
	case Float32:
		return FloatValue(float64(math.Float32frombits(uint32(bits)))), nil
	case Float64:
		return FloatValue(math.Float64frombits(bits)), nil
	}
	return UintValue(bits), nil
}

// Encode lays v into regs, whose length the caller chose (Registers, or the
// length of a string). A float is rounded to the nearest integer where the
// encoding holds integers. A value that does not fit is ErrOverflow and leaves
// regs as they were.
func (e Encoding) Encode(o Order, regs []byte, v Value) error {
	if err := e.checkLength(regs); err != nil {
		return err
	}
	if (e == String) != (v.kind == KindString) || v.kind == 0 {
		return fmt.Errorf("modbus: %v cannot be encoded as %v", v, e)
	}
	switch e {
	case String:
		return o.putText(regs, v.text)
	case Float32:
		f := v.Float()
		single := float32(f)
		if math.IsInf(float64(single), 0) && !math.IsInf(f, 0) {
			return overflow(v, e)
		}
		o.putBits(regs, uint64(math.Float32bits(single)))
		return nil
	case Float64:
		o.putBits(regs, math.Float64bits(v.Float()))
		return nil
	case Bool:
		o.putBits(regs, BoolValue(v.Float() != 0).num)
		return nil
	}
	bits, ok := e.integer(v)
	if !ok {
		return overflow(v, e)
	}
	o.putBits(regs, bits)
	return nil
}

// integer gives v as the two's complement bits of an integer encoding.
func (e Encoding) integer(v Value) (bits uint64, ok bool) {
	width := 16 * e.Registers()
	switch e {
	case Int16, Int32, Int64:
		n, ok := v.asInt()
		half := int64(math.MaxInt64) >> (64 - width)
		return uint64(n), ok && n >= -half-1 && n <= half
	case Uint16, Uint32, Uint64:
		n, ok := v.asUint()
		return n, ok && n <= math.MaxUint64>>(64-width)
	}
	return 0, false
}

func (v Value) asInt() (int64, bool) {
	switch v.kind {
	case KindInt:
		return v.Int(), true
	case KindBool, KindUint:
		return int64(v.num), v.num <= math.MaxInt64
	}
	f := math.Round(v.Float())
	// 2^63 itself is a float but no int64; NaN fails both comparisons.
	return int64(f), f >= -1<<63 && f < 1<<63
}

func (v Value) asUint() (uint64, bool) {
	switch v.kind {
	case KindBool, KindUint:
		return v.num, true
	case KindInt:
		return v.num, v.Int() >= 0
	}
	f := math.Round(v.Float())
	if !(f >= 0 && f < 1<<64) {
		return 0, false
	}
	return uint64(f), true
}

func overflow(v Value, e Encoding) error {
	return fmt.Errorf("modbus: %v as %v: %w", v, e, ErrOverflow)
}

func (e Encoding) checkLength(regs []byte) error {
	want := 2 * e.Registers()
	switch {
	case e == String && len(regs) > 0 && len(regs)%2 == 0:
		return nil
	case e == String:
		return fmt.Errorf("modbus: a string needs whole registers, have %d bytes", len(regs))
	case want == 0:
		return fmt.Errorf("modbus: %v has no layout", e)
	case len(regs) != want:
		return fmt.Errorf("modbus: %v needs %d bytes, have %d", e, want, len(regs))
	}
	return nil
}

// text reads characters in the order of the registers, without the NULs and
// spaces that pad the end. Word order is about numbers and does not move them.
func (o Order) text(regs []byte) string {
	b := regs
	if o.SwapBytes {
		b = slices.Clone(regs)
		swapBytes(b)
	}
	return strings.TrimRight(string(b), "\x00 ")
}

func (o Order) putText(regs []byte, s string) error {
	if len(s) > len(regs) {
		return fmt.Errorf("modbus: %d bytes of text in %d registers: %w", len(s), len(regs)/2, ErrOverflow)
	}
	clear(regs[copy(regs, s):])
	if o.SwapBytes {
		swapBytes(regs)
	}
	return nil
}

func swapBytes(regs []byte) {
	for i := 0; i+1 < len(regs); i += 2 {
		regs[i], regs[i+1] = regs[i+1], regs[i]
	}
}
