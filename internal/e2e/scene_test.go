package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/internal/clockjump"
	"github.com/whimbrel-edge/whimbrel/internal/faultproxy"
	"github.com/whimbrel-edge/whimbrel/internal/pgtest"
)

// act is what is done in one round of a campaign: a function of seed and number,
// so that a round can be played again without those before it.
type act struct {
	before  time.Duration            // of load, until anything happens
	links   map[string]linkFault     // by node
	clocks  map[string]time.Duration // how far the wall clock of a process is put ahead
	full    string                   // the node whose disk is full
	victims []victim                 // die one after another
	down    time.Duration            // before they are started again
	after   time.Duration            // before links, clocks and disks are as they should be
	calm    bool                     // and everything is well before the next round
}

type linkFault struct {
	mode   faultproxy.Mode
	jitter time.Duration
}

type victim struct {
	who  string
	step string        // where it dies, "" anywhere. Of postgres: where the hub is meanwhile
	wait time.Duration // before, in which the others go on as if nothing had happened
}

func (v victim) String() string {
	if v.step == "" {
		return v.who
	}
	return v.who + " at " + v.step
}

func (a act) String() string {
	var parts []string
	for _, v := range a.victims {
		parts = append(parts, "kill "+v.String())
	}
	for _, n := range campaigners {
		if f, ok := a.links[n]; ok {
			text := fmt.Sprintf("link of %s: %v", n, f.mode)
			if f.jitter > 0 {
				text += fmt.Sprintf(" and late by up to %v", f.jitter)
			}
			parts = append(parts, text)
		}
	}
	for _, p := range []string{"hub", "east", "west"} {
		if ahead, ok := a.clocks[p]; ok {
			parts = append(parts, fmt.Sprintf("clock of %s: %s", p, time.Now().Add(ahead).UTC().Format("2006-01-02")))
		}
	}
	if a.full != "" {
		parts = append(parts, "disk of "+a.full+" full")
	}
	return strings.Join(parts, "; ")
}

// campaigners are the nodes.
var campaigners = []string{"east", "west"}

// steps are where processes die, beside anywhere. Starting says that a step is one
// of the start.
var steps = map[string][]string{
	"hub":      {"ingest.commit", "ingest.committed", "history.compact", "history.compact.deleted", "history.merge", "twins.checkpoint", "registry.commit", "registry.committed", "migration.step"},
	"postgres": {"ingest.commit", "history.compact", "history.compact.deleted", "twins.checkpoint", "registry.commit"},
	"east":     {"outbox.append", "outbox.stored", "outbox.trim", "sync.apply", "sync.stored", "outbox.open", "migration.step"},
}

func starting(step string) bool { return step == "migration.step" || step == "outbox.open" }

// spoilt are the modes of a bad link.
var spoilt = []faultproxy.Mode{faultproxy.Pass, faultproxy.Cut, faultproxy.Refuse, faultproxy.Stall, faultproxy.Blackhole, faultproxy.DropUp,
	faultproxy.DropDown, faultproxy.Trickle, faultproxy.Overtake}

// opening are the first rounds of every campaign, which have something of
// everything.
var opening = []act{
	{victims: []victim{{who: "hub", step: "ingest.committed"}, {who: "west", step: "outbox.stored"}}, links: map[string]linkFault{"east": {mode: faultproxy.Cut}}, calm: true},
	{full: "west", after: 2500 * time.Millisecond, links: map[string]linkFault{"east": {mode: faultproxy.Pass, jitter: 150 * time.Millisecond}}, calm: true},
	{clocks: map[string]time.Duration{"hub": years(74), "west": years(-56)}, victims: []victim{{who: "east", step: "outbox.append"}}, after: 1500 * time.Millisecond, calm: true},
	{victims: []victim{{who: "postgres", step: "ingest.commit"}}, links: map[string]linkFault{"west": {mode: faultproxy.Overtake}}, after: 2 * time.Second, calm: true},
	{clocks: map[string]time.Duration{"east": years(74), "hub": -time.Hour}, victims: []victim{{who: "hub", step: "migration.step"}, {who: "east", step: "outbox.open"}},
		links: map[string]linkFault{"west": {mode: faultproxy.Blackhole}}, after: time.Second},
}

func years(n int) time.Duration { return time.Duration(n) * 365 * 24 * time.Hour }

// scene makes the act of a round.
func scene(seed uint64, round int) act {
	rng := rand.New(rand.NewPCG(seed, uint64(round)+2))
	between := func(least, most int) time.Duration {
		return time.Duration(least+rng.IntN(most-least)) * time.Millisecond
	}
	if round < len(opening) {
		a := opening[round]
		a.before, a.down = between(300, 1000), between(0, 500)
		return a
	}
	a := act{before: between(300, 1500), down: between(0, 800), after: between(0, 2000), calm: rng.IntN(2) == 0,
		links: map[string]linkFault{}, clocks: map[string]time.Duration{}}
	for _, n := range campaigners {
		if rng.IntN(2) == 0 {
			f := linkFault{mode: spoilt[rng.IntN(len(spoilt))]}
			if f.mode == faultproxy.Pass || rng.IntN(4) == 0 {
				f.jitter = between(10, 300)
			}
			a.links[n] = f
		}
	}
	for _, p := range []string{"hub", "east", "west"} {
		if rng.IntN(6) == 0 {
			// Days that differ from round to round, so that samples tell which clock they are by.
			day := time.Duration(2*round) * 24 * time.Hour
			a.clocks[p] = []time.Duration{years(74) + day, years(-56) + day, years(1) + day, -years(1) - day}[rng.IntN(4)]
		}
	}
	if rng.IntN(6) == 0 {
		a.full = "west"
		a.after += time.Second
	}
	for _, who := range []string{"hub", "postgres", "east", "west"} {
		if rng.IntN(3) > 0 {
			continue
		}
		v := victim{who: who, wait: between(0, 800)}
		of := steps[who]
		if who == "west" {
			of = steps["east"]
		}
		if rng.IntN(3) > 0 {
			v.step = of[rng.IntN(len(of))]
		}
		a.victims = append(a.victims, v)
	}
	rng.Shuffle(len(a.victims), func(i, j int) { a.victims[i], a.victims[j] = a.victims[j], a.victims[i] })
	return a
}

// campaign plays acts to a hub on Postgres and two edges.
type campaign struct {
	t     testing.TB
	hub   *hub
	steps string // where the hub looks for what to do at its steps
	pg    *pgtest.Server
	nodes []*campaignNode
	round int
	done  tally
}

type campaignNode struct {
	*counters
	edge     *edge
	steps    string
	disk     string // the file system of its own that it is on, "" for none
	proxy    *faultproxy.Proxy
	witness  *witness
	jumps    []time.Duration // what its clock has shown
	filled   int             // how often its disk was full
	diedFull bool            // and it was killed meanwhile
}

// tally counts what was done.
type tally struct {
	kills           map[string]int // by who and step
	links, clocks   int
	disks, unstruck int // unstruck: steps that were not reached in time
}

func (d tally) String() string {
	all := 0
	var by []string
	for what, n := range d.kills {
		all += n
		by = append(by, fmt.Sprintf("%s %d", what, n))
	}
	slices.Sort(by)
	return fmt.Sprintf("%d kills (%s; %d more steps were not reached and their process died elsewhere), %d bad links, %d clock jumps, %d full disks",
		all, strings.Join(by, ", "), d.unstruck, d.links, d.clocks, d.disks)
}

func newCampaign(t testing.TB, seed uint64) *campaign {
	t.Helper()
	c := &campaign{t: t, pg: pgtest.StartServer(t, pgtest.Options{Fsync: true}), steps: t.TempDir(), done: tally{kills: map[string]int{}}}
	environment := func(dir string) []string { return []string{"WHIMBREL_FAILPOINTS=" + dir} }
	c.hub = newHubWith(t, environment(c.steps), c.pg.URL("postgres"))
	for i, node := range campaigners {
		n := &campaignNode{counters: newCounters(t, node, 25, 20, i*500), proxy: faultproxy.New(t, c.hub.link), steps: t.TempDir()}
		data := t.TempDir()
		if node == "west" {
			n.disk = smallDisk(t, data)
		}
		c.hub.apply(n.manifests(500 * time.Millisecond))
		n.edge = newEdgeIn(t, data, environment(n.steps), c.hub, node, n.proxy.Addr())
		n.witness = n.edge.watch(t)
		c.nodes = append(c.nodes, n)
	}
	for _, n := range c.nodes {
		c.hub.awaitNode(t, n.node, true)
		n.eventuallyLive(t, c.hub)
	}
	return c
}

// play plays one act.
func (c *campaign) play(a act) {
	c.t.Helper()
	c.t.Logf("round %d: %v", c.round+1, a)
	pause(a.before)
	for _, n := range c.nodes {
		if f, ok := a.links[n.node]; ok {
			n.proxy.SetJitter(0, f.jitter)
			n.proxy.Set(f.mode)
			c.done.links++
		}
		if n.node == a.full && n.disk != "" {
			n.fill(c.t)
			c.done.disks++
		}
	}
	for who, ahead := range a.clocks {
		c.jump(who, ahead)
	}
	for _, v := range a.victims {
		pause(v.wait)
		c.kill(v, a.full == v.who)
	}
	pause(a.down)
	for _, v := range a.victims {
		c.start(v)
	}
	pause(a.after)
	for _, n := range c.nodes {
		n.proxy.Set(faultproxy.Pass)
		n.proxy.SetJitter(0, 0)
		if n.node == a.full && n.disk != "" {
			n.empty(c.t)
		}
		if how, gone := n.edge.gone(); gone && n.node == a.full {
			c.t.Logf("%s gave up on its full disk (%s) and is started again", n.node, how)
			n.edge.kill()
			n.edge.again()
		}
	}
	for who := range a.clocks {
		c.jump(who, 0)
	}
	if a.calm {
		c.calm()
	}
}

func (c *campaign) process(who string) (p *process, steps string) {
	for _, n := range c.nodes {
		if n.node == who {
			return n.edge.process, n.steps
		}
	}
	return c.hub.process, c.steps
}

// jump puts the clock of a process ahead of the machine's.
func (c *campaign) jump(who string, ahead time.Duration) {
	c.t.Helper()
	p, _ := c.process(who)
	if _, gone := p.gone(); gone {
		return // its next life has the right time
	}
	for _, n := range c.nodes {
		if n.node == who && ahead != 0 {
			n.jumps = append(n.jumps, ahead)
		}
	}
	clock, err := clockjump.Of(p.pid())
	if err == nil {
		err = clock.Set(ahead)
	}
	switch {
	case errors.Is(err, clockjump.ErrUnsupported):
		c.t.Logf("no clock jumps: %v", err)
	case err != nil:
		if _, gone := p.gone(); !gone {
			c.t.Fatalf("clock of %s: %v", who, err)
		}
	case ahead != 0:
		c.done.clocks++
	}
}

// reached is how long a process has to come to a step.
const reached = 3 * time.Second

// kill kills a victim, at its step if it comes there in time.
func (c *campaign) kill(v victim, full bool) {
	c.t.Helper()
	if v.who == "postgres" {
		c.killPostgres(v)
		return
	}
	p, dir := c.process(v.who)
	struck := v.step == ""
	if v.step != "" {
		if starting(v.step) {
			p.kill()
		}
		at := filepath.Join(dir, v.step)
		if err := os.WriteFile(at, []byte("kill"), 0o600); err != nil {
			c.t.Fatal(err)
		}
		if starting(v.step) {
			c.begin(v.who)
		}
		struck = awaited(reached, func() error {
			if _, gone := p.gone(); !gone {
				return errors.New("it lives")
			}
			return nil
		}) == nil
		if os.Remove(at) == nil {
			struck = false // it ended before it came there
		}
	}
	p.kill()
	c.count(v, struck)
	for _, n := range c.nodes {
		if n.node == v.who && full {
			n.diedFull = true
		}
	}
}

// killPostgres kills it while the hub stands at a step.
func (c *campaign) killPostgres(v victim) {
	c.t.Helper()
	at, struck := filepath.Join(c.steps, v.step), v.step == ""
	if v.step != "" {
		if err := os.WriteFile(at, []byte("pause"), 0o600); err != nil {
			c.t.Fatal(err)
		}
		struck = awaited(reached, func() error { _, err := os.Stat(at + ".reached"); return err }) == nil
	}
	if err := c.pg.Kill9(); err != nil {
		c.t.Fatal(err)
	}
	if v.step != "" {
		_ = os.Remove(at) // if it was not reached
		_ = os.Remove(at + ".reached")
	}
	c.count(v, struck)
}

func (c *campaign) count(v victim, struck bool) {
	if !struck {
		c.done.unstruck++
		v.step = ""
	}
	c.done.kills[v.String()]++
}

func (c *campaign) start(v victim) {
	c.t.Helper()
	if v.who != "postgres" {
		c.begin(v.who)
	} else if err := c.pg.Start(); err != nil {
		c.t.Fatal(err)
	}
}

func (c *campaign) begin(who string) {
	c.t.Helper()
	for _, n := range c.nodes {
		if n.node == who {
			n.edge.again()
			return
		}
	}
	c.hub.begin()
}

// fill leaves no space on the node's disk.
func (n *campaignNode) fill(t testing.TB) {
	t.Helper()
	n.filled++
	f, err := os.Create(n.ballast())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 4096); err == nil; {
		_, err = f.Write(block)
	}
}

func (n *campaignNode) empty(t testing.TB) {
	t.Helper()
	if err := os.Remove(n.ballast()); err != nil {
		t.Fatal(err)
	}
}

func (n *campaignNode) ballast() string { return filepath.Join(n.disk, "ballast") }

// calm waits until hub and nodes have found each other.
func (c *campaign) calm() {
	c.t.Helper()
	if _, gone := c.hub.gone(); gone {
		// A hub that starts without its database may give up; whoever runs it
		// starts it again.
		c.t.Log("the hub gave up and is started again")
		c.hub.kill()
		c.hub.begin()
	}
	c.hub.awaitReady()
	for _, n := range c.nodes {
		c.hub.awaitNode(c.t, n.node, true)
	}
}

// pause lets the load run.
func pause(d time.Duration) {
	time.Sleep(d) //sleep: the moments of a campaign are random
}
