package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/whimbrel-edge/whimbrel/internal/failpoint"
)

// compactLock is the advisory lock of who compacts. The number means nothing.
const compactLock = 0x77686d636d70

const (
	compactSamples = 400_000 // about as many samples are rewritten in one transaction
	mergeGroups    = 500     // series and periods merged in one transaction
	fanout         = 16      // chunks of one level that make one of the next
	levelForGood   = 3

	// What has arrived becomes chunks when there are enough samples of a series for
	// one, on average over the series of a bucket. Until then it is put together in
	// rows of samples_batch of higher levels, of which a reader of one series opens
	// one a step: a chunk of few samples costs fifty times as much as these samples
	// do there.
	bucketBits  = 12 // series whose ids differ in these bits only share rows of higher levels
	enough      = 96
	bucketSteps = 24 // of one level that become one of the next
	topLevel    = 2
	// keepFrom is how many samples of one bucket make a row that stays as it is when it
	// goes to level 1: to put it together with others would help its readers little.
	keepFrom = 512
	// chunkAfter is how long samples of slow series wait for company at most.
	chunkAfter = 15 * time.Minute

	partitionsAhead = 4       // periods for which there are partitions already
	partitionsBack  = 52 * 10 // periods ago for which partitions are made; what is older goes to the default one

	// sealAfter is how long after the end of a period, and after the last late
	// arrival, its chunks are merged for good.
	sealAfter = 10 * time.Minute
	// vacuumRows is how many rows are taken out of samples_batch before it is
	// vacuumed: readers pass by what is left of them, and autovacuum comes by once a
	// minute.
	vacuumRows = 1000
	// vacuumYoung is the same of samples_young, whose space is to be used again.
	vacuumYoung = 20_000
	// vacuumEvery is how often either is vacuumed when there is nothing else to do.
	vacuumEvery = time.Minute
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
	// What has arrived comes first, but not for ever.
	if !moved {
		if moved, err = s.compactBuckets(ctx, now); err != nil {
			return false, fmt.Errorf("compact: %w", err)
		}
	}
	merged := false
	if !moved || now.Sub(s.merged) >= 10*time.Second {
		if merged, err = s.merge(ctx, now); err != nil {
			return false, fmt.Errorf("merge chunks: %w", err)
		}
		if !merged {
			s.merged = now
		}
	}
	summed := false
	if !moved && !merged {
		if summed, err = s.sumWeeks(ctx, now); err != nil {
			return false, fmt.Errorf("roll up weeks: %w", err)
		}
	}
	s.vacuum(ctx, now, !moved && !merged && !summed)
	return moved || merged || summed, nil
}

// vacuum gives back the space of rows and chunks that were replaced: when they are
// many, or when there is nothing else to do for now. Nobody depends on it; where it
// is not allowed autovacuum comes by later.
func (s *Store) vacuum(ctx context.Context, now time.Time, idle bool) {
	if idle = idle && now.Sub(s.vacuumed) >= vacuumEvery; idle {
		s.vacuumed = now
	}
	if s.removed >= vacuumRows || idle && s.removed > 0 {
		_, _ = s.pool.Exec(ctx, `VACUUM samples_batch`)
		s.removed = 0
	}
	if s.replaced >= vacuumYoung || idle && s.replaced > 0 {
		_, _ = s.pool.Exec(ctx, `VACUUM samples_young`)
		s.replaced = 0
	}
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
			failpoint.Here("history.partition")
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

// arrived is a row of level 0.
type arrived struct {
	id       int64
	b0, b1   int64 // the first and the last bucket that it may have samples of
	n, runs  int64
	received time.Time
}

// kept says which of the oldest rows that have arrived, in order, stay as they are:
// those that are large and of one bucket, where all of the bucket's are. A bucket that
// they bring enough of for chunks, while nothing of it waits from before, is rewritten.
func kept(rows []arrived, pending map[int64]bool) (keep, rest []int64) {
	type sum struct {
		n, runs int64
		steps   map[time.Time]bool
		mixed   bool
	}
	sums := map[int64]*sum{}
	var wide []arrived
	for _, r := range rows {
		if r.b0 != r.b1 {
			wide = append(wide, r)
			continue
		}
		of := sums[r.b0]
		if of == nil {
			of = &sum{steps: map[time.Time]bool{}}
			sums[r.b0] = of
		}
		of.n, of.runs, of.mixed = of.n+r.n, of.runs+r.runs, of.mixed || r.n < keepFrom
		of.steps[r.received] = true
	}
	for b, of := range sums {
		chunks := of.n >= enough*(of.runs/int64(len(of.steps))) && !pending[b]
		of.mixed = of.mixed || chunks || slices.ContainsFunc(wide, func(r arrived) bool { return r.b0 <= b && b <= r.b1 })
	}
	for _, r := range rows {
		if of := sums[r.b0]; r.b0 == r.b1 && !of.mixed {
			keep = append(keep, r.id)
		} else {
			rest = append(rest, r.id)
		}
	}
	return keep, rest
}

// compactArrived takes the oldest rows that have arrived. Where they bring enough
// of each series, and nothing is left from before, they become chunks, else rows
// of level 1.
func (s *Store) compactArrived(ctx context.Context, now time.Time) (more bool, err error) {
	return s.rewrite(ctx, now, func(tx pgx.Tx, w *rewriting) error {
		rows, err := tx.Query(ctx, `SELECT id, s0 >> $1, s1 >> $1, n, runs, received FROM (SELECT *, sum(n) OVER (ORDER BY id) - n AS before FROM
			(SELECT id, s0, s1, n, runs, received FROM samples_batch WHERE level = 0 ORDER BY id LIMIT 10000) AS a) AS b WHERE before < $2 ORDER BY id`, bucketBits, compactSamples)
		if err != nil {
			return err
		}
		var oldest []arrived
		var r arrived
		left := int64(0)
		if _, err := pgx.ForEachRow(rows, []any{&r.id, &r.b0, &r.b1, &r.n, &r.runs, &r.received}, func() error {
			oldest = append(oldest, r)
			left += r.n
			return nil
		}); err != nil || len(oldest) == 0 {
			return err
		}
		w.more = left >= compactSamples
		rows, err = tx.Query(ctx, `SELECT DISTINCT s0 >> $1 FROM samples_batch WHERE level > 0`, bucketBits)
		if err != nil {
			return err
		}
		buckets, err := pgx.CollectRows(rows, pgx.RowTo[int64])
		if err != nil {
			return err
		}
		pending := map[int64]bool{}
		for _, b := range buckets {
			pending[b] = true
		}
		keep, rest := kept(oldest, pending)
		if err := w.keep(ctx, tx, keep); err != nil || len(rest) == 0 {
			return err
		}
		if _, err := w.take(ctx, tx, `id = ANY($1)`, rest); err != nil {
			return err
		}
		for runs := w.runs; len(runs) > 0; {
			bucket, n, samples, series := runs[0].series>>bucketBits, 0, 0, 0
			for n < len(runs) && runs[n].series>>bucketBits == bucket {
				if n == 0 || runs[n].series != runs[n-1].series {
					series++
				}
				samples += runs[n].len()
				n++
			}
			if samples >= enough*series && !pending[bucket] {
				w.chunks(runs[:n])
			} else {
				w.rows(runs[:n], 1)
			}
			runs = runs[n:]
		}
		return nil
	})
}

// keep makes rows that have arrived rows of level 1, as they are. They get new ids,
// for they come after all that is of level 1 already.
func (w *rewriting) keep(ctx context.Context, tx pgx.Tx, ids []int64) error {
	if len(ids) == 0 {
		return nil
	}
	var b pgx.Batch
	for _, id := range ids {
		b.Queue(`UPDATE samples_batch SET level = 1, id = DEFAULT WHERE id = $1`, id)
	}
	w.kept = len(ids)
	return tx.SendBatch(ctx, &b).Close()
}

// bucket is what waits of one bucket.
type bucket struct {
	id      int64
	samples int64
	series  int64 // about
	steps   [topLevel + 1]int64
	oldest  time.Time
}

// due says what is to be done with a bucket: nothing (0), chunks (levelForGood), or
// the next level of what is of the level before.
func (b *bucket) due(now time.Time) int16 {
	if b.samples >= enough*b.series || b.samples >= compactSamples || b.oldest.Before(now.Add(-chunkAfter)) {
		return levelForGood
	}
	for level := int16(1); level < topLevel; level++ {
		if b.steps[level] >= bucketSteps {
			return level + 1
		}
	}
	return 0
}

// compactBuckets makes chunks or rows of a higher level of what there is enough of.
func (s *Store) compactBuckets(ctx context.Context, now time.Time) (more bool, err error) {
	return s.rewrite(ctx, now, func(tx pgx.Tx, w *rewriting) error {
		rows, err := tx.Query(ctx, `SELECT s0 >> $1, level, sum(n), sum(runs), count(DISTINCT received), min(received)
			FROM samples_batch WHERE level > 0 GROUP BY 1, 2`, bucketBits)
		if err != nil {
			return err
		}
		buckets := map[int64]*bucket{}
		var id, n, runs, steps int64
		var level int16
		var oldest time.Time
		if _, err := pgx.ForEachRow(rows, []any{&id, &level, &n, &runs, &steps, &oldest}, func() error {
			b := buckets[id]
			if b == nil {
				b = &bucket{id: id, oldest: oldest}
				buckets[id] = b
			}
			b.samples += n
			b.series = max(b.series, runs/steps)
			b.steps[min(level, topLevel)] = steps
			if oldest.Before(b.oldest) {
				b.oldest = oldest
			}
			return nil
		}); err != nil {
			return err
		}
		for _, b := range buckets {
			level := b.due(now)
			if level == 0 {
				continue
			}
			if w.samples > 0 && w.samples+min(b.samples, compactSamples) > compactSamples {
				w.more = true // in a transaction of its own
				break
			}
			w.runs = w.runs[:0]
			// The oldest, when there is more than one transaction is to hold.
			taken, err := w.take(ctx, tx, `id IN (SELECT id FROM (SELECT id, sum(n) OVER (ORDER BY level DESC, id) - n AS before FROM samples_batch
				WHERE level > 0 AND level < $1 AND s0 >= $2 AND s0 < $3) AS b WHERE before < $4)`, level, b.id<<bucketBits, (b.id+1)<<bucketBits, compactSamples)
			if err != nil {
				return err
			}
			w.samples += int64(taken)
			if level == levelForGood {
				w.chunks(w.runs)
			} else {
				w.rows(w.runs, level)
			}
			w.more = true
		}
		return nil
	})
}

// dropWaiting drops what waits of devices in the higher levels of samples_batch.
// All else that is in these buckets becomes chunks.
func dropWaiting(ctx context.Context, tx pgx.Tx, uids []string) error {
	rows, err := tx.Query(ctx, `SELECT id FROM series WHERE device_uid = ANY($1)`, uids)
	if err != nil {
		return err
	}
	series, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return err
	}
	var w rewriting
	if _, err := w.take(ctx, tx, `level > 0 AND s0 >> $1 IN (SELECT u.id >> $1 FROM unnest($2::bigint[]) AS u (id))`, bucketBits, series); err != nil || len(w.runs) == 0 {
		return err
	}
	w.chunks(slices.DeleteFunc(w.runs, func(r span) bool { return slices.Contains(series, r.series) }))
	if err := w.write(ctx, tx); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `DELETE FROM samples_batch WHERE id = ANY($1)`, w.ids)
	return err
}

// rewriting is one transaction's work: rows of samples_batch that go, and rows and
// chunks that come in their place.
type rewriting struct {
	ids      []int64
	runs     []span
	received time.Time // of the first row
	taken    int       // samples that were read
	kept     int       // rows that only changed their level
	samples  int64
	more     bool

	batches, young, chunked []byte // rows as COPY takes them
	starts                  []int64
	changed                 map[stretch]bool // of chunked; whether a chunk there has rollups
	t                       tuple
	g                       gathered
}

// take reads rows and adds their runs, ordered by series; it returns how many
// samples they are.
func (w *rewriting) take(ctx context.Context, tx pgx.Tx, where string, args ...any) (samples int, err error) {
	batches, err := queryBatches(ctx, tx, where, args...)
	if err != nil {
		return 0, err
	}
	runs := 0
	for _, b := range batches {
		runs += len(b.ends)
	}
	w.runs = slices.Grow(w.runs, runs)
	for i, b := range batches {
		w.ids = append(w.ids, b.id)
		w.runs = b.appendRuns(w.runs)
		samples += len(b.TimeUS)
		if i == 0 || b.received.Before(w.received) {
			w.received = b.received
		}
	}
	w.runs = sortRuns(w.runs)
	w.taken += samples
	return samples, nil
}

// rows puts sorted runs of one bucket into rows of a level.
func (w *rewriting) rows(runs []span, level int16) {
	const each = 40 // bytes that a float and its time take, with series and end where it is the only one
	if w.batches == nil {
		w.batches = make([]byte, 0, each*w.taken)
	}
	batchRows(runs, level, w.received, func(t *tuple) { w.batches = t.appendTo(w.batches) })
}

// chunks puts sorted runs into chunks.
func (w *rewriting) chunks(runs []span) {
	for len(runs) > 0 {
		n := seriesEnd(runs)
		w.g.gather(runs[:n])
		w.chunk(&w.g.columns, runs[0].series, 0, 0)
		runs = runs[n:]
	}
}

// chunk makes chunks of one series' samples, ordered by time: of those that are
// full with level full, of others with level.
func (w *rewriting) chunk(c *columns, series int64, level, full int16) {
	chunksOf(c, series, func(k *chunk) {
		k.level = level
		if k.n == chunkSamples {
			k.level = full
		}
		k.rollUp()
		k.encode(&w.t)
		if k.level < levelForGood {
			w.young = w.t.appendTo(w.young)
			return
		}
		w.chunked = w.t.appendTo(w.chunked)
		start := periodStart(k.t0)
		if !slices.Contains(w.starts, start) {
			w.starts = append(w.starts, start)
		}
		if w.changed == nil {
			w.changed = map[stretch]bool{}
		}
		r := stretch{series, start}
		w.changed[r] = w.changed[r] || k.hours != nil
	})
}

// write writes what came together: chunks that stay as they are into partitions.
func (w *rewriting) write(ctx context.Context, tx pgx.Tx) error {
	if len(w.batches) > 0 {
		if err := copyRows(ctx, tx, "samples_batch", batchColumns, w.batches); err != nil {
			return err
		}
	}
	if len(w.young) > 0 {
		if err := copyRows(ctx, tx, "samples_young", chunkColumns+", minutes, hours", w.young); err != nil {
			return err
		}
	}
	if len(w.chunked) > 0 {
		if err := copyRows(ctx, tx, "samples_chunk", chunkColumns+", minutes, hours", w.chunked); err != nil {
			return err
		}
		return weeksChanged(ctx, tx, w.changed)
	}
	return nil
}

// copyRows writes rows by COPY.
func copyRows(ctx context.Context, tx pgx.Tx, table, columns string, rows []byte) error {
	all := io.MultiReader(strings.NewReader(copyHead), bytes.NewReader(rows), strings.NewReader(copyTail))
	_, err := tx.Conn().PgConn().CopyFrom(ctx, all, `COPY `+table+` (`+columns+`) FROM STDIN BINARY`)
	return err
}

// rewrite runs one step. Chunks whose partition is missing are made after it, in
// the next attempt.
func (s *Store) rewrite(ctx context.Context, now time.Time, step func(pgx.Tx, *rewriting) error) (more bool, err error) {
	var w rewriting
	var missing []int64
	_, err = s.locked(ctx, func(tx pgx.Tx) error {
		if err := step(tx, &w); err != nil || len(w.ids) == 0 {
			return err
		}
		if missing = s.unpartitioned(w.starts, now); len(missing) > 0 {
			return nil // first make those, outside of this transaction
		}
		if err := w.write(ctx, tx); err != nil {
			return err
		}
		failpoint.Here("history.compact")
		gone, err := tx.Exec(ctx, `DELETE FROM samples_batch WHERE id = ANY($1)`, w.ids)
		failpoint.Here("history.compact.deleted")
		if err == nil && gone.RowsAffected() != int64(len(w.ids)) {
			err = errGone
		}
		return err
	})
	if err != nil {
		return false, err
	}
	if len(missing) == 0 {
		failpoint.Here("history.compacted")
		s.removed += len(w.ids) + w.kept
		return w.more, nil
	}
	return true, s.makeMissing(ctx, missing)
}

// makeMissing makes partitions that chunks wait for.
func (s *Store) makeMissing(ctx context.Context, missing []int64) error {
	for _, start := range missing {
		if err := s.makePartitions(ctx, []int64{start}); err != nil {
			return err
		}
		s.partitions[start] = true // if it could not be made now, then the default one takes them
	}
	return nil
}

var errGone = errors.New("rows to be replaced are gone")

// unpartitioned returns the periods that deserve a partition and have none that
// is known of.
func (s *Store) unpartitioned(starts []int64, now time.Time) (missing []int64) {
	first := periodStart(now.UnixMicro()) - partitionsBack*period
	last := periodStart(now.UnixMicro()) + partitionsAhead*period
	for _, start := range starts {
		if start >= first && start <= last && !s.partitions[start] {
			missing = append(missing, start)
		}
	}
	return missing
}

// merge merges the chunks of some series and periods: fanout chunks of level 0
// into one of level 1, as many of level 1 and all below into full ones, and all
// that is left of a period that is over. What is merged is always the newest of
// its series and period, so that ids keep telling the order of arrival.
func (s *Store) merge(ctx context.Context, now time.Time) (merged bool, err error) {
	var w rewriting
	var missing []int64
	_, err = s.locked(ctx, func(tx pgx.Tx) error {
		sealed := now.Add(-sealAfter)
		rows, err := tx.Query(ctx, `SELECT series, samples_period(t0), samples_period(t0) < $1 AND max(made) < $2, sum(n)
			FROM samples_young
			GROUP BY series, samples_period(t0)
			HAVING samples_period(t0) < $1 AND max(made) < $2
				OR count(*) FILTER (WHERE level = 0) >= $3 OR count(*) FILTER (WHERE level = 1) >= $3
			LIMIT $4`, periodStart(sealed.UnixMicro()), sealed, fanout, mergeGroups)
		if err != nil {
			return err
		}
		over := map[stretch]bool{}
		var r stretch
		var is bool
		var n, total int64
		if _, err := pgx.ForEachRow(rows, []any{&r.series, &r.start, &is, &n}, func() error {
			if total == 0 || total+n <= compactSamples {
				over[r] = is
				total += n
			}
			return nil
		}); err != nil || len(over) == 0 {
			return err
		}
		merged = true
		if err := w.merge(ctx, tx, over); err != nil {
			return err
		}
		if missing = s.unpartitioned(w.starts, now); len(missing) > 0 {
			return nil // as in rewrite
		}
		if err := w.write(ctx, tx); err != nil {
			return err
		}
		failpoint.Here("history.merge")
		gone, err := tx.Exec(ctx, `DELETE FROM samples_young WHERE id = ANY($1)`, w.ids)
		failpoint.Here("history.merge.deleted")
		if err == nil && gone.RowsAffected() != int64(len(w.ids)) {
			err = errGone
		}
		return err
	})
	if err != nil || len(missing) > 0 {
		return merged, errors.Join(err, s.makeMissing(ctx, missing))
	}
	s.replaced += len(w.ids)
	return merged, nil
}

// stretch is a series in one period.
type stretch struct{ series, start int64 }

// stored is a chunk and its id.
type stored struct {
	id int64
	*chunk
}

// merge merges the chunks of each stretch that are not merged for good; over says
// whether the stretch's period is. What is replaced is in w.ids.
func (w *rewriting) merge(ctx context.Context, tx pgx.Tx, over map[stretch]bool) error {
	var series, firsts, lasts []int64
	for r := range over {
		series, firsts, lasts = append(series, r.series), append(firsts, r.start), append(lasts, periodLast(r.start))
	}
	rows, err := tx.Query(ctx, `SELECT c.id, `+prefixed("c.", chunkColumns)+` FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS g (series, first, last)
		JOIN samples_young c ON c.series = g.series AND c.t0 >= g.first AND c.t0 <= g.last
		ORDER BY c.series, c.id`, pgx.QueryResultFormats{pgx.BinaryFormatCode}, series, firsts, lasts)
	if err != nil {
		return err
	}
	found := map[stretch][]stored{}
	var order []stretch
	for rows.Next() {
		v := rows.RawValues()
		k, err := parseChunk(v[1:])
		if err != nil {
			rows.Close()
			return err
		}
		r := stretch{k.series, periodStart(k.t0)}
		if found[r] == nil {
			order = append(order, r)
		}
		found[r] = append(found[r], stored{readInt8(v[0]), k})
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for _, r := range order {
		level, full := mergeLevel(found[r], over[r])
		w.runs = w.runs[:0]
		for _, o := range found[r] {
			if full == levelForGood || o.level < level {
				w.ids = append(w.ids, o.id)
				w.runs = append(w.runs, span{series: o.series, from: o.columns(), hi: o.n})
			}
		}
		w.g.gather(w.runs)
		w.chunk(&w.g.columns, r.series, level, full)
	}
	return nil
}

// mergeLevel says into which level the chunks of lower levels are merged, and
// which one full chunks are then of: for good only where all are merged.
func mergeLevel(chunks []stored, over bool) (level, full int16) {
	ones := 0
	for _, o := range chunks {
		if o.level == 1 {
			ones++
		}
	}
	switch {
	case over:
		return levelForGood, levelForGood
	case ones >= fanout:
		return 2, levelForGood
	}
	return 1, 1
}

func prefixed(prefix, names string) string {
	return prefix + strings.ReplaceAll(names, ", ", ", "+prefix)
}
