package store

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
)

// TestSum compares with arithmetic of unlimited precision, on numbers that
// cancel each other out, halves of last places, and what is nearly too large.
func TestSum(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	kinds := []func() float64{
		func() float64 { return float64(random.IntN(2000)-1000) / 10 },
		func() float64 { return random.NormFloat64() * math.Pow(2, float64(random.IntN(200)-100)) },
		func() float64 { return math.Ldexp(float64(random.IntN(3)-1), random.IntN(120)) },
		func() float64 { return math.Float64frombits(random.Uint64()) },
		func() float64 { return math.MaxFloat64 * float64(random.IntN(3)-1) },
	}
	for round := range 3000 {
		var values []float64
		for range random.IntN(60) + 1 {
			f := kinds[min(random.IntN(round%len(kinds)+1), len(kinds)-1)]()
			if math.IsNaN(f) || math.IsInf(f, 0) {
				continue
			}
			values = append(values, f)
			if random.IntN(3) == 0 {
				values = append(values, -f)
			}
		}
		if len(values) == 0 {
			continue
		}
		exact, huge := new(big.Float).SetPrec(4096), false
		for _, f := range values {
			exact.Add(exact, new(big.Float).SetFloat64(f))
			huge = huge || math.Abs(f) >= hugeFrom
		}
		n := int64(len(values))
		want, _ := exact.Float64()
		want /= float64(n)
		if huge {
			want, _ = new(big.Float).SetPrec(4096).Quo(exact, new(big.Float).SetInt64(n)).Float64()
		}
		random.Shuffle(len(values), func(a, b int) { values[a], values[b] = values[b], values[a] })
		var sums [3]Sum
		for i, f := range values {
			sums[i%3].Add(f)
		}
		var all Sum
		for i := range sums {
			all.Merge(&sums[i])
		}
		if have := all.Mean(n); have != want {
			t.Fatalf("round %d: mean %v of %v, want %v", round, have, values, want)
		}
	}
}

// TestMeanOfZeros: zeros average to 0 and not to -0, however they are added up.
func TestMeanOfZeros(t *testing.T) {
	minus := math.Copysign(0, -1)
	for _, values := range [][]float64{{minus}, {minus, minus}, {0, minus}, {-1, 1, minus}} {
		var s Sum
		for _, f := range values {
			s.Add(f)
		}
		if mean := s.Mean(int64(len(values))); mean != 0 || math.Signbit(mean) {
			t.Errorf("mean of %v is %v", values, mean)
		}
	}
}
