// Package routes carries messages between apps, devices and the cloud, as Route
// objects say. It takes them where they appear: from the broker before the
// publisher's PUBACK, from the twins, from the local REST API, from other
// brokers. What stays on the node is delivered at once, with the hub gone too;
// the rest waits in a queue on the disk, from which the link takes what is the
// hub's to deliver, and a courier what is for an app or another broker.
//
// A message that was taken is delivered at least once, those of one route and topic in
// order, every copy with the same key. What cannot be delivered becomes a dead
// letter, which the hub keeps. Messages that a route publishes are not taken by
// routes again, so no two of them can play ball.
package routes

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/store"
	"github.com/whimbrel-edge/whimbrel/internal/courier"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
	"github.com/whimbrel-edge/whimbrel/protocols/mqtt"
)

// Bounds.
const (
	// MaxPayload is of one message, transformed or not. The broker takes no more
	// either.
	MaxPayload = 1 << 20
	maxWaiters = 1024 // callers of Post at a time
	maxKey     = 256  // bytes of their own keys
	maxReplies = 64   // answers on their way to the hub; beyond, the oldest is dropped: nobody may wait for it any more
	maxTwins   = 4096 // reported values that wait to be taken; beyond, they are dropped and counted
)

// Services finds apps of this node.
type Services interface {
	// Do sends a request to a ready instance of a Service and returns its
	// answer. KindUnavailable: there is none on this node. The request's URL has
	// a path and a query only.
	Do(ctx context.Context, namespace, service string, r *http.Request) (*http.Response, error)
}

// Config is what Open needs.
type Config struct {
	Path string // of the queue's file
	Node string
	// Publish publishes a message on the node's broker. It waits for nobody.
	Publish  func(topic string, m *pb.RouteMessage, to *models.RouteMQTT) error
	Services Services    // nil: none
	Live     func() bool // whether there is a link to the hub; nil: never
	NewID    func() string
	Now      func() time.Time
	Log      *slog.Logger
}

// Router is an edge's part in routes. Its methods may be called from any
// goroutine; what takes messages needs Run.
type Router struct {
	cfg     Config
	log     *slog.Logger
	queue   *queue
	courier *courier.Courier
	bridges *bridges
	changed chan struct{} // one slot: the table is another
	table   atomic.Pointer[table]
	waiting chan struct{} // one slot: there is something for the hub
	replies chan *pb.RouteReply
	twins   chan message

	mu      sync.Mutex
	waiters map[string]chan *pb.RouteReply // by key
}

// Open opens the queue, or makes it. Run is to be called, or Close.
func Open(ctx context.Context, cfg Config) (*Router, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Live == nil {
		cfg.Live = func() bool { return false }
	}
	q, err := openQueue(ctx, cfg.Path)
	if err != nil {
		return nil, err
	}
	r := &Router{cfg: cfg, log: cfg.Log, queue: q, waiting: make(chan struct{}, 1), replies: make(chan *pb.RouteReply, maxReplies),
		twins: make(chan message, maxTwins), waiters: map[string]chan *pb.RouteReply{}}
	r.table.Store(&table{})
	r.changed = make(chan struct{}, 1)
	r.bridges = &bridges{r: r, sources: map[string]*source{}, targets: map[string]*target{}, echoes: map[string]*echoes{}}
	r.courier = courier.New(courier.Config{Deliver: r.deliver, Store: r.settle, Behind: r.behind, Now: cfg.Now, Log: cfg.Log})
	if err := r.load(ctx); err != nil {
		return nil, errors.Join(err, q.close())
	}
	return r, nil
}

// Close closes the queue of a router that does not run.
func (r *Router) Close() error { return r.queue.close() }

// Apply makes the routes what the hub wants. Queued messages go where they
// were to go when they were taken.
func (r *Router) Apply(items []store.Item) {
	t := compile(items, r.log)
	r.table.Store(t)
	select {
	case r.changed <- struct{}{}:
	default:
	}
	keep := map[string]bool{}
	for _, rt := range t.routes {
		keep[rt.uid] = true
	}
	if err := r.queue.forget(context.Background(), keep); err != nil {
		r.log.Error("totals of routes that are gone cannot be dropped", "error", err)
	}
}

// Run delivers until ctx ends.
func (r *Router) Run(ctx context.Context) error {
	var wait sync.WaitGroup
	defer wait.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wait.Go(func() { _ = r.courier.Run(ctx) }) // it has no error
	wait.Go(func() { r.bridges.run(ctx, r.changed) })
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	shrink := time.NewTimer(shrinkEvery)
	defer shrink.Stop()
	for {
		select {
		case <-ctx.Done():
			return r.queue.flush(context.WithoutCancel(ctx))
		case <-shrink.C:
			pause, err := r.queue.shrink(ctx)
			if err != nil && ctx.Err() == nil {
				r.log.Warn("the space of delivered messages cannot be given back; it is tried again", "error", err)
				pause = time.Minute
			}
			shrink.Reset(pause)
		case m := <-r.twins:
			r.takeTwin(ctx, &m)
		case <-tick.C:
			if err := r.queue.flush(ctx); err != nil && ctx.Err() == nil {
				r.log.Error("totals of routes cannot be stored; it is tried again", "error", err)
			}
		}
	}
}

// load hands the courier what was queued before.
func (r *Router) load(ctx context.Context) error {
	for after := int64(0); ; {
		rows, err := r.queue.page(ctx, toHere, after, 500)
		if err != nil || len(rows) == 0 {
			return err
		}
		r.courier.Load(couriers(rows)...)
		after = rows[len(rows)-1].id
	}
}

func couriers(rows []*row) (ms []courier.Message) {
	for _, w := range rows {
		if w.destination == toHere {
			m := courier.Message{ID: w.id, Group: w.m.Route, Lane: w.lane, Deadline: w.deadline, Retries: w.retries, Attempts: w.attempts}
			if w.m.Wait {
				m.Asker = w.m.Key
			}
			ms = append(ms, m)
		}
	}
	return ms
}

// Wants reports whether any route takes messages of a topic that apps publish on.
func (r *Router) Wants(topic string) bool {
	return slices.ContainsFunc(r.table.Load().routes, func(rt *route) bool { return rt.takesTopic(topic) })
}

// Published takes a message that an app published. When it returns nil the message
// is as durable as routes make it, and its publisher may be told so. ErrFull: it is not,
// and is to be sent again later.
func (r *Router) Published(ctx context.Context, topic, contentType string, payload []byte) error {
	m := &message{topic: topic, contentType: contentType, payload: payload}
	var ways []way
	for _, rt := range r.table.Load().routes {
		if rt.takesTopic(topic) {
			ways = append(ways, r.ways(rt, m)...)
		}
	}
	return r.carry(ctx, ways)
}

// Reported takes what a device reported, as it was published on its topic.
// It waits for nobody.
func (r *Router) Reported(topic string, payload []byte) {
	t := mqtt.ParseTopic(topic)
	if t.Kind != mqtt.Property || len(payload) == 0 {
		return
	}
	table := r.table.Load()
	d, ok := table.devices[t.Device]
	if !ok || !slices.ContainsFunc(table.routes, func(rt *route) bool { return rt.takesTwin(d, t.Property) }) {
		return
	}
	select {
	case r.twins <- message{device: t.Device, property: t.Property, payload: payload, private: d.private[t.Property]}:
	default:
		for _, rt := range table.routes {
			if rt.takesTwin(d, t.Property) {
				r.drop(rt, fmt.Errorf("more values are reported than can be taken"))
			}
		}
	}
}

func (r *Router) takeTwin(ctx context.Context, m *message) {
	table := r.table.Load()
	d, ok := table.devices[m.device]
	if !ok {
		return
	}
	var document map[string]json.RawMessage
	if err := json.Unmarshal(m.payload, &document); err != nil {
		r.log.Error("a reported value cannot be read", "device", m.device, "property", m.property, "error", err)
		return
	}
	document["device"], document["property"] = mustJSON(m.device), mustJSON(m.property)
	m.payload, m.contentType = mustJSON(document), "application/json"
	m.topic = mqtt.PropertyTopic(m.device, m.property)
	var ways []way
	for _, rt := range table.routes {
		if rt.takesTwin(d, m.property) {
			ways = append(ways, r.ways(rt, m)...)
		}
	}
	if err := r.carry(ctx, ways); err != nil && ctx.Err() == nil {
		for _, w := range ways {
			r.drop(w.route, err)
		}
	}
}

// way is one of the ways that a message goes.
type way struct {
	route *route
	m     *pb.RouteMessage
	queue int    // toHub or toHere; with topic: it is published here at once
	topic string // of the node's broker
}

// ways decides where a message of a route goes.
func (r *Router) ways(rt *route, m *message) (out []way) {
	payload, ok, err := rt.pass(m, r.cfg.Node)
	if err != nil {
		r.drop(rt, err)
		return nil
	}
	if !ok {
		return nil
	}
	if len(payload) > MaxPayload {
		r.drop(rt, fmt.Errorf("a message of %d bytes: at most %d are carried", len(payload), MaxPayload))
		return nil
	}
	contentType := m.contentType
	if rt.transform != nil {
		contentType = "application/json"
	}
	key := m.key
	if key == "" {
		key = r.cfg.NewID()
	}
	p := &pb.RouteMessage{Key: key, Route: rt.uid, Generation: rt.generation, Namespace: rt.namespace, Name: rt.name, Filter: rt.filter(), Topic: m.topic, Node: r.cfg.Node, Device: m.device, Property: m.property,
		ContentType: contentType, Payload: payload}
	to := &rt.spec.To
	if rt.beyond && !m.private {
		out = append(out, way{route: rt, m: p, queue: toHub})
	}
	switch {
	case !rt.here:
	case to.MQTT != nil:
		topic, err := topicOf(to.MQTT.Topic, p)
		if err != nil {
			r.drop(rt, err)
			return out
		}
		out = append(out, way{route: rt, m: p, topic: topic})
	default:
		here := clone(p)
		here.Target = mustJSON(to)
		out = append(out, way{route: rt, m: here, queue: toHere})
	}
	return out
}

// carry makes ways durable and goes those that can be gone at once.
func (r *Router) carry(ctx context.Context, ways []way) error {
	now := r.cfg.Now()
	var rows []*row
	for _, w := range ways {
		if w.topic == "" {
			d := w.route.spec.Delivery
			rows = append(rows, &row{destination: w.queue, lane: laneOf(w.m), accepted: now, deadline: now.Add(d.TTL.Std()), retries: *d.Retries, m: w.m})
		}
	}
	if len(rows) > 0 {
		added, err := r.queue.add(ctx, rows)
		if err != nil {
			return err
		}
		r.courier.Add(couriers(added)...)
		r.notify()
	}
	for _, w := range ways {
		if w.topic == "" {
			continue
		}
		if err := r.cfg.Publish(w.topic, w.m, w.route.spec.To.MQTT); err != nil {
			r.drop(w.route, err)
			continue
		}
		r.queue.count(w.route.uid, func(t *total) { t.delivered++ })
	}
	return nil
}

// drop counts a message that a route does not carry.
func (r *Router) drop(rt *route, err error) {
	now := r.cfg.Now()
	r.queue.count(rt.uid, func(t *total) {
		t.dropped++
		t.lastError, t.lastErrorAt = err.Error(), now
	})
	r.log.Debug("a route drops a message", "namespace", rt.namespace, "route", rt.name, "error", err)
}

func (r *Router) notify() {
	select {
	case r.waiting <- struct{}{}:
	default:
	}
}

// Posted is a message for a route whose source is REST.
type Posted struct {
	Namespace, Route string
	ContentType      string
	Payload          []byte
	// Key is the Idempotency-Key of who posts, "" for none. What By posts to a route
	// with one Key is one message: as long as it waits it is there once, and its target sees
	// one key.
	By, Key string
}

// key is what the message's copies have, "" when it is to get one.
func (p *Posted) key(rt *route) string {
	if p.Key == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(rt.uid + "\x00" + p.By + "\x00" + p.Key)) // nobody can have another's
	return hex.EncodeToString(sum[:16])
}

// Post takes a message for a route whose source is REST.
// It returns when the target has answered, or at the end of wait, or at once
// when there is nothing to wait for. A message that was taken stays so whatever is
// returned, unless the error is not nil.
func (r *Router) Post(ctx context.Context, p Posted, wait time.Duration) (models.RouteReply, error) {
	if len(p.Payload) > MaxPayload {
		return models.RouteReply{}, models.Errorf(models.KindTooLarge, "the message has %d bytes, at most %d are carried", len(p.Payload), MaxPayload)
	}
	if len(p.Key) > maxKey {
		return models.RouteReply{}, models.Errorf(models.KindMalformed, "the Idempotency-Key has %d bytes, at most %d are taken", len(p.Key), maxKey)
	}
	var rt *route
	for _, candidate := range r.table.Load().routes {
		if candidate.namespace == p.Namespace && candidate.name == p.Route && candidate.spec.From.REST {
			rt = candidate
		}
	}
	if rt == nil {
		return models.RouteReply{}, models.Errorf(models.KindNotFound, "no route %s with from.rest on this node", p.Route)
	}
	m := &message{key: p.key(rt), contentType: p.ContentType, payload: p.Payload}
	if _, ok, err := rt.pass(m, r.cfg.Node); err != nil {
		r.drop(rt, err)
		return models.RouteReply{}, models.Errorf(models.KindInvalid, "route %s: %v", p.Route, err)
	} else if !ok {
		return models.RouteReply{}, nil
	}
	ways := r.ways(rt, m)
	if len(ways) == 0 {
		return models.RouteReply{}, models.Errorf(models.KindInvalid, "route %s does not carry this message; its status says why", p.Route)
	}
	reply := models.RouteReply{Key: ways[0].m.Key, Matched: true}
	answers := rt.spec.To.MQTT == nil && rt.spec.To.Broker == nil && wait > 0
	var answer chan *pb.RouteReply
	if answers {
		answer = make(chan *pb.RouteReply, 1)
		r.mu.Lock()
		if len(r.waiters) >= maxWaiters {
			r.mu.Unlock()
			return models.RouteReply{}, models.Errorf(models.KindTooMany, "too many wait for answers of routes")
		}
		if r.waiters[reply.Key] != nil {
			r.mu.Unlock()
			return models.RouteReply{}, models.Errorf(models.KindConflict, "somebody waits for the answer to a message with this Idempotency-Key already")
		}
		r.waiters[reply.Key] = answer
		r.mu.Unlock()
		defer func() {
			r.mu.Lock()
			delete(r.waiters, reply.Key)
			r.mu.Unlock()
		}()
		for _, w := range ways {
			w.m.Wait = true
		}
	}
	if err := r.carry(ctx, ways); err != nil {
		if errors.Is(err, ErrFull) {
			return models.RouteReply{}, models.Errorf(models.KindTooMany, "%v", err)
		}
		return models.RouteReply{}, err
	}
	if !answers {
		reply.Published = wait > 0 && !slices.ContainsFunc(ways, func(w way) bool { return w.topic == "" })
		return reply, nil
	}
	if rt.beyond && !rt.here && !r.cfg.Live() {
		reply.Kind, reply.Error = models.KindUnavailable, "the hub is away; the message is queued"
		return reply, nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case a := <-answer:
		key := reply.Key
		reply = courier.ReadReply(a)
		reply.Key = key
	case <-timer.C:
		reply.Kind = models.KindTimeout
		reply.Error = fmt.Sprintf("no answer within %v; the message stays queued", wait)
	case <-ctx.Done():
		return reply, models.Errorf(models.KindTimeout, "nobody waits any more; the message stays queued")
	}
	return reply, nil
}

// Answer hands an answer to who waits for it.
func (r *Router) Answer(a *pb.RouteReply) { r.tell(a) }

// tell hands an answer to who waits for it here, and reports whether anybody does.
func (r *Router) tell(a *pb.RouteReply) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.waiters[a.Key]
	if w == nil {
		return false
	}
	select {
	case w <- a:
	default: // a copy of the message was answered before
	}
	return true
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // unreachable: strings, numbers and documents that were JSON before
	}
	return b
}
