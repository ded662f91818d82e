// Package routing is the hub's part in routes. It takes messages from edges and
// from REST, keeps them in the store until they are delivered, makes requests to
// HTTP targets, and hands the sessions what nodes are to deliver. What cannot be
// delivered it keeps as dead letters, to be replayed or dropped.
//
// A message goes through two stages. As "hub" it waits for the courier, which
// makes the request, or, when the target is on nodes, puts one copy for each of them
// behind. As "node:NAME" it waits for that node's session, which sends it and
// forgets it when the node has answered for it.
package routing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/internal/courier"
	"github.com/whimbrel-edge/whimbrel/internal/expression"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

// Bounds. Beyond them an edge keeps its messages, and who publishes by REST gets
// a 429.
const (
	maxWaiting      = 200_000   // messages
	maxBytes        = 512 << 20 // of their payloads
	maxRouteWaiting = 50_000    // messages of one route: one target that is away does not fill the queue of all
	maxDead         = 10_000    // dead letters of one route; beyond, the oldest are dropped and counted
	maxWaiters      = 4096      // who wait for an answer at a time
	maxFresh        = 16 << 20  // bytes of messages that need not be read again to be delivered; others are
	waitKept        = 10 * time.Minute
	// MaxPayload is of one message.
	MaxPayload = 1 << 20
)

// specKept is how long a route's former specs are remembered: a message taken
// under one of them may be as old as a TTL.
const specKept = models.MaxRouteTTL + 24*time.Hour

// hubTarget and nodeTarget are the stages.
const (
	hubTarget  = "hub"
	nodeTarget = "node:"
)

// Objects is what routing needs of the registry.
type Objects interface {
	Get(ctx context.Context, key models.Key) (models.Object, error)
	List(ctx context.Context, o models.ListOptions) (models.List, error)
	Watch(ctx context.Context, o models.ListOptions, resourceVersion string, send func(models.Event) error) error
	StatusChanged(key models.Key)
	// ServiceNodes returns the nodes that have pods of a Service.
	ServiceNodes(namespace, name string) []string
}

// Nodes is what routing needs of the sessions.
type Nodes interface {
	Live(node string) bool
	// Reply sends an answer to a node, if it is there.
	Reply(node string, a *pb.RouteReply)
}

// Events takes note of what happened. Raise must not block.
type Events interface {
	Raise(o models.Occurrence)
}

// Config is what a Router needs.
type Config struct {
	Store   store.Routes
	Objects Objects
	Nodes   Nodes // may be set later, before Run, with SetNodes
	// Secret returns the values of a Secret.
	Secret     func(namespace, name string) (map[string][]byte, error)
	Guard      Guard
	Events     Events
	NewID      func() string
	Now        func() time.Time
	Log        *slog.Logger
	Registerer prometheus.Registerer // may be nil
}

// Router is the hub's part. Its methods are safe for concurrent use.
type Router struct {
	Config
	courier   *courier.Courier
	client    *client
	delivered prometheus.Counter

	mu        sync.Mutex                             // protects all below
	specs     map[specKey]*models.RouteSpec          // compiled from documents as they were; bounded by forgetSpecsLocked
	current   map[string]models.Key                  // routes that there are, by uid
	waiting   map[string]int                         // messages in the store, by route
	dead      map[string]int                         // dead letters in the store, by route
	count     int                                    // of waiting
	bytes     int64                                  // about, of what waits
	totals    map[string]map[string]store.RouteTotal // by route and place
	waiters   map[string]*waiter                     // by key: who waits here
	asking    map[string]asking                      // by key: nodes where somebody waits
	flying    map[int64]flight                       // by id: messages that the courier tries, or has tried and not settled
	fresh     map[int64]*store.RoutedMessage         // by id: messages for the courier as they were stored; bounded by freshLeft
	freshLeft int                                    // bytes
	handed    map[int64]bool                         // by id: nodes have copies of it now; until it is settled
	wake      map[string]chan struct{}               // by node, of the sessions
	programs  map[string]*programs                   // by uid and generation
}

type specKey struct {
	route      string
	generation int64
}

// flight is a message without its payload.
type flight struct {
	store.RoutedMessage
	size int // of its payload
}

func flightOf(m *store.RoutedMessage) flight {
	f := flight{*m, len(m.Payload)}
	f.Payload = nil
	return f
}

type waiter struct {
	c    chan *pb.RouteReply
	left int // nodes that have not answered, for MQTT
}

type asking struct {
	node string
	at   time.Time
}

type programs struct{ when, transform *expression.Program }

// New returns a router that has loaded what waits. Run must be called for
// anything to be delivered.
func New(ctx context.Context, cfg Config) (*Router, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	r := &Router{Config: cfg, specs: map[specKey]*models.RouteSpec{}, current: map[string]models.Key{}, waiting: map[string]int{}, dead: map[string]int{},
		totals: map[string]map[string]store.RouteTotal{}, waiters: map[string]*waiter{}, asking: map[string]asking{}, flying: map[int64]flight{}, fresh: map[int64]*store.RoutedMessage{}, freshLeft: maxFresh, handed: map[int64]bool{},
		wake: map[string]chan struct{}{}, programs: map[string]*programs{}}
	r.client = newClient(cfg.Guard)
	r.courier = courier.New(courier.Config{Deliver: r.deliver, Store: r.settle, Behind: r.behind, Now: cfg.Now, Log: cfg.Log})
	r.delivered = prometheus.NewCounter(prometheus.CounterOpts{Name: "whimbrel_route_delivered_total", Help: "Messages of routes that were delivered, by the hub and, as far as they have said so, by edges."})
	if cfg.Registerer != nil {
		if err := cfg.Registerer.Register(r.delivered); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	for _, dead := range []bool{false, true} {
		if err := r.each(ctx, store.RoutedQuery{Dead: dead}, func(m *store.RoutedMessage) {
			if dead {
				r.dead[m.Route]++
			} else {
				r.addedLocked(m)
				if m.Target == hubTarget {
					r.courier.Load(toCourier(m))
				}
			}
		}); err != nil {
			return nil, err
		}
	}
	if err := cfg.Store.RouteTotals(ctx, func(t store.RouteTotal) error {
		r.setTotalLocked(t)
		return nil
	}); err != nil {
		return nil, err
	}
	return r, nil
}

// SetNodes says where the sessions are.
func (r *Router) SetNodes(n Nodes) { r.Nodes = n }

// each pages through messages.
func (r *Router) each(ctx context.Context, q store.RoutedQuery, f func(*store.RoutedMessage)) error {
	for q.Limit = 500; ; {
		page, err := r.Store.Routed(ctx, q)
		if err != nil {
			return err
		}
		for i := range page {
			f(&page[i])
			q.After = page[i].ID
		}
		if len(page) < q.Limit {
			return nil
		}
	}
}

func (r *Router) addedLocked(m *store.RoutedMessage) {
	r.waiting[m.Route]++
	r.count++
	r.bytes += int64(len(m.Payload))
}

func (r *Router) goneLocked(route string, payload int) {
	if r.waiting[route]--; r.waiting[route] <= 0 {
		delete(r.waiting, route)
	}
	r.count--
	r.bytes -= int64(payload)
}

func (r *Router) setTotalLocked(t store.RouteTotal) {
	if r.totals[t.Route] == nil {
		r.totals[t.Route] = map[string]store.RouteTotal{}
	}
	r.totals[t.Route][t.Place] = t
}

// Run delivers until ctx ends.
func (r *Router) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wait sync.WaitGroup
	defer wait.Wait()
	wait.Go(func() { _ = r.courier.Run(ctx) })
	wait.Go(func() { r.follow(ctx) })
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			r.client.close()
			return nil
		case <-tick.C:
			r.expire(ctx)
		}
	}
}

func toCourier(m *store.RoutedMessage) courier.Message {
	return courier.Message{ID: m.ID, Group: m.Route, Lane: m.Lane, Deadline: m.Deadline, Retries: m.Retries, Attempts: m.Attempts, Asker: m.Key}
}

// behind tells who waits for a message that stands behind one whose target is not to
// be had.
func (r *Router) behind(m courier.Message, err error) { r.answer(m.Asker, courier.StandsBehind(err)) }

// follow remembers what routes say, and forgets those that are gone.
func (r *Router) follow(ctx context.Context) {
	for ctx.Err() == nil {
		seen := map[string]bool{}
		listed := false
		err := r.Objects.Watch(ctx, models.ListOptions{Kind: "Route"}, "", func(e models.Event) error {
			if e.Type == models.Bookmark && !listed {
				listed = true
				r.forgetOthers(ctx, seen)
				return nil
			}
			o, ok := e.Object.(*models.Route)
			if !ok {
				return nil
			}
			if e.Type == models.Deleted {
				r.forget(ctx, o.Metadata.UID)
				return nil
			}
			seen[o.Metadata.UID] = true
			return r.remember(ctx, o)
		})
		if err != nil && ctx.Err() == nil {
			r.Log.Error("following routes failed; it is begun again", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}
}

func (r *Router) remember(ctx context.Context, o *models.Route) error {
	key := specKey{o.Metadata.UID, o.Metadata.Generation}
	r.mu.Lock()
	r.current[o.Metadata.UID] = models.KeyOf(o)
	known := r.specs[key] != nil
	if !known {
		r.specs[key] = new(o.Spec)
	}
	r.mu.Unlock()
	if known {
		return nil
	}
	text, err := json.Marshal(o.Spec)
	if err != nil {
		return fmt.Errorf("encode a route: %w", err)
	}
	return r.Store.SetRouteSpec(ctx, key.route, key.generation, text, r.Now(), specKept)
}

func (r *Router) forgetOthers(ctx context.Context, keep map[string]bool) {
	r.mu.Lock()
	var gone []string
	for uid := range r.totals {
		if !keep[uid] {
			gone = append(gone, uid)
		}
	}
	r.mu.Unlock()
	for _, uid := range gone {
		r.forget(ctx, uid)
	}
}

// forget drops what is kept of a route that is gone. What waits is delivered
// all the same.
func (r *Router) forget(ctx context.Context, uid string) {
	r.mu.Lock()
	delete(r.current, uid)
	delete(r.totals, uid)
	delete(r.dead, uid)
	for key := range r.specs {
		if key.route == uid {
			delete(r.specs, key)
		}
	}
	r.mu.Unlock()
	if err := r.Store.ForgetRoute(ctx, uid); err != nil && ctx.Err() == nil {
		r.Log.Error("forgetting a route failed", "route", uid, "error", err)
	}
}

// spec is what a route said at a generation; what it says now when that is not
// known.
func (r *Router) spec(ctx context.Context, m *pb.RouteMessage) (*models.RouteSpec, error) {
	key := specKey{m.Route, m.Generation}
	r.mu.Lock()
	spec := r.specs[key]
	r.mu.Unlock()
	if spec != nil {
		return spec, nil
	}
	text, err := r.Store.RouteSpec(ctx, m.Route, m.Generation)
	switch {
	case err == nil:
		spec = &models.RouteSpec{}
		if err := json.Unmarshal(text, spec); err != nil {
			return nil, fmt.Errorf("a stored route cannot be read: %w", err)
		}
	case errors.Is(err, store.ErrNotFound):
		o, err := r.Objects.Get(ctx, models.Key{Kind: "Route", Namespace: m.Namespace, Name: m.Name})
		if err != nil {
			return nil, err
		}
		spec = &o.(*models.Route).Spec
	default:
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.specs) > 10_000 { // former generations, kept for nothing but speed
		clear(r.specs)
	}
	r.specs[key] = spec
	return spec, nil
}

// roomLocked reports whether a message of a route may be taken.
func (r *Router) roomLocked(route string, n int, bytes int64) bool {
	return r.count+n <= maxWaiting && r.bytes+bytes <= maxBytes && r.waiting[route]+n <= maxRouteWaiting
}

// Received takes messages from a node, and says which of them are stored.
func (r *Router) Received(ctx context.Context, node string, ms []*pb.RouteMessage) (*pb.RouteAcks, error) {
	acks := &pb.RouteAcks{}
	full := map[string]bool{} // routes: what comes after in order is not taken either
	var rows []store.RoutedMessage
	for _, m := range ms {
		if len(m.Key) == 0 || len(m.Key) > 64 || len(m.Payload) > MaxPayload {
			return nil, fmt.Errorf("a message of a route with a key of %d bytes and a payload of %d", len(m.Key), len(m.Payload))
		}
		row, err := r.row(ctx, node, m)
		if err != nil {
			if models.KindOf(err) != models.KindNotFound {
				return nil, err
			}
			r.Log.Warn("a message of a route that nobody knows is dropped", "node", node, "route", m.Name, "namespace", m.Namespace)
			acks.Keys = append(acks.Keys, m.Key)
			continue
		}
		r.mu.Lock()
		room := row.Dead || !full[m.Route] && r.roomLocked(m.Route, len(rows)+1, int64(len(m.Payload)))
		r.mu.Unlock()
		if !room {
			full[m.Route] = true
			acks.Refused = append(acks.Refused, m.Key)
			continue
		}
		rows = append(rows, row)
		acks.Keys = append(acks.Keys, m.Key)
		if m.Wait && !row.Dead {
			r.asked(m.Key, node)
		}
	}
	if _, err := r.add(ctx, rows); err != nil {
		return nil, err
	}
	return acks, nil
}

// asked notes that somebody on a node waits for an answer.
func (r *Router) asked(key, node string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.Now()
	if len(r.asking) >= maxWaiters {
		for k, a := range r.asking {
			if now.Sub(a.at) > waitKept {
				delete(r.asking, k)
			}
		}
	}
	if len(r.asking) < maxWaiters { // else it gets no answer, and says so after its wait
		r.asking[key] = asking{node, now}
	}
}

// row is how a node's message is kept.
func (r *Router) row(ctx context.Context, node string, m *pb.RouteMessage) (store.RoutedMessage, error) {
	spec, err := r.spec(ctx, m)
	if err != nil {
		return store.RoutedMessage{}, err
	}
	now := r.Now()
	row := store.RoutedMessage{Key: m.Key, Target: hubTarget, Route: m.Route, Namespace: m.Namespace, Name: m.Name, Lane: laneOf(node, m.Topic, m.Device, m.Property),
		Node: node, Topic: m.Topic, Device: m.Device, Property: m.Property, ContentType: m.ContentType, Payload: m.Payload,
		Accepted: now.Add(-time.Duration(m.AgeMs) * time.Millisecond), TTL: spec.Delivery.TTL.Std(), Retries: *spec.Delivery.Retries}
	row.Deadline = row.Accepted.Add(row.TTL)
	if m.Dead != "" {
		// It is the node's to deliver, also when it is replayed.
		row.Target, row.Dead, row.Died, row.Error, row.To, row.Attempts = nodeTarget+node, true, now, m.Dead, m.Target, int(m.Attempts)
		return row, nil
	}
	to, err := resolve(spec.To, spec, &row)
	if err != nil {
		row.Dead, row.Died, row.Error = true, now, err.Error()
		to = spec.To
	}
	row.To, err = json.Marshal(to)
	return row, err
}

func laneOf(node, topic, device, property string) string {
	if device != "" {
		return node + "/" + device + "/" + property
	}
	return node + "/" + topic
}

// add stores messages and sets them going.
func (r *Router) add(ctx context.Context, rows []store.RoutedMessage) ([]store.RoutedMessage, error) {
	added, err := r.Store.AddRouted(ctx, rows)
	if err != nil {
		return nil, err
	}
	r.start(added)
	r.trimDead(ctx, added)
	return added, nil
}

func freshSize(m *store.RoutedMessage) int { return len(m.Payload) + len(m.To) + 1000 }

func (r *Router) notFreshLocked(id int64) {
	if m := r.fresh[id]; m != nil {
		r.freshLeft += freshSize(m)
		delete(r.fresh, id)
	}
}

// start sets stored messages going.
func (r *Router) start(added []store.RoutedMessage) {
	var ms []courier.Message
	nodes := map[string]bool{}
	routes := map[string]bool{}
	r.mu.Lock()
	for i := range added {
		m := &added[i]
		routes[m.Route] = true
		if m.Dead {
			r.dead[m.Route]++
			r.died(m, m.Error)
			continue
		}
		r.addedLocked(m)
		if m.Target == hubTarget {
			ms = append(ms, toCourier(m))
			if n := freshSize(m); n <= r.freshLeft {
				r.fresh[m.ID] = m
				r.freshLeft -= n
			}
		} else {
			nodes[m.Target[len(nodeTarget):]] = true
		}
	}
	for node := range nodes {
		r.wakeLocked(node)
	}
	r.mu.Unlock()
	r.courier.Add(ms...)
	r.changed(routes)
}

// died tells people of a dead letter.
func (r *Router) died(m *store.RoutedMessage, why string) {
	r.Events.Raise(models.Occurrence{Object: models.ObjectReference{Kind: "Route", Namespace: m.Namespace, Name: m.Name, UID: m.Route}, Severity: models.SeverityWarning,
		Reason: "RouteFailed", Message: "a message" + origin(m) + " is a dead letter now: " + why, Source: "routes"})
}

func origin(m *store.RoutedMessage) string {
	switch {
	case m.Device != "":
		return " about " + m.Property + " of " + m.Device
	case m.Topic != "":
		return " on " + m.Topic
	}
	return ""
}

// changed tells watchers of routes that their status is another.
func (r *Router) changed(routes map[string]bool) {
	r.mu.Lock()
	keys := make([]models.Key, 0, len(routes))
	for uid := range routes {
		if key, ok := r.current[uid]; ok {
			keys = append(keys, key)
		}
	}
	r.mu.Unlock()
	for _, key := range keys {
		r.Objects.StatusChanged(key)
	}
}

// trimDead drops the oldest dead letters of routes that have too many.
func (r *Router) trimDead(ctx context.Context, added []store.RoutedMessage) {
	for i := range added {
		m := &added[i]
		r.mu.Lock()
		over := r.dead[m.Route] - maxDead
		r.mu.Unlock()
		if !m.Dead || over <= 0 {
			continue
		}
		page, err := r.Store.Routed(ctx, store.RoutedQuery{Route: m.Route, Dead: true, Limit: over})
		if err == nil {
			ids := make([]int64, 0, len(page))
			for _, old := range page {
				ids = append(ids, old.ID)
			}
			_, err = r.drop(ctx, m.Route, ids, "too many dead letters: the oldest are dropped")
		}
		if err != nil {
			r.Log.Error("dropping the oldest dead letters failed", "route", m.Name, "error", err)
		}
	}
}

// drop deletes dead letters. With a reason they are counted as dropped.
func (r *Router) drop(ctx context.Context, route string, ids []int64, reason string) (int, error) {
	n, err := r.Store.DropRouted(ctx, route, ids)
	if err != nil || n == 0 {
		return n, err
	}
	r.mu.Lock()
	r.dead[route] = max(r.dead[route]-n, 0)
	total := r.totals[route][hubTarget]
	total.Route, total.Place = route, hubTarget
	if reason != "" {
		total.Dropped += uint64(n)
		total.LastError, total.LastAt = reason, r.Now()
		r.setTotalLocked(total)
	}
	r.mu.Unlock()
	if reason != "" {
		err = r.Store.SetRouteTotals(ctx, []store.RouteTotal{total})
	}
	r.changed(map[string]bool{route: true})
	return n, err
}

// expire makes dead letters of what waited too long for its node.
func (r *Router) expire(ctx context.Context) {
	now := r.Now()
	var outcomes []store.RoutedOutcome
	var rows []flight
	err := r.each(ctx, store.RoutedQuery{Overdue: now}, func(m *store.RoutedMessage) {
		if m.Target != hubTarget && len(rows) < 10_000 {
			outcomes = append(outcomes, store.RoutedOutcome{ID: m.ID, Dead: true, Attempts: m.Attempts, At: now,
				Error: "node " + m.Target[len(nodeTarget):] + " was not there within the route's ttl"})
			rows = append(rows, flightOf(m))
		}
	})
	if err == nil && len(outcomes) > 0 {
		err = r.finish(ctx, outcomes, rows)
	}
	if err != nil && ctx.Err() == nil {
		r.Log.Error("looking for messages that are too old failed", "error", err)
	}
}

// finish stores outcomes and counts them. rows are the messages, in the same order.
func (r *Router) finish(ctx context.Context, outcomes []store.RoutedOutcome, rows []flight) error {
	if err := r.Store.SettleRouted(ctx, outcomes); err != nil {
		return err
	}
	routes := map[string]bool{}
	var dead []store.RoutedMessage
	r.mu.Lock()
	for i, o := range outcomes {
		m := &rows[i]
		routes[m.Route] = true
		total := r.totals[m.Route][hubTarget]
		total.Route, total.Place = m.Route, hubTarget
		if o.Error != "" {
			total.LastError, total.LastAt = o.Error, o.At
		}
		switch {
		case o.Delivered:
			total.Delivered++
			r.delivered.Inc()
			r.goneLocked(m.Route, m.size)
		case o.Handed:
			r.goneLocked(m.Route, m.size)
		case o.Dead:
			total.Failed++
			r.goneLocked(m.Route, m.size)
			r.dead[m.Route]++
			m.Dead = true
			dead = append(dead, m.RoutedMessage)
		}
		if _, there := r.current[m.Route]; there {
			r.setTotalLocked(total)
		}
	}
	r.mu.Unlock()
	for i, o := range outcomes {
		if o.Dead {
			r.answer(rows[i].Key, &pb.RouteReply{Error: o.Error})
			r.died(&rows[i].RoutedMessage, o.Error)
		}
	}
	r.trimDead(ctx, dead)
	r.changed(routes)
	return nil
}

// settle stores what became of the courier's attempts.
func (r *Router) settle(ctx context.Context, done []courier.Done) error {
	now := r.Now()
	outcomes := make([]store.RoutedOutcome, 0, len(done))
	rows := make([]flight, 0, len(done))
	r.mu.Lock()
	for _, d := range done {
		m, ok := r.flying[d.ID]
		if !ok {
			continue // it was not there when it was tried
		}
		handed := r.handed[d.ID]
		outcomes = append(outcomes, store.RoutedOutcome{ID: d.ID, Delivered: d.Error == "" && !handed, Handed: d.Error == "" && handed, Dead: d.Dead,
			Attempts: d.Attempts, Error: d.Error, At: now})
		rows = append(rows, m)
	}
	r.mu.Unlock()
	if err := r.finish(ctx, outcomes, rows); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range done {
		r.notFreshLocked(d.ID)
		if d.Error == "" || d.Dead { // else it may be in the air again
			delete(r.handed, d.ID)
			delete(r.flying, d.ID)
		}
	}
	return nil
}

// answer tells who waits for a message's answer.
func (r *Router) answer(key string, a *pb.RouteReply) {
	a.Key = key
	r.mu.Lock()
	w := r.waiters[key]
	from, elsewhere := r.asking[key]
	delete(r.asking, key)
	r.mu.Unlock()
	if w != nil {
		select {
		case w.c <- a:
		default: // answered before
		}
	}
	if elsewhere {
		r.Nodes.Reply(from.node, a)
	}
}

// Status is a route's status.
func (r *Router) Status(route *models.Route) *models.RouteStatus {
	uid := route.Metadata.UID
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &models.RouteStatus{Queued: uint64(r.waiting[uid]), DeadLetters: uint64(r.dead[uid])}
	var last time.Time
	for _, t := range r.totals[uid] {
		s.Delivered += t.Delivered
		s.Failed += t.Failed
		s.Dropped += t.Dropped
		s.Queued += t.Queued
		if t.LastError != "" && t.LastAt.After(last) {
			last = t.LastAt
			s.LastError, s.LastErrorTime = t.LastError, new(t.LastAt.UTC())
			if t.Node != "" {
				s.LastError = "node " + t.Node + ": " + t.LastError
			}
		}
	}
	return s
}

// DeadLetters returns a page of a route's dead letters, oldest first.
func (r *Router) DeadLetters(ctx context.Context, uid string, after int64, limit int) ([]store.RoutedMessage, error) {
	return r.Store.Routed(ctx, store.RoutedQuery{Route: uid, Dead: true, After: after, Limit: limit})
}

// Replay sets dead letters going again, all of a route's or those with the ids.
func (r *Router) Replay(ctx context.Context, uid string, ids []int64) (int, error) {
	revived, err := r.Store.ReviveRouted(ctx, uid, ids, r.Now())
	if err != nil {
		return 0, err
	}
	r.mu.Lock()
	r.dead[uid] = max(r.dead[uid]-len(revived), 0)
	r.mu.Unlock()
	r.start(revived)
	return len(revived), nil
}

// Drop deletes dead letters, all of a route's or those with the ids.
func (r *Router) Drop(ctx context.Context, uid string, ids []int64) (int, error) {
	return r.drop(ctx, uid, ids, "")
}

// Counts takes a node's totals.
func (r *Router) Counts(ctx context.Context, node string, c *pb.RouteCounts) error {
	if len(c.Queue) > 64 || len(c.Routes) > 10_000 {
		return fmt.Errorf("counts of %d routes of queue %.64q", len(c.Routes), c.Queue)
	}
	var totals []store.RouteTotal
	routes := map[string]bool{}
	r.mu.Lock()
	for _, n := range c.Routes {
		if _, there := r.current[n.Route]; !there {
			continue
		}
		t := store.RouteTotal{Route: n.Route, Place: c.Queue, Node: node, Delivered: n.Delivered, Failed: n.Failed, Dropped: n.Dropped, Queued: n.Queued, LastError: cut(n.LastError)}
		if n.LastErrorUs != 0 {
			t.LastAt = time.UnixMicro(n.LastErrorUs).UTC()
		}
		if before := r.totals[n.Route][c.Queue]; before != t {
			if t.Delivered > before.Delivered {
				r.delivered.Add(float64(t.Delivered - before.Delivered))
			}
			totals = append(totals, t)
			routes[n.Route] = true
		}
	}
	r.mu.Unlock()
	if err := r.Store.SetRouteTotals(ctx, totals); err != nil {
		return err
	}
	r.mu.Lock()
	for _, t := range totals {
		r.setTotalLocked(t)
	}
	r.mu.Unlock()
	r.changed(routes)
	return nil
}

// cut bounds what an edge says.
func cut(s string) string {
	if len(s) > 1024 {
		return s[:1024]
	}
	return s
}
