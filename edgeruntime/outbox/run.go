package outbox

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/whimbrel-edge/whimbrel/internal/failpoint"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
)

// trimAt is how many acknowledged records are worth a transaction before the
// next sync makes one anyway.
const trimAt = 512

// Run is the one loop that writes: it stores what Append took, forgets what Ack
// acknowledged, syncs and keeps the bounds. A disk that fails does not end it.
// When ctx ends it stores what was accepted and returns nil.
func (o *Outbox) Run(ctx context.Context) error {
	o.mu.Lock()
	if o.running || o.closed {
		o.mu.Unlock()
		return fmt.Errorf("run outbox: %w", errors.Join(ErrClosed, errors.New("it runs once")))
	}
	o.running = true
	o.mu.Unlock()

	every := o.cfg.Fsync
	if every < 0 {
		every = DefaultFsync // of the chores: records are synced one by one
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	linger := time.NewTimer(0)
	defer linger.Stop()
	again := time.NewTimer(0)
	defer again.Stop()
	rested, tidied := time.Now(), time.Now() // when the chores were last done, and when space may be given back again
	for {
		select {
		case <-ctx.Done():
			o.finish()
			return nil
		case <-o.wake:
		case <-linger.C:
		case <-again.C:
		case <-tick.C:
		}
		// By the clock and not by the tick: under load there is always something
		// else to select. For the same reason each round stores one record only.
		now := time.Now()
		chores := now.Sub(rested) >= every*9/10 // a tick may be a little early
		o.repair(chores)
		o.trim(chores)
		switch b, takeGaps, wait := o.due(); {
		case b == nil && wait > 0:
			linger.Reset(wait)
		case b == nil:
		case o.store(b, takeGaps):
			o.nudge() // there may be more
		default:
			linger.Reset(DefaultLinger)
		}
		if chores {
			o.chores()
			rested = now
		}
		if !now.Before(tidied) {
			pause := o.tidy()
			tidied = time.Now().Add(pause)
			if pause < every {
				again.Reset(pause)
			}
		}
	}
}

// finish stores what is there, so that a stop loses nothing, and lets nothing in
// any more.
func (o *Outbox) finish() {
	o.mu.Lock()
	pending := o.shutLocked()
	o.mu.Unlock()
	if !pending.begun.IsZero() {
		o.store(pending, false)
	}
	o.trim(true)
	o.chores()
	o.tidy()
}

// due returns the batch whose time has come, or how long the present one may
// still linger. takeGaps says that gaps become a record, or part of one.
func (o *Outbox) due() (b *batch, takeGaps bool, wait time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return nil, false, 0
	}
	takeGaps = o.wantGaps && len(o.view.gaps) > 0
	b = o.filling
	if !takeGaps {
		if b.begun.IsZero() {
			return nil, false, 0
		}
		waited := time.Since(b.begun)
		if !b.urgent && b.build.Size() < softRecord/2 && waited < o.cfg.Linger {
			return nil, false, o.cfg.Linger - waited
		}
	}
	o.filling, o.spare = o.spare, nil
	close(o.room)
	o.room = make(chan struct{})
	return b, takeGaps, 0
}

// store makes a record of a batch, tells who waits for it, and takes the batch
// back for further use. It reports whether the record was stored.
func (o *Outbox) store(b *batch, takeGaps bool) bool {
	now := o.cfg.Now()
	samples := uint64(b.build.Samples())
	from, to := b.build.Span()
	leaveGaps := func() {}
	if takeGaps {
		leaveGaps = b.build.AddGaps(o.view.gaps) // the file's: Run is the one who changes it
	}

	err := o.write(b, takeGaps, now)
	if corrupt(err) {
		o.mu.Lock()
		o.broken = true
		o.mu.Unlock()
		o.repair(true)
		leaveGaps() // the new file has them, among others
		takeGaps = false
		err = o.write(b, false, now)
	}
	if DiskFull(err) && now.Sub(o.roomMade).Abs() >= time.Second {
		// What fills the disk may be our own -wal file.
		o.roomMade = now
		if o.file.makeRoom() == nil {
			err = o.write(b, takeGaps, now)
		}
	}
	seq := o.nextSeq - 1
	failpoint.Here("outbox.stored")

	o.mu.Lock()
	before := o.lost.Samples
	if err != nil {
		seq = 0
		if samples > 0 {
			lost := []edgelink.Gap{o.lost}
			if o.lost.Samples == 0 {
				lost = nil
			}
			o.lost = mergeGap(lost, edgelink.Gap{Reason: edgelink.GapDiskFull, Samples: samples, From: from, To: to})[0]
		}
	} else {
		o.lost = edgelink.Gap{}
		if takeGaps {
			o.wantGaps = false
		}
	}
	lost := o.lost
	o.mu.Unlock()
	if lost.Samples != before {
		after := o.view.last // the last one that was stored, as long as none can be
		if err == nil {
			after = seq
		}
		if err := o.count.keep(after, lost); err != nil {
			o.grumble("keep count", err)
		}
	}
	if err != nil {
		if DiskFull(err) {
			err = fmt.Errorf("%w: %w: %w", ErrNotStored, ErrDiskFull, err)
		} else {
			err = fmt.Errorf("%w: %w", ErrNotStored, err)
		}
	}
	o.report(err)
	o.publish()
	for _, done := range b.done {
		done(seq, err)
	}

	b.build.Reset()
	clear(b.done)
	*b = batch{build: b.build, done: b.done[:0]}
	o.spare = b
	return err == nil
}

// write gives the batch the next seq and puts it into the file. A seq whose
// write failed is not used again: parts of it may be on the disk.
func (o *Outbox) write(b *batch, takeGaps bool, now time.Time) error {
	if o.file == nil {
		return errors.New("the file is damaged and cannot be made anew")
	}
	o.buf = b.build.AppendTo(o.buf[:0])
	from, to := b.build.Span()
	r := row{
		seq: o.nextSeq, samples: b.build.Samples(), gaps: b.build.Gaps(), created: now, ran: o.ran(),
		from: microseconds(from), to: microseconds(to), body: o.buf,
	}
	o.nextSeq++
	o.mu.Lock()
	lost := o.lost
	o.mu.Unlock()
	return o.file.append(r, takeGaps, lost, o.cfg.MaxBytes)
}

// ran returns how long the log has been open, over all its lives.
func (o *Outbox) ran() time.Duration { return o.ranAt + max(o.cfg.Now().Sub(o.opened), 0) }

// publish shows the file's state to the other methods and wakes who waits for
// records.
func (o *Outbox) publish() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.file == nil {
		return
	}
	o.view = o.file.state
	for id := range o.acked {
		if !o.view.has(id) {
			delete(o.acked, id)
		}
	}
	if !o.closed {
		close(o.grown)
		o.grown = make(chan struct{})
	}
}

func (s *state) has(epoch string) bool {
	for i := range s.epochs {
		if s.epochs[i].id == epoch {
			return true
		}
	}
	return false
}

// report keeps and logs the outcome of storing, once per change.
func (o *Outbox) report(err error) {
	o.mu.Lock()
	changed := (err == nil) != (o.failing == nil)
	o.failing = err
	o.mu.Unlock()
	switch {
	case !changed:
	case err != nil:
		o.cfg.Log.Error("the outbox cannot store records: samples are dropped", "path", o.cfg.Path, "err", err)
	default:
		o.cfg.Log.Info("the outbox stores records again", "path", o.cfg.Path)
	}
}

// trim forgets what was acknowledged, when it is much or now is the time.
func (o *Outbox) trim(now bool) {
	if o.file == nil {
		return
	}
	o.mu.Lock()
	waiting := o.headLocked() - o.file.state.floor
	acked := maps.Clone(o.acked)
	o.mu.Unlock()
	news := false
	for _, e := range o.file.state.epochs {
		news = news || acked[e.id] > e.acked
	}
	if waiting < trimAt && !(now && (news || waiting > 0)) {
		return
	}
	more, err := o.file.trim(acked, o.ran())
	if err != nil {
		o.grumble("forget acknowledged records", err)
		return
	}
	if more {
		o.nudge()
	}
	o.publish()
}

// repair sets aside what readers found damaged. When there is no file, because a
// new one could not be made, it tries again only if it may.
func (o *Outbox) repair(again bool) {
	o.mu.Lock()
	broken := o.broken
	var damaged []uint64
	for seq := range o.damaged {
		damaged = append(damaged, seq)
	}
	clear(o.damaged)
	o.broken = false
	o.mu.Unlock()
	if broken || o.file == nil && again {
		if err := o.replace(); err != nil {
			o.grumble("make a new file in place of a damaged one", err)
		}
		return
	}
	if len(damaged) == 0 || o.file == nil {
		return
	}
	o.cfg.Log.Error("records in the outbox are damaged: they are left out", "path", o.cfg.Path, "records", len(damaged))
	if err := o.file.setAside(damaged, o.ran()); err != nil {
		o.grumble("leave out damaged records", err)
		return
	}
	o.mu.Lock()
	o.wantGaps = true // a reader found them
	o.mu.Unlock()
	o.publish()
}

// replace sets the file aside and begins a new one with what can still be read of
// it. Its seqs go on, and its epoch descends from the old file's last. Entries wait
// meanwhile, about ten seconds for 1 GiB.
func (o *Outbox) replace() error {
	o.files.Lock()
	defer o.files.Unlock()
	o.mu.Lock()
	closed := o.closed
	// Nobody reads now. What readers have found since was in the old file, too.
	o.broken = false
	clear(o.damaged)
	o.mu.Unlock()
	if closed {
		return nil
	}
	if o.file != nil {
		o.cfg.Log.Error("the outbox is damaged: it is set aside, and what can be read of it is taken over", "path", o.cfg.Path)
		old := o.file.state
		old.epochs = slices.Clone(old.epochs)
		o.mu.Lock()
		for i := range old.epochs {
			e := &old.epochs[i]
			e.acked = max(e.acked, o.acked[e.id])
		}
		for i := range causes {
			o.before[i] += old.by[i]
		}
		o.mu.Unlock()
		old.last = o.nextSeq - 1
		old.current().last = old.last
		o.broke = &damaged{path: o.cfg.Path + asideSuffix, state: old}
		_ = o.file.close() // it is damaged
		o.file = nil
	}
	if o.broke == nil {
		return nil
	}
	if !o.broke.aside {
		if err := setAsideFile(o.cfg.Path); err != nil {
			return err
		}
		o.broke.aside = true
	}
	if !exists(o.cfg.Path) {
		if err := restore(context.Background(), o.cfg.Path, *o.broke, o.cfg.Now()); err != nil {
			return err
		}
	}
	f, err := openFile(context.Background(), o.cfg.Path, o.cfg.Fsync < 0, o.cfg.Now(), *o.broke.state.current())
	if err != nil {
		return err
	}
	o.cfg.Log.Info("the outbox goes on", "path", o.cfg.Path, "taken over", f.state.records)
	o.broke = nil
	o.mu.Lock()
	o.acked = map[string]uint64{}
	o.use(f)
	o.mu.Unlock()
	return nil
}

// chores are what is done once per Fsync interval.
func (o *Outbox) chores() {
	if o.file == nil {
		return
	}
	if age := o.cfg.MaxAge; age > 0 {
		if before := o.ran() - age; before > 0 {
			dropped := o.file.state.dropped
			if err := o.file.expire(before, o.ran()); err != nil {
				o.grumble("drop old records", err)
			} else if o.file.state.dropped != dropped {
				o.publish()
			}
		}
	}
	if err := o.file.sync(o.ran()); err != nil {
		o.grumble("sync", err)
	}
}

// tidy gives some free space back to the file system and returns when to go on: it
// takes a fifth of the time at most, in pieces so small that no entry waits long.
func (o *Outbox) tidy() (pause time.Duration) {
	if o.file == nil {
		return DefaultFsync
	}
	begun := time.Now()
	more, err := o.file.vacuum()
	switch {
	case err != nil:
		o.grumble("give back space", err)
		return DefaultFsync
	case !more:
		return DefaultFsync
	}
	return max(4*time.Since(begun), 10*time.Millisecond)
}

// grumbleEvery is how often one and the same failure is logged: a full disk is met every
// second, and the log may be on it.
const grumbleEvery = time.Minute

// grumble logs a failure that the next round tries to mend, and looks whether it
// is the file's end.
func (o *Outbox) grumble(what string, err error) {
	if now := time.Now(); now.Sub(o.grumbled[what]) >= grumbleEvery {
		o.grumbled[what] = now
		o.cfg.Log.Warn("outbox: cannot "+what, "path", o.cfg.Path, "err", err)
	}
	if corrupt(err) && o.file != nil {
		o.mu.Lock()
		o.broken = true
		o.mu.Unlock()
	}
}
