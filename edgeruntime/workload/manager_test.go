package workload

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/engine"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/engine/enginetest"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/store"
	"github.com/whimbrel-edge/whimbrel/models"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memoryStore is a Store that keeps nothing on a disk.
type memoryStore struct {
	mu   sync.Mutex
	pods map[key][]byte
}

func (s *memoryStore) Pods(context.Context) (out []store.Pod, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, v := range s.pods {
		out = append(out, store.Pod{Namespace: k.namespace, Name: k.name, State: v})
	}
	return out, nil
}

func (s *memoryStore) SavePod(_ context.Context, namespace, name string, state []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pods == nil {
		s.pods = map[key][]byte{}
	}
	s.pods[key{namespace, name}] = state
	return nil
}

func (s *memoryStore) DropPod(_ context.Context, namespace, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.pods, key{namespace, name})
	return nil
}

const app = "app:1"

// world is a Manager with an engine that pretends, in a bubble of time.
type world struct {
	t      *testing.T
	fake   *enginetest.Fake
	store  *memoryStore
	m      *Manager
	dir    string
	stop   func()
	ends   []func() // of what else goes on until the test ends
	items  []store.Item
	life   string
	listen func(string) (Endpoints, error)
	images Images
}

// inWorld runs a test in a bubble.
func inWorld(t *testing.T, test func(w *world)) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, fake: enginetest.NewFake(app, "app:2"), store: &memoryStore{}, dir: dir, life: "life-1", listen: func(gateway string) (Endpoints, error) {
			return Endpoints{MQTT: "mqtt://" + gateway + ":1883", API: "http://" + gateway + ":9060"}, nil
		}}
		w.start()
		synctest.Wait() // so that a test may say how engine and Manager are to be before it applies anything
		defer func() {
			for _, end := range w.ends {
				end()
			}
			w.stop()
		}()
		test(w)
	})
}

// start starts a Manager, with what the store has.
func (w *world) start() {
	log := slog.New(slog.NewTextHandler(w.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	m, err := New(Config{Engine: w.fake, Store: w.store, Node: "node-1", Life: w.life, DataDir: w.dir, Log: log, Listen: w.listen, Images: w.images,
		Local: func() Endpoints { return Endpoints{MQTT: "mqtt://127.0.0.1:1883", API: "http://127.0.0.1:9060"} }})
	if err != nil {
		w.t.Fatal(err)
	}
	w.m = m
	ctx, cancel := context.WithCancel(w.t.Context())
	ended := make(chan error)
	go func() { ended <- m.Run(ctx) }() // ends with stop
	w.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Error(err)
		}
	}
	m.Apply(w.items)
}

func (w *world) pod(name string, revision int, change func(*models.PodSpec)) store.Item {
	p := models.Pod{Metadata: models.ObjectMeta{Name: name, Namespace: "default", UID: "uid-" + name, Generation: int64(revision),
		Annotations: map[string]string{models.AnnotationRevision: fmt.Sprint(revision)}},
		Spec: models.PodSpec{Containers: []models.Container{{Name: "main", Image: app, Env: []models.EnvVar{{Name: "REVISION", Value: fmt.Sprint(revision)}}}}}}
	if change != nil {
		change(&p.Spec)
	}
	text, err := json.Marshal(p)
	if err != nil {
		w.t.Fatal(err)
	}
	return store.Item{Kind: kindPod, Namespace: "default", Name: name, UID: "uid-" + name, JSON: text}
}

func (w *world) apply(items ...store.Item) {
	w.items = items
	w.m.Apply(items)
}

// status is what was last told of a pod. nil: that nothing is left, or nothing.
func (w *world) status(name string) *models.PodStatus {
	synctest.Wait()
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	state := w.m.told[key{"default", name}]
	if state == nil || state.Gone {
		return nil
	}
	var s models.PodStatus
	if err := json.Unmarshal(state.Json, &s); err != nil {
		w.t.Fatal(err)
	}
	return &s
}

// await passes time until a pod is as wanted.
func (w *world) await(name, what string, is func(*models.PodStatus) bool) *models.PodStatus {
	w.t.Helper()
	for range 40000 {
		if s := w.status(name); is(s) {
			return s
		}
		time.Sleep(50 * time.Millisecond)
	}
	text, _ := json.MarshalIndent(w.status(name), "", " ")
	w.t.Fatalf("pod %s is not %s: %s\nthe engine was asked for %v", name, what, text, w.fake.Calls())
	return nil
}

func ready(s *models.PodStatus) bool { return s != nil && s.Ready }

func (w *world) readyAt(name string, revision int64) *models.PodStatus {
	w.t.Helper()
	return w.await(name, fmt.Sprintf("ready at revision %d", revision), func(s *models.PodStatus) bool {
		return ready(s) && s.Revision == revision && s.Update == nil
	})
}

func (w *world) containers() (names []string) {
	list, err := w.fake.List(w.t.Context(), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, c := range list {
		names = append(names, c.Name+" "+string(c.State))
	}
	slices.Sort(names)
	return names
}

func TestPodLife(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(w.pod("web-0", 1, nil))
		s := w.readyAt("web-0", 1)
		if s.Phase != models.PodRunning || s.RestartCount != 0 || s.Node != "node-1" || s.ContainerStatuses[0].ImageID != "sha256:"+app {
			t.Errorf("status %+v", s)
		}
		list, _ := w.fake.List(t.Context(), nil)
		spec, _ := w.fake.Spec(list[0].Name)
		env := strings.Join(spec.Env, " ")
		for _, want := range []string{"WHIMBREL_MQTT_URL=mqtt://127.0.0.1:1883", "WHIMBREL_MQTT_USERNAME=default.web-0", "WHIMBREL_MQTT_PASSWORD=", "WHIMBREL_API_URL=http://127.0.0.1:9060",
			"WHIMBREL_API_TOKEN=", "WHIMBREL_NODE=node-1", "REVISION=1"} {
			if !strings.Contains(env, want) {
				t.Errorf("environment %s has no %s", env, want)
			}
		}
		if spec.LogBytes != 10<<20 || spec.LogFiles != 3 || spec.Labels[labelRevision] != "1" || spec.Labels[labelUID] != "uid-web-0" {
			t.Errorf("made as %+v", spec)
		}
		w.apply()
		w.await("web-0", "gone", func(s *models.PodStatus) bool { return s == nil })
		time.Sleep(time.Second)
		if left := w.containers(); len(left) != 0 || len(w.store.pods) != 0 {
			t.Errorf("left: %v, %v", left, w.store.pods)
		}
		if left := w.fake.Networks(); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
	})
}

// A busy engine tells late that a container has ended. One that has does not take
// another's place for having been seen once.
func TestEndIsToldLate(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(w.pod("web-0", 1, nil))
		before := w.readyAt("web-0", 1).ContainerStatuses[0].ContainerID
		w.fake.Behave = func(c engine.Spec) enginetest.Behaviour {
			return enginetest.Behaviour{Exits: slices.Contains(c.Env, "REVISION=2"), After: 3 * time.Second, Code: 4}
		}
		w.fake.Slow = 2500 * time.Millisecond
		w.apply(w.pod("web-0", 2, nil))
		w.await("web-0", "failing", func(s *models.PodStatus) bool {
			if !ready(s) || s.Revision != 1 || s.ContainerStatuses[0].ContainerID != before {
				t.Fatalf("revision 1 made room: %+v", s)
			}
			return s.Update != nil && s.Update.Failed
		})
	})
}

// A restart is one, also when the container has to be made anew for it.
func TestRestartsAreCounted(t *testing.T) {
	inWorld(t, func(w *world) {
		var starts int
		w.fake.Behave = func(engine.Spec) enginetest.Behaviour {
			if starts++; starts == 2 {
				return enginetest.Behaviour{Err: errors.New("task already exists")}
			}
			return enginetest.Behaviour{}
		}
		w.apply(w.pod("web-0", 1, nil))
		if s := w.readyAt("web-0", 1); s.RestartCount != 0 {
			t.Errorf("%d restarts", s.RestartCount)
		}
		list, _ := w.fake.List(t.Context(), nil)
		w.fake.End(list[0].Name, 1, false)
		w.await("web-0", "refused by the engine", func(s *models.PodStatus) bool { return s.Reason == models.ReasonRunContainerError })
		if s := w.readyAt("web-0", 1); s.RestartCount != 1 || s.ContainerStatuses[0].ContainerID == list[0].ID {
			t.Errorf("%d restarts, container %s after %s", s.RestartCount, s.ContainerStatuses[0].ContainerID, list[0].ID)
		}
	})
}

// A listing that began before a container was made does not have it. That is no
// sign that somebody has removed it.
func TestSlowEngine(t *testing.T) {
	inWorld(t, func(w *world) {
		w.fake.Slow = 300 * time.Millisecond
		var items []store.Item
		for i := range 12 {
			items = append(items, w.pod(fmt.Sprintf("web-%d", i), 1, nil))
		}
		w.apply(items...)
		for i := range items {
			if s := w.readyAt(items[i].Name, 1); s.RestartCount != 0 {
				t.Errorf("pod %s: %d restarts", items[i].Name, s.RestartCount)
			}
		}
		for _, call := range w.fake.Calls() {
			if verb, _, _ := strings.Cut(call, " "); verb != "create" && verb != "start" {
				t.Errorf("the engine was asked to %s", call)
			}
		}
		if got := len(w.fake.Calls()); got != 2*len(items) {
			t.Errorf("%d calls for %d containers", got, len(items))
		}
	})
}

func TestRestartAfterFailures(t *testing.T) {
	inWorld(t, func(w *world) {
		w.fake.Behave = func(engine.Spec) enginetest.Behaviour {
			return enginetest.Behaviour{Exits: true, After: time.Second, Code: 3}
		}
		begin := time.Now()
		w.apply(w.pod("web-0", 1, nil))
		s := w.await("web-0", "in back-off", func(s *models.PodStatus) bool { return s != nil && s.Reason == models.ReasonCrashLoopBackOff })
		if s.RestartCount != 1 || s.ContainerStatuses[0].LastState.Terminated.ExitCode != 3 || !strings.Contains(s.Message, "exit code 3") || s.Ready || s.Phase != models.PodRunning {
			t.Errorf("status %+v", s)
		}
		w.await("web-0", "started six times", func(s *models.PodStatus) bool { return s.RestartCount == 5 })
		// 0 + 10 + 20 + 40 + 80 s of waiting, and a second of life each.
		if took := time.Since(begin); took < 155*time.Second || took > 165*time.Second {
			t.Errorf("five restarts in %v", took)
		}
		w.await("web-0", "started ten times", func(s *models.PodStatus) bool { return s.RestartCount == 10 })
		if took := time.Since(begin); took < 1515*time.Second || took > 1530*time.Second { // 160 and 4×300 above that
			t.Errorf("ten restarts in %v", took)
		}
	})
}

func TestRestartForgetsFailures(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(w.pod("web-0", 1, nil))
		name := strings.Fields(func() string { w.readyAt("web-0", 1); return w.containers()[0] }())[0]
		for range 3 {
			time.Sleep(11 * time.Minute)
			w.fake.End(name, 1, false)
			synctest.Wait()
			time.Sleep(time.Second)
			if s := w.status("web-0"); !ready(s) {
				t.Fatalf("a failure after a long life is waited for: %+v", s)
			}
		}
		w.fake.End(name, 137, true)
		s := w.await("web-0", "in back-off", func(s *models.PodStatus) bool { return s.Reason == models.ReasonCrashLoopBackOff })
		if last := s.ContainerStatuses[0].LastState.Terminated; last.Reason != models.ReasonOOMKilled || last.Signal != 9 {
			t.Errorf("last state %+v", last)
		}
	})
}

func TestRestartPolicies(t *testing.T) {
	inWorld(t, func(w *world) {
		w.fake.Behave = func(c engine.Spec) enginetest.Behaviour {
			code := 0
			if slices.Contains(c.Args, "bad") {
				code = 1
			}
			return enginetest.Behaviour{Exits: true, After: time.Second, Code: code}
		}
		job := func(name, policy, arg string) store.Item {
			return w.pod(name, 1, func(s *models.PodSpec) { s.RestartPolicy = policy; s.Containers[0].Args = []string{arg} })
		}
		w.apply(job("a", "Never", "good"), job("b", "Never", "bad"), job("c", "OnFailure", "good"), job("d", "OnFailure", "bad"))
		time.Sleep(time.Minute)
		for name, want := range map[string]string{"a": "Succeeded Completed 0", "b": "Failed Error 0", "c": "Succeeded Completed 0", "d": "Running CrashLoopBackOff 3"} {
			s := w.status(name)
			if got := fmt.Sprintf("%s %s %d", s.Phase, s.Reason, s.RestartCount); got != want {
				t.Errorf("%s is %s, want %s", name, got, want)
			}
		}
		// It is no failure that they have ended before, nor a reason to do a job again
		// that somebody has tidied up.
		list, _ := w.fake.List(t.Context(), map[string]string{labelPod: "c"})
		if err := w.fake.Remove(t.Context(), list[0].ID); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		w.stop()
		w.start()
		time.Sleep(time.Minute)
		for _, name := range []string{"a", "c"} {
			if s := w.status(name); s.Phase != models.PodSucceeded {
				t.Errorf("after a restart: %+v", s)
			}
		}
		if list, _ := w.fake.List(t.Context(), map[string]string{labelPod: "c"}); len(list) != 0 {
			t.Errorf("done again: %+v", list)
		}
	})
}

func TestImages(t *testing.T) {
	inWorld(t, func(w *world) {
		image := func(name, ref, policy string) store.Item {
			return w.pod(name, 1, func(s *models.PodSpec) { s.Containers[0].Image, s.Containers[0].ImagePullPolicy = ref, policy })
		}
		w.fake.Publish("far:1")
		w.apply(image("far", "far:1", ""), image("none", "none:1", ""), image("never", "none:2", "Never"), image("always", app, "Always"))
		w.readyAt("far", 1)
		w.readyAt("always", 1) // with what is here, since no registry has it
		s := w.await("none", "in back-off", func(s *models.PodStatus) bool { return s.Reason == models.ReasonImagePullBackOff })
		if s.Phase != models.PodPending || !strings.Contains(s.Message, "none:1") {
			t.Errorf("status %+v", s)
		}
		w.fake.Publish("none:1")
		w.readyAt("none", 1)
		if s := w.status("never"); !strings.Contains(s.Message, "imagePullPolicy is Never") {
			t.Errorf("status %+v", s)
		}
		if calls := w.fake.Calls(); !slices.Contains(calls, "pull "+app) || slices.Contains(calls, "pull none:2") {
			t.Errorf("calls %v", calls)
		}
	})
}

func TestReplaceBeside(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(w.pod("web-0", 1, nil))
		w.readyAt("web-0", 1)
		bad := false
		w.fake.Behave = func(c engine.Spec) enginetest.Behaviour {
			return enginetest.Behaviour{Exits: bad, After: 500 * time.Millisecond, Code: 7}
		}
		bad = true
		w.apply(w.pod("web-0", 2, nil))
		s := w.await("web-0", "failing to become 2", func(s *models.PodStatus) bool { return s.Update != nil && s.Update.Failed })
		if !s.Ready || s.Revision != 1 || s.Update.Revision != 2 || !strings.Contains(s.Update.Message, "exit code 7") || !strings.Contains(s.Update.Message, "revision 1 runs on") {
			t.Errorf("status %+v, update %+v", s, s.Update)
		}
		time.Sleep(time.Hour)
		if s := w.status("web-0"); !ready(s) || s.Revision != 1 {
			t.Errorf("an hour later: %+v", s)
		}
		// An edge that is started anew still has the one that serves.
		w.stop()
		w.start()
		if s := w.await("web-0", "ready again", ready); s.Revision != 1 {
			t.Errorf("after a restart: %+v", s)
		}
		bad = false
		w.apply(w.pod("web-0", 3, nil))
		w.readyAt("web-0", 3)
		if left := w.containers(); len(left) != 1 {
			t.Errorf("left: %v", left)
		}
		// Back to what was: it is made anew, the old one is gone.
		w.apply(w.pod("web-0", 1, nil))
		w.readyAt("web-0", 1)
		calls := w.fake.Calls()
		if !slices.IsSortedFunc(lastOf(calls, "start ", "remove "), func(a, b int) int { return a - b }) {
			t.Errorf("the old one went before the new one was there: %v", calls)
		}
	})
}

// lastOf returns where the last calls with these beginnings are.
func lastOf(calls []string, prefixes ...string) (at []int) {
	for _, p := range prefixes {
		last := -1
		for i, c := range calls {
			if strings.HasPrefix(c, p) {
				last = i
			}
		}
		at = append(at, last)
	}
	return at
}

func TestReplaceInPlace(t *testing.T) {
	inWorld(t, func(w *world) {
		port := func(revision int, image string) store.Item {
			return w.pod("web-0", revision, func(s *models.PodSpec) {
				s.Containers[0].Image = image
				s.Containers[0].Ports = []models.ContainerPort{{ContainerPort: 80, HostPort: 8080}}
			})
		}
		w.apply(port(1, app))
		w.readyAt("web-0", 1)
		// Nothing is stopped for an image that is not there.
		w.apply(port(2, "none:1"))
		s := w.await("web-0", "waiting for an image", func(s *models.PodStatus) bool {
			return s.Update != nil && s.Update.Reason == models.ReasonImagePullBackOff
		})
		if !s.Ready || !s.Update.Failed {
			t.Errorf("status %+v", s)
		}
		// One that does not come up makes way for the former.
		w.fake.Behave = func(c engine.Spec) enginetest.Behaviour {
			return enginetest.Behaviour{Exits: c.Image == "app:2", Code: 9}
		}
		w.apply(port(3, "app:2"))
		s = w.await("web-0", "brought back", func(s *models.PodStatus) bool {
			return ready(s) && s.Update != nil && s.Update.Failed && s.Update.Revision == 3
		})
		if s.Revision != 1 || !strings.Contains(s.Update.Message, "exit code 9") || !strings.Contains(s.Update.Message, "revision 1 was brought back") {
			t.Errorf("status %+v, update %+v", s, s.Update)
		}
		calls := len(w.fake.Calls())
		time.Sleep(time.Hour)
		if now := w.fake.Calls(); len(now) != calls {
			t.Errorf("what was given up is tried again: %v", now[calls:])
		}
		w.stop()
		w.start()
		time.Sleep(time.Minute)
		if s := w.status("web-0"); !ready(s) || s.Revision != 1 || !s.Update.Failed {
			t.Errorf("after a restart: %+v", s)
		}
		w.fake.Behave = nil
		w.apply(port(4, "app:2"))
		w.readyAt("web-0", 4)
		if left := w.containers(); len(left) != 1 {
			t.Errorf("left: %v", left)
		}
	})
}

func TestReplaceInPlaceThatNeverGetsReady(t *testing.T) {
	inWorld(t, func(w *world) {
		pod := func(revision int) store.Item {
			return w.pod("web-0", revision, func(s *models.PodSpec) {
				s.HostNetwork = true
				s.Containers[0].ReadinessProbe = &models.Probe{Exec: &models.Exec{Command: []string{"ok"}}, PeriodSeconds: 1}
			})
		}
		w.fake.OnExec = func(_ context.Context, c engine.Spec, _ engine.ExecSpec) int {
			if slices.Contains(c.Env, "REVISION=2") {
				return 1
			}
			return 0
		}
		w.apply(pod(1))
		w.readyAt("web-0", 1)
		begin := time.Now()
		w.apply(pod(2))
		w.await("web-0", "brought back", func(s *models.PodStatus) bool { return ready(s) && s.Update != nil && s.Update.Failed })
		if took := time.Since(begin); took < w.m.times.deadline || took > w.m.times.deadline+10*time.Second {
			t.Errorf("brought back after %v", took)
		}
	})
}

func TestProbes(t *testing.T) {
	inWorld(t, func(w *world) {
		var mu sync.Mutex
		codes := map[string]int{"startup": 1, "live": 0, "ready": 1}
		set := func(name string, code int) {
			mu.Lock()
			defer mu.Unlock()
			codes[name] = code
		}
		w.fake.OnExec = func(_ context.Context, _ engine.Spec, e engine.ExecSpec) int {
			mu.Lock()
			defer mu.Unlock()
			_, _ = e.Stdout.Write([]byte("says " + e.Command[0]))
			return codes[e.Command[0]]
		}
		probe := func(name string, failures int32) *models.Probe {
			return &models.Probe{Exec: &models.Exec{Command: []string{name}}, PeriodSeconds: 1, FailureThreshold: failures}
		}
		w.apply(w.pod("web-0", 1, func(s *models.PodSpec) {
			c := &s.Containers[0]
			c.StartupProbe, c.LivenessProbe, c.ReadinessProbe = probe("startup", 30), probe("live", 3), probe("ready", 2)
		}))
		time.Sleep(10 * time.Second)
		if s := w.status("web-0"); s.Ready || s.ContainerStatuses[0].Started || s.RestartCount != 0 {
			t.Errorf("while it starts: %+v", s)
		}
		set("startup", 0)
		s := w.await("web-0", "not ready, and says so", func(s *models.PodStatus) bool {
			return s.ContainerStatuses[0].Started && s.Reason == models.ReasonUnhealthy
		})
		if s.Ready || !strings.HasSuffix(s.Message, "readiness probe: ready: exit code 1") { // what it says may be secret
			t.Errorf("status %+v", s)
		}
		set("ready", 0)
		w.await("web-0", "ready", ready)
		set("ready", 1)
		s = w.await("web-0", "not ready any more", func(s *models.PodStatus) bool { return !s.Ready })
		if s.RestartCount != 0 {
			t.Error("a readiness probe restarts nothing")
		}
		set("ready", 0)
		set("live", 1)
		s = w.await("web-0", "started anew", func(s *models.PodStatus) bool { return s.RestartCount == 1 })
		if last := s.ContainerStatuses[0].LastState.Terminated; last == nil || last.Reason != models.ReasonUnhealthy || last.Message != "it was stopped: liveness probe: live: exit code 1" {
			t.Errorf("last state %+v", last)
		}
		w.await("web-0", "in back-off", func(s *models.PodStatus) bool { return s.Reason == models.ReasonCrashLoopBackOff })
		set("live", 0)
		w.await("web-0", "ready", ready)
		// A container that does not start up in time is started anew.
		set("startup", 1)
		w.fake.End(strings.Fields(w.containers()[0])[0], 0, false)
		w.await("web-0", "started anew", func(s *models.PodStatus) bool { return s.RestartCount == 4 })
	})
}

func TestEngineAway(t *testing.T) {
	inWorld(t, func(w *world) {
		w.fake.SetDown(fmt.Errorf("nothing at /none.sock: %w", engine.ErrUnavailable))
		w.apply(w.pod("web-0", 1, nil))
		s := w.await("web-0", "waiting for the engine", func(s *models.PodStatus) bool { return s != nil && s.Reason == models.ReasonEngineUnavailable })
		if s.Phase != models.PodPending || !strings.Contains(s.Message, "/none.sock") {
			t.Errorf("status %+v", s)
		}
		if news := w.m.Statuses(true); news.Engine.Ready || news.Engine.Reason != models.ReasonEngineUnavailable || len(news.Pods) != 1 {
			t.Errorf("told %+v", news)
		}
		w.fake.SetDown(nil)
		w.readyAt("web-0", 1)
		if news := w.m.Statuses(false); news.Engine == nil || !news.Engine.Ready || news.Engine.Version != "fake 1" {
			t.Errorf("told %+v", news)
		}
		if news := w.m.Statuses(false); news != nil {
			t.Errorf("told without news: %+v", news)
		}
		w.fake.SetDown(engine.ErrUnavailable)
		w.await("web-0", "without an engine", func(s *models.PodStatus) bool { return !s.Ready && s.Reason == models.ReasonEngineUnavailable })
		// What ended with the engine is no failure.
		w.fake.End(strings.Fields(func() string {
			w.fake.SetDown(nil)
			defer w.fake.SetDown(engine.ErrUnavailable)
			return w.containers()[0]
		}())[0], 255, false)
		time.Sleep(time.Minute)
		w.fake.SetDown(nil)
		begin := time.Now()
		w.readyAt("web-0", 1)
		if took := time.Since(begin); took > 20*time.Second {
			t.Errorf("ready after %v", took)
		}
	})
}

func TestRemovedFromOutside(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(w.pod("web-0", 1, nil))
		w.readyAt("web-0", 1)
		list, _ := w.fake.List(t.Context(), nil)
		if err := w.fake.Remove(t.Context(), list[0].ID); err != nil {
			t.Fatal(err)
		}
		s := w.await("web-0", "repaired", func(s *models.PodStatus) bool { return ready(s) && s.RestartCount == 1 })
		if s.ContainerStatuses[0].ContainerID == list[0].ID {
			t.Error("it is the same container")
		}
	})
}

// TestLostCredentials loses what is stored of a pod, and nothing else: a container
// whose credentials nobody knows is of no use.
func TestLostCredentials(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(w.pod("web-0", 1, nil))
		before := w.readyAt("web-0", 1).ContainerStatuses[0].ContainerID
		w.stop()
		w.store.pods = nil
		w.start()
		w.await("web-0", "made anew", func(s *models.PodStatus) bool {
			return ready(s) && s.ContainerStatuses[0].ContainerID != before && len(w.containers()) == 1
		})
	})
}

func TestStopAtEnd(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(w.pod("web-0", 1, nil))
		w.readyAt("web-0", 1)
		w.stop()
		if now := w.containers(); !strings.HasSuffix(now[0], " running") {
			t.Errorf("it does not run on: %v", now)
		}
		w.start()
		synctest.Wait()
		w.m.cfg.StopAtEnd = true
		w.readyAt("web-0", 1)
		w.stop()
		if now := w.containers(); !strings.HasSuffix(now[0], " exited") {
			t.Errorf("it runs on: %v", now)
		}
		w.start()
		w.readyAt("web-0", 1)
	})
}

// TestApplyWithoutNews applies what is the same, which happens with each desired
// value: nothing is to be looked at for that.
func TestApplyWithoutNews(t *testing.T) {
	inWorld(t, func(w *world) {
		device := func(label string) store.Item {
			return store.Item{Kind: store.KindDevice, Namespace: "default", Name: "boiler-1", JSON: []byte(`{"metadata":{"labels":{"a":"` + label + `"}}}`)}
		}
		w.apply(w.pod("web-0", 1, nil), device("1"))
		w.readyAt("web-0", 1)
		w.m.Apply(append(w.items, store.Item{Kind: store.KindDesired, Namespace: "default", Name: "boiler-1", JSON: []byte(`{}`)}))
		if len(w.m.wake) != 0 {
			t.Error("a desired value wakes the pods")
		}
		w.apply(w.pod("web-0", 1, nil), device("2"))
		if len(w.m.wake) != 0 {
			t.Error("a device's label wakes the pods")
		}
		if got := w.m.credentials.labels[key{"default", "boiler-1"}]["a"]; got != "2" {
			t.Errorf("the label is %s", got)
		}
	})
}

func TestLeftovers(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(w.pod("web-0", 1, nil), w.pod("web-1", 1, nil))
		w.readyAt("web-0", 1)
		w.readyAt("web-1", 1)
		before := w.containers()
		other, err := w.fake.Create(t.Context(), engine.Spec{Name: "somebody-elses", Image: app, Labels: map[string]string{"a": "b"}})
		if err != nil {
			t.Fatal(err)
		}
		// The store is lost: the credentials in the containers are worth nothing.
		w.stop()
		w.store.pods, w.life, w.items = nil, "life-2", []store.Item{w.pod("web-0", 1, nil)}
		w.start()
		w.readyAt("web-0", 1)
		w.await("web-1", "gone", func(s *models.PodStatus) bool { return s == nil && len(w.containers()) == 2 })
		if now := w.containers(); slices.Contains(before, now[1]) {
			t.Errorf("before there were %v, now %v", before, now)
		}
		if c, err := w.fake.Inspect(t.Context(), other); err != nil || c.State != engine.Created {
			t.Errorf("another's container: %+v, %v", c, err)
		}
	})
}

func TestCredentials(t *testing.T) {
	inWorld(t, func(w *world) {
		secret := func() (password, token string) {
			list, _ := w.fake.List(t.Context(), map[string]string{labelPod: "web-0"})
			spec, _ := w.fake.Spec(list[0].Name)
			for _, e := range spec.Env {
				if v, ok := strings.CutPrefix(e, "WHIMBREL_MQTT_PASSWORD="); ok {
					password = v
				}
				if v, ok := strings.CutPrefix(e, "WHIMBREL_API_TOKEN="); ok {
					token = v
				}
			}
			return password, token
		}
		pod := func(revision int, grants ...models.AccessGrant) store.Item {
			return w.pod("web-0", revision, func(s *models.PodSpec) { s.Access = grants })
		}
		device := func(name, labels string) store.Item {
			return store.Item{Kind: store.KindDevice, Namespace: "default", Name: name, JSON: []byte(`{"metadata":{"labels":{` + labels + `}}}`)}
		}
		read := models.AccessGrant{Devices: models.DeviceChoice{Selector: "area=a"}, Verbs: []string{"read"}}
		write := models.AccessGrant{Devices: models.DeviceChoice{Names: []string{"boiler-2"}}, Properties: []string{"setpoint"}, Verbs: []string{"write"}}
		topics := models.AccessGrant{Topics: []string{"alarms/#"}, Verbs: []string{"publish"}}
		routes := models.AccessGrant{Routes: []string{"to-erp"}, Verbs: []string{"publish"}}
		w.apply(pod(1, read, write, topics, routes), device("boiler-1", `"area":"a"`), device("boiler-2", ""))
		w.readyAt("web-0", 1)
		password, token := secret()
		a, ok := w.m.AppByPassword("default.web-0", password)
		if b, okToken := w.m.AppByToken(token); !ok || !okToken || a != b || a.Name() != "default.web-0" {
			t.Fatalf("the app is %v, %v", a, b)
		}
		for what, allowed := range map[string]bool{
			"read by label": a.Device("boiler-1", "temperature", false), "any by label": a.Device("boiler-1", "", false), "write by name": a.Device("boiler-2", "setpoint", true),
			"publish": a.Topic("alarms/x", true), "reads some": a.AnyDevice(false), "writes some": a.AnyDevice(true),
			"!write by label": !a.Device("boiler-1", "temperature", true), "!another property": !a.Device("boiler-2", "mode", true), "!read by name": !a.Device("boiler-2", "setpoint", false),
			"!another device": !a.Device("boiler-3", "x", false), "!another namespace": !a.Device("other.boiler-2", "setpoint", true), "!no name": !a.Device("a.b.c", "x", false),
			"route": a.Route("to-erp"), "!another route": !a.Route("alarms"), "!subscribe": !a.Topic("alarms/x", false), "!another topic": !a.Topic("x", true),
		} {
			if !allowed {
				t.Errorf("%s is wrong", what)
			}
		}
		// Labels and grants change under a container that runs on.
		w.apply(pod(1, read), device("boiler-1", ""), device("boiler-3", `"area":"a"`))
		w.await("web-0", "granted something else", func(*models.PodStatus) bool { return a.Device("boiler-3", "x", false) })
		if a.Device("boiler-1", "x", false) || a.Device("boiler-2", "setpoint", true) || a.Topic("alarms/x", true) || a.Route("to-erp") {
			t.Error("what was withdrawn is still granted")
		}
		if s := w.status("web-0"); s.RestartCount != 0 {
			t.Errorf("status %+v", s)
		}
		// Credentials survive the edge, and end with their generation.
		w.stop()
		w.start()
		w.readyAt("web-0", 1)
		a, ok = w.m.AppByPassword("default.web-0", password)
		if !ok {
			t.Fatal("the credentials are lost")
		}
		w.apply(pod(2, read))
		w.readyAt("web-0", 2)
		w.await("web-0", "rid of its old credentials", func(*models.PodStatus) bool { return !a.Current() })
		if _, ok := w.m.AppByPassword("default.web-0", password); ok || a.Device("boiler-3", "x", false) {
			t.Error("the old credentials still hold")
		}
		if _, ok := w.m.AppByToken(token); ok {
			t.Error("the old token still holds")
		}
		password, _ = secret()
		if _, ok := w.m.AppByPassword("default.web-1", password); ok {
			t.Error("the password is good for another name")
		}
		w.apply()
		w.await("web-0", "gone", func(s *models.PodStatus) bool { return s == nil })
		if _, ok := w.m.AppByPassword("default.web-0", password); ok {
			t.Error("the credentials outlive the pod")
		}
	})
}

// What has failed by its configuration is tried again when that changes.
func TestConfigsMended(t *testing.T) {
	inWorld(t, func(w *world) {
		settings := func(mode string) store.Item {
			return store.Item{Kind: kindConfigMap, Namespace: "default", Name: "settings", JSON: []byte(`{"data":{"mode":"` + mode + `"}}`)}
		}
		w.fake.Behave = func(c engine.Spec) enginetest.Behaviour {
			switch {
			case slices.Contains(c.Env, "MODE=refused"):
				return enginetest.Behaviour{Err: errors.New("no such command")}
			case slices.Contains(c.Env, "MODE=crash"):
				return enginetest.Behaviour{Exits: true, Code: 3}
			}
			return enginetest.Behaviour{}
		}
		pod := w.pod("web-0", 1, func(s *models.PodSpec) {
			s.Containers[0].Env = []models.EnvVar{{Name: "MODE", ValueFrom: &models.EnvSource{ConfigMapKeyRef: &models.KeyRef{Name: "settings", Key: "mode"}}}}
		})
		for mode, reason := range map[string]string{"refused": models.ReasonRunContainerError, "crash": models.ReasonCrashLoopBackOff} {
			w.apply(pod, settings(mode))
			w.await("web-0", reason, func(s *models.PodStatus) bool { return s != nil && s.Reason == reason })
			time.Sleep(10 * time.Minute) // by now it is tried every five
			w.await("web-0", "waiting", func(s *models.PodStatus) bool { return s.Reason == reason })
			w.apply(pod, settings("good"))
			begin := time.Now()
			w.readyAt("web-0", 1)
			if took := time.Since(begin); took > 10*time.Second {
				t.Errorf("%s: ready %v after its configuration was mended", mode, took)
			}
			w.apply()
			w.await("web-0", "gone", func(s *models.PodStatus) bool { return s == nil })
		}
	})
}

func TestNeverPull(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(w.pod("web-0", 1, func(s *models.PodSpec) {
			s.Containers[0].Image, s.Containers[0].ImagePullPolicy = "none:1", models.PullNever
		}))
		s := w.await("web-0", "not to be had", func(s *models.PodStatus) bool { return s != nil && s.Reason == models.ReasonErrImageNeverPull })
		if s.Phase != models.PodPending || s.Message != "image none:1 is not on the node, and imagePullPolicy is Never" {
			t.Errorf("status %+v", s)
		}
	})
}

func TestConfigs(t *testing.T) {
	inWorld(t, func(w *world) {
		pod := w.pod("web-0", 1, func(s *models.PodSpec) {
			s.Containers[0].EnvFrom = []models.EnvFrom{{Prefix: "C_", ConfigMapRef: &models.ObjectRef{Name: "settings"}}}
			s.Containers[0].Env = []models.EnvVar{{Name: "KEY", ValueFrom: &models.EnvSource{SecretKeyRef: &models.KeyRef{Name: "keys", Key: "k"}}}}
			s.Containers[0].VolumeMounts = []models.VolumeMount{{Name: "settings", MountPath: "/etc/settings"}}
			s.Volumes = []models.Volume{{Name: "settings", ConfigMap: &models.ConfigVolume{Name: "settings"}}}
		})
		settings := func(value string) store.Item {
			return store.Item{Kind: kindConfigMap, Namespace: "default", Name: "settings", JSON: []byte(`{"data":{"a":"` + value + `","not a name":"x"},"binaryData":{"b":"AAE="}}`)}
		}
		secret := store.Item{Kind: kindSecret, Namespace: "default", Name: "keys", JSON: []byte(`{"data":{"k":"c2VjcmV0"}}`)}
		w.apply(pod)
		s := w.await("web-0", "waiting for its ConfigMap", func(s *models.PodStatus) bool { return s != nil && s.Reason == models.ReasonConfigNotFound })
		if !strings.Contains(s.Message, "no ConfigMap settings") {
			t.Errorf("status %+v", s)
		}
		w.apply(pod, settings("1"))
		w.await("web-0", "waiting for its Secret", func(s *models.PodStatus) bool { return strings.Contains(s.Message, "no Secret keys") })
		w.apply(pod, settings("1"), secret)
		w.readyAt("web-0", 1)
		spec, _ := w.fake.Spec(strings.Fields(w.containers()[0])[0])
		if !slices.Contains(spec.Env, "C_a=1") || !slices.Contains(spec.Env, "KEY=secret") || len(spec.Mounts) != 1 {
			t.Errorf("made as %+v", spec)
		}
		read := func(name string) string {
			text, err := os.ReadFile(spec.Mounts[0].Source + "/" + name)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Error(err)
			}
			return string(text)
		}
		if read("a") != "1" || read("b") != "\x00\x01" {
			t.Errorf("files %q, %q", read("a"), read("b"))
		}
		w.apply(pod, settings("2"), secret)
		w.await("web-0", "shown the new file", func(*models.PodStatus) bool { return read("a") == "2" })
		if s := w.status("web-0"); !ready(s) || s.RestartCount != 0 {
			t.Errorf("status %+v", s)
		}
		// Variables change with the next start.
		w.fake.End(spec.Name, 1, false)
		w.await("web-0", "started anew", func(s *models.PodStatus) bool { return ready(s) && s.RestartCount == 1 })
		if spec, _ := w.fake.Spec(strings.Fields(w.containers()[0])[0]); !slices.Contains(spec.Env, "C_a=2") {
			t.Errorf("made as %+v", spec)
		}
		w.fake.End(spec.Name, 1, false)
		w.await("web-0", "started once more", func(s *models.PodStatus) bool { return ready(s) && s.RestartCount == 2 })
		creates := 0
		for _, c := range w.fake.Calls() {
			if strings.HasPrefix(c, "create ") {
				creates++
			}
		}
		if creates != 2 {
			t.Errorf("made %d times: %v", creates, w.fake.Calls())
		}
	})
}

func TestSharedNetwork(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(w.pod("web-0", 1, func(s *models.PodSpec) {
			s.Containers = append(s.Containers, models.Container{Name: "side", Image: app})
		}))
		s := w.readyAt("web-0", 1)
		list, _ := w.fake.List(t.Context(), map[string]string{labelContainer: "side"})
		spec, _ := w.fake.Spec(list[0].Name)
		if spec.Network != engine.ContainerNetwork(s.ContainerStatuses[0].ContainerID) {
			t.Errorf("side is in network %s", spec.Network)
		}
		first, _ := w.fake.List(t.Context(), map[string]string{labelContainer: "main"})
		w.fake.End(first[0].Name, 1, false)
		s = w.await("web-0", "started anew, both", func(s *models.PodStatus) bool { return ready(s) && s.RestartCount == 2 })
		if a, b := s.ContainerStatuses[0].State.Running.StartedAt, s.ContainerStatuses[1].State.Running.StartedAt; b.Before(a) {
			t.Errorf("main since %v, side since %v", a, b)
		}
		if err := w.fake.Remove(t.Context(), first[0].ID); err != nil {
			t.Fatal(err)
		}
		w.await("web-0", "made anew, both", func(s *models.PodStatus) bool {
			side, _ := w.fake.List(t.Context(), map[string]string{labelContainer: "side"})
			id := s.ContainerStatuses[0].ContainerID
			return ready(s) && id != first[0].ID && len(side) == 1 && side[0].Labels[labelShares] == id
		})
	})
}

// fetcher is an Images that brings what it is told to.
type fetcher struct {
	pull      func(ctx context.Context, ref string, progress func(engine.Progress)) error
	digest    string
	recovered int
	used      map[string]bool // as Collect was told last, by name
}

func (f *fetcher) Pull(ctx context.Context, ref string, progress func(engine.Progress)) error {
	return f.pull(ctx, ref, progress)
}

func (f *fetcher) Digest(string) string { return f.digest }

func (f *fetcher) Recover(context.Context) error {
	f.recovered++
	return nil
}

func (f *fetcher) Collect(_ context.Context, used func(string, []string) bool) error {
	f.used = map[string]bool{}
	for _, name := range []string{app, "app:2", "app:sha256-" + strings.Repeat("a", 64), "other:1"} {
		f.used[name] = used("sha256:"+name, []string{"else:1"}) || used("", []string{name})
	}
	return nil
}

// What pods need is asked for by name and by id, also before it is here and when the
// name means another image.
func TestCollectsImages(t *testing.T) {
	inWorld(t, func(w *world) {
		f := &fetcher{digest: "app@sha256:1"}
		w.stop()
		w.images = f
		w.start()
		digest := "app@sha256:" + strings.Repeat("a", 64)
		w.apply(w.pod("web-0", 1, nil), w.pod("b-0", 1, func(s *models.PodSpec) {
			s.Containers[0].Image, s.Containers[0].ImagePullPolicy = digest, models.PullNever
		}))
		if s := w.readyAt("web-0", 1); s.ContainerStatuses[0].ImageID != "app@sha256:1" {
			t.Errorf("the image is %+v", s.ContainerStatuses)
		}
		if err := w.fake.Tag(t.Context(), "app:2", app); err != nil { // it is still that of before
			t.Fatal(err)
		}
		time.Sleep(2 * w.m.times.collect)
		synctest.Wait()
		if got := fmt.Sprint(f.used); f.recovered != 1 || got != fmt.Sprintf("map[app:1:true app:2:false app:sha256-%s:true other:1:false]", strings.Repeat("a", 64)) {
			t.Errorf("used are %s", got)
		}
		w.apply()
		w.await("web-0", "gone", func(s *models.PodStatus) bool { return s == nil })
		time.Sleep(2 * w.m.times.collect)
		synctest.Wait()
		if f.used[app] {
			t.Errorf("used are %v", f.used)
		}
	})
}

// Pods that want the same image have it fetched once, and say how far it is.
func TestImageIsFetchedOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		var fetched []string
		more := make(chan engine.Progress)
		w.m.cfg.Images = &fetcher{pull: func(ctx context.Context, ref string, progress func(engine.Progress)) error {
			fetched = append(fetched, ref) // under the Manager's rule that there is one at a time of a name
			for p := range more {
				progress(p)
			}
			w.fake.Publish(ref)
			return w.fake.Pull(ctx, ref, nil)
		}}
		far := func(s *models.PodSpec) { s.Containers[0].Image = "far:1" }
		w.apply(w.pod("a-0", 1, far), w.pod("b-0", 1, far))
		message := func(want string) {
			t.Helper()
			either := func(s *models.PodStatus) bool { return s != nil && s.Message == want }
			for range 100 {
				if either(w.status("a-0")) || either(w.status("b-0")) {
					return
				}
				time.Sleep(50 * time.Millisecond)
			}
			t.Errorf("no pod says %q: %+v, %+v", want, w.status("a-0"), w.status("b-0"))
		}
		message("pulling far:1")
		more <- engine.Progress{Done: 34_900_000, Total: 87_100_000}
		message("pulling far:1: 34 of 88 MB")
		more <- engine.Progress{Done: 34_900_000, Total: 87_100_000, Waiting: "there is no link to the hub"}
		message("pulling far:1: 34 of 88 MB (waits: there is no link to the hub)")
		more <- engine.Progress{Done: 87_100_000, Total: 87_100_000}
		message("pulling far:1: unpacking 88 MB")
		close(more)
		w.readyAt("a-0", 1)
		if s := w.readyAt("b-0", 1); s.ContainerStatuses[0].ImageID != "far:1@sha256:far:1" || len(fetched) != 1 {
			t.Errorf("%v was fetched, %+v", fetched, s.ContainerStatuses)
		}
	})
}

// Another image of the same name is another version: what runs stays with its own,
// also when its containers are made anew by another process.
func TestImageStays(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(w.pod("web-0", 1, nil))
		before := w.readyAt("web-0", 1).ContainerStatuses[0].ImageID
		if err := w.fake.Tag(t.Context(), before, "old"); err != nil {
			t.Fatal(err)
		}
		if err := w.fake.Tag(t.Context(), "app:2", app); err != nil { // somebody pulled it
			t.Fatal(err)
		}
		remake := func(and func() error) {
			t.Helper()
			list, err := w.fake.List(t.Context(), nil)
			if err != nil || len(list) != 1 {
				t.Fatalf("%+v %v", list, err)
			}
			if err := errors.Join(w.fake.Remove(t.Context(), list[0].ID), and()); err != nil {
				t.Fatal(err)
			}
			w.await("web-0", "made anew", func(s *models.PodStatus) bool {
				return ready(s) && s.ContainerStatuses[0].ContainerID != list[0].ID
			})
			list, err = w.fake.List(t.Context(), nil)
			if err != nil || len(list) != 1 || list[0].ImageID != before {
				t.Errorf("%+v, before it was %s: %v", list, before, err)
			}
		}
		nothing := func() error { return nil }
		remake(nothing)
		w.stop()
		w.start()
		remake(nothing)
		// When it is gone from the engine, what the name means now is better than nothing.
		before = "sha256:app:2"
		remake(func() error { return w.fake.Untag(t.Context(), "old") })
	})
}
