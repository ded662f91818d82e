package modbussim

import (
	"bufio"
	"errors"
	"net"
	"os"
	"time"

	"github.com/whimbrel-edge/whimbrel/protocols/modbus"
)

// wire is the frames of one connection. Transactions are 0 where frames have
// none.
type wire interface {
	// next waits for a request. Its PDU is good until the next call. size is
	// how many bytes it took.
	next() (f modbus.Frame, size int, err error)
	append(b []byte, f modbus.Frame) ([]byte, error)
}

type tcpWire struct {
	r  *bufio.Reader
	in [modbus.MaxFrame]byte
}

func newTCPWire(c net.Conn) *tcpWire {
	return &tcpWire{r: bufio.NewReaderSize(c, 2*modbus.MaxFrame)}
}

func (w *tcpWire) next() (modbus.Frame, int, error) {
	f, err := modbus.ReadFrame(w.r, &w.in)
	return f, len(f.PDU) + modbus.MaxFrame - modbus.MaxPDU, err
}

func (*tcpWire) append(b []byte, f modbus.Frame) ([]byte, error) { return f.Append(b) }

// silence ends an RTU frame that cannot be told to be whole by its looks, and
// what was left of a broken one. Ptys and networks have no 3.5 characters.
const silence = 50 * time.Millisecond

type rtuWire struct {
	c    net.Conn
	in   [2 * modbus.MaxRTU]byte
	have int // bytes in in
	used int // of them, by the frame that next returned
}

func (w *rtuWire) next() (modbus.Frame, int, error) {
	silent := false
	for {
		w.have, w.used = copy(w.in[:], w.in[w.used:w.have]), 0
		over := silent || w.have == len(w.in)
		frame, used := modbus.FindRTURequest(w.in[:w.have], over)
		if frame != nil {
			w.used = used
			unit, pdu, err := modbus.ParseRTU(frame)
			return modbus.Frame{Unit: unit, PDU: pdu}, len(frame), err
		}
		// What looks like noise stays until there is silence: it may turn out to
		// be a request of an unknown function.
		by := time.Now().Add(silence)
		if over || w.have == 0 {
			w.have, by = 0, time.Time{}
		}
		if err := w.c.SetReadDeadline(by); err != nil {
			return modbus.Frame{}, 0, err
		}
		n, err := w.c.Read(w.in[w.have:])
		w.have += n
		silent = n == 0 && errors.Is(err, os.ErrDeadlineExceeded)
		if err != nil && !silent {
			return modbus.Frame{}, 0, err
		}
	}
}

func (*rtuWire) append(b []byte, f modbus.Frame) ([]byte, error) {
	return modbus.AppendRTU(b, f.Unit, f.PDU)
}

type asciiWire struct {
	c    net.Conn
	in   [2 * modbus.MaxASCII]byte
	have int
}

func (w *asciiWire) next() (modbus.Frame, int, error) {
	for {
		frame, used := modbus.FindASCII(w.in[:w.have])
		unit, pdu, err := byte(0), []byte(nil), error(nil)
		if frame != nil {
			unit, pdu, err = modbus.ParseASCII(frame)
		}
		w.have = copy(w.in[:], w.in[used:w.have]) // the PDU is a copy
		if frame != nil {
			if err != nil {
				continue // nobody answers a broken frame
			}
			return modbus.Frame{Unit: unit, PDU: pdu}, len(frame), nil
		}
		n, err := w.c.Read(w.in[w.have:])
		w.have += n
		if err != nil {
			return modbus.Frame{}, 0, err
		}
	}
}

func (*asciiWire) append(b []byte, f modbus.Frame) ([]byte, error) {
	return modbus.AppendASCII(b, f.Unit, f.PDU)
}
