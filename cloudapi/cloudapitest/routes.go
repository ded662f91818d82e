package cloudapitest

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

// PublishRoute implements cloudapi.Routes: a route to HTTP answers what it was
// given with 201, one to MQTT is published within two minutes, and what cannot be
// asked does not answer within the wait.
func (h *Hub) PublishRoute(ctx context.Context, namespace, name, _, contentType string, payload []byte, wait time.Duration) (models.RouteReply, error) {
	o, err := h.Get(ctx, models.Key{Kind: "Route", Namespace: namespace, Name: name})
	if err != nil {
		return models.RouteReply{}, err
	}
	r := o.(*models.Route)
	if !r.Spec.From.REST {
		return models.RouteReply{}, models.Errorf(models.KindInvalid, "route %s does not take messages by REST", name)
	}
	reply := models.RouteReply{Key: "01JDKEY", Matched: true}
	switch {
	case r.Spec.When == "false":
		return models.RouteReply{}, nil
	case r.Spec.To.HTTP != nil && wait > 0:
		reply.Answered, reply.Status, reply.ContentType, reply.Body = true, http.StatusCreated, contentType, payload
	case r.Spec.To.Service != nil:
		reply.Kind, reply.Error = models.KindRefused, "too long an answer"
	case r.Spec.To.MQTT != nil && wait > time.Minute:
		reply.Published = true
	case wait > 0:
		reply.Kind, reply.Error = models.KindTimeout, "no answer"
	}
	return reply, nil
}

// AddDeadLetter gives every route a dead letter.
func (h *Hub) AddDeadLetter(d models.DeadLetter) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dead = append(h.dead, d)
}

// DeadLetters implements cloudapi.Routes.
func (h *Hub) DeadLetters(_ context.Context, _, _ string, after int64, limit int) (out []models.DeadLetter, _ error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range h.dead {
		if d.ID > after && len(out) < limit {
			out = append(out, d)
		}
	}
	return out, nil
}

// ReplayDeadLetters implements cloudapi.Routes.
func (h *Hub) ReplayDeadLetters(ctx context.Context, namespace, name string, ids []int64) (int, error) {
	return h.DropDeadLetters(ctx, namespace, name, ids)
}

// DropDeadLetters implements cloudapi.Routes.
func (h *Hub) DropDeadLetters(_ context.Context, _, _ string, ids []int64) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := len(h.dead)
	h.dead = slices.DeleteFunc(h.dead, func(d models.DeadLetter) bool { return ids == nil || slices.Contains(ids, d.ID) })
	return n - len(h.dead), nil
}
