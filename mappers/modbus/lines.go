package modbus

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	wire "github.com/whimbrel-edge/whimbrel/protocols/modbus"
)

// lines is the connections of a driver's devices: one for each place, made
// for the first device and hung up after the last.
type lines struct {
	mu       sync.Mutex
	byTarget map[place]*line
}

// line is one connection and the devices that share it.
type line struct {
	table *lines
	place place
	// writing is held while a device on the line is written to, so that nothing
	// of this process comes between the reading and the writing of a register of
	// which one bit is changed.
	writing chan struct{}
	current atomic.Pointer[wire.Line]

	// Guarded by table.mu.
	users  int
	pauses map[*device]time.Duration
}

// join adds a device to the line to a place.
func (t *lines) join(at place, d *device, pause time.Duration) *line {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.byTarget[at]
	if l == nil {
		l = &line{table: t, place: at, writing: make(chan struct{}, 1), pauses: map[*device]time.Duration{}}
		t.byTarget[at] = l
	}
	before, had := l.pauseLocked()
	l.pauses[d] = pause
	if now, _ := l.pauseLocked(); !had || now != before {
		l.remakeLocked(now)
	}
	return l
}

// leave removes a device, and hangs up after the last.
func (l *line) leave(d *device) {
	l.table.mu.Lock()
	defer l.table.mu.Unlock()
	if _, in := l.pauses[d]; !in {
		return
	}
	before, _ := l.pauseLocked()
	delete(l.pauses, d)
	now, any := l.pauseLocked()
	switch {
	case !any:
		delete(l.table.byTarget, l.place)
		l.current.Load().Close() // nobody is left whom a failure would concern
	case now != before:
		l.remakeLocked(now)
	}
}

// pauseLocked is the longest pause that a device asks for, and whether there
// is a device at all.
func (l *line) pauseLocked() (longest time.Duration, any bool) {
	for _, p := range l.pauses {
		longest = max(longest, p)
	}
	return longest, len(l.pauses) > 0
}

// remakeLocked makes the line anew with another pause. A request under way on
// the old one fails as if the connection had broken.
func (l *line) remakeLocked(pause time.Duration) {
	old := l.current.Swap(wire.NewLine(l.place.line(pause)))
	if old != nil {
		old.Close()
	}
}

// dialed is put into a write's context to learn whether it failed before there
// was a connection, so that nothing was sent.
type dialed struct{ failed bool }

type dialedKey struct{}

func dial(ctx context.Context, address string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if note, ok := ctx.Value(dialedKey{}).(*dialed); ok {
		note.failed = err != nil
	}
	return conn, err
}
