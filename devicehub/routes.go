package devicehub

import (
	"context"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/models"
)

// PublishRoute takes a message for a route whose source is REST.
func (h *Hub) PublishRoute(ctx context.Context, namespace, name, key, contentType string, payload []byte, wait time.Duration) (models.RouteReply, error) {
	return h.routing.Publish(ctx, namespace, name, key, contentType, payload, wait)
}

// route returns a route's uid.
func (h *Hub) route(ctx context.Context, namespace, name string) (string, error) {
	o, err := h.Registry.Get(ctx, models.Key{Kind: "Route", Namespace: namespace, Name: name})
	if err != nil {
		return "", err
	}
	return o.Meta().UID, nil
}

// DeadLetters returns a page of a route's dead letters, oldest first: those whose
// ids are above after.
func (h *Hub) DeadLetters(ctx context.Context, namespace, name string, after int64, limit int) ([]models.DeadLetter, error) {
	uid, err := h.route(ctx, namespace, name)
	if err != nil {
		return nil, err
	}
	page, err := h.routing.DeadLetters(ctx, uid, after, limit)
	if err != nil {
		return nil, err
	}
	out := make([]models.DeadLetter, 0, len(page))
	for i := range page {
		out = append(out, deadLetter(&page[i]))
	}
	return out, nil
}

func deadLetter(m *store.RoutedMessage) models.DeadLetter {
	return models.DeadLetter{ID: m.ID, Key: m.Key, Node: m.Node, Topic: m.Topic, Device: m.Device, Property: m.Property, ContentType: m.ContentType,
		Payload: m.Payload, Target: m.Target, Accepted: m.Accepted, Died: m.Died, Attempts: m.Attempts, Error: m.Error}
}

// ReplayDeadLetters sets dead letters going again, all of a route's or those
// with the ids, and returns how many.
func (h *Hub) ReplayDeadLetters(ctx context.Context, namespace, name string, ids []int64) (int, error) {
	uid, err := h.route(ctx, namespace, name)
	if err != nil {
		return 0, err
	}
	return h.routing.Replay(ctx, uid, ids)
}

// DropDeadLetters deletes dead letters, all of a route's or those with the ids,
// and returns how many.
func (h *Hub) DropDeadLetters(ctx context.Context, namespace, name string, ids []int64) (int, error) {
	uid, err := h.route(ctx, namespace, name)
	if err != nil {
		return 0, err
	}
	return h.routing.Drop(ctx, uid, ids)
}

// secret returns the values of a Secret.
func (h *Hub) secret(namespace, name string) (map[string][]byte, error) {
	o, err := h.Registry.Get(context.Background(), models.Key{Kind: "Secret", Namespace: namespace, Name: name})
	if models.KindOf(err) == models.KindNotFound {
		return nil, models.Errorf(models.KindNotFound, "there is no secret %s in namespace %s", name, namespace)
	}
	if err != nil {
		return nil, err
	}
	return o.(*models.Secret).Data, nil
}
