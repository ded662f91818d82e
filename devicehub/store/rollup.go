package store

import (
	"github.com/whimbrel-edge/whimbrel/models"
)

// Minute and Hour are the steps of rollups, in microseconds.
const (
	Minute = 60_000_000
	Hour   = 60 * Minute
)

// Rollup is what samples that follow each other come to. All have a value; of
// those that are no numbers there are only Count, First and Last.
type Rollup struct {
	Count, Numbers int64 // samples, and of these numbers and bools
	First, Last    Sample
	Min, Max       Sample // of numbers and bools; of equal ones the first
	Sum            Sum
}

// Add adds a sample that comes after those before.
func (r *Rollup) Add(v Sample) {
	if r.Count == 0 {
		r.First = v
	}
	r.Last = v
	r.Count++
	f, ok := Number(v)
	if !ok {
		return
	}
	if r.Numbers == 0 || less(v, r.Min) {
		r.Min = v
	}
	if r.Numbers == 0 || less(r.Max, v) {
		r.Max = v
	}
	r.Numbers++
	r.Sum.Add(f)
}

// Merge adds what comes after those before.
func (r *Rollup) Merge(o *Rollup) {
	if o.Count == 0 {
		return
	}
	if r.Count == 0 {
		r.First = o.First
	}
	r.Last = o.Last
	if o.Numbers > 0 {
		if r.Numbers == 0 || less(o.Min, r.Min) {
			r.Min = o.Min
		}
		if r.Numbers == 0 || less(r.Max, o.Max) {
			r.Max = o.Max
		}
	}
	r.Count += o.Count
	r.Numbers += o.Numbers
	r.Sum.Merge(&o.Sum)
}

// Number is a number's or bool's nearest float.
func Number(v Sample) (float64, bool) {
	switch models.Kind(v.Kind) {
	case models.KindBool, models.KindInt:
		return float64(v.Int), true
	case models.KindUint:
		return float64(uint64(v.Int)), true
	case models.KindFloat:
		return v.Float, true
	}
	return 0, false
}

// less orders numbers exactly, and bools as 0 and 1.
func less(a, b Sample) bool {
	if a.Kind == b.Kind {
		switch models.Kind(a.Kind) {
		case models.KindFloat:
			return a.Float < b.Float
		case models.KindUint:
			return uint64(a.Int) < uint64(b.Int)
		}
		return a.Int < b.Int
	}
	order, _ := comparable(a).Compare(comparable(b))
	return order < 0
}

func comparable(v Sample) models.Value {
	switch models.Kind(v.Kind) {
	case models.KindUint:
		return models.Uint(uint64(v.Int))
	case models.KindFloat:
		return models.Float(v.Float)
	}
	return models.Int(v.Int)
}

// BucketStart is the beginning of the bucket of step microseconds that a time is
// in. Buckets are aligned to 1970.
func BucketStart(us, step int64) int64 {
	rest := us % step
	if rest < 0 {
		rest += step
	}
	if us < -1<<63+rest {
		return -1 << 63
	}
	return us - rest
}

// Entry is one part of what samples come to: a rollup, or a sample without a
// value, which none can hold.
type Entry struct {
	Rollup Rollup // Count is 0 for a sample
	Sample Sample
}

// Rolled takes samples in their order and makes entries of them, none of which
// reaches over the border of a bucket of the step.
func Rolled(n int, sample func(i int) Sample, step int64) (out []Entry) {
	var until int64
	for i := range n {
		v := sample(i)
		if models.Kind(v.Kind) == models.KindNull {
			out = append(out, Entry{Sample: v})
			continue
		}
		if k := len(out); k == 0 || out[k-1].Rollup.Count == 0 || v.TimeUS > until {
			until = BucketStart(v.TimeUS, step)
			if until > 1<<63-1-step {
				until = 1<<63 - 1
			} else {
				until += step - 1
			}
			out = append(out, Entry{})
		}
		out[len(out)-1].Rollup.Add(v)
	}
	return out
}
