package e2e

import (
	"encoding/json"
	"fmt"
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
	mu   sync.Mutex
	seen map[series]map[int64]bool
	live bool // retained messages do not count
}

// watch makes a witness of what an edge announces.
func (e *edge) watch(t testing.TB) *witness {
	t.Helper()
	w := &witness{seen: map[series]map[int64]bool{}}
	subscribeWith(t, e.mqtt, func(m message) { w.note(t, m) }, "devices/+/properties/+")
	return w
}

// note takes a message over.
func (w *witness) note(t testing.TB, m message) {
	parts := strings.Split(m.topic, "/")
	if len(parts) != 4 || parts[2] != "properties" || parts[3][0] != 'c' || m.payload == "" {
		return
	}
	var body struct {
		Value   *int64
		Quality string
	}
	if err := json.Unmarshal([]byte(m.payload), &body); err != nil {
		t.Errorf("%s: %s: %v", m.topic, m.payload, err)
		return
	}
	if body.Quality != "good" || body.Value == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if m.retained && w.live {
		return
	}
	s := series{parts[1], parts[3]}
	if w.seen[s] == nil {
		w.seen[s] = map[int64]bool{}
	}
	w.seen[s][*body.Value] = true
}

// forget begins anew. What is retained from before does not count.
func (w *witness) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen, w.live = map[series]map[int64]bool{}, true
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
type checked struct{ samples, good, backfilled, announced int }

// check reads the history of every counter: within its range, growing, each
// value once, and all that was announced among it. count is where the frozen
// counters ended, which the history ends with, too.
func (c *counters) check(t testing.TB, h *hub, db store.Store, w *witness, count int) (sum checked) {
	t.Helper()
	until := time.Now().Add(24 * time.Hour).UnixMicro()
	complaints := 0
	complain := func(format string, args ...any) {
		if complaints++; complaints <= 20 {
			t.Errorf(format, args...)
		}
	}
	for i, name := range c.names {
		o, err := h.object(hubAPI + "/devices/" + name)
		if err != nil {
			t.Fatal(err)
		}
		for k := range c.props {
			s := series{name, counter(k)}
			base := int64(c.base(i, k))
			last := base - 1
			stored := map[int64]bool{}
			err := db.Samples(t.Context(), o.Metadata.UID, s.prop, 0, until, func(x store.Sample) error {
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
				case stored[v]:
					complain("%v holds %d (base+%d) twice", s, v, v-base)
				case v < last:
					complain("%v holds base+%d after base+%d", s, v-base, last-base)
				}
				stored[v], last = true, max(last, v)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if last != base+int64(count) {
				complain("%v ends with base+%d, want base+%d", s, last-base, count)
			}
			w.mu.Lock()
			for v := range w.seen[s] {
				sum.announced++
				if !stored[v] {
					complain("%v was announced as base+%d, which is not in the history", s, v-base)
				}
			}
			w.mu.Unlock()
		}
	}
	if complaints > 20 {
		t.Errorf("and %d more like these", complaints-20)
	}
	return sum
}
