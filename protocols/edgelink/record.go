package edgelink

import (
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

// DeviceRef names a device in a record: by uid, so that one made again under an
// old name is another, and by the count of its moves between nodes.
type DeviceRef struct {
	UID        string
	Assignment uint64
}

// WriteEvent is a change of a write's state.
type WriteEvent struct {
	Device   DeviceRef
	Property string
	ID       string // of the write
	State    string // pending, applied, failed, superseded, expired, unknown
	Error    string
	Time     time.Time
	Late     bool          // confirmed after it had expired
	Refused  bool          // failed because the device or its mapper said no
	Sent     time.Time     // when it was last handed to the device, zero: not, or not known
	Asked    *LocalDesired // with the first word of a write made at the edge: the write itself, of the same device
}

// LocalDesired is a desired value set at the edge.
type LocalDesired struct {
	Device   DeviceRef
	Property string
	ID       string       // of the write
	Value    models.Value // Null withdraws; bytes arrive as the base64 string they are in JSON
	Base     int64        // the desiredVersion that the edge saw
	After    string       // the local write of the same property that this one follows, "" for none
	Time     time.Time
	By       string
	Reason   string         // why, as who made it says
	Origin   string         // by which way it came, such as "mqtt"
	Before   *models.Sample // what was reported when it was made, nil when nothing was
}

// StateEvent is a change of a device's state.
type StateEvent struct {
	Device  DeviceRef
	State   models.DeviceState
	Reason  string
	Message string
	Time    time.Time
}

// Gap says that samples are missing and why.
type Gap struct {
	Reason   string // one of the Gap constants
	Epoch    string
	FirstSeq uint64 // 0 when the samples never had a record
	LastSeq  uint64
	Samples  uint64 // 0 when unknown
	From, To time.Time
}
