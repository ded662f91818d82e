package hubd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/cloudapi"
	"github.com/whimbrel-edge/whimbrel/devicehub/identity"
	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/internal/version"
	"github.com/whimbrel-edge/whimbrel/models"
)

func (d *Daemon) apiConfig() cloudapi.Config {
	return cloudapi.Config{Objects: d.hub, Twins: d.hub, Devices: d.hub, Routes: d.hub, Services: d.hub, Images: d.hub.Images(), Pods: d.hub, History: d.hub, Audit: d, Events: d.hub, Access: access{d}, Idempotency: answers{d},
		Ready: map[string]func(context.Context) error{"database": func(ctx context.Context) error {
			_, err := d.store.Lineage(ctx)
			return err
		}},
		Gatherer: d.registry, Log: d.cfg.Log, Version: version.Version}
}

// unavailable is what a caller is told when the store fails: to come back, and
// not why, which is for the log.
func (d *Daemon) unavailable(step string, err error) error {
	if !errors.Is(err, context.Canceled) { // the caller went away
		d.cfg.Log.Error("the store fails", "step", step, "error", err)
	}
	return models.Errorf(models.KindUnavailable, "the store does not answer; try again")
}

// auditToken records what was done to a token. A caller who hears of an error
// does not learn the token's secret: no token is used that is not in the audit.
func (d *Daemon) auditToken(ctx context.Context, action, name, id, by string) error {
	err := d.store.AppendAudit(context.WithoutCancel(ctx), []store.AuditEntry{{Time: time.Now(), By: by, Action: action, Kind: "Token", Name: name, UID: id}})
	if err != nil {
		return d.unavailable("record a token in the audit", err)
	}
	return nil
}

// Audit implements cloudapi.Audit.
func (d *Daemon) Audit(ctx context.Context, o models.AuditOptions, before int64, limit int) ([]models.AuditEntry, error) {
	entries, err := d.store.AuditPage(ctx, store.AuditQuery(o), before, limit)
	if err != nil {
		return nil, d.unavailable("read the audit", err)
	}
	out := make([]models.AuditEntry, 0, len(entries))
	for _, e := range entries {
		out = append(out, auditEntry(e))
	}
	return out, nil
}

func auditEntry(e store.AuditEntry) models.AuditEntry {
	entry := models.AuditEntry{ID: strconv.FormatInt(e.ID, 10), Time: e.Time, By: e.By, Action: e.Action, Kind: e.Kind, Namespace: e.Namespace,
		Name: e.Name, UID: e.UID}
	if e.Revision > 0 {
		entry.ResourceVersion = strconv.FormatInt(e.Revision, 10)
	}
	if e.Fields != "" {
		entry.Fields = strings.Split(e.Fields, "\n")
	}
	if e.Detail != "" && (e.Action == store.AuditExec || e.Action == store.AuditExecEnded) {
		entry.Exec = &models.ExecRecord{}
		_ = json.Unmarshal([]byte(e.Detail), entry.Exec) // what a later release has written is shown as far as it is known
	}
	return entry
}

// How the audit is followed: by looking. Entries come from many places, and
// nobody who follows it minds half a second.
const (
	auditLookEvery = 500 * time.Millisecond
	auditPage      = 500
)

// WatchAudit implements cloudapi.Audit.
func (d *Daemon) WatchAudit(ctx context.Context, o models.AuditOptions, after int64, send func(models.AuditEntry) error) error {
	look := time.NewTicker(auditLookEvery)
	defer look.Stop()
	for {
		for full := true; full; {
			entries, err := d.store.AuditAfter(ctx, after, auditPage)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				return d.unavailable("follow the audit", err)
			}
			full = len(entries) == auditPage
			for _, e := range entries {
				after = e.ID
				if !store.AuditQuery(o).Match(e) {
					continue
				}
				if err := send(auditEntry(e)); err != nil {
					return err
				}
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-look.C:
		}
	}
}

// access is what the API needs of identity.
type access struct{ d *Daemon }

// Authenticate implements cloudapi.Access.
func (a access) Authenticate(ctx context.Context, token, remote string) (cloudapi.Caller, error) {
	id, err := a.d.hub.Identity.AuthenticateToken(ctx, token, remote)
	var throttled *identity.ThrottledError
	switch {
	case errors.As(err, &throttled):
		return cloudapi.Caller{}, models.Errorf(models.KindTooMany, "too many wrong tokens from this address; try again in %s", throttled.RetryAfter.Round(time.Second))
	case errors.Is(err, identity.ErrUnauthenticated):
		return cloudapi.Caller{}, models.Errorf(models.KindUnauthorized, "the token is not valid")
	case err != nil:
		return cloudapi.Caller{}, a.d.unavailable("authenticate", err)
	}
	c := cloudapi.Caller{Name: id.User}
	if len(id.Bindings) > 0 {
		c.Role, c.Namespace = models.Role(id.Bindings[0].Role), id.Bindings[0].Namespace
	}
	return c, nil
}

// CreateJoinToken implements cloudapi.Access.
func (a access) CreateJoinToken(ctx context.Context, node string, ttl time.Duration, by string) (cloudapi.JoinToken, error) {
	if msg := models.CheckSubdomain(node); msg != "" {
		return cloudapi.JoinToken{}, models.Invalid("/node", "%s", msg)
	}
	text, rec, err := a.d.hub.Identity.CreateJoinToken(ctx, node, ttl, by)
	if err != nil {
		return cloudapi.JoinToken{}, a.d.unavailable("make a join token", err)
	}
	if err := a.d.auditToken(ctx, store.AuditCreated, node, rec.ID, by); err != nil {
		return cloudapi.JoinToken{}, err
	}
	return cloudapi.JoinToken{Token: text, Expires: rec.Expires,
		Command: fmt.Sprintf("whimbrel edge --hub %s --token %s --name %s", a.d.hub.LinkURL(), text, node)}, nil
}

// CreateUserToken implements cloudapi.Access.
func (a access) CreateUserToken(ctx context.Context, user string, ttl time.Duration, by string) (token, id string, expires time.Time, err error) {
	if _, err := a.d.hub.Get(ctx, models.Key{Kind: "User", Name: user}); err != nil {
		return "", "", time.Time{}, err
	}
	text, rec, err := a.d.hub.Identity.IssueAPIToken(ctx, user, "made by "+by, ttl)
	if errors.Is(err, identity.ErrNotFound) { // deleted just now
		return "", "", time.Time{}, models.Errorf(models.KindNotFound, "User %s not found", user)
	}
	if err != nil {
		return "", "", time.Time{}, a.d.unavailable("make an API token", err)
	}
	if err := a.d.auditToken(ctx, store.AuditCreated, user, rec.ID, by); err != nil {
		return "", "", time.Time{}, err
	}
	return text, rec.ID, rec.Expires, nil
}

// Tokens implements cloudapi.Access.
func (a access) Tokens(ctx context.Context) ([]cloudapi.TokenInfo, error) {
	join, err := a.d.hub.Identity.JoinTokens(ctx)
	if err != nil {
		return nil, a.d.unavailable("list tokens", err)
	}
	users, err := a.d.hub.Identity.APITokens(ctx, "")
	if err != nil {
		return nil, a.d.unavailable("list tokens", err)
	}
	out := []cloudapi.TokenInfo{}
	for _, t := range join {
		if t.UsedAt.IsZero() {
			out = append(out, cloudapi.TokenInfo{ID: t.ID, Kind: "join", Node: t.Node, Created: t.Created, Expires: timeOrNil(t.Expires)})
		}
	}
	for _, t := range users {
		out = append(out, cloudapi.TokenInfo{ID: t.ID, Kind: "user", User: t.User, Created: t.Created, Expires: timeOrNil(t.Expires)})
	}
	return out, nil
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// DeleteToken implements cloudapi.Access.
func (a access) DeleteToken(ctx context.Context, id, by string) error {
	tokens, err := a.Tokens(ctx)
	if err != nil {
		return err
	}
	err = a.d.hub.Identity.DeleteAPIToken(ctx, id)
	if errors.Is(err, identity.ErrNotFound) {
		err = a.d.hub.Identity.DeleteJoinToken(ctx, id)
	}
	if errors.Is(err, identity.ErrNotFound) {
		return models.Errorf(models.KindNotFound, "no token has the id %s", id)
	}
	if err != nil {
		return a.d.unavailable("delete a token", err)
	}
	name := "" // of one that another deleted at the same time, or that was used, it is not known
	for _, t := range tokens {
		if t.ID == id {
			name = t.User + t.Node
		}
	}
	return a.d.auditToken(ctx, store.AuditDeleted, name, id, by)
}

// answers keeps idempotent answers in the store.
type answers struct{ d *Daemon }

// keyAge is how long an Idempotency-Key is remembered.
const keyAge = 24 * time.Hour

// runsAtMost is longer than any request that carries a key may run: a wait is
// at most 5 minutes.
const runsAtMost = 6 * time.Minute

// Begin implements cloudapi.Idempotency.
func (a answers) Begin(ctx context.Context, caller, key, fingerprint string) (cloudapi.StoredAnswer, bool, error) {
	was, err := a.d.store.ReserveKey(ctx, caller, key, fingerprint, time.Now(), keyAge)
	if errors.Is(err, store.ErrConflict) && was.Status == 0 && was.Fingerprint == fingerprint {
		// Without an answer for longer than any request runs, its hub died over it.
		was, err = a.d.store.ReserveKey(ctx, caller, key, fingerprint, time.Now(), runsAtMost)
	}
	switch {
	case err == nil:
		return cloudapi.StoredAnswer{}, false, nil
	case !errors.Is(err, store.ErrConflict):
		return cloudapi.StoredAnswer{}, false, a.d.unavailable("reserve an Idempotency-Key", err)
	case was.Fingerprint != fingerprint:
		return cloudapi.StoredAnswer{}, false, models.Errorf(models.KindConflict, "this Idempotency-Key was used for another request")
	case was.Status == 0:
		return cloudapi.StoredAnswer{}, false, models.Errorf(models.KindConflict, "the request with this Idempotency-Key is still running")
	}
	s := cloudapi.StoredAnswer{Status: was.Status, Body: was.Body}
	if err := readHead(was.Head, &s); err != nil {
		return cloudapi.StoredAnswer{}, false, fmt.Errorf("the answer of an Idempotency-Key: %w", err)
	}
	return s, true, nil
}

// Finish implements cloudapi.Idempotency.
func (a answers) Finish(ctx context.Context, caller, key string, s cloudapi.StoredAnswer) error {
	head, err := headOf(s)
	if err != nil {
		return err
	}
	return a.d.store.AnswerKey(ctx, caller, key, store.IdempotentAnswer{Status: s.Status, Head: head, Body: s.Body})
}

// answerHead is what a stored answer says besides status and body. One of the API's
// own that has no more than an ETag is stored as that, which begins with no brace.
type answerHead struct {
	ETag        string `json:"etag,omitempty"`
	ContentType string `json:"contentType,omitempty"`
	FromTarget  bool   `json:"fromTarget,omitempty"`
}

func headOf(s cloudapi.StoredAnswer) (string, error) {
	h := answerHead{s.ETag, s.ContentType, s.FromTarget}
	if h == (answerHead{ETag: s.ETag}) {
		return s.ETag, nil
	}
	text, err := json.Marshal(h)
	return string(text), err
}

func readHead(text string, s *cloudapi.StoredAnswer) error {
	h := answerHead{ETag: text}
	if strings.HasPrefix(text, "{") {
		h = answerHead{}
		if err := json.Unmarshal([]byte(text), &h); err != nil {
			return err
		}
	}
	s.ETag, s.ContentType, s.FromTarget = h.ETag, h.ContentType, h.FromTarget
	return nil
}
