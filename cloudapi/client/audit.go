package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

// AuditOptions chooses entries of the audit. The zero value is all.
type AuditOptions struct {
	models.AuditOptions
	Limit    int // 0: the hub's own
	Continue string
}

// AuditPage is a page of the audit, the newest first.
type AuditPage struct {
	Items           []models.AuditEntry
	ResourceVersion string // watch from here and nothing is missed
	Continue        string // "" on the last page
}

func (o AuditOptions) query() url.Values {
	q := url.Values{}
	for name, value := range map[string]string{"by": o.By, "action": o.Action, "kind": o.Kind, "namespace": o.Namespace, "name": o.Name, "uid": o.UID, "continue": o.Continue} {
		set(q, name, value)
	}
	if !o.Since.IsZero() {
		q.Set("since", o.Since.UTC().Format(time.RFC3339Nano))
	}
	if o.Limit > 0 {
		q.Set("limit", strconv.Itoa(o.Limit))
	}
	return q
}

// Audit returns a page of the audit.
func (c *Client) Audit(ctx context.Context, o AuditOptions) (AuditPage, error) {
	var answer struct {
		Metadata struct {
			ResourceVersion string `json:"resourceVersion"`
			Continue        string `json:"continue"`
		} `json:"metadata"`
		Items []models.AuditEntry `json:"items"`
	}
	_, err := c.call(ctx, Request{Method: http.MethodGet, Path: Prefix + "/audit", Query: o.query()}, nil, &answer)
	return AuditPage{Items: answer.Items, ResourceVersion: answer.Metadata.ResourceVersion, Continue: answer.Metadata.Continue}, err
}

// WatchAudit calls f with every entry after a resourceVersion ("" for: first every
// one there is), in the order in which they were made, until ctx ends or f fails.
// Limit and Continue mean nothing here. A connection that breaks is made again from
// where it broke.
func (c *Client) WatchAudit(ctx context.Context, o AuditOptions, resourceVersion string, f func(models.AuditEntry) error) error {
	o.Limit, o.Continue = 0, ""
	return c.follow(ctx, func() Request {
		q := o.query()
		q.Set("watch", "true")
		set(q, "resourceVersion", resourceVersion)
		return Request{Method: http.MethodGet, Path: Prefix + "/audit", Query: q}
	}, func(line []byte) error {
		typ, object, err := watched(line)
		if err != nil || typ == models.Bookmark {
			return err
		}
		var entry models.AuditEntry
		if err := json.Unmarshal(object, &entry); err != nil {
			return stopped{fmt.Errorf("decode an entry of the audit: %w", err)}
		}
		if err := f(entry); err != nil {
			return stopped{err}
		}
		resourceVersion = entry.ID
		return nil
	})
}
