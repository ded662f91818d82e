//go:build !linux

package ptyline

import (
	"errors"
	"net"
)

// Listen is not there on this system.
func Listen(string) (net.Listener, error) {
	return nil, errors.New("simulated serial lines are supported on Linux only")
}
