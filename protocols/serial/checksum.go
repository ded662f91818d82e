package serial

import (
	"errors"
	"fmt"
)

// Checksum is how a message is protected against characters that arrive wrong.
//
// Over what, with b being the bytes of the message before the checksum:
//
//	xor    all bytes of b, exclusive-ored
//	sum8   all bytes of b, added, the low eight bits
//	crc16  CRC-16/MODBUS of b: polynomial 0x8005 reflected, beginning with
//	       0xFFFF, not inverted; "123456789" gives 0x4B37
//
// How it is written: in messages that end with a terminator as hexadecimal
// digits before it, two for xor and sum8, four for crc16, the high digit first;
// sent in upper case, accepted in either. In messages of a fixed length as bytes
// at the end, one for xor and sum8, two for crc16, the low byte first.
//
// A message that begins with $ or ! and has a terminator is protected by xor as
// NMEA 0183 has it: over what stands between that character and an asterisk
// that comes before the digits, as in "$GPGLL,4916.45,N*24".
type Checksum string

// The checksums.
const (
	NoChecksum Checksum = "none"
	XOR        Checksum = "xor"
	Sum8       Checksum = "sum8"
	CRC16      Checksum = "crc16"
)

// Checksums lists every Checksum in the order documents show them.
var Checksums = []Checksum{NoChecksum, XOR, Sum8, CRC16}

// ErrChecksum says that a message arrived with a checksum that is not its own.
var ErrChecksum = errors.New("serial: the checksum is wrong")

// Of computes the checksum. It has Size bytes.
func (c Checksum) Of(b []byte) uint16 {
	switch c {
	case XOR:
		var x byte
		for _, v := range b {
			x ^= v
		}
		return uint16(x)
	case Sum8:
		var s byte
		for _, v := range b {
			s += v
		}
		return uint16(s)
	case CRC16:
		crc := uint16(0xFFFF)
		for _, v := range b {
			crc ^= uint16(v)
			for range 8 {
				low := crc & 1
				crc >>= 1
				if low != 0 {
					crc ^= 0xA001
				}
			}
		}
		return crc
	}
	return 0
}

// Size is how many bytes the checksum has; as digits it has twice as many.
func (c Checksum) Size() int {
	switch c {
	case XOR, Sum8:
		return 1
	case CRC16:
		return 2
	}
	return 0
}

// appendRaw appends the checksum of b to dst as bytes.
func (c Checksum) appendRaw(dst, b []byte) []byte {
	sum := c.Of(b)
	switch c.Size() {
	case 1:
		return append(dst, byte(sum))
	case 2:
		return append(dst, byte(sum), byte(sum>>8))
	}
	return dst
}

// appendHex appends the checksum of b to dst as digits.
func (c Checksum) appendHex(dst, b []byte) []byte {
	if c.Size() == 0 {
		return dst
	}
	return fmt.Appendf(dst, "%0*X", 2*c.Size(), c.Of(b))
}

// stripRaw takes the bytes of the checksum off b, and checks them.
func (c Checksum) stripRaw(b []byte) ([]byte, error) {
	n := len(b) - c.Size()
	if n < 0 {
		return b, fmt.Errorf("%w: %d bytes have no room for one", ErrChecksum, len(b))
	}
	var got uint16
	for i, v := range b[n:] {
		got |= uint16(v) << (8 * i)
	}
	return b[:n], c.compare(b[:n], got)
}

// stripHex takes the digits of the checksum off b, and checks them.
func (c Checksum) stripHex(b []byte) ([]byte, error) {
	n := len(b) - 2*c.Size()
	if n < 0 {
		return b, fmt.Errorf("%w: %q has no room for one", ErrChecksum, b)
	}
	var got uint16
	for _, v := range b[n:] {
		d, ok := digit(v)
		if !ok {
			return b, fmt.Errorf("%w: %q does not end with %d hexadecimal digits", ErrChecksum, b, 2*c.Size())
		}
		got = got<<4 | uint16(d)
	}
	text := b[:n]
	if c == XOR && nmea(text) {
		if text[n-1] != '*' {
			return text, fmt.Errorf("%w: %q has no * before it", ErrChecksum, b)
		}
		text = text[:n-1]
		return text, c.compare(text[1:], got)
	}
	return text, c.compare(text, got)
}

func (c Checksum) compare(b []byte, got uint16) error {
	if want := c.Of(b); got != want {
		return fmt.Errorf("%w: %0*X, not %0*X", ErrChecksum, 2*c.Size(), got, 2*c.Size(), want)
	}
	return nil
}

// nmea tells messages that begin as those of NMEA 0183.
func nmea(b []byte) bool { return len(b) > 0 && (b[0] == '$' || b[0] == '!') }

func digit(v byte) (byte, bool) {
	switch {
	case v >= '0' && v <= '9':
		return v - '0', true
	case v >= 'A' && v <= 'F':
		return v - 'A' + 10, true
	case v >= 'a' && v <= 'f':
		return v - 'a' + 10, true
	}
	return 0, false
}
