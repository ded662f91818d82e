package version

import (
	"runtime"
	"strings"
	"testing"
)

func TestStringNamesVersionAndPlatform(t *testing.T) {
	old := Version
	t.Cleanup(func() { Version = old })
	Version = "v1.2.3"

	got := String()
	if !strings.HasPrefix(got, "whimbrel v1.2.3 ") {
		t.Errorf("String() = %q, want it to start with the version", got)
	}
	if !strings.HasSuffix(got, runtime.GOOS+"/"+runtime.GOARCH) {
		t.Errorf("String() = %q, want it to end with the platform", got)
	}
	if strings.Contains(got, "\n") {
		t.Errorf("String() = %q, want one line", got)
	}
}
