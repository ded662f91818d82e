// Package store says what the hub keeps and what a store of it promises. Two
// packages keep the promises, postgres and sqlite, and one suite, storetest,
// checks both. The interfaces here are grouped by who uses them; a store
// implements them all (Store).
//
// Errors: ErrNotFound and ErrConflict where a method says so; anything else is
// the engine's. Every method is safe for concurrent use. Byte slices given are
// the caller's again after the call, those returned are the caller's.
package store

import (
	"context"
	"errors"
	"time"
)

// Errors that methods name.
var (
	ErrNotFound = errors.New("store: not found")
	ErrConflict = errors.New("store: conflict")
)

// Store is everything.
type Store interface {
	Meta
	Objects
	Twins
	Log
	History
	Audit
	Events
	Writes
	Lives
	Idempotency
	Routes
	Pods
	Close() error
}

// Meta holds single values: the lineage, sealed keys.
type Meta interface {
	// Lineage returns the database's own id, made when its schema was.
	Lineage(ctx context.Context) (string, error)
	// Date returns what SetDate stored last, the zero Date if nothing, to the
	// microsecond.
	Date(ctx context.Context) (Date, error)
	SetDate(ctx context.Context, d Date) error
	// Versions returns what SetVersions stored last, the zero Versions if nothing.
	Versions(ctx context.Context) (Versions, error)
	// SetVersions stores it durably.
	SetVersions(ctx context.Context, v Versions) error
}

// Versions is from where the versions of twins count on; see package twins.
type Versions struct {
	Era  int64
	Open bool // a life of the hub has begun whose end was not noted
}

// Date is how late it is believed to be for what is deleted because it is old; see
// package calendar.
type Date struct {
	Time    time.Time
	Doubted time.Duration // for how long the hub's clock has been further ahead; 0: it is not
}

// Object is one stored object. JSON holds apiVersion, kind, metadata (name,
// namespace, labels, annotations) and spec; the rest of metadata is here.
type Object struct {
	Kind, Namespace, Name string
	UID                   string
	Revision              int64 // of its last change
	Generation            int64
	Assignment            int64 // of a device: counts its moves between nodes
	Created               time.Time
	JSON                  []byte
}

// Desired is the stored desired values of one device: twin.Desired as JSON.
type Desired struct {
	DeviceUID string
	Revision  int64
	JSON      []byte
}

// Commit is a group of changes with consecutive revisions.
type Commit struct {
	Revision       int64     // the highest in the group; the store's revision afterwards
	Put            []Object  // inserted or replaced, by kind, namespace and name
	Delete         []Object  // only Kind, Namespace, Name and UID count
	PutDesired     []Desired // inserted or replaced, by device
	DeletedDevices []string  // uids whose desired values and twin go
	Audit          []AuditEntry
	Events         []Event    // as by AddEvents
	Writes         []Write    // added to the ledger, or Write.Fill where they are there
	WriteEnds      []WriteEnd // after Writes, by Write.End; of what is not there they mean nothing
	Assigned       []Assignment
	Gone           []DeletedDevice
}

// Objects is what the registry needs. It has one writer at a time, the
// sequencer, which holds everything in memory.
type Objects interface {
	// Load calls object for every object and desired for every device's desired
	// values, in any order, and returns the store's revision.
	Load(ctx context.Context, object func(Object) error, desired func(Desired) error) (revision int64, err error)
	// Commit applies the group atomically and durably, or not at all.
	// Commit.Revision must be above the store's, else ErrConflict: someone else
	// writes to this database.
	Commit(ctx context.Context, c Commit) error
}

// Checkpoint is a device's shadow as it was: twin.Shadow as JSON.
type Checkpoint struct {
	DeviceUID string
	JSON      []byte
}

// Twins is what the twin cache needs.
type Twins interface {
	LoadTwins(ctx context.Context, f func(Checkpoint) error) error
	// SaveTwins inserts or replaces. Checkpoints of devices whose Delete was
	// committed may be left behind or dropped.
	SaveTwins(ctx context.Context, c []Checkpoint) error
}

// Epoch is what the hub knows of one epoch of a node's log.
type Epoch struct {
	NodeUID string
	ID      string
	Rank    uint64 // 1, 2, 3… in the order in which the hub first met the node's epochs
	Acked   uint64 // every record up to here is committed
	Started time.Time
}

// SeriesKey names a series: one property of one device while one node serves it.
type SeriesKey struct {
	DeviceUID  string
	Assignment uint64
	Property   string
}

// Samples is a run of samples by columns; every slice has one entry per sample. All
// but the first three may be nil: all zero.
type Samples struct {
	Series  []int64   // ids from SeriesIDs
	TimeUS  []int64   // microseconds since 1970, any int64
	Kind    []uint8   // models.Kind
	Int     []int64   // of kinds bool and int; of kind uint its bits; else 0
	Float   []float64 // of kind float; else 0
	Text    []string  // of kinds string, bytes and JSON; else ""
	Quality []uint8
	Reason  []string
}

// Len returns how many samples there are.
func (s *Samples) Len() int { return len(s.Series) }

// At returns the i-th sample.
func (s *Samples) At(i int) Sample {
	return Sample{TimeUS: s.TimeUS[i], Kind: s.Kind[i], Int: at(s.Int, i), Float: at(s.Float, i), Text: at(s.Text, i),
		Quality: at(s.Quality, i), Reason: at(s.Reason, i)}
}

func at[T any](column []T, i int) (v T) {
	if column == nil {
		return v
	}
	return column[i]
}

// Batch is what one ingest transaction takes over from one epoch of a node.
type Batch struct {
	NodeUID  string
	Epoch    string
	After    uint64    // the acknowledged seq that it continues
	Acked    uint64    // the epoch's new acknowledged seq, above After
	Received time.Time // by the hub's clock
	Backfill bool      // the samples were made while there was no link
	Samples  Samples
	Gaps     []Gap
	Events   []Event        // as by AddEvents
	Writes   []Write        // as of a Commit
	Ends     []WriteEnd     // as of a Commit
	Outcomes []WriteOutcome // after both, by Write.Settle
	Served   []Served       // by the batch's node
}

// Gap says that samples of a node are missing and why.
type Gap struct {
	NodeUID           string
	Reason            string
	Epoch             string
	FirstSeq, LastSeq uint64
	Samples           uint64    // 0 when unknown
	From, To          time.Time // zero when unknown
	Recorded          time.Time
}

// Sample is one sample of one series, read back.
type Sample struct {
	TimeUS   int64
	Kind     uint8
	Int      int64
	Float    float64
	Text     string
	Quality  uint8
	Reason   string
	Backfill bool
}

// Log is what ingest and sessions need.
type Log interface {
	// Epochs returns what is known of a node's log, by rank.
	Epochs(ctx context.Context, nodeUID string) ([]Epoch, error)
	// StartEpoch makes an epoch known with the next rank, or returns it when it is.
	StartEpoch(ctx context.Context, nodeUID, epoch string, now time.Time) (Epoch, error)
	// SeriesIDs returns the id of each series, making those that are new.
	SeriesIDs(ctx context.Context, keys []SeriesKey) ([]int64, error)
	// Ingest commits the batches durably, all that is in them and acknowledged
	// numbers in one transaction. A batch whose After is not the epoch's acknowledged seq
	// is ErrConflict and nothing is stored: someone else ingests this node's log,
	// or an attempt that seemed to fail has been committed.
	Ingest(ctx context.Context, batches []Batch) error
	// AddGaps stores gap records that come with no batch.
	AddGaps(ctx context.Context, gaps []Gap) error
	// Gaps calls f for every gap record of a node, oldest first.
	Gaps(ctx context.Context, nodeUID string, f func(Gap) error) error
}

// History is what is kept of the log for reading.
type History interface {
	// Samples calls f for every sample of a device's property over all of its
	// assignments with from <= time < to (microseconds), ordered by time; samples
	// of one time by assignment, and those of one assignment in the order they
	// came. It reads one moment's state of the store. An error of f ends it and is
	// returned; so a caller who wants only the first few is served quickly.
	Samples(ctx context.Context, deviceUID, property string, fromUS, toUS int64, f func(Sample) error) error
	// LastSamples returns the sample that Samples would return last of those up to
	// atUS, inclusive, for each of a device's properties that has one.
	LastSamples(ctx context.Context, deviceUID string, properties []string, atUS int64) (map[string]Sample, error)
	// LastSince is LastSamples for several devices, by device and property. A sample
	// that is not later than since says for its device and property may be absent.
	LastSince(ctx context.Context, since map[string]map[string]int64, atUS int64) (map[string]map[string]Sample, error)
	// Rollups is as Samples, but for samples that follow each other and are of one
	// bucket of stepUS microseconds it may call rollup once, with what they come to;
	// samples without a value are always told one by one. So it is far quicker where
	// the step is a multiple of a minute and there are many samples in it. What
	// rollup is given is good until it returns.
	Rollups(ctx context.Context, deviceUID, property string, fromUS, toUS, stepUS int64, sample func(Sample) error, rollup func(*Rollup) error) error
	// Compact does some of the work that keeps history small and quick to read,
	// and reports whether there is more to do now. What Samples returns is the same
	// before and after, and what Rollups does comes to the same. It is called every few seconds.
	Compact(ctx context.Context, now time.Time) (more bool, err error)
	// Expire deletes samples that are older than the rules say, sooner or later:
	// some may stay for up to a week and a little longer. Devices without a rule
	// keep everything.
	Expire(ctx context.Context, rules []Retention, now time.Time) error
}

// Retention is how long one device's history is kept.
type Retention struct {
	DeviceUID string
	BeforeUS  int64 // samples from then on stay
	Keep      int64 // and so do at least this many of each property, the latest
}

// AuditEntry says who changed what.
type AuditEntry struct {
	ID                         int64 // given by the store, in the order of entries
	Time                       time.Time
	By                         string // user; "" for the hub itself
	Action                     string
	Kind, Namespace, Name, UID string
	Revision                   int64
	Fields                     string // what a change changed: JSON Pointers, one a line
	Detail                     string // JSON of what it was, where that is no change
}

// AuditQuery chooses entries of the audit. The zero value is all.
type AuditQuery struct {
	By, Action, Kind, Namespace, Name, UID string
	Since                                  time.Time
}

// Match reports whether an entry is chosen.
func (q AuditQuery) Match(e AuditEntry) bool {
	is := func(asked, has string) bool { return asked == "" || asked == has }
	return is(q.By, e.By) && is(q.Action, e.Action) && is(q.Kind, e.Kind) && is(q.Namespace, e.Namespace) && is(q.Name, e.Name) && is(q.UID, e.UID) &&
		!e.Time.Before(q.Since)
}

// The actions of the audit.
const (
	AuditCreated = "created"
	AuditChanged = "changed"
	AuditDeleted = "deleted"
	AuditJoined  = "joined"  // a node, for the first time or with another key
	AuditRenewed = "renewed" // a node's certificate
	// A command in a pod; Detail is a models.ExecRecord.
	AuditExec      = "exec" // before it starts
	AuditExecEnded = "exec-ended"
)

// Audit is the record of who changed what. It is only added to.
type Audit interface {
	// AppendAudit adds entries for what is not part of a Commit.
	AppendAudit(ctx context.Context, entries []AuditEntry) error
	// AuditPage returns at most limit of the entries that are chosen, newest first:
	// those whose ids are below before, or all when it is 0.
	AuditPage(ctx context.Context, q AuditQuery, before int64, limit int) ([]AuditEntry, error)
	// AuditAfter returns at most limit entries whose ids are above after, in the
	// order of ids, which is that of commits: whoever asks again from the last one
	// misses none.
	AuditAfter(ctx context.Context, after int64, limit int) ([]AuditEntry, error)
}

// Idempotency keeps answers by key.
type Idempotency interface {
	// ReserveKey stores a key without an answer. When it is there and not older
	// than maxAge it returns what is stored and ErrConflict.
	ReserveKey(ctx context.Context, caller, key, fingerprint string, now time.Time, maxAge time.Duration) (IdempotentAnswer, error)
	// AnswerKey stores the answer of a reserved key, or removes the key when
	// a.Status is 0.
	AnswerKey(ctx context.Context, caller, key string, a IdempotentAnswer) error
}

// IdempotentAnswer is a stored answer; Status 0 while the request runs.
type IdempotentAnswer struct {
	Fingerprint string
	Status      int
	Head        string // its headers, in whoever answers' own form; the column is called etag
	Body        []byte
}
