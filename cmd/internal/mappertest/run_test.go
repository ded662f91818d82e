package mappertest

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/whimbrel-edge/whimbrel/internal/need"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const examples = "../../../examples/mapper-python"

// testFile is the example's test file with a port that is free.
func testFile(t *testing.T, python string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(examples, "test.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	psu, err := os.ReadFile(filepath.Join(examples, "psu.py"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "test.yaml")
	if err := os.WriteFile(filepath.Join(dir, "psu.py"), psu, 0o600); err != nil { // the file names it from where it is
		t.Fatal(err)
	}
	changed := strings.NewReplacer("127.0.0.1:5025", addr, "/usr/bin/python3", python).Replace(string(text))
	if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func check(t *testing.T, only []string, command ...string) *Report {
	t.Helper()
	report, err := Run(t.Context(), "scpi", testFile(t, need.Program(t, "python3", "python3")), command, only, slog.New(slog.DiscardHandler), func(Result) {})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func (r *Report) failed() (ids []string) {
	for _, c := range r.Checks {
		if c.Result == "failed" {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

func (r *Report) String() string {
	var b strings.Builder
	for _, c := range r.Checks {
		fmt.Fprintf(&b, "%s %s %v\n", c.Result, c.ID, c.Messages)
	}
	return b.String() + r.Output
}

func TestTheExamplePasses(t *testing.T) {
	t.Parallel()
	python := need.PythonModule(t, "paho.mqtt.client", "python3-paho-mqtt")
	report := check(t, nil, python, "-B", filepath.Join(examples, "scpi_mapper.py"))
	if report.Failed > 0 || report.Passed < 28 || report.Version != "1.0.0" {
		t.Errorf("%s", report)
	}
}

// TestMistakesAreFound runs the example with mistakes.
func TestMistakesAreFound(t *testing.T) {
	t.Parallel()
	python := need.PythonModule(t, "paho.mqtt.client", "python3-paho-mqtt")
	for fault, want := range map[string][]string{
		"forgets-writes": {"D09", "D10"},
		"takes-anything": {"D04"},
		"one-bad-apple":  {"D12"},
		"stays":          {"P06"},
		"misspells":      {"D22", "P07"},
		"leaks":          {"P05"},
		"silent":         {"P02"},
	} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			report := check(t, want, python, "-B", filepath.Join("testdata", "broken.py"), examples, fault)
			for _, id := range want {
				if !slices.Contains(report.failed(), id) {
					t.Errorf("%s was met:\n%s", id, report)
				}
			}
		})
	}
}

func TestNoMapper(t *testing.T) {
	t.Parallel()
	report := check(t, nil, "/bin/sh", "-c", "echo oh dear; exit 3")
	if !slices.Equal(report.failed(), []string{"P01"}) || len(report.Checks) != 1 || !strings.Contains(report.Output, "oh dear") {
		t.Errorf("%s", report)
	}
}

// TestNoDevice: a device that is not there is said once, with what its program says
// of it, and not as the mapper's failure.
func TestNoDevice(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, tt := range []struct{ from, to, want string }{
		{"psu.py,", "absent.py,", "absent.py"},
		{"run: [", "run: [/nowhere/", "start the device"},
		{"ready: tcp://", "ready: tcp://" + taken.Addr().String() + " #", "somebody listens at tcp://" + taken.Addr().String() + " already"},
	} {
		text, err := os.ReadFile(testFile(t, need.Program(t, "python3", "python3")))
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "test.yaml")
		if err := os.WriteFile(path, []byte(strings.Replace(string(text), tt.from, tt.to, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		report, err := Run(t.Context(), "scpi", path, []string{"/bin/true"}, nil, slog.New(slog.DiscardHandler), func(Result) {})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, %v", tt.to, report, err)
		}
	}
}

func TestUnknownRequirements(t *testing.T) {
	_, err := Run(t.Context(), "scpi", testFile(t, "python3"), []string{"/bin/true"}, []string{"D01", "D99"}, slog.New(slog.DiscardHandler), func(Result) {})
	if err == nil || !strings.Contains(err.Error(), `no requirement "D99"; there are D01, `) || !strings.Contains(err.Error(), "P07") {
		t.Error(err)
	}
}

func TestTestFiles(t *testing.T) {
	const good = `connection: {url: x}
badAddress: {}
properties:
- {name: a, type: int, access: ReadWrite, address: {}, value: 1, other: 2}
- {name: b, type: float, access: ReadWrite, address: {}, value: 1, other: 2.5, beyond: 9}
- {name: c, type: bytes, address: {}, value: AAE=}
`
	for _, tt := range []struct{ text, want string }{
		{good, ""},
		{strings.Replace(good, "other: 2.5", "other: x", 1), "/properties/1/other"},
		{strings.Replace(good, "other: 2,", "", 1), ""},
		{strings.Replace(good, "name: a", "nmae: a", 1), "did you mean name?"},
		{strings.Replace(good, "access: ReadWrite", "access: Write", 1), "/properties/0/access"},
		{strings.Replace(good, ", other: 2}", "}", 1), "two of them must be ReadWrite"},
		{strings.Replace(good, "badAddress: {}\n", "", 1), "/badAddress"},
		{good + "device: {run: [x], unplug: [y], plug: [z]}", "run, which is stopped"},
		{good + "device: {unplug: [y]}", "unplug and plug"},
		{good + "device: {ready: soon}", "/device/ready"},
		{good + "refused: {name: x}", "/refused"},
	} {
		path := filepath.Join(t.TempDir(), "f.yaml")
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := readFile(path)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.text, err, tt.want)
		}
	}
}
