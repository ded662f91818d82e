package routing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/internal/courier"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
	"github.com/whimbrel-edge/whimbrel/protocols/mqtt"
)

// deliver makes one attempt to bring a message on.
func (r *Router) deliver(ctx context.Context, c courier.Message) error {
	r.mu.Lock()
	m := r.fresh[c.ID]
	r.mu.Unlock()
	if m == nil {
		page, err := r.Store.Routed(ctx, store.RoutedQuery{After: c.ID - 1, Limit: 1})
		if err != nil {
			return err
		}
		if len(page) == 0 || page[0].ID != c.ID {
			return nil // delivered, and it was not heard of
		}
		m = &page[0]
	}
	r.mu.Lock()
	r.flying[m.ID] = flightOf(m)
	r.mu.Unlock()
	err := r.attempt(ctx, m)
	if err != nil && ctx.Err() == nil { // who has heard the target's own answer waits no more
		r.answer(m.Key, courier.NoAnswer(err))
	}
	return err
}

func (r *Router) attempt(ctx context.Context, m *store.RoutedMessage) error {
	var to models.RouteTarget
	if err := json.Unmarshal(m.To, &to); err != nil {
		return &courier.Refused{Final: true, Err: fmt.Errorf("its target cannot be read: %w", err)}
	}
	if to.HTTP != nil {
		return r.request(ctx, m, to.HTTP)
	}
	copies, err := r.copies(ctx, m, &to)
	if err != nil {
		return err
	}
	r.mu.Lock()
	if w := r.waiters[m.Key]; w != nil {
		w.left = len(copies)
	}
	r.mu.Unlock()
	if _, err := r.add(ctx, copies); err != nil {
		return err
	}
	r.mu.Lock()
	r.handed[m.ID] = true
	r.mu.Unlock()
	for i := range copies {
		if node := copies[i].Target[len(nodeTarget):]; !r.Nodes.Live(node) {
			r.answer(m.Key, courier.NoAnswer(fmt.Errorf("node %s is offline", node)))
			break
		}
	}
	return nil
}

// request makes the HTTP request of a message.
func (r *Router) request(ctx context.Context, m *store.RoutedMessage, to *models.RouteHTTP) error {
	timeout, cancel := context.WithTimeout(ctx, to.Patience())
	defer cancel()
	req, err := courier.NewRequest(timeout, to.Method, to.URL, &pb.RouteMessage{Key: m.Key, Namespace: m.Namespace, Name: m.Name, Node: m.Node, Topic: m.Topic,
		ContentType: m.ContentType, Payload: m.Payload}, m.Accepted)
	if err != nil {
		return &courier.Refused{Final: true, Err: err}
	}
	for name, value := range to.Headers {
		req.Header.Set(name, value)
	}
	if to.HeadersFrom != nil {
		secret, err := r.Secret(m.Namespace, to.HeadersFrom.Secret)
		if err != nil {
			return fmt.Errorf("headersFrom: %w", err)
		}
		for name, value := range secret {
			if models.CheckHeader(name, string(value)) != "" { // the value stays secret
				return &courier.Refused{Err: fmt.Errorf("headersFrom: key %q of secret %s is no header, or its value is none", name, to.HeadersFrom.Secret)}
			}
			req.Header.Set(name, string(value))
		}
	}
	res, err := r.client.do(req)
	if err != nil && timeout.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("%s did not answer in %v: %w", req.URL.Host, to.Patience(), context.DeadlineExceeded)
	}
	if err != nil {
		return err
	}
	defer res.Body.Close()
	a, err := courier.Answer(res)
	if err != nil {
		return fmt.Errorf("%s: %w", req.URL.Host, err)
	}
	r.answer(m.Key, a)
	return courier.Judge(res.StatusCode, req.URL.Host)
}

// copies are what nodes get of a message.
func (r *Router) copies(ctx context.Context, m *store.RoutedMessage, to *models.RouteTarget) ([]store.RoutedMessage, error) {
	var nodes []string
	var err error
	switch {
	case to.MQTT != nil:
		nodes, err = r.matching(ctx, to.MQTT.NodeSelector)
		if m.Node != "" { // it has been published there
			nodes = slices.DeleteFunc(nodes, func(n string) bool { return n == m.Node })
		}
		if err == nil && len(nodes) == 0 {
			err = &courier.Refused{Err: errors.New("no node matches the target's nodeSelector")}
		}
	case to.Service != nil:
		nodes = r.live(r.Objects.ServiceNodes(m.Namespace, to.Service.Name))
		if len(nodes) == 0 {
			err = fmt.Errorf("no node that is there runs pods of service %s", to.Service.Name)
		}
	case to.Broker != nil:
		if nodes, err = r.bridges(ctx, m); err == nil && len(nodes) == 0 {
			err = errors.New("no node that is there matches the source's nodeSelector")
		}
	default:
		err = &courier.Refused{Final: true, Err: errors.New("it has no target that this release knows")}
	}
	if err != nil {
		return nil, err
	}
	if to.MQTT == nil {
		nodes = nodes[:1]
	}
	out := make([]store.RoutedMessage, 0, len(nodes))
	for _, node := range nodes {
		c := *m
		c.Target, c.Attempts, c.Error = nodeTarget+node, 0, ""
		if c.To, err = json.Marshal(to); err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// resolve fills in a target's topic.
func resolve(to models.RouteTarget, spec *models.RouteSpec, m *store.RoutedMessage) (models.RouteTarget, error) {
	if to.MQTT == nil {
		return to, nil
	}
	filter := spec.From.MQTT
	if spec.From.Broker != nil {
		filter = spec.From.Broker.Topic
	}
	topic, err := mqtt.Pattern{Topic: to.MQTT.Topic, Filter: filter}.Fill(mqtt.Origin{Topic: m.Topic, Node: m.Node, Device: m.Device, Property: m.Property})
	if err != nil {
		return to, err
	}
	out := *to.MQTT
	out.Topic = topic
	to.MQTT = &out
	return to, nil
}

// matching returns the nodes that have the labels, by name.
func (r *Router) matching(ctx context.Context, selector map[string]string) (out []string, err error) {
	list, err := r.Objects.List(ctx, models.ListOptions{Kind: "Node"})
	if err != nil {
		return nil, err
	}
	for _, o := range list.Items {
		if models.MatchLabels(selector, o.Meta().Labels) {
			out = append(out, o.Meta().Name)
		}
	}
	slices.Sort(out)
	return out, nil
}

func (r *Router) live(nodes []string) []string {
	return slices.DeleteFunc(slices.Clone(nodes), func(n string) bool { return !r.Nodes.Live(n) })
}

// bridges are the nodes that may connect to the broker of a route whose source
// is REST.
func (r *Router) bridges(ctx context.Context, m *store.RoutedMessage) ([]string, error) {
	o, err := r.Objects.Get(ctx, models.Key{Kind: "Route", Namespace: m.Namespace, Name: m.Name})
	if err != nil {
		return nil, err
	}
	nodes, err := r.matching(ctx, o.(*models.Route).Spec.From.NodeSelector)
	return r.live(nodes), err
}

// Parcel is messages for a node, in order.
type Parcel struct {
	Messages []*pb.RouteMessage
	rows     map[string]store.RoutedMessage // by key
}

const parcelMessages = 500

// Wake has an element when there may be something for a node. A node has one
// session at a time.
func (r *Router) Wake(node string) <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.wakeOfLocked(node)
}

func (r *Router) wakeOfLocked(node string) chan struct{} {
	c := r.wake[node]
	if c == nil {
		c = make(chan struct{}, 1)
		r.wake[node] = c
	}
	return c
}

func (r *Router) wakeLocked(node string) {
	select {
	case r.wakeOfLocked(node) <- struct{}{}:
	default:
	}
}

// Parcel returns the oldest messages for a node, about maxBytes of them. The same are
// returned until Sent says what became of them.
func (r *Router) Parcel(ctx context.Context, node string, maxBytes int) (Parcel, error) {
	p := Parcel{rows: map[string]store.RoutedMessage{}}
	bytes, now := 0, r.Now()
	for after := int64(0); len(p.Messages) < parcelMessages; {
		page, err := r.Store.Routed(ctx, store.RoutedQuery{Target: nodeTarget + node, After: after, Limit: 32})
		if err != nil {
			return Parcel{}, err
		}
		for _, m := range page {
			after = m.ID
			if bytes += len(m.Payload) + 300; bytes > maxBytes && len(p.Messages) > 0 {
				return p, nil
			}
			r.mu.Lock()
			waits := r.waiters[m.Key] != nil || r.asking[m.Key].node != ""
			r.mu.Unlock()
			p.Messages = append(p.Messages, &pb.RouteMessage{Key: m.Key, Route: m.Route, Topic: m.Topic, Node: m.Node, Device: m.Device, Property: m.Property,
				ContentType: m.ContentType, Payload: m.Payload, AgeMs: max(now.Sub(m.Deadline.Add(-m.TTL)).Milliseconds(), 0), Wait: waits, Target: m.To,
				TtlMs: m.TTL.Milliseconds(), Retries: int32(m.Retries), Namespace: m.Namespace, Name: m.Name})
			p.rows[m.Key] = m
		}
		if len(page) < 32 {
			break
		}
	}
	return p, nil
}

// Sent forgets what a node has answered for. more is false when it has no room
// for the rest now.
func (r *Router) Sent(ctx context.Context, p Parcel, acks *pb.RouteAcks) (more bool, err error) {
	now := r.Now()
	var outcomes []store.RoutedOutcome
	var rows []flight
	for _, key := range acks.Keys {
		m, ok := p.rows[key]
		if !ok {
			continue
		}
		var to models.RouteTarget
		published := json.Unmarshal(m.To, &to) == nil && to.MQTT != nil // else the node counts
		outcomes = append(outcomes, store.RoutedOutcome{ID: m.ID, Delivered: published, Handed: !published, At: now})
		rows = append(rows, flightOf(&m))
		delete(p.rows, key)
	}
	if err := r.finish(ctx, outcomes, rows); err != nil {
		return false, err
	}
	for i, o := range outcomes {
		if !o.Delivered {
			continue
		}
		r.mu.Lock()
		w := r.waiters[rows[i].Key]
		done := false
		if w != nil {
			w.left--
			done = w.left <= 0
		}
		r.mu.Unlock()
		if done {
			r.answer(rows[i].Key, &pb.RouteReply{Status: http.StatusOK})
		}
	}
	return len(acks.Refused) == 0, nil
}

// Replied takes what an app on a node answered.
func (r *Router) Replied(a *pb.RouteReply) {
	if len(a.Body) <= courier.MaxReply {
		r.answer(a.Key, &pb.RouteReply{Status: a.Status, ContentType: cut(a.ContentType), Body: a.Body, Error: cut(a.Error)})
	}
}
