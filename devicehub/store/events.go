package store

import (
	"cmp"
	"context"
	"slices"
	"time"
)

// Event is what happened to an object, and how often within a short time.
type Event struct {
	Key                        string // names the row: events with one Key are alike and become one
	Revision                   int64  // given by the store with each change, increasing in the order of commits
	Kind, Namespace, Name, UID string // the object
	Field                      string // the part of it, "" for the whole
	Warning                    bool
	Reason, Message            string
	Source                     string
	Node                       string // whose log told of it, "" for the hub itself
	First, Last                time.Time
	Count                      int64
	Recorded                   time.Time // by the hub's clock
}

// Add makes e one of what it was and a further event with its Key, with which it
// agrees in object, field and reason: counts add up, and the words of the one that
// happened later stand, of two at one time the further one's.
func (e *Event) Add(further Event) {
	if !further.Last.Before(e.Last) {
		e.Warning, e.Message, e.Source, e.Node, e.Last = further.Warning, further.Message, further.Source, further.Node, further.Last
	}
	if further.First.Before(e.First) {
		e.First = further.First
	}
	e.Count += further.Count
	e.Recorded = further.Recorded
}

// FoldEvents makes events with one Key one, and returns them in the order of
// their keys.
func FoldEvents(events []Event) (out []Event) {
	at := map[string]int{}
	for _, e := range events {
		if i, ok := at[e.Key]; ok {
			out[i].Add(e)
			continue
		}
		at[e.Key] = len(out)
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b Event) int { return cmp.Compare(a.Key, b.Key) })
	return out
}

// EventQuery chooses events. The zero value is all.
type EventQuery struct {
	Namespaces []string // of the objects; "" is that of those that have none. Empty: any
	Kind       string
	Name       string
	UID        string
	Reason     string
	Warning    *bool
	Since      time.Time // the last one of them is not before this
	HideKinds  []string  // objects of these kinds are left out
	BeforeUS   int64     // with BeforeKey: only what comes after this place in the order
	BeforeKey  string    // "" for all
	Limit      int
}

// Matches reports whether an event is chosen, as far as the event itself goes:
// not its place.
func (q *EventQuery) Matches(e *Event) bool {
	switch {
	case len(q.Namespaces) > 0 && !slices.Contains(q.Namespaces, e.Namespace),
		q.Kind != "" && q.Kind != e.Kind,
		q.Name != "" && q.Name != e.Name,
		q.UID != "" && q.UID != e.UID,
		q.Reason != "" && q.Reason != e.Reason,
		q.Warning != nil && *q.Warning != e.Warning,
		!q.Since.IsZero() && e.Last.Before(q.Since),
		slices.Contains(q.HideKinds, e.Kind):
		return false
	}
	return true
}

// EventBounds is how many events are kept, and for how long.
type EventBounds struct {
	Before    time.Time // recorded for the last time before this: goes
	PerObject int       // the latest ones of each object stay
	Total     int       // the latest ones stay
}

// Events is the record of what happened.
type Events interface {
	// AddEvents adds events durably, all or none. One whose Key is there becomes
	// one with it (Event.Add).
	AddEvents(ctx context.Context, events []Event) error
	// EventsPage returns the chosen events, the latest first (Last, then Key).
	EventsPage(ctx context.Context, q EventQuery) ([]Event, error)
	// EventsAfter returns at most limit events whose Revision is above after, in
	// the order of revisions. Whoever asks again from the last one misses none.
	EventsAfter(ctx context.Context, after int64, limit int) ([]Event, error)
	// EventsRevision returns the latest revision there was.
	EventsRevision(ctx context.Context) (int64, error)
	// TrimEvents deletes what is out of bounds.
	TrimEvents(ctx context.Context, b EventBounds) error
}
