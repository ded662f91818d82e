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

// EventOptions chooses events. The zero value is all that the user may see.
type EventOptions struct {
	Namespace string // "" for every one that the user may see
	Kind      string
	Name      string
	Type      models.Severity
	Reason    string
	Since     time.Time
	Limit     int // 0: the hub's own
	Continue  string
}

func (o EventOptions) query() url.Values {
	q := url.Values{}
	for name, value := range map[string]string{"namespace": o.Namespace, "kind": o.Kind, "name": o.Name, "type": string(o.Type), "reason": o.Reason, "continue": o.Continue} {
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

// Events returns a page of events, the latest first.
func (c *Client) Events(ctx context.Context, o EventOptions) (models.LoggedEvents, error) {
	var answer struct {
		Metadata struct {
			ResourceVersion string `json:"resourceVersion"`
			Continue        string `json:"continue"`
		} `json:"metadata"`
		Items []models.LoggedEvent `json:"items"`
	}
	_, err := c.call(ctx, Request{Method: http.MethodGet, Path: Prefix + "/events", Query: o.query()}, nil, &answer)
	return models.LoggedEvents{Items: answer.Items, ResourceVersion: answer.Metadata.ResourceVersion, Continue: answer.Metadata.Continue}, err
}

// WatchEvents calls f with every event that is new or has changed after a
// resourceVersion ("" for: first every one there is), in the order in which they
// are recorded, until ctx ends or f fails. Limit and Continue mean nothing here. A
// connection that breaks is made again from where it broke.
func (c *Client) WatchEvents(ctx context.Context, o EventOptions, resourceVersion string, f func(models.EventChange) error) error {
	o.Limit, o.Continue = 0, ""
	return c.follow(ctx, func() Request {
		q := o.query()
		q.Set("watch", "true")
		set(q, "resourceVersion", resourceVersion)
		return Request{Method: http.MethodGet, Path: Prefix + "/events", Query: q}
	}, func(line []byte) error {
		typ, object, err := watched(line)
		if err != nil {
			return err
		}
		change := models.EventChange{Type: typ}
		if err := json.Unmarshal(object, &change.Event); err != nil {
			return stopped{fmt.Errorf("decode a watched event: %w", err)}
		}
		if err := f(change); err != nil {
			return stopped{err}
		}
		resourceVersion = change.Event.Metadata.ResourceVersion
		return nil
	})
}
