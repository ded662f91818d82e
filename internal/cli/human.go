package cli

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/twin"
)

// nothing stands in a table where there is nothing to show.
const nothing = "-"

// age says how long something took, as kubectl does: with two units where one
// would be too coarse.
func age(d time.Duration) string {
	const day = 24 * time.Hour
	two := func(big time.Duration, bigName string, small time.Duration, smallName string) string {
		s := strconv.FormatInt(int64(d/big), 10) + bigName
		if rest := d % big / small; rest > 0 {
			s += strconv.FormatInt(int64(rest), 10) + smallName
		}
		return s
	}
	one := func(unit time.Duration, name string) string { return strconv.FormatInt(int64(d/unit), 10) + name }
	switch {
	case d < 0:
		if d > -2*time.Second { // clocks that differ a little
			return "0s"
		}
		return "in " + age(-max(d, -math.MaxInt64)) // the least has no opposite
	case d < 2*time.Minute:
		return one(time.Second, "s")
	case d < 10*time.Minute:
		return two(time.Minute, "m", time.Second, "s")
	case d < 3*time.Hour:
		return one(time.Minute, "m")
	case d < 8*time.Hour:
		return two(time.Hour, "h", time.Minute, "m")
	case d < 2*day:
		return one(time.Hour, "h")
	case d < 8*day:
		return two(day, "d", time.Hour, "h")
	case d < 2*365*day:
		return one(day, "d")
	case d < 8*365*day:
		return two(365*day, "y", day, "d")
	}
	return one(365*day, "y")
}

// since is the age of a moment, nothing where there is none.
func since(t *time.Time, now time.Time) string {
	if t == nil || t.IsZero() {
		return nothing
	}
	return age(now.Sub(*t))
}

// value writes a value as a person reads it: with its name where it has one and
// its unit.
func value(v models.Value, name, unit string) string {
	if v.IsNull() {
		return nothing
	}
	text := v.String()
	if f, ok := v.AsFloat(); ok && v.Kind() == models.KindFloat {
		text = float(f)
	}
	if v.Kind() == models.KindString && text == "" {
		text = `""`
	}
	if name != "" {
		text = fmt.Sprintf("%s (%s)", name, text)
	}
	if unit != "" {
		text += " " + unit
	}
	return text
}

// float leaves the digits out that only binary fractions have: a device's
// float32 45.3 is 45.29999923706055 as a float64.
func float(f float64) string {
	bits := 64
	if float64(float32(f)) == f {
		bits = 32
	} else if rounded, err := strconv.ParseFloat(strconv.FormatFloat(f, 'g', 12, 64), 64); err == nil {
		f = rounded
	}
	format := byte('f')
	if abs := max(f, -f); abs != 0 && (abs < 1e-6 || abs >= 1e15) {
		format = 'e'
	}
	return strconv.FormatFloat(f, format, -1, bits)
}

// quality says in words how far a reported value may be trusted.
func quality(r *twin.ReportedDoc) string {
	switch {
	case r == nil:
		return nothing
	case r.Reason != "":
		return fmt.Sprintf("%s (%s)", r.Quality, r.Reason)
	}
	return r.Quality.String()
}

func reported(p twin.PropertyDoc) string {
	if p.Reported == nil {
		return nothing
	}
	return value(p.Reported.Value, p.Reported.Name, p.Unit)
}

func reportedAge(p twin.PropertyDoc, now time.Time) string {
	if p.Reported == nil {
		return nothing
	}
	return since(p.Reported.Time, now)
}

func desired(p twin.PropertyDoc) string {
	if p.Desired == nil {
		return nothing
	}
	return value(p.Desired.Value, p.Desired.Name, p.Unit)
}

// fate says how a write is doing.
func fate(w *twin.WriteDoc) string {
	if w == nil {
		return nothing
	}
	text := string(w.State)
	if w.Late {
		text += ", confirmed late"
	}
	if w.Error != "" {
		text += ": " + w.Error
	}
	return text
}

func labels(m map[string]string) string {
	if len(m) == 0 {
		return nothing
	}
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, k+"="+m[k])
	}
	return strings.Join(parts, ",")
}

// plural counts a noun.
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

func properties(n int) string {
	if n == 1 {
		return "1 property"
	}
	return strconv.Itoa(n) + " properties"
}

// plain makes control characters visible: what a device or a user wrote must
// not be able to command a terminal.
func plain(s string) string {
	if !strings.ContainsFunc(s, unprintable) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unprintable(r) {
			quoted := strconv.QuoteRuneToASCII(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func unprintable(r rune) bool { return r != ' ' && !strconv.IsPrint(r) }
