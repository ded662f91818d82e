package events

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/internal/backoff"
	"github.com/whimbrel-edge/whimbrel/models"
)

const (
	// maxPending bounds what waits to be stored, in different things that
	// happened: of one thing only the count grows. When it is full, further ones
	// are dropped and counted, and the log says so.
	maxPending = 4096
	// gather is how long the first thing waits for others, so that many at once
	// are one transaction.
	gather = 50 * time.Millisecond
	// trimEvery is how often what is too old, or too much, is deleted.
	trimEvery = 10 * time.Minute
	// page is how many events a watch reads at once.
	page = 500
	// lookEvery is how often a watch looks by itself: other hubs on the same
	// database do not wake it.
	lookEvery     = 5 * time.Second
	bookmarkEvery = 30 * time.Second
	stopWait      = 2 * time.Second
	noteWait      = 5 * time.Second
)

// Config is what a Book needs. Store and Log are required.
type Config struct {
	Store store.Events
	Log   *slog.Logger
	Now   func() time.Time // default time.Now
	// Late is how late it is for what is deleted because it is old; default Now.
	Late  func(ctx context.Context) time.Time
	Retry backoff.Policy
}

// Book is where things are raised, listed and watched. Its methods are safe for
// concurrent use.
type Book struct {
	cfg  Config
	some chan struct{} // one slot: something is pending

	mu      sync.Mutex // protects all below
	pending map[string]store.Event
	dropped int
	news    chan struct{} // closed and replaced when events were stored
}

// New returns a Book. What is raised is stored while Run runs.
func New(cfg Config) *Book {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Late == nil {
		cfg.Late = func(context.Context) time.Time { return cfg.Now() }
	}
	if cfg.Retry == (backoff.Policy{}) {
		cfg.Retry = backoff.Policy{Min: 100 * time.Millisecond, Max: 10 * time.Second, Factor: 2, Jitter: 0.5}
	}
	return &Book{cfg: cfg, some: make(chan struct{}, 1), pending: map[string]store.Event{}, news: make(chan struct{})}
}

// Raise takes note of something that happened. It never blocks and keeps
// nothing of o; readers see it when it is stored. What is raised just before the
// process is killed may be lost: what must not be comes with a log.
func (b *Book) Raise(o models.Occurrence) {
	e := Of(o, "", b.cfg.Now())
	b.mu.Lock()
	defer b.mu.Unlock()
	b.addLocked(e)
	select {
	case b.some <- struct{}{}:
	default:
	}
}

// Note is Raise for what must not be missing once somebody has been told, or could not
// be seen a second time: it returns when it is stored, or, when the store does not
// take it within noteWait, as Raise does.
func (b *Book) Note(ctx context.Context, o models.Occurrence) {
	e := Of(o, "", b.cfg.Now())
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), noteWait)
	defer cancel()
	if err := b.cfg.Store.AddEvents(ctx, []store.Event{e}); err != nil {
		b.cfg.Log.Error("an event is not stored; trying again", "reason", e.Reason, "error", err)
		b.Raise(o)
		return
	}
	b.Stored()
}

func (b *Book) addLocked(e store.Event) {
	was, there := b.pending[e.Key]
	switch {
	case there:
		was.Add(e)
		b.pending[e.Key] = was
	case len(b.pending) >= maxPending:
		b.dropped++
	default:
		b.pending[e.Key] = e
	}
}

// Stored wakes the watches: events were stored by somebody else, with a log.
func (b *Book) Stored() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.news)
	b.news = make(chan struct{})
}

func (b *Book) wake() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.news
}

// Run stores what is raised, and deletes what is too old, until ctx ends. What is
// pending then is stored still, if that is quick.
func (b *Book) Run(ctx context.Context) error {
	retry, err := backoff.New(b.cfg.Retry, rand.Float64)
	if err != nil {
		return err
	}
	trim := time.NewTimer(0)
	defer trim.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWait)
			defer cancel()
			b.store(last)
			return context.Cause(ctx)
		case <-trim.C:
			if err := b.cfg.Store.TrimEvents(ctx, store.EventBounds{Before: b.cfg.Late(ctx).Add(-Age), PerObject: PerObject, Total: Total}); err != nil && ctx.Err() == nil {
				b.cfg.Log.Error("events that are too old are not deleted", "error", err)
			}
			trim.Reset(trimEvery)
			continue
		case <-b.some:
		}
		pause(ctx, gather)
		for !b.store(ctx) && retry.Wait(ctx) == nil {
		}
		retry.Reset()
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// store stores what is pending and reports whether it did. What it could not
// store is pending again. A failure that hides a success makes counts too high,
// never an event missing.
func (b *Book) store(ctx context.Context) bool {
	b.mu.Lock()
	batch, dropped := b.pending, b.dropped
	b.pending, b.dropped = map[string]store.Event{}, 0
	b.mu.Unlock()
	if dropped > 0 {
		b.cfg.Log.Error("events were dropped: too many different things happened at once", "events", dropped)
	}
	if len(batch) == 0 {
		return true
	}
	list := make([]store.Event, 0, len(batch))
	for _, e := range batch {
		list = append(list, e)
	}
	err := b.cfg.Store.AddEvents(ctx, list)
	if err == nil {
		b.Stored()
		return true
	}
	if ctx.Err() == nil {
		b.cfg.Log.Error("events are not stored; trying again", "events", len(list), "error", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range list {
		if newer, there := b.pending[e.Key]; there {
			e.Add(newer)
			b.pending[e.Key] = e
			continue
		}
		b.addLocked(e)
	}
	return false
}

// List returns a page of events, the latest first.
func (b *Book) List(ctx context.Context, o models.EventOptions) (models.LoggedEvents, error) {
	q, err := query(o)
	if err != nil {
		return models.LoggedEvents{}, err
	}
	q.Limit++ // one more says whether there is more
	revision, err := b.cfg.Store.EventsRevision(ctx)
	if err != nil {
		return models.LoggedEvents{}, b.unavailable(ctx, err)
	}
	found, err := b.cfg.Store.EventsPage(ctx, q)
	if err != nil {
		return models.LoggedEvents{}, b.unavailable(ctx, err)
	}
	out := models.LoggedEvents{Items: []models.LoggedEvent{}, ResourceVersion: strconv.FormatInt(revision, 10)}
	for i := range found {
		if i == o.Limit {
			out.Continue = place(&found[i-1])
			break
		}
		out.Items = append(out.Items, document(&found[i]))
	}
	return out, nil
}

// Watch calls send with every event that is new or has changed after a
// resourceVersion ("" for: first every event there is), in the order in which
// they are recorded, until ctx ends or send fails. What changes faster than it
// is sent comes once, as it is then. A Bookmark says about every 30 s how far it
// is. KindGone: the version is not of this database.
func (b *Book) Watch(ctx context.Context, o models.EventOptions, resourceVersion string, send func(models.EventChange) error) error {
	q, err := query(o)
	if err != nil {
		return err
	}
	at, err := b.begin(ctx, resourceVersion)
	if err != nil {
		return err
	}
	look, mark := time.NewTicker(lookEvery), time.NewTicker(bookmarkEvery)
	defer look.Stop()
	defer mark.Stop()
	for {
		news := b.wake()
		for full := true; full; {
			found, err := b.cfg.Store.EventsAfter(ctx, at, page)
			if err != nil {
				return b.unavailable(ctx, err)
			}
			full = len(found) == page
			for i := range found {
				e := &found[i]
				at = e.Revision
				if !q.Matches(e) {
					continue
				}
				change := models.EventChange{Type: models.Added, Event: document(e)}
				if e.Count > 1 {
					change.Type = models.Modified
				}
				if err := send(change); err != nil {
					return err
				}
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-news:
		case <-look.C:
		case <-mark.C:
			err := send(models.EventChange{Type: models.Bookmark, Event: models.LoggedEvent{TypeMeta: models.TypeMeta{APIVersion: models.APIVersionCore, Kind: "Event"},
				Metadata: models.ObjectMeta{ResourceVersion: strconv.FormatInt(at, 10)}}})
			if err != nil {
				return err
			}
		}
	}
}

// begin is where a watch begins.
func (b *Book) begin(ctx context.Context, resourceVersion string) (int64, error) {
	if resourceVersion == "" {
		return 0, nil
	}
	at, err := strconv.ParseInt(resourceVersion, 10, 64)
	if err != nil || at < 0 {
		return 0, models.BadParameter(models.KindMalformed, "resourceVersion", "%.40q is not one that a list or watch gave", resourceVersion)
	}
	now, err := b.cfg.Store.EventsRevision(ctx)
	if err != nil {
		return 0, b.unavailable(ctx, err)
	}
	if at > now {
		return 0, models.Errorf(models.KindGone, "resourceVersion %d is ahead of the events', %d: the database was restored; list again", at, now)
	}
	return at, nil
}

// unavailable is what a caller is told when the store fails: to come back, and
// not why, which is for the log.
func (b *Book) unavailable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	b.cfg.Log.Error("the store fails", "step", "read events", "error", err)
	return models.Errorf(models.KindUnavailable, "the store does not answer; try again")
}
