// Package localapi is the edge's REST API for what runs beside it. It works
// with the cloud gone. Every request but /healthz needs a token: the edge's own,
// which may everything, or an app's. Errors are problem+json. A device of another namespace than "default" is
// {namespace}.{name} in paths.
package localapi

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/devices"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/twin"
)

// Devices is what the API shows and changes. *devices.Manager is one.
type Devices interface {
	Devices() []devices.Summary
	Document(id string) (twin.Document, error)
	// Patch returns when the patch is durable.
	Patch(ctx context.Context, id string, p devices.Patch) (devices.Patched, error)
	// AwaitWrites blocks until every write is confirmed, one has come to another
	// end, or ctx ends (KindTimeout).
	AwaitWrites(ctx context.Context, id string, writes map[string]string) error
	// Read reads properties from the device, now; nil names are all.
	Read(ctx context.Context, id string, names []string) (map[string]models.Reading, error)
	// Record hands what the device sees on the wire to lines, until length is over.
	Record(ctx context.Context, id string, length time.Duration, lines func([]byte) error) error
}

// Config is what a Server needs.
type Config struct {
	Addr  string // host:port to listen on; port 0 takes a free one
	Token string
	// Apps returns whose token that is; nil: nobody has one but who has Token.
	Apps    func(token string) (App, bool)
	Devices Devices
	Routes  Routes
	// Services reaches apps; nil: the edge runs none.
	Services Services
	// Pods and Desk are for who looks into them; nil: the edge runs none.
	Pods    Pods
	Desk    Desk
	Metrics http.Handler
	Log     *slog.Logger
}

// Server is the API. Run is its loop.
type Server struct {
	cfg   Config
	token [sha256.Size]byte
	ln    net.Listener

	mu      sync.Mutex
	further map[net.Listener]bool // addresses besides ln
	serve1  func(net.Listener)    // serves one of them; nil before Run
	ended   bool
}

const (
	maxBody = models.MaxDocumentBytes
	maxWait = 10 * time.Minute
	// readWait is how long a read on demand may take when nothing is said.
	readWait    = 10 * time.Second
	maxReadWait = time.Minute
	// recordLength is how long a recording takes when nothing is said, and
	// recordWrite how long whoever wants it may take for a part of it.
	recordLength = time.Minute
	recordWrite  = 30 * time.Second
	// serverName tells a client of the hub that it has come to an edge.
	serverName = "whimbrel-edge"
	// by is who a desired value is by that is set with the edge's own token.
	by = "local"
)

// New opens the address and returns a server whose Run is to be called: Run
// serves the address and closes it.
func New(cfg Config) (*Server, error) {
	if cfg.Token == "" {
		return nil, errors.New("local API: no token")
	}
	ln, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("local API: %w", err)
	}
	return &Server{cfg: cfg, token: sha256.Sum256([]byte(cfg.Token)), ln: ln, further: map[net.Listener]bool{}}, nil
}

// Addr is the host:port that the server listens on.
func (s *Server) Addr() string { return s.ln.Addr().String() }

// Close closes the address of a server that is not to run.
func (s *Server) Close() error { return s.ln.Close() }

// Run serves until ctx ends, and returns nil then.
func (s *Server) Run(ctx context.Context) error {
	srv := &http.Server{Handler: s.handler(), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 64 << 10, BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog: slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug)}
	failed := make(chan error, 1)
	var more sync.WaitGroup
	defer more.Wait()
	s.mu.Lock()
	s.serve1 = func(ln net.Listener) {
		more.Go(func() {
			if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
				s.cfg.Log.Error("local API: no more connections are accepted", "address", ln.Addr(), "error", err)
			}
		})
	}
	for ln := range s.further {
		s.serve1(ln)
	}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.ended = true
		for ln := range s.further {
			_ = ln.Close()
		}
	}()
	go func() { failed <- srv.Serve(s.ln) }() // ends with Shutdown or Close
	select {
	case err := <-failed:
		return fmt.Errorf("local API: %w", err)
	case <-ctx.Done():
	}
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if srv.Shutdown(limit) != nil {
		_ = srv.Close()
	}
	<-failed
	return nil
}

// route is one path: who may be asked what.
type route map[string]func(http.ResponseWriter, *http.Request) error

// handler lists every path.
func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	for path, r := range map[string]route{
		"/v1/devices":                   {http.MethodGet: s.list},
		"/v1/devices/{id}/twin":         {http.MethodGet: s.twin},
		"/v1/devices/{id}/twin/desired": {http.MethodPatch: s.desired},
		"/v1/devices/{id}/read":         {http.MethodPost: s.read},
		"/v1/routes/{name}":             {http.MethodPost: s.post},
		"/v1/devices/{id}/recording":    {http.MethodGet: s.record},
		"/v1/pods":                      {http.MethodGet: s.pods},
		"/v1/pods/{name}/log":           {http.MethodGet: s.podLog},
		"/v1/pods/{name}/exec":          {http.MethodGet: s.podExec},
		"/metrics":                      {http.MethodGet: s.metrics},
	} {
		mux.Handle(path, s.authorized(s.serve(r)))
	}
	mux.Handle("/healthz", s.serve(route{http.MethodGet: healthz}))
	mux.Handle("/", s.authorized(s.serve(nil)))
	service := s.authorized(http.HandlerFunc(s.service))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.EscapedPath(), servicesPath) {
			service.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func (s *Server) authorized(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		app, ok := s.authenticate(r)
		if !ok {
			w.Header().Set("WWW-Authenticate", `Bearer realm="whimbrel edge"`)
			s.problem(w, r, models.Errorf(models.KindUnauthorized, "a token is needed; it is in the context.json of the edge's data directory"), nil)
			return
		}
		next.ServeHTTP(w, withApp(r, app))
	})
}

// serve answers a route's requests, and writes the problem that an error is.
func (s *Server) serve(r route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if r == nil {
			w.Header().Set("Server", serverName)
			s.problem(w, req, models.Errorf(models.KindNotFound, "there is nothing at this path of the edge's local API"), nil)
			return
		}
		method := req.Method
		if method == http.MethodHead {
			method = http.MethodGet
		}
		do := r[method]
		if do == nil {
			for allowed := range r {
				w.Header().Set("Allow", allowed) // each has one
			}
			writeProblem(w, models.Problem{Type: "about:blank", Title: http.StatusText(http.StatusMethodNotAllowed), Status: http.StatusMethodNotAllowed,
				Detail: "the method is not allowed here; the Allow header lists those that are"}, nil)
			return
		}
		req.Body = http.MaxBytesReader(w, req.Body, maxBody)
		if err := do(w, req); err != nil {
			var f fate
			if errors.As(err, &f) {
				s.problem(w, req, f.error, &f.twin)
				return
			}
			s.problem(w, req, err, nil)
		}
	})
}

// fate is what became of a write that was made: the answer shows the twin, too.
type fate struct {
	error
	twin twin.Document
}

func (s *Server) problem(w http.ResponseWriter, r *http.Request, err error, doc *twin.Document) {
	p := models.ProblemOf(err)
	if p.Status >= 500 && models.KindOf(err) == models.KindInternal {
		s.cfg.Log.Error("local API", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	var knows interface{ RetryAfter() time.Duration }
	if errors.As(err, &knows) {
		w.Header().Set("Retry-After", strconv.Itoa(int(max(1, math.Ceil(knows.RetryAfter().Seconds())))))
	}
	writeProblem(w, p, doc)
}

func writeProblem(w http.ResponseWriter, p models.Problem, doc *twin.Document) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(struct { // the client may be gone
		models.Problem
		Twin *twin.Document `json:"twin,omitempty"`
	}{p, doc})
}

func writeJSON(w http.ResponseWriter, status int, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n')) // the client may be gone
	return nil
}

func healthz(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

func (s *Server) metrics(w http.ResponseWriter, r *http.Request) error {
	if appOf(r) != nil {
		return forbidden("/metrics")
	}
	s.cfg.Metrics.ServeHTTP(w, r)
	return nil
}

func (s *Server) list(w http.ResponseWriter, r *http.Request) error {
	if _, err := query(r); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, struct {
		Items []devices.Summary `json:"items"`
	}{visible(r, s.cfg.Devices.Devices())})
}

func (s *Server) twin(w http.ResponseWriter, r *http.Request) error {
	if _, err := query(r); err != nil {
		return err
	}
	id := r.PathValue("id")
	if err := mayRead(r, id); err != nil {
		return err
	}
	doc, err := s.cfg.Devices.Document(id)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, shown(r, id, doc))
}

func (s *Server) desired(w http.ResponseWriter, r *http.Request) error {
	q, err := query(r, "wait")
	if err != nil {
		return err
	}
	wait, err := duration(q, 0, 0, maxWait)
	if err != nil {
		return err
	}
	body, err := readBody(r)
	if err != nil {
		return err
	}
	id := r.PathValue("id")
	if err := mayWrite(r, id, body); err != nil {
		return err
	}
	patched, err := s.cfg.Devices.Patch(r.Context(), id, devices.Patch{Body: body, By: who(r), Origin: origin(r), Reason: r.Header.Get("X-Whimbrel-Reason"), IfMatch: r.Header.Get("If-Match")})
	if err != nil {
		return err
	}
	status := http.StatusAccepted
	var waited error
	if wait > 0 {
		ctx, cancel := context.WithTimeout(r.Context(), wait)
		waited = s.cfg.Devices.AwaitWrites(ctx, id, patched.Writes)
		cancel()
		status = http.StatusOK
	}
	doc, err := s.cfg.Devices.Document(id)
	if err != nil {
		return err
	}
	doc = shown(r, id, doc)
	w.Header().Set("ETag", strconv.Quote(strconv.FormatInt(doc.DesiredVersion, 10)))
	if waited != nil {
		return fate{waited, doc}
	}
	return writeJSON(w, status, doc)
}

// record answers what the device sees on the wire, as it comes. An answer without
// an end says itself that it was cut short.
func (s *Server) record(w http.ResponseWriter, r *http.Request) error {
	if appOf(r) != nil { // the wire holds all properties, whichever the app may see
		return forbidden("recordings")
	}
	q, err := query(r, "for")
	if err != nil {
		return err
	}
	length := recordLength
	if text := q.Get("for"); text != "" {
		if length, err = models.ParseDuration(text); err != nil {
			return models.BadParameter(models.KindMalformed, "for", "%v, got %.40q", err, text)
		}
	}
	control, begun := http.NewResponseController(w), false
	_ = control.SetReadDeadline(time.Time{}) // that of the request; this takes longer
	err = s.cfg.Devices.Record(r.Context(), r.PathValue("id"), length, func(lines []byte) error {
		if !begun {
			begun = true
			w.Header().Set("Content-Type", "application/x-ndjson")
			w.WriteHeader(http.StatusOK)
		}
		_ = control.SetWriteDeadline(time.Now().Add(recordWrite))
		if _, err := w.Write(lines); err != nil {
			return err
		}
		return control.Flush()
	})
	if begun {
		return nil
	}
	return err
}

// read reads from the device.
func (s *Server) read(w http.ResponseWriter, r *http.Request) error {
	q, err := query(r, "wait")
	if err != nil {
		return err
	}
	wait, err := duration(q, readWait, time.Millisecond, maxReadWait)
	if err != nil {
		return err
	}
	body, err := readBody(r)
	if err != nil {
		return err
	}
	var req models.ReadingsRequest
	if len(body) > 0 {
		if err := models.DecodeInto(body, &req); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), wait)
	defer cancel()
	id := r.PathValue("id")
	if err := mayRead(r, id); err != nil {
		return err
	}
	names, err := s.readable(r, id, req.Properties)
	if err != nil {
		return err
	}
	read, err := s.cfg.Devices.Read(ctx, id, names)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, models.Readings{Device: id, Properties: read})
}

// duration returns the parameter wait.
func duration(q url.Values, unsaid, least, most time.Duration) (time.Duration, error) {
	text := q.Get("wait")
	if text == "" {
		return unsaid, nil
	}
	d, err := models.ParseDuration(text)
	if err != nil {
		return 0, models.BadParameter(models.KindMalformed, "wait", "%v, got %.40q", err, text)
	}
	if d < least || d > most {
		return 0, models.BadParameter(models.KindMalformed, "wait", "must be a duration from %s to %s, such as 5s, got %.40q", least, most, text)
	}
	return d, nil
}

func readBody(r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(r.Body)
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, models.Errorf(models.KindTooLarge, "the body is larger than %d bytes", maxBody)
	case err != nil:
		return nil, models.Errorf(models.KindMalformed, "the body broke off: %v", err)
	}
	return body, nil
}

// repeated is the one parameter that may be given more than once.
const repeated = "command"

// query returns the parameters, which must be known ones, given once: what is not
// understood is not left out silently.
func query(r *http.Request, known ...string) (url.Values, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, models.Errorf(models.KindMalformed, "the query cannot be read: %v", err)
	}
	for name, values := range q {
		if !slices.Contains(known, name) {
			return nil, models.UnknownParameter(name, known...)
		}
		if len(values) > 1 && name != repeated {
			return nil, models.BadParameter(models.KindMalformed, name, "is given %d times", len(values))
		}
	}
	return q, nil
}
