package modbus

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// serialFrames is the corpus of RTU and ASCII frames that parsing, appending,
// finding in streams and fuzzing share.
var serialFrames = []struct {
	name  string
	ascii bool
	bytes string
	unit  byte
	pdu   string
	err   error
	// lax frames are read and would be written otherwise.
	lax bool
}{
	{name: "rtu read request", bytes: "\x01\x03\x00\x00\x00\x0a\xc5\xcd", unit: 1, pdu: "\x03\x00\x00\x00\x0a"},
	{name: "rtu read answer", bytes: "\x11\x03\x06\xae\x41\x56\x52\x43\x40\x49\xad", unit: 0x11, pdu: "\x03\x06\xae\x41\x56\x52\x43\x40"},
	{name: "rtu write request", bytes: "\x11\x10\x00\x01\x00\x02\x04\x00\x0a\x01\x02\xc6\xf0", unit: 0x11, pdu: "\x10\x00\x01\x00\x02\x04\x00\x0a\x01\x02"},
	{name: "rtu exception", bytes: "\x0a\x81\x02\xb0\x53", unit: 10, pdu: "\x81\x02"},
	{name: "rtu shortest", bytes: "\x02\x07\x41\x12", unit: 2, pdu: "\x07"},
	{name: "rtu wrong crc", bytes: "\x01\x03\x00\x00\x00\x0a\xc5\xcc", err: ErrFrame},
	{name: "rtu crc high byte first", bytes: "\x01\x03\x00\x00\x00\x0a\xcd\xc5", err: ErrFrame},
	{name: "rtu nothing", err: ErrFrame},
	{name: "rtu no pdu", bytes: "\x01\x7e\x80", err: ErrFrame},
	{name: "rtu too long", bytes: strings.Repeat("\x00", MaxRTU+1), err: ErrFrame},
	{name: "ascii read request", ascii: true, bytes: ":010300000001FB\r\n", unit: 1, pdu: "\x03\x00\x00\x00\x01"},
	{name: "ascii read answer", ascii: true, bytes: ":1103060001000200 03D0\r\n", err: ErrFrame},
	{name: "ascii write request", ascii: true, bytes: ":110600010003E5\r\n", unit: 0x11, pdu: "\x06\x00\x01\x00\x03"},
	{name: "ascii exception", ascii: true, bytes: ":0181027C\r\n", unit: 1, pdu: "\x81\x02"},
	{name: "ascii small letters", ascii: true, bytes: ":010300000001fb\r\n", unit: 1, pdu: "\x03\x00\x00\x00\x01", lax: true},
	{name: "ascii wrong lrc", ascii: true, bytes: ":010300000001FC\r\n", err: ErrFrame},
	{name: "ascii half a byte", ascii: true, bytes: ":010300000001F\r\n", err: ErrFrame},
	{name: "ascii no digit", ascii: true, bytes: ":0103000000G1FB\r\n", err: ErrFrame},
	{name: "ascii line feed alone", ascii: true, bytes: ":010300000001FB\n", err: ErrFrame},
	{name: "ascii no colon", ascii: true, bytes: "010300000001FB\r\n", err: ErrFrame},
	{name: "ascii nothing", ascii: true, bytes: ":\r\n", err: ErrFrame},
	{name: "ascii no pdu", ascii: true, bytes: ":01FF\r\n", err: ErrFrame},
	{name: "ascii too long", ascii: true, bytes: ":" + strings.Repeat("0", MaxASCII) + "\r\n", err: ErrFrame},
}

func parseSerial(ascii bool, b []byte) (byte, []byte, error) {
	if ascii {
		return ParseASCII(b)
	}
	return ParseRTU(b)
}

func appendSerial(ascii bool, b []byte, unit byte, pdu []byte) ([]byte, error) {
	if ascii {
		return AppendASCII(b, unit, pdu)
	}
	return AppendRTU(b, unit, pdu)
}

func TestSerialFrames(t *testing.T) {
	for _, c := range serialFrames {
		unit, pdu, err := parseSerial(c.ascii, []byte(c.bytes))
		if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) || unit != c.unit || string(pdu) != c.pdu {
			t.Errorf("%s: unit %d, % x, %v", c.name, unit, pdu, err)
			continue
		}
		if c.err != nil {
			continue
		}
		back, err := appendSerial(c.ascii, []byte("before"), unit, pdu)
		if err != nil || !c.lax && string(back) != "before"+c.bytes {
			t.Errorf("%s: appended % x, %v", c.name, back, err)
		}
	}
	for _, ascii := range []bool{false, true} {
		for _, n := range []int{0, MaxPDU + 1} {
			if b, err := appendSerial(ascii, []byte("x"), 1, make([]byte, n)); !errors.Is(err, ErrFrame) || string(b) != "x" {
				t.Errorf("a pdu of %d bytes: % x, %v", n, b, err)
			}
		}
		most := MaxRTU
		if ascii {
			most = MaxASCII
		}
		if b, err := appendSerial(ascii, nil, 1, make([]byte, MaxPDU)); err != nil || len(b) != most {
			t.Errorf("the longest pdu: %d bytes, %v", len(b), err)
		}
	}
}

// serverStream finds the requests in what a server receives in portions, with
// silence at the end.
func serverStream(ascii bool, portions ...[]byte) (found []string) {
	var have []byte
	look := func(silent bool) {
		for {
			var frame []byte
			var used int
			if ascii {
				frame, used = FindASCII(have)
			} else {
				frame, used = FindRTURequest(have, silent)
			}
			if frame != nil {
				if unit, pdu, err := parseSerial(ascii, frame); err == nil {
					found = append(found, string(append([]byte{unit}, pdu...)))
				}
			}
			have = have[used:]
			if frame == nil {
				return
			}
		}
	}
	for _, p := range portions {
		have = append(have, p...)
		look(false)
	}
	look(true)
	return found
}

func TestRequestsInStreams(t *testing.T) {
	rtu := func(unit byte, pdu string) string {
		b, _ := AppendRTU(nil, unit, []byte(pdu))
		return string(b)
	}
	asc := func(unit byte, pdu string) string {
		b, _ := AppendASCII(nil, unit, []byte(pdu))
		return string(b)
	}
	const read, write = "\x03\x00\x00\x00\x0a", "\x10\x00\x01\x00\x02\x04\x00\x0a\x01\x02"
	for _, c := range []struct {
		name   string
		ascii  bool
		stream string
		want   []string
	}{
		{"one", false, rtu(1, read), []string{"\x01" + read}},
		{"two", false, rtu(1, read) + rtu(2, write), []string{"\x01" + read, "\x02" + write}},
		{"noise before", false, "\x00\xff\x01\x03" + rtu(1, read), []string{"\x01" + read}},
		{"a broken one before", false, rtu(1, read)[:7] + rtu(2, write), []string{"\x02" + write}},
		{"a wrong one before", false, "\x01\x03\x00\x00\x00\x0a\xc5\xcc" + rtu(1, read), []string{"\x01" + read}},
		{"only the beginning", false, rtu(1, write)[:9], nil},
		{"ascii", true, asc(1, read) + asc(2, write), []string{"\x01" + read, "\x02" + write}},
		{"ascii, noise before", true, "\x00\xff\r\n01" + asc(1, read), []string{"\x01" + read}},
		{"ascii, broken by a colon", true, asc(1, read)[:9] + asc(2, write), []string{"\x02" + write}},
		{"ascii, a wrong one before", true, ":0103000000010A\r\n" + asc(2, write), []string{"\x02" + write}},
		{"ascii, only the beginning", true, asc(1, write)[:9], nil},
	} {
		b := []byte(c.stream)
		var single [][]byte
		for i := range b {
			single = append(single, b[i:i+1])
		}
		for how, portions := range map[string][][]byte{"whole": {b}, "in halves": {b[:len(b)/2], b[len(b)/2:]}, "byte by byte": single} {
			got := serverStream(c.ascii, portions...)
			if strings.Join(got, "|") != strings.Join(c.want, "|") {
				t.Errorf("%s %s: %q, want %q", c.name, how, got, c.want)
			}
		}
	}
	// A function that is not known here shows by the silence behind it.
	if got := serverStream(false, []byte(rtu(1, "\x2b\x0e\x01\x00"))); len(got) != 1 || got[0] != "\x01\x2b\x0e\x01\x00" {
		t.Errorf("unknown function: %q", got)
	}
}

// FuzzSerialFrame: what is parsed is what would be sent, no stream is too odd to
// be searched, and what is found in it is right.
func FuzzSerialFrame(f *testing.F) {
	for _, c := range serialFrames {
		f.Add([]byte(c.bytes), c.ascii)
	}
	request := []byte{1, 3, 0, 0, 0, 2}
	f.Add([]byte("\x00\x01\x03\x04\x00\x01\x00\x02\x2a\x32"), false)
	f.Fuzz(func(t *testing.T, b []byte, isASCII bool) {
		if unit, pdu, err := parseSerial(isASCII, b); err == nil {
			back, err := appendSerial(isASCII, nil, unit, pdu)
			if err != nil || !bytes.EqualFold(back, b) || !isASCII && !bytes.Equal(back, b) {
				t.Fatalf("% x comes back as % x, %v", b, back, err)
			}
		}
		serverStream(isASCII, b[:len(b)/2], b[len(b)/2:])
		var c codec = rtu{}
		if isASCII {
			c = ascii{}
		}
		if adu := c.find(b, request); adu != nil && (adu[0] != 1 || !fits(request[1:], adu[1:])) {
			t.Fatalf("found % x", adu)
		}
		for rest := b; ; {
			adu, used, err := c.take(rest, true)
			if used == 0 {
				if len(rest) > 0 {
					t.Fatalf("% x is left", rest)
				}
				break
			}
			if used > len(rest) || (adu == nil) != (err != nil) {
				t.Fatalf("% x: % x, %d, %v", rest, adu, used, err)
			}
			rest = rest[used:]
		}
	})
}
