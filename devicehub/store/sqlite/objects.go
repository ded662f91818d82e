package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
)

// Load implements store.Objects.
func (s *Store) Load(ctx context.Context, object func(store.Object) error, desired func(store.Desired) error) (revision int64, err error) {
	// One transaction, so that all is of one moment.
	tx, err := s.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return 0, fmt.Errorf("load objects: %w", err)
	}
	defer tx.Rollback() // nothing was written
	if err := tx.QueryRowContext(ctx, `SELECT revision FROM hub`).Scan(&revision); err != nil {
		return 0, fmt.Errorf("load objects: %w", err)
	}
	err = each(ctx, tx, func(rows *sql.Rows) error {
		var o store.Object
		var created int64
		if err := rows.Scan(&o.Kind, &o.Namespace, &o.Name, &o.UID, &o.Revision, &o.Generation, &o.Assignment, &created, &o.JSON); err != nil {
			return err
		}
		o.Created = time.UnixMicro(created).UTC()
		return object(o)
	}, `SELECT kind, namespace, name, uid, revision, generation, assignment, created_us, json FROM objects`)
	if err != nil {
		return 0, fmt.Errorf("load objects: %w", err)
	}
	err = each(ctx, tx, func(rows *sql.Rows) error {
		var d store.Desired
		if err := rows.Scan(&d.DeviceUID, &d.Revision, &d.JSON); err != nil {
			return err
		}
		return desired(d)
	}, `SELECT device_uid, revision, json FROM desired`)
	if err != nil {
		return 0, fmt.Errorf("load desired values: %w", err)
	}
	return revision, nil
}

// Commit implements store.Objects. What is put comes first and what is deleted
// goes by its uid, so a group may replace an object by one of the same name.
func (s *Store) Commit(ctx context.Context, c store.Commit) error {
	err := s.tx(ctx, func(tx *sql.Tx) error {
		res, err := tx.Exec(`UPDATE hub SET revision = ?1 WHERE revision < ?1`, c.Revision)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return orConflict(err)
		}
		for _, o := range c.Put {
			if _, err := tx.Exec(`INSERT INTO objects (kind, namespace, name, uid, revision, generation, assignment, created_us, json)
				VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
				ON CONFLICT (kind, namespace, name) DO UPDATE SET uid = excluded.uid, revision = excluded.revision,
					generation = excluded.generation, assignment = excluded.assignment, created_us = excluded.created_us, json = excluded.json`,
				o.Kind, o.Namespace, o.Name, o.UID, o.Revision, o.Generation, o.Assignment, o.Created.UnixMicro(), string(o.JSON)); err != nil {
				return err
			}
		}
		for _, o := range c.Delete {
			if _, err := tx.Exec(`DELETE FROM objects WHERE kind = ? AND namespace = ? AND name = ? AND uid = ?`, o.Kind, o.Namespace, o.Name, o.UID); err != nil {
				return err
			}
		}
		for _, d := range c.PutDesired {
			if _, err := tx.Exec(`INSERT INTO desired (device_uid, revision, json) VALUES (?, ?, ?)
				ON CONFLICT (device_uid) DO UPDATE SET revision = excluded.revision, json = excluded.json`, d.DeviceUID, d.Revision, string(d.JSON)); err != nil {
				return err
			}
		}
		for _, uid := range c.DeletedDevices {
			for _, table := range []string{"desired", "twins"} {
				if _, err := tx.Exec(`DELETE FROM `+table+` WHERE device_uid = ?`, uid); err != nil {
					return err
				}
			}
		}
		if err := changeWrites(tx, c.Writes, c.WriteEnds, nil); err != nil {
			return err
		}
		if err := insertLives(tx, c.Assigned, c.Gone); err != nil {
			return err
		}
		if err := insertAudit(tx, c.Audit); err != nil {
			return err
		}
		return insertEvents(tx, c.Events)
	})
	if err != nil {
		return fmt.Errorf("commit revision %d: %w", c.Revision, err)
	}
	return nil
}

func orConflict(err error) error {
	if err == nil {
		return store.ErrConflict
	}
	return err
}

// LoadTwins implements store.Twins.
func (s *Store) LoadTwins(ctx context.Context, f func(store.Checkpoint) error) error {
	err := each(ctx, s.read, func(rows *sql.Rows) error {
		var c store.Checkpoint
		if err := rows.Scan(&c.DeviceUID, &c.JSON); err != nil {
			return err
		}
		return f(c)
	}, `SELECT device_uid, json FROM twins`)
	if err != nil {
		return fmt.Errorf("load twins: %w", err)
	}
	return nil
}

// SaveTwins implements store.Twins.
func (s *Store) SaveTwins(ctx context.Context, c []store.Checkpoint) error {
	if len(c) == 0 {
		return nil
	}
	err := s.tx(ctx, func(tx *sql.Tx) error {
		put, err := tx.Prepare(`INSERT INTO twins (device_uid, json) VALUES (?, ?) ON CONFLICT (device_uid) DO UPDATE SET json = excluded.json`)
		if err != nil {
			return err
		}
		defer put.Close() // the transaction closes it anyway
		for i := range c {
			if _, err := put.Exec(c[i].DeviceUID, string(c[i].JSON)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("save %d twins: %w", len(c), err)
	}
	return nil
}
