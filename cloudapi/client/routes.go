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

func routePath(name, rest string) string { return Prefix + "/routes/" + url.PathEscape(name) + rest }

// PublishRoute gives a route a message. A negative wait leaves the waiting to
// the hub. What is returned is the target's own answer, with any status; or the
// hub's, 200 or 202. A target that sends more than 1 MiB has no answer.
func (c *Client) PublishRoute(ctx context.Context, namespace, name, contentType string, payload []byte, wait time.Duration, opts ...Option) (status int, answer []byte, err error) {
	r := Request{Method: http.MethodPost, Path: routePath(name, "/publish"), Query: url.Values{}, Header: http.Header{}, Body: payload}
	set(r.Query, "namespace", namespace)
	if wait >= 0 {
		r.Query.Set("wait", wait.String())
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	for _, o := range opts {
		o(&r)
	}
	resp, err := c.send(ctx, r)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	if answer, err = io.ReadAll(io.LimitReader(resp.Body, maxProblem)); err != nil {
		return 0, nil, err
	}
	if resp.Header.Get("X-Whimbrel-Answer") != "target" && resp.StatusCode >= 300 {
		return 0, nil, errorOf(resp, answer)
	}
	return resp.StatusCode, answer, nil
}

// DeadLetters returns a page of a route's messages that could not be delivered,
// oldest first. next is the continue of the page after, "" when there is none.
func (c *Client) DeadLetters(ctx context.Context, namespace, name, from string) (items []models.DeadLetter, next string, err error) {
	q := url.Values{}
	set(q, "namespace", namespace)
	set(q, "continue", from)
	var answer struct {
		Metadata struct {
			Continue string `json:"continue"`
		} `json:"metadata"`
		Items []models.DeadLetter `json:"items"`
	}
	_, err = c.call(ctx, Request{Method: http.MethodGet, Path: routePath(name, "/deadletters"), Query: q}, nil, &answer)
	return answer.Items, answer.Metadata.Continue, err
}

// ReplayDeadLetters tries dead letters of a route again, all or those with the
// ids, and returns how many.
func (c *Client) ReplayDeadLetters(ctx context.Context, namespace, name string, ids []int64, opts ...Option) (int, error) {
	q := url.Values{}
	set(q, "namespace", namespace)
	var answer struct {
		Count int `json:"count"`
	}
	_, err := c.call(ctx, Request{Method: http.MethodPost, Path: routePath(name, "/deadletters/replay"), Query: q}, map[string][]int64{"ids": ids}, &answer, opts...)
	return answer.Count, err
}

// DropDeadLetters deletes dead letters of a route, all or those with the ids, and
// returns how many.
func (c *Client) DropDeadLetters(ctx context.Context, namespace, name string, ids []int64) (int, error) {
	q := url.Values{}
	set(q, "namespace", namespace)
	var texts []string
	for _, id := range ids {
		texts = append(texts, strconv.FormatInt(id, 10))
	}
	set(q, "ids", strings.Join(texts, ","))
	var answer struct {
		Count int `json:"count"`
	}
	_, err := c.call(ctx, Request{Method: http.MethodDelete, Path: routePath(name, "/deadletters"), Query: q}, nil, &answer)
	return answer.Count, err
}
