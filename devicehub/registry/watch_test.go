package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store/storetest"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/twin"
)

// collect watches in the background and gathers what comes as "TYPE name".
func collect(t *testing.T, r *Registry, o models.ListOptions, from string) (got func() string, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var mu sync.Mutex
	var lines []string
	ended := make(chan error, 1)
	go func() {
		ended <- r.Watch(ctx, o, from, func(ev models.Event) error {
			mu.Lock()
			defer mu.Unlock()
			lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s %s", ev.Type, ev.Object.Meta().Name)))
			return nil
		})
	}()
	stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() { _ = stop() })
	return func() string {
		mu.Lock()
		defer mu.Unlock()
		return strings.Join(lines, ", ")
	}, stop
}

func relabel(t *testing.T, r *Registry, name, area string) {
	t.Helper()
	apply(t, r, strings.Replace(deviceText(name, "n1"), "area: a", "area: "+area, 1))
}

func TestWatchThroughASelector(t *testing.T) {
	r := plant(t, storetest.NewMemory(), "b1", "b2")
	sel, err := models.ParseSelector("area=a")
	if err != nil {
		t.Fatal(err)
	}
	o := models.ListOptions{Kind: "Device", Namespace: "default", Selector: sel}
	got, _ := collect(t, r, o, "")
	waitUntil(t, func() bool { return got() == "ADDED b1, ADDED b2, BOOKMARK" })
	list, err := r.List(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	relabel(t, r, "b1", "b") // leaves
	relabel(t, r, "b1", "c") // is not there
	relabel(t, r, "b1", "a") // comes back
	apply(t, r, strings.Replace(deviceText("b2", "n1"), "spec: {", "spec: {description: x, ", 1))
	if _, err := r.Delete(t.Context(), deviceKey("b2"), models.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	want := "DELETED b1, ADDED b1, MODIFIED b2, DELETED b2"
	waitUntil(t, func() bool { return strings.HasSuffix(got(), want) })

	// One who resumes from the list learns the same, of objects that left too.
	again, _ := collect(t, r, o, list.ResourceVersion)
	waitUntil(t, func() bool { return again() == want })
}

func TestWatchTooOld(t *testing.T) {
	s := storetest.NewMemory()
	r := plant(t, s, "b1")
	list, _ := r.List(t.Context(), models.ListOptions{Kind: "Device"})
	// As after eventsKept changes.
	r.mu.Lock()
	r.floor = r.revision
	r.events = nil
	r.mu.Unlock()
	apply(t, r, deviceText("b2", "n1"))
	watch := func(r *Registry, from string) error {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		return r.Watch(ctx, models.ListOptions{Kind: "Device"}, from, func(models.Event) error { return nil })
	}
	if err := watch(r, list.ResourceVersion); !errors.Is(err, context.DeadlineExceeded) { // the floor itself is not too old
		t.Fatal(err)
	}
	n, _ := strconv.Atoi(list.ResourceVersion)
	refused(t, watch(r, strconv.Itoa(n-1)), models.KindGone)
	refused(t, watch(r, "99999"), models.KindGone)
	refused(t, watch(r, "x"), models.KindMalformed)
	refused(t, watch(r, "-1"), models.KindMalformed)
	// After a restart a watch goes on from the last revision, and no other.
	again := running(t, s)
	refused(t, watch(again, list.ResourceVersion), models.KindGone)
	if err := watch(again, strconv.Itoa(n+1)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
}

func TestEventsAreBounded(t *testing.T) {
	r, err := Open(t.Context(), Config{Store: storetest.NewMemory(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	large := &entry{object: object(t, mapperText), json: make([]byte, models.MaxDocumentBytes)}
	small := &entry{object: object(t, mapperText)}
	show := func(e *entry) {
		r.show(&stage{r: r, revision: r.revision + 1, changes: []change{{revision: r.revision + 1, typ: models.Modified, entry: e, before: e}}})
	}
	for range 200 {
		show(large)
	}
	if r.size > eventBytes || len(r.events) == 0 || r.events[0].revision != r.floor+1 {
		t.Fatalf("%d events of %d bytes after %d", len(r.events), r.size, r.floor)
	}
	for range 2 * eventsKept {
		show(small)
	}
	if len(r.events) > eventsKept*5/4 || len(r.events) < eventsKept || r.events[0].revision != r.floor+1 {
		t.Fatalf("%d events after %d, the first %d", len(r.events), r.floor, r.events[0].revision)
	}
	size := 0
	for i := range r.events {
		size += r.events[i].bytes()
	}
	if size != r.size {
		t.Fatalf("%d bytes are counted, there are %d", r.size, size)
	}
}

// fakeStatuses is what other parts of a hub would know.
type fakeStatuses struct {
	mu     sync.Mutex
	states map[string]models.DeviceState // by name
	writes map[string]twin.WriteState    // by id
}

func (f *fakeStatuses) set(name string, s models.DeviceState) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.states[name] = s
}

func (f *fakeStatuses) DeviceStatus(d *models.Device, _ uint64) *models.DeviceStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &models.DeviceStatus{State: f.states[d.Metadata.Name]}
}
func (f *fakeStatuses) MapperStatus(*models.Mapper) *models.MapperStatus {
	return &models.MapperStatus{}
}
func (f *fakeStatuses) WorkloadStatus(o models.Object) models.Object { return o }

func (f *fakeStatuses) NodeStatus(*models.Node) *models.NodeStatus    { return &models.NodeStatus{} }
func (f *fakeStatuses) RouteStatus(*models.Route) *models.RouteStatus { return &models.RouteStatus{} }
func (f *fakeStatuses) Reported(_, _ string) twin.Reported            { return twin.Reported{} }
func (f *fakeStatuses) WriteState(_, _, id string) twin.WriteState {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.writes[id]
}

func TestWatchTellsOfStatuses(t *testing.T) {
	s := storetest.NewMemory()
	r := plant(t, s, "b1", "b2")
	statuses := &fakeStatuses{states: map[string]models.DeviceState{}}
	r.SetStatuses(statuses)
	o := models.ListOptions{Kind: "Device"}
	list, _ := r.List(t.Context(), o)
	// Between the list and the watch.
	statuses.set("b1", models.StateOnline)
	r.StatusChanged(deviceKey("b1"))
	var states []string
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	done := errors.New("done")
	err := r.Watch(ctx, o, list.ResourceVersion, func(ev models.Event) error {
		d := ev.Object.(*models.Device)
		states = append(states, fmt.Sprintf("%s %s %s", ev.Type, d.Metadata.Name, d.Status.State))
		switch len(states) {
		case 1:
			statuses.set("b2", models.StateOffline)
			r.StatusChanged(deviceKey("b2"))
			r.StatusChanged(deviceKey("b2"))
			r.StatusChanged(deviceKey("gone"))
		case 2:
			return done
		}
		return nil
	})
	if got := strings.Join(states, ", "); !errors.Is(err, done) || got != "MODIFIED b1 online, MODIFIED b2 offline" {
		t.Fatalf("%s, %v", got, err)
	}
	// What changed while the hub was down has no trace: all are told.
	again := running(t, s)
	again.SetStatuses(statuses)
	got, _ := collect(t, again, o, list.ResourceVersion)
	waitUntil(t, func() bool { return got() == "MODIFIED b1, MODIFIED b2" })
}

func TestBookmarks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, stop := startable(t, storetest.NewMemory())
		defer stop()
		apply(t, r, mapperText)
		var versions []string
		ctx, cancel := context.WithTimeout(t.Context(), 65*time.Second)
		defer cancel()
		err := r.Watch(ctx, models.ListOptions{Kind: "Device"}, "", func(ev models.Event) error {
			if ev.Type != models.Bookmark || ev.Object.Type().Kind != "Device" {
				t.Errorf("%s of %s", ev.Type, ev.Object.Type().Kind)
			}
			versions = append(versions, ev.Object.Meta().ResourceVersion)
			if len(versions) == 2 {
				// Another kind's changes move a watch on too, or it would grow too old.
				apply(t, r, modelText)
			}
			return nil
		})
		if got := strings.Join(versions, " "); !errors.Is(err, context.DeadlineExceeded) || got != "1 1 2" {
			t.Fatalf("%s, %v", got, err)
		}
	})
}
