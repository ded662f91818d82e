package cloudapi

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

// Audit is what the audit endpoint needs.
type Audit interface {
	// Audit returns at most limit of the entries that are chosen, newest first: those
	// with ids below before, or all when it is 0.
	Audit(ctx context.Context, o models.AuditOptions, before int64, limit int) ([]models.AuditEntry, error)
	// WatchAudit calls send with every entry that is chosen and whose id is above
	// after, in the order of ids, and then with new ones, until ctx ends or send fails.
	WatchAudit(ctx context.Context, o models.AuditOptions, after int64, send func(models.AuditEntry) error) error
}

type auditList struct {
	Kind     string              `json:"kind"`
	Metadata listMeta            `json:"metadata"`
	Items    []models.AuditEntry `json:"items"`
}

func (a *api) auditRoutes() []route {
	return []route{{a.schemas.auditOp(), models.Admin, a.listAudit}}
}

func (a *api) listAudit(c *call) (answer, error) {
	if err := c.caller.may(models.Admin, models.AllNamespaces); err != nil {
		return answer{}, err
	}
	opts, err := c.auditOptions()
	if err != nil {
		return answer{}, err
	}
	watch, err := c.flag("watch")
	if err != nil {
		return answer{}, err
	}
	if watch {
		return a.watchAudit(c, opts)
	}
	if c.query.Has("resourceVersion") {
		return answer{}, models.BadParameter(models.KindMalformed, "resourceVersion", "is for watch=true")
	}
	limit, at, err := c.page()
	if err != nil {
		return answer{}, err
	}
	before := int64(0)
	if at != "" {
		if before, err = strconv.ParseInt(at, 10, 64); err != nil || before < 1 {
			return answer{}, models.BadParameter(models.KindMalformed, "continue", "must be what the page before gave, got %.40q", at)
		}
	}
	entries, err := a.Audit.Audit(c.Context(), opts, before, limit+1) // one more says whether there is more
	if err != nil {
		return answer{}, err
	}
	list := auditList{Kind: "AuditList", Items: append([]models.AuditEntry{}, entries...)}
	if before == 0 {
		list.Metadata.ResourceVersion = "0"
		if len(entries) > 0 {
			list.Metadata.ResourceVersion = entries[0].ID
		}
	}
	if len(entries) > limit {
		list.Items = list.Items[:limit]
		list.Metadata.Continue = list.Items[limit-1].ID
	}
	return answer{status: http.StatusOK, body: list}, nil
}

func (c *call) auditOptions() (o models.AuditOptions, err error) {
	o = models.AuditOptions{By: c.query.Get("by"), Action: c.query.Get("action"), Kind: c.query.Get("kind"), Name: c.query.Get("name"), UID: c.query.Get("uid")}
	if o.Action != "" && !slices.Contains(models.AuditActions, o.Action) {
		return o, models.BadParameter(models.KindInvalid, "action", "must be one of %s, got %.40q", strings.Join(models.AuditActions, ", "), o.Action)
	}
	if o.Kind != "" {
		if o.Kind, err = models.AuditKind(o.Kind); err != nil {
			return o, err
		}
	}
	if o.Namespace, err = c.givenNamespace(); err != nil {
		return o, err
	}
	o.Since, err = c.moment("since", time.Time{}, time.Now())
	return o, err
}

// watchAudit follows the audit: a version is an entry's id, and every entry is
// ADDED.
func (a *api) watchAudit(c *call, opts models.AuditOptions) (answer, error) {
	return c.follow("audit", func(ctx context.Context, from string, send func(string, watchEvent) error) error {
		after := int64(0)
		if from != "" {
			var err error
			if after, err = strconv.ParseInt(from, 10, 64); err != nil {
				return models.BadParameter(models.KindMalformed, "resourceVersion", "must be one that a list or a watch gave, got %.40q", from)
			}
		}
		return a.Audit.WatchAudit(ctx, opts, after, func(e models.AuditEntry) error { return send(e.ID, watchEvent{models.Added, e}) })
	})
}
