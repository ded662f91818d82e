package edgelink

import (
	"encoding/binary"
	"math"
	"math/bits"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

// Builder makes a record. The zero Builder is empty and ready; Reset keeps its
// memory for the next record. It is not safe for concurrent use.
//
// It writes the protobuf of pb.Record itself, column by column as samples come,
// because filling the generated structs and marshalling them costs an allocation
// per column and series.
type Builder struct {
	samples int
	base    int64 // time of the first sample, microseconds since 1970
	from    int64 // earliest and latest sample
	to      int64
	size    int // of everything below, about

	devices   map[DeviceRef]uint32
	lastRef   DeviceRef // the device of the call before, whose index is lastIndex
	lastIndex uint32
	reasons   map[models.Reason]uint32
	index     map[seriesKey]int // into series
	series    []column          // beyond its length: columns to use again

	// Encoded fields of the record, tags included.
	deviceBytes, reasonBytes, writeBytes, localBytes, stateBytes, gapBytes []byte

	writes, locals, states, gaps int
}

type seriesKey struct {
	device   uint32
	property string
}

// column is one Series in the making: the contents of its fields.
type column struct {
	device   uint32
	property string
	last     int64 // time of the newest sample
	n        int   // samples
	mixed    bool  // more than one kind
	bad      bool  // a sample is not good, so qualities are written

	dt, kinds, ints, uints, floats, texts, qualities, reasons []byte
}

// Tags of the fields of Record and Series, as protobuf writes them.
const (
	tagBase    = 1<<3 | 0
	tagDevices = 2<<3 | 2
	tagReasons = 3<<3 | 2
	tagSeries  = 4<<3 | 2
	tagWrites  = 5<<3 | 2
	tagLocals  = 6<<3 | 2
	tagStates  = 7<<3 | 2
	tagGaps    = 8<<3 | 2

	tagDevice        = 1<<3 | 0
	tagProperty      = 2<<3 | 2
	tagDt            = 3<<3 | 2
	tagKinds         = 4<<3 | 2
	tagInts          = 5<<3 | 2
	tagUints         = 6<<3 | 2
	tagFloats        = 7<<3 | 2
	tagTexts         = 8<<3 | 2
	tagQualities     = 9<<3 | 2
	tagSeriesReasons = 10<<3 | 2
)

// seriesOverhead is what a series costs beside its samples and its name, about.
const seriesOverhead = 24

// Reset empties the builder.
func (b *Builder) Reset() {
	clear(b.devices)
	clear(b.reasons)
	clear(b.index)
	*b = Builder{
		devices: b.devices, reasons: b.reasons, index: b.index, series: b.series[:0],
		deviceBytes: b.deviceBytes[:0], reasonBytes: b.reasonBytes[:0], writeBytes: b.writeBytes[:0],
		localBytes: b.localBytes[:0], stateBytes: b.stateBytes[:0], gapBytes: b.gapBytes[:0],
	}
}

// AddSample adds one observation. Its time is kept to the microsecond; a reason
// is kept only with a quality that is not good.
func (b *Builder) AddSample(device DeviceRef, property string, s models.Sample) {
	at := s.Time.UnixMicro()
	if b.samples == 0 {
		b.base, b.from, b.to = at, at, at
	}
	b.samples++
	b.from, b.to = min(b.from, at), max(b.to, at)

	c := b.column(device, property)
	before := len(c.dt) + len(c.kinds) + len(c.ints) + len(c.uints) + len(c.floats) + len(c.texts) + len(c.qualities) + len(c.reasons)
	c.dt = binary.AppendVarint(c.dt, at-c.last)
	c.last = at

	kind, num, text := s.Value.Raw()
	c.kinds = append(c.kinds, byte(kind))
	c.mixed = c.mixed || byte(kind) != c.kinds[0]
	switch kind {
	case models.KindBool, models.KindInt:
		c.ints = binary.AppendVarint(c.ints, int64(num))
	case models.KindUint:
		c.uints = binary.AppendUvarint(c.uints, num)
	case models.KindFloat:
		c.floats = binary.LittleEndian.AppendUint64(c.floats, num)
	case models.KindString, models.KindBytes, models.KindJSON:
		c.texts = appendText(c.texts, tagTexts, text)
	}

	if s.Quality != models.Good {
		if !c.bad {
			c.bad = true
			for range c.n {
				c.qualities = append(c.qualities, byte(models.Good))
			}
		}
		c.reasons = binary.AppendUvarint(c.reasons, uint64(b.reason(s.Reason)))
	}
	if c.bad {
		c.qualities = append(c.qualities, byte(s.Quality))
	}
	c.n++
	b.size += len(c.dt) + len(c.kinds) + len(c.ints) + len(c.uints) + len(c.floats) + len(c.texts) + len(c.qualities) + len(c.reasons) - before
}

// column returns the series of the property, a new one if need be.
func (b *Builder) column(device DeviceRef, property string) *column {
	key := seriesKey{b.device(device), property}
	if i, ok := b.index[key]; ok {
		return &b.series[i]
	}
	i := len(b.series)
	if i < cap(b.series) {
		b.series = b.series[:i+1]
	} else {
		b.series = append(b.series, column{})
	}
	c := &b.series[i]
	*c = column{
		device: key.device, property: clean(property), last: b.base,
		dt: c.dt[:0], kinds: c.kinds[:0], ints: c.ints[:0], uints: c.uints[:0], floats: c.floats[:0],
		texts: c.texts[:0], qualities: c.qualities[:0], reasons: c.reasons[:0],
	}
	if b.index == nil {
		b.index = map[seriesKey]int{}
	}
	b.index[key] = i
	b.size += seriesOverhead + len(property)
	return c
}

// device returns the device's index in the record.
func (b *Builder) device(ref DeviceRef) uint32 {
	if len(b.devices) > 0 && ref == b.lastRef {
		return b.lastIndex
	}
	i, ok := b.devices[ref]
	if !ok {
		if b.devices == nil {
			b.devices = map[DeviceRef]uint32{}
		}
		i = uint32(len(b.devices))
		b.devices[ref] = i
		before := len(b.deviceBytes)
		b.deviceBytes = appendMessage(b.deviceBytes, tagDevices, &pb.DeviceRef{Uid: clean(ref.UID), Assignment: ref.Assignment})
		b.size += len(b.deviceBytes) - before
	}
	b.lastRef, b.lastIndex = ref, i
	return i
}

func (b *Builder) reason(r models.Reason) uint32 {
	i, ok := b.reasons[r]
	if !ok {
		if b.reasons == nil {
			b.reasons = map[models.Reason]uint32{}
		}
		i = uint32(len(b.reasons))
		b.reasons[r] = i
		b.reasonBytes = appendText(b.reasonBytes, tagReasons, clean(string(r)))
		b.size += len(r) + 2
	}
	return i
}

// AddWrite adds a write's change of state.
func (b *Builder) AddWrite(w WriteEvent) {
	before := len(b.writeBytes)
	b.writeBytes = appendMessage(b.writeBytes, tagWrites, &pb.WriteEvent{
		Device: b.device(w.Device), Property: clean(w.Property), Id: clean(w.ID), State: clean(w.State),
		Error: clean(w.Error), TimeUs: microseconds(w.Time), Late: w.Late, Refused: w.Refused, SentUs: microseconds(w.Sent), Asked: b.asked(w),
	})
	b.writes++
	b.size += len(b.writeBytes) - before
}

// AddLocal adds a desired value set at the edge.
func (b *Builder) AddLocal(l LocalDesired) {
	before := len(b.localBytes)
	b.localBytes = appendMessage(b.localBytes, tagLocals, b.local(l))
	b.locals++
	b.size += len(b.localBytes) - before
}

func (b *Builder) local(l LocalDesired) *pb.LocalDesired {
	out := &pb.LocalDesired{
		Device: b.device(l.Device), Property: clean(l.Property), Id: clean(l.ID), Value: l.Value.AppendJSON(nil),
		Base: l.Base, TimeUs: microseconds(l.Time), By: clean(l.By), After: clean(l.After), Reason: clean(l.Reason), Origin: clean(l.Origin),
	}
	if v := l.Before; v != nil {
		kind, bits, text := v.Value.Raw()
		out.Before = &pb.LatestValue{Kind: uint32(kind), Bits: bits, Quality: uint32(v.Quality), Reason: clean(string(v.Reason)), TimeUs: microseconds(v.Time)}
		if kind >= models.KindString {
			out.Before.Text = []byte(text)
		}
	}
	return out
}

func (b *Builder) asked(w WriteEvent) *pb.LocalDesired {
	if w.Asked == nil {
		return nil
	}
	l := *w.Asked
	l.Device = w.Device
	return b.local(l)
}

// AddState adds a change of a device's state.
func (b *Builder) AddState(s StateEvent) {
	before := len(b.stateBytes)
	b.stateBytes = appendMessage(b.stateBytes, tagStates, &pb.StateEvent{
		Device: b.device(s.Device), State: clean(string(s.State)), Reason: clean(s.Reason),
		Message: clean(s.Message), TimeUs: microseconds(s.Time),
	})
	b.states++
	b.size += len(b.stateBytes) - before
}

// AddGap adds a gap.
func (b *Builder) AddGap(g Gap) {
	before := len(b.gapBytes)
	b.gapBytes = appendMessage(b.gapBytes, tagGaps, &pb.Gap{
		Reason: clean(g.Reason), Epoch: clean(g.Epoch), FirstSeq: g.FirstSeq, LastSeq: g.LastSeq,
		Samples: g.Samples, FromUs: microseconds(g.From), ToUs: microseconds(g.To),
	})
	b.gaps++
	b.size += len(b.gapBytes) - before
}

// AddGaps adds gaps, and returns what takes them away again as long as nothing else
// has been added.
func (b *Builder) AddGaps(gaps []Gap) (undo func()) {
	n, size, bytes := b.gaps, b.size, len(b.gapBytes)
	for _, g := range gaps {
		b.AddGap(g)
	}
	return func() { b.gaps, b.size, b.gapBytes = n, size, b.gapBytes[:bytes] }
}

// Samples returns the number of samples added since Reset.
func (b *Builder) Samples() int { return b.samples }

// Gaps returns the number of gaps added since Reset.
func (b *Builder) Gaps() int { return b.gaps }

// Empty reports whether nothing has been added since Reset.
func (b *Builder) Empty() bool { return b.samples+b.writes+b.locals+b.states+b.gaps == 0 }

// Span returns the times of the earliest and the latest sample, zero when there
// is none.
func (b *Builder) Span() (from, to time.Time) {
	if b.samples == 0 {
		return time.Time{}, time.Time{}
	}
	return time.UnixMicro(b.from).UTC(), time.UnixMicro(b.to).UTC()
}

// Size returns about how many bytes Bytes would return, rather too many than
// too few.
func (b *Builder) Size() int { return 16 + b.size }

// Bytes returns the record, in memory of its own.
func (b *Builder) Bytes() []byte { return b.AppendTo(make([]byte, 0, b.Size())) }

// AppendTo appends the record to out.
func (b *Builder) AppendTo(out []byte) []byte {
	if b.base != 0 {
		out = binary.AppendUvarint(append(out, tagBase), uint64(b.base))
	}
	out = append(out, b.deviceBytes...)
	out = append(out, b.reasonBytes...)
	for i := range b.series {
		c := &b.series[i]
		out = binary.AppendUvarint(append(out, tagSeries), uint64(c.size()))
		out = c.appendTo(out)
	}
	out = append(out, b.writeBytes...)
	out = append(out, b.localBytes...)
	out = append(out, b.stateBytes...)
	return append(out, b.gapBytes...)
}

// wireKinds returns the kinds as the record has them: one when all are the same.
func (c *column) wireKinds() []byte {
	if c.mixed {
		return c.kinds
	}
	return c.kinds[:1]
}

// size returns the exact length of what appendTo appends.
func (c *column) size() int {
	n := len(c.texts)
	if c.device != 0 {
		n += 1 + uvarintLen(uint64(c.device))
	}
	for _, field := range [...]int{len(c.property), len(c.dt), len(c.wireKinds()), len(c.ints), len(c.uints), len(c.floats), len(c.qualities), len(c.reasons)} {
		if field > 0 {
			n += 1 + uvarintLen(uint64(field)) + field
		}
	}
	return n
}

func (c *column) appendTo(out []byte) []byte {
	if c.device != 0 {
		out = binary.AppendUvarint(append(out, tagDevice), uint64(c.device))
	}
	if c.property != "" {
		out = appendText(out, tagProperty, c.property)
	}
	out = appendField(out, tagDt, c.dt)
	out = appendField(out, tagKinds, c.wireKinds())
	out = appendField(out, tagInts, c.ints)
	out = appendField(out, tagUints, c.uints)
	out = appendField(out, tagFloats, c.floats)
	out = append(out, c.texts...)
	out = appendField(out, tagQualities, c.qualities)
	return appendField(out, tagSeriesReasons, c.reasons)
}

// appendField appends a field of bytes unless it is empty.
func appendField(out []byte, tag byte, field []byte) []byte {
	if len(field) == 0 {
		return out
	}
	out = binary.AppendUvarint(append(out, tag), uint64(len(field)))
	return append(out, field...)
}

func appendText(out []byte, tag byte, text string) []byte {
	out = binary.AppendUvarint(append(out, tag), uint64(len(text)))
	return append(out, text...)
}

type message interface {
	SizeVT() int
	MarshalToSizedBufferVT([]byte) (int, error)
}

func appendMessage(out []byte, tag byte, m message) []byte {
	n := m.SizeVT()
	out = binary.AppendUvarint(append(out, tag), uint64(n))
	at := len(out)
	out = append(out, make([]byte, n)...)
	// It fails only when the buffer is not of the message's size.
	_, _ = m.MarshalToSizedBufferVT(out[at:])
	return out
}

func uvarintLen(u uint64) int { return (bits.Len64(u|1) + 6) / 7 }

// clean makes text what a record may hold: UTF-8 without NUL, which no
// Postgres text can hold. Devices and their drivers put anything in a message.
func clean(text string) string {
	if utf8.ValidString(text) && strings.IndexByte(text, 0) < 0 {
		return text
	}
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
}

// microseconds is a time on the wire, where 0 is none.
func microseconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// timeOf is the inverse of microseconds.
func timeOf(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

// finite reports whether f is neither a NaN nor an infinity.
func finite(f float64) bool { return !math.IsNaN(f) && !math.IsInf(f, 0) }
