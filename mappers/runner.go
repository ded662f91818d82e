package mappers

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

// Runner polls and writes one device. Run is its only loop; the other methods
// may be called from any goroutine.
type Runner struct {
	cfg   RunnerConfig
	log   *slog.Logger
	count counting
	queue writeQueue
	reads chan readOrder // MaxQueuedReads; Read refuses when it is full
	ended chan struct{}  // closed when Run has ended

	// The rest belongs to the goroutine of Run, except that schedule.groups'
	// points, polled and subscribed do not change after NewRunner.
	schedule   schedule
	polled     int // how many properties are
	subscribed []Subscription
	reporter   Reporter // nil for a device that is polled
	partial    Partial  // nil for a device that has all its points
	line       *lineUser
	policy     demotion
	chance     *rand.Rand

	properties []property
	failing    int  // how many properties are
	blame      bool // others fail than was told
	told       time.Time
	everything bool // poll all groups at once, whether due or not

	failed    *Failure  // why the device does not answer; nil while it does
	demoted   bool      // it is probed instead of polled
	probeAt   time.Time // when next
	probed    int       // counts probes, to ask for another point each time
	live      bool      // the subscription has delivered and is not lost
	lost      *Failure  // why the subscription was
	unheard   bool      // catchUp is due
	answered  bool      // the device has, since Run began
	readAgain time.Time // when a demoted device on a shared line may be read on demand

	state  models.DeviceState
	reason models.Reason

	// Reused, so that a cycle without changes allocates nothing.
	points    []int
	results   []Result
	refreshed []int
	changed   []Observation
	stored    func(error) // who waits for what is reported next
}

// property is what the loop knows of a property.
type property struct {
	last    reported
	failing bool
	why     error  // that it fails; may be nil
	latest  Result // of a subscribed property, once delivered
	has     bool   // latest is one, or for a Reporter: it is heard of
}

// NewRunner returns a Runner that does nothing before Run.
func NewRunner(cfg RunnerConfig) *Runner {
	r := &Runner{cfg: cfg, log: cfg.Log, count: newCounting(cfg.Metrics, cfg.Protocol),
		queue:      writeQueue{wake: make(chan struct{}, 1)},
		reads:      make(chan readOrder, MaxQueuedReads),
		ended:      make(chan struct{}),
		policy:     demotion{after: cfg.DemoteAfter},
		chance:     rand.New(rand.NewPCG(cfg.Seed, 1)),
		properties: make([]property, len(cfg.Properties))}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	r.log = r.log.With("device", cfg.Name)
	if r.policy.after <= 0 {
		r.policy.after = DefaultDemoteAfter
	}
	var subscribes func(int) bool
	if s, ok := cfg.Device.(Subscriber); ok {
		subscribes = s.Subscribes
	}
	if r.reporter, _ = cfg.Device.(Reporter); r.reporter != nil {
		subscribes = func(int) bool { return true }
	}
	r.partial, _ = cfg.Device.(Partial)
	reads := func(p int) bool { return cfg.Properties[p].Access.Readable() && r.misfit(p) == nil }
	r.schedule.groups = groupsOf(cfg.Properties, reads, subscribes)
	for _, g := range r.schedule.groups {
		r.polled += len(g.polled)
		for _, p := range g.subscribed {
			r.subscribed = append(r.subscribed, Subscription{Point: p, Every: g.every, Deadband: cfg.Properties[p].Deadband})
		}
	}
	return r
}

// misfit says what is wrong with a property that nothing is asked for.
func (r *Runner) misfit(p int) error {
	if r.partial == nil {
		return nil
	}
	return r.partial.Misfit(p)
}

// Write queues writes, all or none, and does not wait. It returns false when
// they do not fit (MaxQueuedWrites) or Run has ended; nothing is told of them
// then. A queued write to the same property is superseded.
func (r *Runner) Write(w ...Write) bool { return r.queue.add(w) }

// Plan says what polling costs on the wire, as the device knows it now. Groups
// that are due at the same time are read together, which may take fewer
// requests than the plan says.
func (r *Runner) Plan() models.ReadPlan {
	var plan models.ReadPlan
	planner, _ := r.cfg.Device.(Planner)
	for i := range r.schedule.groups {
		g := &r.schedule.groups[i] // not a copy: Run changes when it is due
		if len(g.polled) == 0 {
			continue
		}
		group := models.ReadGroup{Every: models.Duration(g.every), Points: len(g.polled)}
		if planner != nil {
			group.Requests = planner.Plan(g.polled)
			plan.RequestsPerCycle += len(group.Requests)
		} else {
			plan.RequestsPerCycle++
		}
		plan.Groups = append(plan.Groups, group)
	}
	return plan
}

// Run serves the device until ctx ends, closes it, and returns the context's
// cause. Writes that are still queued are told Unsent. A device that fails is
// no reason to return. Run may be called once.
func (r *Runner) Run(ctx context.Context) error {
	defer close(r.ended)
	var subscription sync.WaitGroup
	sctx, cancel := context.WithCancel(ctx)
	events := make(chan event) // unbuffered: a subscription waits while the Sink does
	switch {
	case r.reporter != nil:
		subscription.Go(func() { r.collect(sctx, events) })
	case len(r.subscribed) > 0:
		subscription.Go(func() { r.subscribe(sctx, events) })
	}
	if sharer, ok := r.cfg.Device.(LineSharer); ok {
		r.line = lines.join(r.cfg.Protocol, sharer.Line())
	}

	r.loop(ctx, events)

	cancel()
	subscription.Wait()
	r.line.leave()
	if err := r.cfg.Device.Close(); err != nil {
		r.log.Warn("closing the device failed", "err", err)
	}
	waiting, superseded := r.queue.close()
	r.tellSuperseded(superseded)
	for _, w := range waiting {
		r.tell(w, Unsent, nil, &Failure{Reason: models.ReasonMapperLost, Unsent: true, Err: ErrClosed}, 0)
	}
	return context.Cause(ctx)
}

func (r *Runner) loop(ctx context.Context, events <-chan event) {
	r.schedule.begin(time.Now(), r.cfg.Seed)
	r.tellMisfits()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Stop()
		if at, ok := r.wakeAt(); ok {
			timer.Reset(time.Until(at))
		}
		var asked []readOrder
		select {
		case <-ctx.Done():
			return
		case <-r.queue.wake:
		case o := <-r.reads:
			asked = r.waitingReads(o)
		case e := <-events:
			r.handle(e)
		case <-timer.C:
		}
		// Writes go ahead of whatever poll is due, but only so many at a time.
		r.write(ctx)
		r.readNow(ctx, asked)
		if r.unheard && ctx.Err() == nil {
			r.catchUp(ctx)
		}
		if ctx.Err() != nil {
			return
		}
		r.cycle(ctx)
		if ctx.Err() != nil {
			return
		}
	}
}

// tellMisfits makes the properties bad that nothing is asked for, once and for
// all.
func (r *Runner) tellMisfits() {
	now := time.Now()
	for p := range r.cfg.Properties {
		if why := r.misfit(p); why != nil {
			r.log.Warn("a property does not fit: the others are served", "property", r.cfg.Properties[p].Name, "err", why)
			if r.cfg.Properties[p].Access.Readable() {
				r.spoil(p, models.ReasonMisconfigured, now)
				continue
			}
			// It has no value to be bad; that it fails is all there is to tell.
			r.properties[p].failing, r.properties[p].last.sample.Reason = true, models.ReasonMisconfigured
			r.failing++
		}
	}
	r.report(now)
}

// wakeAt is when the loop has something to do by itself.
func (r *Runner) wakeAt() (at time.Time, ok bool) {
	switch {
	case r.everything && !r.demoted:
		return time.Time{}, true
	case r.demoted:
		at, ok = r.probeAt, true
		if len(r.subscribed) == 0 {
			return at, ok
		}
		if tick, _ := r.schedule.next(); tick.Before(at) {
			at = tick
		}
		return at, ok
	}
	return r.schedule.next()
}

// cycle does what is due: it polls, or probes a demoted device, and vouches
// for what is subscribed.
func (r *Runner) cycle(ctx context.Context) {
	now := time.Now()
	r.points = r.points[:0]
	r.refreshed, r.changed = r.refreshed[:0], r.changed[:0]
	for i := range r.schedule.groups {
		g := &r.schedule.groups[i]
		due, missed := r.schedule.due(g, now)
		if !r.demoted {
			r.count.overrun(missed)
			if due || r.everything {
				r.points = append(r.points, g.polled...)
			}
		}
		if due && r.live && r.reporter == nil {
			r.confirm(g.subscribed, now)
		}
	}
	switch {
	case r.demoted && !now.Before(r.probeAt):
		r.report(now)
		r.probe(ctx)
	case len(r.points) > 0:
		r.poll(ctx)
	default:
		r.everything = false // nothing can be read
		r.report(now)
	}
}

// poll reads r.points and reports what came.
func (r *Runner) poll(ctx context.Context) {
	took, err := r.read(ctx, r.points)
	if ctx.Err() != nil {
		return
	}
	if err != nil && r.worthRetrying(err, took) {
		var again time.Duration
		if again, err = r.read(ctx, r.points); ctx.Err() != nil {
			return
		}
		took += again
	}
	if err != nil {
		r.everything = false
		r.deviceFailed(err, took)
		return
	}
	whole := r.failed == nil || len(r.points) == r.polled
	r.everything = !whole // the rest is bad still: read it at once
	r.deviceAnswered()
	now := time.Now()
	for i, p := range r.points {
		r.observe(p, r.results[i], now, false)
	}
	r.report(now)
	if whole {
		r.tellState()
	}
}

// read asks the device for points. What it finds is in r.results.
func (r *Runner) read(ctx context.Context, points []int) (time.Duration, *Failure) {
	if cap(r.results) < len(points) {
		r.results = make([]Result, len(r.properties))
	}
	r.results = r.results[:len(points)]
	clear(r.results)
	start := time.Now()
	err := r.cfg.Device.Read(ctx, points, r.results)
	took := time.Since(start)
	if err == nil {
		r.count.request(models.ReasonNone, took)
		return took, nil
	}
	f := FailureOf(err)
	r.count.request(f.Reason, took)
	return took, f
}

// costly is how long a failed read may have taken to be repeated at once on a
// line that others wait for.
const costly = 100 * time.Millisecond

// worthRetrying decides whether a failed read is repeated in the same cycle: a
// lost answer, or a connection that had gone stale, should not make a device's
// values bad. It is not when the cycle before failed too, and on a shared line
// not when it would hold the others up.
func (r *Runner) worthRetrying(f *Failure, took time.Duration) bool {
	switch {
	case r.failed != nil || !r.answered || f.Refused:
		return false
	case r.line.use().shared():
		return f.Reason != models.ReasonTimeout && took < costly
	}
	return true
}

// deviceFailed takes note that the device as a whole does not answer.
func (r *Runner) deviceFailed(f *Failure, took time.Duration) {
	r.failed = f
	was := r.demoted
	use := r.line.use()
	if r.policy.failures+1 >= r.policy.after {
		use = r.line.demote(true)
	}
	v := r.policy.failed(took, use, r.chance.Float64())
	now := time.Now()
	r.demoted, r.probeAt = v.demoted, now.Add(v.wait)
	for i := range r.schedule.groups {
		for _, p := range r.schedule.groups[i].polled {
			r.spoil(p, f.Reason, now)
		}
	}
	r.report(now)
	r.tellState()
	if r.demoted && !was {
		r.log.Warn("the device is demoted: it is probed instead of polled", "failures", r.policy.failures, "err", f)
	}
}

// deviceAnswered takes note that the device answers. If it was demoted,
// polling goes on with the next cycle.
func (r *Runner) deviceAnswered() {
	if r.demoted {
		r.log.Info("the device answers again")
	}
	r.answered, r.failed, r.demoted = true, nil, false
	r.policy.succeeded()
	r.line.demote(false)
}

// probe asks a demoted device for one point, another one each time.
func (r *Runner) probe(ctx context.Context) {
	point, ok := r.probePoint()
	if !ok {
		return
	}
	took, err := r.read(ctx, []int{point})
	switch {
	case ctx.Err() != nil:
	case err != nil:
		r.deviceFailed(err, took)
	default:
		r.deviceAnswered()
		r.everything = true
	}
}

func (r *Runner) probePoint() (int, bool) {
	if r.polled == 0 {
		return 0, false
	}
	at := r.probed % r.polled
	r.probed++
	for i := range r.schedule.groups {
		polled := r.schedule.groups[i].polled
		if at < len(polled) {
			return polled[at], true
		}
		at -= len(polled)
	}
	return 0, false
}

// observe judges one result and notes it for report. Its point counts as
// refreshed.
func (r *Runner) observe(p int, res Result, now time.Time, force bool) {
	spec := &r.cfg.Properties[p]
	s := sampleOf(spec, res, now)
	r.refreshed = append(r.refreshed, p)
	if r.reporter != nil {
		r.properties[p].has = true
	}
	if force || r.properties[p].last.due(spec, &s, now) {
		r.note(p, s, now)
	}
	r.properties[p].why = res.Err
	if f := failing(&s); f != r.properties[p].failing {
		r.properties[p].failing, r.blame = f, true
		if f {
			r.failing++
		} else {
			r.failing--
		}
	}
}

// spoil makes a property bad because the device does not answer. That is
// reported once, without heartbeats: nothing was heard of it.
func (r *Runner) spoil(p int, reason models.Reason, now time.Time) {
	property := &r.properties[p]
	if last := &property.last; last.at.IsZero() || last.sample.Quality != models.Bad || last.sample.Reason != reason {
		r.note(p, models.Sample{Quality: models.Bad, Reason: reason, Time: now}, now)
	}
	property.why = nil // the device's is
	if !property.failing {
		property.failing, r.blame = true, true
		r.failing++
	}
}

// note keeps a sample for the next report.
func (r *Runner) note(p int, s models.Sample, now time.Time) {
	r.properties[p].last = reported{sample: s, at: now}
	r.changed = append(r.changed, Observation{Property: p, Sample: s})
}

// report hands the Sink what was observed.
func (r *Runner) report(now time.Time) {
	if len(r.refreshed) > 0 || len(r.changed) > 0 || r.stored != nil {
		r.cfg.Sink.Report(Batch{Time: now, Refreshed: r.refreshed, Changed: r.changed, Stored: r.stored})
		r.stored = nil
		r.refreshed, r.changed = r.refreshed[:0], r.changed[:0]
	}
}

// tellState tells the Sink how the device is doing, when that has changed.
func (r *Runner) tellState() {
	state, reason := models.StateOnline, models.ReasonNone
	var err error
	switch {
	case r.failed != nil:
		state, reason, err = models.StateOffline, r.failed.Reason, r.failed
	case r.lost != nil && r.polled == 0:
		state, reason, err = models.StateOffline, r.lost.Reason, r.lost
	case r.failing > 0:
		state = models.StateDegraded
		for i := range r.properties {
			if r.properties[i].failing {
				reason = r.properties[i].last.sample.Reason
				break
			}
		}
	}
	now := time.Now()
	if state == r.state && reason == r.reason && !(state == models.StateDegraded && r.blame && now.Sub(r.told) >= retell) {
		return
	}
	if state == models.StateDegraded {
		err = r.degraded(reason)
	}
	r.state, r.reason, r.blame, r.told = state, reason, false, now
	r.log.Info("device state", "state", state, "reason", reason, "err", err)
	r.cfg.Sink.State(state, reason, err)
}

// retell is how often, at most, it is told that other properties fail than did:
// each time is a record of the twin's.
const retell = 10 * time.Second

// degraded names the properties that fail, the first few of them, and says of
// the first that has something to say why it does.
func (r *Runner) degraded(reason models.Reason) error {
	var names []string
	for i := range r.properties {
		if r.properties[i].failing && len(names) < 3 {
			names = append(names, r.cfg.Properties[i].Name)
		}
	}
	if more := r.failing - len(names); more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	for p := range r.properties {
		if why := r.misfit(p); why != nil {
			return Fail(reason, fmt.Errorf("of %d properties fail %v; %s does not fit: %w", len(r.properties), names, r.cfg.Properties[p].Name, why))
		}
	}
	for p := range r.properties {
		if why := r.properties[p].why; r.properties[p].failing && why != nil {
			return Fail(reason, fmt.Errorf("of %d properties fail %v; %s: %w", len(r.properties), names, r.cfg.Properties[p].Name, why))
		}
	}
	return Fail(reason, fmt.Errorf("of %d properties fail %v", len(r.properties), names))
}
