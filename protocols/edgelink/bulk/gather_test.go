package bulk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"
)

// counting counts Writes.
type counting struct {
	net.Conn
	writes atomic.Int64
}

func (c *counting) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

func TestGather(t *testing.T) {
	a, b := net.Pipe() // a Write waits for the Read of it
	under := &counting{Conn: a}
	g := gather(under, nil)
	const n = 5000
	done := make(chan error, 1)
	go func() { // ends with its writes
		for i := range n {
			if _, err := g.Write(binary.BigEndian.AppendUint32(nil, uint32(i))); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	got := make([]byte, 4*n)
	if _, err := io.ReadFull(b, got); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if v := binary.BigEndian.Uint32(got[4*i:]); v != uint32(i) {
			t.Fatalf("%d comes as number %d", v, i)
		}
	}
	if w := under.writes.Load(); w > n/2 {
		t.Errorf("%d Writes became %d", n, w)
	}

	// Nobody reads: it takes as much as it may, and is freed by Close.
	blocked := make(chan error, 1)
	go func() { // ends with Close
		var err error
		sent := 0
		for ; err == nil; sent += 1 << 10 {
			_, err = g.Write(bytes.Repeat([]byte("x"), 1<<10))
		}
		if sent > 4*maxGathered {
			err = errors.New("it took more than its bound")
		}
		blocked <- err
	}()
	select {
	case err := <-blocked:
		t.Fatalf("it took everything: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	_ = g.Close()
	if err := <-blocked; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}

	// What cannot be written is told to who writes next.
	a, b = net.Pipe()
	_ = b.Close()
	g = gather(a, nil)
	defer g.Close()
	_, _ = g.Write([]byte("x"))
	<-g.done
	if _, err := g.Write([]byte("y")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("%v", err)
	}
}

func TestTurns(t *testing.T) {
	hub, _ := pair(t, map[string]Handler{KindService: echo, "logs": echo})
	hub.turn = 20 * time.Millisecond
	service := Header{Kind: KindService}
	var all []*Stream
	for range MaxServices {
		s, err := hub.OpenService(t.Context(), service)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	_, err := hub.OpenService(t.Context(), service)
	var later interface{ RetryAfter() time.Duration }
	if !errors.As(err, &later) || later.RetryAfter() <= 0 {
		t.Errorf("one too many: %v", err)
	}
	other := open(t, hub, "logs") // has room of its own
	if err := other.Answered(); err != nil {
		t.Error(err)
	}
	_ = other.Close()
	// One that waits comes when another one has gone.
	hub.turn = 10 * time.Second
	time.AfterFunc(10*time.Millisecond, func() { _ = all[0].Close(); _ = all[0].Close() })
	s, err := hub.OpenService(t.Context(), service)
	if err != nil {
		t.Fatal(err)
	}
	// And only one of them.
	hub.turn = 20 * time.Millisecond
	if _, err := hub.OpenService(t.Context(), service); !errors.As(err, &later) {
		t.Errorf("one too many again: %v", err)
	}
	hub.turn = 10 * time.Second
	waiting := make(chan error, 1)
	go func() { _, err := hub.OpenService(t.Context(), service); waiting <- err }() // ends with the connection
	_ = hub.Close()
	if err := <-waiting; err == nil {
		t.Error("opened on what is closed")
	}
	for _, s := range append(all, s) {
		_ = s.Close()
	}
}
