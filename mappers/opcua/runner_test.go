package opcua

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/simulators/opcuasim"
)

// sink keeps the last of everything that a Runner tells.
type sink struct {
	mu      sync.Mutex
	last    map[int]models.Sample
	state   models.DeviceState
	reason  models.Reason
	why     string
	results map[string]mappers.WriteResult
}

func (s *sink) Report(b mappers.Batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range b.Changed {
		s.last[o.Property] = o.Sample
	}
}

func (s *sink) Written(r mappers.WriteResult) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.results[r.ID] = r
}

func (s *sink) State(state models.DeviceState, reason models.Reason, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state, s.reason, s.why = state, reason, fmt.Sprint(err)
}

func (s *sink) is(f func() bool) func() bool {
	return func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return f()
	}
}

// TestUnderARunner has a Runner serve a device as an edge does, subscribed and
// polled.
func TestUnderARunner(t *testing.T) {
	t.Parallel()
	for _, subscribe := range []bool{true, false} {
		t.Run(fmt.Sprintf("subscribe %v", subscribe), func(t *testing.T) {
			t.Parallel()
			underARunner(t, counting(t, func(c *opcuasim.Config) { c.Nodes = append(c.Nodes, nodes()...) }), subscribe)
		})
	}
}

func underARunner(t *testing.T, sim *opcuasim.Server, subscribe bool) {
	all := append(countingPoints(), pt("setpoint", models.TypeFloat, models.ReadWrite, `{"node": "ns=2;s=setpoint"}`),
		pt("second", models.TypeInt, models.ReadWrite, `{"node": "ns=2;s=profile", "index": 1}`))
	dev := open(t, New(), fmt.Sprintf(`{"url": %q, "timeout": "10s", "publishingInterval": "50ms", "subscribe": %v}`, sim.URL(), subscribe), all...)
	var properties []models.ResolvedProperty
	for _, p := range all {
		properties = append(properties, models.ResolvedProperty{Name: p.Property, Type: p.Type, Access: p.Access, Address: p.Address,
			Every: 100 * time.Millisecond, Heartbeat: time.Minute})
	}
	out := &sink{last: map[int]models.Sample{}, results: map[string]mappers.WriteResult{}}
	r := mappers.NewRunner(mappers.RunnerConfig{Name: "press", Protocol: Name, Device: dev, Properties: properties, Sink: out})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	defer func() { <-done }()
	defer cancel()

	good := func(p int) bool { return out.last[p].Quality == models.Good && !out.last[p].Value.IsNull() }
	healthy := out.is(func() bool {
		return out.state == models.StateDegraded && out.reason == "node-id-unknown" && good(0) && good(1) && good(3) && good(4) &&
			out.last[2].Quality == models.Bad
	})
	await(t, "all but the missing node is good", 30*time.Second, healthy)
	out.mu.Lock()
	why := out.why
	out.mu.Unlock()
	if want := "node-id-unknown: of 5 properties fail [missing]; missing: node ns=2;s=missing: BadNodeIdUnknown: " +
		"the node id refers to a node that does not exist in the server address space; correct the property's address; the server's nodes: whimbrel browse test"; why != want {
		t.Errorf("it is degraded because of %s", why)
	}

	write := func(id string, p int, v models.Value) mappers.WriteResult {
		t.Helper()
		if !r.Write(mappers.Write{ID: id, Property: p, Value: v, Verify: true}) {
			t.Fatal("the write was not taken")
		}
		await(t, "write "+id, 30*time.Second, out.is(func() bool { _, ok := out.results[id]; return ok }))
		out.mu.Lock()
		defer out.mu.Unlock()
		return out.results[id]
	}
	// 0.1 has no exact Float: it must not look like another value.
	if got := write("a", 3, models.Float(0.1)); got.Outcome != mappers.Applied || got.ReadBack == nil || got.ReadBack.Value != models.Float(0.1) {
		t.Errorf("0.1: %+v", got)
	}
	if got := write("b", 4, models.Int(11)); got.Outcome != mappers.Applied {
		t.Errorf("an element: %+v", got)
	}
	if v, _ := sim.Get("profile"); fmt.Sprint(v) != "[1 11 3]" {
		t.Errorf("profile is %v", v)
	}
	if got := write("c", 4, models.Int(40000)); got.Outcome != mappers.Refused {
		t.Errorf("out of range: %+v", got)
	}
	await(t, "the written value is reported", 30*time.Second, out.is(func() bool { return out.last[3].Value == models.Float(0.1) }))

	// What the server changes in the array shows; an element that it no longer has is bad.
	element := func(what string, array []int16, ok func(models.Sample) bool) {
		t.Helper()
		if err := sim.Set("profile", array); err != nil {
			t.Fatal(err)
		}
		await(t, what, 30*time.Second, out.is(func() bool { return ok(out.last[4]) }))
	}
	element("another element", []int16{1, 12, 3}, func(s models.Sample) bool { return s.Quality == models.Good && s.Value == models.Int(12) })
	element("no such element", []int16{1}, func(s models.Sample) bool { return s.Quality == models.Bad })
	element("an element again", []int16{1, 13}, func(s models.Sample) bool { return s.Quality == models.Good && s.Value == models.Int(13) })

	sim.Unplug()
	await(t, "the device is offline and its values are bad", 30*time.Second, out.is(func() bool {
		return out.state == models.StateOffline && out.last[0].Quality == models.Bad && out.last[3].Quality == models.Bad &&
			(out.last[3].Reason == models.ReasonNotConnected || out.last[3].Reason == models.ReasonTimeout)
	}))
	if got := write("d", 3, models.Float(2)); got.Outcome != mappers.Unsent && got.Outcome != mappers.Unconfirmed {
		t.Errorf("without a server: %+v", got)
	}
	if err := sim.Plug(); err != nil {
		t.Fatal(err)
	}
	await(t, "the device is back", 60*time.Second, healthy)
}
