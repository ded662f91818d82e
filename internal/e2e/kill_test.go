package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/internal/faultproxy"
	"github.com/whimbrel-edge/whimbrel/internal/pgtest"
)

// setting reads a number from the environment.
func setting(t testing.TB, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// TestKillCampaign runs two edges with 50 devices and 1,000 counters and, under
// this load, kills hub, edges and Postgres and spoils the links. Afterwards
// everything that any edge ever announced is in the history once and in order,
// twins show what the devices hold, and devices hold what was desired.
//
//	WHIMBREL_KILL_ROUNDS=30 WHIMBREL_KILL_SEED=7 go test -run TestKillCampaign -timeout 30m ./internal/e2e
func TestKillCampaign(t *testing.T) {
	rounds := setting(t, "WHIMBREL_KILL_ROUNDS", 4)
	seed := uint64(setting(t, "WHIMBREL_KILL_SEED", int(time.Now().UnixNano()%1_000_000)))
	t.Logf("WHIMBREL_KILL_SEED=%d WHIMBREL_KILL_ROUNDS=%d", seed, rounds)
	rng := rand.New(rand.NewPCG(seed, 0))

	pg := pgtest.StartServer(t, pgtest.Options{Fsync: true})
	h := newHub(t, pg.URL("postgres"))
	c := &campaign{t: t, rng: rng, hub: h, pg: pg}
	for i, node := range []string{"east", "west"} {
		n := &campaignNode{counters: newCounters(t, node, 25, 20, i*500), proxy: faultproxy.New(t, h.link)}
		h.apply(n.manifests(500 * time.Millisecond))
		n.edge = newEdge(t, h, node, n.proxy.Addr())
		n.witness = n.edge.watch(t)
		c.nodes = append(c.nodes, n)
	}
	for _, n := range c.nodes {
		h.awaitNode(t, n.node, true)
		n.eventuallyLive(t, h)
	}

	ctx, cancel := context.WithCancel(t.Context())
	var loops sync.WaitGroup
	defer func() { cancel(); loops.Wait() }()
	loops.Go(func() { neverBack(ctx, t, h) })
	w := &wishes{hub: h, names: append(c.nodes[0].names[:25:25], c.nodes[1].names...), rng: rand.New(rand.NewPCG(seed, 1)),
		setpoints: map[string]int{}, pulses: map[string]int{}}
	stopWishing := make(chan struct{})
	loops.Go(func() { w.run(ctx, t, stopWishing) })

	began := time.Now()
	for round := range rounds {
		c.round(round)
	}
	c.calm()
	t.Logf("%d rounds took %v", rounds, time.Since(began).Round(time.Millisecond))
	close(stopWishing)

	frozen := time.Now()
	for _, n := range c.nodes {
		n.freeze(t)
	}
	for _, n := range c.nodes {
		h.awaitNode(t, n.node, true)
		count := n.now(t)
		eventually(t, 60*time.Second, "twins of "+n.node+" show what the devices hold", func() error { return n.converged(h, count) })
	}
	t.Logf("twins converged within %v", time.Since(frozen).Round(time.Millisecond))
	cancel()
	loops.Wait()

	db := openStore(t, h.database)
	for _, n := range c.nodes {
		count := n.now(t)
		eventually(t, 60*time.Second, "history of "+n.node+" is complete", func() error { return n.stored(t, h, db, frozen.Add(-time.Minute), count) })
		sum := n.check(t, h, db, n.witness, count)
		t.Logf("%s: %d samples stored, %d good, %d of these backfilled; %d announced", n.node, sum.samples, sum.good, sum.backfilled, sum.announced)
		if sum.announced < 1000 || sum.good < sum.announced {
			t.Errorf("%s: %+v tells little", n.node, sum)
		}
		noGaps(t, h, db, n.node)
	}
	w.check(t, c)
	for _, p := range []*process{h.process, c.nodes[0].edge.process, c.nodes[1].edge.process} {
		if how, gone := p.gone(); gone {
			t.Errorf("%s ended by itself: %s", p.name, how)
		}
		if text := p.stderr(); strings.Contains(text, "panic:") || strings.Contains(text, "goroutine 1 [") {
			t.Errorf("%s panicked", p.name)
		}
	}
}

// noGaps checks that nothing was reported missing.
func noGaps(t testing.TB, h *hub, db store.Store, node string) {
	t.Helper()
	o, err := h.object(hubAPI + "/nodes/" + node)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Gaps(t.Context(), o.Metadata.UID, func(g store.Gap) error {
		t.Errorf("%s: a gap: %+v", node, g)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// eventuallyLive waits until every device of the fleet reports.
func (c *counters) eventuallyLive(t testing.TB, h *hub) {
	t.Helper()
	for _, name := range c.names {
		h.awaitTwin(t, 30*time.Second, hubAPI, name, "is live", isGood(counter(0), counter(c.props-1), "setpoint"))
	}
}

type campaignNode struct {
	*counters
	edge    *edge
	proxy   *faultproxy.Proxy
	witness *witness
}

// campaign is what kills.
type campaign struct {
	t     testing.TB
	rng   *rand.Rand
	hub   *hub
	pg    *pgtest.Server
	nodes []*campaignNode
}

// spoilt are the modes of a bad link.
var spoilt = []faultproxy.Mode{faultproxy.Cut, faultproxy.Refuse, faultproxy.Stall, faultproxy.Blackhole, faultproxy.DropUp, faultproxy.DropDown, faultproxy.Trickle}

// victims of the rounds in turn, so that a few rounds hit everyone. In one round
// they die one after another, with a moment between in which the others go on
// as if nothing had happened.
var victims = []string{"hub", "east", "postgres hub", "hub west", "postgres", "east west", "hub east postgres", ""}

func (c *campaign) round(round int) {
	who := victims[round%len(victims)]
	if round >= len(victims) {
		who = victims[c.rng.IntN(len(victims))]
	}
	c.pause(300, 1500)
	said := "kill " + who
	for _, n := range c.nodes {
		if c.rng.IntN(3) > 0 {
			mode := spoilt[c.rng.IntN(len(spoilt))]
			said += fmt.Sprintf(", link of %s: %v", n.node, mode)
			n.proxy.Set(mode)
		}
	}
	c.t.Logf("round %d: %s", round+1, said)
	c.pause(0, 800)
	for i, v := range strings.Fields(who) {
		if i > 0 {
			c.pause(0, 1000)
		}
		switch v {
		case "hub":
			c.hub.kill()
		case "postgres":
			if err := c.pg.Kill9(); err != nil {
				c.t.Fatal(err)
			}
		default:
			c.node(v).edge.kill()
		}
	}
	c.pause(0, 600)
	for _, v := range strings.Fields(who) {
		switch v {
		case "hub":
			c.hub.begin()
		case "postgres":
			if err := c.pg.Start(); err != nil {
				c.t.Fatal(err)
			}
		default:
			c.node(v).edge.again()
		}
		c.pause(0, 200)
	}
	c.pause(0, 2000)
	for _, n := range c.nodes {
		n.proxy.Set(faultproxy.Pass)
	}
	if c.rng.IntN(2) == 0 {
		c.calm()
	}
}

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

func (c *campaign) node(name string) *campaignNode {
	for _, n := range c.nodes {
		if n.node == name {
			return n
		}
	}
	c.t.Fatalf("no node %s", name)
	return nil
}

// pause lets the load run for a random time of milliseconds.
func (c *campaign) pause(least, most int) {
	time.Sleep(time.Duration(least+c.rng.IntN(most-least)) * time.Millisecond) //sleep: the moments of a kill campaign are random
}

// neverBack follows the stream of twins and complains when a good value goes
// back to an older one, as far as one life of the hub goes.
func neverBack(ctx context.Context, t testing.TB, h *hub) {
	complaints := 0
	follow := func() error {
		req, err := http.NewRequestWithContext(ctx, "GET", h.url+hubAPI+"/twins/stream", nil)
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+h.token)
		resp, err := h.http.Transport.RoundTrip(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		last := map[series]int64{}
		lines := bufio.NewReader(resp.Body)
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				return err
			}
			data, ok := strings.CutPrefix(line, "data: ")
			if !ok {
				continue
			}
			var d twinDoc
			if err := json.Unmarshal([]byte(data), &d); err != nil {
				t.Errorf("stream: %s: %v", data, err)
				return nil
			}
			for prop, p := range d.Properties {
				if prop[0] != 'c' || p.Reported == nil || p.Reported.Quality != "good" {
					continue
				}
				v, err := strconv.ParseInt(string(p.Reported.Value), 10, 64)
				if err != nil {
					t.Errorf("stream: %s: %v", data, err)
					return nil
				}
				s := series{d.Device, prop}
				if v < last[s] {
					if complaints++; complaints <= 5 {
						t.Errorf("the twin showed %v go back from %d to %d", s, last[s], v)
					}
				}
				last[s] = v
			}
		}
	}
	for ctx.Err() == nil {
		_ = follow() // ends with every life of the hub
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// wishes sets desired values during the campaign.
type wishes struct {
	hub   *hub
	names []string
	rng   *rand.Rand

	mu        sync.Mutex
	next      int
	setpoints map[string]int // by device: the last one accepted
	pulses    map[string]int
	accepted  int
	hidden    int // requests whose answer a kill hid
}

func (w *wishes) run(ctx context.Context, t testing.TB, stop chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-ctx.Done():
			return
		case <-time.After(30 * time.Millisecond):
		}
		w.wish(ctx, t)
	}
}

// wish sets one value and repeats the request until it is answered.
func (w *wishes) wish(ctx context.Context, t testing.TB) {
	w.mu.Lock()
	defer w.mu.Unlock()
	device := w.names[w.rng.IntN(len(w.names))]
	prop, accepted := "setpoint", w.setpoints
	if w.rng.IntN(3) == 0 {
		prop, accepted = "pulse", w.pulses
	}
	for first := true; ; first = false {
		if first {
			w.next++
		}
		got, err := w.hub.do("PATCH", hubAPI+"/devices/"+device+"/twin/desired", fmt.Sprintf(`{%q: %d}`, prop, w.next),
			"Idempotency-Key", fmt.Sprintf("wish-%d", w.next))
		switch {
		case err == nil && got.status == 202:
			accepted[device] = w.next
			w.accepted++
			return
		case err == nil && got.status == 409:
			// The hub was killed before it noted its answer: nobody knows. Another
			// value settles it.
			w.hidden++
			w.next++
		case err == nil && got.status < 500:
			t.Errorf("set %s of %s to %d: %v", prop, device, w.next, got)
			return
		}
		select {
		case <-ctx.Done():
			delete(accepted, device) // whether the last request arrived, nobody knows
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// check compares what was wished with what the devices got.
func (w *wishes) check(t testing.TB, c *campaign) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	t.Logf("%d desired values accepted, %d left in the dark by a kill", w.accepted, w.hidden)
	for _, n := range c.nodes {
		written := map[string]int{}
		for _, x := range n.sim.Writes() {
			if x.Point == "pulse" {
				written[fmt.Sprint(x.Value)]++
			}
		}
		for v, times := range written {
			if times > 1 {
				t.Errorf("the pulse %s, marked once, reached its device %d times", v, times)
			}
		}
		for _, name := range n.names {
			if want, ok := w.setpoints[name]; ok {
				eventually(t, 30*time.Second, name+" holds the last setpoint", func() error {
					if v, err := n.sim.Get(name, "setpoint"); err != nil || fmt.Sprint(v) != strconv.Itoa(want) {
						return fmt.Errorf("it holds %v, %w; want %d", v, err, want)
					}
					d, err := c.hub.twin(hubAPI, name)
					if err == nil && (d.value("setpoint") != strconv.Itoa(want) || d.write("setpoint") != "applied") {
						err = fmt.Errorf("the twin shows %s, write %s; want %d", d.value("setpoint"), d.write("setpoint"), want)
					}
					return err
				})
			}
			if want, ok := w.pulses[name]; ok {
				c.hub.awaitTwin(t, 30*time.Second, hubAPI, name, "knows what became of the last pulse", func(d twinDoc) bool {
					p := d.Properties["pulse"]
					return p.Desired != nil && string(p.Desired.Value) == strconv.Itoa(want) && (d.write("pulse") == "applied" || d.write("pulse") == "unknown")
				})
				d, err := c.hub.twin(hubAPI, name)
				if err != nil {
					t.Fatal(err)
				}
				if d.write("pulse") == "applied" && written[strconv.Itoa(want)] != 1 {
					t.Errorf("%s: the pulse %d is said to be applied, and was written %d times", name, want, written[strconv.Itoa(want)])
				}
			}
		}
	}
}
