package twin

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

var t0 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func at(d time.Duration) time.Time { return t0.Add(d) }

func defs() []models.ResolvedProperty {
	return []models.ResolvedProperty{
		{Name: "temp", Type: models.TypeFloat, Access: models.Read, Every: time.Second},
		{Name: "hold", Type: models.TypeFloat, Access: models.ReadWrite, Write: models.Hold, Every: time.Second, Maximum: models.Float(95)},
		{Name: "once", Type: models.TypeFloat, Access: models.ReadWrite, Write: models.Once, Every: time.Second},
		{Name: "blind", Type: models.TypeFloat, Access: models.Write, Write: models.Once, Every: time.Second},
		{Name: "secret", Type: models.TypeFloat, Access: models.ReadWrite, Write: models.Once, Every: time.Second, Uplink: models.UplinkNone},
	}
}

const (
	temp = iota
	hold
	once
	blind
	secret
)

func good(v float64, d time.Duration) models.Sample {
	return models.Sample{Value: models.Float(v), Time: at(d)}
}

// restart gives the twin what a new process finds on its disk.
func restart(t *testing.T, tw *Twin, now time.Time) *Twin {
	t.Helper()
	text, err := json.Marshal(tw.Stored())
	if err != nil {
		t.Fatal(err)
	}
	var stored Stored
	if err := json.Unmarshal(text, &stored); err != nil {
		t.Fatal(err)
	}
	return New(tw.defs, stored, now)
}

func cloud(version int64, values map[string]DesiredValue) Desired {
	for name, v := range values {
		v.Version = version
		values[name] = v
	}
	return Desired{Version: version, Properties: values}
}

func want(id string, v float64) DesiredValue { return DesiredValue{Value: models.Float(v), ID: id} }

func state(tw *Twin, i int) WriteState {
	w, _ := tw.Write(i)
	return w.State
}

func orders(tw *Twin, d time.Duration) []Order {
	o, _ := tw.Due(at(d))
	return o
}

func TestBadKeepsTheLastGoodValue(t *testing.T) {
	tw := New(defs(), Stored{}, t0)
	tw.Report(temp, good(21, 0), t0)
	if !tw.Report(temp, models.Sample{Quality: models.Bad, Reason: models.ReasonTimeout, Time: at(time.Second)}, at(time.Second)) {
		t.Fatal("a bad sample is no change")
	}
	r := tw.Reported(temp)
	if r.Value != models.Float(21) || !r.Time.Equal(t0) || r.Quality != models.Bad || r.Reason != models.ReasonTimeout || !r.Since.Equal(at(time.Second)) {
		t.Errorf("bad: %+v", r)
	}
	tw.Report(temp, models.Sample{Quality: models.Bad, Reason: models.ReasonTimeout, Time: at(2 * time.Second)}, at(2*time.Second))
	if r := tw.Reported(temp); !r.Since.Equal(at(time.Second)) {
		t.Errorf("since moved to %v although nothing changed", r.Since)
	}
	tw.Report(temp, good(22, 3*time.Second), at(3*time.Second))
	if r := tw.Reported(temp); r.Quality != models.Good || !r.Since.IsZero() || r.Value != models.Float(22) {
		t.Errorf("recovered: %+v", r)
	}
}

func TestStaleAndBack(t *testing.T) {
	tw := New(defs(), Stored{}, t0)
	tw.Report(temp, good(21, 0), t0)
	if turned := tw.Stale(at(2900 * time.Millisecond)); len(turned) != 0 {
		t.Fatalf("stale too early: %v", turned)
	}
	if turned := tw.Stale(at(3 * time.Second)); len(turned) != 1 || turned[0] != temp {
		t.Fatalf("stale: %v", turned)
	}
	r := tw.Reported(temp)
	if r.Quality != models.Uncertain || r.Reason != models.ReasonStale || !r.Time.Equal(t0) || !r.Since.Equal(at(3*time.Second)) {
		t.Errorf("stale: %+v", r)
	}
	if turned := tw.Stale(at(4 * time.Second)); len(turned) != 0 {
		t.Error("turned stale twice")
	}
	// The device answers and nothing has changed: no sample comes for it.
	if !tw.Refresh(temp, at(5*time.Second)) {
		t.Error("the refresh did not tell that the value is good again")
	}
	if r := tw.Reported(temp); r.Quality != models.Good || r.Reason != "" || !r.Time.Equal(t0) {
		t.Errorf("refreshed: %+v", r)
	}
	if tw.Refresh(temp, at(6*time.Second)) {
		t.Error("refreshed twice")
	}
}

func TestDeviceClockDoesNotMakeStale(t *testing.T) {
	tw := New(defs(), Stored{}, t0)
	tw.Report(temp, models.Sample{Value: models.Float(1), Time: at(-24 * time.Hour)}, t0)
	if turned := tw.Stale(at(time.Second)); len(turned) != 0 {
		t.Error("a device whose clock is a day late is stale at once")
	}
}

func TestRestartMakesUncertain(t *testing.T) {
	tw := New(defs(), Stored{}, t0)
	tw.Report(temp, good(21, 0), t0)
	tw = restart(t, tw, at(time.Hour))
	if r := tw.Reported(temp); r.Quality != models.Uncertain || r.Reason != models.ReasonStale || !r.Time.Equal(t0) {
		t.Errorf("after a restart: %+v", r)
	}
	// Only a reading of this life makes it better, not the word that nothing changed.
	if tw.Refresh(temp, at(time.Hour)); tw.Reported(temp).Quality != models.Uncertain {
		t.Error("good without a reading")
	}
}

func TestShadowKeepsTheTimeOfAStaleValue(t *testing.T) {
	var s Shadow
	s.Report("temp", good(21, 0), Position{1, 1})
	s.Report("temp", models.Sample{Value: models.Float(21), Quality: models.Uncertain, Reason: models.ReasonStale, Time: at(3 * time.Second)}, Position{1, 2})
	if r := s.Property("temp").Reported; !r.Time.Equal(t0) || !r.Since.Equal(at(3*time.Second)) || r.Quality != models.Uncertain {
		t.Errorf("got %+v", r)
	}
}

func TestOnceIsSentOnce(t *testing.T) {
	set := func() *Twin {
		tw := New(defs(), Stored{}, t0)
		tw.SetCloud(cloud(1, map[string]DesiredValue{"once": want("a", 5)}), t0)
		if o := orders(tw, 0); len(o) != 1 || !o[0].Once || o[0].ID != "a" {
			t.Fatalf("orders %+v", o)
		}
		return tw
	}
	five := models.Float(5)
	for _, c := range []struct {
		name   string
		end    func(*Twin) *Twin
		state  WriteState
		refuse bool
	}{
		{"confirmed", func(tw *Twin) *Twin {
			tw.Settle(Result{Property: once, ID: "a", Outcome: Confirmed}, t0)
			return tw
		}, Applied, false},
		{"refused", func(tw *Twin) *Twin {
			tw.Settle(Result{Property: once, ID: "a", Outcome: Refusal, Err: "no"}, t0)
			return tw
		}, Failed, true},
		{"unconfirmed, then read equal", func(tw *Twin) *Twin {
			tw.Settle(Result{Property: once, ID: "a", Outcome: Unconfirmed, Err: "timeout"}, t0)
			tw.Report(once, good(5, time.Second), at(time.Second))
			tw.Learn(once, five, at(time.Second))
			return tw
		}, Applied, false},
		{"unconfirmed, then unchanged", func(tw *Twin) *Twin {
			tw.Report(once, good(4, -time.Second), at(-time.Second))
			tw.Settle(Result{Property: once, ID: "a", Outcome: Unconfirmed, Err: "timeout"}, t0)
			tw.Refresh(once, at(time.Second)) // no sample: it still reads 4
			tw.Learn(once, five, at(time.Second))
			return tw
		}, Failed, false},
		{"unconfirmed over a restart", func(tw *Twin) *Twin {
			tw.Settle(Result{Property: once, ID: "a", Outcome: Unconfirmed, Err: "timeout"}, t0)
			tw = restart(t, tw, at(time.Minute))
			tw.Report(once, good(4, time.Minute), at(time.Minute))
			tw.Learn(once, five, at(time.Minute))
			return tw
		}, Failed, false},
		{"hidden by a crash, reads equal", func(tw *Twin) *Twin {
			tw = restart(t, tw, at(time.Minute))
			tw.Report(once, good(5, time.Minute), at(time.Minute))
			tw.Learn(once, five, at(time.Minute))
			return tw
		}, Applied, false},
		{"hidden by a crash, reads otherwise", func(tw *Twin) *Twin {
			tw = restart(t, tw, at(time.Minute))
			tw.Report(once, good(4, time.Minute), at(time.Minute))
			tw.Learn(once, five, at(time.Minute))
			return tw
		}, Unknown, false},
		{"expired, then confirmed", func(tw *Twin) *Twin {
			tw.props[once].write.Deadline = at(time.Second)
			tw.Expire(at(time.Second))
			tw.Settle(Result{Property: once, ID: "a", Outcome: Confirmed}, at(2*time.Second))
			if w, _ := tw.Write(once); !w.Late {
				t.Error("a late confirmation is not marked late")
			}
			return tw
		}, Expired, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			tw := c.end(set())
			w, _ := tw.Write(once)
			if w.State != c.state || w.Refused != c.refuse {
				t.Errorf("write %+v, want %s", w, c.state)
			}
			if o := orders(tw, time.Hour); len(o) != 0 {
				t.Errorf("ordered again: %+v", o)
			}
			if tw = restart(t, tw, at(2*time.Hour)); len(orders(tw, 2*time.Hour)) != 0 {
				t.Error("ordered again after a restart")
			}
		})
	}
}

func TestNotSentIsSentAgain(t *testing.T) {
	tw := New(defs(), Stored{}, t0)
	tw.SetCloud(cloud(1, map[string]DesiredValue{"once": want("a", 5)}), t0)
	orders(tw, 0)
	tw.Settle(Result{Property: once, ID: "a", Outcome: NotSent, Err: "not connected"}, t0)
	if o := orders(tw, 500*time.Millisecond); len(o) != 0 {
		t.Error("no back-off")
	}
	if next := tw.NextDue(); !next.Equal(at(time.Second)) {
		t.Errorf("next due %v", next)
	}
	tw.SetState(models.StateOnline, "")
	if o := orders(tw, 600*time.Millisecond); len(o) != 1 {
		t.Error("not sent at once although the device is back")
	}
}

// TestReplacedWhileHidden: a once write that was sent and then replaced may have
// reached the device; it is superseded only where that is known, or to be told
// by its result.
func TestReplacedWhileHidden(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(*Twin) *Twin
		want WriteState
	}{
		{"hidden by a crash", func(tw *Twin) *Twin { return restart(t, tw, at(time.Minute)) }, Unknown},
		{"unconfirmed", func(tw *Twin) *Twin {
			tw.Settle(Result{Property: once, ID: "a", Outcome: Unconfirmed, Err: "timeout"}, t0)
			return tw
		}, Unknown},
		{"not sent", func(tw *Twin) *Twin {
			tw.Settle(Result{Property: once, ID: "a", Outcome: NotSent}, t0)
			return tw
		}, Superseded},
		{"under way", func(tw *Twin) *Twin { return tw }, Superseded},
	} {
		tw := New(defs(), Stored{}, t0)
		tw.SetCloud(cloud(1, map[string]DesiredValue{"once": want("a", 5)}), t0)
		orders(tw, 0)
		tw = c.end(tw)
		changes := tw.SetCloud(cloud(2, map[string]DesiredValue{"once": want("b", 6)}), at(2*time.Minute))
		if len(changes) != 2 || changes[0].Write.ID != "a" || changes[0].Write.State != c.want {
			t.Errorf("%s: changes %+v, want %s first", c.name, changes, c.want)
		}
	}
}

func TestBlindWriteHiddenByACrash(t *testing.T) {
	tw := New(defs(), Stored{}, t0)
	tw.SetCloud(cloud(1, map[string]DesiredValue{"blind": want("a", 5)}), t0)
	orders(tw, 0)
	tw = restart(t, tw, at(time.Minute))
	if c := tw.HideUnreadable(at(time.Minute)); len(c) != 1 || c[0].Write.State != Unknown {
		t.Errorf("changes %+v", c)
	}
}

func TestPropertyThatComesBackIsNotWrittenAgain(t *testing.T) {
	tw := New(defs(), Stored{}, t0)
	d := cloud(1, map[string]DesiredValue{"once": want("a", 5)})
	tw.SetCloud(d, t0)
	orders(tw, 0)
	tw.Settle(Result{Property: once, ID: "a", Outcome: Confirmed}, t0)

	without := New(defs()[:once], tw.Stored(), at(time.Minute))
	without.SetCloud(d, at(time.Minute))
	back := New(defs(), without.Stored(), at(time.Hour))
	back.SetCloud(d, at(time.Hour))
	if o := orders(back, time.Hour); len(o) != 0 || state(back, once) != Applied {
		t.Errorf("orders %+v, state %s", o, state(back, once))
	}
}

func TestSettledElsewhereIsNotWrittenAgain(t *testing.T) {
	tw := New(defs(), Stored{}, t0)
	a, b := want("a", 5), want("b", 6)
	a.Settled, b.Settled = Applied, Applied
	changes := tw.SetCloud(cloud(1, map[string]DesiredValue{"once": a, "hold": b}), t0)
	if len(changes) != 1 || changes[0].Property != hold {
		t.Errorf("changes %+v", changes)
	}
	if o := orders(tw, 0); len(o) != 1 || o[0].Property != hold {
		t.Errorf("orders %+v, want hold alone", o)
	}
}

// TestHiddenElsewhere: a once write that somebody else may have sent is not sent;
// a reading tells, or nothing does.
func TestHiddenElsewhere(t *testing.T) {
	hidden := func() Desired {
		a, b, c := want("a", 5), want("b", 6), want("c", 7)
		a.Hidden, b.Hidden, c.Hidden = true, true, true
		a.Settled, b.Settled, c.Settled = Unknown, Unknown, Unknown
		return cloud(1, map[string]DesiredValue{"once": a, "hold": b, "blind": c})
	}
	for _, reads := range []float64{5, 4} {
		tw := New(defs(), Stored{}, t0)
		changes := tw.SetCloud(hidden(), t0)
		if last := changes[len(changes)-1]; len(changes) != 4 || last.Write.ID != "c" || last.Write.State != Unknown {
			t.Errorf("changes %+v", changes)
		}
		tw = restart(t, tw, at(time.Minute)) // it is not forgotten
		if o := orders(tw, time.Minute); len(o) != 1 || o[0].Property != hold {
			t.Errorf("orders %+v, want hold alone", o)
		}
		tw.Report(once, good(reads, time.Minute), at(time.Minute))
		changes = tw.Learn(once, models.Float(5), at(time.Minute))
		wanted := map[float64]WriteState{5: Applied, 4: Unknown}[reads]
		if len(changes) != 1 || changes[0].Write.State != wanted {
			t.Errorf("it reads %v: %+v, want %s", reads, changes, wanted)
		}
		if o := orders(tw, time.Hour); len(o) != 0 {
			t.Errorf("orders %+v", o)
		}
	}

	// A copy from before it was sent hears of it, one that is sending does not mind.
	for sent, wanted := range map[bool]WriteState{false: Unknown, true: Applied} {
		tw := New(defs(), Stored{}, t0)
		tw.SetCloud(cloud(1, map[string]DesiredValue{"once": want("a", 5)}), t0)
		if sent {
			orders(tw, 0)
		}
		tw.SetCloud(hidden(), at(time.Second))
		if o := orders(tw, time.Second); len(o) != 1 || o[0].Property != hold {
			t.Errorf("orders %+v, want hold alone", o)
		}
		if sent {
			tw.Settle(Result{Property: once, ID: "a", Outcome: Confirmed}, at(time.Second))
		} else {
			tw.Report(once, good(4, time.Second), at(time.Second))
			tw.Learn(once, models.Float(5), at(time.Second))
		}
		if got := state(tw, once); got != wanted {
			t.Errorf("sent %v: %s, want %s", sent, got, wanted)
		}
	}
}

func TestHoldBacksOff(t *testing.T) {
	tw := New(defs(), Stored{}, t0)
	tw.SetCloud(cloud(1, map[string]DesiredValue{"hold": want("a", 50)}), t0)
	now, sent := time.Duration(0), []time.Duration{}
	panel := func(until time.Duration) { // somebody turns it back at once, every time
		for ; now < until; now += 100 * time.Millisecond {
			if len(orders(tw, now)) == 1 {
				sent = append(sent, now)
				tw.Settle(Result{Property: hold, ID: "a", Outcome: Confirmed, ReadBack: new(good(50, now))}, at(now))
				tw.Report(hold, good(20, now), at(now))
			}
		}
	}
	panel(70 * time.Second)
	want := []time.Duration{0, 1, 3, 7, 15, 31, 63}
	if len(sent) != len(want) {
		t.Fatalf("asserted at %v, want %v s", sent, want)
	}
	for i := range want {
		if sent[i] != want[i]*time.Second {
			t.Errorf("assertion %d at %v, want %v s", i, sent[i], want[i])
		}
	}
	// Then it sticks for long: the next drift is answered at once.
	now = 2 * time.Hour
	tw.Report(hold, good(50, now), at(now))
	if o := orders(tw, now); len(o) != 0 {
		t.Error("asserted while it held")
	}
	now += time.Hour
	sent = nil
	tw.Report(hold, good(20, now), at(now))
	panel(now + 4*time.Second)
	if len(sent) != 3 || sent[1]-sent[0] != time.Second {
		t.Errorf("after a new drift at %v", sent)
	}
}

func TestHoldComparesWhatTheDeviceStored(t *testing.T) {
	tw := New(defs(), Stored{}, t0)
	tw.SetCloud(cloud(1, map[string]DesiredValue{"hold": want("a", 45.3)}), t0)
	orders(tw, 0)
	tw.Settle(Result{Property: hold, ID: "a", Outcome: Confirmed, ReadBack: new(good(45.5, 0))}, t0)
	tw.Report(hold, good(45.5, 0), t0)
	if o := orders(tw, time.Hour); len(o) != 0 {
		t.Error("fights the device's rounding")
	}
	tw = restart(t, tw, at(time.Hour))
	tw.Report(hold, good(45.5, time.Hour), at(time.Hour))
	if o := orders(tw, time.Hour); len(o) != 0 {
		t.Error("fights the device's rounding after a restart")
	}
	tw.Report(hold, good(45, time.Hour), at(time.Hour))
	if o := orders(tw, time.Hour); len(o) != 1 {
		t.Error("a drift over a restart is not asserted")
	}
}

func TestValuesKeepTheirTypeOverARestart(t *testing.T) {
	d := []models.ResolvedProperty{{Name: "b", Type: models.TypeBytes, Access: models.ReadWrite, Write: models.Hold, Every: time.Second}}
	tw := New(d, Stored{}, t0)
	v := models.Bytes([]byte{1, 2, 3})
	tw.SetLocal(local(tw, "b", "a", v), t0)
	orders(tw, 0)
	tw.Settle(Result{ID: "a", Outcome: Confirmed}, t0)
	tw.Report(0, models.Sample{Value: v, Time: t0}, t0)
	tw = restart(t, tw, at(time.Minute))
	if got := tw.Reported(0).Value; got != v {
		t.Errorf("reads %#v", got)
	}
	tw.Report(0, models.Sample{Value: v, Time: at(time.Minute)}, at(time.Minute))
	if o := orders(tw, time.Minute); len(o) != 0 {
		t.Error("asserted again although it holds")
	}
}

func TestModelThatNoLongerAllowsIsTold(t *testing.T) {
	tw := New(defs(), Stored{}, t0)
	tw.SetCloud(cloud(1, map[string]DesiredValue{"hold": want("a", 90)}), t0)
	narrow := defs()
	narrow[hold].Maximum = models.Float(50)
	tw = New(narrow, tw.Stored(), t0)
	o, changes := tw.Due(t0)
	if len(o) != 0 || len(changes) != 1 || changes[0].Write.State != Failed || !strings.Contains(changes[0].Write.Error, "50") {
		t.Errorf("orders %+v, changes %+v", o, changes)
	}
}

func TestPaused(t *testing.T) {
	tw := New(defs(), Stored{}, t0)
	d := want("a", 5)
	d.ExpiresInMS = 1000
	tw.SetCloud(cloud(1, map[string]DesiredValue{"once": d}), t0)
	tw.Paused = true
	if o := orders(tw, 0); len(o) != 0 {
		t.Error("ordered while paused")
	}
	if next := tw.NextDue(); !next.Equal(at(time.Second)) {
		t.Errorf("next due %v, want the deadline", next)
	}
	if c := tw.Expire(at(time.Second)); len(c) != 1 || c[0].Write.State != Expired {
		t.Errorf("changes %+v", c)
	}
}

func TestHubExpiresWhatWasApplied(t *testing.T) {
	tw := New(defs(), Stored{}, t0)
	d := cloud(1, map[string]DesiredValue{"hold": want("a", 5)})
	tw.SetCloud(d, t0)
	orders(tw, 0)
	tw.Settle(Result{Property: hold, ID: "a", Outcome: Confirmed}, t0)
	gone, _ := d.Withdraw("hold", "a", at(time.Second)) // the word of the confirmation was under way
	c := tw.SetCloud(gone, at(time.Second))
	if len(c) != 1 || c[0].Write.State != Expired || !c[0].Write.Late {
		t.Errorf("changes %+v", c)
	}
	tw.Report(hold, good(1, time.Minute), at(time.Minute))
	if o := orders(tw, time.Hour); len(o) != 0 {
		t.Error("holds a value that was withdrawn")
	}
}

func TestSupersede(t *testing.T) {
	tw := New(defs(), Stored{}, t0)
	tw.SetCloud(cloud(1, map[string]DesiredValue{"once": want("a", 5)}), t0)
	orders(tw, 0)
	c := tw.SetCloud(cloud(2, map[string]DesiredValue{"once": want("b", 6)}), t0)
	if len(c) != 2 || c[0].Write.ID != "a" || c[0].Write.State != Superseded || c[1].Write.ID != "b" || c[1].Write.State != Pending {
		t.Fatalf("changes %+v", c)
	}
	if got := tw.Settle(Result{Property: once, ID: "a", Outcome: Confirmed}, t0); got != nil || state(tw, once) != Pending {
		t.Error("the old write's outcome counted for the new one")
	}
	if o := orders(tw, 0); len(o) != 1 || o[0].ID != "b" {
		t.Errorf("orders %+v", o)
	}
}

func local(tw *Twin, property, id string, v models.Value) Local {
	return tw.NextLocal(Local{Property: property, ID: id, Value: v, Time: t0})
}

func TestLocalsAreBounded(t *testing.T) {
	tw := New(defs(), Stored{}, t0)
	for _, id := range []string{"l1", "l2", "l3", "l4"} {
		for _, p := range []string{"once", "secret"} {
			l := local(tw, p, p+id, models.Float(1))
			intent := tw.IntentWith(l)
			tw.SetLocal(l, t0)
			if got, _ := json.Marshal(intent.Locals); string(got) != mustJSON(tw.Locals()) {
				t.Fatalf("IntentWith stores %s, SetLocal keeps %s", got, mustJSON(tw.Locals()))
			}
		}
	}
	if got := tw.Locals(); len(got) != 3 {
		t.Fatalf("locals %+v", got)
	}
	up := tw.Uplink()
	if len(up) != 1 || up[0].ID != "oncel1" {
		t.Fatalf("uplink %+v", up)
	}
	d, v := Desired{}.Accept(up[0])
	if v != Accepted {
		t.Fatal(v)
	}
	tw.SetCloud(d, t0)
	up = tw.Uplink()
	if len(up) != 1 || up[0].ID != "oncel4" {
		t.Fatalf("then uplink %+v", up)
	}
	if d, v = d.Accept(up[0]); v != Accepted {
		t.Fatalf("the newest local write is %v", v)
	}
	tw.SetCloud(d, t0)
	if len(tw.Uplink()) != 0 || len(tw.Locals()) != 1 {
		t.Errorf("left %+v", tw.Locals())
	}
	if w, _ := tw.Write(once); w.ID != "oncel4" {
		t.Errorf("write %+v", w)
	}
}

func mustJSON(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func TestConflict(t *testing.T) {
	for _, c := range []struct {
		name    string
		d       Desired
		l       Local
		verdict Verdict
	}{
		{"nothing before", Desired{}, Local{Property: "p", ID: "l"}, Accepted},
		{"seen", cloud(3, map[string]DesiredValue{"p": want("c", 1)}), Local{Property: "p", ID: "l", Base: 3}, Accepted},
		{"not seen", cloud(3, map[string]DesiredValue{"p": want("c", 1)}), Local{Property: "p", ID: "l", Base: 2}, Overridden},
		{"not seen, of another property", cloud(3, map[string]DesiredValue{"q": want("c", 1)}), Local{Property: "p", ID: "l", Base: 2}, Accepted},
		{"after its own", cloud(3, map[string]DesiredValue{"p": want("k", 1)}), Local{Property: "p", ID: "l", Base: 2, After: "k"}, Accepted},
		{"again", cloud(3, map[string]DesiredValue{"p": want("l", 1)}), Local{Property: "p", ID: "l", Base: 2}, Accepted},
	} {
		t.Run(c.name, func(t *testing.T) {
			next, v := c.d.Accept(c.l)
			if v != c.verdict {
				t.Fatalf("%v, want %v", v, c.verdict)
			}
			if got := next.Properties[c.l.Property].ID == c.l.ID; got != (v == Accepted) {
				t.Errorf("in force: %v", got)
			}
			again, v2 := next.Accept(c.l)
			if v2 != v || again.Version != next.Version {
				t.Error("a resend changed something")
			}
		})
	}
}

func TestPatch(t *testing.T) {
	ids := 0
	change := Change{Time: t0, NewID: func() string { ids++; return string(rune('a' + ids - 1)) }}
	d := Desired{}.Patch(map[string]models.Value{"p": models.Int(1), "q": models.Int(2)}, change)
	if d.Version != 1 || d.Properties["p"].ID == d.Properties["q"].ID {
		t.Errorf("%+v", d)
	}
	if same := d.Patch(map[string]models.Value{"r": models.Null}, change); same.Version != 1 {
		t.Error("withdrawing nothing made a version")
	}
	gone := d.Patch(map[string]models.Value{"p": models.Null}, change)
	if _, live := gone.Live("p"); live || gone.Version != 2 {
		t.Error("null did not withdraw")
	}
	if _, live := d.Live("p"); !live {
		t.Error("the old value was changed")
	}
}

// TestTold: what the ledger hears of has its value, also of a property that is bad.
func TestTold(t *testing.T) {
	at, later := time.Unix(100, 0), time.Unix(200, 0)
	for name, r := range map[string]Reported{
		"good":      {Value: models.Int(5), Time: at},
		"uncertain": {Value: models.Int(5), Time: at, Quality: models.Uncertain, Reason: models.ReasonStale, Since: later},
		"bad":       {Value: models.Int(5), Time: at, Quality: models.Bad, Reason: models.ReasonTimeout, Since: later},
		"never":     {Quality: models.Bad, Reason: models.ReasonTimeout, Since: later},
	} {
		want := r
		if !r.Time.IsZero() {
			want.Since = time.Time{}
		}
		if have := Heard(r.Told()); have != want {
			t.Errorf("%s: %+v, want %+v", name, have, want)
		}
	}
}
