package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/whimbrel-edge/whimbrel/devicehub/identity"
)

// orNone turns pgx's "no rows" into identity's error.
func orNone(err error) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return identity.ErrNotFound
	}
	return err
}

// Secret implements identity.Secrets.
func (s *Store) Secret(ctx context.Context, key string) (blob []byte, err error) {
	if err := s.pool.QueryRow(ctx, `SELECT blob FROM secrets WHERE key = $1`, key).Scan(&blob); err != nil {
		return nil, fmt.Errorf("secret %s: %w", key, orNone(err))
	}
	return blob, nil
}

// SwapSecret implements identity.Secrets.
func (s *Store) SwapSecret(ctx context.Context, key string, old, blob []byte) error {
	blob = append([]byte{}, blob...) // nil would be NULL
	sql, args := `INSERT INTO secrets (key, blob) VALUES ($1, $2) ON CONFLICT DO NOTHING`, []any{key, blob}
	if old != nil {
		sql, args = `UPDATE secrets SET blob = $2 WHERE key = $1 AND blob = $3`, append(args, old)
	}
	tag, err := s.pool.Exec(ctx, sql, args...)
	if err == nil && tag.RowsAffected() == 0 {
		err = identity.ErrConflict
	}
	if err != nil {
		return fmt.Errorf("store secret %s: %w", key, err)
	}
	return nil
}

// CreateJoinToken implements identity.JoinTokens.
func (s *Store) CreateJoinToken(ctx context.Context, t identity.JoinToken) error {
	_, err := s.pool.Exec(ctx, `INSERT INTO join_tokens (id, hash, node, created_by, created, expires, used_at, used_key)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`, t.ID, t.Hash, t.Node, t.CreatedBy, t.Created, t.Expires, stamp(t.UsedAt), t.UsedKey)
	if err != nil {
		return fmt.Errorf("create join token: %w", orExists(err))
	}
	return nil
}

func orExists(err error) error {
	if code(err) == codeUnique {
		return identity.ErrExists
	}
	return err
}

// stamp is a time that may be unknown, NULL then.
func stamp(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func fromStamp(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

const joinTokenColumns = `id, hash, node, created_by, created, expires, used_at, used_key`

func scanJoinToken(row pgx.CollectableRow) (t identity.JoinToken, err error) {
	var used *time.Time
	err = row.Scan(&t.ID, &t.Hash, &t.Node, &t.CreatedBy, &t.Created, &t.Expires, &used, &t.UsedKey)
	t.UsedAt = fromStamp(used)
	return t, err
}

// RedeemJoinToken implements identity.JoinTokens.
func (s *Store) RedeemJoinToken(ctx context.Context, r identity.Redemption) (identity.JoinToken, error) {
	for {
		rows, err := s.pool.Query(ctx, `UPDATE join_tokens SET used_at = $3, used_key = $4
			WHERE hash = $1 AND node = $2 AND used_at IS NULL AND expires > $3 RETURNING `+joinTokenColumns, r.Hash, r.Node, r.Now, r.KeyHash)
		if err != nil {
			return identity.JoinToken{}, fmt.Errorf("redeem join token: %w", err)
		}
		t, err := pgx.CollectExactlyOneRow(rows, scanJoinToken)
		if err == nil {
			return t, nil
		}
		if !errors.Is(err, pgx.ErrNoRows) {
			return identity.JoinToken{}, fmt.Errorf("redeem join token: %w", err)
		}
		if rows, err = s.pool.Query(ctx, `SELECT `+joinTokenColumns+` FROM join_tokens WHERE hash = $1`, r.Hash); err != nil {
			return identity.JoinToken{}, fmt.Errorf("redeem join token: %w", err)
		}
		t, err = pgx.CollectExactlyOneRow(rows, scanJoinToken)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return identity.JoinToken{}, identity.ErrTokenUnknown
		case err != nil:
			return identity.JoinToken{}, fmt.Errorf("redeem join token: %w", err)
		case t.Node != r.Node:
			return identity.JoinToken{}, identity.ErrTokenWrongNode
		case !t.UsedAt.IsZero():
			return t, identity.ErrTokenUsed
		case !r.Now.Truncate(time.Microsecond).Before(t.Expires):
			return identity.JoinToken{}, identity.ErrTokenExpired
		}
		// It was made between the two statements: once more.
	}
}

// JoinTokens implements identity.JoinTokens.
func (s *Store) JoinTokens(ctx context.Context) ([]identity.JoinToken, error) {
	rows, err := s.pool.Query(ctx, `SELECT `+joinTokenColumns+` FROM join_tokens ORDER BY id COLLATE "C"`)
	if err != nil {
		return nil, fmt.Errorf("list join tokens: %w", err)
	}
	tokens, err := pgx.CollectRows(rows, scanJoinToken)
	if err != nil {
		return nil, fmt.Errorf("list join tokens: %w", err)
	}
	return tokens, nil
}

// affect runs a statement that must change one row at least.
func (s *Store) affect(ctx context.Context, what, sql string, args ...any) error {
	tag, err := s.pool.Exec(ctx, sql, args...)
	if err == nil && tag.RowsAffected() == 0 {
		err = identity.ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// DeleteJoinToken implements identity.JoinTokens.
func (s *Store) DeleteJoinToken(ctx context.Context, id string) error {
	return s.affect(ctx, "delete join token "+id, `DELETE FROM join_tokens WHERE id = $1`, id)
}

// PruneJoinTokens implements identity.JoinTokens.
func (s *Store) PruneJoinTokens(ctx context.Context, expiredBefore time.Time) (int64, error) {
	tag, err := s.pool.Exec(ctx, `DELETE FROM join_tokens WHERE expires < $1`, expiredBefore)
	if err != nil {
		return 0, fmt.Errorf("remove old join tokens: %w", err)
	}
	return tag.RowsAffected(), nil
}

// CreateAPIToken implements identity.APITokens.
func (s *Store) CreateAPIToken(ctx context.Context, t identity.APIToken) error {
	_, err := s.pool.Exec(ctx, `INSERT INTO api_tokens (id, hash, user_name, user_uid, description, created, expires, last_used)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`, t.ID, t.Hash, t.User, t.UserUID, t.Description, t.Created, stamp(t.Expires), stamp(t.LastUsed))
	if err != nil {
		return fmt.Errorf("create api token: %w", orExists(err))
	}
	return nil
}

const apiTokenColumns = `id, hash, user_name, user_uid, description, created, expires, last_used`

func scanAPIToken(row pgx.CollectableRow) (t identity.APIToken, err error) {
	var expires, used *time.Time
	err = row.Scan(&t.ID, &t.Hash, &t.User, &t.UserUID, &t.Description, &t.Created, &expires, &used)
	t.Expires, t.LastUsed = fromStamp(expires), fromStamp(used)
	return t, err
}

// APITokenByHash implements identity.APITokens.
func (s *Store) APITokenByHash(ctx context.Context, hash string) (identity.APIToken, error) {
	rows, err := s.pool.Query(ctx, `SELECT `+apiTokenColumns+` FROM api_tokens WHERE hash = $1`, hash)
	if err != nil {
		return identity.APIToken{}, fmt.Errorf("find api token: %w", err)
	}
	t, err := pgx.CollectExactlyOneRow(rows, scanAPIToken)
	if err != nil {
		return identity.APIToken{}, fmt.Errorf("find api token: %w", orNone(err))
	}
	return t, nil
}

// APITokens implements identity.APITokens.
func (s *Store) APITokens(ctx context.Context, user string) ([]identity.APIToken, error) {
	rows, err := s.pool.Query(ctx, `SELECT `+apiTokenColumns+` FROM api_tokens WHERE $1 = '' OR user_name = $1 ORDER BY id COLLATE "C"`, user)
	if err != nil {
		return nil, fmt.Errorf("list api tokens: %w", err)
	}
	tokens, err := pgx.CollectRows(rows, scanAPIToken)
	if err != nil {
		return nil, fmt.Errorf("list api tokens: %w", err)
	}
	return tokens, nil
}

// DeleteAPIToken implements identity.APITokens.
func (s *Store) DeleteAPIToken(ctx context.Context, id string) error {
	return s.affect(ctx, "delete api token "+id, `DELETE FROM api_tokens WHERE id = $1`, id)
}

// TouchAPIToken implements identity.APITokens.
func (s *Store) TouchAPIToken(ctx context.Context, id string, used time.Time) error {
	return s.affect(ctx, "touch api token "+id, `UPDATE api_tokens SET last_used = greatest(last_used, $2) WHERE id = $1`, id, used)
}
