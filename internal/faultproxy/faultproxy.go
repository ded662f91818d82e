// Package faultproxy is a TCP proxy that misbehaves on command. A test puts it
// between two ends of the product and switches its mode while they talk. Its
// address stays the same through every mode. Imported by tests and test tools
// only.
package faultproxy

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/internal/holdport"
)

// A Mode is what the proxy does with the connections it has and with new ones.
type Mode int

const (
	// Pass forwards everything, both ways.
	Pass Mode = iota
	// Cut resets (RST) every connection, and each new one as soon as it is
	// made.
	Cut
	// Refuse resets every connection and refuses new ones, like a machine on
	// which nothing listens.
	Refuse
	// Stall forwards nothing and keeps everything, like a network outage that
	// TCP outlives: no bytes arrive until the mode changes, then all of them do.
	// New connections are made and stall too.
	Stall
	// Blackhole accepts everything and forwards nothing, both ways: what is
	// sent is lost, closing is not passed on, and new connections never reach
	// the upstream.
	Blackhole
	// DropUp loses what the client sends; the upstream's bytes still arrive.
	DropUp
	// DropDown loses what the upstream sends; the client's bytes still arrive.
	DropDown
	// Trickle forwards one byte at a time, each in a segment of its own.
	Trickle
	// Overtake keeps what the connections that there are have under way, as Stall
	// does, and passes new ones: when the mode changes, what was sent first arrives
	// after what was sent later.
	Overtake
)

var modeNames = [...]string{"pass", "cut", "refuse", "stall", "blackhole", "drop-up", "drop-down", "trickle", "overtake"}

func (m Mode) String() string {
	if m < 0 || int(m) >= len(modeNames) {
		return "unknown"
	}
	return modeNames[m]
}

// direction of a stream through the proxy.
type direction int

const (
	up   direction = iota // client to upstream
	down                  // upstream to client
)

// loses reports whether bytes in direction d vanish.
func (m Mode) loses(d direction) bool {
	return m == Blackhole || m == DropUp && d == up || m == DropDown && d == down
}

const (
	dialTimeout = 5 * time.Second
	// tricklePause lets the receiver wake up between two bytes: 10 kB/s at most.
	tricklePause = 100 * time.Microsecond
)

// A Proxy forwards connections to one upstream. Its methods may be called from
// any goroutine.
type Proxy struct {
	tb       testing.TB
	upstream string
	port     *holdport.Port
	ctx      context.Context // ends with Close
	stop     context.CancelFunc
	loops    sync.WaitGroup // accept loops and connections

	mu       sync.Mutex
	mode     Mode
	latency  time.Duration
	jitter   time.Duration
	changed  chan struct{}  // closed, and replaced, when mode changes
	listener net.Listener   // nil while refusing
	conns    map[*conn]bool // the live ones
	accepted int            // connections ever accepted
}

// New starts a proxy to upstream (host:port) in mode Pass. It is closed when
// the test ends. The upstream need not be there yet: a client whose upstream
// cannot be dialled is reset.
func New(tb testing.TB, upstream string) *Proxy {
	tb.Helper()
	port, err := holdport.Hold()
	if err != nil {
		tb.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	p := &Proxy{
		tb: tb, upstream: upstream, port: port, ctx: ctx, stop: stop,
		changed: make(chan struct{}), conns: make(map[*conn]bool),
	}
	tb.Cleanup(p.Close)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.listenLocked(); err != nil {
		tb.Fatal(err)
	}
	return p
}

// Addr is where clients connect, as host:port.
func (p *Proxy) Addr() string { return p.port.Addr() }

// Set switches the mode, for the connections that there are and for new ones. A
// connection that has lost bytes is reset as soon as its direction would
// forward again: no TCP stream ever has a hole.
func (p *Proxy) Set(m Mode) {
	p.tb.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx.Err() != nil || m == p.mode {
		return
	}
	p.mode = m
	for c := range p.conns {
		c.held = m == Overtake
	}
	close(p.changed)
	p.changed = make(chan struct{})
	switch {
	case m == Refuse:
		p.stopListeningLocked()
	case p.listener == nil:
		if err := p.listenLocked(); err != nil {
			p.tb.Errorf("faultproxy: %v", err)
		}
	}
	for c := range p.conns {
		if m == Cut || m == Refuse || c.holedLocked(m) {
			c.resetLocked()
		}
	}
}

// SetLatency delays every byte by d in each direction, in any mode. It delays
// and does not throttle: as much is under way as fits in the buffers.
func (p *Proxy) SetLatency(d time.Duration) { p.SetJitter(d, 0) }

// SetJitter delays by least and by up to more, anew for each read and direction:
// no two connections, and no two directions of one, keep in step. Within a
// direction the order stays, as TCP has it.
func (p *Proxy) SetJitter(least, more time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.latency, p.jitter = least, more
}

// Reset resets the connections that there are, and leaves the mode: a blip.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.resetLocked()
	}
}

// Conns is how many client connections are open.
func (p *Proxy) Conns() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns)
}

// Accepted is how many client connections were ever made, cut ones included.
func (p *Proxy) Accepted() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.accepted
}

// Close resets every connection, stops listening and waits for all of the
// proxy's goroutines. Closing twice does nothing.
func (p *Proxy) Close() {
	p.mu.Lock()
	first := p.ctx.Err() == nil
	p.stop()
	p.stopListeningLocked()
	for c := range p.conns {
		c.resetLocked()
	}
	p.mu.Unlock()
	p.loops.Wait()
	if first {
		if err := p.port.Close(); err != nil {
			p.tb.Errorf("faultproxy: %v", err)
		}
	}
}

func (p *Proxy) listenLocked() error {
	l, err := p.port.Listen()
	if err != nil {
		return err
	}
	p.listener = l
	p.loops.Go(func() { p.accept(l) })
	return nil
}

func (p *Proxy) stopListeningLocked() {
	if p.listener != nil {
		_ = p.listener.Close() // a listener's Close has nothing left to report
		p.listener = nil
	}
}

// accept runs until l is closed.
func (p *Proxy) accept(l net.Listener) {
	for {
		client, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			p.tb.Errorf("faultproxy: accept: %v", err)
			return
		}
		p.mu.Lock()
		p.accepted++
		c := &conn{p: p, client: client.(*net.TCPConn), gone: make(chan struct{})}
		p.conns[c] = true
		if p.mode == Cut || p.mode == Refuse || p.ctx.Err() != nil {
			c.resetLocked()
		} else {
			p.loops.Go(c.run)
		}
		p.mu.Unlock()
	}
}

// now returns what the mode means for c and a channel that is closed when it
// changes.
func (p *Proxy) now(c *conn) (Mode, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.mode != Overtake:
		return p.mode, p.changed
	case c.held:
		return Stall, p.changed
	default:
		return Pass, p.changed
	}
}

func (p *Proxy) currentLatency() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.jitter > 0 {
		return p.latency + time.Duration(rand.Int64N(int64(p.jitter)))
	}
	return p.latency
}
