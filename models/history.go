package models

import (
	"slices"
	"strings"
	"time"
)

// HistoryQuery asks for a page of one property's history.
type HistoryQuery struct {
	From, To time.Time     // from inclusive, to exclusive
	Step     time.Duration // 0: the samples themselves; else buckets of that width, aligned to 1970
	Agg      []Agg         // what buckets tell
	Limit    int           // at most this many points or buckets
	Continue string        // History.Continue of the page before
	UID      string        // of a device that was deleted, "" for the one there is
}

// Agg is one thing that a bucket tells of its samples.
type Agg string

// The aggregates.
const (
	AggAvg   Agg = "avg"
	AggMin   Agg = "min"
	AggMax   Agg = "max"
	AggCount Agg = "count"
	AggFirst Agg = "first"
	AggLast  Agg = "last"
)

// Aggs lists every Agg in the order documents show them.
var Aggs = []Agg{AggAvg, AggMin, AggMax, AggCount, AggFirst, AggLast}

// DefaultAggs are those of a query that names none.
var DefaultAggs = []Agg{AggAvg, AggMin, AggMax, AggCount}

// ParseAggs reads a list such as "avg,max".
func ParseAggs(text string) (out []Agg, err error) {
	for name := range strings.SplitSeq(text, ",") {
		a := Agg(strings.TrimSpace(name))
		if !slices.Contains(Aggs, a) {
			return nil, BadParameter(KindInvalid, "agg", "must be some of avg, min, max, count, first, last, joined by commas; got %s", quoteShort(name))
		}
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out, nil
}

// History is a page of one property's history.
type History struct {
	Device   string `json:"device"`
	Property string `json:"property"`
	Unit     string `json:"unit"`
	// Points are there without a step, buckets with one.
	Points  []HistoryPoint  `json:"points,omitzero"`
	Buckets []HistoryBucket `json:"buckets,omitzero"`
	Gaps    []HistoryGap    `json:"gaps"`
	// Continue asks for the next page; "" on the last.
	Continue string `json:"continue"`
	// Note says why there is no more of it than there is, where the model is the reason.
	Note string `json:"note,omitempty"`
}

// HistoryPoint is one sample. A value that was bad is null.
type HistoryPoint struct {
	Time     time.Time `json:"time"`
	Value    Value     `json:"value"`
	Quality  Quality   `json:"quality"`
	Reason   Reason    `json:"reason,omitempty"`
	Backfill bool      `json:"backfill,omitempty"` // delivered after an outage
}

// HistoryBucket tells of the samples of one step that have a value. Buckets
// without any are left out. Avg, Min and Max are of numbers and of bools, of
// which avg is the part that is true; of other values they are left out.
type HistoryBucket struct {
	Time  time.Time `json:"time"` // the bucket's beginning
	Avg   *float64  `json:"avg,omitempty"`
	Min   *Value    `json:"min,omitempty"`
	Max   *Value    `json:"max,omitempty"`
	Count *int64    `json:"count,omitempty"`
	First *Value    `json:"first,omitempty"`
	Last  *Value    `json:"last,omitempty"`
}

// HistoryGap is a time of which samples are missing, and why.
type HistoryGap struct {
	From   time.Time `json:"from"`
	To     time.Time `json:"to"`
	Reason string    `json:"reason"`
}

// NotKept says why there is no history of a property, "" where there is.
func NotKept(history bool, uplink Uplink) string {
	switch {
	case uplink == UplinkNone:
		return "its values stay at the edge (uplink: none)"
	case !history:
		return "not kept as history (history: false)"
	}
	return ""
}
