// Package listenaddr checks the addresses that commands are told to listen on,
// before anything is opened.
package listenaddr

import (
	"fmt"
	"net"
)

// Check says what is wrong with the value of a flag that must be host:port.
func Check(flag, value string) error {
	if _, _, err := net.SplitHostPort(value); err != nil {
		return fmt.Errorf("%s must be an address such as 127.0.0.1:8080, got %q", flag, value)
	}
	return nil
}
