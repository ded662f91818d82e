package need

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// recorder stands in for a test that ends early.
type recorder struct {
	testing.TB
	failed, skipped string
}

func (r *recorder) Helper() {}
func (r *recorder) Fatalf(format string, args ...any) {
	r.failed = fmt.Sprintf(format, args...)
	runtime.Goexit()
}
func (r *recorder) Skipf(format string, args ...any) {
	r.skipped = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func run(f func(testing.TB)) *recorder {
	r := &recorder{}
	done := make(chan struct{})
	go func() { defer close(done); f(r) }()
	<-done
	return r
}

func TestMissingProgramSkipsOrFails(t *testing.T) {
	look := func(tb testing.TB) { Program(tb, "no-such-program-here", "some-package") }

	t.Setenv(Variable, "")
	if r := run(look); r.failed != "" || !strings.Contains(r.skipped, "apt-get install some-package") {
		t.Errorf("not required: failed %q, skipped %q; want a skip that names the package", r.failed, r.skipped)
	}
	t.Setenv(Variable, "1")
	if r := run(look); r.skipped != "" || !strings.Contains(r.failed, "no-such-program-here") {
		t.Errorf("required: failed %q, skipped %q; want a failure that names the program", r.failed, r.skipped)
	}
	if r := run(func(tb testing.TB) { PythonModule(tb, "no_such_module", "p") }); !strings.Contains(r.failed, "no_such_module") {
		t.Errorf("missing module: failed %q", r.failed)
	}
}

func TestPresentProgramIsFound(t *testing.T) {
	if got := Program(t, "sh", "dash"); !filepath.IsAbs(got) {
		t.Errorf("Program(sh) = %q, want an absolute path", got)
	}
}
