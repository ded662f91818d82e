package postgres

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
)

// Up to fewChunks chunks are read at once. Of more, fetchChunks are fetched at a
// time; of those that come as rollups more and more, up to mostChunks.
const (
	fewChunks   = 24
	fetchChunks = 16
	mostChunks  = 512
)

// Samples implements store.History. Chunks come by their first times, a few at a
// time, and are merged with those that overlap; what has only arrived is at most
// some minutes' and is read first.
func (s *Store) Samples(ctx context.Context, deviceUID, property string, fromUS, toUS int64, f func(store.Sample) error) error {
	return s.read(ctx, deviceUID, property, fromUS, toUS, "", f, nil)
}

// Rollups implements store.History: chunks that have rollups are read without
// their samples, unless something else is of their time.
func (s *Store) Rollups(ctx context.Context, deviceUID, property string, fromUS, toUS, stepUS int64, sample func(store.Sample) error, rollup func(*store.Rollup) error) error {
	column := ""
	switch {
	case stepUS%store.Hour == 0:
		column = "hours"
	case stepUS%store.Minute == 0:
		column = "minutes"
	}
	return s.read(ctx, deviceUID, property, fromUS, toUS, column, sample, rollup)
}

// read reads samples or, from a column of rollups, what they come to.
func (s *Store) read(ctx context.Context, deviceUID, property string, fromUS, toUS int64, rollups string, f func(store.Sample) error, rollup func(*store.Rollup) error) error {
	err := pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) (err error) {
		columns := chunkColumns + `, NULL::bytea`
		if rollups != "" {
			// Of a chunk that is read by its rollups no array is unpacked.
			whole := fmt.Sprintf(`(t0 >= %d AND t1 < %d AND %s IS NOT NULL)`, fromUS, toUS, rollups)
			columns = chunkArrays.ReplaceAllString(chunkColumns, `CASE WHEN NOT `+whole+` THEN $1 END`) + `, CASE WHEN ` + whole + ` THEN ` + rollups + ` END`
		}
		const ofProperty = `SELECT u.id FROM series u WHERE u.device_uid = $1 AND u.property = $2`
		chunks := `SELECT id, ` + columns + ` FROM samples_chunk
			WHERE series = ANY (ARRAY(` + ofProperty + `)) AND t0 >= $3 AND t0 < $4 AND t1 >= $5 ORDER BY t0`
		m := merger{from: fromUS, to: toUS, emit: f, rollup: rollup, unroll: func(r *source) error { return r.unroll(ctx, tx) }}
		// In one round trip, as most queries are small, all that a small one needs.
		var series []int64
		var batches []*batch
		var first []*source
		b := &pgx.Batch{}
		b.Queue(ofProperty, deviceUID, property).Query(func(rows pgx.Rows) (err error) {
			series, err = pgx.CollectRows(rows, pgx.RowTo[int64])
			return err
		})
		b.Queue(batchQuery(`EXISTS (`+ofProperty+` AND s0 <= u.id AND s1 >= u.id) AND t0 < $3 AND t1 >= $4`), deviceUID, property, toUS, fromUS).Query(func(rows pgx.Rows) (err error) {
			batches, err = scanBatches(rows)
			return err
		})
		b.Queue(chunks+fmt.Sprintf(` LIMIT %d`, fewChunks+1), deviceUID, property, periodStart(fromUS), toUS, fromUS).Query(func(rows pgx.Rows) (err error) {
			first, err = scanChunks(rows)
			return err
		})
		if err := tx.SendBatch(ctx, b).Close(); err != nil || len(series) == 0 {
			return err
		}
		if arrived := newArrived(batches, series, fromUS, toUS); arrived.len() > 0 {
			m.open = append(m.open, arrived)
		}
		if len(first) <= fewChunks {
			if err := m.take(first); err != nil {
				return err
			}
			return m.run(nil)
		}
		if _, err := tx.Exec(ctx, `DECLARE chunks BINARY NO SCROLL CURSOR FOR `+chunks, deviceUID, property, periodStart(fromUS), toUS, fromUS); err != nil {
			return err
		}
		want := fetchChunks
		for fetched := want; fetched == want; {
			if rollups != "" {
				want = min(4*want, mostChunks)
			}
			if fetched, err = m.fetch(ctx, tx, want); err != nil {
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

// chunkArrays matches the columns of chunkColumns that are arrays.
var chunkArrays = regexp.MustCompile(`\b(t4|t8|kinds|v2|v4|v8|nudge|f4|f8|text_v|quality|reason|backfill)\b`)

// source is a run of samples in the order of time: a chunk, or what has arrived
// and is in none yet.
type source struct {
	series, id int64 // id 0: arrived, after all chunks
	chunk      *chunk
	rollups    []byte // instead of the chunk's samples
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
	rollup   func(*store.Rollup) error
	unroll   func(*source) error // fetches the samples of one that has rollups
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
		if r.rollups != nil {
			if limit != nil && *limit <= r.chunk.t1 || second >= 0 && m.open[second].next <= r.chunk.t1 {
				// Something else is of its time.
				if limit != nil && r.next >= *limit {
					return nil
				}
				if err := m.unroll(r); err != nil {
					return err
				}
				continue
			}
			if err := store.EachEntry(r.rollups, func(e *store.Entry) error {
				if e.Rollup.Count == 0 {
					return m.emit(e.Sample)
				}
				return m.rollup(&e.Rollup)
			}); err != nil {
				return err
			}
			m.open = slices.Delete(m.open, best, best+1)
			continue
		}
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
func (m *merger) fetch(ctx context.Context, tx pgx.Tx, want int) (n int, err error) {
	rows, err := tx.Query(ctx, fmt.Sprintf(`FETCH %d FROM chunks`, want), pgx.QueryResultFormats{pgx.BinaryFormatCode})
	if err != nil {
		return 0, err
	}
	sources, err := scanChunks(rows)
	if err != nil {
		return 0, err
	}
	return len(sources), m.take(sources)
}

// take opens chunks, having emitted what comes before each.
func (m *merger) take(sources []*source) error {
	for _, r := range sources {
		if err := m.run(&r.next); err != nil {
			return err
		}
		m.open = append(m.open, r)
	}
	return nil
}

// scanChunks reads rows of id, chunkColumns and rollups.
func scanChunks(rows pgx.Rows) (sources []*source, err error) {
	defer rows.Close()
	for rows.Next() {
		v := rows.RawValues()
		r := &source{id: readInt8(v[0])}
		if r.chunk, err = parseChunk(v[1 : len(v)-1]); err != nil {
			return nil, err
		}
		r.rollups = slices.Clone(v[len(v)-1])
		r.series, r.n, r.next = r.chunk.series, int(r.chunk.n), r.chunk.t0
		sources = append(sources, r)
	}
	return sources, rows.Err()
}

// unroll fetches the samples of a chunk that was fetched by its rollups.
func (r *source) unroll(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, `SELECT `+chunkColumns+` FROM samples_chunk WHERE series = $1 AND t0 = $2 AND id = $3`,
		pgx.QueryResultFormats{pgx.BinaryFormatCode}, r.series, r.chunk.t0, r.id)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if r.chunk, err = parseChunk(rows.RawValues()); err != nil {
			return err
		}
		r.rollups = nil
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if r.rollups != nil {
		return errGone
	}
	return nil
}

// newArrived is what is not in chunks yet.
func newArrived(batches []*batch, series []int64, fromUS, toUS int64) *source {
	r := &source{}
	if toUS > fromUS {
		eachIn(batches, series, fromUS, toUS-1, func(of int64, v store.Sample) { r.arrived = append(r.arrived, arrivedSample{of, v}) })
	}
	slices.SortStableFunc(r.arrived, func(a, b arrivedSample) int {
		return cmp.Or(cmp.Compare(a.TimeUS, b.TimeUS), cmp.Compare(a.series, b.series))
	})
	r.n = len(r.arrived)
	r.load()
	return r
}

// eachArrived calls f for the samples in no chunk yet that are from from to last,
// those of one series in the order in which they came.
func eachArrived(ctx context.Context, tx pgx.Tx, series []int64, from, last int64, f func(series int64, v store.Sample)) error {
	batches, err := queryBatches(ctx, tx, `EXISTS (SELECT FROM unnest($1::bigint[]) AS u (id) WHERE s0 <= u.id AND s1 >= u.id) AND t0 <= $3 AND t1 >= $2`, series, from, last)
	if err == nil {
		eachIn(batches, series, from, last, f)
	}
	return err
}

// eachIn is eachArrived for rows that are read already.
func eachIn(batches []*batch, series []int64, from, last int64, f func(series int64, v store.Sample)) {
	for _, b := range batches {
		for _, id := range series {
			i, there := slices.BinarySearch(b.series, id)
			if !there {
				continue
			}
			lo := int32(0)
			if i > 0 {
				lo = b.ends[i-1]
			}
			for k := lo; k < b.ends[i]; k++ {
				if at := b.TimeUS[k]; at >= from && at <= last {
					f(id, b.sample(int(k)))
				}
			}
		}
	}
}
