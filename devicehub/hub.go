// Package devicehub is the cloud half of Whimbrel: it puts the hub's parts
// together and runs them. The parts are registry (objects and desired values),
// twins (what was reported), sessions (the link to edges), ingest (their logs
// into the store), workloads (pods of apps), images (what their containers
// are made from), identity (who is who) and store (Postgres or SQLite).
//
// Hub's methods are what cloudapi needs of a hub; this package knows nothing of
// HTTP but the link's own three paths, and what nodes ask of images.
package devicehub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/whimbrel-edge/whimbrel/devicehub/calendar"
	"github.com/whimbrel-edge/whimbrel/devicehub/events"
	"github.com/whimbrel-edge/whimbrel/devicehub/history"
	"github.com/whimbrel-edge/whimbrel/devicehub/identity"
	"github.com/whimbrel-edge/whimbrel/devicehub/images"
	"github.com/whimbrel-edge/whimbrel/devicehub/ingest"
	"github.com/whimbrel-edge/whimbrel/devicehub/registry"
	"github.com/whimbrel-edge/whimbrel/devicehub/routing"
	"github.com/whimbrel-edge/whimbrel/devicehub/sessions"
	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/devicehub/twins"
	"github.com/whimbrel-edge/whimbrel/devicehub/workloads"
	"github.com/whimbrel-edge/whimbrel/internal/appproxy"
	"github.com/whimbrel-edge/whimbrel/internal/pki"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/bulk"
	"github.com/whimbrel-edge/whimbrel/twin"
)

// Store is all that a hub keeps.
type Store interface {
	store.Store
	identity.Secrets
	identity.JoinTokens
	identity.APITokens
}

// Config says how a hub is run. Store, Key, LinkAddr and Log are required.
type Config struct {
	Store      Store
	Key        pki.SealKey   // seals what is secret in the store
	LinkAddr   string        // where the link listens, "host:port"; port 0 picks one
	Hosts      []string      // names and addresses the hub is reached by, for its certificate
	LinkURL    string        // what edges are told to connect to; default made of the first host and the port
	RouteGuard routing.Guard // which addresses routes may reach
	ImageDir   string        // for the images that edges fetch; "": none are kept
	ImageSpace int64         // bytes that they may take; 0: images.DefaultSpace
	// ImageHosts reports whether this is what those who push images call the hub,
	// such as hub.example.com:8080. An image whose name begins so is the hub's.
	ImageHosts func(host string) bool
	Mappers    []*models.Mapper
	// ComeBack is how long nodes have, after a start, to be there again until it is an
	// event that they are not. Default a minute.
	ComeBack   time.Duration
	Log        *slog.Logger
	Now        func() time.Time
	Registerer prometheus.Registerer // may be nil
}

// Hub is an open hub.
type Hub struct {
	cfg      Config
	log      *slog.Logger
	now      func() time.Time
	ca       *pki.CA
	server   *pki.ServerCert
	listener net.Listener
	lineage  string
	started  time.Time
	ready    chan struct{}

	Identity  *identity.Service
	Registry  *registry.Registry
	twins     *twins.Cache
	sessions  *sessions.Manager
	ingest    *ingest.Ingester
	events    *events.Book
	calendar  *calendar.Calendar
	workloads *workloads.Controller
	routing   *routing.Router
	kept      *appproxy.Pool // connections to apps
	images    *images.Store
	looking   looking
}

// New loads a hub from its store and opens its link's port. Run runs it; Close
// gives the port back when Run is never called.
func New(ctx context.Context, cfg Config) (*Hub, error) {
	h := &Hub{cfg: cfg, log: cfg.Log, now: cfg.Now, ready: make(chan struct{}), looking: newLooking()}
	if h.now == nil {
		h.now = time.Now
	}
	h.started = h.now()
	var err error
	if h.lineage, err = cfg.Store.Lineage(ctx); err != nil {
		return nil, fmt.Errorf("read the database's lineage: %w", err)
	}
	if h.ca, err = identity.EnsureCA(ctx, cfg.Store, cfg.Key, h.now()); err != nil {
		return nil, fmt.Errorf("load the hub's authority: %w", err)
	}
	if h.server, err = pki.NewServerCert(h.ca, cfg.Hosts, h.now()); err != nil {
		return nil, fmt.Errorf("make the hub's certificate: %w", err)
	}
	if h.calendar, err = calendar.Open(ctx, cfg.Store, h.now, h.log); err != nil {
		return nil, err
	}
	h.events = events.New(events.Config{Store: cfg.Store, Log: h.log, Now: h.now, Late: h.calendar.Now})
	if h.Registry, err = registry.Open(ctx, registry.Config{Store: cfg.Store, Key: cfg.Key, CheckRoute: func(o *models.Route) []models.FieldError { return routing.Check(o, cfg.RouteGuard) }, Now: h.now, Log: h.log}); err != nil {
		return nil, err
	}
	if h.twins, err = twins.Open(ctx, twins.Config{Store: cfg.Store, History: cfg.Store, Registry: h.Registry, Now: h.now, Log: h.log}); err != nil {
		return nil, err
	}
	h.Identity, err = identity.New(identity.Config{CA: h.ca, Log: h.log, Now: h.now,
		Stores: identity.Stores{Secrets: cfg.Store, JoinTokens: cfg.Store, APITokens: cfg.Store, Users: users{h.Registry}, Nodes: nodes{h.Registry, cfg.Store}},
		Record: func(ctx context.Context, e identity.Event) {
			if normal(e.Reason) { // something was done, and whoever asked for it is about to hear so
				h.events.Note(ctx, occurrenceOf(e))
			} else {
				h.events.Raise(occurrenceOf(e))
			}
			h.auditIdentity(e)
			level := slog.LevelWarn
			if normal(e.Reason) {
				level = slog.LevelInfo
			}
			h.log.Log(context.Background(), level, "identity", "reason", e.Reason, "remote", e.Remote, "node", e.Node, "user", e.User, "message", e.Message, "suppressed", e.Suppressed)
		}})
	if err != nil {
		return nil, err
	}
	if h.routing, err = routing.New(ctx, routing.Config{Store: cfg.Store, Objects: h.Registry, Secret: h.secret, Guard: cfg.RouteGuard, Events: h.events,
		NewID: func() string { return ulid.Make().String() }, Now: h.now, Log: h.log, Registerer: cfg.Registerer}); err != nil {
		return nil, err
	}
	h.ingest = ingest.New(ingest.Config{Store: cfg.Store, Devices: devices{h}, Sink: h.twins, Happened: h.events.Stored, Log: h.log, Registerer: cfg.Registerer, Now: h.now})
	if cfg.ImageDir != "" {
		if h.images, err = images.Open(images.Config{Dir: cfg.ImageDir, Space: cfg.ImageSpace, Changed: h.auditImage, Log: h.log, Now: h.now}); err != nil {
			return nil, err
		}
	}
	if h.workloads, err = workloads.New(ctx, workloads.Config{Registry: h.Registry, Store: cfg.Store, Events: h.events, Now: h.now, Log: h.log}); err != nil {
		return nil, err
	}
	h.kept = appproxy.NewPool()
	h.sessions = sessions.New(sessions.Config{Registry: h.Registry, Ingest: h.ingest, Twins: h.twins, Workloads: h.workloads, Log: cfg.Store, Identity: h.Identity, Routes: h.routing,
		Streams: map[string]sessions.StreamHandler{bulk.KindService: h.streamService, bulk.KindImage: h.streamImage},
		Crowded: h.kept.Close,
		Events:  h.events, Lineage: h.lineage, Now: h.now, Logger: h.log})
	h.routing.SetNodes(h.sessions)
	h.Registry.SetStatuses(statuses{h})
	if cfg.Registerer != nil {
		connected := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "whimbrel_hub_nodes_connected", Help: "Nodes with a live session."},
			func() float64 { return float64(h.sessions.Connected()) })
		if err := cfg.Registerer.Register(connected); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	if h.listener, err = net.Listen("tcp", cfg.LinkAddr); err != nil {
		return nil, fmt.Errorf("listen for the link: %w", err)
	}
	return h, nil
}

// Close gives back the link's port of a hub that is not run.
func (h *Hub) Close() error { return h.listener.Close() }

// LinkAddr returns where the link listens.
func (h *Hub) LinkAddr() string { return h.listener.Addr().String() }

// LinkURL returns what edges are to connect to.
func (h *Hub) LinkURL() string {
	if h.cfg.LinkURL != "" {
		return h.cfg.LinkURL
	}
	host := "127.0.0.1"
	if len(h.cfg.Hosts) > 0 {
		host = h.cfg.Hosts[0]
	}
	_, port, _ := net.SplitHostPort(h.LinkAddr())
	return "https://" + net.JoinHostPort(host, port)
}

// CA returns the hub's authority, for the REST API's certificate.
func (h *Hub) CA() *pki.CA { return h.ca }

// ServerCert returns the hub's own certificate, which renews itself.
func (h *Hub) ServerCert() *pki.ServerCert { return h.server }

// Ready is closed when the hub takes requests and links.
func (h *Hub) Ready() <-chan struct{} { return h.ready }

// Run runs the hub until ctx ends or a part of it fails for good. Its loops:
// the registry's sequencer, the twins' checkpoints, the keeper of history, the
// book of events, the tidying, the ingester, the workloads' controller, what tells of nodes
// that do not come back, the link's server.
func (h *Hub) Run(ctx context.Context) error {
	// The parts end in an order: sessions first, so that what they handed over is
	// committed; then ingest; then what it needs.
	base, stopBase := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopBase(nil)
	middle, stopMiddle := context.WithCancelCause(base)
	defer stopMiddle(nil)
	failed := make(chan error, 8)
	var baseWait, middleWait sync.WaitGroup
	start := func(wait *sync.WaitGroup, ctx context.Context, name string, run func(context.Context) error) {
		wait.Go(func() {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				failed <- fmt.Errorf("%s: %w", name, err)
			}
		})
	}
	start(&baseWait, base, "registry", h.Registry.Run)
	start(&baseWait, base, "twins", h.twins.Run)
	start(&baseWait, base, "history", (&history.Keeper{Store: h.cfg.Store, Rules: h.Registry.Retention, Now: h.now, Late: h.calendar.Now, Log: h.log}).Run)
	start(&baseWait, base, "events", h.events.Run)
	start(&baseWait, base, "routes", h.routing.Run)
	if h.images != nil {
		start(&baseWait, base, "images", h.runImages)
	}
	start(&baseWait, base, "tidying", h.tidy)
	start(&middleWait, middle, "ingest", h.ingest.Run)
	start(&middleWait, middle, "workloads", h.workloads.Run)
	start(&middleWait, middle, "absences", h.absences)
	err := h.Registry.Seed(ctx, h.cfg.Mappers)
	if err == nil {
		err = h.serveLink(ctx, failed)
	}
	_ = h.listener.Close()
	h.sessions.Close()
	h.kept.Close()
	stopMiddle(nil)
	middleWait.Wait()
	stopBase(nil)
	baseWait.Wait()
	return err
}

// serveLink serves the link until ctx ends or a part fails.
func (h *Hub) serveLink(ctx context.Context, failed chan error) error {
	srv := &http.Server{Handler: h.sessions.Handler(), TLSConfig: pki.HubTLS(h.server, h.Identity.CAs, h.now),
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(h.log.Handler(), slog.LevelDebug)}
	var wait sync.WaitGroup
	wait.Go(func() {
		if err := srv.ServeTLS(h.listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
			failed <- fmt.Errorf("link: %w", err)
		}
	})
	close(h.ready)
	var err error
	select {
	case <-ctx.Done():
		err = ctx.Err()
	case err = <-failed:
	}
	_ = srv.Close()
	wait.Wait()
	return err
}

// statuses joins what sessions and twins know of objects.
type statuses struct{ h *Hub }

func (s statuses) DeviceStatus(d *models.Device, assignment uint64) *models.DeviceStatus {
	return s.h.twins.DeviceStatus(d, assignment)
}

// MapperStatus implements registry.Statuses.
func (s statuses) MapperStatus(m *models.Mapper) *models.MapperStatus {
	return s.h.sessions.MapperStatus(m)
}

func (s statuses) NodeStatus(n *models.Node) *models.NodeStatus { return s.h.sessions.NodeStatus(n) }

func (s statuses) WorkloadStatus(o models.Object) models.Object {
	return s.h.workloads.WorkloadStatus(o)
}

func (s statuses) RouteStatus(o *models.Route) *models.RouteStatus { return s.h.routing.Status(o) }

func (s statuses) WriteState(deviceUID, property, id string) twin.WriteState {
	return s.h.twins.WriteState(deviceUID, property, id)
}

func (s statuses) Reported(deviceUID, property string) twin.Reported {
	return s.h.twins.Reported(deviceUID, property)
}

// devices is what ingest needs of the registry.
type devices struct{ h *Hub }

func (d devices) AcceptLocal(ctx context.Context, deviceUID string, l twin.Local) (registry.Judgement, error) {
	verdict, err := d.h.Registry.AcceptLocal(ctx, deviceUID, l)
	if err == nil && verdict.Verdict == twin.Accepted {
		d.h.twins.DesiredChanged(deviceUID, l.Property)
	}
	if err == nil && verdict.Verdict == twin.Overridden {
		d.h.log.Warn("a write made at the edge was overridden by the cloud's", "device", deviceUID, "property", l.Property, "write", l.ID, "by", l.By)
	}
	return verdict, err
}

func (d devices) Reference(deviceUID string) (models.ObjectReference, bool) {
	view, ok := d.h.Registry.DeviceByUID(deviceUID)
	if !ok {
		return models.ObjectReference{}, false
	}
	m := view.Device.Metadata
	return models.ObjectReference{Kind: "Device", Namespace: m.Namespace, Name: m.Name, UID: m.UID}, true
}

func (d devices) Current(deviceUID string) (assignment uint64, node string, ok bool) {
	return d.h.Registry.Current(deviceUID)
}

// The methods below are what cloudapi needs of objects and twins.

// Get returns one object with its status.
func (h *Hub) Get(ctx context.Context, key models.Key) (models.Object, error) {
	return h.Registry.Get(ctx, key)
}

// List returns a page of objects.
func (h *Hub) List(ctx context.Context, o models.ListOptions) (models.List, error) {
	return h.Registry.List(ctx, o)
}

// Update changes one object.
func (h *Hub) Update(ctx context.Context, key models.Key, o models.WriteOptions, change func(models.Object) (models.Object, error)) (models.Object, bool, error) {
	stored, created, err := h.Registry.Update(ctx, key, o, change)
	if err != nil {
		return nil, false, err
	}
	switch key.Kind {
	case "User":
		h.Identity.UserChanged(key.Name)
	case "Device":
		h.twins.DeviceChanged(stored.Meta().UID)
	case "DeviceModel":
		for _, uid := range h.Registry.ModelDevices(key.Namespace, key.Name) {
			h.twins.DeviceChanged(uid)
		}
	}
	return stored, created, nil
}

// Delete removes one object and what hangs on it.
func (h *Hub) Delete(ctx context.Context, key models.Key, o models.WriteOptions) (models.Object, error) {
	before, err := h.Registry.Delete(ctx, key, o)
	if err != nil {
		return nil, err
	}
	switch key.Kind {
	case "Node":
		if err := forgetKeys(ctx, h.cfg.Store, before.Meta().UID); err != nil {
			h.log.Error("forget a deleted node's keys; it is revoked all the same", "node", key.Name, "error", err)
		}
		h.sessions.Kick(key.Name, edgelink.GoodbyeRevoked, "the node was deleted")
		h.events.Stored() // the event came with the change
	case "User":
		revoked, err := h.Identity.RevokeUser(ctx, key.Name)
		if err != nil {
			h.log.Error("delete a deleted user's tokens; they are void all the same", "user", key.Name, "error", err)
		}
		h.auditRevoked(key.Name, o.By, revoked)
	case "Device":
		if gone, ok := before.(*models.Device); ok {
			h.twins.Forget(gone)
		}
	}
	return before, nil
}

// Watch sends changes of objects.
func (h *Hub) Watch(ctx context.Context, o models.ListOptions, resourceVersion string, send func(models.Event) error) error {
	return h.Registry.Watch(ctx, o, resourceVersion, send)
}

// Twin returns one twin.
func (h *Hub) Twin(ctx context.Context, namespace, name string) (twin.Document, error) {
	return h.twins.Twin(ctx, namespace, name)
}

// Twins returns a page of twins.
func (h *Hub) Twins(ctx context.Context, o models.ListOptions) ([]twin.Document, string, error) {
	return h.twins.Twins(ctx, o)
}

// PatchDesired stores desired values.
func (h *Hub) PatchDesired(ctx context.Context, namespace, name string, patch map[string]models.Value, o models.DesiredOptions) (twin.Document, map[string]string, error) {
	view, ids, err := h.Registry.PatchDesired(ctx, namespace, name, patch, o)
	if err != nil {
		return twin.Document{}, nil, err
	}
	h.twins.DesiredChanged(view.Device.Metadata.UID, slices.Collect(keys(patch))...)
	doc, err := h.twins.Twin(ctx, namespace, name)
	return doc, ids, err
}

func keys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// AwaitWrites waits for writes to be confirmed.
func (h *Hub) AwaitWrites(ctx context.Context, namespace, name string, writes map[string]string) error {
	return h.twins.AwaitWrites(ctx, namespace, name, writes)
}

// StreamTwins sends changes of twins.
func (h *Hub) StreamTwins(ctx context.Context, o models.ListOptions, cursor string, send func(twin.StreamChange) error) error {
	return h.twins.StreamTwins(ctx, o, cursor, send)
}

// History returns a page of a property's history. A property that the model has
// no longer still has one.
func (h *Hub) History(ctx context.Context, namespace, name, property string, q models.HistoryQuery) (models.History, error) {
	uid, view, err := h.subject(ctx, namespace, name, q.UID)
	if err != nil {
		return models.History{}, err
	}
	of := history.Subject{DeviceUID: uid, Property: property}
	unit, note, at := "", "", -1
	if view != nil {
		at = slices.IndexFunc(view.Properties, func(p models.ResolvedProperty) bool { return p.Name == property })
	}
	if at >= 0 {
		unit, note = view.Properties[at].Unit, models.NotKept(view.Properties[at].History, view.Properties[at].Uplink)
	} else if known, err := history.Any(ctx, h.cfg.Store, of); err != nil || !known {
		if err == nil {
			err = models.Errorf(models.KindNotFound, "device %s has no property %.80q, and no history of one", name, property)
		}
		return models.History{}, h.unavailable(ctx, err)
	}
	if of.Nodes, err = h.services(ctx, uid, view); err != nil {
		return models.History{}, h.unavailable(ctx, err)
	}
	page, err := history.Query(ctx, h.cfg.Store, of, q)
	page.Device, page.Property, page.Unit, page.Note = name, property, unit, note
	return page, h.unavailable(ctx, err)
}

// Raise takes note of something that happened: see events.Book.
func (h *Hub) Raise(o models.Occurrence) { h.events.Raise(o) }

// Events returns a page of events, the latest first.
func (h *Hub) Events(ctx context.Context, o models.EventOptions) (models.LoggedEvents, error) {
	return h.events.List(ctx, o)
}

// WatchEvents sends events that are new or have changed.
func (h *Hub) WatchEvents(ctx context.Context, o models.EventOptions, resourceVersion string, send func(models.EventChange) error) error {
	return h.events.Watch(ctx, o, resourceVersion, send)
}

// unavailable is what a caller is told when the store fails: to come back, and
// not why, which is for the log.
func (h *Hub) unavailable(ctx context.Context, err error) error {
	if err == nil || models.KindOf(err) != models.KindInternal || ctx.Err() != nil {
		return err
	}
	h.log.Error("the store fails", "step", "read history", "error", err)
	return models.Errorf(models.KindUnavailable, "the store does not answer; try again")
}
