package workload

import (
	"slices"
	"time"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/engine"
	"github.com/whimbrel-edge/whimbrel/models"
)

// This file decides what happens next in a slot. It is a function of what is
// wanted, what was seen and the time: it does nothing and looks at no clock.

// View is all that a decision needs to know of a slot.
type View struct {
	// Wanted is the generation that is to run, "" for none.
	Wanted string
	// Generations are those that are wanted or of which something is left, oldest
	// first. Wanted is one of them.
	Generations []Generation
	// Deadline is how long a generation in whose favour another was stopped has
	// to become ready.
	Deadline time.Duration
}

// Generation is one version of a pod: its containers are made from one spec.
type Generation struct {
	Hash string
	// RestartPolicy is one of models.Restart….
	RestartPolicy string
	// Claims are what of the machine only one can have: its ports, device files,
	// and the network as a whole.
	Claims     []Claim
	Containers []Container // as the spec orders them; the first one's network is that of all
	Strays     []string    // ids of containers that the spec does not name
	// Missing says what it lacks that is not an image, such as a ConfigMap; ""
	// when nothing.
	Missing string
	// Served: it has been ready, and is what others take the place of.
	Served bool
	// Steady: it is ready, and has been for long enough to take another's place.
	Steady bool
	// Suspended: it was stopped to make room for the wanted one, at SuspendedAt.
	Suspended   bool
	SuspendedAt time.Time
	// GivenUp: it did not come up and left its place to the one before.
	GivenUp bool
}

// Container is one of a generation's.
type Container struct {
	Name  string
	Image ImageState
	// ID is the engine's, "" when there is none.
	ID        string
	State     engine.State
	ExitCode  int
	StartedAt time.Time
	SharesID  string // whose network it was made to share
	// Failed counts how often it has ended, or could not be started, since it last
	// ran for long.
	Failed int
	// RetryAt is when it may be made or started again.
	RetryAt time.Time
	// Done: it has ended for good, although nothing of it is left.
	Done bool
	// Broken: the engine could not start it. It is made anew: what engines leave
	// behind when they are ended at the wrong moment can keep one from ever starting.
	Broken bool
	// Unhealthy: it runs, and a probe says that it had better be started anew.
	Unhealthy bool
}

// ImageState says whether a container's image is here.
type ImageState int

// The states of images.
const (
	ImageUnknown ImageState = iota // nobody has looked yet
	ImageReady
	ImageComing
	ImageFailed // and is tried again by itself
)

// Verb is what a Step does.
type Verb string

// The verbs. Each is about the generation that the Step names.
const (
	Wait    Verb = "wait"    // there is nothing to do before Until
	Fetch   Verb = "fetch"   // have the image of Container looked for; then as Wait
	Make    Verb = "make"    // create Container and start it
	Start   Verb = "start"   // start Container, which is there
	Stop    Verb = "stop"    // stop Container, which is then started again when its time comes
	Remove  Verb = "remove"  // stop and remove the containers in IDs
	Suspend Verb = "suspend" // stop all, to make room; first remember that
	Resume  Verb = "resume"  // remember that it is not suspended any more
	Serve   Verb = "serve"   // remember that it has served
	GiveUp  Verb = "give up" // remember that it does not come up
	Forget  Verb = "forget"  // nothing of it is left: forget it
)

// Step is what to do next.
type Step struct {
	Verb       Verb
	Generation string
	Container  string   // its name
	IDs        []string // of containers
	Until      time.Time
	Why        string
}

// Decide returns the next step.
func (v View) Decide(now time.Time) Step {
	wanted, former := v.find(v.Wanted), (*Generation)(nil)
	for i := range v.Generations {
		if g := &v.Generations[i]; g.Hash != v.Wanted && g.Served {
			former = g
		}
	}
	if wanted != nil && wanted.Served && wanted.Steady && !wanted.GivenUp {
		former = nil // it has done its part
	}
	keeps := func(g *Generation) bool { return v.Wanted != "" && (g == wanted || g == former) }
	for i := range v.Generations {
		g := &v.Generations[i]
		if keeps(g) {
			if len(g.Strays) > 0 {
				return Step{Verb: Remove, Generation: g.Hash, IDs: g.Strays, Why: "its spec does not name them"}
			}
			continue
		}
		if ids := g.ids(); len(ids) > 0 {
			return Step{Verb: Remove, Generation: g.Hash, IDs: ids, Why: "it is not wanted"}
		}
		return Step{Verb: Forget, Generation: g.Hash}
	}
	switch {
	case wanted == nil:
		return Step{Verb: Wait}
	case wanted.GivenUp && former != nil:
		return back(wanted, former, now)
	case wanted.Suspended: // and wanted again
		return Step{Verb: Resume, Generation: wanted.Hash}
	case wanted.Steady && !wanted.Served:
		return Step{Verb: Serve, Generation: wanted.Hash}
	case former == nil:
		return wanted.run(now)
	}
	return v.replace(wanted, former, now)
}

// replace brings the wanted generation up beside the former or, where they cannot
// be at the same time, in its place.
func (v View) replace(wanted, former *Generation, now time.Time) Step {
	if !collide(wanted, former) {
		if former.Suspended {
			return Step{Verb: Resume, Generation: former.Hash}
		}
		return both(former.run(now), wanted.run(now))
	}
	if !former.Suspended || former.runs() {
		// What can be found out while the former runs is.
		if step, ok := wanted.prepare(); !ok {
			return both(former.run(now), step)
		}
		return Step{Verb: Suspend, Generation: former.Hash, Why: "the new one needs its ports"}
	}
	for _, c := range wanted.Containers {
		if c.Failed > 0 {
			return Step{Verb: GiveUp, Generation: wanted.Hash, Why: "container " + c.Name + " does not come up"}
		}
	}
	end := former.SuspendedAt.Add(v.Deadline)
	if !now.Before(end) {
		return Step{Verb: GiveUp, Generation: wanted.Hash, Why: "it was not ready after " + v.Deadline.String()}
	}
	return both(wanted.run(now), Step{Verb: Wait, Until: end})
}

// back lets the former generation run again after the wanted one was given up.
func back(wanted, former *Generation, now time.Time) Step {
	if ids := wanted.ids(); len(ids) > 0 {
		return Step{Verb: Remove, Generation: wanted.Hash, IDs: ids, Why: "it was given up"}
	}
	if former.Suspended {
		return Step{Verb: Resume, Generation: former.Hash}
	}
	return former.run(now)
}

// both is the first of two steps that does something, or the shorter wait.
func both(a, b Step) Step {
	switch {
	case a.Verb != Wait:
		return a
	case b.Verb != Wait:
		return b
	case a.Until.IsZero() || !b.Until.IsZero() && b.Until.Before(a.Until):
		return b
	}
	return a
}

// Claim is something of the machine that only one container can have.
type Claim struct {
	What string // tcp/8080, device//dev/ttyUSB0, network
	IP   string // of a port: "" for all addresses
}

// collide reports whether two generations cannot run at the same time.
func collide(a, b *Generation) bool {
	for _, p := range a.Claims {
		if slices.ContainsFunc(b.Claims, func(q Claim) bool { return p.What == q.What && (p.IP == "" || q.IP == "" || p.IP == q.IP) }) {
			return true
		}
	}
	return false
}

// runs reports whether any of its containers does.
func (g *Generation) runs() bool {
	return slices.ContainsFunc(g.Containers, func(c Container) bool { return c.State == engine.Running })
}

func (v View) find(hash string) *Generation {
	i := slices.IndexFunc(v.Generations, func(g Generation) bool { return g.Hash == hash })
	if i < 0 {
		return nil
	}
	return &v.Generations[i]
}

// ids are the containers that there are, the last one first: those that share a
// network go before the one whose it is.
func (g *Generation) ids() []string {
	ids := slices.Clone(g.Strays)
	for _, c := range slices.Backward(g.Containers) {
		if c.ID != "" {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

// prepare looks for what a generation needs before it can run. ok: it is all here.
func (g *Generation) prepare() (_ Step, ok bool) {
	if g.Missing != "" {
		return Step{Verb: Wait}, false
	}
	for _, c := range g.Containers {
		if c.Done {
			continue
		}
		if c.ID == "" && c.Image == ImageUnknown {
			return Step{Verb: Fetch, Generation: g.Hash, Container: c.Name}, false
		}
		if c.ID == "" && c.Image != ImageReady {
			return Step{Verb: Wait}, false
		}
	}
	return Step{}, true
}

// run is the next step towards a generation that runs.
func (g *Generation) run(now time.Time) Step {
	wait := Step{Verb: Wait}
	first := Container{State: engine.Created}
	for i, c := range g.Containers {
		if i == 0 {
			first = c
		}
		var step Step
		switch {
		case i > 0 && first.State != engine.Running && c.State != engine.Running:
			continue // its network is not there
		case i > 0 && c.ID != "" && c.SharesID != first.ID && first.ID != "":
			step = Step{Verb: Remove, IDs: []string{c.ID}, Why: "the container whose network it shares was made anew"}
		case i > 0 && c.State == engine.Running && first.State == engine.Running && first.StartedAt.After(c.StartedAt):
			step = Step{Verb: Stop, Why: "the container whose network it shares was started anew"}
		case c.ID == "" && (c.Done || g.Missing != ""):
			continue
		case c.ID == "" && now.Before(c.RetryAt):
			step = Step{Verb: Wait, Until: c.RetryAt}
		case c.ID == "" && c.Image == ImageUnknown:
			step = Step{Verb: Fetch}
		case c.ID == "" && c.Image != ImageReady:
			continue
		case c.ID == "":
			step = Step{Verb: Make}
		case c.State == engine.Running && c.Unhealthy:
			step = Step{Verb: Stop, Why: "it is not healthy"}
		case c.State == engine.Running, c.State == engine.Paused, c.State == engine.Restarting, c.State == engine.Removing:
			continue
		case c.Broken:
			step = Step{Verb: Remove, IDs: []string{c.ID}, Why: "the engine could not start it"}
		case c.State != engine.Created && !again(g.RestartPolicy, c.ExitCode):
			continue
		case now.Before(c.RetryAt):
			step = Step{Verb: Wait, Until: c.RetryAt}
		case c.State == engine.Dead:
			step = Step{Verb: Remove, IDs: []string{c.ID}, Why: "the engine could not remove it before"}
		default:
			step = Step{Verb: Start}
		}
		step.Generation, step.Container = g.Hash, c.Name
		wait = both(wait, step)
	}
	return wait
}

// again reports whether a container that has ended is to be started again.
func again(policy string, exitCode int) bool {
	switch policy {
	case models.RestartNever:
		return false
	case models.RestartOnFailure:
		return exitCode != 0
	}
	return true
}
