package twins

import (
	"context"
	"errors"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
	"github.com/whimbrel-edge/whimbrel/twin"
)

func TestNextEra(t *testing.T) {
	for _, c := range []struct {
		v       store.Versions
		highest uint64
		want    int64
	}{
		{store.Versions{}, 0, 0},
		{store.Versions{}, 812, 0},
		{store.Versions{Era: 2}, 2_000_000_812, 2},
		{store.Versions{Open: true}, 0, 1},
		{store.Versions{Open: true}, 812, 1},
		{store.Versions{Era: 1, Open: true}, 812, 2}, // the life before was killed before its first checkpoint
		{store.Versions{Era: 1, Open: true}, 1_000_000_812, 2},
		{store.Versions{Era: 1, Open: true}, 1_999_999_999, 3}, // it may have shown more than two eras
		{store.Versions{Era: 0, Open: true}, 7_000_000_000, 8}, // whatever moved it there
	} {
		if got := nextEra(c.v, c.highest); got != c.want {
			t.Errorf("after %+v and %d: era %d, want %d", c.v, c.highest, got, c.want)
		}
		if next := uint64(nextEra(c.v, c.highest)) * twin.EraSize; c.v.Open && next <= c.highest {
			t.Errorf("after %+v and %d: goes on at %d", c.v, c.highest, next)
		}
	}
}

// run runs the cache until end is called, which is how a hub stops.
func (h *hub) run() (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	cache := h.cache
	wait.Go(func() { _ = cache.Run(ctx) })
	end = sync.OnceFunc(func() { cancel(); wait.Wait() })
	h.t.Cleanup(end)
	return end
}

// TestVersionsNeverGoBack: whatever a life of the hub has shown, the next one shows
// a later version, be it that the former was killed, even before its first checkpoint,
// or that it stopped.
func TestVersionsNeverGoBack(t *testing.T) {
	h := newHub(t)
	ref := h.live(float("temperature", 5, 7, h.now()))
	seen := map[string]uint64{}
	look := func(when string) {
		t.Helper()
		for _, name := range []string{"b1", "b2"} {
			if v := h.doc(name).Version; v < seen[name] {
				t.Fatalf("%s: the twin of %s went back from version %d to %d", when, name, seen[name], v)
			} else {
				seen[name] = v
			}
		}
	}
	h.device("b2", "n1")
	look("at first")
	if seen["b1"] > 100 {
		t.Errorf("a new hub begins with version %d", seen["b1"])
	}
	for life := range uint64(4) {
		for i := range uint64(50) {
			h.committed("n1", life+1, 10+i, ref, "temperature", h.good(float64(i)))
		}
		if life == 1 {
			h.cache.checkpoint(t.Context(), false)
		}
		look("while it lives")
		was := seen["b1"]
		h.open() // it was killed
		look("after a kill")
		if seen["b1"] == was {
			t.Fatal("the version is the same, and what it shows is not")
		}
	}
	end := h.run()
	h.committed("n1", 9, 1, ref, "temperature", h.good(1))
	look("before it stops")
	end()
	before := seen["b1"]
	h.open()
	look("after it stopped")
	if seen["b1"] != before+1 {
		t.Errorf("version %d after a hub that stopped at %d", seen["b1"], before)
	}
	// One that could not store its last checkpoint has not stopped well.
	end = h.run()
	h.committed("n1", 10, 1, ref, "temperature", h.good(2))
	look("before it stops in vain")
	h.store.Fault(func(step string) error {
		if step == "SaveTwins" {
			return errors.New("full")
		}
		return nil
	})
	end()
	h.store.Fault(nil)
	h.open()
	look("after it stopped in vain")
	if seen["b1"]%twin.EraSize != 0 && seen["b1"]%twin.EraSize != 1 {
		t.Errorf("version %d is of no new era", seen["b1"])
	}
	if seen["b1"] > 1<<53 {
		t.Errorf("version %d is not exact in JSON", seen["b1"])
	}
}

// outcome stores, as ingest does, what became of a write.
func (h *hub) outcome(deviceUID, id, state string) {
	h.t.Helper()
	if _, err := h.store.StartEpoch(context.Background(), "u", id, h.now()); err != nil {
		h.t.Fatal(err)
	}
	if err := h.store.Ingest(context.Background(), []store.Batch{{NodeUID: "u", Epoch: id, Acked: 1, Received: h.now(),
		Outcomes: []store.WriteOutcome{{ID: id, DeviceUID: deviceUID, State: state, Final: true, Applied: state == "applied", At: h.now()}}}}); err != nil {
		h.t.Fatal(err)
	}
}

// TestLedgerIsRead: what became of a write is known after a kill between its
// commit and the next checkpoint, though its edge never comes back, and what was
// confirmed is not withdrawn as overdue.
func TestLedgerIsRead(t *testing.T) {
	h := newHub(t)
	ref := h.live(float("temperature", 5, 7, h.now()))
	id := h.patch(`{"setpoint": 3}`, models.DesiredOptions{Expire: time.Minute})["setpoint"]
	h.latest("n1", 1, ref, &pb.LatestTwin{Seq: 8, Writes: []*pb.WriteEvent{{Property: "setpoint", Id: id, State: "pending"}}})
	h.cache.checkpoint(t.Context(), false)
	h.outcome(ref.UID, id, "applied")

	// The ledger cannot be read at first.
	h.store.Fault(func(step string) error {
		if step == "DesiredAt" {
			return errors.New("locked")
		}
		return nil
	})
	h.pass(time.Hour)
	h.open()
	if got := h.doc("b1").Properties["setpoint"].Write.State; got != twin.Pending {
		t.Fatalf("read from where? %s", got)
	}
	if h.cache.readWrites(t.Context()) {
		t.Fatal("it says that it has read all")
	}
	h.store.Fault(nil)
	h.open()
	p := h.doc("b1").Properties["setpoint"]
	if p.Write.State != twin.Applied || p.Write.ID != id || p.Desired == nil {
		t.Fatalf("%+v", p.Write)
	}
	if h.cache.WriteState(ref.UID, "setpoint", id) != twin.Applied {
		t.Error("a session would be told otherwise")
	}
	h.cache.expire(t.Context())
	if p = h.doc("b1").Properties["setpoint"]; p.Desired == nil || p.Write.State != twin.Applied {
		t.Errorf("what was confirmed is withdrawn: %+v", p)
	}
	// It is stored with the next checkpoint, and not asked for again.
	h.cache.checkpoint(t.Context(), false)
	h.open()
	if len(h.cache.unread) > 0 || len(h.cache.unsettled()) > 0 {
		t.Error("the ledger is read again")
	}

	// What is pending there stays so; a ledger that knows less changes nothing.
	id = h.patch(`{"setpoint": 4}`, models.DesiredOptions{})["setpoint"]
	h.open()
	if p := h.doc("b1").Properties["setpoint"]; p.Write.State != twin.Pending || p.Write.ID != id {
		t.Errorf("%+v", p.Write)
	}
	h.latest("n1", 2, ref, &pb.LatestTwin{Seq: 9, Writes: []*pb.WriteEvent{{Property: "setpoint", Id: id, State: "failed", Error: "no"}}})
	h.cache.takeWrites(ref.UID, []store.Write{{ID: id, Property: "setpoint", State: "pending"}})
	h.cache.takeWrites(ref.UID, []store.Write{{ID: "other", Property: "setpoint", State: "applied"}})
	if p := h.doc("b1").Properties["setpoint"]; p.Write.State != twin.Failed {
		t.Errorf("%+v", p.Write)
	}
	if always.UnixMicro() >= math.MaxInt64 {
		t.Error("no store has such a time")
	}
}
