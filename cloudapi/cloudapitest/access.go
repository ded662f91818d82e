package cloudapitest

import (
	"context"
	"crypto/rand"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/whimbrel-edge/whimbrel/cloudapi"
	"github.com/whimbrel-edge/whimbrel/models"
)

// MaxWrong is how many wrong tokens one address may show.
const MaxWrong = 1000

// Authenticate implements cloudapi.Access.
func (h *Hub) Authenticate(_ context.Context, token, remote string) (cloudapi.Caller, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t, known := h.tokens[token]
	u, there := h.objects[models.Key{Kind: "User", Name: t.User}].(*models.User)
	if known && t.Kind == "user" && there && (t.Expires == nil || time.Now().Before(*t.Expires)) {
		return cloudapi.Caller{Name: t.User, Role: u.Spec.Role, Namespace: u.Spec.Namespace}, nil
	}
	if h.wrong[remote]++; h.wrong[remote] > MaxWrong {
		return cloudapi.Caller{}, models.Errorf(models.KindTooMany, "too many wrong tokens from %s", remote)
	}
	return cloudapi.Caller{}, models.Errorf(models.KindUnauthorized, "the token is not known, or has expired")
}

// CreateJoinToken implements cloudapi.Access.
func (h *Hub) CreateJoinToken(_ context.Context, node string, ttl time.Duration, _ string) (cloudapi.JoinToken, error) {
	token, info := h.addToken(cloudapi.TokenInfo{Kind: "join", Node: node}, ttl)
	return cloudapi.JoinToken{Token: token, Expires: *info.Expires, Command: "whimbrel edge --hub https://hub.test:8443 --name " + node + " --token " + token}, nil
}

// CreateUserToken implements cloudapi.Access.
func (h *Hub) CreateUserToken(ctx context.Context, user string, ttl time.Duration, _ string) (token, id string, expires time.Time, err error) {
	if _, err := h.Get(ctx, models.Key{Kind: "User", Name: user}); err != nil {
		return "", "", time.Time{}, err
	}
	token, info := h.addToken(cloudapi.TokenInfo{Kind: "user", User: user}, ttl)
	if info.Expires != nil {
		expires = *info.Expires
	}
	return token, info.ID, expires, nil
}

func (h *Hub) addToken(info cloudapi.TokenInfo, ttl time.Duration) (string, cloudapi.TokenInfo) {
	h.mu.Lock()
	defer h.mu.Unlock()
	info.ID, info.Created = ulid.Make().String(), time.Now().UTC()
	if ttl > 0 {
		info.Expires = new(info.Created.Add(ttl))
	}
	token := "whk_" + rand.Text()
	h.tokens[token] = info
	return token, info
}

// Tokens implements cloudapi.Access.
func (h *Hub) Tokens(context.Context) ([]cloudapi.TokenInfo, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []cloudapi.TokenInfo
	for _, t := range h.tokens {
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b cloudapi.TokenInfo) int { return strings.Compare(a.ID, b.ID) })
	return out, nil
}

// DeleteToken implements cloudapi.Access.
func (h *Hub) DeleteToken(_ context.Context, id, _ string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for secret, t := range h.tokens {
		if t.ID == id {
			delete(h.tokens, secret)
			return nil
		}
	}
	return models.Errorf(models.KindNotFound, "there is no token %.40q", id)
}

type keptAnswer struct {
	fingerprint string
	answer      cloudapi.StoredAnswer
}

// Begin implements cloudapi.Idempotency.
func (h *Hub) Begin(_ context.Context, caller, key, fingerprint string) (cloudapi.StoredAnswer, bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := caller + "\x00" + key
	kept := h.answers[k]
	switch {
	case kept == nil:
		h.answers[k] = &keptAnswer{fingerprint: fingerprint}
		return cloudapi.StoredAnswer{}, false, nil
	case kept.fingerprint != fingerprint:
		return cloudapi.StoredAnswer{}, false, models.Errorf(models.KindConflict, "the Idempotency-Key was used for another request")
	case kept.answer.Status == 0:
		return cloudapi.StoredAnswer{}, false, models.Errorf(models.KindConflict, "the request of this Idempotency-Key is still running")
	}
	return kept.answer, true, nil
}

// Finish implements cloudapi.Idempotency.
func (h *Hub) Finish(_ context.Context, caller, key string, a cloudapi.StoredAnswer) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := caller + "\x00" + key
	if a.Status == 0 {
		delete(h.answers, k)
	} else if kept := h.answers[k]; kept != nil {
		kept.answer = a
	}
	return nil
}
