// Package backoff spaces out repeated attempts: exponentially, up to a limit,
// and with jitter, so that a thousand edges that lost the same hub do not come
// back in the same second. The policy is a pure function; only Wait looks at
// the clock.
package backoff

import (
	"context"
	"fmt"
	"math"
	"time"
)

// A Policy says how long to wait before attempt n.
type Policy struct {
	Min    time.Duration // before the first repetition; must be positive
	Max    time.Duration // never longer than this; at least Min
	Factor float64       // growth per attempt; at least 1
	// Jitter is the share of each delay that is left to chance, 0 to 1: a delay
	// d becomes something between d*(1-Jitter) and d. Chance only shortens, so
	// Max holds.
	Jitter float64
}

// Default suits most things here: 1 s doubling to 60 s, half of it chance.
func Default() Policy {
	return Policy{Min: time.Second, Max: time.Minute, Factor: 2, Jitter: 0.5}
}

// Validate refuses a policy that would spin or wait for ever.
func (p Policy) Validate() error {
	switch {
	case p.Min <= 0:
		return fmt.Errorf("backoff: minimum %v must be positive", p.Min)
	case p.Max < p.Min:
		return fmt.Errorf("backoff: maximum %v is below the minimum %v", p.Max, p.Min)
	case !(p.Factor >= 1) || math.IsInf(p.Factor, 1): // the negation also catches NaN
		return fmt.Errorf("backoff: factor %v must be at least 1", p.Factor)
	case !(p.Jitter >= 0 && p.Jitter <= 1):
		return fmt.Errorf("backoff: jitter %v must be between 0 and 1", p.Jitter)
	}
	return nil
}

// Delay is the wait after n failures in a row (n counts from 1; less than 1
// means no failure and no wait). chance is a random number in [0, 1).
func (p Policy) Delay(n int, chance float64) time.Duration {
	if n < 1 {
		return 0
	}
	d := float64(p.Min) * math.Pow(p.Factor, float64(n-1))
	d = min(d, float64(p.Max)) // also where Pow overflowed to +Inf
	return time.Duration(d * (1 - p.Jitter*chance))
}

// A Backoff counts failures under one Policy. It belongs to one loop and is
// not safe for concurrent use.
type Backoff struct {
	policy Policy
	chance func() float64
	failed int
}

// New makes a Backoff. chance returns random numbers in [0, 1), normally
// rand.Float64; tests pass their own.
func New(p Policy, chance func() float64) (*Backoff, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	return &Backoff{policy: p, chance: chance}, nil
}

// Next records a failure and returns how long to wait before trying again.
func (b *Backoff) Next() time.Duration {
	b.failed++
	return b.policy.Delay(b.failed, b.chance())
}

// Reset records a success: the next failure waits Min again.
func (b *Backoff) Reset() { b.failed = 0 }

// Failures is how many failures were recorded since the last Reset.
func (b *Backoff) Failures() int { return b.failed }

// Wait records a failure and blocks for Next. It returns early, with the
// context's cause, when ctx ends.
func (b *Backoff) Wait(ctx context.Context) error {
	t := time.NewTimer(b.Next())
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
