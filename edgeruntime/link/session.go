package link

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/devices"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/outbox"
	"github.com/whimbrel-edge/whimbrel/internal/pki"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

const (
	// batchBytes bounds one Batch: on a slow uplink nothing else is sent meanwhile.
	batchBytes = 64 << 10
	// latestBytes bounds one Latest.
	latestBytes = 128 << 10
	// behindBytes is how much may wait in the log before it counts as behind.
	behindBytes = 64 << 10
	// defaultWindow is for a hub that says none.
	defaultWindow = 1 << 20
	// byeTimeout bounds taking leave.
	byeTimeout = 2 * time.Second
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
//	report    how the node is doing
//	alive     whether the other end is
//	renew     the certificate, in sessions that last
type session struct {
	l     *Link
	conn  *edgelink.Conn
	epoch string
	live  uint64        // records up to here were made before the session: they are backfill
	apply chan struct{} // one slot: the wanted state was stored

	mu     sync.Mutex
	window int
	flying []flight      // sent and not acknowledged, oldest first
	bytes  int           // of them
	acked  uint64        // highest seq the hub has
	moved  chan struct{} // one slot: something was acknowledged, or the window changed
}

// flight is a record that was sent.
type flight struct {
	epoch string
	seq   uint64
	bytes int
}

// session dials and runs one session to its end.
func (l *Link) session(ctx context.Context, connected *bool) error {
	conn, err := l.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.CloseNow()
	s := &session{l: l, conn: conn, apply: make(chan struct{}, 1), moved: make(chan struct{}, 1)}
	if err := s.greet(ctx); err != nil {
		return err
	}
	*connected = true
	l.setStatus(true, nil)
	l.log.Info("linked", "hub", l.cfg.URL)
	return s.run(ctx)
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
	s.epoch = cfg.Outbox.Epoch()
	ctx, cancel := context.WithTimeout(ctx, s.l.times.welcome)
	defer cancel()
	if err := s.conn.Send(ctx, &pb.Frame{Id: 1, Body: &pb.Frame_Hello{Hello: &pb.Hello{
		Capability: edgelink.Capability, Capabilities: edgelink.Capabilities(), Node: cfg.Node, Version: cfg.Version, Os: runtime.GOOS, Arch: runtime.GOARCH,
		Lineage: lineage, Epochs: epochs, Held: held, ClockUs: s.l.now().UnixMicro(), Labels: cfg.Labels,
	}}}); err != nil {
		return err
	}
	welcome, err := s.welcome(ctx)
	if err != nil {
		return err
	}
	if edgelink.Meet(edgelink.Capability, welcome.Capability) == 0 {
		return errors.New("the hub names no capability that this edge knows")
	}
	s.window = int(welcome.WindowBytes)
	if s.window <= 0 {
		s.window = defaultWindow
	}
	for _, a := range welcome.Acks {
		if err := s.acknowledge(a); err != nil {
			return err
		}
	}
	for _, e := range epochs {
		s.live = max(s.live, e.Last, e.ParentLast)
	}
	return s.compareLineage(ctx, lineage, welcome)
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
func (s *session) compareLineage(ctx context.Context, before string, w *pb.Welcome) error {
	if w.Lineage == "" || w.Lineage == before {
		return nil
	}
	settings := map[string]string{settingLineage: w.Lineage, settingNodeUID: w.NodeUid}
	if before == "" {
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
	for _, loop := range []func(context.Context) error{s.receive, s.applyLoop, s.logLane, s.latestLane, s.report, s.alive, s.renew} {
		wait.Go(func() { cancel(loop(loops)) })
	}
	select {
	case <-loops.Done():
	case <-ctx.Done():
		s.leave(&pb.Goodbye{Reason: edgelink.GoodbyeShutdown})
		cancel(context.Cause(ctx))
	}
	err := context.Cause(loops)
	if errors.Is(err, edgelink.ErrMalformed) {
		s.leave(&pb.Goodbye{Reason: edgelink.GoodbyeProtocolError, Message: err.Error()})
	}
	_ = s.conn.CloseNow()
	wait.Wait()
	return err
}

// leave says goodbye and closes the link, without waiting long.
func (s *session) leave(bye *pb.Goodbye) {
	done := make(chan struct{})
	go func() { // ends with CloseNow at the latest, and is waited for
		defer close(done)
		if s.conn.Send(context.Background(), &pb.Frame{Body: &pb.Frame_Goodbye{Goodbye: bye}}) == nil {
			_ = s.conn.Close(bye.Reason)
		}
	}()
	limit := time.NewTimer(byeTimeout)
	defer limit.Stop()
	select {
	case <-done:
	case <-limit.C:
	}
	_ = s.conn.CloseNow()
	<-done
}

// receive handles what the hub sends.
func (s *session) receive(ctx context.Context) error {
	for {
		f, err := s.conn.Recv(ctx)
		if err != nil {
			return err
		}
		switch body := f.Body.(type) {
		case *pb.Frame_Ack:
			if err := s.ack(body.Ack); err != nil {
				return err
			}
		case *pb.Frame_Sync:
			if err := s.l.cfg.Store.ApplySync(ctx, body.Sync); err != nil {
				return err
			}
			notify(s.apply)
			if err := s.conn.Send(ctx, &pb.Frame{Re: f.Id, Body: &pb.Frame_SyncDone{SyncDone: &pb.SyncDone{Id: body.Sync.Id}}}); err != nil {
				return err
			}
		case *pb.Frame_Goodbye:
			return goodbye{body.Goodbye}
		default: // of a newer hub; tolerated
		}
	}
}

func notify(wake chan<- struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// applyLoop hands what was stored to the devices. Syncs that come quickly after
// each other are handed over together.
func (s *session) applyLoop(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.apply:
		}
		items, err := s.l.cfg.Store.Items(ctx)
		if err != nil {
			return err
		}
		s.l.cfg.Devices.Apply(items)
	}
}

func (s *session) ack(a *pb.Ack) error {
	for _, e := range a.Acks {
		if err := s.acknowledge(e); err != nil {
			return err
		}
	}
	s.mu.Lock()
	if a.WindowBytes > 0 {
		s.window = int(a.WindowBytes)
	}
	s.mu.Unlock()
	notify(s.moved)
	return nil
}

// acknowledge forgets what the hub has. An epoch that is gone is none of ours.
func (s *session) acknowledge(a *pb.EpochAck) error {
	if err := s.l.cfg.Outbox.Ack(a.Epoch, a.Seq); err != nil {
		if errors.Is(err, outbox.ErrUnknownSeq) {
			return fmt.Errorf("%w: the hub acknowledges record %d of epoch %s, which was never made", edgelink.ErrMalformed, a.Seq, a.Epoch)
		}
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	left := s.flying[:0]
	for _, f := range s.flying {
		if f.epoch == a.Epoch && f.seq <= a.Seq {
			s.bytes -= f.bytes
		} else {
			left = append(left, f)
		}
	}
	s.flying = left
	s.acked = max(s.acked, a.Seq)
	return nil
}

// logLane sends the log from its beginning, which is after what is acknowledged,
// as far as the window allows.
func (s *session) logLane(ctx context.Context) error {
	var cursor outbox.Cursor
	for {
		room := s.room(0)
		if room <= 0 {
			if err := s.waitForRoom(ctx, 1); err != nil {
				return err
			}
			continue
		}
		records, err := s.l.cfg.Outbox.Next(ctx, cursor, min(batchBytes, room))
		if err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		}
		if err := s.sendRecords(ctx, records); err != nil {
			return err
		}
		cursor = records[len(records)-1].Cursor()
	}
}

// sendRecords sends records as one batch per epoch.
func (s *session) sendRecords(ctx context.Context, records []outbox.Record) error {
	for len(records) > 0 {
		batch := &pb.Batch{Epoch: records[0].Epoch}
		size := 0
		for len(records) > 0 && records[0].Epoch == batch.Epoch {
			r := records[0]
			if len(batch.Records) > 0 && size+len(r.Data) > batchBytes {
				break
			}
			batch.Records = append(batch.Records, &pb.Numbered{Seq: r.Seq, Record: r.Data, Backfill: r.Seq <= s.live})
			size += len(r.Data)
			records = records[1:]
		}
		// The first record may be larger than what there is room for.
		if err := s.waitForRoom(ctx, size); err != nil {
			return err
		}
		s.mu.Lock()
		for _, r := range batch.Records {
			s.flying = append(s.flying, flight{batch.Epoch, r.Seq, len(r.Record)})
		}
		s.bytes += size
		s.mu.Unlock()
		if err := s.conn.Send(ctx, &pb.Frame{Body: &pb.Frame_Batch{Batch: batch}}); err != nil {
			return err
		}
	}
	return nil
}

// room is what the window leaves; with nothing on its way, at least least.
func (s *session) room(least int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.flying) == 0 {
		return max(s.window, least)
	}
	return s.window - s.bytes
}

func (s *session) waitForRoom(ctx context.Context, size int) error {
	for s.room(size) < size {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.moved:
		}
	}
	return nil
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

// behind reports whether the log lane is.
func (s *session) behind() bool {
	stats := s.l.cfg.Outbox.Stats()
	if stats.Records == 0 {
		return false
	}
	return stats.Bytes > behindBytes || !stats.Oldest.IsZero() && s.l.now().Sub(stats.Oldest) > s.l.times.behind
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
	tick := time.NewTicker(s.l.times.report)
	defer tick.Stop()
	for {
		stats := s.l.cfg.Outbox.Stats()
		if err := s.conn.Send(ctx, &pb.Frame{Body: &pb.Frame_Report{Report: &pb.NodeReport{
			OutboxRecords: stats.Records, OutboxBytes: stats.Bytes, OutboxDropped: stats.Dropped, LastSeq: stats.LastSeq,
			ClockUs: s.l.now().UnixMicro(), Seen: s.l.cfg.Devices.Seen(),
		}}}); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// alive notices an end that has fallen silent.
func (s *session) alive(ctx context.Context) error {
	tick := time.NewTicker(s.l.times.ping)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		ping, cancel := context.WithTimeout(ctx, s.l.times.pong)
		err := s.conn.Ping(ping)
		cancel()
		if err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
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
		leaf := s.l.identity.leaf()
		if !pki.RenewDue(leaf, s.l.now()) {
			continue
		}
		if err := s.l.identity.renew(ctx, s.l.cfg.URL); err != nil {
			s.l.log.Warn("renewing the certificate failed; it is tried again", "expires", leaf.NotAfter, "error", err)
		} else {
			s.l.sayRenewed()
		}
	}
}
