package ingest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/internal/backoff"
	"github.com/whimbrel-edge/whimbrel/internal/failpoint"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
)

// logKey names an epoch of a node.
type logKey struct{ nodeUID, epoch string }

// plan is what a group comes to: the batches to store and what follows.
type plan struct {
	batches []store.Batch
	news    []news
	acked   map[logKey]uint64 // afterwards, for every log of the group
	samples int
	aside   map[string]int // records set aside, by reason
	states  map[string]state
	served  map[served]bool
	badEnds map[ending]bool
}

// news is a record for the sink.
type news struct {
	from    Origin
	seq     uint64
	decoded *edgelink.Decoded
}

// ingest commits a group, trying again while the store fails, and ends its
// items. It gives up only when ctx ends.
func (g *Ingester) ingest(ctx context.Context, group []*item) {
	started := group[0].at
	retry, err := backoff.New(g.cfg.Retry, rand.Float64)
	if err != nil {
		g.fail(group, err)
		return
	}
	// unsure: an attempt failed in a way that may yet have committed it.
	unsure := false
	again := func(what string, err error) bool {
		g.cfg.Log.Error("the store fails; nothing is lost, edges wait", "step", what, "error", err, "attempt", retry.Failures()+1)
		if retry.Wait(ctx) != nil {
			g.fail(group, ErrStopped)
			return false
		}
		return true
	}
	for len(group) > 0 {
		base, lost, err := g.acked(ctx, group)
		if err != nil {
			if !again("read epochs", err) {
				return
			}
			continue
		}
		if len(lost) > 0 { // an epoch that is not known: this is another database
			bad, rest := split(group, func(it *item) bool { return lost[logKey{it.from.NodeUID, it.epoch}] })
			g.fail(bad, ErrConflict)
			group = rest
			continue
		}
		if err := g.findSeries(ctx, group, base); err != nil {
			if !again("find series", err) {
				return
			}
			continue
		}
		if err := g.loadStates(ctx, group); err != nil {
			if !again("read states", err) {
				return
			}
			continue
		}
		p := g.plan(group, base)
		failpoint.Here("ingest.commit")
		if len(p.batches) > 0 {
			err = g.cfg.Store.Ingest(ctx, p.batches)
		}
		switch {
		case err == nil:
			failpoint.Here("ingest.committed")
			g.committed(group, &p, started)
			return
		case !errors.Is(err, store.ErrConflict):
			unsure = true
			if !again("commit", err) {
				return
			}
		default:
			var ok bool
			if group, ok = g.resolve(ctx, group, &p, base, unsure, started); !ok && !again("resolve a conflict", err) {
				return
			}
		}
	}
}

// split parts a group, keeping its order.
func split(group []*item, is func(*item) bool) (those, rest []*item) {
	for _, it := range group {
		if is(it) {
			those = append(those, it)
		} else {
			rest = append(rest, it)
		}
	}
	return those, rest
}

// resolve finds out what a conflict means. If an earlier attempt did commit the
// group, it is done with; nodes whose logs somebody else has moved on are told;
// the rest is returned for another try. It returns false when it does not know.
func (g *Ingester) resolve(ctx context.Context, group []*item, p *plan, base map[logKey]uint64, unsure bool, started time.Time) ([]*item, bool) {
	for _, it := range group {
		delete(g.logs, it.from.NodeUID)
	}
	clear(g.states)
	clear(g.served)
	now, lost, err := g.acked(ctx, group)
	if err != nil {
		return group, false
	}
	mine, moved := true, false
	for key, target := range p.acked {
		mine = mine && now[key] == target && !lost[key]
		moved = moved || now[key] != base[key] || lost[key]
	}
	if unsure && mine {
		g.committed(group, p, started)
		return nil, true
	}
	bad, rest := split(group, func(it *item) bool {
		key := logKey{it.from.NodeUID, it.epoch}
		return lost[key] || now[key] != base[key]
	})
	g.fail(bad, ErrConflict)
	return rest, moved
}

// acked returns the acknowledged seq of every log of the group, from the cache
// where that knows, and the logs that the store does not know.
func (g *Ingester) acked(ctx context.Context, group []*item) (acked map[logKey]uint64, lost map[logKey]bool, err error) {
	acked, lost = map[logKey]uint64{}, map[logKey]bool{}
	for _, it := range group {
		key := logKey{it.from.NodeUID, it.epoch}
		if _, ok := acked[key]; ok || lost[key] {
			continue
		}
		if known, ok := g.logs[key.nodeUID]; ok && known.epoch == key.epoch {
			acked[key] = known.acked
			continue
		}
		epochs, err := g.cfg.Store.Epochs(ctx, key.nodeUID)
		if err != nil {
			return nil, nil, err
		}
		lost[key] = true
		for _, e := range epochs {
			if e.ID == key.epoch {
				acked[key] = e.Acked
				delete(lost, key)
				g.logs[key.nodeUID] = logState{epoch: e.ID, acked: e.Acked}
			}
		}
	}
	return acked, lost, nil
}

// claim is what a node says by sending samples of a device: that it serves it.
type claim struct {
	node   string
	device edgelink.DeviceRef
}

// notServed is in the place of a series id where the claim does not hold.
const notServed = math.MinInt64

// known are the ids of one device's series, by property. Records name them in the
// same order again and again, so that the next one is mostly found without a look
// into the map.
type known struct {
	*naming
	ids  []int64 // in the order of names
	next int
}

// naming is the properties of a device in the order in which they came. Devices of
// one model mostly share one: a hub with a million series would otherwise look for
// each sample in memory that is in no cache.
type naming struct {
	key   string // in Ingester.namings
	of    int    // devices
	names []string
	at    map[string]int // into names
}

// id returns the id of a property's series.
func (k *known) id(property string) (int64, bool) {
	if k.next >= len(k.names) {
		k.next = 0
	}
	if len(k.names) == 0 {
		return 0, false
	}
	if k.names[k.next] != property {
		i, ok := k.at[property]
		if !ok {
			return 0, false
		}
		k.next = i
	}
	k.next++
	return k.ids[k.next-1], true
}

// found adds series to those that are known.
func (g *Ingester) found(keys []store.SeriesKey, ids []int64) {
	added := map[edgelink.DeviceRef][]int{} // places in keys
	for i, key := range keys {
		ref := edgelink.DeviceRef{UID: key.DeviceUID, Assignment: key.Assignment}
		added[ref] = append(added[ref], i)
	}
	for ref, places := range added {
		k := g.knownOf(ref)
		names := slices.Clone(k.names)
		for _, i := range places {
			names, k.ids = append(names, keys[i].Property), append(k.ids, ids[i])
		}
		if k.of--; k.of == 0 {
			delete(g.namings, k.key)
		}
		k.naming, k.next = g.namingOf(names), 0
		k.of++
		k.ids = slices.Clip(k.ids)
	}
	g.seriesCount += len(keys)
}

// namingOf returns the naming of these properties.
func (g *Ingester) namingOf(names []string) *naming {
	key := strings.Join(names, "\x00") // which is in no name
	n := g.namings[key]
	if n == nil {
		n = &naming{key: key, at: make(map[string]int, len(names))}
		at := 0
		for i, name := range names {
			name = key[at : at+len(name)] // those that came are part of a whole record's names
			at += len(name) + 1
			n.names, n.at[name] = append(n.names, name), i
		}
		g.namings[key] = n
	}
	return n
}

// findSeries finds the ids of all series of the group's new records, and makes
// those that are not there. Where a claim does not hold it notes notServed. A
// claim holds when the device exists, and if the samples are of its present
// assignment it is this node's. Of a former assignment the hub no longer knows
// whose it was. It is asked once for a group, so that all steps go by the same
// answer.
func (g *Ingester) findSeries(ctx context.Context, group []*item, base map[logKey]uint64) error {
	if g.seriesCount > seriesKept {
		clear(g.series)
		clear(g.namings)
		g.seriesCount = 0
	}
	serves := map[claim]bool{}
	var missing []store.SeriesKey
	asked := map[store.SeriesKey]bool{}
	// twice: the second time with those that were missing
	for range 2 {
		for _, it := range group {
			acked := base[logKey{it.from.NodeUID, it.epoch}]
			for i := range it.records {
				r := &it.records[i]
				if r.decoded == nil || r.seq <= acked {
					continue
				}
				g.findSeriesOf(it.from.Node, r, serves, func(key store.SeriesKey) {
					if !asked[key] {
						missing, asked[key] = append(missing, key), true
					}
				})
			}
		}
		if len(missing) == 0 {
			return nil
		}
		ids, err := g.cfg.Store.SeriesIDs(ctx, missing)
		if err != nil {
			return err
		}
		if len(ids) != len(missing) {
			return fmt.Errorf("%d ids for %d series", len(ids), len(missing))
		}
		g.found(missing, ids)
		missing = nil
	}
	return nil
}

func (g *Ingester) knownOf(device edgelink.DeviceRef) *known {
	k := g.series[device]
	if k == nil {
		k = &known{naming: g.namingOf(nil)}
		k.of++
		g.series[device] = k
	}
	return k
}

// findSeriesOf notes the ids of one record's series, and of those of the states
// that it tells.
func (g *Ingester) findSeriesOf(node string, r *record, serves map[claim]bool, missing func(store.SeriesKey)) {
	r.ids, r.stateIDs, r.refused = r.ids[:0], r.stateIDs[:0], nil
	for _, s := range r.decoded.States {
		id := int64(notServed)
		if g.judge(node, s.Device, serves) {
			var ok bool
			if id, ok = g.knownOf(s.Device).id(StateSeries); !ok {
				missing(stateKey(s.Device))
			}
		}
		r.stateIDs = append(r.stateIDs, id)
	}
	for _, w := range r.decoded.Writes {
		if !g.judge(node, w.Device, serves) {
			if r.refused == nil {
				r.refused = map[edgelink.DeviceRef]bool{}
			}
			r.refused[w.Device] = true
		}
	}
	var device edgelink.DeviceRef
	var of *known
	holds := false
	for i := range r.decoded.Series {
		s := &r.decoded.Series[i]
		if i == 0 || s.Device != device {
			device = s.Device
			if holds = g.judge(node, device, serves); holds {
				of = g.knownOf(device)
			}
		}
		if !holds {
			r.ids = append(r.ids, notServed)
			continue
		}
		id, ok := of.id(s.Property)
		if !ok {
			missing(store.SeriesKey{DeviceUID: device.UID, Assignment: device.Assignment, Property: s.Property})
		}
		r.ids = append(r.ids, id)
	}
}

// judge says whether a node's claim to serve a device holds.
func (g *Ingester) judge(node string, device edgelink.DeviceRef, serves map[claim]bool) bool {
	c := claim{node, device}
	holds, asked := serves[c]
	if !asked {
		assignment, serving, ok := g.cfg.Devices.Current(device.UID)
		holds = ok && (assignment != device.Assignment || serving == node)
		serves[c] = holds
	}
	return holds
}

// plan makes batches of the records that are new. It decides only.
func (g *Ingester) plan(group []*item, base map[logKey]uint64) plan {
	p := plan{acked: map[logKey]uint64{}, aside: map[string]int{}, states: map[string]state{}, served: map[served]bool{}, badEnds: map[ending]bool{}}
	now := g.cfg.Now()
	for _, it := range group {
		key := logKey{it.from.NodeUID, it.epoch}
		at, seen := p.acked[key]
		if !seen {
			at = base[key]
		}
		var b *store.Batch
		for _, r := range it.records {
			if r.seq <= at {
				continue // a resend
			}
			if b == nil || b.Backfill != r.backfill {
				p.batches = append(p.batches, store.Batch{NodeUID: it.from.NodeUID, Epoch: it.epoch, After: at, Received: now, Backfill: r.backfill})
				b = &p.batches[len(p.batches)-1]
			}
			at = r.seq
			b.Acked = at
			if r.decoded == nil {
				p.addGap(b, reasonUnreadable, r.seq, nil, now)
				continue
			}
			if b.Samples.Series == nil {
				b.Samples = room(it.samples)
			}
			p.addRecord(b, it.from, r, now)
			g.addNews(&p, b, it.from, r, now)
			p.news = append(p.news, news{from: it.from, seq: r.seq, decoded: r.decoded})
		}
		p.acked[key] = at
	}
	return p
}

// addRecord adds a record's samples and gaps to the batch.
func (p *plan) addRecord(b *store.Batch, from Origin, r record, now time.Time) {
	var unknown []*edgelink.Series
	for i := range r.decoded.Series {
		s := &r.decoded.Series[i]
		if r.ids[i] == notServed {
			unknown = append(unknown, s)
			continue
		}
		appendSamples(&b.Samples, r.ids[i], &r.decoded.Columns, s.Lo, s.Hi)
		p.samples += s.Len()
	}
	for _, gap := range r.decoded.Gaps {
		b.Gaps = append(b.Gaps, store.Gap{NodeUID: from.NodeUID, Reason: gap.Reason, Epoch: gap.Epoch, FirstSeq: gap.FirstSeq, LastSeq: gap.LastSeq,
			Samples: gap.Samples, From: gap.From, To: gap.To, Recorded: now})
	}
	if len(unknown) > 0 {
		p.addGap(b, reasonUnknownDevice, r.seq, unknown, now)
	}
}

// addGap notes that a record, or some series of it, is set aside. Neighbours
// become one gap: a deleted device may have left a long log.
func (p *plan) addGap(b *store.Batch, reason string, seq uint64, series []*edgelink.Series, now time.Time) {
	p.aside[reason]++
	gap := store.Gap{NodeUID: b.NodeUID, Reason: reason, Epoch: b.Epoch, FirstSeq: seq, LastSeq: seq, Recorded: now}
	var from, to int64
	for i, s := range series {
		for k, t := range s.Times() {
			if i == 0 && k == 0 {
				from, to = t, t
			}
			from, to = min(from, t), max(to, t)
		}
		gap.Samples += uint64(s.Len())
	}
	if gap.Samples > 0 {
		gap.From, gap.To = time.UnixMicro(from).UTC(), time.UnixMicro(to).UTC()
	}
	if n := len(b.Gaps); n > 0 {
		last := &b.Gaps[n-1]
		if last.Reason == reason && last.Epoch == b.Epoch && last.LastSeq+1 == seq && (last.Samples > 0) == (gap.Samples > 0) {
			last.LastSeq = seq
			last.Samples += gap.Samples
			if gap.Samples > 0 && gap.From.Before(last.From) {
				last.From = gap.From
			}
			if gap.Samples > 0 && gap.To.After(last.To) {
				last.To = gap.To
			}
			return
		}
	}
	b.Gaps = append(b.Gaps, gap)
}

// room has room for so many samples in the columns that all have.
func room(n int) store.Samples {
	return store.Samples{Series: make([]int64, 0, n), TimeUS: make([]int64, 0, n), Kind: make([]uint8, 0, n)}
}

// appendSamples adds the samples [lo, hi) of a record, which are of one series.
func appendSamples(to *store.Samples, id int64, from *edgelink.Columns, lo, hi int) {
	before, most := len(to.Series), cap(to.Series)
	for range hi - lo {
		to.Series = append(to.Series, id)
	}
	to.TimeUS, to.Kind = append(to.TimeUS, from.Times[lo:hi]...), append(to.Kind, from.Kinds[lo:hi]...)
	to.Int, to.Float = extend(to.Int, from.Ints, lo, hi, before, most), extend(to.Float, from.Floats, lo, hi, before, most)
	to.Text = extend(to.Text, from.Texts, lo, hi, before, most)
	to.Quality, to.Reason = extend(to.Quality, from.Qualities, lo, hi, before, most), extend(to.Reason, from.Reasons, lo, hi, before, most)
}

// extend adds elements [lo, hi) of a column to one of before elements. A column
// that says nothing is nil.
func extend[T any](to, from []T, lo, hi, before, most int) []T {
	switch {
	case from == nil && to == nil:
		return nil
	case to == nil:
		to = make([]T, before, max(most, before+hi-lo))
	case from == nil:
		return append(to, make([]T, hi-lo)...)
	}
	return append(to, from[lo:hi]...)
}

// committed tells the sink and ends the items.
func (g *Ingester) committed(group []*item, p *plan, started time.Time) {
	for _, n := range p.news {
		g.cfg.Sink.Committed(n.from.Node, n.from.Rank, n.seq, n.decoded)
	}
	for _, it := range group { // of a node's epochs the last one is what comes next
		g.logs[it.from.NodeUID] = logState{epoch: it.epoch, acked: p.acked[logKey{it.from.NodeUID, it.epoch}]}
	}
	maps.Copy(g.states, p.states)
	if len(g.served) > lastKept {
		clear(g.served)
	}
	maps.Copy(g.served, p.served)
	if len(g.badEnds) > lastKept {
		clear(g.badEnds)
	}
	maps.Copy(g.badEnds, p.badEnds)
	if g.cfg.Happened != nil && slices.ContainsFunc(p.batches, func(b store.Batch) bool { return len(b.Events) > 0 }) {
		g.cfg.Happened()
	}
	g.metrics.committed(p, time.Since(started))
	for _, it := range group {
		g.finish(it, p.acked[logKey{it.from.NodeUID, it.epoch}], nil)
	}
}
