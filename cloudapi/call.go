package cloudapi

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humaecho"
	"github.com/labstack/echo/v4"

	"github.com/whimbrel-edge/whimbrel/models"
)

// route is one endpoint: how the OpenAPI document describes it, the least role
// it takes, and what it does. Handlers get raw bodies, not huma's typed ones:
// documents are decoded by models, strictly and with pointers, and errors are
// told apart as Prefix's contract says (400 malformed, 422 wrong).
type route struct {
	op     huma.Operation
	role   models.Role // "": any caller
	handle func(*call) (answer, error)
}

// answer is what a handler wants said.
type answer struct {
	status      int
	body        any    // nil for none
	raw         []byte // JSON that is there already, instead of body
	contentType string // of raw when it is not JSON
	fromTarget  bool   // of a route: it is not the hub's own
	etag        string
	location    string
	replayed    bool
	sent        bool // the handler has written it itself
}

// call is one request on its way.
type call struct {
	*http.Request
	api    *api
	w      *recorder
	caller Caller
	trace  string // traceparent
	query  url.Values
	param  func(name string) string
}

type callKey struct{}

type drainKey struct{}

func baseContext(ctx context.Context) func(net.Listener) context.Context {
	return func(net.Listener) context.Context { return ctx }
}

var errDraining = models.Errorf(models.KindUnavailable, "the hub is shutting down")

// long returns a context for a wait or a stream, which ends also when the
// server shuts down; its cause is then errDraining.
func (c *call) long() (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(c.Context())
	drain, ok := ctx.Value(drainKey{}).(context.Context)
	if !ok {
		return ctx, cancel
	}
	stop := context.AfterFunc(drain, func() { cancel(errDraining) })
	return ctx, func(cause error) {
		stop()
		cancel(cause)
	}
}

// recorder remembers what was answered, for the log.
type recorder struct {
	http.ResponseWriter
	status int
}

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// breakOff ends an answer so that the peer finds it unfinished, and not merely short.
func breakOff() {
	panic(http.ErrAbortHandler) // unreachable by a fault: it is the way that net/http has for this
}

// ServeHTTP authenticates a request before anything of it is looked at, and
// hands it to its route.
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	c := &call{api: a, w: &recorder{ResponseWriter: w}, trace: traceparent(r.Header.Get("traceparent"))}
	c.Request = r.WithContext(context.WithValue(r.Context(), callKey{}, c))
	// The connection's request before this one left its deadline behind.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Time{})
	h := w.Header()
	h.Set("Traceparent", c.trace)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	defer func() {
		v := recover()
		if v == http.ErrAbortHandler { //nolint:errorlint // net/http compares it like that
			defer panic(v) // unreachable by a fault: the answer breaks off, and this is how net/http tells the caller
		} else if v != nil {
			a.Log.ErrorContext(r.Context(), "panic in a request", "method", r.Method, "path", r.URL.Path, "panic", v, "stack", string(debug.Stack()))
			if c.w.status == 0 {
				c.send(answer{}, models.Errorf(models.KindInternal, "internal error; the log says more"))
			}
		}
		c.log(time.Since(start))
	}()
	if strings.HasPrefix(r.URL.Path, registryPrefix) {
		c.registry()
		return
	}
	p, proxied := proxiedPath(r.URL.EscapedPath())
	if !open(r.URL.Path) {
		if err := c.authenticate(); err != nil {
			c.send(answer{}, err)
			return
		}
		limits := &a.limits
		if proxied {
			limits = &a.apps
		}
		if err := limits.take(c.caller.Name, start); err != nil {
			c.send(answer{}, err)
			return
		}
	}
	if proxied {
		c.proxy(p)
		return
	}
	a.router.ServeHTTP(c.w, c.Request)
}

func (c *call) log(took time.Duration) {
	level := slog.LevelDebug
	switch {
	case c.w.status >= 500 && c.w.status != http.StatusServiceUnavailable && c.w.status != http.StatusGatewayTimeout:
		level = slog.LevelWarn
	case c.w.status >= 400:
		level = slog.LevelInfo
	}
	c.api.Log.Log(c.Context(), level, "request", "method", c.Method, "path", c.URL.Path, "status", c.w.status,
		"user", c.caller.Name, "remote", c.RemoteAddr, "took", took, "traceparent", c.trace)
}

// mount gives a route its place in the router and in the OpenAPI document.
func (a *api) mount(h huma.API, r *route) {
	h.OpenAPI().AddOperation(&r.op)
	serve := func(ctx huma.Context) {
		e := humaecho.Unwrap(ctx)
		c, ok := e.Request().Context().Value(callKey{}).(*call)
		if !ok {
			return // unreachable: ServeHTTP has put it there
		}
		c.param = func(name string) string {
			text := e.Param(name)
			if c.URL.RawPath == "" {
				return text
			}
			plain, err := url.PathUnescape(text)
			if err != nil {
				return ""
			}
			return plain
		}
		answer, err := c.run(r)
		c.send(answer, err)
	}
	h.Adapter().Handle(&r.op, serve)
	if r.op.Method == http.MethodGet {
		// RFC 9110 wants HEAD where GET is; net/http leaves the body out.
		h.Adapter().Handle(&huma.Operation{Method: http.MethodHead, Path: r.op.Path}, serve)
	}
}

func (c *call) run(r *route) (answer, error) {
	if r.role != "" && rank(c.caller.Role) < rank(r.role) {
		return answer{}, c.caller.lacks(string(r.role))
	}
	for _, p := range r.op.Parameters {
		if p.In == "path" && c.param(p.Name) == "" {
			return answer{}, errNoPath
		}
	}
	var err error
	if c.query, err = url.ParseQuery(c.URL.RawQuery); err != nil {
		return answer{}, models.Errorf(models.KindMalformed, "the query cannot be read")
	}
	if strings.HasPrefix(r.op.Path, Prefix) {
		if err := checkQuery(c.query, r.op.Parameters); err != nil {
			return answer{}, err
		}
	}
	return r.handle(c)
}

// checkQuery refuses what the operation does not know: a misspelt namespace or
// selector would otherwise mean another set of objects.
func checkQuery(query url.Values, params []*huma.Param) error {
	var known, repeated []string
	for _, p := range params {
		if p.In == "query" {
			known = append(known, p.Name)
			if p.Schema.Type == huma.TypeArray {
				repeated = append(repeated, p.Name)
			}
		}
	}
	for name, values := range query {
		if !slices.Contains(known, name) {
			return models.UnknownParameter(name, known...)
		}
		if len(values) > 1 && !slices.Contains(repeated, name) {
			return models.BadParameter(models.KindMalformed, name, "is given %d times", len(values))
		}
	}
	return nil
}

// unrouted answers where no route is.
func (a *api) unrouted(err error, e echo.Context) {
	c, ok := e.Request().Context().Value(callKey{}).(*call)
	if !ok {
		return // unreachable: ServeHTTP has put it there
	}
	var he *echo.HTTPError
	switch {
	case errors.As(err, &he) && he.Code == http.StatusMethodNotAllowed:
		c.send(answer{}, errMethod)
	case errors.As(err, &he) && he.Code == http.StatusNotFound:
		c.send(answer{}, errNoPath)
	default:
		c.send(answer{}, err)
	}
}

// body reads the request's body.
func (c *call) body() ([]byte, error) {
	if enc := c.Header.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") {
		return nil, models.Errorf(models.KindMalformed, "Content-Encoding %.40q is not supported; send the body plain", enc)
	}
	control := http.NewResponseController(c.w)
	// Where deadlines are not supported (a test's recorder) there is no slow peer.
	_ = control.SetReadDeadline(time.Now().Add(bodyTimeout))
	text, err := io.ReadAll(http.MaxBytesReader(c.w.ResponseWriter, c.Body, maxBodyBytes))
	_ = control.SetReadDeadline(time.Time{})
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, models.Errorf(models.KindTooLarge, "the body has more than %d bytes", maxBodyBytes)
	case err != nil:
		return nil, models.Errorf(models.KindMalformed, "the body did not arrive whole")
	}
	return text, nil
}
