package postgres

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// Samples go to the server and come back as arrays in its binary form. The driver
// would take every element through an interface, which costs more than all the
// rest; here they are written and read as what they are.
//
// An array is: dimensions (1, or 0 when it is empty), whether there are NULLs, the
// element's type, length, lower bound; then of each element its length, -1 for
// NULL, and its bytes. All numbers are big-endian.

// tuple is the values of one row in the making.
type tuple struct {
	buf  []byte
	ends []int // of the values so far in buf; negative: of a NULL
}

func (t *tuple) reset() { t.buf, t.ends = t.buf[:0], t.ends[:0] }

func (t *tuple) end() { t.ends = append(t.ends, len(t.buf)) }

func (t *tuple) null() { t.ends = append(t.ends, -1) }

func (t *tuple) int2(v int16) {
	t.buf = binary.BigEndian.AppendUint16(t.buf, uint16(v))
	t.end()
}

func (t *tuple) int4(v int32) {
	t.buf = binary.BigEndian.AppendUint32(t.buf, uint32(v))
	t.end()
}

func (t *tuple) int8(v int64) {
	t.buf = binary.BigEndian.AppendUint64(t.buf, uint64(v))
	t.end()
}

func (t *tuple) float8(v float64) { t.int8(int64(math.Float64bits(v))) }

func (t *tuple) bool(v bool) {
	b := byte(0)
	if v {
		b = 1
	}
	t.buf = append(t.buf, b)
	t.end()
}

// bytes writes a bytea, nil being NULL.
func (t *tuple) bytes(v []byte) {
	if v == nil {
		t.null()
		return
	}
	t.buf = append(t.buf, v...)
	t.end()
}

// timestamp writes a timestamptz: microseconds since 2000.
func (t *tuple) timestamp(at time.Time) { t.int8(at.UnixMicro() - year2000) }

const year2000 = 946_684_800_000_000

func (t *tuple) array(oid uint32, n int, nulls bool) {
	dimensions, flag := uint32(1), uint32(0)
	if n == 0 {
		dimensions = 0
	}
	if nulls {
		flag = 1
	}
	t.buf = binary.BigEndian.AppendUint32(t.buf, dimensions)
	t.buf = binary.BigEndian.AppendUint32(t.buf, flag)
	t.buf = binary.BigEndian.AppendUint32(t.buf, oid)
	if n > 0 {
		t.buf = binary.BigEndian.AppendUint32(t.buf, uint32(n))
		t.buf = binary.BigEndian.AppendUint32(t.buf, 1)
	}
}

// grow makes room for n more bytes and returns them.
func (t *tuple) grow(n int) []byte {
	at := len(t.buf)
	if cap(t.buf)-at < n {
		bigger := make([]byte, at, 2*cap(t.buf)+n)
		copy(bigger, t.buf)
		t.buf = bigger
	}
	t.buf = t.buf[:at+n]
	return t.buf[at:]
}

// The arrays: a nil slice is NULL.

func (t *tuple) int8s(v []int64) {
	if v == nil {
		t.null()
		return
	}
	t.array(pgtype.Int8OID, len(v), false)
	b := t.grow(12 * len(v))
	for i, e := range v {
		binary.BigEndian.PutUint32(b[12*i:], 8)
		binary.BigEndian.PutUint64(b[12*i+4:], uint64(e))
	}
	t.end()
}

func (t *tuple) float8s(v []float64) {
	if v == nil {
		t.null()
		return
	}
	t.array(pgtype.Float8OID, len(v), false)
	b := t.grow(12 * len(v))
	for i, e := range v {
		binary.BigEndian.PutUint32(b[12*i:], 8)
		binary.BigEndian.PutUint64(b[12*i+4:], math.Float64bits(e))
	}
	t.end()
}

func (t *tuple) int4s(v []int32) {
	if v == nil {
		t.null()
		return
	}
	t.array(pgtype.Int4OID, len(v), false)
	b := t.grow(8 * len(v))
	for i, e := range v {
		binary.BigEndian.PutUint32(b[8*i:], 4)
		binary.BigEndian.PutUint32(b[8*i+4:], uint32(e))
	}
	t.end()
}

func (t *tuple) float4s(v []float32) {
	if v == nil {
		t.null()
		return
	}
	t.array(pgtype.Float4OID, len(v), false)
	b := t.grow(8 * len(v))
	for i, e := range v {
		binary.BigEndian.PutUint32(b[8*i:], 4)
		binary.BigEndian.PutUint32(b[8*i+4:], math.Float32bits(e))
	}
	t.end()
}

func (t *tuple) int2s(v []int16) {
	if v == nil {
		t.null()
		return
	}
	t.array(pgtype.Int2OID, len(v), false)
	b := t.grow(6 * len(v))
	for i, e := range v {
		binary.BigEndian.PutUint32(b[6*i:], 2)
		binary.BigEndian.PutUint16(b[6*i+4:], uint16(e))
	}
	t.end()
}

// smalls writes bytes as an array of int2.
func (t *tuple) smalls(v []uint8) {
	if v == nil {
		t.null()
		return
	}
	t.array(pgtype.Int2OID, len(v), false)
	b := t.grow(6 * len(v))
	for i, e := range v {
		binary.BigEndian.PutUint32(b[6*i:], 2)
		binary.BigEndian.PutUint16(b[6*i+4:], uint16(e))
	}
	t.end()
}

func (t *tuple) bools(v []bool) {
	if v == nil {
		t.null()
		return
	}
	t.array(pgtype.BoolOID, len(v), false)
	b := t.grow(5 * len(v))
	for i, e := range v {
		binary.BigEndian.PutUint32(b[5*i:], 1)
		b[5*i+4] = 0
		if e {
			b[5*i+4] = 1
		}
	}
	t.end()
}

// texts writes an array of bytea or text, whose empty elements are NULL.
func (t *tuple) texts(oid uint32, v []string) {
	if v == nil {
		t.null()
		return
	}
	t.array(oid, len(v), true)
	for _, e := range v {
		if e == "" {
			t.buf = binary.BigEndian.AppendUint32(t.buf, math.MaxUint32)
			continue
		}
		t.buf = append(binary.BigEndian.AppendUint32(t.buf, uint32(len(e))), e...)
	}
	t.end()
}

// values returns copies of the row's values.
func (t *tuple) values() [][]byte {
	out := make([][]byte, len(t.ends))
	buf := slices.Clone(t.buf)
	at := 0
	for i, end := range t.ends {
		if end > at {
			out[i] = buf[at:end:end]
			at = end
		} else if end == at {
			out[i] = []byte{}
		}
	}
	return out
}

// appendTo appends the row as COPY takes it.
func (t *tuple) appendTo(out []byte) []byte {
	out = binary.BigEndian.AppendUint16(out, uint16(len(t.ends)))
	at := 0
	for _, end := range t.ends {
		if end < 0 {
			out = binary.BigEndian.AppendUint32(out, math.MaxUint32)
			continue
		}
		out = append(binary.BigEndian.AppendUint32(out, uint32(end-at)), t.buf[at:end]...)
		at = end
	}
	return out
}

// encoded is an array in binary form, as an argument of a query.
type encoded []byte

// asEncoded is v as an argument, NULL for nil.
func asEncoded(v []byte) any {
	if v == nil {
		return nil
	}
	return encoded(v)
}

// arrayCodec takes encoded for what it is.
type arrayCodec struct{ pgtype.Codec }

// PlanEncode implements pgtype.Codec.
func (c arrayCodec) PlanEncode(m *pgtype.Map, oid uint32, format int16, value any) pgtype.EncodePlan {
	if _, is := value.(encoded); is && format == pgtype.BinaryFormatCode {
		return encodedPlan{}
	}
	return c.Codec.PlanEncode(m, oid, format, value)
}

type encodedPlan struct{}

func (encodedPlan) Encode(value any, buf []byte) ([]byte, error) {
	return append(buf, value.(encoded)...), nil
}

// acceptEncoded lets a connection take encoded for arrays of these types.
func acceptEncoded(m *pgtype.Map) {
	for _, oid := range []uint32{pgtype.Int8ArrayOID, pgtype.Int4ArrayOID, pgtype.Int2ArrayOID, pgtype.Float8ArrayOID, pgtype.ByteaArrayOID,
		pgtype.TextArrayOID, pgtype.BoolArrayOID} {
		t, ok := m.TypeForOID(oid)
		if !ok {
			continue // the driver's own type; then it says so when one comes
		}
		m.RegisterType(&pgtype.Type{Name: t.Name, OID: oid, Codec: arrayCodec{t.Codec}})
	}
}

// copyHead and copyTail surround the rows of a COPY.
const (
	copyHead = "PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	copyTail = "\xff\xff"
)

var errArray = errors.New("not the array that was expected")

// elements checks an array of a type whose elements take size bytes, and returns
// them with their lengths; n is how many there are.
func elements(b []byte, oid uint32, size int) (body []byte, n int, err error) {
	if len(b) < 12 || binary.BigEndian.Uint32(b[8:]) != oid || binary.BigEndian.Uint32(b) > 1 {
		return nil, 0, errArray
	}
	if binary.BigEndian.Uint32(b) == 0 {
		return nil, 0, nil
	}
	if len(b) < 20 {
		return nil, 0, errArray
	}
	n = int(int32(binary.BigEndian.Uint32(b[12:])))
	body = b[20:]
	if n < 0 || size > 0 && len(body) != n*(size+4) {
		return nil, 0, fmt.Errorf("%w: %d bytes for %d elements", errArray, len(body), n)
	}
	return body, n, nil
}

// fixed reads an array of elements of one size without NULLs; NULL is nil.
func fixed[T any](b []byte, oid uint32, size int, get func([]byte) T) ([]T, error) {
	if b == nil {
		return nil, nil
	}
	body, n, err := elements(b, oid, size)
	if err != nil {
		return nil, err
	}
	out := make([]T, n)
	for i := range out {
		out[i] = get(body[i*(size+4)+4:])
	}
	return out, nil
}

func readInt8s(b []byte) ([]int64, error) {
	return fixed(b, pgtype.Int8OID, 8, func(b []byte) int64 { return int64(binary.BigEndian.Uint64(b)) })
}

func readInt4s(b []byte) ([]int32, error) {
	return fixed(b, pgtype.Int4OID, 4, func(b []byte) int32 { return int32(binary.BigEndian.Uint32(b)) })
}

func readInt2s(b []byte) ([]int16, error) {
	return fixed(b, pgtype.Int2OID, 2, func(b []byte) int16 { return int16(binary.BigEndian.Uint16(b)) })
}

func readSmalls(b []byte) ([]uint8, error) {
	return fixed(b, pgtype.Int2OID, 2, func(b []byte) uint8 { return b[1] })
}

func readFloat8s(b []byte) ([]float64, error) {
	return fixed(b, pgtype.Float8OID, 8, func(b []byte) float64 { return math.Float64frombits(binary.BigEndian.Uint64(b)) })
}

func readFloat4s(b []byte) ([]float32, error) {
	return fixed(b, pgtype.Float4OID, 4, func(b []byte) float32 { return math.Float32frombits(binary.BigEndian.Uint32(b)) })
}

func readBools(b []byte) ([]bool, error) {
	return fixed(b, pgtype.BoolOID, 1, func(b []byte) bool { return b[0] != 0 })
}

// readTexts reads an array of bytea or text; NULL elements are empty.
func readTexts(b []byte, oid uint32) ([]string, error) {
	if b == nil {
		return nil, nil
	}
	body, n, err := elements(b, oid, 0)
	if err != nil {
		return nil, err
	}
	out := make([]string, n)
	for i := range out {
		if len(body) < 4 {
			return nil, errArray
		}
		size := int(int32(binary.BigEndian.Uint32(body)))
		body = body[4:]
		if size < 0 {
			continue
		}
		if size > len(body) {
			return nil, errArray
		}
		out[i] = string(body[:size])
		body = body[size:]
	}
	return out, nil
}

func readInt8(b []byte) int64 { return int64(binary.BigEndian.Uint64(b)) }
func readInt4(b []byte) int32 { return int32(binary.BigEndian.Uint32(b)) }
func readInt2(b []byte) int16 { return int16(binary.BigEndian.Uint16(b)) }

func readTimestamp(b []byte) time.Time { return time.UnixMicro(readInt8(b) + year2000) }
