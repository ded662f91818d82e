package twin

import (
	"slices"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

// WriteState is how far a write has come.
type WriteState string

// The write states.
const (
	Pending    WriteState = "pending"
	Applied    WriteState = "applied"    // read back and equal after encoding
	Failed     WriteState = "failed"     // see Write.Error
	Superseded WriteState = "superseded" // a newer desired value took its place
	Expired    WriteState = "expired"    // unconfirmed for as long as the writer allowed
	Unknown    WriteState = "unknown"    // written once; a crash hid the outcome
)

// Final reports whether the state is the write's last, but for a hold that
// drifts and a late confirmation.
func (s WriteState) Final() bool { return s != Pending && s != "" }

// Write is one desired value on its way to the device. The zero Write is none.
type Write struct {
	ID      string     `json:"id"`
	State   WriteState `json:"state"`
	Error   string     `json:"error,omitempty"`
	Refused bool       `json:"refused,omitempty"` // failed because the device or its mapper said no
	Late    bool       `json:"late,omitempty"`    // confirmed after it had expired
	Time    time.Time  `json:"time"`              // of the last change of State
	SentAt  time.Time  `json:"sentAt,omitzero"`   // when it was last handed to the device
}

// Untold is a WriteChange that no record of the log holds yet. It is stored with the
// twin, which may have another write in the place of this one already: a crash
// before the record would hide for ever what became of it.
type Untold struct {
	Property string       `json:"property"`
	Write    Write        `json:"write"`
	ClientID models.Value `json:"clientId,omitzero"`
	Local    bool         `json:"local,omitempty"`
	Asked    *Local       `json:"asked,omitempty"`
	Private  bool         `json:"private,omitempty"`
}

// Outcome is what a mapper says of a write it was given.
type Outcome int

// The outcomes.
const (
	Confirmed   Outcome = iota // read back equal, or acknowledged where nothing can be read back
	Refusal                    // the device or mapper answered no
	NotSent                    // nothing reached the device
	Unconfirmed                // it may have reached the device
)

// Result is the outcome of an Order.
type Result struct {
	Property int
	ID       string
	Outcome  Outcome
	ReadBack *models.Sample // what the device reads now, when it could be read
	Err      string
	Sent     time.Time // when the mapper took it up, zero when that is not known
}

// Order is a write that is due now.
type Order struct {
	Property int
	ID       string
	Value    models.Value
	Once     bool
	Trace    string
}

// effort is the part of a write that stays at the edge and is stored with it.
type effort struct {
	Write
	Value    models.Value `json:"value"`
	Version  int64        `json:"version"` // the desired version, 0 while local
	Sent     bool         `json:"sent,omitempty"`
	Hidden   bool         `json:"hidden,omitempty"` // sent by a life of the process that ended before the outcome
	Deadline time.Time    `json:"deadline,omitzero"`
	ClientID models.Value `json:"clientId,omitzero"`
	Trace    string       `json:"trace,omitempty"`
	Private  bool         `json:"private,omitempty"` // the property's values were to stay at the edge when it was made
	// Spent are the last once writes of the property that were sent before this one: a
	// hub that went back to an older copy may ask for them again.
	Spent []string     `json:"spent,omitempty"`
	Want  models.Value `json:"want,omitzero"` // what the device read when the write was confirmed

	inFlight bool
	before   time.Time     // SentAt of the attempt before this one
	tries    int           // in a row that did not stick
	wait     time.Duration // the back-off before next
	next     time.Time     // not before
}

// The back-off of a hold that does not stick, and of writes that may be
// repeated.
const (
	firstRetry = time.Second
	lastRetry  = 5 * time.Minute
)

// maxSpent bounds effort.Spent; the oldest is forgotten first.
const maxSpent = 16

// spent is Spent of the write that takes this one's place.
func (e *effort) spent() []string {
	if e.ID == "" || !e.Sent || slices.Contains(e.Spent, e.ID) {
		return e.Spent
	}
	out := append(slices.Clone(e.Spent), e.ID)
	return out[max(0, len(out)-maxSpent):]
}

func (e *effort) backOff(now time.Time) {
	e.wait = min(firstRetry<<min(e.tries, 12), lastRetry)
	e.next = now.Add(e.wait)
	e.tries++
}

func (e *effort) settle(state WriteState, err string, now time.Time) {
	e.State, e.Error, e.Time = state, err, now
}
