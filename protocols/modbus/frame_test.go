package modbus

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

// frames is the corpus that parsing, reading, appending and fuzzing share.
var frames = []struct {
	name  string
	bytes string
	frame Frame
	size  int // 0: incomplete
	err   error
}{
	{name: "read request", bytes: "\x00\x01\x00\x00\x00\x06\x11\x03\x00\x6b\x00\x03",
		frame: Frame{1, 0x11, []byte("\x03\x00\x6b\x00\x03")}, size: 12},
	{name: "answer with another behind it", bytes: "\xff\xff\x00\x00\x00\x05\x01\x03\x02\xab\xcd\x00\x00",
		frame: Frame{0xffff, 1, []byte("\x03\x02\xab\xcd")}, size: 11},
	{name: "shortest", bytes: "\x00\x02\x00\x00\x00\x02\x00\x07", frame: Frame{2, 0, []byte("\x07")}, size: 8},
	{name: "exception", bytes: "\x00\x03\x00\x00\x00\x03\x01\x83\x02", frame: Frame{3, 1, []byte("\x83\x02")}, size: 9},
	{name: "nothing"},
	{name: "half a header", bytes: "\x00\x01\x00\x00"},
	{name: "header only", bytes: "\x00\x01\x00\x00\x00\x06\x11"},
	{name: "last byte missing", bytes: "\x00\x01\x00\x00\x00\x06\x11\x03\x00\x6b\x00"},
	{name: "another protocol", bytes: "\x00\x01\x00\x01\x00\x06\x11\x03\x00\x6b\x00\x03", err: ErrFrame},
	{name: "length 0", bytes: "\x00\x01\x00\x00\x00\x00\x11\x03", err: ErrFrame},
	{name: "no function", bytes: "\x00\x01\x00\x00\x00\x01\x11\x03", err: ErrFrame},
	{name: "length 255", bytes: "\x00\x01\x00\x00\x00\xff\x11\x03", err: ErrFrame},
	{name: "length 65535", bytes: "\x00\x01\x00\x00\xff\xff\x11\x03", err: ErrFrame},
	{name: "http", bytes: "GET / HTTP/1.1\r\n", err: ErrFrame},
}

func TestParseFrame(t *testing.T) {
	for _, c := range frames {
		t.Run(c.name, func(t *testing.T) {
			f, n, err := ParseFrame([]byte(c.bytes))
			if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) || n != c.size {
				t.Fatalf("%+v, %d, %v; want size %d, %v", f, n, err, c.size, c.err)
			}
			if f.Transaction != c.frame.Transaction || f.Unit != c.frame.Unit || !bytes.Equal(f.PDU, c.frame.PDU) {
				t.Fatalf("%+v, want %+v", f, c.frame)
			}
			if c.size == 0 {
				return
			}
			back, err := f.Append(nil)
			if err != nil || string(back) != c.bytes[:n] {
				t.Fatalf("appended % x, %v", back, err)
			}
		})
	}
}

func TestReadFrame(t *testing.T) {
	for _, c := range frames {
		for name, r := range map[string]io.Reader{
			"whole":        bytes.NewReader([]byte(c.bytes)),
			"byte by byte": iotest.OneByteReader(bytes.NewReader([]byte(c.bytes))),
			"in halves":    iotest.HalfReader(bytes.NewReader([]byte(c.bytes))),
		} {
			t.Run(c.name+" "+name, func(t *testing.T) {
				var buf [MaxFrame]byte
				f, err := ReadFrame(r, &buf)
				switch {
				case c.size > 0:
					if err != nil || f.Transaction != c.frame.Transaction || !bytes.Equal(f.PDU, c.frame.PDU) {
						t.Fatalf("%+v, %v", f, err)
					}
				case c.err != nil:
					if !errors.Is(err, c.err) {
						t.Fatalf("%v, want %v", err, c.err)
					}
				case c.bytes == "":
					if err != io.EOF {
						t.Fatalf("%v at a clean end", err)
					}
				case err != io.ErrUnexpectedEOF:
					t.Fatalf("%v inside a frame", err)
				}
			})
		}
	}
}

func TestAppendRefuses(t *testing.T) {
	for _, n := range []int{0, MaxPDU + 1} {
		if b, err := (Frame{PDU: make([]byte, n)}).Append([]byte("x")); !errors.Is(err, ErrFrame) || string(b) != "x" {
			t.Errorf("a pdu of %d bytes: % x, %v", n, b, err)
		}
	}
	b, err := (Frame{PDU: make([]byte, MaxPDU)}).Append(nil)
	if err != nil || len(b) != MaxFrame {
		t.Errorf("the longest pdu: %d bytes, %v", len(b), err)
	}
}

func FuzzParseFrame(f *testing.F) {
	for _, c := range frames {
		f.Add([]byte(c.bytes))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		frame, n, err := ParseFrame(b)
		var buf [MaxFrame]byte
		read, rerr := ReadFrame(bytes.NewReader(b), &buf)
		if (err == nil && n > 0) != (rerr == nil) {
			t.Fatalf("parse: %d, %v; read: %v", n, err, rerr)
		}
		if rerr != nil {
			return
		}
		if !bytes.Equal(read.PDU, frame.PDU) {
			t.Fatalf("read % x, parsed % x", read.PDU, frame.PDU)
		}
		back, err := frame.Append(nil)
		if err != nil || !bytes.Equal(back, b[:n]) {
			t.Fatalf("% x comes back as % x, %v", b[:n], back, err)
		}
	})
}

// requests is the corpus of request PDUs; most are the specification's own
// examples.
var requests = []struct {
	name    string
	pdu     string
	want    Request
	code    Code   // 0: accepted
	written string // the answer to a write
}{
	{name: "read coils", pdu: "\x01\x00\x13\x00\x13", want: Request{ReadCoils, 19, 19, nil}},
	{name: "read discrete", pdu: "\x02\x00\xc4\x00\x16", want: Request{ReadDiscrete, 196, 22, nil}},
	{name: "read holding", pdu: "\x03\x00\x6b\x00\x03", want: Request{ReadHolding, 107, 3, nil}},
	{name: "read input", pdu: "\x04\x00\x08\x00\x01", want: Request{ReadInput, 8, 1, nil}},
	{name: "most registers", pdu: "\x03\xff\x83\x00\x7d", want: Request{ReadHolding, 65411, 125, nil}},
	{name: "write coil on", pdu: "\x05\x00\xac\xff\x00", want: Request{WriteOneCoil, 172, 1, []byte{1}}, written: "\x05\x00\xac\xff\x00"},
	{name: "write coil off", pdu: "\x05\x00\xac\x00\x00", want: Request{WriteOneCoil, 172, 1, []byte{0}}, written: "\x05\x00\xac\x00\x00"},
	{name: "write register", pdu: "\x06\x00\x01\x00\x03", want: Request{WriteOneRegister, 1, 1, []byte{0, 3}}, written: "\x06\x00\x01\x00\x03"},
	{name: "write coils", pdu: "\x0f\x00\x13\x00\x0a\x02\xcd\x01", want: Request{WriteManyCoils, 19, 10, []byte{0xcd, 1}}, written: "\x0f\x00\x13\x00\x0a"},
	{name: "write registers", pdu: "\x10\x00\x01\x00\x02\x04\x00\x0a\x01\x02", want: Request{WriteManyRegisters, 1, 2, []byte{0, 10, 1, 2}}, written: "\x10\x00\x01\x00\x02"},
	{name: "empty", code: IllegalFunction},
	{name: "unknown function", pdu: "\x2b\x0e\x01\x00", code: IllegalFunction},
	{name: "function 0", pdu: "\x00\x00\x00\x00\x00", code: IllegalFunction},
	{name: "short", pdu: "\x03\x00\x6b\x00", code: IllegalDataValue},
	{name: "long", pdu: "\x03\x00\x6b\x00\x03\x00", code: IllegalDataValue},
	{name: "no registers", pdu: "\x03\x00\x6b\x00\x00", code: IllegalDataValue},
	{name: "too many registers", pdu: "\x03\x00\x00\x00\x7e", code: IllegalDataValue},
	{name: "too many coils", pdu: "\x01\x00\x00\x07\xd1", code: IllegalDataValue},
	{name: "half a coil", pdu: "\x05\x00\xac\x00\x01", code: IllegalDataValue},
	{name: "beyond the last", pdu: "\x03\xff\xff\x00\x02", code: IllegalDataAddress},
	{name: "byte count wrong", pdu: "\x10\x00\x01\x00\x02\x03\x00\x0a\x01\x02", code: IllegalDataValue},
	{name: "data missing", pdu: "\x10\x00\x01\x00\x02\x04\x00\x0a\x01", code: IllegalDataValue},
	{name: "nothing to write", pdu: "\x10\x00\x01\x00\x00\x00", code: IllegalDataValue},
	{name: "write beyond the last", pdu: "\x0f\xff\xff\x00\x02\x01\x03", code: IllegalDataAddress},
}

func TestParseRequest(t *testing.T) {
	for _, c := range requests {
		t.Run(c.name, func(t *testing.T) {
			r, err := ParseRequest([]byte(c.pdu))
			if c.code != 0 {
				var e *Exception
				if !errors.As(err, &e) || e.Code != c.code {
					t.Fatalf("%+v, %v, want exception %d", r, err, c.code)
				}
				if len(c.pdu) > 0 && !bytes.Equal(e.AppendTo(nil), []byte{c.pdu[0] | 0x80, byte(c.code)}) {
					t.Fatalf("refusal % x", e.AppendTo(nil))
				}
				return
			}
			if err != nil || r.Function != c.want.Function || r.Address != c.want.Address || r.Count != c.want.Count || !bytes.Equal(r.Data, c.want.Data) {
				t.Fatalf("%+v, %v, want %+v", r, err, c.want)
			}
			if c.written != "" && string(r.AppendWritten(nil)) != c.written {
				t.Fatalf("written % x", r.AppendWritten(nil))
			}
		})
	}
}

// answerTo is the answer a right server gives.
func answerTo(r Request) []byte {
	if r.Function.Writes() {
		return r.AppendWritten(nil)
	}
	n := 2 * int(r.Count)
	if r.Function.Table().Bits() {
		n = (int(r.Count) + 7) / 8
	}
	return r.AppendRead(nil, make([]byte, n))
}

func TestCheckAnswer(t *testing.T) {
	for _, c := range requests {
		if c.code != 0 {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			r, _ := ParseRequest([]byte(c.pdu))
			good := answerTo(r)
			if err := checkAnswer([]byte(c.pdu), good); err != nil {
				t.Fatal(err)
			}
			var e *Exception
			if err := checkAnswer([]byte(c.pdu), []byte{c.pdu[0] | 0x80, 2}); !errors.As(err, &e) || e.Code != IllegalDataAddress || e.Function != r.Function {
				t.Fatalf("refusal: %v", err)
			}
			bad := [][]byte{nil, good[:len(good)-1], append(bytes.Clone(good), 0), {c.pdu[0]}, {c.pdu[0] | 0x80}, {0x2b, 1, 2}}
			for i := range 2 { // function, and byte count or address
				b := bytes.Clone(good)
				b[i]++
				bad = append(bad, b)
			}
			if !r.Function.Writes() && r.Count > 8 { // fewer than asked for, well formed
				b := bytes.Clone(good[:len(good)-2])
				b[1] -= 2
				bad = append(bad, b)
			}
			for _, b := range bad {
				if err := checkAnswer([]byte(c.pdu), b); err == nil || errors.As(err, &e) {
					t.Errorf("answer % x: %v", b, err)
				}
			}
		})
	}
}

func FuzzParseRequest(f *testing.F) {
	for _, c := range requests {
		f.Add([]byte(c.pdu), []byte(c.written))
	}
	f.Fuzz(func(t *testing.T, pdu, answer []byte) {
		r, err := ParseRequest(pdu)
		var e *Exception
		if err != nil && !errors.As(err, &e) {
			t.Fatalf("%v is no exception", err)
		}
		if err != nil {
			return
		}
		if good := answerTo(r); len(good) > MaxPDU || checkAnswer(pdu, good) != nil {
			t.Fatalf("request % x, answer % x: %v", pdu, good, checkAnswer(pdu, good))
		}
		_ = checkAnswer(pdu, answer)
	})
}
