package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/whimbrel-edge/whimbrel/devicehub/identity"
	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/models"
)

// Identities returns the stores that package identity asks for.
func (s *Store) Identities() identity.Stores {
	return identity.Stores{Secrets: s, JoinTokens: s, APITokens: s, Users: s, Nodes: s}
}

// binding is an identity.Binding as it is stored.
type binding struct {
	Role      string `json:"role"`
	Namespace string `json:"namespace"`
}

func encodeBindings(bindings []identity.Binding) (string, error) {
	out := make([]binding, len(bindings))
	for i, b := range bindings {
		out[i] = binding{Role: string(b.Role), Namespace: b.Namespace}
	}
	text, err := json.Marshal(out)
	return string(text), err
}

func decodeBindings(text string) ([]identity.Binding, error) {
	var in []binding
	if err := json.Unmarshal([]byte(text), &in); err != nil {
		return nil, err
	}
	var out []identity.Binding
	for _, b := range in {
		out = append(out, identity.Binding{Role: identity.Role(b.Role), Namespace: b.Namespace})
	}
	return out, nil
}

// queueIdentityPut keeps what decides in step with the User and Node objects.
func queueIdentityPut(b *pgx.Batch, o store.Object) {
	switch o.Kind {
	case "User":
		b.Queue(`INSERT INTO users (name, uid, bindings) VALUES ($1, $2, $3::text::json)
			ON CONFLICT (name) DO UPDATE SET uid = excluded.uid, bindings = excluded.bindings`, o.Name, o.UID, bindingsOf(o.JSON))
	case "Node":
		// Under another uid it is another node, and has not joined.
		b.Queue(`INSERT INTO nodes AS old (name, uid, key_current, key_next) VALUES ($1, $2, '', '')
			ON CONFLICT (name) DO UPDATE SET uid = excluded.uid, key_current = '', key_next = '' WHERE old.uid <> excluded.uid`, o.Name, o.UID)
	}
}

func queueIdentityDelete(b *pgx.Batch, o store.Object) {
	switch o.Kind {
	case "User":
		b.Queue(`DELETE FROM users WHERE name = $1 AND uid = $2`, o.Name, o.UID)
	case "Node":
		b.Queue(`DELETE FROM nodes WHERE name = $1 AND uid = $2`, o.Name, o.UID)
	}
}

// bindingsOf reads a User object's role. One that cannot be read may do nothing.
func bindingsOf(object []byte) string {
	var u models.User
	if err := json.Unmarshal(object, &u); err != nil || u.Spec.Role == "" {
		return "[]"
	}
	u.Default()
	text, err := encodeBindings([]identity.Binding{{Role: identity.Role(u.Spec.Role), Namespace: u.Spec.Namespace}})
	if err != nil {
		return "[]"
	}
	return text
}

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

// User implements identity.Users.
func (s *Store) User(ctx context.Context, name string) (identity.User, error) {
	u := identity.User{Name: name}
	var text string
	err := s.pool.QueryRow(ctx, `SELECT uid, bindings FROM users WHERE name = $1`, name).Scan(&u.UID, &text)
	if err == nil {
		u.Bindings, err = decodeBindings(text)
	}
	if err != nil {
		return identity.User{}, fmt.Errorf("user %s: %w", name, orNone(err))
	}
	return u, nil
}

// PutUser implements identity.Users. It does not make the User object.
func (s *Store) PutUser(ctx context.Context, u identity.User) (identity.User, error) {
	text, err := encodeBindings(u.Bindings)
	if err == nil {
		err = s.pool.QueryRow(ctx, `INSERT INTO users (name, uid, bindings) VALUES ($1, $2, $3::text::json)
			ON CONFLICT (name) DO UPDATE SET bindings = excluded.bindings RETURNING uid`, u.Name, newUID(), text).Scan(&u.UID)
	}
	if err != nil {
		return identity.User{}, fmt.Errorf("put user %s: %w", u.Name, err)
	}
	u.Bindings = append([]identity.Binding(nil), u.Bindings...)
	return u, nil
}

// NodeRecord implements identity.Nodes.
func (s *Store) NodeRecord(ctx context.Context, name string) (identity.NodeRecord, error) {
	n := identity.NodeRecord{Name: name}
	err := s.pool.QueryRow(ctx, `SELECT uid, key_current, key_next FROM nodes WHERE name = $1`, name).Scan(&n.UID, &n.Keys.Current, &n.Keys.Next)
	if err != nil {
		return identity.NodeRecord{}, fmt.Errorf("node %s: %w", name, orNone(err))
	}
	return n, nil
}

// EnrollNode implements identity.Nodes. It does not make the Node object.
func (s *Store) EnrollNode(ctx context.Context, name, keyHash string) (identity.NodeRecord, error) {
	n := identity.NodeRecord{Name: name, Keys: identity.NodeKeys{Current: keyHash}}
	err := s.pool.QueryRow(ctx, `INSERT INTO nodes (name, uid, key_current, key_next) VALUES ($1, $2, $3, '')
		ON CONFLICT (name) DO UPDATE SET key_current = excluded.key_current, key_next = '' RETURNING uid`, name, newUID(), keyHash).Scan(&n.UID)
	if err != nil {
		return identity.NodeRecord{}, fmt.Errorf("enroll node %s: %w", name, err)
	}
	return n, nil
}

// SwapNodeKeys implements identity.Nodes.
func (s *Store) SwapNodeKeys(ctx context.Context, was identity.NodeRecord, keys identity.NodeKeys) error {
	tag, err := s.pool.Exec(ctx, `UPDATE nodes SET key_current = $5, key_next = $6
		WHERE name = $1 AND uid = $2 AND key_current = $3 AND key_next = $4`,
		was.Name, was.UID, was.Keys.Current, was.Keys.Next, keys.Current, keys.Next)
	if err == nil && tag.RowsAffected() == 0 {
		err = identity.ErrConflict
		var one int
		if missing := s.pool.QueryRow(ctx, `SELECT 1 FROM nodes WHERE name = $1`, was.Name).Scan(&one); missing != nil {
			err = orNone(missing)
		}
	}
	if err != nil {
		return fmt.Errorf("change keys of node %s: %w", was.Name, err)
	}
	return nil
}
