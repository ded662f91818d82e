package modbus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/whimbrel-edge/whimbrel/protocols/serial"
)

// peer is the far end of a serial line whose every answer the test writes
// itself.
type peer struct {
	*os.File
	ascii bool
	near  *os.File
	cfg   serial.Config
	done  chan struct{}

	mu    sync.Mutex
	times []time.Time // when requests came
}

// newPeer makes a line. answer gets each request with its number, from 0.
func newPeer(t testing.TB, ascii bool, path string, answer func(p *peer, nth int, unit byte, pdu []byte)) *peer {
	t.Helper()
	far, near, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := syscall.Dup(int(far.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	far.Close()
	if err := syscall.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	p := &peer{File: os.NewFile(uintptr(fd), "far end"), ascii: ascii, near: near, done: make(chan struct{}),
		cfg: serial.Config{Device: near.Name(), Baud: 115200, DataBits: 8, Parity: serial.None, StopBits: 1}}
	if path != "" {
		os.Remove(path)
		if err := os.Symlink(near.Name(), path); err != nil {
			t.Fatal(err)
		}
		p.cfg.Device = path
	}
	go func() {
		defer close(p.done)
		var have []byte
		b := make([]byte, 1024)
		for nth := 0; ; {
			n, err := p.Read(b)
			if err != nil {
				return
			}
			have = append(have, b[:n]...)
			frame, used := FindRTURequest(have, false)
			if ascii {
				frame, used = FindASCII(have)
			}
			if frame == nil {
				continue
			}
			p.mu.Lock()
			p.times = append(p.times, time.Now())
			p.mu.Unlock()
			if unit, pdu, err := parseSerial(ascii, frame); err == nil {
				answer(p, nth, unit, pdu)
				nth++
			}
			have = have[used:]
		}
	}()
	t.Cleanup(p.unplug)
	return p
}

func (p *peer) unplug() {
	p.near.Close()
	p.File.Close()
	<-p.done
}

// frame is the right answer: register n holds n.
func (p *peer) frame(unit byte, pdu []byte) []byte {
	var w bytes.Buffer
	reply(&w, Frame{PDU: pdu})
	b, err := appendSerial(p.ascii, nil, unit, w.Bytes()[headerSize:])
	if err != nil {
		panic(err)
	}
	return b
}

func (p *peer) line(t testing.TB) *Line {
	cfg := LineConfig{Framing: RTU, Serial: &p.cfg}
	if p.ascii {
		cfg.Framing = ASCII
	}
	return newLine(t, cfg)
}

func eachFraming(t *testing.T, f func(t *testing.T, ascii bool)) {
	for _, ascii := range []bool{false, true} {
		t.Run(fmt.Sprintf("ascii=%v", ascii), func(t *testing.T) { f(t, ascii) })
	}
}

// TestSerialAnswers: the answer is found in whatever it comes with, and
// whatever is wrong is noticed; the next request, on the same port, is answered.
func TestSerialAnswers(t *testing.T) {
	broken := func(b []byte) []byte { b[len(b)-3] ^= 1; return b }
	for _, c := range []struct {
		name   string
		kind   error // nil: answered
		answer func(p *peer, unit byte, pdu []byte)
	}{
		{"byte by byte", nil, func(p *peer, unit byte, pdu []byte) {
			for _, b := range p.frame(unit, pdu) {
				p.Write([]byte{b})
			}
		}},
		{"in halves, a pause between", nil, func(p *peer, unit byte, pdu []byte) {
			b := p.frame(unit, pdu)
			p.Write(b[:len(b)/2])
			time.Sleep(20 * time.Millisecond) //sleep: the pause that is the test
			p.Write(b[len(b)/2:])
		}},
		{"noise before", nil, func(p *peer, unit byte, pdu []byte) { p.Write(append([]byte{0, 0xff, 0}, p.frame(unit, pdu)...)) }},
		{"noise behind", nil, func(p *peer, unit byte, pdu []byte) { p.Write(append(p.frame(unit, pdu), 0, 0xff, 0)) }},
		{"twice", nil, func(p *peer, unit byte, pdu []byte) { p.Write(append(p.frame(unit, pdu), p.frame(unit, pdu)...)) }},
		{"another unit's before", nil, func(p *peer, unit byte, pdu []byte) {
			p.Write(append(p.frame(unit+1, pdu), p.frame(unit, pdu)...))
		}},
		{"another unit's, then silence, then its own", nil, func(p *peer, unit byte, pdu []byte) {
			p.Write(p.frame(unit+1, pdu))
			time.Sleep(settleRTU + 50*time.Millisecond) //sleep: long enough to end the frame
			p.Write(p.frame(unit, pdu))
		}},
		{"silent", ErrTimeout, func(*peer, byte, []byte) {}},
		{"only another unit's", ErrTimeout, func(p *peer, unit byte, pdu []byte) { p.Write(p.frame(unit+1, pdu)) }},
		{"wrong checksum", ErrProtocol, func(p *peer, unit byte, pdu []byte) { p.Write(broken(p.frame(unit, pdu))) }},
		{"the last byte missing", ErrProtocol, func(p *peer, unit byte, pdu []byte) {
			b := p.frame(unit, pdu)
			p.Write(b[:len(b)-1])
		}},
		{"noise", ErrProtocol, func(p *peer, _ byte, _ []byte) { io.WriteString(p, "\x00\xff\x00 no answer \xff") }},
		{"much noise", ErrProtocol, func(p *peer, _ byte, _ []byte) { p.Write(bytes.Repeat([]byte("\x55"), 3*MaxASCII)) }},
		{"another function", ErrProtocol, func(p *peer, unit byte, pdu []byte) { p.Write(p.frame(unit, append([]byte{4}, pdu[1:]...))) }},
		{"less than was asked for", ErrProtocol, func(p *peer, unit byte, pdu []byte) {
			p.Write(p.frame(unit, []byte{pdu[0], pdu[1], pdu[2], 0, 1}))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			eachFraming(t, func(t *testing.T, ascii bool) {
				t.Parallel()
				var l *Line
				var got []byte
				var err error
				for range 4 { // a busy machine may make a pause in an answer long enough to end it
					p := newPeer(t, ascii, "", func(p *peer, nth int, unit byte, pdu []byte) {
						if nth == 0 {
							c.answer(p, unit, pdu)
							return
						}
						p.Write(p.frame(unit, pdu))
					})
					l = p.line(t)
					timeout := 10 * time.Second
					if c.kind == ErrTimeout {
						timeout = 500 * time.Millisecond
					}
					if got, err = l.Client(7, timeout).ReadHolding(t.Context(), 5, 2); err == nil || c.kind != nil {
						break
					}
				}
				client := l.Client(7, 10*time.Second)
				if c.kind == nil {
					wantRegister(t, got, err, 5)
				} else if !errors.Is(err, c.kind) || Unsent(err) || strings.Count(err.Error(), "modbus:") != 1 {
					t.Errorf("%v, want %v", err, c.kind)
				}
				got, err = client.ReadHolding(t.Context(), 6, 2)
				wantRegister(t, got, err, 6)
				if s := l.Stats(); s.Dials != 1 || s.Requests != 2 {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

// TestLateAnswers: an answer that comes after its time is never another's. The
// frames do not tell, so the next request that it would fit waits for it; other
// units and other requests do not.
func TestLateAnswers(t *testing.T) {
	eachFraming(t, func(t *testing.T, ascii bool) {
		const timeout = time.Second
		var late atomic.Bool // the first answer has been sent
		others := make(chan struct{})
		p := newPeer(t, ascii, "", func(p *peer, nth int, unit byte, pdu []byte) {
			b := p.frame(unit, pdu)
			switch nth {
			case 0:
				go func() { // ends with the test, which asks the others
					<-others
					time.Sleep(timeout / 10) //sleep: so that the last request is there first
					late.Store(true)
					p.Write(b)
				}()
				return
			case 3:
				if !late.Load() {
					t.Error("a request that the late answer fits did not wait for it")
				}
			}
			p.Write(b)
		})
		l := p.line(t)
		slow, other := l.Client(1, timeout), l.Client(2, timeout)
		began := time.Now()
		if _, err := slow.ReadHolding(t.Context(), 10, 1); !errors.Is(err, ErrTimeout) {
			t.Fatal(err)
		}
		got, err := other.ReadHolding(t.Context(), 20, 1) // another unit
		wantRegister(t, got, err, 20)
		got, err = slow.ReadHolding(t.Context(), 30, 2) // another length
		wantRegister(t, got, err, 30)
		if took := time.Since(began); took >= 2*timeout { // then the late one is given up
			t.Errorf("the others waited: %v", took)
		}
		close(others)
		got, err = slow.ReadHolding(t.Context(), 40, 1) // the late one would fit
		wantRegister(t, got, err, 40)
		if s := l.Stats(); s.Dials != 1 || s.Timeouts != 1 || s.Protocol != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// TestEcho: an adapter that hears what it sends.
func TestEcho(t *testing.T) {
	eachFraming(t, func(t *testing.T, ascii bool) {
		p := newPeer(t, ascii, "", func(p *peer, _ int, unit byte, pdu []byte) {
			echo, _ := appendSerial(ascii, nil, unit, pdu)
			p.Write(echo[:3])
			p.Write(echo[3:])
			if Function(pdu[0]).Writes() { // refused: the echo must not pass for the answer
				pdu = (&Exception{Function: Function(pdu[0]), Code: IllegalDataValue}).AppendTo(nil)
				b, _ := appendSerial(ascii, nil, unit, pdu)
				p.Write(b)
				return
			}
			p.Write(p.frame(unit, pdu))
		})
		c := p.line(t).Client(1, time.Second)
		for i := range uint16(3) {
			got, err := c.ReadHolding(t.Context(), i, 1)
			wantRegister(t, got, err, i)
			var e *Exception
			if err := c.WriteRegister(t.Context(), i, []byte{1, 2}); !errors.As(err, &e) || e.Code != IllegalDataValue {
				t.Errorf("write: %v", err)
			}
		}
	})
}

// TestGap: RTU frames keep their distance, 1.75 ms at 115200 baud and 3.5
// characters below; a pause that is longer counts instead.
func TestGap(t *testing.T) {
	for _, c := range []struct {
		baud  int
		pause time.Duration
		least time.Duration
	}{{115200, 0, fixedGap}, {1200, 0, 7 * 10 * time.Second / 1200 / 2}, {115200, 10 * time.Millisecond, 10 * time.Millisecond}} {
		p := newPeer(t, false, "", func(p *peer, _ int, unit byte, pdu []byte) { p.Write(p.frame(unit, pdu)) })
		p.cfg.Baud = c.baud
		if got := max(c.pause, Gap(p.cfg)); got != c.least {
			t.Errorf("%d baud: gap %v, want %v", c.baud, got, c.least)
		}
		l := newLine(t, LineConfig{Framing: RTU, Serial: &p.cfg, Pause: c.pause})
		var wg sync.WaitGroup
		for unit := range byte(4) { // who asks does not matter
			wg.Go(func() {
				for range 3 {
					if _, err := l.Client(unit+1, 5*time.Second).ReadHolding(t.Context(), 1, 1); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		p.mu.Lock()
		for i := 1; i < len(p.times); i++ {
			if rest := p.times[i].Sub(p.times[i-1]); rest < c.least {
				t.Errorf("%d baud: %v between requests, want %v", c.baud, rest, c.least)
			}
		}
		p.mu.Unlock()
	}
}

// TestPortComesBack: unplugged, requests fail at once as not sent; plugged in
// again under the same path, they are answered.
func TestPortComesBack(t *testing.T) {
	eachFraming(t, func(t *testing.T, ascii bool) {
		path := filepath.Join(t.TempDir(), "tty")
		honest := func(p *peer, _ int, unit byte, pdu []byte) { p.Write(p.frame(unit, pdu)) }
		p := newPeer(t, ascii, path, honest)
		l := p.line(t)
		c := l.Client(1, 20*time.Second) // what fails at once does not wait for that
		for range 3 {
			got, err := c.ReadHolding(t.Context(), 5, 1)
			for deadline := time.Now().Add(30 * time.Second); err != nil && time.Now().Before(deadline); {
				got, err = c.ReadHolding(t.Context(), 5, 1)
			}
			wantRegister(t, got, err, 5)
			p.unplug()
			os.Remove(path)
			if err := c.WriteRegister(t.Context(), 5, []byte{1, 2}); !errors.Is(err, ErrNotConnected) {
				t.Errorf("unplugged: %v", err)
			}
			began := time.Now()
			if err := c.WriteRegister(t.Context(), 5, []byte{1, 2}); !errors.Is(err, ErrNotConnected) || !Unsent(err) {
				t.Errorf("unplugged still: %v", err)
			} else if took := time.Since(began); took > 10*time.Second {
				t.Errorf("that took %v", took)
			}
			p = newPeer(t, ascii, path, honest)
		}
	})
}

// TestContextEndsOnALine: the caller gives up, the port stays.
func TestContextEndsOnALine(t *testing.T) {
	p := newPeer(t, false, "", func(p *peer, nth int, unit byte, pdu []byte) {
		if nth > 0 {
			p.Write(p.frame(unit, pdu))
		}
	})
	l := p.line(t)
	c := l.Client(1, 5*time.Second)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := c.ReadHolding(ctx, 1, 1); !errors.Is(err, ErrTimeout) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	got, err := c.ReadHolding(t.Context(), 1, 1)
	wantRegister(t, got, err, 1)
	if s := l.Stats(); s.Dials != 1 {
		t.Errorf("%+v", s)
	}
	l.Close()
	if _, err := c.ReadHolding(t.Context(), 1, 1); !errors.Is(err, ErrNotConnected) || !Unsent(err) {
		t.Errorf("closed: %v", err)
	}
}

// TestRTUOverTCP: a gateway that passes on whatever comes, and is asked anew
// after each failure.
func TestRTUOverTCP(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	far := peer{}
	wg.Go(func() {
		for nth := 0; ; nth++ {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				b := make([]byte, MaxRTU)
				for {
					n, err := c.Read(b)
					if err != nil {
						return
					}
					unit, pdu, err := ParseRTU(b[:n])
					if err != nil {
						return
					}
					answer := far.frame(unit, pdu)
					if nth == 0 {
						answer[3] ^= 1
					}
					c.Write(answer[:4])
					c.Write(answer[4:])
					c.Write([]byte("stale")) // nobody will have asked for it
				}
			})
		}
	})
	l := newLine(t, LineConfig{Framing: RTU, Address: ln.Addr().String()})
	c := l.Client(9, time.Second)
	if _, err := c.ReadHolding(t.Context(), 3, 1); !errors.Is(err, ErrProtocol) {
		t.Errorf("%v", err)
	}
	for i := range uint16(5) {
		got, err := c.ReadHolding(t.Context(), i, 1)
		wantRegister(t, got, err, i)
	}
	if s := l.Stats(); s.Dials != 2 || s.BytesOut != 5*8 || s.BytesIn != 5*7 {
		t.Errorf("%+v", s)
	}
}
