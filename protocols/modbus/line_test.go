package modbus

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/goburrow/modbus"
)

// device is a server whose every answer the test writes itself.
type device struct {
	addr string
	ln   net.Listener
	wg   sync.WaitGroup
	mu   sync.Mutex
	seen []Request
	open map[net.Conn]bool
}

// newDevice starts a device; answer gets each request with the number of its
// connection, from 1, and returns false to hang up.
func newDevice(t testing.TB, answer func(c net.Conn, nth int, f Frame) bool) *device {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &device{addr: ln.Addr().String(), ln: ln, open: map[net.Conn]bool{}}
	d.wg.Go(func() {
		for nth := 1; ; nth++ {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			d.mu.Lock()
			d.open[c] = true
			d.mu.Unlock()
			d.wg.Go(func() {
				defer c.Close()
				var buf [MaxFrame]byte
				for {
					f, err := ReadFrame(c, &buf)
					if err != nil {
						return
					}
					r, _ := ParseRequest(bytes.Clone(f.PDU))
					d.mu.Lock()
					d.seen = append(d.seen, r)
					d.mu.Unlock()
					if !answer(c, nth, f) {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		d.hangUp()
		d.wg.Wait()
	})
	return d
}

func (d *device) hangUp() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for c := range d.open {
		c.Close()
		delete(d.open, c)
	}
}

func (d *device) requests() []Request {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]Request(nil), d.seen...)
}

// reply answers rightly; register n holds n.
func reply(w io.Writer, f Frame) {
	r, err := ParseRequest(f.PDU)
	var e *Exception
	switch {
	case errors.As(err, &e):
		f.PDU = e.AppendTo(nil)
	case r.Function.Table().Bits() || r.Function.Writes():
		f.PDU = answerTo(r)
	default:
		var data []byte
		for i := range r.Count {
			data = binary.BigEndian.AppendUint16(data, r.Address+i)
		}
		f.PDU = r.AppendRead(nil, data)
	}
	b, err := f.Append(nil)
	if err != nil {
		panic(err)
	}
	w.Write(b)
}

func honest(c net.Conn, _ int, f Frame) bool { reply(c, f); return true }

func newLine(t testing.TB, cfg LineConfig) *Line {
	l := NewLine(cfg)
	t.Cleanup(func() { l.Close() })
	return l
}

func wantRegister(t testing.TB, got []byte, err error, want uint16) {
	t.Helper()
	if err != nil || len(got) < 2 || binary.BigEndian.Uint16(got) != want {
		t.Fatalf("read % x, %v, want register %d", got, err, want)
	}
}

func TestClientAllFunctions(t *testing.T) {
	d := newDevice(t, honest)
	l := newLine(t, LineConfig{Address: d.addr})
	c := l.Client(3, time.Second)
	ctx := t.Context()
	for _, table := range []Table{Coil, Discrete, Input, Holding} {
		got, err := c.Read(ctx, table, 7, 20)
		want := 40
		if table.Bits() {
			want = 3
		}
		if err != nil || len(got) != want {
			t.Errorf("%v: % x, %v", table, got, err)
		}
	}
	for name, err := range map[string]error{
		"registers": c.WriteRegisters(ctx, 5, []byte{1, 2, 3, 4}),
		"register":  c.WriteRegister(ctx, 6, []byte{0xab, 0xcd}),
		"coil":      c.WriteCoil(ctx, 8, true),
		"coils":     c.WriteCoils(ctx, 9, []bool{true, false, true}),
	} {
		if err != nil {
			t.Errorf("write %s: %v", name, err)
		}
	}
	found := 0
	for _, r := range d.requests() {
		switch {
		case r.Function == WriteManyRegisters && r.Address == 5 && string(r.Data) == "\x01\x02\x03\x04",
			r.Function == WriteOneRegister && r.Address == 6 && string(r.Data) == "\xab\xcd",
			r.Function == WriteOneCoil && r.Address == 8 && string(r.Data) == "\x01",
			r.Function == WriteManyCoils && r.Address == 9 && r.Count == 3 && string(r.Data) == "\x05":
			found++
		}
	}
	if found != 4 {
		t.Errorf("%d of 4 writes arrived: %+v", found, d.requests())
	}
	s := l.Stats()
	if s.Requests != 8 || s.Answers != 8 || s.Dials != 1 || s.Errors() != 0 || s.BytesIn == 0 || s.BytesOut == 0 || s.MeanRTT() <= 0 || s.MaxRTT < s.MeanRTT() {
		t.Errorf("%+v", s)
	}
}

func TestClientRefusesBeforeSending(t *testing.T) {
	l := newLine(t, LineConfig{Address: "127.0.0.1:1"})
	c := l.Client(1, time.Second)
	ctx := t.Context()
	bad := map[string]error{
		"125 bytes":      c.WriteRegisters(ctx, 0, make([]byte, 125)),
		"124 registers":  c.WriteRegisters(ctx, 0, make([]byte, 248)),
		"no registers":   c.WriteRegisters(ctx, 0, nil),
		"three bytes":    c.WriteRegister(ctx, 0, make([]byte, 3)),
		"no coils":       c.WriteCoils(ctx, 0, nil),
		"too many coils": c.WriteCoils(ctx, 0, make([]bool, 1969)),
	}
	_, bad["126 registers"] = c.ReadHolding(ctx, 0, 126)
	_, bad["beyond the end"] = c.ReadInput(ctx, 65535, 2)
	_, bad["2001 coils"] = c.ReadCoils(ctx, 0, 2001)
	_, bad["0 inputs"] = c.ReadDiscrete(ctx, 0, 0)
	_, bad["no table"] = c.Read(ctx, 0, 0, 1)
	for name, err := range bad {
		if err == nil || errors.Is(err, ErrNotConnected) || !Unsent(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s := l.Stats(); s.Requests != 0 {
		t.Errorf("%+v", s)
	}
}

func TestExceptionKeepsConnection(t *testing.T) {
	d := newDevice(t, func(c net.Conn, _ int, f Frame) bool {
		if f.PDU[2] == 99 {
			f.PDU = []byte{f.PDU[0] | 0x80, 2}
			b, _ := f.Append(nil)
			c.Write(b)
			return true
		}
		reply(c, f)
		return true
	})
	l := newLine(t, LineConfig{Address: d.addr})
	c := l.Client(1, time.Second)
	_, err := c.ReadHolding(t.Context(), 99, 1)
	var e *Exception
	if !errors.As(err, &e) || e.Code != IllegalDataAddress || e.Function != ReadHolding {
		t.Fatalf("%v", err)
	}
	if want := "modbus: illegal data address (exception 2 to function 3)"; err.Error() != want {
		t.Errorf("%q, want %q", err, want)
	}
	got, err := c.ReadHolding(t.Context(), 5, 1)
	wantRegister(t, got, err, 5)
	if s := l.Stats(); s.Dials != 1 || s.Exceptions != 1 || s.Errors() != 1 || s.Answers != 2 {
		t.Errorf("%+v", s)
	}
}

// TestRecovers: after every way a device can misbehave the error is of the
// right kind, and the next request, on a new connection, is answered.
func TestRecovers(t *testing.T) {
	frame := func(f Frame, change func(b []byte) []byte) []byte {
		var w bytes.Buffer
		reply(&w, f)
		return change(w.Bytes())
	}
	cases := []struct {
		name   string
		kind   error
		answer func(c net.Conn, f Frame) bool
	}{
		{"silent", ErrTimeout, func(net.Conn, Frame) bool { return true }},
		{"hangs up", ErrNotConnected, func(net.Conn, Frame) bool { return false }},
		{"reset", ErrNotConnected, func(c net.Conn, _ Frame) bool {
			c.(*net.TCPConn).SetLinger(0)
			return false
		}},
		{"truncated and silent", ErrTimeout, func(c net.Conn, f Frame) bool {
			c.Write(frame(f, func(b []byte) []byte { return b[:len(b)-1] }))
			return true
		}},
		{"truncated and gone", ErrProtocol, func(c net.Conn, f Frame) bool {
			c.Write(frame(f, func(b []byte) []byte { return b[:5] }))
			return false
		}},
		{"garbage", ErrProtocol, func(c net.Conn, _ Frame) bool {
			io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
			return true
		}},
		{"future transaction", ErrProtocol, func(c net.Conn, f Frame) bool {
			c.Write(frame(f, func(b []byte) []byte { b[1]++; return b }))
			return true
		}},
		{"older transaction only", ErrTimeout, func(c net.Conn, f Frame) bool {
			c.Write(frame(f, func(b []byte) []byte { b[0], b[1] = 0xff, 0xf0; return b }))
			return true
		}},
		{"another unit", ErrProtocol, func(c net.Conn, f Frame) bool {
			c.Write(frame(f, func(b []byte) []byte { b[6] = 77; return b }))
			return true
		}},
		{"another function", ErrProtocol, func(c net.Conn, f Frame) bool {
			c.Write(frame(f, func(b []byte) []byte { b[7] = 4; return b }))
			return true
		}},
		{"refusal of another function", ErrProtocol, func(c net.Conn, f Frame) bool {
			f.PDU = []byte{0x84, 2}
			b, _ := f.Append(nil)
			c.Write(b)
			return true
		}},
		{"short success", ErrProtocol, func(c net.Conn, f Frame) bool {
			f.PDU = []byte{3, 2, 0, 5}
			b, _ := f.Append(nil)
			c.Write(b)
			return true
		}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			d := newDevice(t, func(c net.Conn, nth int, f Frame) bool {
				if nth == 1 {
					return tc.answer(c, f)
				}
				return honest(c, nth, f)
			})
			l := newLine(t, LineConfig{Address: d.addr})
			c := l.Client(1, 150*time.Millisecond)
			_, err := c.ReadHolding(t.Context(), 5, 2)
			if !errors.Is(err, tc.kind) {
				t.Fatalf("%v, want %v", err, tc.kind)
			}
			for _, other := range []error{ErrTimeout, ErrNotConnected, ErrProtocol, context.DeadlineExceeded, context.Canceled} {
				if other != tc.kind && errors.Is(err, other) {
					t.Errorf("%v is %v too", err, other)
				}
			}
			if Unsent(err) {
				t.Errorf("%v says that nothing was sent", err)
			}
			if !strings.HasPrefix(err.Error(), "modbus: "+tc.kind.Error()) || strings.Count(err.Error(), "modbus:") != 1 {
				t.Errorf("error reads %q", err)
			}
			got, err := c.ReadHolding(t.Context(), 5, 2)
			wantRegister(t, got, err, 5)
			s := l.Stats()
			if s.Requests != 2 || s.Dials != 2 || s.Errors() != 1 {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestNotConnected(t *testing.T) {
	d := newDevice(t, honest)
	d.ln.Close()
	c := newLine(t, LineConfig{Address: d.addr}).Client(1, time.Second)
	if _, err := c.ReadHolding(t.Context(), 0, 1); !errors.Is(err, ErrNotConnected) || !Unsent(err) {
		t.Errorf("refused: %v", err)
	}
	blocked := newLine(t, LineConfig{Address: "far", Dial: func(ctx context.Context, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, &net.OpError{Op: "dial", Err: ctx.Err()}
	}})
	_, err := blocked.Client(1, 20*time.Millisecond).ReadHolding(t.Context(), 0, 1)
	if !errors.Is(err, ErrNotConnected) || errors.Is(err, context.DeadlineExceeded) || !Unsent(err) {
		t.Errorf("a host that does not answer: %v", err)
	}
}

// TestOldAnswersAreDiscarded: a device that answers everything twice leaves the
// second answer in front of the next one.
func TestOldAnswersAreDiscarded(t *testing.T) {
	d := newDevice(t, func(c net.Conn, _ int, f Frame) bool {
		reply(c, f)
		reply(c, f)
		return true
	})
	l := newLine(t, LineConfig{Address: d.addr})
	a, b := l.Client(1, time.Second), l.Client(2, time.Second)
	for i := range uint16(50) {
		c := a
		if i%2 == 1 {
			c = b // units share the numbers
		}
		got, err := c.ReadInput(t.Context(), i, 1)
		wantRegister(t, got, err, i)
	}
	if s := l.Stats(); s.Dials != 1 {
		t.Errorf("%+v", s)
	}
}

func TestTransactionWraps(t *testing.T) {
	d := newDevice(t, func(c net.Conn, _ int, f Frame) bool {
		reply(c, f)
		reply(c, f)
		return true
	})
	l := newLine(t, LineConfig{Address: d.addr})
	l.framing.(*mbap).transaction = 0xfffd
	c := l.Client(1, time.Second)
	for i := range uint16(6) {
		got, err := c.ReadInput(t.Context(), i, 1)
		wantRegister(t, got, err, i)
	}
}

// TestSharedLine: many goroutines and units, one connection, every answer the
// asker's own.
func TestSharedLine(t *testing.T) {
	var busy atomic.Int32
	d := newDevice(t, func(c net.Conn, _ int, f Frame) bool {
		if busy.Add(1) > 1 {
			return false
		}
		defer busy.Add(-1)
		reply(c, f)
		return true
	})
	l := newLine(t, LineConfig{Address: d.addr})
	var wg sync.WaitGroup
	for g := range uint16(16) {
		wg.Go(func() {
			c := l.Client(byte(g%4), 2*time.Second)
			for i := range uint16(50) {
				addr := g*100 + i
				got, err := c.ReadHolding(t.Context(), addr, 3)
				if err != nil || binary.BigEndian.Uint16(got) != addr {
					t.Errorf("%d: % x, %v", addr, got, err)
				}
			}
		})
	}
	wg.Wait()
	if s := l.Stats(); s.Dials != 1 || s.Requests != 800 || s.Errors() != 0 {
		t.Errorf("%+v", s)
	}
}

func TestPause(t *testing.T) {
	d := newDevice(t, honest)
	l := newLine(t, LineConfig{Address: d.addr, Pause: 20 * time.Millisecond})
	c := l.Client(1, 10*time.Second)
	start := time.Now()
	for i := range uint16(4) {
		got, err := c.ReadHolding(t.Context(), i, 1)
		wantRegister(t, got, err, i)
	}
	if took := time.Since(start); took < 60*time.Millisecond {
		t.Errorf("4 requests took %v with a pause of 20ms", took)
	}
}

func TestContextEnds(t *testing.T) {
	asked := make(chan struct{}, 8)
	d := newDevice(t, func(c net.Conn, nth int, f Frame) bool {
		if nth == 3 {
			return honest(c, nth, f)
		}
		asked <- struct{}{}
		return true
	})
	l := newLine(t, LineConfig{Address: d.addr})
	c := l.Client(1, time.Minute)

	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() { _, err := c.ReadHolding(ctx, 0, 1); first <- err }()
	<-asked
	// The line is taken: whoever waits for it leaves with the context.
	waiting, stop := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer stop()
	if _, err := c.ReadHolding(waiting, 0, 1); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrTimeout) || !Unsent(err) {
		t.Errorf("waiting: %v", err)
	}
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	short, stop2 := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer stop2()
	if _, err := c.ReadHolding(short, 0, 1); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ErrTimeout) {
		t.Errorf("deadline of the caller: %v", err)
	}
	got, err := c.ReadHolding(t.Context(), 9, 1)
	wantRegister(t, got, err, 9)
	if _, err := c.ReadHolding(ctx, 0, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before: %v", err)
	}
}

// TestUrgentFirst: writes and urgent reads overtake reads that wait longer.
func TestUrgentFirst(t *testing.T) {
	gate := make(chan struct{})
	d := newDevice(t, func(c net.Conn, _ int, f Frame) bool {
		<-gate
		reply(c, f)
		return true
	})
	l := newLine(t, LineConfig{Address: d.addr})
	c := l.Client(1, 30*time.Second)
	var wg sync.WaitGroup
	waiting := func(queue, n int) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) { //sleep: between looks at a condition, with a deadline
			l.gate.mu.Lock()
			have := len(l.gate.queues[queue])
			l.gate.mu.Unlock()
			if have == n {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d wait in queue %d, want %d", have, queue, n)
			}
		}
	}
	ask := func(f func() error) {
		wg.Go(func() {
			if err := f(); err != nil {
				t.Error(err)
			}
		})
	}
	read := func(c *Client, addr uint16) func() error {
		return func() error { _, err := c.ReadHolding(t.Context(), addr, 1); return err }
	}
	ask(read(c, 100))
	for len(d.requests()) == 0 {
		time.Sleep(time.Millisecond) //sleep: between looks at a condition
	}
	for i := range 3 {
		ask(read(c, uint16(i)))
		waiting(1, i+1)
	}
	ask(func() error { return c.WriteCoil(t.Context(), 200, true) })
	waiting(0, 1)
	ask(read(c.Urgent(), 201))
	waiting(0, 2)
	close(gate)
	wg.Wait()
	var order []string
	for _, r := range d.requests() {
		order = append(order, fmt.Sprint(r.Address))
	}
	if got := strings.Join(order, " "); got != "100 200 201 0 1 2" {
		t.Errorf("order %s", got)
	}
}

func TestGateLetsReadsThrough(t *testing.T) {
	var g gate
	if err := g.lock(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	order := make(chan bool, 100)
	var wg sync.WaitGroup
	for i := range 60 {
		urgent := i != 0
		wg.Go(func() {
			if err := g.lock(t.Context(), urgent); err != nil {
				t.Error(err)
				return
			}
			order <- urgent
			g.unlock()
		})
	}
	for {
		g.mu.Lock()
		n := len(g.queues[0]) + len(g.queues[1])
		g.mu.Unlock()
		if n == 60 {
			break
		}
		time.Sleep(time.Millisecond) //sleep: between looks at a condition
	}
	g.unlock()
	wg.Wait()
	for i := range 60 {
		if urgent := <-order; !urgent {
			if i != maxUrgentRun {
				t.Errorf("the read came after %d urgent ones, want %d", i, maxUrgentRun)
			}
			return
		}
	}
}

func TestGateCancelRace(t *testing.T) {
	var g gate
	var wg sync.WaitGroup
	holders := 0
	for i := range 200 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i%20)*50*time.Microsecond)
			defer cancel()
			for range 20 {
				if g.lock(ctx, i%3 == 0) == nil {
					holders++ // the race detector tells if two are inside
					g.unlock()
				}
			}
		})
	}
	wg.Wait()
	if g.held || len(g.queues[0])+len(g.queues[1]) != 0 {
		t.Errorf("left behind: held %v, %d and %d waiting", g.held, len(g.queues[0]), len(g.queues[1]))
	}
}

// TestIdleHangUp: a device that restarts between two requests costs neither.
func TestIdleHangUp(t *testing.T) {
	d := newDevice(t, honest)
	l := newLine(t, LineConfig{Address: d.addr})
	c := l.Client(1, 500*time.Millisecond)
	got, err := c.ReadHolding(t.Context(), 1, 1)
	wantRegister(t, got, err, 1)
	d.hangUp()
	// Longer than idleCheck, and longer than the first request's deadline.
	time.Sleep(520 * time.Millisecond) //sleep: the device must have been idle for longer than idleCheck
	if err := c.WriteCoil(t.Context(), 2, true); err != nil {
		t.Errorf("write after the device hung up: %v", err)
	}
	time.Sleep(520 * time.Millisecond) //sleep: the device must have been idle for longer than idleCheck
	got, err = c.ReadHolding(t.Context(), 3, 1)
	wantRegister(t, got, err, 3)
	if s := l.Stats(); s.Dials != 2 || s.Errors() != 0 {
		t.Errorf("%+v", s)
	}
}

func TestClose(t *testing.T) {
	asked := make(chan struct{}, 1)
	d := newDevice(t, func(net.Conn, int, Frame) bool { asked <- struct{}{}; return true })
	l := newLine(t, LineConfig{Address: d.addr})
	c := l.Client(1, time.Minute)
	failed := make(chan error, 1)
	go func() { _, err := c.ReadHolding(t.Context(), 0, 1); failed <- err }()
	<-asked
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := <-failed; !errors.Is(err, ErrNotConnected) {
		t.Errorf("under way: %v", err)
	}
	if _, err := c.ReadHolding(t.Context(), 0, 1); !errors.Is(err, ErrNotConnected) {
		t.Errorf("afterwards: %v", err)
	}
}

// BenchmarkRead100 compares a Line with goburrow's own transport, against a
// server that does as little as it can.
func BenchmarkRead100(b *testing.B) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				var in [MaxFrame]byte
				answer := append(make([]byte, 7), append([]byte{3, 200}, make([]byte, 200)...)...)
				for {
					if _, err := io.ReadFull(c, in[:12]); err != nil {
						return
					}
					copy(answer, in[:7])
					binary.BigEndian.PutUint16(answer[4:], 203)
					c.Write(answer)
				}
			})
		}
	})
	defer wg.Wait()
	defer ln.Close()
	b.Run("line", func(b *testing.B) {
		l := NewLine(LineConfig{Address: ln.Addr().String()})
		defer l.Close()
		c := l.Client(1, time.Second)
		ctx := b.Context()
		b.ReportAllocs()
		for b.Loop() {
			if _, err := c.ReadHolding(ctx, 0, 100); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("goburrow", func(b *testing.B) {
		h := modbus.NewTCPClientHandler(ln.Addr().String())
		h.Timeout, h.IdleTimeout = time.Second, 0
		defer h.Close()
		c := modbus.NewClient(h)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := c.ReadHoldingRegisters(0, 100); err != nil {
				b.Fatal(err)
			}
		}
	})
}
