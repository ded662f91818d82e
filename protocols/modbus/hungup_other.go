//go:build !unix

package modbus

import "net"

// hungUp cannot tell here: the next request finds out.
func hungUp(net.Conn) bool { return false }
