//go:build unix

package modbus

import (
	"net"
	"syscall"
)

// hungUp tells whether the other end has closed the connection, without
// waiting and without taking anything from it. A read deadline that has passed
// would make it look so: the caller sets a new one first.
func hungUp(c net.Conn) bool {
	if p, ok := c.(interface{ Gone() bool }); ok { // a serial port knows by itself
		return p.Gone()
	}
	sc, ok := c.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return true
	}
	gone := false
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		gone = n == 0 && err == nil || err != nil && err != syscall.EAGAIN && err != syscall.EINTR
		return true
	})
	return gone || err != nil
}

// drain takes what has come from the connection, without waiting, and tells
// whether the other end has closed it.
func drain(c net.Conn) (gone bool) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return true
	}
	err = raw.Read(func(fd uintptr) bool {
		var b [512]byte
		for {
			n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_DONTWAIT)
			if n > 0 || err == syscall.EINTR {
				continue
			}
			gone = err == nil || err != syscall.EAGAIN
			return true
		}
	})
	return gone || err != nil
}
