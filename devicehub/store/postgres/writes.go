package postgres

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
)

const writeColumns = `id, device_uid, property, value, version, by_user, origin, reason, trace, before, asked_us, since_us, until_us, expires_us,
	sent_us, confirmed_us, ended_us, state, error, superseded_by, refused, late, settled`

// queueWrites queues changes of the ledger, each kind in the order of ids: so two
// transactions with the same writes wait for each other and do not lock up.
func queueWrites(b *pgx.Batch, writes []store.Write, ends []store.WriteEnd, outcomes []store.WriteOutcome) {
	writes, ends, outcomes = slices.Clone(writes), slices.Clone(ends), slices.Clone(outcomes)
	slices.SortStableFunc(writes, func(a, b store.Write) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortStableFunc(ends, func(a, b store.WriteEnd) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortStableFunc(outcomes, func(a, b store.WriteOutcome) int { return cmp.Compare(a.ID, b.ID) })
	for _, w := range writes {
		b.Queue(`INSERT INTO writes (`+writeColumns+`)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23)
			ON CONFLICT (id) DO UPDATE SET version = greatest(writes.version, excluded.version),
				by_user = CASE WHEN writes.by_user = '' THEN excluded.by_user ELSE writes.by_user END,
				origin = CASE WHEN writes.origin = '' THEN excluded.origin ELSE writes.origin END,
				reason = CASE WHEN writes.reason = '' THEN excluded.reason ELSE writes.reason END,
				trace = CASE WHEN writes.trace = '' THEN excluded.trace ELSE writes.trace END,
				before = CASE WHEN writes.before = '' THEN excluded.before ELSE writes.before END,
				since_us = coalesce(writes.since_us, excluded.since_us), expires_us = coalesce(writes.expires_us, excluded.expires_us)`,
			w.ID, w.DeviceUID, w.Property, w.Value, w.Version, text(w.By), text(w.Origin), text(w.Reason), text(w.Trace), w.Before, w.Asked.UnixMicro(),
			micros(w.Since), micros(w.Until), micros(w.Expires), micros(w.Sent), micros(w.Confirmed), micros(w.Ended), w.State, text(w.Error),
			w.SupersededBy, w.Refused, w.Late, int16(w.Settled))
	}
	for _, e := range ends {
		b.Queue(`UPDATE writes SET until_us = CASE WHEN since_us IS NULL THEN NULL ELSE coalesce(until_us, $2) END,
				superseded_by = CASE WHEN superseded_by = '' THEN $3 ELSE superseded_by END,
				state = CASE WHEN settled = 0 THEN $4 ELSE state END, error = CASE WHEN settled = 0 THEN $5 ELSE error END,
				ended_us = CASE WHEN settled = 0 THEN $2 ELSE ended_us END, settled = CASE WHEN settled = 0 THEN 1 ELSE settled END
			WHERE id = $1`, e.ID, e.At.UnixMicro(), e.SupersededBy, e.State, text(e.Error))
	}
	for _, o := range outcomes {
		if !o.Final {
			b.Queue(`UPDATE writes SET sent_us = coalesce($3, sent_us), error = CASE WHEN settled = 0 THEN $4 ELSE error END
				WHERE id = $1 AND device_uid = $2 AND settled < 2`, o.ID, o.DeviceUID, micros(o.Sent), text(o.Error))
			continue
		}
		b.Queue(`UPDATE writes SET sent_us = coalesce($3, sent_us), late = late OR $4 OR ($5 AND state = 'expired'),
				state = $6, error = $7, refused = $8, ended_us = $9, settled = 2,
				confirmed_us = CASE WHEN $5 OR $4 THEN coalesce(confirmed_us, $9) ELSE confirmed_us END
			WHERE id = $1 AND device_uid = $2 AND (settled < 2 OR $4)`,
			o.ID, o.DeviceUID, micros(o.Sent), o.Late, o.Applied, o.State, text(o.Error), o.Refused, o.At.UnixMicro())
	}
}

func scanWrite(row pgx.CollectableRow) (w store.Write, err error) {
	var asked int64
	var settled int16
	var since, until, expires, sent, confirmed, ended *int64
	err = row.Scan(&w.ID, &w.DeviceUID, &w.Property, &w.Value, &w.Version, &w.By, &w.Origin, &w.Reason, &w.Trace, &w.Before, &asked, &since, &until, &expires,
		&sent, &confirmed, &ended, &w.State, &w.Error, &w.SupersededBy, &w.Refused, &w.Late, &settled)
	w.Asked, w.Since, w.Until, w.Expires = time.UnixMicro(asked).UTC(), fromMicros(since), fromMicros(until), fromMicros(expires)
	w.Sent, w.Confirmed, w.Ended, w.Settled = fromMicros(sent), fromMicros(confirmed), fromMicros(ended), store.Settled(settled)
	return w, err
}

func (s *Store) readWrites(ctx context.Context, query string, args ...any) ([]store.Write, error) {
	rows, err := s.pool.Query(ctx, `SELECT `+writeColumns+` FROM writes WHERE `+query, args...)
	if err != nil {
		return nil, fmt.Errorf("read writes: %w", err)
	}
	writes, err := pgx.CollectRows(rows, scanWrite)
	if err != nil {
		return nil, fmt.Errorf("read writes: %w", err)
	}
	return writes, nil
}

// WritesPage implements store.Writes.
func (s *Store) WritesPage(ctx context.Context, q store.WriteQuery) ([]store.Write, error) {
	var w where
	w.add("device_uid = ?", q.DeviceUID)
	for column, value := range map[string]string{"property": q.Property, "state": q.State} {
		if value != "" {
			w.add(column+" = ?", value)
		}
	}
	if !q.Since.IsZero() {
		w.add("asked_us >= ?", q.Since.UnixMicro())
	}
	if q.Before != "" {
		w.add(`id < ?`, q.Before)
	}
	return s.readWrites(ctx, fmt.Sprintf(`%s ORDER BY id DESC LIMIT %d`, &w, q.Limit), w.args...)
}

// DesiredAt implements store.Writes.
func (s *Store) DesiredAt(ctx context.Context, deviceUID string, at time.Time) ([]store.Write, error) {
	return s.readWrites(ctx, `device_uid = $1 AND since_us <= $2 AND (until_us IS NULL OR until_us > $2) ORDER BY property COLLATE "C", version`, deviceUID, at.UnixMicro())
}

// TrimWrites implements store.Writes.
func (s *Store) TrimWrites(ctx context.Context, bounds store.WriteBounds) error {
	b := &pgx.Batch{}
	b.Queue(`DELETE FROM writes WHERE asked_us < $1 AND (ended_us IS NULL OR ended_us < $1) AND (since_us IS NULL OR until_us < $1)`, bounds.Before.UnixMicro())
	b.Queue(`DELETE FROM writes USING (
			SELECT id AS i, row_number() OVER (PARTITION BY device_uid, property ORDER BY id DESC) AS n FROM writes
		) AS o WHERE id = i AND n > $1 AND (since_us IS NULL OR until_us IS NOT NULL)`, bounds.PerProperty)
	if err := s.send(ctx, b); err != nil {
		return fmt.Errorf("trim writes: %w", err)
	}
	return nil
}

func queueLives(b *pgx.Batch, assigned []store.Assignment, gone []store.DeletedDevice) {
	for _, a := range assigned {
		b.Queue(`INSERT INTO assignments (device_uid, assignment, since_us) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, a.DeviceUID, int64(a.Assignment), a.Since.UnixMicro())
	}
	for _, d := range gone {
		b.Queue(`INSERT INTO deleted_devices (uid, namespace, name, deleted_us) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`, d.UID, d.Namespace, d.Name, d.Deleted.UnixMicro())
	}
}

func queueServed(b *pgx.Batch, nodeUID string, served []store.Served) {
	for _, v := range served {
		b.Queue(`INSERT INTO served (device_uid, assignment, node_uid) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, v.DeviceUID, int64(v.Assignment), nodeUID)
	}
}

// Services implements store.Lives.
func (s *Store) Services(ctx context.Context, deviceUID string) ([]store.Service, error) {
	// Of an assignment that is not recorded neither end is known.
	rows, err := s.pool.Query(ctx, `SELECT v.node_uid, a.since_us, (SELECT min(n.since_us) FROM assignments n WHERE n.device_uid = v.device_uid AND n.assignment > v.assignment)
		FROM served v LEFT JOIN assignments a ON a.device_uid = v.device_uid AND a.assignment = v.assignment
		WHERE v.device_uid = $1 ORDER BY v.assignment, v.node_uid`, deviceUID)
	if err != nil {
		return nil, fmt.Errorf("nodes that served device %s: %w", deviceUID, err)
	}
	out, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (v store.Service, err error) {
		var since, till *int64
		err = row.Scan(&v.NodeUID, &since, &till)
		v.Since, v.Till = fromMicros(since), fromMicros(till)
		return v, err
	})
	if err != nil {
		return nil, fmt.Errorf("nodes that served device %s: %w", deviceUID, err)
	}
	return out, nil
}

// Properties implements store.Lives.
func (s *Store) Properties(ctx context.Context, deviceUID string) ([]string, error) {
	rows, err := s.pool.Query(ctx, `SELECT DISTINCT property COLLATE "C" AS p FROM series WHERE device_uid = $1 ORDER BY p`, deviceUID)
	if err != nil {
		return nil, fmt.Errorf("properties of device %s: %w", deviceUID, err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("properties of device %s: %w", deviceUID, err)
	}
	return out, nil
}

// DeletedDevices implements store.Lives.
func (s *Store) DeletedDevices(ctx context.Context, namespace, name string) ([]store.DeletedDevice, error) {
	rows, err := s.pool.Query(ctx, `SELECT uid, namespace, name, deleted_us FROM deleted_devices WHERE namespace = $1 AND name = $2 ORDER BY deleted_us DESC, uid DESC`, namespace, name)
	if err != nil {
		return nil, fmt.Errorf("deleted devices: %w", err)
	}
	out, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (d store.DeletedDevice, err error) {
		var deleted int64
		err = row.Scan(&d.UID, &d.Namespace, &d.Name, &deleted)
		d.Deleted = time.UnixMicro(deleted).UTC()
		return d, err
	})
	if err != nil {
		return nil, fmt.Errorf("deleted devices: %w", err)
	}
	return out, nil
}

// ForgetDeleted implements store.Lives. The series stay: their ids are in the
// memory of who ingests, and a late arrival may yet come.
func (s *Store) ForgetDeleted(ctx context.Context, before time.Time, limit int) (more bool, err error) {
	s.compacting.Lock()
	defer s.compacting.Unlock()
	for more := true; more; {
		if more, err = s.compactArrived(ctx, before); err != nil {
			return false, fmt.Errorf("forget deleted devices: %w", err)
		}
	}
	_, err = s.locked(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `SELECT uid FROM deleted_devices WHERE deleted_us < $1 ORDER BY deleted_us LIMIT $2`, before.UnixMicro(), limit)
		if err != nil {
			return err
		}
		uids, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil || len(uids) == 0 {
			return err
		}
		more = len(uids) == limit
		if err := dropWaiting(ctx, tx, uids); err != nil {
			return err
		}
		for _, query := range []string{
			`DELETE FROM samples_chunk c USING series s WHERE s.device_uid = ANY($1) AND c.series = s.id`,
			`DELETE FROM samples_young c USING series s WHERE s.device_uid = ANY($1) AND c.series = s.id`,
			`DELETE FROM samples_week w USING series s WHERE s.device_uid = ANY($1) AND w.series = s.id`,
			`DELETE FROM writes WHERE device_uid = ANY($1)`,
			`DELETE FROM served WHERE device_uid = ANY($1)`,
			`DELETE FROM assignments WHERE device_uid = ANY($1)`,
			`DELETE FROM deleted_devices WHERE uid = ANY($1)`,
		} {
			if _, err := tx.Exec(ctx, query, uids); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("forget deleted devices: %w", err)
	}
	return more, nil
}
