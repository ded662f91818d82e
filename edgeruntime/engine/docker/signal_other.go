//go:build !linux

package docker

import (
	"errors"
	"syscall"
)

// group would be the processes of a command in a container.
type group struct {
	leader    int
	container string
}

func (*group) signal(syscall.Signal) (int, error) {
	return 0, errors.New("the engine's processes are not this machine's")
}
