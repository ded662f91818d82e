package faultproxy

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second

// upstream hands the test the server's end of every connection.
type upstream struct {
	t     *testing.T
	addr  string
	conns chan *net.TCPConn
}

func newUpstream(t *testing.T) *upstream {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := &upstream{t: t, addr: l.Addr().String(), conns: make(chan *net.TCPConn, 16)}
	var loop sync.WaitGroup
	loop.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			u.conns <- c.(*net.TCPConn)
		}
	})
	t.Cleanup(func() { l.Close(); loop.Wait() })
	return u
}

func (u *upstream) next() *net.TCPConn {
	u.t.Helper()
	select {
	case c := <-u.conns:
		u.t.Cleanup(func() { c.Close() })
		return c
	case <-time.After(patience):
		u.t.Fatal("no connection reached the upstream")
		return nil
	}
}

func (u *upstream) none() {
	u.t.Helper()
	select {
	case <-u.conns:
		u.t.Error("a connection reached the upstream")
	default:
	}
}

func dial(t *testing.T, p *Proxy) *net.TCPConn {
	t.Helper()
	c, err := net.DialTimeout("tcp", p.Addr(), patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// pair is a proxy with one connection through it.
func pair(t *testing.T) (p *Proxy, u *upstream, client, server *net.TCPConn) {
	t.Helper()
	u = newUpstream(t)
	p = New(t, u.addr)
	client = dial(t, p)
	return p, u, client, u.next()
}

func send(t *testing.T, from *net.TCPConn, text string) {
	t.Helper()
	if _, err := from.Write([]byte(text)); err != nil {
		t.Fatalf("send %q: %v", text, err)
	}
}

func arrives(t *testing.T, to *net.TCPConn, want string) {
	t.Helper()
	to.SetReadDeadline(time.Now().Add(patience))
	got := make([]byte, len(want))
	if n, err := io.ReadFull(to, got); err != nil || string(got) != want {
		t.Fatalf("received %q, %v; want %q", got[:n], err, want)
	}
}

// silent fails when anything, an end included, arrives within a moment.
func silent(t *testing.T, to *net.TCPConn) {
	t.Helper()
	to.SetReadDeadline(time.Now().Add(30 * time.Millisecond))
	n, err := to.Read(make([]byte, 1))
	if n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read %d bytes, %v; want silence", n, err)
	}
}

func isReset(t *testing.T, c *net.TCPConn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.Copy(io.Discard, c); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("read: %v, want a reset", err)
	}
}

// newIsReset connects and expects a reset, which may overtake the dial.
func newIsReset(t *testing.T, p *Proxy) {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr())
	if err == nil {
		t.Cleanup(func() { c.Close() })
		isReset(t, c.(*net.TCPConn))
	} else if !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("dial: %v, want a reset", err)
	}
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		time.Sleep(time.Millisecond) //sleep: polls real sockets
	}
}

func TestPassForwardsAndClosesInGoodOrder(t *testing.T) {
	p, _, client, server := pair(t)
	send(t, client, "question")
	arrives(t, server, "question")
	if err := client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(server); err != nil || len(rest) != 0 {
		t.Fatalf("after the client's close the server reads %q, %v; want the end", rest, err)
	}
	send(t, server, "answer") // the other direction is still open
	arrives(t, client, "answer")
	server.Close()
	if rest, err := io.ReadAll(client); err != nil || len(rest) != 0 {
		t.Fatalf("after the server's close the client reads %q, %v; want the end", rest, err)
	}
	eventually(t, "the connection is forgotten", func() bool { return p.Conns() == 0 })
}

func TestPassHandsOnAReset(t *testing.T) {
	_, _, client, server := pair(t)
	abort(server)
	isReset(t, client)
}

func TestCutResetsOldAndNew(t *testing.T) {
	p, u, client, server := pair(t)
	p.Set(Cut)
	isReset(t, client)
	isReset(t, server)
	newIsReset(t, p)
	u.none()
	p.Set(Pass)
	c := dial(t, p)
	send(t, c, "back")
	arrives(t, u.next(), "back")
}

func TestRefuseRefusesAndComesBackAtTheSameAddress(t *testing.T) {
	p, u, client, server := pair(t)
	addr := p.Addr()
	for range 3 {
		p.Set(Refuse)
		if _, err := net.Dial("tcp", addr); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("dial: %v, want refused", err)
		}
		p.Set(Pass)
		c := dial(t, p)
		send(t, c, "back")
		arrives(t, u.next(), "back")
	}
	isReset(t, client)
	isReset(t, server)
	if p.Addr() != addr {
		t.Errorf("the address changed from %s to %s", addr, p.Addr())
	}
}

func TestStallKeepsEverythingForLater(t *testing.T) {
	p, u, client, server := pair(t)
	p.Set(Stall)
	send(t, client, "up")
	send(t, server, "down")
	late := dial(t, p)
	send(t, late, "late")
	silent(t, server)
	silent(t, client)
	u.none()
	p.Set(Pass)
	arrives(t, server, "up")
	arrives(t, client, "down")
	arrives(t, u.next(), "late")
}

func TestOvertakeHandsOnTheOldAfterTheNew(t *testing.T) {
	p, u, client, server := pair(t)
	p.Set(Overtake)
	send(t, client, "sent first")
	later := dial(t, p)
	send(t, later, "sent later")
	arrives(t, u.next(), "sent later")
	silent(t, server)
	p.Set(Pass)
	arrives(t, server, "sent first")
}

func TestJitterDelays(t *testing.T) {
	p, _, client, server := pair(t)
	p.SetJitter(50*time.Millisecond, 50*time.Millisecond)
	began := time.Now()
	send(t, client, "up")
	arrives(t, server, "up")
	if took := time.Since(began); took < 50*time.Millisecond {
		t.Errorf("it took %v", took)
	}
}

func TestStallPushesBack(t *testing.T) {
	p, _, client, _ := pair(t)
	p.Set(Stall)
	client.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
	n, err := client.Write(make([]byte, 64<<20))
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("wrote %d bytes, %v into a stalled connection; want to be held up", n, err)
	}
}

func TestBlackholeSwallows(t *testing.T) {
	p, u, client, server := pair(t)
	p.Set(Blackhole)
	late := dial(t, p)
	for _, c := range []*net.TCPConn{client, server, late} {
		send(t, c, "lost")
		silent(t, c)
	}
	// Far more than any buffer holds: it is swallowed, not kept.
	client.SetWriteDeadline(time.Now().Add(patience))
	if _, err := client.Write(make([]byte, 64<<20)); err != nil {
		t.Fatalf("write into the black hole: %v", err)
	}
	// Nobody learns that anybody left, in good order or not.
	client.CloseWrite()
	silent(t, server)
	abort(client)
	silent(t, server)
	u.none()

	// A stream with a hole in it must not go on.
	p.Set(Pass)
	isReset(t, server)
	isReset(t, late)
	eventually(t, "all are forgotten", func() bool { return p.Conns() == 0 })
}

func TestBlackholeSparesIdleConnections(t *testing.T) {
	p, _, client, server := pair(t)
	p.Set(Blackhole)
	silent(t, client)
	p.Set(Pass)
	send(t, client, "still here")
	arrives(t, server, "still here")
}

func TestHolesOutliveAStall(t *testing.T) {
	p, _, client, server := pair(t)
	p.Set(Blackhole)
	send(t, client, "lost")
	silent(t, server)
	p.Set(Stall)
	send(t, client, "kept")
	silent(t, server)
	p.Set(Pass)
	isReset(t, server)
	isReset(t, client)
}

func TestDropsOneDirection(t *testing.T) {
	for _, mode := range []Mode{DropUp, DropDown} {
		t.Run(mode.String(), func(t *testing.T) {
			p, u, client, server := pair(t)
			p.Set(mode)
			late := dial(t, p)
			for _, ends := range [][2]*net.TCPConn{{client, server}, {late, u.next()}} {
				deaf, mute := ends[0], ends[1] // mute sends in vain
				if mode == DropUp {
					deaf, mute = mute, deaf
				}
				send(t, mute, "lost")
				silent(t, deaf)
				send(t, deaf, "heard")
				arrives(t, mute, "heard")
			}
			p.Set(Pass)
			isReset(t, client)
			isReset(t, server)
			isReset(t, late)
		})
	}
}

func TestDropUpHidesThatTheClientDied(t *testing.T) {
	p, _, client, server := pair(t)
	p.Set(DropUp)
	abort(client)
	for range 50 {
		send(t, server, "anybody there?")
	}
	silent(t, server)
	p.Set(Pass)
	isReset(t, server)
}

func TestTrickleSplitsEverything(t *testing.T) {
	p, _, client, server := pair(t)
	p.Set(Trickle)
	const text = "a frame that its reader would like to get in one piece"
	send(t, client, text)
	server.SetReadDeadline(time.Now().Add(patience))
	var got []byte
	reads := 0
	for buf := make([]byte, 1<<10); len(got) < len(text); reads++ {
		n, err := server.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, buf[:n]...)
	}
	if string(got) != text {
		t.Errorf("received %q, want %q", got, text)
	}
	if reads < len(text)/4 { // the receiver may be slow to wake
		t.Errorf("%d bytes came in only %d reads", len(text), reads)
	}
}

func TestLatencyDelaysWithoutThrottling(t *testing.T) {
	p, _, client, server := pair(t)
	const latency = 100 * time.Millisecond
	p.SetLatency(latency)
	start := time.Now()
	send(t, client, "ping")
	arrives(t, server, "ping")
	if took := time.Since(start); took < latency {
		t.Errorf("arrived after %v, want at least %v", took, latency)
	}
	// One after the other, a hundred chunks would take ten seconds.
	start = time.Now()
	var sender sync.WaitGroup
	sender.Go(func() {
		for range 100 {
			if _, err := client.Write(make([]byte, chunkSize)); err != nil {
				t.Error(err)
			}
		}
	})
	server.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.CopyN(io.Discard, server, 100*chunkSize); err != nil {
		t.Fatal(err)
	}
	sender.Wait()
	if took := time.Since(start); took > 70*latency {
		t.Errorf("1.6 MB took %v at %v latency", took, latency)
	}
}

func TestResetIsABlip(t *testing.T) {
	p, u, client, server := pair(t)
	p.Reset()
	isReset(t, client)
	isReset(t, server)
	c := dial(t, p)
	send(t, c, "again")
	arrives(t, u.next(), "again")
	if p.Accepted() != 2 || p.Conns() != 1 {
		t.Errorf("accepted %d, open %d; want 2 and 1", p.Accepted(), p.Conns())
	}
}

func TestUpstreamThatIsDown(t *testing.T) {
	u := newUpstream(t)
	p := New(t, "127.0.0.1:1") // nothing listens there
	newIsReset(t, p)
	u.none()
}

func TestCloseTwice(t *testing.T) {
	p, _, client, _ := pair(t)
	p.Close()
	isReset(t, client)
	p.Close()
	p.Set(Cut) // has no effect, and no crash, any more
}

// TestStreamsStayWhole switches modes at random under load: whatever arrives is
// a prefix of what was sent, in every connection, both ways.
func TestStreamsStayWhole(t *testing.T) {
	u := newUpstream(t)
	p := New(t, u.addr)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	pattern := make([]byte, 256<<10)
	for i := range pattern {
		pattern[i] = byte(i ^ i>>8)
	}
	var ends sync.WaitGroup
	talk := func(c *net.TCPConn) {
		ends.Go(func() {
			defer c.Close()
			c.SetDeadline(time.Now().Add(patience))
			var writer sync.WaitGroup
			var writeErr error
			writer.Go(func() {
				_, err := c.Write(pattern)
				writeErr = errors.Join(err, c.CloseWrite())
			})
			got, err := io.ReadAll(c)
			if !bytes.HasPrefix(pattern, got) {
				t.Error("received something that was not sent like that")
			}
			if err != nil {
				abort(c) // as the reader gives up, so must the writer
			}
			writer.Wait()
			// A reset is reported once, to the reader or to the writer.
			if err == nil && writeErr == nil && len(got) != len(pattern) {
				t.Errorf("%d of %d bytes, then an end in good order", len(got), len(pattern))
			}
		})
	}
	modes := []Mode{Pass, Pass, Cut, Refuse, Stall, Blackhole, DropUp, DropDown, Trickle, Overtake}
	for range 200 {
		p.Set(modes[random.IntN(len(modes))])
		if c, err := net.Dial("tcp", p.Addr()); err == nil {
			talk(c.(*net.TCPConn))
		}
		for len(u.conns) > 0 {
			talk(<-u.conns)
		}
		time.Sleep(time.Duration(random.IntN(2000)) * time.Microsecond) //sleep: lets each mode act on real sockets
	}
	p.Set(Pass)
	p.Close()
	for len(u.conns) > 0 {
		talk(<-u.conns)
	}
	ends.Wait()
}

func TestModesHaveNames(t *testing.T) {
	if len(modeNames) != int(Overtake)+1 || slices.Contains(modeNames[:], "") {
		t.Errorf("names %q for %d modes", modeNames, Overtake+1)
	}
	if got := Mode(99).String(); got != "unknown" {
		t.Errorf("Mode(99) = %q", got)
	}
}
