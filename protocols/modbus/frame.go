package modbus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Sizes of a frame on TCP (APS 4.1, MIG 3.1.3).
const (
	MaxPDU     = 253
	headerSize = 7 // the MBAP header: transaction, protocol, length, unit
	MaxFrame   = headerSize + MaxPDU
)

// Frame is one request or answer on TCP (MIG 3.1).
//
//	0           2           4           6      7
//	+-----------+-----------+-----------+------+-----------
//	|transaction|protocol 0 |length     |unit  |PDU ...
//	+-----------+-----------+-----------+------+-----------
//
// all big-endian; length counts from the unit on.
type Frame struct {
	Transaction uint16
	Unit        byte
	PDU         []byte // the function code and its data
}

// ErrFrame says that bytes are no Modbus frame. Nothing after them on the same
// connection can be trusted.
var ErrFrame = errors.New("malformed frame")

// inFrame is what an error with ErrFrame says, without the words that all have.
func inFrame(err error) string {
	return strings.TrimPrefix(err.Error(), "modbus: ")
}

// Append appends the frame's bytes to b. It fails when the PDU is empty or
// longer than MaxPDU.
func (f Frame) Append(b []byte) ([]byte, error) {
	if len(f.PDU) == 0 || len(f.PDU) > MaxPDU {
		return b, fmt.Errorf("modbus: a pdu of %d bytes: %w", len(f.PDU), ErrFrame)
	}
	b = binary.BigEndian.AppendUint16(b, f.Transaction)
	b = append(b, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(1+len(f.PDU)))
	b = append(b, f.Unit)
	return append(b, f.PDU...), nil
}

// ParseFrame reads the frame that b begins with and tells how many bytes it
// took; 0 when b holds only the beginning of a frame. The PDU aliases b.
func ParseFrame(b []byte) (Frame, int, error) {
	if len(b) < headerSize {
		return Frame{}, 0, nil
	}
	size, err := frameSize(b)
	if err != nil || len(b) < size {
		return Frame{}, 0, err
	}
	return Frame{
		Transaction: binary.BigEndian.Uint16(b),
		Unit:        b[6],
		PDU:         b[headerSize:size:size],
	}, size, nil
}

// frameSize is the length of the whole frame with this header.
func frameSize(header []byte) (int, error) {
	if p := binary.BigEndian.Uint16(header[2:]); p != 0 {
		return 0, fmt.Errorf("modbus: protocol identifier %d instead of 0: %w", p, ErrFrame)
	}
	n := int(binary.BigEndian.Uint16(header[4:]))
	if n < 2 || n > 1+MaxPDU {
		return 0, fmt.Errorf("modbus: length %d in the header: %w", n, ErrFrame)
	}
	return headerSize - 1 + n, nil
}

// ReadFrame reads exactly one frame into buf. The PDU aliases buf. At a clean
// end before the first byte the error is io.EOF, inside a frame
// io.ErrUnexpectedEOF.
func ReadFrame(r io.Reader, buf *[MaxFrame]byte) (Frame, error) {
	if _, err := io.ReadFull(r, buf[:headerSize]); err != nil {
		return Frame{}, err
	}
	size, err := frameSize(buf[:headerSize])
	if err != nil {
		return Frame{}, err
	}
	if _, err := io.ReadFull(r, buf[headerSize:size]); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return Frame{}, err
	}
	f, _, err := ParseFrame(buf[:size])
	return f, err
}
