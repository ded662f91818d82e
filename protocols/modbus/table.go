package modbus

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Table is one of the four tables of a unit (APS 4.3).
type Table uint8

// The tables. The zero Table is none of them.
const (
	Coil     Table = iota + 1 // bits, read and written
	Discrete                  // bits, read only
	Input                     // registers, read only
	Holding                   // registers, read and written
)

var tableNames = []string{"none", "coil", "discrete", "input", "holding"}

// ParseTable reads coil, discrete, input or holding.
func ParseTable(s string) (Table, error) {
	if i := slices.Index(tableNames, s); i > 0 {
		return Table(i), nil
	}
	return 0, fmt.Errorf("modbus: table %q is not one of %s", s, strings.Join(tableNames[1:], ", "))
}

// String gives the name that ParseTable reads.
func (t Table) String() string {
	if int(t) < len(tableNames) {
		return tableNames[t]
	}
	return fmt.Sprintf("table(%d)", uint8(t))
}

// Bits tells tables of bits from tables of registers.
func (t Table) Bits() bool { return t == Coil || t == Discrete }

// Writable tells whether the protocol has functions that write the table.
func (t Table) Writable() bool { return t == Coil || t == Holding }

// ParseReference reads a reference as manuals print them, "40001" or
// "400001": the first digit is the table (0 coil, 1 discrete, 3 input, 4
// holding), the others count from 1. It gives the table and the 0-based
// address that travels (APS 4.4).
func ParseReference(s string) (Table, uint16, error) {
	bad := func(why string) (Table, uint16, error) {
		return 0, 0, fmt.Errorf("modbus: reference %q: %s", s, why)
	}
	if len(s) != 5 && len(s) != 6 {
		return bad("a reference has 5 or 6 digits, such as 40001 or 400001")
	}
	n, err := strconv.ParseUint(s[1:], 10, 32)
	if err != nil || s[1] == '+' {
		return bad("a reference has digits only")
	}
	if n < 1 || n > 65536 {
		return bad("the number after the table's digit counts from 1 to 65536")
	}
	switch s[0] {
	case '0':
		return Coil, uint16(n - 1), nil
	case '1':
		return Discrete, uint16(n - 1), nil
	case '3':
		return Input, uint16(n - 1), nil
	case '4':
		return Holding, uint16(n - 1), nil
	}
	return bad("the first digit is 0 (coil), 1 (discrete), 3 (input) or 4 (holding)")
}

// Bit is bit i of packed coils or discrete inputs: the first is the lowest
// bit of the first byte (APS 6.1). A bit beyond the end is false.
func Bit(packed []byte, i int) bool {
	return i/8 < len(packed) && packed[i/8]>>(i%8)&1 == 1
}

// SetBit sets bit i of packed bits, which must be long enough.
func SetBit(packed []byte, i int, on bool) {
	if on {
		packed[i/8] |= 1 << (i % 8)
	} else {
		packed[i/8] &^= 1 << (i % 8)
	}
}

// PackBits packs bits as coils travel.
func PackBits(bits []bool) []byte {
	packed := make([]byte, (len(bits)+7)/8)
	for i, on := range bits {
		SetBit(packed, i, on)
	}
	return packed
}
