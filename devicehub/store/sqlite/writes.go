package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
)

const writeColumns = `id, device_uid, property, value, version, by_user, origin, reason, trace, before, asked_us, since_us, until_us, expires_us,
	sent_us, confirmed_us, ended_us, state, error, superseded_by, refused, late, settled`

// changeWrites changes the ledger by the rules of package store.
func changeWrites(tx *sql.Tx, writes []store.Write, ends []store.WriteEnd, outcomes []store.WriteOutcome) error {
	for _, w := range writes {
		have, err := getWrite(tx, w.ID)
		if errors.Is(err, sql.ErrNoRows) {
			have, err = w, nil
		} else {
			have.Fill(w)
		}
		if err == nil {
			err = putWrite(tx, have)
		}
		if err != nil {
			return err
		}
	}
	change := func(id string, f func(*store.Write)) error {
		w, err := getWrite(tx, id)
		if errors.Is(err, sql.ErrNoRows) {
			return nil // of before there was a ledger, or trimmed
		}
		if err != nil {
			return err
		}
		f(&w)
		return putWrite(tx, w)
	}
	for _, e := range ends {
		if err := change(e.ID, func(w *store.Write) { w.End(e) }); err != nil {
			return err
		}
	}
	for _, o := range outcomes {
		if err := change(o.ID, func(w *store.Write) { w.Settle(o) }); err != nil {
			return err
		}
	}
	return nil
}

func getWrite(tx *sql.Tx, id string) (store.Write, error) {
	return scanWrite(tx.QueryRow(`SELECT `+writeColumns+` FROM writes WHERE id = ?`, id))
}

func putWrite(tx *sql.Tx, w store.Write) error {
	_, err := tx.Exec(`INSERT OR REPLACE INTO writes (`+writeColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		w.ID, w.DeviceUID, w.Property, w.Value, w.Version, w.By, w.Origin, w.Reason, w.Trace, w.Before, w.Asked.UnixMicro(),
		micros(w.Since), micros(w.Until), micros(w.Expires), micros(w.Sent), micros(w.Confirmed), micros(w.Ended), w.State, w.Error,
		w.SupersededBy, w.Refused, w.Late, int64(w.Settled))
	return err
}

func scanWrite(row interface{ Scan(...any) error }) (w store.Write, err error) {
	var asked, settled int64
	var since, until, expires, sent, confirmed, ended sql.NullInt64
	err = row.Scan(&w.ID, &w.DeviceUID, &w.Property, &w.Value, &w.Version, &w.By, &w.Origin, &w.Reason, &w.Trace, &w.Before, &asked, &since, &until, &expires,
		&sent, &confirmed, &ended, &w.State, &w.Error, &w.SupersededBy, &w.Refused, &w.Late, &settled)
	w.Asked, w.Since, w.Until, w.Expires = time.UnixMicro(asked).UTC(), fromMicros(since), fromMicros(until), fromMicros(expires)
	w.Sent, w.Confirmed, w.Ended, w.Settled = fromMicros(sent), fromMicros(confirmed), fromMicros(ended), store.Settled(settled)
	return w, err
}

func (s *Store) readWrites(ctx context.Context, query string, args ...any) (writes []store.Write, err error) {
	err = each(ctx, s.read, func(rows *sql.Rows) error {
		w, err := scanWrite(rows)
		writes = append(writes, w)
		return err
	}, `SELECT `+writeColumns+` FROM writes WHERE `+query, args...)
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
		w.add("id < ?", q.Before)
	}
	return s.readWrites(ctx, w.String()+` ORDER BY id DESC LIMIT ?`, append(w.args, q.Limit)...)
}

// DesiredAt implements store.Writes.
func (s *Store) DesiredAt(ctx context.Context, deviceUID string, at time.Time) ([]store.Write, error) {
	return s.readWrites(ctx, `device_uid = ?1 AND since_us <= ?2 AND (until_us IS NULL OR until_us > ?2) ORDER BY property, version`, deviceUID, at.UnixMicro())
}

// TrimWrites implements store.Writes.
func (s *Store) TrimWrites(ctx context.Context, b store.WriteBounds) error {
	if err := s.tx(ctx, func(tx *sql.Tx) error {
		if _, err := tx.Exec(`DELETE FROM writes WHERE asked_us < ?1 AND (ended_us IS NULL OR ended_us < ?1) AND (since_us IS NULL OR until_us < ?1)`, b.Before.UnixMicro()); err != nil {
			return err
		}
		_, err := tx.Exec(`DELETE FROM writes WHERE (since_us IS NULL OR until_us IS NOT NULL) AND id IN (SELECT id FROM (
				SELECT id, row_number() OVER (PARTITION BY device_uid, property ORDER BY id DESC) AS n FROM writes
			) WHERE n > ?)`, b.PerProperty)
		return err
	}); err != nil {
		return fmt.Errorf("trim writes: %w", err)
	}
	return nil
}

func insertLives(tx *sql.Tx, assigned []store.Assignment, gone []store.DeletedDevice) error {
	for _, a := range assigned {
		if _, err := tx.Exec(`INSERT OR IGNORE INTO assignments (device_uid, assignment, since_us) VALUES (?, ?, ?)`, a.DeviceUID, int64(a.Assignment), a.Since.UnixMicro()); err != nil {
			return err
		}
	}
	for _, d := range gone {
		if _, err := tx.Exec(`INSERT OR IGNORE INTO deleted_devices (uid, namespace, name, deleted_us) VALUES (?, ?, ?, ?)`, d.UID, d.Namespace, d.Name, d.Deleted.UnixMicro()); err != nil {
			return err
		}
	}
	return nil
}

func insertServed(tx *sql.Tx, nodeUID string, served []store.Served) error {
	for _, v := range served {
		if _, err := tx.Exec(`INSERT OR IGNORE INTO served (device_uid, assignment, node_uid) VALUES (?, ?, ?)`, v.DeviceUID, int64(v.Assignment), nodeUID); err != nil {
			return err
		}
	}
	return nil
}

// Services implements store.Lives.
func (s *Store) Services(ctx context.Context, deviceUID string) (out []store.Service, err error) {
	// Of an assignment that is not recorded neither end is known.
	err = each(ctx, s.read, func(rows *sql.Rows) error {
		var v store.Service
		var since, till sql.NullInt64
		err := rows.Scan(&v.NodeUID, &since, &till)
		v.Since, v.Till = fromMicros(since), fromMicros(till)
		out = append(out, v)
		return err
	}, `SELECT v.node_uid, a.since_us, (SELECT min(n.since_us) FROM assignments n WHERE n.device_uid = v.device_uid AND n.assignment > v.assignment)
		FROM served v LEFT JOIN assignments a ON a.device_uid = v.device_uid AND a.assignment = v.assignment
		WHERE v.device_uid = ? ORDER BY v.assignment, v.node_uid`, deviceUID)
	if err != nil {
		return nil, fmt.Errorf("nodes that served device %s: %w", deviceUID, err)
	}
	return out, nil
}

// Properties implements store.Lives.
func (s *Store) Properties(ctx context.Context, deviceUID string) (out []string, err error) {
	err = each(ctx, s.read, func(rows *sql.Rows) error {
		var p string
		err := rows.Scan(&p)
		out = append(out, p)
		return err
	}, `SELECT DISTINCT property FROM series WHERE device_uid = ? ORDER BY property`, deviceUID)
	if err != nil {
		return nil, fmt.Errorf("properties of device %s: %w", deviceUID, err)
	}
	return out, nil
}

// DeletedDevices implements store.Lives.
func (s *Store) DeletedDevices(ctx context.Context, namespace, name string) (out []store.DeletedDevice, err error) {
	err = each(ctx, s.read, func(rows *sql.Rows) error {
		var d store.DeletedDevice
		var deleted int64
		err := rows.Scan(&d.UID, &d.Namespace, &d.Name, &deleted)
		d.Deleted = time.UnixMicro(deleted).UTC()
		out = append(out, d)
		return err
	}, `SELECT uid, namespace, name, deleted_us FROM deleted_devices WHERE namespace = ? AND name = ? ORDER BY deleted_us DESC, uid DESC`, namespace, name)
	if err != nil {
		return nil, fmt.Errorf("deleted devices: %w", err)
	}
	return out, nil
}

// ForgetDeleted implements store.Lives. The series stay: their ids are in the
// memory of who ingests, and a late arrival may yet come.
func (s *Store) ForgetDeleted(ctx context.Context, before time.Time, limit int) (more bool, err error) {
	var uids []string
	if err := each(ctx, s.read, func(rows *sql.Rows) error {
		var uid string
		err := rows.Scan(&uid)
		uids = append(uids, uid)
		return err
	}, `SELECT uid FROM deleted_devices WHERE deleted_us < ? ORDER BY deleted_us LIMIT ?`, before.UnixMicro(), limit); err != nil {
		return false, fmt.Errorf("forget deleted devices: %w", err)
	}
	for _, uid := range uids {
		if err := s.tx(ctx, func(tx *sql.Tx) error {
			for _, query := range []string{
				`DELETE FROM rollups WHERE series IN (SELECT id FROM series WHERE device_uid = ?)`,
				`DELETE FROM samples WHERE series IN (SELECT id FROM series WHERE device_uid = ?)`,
				`DELETE FROM writes WHERE device_uid = ?`,
				`DELETE FROM served WHERE device_uid = ?`,
				`DELETE FROM assignments WHERE device_uid = ?`,
				`DELETE FROM deleted_devices WHERE uid = ?`,
			} {
				if _, err := tx.Exec(query, uid); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return false, fmt.Errorf("forget deleted device %s: %w", uid, err)
		}
	}
	return len(uids) == limit, nil
}
