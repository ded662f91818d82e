package sessions

import (
	"context"
	"fmt"
	"slices"

	"github.com/whimbrel-edge/whimbrel/devicehub/registry"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

// chunkBytes is how large a Sync may become before the next one begins.
const chunkBytes = 1 << 20

// version is what an edge holds of an item.
type version struct {
	uid      string
	revision uint64
}

// deliver brings the node what it is to hold: first what differs from what it
// holds, then what changes.
func (s *session) deliver(ctx context.Context, hello *pb.Hello, follower *registry.Follower) error {
	held := map[registry.Ref]version{}
	if hello.Lineage == s.m.Lineage && !s.forget { // revisions of another database mean nothing here
		for _, h := range hello.Held {
			held[registry.Ref{Kind: h.Kind, Namespace: h.Namespace, Name: h.Name}] = version{h.Uid, h.Revision}
		}
	}
	d := delivery{s: s, has: map[registry.Ref]version{}, workloads: slices.Contains(hello.Capabilities, edgelink.CapabilityWorkloads),
		secrets: slices.Contains(hello.Capabilities, edgelink.CapabilitySecrets)}
	full := &pb.Sync{Full: true}
	for _, w := range s.m.Registry.Wanted(s.id.Name) {
		if !s.honours(w.Kind) {
			continue
		}
		ref := registry.Ref{Kind: w.Kind, Namespace: w.Namespace, Name: w.Name}
		if !d.takes(ref) {
			continue
		}
		if held[ref] != (version{w.UID, w.Revision}) {
			item, ok := s.m.Registry.Item(s.id.Name, ref)
			if !ok {
				continue // gone meanwhile; the follower says so
			}
			w = item
			if err := d.add(ctx, ref, item); err != nil {
				return err
			}
		}
		d.has[ref] = version{w.UID, w.Revision}
		full.Keep = append(full.Keep, &pb.Held{Kind: w.Kind, Namespace: w.Namespace, Name: w.Name, Uid: w.UID, Revision: w.Revision})
	}
	if err := d.flush(ctx); err != nil {
		return err
	}
	if err := d.send(ctx, full); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-follower.Changed():
		}
		for _, ref := range follower.Take() {
			if !s.honours(ref.Kind) {
				continue
			}
			if err := d.update(ctx, ref); err != nil {
				return err
			}
		}
		if err := d.flush(ctx); err != nil {
			return err
		}
	}
}

// honours reports whether the edge knows what to do with items of a kind.
func (s *session) honours(kind string) bool { return kind != "Route" || s.routed.carries }

// delivery gathers items into Syncs of a moderate size.
type delivery struct {
	s         *session
	workloads bool                     // the edge runs pods
	secrets   bool                     // the edge keeps Secrets sealed
	has       map[registry.Ref]version // what the edge holds when it has taken all that was sent; bounded by what the node is to hold
	batch     pb.Sync
	desired   []registry.Ref // in batch
	bytes     int
	last      uint64
}

// takes reports whether the edge knows what to do with an item. What it does not
// is held back; the pod's status says so.
func (d *delivery) takes(ref registry.Ref) bool {
	switch ref.Kind {
	case "Pod", "ConfigMap", "Service":
		return d.workloads
	case "Secret":
		return d.secrets
	}
	return true
}

// update brings one item to where it is to be, if it is not there.
func (d *delivery) update(ctx context.Context, ref registry.Ref) error {
	if !d.takes(ref) {
		return nil
	}
	item, wanted := d.s.m.Registry.Item(d.s.id.Name, ref)
	has, held := d.has[ref]
	switch {
	case wanted && held && has == (version{item.UID, item.Revision}), !wanted && !held:
		return nil
	case wanted:
		d.has[ref] = version{item.UID, item.Revision}
		return d.add(ctx, ref, item)
	}
	delete(d.has, ref)
	d.batch.Removed = append(d.batch.Removed, &pb.Held{Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name, Uid: has.uid, Revision: has.revision})
	return nil
}

func (d *delivery) add(ctx context.Context, ref registry.Ref, i registry.Item) error {
	d.batch.Items = append(d.batch.Items, &pb.Item{Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name, Uid: i.UID, Revision: i.Revision, Assignment: i.Assignment, Json: i.JSON})
	if ref.Kind == "Desired" {
		d.desired = append(d.desired, ref)
	}
	if d.bytes += len(i.JSON) + 100; d.bytes < chunkBytes {
		return nil
	}
	return d.flush(ctx)
}

func (d *delivery) flush(ctx context.Context) error {
	if len(d.batch.Items) == 0 && len(d.batch.Removed) == 0 {
		return nil
	}
	if err := d.s.m.Registry.Hand(ctx, d.s.id.Name, d.desired); err != nil {
		return fmt.Errorf("note what is handed over: %w", err)
	}
	out := &pb.Sync{Items: d.batch.Items, Removed: d.batch.Removed}
	d.batch.Items, d.batch.Removed, d.bytes, d.desired = nil, nil, 0, d.desired[:0]
	return d.send(ctx, out)
}

func (d *delivery) send(ctx context.Context, out *pb.Sync) error {
	d.last++
	out.Id = d.last
	return d.s.conn.Send(ctx, &pb.Frame{Id: out.Id, Body: &pb.Frame_Sync{Sync: out}})
}
