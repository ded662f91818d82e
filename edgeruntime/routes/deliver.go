package routes

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/whimbrel-edge/whimbrel/internal/courier"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

// maxReplyBody is how much of a target's answer is handed on. A longer one is cut
// off with an error.
const maxReplyBody = 1 << 20

// deliver makes one attempt to deliver a queued message from this node.
func (r *Router) deliver(ctx context.Context, c courier.Message) error {
	w, err := r.queue.get(ctx, c.ID)
	if err != nil {
		return err
	}
	if w == nil {
		return nil // delivered, and it was not heard of
	}
	var to models.RouteTarget
	if err := json.Unmarshal(w.m.Target, &to); err != nil {
		return &courier.Refused{Final: true, Err: fmt.Errorf("its target cannot be read: %w", err)}
	}
	switch {
	case to.Service != nil:
		return r.request(ctx, w.m, to.Service)
	case to.Broker != nil:
		return r.bridges.publish(ctx, w.m, to.Broker)
	}
	return &courier.Refused{Final: true, Err: errors.New("it has no target that this release knows")}
}

// request delivers a message to an app of this node.
func (r *Router) request(ctx context.Context, m *pb.RouteMessage, to *models.RouteService) error {
	if r.cfg.Services == nil {
		return errors.New("this node runs no apps")
	}
	ctx, cancel := context.WithTimeout(ctx, to.Timeout.Std())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, to.Method, to.Path, bytes.NewReader(m.Payload))
	if err != nil {
		return &courier.Refused{Final: true, Err: err}
	}
	if m.ContentType != "" {
		req.Header.Set("Content-Type", m.ContentType)
	}
	req.Header.Set("Idempotency-Key", m.Key)
	if m.Topic != "" {
		req.Header.Set("X-Whimbrel-Topic", m.Topic)
	}
	req.Header.Set("X-Whimbrel-Node", m.Node)
	res, err := r.cfg.Services.Do(ctx, m.Namespace, to.Name, req)
	if err != nil {
		r.reply(m, &pb.RouteReply{Error: err.Error()})
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxReplyBody+1))
	if err != nil {
		return err
	}
	if len(body) > maxReplyBody {
		r.reply(m, &pb.RouteReply{Status: uint32(res.StatusCode), Error: fmt.Sprintf("the answer is longer than %d bytes", maxReplyBody)})
	} else {
		r.reply(m, &pb.RouteReply{Status: uint32(res.StatusCode), ContentType: res.Header.Get("Content-Type"), Body: body})
	}
	return courier.Judge(res.StatusCode, to.Name)
}

// reply tells who waits for a target's answer, here or at the hub.
func (r *Router) reply(m *pb.RouteMessage, a *pb.RouteReply) {
	if !m.Wait {
		return
	}
	a.Key = m.Key
	r.Answer(a)
	if m.Node == r.cfg.Node {
		return
	}
	for {
		select {
		case r.replies <- a:
			return
		default:
		}
		select {
		case <-r.replies:
		default:
		}
	}
}

// settle stores what became of attempts.
func (r *Router) settle(ctx context.Context, done []courier.Done) error {
	outcomes := make([]outcome, 0, len(done))
	dead := false
	for _, d := range done {
		o := outcome{id: d.ID, attempts: d.Attempts, error: d.Error, delivered: d.Error == ""}
		if d.Dead {
			w, err := r.queue.get(ctx, d.ID)
			if err != nil {
				return err
			}
			if w == nil {
				continue
			}
			o.dead = clone(w.m)
			o.dead.Dead = d.Error
			dead = true
			r.reply(w.m, &pb.RouteReply{Error: d.Error})
		}
		outcomes = append(outcomes, o)
	}
	if err := r.queue.settle(ctx, r.cfg.Now(), outcomes); err != nil {
		return err
	}
	if dead {
		r.notify()
	}
	return nil
}
