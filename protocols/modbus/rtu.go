package modbus

import (
	"encoding/binary"
	"fmt"
)

// MaxRTU is the longest RTU frame: unit, PDU, checksum.
const MaxRTU = 1 + MaxPDU + 2

// CRC is the checksum of an RTU frame (SER 6.2.2). It travels low byte first.
func CRC(b []byte) uint16 {
	crc := uint16(0xffff)
	for _, c := range b {
		crc = crc>>8 ^ crcTable[byte(crc)^c]
	}
	return crc
}

var crcTable = func() (t [256]uint16) {
	for i := range t {
		v := uint16(i)
		for range 8 {
			if v&1 != 0 {
				v = v>>1 ^ 0xa001
			} else {
				v >>= 1
			}
		}
		t[i] = v
	}
	return t
}()

// AppendRTU appends the RTU frame of a unit's PDU (SER 2.5.1):
//
//	+------+---------+------------------+
//	|unit  |PDU ...  |CRC, low byte first|
//	+------+---------+------------------+
//
// It fails when the PDU is empty or longer than MaxPDU.
func AppendRTU(b []byte, unit byte, pdu []byte) ([]byte, error) {
	if len(pdu) == 0 || len(pdu) > MaxPDU {
		return b, fmt.Errorf("modbus: a pdu of %d bytes: %w", len(pdu), ErrFrame)
	}
	start := len(b)
	b = append(append(b, unit), pdu...)
	return binary.LittleEndian.AppendUint16(b, CRC(b[start:])), nil
}

// ParseRTU takes a whole RTU frame apart. The PDU aliases it.
func ParseRTU(frame []byte) (unit byte, pdu []byte, err error) {
	if len(frame) < 4 || len(frame) > MaxRTU {
		return 0, nil, fmt.Errorf("modbus: an rtu frame of %d bytes: %w", len(frame), ErrFrame)
	}
	end := len(frame) - 2
	if got, want := binary.LittleEndian.Uint16(frame[end:]), CRC(frame[:end]); got != want {
		return 0, nil, fmt.Errorf("modbus: crc %04x instead of %04x: %w", got, want, ErrFrame)
	}
	return frame[0], frame[1:end:end], nil
}

// FindRTURequest finds the first whole request in what a server has received,
// whatever noise is before it: a frame on a serial line says neither where it
// begins nor how long it is. It returns the request's frame, nil if there is
// none yet, and how many bytes of b are of no more use. Once the line is silent
// nothing more belongs to b: then all of it may also be one request of a
// function that is not known here, and none of it is of use any more.
func FindRTURequest(b []byte, silent bool) (frame []byte, used int) {
	for at := range b {
		rest := b[at:]
		size := rtuRequestSize(rest)
		if size <= 0 || size > len(rest) {
			continue
		}
		if _, _, err := ParseRTU(rest[:size]); err == nil {
			return rest[:size], at + size
		}
	}
	if !silent {
		return nil, 0
	}
	if _, _, err := ParseRTU(b); err == nil {
		return b, len(b)
	}
	return nil, len(b)
}

// rtuRequestSize is the length of the request that b begins with; 0 when that
// cannot be told yet, -1 when it is none of those listed in pdu.go.
func rtuRequestSize(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch Function(b[1]) {
	case ReadCoils, ReadDiscrete, ReadHolding, ReadInput, WriteOneCoil, WriteOneRegister:
		return 8
	case WriteManyCoils, WriteManyRegisters:
		if len(b) < 7 {
			return 0
		}
		if size := 9 + int(b[6]); size <= MaxRTU {
			return size
		}
	}
	return -1
}

// answerSize is how long the answer with these first bytes is, from its unit
// on and without a checksum: 0 when that cannot be told yet, -1 when the
// function is none of those listed in pdu.go.
func answerSize(b []byte) int {
	if len(b) < 3 {
		return 0
	}
	f := Function(b[1])
	switch {
	case b[1]&exceptionBit != 0:
		return 3
	case f.Table() == 0:
		return -1
	case f.Writes():
		return 6
	}
	return 3 + int(b[2])
}

// rtu is Modbus RTU as a client reads it.
type rtu struct{}

func (rtu) encode(b, adu []byte) ([]byte, error) { return AppendRTU(b, adu[0], adu[1:]) }

func (rtu) size(adu int) int { return adu + 2 }

// find looks at every place where the answer might begin, so that noise, an
// echo or a late answer before it does no harm.
func (rtu) find(b, adu []byte) []byte {
	for at := range b {
		rest := b[at:]
		if len(rest) < 5 {
			return nil
		}
		if rest[0] != adu[0] || rest[1]&^exceptionBit != adu[1] {
			continue
		}
		size := answerSize(rest) + 2
		if size < 3 || size > len(rest) {
			continue
		}
		if unit, pdu, err := ParseRTU(rest[:size]); err == nil && fits(adu[1:], pdu) {
			return append([]byte{unit}, pdu...)
		}
	}
	return nil
}

// take: a frame ends with silence, so nothing can be said before that.
func (rtu) take(b []byte, silent bool) (adu []byte, used int, err error) {
	if !silent || len(b) == 0 {
		return nil, 0, nil
	}
	if size := answerSize(b) + 2; size > 2 && size < len(b) { // more than one
		if unit, pdu, err := ParseRTU(b[:size]); err == nil {
			return append([]byte{unit}, pdu...), size, nil
		}
	}
	unit, pdu, err := ParseRTU(b)
	if size := answerSize(b) + 2; err != nil && size > len(b) {
		err = fmt.Errorf("modbus: %d of %d bytes, and then silence: %w", len(b), size, ErrFrame)
	}
	if err != nil {
		return nil, len(b), err
	}
	return append([]byte{unit}, pdu...), len(b), nil
}
