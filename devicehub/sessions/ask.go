package sessions

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

// askCredit is how many parts of an answer may wait for whoever asked: with
// the final one, what one question may take of the hub's memory.
const askCredit = 4

// wayBack is what is kept of the time of a question for its answer to arrive: what
// the edge says of a device that is late tells more than that nothing came.
const wayBack = 250 * time.Millisecond

// Question is what a node is asked.
type Question struct {
	Method string // one of edgelink's
	Body   any    // as JSON
	Trace  string // traceparent of whoever asks
}

// Ask asks a node, now, and calls part with each part of its answer, in order,
// from the caller's goroutine. It returns when the answer is complete. An error
// of part ends it and is returned.
//
// A node that is offline, or whose link is lost meanwhile, is KindUnavailable at
// once, one that is of a release without the method KindRefused
// (NotSupportedByNode), one that is asked too much at a time KindTooMany, the
// end of ctx's time KindTimeout. Other errors are the edge's own.
func (m *Manager) Ask(ctx context.Context, node string, q Question, part func(body []byte) error) error {
	m.mu.Lock()
	s := m.sessions[node]
	m.mu.Unlock()
	if s == nil {
		return models.Errorf(models.KindUnavailable, "node %s is offline", node)
	}
	body, err := json.Marshal(q.Body)
	if err != nil {
		return fmt.Errorf("ask %s: %w", q.Method, err)
	}
	if len(body) > edgelink.MaxPart {
		return models.Errorf(models.KindTooLarge, "the request to node %s has %d bytes, at most %d are allowed", node, len(body), edgelink.MaxPart)
	}
	if !slices.Contains(s.asks.methods, q.Method) {
		return models.Errorf(models.KindRefused, "NotSupportedByNode: the edge of node %s is of a release that cannot do this (%s); update it", node, q.Method)
	}
	req := &pb.Request{Method: q.Method, Body: body, Credit: askCredit}
	if end, ok := ctx.Deadline(); ok {
		left := time.Until(end)
		req.TimeoutMs = uint32(max(left-min(wayBack, left/4), time.Millisecond).Milliseconds())
	}
	id, answer, err := s.asks.open(q.Trace, req)
	if err != nil {
		return models.Errorf(models.KindTooMany, "node %s: %v", node, err)
	}
	defer s.asks.close(id)
	consumed := uint32(0)
	for {
		var r *pb.Response
		select {
		case r = <-answer:
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return models.Errorf(models.KindTimeout, "node %s did not answer in time", node)
			}
			return context.Cause(ctx)
		case <-s.done:
			select {
			case r = <-answer:
			default:
				return models.Errorf(models.KindUnavailable, "the link to node %s was lost before it had answered", node)
			}
		}
		if err := edgelink.ResponseErr(r); err != nil {
			return err
		}
		if !r.Final || len(r.Body) > 0 {
			if err := part(r.Body); err != nil {
				return err
			}
		}
		if r.Final {
			return nil
		}
		if consumed++; consumed == askCredit/2 {
			s.asks.say(&pb.Frame{Re: id, Body: &pb.Frame_Credit{Credit: &pb.Credit{Parts: consumed}}})
			consumed = 0
		}
	}
}

// AskOne asks a node for an answer of one part, which is decoded into answer.
func (m *Manager) AskOne(ctx context.Context, node string, q Question, answer any) error {
	return m.Ask(ctx, node, q, func(body []byte) error {
		if err := json.Unmarshal(body, answer); err != nil {
			return fmt.Errorf("the answer of node %s to %s: %w", node, q.Method, err)
		}
		return nil
	})
}

// asks are the questions that wait for a node's answer, at most
// edgelink.MaxRequests.
type asks struct {
	methods []string      // that the node answers
	wake    chan struct{} // one slot: out has something

	mu   sync.Mutex
	last uint64                       // id given out
	wait map[uint64]chan *pb.Response // by id, each with room for all that the credit allows
	// out is what is to be sent. Nobody waits for a slow network but the loop that
	// sends. A question has at most itself, its cancellation and, as long as parts
	// come, two credits in it.
	out []*pb.Frame
}

func newAsks(capabilities []string) *asks {
	a := &asks{wake: make(chan struct{}, 1), wait: map[uint64]chan *pb.Response{}}
	for _, m := range edgelink.Methods() {
		if slices.Contains(capabilities, m) {
			a.methods = append(a.methods, m)
		}
	}
	return a
}

func (a *asks) open(trace string, req *pb.Request) (id uint64, answer <-chan *pb.Response, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.wait) >= edgelink.MaxRequests {
		return 0, nil, fmt.Errorf("%d requests wait for its answer already", len(a.wait))
	}
	a.last++
	c := make(chan *pb.Response, askCredit+1)
	a.wait[a.last] = c
	a.sayLocked(&pb.Frame{Id: a.last, Trace: trace, Body: &pb.Frame_Request{Request: req}})
	return a.last, c, nil
}

// close ends a question. The edge is told when the answer is not complete.
func (a *asks) close(id uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.wait[id] == nil {
		return
	}
	delete(a.wait, id)
	at := slices.IndexFunc(a.out, func(f *pb.Frame) bool { return f.Id == id && f.GetRequest() != nil })
	if at >= 0 {
		a.out = slices.Delete(a.out, at, at+1) // never sent
		return
	}
	a.sayLocked(&pb.Frame{Re: id, Body: &pb.Frame_Cancel{Cancel: &pb.Cancel{}}})
}

func (a *asks) say(f *pb.Frame) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sayLocked(f)
}

func (a *asks) sayLocked(f *pb.Frame) {
	a.out = append(a.out, f)
	signal(a.wake)
}

// take hands a part of an answer to whoever asked. One that nobody waits for
// has crossed its cancellation.
func (a *asks) take(id uint64, r *pb.Response) error {
	if len(r.Body) > edgelink.MaxPart || len(r.Problem) > edgelink.MaxPart {
		return fmt.Errorf("%w: part of an answer with %d bytes, more than %d", edgelink.ErrMalformed, max(len(r.Body), len(r.Problem)), edgelink.MaxPart)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.wait[id]
	if c == nil {
		return nil
	}
	if r.Final {
		delete(a.wait, id)
	}
	select {
	case c <- r:
		return nil
	default:
		return fmt.Errorf("%w: more parts of an answer than were asked for", edgelink.ErrMalformed)
	}
}

// ask sends what is to be asked.
func (s *session) ask(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.asks.wake:
		}
		s.asks.mu.Lock()
		out := s.asks.out
		s.asks.out = nil
		s.asks.mu.Unlock()
		for _, f := range out {
			if err := s.conn.Send(ctx, f); err != nil {
				return err
			}
		}
	}
}
