package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
)

// ReserveKey implements store.Idempotency.
func (s *Store) ReserveKey(ctx context.Context, caller, key, fingerprint string, now time.Time, maxAge time.Duration) (store.IdempotentAnswer, error) {
	var a store.IdempotentAnswer
	err := s.tx(ctx, func(tx *sql.Tx) error {
		var created int64
		err := tx.QueryRow(`SELECT fingerprint, status, etag, body, created_us FROM idempotency WHERE caller = ? AND key = ?`,
			caller, []byte(key)).Scan(&a.Fingerprint, &a.Status, &a.Head, &a.Body, &created)
		if err == nil && created >= now.Add(-maxAge).UnixMicro() {
			return store.ErrConflict
		}
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		a = store.IdempotentAnswer{}
		if _, err := tx.Exec(`INSERT OR REPLACE INTO idempotency (caller, key, fingerprint, status, etag, body, created_us, keep_until_us)
			VALUES (?, ?, ?, 0, '', x'', ?, ?)`, caller, []byte(key), fingerprint, now.UnixMicro(), now.Add(maxAge).UnixMicro()); err != nil {
			return err
		}
		// A few old ones go for every one that is made, so that they do not pile up.
		_, err = tx.Exec(`DELETE FROM idempotency WHERE rowid IN
			(SELECT rowid FROM idempotency WHERE keep_until_us < ? ORDER BY keep_until_us LIMIT 10)`, now.UnixMicro())
		return err
	})
	if err != nil && !errors.Is(err, store.ErrConflict) {
		return store.IdempotentAnswer{}, fmt.Errorf("reserve key: %w", err)
	}
	return a, err
}

// AnswerKey implements store.Idempotency. The fingerprint stays the reserved one.
func (s *Store) AnswerKey(ctx context.Context, caller, key string, a store.IdempotentAnswer) error {
	var err error
	if a.Status == 0 {
		_, err = s.write.ExecContext(ctx, `DELETE FROM idempotency WHERE caller = ? AND key = ?`, caller, []byte(key))
	} else {
		_, err = s.write.ExecContext(ctx, `UPDATE idempotency SET status = ?, etag = ?, body = ? WHERE caller = ? AND key = ?`,
			a.Status, a.Head, append([]byte{}, a.Body...), caller, []byte(key))
	}
	if err != nil {
		return fmt.Errorf("answer key: %w", err)
	}
	return nil
}
