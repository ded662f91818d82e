package serial

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// MaxMessage is the longest message, with checksum and terminator.
const MaxMessage = 4096

// maxTerminator is the longest terminator.
const maxTerminator = 16

// ErrTooLong says that more bytes came than a message may have, and no
// terminator.
var ErrTooLong = errors.New("serial: no terminator within the longest message")

// Framing says where a message ends and how it is protected.
type Framing struct {
	// Terminator ends every message of either side. It is empty when Length is
	// given.
	Terminator string
	// Length is how many bytes every message of the device has, the checksum
	// among them. Messages to the device then have no terminator, and any length.
	Length   int
	Checksum Checksum
}

// Check tells what is wrong with a Framing.
func (f Framing) Check() error {
	switch {
	case f.Length == 0 && f.Terminator == "":
		return errors.New("serial: a message needs a terminator or a length")
	case f.Length != 0 && f.Terminator != "":
		return errors.New("serial: a message has a terminator or a length, not both")
	case len(f.Terminator) > maxTerminator:
		return fmt.Errorf("serial: a terminator of %d bytes is longer than %d", len(f.Terminator), maxTerminator)
	case !slices.Contains(Checksums, f.Checksum):
		return fmt.Errorf("serial: checksum %q is not one of %s, %s, %s, %s", string(f.Checksum), NoChecksum, XOR, Sum8, CRC16)
	case f.Length < 0 || f.Length > MaxMessage:
		return fmt.Errorf("serial: length %d is not within 1 to %d", f.Length, MaxMessage)
	case f.Length != 0 && f.Length <= f.Checksum.Size():
		return fmt.Errorf("serial: length %d leaves nothing beside the checksum", f.Length)
	}
	return nil
}

// Append appends the message that carries text: with its checksum, and its
// terminator where there is one.
func (f Framing) Append(dst, text []byte) []byte {
	dst = append(dst, text...)
	switch {
	case f.Length > 0:
		return f.Checksum.appendRaw(dst, text)
	case f.Checksum == XOR && nmea(text):
		dst = f.Checksum.appendHex(append(dst, '*'), text[1:])
	default:
		dst = f.Checksum.appendHex(dst, text)
	}
	return append(dst, f.Terminator...)
}

// Text takes a message that a Splitter has found apart and returns its text,
// which lies in the message. With ErrChecksum the text is what it would have
// been, as far as that can be told.
func (f Framing) Text(message []byte) ([]byte, error) {
	if f.Length > 0 {
		return f.Checksum.stripRaw(message)
	}
	return f.Checksum.stripHex(message)
}

// Splitter finds the messages in a stream of bytes. It keeps at most
// MaxMessage bytes: when no message ends within that many they are dropped.
type Splitter struct {
	framing Framing
	buf     []byte
	lost    bool // in the middle of what is too long: it goes up to a terminator
}

// NewSplitter returns a Splitter that has seen nothing. The Framing has passed
// its Check.
func NewSplitter(f Framing) *Splitter { return &Splitter{framing: f} }

// Feed takes bytes in and calls found for every message that ends in them,
// without its terminator. A message with a terminator loses carriage returns
// and line feeds before it, so that "\r" also splits what "\r\n" ends, and is
// left out when nothing remains. found gets ErrTooLong and no message once for
// each that is too long. It may keep a message only until it returns, and
// stops Feed by returning false: what follows waits for the next call.
func (s *Splitter) Feed(b []byte, found func(message []byte, err error) bool) {
	s.buf = append(s.buf, b...)
	from := 0
	for more := true; more; {
		message, n := s.next(s.buf[from:])
		if n == 0 {
			break
		}
		from += n
		switch {
		case s.lost:
			s.lost = false // its rest
		case message != nil:
			more = found(message, nil)
		}
	}
	s.buf = append(s.buf[:0], s.buf[from:]...)
	if s.framing.Length == 0 && len(s.buf) > MaxMessage {
		// The end may hold the beginning of the terminator.
		keep := len(s.framing.Terminator) - 1
		s.buf = append(s.buf[:0], s.buf[len(s.buf)-keep:]...)
		if !s.lost {
			s.lost = true
			found(nil, ErrTooLong)
		}
	}
}

// next finds the first message, nil for one that is to be left out, and how
// many bytes it takes with its terminator; 0 when none ends.
func (s *Splitter) next(b []byte) (message []byte, n int) {
	if l := s.framing.Length; l > 0 {
		if len(b) < l {
			return nil, 0
		}
		return b[:l], l
	}
	at := bytes.Index(b, []byte(s.framing.Terminator))
	if at < 0 {
		return nil, 0
	}
	n = at + len(s.framing.Terminator)
	message = bytes.TrimLeft(b[:at], "\r\n")
	if len(message) == 0 {
		return nil, n
	}
	return message, n
}

// Pending is how many bytes of a message have come that has not ended.
func (s *Splitter) Pending() int {
	if s.framing.Length > 0 {
		return len(s.buf)
	}
	return len(strings.TrimLeft(string(s.buf), "\r\n"))
}

// Reset forgets what has come.
func (s *Splitter) Reset() { s.buf, s.lost = s.buf[:0], false }
