package mappers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/whimbrel-edge/whimbrel/models"
)

func TestPollsOnAnAbsoluteGrid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dev, out := newFake(models.Float(1)), &sink{}
		dev.took = 30 * time.Millisecond // would add up to a drift
		began := time.Now()
		_, stop := start(t, RunnerConfig{Device: dev, Sink: out, Seed: uint64(400 * time.Millisecond),
			Properties: []models.ResolvedProperty{prop("a", models.TypeFloat, time.Second)}})
		time.Sleep(10 * time.Second)
		stop()
		times := dev.readTimes()
		if len(times) != 10 {
			t.Fatalf("%d reads in 10 s, want 10", len(times))
		}
		for i, at := range times {
			if want := began.Add(400*time.Millisecond + time.Duration(i)*time.Second); !at.Equal(want) {
				t.Errorf("read %d came %v off its tick", i, at.Sub(want))
			}
		}
		if dev.closed != 1 {
			t.Errorf("device closed %d times", dev.closed)
		}
	})
}

func TestSeedsSpreadPollsAndIntervalsMeet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		firsts := map[time.Duration]int{}
		for seed := range uint64(20) {
			dev := newFake(models.Float(1), models.Float(2), models.Float(3))
			began := time.Now()
			_, stop := start(t, RunnerConfig{Device: dev, Seed: seed * 1_234_567_890_123,
				Properties: []models.ResolvedProperty{prop("a", models.TypeFloat, time.Second), prop("b", models.TypeFloat, 5*time.Second),
					prop("c", models.TypeFloat, time.Hour)}})
			time.Sleep(20 * time.Second)
			stop()
			calls := dev.readCalls()
			firsts[calls[0].at.Sub(began)/(50*time.Millisecond)]++
			// Every value comes within the first second, whatever its interval.
			if got := calls[0].points; !slices.Equal(got, []int{0, 1, 2}) {
				t.Errorf("seed %d: the first read was of %v", seed, got)
			}
			for _, c := range calls {
				if !slices.Contains(c.points, 0) {
					t.Errorf("seed %d: points %v read apart from those read every second", seed, c.points)
				}
			}
			if n := len(calls); n < 20 || n > 21 {
				t.Errorf("seed %d: %d reads in 20 s", seed, n)
			}
		}
		if len(firsts) < 8 {
			t.Errorf("20 devices poll at %d different moments only", len(firsts))
		}
	})
}

func TestOverrunsAreSkippedAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dev := newFake(models.Float(1))
		dev.took = 2500 * time.Millisecond
		m := NewMetrics()
		_, stop := start(t, RunnerConfig{Device: dev, Metrics: m, Properties: []models.ResolvedProperty{prop("a", models.TypeFloat, time.Second)}})
		time.Sleep(10*time.Second + time.Millisecond)
		stop()
		// At 0, 2.5, 5, 7.5 and 10 s: a late poll runs at once, the ticks 1, 3+4,
		// 6 and 8+9 that passed besides are lost.
		if n := len(dev.readTimes()); n != 5 {
			t.Errorf("%d reads, want 5", n)
		}
		if n := counted(t, m.overruns); n != 6 {
			t.Errorf("%v overruns, want 6", n)
		}
	})
}

func counted(t *testing.T, m prometheus.Metric) float64 {
	t.Helper()
	var out dto.Metric
	if err := m.Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.GetCounter().GetValue()
}

func TestMetricsRegister(t *testing.T) {
	reg := prometheus.NewRegistry()
	m := NewMetrics()
	if err := reg.Register(m); err != nil {
		t.Fatal(err)
	}
	c := newCounting(m, "modbus")
	c.request(models.ReasonNone, time.Millisecond)
	c.request(models.ReasonTimeout, time.Second)
	c.overrun(2)
	got, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range got {
		names = append(names, f.GetName())
	}
	want := []string{"whimbrel_mapper_cycle_overruns_total", "whimbrel_mapper_request_seconds", "whimbrel_mapper_requests_total"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Error(diff)
	}
	if n := counted(t, m.requests.WithLabelValues("modbus", "timeout")); n != 1 {
		t.Errorf("timeouts counted %v times", n)
	}
}

func TestReportsOnChangeAndHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dev, out := newFake(models.Float(20)), &sink{}
		p := prop("a", models.TypeFloat, time.Second)
		p.Heartbeat, p.Deadband = 10*time.Second, 0.5
		began := time.Now()
		_, stop := start(t, RunnerConfig{Device: dev, Sink: out, Properties: []models.ResolvedProperty{p}})
		time.Sleep(1500 * time.Millisecond)
		dev.set(0, Result{Value: models.Float(20.5)}) // within the deadband
		time.Sleep(2 * time.Second)
		dev.set(0, Result{Value: models.Float(20.51)}) // beyond what was reported
		time.Sleep(30 * time.Second)
		stop()
		var got []string
		for _, s := range out.reports(0) {
			got = append(got, fmt.Sprint(s.at.Sub(began), " ", s.sample.Value))
		}
		want := []string{"0s 20", "4s 20.51", "14s 20.51", "24s 20.51"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		for _, b := range out.reported() {
			if !slices.Equal(b.Refreshed, []int{0}) {
				t.Errorf("refreshed %v", b.Refreshed)
			}
		}
	})
}

func TestDueAndSampleOf(t *testing.T) {
	now := time.Unix(1000, 0)
	p := prop("a", models.TypeFloat, time.Second)
	p.Minimum, p.Maximum = models.Float(0), models.Float(100)
	for name, c := range map[string]struct {
		in   Result
		want models.Sample
	}{
		"good":                {Result{Value: models.Float(1)}, models.Sample{Value: models.Float(1), Time: now}},
		"device's own time":   {Result{Value: models.Float(1), Time: now.Add(-1)}, models.Sample{Value: models.Float(1), Time: now.Add(-1)}},
		"an int for a float":  {Result{Value: models.Int(1)}, models.Sample{Value: models.Float(1), Time: now}},
		"NaN":                 {Result{Value: models.Null}, models.Sample{Quality: models.Bad, Reason: models.ReasonNotANumber, Time: now}},
		"of another type":     {Result{Value: models.String("x")}, models.Sample{Quality: models.Bad, Reason: models.ReasonProtocolError, Time: now}},
		"above the maximum":   {Result{Value: models.Float(101)}, models.Sample{Value: models.Float(101), Quality: models.Uncertain, Reason: models.ReasonOutOfRange, Time: now}},
		"below the minimum":   {Result{Value: models.Float(-1)}, models.Sample{Value: models.Float(-1), Quality: models.Uncertain, Reason: models.ReasonOutOfRange, Time: now}},
		"uncertain stays":     {Result{Value: models.Float(101), Quality: models.Uncertain, Reason: "sensor"}, models.Sample{Value: models.Float(101), Quality: models.Uncertain, Reason: "sensor", Time: now}},
		"a value that is bad": {Result{Value: models.Float(1), Quality: models.Bad, Reason: models.ReasonDeviceError}, models.Sample{Quality: models.Bad, Reason: models.ReasonDeviceError, Time: now}},
	} {
		if diff := cmp.Diff(c.want, sampleOf(&p, c.in, now), cmp.Comparer(func(a, b models.Value) bool { return a == b })); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}

	big := models.Uint(1<<63 + 5)
	for _, c := range []struct {
		a, b     models.Value
		deadband float64
		want     bool
	}{
		{models.Int(1), models.Int(2), 0, true},
		{models.Int(1), models.Int(2), 1, false},
		{models.Int(1), models.Int(3), 1, true},
		{models.Int(3), models.Int(1), 1, true},
		{models.Int(-5), models.Int(5), 9, true},
		{models.Int(-5), models.Int(5), 10, false},
		{models.Int(1 << 62), models.Int(1<<62 + 3), 2, true},
		{big, models.Uint(1<<63 + 6), 2, false},
		{models.Int(-1), big, 1e18, true},
		{models.String("a"), models.String("b"), 5, true},
		{models.Float(1), models.Float(1.2), 0.3, false},
		{models.Float(1), models.Float(1.4), 0.3, true},
	} {
		if got := beyond(c.a, c.b, c.deadband); got != c.want {
			t.Errorf("beyond(%v, %v, %v) = %v", c.a, c.b, c.deadband, got)
		}
	}
}

func TestOneBadPointDegrades(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dev, out := newFake(models.Float(1), models.Float(2)), &sink{}
		_, stop := start(t, RunnerConfig{Device: dev, Sink: out, Properties: []models.ResolvedProperty{
			prop("a", models.TypeFloat, time.Second), prop("b", models.TypeFloat, time.Second)}})
		time.Sleep(2500 * time.Millisecond)
		dev.set(1, Result{Quality: models.Bad, Reason: models.ReasonDeviceError})
		time.Sleep(3 * time.Second)
		dev.set(1, Result{Quality: models.Bad, Reason: models.ReasonNotImplemented}) // no fault
		time.Sleep(2 * time.Second)
		stop()
		var states []models.DeviceState
		for _, s := range out.states {
			states = append(states, s.state)
		}
		if diff := cmp.Diff([]models.DeviceState{"online", "degraded", "online"}, states); diff != "" {
			t.Error(diff)
		}
		if n := len(out.reports(0)); n != 1 {
			t.Errorf("the good point was reported %d times", n)
		}
		if n := len(out.reports(1)); n != 3 {
			t.Errorf("the bad point was reported %d times", n)
		}
	})
}

// What is told of a degraded device says why, and follows when others fail.
func TestDegradedSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dev, out := newFake(models.Float(1), models.Float(2)), &sink{}
		_, stop := start(t, RunnerConfig{Device: dev, Sink: out, Properties: []models.ResolvedProperty{
			prop("a", models.TypeFloat, time.Second), prop("b", models.TypeFloat, time.Second)}})
		fail := func(p int, why string) {
			dev.set(p, Result{Quality: models.Bad, Reason: models.ReasonDeviceError, Err: errors.New(why)})
		}
		time.Sleep(time.Second)
		fail(1, "no such register")
		time.Sleep(2 * time.Second)
		fail(1, "the same in other words") // is not told again
		fail(0, "worn out")
		time.Sleep(2 * time.Second)
		if n := len(out.told()); n != 2 {
			t.Errorf("told %d times in so short a time", n)
		}
		time.Sleep(retell)
		stop()
		var said []string
		for _, s := range out.states[1:] {
			said = append(said, s.err.Error())
		}
		if diff := cmp.Diff([]string{"device-error: of 2 properties fail [b]; b: no such register", "device-error: of 2 properties fail [a b]; a: worn out"}, said); diff != "" {
			t.Error(diff)
		}
	})
}

func TestAQuickRetryHidesOneFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dev, out := newFake(models.Float(1)), &sink{}
		_, stop := start(t, RunnerConfig{Device: dev, Sink: out, Properties: []models.ResolvedProperty{prop("a", models.TypeFloat, time.Second)}})
		time.Sleep(2500 * time.Millisecond)
		dev.mu.Lock()
		dev.fail, dev.failN = Fail(models.ReasonNotConnected, errors.New("reset")), 1
		dev.mu.Unlock()
		time.Sleep(2 * time.Second)
		stop()
		if len(out.states) != 1 || len(out.reports(0)) != 1 {
			t.Errorf("states %v, reports %v", out.states, out.reports(0))
		}
		if n := len(dev.readTimes()); n != 6 {
			t.Errorf("%d reads, want 5 polls and a retry", n)
		}
	})
}

func TestDemotionOnALineOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dev, out := newFake(models.Float(1), models.Float(2)), &sink{}
		b := prop("b", models.TypeFloat, time.Hour)
		_, stop := start(t, RunnerConfig{Device: dev, Sink: out, Properties: []models.ResolvedProperty{prop("a", models.TypeFloat, time.Second), b}})
		time.Sleep(500 * time.Millisecond)
		dev.mu.Lock()
		dev.fail, dev.took, dev.reads = Fail(models.ReasonTimeout, errors.New("no answer")), 100*time.Millisecond, nil
		dev.mu.Unlock()
		time.Sleep(60 * time.Second)
		calls := dev.readCalls()
		// The first cycle with a retry, two more, then probes of one point.
		for i, c := range calls {
			want := 1
			if i < 4 && len(c.points) != want {
				t.Errorf("cycle %d read %v", i, c.points)
			}
			if i >= 5 {
				gap := c.at.Sub(calls[i-1].at) - 100*time.Millisecond
				if gap > 5*time.Second || i >= 8 && gap < 4*time.Second {
					t.Errorf("probe %d came after %v", i, gap)
				}
			}
		}
		if n := len(calls); n < 15 || n > 20 {
			t.Errorf("%d reads in 60 s", n)
		}
		for p := range 2 {
			got := out.reports(p)
			if len(got) != 2 || got[1].sample.Reason != models.ReasonTimeout || got[1].sample.Quality != models.Bad {
				t.Errorf("property %d was reported %v", p, got)
			}
		}
		if got := out.told(); len(got) != 2 || got[1].state != models.StateOffline || got[1].reason != models.ReasonTimeout {
			t.Errorf("states %v", got)
		}
		back := time.Now()
		dev.setFail(nil)
		time.Sleep(6 * time.Second)
		stop()
		for p := range 2 {
			got := out.reports(p)
			if len(got) != 3 || got[2].sample.Quality != models.Good || got[2].at.Sub(back) > 5500*time.Millisecond {
				t.Errorf("property %d came back as %v", p, got)
			}
		}
		if out.state() != models.StateOnline || len(out.states) != 3 {
			t.Errorf("states %v", out.states)
		}
	})
}

// TestOneDeadUnitOnASharedLine holds a demoted unit to less than a twentieth
// of its line's time.
func TestOneDeadUnitOnASharedLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var healthy []*fake
		for i := range 29 {
			dev := newFake(models.Float(1))
			dev.line, dev.took = t.Name(), 10*time.Millisecond
			healthy = append(healthy, dev)
			start(t, RunnerConfig{Device: dev, Seed: uint64(i) * uint64(33*time.Millisecond), Properties: []models.ResolvedProperty{prop("a", models.TypeFloat, time.Second)}})
		}
		dead, out := newFake(models.Float(1)), &sink{}
		dead.line, dead.took = t.Name(), time.Second
		dead.fail = Fail(models.ReasonTimeout, errors.New("no answer"))
		start(t, RunnerConfig{Device: dead, Sink: out, Properties: []models.ResolvedProperty{prop("a", models.TypeFloat, time.Second)}})
		time.Sleep(10 * time.Second) // demoted by now
		before := len(dead.readTimes())
		const span = 10 * time.Minute
		time.Sleep(span)
		probes := len(dead.readTimes()) - before
		if share := float64(probes) * dead.took.Seconds() / span.Seconds(); probes == 0 || share >= 0.05 {
			t.Errorf("%d probes took %.1f %% of the line's time", probes, 100*share)
		}
		for _, dev := range healthy {
			if n := len(dev.readTimes()); n < 609 || n > 611 {
				t.Errorf("a healthy unit was polled %d times in 610 s", n)
			}
		}
	})
}

func TestDemotionVerdicts(t *testing.T) {
	own, pair := lineUse{users: 1}, lineUse{users: 2, demoted: 1}
	for _, c := range []struct {
		name    string
		after   int
		failed  int // failures before the one that is judged
		took    time.Duration
		use     lineUse
		demoted bool
		wait    time.Duration
	}{
		{"first", 3, 0, time.Second, own, false, 0},
		{"second", 3, 1, time.Second, own, false, 0},
		{"third", 3, 2, time.Second, own, true, time.Second},
		{"fourth", 3, 3, time.Second, own, true, 2 * time.Second},
		{"limit", 3, 50, time.Second, own, true, 5 * time.Second},
		{"shared", 3, 2, time.Second, pair, true, 25 * time.Second},
		{"shared, quick", 3, 6, time.Millisecond, pair, true, 5 * time.Second},
		{"two of three", 3, 2, time.Second, lineUse{users: 3, demoted: 2}, true, 50 * time.Second},
		{"many", 3, 2, time.Second, lineUse{users: 30, demoted: 20}, true, time.Minute},
		{"all of them", 3, 2, time.Second, lineUse{users: 30, demoted: 30}, true, 25 * time.Second},
		{"at once", 1, 0, 0, own, true, time.Second},
	} {
		d := demotion{after: c.after, failures: c.failed}
		if got := d.failed(c.took, c.use, 0); got != (verdict{c.demoted, c.wait}) {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

func TestWriteIsReadBack(t *testing.T) {
	for _, c := range []struct {
		name    string
		prepare func(*fake)
		value   models.Value
		verify  bool
		outcome Outcome
		back    models.Value // Null: none
		within  time.Duration
	}{
		{"equal", func(*fake) {}, models.Float(5), true, Applied, models.Float(5), 0},
		{"not verified", func(*fake) {}, models.Float(5), false, Applied, models.Null, 0},
		{"a moment later", func(f *fake) { f.lag = 120 * time.Millisecond }, models.Float(5), true, Applied, models.Float(5), 150 * time.Millisecond},
		{"limited by the device", func(f *fake) { f.store = func(models.Value) models.Value { return models.Float(4) } }, models.Float(5), true,
			Unconfirmed, models.Float(4), time.Second},
		{"refused", func(f *fake) {
			f.refuse = map[int]error{0: &Failure{Reason: models.ReasonDeviceError, Refused: true, Err: errors.New("no")}}
		}, models.Float(5), true, Refused, models.Null, 0},
		{"not sent", func(f *fake) {
			f.refuse = map[int]error{0: &Failure{Reason: models.ReasonNotConnected, Unsent: true, Err: errors.New("no way")}}
		}, models.Float(5), true, Unsent, models.Null, 0},
		{"no answer", func(f *fake) { f.fail = context.DeadlineExceeded }, models.Float(5), true, Unconfirmed, models.Null, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dev, out := newFake(models.Float(1)), &sink{}
				p := prop("a", models.TypeFloat, time.Minute)
				p.Deadband = 100 // the read-back is reported all the same
				var log strings.Builder
				r, stop := start(t, RunnerConfig{Device: dev, Sink: out, Properties: []models.ResolvedProperty{p}, Log: slog.New(slog.NewTextHandler(&log, nil))})
				time.Sleep(time.Second)
				dev.mu.Lock()
				c.prepare(dev)
				dev.mu.Unlock()
				if !r.Write(Write{ID: "w", Property: 0, Value: c.value, Once: true, Verify: c.verify, Trace: "00-1-2-01"}) {
					t.Fatal("not accepted")
				}
				time.Sleep(2 * time.Second)
				got, ok := out.result("w")
				if !ok || got.Outcome != c.outcome || !got.Once || got.Took > c.within {
					t.Errorf("result %+v, want %v within %v", got, c.outcome, c.within)
				}
				if (got.Err == nil) != (c.outcome == Applied) {
					t.Errorf("error %v", got.Err)
				}
				if (got.ReadBack != nil) != !c.back.IsNull() || got.ReadBack != nil && got.ReadBack.Value != c.back {
					t.Errorf("read back %v", got.ReadBack)
				}
				if !c.back.IsNull() {
					reports := out.reports(0)
					if last := reports[len(reports)-1]; last.sample.Value != c.back {
						t.Errorf("last report is %v", last.sample)
					}
				}
				if len(dev.writeCalls()) != 1 {
					t.Errorf("written %d times", len(dev.writeCalls()))
				}
				stop()
				if want := "property=a write=w outcome=" + c.outcome.String() + " traceparent=00-1-2-01"; strings.Contains(log.String(), want) != (c.outcome != Unsent) {
					t.Errorf("logged %s, want %s", log.String(), want)
				}
			})
		})
	}
}

func TestWritesQueueSupersedeAndEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dev, out := newFake(models.Int(1), models.Int(2)), &sink{}
		ro := prop("c", models.TypeInt, time.Second)
		ro.Access = models.Read
		dev.took = 300 * time.Millisecond
		r, stop := start(t, RunnerConfig{Device: dev, Sink: out, Properties: []models.ResolvedProperty{
			prop("a", models.TypeInt, time.Second), prop("b", models.TypeInt, time.Second), ro}})
		time.Sleep(100 * time.Millisecond) // a read is under way
		ok := r.Write(Write{ID: "1", Property: 0, Value: models.Int(10)}) &&
			r.Write(Write{ID: "2", Property: 1, Value: models.Int(20)}) &&
			r.Write(Write{ID: "3", Property: 0, Value: models.Int(11)}) &&
			r.Write(Write{ID: "4", Property: 2, Value: models.Int(11)}) &&
			r.Write(Write{ID: "5", Property: 9, Value: models.Int(11)})
		if !ok {
			t.Fatal("not accepted")
		}
		time.Sleep(time.Second)
		for id, want := range map[string]Outcome{"1": Superseded, "2": Applied, "3": Applied, "4": Refused, "5": Refused} {
			if got, _ := out.result(id); got.Outcome != want {
				t.Errorf("write %s: %v (%v), want %v", id, got.Outcome, got.Err, want)
			}
		}
		if diff := cmp.Diff([][]WriteRequest{{{1, models.Int(20)}, {0, models.Int(11)}}}, dev.writeCalls(), cmp.Comparer(func(a, b models.Value) bool { return a == b })); diff != "" {
			t.Error(diff)
		}
		time.Sleep(time.Second - time.Since(dev.readCalls()[0].at)%time.Second + 100*time.Millisecond)
		many := make([]Write, MaxQueuedWrites+1)
		if r.Write(many...) {
			t.Error("more writes than fit were accepted")
		}
		r.Write(Write{ID: "6", Property: 0, Value: models.Int(1)}) // a read is under way again
		stop()
		if got, _ := out.result("6"); got.Outcome != Unsent {
			t.Errorf("a write queued at the end: %v", got.Outcome)
		}
		if r.Write(Write{ID: "7"}) {
			t.Error("accepted after Run")
		}
		if n := len(out.written); n != 6 {
			t.Errorf("told of %d writes, want 6", n)
		}
	})
}

func TestWritesToADemotedDeviceAreUnsent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dev, out := newFake(models.Int(1)), &sink{}
		dev.fail = Fail(models.ReasonNotConnected, errors.New("refused"))
		var r *Runner // set before dev.setFail, and so before the device is online
		out.onState = func(s models.DeviceState) {
			if s == models.StateOnline {
				r.Write(Write{ID: "again", Value: models.Int(7), Verify: true})
			}
		}
		r, _ = start(t, RunnerConfig{Device: dev, Sink: out, Properties: []models.ResolvedProperty{prop("a", models.TypeInt, time.Second)}})
		time.Sleep(5 * time.Second)
		r.Write(Write{ID: "w", Value: models.Int(7), Verify: true})
		synctest.Wait()
		got, _ := out.result("w")
		if got.Outcome != Unsent || FailureOf(got.Err).Reason != models.ReasonNotConnected || len(dev.writeCalls()) != 0 {
			t.Errorf("result %+v, writes %v", got, dev.writeCalls())
		}
		dev.setFail(nil)
		time.Sleep(6 * time.Second)
		if got, _ := out.result("again"); got.Outcome != Applied {
			t.Errorf("resubmitted write: %+v", got)
		}
	})
}

func TestWriteOnlyDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dev, out := newFake(), &sink{}
		p := prop("a", models.TypeInt, time.Second)
		p.Access = models.Write
		r, stop := start(t, RunnerConfig{Device: dev, Sink: out, Properties: []models.ResolvedProperty{p}})
		time.Sleep(3 * time.Second)
		r.Write(Write{ID: "w", Value: models.Int(7), Verify: true})
		time.Sleep(time.Second)
		dev.setFail(Fail(models.ReasonTimeout, errors.New("no answer")))
		r.Write(Write{ID: "x", Value: models.Int(8), Verify: true})
		time.Sleep(time.Second)
		stop()
		if got, _ := out.result("w"); got.Outcome != Applied {
			t.Errorf("result %+v", got)
		}
		if len(dev.reads) != 0 {
			t.Errorf("read %v", dev.reads)
		}
		if len(out.states) != 2 || out.states[0].state != models.StateOnline || out.states[1].state != models.StateOffline {
			t.Errorf("states %v", out.states)
		}
	})
}

// TestADeadlineOfTheDeviceIsNotTheEnd: a driver's own deadline error must not
// look like the end of Run's context.
func TestADeadlineOfTheDeviceIsNotTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dev, out := newFake(models.Int(1)), &sink{}
		dev.fail = fmt.Errorf("read: %w", context.DeadlineExceeded)
		start(t, RunnerConfig{Device: dev, Sink: out, Properties: []models.ResolvedProperty{prop("a", models.TypeInt, time.Second)}})
		time.Sleep(10 * time.Second)
		dev.setFail(nil)
		time.Sleep(10 * time.Second)
		if out.state() != models.StateOnline {
			t.Errorf("state %v", out.state())
		}
	})
}

type subscribing struct {
	*fake
	deliveries chan subscriptionStep
	subscribed int
}

type subscriptionStep struct {
	point  int
	result Result
	lost   error
}

func (s *subscribing) Subscribes(p int) bool { return p == 0 }

func (s *subscribing) Subscribe(ctx context.Context, points []Subscription, deliver func([]int, []Result)) error {
	s.subscribed++
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case d := <-s.deliveries:
			if d.lost != nil {
				return d.lost
			}
			deliver([]int{d.point}, []Result{d.result})
		}
	}
}

func TestSubscription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dev := &subscribing{fake: newFake(models.Float(9), models.Float(2)), deliveries: make(chan subscriptionStep)}
		out := &sink{}
		_, stop := start(t, RunnerConfig{Device: dev, Sink: out, Properties: []models.ResolvedProperty{
			prop("a", models.TypeFloat, time.Second), prop("b", models.TypeFloat, time.Second)}})
		time.Sleep(3500 * time.Millisecond)
		if n := len(out.reports(0)); n != 0 {
			t.Errorf("%d reports before the first delivery", n)
		}
		dev.deliveries <- subscriptionStep{point: 0, result: Result{Value: models.Float(1)}}
		time.Sleep(70 * time.Second)
		if n := len(out.reports(0)); n != 2 {
			t.Errorf("%d reports, want the value and a heartbeat", n)
		}
		refreshed := 0
		for _, b := range out.reported() {
			if slices.Contains(b.Refreshed, 0) {
				refreshed++
			}
		}
		if refreshed != 71 {
			t.Errorf("refreshed %d times in 70 s, want 71", refreshed)
		}
		for _, c := range dev.readCalls() {
			if slices.Contains(c.points, 0) {
				t.Fatal("a subscribed point was polled")
			}
		}
		dev.deliveries <- subscriptionStep{lost: Fail(models.ReasonNotConnected, errors.New("gone"))}
		time.Sleep(3 * time.Second)
		if got := out.reports(0); got[len(got)-1].sample.Reason != models.ReasonNotConnected {
			t.Errorf("after the loss: %v", got)
		}
		if out.state() != models.StateDegraded {
			t.Errorf("state %v", out.state())
		}
		dev.deliveries <- subscriptionStep{point: 0, result: Result{Value: models.Float(3)}}
		synctest.Wait()
		if got := out.reports(0); got[len(got)-1].sample.Value != models.Float(3) || out.state() != models.StateOnline || dev.subscribed != 2 {
			t.Errorf("after resubscribing: %v, %v, subscribed %d times", got, out.state(), dev.subscribed)
		}
		stop()
	})
}

func TestPlanWithoutAPlanner(t *testing.T) {
	r := NewRunner(RunnerConfig{Device: newFake(), Properties: []models.ResolvedProperty{
		prop("a", models.TypeInt, time.Second), prop("b", models.TypeInt, 5*time.Second), prop("c", models.TypeInt, time.Second)}})
	plan := r.Plan()
	if plan.RequestsPerCycle != 2 || len(plan.Groups) != 2 || plan.Groups[0].Points != 2 || plan.Groups[1].Every != models.Duration(5*time.Second) {
		t.Errorf("%+v", plan)
	}
}

func BenchmarkRunnerCycle(b *testing.B) {
	dev := &still{results: make([]Result, 100)}
	properties := make([]models.ResolvedProperty, 100)
	for i := range properties {
		dev.results[i] = Result{Value: models.Float(float64(i))}
		properties[i] = prop(fmt.Sprint("p", i), models.TypeFloat, time.Second)
		properties[i].Deadband = 0.5
		properties[i].Minimum, properties[i].Maximum = models.Float(-1000), models.Float(1000)
	}
	r := NewRunner(RunnerConfig{Device: dev, Sink: nothing{}, Properties: properties, Metrics: NewMetrics(), Protocol: "fake"})
	r.schedule.begin(time.Now(), 0)
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		r.everything = true
		r.cycle(ctx)
	}
	b.ReportMetric(float64(b.N)*100/b.Elapsed().Seconds(), "points/s")
}

type still struct{ results []Result }

func (s *still) Read(_ context.Context, points []int, out []Result) error {
	for i, p := range points {
		out[i] = s.results[p]
	}
	return nil
}
func (s *still) Write(context.Context, []WriteRequest) []error { return nil }
func (s *still) Close() error                                  { return nil }

type nothing struct{}

func (nothing) Report(Batch)                                   {}
func (nothing) Written(WriteResult)                            {}
func (nothing) State(models.DeviceState, models.Reason, error) {}

func TestASteadyCycleDoesNotAllocate(t *testing.T) {
	if got := testing.Benchmark(BenchmarkRunnerCycle).AllocsPerOp(); got > 0 {
		t.Errorf("%d allocations a cycle", got)
	}
}
