package postgres

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"sort"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/models"
)

// period is the width of a partition: the samples of a chunk are of one period.
const period = 7 * 24 * 3600 * 1_000_000

// periodStart returns the start of the period that a time is in; of the first one
// there is only a part.
func periodStart(us int64) int64 {
	rest := us % period
	if rest < 0 {
		rest += period
	}
	if us < math.MinInt64+rest {
		return math.MinInt64
	}
	return us - rest
}

// periodLast returns the last time of the period that begins at start.
func periodLast(start int64) int64 {
	rest := start % period
	if rest < 0 { // the first one, of which there is only a part
		return start - rest - 1
	}
	if rest > 0 || start > math.MaxInt64-(period-1) {
		return math.MaxInt64
	}
	return start + period - 1
}

// The most samples of a chunk, and how many are enough to end it where its times
// would need eight bytes each.
const (
	chunkSamples  = 4096
	chunkSamples4 = 1024
)

// chunk is one row of samples_chunk; the migration says what its columns mean.
type chunk struct {
	series, t0, t1 int64
	n              int32
	level          int16
	tick           int64
	t4             []int32
	t8             []int64
	kind           int16
	kinds          []uint8
	base           int64
	v2             []int16
	v4             []int32
	v8             []int64
	divisor        float64 // 0: none
	nudge          []int16
	nudgeBy        float64
	f4             []float32
	f8             []float64
	oddAt          []int32 // ascending; samples whose float is in odd
	odd            []float64
	text           []string
	quality        []uint8
	reason         []string
	backfill       []bool

	minutes, hours []byte // store.AppendEntries; nil: not worth it
}

// chunkColumns are the columns that a chunk is written and read by.
const chunkColumns = `series, t0, t1, n, level, tick, t4, t8, kind, kinds, base, v2, v4, v8, divisor, nudge, nudge_by, f4, f8, odd_at, odd, text_v, quality, reason, backfill`

// encode writes the chunk as a row of chunkColumns, minutes and hours.
func (k *chunk) encode(t *tuple) {
	t.reset()
	t.int8(k.series)
	t.int8(k.t0)
	t.int8(k.t1)
	t.int4(k.n)
	t.int2(k.level)
	t.int8(k.tick)
	t.int4s(k.t4)
	t.int8s(k.t8)
	t.int2(k.kind)
	t.smalls(k.kinds)
	t.int8(k.base)
	t.int2s(k.v2)
	t.int4s(k.v4)
	t.int8s(k.v8)
	if k.divisor == 0 {
		t.null()
	} else {
		t.float8(k.divisor)
	}
	t.int2s(k.nudge)
	t.float8(k.nudgeBy)
	t.float4s(k.f4)
	t.float8s(k.f8)
	t.int4s(k.oddAt)
	t.float8s(k.odd)
	t.texts(pgtype.ByteaOID, k.text)
	t.smalls(k.quality)
	t.texts(pgtype.TextOID, k.reason)
	t.bools(k.backfill)
	t.bytes(k.minutes)
	t.bytes(k.hours)
}

// parseChunk reads a row of chunkColumns in binary form.
func parseChunk(v [][]byte) (k *chunk, err error) {
	k = &chunk{series: readInt8(v[0]), t0: readInt8(v[1]), t1: readInt8(v[2]), n: readInt4(v[3]), level: readInt2(v[4]), tick: readInt8(v[5]),
		kind: readInt2(v[8]), base: readInt8(v[10]), nudgeBy: math.Float64frombits(uint64(readInt8(v[16])))}
	if v[14] != nil {
		k.divisor = math.Float64frombits(uint64(readInt8(v[14])))
	}
	n := int(k.n)
	take := func(have int, e error) {
		if err == nil {
			err = e
		}
		if err == nil && have != n && have >= 0 {
			err = errArray
		}
	}
	lenOf := func(v []byte, have int) int {
		if v == nil {
			return -1
		}
		return have
	}
	var e error
	k.t4, e = readInt4s(v[6])
	take(lenOf(v[6], len(k.t4)), e)
	k.t8, e = readInt8s(v[7])
	take(lenOf(v[7], len(k.t8)), e)
	k.kinds, e = readSmalls(v[9])
	take(lenOf(v[9], len(k.kinds)), e)
	k.v2, e = readInt2s(v[11])
	take(lenOf(v[11], len(k.v2)), e)
	k.v4, e = readInt4s(v[12])
	take(lenOf(v[12], len(k.v4)), e)
	k.v8, e = readInt8s(v[13])
	take(lenOf(v[13], len(k.v8)), e)
	k.nudge, e = readInt2s(v[15])
	take(lenOf(v[15], len(k.nudge)), e)
	k.f4, e = readFloat4s(v[17])
	take(lenOf(v[17], len(k.f4)), e)
	k.f8, e = readFloat8s(v[18])
	take(lenOf(v[18], len(k.f8)), e)
	k.oddAt, e = readInt4s(v[19])
	take(-1, e)
	k.odd, e = readFloat8s(v[20])
	take(-1, e)
	if err == nil && !validOdd(k.oddAt, len(k.odd), n) {
		err = errArray
	}
	k.text, e = readTexts(v[21], pgtype.ByteaOID)
	take(lenOf(v[21], len(k.text)), e)
	k.quality, e = readSmalls(v[22])
	take(lenOf(v[22], len(k.quality)), e)
	k.reason, e = readTexts(v[23], pgtype.TextOID)
	take(lenOf(v[23], len(k.reason)), e)
	k.backfill, e = readBools(v[24])
	take(lenOf(v[24], len(k.backfill)), e)
	if err != nil {
		return nil, fmt.Errorf("chunk of series %d at %d: %w", k.series, k.t0, err)
	}
	return k, nil
}

// validOdd reports whether at is as many ascending places among n samples.
func validOdd(at []int32, want, n int) bool {
	last := int32(-1)
	for _, i := range at {
		if i <= last || int(i) >= n {
			return false
		}
		last = i
	}
	return len(at) == want
}

// gathered are the samples of one series, put together from runs and ordered by
// time; those of one time stay as they came. Its memory is used again.
type gathered struct {
	columns
	row  batchRow
	swap columns
	at   []int32
}

// gather takes the runs of one series.
func (g *gathered) gather(runs []span) {
	g.row.reset()
	for i := range runs {
		g.row.add(&runs[i])
	}
	w := &g.row
	g.columns = columns{Samples: store.Samples{TimeUS: w.at, Kind: w.kinds, Int: unlessSilent(w.anyInt, w.ints), Float: unlessSilent(w.anyFloat, w.floats),
		Text: unlessSilent(w.anyText, w.texts), Quality: unlessSilent(w.anyBad, w.quality), Reason: unlessSilent(w.anyWhy, w.reasons)}, Backfill: w.late}
	if slices.IsSorted(g.TimeUS) {
		return
	}
	g.at = g.at[:0]
	for i := range g.TimeUS {
		g.at = append(g.at, int32(i))
	}
	slices.SortStableFunc(g.at, func(a, b int32) int { return cmp.Compare(g.TimeUS[a], g.TimeUS[b]) })
	s := &g.swap
	s.TimeUS, s.Kind = permute(s.TimeUS, g.TimeUS, g.at), permute(s.Kind, g.Kind, g.at)
	s.Int, s.Float, s.Text = permute(s.Int, g.Int, g.at), permute(s.Float, g.Float, g.at), permute(s.Text, g.Text, g.at)
	s.Quality, s.Reason, s.Backfill = permute(s.Quality, g.Quality, g.at), permute(s.Reason, g.Reason, g.at), permute(s.Backfill, g.Backfill, g.at)
	g.columns = *s
}

// permute puts the elements of from in the order of at; a column that is nil
// stays so.
func permute[T any](to, from []T, at []int32) []T {
	if from == nil {
		return nil
	}
	to = to[:0]
	for _, i := range at {
		to = append(to, from[i])
	}
	return to
}

// part is the samples [lo, hi).
func (c *columns) part(lo, hi int) *columns {
	return &columns{Samples: store.Samples{TimeUS: c.TimeUS[lo:hi], Kind: c.Kind[lo:hi], Int: partOf(c.Int, lo, hi), Float: partOf(c.Float, lo, hi),
		Text: partOf(c.Text, lo, hi), Quality: partOf(c.Quality, lo, hi), Reason: partOf(c.Reason, lo, hi)}, Backfill: partOf(c.Backfill, lo, hi), Late: c.Late}
}

func partOf[T any](v []T, lo, hi int) []T {
	if v == nil {
		return nil
	}
	return v[lo:hi]
}

// chunksOf makes chunks of the samples of one series, ordered by time, and hands
// each over.
func chunksOf(c *columns, series int64, chunk func(*chunk)) {
	for lo := 0; lo < len(c.TimeUS); {
		first := c.TimeUS[lo]
		rest := c.TimeUS[lo:min(len(c.TimeUS), lo+chunkSamples)]
		// Times ascend, and all of one period are less than 2^63 apart.
		n := len(rest)
		if start := periodStart(first); periodStart(rest[n-1]) != start {
			n = sort.Search(n, func(i int) bool { return periodStart(rest[i]) != start })
		}
		if n > chunkSamples4 && rest[n-1]-first > math.MaxInt32 && tickOf(rest[:n]) < 1000 {
			near := sort.Search(n, func(i int) bool { return rest[i]-first > math.MaxInt32 })
			n = min(n, max(near, chunkSamples4))
		}
		chunk(encodeChunk(c.part(lo, lo+n), series))
		lo += n
	}
}

// tickOf is the largest number of microseconds that all distances are multiples
// of.
func tickOf(times []int64) int64 {
	var tick int64
	for _, t := range times {
		a, b := tick, t-times[0]
		for b != 0 {
			a, b = b, a%b
		}
		if tick = a; tick == 1 {
			break
		}
	}
	return tick
}

// encodeChunk makes one chunk.
func encodeChunk(c *columns, series int64) *chunk {
	n := len(c.TimeUS)
	k := &chunk{series: series, t0: c.TimeUS[0], t1: c.TimeUS[n-1], n: int32(n)}
	k.encodeTimes(c.TimeUS)
	k.kind = int16(c.Kind[0])
	k.kinds = unlessUniform(c.Kind)
	k.encodeNumbers(c)
	k.encodeRest(c)
	return k
}

func (k *chunk) encodeTimes(times []int64) {
	if k.tick = tickOf(times); k.tick == 0 {
		return // all of one time
	}
	regular := true
	for n, t := range times {
		if t-k.t0 != k.tick*int64(n) {
			regular = false
			break
		}
	}
	if regular {
		return
	}
	if (k.t1-k.t0)/k.tick > math.MaxInt32 {
		k.t8 = make([]int64, len(times))
		for n, t := range times {
			k.t8[n] = (t - k.t0) / k.tick
		}
		return
	}
	k.t4 = make([]int32, len(times))
	for n, t := range times {
		k.t4[n] = int32((t - k.t0) / k.tick)
	}
}

// encodeNumbers picks the narrowest columns that hold every number exactly.
func (k *chunk) encodeNumbers(c *columns) {
	floats, wholes := false, false
	for _, kind := range c.Kind {
		switch models.Kind(kind) {
		case models.KindBool, models.KindInt, models.KindUint:
			wholes = true
		case models.KindFloat:
			floats = true
		}
	}
	if !floats && !wholes {
		return
	}
	var d scaled
	if floats {
		d = scale(c)
	}
	whole := d.whole
	if whole == nil {
		whole = make([]int64, len(c.TimeUS))
	}
	first, odd := -1, d.oddAt
	for i, kind := range c.Kind {
		isOdd := len(odd) > 0 && int(odd[0]) == i
		switch models.Kind(kind) {
		case models.KindBool, models.KindInt, models.KindUint:
			if c.Int != nil {
				whole[i] = c.Int[i]
			}
		case models.KindFloat:
			if isOdd {
				odd = odd[1:]
			}
			if !d.ok || isOdd {
				fill(whole, i)
				continue
			}
		default:
			fill(whole, i)
			continue
		}
		if first < 0 {
			first = i
		}
	}
	if first >= 0 {
		for i := range first {
			whole[i] = whole[first]
		}
		wide := k.encodeWhole(whole)
		if wide && d.ok && !wholes { // eight bytes: then rather as they are
			k.base, k.v8, d.ok = 0, nil, false
		}
	}
	switch {
	case !floats:
	case d.ok:
		k.divisor, k.oddAt, k.odd = d.divisor, d.oddAt, d.odd
		if d.nudge != nil {
			k.nudge, k.nudgeBy = d.nudge, d.nudgeBy
		}
	default:
		k.encodeFloats(c)
	}
}

// fill repeats the number before for an element that has none: so it takes no
// range.
func fill(whole []int64, n int) {
	if n > 0 {
		whole[n] = whole[n-1]
	}
}

// encodeWhole reports whether it took eight bytes for each.
func (k *chunk) encodeWhole(whole []int64) (wide bool) {
	low, high := slices.Min(whole), slices.Max(whole)
	span := uint64(high) - uint64(low)
	k.base = low
	switch {
	case span == 0:
	case span <= math.MaxInt16:
		k.v2 = narrow[int16](whole, k.base)
	case span <= math.MaxUint16 && low < math.MaxInt64-1<<15:
		k.base = low + 1<<15
		k.v2 = narrow[int16](whole, k.base)
	case span <= math.MaxInt32:
		k.v4 = narrow[int32](whole, k.base)
	case span <= math.MaxUint32 && low < math.MaxInt64-1<<31:
		k.base = low + 1<<31
		k.v4 = narrow[int32](whole, k.base)
	default:
		k.base, k.v8 = 0, whole
		return true
	}
	return false
}

func narrow[T int16 | int32](whole []int64, base int64) []T {
	out := make([]T, len(whole))
	for i, v := range whole {
		out[i] = T(v - base)
	}
	return out
}

// float is the i-th sample's.
func (c *columns) float(i int) float64 {
	if c.Float == nil {
		return 0
	}
	return c.Float[i]
}

func (k *chunk) encodeFloats(c *columns) {
	if allSingle(c) {
		k.f4 = make([]float32, len(c.Kind))
		for i, kind := range c.Kind {
			if models.Kind(kind) == models.KindFloat {
				k.f4[i] = float32(c.float(i))
			}
		}
		return
	}
	k.f8 = make([]float64, len(c.Kind))
	for i, kind := range c.Kind {
		if models.Kind(kind) == models.KindFloat {
			k.f8[i] = c.float(i)
		}
	}
}

var powers = [...]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12}

// decimals is how floats are taken for decimal numbers, which is what devices say
// nearly always: as a whole number divided by a power of ten. What a calculation
// has left behind the last digit (716 * 0.1 is not 71.6) is kept beside it as a
// multiple of a very small number.
type decimals struct{ divisor, nudgeBy float64 }

// mostNudge is how many units in its last place a float may be off the decimal
// number that it is taken for.
const mostNudge = 32

// split takes a float apart. whole / divisor + nudge * nudgeBy, calculated with
// floats, is f to the bit if ok.
func (d decimals) split(f float64) (whole, nudge float64, ok bool) {
	whole = math.Round(f * d.divisor)
	if !(math.Abs(whole) < 1<<53) || whole == 0 && math.Signbit(f) {
		return 0, 0, false
	}
	near := whole / d.divisor
	if near == f {
		return whole, 0, true
	}
	nudge = (f - near) / d.nudgeBy
	if !(math.Abs(nudge) <= math.MaxInt16) || math.Abs(f-near) > mostNudge*ulp(f) {
		return 0, 0, false
	}
	nudge = math.Round(nudge)
	return whole, nudge, near+nudge*d.nudgeBy == f
}

func ulp(f float64) float64 {
	f = math.Abs(f)
	return math.Nextafter(f, math.Inf(1)) - f
}

// scaled are floats taken for decimal numbers of one power of ten.
type scaled struct {
	decimals
	ok    bool
	whole []int64
	nudge []int16 // nil: none is needed
	oddAt []int32 // of floats that do not go that way; few
	odd   []float64
}

// oddShare is how many samples there are at least for each odd one, which costs as
// much as twelve bytes do.
const oddShare = 16

// scale finds the least power of ten that does for all floats, or for nearly all
// where that is shorter than to keep them as they are. One that more floats go by
// is taken where it pays.
func scale(c *columns) (best scaled) {
	least := math.Inf(1)
	for i, kind := range c.Kind {
		if f := math.Abs(c.float(i)); models.Kind(kind) == models.KindFloat && f != 0 {
			least = min(least, f)
		}
	}
	var d decimals
	if !math.IsInf(least, 1) {
		d.nudgeBy = ulp(least) / 2
	}
	cost := math.MaxInt
	for _, d.divisor = range powers {
		s := d.splitAll(c)
		if !s.ok {
			continue
		}
		if len(s.oddAt) == 0 && cost == math.MaxInt {
			return s
		}
		this := s.cost(c)
		if this >= cost {
			break
		}
		best, cost = s, this
		if len(s.oddAt) == 0 {
			break
		}
	}
	if best.ok && cost >= 4*len(c.Kind) && (cost >= 8*len(c.Kind) || allSingle(c)) {
		return scaled{}
	}
	return best
}

// splitAll takes all floats apart; it is not ok when too many do not go.
func (d decimals) splitAll(c *columns) (s scaled) {
	s = scaled{decimals: d}
	odd, nudged := 0, 0
	var whole []int64
	for i, kind := range c.Kind {
		if models.Kind(kind) != models.KindFloat {
			continue
		}
		f := c.float(i)
		w, n, ok := d.split(f)
		if !ok {
			if odd++; odd > len(c.Kind)/oddShare {
				return scaled{}
			}
			s.oddAt, s.odd = append(s.oddAt, int32(i)), append(s.odd, f)
			continue
		}
		if whole == nil {
			whole = make([]int64, len(c.Kind))
		}
		whole[i] = int64(w)
		if n != 0 {
			if s.nudge == nil {
				s.nudge = make([]int16, len(c.Kind))
			}
			s.nudge[i] = int16(n)
			nudged++
		}
	}
	s.whole, s.ok = whole, whole != nil
	if s.nudge != nil && len(c.Kind) <= smallChunk && odd+nudged <= len(c.Kind)/oddShare {
		s.nudgeToOdd(c)
	}
	return s
}

// smallChunk is up to how many samples Postgres compresses no array of a chunk: its
// row is too short. Of more, nearly all of them zero, nothing is left of nudges.
const smallChunk = 400

// nudgeToOdd makes the few floats odd that need a nudge.
func (s *scaled) nudgeToOdd(c *columns) {
	was, at := *s, 0
	s.nudge, s.oddAt, s.odd = nil, nil, nil
	for i, n := range was.nudge {
		isOdd := at < len(was.oddAt) && int(was.oddAt[at]) == i
		if isOdd {
			at++
		}
		if isOdd || n != 0 {
			s.oddAt, s.odd = append(s.oddAt, int32(i)), append(s.odd, c.float(i))
		}
	}
}

// cost is about how many bytes it takes.
func (s *scaled) cost(c *columns) int {
	low, high, next := int64(math.MaxInt64), int64(math.MinInt64), s.oddAt
	for i, w := range s.whole {
		switch {
		case models.Kind(c.Kind[i]) != models.KindFloat:
		case len(next) > 0 && int(next[0]) == i:
			next = next[1:]
		default:
			low, high = min(low, w), max(high, w)
		}
	}
	width := 0
	switch span := uint64(high) - uint64(low); {
	case span == 0:
	case span <= math.MaxUint16:
		width = 2
	case span <= math.MaxUint32:
		width = 4
	default:
		width = 8
	}
	if s.nudge != nil {
		width++ // nearly all are zero
	}
	return width*len(s.whole) + 12*len(s.odd)
}

// allSingle reports whether four bytes hold every float.
func allSingle(c *columns) bool {
	for i, kind := range c.Kind {
		if f := c.float(i); models.Kind(kind) == models.KindFloat && math.Float64bits(float64(float32(f))) != math.Float64bits(f) {
			return false
		}
	}
	return true
}

func (k *chunk) encodeRest(c *columns) {
	k.text, k.quality, k.reason, k.backfill = unlessEmpty(c.Text), unlessEmpty(c.Quality), unlessEmpty(c.Reason), unlessEmpty(c.Backfill)
	if c.Backfill == nil && c.Late {
		k.backfill = slices.Repeat([]bool{true}, len(c.TimeUS))
	}
}

func unlessEmpty[T comparable](v []T) []T {
	var zero T
	for _, e := range v {
		if e != zero {
			return v
		}
	}
	return nil
}

// A chunk has rollups when it is not small, and they take little beside its samples.
const (
	rollUpFrom  = 1024
	rollUpShare = 8 // samples an entry at least, on average
	rollUpBytes = 3 // for each sample at most
)

func (k *chunk) rollUp() {
	if k.n < rollUpFrom {
		return
	}
	k.minutes = k.entries(store.Minute)
	k.hours = k.entries(store.Hour)
}

func (k *chunk) entries(step int64) []byte {
	return encodeEntries(store.Rolled(int(k.n), k.sample, step), int64(k.n))
}

// encodeEntries encodes what so many samples come to, nil where it does not pay.
func encodeEntries(entries []store.Entry, samples int64) []byte {
	if int64(len(entries))*rollUpShare > samples {
		return nil
	}
	out, ok := store.AppendEntries(nil, entries)
	if !ok || int64(len(out)) > rollUpBytes*samples {
		return nil
	}
	return out
}

// time is the i-th sample's time.
func (k *chunk) time(i int) int64 {
	switch {
	case k.t4 != nil:
		return k.t0 + k.tick*int64(k.t4[i])
	case k.t8 != nil:
		return k.t0 + k.tick*k.t8[i]
	}
	return k.t0 + k.tick*int64(i)
}

// sample is the i-th sample.
func (k *chunk) sample(i int) store.Sample {
	v := store.Sample{TimeUS: k.time(i), Kind: uint8(k.kind)}
	if k.kinds != nil {
		v.Kind = k.kinds[i]
	}
	whole := k.base
	switch {
	case k.v2 != nil:
		whole += int64(k.v2[i])
	case k.v4 != nil:
		whole += int64(k.v4[i])
	case k.v8 != nil:
		whole += k.v8[i]
	}
	switch kind := models.Kind(v.Kind); {
	case kind == models.KindBool || kind == models.KindInt || kind == models.KindUint:
		v.Int = whole
	case kind == models.KindFloat && k.isOdd(i, &v.Float):
	case kind == models.KindFloat && k.divisor != 0:
		v.Float = float64(whole) / k.divisor
		if k.nudge != nil {
			v.Float += float64(k.nudge[i]) * k.nudgeBy
		}
	case kind == models.KindFloat && k.f4 != nil:
		v.Float = float64(k.f4[i])
	case kind == models.KindFloat && k.f8 != nil:
		v.Float = k.f8[i]
	}
	if k.text != nil {
		v.Text = k.text[i]
	}
	if k.quality != nil {
		v.Quality = k.quality[i]
	}
	if k.reason != nil {
		v.Reason = k.reason[i]
	}
	if k.backfill != nil {
		v.Backfill = k.backfill[i]
	}
	return v
}

// isOdd sets f to the i-th sample's float if that is an odd one.
func (k *chunk) isOdd(i int, f *float64) bool {
	if k.oddAt == nil {
		return false
	}
	at, odd := slices.BinarySearch(k.oddAt, int32(i))
	if odd {
		*f = k.odd[at]
	}
	return odd
}

// columns are the chunk's samples.
func (k *chunk) columns() *columns {
	n := int(k.n)
	c := &columns{Samples: store.Samples{TimeUS: make([]int64, n), Kind: make([]uint8, n), Quality: k.quality, Text: k.text, Reason: k.reason}, Backfill: k.backfill}
	for i := range n {
		v := k.sample(i)
		c.TimeUS[i], c.Kind[i] = v.TimeUS, v.Kind
		if v.Int != 0 {
			if c.Int == nil {
				c.Int = make([]int64, n)
			}
			c.Int[i] = v.Int
		}
		if math.Float64bits(v.Float) != 0 {
			if c.Float == nil {
				c.Float = make([]float64, n)
			}
			c.Float[i] = v.Float
		}
	}
	return c
}
