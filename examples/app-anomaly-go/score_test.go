package main

import (
	"math/rand/v2"
	"testing"
)

// feed adds samples of a noise with a mean, and returns the last score and the
// alarm.
func feed(d *Detector, a Alarm, r *rand.Rand, n int, mean, noise float64) (s Score, _ Alarm) {
	for range n {
		s = d.Add(mean + noise*r.NormFloat64())
		a = a.Next(s, 3)
	}
	return s, a
}

func TestDetector(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	d := NewDetector(100, 0.2)
	if s, _ := feed(d, Alarm{}, r, 25, 10, 0.1); s.Ready {
		t.Errorf("a score of 24 samples: %+v", s)
	}
	s, a := feed(d, Alarm{}, r, 5000, 10, 0.1)
	if !s.Ready || a.Severity != 0 || s.EWMA > 2 || s.Samples != 100 {
		t.Errorf("noise: %+v, %+v", s, a)
	}
	if s := d.Add(1e9); s.Z != highestZ || (Alarm{}).Next(s, 3).Severity != 0 {
		t.Errorf("one wild sample rings: %+v", s)
	}
	if s, a = feed(d, Alarm{}, r, 200, 10, 0.1); a.Severity != 0 {
		t.Errorf("after it: %+v, %+v", s, a)
	}
	if s, a = feed(d, Alarm{}, r, 10, 12, 0.1); a.Severity != 3 || s.Mean > 11 {
		t.Errorf("ten samples of twenty deviations more: %+v, %+v", s, a)
	}
	if s, a = feed(d, a, r, 200, 12, 0.1); a.Severity != 0 {
		t.Errorf("what lasts is usual: %+v, %+v", s, a)
	}
}

func TestStandingSignal(t *testing.T) {
	d := NewDetector(40, 0.2)
	a := Alarm{}
	for i := range 400 {
		x := 20.0
		if i%40 == 39 {
			x = 20.1 // the last digit
		}
		if a = a.Next(d.Add(x), 3); a.Severity != 0 {
			t.Fatalf("sample %d rings", i)
		}
	}
}

func TestAlarm(t *testing.T) {
	a := Alarm{}
	for i, c := range []struct {
		ewma float64
		want int
	}{{2.9, 0}, {3, 2}, {2, 2}, {4.5, 3}, {3.1, 3}, {1.5, 3}, {1.49, 0}, {2.9, 0}} {
		if a = a.Next(Score{Ready: true, EWMA: c.ewma}, 3); a.Severity != c.want {
			t.Errorf("%d: severity %d at %v, want %d", i, a.Severity, c.ewma, c.want)
		}
	}
	if got := (Alarm{3}).Next(Score{}, 3); got.Severity != 3 {
		t.Error("an alarm ends without a score")
	}
}
