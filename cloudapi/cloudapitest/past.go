package cloudapitest

import (
	"context"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/twin"
)

// TwinAt implements cloudapi.Twins: of the past it knows what it keeps as history,
// and nothing of what was desired.
func (h *Hub) TwinAt(_ context.Context, namespace, name, uid string, at time.Time) (twin.Document, error) {
	if at.After(time.Now()) {
		return twin.Document{}, models.BadParameter(models.KindInvalid, "at", "is in the future")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	key := deviceKey(namespace, name)
	d := h.devices[key]
	if d == nil || uid != "" && h.objects[key].Meta().UID != uid || at.Before(*h.objects[key].Meta().CreationTimestamp) {
		return twin.Document{}, notFound(key)
	}
	past := twin.Past{Device: name, Namespace: namespace, At: at, Properties: h.propertiesLocked(key), State: models.StateOnline, Reported: map[string]twin.Reported{}}
	for property, points := range d.history {
		r := twin.Reported{}
		for _, p := range points {
			if !p.Time.After(at) {
				r, _ = r.Observe(models.Sample{Value: p.Value, Quality: p.Quality, Reason: p.Reason, Time: p.Time})
			}
		}
		past.Reported[property] = r
	}
	return past.Document(), nil
}
