package bulk

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/whimbrel-edge/whimbrel/models"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair is a connection: what hub opens the handlers at the edge serve.
func pair(t *testing.T, handlers map[string]Handler) (hub, edge *Conn) {
	t.Helper()
	return pairThrough(t, usual, func(addr string) string { return addr }, handlers)
}

// pairThrough is a pair with a network between: of a hub's address it makes the one
// that the edge dials.
func pairThrough(t *testing.T, l life, network func(addr string) string, handlers map[string]Handler) (hub, edge *Conn) {
	t.Helper()
	accepted := make(chan *Conn, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := accept(w, r, l)
		if err != nil {
			t.Error(err)
		}
		accepted <- c
	}))
	t.Cleanup(server.Close)
	edge, err := dial(t.Context(), "http://"+network(server.Listener.Addr().String()), nil, "epoch", l)
	if err != nil {
		t.Fatal(err)
	}
	hub = <-accepted
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { done <- edge.Serve(ctx, handlers, slog.New(slog.NewTextHandler(t.Output(), nil))) }() // ends with cancel
	t.Cleanup(func() {
		cancel()
		<-done
		_ = hub.Close()
	})
	return hub, edge
}

func open(t *testing.T, c *Conn, kind string) *Stream {
	t.Helper()
	h, err := NewHeader(kind, "trace", map[string]string{"a": "b"})
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.Open(h)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// echo serves a stream with what comes on it.
func echo(_ context.Context, _ Header, s *Stream) error {
	if err := s.Accept(); err != nil {
		return err
	}
	_, err := io.Copy(s, s)
	return err
}

func TestStreams(t *testing.T) {
	gone := make(chan error, 1)
	hub, _ := pair(t, map[string]Handler{
		"echo": func(ctx context.Context, h Header, s *Stream) error {
			if h.Trace != "trace" || string(h.Body) != `{"a":"b"}` {
				return errors.New("another header")
			}
			return echo(ctx, h, s)
		},
		"no": func(context.Context, Header, *Stream) error {
			return models.Errorf(models.KindUnavailable, "nobody is in")
		},
		"panic": func(context.Context, Header, *Stream) error { panic("as planned") },
		"pour": func(_ context.Context, _ Header, s *Stream) error {
			if err := s.Accept(); err != nil {
				return err
			}
			go func() { _, _ = io.Copy(io.Discard, s); s.Abort() }() // ends with s
			_, err := io.Copy(s, rand.Reader)                        // blocks when nobody reads
			gone <- err
			return err
		},
	})
	t.Run("both ways", func(t *testing.T) {
		s := open(t, hub, "echo")
		defer s.Close()
		sent := make([]byte, 3<<20)
		_, _ = rand.Read(sent)
		go func() { _, _ = s.Write(sent) }() // ends with s
		got := make([]byte, len(sent))
		if _, err := io.ReadFull(s, got); err != nil || !bytes.Equal(got, sent) {
			t.Errorf("something else came back: %v", err)
		}
	})
	t.Run("refused", func(t *testing.T) {
		for kind, want := range map[string]string{"no": "nobody is in", "nix": "NotSupportedByNode", "panic": "lost"} {
			s := open(t, hub, kind)
			_, _ = s.Write([]byte("before the answer"))
			err := s.Answered()
			if err == nil || !strings.Contains(err.Error(), want) || models.KindOf(err) == models.KindInternal || s.Refusal() == nil {
				t.Errorf("%s: %v", kind, err)
			}
			_ = s.Close()
		}
	})
	t.Run("who waits and is not read is freed", func(t *testing.T) {
		s := open(t, hub, "pour")
		if err := s.Answered(); err != nil {
			t.Fatal(err)
		}
		other := open(t, hub, "echo") // is not held up
		if _, err := other.Write([]byte("x")); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadFull(other, make([]byte, 1)); err != nil {
			t.Error(err)
		}
		_ = other.Close()
		_ = s.Close()
		select {
		case err := <-gone:
			if err == nil {
				t.Error("it wrote for ever")
			}
		case <-time.After(10 * time.Second):
			t.Error("it still writes")
		}
	})
	t.Run("a deadline", func(t *testing.T) {
		s := open(t, hub, "echo")
		defer s.Close()
		if err := s.Answered(); err != nil {
			t.Fatal(err)
		}
		_ = s.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		var timeout net.Error
		if _, err := s.Read(make([]byte, 1)); !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("%v", err)
		}
	})
	t.Run("aborted", func(t *testing.T) {
		s := open(t, hub, "echo")
		defer s.Close()
		time.AfterFunc(10*time.Millisecond, s.Abort)
		if _, err := s.Read(make([]byte, 1)); err == nil {
			t.Error("read something")
		}
	})
	t.Run("too many", func(t *testing.T) {
		var all []*Stream
		for range MaxStreams {
			all = append(all, open(t, hub, "echo"))
		}
		if _, err := hub.Open(Header{Kind: "echo"}); models.KindOf(err) != models.KindTooMany {
			t.Errorf("%v", err)
		}
		for _, s := range all {
			_ = s.Close()
		}
		s, err := hub.Open(Header{Kind: "no"})
		if err != nil {
			t.Fatalf("and then: %v", err)
		}
		_ = s.Close()
	})
	t.Run("a header that is too long", func(t *testing.T) {
		if _, err := hub.Open(Header{Kind: strings.Repeat("x", MaxHeader)}); models.KindOf(err) != models.KindTooLarge {
			t.Errorf("%v", err)
		}
	})
}

func TestTheOtherEndGoes(t *testing.T) {
	hub, edge := pair(t, map[string]Handler{"wait": func(ctx context.Context, _ Header, s *Stream) error {
		if err := s.Accept(); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	}})
	accepted, unanswered := open(t, hub, "wait"), open(t, hub, "wait")
	if err := accepted.Answered(); err != nil {
		t.Fatal(err)
	}
	_ = edge.Close()
	if _, err := accepted.Read(make([]byte, 1)); err == nil {
		t.Error("read from nowhere")
	}
	if _, err := unanswered.Read(make([]byte, 1)); err == nil {
		t.Error("read from nowhere")
	}
	<-hub.Done()
	if _, err := hub.Open(Header{Kind: "wait"}); err == nil {
		t.Error("opened to nowhere")
	}
	_, _ = accepted.Close(), unanswered.Close()
}

func TestSplice(t *testing.T) {
	hub, _ := pair(t, map[string]Handler{"to": func(_ context.Context, _ Header, s *Stream) error {
		a, b := net.Pipe()
		go func() { // ends with its answer
			line := make([]byte, 4)
			_, _ = io.ReadFull(b, line)
			_, _ = b.Write(bytes.ToUpper(line))
			_ = b.Close()
		}()
		if err := s.Accept(); err != nil {
			return err
		}
		Splice(s, a)
		return nil
	}})
	s := open(t, hub, "to")
	defer s.Close()
	_, _ = s.Write([]byte("ping"))
	got, err := io.ReadAll(s)
	if string(got) != "PING" || err != nil {
		t.Errorf("%q %v", got, err)
	}
}

func FuzzHeader(f *testing.F) {
	var good bytes.Buffer
	_ = writePrefixed(&good, Header{Kind: "service", Body: []byte(`{"name":"web"}`)})
	f.Add(good.Bytes())
	f.Add([]byte{0, 0, 0, 2, '{', '}'})
	f.Add([]byte{255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		var h Header
		if readPrefixed(r, &h) != nil {
			return
		}
		if used := len(data) - r.Len(); used != 4+int(binary.BigEndian.Uint32(data)) {
			t.Errorf("%d bytes were read", used)
		}
		var b bytes.Buffer
		if err := writePrefixed(&b, h); err != nil {
			return // escapes make it longer
		}
		var again Header
		if err := readPrefixed(&b, &again); err != nil || again.Kind != h.Kind {
			t.Errorf("%v: %+v", err, again)
		}
	})
}
