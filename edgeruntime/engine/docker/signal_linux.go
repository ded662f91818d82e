package docker

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// signalGroup signals the group of a process of a container: a command and what it
// has started. A number that is not of this container, because the engine is on
// another machine say, is left alone.
func signalGroup(pid int, container string, s syscall.Signal) error {
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if errors.Is(err, os.ErrNotExist) {
		return nil // it has ended
	}
	if err != nil {
		return err
	}
	if !strings.Contains(string(groups), container) {
		return errors.New("the engine's processes are not this machine's")
	}
	err = syscall.Kill(-pid, s)
	if errors.Is(err, syscall.ESRCH) { // it leads no group
		err = syscall.Kill(pid, s)
	}
	if errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}
