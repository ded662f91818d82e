package devices

import (
	"context"
	"encoding/json"
	"errors"
	"hash/fnv"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/twin"
)

const (
	// maxEvents bounds what the Runner has found and the loop not looked at yet;
	// when it is full, polling waits.
	maxEvents = 16
	// maxWaiting bounds the entries that the outbox has taken and not committed
	// yet; when it is reached, the loop takes nothing new.
	maxWaiting = 64
	// retryEvents is how long after a failure of the disk events are told again.
	retryEvents = 5 * time.Second
	// choresEvery is how often the read plan, which scale factors change, and
	// local writes on their way are looked at.
	choresEvery = 30 * time.Second
	// maxLost bounds what became of writes while the outbox refuses it. What is beyond
	// is forgotten, the oldest first: the hub knows that another write took its place,
	// and no more.
	maxLost = 256
	// forgetAfter is how long the intent may say that something is untold which the
	// outbox has. After a crash it is told once more, which does no harm.
	forgetAfter = time.Second
	// seenEvery is how often a mere sign of life goes to the disk.
	seenEvery = time.Minute
	// judgeWithin is how long the hub may take for the verdict on a local write
	// after it has the record, before it is told once more.
	judgeWithin = time.Minute
)

// loop serves one device with one configuration. Its goroutine owns everything
// that is not under mu.
type loop struct {
	m    *Manager
	slot *slot
	d    *device // never changes: what take has taken over since is in the twin

	desired *wish // the hub's, as last taken

	runner  *mappers.Runner // nil when nothing can serve the device
	device  mappers.Device
	stopRun context.CancelFunc
	ended   chan struct{} // closed when the Runner has ended

	recording atomic.Bool // somebody has what is on the wire

	events chan event    // from the Runner, see maxEvents
	asks   chan func()   // to be done by the loop; unbuffered: who asks waits or gives up
	done   chan struct{} // closed when the loop ends: nobody is answered any more
	over   chan struct{} // closed when it has ended

	// mu guards what others read. Only the loop changes the twin, so that it may
	// read it without; nobody does I/O under it.
	mu       sync.Mutex
	twin     *twin.Twin
	told     toldAll              // what was announced
	seenTold time.Time            // LastSeen of the newest report to the hub
	changed  chan struct{}        // closed and replaced when a write's state changes
	observed bool                 // changed since the last checkpoint
	seenAt   time.Time            // LastSeen of the last checkpoint
	unsure   map[int]models.Value // pending values whose fate a reading will tell; see sink.Report

	state    stateTold // as the Runner told it last
	out      outgoing
	waiting  []announcement // in the order the outbox took them
	commits  commits
	intentAt time.Time  // when storing the intent is to be tried again; zero: it is stored
	retryAt  time.Time  // when events are told again
	lost     []writeOut // what the outbox refused, to be told again: at most maxLost
	forgetAt time.Time  // when the intent is stored without what was told meanwhile, zero: it says nothing that was
	choresAt time.Time
	staleAt  time.Time
	uplinked map[string]*uplink // local writes in the outbox, by id
}

// uplink is a local write that is on its way to the hub.
type uplink struct {
	seq  uint64    // of its record, 0 while it is not committed
	gone time.Time // when the record was first seen to have left the outbox
}

// event is something that the Runner tells.
type event struct {
	batch     mappers.Batch
	canonical map[int]canonical // of pending values
	written   *mappers.WriteResult
	state     *stateTold
}

// canonical is a pending value and what the device would show of it.
type canonical struct{ pending, shown models.Value }

// outgoing is what the loop has to tell at the end of a turn.
type outgoing struct {
	samples []sampleOut
	writes  []writeOut
	state   bool
	again   bool // the state was announced and did not reach the outbox
	locals  bool // the twin's local writes have changed
	dirty   bool // the intent has changed
	replies []func()
	stored  []func(error) // who waits for the samples to be on the disk
}

type sampleOut struct {
	property int
	sample   models.Sample
	reported twin.Reported // after it
}

type writeOut struct {
	twin.WriteChange
	again bool // it was announced and did not reach the outbox
}

func (o *outgoing) changed(changes ...twin.WriteChange) {
	for _, c := range changes {
		o.writes = append(o.writes, writeOut{WriteChange: c})
	}
}

// newLoop loads the twin and opens the device. A configuration that the driver
// refuses is no error: the device gets a problem.
func newLoop(ctx context.Context, s *slot, d *device) (*loop, error) {
	stored, err := s.m.cfg.Store.Twin(ctx, d.uid)
	if err != nil {
		return nil, err
	}
	if s.unsaved != nil { // what the disk has is older
		stored.Intent = twin.Intent{}
		if err := json.Unmarshal(s.unsaved, &stored.Intent); err != nil {
			return nil, err
		}
	}
	now := time.Now()
	l := &loop{m: s.m, slot: s, d: d, events: make(chan event, maxEvents), asks: make(chan func()), done: make(chan struct{}), over: make(chan struct{}), ended: make(chan struct{}),
		twin: twin.New(d.defs, stored, now), changed: make(chan struct{}),
		commits: commits{wake: make(chan struct{}, 1)}, uplinked: map[string]*uplink{}}
	problem := d.problem
	if problem == "" {
		if problem, err = l.open(); err != nil {
			problem = err.Error()
		}
	}
	// What was observed is stored behind what was shown of it.
	l.twin.Version = max(l.twin.Version, s.version+1, s.m.cfg.Era*twin.EraSize)
	l.state = stateTold{state: models.StateUnknown}
	if problem != "" {
		l.state = stateTold{state: models.StateOffline, reason: models.ReasonConfiguration, message: problem}
		l.twin.SetState(models.StateOffline, problem)
		s.m.cfg.Log.Error("the device cannot be served", "device", d.id, "problem", problem)
	}
	l.twin.Paused = d.locked || l.runner == nil
	l.told = newTold(l.twin, l.state, problem)
	l.recall(stored.Untold)
	return l, nil
}

// open opens the device and makes its Runner.
func (l *loop) open() (problem string, err error) {
	d := l.d
	l.device, err = mappers.OpenFitting(d.driver, l.config())
	if err != nil {
		var e *models.Error
		if errors.As(err, &e) {
			return e.Error(), nil
		}
		return "", err
	}
	seed := fnv.New64a()
	_, _ = seed.Write([]byte(d.uid))
	l.runner = mappers.NewRunner(mappers.RunnerConfig{Name: d.id, Protocol: d.protocol, Device: l.device, Properties: d.defs,
		Sink: (*sink)(l), Log: l.m.cfg.Log, Metrics: l.m.cfg.Metrics, Seed: seed.Sum64()})
	return "", nil
}

// config is what the driver gets to know of the device.
func (l *loop) config() mappers.DeviceConfig {
	d, dir := l.d, l.m.cfg.DataDir
	if dir != "" {
		dir = filepath.Join(dir, d.protocol)
	}
	return mappers.DeviceConfig{Name: d.id, Connection: d.connection, Points: mappers.PointsOf(d.defs), Secrets: d.secrets, DataDir: dir,
		Log: l.m.cfg.Log.With("device", d.id)}
}

// run serves the device until ctx ends, or something else is wanted than this
// configuration.
func (l *loop) run(ctx context.Context) {
	// The Runner lives until the loop has told it to end, so that both end in order.
	runCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	l.stopRun = cancel
	if l.runner != nil {
		go func() { // ended by l.stop, which waits
			defer close(l.ended)
			_ = l.runner.Run(runCtx)
		}()
	} else {
		close(l.ended)
	}
	l.begin(ctx)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for l.serve(ctx, timer) {
		l.turn(ctx)
	}
	l.stop(ctx)
}

// begin takes over what was wanted while nothing ran, and tells local apps, whose
// broker has forgotten, what is known.
func (l *loop) begin(ctx context.Context) {
	now := time.Now()
	l.clearTopics()
	l.mu.Lock()
	l.out.changed(l.twin.HideUnreadable(now)...)
	if l.d.desired != nil {
		l.desired = l.d.desired
		l.out.changed(l.twin.SetCloud(l.desired.Desired, now)...)
	} else {
		l.out.changed(l.twin.Resume(now)...)
	}
	l.mu.Unlock()
	l.out.dirty = true
	l.out.state = true
	l.out.locals = true
	for i := range l.d.defs {
		if r := l.twin.Reported(i); r.Known() {
			l.slot.publish(l.propertyMessage(i, r))
		}
	}
	l.choresAt = now.Add(time.Second)
	notify(l.m.latest)
	l.turn(ctx)
}

// serve waits for something to do and does it. It returns false when the loop is
// to end.
func (l *loop) serve(ctx context.Context, timer *time.Timer) bool {
	timer.Reset(time.Until(l.nextTime()))
	events, asks := l.events, l.asks
	if len(l.waiting) >= maxWaiting {
		events, asks = nil, nil
	}
	select {
	case <-ctx.Done():
		return false
	case <-l.slot.wake:
		d := l.slot.wanted()
		if d == nil || d.key != l.d.key {
			return false
		}
		l.take(d)
	case e := <-events:
		l.handle(e)
		// What came meanwhile goes into the same entry.
		for range maxEvents {
			select {
			case e := <-events:
				l.handle(e)
				continue
			default:
			}
			break
		}
	case f := <-asks:
		f()
	case <-l.commits.wake:
		l.committed()
	case <-timer.C:
	}
	return true
}

// nextTime returns when the loop has something to do by itself.
func (l *loop) nextTime() time.Time {
	next := l.staleAt
	for _, t := range []time.Time{l.twin.NextDue(), l.intentAt, l.retryAt, l.choresAt, l.forgetAt} {
		if !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	return next
}

// take takes over what a running connection can: locked and desired.
func (l *loop) take(d *device) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if d.desired != nil && !d.desired.equal(l.desired) {
		l.desired = d.desired
		l.out.changed(l.twin.SetCloud(d.desired.Desired, now)...)
		l.out.dirty, l.out.locals = true, true
		if l.told.accepted(l.twin) {
			notify(l.m.latest)
		}
	}
	l.twin.Paused = d.locked || l.runner == nil
}

// handle takes what the Runner tells into the twin.
func (l *loop) handle(e event) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case e.written != nil:
		l.settle(*e.written, now)
	case e.state != nil:
		if l.twin.SetState(e.state.state, e.state.message) || e.state.reason != l.state.reason {
			l.state.state, l.state.reason, l.state.message = e.state.state, e.state.reason, e.state.message
			l.out.state = true
			l.observed = true
		}
	default:
		l.report(e, now)
	}
}

func (l *loop) report(e event, now time.Time) {
	if e.batch.Stored != nil {
		l.out.stored = append(l.out.stored, e.batch.Stored)
	}
	for _, o := range e.batch.Changed {
		l.twin.Report(o.Property, o.Sample, e.batch.Time)
		l.out.samples = append(l.out.samples, sampleOut{property: o.Property, sample: o.Sample, reported: l.twin.Reported(o.Property)})
		l.observed = true
	}
	for _, i := range e.batch.Refreshed {
		if l.twin.Refresh(i, e.batch.Time) { // it was stale, and the Runner, which saw no change, says nothing
			r := l.twin.Reported(i)
			s := r.Sample()
			s.Time = e.batch.Time
			l.out.samples = append(l.out.samples, sampleOut{property: i, sample: s, reported: r})
			l.observed = true
		}
	}
	for i, c := range e.canonical {
		if slices.Contains(e.batch.Refreshed, i) && c.pending == l.twin.Pending(i) {
			l.out.changed(l.twin.Learn(i, c.shown, now)...)
		}
	}
}

// settle takes the outcome of an order.
func (l *loop) settle(w mappers.WriteResult, now time.Time) {
	r := twin.Result{Property: w.Property, ID: w.ID, ReadBack: w.ReadBack}
	switch w.Outcome {
	case mappers.Applied:
		r.Outcome = twin.Confirmed
	case mappers.Refused:
		r.Outcome = twin.Refusal
	case mappers.Unsent, mappers.Superseded:
		r.Outcome = twin.NotSent
	default:
		r.Outcome = twin.Unconfirmed
	}
	if w.Err != nil {
		r.Err = w.Err.Error()
	}
	if r.Outcome != twin.NotSent {
		r.Sent = now.Add(-w.Took)
	}
	before, _ := l.twin.Write(w.Property)
	l.out.changed(l.twin.Settle(r, now)...)
	if before.ID == w.ID {
		l.out.dirty = true
	}
}

// turn does what is due and tells what has changed: first the store, where a
// promise is involved, then the outbox, then the device.
func (l *loop) turn(ctx context.Context) {
	now := time.Now()
	l.mu.Lock()
	l.out.changed(l.twin.Expire(now)...)
	if !now.Before(l.staleAt) {
		l.staleAt = now.Add(l.staleTick())
		for _, i := range l.twin.Stale(now) {
			r := l.twin.Reported(i)
			l.out.samples = append(l.out.samples, sampleOut{property: i, reported: r,
				sample: models.Sample{Value: r.Value, Quality: r.Quality, Reason: r.Reason, Time: now}})
			l.observed = true
		}
	}
	orders, failed := l.twin.Due(now)
	l.out.changed(failed...)
	once := slices.ContainsFunc(orders, func(o twin.Order) bool { return o.Once })
	var intent *twin.Intent
	// While the disk fails, only what cannot wait is tried at once.
	forget := !l.forgetAt.IsZero() && !now.Before(l.forgetAt)
	if once || (l.out.dirty || forget || len(l.out.writes) > 0 || !l.intentAt.IsZero()) && !now.Before(l.intentAt) {
		intent = new(l.intent())
	}
	l.mu.Unlock()

	if intent != nil {
		if err := l.save(ctx, *intent, now); err != nil {
			orders = l.hold(orders, err, now)
		}
	}
	l.send(orders, now)
	l.chores(now)
	l.tell(ctx, now)
	l.mu.Lock()
	if intent != nil { // whoever waits for a write looks again
		close(l.changed)
		l.changed = make(chan struct{})
	}
	l.unsure = nil
	for i := range l.d.defs {
		if l.twin.Unsettled(i) {
			if l.unsure == nil {
				l.unsure = map[int]models.Value{}
			}
			l.unsure[i] = l.twin.Pending(i)
		}
	}
	l.mu.Unlock()
}

// save stores the intent.
func (l *loop) save(ctx context.Context, i twin.Intent, now time.Time) error {
	// The end of the process must not keep what it has promised from the disk.
	err := l.m.cfg.Store.SaveIntent(context.WithoutCancel(ctx), l.d.uid, i)
	if err != nil {
		l.intentAt = now.Add(retryEvents)
		l.out.dirty, l.forgetAt = true, time.Time{}
		l.m.cfg.Log.Error("storing the twin failed; it is tried again", "device", l.d.id, "error", err)
		return err
	}
	l.out.dirty, l.intentAt, l.forgetAt = false, time.Time{}, time.Time{}
	return nil
}

// hold keeps once orders from going out that a crash could repeat. Others may:
// control of the device goes on with a full disk.
func (l *loop) hold(orders []twin.Order, err error, now time.Time) (send []twin.Order) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, o := range orders {
		if !o.Once {
			send = append(send, o)
			continue
		}
		l.out.changed(l.twin.Settle(twin.Result{Property: o.Property, ID: o.ID, Outcome: twin.NotSent,
			Err: "the edge cannot store that it writes, and it must not be written twice: " + err.Error()}, now)...)
	}
	return send
}

// send hands orders to the Runner.
func (l *loop) send(orders []twin.Order, now time.Time) {
	if len(orders) == 0 {
		return
	}
	writes := make([]mappers.Write, len(orders))
	for i, o := range orders {
		writes[i] = mappers.Write{ID: o.ID, Property: o.Property, Value: o.Value, Once: o.Once, Verify: true, Trace: o.Trace}
	}
	for part := range slices.Chunk(writes, mappers.MaxQueuedWrites/4) {
		if l.runner.Write(part...) {
			continue
		}
		l.mu.Lock()
		for _, w := range part {
			l.out.changed(l.twin.Settle(twin.Result{Property: w.Property, ID: w.ID, Outcome: twin.NotSent, Err: "too many writes wait for the device"}, now)...)
		}
		l.out.dirty = true
		l.mu.Unlock()
	}
}

// staleTick is how often staleness is looked at.
func (l *loop) staleTick() time.Duration {
	tick := 10 * time.Second
	for i := range l.d.defs {
		if def := &l.d.defs[i]; def.Access.Readable() {
			tick = min(tick, def.Every)
		}
	}
	return max(tick, 250*time.Millisecond)
}

// chores does what is not urgent: it looks whether the device is read otherwise
// than before, and whether local writes got lost on their way.
func (l *loop) chores(now time.Time) {
	if !l.retryAt.IsZero() && !now.Before(l.retryAt) {
		l.retryAt = time.Time{}
		l.tellAgain()
	}
	if now.Before(l.choresAt) {
		return
	}
	l.choresAt = now.Add(choresEvery)
	l.checkUplinks(now)
	if l.runner == nil {
		return
	}
	plan := mustJSON(l.runner.Plan())
	l.mu.Lock()
	defer l.mu.Unlock()
	if string(plan) != string(l.told.plan) {
		l.told.plan, l.told.planDue = plan, true
		notify(l.m.latest)
	}
}

// stop ends the Runner, takes what it tells last, and waits for the outbox.
func (l *loop) stop(ctx context.Context) {
	close(l.done)
	l.stopRun()
	for running := true; running; {
		select {
		case e := <-l.events:
			l.handle(e)
		case <-l.ended:
			running = false
		}
	}
	for more := true; more; {
		select {
		case e := <-l.events:
			l.handle(e)
		default:
			more = false
		}
	}
	l.mu.Lock()
	l.twin.Paused = true
	l.mu.Unlock()
	// The outbox is stopped after the devices, so it answers; a broken one must not
	// keep the process from ending.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if !l.intentAt.IsZero() {
		l.intentAt = time.Now() // the disk may have recovered, and there is no later
	}
	l.turn(ctx)
	for len(l.waiting) > 0 {
		select {
		case <-l.commits.wake:
			l.committed()
		case <-ctx.Done():
			l.m.cfg.Log.Warn("the outbox did not answer", "device", l.d.id, "entries", len(l.waiting))
			return
		}
	}
	if !l.forgetAt.IsZero() {
		_ = l.save(ctx, l.intent(), time.Now()) // it says why; with the next life all is told once more
	}
}

// ask has f done by the loop, between two turns.
func (l *loop) ask(ctx context.Context, f func()) error {
	select {
	case l.asks <- f:
		return nil
	case <-l.done:
		return models.Errorf(models.KindUnavailable, "device %s is being restarted; try again", l.d.id)
	case <-ctx.Done():
		return models.Errorf(models.KindUnavailable, "device %s: the edge is busy: %v", l.slot.id, context.Cause(ctx))
	}
}

// takeObserved returns what was observed if that has to be stored.
func (l *loop) takeObserved() (twin.Observed, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.observed && l.twin.LastSeen.Sub(l.seenAt) < seenEvery {
		return twin.Observed{}, false
	}
	l.observed, l.seenAt = false, l.twin.LastSeen
	return l.twin.Observed(), true
}

func (l *loop) document() twin.Document {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.twin.Document(l.d.name, l.d.namespace)
}

func (l *loop) summary(s *Summary) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.State, s.Problem = l.twin.State, l.twin.Problem
	if !l.twin.LastSeen.IsZero() {
		s.LastSeen = new(l.twin.LastSeen.UTC())
	}
}

// sink is the loop as its Runner sees it.
type sink loop

var _ mappers.Sink = (*sink)(nil)

// Report implements mappers.Sink. What a pending value will look like on the
// device is asked here, in the Runner's goroutine, which the device is used from.
func (s *sink) Report(b mappers.Batch) {
	l := (*loop)(s)
	e := event{batch: mappers.Batch{Time: b.Time, Refreshed: slices.Clone(b.Refreshed), Changed: slices.Clone(b.Changed), Stored: b.Stored}}
	l.mu.Lock()
	unsure := l.unsure
	l.mu.Unlock()
	for i, v := range unsure {
		if e.canonical == nil {
			e.canonical = map[int]canonical{}
		}
		shown := v
		if c, ok := l.device.(mappers.Canonicalizer); ok {
			if stored, err := c.Canonical(i, v); err == nil {
				shown = stored
			}
		}
		e.canonical[i] = canonical{pending: v, shown: shown}
	}
	l.events <- e
}

// Written implements mappers.Sink.
func (s *sink) Written(w mappers.WriteResult) { s.events <- event{written: &w} }

// State implements mappers.Sink.
func (s *sink) State(state models.DeviceState, reason models.Reason, err error) {
	e := &stateTold{state: state, reason: reason}
	if err != nil {
		e.message = err.Error()
	}
	s.events <- event{state: e}
}

// commits is what the outbox has answered, in the order of the entries.
type commits struct {
	wake chan struct{} // one slot

	mu   sync.Mutex
	done []commit // at most maxWaiting and one
}

type commit struct {
	seq uint64
	err error
}

func (c *commits) add(seq uint64, err error) {
	c.mu.Lock()
	c.done = append(c.done, commit{seq, err})
	c.mu.Unlock()
	notify(c.wake)
}

func (c *commits) take() []commit {
	c.mu.Lock()
	defer c.mu.Unlock()
	done := c.done
	c.done = nil
	return done
}
