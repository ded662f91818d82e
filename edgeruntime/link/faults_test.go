package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/devices"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/outbox"
	"github.com/whimbrel-edge/whimbrel/internal/faultproxy"
	"github.com/whimbrel-edge/whimbrel/internal/pki"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

// noise is a value that does not compress.
func noise(n int) models.Value {
	text := make([]byte, n)
	for i := range text {
		text[i] = byte('!' + rand.IntN(90))
	}
	return models.String(string(text))
}

// stopsSoon ends the edge and complains when that takes long.
func (e *edge) stopsSoon() {
	e.t.Helper()
	begun := time.Now()
	if err := e.stop(); err != nil {
		e.t.Errorf("run: %v", err)
	}
	if took := time.Since(begun); took > 10*time.Second {
		e.t.Errorf("the stop took %v", took)
	}
	if e.link.Status().Connected {
		e.t.Error("it counts as connected although it has ended")
	}
}

func (e *edge) committed(h *fakeHub, n int) {
	e.t.Helper()
	eventually(e.t, fmt.Sprintf("%d records", n), func() bool {
		return h.is(func() bool { return len(h.records) == n })() && e.outbox.Stats().Records == 0
	})
}

func TestStopWhileASendIsBlocked(t *testing.T) {
	h := newHub(t)
	h.deaf = true
	e := newEdge(t, h)
	e.cfg.URL = "https://" + h.addr // a proxy would take megabytes
	e.times = defaultTimes          // long ones
	e.devices.twins = func(devices.LatestWanted) (all []*pb.LatestTwin) {
		text, _ := noise(100_000).AsString()
		for range 100 {
			all = append(all, &pb.LatestTwin{Device: &pb.DeviceRef{Uid: "u"}, Values: []*pb.LatestValue{{Property: "p", Text: []byte(text)}}})
		}
		return all
	}
	e.start()
	e.linked()
	e.record()
	eventually(t, "the latest lane is stuck in a Send", func() bool { return stuckSending("latestLane") })
	e.stopsSoon()
}

// stuckSending reports whether a goroutine with this function writes to a link.
func stuckSending(function string) bool {
	var stacks bytes.Buffer
	_ = pprof.Lookup("goroutine").WriteTo(&stacks, 2)
	for stack := range strings.SplitSeq(stacks.String(), "\n\n") {
		if strings.Contains(stack, function) && strings.Contains(stack, "websocket.(*Conn).Write") {
			return true
		}
	}
	return false
}

func TestStopWhileTheHelloIsBlocked(t *testing.T) {
	h := newHub(t)
	h.raw = func(context.Context, *websocket.Conn) { <-h.stopped }
	e := newEdge(t, h)
	e.cfg.URL = "https://" + h.addr
	e.times = defaultTimes
	text, _ := noise(7_500_000).AsString()
	e.cfg.Labels = map[string]string{"long": text}
	e.start()
	eventually(t, "it is stuck in the hello", func() bool { return stuckSending("greet") })
	e.stopsSoon()
}

func TestStopWhenNobodyAnswers(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(*testing.T, *fakeHub, *edge){
		"no welcome": func(t *testing.T, h *fakeHub, e *edge) {
			h.set(func() { h.silent = true })
			e.start()
			eventually(t, "a hello", h.is(func() bool { return len(h.hellos) == 1 }))
		},
		"no answer to the goodbye": func(t *testing.T, _ *fakeHub, e *edge) {
			e.start()
			e.linked()
			e.proxy.Set(faultproxy.Blackhole)
		},
		"no answer to the join": func(t *testing.T, _ *fakeHub, e *edge) {
			e.proxy.Set(faultproxy.Stall)
			e.start()
			eventually(t, "it dials", func() bool { return e.proxy.Conns() > 0 })
		},
		"a pause": func(t *testing.T, _ *fakeHub, e *edge) {
			e.proxy.Set(faultproxy.Refuse)
			e.times.quick = time.Hour
			e.start()
			eventually(t, "it says why", func() bool { return strings.Contains(e.log.text(), "no link") })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHub(t)
			e := newEdge(t, h)
			e.times = defaultTimes
			prepare(t, h, e)
			e.stopsSoon()
		})
	}
}

// brokenStore fails or interferes at ApplySync.
type brokenStore struct {
	Store
	apply func(context.Context, *pb.Sync) error
}

func (s brokenStore) ApplySync(ctx context.Context, sync *pb.Sync) error { return s.apply(ctx, sync) }

// TestStoreThatFails: an edge that cannot store what the hub wants stays linked, says so,
// and says that it has it once it has.
func TestStoreThatFails(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	h.syncs = []*pb.Sync{{Id: 7, Full: true, Items: []*pb.Item{item("a", 3)}}}
	e := newEdge(t, h)
	var fails atomic.Bool
	fails.Store(true)
	e.wrap = func(c *Config) {
		real := c.Store
		c.Store = brokenStore{real, func(ctx context.Context, sync *pb.Sync) error {
			if fails.Load() {
				return errors.New("disk full")
			}
			return real.ApplySync(ctx, sync)
		}}
	}
	e.start()
	eventually(t, "the hub is told", h.is(func() bool {
		return slices.ContainsFunc(h.reports, func(r *pb.NodeReport) bool { return r.Failing == "disk full" })
	}))
	h.set(func() {
		if len(h.hellos) != 1 {
			t.Errorf("%d sessions", len(h.hellos))
		}
		if len(h.done) != 0 {
			t.Error("the hub is told that something is stored that is not")
		}
	})
	e.devices.mu.Lock()
	if len(e.devices.applied) != 0 {
		t.Error("the devices are told of what is not stored")
	}
	e.devices.mu.Unlock()
	fails.Store(false)
	eventually(t, "it is stored", h.is(func() bool { return len(h.done) >= 1 && h.done[0] == 7 }))
	eventually(t, "the devices hear of it", func() bool {
		e.devices.mu.Lock()
		defer e.devices.mu.Unlock()
		return len(e.devices.applied) > 0 && len(e.devices.applied[0]) == 1
	})
	eventually(t, "the hub is told that", h.is(func() bool { return h.reports[len(h.reports)-1].Failing == "" }))
	h.set(func() {
		if len(h.hellos) != 1 {
			t.Errorf("%d sessions", len(h.hellos))
		}
	})

	// What comes while it cannot store is asked for in a session of its own.
	fails.Store(true)
	send := func(s *pb.Sync) {
		t.Helper()
		var conn *edgelink.Conn
		h.set(func() { conn = h.conn })
		if err := conn.Send(t.Context(), &pb.Frame{Body: &pb.Frame_Sync{Sync: s}}); err != nil {
			t.Fatal(err)
		}
	}
	send(&pb.Sync{Id: 8, Items: []*pb.Item{item("b", 4)}})
	eventually(t, "the hub is told again", h.is(func() bool { return h.reports[len(h.reports)-1].Failing == "disk full" }))
	send(&pb.Sync{Id: 9, Items: []*pb.Item{item("c", 5)}})
	eventually(t, "it is passed by", func() bool {
		s := e.link.live.Load()
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.passed
	})
	fails.Store(false)
	eventually(t, "a new session", h.is(func() bool {
		return len(h.hellos) == 2 && slices.Contains(h.done, 8) && !slices.Contains(h.done, 9)
	}))
}

func TestSyncIsHandedOverThoughTheLinkEnds(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	h.syncs = []*pb.Sync{{Id: 7, Full: true, Items: []*pb.Item{item("a", 3)}}}
	e := newEdge(t, h)
	e.wrap = func(c *Config) {
		real := c.Store
		c.Store = brokenStore{real, func(ctx context.Context, sync *pb.Sync) error {
			err := real.ApplySync(ctx, sync)
			e.proxy.Set(faultproxy.Refuse)
			<-ctx.Done() // another loop has noticed
			return err
		}}
	}
	e.start()
	eventually(t, "the devices hear of it without a hub", func() bool {
		e.devices.mu.Lock()
		defer e.devices.mu.Unlock()
		return len(e.devices.applied) > 0 && len(e.devices.applied[0]) == 1
	})
	eventually(t, "the link is down", func() bool { return !e.link.Status().Connected })
}

// brokenOutbox fails or lies.
type brokenOutbox struct {
	Outbox
	fails  atomic.Int32 // that many reads
	epochs func([]*pb.Epoch) []*pb.Epoch
}

func (o *brokenOutbox) Next(ctx context.Context, from outbox.Cursor, maxBytes int) ([]outbox.Record, error) {
	if o.fails.Add(-1) >= 0 {
		return nil, errors.New("I/O error")
	}
	return o.Outbox.Next(ctx, from, maxBytes)
}

func (o *brokenOutbox) Epochs() []*pb.Epoch {
	all := o.Outbox.Epochs()
	if o.epochs != nil {
		all = o.epochs(all)
	}
	return all
}

func TestOutboxThatCannotBeRead(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	e := newEdge(t, h)
	e.wrap = func(c *Config) {
		o := &brokenOutbox{Outbox: c.Outbox}
		o.fails.Store(5)
		c.Outbox = o
	}
	e.start()
	e.linked()
	e.record()
	e.committed(h, 1)
	h.set(func() {
		if len(h.hellos) != 1 {
			t.Errorf("%d sessions: the link is not to end for it", len(h.hellos))
		}
	})
}

// An outbox file that is damaged while it is used gives way to a new one, whose
// epoch the hello did not name.
func TestEpochThatBeginsInASession(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	e := newEdge(t, h)
	var hellos atomic.Int32
	e.wrap = func(c *Config) {
		c.Outbox = &brokenOutbox{Outbox: c.Outbox, epochs: func(all []*pb.Epoch) []*pb.Epoch {
			if hellos.Add(1) == 1 {
				return []*pb.Epoch{{Id: "01JD000000000000000000000A"}}
			}
			return all
		}}
	}
	e.start()
	e.linked()
	e.record()
	e.committed(h, 1) // the hub complains of a batch whose epoch it does not know
	h.set(func() {
		if len(h.hellos) != 2 || len(h.byes) != 0 {
			t.Errorf("%d sessions, goodbyes %v", len(h.hellos), h.byes)
		}
	})
}

func TestWindowThatChanges(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	h.window, h.mute = 100_000, true
	e := newEdge(t, h).start()
	e.linked()
	// A smaller one first: what was let in under the larger one may still come.
	h.set(func() {
		if err := h.conn.Send(t.Context(), &pb.Frame{Body: &pb.Frame_Ack{Ack: &pb.Ack{WindowBytes: 2000}}}); err != nil {
			t.Error(err)
		}
	})
	for range 200 {
		e.recordValue(noise(300))
	}
	eventually(t, "it is used", h.is(func() bool { return len(h.records) > 0 }))
	// A larger one lets more come without an acknowledgement.
	before := 0
	h.set(func() { before = len(h.records) })
	h.set(func() {
		h.lane.window = 50_000
		if err := h.conn.Send(t.Context(), &pb.Frame{Body: &pb.Frame_Ack{Ack: &pb.Ack{WindowBytes: 50_000}}}); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "more comes", h.is(func() bool { return len(h.records) >= before+50 }))
	h.set(func() {
		h.mute = false
		if err := h.ackLocked(t.Context()); err != nil {
			t.Error(err)
		}
	})
	e.committed(h, 200)
}

func TestPace(t *testing.T) {
	t.Parallel()
	e := newEdge(t, newHub(t))
	e.start()
	s := newSession(e.link, nil)
	epoch := e.outbox.Epoch()
	s.named[epoch], s.window = true, maxWindow
	seq := uint64(0)
	fly := func(bytes int, took time.Duration) {
		seq++
		e.record() // an acknowledgement has to be of something
		s.mu.Lock()
		s.flying = append(s.flying, flight{epoch, seq, bytes, time.Now().Add(-took)})
		s.bytes += bytes
		s.mu.Unlock()
		if err := s.acknowledge(&pb.EpochAck{Epoch: epoch, Seq: seq}); err != nil {
			t.Fatal(err)
		}
	}
	fly(startPace, 10*time.Millisecond)
	if s.pace != 2*startPace {
		t.Errorf("pace %d after a quick acknowledgement", s.pace)
	}
	fly(startPace, 2*e.times.slow)
	if s.pace != startPace {
		t.Errorf("pace %d after a slow one", s.pace)
	}
	fly(startPace, 2*e.times.slow) // sent before it was slowed
	if s.pace < startPace {
		t.Errorf("pace %d: slowed twice for one reason", s.pace)
	}
	for range 10 {
		s.slowed = time.Time{}
		fly(1, 2*e.times.slow)
	}
	if s.pace != minPace {
		t.Errorf("pace %d, the least is %d", s.pace, minPace)
	}
	if s.bytes != 0 || len(s.flying) != 0 {
		t.Errorf("%d bytes of %d records are on their way", s.bytes, len(s.flying))
	}
	s.bytes, s.flying = minPace-10, []flight{{epoch: epoch, seq: 99, bytes: minPace - 10}}
	if room, err := s.waitForRoom(t.Context(), 5); room != 10 || err != nil {
		t.Errorf("room %d, %v", room, err)
	}
}

func TestTrickle(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	e := newEdge(t, h)
	e.times.report, e.times.silent = time.Hour, 10*time.Second
	e.start()
	e.linked()
	e.proxy.Set(faultproxy.Trickle) // about 1 kB/s
	e.recordValue(noise(1000))      // answers to pings come after it
	e.record()
	e.committed(h, 2)
	h.set(func() {
		if len(h.hellos) != 1 {
			t.Errorf("%d sessions: slow is not dead", len(h.hellos))
		}
	})
}

// A log lane that keeps up leaves the values to itself, also when the outbox has
// not yet removed what was acknowledged.
func TestLatestLaneIsQuiet(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	e := newEdge(t, h)
	e.times.behind = patience
	e.start()
	e.linked()
	for range 40 {
		e.recordValue(noise(10_000))
	}
	e.committed(h, 40)
	e.devices.mu.Lock()
	defer e.devices.mu.Unlock()
	for i, w := range e.devices.wanted {
		if w.Full != (i == 0) || w.Values {
			t.Errorf("asked for %+v as number %d", w, i)
		}
	}
}

func TestLatestLaneWakes(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	e := newEdge(t, h)
	e.times.latest = time.Hour
	e.devices.twins = func(want devices.LatestWanted) []*pb.LatestTwin {
		if want.Full {
			return []*pb.LatestTwin{{Device: &pb.DeviceRef{Uid: "u"}, Full: true}}
		}
		return []*pb.LatestTwin{{Device: &pb.DeviceRef{Uid: "u"}, State: "offline"}}
	}
	e.start()
	eventually(t, "the first is full", h.is(func() bool { return len(h.latest) == 1 && h.latest[0].Full }))
	e.devices.wake <- struct{}{}
	eventually(t, "then what does not wait", h.is(func() bool { return len(h.latest) == 2 && h.latest[1].State == "offline" }))
	e.proxy.Reset()
	eventually(t, "and full again in the next session", h.is(func() bool { return len(h.latest) == 3 && h.latest[2].Full }))
}

func TestGoodbyeWithAWish(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	e := newEdge(t, h).start()
	e.linked()
	h.set(func() {
		h.bye = &pb.Goodbye{Reason: edgelink.GoodbyeDuplicateIdentity, Message: "another edge is connected", RetryAfterS: 1}
	})
	e.proxy.Reset()
	eventually(t, "it hears why", h.is(func() bool { return len(h.hellos) == 2 }))
	var heard time.Time // not before
	h.is(func() bool { heard = h.greeted; return true })()
	eventually(t, "it says why", func() bool { return strings.Contains(e.log.text(), "another edge is connected") })
	h.set(func() { h.bye = nil })
	eventually(t, "it comes back", h.is(func() bool { return len(h.hellos) == 3 }))
	if away := time.Since(heard); away < time.Second {
		t.Errorf("it stayed away for %v", away)
	}
	e.linked()
}

func TestRenewalThatIsRefused(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	e := newEdge(t, h).start()
	e.linked()
	// Deleted while it was away for so long that the certificate has expired.
	h.set(func() { h.status, h.noRenewal = http.StatusUnauthorized, http.StatusForbidden })
	e.proxy.Reset()
	eventually(t, "it stays away for long", e.staysAway)
	if text := e.log.text(); !strings.Contains(text, "there is no such node") {
		t.Errorf("it does not say why: %s", text)
	}
	h.set(func() {
		if h.renewals != 1 {
			t.Errorf("%d renewals asked for", h.renewals)
		}
	})
}

func TestRenewalInASession(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	e := newEdge(t, h)
	var ahead atomic.Int64
	e.cfg.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	e.times.renewCheck = 20 * time.Millisecond
	e.start()
	e.linked()
	before := e.link.identity.leaf()
	ahead.Store(int64(50 * time.Minute))
	h.set(func() { h.now = e.cfg.Now })
	eventually(t, "renewed", func() bool { return !e.link.identity.leaf().Equal(before) })
	if on, err := pki.ReadIdentity(filepath.Join(e.cfg.Dir, identityFile)); err != nil || on.Leaf.Equal(before) {
		t.Errorf("on the disk: %v", err)
	}
	ahead.Store(int64(1000 * time.Hour)) // a clock that is wrong does not ask all the time
	e.record()
	e.committed(h, 1)
	h.set(func() {
		if h.renewals > 2 || len(h.hellos) != 1 {
			t.Errorf("%d renewals, %d sessions", h.renewals, len(h.hellos))
		}
	})
}

func TestMalformedMessages(t *testing.T) {
	t.Parallel()
	unknown, err := edgelink.AppendFrame(nil, &pb.Frame{Id: 3})
	if err != nil {
		t.Fatal(err)
	}
	for name, message := range map[string][]byte{
		"empty": {}, "pack": {9, 1, 2}, "zstd": {1, 2, 3, 4}, "protobuf": {0, 0xff, 0xff, 0xff}, "text": nil,
	} {
		for _, before := range []bool{true, false} {
			if before && name != "text" && name != "zstd" {
				continue // as the others
			}
			t.Run(fmt.Sprintf("%s before the welcome %v", name, before), func(t *testing.T) {
				t.Parallel()
				h := newHub(t)
				said := make(chan string, 1)
				kind := websocket.MessageBinary
				if message == nil {
					kind = websocket.MessageText
				}
				var sessions atomic.Int32
				h.raw = func(ctx context.Context, ws *websocket.Conn) {
					if sessions.Add(1) > 1 {
						return
					}
					recv := func() *pb.Frame {
						_, packed, err := ws.Read(ctx)
						if err != nil {
							return nil
						}
						f, _ := edgelink.DecodeFrame(packed)
						return f
					}
					hello := recv().GetHello()
					if !before {
						welcome, _ := edgelink.AppendFrame(nil, &pb.Frame{Body: &pb.Frame_Welcome{Welcome: &pb.Welcome{Capability: 1, Lineage: "one",
							Acks: []*pb.EpochAck{{Epoch: hello.GetEpochs()[0].Id}}}}})
						_ = ws.Write(ctx, websocket.MessageBinary, welcome)
						_ = ws.Write(ctx, websocket.MessageBinary, unknown)
					}
					_ = ws.Write(ctx, kind, message)
					for f := recv(); f != nil; f = recv() {
						if bye := f.GetGoodbye(); bye != nil {
							said <- bye.Reason
							return
						}
					}
					said <- "nothing"
				}
				e := newEdge(t, h).start()
				if reason := <-said; reason != edgelink.GoodbyeProtocolError {
					t.Errorf("the edge said %s", reason)
				}
				eventually(t, "it comes back", func() bool { return sessions.Load() > 1 })
				e.stopsSoon()
			})
		}
	}
}

func TestDamagedJoiningKey(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	e := newEdge(t, h)
	if err := os.MkdirAll(e.cfg.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(e.cfg.Dir, joiningFile), []byte("-----BEGIN nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	e.start()
	e.linked()
}

// Whatever happens to the link, the hub's commits and its acknowledgements, and
// however often the edge starts anew, every record is committed once and in
// order.
func TestChaos(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1)) // under h.mu
	h := newHub(t)
	h.window = 1000
	h.chaos = func(records int) (commit int, ack, drop bool) {
		if h.batches > 300 {
			return records, true, false
		}
		switch rng.IntN(8) {
		case 0: // not all of it, or nothing
			return rng.IntN(records + 1), false, true
		case 1: // all, and the acknowledgement is lost
			return records, false, true
		case 2: // acknowledged, but nothing more
			return records, true, true
		case 3: // acknowledged with a later one
			return records, false, false
		}
		return records, true, false
	}
	e := newEdge(t, h).start()
	e.linked()
	e.cfg.Token = ""
	const lives, perLife = 3, 150
	dice := rand.New(rand.NewPCG(seed, 2))
	for life := range lives {
		for i := range perLife {
			e.recordValue(models.String(fmt.Sprintf("%d%s", life*perLife+i, strings.Repeat(" ", dice.IntN(200)))))
			if dice.IntN(50) == 0 {
				e.proxy.Reset()
			}
		}
		if life < lives-1 {
			eventually(t, "some chaos", func() bool {
				h.acknowledge()
				return h.is(func() bool { return len(h.hellos) > 8*life })() || e.outbox.Stats().Records == 0
			})
			if err := e.stop(); err != nil {
				t.Fatal(err)
			}
			e.start()
		}
	}
	eventually(t, "all records", func() bool {
		h.acknowledge()
		return e.outbox.Stats().Records == 0
	})
	e.committed(h, lives*perLife)
	h.set(func() {
		for i, r := range h.records {
			if len(r.values) != 1 || strings.TrimRight(strings.Trim(r.values[0], `"`), " ") != fmt.Sprint(i) {
				t.Fatalf("record %d is %+v", i, r)
			}
		}
		t.Logf("%d sessions, %d batches", len(h.hellos), h.batches)
		if len(h.hellos) < 10 {
			t.Errorf("%d sessions: that was no chaos", len(h.hellos))
		}
	})
}
