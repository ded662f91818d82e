package identity

import (
	"context"
	"errors"
	"time"
)

// What every store answers with, possibly wrapped. Anything else is a fault of
// the store and worth another try.
var (
	ErrNotFound = errors.New("not found")
	ErrExists   = errors.New("already exists")
	// ErrConflict means that what a compare-and-swap expected is not there any more.
	ErrConflict = errors.New("changed in the meantime")
)

// Why a join token is refused.
var (
	ErrTokenUnknown   = errors.New("join token is not known")
	ErrTokenUsed      = errors.New("join token was used already")
	ErrTokenExpired   = errors.New("join token has expired")
	ErrTokenWrongNode = errors.New("join token is for another node")
)

// Stores is everything that this package needs kept. One type may implement all
// of the interfaces: no two methods share a name.
//
// For all of them: methods may be called concurrently, from several processes
// on one database; each is atomic and durable when it returns nil; nothing that
// is passed in or returned is shared with the store afterwards. Times are kept to
// the microsecond at least and come back equal by time.Time.Equal; the zero time
// comes back as the zero time (IsZero).
type Stores struct {
	Secrets    Secrets
	JoinTokens JoinTokens
	APITokens  APITokens
	Users      Users
	Nodes      Nodes
}

// Secrets keeps sealed blobs by key. What a blob holds is none of its business.
type Secrets interface {
	// Secret returns the blob, or ErrNotFound.
	Secret(ctx context.Context, key string) ([]byte, error)

	// SwapSecret stores blob if what is there now equals old, byte for byte;
	// a nil old means that nothing may be there. Otherwise it changes nothing
	// and returns ErrConflict. Of several concurrent swaps from one state
	// exactly one succeeds.
	SwapSecret(ctx context.Context, key string, old, blob []byte) error
}

// A JoinToken is the record of a one-time invitation for one node.
type JoinToken struct {
	ID        string // unique, sortable by creation (ULID)
	Hash      string // of the token's secret, unique
	Node      string // the only name that it admits
	CreatedBy string // user name
	Created   time.Time
	Expires   time.Time // not valid from this moment on
	UsedAt    time.Time // zero while unused
	UsedKey   string    // hash of the public key that it admitted, "" while unused
}

// A Redemption asks to use up a join token.
type Redemption struct {
	Hash    string // of the token's secret
	Node    string // name that asks
	KeyHash string // of the public key that is to be admitted
	Now     time.Time
}

// JoinTokens keeps the invitations.
type JoinTokens interface {
	// CreateJoinToken stores a new one; ErrExists when ID or Hash is taken.
	CreateJoinToken(ctx context.Context, t JoinToken) error

	// RedeemJoinToken marks the token as used at r.Now by r.KeyHash and
	// returns its record. Of any number of concurrent calls for one token, in
	// however many processes, exactly one succeeds.
	//
	// A refusal changes nothing. It is, the first that fits: ErrTokenUnknown,
	// ErrTokenWrongNode, ErrTokenUsed, ErrTokenExpired (from t.Expires on).
	// With ErrTokenUsed the stored record is returned too, with who used it.
	RedeemJoinToken(ctx context.Context, r Redemption) (JoinToken, error)

	// JoinTokens lists all, by ID.
	JoinTokens(ctx context.Context) ([]JoinToken, error)

	// DeleteJoinToken removes one by ID, or returns ErrNotFound.
	DeleteJoinToken(ctx context.Context, id string) error

	// PruneJoinTokens removes those that expired before the given time, used
	// or not, and says how many.
	PruneJoinTokens(ctx context.Context, expiredBefore time.Time) (int64, error)
}

// An APIToken is the record of a bearer token of a user.
type APIToken struct {
	ID          string // unique, sortable by creation (ULID)
	Hash        string // of the whole token, unique
	User        string
	UserUID     string // a user deleted and made again does not get the old tokens back
	Description string
	Created     time.Time
	Expires     time.Time // zero: never
	LastUsed    time.Time // zero: not yet; approximate
}

// APITokens keeps bearer tokens.
type APITokens interface {
	// CreateAPIToken stores a new one; ErrExists when ID or Hash is taken.
	CreateAPIToken(ctx context.Context, t APIToken) error

	// APITokenByHash returns the record, or ErrNotFound. This is the only
	// method on a hot path.
	APITokenByHash(ctx context.Context, hash string) (APIToken, error)

	// APITokens lists the tokens of a user, or of everyone for "", by ID.
	APITokens(ctx context.Context, user string) ([]APIToken, error)

	// DeleteAPIToken removes one by ID, or returns ErrNotFound.
	DeleteAPIToken(ctx context.Context, id string) error

	// TouchAPIToken moves LastUsed forward to used, never back. It returns
	// ErrNotFound for a token that is gone, and must not bring it back.
	TouchAPIToken(ctx context.Context, id string, used time.Time) error
}

// A User is somebody who may call the API, reduced to what decides.
type User struct {
	Name     string
	UID      string
	Bindings []Binding
}

// Users reads the User objects. Making and changing them is the registry's
// affair, but for the first admin.
type Users interface {
	// User returns one by name, or ErrNotFound.
	User(ctx context.Context, name string) (User, error)

	// PutUser makes the user with a new UID, or replaces the bindings of the one
	// that is there and keeps its UID; u.UID is ignored. It returns the user as
	// stored. The order of bindings is kept.
	PutUser(ctx context.Context, u User) (User, error)
}

// NodeKeys are the public keys, as hashes, that a node may show. A node that was
// never joined has none.
type NodeKeys struct {
	Current string
	// Next is a key that the node asked to change to and has not used yet.
	// Until it does, both are good: the answer that carried the new
	// certificate may have been lost on the way.
	Next string
}

// A NodeRecord is a Node object reduced to what decides.
type NodeRecord struct {
	Name string
	UID  string
	Keys NodeKeys
}

// Nodes keeps the public keys with the Node objects. Deleting the Node deletes
// its keys: that is how a node is revoked.
type Nodes interface {
	// NodeRecord returns the node by name, or ErrNotFound.
	NodeRecord(ctx context.Context, name string) (NodeRecord, error)

	// EnrollNode makes the Node object when there is none (with a new UID),
	// else keeps it and its UID, and sets its keys to {Current: keyHash}:
	// whatever key it had is no longer good. It returns the node as stored.
	// Concurrent calls for one name end with one node.
	EnrollNode(ctx context.Context, name, keyHash string) (NodeRecord, error)

	// SwapNodeKeys replaces the node's keys if it still has the UID and keys
	// of was, else changes nothing and returns ErrConflict (ErrNotFound when
	// there is no node of that name).
	SwapNodeKeys(ctx context.Context, was NodeRecord, keys NodeKeys) error
}
