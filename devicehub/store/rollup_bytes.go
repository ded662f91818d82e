package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/whimbrel-edge/whimbrel/models"
)

// Entries as bytes, as both stores keep them: a version, how many there are, and of
// each
//
//	sample without a value  0, time, length of the reason and the reason
//	rollup                  count, time of the first, time from first to last,
//	                        values of first, last, least and greatest, parts of the sum
//
// Counts and lengths are unsigned varints, times signed ones, the first since 1970
// and the others since the entry before. A value is its kind and a varint, or the
// eight bytes of a float; the parts of the sum are two lists of such bytes.
const entriesVersion = 1

var errEntries = errors.New("not rollups")

// AppendEntries encodes entries. It reports false for what has no such form: values
// that are no numbers.
func AppendEntries(out []byte, entries []Entry) ([]byte, bool) {
	out = append(out, entriesVersion)
	out = binary.AppendUvarint(out, uint64(len(entries)))
	var last int64
	for i := range entries {
		e := &entries[i]
		r := &e.Rollup
		out = binary.AppendUvarint(out, uint64(r.Count))
		if r.Count == 0 {
			out = binary.AppendVarint(out, e.Sample.TimeUS-last) // wraps, and so does the reader
			last = e.Sample.TimeUS
			out = append(binary.AppendUvarint(out, uint64(len(e.Sample.Reason))), e.Sample.Reason...)
			continue
		}
		if r.Numbers != r.Count {
			return nil, false
		}
		out = binary.AppendVarint(out, r.First.TimeUS-last)
		out = binary.AppendVarint(out, r.Last.TimeUS-r.First.TimeUS)
		last = r.Last.TimeUS
		for _, v := range []*Sample{&r.First, &r.Last, &r.Min, &r.Max} {
			out = append(out, v.Kind)
			if models.Kind(v.Kind) == models.KindFloat {
				out = binary.LittleEndian.AppendUint64(out, math.Float64bits(v.Float))
			} else {
				out = binary.AppendVarint(out, v.Int)
			}
		}
		for _, parts := range [][]float64{r.Sum.parts, r.Sum.huge} {
			out = binary.AppendUvarint(out, uint64(len(parts)))
			for _, f := range parts {
				out = binary.LittleEndian.AppendUint64(out, math.Float64bits(f))
			}
		}
	}
	return out, true
}

// EachEntry calls f for each entry; what it is given is good until f returns.
func EachEntry(b []byte, f func(*Entry) error) error {
	d := decoder{b: b}
	if d.byte() != entriesVersion {
		return fmt.Errorf("%w: of a later release", errEntries)
	}
	n := d.uvarint()
	var last int64
	var parts [8]float64
	var e Entry
	for range n {
		e = Entry{}
		r := &e.Rollup
		r.Count = int64(d.uvarint())
		if r.Count == 0 {
			last += d.varint()
			e.Sample = Sample{TimeUS: last, Reason: string(d.take(d.uvarint())), Quality: uint8(models.Bad)}
		} else {
			r.Numbers = r.Count
			r.First.TimeUS = last + d.varint()
			r.Last.TimeUS = r.First.TimeUS + d.varint()
			last = r.Last.TimeUS
			for _, v := range []*Sample{&r.First, &r.Last, &r.Min, &r.Max} {
				if v.Kind = d.byte(); models.Kind(v.Kind) == models.KindFloat {
					v.Float = d.float()
				} else {
					v.Int = d.varint()
				}
			}
			at := parts[:0]
			for range min(d.uvarint(), uint64(len(d.b))) {
				at = append(at, d.float())
			}
			r.Sum.parts = at
			for range min(d.uvarint(), uint64(len(d.b))) {
				r.Sum.huge = append(r.Sum.huge, d.float())
			}
		}
		if d.bad || r.Count < 0 {
			return errEntries
		}
		if err := f(&e); err != nil {
			return err
		}
	}
	if d.bad || len(d.b) > 0 {
		return errEntries
	}
	return nil
}

// decoder reads from b; once something is missing all is bad.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) take(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.bad, d.b = true, nil
		return nil
	}
	out := d.b[:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) byte() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) float() float64 {
	if b := d.take(8); b != nil {
		return math.Float64frombits(binary.LittleEndian.Uint64(b))
	}
	return 0
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}
