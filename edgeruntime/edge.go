// Package edgeruntime is an edge: one process beside the devices that keeps
// their twins, serves local apps over MQTT and REST, and syncs with a hub when
// there is one to be reached. Third parties build edges with drivers of their
// own on it:
//
//	edge, err := edgeruntime.New(edgeruntime.Config{
//		Node: "gateway-1", HubURL: "https://hub:8443", Token: token, DataDir: "/var/lib/whimbrel",
//		Drivers: map[string]mappers.Driver{"acme": acme.New()}, Log: log,
//	})
//	if err != nil {
//		return err
//	}
//	return edge.Run(ctx)
//
// The loops that Run starts and waits for:
//
//	outbox.Run    stores what there is to tell the hub          outbox.db
//	broker.Run    local apps, and mappers in processes of their own, over MQTT
//	routes.Run    messages between apps, devices and the hub      routes.db
//	devices.Run   one loop and one Runner per device            edge.db
//	bridge.Run    watches over those mappers
//	workload.Run  containers, when there is an engine           apps/, images/
//	localapi.Run  local REST
//	link.Run      one session after the other with the hub      pki/
//
// They end from the last to the first, so that what a device says last is
// stored.
package edgeruntime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/attach"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/broker"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/devices"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/engine/docker"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/link"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/localapi"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/outbox"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/routes"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/services"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/store"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/workload"
	"github.com/whimbrel-edge/whimbrel/internal/filelock"
	"github.com/whimbrel-edge/whimbrel/internal/pki"
	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/mappers/bridge"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

// Defaults of Config.
const (
	DefaultMQTTAddr = "127.0.0.1:1883"
	DefaultAPIAddr  = "127.0.0.1:9060"
)

// keyName is the file in the data directory with the key that seals Secrets at
// rest.
const keyName = "edge.key"

// Config says what an edge is. What is left at its zero value is as it was at
// the start before, or its default at the first; DataDir is always needed,
// Node, HubURL and Token at the first start.
type Config struct {
	Node    string            // its name at the hub
	Labels  map[string]string // of the Node
	HubURL  string            // the hub's link, https://host:8443
	Token   string            // join token; not needed any more once the edge has joined
	DataDir string            // for everything it keeps

	MQTTAddr string // of the broker; port 0 takes a free one
	APIAddr  string // of the local REST API; port 0 takes a free one
	// MQTTAnonymous lets MQTT clients in without a name, on loopback only.
	MQTTAnonymous bool
	// MQTTNamed ends that where it was so before.
	MQTTNamed bool

	Drivers map[string]mappers.Driver // by protocol

	// EngineHost is where the container engine is, such as unix:///run/docker.sock;
	// "" is where DOCKER_HOST says, else the default socket. An edge without one does
	// everything but run apps.
	EngineHost string
	// AppRestartDelay is how long an app that has failed twice waits to be started
	// again, at first; 0: 10 s.
	AppRestartDelay time.Duration
	// StopApps stops the apps when the edge ends. Otherwise they run on, and the next
	// start takes them over.
	StopApps bool

	OutboxBytes int64         // bound of the outbox on the disk
	OutboxAge   time.Duration // bound of the age of what waits in it, in running time; negative: none
	Fsync       time.Duration // how much a power loss may take of it; negative: nothing

	Log        *slog.Logger
	Registerer prometheus.Registerer // of metrics; nil: a registry of the edge's own
	Gatherer   prometheus.Gatherer   // what /metrics shows; nil: the edge's own registry
	Version    string
}

// Edge is an open edge. New opens it, Run serves it, once, and closes it.
type Edge struct {
	cfg      Config
	log      *slog.Logger
	lock     *os.File
	store    *store.Store
	outbox   *outbox.Outbox
	devices  *devices.Manager
	broker   *broker.Broker
	bridge   *bridge.Bridge
	api      *localapi.Server
	routes   *routes.Router
	link     *link.Link
	apps     *workload.Manager
	services *services.Services
	desk     *attach.Desk
	engine   *docker.Docker
	gateway  *gateway
	life     string // of the store
	ready    chan struct{}
	ran      bool // Run was called, which closes the broker

	collectors []prometheus.Collector
}

// Joined reports whether the edge that keeps its data in dir has joined a hub,
// and so needs no token.
func Joined(dir string) (bool, error) { return link.Joined(filepath.Join(dir, "pki")) }

// New opens an edge: its files and its addresses. Nothing is dialled before Run.
// An edge that is not to run must be closed.
func New(cfg Config) (*Edge, error) {
	if cfg.DataDir == "" {
		return nil, errors.New("an edge needs a data directory")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	e, err := open(cfg)
	for err != nil && outbox.DiskFull(err) && useReserve(cfg.DataDir) {
		cfg.Log.Warn("the disk is full: some of what was set aside for starts is given back to it", "data", cfg.DataDir)
		e, err = open(cfg)
	}
	if err != nil && outbox.DiskFull(err) {
		return nil, fmt.Errorf("no space is left for the data directory %s, nor anything of what is set aside there for starts; make some megabytes of space and start again: %w", cfg.DataDir, err)
	}
	if err != nil {
		return nil, err
	}
	if err := keepReserve(cfg.DataDir); err != nil {
		cfg.Log.Warn("no space is set aside for a start with a full disk", "data", cfg.DataDir, "error", err)
	}
	return e, nil
}

// open is one attempt of New.
func open(cfg Config) (_ *Edge, err error) {
	ctx := context.Background()
	e := &Edge{log: cfg.Log, ready: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.Close())
		}
	}()
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	// Two edges in one directory would number their records alike.
	if e.lock, err = filelock.Lock(filepath.Join(cfg.DataDir, "lock")); err != nil {
		return nil, fmt.Errorf("is an edge running here? %w", err)
	}
	key, err := pki.LoadSealKey(filepath.Join(cfg.DataDir, keyName))
	if err != nil {
		return nil, err
	}
	if e.store, err = store.Open(ctx, filepath.Join(cfg.DataDir, "edge.db"), key); err != nil {
		return nil, err
	}
	before, err := e.store.Settings(ctx)
	if err != nil {
		return nil, err
	}
	if err := cfg.remember(before); err != nil {
		return nil, err
	}
	// At the first start nothing is remembered.
	for name, addr := range map[string]string{settingMQTT: DefaultMQTTAddr, settingAPI: DefaultAPIAddr} {
		if before[name] == "" {
			before[name] = addr
		}
	}
	e.cfg = cfg
	if e.outbox, err = outbox.Open(ctx, outbox.Config{Path: filepath.Join(cfg.DataDir, "outbox.db"), MaxBytes: cfg.OutboxBytes,
		MaxAge: max(cfg.OutboxAge, 0), Fsync: cfg.Fsync, Log: cfg.Log, Now: time.Now}); err != nil {
		return nil, err
	}
	if err := e.assemble(before); err != nil {
		return nil, err
	}
	settings, err := cfg.settings(e.MQTTAddr(), e.APIAddr())
	if err != nil {
		return nil, err
	}
	settings[settingLife] = e.life
	settings[settingEra] = strconv.FormatUint(eraAfter(before), 10)
	if err := e.store.SetSettings(ctx, settings); err != nil {
		return nil, err
	}
	return e, nil
}

// assemble makes the parts that need one another.
func (e *Edge) assemble(before map[string]string) (err error) {
	cfg := &e.cfg
	mapperMetrics := mappers.NewMetrics()
	newID := func() string { return ulid.Make().String() }
	drivers, err := e.bridgeMappers(before, newID)
	if err != nil {
		return err
	}
	e.devices = devices.New(devices.Config{Drivers: drivers, Store: e.store, Outbox: e.outbox, Metrics: mapperMetrics, Log: cfg.Log,
		DataDir: filepath.Join(cfg.DataDir, "mappers"),
		NewID:   newID,
		Era:     eraAfter(before),
		Publish: func(topic string, payload []byte, retain bool) error {
			err := e.broker.Publish(topic, payload, retain)
			e.routes.Reported(topic, payload)
			return err
		}})
	if err := e.runApps(before, newID); err != nil {
		return err
	}
	e.services = services.New(e.apps, cfg.Log)
	e.desk = attach.New(e.apps, cfg.Log)
	if e.routes, err = routes.Open(context.Background(), routes.Config{Path: filepath.Join(cfg.DataDir, "routes.db"), Node: cfg.Node,
		Publish:  e.publishRouted,
		Live:     func() bool { return e.link.Status().Connected },
		Services: e.services, NewID: newID, Log: cfg.Log}); err != nil {
		return err
	}
	if e.link, err = link.New(link.Config{URL: cfg.HubURL, Node: cfg.Node, Labels: cfg.Labels, Token: cfg.Token, Dir: filepath.Join(cfg.DataDir, "pki"),
		Version: cfg.Version, Store: e.store, Outbox: e.outbox, Devices: e.devices, Applied: e.applied, Routes: e.routes, Pods: e.apps, Mappers: e.mapperInfos, Handlers: e.handlers(), Streams: e.streams(), Log: cfg.Log}); err != nil {
		return err
	}
	metrics, err := e.register(mapperMetrics)
	if err != nil {
		return err
	}
	admin, err := mqttCredentials(cfg.DataDir)
	if err != nil {
		return err
	}
	if err := listen(cfg.MQTTAddr, before[settingMQTT], before[settingMQTTAsked], func(addr string) (err error) {
		e.broker, err = broker.New(broker.Config{Addr: addr, Anonymous: cfg.MQTTAnonymous, Auth: authenticators{newMQTTAuth(cfg.DataDir, admin), appAuth{e.apps}}, Devices: e.devices, Mappers: speech{e}, Routes: e.routes, Log: cfg.Log})
		return err
	}); err != nil {
		return err
	}
	token, err := apiToken(cfg.DataDir)
	if err != nil {
		return err
	}
	if err := listen(cfg.APIAddr, before[settingAPI], before[settingAPIAsked], func(addr string) (err error) {
		e.api, err = localapi.New(localapi.Config{Addr: addr, Token: token, Apps: e.appByToken, Devices: e.devices, Routes: e.routes, Services: reach{e.services, func() *link.Link { return e.link }}, Pods: e.apps, Desk: e.desk, Metrics: metrics, Log: cfg.Log})
		return err
	}); err != nil {
		return err
	}
	// Where client commands and apps look for it.
	admin.URL = "mqtt://" + e.MQTTAddr()
	return errors.Join(
		writeSecret(filepath.Join(cfg.DataDir, contextName), contextFile{Server: "http://" + e.APIAddr(), Token: token}),
		writeSecret(filepath.Join(cfg.DataDir, mqttName), admin))
}

// publishRouted publishes a message of a route. Subscribers with MQTT 5 see the key
// that all its copies have.
func (e *Edge) publishRouted(topic string, m *pb.RouteMessage, to *models.RouteMQTT) error {
	p := broker.Message{Payload: m.Payload, QoS: 1, Retain: to.Retain, ContentType: m.ContentType, Properties: [][2]string{{"Idempotency-Key", m.Key}}}
	if to.QoS != nil {
		p.QoS = byte(*to.QoS)
	}
	return e.broker.PublishMessage(topic, p)
}

// register registers the metrics and returns what shows them.
func (e *Edge) register(mapperMetrics prometheus.Collector) (http.Handler, error) {
	cfg := &e.cfg
	own := prometheus.NewRegistry()
	if cfg.Registerer == nil {
		cfg.Registerer = own
	}
	if cfg.Gatherer == nil {
		cfg.Gatherer = own
		if g, ok := cfg.Registerer.(prometheus.Gatherer); ok {
			cfg.Gatherer = g
		}
	}
	for _, c := range []prometheus.Collector{mapperMetrics, outboxCollector{e.outbox}, buildInfo(cfg.Version)} {
		if err := cfg.Registerer.Register(c); err != nil {
			var there prometheus.AlreadyRegisteredError
			if errors.As(err, &there) && c != mapperMetrics {
				continue // a hub in the same process says the same of the build
			}
			return nil, fmt.Errorf("register metrics: %w", err)
		}
		e.collectors = append(e.collectors, c)
	}
	return promhttp.HandlerFor(cfg.Gatherer, promhttp.HandlerOpts{}), nil
}

// MQTTAddr is the host:port of the MQTT broker.
func (e *Edge) MQTTAddr() string { return e.broker.Addr() }

// APIAddr is the host:port of the local REST API.
func (e *Edge) APIAddr() string { return e.api.Addr() }

// Ready is closed when every device that was known at the start has its twin.
func (e *Edge) Ready() <-chan struct{} { return e.ready }

// Link is how the link to the hub is doing.
func (e *Edge) Link() link.Status { return e.link.Status() }

// Run serves until ctx ends, and returns nil then. An error is one that keeps the
// edge from doing its work; a hub, a network or a device that fails is none.
func (e *Edge) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, e.Close()) }()
	items, err := e.store.Items(context.WithoutCancel(ctx)) // a signal at this moment is no failure
	if err != nil {
		return err
	}
	e.ran = true
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var stages []func()
	// stage starts loops that end after those of later stages.
	stage := func(loops map[string]func(context.Context) error) {
		stageCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		var wait sync.WaitGroup
		for name, loop := range loops {
			wait.Go(func() {
				if err := loop(stageCtx); err != nil && stageCtx.Err() == nil {
					fail(fmt.Errorf("%s: %w", name, err))
				}
			})
		}
		stages = append(stages, func() { cancel(); wait.Wait() })
	}
	stage(map[string]func(context.Context) error{"outbox": e.outbox.Run})
	e.routes.Apply(items)
	stage(map[string]func(context.Context) error{"routes": e.routes.Run})
	stage(map[string]func(context.Context) error{"mqtt": e.broker.Run})
	stage(map[string]func(context.Context) error{"devices": e.devices.Run})
	e.devices.Apply(items)
	stage(map[string]func(context.Context) error{"mappers": e.bridge.Run})
	e.services.Apply(items)
	e.apps.Apply(items)
	stage(map[string]func(context.Context) error{"local API": e.api.Run, "apps": e.apps.Run, "link": e.link.Run, "start": e.announce})
	<-ctx.Done()
	for i := len(stages) - 1; i >= 0; i-- {
		stages[i]()
	}
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) && !errors.Is(cause, context.DeadlineExceeded) {
		return cause
	}
	return nil
}

// applied hands on what the hub wants, besides devices.
func (e *Edge) applied(items []store.Item) {
	e.routes.Apply(items)
	e.services.Apply(items)
	e.apps.Apply(items)
}

// announce says when the edge is ready.
func (e *Edge) announce(ctx context.Context) error {
	select {
	case <-e.devices.Ready():
	case <-ctx.Done():
		return nil
	}
	close(e.ready)
	e.log.Info("edge is ready", "node", e.cfg.Node, "mqtt", e.MQTTAddr(), "api", e.APIAddr(), "devices", len(e.devices.Devices()))
	return nil
}

// Close gives up an edge that is not to run. Run does it by itself.
func (e *Edge) Close() error {
	var errs []error
	for _, c := range e.collectors {
		e.cfg.Registerer.Unregister(c)
	}
	e.collectors = nil
	if e.api != nil {
		_ = e.api.Close() // Run has closed it already
	}
	if e.broker != nil && !e.ran {
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		errs = append(errs, e.broker.Run(ended)) // which closes its address
		e.ran = true
	}
	if e.outbox != nil {
		errs = append(errs, e.outbox.Close())
		e.outbox = nil
	}
	if e.routes != nil {
		errs = append(errs, e.routes.Close())
		e.routes = nil
	}
	errs = append(errs, e.closeApps())
	if e.store != nil {
		errs = append(errs, e.store.Close())
		e.store = nil
	}
	if e.lock != nil {
		errs = append(errs, e.lock.Close())
		e.lock = nil
	}
	return errors.Join(errs...)
}
