package edgelink

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
	"google.golang.org/protobuf/encoding/protowire"
)

// Decoded is a record as its reader uses it. Everything in it has been checked:
// indices, lengths, kinds, names in UTF-8 without NUL, no NaN and no infinity.
type Decoded struct {
	Series  []Series
	Columns Columns // the samples of all series
	Writes  []WriteEvent
	Locals  []LocalDesired
	States  []StateEvent
	Gaps    []Gap
}

// Samples returns the number of samples in all series.
func (d *Decoded) Samples() int { return len(d.Columns.Times) }

// Columns are samples, an element each. All but Times and Kinds may be nil, when
// no sample needs them.
type Columns struct {
	Times     []int64 // microseconds since 1970
	Kinds     []uint8 // models.Kind
	Ints      []int64 // of kinds bool (0 or 1) and int and, by its bits, uint
	Floats    []float64
	Texts     []string // of kinds string, bytes and JSON; a string may hold NUL
	Qualities []uint8  // models.Quality
	Reasons   []string // of those that are not good
}

// Series is the samples [Lo, Hi) of the record, which are of one property. It is
// never empty.
type Series struct {
	Device   DeviceRef
	Property string
	Lo, Hi   int
	columns  *Columns
}

// Len returns the number of samples.
func (s *Series) Len() int { return s.Hi - s.Lo }

// Times returns the samples' times, in microseconds since 1970.
func (s *Series) Times() []int64 { return s.columns.Times[s.Lo:s.Hi] }

// Quality returns the i-th sample's quality and, when it is not good, the reason.
func (s *Series) Quality(i int) (models.Quality, models.Reason) {
	if s.columns.Qualities == nil {
		return models.Good, models.ReasonNone
	}
	return models.Quality(s.columns.Qualities[s.Lo+i]), models.Reason(s.columns.Reasons[s.Lo+i])
}

// Value returns the i-th sample's value.
func (s *Series) Value(i int) models.Value {
	c, at := s.columns, s.Lo+i
	switch kind := models.Kind(c.Kinds[at]); kind {
	case models.KindBool:
		return models.Bool(c.Ints[at] != 0)
	case models.KindInt:
		return models.Int(c.Ints[at])
	case models.KindUint:
		return models.Uint(uint64(c.Ints[at]))
	case models.KindFloat:
		return models.Float(c.Floats[at])
	case models.KindString, models.KindBytes, models.KindJSON:
		v, _ := models.FromRaw(kind, 0, c.Texts[at]) // checked by DecodeRecord
		return v
	}
	return models.Null
}

// At returns the i-th sample.
func (s *Series) At(i int) models.Sample {
	quality, reason := s.Quality(i)
	return models.Sample{Value: s.Value(i), Quality: quality, Reason: reason, Time: time.UnixMicro(s.columns.Times[s.Lo+i]).UTC()}
}

// Bounds on what one record or frame may hold, so that a small hostile message
// does not unfold into much memory: an empty message of 2 bytes becomes a
// struct of 200.
const (
	maxRecordFields = 1 << 16
	maxFrameFields  = 1 << 17
	maxRecordValues = 1 << 20 // samples
	maxName         = 1 << 10 // bytes of a name or an id
)

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
}

// countFields returns how many fields the message has at its top level.
func countFields(msg []byte) (int, error) {
	n := 0
	for ; len(msg) > 0; n++ {
		_, _, l := protowire.ConsumeField(msg)
		if l < 0 {
			return 0, malformed("%v", protowire.ParseError(l))
		}
		msg = msg[l:]
	}
	return n, nil
}

// DecodeRecord decodes and checks a record. Its errors wrap ErrMalformed. The
// result shares no memory with data.
func DecodeRecord(data []byte) (*Decoded, error) {
	if len(data) > MaxRecord {
		return nil, malformed("record of %d bytes, more than %d", len(data), MaxRecord)
	}
	fields, err := countFields(data)
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	if fields > maxRecordFields {
		return nil, malformed("record of %d fields, more than %d", fields, maxRecordFields)
	}
	series, rest, err := splitRecord(data)
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	var r pb.Record
	if err := r.UnmarshalVT(rest); err != nil {
		return nil, malformed("record: %v", err)
	}
	d, err := decode(&r, data, series)
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	return d, nil
}

func decode(r *pb.Record, data []byte, series int) (*Decoded, error) {
	devices := make([]DeviceRef, len(r.Devices))
	for i, ref := range r.Devices {
		if err := checkName("device uid", ref.Uid); err != nil {
			return nil, err
		}
		devices[i] = DeviceRef{UID: ref.Uid, Assignment: ref.Assignment}
	}
	if err := checkTexts(r.Reasons...); err != nil {
		return nil, err
	}
	device := func(i uint32) (DeviceRef, error) {
		if int(i) >= len(devices) {
			return DeviceRef{}, malformed("device %d of %d", i, len(devices))
		}
		return devices[i], nil
	}

	d := &Decoded{}
	if err := d.fill(data, series, r, devices); err != nil {
		return nil, err
	}

	for i, w := range r.Writes {
		ref, err := device(w.Device)
		if err != nil {
			return nil, fmt.Errorf("write %d: %w", i, err)
		}
		if err := checkTexts(w.Property, w.Id, w.State, w.Error); err != nil {
			return nil, fmt.Errorf("write %d: %w", i, err)
		}
		out := WriteEvent{Device: ref, Property: w.Property, ID: w.Id, State: w.State, Error: w.Error,
			Time: timeOf(w.TimeUs), Late: w.Late, Refused: w.Refused, Sent: timeOf(w.SentUs)}
		if w.Asked != nil {
			asked, err := decodeLocal(w.Asked, ref)
			if err != nil {
				return nil, fmt.Errorf("write %d: asked: %w", i, err)
			}
			out.Asked = &asked
		}
		d.Writes = append(d.Writes, out)
	}
	for i, l := range r.Locals {
		ref, err := device(l.Device)
		if err != nil {
			return nil, fmt.Errorf("local %d: %w", i, err)
		}
		local, err := decodeLocal(l, ref)
		if err != nil {
			return nil, fmt.Errorf("local %d: %w", i, err)
		}
		d.Locals = append(d.Locals, local)
	}
	for i, s := range r.States {
		ref, err := device(s.Device)
		if err != nil {
			return nil, fmt.Errorf("state %d: %w", i, err)
		}
		if err := checkTexts(s.State, s.Reason, s.Message); err != nil {
			return nil, fmt.Errorf("state %d: %w", i, err)
		}
		d.States = append(d.States, StateEvent{Device: ref, State: models.DeviceState(s.State), Reason: s.Reason,
			Message: s.Message, Time: timeOf(s.TimeUs)})
	}
	for i, g := range r.Gaps {
		if err := checkTexts(g.Reason, g.Epoch); err != nil {
			return nil, fmt.Errorf("gap %d: %w", i, err)
		}
		if g.FirstSeq > g.LastSeq {
			return nil, malformed("gap %d: from seq %d to %d", i, g.FirstSeq, g.LastSeq)
		}
		d.Gaps = append(d.Gaps, Gap{Reason: g.Reason, Epoch: g.Epoch, FirstSeq: g.FirstSeq, LastSeq: g.LastSeq,
			Samples: g.Samples, From: timeOf(g.FromUs), To: timeOf(g.ToUs)})
	}
	return d, nil
}

func decodeLocal(l *pb.LocalDesired, device DeviceRef) (LocalDesired, error) {
	if err := checkTexts(l.Property, l.Id, l.By, l.After, l.Reason, l.Origin); err != nil {
		return LocalDesired{}, err
	}
	out := LocalDesired{Device: device, Property: l.Property, ID: l.Id, Base: l.Base, Time: timeOf(l.TimeUs), By: l.By, After: l.After, Reason: l.Reason, Origin: l.Origin}
	if err := json.Unmarshal(l.Value, &out.Value); err != nil {
		return out, malformed("value: %v", err)
	}
	if v := l.Before; v != nil {
		if v.Kind > math.MaxUint8 || v.Quality > math.MaxUint8 {
			return out, malformed("before of kind %d, quality %d", v.Kind, v.Quality)
		}
		if err := checkTexts(v.Reason); err != nil {
			return out, err
		}
		value, err := models.FromRaw(models.Kind(v.Kind), v.Bits, string(v.Text))
		if err != nil {
			return out, malformed("before: %v", err)
		}
		out.Before = &models.Sample{Value: value, Quality: min(models.Quality(v.Quality), models.Bad), Reason: models.Reason(v.Reason), Time: timeOf(v.TimeUs)}
	}
	return out, nil
}

// checkName checks a name that series are filed under.
func checkName(what, name string) error {
	if name == "" {
		return malformed("no %s", what)
	}
	if len(name) > maxName {
		return malformed("%s of %d bytes", what, len(name))
	}
	return checkTexts(name)
}

// checkTexts checks that texts can be stored anywhere.
func checkTexts(texts ...string) error {
	for _, text := range texts {
		if !utf8.ValidString(text) || strings.IndexByte(text, 0) >= 0 {
			return malformed("text that is not UTF-8 without NUL")
		}
	}
	return nil
}
