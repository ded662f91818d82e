package twin

import (
	"slices"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

// as is the twin's next life with another model.
func as(t *testing.T, tw *Twin, defs []models.ResolvedProperty, now time.Time) *Twin {
	t.Helper()
	next := restart(t, tw, now)
	return New(defs, next.Stored(), now)
}

// without is the twin's next life with a model that lacks a property.
func without(t *testing.T, tw *Twin, i int, now time.Time) *Twin {
	t.Helper()
	return as(t, tw, slices.Delete(defs(), i, i+1), now)
}

// A hub that goes back to an older copy, or hears of a local write once more after
// that, may ask for a once write that was made long ago.
func TestOnceIsNotWrittenAgainForAnOlderHub(t *testing.T) {
	tw := New(defs(), Stored{}, t0)
	for n, w := range []DesiredValue{want("W1", 1), want("W2", 2)} {
		tw.SetCloud(cloud(int64(n+1), map[string]DesiredValue{"once": w}), at(0))
		if len(orders(tw, 0)) != 1 {
			t.Fatal("not sent")
		}
		tw.Settle(Result{Property: once, ID: w.ID, Outcome: Confirmed}, at(0))
	}
	tw = restart(t, tw, at(time.Second))
	tw.SetCloud(cloud(1, map[string]DesiredValue{"once": want("W1", 1)}), at(time.Second))
	if o := orders(tw, time.Second); len(o) != 0 {
		t.Errorf("written again: %+v", o)
	}
	tw.Report(once, good(2, 2*time.Second), at(2*time.Second))
	if c := tw.Learn(once, models.Float(1), at(2*time.Second)); len(c) != 1 || c[0].Write.State != Unknown {
		t.Errorf("it became %+v", c)
	}
	for n := range 3 * maxSpent {
		tw.SetCloud(cloud(int64(n+3), map[string]DesiredValue{"once": want("X"+string(rune('A'+n)), 3)}), at(3*time.Second))
		orders(tw, 3*time.Second)
	}
	if n := len(tw.props[once].write.Spent); n != maxSpent {
		t.Errorf("%d ids are kept", n)
	}
}

// A hub that went back hears once more what became of the writes that it still knows.
func TestOlderHubIsToldAgain(t *testing.T) {
	tw := New(defs(), Stored{}, t0)
	tw.SetCloud(cloud(5, map[string]DesiredValue{"once": want("W1", 1), "hold": want("W2", 2)}), at(0))
	orders(tw, 0)
	tw.Settle(Result{Property: once, ID: "W1", Outcome: Confirmed}, at(0))
	tw = without(t, tw, hold, at(0))
	c := tw.SetCloud(cloud(4, map[string]DesiredValue{"once": want("W1", 1), "hold": want("W2", 2)}), at(time.Second))
	if len(c) != 2 || c[0].Write.ID != "W1" || c[0].Write.State != Applied || c[1].Name != "hold" || c[1].Property != -1 {
		t.Errorf("told %+v", c)
	}
	if c := tw.SetCloud(cloud(4, map[string]DesiredValue{"once": want("W1", 1), "hold": want("W2", 2)}), at(time.Second)); len(c) != 0 {
		t.Errorf("told for ever %+v", c)
	}
}

// What is made of a property that the model has lost is told as of any other.
func TestLostPropertyIsTold(t *testing.T) {
	for _, c := range []struct {
		name  string
		next  Desired
		state WriteState
	}{
		{"superseded", cloud(2, map[string]DesiredValue{"once": want("W2", 2)}), Superseded},
		{"expired", cloud(2, map[string]DesiredValue{"once": {ID: "W1"}}), Expired},
	} {
		t.Run(c.name, func(t *testing.T) {
			tw := New(defs(), Stored{}, t0)
			tw.SetCloud(cloud(1, map[string]DesiredValue{"once": want("W1", 1)}), at(0))
			orders(tw, 0) // it is under way when the model changes
			tw = without(t, tw, once, at(0))
			got := tw.SetCloud(c.next, at(time.Second))
			if len(got) != 1 || got[0].Name != "once" || got[0].Write.State != c.state || got[0].Write.SentAt.IsZero() {
				t.Errorf("told %+v", got)
			}
			if got := tw.SetCloud(c.next, at(time.Second)); len(got) != 0 {
				t.Errorf("told again %+v", got)
			}
		})
	}
}

// A value that was to stay at the edge stays there when the model has lost the
// property, or lets its values go.
func TestPrivateLocalStaysWithoutItsProperty(t *testing.T) {
	tw := New(defs(), Stored{}, t0)
	tw.SetLocal(local(tw, "secret", "L1", models.Float(1)), at(0))
	gone := without(t, tw, secret, at(0))
	if up := gone.Uplink(); len(up) != 0 || gone.ComingVersion() != 0 {
		t.Errorf("without the property the hub hears %+v", up)
	}
	all := defs()
	all[secret].Uplink = models.UplinkAll
	open := as(t, gone, all, at(0))
	if up := open.Uplink(); len(up) != 0 || !open.WriteIsPrivate(secret) {
		t.Errorf("when others may go up the hub hears %+v", up)
	}
}

// A hub that went back counts versions anew: what it desires then is not hidden by a
// local write of a higher one.
func TestPrivateLocalYieldsToAnOlderHub(t *testing.T) {
	tw := New(defs(), Stored{}, t0)
	tw.SetCloud(cloud(7, map[string]DesiredValue{"secret": want("W1", 1)}), at(0))
	tw.SetLocal(local(tw, "secret", "L1", models.Float(2)), at(0))
	tw.SetCloud(cloud(3, map[string]DesiredValue{"secret": want("W2", 3)}), at(0))
	if w, _ := tw.Write(secret); w.ID != "W2" {
		t.Errorf("wanted is %+v", w)
	}
}

// An attempt that did not reach the device does not undo the time of one that may have.
func TestSentAtOutlivesAnAttemptThatWasNotSent(t *testing.T) {
	tw := New(defs(), Stored{}, t0)
	tw.SetCloud(cloud(1, map[string]DesiredValue{"hold": want("W1", 1)}), at(0))
	orders(tw, 0)
	tw.Settle(Result{Property: hold, ID: "W1", Outcome: Unconfirmed, Err: "no answer"}, at(0))
	if len(orders(tw, time.Minute)) != 1 {
		t.Fatal("not repeated")
	}
	tw.Settle(Result{Property: hold, ID: "W1", Outcome: NotSent, Err: "no route"}, at(time.Minute))
	if w, _ := tw.Write(hold); !w.SentAt.Equal(t0) {
		t.Errorf("sent at %v", w.SentAt)
	}
}

// A write whose answer got lost waits for a reading, which there never is when the
// model makes the property one that cannot be read.
func TestUnsettledWriteThatCannotBeReadAnyMore(t *testing.T) {
	tw := New(defs(), Stored{}, t0)
	tw.SetCloud(cloud(1, map[string]DesiredValue{"once": want("W1", 1)}), at(0))
	orders(tw, 0)
	tw.Settle(Result{Property: once, ID: "W1", Outcome: Unconfirmed, Err: "no answer"}, at(0))
	writeOnly := defs()
	writeOnly[once].Access = models.Write
	tw = as(t, tw, writeOnly, at(time.Second))
	if c := tw.HideUnreadable(at(time.Second)); len(c) != 1 || c[0].Write.State != Unknown {
		t.Errorf("%+v", c)
	}
}

// The hub shows what the edge says of a write over its own word that it expired, and a
// hold that is refused after it drifted; but nothing older.
func TestShadowTakesTheEdgesWord(t *testing.T) {
	for _, c := range []struct {
		name         string
		before, next Write
		taken        bool
	}{
		{"failed, and the hub gave up meanwhile", Write{ID: "W", State: Expired, Time: at(time.Hour)}, Write{ID: "W", State: Failed, Time: at(0)}, true},
		{"a hold drifted", Write{ID: "W", State: Applied, Time: at(0)}, Write{ID: "W", State: Failed, Time: at(time.Minute)}, true},
		{"told late", Write{ID: "W", State: Applied, Time: at(time.Minute)}, Write{ID: "W", State: Failed, Time: at(0)}, false},
		{"the hub gives up what failed", Write{ID: "W", State: Failed, Time: at(0)}, Write{ID: "W", State: Expired, Time: at(time.Minute)}, false},
		{"pending, told late", Write{ID: "W", State: Expired, Time: at(0)}, Write{ID: "W", State: Pending, Time: at(0)}, false},
	} {
		var s Shadow
		s.SetWrite("p", c.before, "W")
		if taken := s.SetWrite("p", c.next, "W"); taken != c.taken {
			t.Errorf("%s: taken %v", c.name, taken)
		}
	}
}
