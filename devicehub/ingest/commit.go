package ingest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/internal/backoff"
	"github.com/whimbrel-edge/whimbrel/models"
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
		serves := g.serves(group)
		ids, err := g.seriesIDs(ctx, group, base, serves)
		if err != nil {
			if !again("find series", err) {
				return
			}
			continue
		}
		p := g.plan(group, base, serves, ids)
		if len(p.batches) > 0 {
			err = g.cfg.Store.Ingest(ctx, p.batches)
		}
		switch {
		case err == nil:
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

// seriesIDs returns the ids of all series of the group's new records. The map is
// the cache, and holds at least those.
func (g *Ingester) seriesIDs(ctx context.Context, group []*item, base map[logKey]uint64, serves map[claim]bool) (map[store.SeriesKey]int64, error) {
	if len(g.series) > seriesKept {
		clear(g.series)
	}
	var missing []store.SeriesKey
	asked := map[store.SeriesKey]bool{}
	for _, it := range group {
		for _, r := range it.records {
			if r.decoded == nil || r.seq <= base[logKey{it.from.NodeUID, it.epoch}] {
				continue
			}
			for i := range r.decoded.Series {
				s := &r.decoded.Series[i]
				key := seriesKey(s)
				if _, known := g.series[key]; !known && !asked[key] && serves[claim{it.from.Node, s.Device}] {
					missing, asked[key] = append(missing, key), true
				}
			}
		}
	}
	if len(missing) == 0 {
		return g.series, nil
	}
	ids, err := g.cfg.Store.SeriesIDs(ctx, missing)
	if err != nil {
		return nil, err
	}
	if len(ids) != len(missing) {
		return nil, fmt.Errorf("%d ids for %d series", len(ids), len(missing))
	}
	for i, key := range missing {
		g.series[key] = ids[i]
	}
	return g.series, nil
}

func seriesKey(s *edgelink.Series) store.SeriesKey {
	return store.SeriesKey{DeviceUID: s.Device.UID, Assignment: s.Device.Assignment, Property: s.Property}
}

// claim is what a node says by sending samples of a device: that it serves it.
type claim struct {
	node   string
	device edgelink.DeviceRef
}

// serves says which claims of the group hold: the device exists, and if the
// samples are of its present assignment it is this node's. Of a former
// assignment the hub no longer knows whose it was. It is asked once for a group,
// so that all steps go by the same answer.
func (g *Ingester) serves(group []*item) map[claim]bool {
	out := map[claim]bool{}
	for _, it := range group {
		for _, r := range it.records {
			if r.decoded == nil {
				continue
			}
			for i := range r.decoded.Series {
				c := claim{it.from.Node, r.decoded.Series[i].Device}
				if _, known := out[c]; !known {
					assignment, node, ok := g.cfg.Devices.Current(c.device.UID)
					out[c] = ok && (assignment != c.device.Assignment || node == c.node)
				}
			}
		}
	}
	return out
}

// plan makes batches of the records that are new. It decides only.
func (g *Ingester) plan(group []*item, base map[logKey]uint64, serves map[claim]bool, ids map[store.SeriesKey]int64) plan {
	p := plan{acked: map[logKey]uint64{}, aside: map[string]int{}}
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
			p.addRecord(b, it.from, r, serves, ids, now)
			p.news = append(p.news, news{from: it.from, seq: r.seq, decoded: r.decoded})
		}
		p.acked[key] = at
	}
	return p
}

// addRecord adds a record's samples and gaps to the batch.
func (p *plan) addRecord(b *store.Batch, from Origin, r record, serves map[claim]bool, ids map[store.SeriesKey]int64, now time.Time) {
	var unknown []*edgelink.Series
	for i := range r.decoded.Series {
		s := &r.decoded.Series[i]
		if !serves[claim{from.Node, s.Device}] {
			unknown = append(unknown, s)
			continue
		}
		appendSamples(&b.Samples, ids[seriesKey(s)], s)
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
		for k, t := range s.Times {
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

// appendSamples adds a series' samples to the columns.
func appendSamples(to *store.Samples, id int64, s *edgelink.Series) {
	n := s.Len()
	to.TimeUS = append(to.TimeUS, s.Times...)
	// Each kind has a column in s, in the order of the samples.
	var ints, uints, floats, texts int
	for i := range n {
		var v int64
		var f float64
		var text string
		kind := s.Kind(i)
		switch kind {
		case models.KindBool, models.KindInt:
			v = s.Ints[ints]
			ints++
		case models.KindUint:
			v = int64(s.Uints[uints])
			uints++
		case models.KindFloat:
			f = s.Floats[floats]
			floats++
		case models.KindString, models.KindBytes, models.KindJSON:
			text = s.Texts[texts]
			texts++
		}
		quality, reason := s.Quality(i)
		to.Series, to.Kind = append(to.Series, id), append(to.Kind, uint8(kind))
		to.Int, to.Float, to.Text = append(to.Int, v), append(to.Float, f), append(to.Text, text)
		to.Quality, to.Reason = append(to.Quality, uint8(quality)), append(to.Reason, string(reason))
	}
}

// committed tells the sink and ends the items.
func (g *Ingester) committed(group []*item, p *plan, started time.Time) {
	for _, n := range p.news {
		g.cfg.Sink.Committed(n.from.Node, n.from.Rank, n.seq, n.decoded)
	}
	for _, it := range group { // of a node's epochs the last one is what comes next
		g.logs[it.from.NodeUID] = logState{epoch: it.epoch, acked: p.acked[logKey{it.from.NodeUID, it.epoch}]}
	}
	g.metrics.committed(p, time.Since(started))
	for _, it := range group {
		g.finish(it, p.acked[logKey{it.from.NodeUID, it.epoch}], nil)
	}
}
