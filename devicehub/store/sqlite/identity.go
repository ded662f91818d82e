package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/identity"
)

// orNone turns "no rows" into identity's error.
func orNone(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return identity.ErrNotFound
	}
	return err
}

func orExists(err error) error {
	if isUnique(err) {
		return identity.ErrExists
	}
	return err
}

// affect runs a statement that must change one row at least, else it is none.
func (s *Store) affect(ctx context.Context, what string, none error, query string, args ...any) error {
	res, err := s.write.ExecContext(ctx, query, args...)
	if err == nil {
		var n int64
		if n, err = res.RowsAffected(); err == nil && n == 0 {
			err = none
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// Secret implements identity.Secrets.
func (s *Store) Secret(ctx context.Context, key string) (blob []byte, err error) {
	if err := s.read.QueryRowContext(ctx, `SELECT blob FROM secrets WHERE key = ?`, key).Scan(&blob); err != nil {
		return nil, fmt.Errorf("secret %s: %w", key, orNone(err))
	}
	return blob, nil
}

// SwapSecret implements identity.Secrets.
func (s *Store) SwapSecret(ctx context.Context, key string, old, blob []byte) error {
	blob = append([]byte{}, blob...) // nil would be NULL
	if old == nil {
		return s.affect(ctx, "store secret "+key, identity.ErrConflict, `INSERT INTO secrets (key, blob) VALUES (?, ?) ON CONFLICT DO NOTHING`, key, blob)
	}
	return s.affect(ctx, "store secret "+key, identity.ErrConflict, `UPDATE secrets SET blob = ? WHERE key = ? AND blob = ?`, blob, key, old)
}

// CreateJoinToken implements identity.JoinTokens.
func (s *Store) CreateJoinToken(ctx context.Context, t identity.JoinToken) error {
	_, err := s.write.ExecContext(ctx, `INSERT INTO join_tokens (id, hash, node, created_by, created_us, expires_us, used_us, used_key)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?)`, t.ID, t.Hash, t.Node, t.CreatedBy, t.Created.UnixMicro(), t.Expires.UnixMicro(), micros(t.UsedAt), t.UsedKey)
	if err != nil {
		return fmt.Errorf("create join token: %w", orExists(err))
	}
	return nil
}

const joinTokenColumns = `id, hash, node, created_by, created_us, expires_us, used_us, used_key`

func scanJoinToken(row interface{ Scan(...any) error }) (t identity.JoinToken, err error) {
	var created, expires int64
	var used sql.NullInt64
	err = row.Scan(&t.ID, &t.Hash, &t.Node, &t.CreatedBy, &created, &expires, &used, &t.UsedKey)
	t.Created, t.Expires, t.UsedAt = time.UnixMicro(created).UTC(), time.UnixMicro(expires).UTC(), fromMicros(used)
	return t, err
}

// RedeemJoinToken implements identity.JoinTokens.
func (s *Store) RedeemJoinToken(ctx context.Context, r identity.Redemption) (identity.JoinToken, error) {
	var t identity.JoinToken
	var refusal error
	err := s.tx(ctx, func(tx *sql.Tx) (err error) {
		t, err = scanJoinToken(tx.QueryRow(`SELECT `+joinTokenColumns+` FROM join_tokens WHERE hash = ?`, r.Hash))
		switch {
		case errors.Is(err, sql.ErrNoRows):
			refusal = identity.ErrTokenUnknown
			return nil
		case err != nil:
			return err
		case t.Node != r.Node:
			refusal = identity.ErrTokenWrongNode
			return nil
		case !t.UsedAt.IsZero():
			refusal = identity.ErrTokenUsed
			return nil
		case !r.Now.Truncate(time.Microsecond).Before(t.Expires):
			refusal = identity.ErrTokenExpired
			return nil
		}
		t.UsedAt, t.UsedKey = r.Now.Truncate(time.Microsecond), r.KeyHash
		_, err = tx.Exec(`UPDATE join_tokens SET used_us = ?, used_key = ? WHERE id = ?`, micros(t.UsedAt), t.UsedKey, t.ID)
		return err
	})
	switch {
	case err != nil:
		return identity.JoinToken{}, fmt.Errorf("redeem join token: %w", err)
	case refusal != nil && !errors.Is(refusal, identity.ErrTokenUsed):
		return identity.JoinToken{}, refusal
	}
	return t, refusal
}

// JoinTokens implements identity.JoinTokens.
func (s *Store) JoinTokens(ctx context.Context) (tokens []identity.JoinToken, err error) {
	err = each(ctx, s.read, func(rows *sql.Rows) error {
		t, err := scanJoinToken(rows)
		tokens = append(tokens, t)
		return err
	}, `SELECT `+joinTokenColumns+` FROM join_tokens ORDER BY id`)
	if err != nil {
		return nil, fmt.Errorf("list join tokens: %w", err)
	}
	return tokens, nil
}

// DeleteJoinToken implements identity.JoinTokens.
func (s *Store) DeleteJoinToken(ctx context.Context, id string) error {
	return s.affect(ctx, "delete join token "+id, identity.ErrNotFound, `DELETE FROM join_tokens WHERE id = ?`, id)
}

// PruneJoinTokens implements identity.JoinTokens.
func (s *Store) PruneJoinTokens(ctx context.Context, expiredBefore time.Time) (n int64, err error) {
	res, err := s.write.ExecContext(ctx, `DELETE FROM join_tokens WHERE expires_us < ?`, expiredBefore.UnixMicro())
	if err == nil {
		n, err = res.RowsAffected()
	}
	if err != nil {
		return 0, fmt.Errorf("remove old join tokens: %w", err)
	}
	return n, nil
}

// CreateAPIToken implements identity.APITokens.
func (s *Store) CreateAPIToken(ctx context.Context, t identity.APIToken) error {
	_, err := s.write.ExecContext(ctx, `INSERT INTO api_tokens (id, hash, user_name, user_uid, description, created_us, expires_us, last_used_us)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?)`, t.ID, t.Hash, t.User, t.UserUID, t.Description, t.Created.UnixMicro(), micros(t.Expires), micros(t.LastUsed))
	if err != nil {
		return fmt.Errorf("create api token: %w", orExists(err))
	}
	return nil
}

const apiTokenColumns = `id, hash, user_name, user_uid, description, created_us, expires_us, last_used_us`

func scanAPIToken(row interface{ Scan(...any) error }) (t identity.APIToken, err error) {
	var created int64
	var expires, used sql.NullInt64
	err = row.Scan(&t.ID, &t.Hash, &t.User, &t.UserUID, &t.Description, &created, &expires, &used)
	t.Created, t.Expires, t.LastUsed = time.UnixMicro(created).UTC(), fromMicros(expires), fromMicros(used)
	return t, err
}

// APITokenByHash implements identity.APITokens.
func (s *Store) APITokenByHash(ctx context.Context, hash string) (identity.APIToken, error) {
	t, err := scanAPIToken(s.read.QueryRowContext(ctx, `SELECT `+apiTokenColumns+` FROM api_tokens WHERE hash = ?`, hash))
	if err != nil {
		return identity.APIToken{}, fmt.Errorf("find api token: %w", orNone(err))
	}
	return t, nil
}

// APITokens implements identity.APITokens.
func (s *Store) APITokens(ctx context.Context, user string) (tokens []identity.APIToken, err error) {
	err = each(ctx, s.read, func(rows *sql.Rows) error {
		t, err := scanAPIToken(rows)
		tokens = append(tokens, t)
		return err
	}, `SELECT `+apiTokenColumns+` FROM api_tokens WHERE ?1 = '' OR user_name = ?1 ORDER BY id`, user)
	if err != nil {
		return nil, fmt.Errorf("list api tokens: %w", err)
	}
	return tokens, nil
}

// DeleteAPIToken implements identity.APITokens.
func (s *Store) DeleteAPIToken(ctx context.Context, id string) error {
	return s.affect(ctx, "delete api token "+id, identity.ErrNotFound, `DELETE FROM api_tokens WHERE id = ?`, id)
}

// TouchAPIToken implements identity.APITokens.
func (s *Store) TouchAPIToken(ctx context.Context, id string, used time.Time) error {
	return s.affect(ctx, "touch api token "+id, identity.ErrNotFound,
		`UPDATE api_tokens SET last_used_us = max(coalesce(last_used_us, ?1), ?1) WHERE id = ?2`, used.UnixMicro(), id)
}
