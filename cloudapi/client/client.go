// Package client is the Go client of the hub's REST API. It knows the API by
// its documents only, so importing it brings no server along. Errors that the
// hub answers are *models.Error again.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

// Prefix is where the API's resources are on a server.
const Prefix = "/api/v1"

// headerTimeout is longer than the longest wait that the hub takes.
const headerTimeout = 6 * time.Minute

// Client talks to one hub as one user. It is safe for concurrent use. Where the
// server is an edge's local API instead, twins, desired values, reads and
// recordings of the edge's devices, its pods, their logs and commands in them work
// as at the hub, and all else is an error that AtEdge knows, KindMalformed.
type Client struct {
	server *url.URL
	token  string
	http   *http.Client
}

// New returns a client of the hub at server, an http or https URL. caFile is the
// PEM of the authority to trust, "" for the system's.
func New(server, token, caFile string) (*Client, error) {
	u, err := url.Parse(server)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("server must be an http or https URL, got %q", server)
	}
	u.Path = strings.TrimSuffix(u.Path, "/")
	t := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: headerTimeout,
		IdleConnTimeout:       90 * time.Second,
		TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12},
	}
	if caFile != "" {
		text, err := os.ReadFile(caFile)
		if err != nil {
			return nil, fmt.Errorf("authority to trust: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("authority to trust: %s holds no PEM certificate", caFile)
		}
		t.TLSClientConfig.RootCAs = pool
	}
	return &Client{server: u, token: token, http: &http.Client{Transport: t,
		// The API does not redirect; what does is something else, and must not get
		// the token.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}, nil
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Request is one request to the API.
type Request struct {
	Method string
	Path   string // from the server's root, escaped
	Query  url.Values
	Header http.Header
	Body   []byte
}

// An Option changes a request.
type Option func(*Request)

// IfMatch asks that the object has this ETag or resourceVersion.
func IfMatch(version string) Option {
	if !strings.ContainsAny(version, `"*`) {
		version = `"` + version + `"`
	}
	return header("If-Match", version)
}

// CreateOnly asks of Apply that the object does not exist yet.
func CreateOnly() Option { return header("If-None-Match", "*") }

// IdempotencyKey makes a Create or PatchDesired that is repeated with the same
// key happen once.
func IdempotencyKey(key string) Option { return header("Idempotency-Key", key) }

// Traceparent carries a W3C trace context.
func Traceparent(value string) Option { return header("traceparent", value) }

func header(name, value string) Option {
	return func(r *Request) { r.Header.Set(name, value) }
}

// Do sends a request. A status from 400 is returned as the error that it stands
// for; else the caller closes the response's body.
func (c *Client) Do(ctx context.Context, r Request) (*http.Response, error) {
	resp, err := c.send(ctx, r)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 {
		defer resp.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, maxProblem)) // half a problem is still one
		return nil, errorOf(resp, text)
	}
	return resp, nil
}

const maxProblem = 8 << 20 // a problem may hold a twin

// send sends a request, to an edge in its own form.
func (c *Client) send(ctx context.Context, r Request) (*http.Response, error) {
	resp, err := c.sendOnce(ctx, r)
	if err != nil || !isEdge(resp) {
		return resp, err
	}
	_ = resp.Body.Close()
	if r, err = atEdge(r); err != nil {
		return nil, err
	}
	return c.sendOnce(ctx, r)
}

func (c *Client) sendOnce(ctx context.Context, r Request) (*http.Response, error) {
	u := c.server.String() + r.Path
	if len(r.Query) > 0 {
		u += "?" + r.Query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, u, bytes.NewReader(r.Body))
	if err != nil {
		return nil, err
	}
	if r.Header != nil {
		req.Header = r.Header.Clone()
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	if req.Header.Get("Accept") == "" {
		req.Header.Set("Accept", "application/json")
	}
	return c.http.Do(req)
}

// errorOf is the error that a response stands for.
func errorOf(resp *http.Response, text []byte) error {
	var p models.Problem
	if err := json.Unmarshal(text, &p); err != nil || p.Status != resp.StatusCode {
		return models.Errorf(models.KindOfStatus(resp.StatusCode), "the server answered %s, and not as a Whimbrel hub would", resp.Status)
	}
	return p.Err()
}

// call sends v as JSON, unless it is nil, and decodes the answer into out.
func (c *Client) call(ctx context.Context, r Request, v, out any, opts ...Option) (*http.Response, error) {
	if r.Header == nil {
		r.Header = http.Header{}
	}
	if v != nil {
		var err error
		if r.Body, err = json.Marshal(v); err != nil {
			return nil, fmt.Errorf("encode the request: %w", err)
		}
		if r.Header.Get("Content-Type") == "" {
			r.Header.Set("Content-Type", "application/json")
		}
	}
	for _, o := range opts {
		o(&r)
	}
	resp, err := c.Do(ctx, r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return resp, decode(resp.Body, out)
}

func decode(body io.Reader, out any) error {
	text, err := io.ReadAll(body)
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("decode the answer: %w", err)
	}
	return nil
}

// ListOptions chooses objects or twins.
type ListOptions struct {
	Namespace     string // "" for every one that the user may see
	LabelSelector string
	Limit         int // 0: all
	Continue      string
}

func (o ListOptions) query() url.Values {
	q := url.Values{}
	set(q, "namespace", o.Namespace)
	set(q, "labelSelector", o.LabelSelector)
	set(q, "continue", o.Continue)
	if o.Limit > 0 {
		q.Set("limit", strconv.Itoa(o.Limit))
	}
	return q
}

func set(q url.Values, name, value string) {
	if value != "" {
		q.Set(name, value)
	}
}
