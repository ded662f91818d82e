package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/whimbrel-edge/whimbrel/internal/backoff"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/twin"
)

const (
	// quietLimit is how long a stream may say nothing before it is taken for
	// dead: three times what a hub lets pass at most.
	quietLimit = 90 * time.Second
	maxLine    = 16 << 20
)

// retry is how a stream that was there comes back.
var retry = backoff.Policy{Min: 200 * time.Millisecond, Max: 30 * time.Second, Factor: 2, Jitter: 0.5}

// stopped is an error that ends the stream: of the caller's own function, or of
// a line that is not what it should be.
type stopped struct{ error }

func (s stopped) Unwrap() error { return s.error }

// watched splits a line of a watch, and returns the error that one is.
func watched(line []byte) (models.EventType, json.RawMessage, error) {
	var ev struct {
		Type   models.EventType `json:"type"`
		Object json.RawMessage  `json:"object"`
	}
	if err := json.Unmarshal(line, &ev); err != nil {
		return "", nil, stopped{fmt.Errorf("decode a watch's line: %w", err)}
	}
	if ev.Type != "ERROR" {
		return ev.Type, ev.Object, nil
	}
	var p models.Problem
	if err := json.Unmarshal(ev.Object, &p); err != nil {
		return "", nil, stopped{fmt.Errorf("decode a watch's error: %w", err)}
	}
	return "", nil, p.Err()
}

// Watch calls f with every change of a kind's objects after a resourceVersion
// ("" for: first every object there is as Added, then changes), until ctx ends
// or f fails. A connection that breaks is made again, from where it broke or,
// before the first Bookmark, from the start, so f may be told the same twice.
// When the version is too old the error is KindGone: list again.
func (c *Client) Watch(ctx context.Context, kind string, o ListOptions, resourceVersion string, f func(models.Event) error) error {
	info, err := kindInfo(kind)
	if err != nil {
		return err
	}
	// The versions of the first objects are in the order of names: only after
	// the bookmark behind them is a version a place to come back to.
	ordered := resourceVersion != ""
	return c.follow(ctx, func() Request {
		q := o.query()
		q.Set("watch", "true")
		set(q, "resourceVersion", resourceVersion)
		return Request{Method: http.MethodGet, Path: Prefix + "/" + info.Plural, Query: q}
	}, func(line []byte) error {
		typ, text, err := watched(line)
		if err != nil {
			return err
		}
		object := info.New()
		if err := json.Unmarshal(text, object); err != nil {
			return stopped{fmt.Errorf("decode a watched %s: %w", info.Kind, err)}
		}
		if err := f(models.Event{Type: typ, Object: object}); err != nil {
			return stopped{err}
		}
		version := object.Meta().ResourceVersion
		if typ == models.Bookmark || ordered && later(version, resourceVersion) {
			resourceVersion, ordered = version, true
		}
		return nil
	})
}

func later(a, b string) bool {
	x, errX := strconv.ParseUint(a, 10, 64)
	y, errY := strconv.ParseUint(b, 10, 64)
	return errX == nil && errY == nil && x > y
}

// TwinChange is what changed of a twin: its state and the properties that
// changed.
type TwinChange struct {
	Cursor     string                      `json:"-"`
	Device     string                      `json:"device"`
	Namespace  string                      `json:"namespace"` // "" for "default"
	Version    uint64                      `json:"version"`
	State      models.DeviceState          `json:"state"`
	Properties map[string]twin.PropertyDoc `json:"properties"`
	// Deleted: the device is gone, or no longer one that was asked for.
	Deleted bool `json:"-"`
	// Reset: what was missed is not known any more. Every twin follows; devices of
	// which none comes were deleted.
	Reset bool `json:"-"`
}

// StreamTwins calls f with what changes of twins after a cursor ("" for: first
// every twin whole), until ctx ends or f fails. Limit and Continue mean nothing
// here. A connection that breaks is made again from where it broke.
func (c *Client) StreamTwins(ctx context.Context, o ListOptions, cursor string, f func(TwinChange) error) error {
	o.Limit, o.Continue = 0, ""
	var id, event string
	var data []byte
	return c.follow(ctx, func() Request {
		id, event, data = cursor, "", nil
		r := Request{Method: http.MethodGet, Path: Prefix + "/twins/stream", Query: o.query(), Header: http.Header{"Accept": {"text/event-stream"}}}
		if cursor != "" {
			r.Header.Set("Last-Event-ID", cursor)
		}
		return r
	}, func(line []byte) error {
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(name) {
		case "id":
			id = string(value)
		case "event":
			event = string(value)
		case "data":
			data = append(data, value...)
		}
		if len(line) > 0 {
			return nil
		}
		defer func() { event, data = "", nil }()
		if event != "twin" && event != "deleted" && event != "reset" {
			return nil
		}
		change := TwinChange{Deleted: event == "deleted", Reset: event == "reset"}
		if err := json.Unmarshal(data, &change); err != nil {
			return stopped{fmt.Errorf("decode a change of a twin: %w", err)}
		}
		change.Cursor = id
		if err := f(change); err != nil {
			return stopped{err}
		}
		cursor = id
		return nil
	})
}

// follow reads the lines of a stream. Once it was there it is made again when it
// breaks, with open's request of then; errors of the first time and those that
// trying again cannot help are returned.
func (c *Client) follow(ctx context.Context, open func() Request, line func([]byte) error) error {
	pause, err := backoff.New(retry, rand.Float64)
	if err != nil {
		return err
	}
	for was := false; ; {
		heard, err := c.lines(ctx, open(), line)
		if heard {
			was = true
			pause.Reset()
		}
		var own stopped
		switch {
		case errors.As(err, &own):
			return own.error
		case ctx.Err() != nil:
			return ctx.Err()
		case !was || !again(err):
			return err
		}
		if err := pause.Wait(ctx); err != nil {
			return err
		}
	}
}

// again reports whether an error may pass by itself.
func again(err error) bool {
	var e *models.Error
	if !errors.As(err, &e) {
		return true // the connection's
	}
	switch e.Kind {
	case models.KindTooMany, models.KindInternal, models.KindRefused, models.KindUnavailable, models.KindTimeout:
		return true
	}
	return false
}

// lines reads one connection's lines; heard says that it was accepted.
func (c *Client) lines(ctx context.Context, r Request, line func([]byte) error) (heard bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	resp, err := c.Do(ctx, r)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	quiet := time.AfterFunc(quietLimit, cancel)
	defer quiet.Stop()
	scanner := bufio.NewScanner(resp.Body)
	scanner.Buffer(nil, maxLine)
	scanner.Split(wholeLines)
	for scanner.Scan() {
		quiet.Reset(quietLimit)
		if err := line(scanner.Bytes()); err != nil {
			return true, err
		}
	}
	if err := scanner.Err(); err != nil {
		return true, err
	}
	return true, io.ErrUnexpectedEOF
}

// wholeLines is bufio.ScanLines without the line that a broken connection cuts.
func wholeLines(data []byte, atEOF bool) (advance int, token []byte, err error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, bytes.TrimSuffix(data[:i], []byte("\r")), nil
	}
	if atEOF {
		return len(data), nil, nil
	}
	return 0, nil, nil
}
