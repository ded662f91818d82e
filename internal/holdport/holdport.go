// Package holdport keeps a loopback TCP port for tests in which a server goes
// away and comes back at the same address. Binding port 0 twice does not do:
// between the two, the kernel may hand the port to any connection on the
// machine. Imported by tests and test tools only; Linux only.
package holdport

import (
	"fmt"
	"net"
	"strconv"
	"syscall"
)

// A Port is a TCP port on 127.0.0.1 that the kernel gives to nobody else. While
// nothing listens on it, connections to it are refused.
type Port struct {
	fd     int
	number int
}

// Hold reserves a free port until Close.
//
// The reservation is a socket that is bound and never listens, with
// SO_REUSEADDR. Linux lets another socket with that option (net.Listen and
// Postgres both set it) bind the port and listen on it, but never picks a port
// with such a socket on its own, neither for port 0 nor for an outgoing
// connection.
func Hold() (*Port, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("hold port: socket: %w", err)
	}
	number, err := bind(fd)
	if err != nil {
		_ = syscall.Close(fd) // the error that matters is the one before
		return nil, fmt.Errorf("hold port: %w", err)
	}
	return &Port{fd: fd, number: number}, nil
}

func bind(fd int) (int, error) {
	loopback := &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	if err := syscall.Bind(fd, loopback); err != nil {
		return 0, fmt.Errorf("bind: %w", err)
	}
	// Only after bind: an earlier SO_REUSEADDR would let the kernel choose a
	// port that another holder has.
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return 0, fmt.Errorf("reuse address: %w", err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		return 0, fmt.Errorf("socket name: %w", err)
	}
	return name.(*syscall.SockaddrInet4).Port, nil
}

// Number is the port.
func (p *Port) Number() int { return p.number }

// Addr is the port as host:port.
func (p *Port) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.number)) }

// Listen listens on the port. Closing the listener leaves the port held.
func (p *Port) Listen() (net.Listener, error) {
	return net.Listen("tcp4", p.Addr())
}

// Close gives the port back. It must be called once.
func (p *Port) Close() error {
	if err := syscall.Close(p.fd); err != nil {
		return fmt.Errorf("release port %d: %w", p.number, err)
	}
	return nil
}
