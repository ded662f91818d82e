package history

import (
	"context"
	"math"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/twin"
)

// Looking is what questions about a moment need of the store.
type Looking interface {
	Samples(ctx context.Context, deviceUID, property string, fromUS, toUS int64, f func(store.Sample) error) error
	LastSamples(ctx context.Context, deviceUID string, properties []string, atUS int64) (map[string]store.Sample, error)
}

// windows are how far back is looked for what came before a value that is not
// good.
var windows = []time.Duration{time.Hour, 24 * time.Hour, 7 * 24 * time.Hour, 30 * 24 * time.Hour, 365 * 24 * time.Hour}

// ReportedAt returns what was known of properties at a time, from their samples
// until then, inclusive: as if these had been observed one after the other. A
// good value costs one lookup. For one that is not good, what came before is
// read, as far back as the value that it keeps and the beginning of its quality
// are.
func ReportedAt(ctx context.Context, s Looking, deviceUID string, properties []string, atUS int64) (map[string]twin.Reported, map[string]store.Sample, error) {
	last, err := s.LastSamples(ctx, deviceUID, properties, atUS)
	if err != nil {
		return nil, nil, err
	}
	out := make(map[string]twin.Reported, len(last))
	for property, v := range last {
		sample, err := sampleOf(v)
		if err != nil {
			return nil, nil, err
		}
		if sample.Quality == models.Good {
			out[property], _ = twin.Reported{}.Observe(sample)
			continue
		}
		if out[property], err = fold(ctx, s, deviceUID, property, atUS); err != nil {
			return nil, nil, err
		}
	}
	return out, last, nil
}

// fold observes the samples until a time, from as far back as is needed.
func fold(ctx context.Context, s Looking, deviceUID, property string, atUS int64) (twin.Reported, error) {
	to := atUS
	if to < math.MaxInt64 {
		to++
	}
	for i := 0; ; i++ {
		from, everything := int64(math.MinInt64), i == len(windows)
		if !everything {
			if us := windows[i].Microseconds(); atUS > math.MinInt64+us {
				from = atUS - us
			}
		}
		var r twin.Reported
		valued, turned, n := false, false, 0
		err := s.Samples(ctx, deviceUID, property, from, to, func(v store.Sample) error {
			sample, err := sampleOf(v)
			if err != nil {
				return err
			}
			if n++; n > 1 && (sample.Quality != r.Quality || sample.Reason != r.Reason) {
				turned = true
			}
			valued = valued || sample.Quality != models.Bad && sample.Reason != models.ReasonStale
			r, _ = r.Observe(sample)
			return nil
		})
		if err != nil {
			return twin.Reported{}, err
		}
		if everything || valued && turned {
			return r, nil
		}
	}
}

func sampleOf(v store.Sample) (models.Sample, error) {
	value, err := Value(v)
	return models.Sample{Value: value, Quality: quality(v.Quality), Reason: models.Reason(v.Reason), Time: time.UnixMicro(v.TimeUS).UTC()}, err
}
