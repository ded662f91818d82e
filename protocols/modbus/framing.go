package modbus

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/goburrow/modbus"
)

// framing is how a PDU travels on a kind of line. The line's order, deadlines,
// counters and error rules are the same for all. The line calls one method at a
// time, but for packager and unanswered.
type framing interface {
	// packager gives what goburrow's client wraps PDUs of a unit with.
	packager(unit byte) modbus.Packager
	// exchange writes the request and reads until its answer is there, and
	// returns that in a slice of its own. The deadline is on the connection. An
	// error of the connection is returned as it is, anything else wraps
	// ErrProtocol.
	exchange(c *conn, request []byte) (answer []byte, err error)
	// pdu is the part of a request or answer that checkAnswer looks at.
	pdu(frame []byte) []byte
	// gap is how long the line must rest between two frames.
	gap() time.Duration
	// wireTime is how long a request and its answer travel, and wireSize how
	// many bytes one of them is on the wire.
	wireTime(request []byte) time.Duration
	wireSize(frame []byte) int
	// unanswered is nil where every frame tells what it answers.
	unanswered() *late
}

// conn is a connection and what was read from it ahead.
type conn struct {
	net.Conn
	in *bufio.Reader // of mbap

	// Of the exchange under way.
	ctx  context.Context
	by   time.Time // its deadline
	seen *Exchange // to fill in, nil while nobody taps it
	// heard is what came instead of the answer, for people: a line that says
	// nothing and one that says the wrong thing are mended in different places.
	heard string

	// Of serialFraming.
	echoes bool // what is sent comes back first
	echoed bool // and has, in the exchange under way
}

// readBy sets a deadline for reading, but none after the exchange's.
func (c *conn) readBy(t time.Time) error {
	if c.by.Before(t) {
		t = c.by
	}
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	if c.ctx.Err() != nil { // its own deadline may just have been replaced
		return c.SetReadDeadline(longAgo)
	}
	return nil
}

var longAgo = time.Unix(1, 0)

// mbap is Modbus TCP.
type mbap struct {
	transaction uint16
}

// A packager of goburrow's is the handler itself: only its Encode, Verify and
// Decode are used, its transport never.
func (*mbap) packager(unit byte) modbus.Packager {
	h := &modbus.TCPClientHandler{}
	h.SlaveId = unit
	return h
}

func (*mbap) pdu(frame []byte) []byte { return frame[headerSize:] }

func (*mbap) gap() time.Duration            { return 0 }
func (*mbap) wireTime([]byte) time.Duration { return 0 }
func (*mbap) wireSize(frame []byte) int     { return len(frame) }
func (*mbap) unanswered() *late             { return nil }

func (m *mbap) exchange(c *conn, request []byte) ([]byte, error) {
	// The line numbers its requests itself: the packagers of several units each
	// count on their own, and two of the same number on one connection would
	// hide a late answer.
	m.transaction++
	asked := binary.BigEndian.Uint16(request)
	binary.BigEndian.PutUint16(request, m.transaction)
	defer binary.BigEndian.PutUint16(request, asked)
	if _, err := c.Write(request); err != nil {
		return nil, err
	}
	for {
		header, err := c.in.Peek(headerSize)
		if err != nil {
			c.part(len(header))
			return nil, cutShort(err, len(header))
		}
		size, err := frameSize(header)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: % x", ErrProtocol, inFrame(err), header)
		}
		frame := make([]byte, size)
		if n, err := io.ReadFull(c.in, frame); err != nil {
			c.part(n)
			return nil, cutShort(err, n)
		}
		got := binary.BigEndian.Uint16(frame)
		// The number wraps, so "older" is within the half circle behind.
		if age := int16(m.transaction - got); age > 0 {
			// Late, or of a device that does not copy the number.
			c.heard = fmt.Sprintf("an answer with the transaction id of an earlier request came (%d instead of %d)", got, m.transaction)
			continue
		} else if age < 0 {
			return nil, fmt.Errorf("%w: answer to transaction %d, which was never asked", ErrProtocol, got)
		}
		if frame[6] != request[6] {
			return nil, fmt.Errorf("%w: answer from unit %d, asked unit %d", ErrProtocol, frame[6], request[6])
		}
		binary.BigEndian.PutUint16(frame, asked)
		return frame, nil
	}
}

// part notes that a part of a frame came, and not the rest.
func (c *conn) part(have int) {
	if have > 0 {
		c.heard = fmt.Sprintf("only the first %d bytes of an answer came", have)
	}
}

// cutShort tells a connection that ends between frames from one that ends
// inside a frame, which is not how a device hangs up.
func cutShort(err error, have int) error {
	if have > 0 && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)) {
		return fmt.Errorf("%w: the connection ended inside a frame", ErrProtocol)
	}
	return err
}
