package faultproxy

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

const (
	chunkSize = 16 << 10
	// queueLength bounds what is under way in one direction. When it is full
	// nothing more is read, and the sender's own TCP blocks it.
	queueLength = 64
)

// conn is a client's connection and, once dialled, its upstream's.
type conn struct {
	p      *Proxy
	client *net.TCPConn
	gone   chan struct{} // closed when the connection is over

	// under p.mu
	upstream *net.TCPConn // nil until dialled
	lost     [2]bool      // by direction: something was thrown away
	shut     [2]bool      // by direction: the end was handed on
	held     bool         // was there when Overtake began
	over     bool
}

// chunk is what one read gave: bytes, or the end of the stream (end is then
// io.EOF for a close, or what broke it).
type chunk struct {
	data []byte
	end  error
	due  time.Time // not forwarded earlier; zero without latency
}

// run forwards until both directions have ended or the connection is reset.
func (c *conn) run() {
	upstream, ok := c.dial()
	if !ok {
		c.reset()
		return
	}
	var directions sync.WaitGroup
	directions.Go(func() { c.forward(up, c.client, upstream) })
	directions.Go(func() { c.forward(down, upstream, c.client) })
	directions.Wait()
	c.finish()
}

// dial connects to the upstream once the mode lets anything through. In a
// Blackhole it only swallows until the connection is over.
func (c *conn) dial() (*net.TCPConn, bool) {
	for {
		mode, changed := c.p.now(c)
		switch mode {
		case Stall:
			if !c.wait(changed) {
				return nil, false
			}
			continue
		case Blackhole:
			if c.throwAway(up) && c.throwAway(down) {
				_, err := io.Copy(io.Discard, c.client) // ends when reset, or when the client leaves
				if err == nil {
					<-c.gone // it closed only: nobody answers that either
				}
				return nil, false
			}
			continue // the mode has just changed
		}
		d := net.Dialer{Timeout: dialTimeout}
		upstream, err := d.DialContext(c.p.ctx, "tcp", c.p.upstream)
		if err != nil {
			return nil, false
		}
		return c.adopt(upstream.(*net.TCPConn))
	}
}

// adopt makes upstream part of c, unless c was reset while dialling.
func (c *conn) adopt(upstream *net.TCPConn) (*net.TCPConn, bool) {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	if c.over {
		abort(upstream)
		return nil, false
	}
	c.upstream = upstream
	return upstream, true
}

// forward carries one direction from src to dst until src ends or c is over.
// Reading and writing are apart so that latency delays without throttling.
func (c *conn) forward(d direction, src, dst *net.TCPConn) {
	queue := make(chan chunk, queueLength) // full: the reader waits
	var reader sync.WaitGroup
	reader.Go(func() { c.read(d, src, queue) })
	defer reader.Wait()
	for {
		var next chunk
		select {
		case next = <-queue:
		case <-c.gone:
			return
		}
		if !c.waitUntil(next.due) || !c.deliver(d, next, dst) || next.end != nil {
			return
		}
	}
}

// read queues what src sends, its end last.
func (c *conn) read(d direction, src *net.TCPConn, queue chan<- chunk) {
	buf := make([]byte, chunkSize)
	for {
		n, err := src.Read(buf)
		var due time.Time
		if latency := c.p.currentLatency(); latency > 0 {
			due = time.Now().Add(latency)
		}
		if n > 0 && !c.enqueue(queue, chunk{data: append([]byte(nil), buf[:n]...), due: due}) {
			return
		}
		if err != nil {
			if errors.Is(err, io.EOF) && c.wasReset(d, src) {
				err = syscall.ECONNRESET
			}
			c.enqueue(queue, chunk{end: err, due: due})
			return
		}
	}
}

// wasReset tells a reset from a close after src, of direction d, read as ended.
// The kernel reports a reset once only: when the opposite direction's write was
// the one to get it, the read gets an innocent end of file. But then the socket
// has no peer any more, which after a mere close it has until we close too.
func (c *conn) wasReset(d direction, src *net.TCPConn) bool {
	raw, err := src.SyscallConn()
	if err != nil {
		return false // already over
	}
	var peer error
	if raw.Control(func(fd uintptr) { _, peer = syscall.Getpeername(int(fd)) }) != nil {
		return false // already over
	}
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	return errors.Is(peer, syscall.ENOTCONN) && !c.shut[opposite(d)]
}

func (c *conn) enqueue(queue chan<- chunk, next chunk) bool {
	select {
	case queue <- next:
		return true
	case <-c.gone:
		return false
	}
}

// deliver does with one chunk what the mode says, which may change meanwhile.
// It returns false when the connection is over.
func (c *conn) deliver(d direction, next chunk, dst *net.TCPConn) bool {
	for {
		mode, changed := c.p.now(c)
		switch {
		case mode == Stall:
			if !c.wait(changed) {
				return false
			}
			continue
		case mode.loses(d):
			if c.throwAway(d) {
				return true
			}
			continue // the mode has just changed
		}
		if next.end != nil {
			return c.deliverEnd(d, next.end, dst)
		}
		now := next.data
		if mode == Trickle {
			now = now[:1]
		}
		if _, err := dst.Write(now); err != nil {
			return c.undeliverable(d)
		}
		if next.data = next.data[len(now):]; len(next.data) == 0 {
			return true
		}
		if !c.waitUntil(time.Now().Add(tricklePause)) {
			return false
		}
	}
}

func (c *conn) deliverEnd(d direction, end error, dst *net.TCPConn) bool {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	if errors.Is(end, io.EOF) && !c.over {
		c.shut[d] = true
		if dst.CloseWrite() == nil {
			return true
		}
	}
	c.resetLocked()
	return false
}

// undeliverable deals with a receiver that is gone. It resets the connection,
// unless news of the receiver cannot get back to the sender in this mode: then
// the sender goes on talking to nobody.
func (c *conn) undeliverable(d direction) bool {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	if !c.over && c.p.mode.loses(opposite(d)) {
		c.lost[d] = true
		return true
	}
	c.resetLocked()
	return false
}

func opposite(d direction) direction { return 1 - d }

// throwAway notes that something is lost in direction d, if the mode still
// says so. Note and mode are under one lock, so that Set sees every hole.
func (c *conn) throwAway(d direction) bool {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	if !c.p.mode.loses(d) {
		return false
	}
	c.lost[d] = true
	return true
}

// holedLocked reports whether mode m would let a stream go on that has lost
// something.
func (c *conn) holedLocked(m Mode) bool {
	if m == Stall || m == Overtake {
		return false
	}
	return c.lost[up] && !m.loses(up) || c.lost[down] && !m.loses(down)
}

// wait returns true when changed is closed, false when the connection is over.
func (c *conn) wait(changed <-chan struct{}) bool {
	select {
	case <-changed:
		return true
	case <-c.gone:
		return false
	}
}

// waitUntil returns true at due, false when the connection is over before.
func (c *conn) waitUntil(due time.Time) bool {
	if due.IsZero() {
		return true
	}
	ctx, cancel := context.WithDeadline(c.p.ctx, due)
	defer cancel()
	select {
	case <-ctx.Done():
		return true
	case <-c.gone:
		return false
	}
}

func (c *conn) reset() {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	c.resetLocked()
}

// resetLocked ends the connection with an RST to both sides.
func (c *conn) resetLocked() {
	if c.over {
		return
	}
	c.overLocked()
	abort(c.client)
	if c.upstream != nil {
		abort(c.upstream)
	}
}

// finish ends a connection of which both sides have closed.
func (c *conn) finish() {
	c.p.mu.Lock()
	holed := c.lost[up] || c.lost[down]
	c.p.mu.Unlock()
	if holed {
		// One side does not know that the other closed, and is not to learn it
		// before the mode changes: Set resets.
		<-c.gone
		return
	}
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	if c.over {
		return
	}
	c.overLocked()
	_ = c.client.Close() // both directions are shut already
	_ = c.upstream.Close()
}

func (c *conn) overLocked() {
	c.over = true
	close(c.gone)
	delete(c.p.conns, c)
}

// abort closes with an RST. Its errors mean that the peer was quicker.
func abort(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}
