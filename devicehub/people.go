package devicehub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/identity"
	"github.com/whimbrel-edge/whimbrel/devicehub/registry"
	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/models"
)

// normal reports whether something about identities is as it should be.
func normal(r identity.Reason) bool {
	return r == identity.NodeJoined || r == identity.CertificateRenewed
}

// occurrenceOf is what people are told of something about identities.
func occurrenceOf(e identity.Event) models.Occurrence {
	o := models.Occurrence{Object: models.ObjectReference{Kind: "Node", Name: e.Node}, Severity: models.SeverityWarning, Reason: string(e.Reason),
		Message: e.Message, Source: "identity", Time: e.Time}
	switch e.Reason {
	case identity.TokenRefused, identity.AdminReset:
		o.Object = models.ObjectReference{Kind: "User", Name: e.User}
		if e.User == "" {
			o.Object.Name = "unknown"
		}
	}
	if normal(e.Reason) {
		o.Severity = models.SeverityNormal
	}
	if e.Remote != "" {
		o.Message += " (from " + e.Remote + ")"
	}
	if e.Suppressed > 0 {
		o.Message += fmt.Sprintf("; %d like it were not recorded since the last one", e.Suppressed)
	}
	return o
}

// auditTime bounds how long the record of an identity may take.
const auditTime = 10 * time.Second

// auditIdentity takes changes of nodes' identities into the audit. They have
// happened already: one that cannot be recorded is in the log.
func (h *Hub) auditIdentity(e identity.Event) {
	action := map[identity.Reason]string{identity.NodeJoined: store.AuditJoined, identity.NodeKeyReplaced: store.AuditJoined, identity.CertificateRenewed: store.AuditRenewed}[e.Reason]
	if action == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), auditTime) // not the caller's, who may be gone
	defer cancel()
	entry := store.AuditEntry{Time: e.Time, Action: action, Kind: "Node", Name: e.Node}
	if o, err := h.Registry.Get(ctx, models.Key{Kind: "Node", Name: e.Node}); err == nil {
		entry.UID = o.Meta().UID
	}
	if err := h.cfg.Store.AppendAudit(ctx, []store.AuditEntry{entry}); err != nil {
		h.log.Error("a change of an identity is not in the audit", "reason", e.Reason, "node", e.Node, "message", e.Message, "error", err)
	}
}

// auditRevoked takes tokens that went with their user into the audit. They are
// gone already: what cannot be recorded is in the log.
func (h *Hub) auditRevoked(user, by string, revoked []identity.APIToken) {
	entries := make([]store.AuditEntry, 0, len(revoked))
	for _, t := range revoked {
		entries = append(entries, store.AuditEntry{Time: h.now(), By: by, Action: store.AuditDeleted, Kind: "Token", Name: user, UID: t.ID})
	}
	if len(entries) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), auditTime) // not the caller's, who may be gone
	defer cancel()
	if err := h.cfg.Store.AppendAudit(ctx, entries); err != nil {
		h.log.Error("tokens that went with their user are not in the audit", "user", user, "by", by, "tokens", len(entries), "error", err)
	}
}

// users shows User objects to identity.
type users struct{ r *registry.Registry }

func userOf(o models.Object) identity.User {
	u := o.(*models.User)
	return identity.User{Name: u.Metadata.Name, UID: u.Metadata.UID,
		Bindings: []identity.Binding{{Role: identity.Role(u.Spec.Role), Namespace: u.Spec.Namespace}}}
}

// User implements identity.Users.
func (u users) User(ctx context.Context, name string) (identity.User, error) {
	o, err := u.r.Get(ctx, models.Key{Kind: "User", Name: name})
	if models.KindOf(err) == models.KindNotFound {
		return identity.User{}, identity.ErrNotFound
	}
	if err != nil {
		return identity.User{}, err
	}
	return userOf(o), nil
}

// PutUser implements identity.Users. A User object has one binding.
func (u users) PutUser(ctx context.Context, want identity.User) (identity.User, error) {
	if len(want.Bindings) != 1 {
		return identity.User{}, fmt.Errorf("user %s: a user has one role, not %d", want.Name, len(want.Bindings))
	}
	o, _, err := u.r.Update(ctx, models.Key{Kind: "User", Name: want.Name}, models.WriteOptions{}, func(current models.Object) (models.Object, error) {
		user, ok := current.(*models.User)
		if !ok {
			user = &models.User{TypeMeta: models.TypeMeta{APIVersion: models.APIVersion, Kind: "User"}, Metadata: models.ObjectMeta{Name: want.Name}}
		}
		user.Spec.Role, user.Spec.Namespace = models.Role(want.Bindings[0].Role), want.Bindings[0].Namespace
		if errs := user.Validate(); len(errs) > 0 {
			return nil, &models.Error{Kind: models.KindInvalid, Fields: errs}
		}
		return user, nil
	})
	if err != nil {
		return identity.User{}, err
	}
	return userOf(o), nil
}

// nodes shows Node objects and their keys to identity. The keys are a secret of
// the store, by the node's uid: a node deleted and made again has none.
type nodes struct {
	r       *registry.Registry
	secrets identity.Secrets
}

func keysOf(uid string) string { return "node-keys/" + uid }

func (n nodes) read(ctx context.Context, uid string) (keys identity.NodeKeys, blob []byte, err error) {
	blob, err = n.secrets.Secret(ctx, keysOf(uid))
	if errors.Is(err, identity.ErrNotFound) {
		return keys, nil, nil
	}
	if err != nil {
		return keys, nil, err
	}
	if err := json.Unmarshal(blob, &keys); err != nil {
		return keys, nil, fmt.Errorf("stored keys of node %s: %w", uid, err)
	}
	return keys, blob, nil
}

// NodeRecord implements identity.Nodes.
func (n nodes) NodeRecord(ctx context.Context, name string) (identity.NodeRecord, error) {
	o, err := n.r.Get(ctx, models.Key{Kind: "Node", Name: name})
	if models.KindOf(err) == models.KindNotFound {
		return identity.NodeRecord{}, identity.ErrNotFound
	}
	if err != nil {
		return identity.NodeRecord{}, err
	}
	rec := identity.NodeRecord{Name: name, UID: o.Meta().UID}
	rec.Keys, _, err = n.read(ctx, rec.UID)
	return rec, err
}

// EnrollNode implements identity.Nodes.
func (n nodes) EnrollNode(ctx context.Context, name, keyHash string) (identity.NodeRecord, error) {
	node, err := n.r.EnsureNode(ctx, name)
	if err != nil {
		return identity.NodeRecord{}, err
	}
	rec := identity.NodeRecord{Name: name, UID: node.Metadata.UID, Keys: identity.NodeKeys{Current: keyHash}}
	for {
		_, old, err := n.read(ctx, rec.UID)
		if err == nil {
			err = n.write(ctx, rec.UID, old, rec.Keys)
		}
		if !errors.Is(err, identity.ErrConflict) {
			return rec, err
		}
	}
}

func (n nodes) write(ctx context.Context, uid string, old []byte, keys identity.NodeKeys) error {
	blob, err := json.Marshal(keys)
	if err != nil {
		return err
	}
	return n.secrets.SwapSecret(ctx, keysOf(uid), old, blob)
}

// SwapNodeKeys implements identity.Nodes.
func (n nodes) SwapNodeKeys(ctx context.Context, was identity.NodeRecord, keys identity.NodeKeys) error {
	now, err := n.NodeRecord(ctx, was.Name)
	if err != nil {
		return err
	}
	current, old, err := n.read(ctx, now.UID)
	if err != nil {
		return err
	}
	if now.UID != was.UID || current != was.Keys {
		return identity.ErrConflict
	}
	return n.write(ctx, now.UID, old, keys)
}

// forgetKeys makes a deleted node's keys worthless.
func forgetKeys(ctx context.Context, s identity.Secrets, uid string) error {
	old, err := s.Secret(ctx, keysOf(uid))
	if errors.Is(err, identity.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	blob, err := json.Marshal(identity.NodeKeys{})
	if err != nil {
		return err
	}
	return s.SwapSecret(ctx, keysOf(uid), old, blob)
}
