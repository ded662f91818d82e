package opcua

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"

	"github.com/whimbrel-edge/whimbrel/internal/faultproxy"
	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/simulators/opcuasim"
	"github.com/whimbrel-edge/whimbrel/simulators/signal"
)

// counting is a server whose count moves with every tick.
func counting(t *testing.T, change func(*opcuasim.Config)) *opcuasim.Server {
	t.Helper()
	cfg := opcuasim.Config{Tick: 10 * time.Millisecond, Signals: map[string]signal.Spec{"count": {Expr: "self + 1"}},
		Nodes: []opcuasim.Node{{Name: "count", Type: "UInt32"}, {Name: "still", Type: "Int32", Writable: true, Value: 7}}}
	if change != nil {
		change(&cfg)
	}
	return opcuasim.Start(t, cfg)
}

func open(t *testing.T, d *Driver, connection string, points ...mappers.Point) *device {
	t.Helper()
	dev, err := d.Open(mappers.DeviceConfig{Name: "test", Connection: json.RawMessage(connection), Points: points})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	return dev.(*device)
}

func countingPoints() []mappers.Point {
	return []mappers.Point{
		pt("count", models.TypeInt, models.Read, `{"node": "ns=2;s=count"}`),
		pt("still", models.TypeInt, models.ReadWrite, `{"node": "ns=2;s=still"}`),
		pt("missing", models.TypeInt, models.Read, `{"node": "ns=2;s=missing"}`),
	}
}

// following subscribes again and again, as the Runner does but without its
// pauses, and counts what comes.
type following struct {
	counts  atomic.Int64 // good values of count
	losses  atomic.Int64
	mu      sync.Mutex
	last    map[int]mappers.Result
	errs    []string
	present map[int]bool // points delivered since the last loss
}

func follow(t *testing.T, dev *device) *following {
	t.Helper()
	f := &following{last: map[int]mappers.Result{}, present: map[int]bool{}}
	var subs []mappers.Subscription
	for p := range dev.points {
		subs = append(subs, mappers.Subscription{Point: p, Every: 20 * time.Millisecond})
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			err := dev.Subscribe(ctx, subs, func(points []int, results []mappers.Result) {
				f.mu.Lock()
				defer f.mu.Unlock()
				for i, p := range points {
					f.last[p], f.present[p] = results[i], true
					if p == 0 && results[i].Quality == models.Good {
						f.counts.Add(1)
					}
				}
			})
			f.mu.Lock()
			f.errs = append(f.errs, fmt.Sprint(err))
			clear(f.present)
			f.mu.Unlock()
			f.losses.Add(1)
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Millisecond):
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return f
}

// await polls a condition.
func await(t *testing.T, what string, within time.Duration, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(within); !f(); time.Sleep(2 * time.Millisecond) { //sleep: between looks at a condition, with a deadline
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", within, what)
		}
	}
}

// flowing waits until all points have been delivered anew, and count moves.
func (f *following) flowing(t *testing.T, what string) {
	t.Helper()
	from := f.counts.Load()
	await(t, what+": notifications", 30*time.Second, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.counts.Load() >= from+3 && len(f.present) == 3
	})
}

// patient is for what has no fault that only a timeout ends.
const patient = `{"url": "opc.tcp://%s", "timeout": "30s", "publishingInterval": "20ms"}`

const quick = `{"url": "opc.tcp://%s", "timeout": "120ms", "publishingInterval": "20ms"}`

// TestNotificationsComeBackAfterEveryFault is the campaign: after each of 40
// faults in a row the notifications flow again.
func TestNotificationsComeBackAfterEveryFault(t *testing.T) {
	t.Parallel()
	sim := counting(t, nil)
	proxy := faultproxy.New(t, sim.Addr())
	dev := open(t, New(), fmt.Sprintf(quick, proxy.Addr()), countingPoints()...)
	f := follow(t, dev)
	f.flowing(t, "before any fault")
	faults := []struct {
		name string
		do   func(lost func())
	}{
		{"reset", func(func()) { proxy.Set(faultproxy.Cut) }},
		{"hung up by the server", func(func()) { sim.HangUp() }},
		{"half-open", func(lost func()) { proxy.Set(faultproxy.Blackhole); lost() }},
		{"refused for a while", func(lost func()) { proxy.Set(faultproxy.Refuse); lost(); lost() }},
		{"restart", func(lost func()) {
			sim.Unplug()
			lost()
			if err := sim.Plug(); err != nil {
				t.Fatal(err)
			}
		}},
		{"answers lost", func(lost func()) { proxy.Set(faultproxy.DropDown); lost() }},
		{"requests lost", func(lost func()) { proxy.Set(faultproxy.DropUp); lost() }},
		{"sessions closed, channels kept", func(func()) { sim.CloseSessions() }},
		{"silent server", func(lost func()) { sim.Silence(); lost(); sim.Speak() }},
	}
	for i := range 40 {
		fault := faults[i%len(faults)]
		losses := f.losses.Load()
		lost := func() {
			n := f.losses.Load()
			await(t, fmt.Sprintf("fault %d (%s) is noticed", i, fault.name), 30*time.Second, func() bool { return f.losses.Load() > n })
		}
		fault.do(lost)
		await(t, fmt.Sprintf("fault %d (%s) is noticed", i, fault.name), 30*time.Second, func() bool { return f.losses.Load() > losses })
		proxy.Set(faultproxy.Pass)
		f.flowing(t, fmt.Sprintf("after fault %d (%s)", i, fault.name))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if got := f.last[1]; got.Value != models.Int(7) {
		t.Errorf("still is %v", got)
	}
	if got := f.last[2]; got.Quality != models.Bad || got.Reason != "node-id-unknown" {
		t.Errorf("missing is %v", got)
	}
	for _, e := range f.errs {
		if strings.HasPrefix(e, string(models.ReasonProtocolError)) {
			t.Errorf("a loss counts as %s", e)
		}
	}
}

// TestASessionThatTheServerClosed: who polls is told so once, as a connection that
// is lost, and has a new one with the next read.
func TestASessionThatTheServerClosed(t *testing.T) {
	t.Parallel()
	sim := counting(t, nil)
	dev := open(t, New(), fmt.Sprintf(quick, sim.Addr()), countingPoints()...)
	read := func() error { return dev.Read(t.Context(), []int{0, 1, 2}, make([]mappers.Result, 3)) }
	for range 3 {
		await(t, "an answer", 5*time.Second, func() bool { return read() == nil })
		sim.CloseSessions()
		if f := mappers.FailureOf(read()); f.Reason != models.ReasonNotConnected || !strings.Contains(f.Error(), "session") {
			t.Errorf("a closed session: %v", f)
		}
	}
}

// TestReadsComeBackAfterEveryFault is the same for polling.
func TestReadsComeBackAfterEveryFault(t *testing.T) {
	t.Parallel()
	sim := counting(t, nil)
	proxy := faultproxy.New(t, sim.Addr())
	dev := open(t, New(), fmt.Sprintf(quick, proxy.Addr()), countingPoints()...)
	read := func() error { return dev.Read(t.Context(), []int{0, 1, 2}, make([]mappers.Result, 3)) }
	for i := range 20 {
		mode := []faultproxy.Mode{faultproxy.Cut, faultproxy.Blackhole, faultproxy.Refuse, faultproxy.DropDown}[i%4]
		proxy.Set(mode)
		if err := read(); err == nil {
			t.Fatalf("%d: reading over a line that is %v succeeds", i, mode)
		} else if r := mappers.FailureOf(err).Reason; r != models.ReasonTimeout && r != models.ReasonNotConnected {
			t.Errorf("%d: %v gives %v", i, mode, err)
		}
		proxy.Set(faultproxy.Pass)
		await(t, fmt.Sprintf("%d: after %v", i, mode), 30*time.Second, func() bool { return read() == nil })
	}
}

// TestLostSubscriptionIsReplaced takes the subscription from a client that
// still is answered.
func TestLostSubscriptionIsReplaced(t *testing.T) {
	t.Parallel()
	sim := counting(t, nil)
	dev := open(t, New(), fmt.Sprintf(quick, sim.Addr()), countingPoints()...)
	f := follow(t, dev)
	for range 3 {
		f.flowing(t, "with a subscription")
		losses := f.losses.Load()
		sim.DropSubscriptions()
		await(t, "the loss is noticed", 30*time.Second, func() bool { return f.losses.Load() > losses })
	}
	f.flowing(t, "with another subscription")
}

func TestStatusAndTimeAreCarried(t *testing.T) {
	t.Parallel()
	sim := counting(t, nil)
	dev := open(t, New(), fmt.Sprintf(patient, sim.Addr()), countingPoints()...)
	f := follow(t, dev)
	last := func(p int) mappers.Result {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.last[p]
	}
	f.flowing(t, "at first")
	first := last(1)
	for _, tc := range []struct {
		status  ua.StatusCode
		quality models.Quality
		reason  models.Reason
	}{
		{ua.StatusBadSensorFailure, models.Bad, "sensor-failure"},
		{ua.StatusUncertainSensorNotAccurate, models.Uncertain, "sensor-not-accurate"},
		{ua.StatusBadNoCommunication, models.Bad, models.ReasonNotConnected},
		{ua.StatusUncertainLastUsableValue, models.Uncertain, models.ReasonStale},
		{ua.StatusGood, models.Good, models.ReasonNone},
	} {
		if err := sim.SetStatus("still", tc.status); err != nil {
			t.Fatal(err)
		}
		want := mappers.Result{Quality: tc.quality, Reason: tc.reason}
		if tc.quality != models.Bad {
			want.Value = models.Int(7)
		}
		await(t, fmt.Sprint(tc.status), 30*time.Second, func() bool {
			got := last(1)
			return got.Quality == want.Quality && got.Reason == want.Reason && got.Value == want.Value && got.Time.After(first.Time)
		})
	}
	results := make([]mappers.Result, 1)
	if err := dev.Read(t.Context(), []int{1}, results); err != nil || !results[0].Time.Equal(last(1).Time) {
		t.Errorf("read gives %v, %v; the subscription gave %v", results[0], err, last(1))
	}
}

func TestWhatIsNotMonitoredIsPolled(t *testing.T) {
	t.Parallel()
	sim := counting(t, func(c *opcuasim.Config) { c.MaxMonitoredItems = 1 })
	dev := open(t, New(), fmt.Sprintf(patient, sim.Addr()), countingPoints()...)
	f := follow(t, dev)
	f.flowing(t, "with one item monitored")
	if err := sim.Set("still", 8); err != nil {
		t.Fatal(err)
	}
	await(t, "a polled value follows", 30*time.Second, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.last[1].Value == models.Int(8)
	})
	if f.losses.Load() != 0 {
		t.Errorf("%d losses: %v", f.losses.Load(), f.errs)
	}
}
