package modbus

import (
	"slices"
	"sync"
	"time"
)

// late remembers which answers never came, on a line whose frames carry no
// number: should one come after all, it must not be taken for the answer to
// another question. Only a read of as many from elsewhere in the same table can
// be mixed up with it; the same read again may as well be answered by it.
type late struct {
	mu   sync.Mutex
	owed [256][]owed // by unit, oldest first
}

// owed is an answer that may still come.
type owed struct {
	request []byte // its PDU
	until   time.Time
}

// maxOwed bounds what is remembered of a unit. When it is full the oldest goes.
const maxOwed = 8

// missed notes that the answer to a request has not come, and until when it
// still may.
func (l *late) missed(adu []byte, now, until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pruneLocked(adu[0], now)
	o := l.owed[adu[0]]
	if len(o) == maxOwed {
		o = slices.Delete(o, 0, 1)
	}
	l.owed[adu[0]] = append(o, owed{slices.Clone(adu[1:]), until})
}

// arrived tells whether an answer that nobody waits for is one that is owed,
// which then it no longer is.
func (l *late) arrived(adu []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	o := l.owed[adu[0]]
	i := slices.IndexFunc(o, func(o owed) bool { return fits(o.request, adu[1:]) })
	if i < 0 {
		return false
	}
	l.owed[adu[0]] = slices.Delete(o, i, i+1)
	return true
}

// wait is how long a request must wait before an answer to an earlier one can
// no longer be mistaken for its own.
func (l *late) wait(adu []byte, now time.Time) (rest time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pruneLocked(adu[0], now)
	for _, o := range l.owed[adu[0]] {
		if confusable(o.request, adu[1:]) {
			rest = max(rest, o.until.Sub(now))
		}
	}
	return rest
}

func (l *late) pruneLocked(unit byte, now time.Time) {
	l.owed[unit] = slices.DeleteFunc(l.owed[unit], func(o owed) bool { return !o.until.After(now) })
}

// confusable tells whether an answer to one request would pass for an answer
// to the other, and be wrong.
func confusable(a, b []byte) bool {
	return a[0] == b[0] && !Function(a[0]).Writes() && len(a) == len(b) && // the answer to a write repeats its address
		string(a[3:5]) == string(b[3:5]) && string(a[1:3]) != string(b[1:3])
}
