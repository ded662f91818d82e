package mappers

import (
	"log/slog"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

// RunnerConfig is what a Runner needs.
type RunnerConfig struct {
	Name     string // the device's, for logs
	Protocol string // the driver's name, for metrics
	// Device was opened with PointsOf(Properties). The Runner closes it.
	Device     Device
	Properties []models.ResolvedProperty
	Sink       Sink
	Log        *slog.Logger // nil discards
	Metrics    *Metrics     // nil counts nothing
	// Seed spreads the polls of many devices over their intervals: devices with
	// different seeds poll at different moments, one device always at the same.
	Seed uint64
	// DemoteAfter is how many cycles in a row the device may fail before it is
	// probed with back-off instead of polled. 0 is DefaultDemoteAfter.
	DemoteAfter int
}

// DefaultDemoteAfter is RunnerConfig.DemoteAfter when nothing is said.
const DefaultDemoteAfter = 3

// PointsOf returns the properties as a driver sees them: properties[i] is
// point i.
func PointsOf(properties []models.ResolvedProperty) []Point {
	points := make([]Point, len(properties))
	for i, p := range properties {
		points[i] = Point{Property: p.Name, Type: p.Type, Access: p.Access, Every: p.Every, Address: p.Address}
	}
	return points
}

// Sink takes what a Runner finds. Its methods are called from the goroutine of
// Run only. They may block, and polling waits as long.
type Sink interface {
	// Report tells what a cycle brought. The batch and its slices are the
	// callee's until Report returns.
	Report(Batch)
	// Written tells what became of a Write: exactly once for each that
	// Runner.Write accepted. What was read back is reported before.
	Written(WriteResult)
	// State tells how the device is doing, when that or its reason changes. err
	// says more; it is nil when the device is online.
	State(state models.DeviceState, reason models.Reason, err error)
}

// Batch is what one cycle brought.
type Batch struct {
	Time time.Time // when the cycle ended
	// Refreshed lists the properties that the device answered for, with a
	// value or with an error of their own, and those that a live subscription
	// vouches for. It is empty when the device did not answer.
	Refreshed []int
	// Changed holds what has to be reported: values that left the deadband,
	// changes of quality or reason, first values and heartbeats. A bad sample
	// has no value; the last good one remains the reader's.
	Changed []Observation
	// Stored, unless nil, is called once, from any goroutine: with nil when what
	// there is to keep of Changed is on the disk, with an error when that failed.
	Stored func(error)
}

// Observation is one sample of one property.
type Observation struct {
	Property int // index into RunnerConfig.Properties
	Sample   models.Sample
}

// Write is one value on its way to the device.
type Write struct {
	ID       string // the caller's, handed back
	Property int    // index into RunnerConfig.Properties, a writable one
	// Value fits the property's type (models.ResolvedProperty.CheckDesired).
	Value models.Value
	// Once is handed back in the result, so that the caller knows what it may
	// repeat. The Runner itself never sends a write twice, whatever Once says.
	Once bool
	// Verify reads the value back after writing. A property that cannot be
	// read is applied when the device acknowledges it.
	Verify bool
	// Trace is the traceparent of the request that asked for it, for the log; ""
	// for none.
	Trace string
}

// Outcome is what became of a write.
type Outcome uint8

// The outcomes.
const (
	// Applied: the device acknowledged it and, with Verify, reads back equal
	// after encoding.
	Applied Outcome = iota + 1
	// Refused: the device said no, or its encoding cannot hold the value.
	// Repeating will not help.
	Refused
	// Unsent: nothing reached the device. Repeating is safe.
	Unsent
	// Unconfirmed: it may have reached the device. With a ReadBack the device
	// acknowledged it and reads back another value; it may need longer, or it
	// limits the value.
	Unconfirmed
	// Superseded: a later Write to the property came before it was sent.
	Superseded
)

var outcomeNames = [...]string{"none", "applied", "refused", "unsent", "unconfirmed", "superseded"}

func (o Outcome) String() string {
	if int(o) < len(outcomeNames) {
		return outcomeNames[o]
	}
	return "outcome?"
}

// WriteResult is what became of a Write.
type WriteResult struct {
	ID       string
	Property int
	Once     bool
	Outcome  Outcome
	ReadBack *models.Sample // what was read back, if anything; the callee's to keep
	Err      error          // nil when Applied; see FailureOf for its reason
	Took     time.Duration  // from when it was taken from the queue
}
