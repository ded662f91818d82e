package e2e

import (
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// announced is how much the witness has seen.
func (w *witness) announced() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, values := range w.seen {
		n += len(values)
	}
	return n
}

// TestFullDisk fills the disk of an edge: it reads on and tells local apps, holds
// what is to be held, and says how much of its log is missing, there and, once there
// is space again, in history.
func TestFullDisk(t *testing.T) {
	h := newHub(t, "")
	n := &campaignNode{counters: newCounters(t, "plant", 2, 5, 0)}
	data := t.TempDir()
	if n.disk = smallDisk(t, data); n.disk == "" {
		t.Skip("a small file system cannot be mounted here")
	}
	h.apply(n.manifests(100 * time.Millisecond))
	n.edge = newEdgeIn(t, data, nil, h, n.node, h.link)
	n.witness = n.edge.watch(t)
	h.awaitNode(t, n.node, true)
	n.eventuallyLive(t, h)
	local := n.edge.local()
	desired := func(on string) string { return on + "/devices/" + n.names[0] + "/twin/desired" }
	h.want(t, 200, "PATCH", desired(hubAPI)+"?wait=10s", `{"setpoint": 7}`)

	began := time.Now()
	n.fill(t)
	dropped := func() int {
		t.Helper()
		text := string(local.want(t, 200, "GET", "/metrics", "").body)
		found := regexp.MustCompile(`whimbrel_edge_dropped_total\{reason="disk-full"\} (\d+)`).FindStringSubmatch(text)
		if found == nil {
			t.Fatalf("no metric of what is dropped in\n%s", text)
		}
		count, err := strconv.Atoi(found[1])
		if err != nil {
			t.Fatal(err)
		}
		return count
	}
	eventually(t, 30*time.Second, "the metric tells of what is dropped", func() error {
		if dropped() == 0 {
			return fmt.Errorf("nothing")
		}
		return nil
	})
	before := n.witness.announced()
	eventually(t, 20*time.Second, "apps are told", func() error {
		if now := n.witness.announced(); now < before+50 {
			return fmt.Errorf("%d values before, %d now", before, now)
		}
		return nil
	})
	if err := n.sim.Set(n.names[0], "setpoint", 3); err != nil { // somebody turns the knob
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "what is to be held is held", func() error {
		if v, err := n.sim.Get(n.names[0], "setpoint"); err != nil || fmt.Sprint(v) != "7" {
			return fmt.Errorf("it holds %v, %w", v, err)
		}
		return nil
	})
	eventually(t, 20*time.Second, "the node says it", func() error {
		if r := h.cli("", "describe", "node", n.node); !strings.Contains(r.stdout, "CannotStore") || !strings.Contains(r.stdout, "the disk is full") {
			return fmt.Errorf("%v", r)
		}
		return nil
	})
	// What is desired meanwhile waits, or finds a little space; it costs nobody the link.
	for i := range 20 {
		h.want(t, 202, "PATCH", desired(hubAPI), fmt.Sprintf(`{"setpoint": 7, "pulse": %d}`, 100+i))
	}
	// What cannot be stored is promised to nobody.
	if got, err := local.do("PATCH", desired(edgeAPI), `{"pulse": 1}`); err != nil || got.status != 503 && got.status != 202 {
		t.Errorf("a write with a full disk: %v, %v", got, err)
	} else {
		t.Logf("a write with a full disk: %v", got)
	}
	h.awaitTwin(t, 20*time.Second, hubAPI, n.names[0], "shows live values all the same", func(d twinDoc) bool {
		r := d.Properties[counter(0)].Reported
		return r != nil && r.Quality == "good" && time.Since(r.Time) < 3*time.Second && r.Time.After(began.Add(2*time.Second))
	})
	if r := h.cli("", "get", "events", "--for", "node/"+n.node); strings.Contains(r.stdout, "NodeNotReady") {
		t.Errorf("the link did not last: %v", r)
	}
	n.empty(t)
	eventually(t, 20*time.Second, "what was desired comes about", func() error {
		d, err := h.twin(hubAPI, n.names[0])
		if p := d.Properties["pulse"]; err == nil && (p.Desired == nil || d.write("pulse") == "pending") {
			err = fmt.Errorf("%+v", p.Write)
		}
		return err
	})
	var total int
	eventually(t, 30*time.Second, "node and gap tell of as many", func() error {
		o, err := h.object(hubAPI + "/nodes/" + n.node)
		if err != nil {
			return err
		}
		if total = dropped(); total == 0 || o.Status.Outbox.Dropped != uint64(total) {
			return fmt.Errorf("the metric says %d, the node %d", total, o.Status.Outbox.Dropped)
		}
		var page struct {
			Gaps []struct{ Reason string }
		}
		from := url.QueryEscape(began.Add(-time.Minute).UTC().Format(time.RFC3339))
		got, err := h.do("GET", hubAPI+"/devices/"+n.names[0]+"/properties/"+counter(0)+"/history?limit=10000&from="+from, "")
		if err == nil {
			err = json.Unmarshal(got.body, &page)
		}
		for _, g := range page.Gaps {
			if g.Reason == "disk-full" {
				return nil
			}
		}
		return fmt.Errorf("no gap of a full disk in %v, %v", page, err)
	})
	t.Logf("%d samples were dropped", total)

	// It starts with a full disk, too, more than once.
	n.fill(t)
	for _, end := range []func(){n.edge.kill, n.edge.stop} {
		end()
		n.edge.again()
		n.edge.local()
		before := n.witness.announced()
		eventually(t, 20*time.Second, "apps are told", func() error {
			if now := n.witness.announced(); now < before+20 {
				return fmt.Errorf("%d values before, %d now", before, now)
			}
			return nil
		})
	}
	n.empty(t)
}
