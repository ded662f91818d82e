//go:build !linux

package docker

import (
	"errors"
	"syscall"
)

// signalGroup would signal a process of a container.
func signalGroup(int, string, syscall.Signal) error {
	return errors.New("the engine's processes are not this machine's")
}
