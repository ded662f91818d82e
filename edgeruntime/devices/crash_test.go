package devices

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/store"
	"github.com/whimbrel-edge/whimbrel/internal/pki"
	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/twin"
)

// The crash tests run a life of the edge in a process of its own, which kills
// itself at a step of a once write, and look at what the next life makes of it.
const (
	crashAt  = "WHIMBREL_TEST_CRASH_AT"
	crashDir = "WHIMBREL_TEST_CRASH_DIR"
)

func kill() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // the signal is on its way
}

// crashStore is a real store that crashes around the SaveIntent in which the
// write W1 is as the step says.
type crashStore struct {
	*store.Store
	step string
}

func (s *crashStore) SaveIntent(ctx context.Context, uid string, i twin.Intent) error {
	var w struct {
		State twin.WriteState
		Sent  bool
	}
	if text, err := json.Marshal(i.Writes["once"]); err != nil || json.Unmarshal(text, &w) != nil {
		return err
	}
	sent := w.State == twin.Pending && w.Sent
	if s.step == "sent, not stored" && sent || s.step == "applied, not stored" && w.State == twin.Applied {
		kill()
	}
	err := s.Store.SaveIntent(ctx, uid, i)
	if s.step == "sent, stored" && sent || s.step == "applied, stored" && w.State == twin.Applied {
		kill()
	}
	return err
}

// diskDevice is a device whose value and whose received writes are files, so
// that it outlives the edge.
func diskDevice(dir string, d *fakeDriver, step string) {
	dev := d.device("a")
	if text, err := os.ReadFile(filepath.Join(dir, "value")); err == nil && len(text) > 0 {
		dev.value("once", models.Float(5))
	}
	dev.set(func(f *fakeDevice) {
		f.onWrite = func(property string) {
			log, err := os.OpenFile(filepath.Join(dir, "value"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
			if err == nil {
				_, err = log.WriteString(property + "\n")
			}
			if err != nil || log.Close() != nil {
				os.Exit(3)
			}
			if step == "reached the device" {
				kill()
			}
		}
	})
}

func life(t *testing.T, dir, step string) (b *bench, closeStore func()) {
	s, err := store.Open(context.Background(), filepath.Join(dir, "edge.db"), pki.SealKey{})
	if err != nil {
		t.Fatal(err)
	}
	b = &bench{t: t, driver: newFakeDriver(), outbox: &memOutbox{}}
	diskDevice(dir, b.driver, step)
	b.retained = map[string]string{}
	b.m = New(Config{Drivers: map[string]mappers.Driver{"fake": b.driver}, Store: &crashStore{s, step}, Outbox: b.outbox, Publish: b.publish,
		Log: slog.New(slog.DiscardHandler), NewID: b.newID})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = b.m.Run(ctx)
	}()
	b.stop = func() { cancel(); <-done }
	b.m.Apply(one(desiredItem("a", wants(1, "W1", "once", models.Float(5)))))
	return b, func() { _ = s.Close() }
}

func TestCrashChild(t *testing.T) {
	step := os.Getenv(crashAt)
	if step == "" {
		t.Skip("run by TestCrash")
	}
	b, closeStore := life(t, os.Getenv(crashDir), step)
	defer closeStore()
	defer b.stop()
	time.Sleep(20 * time.Second) //sleep: the process is to kill itself meanwhile
	t.Fatal("did not crash")
}

func TestCrash(t *testing.T) {
	for _, c := range []struct {
		step   string
		before int // writes that reached the device before the crash
		after  int // and in all
		state  twin.WriteState
	}{
		{"sent, not stored", 0, 1, twin.Applied}, // nobody had promised anything: it is sent
		{"sent, stored", 0, 0, twin.Unknown},     // it may have reached the device: it is not
		{"reached the device", 1, 1, twin.Applied},
		{"applied, not stored", 1, 1, twin.Applied},
		{"applied, stored", 1, 1, twin.Applied},
	} {
		t.Run(c.step, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			child := exec.Command(os.Args[0], "-test.run=^TestCrashChild$")
			child.Env = append(os.Environ(), crashAt+"="+c.step, crashDir+"="+dir)
			out, err := child.CombinedOutput()
			if status, ok := child.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
				t.Fatalf("the child was to be killed: %v\n%s", err, out)
			}
			if n := received(t, dir); n != c.before {
				t.Errorf("%d writes before the crash, want %d", n, c.before)
			}
			b, closeStore := life(t, dir, "")
			defer closeStore()
			defer b.stop()
			var w *twin.WriteDoc
			for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) { //sleep: polls
				if doc, err := b.m.Document("a"); err == nil {
					if w = doc.Properties["once"].Write; w != nil && w.State != twin.Pending {
						break
					}
				}
			}
			if w == nil || w.State != c.state {
				t.Errorf("write %+v, want %s", w, c.state)
			}
			want := "W1 once " + string(c.state)
			told := func() bool { return slices.Contains(writeEvents(b.outbox.all()), want) }
			for deadline := time.Now().Add(5 * time.Second); !told() && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) { //sleep: polls
			}
			if !told() {
				t.Errorf("the hub hears %v, and never %s", writeEvents(b.outbox.all()), want)
			}
			if n := received(t, dir); n != c.after {
				t.Errorf("%d writes in all, want %d", n, c.after)
			}
		})
	}
}

func received(t *testing.T, dir string) int {
	text, err := os.ReadFile(filepath.Join(dir, "value"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.Count(string(text), "\n")
}
