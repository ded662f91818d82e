package postgres

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
)

// Of chunks up to fewChunks are read at once, of rollups fewRollups. Where there are
// more, they are fetched from a cursor, fetchChunks and fetchRollups at a time: so
// memory holds no more of them, however long the time is.
const (
	fewChunks    = 24
	fetchChunks  = 16
	fewRollups   = 1024
	fetchRollups = 512
)

// looking are transactions that read one moment's state. Each statement is planned
// for the times that it asks of: a plan for any times costs ten milliseconds to
// make, and has to look at every partition.
var looking = pgx.TxOptions{BeginQuery: `BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL plan_cache_mode = force_custom_plan`}

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
	err := pgx.BeginTxFunc(ctx, s.pool, looking, func(tx pgx.Tx) (err error) {
		const ofProperty = `SELECT u.id FROM series u WHERE u.device_uid = $1 AND u.property = $2`
		r := reading{tx: tx, from: "samples_chunks", of: `ANY (ARRAY(` + ofProperty + `))`, args: []any{deviceUID, property}, rollups: rollups, emit: f, rollup: rollup}
		// In one round trip, as most queries are small, all that a small one needs.
		b := &pgx.Batch{}
		b.Queue(ofProperty, deviceUID, property).Query(func(rows pgx.Rows) (err error) {
			r.series, err = pgx.CollectRows(rows, pgx.RowTo[int64])
			return err
		})
		b.Queue(batchQuery(`EXISTS (`+ofProperty+` AND s0 <= u.id AND s1 >= u.id) AND t0 < $3 AND t1 >= $4`), deviceUID, property, toUS, fromUS).Query(func(rows pgx.Rows) (err error) {
			r.batches, err = scanBatches(rows)
			return err
		})
		var feeds []*feed
		var found weeks
		if rollups != "hours" {
			feeds = r.feeds(fromUS, toUS)
			for _, f := range feeds {
				f.queue(b)
			}
		} else {
			found.queue(b, deviceUID, property, fromUS, toUS)
		}
		if err := tx.SendBatch(ctx, b).Close(); err != nil || len(r.series) == 0 {
			return err
		}
		weeks, err := found.alone(ctx, &r)
		if err != nil {
			return err
		}
		at := fromUS
		for _, w := range weeks {
			if w.start > at {
				if err := r.between(ctx, at, w.start, nil); err != nil {
					return err
				}
			}
			if err := eachEntry(w.hours, f, rollup); err != nil {
				return err
			}
			if at = periodLast(w.start); at == math.MaxInt64 {
				return nil
			}
			at++
		}
		if at >= toUS {
			return nil
		}
		return r.between(ctx, at, toUS, feeds)
	})
	if err != nil {
		return fmt.Errorf("samples of device %s, property %s: %w", deviceUID, property, err)
	}
	return nil
}

// reading is what one transaction reads of some series.
type reading struct {
	tx      pgx.Tx
	from    string // the table
	of      string // the series, as an operand of =
	args    []any  // of it
	rollups string
	emit    func(store.Sample) error
	rollup  func(*store.Rollup) error

	series  []int64
	batches []*batch
	times   int // that between was called
}

// feeds are those of the chunks of a time.
func (r *reading) feeds(from, to int64) []*feed {
	n := len(r.args)
	args := append(slices.Clone(r.args), periodStart(from), to, from)
	those := fmt.Sprintf(` FROM %s WHERE series = %s AND t0 >= $%d AND t0 < $%d AND t1 >= $%d`, r.from, r.of, n+1, n+2, n+3)
	r.times++
	whole := &feed{name: fmt.Sprint("whole", r.times), few: fewChunks, fetch: fetchChunks, args: args, scan: scanChunks, query: `SELECT id, ` + chunkColumns + those}
	if r.rollups == "" {
		return []*feed{whole}
	}
	// A chunk that is in the time as a whole is read by its rollups, if it has any.
	rolled := fmt.Sprintf(`(t0 >= $%d AND t1 < $%d AND %s IS NOT NULL)`, n+3, n+2, r.rollups)
	whole.query += ` AND NOT ` + rolled
	return []*feed{whole, {name: fmt.Sprint("rolled", r.times), few: fewRollups, fetch: fetchRollups, args: args, scan: scanRollups,
		query: `SELECT id, series, t0, t1, n, ` + r.rollups + those + ` AND ` + rolled}}
}

// between reads what is of a time. Its feeds are given if their first chunks have
// been read already.
func (r *reading) between(ctx context.Context, from, to int64, feeds []*feed) error {
	if feeds == nil {
		feeds = r.feeds(from, to)
		b := &pgx.Batch{}
		for _, f := range feeds {
			f.queue(b)
		}
		if err := r.tx.SendBatch(ctx, b).Close(); err != nil {
			return err
		}
	}
	m := merger{from: from, to: to, emit: r.emit, rollup: r.rollup, unroll: func(o *source) error { return o.unroll(ctx, r.tx) }}
	if arrived := newArrived(r.batches, r.series, from, to); arrived.len() > 0 {
		m.open = append(m.open, arrived)
	}
	for {
		o, err := nextOf(ctx, r.tx, feeds)
		if err != nil {
			return err
		}
		if o == nil {
			return m.run(nil)
		}
		if err := m.take(o); err != nil {
			return err
		}
	}
}

// anyArrived reports whether something has arrived that is of the period and in no
// chunk yet.
func (r *reading) anyArrived(start int64) (any bool) {
	eachIn(r.batches, r.series, start, periodLast(start), func(int64, store.Sample) { any = true })
	return any
}

// feed is a query for chunks, by their first times. The first few come at once; of
// more there is a cursor.
type feed struct {
	name       string
	query      string
	args       []any
	few, fetch int
	scan       func(pgx.Rows) ([]*source, error)

	ready []*source
	open  bool // there is a cursor, which may have more
}

// queue asks for the first few.
func (f *feed) queue(b *pgx.Batch) {
	b.Queue(fmt.Sprintf(`%s ORDER BY t0 LIMIT %d`, f.query, f.few+1), f.args...).Query(func(rows pgx.Rows) (err error) {
		if f.ready, err = f.scan(rows); len(f.ready) > f.few {
			f.ready, f.open = nil, true
		}
		return err
	})
}

// fill gets more where there may be more and nothing is ready.
func (f *feed) fill(ctx context.Context, tx pgx.Tx) error {
	if len(f.ready) > 0 || !f.open {
		return nil
	}
	if f.query != "" {
		if _, err := tx.Exec(ctx, `DECLARE `+f.name+` BINARY NO SCROLL CURSOR FOR `+f.query+` ORDER BY t0`, f.args...); err != nil {
			return err
		}
		f.query = ""
	}
	rows, err := tx.Query(ctx, fmt.Sprintf(`FETCH %d FROM %s`, f.fetch, f.name), pgx.QueryResultFormats{pgx.BinaryFormatCode})
	if err != nil {
		return err
	}
	f.ready, err = f.scan(rows)
	f.open = len(f.ready) == f.fetch
	return err
}

// nextOf is the first of what feeds have, nil when they have nothing more.
func nextOf(ctx context.Context, tx pgx.Tx, feeds []*feed) (*source, error) {
	var best *feed
	for _, f := range feeds {
		if err := f.fill(ctx, tx); err != nil {
			return nil, err
		}
		if len(f.ready) > 0 && (best == nil || f.ready[0].next < best.ready[0].next) {
			best = f
		}
	}
	if best == nil {
		return nil, nil
	}
	r := best.ready[0]
	best.ready = best.ready[1:]
	return r, nil
}

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
			if err := eachEntry(r.rollups, m.emit, m.rollup); err != nil {
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

// eachEntry hands over what rollups tell.
func eachEntry(rollups []byte, emit func(store.Sample) error, rollup func(*store.Rollup) error) error {
	return store.EachEntry(rollups, func(e *store.Entry) error {
		if e.Rollup.Count == 0 {
			return emit(e.Sample)
		}
		return rollup(&e.Rollup)
	})
}

// take opens a chunk, having emitted what comes before it.
func (m *merger) take(r *source) error {
	if err := m.run(&r.next); err != nil {
		return err
	}
	m.open = append(m.open, r)
	return nil
}

// scanChunks reads rows of id and chunkColumns.
func scanChunks(rows pgx.Rows) (sources []*source, err error) {
	defer rows.Close()
	for rows.Next() {
		v := rows.RawValues()
		k, err := parseChunk(v[1:])
		if err != nil {
			return nil, err
		}
		sources = append(sources, newSource(readInt8(v[0]), k))
	}
	return sources, rows.Err()
}

// scanRollups reads rows of id, series, t0, t1, n and rollups.
func scanRollups(rows pgx.Rows) (sources []*source, err error) {
	defer rows.Close()
	for rows.Next() {
		v := rows.RawValues()
		r := newSource(readInt8(v[0]), &chunk{series: readInt8(v[1]), t0: readInt8(v[2]), t1: readInt8(v[3]), n: readInt4(v[4])})
		r.rollups = slices.Clone(v[5])
		sources = append(sources, r)
	}
	return sources, rows.Err()
}

func newSource(id int64, k *chunk) *source {
	return &source{series: k.series, id: id, chunk: k, n: int(k.n), next: k.t0}
}

// unroll fetches the samples of a chunk that was fetched by its rollups.
func (r *source) unroll(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, `SELECT `+chunkColumns+` FROM samples_chunks WHERE series = $1 AND t0 = $2 AND id = $3`,
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

// manySeries are too many to look for each by itself.
const manySeries = 256

// eachArrived calls f for the samples in no chunk yet that are from from to last,
// those of one series in the order in which they came.
func eachArrived(ctx context.Context, tx pgx.Tx, series []int64, from, last int64, f func(series int64, v store.Sample)) error {
	where, of := `EXISTS (SELECT FROM unnest($1::bigint[]) AS u (id) WHERE s0 <= u.id AND s1 >= u.id) AND t0 <= $3 AND t1 >= $2`, any(series)
	if len(series) > manySeries { // which are neighbours mostly: that a row is none's costs less than to compare each
		where, of = `s0 <= ($1::bigint[])[2] AND s1 >= ($1::bigint[])[1] AND t0 <= $3 AND t1 >= $2`, []int64{slices.Min(series), slices.Max(series)}
	}
	batches, err := queryBatches(ctx, tx, where, of, from, last)
	if err == nil {
		eachIn(batches, series, from, last, f)
	}
	return err
}

// eachIn is eachArrived for rows that are read already.
func eachIn(batches []*batch, series []int64, from, last int64, f func(series int64, v store.Sample)) {
	for _, b := range batches {
		one := func(i int) {
			lo := int32(0)
			if i > 0 {
				lo = b.ends[i-1]
			}
			for k := lo; k < b.ends[i]; k++ {
				if at := b.TimeUS[k]; at >= from && at <= last {
					f(b.series[i], b.sample(int(k)))
				}
			}
		}
		if len(series) > len(b.series) && slices.IsSorted(series) {
			for i, id := range b.series {
				if _, wanted := slices.BinarySearch(series, id); wanted {
					one(i)
				}
			}
			continue
		}
		for _, id := range series {
			if i, there := slices.BinarySearch(b.series, id); there {
				one(i)
			}
		}
	}
}
