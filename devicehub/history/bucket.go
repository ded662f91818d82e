package history

import (
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/models"
)

// bucket gathers the samples of one step.
type bucket struct {
	start       int64
	until       int64 // its last microsecond
	count       int64 // samples with a value
	numbers     int64 // of these, numbers and bools
	sum         float64
	min, max    store.Sample // of numbers and bools
	first, last store.Sample
}

// add takes one more sample, later than those before. It must have a value.
func (b *bucket) add(v store.Sample) {
	if b.count == 0 {
		b.first = v
	}
	b.last = v
	b.count++
	f, ok := number(v)
	if !ok {
		return
	}
	if b.numbers == 0 || less(v, b.min) {
		b.min = v
	}
	if b.numbers == 0 || less(b.max, v) {
		b.max = v
	}
	b.numbers++
	b.sum += f
}

// number is a number's or bool's nearest float.
func number(v store.Sample) (float64, bool) {
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
func less(a, b store.Sample) bool {
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

func comparable(v store.Sample) models.Value {
	switch models.Kind(v.Kind) {
	case models.KindUint:
		return models.Uint(uint64(v.Int))
	case models.KindFloat:
		return models.Float(v.Float)
	}
	return models.Int(v.Int)
}

// told is what the answer says of the bucket.
func (b *bucket) told(aggs []models.Agg) (out models.HistoryBucket, err error) {
	out.Time = time.UnixMicro(b.start).UTC()
	value := func(v store.Sample) *models.Value {
		got, failed := Value(v)
		err = errors.Join(err, failed)
		return &got
	}
	for _, a := range aggs {
		switch {
		case a == models.AggCount:
			out.Count = new(b.count)
		case a == models.AggFirst:
			out.First = value(b.first)
		case a == models.AggLast:
			out.Last = value(b.last)
		case b.numbers == 0:
		case a == models.AggMin:
			out.Min = value(b.min)
		case a == models.AggMax:
			out.Max = value(b.max)
		case a == models.AggAvg:
			if avg := b.sum / float64(b.numbers); !math.IsInf(avg, 0) { // no number in JSON
				out.Avg = &avg
			}
		}
	}
	return out, err
}

// bucketStart is the beginning of the bucket that a time is in.
func bucketStart(us, step int64) int64 {
	rest := us % step
	if rest < 0 {
		rest += step
	}
	if us < math.MinInt64+rest {
		return math.MinInt64
	}
	return us - rest
}

// buckets reads samples into buckets, and finds the times of which there are only
// samples without a value. Those are gaps, too: from the first such sample to the
// next one with a value.
func buckets(ctx context.Context, s Reading, of Subject, from, to int64, q models.HistoryQuery) (out []models.HistoryBucket, gaps []models.HistoryGap, next *cursor, err error) {
	step := q.Step.Microseconds()
	out = []models.HistoryBucket{}
	var now bucket
	var bad *models.HistoryGap
	flush := func() error {
		if now.count == 0 {
			return nil
		}
		told, err := now.told(q.Agg)
		out = append(out, told)
		return err
	}
	err = s.Samples(ctx, of.DeviceUID, of.Property, from, to, func(v store.Sample) error {
		if now.count == 0 || v.TimeUS > now.until {
			start := bucketStart(v.TimeUS, step)
			if err := flush(); err != nil {
				return err
			}
			now = bucket{start: start, until: math.MaxInt64}
			if start <= math.MaxInt64-step {
				now.until = start + step - 1
			}
			if len(out) == q.Limit {
				next = &cursor{us: max(start, from)}
				return errEnough
			}
		}
		if bad != nil && (models.Kind(v.Kind) != models.KindNull || v.Reason != bad.Reason) {
			bad.To = time.UnixMicro(v.TimeUS).UTC()
			gaps = append(gaps, *bad)
			bad = nil
		}
		if models.Kind(v.Kind) != models.KindNull {
			now.add(v)
		} else if bad == nil {
			bad = &models.HistoryGap{From: time.UnixMicro(v.TimeUS).UTC(), Reason: v.Reason}
		}
		if bad != nil {
			bad.To = time.UnixMicro(v.TimeUS).UTC()
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	} else if err == nil {
		err = flush()
	}
	if bad != nil {
		if next != nil {
			bad.To = time.UnixMicro(next.us).UTC()
		}
		gaps = append(gaps, *bad)
	}
	return out, slices.Clip(gaps), next, err
}
