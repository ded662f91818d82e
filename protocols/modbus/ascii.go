package modbus

import (
	"bytes"
	"encoding/hex"
	"fmt"
)

// MaxASCII is the longest ASCII frame: colon, unit, PDU and checksum in two
// characters each, carriage return, line feed.
const MaxASCII = 1 + 2*(1+MaxPDU+1) + 2

// LRC is the checksum of an ASCII frame, over the bytes that it spells (SER
// 6.2.1).
func LRC(b []byte) byte {
	var sum byte
	for _, c := range b {
		sum += c
	}
	return -sum
}

// AppendASCII appends the ASCII frame of a unit's PDU (SER 2.5.2):
//
//	":" unit PDU LRC "\r\n"
//
// with each byte between colon and line end as two hexadecimal digits. It
// fails when the PDU is empty or longer than MaxPDU.
func AppendASCII(b []byte, unit byte, pdu []byte) ([]byte, error) {
	if len(pdu) == 0 || len(pdu) > MaxPDU {
		return b, fmt.Errorf("modbus: a pdu of %d bytes: %w", len(pdu), ErrFrame)
	}
	raw := append(append(make([]byte, 0, MaxPDU+2), unit), pdu...)
	raw = append(raw, LRC(raw))
	b = append(b, ':')
	for _, c := range raw {
		b = append(b, digits[c>>4], digits[c&15])
	}
	return append(b, '\r', '\n'), nil
}

const digits = "0123456789ABCDEF"

// ParseASCII takes a whole ASCII frame apart. Small letters are taken for
// large ones.
func ParseASCII(frame []byte) (unit byte, pdu []byte, err error) {
	text, begins := bytes.CutPrefix(frame, []byte(":"))
	text, ends := bytes.CutSuffix(text, []byte("\r\n"))
	if !begins || !ends || len(frame) > MaxASCII {
		return 0, nil, fmt.Errorf("modbus: %d bytes are no ascii frame, which goes from colon to line end: %w", len(frame), ErrFrame)
	}
	raw := make([]byte, hex.DecodedLen(len(text)))
	if _, err := hex.Decode(raw, text); err != nil {
		return 0, nil, fmt.Errorf("modbus: an ascii frame has an even number of hexadecimal digits: %w", ErrFrame)
	}
	if len(raw) < 3 {
		return 0, nil, fmt.Errorf("modbus: an ascii frame of %d bytes: %w", len(raw), ErrFrame)
	}
	end := len(raw) - 1
	if got, want := raw[end], LRC(raw[:end]); got != want {
		return 0, nil, fmt.Errorf("modbus: lrc %02x instead of %02x: %w", got, want, ErrFrame)
	}
	return raw[0], raw[1:end:end], nil
}

// FindASCII finds the first frame in what was received, whole though perhaps
// not right. It returns nil if there is none yet, and how many bytes of b are
// of no more use. A colon in the midst of a frame begins a new one (SER
// 2.5.2.1).
func FindASCII(b []byte) (frame []byte, used int) {
	end := bytes.IndexByte(b, '\n') + 1
	if end == 0 {
		if at := bytes.LastIndexByte(b, ':'); at >= 0 && len(b)-at < MaxASCII {
			return nil, at
		}
		return nil, len(b)
	}
	at := max(0, bytes.LastIndexByte(b[:end], ':'))
	return b[at:end], end
}

// ascii is Modbus ASCII as a client reads it.
type ascii struct{}

func (ascii) encode(b, adu []byte) ([]byte, error) { return AppendASCII(b, adu[0], adu[1:]) }

func (ascii) size(adu int) int { return 1 + 2*(adu+1) + 2 }

func (ascii) find(b, adu []byte) []byte {
	for {
		frame, used := FindASCII(b)
		if frame == nil {
			return nil
		}
		if unit, pdu, err := ParseASCII(frame); err == nil && unit == adu[0] && fits(adu[1:], pdu) {
			return append([]byte{unit}, pdu...)
		}
		b = b[used:]
	}
}

// take: a line that has ended is a frame, right or wrong.
func (ascii) take(b []byte, silent bool) (adu []byte, used int, err error) {
	frame, used := FindASCII(b)
	if frame == nil {
		if silent && len(b) > 0 {
			return nil, len(b), fmt.Errorf("modbus: an ascii frame without an end: %w", ErrFrame)
		}
		return nil, 0, nil
	}
	unit, pdu, err := ParseASCII(frame)
	if err != nil {
		return nil, used, err
	}
	return append([]byte{unit}, pdu...), used, nil
}
