package edgelink

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/klauspost/compress/zstd"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// hub serves the link; each accepted link goes to links.
func hub(t *testing.T) (url string, links <-chan *Conn) {
	t.Helper()
	accepted := make(chan *Conn, 1)
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+PathLink, func(w http.ResponseWriter, r *http.Request) {
		c, err := Accept(w, r)
		if err != nil {
			t.Logf("accept: %v", err)
			return
		}
		accepted <- c
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL, accepted
}

// pair returns both ends of a link.
func pair(t *testing.T) (edge, hubEnd *Conn) {
	t.Helper()
	url, links := hub(t)
	edge, err := Dial(t.Context(), url, nil)
	if err != nil {
		t.Fatal(err)
	}
	hubEnd = <-links
	t.Cleanup(func() { edge.CloseNow(); hubEnd.CloseNow() })
	return edge, hubEnd
}

func batch(seq uint64, record []byte) *pb.Frame {
	return &pb.Frame{Body: &pb.Frame_Batch{Batch: &pb.Batch{Epoch: "E", Records: []*pb.Numbered{{Seq: seq, Record: record}}}}}
}

func TestFramesGoThrough(t *testing.T) {
	edge, hubEnd := pair(t)
	noise := make([]byte, 300_000)
	rand.Read(noise)
	for name, record := range map[string][]byte{"empty": nil, "small": []byte("abc"), "packed": bytes.Repeat([]byte("abc"), 1<<20), "noise": noise} {
		want := batch(7, record)
		sent := make(chan error)
		go func() { sent <- edge.Send(t.Context(), want) }()
		got, err := hubEnd.Recv(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(got, want) {
			t.Errorf("%s: another frame arrived", name)
		}
	}
}

func TestSendFromManyGoroutines(t *testing.T) {
	edge, hubEnd := pair(t)
	const senders, each = 8, 50
	var all sync.WaitGroup
	for s := range senders {
		all.Go(func() {
			for i := range each {
				if err := hubEnd.Send(t.Context(), batch(uint64(s*each+i), bytes.Repeat([]byte{byte(i)}, i*100))); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	seen := map[uint64]bool{}
	next := [senders]int{}
	for range senders * each {
		f, err := edge.Recv(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		n := f.GetBatch().Records[0]
		s, i := int(n.Seq)/each, int(n.Seq)%each
		if seen[n.Seq] || i != next[s] || len(n.Record) != i*100 {
			t.Fatalf("sender %d: frame %d of %d bytes", s, i, len(n.Record))
		}
		seen[n.Seq] = true
		next[s]++
	}
	all.Wait()
}

func TestMalformedMessages(t *testing.T) {
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer encoder.Close()
	bomb := encoder.EncodeAll(make([]byte, MaxMessage+1), []byte{packedZstd})
	var streamed bytes.Buffer // says no size in its header
	streamed.WriteByte(packedZstd)
	w, err := zstd.NewWriter(&streamed)
	if err != nil {
		t.Fatal(err)
	}
	for range 64 {
		if _, err := w.Write(make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	body := []byte{17<<3&0x7f | 2 | 0x80, 1, 0} // an empty report
	tests := map[string][]byte{
		"empty":         {},
		"too long":      make([]byte, MaxMessage+1),
		"unknown pack":  {2, 0},
		"not zstd":      {packedZstd, 1, 2, 3},
		"not protobuf":  {packedRaw, 0xff},
		"cut":           {packedRaw, 10<<3 | 2, 5, 1},
		"bomb":          bomb,
		"streamed bomb": streamed.Bytes(),
		"many fields":   append([]byte{packedRaw}, bytes.Repeat(body, maxFrameFields+1)...),
		"many seen":     protowire.AppendBytes(protowire.AppendTag([]byte{packedRaw}, 17, protowire.BytesType), bytes.Repeat([]byte{6<<3 | 2, 0}, maxFrameFields+1)),
	}
	for name, message := range tests {
		if f, err := DecodeFrame(message); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %.100v, %v", name, f, err)
		}
	}

	// Over a link, and the link stays.
	url, links := hub(t)
	ws, _, err := websocket.Dial(t.Context(), url+PathLink, &websocket.DialOptions{Subprotocols: []string{Subprotocol}})
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	c := <-links
	defer c.CloseNow()
	for _, m := range []struct {
		kind websocket.MessageType
		data string
	}{{websocket.MessageBinary, "\x02"}, {websocket.MessageText, "{}"}} {
		if err := ws.Write(t.Context(), m.kind, []byte(m.data)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Recv(t.Context()); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: %v", m.data, err)
		}
	}
	good, err := AppendFrame(nil, batch(1, nil))
	if err != nil {
		t.Fatal(err)
	}
	if err := ws.Write(t.Context(), websocket.MessageBinary, good); err != nil {
		t.Fatal(err)
	}
	if f, err := c.Recv(t.Context()); err != nil || f.GetBatch() == nil {
		t.Errorf("after malformed messages: %v, %v", f, err)
	}
}

// TestUnknownFrame: what a later release sends is no error.
func TestUnknownFrame(t *testing.T) {
	f, err := DecodeFrame([]byte{packedRaw, 1 << 3, 5, 99<<3&0x7f | 2 | 0x80, 6, 1, 'x'})
	if err != nil {
		t.Fatal(err)
	}
	if f.Id != 5 || f.Body != nil {
		t.Errorf("got %v", f)
	}
}

func TestFrameTooLong(t *testing.T) {
	edge, _ := pair(t)
	if err := edge.Send(t.Context(), batch(1, make([]byte, MaxMessage))); err == nil {
		t.Error("sent more than a message may hold")
	}
}

func TestPingAndClose(t *testing.T) {
	edge, hubEnd := pair(t)
	ended := make(chan error)
	go func() {
		_, err := hubEnd.Recv(context.Background())
		ended <- err
	}()
	received := make(chan error)
	go func() {
		_, err := edge.Recv(context.Background())
		received <- err
	}()
	if err := edge.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := hubEnd.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := edge.Close(strings.Repeat("because ", 40)); err != nil {
		t.Fatal(err)
	}
	if reason, ok := ClosedBy(<-ended); !ok || !strings.HasPrefix(reason, "because because") {
		t.Errorf("the hub heard %q, %v", reason, ok)
	}
	<-received
	if _, ok := ClosedBy(errors.New("other")); ok {
		t.Error("any error counts as a close")
	}
}

// TestSendDoesNotDieWithItsContext: a caller that gives up while another message
// is on its way must not cut the link.
func TestSendDoesNotDieWithItsContext(t *testing.T) {
	edge, hubEnd := pair(t)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := edge.Send(gone, batch(1, nil)); !errors.Is(err, context.Canceled) {
		t.Errorf("send: %v", err)
	}
	if err := edge.Send(t.Context(), batch(2, nil)); err != nil {
		t.Fatal(err)
	}
	if f, err := hubEnd.Recv(t.Context()); err != nil || f.GetBatch().Records[0].Seq != 2 {
		t.Errorf("%v, %v", f, err)
	}
}

func TestDialRefused(t *testing.T) {
	answer := func(status int, body string) string {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if status == http.StatusFound {
				w.Header().Set("Location", "http://127.0.0.1:1/elsewhere")
			}
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		}))
		t.Cleanup(server.Close)
		return server.URL
	}
	for _, test := range []struct {
		status int
		body   string
		detail string
	}{
		{403, `{"title":"Forbidden","status":403,"detail":"node gateway-1 is gone"}`, "node gateway-1 is gone"},
		{502, "bad gateway\n", "bad gateway"},
		{302, "", ""},
		{200, "a web page", "a web page"},
	} {
		_, err := Dial(t.Context(), answer(test.status, test.body), nil)
		var refused *RefusedError
		if !errors.As(err, &refused) || refused.Status != test.status || refused.Detail != test.detail {
			t.Errorf("%d: %v", test.status, err)
		}
	}

	// One that speaks WebSocket, but not this.
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ws, err := websocket.Accept(w, r, nil); err == nil {
			ws.Close(websocket.StatusNormalClosure, "")
		}
	}))
	defer server.Close()
	var refused *RefusedError
	if _, err := Dial(t.Context(), server.URL, nil); !errors.As(err, &refused) {
		t.Errorf("another protocol: %v", err)
	}
	url, _ := hub(t)
	if ws, _, err := websocket.Dial(t.Context(), url+PathLink, nil); err == nil {
		if _, _, err := ws.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
			t.Errorf("a client of another protocol: %v", err)
		}
		ws.CloseNow()
	}

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	server.Close()
	if _, err := Dial(ctx, server.URL, nil); err == nil || errors.As(err, &refused) && refused.Status == 0 {
		t.Errorf("nobody there: %v", err)
	}
}

func FuzzDecodeFrame(f *testing.F) {
	for _, frame := range goldenFrames() {
		message, err := AppendFrame(nil, frame)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(message)
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		first, err := DecodeFrame(message)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("not a malformed message: %v", err)
			}
			return
		}
		again, err := AppendFrame(nil, first)
		if err != nil {
			return // unknown fields may make it too long
		}
		second, err := DecodeFrame(again)
		if err != nil {
			t.Fatal(err)
		}
		a, err := first.MarshalVT()
		if err != nil {
			t.Fatal(err)
		}
		b, err := second.MarshalVT()
		if err != nil {
			t.Fatal(err)
		}
		// A map of labels has no order, so compare what is meant where bytes differ.
		if !bytes.Equal(a, b) && !proto.Equal(first, second) {
			t.Fatal("decoding and encoding changed the frame")
		}
	})
}
