package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/whimbrel-edge/whimbrel/internal/pki"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestExitCodes(t *testing.T) {
	token := pki.NewJoinToken("sha256:" + strings.Repeat("00", 32)).Encode()
	for _, c := range []struct {
		name string
		args []string
		env  map[string]string
		code int
		say  string
	}{
		{"help", []string{"--help"}, nil, 0, "--hub"},
		{"version", []string{"version"}, nil, 0, "whimbrel"},
		{"version flag", []string{"--version"}, nil, 0, "whimbrel"},
		{"an unknown flag", []string{"--hubb", "x"}, nil, 2, "hubb"},
		{"an argument", []string{"x"}, nil, 2, "x"},
		{"a bad duration", []string{"--outbox-age", "long"}, nil, 2, "outbox-age"},
		{"a bad duration in the environment", []string{}, map[string]string{"WHIMBREL_FSYNC": "long"}, 2, "WHIMBREL_FSYNC"},
		{"a first start with nothing", []string{}, nil, 2, "--hub, --name, --token"},
		{"a first start without a token", []string{"--hub", "https://h:1", "--name", "n"}, nil, 2, "--token"},
		{"a token that is none", []string{"--hub", "https://h:1", "--name", "n", "--token", "x"}, nil, 2, "--token"},
		{"a name that is none", []string{"--hub", "https://h:1", "--name", "N!", "--token", token}, nil, 2, "--name"},
		{"labels that are none", []string{"--labels", "a"}, nil, 2, "--labels"},
		{"a size that is none", []string{"--outbox-bytes", "much"}, nil, 2, "--outbox-bytes"},
		{"an address that is none", []string{"--mqtt", "bad"}, nil, 2, "--mqtt must be an address"},
		{"another address that is none", []string{"--api", "bad"}, nil, 2, "--api must be an address"},
		{"a log level that is none", []string{"--log-level", "loud"}, nil, 2, "loud"},
		{"a hub URL that is none", []string{"--hub", "h:1", "--name", "n", "--token", token}, nil, 1, "https://host:8443"},
		{"anonymous access for all", []string{"--hub", "https://h:1", "--name", "n", "--token", token, "--api", "127.0.0.1:0", "--mqtt", "0.0.0.0:0", "--mqtt-anonymous"}, nil, 1, "loopback"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("WHIMBREL_DATA", t.TempDir())
			for name, value := range c.env {
				t.Setenv(name, value)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			var out, errs bytes.Buffer
			code := run(ctx, c.args, &out, &errs)
			if code != c.code || !strings.Contains(out.String()+errs.String(), c.say) {
				t.Errorf("exit %d, want %d and %q\n%s%s", code, c.code, c.say, out.String(), errs.String())
			}
		})
	}
}

// idleBound is what an edge may take of a small gateway's memory when it has
// nothing to do.
const idleBound = 30 << 20

// small fails where the linker had to keep all methods, because one is looked up
// by a name that only the running program knows. dump is what it says with
// -dumpdep.
func small(t *testing.T, dump string) {
	why := map[string]bool{}
	for line := range strings.Lines(dump) {
		if from, _, ok := strings.Cut(line, " <ReflectMethod> -> "); ok && !strings.Contains(from, " -> ") {
			why[from] = true
		}
	}
	for from := range why {
		t.Errorf("%s looks methods up by name: that keeps all exported methods in the binary, about 3 MiB of it and of its memory", from)
	}
}

// resident is how much memory a process has.
func resident(t *testing.T, pid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Skip("no /proc here")
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	kb, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kb << 10
}

// The process starts without a hub, stops at a signal, and starts again with
// --data alone; what it was told is remembered. It is small.
func TestProcess(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "whimbrel-edge")
	out, err := exec.Command("go", "build", "-ldflags", "-dumpdep", "-o", bin, ".").CombinedOutput()
	if err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	small(t, string(out))
	dir := filepath.Join(t.TempDir(), "data")
	token := pki.NewJoinToken("sha256:" + strings.Repeat("00", 32)).Encode()
	start := func(args ...string) (stop func() string) {
		var log bytes.Buffer
		cmd := exec.Command(bin, args...)
		cmd.Stderr = &log
		cmd.Env = append(os.Environ(), "WHIMBREL_DATA="+dir, "WHIMBREL_LOG_FORMAT=json")
		_ = os.Remove(filepath.Join(dir, "context.json"))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) { //sleep: polls another process
			if _, err := os.Stat(filepath.Join(dir, "context.json")); err == nil {
				break
			}
			if time.Now().After(end) {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
				t.Fatalf("no context.json\n%s", log.String())
			}
		}
		idle := resident(t, cmd.Process.Pid)
		t.Logf("%.1f MiB", float64(idle)/(1<<20))
		if idle > idleBound {
			t.Errorf("an edge with nothing to do has %d bytes of memory, more than %d", idle, idleBound)
		}
		return func() string {
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Error(err)
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("ended with %v\n%s", err, log.String())
			}
			return log.String()
		}
	}
	stop := start("--hub", "https://127.0.0.1:1", "--name", "gateway-1", "--token", token, "--mqtt", "127.0.0.1:0", "--api", "127.0.0.1:0", "--labels", "site=north")
	if log := stop(); !strings.Contains(log, `"msg":"edge starts"`) {
		t.Errorf("log\n%s", log)
	}
	stop = start("--token", token) // it has not joined, and knows the rest
	_ = stop()
	info, err := os.Stat(filepath.Join(dir, "context.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("context.json: %v, %v", info, err)
	}
}
