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
func Rolled(n int, sample func(i int) Sample, step int64) []Entry {
	r := Rolling{Step: step}
	for i := range n {
		_ = r.Add(sample(i)) // never fails
	}
	return r.Entries
}

// Rolling makes entries of samples, and of what samples come to, in their order. No
// entry reaches over the border of a bucket of the step. Its methods never fail.
type Rolling struct {
	Step    int64
	Entries []Entry

	until int64 // the last time of the last entry's bucket
}

// Add adds a sample.
func (r *Rolling) Add(v Sample) error {
	if models.Kind(v.Kind) == models.KindNull {
		r.Entries = append(r.Entries, Entry{Sample: v})
		return nil
	}
	r.open(v.TimeUS).Add(v)
	return nil
}

// Merge adds samples of one bucket.
func (r *Rolling) Merge(o *Rollup) error {
	r.open(o.First.TimeUS).Merge(o)
	return nil
}

// open is the rollup that a sample of this time goes into.
func (r *Rolling) open(us int64) *Rollup {
	if k := len(r.Entries); k == 0 || r.Entries[k-1].Rollup.Count == 0 || us > r.until {
		r.until = BucketStart(us, r.Step)
		if r.until > 1<<63-1-r.Step {
			r.until = 1<<63 - 1
		} else {
			r.until += r.Step - 1
		}
		r.Entries = append(r.Entries, Entry{})
	}
	return &r.Entries[len(r.Entries)-1].Rollup
}
