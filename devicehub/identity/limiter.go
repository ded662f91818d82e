package identity

import (
	"container/list"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Limits bound what a caller with wrong tokens costs. The zero value of a field
// means its default.
type Limits struct {
	// Failures from one address within Window are answered for what they
	// are; more are answered with a ThrottledError until the average is back
	// under it. Default 10 per minute.
	Failures int
	Window   time.Duration
	// Addresses is how many are remembered; the one not heard of for longest is
	// forgotten first. Default 4096.
	Addresses int
}

func (l Limits) withDefaults() Limits {
	if l.Failures <= 0 {
		l.Failures = 10
	}
	if l.Window <= 0 {
		l.Window = time.Minute
	}
	if l.Addresses <= 0 {
		l.Addresses = 4096
	}
	return l
}

// A ThrottledError refuses a caller that has shown too many wrong tokens.
type ThrottledError struct{ RetryAfter time.Duration }

func (e *ThrottledError) Error() string {
	return fmt.Sprintf("too many wrong tokens from this address: try again in %s", e.RetryAfter)
}

// lookupsPerSecond bounds the store lookups for an address that is over its limit.
const lookupsPerSecond = 10

// A limiter counts wrong tokens per address.
//
// Tokens have 256 random bits, so nobody finds one by trying; the limit
// is there to spare the store and to make noise visible. That is why a right
// token still passes when its address is over the limit: a broken script must not
// lock out everyone else behind the same router. Only beyond lookupsPerSecond is an
// address refused unheard.
type limiter struct {
	limits Limits

	mu      sync.Mutex
	byAddr  map[string]*list.Element // of *offender
	offence list.List                // most recent first
}

// An offender is an address that has shown a wrong token.
type offender struct {
	addr       string
	failures   *rate.Limiter
	lookups    *rate.Limiter
	reported   time.Time // when it was last reported to be over the limit
	suppressed int64     // failures since then
}

func newLimiter(limits Limits) *limiter {
	return &limiter{limits: limits.withDefaults(), byAddr: map[string]*list.Element{}}
}

// admit says whether a token from addr may be looked at.
func (l *limiter) admit(addr string, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.byAddr[addr]
	if !ok {
		return nil
	}
	o := e.Value.(*offender)
	if o.failures.TokensAt(now) >= 1 || o.lookups.AllowN(now, 1) {
		return nil
	}
	return l.throttledLocked(o, now)
}

// fail counts a wrong token. A nil verdict means that the address is still within
// its limit. Report says whether the failure is worth an event, and suppressed how
// many before it were not.
func (l *limiter) fail(addr string, now time.Time) (verdict error, report bool, suppressed int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	o := l.offenderLocked(addr)
	if o.failures.AllowN(now, 1) {
		return nil, true, 0
	}
	verdict = l.throttledLocked(o, now)
	if !o.reported.IsZero() && now.Sub(o.reported) < l.limits.Window {
		o.suppressed++
		return verdict, false, 0
	}
	suppressed, o.suppressed, o.reported = o.suppressed, 0, now
	return verdict, true, suppressed
}

func (l *limiter) offenderLocked(addr string) *offender {
	if e, ok := l.byAddr[addr]; ok {
		l.offence.MoveToFront(e)
		return e.Value.(*offender)
	}
	if l.offence.Len() >= l.limits.Addresses {
		last := l.offence.Back()
		delete(l.byAddr, last.Value.(*offender).addr)
		l.offence.Remove(last)
	}
	o := &offender{
		addr:     addr,
		failures: rate.NewLimiter(rate.Limit(float64(l.limits.Failures)/l.limits.Window.Seconds()), l.limits.Failures),
		lookups:  rate.NewLimiter(lookupsPerSecond, lookupsPerSecond),
	}
	l.byAddr[addr] = l.offence.PushFront(o)
	return o
}

// throttledLocked tells how long until the address is within its limit, in whole
// seconds as Retry-After has them.
func (l *limiter) throttledLocked(o *offender, now time.Time) error {
	missing := 1 - o.failures.TokensAt(now)
	wait := time.Duration(missing / float64(o.failures.Limit()) * float64(time.Second))
	return &ThrottledError{RetryAfter: max(time.Second, (wait + time.Second - 1).Truncate(time.Second))}
}

// addrKey reduces a remote address, with or without a port, to what is counted:
// an IPv4 address, or the /64 of an IPv6 one, which one customer usually has whole.
func addrKey(remote string) string {
	addr, err := netip.ParseAddr(remote)
	if err != nil {
		port, err := netip.ParseAddrPort(remote)
		if err != nil {
			return remote
		}
		addr = port.Addr()
	}
	addr = addr.Unmap().WithZone("")
	if addr.Is4() {
		return addr.String()
	}
	prefix, err := addr.Prefix(64)
	if err != nil {
		return remote
	}
	return prefix.String()
}
