package client

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/twin"
)

func twinRequest(method, namespace, name, path string) (Request, error) {
	r, _, err := request(method, models.Key{Kind: "Device", Namespace: namespace, Name: name})
	r.Path += path
	return r, err
}

// Twin returns a device's twin. namespace "" is the default one.
func (c *Client) Twin(ctx context.Context, namespace, name string) (twin.Document, error) {
	r, err := twinRequest(http.MethodGet, namespace, name, "/twin")
	if err != nil {
		return twin.Document{}, err
	}
	var doc twin.Document
	_, err = c.call(ctx, r, nil, &doc)
	return doc, err
}

// TwinAt returns a device's twin as it was at a time; with a uid also that of a
// device that was deleted.
func (c *Client) TwinAt(ctx context.Context, namespace, name, uid string, at time.Time) (twin.Document, error) {
	r, err := twinRequest(http.MethodGet, namespace, name, "/twin")
	if err != nil {
		return twin.Document{}, err
	}
	r.Query.Set("at", at.UTC().Format(time.RFC3339Nano))
	set(r.Query, "uid", uid)
	var doc twin.Document
	_, err = c.call(ctx, r, nil, &doc)
	return doc, err
}

// Twins returns twins by namespace and name, and where the next page goes on.
func (c *Client) Twins(ctx context.Context, o ListOptions) (docs []twin.Document, next string, err error) {
	var answer struct {
		Metadata struct {
			Continue string `json:"continue"`
		} `json:"metadata"`
		Items []twin.Document `json:"items"`
	}
	_, err = c.call(ctx, Request{Method: http.MethodGet, Path: Prefix + "/twins", Query: o.query()}, nil, &answer)
	return answer.Items, answer.Metadata.Continue, err
}

// DesiredOptions are the circumstances of a change to desired values.
type DesiredOptions struct {
	Wait   time.Duration // for the device to confirm; 0: do not wait
	Expire time.Duration // withdraw when unconfirmed for that long; 0: never
	Reason string
}

// PatchDesired changes desired values: a null withdraws. With a Wait it returns
// nil only when the device has confirmed; else the error is KindRefused,
// KindUnavailable or KindTimeout, the write is stored all the same, and the
// twin is returned beside the error.
func (c *Client) PatchDesired(ctx context.Context, namespace, name string, patch map[string]models.Value, o DesiredOptions, opts ...Option) (twin.Document, error) {
	text, err := json.Marshal(patch)
	if err != nil {
		return twin.Document{}, err
	}
	return c.PatchDesiredText(ctx, namespace, name, text, o, opts...)
}

// PatchDesiredText is PatchDesired for a patch in JSON or YAML.
func (c *Client) PatchDesiredText(ctx context.Context, namespace, name string, patch []byte, o DesiredOptions, opts ...Option) (twin.Document, error) {
	r, err := twinRequest(http.MethodPatch, namespace, name, "/twin/desired")
	if err != nil {
		return twin.Document{}, err
	}
	r.Body = patch
	r.Header.Set("Content-Type", "application/merge-patch+json")
	if o.Reason != "" {
		r.Header.Set("X-Whimbrel-Reason", o.Reason)
	}
	if o.Wait > 0 {
		r.Query.Set("wait", o.Wait.String())
	}
	if o.Expire > 0 {
		r.Query.Set("expire", o.Expire.String())
	}
	for _, opt := range opts {
		opt(&r)
	}
	resp, err := c.send(ctx, r)
	if err != nil {
		return twin.Document{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode < 300 {
		var doc twin.Document
		err := decode(resp.Body, &doc)
		return doc, err
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxProblem)) // half a problem is still one
	var stored struct {
		Twin twin.Document `json:"twin"`
	}
	_ = json.Unmarshal(body, &stored) // there is a twin only where the write was stored
	return stored.Twin, errorOf(resp, body)
}

// Desired returns a device's desired values and their ETag.
func (c *Client) Desired(ctx context.Context, namespace, name string) (values map[string]models.Value, etag string, err error) {
	r, err := twinRequest(http.MethodGet, namespace, name, "/twin/desired")
	if err != nil {
		return nil, "", err
	}
	resp, err := c.call(ctx, r, nil, &values)
	if err != nil {
		return nil, "", err
	}
	return values, resp.Header.Get("ETag"), nil
}

// ReadDevice reads properties from the device, now: nil for all. Errors are
// KindUnavailable when its node is offline, KindTimeout when the device is silent
// for longer than wait (0: 10 s), KindRefused when it says no.
func (c *Client) ReadDevice(ctx context.Context, namespace, name string, properties []string, wait time.Duration) (map[string]models.Reading, error) {
	r, err := twinRequest(http.MethodPost, namespace, name, "/read")
	if err != nil {
		return nil, err
	}
	if wait > 0 {
		r.Query.Set("wait", wait.String())
	}
	var answer models.Readings
	_, err = c.call(ctx, r, models.ReadingsRequest{Properties: properties}, &answer)
	return answer.Properties, err
}

// BrowseDevice looks around in a device and calls found with what it offers, until
// found fails. Errors are those of ReadDevice.
func (c *Client) BrowseDevice(ctx context.Context, namespace, name string, found func(models.Found) error) error {
	r, err := twinRequest(http.MethodPost, namespace, name, "/browse")
	if err != nil {
		return err
	}
	resp, err := c.Do(ctx, r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	d := json.NewDecoder(resp.Body)
	for {
		var line struct {
			models.Found
			Problem *models.Problem `json:"problem"`
		}
		err := d.Decode(&line)
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case line.Problem != nil:
			return line.Problem.Err()
		}
		if err := found(line.Found); err != nil {
			return err
		}
	}
}

// Token is a new token. Its secret is told once.
type Token struct {
	Token   string     `json:"token"`
	Expires *time.Time `json:"expires,omitempty"`
	Command string     `json:"command,omitempty"` // of a join token: what to run at the edge
	ID      string     `json:"id,omitempty"`      // of an API token: what to delete it by
}

// TokenInfo is a token without its secret.
type TokenInfo struct {
	ID      string     `json:"id"`
	Kind    string     `json:"kind"` // join or user
	Node    string     `json:"node,omitempty"`
	User    string     `json:"user,omitempty"`
	Created time.Time  `json:"created"`
	Expires *time.Time `json:"expires,omitempty"`
}

type tokenRequest struct {
	Node string `json:"node,omitempty"`
	User string `json:"user,omitempty"`
	TTL  string `json:"ttl,omitempty"`
}

// CreateJoinToken makes a token with which a node can join once. ttl 0: an hour.
func (c *Client) CreateJoinToken(ctx context.Context, node string, ttl time.Duration, opts ...Option) (Token, error) {
	return c.createToken(ctx, tokenRequest{Node: node}, ttl, opts)
}

// CreateUserToken makes an API token for a user that exists. ttl 0: it does not
// expire.
func (c *Client) CreateUserToken(ctx context.Context, user string, ttl time.Duration, opts ...Option) (Token, error) {
	return c.createToken(ctx, tokenRequest{User: user}, ttl, opts)
}

func (c *Client) createToken(ctx context.Context, r tokenRequest, ttl time.Duration, opts []Option) (t Token, err error) {
	if ttl != 0 {
		r.TTL = ttl.String()
	}
	_, err = c.call(ctx, Request{Method: http.MethodPost, Path: Prefix + "/tokens"}, r, &t, opts...)
	return t, err
}

// Tokens lists the tokens there are.
func (c *Client) Tokens(ctx context.Context) ([]TokenInfo, error) {
	var answer struct {
		Items []TokenInfo `json:"items"`
	}
	_, err := c.call(ctx, Request{Method: http.MethodGet, Path: Prefix + "/tokens"}, nil, &answer)
	return answer.Items, err
}

// DeleteToken revokes a token.
func (c *Client) DeleteToken(ctx context.Context, id string) error {
	_, err := c.call(ctx, Request{Method: http.MethodDelete, Path: Prefix + "/tokens/" + url.PathEscape(id)}, nil, nil)
	return err
}

// RecordDevice writes what the device's mapper sees on the wire to w, as it
// comes, for as long as length says. A recording that is cut short lacks its last
// line. Errors are those of ReadDevice, and KindConflict while the device is being
// recorded already.
func (c *Client) RecordDevice(ctx context.Context, namespace, name string, length time.Duration, w io.Writer) error {
	r, err := twinRequest(http.MethodGet, namespace, name, "/recording")
	if err != nil {
		return err
	}
	r.Query.Set("for", length.String())
	resp, err := c.Do(ctx, r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(w, resp.Body)
	return err
}
