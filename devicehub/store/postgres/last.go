package postgres

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"sort"

	"github.com/jackc/pgx/v5"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
)

// lookBack is how far before the asked time chunks are looked for at first, in
// periods: partitions are visited for each series.
const lookBack = 1

// place is where a sample stands in the order of Samples.
type place struct {
	us, series, id int64 // id: of the chunk, 0 for what has only arrived, after all chunks
}

func (p place) before(o place) bool {
	switch {
	case p.us != o.us:
		return p.us < o.us
	case p.series != o.series:
		return p.series < o.series
	}
	return p.id != 0 && (o.id == 0 || p.id < o.id)
}

// sought is a series whose last sample is looked for.
type sought struct {
	device, property string
	afterUS          int64 // only what is later than this need be found
}

// LastSamples implements store.History. Of each series the chunks that reach into
// the time from its latest chunk's beginning on are read: chunks hardly overlap,
// so it is one or two.
func (s *Store) LastSamples(ctx context.Context, deviceUID string, properties []string, atUS int64) (map[string]store.Sample, error) {
	out, err := s.last(ctx, atUS, func(k *sought) bool { return true }, `device_uid = $1 AND property = ANY($2)`, deviceUID, properties)
	if err != nil {
		return nil, fmt.Errorf("last samples of device %s: %w", deviceUID, err)
	}
	if last := out[deviceUID]; last != nil {
		return last, nil
	}
	return map[string]store.Sample{}, nil
}

// LastSince implements store.History.
func (s *Store) LastSince(ctx context.Context, since map[string]map[string]int64, atUS int64) (map[string]map[string]store.Sample, error) {
	out, err := s.last(ctx, atUS, func(k *sought) (ok bool) {
		k.afterUS, ok = since[k.device][k.property]
		return ok
	}, `device_uid = ANY($1)`, slices.Collect(maps.Keys(since)))
	if err != nil {
		return nil, fmt.Errorf("last samples of %d devices: %w", len(since), err)
	}
	return out, nil
}

// last finds the last sample of each property, by device, whose series where and
// wanted choose.
func (s *Store) last(ctx context.Context, atUS int64, wanted func(*sought) bool, where string, args ...any) (map[string]map[string]store.Sample, error) {
	type key struct{ device, property string }
	out := map[string]map[string]store.Sample{}
	best := map[key]place{}
	of := map[int64]sought{}
	take := func(at place, v store.Sample) {
		k := key{of[at.series].device, of[at.series].property}
		if was, ok := best[k]; ok && !was.before(at) {
			return
		}
		best[k] = at
		if out[k.device] == nil {
			out[k.device] = map[string]store.Sample{}
		}
		out[k.device][k.property] = v
	}
	err := pgx.BeginTxFunc(ctx, s.pool, looking, func(tx pgx.Tx) error {
		var series []int64
		oldest := int64(math.MaxInt64)
		rows, err := tx.Query(ctx, `SELECT id, device_uid, property FROM series WHERE `+where, args...)
		if err != nil {
			return err
		}
		var id int64
		var k sought
		if _, err := pgx.ForEachRow(rows, []any{&id, &k.device, &k.property}, func() error {
			if k.afterUS = math.MinInt64; wanted(&k) {
				series, of[id] = append(series, id), k
				oldest = min(oldest, k.afterUS)
			}
			return nil
		}); err != nil || len(series) == 0 {
			return err
		}
		slices.Sort(series)
		if err := lastArrived(ctx, tx, series, oldest, atUS, func(id int64, v store.Sample) { take(place{v.TimeUS, id, 0}, v) }); err != nil {
			return err
		}
		// First in what is not long ago, and then of series that are not found there all.
		near := periodStart(atUS)
		if near > -1<<62 {
			near -= lookBack * period
		}
		for _, farthest := range []int64{near, -1 << 63} {
			from := make([]int64, len(series))
			for i, id := range series {
				from[i] = max(farthest, periodStart(of[id].afterUS))
			}
			found, err := lastInChunks(ctx, tx, series, from, atUS, take)
			if err != nil {
				return err
			}
			left := series[:0:0]
			for i, id := range series {
				if !found[id] && from[i] == farthest {
					left = append(left, id)
				}
			}
			if series = left; len(series) == 0 {
				return nil
			}
		}
		return nil
	})
	return out, err
}

// lastArrived finds the last sample of each series among those in no chunk yet and
// not before a time.
func lastArrived(ctx context.Context, tx pgx.Tx, series []int64, from, atUS int64, take func(int64, store.Sample)) error {
	last := map[int64]store.Sample{}
	if err := eachArrived(ctx, tx, series, from, atUS, func(of int64, v store.Sample) {
		if was, ok := last[of]; !ok || was.TimeUS <= v.TimeUS {
			last[of] = v
		}
	}); err != nil {
		return err
	}
	for of, v := range last {
		take(of, v)
	}
	return nil
}

// lastInChunks calls take with the last sample of every chunk that may hold the
// last one of its series, and says which series have chunks that begin in the
// time.
func lastInChunks(ctx context.Context, tx pgx.Tx, series, from []int64, atUS int64, take func(place, store.Sample)) (found map[int64]bool, err error) {
	rows, err := tx.Query(ctx, `SELECT c.id, `+prefixed("c.", chunkColumns)+` FROM unnest($1::bigint[], $2::bigint[]) AS s (id, since)
		CROSS JOIN LATERAL (SELECT t0 FROM samples_chunks WHERE series = s.id AND t0 >= s.since AND t0 <= $3 ORDER BY t0 DESC LIMIT 1) AS latest
		CROSS JOIN LATERAL (SELECT * FROM samples_chunks WHERE series = s.id AND t0 >= samples_period(latest.t0) AND t0 <= $3 AND t1 >= latest.t0) AS c`,
		pgx.QueryResultFormats{pgx.BinaryFormatCode}, series, from, atUS)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	found = map[int64]bool{}
	for rows.Next() {
		v := rows.RawValues()
		k, err := parseChunk(v[1:])
		if err != nil {
			return nil, err
		}
		id := readInt8(v[0])
		found[k.series] = true
		if i := sort.Search(int(k.n), func(i int) bool { return k.time(i) > atUS }) - 1; i >= 0 {
			take(place{k.time(i), k.series, id}, k.sample(i))
		}
	}
	return found, rows.Err()
}
