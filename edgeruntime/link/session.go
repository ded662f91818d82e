package link

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/devices"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/outbox"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

// Times and sizes of a session.
const (
	helloTimeout = 15 * time.Second
	pingEvery    = 15 * time.Second
	pingTimeout  = 10 * time.Second
	reportEvery  = 10 * time.Second
	behindEvery  = 500 * time.Millisecond // newest values while the log is behind
	behindAfter  = 2 * time.Second        // the log is behind when its oldest record is older
	batchBytes   = 256 << 10              // of records in one Batch
	latestBytes  = 1 << 20                // of twins in one Latest, about
)

// session is one live link.
type session struct {
	l     *Link
	conn  *edgelink.Conn
	log   *slog.Logger
	began time.Time      // records made before are backfill
	syncs chan *pb.Frame // to persist; full stops the reader, and so the hub
	acked chan struct{}  // one slot: flying has changed

	mu     sync.Mutex        // protects all below
	window int               // bytes of records that may be unacknowledged
	bytes  int               // of records on their way
	queue  []flight          // records on their way, oldest first; bounded by window
	flying map[string]uint64 // highest seq acknowledged, by epoch
}

// flight is a record that was sent and not acknowledged.
type flight struct {
	epoch string
	seq   uint64
	bytes int
}

// run says hello and serves the session to its end.
func (s *session) run(ctx context.Context) error {
	hello, err := s.l.hello(ctx)
	if err != nil {
		return err
	}
	welcome, err := s.greet(ctx, hello)
	if err != nil {
		return err
	}
	if err := s.welcomed(ctx, hello, welcome); err != nil {
		return err
	}
	s.l.setConnected(true, nil)
	s.log.Info("linked to the hub", "hub", s.l.cfg.HubURL)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wait sync.WaitGroup
	for _, loop := range []func(context.Context) error{s.receive, s.persist, s.sendLog, s.sendLatest, s.report, s.keepAlive, s.renewal} {
		wait.Go(func() { cancel(loop(ctx)) })
	}
	<-ctx.Done()
	if parent := context.Cause(ctx); errors.Is(parent, context.Canceled) {
		s.sayGoodbye()
	}
	_ = s.conn.CloseNow() // frees a Send that waits for the network
	wait.Wait()
	return context.Cause(ctx)
}

// sayGoodbye tells the hub that the edge stops on purpose.
func (s *session) sayGoodbye() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = s.conn.Send(ctx, &pb.Frame{Body: &pb.Frame_Goodbye{Goodbye: &pb.Goodbye{Reason: edgelink.GoodbyeShutdown}}}) // a courtesy
}

// greet sends the hello and waits for the welcome.
func (s *session) greet(ctx context.Context, hello *pb.Hello) (*pb.Welcome, error) {
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	if err := s.conn.Send(ctx, &pb.Frame{Id: 1, Body: &pb.Frame_Hello{Hello: hello}}); err != nil {
		return nil, err
	}
	f, err := s.conn.Recv(ctx)
	if err != nil {
		return nil, fmt.Errorf("wait for the hub's welcome: %w", err)
	}
	switch body := f.Body.(type) {
	case *pb.Frame_Welcome:
		return body.Welcome, nil
	case *pb.Frame_Goodbye:
		return nil, goodbye(body.Goodbye)
	}
	return nil, errors.New("the hub's first frame is not a welcome")
}

func goodbye(b *pb.Goodbye) error {
	return &goodbyeError{reason: b.Reason, message: b.Message, retryAfter: time.Duration(b.RetryAfterS) * time.Second}
}

// welcomed notes what the hub says of itself and of the log.
func (s *session) welcomed(ctx context.Context, hello *pb.Hello, w *pb.Welcome) error {
	if w.Lineage != hello.Lineage {
		if hello.Lineage != "" {
			s.log.Error("the hub's database is another one than before: it was restored or replaced", "was", hello.Lineage, "is", w.Lineage)
		}
		if err := s.l.cfg.Store.SetSettings(ctx, map[string]string{settingLineage: w.Lineage, settingNodeUID: w.NodeUid}); err != nil {
			return fmt.Errorf("keep the hub's lineage: %w", err)
		}
	}
	s.mu.Lock()
	s.window = int(max(w.WindowBytes, 64<<10))
	s.mu.Unlock()
	s.acknowledged(w.Acks)
	return nil
}

// acknowledged forgets what the hub has committed.
func (s *session) acknowledged(acks []*pb.EpochAck) {
	for _, a := range acks {
		if a.Seq == 0 {
			continue
		}
		if err := s.l.cfg.Outbox.Ack(a.Epoch, a.Seq); err != nil {
			s.log.Warn("the hub acknowledges what the outbox does not know", "epoch", a.Epoch, "seq", a.Seq, "error", err)
		}
	}
	s.mu.Lock()
	for _, a := range acks {
		s.flying[a.Epoch] = max(s.flying[a.Epoch], a.Seq)
	}
	kept := s.queue[:0]
	for _, f := range s.queue {
		if f.seq <= s.flying[f.epoch] {
			s.bytes -= f.bytes
		} else {
			kept = append(kept, f)
		}
	}
	s.queue = kept
	s.mu.Unlock()
	select {
	case s.acked <- struct{}{}:
	default:
	}
}

// receive takes what the hub sends.
func (s *session) receive(ctx context.Context) error {
	for {
		// Not under ctx: its end would close the connection before the goodbye.
		f, err := s.conn.Recv(context.WithoutCancel(ctx))
		if err != nil {
			return err
		}
		switch body := f.Body.(type) {
		case *pb.Frame_Ack:
			s.acknowledged(body.Ack.Acks)
			if body.Ack.WindowBytes > 0 {
				s.mu.Lock()
				s.window = int(body.Ack.WindowBytes)
				s.mu.Unlock()
			}
		case *pb.Frame_Sync:
			select {
			case s.syncs <- f:
			case <-ctx.Done():
				return ctx.Err()
			}
		case *pb.Frame_Goodbye:
			return goodbye(body.Goodbye)
		default: // of a newer hub; tolerated
		}
	}
}

// persist stores the wanted state, hands it on, and only then says so. Several
// that wait are stored one by one and handed on together.
func (s *session) persist(ctx context.Context) error {
	for {
		var f *pb.Frame
		select {
		case <-ctx.Done():
			return ctx.Err()
		case f = <-s.syncs:
		}
		for f != nil {
			if err := s.l.cfg.Store.ApplySync(ctx, f.GetSync()); err != nil {
				return fmt.Errorf("store the wanted state: %w", err)
			}
			done := &pb.Frame{Re: f.Id, Body: &pb.Frame_SyncDone{SyncDone: &pb.SyncDone{Id: f.GetSync().Id}}}
			if err := s.conn.Send(ctx, done); err != nil {
				return err
			}
			select {
			case f = <-s.syncs:
			default:
				f = nil
			}
		}
		items, err := s.l.cfg.Store.Items(ctx)
		if err != nil {
			return fmt.Errorf("read the wanted state: %w", err)
		}
		s.l.cfg.Devices.Apply(items)
	}
}

// sendLog sends the log from the oldest record that is not acknowledged, as far
// as the window allows.
func (s *session) sendLog(ctx context.Context) error {
	var cursor outbox.Cursor
	for {
		room, err := s.awaitRoom(ctx)
		if err != nil {
			return err
		}
		records, err := s.l.cfg.Outbox.Next(ctx, cursor, min(room, batchBytes))
		if err != nil {
			return fmt.Errorf("read the outbox: %w", err)
		}
		for len(records) > 0 {
			n := 1
			for n < len(records) && records[n].Epoch == records[0].Epoch {
				n++
			}
			if err := s.sendBatch(ctx, records[:n]); err != nil {
				return err
			}
			cursor = records[n-1].Cursor()
			records = records[n:]
		}
	}
}

// awaitRoom waits until the window has room and returns how much. Something may
// always be on its way, however large.
func (s *session) awaitRoom(ctx context.Context) (int, error) {
	for {
		s.mu.Lock()
		room := s.window - s.bytes
		if len(s.queue) == 0 {
			room = max(room, 1)
		}
		s.mu.Unlock()
		if room > 0 {
			return room, nil
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-s.acked:
		}
	}
}

func (s *session) sendBatch(ctx context.Context, records []outbox.Record) error {
	b := &pb.Batch{Epoch: records[0].Epoch}
	s.mu.Lock()
	for _, r := range records {
		b.Records = append(b.Records, &pb.Numbered{Seq: r.Seq, Record: r.Data, Backfill: r.Created.Before(s.began)})
		if r.Seq > s.flying[r.Epoch] {
			s.queue = append(s.queue, flight{r.Epoch, r.Seq, len(r.Data)})
			s.bytes += len(r.Data)
		}
	}
	s.mu.Unlock()
	return s.conn.Send(ctx, &pb.Frame{Body: &pb.Frame_Batch{Batch: b}})
}

// sendLatest tells the newest state: all of it first, then what no record
// holds and what does not wait, and while the log is behind also the newest
// values.
func (s *session) sendLatest(ctx context.Context) error {
	if err := s.tell(ctx, devices.LatestWanted{Full: true}); err != nil {
		return err
	}
	tick := time.NewTicker(behindEvery)
	defer tick.Stop()
	for {
		want := devices.LatestWanted{}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.l.cfg.Devices.LatestWake():
		case <-tick.C:
			if s.l.Lag() < behindAfter {
				continue
			}
			stats := s.l.cfg.Outbox.Stats()
			want.Values, want.Acked = true, stats.AckedSeq
		}
		if err := s.tell(ctx, want); err != nil {
			return err
		}
	}
}

// tell sends what the devices have to tell, in frames of a moderate size.
func (s *session) tell(ctx context.Context, want devices.LatestWanted) error {
	all := s.l.cfg.Devices.Latest(want)
	for len(all) > 0 {
		n, size := 0, 0
		for n < len(all) && (n == 0 || size < latestBytes) {
			size += all[n].SizeVT()
			n++
		}
		frame := &pb.Frame{Body: &pb.Frame_Latest{Latest: &pb.Latest{Epoch: s.l.cfg.Outbox.Epoch(), Twins: all[:n]}}}
		if err := s.conn.Send(ctx, frame); err != nil {
			return err
		}
		all = all[n:]
	}
	return nil
}

// report says regularly how the outbox is doing and which devices answer.
func (s *session) report(ctx context.Context) error {
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for {
		stats := s.l.cfg.Outbox.Stats()
		r := &pb.NodeReport{OutboxRecords: stats.Records, OutboxBytes: stats.Bytes, OutboxDropped: stats.Dropped, LastSeq: stats.LastSeq,
			ClockUs: s.l.now().UnixMicro(), Seen: s.l.cfg.Devices.Seen()}
		if err := s.conn.Send(ctx, &pb.Frame{Body: &pb.Frame_Report{Report: r}}); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// keepAlive notices a link that is dead without saying so.
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
			return fmt.Errorf("the hub does not answer: %w", err)
		}
	}
}

// renewal renews the certificate when it is due while the session goes on. The
// session keeps the connection that it has.
func (s *session) renewal(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if err := s.l.renewIfDue(ctx); err != nil {
			s.log.Warn("the certificate could not be renewed; it is tried again", "error", err)
		}
	}
}
