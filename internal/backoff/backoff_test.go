package backoff

import (
	"context"
	"errors"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

func TestDelayGrowsToTheLimit(t *testing.T) {
	p := Policy{Min: time.Second, Max: 10 * time.Second, Factor: 2}
	want := []time.Duration{0, 1, 2, 4, 8, 10, 10}
	for n, w := range want {
		if got := p.Delay(n, 0.9); got != w*time.Second {
			t.Errorf("Delay(%d) = %v, want %v", n, got, w*time.Second)
		}
	}
	if got := p.Delay(-1, 0); got != 0 {
		t.Errorf("Delay(-1) = %v, want 0", got)
	}
	if got := p.Delay(math.MaxInt, 0); got != p.Max {
		t.Errorf("Delay(MaxInt) = %v, want %v", got, p.Max)
	}
}

func TestJitterOnlyShortens(t *testing.T) {
	p := Policy{Min: time.Second, Max: time.Minute, Factor: 2, Jitter: 0.5}
	if got := p.Delay(3, 0); got != 4*time.Second {
		t.Errorf("Delay without chance = %v, want 4s", got)
	}
	if got := p.Delay(3, 0.5); got != 3*time.Second {
		t.Errorf("Delay with half the chance = %v, want 3s", got)
	}
}

func TestDelayStaysWithinBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := Policy{
			Min:    time.Duration(rapid.Int64Range(1, int64(time.Hour)).Draw(t, "min")),
			Factor: rapid.Float64Range(1, 100).Draw(t, "factor"),
			Jitter: rapid.Float64Range(0, 1).Draw(t, "jitter"),
		}
		p.Max = p.Min + time.Duration(rapid.Int64Range(0, int64(24*time.Hour)).Draw(t, "extra"))
		if err := p.Validate(); err != nil {
			t.Fatal(err)
		}
		n := rapid.IntRange(1, 10_000).Draw(t, "n")
		chance := rapid.Float64Range(0, 0.999999).Draw(t, "chance")
		d := p.Delay(n, chance)
		if d < 0 || d > p.Max {
			t.Fatalf("Delay(%d, %v) of %+v = %v, out of bounds", n, chance, p, d)
		}
		if full := p.Delay(n, 0); full < p.Min || p.Delay(n+1, 0) < full {
			t.Fatalf("Delay(%d) of %+v = %v shrinks or is below the minimum", n, p, full)
		}
	})
}

func TestValidateRefuses(t *testing.T) {
	good := Default()
	if err := good.Validate(); err != nil {
		t.Fatalf("the default policy is refused: %v", err)
	}
	for name, spoil := range map[string]func(*Policy){
		"zero minimum":      func(p *Policy) { p.Min = 0 },
		"maximum too small": func(p *Policy) { p.Max = p.Min - 1 },
		"shrinking":         func(p *Policy) { p.Factor = 0.5 },
		"factor NaN":        func(p *Policy) { p.Factor = math.NaN() },
		"factor infinite":   func(p *Policy) { p.Factor = math.Inf(1) },
		"negative jitter":   func(p *Policy) { p.Jitter = -0.1 },
		"too much jitter":   func(p *Policy) { p.Jitter = 1.1 },
	} {
		p := good
		spoil(&p)
		if _, err := New(p, func() float64 { return 0 }); err == nil {
			t.Errorf("%s: New accepted %+v", name, p)
		}
	}
}

func TestWaitSleepsAndResets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, err := New(Policy{Min: time.Second, Max: time.Minute, Factor: 2}, func() float64 { return 0 })
		if err != nil {
			t.Fatal(err)
		}
		wait := func(want time.Duration) {
			t.Helper()
			start := time.Now()
			if err := b.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := time.Since(start); got != want {
				t.Errorf("waited %v, want %v", got, want)
			}
		}
		wait(1 * time.Second)
		wait(2 * time.Second)
		wait(4 * time.Second)
		if b.Failures() != 3 {
			t.Errorf("Failures() = %d, want 3", b.Failures())
		}
		b.Reset()
		wait(1 * time.Second)
	})
}

func TestWaitEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, err := New(Policy{Min: time.Hour, Max: time.Hour, Factor: 1}, func() float64 { return 0 })
		if err != nil {
			t.Fatal(err)
		}
		why := errors.New("shutting down")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(why) })
		start := time.Now()
		if err := b.Wait(ctx); !errors.Is(err, why) {
			t.Errorf("Wait = %v, want %v", err, why)
		}
		if got := time.Since(start); got != time.Second {
			t.Errorf("Wait returned after %v, want 1s", got)
		}
	})
}
