package cloudapi

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

// Audit is what the audit endpoint needs.
type Audit interface {
	// Audit returns at most limit entries, newest first: those with ids below
	// before, or all when it is 0.
	Audit(ctx context.Context, before int64, limit int) ([]AuditEntry, error)
}

// AuditEntry says who changed an object or token.
type AuditEntry struct {
	ID              string    `json:"id"`
	Time            time.Time `json:"time"`
	By              string    `json:"by,omitempty"` // user; left out for the hub itself
	Action          string    `json:"action"`       // created, changed or deleted
	Kind            string    `json:"kind"`         // of an object, or Token
	Namespace       string    `json:"namespace,omitempty"`
	Name            string    `json:"name"`          // of a token: its user or node
	UID             string    `json:"uid,omitempty"` // of a token: its id
	ResourceVersion string    `json:"resourceVersion,omitempty"`
	Fields          []string  `json:"fields,omitempty"` // JSON Pointers to what changed
}

type auditList struct {
	Kind     string       `json:"kind"`
	Metadata listMeta     `json:"metadata"`
	Items    []AuditEntry `json:"items"`
}

// The bounds of a page of the audit.
const (
	defaultAudit = 500
	maxAudit     = 10_000
)

func (a *api) auditRoutes() []route {
	return []route{{a.schemas.auditOp(), models.Admin, a.listAudit}}
}

func (a *api) listAudit(c *call) (answer, error) {
	if err := c.caller.may(models.Admin, models.AllNamespaces); err != nil {
		return answer{}, err
	}
	limit, before := defaultAudit, int64(0)
	var err error
	if text := c.query.Get("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil || limit < 0 {
			return answer{}, models.Errorf(models.KindMalformed, "limit must be an int from 0, got %.40q", text)
		}
		if limit > maxAudit {
			return answer{}, models.Errorf(models.KindInvalid, "limit must be at most %d, got %d; continue gives the rest", maxAudit, limit)
		}
		if limit == 0 {
			limit = defaultAudit
		}
	}
	if text := c.query.Get("continue"); text != "" {
		if before, err = strconv.ParseInt(text, 10, 64); err != nil || before < 1 {
			return answer{}, models.Errorf(models.KindMalformed, "continue must be what the page before gave, got %.40q", text)
		}
	}
	entries, err := a.Audit.Audit(c.Context(), before, limit+1) // one more says whether there is more
	if err != nil {
		return answer{}, err
	}
	list := auditList{Kind: "AuditList", Items: append([]AuditEntry{}, entries...)}
	if len(entries) > limit {
		list.Items = list.Items[:limit]
		list.Metadata.Continue = list.Items[limit-1].ID
	}
	return answer{status: http.StatusOK, body: list}, nil
}
