package link

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

const (
	// parcelBytes bounds one RouteMessages.
	parcelBytes = 256 << 10
	// routesFull is the pause after the hub had no room.
	routesFull = 2 * time.Second
	// countsEvery is how often totals are sent that have changed.
	countsEvery = 2 * time.Second
)

// routes sends what routes have for the hub: one parcel after the other, each
// after the hub has answered for the one before, so that their order is kept
// whatever the hub has no room for.
func (s *session) routes(ctx context.Context) error {
	r := s.l.cfg.Routes
	if r == nil || !s.carries {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	counts := time.NewTicker(countsEvery)
	defer counts.Stop()
	var told *pb.RouteCounts
	var flying bool
	var pause <-chan time.Time
	p, err := r.Parcel(ctx, parcelBytes)
	if err != nil && ctx.Err() == nil {
		s.l.log.Error("the queue of routes cannot be read", "error", err)
	}
	for {
		if !flying && pause == nil && len(p.Messages) > 0 {
			if err := s.conn.Send(ctx, &pb.Frame{Body: &pb.Frame_RouteMessages{RouteMessages: &pb.RouteMessages{Messages: p.Messages}}}); err != nil {
				return err
			}
			flying = true
		}
		waiting := r.Waiting()
		if flying || pause != nil {
			waiting = nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case a := <-r.Replies():
			if err := s.conn.Send(ctx, &pb.Frame{Body: &pb.Frame_RouteReply{RouteReply: a}}); err != nil {
				return err
			}
			continue
		case <-counts.C:
			if now := r.Counts(); told == nil || !proto.Equal(now, told) {
				if err := s.conn.Send(ctx, &pb.Frame{Body: &pb.Frame_RouteCounts{RouteCounts: now}}); err != nil {
					return err
				}
				told = now
			}
			if flying || pause != nil {
				continue
			}
		case acks := <-s.stored:
			if !flying {
				return fmt.Errorf("%w: acknowledgement of messages that were not sent", edgelink.ErrMalformed)
			}
			flying = false
			more, err := r.Sent(ctx, p, acks)
			if err != nil {
				return err // what was not forgotten is sent again, in the next session
			}
			if !more {
				pause = time.After(routesFull)
				continue
			}
		case <-pause:
			pause = nil
		case <-waiting:
		}
		if p, err = r.Parcel(ctx, parcelBytes); err != nil && ctx.Err() == nil {
			s.l.log.Error("the queue of routes cannot be read; it is tried again", "error", err)
			p.Messages = nil
			pause = time.After(routesFull)
		}
	}
}

// routed handles what the hub says of routes.
func (s *session) routed(ctx context.Context, f *pb.Frame) error {
	r := s.l.cfg.Routes
	if r == nil {
		return nil
	}
	switch body := f.Body.(type) {
	case *pb.Frame_RouteMessages:
		return s.conn.Send(ctx, &pb.Frame{Body: &pb.Frame_RouteAcks{RouteAcks: r.Deliver(ctx, body.RouteMessages.Messages)}})
	case *pb.Frame_RouteReply:
		r.Answer(body.RouteReply)
	case *pb.Frame_RouteAcks:
		select {
		case s.stored <- body.RouteAcks:
		default:
			return fmt.Errorf("%w: acknowledgement of messages that were not sent", edgelink.ErrMalformed)
		}
	}
	return nil
}
