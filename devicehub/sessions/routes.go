package sessions

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/routing"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

// Routes takes and gives messages of routes. *routing.Router is one.
type Routes interface {
	Received(ctx context.Context, node string, ms []*pb.RouteMessage) (*pb.RouteAcks, error)
	Counts(ctx context.Context, node string, c *pb.RouteCounts) error
	Replied(a *pb.RouteReply)
	Parcel(ctx context.Context, node string, maxBytes int) (routing.Parcel, error)
	Sent(ctx context.Context, p routing.Parcel, acks *pb.RouteAcks) (more bool, err error)
	Wake(node string) <-chan struct{}
}

const (
	// routeParcel bounds one RouteMessages to an edge, in bytes.
	routeParcel = 256 << 10
	// routeFull is the pause after an edge had no room, or the store failed.
	routeFull = 2 * time.Second
	// routeFrames is how many frames of messages and acknowledgements may wait for the
	// store. An edge waits for an answer to its messages before it sends more.
	routeFrames = 8
	// routeReplies is how many answers may wait to be sent; further ones are
	// dropped: who waits is told so after a while.
	routeReplies = 64
)

// routed is a session's part in routes.
type routed struct {
	carries bool                 // the edge takes and sends messages of routes
	in      chan *pb.Frame       // from it, to be stored
	counts  chan *pb.RouteCounts // the newest, to be stored
	out     chan *pb.RouteReply
}

func newRouted(hello *pb.Hello) routed {
	return routed{carries: slices.Contains(hello.Capabilities, edgelink.CapabilityRoutes), in: make(chan *pb.Frame, routeFrames), counts: make(chan *pb.RouteCounts, 1), out: make(chan *pb.RouteReply, routeReplies)}
}

// take hands on what the edge says of routes. It waits for nobody, however long the
// store takes: answers do not need it, and of totals the newest say all.
func (r *routed) take(f *pb.Frame, to Routes) error {
	switch body := f.Body.(type) {
	case *pb.Frame_RouteReply:
		if to != nil && r.carries {
			to.Replied(body.RouteReply)
		}
		return nil
	case *pb.Frame_RouteCounts:
		select {
		case <-r.counts:
		default:
		}
		r.counts <- body.RouteCounts // nobody else fills it
		return nil
	}
	select {
	case r.in <- f:
		return nil
	default:
		return fmt.Errorf("%w: more than %d frames about routes at once", edgelink.ErrMalformed, routeFrames)
	}
}

// Reply sends an answer to a node, if it is there.
func (m *Manager) Reply(node string, a *pb.RouteReply) {
	m.mu.Lock()
	s := m.sessions[node]
	m.mu.Unlock()
	if s == nil {
		return
	}
	select {
	case s.routed.out <- a:
	default:
	}
}

// routes stores what the edge sends of routes, and sends what is for it: one
// parcel after the other, so that their order is kept.
func (s *session) routes(ctx context.Context) error {
	r := s.m.Routes
	if r == nil || !s.routed.carries {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	failed := func(what string, err error) {
		if ctx.Err() == nil {
			s.m.log.Error("routes: "+what, "node", s.id.Name, "error", err)
		}
	}
	wake := r.Wake(s.id.Name)
	var parcel routing.Parcel
	var pause <-chan time.Time
	flying := false
	look := func() error {
		var err error
		if parcel, err = r.Parcel(ctx, s.id.Name, routeParcel); err != nil {
			failed("what waits cannot be read; it is tried again", err)
			pause = time.After(routeFull)
			return nil
		}
		if len(parcel.Messages) == 0 {
			return nil
		}
		flying = true
		return s.conn.Send(ctx, &pb.Frame{Body: &pb.Frame_RouteMessages{RouteMessages: &pb.RouteMessages{Messages: parcel.Messages}}})
	}
	if err := look(); err != nil {
		return err
	}
	for {
		next := wake
		if flying || pause != nil {
			next = nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case a := <-s.routed.out:
			if err := s.conn.Send(ctx, &pb.Frame{Body: &pb.Frame_RouteReply{RouteReply: a}}); err != nil {
				return err
			}
		case <-pause:
			pause = nil
			if err := look(); err != nil {
				return err
			}
		case <-next:
			if err := look(); err != nil {
				return err
			}
		case c := <-s.routed.counts:
			if err := r.Counts(ctx, s.id.Name, c); err != nil {
				failed("totals cannot be stored", err)
			}
		case f := <-s.routed.in:
			acks := f.GetRouteAcks()
			if acks == nil {
				if err := s.routesReceived(ctx, f, failed); err != nil {
					return err
				}
				continue
			}
			if !flying {
				return fmt.Errorf("%w: acknowledgement of messages that were not sent", edgelink.ErrMalformed)
			}
			flying = false
			more, err := r.Sent(ctx, parcel, acks)
			if err != nil {
				failed("what a node has taken cannot be stored; it is sent again", err)
			}
			if err != nil || !more {
				pause = time.After(routeFull)
				continue
			}
			if err := look(); err != nil {
				return err
			}
		}
	}
}

func (s *session) routesReceived(ctx context.Context, f *pb.Frame, failed func(string, error)) error {
	body, ok := f.Body.(*pb.Frame_RouteMessages)
	if !ok {
		return nil // unreachable: take lets nothing else in
	}
	acks, err := s.m.Routes.Received(ctx, s.id.Name, body.RouteMessages.Messages)
	if err != nil {
		failed("messages cannot be stored; the node keeps them", err)
		acks = &pb.RouteAcks{}
		for _, m := range body.RouteMessages.Messages {
			acks.Refused = append(acks.Refused, m.Key)
		}
	}
	return s.conn.Send(ctx, &pb.Frame{Body: &pb.Frame_RouteAcks{RouteAcks: acks}})
}
