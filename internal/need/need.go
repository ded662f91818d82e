// Package need looks up the outside programs that some tests run (Postgres,
// mosquitto, pymodbus, socat). A missing one skips the test on a developer's
// machine and fails it where WHIMBREL_REQUIRE=1, as `make test` sets it, so
// that nothing is left out unnoticed. Imported by tests and test tools only.
package need

import (
	"os"
	"os/exec"
	"testing"
)

// Variable is the environment variable that turns skips into failures.
const Variable = "WHIMBREL_REQUIRE"

// Required reports whether a missing program is a failure.
func Required() bool { return os.Getenv(Variable) == "1" }

// Missing ends the test: what is not there, and debianPackage would bring it.
func Missing(tb testing.TB, what, debianPackage string) {
	tb.Helper()
	const format = "%s not found; install it with: apt-get install %s (or run .ci/setup as root)"
	if Required() {
		tb.Fatalf(format, what, debianPackage)
	}
	tb.Skipf(format, what, debianPackage)
}

// Program returns the path of an executable, or ends the test.
func Program(tb testing.TB, name, debianPackage string) string {
	tb.Helper()
	// Debian keeps daemons in sbin, which is not in everyone's PATH.
	for _, candidate := range []string{name, "/usr/sbin/" + name, "/usr/local/sbin/" + name} {
		if path, err := exec.LookPath(candidate); err == nil {
			return path
		}
	}
	Missing(tb, name, debianPackage)
	return "" // unreachable: Missing ends the test
}

// PythonModule returns the path of the Python interpreter that has module, or
// ends the test. Debian's own interpreter is asked first: another one earlier
// in PATH does not see Debian's packages.
func PythonModule(tb testing.TB, module, debianPackage string) string {
	tb.Helper()
	for _, candidate := range []string{"/usr/bin/python3", "python3"} {
		path, err := exec.LookPath(candidate)
		if err != nil {
			continue
		}
		if exec.Command(path, "-c", "import "+module).Run() == nil {
			return path
		}
	}
	Missing(tb, "python module "+module, debianPackage)
	return "" // unreachable: Missing ends the test
}
