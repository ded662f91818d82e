package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
)

// ReserveKey implements store.Idempotency.
func (s *Store) ReserveKey(ctx context.Context, caller, key, fingerprint string, now time.Time, maxAge time.Duration) (store.IdempotentAnswer, error) {
	for {
		tag, err := s.pool.Exec(ctx, `INSERT INTO idempotency AS old (caller, key, fingerprint, status, etag, body, created, keep_until)
			VALUES ($1, $2, $3, 0, '', '', $4, $5)
			ON CONFLICT (caller, key) DO UPDATE SET fingerprint = excluded.fingerprint, status = 0, etag = '', body = '',
				created = excluded.created, keep_until = excluded.keep_until
			WHERE old.created < $6`, caller, []byte(key), fingerprint, now, now.Add(maxAge), now.Add(-maxAge))
		if err != nil {
			return store.IdempotentAnswer{}, fmt.Errorf("reserve key: %w", err)
		}
		if tag.RowsAffected() > 0 {
			return store.IdempotentAnswer{}, s.pruneKeys(ctx, now)
		}
		var a store.IdempotentAnswer
		err = s.pool.QueryRow(ctx, `SELECT fingerprint, status, etag, body FROM idempotency WHERE caller = $1 AND key = $2`,
			caller, []byte(key)).Scan(&a.Fingerprint, &a.Status, &a.Head, &a.Body)
		if errors.Is(err, pgx.ErrNoRows) {
			continue // removed in between: it is free again
		}
		if err != nil {
			return store.IdempotentAnswer{}, fmt.Errorf("reserve key: %w", err)
		}
		return a, store.ErrConflict
	}
}

// pruneKeys removes keys whose time is over, a few for every one that is made,
// so that they do not pile up.
func (s *Store) pruneKeys(ctx context.Context, now time.Time) error {
	_, err := s.pool.Exec(ctx, `DELETE FROM idempotency WHERE (caller, key) IN
		(SELECT caller, key FROM idempotency WHERE keep_until < $1 ORDER BY keep_until LIMIT 10 FOR UPDATE SKIP LOCKED)`, now)
	if err != nil {
		return fmt.Errorf("remove old keys: %w", err)
	}
	return nil
}

// AnswerKey implements store.Idempotency. The fingerprint stays the reserved one.
func (s *Store) AnswerKey(ctx context.Context, caller, key string, a store.IdempotentAnswer) error {
	var err error
	if a.Status == 0 {
		_, err = s.pool.Exec(ctx, `DELETE FROM idempotency WHERE caller = $1 AND key = $2`, caller, []byte(key))
	} else {
		_, err = s.pool.Exec(ctx, `UPDATE idempotency SET status = $3, etag = $4, body = $5 WHERE caller = $1 AND key = $2`,
			caller, []byte(key), a.Status, a.Head, append([]byte{}, a.Body...))
	}
	if err != nil {
		return fmt.Errorf("answer key: %w", err)
	}
	return nil
}
