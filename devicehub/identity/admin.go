package identity

import (
	"context"
	"errors"
	"fmt"
)

// AdminUser is the name of the first admin.
const AdminUser = "admin"

// adminSecret is there once the first admin was made. Its content is no secret
// and not sealed; the secrets are just a place that is written once.
const adminSecret = "first-admin"

// EnsureAdmin makes the user AdminUser and a token for it at the first start of a
// hub on its database, and returns the token. Later it returns "", also when that
// user was deleted since: somebody meant that. If the hub is killed before
// it is through, the next start does it again. Of several hubs that start at once
// more than one may return a token, and all of these are good.
func (s *Service) EnsureAdmin(ctx context.Context) (token string, err error) {
	_, err = s.config.Stores.Secrets.Secret(ctx, adminSecret)
	if err == nil {
		return "", nil
	}
	if !errors.Is(err, ErrNotFound) {
		return "", fmt.Errorf("look for the first admin: %w", err)
	}
	token, _, err = s.makeAdmin(ctx, "made at the first start")
	if err != nil {
		return "", err
	}
	err = s.config.Stores.Secrets.SwapSecret(ctx, adminSecret, nil, []byte("made"))
	if err != nil && !errors.Is(err, ErrConflict) {
		return "", fmt.Errorf("note the first admin: %w", err)
	}
	return token, nil
}

// Reset is what ResetAdmin did.
type Reset struct {
	Token   string // the text of the new one
	Made    APIToken
	Revoked []APIToken // without hashes
}

// ResetAdmin makes AdminUser an admin of everything, whatever it was before, and
// replaces all of its tokens with the one that it returns: whoever resets has lost
// the old one, and perhaps not to a friend. With an error it returns what it has
// revoked until then.
func (s *Service) ResetAdmin(ctx context.Context) (r Reset, err error) {
	if r.Revoked, err = s.RevokeUser(ctx, AdminUser); err != nil {
		return r, err
	}
	if r.Token, r.Made, err = s.makeAdmin(ctx, "made by reset-admin"); err != nil {
		return r, err
	}
	s.record(ctx, Event{Reason: AdminReset, User: AdminUser, Message: "the admin's tokens were replaced"})
	return r, nil
}

func (s *Service) makeAdmin(ctx context.Context, description string) (string, APIToken, error) {
	_, err := s.config.Stores.Users.PutUser(ctx, User{
		Name:     AdminUser,
		Bindings: []Binding{{Role: Admin, Namespace: AllNamespaces}},
	})
	if err != nil {
		return "", APIToken{}, fmt.Errorf("make user %s: %w", AdminUser, err)
	}
	s.UserChanged(AdminUser)
	return s.IssueAPIToken(ctx, AdminUser, description, 0)
}
