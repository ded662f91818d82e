package e2e

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/devicehub/store/sqlite"
	"github.com/whimbrel-edge/whimbrel/internal/faultproxy"
)

// site is a small hub on its own file with one node, for copies.
type site struct {
	*counters
	t       testing.TB
	hub     *hub
	proxy   *faultproxy.Proxy
	edge    *edge
	witness *witness
}

func newSite(t testing.TB) *site {
	t.Helper()
	s := &site{t: t, hub: newHub(t, ""), counters: newCounters(t, "plant", 2, 5, 0)}
	s.proxy = faultproxy.New(t, s.hub.link)
	s.hub.apply(s.manifests(100 * time.Millisecond))
	s.edge = newEdge(t, s.hub, s.node, s.proxy.Addr())
	s.witness = s.edge.watch(t)
	s.hub.awaitNode(t, s.node, true)
	s.eventuallyLive(t, s.hub)
	return s
}

// move lets the counters go on, or stops them.
func (s *site) move(on bool) {
	s.t.Helper()
	if err := s.sim.Set("control", "go", on); err != nil {
		s.t.Fatal(err)
	}
}

// runs lets the counters go on by n.
func (s *site) runs(n int) {
	s.t.Helper()
	from := s.now(s.t)
	eventually(s.t, 30*time.Second, "counters go on", func() error {
		if now := s.now(s.t); now < from+n {
			return fmt.Errorf("from %d to %d", from, now)
		}
		return nil
	})
}

// settle stops the counters and waits until the hub shows and keeps where.
func (s *site) settle() (count int) {
	s.t.Helper()
	since := time.Now().Add(-time.Minute)
	s.freeze(s.t)
	count = s.now(s.t)
	eventually(s.t, 20*time.Second, "twins show what the devices hold", func() error { return s.converged(s.hub, count) })
	db := s.open()
	defer db.Close()
	eventually(s.t, 20*time.Second, "history is complete", func() error { return s.stored(s.t, s.hub, db, since, count) })
	return count
}

func (s *site) open() store.Store {
	s.t.Helper()
	db, err := sqlite.Open(s.t.Context(), filepath.Join(s.hub.data, "hub.db"), slog.New(slog.DiscardHandler))
	if err != nil {
		s.t.Fatal(err)
	}
	return db
}

// checkHistory checks everything at the end.
func (s *site) checkHistory(count int) {
	s.t.Helper()
	db := s.open()
	defer db.Close()
	if sum := s.check(s.t, s.hub, db, s.witness, count); sum.announced == 0 || sum.missing > 0 {
		s.t.Errorf("%+v: something was to be announced, and nothing to be missing", sum)
	}
}

// told checks that the node's conditions give a reason, and that there is a gap
// record when gap names its reason.
func (s *site) told(reason, gap string) {
	s.t.Helper()
	eventually(s.t, 20*time.Second, "node tells of "+reason, func() error {
		r := s.hub.cli("", "get", "node", s.node, "-o", "json")
		if r.code != 0 || !strings.Contains(r.stdout, `"reason": "`+reason+`"`) {
			return fmt.Errorf("%v", r)
		}
		return nil
	})
	if gap == "" {
		return
	}
	o, err := s.hub.object(hubAPI + "/nodes/" + s.node)
	if err != nil {
		s.t.Fatal(err)
	}
	db := s.open()
	defer db.Close()
	var reasons []string
	err = db.Gaps(s.t.Context(), o.Metadata.UID, func(g store.Gap) error {
		reasons = append(reasons, g.Reason)
		return nil
	})
	if err != nil || !strings.Contains(strings.Join(reasons, " "), gap) {
		s.t.Errorf("gap records: %v, %v; want %s", reasons, err, gap)
	}
}

// following runs f while the stream of twins is watched for values that go back.
func (s *site) following(f func()) {
	ctx, cancel := context.WithCancel(s.t.Context())
	var loop sync.WaitGroup
	loop.Go(func() { neverBack(ctx, s.t, s.hub) })
	defer func() { cancel(); loop.Wait() }()
	f()
}

// TestRestoredCopies brings back old copies of what an edge or a hub keeps. The
// system says so, and whatever is made from then on arrives.
func TestRestoredCopies(t *testing.T) {
	t.Run("edge", func(t *testing.T) {
		t.Parallel()
		s := newSite(t)
		copied := filepath.Join(t.TempDir(), "copy")
		s.following(func() {
			// The copy holds records that it has not delivered: the original will
			// have delivered them when the copy comes back.
			s.proxy.Set(faultproxy.Refuse)
			s.runs(10)
			s.edge.stop()
			copyDir(t, s.edge.data, copied)
			s.proxy.Set(faultproxy.Pass)
			s.edge.again()
			s.hub.awaitNode(t, s.node, true)
			s.runs(10)
			s.settle()
			s.edge.kill()
			copyDir(t, copied, s.edge.data)
			s.move(true)
			s.edge.again()
			s.told("LogEpochChanged", "log-epoch-changed")
			s.runs(20)
			s.checkHistory(s.settle())
			// Once told, it goes on like any other.
			s.move(true)
			s.edge.kill()
			s.edge.again()
			s.runs(10)
			s.checkHistory(s.settle())
		})
	})
	t.Run("new disk", func(t *testing.T) {
		t.Parallel()
		s := newSite(t)
		s.following(func() {
			s.runs(10)
			s.settle()
			// A once write that the device has got and the hub has not heard of, and one
			// that is made when nobody is there to get it.
			pulse := func(device string) string { return hubAPI + "/devices/" + device + "/twin/desired" }
			s.proxy.Set(faultproxy.DropUp)
			s.hub.want(t, 202, "PATCH", pulse(s.names[0]), `{"pulse": 5}`)
			eventually(t, 20*time.Second, "the device gets its pulse", func() error {
				if v, err := s.sim.Get(s.names[0], "pulse"); err != nil || fmt.Sprint(v) != "5" {
					return fmt.Errorf("it holds %v, %w", v, err)
				}
				return nil
			})
			s.edge.kill()
			s.proxy.Set(faultproxy.Pass)
			s.hub.awaitNode(t, s.node, false)
			s.hub.want(t, 202, "PATCH", pulse(s.names[1]), `{"pulse": 6}`)
			s.move(true)
			old := s.witness
			s.edge = newEdge(t, s.hub, s.node, s.proxy.Addr())
			s.witness = s.edge.watch(t)
			s.told("LogEpochChanged", "log-epoch-changed")
			for _, name := range s.names {
				s.hub.awaitTwin(t, 20*time.Second, hubAPI, name, "knows what became of its pulse", func(d twinDoc) bool { return d.write("pulse") == "applied" })
			}
			s.runs(20)
			count := s.settle()
			pulses := ""
			for _, w := range s.sim.Writes() {
				if w.Point == "pulse" {
					pulses += fmt.Sprint(w.Value, " ")
				}
			}
			if pulses != "5 6 " {
				t.Errorf("the devices got the pulses %s, want each once", pulses)
			}
			s.checkHistory(count)
			s.witness = old
			delete(old.others, series{s.names[0], "pulse"}) // that was lost with the disk
			s.checkHistory(count)
		})
	})
	t.Run("hub", func(t *testing.T) {
		t.Parallel()
		s := newSite(t)
		desire := func(n int) string { return fmt.Sprintf(`{"setpoint": %d}`, n) }
		path := hubAPI + "/devices/" + s.names[0] + "/twin/desired?wait=10s"
		s.hub.want(t, 200, "PATCH", path, desire(1))
		s.hub.stop()
		copied := filepath.Join(t.TempDir(), "copy")
		copyDir(t, s.hub.data, copied)
		s.hub.begin()
		s.hub.awaitReady()
		s.hub.awaitNode(t, s.node, true)
		// What follows, the copy does not know of.
		s.hub.want(t, 200, "PATCH", path, desire(2))
		s.runs(20)
		s.settle()
		s.hub.kill()
		copyDir(t, copied, s.hub.data)
		s.hub.begin()
		s.hub.awaitReady()
		s.hub.awaitNode(t, s.node, true)
		s.told("HubRestored", "hub-restored")
		s.witness.forget() // what was announced before is what the gap is about
		s.move(true)
		s.runs(20)
		s.checkHistory(s.settle())
		// The restored hub's word counts again, whatever its revisions are called.
		eventually(t, 20*time.Second, "the device is set to what the restored hub wants", func() error {
			if v, err := s.sim.Get(s.names[0], "setpoint"); err != nil || fmt.Sprint(v) != "1" {
				return fmt.Errorf("it holds %v, %v", v, err)
			}
			return nil
		})
		s.hub.want(t, 200, "PATCH", path, desire(3))
		if v, err := s.sim.Get(s.names[0], "setpoint"); err != nil || fmt.Sprint(v) != "3" {
			t.Errorf("the device holds %v, %v; want 3", v, err)
		}
	})
	t.Run("two of one identity", func(t *testing.T) {
		t.Parallel()
		s := newSite(t)
		s.edge.stop()
		twin := &edge{process: newProcess(t, "edge plant's double", program(t, "whimbrel-edge")), node: s.node, data: filepath.Join(t.TempDir(), "copy"),
			mqtt: holdPort(t), addr: holdPort(t)}
		copyDir(t, s.edge.data, twin.data)
		s.edge.again()
		s.hub.awaitNode(t, s.node, true)
		twin.start("--data", twin.data, "--mqtt", twin.mqtt, "--api", twin.addr)
		s.told("DuplicateIdentity", "")
		s.runs(20)
		twin.stop()
		// The one that stays has its say again.
		s.hub.awaitNode(t, s.node, true)
		s.runs(10)
		count := s.settle()
		db := s.open()
		defer db.Close()
		if lost := s.lost(t, s.hub, db, s.witness); lost > 0 {
			t.Errorf("%d values that the original announced are not in the history, of a count of %d", lost, count)
		}
	})
}
