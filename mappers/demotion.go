package mappers

import (
	"sync"
	"time"

	"github.com/whimbrel-edge/whimbrel/internal/backoff"
)

// demotion decides how often a device that fails is asked. It is told each
// outcome and gives its verdict.
type demotion struct {
	after    int // failures in a row that demote
	failures int
}

// verdict is what follows from a failure.
type verdict struct {
	demoted bool
	wait    time.Duration // from now until the next probe, when demoted
}

// lineUse is how a device's line is shared, the device itself included.
type lineUse struct {
	users   int
	demoted int
}

func (u lineUse) shared() bool { return u.users > 1 }

// probing spaces the probes of a demoted device.
var probing = backoff.Policy{Min: time.Second, Max: 5 * time.Second, Factor: 2, Jitter: 0.2}

const (
	// lineShare is how many times longer than a probe the rest after it is on a
	// shared line, so that probes take less than 5 % of the line's time.
	lineShare = 25
	// maxCrowdWait bounds by how much the rest grows when several devices of a
	// line are demoted and share that time, so that one that is back does not
	// go unnoticed for long.
	maxCrowdWait = time.Minute
)

// failed tells that a cycle or a probe failed and took so long. chance is a
// random number in [0, 1).
func (d *demotion) failed(took time.Duration, use lineUse, chance float64) verdict {
	d.failures++
	if d.failures < d.after {
		return verdict{}
	}
	v := verdict{demoted: true, wait: probing.Delay(d.failures-d.after+1, chance)}
	if use.shared() {
		v.wait = max(v.wait, lineShare*took)
		if use.demoted < use.users { // someone is left to be held up
			v.wait = max(v.wait, min(lineShare*took*time.Duration(use.demoted), maxCrowdWait))
		}
	}
	return v
}

// succeeded tells that the device answered.
func (d *demotion) succeeded() { d.failures = 0 }

// lineTable counts who uses which line, over all Runners of the process: a line
// is a thing of the machine.
type lineTable struct {
	mu    sync.Mutex
	lines map[string]*lineUse // by protocol and LineSharer.Line
}

var lines = lineTable{lines: map[string]*lineUse{}}

// lineUser is one Runner's place on a line. A nil lineUser has a line of its
// own.
type lineUser struct {
	table   *lineTable
	key     string
	demoted bool
}

// join adds a user to a line; "" is no line and gives nil.
func (t *lineTable) join(protocol, line string) *lineUser {
	if line == "" {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	u := &lineUser{table: t, key: protocol + " " + line}
	if t.lines[u.key] == nil {
		t.lines[u.key] = &lineUse{}
	}
	t.lines[u.key].users++
	return u
}

// demote says whether the user is demoted, and returns how the line is used.
func (u *lineUser) demote(demoted bool) lineUse {
	if u == nil {
		return lineUse{users: 1}
	}
	u.table.mu.Lock()
	defer u.table.mu.Unlock()
	use := u.table.lines[u.key]
	if demoted != u.demoted {
		u.demoted = demoted
		if demoted {
			use.demoted++
		} else {
			use.demoted--
		}
	}
	return *use
}

// use returns how the line is used.
func (u *lineUser) use() lineUse {
	if u == nil {
		return lineUse{users: 1}
	}
	return u.demote(u.demoted)
}

// leave removes the user.
func (u *lineUser) leave() {
	if u == nil {
		return
	}
	u.demote(false)
	u.table.mu.Lock()
	defer u.table.mu.Unlock()
	use := u.table.lines[u.key]
	if use.users--; use.users == 0 {
		delete(u.table.lines, u.key)
	}
}
