package modbus

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/goburrow/modbus"
)

// codec is how frames look on a serial line. An adu is a unit and its PDU.
type codec interface {
	encode(b, adu []byte) ([]byte, error)
	// size is how many characters an adu of that length takes.
	size(adu int) int
	// find returns the answer to a request in what was received, nil if it is
	// not there (yet).
	find(b, request []byte) (adu []byte)
	// take returns the first frame of what was received and did not hold the
	// answer, or what is wrong with it, and how much of b that was: 0 as long as
	// more may belong to it, which on a silent line it does not.
	take(b []byte, silent bool) (adu []byte, used int, err error)
}

// serialFraming is RTU or ASCII, on a serial line or, then without char, over
// TCP.
type serialFraming struct {
	codec
	char   time.Duration // of one character
	rest   time.Duration // between frames
	settle time.Duration // silence that ends a frame for sure
	late   late
}

// turnaround is how long a line rests after a broadcast, so that every unit
// can carry it out (SER 2.1: 100 to 200 ms).
const turnaround = 100 * time.Millisecond

// What ends a frame. The specification's 3.5 characters hold on the wire; an
// adapter hands on what it got in portions, and so does a network.
const (
	settleRTU   = 100 * time.Millisecond
	settleASCII = time.Second // SER 2.5.2.1 lets that much pass within a frame
	settleTCP   = 300 * time.Millisecond
)

// A packager that leaves the frame to exchange.
type bare struct{ unit byte }

func (b bare) Encode(pdu *modbus.ProtocolDataUnit) ([]byte, error) {
	return append([]byte{b.unit, pdu.FunctionCode}, pdu.Data...), nil
}

func (bare) Decode(adu []byte) (*modbus.ProtocolDataUnit, error) {
	return &modbus.ProtocolDataUnit{FunctionCode: adu[1], Data: adu[2:]}, nil
}

func (bare) Verify(_, _ []byte) error { return nil } // exchange has

func (*serialFraming) packager(unit byte) modbus.Packager { return bare{unit} }

func (*serialFraming) pdu(adu []byte) []byte { return adu[1:] }

func (s *serialFraming) gap() time.Duration { return s.rest }

func (s *serialFraming) wireSize(adu []byte) int { return s.size(len(adu)) }

func (s *serialFraming) wireTime(request []byte) time.Duration {
	return time.Duration(s.size(len(request))+s.size(1+answerLength(request[1:]))) * s.char
}

func (s *serialFraming) unanswered() *late { return &s.late }

// exchange reads until the answer is there, past everything that is not it.
func (s *serialFraming) exchange(c *conn, request []byte) ([]byte, error) {
	frame, err := s.encode(make([]byte, 0, MaxASCII), request)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrProtocol, err)
	}
	if err := drop(c.Conn); err != nil {
		return nil, err
	}
	if _, err := c.Write(frame); err != nil {
		return nil, err
	}
	if request[0] == 0 {
		return s.rested(c, request)
	}
	c.echoed = false
	var room [2 * MaxASCII]byte
	got := room[:0]
	for {
		if len(got) > 0 {
			if err := c.readBy(time.Now().Add(s.settle)); err != nil {
				return nil, err
			}
		}
		n, err := c.Read(room[len(got):])
		got = room[:len(got)+n]
		silent := err != nil && isTimeout(err) && len(got) > 0 && c.ctx.Err() == nil
		if n > 0 {
			got = withoutEcho(c, got, frame, request)
			if answer := s.find(got, request); answer != nil {
				return answer, nil
			}
		} else if err != nil && !silent {
			return nil, cutShort(err, len(got))
		}
		for {
			adu, used, wrong := s.take(got, silent || len(got) == len(room))
			if used == 0 {
				break
			}
			if wrong != nil {
				return nil, fmt.Errorf("%w: %s: % x", ErrProtocol, inFrame(wrong), head(got))
			}
			if adu[0] == request[0] && !s.late.arrived(adu) {
				return nil, fmt.Errorf("%w: %v", ErrProtocol, checkAnswer(request[1:], adu[1:]))
			}
			// Another unit's, or late: the answer is yet to come.
			s.late.arrived(adu)
			if c.heard = "a late answer to an earlier request came"; adu[0] != request[0] {
				c.heard = fmt.Sprintf("an answer of unit %d came", adu[0])
			}
			got = room[:copy(room[:], got[used:])]
		}
		if silent {
			// The rest of the time is for the answer.
			if err := c.readBy(c.by); err != nil {
				return nil, err
			}
		}
	}
}

// withoutEcho cuts off what was sent, where an adapter hears itself. Only
// reads tell whether it does, as the answer to some writes looks just like
// them.
func withoutEcho(c *conn, got, frame, request []byte) []byte {
	whole := bytes.HasPrefix(got, frame)
	switch {
	case c.echoed: // in this exchange already
		return got
	case whole && !Function(request[1]).Writes():
		c.echoes = true
	case !c.echoes:
		return got
	case !whole && bytes.HasPrefix(frame, got): // the rest of it is to come
		return got
	case !whole:
		c.echoes = false
		return got
	}
	c.echoed = true
	return got[:copy(got, got[len(frame):])]
}

// rested waits until a broadcast, which nobody answers, must have been carried
// out.
func (s *serialFraming) rested(c *conn, request []byte) ([]byte, error) {
	if err := c.readBy(time.Now().Add(s.wireTime(request) + turnaround)); err != nil {
		return nil, err
	}
	var b [64]byte
	for {
		if _, err := c.Read(b[:]); err != nil {
			if isTimeout(err) {
				return append([]byte(nil), request[:6]...), nil // what goburrow's client takes for done
			}
			return nil, err
		}
	}
}

// drop throws away what has come since the last answer: nobody has asked for
// it.
func drop(c net.Conn) error {
	if f, ok := c.(interface{ Flush() error }); ok {
		return f.Flush()
	}
	if drain(c) {
		return io.EOF
	}
	return nil
}
