package edgelink

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

// A record's series are decoded here and not by generated code: that makes a struct
// and several slices of each series, and a record of a plant has a thousand series
// of one sample each. All that is read into is the columns of the whole record.

// rawSeries is a pb.Series as it is on the wire: the contents of its fields, numbers
// packed. They are parts of the record.
type rawSeries struct {
	device                           uint64
	property                         []byte
	dt, ints, uints, floats, reasons []byte
	kinds, qualities                 []byte
	texts                            []byte // with tags and lengths
	n                                int    // samples: numbers in dt
}

// Fields of a record's series.
const (
	fieldSeries = tagSeries >> 3

	fieldDevice        = tagDevice >> 3
	fieldProperty      = tagProperty >> 3
	fieldDt            = tagDt >> 3
	fieldKinds         = tagKinds >> 3
	fieldInts          = tagInts >> 3
	fieldUints         = tagUints >> 3
	fieldFloats        = tagFloats >> 3
	fieldTexts         = tagTexts >> 3
	fieldQualities     = tagQualities >> 3
	fieldSeriesReasons = tagSeriesReasons >> 3
)

// splitRecord parts a record into its series, which it counts, and the rest. A
// series is taken apart when it is its turn, into the same rawSeries each time: a
// record of many thousands costs more memory traffic than its bytes do otherwise.
func splitRecord(data []byte) (series int, rest []byte, err error) {
	for len(data) > 0 {
		num, kind, l := protowire.ConsumeTag(data)
		if l < 0 {
			return 0, nil, malformed("%v", protowire.ParseError(l))
		}
		v := protowire.ConsumeFieldValue(num, kind, data[l:])
		if v < 0 {
			return 0, nil, malformed("%v", protowire.ParseError(v))
		}
		switch {
		case num != fieldSeries:
			rest = append(rest, data[:l+v]...)
		case kind != protowire.BytesType:
			return 0, nil, malformed("series of wire type %d", kind)
		default:
			series++
		}
		data = data[l+v:]
	}
	return series, rest, nil
}

// next takes the next series of a record that splitRecord took apart; there
// must be one.
func (s *rawSeries) next(data []byte) (left []byte, err error) {
	for {
		num, kind, l := protowire.ConsumeTag(data)
		if num == fieldSeries {
			message, n := protowire.ConsumeBytes(data[l:])
			*s = rawSeries{}
			return data[l+n:], s.parse(message)
		}
		data = data[l+protowire.ConsumeFieldValue(num, kind, data[l:]):]
	}
}

// parse takes a series apart. The last one of a field counts, as always; numbers
// that are not packed, or in several parts, are packed.
func (s *rawSeries) parse(m []byte) error {
	for len(m) > 0 {
		num, kind, l := protowire.ConsumeTag(m)
		if l < 0 {
			return malformed("%v", protowire.ParseError(l))
		}
		v := protowire.ConsumeFieldValue(num, kind, m[l:])
		if v < 0 {
			return malformed("%v", protowire.ParseError(v))
		}
		field, whole := m[l:l+v], m[:l+v]
		m = m[l+v:]
		var packed *[]byte
		element := protowire.VarintType
		switch num {
		case fieldDevice:
			if kind != protowire.VarintType {
				return malformed("device of wire type %d", kind)
			}
			s.device, _ = protowire.ConsumeVarint(field)
			continue
		case fieldTexts:
			if kind != protowire.BytesType {
				return malformed("text of wire type %d", kind)
			}
			s.texts = join(s.texts, whole)
			continue
		case fieldProperty, fieldKinds, fieldQualities:
			if kind != protowire.BytesType {
				return malformed("field %d of wire type %d", num, kind)
			}
			b, _ := protowire.ConsumeBytes(field)
			switch num {
			case fieldProperty:
				s.property = b
			case fieldKinds:
				s.kinds = b
			default:
				s.qualities = b
			}
			continue
		case fieldDt:
			packed = &s.dt
		case fieldInts:
			packed = &s.ints
		case fieldUints:
			packed = &s.uints
		case fieldFloats:
			packed, element = &s.floats, protowire.Fixed64Type
		case fieldSeriesReasons:
			packed = &s.reasons
		default: // of a newer edge; tolerated
			continue
		}
		switch kind {
		case protowire.BytesType:
			b, _ := protowire.ConsumeBytes(field)
			if element == protowire.Fixed64Type && len(b)%8 != 0 || element == protowire.VarintType && len(b) > 0 && b[len(b)-1] >= 0x80 {
				return malformed("field %d ends within a number", num)
			}
			*packed = join(*packed, b)
		case element:
			*packed = join(*packed, field)
		default:
			return malformed("field %d of wire type %d", num, kind)
		}
	}
	s.device = uint64(uint32(s.device))
	s.n = numbers(s.dt)
	return nil
}

// join is a and b one after the other, without copying when there is no a.
func join(a, b []byte) []byte {
	if len(a) == 0 {
		return b
	}
	return append(a[:len(a):len(a)], b...)
}

// numbers is how many varints there are: each ends with a byte below 0x80.
func numbers(b []byte) (n int) {
	for _, c := range b {
		if c < 0x80 {
			n++
		}
	}
	return n
}

// uvarint reads one number; what is too long for 64 bits is malformed.
func uvarint(b []byte) (v uint64, rest []byte, err error) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), b[1:], nil
	}
	v, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, nil, malformed("a number that is too long or missing")
	}
	return v, b[n:], nil
}

// fill reads the series of a record, which are so many, into columns.
func (d *Decoded) fill(data []byte, series int, r *pb.Record, devices []DeviceRef) error {
	if series == 0 {
		return nil
	}
	c := &d.Columns
	d.Series = make([]Series, series)
	// Names are parts of one string, or of few: whoever keeps one for long clones it.
	var names strings.Builder
	var from rawSeries
	for i := range d.Series {
		var err error
		if data, err = from.next(data); err != nil {
			return fmt.Errorf("series %d: %w", i, err)
		}
		if from.n == 0 {
			return malformed("series %d: no samples", i)
		}
		at := len(c.Times)
		if from.n > maxRecordValues-at {
			return malformed("more than %d samples", maxRecordValues)
		}
		if len(from.kinds) != 1 && len(from.kinds) != from.n {
			return malformed("series %d: %d kinds for %d samples", i, len(from.kinds), from.n)
		}
		if i == 0 { // mostly all are alike; a sample has a byte at least
			c.reserve(min(series*from.n, len(data)+from.n, maxRecordValues))
			names.Grow(min(series*len(from.property), len(data)+len(from.property)))
		}
		c.extend(&from)
		names.Write(from.property)
		all := names.String()
		to := &d.Series[i]
		*to = Series{Property: all[len(all)-len(from.property):], Lo: at, Hi: at + from.n, columns: c}
		if from.device >= uint64(len(devices)) {
			return malformed("series %d: device %d of %d", i, from.device, len(devices))
		}
		to.Device = devices[from.device]
		if err := checkName("property", to.Property); err != nil {
			return fmt.Errorf("series %d: %w", i, err)
		}
		if err := c.read(&from, to.Lo, r); err != nil {
			return fmt.Errorf("series %d: %w", i, err)
		}
	}
	return nil
}

// reserve makes room for so many samples in the columns that all have.
func (c *Columns) reserve(n int) { c.Times, c.Kinds = make([]int64, 0, n), make([]uint8, 0, n) }

// extend makes the columns longer by a series' samples, and those columns that it
// is the first to need.
func (c *Columns) extend(s *rawSeries) {
	before, most := len(c.Times), max(cap(c.Times), len(c.Times)+s.n)
	c.Times, c.Kinds = longer(c.Times, s.n), longer(c.Kinds, s.n)
	c.Ints = longerIf(c.Ints, len(s.ints)+len(s.uints) > 0, before, s.n, most)
	c.Floats = longerIf(c.Floats, len(s.floats) > 0, before, s.n, most)
	c.Texts = longerIf(c.Texts, len(s.texts) > 0, before, s.n, most)
	c.Qualities, c.Reasons = longerIf(c.Qualities, len(s.qualities) > 0, before, s.n, most), longerIf(c.Reasons, len(s.qualities) > 0, before, s.n, most)
}

func longer[T any](c []T, n int) []T { return append(c, make([]T, n)...) }

// longerIf makes a column of before elements longer that is needed now or is there
// already.
func longerIf[T any](c []T, needed bool, before, n, most int) []T {
	switch {
	case c == nil && !needed:
		return nil
	case c == nil:
		c = make([]T, before, most)
	}
	return longer(c, n)
}

// read reads the samples of one series to where they begin.
func (c *Columns) read(s *rawSeries, lo int, r *pb.Record) error {
	at, b := r.BaseUs, s.dt
	for i := range s.n {
		v, rest, err := uvarint(b)
		if err != nil {
			return err
		}
		at += protowire.DecodeZigZag(v) // wraps as the writer's subtraction did
		c.Times[lo+i], b = at, rest
	}
	kinds := c.Kinds[lo : lo+s.n]
	if len(s.kinds) == s.n {
		copy(kinds, s.kinds)
	} else {
		for i := range kinds {
			kinds[i] = s.kinds[0]
		}
	}
	if err := c.readValues(s, lo, kinds); err != nil {
		return err
	}
	return c.qualify(s, lo, r.Reasons)
}

func (c *Columns) readValues(s *rawSeries, lo int, kinds []uint8) error {
	ints, uints, floats, texts := s.ints, s.uints, s.floats, s.texts
	for i, kind := range kinds {
		var v uint64
		var err error
		switch models.Kind(kind) {
		case models.KindNull:
		case models.KindBool, models.KindInt:
			v, ints, err = uvarint(ints)
			c.setInt(lo+i, protowire.DecodeZigZag(v))
			if n := protowire.DecodeZigZag(v); err == nil && models.Kind(kind) == models.KindBool && n != 0 && n != 1 {
				return malformed("bool %d", n)
			}
		case models.KindUint:
			v, uints, err = uvarint(uints)
			c.setInt(lo+i, int64(v))
			if err == nil && v <= math.MaxInt64 {
				return malformed("uint %d that fits an int", v)
			}
		case models.KindFloat:
			if len(floats) == 0 {
				return malformed("fewer floats than the kinds ask for")
			}
			f := math.Float64frombits(binary.LittleEndian.Uint64(floats))
			floats = floats[8:]
			if !finite(f) {
				return malformed("float that is not finite")
			}
			if f != 0 { // and not -0, which would be another value
				c.Floats[lo+i] = f
			}
		case models.KindString, models.KindBytes, models.KindJSON:
			texts, err = c.readText(texts, lo+i, models.Kind(kind))
		default:
			return malformed("unknown kind %d", kind)
		}
		if err != nil {
			return err
		}
	}
	if len(ints)+len(uints)+len(floats)+len(texts) > 0 {
		return malformed("more values than the kinds ask for")
	}
	return nil
}

func (c *Columns) setInt(i int, v int64) {
	if c.Ints != nil { // else the number is missing, and that is an error
		c.Ints[i] = v
	}
}

// readText reads one text, into a string of its own: who keeps it keeps no more.
func (c *Columns) readText(b []byte, i int, kind models.Kind) (rest []byte, err error) {
	_, _, l := protowire.ConsumeTag(b)
	if l < 0 {
		return nil, malformed("fewer texts than the kinds ask for")
	}
	text, n := protowire.ConsumeBytes(b[l:])
	switch kind {
	case models.KindString:
		if !utf8.Valid(text) {
			return nil, malformed("string that is not UTF-8")
		}
	case models.KindJSON:
		v, err := models.JSON(text)
		if err != nil {
			return nil, malformed("object or array: %v", err)
		}
		_, _, c.Texts[i] = v.Raw()
		return b[l+n:], nil
	}
	c.Texts[i] = string(text)
	return b[l+n:], nil
}

func (c *Columns) qualify(s *rawSeries, lo int, reasons []string) error {
	if len(s.qualities) == 0 {
		if len(s.reasons) > 0 {
			return malformed("reasons without qualities")
		}
		return nil
	}
	if len(s.qualities) != s.n {
		return malformed("%d qualities for %d samples", len(s.qualities), s.n)
	}
	left := s.reasons
	for i, q := range s.qualities {
		if models.Quality(q) == models.Good {
			continue
		}
		if models.Quality(q) > models.Bad {
			q = byte(models.Bad) // of a newer release: nothing looks better than it is
		}
		if len(left) == 0 {
			return malformed("fewer reasons than samples that are not good")
		}
		index, rest, err := uvarint(left)
		if err != nil {
			return err
		}
		if index = uint64(uint32(index)); index >= uint64(len(reasons)) {
			return malformed("reason %d of %d", index, len(reasons))
		}
		left = rest
		c.Qualities[lo+i], c.Reasons[lo+i] = q, reasons[index]
	}
	if len(left) > 0 {
		return malformed("more reasons than samples that are not good")
	}
	return nil
}
