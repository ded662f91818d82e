package store

import (
	"context"
	"time"
)

// RoutedMessage is a message of a route that the hub has taken and that is not
// delivered, or a dead letter.
type RoutedMessage struct {
	ID          int64  // given by the store, in the order in which they were added
	Key         string // the same of every copy
	Target      string // what delivers it: "hub", or "node:" and a node's name
	Route       string // uid
	Namespace   string // of the route
	Name        string // of the route
	Lane        string // messages of a route, target and lane go in order
	Node        string // where it was published, "" for the hub
	Topic       string
	Device      string
	Property    string
	ContentType string
	Payload     []byte
	To          []byte // JSON of models.RouteTarget
	Accepted    time.Time
	Deadline    time.Time
	TTL         time.Duration // it was given, for when it is replayed
	Retries     int
	Attempts    int
	Dead        bool
	Died        time.Time // zero unless Dead
	Error       string    // of the last attempt
}

// RoutedQuery chooses messages.
type RoutedQuery struct {
	Target string // "" for all
	Route  string // uid, "" for all
	Dead   bool   // dead letters, else what waits
	After  int64  // ids above
	// Overdue chooses those whose deadline is not after it; zero: all.
	Overdue time.Time
	Limit   int
}

// RoutedOutcome is what became of a waiting message.
type RoutedOutcome struct {
	ID        int64
	Delivered bool // it is forgotten, and counted
	Handed    bool // it is forgotten: who has it now counts
	Dead      bool // it becomes a dead letter, and is counted
	Attempts  int
	Error     string
	At        time.Time
}

// RouteTotal counts what became of a route's messages in one place.
type RouteTotal struct {
	Route     string // uid
	Place     string // "hub", or the id of an edge's queue
	Node      string // of an edge's queue
	Delivered uint64
	Failed    uint64
	Dropped   uint64
	Queued    uint64 // at an edge, when it last said
	LastError string
	LastAt    time.Time
}

// Routes is what routing needs.
type Routes interface {
	// AddRouted stores messages in their order and returns them with their ids. A
	// message whose Key and Target are there already is left out, and of what is
	// returned.
	AddRouted(ctx context.Context, ms []RoutedMessage) ([]RoutedMessage, error)
	// Routed returns messages ordered by id.
	Routed(ctx context.Context, q RoutedQuery) ([]RoutedMessage, error)
	// SettleRouted stores outcomes, and their counts in the totals of "hub", in one
	// transaction. Those of messages that are gone, or dead already, do nothing.
	SettleRouted(ctx context.Context, outcomes []RoutedOutcome) error
	// ReviveRouted makes dead letters of a route wait again, all or those with the
	// ids, with new ids behind all others, no attempts and as much time as they were
	// given. It returns them.
	ReviveRouted(ctx context.Context, route string, ids []int64, now time.Time) ([]RoutedMessage, error)
	// DropRouted deletes dead letters of a route, all or those with the ids, and
	// returns how many.
	DropRouted(ctx context.Context, route string, ids []int64) (int, error)
	// RouteTotals calls f for every total.
	RouteTotals(ctx context.Context, f func(RouteTotal) error) error
	// SetRouteTotals inserts or replaces, by Route and Place.
	SetRouteTotals(ctx context.Context, totals []RouteTotal) error
	// ForgetRoute deletes the totals and dead letters of a route.
	ForgetRoute(ctx context.Context, route string) error
	// RouteSpec returns what SetRouteSpec stored, ErrNotFound when it has not.
	RouteSpec(ctx context.Context, route string, generation int64) ([]byte, error)
	// SetRouteSpec remembers a route's spec. What was remembered longer ago than
	// keep is forgotten.
	SetRouteSpec(ctx context.Context, route string, generation int64, spec []byte, now time.Time, keep time.Duration) error
}
