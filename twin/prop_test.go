package twin

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
	"pgregory.net/rapid"
)

// After any interleaving of writes in the cloud and at the edge, of what travels
// up and down between them and of restarts, both ends want the same, and neither
// waits for anything.
func TestConflictConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		props := []string{"hold", "once"}
		hub, edge := Desired{}, New(defs(), Stored{}, t0)
		var log []Local             // on its way up, in order
		logged := map[string]bool{} // what went into it
		var down *Desired           // the newest state on its way down
		n := 0
		newID := func() string { n++; return fmt.Sprintf("w%03d", n) }
		uplink := func() {
			for _, l := range edge.Uplink() {
				if !logged[l.ID] {
					logged[l.ID] = true
					log = append(log, l)
				}
			}
		}
		up := func() {
			if len(log) == 0 {
				return
			}
			next, _ := hub.Accept(log[0])
			log = log[1:]
			if next.Version != hub.Version {
				hub = next
				down = new(hub.Clone())
			}
		}
		deliver := func() {
			if down != nil {
				edge.SetCloud(*down, t0)
				down = nil
				uplink()
			}
		}
		value := func() models.Value {
			if v := rapid.IntRange(-1, 3).Draw(t, "value"); v >= 0 {
				return models.Float(float64(v))
			}
			return models.Null
		}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			p := rapid.SampledFrom(props).Draw(t, "property")
			switch rapid.IntRange(0, 5).Draw(t, "step") {
			case 0:
				hub = hub.Patch(map[string]models.Value{p: value()}, Change{Time: t0, NewID: newID})
				down = new(hub.Clone())
			case 1:
				edge.SetLocal(edge.NextLocal(Local{Property: p, ID: newID(), Value: value(), Time: t0}), t0)
				uplink()
			case 2:
				up()
			case 3:
				deliver()
			case 4: // a restart: what waits is told again, once
				text, _ := json.Marshal(edge.Stored())
				var s Stored
				if err := json.Unmarshal(text, &s); err != nil {
					t.Fatal(err)
				}
				edge = New(defs(), s, t0)
				edge.SetCloud(hubAsSeen(edge), t0)
				clear(logged)
				uplink()
			case 5: // orders come and go meanwhile
				o, _ := edge.Due(t0.Add(time.Duration(n) * time.Hour))
				for _, o := range o {
					edge.Settle(Result{Property: o.Property, ID: o.ID, Outcome: Confirmed}, t0)
				}
			}
		}
		for len(log) > 0 || down != nil {
			up()
			deliver()
		}
		for _, p := range props {
			w, _ := edge.wantedOf(p)
			h := hub.Properties[p]
			if w.ID != h.ID || !Same(w.Value, h.Value) {
				t.Fatalf("%s: edge wants %s (%s), hub %s (%s)", p, w.Value, w.ID, h.Value, h.ID)
			}
			i, _ := edge.Index(p)
			if e, _ := edge.Write(i); h.Value.IsNull() != (e.ID == "") {
				t.Fatalf("%s: desired %s, write %+v", p, h.Value, e)
			}
		}
		if len(edge.Locals()) != 0 {
			t.Fatalf("still waiting: %+v", edge.Locals())
		}
	})
}

func hubAsSeen(t *Twin) Desired { return t.cloud.Clone() }

// Whatever happens to orders and to the process, a once value is sent at most
// once per write, unless nothing had reached the device.
func TestOnceNeverTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tw := New(defs(), Stored{}, t0)
		stored := tw.Stored()
		d := Desired{}
		now := t0
		reached := map[string]int{} // write to how often it may have reached the device
		inFlight := map[string]Order{}
		version := 0
		newID := func() string { version++; return fmt.Sprintf("w%d", version) }
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 600).Draw(t, "seconds")) * time.Second)
			switch rapid.IntRange(0, 7).Draw(t, "step") {
			case 0:
				d = d.Patch(map[string]models.Value{"once": models.Float(float64(version))}, Change{Time: now, NewID: newID})
				tw.SetCloud(d, now)
			case 1:
				tw.SetLocal(tw.NextLocal(Local{Property: "once", ID: newID(), Value: models.Float(7), Time: now}), now)
			case 2, 3:
				o, _ := tw.Due(now)
				stored = tw.Stored() // before they go out
				for _, o := range o {
					inFlight[o.ID] = o
					reached[o.ID]++
				}
			case 4:
				for id, o := range inFlight {
					delete(inFlight, id)
					r := Result{Property: o.Property, ID: id, Outcome: Outcome(rapid.IntRange(0, 3).Draw(t, "outcome")), Err: "e"}
					if r.Outcome == NotSent {
						reached[id]--
					}
					if r.Outcome == Unconfirmed && rapid.Bool().Draw(t, "readback") {
						r.ReadBack = &models.Sample{Value: models.Float(9), Time: now}
					}
					tw.Settle(r, now)
					break
				}
			case 5:
				tw.Report(once, models.Sample{Value: models.Float(float64(rapid.IntRange(0, 9).Draw(t, "reads"))), Time: now}, now)
				tw.Learn(once, tw.Pending(once), now)
			case 6: // the process dies, and finds what was stored last
				if rapid.Bool().Draw(t, "stored") {
					stored = tw.Stored()
				}
				text, _ := json.Marshal(stored)
				var s Stored
				if err := json.Unmarshal(text, &s); err != nil {
					t.Fatal(err)
				}
				tw = New(defs(), s, now)
				tw.HideUnreadable(now)
				tw.SetCloud(d, now) // it is on disk before anything else
				clear(inFlight)
			case 7:
				tw.Expire(now)
				tw.SetState([]models.DeviceState{models.StateOnline, models.StateOffline}[rapid.IntRange(0, 1).Draw(t, "state")], "")
			}
			for id, n := range reached {
				if n > 1 {
					t.Fatalf("%s was sent %d times", id, n)
				}
			}
		}
	})
}

// Of good and bad samples in any order the twin shows the last good value with
// its time, and the last sample's quality.
func TestReportedIsTheLastGoodValue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tw := New(defs(), Stored{}, t0)
		var last models.Sample
		var lastGood models.Sample
		version := tw.Version
		for i := range rapid.IntRange(1, 30).Draw(t, "n") {
			s := models.Sample{Time: t0.Add(time.Duration(i) * time.Second)}
			if rapid.Bool().Draw(t, "good") {
				s.Value = models.Float(float64(rapid.IntRange(0, 3).Draw(t, "v")))
				lastGood = s
			} else {
				s.Quality, s.Reason = models.Bad, models.ReasonTimeout
			}
			last = s
			changed := tw.Report(temp, s, s.Time)
			if changed && tw.Version == version {
				t.Fatal("a change without a new version")
			}
			version = tw.Version
			r := tw.Reported(temp)
			if r.Value != lastGood.Value || !r.Time.Equal(lastGood.Time) || r.Quality != last.Quality || r.Reason != last.Reason {
				t.Fatalf("%+v after %+v, last good %+v", r, last, lastGood)
			}
		}
	})
}
