package postgres

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
)

// fetchChunks is how many chunks are fetched at a time.
const fetchChunks = 16

// Samples implements store.History. Chunks come by their first times, a few at a
// time, and are merged with those that overlap; what has only arrived is at most
// some seconds' and is read first.
func (s *Store) Samples(ctx context.Context, deviceUID, property string, fromUS, toUS int64, f func(store.Sample) error) error {
	err := pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `SELECT id FROM series WHERE device_uid = $1 AND property = $2`, deviceUID, property)
		if err != nil {
			return err
		}
		series, err := pgx.CollectRows(rows, pgx.RowTo[int64])
		if err != nil || len(series) == 0 {
			return err
		}
		arrived, err := readArrived(ctx, tx, series, fromUS, toUS)
		if err != nil {
			return err
		}
		m := merger{from: fromUS, to: toUS, emit: f}
		if arrived.len() > 0 {
			m.open = append(m.open, arrived)
		}
		if _, err := tx.Exec(ctx, `DECLARE chunks NO SCROLL CURSOR FOR SELECT id, `+prefixed("", chunkColumns)+` FROM samples_chunk
			WHERE series = ANY($1) AND t0 >= $2 AND t0 < $3 AND t1 >= $4 ORDER BY t0`, series, periodStart(fromUS), toUS, fromUS); err != nil {
			return err
		}
		for fetched := fetchChunks; fetched == fetchChunks; {
			if fetched, err = m.fetch(ctx, tx); err != nil {
				return err
			}
		}
		return m.run(nil)
	})
	if err != nil {
		return fmt.Errorf("samples of device %s, property %s: %w", deviceUID, property, err)
	}
	return nil
}

// source is a run of samples in the order of time: a chunk, or what has arrived
// and is in none yet.
type source struct {
	series, id int64 // id 0: arrived, after all chunks
	chunk      *chunk
	arrived    []arrivedSample
	at, n      int
	next       int64 // time of the sample at
}

type arrivedSample struct {
	series int64
	store.Sample
}

func (r *source) len() int { return r.n - r.at }

func (r *source) load() {
	switch {
	case r.at >= r.n:
	case r.chunk != nil:
		r.next = r.chunk.time(r.at)
	default:
		r.next, r.series = r.arrived[r.at].TimeUS, r.arrived[r.at].series
	}
}

func (r *source) sample() store.Sample {
	if r.chunk != nil {
		return r.chunk.sample(r.at)
	}
	return r.arrived[r.at].Sample
}

// before reports whether r's next sample comes before o's.
func (r *source) before(o *source) bool {
	if c := cmp.Or(cmp.Compare(r.next, o.next), cmp.Compare(r.series, o.series)); c != 0 {
		return c < 0
	}
	return r.id != 0 && (o.id == 0 || r.id < o.id)
}

// merger emits the samples of sources in order. Only few are open at a time:
// chunks of one series hardly overlap.
type merger struct {
	from, to int64
	open     []*source
	emit     func(store.Sample) error
}

// run emits all that comes before the time limit, or everything without one.
func (m *merger) run(limit *int64) error {
	for len(m.open) > 0 {
		best, second := 0, -1
		for i := 1; i < len(m.open); i++ {
			switch {
			case m.open[i].before(m.open[best]):
				best, second = i, best
			case second < 0 || m.open[i].before(m.open[second]):
				second = i
			}
		}
		r := m.open[best]
		for r.at < r.n && (second < 0 || r.before(m.open[second])) {
			if limit != nil && r.next >= *limit {
				return nil
			}
			if r.next >= m.from && r.next < m.to {
				if err := m.emit(r.sample()); err != nil {
					return err
				}
			}
			r.at++
			r.load()
		}
		if r.at >= r.n {
			m.open = slices.Delete(m.open, best, best+1)
		}
	}
	return nil
}

// fetch opens some more chunks, having emitted what comes before each.
func (m *merger) fetch(ctx context.Context, tx pgx.Tx) (n int, err error) {
	rows, err := tx.Query(ctx, fmt.Sprintf(`FETCH %d FROM chunks`, fetchChunks))
	if err != nil {
		return 0, err
	}
	var sources []*source
	for rows.Next() {
		r := &source{chunk: &chunk{}}
		if err := rows.Scan(append([]any{&r.id}, r.chunk.targets()...)...); err != nil {
			rows.Close()
			return 0, err
		}
		r.series, r.n, r.next = r.chunk.series, int(r.chunk.n), r.chunk.t0
		sources = append(sources, r)
	}
	if err := rows.Err(); err != nil {
		return 0, err
	}
	for _, r := range sources {
		if err := m.run(&r.next); err != nil {
			return 0, err
		}
		m.open = append(m.open, r)
	}
	return len(sources), nil
}

// readArrived reads what is not in chunks yet.
func readArrived(ctx context.Context, tx pgx.Tx, series []int64, fromUS, toUS int64) (*source, error) {
	// All columns are unnested together: an element picked by its index out of a
	// compressed array would unpack the whole array each time.
	rows, err := tx.Query(ctx, `SELECT v.s, v.t, v.k, coalesce(v.i, 0), coalesce(v.f, 0), coalesce(v.x, ''::bytea), coalesce(v.q, 0::smallint), coalesce(v.why, ''), b.backfill
		FROM samples_batch b,
			unnest(b.series, b.time_us, b.kind, b.int_v, b.float_v, b.text_v, b.quality, b.reason)
			WITH ORDINALITY AS v (s, t, k, i, f, x, q, why, n)
		WHERE b.series && $1 AND b.t0 < $3 AND b.t1 >= $2 AND v.s = ANY($1) AND v.t >= $2 AND v.t < $3
		ORDER BY v.t, v.s, b.id, v.n`, series, fromUS, toUS)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	r := &source{}
	for rows.Next() {
		var v arrivedSample
		var kind, quality int16
		var text []byte
		if err := rows.Scan(&v.series, &v.TimeUS, &kind, &v.Int, &v.Float, &text, &quality, &v.Reason, &v.Backfill); err != nil {
			return nil, err
		}
		v.Kind, v.Quality, v.Text = uint8(kind), uint8(quality), string(text)
		r.arrived = append(r.arrived, v)
	}
	r.n = len(r.arrived)
	r.load()
	return r, rows.Err()
}
