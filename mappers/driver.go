// Package mappers turns devices that speak a protocol into observations, and
// desired values into writes. It declares the interface a protocol's driver
// implements, which third parties import, and the Runner that does for every
// driver what no driver should do itself: polling by interval with phase
// spread, quality, deadband, heartbeats, writes ahead of polls,
// read-back, demotion of a device that fails and its probes.
//
// A driver lives in a folder of its own (mappers/modbus); mappers/builtin
// lists the ones that ship, and mappers/drivertest checks any driver.
package mappers

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

// Driver speaks one protocol. It is safe for concurrent use.
type Driver interface {
	// Info says who the driver is and what it accepts.
	Info() Info
	// Open compiles a device's connection and addresses into something ready to
	// read and write. It does not reach for the device: connecting is done by
	// the first Read or Write, again after every loss, and failing to is their
	// error. Open's own errors are about the configuration; a *models.Error with
	// pointers into the Device ("/spec/connection/…",
	// "/spec/properties/{name}/address/…") is shown to the user as it is.
	Open(cfg DeviceConfig) (Device, error)
}

// Info describes a driver. It becomes the hub's Mapper object.
type Info struct {
	Name        string          // the protocol, as DeviceModel.spec.protocol names it
	Version     string          // the driver's own
	Description string          // a line for people; may be empty
	Connection  json.RawMessage // JSON Schema (2020-12) of Device.spec.connection
	Address     json.RawMessage // JSON Schema (2020-12) of a property's address
	// Property is a JSON Schema (2020-12) of a property as a whole, or nil. It says
	// how the address must fit the rest: see models.MapperSpec.
	Property json.RawMessage
}

// DeviceConfig is what a driver gets to know of a device.
type DeviceConfig struct {
	Name       string // for logs
	Connection json.RawMessage
	Points     []Point // one per property, in the model's order
	// Secrets are what the connection's fields refer to that have a name ending in
	// "From" and say {"secret": …, "key": …}, by field. The device is opened when
	// all are there, and anew when one changes.
	Secrets map[string]Secret
	// DataDir is where the driver may keep files of its own, such as its
	// certificate, for all its devices. It need not exist yet; "" is nowhere.
	DataDir string
	Log     *slog.Logger
}

// Secret is a value that does not print. It must not get into errors, logs or
// files.
type Secret struct{ value string }

// NewSecret returns a Secret of a value.
func NewSecret(value []byte) Secret { return Secret{string(value)} }

// Reveal returns the value.
func (s Secret) Reveal() string { return s.value }

// String hides the value.
func (Secret) String() string { return "(secret)" }

// GoString hides the value.
func (Secret) GoString() string { return "(secret)" }

// LogValue hides the value.
func (Secret) LogValue() slog.Value { return slog.StringValue("(secret)") }

// Point is one property as a driver sees it.
type Point struct {
	Property string
	Type     models.Type // the values that Read must give and Write gets
	Access   models.Access
	// Every is how often the point is to be read by a device that does so by
	// itself (Reporter); 0 is when asked only. Others need not look at it.
	Every   time.Duration
	Address json.RawMessage
}

// Device is one open device. The Runner calls Read and Write from one
// goroutine, never two at once, and Close once, after they have returned. Two devices
// on one line may be used at the same time; sharing the line is the driver's
// business.
type Device interface {
	// Read reads the points with the given indices (into DeviceConfig.Points)
	// and stores what it found in out[i] for points[i]; len(out) == len(points).
	// It returns an error only when the device as a whole could not be read
	// (see Fail): out then counts for nothing. One bad point is that point's
	// bad quality, not an error. It returns soon after ctx ends.
	Read(ctx context.Context, points []int, out []Result) error
	// Write writes one value after the other and returns an error or nil for
	// each; a nil slice means that all succeeded. A value already fits the
	// point's type. It does not repeat a write that may have reached the device.
	Write(ctx context.Context, writes []WriteRequest) []error
	// Close gives up the connection. It does not wait for the device.
	Close() error
}

// Result is what Read found for one point. The zero time means now.
type Result struct {
	Value   models.Value
	Quality models.Quality
	Reason  models.Reason
	Time    time.Time // the device's own, where the protocol has one
	// Err says for people why the value is bad: which address, what the device
	// said, what to do. It may be nil, and holds no secrets. It stands in the
	// device's condition, not with the value.
	Err error
}

// WriteRequest is one value for one point.
type WriteRequest struct {
	Point int // index into DeviceConfig.Points
	Value models.Value
}

// Canonicalizer is a Device that can say what a value will be once the device
// has stored it (rounded to a float32, to a scaled int16). The Runner asks it
// before a write, to refuse what cannot be held, and again to compare what was
// read back; without it, values are compared as they are.
type Canonicalizer interface {
	// Canonical returns v as Read would return it after v was written, or an
	// error when the point cannot hold v. It does not ask the device; where that
	// takes something not known yet, it returns v. It is called from the
	// goroutine that calls Read and Write.
	Canonical(point int, v models.Value) (models.Value, error)
}

// Planner is a Device that can show the requests it would send for one Read of
// these points. Plan may be called at any time from any goroutine, and does not
// wait for the device.
type Planner interface {
	Plan(points []int) []models.ReadRequest
}

// LineSharer is a Device that may share its line with others: devices with the
// same non-empty Line wait for each other.
type LineSharer interface {
	Line() string
}

// Subscriber is a Device that tells of changes unasked.
type Subscriber interface {
	// Subscribes reports whether Subscribe can deliver the point. The Runner
	// polls the points for which it cannot. The answer does not change.
	Subscribes(point int) bool
	// Subscribe delivers the points' present values, then their changes, until
	// ctx ends or the subscription is lost, and returns why. It must notice a
	// device that falls silent: as long as it has not returned, the values
	// count as fresh. A point that the device will not subscribe to is
	// delivered as bad. It runs beside Read and Write, in a goroutine of its
	// own, and is called again, with back-off, after it returned. deliver is
	// called from one goroutine and may block; points and results are the
	// callee's to keep.
	Subscribe(ctx context.Context, points []Subscription, deliver func(points []int, results []Result)) error
}

// Subscription is one point to subscribe to.
type Subscription struct {
	Point    int
	Every    time.Duration // the sampling interval asked for
	Deadband float64       // 0: every change
}

// Browser is a Driver that can list what a device offers.
type Browser interface {
	// Browse connects to a device, looks around in it, and calls found with what
	// it offers, in an order that people expect; where it stops before the end it
	// says so in a Found without a path. cfg has no points. It ends soon after ctx
	// does, and with the error of found. It keeps no connection.
	Browse(ctx context.Context, cfg DeviceConfig, found func(models.Found) error) error
}

// Failure is why a device, or one point or write of it, failed.
type Failure struct {
	Reason  models.Reason // timeout, not-connected, device-error, protocol-error, configuration, …
	Refused bool          // the device answered, and said no: repeating will not help
	Unsent  bool          // nothing has reached the device: repeating is safe
	Err     error
}

// Error is the reason and the cause. Where the cause begins with the reason, as
// "modbus: not connected: …" does, that is not said twice.
func (f *Failure) Error() string {
	cause, words := f.Err.Error(), strings.ReplaceAll(string(f.Reason), "-", " ")+": "
	if protocol, rest, ok := strings.Cut(cause, ": "); ok && !strings.Contains(protocol, " ") && strings.HasPrefix(rest, words) {
		cause = strings.TrimPrefix(rest, words)
	}
	return string(f.Reason) + ": " + cause
}

// Unwrap returns the cause.
func (f *Failure) Unwrap() error { return f.Err }

// Fail returns a Failure with this reason.
func Fail(reason models.Reason, err error) *Failure { return &Failure{Reason: reason, Err: err} }

// FailureOf returns the first Failure in err's chain; an error without one
// counts as a timeout when it is a deadline's and as a protocol error otherwise.
func FailureOf(err error) *Failure {
	var f *Failure
	switch {
	case errors.As(err, &f):
		return f
	case errors.Is(err, context.DeadlineExceeded):
		return Fail(models.ReasonTimeout, err)
	}
	return Fail(models.ReasonProtocolError, err)
}
