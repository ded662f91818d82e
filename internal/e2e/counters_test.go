package e2e

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/simulators/modbussim"
	"github.com/whimbrel-edge/whimbrel/simulators/signal"
)

// A counter property only grows, and every property of every device counts in a
// range of its own. So whatever arrives anywhere tells by itself whether it is
// of the right series, in order, and there for the first time.
const counterRange = 4_000_000

// counters is a fleet of simulated devices full of counters, on one node.
type counters struct {
	sim   *modbussim.Server
	node  string
	names []string
	props int
	first int // of the ranges
}

// newCounters starts n devices, NODE-d1, NODE-d2…, with props counters each,
// that move every 100 ms. first is how many ranges other fleets have taken.
func newCounters(t testing.TB, node string, n, props, first int) *counters {
	t.Helper()
	c := &counters{node: node, props: props, first: first}
	// All count together, until go is taken away.
	cfg := modbussim.Config{Signals: map[string]signal.Spec{"count": {Expr: "self + (go ? 1 : 0)"}}}
	cfg.Units = append(cfg.Units, modbussim.Unit{Unit: 1, Name: "control", Listen: "127.0.0.1:0",
		Points: []modbussim.Point{{Name: "go", Table: "coil", Register: new(uint16(0)), Writable: true, Value: true}}})
	for i := range n {
		u := modbussim.Unit{Unit: 1, Name: fmt.Sprintf("%s-d%d", node, i+1), Listen: "127.0.0.1:0"}
		c.names = append(c.names, u.Name)
		for k := range props {
			u.Points = append(u.Points, modbussim.Point{Name: counter(k), Table: "input", Register: new(uint16(2 * k)), Encoding: "uint32",
				Signal: "count", Offset: -float64(c.base(i, k))})
		}
		for k, name := range []string{"setpoint", "pulse"} {
			u.Points = append(u.Points, modbussim.Point{Name: name, Table: "holding", Register: new(uint16(2 * k)), Encoding: "uint32",
				Signal: fmt.Sprintf("%s_%d", name, i), Writable: true})
		}
		cfg.Units = append(cfg.Units, u)
	}
	c.sim = modbussim.Start(t, cfg)
	return c
}

func counter(k int) string { return fmt.Sprintf("c%02d", k) }

// base is where counter k of device i begins.
func (c *counters) base(i, k int) int { return (c.first + i*c.props + k) * counterRange }

// freeze makes all counters stay where they are.
func (c *counters) freeze(t testing.TB) {
	t.Helper()
	if err := c.sim.Set("control", "go", false); err != nil {
		t.Fatal(err)
	}
}

// now is where all counters are, from their bases.
func (c *counters) now(t testing.TB) int {
	t.Helper()
	v, err := c.sim.Get(c.names[0], counter(0))
	if err != nil {
		t.Fatal(err)
	}
	// The point shows base+count as a raw number; Get takes the base off again.
	n, err := strconv.ParseFloat(fmt.Sprint(v), 64)
	if err != nil {
		t.Fatal(err)
	}
	return int(n)
}

// manifests are the model and the devices.
func (c *counters) manifests(every time.Duration) string {
	var b strings.Builder
	fmt.Fprintf(&b, `
apiVersion: whimbrel/v1
kind: DeviceModel
metadata: {name: counters-%d}
spec:
  protocol: modbus
  defaults: {every: %v}
  properties:
  - {name: setpoint, type: int, access: ReadWrite, write: hold, every: 1s, address: {table: holding, register: 0, encoding: uint32}}
  - {name: pulse, type: int, access: ReadWrite, write: once, every: 1s, address: {table: holding, register: 2, encoding: uint32}}
`, c.props, every)
	for k := range c.props {
		// A heartbeat would repeat a value.
		fmt.Fprintf(&b, "  - {name: %s, type: int, access: Read, heartbeat: 1h, address: {table: input, register: %d, encoding: uint32}}\n", counter(k), 2*k)
	}
	for _, name := range c.names {
		fmt.Fprintf(&b, "---\napiVersion: whimbrel/v1\nkind: Device\nmetadata: {name: %s}\nspec: {model: counters-%d, node: %s, connection: {url: \"tcp://%s\"}}\n",
			name, c.props, c.node, c.sim.UnitAddr(name))
	}
	return b.String()
}

// converged is nil when the hub shows every counter good and where the frozen
// device has it.
func (c *counters) converged(h *hub, count int) error {
	got, err := h.do("GET", hubAPI+"/twins", "")
	if err != nil {
		return err
	}
	var list struct{ Items []twinDoc }
	if err := json.Unmarshal(got.body, &list); err != nil {
		return fmt.Errorf("%v: %w", got, err)
	}
	twins := map[string]twinDoc{}
	for _, d := range list.Items {
		twins[d.Device] = d
	}
	wrong, example := 0, ""
	for i, name := range c.names {
		for k := range c.props {
			d := twins[name]
			if want := strconv.Itoa(c.base(i, k) + count); d.value(counter(k)) != want || d.quality(counter(k)) != "good" {
				wrong++
				example = fmt.Sprintf("%s of %s is %s %s, want %s", counter(k), name, d.value(counter(k)), d.quality(counter(k)), want)
			}
		}
	}
	if wrong > 0 {
		return fmt.Errorf("%d of %d differ: %s", wrong, len(c.names)*c.props, example)
	}
	return nil
}

// series is a counter of a device.
type series struct{ device, prop string }

// witness remembers what an edge has announced over MQTT. It announces only what
// its outbox holds, so all of it has to reach the hub's history.
type witness struct {
	mu     sync.Mutex
	seen   map[series]map[int64]bool
	others map[series]map[int64]bool // good values of what is no counter, by their time in microseconds
	bad    int                       // what was announced and is not good
	live   bool                      // retained messages do not count
}

// watch makes a witness of what an edge announces.
func (e *edge) watch(t testing.TB) *witness {
	t.Helper()
	w := &witness{seen: map[series]map[int64]bool{}, others: map[series]map[int64]bool{}}
	subscribeWith(t, e.mqtt, func(m message) { w.note(t, m) }, "devices/+/properties/+")
	return w
}

// note takes a message over.
func (w *witness) note(t testing.TB, m message) {
	parts := strings.Split(m.topic, "/")
	if len(parts) != 4 || parts[2] != "properties" || m.payload == "" {
		return
	}
	var body struct {
		Value   *int64
		Quality string
		Time    time.Time
	}
	if err := json.Unmarshal([]byte(m.payload), &body); err != nil {
		t.Errorf("%s: %s: %v", m.topic, m.payload, err)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if m.retained && w.live {
		return
	}
	if body.Quality != "good" || body.Value == nil {
		w.bad++
		return
	}
	// Any other value than a counter's comes again and again. Its time tells it.
	s, in, id := series{parts[1], parts[3]}, w.seen, *body.Value
	if s.prop[0] != 'c' {
		in, id = w.others, body.Time.UnixMicro()
	}
	if in[s] == nil {
		in[s] = map[int64]bool{}
	}
	in[s][id] = true
}

// forget begins anew. What is retained from before does not count.
func (w *witness) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen, w.others, w.live = map[series]map[int64]bool{}, map[series]map[int64]bool{}, true
}

// lost counts what was announced and is not in the history.
func (c *counters) lost(t testing.TB, h *hub, db store.Store, w *witness) (n int) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for s, values := range w.seen {
		o, err := h.object(hubAPI + "/devices/" + s.device)
		if err != nil {
			t.Fatal(err)
		}
		stored := map[int64]bool{}
		err = db.Samples(t.Context(), o.Metadata.UID, s.prop, 0, time.Now().Add(time.Hour).UnixMicro(), func(x store.Sample) error {
			stored[x.Int] = true
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for v := range values {
			if !stored[v] {
				n++
			}
		}
	}
	return n
}

// stored is nil when the history of every counter ends where the frozen device
// is.
func (c *counters) stored(t testing.TB, h *hub, db store.Store, since time.Time, count int) error {
	t.Helper()
	for i, name := range c.names {
		o, err := h.object(hubAPI + "/devices/" + name)
		if err != nil {
			return err
		}
		for k := range c.props {
			last := int64(-1)
			err := db.Samples(t.Context(), o.Metadata.UID, counter(k), since.UnixMicro(), since.Add(time.Hour).UnixMicro(), func(x store.Sample) error {
				last = max(last, x.Int)
				return nil
			})
			if want := int64(c.base(i, k) + count); err == nil && last < want {
				err = fmt.Errorf("the history of %s of %s ends with %d, want %d", counter(k), name, last, want)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// checked is what check found.
type checked struct {
	samples, good, backfilled int
	announced                 int // of the counters
	missing                   int // announced, good, and not in the history
	again                     int // values that were read twice
	twice, disordered         int // samples; both are faults
}

// forever is a range of times that has all of them, also those of clocks that
// are wrong.
const forever = int64(1) << 62

// check reads the history of every counter: within its range, each sample once, in
// the order in which the device counted, and ending with where the frozen
// counters ended. What was announced is among it, but for what the result says is
// missing. A value comes with two times where an edge began a new life, or met the
// device again, before the counter, which stands still while the machine is busy, had
// moved; with one time it would be one sample, stored twice. jumps are what the edge's clock showed beside the time of day, at
// least a day apart.
func (c *counters) check(t testing.TB, h *hub, db store.Store, w *witness, count int, jumps ...time.Duration) (sum checked) {
	t.Helper()
	complaints := 0
	complain := func(format string, args ...any) {
		if complaints++; complaints <= 20 {
			t.Errorf(format, args...)
		}
	}
	type at struct{ us, value int64 }
	for i, name := range c.names {
		o, err := h.object(hubAPI + "/devices/" + name)
		if err != nil {
			t.Fatal(err)
		}
		for k := range c.props {
			s := series{name, counter(k)}
			base := int64(c.base(i, k))
			stored := map[int64]bool{}
			samples := map[at]bool{}
			var order []at
			err := db.Samples(t.Context(), o.Metadata.UID, s.prop, -forever, forever, func(x store.Sample) error {
				sum.samples++
				if models.Quality(x.Quality) != models.Good {
					return nil
				}
				sum.good++
				if x.Backfill {
					sum.backfilled++
				}
				v := x.Int
				switch {
				case v < base || v >= base+counterRange:
					complain("%v holds %d, which is not within its range from %d", s, v, base)
				case samples[at{x.TimeUS, v}]:
					sum.twice++
					complain("%v holds %d (base+%d) of %v twice", s, v, v-base, time.UnixMicro(x.TimeUS).UTC())
				case stored[v]:
					sum.again++
				}
				stored[v], samples[at{x.TimeUS, v}] = true, true
				real, ok := unjumped(x.TimeUS, jumps)
				if !ok {
					complain("%v has base+%d at %v, which no clock ever showed", s, v-base, time.UnixMicro(x.TimeUS).UTC())
				}
				order = append(order, at{real, v})
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			slices.SortStableFunc(order, func(a, b at) int { return cmp.Compare(a.us, b.us) })
			last := base - 1
			for _, x := range order {
				if x.value < last {
					sum.disordered++
					complain("%v holds base+%d after base+%d", s, x.value-base, last-base)
				}
				last = max(last, x.value)
			}
			if last != base+int64(count) {
				complain("%v ends with base+%d, want base+%d", s, last-base, count)
			}
			w.mu.Lock()
			for v := range w.seen[s] {
				sum.announced++
				if !stored[v] {
					sum.missing++
				}
			}
			w.mu.Unlock()
		}
		w.mu.Lock()
		for s, times := range w.others {
			if s.device != name {
				continue
			}
			stored := map[int64]bool{}
			err := db.Samples(t.Context(), o.Metadata.UID, s.prop, -forever, forever, func(x store.Sample) error {
				sum.samples++
				stored[x.TimeUS] = true
				return nil
			})
			if err != nil {
				t.Error(err)
			}
			for us := range times {
				if !stored[us] {
					sum.missing++
				}
			}
		}
		w.mu.Unlock()
	}
	if complaints > 20 {
		t.Errorf("and %d more like these", complaints-20)
	}
	return sum
}

// unjumped is a time by the clock that never jumped.
func unjumped(us int64, jumps []time.Duration) (int64, bool) {
	for _, jump := range append([]time.Duration{0}, jumps...) {
		real := us - jump.Microseconds()
		if time.Since(time.UnixMicro(real)).Abs() < 12*time.Hour {
			return real, true
		}
	}
	return us, false
}
