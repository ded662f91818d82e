package postgres

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/models"
)

// Rows of samples_batch. What one commit brings, or what the compactor puts
// together, is ordered by series and cut into rows; so a reader of one series
// opens few of them. Here and in chunks samples are columns, of which those that
// would say nothing are nil.

// columns are samples and whether each was delivered late. Of store.Samples' slices
// all but Series, TimeUS and Kind may be nil: all zero. Backfill may be nil: all
// are as Late says.
type columns struct {
	store.Samples
	Backfill []bool
	Late     bool
}

func (c *columns) late(i int) bool {
	if c.Backfill == nil {
		return c.Late
	}
	return c.Backfill[i]
}

func (c *columns) sample(i int) store.Sample {
	v := c.At(i)
	v.Backfill = c.late(i)
	return v
}

// span is the samples [lo, hi) of columns from, which are all of one series.
type span struct {
	series int64
	from   *columns
	lo, hi int32
}

func (r *span) len() int { return int(r.hi - r.lo) }

// class is which columns of values a run needs. Rows are of runs of one class, for
// an element that says nothing costs as much as one that does.
type class uint8

const (
	classFloat class = iota // and samples without a value
	classWhole              // and those
	classOther
)

// classOf is the class of all runs of one series.
func classOf(runs []span) class {
	float, whole := false, false
	for i := range runs {
		for _, k := range runs[i].from.Kind[runs[i].lo:runs[i].hi] {
			switch models.Kind(k) {
			case models.KindNull:
			case models.KindFloat:
				float = true
			case models.KindBool, models.KindInt, models.KindUint:
				whole = true
			default:
				return classOther
			}
		}
	}
	switch {
	case !whole:
		return classFloat
	case !float:
		return classWhole
	}
	return classOther
}

// appendRuns appends the runs of columns in which samples of one series are
// neighbours.
func appendRuns(runs []span, c *columns) []span {
	for i := 0; i < len(c.Series); {
		k := i + 1
		for k < len(c.Series) && c.Series[k] == c.Series[i] {
			k++
		}
		runs = append(runs, span{series: c.Series[i], from: c, lo: int32(i), hi: int32(k)})
		i = k
	}
	return runs
}

// countRuns is how many runs appendRuns appends.
func countRuns(c *columns) (n int) {
	for i, series := range c.Series {
		if i == 0 || series != c.Series[i-1] {
			n++
		}
	}
	return n
}

// sortRuns orders runs by series; those of one series stay as they came. They are
// ordered by single numbers of series and place: that takes a fifth of the time.
func sortRuns(runs []span) []span {
	const placeBits = 24
	keys := make([]uint64, len(runs))
	for i := range runs {
		if uint64(runs[i].series) >= 1<<(64-placeBits) || i >= 1<<placeBits {
			slices.SortStableFunc(runs, func(a, b span) int { return cmp.Compare(a.series, b.series) })
			return runs
		}
		keys[i] = uint64(runs[i].series)<<placeBits | uint64(i)
	}
	if slices.IsSorted(keys) {
		return runs
	}
	slices.Sort(keys)
	out := make([]span, len(runs))
	for i, key := range keys {
		out[i] = runs[key&(1<<placeBits-1)]
	}
	return out
}

// seriesEnd is where the runs of the first series end.
func seriesEnd(runs []span) int {
	n := 1
	for n < len(runs) && runs[n].series == runs[0].series {
		n++
	}
	return n
}

// rowSamples is how many samples a row of samples_batch has at most, unless one
// series ends it sooner: a reader of one series has to open the whole row.
const rowSamples = 4096

// batchRow gathers runs, ordered by series, for one row of samples_batch.
type batchRow struct {
	series  []int64
	ends    []int32
	at      []int64
	t4      []int32
	kinds   []uint8
	ints    []int64
	floats  []float64
	texts   []string
	quality []uint8
	reasons []string
	late    []bool

	anyInt, anyFloat, anyText, anyBad, anyWhy bool
}

func (w *batchRow) reset() {
	*w = batchRow{series: w.series[:0], ends: w.ends[:0], at: w.at[:0], t4: w.t4[:0], kinds: w.kinds[:0], ints: w.ints[:0], floats: w.floats[:0],
		texts: w.texts[:0], quality: w.quality[:0], reasons: w.reasons[:0], late: w.late[:0]}
}

func (w *batchRow) len() int { return len(w.at) }

// add adds a run of the last series or a later one.
func (w *batchRow) add(r *span) {
	c, lo, hi := r.from, int(r.lo), int(r.hi)
	before := len(w.at)
	w.at = append(w.at, c.TimeUS[lo:hi]...)
	w.kinds = append(w.kinds, c.Kind[lo:hi]...)
	w.ints, w.anyInt = addOr(w.ints, c.Int, lo, hi, before, w.anyInt)
	w.floats, w.anyFloat = addOr(w.floats, c.Float, lo, hi, before, w.anyFloat || anyBits(c.Float, lo, hi))
	w.texts, w.anyText = addOr(w.texts, c.Text, lo, hi, before, w.anyText)
	w.quality, w.anyBad = addOr(w.quality, c.Quality, lo, hi, before, w.anyBad)
	w.reasons, w.anyWhy = addOr(w.reasons, c.Reason, lo, hi, before, w.anyWhy)
	for i := lo; i < hi; i++ {
		w.late = append(w.late, c.late(i))
	}
	if n := len(w.series); n > 0 && w.series[n-1] == r.series {
		w.ends[n-1] = int32(len(w.at))
		return
	}
	w.series, w.ends = append(w.series, r.series), append(w.ends, int32(len(w.at)))
}

// addOr adds elements [lo, hi) of a column to one that has before elements, or
// none as long as all of them say nothing.
func addOr[T comparable](to, from []T, lo, hi, before int, any bool) ([]T, bool) {
	var zero T
	if !any && from != nil {
		for _, v := range from[lo:hi] {
			if v != zero {
				any = true
				break
			}
		}
	}
	if any && len(to) < before {
		to = append(to, make([]T, before-len(to))...)
	}
	switch {
	case !any:
		return to, false
	case from == nil:
		return append(to, make([]T, hi-lo)...), true
	}
	return append(to, from[lo:hi]...), true
}

// anyBits reports whether a float is not the usual zero: the negative one equals it.
func anyBits(v []float64, lo, hi int) bool {
	if v == nil {
		return false
	}
	for _, f := range v[lo:hi] {
		if math.Float64bits(f) != 0 {
			return true
		}
	}
	return false
}

// batchColumns are the columns that a row of samples_batch is written by.
const batchColumns = `level, received, n, runs, s0, s1, t0, t1, series, ends, t4, t8, kind, kinds, int_v, float_v, text_v, qualities, reasons, backfill, backfills`

const insertBatch = `INSERT INTO samples_batch (` + batchColumns + `) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)`

// batchArgs are the values of a row as the arguments of insertBatch.
func batchArgs(t *tuple) []any {
	v := t.values()
	args := []any{readInt2(v[0]), readTimestamp(v[1]), readInt4(v[2]), readInt4(v[3]), readInt8(v[4]), readInt8(v[5]), readInt8(v[6]), readInt8(v[7])}
	for i := len(args); i < len(v); i++ {
		switch i {
		case 12: // kind
			args = append(args, readInt2(v[i]))
		case 19: // backfill
			args = append(args, v[i][0] != 0)
		default:
			args = append(args, asEncoded(v[i]))
		}
	}
	return args
}

// encode writes the row.
func (w *batchRow) encode(t *tuple, level int16, received time.Time) {
	t0, t1 := slices.Min(w.at), slices.Max(w.at)
	t.reset()
	t.int2(level)
	t.timestamp(received)
	t.int4(int32(len(w.at)))
	t.int4(int32(len(w.series)))
	t.int8(w.series[0])
	t.int8(w.series[len(w.series)-1])
	t.int8(t0)
	t.int8(t1)
	t.int8s(w.series)
	t.int4s(w.ends)
	if uint64(t1)-uint64(t0) <= math.MaxInt32 {
		for _, at := range w.at {
			w.t4 = append(w.t4, int32(at-t0))
		}
		t.int4s(w.t4)
		t.null()
	} else {
		t.null()
		t.int8s(w.at)
	}
	t.int2(int16(w.kinds[0]))
	t.smalls(unlessUniform(w.kinds))
	t.int8s(unlessSilent(w.anyInt, w.ints))
	t.float8s(unlessSilent(w.anyFloat, w.floats))
	t.texts(pgtype.ByteaOID, unlessSilent(w.anyText, w.texts))
	t.smalls(unlessSilent(w.anyBad, w.quality))
	t.texts(pgtype.TextOID, unlessSilent(w.anyWhy, w.reasons))
	t.bool(w.late[0])
	t.bools(unlessUniform(w.late))
}

func unlessUniform[T comparable](v []T) []T {
	for _, e := range v {
		if e != v[0] {
			return v
		}
	}
	return nil
}

func unlessSilent[T any](says bool, v []T) []T {
	if !says {
		return nil
	}
	return v
}

// byClass parts sorted runs by the classes of their series.
func byClass(runs []span) (of [classOther + 1][]span) {
	same := 0 // so many of the first runs are of one class, as mostly all are
	var first class
	for same < len(runs) {
		n := seriesEnd(runs[same:])
		k := classOf(runs[same : same+n])
		if same == 0 {
			first = k
		} else if k != first {
			break
		}
		same += n
	}
	if of[first] = runs[:same:same]; same == len(runs) {
		return of
	}
	for runs = runs[same:]; len(runs) > 0; {
		n := seriesEnd(runs)
		k := classOf(runs[:n])
		of[k] = append(of[k], runs[:n]...)
		runs = runs[n:]
	}
	return of
}

// bucketSamples is how many samples the first bucket of sorted runs has.
func bucketSamples(runs []span) (n int) {
	for i := range runs {
		if runs[i].series>>bucketBits != runs[0].series>>bucketBits {
			break
		}
		n += runs[i].len()
	}
	return n
}

// batchRows cuts sorted runs into rows and hands each over, which is good until
// the next.
func batchRows(runs []span, level int16, received time.Time, row func(*tuple)) {
	// The series of one class after the other; within each they stay ordered.
	of := byClass(runs)
	var w batchRow
	var t tuple
	flush := func() {
		if w.len() > 0 {
			w.encode(&t, level, received)
			row(&t)
			w.reset()
		}
	}
	for _, runs := range of {
		for i := range runs {
			r := runs[i]
			// A bucket that makes a row gets its own: that can stay as it is.
			if last := len(w.series) - 1; level == 0 && last >= 0 && r.series>>bucketBits != w.series[last]>>bucketBits &&
				(w.len() >= keepFrom || bucketSamples(runs[i:]) >= keepFrom) {
				flush()
			}
			for r.len() > 0 {
				part := r
				part.hi = min(r.hi, r.lo+int32(rowSamples-w.len()))
				w.add(&part)
				r.lo = part.hi
				if w.len() >= rowSamples {
					flush()
				}
			}
		}
		flush()
	}
}

// stored row of samples_batch.
type batch struct {
	id       int64
	received time.Time
	series   []int64
	ends     []int32
	columns  // without Series
}

const readBatch = `id, received, t0, series, ends, t4, t8, kind, kinds, int_v, float_v, text_v, qualities, reasons, backfill, backfills, n`

// parseBatch reads a row of readBatch in binary form.
func parseBatch(v [][]byte) (b *batch, err error) {
	b = &batch{id: readInt8(v[0]), received: readTimestamp(v[1])}
	get := func(e error) {
		if err == nil {
			err = e
		}
	}
	var e error
	t0, n := readInt8(v[2]), int(readInt4(v[16]))
	b.series, e = readInt8s(v[3])
	get(e)
	b.ends, e = readInt4s(v[4])
	get(e)
	if v[5] != nil {
		body, k, e := elements(v[5], pgtype.Int4OID, 4)
		get(e)
		b.TimeUS = make([]int64, k)
		for i := range b.TimeUS {
			b.TimeUS[i] = t0 + int64(int32(binary.BigEndian.Uint32(body[8*i+4:])))
		}
	} else {
		b.TimeUS, e = readInt8s(v[6])
		get(e)
	}
	if v[8] == nil {
		b.Kind = slices.Repeat([]uint8{uint8(readInt2(v[7]))}, n)
	} else {
		b.Kind, e = readSmalls(v[8])
		get(e)
	}
	b.Int, e = readInt8s(v[9])
	get(e)
	b.Float, e = readFloat8s(v[10])
	get(e)
	b.Text, e = readTexts(v[11], pgtype.ByteaOID)
	get(e)
	b.Quality, e = readSmalls(v[12])
	get(e)
	b.Reason, e = readTexts(v[13], pgtype.TextOID)
	get(e)
	b.Late = v[14][0] != 0
	b.Backfill, e = readBools(v[15])
	get(e)
	if err == nil && (len(b.TimeUS) != n || len(b.Kind) != n || len(b.ends) != len(b.series) || n == 0 || len(b.ends) == 0 || int(b.ends[len(b.ends)-1]) != n ||
		b.Int != nil && len(b.Int) != n || b.Float != nil && len(b.Float) != n || b.Text != nil && len(b.Text) != n ||
		b.Quality != nil && len(b.Quality) != n || b.Reason != nil && len(b.Reason) != n || b.Backfill != nil && len(b.Backfill) != n) {
		err = errArray
	}
	if err != nil {
		return nil, fmt.Errorf("row %d of samples_batch: %w", b.id, err)
	}
	return b, nil
}

// appendRuns appends the row's runs.
func (b *batch) appendRuns(runs []span) []span {
	lo := int32(0)
	for i, hi := range b.ends {
		runs = append(runs, span{series: b.series[i], from: &b.columns, lo: lo, hi: hi})
		lo = hi
	}
	return runs
}

// batchQuery selects rows of samples_batch in the order of arrival.
func batchQuery(where string) string {
	return `SELECT ` + readBatch + ` FROM samples_batch WHERE ` + where + ` ORDER BY level DESC, id`
}

// queryBatches reads rows of samples_batch.
func queryBatches(ctx context.Context, tx pgx.Tx, where string, args ...any) (out []*batch, err error) {
	rows, err := tx.Query(ctx, batchQuery(where), append([]any{pgx.QueryResultFormats{pgx.BinaryFormatCode}}, args...)...)
	if err != nil {
		return nil, err
	}
	return scanBatches(rows)
}

func scanBatches(rows pgx.Rows) (out []*batch, err error) {
	defer rows.Close()
	for rows.Next() {
		b, err := parseBatch(rows.RawValues())
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, rows.Err()
}
