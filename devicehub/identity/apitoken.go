package identity

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// An API token is this prefix, by which scanners for leaked secrets know it, and
// 32 random bytes in base64url.
const (
	apiTokenPrefix = "whk_"
	apiTokenLength = len(apiTokenPrefix) + 43
)

// touchEvery is how exact an API token's LastUsed is.
const touchEvery = time.Minute

// ErrUnauthenticated: the token is not known, has expired, or its user is gone.
var ErrUnauthenticated = errors.New("unauthenticated")

func hashAPIToken(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// wellFormed spares the store a lookup for what cannot be a token.
func wellFormed(text string) bool {
	body, ok := strings.CutPrefix(text, apiTokenPrefix)
	if !ok || len(text) != apiTokenLength {
		return false
	}
	for _, c := range []byte(body) {
		switch {
		case c >= '0' && c <= '9', c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

// IssueAPIToken makes a token for an existing user, else it returns ErrNotFound.
// The text is returned here and never again. A zero ttl means that it does not
// expire.
func (s *Service) IssueAPIToken(ctx context.Context, user, description string, ttl time.Duration) (text string, rec APIToken, err error) {
	if ttl < 0 {
		return "", APIToken{}, fmt.Errorf("an API token cannot live for %s", ttl)
	}
	u, err := s.config.Stores.Users.User(ctx, user)
	if err != nil {
		return "", APIToken{}, fmt.Errorf("issue a token for user %q: %w", user, err)
	}
	now := s.config.Now()
	id, err := newID(now)
	if err != nil {
		return "", APIToken{}, err
	}
	var secret [32]byte
	rand.Read(secret[:]) // never fails
	text = apiTokenPrefix + base64.RawURLEncoding.EncodeToString(secret[:])
	rec = APIToken{
		ID: id, Hash: hashAPIToken(text), User: u.Name, UserUID: u.UID, Description: description, Created: now,
	}
	if ttl > 0 {
		rec.Expires = now.Add(ttl)
	}
	if err := s.config.Stores.APITokens.CreateAPIToken(ctx, rec); err != nil {
		return "", APIToken{}, fmt.Errorf("keep API token: %w", err)
	}
	rec.Hash = ""
	return text, rec, nil
}

// APITokens lists the tokens of a user, or of everyone for "", oldest first,
// without hashes.
func (s *Service) APITokens(ctx context.Context, user string) ([]APIToken, error) {
	tokens, err := s.config.Stores.APITokens.APITokens(ctx, user)
	if err != nil {
		return nil, fmt.Errorf("list API tokens: %w", err)
	}
	for i := range tokens {
		tokens[i].Hash = ""
	}
	return tokens, nil
}

// DeleteAPIToken revokes a token, or returns ErrNotFound.
func (s *Service) DeleteAPIToken(ctx context.Context, id string) error {
	err := s.config.Stores.APITokens.DeleteAPIToken(ctx, id)
	// Also when that failed: it may have happened nevertheless.
	s.cache.forget(func(id2 Identity) bool { return id2.TokenID == id })
	if err != nil {
		return fmt.Errorf("delete API token: %w", err)
	}
	return nil
}

// RevokeUser deletes every token of a user: for when the User is deleted. It
// returns those that it deleted, without hashes, also when it fails at the next.
func (s *Service) RevokeUser(ctx context.Context, user string) (revoked []APIToken, err error) {
	tokens, err := s.config.Stores.APITokens.APITokens(ctx, user)
	if err != nil {
		return nil, fmt.Errorf("list API tokens of user %q: %w", user, err)
	}
	defer s.UserChanged(user)
	for _, t := range tokens {
		err := s.config.Stores.APITokens.DeleteAPIToken(ctx, t.ID)
		if errors.Is(err, ErrNotFound) {
			continue // somebody else did
		}
		if err != nil {
			return revoked, fmt.Errorf("delete API token of user %q: %w", user, err)
		}
		t.Hash = ""
		revoked = append(revoked, t)
	}
	return revoked, nil
}

// UserChanged makes a changed or deleted User count from the next request on,
// instead of after Config.CacheTTL.
func (s *Service) UserChanged(user string) {
	s.cache.forget(func(id Identity) bool { return id.User == user })
}

// AuthenticateToken says whose API token this is. remote is the caller's address,
// by which wrong tokens are counted; the caller decides which proxies to believe.
//
// Refusals are ErrUnauthenticated and *ThrottledError; any further error is a
// fault of the store. The identity's bindings must not be changed.
func (s *Service) AuthenticateToken(ctx context.Context, text, remote string) (Identity, error) {
	if text == "" {
		// Somebody who has not logged in yet, not somebody who guesses.
		return Identity{}, fmt.Errorf("%w: no token", ErrUnauthenticated)
	}
	now := s.config.Now()
	hash := hashAPIToken(text)
	if id, ok := s.cache.get(hash, now); ok {
		return id, nil
	}
	if err := s.admit(remote); err != nil {
		return Identity{}, err
	}
	generation := s.cache.generation()
	rec, id, err := s.lookUp(ctx, text, hash, now)
	if errors.Is(err, ErrUnauthenticated) {
		return Identity{}, s.refuse(ctx, Event{Reason: TokenRefused, Remote: remote, User: rec.User}, err)
	}
	if err != nil {
		return Identity{}, fmt.Errorf("authenticate token: %w", err)
	}
	if now.Sub(rec.LastUsed) >= touchEvery {
		if err := s.config.Stores.APITokens.TouchAPIToken(ctx, rec.ID, now); err != nil {
			// Knowing when it was used is not worth refusing the request.
			s.config.Log.WarnContext(ctx, "cannot note the use of an API token", "token", rec.ID, "user", rec.User, "error", err)
		}
	}
	until := now.Add(s.config.CacheTTL)
	if !rec.Expires.IsZero() && rec.Expires.Before(until) {
		until = rec.Expires
	}
	s.cache.put(hash, id, now, until, generation)
	return id, nil
}

// lookUp asks the stores. With ErrUnauthenticated the record is returned as far
// as it is known.
func (s *Service) lookUp(ctx context.Context, text, hash string, now time.Time) (APIToken, Identity, error) {
	if !wellFormed(text) {
		return APIToken{}, Identity{}, fmt.Errorf("%w: not an API token", ErrUnauthenticated)
	}
	rec, err := s.config.Stores.APITokens.APITokenByHash(ctx, hash)
	if errors.Is(err, ErrNotFound) {
		return APIToken{}, Identity{}, fmt.Errorf("%w: unknown token", ErrUnauthenticated)
	}
	if err != nil {
		return APIToken{}, Identity{}, err
	}
	// A store that compares loosely (case, collation) must not let anyone in.
	if subtle.ConstantTimeCompare([]byte(rec.Hash), []byte(hash)) != 1 {
		return APIToken{}, Identity{}, fmt.Errorf("%w: unknown token", ErrUnauthenticated)
	}
	if !rec.Expires.IsZero() && !now.Before(rec.Expires) {
		return rec, Identity{}, fmt.Errorf("%w: the token has expired", ErrUnauthenticated)
	}
	user, err := s.config.Stores.Users.User(ctx, rec.User)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return rec, Identity{}, err
	}
	if err != nil || user.UID != rec.UserUID {
		return rec, Identity{}, fmt.Errorf("%w: the token's user is gone", ErrUnauthenticated)
	}
	return rec, Identity{User: user.Name, UserUID: user.UID, TokenID: rec.ID, Bindings: user.Bindings}, nil
}

// cacheSize bounds the cache; when full, what has expired goes, else any one.
const cacheSize = 4096

// A cache remembers right tokens for a moment. Wrong ones are not remembered, so
// a new token works at once.
type cache struct {
	mu     sync.Mutex
	byHash map[string]cached
	gen    uint64 // counts calls of forget
}

type cached struct {
	id    Identity
	until time.Time
}

func newCache() *cache { return &cache{byHash: map[string]cached{}} }

func (c *cache) get(hash string, now time.Time) (Identity, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.byHash[hash]
	if !ok || !now.Before(e.until) {
		return Identity{}, false
	}
	return e.id, true
}

func (c *cache) generation() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gen
}

// put remembers id unless something was forgotten since the given generation: what
// the stores said before a token was deleted must not come back after it.
func (c *cache) put(hash string, id Identity, now, until time.Time, generation uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gen != generation {
		return
	}
	if len(c.byHash) >= cacheSize {
		c.makeRoomLocked(now)
	}
	c.byHash[hash] = cached{id: id, until: until}
}

func (c *cache) makeRoomLocked(now time.Time) {
	for hash, e := range c.byHash {
		if !now.Before(e.until) {
			delete(c.byHash, hash)
		}
	}
	for hash := range c.byHash {
		if len(c.byHash) < cacheSize {
			return
		}
		delete(c.byHash, hash)
	}
}

func (c *cache) forget(match func(Identity) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gen++
	for hash, e := range c.byHash {
		if match(e.id) {
			delete(c.byHash, hash)
		}
	}
}
