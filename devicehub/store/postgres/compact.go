package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
)

// compactLock is the advisory lock of who compacts. The number means nothing.
const compactLock = 0x77686d636d70

const (
	compactSamples = 400_000 // about as many samples are rewritten in one transaction
	mergeGroups    = 500     // series and periods merged in one transaction
	fanout         = 16      // chunks of one level that make one of the next
	levelForGood   = 3

	partitionsAhead = 4       // periods for which there are partitions already
	partitionsBack  = 52 * 10 // periods ago for which partitions are made; what is older goes to the default one

	// sealAfter is how long after the end of a period, and after the last late
	// arrival, its chunks are merged for good.
	sealAfter = 10 * time.Minute
)

// codeLockTimeout: a lock was not to be had in time.
const codeLockTimeout = "55P03"

// Compact implements store.History: it moves what has arrived in samples_batch
// into chunks, and merges small chunks into larger ones. Several hubs on one
// database take turns.
func (s *Store) Compact(ctx context.Context, now time.Time) (more bool, err error) {
	s.compacting.Lock()
	defer s.compacting.Unlock()
	starts := []int64{}
	for i := range partitionsAhead + 1 {
		starts = append(starts, periodStart(now.UnixMicro())+int64(i)*period)
	}
	if err := s.makePartitions(ctx, starts); err != nil {
		return false, fmt.Errorf("compact: make partitions: %w", err)
	}
	moved, err := s.compactArrived(ctx, now)
	if err != nil {
		return false, fmt.Errorf("compact: %w", err)
	}
	merged := false
	if !moved || now.Sub(s.merged) >= 10*time.Second { // what has arrived comes first, but not for ever
		if merged, err = s.merge(ctx, now); err != nil {
			return false, fmt.Errorf("merge chunks: %w", err)
		}
		if !merged {
			s.merged = now
		}
	}
	return moved || merged, nil
}

// locked runs f in a transaction that no other hub has one like at the same time.
// It reports false when another has.
func (s *Store) locked(ctx context.Context, f func(pgx.Tx) error) (bool, error) {
	got := false
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, `SELECT pg_try_advisory_xact_lock($1)`, int64(compactLock)).Scan(&got); err != nil || !got {
			return err
		}
		return f(tx)
	})
	return got, err
}

// makePartitions makes the partitions that are missing, each in a transaction of
// its own that gives up when someone reads the table for long.
func (s *Store) makePartitions(ctx context.Context, starts []int64) error {
	for _, start := range starts {
		if s.partitions[start] {
			continue
		}
		_, err := s.locked(ctx, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, `SET LOCAL lock_timeout = '500ms'`); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, `SELECT samples_make_partition($1)`, start)
			return err
		})
		switch {
		case code(err) == codeLockTimeout:
			// The default partition takes what comes meanwhile, and gives it back.
		case err != nil:
			return err
		default:
			s.partitions[start] = true
		}
	}
	return nil
}

// compactArrived rewrites the oldest rows of samples_batch.
func (s *Store) compactArrived(ctx context.Context, now time.Time) (more bool, err error) {
	chunks, missing := []chunk(nil), []int64(nil)
	_, err = s.locked(ctx, func(tx pgx.Tx) error {
		ids, c, left, err := arrived(ctx, tx)
		if err != nil || len(ids) == 0 {
			return err
		}
		more = left
		chunks = chunksOfMany(c, 0)
		missing = s.unpartitioned(chunks, now)
		if len(missing) > 0 {
			return nil // first make those, outside of this transaction
		}
		return replace(ctx, tx, `DELETE FROM samples_batch WHERE id = ANY($1)`, ids, chunks)
	})
	if err != nil || len(missing) == 0 {
		return more, err
	}
	for _, start := range missing {
		if err := s.makePartitions(ctx, []int64{start}); err != nil {
			return false, err
		}
		s.partitions[start] = true // if it could not be made now, then the default one takes them
	}
	return true, nil
}

// unpartitioned returns the periods that deserve a partition and have none that
// is known of.
func (s *Store) unpartitioned(chunks []chunk, now time.Time) (starts []int64) {
	first := periodStart(now.UnixMicro()) - partitionsBack*period
	last := periodStart(now.UnixMicro()) + partitionsAhead*period
	for i := range chunks {
		start := periodStart(chunks[i].t0)
		if start >= first && start <= last && !s.partitions[start] && !slices.Contains(starts, start) {
			starts = append(starts, start)
		}
	}
	return starts
}

// arrived reads the oldest rows of samples_batch, at least compactSamples samples
// if there are.
func arrived(ctx context.Context, tx pgx.Tx) (ids []int64, c *columns, more bool, err error) {
	if _, err := tx.Exec(ctx, `DECLARE arrived NO SCROLL CURSOR FOR SELECT id, backfill, series, time_us, kind, int_v, float_v, text_v, quality, reason
		FROM samples_batch ORDER BY id`); err != nil {
		return nil, nil, false, err
	}
	c = &columns{}
	for c.Len() < compactSamples {
		rows, err := tx.Query(ctx, `FETCH 10 FROM arrived`)
		if err != nil {
			return nil, nil, false, err
		}
		n := 0
		for rows.Next() {
			id, err := scanArrived(rows, c)
			if err != nil {
				rows.Close()
				return nil, nil, false, err
			}
			ids = append(ids, id)
			n++
		}
		if err := rows.Err(); err != nil {
			return nil, nil, false, err
		}
		if n == 0 {
			return ids, c, false, nil
		}
	}
	return ids, c, true, nil
}

func scanArrived(rows pgx.Rows, c *columns) (id int64, err error) {
	var backfill bool
	var series, times, ints []int64
	var kinds, quality []int16
	var floats []float64
	var text [][]byte
	var reason []*string
	if err := rows.Scan(&id, &backfill, &series, &times, &kinds, &ints, &floats, &text, &quality, &reason); err != nil {
		return 0, err
	}
	for i := range series {
		v := store.Sample{TimeUS: times[i], Kind: uint8(kinds[i]), Backfill: backfill}
		if ints != nil {
			v.Int = ints[i]
		}
		if floats != nil {
			v.Float = floats[i]
		}
		if text != nil {
			v.Text = string(text[i])
		}
		if quality != nil {
			v.Quality = uint8(quality[i])
		}
		if reason != nil && reason[i] != nil {
			v.Reason = *reason[i]
		}
		c.add(series[i], v)
	}
	return id, nil
}

// chunksOfMany makes chunks of samples of many series, those of one series in
// the order in which they came.
func chunksOfMany(c *columns, level int16) (out []chunk) {
	bySeries := map[int64][]int32{}
	var order []int64
	for i, id := range c.Series {
		at, known := bySeries[id]
		if !known {
			order = append(order, id)
		}
		bySeries[id] = append(at, int32(i))
	}
	slices.Sort(order)
	for _, id := range order {
		at := bySeries[id]
		c.sortByTime(at)
		out = append(out, chunksOf(c, id, at, level)...)
	}
	return out
}

// replace takes rows out by their ids and puts chunks in their place.
func replace(ctx context.Context, tx pgx.Tx, remove string, ids []int64, chunks []chunk, more ...any) error {
	gone, err := tx.Exec(ctx, remove, append([]any{ids}, more...)...)
	if err != nil {
		return err
	}
	if gone.RowsAffected() != int64(len(ids)) {
		return errors.New("rows to be replaced are gone")
	}
	_, err = tx.CopyFrom(ctx, pgx.Identifier{"samples_chunk"}, chunkColumns, pgx.CopyFromSlice(len(chunks), func(i int) ([]any, error) {
		return chunks[i].values(), nil
	}))
	return err
}

// merge merges the chunks of some series and periods: fanout chunks of one level
// and those below into the next, and all that is left of a period that is over.
// What is merged is always the newest of its series and period, so that ids keep
// telling the order of arrival.
func (s *Store) merge(ctx context.Context, now time.Time) (merged bool, err error) {
	_, err = s.locked(ctx, func(tx pgx.Tx) error {
		sealed := now.Add(-sealAfter)
		rows, err := tx.Query(ctx, `SELECT series, samples_period(t0), samples_period(t0) < $1 AND max(made) < $2
			FROM samples_chunk WHERE level < $3
			GROUP BY series, samples_period(t0)
			HAVING samples_period(t0) < $1 AND max(made) < $2
				OR count(*) FILTER (WHERE level = 0) >= $4 OR count(*) FILTER (WHERE level = 1) >= $4
			LIMIT $5`, periodStart(sealed.UnixMicro()), sealed, levelForGood, fanout, mergeGroups)
		if err != nil {
			return err
		}
		over := map[stretch]bool{}
		var r stretch
		var is bool
		if _, err := pgx.ForEachRow(rows, []any{&r.series, &r.start, &is}, func() error {
			over[r] = is
			return nil
		}); err != nil || len(over) == 0 {
			return err
		}
		merged = true
		return mergeStretches(ctx, tx, over)
	})
	return merged, err
}

// stretch is a series in one period.
type stretch struct{ series, start int64 }

// stored is a chunk and its id.
type stored struct {
	id int64
	chunk
}

// mergeStretches merges the chunks of each stretch that are not merged for good; over says
// whether the stretch's period is.
func mergeStretches(ctx context.Context, tx pgx.Tx, over map[stretch]bool) error {
	var series, firsts, lasts []int64
	for r := range over {
		series, firsts, lasts = append(series, r.series), append(firsts, r.start), append(lasts, periodLast(r.start))
	}
	rows, err := tx.Query(ctx, `SELECT c.id, `+prefixed("c.", chunkColumns)+` FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS g (series, first, last)
		JOIN samples_chunk c ON c.series = g.series AND c.t0 >= g.first AND c.t0 <= g.last AND c.level < $4
		ORDER BY c.series, c.id`, series, firsts, lasts, levelForGood)
	if err != nil {
		return err
	}
	found := map[stretch][]*stored{}
	var order []stretch
	for rows.Next() {
		o := &stored{}
		if err := rows.Scan(append([]any{&o.id}, o.targets()...)...); err != nil {
			rows.Close()
			return err
		}
		r := stretch{o.series, periodStart(o.t0)}
		if found[r] == nil {
			order = append(order, r)
		}
		found[r] = append(found[r], o)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	var ids []int64
	var chunks []chunk
	for _, r := range order {
		level := mergeLevel(found[r], over[r])
		c := &columns{}
		for _, o := range found[r] {
			if o.level < level {
				ids = append(ids, o.id)
				o.appendTo(c)
			}
		}
		chunks = append(chunks, chunksOfMany(c, level)...)
	}
	return replace(ctx, tx, `DELETE FROM samples_chunk WHERE id = ANY($1) AND level < 3 AND t0 >= $2 AND t0 <= $3 AND series = ANY($4)`, ids, chunks,
		slices.Min(firsts), slices.Max(lasts), series)
}

// mergeLevel says into which level the chunks of lower levels are merged.
func mergeLevel(chunks []*stored, over bool) int16 {
	ones := 0
	for _, o := range chunks {
		if o.level == 1 {
			ones++
		}
	}
	switch {
	case over:
		return levelForGood
	case ones >= fanout:
		return 2
	}
	return 1
}

func prefixed(prefix string, names []string) string {
	return prefix + strings.Join(names, ", "+prefix)
}
