package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// api is the edge's REST API, with what the app may do there.
type api struct {
	url, token string
	http       *http.Client
}

func newAPI(env func(string) string) (*api, error) {
	a := &api{url: env("WHIMBREL_API_URL"), token: env("WHIMBREL_API_TOKEN"), http: &http.Client{Timeout: 10 * time.Second}}
	if a.url == "" || a.token == "" {
		return nil, errors.New("no WHIMBREL_API_URL or WHIMBREL_API_TOKEN: is this an app of an edge?")
	}
	return a, nil
}

// refusal is an answer that asking again does not change.
type refusal struct {
	status int
	body   string
}

func (r refusal) Error() string { return fmt.Sprintf("refused with %d: %s", r.status, r.body) }

func isRefusal(err error) bool {
	var r refusal
	return errors.As(err, &r)
}

// set makes a value desired. The edge keeps it, and goes on trying with the device.
func (a *api) set(ctx context.Context, s Setting) error {
	body, err := json.Marshal(map[string]json.RawMessage{s.Property: s.Value})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPatch, a.url+"/v1/devices/"+url.PathEscape(s.Device)+"/twin/desired", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+a.token)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Whimbrel-Reason", "anomaly score")
	resp, err := a.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	switch {
	case err != nil:
		return err
	case resp.StatusCode < 300:
		return nil
	case resp.StatusCode >= 400 && resp.StatusCode < 500 && resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusLocked:
		return refusal{resp.StatusCode, string(text)}
	}
	return fmt.Errorf("answered with %s: %s", resp.Status, text)
}
