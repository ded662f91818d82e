package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/devicehub/store/storetest"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/twin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const mapperText = `{kind: Mapper, apiVersion: whimbrel/v1, metadata: {name: modbus}, spec: {version: "1",
  connection: {type: object, additionalProperties: false, required: [url], properties: {url: {type: string, pattern: "^tcp://"}, unit: {type: integer, minimum: 0, maximum: 255}}},
  address: {type: object, additionalProperties: false, required: [register], properties: {register: {type: integer, minimum: 0}}}}}`

const modelText = `{kind: DeviceModel, apiVersion: whimbrel/v1, metadata: {name: boiler}, spec: {protocol: modbus, properties: [
  {name: temperature, type: float, address: {register: 0}},
  {name: setpoint, type: float, access: ReadWrite, minimum: 0, maximum: 95, address: {register: 10}},
  {name: mode, type: int, access: ReadWrite, enum: {0: "off", 1: heat}, address: {register: 12}}]}}`

func deviceText(name, node string) string {
	return fmt.Sprintf(`{kind: Device, apiVersion: whimbrel/v1, metadata: {name: %s, labels: {area: a}}, spec: {model: boiler, node: %q, connection: {url: "tcp://h:1"}}}`, name, node)
}

func object(t testing.TB, text string) models.Object {
	t.Helper()
	o, err := models.DecodeObject([]byte("---\n" + text)) // YAML, not JSON
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return o
}

// running opens a registry and runs it until the test ends.
func running(t testing.TB, s store.Objects) *Registry {
	t.Helper()
	r, stop := startable(t, s)
	t.Cleanup(stop)
	return r
}

func startable(t testing.TB, s store.Objects) (*Registry, func()) {
	t.Helper()
	r, err := Open(t.Context(), Config{Store: s, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	return r, sync.OnceFunc(func() { cancel(); <-ended })
}

// plant is a registry with a mapper, a model and some devices.
func plant(t testing.TB, s store.Objects, devices ...string) *Registry {
	t.Helper()
	r := running(t, s)
	apply(t, r, mapperText)
	apply(t, r, modelText)
	for _, d := range devices {
		apply(t, r, deviceText(d, "n1"))
	}
	return r
}

func put(r *Registry, o models.Object, opts models.WriteOptions) (models.Object, bool, error) {
	return r.Update(context.Background(), models.KeyOf(o), opts, func(models.Object) (models.Object, error) { return clone(o), nil })
}

func apply(t testing.TB, r *Registry, text string) models.Object {
	t.Helper()
	o, _, err := put(r, object(t, text), models.WriteOptions{})
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return o
}

func deviceKey(name string) models.Key {
	return models.Key{Kind: "Device", Namespace: "default", Name: name}
}

func rev(t testing.TB, o models.Object) int64 {
	t.Helper()
	n, err := strconv.ParseInt(o.Meta().ResourceVersion, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// refused checks an error's kind and that it speaks of everything in words.
func refused(t testing.TB, err error, kind models.ErrorKind, words ...string) {
	t.Helper()
	if models.KindOf(err) != kind {
		t.Fatalf("error %v is of kind %q, want %q", err, models.KindOf(err), kind)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Fatalf("error %q does not speak of %q", err, w)
		}
	}
}

func TestUpdateCountsVersionsAndGenerations(t *testing.T) {
	r := plant(t, storetest.NewMemory())
	first, created, err := put(r, object(t, deviceText("b1", "n1")), models.WriteOptions{Create: true})
	if err != nil || !created {
		t.Fatal(created, err)
	}
	m := first.Meta()
	if m.UID == "" || m.Generation != 1 || m.CreationTimestamp == nil || m.Namespace != "default" {
		t.Fatalf("metadata %+v", m)
	}
	same, created, err := put(r, object(t, deviceText("b1", "n1")), models.WriteOptions{})
	if err != nil || created || same.Meta().ResourceVersion != m.ResourceVersion {
		t.Fatalf("an unchanged update made version %s of %s, created %v, %v", same.Meta().ResourceVersion, m.ResourceVersion, created, err)
	}
	model := apply(t, r, modelText) // which has a device by now
	if again := apply(t, r, modelText); rev(t, again) != rev(t, model) {
		t.Fatalf("an unchanged model went from version %d to %d", rev(t, model), rev(t, again))
	}
	labelled := object(t, deviceText("b1", "n1"))
	labelled.Meta().Labels["x"] = "y"
	second, _, err := put(r, labelled, models.WriteOptions{})
	if err != nil || second.Meta().Generation != 1 || rev(t, second) <= rev(t, first) || second.Meta().UID != m.UID {
		t.Fatalf("%+v, %v", second.Meta(), err)
	}
	respecified := object(t, deviceText("b1", "n1"))
	respecified.(*models.Device).Spec.Description = "new"
	third, _, err := put(r, respecified, models.WriteOptions{})
	if err != nil || third.Meta().Generation != 2 || !third.Meta().CreationTimestamp.Equal(*m.CreationTimestamp) {
		t.Fatalf("%+v, %v", third.Meta(), err)
	}
	_, _, err = put(r, object(t, deviceText("b1", "n1")), models.WriteOptions{Create: true})
	refused(t, err, models.KindConflict, "already exists")
	_, _, err = put(r, respecified, models.WriteOptions{IfMatch: ETag(m.ResourceVersion)})
	refused(t, err, models.KindPrecondition, ETag(third.Meta().ResourceVersion))
	if _, _, err = put(r, labelled, models.WriteOptions{IfMatch: `"7", ` + ETag(third.Meta().ResourceVersion)}); err != nil {
		t.Fatal(err)
	}
	_, _, err = put(r, object(t, deviceText("none", "n1")), models.WriteOptions{IfMatch: "*"})
	refused(t, err, models.KindPrecondition)
	_, err = r.Delete(t.Context(), deviceKey("b1"), models.WriteOptions{IfMatch: ETag(m.ResourceVersion)})
	refused(t, err, models.KindPrecondition)
	if _, err = r.Delete(t.Context(), deviceKey("b1"), models.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err = r.Delete(t.Context(), deviceKey("b1"), models.WriteOptions{})
	refused(t, err, models.KindNotFound, "default/b1")
	again := apply(t, r, deviceText("b1", "n1"))
	if again.Meta().UID == m.UID || again.Meta().Generation != 1 {
		t.Fatalf("a device made again kept %+v", again.Meta())
	}
}

func TestUpdateCannotChangeTheKeyOrServerMetadata(t *testing.T) {
	r := plant(t, storetest.NewMemory(), "b1")
	_, _, err := r.Update(t.Context(), deviceKey("b1"), models.WriteOptions{}, func(o models.Object) (models.Object, error) {
		o.Meta().Name = "b2"
		return o, nil
	})
	refused(t, err, models.KindInvalid, "/metadata/name")
	before, _ := r.Get(t.Context(), deviceKey("b1"))
	after, _, err := r.Update(t.Context(), deviceKey("b1"), models.WriteOptions{}, func(o models.Object) (models.Object, error) {
		m := o.Meta()
		m.UID, m.Generation, m.ResourceVersion, m.CreationTimestamp = "mine", 99, "99", nil
		return o, nil
	})
	if err != nil || after.Meta().UID != before.Meta().UID || after.Meta().ResourceVersion != before.Meta().ResourceVersion {
		t.Fatalf("%+v, %v", after.Meta(), err)
	}
	_, _, err = r.Update(t.Context(), deviceKey("b1"), models.WriteOptions{}, func(o models.Object) (models.Object, error) {
		o.Meta().Labels["area"] = "changed-in-place"
		return nil, errors.New("no")
	})
	if got, _ := r.Get(t.Context(), deviceKey("b1")); err == nil || got.Meta().Labels["area"] != "a" {
		t.Fatal("a change that was given up shows")
	}
}

func TestObjectTooLarge(t *testing.T) {
	r := plant(t, storetest.NewMemory())
	big := object(t, deviceText("b1", "n1"))
	big.(*models.Device).Spec.Description = strings.Repeat("x", models.MaxDocumentBytes)
	_, _, err := put(r, big, models.WriteOptions{})
	refused(t, err, models.KindInvalid, "bytes")
}

func TestNamespacesAreApart(t *testing.T) {
	r := plant(t, storetest.NewMemory(), "b1")
	other := object(t, deviceText("b1", "n1"))
	other.Meta().Namespace = "other"
	_, _, err := put(r, other, models.WriteOptions{})
	refused(t, err, models.KindInvalid, "/spec/model", "namespace other")
	model := object(t, modelText)
	model.Meta().Namespace = "other"
	if _, _, err := put(r, model, models.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := put(r, other, models.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	for ns, want := range map[string]int{"": 2, "default": 1, "other": 1, "third": 0} {
		list, err := r.List(t.Context(), models.ListOptions{Kind: "Device", Namespace: ns})
		if err != nil || len(list.Items) != want {
			t.Errorf("namespace %q lists %d, %v", ns, len(list.Items), err)
		}
	}
	// Deleting the one model leaves the other's devices alone.
	if _, err := r.Delete(t.Context(), deviceKey("b1"), models.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Delete(t.Context(), models.Key{Kind: "DeviceModel", Namespace: "default", Name: "boiler"}, models.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err = r.Delete(t.Context(), models.Key{Kind: "DeviceModel", Namespace: "other", Name: "boiler"}, models.WriteOptions{})
	refused(t, err, models.KindConflict, "b1")
}

func TestListPages(t *testing.T) {
	r := plant(t, storetest.NewMemory(), "b3", "b1", "b2")
	var names []string
	o := models.ListOptions{Kind: "Device", Limit: 2}
	page, err := r.List(t.Context(), o)
	if err != nil || page.Continue == "" {
		t.Fatal(page.Continue, err)
	}
	first := page.ResourceVersion
	apply(t, r, deviceText("b0", "n1")) // on the first page, after it was given
	for {
		for _, item := range page.Items {
			names = append(names, item.Meta().Name)
		}
		if page.ResourceVersion != first {
			t.Fatalf("a later page is of %s: a watch from there misses b0", page.ResourceVersion)
		}
		if page.Continue == "" {
			break
		}
		o.Continue = page.Continue
		if page, err = r.List(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	if got := strings.Join(names, " "); got != "b1 b2 b3" {
		t.Fatal(got)
	}
	for _, bad := range []string{"x", "1/", "/a/b", "a/b"} {
		_, err = r.List(t.Context(), models.ListOptions{Kind: "Device", Continue: bad})
		refused(t, err, models.KindMalformed)
	}
}

func TestStoreFailureTellsAllAndShowsNothing(t *testing.T) {
	s := storetest.NewMemory()
	r := plant(t, s, "b1")
	before, _ := r.List(t.Context(), models.ListOptions{Kind: "Device"})
	follower := r.Follow("n1")
	defer follower.Close()
	held := make(chan struct{})
	var commits atomic.Int32
	s.Fault(func(step string) error {
		if step != "Commit" {
			return nil
		}
		commits.Add(1)
		<-held
		return errors.New("disk full")
	})
	errs := make(chan error, 20)
	release := sync.OnceFunc(func() { close(held) })
	defer release()
	for i := range 20 {
		go func() {
			_, _, err := put(r, object(t, deviceText("c"+strconv.Itoa(i), "n1")), models.WriteOptions{})
			errs <- err
		}()
		if i == 0 {
			waitUntil(t, func() bool { return commits.Load() == 1 })
		}
	}
	waitUntil(t, func() bool { return len(r.ops) == 19 })
	release()
	for range 20 {
		refused(t, <-errs, models.KindUnavailable, "nothing has changed")
	}
	if n := commits.Load(); n != 2 {
		t.Errorf("%d commits for 20 changes of which 19 waited", n)
	}
	after, _ := r.List(t.Context(), models.ListOptions{Kind: "Device"})
	if len(after.Items) != 1 || after.ResourceVersion != before.ResourceVersion || len(follower.Take()) != 0 {
		t.Fatalf("%d devices at %s", len(after.Items), after.ResourceVersion)
	}
	s.Fault(nil)
	if got := rev(t, apply(t, r, deviceText("b2", "n1"))); strconv.FormatInt(got-1, 10) != before.ResourceVersion {
		t.Fatalf("revision %d after %s: one that was never stored is used up", got, before.ResourceVersion)
	}
}

func TestCommitWhoseAnswerIsLost(t *testing.T) {
	s := storetest.NewMemory()
	r := plant(t, s)
	var lost atomic.Bool
	s.Fault(func(step string) error {
		if step == "Commit:done" && lost.CompareAndSwap(false, true) {
			return errors.New("connection reset")
		}
		return nil
	})
	if _, _, err := put(r, object(t, deviceText("b1", "n1")), models.WriteOptions{}); err != nil {
		t.Fatalf("it was stored: %v", err)
	}
	// Now the store stays away for a while after it took the group.
	var down atomic.Bool
	lost.Store(false)
	s.Fault(func(step string) error {
		if step == "Commit:done" && lost.CompareAndSwap(false, true) {
			down.Store(true)
		}
		if down.Load() {
			return errors.New("connection refused")
		}
		return nil
	})
	_, _, err := put(r, object(t, deviceText("b2", "n1")), models.WriteOptions{})
	refused(t, err, models.KindUnavailable, "not known")
	_, _, err = put(r, object(t, deviceText("b3", "n1")), models.WriteOptions{})
	refused(t, err, models.KindUnavailable, "nothing has changed")
	if _, err := r.Get(t.Context(), deviceKey("b2")); err == nil {
		t.Fatal("b2 shows before anyone knows that it is stored")
	}
	down.Store(false)
	apply(t, r, deviceText("b4", "n1"))
	for _, name := range []string{"b1", "b2", "b4"} {
		if _, err := r.Get(t.Context(), deviceKey(name)); err != nil {
			t.Error(err)
		}
	}
	sameAsStored(t, r, s)
}

func TestAnotherWriterEndsTheSequencer(t *testing.T) {
	s := storetest.NewMemory()
	r, err := Open(t.Context(), Config{Store: s, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- r.Run(t.Context()) }()
	if err := s.Commit(t.Context(), store.Commit{Revision: 7}); err != nil {
		t.Fatal(err)
	}
	_, _, err = put(r, object(t, mapperText), models.WriteOptions{})
	refused(t, err, models.KindUnavailable)
	if err := <-ended; !errors.Is(err, errForeign) {
		t.Fatal(err)
	}
	_, _, err = put(r, object(t, mapperText), models.WriteOptions{})
	refused(t, err, models.KindUnavailable, "stopping")
}

// sameAsStored checks that a registry loaded anew is the same.
func sameAsStored(t *testing.T, r *Registry, s store.Objects) {
	t.Helper()
	again, err := Open(t.Context(), Config{Store: s, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if a, b := dump(r), dump(again); a != b {
		t.Fatalf("in memory\n%s\nstored\n%s", a, b)
	}
}

func dump(r *Registry) string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var lines []string
	for k, e := range r.objects {
		lines = append(lines, fmt.Sprintf("%s %s rev %d gen %d assignment %d props %d %s", k, e.object.Meta().UID, e.revision, e.object.Meta().Generation, e.assignment, len(e.props), e.json))
	}
	for uid, d := range r.desired {
		lines = append(lines, fmt.Sprintf("desired %s %d %d %v", uid, d.revision, d.desired.Version, len(d.desired.Properties)))
	}
	for uid, ps := range r.expiring {
		lines = append(lines, fmt.Sprintf("expiring %s %d", uid, len(ps)))
	}
	for n, uids := range r.byNode {
		lines = append(lines, fmt.Sprintf("node %s %d", n, len(uids)))
	}
	for n, uids := range r.byModel {
		lines = append(lines, fmt.Sprintf("model %s %d", n, len(uids)))
	}
	slices.Sort(lines)
	return fmt.Sprintf("revision %d\n%s", r.revision, strings.Join(lines, "\n"))
}

func waitUntil(t testing.TB, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) { //sleep: polls a condition
		if time.Now().After(deadline) {
			t.Fatal("it never came to be")
		}
	}
}

// view is what somebody knows who follows a watch.
type view struct {
	objects  map[string]string // name to version
	revision int64
	jumps    []string
}

func (v *view) take(t testing.TB, ev models.Event) {
	name := ev.Object.Meta().Name
	_, has := v.objects[name]
	switch {
	case ev.Type == models.Bookmark:
	case ev.Type == models.Added && has, ev.Type == models.Modified && !has, ev.Type == models.Deleted && !has:
		v.jumps = append(v.jumps, fmt.Sprintf("%s %s, known %v", ev.Type, name, has))
	}
	switch ev.Type {
	case models.Added, models.Modified:
		v.objects[name] = ev.Object.Meta().ResourceVersion
	case models.Deleted:
		delete(v.objects, name)
	}
	if got := rev(t, ev.Object); got < v.revision {
		v.jumps = append(v.jumps, fmt.Sprintf("revision %d after %d", got, v.revision))
	} else {
		v.revision = got
	}
}

// TestWatchersMissNothing has writers, restarts of watches and selectors at
// random, and checks that what watchers know is what there is.
func TestWatchersMissNothing(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := plant(t, storetest.NewMemory())
	selectors := []string{"", "area=a", "area!=a", "x in (1,2)"}
	var revisions sync.Map
	var writers sync.WaitGroup
	stop := make(chan struct{})
	for w := range 4 {
		writers.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(w)))
			last := int64(0)
			for range 300 {
				name := "d" + strconv.Itoa(rnd.IntN(12))
				o := object(t, deviceText(name, "n"+strconv.Itoa(rnd.IntN(3))))
				o.Meta().Labels = map[string]string{"area": string('a' + rune(rnd.IntN(2))), "x": strconv.Itoa(rnd.IntN(4))}
				if rnd.IntN(4) == 0 {
					_, err := r.Delete(t.Context(), models.KeyOf(o), models.WriteOptions{})
					if err != nil && models.KindOf(err) != models.KindNotFound {
						t.Error(err)
					}
					continue
				}
				got, _, err := put(r, o, models.WriteOptions{})
				if err != nil {
					t.Error(err)
					continue
				}
				version := rev(t, got)
				if was, twice := revisions.LoadOrStore(version, name); twice && was != name {
					t.Errorf("revision %d is of %s and %s", version, was, name)
				}
				last = max(last, version)
			}
		})
	}
	var watchers sync.WaitGroup
	views := make([]view, 8)
	for i := range views {
		v := &views[i]
		v.objects = map[string]string{}
		sel, err := models.ParseSelector(selectors[i%len(selectors)])
		if err != nil {
			t.Fatal(err)
		}
		o := models.ListOptions{Kind: "Device", Selector: sel}
		watchers.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(100+i)))
			from := ""
			if i >= 4 { // list, then watch
				list, err := r.List(t.Context(), o)
				if err != nil {
					t.Error(err)
				}
				for _, item := range list.Items {
					v.objects[item.Meta().Name] = item.Meta().ResourceVersion
				}
				from = list.ResourceVersion
				v.revision, _ = strconv.ParseInt(from, 10, 64)
			}
			for {
				ctx, cancel := context.WithCancel(t.Context())
				n := rnd.IntN(20) + 1
				broken := errors.New("the watcher's connection broke")
				go func() {
					select {
					case <-stop:
						cancel()
					case <-ctx.Done():
					}
				}()
				err := r.Watch(ctx, o, from, func(ev models.Event) error {
					// The first objects come in the order of names, whatever their versions.
					if from == "" && ev.Type == models.Added {
						v.objects[ev.Object.Meta().Name] = ev.Object.Meta().ResourceVersion
						return nil
					}
					v.take(t, ev)
					from = strconv.FormatInt(v.revision, 10)
					if n--; n <= 0 && from != "" {
						return broken
					}
					return nil
				})
				cancel()
				if !errors.Is(err, broken) {
					if !errors.Is(err, context.Canceled) {
						t.Error(err)
					}
					break
				}
			}
		})
	}
	writers.Wait()
	var last models.Object = apply(t, r, deviceText("zz", "n1"))
	waitUntil(t, func() bool {
		r.mu.RLock()
		defer r.mu.RUnlock()
		return r.revision == rev(t, last)
	})
	// Each view catches up with a watch from where it is.
	close(stop)
	watchers.Wait()
	for i := range views {
		v := &views[i]
		sel, _ := models.ParseSelector(selectors[i%len(selectors)])
		o := models.ListOptions{Kind: "Device", Selector: sel}
		list, _ := r.List(t.Context(), o)
		want := map[string]string{}
		for _, item := range list.Items {
			want[item.Meta().Name] = item.Meta().ResourceVersion
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		there := func() {
			if maps.Equal(want, v.objects) { // and what comes then is too much
				time.AfterFunc(20*time.Millisecond, cancel)
			}
		}
		there()
		if err := r.Watch(ctx, o, strconv.FormatInt(v.revision, 10), func(ev models.Event) error { v.take(t, ev); there(); return nil }); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		cancel()
		if fmt.Sprint(want) != fmt.Sprint(v.objects) {
			t.Errorf("watcher %d of %q knows %v, there is %v", i, selectors[i%len(selectors)], v.objects, want)
		}
		if len(v.jumps) > 0 {
			t.Errorf("watcher %d: %v", i, v.jumps[:min(5, len(v.jumps))])
		}
	}
}

func TestManyWritersCommitInGroups(t *testing.T) {
	s := storetest.NewMemory()
	r := plant(t, s)
	var commits atomic.Int32
	s.Fault(func(step string) error {
		if step == "Commit" {
			commits.Add(1)
			time.Sleep(time.Millisecond) //sleep: a store takes its time
		}
		return nil
	})
	var wait sync.WaitGroup
	for w := range 50 {
		wait.Go(func() {
			for i := range 10 {
				apply(t, r, deviceText(fmt.Sprintf("d%d-%d", w, i), "n1"))
			}
		})
	}
	wait.Wait()
	if n := commits.Load(); n > 250 {
		t.Errorf("%d commits for 500 changes", n)
	}
	sameAsStored(t, r, s)
}

// TestOneGroupMayHoldEverything puts changes that build on each other into one
// commit.
func TestOneGroupMayHoldEverything(t *testing.T) {
	s := storetest.NewMemory()
	r := plant(t, s, "b1")
	uid := func() string { o, _ := r.Get(t.Context(), deviceKey("b1")); return o.Meta().UID }()
	st := newStage(r)
	try := func(f func(*stage) error) {
		t.Helper()
		if err := st.try(f); err != nil {
			t.Fatal(err)
		}
	}
	putOp := func(text string) func(*stage) error {
		return func(s *stage) error {
			o := object(t, text)
			e, err := s.check(o)
			if err != nil {
				return err
			}
			return s.put(o, e)
		}
	}
	// Nobody else is in the sequencer.
	try(func(s *stage) error { s.drop(deviceKey("b1")); return nil })
	try(putOp(deviceText("b1", "n2")))
	try(putOp(strings.Replace(modelText, "maximum: 95", "maximum: 90", 1)))
	try(putOp(deviceText("b2", "n1")))
	var b2 string
	try(func(s *stage) error {
		b2 = s.get(deviceKey("b2")).object.Meta().UID
		return s.setDesired(b2, twin.Desired{Version: 1}, told{})
	})
	if err := st.try(func(s *stage) error {
		s.drop(deviceKey("b2"))
		if err := s.setDesired(b2, twin.Desired{Version: 9}, told{}); err != nil {
			return err
		}
		return errors.New("given up")
	}); err == nil {
		t.Fatal("no error")
	}
	if e := st.get(deviceKey("b2")); e == nil || st.desiredOf(b2).Version != 1 {
		t.Fatal("a change that was given up is staged")
	}
	try(func(s *stage) error { s.drop(deviceKey("b2")); return nil })
	c := st.stored()
	for _, d := range c.PutDesired {
		t.Errorf("desired values of %s are stored, of a device that is gone", d.DeviceUID)
	}
	if err := s.Commit(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	r.show(st)
	now, err := r.Get(t.Context(), deviceKey("b1"))
	if err != nil || now.Meta().UID == uid {
		t.Fatal(err, now)
	}
	view, _ := r.Device("default", "b1")
	if got := view.Properties[1].Maximum.String(); got != "90" {
		t.Errorf("the device follows a model whose maximum is %s", got)
	}
	sameAsStored(t, r, s)
}
