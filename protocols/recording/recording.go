// Package recording is the file that `whimbrel record` writes: what a mapper saw
// on the wire, with its timing, as JSON lines. FORMAT.md describes it. The
// package knows the file, not the protocols in it.
package recording

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

// Version is the one that is written; newer ones are refused.
const Version = 1

// Bounds of what is read; FORMAT.md says so.
const (
	MaxLine   = 1 << 20
	MaxEvents = 4 << 20
)

// Header is the first line.
type Header struct {
	Version  int       `json:"recording"`
	Protocol string    `json:"protocol"`
	Device   string    `json:"device"`
	Started  time.Time `json:"started"`
	// Connection is the device's, without whom it is used by and how that is
	// secured.
	Connection json.RawMessage `json:"connection"`
	// Properties are the device's as they held, so that a device can be made of
	// the file alone.
	Properties []models.Property `json:"properties,omitempty"`
}

// Event is any other line. It is one of: an exchange of bytes or what came
// unasked (Send, Came, End), values of an OPC UA server (Values, Writes, End),
// or the end (Over).
type Event struct {
	At Millis `json:"ms"` // since Started
	// Send is what was sent; nil for what came unasked, and where nothing could
	// be sent.
	Send Hex     `json:"send,omitempty"`
	Came []Piece `json:"came,omitempty"`
	// Values are what the server told of nodes, asked or not.
	Values []Value `json:"values,omitempty"`
	Writes []Write `json:"writes,omitempty"`
	End    End     `json:"end,omitempty"`
	Error  string  `json:"error,omitempty"` // in words, where something was wrong
	Took   Millis  `json:"took,omitempty"`  // until End
	// Dropped is how many events are missing before this one.
	Dropped int  `json:"dropped,omitempty"`
	Over    bool `json:"over,omitempty"` // the last line
}

// End is how an exchange ended.
type End string

// The ends.
const (
	Answered End = ""        // or nothing was to be answered
	Silence  End = "silence" // no answer in time, or not all of one
	HungUp   End = "hung-up" // the connection was lost
	NoLine   End = "no-line" // there was none, and none could be made
)

// Piece is bytes that came at once.
type Piece struct {
	After Millis `json:"after"` // the event's At
	Bytes Hex    `json:"bytes"`
}

// Value is what an OPC UA server told of a node.
type Value struct {
	Node  string `json:"node"`
	Type  string `json:"type,omitempty"` // "" where there was no value
	Array bool   `json:"array,omitempty"`
	// Value is as the property would hold it; null where there was none.
	Value  models.Value `json:"value"`
	Status uint32       `json:"status,omitempty"`
	Source *Millis      `json:"source,omitempty"` // the source timestamp, since Started
}

// Write is what was written to a node, and the status it was answered with.
type Write struct {
	Value
	Index string `json:"index,omitempty"` // an index range
}

// Recording is a whole file.
type Recording struct {
	Header
	Events []Event
	// Cut says that the file has no end: the recording was interrupted.
	Cut bool
	// Dropped is how many events are missing.
	Dropped int
}

// Length is how long the recording is.
func (r *Recording) Length() time.Duration {
	var last Millis
	for _, e := range r.Events {
		last = max(last, e.At+e.Took)
	}
	return time.Duration(last)
}

// Millis is a duration, written in milliseconds with as many as three decimals.
type Millis time.Duration

// MarshalJSON implements json.Marshaler.
func (m Millis) MarshalJSON() ([]byte, error) {
	us := time.Duration(m).Round(time.Microsecond).Microseconds()
	return strconv.AppendFloat(nil, float64(us)/1000, 'f', -1, 64), nil
}

// maxMillis is about 100 days.
const maxMillis = 1e10

// UnmarshalJSON implements json.Unmarshaler.
func (m *Millis) UnmarshalJSON(text []byte) error {
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil || !(f >= -maxMillis && f <= maxMillis) {
		return fmt.Errorf("must be milliseconds, got %s", text)
	}
	*m = Millis(time.Duration(f*1000+copysignHalf(f)) * time.Microsecond)
	return nil
}

func copysignHalf(f float64) float64 {
	if f < 0 {
		return -0.5
	}
	return 0.5
}

// Hex is bytes, written in hexadecimal.
type Hex []byte

// MarshalJSON implements json.Marshaler.
func (h Hex) MarshalJSON() ([]byte, error) {
	out := append([]byte{'"'}, hex.AppendEncode(nil, h)...)
	return append(out, '"'), nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (h *Hex) UnmarshalJSON(text []byte) error {
	var s string
	if err := json.Unmarshal(text, &s); err != nil {
		return errors.New("must be bytes in hexadecimal")
	}
	b, err := hex.DecodeString(s)
	if err != nil {
		return errors.New("must be bytes in hexadecimal")
	}
	*h = b
	return nil
}

// Line is a header or an event as a line of the file, with its end.
func Line(v any) ([]byte, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("recording: %w", err)
	}
	if len(text) >= MaxLine {
		return nil, fmt.Errorf("recording: an event of %d bytes is longer than %d", len(text), MaxLine)
	}
	return append(text, '\n'), nil
}

// Sniff tells whether a file begins as a recording does.
func Sniff(data []byte) bool {
	first, _, _ := bytes.Cut(data, []byte("\n"))
	var head struct {
		Version *int `json:"recording"`
	}
	return json.Unmarshal(first, &head) == nil && head.Version != nil
}

// Read reads a file. Its errors name the line.
func Read(r io.Reader) (*Recording, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 64<<10), MaxLine)
	out := &Recording{Cut: true}
	for n := 1; lines.Scan(); n++ {
		text := bytes.TrimSpace(lines.Bytes())
		var err error
		switch {
		case n == 1:
			err = out.header(text)
		case len(text) == 0:
		case !out.Cut:
			err = errors.New("there is more after the end")
		case len(out.Events) == MaxEvents:
			err = fmt.Errorf("there are more than %d events", MaxEvents)
		default:
			err = out.event(text)
		}
		if err != nil {
			return nil, fmt.Errorf("recording: line %d: %w", n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("recording: line %d: %w", len(out.Events)+2, err)
	}
	if out.Version == 0 {
		return nil, errors.New("recording: the file is empty")
	}
	return out, nil
}

func strictly(text []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return err
	}
	if dec.More() {
		return errors.New("more than one JSON value")
	}
	return nil
}

func (r *Recording) header(text []byte) error {
	var head struct {
		Version int `json:"recording"`
	}
	if err := json.Unmarshal(text, &head); err != nil || head.Version < 1 {
		return errors.New("is not the beginning of a recording")
	}
	if head.Version > Version {
		return fmt.Errorf("the recording is of version %d, and this program knows %d: use a newer one", head.Version, Version)
	}
	if err := strictly(text, &r.Header); err != nil {
		return err
	}
	if r.Protocol == "" {
		return errors.New("protocol is missing")
	}
	return nil
}

func (r *Recording) event(text []byte) error {
	var e Event
	if err := strictly(text, &e); err != nil {
		return err
	}
	switch e.End {
	case Answered, Silence, HungUp, NoLine:
	default:
		return fmt.Errorf("end is none of silence, hung-up, no-line: %q", string(e.End))
	}
	for _, p := range e.Came {
		if p.After < 0 {
			return errors.New("bytes came before their event")
		}
	}
	switch {
	case e.At < 0 || e.Took < 0:
		return errors.New("ms and took are not below 0")
	case e.Dropped < 0:
		return errors.New("dropped is not below 0")
	}
	r.Dropped += e.Dropped
	if e.Over {
		r.Cut = false
	}
	r.Events = append(r.Events, e)
	return nil
}
