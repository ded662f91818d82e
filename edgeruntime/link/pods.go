package link

import (
	"context"
	"time"

	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

const (
	// podsBytes bounds one PodStatuses.
	podsBytes = edgelink.MaxMessage / 4
	// podsGather is how long changes are gathered for: a pod that starts has many.
	podsGather = 100 * time.Millisecond
)

// pods tells how all pods are doing, and then what changes.
func (s *session) pods(ctx context.Context) error {
	p := s.l.cfg.Pods
	if p == nil {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	for full := true; ; full = false {
		if all := p.Statuses(full); all != nil {
			for _, part := range splitPods(all) {
				if err := s.conn.Send(ctx, &pb.Frame{Body: &pb.Frame_PodStatuses{PodStatuses: part}}); err != nil {
					return err
				}
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-p.StatusesWake():
		}
		if !sleep(ctx, podsGather) {
			return context.Cause(ctx)
		}
	}
}

// splitPods divides what is too much for one message. A full one must name all
// pods, since one that it does not name is gone for the hub: it then says nothing
// but the names, and how they are doing follows.
func splitPods(all *pb.PodStatuses) []*pb.PodStatuses {
	if all.SizeVT() <= podsBytes {
		return []*pb.PodStatuses{all}
	}
	part := &pb.PodStatuses{Engine: all.Engine}
	parts := []*pb.PodStatuses{part}
	if all.Full {
		names := &pb.PodStatuses{Full: true}
		for _, p := range all.Pods {
			names.Pods = append(names.Pods, &pb.PodState{Namespace: p.Namespace, Name: p.Name, Uid: p.Uid, Json: []byte(`{"phase":"Unknown"}`)})
		}
		parts = []*pb.PodStatuses{names, part}
	}
	size := 0
	for _, p := range all.Pods {
		n := p.SizeVT() + 8 // and what is around it
		if size > 0 && size+n > podsBytes {
			part, size = &pb.PodStatuses{}, 0
			parts = append(parts, part)
		}
		part.Pods = append(part.Pods, p)
		size += n
	}
	return parts
}
