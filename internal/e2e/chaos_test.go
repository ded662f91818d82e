package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
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

// TestChaos runs two edges with 50 devices and 1,000 counters and, under this
// load, does to them what scene_test.go names. Afterwards everything that any edge ever
// announced is in the history once and in order, but for what a full disk kept
// from it, which is counted exactly; twins show what the devices hold, and devices
// hold what was desired.
//
//	make chaos SEED=7 ROUNDS=30
func TestChaos(t *testing.T) {
	rounds := setting(t, "WHIMBREL_CHAOS_ROUNDS", len(opening))
	seed := uint64(setting(t, "WHIMBREL_CHAOS_SEED", int(time.Now().UnixNano()%1_000_000)))
	var limit time.Duration
	if text := os.Getenv("WHIMBREL_CHAOS_DURATION"); text != "" {
		var err error
		if limit, err = time.ParseDuration(text); err != nil {
			t.Fatalf("DURATION: %v", err)
		}
		rounds = math.MaxInt
	}
	c := newCampaign(t, seed)
	defer func() {
		if t.Failed() {
			t.Logf("the same again: make chaos SEED=%d ROUNDS=%d", seed, c.round)
		}
	}()
	t.Logf("seed %d", seed)

	ctx, cancel := context.WithCancel(t.Context())
	var loops sync.WaitGroup
	defer func() { cancel(); loops.Wait() }()
	loops.Go(func() { neverBack(ctx, t, c.hub) })
	w := &wishes{hub: c.hub, names: append(c.nodes[0].names[:25:25], c.nodes[1].names...), rng: rand.New(rand.NewPCG(seed, 1)),
		setpoints: map[string]int{}, pulses: map[string]int{}}
	stopWishing := make(chan struct{})
	loops.Go(func() { w.run(ctx, t, stopWishing) })

	began := time.Now()
	for c.round < rounds && !t.Failed() && (limit == 0 || time.Since(began) < limit) {
		c.play(scene(seed, c.round))
		c.round++
	}
	c.calm()
	t.Logf("seed %d: %d rounds took %v: %v", seed, c.round, time.Since(began).Round(time.Millisecond), c.done)
	close(stopWishing)

	frozen := time.Now()
	for _, n := range c.nodes {
		n.freeze(t)
	}
	for _, n := range c.nodes {
		c.hub.awaitNode(t, n.node, true)
		count := n.now(t)
		eventually(t, 60*time.Second, "twins of "+n.node+" show what the devices hold", func() error { return n.converged(c.hub, count) })
	}
	t.Logf("twins converged within %v", time.Since(frozen).Round(time.Millisecond))
	cancel()
	loops.Wait()

	db := openStore(t, c.hub.database)
	for _, n := range c.nodes {
		count := n.now(t)
		eventually(t, 60*time.Second, "history of "+n.node+" is complete", func() error { return n.stored(t, c.hub, db, frozen.Add(-time.Minute), count) })
		sum := n.check(t, c.hub, db, n.witness, count, n.jumps...)
		t.Logf("%s: %d samples stored, %d good, %d of these backfilled; %d announced; %d times a value was read twice",
			n.node, sum.samples, sum.good, sum.backfilled, sum.announced, sum.again)
		if sum.announced < 1000 || sum.good+sum.missing < sum.announced {
			t.Errorf("%s: %+v tells little", n.node, sum)
		}
		dropped := n.checkDropped(t, c.hub, db, sum)
		t.Logf("%s, after %d rounds of seed %d: %d samples announced by the edge; in history %d missing, %d twice, %d out of order; %d dropped by a full disk, all counted",
			n.node, c.round, seed, sum.announced+n.witness.bad, sum.missing, sum.twice, sum.disordered, dropped)
	}
	w.check(t, c)
	for _, p := range []*process{c.hub.process, c.nodes[0].edge.process, c.nodes[1].edge.process} {
		if how, gone := p.gone(); gone {
			t.Errorf("%s ended by itself: %s", p.name, how)
		}
		if text := p.stderr(); strings.Contains(text, "panic:") || strings.Contains(text, "goroutine 1 [") {
			t.Errorf("%s panicked", p.name)
		}
	}
}

// checkDropped compares what is missing with what the edge says it had to drop:
// as many, for the one reason that there was, and the hub says the same.
func (n *campaignNode) checkDropped(t testing.TB, h *hub, db store.Store, sum checked) (dropped int) {
	t.Helper()
	counted := func() error {
		dropped = 0
		o, err := h.object(hubAPI + "/nodes/" + n.node)
		if err != nil {
			return err
		}
		if err := db.Gaps(t.Context(), o.Metadata.UID, func(g store.Gap) error {
			if g.Reason != edgelink.GapDiskFull {
				t.Errorf("%s: a gap: %+v", n.node, g)
			}
			dropped += int(g.Samples)
			return nil
		}); err != nil {
			return err
		}
		if o.Status.Outbox.Dropped != uint64(dropped) {
			return fmt.Errorf("the gaps are of %d samples, the node's status says %d", dropped, o.Status.Outbox.Dropped)
		}
		return nil
	}
	eventually(t, 30*time.Second, n.node+" says what it has dropped", counted)
	t.Logf("%s: the disk was full %d times: %d samples dropped, %d announced ones are missing; %d announcements were of bad values",
		n.node, n.filled, dropped, sum.missing, n.witness.bad)
	switch {
	case n.filled == 0 && (dropped > 0 || sum.missing > 0):
		t.Errorf("%s: %d samples dropped, %d missing, and its disk never was full", n.node, dropped, sum.missing)
	case sum.missing > dropped:
		t.Errorf("%s: %d announced samples are missing, only %d are counted as dropped", n.node, sum.missing, dropped)
	case sum.missing+n.witness.bad < dropped && !n.diedFull:
		t.Errorf("%s: %d samples are counted as dropped, only %d are missing", n.node, dropped, sum.missing)
	}
	return dropped
}

// eventuallyLive waits until every device of the fleet reports.
func (c *counters) eventuallyLive(t testing.TB, h *hub) {
	t.Helper()
	for _, name := range c.names {
		h.awaitTwin(t, 30*time.Second, hubAPI, name, "is live", isGood(counter(0), counter(c.props-1), "setpoint"))
	}
}

// neverBack follows the stream of twins and complains when a good value goes
// back to an older one, as far as one life of the hub goes, or a version, ever.
func neverBack(ctx context.Context, t testing.TB, h *hub) {
	complaints := 0
	versions := map[string]uint64{} // by device
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
			if was := versions[d.Device]; d.Version < was {
				if complaints++; complaints <= 5 {
					t.Errorf("the twin of %s went back from version %d to %d", d.Device, was, d.Version)
				}
			}
			versions[d.Device] = d.Version
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
