package postgres

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
)

// auditLock is the advisory lock that makes the order of ids that of commits:
// whoever follows the audit by its ids would miss what is committed late. The
// number means nothing.
const auditLock = 0x77686d617564

func queueAudit(b *pgx.Batch, entries []store.AuditEntry) {
	if len(entries) > 0 {
		b.Queue(`SELECT pg_advisory_xact_lock($1)`, int64(auditLock))
	}
	for _, e := range entries {
		b.Queue(`INSERT INTO audit (time, by_user, action, kind, namespace, name, uid, revision, fields, detail) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
			e.Time, e.By, e.Action, e.Kind, e.Namespace, e.Name, e.UID, e.Revision, e.Fields, e.Detail)
	}
}

// AppendAudit implements store.Audit.
func (s *Store) AppendAudit(ctx context.Context, entries []store.AuditEntry) error {
	if len(entries) == 0 {
		return nil
	}
	b := &pgx.Batch{}
	queueAudit(b, entries)
	if err := s.send(ctx, b); err != nil {
		return fmt.Errorf("append to the audit: %w", err)
	}
	return nil
}

// AuditPage implements store.Audit.
func (s *Store) AuditPage(ctx context.Context, q store.AuditQuery, before int64, limit int) ([]store.AuditEntry, error) {
	if before <= 0 {
		before = math.MaxInt64
	}
	where, args := `id < $1`, []any{before}
	only := func(column, value string) {
		if value != "" {
			args = append(args, value)
			where += fmt.Sprintf(" AND %s = $%d", column, len(args))
		}
	}
	only("by_user", q.By)
	only("action", q.Action)
	only("kind", q.Kind)
	only("namespace", q.Namespace)
	only("name", q.Name)
	only("uid", q.UID)
	if !q.Since.IsZero() {
		args = append(args, q.Since)
		where += fmt.Sprintf(" AND time >= $%d", len(args))
	}
	args = append(args, limit)
	rows, err := s.pool.Query(ctx, `SELECT id, time, by_user, action, kind, namespace, name, uid, revision, fields, detail FROM audit
		WHERE `+where+fmt.Sprintf(` ORDER BY id DESC LIMIT $%d`, len(args)), args...)
	if err != nil {
		return nil, fmt.Errorf("read the audit: %w", err)
	}
	entries, err := pgx.CollectRows(rows, scanAudit)
	if err != nil {
		return nil, fmt.Errorf("read the audit: %w", err)
	}
	return entries, nil
}

func scanAudit(row pgx.CollectableRow) (e store.AuditEntry, err error) {
	var at time.Time
	err = row.Scan(&e.ID, &at, &e.By, &e.Action, &e.Kind, &e.Namespace, &e.Name, &e.UID, &e.Revision, &e.Fields, &e.Detail)
	e.Time = at.UTC()
	return e, err
}

// AuditAfter implements store.Audit.
func (s *Store) AuditAfter(ctx context.Context, after int64, limit int) ([]store.AuditEntry, error) {
	rows, err := s.pool.Query(ctx, `SELECT id, time, by_user, action, kind, namespace, name, uid, revision, fields, detail FROM audit
		WHERE id > $1 ORDER BY id LIMIT $2`, after, limit)
	if err != nil {
		return nil, fmt.Errorf("read the audit after %d: %w", after, err)
	}
	entries, err := pgx.CollectRows(rows, scanAudit)
	if err != nil {
		return nil, fmt.Errorf("read the audit after %d: %w", after, err)
	}
	return entries, nil
}
