package sessions

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/identity"
	"github.com/whimbrel-edge/whimbrel/devicehub/ingest"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

// session is one node's live link.
type session struct {
	m      *Manager
	conn   *edgelink.Conn
	cert   Certificate
	id     identity.NodeIdentity
	epoch  string            // the node's current epoch
	ranks  map[string]uint64 // of the epochs in the hello
	forget bool              // what the edge says it holds does not count
	behind time.Duration     // how far the edge's clock is behind the hub's
	// clockTold: people were told that the clock is off. The receiving loop's own,
	// as behind is.
	clockTold bool
	stop      context.CancelCauseFunc
	done      chan struct{} // closed when the session has ended

	ackUp  chan struct{} // one slot: acks has something
	ending chan struct{} // closed when bye is set

	mu   sync.Mutex        // protects all below
	acks map[string]uint64 // acknowledged and not yet told
	bye  *pb.Goodbye       // how it is to end

	inbox   inbox
	mappers chan *pb.MapperInfo // announced and not taken yet; beyond edgelink.MaxMappers they are ignored
	asks    *asks
	routed  routed
	second  *second
}

// Times and bounds of a session.
const (
	helloTimeout   = 10 * time.Second
	welcomeTimeout = 30 * time.Second
	pingEvery      = 15 * time.Second
	pingTimeout    = 30 * time.Second
	rivalTimeout   = 2 * time.Second
	goodbyeTimeout = time.Second // for the other end to read a goodbye and close
	maxEpochID     = 64          // bytes
	maxEpochs      = 10_000      // in one hello; it may take a while to tell of more
	maxNodeText    = 256         // bytes of what an edge says of itself
)

var (
	errReplaced  = errors.New("the node has connected anew")
	errDuplicate = errors.New("a second edge with this node's identity")
	errClosing   = errors.New("the hub is stopping")
)

// end asks the session to say goodbye and end. The first goodbye counts.
func (s *session) end(bye *pb.Goodbye) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bye == nil {
		s.bye = bye
		close(s.ending)
	}
}

func (s *session) isEnding() bool {
	select {
	case <-s.ending:
		return true
	default:
		return false
	}
}

// serve runs a session from its hello to its end.
func (m *Manager) serve(conn *edgelink.Conn, cert Certificate, id identity.NodeIdentity, remote string) {
	defer conn.CloseNow()
	log := m.log.With("node", id.Name)
	hello, helloID, err := receiveHello(m.ctx, conn)
	if err == nil && hello.Node != id.Name {
		err = fmt.Errorf("the certificate is for %s, the hello for %q", id.Name, hello.Node)
	}
	if err != nil {
		log.Warn("link ended before its hello", "remote", remote, "error", err)
		sayGoodbye(conn, &pb.Goodbye{Reason: edgelink.GoodbyeProtocolError, Message: err.Error(), RetryAfterS: 30})
		return
	}
	ctx, stop := context.WithCancelCause(context.Background()) // not the request's, which has ended; end and Close end it
	defer stop(nil)
	s := &session{m: m, conn: conn, cert: cert, id: id, epoch: hello.Epochs[len(hello.Epochs)-1].Id, ranks: map[string]uint64{}, stop: stop,
		done: make(chan struct{}), ackUp: make(chan struct{}, 1), ending: make(chan struct{}), acks: map[string]uint64{}, asks: newAsks(hello.Capabilities), second: newSecond(), routed: newRouted(hello)}
	s.mappers = make(chan *pb.MapperInfo, edgelink.MaxMappers)
	s.inbox.init(int(m.Window) + edgelink.MaxRecord)
	if hello.ClockUs != 0 {
		s.behind = m.now().Sub(time.UnixMicro(hello.ClockUs))
	}
	if err := m.claim(ctx, s); err != nil {
		bye := &pb.Goodbye{Reason: edgelink.GoodbyeShutdown, Message: err.Error(), RetryAfterS: 1}
		if errors.Is(err, errDuplicate) {
			m.duplicate(id, "a second edge with this identity tried to connect from "+remote)
			bye = &pb.Goodbye{Reason: edgelink.GoodbyeDuplicateIdentity, Message: "another edge with this node's identity is connected", RetryAfterS: 30}
		}
		log.Warn("link refused", "remote", remote, "error", err)
		sayGoodbye(conn, bye)
		return
	}
	defer m.release(s)
	// Once more: Kick could not find the session before it was claimed.
	if err := m.stillGood(ctx, s); err != nil {
		log.Warn("link refused", "remote", remote, "error", err)
		sayGoodbye(conn, revoked(err))
		return
	}
	if len(hello.Labels) > 0 {
		if err := m.Registry.LabelNode(ctx, id.Name, hello.Labels); err != nil {
			log.Warn("take the labels that the edge was started with", "error", err)
		}
	}
	welcome, err := m.welcome(ctx, s, hello)
	if err != nil {
		log.Error("welcome a node", "error", err)
		sayGoodbye(conn, &pb.Goodbye{Reason: edgelink.GoodbyeShutdown, Message: "the hub cannot take the log now", RetryAfterS: 5})
		return
	}
	if m.Events != nil { // stored before anybody sees the node
		m.Events.Note(ctx, occurrence(id.Name, id.UID, models.SeverityNormal, NodeReady, fmt.Sprintf("connected from %s, version %s", remote, cut(hello.Version))))
	}
	m.arrived(s, hello, remote)
	defer m.left(id.Name)
	s.judgeClock()
	log.Info("node connected", "remote", remote, "version", cut(hello.Version), "epoch", s.epoch)
	err = s.run(ctx, hello, &pb.Frame{Re: helloID, Body: &pb.Frame_Welcome{Welcome: welcome}})
	if errors.Is(err, edgelink.ErrMalformed) { // receive has ended, the link has not
		sayGoodbye(conn, &pb.Goodbye{Reason: edgelink.GoodbyeProtocolError, Message: cut(err.Error()), RetryAfterS: 30})
	}
	s.ended(err)
	log.Info("node disconnected", "cause", err)
}

// revoked is the goodbye to a node that may not connect, or may not for now.
func revoked(err error) *pb.Goodbye {
	if errors.Is(err, identity.ErrNodeUnknown) || errors.Is(err, identity.ErrKeyMismatch) || errors.Is(err, identity.ErrCertificate) {
		return &pb.Goodbye{Reason: edgelink.GoodbyeRevoked, Message: rootCause(err)}
	}
	return &pb.Goodbye{Reason: edgelink.GoodbyeShutdown, Message: "the hub cannot check the certificate now", RetryAfterS: 5}
}

// sayGoodbye sends a goodbye on a link that nobody receives from, and gives the
// other end a moment to read it and close: to close first might reset the
// connection and lose it.
func sayGoodbye(conn *edgelink.Conn, bye *pb.Goodbye) {
	ctx, cancel := context.WithTimeout(context.Background(), goodbyeTimeout)
	defer cancel()
	drop := context.AfterFunc(ctx, func() { _ = conn.CloseNow() }) // a Send that is stuck
	defer drop()
	err := conn.Send(ctx, &pb.Frame{Body: &pb.Frame_Goodbye{Goodbye: bye}})
	for err == nil || errors.Is(err, edgelink.ErrMalformed) {
		_, err = conn.Recv(ctx)
	}
	_ = conn.CloseNow()
}

func receiveHello(ctx context.Context, conn *edgelink.Conn) (*pb.Hello, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	f, err := conn.Recv(ctx)
	if err != nil {
		return nil, 0, err
	}
	hello := f.GetHello()
	switch {
	case hello == nil:
		return nil, 0, errors.New("the first frame must be a hello")
	case hello.Capability == 0:
		return nil, 0, errors.New("the hello has no capability")
	case len(hello.Epochs) == 0:
		return nil, 0, errors.New("the hello names no epoch")
	case len(hello.Epochs) > maxEpochs:
		return nil, 0, fmt.Errorf("the hello names %d epochs, more than %d", len(hello.Epochs), maxEpochs)
	}
	for _, e := range hello.Epochs {
		if e.Id == "" || len(e.Id) > maxEpochID || len(e.Parent) > maxEpochID {
			return nil, 0, errors.New("the hello has an epoch without a proper id")
		}
	}
	return hello, f.Id, nil
}

// claim makes s the node's session. A session of the same process is replaced;
// so is one that no longer answers, or whose key is no longer the node's. One of
// another process that does answer is a second edge with the same identity: it
// stays, and the error is errDuplicate.
func (m *Manager) claim(ctx context.Context, s *session) error {
	for {
		m.mu.Lock()
		rival := m.sessions[s.id.Name]
		switch {
		case m.closing:
			m.mu.Unlock()
			return errClosing
		case rival == nil:
			m.sessions[s.id.Name] = s
			m.mu.Unlock()
			return nil
		}
		m.mu.Unlock()
		if rival.epoch == s.epoch {
			m.replaced(s.id)
		} else if !rival.isEnding() && m.current(ctx, rival) && rival.answers(ctx) {
			return errDuplicate
		}
		if rival.isEnding() { // it is told why first
			select {
			case <-rival.done:
				continue
			case <-time.After(goodbyeTimeout):
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		rival.stop(errReplaced)
		_ = rival.conn.CloseNow()
		select {
		case <-rival.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// stillGood asks again whether a session's certificate is its node's.
func (m *Manager) stillGood(ctx context.Context, s *session) error {
	ctx, cancel := context.WithTimeout(ctx, welcomeTimeout)
	defer cancel()
	now, err := m.Identity.Authenticate(ctx, s.cert)
	if err == nil && now.UID != s.id.UID {
		err = identity.ErrNodeUnknown // deleted and made again
	}
	return err
}

// current reports whether a session's key is still its node's; a fault of the
// store, or a certificate that has expired meanwhile, says nothing against it.
func (m *Manager) current(ctx context.Context, s *session) bool {
	err := m.stillGood(ctx, s)
	return !errors.Is(err, identity.ErrKeyMismatch) && !errors.Is(err, identity.ErrNodeUnknown)
}

// answers reports whether the other end of a session is there.
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
	s.mu.Lock()
	if s.bye != nil && s.bye.Reason == edgelink.GoodbyeRevoked {
		delete(m.nodes, s.id.Name)
	}
	s.mu.Unlock()
	m.mu.Unlock()
	close(s.done)
	s.second.end()
}

// arrived and left note that a node is there or gone, and tell.
func (m *Manager) arrived(s *session, hello *pb.Hello, remote string) {
	m.mu.Lock()
	n := m.nodeLocked(s.id.Name)
	n.live, n.readySince, n.expires = true, m.now(), s.id.Expires
	n.info = models.NodeInfo{Version: cut(hello.Version), OS: cut(hello.Os), Architecture: cut(hello.Arch), Capability: int(hello.Capability), Address: remote}
	for _, c := range hello.Capabilities[:min(len(hello.Capabilities), 100)] {
		n.info.Capabilities = append(n.info.Capabilities, cut(c))
	}
	delete(n.conditions, engineReady) // of an earlier session; the edge tells anew
	m.mu.Unlock()
	m.Twins.NodeLive(s.id.Name, true)
	m.Workloads.NodeLive(s.id.Name, true, hello.Capabilities)
	m.Registry.StatusChanged(models.Key{Kind: "Node", Name: s.id.Name})
}

func (m *Manager) left(name string) {
	m.mu.Lock()
	if n := m.nodes[name]; n != nil {
		n.live, n.readySince, n.lastSeen = false, m.now(), m.now()
	}
	m.mu.Unlock()
	m.Twins.NodeLive(name, false)
	m.Workloads.NodeLive(name, false, nil)
	m.Registry.StatusChanged(models.Key{Kind: "Node", Name: name})
}

// run has eight loops: what is received, what of that is to be ingested, what is
// acknowledged, what is to be held, what is asked, what routes carry, whether the other end is
// alive, and whether it is time to say goodbye. The first that ends ends all.
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
		s.receive, s.submit, s.takeMappers, s.acknowledge, s.keepAlive, s.farewell, s.ask, s.routes,
		func(ctx context.Context) error { return s.deliver(ctx, hello, follower) },
	} {
		wait.Go(func() { cancel(loop(ctx)) })
	}
	<-ctx.Done()
	err := context.Cause(ctx)
	if !errors.Is(err, edgelink.ErrMalformed) {
		_ = s.conn.CloseNow() // a Send may be stuck
	}
	wait.Wait()
	return err
}

// receive handles what the edge sends. It never waits for the log lane to be
// stored: what waits there must not hold up live values and pongs.
func (s *session) receive(ctx context.Context) error {
	for {
		f, err := s.conn.Recv(ctx)
		if err != nil {
			return err
		}
		switch body := f.Body.(type) {
		case *pb.Frame_Batch:
			if _, ok := s.ranks[body.Batch.Epoch]; !ok {
				return fmt.Errorf("%w: batch of epoch %.64q, which the hello did not name", edgelink.ErrMalformed, body.Batch.Epoch)
			}
			if err := s.inbox.put(ctx, body.Batch); err != nil {
				return err
			}
		case *pb.Frame_Latest:
			s.latest(body.Latest)
		case *pb.Frame_Report:
			s.report(body.Report)
		case *pb.Frame_PodStatuses:
			s.pods(body.PodStatuses)
		case *pb.Frame_SyncDone:
			s.m.log.Debug("wanted state persisted", "node", s.id.Name, "sync", body.SyncDone.Id)
		case *pb.Frame_Response:
			if err := s.asks.take(f.Re, body.Response); err != nil {
				return err
			}
		case *pb.Frame_RouteMessages, *pb.Frame_RouteAcks, *pb.Frame_RouteReply, *pb.Frame_RouteCounts:
			if err := s.routed.take(f, s.m.Routes); err != nil {
				return err
			}
		case *pb.Frame_Goodbye:
			return fmt.Errorf("the edge said goodbye: %s", cut(body.Goodbye.Reason))
		case *pb.Frame_MapperInfo:
			select {
			case s.mappers <- body.MapperInfo:
			default:
				s.m.log.Warn("a node announces more mappers than there can be; the rest is ignored", "node", s.id.Name)
			}
		default: // of a newer edge; tolerated
		}
	}
}

// latest takes the latest lane. Whoever answered did so a while ago, by the
// edge's clock: that the hub's shows another time is evened out.
func (s *session) latest(l *pb.Latest) {
	rank, ok := s.ranks[l.Epoch]
	if !ok {
		return // of no epoch that can be ordered
	}
	for _, t := range l.Twins {
		if t.SeenUs != 0 {
			t.SeenUs += s.behind.Microseconds()
		}
	}
	s.m.Twins.Latest(s.id.Name, rank, l)
}

func (s *session) report(r *pb.NodeReport) {
	s.m.mu.Lock()
	n := s.m.nodeLocked(s.id.Name)
	before := n.outbox
	n.outbox = &models.OutboxState{Epoch: s.epoch, LastSeq: r.LastSeq, AckedSeq: r.LastSeq - min(r.LastSeq, r.OutboxRecords),
		Records: r.OutboxRecords, Bytes: r.OutboxBytes, Dropped: r.OutboxDropped}
	n.lastSeen = s.m.now()
	s.m.mu.Unlock()
	if r.ClockUs != 0 {
		s.behind = s.m.now().Sub(time.UnixMicro(r.ClockUs))
		s.judgeClock()
	}
	for _, seen := range r.Seen {
		if seen.SeenUs != 0 {
			seen.SeenUs += s.behind.Microseconds()
		}
	}
	s.m.Twins.Seen(s.id.Name, r.Seen)
	s.judgeDisk(cut(r.Failing))
	if before == nil || before.Dropped != r.OutboxDropped {
		s.m.Registry.StatusChanged(models.Key{Kind: "Node", Name: s.id.Name})
	}
}

// engineReady is the node's condition that tells of its container engine.
const engineReady = "EngineReady"

// pods takes what the edge tells of its pods and of its container engine.
func (s *session) pods(p *pb.PodStatuses) {
	s.m.Workloads.PodStatuses(s.id.Name, p)
	if p.Engine == nil {
		return
	}
	c := models.Condition{Type: engineReady, Status: "True", Reason: "EngineAnswers", LastTransitionTime: s.m.now().UTC()}
	if !p.Engine.Ready {
		c.Status, c.Reason, c.Message = "False", cut(cmp.Or(p.Engine.Reason, models.ReasonEngineUnavailable)), cut(p.Engine.Message)
	}
	s.m.mu.Lock()
	s.m.nodeLocked(s.id.Name).info.ContainerRuntimeVersion = cut(p.Engine.Version)
	s.m.mu.Unlock()
	s.m.setCondition(s.id.Name, c)
}

// inbox is the batches that wait to be ingested, in order. It is bounded by
// bytes: beyond what an edge may have on its way, reading from it stops.
type inbox struct {
	limit int
	some  chan struct{} // one slot: there is something
	room  chan struct{} // one slot: there is room again

	mu      sync.Mutex
	batches []*pb.Batch
	bytes   int
}

func (b *inbox) init(limit int) {
	b.limit, b.some, b.room = limit, make(chan struct{}, 1), make(chan struct{}, 1)
}

func size(b *pb.Batch) int {
	n := 64
	for _, r := range b.Records {
		n += 64 + len(r.Record)
	}
	return n
}

func (b *inbox) put(ctx context.Context, batch *pb.Batch) error {
	for {
		b.mu.Lock()
		if b.bytes < b.limit {
			b.batches = append(b.batches, batch)
			b.bytes += size(batch)
			b.mu.Unlock()
			signal(b.some)
			return nil
		}
		b.mu.Unlock()
		select {
		case <-b.room:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// take returns the oldest batch, nil when there is none.
func (b *inbox) take() *pb.Batch {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.batches) == 0 {
		return nil
	}
	batch := b.batches[0]
	b.batches[0] = nil
	b.batches = b.batches[1:]
	b.bytes -= size(batch)
	signal(b.room)
	return batch
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// submit hands the log lane over, one batch after the other.
func (s *session) submit(ctx context.Context) error {
	for {
		b := s.inbox.take()
		if b == nil {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-s.inbox.some:
			}
			continue
		}
		from := ingest.Origin{Node: s.id.Name, NodeUID: s.id.UID, Rank: s.ranks[b.Epoch]}
		err := s.m.Ingest.Submit(ctx, from, b, func(acked uint64, err error) {
			if err != nil {
				s.stop(fmt.Errorf("ingest: %w", err)) // ends ctx before it returns, as Submit asks
				return
			}
			s.mu.Lock()
			s.acks[b.Epoch] = max(s.acks[b.Epoch], acked)
			s.mu.Unlock()
			signal(s.ackUp)
		})
		if err != nil {
			return fmt.Errorf("ingest: %w", err)
		}
	}
}

// acknowledge tells the edge what is committed. Acks that come faster than they
// can be sent become one.
func (s *session) acknowledge(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
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
			return context.Cause(ctx)
		case <-tick.C:
		}
		ping, cancel := context.WithTimeout(ctx, pingTimeout)
		err := s.conn.Ping(ping)
		cancel()
		if err != nil {
			return fmt.Errorf("the edge does not answer: %w", err)
		}
	}
}

// farewell waits for the word to end, says goodbye, and gives the edge a moment
// to close. The link must stay open until then: the end of ctx closes it.
func (s *session) farewell(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-s.ending:
	}
	s.mu.Lock()
	bye := s.bye
	s.mu.Unlock()
	bounded, cancel := context.WithTimeout(ctx, goodbyeTimeout)
	defer cancel()
	drop := context.AfterFunc(bounded, func() { _ = s.conn.CloseNow() }) // a Send that is stuck
	defer drop()
	_ = s.conn.Send(bounded, &pb.Frame{Body: &pb.Frame_Goodbye{Goodbye: bye}}) // it ends either way
	<-bounded.Done()                                                           // or the edge closes, and receive ends ctx
	return fmt.Errorf("goodbye: %s", bye.Reason)
}

// cut bounds a text that an edge says of itself.
func cut(s string) string {
	if len(s) > maxNodeText {
		s = s[:maxNodeText]
	}
	return s
}
