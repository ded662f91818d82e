package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/whimbrel-edge/whimbrel/devicehub/registry"
	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/devicehub/store/storetest"
	"github.com/whimbrel-edge/whimbrel/internal/backoff"
	"github.com/whimbrel-edge/whimbrel/internal/pgtest"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
	"github.com/whimbrel-edge/whimbrel/twin"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// fleet is the devices: d0 is assigned to node n0, d1 to n1, and so on, each
// under assignment 2.
type fleet struct {
	mu     sync.Mutex
	locals []twin.Local
	fail   func(deviceUID string) error // nil: never
}

const assignment = 2

func (f *fleet) Current(uid string) (uint64, string, bool) {
	if len(uid) < 2 || uid[0] != 'd' {
		return 0, "", false
	}
	return assignment, "n" + uid[1:], true
}

func (f *fleet) AcceptLocal(_ context.Context, uid string, l twin.Local) (registry.Judgement, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		if err := f.fail(uid); err != nil {
			return registry.Judgement{}, err
		}
	}
	f.locals = append(f.locals, l)
	if l.Base < 0 {
		return registry.Judgement{Verdict: twin.Overridden, By: "winner"}, nil
	}
	return registry.Judgement{Verdict: twin.Accepted}, nil
}

func (f *fleet) Reference(uid string) (models.ObjectReference, bool) {
	return models.ObjectReference{Kind: "Device", Namespace: "default", Name: "name-of-" + uid, UID: uid}, true
}

// sink keeps what it is told, by node.
type sink struct {
	mu   sync.Mutex
	seqs map[string][]uint64
}

func (s *sink) Committed(node string, _, seq uint64, _ *edgelink.Decoded) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seqs == nil {
		s.seqs = map[string][]uint64{}
	}
	s.seqs[node] = append(s.seqs[node], seq)
}

func (s *sink) of(node string) []uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.seqs[node])
}

// rig is an Ingester that runs on a store in memory.
type rig struct {
	*Ingester
	store  *storetest.Memory
	fleet  *fleet
	sink   *sink
	gather *prometheus.Registry
	stop   func() error // ends Run and waits
}

func start(t *testing.T, change ...func(*Config)) *rig {
	t.Helper()
	r := &rig{store: storetest.NewMemory(), fleet: &fleet{}, sink: &sink{}, gather: prometheus.NewRegistry()}
	cfg := Config{Store: r.store, Devices: r.fleet, Sink: r.sink, Log: slog.New(slog.DiscardHandler), Registerer: r.gather}
	for _, f := range change {
		f(&cfg)
	}
	r.Ingester = New(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	r.stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() { r.stop() })
	return r
}

// session is a node's session as far as ingest sees it.
type session struct {
	r      *rig
	from   Origin
	epoch  string
	ctx    context.Context
	cancel context.CancelCauseFunc

	mu    sync.Mutex
	acked uint64
	calls int
	err   error
}

func (r *rig) session(t *testing.T, n int, epoch string) *session {
	t.Helper()
	s := &session{r: r, from: Origin{Node: fmt.Sprint("n", n), NodeUID: fmt.Sprint("uid-n", n)}, epoch: epoch}
	e, err := r.cfg.Store.(store.Log).StartEpoch(t.Context(), s.from.NodeUID, epoch, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	s.from.Rank, s.acked = e.Rank, e.Acked
	s.ctx, s.cancel = context.WithCancelCause(t.Context())
	return s
}

func (s *session) submit(records ...*pb.Numbered) error {
	return s.r.Submit(s.ctx, s.from, &pb.Batch{Epoch: s.epoch, Records: records}, func(acked uint64, err error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.calls++
		if err != nil {
			s.err = err
			s.cancel(err)
			return
		}
		s.acked = acked
	})
}

func (s *session) state() (acked uint64, calls int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.acked, s.calls, s.err
}

// numbered makes a record of samples seq*10, seq*10+1 of property p of d0, d1…
func numbered(n int, seq uint64, count int) *pb.Numbered {
	var b edgelink.Builder
	for i := range count {
		b.AddSample(edgelink.DeviceRef{UID: fmt.Sprint("d", n), Assignment: assignment}, "p",
			models.Sample{Value: models.Int(int64(seq)*10 + int64(i)), Time: time.UnixMicro(int64(seq)*10 + int64(i))})
	}
	return &pb.Numbered{Seq: seq, Record: b.Bytes()}
}

func (r *rig) values(t *testing.T, device, property string) (out []int64) {
	t.Helper()
	return values(t, r.store, device, property)
}

func values(t *testing.T, s store.History, device, property string) (out []int64) {
	t.Helper()
	err := s.Samples(context.Background(), device, property, math.MinInt64, math.MaxInt64, func(v store.Sample) error {
		out = append(out, v.Int)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (r *rig) gaps(t *testing.T, node string) (out []store.Gap) {
	t.Helper()
	if err := r.store.Gaps(context.Background(), node, func(g store.Gap) error {
		g.Recorded = time.Time{}
		out = append(out, g)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

func (r *rig) metric(t *testing.T, name, label string) float64 {
	t.Helper()
	families, err := r.gather.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.Metric {
			if f.GetName() == name && (label == "" || m.Label[0].GetValue() == label) {
				return m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	t.Fatalf("no metric %s %s", name, label)
	return 0
}

func check(t *testing.T, what string, have, want any) {
	t.Helper()
	if d := cmp.Diff(want, have); d != "" {
		t.Fatalf("%s (- want, + have):\n%s", what, d)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestCommitsAndDropsResends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t)
		s := r.session(t, 0, "e")
		must(t, s.submit(numbered(0, 1, 2), numbered(0, 2, 1)))
		must(t, s.submit(numbered(0, 2, 1), numbered(0, 3, 1)))
		must(t, s.submit(numbered(0, 1, 2)))
		must(t, s.submit())
		must(t, s.submit(numbered(0, 9, 1), numbered(0, 7, 1), numbered(0, 9, 1))) // a hole, and disorder
		synctest.Wait()
		time.Sleep(time.Second)
		check(t, "samples", r.values(t, "d0", "p"), []int64{10, 11, 20, 30, 70, 90})
		check(t, "told", r.sink.of("n0"), []uint64{1, 2, 3, 7, 9})
		acked, calls, err := s.state()
		if acked != 9 || calls != 5 || err != nil {
			t.Fatalf("acknowledged %d in %d calls, error %v", acked, calls, err)
		}
		must(t, s.submit(numbered(0, 9, 1)))
		time.Sleep(time.Second)
		check(t, "after a resend alone", len(r.values(t, "d0", "p")), 6)
		check(t, "counted", r.metric(t, "whimbrel_hub_samples_ingested_total", ""), 6.0)
		if r.metric(t, "whimbrel_hub_ingest_seconds", "") < 1 {
			t.Error("no commit was timed")
		}
	})
}

// TestKinds sends every kind of value and wants them as the store has them.
func TestKinds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t)
		s := r.session(t, 0, "e")
		object, err := models.JSON([]byte(`{"a":[1,"\u0000"]}`))
		must(t, err)
		samples := []models.Sample{
			{Value: models.Bool(true)}, {Value: models.Bool(false)}, {Value: models.Int(math.MinInt64)}, {Value: models.Float(0.1)},
			{Value: models.Uint(math.MaxUint64)}, {Value: models.String("a\x00größe")}, {Value: models.Bytes([]byte{0xff, 0})}, {Value: object},
			{Value: models.Null, Quality: models.Bad, Reason: models.ReasonTimeout}, {Value: models.Float(-2), Quality: models.Uncertain, Reason: models.ReasonStale},
			{Value: models.Int(7)}, {Value: models.Uint(math.MaxUint64 - 1)},
		}
		var b edgelink.Builder
		var want []store.Sample
		for i, v := range samples {
			v.Time = time.UnixMicro(int64(i))
			b.AddSample(edgelink.DeviceRef{UID: "d0", Assignment: assignment}, "p", v)
			kind, bits, text := v.Value.Raw()
			w := store.Sample{TimeUS: int64(i), Kind: uint8(kind), Text: text, Quality: uint8(v.Quality), Reason: string(v.Reason), Backfill: true}
			if f, is := v.Value.AsFloat(); is && kind == models.KindFloat {
				w.Float = f
			} else {
				w.Int = int64(bits)
			}
			want = append(want, w)
		}
		must(t, s.submit(&pb.Numbered{Seq: 1, Record: b.Bytes(), Backfill: true}))
		time.Sleep(time.Second)
		var have []store.Sample
		must(t, r.store.Samples(t.Context(), "d0", "p", 0, 1000, func(v store.Sample) error {
			have = append(have, v)
			return nil
		}))
		check(t, "samples", have, want)
	})
}

func TestBackfillIsPerRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t)
		s := r.session(t, 0, "e")
		var records []*pb.Numbered
		for seq := range uint64(6) {
			n := numbered(0, seq+1, 1)
			n.Backfill = seq == 1 || seq == 2 || seq == 5
			records = append(records, n)
		}
		must(t, s.submit(records...))
		time.Sleep(time.Second)
		var flags []bool
		must(t, r.store.Samples(t.Context(), "d0", "p", 0, 1000, func(v store.Sample) error {
			flags = append(flags, v.Backfill)
			return nil
		}))
		check(t, "backfill", flags, []bool{false, true, true, false, false, true})
	})
}

// TestSetAside sends what cannot be stored and wants it acknowledged and noted.
func TestSetAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t)
		s := r.session(t, 0, "e")
		mixed := func(seq uint64, uid string, a uint64) *pb.Numbered {
			var b edgelink.Builder
			for i := range 2 {
				v := models.Sample{Value: models.Int(int64(seq)), Time: time.UnixMicro(int64(seq)*10 + int64(i))}
				b.AddSample(edgelink.DeviceRef{UID: uid, Assignment: a}, "p", v)
				b.AddSample(edgelink.DeviceRef{UID: "d0", Assignment: assignment}, "p", v)
			}
			b.AddGap(edgelink.Gap{Reason: edgelink.GapOutboxFull, Epoch: "e", FirstSeq: 100 + seq, LastSeq: 200 + seq, Samples: 7, From: time.UnixMicro(5), To: time.UnixMicro(6)})
			return &pb.Numbered{Seq: seq, Record: b.Bytes()}
		}
		garbage := func(seq uint64) *pb.Numbered { return &pb.Numbered{Seq: seq, Record: []byte("\xff\xff")} }
		must(t, s.submit(garbage(1), garbage(2), numbered(0, 3, 1), garbage(5)))
		must(t, s.submit(mixed(6, "gone", 1)))
		must(t, s.submit(numbered(9, 7, 2), numbered(9, 8, 1))) // another node's device
		must(t, s.submit(mixed(9, "d9", 1)))                    // of a former assignment: history
		time.Sleep(time.Second)
		acked, _, err := s.state()
		if acked != 9 || err != nil {
			t.Fatalf("acknowledged %d, error %v", acked, err)
		}
		check(t, "samples", r.values(t, "d0", "p"), []int64{30, 6, 6, 9, 9})
		check(t, "of a former assignment", r.values(t, "d9", "p"), []int64{9, 9})
		gap := func(reason string, first, last, samples uint64, from, to int64) store.Gap {
			g := store.Gap{NodeUID: "uid-n0", Reason: reason, Epoch: "e", FirstSeq: first, LastSeq: last, Samples: samples}
			if samples > 0 {
				g.From, g.To = time.UnixMicro(from).UTC(), time.UnixMicro(to).UTC()
			}
			return g
		}
		check(t, "gaps", r.gaps(t, "uid-n0"), []store.Gap{
			gap("unreadable", 1, 2, 0, 0, 0), gap("unreadable", 5, 5, 0, 0, 0),
			gap("outbox-full", 106, 206, 7, 5, 6), gap("unknown-device", 6, 6, 2, 60, 61),
			gap("unknown-device", 7, 8, 3, 70, 80),
			gap("outbox-full", 109, 209, 7, 5, 6),
		})
		check(t, "unreadable counted", r.metric(t, "whimbrel_hub_records_set_aside_total", "unreadable"), 3.0)
		check(t, "unknown counted", r.metric(t, "whimbrel_hub_records_set_aside_total", "unknown-device"), 3.0)
	})
}

// TestCachedSeriesIsNoPass sends under a series that another node made known.
func TestCachedSeriesIsNoPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t)
		owner, thief := r.session(t, 0, "e"), r.session(t, 1, "e")
		must(t, owner.submit(numbered(0, 1, 1)))
		time.Sleep(time.Second)
		must(t, thief.submit(numbered(0, 5, 1)))
		time.Sleep(time.Second)
		check(t, "samples", r.values(t, "d0", "p"), []int64{10})
		check(t, "gaps", len(r.gaps(t, "uid-n1")), 1)
	})
}

func TestGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, func(c *Config) { c.GroupSamples = 40 })
		var commits atomic.Int64
		release := make(chan struct{})
		r.store.Fault(func(step string) error {
			if step == "Ingest" {
				commits.Add(1)
				<-release
			}
			return nil
		})
		var all []*session
		for n := range 10 {
			s := r.session(t, n, "e")
			all = append(all, s)
			must(t, s.submit(numbered(n, 1, 2)))
		}
		synctest.Wait()
		check(t, "commits before a group's wait is over", commits.Load(), int64(0))
		time.Sleep(DefaultGroupWait)
		synctest.Wait()
		check(t, "commits for ten nodes", commits.Load(), int64(1))
		for n, s := range all { // while that one runs
			for seq := range uint64(3) {
				must(t, s.submit(numbered(n, seq+2, 2)))
			}
		}
		synctest.Wait()
		close(release)
		time.Sleep(time.Second)
		check(t, "commits of 60 samples in groups of 40", commits.Load(), int64(3))
		for n, s := range all {
			if acked, calls, err := s.state(); acked != 4 || calls != 4 || err != nil {
				t.Errorf("node %d: acknowledged %d in %d calls, error %v", n, acked, calls, err)
			}
		}
	})
}

// TestStoreDown wants that nothing is lost or refused while the store fails, and
// that sessions are held back.
func TestStoreDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, func(c *Config) { c.QueueBytes = 4000 })
		s, other := r.session(t, 0, "e"), r.session(t, 1, "e")
		down := errors.New("down")
		r.store.Fault(func(string) error { return down })
		var submitted int
		var mu sync.Mutex
		go func() {
			for seq := range uint64(100) {
				if s.submit(numbered(0, seq+1, 1)) != nil {
					return
				}
				mu.Lock()
				submitted++
				mu.Unlock()
			}
		}()
		time.Sleep(time.Minute)
		mu.Lock()
		if submitted == 0 || submitted > 20 {
			t.Errorf("%d batches came in while the store was down", submitted)
		}
		mu.Unlock()
		// A node that waits for its own room leaves room for others.
		must(t, other.submit(numbered(1, 1, 1)))
		r.store.Fault(nil)
		time.Sleep(time.Minute)
		if acked, calls, err := s.state(); acked != 100 || calls != 100 || err != nil {
			t.Errorf("acknowledged %d in %d calls, error %v", acked, calls, err)
		}
		check(t, "samples", len(r.values(t, "d0", "p")), 100)
		check(t, "the other's", r.values(t, "d1", "p"), []int64{10})
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.bytes != 0 || len(r.ofNode) != 0 {
			t.Errorf("%d bytes are held by nobody: %v", r.bytes, r.ofNode)
		}
	})
}

func TestSubmitWaitsNoLongerThanItsSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, func(c *Config) { c.QueueBytes = 1000 })
		s := r.session(t, 0, "e")
		r.store.Fault(func(string) error { return errors.New("down") })
		must(t, s.submit(numbered(0, 1, 1)))
		must(t, s.submit(numbered(0, 2, 1)))
		gone := errors.New("gone")
		result := make(chan error)
		go func() { result <- s.submit(numbered(0, 3, 1)) }()
		synctest.Wait()
		s.cancel(gone)
		if err := <-result; !errors.Is(err, gone) {
			t.Fatalf("error %v", err)
		}
		r.store.Fault(nil)
		time.Sleep(time.Minute)
		check(t, "what was handed over is committed", r.values(t, "d0", "p"), []int64{10, 20})
	})
}

// TestLostAnswer commits and hears of an error, as when the connection breaks.
func TestLostAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t)
		s, other := r.session(t, 0, "e"), r.session(t, 1, "e")
		lost := 2
		r.store.Fault(func(step string) error {
			if step == "Ingest:done" && lost > 0 {
				lost--
				return errors.New("connection reset")
			}
			return nil
		})
		must(t, s.submit(numbered(0, 1, 2)))
		must(t, other.submit(numbered(1, 1, 1)))
		time.Sleep(time.Minute)
		must(t, s.submit(numbered(0, 2, 1)))
		time.Sleep(time.Minute)
		check(t, "samples", r.values(t, "d0", "p"), []int64{10, 11, 20})
		check(t, "told", r.sink.of("n0"), []uint64{1, 2})
		for _, s := range []*session{s, other} {
			if _, _, err := s.state(); err != nil {
				t.Errorf("%s: %v", s.from.Node, err)
			}
		}
	})
}

// TestRival has somebody else ingest a node's log.
func TestRival(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t)
		s, other := r.session(t, 0, "e"), r.session(t, 1, "e")
		must(t, s.submit(numbered(0, 1, 1)))
		time.Sleep(time.Second)
		rival := func() {
			must(t, r.store.Ingest(t.Context(), []store.Batch{{NodeUID: "uid-n0", Epoch: "e", After: 1, Acked: 3, Received: time.Now()}}))
		}
		rival()
		block := make(chan struct{})
		r.store.Fault(func(step string) error {
			if step == "Ingest" {
				<-block
			}
			return nil
		})
		must(t, s.submit(numbered(0, 2, 1), numbered(0, 3, 1), numbered(0, 4, 1)))
		must(t, other.submit(numbered(1, 1, 1)))
		time.Sleep(time.Second) // the group is at the store
		must(t, s.submit(numbered(0, 5, 1)))
		must(t, other.submit(numbered(1, 2, 1)))
		close(block)
		time.Sleep(time.Minute)
		if _, calls, err := s.state(); !errors.Is(err, ErrConflict) || calls != 3 {
			t.Errorf("%d calls, error %v, want 3 with a conflict: the batch behind must not get in", calls, err)
		}
		if err := s.submit(numbered(0, 6, 1)); !errors.Is(err, ErrConflict) {
			t.Errorf("the session goes on: %v", err)
		}
		if acked, _, err := other.state(); acked != 2 || err != nil {
			t.Errorf("the other node: acknowledged %d, error %v", acked, err)
		}
		again := r.session(t, 0, "e")
		check(t, "acknowledged", again.acked, uint64(3))
		must(t, again.submit(numbered(0, 4, 1), numbered(0, 5, 1), numbered(0, 6, 1)))
		time.Sleep(time.Second)
		check(t, "samples", r.values(t, "d0", "p"), []int64{10, 40, 50, 60})
		check(t, "told", r.sink.of("n0"), []uint64{1, 4, 5, 6})
	})
}

func TestUnknownEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t)
		s, other := r.session(t, 0, "e"), r.session(t, 1, "e")
		s.epoch = "not started"
		must(t, s.submit(numbered(0, 1, 1)))
		must(t, other.submit(numbered(1, 1, 1)))
		time.Sleep(time.Second)
		if _, _, err := s.state(); !errors.Is(err, ErrConflict) {
			t.Errorf("error %v", err)
		}
		check(t, "the other's", r.values(t, "d1", "p"), []int64{10})
	})
}

func TestEpochsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t)
		old, young := r.session(t, 0, "e1"), r.session(t, 0, "e2")
		for seq := range uint64(5) {
			must(t, old.submit(numbered(0, seq+1, 1)))
			must(t, young.submit(numbered(0, seq+101, 1)))
		}
		must(t, old.submit(numbered(0, 5, 1)))
		time.Sleep(time.Second)
		check(t, "samples", r.values(t, "d0", "p"), []int64{10, 20, 30, 40, 50, 1010, 1020, 1030, 1040, 1050})
	})
}

func TestLocalWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t)
		s, other := r.session(t, 0, "e"), r.session(t, 1, "e")
		local := func(seq uint64, uid string, a uint64, id string) *pb.Numbered {
			var b edgelink.Builder
			b.AddLocal(edgelink.LocalDesired{Device: edgelink.DeviceRef{UID: uid, Assignment: a}, Property: "p", ID: id, Value: models.Float(4.5),
				Base: 3, After: "before", Time: time.UnixMicro(77), By: "panel"})
			return &pb.Numbered{Seq: seq, Record: b.Bytes()}
		}
		r.fleet.mu.Lock()
		r.fleet.fail = func(uid string) error {
			if uid == "d1" {
				return errors.New("not now")
			}
			return nil
		}
		r.fleet.mu.Unlock()
		blocked := make(chan error, 1)
		go func() { blocked <- other.submit(local(1, "d1", assignment, "w9"), numbered(1, 2, 1)) }()
		must(t, s.submit(local(1, "d0", assignment, "w1"), local(2, "d0", 1, "former"), local(3, "d5", assignment, "not mine"), local(4, "gone", 1, "gone")))
		time.Sleep(time.Minute)
		if acked, _, err := s.state(); acked != 4 || err != nil {
			t.Fatalf("acknowledged %d, error %v: one node's write holds up another", acked, err)
		}
		want := twin.Local{Property: "p", ID: "w1", Value: models.Float(4.5), Base: 3, After: "before", Time: time.UnixMicro(77).UTC(), By: "panel"}
		r.fleet.mu.Lock()
		if len(r.fleet.locals) != 1 || r.fleet.locals[0] != want {
			t.Errorf("accepted %+v, want %+v", r.fleet.locals, want)
		}
		r.fleet.fail = nil
		r.fleet.mu.Unlock()
		if acked, calls, _ := other.state(); acked != 0 || calls != 0 {
			t.Errorf("acknowledged %d before the write was accepted", acked)
		}
		must(t, <-blocked)
		time.Sleep(time.Second)
		if acked, _, err := other.state(); acked != 2 || err != nil {
			t.Errorf("acknowledged %d, error %v", acked, err)
		}
	})
}

func TestStopCommitsWhatItHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t)
		s := r.session(t, 0, "e")
		for seq := range uint64(5) {
			must(t, s.submit(numbered(0, seq+1, 1)))
		}
		if err := r.stop(); !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
		if acked, calls, err := s.state(); acked != 5 || calls != 5 || err != nil {
			t.Errorf("acknowledged %d in %d calls, error %v", acked, calls, err)
		}
		if err := s.submit(numbered(0, 6, 1)); !errors.Is(err, ErrStopped) {
			t.Errorf("after the end: %v", err)
		}
	})
}

func TestStopWhileTheStoreIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, func(c *Config) { c.QueueBytes = 1000 })
		s := r.session(t, 0, "e")
		r.store.Fault(func(string) error { return errors.New("down") })
		must(t, s.submit(numbered(0, 1, 1)))
		must(t, s.submit(numbered(0, 2, 1)))
		blocked := make(chan error, 1)
		go func() { blocked <- s.submit(numbered(0, 3, 1)) }()
		synctest.Wait()
		begin := time.Now()
		r.stop()
		if took := time.Since(begin); took > DefaultStopWait {
			t.Errorf("it took %v to stop", took)
		}
		if err := <-blocked; err == nil {
			t.Error("a batch was taken by an ingester that has ended")
		}
		if _, calls, err := s.state(); calls != 2 || !errors.Is(err, ErrStopped) {
			t.Errorf("%d calls, error %v", calls, err)
		}
	})
}

func quick() backoff.Policy {
	return backoff.Policy{Min: time.Millisecond, Max: 5 * time.Millisecond, Factor: 2, Jitter: 0.5}
}
