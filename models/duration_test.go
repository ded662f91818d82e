package models

import (
	"math"
	"testing"
	"time"
)

func TestParseDuration(t *testing.T) {
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"0": 0, "1s": time.Second, "-1h30m": -90 * time.Minute, "500ms": 500 * time.Millisecond, "3µs": 3 * time.Microsecond,
		"7d": 7 * day, "2w": 14 * day, "1w2d12h": 9*day + 12*time.Hour, "1.5d": 36 * time.Hour, "12h1d": 36 * time.Hour, "-7d": -7 * day, "+1d": day,
		"0d": 0, ".5w": 84 * time.Hour, "1d1ns": day + 1, "106751d": 106751 * day,
	} {
		if got, err := ParseDuration(text); err != nil || got != want {
			t.Errorf("%q: %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "d", "-d", "1", "7", "7D", "1y", "1M", "1d-2h", "1d 2h", "--1d", "1.2.3d", "1dd", "d1", "1d2", " 7d", "1e3d", "106752d", "106751d24h", "99999999999w", "9223372036854775807d", "∞d", "1w\x00"} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("%q is taken for %v", text, got)
		}
	}
}

func TestParseMoment(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"7d": now.AddDate(0, 0, -7), "-7d": now.AddDate(0, 0, -7), "1h": now.Add(-time.Hour), "0s": now, "-90m": now.Add(-90 * time.Minute),
		"2026-01-02T15:04:05Z": time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC), "2026-01-02T15:04:05.5+02:00": time.Date(2026, 1, 2, 13, 4, 5, 5e8, time.UTC),
	} {
		if got, err := ParseMoment(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%q: %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "-", "--7d", "+7d", "yesterday", "2026-01-02", "now-7d", "7"} {
		if got, err := ParseMoment(text, now); err == nil {
			t.Errorf("%q is taken for %v", text, got)
		}
	}
}

// FuzzParseDuration: what Go reads is read like that, and what is read is shown so that
// it is read again.
func FuzzParseDuration(f *testing.F) {
	for _, text := range []string{"1s", "-1h30m", "7d", "1w2d12h", "1.5d", ".d", "9223372036854775807ns", "-106751d23h47m16.854775807s"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := ParseDuration(text)
		if std, stdErr := time.ParseDuration(text); stdErr == nil && (err != nil || d != std) {
			t.Fatalf("%q: %v, %v; Go reads %v", text, d, err, std)
		}
		if err != nil {
			return
		}
		shown, _ := Duration(d).MarshalText()
		var again Duration
		if err := again.UnmarshalText(shown); err != nil || again.Std() != d || d == math.MinInt64 && text[0] != '-' {
			t.Fatalf("%q is shown as %s and read as %v, %v", text, shown, again.Std(), err)
		}
	})
}
