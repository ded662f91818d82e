//go:build !unix

package modbus

import "net"

// hungUp cannot tell here: the next request finds out.
func hungUp(net.Conn) bool { return false }

// drain cannot look without waiting here: what is late is told by its looks.
func drain(net.Conn) bool { return false }
