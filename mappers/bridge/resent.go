package bridge

import (
	"hash/maphash"
	"maps"
)

// maxRemembered bounds the batches that are known again: more than a connection may
// have under way. The oldest is forgotten, and stored twice if it comes again.
const maxRemembered = 2 * MaxWaiting

// resent knows batches again that a client sends another time, on another
// connection, because it had no acknowledgement when the one before ended: what is
// stored, or about to be, is not stored twice. It forgets with the process. The
// Mapper's mu protects it.
type resent struct {
	seed  maphash.Seed
	known map[uint64]*arrival
	order []uint64 // of known, the oldest first; some of them may be gone
}

// arrival is a batch that was taken.
type arrival struct {
	key    uint64
	of     string      // the assignment
	conn   uint64      // that sent it last
	done   func(error) // of its message there
	stored bool
}

// take returns what is known of a batch, and whether that is of a message before
// this one, on another connection.
func (r *resent) take(of string, msg Message) (a *arrival, again bool) {
	if r.known == nil {
		r.seed, r.known = maphash.MakeSeed(), map[uint64]*arrival{}
	}
	key := maphash.Bytes(r.seed, msg.Payload)
	if a = r.known[key]; a != nil && a.conn != msg.Conn {
		a.conn, a.done = msg.Conn, msg.Done // the former connection has ended
		return a, true
	}
	a = &arrival{key: key, of: of, conn: msg.Conn, done: msg.Done}
	r.known[key], r.order = a, append(r.order, key)
	if len(r.order) > maxRemembered {
		delete(r.known, r.order[0])
		r.order = r.order[1:]
	}
	return a, false
}

// end notes that a batch is stored, or could not be and is to come again, and
// returns what is then to be called.
func (r *resent) end(a *arrival, err error) (done func(error)) {
	if a.stored = err == nil; err != nil && r.known[a.key] == a {
		delete(r.known, a.key)
	}
	return a.done
}

// closed forgets the batches of an assignment whose device is closed before they
// were stored: who sends one again is to be heard.
func (r *resent) closed(of string) {
	maps.DeleteFunc(r.known, func(_ uint64, a *arrival) bool { return a.of == of && !a.stored })
}

// timed reports whether every sample of a batch says when it was read. Another one
// of the same text tells nothing new then.
func (b *batch) timed() bool {
	for i := range b.Samples {
		if b.Time.IsZero() && b.Samples[i].Time.IsZero() {
			return false
		}
	}
	return true
}
