package cloudapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/twin"
)

// problem is how every error is answered. Twin is there when a write was
// stored and its fate is the problem.
type problem struct {
	models.Problem
	Twin *twin.Document `json:"twin,omitempty"`
}

// fate is the error of a write that was stored: it carries the twin.
type fate struct {
	error
	twin twin.Document
}

func (f fate) Unwrap() error { return f.error }

var (
	errNoPath = models.Errorf(models.KindNotFound, "there is nothing at this path; /openapi.json lists what there is")
	// errMethod has no kind: models' kinds are what can be wrong with a request
	// wherever it comes from, and only HTTP has methods.
	errMethod = errors.New("the method is not allowed here; the Allow header lists those that are")
)

func problemOf(err error) problem {
	if errors.Is(err, errMethod) {
		return problem{Problem: models.Problem{Type: "about:blank", Title: http.StatusText(http.StatusMethodNotAllowed),
			Status: http.StatusMethodNotAllowed, Detail: err.Error()}}
	}
	p := problem{Problem: models.ProblemOf(err)}
	var f fate
	if errors.As(err, &f) {
		p.Twin = &f.twin
	}
	return p
}

// send writes an answer, or the problem that err is. Nothing else writes a
// status, but for begin, with which streams start, and what serves /metrics.
func (c *call) send(a answer, err error) {
	if a.sent && err == nil {
		return
	}
	h := c.w.Header()
	contentType := "application/json"
	if err != nil {
		if c.Context().Err() != nil && errors.Is(err, context.Canceled) {
			c.w.status = 499 // for the log; nobody is there to read an answer
			return
		}
		p := problemOf(err)
		if models.KindOf(err) == models.KindInternal && p.Status == http.StatusInternalServerError {
			c.api.Log.ErrorContext(c.Context(), "request failed", "method", c.Method, "path", c.URL.Path, "error", err, "traceparent", c.trace)
		}
		a = answer{status: p.Status, body: p}
		contentType = "application/problem+json"
		switch p.Status {
		case http.StatusUnauthorized:
			h.Set("WWW-Authenticate", challenge(c.Request))
		case http.StatusTooManyRequests:
			h.Set("Retry-After", retryAfter(err))
		case http.StatusServiceUnavailable:
			if knows := (retrier)(nil); errors.As(err, &knows) {
				h.Set("Retry-After", retryAfter(err))
			}
		}
	} else if a.status >= 400 { // a problem that is being replayed
		contentType = "application/problem+json"
	}
	if a.contentType != "" {
		contentType = a.contentType
		h.Set("X-Content-Type-Options", "nosniff")
	}
	text, err := a.json()
	if err == nil && contentType == "application/json" && len(text) > 0 && wantsYAML(c.Header.Values("Accept")) {
		text, err = yamlOf(text)
		contentType = "application/yaml"
	}
	if err != nil {
		c.api.Log.ErrorContext(c.Context(), "cannot encode an answer", "method", c.Method, "path", c.URL.Path, "error", err)
		a, text, contentType = answer{status: http.StatusInternalServerError}, nil, ""
	}
	if a.etag != "" {
		h.Set("ETag", a.etag)
	}
	if a.location != "" {
		h.Set("Location", a.location)
	}
	if a.fromTarget {
		h.Set("X-Whimbrel-Answer", "target")
	}
	if a.replayed {
		h.Set("Idempotency-Replayed", "true")
	}
	if a.contentType == "" {
		text = c.zipped(contentType, text)
	}
	if len(text) > 0 {
		h.Set("Content-Type", contentType)
		h.Set("Content-Length", strconv.Itoa(len(text)))
	}
	c.begin(a.status)
	_, _ = c.w.Write(text) // a peer that is gone learns nothing
}

// begin writes the status. The deadline is for this write: the one before may
// be over, and the connection's next request sets its own.
func (c *call) begin(status int) {
	_ = http.NewResponseController(c.w).SetWriteDeadline(time.Now().Add(c.api.WriteTimeout))
	c.w.WriteHeader(status)
}

func (a answer) json() ([]byte, error) {
	if a.raw != nil || a.body == nil {
		return a.raw, nil
	}
	if long, ok := a.body.(appender); ok {
		return append(long.AppendJSON(nil), '\n'), nil
	}
	return encode(a.body)
}

// appender is what writes its JSON text itself, since it is long.
type appender interface{ AppendJSON(b []byte) []byte }

// encode is json.Marshal without HTML escapes, and with a line's end.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return b.Bytes(), err
}

// retrier is an error that knows when to come back.
type retrier interface{ RetryAfter() time.Duration }

// retryAfter says in seconds when a throttled caller may come back. An error
// that knows has a method RetryAfter.
func retryAfter(err error) string {
	var knows retrier
	seconds := 1.0
	if errors.As(err, &knows) {
		seconds = max(1, math.Ceil(knows.RetryAfter().Seconds()))
	}
	return strconv.FormatFloat(seconds, 'f', 0, 64)
}

var yamlTypes = []string{"application/yaml", "application/x-yaml", "text/yaml"}

// wantsYAML reports whether an Accept header prefers YAML to JSON.
func wantsYAML(accept []string) bool {
	best := map[bool]float64{}
	for part := range strings.SplitSeq(strings.Join(accept, ","), ",") {
		kind, params, err := mime.ParseMediaType(part)
		if err != nil {
			continue
		}
		q := 1.0
		if text, ok := params["q"]; ok {
			if q, err = strconv.ParseFloat(text, 64); err != nil {
				continue
			}
		}
		isYAML := slices.Contains(yamlTypes, kind)
		best[isYAML] = max(best[isYAML], q)
	}
	return best[true] > best[false]
}

// yamlOf turns JSON into YAML, in the same order. JSON is read as the YAML that
// it is, then shown in YAML's own style; numbers keep their digits.
func yamlOf(text []byte) ([]byte, error) {
	var node yaml.Node
	if err := yaml.Unmarshal(text, &node); err != nil {
		return nil, err
	}
	restyle(&node)
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(&node); err != nil {
		return nil, err
	}
	return b.Bytes(), e.Close()
}

func restyle(n *yaml.Node) {
	if n.Style&yaml.DoubleQuotedStyle != 0 {
		n.Tag = "!!str"
		if !plainWord(n.Value) {
			return // quoted as it is
		}
	}
	n.Style = 0
	if len(n.Content) == 0 && n.Kind != yaml.ScalarNode {
		n.Style = yaml.FlowStyle // {} and []
	}
	for _, c := range n.Content {
		restyle(c)
	}
}

// plainWord reports whether a string can do without quotes in the eyes of any
// YAML reader: the old ones take on, off, yes, no and 12:30 for something else.
// The encoder adds quotes where the rest of the text needs them.
func plainWord(s string) bool {
	if s == "" || !(s[0] >= 'a' && s[0] <= 'z' || s[0] >= 'A' && s[0] <= 'Z') {
		return false
	}
	switch strings.ToLower(s) {
	case "y", "n", "yes", "no", "on", "off", "true", "false", "null":
		return false
	}
	return true
}
