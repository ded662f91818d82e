package docker

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/engine"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/engine/enginetest"
	"github.com/whimbrel-edge/whimbrel/internal/dockertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, host string) *Docker {
	t.Helper()
	d, err := New(host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// TestDocker has one engine for all: starting one takes longer than using it.
func TestDocker(t *testing.T) {
	server := dockertest.Start(t)
	d := open(t, server.Host())
	if _, err := d.Load(t.Context(), bytes.NewReader(dockertest.App(t, enginetest.Image, ""))); err != nil {
		t.Fatal(err)
	}
	t.Run("suite", func(t *testing.T) {
		enginetest.Suite(t, d, dockertest.App(t, "whimbrel.test/loaded:1", "another"), "whimbrel.test/loaded:1")
	})
	t.Run("spec", func(t *testing.T) { testSpec(t, d) })
	t.Run("streams", func(t *testing.T) { testStreams(t, d) })
	t.Run("pull", func(t *testing.T) {
		// No registry is there, and the engine is asked for nothing but what is here.
		err := d.Pull(t.Context(), "127.0.0.1:1/none:1", nil)
		if err == nil || errors.Is(err, engine.ErrUnavailable) || !strings.Contains(err.Error(), "127.0.0.1:1/none:1") {
			t.Errorf("from a registry that is not there: %v", err)
		}
	})
	t.Run("restart", func(t *testing.T) { testRestart(t, d, server) })
}

func run(t *testing.T, d *Docker, s engine.Spec) string {
	t.Helper()
	s.Image = enginetest.Image
	id, err := d.Create(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Remove(context.WithoutCancel(t.Context()), id); err != nil {
			t.Error(err)
		}
	})
	if err := d.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	return id
}

func inside(t *testing.T, d *Docker, id string, steps ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	code, err := d.Exec(t.Context(), id, engine.ExecSpec{Command: append([]string{"/app"}, steps...), Stdout: &out, Stderr: &errs})
	if err != nil || code != 0 {
		t.Fatalf("%v: exit %d, %v, %s", steps, code, err, errs.String())
	}
	return out.String()
}

func testSpec(t *testing.T, d *Docker) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a"), []byte("from outside"), 0o600); err != nil {
		t.Fatal(err)
	}
	id := run(t, d, engine.Spec{Name: "spec", Hostname: "hosty", Args: []string{"serve=8080"}, Network: engine.HostNetwork,
		Mounts:  []engine.Mount{{Source: dir, Target: "/ro", ReadOnly: true}, {Source: dir, Target: "/rw"}},
		Devices: []engine.Device{{Source: "/dev/null", Target: "/dev/whimbrel-test", Permissions: "rw"}}, CPUShares: 512, NanoCPUs: 5e8, Memory: 64 << 20})
	if got := inside(t, d, id, "cat=/ro/a"); got != "from outside" {
		t.Errorf("the mounted file says %q", got)
	}
	inside(t, d, id, "write=/rw/b:from inside", "has=/dev/whimbrel-test", "write=/dev/whimbrel-test:x")
	if text, err := os.ReadFile(filepath.Join(dir, "b")); err != nil || string(text) != "from inside" {
		t.Errorf("outside there is %q, %v", text, err)
	}
	if code, err := d.Exec(t.Context(), id, engine.ExecSpec{Command: []string{"/app", "write=/ro/c:x"}}); err != nil || code == 0 {
		t.Errorf("writing to what is read-only: exit %d, %v", code, err)
	}
	if _, err := d.Create(t.Context(), engine.Spec{Name: "lost", Image: enginetest.Image, Mounts: []engine.Mount{{Source: dir + "/none", Target: "/x"}}}); err == nil ||
		!strings.Contains(err.Error(), dir+"/none") {
		t.Errorf("a mount of what is not there: %v", err)
	}
}

func testStreams(t *testing.T, d *Docker) {
	id := run(t, d, engine.Spec{Name: "streams", Args: []string{"say=one", "grumble=two", "say=three", "serve=8080"}, Network: engine.HostNetwork})
	deadline := time.Now().Add(10 * time.Second)
	for {
		var out, errs bytes.Buffer
		if err := d.Logs(t.Context(), id, engine.LogOptions{Tail: -1}, &out, &errs); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(out.String(), "one\nthree\n") && errs.String() == "two\n" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("stdout %q, stderr %q", out.String(), errs.String())
		}
		<-time.After(10 * time.Millisecond)
	}
	var echoed bytes.Buffer
	if code, err := d.Exec(t.Context(), id, engine.ExecSpec{Command: []string{"/app", "echo"}, Stdin: strings.NewReader("hello\nthere\n"), Stdout: &echoed}); err != nil ||
		code != 0 || echoed.String() != "hello\nthere\n" {
		t.Errorf("echoed %q, exit %d, %v", echoed.String(), code, err)
	}
	if code, err := d.Exec(t.Context(), id, engine.ExecSpec{Command: []string{"/app", "exit=5"}}); err != nil || code != 5 {
		t.Errorf("exit %d, %v", code, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := d.Exec(ctx, id, engine.ExecSpec{Command: []string{"/app", "sleep=1h"}}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a command that takes too long: %v", err)
	}
}

// testRestart takes the engine away and brings it back.
func testRestart(t *testing.T, d *Docker, server *dockertest.Engine) {
	labels := map[string]string{"restart": "yes"}
	id, err := d.Create(t.Context(), engine.Spec{Name: "restart", Image: enginetest.Image, Labels: labels, Network: engine.HostNetwork, Args: []string{"sleep=1h"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- d.Events(t.Context(), labels, time.Now(), func(engine.Event) {}) }() // ends with the engine
	if err := server.Kill9(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, engine.ErrUnavailable) {
		t.Errorf("the events ended with %v", err)
	}
	if _, err := d.Info(t.Context()); !errors.Is(err, engine.ErrUnavailable) {
		t.Errorf("without an engine: %v", err)
	} else {
		t.Log(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	list, err := d.List(t.Context(), labels)
	if err != nil || len(list) != 1 || list[0].ID != id || list[0].State == engine.Running {
		t.Errorf("after the restart: %+v, %v", list, err)
	}
	if err := d.Remove(t.Context(), id); err != nil {
		t.Error(err)
	}
}

func TestNoEngine(t *testing.T) {
	d := open(t, "unix://"+filepath.Join(t.TempDir(), "none.sock"))
	if _, err := d.Info(t.Context()); !errors.Is(err, engine.ErrUnavailable) {
		t.Errorf("info: %v", err)
	}
}
