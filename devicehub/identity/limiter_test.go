package identity

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

var day1 = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

func TestLimiter(t *testing.T) {
	l := newLimiter(Limits{Failures: 3, Window: time.Minute})
	now := day1
	for i := range 3 {
		if err := l.admit("a", now); err != nil {
			t.Fatal(err)
		}
		if verdict, report, _ := l.fail("a", now); verdict != nil || !report {
			t.Fatalf("failure %d: %v, reported %v", i, verdict, report)
		}
	}
	var throttled *ThrottledError
	verdict, report, suppressed := l.fail("a", now)
	if !errors.As(verdict, &throttled) || throttled.RetryAfter != 20*time.Second || !report || suppressed != 0 {
		t.Fatalf("over the limit: %v, %v, %d", verdict, report, suppressed)
	}
	for range 5 {
		if verdict, report, _ := l.fail("a", now); verdict == nil || report {
			t.Fatalf("further: %v, reported %v", verdict, report)
		}
	}
	if verdict, _, _ := l.fail("b", now); verdict != nil {
		t.Fatalf("another address: %v", verdict)
	}
	// Over the limit, tokens are still looked at, but not without end.
	for i := range lookupsPerSecond {
		if err := l.admit("a", now); err != nil {
			t.Fatalf("lookup %d: %v", i, err)
		}
	}
	if err := l.admit("a", now); !errors.As(err, &throttled) {
		t.Fatalf("flood: %v", err)
	}
	if err := l.admit("a", now.Add(time.Second)); err != nil {
		t.Fatalf("a second later: %v", err)
	}
	// The average recovers, and what was not reported is summed up.
	now = now.Add(20 * time.Second)
	if verdict, _, _ := l.fail("a", now); verdict != nil {
		t.Fatalf("recovered: %v", verdict)
	}
	if _, report, _ := l.fail("a", now); report {
		t.Error("reported twice within the window")
	}
	now = now.Add(time.Minute)
	for range 3 {
		l.fail("a", now)
	}
	if verdict, report, suppressed := l.fail("a", now); verdict == nil || !report || suppressed != 6 {
		t.Errorf("next window: %v, %v, %d", verdict, report, suppressed)
	}
}

func TestLimiterRemembersABoundedNumber(t *testing.T) {
	l := newLimiter(Limits{Failures: 1, Addresses: 3})
	for i := range 10 {
		l.fail(fmt.Sprint(i), day1)
		l.fail("0", day1) // stays in sight
	}
	if l.offence.Len() != 3 || len(l.byAddr) != 3 {
		t.Fatalf("remembers %d, %d", l.offence.Len(), len(l.byAddr))
	}
	if verdict, _, _ := l.fail("0", day1); verdict == nil {
		t.Error("the most active one was forgotten")
	}
	if verdict, _, _ := l.fail("5", day1); verdict != nil {
		t.Error("one long out of sight was kept")
	}
}

func TestAddrKey(t *testing.T) {
	for in, want := range map[string]string{
		"10.1.2.3": "10.1.2.3", "10.1.2.3:4567": "10.1.2.3", "::ffff:10.1.2.3": "10.1.2.3", "[::ffff:10.1.2.3]:80": "10.1.2.3",
		"[2001:db8:1:2:3:4:5:6]:80": "2001:db8:1:2::/64", "2001:db8:1:2:ffff::1": "2001:db8:1:2::/64", "fe80::1%eth0": "fe80::/64",
		"@": "@",
	} {
		if have := addrKey(in); have != want {
			t.Errorf("%s: have %s, want %s", in, have, want)
		}
	}
}

func TestCacheDoesNotRememberWhatWasForgottenMeanwhile(t *testing.T) {
	c := newCache()
	gen := c.generation()
	c.forget(func(Identity) bool { return true })
	c.put("h", Identity{}, day1, day1.Add(time.Hour), gen)
	if _, ok := c.get("h", day1); ok {
		t.Error("a deleted token came back")
	}
	c.put("h", Identity{User: "anna"}, day1, day1.Add(time.Hour), c.generation())
	if id, ok := c.get("h", day1); !ok || id.User != "anna" {
		t.Error("not remembered")
	}
	if _, ok := c.get("h", day1.Add(time.Hour)); ok {
		t.Error("remembered for too long")
	}
}

func TestCacheIsBounded(t *testing.T) {
	c := newCache()
	for i := range cacheSize {
		c.put(fmt.Sprint("old", i), Identity{}, day1, day1.Add(time.Second), 0)
	}
	later := day1.Add(time.Minute)
	for i := range cacheSize + 100 {
		c.put(fmt.Sprint("new", i), Identity{}, later, later.Add(time.Second), 0)
	}
	if len(c.byHash) != cacheSize {
		t.Errorf("holds %d", len(c.byHash))
	}
}

func FuzzWellFormed(f *testing.F) {
	f.Add("whk_0123456789012345678901234567890123456789012")
	f.Add("whk_")
	f.Fuzz(func(t *testing.T, text string) {
		if wellFormed(text) && (len(text) != 47 || text[:4] != "whk_") {
			t.Errorf("%q", text)
		}
	})
}
