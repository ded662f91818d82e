package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
)

func insertAudit(tx *sql.Tx, entries []store.AuditEntry) error {
	for _, e := range entries {
		if _, err := tx.Exec(`INSERT INTO audit (time_us, by_user, action, kind, namespace, name, uid, revision, fields, detail) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			e.Time.UnixMicro(), e.By, e.Action, e.Kind, e.Namespace, e.Name, e.UID, e.Revision, e.Fields, e.Detail); err != nil {
			return err
		}
	}
	return nil
}

// AppendAudit implements store.Audit.
func (s *Store) AppendAudit(ctx context.Context, entries []store.AuditEntry) error {
	if len(entries) == 0 {
		return nil
	}
	if err := s.tx(ctx, func(tx *sql.Tx) error { return insertAudit(tx, entries) }); err != nil {
		return fmt.Errorf("append to the audit: %w", err)
	}
	return nil
}

// AuditPage implements store.Audit.
func (s *Store) AuditPage(ctx context.Context, q store.AuditQuery, before int64, limit int) ([]store.AuditEntry, error) {
	if before <= 0 {
		before = math.MaxInt64
	}
	where, args := `id < ?`, []any{before}
	for _, only := range [][2]string{{"by_user", q.By}, {"action", q.Action}, {"kind", q.Kind}, {"namespace", q.Namespace}, {"name", q.Name}, {"uid", q.UID}} {
		if only[1] != "" {
			where, args = where+" AND "+only[0]+" = ?", append(args, only[1])
		}
	}
	if !q.Since.IsZero() {
		where, args = where+" AND time_us >= ?", append(args, q.Since.UnixMicro())
	}
	return s.readAudit(ctx, where+` ORDER BY id DESC LIMIT ?`, append(args, limit)...)
}

// AuditAfter implements store.Audit.
func (s *Store) AuditAfter(ctx context.Context, after int64, limit int) ([]store.AuditEntry, error) {
	return s.readAudit(ctx, `id > ? ORDER BY id LIMIT ?`, after, limit)
}

func (s *Store) readAudit(ctx context.Context, query string, args ...any) (entries []store.AuditEntry, err error) {
	err = each(ctx, s.read, func(rows *sql.Rows) error {
		var e store.AuditEntry
		var at int64
		if err := rows.Scan(&e.ID, &at, &e.By, &e.Action, &e.Kind, &e.Namespace, &e.Name, &e.UID, &e.Revision, &e.Fields, &e.Detail); err != nil {
			return err
		}
		e.Time = time.UnixMicro(at).UTC()
		entries = append(entries, e)
		return nil
	}, `SELECT id, time_us, by_user, action, kind, namespace, name, uid, revision, fields, detail FROM audit WHERE `+query, args...)
	if err != nil {
		return nil, fmt.Errorf("read the audit: %w", err)
	}
	return entries, nil
}
