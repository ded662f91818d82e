// Package registry holds the hub's objects and desired values: it checks them
// against each other, gives every change a revision, stores changes in groups,
// and tells watchers and sessions.
//
// One loop, the sequencer, makes all changes. It takes what callers queued,
// applies each to a staged view, commits the group to the store in one
// transaction, and only then shows it: nobody sees what is not stored. Readers
// never wait for the store: everything is in memory. Objects in it are never
// changed, only replaced.
package registry

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/internal/failpoint"
	"github.com/whimbrel-edge/whimbrel/internal/pki"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/twin"
)

// Statuses knows what objects' documents say under status, and what became of
// writes. Its methods are called with every lock of the registry free, and may
// take their own before the registry's.
type Statuses interface {
	// DeviceStatus returns a device's status.
	DeviceStatus(d *models.Device, assignment uint64) *models.DeviceStatus
	// NodeStatus returns a node's status.
	NodeStatus(n *models.Node) *models.NodeStatus
	MapperStatus(m *models.Mapper) *models.MapperStatus
	// WorkloadStatus returns an app or Pod with its status: a copy, or the
	// object itself when nothing is known.
	WorkloadStatus(o models.Object) models.Object
	// RouteStatus returns a route's status.
	RouteStatus(o *models.Route) *models.RouteStatus
	// WriteState returns how far a write is known to have come, "" when nothing
	// is known of it.
	WriteState(deviceUID, property, id string) twin.WriteState
	// Reported returns what is known of a property, the zero Reported for nothing.
	Reported(deviceUID, property string) twin.Reported
}

// Config is what a Registry needs.
type Config struct {
	Store store.Objects
	Key   pki.SealKey // seals Secrets in the store
	// CheckRoute says what else is wrong with a route; nil: nothing.
	CheckRoute func(o *models.Route) []models.FieldError
	Statuses   Statuses // may be set later, before Run, with SetStatuses
	Now        func() time.Time
	Log        *slog.Logger
}

// Bounds of a Registry.
const (
	queueLength = 256              // changes that wait for the sequencer; further callers block
	groupLength = 128              // changes in one commit
	eventsKept  = 16_384           // changes a watcher can catch up on; older is KindGone
	eventBytes  = 64 << 20         // of the documents in them
	commitTime  = 30 * time.Second // for the store to take a group
)

// errForeign ends the sequencer: what it has in memory is not what is stored.
var errForeign = errors.New("the database was changed by somebody else; start again to load it anew")

// Registry is the hub's objects. Its methods are safe for concurrent use.
type Registry struct {
	store      store.Objects
	key        pki.SealKey
	statuses   Statuses
	checkRoute func(o *models.Route) []models.FieldError
	now        func() time.Time
	log        *slog.Logger
	ops        chan *op
	stopped    chan struct{} // closed when the sequencer has ended
	opened     int64         // the revision when it was loaded
	doubt      *stage        // the sequencer's own: a group that may or may not be stored

	mu          sync.RWMutex // protects all below; held only for memory work
	revision    int64
	objects     map[models.Key]*entry
	byUID       map[string]*entry              // devices
	byModel     map[models.Key]map[string]bool // DeviceModel to uids of its devices
	byNode      map[string]map[string]bool     // node name to uids of its devices
	pods        map[string]map[string]*entry   // node name to its pods by uid
	users       map[models.Key]map[string]int  // ConfigMap or Secret to the nodes that use it, and by how many objects there
	services    map[string]map[models.Key]bool // namespace to its Services
	desired     map[string]desiredEntry        // by device uid
	expiring    map[string]map[string]Expiring // by device uid and property: desired values that may expire
	events      []event                        // oldest first, bounded by eventsKept and eventBytes
	size        int                            // of the documents in events
	floor       int64                          // revision before the oldest event kept
	watchers    map[*watcher]struct{}
	statusAt    map[models.Key]int64              // the revision there was when an object's status last changed
	follower    map[string]map[*Follower]struct{} // by node name
	listeners   map[*Changes]struct{}
	places      map[string]map[models.Key]*entry // routes, nodes and pods, by kind
	servicePods servicePods
	// placesRevision is of the last change of a node, pod or service: what routes
	// are depends on them. It may be lower after a start, which does no harm.
	placesRevision int64
}

// entry is one object. It is never changed.
type entry struct {
	object     models.Object // no status; server-owned metadata filled in
	revision   int64
	assignment uint64                    // devices
	props      []models.ResolvedProperty // devices, and models for devices that override nothing; shared
	schemas    *schemas                  // mappers
	json       []byte                    // what is sent to edges
	storedAs   []byte                    // what is stored: the same, but for Secrets; nil when it was loaded
	secrets    []models.Key              // that the object refers to
}

type desiredEntry struct {
	revision int64
	desired  twin.Desired
}

type event struct {
	revision int64
	typ      models.EventType
	entry    *entry
	labels   map[string]string // as they were before; what a selector chose then is told of its leaving
}

// op is one queued change.
type op struct {
	ctx   context.Context
	apply func(*stage) error
	done  chan error
}

// Open loads the registry from its store. Run must be called for changes to be
// possible.
func Open(ctx context.Context, cfg Config) (*Registry, error) {
	r := &Registry{store: cfg.Store, key: cfg.Key, statuses: cfg.Statuses, checkRoute: cfg.CheckRoute, now: cfg.Now, log: cfg.Log, ops: make(chan *op, queueLength),
		stopped: make(chan struct{}), objects: map[models.Key]*entry{}, byUID: map[string]*entry{},
		byModel: map[models.Key]map[string]bool{}, byNode: map[string]map[string]bool{}, desired: map[string]desiredEntry{}, expiring: map[string]map[string]Expiring{},
		watchers: map[*watcher]struct{}{}, statusAt: map[models.Key]int64{}, follower: map[string]map[*Follower]struct{}{},
		pods: map[string]map[string]*entry{}, users: map[models.Key]map[string]int{}, services: map[string]map[models.Key]bool{}, listeners: map[*Changes]struct{}{}, servicePods: servicePods{of: map[string]map[string][]*models.Pod{}}, places: map[string]map[models.Key]*entry{}}
	if r.now == nil {
		r.now = time.Now
	}
	var entries []*entry
	desired := map[string]desiredEntry{}
	var stale []store.Object // sealed by an older key
	revision, err := cfg.Store.Load(ctx, func(o store.Object) error {
		text, fresh, err := unseal(cfg.Key, o)
		if err != nil {
			return fmt.Errorf("stored %s %s/%s: %w", o.Kind, o.Namespace, o.Name, err)
		}
		if fresh != nil {
			resealed := o
			resealed.JSON = fresh
			stale = append(stale, resealed)
		}
		o.JSON = text
		e, err := decodeStored(o)
		if err != nil {
			return fmt.Errorf("stored %s %s/%s: %w", o.Kind, o.Namespace, o.Name, err)
		}
		entries = append(entries, e)
		return nil
	}, func(d store.Desired) error {
		var v twin.Desired
		if err := json.Unmarshal(d.JSON, &v); err != nil {
			return fmt.Errorf("stored desired values of %s: %w", d.DeviceUID, err)
		}
		desired[d.DeviceUID] = desiredEntry{d.Revision, v}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("load registry: %w", err)
	}
	r.revision, r.floor, r.opened = revision, revision, revision
	if err := r.reseal(ctx, stale); err != nil {
		return nil, err
	}
	for _, e := range entries {
		r.index(e)
		if m, ok := e.object.(*models.DeviceModel); ok {
			if e.props, err = models.Resolve(m, &models.Device{}); err != nil {
				r.log.Error("stored model does not resolve", "model", m.Metadata.Name, "error", err)
			}
		}
	}
	for uid, d := range desired {
		if r.byUID[uid] == nil {
			r.log.Warn("stored desired values of a device that is gone", "device", uid)
			continue
		}
		r.setDesiredLocked(uid, d)
	}
	for _, e := range entries { // when all models are there
		if d, ok := e.object.(*models.Device); ok {
			e.props = r.resolveLoaded(d)
		}
		if m, ok := e.object.(*models.Mapper); ok {
			if e.schemas, err = compileSchemas(m); err != nil {
				r.log.Error("stored mapper's schemas do not compile; nothing fits it", "mapper", m.Metadata.Name, "error", err)
				e.schemas = &schemas{broken: err}
			}
		}
	}
	return r, nil
}

// resolveLoaded resolves a stored device, or returns nil when its model no
// longer fits; the device then has no properties until either is mended.
func (r *Registry) resolveLoaded(d *models.Device) []models.ResolvedProperty {
	e := r.objects[modelKey(d)]
	if e == nil {
		r.log.Error("stored device has no model", "device", d.Metadata.Name, "model", d.Spec.Model)
		return nil
	}
	props, err := e.resolve(d)
	if err != nil {
		r.log.Error("stored device does not fit its model", "device", d.Metadata.Name, "error", err)
	}
	return props
}

// resolve returns a device's properties; e is its model. Devices that override
// nothing share one slice: thousands of them cost no more than one.
func (e *entry) resolve(d *models.Device) ([]models.ResolvedProperty, error) {
	if len(d.Spec.Properties) == 0 && e.props != nil {
		return e.props, nil
	}
	return models.Resolve(e.object.(*models.DeviceModel), d)
}

// SetStatuses says who knows statuses. It must be called before Run.
func (r *Registry) SetStatuses(s Statuses) { r.statuses = s }

func modelKey(d *models.Device) models.Key {
	return models.Key{Kind: "DeviceModel", Namespace: d.Metadata.Namespace, Name: d.Spec.Model}
}

func decodeStored(o store.Object) (*entry, error) {
	info, ok := models.KindByName(o.Kind)
	if !ok || info.Kind != o.Kind {
		return nil, fmt.Errorf("unknown kind %q", o.Kind)
	}
	obj := info.New()
	// Tolerant: a newer hub may have stored fields that this one does not know.
	if err := json.Unmarshal(o.JSON, obj); err != nil {
		return nil, err
	}
	obj.Default()
	stamp(obj, o.UID, o.Generation, o.Revision, o.Created)
	return &entry{object: obj, revision: o.Revision, assignment: uint64(o.Assignment), json: o.JSON, secrets: secretsOf(obj)}, nil
}

// stamp fills in the metadata that the hub owns.
func stamp(o models.Object, uid string, generation, revision int64, created time.Time) {
	m := o.Meta()
	m.UID, m.Generation, m.ResourceVersion = uid, generation, strconv.FormatInt(revision, 10)
	m.CreationTimestamp = new(created.UTC().Truncate(time.Second))
}

// index puts an entry into the maps. r.mu is held, or r is not shared yet.
func (r *Registry) index(e *entry) {
	key := models.KeyOf(e.object)
	r.unindex(r.objects[key])
	r.objects[key] = e
	r.indexRoute(e)
	if d, ok := e.object.(*models.Device); ok {
		r.byUID[d.Metadata.UID] = e
		add(r.byModel, modelKey(d), d.Metadata.UID)
		add(r.byNode, d.Spec.Node, d.Metadata.UID)
	}
	r.indexWorkload(e)
}

func (r *Registry) unindex(e *entry) {
	if e == nil {
		return
	}
	delete(r.objects, models.KeyOf(e.object))
	r.unindexRoute(e)
	if d, ok := e.object.(*models.Device); ok {
		delete(r.byUID, d.Metadata.UID)
		remove(r.byModel, modelKey(d), d.Metadata.UID)
		remove(r.byNode, d.Spec.Node, d.Metadata.UID)
	}
	r.unindexWorkload(e)
}

func add[K comparable](m map[K]map[string]bool, k K, uid string) {
	if m[k] == nil {
		m[k] = map[string]bool{}
	}
	m[k][uid] = true
}

func remove[K comparable](m map[K]map[string]bool, k K, uid string) {
	delete(m[k], uid)
	if len(m[k]) == 0 {
		delete(m, k)
	}
}

// Run is the sequencer. It ends with ctx, after the group at hand, or when the
// database has another writer.
func (r *Registry) Run(ctx context.Context) error {
	defer close(r.stopped)
	for {
		var group []*op
		select {
		case <-ctx.Done():
			return ctx.Err()
		case first := <-r.ops:
			group = append(group, first)
		}
	more:
		for len(group) < groupLength {
			select {
			case next := <-r.ops:
				group = append(group, next)
			default:
				break more
			}
		}
		if err := r.commit(context.WithoutCancel(ctx), group); err != nil {
			return err
		}
	}
}

// change queues one change and waits for its fate. ctx counts until the
// sequencer takes it up.
func (r *Registry) change(ctx context.Context, apply func(*stage) error) error {
	o := &op{ctx: ctx, apply: apply, done: make(chan error, 1)}
	select {
	case r.ops <- o:
	case <-r.stopped:
		return errStopping()
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-o.done:
		return err
	case <-r.stopped:
		select {
		case err := <-o.done:
			return err
		default:
			return errStopping()
		}
	}
}

func errStopping() error { return models.Errorf(models.KindUnavailable, "the hub is stopping") }

// commit applies a group, stores it, shows it, and tells each caller. Its error
// is fatal.
func (r *Registry) commit(ctx context.Context, group []*op) (fatal error) {
	failed := make([]error, len(group))
	defer func() {
		for i, o := range group {
			o.done <- failed[i]
		}
	}()
	fail := func(err error) {
		for i := range failed {
			if failed[i] == nil {
				failed[i] = err
			}
		}
	}
	if r.doubt != nil {
		if _, err := r.settle(ctx); err != nil {
			fail(models.Errorf(models.KindUnavailable, "the store cannot be reached; nothing has changed, try again"))
			return fatalOnly(err)
		}
	}
	s := newStage(r)
	for i, o := range group {
		if failed[i] = o.ctx.Err(); failed[i] == nil {
			failed[i] = s.try(o.apply)
		}
	}
	// A model that was put again as it is has its devices compiled again, and
	// nothing to store.
	if s.revision == r.revision {
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, commitTime)
	failpoint.Here("registry.commit")
	err := r.store.Commit(bounded, s.stored())
	failpoint.Here("registry.committed")
	cancel()
	if err == nil {
		r.show(s)
		return nil
	}
	if errors.Is(err, store.ErrConflict) {
		fail(models.Errorf(models.KindUnavailable, "the change could not be stored; nothing has changed"))
		return errForeign
	}
	// A connection that broke says nothing about the transaction.
	r.log.Error("store a group of changes", "changes", len(s.changes), "error", err)
	r.doubt = s
	stored, err := r.settle(ctx)
	switch {
	case err != nil:
		fail(models.Errorf(models.KindUnavailable, "the store does not answer; it is not known whether the change was stored"))
	case !stored:
		fail(models.Errorf(models.KindUnavailable, "the change could not be stored; nothing has changed, try again"))
	}
	return fatalOnly(err)
}

func fatalOnly(err error) error {
	if errors.Is(err, errForeign) {
		return err
	}
	return nil
}

// settle finds out whether the group in doubt was stored, and shows it if so.
func (r *Registry) settle(ctx context.Context) (stored bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, commitTime)
	defer cancel()
	revision, err := r.store.Load(ctx, func(store.Object) error { return nil }, func(store.Desired) error { return nil })
	switch {
	case err != nil:
		return false, err
	case revision == r.revision:
	case revision == r.doubt.revision:
		r.show(r.doubt)
		stored = true
	default:
		return false, errForeign
	}
	r.doubt = nil
	return stored, nil
}

// show makes a stored group visible.
func (r *Registry) show(s *stage) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range s.changes {
		r.tellFollowersLocked(c)
		if c.desired == nil && !c.quiet {
			r.tellListenersLocked(models.KeyOf(c.entry.object))
		}
		switch {
		case c.desired != nil:
			r.setDesiredLocked(c.deviceUID, *c.desired)
			continue
		case c.typ == models.Deleted:
			key := models.KeyOf(c.entry.object)
			r.unindex(r.objects[key])
			delete(r.statusAt, key)
			delete(r.desired, c.entry.object.Meta().UID)
			delete(r.expiring, c.entry.object.Meta().UID)
		default:
			r.index(c.entry)
		}
		if c.quiet {
			continue
		}
		r.secretChangedLocked(c)
		r.lineChangedLocked(c)
		ev := event{revision: c.revision, typ: c.typ, entry: c.entry}
		if c.before != nil {
			ev.labels = c.before.object.Meta().Labels
		}
		r.events = append(r.events, ev)
		r.size += ev.bytes()
	}
	r.trimEventsLocked()
	r.revision = s.revision
	for w := range r.watchers {
		w.wake()
	}
}

// bytes is about what an event keeps in memory.
func (e *event) bytes() int { return 2*len(e.entry.json) + 512 }

// trimEventsLocked forgets the oldest events. It does so in steps, since each
// moves the others.
func (r *Registry) trimEventsLocked() {
	if len(r.events) <= eventsKept+eventsKept/4 && r.size <= eventBytes {
		return
	}
	n := 0
	for n < len(r.events) && (len(r.events)-n > eventsKept || r.size > eventBytes*3/4) {
		r.size -= r.events[n].bytes()
		n++
	}
	r.floor = r.events[n-1].revision
	r.events = slices.Clone(r.events[n:])
}

// NewUID returns a new object's uid or a new write's id.
func NewUID() string { return ulid.MustNew(ulid.Now(), rand.Reader).String() }
