package registry

import (
	"context"
	"sync"

	"github.com/whimbrel-edge/whimbrel/models"
)

// Changes hears which objects of some kinds changed. It holds at most one entry
// for each object, so it is bounded by their number.
type Changes struct {
	r     *Registry
	kinds map[string]bool
	c     chan struct{} // one slot

	mu    sync.Mutex
	dirty map[models.Key]struct{}
}

// Changes starts to listen, and returns the objects of the kinds as they are at
// that moment, in no order and without status. Close ends it.
func (r *Registry) Changes(kinds ...string) (*Changes, []models.Object) {
	c := &Changes{r: r, kinds: map[string]bool{}, c: make(chan struct{}, 1), dirty: map[models.Key]struct{}{}}
	for _, k := range kinds {
		c.kinds[k] = true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.listeners[c] = struct{}{}
	var now []models.Object
	for key, e := range r.objects {
		if c.kinds[key.Kind] {
			now = append(now, e.object)
		}
	}
	return c, now
}

// Close ends the listening.
func (c *Changes) Close() {
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	delete(c.r.listeners, c)
}

// Changed receives when Take has something.
func (c *Changes) Changed() <-chan struct{} { return c.c }

// Take returns the keys of what changed since the last Take, in no order.
func (c *Changes) Take() []models.Key {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]models.Key, 0, len(c.dirty))
	for key := range c.dirty {
		out = append(out, key)
	}
	clear(c.dirty)
	return out
}

// tellListenersLocked marks a stored change. r.mu is held.
func (r *Registry) tellListenersLocked(key models.Key) {
	for c := range r.listeners {
		if !c.kinds[key.Kind] {
			continue
		}
		c.mu.Lock()
		c.dirty[key] = struct{}{}
		c.mu.Unlock()
		select {
		case c.c <- struct{}{}:
		default:
		}
	}
}

// Object returns an object without its status, nil when there is none.
func (r *Registry) Object(key models.Key) models.Object {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if e := r.objects[key]; e != nil {
		return e.object
	}
	return nil
}

// Apply deletes and stores objects, in this order and all at once: what the hub
// makes of what users asked for. The objects must be defaulted and valid; they
// are the registry's afterwards. One that is dropped and put is a new one. What
// is to be dropped and is not there does not matter.
func (r *Registry) Apply(ctx context.Context, put []models.Object, drop []models.Key) error {
	return r.change(ctx, func(s *stage) error {
		for _, key := range drop {
			if s.get(key) != nil {
				s.drop(key)
			}
		}
		for _, o := range put {
			e, err := s.check(o)
			if err != nil {
				return err
			}
			if err := s.put(o, e); err != nil {
				return err
			}
		}
		return nil
	})
}
