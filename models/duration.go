package models

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
)

// Duration is a time span written as a string: "1s", "500ms", "1h30m", "7d". It is
// shown in hours and less, as every release and Go program reads it.
type Duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%w, got %s", err, quoteShort(string(text)))
	}
	*d = Duration(v)
	return nil
}

// Std returns d as a time.Duration.
func (d Duration) Std() time.Duration { return time.Duration(d) }

var (
	errDuration = errors.New(`must be a duration such as "500ms", "30s", "1h30m", "7d" or "2w"`)
	errMoment   = errors.New(`must be a time such as 2026-01-02T15:04:05Z, or how long ago such as 30m, 12h, 7d or 2w`)
)

// ParseDuration reads what people write for a time span: Go's units, d for 24 hours and
// w for 7 days, one after the other as in "1w2d12h". The error says what must be, not
// what was got.
func ParseDuration(text string) (time.Duration, error) {
	rest, minus := strings.CutPrefix(text, "-")
	if !minus {
		rest = strings.TrimPrefix(rest, "+")
	}
	if !strings.ContainsAny(rest, "dw") {
		d, err := time.ParseDuration(text)
		if err != nil {
			return 0, errDuration
		}
		return d, nil
	}
	var sum time.Duration
	for rest != "" {
		unit := strings.IndexFunc(rest, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
		if unit < 1 {
			return 0, errDuration
		}
		end := len(rest)
		if n := strings.IndexAny(rest[unit:], ".0123456789"); n >= 0 {
			end = unit + n
		}
		part, times := rest[:end], time.Duration(1)
		switch rest[unit:end] {
		case "d":
			part, times = rest[:unit]+"h", 24
		case "w":
			part, times = rest[:unit]+"h", 7*24
		}
		d, err := time.ParseDuration(part)
		if err != nil || d > math.MaxInt64/times || sum > math.MaxInt64-d*times {
			return 0, errDuration
		}
		sum, rest = sum+d*times, rest[end:]
	}
	if minus {
		sum = -sum
	}
	return sum, nil
}

// ParseMoment reads a time, or how long before now it was: "7d" and "-7d" are the same.
// The error says what must be, not what was got.
func ParseMoment(text string, now time.Time) (time.Time, error) {
	if ago, err := ParseDuration(strings.TrimPrefix(text, "-")); err == nil && ago >= 0 && !strings.HasPrefix(text, "+") {
		return now.Add(-ago), nil
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return t, errMoment
	}
	return t, nil
}
