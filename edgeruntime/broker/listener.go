package broker

import (
	"errors"
	"log/slog"
	"maps"
	"net"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"
)

// maxConns bounds the sockets: clients, and those that are about to become one
// or about to go. Above it a connection is closed without a word.
const maxConns = maxClients + 128

// A listener is mochi's listener with a net under each connection: a panic in
// one, such as mochi's decoder can be sent into, ends that one.
type listener struct {
	b      *Broker
	ln     net.Listener
	served chan struct{} // closed when Serve has returned
	failed chan error    // 1 slot: why accepting ended, if not by Close

	wg        sync.WaitGroup // each connection's two goroutines, and those of further addresses
	mu        sync.Mutex
	conns     map[*conn]struct{}
	ended     bool
	further   map[net.Listener]bool // addresses besides ln
	establish listeners.EstablishFn // Serve's; nil before
}

var _ listeners.Listener = (*listener)(nil)

func newListener(b *Broker, ln net.Listener) *listener {
	return &listener{b: b, ln: ln, served: make(chan struct{}), failed: make(chan error, 1), conns: make(map[*conn]struct{})}
}

func (l *listener) ID() string              { return "tcp" }
func (l *listener) Address() string         { return l.ln.Addr().String() }
func (l *listener) Protocol() string        { return "tcp" }
func (l *listener) Init(*slog.Logger) error { return nil }

// Serve accepts until Close. Running out of file descriptors is waited out.
func (l *listener) Serve(establish listeners.EstablishFn) {
	defer close(l.served)
	l.mu.Lock()
	l.establish = establish
	for ln := range l.further {
		l.serveFurtherLocked(ln)
	}
	l.mu.Unlock()
	if err := l.accept(l.ln, false); !l.isEnded() {
		l.failed <- err
	}
}

// listen serves a further address, until end is called or the broker ends. Who
// comes in there needs a name, whatever Config.Anonymous says.
func (l *listener) listen(addr string) (end func(), _ error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return nil, errors.Join(net.ErrClosed, ln.Close())
	}
	if l.further == nil {
		l.further = map[net.Listener]bool{}
	}
	l.further[ln] = true
	if l.establish != nil {
		l.serveFurtherLocked(ln)
	}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.further, ln)
		_ = ln.Close()
	}, nil
}

func (l *listener) serveFurtherLocked(ln net.Listener) {
	l.wg.Go(func() {
		if err := l.accept(ln, true); !errors.Is(err, net.ErrClosed) {
			l.b.log.Error("mqtt: no more connections are accepted", "address", ln.Addr(), "error", err)
		}
	})
}

// accept accepts from one address until it is closed, and returns why it ended.
func (l *listener) accept(ln net.Listener, named bool) error {
	establish := l.establish // set before
	const minPause, maxPause = 5 * time.Millisecond, time.Second
	pause := minPause
	for {
		nc, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil {
			l.b.log.Warn("mqtt: cannot accept a connection", "error", err, "retry", pause)
			select {
			case <-time.After(pause):
			case <-l.b.ctx.Done():
			}
			pause = min(2*pause, maxPause)
			continue
		}
		pause = minPause
		if c := l.add(nc, named); c != nil {
			go func() {
				defer l.wg.Done()
				c.flush()
			}()
			go func() {
				defer l.wg.Done()
				defer l.remove(c)
				l.serve(c, establish)
			}()
		}
	}
}

// add takes a connection in, or closes it and returns nil.
func (l *listener) add(nc net.Conn, named bool) *conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended || len(l.conns) >= maxConns {
		_ = nc.Close()
		return nil
	}
	c := newConn(nc, func() { l.b.dropped.Add(1) })
	// A further address is in the containers' network, which is this machine's.
	c.named, c.local = named, named || sameMachine(nc)
	l.conns[c] = struct{}{}
	l.wg.Add(2)
	return c
}

// sameMachine reports whether both ends of a connection have one address.
func sameMachine(nc net.Conn) bool {
	here, ok1 := nc.LocalAddr().(*net.TCPAddr)
	there, ok2 := nc.RemoteAddr().(*net.TCPAddr)
	return ok1 && ok2 && (there.IP.IsLoopback() || there.IP.Equal(here.IP))
}

func (l *listener) remove(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
}

func (l *listener) isEnded() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ended
}

// serve runs mochi's side of a connection to its end and leaves nothing behind.
func (l *listener) serve(c *conn, establish listeners.EstablishFn) {
	defer close(c.done)
	defer c.Close()
	defer l.b.gone(c)
	defer l.b.forget(c)
	defer c.sessions.release(&l.b.sessions)
	defer func() {
		if p := recover(); p != nil {
			l.b.log.Error("mqtt: a packet broke its connection", "remote", c.RemoteAddr(), "client", c.who().Name,
				"panic", p, "stack", string(debug.Stack()))
		}
	}()
	err := establish(l.ID(), c)
	l.b.log.Debug("mqtt: connection ended", "remote", c.RemoteAddr(), "error", err)
}

// Close says goodbye to every client and returns when all connections and
// Serve have ended. mochi's own function for that is not used: it has no word
// for MQTT 3.1.1, and would not close anything.
func (l *listener) Close(listeners.CloseFn) {
	l.mu.Lock()
	l.ended = true
	conns := slices.Collect(maps.Keys(l.conns))
	further := slices.Collect(maps.Keys(l.further))
	l.mu.Unlock()
	_ = l.ln.Close()
	for _, ln := range further {
		_ = ln.Close()
	}
	for _, c := range conns {
		l.b.disconnect(c, packets.ErrServerShuttingDown)
	}
	l.wg.Wait()
	<-l.served
}

// disconnect ends a connection, with a DISCONNECT for those who know it.
func (b *Broker) disconnect(c *conn, why packets.Code) {
	c.mu.Lock()
	cl, v5 := c.client, c.v5
	c.mu.Unlock()
	if cl != nil && v5 {
		_ = b.server.DisconnectClient(cl, why)
	}
	_ = c.Close()
}

// endRevoked ends the connections of those whose credential does not hold any
// more. Who takes one away, a person at the command line or the end of a pod,
// need not know the broker, so it looks itself.
func (b *Broker) endRevoked() {
	b.listener.mu.Lock()
	conns := slices.Collect(maps.Keys(b.listener.conns))
	b.listener.mu.Unlock()
	for _, c := range conns {
		id := c.who()
		if id.Current == nil || c.ended() || id.Current() {
			continue
		}
		if !c.revoked.Swap(true) {
			b.log.Info("mqtt: connection ended: its credential was taken away", "remote", c.RemoteAddr(), "identity", id.Name)
		}
		b.disconnect(c, packets.ErrNotAuthorized)
	}
}

// forget removes the session of a connection that has ended, if it was to end
// with it. mochi does so itself only when the connection ended in good order.
func (b *Broker) forget(c *conn) {
	c.mu.Lock()
	cl := c.client
	c.mu.Unlock()
	if cl == nil || keepsSession(cl) && !c.revoked.Load() {
		return
	}
	b.sessions.Lock()
	defer b.sessions.Unlock()
	if now, ok := b.server.Clients.Get(cl.ID); ok && now == cl {
		cl.ClearInflights()
		b.server.UnsubscribeClient(cl)
		b.server.Clients.Delete(cl.ID)
	}
}

func keepsSession(cl *mochi.Client) bool {
	if cl.Properties.ProtocolVersion == 5 {
		return cl.Properties.Props.SessionExpiryInterval > 0
	}
	return !cl.Properties.Clean
}

// A lockState is how one goroutine holds an RWMutex across calls that mochi
// makes one after the other; release is safe to call on every way out.
type lockState int

const (
	unlocked lockState = iota
	readLocked
	writeLocked
)

func (s *lockState) rlock(mu *sync.RWMutex) {
	mu.RLock()
	*s = readLocked
}

func (s *lockState) lock(mu *sync.RWMutex) {
	mu.Lock()
	*s = writeLocked
}

func (s *lockState) release(mu *sync.RWMutex) {
	switch *s {
	case readLocked:
		mu.RUnlock()
	case writeLocked:
		mu.Unlock()
	}
	*s = unlocked
}
