package modbus

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/whimbrel-edge/whimbrel/models"
	wire "github.com/whimbrel-edge/whimbrel/protocols/modbus"
)

// limits bound one request.
type limits struct {
	maxRegisters int
	maxBits      int
	maxGap       int // unused registers or bits read to bridge a gap
}

// span is a run of registers or bits that must come in one request.
type span struct {
	point int  // index into the device's points
	scale bool // the point's scale factor, not its value
	table wire.Table
	start int
	width int
}

func (s span) end() int { return s.start + s.width }

// block is one request, and the spans that it feeds.
type block struct {
	table  wire.Table
	start  int
	count  int
	unused int // of count, only bridging gaps
	spans  []span
}

func (b *block) text() string {
	noun := "register"
	if b.table.Bits() {
		noun = "bit"
	}
	return fmt.Sprintf("%s %d-%d (%s)", b.table, b.start, b.start+b.count-1, plural(b.count, noun))
}

func (b *block) request() models.ReadRequest {
	r := models.ReadRequest{Text: b.text(), Unused: b.unused}
	for _, s := range b.spans {
		if !s.scale {
			r.Points++
		}
	}
	return r
}

// cell is one register or bit of a device.
type cell struct {
	table   wire.Table
	address int
}

// terrain is what a device has taught about itself by refusing reads. The zero
// terrain is flat. It is bounded by the device's points and the gaps between
// them.
type terrain struct {
	holes map[cell]bool // must not be read to bridge a gap
	cuts  map[cell]bool // no request may begin before and end at or after it
}

// passable reports whether a block may go on to a span.
func (t *terrain) passable(b *block, to span) bool {
	if len(t.holes) > 0 {
		for a := b.start + b.count; a < to.start; a++ {
			if t.holes[cell{b.table, a}] {
				return false
			}
		}
	}
	return to.start == b.start || len(t.cuts) == 0 || !t.cuts[cell{b.table, to.start}]
}

// plan groups spans into as few requests as the limits allow: sorted by
// address, each request goes on as long as the next span is near enough. Every
// span is in exactly one block.
func plan(spans []span, l limits, t *terrain) []block {
	sorted := slices.Clone(spans)
	slices.SortStableFunc(sorted, func(a, b span) int {
		return cmp.Or(cmp.Compare(a.table, b.table), cmp.Compare(a.start, b.start), cmp.Compare(a.width, b.width))
	})
	var blocks []block
	for i, s := range sorted {
		if n := len(blocks) - 1; n >= 0 {
			b := &blocks[n]
			end := b.start + b.count
			if b.table == s.table && s.start-end <= l.maxGap && max(end, s.end())-b.start <= l.most(s.table) && t.passable(b, s) {
				b.count = max(end, s.end()) - b.start
				b.unused += max(0, s.start-end)
				b.spans = append(b.spans, sorted[i])
				continue
			}
		}
		blocks = append(blocks, block{table: s.table, start: s.start, count: s.width, spans: []span{s}})
	}
	return blocks
}

func (l limits) most(t wire.Table) int {
	if t.Bits() {
		return l.maxBits
	}
	return l.maxRegisters
}

// split divides a block that the device refused, to find out what of it can be
// read: at its gaps, or in halves when it has none. A block of spans that
// cannot be told apart is not divided.
func (b *block) split() []block {
	if b.unused > 0 {
		return plan(b.spans, limits{maxRegisters: b.count, maxBits: b.count}, &terrain{})
	}
	// The boundary nearest to the middle that no span crosses, else any between
	// two spans.
	middle, best, end := b.start+b.count/2, 0, 0
	for i, s := range b.spans {
		if i > 0 && s.start >= end && (best == 0 || distance(s.start, middle) < distance(b.spans[best].start, middle)) {
			best = i
		}
		end = max(end, s.end())
	}
	if best == 0 {
		best = b.overlapBoundary()
	}
	if best == 0 {
		return nil
	}
	return []block{blockOf(b.spans[:best]), blockOf(b.spans[best:])}
}

// overlapBoundary is a place to divide spans that overlap but differ.
func (b *block) overlapBoundary() int {
	for i := (len(b.spans) + 1) / 2; i < len(b.spans); i++ {
		if b.spans[i].start != b.spans[0].start || b.spans[i].width != b.spans[0].width {
			return i
		}
	}
	return 0
}

func distance(a, b int) int { return max(a-b, b-a) }

func blockOf(spans []span) block {
	b := block{table: spans[0].table, start: spans[0].start, spans: spans}
	for _, s := range spans {
		b.count = max(b.count, s.end()-b.start)
	}
	return b
}
