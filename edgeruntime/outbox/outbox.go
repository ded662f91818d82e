package outbox

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

// Defaults of Config.
const (
	DefaultMaxBytes = 1 << 30
	DefaultLinger   = 50 * time.Millisecond
	DefaultFsync    = time.Second
)

// Errors that callers tell apart.
var (
	// ErrClosed: Run has ended or Close was called; nothing was taken.
	ErrClosed = errors.New("outbox is closed")
	// ErrTooLarge: an entry does not fit a record; nothing was taken. Splitting it helps.
	ErrTooLarge = errors.New("entry is too large for one record")
	// ErrNotStored: the disk did not take a record. Its samples are dropped,
	// counted and will be told of in a gap; whoever needs its events to arrive
	// appends them again.
	ErrNotStored = errors.New("not stored in the outbox")
	// ErrDiskFull is an ErrNotStored for want of space.
	ErrDiskFull = errors.New("disk is full")
	// ErrUnknownSeq: an acknowledgement of a record that was never given out.
	ErrUnknownSeq = errors.New("acknowledged seq was never given out")
)

// Config says where an outbox is and what bounds it. Path, Log and Now are required.
type Config struct {
	Path     string        // the SQLite file
	MaxBytes int64         // of waiting records; the oldest are dropped beyond it. 0: DefaultMaxBytes
	MaxAge   time.Duration // of waiting records, in time that the edge was running. 0: any
	Linger   time.Duration // how long an entry may wait for company in its record. 0: DefaultLinger
	Fsync    time.Duration // how much a power loss may take. 0: DefaultFsync; negative: nothing, every record is synced
	Log      *slog.Logger
	Now      func() time.Time
}

// Entry is what one device has to say at once. It goes into one record whole.
type Entry struct {
	Device  edgelink.DeviceRef
	Samples []Sample
	Writes  []edgelink.WriteEvent   // Append fills in their Device
	Locals  []edgelink.LocalDesired // Append fills in their Device
	States  []edgelink.StateEvent   // Append fills in their Device
	Gaps    []edgelink.Gap          // what the link found missing; no device's
	Urgent  bool                    // do not linger
}

// Sample is one observation of one property.
type Sample struct {
	Property string
	models.Sample
}

// Cursor is a place in the log: after the record with this seq. The zero Cursor
// is before the oldest record.
type Cursor struct{ Seq uint64 }

// Record is one record of the log as it goes to the hub.
type Record struct {
	Epoch   string
	Seq     uint64
	Data    []byte // an edgelink record, the caller's to keep
	Samples int
	Created time.Time
}

// Cursor returns the place after r.
func (r Record) Cursor() Cursor { return Cursor{Seq: r.Seq} }

// Stats is how an outbox is doing. Dropped counts samples, over the life of the file.
type Stats struct {
	models.OutboxState
	DroppedBy map[string]uint64 // gap reason to samples, since Open
	Oldest    time.Time         // when the oldest waiting record was made; zero when none waits
	Failing   error             // why the last record could not be stored; nil when it could
}

// Outbox is an open log. All methods are safe for concurrent use.
type Outbox struct{}

// Open opens the log at cfg.Path, or makes it, and begins a new epoch. The
// caller runs Run and calls Close after Run has returned.
func Open(ctx context.Context, cfg Config) (*Outbox, error) { return nil, ErrClosed }

// Run is the one loop that writes: it stores what Append took, forgets what Ack
// acknowledged, syncs and keeps the bounds. A disk that fails does not end it.
// When ctx ends it stores what was accepted and returns nil.
func (o *Outbox) Run(ctx context.Context) error { return ErrClosed }

// Close closes the file. Entries that no Run has stored get ErrClosed.
func (o *Outbox) Close() error { return nil }

// Append puts an entry into the log. It returns as soon as the entry is
// accepted, and blocks while too much is waiting to be stored, until ctx ends.
// The entry is the caller's again when Append returns.
//
// done, unless nil, is called exactly once for each entry that Append accepted
// (returned nil for), from Run's goroutine, which it must not block: with the seq
// of the record the entry is in once that survives a kill of the process, or
// with an error that wraps ErrNotStored. Calls come in the order of acceptance.
func (o *Outbox) Append(ctx context.Context, e Entry, done func(seq uint64, err error)) error {
	return ErrClosed
}

// Next returns unacknowledged records after from, in order and across epochs,
// up to maxBytes of them but at least one. It blocks until there is one or ctx
// ends. It returns the same ones again for the same cursor until they are
// acknowledged; seqs may jump where records were dropped.
func (o *Outbox) Next(ctx context.Context, from Cursor, maxBytes int) ([]Record, error) {
	return nil, ErrClosed
}

// Ack forgets every record of the epoch up to and including seq. A late or
// repeated Ack does nothing, nor does one for an epoch that is gone. One beyond
// what the current epoch has given out is ErrUnknownSeq.
func (o *Outbox) Ack(epoch string, seq uint64) error { return nil }

// Epoch returns the current epoch's id.
func (o *Outbox) Epoch() string { return "" }

// Epochs returns the epochs that still hold unacknowledged records, oldest
// first, and the current one, last: what a hello says.
func (o *Outbox) Epochs() []*pb.Epoch { return nil }

// Stats returns how the outbox is doing.
func (o *Outbox) Stats() Stats { return Stats{} }
