package twin

import (
	"maps"
	"slices"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

// Desired is what someone wants a device's properties to be. The hub owns it;
// each change by whomever makes the next Version. It is a value: methods return
// a new one and leave the old alone.
type Desired struct {
	Version    int64                   `json:"version"`
	Properties map[string]DesiredValue `json:"properties,omitempty"`
}

// DesiredValue is what one property should be, and why. A null Value is a
// tombstone: the desired value was withdrawn at Version.
type DesiredValue struct {
	Value   models.Value `json:"value"`
	ID      string       `json:"id"` // of the write, a ULID
	Version int64        `json:"version"`
	Time    time.Time    `json:"time"`
	By      string       `json:"by,omitempty"`
	Reason  string       `json:"reason,omitempty"`
	Trace   string       `json:"trace,omitempty"` // traceparent
	// Expires is when the hub withdraws the value if it is still unconfirmed, by
	// the hub's clock. To an edge the hub sends ExpiresInMS instead, since clocks
	// differ.
	Expires     *time.Time `json:"expires,omitempty"`
	ExpiresInMS int64      `json:"expiresInMs,omitempty"`
	// Settled is what became of the write, where the hub tells an edge of a value
	// that was written before: an edge that has never heard of it does not write
	// it once more.
	Settled WriteState `json:"settled,omitempty"`
	// Given is to whom the hub was about to hand a once write, in its own words, ""
	// while it was to nobody. Edges are not told.
	Given string `json:"given,omitempty"`
	// Hidden says that the write may have been handed to the device by somebody who
	// cannot be asked any more, be it this edge before it lost its disk: it is not
	// written, and a reading tells what became of it. Settled is then unknown, so
	// that an edge that does not know this field does not write it either.
	Hidden bool `json:"hidden,omitempty"`
}

// Change is the circumstances of a change to desired values.
type Change struct {
	Time    time.Time
	By      string
	Reason  string
	Trace   string
	Expires *time.Time
	NewID   func() string // gives each write its id
}

// Clone returns a copy that shares nothing that changes.
func (d Desired) Clone() Desired {
	d.Properties = maps.Clone(d.Properties)
	if d.Properties == nil {
		d.Properties = map[string]DesiredValue{}
	}
	return d
}

// Live returns the property's desired value unless there is none.
func (d Desired) Live(property string) (DesiredValue, bool) {
	v, ok := d.Properties[property]
	return v, ok && !v.Value.IsNull()
}

// Patch returns d with the patch applied as its next version: a null withdraws.
// A patch that withdraws only what is not there changes nothing.
func (d Desired) Patch(patch map[string]models.Value, c Change) Desired {
	next := d.Clone()
	next.Version++
	changed := false
	for _, name := range slices.Sorted(maps.Keys(patch)) {
		v := patch[name]
		if _, live := d.Live(name); v.IsNull() && !live {
			continue
		}
		next.Properties[name] = DesiredValue{Value: v, ID: c.NewID(), Version: next.Version, Time: c.Time, By: c.By,
			Reason: c.Reason, Trace: c.Trace, Expires: c.Expires}
		changed = true
	}
	if !changed {
		return d
	}
	return next
}

// Withdraw returns d without the property's desired value if it is still the
// write with this id.
func (d Desired) Withdraw(property, id string, now time.Time) (Desired, bool) {
	v, live := d.Live(property)
	if !live || v.ID != id {
		return d, false
	}
	next := d.Clone()
	next.Version++
	next.Properties[property] = DesiredValue{ID: id, Version: next.Version, Time: now, By: v.By, Reason: v.Reason}
	return next, true
}

// Local is a desired value set at the edge, on its way to the hub.
type Local struct {
	Property string       `json:"property"`
	Value    models.Value `json:"value"` // null withdraws
	ID       string       `json:"id"`
	Base     int64        `json:"base"`            // the Desired.Version that the edge saw
	After    string       `json:"after,omitempty"` // id of the local write of this property that the hub hears of before it
	Time     time.Time    `json:"time"`
	By       string       `json:"by,omitempty"`
	Reason   string       `json:"reason,omitempty"`
	Origin   string       `json:"origin,omitempty"`  // by which way it came, such as "mqtt"
	Before   Reported     `json:"before,omitzero"`   // what was reported when it was made
	ClientID models.Value `json:"clientId,omitzero"` // the "$id" to echo; stays at the edge
	// Private says that the property's values were to stay at the edge when this was
	// made. It stays then, whatever becomes of the model.
	Private bool `json:"private,omitempty"`
}

// Verdict is what became of a Local.
type Verdict int

// The verdicts.
const (
	Waiting    Verdict = iota // the hub has not said yet
	Accepted                  // it is, or has become, the property's desired value
	Overridden                // the cloud changed the property since: the cloud's value stands
)

// Judge is the conflict rule: a write made at the edge stands if the cloud has
// not changed that property since the edge saw it; if both changed it, the
// cloud's stands. Hub and edge both apply it, and agree.
func (d Desired) Judge(l Local) Verdict {
	current := d.Properties[l.Property]
	switch {
	case current.ID == l.ID:
		return Accepted
	case current.Version <= l.Base || l.After != "" && current.ID == l.After:
		return Waiting
	}
	return Overridden
}

// Accept returns d with the local write as its next version, unless the
// conflict rule is against it or it is in d already. Applying one Local again
// changes nothing, so a resend is harmless.
func (d Desired) Accept(l Local) (Desired, Verdict) {
	if v := d.Judge(l); v != Waiting {
		return d, v
	}
	next := d.Clone()
	next.Version++
	next.Properties[l.Property] = DesiredValue{Value: l.Value, ID: l.ID, Version: next.Version, Time: l.Time, By: l.By, Reason: l.Reason}
	return next, Accepted
}
