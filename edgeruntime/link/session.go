package link

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/devices"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/outbox"
	"github.com/whimbrel-edge/whimbrel/internal/failpoint"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

const (
	// batchBytes bounds one Batch: on a slow uplink nothing else is sent meanwhile.
	batchBytes = 64 << 10
	// latestBytes bounds one Latest.
	latestBytes = 128 << 10
	// defaultWindow is for a hub that says none.
	defaultWindow = 1 << 20
	// maxWindow is as much as makes sense to have on its way.
	maxWindow = 64 << 20
	// startPace and minPace bound what is on its way as long as the link has not
	// shown how much it carries, and when it has shown that it carries little.
	startPace = 64 << 10
	minPace   = 16 << 10
)

// errSilent ends a session whose other end has fallen silent, as when a cable is
// pulled: nothing says so.
var errSilent = errors.New("the hub does not answer")

// session is one live link. Its loops:
//
//	receive   what the hub sends; acknowledgements and wanted state
//	apply     hands stored wanted state to the devices
//	log       the log lane
//	latest    the latest lane
//	pods      how the pods are doing
//	routes    messages of routes, and answers to them
//	mappers   which drivers there are
//	report    how the node is doing
//	alive     whether the other end is
//	renew     the certificate, in sessions that last
//	again     what the hub wants and could not be stored at first
//
// and requests, each of which has a goroutine of its own.
type session struct {
	l      *Link
	conn   *edgelink.Conn
	epoch  string
	named  map[string]bool // the epochs of the hello: the hub knows no other in this session
	live   uint64          // records up to here were made before the session: they are backfill
	apply  chan struct{}   // one slot: the wanted state was stored
	moved  chan struct{}   // one slot: something was acknowledged, or the window changed
	ended  chan struct{}   // closed when receive has ended
	heard  atomic.Int64    // when the last frame came, since began
	asked  requests        // that the hub waits for
	second *second         // connection
	began  time.Time       // by the clock that does not jump

	carries bool               // the hub takes messages of routes
	stored  chan *pb.RouteAcks // the hub's answer to the parcel that is on its way

	mu       sync.Mutex // protects all below
	unstored *pb.Frame  // a Sync that could not be stored; while there is one, later ones are passed by
	why      error      // it could not
	passed   bool       // some were
	window   int        // the hub's bound of bytes
	pace     int        // the link's
	slowed   time.Time  // when pace was last lowered
	flying   []flight   // sent and not acknowledged, oldest first
	bytes    int        // of them
	acked    uint64     // highest seq the hub has

	// latestLane's own, for behind.
	mark     uint64    // a seq that had been given out at markedAt
	markedAt time.Time // and was not acknowledged as far as is known
}

// flight is a record that was sent.
type flight struct {
	epoch string
	seq   uint64
	bytes int
	at    time.Time
}

// session dials and runs one session to its end.
func (l *Link) session(ctx context.Context, linked *time.Time) error {
	conn, err := l.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.CloseNow()
	s := newSession(l, conn)
	if err := s.greet(ctx); err != nil {
		if errors.Is(err, edgelink.ErrMalformed) {
			s.leave(protocolError(err), s.drain)
		}
		return err
	}
	s.heard.Store(int64(time.Since(s.began)))
	*linked = time.Now()
	l.setStatus(true, nil)
	l.log.Info("linked", "hub", l.cfg.URL)
	l.live.Store(s)
	defer l.live.Store(nil)
	return s.run(ctx)
}

func newSession(l *Link, conn *edgelink.Conn) *session {
	return &session{l: l, conn: conn, named: map[string]bool{}, apply: make(chan struct{}, 1), moved: make(chan struct{}, 1),
		ended: make(chan struct{}), stored: make(chan *pb.RouteAcks, 1), began: time.Now(), pace: startPace, asked: newRequests(), second: newSecond()}
}

func (l *Link) dial(ctx context.Context) (*edgelink.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return edgelink.Dial(ctx, l.cfg.URL, l.identity.tls())
}

// greet says hello, and takes what the hub answers.
func (s *session) greet(ctx context.Context) error {
	cfg := &s.l.cfg
	held, err := cfg.Store.Held(ctx)
	if err != nil {
		return err
	}
	lineage, err := cfg.Store.Setting(ctx, settingLineage)
	if err != nil {
		return err
	}
	epochs := cfg.Outbox.Epochs()
	for _, e := range epochs {
		s.named[e.Id], s.epoch = true, e.Id
		s.live = max(s.live, e.Last, e.ParentLast)
	}
	s.mark = s.live // and markedAt long ago: with a log from before, the log lane is behind from the start
	ctx, cancel := context.WithTimeout(ctx, s.l.times.welcome)
	defer cancel()
	// Neither a hub that takes no bytes nor a stop waits for the Send to end.
	free := context.AfterFunc(ctx, func() { _ = s.conn.CloseNow() })
	defer free()
	if err := s.conn.Send(ctx, &pb.Frame{Id: 1, Body: &pb.Frame_Hello{Hello: &pb.Hello{
		Capability: edgelink.Capability, Capabilities: cfg.capabilities(), Node: cfg.Node, Version: cfg.Version, Os: runtime.GOOS, Arch: runtime.GOARCH,
		Lineage: lineage, Epochs: epochs, Held: held, ClockUs: s.l.now().UnixMicro(), Labels: cfg.Labels,
	}}}); err != nil {
		return err
	}
	welcome, err := s.welcome(ctx)
	if err != nil {
		return err
	}
	s.carries = slices.Contains(welcome.Capabilities, edgelink.CapabilityRoutes)
	if edgelink.Meet(edgelink.Capability, welcome.Capability) == 0 {
		return errors.New("the hub names no capability that this edge knows")
	}
	s.window = defaultWindow
	if w := welcome.WindowBytes; w > 0 {
		s.window = int(min(w, maxWindow))
	}
	for _, a := range welcome.Acks {
		if err := s.acknowledge(a); err != nil {
			return err
		}
	}
	return s.compareLineage(ctx, lineage, len(held) > 0, welcome)
}

func (s *session) welcome(ctx context.Context) (*pb.Welcome, error) {
	for {
		f, err := s.conn.Recv(ctx)
		if err != nil {
			return nil, fmt.Errorf("no welcome: %w", err)
		}
		switch body := f.Body.(type) {
		case *pb.Frame_Welcome:
			return body.Welcome, nil
		case *pb.Frame_Goodbye:
			return nil, goodbye{body.Goodbye}
		}
	}
}

// compareLineage notices a hub whose database is another one than before. What
// it calls revision 7 may be something else than what is held here as 7.
func (s *session) compareLineage(ctx context.Context, before string, holds bool, w *pb.Welcome) error {
	if w.Lineage == "" || w.Lineage == before {
		return nil
	}
	settings := map[string]string{settingLineage: w.Lineage, settingNodeUID: w.NodeUid}
	if !holds {
		return s.l.cfg.Store.SetSettings(ctx, settings)
	}
	s.l.log.Warn("the hub's database is another one than before; what it wants is fetched anew", "before", before, "now", w.Lineage)
	// In this order: whoever is stopped in between fetches it all the same.
	if err := s.l.cfg.Store.ForgetRevisions(ctx); err != nil {
		return err
	}
	if err := s.l.cfg.Store.SetSettings(ctx, settings); err != nil {
		return err
	}
	return fmt.Errorf("%w: the hub's lineage has changed", errAgain)
}

// run runs the loops. The first that ends ends all. When ctx ends the session
// takes leave.
func (s *session) run(ctx context.Context) error {
	// The loops do not end with ctx: the goodbye goes out before.
	loops, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	var wait sync.WaitGroup
	defer s.second.end()
	defer s.asked.end()
	for _, loop := range []func(context.Context) error{s.receive, s.applyLoop, s.logLane, s.latestLane, s.pods, s.routes, s.tellMappers, s.report, s.alive, s.renew, s.storeAgain} {
		wait.Go(func() { cancel(loop(loops)) })
	}
	select {
	case <-loops.Done():
	case <-ctx.Done():
		s.leave(&pb.Goodbye{Reason: edgelink.GoodbyeShutdown}, func(ctx context.Context) {
			select {
			case <-s.ended:
			case <-ctx.Done():
			}
		})
		cancel(context.Cause(ctx))
	}
	err := context.Cause(loops)
	if errors.Is(err, edgelink.ErrMalformed) {
		s.leave(protocolError(err), s.drain)
	}
	_ = s.conn.CloseNow() // frees a Send that the network holds up
	wait.Wait()
	return err
}

func protocolError(err error) *pb.Goodbye {
	return &pb.Goodbye{Reason: edgelink.GoodbyeProtocolError, Message: err.Error()}
}

// leave says goodbye and then closes the link, both in times.leave. Between the
// two gone waits until the hub has closed it: a link that is closed with
// something unread is reset, and the goodbye may be lost with it. (Conn.Close
// would wait for up to 10 s, and a CloseNow after it as well.)
func (s *session) leave(bye *pb.Goodbye, gone func(ctx context.Context)) {
	ctx, cancel := context.WithTimeout(context.Background(), s.l.times.leave)
	defer cancel()
	free := context.AfterFunc(ctx, func() { _ = s.conn.CloseNow() })
	defer free()
	if s.conn.Send(ctx, &pb.Frame{Body: &pb.Frame_Goodbye{Goodbye: bye}}) == nil {
		gone(ctx)
	}
	_ = s.conn.CloseNow()
}

// drain lets pass what comes until the hub closes the link or ctx ends. receive
// must have ended.
func (s *session) drain(ctx context.Context) {
	for {
		if _, err := s.conn.Recv(ctx); err != nil && !errors.Is(err, edgelink.ErrMalformed) {
			return
		}
	}
}

// receive handles what the hub sends.
func (s *session) receive(ctx context.Context) error {
	defer close(s.ended)
	for {
		f, err := s.conn.Recv(ctx)
		if err != nil {
			return err
		}
		s.heard.Store(int64(time.Since(s.began)))
		switch body := f.Body.(type) {
		case *pb.Frame_Ack:
			if err := s.ack(body.Ack); err != nil {
				return err
			}
		case *pb.Frame_Sync:
			if err := s.take(ctx, f); err != nil {
				return err
			}
		case *pb.Frame_Request:
			if err := s.asked.begin(s, f.Id, f.Trace, body.Request); err != nil {
				return err
			}
		case *pb.Frame_Cancel:
			s.asked.cancel(f.Re)
		case *pb.Frame_Credit:
			s.asked.credit(f.Re, body.Credit.Parts)
		case *pb.Frame_RouteMessages, *pb.Frame_RouteAcks, *pb.Frame_RouteReply:
			if err := s.routed(ctx, f); err != nil {
				return err
			}
		case *pb.Frame_Goodbye:
			return goodbye{body.Goodbye}
		default: // of a newer hub; tolerated
		}
	}
}

// take stores what the hub wants. That a full disk does not let it is no reason to end
// the session: live values go on, and so does what the hub wanted before.
func (s *session) take(ctx context.Context, f *pb.Frame) error {
	s.mu.Lock()
	waits := s.unstored != nil
	s.passed = s.passed || waits
	s.mu.Unlock()
	if waits {
		return nil
	}
	err := s.l.cfg.Store.ApplySync(ctx, f.GetSync())
	switch {
	case err == nil:
		return s.taken(ctx, f)
	case ctx.Err() != nil:
		return err
	}
	s.l.log.Error("what the hub wants cannot be stored: it is tried again, and until then what it wanted before holds", "error", err)
	s.mu.Lock()
	s.unstored, s.why = f, err
	s.mu.Unlock()
	return nil
}

// taken hands over what was stored and says so.
func (s *session) taken(ctx context.Context, f *pb.Frame) error {
	failpoint.Here("sync.stored")
	notify(s.apply)
	return s.conn.Send(ctx, &pb.Frame{Re: f.Id, Body: &pb.Frame_SyncDone{SyncDone: &pb.SyncDone{Id: f.GetSync().Id}}})
}

// storeAgain tries to store what could not be stored. What was passed by meanwhile comes
// with a new session, in which the hub is told what is held.
func (s *session) storeAgain(ctx context.Context) error {
	tick := time.NewTicker(s.l.times.store)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		s.mu.Lock()
		f := s.unstored
		s.mu.Unlock()
		if f == nil {
			continue
		}
		err := s.l.cfg.Store.ApplySync(ctx, f.GetSync())
		if err == nil {
			err = s.taken(ctx, f)
		} else if ctx.Err() == nil {
			continue
		}
		if err != nil {
			return err
		}
		s.mu.Lock()
		s.unstored, s.why = nil, nil
		passed := s.passed
		s.mu.Unlock()
		s.l.log.Info("what the hub wants is stored again")
		if passed {
			return fmt.Errorf("%w: what the hub wants could not be stored for a while", errAgain)
		}
	}
}

// failing says why the edge cannot store, "" when it can.
func (s *session) failing(stats outbox.Stats) string {
	s.mu.Lock()
	err := s.why
	s.mu.Unlock()
	switch err = cmp.Or(stats.Failing, err); {
	case err == nil:
		return ""
	case outbox.DiskFull(err):
		return "the disk is full"
	}
	return err.Error()
}

func notify(wake chan<- struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// applyLoop hands what was stored to the devices. Syncs that come quickly after
// each other are handed over together. What was stored is handed over also when
// the session ends meanwhile: the next one may be a long time away.
func (s *session) applyLoop(ctx context.Context) error {
	for {
		select {
		case <-s.apply:
		case <-ctx.Done():
			<-s.ended
			select {
			case <-s.apply:
			default:
				return context.Cause(ctx)
			}
		}
		items, err := s.l.cfg.Store.Items(context.WithoutCancel(ctx))
		if err != nil {
			return err
		}
		s.l.cfg.Devices.Apply(items)
		if s.l.cfg.Applied != nil {
			s.l.cfg.Applied(items)
		}
	}
}

func (s *session) ack(a *pb.Ack) error {
	for _, e := range a.Acks {
		if err := s.acknowledge(e); err != nil {
			return err
		}
	}
	s.mu.Lock()
	if w := a.WindowBytes; w > 0 {
		s.window = int(min(w, maxWindow))
	}
	s.mu.Unlock()
	notify(s.moved)
	return nil
}

// acknowledge forgets what the hub has. An epoch that the hello did not name is
// none of ours.
func (s *session) acknowledge(a *pb.EpochAck) error {
	if !s.named[a.Epoch] {
		return nil
	}
	if err := s.l.cfg.Outbox.Ack(a.Epoch, a.Seq); err != nil {
		if errors.Is(err, outbox.ErrUnknownSeq) {
			return fmt.Errorf("%w: the hub acknowledges record %d of epoch %s, which was never made", edgelink.ErrMalformed, a.Seq, a.Epoch)
		}
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	before, slow := s.bytes, false
	left := s.flying[:0]
	for _, f := range s.flying {
		if f.epoch == a.Epoch && f.seq <= a.Seq {
			s.bytes -= f.bytes
			slow = slow || f.at.After(s.slowed) && now.Sub(f.at) > s.l.times.slow
		} else {
			left = append(left, f)
		}
	}
	s.flying = left
	s.acked = max(s.acked, a.Seq)
	if slow {
		s.pace, s.slowed = max(s.pace/2, minPace), now
	} else {
		s.pace = min(s.pace+before-s.bytes, maxWindow)
	}
	return nil
}

// logLane sends the log from its beginning, which is after what is acknowledged,
// as far as the hub's window and the link's pace allow. On a slow link the pace
// keeps the newest values, and the answers to the hub's pings, from waiting for
// minutes behind the log in the buffers of the network.
func (s *session) logLane(ctx context.Context) error {
	var cursor outbox.Cursor
	need := 1
	for {
		room, err := s.waitForRoom(ctx, need)
		if err != nil {
			return err
		}
		records, err := s.l.cfg.Outbox.Next(ctx, cursor, room)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if errors.Is(err, outbox.ErrClosed) {
			return err
		}
		if err != nil { // what else the link does goes on
			s.l.log.Error("the outbox cannot be read; it is tried again", "error", err)
			if !sleep(ctx, s.l.times.reread) {
				return context.Cause(ctx)
			}
			continue
		}
		if !s.named[records[0].Epoch] {
			return fmt.Errorf("%w: the log has a new epoch", errAgain)
		}
		batch := s.admit(records)
		if len(batch.Records) == 0 {
			// Larger than the room. It is read again when there is more: it may be
			// dropped by then.
			need = len(records[0].Data)
			continue
		}
		need = 1
		if err := s.conn.Send(ctx, &pb.Frame{Body: &pb.Frame_Batch{Batch: batch}}); err != nil {
			return err
		}
		cursor = records[len(batch.Records)-1].Cursor()
	}
}

// waitForRoom waits until so many bytes may be sent, or nothing is on its way:
// then any one record may be. It returns how much a batch may hold.
func (s *session) waitForRoom(ctx context.Context, bytes int) (int, error) {
	for {
		s.mu.Lock()
		room, pace, idle := s.roomLocked(), s.pace, len(s.flying) == 0
		s.mu.Unlock()
		if room >= bytes || idle {
			return max(min(room, batchBytes, pace/2), 1), nil
		}
		select {
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-s.moved:
		}
	}
}

func (s *session) roomLocked() int { return min(s.window, s.pace) - s.bytes }

// admit makes a batch of as many of the records as there is room for, and counts
// them as being on their way.
func (s *session) admit(records []outbox.Record) *pb.Batch {
	batch := &pb.Batch{Epoch: records[0].Epoch}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range records {
		if r.Epoch != batch.Epoch || len(s.flying) > 0 && len(r.Data) > s.roomLocked() {
			break
		}
		batch.Records = append(batch.Records, &pb.Numbered{Seq: r.Seq, Record: r.Data, Backfill: r.Seq <= s.live})
		s.flying = append(s.flying, flight{r.Epoch, r.Seq, len(r.Data), now})
		s.bytes += len(r.Data)
	}
	return batch
}

// latestLane tells the newest state of everything, and then what changes. As
// long as the log lane keeps up, values go there alone.
func (s *session) latestLane(ctx context.Context) error {
	if err := s.tellLatest(ctx, devices.LatestWanted{Full: true}); err != nil {
		return err
	}
	tick := time.NewTicker(s.l.times.latest)
	defer tick.Stop()
	for {
		want := devices.LatestWanted{}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.l.cfg.Devices.LatestWake():
		case <-tick.C:
			if !s.behind() {
				continue
			}
			s.mu.Lock()
			want = devices.LatestWanted{Values: true, Acked: s.acked}
			s.mu.Unlock()
		}
		if err := s.tellLatest(ctx, want); err != nil {
			return err
		}
	}
}

// behind reports whether the log lane is: whether records that were there some
// time ago are not acknowledged yet. The edge's clock, which may jump, has no part
// in that.
func (s *session) behind() bool {
	stats, now := s.l.cfg.Outbox.Stats(), time.Now()
	s.mu.Lock()
	acked := s.acked
	s.mu.Unlock()
	if stats.Records == 0 || acked >= s.mark {
		s.mark, s.markedAt = stats.LastSeq, now
	}
	return now.Sub(s.markedAt) > s.l.times.behind
}

// tellLatest sends what the devices have to tell, in messages of a moderate size.
func (s *session) tellLatest(ctx context.Context, want devices.LatestWanted) error {
	message := &pb.Latest{Epoch: s.epoch}
	size := 0
	flush := func() error {
		if len(message.Twins) == 0 {
			return nil
		}
		err := s.conn.Send(ctx, &pb.Frame{Body: &pb.Frame_Latest{Latest: message}})
		message, size = &pb.Latest{Epoch: s.epoch}, 0
		return err
	}
	for _, t := range s.l.cfg.Devices.Latest(want) {
		for _, part := range split(t) {
			n := part.SizeVT()
			if size+n > latestBytes {
				if err := flush(); err != nil {
					return err
				}
			}
			message.Twins = append(message.Twins, part)
			size += n
		}
	}
	return flush()
}

// split divides a device with large values into parts. A value that no message
// can carry is left out: the log lane has refused it, too.
func split(t *pb.LatestTwin) []*pb.LatestTwin {
	if t.SizeVT() <= latestBytes {
		return []*pb.LatestTwin{t}
	}
	var parts []*pb.LatestTwin
	values := t.Values
	t.Values = nil
	size := 0
	for _, v := range values {
		n := v.SizeVT()
		if n > edgelink.MaxRecord {
			continue
		}
		if size > 0 && size+n > latestBytes {
			parts = append(parts, t)
			t = &pb.LatestTwin{Device: t.Device, Seq: t.Seq, Problem: t.Problem}
			size = 0
		}
		t.Values = append(t.Values, v)
		size += n
	}
	return append(parts, t)
}

// report says how the node is doing.
func (s *session) report(ctx context.Context) error {
	// That the edge cannot store does not wait for its turn.
	tick := time.NewTicker(min(s.l.times.report, time.Second))
	defer tick.Stop()
	told, said := time.Time{}, ""
	for {
		stats := s.l.cfg.Outbox.Stats()
		if failing := s.failing(stats); time.Since(told) >= s.l.times.report || (failing == "") != (said == "") {
			if err := s.conn.Send(ctx, &pb.Frame{Body: &pb.Frame_Report{Report: &pb.NodeReport{
				OutboxRecords: stats.Records, OutboxBytes: stats.Bytes, OutboxDropped: stats.Dropped, LastSeq: stats.LastSeq,
				ClockUs: s.l.now().UnixMicro(), Seen: s.l.cfg.Devices.Seen(), Failing: failing,
			}}}); err != nil {
				return err
			}
			told, said = time.Now(), failing
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// alive notices an end that has fallen silent: no frame comes and no answer to a
// ping. On a slow link a ping may fail because it has to wait for its turn, so
// that alone says nothing.
func (s *session) alive(ctx context.Context) error {
	tick := time.NewTicker(s.l.times.ping)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		end := s.began.Add(time.Duration(s.heard.Load()) + s.l.times.silent)
		ping, cancel := context.WithDeadline(ctx, end)
		err := s.conn.Ping(ping)
		cancel()
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil:
			s.heard.Store(int64(time.Since(s.began)))
		case time.Since(s.began) >= time.Duration(s.heard.Load())+s.l.times.silent:
			return fmt.Errorf("%w: %w", errSilent, err)
		}
	}
}

// renew renews the certificate when two thirds of its life are over. The session
// goes on with the old one.
func (s *session) renew(ctx context.Context) error {
	tick := time.NewTicker(s.l.times.renewCheck)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		s.l.renewIfDue(ctx)
	}
}
