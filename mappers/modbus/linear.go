package modbus

import (
	"math"
	"strconv"
	"strings"
)

// linear turns raw numbers into values: value = raw * scale + offset. It
// reckons in the decimals that the scale was written in, so that a raw 3 scaled
// by 0.1 is 0.3 and not the 0.30000000000000004 of the product of two floats.
type linear struct {
	scale, offset float64

	// decimal: value = (raw*factor + shift) / 10^digits, with all of them whole.
	decimal       bool
	factor, shift float64
	tens          float64 // 10^digits
}

// maxTens is the largest n for which 10^n is an exact float64.
const maxTens = 22

func newLinear(scale, offset float64, power int) linear {
	l := linear{scale: scale * math.Pow10(power), offset: offset}
	m, e := decimalOf(scale)
	o, f := decimalOf(offset)
	e += power
	low := min(e, f, 0)
	if low < -maxTens || max(e, f)-low > maxTens {
		return l
	}
	l.factor, l.shift, l.tens = m*math.Pow10(e-low), o*math.Pow10(f-low), math.Pow10(-low)
	l.decimal = math.Abs(l.factor) < 1<<53 && math.Abs(l.shift) < 1<<53
	return l
}

// decimalOf splits f into whole digits and a power of ten.
func decimalOf(f float64) (digits float64, exponent int) {
	mantissa, power, _ := strings.Cut(strconv.FormatFloat(f, 'e', -1, 64), "e")
	exponent, _ = strconv.Atoi(power)
	whole, fraction, _ := strings.Cut(mantissa, ".")
	digits, _ = strconv.ParseFloat(whole+fraction, 64)
	return digits, exponent - len(fraction)
}

// identity tells whether values are the raw numbers themselves.
func (l *linear) identity() bool { return l.scale == 1 && l.offset == 0 }

// apply gives the value of a raw number.
func (l *linear) apply(raw float64) float64 {
	if l.decimal {
		return (raw*l.factor + l.shift) / l.tens
	}
	return raw*l.scale + l.offset
}

// invert gives the raw number of a value, not rounded.
func (l *linear) invert(value float64) float64 {
	if l.decimal {
		return (value*l.tens - l.shift) / l.factor
	}
	return (value - l.offset) / l.scale
}

// whole is linear over ints, exact over their whole range.
type whole struct{ scale, offset int64 }

// apply gives raw*scale + offset, and false when that is no int64.
func (w whole) apply(raw int64) (int64, bool) {
	p := raw * w.scale
	if raw != 0 && (p/raw != w.scale || raw == -1 && w.scale == math.MinInt64) {
		return 0, false
	}
	s := p + w.offset
	return s, (s > p) == (w.offset > 0)
}

// invert gives the raw number nearest to a value, and false when that is no
// int64.
func (w whole) invert(value int64) (int64, bool) {
	d := value - w.offset
	if (d < value) != (w.offset > 0) || d == math.MinInt64 && w.scale == -1 {
		return 0, false
	}
	q, rest := d/w.scale, d%w.scale
	// Rest and scale may be as large as an int64 goes: compare without doubling.
	if abs(rest) >= abs(w.scale)-abs(rest) && rest != 0 {
		if (rest < 0) == (w.scale < 0) {
			q++
		} else {
			q--
		}
	}
	return q, true
}

func abs(i int64) uint64 {
	if i < 0 {
		return uint64(-i)
	}
	return uint64(i)
}
