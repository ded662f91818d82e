package modbussim

import (
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/protocols/modbus"
	"github.com/whimbrel-edge/whimbrel/protocols/serial"
	"github.com/whimbrel-edge/whimbrel/simulators/ptyline"
)

// endpoint is a listen, taken apart.
type endpoint struct {
	scheme string // tcp, rtutcp, rtu or ascii
	addr   string // host:port; of a pty its path, "" for one of its own
	query  string // of a pty, as it was given
	free   bool   // any that is free will do
	line   serial.Config
}

func (e endpoint) serial() bool { return e.scheme == "rtu" || e.scheme == "ascii" }

// parseEndpoint reads host:port, tcp://host:port, rtutcp://host:port,
// rtu://[/path][?baud=…] or ascii://[/path][?baud=…].
func parseEndpoint(text string) (endpoint, error) {
	scheme, rest, any := strings.Cut(text, "://")
	if !any {
		scheme, rest = "tcp", text
	}
	switch scheme {
	case "tcp", "rtutcp":
		_, port, err := net.SplitHostPort(rest)
		if err != nil {
			return endpoint{}, fmt.Errorf("listen: %w", err)
		}
		return endpoint{scheme: scheme, addr: rest, free: port == "0"}, nil
	case "rtu", "ascii":
		path, query, _ := strings.Cut(rest, "?")
		whole := text
		if path == "" { // any will do; the line's settings are checked all the same
			whole = scheme + ":///pty?" + query
		}
		_, line, err := serial.ParseURL(whole)
		if err != nil {
			return endpoint{}, fmt.Errorf("listen: %w", err)
		}
		e := endpoint{scheme: scheme, query: query, line: line, free: path == ""}
		if path != "" {
			e.addr = line.Device
		}
		return e, nil
	}
	return endpoint{}, fmt.Errorf("listen: %q is not host:port, tcp://host:port, rtutcp://host:port, rtu:///path?baud=9600 or ascii:///path?baud=9600", text)
}

// listen begins to listen at addr, which is e.addr or what was free before.
func (e endpoint) listen(addr string) (net.Listener, error) {
	if e.serial() {
		return ptyline.Listen(addr)
	}
	return net.Listen("tcp", addr)
}

// url is how a device is connected to that listens at addr.
func (e endpoint) url(addr string) string {
	u := url.URL{Scheme: e.scheme, Host: addr}
	if e.serial() {
		u = url.URL{Scheme: e.scheme, Path: addr, RawQuery: e.query}
	}
	return u.String()
}

// wire gives a connection's frames.
func (e endpoint) wire(c net.Conn) wire {
	switch e.scheme {
	case "rtu", "rtutcp":
		return &rtuWire{c: c}
	case "ascii":
		return &asciiWire{c: c}
	}
	return newTCPWire(c)
}

// gap is the silence that ends a frame on the line.
func (e endpoint) gap() time.Duration {
	if e.scheme == "rtu" {
		return modbus.Gap(e.line)
	}
	return 0
}
