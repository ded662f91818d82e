package mappers

import (
	"math"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

// sampleOf judges what a driver found for a property.
func sampleOf(p *models.ResolvedProperty, r Result, now time.Time) models.Sample {
	s := models.Sample{Value: r.Value, Quality: r.Quality, Reason: r.Reason, Time: r.Time}
	if s.Time.IsZero() {
		s.Time = now
	}
	if s.Quality != models.Bad {
		fitted, err := s.Value.Fit(p.Type)
		switch {
		case err == nil:
			s.Value = fitted
		case s.Value.IsNull() && p.Type == models.TypeFloat: // what models.Float makes of NaN and infinities
			s.Quality, s.Reason = models.Bad, models.ReasonNotANumber
		default:
			s.Quality, s.Reason = models.Bad, models.ReasonProtocolError
		}
	}
	switch {
	case s.Quality == models.Bad:
		s.Value = models.Null
	case s.Quality == models.Good && !p.InRange(s.Value):
		s.Quality, s.Reason = models.Uncertain, models.ReasonOutOfRange
	}
	return s
}

// reported is what was last reported of a property. The zero reported is
// nothing.
type reported struct {
	sample models.Sample
	at     time.Time // by the edge's clock, whatever the sample's time
}

// due says whether s has to be reported: the first sample always, then a change
// of quality or reason, a value that left the deadband around the last
// reported one, and a heartbeat.
func (last *reported) due(p *models.ResolvedProperty, s *models.Sample, now time.Time) bool {
	switch {
	case last.at.IsZero():
		return true
	case s.Quality != last.sample.Quality || s.Reason != last.sample.Reason:
		return true
	case s.Value != last.sample.Value && beyond(last.sample.Value, s.Value, p.Deadband):
		return true
	}
	// Samples come every p.Every: when the next would be too late for the
	// heartbeat, it is now. The slack keeps a poll that is a moment early from
	// counting as too early by a whole interval.
	return now.Sub(last.at)+p.Every > p.Heartbeat+p.Every/10
}

// beyond reports whether b is further from a than the deadband. Values that
// are no numbers are, when they differ.
func beyond(a, b models.Value, deadband float64) bool {
	if deadband == 0 || !a.IsNumber() || !b.IsNumber() {
		return true
	}
	if a.Kind() == models.KindFloat || b.Kind() == models.KindFloat {
		x, _ := a.AsFloat()
		y, _ := b.AsFloat()
		return math.Abs(x-y) > deadband
	}
	if order, _ := a.Compare(b); order > 0 {
		a, b = b, a
	}
	// The difference of two ints fits a uint64, and two's complement finds it
	// also across signs.
	_, low, _ := a.Raw()
	_, high, _ := b.Raw()
	return float64(high-low) > deadband
}

// failing reports whether a sample speaks of a fault. A device that says that
// it has no such value, or not now, works as it should.
func failing(s *models.Sample) bool {
	return s.Quality == models.Bad && s.Reason != models.ReasonNotImplemented && s.Reason != models.ReasonNotANumber
}
