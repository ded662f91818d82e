package cloudapi

import (
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/whimbrel-edge/whimbrel/models"
)

// open reports whether a path needs no token.
func open(path string) bool { return path == "/healthz" || path == "/readyz" }

// authenticate finds out who calls.
func (c *call) authenticate() error {
	scheme, token, _ := strings.Cut(c.Header.Get("Authorization"), " ")
	token = strings.TrimSpace(token)
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return models.Errorf(models.KindUnauthorized, "a token is needed: Authorization: Bearer TOKEN")
	}
	remote, _, err := net.SplitHostPort(c.RemoteAddr)
	if err != nil {
		remote = c.RemoteAddr
	}
	c.caller, err = c.api.Access.Authenticate(c.Context(), token, remote)
	return err
}

// challenge is RFC 6750's: with an error only where there was a token.
func challenge(r *http.Request) string {
	if r.Header.Get("Authorization") == "" {
		return `Bearer realm="whimbrel"`
	}
	return `Bearer realm="whimbrel", error="invalid_token"`
}

// rank orders the roles; an unknown one is below all.
func rank(r models.Role) int {
	return slices.Index([]models.Role{models.Viewer, models.Operator, models.Admin}, r)
}

// may checks that the caller holds a role in a namespace, in all of them
// (models.AllNamespaces), or for cluster-scoped objects (""): those any viewer
// may read, as devices refer to them, while a change there is one for everyone.
func (c Caller) may(need models.Role, namespace string) error {
	where := c.Namespace == models.AllNamespaces || c.Namespace == namespace && namespace != "" ||
		namespace == "" && need == models.Viewer
	if where && rank(c.Role) >= rank(need) && rank(need) >= 0 {
		return nil
	}
	return c.lacks(string(need) + " in " + placeOf(namespace))
}

// lacks says which role, and where, a caller would need.
func (c Caller) lacks(need string) error {
	return models.Errorf(models.KindForbidden, "this needs the role %s; %s has the role %s in %s", need, c.Name, c.Role, placeOf(c.Namespace))
}

func placeOf(namespace string) string {
	if namespace == "" || namespace == models.AllNamespaces {
		return "all namespaces"
	}
	return "namespace " + namespace
}

// limits bounds how fast each caller may come.
type limits struct {
	rate  float64
	burst int

	mu      sync.Mutex
	callers map[string]*rate.Limiter
}

// maxLimiters bounds the callers remembered; those that have been quiet are
// forgotten first, then all.
const maxLimiters = 4096

func (l *limits) take(caller string, now time.Time) error {
	if l.rate < 0 {
		return nil
	}
	l.mu.Lock()
	limiter := l.callers[caller]
	if limiter == nil {
		l.makeRoomLocked(now)
		limiter = rate.NewLimiter(rate.Limit(l.rate), l.burst)
		l.callers[caller] = limiter
	}
	l.mu.Unlock()
	r := limiter.ReserveN(now, 1)
	if wait := r.DelayFrom(now); wait > 0 {
		r.CancelAt(now)
		return throttled{models.Errorf(models.KindTooMany, "more than %g requests a second of one user; come back in %s", l.rate, wait.Round(time.Millisecond)), wait}
	}
	return nil
}

func (l *limits) makeRoomLocked(now time.Time) {
	if l.callers == nil {
		l.callers = map[string]*rate.Limiter{}
	}
	if len(l.callers) < maxLimiters {
		return
	}
	for name, limiter := range l.callers {
		if limiter.TokensAt(now) >= float64(l.burst) {
			delete(l.callers, name)
		}
	}
	if len(l.callers) >= maxLimiters {
		clear(l.callers)
	}
}

// throttled says when to come back.
type throttled struct {
	cause *models.Error
	after time.Duration
}

func (t throttled) Error() string { return t.cause.Error() }

func (t throttled) Unwrap() error { return t.cause }

// RetryAfter is how long to wait.
func (t throttled) RetryAfter() time.Duration { return t.after }
