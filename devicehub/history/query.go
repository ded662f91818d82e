package history

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/models"
)

// Reading is what queries need of the store.
type Reading interface {
	Samples(ctx context.Context, deviceUID, property string, fromUS, toUS int64, f func(store.Sample) error) error
	Rollups(ctx context.Context, deviceUID, property string, fromUS, toUS, stepUS int64, sample func(store.Sample) error, rollup func(*store.Rollup) error) error
	Gaps(ctx context.Context, nodeUID string, f func(store.Gap) error) error
}

// Subject is whose history is asked for.
type Subject struct {
	DeviceUID, Property string
	Nodes               []store.Service // that serve the device, and that did: whose gaps are the device's
}

// errEnough ends the reading of a page that is full.
var errEnough = errors.New("enough")

// Query reads one page: Points or Buckets, Gaps and Continue of the answer.
func Query(ctx context.Context, s Reading, of Subject, q models.HistoryQuery) (models.History, error) {
	if q.Limit <= 0 {
		return models.History{}, errors.New("history: a query needs a limit")
	}
	from, to := micros(q.From), micros(q.To)
	start := from
	var at cursor
	if q.Continue != "" {
		var err error
		if at, err = parseCursor(q.Continue); err != nil || at.us < from || at.us > to {
			return models.History{}, models.BadParameter(models.KindMalformed, "continue", "must be what the page before gave, with the same from, to and step")
		}
		start = at.us
	}
	var out models.History
	var gaps []models.HistoryGap
	var next *cursor
	var err error
	if q.Step == 0 {
		out.Points, next, err = points(ctx, s, of, start, to, at.skip, q.Limit)
	} else {
		out.Buckets, gaps, next, err = buckets(ctx, s, of, at.bad, start, to, q)
	}
	if err != nil {
		return models.History{}, err
	}
	end := to
	if next != nil {
		end, out.Continue = next.us, next.String()
	}
	if out.Gaps, err = recorded(ctx, s, of, start, end, q.Continue == ""); err != nil {
		return models.History{}, err
	}
	out.Gaps = append(out.Gaps, gaps...)
	slices.SortStableFunc(out.Gaps, func(a, b models.HistoryGap) int { return a.From.Compare(b.From) })
	return out, nil
}

// micros is a time in microseconds since 1970; those before and after all that
// there is are the first and the last.
func micros(t time.Time) int64 {
	switch {
	case t.Unix() < math.MinInt64/1_000_000:
		return math.MinInt64
	case t.Unix() >= math.MaxInt64/1_000_000:
		return math.MaxInt64
	}
	// Rounded up: a sample at the microsecond before is before t.
	us := t.UnixMicro()
	if t.Nanosecond()%1000 != 0 {
		us++
	}
	return us
}

// cursor is where a page goes on: at a time, after as many samples of it as were
// told already, in buckets in the midst of a gap for this reason.
type cursor struct {
	us   int64
	skip int
	bad  string
}

func (c cursor) String() string {
	text := fmt.Sprintf("%d.%d", c.us, c.skip)
	if c.bad != "" {
		text += "." + c.bad
	}
	return text
}

func parseCursor(text string) (c cursor, err error) {
	us, rest, _ := strings.Cut(text, ".")
	skip, bad, _ := strings.Cut(rest, ".")
	if c.us, err = strconv.ParseInt(us, 10, 64); err == nil {
		c.skip, err = strconv.Atoi(skip)
	}
	if c.bad = bad; err == nil && c.skip >= 0 && c.String() == text {
		return c, nil
	}
	return c, fmt.Errorf("not a cursor: %w", err)
}

func points(ctx context.Context, s Reading, of Subject, from, to int64, skip, limit int) (out []models.HistoryPoint, next *cursor, err error) {
	out = make([]models.HistoryPoint, 0, min(limit, 1024))
	at := cursor{us: from}
	err = s.Samples(ctx, of.DeviceUID, of.Property, from, to, func(v store.Sample) error {
		if v.TimeUS != at.us {
			at = cursor{us: v.TimeUS}
		}
		if at.us == from && at.skip < skip {
			at.skip++
			return nil
		}
		if len(out) == limit {
			next = &at
			return errEnough
		}
		at.skip++
		value, err := Value(v)
		if err != nil {
			return err
		}
		out = append(out, models.HistoryPoint{Time: time.UnixMicro(v.TimeUS).UTC(), Value: value, Quality: quality(v.Quality),
			Reason: models.Reason(v.Reason), Backfill: v.Backfill})
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return out, next, err
}

// Value is the value of a stored sample.
func Value(v store.Sample) (models.Value, error) {
	kind := models.Kind(v.Kind)
	bits := uint64(v.Int)
	if kind == models.KindFloat {
		bits = math.Float64bits(v.Float)
	}
	value, err := models.FromRaw(kind, bits, v.Text)
	if err != nil {
		return models.Null, fmt.Errorf("stored sample at %d: %w", v.TimeUS, err)
	}
	return value, nil
}

// quality shows one of a later release as bad.
func quality(q uint8) models.Quality { return min(models.Quality(q), models.Bad) }

// Any reports whether there is any history of a property.
func Any(ctx context.Context, s Reading, of Subject) (bool, error) {
	err := s.Samples(ctx, of.DeviceUID, of.Property, math.MinInt64, math.MaxInt64, func(store.Sample) error { return errEnough })
	if errors.Is(err, errEnough) {
		return true, nil
	}
	return false, err
}

// recorded are the gaps that a node's log tells of, of the part of a query that a
// page holds; a gap that began before belongs to the first page.
func recorded(ctx context.Context, s Reading, of Subject, from, to int64, first bool) ([]models.HistoryGap, error) {
	out := []models.HistoryGap{}
	for _, node := range of.Nodes {
		var err error
		if out, err = recordedOf(ctx, s, node, from, to, first, out); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// recordedOf adds the gaps of one node, of the time in which it served.
func recordedOf(ctx context.Context, s Reading, node store.Service, from, to int64, first bool, out []models.HistoryGap) ([]models.HistoryGap, error) {
	err := s.Gaps(ctx, node.NodeUID, func(g store.Gap) error {
		if g.Reason == reasonUnknownDevice {
			return nil // of devices that are not this node's
		}
		// Of a loss whose time is not known there is at least the time at which it
		// was noticed.
		begin, end := g.From, g.To
		if begin.IsZero() {
			begin = end
		}
		if begin.IsZero() {
			begin = g.Recorded
		}
		if end.IsZero() {
			end = begin
		}
		if !node.Since.IsZero() && end.Before(node.Since) || !node.Till.IsZero() && !begin.Before(node.Till) {
			return nil
		}
		if !node.Since.IsZero() && begin.Before(node.Since) {
			begin = node.Since
		}
		if !node.Till.IsZero() && end.After(node.Till) {
			end = node.Till
		}
		b, e := begin.UnixMicro(), end.UnixMicro()
		if b >= to || e < from || b < from && !first {
			return nil
		}
		out = append(out, models.HistoryGap{From: begin.UTC(), To: end.UTC(), Reason: g.Reason})
		return nil
	})
	return out, err
}

// reasonUnknownDevice is ingest's.
const reasonUnknownDevice = "unknown-device"
