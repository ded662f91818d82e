package client

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

// The media types of ExportHistory.
const (
	CSV       = "text/csv"
	JSONLines = "application/x-ndjson"
)

// History returns one page of a property's history. From and To may be zero: then
// the hub takes the last hour; a zero Limit is the hub's own.
func (c *Client) History(ctx context.Context, namespace, device, property string, q models.HistoryQuery) (models.History, error) {
	r, err := historyRequest(namespace, device, property, q)
	if err != nil {
		return models.History{}, err
	}
	var page models.History
	_, err = c.call(ctx, r, nil, &page)
	return page, err
}

// ExportHistory writes all that q asks for to w as it comes, in CSV or JSONLines.
// An answer that ends too early is an error; w then holds a part.
func (c *Client) ExportHistory(ctx context.Context, namespace, device, property string, q models.HistoryQuery, format string, w io.Writer) error {
	r, err := historyRequest(namespace, device, property, q)
	if err != nil {
		return err
	}
	r.Header.Set("Accept", format)
	resp, err := c.Do(ctx, r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(w, resp.Body)
	return err
}

func historyRequest(namespace, device, property string, q models.HistoryQuery) (Request, error) {
	r, err := twinRequest(http.MethodGet, namespace, device, "/properties/"+url.PathEscape(property)+"/history")
	if err != nil {
		return r, err
	}
	if !q.From.IsZero() {
		r.Query.Set("from", q.From.UTC().Format(time.RFC3339Nano))
	}
	if !q.To.IsZero() {
		r.Query.Set("to", q.To.UTC().Format(time.RFC3339Nano))
	}
	if q.Step > 0 {
		r.Query.Set("step", q.Step.String())
	}
	if len(q.Agg) > 0 {
		names := make([]string, len(q.Agg))
		for i, a := range q.Agg {
			names[i] = string(a)
		}
		r.Query.Set("agg", strings.Join(names, ","))
	}
	if q.Limit > 0 {
		r.Query.Set("limit", strconv.Itoa(q.Limit))
	}
	set(r.Query, "continue", q.Continue)
	set(r.Query, "uid", q.UID)
	return r, nil
}
