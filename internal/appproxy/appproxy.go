// Package appproxy carries HTTP requests to apps: what hub and edge have in
// common when they stand between a caller and an app. A request and its answer
// pass as they are, streaming and upgrades (WebSocket) included, except for what
// is between two neighbours only (RFC 9110 section 7.6.1), for the caller's
// credentials and for what would make caller, proxy and app read one request in
// different ways, which is refused.
package appproxy

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

// Bounds of what is carried.
const (
	// MaxBody is how long a request may be. Answers may be of any length.
	MaxBody = 1 << 30
	// HeaderTimeout is how long an app may take from the request to the first line of
	// its answer, unless the caller says otherwise in HeaderTimeoutWanted.
	HeaderTimeout = 60 * time.Second
	// MaxHeaderTimeout is as much as a caller may want.
	MaxHeaderTimeout = 10 * time.Minute
	// Idle ends a request on which nothing has moved for so long, in either direction:
	// an app that neither reads nor answers hides that its caller has gone.
	Idle = 15 * time.Minute
	// WriteTimeout is how long a caller may take to accept a part of the answer.
	WriteTimeout = time.Minute

	maxAnswerHeader = 256 << 10

	// flushAfter is how long the beginning of an answer of known length waits for what
	// comes right behind it: a short answer is then one packet. Others do not wait.
	flushAfter = time.Millisecond
)

// Headers between the caller and the proxy, and from there to the app.
const (
	// HeaderTimeoutWanted is a duration: how long the app may take to begin its answer.
	HeaderTimeoutWanted = "X-Whimbrel-Timeout"
	// HeaderAppAuthorization becomes the app's Authorization; the caller's own is
	// for the proxy.
	HeaderAppAuthorization = "X-Whimbrel-App-Authorization"
	// HeaderAnswer is app in answers of apps: others are the proxy's own.
	HeaderAnswer = "X-Whimbrel-Answer"
	// HeaderUser tells the app who asks. A caller cannot set it.
	HeaderUser = "X-Whimbrel-User"
)

// Target is what a path names.
type Target struct {
	Namespace string // "" when the path says none
	Name      string // of a Service
	Port      string // its name or number; "" for the first
	path      string // escaped, after the Service, from its slash on
}

// Parse reads [NAMESPACE.]NAME[:PORT] and an escaped path after it, which is "" or
// begins with a slash. Errors are KindMalformed.
func Parse(service, path string) (Target, error) {
	t := Target{path: path}
	t.Name = service
	if ns, name, ok := strings.Cut(service, "."); ok {
		t.Namespace, t.Name = ns, name
		if models.CheckLabelName(ns) != "" {
			return t, models.Errorf(models.KindMalformed, "%.80q names no service: it must be [NAMESPACE.]NAME[:PORT]", service)
		}
	}
	if name, port, ok := strings.Cut(t.Name, ":"); ok {
		t.Name, t.Port = name, port
		if port == "" || strings.Trim(port, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return t, models.Errorf(models.KindMalformed, "%.80q names no port: it must be the name or the number of one of the service's", port)
		}
	}
	if models.CheckLabelName(t.Name) != "" {
		return t, models.Errorf(models.KindMalformed, "%.80q names no service: it must be [NAMESPACE.]NAME[:PORT]", service)
	}
	if t.path == "" {
		t.path = "/"
	}
	return t, checkPath(t.path)
}

// checkPath refuses what one reader of a path takes for a slash, a step up or an
// end of line and another does not.
func checkPath(escaped string) error {
	for segment := range strings.SplitSeq(escaped, "/") {
		plain, err := url.PathUnescape(segment)
		if err != nil {
			return models.Errorf(models.KindMalformed, "the path cannot be read: %v", err)
		}
		name, _, _ := strings.Cut(plain, ";") // some readers take what follows for parameters
		if plain == "." || plain == ".." || name == "." || name == ".." {
			return models.Errorf(models.KindMalformed, "the path may not have . and .. as segments")
		}
		if i := strings.IndexFunc(plain, func(r rune) bool { return r < ' ' || r == 0x7f || r == '/' || r == '\\' }); i >= 0 {
			return models.Errorf(models.KindMalformed, "the path may have no encoded slash, no backslash and no control character in a segment")
		}
	}
	return nil
}

// ServicePort is the port of a pod that a Service's port stands for.
func ServicePort(spec *models.ServiceSpec, port string) (models.PortRef, error) {
	var known []string
	for _, p := range spec.Ports {
		if port == "" || p.Name == port || strconv.Itoa(int(p.Port)) == port {
			return p.TargetPort, nil
		}
		known = append(known, strconv.Itoa(int(p.Port)))
		if p.Name != "" {
			known = append(known, p.Name)
		}
	}
	return models.PortRef{}, models.Errorf(models.KindNotFound, "the service has no port %q; it has: %s", port, strings.Join(known, ", "))
}

// Request is one that is to be carried.
type Request struct {
	Target Target
	User   string // who asks, as the app is told
	Prefix string // what comes before the app's part of the path, as the caller wrote it
	// Dial connects to whatever may take the request, for it alone.
	Dial func(ctx context.Context) (net.Conn, error)
	// Place says where a request is to go that may go over a kept connection; false:
	// to where Dial connects it. nil: none are kept.
	Place func() (Place, bool)
	// Fail writes an error as the answer. Errors are *models.Error, or of the context.
	Fail func(w http.ResponseWriter, err error)
	Log  *slog.Logger
	// Query is what the app gets of the caller's; it is escaped.
	Query string
	// Idle is Idle unless it is given.
	Idle time.Duration
}

// Serve carries a request and its answer.
func Serve(w http.ResponseWriter, r *http.Request, q Request) {
	if r.Method == http.MethodConnect || r.Method == http.MethodTrace {
		q.Fail(w, models.Errorf(models.KindMalformed, "%s is not carried to apps", r.Method))
		return
	}
	if r.ContentLength > MaxBody {
		q.Fail(w, tooLarge())
		return
	}
	wait := HeaderTimeout
	if text := r.Header.Get(HeaderTimeoutWanted); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil || d < time.Millisecond || d > MaxHeaderTimeout {
			q.Fail(w, models.Errorf(models.KindMalformed, "%s must be a duration from 1ms to %s, such as 30s", HeaderTimeoutWanted, MaxHeaderTimeout))
			return
		}
		wait = d
	}
	if r.ProtoMajor == 1 && len(r.TransferEncoding) > 0 {
		// It may have had a length, too, which net/http leaves out (RFC 9112 section 6.1):
		// somebody in front of here may believe that one, and that the next request is another's.
		w.Header().Set("Connection", "close")
	}
	control := http.NewResponseController(w)
	_ = control.EnableFullDuplex()           // an app may answer while it is still being told
	_ = control.SetReadDeadline(time.Time{}) // a long upload is no slow peer; the stream below notices one
	body := &limited{ReadCloser: r.Body, left: MaxBody}
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = body
		defer body.end(control)
	}
	out := &patient{ResponseWriter: w, control: control}
	transport := &transport{dial: q.Dial, place: q.Place, headerTimeout: wait, idle: cmp.Or(q.Idle, Idle)}
	defer transport.close()
	proxy := httputil.ReverseProxy{
		Transport:     transport,
		FlushInterval: flushAfter, // what the app says now is not for later
		BufferPool:    &buffers,
		ErrorLog:      slog.NewLogLogger(q.Log.Handler(), slog.LevelDebug),
		Rewrite:       func(p *httputil.ProxyRequest) { rewrite(p, &q) },
		ModifyResponse: func(res *http.Response) error {
			res.Header.Set(HeaderAnswer, "app")
			if res.StatusCode != http.StatusSwitchingProtocols {
				res.Body = &breaking{ReadCloser: res.Body, control: http.NewResponseController(out)}
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			if body.over.Load() {
				err = tooLarge()
			}
			q.Fail(w, transport.judge(r.Context(), err, q.Target.Name, wait))
		},
	}
	proxy.ServeHTTP(out, r)
}

func tooLarge() error {
	return models.Errorf(models.KindTooLarge, "the request is longer than %d bytes", MaxBody)
}

// httpAgain are protocols to upgrade to that are HTTP once more, or hide what is.
var httpAgain = regexp.MustCompile(`(?i)(^|,)\s*(h2|http|tls)`)

// rewrite makes of the caller's request the app's. What is between neighbours is
// gone from it already, and so is what pretends to come from a proxy.
func rewrite(p *httputil.ProxyRequest, q *Request) {
	out := p.Out
	out.URL = &url.URL{Scheme: "http", Host: q.Target.host(), RawQuery: q.Query}
	out.URL.Path, _ = url.PathUnescape(q.Target.path) // Parse has read it
	out.URL.RawPath = q.Target.path
	out.Host = q.Target.host()
	out.Trailer = nil // to some apps they are headers, and nobody could have looked at these
	h := out.Header
	own := h.Get(HeaderAppAuthorization)
	for _, name := range []string{"Authorization", "Proxy-Authorization", HeaderAppAuthorization, HeaderTimeoutWanted, HeaderUser, "X-Forwarded-Prefix", "X-Real-Ip"} {
		h.Del(name)
	}
	// One header by two names: to some apps an underscore is a dash.
	for name := range h {
		if strings.Contains(name, "_") {
			delete(h, name)
		}
	}
	if own != "" {
		h.Set("Authorization", own)
	}
	// Requests of another kind of HTTP could say what nobody has looked at.
	if httpAgain.MatchString(h.Get("Upgrade")) {
		h.Del("Upgrade")
		h.Del("Connection")
	}
	if q.User != "" {
		h.Set(HeaderUser, q.User)
	}
	p.SetXForwarded()
	h.Set("X-Forwarded-Prefix", q.Prefix)
	if _, ok := p.In.Header["User-Agent"]; !ok {
		h.Set("User-Agent", "") // else Go's own
	}
}

func (t Target) host() string {
	if t.Namespace == "" {
		return t.Name
	}
	return t.Name + "." + t.Namespace
}

// limited counts a request's body, and can be ended: who sends it to the app may
// still be reading when the answer is complete.
type limited struct {
	io.ReadCloser
	over atomic.Bool

	mu   sync.Mutex // held while it is read from
	left int64
	done error // of all Reads from now on
}

func (l *limited) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done != nil {
		return 0, l.done
	}
	n, err := l.ReadCloser.Read(p)
	l.done = err
	if l.left -= int64(n); l.left < 0 {
		l.over.Store(true)
		return 0, tooLarge()
	}
	return n, err
}

// end returns when nobody reads any more, nor will.
func (l *limited) end(control *http.ResponseController) {
	if !l.mu.TryLock() { // somebody waits for the caller
		_ = control.SetReadDeadline(time.Unix(1, 0))
		l.mu.Lock()
	}
	if l.done == nil {
		l.done = io.ErrUnexpectedEOF
	}
	l.mu.Unlock()
}

// patient gives the caller time for each part of the answer, not for the whole.
type patient struct {
	http.ResponseWriter
	control *http.ResponseController
	mu      sync.Mutex // of Write and Flush, which come from different goroutines
}

func (w *patient) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = w.control.SetWriteDeadline(time.Now().Add(WriteTimeout)) // a test's recorder has none
	return w.ResponseWriter.Write(p)
}

// FlushError is for http.ResponseController.
func (w *patient) FlushError() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.control.Flush()
}

// breaking has the beginning of an answer sent before who asks is told that there is
// no more: the status may say why.
type breaking struct {
	io.ReadCloser
	control *http.ResponseController
	err     error
}

func (b *breaking) Read(p []byte) (n int, err error) {
	if n, err = 0, b.err; err == nil {
		n, err = b.ReadCloser.Read(p)
	}
	if err == nil || errors.Is(err, io.EOF) {
		return n, err
	}
	if n > 0 { // it is written first
		b.err = err
		return n, nil
	}
	_ = b.control.Flush() // the error that is told is the app's
	return 0, err
}

// Unwrap is for http.ResponseController.
func (w *patient) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// refuser is a connection that is known to be none only when it is read from.
type refuser interface{ Refusal() error }

// transport sends one request: over a connection of its own, or over one that is
// kept for requests like it.
type transport struct {
	dial          func(ctx context.Context) (net.Conn, error)
	place         func() (Place, bool) // nil: nothing is kept
	headerTimeout time.Duration
	idle          time.Duration // 0: for ever
	http          *http.Transport
	dialErr       error
	conn          net.Conn // the last one that the request went to
	done          func()   // ends a request over a kept connection
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if t.place != nil && t.idle == Idle && keeps(r) {
		if place, ok := t.place(); ok {
			res, err := t.overKept(r, place)
			if err == nil || !t.elsewhere(r) {
				return res, err
			}
		}
	}
	return t.overOwn(r)
}

// overOwn sends a request over a connection that is dialled for it.
func (t *transport) overOwn(r *http.Request) (*http.Response, error) {
	if t.conn, t.dialErr = t.dial(r.Context()); t.dialErr != nil {
		return nil, t.dialErr
	}
	handed := false
	t.http = &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			if handed {
				return nil, errors.New("the app has closed the connection")
			}
			handed = true
			if t.idle == 0 {
				return t.conn, nil
			}
			return newAwake(t.conn, t.idle), nil
		},
		DisableCompression: true, ResponseHeaderTimeout: t.headerTimeout, MaxResponseHeaderBytes: maxAnswerHeader,
		ExpectContinueTimeout: 0,
	}
	return t.http.RoundTrip(r)
}

// awake is a connection whose Read fails when nothing has moved in either
// direction for a while. It has no other deadlines.
type awake struct {
	net.Conn
	limit time.Duration
	began time.Time
	moved atomic.Int64 // when something last did, since began
	armed time.Time    // when a Read is woken to look again; Read's own
}

func newAwake(conn net.Conn, limit time.Duration) *awake {
	return &awake{Conn: conn, limit: limit, began: time.Now()}
}

func (c *awake) Read(p []byte) (int, error) {
	for {
		until := c.began.Add(time.Duration(c.moved.Load()) + c.limit)
		if until.Sub(c.armed) > c.limit/16 { // not for each piece: woken too early does no harm
			if err := c.SetReadDeadline(until); err != nil {
				return 0, err
			}
			c.armed = until
		}
		n, err := c.Conn.Read(p)
		if n > 0 {
			c.moved.Store(int64(time.Since(c.began)))
		}
		var timeout net.Error
		if n == 0 && errors.As(err, &timeout) && timeout.Timeout() {
			c.armed = time.Time{}
		}
		if n == 0 && errors.As(err, &timeout) && timeout.Timeout() && time.Since(c.began) < time.Duration(c.moved.Load())+c.limit {
			continue // the other direction has moved
		}
		return n, err
	}
}

func (c *awake) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if n > 0 {
		c.moved.Store(int64(time.Since(c.began)))
	}
	return n, err
}

func (t *transport) close() {
	if t.done != nil {
		t.done()
	}
	if t.http == nil { // the connection, if any, is the pool's
		return
	}
	t.http.CloseIdleConnections()
	if t.conn != nil {
		_ = t.conn.Close()
	}
}

// judge says what an error means to who asked.
func (t *transport) judge(ctx context.Context, err error, name string, wait time.Duration) error {
	if t.dialErr != nil {
		err = t.dialErr
	} else if r, ok := t.conn.(refuser); ok && r.Refusal() != nil {
		err = r.Refusal()
	}
	var timeout net.Error
	switch {
	case models.KindOf(err) != models.KindInternal:
		return err
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, errLate) || errors.As(err, &timeout) && timeout.Timeout():
		return models.Errorf(models.KindTimeout, "service %s did not answer in %s", name, wait)
	case t.dialErr != nil: // the connection to the node may end while a stream is opened
		return models.Errorf(models.KindUnavailable, "the way to service %s broke off: %v", name, err)
	}
	return models.Errorf(models.KindRefused, "service %s broke off before it had answered: %v", name, err)
}

// Send sends a request whose URL has a path and a query only, and returns the
// answer. Its body must be closed. r's context bounds all of it.
func Send(r *http.Request, to Target, dial func(ctx context.Context) (net.Conn, error)) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Scheme, r.URL.Host, r.Host = "http", to.host(), to.host()
	t := &transport{dial: dial}
	res, err := t.RoundTrip(r)
	if err != nil {
		t.close()
		if errors.Is(r.Context().Err(), context.DeadlineExceeded) {
			return nil, models.Errorf(models.KindTimeout, "service %s did not answer in time", to.Name)
		}
		return nil, t.judge(r.Context(), err, to.Name, 0)
	}
	res.Body = &closing{Reader: bufio.NewReader(res.Body), body: res.Body, t: t}
	return res, nil
}

// closing closes the connection with the body.
type closing struct {
	io.Reader
	body io.Closer
	t    *transport
}

func (c *closing) Close() error {
	err := c.body.Close()
	c.t.close()
	return err
}
