package store

import (
	"math"
	"math/big"
)

// Sum adds floats exactly: what it comes to does not depend on the order, nor on
// which of them were added up before. The zero Sum is empty.
type Sum struct {
	// parts do not overlap, the least first; together they are the sum. Few are
	// needed where all numbers are of one magnitude.
	parts []float64
	// huge are those of numbers too large to be added to others, scaled down.
	huge []float64
}

const (
	hugeFrom  = 0x1p960
	hugeScale = 0x1p-200
)

// Add adds a finite number.
func (s *Sum) Add(f float64) {
	if math.Abs(f) >= hugeFrom {
		s.huge = addPart(s.huge, f*hugeScale)
		return
	}
	s.parts = addPart(s.parts, f)
}

// Merge adds another sum.
func (s *Sum) Merge(o *Sum) {
	for _, f := range o.parts {
		s.parts = addPart(s.parts, f)
	}
	for _, f := range o.huge {
		s.huge = addPart(s.huge, f)
	}
}

// addPart adds x to parts: what rounding leaves of each addition stays as a part of
// its own.
func addPart(parts []float64, x float64) []float64 {
	kept := 0
	for _, y := range parts {
		if math.Abs(x) < math.Abs(y) {
			x, y = y, x
		}
		high := x + y
		if low := y - (high - x); low != 0 {
			parts[kept] = low
			kept++
		}
		x = high
	}
	return append(parts[:kept], x)
}

// Parts returns what the sum is kept as: both may be given to SumOf.
func (s *Sum) Parts() (parts, huge []float64) { return s.parts, s.huge }

// SumOf is the sum that has these parts.
func SumOf(parts, huge []float64) Sum { return Sum{parts: parts, huge: huge} }

// Mean is the sum, rounded to the nearest float, divided by n. Where the sum is
// beyond all floats it is what comes of dividing first.
func (s *Sum) Mean(n int64) float64 {
	if len(s.huge) == 0 {
		sum := nearest(s.parts)
		if sum == 0 {
			return 0 // never -0, which depends on how the zeros were added
		}
		return sum / float64(n)
	}
	const precision = 4096 // of all that floats can be
	exact := new(big.Float).SetPrec(precision)
	for _, f := range s.huge {
		exact.Add(exact, new(big.Float).SetPrec(precision).SetFloat64(f))
	}
	exact.SetMantExp(exact, 200)
	for _, f := range s.parts {
		exact.Add(exact, new(big.Float).SetPrec(precision).SetFloat64(f))
	}
	mean, _ := exact.Quo(exact, new(big.Float).SetInt64(n)).Float64()
	return mean
}

// nearest rounds a sum to the nearest float, halves to even.
func nearest(parts []float64) float64 {
	n := len(parts)
	if n == 0 {
		return 0
	}
	n--
	high, low := parts[n], 0.0
	for n > 0 && low == 0 {
		n--
		x, y := high, parts[n]
		high = x + y
		low = y - (high - x)
	}
	// low is exactly half of a last place, and there is more beyond it: then it was
	// no half.
	if n > 0 && low != 0 && (low < 0) == (parts[n-1] < 0) {
		if twice := 2 * low; high+twice-high == twice {
			high += twice
		}
	}
	return high
}
