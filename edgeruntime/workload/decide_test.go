package workload

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/engine"
	"github.com/whimbrel-edge/whimbrel/models"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// gen makes a generation with one container.
func gen(hash string, change ...func(*Generation, *Container)) Generation {
	g := Generation{Hash: hash, RestartPolicy: models.RestartAlways, Containers: []Container{{Name: "main", Image: ImageReady}}}
	for _, c := range change {
		c(&g, &g.Containers[0])
	}
	return g
}

func running(_ *Generation, c *Container) {
	c.ID, c.State, c.StartedAt = "id", engine.Running, noon
}
func steady(g *Generation, _ *Container) { g.Steady = true }
func served(g *Generation, _ *Container) { g.Served = true }
func port(g *Generation, _ *Container)   { g.Claims = []Claim{{What: "TCP/80"}} }
func exited(code int) func(*Generation, *Container) {
	return func(_ *Generation, c *Container) {
		c.ID, c.State, c.ExitCode, c.StartedAt = "id", engine.Exited, code, noon
	}
}
func image(s ImageState) func(*Generation, *Container) {
	return func(_ *Generation, c *Container) { c.Image = s }
}

func TestDecide(t *testing.T) {
	later := noon.Add(time.Minute)
	for name, tt := range map[string]struct {
		wanted string
		gens   []Generation
		want   Step
	}{
		"nothing is wanted or there":        {"", nil, Step{Verb: Wait}},
		"an image is looked for":            {"a", []Generation{gen("a", image(ImageUnknown))}, Step{Verb: Fetch, Generation: "a", Container: "main"}},
		"an image is on its way":            {"a", []Generation{gen("a", image(ImageComing))}, Step{Verb: Wait}},
		"all is there":                      {"a", []Generation{gen("a")}, Step{Verb: Make, Generation: "a", Container: "main"}},
		"something is missing":              {"a", []Generation{gen("a", func(g *Generation, _ *Container) { g.Missing = "x" })}, Step{Verb: Wait}},
		"made, not started":                 {"a", []Generation{gen("a", running, func(_ *Generation, c *Container) { c.State = engine.Created })}, Step{Verb: Start, Generation: "a", Container: "main"}},
		"runs":                              {"a", []Generation{gen("a", running)}, Step{Verb: Wait}},
		"has run for a while":               {"a", []Generation{gen("a", running, steady)}, Step{Verb: Serve, Generation: "a"}},
		"unhealthy":                         {"a", []Generation{gen("a", running, func(_ *Generation, c *Container) { c.Unhealthy = true })}, Step{Verb: Stop, Generation: "a", Container: "main", Why: "it is not healthy"}},
		"ended":                             {"a", []Generation{gen("a", exited(1))}, Step{Verb: Start, Generation: "a", Container: "main"}},
		"ended, and waits":                  {"a", []Generation{gen("a", exited(1), func(_ *Generation, c *Container) { c.RetryAt = later })}, Step{Verb: Wait, Generation: "a", Container: "main", Until: later}},
		"ended for good":                    {"a", []Generation{gen("a", exited(0), func(g *Generation, _ *Container) { g.RestartPolicy = models.RestartOnFailure })}, Step{Verb: Wait}},
		"cannot be started":                 {"a", []Generation{gen("a", exited(1), func(_ *Generation, c *Container) { c.Broken = true })}, Step{Verb: Remove, Generation: "a", Container: "main", IDs: []string{"id"}, Why: "the engine could not start it"}},
		"paused by somebody":                {"a", []Generation{gen("a", running, func(_ *Generation, c *Container) { c.State = engine.Paused })}, Step{Verb: Wait}},
		"a stray":                           {"a", []Generation{gen("a", running, func(g *Generation, _ *Container) { g.Strays = []string{"x"} })}, Step{Verb: Remove, Generation: "a", IDs: []string{"x"}, Why: "its spec does not name them"}},
		"not wanted":                        {"", []Generation{gen("a", running, served)}, Step{Verb: Remove, Generation: "a", IDs: []string{"id"}, Why: "it is not wanted"}},
		"not wanted, gone":                  {"", []Generation{gen("a")}, Step{Verb: Forget, Generation: "a"}},
		"beside: the new one is made":       {"b", []Generation{gen("a", running, served, steady), gen("b")}, Step{Verb: Make, Generation: "b", Container: "main"}},
		"beside: the old one ended":         {"b", []Generation{gen("a", exited(1), served), gen("b", image(ImageComing))}, Step{Verb: Start, Generation: "a", Container: "main"}},
		"beside: not steady yet":            {"b", []Generation{gen("a", running, served, steady), gen("b", running)}, Step{Verb: Wait}},
		"beside: the new one serves":        {"b", []Generation{gen("a", running, served, steady), gen("b", running, steady)}, Step{Verb: Serve, Generation: "b"}},
		"beside: the old one goes":          {"b", []Generation{gen("a", running, served, steady), gen("b", running, steady, served)}, Step{Verb: Remove, Generation: "a", IDs: []string{"id"}, Why: "it is not wanted"}},
		"beside: one that never served":     {"b", []Generation{gen("a", running), gen("b")}, Step{Verb: Remove, Generation: "a", IDs: []string{"id"}, Why: "it is not wanted"}},
		"in place: first the image":         {"b", []Generation{gen("a", running, served, port), gen("b", port, image(ImageUnknown))}, Step{Verb: Fetch, Generation: "b", Container: "main"}},
		"in place: no image":                {"b", []Generation{gen("a", running, served, port), gen("b", port, image(ImageFailed))}, Step{Verb: Wait}},
		"in place: room is made":            {"b", []Generation{gen("a", running, served, port), gen("b", port)}, Step{Verb: Suspend, Generation: "a", Why: "the new one needs its ports"}},
		"in place: another address":         {"b", []Generation{gen("a", running, served, func(g *Generation, _ *Container) { g.Claims = []Claim{{"TCP/80", "10.0.0.1"}} }), gen("b", func(g *Generation, _ *Container) { g.Claims = []Claim{{"TCP/80", "10.0.0.2"}} })}, Step{Verb: Make, Generation: "b", Container: "main"}},
		"in place: it could not be stopped": {"b", []Generation{gen("a", running, served, port, suspended), gen("b", port)}, Step{Verb: Suspend, Generation: "a", Why: "the new one needs its ports"}},
		"in place: the new one is made":     {"b", []Generation{gen("a", exited(0), served, port, suspended), gen("b", port)}, Step{Verb: Make, Generation: "b", Container: "main"}},
		"in place: not ready yet":           {"b", []Generation{gen("a", exited(0), served, port, suspended), gen("b", port, running)}, Step{Verb: Wait, Until: noon.Add(2 * time.Minute)}},
		"in place: it fails":                {"b", []Generation{gen("a", exited(0), served, port, suspended), gen("b", port, exited(1), func(_ *Generation, c *Container) { c.Failed = 1 })}, Step{Verb: GiveUp, Generation: "b", Why: "container main does not come up"}},
		"in place: it takes too long":       {"b", []Generation{gen("a", exited(0), served, port, suspended, func(g *Generation, _ *Container) { g.SuspendedAt = noon.Add(-2 * time.Minute) }), gen("b", port, running)}, Step{Verb: GiveUp, Generation: "b", Why: "it was not ready after 2m0s"}},
		"given up: it goes":                 {"b", []Generation{gen("a", exited(0), served, port, suspended), gen("b", port, running, givenUp)}, Step{Verb: Remove, Generation: "b", IDs: []string{"id"}, Why: "it was given up"}},
		"given up: the way back":            {"b", []Generation{gen("a", exited(0), served, port, suspended), gen("b", port, givenUp)}, Step{Verb: Resume, Generation: "a"}},
		"given up: the old one runs":        {"b", []Generation{gen("a", exited(0), served, port), gen("b", port, givenUp)}, Step{Verb: Start, Generation: "a", Container: "main"}},
		"suspended, and wanted again":       {"a", []Generation{gen("a", exited(0), served, port, suspended)}, Step{Verb: Resume, Generation: "a"}},
		"suspended for what is gone":        {"c", []Generation{gen("a", exited(0), served, port, suspended), gen("c")}, Step{Verb: Resume, Generation: "a"}},
	} {
		t.Run(name, func(t *testing.T) {
			v := View{Wanted: tt.wanted, Generations: tt.gens, Deadline: 2 * time.Minute}
			if got := v.Decide(noon); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

func suspended(g *Generation, _ *Container) { g.Suspended, g.SuspendedAt = true, noon }
func givenUp(g *Generation, _ *Container)   { g.GivenUp = true }

// place is a slot with an engine that does at once what it is told, for
// random walks.
type place struct {
	rng  *rand.Rand
	now  time.Time
	next int
	v    View
	log  []string
}

func (p *place) gen(hash string) *Generation { return p.v.find(hash) }

// do does a step, and says what must never be.
func (p *place) do(s Step) error {
	p.log = append(p.log, fmt.Sprintf("%s %s %s", s.Verb, s.Generation, s.Container))
	g := p.gen(s.Generation)
	if g == nil && s.Verb != Wait {
		return fmt.Errorf("a step for no generation")
	}
	var c *Container
	if s.Container != "" && s.Verb != Wait {
		c = &g.Containers[slices.IndexFunc(g.Containers, func(c Container) bool { return c.Name == s.Container })]
	}
	switch s.Verb {
	case Fetch:
		c.Image = ImageReady
	case Make, Start:
		if (s.Verb == Make) != (c.ID == "") {
			return fmt.Errorf("%s of a container with the id %q", s.Verb, c.ID)
		}
		for i := range p.v.Generations {
			if o := &p.v.Generations[i]; o.Hash != g.Hash && o.runs() && collide(o, g) {
				return fmt.Errorf("two have the same port")
			}
		}
		if c.ID == "" {
			p.next++
			c.ID, c.SharesID = fmt.Sprint("c", p.next), g.Containers[0].ID
		}
		if c.Name != "main" && g.Containers[0].State != engine.Running {
			return fmt.Errorf("%s before the one whose network it has", s.Verb)
		}
		c.State, c.StartedAt, c.Broken = engine.Running, p.now, false
	case Stop:
		c.State, c.Unhealthy = engine.Exited, false
	case Suspend:
		if wanted := p.gen(p.v.Wanted); !collide(g, wanted) {
			return fmt.Errorf("suspended for nothing")
		}
		g.Suspended, g.SuspendedAt = true, p.now
		for i := range g.Containers {
			if g.Containers[i].State == engine.Running {
				g.Containers[i].State = engine.Exited
			}
		}
	case Resume:
		g.Suspended = false
	case Serve:
		g.Served = true
	case GiveUp:
		g.GivenUp = true
	case Remove:
		if wanted := p.gen(p.v.Wanted); g.Served && g != wanted && wanted != nil && !wanted.Served && !slices.ContainsFunc(p.v.Generations, func(o Generation) bool { return o.Served && o.Hash != g.Hash && o.Hash != p.v.Wanted }) && s.Container == "" {
			return fmt.Errorf("what serves goes before another has served")
		}
		for i := range g.Containers {
			if slices.Contains(s.IDs, g.Containers[i].ID) {
				g.Containers[i] = Container{Name: g.Containers[i].Name, Image: ImageReady}
			}
		}
	case Forget:
		p.v.Generations = slices.DeleteFunc(p.v.Generations, func(o Generation) bool { return o.Hash == s.Generation })
	}
	return nil
}

// happen is something that nobody asked for.
func (p *place) happen() {
	if len(p.v.Generations) == 0 {
		return
	}
	g := &p.v.Generations[p.rng.IntN(len(p.v.Generations))]
	c := &g.Containers[p.rng.IntN(len(g.Containers))]
	switch p.rng.IntN(6) {
	case 0: // it ends
		if c.State == engine.Running {
			c.State, c.ExitCode, g.Steady = engine.Exited, 1, false
			c.Failed++
			c.RetryAt = p.now.Add(time.Duration(p.rng.IntN(20)) * time.Second)
		}
	case 1: // somebody removes it
		*c = Container{Name: c.Name, Image: c.Image, Failed: c.Failed + 1, RetryAt: p.now}
		g.Steady = false
	case 2:
		c.Unhealthy = c.State == engine.Running
	case 3:
		c.Broken = c.ID != "" && c.State != engine.Running
	case 4:
		c.Image = ImageState(p.rng.IntN(4))
	case 5:
		g.Missing = []string{"", "x"}[p.rng.IntN(2)]
	}
}

// want makes another generation the wanted one, or one there is, or none.
func (p *place) want(n int) {
	p.v.Wanted = ""
	if p.rng.IntN(8) == 0 {
		return
	}
	p.v.Wanted = fmt.Sprint("g", p.rng.IntN(n+1))
	if p.gen(p.v.Wanted) == nil {
		g := gen(p.v.Wanted)
		if p.rng.IntN(2) == 0 {
			g.Claims = []Claim{{What: "TCP/80"}}
		}
		if p.rng.IntN(3) == 0 {
			g.Containers = append(g.Containers, Container{Name: "side"})
		}
		p.v.Generations = append(p.v.Generations, g)
	}
}

// steadies says which generations are ready.
func (p *place) steadies() {
	for i := range p.v.Generations {
		g := &p.v.Generations[i]
		g.Steady = !slices.ContainsFunc(g.Containers, func(c Container) bool { return c.State != engine.Running || c.Unhealthy })
	}
}

// TestDecideConverges lets anything happen to a slot, then nothing more: what is
// wanted then runs, alone, or was given up and the former runs.
func TestDecideConverges(t *testing.T) {
	for seed := range uint64(3000) {
		p := &place{rng: rand.New(rand.NewPCG(seed, 7)), now: noon, v: View{Deadline: time.Minute}}
		fail := func(err error) { t.Fatalf("seed %d: %v\n%v\n%+v", seed, err, p.log[max(0, len(p.log)-20):], p.v) }
		for i := range 60 {
			p.now = p.now.Add(time.Second)
			switch p.rng.IntN(6) {
			case 0:
				p.happen()
			case 1:
				if i%5 == 0 {
					p.want(i)
				}
			case 2:
				p.steadies()
			default:
				if err := p.do(p.v.Decide(p.now)); err != nil {
					fail(err)
				}
			}
		}
		for range 300 {
			p.now = p.now.Add(time.Second)
			p.steadies()
			for i := range p.v.Generations {
				p.v.Generations[i].Missing = ""
				for j := range p.v.Generations[i].Containers {
					c := &p.v.Generations[i].Containers[j]
					if c.Image == ImageFailed || c.Image == ImageComing {
						c.Image = ImageReady
					}
					if c.State == engine.Running {
						c.Failed = 0
					}
				}
			}
			if err := p.do(p.v.Decide(p.now)); err != nil {
				fail(err)
			}
		}
		for _, g := range p.v.Generations {
			wanted := p.gen(p.v.Wanted)
			switch {
			case wanted == nil:
				fail(fmt.Errorf("%s is left", g.Hash))
			case g.Hash == p.v.Wanted && !g.Steady && !g.GivenUp:
				fail(fmt.Errorf("%s does not run", g.Hash))
			case g.Hash != p.v.Wanted && (!wanted.GivenUp || !g.Steady):
				fail(fmt.Errorf("%s is there beside %s", g.Hash, p.v.Wanted))
			}
		}
	}
}
