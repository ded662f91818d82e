package twins

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
	"github.com/whimbrel-edge/whimbrel/twin"
)

// shown writes a change as "device property=value …", properties in order.
func shown(ch twin.StreamChange) string {
	if ch.Deleted {
		return "-" + ch.Document.Device
	}
	out := []string{ch.Document.Device}
	for _, name := range sortedKeys(ch.Document.Properties) {
		r := ch.Document.Properties[name].Reported
		if r == nil {
			out = append(out, name)
			continue
		}
		out = append(out, fmt.Sprintf("%s=%s", name, r.Value))
	}
	return strings.Join(out, " ")
}

// receiver gathers a stream.
type receiver struct {
	mu      sync.Mutex
	changes []twin.StreamChange
	hold    chan struct{} // when set, send blocks until it is closed
	err     error         // what send returns
}

func (r *receiver) send(ch twin.StreamChange) error {
	r.mu.Lock()
	hold := r.hold
	r.mu.Unlock()
	if hold != nil {
		<-hold
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changes = append(r.changes, ch)
	return r.err
}

func (r *receiver) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, ch := range r.changes {
		out = append(out, shown(ch))
	}
	return strings.Join(out, ", ")
}

func (r *receiver) last() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changes[len(r.changes)-1].Cursor
}

// stream starts one; it ends with the test or stop.
func (h *hub) stream(o models.ListOptions, cursor string) (*receiver, func()) {
	r := &receiver{}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := h.cache.StreamTwins(ctx, o, cursor, r.send); !errors.Is(err, context.Canceled) {
			h.t.Error(err)
		}
	}()
	stop := sync.OnceFunc(func() { cancel(); <-ended })
	h.t.Cleanup(stop)
	return r, stop
}

func eventually(t testing.TB, what string, got func() string, want string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); got() != want; time.Sleep(time.Millisecond) { //sleep: polls a condition
		if time.Now().After(deadline) {
			t.Fatalf("%s: got %q, want %q", what, got(), want)
		}
	}
}

func TestStream(t *testing.T) {
	h := newHub(t)
	two := h.device("b2", "n2")
	one := h.live(float("temperature", 5, 7, h.now()))
	all, stop := h.stream(models.ListOptions{}, "")
	eventually(t, "first everything", all.text, "b1 setpoint temperature=5, b2 setpoint temperature")
	h.committed("n1", 1, 8, one, "temperature", h.good(6))
	eventually(t, "then what changes", all.text, "b1 setpoint temperature=5, b2 setpoint temperature, b1 temperature=6")
	at := all.last()
	stop()

	// While nobody looked.
	h.committed("n1", 1, 9, one, "temperature", h.good(7))
	h.committed("n1", 1, 10, one, "temperature", h.good(8))
	h.patch(`{"setpoint": 3}`, models.DesiredOptions{})
	again, _ := h.stream(models.ListOptions{}, at)
	eventually(t, "what was missed, of one twin", again.text, "b1 setpoint temperature=8")
	h.cache.NodeLive("n2", true)
	h.latest("n2", 1, two, &pb.LatestTwin{Full: true, State: "online", Seq: 1})
	eventually(t, "a node comes", func() string {
		text := again.text()
		return text[strings.LastIndex(text, ", ")+2:]
	}, "b2 setpoint temperature")

	// A cursor of another life, or none at all.
	if err := h.cache.StreamTwins(t.Context(), models.ListOptions{}, "other-3", nil); models.KindOf(err) != models.KindGone {
		t.Errorf("after a restart of the hub: %v", err)
	}
	for _, bad := range []string{"x", "1-", "-", "a-b"} {
		if err := h.cache.StreamTwins(t.Context(), models.ListOptions{}, bad, nil); models.KindOf(err) != models.KindMalformed {
			t.Errorf("cursor %q: %v", bad, err)
		}
	}
}

// TestStreamBreaksOffInTheMiddle resumes after every possible event of a round.
func TestStreamBreaksOffInTheMiddle(t *testing.T) {
	h := newHub(t)
	one := h.live()
	two, three := h.device("b2", "n1"), h.device("b3", "n1")
	all, stop := h.stream(models.ListOptions{}, "")
	eventually(t, "everything", all.text, "b1 setpoint temperature, b2 setpoint temperature, b3 setpoint temperature")
	start := all.last()
	broken := errors.New("broken")
	for n := 1; n <= 2; n++ { // the first dump, broken off
		r := &receiver{}
		err := h.cache.StreamTwins(t.Context(), models.ListOptions{}, "", func(ch twin.StreamChange) error {
			_ = r.send(ch)
			if len(r.changes) == n {
				return broken
			}
			return nil
		})
		if !errors.Is(err, broken) {
			t.Fatal(err)
		}
		rest, stop := h.stream(models.ListOptions{}, r.last())
		eventually(t, "after a dump that broke off", rest.text, "b1 setpoint temperature, b2 setpoint temperature, b3 setpoint temperature")
		stop()
	}
	stop()
	for n := 1; n <= 3; n++ { // a round of three
		h.pass(time.Second)
		var want []string
		for i, ref := range []edgelink.DeviceRef{one, two, three} {
			v := float64(10*n + i)
			h.committed("n1", 1, uint64(n), ref, "temperature", h.good(v))
			setpoint := ""
			if i == 2 && n > 1 {
				setpoint = fmt.Sprintf("=%d", n-1) // of the turn before
			}
			want = append(want, fmt.Sprintf("b%d setpoint%s temperature=%g", i+1, setpoint, v))
		}
		var got []string
		cursor := ""
		if err := h.cache.StreamTwins(t.Context(), models.ListOptions{}, start, func(ch twin.StreamChange) error {
			got, cursor = append(got, shown(ch)), ch.Cursor
			if len(got) == n {
				return broken
			}
			return nil
		}); !errors.Is(err, broken) {
			t.Fatal(err)
		}
		rest, stop := h.stream(models.ListOptions{}, cursor)
		eventually(t, "the rest of the round", rest.text, strings.Join(want[n:], ", "))
		h.pass(time.Second)
		h.committed("n1", 1, uint64(n), three, "setpoint", h.good(float64(n))) // so that something comes in any case
		eventually(t, "and what is new", func() string {
			text := rest.text()
			return text[max(strings.LastIndex(text, "b3"), 0):]
		}, fmt.Sprintf("b3 setpoint=%d%s", n, map[bool]string{true: fmt.Sprintf(" temperature=%d", 10*n+2)}[n == 3]))
		start = rest.last()
		stop()
	}
}

func TestStreamThroughASelector(t *testing.T) {
	h := newHub(t)
	sel, err := models.ParseSelector("area=a")
	if err != nil {
		t.Fatal(err)
	}
	label := func(name, area string) {
		o := h.apply(fmt.Sprintf(`{kind: Device, apiVersion: whimbrel/v1, metadata: {name: %s, labels: {area: %s}}, spec: {model: boiler, node: n1}}`, name, area))
		h.cache.DeviceChanged(o.Meta().UID)
	}
	label("b2", "a")
	one := h.live()
	r, _ := h.stream(models.ListOptions{Selector: sel, Namespace: "default"}, "")
	eventually(t, "at first", r.text, "b2 setpoint temperature")
	h.committed("n1", 1, 1, one, "temperature", h.good(1))
	label("b1", "a")
	eventually(t, "one that comes to match", r.text, "b2 setpoint temperature, b1 setpoint temperature=1")
	label("b1", "b")
	h.committed("n1", 1, 2, one, "temperature", h.good(2))
	h.committed("n1", 1, 2, h.ref("b2"), "temperature", h.good(2))
	eventually(t, "one that no longer does", r.text, "b2 setpoint temperature, b1 setpoint temperature=1, -b1, b2 temperature=2")
	other, _ := h.stream(models.ListOptions{Namespace: "elsewhere"}, "")
	h.committed("n1", 1, 3, one, "temperature", h.good(3))
	time.Sleep(2 * streamEvery) //sleep: nothing is to come, so there is nothing to wait for
	if got := other.text(); got != "" {
		t.Errorf("another namespace's: %s", got)
	}
}

// TestStreamTellsOfDeleted: who follows, and who comes back later, hears of
// devices that were deleted; and who cannot, hears that.
func TestStreamTellsOfDeleted(t *testing.T) {
	h := newHub(t)
	h.live()
	h.device("b2", "n1")
	sel, err := models.ParseSelector("area=a")
	if err != nil {
		t.Fatal(err)
	}
	r, stop := h.stream(models.ListOptions{}, "")
	none, _ := h.stream(models.ListOptions{Selector: sel}, "")
	eventually(t, "at first", r.text, "b1 setpoint temperature, b2 setpoint temperature")
	at := r.last()
	gone := func(name string) {
		o, err := h.reg.Delete(t.Context(), models.Key{Kind: "Device", Namespace: "default", Name: name}, models.WriteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		h.cache.Forget(o.(*models.Device))
	}
	gone("b2")
	eventually(t, "deleted", r.text, "b1 setpoint temperature, b2 setpoint temperature, -b2")
	stop()
	gone("b1")
	h.device("b3", "n1")
	h.cache.DeviceChanged(h.ref("b3").UID)
	again, _ := h.stream(models.ListOptions{}, at)
	eventually(t, "what was missed", again.text, "-b2, -b1, b3 setpoint temperature")
	if got := none.text(); got != "" {
		t.Errorf("through a selector: %s", got)
	}
	for range goneKept + 1 {
		h.cache.Forget(&models.Device{})
	}
	if err := h.cache.StreamTwins(t.Context(), models.ListOptions{}, at, nil); models.KindOf(err) != models.KindGone {
		t.Errorf("too far behind: %v", err)
	}
}

func TestSlowReceiverGetsTheLatest(t *testing.T) {
	h := newHub(t)
	one := h.live()
	r, _ := h.stream(models.ListOptions{}, "")
	eventually(t, "at first", r.text, "b1 setpoint temperature")
	hold := make(chan struct{})
	r.mu.Lock()
	r.hold, r.changes = hold, nil
	r.mu.Unlock()
	for i := range 1000 {
		h.committed("n1", 1, uint64(i+1), one, "temperature", h.good(float64(i)))
		if i == 500 {
			h.committed("n1", 1, uint64(i+1), one, "setpoint", h.good(5))
		}
		if i%100 == 0 {
			h.pass(time.Millisecond)
		}
	}
	close(hold)
	last := func() string {
		text := r.text()
		return text[strings.LastIndex(text, ", ")+1:]
	}
	eventually(t, "in the end", func() string { return last()[strings.LastIndex(last(), "=")+1:] }, "999")
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.changes); n > 10 {
		t.Errorf("%d changes were sent to one who did not listen", n)
	}
	seen := map[string]string{}
	version := uint64(0)
	for _, ch := range r.changes {
		for name, p := range ch.Document.Properties {
			if p.Reported != nil {
				seen[name] = p.Reported.Value.String()
			}
		}
		if ch.Document.Version < version {
			t.Errorf("version %d after %d", ch.Document.Version, version)
		}
		version = ch.Document.Version
	}
	if seen["setpoint"] != "5" || seen["temperature"] != "999" {
		t.Error(seen)
	}
}

// TestStreamsCostWhatChanges has many devices of which one is busy.
func TestStreamsCostWhatChanges(t *testing.T) {
	if testing.Short() {
		t.Skip("makes many devices")
	}
	h := newHub(t)
	one := h.live()
	var wait sync.WaitGroup
	for w := range 50 {
		wait.Go(func() {
			for i := range 60 {
				h.device(fmt.Sprintf("d%d-%d", w, i), "n1")
			}
		})
	}
	wait.Wait()
	from := func() uint64 {
		h.cache.mu.Lock()
		defer h.cache.mu.Unlock()
		return h.cache.serial
	}()
	h.committed("n1", 1, 1, one, "temperature", h.good(1))
	round, _ := h.cache.changedSince(from)
	if len(round) != 1 || round[0].uid != one.UID {
		t.Fatalf("%d devices for one change", len(round))
	}
	r, _ := h.stream(models.ListOptions{}, h.cache.cursor(from))
	eventually(t, "one change", r.text, "b1 setpoint temperature=1")
	began := time.Now()
	rounds := 0
	for i := 0; time.Since(began) < 5*streamEvery; i++ {
		h.committed("n1", 1, uint64(i+2), one, "temperature", h.good(float64(i)))
		time.Sleep(time.Millisecond) //sleep: makes one change at a time
	}
	r.mu.Lock()
	rounds = len(r.changes)
	r.mu.Unlock()
	if took := time.Since(began); rounds > int(took/streamEvery)+3 {
		t.Errorf("%d rounds in %s", rounds, took)
	}
}
