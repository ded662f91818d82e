package store

import (
	"context"
	"time"
)

// Write is one desired write in the ledger: who asked, and what became of it.
type Write struct {
	ID, DeviceUID, Property string
	Value                   string // JSON; null withdraws
	Version                 int64  // the desiredVersion that it made; 0: it never was the hub's desired value
	By, Origin              string
	Reason, Trace           string
	Before                  string    // JSON of what was reported when it was asked, "" when unknown
	Asked                   time.Time // by the clock of where it was asked
	Since, Until            time.Time // while it was the hub's desired value, by the hub's clock; zero: not, not yet
	Expires                 time.Time
	Sent                    time.Time // when it was last handed to the device, by the edge's clock as the two below
	Confirmed               time.Time // when it was read back
	Ended                   time.Time // when its state became final
	State, Error            string
	SupersededBy            string // the write that took its place
	Refused, Late           bool
	Settled                 Settled
}

// Settled says by whose word a write's state is final.
type Settled uint8

// Who settles a write. The hub judges by what it knows: a write that another one
// replaced, or whose time was over. The edge, which may have come to another
// end before it heard of that, has the last word.
const (
	SettledNot    Settled = iota
	SettledByHub          // superseded or expired, unless the edge says otherwise
	SettledByEdge         // or there is nothing to settle
)

// WriteEnd says that a write ceases to be the desired value.
type WriteEnd struct {
	ID           string
	At           time.Time
	SupersededBy string // "" when nothing took its place
	State, Error string // what it is then, unless it is settled already
}

// WriteOutcome is what an edge says of a write.
type WriteOutcome struct {
	ID, DeviceUID string
	State, Error  string
	Final         bool // of the state
	Applied       bool // the state says that it was read back
	Refused, Late bool
	Sent, At      time.Time
}

// Fill completes a write that is in the ledger with what a second telling of it
// knows: the edge's, of a write that the hub has taken, or the other way round.
func (w *Write) Fill(o Write) {
	w.Version = max(w.Version, o.Version)
	for _, f := range []struct{ to, from *string }{{&w.By, &o.By}, {&w.Origin, &o.Origin}, {&w.Reason, &o.Reason}, {&w.Trace, &o.Trace}, {&w.Before, &o.Before}} {
		if *f.to == "" {
			*f.to = *f.from
		}
	}
	if w.Since.IsZero() {
		w.Since = o.Since
	}
	if w.Expires.IsZero() {
		w.Expires = o.Expires
	}
}

// End makes the write cease to be the desired value.
func (w *Write) End(e WriteEnd) {
	if w.Until.IsZero() && !w.Since.IsZero() {
		w.Until = e.At
	}
	if w.SupersededBy == "" {
		w.SupersededBy = e.SupersededBy
	}
	if w.Settled == SettledNot {
		w.State, w.Error, w.Ended, w.Settled = e.State, e.Error, e.At, SettledByHub
	}
}

// Settle takes what the edge says.
func (w *Write) Settle(o WriteOutcome) {
	if o.DeviceUID != w.DeviceUID {
		return
	}
	switch {
	case w.Settled == SettledByEdge && !(o.Late && o.Final):
		return // its last word was said
	case !o.Final:
		if !o.Sent.IsZero() {
			w.Sent = o.Sent
		}
		if w.Settled == SettledNot {
			w.Error = o.Error
		}
		return
	}
	if !o.Sent.IsZero() {
		w.Sent = o.Sent
	}
	// Confirmed where the hub has given it up.
	w.Late = w.Late || o.Late || o.Applied && w.State == "expired"
	w.State, w.Error, w.Refused, w.Ended, w.Settled = o.State, o.Error, o.Refused, o.At, SettledByEdge
	if w.Confirmed.IsZero() && (o.Applied || o.Late) {
		w.Confirmed = o.At
	}
}

// WriteQuery chooses writes of a device.
type WriteQuery struct {
	DeviceUID string
	Property  string // "" for all
	State     string // "" for all
	Since     time.Time
	Before    string // only those with ids below; "" for all
	Limit     int
}

// WriteBounds is how many writes are kept, and for how long. What is desired now
// always stays.
type WriteBounds struct {
	Before      time.Time // asked and ended before this: goes
	PerProperty int       // the latest ones of each property stay
}

// Writes is the write ledger. What changes it is part of Commit and of Ingest.
type Writes interface {
	// WritesPage returns writes, those with the highest ids first: ids are by time.
	WritesPage(ctx context.Context, q WriteQuery) ([]Write, error)
	// DesiredAt returns the writes that were a device's desired values at a time.
	DesiredAt(ctx context.Context, deviceUID string, at time.Time) ([]Write, error)
	// TrimWrites deletes what is out of bounds.
	TrimWrites(ctx context.Context, b WriteBounds) error
}

// Assignment is when a device was assigned to a node for the n-th time.
type Assignment struct {
	DeviceUID  string
	Assignment uint64
	Since      time.Time
}

// Served says that a node's log has brought something of a device.
type Served struct {
	DeviceUID  string
	Assignment uint64
}

// Service is the time in which a node has served a device.
type Service struct {
	NodeUID     string
	Since, Till time.Time // zero: unknown, or still
}

// DeletedDevice is a device that is gone and has history still.
type DeletedDevice struct {
	UID, Namespace, Name string
	Deleted              time.Time
}

// Lives is what is known of devices beyond what they are now.
type Lives interface {
	// Services returns the nodes whose logs have brought something of a device, by
	// assignment.
	Services(ctx context.Context, deviceUID string) ([]Service, error)
	// Properties returns the names of all properties of which a device has, or had,
	// history, by name.
	Properties(ctx context.Context, deviceUID string) ([]string, error)
	// DeletedDevices returns the deleted devices that had a name, the last one
	// first.
	DeletedDevices(ctx context.Context, namespace, name string) ([]DeletedDevice, error)
	// ForgetDeleted deletes all that is kept of at most limit devices that were
	// deleted before a time: their writes, and their history as Expire does. more
	// says that there are further ones.
	ForgetDeleted(ctx context.Context, before time.Time, limit int) (more bool, err error)
}
