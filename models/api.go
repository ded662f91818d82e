package models

import "time"

// ListOptions chooses objects of one kind.
type ListOptions struct {
	Kind      string
	Namespace string // "" for every namespace
	Selector  Selector
	Limit     int    // 0: no limit
	Continue  string // where the page before ended, as it said
}

// List is a page of objects, ordered by namespace and name.
type List struct {
	Items           []Object
	ResourceVersion string // watch from here and nothing is missed
	Continue        string // "" on the last page
}

// EventType says what happened to a watched object.
type EventType string

// The event types.
const (
	Added    EventType = "ADDED"
	Modified EventType = "MODIFIED"
	Deleted  EventType = "DELETED"
	Bookmark EventType = "BOOKMARK"
)

// Event is one change of one object.
type Event struct {
	Type   EventType
	Object Object // must not be changed
}

// WriteOptions are the circumstances of a change to an object.
type WriteOptions struct {
	By      string // the user's name
	IfMatch string // the ETag the object must have, "" for any
	Create  bool   // the object must not exist
}

// LedgerQuery chooses writes of a device.
type LedgerQuery struct {
	UID      string // of a device that was deleted, "" for the one there is
	Property string // "" for all
	State    string // "" for all
	Since    time.Time
	Limit    int
	Continue string
}

// DesiredOptions are the circumstances of a change to desired values.
type DesiredOptions struct {
	By      string
	Reason  string
	Trace   string        // traceparent
	IfMatch string        // the desiredVersion there must be, as an ETag, "" for any
	Expire  time.Duration // withdraw when unconfirmed for that long, 0: never
}
