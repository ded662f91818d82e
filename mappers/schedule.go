package mappers

import (
	"cmp"
	"slices"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

// group is the properties that share an interval.
type group struct {
	every      time.Duration
	polled     []int
	subscribed []int // confirmed, not read, when the group is due
	next       time.Time
	onGrid     bool // next is a tick; the first poll may come before the first tick
}

// schedule says when which group is due. Each group has an absolute grid of
// ticks, start + phase + n*every, so that polls do not drift.
//
// All groups of a device take their phase from one offset. So intervals that
// divide each other meet, and are read in one batch, while devices with
// different seeds spread evenly over every interval.
type schedule struct {
	start  time.Time
	offset time.Duration
	groups []group
}

// maxFirst bounds how long a first poll waits for its phase: values are wanted
// soon after a start, whatever their interval.
const maxFirst = time.Second

// groupsOf sorts the properties that are read by interval. subscribes is nil
// for a device that has no subscriptions.
func groupsOf(properties []models.ResolvedProperty, reads, subscribes func(int) bool) []group {
	var groups []group
	for i, p := range properties {
		if !reads(i) {
			continue
		}
		at := slices.IndexFunc(groups, func(g group) bool { return g.every == p.Every })
		if at < 0 {
			at = len(groups)
			groups = append(groups, group{every: p.Every})
		}
		if subscribes != nil && subscribes(i) {
			groups[at].subscribed = append(groups[at].subscribed, i)
		} else {
			groups[at].polled = append(groups[at].polled, i)
		}
	}
	slices.SortFunc(groups, func(a, b group) int { return cmp.Compare(a.every, b.every) })
	return groups
}

// begin sets the clock's zero. Groups are sorted by interval.
func (s *schedule) begin(start time.Time, seed uint64) {
	s.start = start
	if len(s.groups) == 0 {
		return
	}
	s.offset = time.Duration(seed % uint64(s.groups[len(s.groups)-1].every))
	for i := range s.groups {
		g := &s.groups[i]
		g.next = start.Add(s.offset % min(g.every, maxFirst))
		g.onGrid = g.every <= maxFirst
	}
}

// next is when the earliest group is due; ok is false when there is none.
func (s *schedule) next() (at time.Time, ok bool) {
	for i := range s.groups {
		if g := &s.groups[i]; !ok || g.next.Before(at) {
			at, ok = g.next, true
		}
	}
	return at, ok
}

// due reports whether a group is due, and if so moves it on to its next tick
// after now. It returns how many ticks have passed unused besides the one that
// is due: a late cycle runs at once, but only one.
func (s *schedule) due(g *group, now time.Time) (due bool, missed int) {
	if g.next.After(now) {
		return false, 0
	}
	phase := s.offset % g.every
	n := (now.Sub(s.start) - phase) / g.every // the last tick up to now
	if now.Sub(s.start) < phase {
		n = -1
	}
	last := s.start.Add(phase + n*g.every)
	if g.onGrid {
		missed = int(last.Sub(g.next) / g.every)
	}
	g.next, g.onGrid = last.Add(g.every), true
	return true, missed
}
