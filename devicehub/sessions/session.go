package sessions

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/identity"
	"github.com/whimbrel-edge/whimbrel/devicehub/ingest"
	"github.com/whimbrel-edge/whimbrel/devicehub/registry"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

// session is one node's live link.
type session struct {
	m     *Manager
	conn  *edgelink.Conn
	id    identity.NodeIdentity
	epoch string            // the node's current epoch
	ranks map[string]uint64 // of the epochs in the hello
	stop  context.CancelCauseFunc
	done  chan struct{} // closed when the session has ended

	mu    sync.Mutex        // protects all below
	acks  map[string]uint64 // acknowledged and not yet told
	bye   *pb.Goodbye
	ackUp chan struct{} // one slot: acks has something
}

// Times of a session.
const (
	pingEvery    = 15 * time.Second
	pingTimeout  = 10 * time.Second
	rivalTimeout = 2 * time.Second
	chunkBytes   = 1 << 20 // of items in one Sync
)

// errReplaced ends a session whose node has connected anew.
var errReplaced = errors.New("the node has connected anew")

// end asks the session to say goodbye and end.
func (s *session) end(bye *pb.Goodbye) {
	s.mu.Lock()
	s.bye = bye
	s.mu.Unlock()
	s.stop(fmt.Errorf("goodbye: %s", bye.Reason))
}

// serve runs a session from its hello to its end.
func (m *Manager) serve(ctx context.Context, conn *edgelink.Conn, id identity.NodeIdentity, remote string) {
	defer conn.CloseNow()
	log := m.log.With("node", id.Name)
	hello, helloID, err := receiveHello(ctx, conn)
	if err == nil && hello.Node != id.Name {
		err = fmt.Errorf("the certificate is for %s, the hello for %q", id.Name, hello.Node)
	}
	if err != nil {
		log.Warn("link ended before its hello", "error", err)
		m.sayGoodbye(ctx, conn, &pb.Goodbye{Reason: "protocol-error", Message: err.Error(), RetryAfterS: 30})
		return
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	s := &session{m: m, conn: conn, id: id, epoch: hello.Epochs[len(hello.Epochs)-1].Id, ranks: map[string]uint64{}, stop: stop,
		done: make(chan struct{}), acks: map[string]uint64{}, ackUp: make(chan struct{}, 1)}
	if !m.claim(ctx, s) {
		log.Error("a second edge with this node's identity is connected; it is refused", "remote", remote)
		m.setCondition(id.Name, models.Condition{Type: "IdentityUnique", Status: "False", Reason: duplicateIdentity,
			Message: "a second edge with this identity tried to connect from " + remote, LastTransitionTime: m.now().UTC()})
		m.sayGoodbye(ctx, conn, &pb.Goodbye{Reason: "duplicate-identity", Message: "another edge with this node's identity is connected", RetryAfterS: 30})
		return
	}
	defer m.release(s)
	welcome, err := m.welcome(ctx, s, hello)
	if err != nil {
		log.Error("welcome a node", "error", err)
		m.sayGoodbye(ctx, conn, &pb.Goodbye{Reason: "hub-error", Message: "the hub cannot take the log now", RetryAfterS: 5})
		return
	}
	m.arrived(id, hello, remote)
	defer m.left(id.Name)
	log.Info("node connected", "remote", remote, "version", hello.Version, "epoch", s.epoch)
	err = s.run(ctx, hello, &pb.Frame{Re: helloID, Body: &pb.Frame_Welcome{Welcome: welcome}})
	s.mu.Lock()
	bye := s.bye
	s.mu.Unlock()
	if bye == nil && errors.Is(err, edgelink.ErrMalformed) {
		bye = &pb.Goodbye{Reason: "protocol-error", Message: err.Error(), RetryAfterS: 30}
	}
	if bye != nil {
		m.sayGoodbye(context.WithoutCancel(ctx), conn, bye)
	}
	log.Info("node disconnected", "cause", err)
}

// sayGoodbye sends a goodbye and closes the link without waiting long.
func (m *Manager) sayGoodbye(ctx context.Context, conn *edgelink.Conn, bye *pb.Goodbye) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if conn.Send(ctx, &pb.Frame{Body: &pb.Frame_Goodbye{Goodbye: bye}}) == nil {
		drained := make(chan struct{})
		go func() { // ends with CloseNow at the latest
			defer close(drained)
			_ = conn.Close(bye.Reason)
		}()
		select {
		case <-drained:
		case <-ctx.Done():
		}
		_ = conn.CloseNow()
		<-drained
	}
}

func receiveHello(ctx context.Context, conn *edgelink.Conn) (*pb.Hello, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	f, err := conn.Recv(ctx)
	if err != nil {
		return nil, 0, err
	}
	hello := f.GetHello()
	if hello == nil {
		return nil, 0, errors.New("the first frame must be a hello")
	}
	if len(hello.Epochs) == 0 {
		return nil, 0, errors.New("the hello names no epoch")
	}
	for _, e := range hello.Epochs {
		if e.Id == "" || len(e.Id) > 64 {
			return nil, 0, errors.New("the hello has an epoch without a proper id")
		}
	}
	return hello, f.Id, nil
}

// claim makes s the node's session. A session of the same process is replaced;
// so is one that no longer answers. One of another process that does answer is
// a second edge with the same identity: it stays, and claim returns false.
func (m *Manager) claim(ctx context.Context, s *session) bool {
	for {
		m.mu.Lock()
		rival := m.sessions[s.id.Name]
		if rival == nil {
			m.sessions[s.id.Name] = s
			m.mu.Unlock()
			return true
		}
		m.mu.Unlock()
		if rival.epoch != s.epoch && rival.answers(ctx) {
			return false
		}
		rival.stop(errReplaced)
		_ = rival.conn.CloseNow()
		select {
		case <-rival.done:
		case <-ctx.Done():
			return false
		}
	}
}

func (s *session) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, rivalTimeout)
	defer cancel()
	pong := make(chan error, 1)
	go func() { pong <- s.conn.Ping(ctx) }() // ends with ctx
	select {
	case err := <-pong:
		return err == nil
	case <-s.done:
		<-pong
		return false
	}
}

func (m *Manager) release(s *session) {
	m.mu.Lock()
	if m.sessions[s.id.Name] == s {
		delete(m.sessions, s.id.Name)
	}
	m.mu.Unlock()
	close(s.done)
}

// arrived and left note that a node is there or gone, and tell.
func (m *Manager) arrived(id identity.NodeIdentity, hello *pb.Hello, remote string) {
	m.mu.Lock()
	n := m.nodeLocked(id.Name)
	n.live, n.readySince, n.expires = true, m.now(), id.Expires
	n.info = models.NodeInfo{Version: hello.Version, OS: hello.Os, Architecture: hello.Arch, Capability: int(hello.Capability), Capabilities: hello.Capabilities, Address: remote}
	m.mu.Unlock()
	m.Twins.NodeLive(id.Name, true)
	m.Registry.StatusChanged(models.Key{Kind: "Node", Name: id.Name})
}

func (m *Manager) left(name string) {
	m.mu.Lock()
	if n := m.nodes[name]; n != nil {
		n.live, n.readySince, n.lastSeen = false, m.now(), m.now()
	}
	m.mu.Unlock()
	m.Twins.NodeLive(name, false)
	m.Registry.StatusChanged(models.Key{Kind: "Node", Name: name})
}

// run has four loops: what is received, what is to be held, what is
// acknowledged, and whether the other end is alive. The first that ends ends
// all.
func (s *session) run(ctx context.Context, hello *pb.Hello, welcome *pb.Frame) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	follower := s.m.Registry.Follow(s.id.Name) // before the first look, so that nothing is missed
	defer follower.Close()
	if err := s.conn.Send(ctx, welcome); err != nil {
		return err
	}
	var wait sync.WaitGroup
	for _, loop := range []func(context.Context) error{
		s.receive, s.acknowledge, s.keepAlive,
		func(ctx context.Context) error { return s.deliver(ctx, hello, follower) },
	} {
		wait.Go(func() { cancel(loop(ctx)) })
	}
	<-ctx.Done()
	err := context.Cause(ctx)
	wait.Wait()
	return err
}

// receive handles what the edge sends.
func (s *session) receive(ctx context.Context) error {
	for {
		f, err := s.conn.Recv(ctx)
		if err != nil {
			return err
		}
		switch body := f.Body.(type) {
		case *pb.Frame_Batch:
			if err := s.batch(ctx, body.Batch); err != nil {
				return err
			}
		case *pb.Frame_Latest:
			if rank, ok := s.ranks[body.Latest.Epoch]; ok {
				s.m.Twins.Latest(s.id.Name, rank, body.Latest)
			}
		case *pb.Frame_Report:
			s.report(body.Report)
		case *pb.Frame_SyncDone:
			s.m.log.Debug("wanted state persisted", "node", s.id.Name, "sync", body.SyncDone.Id)
		case *pb.Frame_Goodbye:
			return fmt.Errorf("the edge said goodbye: %s", body.Goodbye.Reason)
		default: // of a newer edge; tolerated
		}
	}
}

func (s *session) batch(ctx context.Context, b *pb.Batch) error {
	rank, ok := s.ranks[b.Epoch]
	if !ok {
		return fmt.Errorf("%w: batch of epoch %q, which the hello did not name", edgelink.ErrMalformed, b.Epoch)
	}
	return s.m.Ingest.Submit(ctx, ingest.Origin{Node: s.id.Name, NodeUID: s.id.UID, Rank: rank}, b, func(acked uint64, err error) {
		if err != nil {
			s.stop(fmt.Errorf("ingest: %w", err))
			return
		}
		s.mu.Lock()
		s.acks[b.Epoch] = max(s.acks[b.Epoch], acked)
		s.mu.Unlock()
		select {
		case s.ackUp <- struct{}{}:
		default:
		}
	})
}

// acknowledge tells the edge what is committed. Acks that come faster than they
// can be sent become one.
func (s *session) acknowledge(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.ackUp:
		}
		s.mu.Lock()
		ack := &pb.Ack{}
		for epoch, seq := range s.acks {
			ack.Acks = append(ack.Acks, &pb.EpochAck{Epoch: epoch, Seq: seq})
		}
		clear(s.acks)
		s.mu.Unlock()
		if len(ack.Acks) == 0 {
			continue
		}
		if err := s.conn.Send(ctx, &pb.Frame{Body: &pb.Frame_Ack{Ack: ack}}); err != nil {
			return err
		}
	}
}

func (s *session) keepAlive(ctx context.Context) error {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		ping, cancel := context.WithTimeout(ctx, pingTimeout)
		err := s.conn.Ping(ping)
		cancel()
		if err != nil {
			_ = s.conn.CloseNow() // receive may wait on a connection that is dead
			return fmt.Errorf("the edge does not answer: %w", err)
		}
	}
}

func (s *session) report(r *pb.NodeReport) {
	s.m.mu.Lock()
	n := s.m.nodeLocked(s.id.Name)
	before := n.outbox
	n.outbox = &models.OutboxState{Epoch: s.epoch, LastSeq: r.LastSeq, AckedSeq: 0, Records: r.OutboxRecords, Bytes: r.OutboxBytes, Dropped: r.OutboxDropped}
	n.outbox.AckedSeq = r.LastSeq - min(r.LastSeq, r.OutboxRecords)
	n.lastSeen = s.m.now()
	s.m.mu.Unlock()
	s.m.Twins.Seen(s.id.Name, r.Seen)
	if before == nil || before.Dropped != r.OutboxDropped {
		s.m.Registry.StatusChanged(models.Key{Kind: "Node", Name: s.id.Name})
	}
}

// deliver brings the node what it is to hold: first what differs from what it
// holds, then what changes.
func (s *session) deliver(ctx context.Context, hello *pb.Hello, follower *registry.Follower) error {
	held := make(map[registry.Ref]*pb.Held, len(hello.Held))
	for _, h := range hello.Held {
		held[registry.Ref{Kind: h.Kind, Namespace: h.Namespace, Name: h.Name}] = h
	}
	d := delivery{s: s}
	full := &pb.Sync{Full: true}
	for _, w := range s.m.Registry.Wanted(s.id.Name) {
		ref := registry.Ref{Kind: w.Kind, Namespace: w.Namespace, Name: w.Name}
		if h := held[ref]; h == nil || h.Uid != w.UID || h.Revision != w.Revision {
			item, ok := s.m.Registry.Item(s.id.Name, ref)
			if !ok {
				continue // gone meanwhile; the follower says so
			}
			w = item
			if err := d.add(ctx, item); err != nil {
				return err
			}
		}
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
			return ctx.Err()
		case <-follower.Changed():
		}
		for _, ref := range follower.Take() {
			if item, ok := s.m.Registry.Item(s.id.Name, ref); ok {
				if err := d.add(ctx, item); err != nil {
					return err
				}
			} else {
				d.batch.Removed = append(d.batch.Removed, &pb.Held{Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name})
			}
		}
		if err := d.flush(ctx); err != nil {
			return err
		}
	}
}

// delivery gathers items into Syncs of a moderate size.
type delivery struct {
	s     *session
	batch pb.Sync
	bytes int
	last  uint64
}

func (d *delivery) add(ctx context.Context, i registry.Item) error {
	d.batch.Items = append(d.batch.Items, &pb.Item{Kind: i.Kind, Namespace: i.Namespace, Name: i.Name, Uid: i.UID, Revision: i.Revision, Assignment: i.Assignment, Json: i.JSON})
	if d.bytes += len(i.JSON) + 100; d.bytes < chunkBytes {
		return nil
	}
	return d.flush(ctx)
}

func (d *delivery) flush(ctx context.Context) error {
	if len(d.batch.Items) == 0 && len(d.batch.Removed) == 0 {
		return nil
	}
	out := &pb.Sync{Items: d.batch.Items, Removed: d.batch.Removed}
	d.batch.Items, d.batch.Removed, d.bytes = nil, nil, 0
	return d.send(ctx, out)
}

func (d *delivery) send(ctx context.Context, out *pb.Sync) error {
	d.last++
	out.Id = d.last
	return d.s.conn.Send(ctx, &pb.Frame{Id: out.Id, Body: &pb.Frame_Sync{Sync: out}})
}
