package main

import "math"

// Detector says how unusual the newest sample of one signal is, seen from the
// window of samples before it. It has no clock: whoever feeds it keeps the pace.
type Detector struct {
	window  []float64 // a ring
	next    int
	full    bool
	ewma    float64
	smooth  float64 // weight of the newest z-score, 0 to 1
	minimum int     // samples before there is a score
}

const (
	// One wild sample, such as a glitch on the line, is no anomaly: it counts for
	// no more than this, and takes company to raise the smoothed score.
	highestZ = 10
	// A signal that stands still has no deviation, and its next flicker would be
	// infinitely unusual. It is taken to move by at least this share of its size.
	leastDeviation = 0.005
	// What is unusual must not become the measure at once: a sample enters the
	// baseline no further from its mean than this many deviations.
	highestLearnt = 4
)

// NewDetector makes one whose baseline is window samples long.
func NewDetector(window int, smooth float64) *Detector {
	return &Detector{window: make([]float64, window), smooth: smooth, minimum: max(window/4, 2)}
}

// Score is what a Detector says of a sample.
type Score struct {
	Ready   bool // false as long as there is no baseline
	Z       float64
	EWMA    float64 // of |Z|
	Mean    float64 // of the baseline
	Samples int     // in the baseline
}

// Add scores a sample against the baseline, and then makes it a part of that: what
// lasts becomes usual after about a window.
func (d *Detector) Add(x float64) Score {
	known := d.window[:d.next]
	if d.full {
		known = d.window
	}
	s := Score{Samples: len(known)}
	if len(known) >= d.minimum {
		mean, deviation := spread(known)
		deviation = max(deviation, leastDeviation*math.Abs(mean), 1e-9)
		s.Ready, s.Mean = true, mean
		z := (x - mean) / deviation
		s.Z = max(-highestZ, min(highestZ, z))
		x = mean + deviation*max(-highestLearnt, min(highestLearnt, z))
		d.ewma += d.smooth * (math.Abs(s.Z) - d.ewma)
	}
	s.EWMA = d.ewma
	d.window[d.next] = x
	if d.next++; d.next == len(d.window) {
		d.next, d.full = 0, true
	}
	return s
}

// spread is the mean and the standard deviation. Running sums would be quicker,
// and drift after some days.
func spread(x []float64) (mean, deviation float64) {
	for _, v := range x {
		mean += v
	}
	mean /= float64(len(x))
	for _, v := range x {
		deviation += (v - mean) * (v - mean)
	}
	return mean, math.Sqrt(deviation / float64(len(x)))
}

// Alarm is the state of one signal's alarm. Severity 0 is none, 2 is unusual, 3 is
// very unusual.
type Alarm struct{ Severity int }

// Next is the alarm after a score. It ends at half of what begins it, so that a
// score that wavers around the threshold does not ring all the time.
func (a Alarm) Next(s Score, threshold float64) Alarm {
	switch {
	case !s.Ready:
		return a
	case s.EWMA >= 1.5*threshold:
		return Alarm{3}
	case s.EWMA >= threshold:
		return Alarm{max(a.Severity, 2)}
	case s.EWMA < threshold/2:
		return Alarm{}
	}
	return a
}
