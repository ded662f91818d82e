package routes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/whimbrel-edge/whimbrel/internal/courier"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

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
		err := r.request(ctx, w, to.Service)
		if err != nil && ctx.Err() == nil { // who has heard the target's own answer waits no more
			r.reply(w.m, courier.NoAnswer(err))
		}
		return err
	case to.Broker != nil:
		return r.bridges.publish(ctx, w.m, to.Broker)
	}
	return &courier.Refused{Final: true, Err: errors.New("it has no target that this release knows")}
}

// request delivers a message to an app of this node.
func (r *Router) request(ctx context.Context, w *row, to *models.RouteService) error {
	if r.cfg.Services == nil {
		return errors.New("this node runs no apps")
	}
	ctx, cancel := context.WithTimeout(ctx, to.Patience())
	defer cancel()
	req, err := courier.NewRequest(ctx, to.Method, to.Path, w.m, w.accepted)
	if err != nil {
		return &courier.Refused{Final: true, Err: err}
	}
	res, err := r.cfg.Services.Do(ctx, w.m.Namespace, to.Name, req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	a, err := courier.Answer(res)
	if err != nil {
		return fmt.Errorf("service %s: %w", to.Name, err)
	}
	r.reply(w.m, a)
	return courier.Judge(res.StatusCode, to.Name)
}

// reply tells who waits for a target's answer, here or at the hub.
func (r *Router) reply(m *pb.RouteMessage, a *pb.RouteReply) {
	if !m.Wait {
		return
	}
	a.Key = m.Key
	if r.tell(a); m.Node != r.cfg.Node {
		r.tellHub(a)
	}
}

// behind tells who waits for a message that stands behind one whose target is not to
// be had.
func (r *Router) behind(m courier.Message, err error) {
	a := courier.StandsBehind(err)
	if a.Key = m.Asker; !r.tell(a) {
		r.tellHub(a)
	}
}

// tellHub has an answer sent to the hub. It waits for nobody.
func (r *Router) tellHub(a *pb.RouteReply) {
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
			o.dead.Dead, o.dead.Attempts = d.Error, int32(d.Attempts)
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
