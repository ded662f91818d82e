package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/whimbrel-edge/whimbrel/internal/cli"
	"github.com/whimbrel-edge/whimbrel/models"
)

// until is a writer that calls done once a text has been written.
type until struct {
	bytes.Buffer
	text string
	done func()
}

func (u *until) Write(p []byte) (int, error) {
	n, err := u.Buffer.Write(p)
	if strings.Contains(u.String(), u.text) {
		u.done()
	}
	return n, err
}

func simulate(ctx context.Context, out, errs io.Writer, args ...string) int {
	root := cli.New()
	root.AddCommand(commands(&settings{})...)
	root.SetArgs(append([]string{"simulate"}, args...))
	root.SetOut(out)
	root.SetErr(errs)
	return cli.Execute(ctx, root)
}

func TestSimulate(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "tank.yaml")
	if err := os.WriteFile(file, []byte("kind: ModbusSimulator\nname: tank\nunits:\n- {unit: 7, name: tank-1, points: [{name: level, table: input, register: 0, value: 3}]}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	manifests := filepath.Join(dir, "plant.yaml")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, errs := &until{text: "scale-1", done: cancel}, &bytes.Buffer{}
	if code := simulate(ctx, out, errs, file, "plant", "--manifests", manifests); code != 0 {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	for _, want := range []string{"tank: modbus tcp://127.0.0.1:", " unit 7: tank-1, 1 points\n", "plant: modbus tcp://127.0.0.1:", ": boiler-1, ", ": meter-1, ", ": press-1", ": scale-1"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in what it printed:\n%s", want, out)
		}
	}
	text, err := os.ReadFile(manifests)
	if err != nil {
		t.Fatal(err)
	}
	objects, err := models.DecodeObjects(text)
	if err != nil || len(objects) != 10 {
		t.Errorf("%d objects in the manifests: %v", len(objects), err)
	}
}

func TestSimulateMistakes(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{nil, 2, `simulate needs a FILE, "plant"`},
		{[]string{"plant", "--from-model", "x"}, 2, "--from-model is a simulator by itself"},
		{[]string{"plant", "--listen", "127.0.0.1:0"}, 2, "--listen with one of them, or with --from-model"},
		{[]string{"--from-model", "missing.yaml"}, 1, "missing.yaml is neither a file nor a ready model"},
		{[]string{"--from-model", "x", "--manifests", "y"}, 2, "--from-model prints its own"},
		{[]string{"missing.yaml"}, 1, "missing.yaml"},
		{[]string{"missing.yaml", "--manifests", "x"}, 1, "missing.yaml"},
		{[]string{"plant", "--speed", "-1"}, 2, "--speed: speed -1 is not within"},
		{[]string{"a.jsonl", "--speed", "0"}, 2, "--speed must be above 0"},
		{[]string{"--from-model", "sdm630", "--loop"}, 2, "--from-model plays none"},
		{[]string{"plant", "--loop"}, 2, "go with recordings"},
		{[]string{"plant", "--loud"}, 2, "unknown flag"},
	} {
		errs := &bytes.Buffer{}
		if code := simulate(t.Context(), io.Discard, errs, c.args...); code != c.code || !strings.Contains(errs.String(), c.says) {
			t.Errorf("simulate %v: exit code %d, %s", c.args, code, errs)
		}
	}
}

// What it prints is a file that can be applied.
func TestSimulateModel(t *testing.T) {
	model := filepath.Join(t.TempDir(), "tank.yaml")
	write := func(address string) {
		t.Helper()
		text := "apiVersion: whimbrel/v1\nkind: DeviceModel\nmetadata: {name: tank}\nspec: {protocol: modbus, properties: [{name: level, type: int, address: " + address + "}]}\n"
		if err := os.WriteFile(model, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("{table: input, register: 0, encoding: uint16}")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, errs := &until{text: "unit: 1\n", done: cancel}, &bytes.Buffer{}
	if code := simulate(ctx, out, errs, "--from-model", model, "--listen", "rtutcp://127.0.0.1:0"); code != 0 {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	objects, err := models.DecodeObjects(out.Bytes())
	if err != nil || len(objects) != 1 {
		t.Fatalf("%v in\n%s", err, out)
	}
	if d, ok := objects[0].(*models.Device); !ok || d.Spec.Node != "local" || d.Spec.Model != "tank" || !strings.Contains(string(d.Spec.Connection), "rtutcp://127.0.0.1:") {
		t.Errorf("it printed\n%s", out)
	}
	// The driver knows what the simulator does not mind.
	write("{table: input, register: 0, encoding: float32}")
	errs.Reset()
	if code := simulate(t.Context(), io.Discard, errs, "--from-model", model); code != 1 || !strings.Contains(errs.String(), "type int cannot hold encoding float32") {
		t.Errorf("exit code %d, %s", code, errs)
	}
}
