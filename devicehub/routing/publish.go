package routing

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/internal/courier"
	"github.com/whimbrel-edge/whimbrel/internal/expression"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
	"github.com/whimbrel-edge/whimbrel/protocols/mqtt"
)

// Check checks of a route what its document alone does not tell: that its
// expressions compile, that its topics are topics that routes may use, and that
// its target is not one that the hub must not reach.
func Check(o *models.Route, g Guard) []models.FieldError {
	var errs []models.FieldError
	fail := func(at string, err error) {
		if err != nil {
			errs = append(errs, models.FieldError{Pointer: at, Detail: err.Error()})
		}
	}
	from, to := &o.Spec.From, &o.Spec.To
	filter, has := "", []string{"{topic}", "{#}", "{node}"} // placeholders of topics
	switch {
	case from.Twin != nil:
		has = []string{"{device}", "{property}", "{topic}", "{node}"}
	case from.REST:
		has = []string{"{node}"}
	case from.MQTT != "":
		filter = from.MQTT
		fail("/spec/from/mqtt", checkFilter(filter, "use from.twin for what devices report"))
	case from.Broker != nil:
		filter = from.Broker.Topic
		fail("/spec/from/broker/topic", mqtt.ValidateFilter(filter))
	}
	if o.Spec.When != "" {
		_, err := expression.Condition(o.Spec.When)
		fail("/spec/when", err)
	}
	if o.Spec.Transform != "" {
		_, err := expression.Transform(o.Spec.Transform)
		fail("/spec/transform", err)
	}
	switch {
	case to.MQTT != nil:
		fail("/spec/to/mqtt/topic", mqtt.Pattern{Topic: to.MQTT.Topic, Filter: filter}.Check(has...))
	case to.Broker != nil:
		fail("/spec/to/broker/topic", checkOuterTopic(to.Broker.Topic, filter, has))
	case to.HTTP != nil:
		fail("/spec/to/http/url", g.CheckURL(to.HTTP.URL))
	}
	return errs
}

func checkFilter(filter, instead string) error {
	if err := mqtt.ValidateFilter(filter); err != nil {
		return err
	}
	if _, _, shared := mqtt.ParseShared(filter); shared {
		return fmt.Errorf("a shared subscription cannot be routed: leave $share out")
	}
	if mqtt.Reserved(filter) {
		return fmt.Errorf("%s is not for apps to publish on: %s", filter, instead)
	}
	return nil
}

// checkOuterTopic checks a topic of another broker, where Whimbrel keeps none for
// itself.
func checkOuterTopic(topic, filter string, has []string) error {
	err := mqtt.Pattern{Topic: "x/" + topic, Filter: filter}.Check(has...)
	if err == nil && strings.HasPrefix(topic, "$") {
		err = fmt.Errorf("%s: topics with $ are the other broker's own", topic)
	}
	return err
}

// Publish takes a message for a route whose source is REST. It returns when the
// target has answered, or at the end of wait. A message that was taken stays so
// whatever is returned, unless the error is not nil. What is published to a route with
// one key, unless it is "", is one message: as long as it waits it is there once, and
// its target sees one key.
func (r *Router) Publish(ctx context.Context, namespace, name, key, contentType string, payload []byte, wait time.Duration) (models.RouteReply, error) {
	o, err := r.Objects.Get(ctx, models.Key{Kind: "Route", Namespace: namespace, Name: name})
	if err != nil {
		return models.RouteReply{}, err
	}
	route := o.(*models.Route)
	if !route.Spec.From.REST {
		return models.RouteReply{}, models.Errorf(models.KindInvalid, "route %s does not take messages by REST: its spec.from.rest is not true", name)
	}
	if len(payload) > MaxPayload {
		return models.RouteReply{}, models.Errorf(models.KindTooLarge, "the message has %d bytes, at most %d are carried", len(payload), MaxPayload)
	}
	if len(contentType) > 256 {
		return models.RouteReply{}, models.Errorf(models.KindMalformed, "the content type is longer than 256 bytes")
	}
	payload, contentType, matched, err := r.pass(route, contentType, payload)
	if err != nil {
		return models.RouteReply{}, models.Errorf(models.KindInvalid, "route %s: %v", name, err)
	}
	if !matched {
		return models.RouteReply{}, nil
	}
	now := r.Now()
	if key == "" {
		key = r.NewID()
	} else { // nobody can have that of another route
		sum := sha256.Sum256([]byte(route.Metadata.UID + "\x00" + key))
		key = hex.EncodeToString(sum[:16])
	}
	row := store.RoutedMessage{Key: key, Target: hubTarget, Route: route.Metadata.UID, Namespace: namespace, Name: name, Lane: laneOf("", "", "", ""),
		ContentType: contentType, Payload: payload, Accepted: now, TTL: route.Spec.Delivery.TTL.Std(), Retries: *route.Spec.Delivery.Retries}
	row.Deadline = now.Add(row.TTL)
	to, err := resolve(route.Spec.To, &route.Spec, &row)
	if err != nil {
		return models.RouteReply{}, models.Errorf(models.KindInvalid, "route %s: %v", name, err)
	}
	if row.To, err = json.Marshal(to); err != nil {
		return models.RouteReply{}, err
	}
	r.mu.Lock()
	room := r.roomLocked(row.Route, 1, int64(len(payload)))
	r.mu.Unlock()
	if !room {
		return models.RouteReply{}, models.Errorf(models.KindTooMany, "too many messages wait for the target of route %s; its status says why", name)
	}
	reply := models.RouteReply{Key: row.Key, Matched: true}
	var answer chan *pb.RouteReply
	if wait > 0 && to.Broker == nil {
		if answer, err = r.await(row.Key); err != nil {
			return models.RouteReply{}, err
		}
		defer r.leave(row.Key)
	}
	added, err := r.add(ctx, []store.RoutedMessage{row})
	if err != nil {
		return models.RouteReply{}, err
	}
	if answer == nil {
		return reply, nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case a := <-answer:
		reply = courier.ReadReply(a)
		reply.Key = row.Key
		if to.MQTT != nil && reply.Answered { // by the nodes
			reply.Answered, reply.Published = false, true
		}
	case <-timer.C:
		reply.Kind = models.KindTimeout
		reply.Error = fmt.Sprintf("no answer within %v; the message stays queued", wait)
		if len(added) == 0 {
			reply.Error = fmt.Sprintf("no answer within %v; the message was taken before with this Idempotency-Key, and waits or is a dead letter", wait)
		}
		if s := r.Status(route); s.LastError != "" {
			reply.Error += "; the route's last error: " + s.LastError
		}
	case <-ctx.Done():
		return reply, models.Errorf(models.KindTimeout, "nobody waits any more; the message stays queued")
	}
	return reply, nil
}

func (r *Router) await(key string) (chan *pb.RouteReply, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.waiters) >= maxWaiters {
		return nil, models.Errorf(models.KindTooMany, "too many wait for answers of routes")
	}
	if r.waiters[key] != nil {
		return nil, models.Errorf(models.KindConflict, "somebody waits for the answer to a message with this Idempotency-Key already")
	}
	w := &waiter{c: make(chan *pb.RouteReply, 1)}
	r.waiters[key] = w
	return w.c, nil
}

func (r *Router) leave(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.waiters, key)
}

// pass applies when and transform.
func (r *Router) pass(route *models.Route, contentType string, payload []byte) ([]byte, string, bool, error) {
	p, err := r.compiled(route)
	if err != nil {
		return nil, "", false, err
	}
	in := expression.Message{Payload: payload}
	if p.when != nil {
		if ok, err := p.when.True(in); err != nil || !ok {
			if err != nil {
				err = fmt.Errorf("when: %w", err)
			}
			return nil, "", false, err
		}
	}
	if p.transform == nil {
		return payload, contentType, true, nil
	}
	if payload, err = p.transform.Value(in); err != nil {
		return nil, "", false, fmt.Errorf("transform: %w", err)
	}
	if len(payload) > MaxPayload {
		return nil, "", false, fmt.Errorf("transform: its value has %d bytes, at most %d are carried", len(payload), MaxPayload)
	}
	return payload, "application/json", true, nil
}

// compiled returns a route's expressions.
func (r *Router) compiled(route *models.Route) (*programs, error) {
	key := fmt.Sprint(route.Metadata.UID, " ", route.Metadata.Generation)
	r.mu.Lock()
	p := r.programs[key]
	r.mu.Unlock()
	if p != nil {
		return p, nil
	}
	p = &programs{}
	var err error
	if route.Spec.When != "" {
		if p.when, err = expression.Condition(route.Spec.When); err != nil {
			return nil, fmt.Errorf("when: %w", err)
		}
	}
	if route.Spec.Transform != "" {
		if p.transform, err = expression.Transform(route.Spec.Transform); err != nil {
			return nil, fmt.Errorf("transform: %w", err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.programs) > 1000 { // of former generations
		clear(r.programs)
	}
	r.programs[key] = p
	return p, nil
}
