package opcuasim

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// cable is the network in front of the OPC UA server, which itself listens
// where nobody looks: it can be unplugged, fall silent, and hang up, while the
// server behind it keeps its address space. Unplugged, it keeps its address.
type cable struct {
	mu     sync.Mutex
	addr   string // host:port
	inner  string // the server's own
	ln     net.Listener
	conns  map[*wire]struct{}
	silent bool
	closed bool
	wg     sync.WaitGroup // accept loops and wires
}

// wire is one connection and its continuation to the server.
type wire struct {
	client, server net.Conn
	doomed         bool // it lost bytes; cable.mu
}

// innerDialTimeout bounds connecting to the server behind the cable.
const innerDialTimeout = 5 * time.Second

// plug listens, unless it does.
func (c *cable) plug() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ln != nil {
		return nil
	}
	if c.closed {
		return net.ErrClosed
	}
	ln, err := net.Listen("tcp", c.addr)
	if err != nil {
		return err
	}
	c.addr, c.ln = ln.Addr().String(), ln
	if c.conns == nil {
		c.conns = map[*wire]struct{}{}
	}
	return nil
}

// serve accepts in a goroutine of its own, for as long as it is plugged in.
func (c *cable) serve(ctx context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ln := c.ln; ln != nil && !c.closed {
		c.wg.Go(func() { c.accept(ctx, ln) })
	}
}

func (c *cable) accept(ctx context.Context, ln net.Listener) {
	for {
		conn, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // too many open files, say: later there may be fewer
			select {
			case <-ctx.Done():
				return
			case <-time.After(10 * time.Millisecond):
			}
			continue
		}
		c.wg.Go(func() { c.carry(ctx, conn) })
	}
}

// carry connects a client through until either end hangs up.
func (c *cable) carry(ctx context.Context, client net.Conn) {
	dialer := net.Dialer{Timeout: innerDialTimeout}
	server, err := dialer.DialContext(ctx, "tcp", c.inner)
	if err != nil {
		client.Close()
		return
	}
	w := &wire{client: client, server: server}
	c.mu.Lock()
	if c.ln == nil {
		c.mu.Unlock()
		w.close()
		return
	}
	w.doomed = c.silent
	c.conns[w] = struct{}{}
	c.mu.Unlock()

	var both sync.WaitGroup
	both.Go(func() { c.copy(w, server, client) })
	both.Go(func() { c.copy(w, client, server) })
	both.Wait()
	c.mu.Lock()
	delete(c.conns, w)
	c.mu.Unlock()
}

// copy moves bytes one way. While the cable is silent they are lost, and with
// them the connection: a stream must not have a hole.
func (c *cable) copy(w *wire, to, from net.Conn) {
	defer w.close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		c.mu.Lock()
		lost := c.silent || w.doomed
		w.doomed = lost
		c.mu.Unlock()
		if n > 0 && !lost {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err == nil {
			continue
		}
		// An end is hidden from the other side while the cable is silent.
		if lost && errors.Is(err, io.EOF) {
			c.await(w)
		}
		return
	}
}

// await returns when the cable is no longer silent or the wire is closed.
func (c *cable) await(w *wire) {
	for {
		c.mu.Lock()
		_, there := c.conns[w]
		silent := c.silent && c.ln != nil && there
		c.mu.Unlock()
		if !silent {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (w *wire) close() {
	w.client.Close()
	w.server.Close()
}

// reset hangs up on everyone, with a TCP reset.
func (c *cable) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.resetLocked(func(*wire) bool { return true })
}

func (c *cable) resetLocked(which func(*wire) bool) {
	for w := range c.conns {
		if which(w) {
			if tcp, ok := w.client.(*net.TCPConn); ok {
				tcp.SetLinger(0) // closing then resets
			}
			w.close()
		}
	}
}

// unplug hangs up on everyone and lets nobody connect.
func (c *cable) unplug() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ln != nil {
		c.ln.Close()
		c.ln = nil
	}
	for w := range c.conns {
		w.close()
	}
}

// hush makes everything sent from now on vanish, both ways, or ends that: what
// lost bytes is then reset.
func (c *cable) hush(silent bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.silent = silent
	if !silent {
		c.resetLocked(func(w *wire) bool { return w.doomed })
	}
}

// close ends it for good and waits.
func (c *cable) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.unplug()
	c.wg.Wait()
}

func (c *cable) address() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.addr
}

func (c *cable) connections() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.conns)
}
