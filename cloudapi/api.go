package cloudapi

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humaecho"
	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/whimbrel-edge/whimbrel/models"
)

// Prefix is where the resources are. Health, metrics and the OpenAPI document
// are at the root.
const Prefix = "/api/v1"

// The defaults of a Config.
const (
	DefaultRate  = 200 // requests a second of one caller
	DefaultBurst = 400
	// AppRate is how many times as many requests to apps a caller may make. They cost
	// the hub less than its own, and an app's page may need a hundred at once.
	AppRate          = 50
	DefaultHeartbeat = 15 * time.Second
	// DefaultWriteTimeout is for one write: an answer, or a line of a stream.
	DefaultWriteTimeout = 30 * time.Second
)

// The bounds of a request.
const (
	maxBodyBytes  = models.MaxDocumentBytes + 64<<10 // a document and what YAML adds to it
	maxHeader     = 64 << 10
	headerTimeout = 10 * time.Second
	bodyTimeout   = 30 * time.Second
	idleTimeout   = 2 * time.Minute
	readyTimeout  = 5 * time.Second
)

// Config is what an API is made of. Objects, Twins, Devices, History, Audit, Events, Access,
// Idempotency and Log are required.
type Config struct {
	Objects     Objects
	Twins       Twins
	Devices     Devices
	Routes      Routes
	Services    Services // nil: no app can be asked
	Images      Images   // nil: none are kept
	Pods        Pods     // nil: no pod can be looked into
	History     History
	Audit       Audit
	Events      Events
	Access      Access
	Idempotency Idempotency
	// Ready are the checks behind /readyz by name. Each must end when its context
	// does.
	Ready    map[string]func(context.Context) error
	Gatherer prometheus.Gatherer // behind /metrics; nil for none
	Log      *slog.Logger
	Version  string // in the OpenAPI document

	Rate      float64       // requests a second of one caller; 0: DefaultRate, negative: unlimited
	Burst     int           // 0: DefaultBurst
	Heartbeat time.Duration // how often a stream is tended; 0: DefaultHeartbeat
	// WriteTimeout is how long a peer may take for one write; 0: DefaultWriteTimeout.
	WriteTimeout time.Duration
}

// api is a Config at work.
type api struct {
	Config
	limits  limits
	apps    limits // of requests to apps, which do not count as others
	salt    []byte // of fingerprints of what is secret, until the process ends
	schemas schemas
	spec    []byte // /openapi.json
	metrics http.Handler
	router  http.Handler
}

// New returns the API's handler. Serve it with Server.
func New(c Config) (http.Handler, error) {
	if c.Objects == nil || c.Twins == nil || c.Devices == nil || c.History == nil || c.Audit == nil || c.Events == nil || c.Access == nil || c.Idempotency == nil || c.Log == nil {
		return nil, errors.New("cloudapi: Objects, Twins, Devices, History, Audit, Events, Access, Idempotency and Log are required")
	}
	if c.Rate == 0 {
		c.Rate = DefaultRate
	}
	if c.Burst <= 0 {
		c.Burst = DefaultBurst
	}
	if c.Heartbeat <= 0 {
		c.Heartbeat = DefaultHeartbeat
	}
	if c.WriteTimeout <= 0 {
		c.WriteTimeout = DefaultWriteTimeout
	}
	if c.Gatherer == nil {
		c.Gatherer = prometheus.NewRegistry()
	}
	a := &api{Config: c, limits: limits{rate: c.Rate, burst: c.Burst}, apps: limits{rate: c.Rate * AppRate, burst: c.Burst * AppRate}, salt: []byte(rand.Text()), metrics: metricsHandler(c)}
	e := echo.New()
	e.HTTPErrorHandler = a.unrouted
	// No paths of huma's own, and no hooks: the hooks add $schema to answers.
	config := huma.DefaultConfig("Whimbrel", c.Version)
	config.OpenAPIPath, config.DocsPath, config.SchemasPath, config.CreateHooks = "", "", "", nil
	h := humaecho.New(e, config)
	a.schemas = newSchemas(h.OpenAPI())
	routes, err := a.routes()
	if err != nil {
		return nil, fmt.Errorf("cloudapi: %w", err)
	}
	for i := range routes {
		a.mount(h, &routes[i])
	}
	outside := a.schemas.proxyOps()
	if c.Images != nil {
		outside = append(outside, a.schemas.registryOps()...)
	}
	for _, o := range outside {
		h.OpenAPI().AddOperation(o)
	}
	if a.spec, err = a.schemas.document(h.OpenAPI()); err != nil {
		return nil, fmt.Errorf("cloudapi: %w", err)
	}
	a.router = e
	return a, nil
}

// routes lists every endpoint.
func (a *api) routes() ([]route, error) {
	routes := a.rootRoutes()
	for _, r := range resources {
		more, err := a.objectRoutes(r)
		if err != nil {
			return nil, err
		}
		routes = append(routes, more...)
	}
	routes = append(routes, a.twinRoutes()...)
	routes = append(routes, a.deviceRoutes()...)
	routes = append(routes, a.routeRoutes()...)
	routes = append(routes, a.podRoutes()...)
	routes = append(routes, a.historyRoutes()...)
	routes = append(routes, a.auditRoutes()...)
	routes = append(routes, a.eventRoutes()...)
	routes = append(routes, a.writeRoutes()...)
	routes = append(routes, a.imageRoutes()...)
	return append(routes, a.tokenRoutes()...), nil
}

// Server returns a server for an API's handler, without address and TLS. Its
// timeouts let streams and waits live; Shutdown ends those at once and lets
// other requests finish.
func Server(h http.Handler) *http.Server {
	drain, stop := context.WithCancel(context.Background())
	s := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		// No ReadTimeout and no WriteTimeout: they would end streams. Bodies and
		// writes have deadlines of their own.
	}
	ctx := context.WithValue(context.Background(), drainKey{}, drain)
	s.BaseContext = baseContext(ctx)
	s.RegisterOnShutdown(sync.OnceFunc(stop))
	return s
}
