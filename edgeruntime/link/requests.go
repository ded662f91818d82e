package link

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

// Request is what the hub asks.
type Request struct {
	Body  []byte // JSON, as the method has it
	Trace string // traceparent of whoever asks, "" for none
}

// Handler answers the requests of one method. It runs in a goroutine of its
// own, several at a time, and must return soon after ctx ends: when the hub has
// no use for the answer any more, its time is up, or the link is lost.
//
// part sends a part of an answer that is long, of at most edgelink.MaxPart
// bytes; it blocks while the hub has enough to do with those before, and fails
// when there is no use in going on. What the handler returns is sent last.
// Errors are *models.Error; of others the hub learns no more than that there was
// one.
type Handler func(ctx context.Context, r Request, part func(body []byte) error) (last []byte, err error)

// Answer makes a Handler of a function whose answer is one part. What a newer
// hub asks beside what Q has is not seen.
func Answer[Q, A any](f func(ctx context.Context, q Q) (A, error)) Handler {
	return func(ctx context.Context, r Request, _ func([]byte) error) ([]byte, error) {
		var q Q
		if err := json.Unmarshal(r.Body, &q); err != nil {
			return nil, models.Errorf(models.KindMalformed, "the hub's request cannot be read: %v", err)
		}
		a, err := f(ctx, q)
		if err != nil {
			return nil, err
		}
		return json.Marshal(a)
	}
}

// capabilities are what the hello names: the methods are among them, so that a
// hub can tell an edge that does not have one from a request that fails.
func (c *Config) capabilities() []string {
	all := slices.Concat(edgelink.Capabilities(), slices.Sorted(maps.Keys(c.Handlers)))
	if c.Streams != nil {
		all = append(all, edgelink.MethodBulk, edgelink.CapabilityServicePod)
	}
	if c.Pods != nil {
		all = append(all, edgelink.CapabilityWorkloads)
	}
	return all
}

// requests are those of one session that are being answered. There are at most
// edgelink.MaxRequests: more are refused, not queued. A hub that goes on
// asking then breaks the rules.
type requests struct {
	ctx  context.Context // of the handlers; ends with the session
	stop context.CancelFunc
	wait *sync.WaitGroup

	mu      *sync.Mutex
	running map[uint64]*running // by the request's id
}

// running is one request that is being answered.
type running struct {
	cancel context.CancelFunc
	more   chan struct{} // one slot: credit has grown

	credit int // under requests.mu
}

// maxRefusals bounds the requests whose refusal has not been sent yet, and those
// that the hub has given up and that have not ended yet.
const maxRefusals = 4 * edgelink.MaxRequests

func newRequests() requests {
	ctx, stop := context.WithCancel(context.Background())
	return requests{ctx: ctx, stop: stop, wait: new(sync.WaitGroup), mu: new(sync.Mutex), running: map[uint64]*running{}}
}

// end ends all handlers and waits for them.
func (q *requests) end() {
	q.stop()
	q.wait.Wait()
}

// begin has a request answered. It does not wait.
func (q *requests) begin(s *session, id uint64, trace string, req *pb.Request) error {
	handle := s.l.cfg.Handlers[req.Method]
	if req.Method == edgelink.MethodBulk && s.l.cfg.Streams != nil {
		handle = s.answerBulk
	}
	var refusal error
	q.mu.Lock()
	switch {
	case q.running[id] != nil:
		q.mu.Unlock()
		return nil // sent twice: the answer is on its way
	case len(q.running) >= maxRefusals:
		q.mu.Unlock()
		return fmt.Errorf("%w: %d requests at a time, %d are allowed", edgelink.ErrMalformed, len(q.running), edgelink.MaxRequests)
	case handle == nil:
		refusal = models.Errorf(models.KindRefused, "NotSupportedByNode: this edge cannot answer %.60q", req.Method)
	case len(req.Body) > edgelink.MaxPart:
		refusal = models.Errorf(models.KindTooLarge, "the request has %d bytes, at most %d are allowed", len(req.Body), edgelink.MaxPart)
	case len(q.running) >= edgelink.MaxRequests:
		refusal = models.Errorf(models.KindTooMany, "the edge answers %d requests already", edgelink.MaxRequests)
	}
	ctx, cancel := context.WithCancel(q.ctx)
	if req.TimeoutMs > 0 {
		ctx, cancel = context.WithTimeout(q.ctx, time.Duration(req.TimeoutMs)*time.Millisecond)
	}
	r := &running{cancel: cancel, more: make(chan struct{}, 1), credit: int(min(req.Credit, edgelink.MaxCredit))}
	q.running[id] = r
	q.mu.Unlock()
	q.wait.Go(func() {
		defer cancel()
		last, err := []byte(nil), refusal
		if err == nil {
			last, err = s.call(ctx, handle, req.Method, Request{Body: req.Body, Trace: trace}, func(body []byte) error { return q.part(ctx, s, id, r, body) })
		}
		q.mu.Lock()
		delete(q.running, id)
		q.mu.Unlock()
		if err == nil && len(last) > edgelink.MaxPart {
			err = models.Errorf(models.KindTooLarge, "the answer has %d bytes, more than %d: ask for less at a time", len(last), edgelink.MaxPart)
		}
		if err != nil && ctx.Err() == context.DeadlineExceeded && models.KindOf(err) == models.KindInternal {
			err = models.Errorf(models.KindTimeout, "not answered in time")
		}
		// Under the session's: a request whose time is up still gets its answer.
		if q.ctx.Err() == nil && context.Cause(ctx) != context.Canceled {
			_ = s.conn.Send(q.ctx, &pb.Frame{Re: id, Body: &pb.Frame_Response{Response: edgelink.FinalResponse(last, err)}}) // receive notices a link that is lost
		}
	})
	return nil
}

// call calls a handler. One that panics harms nobody else: what it was asked
// came from outside.
func (s *session) call(ctx context.Context, handle Handler, method string, r Request, part func([]byte) error) (last []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.l.log.Error("panic in answering the hub", "method", method, "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	last, err = handle(ctx, r, part)
	if err != nil && models.KindOf(err) == models.KindInternal && ctx.Err() == nil {
		s.l.log.Error("answering the hub failed", "method", method, "error", err, "traceparent", r.Trace)
	}
	return last, err
}

// part sends a part of an answer as soon as the hub has room for it.
func (q *requests) part(ctx context.Context, s *session, id uint64, r *running, body []byte) error {
	if len(body) > edgelink.MaxPart {
		return fmt.Errorf("a part of an answer has %d bytes, more than %d", len(body), edgelink.MaxPart)
	}
	for {
		q.mu.Lock()
		if r.credit > 0 {
			r.credit--
			q.mu.Unlock()
			return s.conn.Send(ctx, &pb.Frame{Re: id, Body: &pb.Frame_Response{Response: &pb.Response{Body: body}}})
		}
		q.mu.Unlock()
		select {
		case <-r.more:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// cancel ends a request that nobody waits for.
func (q *requests) cancel(id uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if r := q.running[id]; r != nil {
		r.cancel()
	}
}

// credit allows more parts.
func (q *requests) credit(id uint64, parts uint32) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if r := q.running[id]; r != nil {
		r.credit = int(min(uint64(r.credit)+uint64(parts), edgelink.MaxCredit))
		notify(r.more)
	}
}
