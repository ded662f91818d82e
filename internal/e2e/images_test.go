package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/whimbrel-edge/whimbrel/internal/dockertest"
	"github.com/whimbrel-edge/whimbrel/internal/need"
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
		if r := docker("", "push", ref); r.code == 0 {
			t.Errorf("pushed without a login: %v", r)
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
