package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

// ask sends a frame to the edge.
func (h *fakeHub) ask(f *pb.Frame) {
	h.mu.Lock()
	conn := h.conn
	h.mu.Unlock()
	if err := conn.Send(context.Background(), f); err != nil {
		h.t.Error(err)
	}
}

func (h *fakeHub) request(id uint64, r *pb.Request) {
	h.ask(&pb.Frame{Id: id, Trace: "trace", Body: &pb.Frame_Request{Request: r}})
}

// answer waits for the final part of an answer and returns all parts.
func (h *fakeHub) answer(id uint64) (parts []string, err error) {
	h.t.Helper()
	var final *pb.Response
	eventually(h.t, "an answer", h.is(func() bool {
		parts = nil
		for _, f := range h.responses {
			if f.Re == id {
				parts = append(parts, string(f.GetResponse().Body))
				if f.GetResponse().Final {
					final = f.GetResponse()
				}
			}
		}
		return final != nil
	}))
	return parts, edgelink.ResponseErr(final)
}

func TestRequests(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	e := newEdge(t, h)
	type question struct{ Name string }
	var running, sent atomic.Int32
	hold := make(chan struct{})
	e.cfg.Handlers = map[string]Handler{
		"greet": Answer(func(_ context.Context, q question) (map[string]string, error) {
			if q.Name == "" {
				return nil, models.Invalid("/name", "is required")
			}
			return map[string]string{"hello": q.Name}, nil
		}),
		"count": func(ctx context.Context, r Request, part func([]byte) error) ([]byte, error) {
			if r.Trace != "trace" {
				return nil, errors.New("no trace")
			}
			for i := range 10 {
				if err := part(fmt.Append(nil, i)); err != nil {
					return nil, err
				}
				sent.Add(1)
			}
			return []byte("end"), nil
		},
		"wait": func(ctx context.Context, _ Request, _ func([]byte) error) ([]byte, error) {
			running.Add(1)
			defer running.Add(-1)
			select {
			case <-ctx.Done():
			case <-hold:
			}
			return nil, ctx.Err()
		},
		"panic": func(context.Context, Request, func([]byte) error) ([]byte, error) { panic("no") },
		"huge": func(context.Context, Request, func([]byte) error) ([]byte, error) {
			return bytes.Repeat([]byte("x"), edgelink.MaxPart+1), nil
		},
	}
	e.start()
	e.linked()
	h.set(func() {
		if got := h.hellos[0].Capabilities; !slices.Equal(got, []string{"routes", "secrets", "count", "greet", "huge", "panic", "wait"}) {
			t.Errorf("capabilities %v", got)
		}
	})
	eventually(t, "the session goes on", h.is(func() bool { return len(h.reports) > 0 }))

	for id, c := range []struct {
		method, body, want string
		kind               models.ErrorKind
	}{
		{"greet", `{"Name":"Ann","later":1}`, `{"hello":"Ann"}`, ""},
		{"greet", `{}`, "is required", models.KindInvalid},
		{"greet", `{`, "cannot be read", models.KindMalformed},
		{"dance", ``, "NotSupportedByNode", models.KindRefused},
		{"panic", ``, "internal error", models.KindInternal},
		{"huge", ``, "more than", models.KindTooLarge},
	} {
		h.request(uint64(id+1), &pb.Request{Method: c.method, Body: []byte(c.body)})
		parts, err := h.answer(uint64(id + 1))
		got := strings.Join(parts, " ")
		if err != nil {
			got = err.Error()
		}
		if models.KindOf(err) != c.kind || !strings.Contains(got, c.want) {
			t.Errorf("%s %s: %q of kind %q", c.method, c.body, got, models.KindOf(err))
		}
	}

	// Parts come as far as the credit goes.
	h.request(20, &pb.Request{Method: "count", Credit: 3})
	eventually(t, "three parts", func() bool { return sent.Load() == 3 })
	h.ask(&pb.Frame{Re: 20, Body: &pb.Frame_Credit{Credit: &pb.Credit{Parts: 7}}})
	if parts, err := h.answer(20); err != nil || strings.Join(parts, "") != "0123456789end" {
		t.Errorf("%v, %v", parts, err)
	}

	// Time is up; the request is withdrawn; there are too many.
	h.request(30, &pb.Request{Method: "wait", TimeoutMs: 10})
	if _, err := h.answer(30); models.KindOf(err) != models.KindTimeout {
		t.Error(err)
	}
	h.request(31, &pb.Request{Method: "wait"})
	eventually(t, "it is being answered", func() bool { return running.Load() == 1 })
	h.ask(&pb.Frame{Re: 31, Body: &pb.Frame_Cancel{Cancel: &pb.Cancel{}}})
	eventually(t, "it is given up", func() bool { return running.Load() == 0 })
	for i := range edgelink.MaxRequests {
		h.request(uint64(100+i), &pb.Request{Method: "wait"})
	}
	eventually(t, "all are being answered", func() bool { return running.Load() == edgelink.MaxRequests })
	h.request(200, &pb.Request{Method: "greet", Body: []byte(`{"Name":"Bob"}`)})
	if _, err := h.answer(200); models.KindOf(err) != models.KindTooMany {
		t.Error(err)
	}
	close(hold)
	h.answer(100)
	h.request(31, &pb.Request{Method: "greet", Body: []byte(`{"Name":"Bob"}`)})
	if parts, err := h.answer(31); err != nil || len(parts) != 1 {
		t.Errorf("%v, %v", parts, err)
	}
	if err := e.stop(); err != nil {
		t.Error(err)
	}
}

// What is asked ends with the link.
func TestRequestsEndWithTheLink(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	e := newEdge(t, h)
	var running atomic.Int32
	e.cfg.Handlers = map[string]Handler{"wait": func(ctx context.Context, _ Request, part func([]byte) error) ([]byte, error) {
		running.Add(1)
		defer running.Add(-1)
		return nil, part(nil) // there is no credit
	}}
	e.start()
	e.linked()
	eventually(t, "the session goes on", h.is(func() bool { return len(h.reports) > 0 }))
	for i := range 3 {
		h.request(uint64(i+1), &pb.Request{Method: "wait"})
	}
	eventually(t, "all are being answered", func() bool { return running.Load() == 3 })
	h.set(func() { _ = h.conn.CloseNow() })
	eventually(t, "they have ended", func() bool { return running.Load() == 0 })
	eventually(t, "the edge is back", h.is(func() bool { return len(h.hellos) == 2 }))
	if err := e.stop(); err != nil {
		t.Error(err)
	}
}
