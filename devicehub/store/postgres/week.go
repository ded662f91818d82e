package postgres

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/internal/failpoint"
)

// week is what the chunks of one series and period in samples_chunk come to by the
// hour.
type week struct {
	stretch
	hours []byte
}

// weeks are those of a property that are in a time as a whole.
type weeks struct {
	list  []week
	young map[int64]bool // periods of which there are chunks to be merged yet
}

// queue asks for them.
func (w *weeks) queue(b *pgx.Batch, deviceUID, property string, from, to int64) {
	const those = ` WHERE series = ANY (ARRAY(SELECT u.id FROM series u WHERE u.device_uid = $1 AND u.property = $2)) AND `
	b.Queue(`SELECT series, start, hours FROM samples_week`+those+`start >= $3 AND start < $4 AND t0 >= $5 AND t1 < $4 AND length(hours) > 0 ORDER BY start`,
		deviceUID, property, periodStart(from), to, from).Query(func(rows pgx.Rows) (err error) {
		w.list, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (k week, err error) {
			err = row.Scan(&k.series, &k.start, &k.hours)
			return k, err
		})
		return err
	})
	b.Queue(`SELECT DISTINCT samples_period(t0) FROM samples_young`+those+`t0 >= $3 AND t0 < $4`, deviceUID, property, periodStart(from), to).Query(func(rows pgx.Rows) error {
		w.young = map[int64]bool{}
		var start int64
		_, err := pgx.ForEachRow(rows, []any{&start}, func() error {
			w.young[start] = true
			return nil
		})
		return err
	})
}

// alone are the weeks that tell all there is of their periods.
func (w *weeks) alone(ctx context.Context, r *reading) ([]week, error) {
	w.list = slices.DeleteFunc(w.list, func(k week) bool { return w.young[k.start] || r.anyArrived(k.start) })
	if len(r.series) == 1 || len(w.list) == 0 {
		return w.list, nil
	}
	// Each node that served the device has a series of its own.
	var series, starts, lasts []int64
	for _, k := range w.list {
		series, starts, lasts = append(series, k.series), append(starts, k.start), append(lasts, periodLast(k.start))
	}
	rows, err := r.tx.Query(ctx, `SELECT w.start FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS w (series, start, last)
		WHERE EXISTS (SELECT FROM samples_chunk c WHERE c.series = ANY ($4::bigint[]) AND c.series <> w.series AND c.t0 >= w.start AND c.t0 <= w.last)`,
		series, starts, lasts, r.series)
	if err != nil {
		return nil, err
	}
	shared, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	return slices.DeleteFunc(w.list, func(k week) bool { return slices.Contains(shared, k.start) }), err
}

// weeksChanged takes note, in the transaction that writes them, of chunks that were
// written for good. A week that none of whose chunks has rollups needs none either.
func weeksChanged(ctx context.Context, tx pgx.Tx, changed map[stretch]bool) error {
	var series, starts []int64
	var rolled []bool
	for r, any := range changed {
		series, starts, rolled = append(series, r.series), append(starts, r.start), append(rolled, any)
	}
	b := &pgx.Batch{}
	b.Queue(`UPDATE samples_week w SET hours = NULL FROM unnest($1::bigint[], $2::bigint[]) AS c (series, start)
		WHERE w.series = c.series AND w.start = c.start AND w.hours IS NOT NULL`, series, starts)
	b.Queue(`INSERT INTO samples_week (series, start) SELECT c.series, c.start FROM unnest($1::bigint[], $2::bigint[], $3::boolean[]) AS c (series, start, rolled)
		WHERE c.rolled ON CONFLICT DO NOTHING`, series, starts, rolled)
	return tx.SendBatch(ctx, b).Close()
}

// weeksAtOnce is how many weeks of a series are rolled up in one transaction.
const weeksAtOnce = 50

// sumWeeks rolls up weeks that are over.
func (s *Store) sumWeeks(ctx context.Context, now time.Time) (more bool, err error) {
	_, err = s.locked(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `SELECT series, start FROM samples_week WHERE hours IS NULL AND start < $1 ORDER BY start LIMIT $2`,
			periodStart(now.Add(-sealAfter).UnixMicro()), weeksAtOnce)
		if err != nil {
			return err
		}
		due, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r stretch, err error) {
			err = row.Scan(&r.series, &r.start)
			return r, err
		})
		if err != nil {
			return err
		}
		more = len(due) == weeksAtOnce
		for _, r := range due {
			if err := sumWeek(ctx, tx, r); err != nil {
				return err
			}
			failpoint.Here("history.week")
		}
		return nil
	})
	return more, err
}

// sumWeek rolls up one week of one series.
func sumWeek(ctx context.Context, tx pgx.Tx, of stretch) error {
	var t0, t1, samples int64
	if err := tx.QueryRow(ctx, `SELECT coalesce(min(t0), 0), coalesce(max(t1), 0), coalesce(sum(n), 0) FROM samples_chunk WHERE series = $1 AND t0 >= $2 AND t0 <= $3`,
		of.series, of.start, periodLast(of.start)).Scan(&t0, &t1, &samples); err != nil {
		return err
	}
	hours := []byte{}
	if t1 < 1<<63-1 && samples > 0 {
		var list store.Rolling
		r := reading{tx: tx, from: "samples_chunk", of: `$1`, args: []any{of.series}, rollups: "hours", emit: list.Add, rollup: list.Merge}
		list.Step = store.Hour
		if err := r.between(ctx, t0, t1+1, nil); err != nil {
			return err
		}
		hours = append(hours, encodeEntries(list.Entries, samples)...)
	}
	_, err := tx.Exec(ctx, `UPDATE samples_week SET t0 = $3, t1 = $4, hours = $5 WHERE series = $1 AND start = $2`, of.series, of.start, t0, t1, hours)
	return err
}
