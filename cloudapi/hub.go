// Package cloudapi is the hub's REST API on Echo and huma: one file per
// resource, problem+json errors, the OpenAPI document, health and metrics. It
// says in this file what it needs from the hub, and knows nothing else of it.
// cloudapi/client is the Go client.
package cloudapi

import (
	"context"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/twin"
)

// Objects is what the object endpoints need. Objects handed out must not be
// changed; status is filled in. Errors are *models.Error.
type Objects interface {
	Get(ctx context.Context, key models.Key) (models.Object, error)
	List(ctx context.Context, o models.ListOptions) (models.List, error)
	// Update changes one object: change gets the current one (nil when there is
	// none) and returns the wanted one, decoded, defaulted and validated; it may
	// be called more than once. The result is the object as stored; created says
	// that it is new. An unchanged object keeps its version.
	Update(ctx context.Context, key models.Key, o models.WriteOptions, change func(current models.Object) (models.Object, error)) (stored models.Object, created bool, err error)
	// Delete removes an object and returns it as it was.
	Delete(ctx context.Context, key models.Key, o models.WriteOptions) (models.Object, error)
	// Watch calls send with every change after a resourceVersion ("" for: first
	// every object there is as Added, then changes) until ctx ends or send fails.
	// Where changes are not kept that far back the error is KindGone. A Bookmark
	// is sent about every 30 s and after the first objects.
	Watch(ctx context.Context, o models.ListOptions, resourceVersion string, send func(models.Event) error) error
}

// Twins is what the twin endpoints need.
type Twins interface {
	Twin(ctx context.Context, namespace, name string) (twin.Document, error)
	// TwinAt returns a twin as it was; with a uid also that of a device that was
	// deleted. KindInvalid: at is in the future.
	TwinAt(ctx context.Context, namespace, name, uid string, at time.Time) (twin.Document, error)
	Twins(ctx context.Context, o models.ListOptions) (docs []twin.Document, next string, err error)
	// PatchDesired checks and stores a merge patch of desired values and returns
	// the twin and the write's id for each property that the patch sets.
	PatchDesired(ctx context.Context, namespace, name string, patch map[string]models.Value, o models.DesiredOptions) (twin.Document, map[string]string, error)
	// Writes returns a page of a device's ledger of writes, the newest first; Limit
	// is set.
	Writes(ctx context.Context, namespace, name string, q models.LedgerQuery) (entries []twin.LedgerEntry, next string, err error)
	// AwaitWrites blocks until every write is confirmed (nil), one is refused or
	// failed (KindRefused), the node is offline (KindUnavailable, at once) or ctx
	// ends (KindTimeout).
	AwaitWrites(ctx context.Context, namespace, name string, writes map[string]string) error
	// StreamTwins calls send with the changed properties of every twin that
	// changed after the cursor, coalesced, until ctx ends or send fails. cursor is
	// an earlier TwinChange.Cursor, or "" for: first every twin whole.
	StreamTwins(ctx context.Context, o models.ListOptions, cursor string, send func(TwinChange) error) error
}

// TwinChange is what changed of a twin.
type TwinChange = twin.StreamChange

// Caller is who makes a request.
type Caller struct {
	Name      string
	Role      models.Role
	Namespace string // "*" for every one
}

// Access is what authentication and the token endpoints need.
type Access interface {
	// Authenticate says whose API token this is. remote is the peer's IP address:
	// wrong tokens from one address are slowed down (KindTooMany) and recorded.
	Authenticate(ctx context.Context, token, remote string) (Caller, error)
	// CreateJoinToken makes a one-time token with which a node of this name can
	// join, and the whole edge command that uses it.
	CreateJoinToken(ctx context.Context, node string, ttl time.Duration, by string) (JoinToken, error)
	// CreateUserToken makes an API token for an existing user. ttl 0: no expiry.
	CreateUserToken(ctx context.Context, user string, ttl time.Duration, by string) (token, id string, expires time.Time, err error)
	// Tokens lists API and join tokens without their secrets.
	Tokens(ctx context.Context) ([]TokenInfo, error)
	DeleteToken(ctx context.Context, id, by string) error
}

// JoinToken is a new join token.
type JoinToken struct {
	Token   string
	Expires time.Time
	Command string
}

// TokenInfo describes a token without its secret.
type TokenInfo struct {
	ID      string     `json:"id"`
	Kind    string     `json:"kind"` // join or user
	Node    string     `json:"node,omitempty"`
	User    string     `json:"user,omitempty"`
	Created time.Time  `json:"created"`
	Expires *time.Time `json:"expires,omitempty"`
}

// Idempotency remembers answers to requests that carried an Idempotency-Key.
type Idempotency interface {
	// Begin returns the stored answer of an earlier request with this key by this
	// caller, or ok false and reserves the key. A key whose request is still
	// running, or was another request (fingerprint), is KindConflict.
	Begin(ctx context.Context, caller, key, fingerprint string) (a StoredAnswer, ok bool, err error)
	// Finish stores the answer; a zero Status gives the key free again.
	Finish(ctx context.Context, caller, key string, a StoredAnswer) error
}

// StoredAnswer is an answer to be given again.
type StoredAnswer struct {
	Status      int
	ETag        string
	ContentType string // of an answer that is not this API's own; "" for one that is
	FromTarget  bool   // of a route
	Body        []byte
}
