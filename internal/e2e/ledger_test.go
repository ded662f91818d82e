package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"sort"
	"strconv"
	"sync"
	"testing"
	"time"
)

// ledgerEntry is as much of an entry of the ledger as this test looks at.
type ledgerEntry struct {
	ID, Property, State, Reason, Origin, By string
	Version                                 int64
	Value                                   int
	Sent, Confirmed, Since, Until           *time.Time
}

// ledger is all of a device's writes, the newest first.
func (h *hub) ledger(device string) (all []ledgerEntry, err error) {
	for next := ""; ; {
		got, err := h.do("GET", hubAPI+"/devices/"+device+"/writes?limit=200&continue="+url.QueryEscape(next), "")
		if err != nil || got.status != 200 {
			return nil, fmt.Errorf("%v, %w", got, err)
		}
		var page struct {
			Metadata struct{ Continue string }
			Items    []ledgerEntry
		}
		got.into(h.t, &page)
		all = append(all, page.Items...)
		if next = page.Metadata.Continue; next == "" {
			return all, nil
		}
	}
}

// asker makes desired writes, one after the other, until stop. A write is known by
// its reason.
type asker struct {
	property string
	ask      func(n int, reason string) (status int, err error)
	mu       sync.Mutex
	accepted []int
	hidden   map[int]bool // asked, and a kill hid the answer
}

func (a *asker) reason(n int) string { return fmt.Sprint(a.property, " ", n) }

func (a *asker) run(stop <-chan struct{}) {
	a.hidden = map[int]bool{}
	for n := 1; ; n++ {
		status, err := a.ask(n, a.reason(n))
		a.mu.Lock()
		switch {
		case err == nil && status == 202:
			a.accepted = append(a.accepted, n)
		default:
			a.hidden[n] = true
		}
		a.mu.Unlock()
		select {
		case <-stop:
			return
		case <-time.After(40 * time.Millisecond):
		}
	}
}

// enough reports whether so many were accepted that the test tells something.
func (a *asker) enough() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.accepted) >= 10
}

// TestLedgerUnderKills kills hub and edge while values are set at both and a
// device comes and goes. Each write that was accepted is in the ledger once, with
// an end that agrees with what the device got; each state of the device is in its
// history once, and so is its event. WHIMBREL_LEDGER_SECONDS for longer.
func TestLedgerUnderKills(t *testing.T) {
	seconds := setting(t, "WHIMBREL_LEDGER_SECONDS", 6)
	seed := uint64(setting(t, "WHIMBREL_LEDGER_SEED", int(time.Now().UnixNano()%1_000_000)))
	t.Logf("WHIMBREL_LEDGER_SEED=%d, %d s", seed, seconds)
	random := rand.New(rand.NewPCG(seed, 0))

	sim := tanks(t, 2)
	h := newHub(t, "")
	h.apply(tankModel + "---\n" + tank(sim, "tank-1", "gateway") + "\n---\n" + tank(sim, "tank-2", "gateway") + "\n")
	e := newEdge(t, h, "gateway", h.link)
	for _, name := range []string{"tank-1", "tank-2"} {
		h.awaitTwin(t, 20*time.Second, hubAPI, name, "is live", isGood("level", "valve", "dose"))
	}
	local := e.local()

	cloud := &asker{property: "valve", ask: func(n int, reason string) (int, error) {
		got, err := h.do("PATCH", hubAPI+"/devices/tank-1/twin/desired", fmt.Sprintf(`{"valve": %d}`, n%100), "X-Whimbrel-Reason", reason)
		return got.status, err
	}}
	panel := &asker{property: "dose", ask: func(n int, reason string) (int, error) {
		got, err := local.do("PATCH", edgeAPI+"/devices/tank-1/twin/desired", fmt.Sprintf(`{"dose": %d}`, n), "X-Whimbrel-Reason", reason)
		return got.status, err
	}}
	stop := make(chan struct{})
	var wait sync.WaitGroup
	for _, a := range []*asker{cloud, panel} {
		wait.Go(func() { a.run(stop) })
	}
	flips := 0
	wait.Go(func() {
		for {
			sim.Unplug("tank-2")
			h.awaitTwin(t, 60*time.Second, hubAPI, "tank-2", "is away", func(d twinDoc) bool { return d.State == "offline" })
			if err := sim.Plug("tank-2"); err != nil {
				t.Error(err)
				return
			}
			h.awaitTwin(t, 60*time.Second, hubAPI, "tank-2", "is back", isGood("level", "valve", "dose"))
			flips++
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	kills := map[string]int{}
	// On a busy machine few writes come between two kills, and it takes longer.
	enough := func() bool { return cloud.enough() && panel.enough() }
	for end := time.Now().Add(time.Duration(seconds) * time.Second); time.Now().Before(end) || !enough() && time.Now().Before(end.Add(time.Minute)); {
		time.Sleep(time.Duration(200+random.IntN(900)) * time.Millisecond) //sleep: the kills come at random moments
		if random.IntN(2) == 0 {
			kills["hub"]++
			h.kill()
			h.begin()
		} else {
			kills["edge"]++
			e.kill()
			e.again()
		}
	}
	close(stop)
	wait.Wait()
	h.awaitReady()
	e.local()
	t.Logf("%v kills, %d and %d writes accepted, %d and %d left in the dark; the device went and came back %d times",
		kills, len(cloud.accepted), len(panel.accepted), len(cloud.hidden), len(panel.hidden), flips)
	if !enough() {
		t.Error("that tells little")
	}

	var entries []ledgerEntry
	eventually(t, 60*time.Second, "the ledger has all that was accepted, with an end", func() (err error) {
		if entries, err = h.ledger("tank-1"); err != nil {
			return err
		}
		by := map[string]int{}
		last := map[string]ledgerEntry{}
		for _, w := range entries {
			if by[w.Reason]++; w.State == "pending" {
				return fmt.Errorf("%s is pending", w.Reason)
			}
			if w.ID > last[w.Property].ID {
				last[w.Property] = w
			}
		}
		for _, w := range last { // the hub may know of a write at the edge, and not have judged it yet
			if w.Version == 0 {
				return fmt.Errorf("%s is not desired yet", w.Reason)
			}
		}
		for _, a := range []*asker{cloud, panel} {
			for _, n := range a.accepted {
				if by[a.reason(n)] == 0 {
					return fmt.Errorf("%s is missing", a.reason(n))
				}
			}
		}
		return nil
	})
	written := map[string]int{} // doses, by value
	for _, w := range sim.Writes() {
		if w.Point == "dose" {
			written[fmt.Sprint(w.Value)]++
		}
	}
	seen, ids := map[string]bool{}, map[string]bool{}
	for _, w := range entries {
		if seen[w.Reason] || ids[w.ID] {
			t.Errorf("%+v is there twice", w)
		}
		seen[w.Reason], ids[w.ID] = true, true
		times := written[strconv.Itoa(w.Value)]
		switch {
		case w.Origin != map[string]string{"valve": "cloud", "dose": "edge-rest"}[w.Property]:
			t.Errorf("its origin is another: %+v", w)
		case w.State == "applied" && w.Confirmed == nil:
			t.Errorf("never confirmed: %+v", w)
		case w.Property == "dose" && times > 1:
			t.Errorf("the dose %d, marked once, was written %d times", w.Value, times)
		case w.Property == "dose" && w.State == "superseded" && times == 1 && w.Sent != nil: // under way when the next one was asked
		case w.Property == "dose" && (w.State == "applied") != (times == 1) && w.State != "unknown":
			t.Errorf("a dose that was written %d times: %+v", times, w)
		case w.State != "applied" && w.State != "superseded" && (w.State != "unknown" || w.Property != "dose"):
			t.Errorf("ended oddly: %+v", w)
		}
	}
	// What was desired follows on what was desired before, without holes.
	for _, a := range []*asker{cloud, panel} {
		var desired []ledgerEntry
		for _, w := range entries {
			if w.Property == a.property && w.Version > 0 {
				desired = append(desired, w)
			}
		}
		sort.Slice(desired, func(i, j int) bool { return desired[i].Version < desired[j].Version })
		for i := range desired[1:] {
			if before, after := desired[i], desired[i+1]; before.Until == nil || after.Since == nil || !before.Until.Equal(*after.Since) {
				t.Errorf("%+v was followed by %+v", before, after)
			}
		}
		last := desired[len(desired)-1]
		// The twin follows what is stored in a moment.
		eventually(t, 10*time.Second, "the twin says what the ledger says", func() error {
			d, err := h.twin(hubAPI, "tank-1")
			if err != nil {
				return err
			}
			if p := d.Properties[a.property]; p.Desired == nil || p.Desired.Version != last.Version || p.Write.ID != last.ID || p.Write.State != last.State || last.Until != nil {
				return fmt.Errorf("the twin says %+v, %+v; the ledger %+v", p.Desired, p.Write, last)
			}
			return nil
		})
	}

	online, other := 0, 0
	eventually(t, 10*time.Second, "the history has each state once", func() error { // the twin is ahead of it
		var states struct {
			Points []struct{ Value, Reason string }
		}
		got, err := h.do("GET", hubAPI+"/devices/tank-2/properties/$state/history?from=2026-01-01T00:00:00Z", "")
		if err != nil || got.status != 200 {
			return fmt.Errorf("%v, %w", got, err)
		}
		got.into(t, &states)
		was := ""
		online, other = 0, 0
		for _, p := range states.Points {
			is := p.Value + " " + p.Reason
			if is == was {
				t.Fatalf("%s is told twice in a row", is)
			}
			if was = is; p.Value == "online" {
				online++
			} else {
				other++
			}
		}
		if online != flips+1 {
			return fmt.Errorf("it came %d times and was online %d times: %+v", flips+1, online, states.Points)
		}
		return nil
	})
	eventually(t, 10*time.Second, "events are as many as states", func() error {
		var events struct {
			Items []struct {
				Reason string
				Count  int
			}
		}
		got, err := h.do("GET", hubAPI+"/events?kind=Device&name=tank-2&limit=100", "")
		if err != nil || got.status != 200 {
			return fmt.Errorf("%v, %w", got, err)
		}
		got.into(t, &events)
		count := map[string]int{}
		for _, e := range events.Items {
			count[e.Reason] += e.Count
		}
		if count["DeviceOnline"] != online || count["DeviceOffline"]+count["DeviceDegraded"] != other {
			return fmt.Errorf("%v; the history has %d times online, %d times something else", count, online, other)
		}
		return nil
	})
}
