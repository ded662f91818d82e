// Package e2e tests the whole as its users run it: the two binaries in
// processes of their own, a database, simulated devices, and nothing between
// them but sockets. The tests reach into a process only by killing it.
package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/whimbrel-edge/whimbrel/internal/pgtest"
)

func TestMain(m *testing.M) {
	pgtest.Main(m, goleak.Cleanup(func(code int) {
		if binaries.dir != "" {
			if err := os.RemoveAll(binaries.dir); err != nil {
				fmt.Fprintln(os.Stderr, err)
				code = max(code, 1)
			}
		}
		os.Exit(code)
	}))
}

// binaries are built once, by the first test that asks.
var binaries struct {
	once sync.Once
	dir  string
	err  error
}

// program returns the path of one of the binaries.
func program(t testing.TB, name string) string {
	t.Helper()
	binaries.once.Do(func() {
		if binaries.dir, binaries.err = os.MkdirTemp("", "whimbrel-e2e-"); binaries.err != nil {
			return
		}
		// The steps that the tag names do nothing where nobody asks for them.
		const module = "github.com/whimbrel-edge/whimbrel"
		build := exec.Command("go", "build", "-tags", "failpoint", "-o", binaries.dir, module+"/cmd/whimbrel", module+"/cmd/whimbrel-edge")
		if out, err := build.CombinedOutput(); err != nil {
			binaries.err = fmt.Errorf("go build: %w\n%s", err, out)
		}
	})
	if binaries.err != nil {
		t.Fatal(binaries.err)
	}
	return filepath.Join(binaries.dir, name)
}
