// Package version knows which Whimbrel this is. Anything may import it.
package version

import (
	"runtime"
	"runtime/debug"
)

// Version is set by the linker in released builds (see the Makefile); a plain
// go build leaves it as it is here.
var Version = "dev"

// String is the one line that `whimbrel version` prints: the version, the
// commit when the toolchain recorded one, and what it was built with and for.
func String() string {
	s := "whimbrel " + Version
	if rev := Revision(); rev != "" {
		s += " (" + rev + ")"
	}
	return s + " " + runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH
}

// Revision is the commit stamped by the toolchain, shortened, or "" for builds
// without version control (a source archive, go build -buildvcs=false).
func Revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	var rev, dirty string
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			rev = s.Value[:min(12, len(s.Value))]
		case "vcs.modified":
			if s.Value == "true" {
				dirty = "+changes"
			}
		}
	}
	if rev == "" {
		return ""
	}
	return rev + dirty
}
