package sessions_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/sessions"
	"github.com/whimbrel-edge/whimbrel/devicehub/sessions/sessionstest"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

// answering returns a link of an edge that can read on demand.
func answering(t *testing.T, h *hub) *sessionstest.Link {
	e := h.edge("g1")
	hello := e.Hello("E1")
	hello.Capabilities = []string{"teleport", edgelink.MethodRead}
	l := e.Connect(t, hello)
	if got := l.Welcome.Capabilities; len(got) != 1 || got[0] != edgelink.MethodRead {
		t.Errorf("the hub uses %v", got)
	}
	l.FullSync()
	return l
}

// asked returns the next request.
func asked(t *testing.T, l *sessionstest.Link) *pb.Frame {
	t.Helper()
	f := l.Next()
	if f.GetRequest() == nil {
		t.Fatalf("no request but %v", f)
	}
	return f
}

func respond(l *sessionstest.Link, id uint64, r *pb.Response) {
	l.Say(&pb.Frame{Re: id, Body: &pb.Frame_Response{Response: r}})
}

// question asks in the background.
func question(ctx context.Context, h *hub, part func([]byte) error) <-chan error {
	return questionOf(ctx, h, "a", part)
}

// questionOf asks for a property.
func questionOf(ctx context.Context, h *hub, property string, part func([]byte) error) <-chan error {
	done := make(chan error, 1)
	go func() { // ends with the answer, which every test awaits
		done <- h.sessions.Ask(ctx, "g1", sessions.Question{Method: edgelink.MethodRead, Trace: trace, Body: edgelink.ReadRequest{Device: "uid", Properties: []string{property}}}, part)
	}()
	return done
}

func TestAsk(t *testing.T) {
	h := start(t)
	l := answering(t, h)
	const limit = time.Minute // of a busy machine
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	var got bytes.Buffer
	take := func(p []byte) error { got.Write(p); return nil }

	// More parts than the credit, which therefore has to grow on the way.
	done := question(ctx, h, take)
	f := asked(t, l)
	req := f.GetRequest()
	if string(req.Body) != `{"device":"uid","properties":["a"]}` || f.Trace != trace || req.TimeoutMs == 0 || req.TimeoutMs >= uint32(limit.Milliseconds()) || req.Credit == 0 || f.Id == 0 {
		t.Errorf("asked %v", f)
	}
	credit := int(req.Credit)
	for i := range 3 * int(req.Credit) {
		for credit == 0 {
			c := l.Next()
			if c.GetCredit() == nil || c.Re != f.Id {
				t.Fatalf("no credit but %v", c)
			}
			credit += int(c.GetCredit().Parts)
		}
		credit--
		respond(l, f.Id, &pb.Response{Body: []byte{byte('a' + i)}})
	}
	respond(l, f.Id, edgelink.FinalResponse([]byte("."), nil))
	if err := <-done; err != nil || got.String() != "abcdefghijkl." {
		t.Fatalf("answered %q, %v", &got, err)
	}

	// The edge's own error, with its pointer.
	done = question(ctx, h, take)
	f = next(t, l)
	respond(l, f.Id, edgelink.FinalResponse(nil, models.Invalid("/properties/0", "there is no property a")))
	err := <-done
	refused(t, err, models.KindInvalid, "no property a")
	var e *models.Error
	if !errors.As(err, &e) || len(e.Fields) != 1 || e.Fields[0].Pointer != "/properties/0" {
		t.Errorf("%#v", err)
	}

	// Who asks goes away: the edge hears of it, and what it says all the same harms
	// nobody.
	leaving, leave := context.WithCancel(ctx)
	done = question(leaving, h, take)
	f = next(t, l)
	leave()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if c := l.Next(); c.GetCancel() == nil || c.Re != f.Id {
		t.Errorf("no cancellation but %v", c)
	}
	respond(l, f.Id, edgelink.FinalResponse([]byte("late"), nil))

	// One that cannot take any more of it.
	full := errors.New("full")
	done = question(ctx, h, func([]byte) error { return full })
	f = next(t, l)
	respond(l, f.Id, &pb.Response{Body: []byte("x")})
	if err := <-done; !errors.Is(err, full) {
		t.Error(err)
	}
	if c := l.Next(); c.GetCancel() == nil {
		t.Errorf("no cancellation but %v", c)
	}

	// Nothing comes.
	short, stop := context.WithTimeout(ctx, 20*time.Millisecond)
	defer stop()
	refused(t, <-question(short, h, take), models.KindTimeout, "g1 did not answer")

	// The link is lost.
	done = questionOf(ctx, h, "lost", take)
	for !bytes.Contains(next(t, l).GetRequest().Body, []byte("lost")) { // the one before may come late, or not at all
	}
	l.Drop()
	refused(t, <-done, models.KindUnavailable, "lost before it had answered")
	h.until("the node is gone", func() bool { return !h.sessions.Live("g1") })
	refused(t, <-question(ctx, h, take), models.KindUnavailable, "offline")
}

// next returns the next request, past credits and cancellations.
func next(t *testing.T, l *sessionstest.Link) *pb.Frame {
	t.Helper()
	for {
		f := l.Next()
		if f == nil {
			t.Fatal("the link has ended")
		}
		if f.GetRequest() != nil {
			return f
		}
	}
}

func TestAskTellsOldEdgesApart(t *testing.T) {
	h := start(t)
	e := h.edge("g1")
	l := e.Connect(t, e.Hello("E1"))
	l.FullSync()
	refused(t, <-question(t.Context(), h, nil), models.KindRefused, "NotSupportedByNode")
}

func TestAskIsBounded(t *testing.T) {
	h := start(t)
	l := answering(t, h)
	ctx, cancel := context.WithCancel(t.Context())
	var open []<-chan error
	for range edgelink.MaxRequests {
		open = append(open, question(ctx, h, nil))
		asked(t, l)
	}
	refused(t, <-question(ctx, h, nil), models.KindTooMany, "32 requests wait")
	huge := sessions.Question{Method: edgelink.MethodRead, Body: strings.Repeat("x", edgelink.MaxPart)}
	refused(t, h.sessions.Ask(ctx, "g1", huge, nil), models.KindTooLarge, "at most")
	cancel()
	for _, done := range open {
		<-done
	}
	for range open {
		if f := l.Next(); f.GetCancel() == nil {
			t.Fatalf("no cancellation but %v", f)
		}
	}
	done := question(t.Context(), h, nil)
	respond(l, asked(t, l).Id, edgelink.FinalResponse(nil, nil))
	if err := <-done; err != nil {
		t.Error(err)
	}

	// An edge that does not keep to the credit, or sends parts that are too large, is
	// sent away.
	for name, misbehave := range map[string]func(l *sessionstest.Link, id uint64){
		"too many": func(l *sessionstest.Link, id uint64) {
			for range 50 {
				if l.Send(t.Context(), &pb.Frame{Re: id, Body: &pb.Frame_Response{Response: &pb.Response{Body: []byte("x")}}}) != nil {
					return
				}
			}
		},
		"too large": func(l *sessionstest.Link, id uint64) {
			respond(l, id, &pb.Response{Body: bytes.Repeat([]byte("x"), edgelink.MaxPart+1)})
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := start(t)
			l := answering(t, h)
			block := make(chan struct{})
			done := question(t.Context(), h, func([]byte) error { <-block; return nil })
			misbehave(l, asked(t, l).Id)
			if bye := l.Ended(); bye != edgelink.GoodbyeProtocolError {
				t.Errorf("goodbye %q", bye)
			}
			close(block)
			if err := <-done; err == nil {
				t.Error("answered")
			}
		})
	}
}
