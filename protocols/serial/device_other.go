//go:build !linux

package serial

import "errors"

func openDevice(Config) (device, error) {
	return nil, errors.New("serial ports are supported on Linux only")
}
