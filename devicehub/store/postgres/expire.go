package postgres

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/internal/failpoint"
)

// rules are retention rules by columns, for unnest.
type rules struct {
	uids    []string
	before  []int64
	keep    []int64
	anyKeep bool
}

// Expire implements store.History. A partition of which nothing is to be kept is
// dropped whole; elsewhere chunks go that are old as a whole.
func (s *Store) Expire(ctx context.Context, list []store.Retention, now time.Time) error {
	s.compacting.Lock()
	defer s.compacting.Unlock()
	r := rules{uids: []string{}, before: []int64{}, keep: []int64{}}
	for _, rule := range list {
		r.uids, r.before, r.keep = append(r.uids, rule.DeviceUID), append(r.before, rule.BeforeUS), append(r.keep, rule.Keep)
		r.anyKeep = r.anyKeep || rule.Keep > 0
	}
	if len(r.uids) == 0 {
		return nil
	}
	starts, err := s.oldPartitions(ctx, now)
	if err != nil {
		return fmt.Errorf("expire history: %w", err)
	}
	for _, start := range starts {
		if err := s.dropPartition(ctx, start, &r); err != nil {
			return fmt.Errorf("expire history: partition of %d: %w", start, err)
		}
	}
	if _, err := s.locked(ctx, func(tx pgx.Tx) error { return expireChunks(ctx, tx, &r) }); err != nil {
		return fmt.Errorf("expire history: %w", err)
	}
	return nil
}

// expireChunks deletes chunks that are old as a whole, and what the weeks that they
// were of come to.
func expireChunks(ctx context.Context, tx pgx.Tx, r *rules) error {
	for _, table := range []string{"samples_chunk", "samples_young"} {
		if _, err := tx.Exec(ctx, `WITH gone AS (
				DELETE FROM `+table+` c USING series s, unnest($1::text[], $2::bigint[], $3::bigint[]) AS r (uid, before, keep)
				WHERE s.device_uid = r.uid AND r.keep = 0 AND c.series = s.id AND c.t0 < r.before AND c.t1 < r.before
				RETURNING c.series, samples_period(c.t0) AS start)
			DELETE FROM samples_week w USING gone WHERE w.series = gone.series AND w.start = gone.start`, r.uids, r.before, r.keep); err != nil {
			return err
		}
		failpoint.Here("history.expire")
	}
	if !r.anyKeep {
		return nil
	}
	rows, err := tx.Query(ctx, `SELECT o.id, o.series, o.t0 FROM (
			SELECT k.id, k.series, k.t0, k.t1 < r.before AND sum(k.n) OVER later >= r.keep AS gone
			FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS r (uid, before, keep)
			JOIN series s ON s.device_uid = r.uid
			JOIN samples_chunks k ON k.series = s.id
			WHERE r.keep > 0
			WINDOW later AS (PARTITION BY s.device_uid, s.property ORDER BY k.t1 DESC, k.id DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
		) AS o WHERE o.gone`, r.uids, r.before, r.keep)
	if err != nil {
		return err
	}
	var ids, series, t0s []int64
	var id, of, t0 int64
	if _, err := pgx.ForEachRow(rows, []any{&id, &of, &t0}, func() error {
		ids, series, t0s = append(ids, id), append(series, of), append(t0s, t0)
		return nil
	}); err != nil || len(ids) == 0 {
		return err
	}
	const those = ` USING unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS o (id, series, t0) WHERE `
	for _, query := range []string{
		`DELETE FROM samples_chunk c` + those + `c.series = o.series AND c.t0 = o.t0 AND c.id = o.id`,
		`DELETE FROM samples_young c` + those + `c.series = o.series AND c.t0 = o.t0 AND c.id = o.id`,
		`DELETE FROM samples_week w` + those + `o.id IS NOT NULL AND w.series = o.series AND w.start = samples_period(o.t0)`,
	} {
		if _, err := tx.Exec(ctx, query, ids, series, t0s); err != nil {
			return err
		}
	}
	return nil
}

// oldPartitions returns the periods that are over and have a partition.
func (s *Store) oldPartitions(ctx context.Context, now time.Time) (starts []int64, err error) {
	rows, err := s.pool.Query(ctx, `SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = 'samples_chunk'::regclass ORDER BY c.relname`)
	if err != nil {
		return nil, err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		day, err := time.Parse("20060102", strings.TrimPrefix(name, "samples_chunk_"))
		if err == nil && day.UnixMicro()+period <= now.UnixMicro() {
			starts = append(starts, day.UnixMicro())
		}
	}
	return starts, nil
}

// dropPartition drops the partition of a period if no sample in it is to be kept.
// Nothing can come into it meanwhile: that needs the same lock.
func (s *Store) dropPartition(ctx context.Context, start int64, r *rules) error {
	name := "samples_chunk_" + time.UnixMicro(start).UTC().Format("20060102")
	drop := false
	_, err := s.locked(ctx, func(tx pgx.Tx) error {
		last := periodLast(start)
		if last == math.MaxInt64 {
			return nil
		}
		if err := tx.QueryRow(ctx, `SELECT NOT EXISTS (SELECT FROM `+name+` c JOIN series s ON s.id = c.series
			LEFT JOIN unnest($1::text[], $2::bigint[], $3::bigint[]) AS r (uid, before, keep) ON r.uid = s.device_uid AND r.keep = 0 AND r.before > $4
			WHERE r.uid IS NULL)`, r.uids, r.before, r.keep, last).Scan(&drop); err != nil || !drop {
			return err
		}
		// Readers hold it up for as long as they read; then the next time will do.
		if _, err := tx.Exec(ctx, `SET LOCAL lock_timeout = '500ms'`); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `DROP TABLE `+name); err != nil {
			return err
		}
		failpoint.Here("history.drop")
		_, err := tx.Exec(ctx, `DELETE FROM samples_week WHERE start = $1`, start)
		return err
	})
	if code(err) == codeLockTimeout {
		return nil
	}
	if err == nil && drop {
		delete(s.partitions, start)
	}
	return err
}
