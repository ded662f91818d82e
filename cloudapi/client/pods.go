package client

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/coder/websocket"

	"github.com/whimbrel-edge/whimbrel/internal/podstream"
	"github.com/whimbrel-edge/whimbrel/models"
)

// LogOptions say what of which log is wanted.
type LogOptions struct {
	Container  string        // "" for the only one
	Revision   int64         // of the pod's template, 0 for the one that serves
	Previous   bool          // of the container's life before
	Follow     bool          // go on with what is said later
	Tail       int           // only the last so many lines; negative for all
	Since      time.Duration // only what was said in that long, 0 for all
	SinceTime  time.Time     // or from then on
	Timestamps bool          // begin lines with their time
	Stream     string        // Stdout or Stderr, "" for both
}

// PodLog returns a container's log, to be closed. With Follow it goes on until the
// pod has ended, or ctx does. A log that breaks off ends with an error that is not
// io.EOF.
func (c *Client) PodLog(ctx context.Context, namespace, name string, o LogOptions) (io.ReadCloser, error) {
	q := url.Values{}
	set(q, "namespace", namespace)
	set(q, "container", o.Container)
	set(q, "stream", o.Stream)
	for name, on := range map[string]bool{"previous": o.Previous, "follow": o.Follow, "timestamps": o.Timestamps} {
		if on {
			q.Set(name, "true")
		}
	}
	if o.Revision > 0 {
		q.Set("revision", strconv.FormatInt(o.Revision, 10))
	}
	if o.Tail >= 0 {
		q.Set("tailLines", strconv.Itoa(o.Tail))
	}
	if o.Since > 0 { // in whole seconds, and not less than was asked for
		q.Set("sinceSeconds", strconv.FormatInt(int64((o.Since+time.Second-1)/time.Second), 10))
	}
	if !o.SinceTime.IsZero() {
		q.Set("sinceTime", o.SinceTime.UTC().Format(time.RFC3339Nano))
	}
	resp, err := c.Do(ctx, Request{Method: http.MethodGet, Path: podPath(name) + "/log", Query: q, Header: http.Header{"Accept": {"text/plain"}}})
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

func podPath(name string) string { return Prefix + "/pods/" + url.PathEscape(name) }

// ExecOptions say what is to run in which container.
type ExecOptions struct {
	Container string // "" for the only one
	Command   []string
	TTY       bool
	// Stdin is nil for a command without input. Its last Read may come back later than
	// Exec.
	Stdin          io.Reader
	Stdout, Stderr io.Writer // Stderr is not used with TTY
	Resize         <-chan podstream.Size
}

// Exec runs a command in a container and returns its exit code. When ctx ends the
// command is ended.
func (c *Client) Exec(ctx context.Context, namespace, name string, o ExecOptions) (exitCode int, err error) {
	q := url.Values{"command": o.Command, "stdout": {"true"}, "stderr": {strconv.FormatBool(!o.TTY)}}
	set(q, "namespace", namespace)
	set(q, "container", o.Container)
	if o.TTY {
		q.Set("tty", "true")
	}
	if o.Stdin != nil {
		q.Set("stdin", "true")
	}
	r := Request{Method: http.MethodGet, Path: podPath(name) + "/exec", Query: q}
	ws, resp, err := c.dial(ctx, r)
	if err != nil && resp != nil && isEdge(resp) {
		if r, err = atEdge(r); err != nil {
			return 0, err
		}
		ws, resp, err = c.dial(ctx, r)
	}
	if err != nil {
		if resp == nil {
			return 0, err
		}
		text, _ := io.ReadAll(resp.Body) // the library gives a kilobyte of it
		var p models.Problem
		if json.Unmarshal(text, &p) == nil {
			return 0, errorOf(resp, text)
		}
		return 0, models.Errorf(models.KindOfStatus(resp.StatusCode), "the server answered %s", resp.Status)
	}
	return podstream.Call(ctx, ws, podstream.Terminal{Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr, Resize: o.Resize})
}

// dialTimeout bounds a command's beginning, not its life.
const dialTimeout = time.Minute

func (c *Client) dial(ctx context.Context, r Request) (*websocket.Conn, *http.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	return websocket.Dial(ctx, c.server.String()+r.Path+"?"+r.Query.Encode(), &websocket.DialOptions{HTTPClient: c.http,
		HTTPHeader: http.Header{"Authorization": {"Bearer " + c.token}}, Subprotocols: []string{podstream.ProtocolV5}, CompressionMode: websocket.CompressionDisabled})
}
