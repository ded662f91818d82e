package attach

import (
	"io"
	"sync"
	"time"

	"github.com/whimbrel-edge/whimbrel/internal/podstream"
)

// How long text is gathered before it goes, and at most how much of it waits. An
// engine hands a log over line by line, and a line alone costs edge and hub many times
// what it costs among others.
const (
	gatherTime = 2 * time.Millisecond
	maxText    = 2 * podstream.MaxFrame
)

// gathered makes few writes of many. What comes after a pause goes at once, what comes
// soon after it a moment later, together. Write and Close belong to one goroutine.
type gathered struct {
	to   io.Writer
	some chan struct{} // one slot: something waits
	much chan struct{} // one slot: so much that it is time
	room chan struct{} // one slot: what waited is being written
	last chan struct{} // closed: nothing comes any more
	over chan struct{} // closed when to has had its last write

	mu      sync.Mutex
	pending []byte
	err     error // of the write that failed
}

func gather(to io.Writer) *gathered {
	signal := func() chan struct{} { return make(chan struct{}, 1) }
	g := &gathered{to: to, some: signal(), much: signal(), room: signal(), last: make(chan struct{}), over: make(chan struct{})}
	go g.run() // Close waits for it
	return g
}

func tell(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Write implements io.Writer. It blocks while maxText wait, until the writer below has
// taken them. An error is that of an earlier write.
func (g *gathered) Write(p []byte) (int, error) {
	for {
		g.mu.Lock()
		if g.err != nil {
			defer g.mu.Unlock()
			return 0, g.err
		}
		if len(g.pending) < maxText {
			break
		}
		g.mu.Unlock()
		select {
		case <-g.room:
		case <-g.over:
		}
	}
	defer g.mu.Unlock()
	g.pending = append(g.pending, p...)
	tell(g.some)
	if len(g.pending) >= podstream.MaxFrame {
		tell(g.much)
	}
	return len(p), nil
}

// Close writes what waits and returns the error of the first write that failed.
func (g *gathered) Close() error {
	close(g.last)
	<-g.over
	return g.err
}

func (g *gathered) run() {
	defer close(g.over)
	pause := time.NewTimer(0)
	defer pause.Stop()
	<-pause.C
	var writing []byte
	for ended := false; !ended; {
		select {
		case <-g.some:
		case <-g.last:
			ended = true
		}
		g.mu.Lock()
		writing, g.pending = g.pending, writing[:0]
		g.mu.Unlock()
		tell(g.room)
		if len(writing) > 0 {
			if _, err := g.to.Write(writing); err != nil {
				g.mu.Lock()
				g.err = err
				g.mu.Unlock()
				return
			}
		}
		pause.Reset(gatherTime)
		select {
		case <-pause.C:
		case <-g.much:
		case <-g.last:
		}
	}
}
