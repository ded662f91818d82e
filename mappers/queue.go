package mappers

import (
	"slices"
	"sync"
)

// MaxQueuedWrites bounds the writes that a Runner has accepted and has not told
// the fate of. Beyond it Runner.Write refuses.
const MaxQueuedWrites = 1024

// writeQueue holds accepted writes until the loop takes them: at most one for
// a property, in the order of their last coming.
type writeQueue struct {
	wake chan struct{} // one slot: wake-ups coalesce

	mu         sync.Mutex
	closed     bool
	waiting    []Write
	superseded []Write
}

// add queues all or none.
func (q *writeQueue) add(writes []Write) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || len(q.waiting)+len(q.superseded)+len(writes) > MaxQueuedWrites {
		return false
	}
	for _, w := range writes {
		if i := slices.IndexFunc(q.waiting, func(old Write) bool { return old.Property == w.Property }); i >= 0 {
			q.superseded = append(q.superseded, q.waiting[i])
			q.waiting = slices.Delete(q.waiting, i, i+1)
		}
		q.waiting = append(q.waiting, w)
	}
	q.wakeLocked()
	return true
}

// take removes at most n writes, and all that are superseded. When more are
// waiting it sees to it that the loop comes back for them.
func (q *writeQueue) take(n int) (waiting, superseded []Write) {
	q.mu.Lock()
	defer q.mu.Unlock()
	waiting, superseded = q.waiting, q.superseded
	q.waiting, q.superseded = nil, nil
	if len(waiting) > n {
		q.waiting = slices.Clone(waiting[n:])
		waiting = waiting[:n]
		q.wakeLocked()
	}
	return waiting, superseded
}

func (q *writeQueue) wakeLocked() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// close lets nothing more in and empties the queue.
func (q *writeQueue) close() (waiting, superseded []Write) {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	return q.take(MaxQueuedWrites)
}
