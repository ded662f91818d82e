package sessions_test

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/sessions/sessionstest"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/bulk"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

// dialling is an edge that opens a second connection whenever it is asked to, and
// sends back what comes on its streams.
type dialling struct {
	*sessionstest.Edge
	t    *testing.T
	ctx  context.Context
	wait sync.WaitGroup

	mu    sync.Mutex
	conns []*bulk.Conn
}

func (d *dialling) dial() {
	conn, err := bulk.Dial(d.ctx, d.URL, d.TLS(), "E1")
	if err != nil {
		d.t.Errorf("second connection: %v", err)
		return
	}
	d.mu.Lock()
	d.conns = append(d.conns, conn)
	d.mu.Unlock()
	d.wait.Go(func() {
		_ = conn.Serve(d.ctx, map[string]bulk.Handler{"echo": func(_ context.Context, _ bulk.Header, s *bulk.Stream) error {
			if err := s.Accept(); err != nil {
				return err
			}
			_, err := io.Copy(s, s)
			return err
		}}, slog.New(slog.DiscardHandler))
	})
}

func (d *dialling) connections() []*bulk.Conn {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]*bulk.Conn(nil), d.conns...)
}

// echo opens a stream, and uses it once.
func echo(t *testing.T, h *hub) *bulk.Stream {
	t.Helper()
	s, err := h.sessions.Stream(t.Context(), "n1", bulk.Header{Kind: "echo"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	says(t, s)
	return s
}

func says(t *testing.T, s *bulk.Stream) {
	t.Helper()
	got := make([]byte, 5)
	if _, err := s.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(s, got); err != nil || string(got) != "hello" {
		t.Fatalf("%q %v", got, err)
	}
}

// TestSecondConnection has one closed when nobody uses it, opened again, and replaced
// while it is used.
func TestSecondConnection(t *testing.T) {
	h := start(t)
	h.stop()
	h.secondIdle = 300 * time.Millisecond
	h.open()
	ctx, cancel := context.WithCancel(context.Background())
	d := &dialling{Edge: h.edge("n1"), t: t, ctx: ctx}
	hello := d.Hello("E1")
	hello.Capabilities = []string{edgelink.MethodBulk}
	l := d.Connect(t, hello)
	d.wait.Go(func() {
		for f := l.Await(ctx); f != nil; f = l.Await(ctx) {
			if f.GetRequest().GetMethod() == edgelink.MethodBulk {
				d.dial()
				l.Say(&pb.Frame{Re: f.Id, Body: &pb.Frame_Response{Response: &pb.Response{Final: true}}})
			}
		}
	})
	t.Cleanup(func() { cancel(); l.Drop(); d.wait.Wait() })

	used := echo(t, h)
	first := d.connections()[0]
	time.Sleep(2 * h.secondIdle) //sleep: that it is not closed takes time
	says(t, used)
	again := echo(t, h)
	if n := len(d.connections()); n != 1 {
		t.Errorf("%d connections, though one was open", n)
	}
	_ = used.Close()
	_ = again.Close()
	closed := func(c *bulk.Conn) {
		t.Helper()
		select {
		case <-c.Done():
		case <-time.After(20 * time.Second):
			t.Fatal("it is kept")
		}
	}
	closed(first) // nobody uses it

	// It is opened again, and replaced by one that the edge dials as it has lost that.
	used = echo(t, h)
	second := d.connections()[1]
	d.dial()
	closed(second)
	if _, err := used.Read(make([]byte, 1)); models.KindOf(err) != models.KindTimeout {
		t.Errorf("a stream of the one before: %v", err)
	}
	echo(t, h)
	if n := len(d.connections()); n != 3 {
		t.Errorf("%d connections", n)
	}
}
