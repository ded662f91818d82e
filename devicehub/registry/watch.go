package registry

import (
	"context"
	"maps"
	"slices"
	"sort"
	"strconv"
	"sync"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

// bookmarkEvery is how often a quiet watch says how far it is.
const bookmarkEvery = 30 * time.Second

// watcher is one running Watch. Wake-ups coalesce; status holds the objects
// whose status changed since it last looked, so it is bounded by their number.
type watcher struct {
	kind string
	c    chan struct{} // one slot

	mu     sync.Mutex
	status map[models.Key]struct{}
}

func (w *watcher) wake() {
	select {
	case w.c <- struct{}{}:
	default:
	}
}

// StatusChanged tells watchers that an object's status has changed.
func (r *Registry) StatusChanged(key models.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.statusChangedLocked(key, r.revision)
}

// secretChangedLocked tells of the devices whose condition a Secret decides.
func (r *Registry) secretChangedLocked(c change) {
	secret, ok := c.entry.object.(*models.Secret)
	if !ok {
		return
	}
	key := models.KeyOf(secret)
	for _, e := range r.byUID {
		if slices.Contains(e.secrets, key) {
			r.statusChangedLocked(models.KeyOf(e.object), c.revision)
		}
	}
}

func (r *Registry) statusChangedLocked(key models.Key, revision int64) {
	if r.objects[key] == nil {
		return
	}
	r.statusAt[key] = revision
	for w := range r.watchers {
		if w.kind != key.Kind {
			continue
		}
		w.mu.Lock()
		w.status[key] = struct{}{}
		w.mu.Unlock()
		w.wake()
	}
}

// Watch sends changes until ctx ends or send fails. See cloudapi.Objects.
func (r *Registry) Watch(ctx context.Context, o models.ListOptions, resourceVersion string, send func(models.Event) error) error {
	w := &watcher{kind: o.Kind, c: make(chan struct{}, 1), status: map[models.Key]struct{}{}}
	r.mu.Lock()
	r.watchers[w] = struct{}{}
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.watchers, w)
		r.mu.Unlock()
	}()
	var cursor int64
	if resourceVersion == "" {
		entries, revision := r.selected(o)
		for _, e := range entries {
			if err := send(models.Event{Type: models.Added, Object: r.withStatus(e)}); err != nil {
				return err
			}
		}
		cursor = revision
		if err := send(bookmark(o.Kind, cursor)); err != nil {
			return err
		}
	} else {
		v, err := strconv.ParseInt(resourceVersion, 10, 64)
		if err != nil || v < 0 {
			return models.BadParameter(models.KindMalformed, "resourceVersion", "%q is not one that a list or watch gave", resourceVersion)
		}
		cursor = v
		r.missedStatuses(w, cursor)
	}
	tick := time.NewTicker(bookmarkEvery)
	defer tick.Stop()
	for {
		events, revision, err := r.since(cursor)
		if err != nil {
			return err
		}
		for _, ev := range events {
			if err := r.sendEvent(ev, o, send); err != nil {
				return err
			}
		}
		cursor = revision
		if err := r.sendStatuses(w, o, cursor, send); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.c:
		case <-tick.C:
			if err := send(bookmark(o.Kind, cursor)); err != nil {
				return err
			}
		}
	}
}

func bookmark(kind string, revision int64) models.Event {
	info, _ := models.KindByName(kind)
	o := info.New()
	*o.Type() = models.TypeMeta{APIVersion: info.APIVersion, Kind: kind}
	o.Meta().ResourceVersion = strconv.FormatInt(revision, 10)
	return models.Event{Type: models.Bookmark, Object: o}
}

// since returns the events after a revision.
func (r *Registry) since(cursor int64) ([]event, int64, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if cursor < r.floor || cursor > r.revision {
		return nil, 0, models.Errorf(models.KindGone, "resourceVersion %d is too old or from another hub: list again and watch from there", cursor)
	}
	i := sort.Search(len(r.events), func(i int) bool { return r.events[i].revision > cursor })
	return slices.Clone(r.events[i:]), r.revision, nil
}

// sendEvent sends an event as someone sees it who watches through a selector:
// an object that stops matching is deleted, one that starts to is added.
func (r *Registry) sendEvent(ev event, o models.ListOptions, send func(models.Event) error) error {
	if !inScope(models.KeyOf(ev.entry.object), o) {
		return nil
	}
	is := ev.typ != models.Deleted && o.Selector.Matches(ev.entry.object.Meta().Labels)
	was := ev.typ != models.Added && o.Selector.Matches(ev.labels)
	switch {
	case is && was:
		return send(models.Event{Type: models.Modified, Object: r.withStatus(ev.entry)})
	case is:
		return send(models.Event{Type: models.Added, Object: r.withStatus(ev.entry)})
	case was:
		return send(models.Event{Type: models.Deleted, Object: ev.entry.object})
	}
	return nil
}

func inScope(key models.Key, o models.ListOptions) bool {
	return key.Kind == o.Kind && (o.Namespace == "" || key.Namespace == "" || key.Namespace == o.Namespace)
}

// hasStatus are the kinds whose status changes without the object.
var hasStatus = map[string]bool{"Device": true, "Node": true, "Route": true, "Deployment": true, "DaemonSet": true, "StatefulSet": true, "Pod": true}

// missedStatuses marks the objects whose status may have changed since a
// revision. Statuses have no revisions of their own, so these are more than did.
func (r *Registry) missedStatuses(w *watcher, cursor int64) {
	if !hasStatus[w.kind] {
		return
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	for key, e := range r.objects {
		if key.Kind != w.kind {
			continue
		}
		at, changed := r.statusAt[key]
		if !changed {
			at = r.opened
		}
		if at >= cursor && e.revision <= cursor {
			w.status[key] = struct{}{}
		}
	}
}

// sendStatuses sends the objects whose status changed. Those that changed
// otherwise after cursor are left to their events, which have the status too.
func (r *Registry) sendStatuses(w *watcher, o models.ListOptions, cursor int64, send func(models.Event) error) error {
	w.mu.Lock()
	changed := slices.Collect(maps.Keys(w.status))
	clear(w.status)
	w.mu.Unlock()
	slices.SortFunc(changed, comparePlace)
	for _, key := range changed {
		r.mu.RLock()
		e := r.objects[key]
		r.mu.RUnlock()
		if e == nil || e.revision > cursor || !inScope(key, o) || !o.Selector.Matches(e.object.Meta().Labels) {
			continue
		}
		if err := send(models.Event{Type: models.Modified, Object: r.withStatus(e)}); err != nil {
			return err
		}
	}
	return nil
}
