package identitytest

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/identity"
)

// Memory keeps everything in maps. It is for tests; it forgets when dropped.
type Memory struct {
	mu         sync.Mutex
	uids       int
	secrets    map[string][]byte
	joinTokens map[string]identity.JoinToken // by hash
	apiTokens  map[string]identity.APIToken  // by hash
	users      map[string]identity.User      // by name
	nodes      map[string]identity.NodeRecord
	fail       error
}

var (
	_ identity.Secrets    = (*Memory)(nil)
	_ identity.JoinTokens = (*Memory)(nil)
	_ identity.APITokens  = (*Memory)(nil)
	_ identity.Users      = (*Memory)(nil)
	_ identity.Nodes      = (*Memory)(nil)
)

// NewMemory returns an empty store.
func NewMemory() *Memory {
	return &Memory{
		secrets:    map[string][]byte{},
		joinTokens: map[string]identity.JoinToken{},
		apiTokens:  map[string]identity.APIToken{},
		users:      map[string]identity.User{},
		nodes:      map[string]identity.NodeRecord{},
	}
}

// Stores returns m in every role.
func (m *Memory) Stores() identity.Stores {
	return identity.Stores{Secrets: m, JoinTokens: m, APITokens: m, Users: m, Nodes: m}
}

// Fail makes every call return err from now on, until it is called with nil.
func (m *Memory) Fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = err
}

// DeleteNode does what deleting the Node object does.
func (m *Memory) DeleteNode(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.nodes, name)
}

// DeleteUser does what deleting the User object does.
func (m *Memory) DeleteUser(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.users, name)
}

// begin locks m and says whether the call may go on; unlock in any case.
func (m *Memory) begin(ctx context.Context) (unlock func(), err error) {
	m.mu.Lock()
	if m.fail != nil {
		return m.mu.Unlock, m.fail
	}
	return m.mu.Unlock, ctx.Err()
}

func (m *Memory) newUIDLocked() string {
	m.uids++
	return fmt.Sprintf("uid-%d", m.uids)
}

// Secret implements identity.Secrets.
func (m *Memory) Secret(ctx context.Context, key string) ([]byte, error) {
	unlock, err := m.begin(ctx)
	defer unlock()
	if err != nil {
		return nil, err
	}
	blob, ok := m.secrets[key]
	if !ok {
		return nil, identity.ErrNotFound
	}
	return slices.Clone(blob), nil
}

// SwapSecret implements identity.Secrets.
func (m *Memory) SwapSecret(ctx context.Context, key string, old, blob []byte) error {
	unlock, err := m.begin(ctx)
	defer unlock()
	if err != nil {
		return err
	}
	have, ok := m.secrets[key]
	if ok != (old != nil) || !bytes.Equal(have, old) {
		return identity.ErrConflict
	}
	m.secrets[key] = append([]byte{}, blob...)
	return nil
}

// CreateJoinToken implements identity.JoinTokens.
func (m *Memory) CreateJoinToken(ctx context.Context, t identity.JoinToken) error {
	unlock, err := m.begin(ctx)
	defer unlock()
	if err != nil {
		return err
	}
	for _, have := range m.joinTokens {
		if have.ID == t.ID || have.Hash == t.Hash {
			return identity.ErrExists
		}
	}
	m.joinTokens[t.Hash] = t
	return nil
}

// RedeemJoinToken implements identity.JoinTokens.
func (m *Memory) RedeemJoinToken(ctx context.Context, r identity.Redemption) (identity.JoinToken, error) {
	unlock, err := m.begin(ctx)
	defer unlock()
	if err != nil {
		return identity.JoinToken{}, err
	}
	t, ok := m.joinTokens[r.Hash]
	switch {
	case !ok:
		return identity.JoinToken{}, identity.ErrTokenUnknown
	case t.Node != r.Node:
		return identity.JoinToken{}, identity.ErrTokenWrongNode
	case !t.UsedAt.IsZero():
		return t, identity.ErrTokenUsed
	case !r.Now.Before(t.Expires):
		return identity.JoinToken{}, identity.ErrTokenExpired
	}
	t.UsedAt, t.UsedKey = r.Now, r.KeyHash
	m.joinTokens[r.Hash] = t
	return t, nil
}

// JoinTokens implements identity.JoinTokens.
func (m *Memory) JoinTokens(ctx context.Context) ([]identity.JoinToken, error) {
	unlock, err := m.begin(ctx)
	defer unlock()
	if err != nil {
		return nil, err
	}
	var list []identity.JoinToken
	for _, t := range m.joinTokens {
		list = append(list, t)
	}
	slices.SortFunc(list, func(a, b identity.JoinToken) int { return strings.Compare(a.ID, b.ID) })
	return list, nil
}

// DeleteJoinToken implements identity.JoinTokens.
func (m *Memory) DeleteJoinToken(ctx context.Context, id string) error {
	unlock, err := m.begin(ctx)
	defer unlock()
	if err != nil {
		return err
	}
	for hash, t := range m.joinTokens {
		if t.ID == id {
			delete(m.joinTokens, hash)
			return nil
		}
	}
	return identity.ErrNotFound
}

// PruneJoinTokens implements identity.JoinTokens.
func (m *Memory) PruneJoinTokens(ctx context.Context, expiredBefore time.Time) (int64, error) {
	unlock, err := m.begin(ctx)
	defer unlock()
	if err != nil {
		return 0, err
	}
	var n int64
	for hash, t := range m.joinTokens {
		if t.Expires.Before(expiredBefore) {
			delete(m.joinTokens, hash)
			n++
		}
	}
	return n, nil
}

// CreateAPIToken implements identity.APITokens.
func (m *Memory) CreateAPIToken(ctx context.Context, t identity.APIToken) error {
	unlock, err := m.begin(ctx)
	defer unlock()
	if err != nil {
		return err
	}
	for _, have := range m.apiTokens {
		if have.ID == t.ID || have.Hash == t.Hash {
			return identity.ErrExists
		}
	}
	m.apiTokens[t.Hash] = t
	return nil
}

// APITokenByHash implements identity.APITokens.
func (m *Memory) APITokenByHash(ctx context.Context, hash string) (identity.APIToken, error) {
	unlock, err := m.begin(ctx)
	defer unlock()
	if err != nil {
		return identity.APIToken{}, err
	}
	t, ok := m.apiTokens[hash]
	if !ok {
		return identity.APIToken{}, identity.ErrNotFound
	}
	return t, nil
}

// APITokens implements identity.APITokens.
func (m *Memory) APITokens(ctx context.Context, user string) ([]identity.APIToken, error) {
	unlock, err := m.begin(ctx)
	defer unlock()
	if err != nil {
		return nil, err
	}
	var list []identity.APIToken
	for _, t := range m.apiTokens {
		if user == "" || t.User == user {
			list = append(list, t)
		}
	}
	slices.SortFunc(list, func(a, b identity.APIToken) int { return strings.Compare(a.ID, b.ID) })
	return list, nil
}

// DeleteAPIToken implements identity.APITokens.
func (m *Memory) DeleteAPIToken(ctx context.Context, id string) error {
	unlock, err := m.begin(ctx)
	defer unlock()
	if err != nil {
		return err
	}
	for hash, t := range m.apiTokens {
		if t.ID == id {
			delete(m.apiTokens, hash)
			return nil
		}
	}
	return identity.ErrNotFound
}

// TouchAPIToken implements identity.APITokens.
func (m *Memory) TouchAPIToken(ctx context.Context, id string, used time.Time) error {
	unlock, err := m.begin(ctx)
	defer unlock()
	if err != nil {
		return err
	}
	for hash, t := range m.apiTokens {
		if t.ID == id {
			if used.After(t.LastUsed) {
				t.LastUsed = used
				m.apiTokens[hash] = t
			}
			return nil
		}
	}
	return identity.ErrNotFound
}

// User implements identity.Users.
func (m *Memory) User(ctx context.Context, name string) (identity.User, error) {
	unlock, err := m.begin(ctx)
	defer unlock()
	if err != nil {
		return identity.User{}, err
	}
	u, ok := m.users[name]
	if !ok {
		return identity.User{}, identity.ErrNotFound
	}
	u.Bindings = slices.Clone(u.Bindings)
	return u, nil
}

// PutUser implements identity.Users.
func (m *Memory) PutUser(ctx context.Context, u identity.User) (identity.User, error) {
	unlock, err := m.begin(ctx)
	defer unlock()
	if err != nil {
		return identity.User{}, err
	}
	u.UID = m.users[u.Name].UID
	if u.UID == "" {
		u.UID = m.newUIDLocked()
	}
	kept := u
	kept.Bindings = slices.Clone(u.Bindings)
	m.users[u.Name] = kept
	u.Bindings = slices.Clone(u.Bindings)
	return u, nil
}

// NodeRecord implements identity.Nodes.
func (m *Memory) NodeRecord(ctx context.Context, name string) (identity.NodeRecord, error) {
	unlock, err := m.begin(ctx)
	defer unlock()
	if err != nil {
		return identity.NodeRecord{}, err
	}
	n, ok := m.nodes[name]
	if !ok {
		return identity.NodeRecord{}, identity.ErrNotFound
	}
	return n, nil
}

// EnrollNode implements identity.Nodes.
func (m *Memory) EnrollNode(ctx context.Context, name, keyHash string) (identity.NodeRecord, error) {
	unlock, err := m.begin(ctx)
	defer unlock()
	if err != nil {
		return identity.NodeRecord{}, err
	}
	n, ok := m.nodes[name]
	if !ok {
		n = identity.NodeRecord{Name: name, UID: m.newUIDLocked()}
	}
	n.Keys = identity.NodeKeys{Current: keyHash}
	m.nodes[name] = n
	return n, nil
}

// SwapNodeKeys implements identity.Nodes.
func (m *Memory) SwapNodeKeys(ctx context.Context, was identity.NodeRecord, keys identity.NodeKeys) error {
	unlock, err := m.begin(ctx)
	defer unlock()
	if err != nil {
		return err
	}
	n, ok := m.nodes[was.Name]
	if !ok {
		return identity.ErrNotFound
	}
	if n != was {
		return identity.ErrConflict
	}
	n.Keys = keys
	m.nodes[was.Name] = n
	return nil
}
