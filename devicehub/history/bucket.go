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
	start int64
	until int64 // its last microsecond
	store.Rollup
}

// told is what the answer says of the bucket.
func (b *bucket) told(aggs []models.Agg) (out models.HistoryBucket, err error) {
	// What it points to is made at once: there are many buckets.
	to := new(struct {
		avg                   float64
		count                 int64
		min, max, first, last models.Value
	})
	out.Time = time.UnixMicro(b.start).UTC()
	value := func(at *models.Value, v store.Sample) *models.Value {
		var failed error
		if *at, failed = Value(v); failed != nil {
			err = errors.Join(err, failed)
		}
		return at
	}
	for _, a := range aggs {
		switch {
		case a == models.AggCount:
			to.count = b.Count
			out.Count = &to.count
		case a == models.AggFirst:
			out.First = value(&to.first, b.First)
		case a == models.AggLast:
			out.Last = value(&to.last, b.Last)
		case b.Numbers == 0:
		case a == models.AggMin:
			out.Min = value(&to.min, b.Min)
		case a == models.AggMax:
			out.Max = value(&to.max, b.Max)
		case a == models.AggAvg:
			if to.avg = b.Sum.Mean(b.Numbers); !math.IsInf(to.avg, 0) { // no number in JSON
				out.Avg = &to.avg
			}
		}
	}
	return out, err
}

// buckets reads samples into buckets, and finds the times of which there are only
// samples without a value. Those are gaps, too: from the first such sample to the
// next one with a value. within is the reason of the gap that from is in, if any.
func buckets(ctx context.Context, s Reading, of Subject, within string, from, to int64, q models.HistoryQuery) (out []models.HistoryBucket, gaps []models.HistoryGap, next *cursor, err error) {
	step := q.Step.Microseconds()
	out = []models.HistoryBucket{}
	var now bucket
	var bad *models.HistoryGap
	if within != "" {
		bad = &models.HistoryGap{From: time.UnixMicro(from).UTC(), To: time.UnixMicro(from).UTC(), Reason: within}
	}
	flush := func() error {
		if now.Count == 0 {
			return nil
		}
		told, err := now.told(q.Agg)
		out = append(out, told)
		return err
	}
	// open begins the bucket of a time, if it is another one.
	open := func(us int64) error {
		if now.Count != 0 && us <= now.until {
			return nil
		}
		start := store.BucketStart(us, step)
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
		return nil
	}
	value := func(us int64) {
		if bad != nil {
			bad.To = time.UnixMicro(us).UTC()
			gaps = append(gaps, *bad)
			bad = nil
		}
	}
	err = s.Rollups(ctx, of.DeviceUID, of.Property, from, to, step, func(v store.Sample) error {
		if err := open(v.TimeUS); err != nil {
			return err
		}
		if models.Kind(v.Kind) != models.KindNull {
			value(v.TimeUS)
			now.Add(v)
			return nil
		}
		if bad != nil && v.Reason != bad.Reason {
			value(v.TimeUS)
		}
		if bad == nil {
			bad = &models.HistoryGap{From: time.UnixMicro(v.TimeUS).UTC(), Reason: v.Reason}
		}
		bad.To = time.UnixMicro(v.TimeUS).UTC()
		return nil
	}, func(r *store.Rollup) error {
		if err := open(r.First.TimeUS); err != nil {
			return err
		}
		value(r.First.TimeUS)
		now.Merge(r)
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
			next.bad = bad.Reason
		}
		gaps = append(gaps, *bad)
	}
	return out, slices.Clip(gaps), next, err
}
