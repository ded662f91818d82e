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
		{nil, 2, `simulate needs a FILE, or "plant"`},
		{[]string{"missing.yaml"}, 1, "missing.yaml"},
		{[]string{"missing.yaml", "--manifests", "x"}, 2, "add plant"},
		{[]string{"plant", "--loud"}, 2, "unknown flag"},
	} {
		errs := &bytes.Buffer{}
		if code := simulate(t.Context(), io.Discard, errs, c.args...); code != c.code || !strings.Contains(errs.String(), c.says) {
			t.Errorf("simulate %v: exit code %d, %s", c.args, code, errs)
		}
	}
}
