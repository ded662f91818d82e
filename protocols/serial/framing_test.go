package serial

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
)

// corpus is testdata/messages.json: texts and the messages that carry them,
// computed outside of this program.
type corpus struct {
	Text       string
	Terminator string
	Length     int
	Checksum   Checksum
	Hex        string // of the whole message
}

func messages(t testing.TB) (all []corpus) {
	t.Helper()
	data, err := os.ReadFile("testdata/messages.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &all); err != nil {
		t.Fatal(err)
	}
	if len(all) < 10 {
		t.Fatalf("only %d messages", len(all))
	}
	return all
}

func (c corpus) message(t testing.TB) []byte {
	t.Helper()
	hex := strings.ReplaceAll(c.Hex, " ", "")
	b := make([]byte, len(hex)/2)
	for i := range b {
		hi, _ := digit(hex[2*i])
		lo, ok := digit(hex[2*i+1])
		if !ok {
			t.Fatal(c.Hex)
		}
		b[i] = hi<<4 | lo
	}
	return b
}

func TestMessages(t *testing.T) {
	for _, c := range messages(t) {
		f := Framing{Terminator: c.Terminator, Length: c.Length, Checksum: c.Checksum}
		if err := f.Check(); err != nil {
			t.Error(err)
		}
		message := c.message(t)
		if got := f.Append(nil, []byte(c.Text)); !bytes.Equal(got, message) {
			t.Errorf("%s of %q is % X, want % X", c.Checksum, c.Text, got, message)
		}
		split := NewSplitter(f)
		found := 0
		split.Feed(message, func(m []byte, err error) bool {
			found++
			if text, wrong := f.Text(m); err != nil || wrong != nil || string(text) != c.Text {
				t.Errorf("%q: %q, %v, %v", message, text, err, wrong)
			}
			return true
		})
		if found != 1 || split.Pending() != 0 {
			t.Errorf("%q: %d messages, %d bytes left", message, found, split.Pending())
		}
		if c.Checksum == NoChecksum {
			continue
		}
		// Every changed bit is noticed: these checksums find all single ones.
		body := bytes.TrimSuffix(message, []byte(c.Terminator))
		for bit := range 8 * len(body) {
			damaged := slices.Clone(body)
			damaged[bit/8] ^= 1 << (bit % 8)
			if strings.EqualFold(string(damaged), string(body)) {
				continue // a digit in the other case means the same
			}
			if text, err := f.Text(damaged); err == nil {
				t.Errorf("%q passes as %q", damaged, text)
			} else if !errors.Is(err, ErrChecksum) {
				t.Error(err)
			}
		}
	}
}

func TestChecksumShort(t *testing.T) {
	for _, sum := range Checksums[1:] {
		for _, f := range []Framing{{Terminator: "\n", Checksum: sum}, {Length: 8, Checksum: sum}} {
			if _, err := f.Text(nil); !errors.Is(err, ErrChecksum) {
				t.Errorf("%s of nothing: %v", sum, err)
			}
		}
	}
	if _, err := (Framing{Terminator: "\n", Checksum: XOR}).Text([]byte("$GPGLL24")); !errors.Is(err, ErrChecksum) {
		t.Error(err)
	}
	lower := Framing{Terminator: "\n", Checksum: XOR}
	if text, err := lower.Text([]byte("o0f")); err == nil || string(text) != "o" {
		t.Errorf("%q, %v", text, err)
	}
	if text, err := lower.Text([]byte("o6f")); err != nil || string(text) != "o" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestFramingCheck(t *testing.T) {
	for _, c := range []struct {
		f    Framing
		want string
	}{
		{Framing{Checksum: NoChecksum}, "needs a terminator or a length"},
		{Framing{Terminator: "\n", Length: 3, Checksum: NoChecksum}, "not both"},
		{Framing{Terminator: strings.Repeat("x", 17), Checksum: NoChecksum}, "17 bytes"},
		{Framing{Terminator: "\n"}, `checksum ""`},
		{Framing{Length: -1, Checksum: NoChecksum}, "length -1"},
		{Framing{Length: MaxMessage + 1, Checksum: NoChecksum}, "length 4097"},
		{Framing{Length: 2, Checksum: CRC16}, "leaves nothing"},
	} {
		if err := c.f.Check(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.f, err, c.want)
		}
	}
}

// split feeds chunks and returns the messages, and "!" for one too long.
func split(f Framing, chunks ...string) (found []string, s *Splitter) {
	s = NewSplitter(f)
	for _, c := range chunks {
		s.Feed([]byte(c), func(m []byte, err error) bool {
			if err != nil {
				m = []byte("!")
			}
			found = append(found, string(m))
			return true
		})
	}
	return found, s
}

func TestSplitter(t *testing.T) {
	crlf, cr, three := Framing{Terminator: "\r\n", Checksum: NoChecksum}, Framing{Terminator: "\r", Checksum: NoChecksum}, Framing{Length: 3, Checksum: NoChecksum}
	long := strings.Repeat("x", MaxMessage+1)
	for _, c := range []struct {
		f       Framing
		chunks  []string
		want    string
		pending int
	}{
		{crlf, []string{"a\r\nb\r\nc"}, "a|b", 1},
		{crlf, []string{"a\r", "\nb", "\r\n"}, "a|b", 0},
		{crlf, []string{"\r\n\r\na\r\n"}, "a", 0},
		{crlf, []string{"a\nb\rc\r\n"}, "a\nb\rc", 0},
		{cr, []string{"a\r\nb\r\n"}, "a|b", 0},
		{three, []string{"ab", "cde", "f\r\n\r"}, "abc|def|\r\n\r", 0},
		{three, []string{"ab"}, "", 2},
		{crlf, []string{long, long, "\r", "\na\r\n"}, "!|a", 0},
		{crlf, []string{long, "\r\n", long, "\r\nb\r\n"}, "!|!|b", 0},
		{crlf, []string{long + "\r\nb\r\n"}, long + "|b", 0}, // it ended: who reads may judge
	} {
		got, s := split(c.f, c.chunks...)
		if strings.Join(got, "|") != c.want || s.Pending() != c.pending {
			t.Errorf("%+v of %.40q: %.60q and %d bytes, want %.60q and %d", c.f, c.chunks, got, s.Pending(), c.want, c.pending)
		}
	}
	// One that stops at the first finds the second later.
	s := NewSplitter(crlf)
	var got []string
	take := func(m []byte, _ error) bool { got = append(got, string(m)); return false }
	s.Feed([]byte("a\r\nb\r\n"), take)
	s.Feed(nil, take)
	if strings.Join(got, "|") != "a|b" {
		t.Errorf("%q", got)
	}
	s.Feed([]byte("rest"), take)
	s.Reset()
	if s.Pending() != 0 {
		t.Error("Reset left something")
	}
}

// FuzzSplitter: whatever comes, in whatever pieces, the messages are the same,
// and what is kept is bounded.
func FuzzSplitter(f *testing.F) {
	for _, c := range messages(f) {
		f.Add(c.message(f), c.Terminator, c.Length, 3)
	}
	f.Fuzz(func(t *testing.T, data []byte, terminator string, length, step int) {
		for _, sum := range Checksums {
			framing := Framing{Terminator: terminator, Length: length, Checksum: sum}
			if framing.Check() != nil {
				continue
			}
			if step <= 0 {
				step = 1
			}
			var pieces []string
			for chunk := range slices.Chunk(data, step) {
				pieces = append(pieces, string(chunk))
			}
			if len(data) < MaxMessage {
				whole, _ := split(framing, string(data))
				parts, s := split(framing, pieces...)
				if !slices.Equal(whole, parts) {
					t.Errorf("%q whole, %q in pieces of %d", whole, parts, step)
				}
				if len(s.buf) > MaxMessage {
					t.Errorf("%d bytes are kept", len(s.buf))
				}
				for _, m := range whole {
					_, _ = framing.Text([]byte(m))
				}
			}
			// What is sent is received, unless it says where it ends itself.
			text := data
			if terminator != "" {
				text = bytes.TrimLeft(data, "\r\n")
				if bytes.Contains(framing.Append(nil, text)[:len(framing.Append(nil, text))-1], []byte(terminator)) || len(text) == 0 {
					continue
				}
			}
			message := framing.Append(nil, text)
			got, err := framing.Text(bytes.TrimSuffix(message, []byte(terminator)))
			if err != nil || !bytes.Equal(got, text) {
				t.Errorf("%q came back as %q, %v", text, got, err)
			}
		}
	})
}
