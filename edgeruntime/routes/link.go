package routes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/whimbrel-edge/whimbrel/internal/courier"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

// Parcel is messages for the hub, in order.
type Parcel struct {
	Messages []*pb.RouteMessage
	ids      map[string]int64
}

// parcelMessages bounds a parcel, beside its bytes.
const parcelMessages = 500

// Waiting has an element when there may be something for the hub.
func (r *Router) Waiting() <-chan struct{} { return r.waiting }

// Replies are answers of this node's apps to messages of the hub.
func (r *Router) Replies() <-chan *pb.RouteReply { return r.replies }

// Parcel returns the oldest messages for the hub, about maxBytes of them; none
// when nothing waits. The same ones are returned until Sent says what became of them.
func (r *Router) Parcel(ctx context.Context, maxBytes int) (Parcel, error) {
	p := Parcel{ids: map[string]int64{}}
	bytes, now := 0, r.cfg.Now()
	for after := int64(0); len(p.Messages) < parcelMessages; {
		rows, err := r.queue.page(ctx, toHub, after, 32)
		if err != nil {
			return Parcel{}, err
		}
		if len(rows) == 0 {
			break
		}
		for _, w := range rows {
			if bytes += int(size(w.m)); bytes > maxBytes && len(p.Messages) > 0 {
				return p, nil
			}
			w.m.AgeMs = max(now.Sub(w.accepted).Milliseconds(), 0)
			p.Messages = append(p.Messages, w.m)
			p.ids[w.m.Key] = w.id
			after = w.id
		}
	}
	return p, nil
}

// Sent forgets what the hub has stored of a parcel. more is false when the hub
// has no room for the rest now.
func (r *Router) Sent(ctx context.Context, p Parcel, acks *pb.RouteAcks) (more bool, err error) {
	var outcomes []outcome
	for _, key := range acks.Keys {
		if id, ok := p.ids[key]; ok {
			outcomes = append(outcomes, outcome{id: id, handed: true})
		}
	}
	if err := r.queue.settle(ctx, r.cfg.Now(), outcomes); err != nil {
		return false, err
	}
	return len(acks.Refused) == 0, nil
}

// Counts are the totals of all routes.
func (r *Router) Counts() *pb.RouteCounts { return r.queue.counts() }

// Deliver takes messages that the hub wants delivered on this node, and says
// which of them are delivered, or stored to be.
func (r *Router) Deliver(ctx context.Context, ms []*pb.RouteMessage) *pb.RouteAcks {
	acks := &pb.RouteAcks{}
	for i, m := range ms {
		err := r.deliverOne(ctx, m)
		if errors.Is(err, ErrFull) || err != nil && ctx.Err() != nil {
			for _, left := range ms[i:] { // in order, so none of those after it either
				acks.Refused = append(acks.Refused, left.Key)
			}
			return acks
		}
		if err != nil {
			r.refuse(ctx, m, err)
		}
		acks.Keys = append(acks.Keys, m.Key)
	}
	return acks
}

func (r *Router) deliverOne(ctx context.Context, m *pb.RouteMessage) error {
	var to models.RouteTarget
	if err := json.Unmarshal(m.Target, &to); err != nil {
		return fmt.Errorf("its target cannot be read by this node's release: %w", err)
	}
	if to.MQTT != nil {
		topic, err := topicOf(to.MQTT.Topic, m)
		if err != nil {
			return err
		}
		return r.cfg.Publish(topic, m, to.MQTT)
	}
	now := r.cfg.Now()
	accepted := now.Add(-time.Duration(m.AgeMs) * time.Millisecond)
	added, err := r.queue.add(ctx, []*row{{destination: toHere, lane: laneOf(m), accepted: accepted,
		deadline: accepted.Add(time.Duration(m.TtlMs) * time.Millisecond), retries: int(m.Retries), m: m}})
	if err != nil {
		return err
	}
	r.courier.Add(couriers(added)...)
	return nil
}

// refuse makes a message of the hub that cannot be delivered a dead letter.
func (r *Router) refuse(ctx context.Context, m *pb.RouteMessage, err error) {
	dead := clone(m)
	dead.Dead = err.Error()
	r.reply(m, courier.NoAnswer(&courier.Refused{Final: true, Err: err}))
	if _, err := r.queue.add(ctx, []*row{{destination: toHub, lane: laneOf(m), accepted: r.cfg.Now(), deadline: r.cfg.Now(), m: dead}}); err != nil {
		r.log.Error("a dead letter cannot be kept", "route", m.Name, "key", m.Key, "error", err)
		return
	}
	r.queue.count(m.Route, func(t *total) { t.failed++; t.lastError, t.lastErrorAt = dead.Dead, r.cfg.Now() })
	r.notify()
}
