package bulk

import (
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
)

// maxGathered is how many bytes wait while others are being written; beyond, Write
// blocks.
const maxGathered = 256 << 10

// gathered makes few long writes of many short ones. yamux writes a frame's header
// and its bytes one after the other, and each Write of a WebSocket is a message,
// a TLS record and a system call. What comes while one is under way goes with the
// next: nothing waits for more to come.
type gathered struct {
	net.Conn
	together *edgelink.Together // nil: Conn makes few writes of its own accord
	cut      func() error       // closes Conn at once; nil: Close does
	began    time.Time
	heard    atomic.Int64 // when something last came, since began
	said     atomic.Int64 // when there was last something to be written, since began

	mu      sync.Mutex
	changed sync.Cond // of mu
	pending []byte
	err     error // of all Writes from now on
	done    chan struct{}
}

func gather(conn net.Conn, together *edgelink.Together) *gathered {
	g := &gathered{Conn: conn, together: together, began: time.Now(), done: make(chan struct{})}
	g.changed.L = &g.mu
	go g.run() // ends with Close
	return g
}

// Read implements net.Conn.
func (g *gathered) Read(p []byte) (int, error) {
	n, err := g.Conn.Read(p)
	if n > 0 {
		g.heard.Store(int64(time.Since(g.began)))
	}
	return n, err
}

// quiet is for how long nothing has come.
func (g *gathered) quiet() time.Duration { return time.Since(g.began) - time.Duration(g.heard.Load()) }

// mute is for how long there was nothing to be written.
func (g *gathered) mute() time.Duration { return time.Since(g.began) - time.Duration(g.said.Load()) }

// Write implements net.Conn. It returns before p is written; when that fails, a
// later Write does.
func (g *gathered) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.err == nil && len(g.pending) >= maxGathered {
		g.changed.Wait()
	}
	if g.err != nil {
		return 0, g.err
	}
	g.pending = append(g.pending, p...)
	g.said.Store(int64(time.Since(g.began)))
	g.changed.Broadcast()
	return len(p), nil
}

func (g *gathered) run() {
	defer close(g.done)
	var writing []byte
	for {
		g.mu.Lock()
		for g.err == nil && len(g.pending) == 0 {
			g.changed.Wait()
		}
		g.mu.Unlock()
		runtime.Gosched() // who has written a header writes the bytes next
		g.mu.Lock()
		if g.err != nil {
			g.mu.Unlock()
			return
		}
		writing, g.pending = g.pending, writing[:0]
		g.changed.Broadcast()
		g.mu.Unlock()
		if err := g.write(writing); err != nil {
			g.fail(err)
			return
		}
	}
}

func (g *gathered) write(p []byte) error {
	write := func() error { _, err := g.Conn.Write(p); return err }
	if g.together == nil {
		return write()
	}
	return g.together.Do(write)
}

func (g *gathered) fail(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err == nil {
		g.err = err
	}
	g.changed.Broadcast()
}

// Close implements net.Conn. What has not been written is lost.
func (g *gathered) Close() error {
	g.fail(net.ErrClosed)
	end := g.Conn.Close
	if g.cut != nil {
		end = g.cut
	}
	err := end()
	<-g.done
	return err
}
