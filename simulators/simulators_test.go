package simulators

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/whimbrel-edge/whimbrel/protocols/modbus"
	"github.com/whimbrel-edge/whimbrel/simulators/plant"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var _ Simulator = (*plant.Plant)(nil)

const twoDocuments = `# devices for a bench
---
kind: ModbusSimulator
name: first
units:
- unit: 1
  name: pump
  points: [{name: speed, table: input, register: 0, value: 1450}]
---
kind: ModbusSimulator
name: second
units:
- unit: 7
  points: [{name: level, table: input, register: 0, value: 3}]
`

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bench.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadAndRun(t *testing.T) {
	sims, err := Load(write(t, twoDocuments))
	if err != nil {
		t.Fatal(err)
	}
	if len(sims) != 2 || sims[0].Name() != "first" || sims[1].Name() != "second" {
		t.Fatalf("%v", sims)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- Run(ctx, sims, w) }()
	buf := make([]byte, 200)
	var said string
	for strings.Count(said, "\n") < 2 {
		n, err := r.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		said += string(buf[:n])
	}
	want := regexp.MustCompile(`^first: modbus tcp://127\.0\.0\.1:[1-9]\d+ unit 1: pump, 1 points\nsecond: modbus tcp://127\.0\.0\.1:[1-9]\d+ unit 7: unit-7, 1 points\n$`)
	if !want.MatchString(said) {
		t.Errorf("said %q", said)
	}
	line := modbus.NewLine(modbus.LineConfig{Address: sims[1].Addr()})
	defer line.Close()
	if got, err := line.Client(7, time.Second).ReadInput(t.Context(), 0, 1); err != nil || got[1] != 3 {
		t.Errorf("% x, %v", got, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestRunFailsWhenAPortIsTaken(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	sims, err := Load(write(t, strings.Replace(twoDocuments, "name: second", "name: second\nlisten: "+ln.Addr().String(), 1)))
	if err != nil {
		t.Fatal(err)
	}
	err = Run(t.Context(), sims, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "second") || !strings.Contains(err.Error(), "in use") {
		t.Errorf("%v", err)
	}
	// The first one let its port go.
	again, err := net.Listen("tcp", sims[0].Addr())
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

func TestLoadRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"":                         "holds no document",
		"# nothing\n---\n":         "holds no document",
		"name: x\n":                "the document at line 1 has no kind",
		twoDocuments + "---\na: 1": "the document at line 16 has no kind",
		"kind: Toaster\n":          "kind Toaster is not one of ModbusSimulator, OPCUASimulator",
		"kind: [1]\n":              "line 1: cannot unmarshal",
		"a: b: c\n":                "mapping values are not allowed",
		strings.Replace(twoDocuments, "unit: 7", "uint: 7", 1): "line 13: unknown field uint",
		strings.Replace(twoDocuments, "value: 3", "", 1):       "second: unit unit-7: point level: there is no signal level",
	} {
		_, err := Load(write(t, text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v\nwant …%s…", err, want)
		}
	}
	if _, err := Load("no/such/file"); err == nil {
		t.Error("a file that is not there is loaded")
	}
}
