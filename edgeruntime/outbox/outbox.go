package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
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

// MinMaxBytes is the smallest MaxBytes that leaves room to work in.
const MinMaxBytes = 64 << 10

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

// Stats is how an outbox is doing. Records and Bytes are what the file holds:
// acknowledged records leave it within the Fsync interval. Dropped counts
// samples, over the life of the file.
type Stats struct {
	models.OutboxState
	DroppedBy map[string]uint64 // gap reason to samples, since Open
	Oldest    time.Time         // when the oldest waiting record was made; zero when none waits
	Failing   error             // why the last record could not be stored; nil when it could
}

// Outbox is an open log. All methods are safe for concurrent use.
type Outbox struct {
	cfg    Config
	opened time.Time
	ranAt  time.Duration // how long the log had been open in former lives

	wake chan struct{} // one slot: Run has something to look at

	// Run's own.
	nextSeq  uint64
	spare    *batch
	buf      []byte
	roomMade time.Time            // last attempt to win space from the -wal file
	count    *lostFile            // of lost; nil when there was no space for it at the start
	broke    *damaged             // the file that was set aside while running, until there is a new one
	grumbled map[string]time.Time // what failed, and when that was logged last

	// files is held for reading while the file is used, and for writing while it
	// is exchanged or closed. It is taken before mu.
	files sync.RWMutex
	file  *file // nil after Close

	mu       sync.Mutex
	closed   bool
	running  bool
	filling  *batch
	room     chan struct{} // closed when filling is exchanged
	grown    chan struct{} // closed when a record is committed
	view     state         // the file's, as of its last commit
	acked    map[string]uint64
	damaged  map[uint64]bool    // records to set aside
	broken   bool               // the whole file is to be set aside
	wantGaps bool               // somebody reads: gaps may become records
	lost     edgelink.Gap       // what could not be stored since the last success
	before   [len(causes)]int64 // dropped from files that were set aside
	failing  error
}

// batch is a record in the making and who waits for it.
type batch struct {
	build  edgelink.Builder
	done   []func(seq uint64, err error)
	urgent bool
	begun  time.Time // when its first entry came
}

// Bounds of a record. An entry is taken whole, so that a record may grow to
// softRecord and one entry.
const (
	softRecord = 256 << 10
	maxEntry   = 2 << 20
)

// Open opens the log at cfg.Path, or makes it, and begins a new epoch. The
// caller runs Run and calls Close after Run has returned.
//
// A file that is no sound database is set aside (".corrupt" is added to its
// name) and a new one begun with what can still be read of it, and a gap that says
// what cannot.
func Open(ctx context.Context, cfg Config) (*Outbox, error) {
	if cfg.Path == "" || cfg.Log == nil || cfg.Now == nil {
		return nil, errors.New("open outbox: Path, Log and Now are required")
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = DefaultMaxBytes
	}
	if cfg.MaxBytes < MinMaxBytes {
		return nil, fmt.Errorf("open outbox: MaxBytes %d is less than %d", cfg.MaxBytes, MinMaxBytes)
	}
	if cfg.MaxAge < 0 || cfg.Linger < 0 {
		return nil, errors.New("open outbox: MaxAge and Linger must not be negative")
	}
	if cfg.Linger == 0 {
		cfg.Linger = DefaultLinger
	}
	if cfg.Fsync == 0 {
		cfg.Fsync = DefaultFsync
	}
	now := cfg.Now()
	o := &Outbox{
		cfg: cfg, opened: now,
		wake:  make(chan struct{}, 1),
		spare: new(batch), filling: new(batch),
		room: make(chan struct{}), grown: make(chan struct{}),
		acked: map[string]uint64{}, damaged: map[uint64]bool{}, grumbled: map[string]time.Time{},
	}
	aside := damaged{path: cfg.Path + asideSuffix}
	var err error
	if !exists(cfg.Path) && exists(aside.path) {
		// A former life has set it aside and did not come to the end of the rest.
		err = restore(ctx, cfg.Path, aside, now)
	}
	var f *file
	if err == nil {
		f, err = openFile(ctx, cfg.Path, cfg.Fsync < 0, now, epoch{})
	}
	if corrupt(err) {
		cfg.Log.Error("the outbox is damaged: it is set aside, and what can be read of it is taken over", "path", cfg.Path, "err", err)
		if err = setAsideFile(cfg.Path); err == nil {
			err = restore(ctx, cfg.Path, aside, now)
		}
		if err == nil {
			f, err = openFile(ctx, cfg.Path, cfg.Fsync < 0, now, epoch{})
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open outbox: %w", err)
	}
	if o.ranAt, err = f.ran(); err != nil {
		f.close()
		return nil, fmt.Errorf("open outbox: %w", err)
	}
	if o.count, o.lost, err = openLost(cfg.Path+".lost", f.state.last); err != nil {
		cfg.Log.Warn("outbox: should the disk be full and the process be killed, nobody will know how much was lost", "err", err)
	}
	o.use(f)
	return o, nil
}

// use takes over a file that has just been opened.
func (o *Outbox) use(f *file) {
	o.file = f
	o.nextSeq = f.state.last + 1
	o.view = f.state
	for _, e := range f.state.epochs {
		o.acked[e.id] = e.acked
	}
}

// Close closes the file. Entries that no Run has stored get ErrClosed.
func (o *Outbox) Close() error {
	o.mu.Lock()
	pending := o.shutLocked()
	o.mu.Unlock()
	for _, done := range pending.done {
		done(0, ErrClosed)
	}
	o.files.Lock()
	defer o.files.Unlock()
	if o.file == nil {
		return nil
	}
	err := errors.Join(o.file.close(), o.count.close())
	o.file = nil
	if err != nil {
		return fmt.Errorf("close outbox: %w", err)
	}
	return nil
}

// shutLocked lets nothing in any more, wakes everybody who waits, and returns what
// was accepted.
func (o *Outbox) shutLocked() *batch {
	pending := o.filling
	o.filling = new(batch)
	if !o.closed {
		o.closed = true
		close(o.room)
		close(o.grown)
	}
	return pending
}

// Append puts an entry into the log. It returns as soon as the entry is
// accepted, and blocks while too much is waiting to be stored, until ctx ends.
// The entry is the caller's again when Append returns.
//
// done, unless nil, is called exactly once for each entry that Append accepted
// (returned nil for), from Run's goroutine, which it must not block: with the seq
// of the record the entry is in once that survives a kill of the process, or
// with an error that wraps ErrNotStored. Calls come in the order of acceptance.
func (o *Outbox) Append(ctx context.Context, e Entry, done func(seq uint64, err error)) error {
	size, err := sizeOf(&e)
	if err != nil {
		return fmt.Errorf("append to outbox: %w", err)
	}
	o.mu.Lock()
	for {
		if o.closed {
			o.mu.Unlock()
			return fmt.Errorf("append to outbox: %w", ErrClosed)
		}
		if b := o.filling; b.begun.IsZero() || b.build.Size()+size <= softRecord {
			break
		}
		room := o.room
		o.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return fmt.Errorf("append to outbox: %w", context.Cause(ctx))
		}
		o.mu.Lock()
	}
	b := o.filling
	first := b.begun.IsZero()
	if first {
		b.begun = time.Now() // for the linger only, which is real time
	}
	b.add(&e)
	if done != nil {
		b.done = append(b.done, done)
	}
	wake := first || e.Urgent && !b.urgent || b.build.Size() >= softRecord/2
	b.urgent = b.urgent || e.Urgent
	o.mu.Unlock()
	if wake {
		o.nudge()
	}
	return nil
}

// nudge makes Run look; one that is not looking yet will see everything at once.
func (o *Outbox) nudge() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

func (b *batch) add(e *Entry) {
	for i := range e.Samples {
		b.build.AddSample(e.Device, e.Samples[i].Property, e.Samples[i].Sample)
	}
	for _, w := range e.Writes {
		w.Device = e.Device
		b.build.AddWrite(w)
	}
	for _, l := range e.Locals {
		l.Device = e.Device
		b.build.AddLocal(l)
	}
	for _, s := range e.States {
		s.Device = e.Device
		b.build.AddState(s)
	}
	for _, g := range e.Gaps {
		b.build.AddGap(g)
	}
}

// sizeOf returns at most how many bytes the entry takes in a record, or why it
// can be in none.
func sizeOf(e *Entry) (int, error) {
	const (
		sample = 96 // numbers, tags and a series of its own
		event  = 96
	)
	size := len(e.Device.UID) + 16
	if e.Device.UID == "" && len(e.Samples)+len(e.Writes)+len(e.Locals)+len(e.States) > 0 {
		return 0, errors.New("entry without a device")
	}
	for i := range e.Samples {
		s := &e.Samples[i]
		if s.Property == "" {
			return 0, errors.New("sample without a property")
		}
		_, _, text := s.Value.Raw()
		size += sample + len(s.Property) + len(s.Reason) + len(text)
	}
	for _, w := range e.Writes {
		size += event + len(w.Property) + len(w.ID) + len(w.State) + len(w.Error)
		if w.Asked != nil {
			size += event + sizeOfLocal(w.Asked)
		}
	}
	for i := range e.Locals {
		size += event + sizeOfLocal(&e.Locals[i])
	}
	for _, s := range e.States {
		size += event + len(s.State) + len(s.Reason) + len(s.Message)
	}
	for _, g := range e.Gaps {
		size += event + len(g.Reason) + len(g.Epoch)
	}
	if size > maxEntry {
		return 0, ErrTooLarge
	}
	return size, nil
}

func sizeOfLocal(l *edgelink.LocalDesired) int {
	_, _, value := l.Value.Raw()
	size := len(l.Property) + len(l.ID) + len(l.By) + len(l.After) + len(l.Reason) + len(l.Origin) + len(value)
	if l.Before != nil {
		_, _, before := l.Before.Value.Raw()
		size += len(before) + len(l.Before.Reason)
	}
	return size
}

// Next returns unacknowledged records after from, in order and across epochs,
// up to maxBytes of them but at least one. It blocks until there is one or ctx
// ends; when ctx has ended already, it returns what is there. It returns the same
// ones again for the same cursor until they are acknowledged; seqs may jump
// where records were dropped.
func (o *Outbox) Next(ctx context.Context, from Cursor, maxBytes int) ([]Record, error) {
	for {
		o.mu.Lock()
		grown, closed := o.grown, o.closed
		view, acked := o.view, maps.Clone(o.acked)
		if len(view.gaps) > 0 && !o.wantGaps && !closed {
			o.wantGaps = true
			o.nudge()
		}
		o.mu.Unlock()

		from.Seq = max(from.Seq, view.floor)
		records, at, err := o.read(from.Seq, maxBytes, &view, acked)
		if err != nil {
			return nil, fmt.Errorf("read outbox: %w", err)
		}
		if len(records) > 0 {
			return records, nil
		}
		if at > from.Seq {
			from.Seq = at // all acknowledged or damaged so far
			continue
		}
		if closed {
			return nil, fmt.Errorf("read outbox: %w", ErrClosed)
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return nil, fmt.Errorf("read outbox: %w", context.Cause(ctx))
		}
	}
}

func (o *Outbox) read(after uint64, maxBytes int, view *state, acked map[string]uint64) ([]Record, uint64, error) {
	o.files.RLock()
	defer o.files.RUnlock()
	if o.file == nil {
		return nil, after, ErrClosed
	}
	records, damaged, at, err := o.file.read(after, view.last, maxBytes, func(seq uint64) (string, bool) {
		e := owner(view.epochs, seq)
		if e == nil || seq <= acked[e.id] {
			return "", false
		}
		return e.id, true
	})
	if len(damaged) > 0 || corrupt(err) {
		o.mu.Lock()
		for _, seq := range damaged {
			o.damaged[seq] = true
		}
		o.broken = o.broken || corrupt(err)
		o.mu.Unlock()
		o.nudge()
	}
	return records, at, err
}

// Ack forgets every record of the epoch up to and including seq. A late or
// repeated Ack does nothing, nor does one for an epoch that is gone. One beyond
// what the current epoch has given out is ErrUnknownSeq and acknowledges nothing.
func (o *Outbox) Ack(epoch string, seq uint64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range o.view.epochs {
		e := &o.view.epochs[i]
		if e.id != epoch {
			continue
		}
		if seq > e.last {
			// A former epoch may have been longer than this copy of the log knows.
			if i == len(o.view.epochs)-1 {
				return fmt.Errorf("ack %s %d of %d: %w", epoch, seq, e.last, ErrUnknownSeq)
			}
			seq = e.last
		}
		if seq > o.acked[epoch] {
			o.acked[epoch] = seq
			o.nudge()
		}
		return nil
	}
	return nil
}

// Epoch returns the current epoch's id.
func (o *Outbox) Epoch() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.view.current().id
}

// Epochs returns the epochs that still hold unacknowledged records, oldest
// first, and the current one, last: what a hello says.
func (o *Outbox) Epochs() []*pb.Epoch {
	o.mu.Lock()
	view, acked := o.view, maps.Clone(o.acked)
	o.mu.Unlock()
	o.files.RLock()
	defer o.files.RUnlock()
	var all []*pb.Epoch
	for i, e := range view.epochs {
		p := &pb.Epoch{Id: e.id, Parent: e.parent, ParentLast: e.parentLast, Acked: acked[e.id]}
		if e.last > e.parentLast {
			p.Last = e.last
		}
		if o.file != nil {
			first, _, err := o.file.oldest(max(e.parentLast, acked[e.id], view.floor), e.last)
			if err != nil {
				o.cfg.Log.Warn("cannot tell the oldest record of an epoch", "epoch", e.id, "err", err)
				first = min(max(e.parentLast, acked[e.id], view.floor)+1, p.Last)
			}
			p.First = first
		}
		if p.First != 0 || i == len(view.epochs)-1 {
			all = append(all, p)
		}
	}
	return all
}

// Stats returns how the outbox is doing.
func (o *Outbox) Stats() Stats {
	o.mu.Lock()
	current := o.view.current()
	s := Stats{
		OutboxState: models.OutboxState{
			Epoch: current.id, LastSeq: o.view.last, AckedSeq: o.acked[current.id],
			Records: uint64(max(o.view.records, 0)), Bytes: uint64(max(o.view.bytes, 0)),
			Dropped: uint64(max(o.view.dropped, 0)) + o.lost.Samples,
		},
		DroppedBy: map[string]uint64{},
		Failing:   o.failing,
	}
	for i, cause := range causes {
		s.DroppedBy[cause] = uint64(o.before[i] + o.view.by[i])
	}
	s.DroppedBy[edgelink.GapDiskFull] += o.lost.Samples
	after, last := o.headLocked(), o.view.last
	o.mu.Unlock()

	o.files.RLock()
	defer o.files.RUnlock()
	if o.file != nil {
		if _, created, err := o.file.oldest(after, last); err == nil {
			s.Oldest = created
		}
	}
	return s
}

// headLocked returns the seq up to which every record is acknowledged or gone.
func (o *Outbox) headLocked() uint64 {
	s := o.view
	s.epochs = slices.Clone(s.epochs)
	for i := range s.epochs {
		e := &s.epochs[i]
		e.acked = max(e.acked, o.acked[e.id])
	}
	return trimmable(&s)
}
