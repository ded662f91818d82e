package e2e

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/internal/dockertest"
	"github.com/whimbrel-edge/whimbrel/internal/faultproxy"
	"github.com/whimbrel-edge/whimbrel/internal/need"
	"github.com/whimbrel-edge/whimbrel/models"
)

// dockerCLI runs the docker command against an engine, with a configuration of
// its own.
func (c *containers) dockerCLI() func(stdin string, args ...string) result {
	c.t.Helper()
	docker := need.Program(c.t, "docker", "docker.io")
	config := c.t.TempDir()
	return func(stdin string, args ...string) result {
		c.t.Helper()
		cmd := exec.CommandContext(c.t.Context(), docker, append([]string{"--config", config, "-H", c.Host()}, args...)...)
		var stdout, stderr bytes.Buffer
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
		_ = cmd.Run() // its exit code tells
		return result{code: cmd.ProcessState.ExitCode(), stdout: stdout.String(), stderr: stderr.String()}
	}
}

// loadApp puts the test app into the engine under a name of its own.
func (c *containers) loadApp(ref, extra string) {
	c.t.Helper()
	if _, err := c.engine.Load(c.t.Context(), bytes.NewReader(dockertest.App(c.t, ref, extra))); err != nil {
		c.t.Fatal(err)
	}
}

// TestDockerPushesToTheHub pushes to a hub and pulls from it with the docker
// command, over plain HTTP on loopback and over TLS.
func TestDockerPushesToTheHub(t *testing.T) {
	t.Parallel()
	c := newContainers(t)
	docker := c.dockerCLI()
	must := func(stdin string, args ...string) string {
		t.Helper()
		r := docker(stdin, args...)
		if r.code != 0 {
			t.Fatalf("docker %v: %v", args, r)
		}
		return r.stdout
	}
	pushAndPull := func(t *testing.T, host, user, token, repo string) {
		ref := host + "/" + repo + ":1"
		c.loadApp(ref, ref)
		// Not a push: that is tried again for 15 s.
		if r := docker("", "pull", ref); r.code == 0 {
			t.Errorf("pulled without a login: %v", r)
		}
		if r := docker("nonsense", "login", "-u", user, "--password-stdin", host); r.code == 0 {
			t.Errorf("a login with nonsense: %v", r)
		}
		must(token, "login", "-u", user, "--password-stdin", host)
		must("", "push", ref)
		if again := must("", "push", ref); !strings.Contains(again, "Layer already exists") {
			t.Errorf("pushed again: %s", again)
		}
		must("", "rmi", ref)
		must("", "pull", ref)
		must("", "tag", ref, host+"/"+repo+"-too:2")
		if mounted := must("", "push", host+"/"+repo+"-too:2"); !strings.Contains(mounted, "Mounted from") && !strings.Contains(mounted, "already exists") {
			t.Errorf("pushed to another repository: %s", mounted)
		}
		must("", "logout", host)
	}

	step(t, "whimbrel up", func(t *testing.T) {
		data := filepath.Join(t.TempDir(), "data")
		u := startUp(t, newProcess(t, "up", program(t, "whimbrel")), data, "--no-plant")
		pushAndPull(t, strings.TrimPrefix(u.url, "http://"), "admin", u.token, "example/anomaly")
	})
	step(t, "a hub with TLS", func(t *testing.T) {
		h := newHub(t, "")
		pushAndPull(t, h.listen, "admin", h.token, "app")
		made := h.must("", "user", "create", "pia", "--role", "admin", "-n", "plant-a")
		pushAndPull(t, h.listen, "pia", strings.TrimSpace(made), "plant-a/app")
		must(strings.TrimSpace(made), "login", "-u", "pia", "--password-stdin", h.listen)
		c.loadApp(h.listen+"/mine:1", "x")
		if r := docker("", "push", h.listen+"/mine:1"); r.code == 0 || !strings.Contains(r.stderr, "plant-a/NAME") && !strings.Contains(r.stderr, "denied") {
			t.Errorf("pushed outside of the namespace: %v", r)
		}
		got := h.want(t, 200, "GET", hubAPI+"/images", "")
		for _, want := range []string{`"repository":"app"`, `"tag":"2"`, `"plant-a/app-too"`, `"by":"pia"`} {
			if !strings.Contains(got.String(), want) {
				t.Errorf("no %s in %v", want, got)
			}
		}
		if audit := h.want(t, 200, "GET", hubAPI+"/audit", "").String(); !strings.Contains(audit, `"plant-a/app:1"`) || !strings.Contains(audit, `"Image"`) {
			t.Errorf("the audit says nothing: %s", audit)
		}
		// A corrupt layer on the hub's disk is no image for anybody, and a push heals it.
		ref := h.listen + "/app:1"
		must(h.token, "login", "-u", "admin", "--password-stdin", h.listen)
		if r := docker("", "rmi", ref, h.listen+"/app-too:2"); r.code != 0 {
			t.Log(r)
		}
		spoil(t, filepath.Join(h.data, "images", "blobs"))
		if r := docker("", "pull", ref); r.code == 0 {
			t.Errorf("pulled what was corrupt: %v", r)
		}
		c.loadApp(ref, ref)
		must("", "push", ref)
		must("", "rmi", ref)
		must("", "pull", ref)
	})
}

// spoil changes a byte of every layer below a folder.
func spoil(t testing.TB, dir string) {
	t.Helper()
	n := 0
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil || len(raw) < 100<<10 { // manifests and configurations are small
			return err
		}
		raw[len(raw)/2] ^= 0x55
		n++
		return os.WriteFile(path, raw, 0o600)
	})
	if err != nil || n == 0 {
		t.Fatalf("%d layers spoilt: %v", n, err)
	}
}

// bigApp is the archive of the test app with a layer that takes a while.
func bigApp(t testing.TB, ref string, bytes int) []byte {
	t.Helper()
	extra := make([]byte, bytes)
	_, _ = rand.Read(extra) // never fails
	return dockertest.App(t, ref, string(extra))
}

const imageManifest = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME}
spec:
  replicas: 1
  template:
    metadata: {labels: {app: NAME}}
    spec:
      nodeName: gateway-1
      terminationGracePeriodSeconds: 1
      containers:
      - {name: main, image: "IMAGE", imagePullPolicy: POLICY, args: ["serve=8080"]}
`

func deployImage(h *hub, name, image, policy string) {
	h.t.Helper()
	h.apply(strings.NewReplacer("NAME", name, "IMAGE", image, "POLICY", policy).Replace(imageManifest))
}

// awaitPod waits until the pod of an app is such.
func awaitPod(t testing.TB, h *hub, app, what string, holds func(models.PodStatus) bool) (st models.PodStatus) {
	t.Helper()
	eventually(t, 60*time.Second, app+" "+what, func() error {
		got, err := h.do("GET", hubAPI+"/pods/"+app+"-0", "")
		if err != nil {
			return err
		}
		var pod models.Pod
		if err := json.Unmarshal(got.body, &pod); err != nil || pod.Status == nil {
			return fmt.Errorf("%v: %v", got, err)
		}
		if st = *pod.Status; !holds(st) {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	return st
}

// TestAppsFromTheHub runs apps whose images only the hub has.
func TestAppsFromTheHub(t *testing.T) {
	t.Parallel()
	c := newContainers(t)
	h := newHub(t, "")
	proxy := faultproxy.New(t, h.link)
	e := &edge{process: newProcess(t, "edge gateway-1", program(t, "whimbrel-edge")), node: "gateway-1", data: t.TempDir(), mqtt: holdPort(t), addr: holdPort(t)}
	e.env = []string{"DOCKER_HOST=" + c.Host()}
	e.start("--hub", "https://"+proxy.Addr(), "--token", h.joinToken("gateway-1"), "--name", "gateway-1", "--data", e.data, "--mqtt", e.mqtt, "--api", e.addr)
	h.awaitNode(t, "gateway-1", true)
	push := func(archive []byte) string {
		t.Helper()
		file := filepath.Join(t.TempDir(), "image.tar")
		if err := os.WriteFile(file, archive, 0o600); err != nil {
			t.Fatal(err)
		}
		return h.must("", "image", "push", file)
	}
	running := func(s models.PodStatus) bool { return s.Ready }
	digestOf := func(repository string) string {
		t.Helper()
		var list struct {
			Items []struct{ Repository, Digest string }
		}
		if err := json.Unmarshal([]byte(h.must("", "image", "ls", repository, "-o", "json")), &list); err != nil {
			t.Fatal(err)
		}
		if len(list.Items) != 1 {
			t.Fatalf("of %s there are %+v", repository, list.Items)
		}
		return list.Items[0].Digest
	}
	idOf := func(pod string) string { // of the image of its container
		for _, l := range c.list() {
			if l.Labels["whimbrel.pod"] == pod && l.State == "running" {
				return l.ImageID
			}
		}
		return ""
	}
	parts := filepath.Join(e.data, "images")
	left := func() (n int64) {
		entries, _ := os.ReadDir(parts)
		for _, e := range entries {
			if info, err := e.Info(); err == nil && e.Name() != "engine.json" {
				n += info.Size()
			}
		}
		return n
	}

	step(t, "an image that the engine lacks", func(t *testing.T) {
		push(bigApp(t, "example/first:1", 1000))
		deployImage(h, "first", "example/first:1", "IfNotPresent")
		st := awaitPod(t, h, "first", "runs", running)
		here, err := c.engine.Image(t.Context(), "example/first:1")
		if err != nil || st.ContainerStatuses[0].ImageID != "example/first@"+digestOf("example/first") || len(here.Digests) != 0 || len(here.Names) != 1 {
			t.Errorf("%+v, the engine has %+v: %v", st.ContainerStatuses, here, err)
		}
		if n := left(); n != 0 {
			t.Errorf("%d bytes are left in %s", n, parts)
		}
	})

	step(t, "hub and edge killed, and the link cut, in the middle of a layer", func(t *testing.T) {
		push(bigApp(t, h.listen+"/example/big:1", 16<<20))
		proxy.SetLatency(25 * time.Millisecond)
		deployImage(h, "big", h.listen+"/example/big:1", "IfNotPresent")
		seen := int64(0)
		more := func(what string) {
			t.Helper()
			eventually(t, 60*time.Second, what, func() error {
				if n := left(); n < seen+(1<<20) {
					return fmt.Errorf("%d bytes are here, %d were", n, seen)
				}
				return nil
			})
			seen = left()
		}
		more("a part came")
		awaitPod(t, h, "big", "says how far it is", func(s models.PodStatus) bool {
			w := s.ContainerStatuses[0].State.Waiting
			return w != nil && strings.Contains(w.Message, " of ") && strings.Contains(w.Message, "MB")
		})
		seen = left()
		h.kill()
		h.begin()
		h.awaitReady()
		more("it went on after the hub was killed")
		e.kill()
		if n := left(); n < seen {
			t.Errorf("the killed edge left %d bytes, there were %d", n, seen)
		}
		e.again()
		more("it went on after the edge was killed")
		proxy.Reset()
		more("it went on after the link was cut")
		proxy.SetLatency(0)
		awaitPod(t, h, "big", "runs", running)
		if n := left(); n != 0 {
			t.Errorf("%d bytes are left in %s", n, parts)
		}
	})

	step(t, "what is nowhere", func(t *testing.T) {
		deployImage(h, "nowhere", h.listen+"/example/nowhere:1", "IfNotPresent")
		st := awaitPod(t, h, "nowhere", "fails", func(s models.PodStatus) bool {
			return s.Reason == models.ReasonErrImagePull || s.Reason == models.ReasonImagePullBackOff
		})
		if !strings.Contains(st.Message, "the hub has no image "+h.listen+"/example/nowhere:1") {
			t.Errorf("it says %q", st.Message)
		}
		push(bigApp(t, "example/nowhere:1", 10)) // and then it is there
		h.must("", "delete", "deployment", "nowhere")
	})

	step(t, "by digest", func(t *testing.T) {
		push(bigApp(t, "example/pinned:1", 2000))
		digest := digestOf("example/pinned")
		push(bigApp(t, "example/pinned:1", 3000)) // the tag moves
		deployImage(h, "pinned", "example/pinned@"+digest, "IfNotPresent")
		st := awaitPod(t, h, "pinned", "runs", running)
		if id := st.ContainerStatuses[0].ImageID; id != "example/pinned@"+digest {
			t.Errorf("it says that it runs %s", id)
		}
		before := idOf("pinned-0")
		// Without the hub another pod of it can be made.
		h.kill()
		for _, l := range c.list() {
			if l.Labels["whimbrel.pod"] == "pinned-0" {
				if err := c.engine.Remove(t.Context(), l.ID); err != nil {
					t.Error(err)
				}
			}
		}
		eventually(t, 30*time.Second, "it is made again", func() error {
			if id := idOf("pinned-0"); id == "" || id != before {
				return fmt.Errorf("%+v, before it was %s", c.list(), before)
			}
			return nil
		})
		h.begin()
		h.awaitReady()
		h.awaitNode(t, "gateway-1", true)
	})

	step(t, "a tag that moves", func(t *testing.T) {
		push(bigApp(t, "example/moves:1", 100))
		deployImage(h, "stays", "example/moves:1", "IfNotPresent")
		awaitPod(t, h, "stays", "runs", running)
		before := idOf("stays-0")
		push(bigApp(t, "example/moves:1", 200))
		deployImage(h, "follows", "example/moves:1", "Always")
		awaitPod(t, h, "follows", "runs", running)
		if after := idOf("follows-0"); before == after {
			t.Errorf("Always ran %s, which was there", after)
		}
		for _, l := range c.list() { // the name is the other's now, and the version stays
			if l.Labels["whimbrel.pod"] == "stays-0" {
				if err := c.engine.Remove(t.Context(), l.ID); err != nil {
					t.Error(err)
				}
			}
		}
		eventually(t, 30*time.Second, "it is made again from the same image", func() error {
			if id := idOf("stays-0"); id != "" && id != before {
				t.Fatalf("it runs %s, before %s", id, before)
			} else if id != "" {
				return nil
			}
			return errors.New("it does not run")
		})
	})
}
