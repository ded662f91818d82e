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
	// WatchAudit calls send with every entry whose id is above after, in the order
	// of ids, and then with new ones, until ctx ends or send fails.
	WatchAudit(ctx context.Context, after int64, send func(AuditEntry) error) error
}

// AuditEntry says who changed an object or token, or ran a command in a pod.
type AuditEntry struct {
	ID              string    `json:"id"`
	Time            time.Time `json:"time"`
	By              string    `json:"by,omitempty"` // user; left out for the hub itself
	Action          string    `json:"action"`       // created, changed or deleted; of nodes also joined and renewed, of pods also exec and exec-ended
	Kind            string    `json:"kind"`         // of an object, or Token
	Namespace       string    `json:"namespace,omitempty"`
	Name            string    `json:"name"`          // of a token: its user or node
	UID             string    `json:"uid,omitempty"` // of a token: its id
	ResourceVersion string    `json:"resourceVersion,omitempty"`
	Fields          []string  `json:"fields,omitempty"` // JSON Pointers to what changed
	// Exec is of the actions exec, before a command starts in a pod, and exec-ended.
	Exec *models.ExecRecord `json:"exec,omitempty"`
}

type auditList struct {
	Kind     string       `json:"kind"`
	Metadata listMeta     `json:"metadata"`
	Items    []AuditEntry `json:"items"`
}

func (a *api) auditRoutes() []route {
	return []route{{a.schemas.auditOp(), models.Admin, a.listAudit}}
}

func (a *api) listAudit(c *call) (answer, error) {
	if err := c.caller.may(models.Admin, models.AllNamespaces); err != nil {
		return answer{}, err
	}
	watch, err := c.flag("watch")
	if err != nil {
		return answer{}, err
	}
	if watch {
		return a.watchAudit(c)
	}
	if c.query.Has("resourceVersion") {
		return answer{}, models.Errorf(models.KindMalformed, "resourceVersion is for watch=true")
	}
	limit, at, err := c.page()
	if err != nil {
		return answer{}, err
	}
	before := int64(0)
	if at != "" {
		if before, err = strconv.ParseInt(at, 10, 64); err != nil || before < 1 {
			return answer{}, models.Errorf(models.KindMalformed, "continue must be what the page before gave, got %.40q", at)
		}
	}
	entries, err := a.Audit.Audit(c.Context(), before, limit+1) // one more says whether there is more
	if err != nil {
		return answer{}, err
	}
	list := auditList{Kind: "AuditList", Items: append([]AuditEntry{}, entries...)}
	if before == 0 && len(entries) > 0 {
		list.Metadata.ResourceVersion = entries[0].ID
	} else if before == 0 {
		list.Metadata.ResourceVersion = "0"
	}
	if len(entries) > limit {
		list.Items = list.Items[:limit]
		list.Metadata.Continue = list.Items[limit-1].ID
	}
	return answer{status: http.StatusOK, body: list}, nil
}

// watchAudit follows the audit: a version is an entry's id, and every entry is
// ADDED.
func (a *api) watchAudit(c *call) (answer, error) {
	return c.follow("audit", func(ctx context.Context, from string, send func(string, watchEvent) error) error {
		after := int64(0)
		if from != "" {
			var err error
			if after, err = strconv.ParseInt(from, 10, 64); err != nil {
				return models.Errorf(models.KindMalformed, "resourceVersion must be one that a list or a watch gave, got %.40q", from)
			}
		}
		return a.Audit.WatchAudit(ctx, after, func(e AuditEntry) error { return send(e.ID, watchEvent{models.Added, e}) })
	})
}
