package appproxy

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

// Bounds of a Pool.
const (
	// Kept is for how long a connection to an app is kept for another request. It is
	// short: an app that takes one connection at a time is held up no longer by
	// one that nobody uses, nor do requests follow a pod that is on its way out.
	Kept = time.Second

	keptOfPlace = 24
	keptOfAll   = 1024 // beyond, those that have been idle longest are closed
)

// Place is one pod's port. One connection to it is as good as another.
type Place struct {
	Pool *Pool // which keeps them
	// Key is the same for the same pod, as long as it is the same program that is to
	// be reached there.
	Key  string
	Dial func(ctx context.Context) (net.Conn, error)
}

// Pool keeps connections to apps for requests that come soon after. Only those go
// over it that may be sent twice (RFC 9110 section 9.2.2): an app may close a
// connection in the moment when one of them is sent, and then nobody knows
// whether it has been read. Its methods may be called from any goroutine.
type Pool struct{ http *http.Transport }

// NewPool returns an empty pool.
func NewPool() *Pool {
	return &Pool{&http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			dial, ok := ctx.Value(dialKey{}).(func(context.Context) (net.Conn, error))
			if !ok {
				return nil, errors.New("no way to the app") // unreachable: overKept has put it there
			}
			conn, err := dial(ctx)
			if err != nil {
				return nil, &dialError{err}
			}
			return newAwake(conn, Idle), nil
		},
		DisableCompression: true, MaxResponseHeaderBytes: maxAnswerHeader,
		MaxIdleConns: keptOfAll, MaxIdleConnsPerHost: keptOfPlace, IdleConnTimeout: Kept,
	}}
}

// Close closes the connections that nobody uses now. The pool can be used on.
func (p *Pool) Close() { p.http.CloseIdleConnections() }

type dialKey struct{}

// dialError is an error of Place.Dial: nothing has been sent.
type dialError struct{ error }

func (e *dialError) Unwrap() error { return e.error }

// errLate ends a request whose answer does not begin in time.
var errLate = errors.New("the answer is late")

// keeps reports whether a request may go over a kept connection. Answers to HEAD
// are left out: of an app that sends a body with one, the next answer would be
// that body.
func keeps(r *http.Request) bool {
	return r.Method == http.MethodGet && (r.Body == nil || r.Body == http.NoBody) && r.ContentLength == 0 && len(r.Header["Upgrade"]) == 0 && len(r.Header["Expect"]) == 0
}

// overKept sends a request over a connection of the pool, which dials one if none
// is idle.
func (t *transport) overKept(r *http.Request, place Place) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(context.WithValue(r.Context(), dialKey{}, place.Dial))
	t.done = func() { cancel(nil) }
	var late *time.Timer
	var mu sync.Mutex // of late and conn: hooks are called by the connection's goroutines
	var conn net.Conn
	over := false
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(i httptrace.GotConnInfo) {
			mu.Lock()
			defer mu.Unlock()
			conn = i.Conn
		},
		WroteRequest: func(httptrace.WroteRequestInfo) {
			mu.Lock()
			defer mu.Unlock()
			if late == nil && !over {
				late = time.AfterFunc(t.headerTimeout, func() { cancel(errLate) })
			}
		},
	})
	out := r.WithContext(ctx)
	url := *r.URL
	url.Host = place.Key
	out.URL = &url
	res, err := place.Pool.http.RoundTrip(out)
	mu.Lock()
	defer mu.Unlock()
	over = true
	if late != nil {
		late.Stop()
	}
	if a, ok := conn.(*awake); ok {
		t.conn = a.Conn
	}
	var dial *dialError
	if errors.As(err, &dial) {
		t.dialErr = dial.error
	}
	if err != nil && context.Cause(ctx) == errLate { //nolint:errorlint // it is ours
		err = errLate
	}
	return res, err
}

// elsewhere reports whether a request that has failed has certainly not reached an
// app and may be sent to another place: the one that it was for is no longer
// there, or takes no connections.
func (t *transport) elsewhere(r *http.Request) bool {
	err := t.dialErr
	if c, ok := t.conn.(refuser); ok && err == nil {
		err = c.Refusal()
	}
	if err == nil || r.Context().Err() != nil {
		return false
	}
	switch models.KindOf(err) {
	case models.KindUnavailable, models.KindRefused, models.KindNotFound:
		t.done()
		t.done, t.dialErr, t.conn = nil, nil, nil
		return true
	}
	return false
}

// buffers carry answers. They are as long as what a stream brings at once.
var buffers = bufferPool{sync.Pool{New: func() any { return make([]byte, copyBuffer) }}}

const copyBuffer = 64 << 10

type bufferPool struct{ sync.Pool }

func (p *bufferPool) Get() []byte { b, _ := p.Pool.Get().([]byte); return b }

func (p *bufferPool) Put(b []byte) { p.Pool.Put(b) } //nolint:staticcheck // a header of 24 bytes each
