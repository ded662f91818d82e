package workload

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/engine"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/engine/docker"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/store"
	"github.com/whimbrel-edge/whimbrel/internal/dockertest"
	"github.com/whimbrel-edge/whimbrel/internal/pki"
	"github.com/whimbrel-edge/whimbrel/models"
)

const (
	image1 = "whimbrel.test/app:1"
	image2 = "whimbrel.test/app:2"
)

// site is a Manager with a real engine and a real store.
type site struct {
	t      *testing.T
	server *dockertest.Engine
	engine *docker.Docker
	store  *store.Store
	m      *Manager
	dir    string
	stop   func()
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, server: dockertest.Start(t), dir: t.TempDir()}
	var err error
	if s.engine, err = docker.New(s.server.Host()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.engine.Close() })
	for _, image := range []string{image1, image2} {
		s.load(image)
	}
	s.start()
	t.Cleanup(func() { s.stop() })
	return s
}

func (s *site) load(image string) {
	s.t.Helper()
	if _, err := s.engine.Load(s.t.Context(), bytes.NewReader(dockertest.App(s.t, image, image))); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) start() {
	s.t.Helper()
	var err error
	if s.store, err = store.Open(s.t.Context(), filepath.Join(s.dir, "edge.db"), pki.SealKey{}); err != nil {
		s.t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(s.t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
	s.m, err = New(Config{Engine: s.engine, Store: s.store, Node: "node-1", Life: "life-1", DataDir: filepath.Join(s.dir, "apps"), SecretDir: MemoryDir(s.dir), Log: log,
		RestartDelay: 500 * time.Millisecond,
		Local:        func() Endpoints { return Endpoints{MQTT: "mqtt://127.0.0.1:1883", API: "http://127.0.0.1:9060"} },
		Listen: func(gateway string) (Endpoints, error) {
			return Endpoints{MQTT: "mqtt://" + gateway + ":1883", API: "http://" + gateway + ":9060"}, nil
		}})
	if err != nil {
		s.t.Fatal(err)
	}
	s.m.times.settle = 300 * time.Millisecond
	s.m.times.retry.Max = time.Second
	s.m.times.deadline = 30 * time.Second // nothing here waits for it; making a container may take long
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.t.Context()))
	ended := make(chan error)
	go func() { ended <- s.m.Run(ctx) }() // ends with stop
	s.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			s.t.Error(err)
		}
		if err := s.store.Close(); err != nil {
			s.t.Error(err)
		}
		_ = os.RemoveAll(MemoryDir(s.dir))
		s.stop = func() {}
	}
}

func (s *site) pod(name string, revision int, args []string, change func(*models.PodSpec)) store.Item {
	p := models.Pod{Metadata: models.ObjectMeta{Name: name, Namespace: "default", UID: "uid-" + name, Generation: int64(revision),
		Annotations: map[string]string{models.AnnotationRevision: fmt.Sprint(revision)}},
		Spec: models.PodSpec{TerminationGracePeriodSeconds: new(int64(2)),
			Containers: []models.Container{{Name: "main", Image: image1, Args: args, Env: []models.EnvVar{{Name: "VERSION", Value: fmt.Sprint(revision)}}}}}}
	if change != nil {
		change(&p.Spec)
	}
	text, err := json.Marshal(p)
	if err != nil {
		s.t.Fatal(err)
	}
	return store.Item{Kind: kindPod, Namespace: "default", Name: name, UID: "uid-" + name, JSON: text}
}

func (s *site) status(name string) *models.PodStatus {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	state := s.m.told[key{"default", name}]
	if state == nil || state.Gone {
		return nil
	}
	var st models.PodStatus
	if err := json.Unmarshal(state.Json, &st); err != nil {
		s.t.Fatal(err)
	}
	return &st
}

func (s *site) await(name, what string, is func(*models.PodStatus) bool) *models.PodStatus {
	s.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		st := s.status(name)
		if is(st) {
			return st
		}
		if time.Now().After(deadline) {
			text, _ := json.MarshalIndent(st, "", " ")
			s.t.Fatalf("pod %s is not %s: %s", name, what, text)
		}
		<-time.After(10 * time.Millisecond)
	}
}

func (s *site) readyAt(name string, revision int64) *models.PodStatus {
	s.t.Helper()
	return s.await(name, fmt.Sprintf("ready at revision %d", revision), func(st *models.PodStatus) bool {
		return ready(st) && st.Revision == revision && st.Update == nil
	})
}

// get asks a container that serves.
func (s *site) get(st *models.PodStatus, path string) (string, error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	answer, err := client.Get("http://" + net.JoinHostPort(st.PodIP, "8080") + path)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return string(body), err
}

func (s *site) containers() []engine.Container {
	s.t.Helper()
	list, err := s.engine.List(s.t.Context(), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return list
}

var httpProbe = &models.Probe{HTTPGet: &models.HTTPGet{Path: "/healthz", Port: models.PortRef{Number: 8080}}, PeriodSeconds: 1, FailureThreshold: 1}

// TestDocker has one engine for all: starting one takes longer than using it.
func TestDocker(t *testing.T) {
	s := newSite(t)
	serve := []string{"serve=8080"}
	t.Run("life", func(t *testing.T) {
		s.m.Apply([]store.Item{s.pod("web-0", 1, serve, func(p *models.PodSpec) {
			p.Containers[0].ReadinessProbe = httpProbe
			p.Containers[0].Resources.Limits.Memory, _ = models.ParseQuantity("64Mi")
			p.Containers[0].Resources.Limits.CPU, _ = models.ParseQuantity("500m")
		})})
		st := s.readyAt("web-0", 1)
		var env map[string]string
		if text, err := s.get(st, "/env"); err != nil || json.Unmarshal([]byte(text), &env) != nil {
			t.Fatalf("%s, %v", text, err)
		}
		if env["WHIMBREL_NODE"] != "node-1" || env["VERSION"] != "1" || !strings.HasPrefix(env["WHIMBREL_API_URL"], "http://10.") || env["WHIMBREL_API_TOKEN"] == "" {
			t.Errorf("environment %v", env)
		}
		if c := st.ContainerStatuses[0]; !strings.HasPrefix(c.ImageID, "sha256:") || c.ContainerID == "" || c.State.Running == nil {
			t.Errorf("container %+v", c)
		}
	})
	t.Run("removed from outside", func(t *testing.T) {
		before := s.status("web-0")
		if err := s.engine.Remove(t.Context(), before.ContainerStatuses[0].ContainerID); err != nil {
			t.Fatal(err)
		}
		st := s.await("web-0", "repaired", func(st *models.PodStatus) bool {
			return ready(st) && st.ContainerStatuses[0].ContainerID != before.ContainerStatuses[0].ContainerID
		})
		if st.RestartCount == 0 {
			t.Errorf("status %+v", st)
		}
	})
	t.Run("unhealthy", func(t *testing.T) {
		item := s.pod("web-0", 2, serve, func(p *models.PodSpec) {
			p.Containers[0].LivenessProbe, p.Containers[0].ReadinessProbe = httpProbe, httpProbe
		})
		s.m.Apply([]store.Item{item})
		st := s.readyAt("web-0", 2)
		if _, err := s.get(st, "/set/healthz?code=500"); err != nil {
			t.Fatal(err)
		}
		st = s.await("web-0", "started anew", func(st *models.PodStatus) bool { return ready(st) && st.RestartCount > 0 })
		if last := st.ContainerStatuses[0].LastState.Terminated; last == nil || last.Reason != models.ReasonUnhealthy {
			t.Errorf("last state %+v", last)
		}
	})
	t.Run("rollout", func(t *testing.T) {
		s.m.Apply([]store.Item{s.pod("roll-0", 2, serve, func(p *models.PodSpec) { p.Containers[0].ReadinessProbe = httpProbe })})
		st := s.readyAt("roll-0", 2)
		answers := make(chan error, 1)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { // ends with cancel; one of the two answers all the time
			for ctx.Err() == nil {
				_, errOld := s.get(st, "/")
				now := s.status("roll-0")
				if _, err := s.get(now, "/"); err != nil && errOld != nil && s.status("roll-0").PodIP == now.PodIP {
					answers <- fmt.Errorf("nobody answers: %w", err)
					return
				}
			}
			answers <- nil
		}()
		s.m.Apply([]store.Item{s.pod("roll-0", 3, serve, func(p *models.PodSpec) { p.Containers[0].Image, p.Containers[0].ReadinessProbe = image2, httpProbe })})
		st3 := s.readyAt("roll-0", 3)
		cancel()
		if err := <-answers; err != nil {
			t.Error(err)
		}
		if text, err := s.get(st3, "/"); err != nil || text != "hello from 3\n" {
			t.Errorf("%q, %v", text, err)
		}
	})
	t.Run("failing rollout", func(t *testing.T) {
		// Without the probe a busy engine may call it running for long enough to be steady.
		s.m.Apply([]store.Item{s.pod("roll-0", 4, []string{"grumble=no such thing", "exit=4"}, func(p *models.PodSpec) { p.Containers[0].ReadinessProbe = httpProbe })})
		st := s.await("roll-0", "failing", func(st *models.PodStatus) bool {
			return st.Update != nil && st.Update.Failed && st.Update.Reason == models.ReasonCrashLoopBackOff
		})
		if text, err := s.get(st, "/"); err != nil || text != "hello from 3\n" {
			t.Errorf("%q, %v", text, err)
		}
		t.Log(st.Update.Message)
		s.m.Apply([]store.Item{s.pod("roll-0", 3, serve, func(p *models.PodSpec) { p.Containers[0].Image, p.Containers[0].ReadinessProbe = image2, httpProbe })})
		if undone := s.readyAt("roll-0", 3); undone.ContainerStatuses[0].ContainerID != st.ContainerStatuses[0].ContainerID {
			t.Error("undoing has replaced what ran on")
		}
	})
	t.Run("memory and crashes", func(t *testing.T) {
		s.m.Apply([]store.Item{
			s.pod("oom-0", 1, []string{"eat=200"}, func(p *models.PodSpec) { p.Containers[0].Resources.Limits.Memory, _ = models.ParseQuantity("20Mi") }),
			s.pod("crash-0", 1, []string{"exit=3"}, nil),
			s.pod("none-0", 1, nil, func(p *models.PodSpec) { p.Containers[0].Image = "127.0.0.1:1/none:1" }),
			s.pod("job-0", 1, []string{"say=done"}, func(p *models.PodSpec) { p.RestartPolicy = "Never" }),
			s.pod("cmd-0", 1, nil, func(p *models.PodSpec) { p.Containers[0].Command = []string{"/nope"} }),
		})
		s.await("oom-0", "killed for its memory", func(st *models.PodStatus) bool {
			if st == nil || st.RestartCount == 0 {
				return false
			}
			last := st.ContainerStatuses[0].LastState.Terminated
			return last != nil && last.Reason == models.ReasonOOMKilled && last.ExitCode == 137
		})
		s.await("crash-0", "in back-off", func(st *models.PodStatus) bool {
			return st != nil && st.Reason == models.ReasonCrashLoopBackOff && st.RestartCount >= 2
		})
		st := s.await("none-0", "without an image", func(st *models.PodStatus) bool { return st != nil && st.Reason == models.ReasonImagePullBackOff })
		t.Log(st.Message)
		s.await("job-0", "done", func(st *models.PodStatus) bool { return st != nil && st.Phase == models.PodSucceeded })
		st = s.await("cmd-0", "refused", func(st *models.PodStatus) bool { return st != nil && st.Reason == models.ReasonRunContainerError })
		if !strings.Contains(st.Message, "/nope") {
			t.Errorf("status %+v", st)
		}
	})
	t.Run("ports", func(t *testing.T) { testPorts(t, s) })
	t.Run("volumes", func(t *testing.T) { testVolumes(t, s) })
	t.Run("shared network", func(t *testing.T) {
		s.m.Apply([]store.Item{s.pod("two-0", 1, serve, func(p *models.PodSpec) {
			p.Containers = append(p.Containers, models.Container{Name: "side", Image: image1, Args: []string{"get=http://127.0.0.1:8080/", "serve=8081"}})
		})})
		st := s.readyAt("two-0", 1)
		var out bytes.Buffer
		for id := st.ContainerStatuses[1].ContainerID; !strings.Contains(out.String(), "200 hello from 1"); {
			out.Reset()
			if err := s.engine.Logs(t.Context(), id, engine.LogOptions{Tail: -1}, func(e engine.LogEntry) error { out.Write(e.Data); return nil }); err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Run("restarts", func(t *testing.T) { testRestarts(t, s) })
}

func testPorts(t *testing.T, s *site) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := int32(free.Addr().(*net.TCPAddr).Port)
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	item := func(revision int, args ...string) store.Item {
		return s.pod("port-0", revision, args, func(p *models.PodSpec) {
			p.Containers[0].Ports = []models.ContainerPort{{ContainerPort: 8080, HostPort: port, HostIP: "127.0.0.1"}}
		})
	}
	outside := func() string {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
		deadline := time.Now().Add(20 * time.Second)
		for {
			answer, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
			if err == nil {
				defer answer.Body.Close()
				body, _ := io.ReadAll(answer.Body)
				return string(body)
			}
			if time.Now().After(deadline) {
				return err.Error()
			}
		}
	}
	s.m.Apply([]store.Item{item(1, "serve=8080")})
	s.readyAt("port-0", 1)
	if got := outside(); got != "hello from 1\n" {
		t.Errorf("from outside: %q", got)
	}
	s.m.Apply([]store.Item{item(2, "exit=5")})
	st := s.await("port-0", "brought back", func(st *models.PodStatus) bool { return ready(st) && st.Update != nil && st.Update.Failed })
	t.Log(st.Update.Message)
	if got := outside(); got != "hello from 1\n" {
		t.Errorf("after the way back: %q", got)
	}
	s.m.Apply([]store.Item{item(3, "serve=8080")})
	s.readyAt("port-0", 3)
	if got := outside(); got != "hello from 3\n" {
		t.Errorf("after the change: %q", got)
	}
}

func testVolumes(t *testing.T, s *site) {
	host := t.TempDir()
	config := func(value string) store.Item {
		return store.Item{Kind: kindConfigMap, Namespace: "default", Name: "settings", JSON: []byte(`{"data":{"level":"` + value + `"}}`)}
	}
	secret := store.Item{Kind: kindSecret, Namespace: "default", Name: "keys", JSON: []byte(`{"data":{"k":"c2VjcmV0"}}`)}
	pod := s.pod("vol-0", 1, []string{"write=/empty/a:once", "write=/host/b:there", "write=/memory/c:x", "write=/dev/other-null:x", "serve=8080"}, func(p *models.PodSpec) {
		limit, _ := models.ParseQuantity("1Mi")
		p.Containers[0].ReadinessProbe = httpProbe // it is asked as soon as it is ready
		p.Volumes = []models.Volume{{Name: "settings", ConfigMap: &models.ConfigVolume{Name: "settings"}}, {Name: "keys", Secret: &models.SecretVolume{SecretName: "keys"}},
			{Name: "empty", EmptyDir: &models.EmptyDir{}}, {Name: "memory", EmptyDir: &models.EmptyDir{Medium: "Memory", SizeLimit: limit}},
			{Name: "host", HostPath: &models.HostPath{Path: host}}, {Name: "null", HostPath: &models.HostPath{Path: "/dev/null"}}}
		p.Containers[0].VolumeMounts = []models.VolumeMount{{Name: "settings", MountPath: "/settings"}, {Name: "keys", MountPath: "/one-key", SubPath: "k"}, {Name: "keys", MountPath: "/keys"},
			{Name: "empty", MountPath: "/empty"}, {Name: "memory", MountPath: "/memory"}, {Name: "host", MountPath: "/host"}, {Name: "null", MountPath: "/dev/other-null"}}
	})
	s.m.Apply([]store.Item{pod, config("1"), secret})
	st := s.readyAt("vol-0", 1)
	read := func(path string) string {
		text, err := s.get(s.status("vol-0"), "/file?path="+url.QueryEscape(path))
		if err != nil {
			return err.Error()
		}
		return text
	}
	for path, want := range map[string]string{"/settings/level": "1", "/keys/k": "secret", "/one-key": "secret", "/empty/a": "once", "/memory/c": "x"} {
		if got := read(path); got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}
	if text, err := os.ReadFile(filepath.Join(host, "b")); err != nil || string(text) != "there" {
		t.Errorf("on the machine: %q, %v", text, err)
	}
	s.m.Apply([]store.Item{pod, config("2"), secret})
	for deadline := time.Now().Add(20 * time.Second); read("/settings/level") != "2"; {
		if time.Now().After(deadline) {
			t.Fatal("the new settings are not shown")
		}
	}
	if now := s.status("vol-0"); now.ContainerStatuses[0].ContainerID != st.ContainerStatuses[0].ContainerID || now.RestartCount != 0 {
		t.Errorf("status %+v", now)
	}
	// Nothing of the secret is on the disk.
	err := filepath.WalkDir(s.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) == ".db" || strings.Contains(path, ".db-") {
			return err
		}
		if text, err := os.ReadFile(path); err == nil && bytes.Contains(text, []byte("secret")) {
			t.Errorf("%s holds the secret", path)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// testRestarts takes away the engine, the edge and both.
func testRestarts(t *testing.T, s *site) {
	var items []store.Item
	for i := range 3 {
		items = append(items, s.pod(fmt.Sprintf("web-%d", i), 1, []string{"serve=8080"}, nil))
	}
	s.m.Apply(items)
	all := func(what string, is func(before, now *models.PodStatus) bool, before map[string]*models.PodStatus) map[string]*models.PodStatus {
		t.Helper()
		now := map[string]*models.PodStatus{}
		for i := range items {
			name := items[i].Name
			now[name] = s.await(name, what, func(st *models.PodStatus) bool { return ready(st) && is(before[name], st) })
		}
		return now
	}
	same := func(before, now *models.PodStatus) bool {
		return before == nil || before.ContainerStatuses[0].ContainerID == now.ContainerStatuses[0].ContainerID
	}
	before := all("ready", same, nil)

	if err := s.server.Stop(); err != nil {
		t.Fatal(err)
	}
	s.await("web-0", "without an engine", func(st *models.PodStatus) bool { return st.Reason == models.ReasonEngineUnavailable && !st.Ready })
	if err := s.server.Start(); err != nil {
		t.Fatal(err)
	}
	// What is started while the engine ends may have to be made anew after it.
	any := func(_, _ *models.PodStatus) bool { return true }
	before = all("ready after the engine's restart", any, before)

	s.stop()
	s.start()
	s.m.Apply(items)
	before = all("ready after the edge's restart", func(before, now *models.PodStatus) bool {
		return same(before, now) && before.RestartCount == now.RestartCount && before.ContainerStatuses[0].State.Running.StartedAt.Equal(now.ContainerStatuses[0].State.Running.StartedAt)
	}, before)

	// A power cut.
	s.stop()
	if err := s.server.Kill9(); err != nil {
		t.Fatal(err)
	}
	s.start()
	s.m.Apply(items)
	s.await("web-0", "without an engine", func(st *models.PodStatus) bool { return st != nil && st.Reason == models.ReasonEngineUnavailable })
	if err := s.server.Start(); err != nil {
		t.Fatal(err)
	}
	all("ready after a power cut", any, before)

	s.m.Apply(nil)
	for i := range items {
		s.await(items[i].Name, "gone", func(st *models.PodStatus) bool { return st == nil })
	}
	if left := slices.DeleteFunc(s.containers(), func(c engine.Container) bool { return c.Labels[labelPod] == "" }); len(left) != 0 {
		t.Errorf("left: %+v", left)
	}
	if left, _ := filepath.Glob(filepath.Join(s.dir, "apps", "*", "*")); len(left) != 0 {
		t.Errorf("left on the disk: %v", left)
	}
}
