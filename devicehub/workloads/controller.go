package workloads

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/placement"
	"github.com/whimbrel-edge/whimbrel/devicehub/registry"
	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/models"
)

// Registry is what the Controller needs of the objects.
type Registry interface {
	// Changes begins to listen to kinds, and returns what there is of them.
	Changes(kinds ...string) (*registry.Changes, []models.Object)
	// Object returns an object that must not be changed, nil when there is none.
	Object(key models.Key) models.Object
	// Apply deletes and stores objects in one transaction. It takes them over.
	Apply(ctx context.Context, put []models.Object, drop []models.Key) error
	StatusChanged(key models.Key)
}

// Store keeps what nodes told of their pods for the next life of the hub. It is a
// part of store.Store.
type Store interface {
	PodStates(ctx context.Context, f func(store.PodState) error) error
	SavePodStates(ctx context.Context, put []store.PodState, drop []string) error
}

// Config is what a Controller needs.
type Config struct {
	Registry Registry
	Store    Store
	Events   Events // may be nil
	Now      func() time.Time
	Log      *slog.Logger
}

// Controller makes apps true. Its methods are safe for concurrent use.
type Controller struct {
	registry Registry
	store    Store
	now      func() time.Time
	log      *slog.Logger
	events   Events
	book     book
}

// New returns a Controller that knows what nodes told of their pods before. Run
// runs it.
func New(ctx context.Context, cfg Config) (*Controller, error) {
	c := &Controller{registry: cfg.Registry, store: cfg.Store, now: cfg.Now, log: cfg.Log, events: cfg.Events}
	if c.now == nil {
		c.now = time.Now
	}
	c.book.init(c.now)
	if err := c.load(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// Times of the loop.
const (
	retryAfter  = time.Second            // when a plan could not be stored
	lookAgain   = 15 * time.Second       // at rollouts, whose time may be up
	betweenAlls = 200 * time.Millisecond // between two looks at every app: nodes come and go in crowds
	gathering   = 5 * time.Second        // for nodes to come back when the hub has started; the first one is not to get every new pod
)

// Run makes apps true until ctx ends. One loop owns what it has seen of
// the registry.
func (c *Controller) Run(ctx context.Context) error {
	changes, objects := c.registry.Changes(append([]string{"ControllerRevision", "Pod", "Node", "Device"}, models.WorkloadKinds...)...)
	defer changes.Close()
	l := &loop{Controller: c, seen: newSeen(), due: map[models.Key]time.Time{}, began: c.now()}
	for _, o := range objects {
		l.seen.set(o)
	}
	l.todo = l.seen.allKeys()
	var saver sync.WaitGroup
	defer saver.Wait()
	saver.Go(func() { c.save(ctx) })
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	var later *time.Timer // for what has to wait a moment
	defer func() {
		if later != nil {
			later.Stop()
		}
	}()
	for {
		wait := l.pass(ctx)
		var soon <-chan time.Time
		if wait > 0 {
			if later == nil {
				later = time.NewTimer(wait)
			} else {
				later.Reset(wait)
			}
			soon = later.C
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changes.Changed():
			for _, key := range changes.Take() {
				l.changed(key)
			}
		case <-c.book.wake:
		case <-soon:
		case <-tick.C:
			maps.Copy(l.todo, c.book.unfinished())
		}
	}
}

// loop is the state of Run.
type loop struct {
	*Controller
	seen  *seen
	todo  map[models.Key]bool      // apps to look at; bounded by their number
	due   map[models.Key]time.Time // and when to look at some though nothing changes; the same bound
	all   bool                     // all of them, when lastAll is long enough ago
	last  time.Time                // when all were looked at
	retry time.Time                // not before: a plan could not be stored
	began time.Time                // zero when the nodes are gathered
}

// gathered reports whether the nodes that come back after a start of the hub have
// done so, or have had their time.
func (l *loop) gathered(now time.Time) bool {
	if l.began.IsZero() {
		return true
	}
	if now.Sub(l.began) < gathering && slices.ContainsFunc(slices.Collect(maps.Keys(l.seen.nodes)), func(name string) bool { return !l.book.live(name) }) {
		return false
	}
	l.began, l.all = time.Time{}, true
	l.seen.nodesChanged()
	return true
}

// changed takes note of one changed object.
func (l *loop) changed(key models.Key) {
	if key.Kind == "Device" {
		for d := range l.seen.near[key] {
			l.todo[d] = true
		}
		return
	}
	before := l.seen.object(key)
	o := l.registry.Object(key)
	if key.Kind == "Node" {
		l.all = true
	}
	for _, owner := range []models.Object{before, o} {
		if owner != nil && key.Kind != "Node" {
			l.todo[appOf(owner)] = true
		}
	}
	if o == nil {
		l.seen.drop(key)
	} else {
		l.seen.set(o)
	}
}

// pass looks at what is to be looked at. It returns how long to wait before the
// next pass though nothing changes, 0 for ever.
func (l *loop) pass(ctx context.Context) time.Duration {
	told := l.book.take()
	maps.Copy(l.todo, told.apps)
	for node := range told.nodes { // what is shown of its pods is another now
		l.all = true
		l.seen.nodesChanged()
		for key := range l.seen.podsOn[node] {
			l.registry.StatusChanged(key)
		}
	}
	now := l.now()
	if wait := l.retry.Sub(now); wait > 0 {
		return wait
	}
	wait := time.Duration(0)
	if !l.gathered(now) {
		wait = l.began.Add(gathering).Sub(now)
	}
	if l.all {
		if rest := betweenAlls - now.Sub(l.last); rest > 0 {
			wait = rest
		} else {
			maps.Copy(l.todo, l.seen.allKeys())
			l.all, l.last = false, now
			l.book.keep(l.seen.podUIDs())
		}
	}
	for key, at := range l.due {
		if !now.Before(at) {
			l.todo[key] = true
		}
	}
	ok, again := l.dropEnded(ctx, now)
	ok = ok && l.dropOrphans(ctx)
	keys := slices.SortedFunc(maps.Keys(l.todo), func(a, b models.Key) int {
		return cmp.Or(strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name), strings.Compare(a.Kind, b.Kind))
	})
	for _, key := range keys {
		if !ok || ctx.Err() != nil {
			break
		}
		if ok = l.look(ctx, key); ok {
			delete(l.todo, key)
		}
	}
	if !ok {
		l.retry = l.now().Add(retryAfter)
		return retryAfter
	}
	if rest := again.Sub(now); !again.IsZero() && (wait == 0 || rest < wait) {
		wait = max(rest, time.Millisecond)
	}
	for _, at := range l.due {
		if rest := max(at.Sub(now), time.Millisecond); wait == 0 || rest < wait {
			wait = rest
		}
	}
	return wait
}

// dropOrphans deletes what was made for apps that are gone.
func (l *loop) dropOrphans(ctx context.Context) (ok bool) {
	orphans := l.seen.orphans()
	if len(orphans) == 0 {
		return true
	}
	l.log.Info("delete what apps that are gone have left", "objects", len(orphans))
	var put []models.Object
	now := l.now()
	drop := slices.DeleteFunc(orphans, func(key models.Key) bool {
		p, ok := l.seen.byKey[key].(*models.Pod)
		if ok = ok && l.held(p); ok {
			put = append(put, ended(p, now))
		}
		return ok
	})
	return l.apply(ctx, put, drop)
}

// held reports whether a pod's node may have it.
func (l *loop) held(p *models.Pod) bool {
	if l.seen.nodes[p.Spec.NodeName] == nil {
		return false
	}
	cannotRun, _ := l.book.nodeState(p.Spec.NodeName)
	return cannotRun == ""
}

// dropEnded deletes pods that were to end and have. It returns when to look again
// though nobody tells of any.
func (l *loop) dropEnded(ctx context.Context, now time.Time) (ok bool, again time.Time) {
	var drop []models.Key
	var uids []string
	for _, pods := range l.seen.ending {
		for _, p := range pods {
			at, known := now, true
			if l.held(p) {
				at, known = l.book.endOf(p)
			}
			switch {
			case !known:
			case !at.After(now):
				drop, uids = append(drop, models.KeyOf(p)), append(uids, p.Metadata.UID)
			case again.IsZero() || at.Before(again):
				again = at
			}
		}
	}
	if len(drop) > 0 {
		if !l.apply(ctx, nil, drop) {
			return false, again
		}
		l.book.left(uids)
	}
	return true, again
}

func (l *loop) apply(ctx context.Context, put []models.Object, drop []models.Key) (ok bool) {
	keys := slices.Clone(drop)
	for _, o := range put {
		keys = append(keys, models.KeyOf(o))
	}
	if err := l.registry.Apply(ctx, put, drop); err != nil {
		if ctx.Err() == nil {
			l.log.Error("store what workloads are to be; trying again", "error", err)
		}
		return false
	}
	// Seen at once, so that the next app's plan counts it. The registry tells of it too.
	for _, key := range keys {
		if o := l.registry.Object(key); o != nil {
			l.seen.set(o)
		} else {
			l.seen.drop(key)
		}
	}
	return true
}

// look makes the plan for one app, and stores it.
func (l *loop) look(ctx context.Context, key models.Key) (ok bool) {
	delete(l.due, key)
	d := l.seen.apps[key]
	if d == nil {
		l.book.forget(key)
		return true
	}
	uid := d.Meta().UID
	in := Input{App: d, Taken: l.seen.takenFrom(d), Before: l.book.progress(d), Now: l.now(), Cluster: l.cluster()}
	for _, r := range l.seen.revisions[uid] {
		in.Revisions = append(in.Revisions, r)
	}
	for _, p := range l.seen.pods[uid] {
		status, reachable := l.book.podStatus(p)
		in.Pods = append(in.Pods, Pod{p, status, reachable, l.book.readySince(p), l.held(p)})
	}
	in.Ending = map[string]bool{}
	for name, p := range l.seen.ending[key.Namespace] {
		in.Ending[name] = ownerOf(p) == uid
	}
	in.NearNode, in.NearTrouble = l.near(d)
	plan := Reconcile(in)
	if len(plan.Put)+len(plan.Drop) > 0 {
		l.log.Info("app", "kind", key.Kind, "namespace", key.Namespace, "name", key.Name, "plan", plan.String())
		if !l.apply(ctx, plan.Put, plan.Drop) {
			return false
		}
	}
	if !plan.Again.IsZero() {
		l.due[key] = plan.Again
	}
	unplaced := map[string]placement.Place{}
	for name, place := range plan.Unplaced {
		if p := l.seen.pods[uid][name]; p != nil {
			unplaced[p.Metadata.UID] = place
		}
	}
	changed, happened := l.book.judged(d, &plan, unplaced, l.seen.pods[uid])
	for _, key := range changed {
		l.registry.StatusChanged(key)
	}
	l.raise(happened)
	return true
}

func (c *Controller) raise(happened []models.Occurrence) {
	if c.events == nil {
		return
	}
	for _, o := range happened {
		c.events.Raise(o)
	}
}

// near returns the node that serves the template's nearDevice, or why none does.
func (l *loop) near(app models.Workload) (node, trouble string) {
	name := app.PodTemplate().Spec.NearDevice
	if name == "" {
		return "", ""
	}
	device, ok := l.registry.Object(models.Key{Kind: "Device", Namespace: app.Meta().Namespace, Name: name}).(*models.Device)
	switch {
	case !ok:
		return "", "device " + name + ", which spec.nearDevice names, does not exist"
	case device.Spec.Node == "":
		return "", "device " + name + ", which spec.nearDevice names, is served by no node"
	case l.seen.nodes[device.Spec.Node] == nil:
		return "", "device " + name + " is to be served by node " + device.Spec.Node + ", which has not joined"
	}
	return device.Spec.Node, ""
}

// cluster returns the nodes and what is on them.
func (l *loop) cluster() placement.Cluster {
	if l.seen.list == nil {
		l.seen.list = []placement.Node{}
		for _, name := range slices.Sorted(maps.Keys(l.seen.nodes)) {
			n := placement.Node{Name: name, Labels: l.seen.nodes[name].Metadata.Labels}
			n.CannotRun, n.Trouble = l.book.nodeState(name)
			if !l.began.IsZero() && n.Trouble == "" {
				n.Trouble = "waits a moment: the hub has just started, and other nodes may come back"
			}
			l.seen.list = append(l.seen.list, n)
		}
	}
	return placement.Cluster{Nodes: l.seen.list, Load: l.seen.load, Ports: l.seen.ports}
}
