//go:build !linux

package modbussim

import (
	"errors"
	"net"
)

func listenPTY(string) (net.Listener, error) {
	return nil, errors.New("simulated serial lines are supported on Linux only")
}
