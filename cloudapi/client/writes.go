package client

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/twin"
)

// Writes returns a page of a device's ledger of writes, the newest first. A zero
// Limit is the hub's own.
func (c *Client) Writes(ctx context.Context, namespace, device string, q models.LedgerQuery) (entries []twin.LedgerEntry, next string, err error) {
	r, err := twinRequest(http.MethodGet, namespace, device, "/writes")
	if err != nil {
		return nil, "", err
	}
	for name, value := range map[string]string{"uid": q.UID, "property": q.Property, "state": q.State, "continue": q.Continue} {
		set(r.Query, name, value)
	}
	if !q.Since.IsZero() {
		r.Query.Set("since", q.Since.UTC().Format(time.RFC3339Nano))
	}
	if q.Limit > 0 {
		r.Query.Set("limit", strconv.Itoa(q.Limit))
	}
	var answer struct {
		Metadata struct {
			Continue string `json:"continue"`
		} `json:"metadata"`
		Items []twin.LedgerEntry `json:"items"`
	}
	_, err = c.call(ctx, r, nil, &answer)
	return answer.Items, answer.Metadata.Continue, err
}
