package postgres

import (
	"context"
	"fmt"
	"math"
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

// LastSamples implements store.History. Of each series the chunks that reach into
// the time from its latest chunk's beginning on are read: chunks hardly overlap,
// so it is one or two.
func (s *Store) LastSamples(ctx context.Context, deviceUID string, properties []string, atUS int64) (map[string]store.Sample, error) {
	out := map[string]store.Sample{}
	best := map[string]place{}
	take := func(property string, at place, v store.Sample) {
		if was, ok := best[property]; !ok || was.before(at) {
			best[property], out[property] = at, v
		}
	}
	err := pgx.BeginTxFunc(ctx, s.pool, looking, func(tx pgx.Tx) error {
		series, property := []int64{}, map[int64]string{}
		rows, err := tx.Query(ctx, `SELECT id, property FROM series WHERE device_uid = $1 AND property = ANY($2)`, deviceUID, properties)
		if err != nil {
			return err
		}
		var id int64
		var name string
		if _, err := pgx.ForEachRow(rows, []any{&id, &name}, func() error {
			series, property[id] = append(series, id), name
			return nil
		}); err != nil || len(series) == 0 {
			return err
		}
		if err := lastArrived(ctx, tx, series, atUS, func(of int64, v store.Sample) { take(property[of], place{v.TimeUS, of, 0}, v) }); err != nil {
			return err
		}
		from := periodStart(atUS)
		if from > -1<<62 {
			from -= lookBack * period
		}
		for _, from := range []int64{from, -1 << 63} {
			found, err := lastInChunks(ctx, tx, series, from, atUS, func(at place, v store.Sample) { take(property[at.series], at, v) })
			if err != nil {
				return err
			}
			left := series[:0:0]
			for _, id := range series {
				if !found[id] {
					left = append(left, id)
				}
			}
			if series = left; len(series) == 0 {
				return nil
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("last samples of device %s: %w", deviceUID, err)
	}
	return out, nil
}

// lastArrived finds the last sample of each series among those in no chunk yet.
func lastArrived(ctx context.Context, tx pgx.Tx, series []int64, atUS int64, take func(int64, store.Sample)) error {
	last := map[int64]store.Sample{}
	if err := eachArrived(ctx, tx, series, math.MinInt64, atUS, func(of int64, v store.Sample) {
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
func lastInChunks(ctx context.Context, tx pgx.Tx, series []int64, from, atUS int64, take func(place, store.Sample)) (found map[int64]bool, err error) {
	rows, err := tx.Query(ctx, `SELECT c.id, `+prefixed("c.", chunkColumns)+` FROM unnest($1::bigint[]) AS s (id)
		CROSS JOIN LATERAL (SELECT t0 FROM samples_chunks WHERE series = s.id AND t0 >= $2 AND t0 <= $3 ORDER BY t0 DESC LIMIT 1) AS latest
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
