//go:build failpoint

package failpoint

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

var dir = os.Getenv("WHIMBREL_FAILPOINTS")

// Here is a step of the program.
func Here(step string) {
	if dir == "" {
		return
	}
	path := filepath.Join(dir, step)
	todo, err := os.ReadFile(path)
	if err != nil {
		return
	}
	switch strings.TrimSpace(string(todo)) {
	case "kill":
		if os.Remove(path) != nil {
			return // another goroutine is there already
		}
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "pause":
		if os.Rename(path, path+".reached") != nil {
			return
		}
		for {
			if _, err := os.Stat(path + ".reached"); err != nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}
}
