package cloudapi

import (
	"net/http"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

// tokenRequest is the body of POST /tokens: a node or a user.
type tokenRequest struct {
	Node string           `json:"node,omitempty"`
	User string           `json:"user,omitempty"`
	TTL  *models.Duration `json:"ttl,omitempty"`
}

// tokenAnswer is a new token. The secret is told here and never again.
type tokenAnswer struct {
	Token   string     `json:"token"`
	Expires *time.Time `json:"expires,omitempty"`
	Command string     `json:"command,omitempty"` // a node's: what to run there
	ID      string     `json:"id,omitempty"`      // a user's: what to delete it by
}

type tokenList struct {
	Kind     string      `json:"kind"`
	Metadata listMeta    `json:"metadata"`
	Items    []TokenInfo `json:"items"`
}

// The lives of tokens.
const (
	defaultJoinTTL = time.Hour
	maxJoinTTL     = 30 * 24 * time.Hour
	maxUserTTL     = 10 * 365 * 24 * time.Hour
)

func (a *api) tokenRoutes() []route {
	return []route{
		{a.schemas.tokensOp(), models.Admin, a.listTokens},
		{a.schemas.createTokenOp(), models.Admin, a.createToken},
		{a.schemas.deleteTokenOp(), models.Admin, a.deleteToken},
	}
}

func (a *api) listTokens(c *call) (answer, error) {
	if err := c.caller.may(models.Admin, models.AllNamespaces); err != nil {
		return answer{}, err
	}
	tokens, err := a.Access.Tokens(c.Context())
	if err != nil {
		return answer{}, err
	}
	if tokens == nil {
		tokens = []TokenInfo{}
	}
	return answer{status: http.StatusOK, body: tokenList{Kind: "TokenList", Items: tokens}}, nil
}

func (a *api) createToken(c *call) (answer, error) {
	if err := c.caller.may(models.Admin, models.AllNamespaces); err != nil {
		return answer{}, err
	}
	text, err := c.body()
	if err != nil {
		return answer{}, err
	}
	var req tokenRequest
	if err := models.DecodeInto(text, &req); err != nil {
		return answer{}, malformed(err)
	}
	ttl, err := req.check()
	if err != nil {
		return answer{}, err
	}
	return c.onceSecret(text, func() (answer, error) {
		if req.Node != "" {
			t, err := a.Access.CreateJoinToken(c.Context(), req.Node, ttl, c.caller.Name)
			if err != nil {
				return answer{}, err
			}
			return answer{status: http.StatusCreated, body: tokenAnswer{Token: t.Token, Expires: moment(t.Expires), Command: t.Command}}, nil
		}
		token, id, expires, err := a.Access.CreateUserToken(c.Context(), req.User, ttl, c.caller.Name)
		if err != nil {
			return answer{}, err
		}
		return answer{status: http.StatusCreated, body: tokenAnswer{Token: token, Expires: moment(expires), ID: id}}, nil
	})
}

func (r tokenRequest) check() (ttl time.Duration, err error) {
	most := time.Duration(maxUserTTL)
	switch {
	case r.Node == "" && r.User == "":
		return 0, models.Invalid("", "needs node, for a join token, or user, for an API token")
	case r.Node != "" && r.User != "":
		return 0, models.Invalid("/user", "cannot stand beside node: ask for one token at a time")
	case r.Node != "":
		if msg := models.CheckSubdomain(r.Node); msg != "" {
			return 0, models.Invalid("/node", "%s", msg)
		}
		ttl, most = defaultJoinTTL, maxJoinTTL
	default:
		if msg := models.CheckSubdomain(r.User); msg != "" {
			return 0, models.Invalid("/user", "%s", msg)
		}
	}
	if r.TTL == nil {
		return ttl, nil
	}
	if ttl = r.TTL.Std(); ttl < time.Second || ttl > most {
		return 0, models.Invalid("/ttl", "must be from 1s to %s, got %s", most, ttl)
	}
	return ttl, nil
}

func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func (a *api) deleteToken(c *call) (answer, error) {
	if err := c.caller.may(models.Admin, models.AllNamespaces); err != nil {
		return answer{}, err
	}
	if err := a.Access.DeleteToken(c.Context(), c.param("id"), c.caller.Name); err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusNoContent}, nil
}
