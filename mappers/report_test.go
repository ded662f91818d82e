package mappers

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

// reporter is a fake that says what a test hands it.
type reporter struct {
	*fake
	says chan Delivery
}

func (r *reporter) Report(ctx context.Context, deliver func(Delivery) bool) {
	for {
		select {
		case d := <-r.says:
			deliver(d)
		case <-ctx.Done():
			return
		}
	}
}

// TestAReporterThatIsServedAgain: a device whose mapper comes back is read at
// once, as far as the mapper has not reported it, however long its intervals.
func TestAReporterThatIsServedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dev, out := &reporter{newFake(models.Float(1), models.Float(2), models.Float(3)), make(chan Delivery)}, &sink{}
		written := prop("c", models.TypeFloat, time.Hour)
		written.Access = models.Write
		r, _ := start(t, RunnerConfig{Device: dev, Sink: out, Properties: []models.ResolvedProperty{
			prop("a", models.TypeFloat, time.Hour), prop("b", models.TypeFloat, time.Hour), written}})
		say := func(d Delivery) {
			dev.says <- d
			synctest.Wait()
		}
		reads := func(want ...[]int) {
			t.Helper()
			calls := dev.readCalls()
			if len(calls) != len(want) {
				t.Fatalf("%d reads, want %d: %v", len(calls), len(want), calls)
			}
			for i, c := range calls {
				if len(c.points) != len(want[i]) || len(want[i]) > 0 && c.points[0] != want[i][0] {
					t.Errorf("read %d was of %v, want %v", i, c.points, want[i])
				}
			}
		}
		lost := Fail(models.ReasonMapperLost, errors.New("gone"))

		say(Delivery{Ask: true})
		reads([]int{0, 1})
		if out.state() != models.StateOnline || len(out.reports(1)) != 1 {
			t.Errorf("served: %s, %v", out.state(), out.reports(1))
		}
		say(Delivery{Ask: true}) // all is known
		reads([]int{0, 1})

		// What is reported before the Runner gets to it is not asked for.
		say(Delivery{Err: lost})
		if out.state() != models.StateOffline {
			t.Errorf("lost: %s", out.state())
		}
		say(Delivery{Points: []int{0}, Results: []Result{{Value: models.Float(1.5)}}})
		if out.state() != models.StateDegraded {
			t.Errorf("one of two is reported: %s", out.state())
		}
		say(Delivery{Ask: true})
		reads([]int{0, 1}, []int{1})
		if out.state() != models.StateOnline {
			t.Errorf("served again: %s", out.state())
		}

		// Lost and served before the Runner looked.
		say(Delivery{Err: lost, Ask: true})
		reads([]int{0, 1}, []int{1}, []int{0, 1})
		if seen := out.reports(0); out.state() != models.StateOnline || seen[len(seen)-2].sample.Reason != models.ReasonMapperLost {
			t.Errorf("lost and served: %s, %v", out.state(), seen)
		}

		// Served, but the device does not answer: that is why it is offline now.
		say(Delivery{Err: lost})
		dev.setFail(Fail(models.ReasonTimeout, errors.New("silent")))
		say(Delivery{Ask: true})
		if seen := out.reports(0); out.state() != models.StateOffline || seen[len(seen)-1].sample.Reason != models.ReasonTimeout {
			t.Errorf("silent: %s, %v", out.state(), seen)
		}
		// It answers who asks: the rest is read too.
		dev.setFail(nil)
		if _, err := r.Read(t.Context(), []int{1}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		reads([]int{0, 1}, []int{1}, []int{0, 1}, []int{0, 1}, []int{1}, []int{0})
		if out.state() != models.StateOnline {
			t.Errorf("answers again: %s", out.state())
		}

		// So does one that takes a write and reads it back.
		say(Delivery{Err: lost})
		r.Write(Write{ID: "w", Property: 2, Value: models.Float(4), Verify: true})
		synctest.Wait()
		if out.state() != models.StateOffline {
			t.Errorf("a write that is not read back proves nothing: %s", out.state())
		}
	})
}

// TestAReporterThatIsOnlyWritten has nothing to read: what its mapper says is all
// there is.
func TestAReporterThatIsOnlyWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dev, out := &reporter{newFake(models.Float(1)), make(chan Delivery)}, &sink{}
		p := prop("a", models.TypeFloat, time.Hour)
		p.Access = models.Write
		start(t, RunnerConfig{Device: dev, Sink: out, Properties: []models.ResolvedProperty{p}})
		for _, step := range []struct {
			d     Delivery
			state models.DeviceState
		}{
			{Delivery{Ask: true}, models.StateOnline},
			{Delivery{Err: Fail(models.ReasonMapperLost, errors.New("gone"))}, models.StateOffline},
			{Delivery{Ask: true}, models.StateOnline},
		} {
			dev.says <- step.d
			synctest.Wait()
			if out.state() != step.state {
				t.Errorf("%+v: %s, want %s", step.d, out.state(), step.state)
			}
		}
		if n := len(dev.readCalls()); n != 0 {
			t.Errorf("%d reads", n)
		}
	})
}
