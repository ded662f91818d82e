package twin

import (
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

// LedgerEntry is one desired write as the ledger tells of it: who asked for
// what, and what became of it.
type LedgerEntry struct {
	ID           string       `json:"id"`
	Property     string       `json:"property"`
	Value        models.Value `json:"value"`             // null withdraws
	Version      int64        `json:"version,omitempty"` // the desiredVersion that it made; left out for a write that never was the hub's desired value
	By           string       `json:"by,omitempty"`
	Origin       string       `json:"origin"` // cloud, edge-rest, mqtt, app (in a pod, by either); edge when the edge did not say
	Reason       string       `json:"reason,omitempty"`
	Before       *ReportedDoc `json:"before,omitempty"` // what was reported when it was asked
	Asked        time.Time    `json:"asked"`
	Sent         *time.Time   `json:"sent,omitempty"`      // when it was last handed to the device
	Confirmed    *time.Time   `json:"confirmed,omitempty"` // when it was read back
	Ended        *time.Time   `json:"ended,omitempty"`     // when State became final
	State        string       `json:"state"`               // a WriteState, or withdrawn for what withdraws
	Error        string       `json:"error,omitempty"`
	Refused      bool         `json:"refused,omitempty"`
	Late         bool         `json:"late,omitempty"` // confirmed after it had expired
	SupersededBy string       `json:"supersededBy,omitempty"`
	Since        *time.Time   `json:"since,omitempty"` // while it was the hub's desired value
	Until        *time.Time   `json:"until,omitempty"`
	Expires      *time.Time   `json:"expires,omitempty"`
	Traceparent  string       `json:"traceparent,omitempty"`
}
