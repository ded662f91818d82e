package mappers

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

func TestReadNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dev, out := newFake(models.Float(1), models.Float(2)), &sink{}
		slow := prop("a", models.TypeFloat, time.Hour)
		slow.Deadband = 10
		r, _ := start(t, RunnerConfig{Device: dev, Sink: out, Properties: []models.ResolvedProperty{slow, prop("b", models.TypeFloat, time.Hour)}})
		time.Sleep(2 * time.Second) // the first poll
		dev.set(0, Result{Value: models.Float(1.5)})
		dev.set(1, Result{Quality: models.Bad, Reason: models.ReasonDeviceError})
		got, err := r.Read(t.Context(), []int{1, 0, 1})
		if err != nil || len(got) != 3 || got[1].Value != models.Float(1.5) || got[0].Reason != models.ReasonDeviceError || got[2] != got[0] || got[1].Time.IsZero() {
			t.Fatalf("%v, %v", got, err)
		}
		// It was reported before, although within the deadband.
		if seen := out.reports(0); len(seen) != 2 || seen[1].sample.Value != models.Float(1.5) {
			t.Errorf("reported %v", seen)
		}
		if out.state() != models.StateDegraded {
			t.Errorf("state %s", out.state())
		}
		// Those that wait together are one read.
		dev.took = time.Second
		before := len(dev.readCalls())
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				if _, err := r.Read(t.Context(), []int{0}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := len(dev.readCalls()) - before; n > 2 {
			t.Errorf("5 callers cost %d reads", n)
		}
		if _, err := r.Read(t.Context(), []int{7}); FailureOf(err).Reason != models.ReasonConfiguration {
			t.Error(err)
		}
		// A caller that goes away does not wait for the device.
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if _, err := r.Read(ctx, []int{0}); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

func TestReadNowOfADeviceThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dev, out := newFake(models.Float(1)), &sink{}
		r, stop := start(t, RunnerConfig{Device: dev, Sink: out, Properties: []models.ResolvedProperty{prop("a", models.TypeFloat, time.Hour)}})
		time.Sleep(2 * time.Second)
		dev.setFail(Fail(models.ReasonTimeout, errors.New("no answer")))
		if _, err := r.Read(t.Context(), []int{0}); FailureOf(err).Reason != models.ReasonTimeout {
			t.Error(err)
		}
		if out.state() != models.StateOffline {
			t.Errorf("state %s", out.state())
		}
		// The read that succeeds is also what tells that the device is back.
		dev.setFail(nil)
		if got, err := r.Read(t.Context(), []int{0}); err != nil || got[0].Value != models.Float(1) {
			t.Errorf("%v, %v", got, err)
		}
		time.Sleep(time.Second)
		if out.state() != models.StateOnline {
			t.Errorf("state %s", out.state())
		}
		// Whoever waits is told when the device is closed.
		dev.took = time.Minute
		done := make(chan error, 1)
		go func() {
			_, err := r.Read(t.Context(), []int{0})
			done <- err
		}()
		synctest.Wait()
		stop()
		if err := <-done; FailureOf(err).Reason != models.ReasonMapperLost {
			t.Error(err)
		}
	})
}

// Reads of a dead device must not hold up the others on its line.
func TestReadNowOnASharedLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dead, other := newFake(models.Float(1)), newFake(models.Float(1))
		dead.line, other.line = "read-now", "read-now"
		dead.took = time.Second
		dead.setFail(Fail(models.ReasonTimeout, errors.New("no answer")))
		r, _ := start(t, RunnerConfig{Device: dead, DemoteAfter: 1, Properties: []models.ResolvedProperty{prop("a", models.TypeFloat, time.Second)}})
		start(t, RunnerConfig{Device: other, Properties: []models.ResolvedProperty{prop("a", models.TypeFloat, time.Second)}})
		time.Sleep(10 * time.Second)
		before := len(dead.readCalls())
		for range 100 {
			if _, err := r.Read(t.Context(), []int{0}); FailureOf(err).Reason != models.ReasonTimeout {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if n := len(dead.readCalls()) - before; n == 0 || n > 3 {
			t.Errorf("a dead device on a shared line was read %d times in about 10 s", n)
		}
	})
}
