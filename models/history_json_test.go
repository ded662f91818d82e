package models

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"testing"
	"time"
)

// TestHistoryJSON compares the text that is appended with what json.Marshal makes of
// the same.
func TestHistoryJSON(t *testing.T) {
	at := func(ns int64) time.Time { return time.Unix(1_770_000_000, ns).UTC() }
	value := func(v Value) *Value { return &v }
	for name, h := range map[string]History{
		"empty points": {Device: "d", Property: "p", Points: []HistoryPoint{}, Gaps: []HistoryGap{}},
		"nothing":      {},
		"points": {Device: "d-1", Property: "Temp.A", Unit: "°C", Continue: "12.3", Note: `not "kept"`, Gaps: []HistoryGap{{From: at(0), To: at(5), Reason: `a "b" \ <c>`}, {Reason: "x"}},
			Points: []HistoryPoint{
				{Time: at(0), Value: Float(71.5)},
				{Time: at(1000), Value: Null, Quality: Bad, Reason: "timeout", Backfill: true},
				{Time: at(999_999_000), Value: Int(math.MinInt64), Quality: Uncertain, Reason: "stale"},
				{Time: at(1), Value: Uint(math.MaxUint64)},
				{Time: at(2), Value: Float(1e-9)},
				{Time: at(3), Value: Float(math.MaxFloat64)},
				{Time: at(4), Value: Bool(true)},
				{Time: at(5), Value: String("a\x00\u2028\"<&>é")},
				{Time: at(6), Value: Bytes([]byte{0, 255, 3})},
			}},
		"buckets": {Device: "d", Unit: "\t", Gaps: []HistoryGap{}, Buckets: []HistoryBucket{
			{Time: at(0)},
			{Time: at(7), Avg: new(1.5e-8), Min: value(Int(-1)), Max: value(Float(0.25)), Count: new(int64(7)), First: value(String("x")), Last: value(Bool(false))},
			{Time: at(8), Avg: new(math.Copysign(0, -1)), Count: new(int64(math.MaxInt64))},
		}},
	} {
		have := h.AppendJSON([]byte("before"))[len("before"):]
		want, err := json.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		if h, w := tree(t, have), tree(t, want); !reflect.DeepEqual(h, w) {
			t.Errorf("%s:\n%s\nwant\n%s", name, have, want)
		}
	}
}

func tree(t *testing.T, text []byte) (v any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return v
}

// TestHistoryOfStrangeDates: a date beyond those of RFC 3339 does not cost the page.
func TestHistoryOfStrangeDates(t *testing.T) {
	h := History{Gaps: []HistoryGap{{From: time.UnixMicro(math.MinInt64), To: time.UnixMicro(math.MaxInt64)}}}
	var back History
	if err := json.Unmarshal(h.AppendJSON(nil), &back); err != nil {
		t.Fatal(err)
	}
	if g := back.Gaps[0]; g.From.Year() != 0 || g.To.Year() != 9999 {
		t.Errorf("told as %v", g)
	}
}

func BenchmarkHistoryJSON(b *testing.B) {
	h := History{Device: "d", Property: "p"}
	for i := range 3600 {
		h.Points = append(h.Points, HistoryPoint{Time: time.Unix(int64(i), 0).UTC(), Value: Float(float64(i) / 100)})
	}
	var text []byte
	for b.Loop() {
		text = h.AppendJSON(text[:0])
	}
}
