// Package listenaddr checks the addresses that commands are told to listen on,
// before anything is opened, and says what to do where one is taken.
package listenaddr

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
)

// Check says what is wrong with the value of a flag that must be host:port.
func Check(flag, value string) error {
	if _, _, err := net.SplitHostPort(value); err != nil {
		return fmt.Errorf("%s must be an address such as 127.0.0.1:8080, got %q", flag, value)
	}
	return nil
}

// Taken adds to an error of listening on an address that another program has
// which flags choose another one. Other errors are left as they are.
func Taken(err error, flags ...string) error {
	if !errors.Is(err, syscall.EADDRINUSE) {
		return err
	}
	return fmt.Errorf("%w; choose another address with %s (port 0 takes a free one)", err, strings.Join(flags, " or "))
}
