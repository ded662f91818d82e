package models

import (
	"slices"
	"time"
)

// Pages of history are long, and most of what an answer costs is its JSON. So it is
// written here without reflection; json.Marshal of the same gives an equal document.

// AppendJSON appends h's JSON text to b.
func (h *History) AppendJSON(b []byte) []byte {
	b = slices.Grow(b, 256+80*len(h.Points)+160*len(h.Buckets)) // about
	b = appendText(append(b, `{"device":`...), h.Device)
	b = appendText(append(b, `,"property":`...), h.Property)
	b = appendText(append(b, `,"unit":`...), h.Unit)
	if h.Points != nil {
		b = appendList(append(b, `,"points":`...), h.Points)
	}
	if h.Buckets != nil {
		b = appendList(append(b, `,"buckets":`...), h.Buckets)
	}
	if b = append(b, `,"gaps":`...); h.Gaps == nil {
		b = append(b, "null"...)
	} else {
		b = appendList(b, h.Gaps)
	}
	b = appendText(append(b, `,"continue":`...), h.Continue)
	if h.Note != "" {
		b = appendText(append(b, `,"note":`...), h.Note)
	}
	return append(b, '}')
}

// AppendJSON appends p's JSON text to b.
func (p *HistoryPoint) AppendJSON(b []byte) []byte {
	b = appendTime(append(b, `{"time":`...), p.Time)
	b = p.Value.AppendJSON(append(b, `,"value":`...))
	b = appendText(append(b, `,"quality":`...), p.Quality.String())
	if p.Reason != "" {
		b = appendText(append(b, `,"reason":`...), string(p.Reason))
	}
	if p.Backfill {
		b = append(b, `,"backfill":true`...)
	}
	return append(b, '}')
}

// AppendJSON appends k's JSON text to b.
func (k *HistoryBucket) AppendJSON(b []byte) []byte {
	b = appendTime(append(b, `{"time":`...), k.Time)
	if k.Avg != nil {
		b = appendFloat(append(b, `,"avg":`...), *k.Avg)
	}
	if k.Min != nil {
		b = k.Min.AppendJSON(append(b, `,"min":`...))
	}
	if k.Max != nil {
		b = k.Max.AppendJSON(append(b, `,"max":`...))
	}
	if k.Count != nil {
		b = Int(*k.Count).AppendJSON(append(b, `,"count":`...))
	}
	if k.First != nil {
		b = k.First.AppendJSON(append(b, `,"first":`...))
	}
	if k.Last != nil {
		b = k.Last.AppendJSON(append(b, `,"last":`...))
	}
	return append(b, '}')
}

// AppendJSON appends g's JSON text to b.
func (g *HistoryGap) AppendJSON(b []byte) []byte {
	b = appendTime(append(b, `{"from":`...), g.From)
	b = appendTime(append(b, `,"to":`...), g.To)
	b = appendText(append(b, `,"reason":`...), g.Reason)
	return append(b, '}')
}

// appender is a pointer to a T that knows its JSON text.
type appender[T any] interface {
	*T
	AppendJSON(b []byte) []byte
}

func appendList[T any, P appender[T]](b []byte, list []T) []byte {
	b = append(b, '[')
	for i := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = P(&list[i]).AppendJSON(b)
	}
	return append(b, ']')
}

func appendText(b []byte, s string) []byte {
	plain := true
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c > '~' {
			plain = false
			break
		}
	}
	if plain {
		return append(append(append(b, '"'), s...), '"')
	}
	text, _ := marshalPlain(s) // of a string there is always one
	return append(b, text...)
}

// The first and the last time that RFC 3339 has: a date that no clock should show is
// told as one of them, and does not cost the rest of the page.
var (
	firstTime = time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC)
	lastTime  = time.Date(9999, 12, 31, 23, 59, 59, 999_999_000, time.UTC)
)

func appendTime(b []byte, t time.Time) []byte {
	switch {
	case t.Before(firstTime):
		t = firstTime
	case t.After(lastTime):
		t = lastTime
	}
	b = append(b, '"')
	b = t.AppendFormat(b, time.RFC3339Nano)
	return append(b, '"')
}
