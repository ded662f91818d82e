package bulk

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/internal/faultproxy"
	"github.com/whimbrel-edge/whimbrel/models"
)

// soon is a life for tests.
var soon = life{ask: 200 * time.Millisecond, silent: 2 * time.Second}

// within fails the test when f has not returned in time.
func within(t *testing.T, d time.Duration, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { f(); close(done) }() // ends with the connection
	select {
	case <-done:
	case <-time.After(d):
		t.Fatalf("%s: not within %s", what, d)
	}
}

// TestBlackHole has packets vanish without anybody saying so: who reads, who writes
// and who waits for an answer is told, at both ends.
func TestBlackHole(t *testing.T) {
	ended := make(chan error, 8)
	var network *faultproxy.Proxy
	hub, edge := pairThrough(t, soon, func(addr string) string {
		network = faultproxy.New(t, addr)
		return network.Addr()
	}, map[string]Handler{
		"reads": func(_ context.Context, _ Header, s *Stream) error {
			if err := s.Accept(); err != nil {
				return err
			}
			_, err := io.Copy(io.Discard, s)
			ended <- err
			return err
		},
		"sticks": func(ctx context.Context, _ Header, s *Stream) error {
			if err := s.Accept(); err != nil {
				return err
			}
			<-ctx.Done()
			return ctx.Err()
		},
		"thinks": func(ctx context.Context, _ Header, _ *Stream) error {
			<-ctx.Done()
			return ctx.Err()
		},
	})
	reads, sticks, thinks := open(t, hub, "reads"), open(t, hub, "sticks"), open(t, hub, "thinks")
	for _, s := range []*Stream{reads, sticks, thinks} {
		defer s.Close()
	}
	if err := errors.Join(reads.Answered(), sticks.Answered()); err != nil {
		t.Fatal(err)
	}
	network.Set(faultproxy.Blackhole)
	began := time.Now()
	type end struct {
		what string
		err  error
	}
	ends := make(chan end, 4)
	for what, s := range map[string]*Stream{"who reads": reads, "who waits for an answer": thinks} {
		go func() { _, err := s.Read(make([]byte, 1)); ends <- end{what, err} }() // ends with the connection
	}
	go func() { // ends with the connection
		var err error
		for err == nil {
			_, err = sticks.Write(make([]byte, 32<<10))
		}
		ends <- end{"who writes", err}
	}()
	within(t, 30*time.Second, "everybody at the hub is told", func() {
		for range 3 {
			e := <-ends
			switch want := models.KindTimeout; {
			case e.what == "who waits for an answer" && models.KindOf(e.err) != models.KindUnavailable, e.what == "who reads" && models.KindOf(e.err) != want, e.err == nil:
				t.Errorf("%s: %v", e.what, e.err)
			}
		}
	})
	t.Logf("they are told after %s", time.Since(began).Round(time.Millisecond))
	within(t, 30*time.Second, "the edge is told", func() {
		if err := <-ended; models.KindOf(err) != models.KindTimeout {
			t.Errorf("who reads at the edge: %v", err) // not as if the hub had closed the stream
		}
		<-edge.Done()
		<-hub.Done()
	})
	if _, err := hub.Open(Header{Kind: "reads"}); err == nil {
		t.Error("opened to nowhere")
	}
}

// slowly carries what comes from addr at 40 kB/s at most, and the rest as it is.
func slowly(t *testing.T, addr string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); wait.Wait() })
	wait.Go(func() {
		edge, err := l.Accept()
		if err != nil {
			return
		}
		hub, err := net.Dial("tcp", addr)
		if err != nil {
			t.Error(err)
			return
		}
		both := func() { _ = edge.Close(); _ = hub.Close() }
		wait.Go(func() { _, _ = io.Copy(hub, edge); both() })
		defer both()
		for b := make([]byte, 1000); ; {
			n, err := hub.Read(b)
			if err == nil {
				time.Sleep(25 * time.Millisecond) //sleep: this is what a slow network does
				_, err = edge.Write(b[:n])
			}
			if err != nil {
				return
			}
		}
	})
	return l.Addr().String()
}

// TestSilenceAndSlowness has nothing said, and then much through a slow network with
// nothing to say in the other direction: both take longer than a connection may be
// silent.
func TestSilenceAndSlowness(t *testing.T) {
	var arrived atomic.Int64
	hub, edge := pairThrough(t, soon, func(addr string) string { return slowly(t, addr) }, map[string]Handler{"reads": func(_ context.Context, _ Header, s *Stream) error {
		if err := s.Accept(); err != nil {
			return err
		}
		for b := make([]byte, 1<<10); ; {
			n, err := s.Read(b)
			arrived.Add(int64(n))
			if err != nil {
				return err
			}
		}
	}})
	s := open(t, hub, "reads")
	defer s.Close()
	if err := s.Answered(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(3 * soon.silent / 2) //sleep: that nothing happens takes time
	if hub.Closed() || edge.Closed() {
		t.Fatal("it was closed though the other end lives")
	}
	began := time.Now()
	const size = 160 << 10
	for range size >> 11 {
		if _, err := s.Write(make([]byte, 2<<10)); err != nil {
			t.Fatal(err)
		}
	}
	for arrived.Load() < size {
		if hub.Closed() || edge.Closed() || time.Since(began) > time.Minute {
			t.Fatalf("after %s, %d of %d bytes are there", time.Since(began), arrived.Load(), size)
		}
		time.Sleep(5 * time.Millisecond) //sleep: between looks
	}
	if took := time.Since(began); took < 3*soon.silent/2 {
		t.Errorf("it took %s only", took)
	}
}
