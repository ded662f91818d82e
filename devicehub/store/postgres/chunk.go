package postgres

import (
	"math"
	"slices"
	"sort"

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

// columns are samples and whether each was delivered late.
type columns struct {
	store.Samples
	Backfill []bool
}

func (c *columns) sample(i int) store.Sample {
	return store.Sample{TimeUS: c.TimeUS[i], Kind: c.Kind[i], Int: c.Int[i], Float: c.Float[i], Text: c.Text[i],
		Quality: c.Quality[i], Reason: c.Reason[i], Backfill: c.Backfill[i]}
}

// sortByTime sorts indexes of samples of one series, those of one time staying in
// their order.
func (c *columns) sortByTime(at []int32) {
	if !slices.IsSortedFunc(at, c.byTime) {
		slices.SortStableFunc(at, c.byTime)
	}
}

func (c *columns) byTime(a, b int32) int {
	switch ta, tb := c.TimeUS[a], c.TimeUS[b]; {
	case ta < tb:
		return -1
	case ta > tb:
		return 1
	}
	return 0
}

// chunk is one row of samples_chunk; the migration says what its columns mean.
type chunk struct {
	series, t0, t1 int64
	n              int32
	level          int16
	tick           int64
	t4             []int32
	t8             []int64
	kind           int16
	kinds          []int16
	base           int64
	v2             []int16
	v4             []int32
	v8             []int64
	divisor        *float64
	nudge          []int16
	nudgeBy        float64
	f4             []float32
	f8             []float64
	text           [][]byte
	quality        []int16
	reason         []*string
	backfill       []bool
}

// chunkColumns are the columns that a chunk is written and read by, in the order
// of values and targets.
var chunkColumns = []string{"series", "t0", "t1", "n", "level", "tick", "t4", "t8", "kind", "kinds", "base", "v2", "v4", "v8",
	"divisor", "nudge", "nudge_by", "f4", "f8", "text_v", "quality", "reason", "backfill"}

func (k *chunk) values() []any {
	return []any{k.series, k.t0, k.t1, k.n, k.level, k.tick, k.t4, k.t8, k.kind, k.kinds, k.base, k.v2, k.v4, k.v8,
		k.divisor, k.nudge, k.nudgeBy, k.f4, k.f8, k.text, k.quality, k.reason, k.backfill}
}

func (k *chunk) targets() []any {
	return []any{&k.series, &k.t0, &k.t1, &k.n, &k.level, &k.tick, &k.t4, &k.t8, &k.kind, &k.kinds, &k.base, &k.v2, &k.v4, &k.v8,
		&k.divisor, &k.nudge, &k.nudgeBy, &k.f4, &k.f8, &k.text, &k.quality, &k.reason, &k.backfill}
}

// chunksOf makes chunks of the samples of one series, sorted by time.
func chunksOf(c *columns, series int64, at []int32, level int16) (out []chunk) {
	for len(at) > 0 {
		first := c.TimeUS[at[0]]
		limit := min(len(at), chunkSamples)
		// Times ascend, and all of one period are less than 2^63 apart.
		start := periodStart(first)
		n := sort.Search(limit, func(i int) bool { return periodStart(c.TimeUS[at[i]]) != start })
		if n > chunkSamples4 && tickOf(c, at[:n], first) < 1000 {
			near := sort.Search(n, func(i int) bool { return c.TimeUS[at[i]]-first > math.MaxInt32 })
			n = min(n, max(near, chunkSamples4))
		}
		out = append(out, encode(c, series, at[:n], level))
		at = at[n:]
	}
	return out
}

// tickOf is the largest number of microseconds that all distances are multiples
// of.
func tickOf(c *columns, at []int32, first int64) int64 {
	var tick int64
	for _, i := range at {
		a, b := tick, c.TimeUS[i]-first
		for b != 0 {
			a, b = b, a%b
		}
		if tick = a; tick == 1 {
			break
		}
	}
	return tick
}

// encode makes one chunk.
func encode(c *columns, series int64, at []int32, level int16) chunk {
	k := chunk{series: series, t0: c.TimeUS[at[0]], t1: c.TimeUS[at[len(at)-1]], n: int32(len(at)), level: level}
	k.encodeTimes(c, at)
	k.encodeKinds(c, at)
	k.encodeNumbers(c, at)
	k.encodeRest(c, at)
	return k
}

func (k *chunk) encodeTimes(c *columns, at []int32) {
	if k.tick = tickOf(c, at, k.t0); k.tick == 0 {
		return // all of one time
	}
	regular := true
	for n, i := range at {
		if (c.TimeUS[i]-k.t0)/k.tick != int64(n) {
			regular = false
			break
		}
	}
	if regular {
		return
	}
	if (k.t1-k.t0)/k.tick > math.MaxInt32 {
		k.t8 = make([]int64, len(at))
		for n, i := range at {
			k.t8[n] = (c.TimeUS[i] - k.t0) / k.tick
		}
		return
	}
	k.t4 = make([]int32, len(at))
	for n, i := range at {
		k.t4[n] = int32((c.TimeUS[i] - k.t0) / k.tick)
	}
}

func (k *chunk) encodeKinds(c *columns, at []int32) {
	k.kind = int16(c.Kind[at[0]])
	for _, i := range at {
		if int16(c.Kind[i]) != k.kind {
			k.kinds = make([]int16, len(at))
			for n, i := range at {
				k.kinds[n] = int16(c.Kind[i])
			}
			return
		}
	}
}

// encodeNumbers picks the narrowest columns that hold every number exactly.
func (k *chunk) encodeNumbers(c *columns, at []int32) {
	d, scaled := decimalsOf(c, at)
	whole := make([]int64, len(at))
	first, wholes, floats := -1, false, false
	for n, i := range at {
		switch models.Kind(c.Kind[i]) {
		case models.KindBool, models.KindInt, models.KindUint:
			whole[n], wholes = c.Int[i], true
		case models.KindFloat:
			floats = true
			if !scaled {
				fill(whole, n)
				continue
			}
			w, _, _ := d.split(c.Float[i])
			whole[n] = int64(w)
		default:
			fill(whole, n)
			continue
		}
		if first < 0 {
			first = n
		}
	}
	if first >= 0 {
		for n := range first {
			whole[n] = whole[first]
		}
		wide := k.encodeWhole(whole)
		if wide && scaled && !wholes { // eight bytes: then rather as they are
			k.base, k.v8, scaled = 0, nil, false
		}
	}
	switch {
	case !floats:
	case scaled:
		k.divisor = &d.divisor
		k.encodeNudges(c, at, d)
	default:
		k.encodeFloats(c, at)
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

func (k *chunk) encodeFloats(c *columns, at []int32) {
	single := true
	for _, i := range at {
		if f := c.Float[i]; models.Kind(c.Kind[i]) == models.KindFloat && math.Float64bits(float64(float32(f))) != math.Float64bits(f) {
			single = false
			break
		}
	}
	if single {
		k.f4 = make([]float32, len(at))
		for n, i := range at {
			if models.Kind(c.Kind[i]) == models.KindFloat {
				k.f4[n] = float32(c.Float[i])
			}
		}
		return
	}
	k.f8 = make([]float64, len(at))
	for n, i := range at {
		if models.Kind(c.Kind[i]) == models.KindFloat {
			k.f8[n] = c.Float[i]
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

// decimalsOf finds the least power of ten that does for all floats.
func decimalsOf(c *columns, at []int32) (d decimals, ok bool) {
	least := math.Inf(1)
	for _, i := range at {
		if f := math.Abs(c.Float[i]); models.Kind(c.Kind[i]) == models.KindFloat {
			if ok = true; f != 0 {
				least = min(least, f)
			}
		}
	}
	if !ok {
		return d, false
	}
	if !math.IsInf(least, 1) {
		d.nudgeBy = ulp(least) / 2
	}
	k := 0
	for range 2 { // the second time all with the power that the last one needed
		d.divisor = powers[k]
		for _, i := range at {
			if models.Kind(c.Kind[i]) != models.KindFloat {
				continue
			}
			for {
				if _, _, ok := d.split(c.Float[i]); ok {
					break
				}
				if k++; k == len(powers) {
					return d, false
				}
				d.divisor = powers[k]
			}
		}
	}
	for _, i := range at {
		if _, _, ok := d.split(c.Float[i]); !ok && models.Kind(c.Kind[i]) == models.KindFloat {
			return d, false
		}
	}
	return d, true
}

func (k *chunk) encodeNudges(c *columns, at []int32, d decimals) {
	for n, i := range at {
		if models.Kind(c.Kind[i]) != models.KindFloat {
			continue
		}
		if _, nudge, _ := d.split(c.Float[i]); nudge != 0 {
			if k.nudge == nil {
				k.nudge, k.nudgeBy = make([]int16, len(at)), d.nudgeBy
			}
			k.nudge[n] = int16(nudge)
		}
	}
}

func (k *chunk) encodeRest(c *columns, at []int32) {
	var anyText, anyBad, anyWhy, anyLate bool
	for _, i := range at {
		anyText = anyText || c.Text[i] != ""
		anyBad = anyBad || c.Quality[i] != 0
		anyWhy = anyWhy || c.Reason[i] != ""
		anyLate = anyLate || c.Backfill[i]
	}
	if anyText {
		k.text = make([][]byte, len(at))
		for n, i := range at {
			if c.Text[i] != "" {
				k.text[n] = []byte(c.Text[i])
			}
		}
	}
	if anyBad {
		k.quality = make([]int16, len(at))
		for n, i := range at {
			k.quality[n] = int16(c.Quality[i])
		}
	}
	if anyWhy {
		k.reason = make([]*string, len(at))
		for n, i := range at {
			if c.Reason[i] != "" {
				k.reason[n] = &c.Reason[i]
			}
		}
	}
	if anyLate {
		k.backfill = make([]bool, len(at))
		for n, i := range at {
			k.backfill[n] = c.Backfill[i]
		}
	}
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
		v.Kind = uint8(k.kinds[i])
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
	case kind == models.KindFloat && k.divisor != nil:
		v.Float = float64(whole) / *k.divisor
		if k.nudge != nil {
			v.Float += float64(k.nudge[i]) * k.nudgeBy
		}
	case kind == models.KindFloat && k.f4 != nil:
		v.Float = float64(k.f4[i])
	case kind == models.KindFloat && k.f8 != nil:
		v.Float = k.f8[i]
	}
	if k.text != nil {
		v.Text = string(k.text[i])
	}
	if k.quality != nil {
		v.Quality = uint8(k.quality[i])
	}
	if k.reason != nil && k.reason[i] != nil {
		v.Reason = *k.reason[i]
	}
	if k.backfill != nil {
		v.Backfill = k.backfill[i]
	}
	return v
}

// appendTo adds the chunk's samples to the columns.
func (k *chunk) appendTo(c *columns) {
	for i := range int(k.n) {
		c.add(k.series, k.sample(i))
	}
}

func (c *columns) add(series int64, v store.Sample) {
	c.Series, c.TimeUS, c.Kind = append(c.Series, series), append(c.TimeUS, v.TimeUS), append(c.Kind, v.Kind)
	c.Int, c.Float, c.Text = append(c.Int, v.Int), append(c.Float, v.Float), append(c.Text, v.Text)
	c.Quality, c.Reason, c.Backfill = append(c.Quality, v.Quality), append(c.Reason, v.Reason), append(c.Backfill, v.Backfill)
}
