package sessions

import (
	"errors"
	"testing"

	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

// replies counts answers. It has no store.
type replies struct {
	Routes
	count int
}

func (r *replies) Replied(*pb.RouteReply) { r.count++ }

// While the store is busy an edge's answers get through, and its totals wait
// without number; a link is broken off only by messages that nobody asked for.
func TestRoutesWhileTheStoreIsBusy(t *testing.T) {
	r, to := newRouted(&pb.Hello{Capabilities: []string{edgelink.CapabilityRoutes}}), &replies{}
	for i := range 10 * routeFrames {
		if err := r.take(&pb.Frame{Body: &pb.Frame_RouteReply{RouteReply: &pb.RouteReply{Key: "k", Status: 200}}}, to); err != nil {
			t.Fatal(err)
		}
		if err := r.take(&pb.Frame{Body: &pb.Frame_RouteCounts{RouteCounts: &pb.RouteCounts{Routes: []*pb.RouteCount{{Delivered: uint64(i)}}}}}, to); err != nil {
			t.Fatal(err)
		}
	}
	if to.count != 10*routeFrames {
		t.Errorf("%d answers came", to.count)
	}
	if c := <-r.counts; c.Routes[0].Delivered != 10*routeFrames-1 {
		t.Errorf("totals %v are not the newest", c)
	}
	var err error
	for range routeFrames + 1 {
		err = r.take(&pb.Frame{Body: &pb.Frame_RouteMessages{RouteMessages: &pb.RouteMessages{}}}, to)
	}
	if !errors.Is(err, edgelink.ErrMalformed) {
		t.Errorf("too many messages: %v", err)
	}
}
