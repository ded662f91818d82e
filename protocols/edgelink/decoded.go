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
	Series []Series
	Writes []WriteEvent
	Locals []LocalDesired
	States []StateEvent
	Gaps   []Gap
}

// Samples returns the number of samples in all series.
func (d *Decoded) Samples() int {
	n := 0
	for i := range d.Series {
		n += d.Series[i].Len()
	}
	return n
}

// Series is the samples of one property in typed columns. It is never empty.
type Series struct {
	Device   DeviceRef
	Property string
	Times    []int64 // microseconds since 1970, one per sample

	// One value for each sample of the column's kinds, in order. When Uniform,
	// the column's i-th value is the i-th sample's.
	Ints   []int64 // bool (0 or 1) and int
	Uints  []uint64
	Floats []float64
	Texts  []string // string, bytes and JSON; a string may hold NUL

	kinds     []byte          // one, or one per sample
	pos       []int32         // each sample's place in its kind's column; nil when uniform
	qualities []byte          // one per sample; nil when all are good
	reasons   []models.Reason // one per sample; nil when all are good
}

// Len returns the number of samples.
func (s *Series) Len() int { return len(s.Times) }

// Uniform returns the kind that all samples have, if they have one.
func (s *Series) Uniform() (kind models.Kind, ok bool) {
	return models.Kind(s.kinds[0]), len(s.kinds) == 1
}

// Kind returns the kind of the i-th sample.
func (s *Series) Kind(i int) models.Kind {
	if len(s.kinds) == 1 {
		return models.Kind(s.kinds[0])
	}
	return models.Kind(s.kinds[i])
}

// AllGood reports whether every sample's quality is good.
func (s *Series) AllGood() bool { return s.qualities == nil }

// Quality returns the i-th sample's quality and, when it is not good, the reason.
func (s *Series) Quality(i int) (models.Quality, models.Reason) {
	if s.qualities == nil {
		return models.Good, models.ReasonNone
	}
	return models.Quality(s.qualities[i]), s.reasons[i]
}

// Value returns the i-th sample's value.
func (s *Series) Value(i int) models.Value {
	at := s.at(i)
	switch kind := s.Kind(i); kind {
	case models.KindBool:
		return models.Bool(s.Ints[at] != 0)
	case models.KindInt:
		return models.Int(s.Ints[at])
	case models.KindUint:
		return models.Uint(s.Uints[at])
	case models.KindFloat:
		return models.Float(s.Floats[at])
	case models.KindString, models.KindBytes, models.KindJSON:
		v, _ := models.FromRaw(kind, 0, s.Texts[at]) // checked by DecodeRecord
		return v
	}
	return models.Null
}

// at returns the i-th sample's place in its kind's column.
func (s *Series) at(i int) int {
	if s.pos == nil {
		return i
	}
	return int(s.pos[i])
}

// At returns the i-th sample.
func (s *Series) At(i int) models.Sample {
	quality, reason := s.Quality(i)
	return models.Sample{Value: s.Value(i), Quality: quality, Reason: reason, Time: time.UnixMicro(s.Times[i]).UTC()}
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
	var r pb.Record
	if err := r.UnmarshalVT(data); err != nil {
		return nil, malformed("record: %v", err)
	}
	d, err := decode(&r)
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	return d, nil
}

func decode(r *pb.Record) (*Decoded, error) {
	devices := make([]DeviceRef, len(r.Devices))
	for i, ref := range r.Devices {
		if err := checkName("device uid", ref.Uid); err != nil {
			return nil, err
		}
		devices[i] = DeviceRef{UID: ref.Uid, Assignment: ref.Assignment}
	}
	reasons := make([]models.Reason, len(r.Reasons))
	for i, reason := range r.Reasons {
		if err := checkTexts(reason); err != nil {
			return nil, err
		}
		reasons[i] = models.Reason(reason)
	}
	device := func(i uint32) (DeviceRef, error) {
		if int(i) >= len(devices) {
			return DeviceRef{}, malformed("device %d of %d", i, len(devices))
		}
		return devices[i], nil
	}

	d := &Decoded{Series: make([]Series, len(r.Series))}
	samples := 0
	for i, from := range r.Series {
		to := &d.Series[i]
		var err error
		if to.Device, err = device(from.Device); err != nil {
			return nil, fmt.Errorf("series %d: %w", i, err)
		}
		if err := to.fill(from, r.BaseUs, reasons); err != nil {
			return nil, fmt.Errorf("series %d: %w", i, err)
		}
		if samples += to.Len(); samples > maxRecordValues {
			return nil, malformed("more than %d samples", maxRecordValues)
		}
	}

	for i, w := range r.Writes {
		ref, err := device(w.Device)
		if err != nil {
			return nil, fmt.Errorf("write %d: %w", i, err)
		}
		if err := checkTexts(w.Property, w.Id, w.State, w.Error); err != nil {
			return nil, fmt.Errorf("write %d: %w", i, err)
		}
		d.Writes = append(d.Writes, WriteEvent{Device: ref, Property: w.Property, ID: w.Id, State: w.State, Error: w.Error,
			Time: timeOf(w.TimeUs), Late: w.Late, Refused: w.Refused})
	}
	for i, l := range r.Locals {
		ref, err := device(l.Device)
		if err != nil {
			return nil, fmt.Errorf("local %d: %w", i, err)
		}
		if err := checkTexts(l.Property, l.Id, l.By, l.After); err != nil {
			return nil, fmt.Errorf("local %d: %w", i, err)
		}
		var v models.Value
		if err := json.Unmarshal(l.Value, &v); err != nil {
			return nil, malformed("local %d: value: %v", i, err)
		}
		d.Locals = append(d.Locals, LocalDesired{Device: ref, Property: l.Property, ID: l.Id, Value: v, Base: l.Base,
			Time: timeOf(l.TimeUs), By: l.By, After: l.After})
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

// fill takes over the columns of from, which is not used afterwards.
func (s *Series) fill(from *pb.Series, base int64, reasons []models.Reason) error {
	if err := checkName("property", from.Property); err != nil {
		return err
	}
	n := len(from.Dt)
	if n == 0 {
		return malformed("no samples")
	}
	if n > maxRecordValues {
		return malformed("%d samples, more than %d", n, maxRecordValues)
	}
	if len(from.Kinds) != 1 && len(from.Kinds) != n {
		return malformed("%d kinds for %d samples", len(from.Kinds), n)
	}
	s.Property, s.kinds = from.Property, from.Kinds
	s.Times = from.Dt
	at := base
	for i, dt := range s.Times {
		at += dt // wraps as the writer's subtraction did
		s.Times[i] = at
	}

	if err := s.place(from, n); err != nil {
		return err
	}
	if err := s.checkValues(from); err != nil {
		return err
	}
	return s.qualify(from, reasons)
}

// place finds each sample's place in its column and checks that the columns are
// as long as the kinds say.
func (s *Series) place(from *pb.Series, n int) error {
	var ints, uints, floats, texts int
	count := func(kind byte) *int {
		switch models.Kind(kind) {
		case models.KindBool, models.KindInt:
			return &ints
		case models.KindUint:
			return &uints
		case models.KindFloat:
			return &floats
		case models.KindString, models.KindBytes, models.KindJSON:
			return &texts
		}
		return nil
	}
	if len(s.kinds) == 1 {
		if c := count(s.kinds[0]); c != nil {
			*c = n
		}
	} else {
		s.pos = make([]int32, n)
		for i, kind := range s.kinds {
			if c := count(kind); c != nil {
				s.pos[i] = int32(*c)
				*c++
			}
		}
	}
	for _, kind := range s.kinds {
		if models.Kind(kind) > models.KindJSON {
			return malformed("unknown kind %d", kind)
		}
	}
	if len(from.Ints) != ints || len(from.Uints) != uints || len(from.Floats) != floats || len(from.Texts) != texts {
		return malformed("%d ints, %d uints, %d floats, %d texts where the kinds ask for %d, %d, %d, %d",
			len(from.Ints), len(from.Uints), len(from.Floats), len(from.Texts), ints, uints, floats, texts)
	}
	s.Ints, s.Uints, s.Floats = from.Ints, from.Uints, from.Floats
	return nil
}

func (s *Series) checkValues(from *pb.Series) error {
	if kind, uniform := s.Uniform(); !uniform || kind == models.KindBool {
		for i := range s.Len() {
			if s.Kind(i) != models.KindBool {
				continue
			}
			if b := s.Ints[s.at(i)]; b != 0 && b != 1 {
				return malformed("bool %d", b)
			}
		}
	}
	for _, u := range s.Uints {
		if u <= math.MaxInt64 {
			return malformed("uint %d that fits an int", u)
		}
	}
	for i, f := range s.Floats {
		if !finite(f) {
			return malformed("float that is not finite")
		}
		if f == 0 {
			s.Floats[i] = 0 // not -0, which would be another value
		}
	}
	if len(from.Texts) > 0 {
		return s.fillTexts(from)
	}
	return nil
}

// fillTexts makes the texts substrings of one string: one allocation for all of
// them, and whoever keeps one text keeps no more than its series.
func (s *Series) fillTexts(from *pb.Series) error {
	var all strings.Builder
	ends := make([]int, 0, len(from.Texts))
	for i := range s.Len() {
		kind := s.Kind(i)
		if kind < models.KindString {
			continue
		}
		text := from.Texts[len(ends)]
		switch kind {
		case models.KindString:
			if !utf8.Valid(text) {
				return malformed("string that is not UTF-8")
			}
			all.Write(text)
		case models.KindJSON:
			v, err := models.JSON(text)
			if err != nil {
				return malformed("object or array: %v", err)
			}
			_, _, canonical := v.Raw()
			all.WriteString(canonical)
		default:
			all.Write(text)
		}
		ends = append(ends, all.Len())
	}
	s.Texts = make([]string, len(ends))
	begin := 0
	for i, end := range ends {
		s.Texts[i] = all.String()[begin:end]
		begin = end
	}
	return nil
}

func (s *Series) qualify(from *pb.Series, reasons []models.Reason) error {
	n := s.Len()
	if len(from.Qualities) == 0 {
		if len(from.Reasons) > 0 {
			return malformed("reasons without qualities")
		}
		return nil
	}
	if len(from.Qualities) != n {
		return malformed("%d qualities for %d samples", len(from.Qualities), n)
	}
	s.qualities, s.reasons = from.Qualities, make([]models.Reason, n)
	next := 0
	for i, q := range s.qualities {
		if models.Quality(q) == models.Good {
			continue
		}
		if models.Quality(q) > models.Bad {
			s.qualities[i] = byte(models.Bad) // of a newer release: nothing looks better than it is
		}
		if next == len(from.Reasons) {
			return malformed("%d reasons for more samples that are not good", next)
		}
		index := from.Reasons[next]
		next++
		if int(index) >= len(reasons) {
			return malformed("reason %d of %d", index, len(reasons))
		}
		s.reasons[i] = reasons[index]
	}
	if next != len(from.Reasons) {
		return malformed("%d reasons for %d samples that are not good", len(from.Reasons), next)
	}
	if next == 0 {
		s.qualities, s.reasons = nil, nil
	}
	return nil
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
