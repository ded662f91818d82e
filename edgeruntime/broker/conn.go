package broker

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

const (
	connectTimeout = 10 * time.Second // from accept to a complete CONNECT
	writeTimeout   = 30 * time.Second // for the peer to take writeChunk bytes
	lingerTimeout  = time.Second      // to get the last bytes out when closing
	writeChunk     = 64 << 10

	softLimit = 2 << 20 // bytes waiting to be written, above which QoS 0 is dropped and QoS 1 held back
	hardLimit = 8 << 20 // bytes waiting to be written, above which even an answer is too much

	// defaultWindow is how many messages with QoS 1 and 2 go out without an
	// acknowledgement to a client that has not said how many it takes.
	defaultWindow = 256
	// retainedBurst is how many retained messages are queued for a new
	// subscription before the first of them has been written: a part of
	// maxPending, above which they would be dropped.
	retainedBurst = maxPending / 4
)

// A conn is a client's connection as mochi-mqtt sees it. Its Write never blocks:
// mochi holds a client's lock while it writes, and every publisher that has a
// QoS 1 message for this client needs that lock. So packets are collected here
// and one goroutine, flush, writes them. Nor does Close cut them off: a client
// learns why it was refused or disconnected.
//
// mochi makes one Write call per packet (ClientNetWriteBufferSize 1), so what
// MQTT asks of the sending side is kept here too: the client's Receive Maximum,
// which mochi's own accounting turns into a stall, and the order of redelivered
// before new messages.
type conn struct {
	net.Conn
	done   chan struct{} // closed when the reading side, mochi's, has ended
	peer   atomic.Uint64 // its number among those that speak for mappers, 0 for none
	named  bool          // nobody comes in without a name
	local  bool          // nothing of it leaves this machine
	resend sync.Once     // arranges that a mapper sends again what was not stored

	revoked atomic.Bool // its credential was taken away: the session ends with the connection

	// The reading goroutine's own.
	sessions lockState         // what it holds of Broker.sessions
	inner    map[uint16]uint16 // packet id that the client chose: the one mochi sees; see hook.OnPacketRead
	outer    map[uint16]uint16 // and the other way round
	refusals limiter

	mu       sync.Mutex
	changed  *sync.Cond
	client   *mochi.Client // nil until CONNECT is accepted; then this and identity do not change
	identity Identity
	v5       bool
	reading  bool // Read is in the socket's Read
	closed   bool
	closeBy  time.Time // when closed: give up writing
	out      []byte    // packets to be written
	spare    []byte    // the other buffer, while it is not being written
	held     [][]byte  // QoS 1 and 2 messages waiting for the window or for room; bounded by mochi's MaximumInflight
	later    [][]byte  // new QoS 1 and 2 messages while the session's old ones are sent again; as bounded
	resent   map[uint16]bool
	resuming bool
	window   int // unacknowledged messages that the client takes
	unacked  int // unacknowledged messages it has
	retained int // retained messages queued for it and not yet written
	dropped  func()
}

func newConn(nc net.Conn, dropped func()) *conn {
	c := &conn{Conn: nc, done: make(chan struct{}), window: defaultWindow, dropped: dropped}
	c.changed = sync.NewCond(&c.mu)
	_ = nc.SetReadDeadline(time.Now().Add(connectTimeout))
	return c
}

// connOf returns the conn of a client, nil for the edge itself.
func connOf(cl *mochi.Client) *conn {
	c, _ := cl.Net.Conn.(*conn)
	return c
}

// identified says who the client is. From here on mochi may find the client by
// its id. receiveMaximum is 0 when the client has not set one.
func (c *conn) identified(cl *mochi.Client, id Identity, v5 bool, receiveMaximum uint16) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.client, c.identity, c.v5 = cl, id, v5
	if receiveMaximum > 0 {
		c.window = min(int(receiveMaximum), defaultWindow)
	}
}

// who returns the client's identity.
func (c *conn) who() Identity {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.identity
}

// ended reports whether the reading side has ended.
func (c *conn) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// Read is net.Conn's, except that after Close it fails at once.
func (c *conn) Read(p []byte) (int, error) {
	if !c.setReading(true) {
		return 0, net.ErrClosed
	}
	n, err := c.Conn.Read(p)
	if !c.setReading(false) {
		return 0, net.ErrClosed
	}
	return n, err
}

// setReading says whether Read is in the socket's Read; false when closed.
func (c *conn) setReading(reading bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reading = reading && !c.closed
	if c.closed {
		c.changed.Broadcast()
	}
	return !c.closed
}

// SetDeadline sets the deadline for reading; writing has its own.
func (c *conn) SetDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	return c.Conn.SetReadDeadline(t)
}

// Write takes one packet. It does not block and does not keep p.
func (c *conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0, net.ErrClosed
	}
	if len(p) == 0 {
		return 0, nil
	}
	defer c.changed.Broadcast()
	switch p[0] >> 4 {
	case packets.Publish:
		if p[0]&1 != 0 {
			c.retained--
		}
		c.publishLocked(p)
		return len(p), nil
	case packets.Disconnect:
		if !c.v5 {
			return len(p), nil // only MQTT 5 has a DISCONNECT from the server; it is closed by hook.OnPacketSent
		}
	}
	if len(c.out) > hardLimit {
		c.closeLocked(0) // asks and asks and does not read
		return 0, net.ErrClosed
	}
	c.out = append(c.out, p...)
	return len(p), nil
}

func (c *conn) publishLocked(p []byte) {
	qos, dup := p[0]>>1&3, p[0]&8 != 0
	switch {
	case qos == 0 && len(c.out) > softLimit:
		c.dropped()
	case qos == 0:
		c.out = append(c.out, p...)
	case c.resuming && !dup:
		c.later = append(c.later, bytes.Clone(p))
	case len(c.held) == 0 && c.roomLocked():
		c.sentLocked(p)
	default:
		c.held = append(c.held, bytes.Clone(p))
	}
	if c.resuming && qos > 0 && dup {
		if id, ok := publishID(p); ok {
			c.resent[id] = true
		}
	}
}

func (c *conn) roomLocked() bool { return c.unacked < c.window && len(c.out) < softLimit }

func (c *conn) sentLocked(p []byte) {
	c.out = append(c.out, p...)
	c.unacked++
}

// releaseLocked sends what was held back, as far as there is room.
func (c *conn) releaseLocked() {
	n := 0
	for n < len(c.held) && c.roomLocked() {
		c.sentLocked(c.held[n])
		c.held[n] = nil
		n++
	}
	if c.held = c.held[n:]; len(c.held) == 0 {
		c.held = nil
	}
}

// acked counts a message that the client is done with.
func (c *conn) acked() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unacked = max(0, c.unacked-1)
	c.releaseLocked()
	c.changed.Broadcast()
}

// resume begins the time in which mochi sends a session's old messages again.
func (c *conn) resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.resuming, c.resent = true, make(map[uint16]bool)
}

// resumed ends it: what was published meanwhile follows.
func (c *conn) resumed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.later {
		// A message can be in both when it came while mochi was collecting.
		if id, ok := publishID(p); !ok || !c.resent[id] {
			c.held = append(c.held, p)
		}
	}
	c.resuming, c.later, c.resent = false, nil, nil
	c.releaseLocked()
	c.changed.Broadcast()
}

// subscribing begins counting the retained messages of a new subscription.
func (c *conn) subscribing() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.retained = 0
}

// retainedQueued counts a retained message that mochi has queued, and waits in
// the subscriber's own goroutine while there are too many: mochi would drop
// the rest of them.
func (c *conn) retainedQueued() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.retained++
	for !c.closed && (c.retained > retainedBurst || len(c.out) > softLimit/2) {
		c.changed.Wait()
	}
}

// Close stops reading at once. What is waiting to be written still goes out, for
// at most lingerTimeout, then flush closes the connection.
func (c *conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closeLocked(lingerTimeout)
	return nil
}

func (c *conn) closeLocked(linger time.Duration) {
	if c.closed {
		return
	}
	c.closed, c.held, c.later = true, nil, nil
	c.closeBy = time.Now().Add(linger)
	_ = c.Conn.SetReadDeadline(time.Now())
	_ = c.Conn.SetWriteDeadline(c.closeBy)
	c.changed.Broadcast()
}

// flush writes what Write collects until the connection is closed, by either
// side. It is the one who closes the socket.
func (c *conn) flush() {
	defer c.Conn.Close()
	for {
		buf, ok := c.take()
		if !ok {
			break
		}
		if err := c.writeOut(buf); err != nil {
			_ = c.Close()
			return
		}
		c.written(buf)
	}
	// Closing a socket with unread bytes resets it, and the peer would lose what
	// was just written. So say that nothing more comes, and read on a little.
	if tcp, ok := c.Conn.(*net.TCPConn); ok && tcp.CloseWrite() == nil {
		c.mu.Lock()
		for c.reading { // a later deadline would let it go on reading
			c.changed.Wait()
		}
		_ = c.Conn.SetReadDeadline(c.closeBy)
		c.mu.Unlock()
		_, _ = io.Copy(io.Discard, io.LimitReader(c.Conn, maxPacket))
	}
}

// take waits for something to write; false when closed and all is written.
func (c *conn) take() ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.out) == 0 && !c.closed {
		c.changed.Wait()
	}
	buf := c.out
	c.out, c.spare = c.spare[:0], nil
	return buf, len(buf) > 0
}

// written gives a buffer back and uses the room that there is now.
func (c *conn) written(buf []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cap(buf) <= writeChunk { // an idle client keeps no large buffer
		c.spare = buf[:0]
	}
	c.releaseLocked()
	c.changed.Broadcast()
}

func (c *conn) writeOut(buf []byte) error {
	for len(buf) > 0 {
		n := min(len(buf), writeChunk)
		c.setWriteDeadline()
		if _, err := c.Conn.Write(buf[:n]); err != nil {
			return err
		}
		buf = buf[n:]
	}
	return nil
}

func (c *conn) setWriteDeadline() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed { // otherwise Close has set it
		_ = c.Conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	}
}

// publishID reads the packet id of an encoded PUBLISH with QoS 1 or 2.
func publishID(p []byte) (uint16, bool) {
	i := 1
	for i < len(p) && i < 5 && p[i]&0x80 != 0 { // the remaining length
		i++
	}
	i++
	if len(p) < i+2 {
		return 0, false
	}
	i += 2 + int(binary.BigEndian.Uint16(p[i:]))
	if len(p) < i+2 {
		return 0, false
	}
	return binary.BigEndian.Uint16(p[i:]), true
}
