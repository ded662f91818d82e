package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

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

// putIdentity keeps what decides in step with the User and Node objects.
func putIdentity(tx *sql.Tx, o store.Object) (err error) {
	switch o.Kind {
	case "User":
		_, err = tx.Exec(`INSERT INTO users (name, uid, bindings) VALUES (?, ?, ?)
			ON CONFLICT (name) DO UPDATE SET uid = excluded.uid, bindings = excluded.bindings`, o.Name, o.UID, bindingsOf(o.JSON))
	case "Node":
		// Under another uid it is another node, and has not joined.
		_, err = tx.Exec(`INSERT INTO nodes (name, uid, key_current, key_next) VALUES (?, ?, '', '')
			ON CONFLICT (name) DO UPDATE SET uid = excluded.uid, key_current = '', key_next = '' WHERE nodes.uid <> excluded.uid`, o.Name, o.UID)
	}
	return err
}

func deleteIdentity(tx *sql.Tx, o store.Object) (err error) {
	switch o.Kind {
	case "User":
		_, err = tx.Exec(`DELETE FROM users WHERE name = ? AND uid = ?`, o.Name, o.UID)
	case "Node":
		_, err = tx.Exec(`DELETE FROM nodes WHERE name = ? AND uid = ?`, o.Name, o.UID)
	}
	return err
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

// User implements identity.Users.
func (s *Store) User(ctx context.Context, name string) (identity.User, error) {
	u := identity.User{Name: name}
	var text string
	err := s.read.QueryRowContext(ctx, `SELECT uid, bindings FROM users WHERE name = ?`, name).Scan(&u.UID, &text)
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
		err = s.tx(ctx, func(tx *sql.Tx) error {
			return tx.QueryRow(`INSERT INTO users (name, uid, bindings) VALUES (?, ?, ?)
				ON CONFLICT (name) DO UPDATE SET bindings = excluded.bindings RETURNING uid`, u.Name, newUID(), text).Scan(&u.UID)
		})
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
	err := s.read.QueryRowContext(ctx, `SELECT uid, key_current, key_next FROM nodes WHERE name = ?`, name).Scan(&n.UID, &n.Keys.Current, &n.Keys.Next)
	if err != nil {
		return identity.NodeRecord{}, fmt.Errorf("node %s: %w", name, orNone(err))
	}
	return n, nil
}

// EnrollNode implements identity.Nodes. It does not make the Node object.
func (s *Store) EnrollNode(ctx context.Context, name, keyHash string) (identity.NodeRecord, error) {
	n := identity.NodeRecord{Name: name, Keys: identity.NodeKeys{Current: keyHash}}
	err := s.tx(ctx, func(tx *sql.Tx) error {
		return tx.QueryRow(`INSERT INTO nodes (name, uid, key_current, key_next) VALUES (?, ?, ?, '')
			ON CONFLICT (name) DO UPDATE SET key_current = excluded.key_current, key_next = '' RETURNING uid`, name, newUID(), keyHash).Scan(&n.UID)
	})
	if err != nil {
		return identity.NodeRecord{}, fmt.Errorf("enroll node %s: %w", name, err)
	}
	return n, nil
}

// SwapNodeKeys implements identity.Nodes.
func (s *Store) SwapNodeKeys(ctx context.Context, was identity.NodeRecord, keys identity.NodeKeys) error {
	err := s.tx(ctx, func(tx *sql.Tx) error {
		n := identity.NodeRecord{Name: was.Name}
		err := tx.QueryRow(`SELECT uid, key_current, key_next FROM nodes WHERE name = ?`, was.Name).Scan(&n.UID, &n.Keys.Current, &n.Keys.Next)
		if err != nil {
			return orNone(err)
		}
		if n != was {
			return identity.ErrConflict
		}
		_, err = tx.Exec(`UPDATE nodes SET key_current = ?, key_next = ? WHERE name = ?`, keys.Current, keys.Next, was.Name)
		return err
	})
	if err != nil {
		return fmt.Errorf("change keys of node %s: %w", was.Name, err)
	}
	return nil
}
