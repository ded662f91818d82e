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
	t.Run("commands that are left", func(t *testing.T) { testEnded(t, d) })
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

// execs are the commands that run in a container, as the engine says.
func execs(t *testing.T, d *Docker, id string) []string {
	t.Helper()
	c, err := d.cli.ContainerInspect(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return c.ExecIDs
}

// testEnded leaves commands alone in all ways that there are: none of them, nor
// what it has started, runs on.
func testEnded(t *testing.T, d *Docker) {
	id := run(t, d, engine.Spec{Name: "ended", Args: []string{"serve=8080"}, Network: engine.HostNetwork})
	for what, e := range map[string]engine.ExecSpec{
		"silent":                {Command: []string{"/app", "say=begun", "sleep=1h"}},
		"deaf":                  {Command: []string{"/app", "deaf", "say=begun", "sleep=1h"}},
		"with a child":          {Command: []string{"/app", "say=begun", "run=sleep=1h"}},
		"in a terminal":         {Command: []string{"/app", "say=begun", "sleep=1h"}, TTY: true},
		"that takes no input":   {Command: []string{"/app", "say=begun", "sleep=1h"}, Stdin: endless{}},
		"that says much":        {Command: []string{"/app", "say=begun", "flood=100"}},
		"to whom nobody hears":  {Command: []string{"/app", "say=begun", "sleep=1h"}, Stderr: nil},
		"that closes its mouth": {Command: []string{"/app", "say=begun", "mute", "sleep=1h"}},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		e.Stdout = writer(func(p []byte) (int, error) {
			if what == "to whom nobody hears" {
				return 0, errors.New("nobody is there")
			}
			cancel()
			return len(p), nil
		})
		_, err := d.Exec(ctx, id, e)
		if err == nil || errors.Is(err, engine.ErrLeftRunning) || what != "to whom nobody hears" && !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", what, err)
		}
		// The engine strikes a command off its list a moment after it has said that it ended.
		for deadline := time.Now().Add(5 * time.Second); len(execs(t, d, id)) > 0; {
			if time.Now().After(deadline) {
				t.Errorf("%s: it runs on", what)
				break
			}
		}
		cancel()
	}
	// What a command has started and left goes, too.
	top, err := d.cli.ContainerTop(t.Context(), id, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(top.Processes) != 1 {
		t.Errorf("in the container there are still %v", top.Processes)
	}
	var none bytes.Buffer
	if code, err := d.Exec(t.Context(), id, engine.ExecSpec{Command: []string{"/none"}, Stdout: &none, Stderr: &none}); err != nil && !strings.Contains(err.Error(), "/none") || err == nil && code != 126 && code != 127 {
		t.Errorf("a command that is not there: exit %d, %v, %s", code, err, none.String())
	} else {
		t.Logf("a command that is not there: exit %d, %v, %s", code, err, none.String())
	}
}

// endless is input without an end.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

type writer func(p []byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

func FuzzReadLog(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x00\x00\x00\x00\x172026-01-02T03:04:05Z hi\n"))
	f.Add([]byte("\x03\x00\x00\x00\x00\x00\x00\x01x"))
	f.Fuzz(func(t *testing.T, text []byte) {
		n := 0
		_ = readLog(bytes.NewReader(text), func(e engine.LogEntry) error {
			if n += len(e.Data); n > len(text) || e.Stream != engine.Stdout && e.Stream != engine.Stderr {
				t.Errorf("%+v", e)
			}
			return nil
		})
	})
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
