package twin

import (
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

// Reported is the last thing known of a property. The zero Reported is
// "nothing yet".
type Reported struct {
	Value   models.Value   `json:"value"` // the last good or uncertain one
	Time    time.Time      `json:"time"`  // of that value
	Quality models.Quality `json:"quality"`
	Reason  models.Reason  `json:"reason,omitempty"`
	Since   time.Time      `json:"since,omitzero"` // when Quality and Reason became what they are, zero while good
}

// Known reports whether anything was ever reported.
func (r Reported) Known() bool { return !r.Time.IsZero() || r.Quality != models.Good }

// Observe returns r after a sample: a bad one keeps the last value and that
// value's time, and so does one that says that the value has turned stale.
// changed is false when nothing but the time moved.
func (r Reported) Observe(s models.Sample) (next Reported, changed bool) {
	next = r
	if s.Quality == models.Bad || s.Reason == models.ReasonStale && r.Known() {
		if s.Reason != models.ReasonNone && !s.Value.IsNull() && r.Time.IsZero() {
			next.Value, next.Time = s.Value, s.Time
		}
	} else {
		next.Value, next.Time = s.Value, s.Time
	}
	if s.Quality != r.Quality || s.Reason != r.Reason || !r.Known() {
		next.Quality, next.Reason, next.Since = s.Quality, s.Reason, s.Time
	}
	if next.Quality == models.Good {
		next.Since = time.Time{}
	}
	return next, next.Value != r.Value || next.Quality != r.Quality || next.Reason != r.Reason || !r.Known()
}

// Degrade returns r as someone sees it who no longer hears of it: never better
// than uncertain/stale. A bad value stays bad.
func (r Reported) Degrade(since time.Time) Reported {
	if !r.Known() || r.Quality == models.Bad || r.Reason == models.ReasonStale {
		return r
	}
	r.Quality, r.Reason, r.Since = models.Uncertain, models.ReasonStale, since
	return r
}

// Sample returns r as the sample that would make it.
func (r Reported) Sample() models.Sample {
	s := models.Sample{Value: r.Value, Quality: r.Quality, Reason: r.Reason, Time: r.Time}
	if r.Quality == models.Bad {
		s.Value, s.Time = models.Null, r.Since
	}
	return s
}

// Told returns r as the ledger is told of it from afar: with the value that it has,
// also where that is bad now. Since is told only where there is no value.
func (r Reported) Told() models.Sample {
	s := r.Sample()
	if !r.Time.IsZero() {
		s.Value, s.Time = r.Value, r.Time
	}
	return s
}

// Heard is what Told made the sample of.
func Heard(s models.Sample) Reported {
	r, _ := Reported{}.Observe(s)
	if !r.Time.IsZero() {
		r.Since = time.Time{} // the sample's time is its value's
	}
	return r
}
