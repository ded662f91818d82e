package modbus

import (
	"fmt"
)

// Order is how a device lays a value across registers. The zero Order is the
// specification's (APS 4.2): high word first, high byte first. The letters
// name the bytes of a 32-bit value from the highest, A, to the lowest, D, as
// they travel; a wider value follows the same two rules over all its words.
type Order struct {
	SwapWords bool // low word first
	SwapBytes bool // low byte first within a word
}

// The four orders by their usual names.
var (
	ABCD = Order{}
	CDAB = Order{SwapWords: true}
	BADC = Order{SwapBytes: true}
	DCBA = Order{SwapWords: true, SwapBytes: true}
)

// ParseOrder reads ABCD, CDAB, BADC or DCBA; "" is ABCD.
func ParseOrder(s string) (Order, error) {
	switch s {
	case "", "ABCD":
		return ABCD, nil
	case "CDAB":
		return CDAB, nil
	case "BADC":
		return BADC, nil
	case "DCBA":
		return DCBA, nil
	}
	return Order{}, fmt.Errorf("modbus: order %q is not one of ABCD, CDAB, BADC, DCBA", s)
}

// String gives the name that ParseOrder reads.
func (o Order) String() string {
	switch o {
	case CDAB:
		return "CDAB"
	case BADC:
		return "BADC"
	case DCBA:
		return "DCBA"
	}
	return "ABCD"
}

// bits joins one to four registers into an integer.
func (o Order) bits(regs []byte) (v uint64) {
	n := len(regs) / 2
	for i := range n {
		w := i
		if o.SwapWords {
			w = n - 1 - i
		}
		hi, lo := regs[2*w], regs[2*w+1]
		if o.SwapBytes {
			hi, lo = lo, hi
		}
		v = v<<16 | uint64(hi)<<8 | uint64(lo)
	}
	return v
}

// putBits is the inverse of bits: it lays the low len(regs)*8 bits of v.
func (o Order) putBits(regs []byte, v uint64) {
	n := len(regs) / 2
	for i := range n {
		w := n - 1 - i // the lowest word first, so that v can be shifted out
		if o.SwapWords {
			w = i
		}
		hi, lo := byte(v>>8), byte(v)
		if o.SwapBytes {
			hi, lo = lo, hi
		}
		regs[2*w], regs[2*w+1] = hi, lo
		v >>= 16
	}
}
