package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/whimbrel-edge/whimbrel/devicehub/sessions/sessionstest"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/outbox"
	"github.com/whimbrel-edge/whimbrel/internal/faultproxy"
	"github.com/whimbrel-edge/whimbrel/internal/pgtest"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if err := removeBinaries(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
		os.Exit(code)
	}))
}

// pressed starts a hub in a process of its own, Postgres, and a fleet.
func pressed(t *testing.T, f fleet) *fleetWorld {
	t.Helper()
	pg := pgtest.StartServer(t, pgtest.Options{Fsync: true, Settings: postgresSettings})
	w, err := newFleetOn(t.Context(), pg, f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the hub says:\n%s", w.hub.said())
		}
		if err := w.close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// backlog puts so many values of every property into all outboxes.
func (w *fleetWorld) backlog(t *testing.T, from, n int, begin time.Time) {
	t.Helper()
	for _, e := range w.edges {
		if err := e.fill(t.Context(), from, n, begin, time.Second); err != nil {
			t.Fatal(err)
		}
	}
}

// add puts one value of every property into the outbox of an edge whose loops run,
// and says when it is stored.
func (f *feeder) add(ctx context.Context, i int, at time.Time, stored func(seq uint64)) error {
	for d, ref := range f.refs {
		samples := make([]outbox.Sample, f.f.properties)
		for p := range samples {
			samples[p] = outbox.Sample{Property: propertyName(p), Sample: models.Sample{Time: at, Value: models.Float(f.f.value(f.first+d*f.f.properties+p, i))}}
		}
		last := d == len(f.refs)-1
		err := f.box.Append(ctx, outbox.Entry{Device: ref, Samples: samples, Urgent: last}, func(seq uint64, err error) {
			if err != nil {
				return
			}
			f.mu.Lock()
			f.last = max(f.last, seq)
			f.mu.Unlock()
			if last && stored != nil {
				stored(seq)
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// behind reports whether an edge has something that is not acknowledged.
func (f *feeder) behind() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.acked < f.last
}

// received is how many bytes the hub has read, of sockets and all else.
func (w *fleetWorld) received(t *testing.T) (n int64) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", w.hub.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "rchar:"); ok {
			if n, err = strconv.ParseInt(strings.TrimSpace(rest), 10, 64); err != nil {
				t.Fatal(err)
			}
		}
	}
	return n
}

func (w *fleetWorld) memory(t *testing.T) float64 {
	t.Helper()
	n, err := rss(w.hub.cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return float64(n) / (1 << 20)
}

// waiting is how many bytes are in the outboxes.
func (w *fleetWorld) waiting() (n uint64) {
	for _, e := range w.edges {
		n += e.box.Stats().Bytes
	}
	return n
}

// settled waits until the hub has read less than a little for a while.
func (w *fleetWorld) settled(t *testing.T) {
	t.Helper()
	before, since := w.received(t), time.Now()
	if err := w.until(t.Context(), time.Minute, "the edges to send no more", func() bool {
		if n := w.received(t); n-before > 64<<10 {
			before, since = n, time.Now()
		}
		return time.Since(since) > 2*time.Second
	}); err != nil {
		t.Fatal(err)
	}
}

// whole checks that history has each sample once, and no gap but of what cannot be
// read.
func (w *fleetWorld) whole(t *testing.T, want int) {
	t.Helper()
	n, err := w.count(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if n != want {
		t.Errorf("history has %d samples, %d were reported", n, want)
	}
	c, err := pgx.Connect(t.Context(), w.url)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	var gaps int
	if err := c.QueryRow(t.Context(), `SELECT count(*) FROM gaps WHERE reason <> $1`, edgelink.GapUnreadable).Scan(&gaps); err != nil {
		t.Fatal(err)
	}
	if gaps != 0 {
		t.Errorf("%d gaps", gaps)
	}
}

// TestStalledDatabase: while Postgres takes nothing the edges stop sending, their
// outboxes grow and the hub does not; then all of it arrives, once, also when
// Postgres is slow about it.
func TestStalledDatabase(t *testing.T) {
	const warm, backlog, meanwhile = 20, 600, 50
	w := pressed(t, fleet{edges: 4, devices: 5, properties: 100, perRecord: 1})
	begin := time.Now().Add(-time.Hour)
	w.backlog(t, 0, warm, begin)
	if _, err := w.drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.backlog(t, warm, backlog, begin)
	idle := w.memory(t)

	c, err := pgx.Connect(t.Context(), w.url)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	stalled, err := c.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stalled.Exec(t.Context(), `LOCK TABLE samples_batch IN ACCESS EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	var stops []func() error
	for _, e := range w.edges {
		stops = append(stops, e.run(t.Context(), true))
	}
	w.settled(t)
	full, read := w.memory(t), w.received(t)
	waiting := w.waiting()
	var stored sync.WaitGroup
	for i := range meanwhile {
		for _, e := range w.edges {
			stored.Add(1)
			if err := e.add(t.Context(), warm+backlog+i, begin.Add(time.Duration(warm+backlog+i)*time.Second), func(uint64) { stored.Done() }); err != nil {
				t.Fatal(err)
			}
		}
	}
	stored.Wait()
	if w.waiting() <= waiting {
		t.Errorf("%d bytes wait in the outboxes, before there were %d", w.waiting(), waiting)
	}
	w.settled(t)
	later := w.memory(t)
	t.Logf("the hub has %.0f MiB before, %.0f MiB when the edges wait, %.0f MiB later; %d bytes wait in outboxes, %d later; it read %d bytes meanwhile", idle, full, later, waiting, w.waiting(), w.received(t)-read)
	if later > full+16 {
		t.Errorf("the hub grew from %.0f to %.0f MiB while the edges had to wait", full, later)
	}
	if full > idle+150 {
		t.Errorf("the hub takes %.0f MiB for what waits, in the beginning it had %.0f", full, idle)
	}
	began := time.Now()
	if err := w.call(t.Context(), "GET", "/api/v1/devices?limit=5", nil, nil); err != nil || time.Since(began) > 10*time.Second {
		t.Errorf("objects are read within %s: %v", time.Since(began), err)
	}

	// It goes on, and every row takes its time.
	if _, err := stalled.Exec(t.Context(), `CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.01); RETURN NEW; END $$;
		CREATE TRIGGER slowly BEFORE INSERT ON samples_batch FOR EACH ROW EXECUTE FUNCTION slowly()`); err != nil {
		t.Fatal(err)
	}
	if err := stalled.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	most := 0.0
	if err := w.until(t.Context(), 2*time.Minute, "everything to be acknowledged", func() bool {
		most = max(most, w.memory(t))
		for _, e := range w.edges {
			if e.behind() {
				return false
			}
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	t.Logf("it had %.0f MiB at most until everything was stored", most)
	if most > full+200 {
		t.Errorf("the hub grew from %.0f to %.0f MiB as it went on", full, most)
	}
	for i, stop := range stops {
		if err := errors.Join(stop(), w.edges[i].reopen(t.Context())); err != nil {
			t.Error(err)
		}
	}
	w.whole(t, (warm+backlog+meanwhile)*w.fleet.series())
}

// TestBadNeighbours: edges that fall silent in the middle of a backlog, that read
// nothing or send garbage do not hold up one that is well; and what the silent ones
// had to say arrives once when they are back.
func TestBadNeighbours(t *testing.T) {
	const backlog, live = 300, 100
	w := pressed(t, fleet{edges: 3, devices: 5, properties: 100, perRecord: 1})
	begin := time.Now().Add(-time.Hour)
	well, others := w.edges[0], w.edges[1:]
	var proxies []*faultproxy.Proxy
	for _, e := range others {
		if err := e.fill(t.Context(), 0, backlog, begin, time.Second); err != nil {
			t.Fatal(err)
		}
		p := faultproxy.New(t, strings.TrimPrefix(e.link.URL, "https://"))
		e.link.URL = "https://" + p.Addr()
		proxies = append(proxies, p)
	}
	bad := map[string]*sessionstest.Edge{}
	for _, name := range []string{"garbage", "deaf"} {
		url, token, err := w.join(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		bad[name] = sessionstest.Joined(t, url, name, token)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var loops sync.WaitGroup
	defer func() { cancel(); loops.Wait() }()
	var insulted int
	loops.Go(func() { insulted = insult(ctx, t, bad["garbage"]) })
	deaf(t, w, bad["deaf"])

	var stops []func() error
	for _, e := range w.edges {
		stops = append(stops, e.run(t.Context(), true))
	}
	if err := w.until(ctx, 20*time.Second, "the others to have begun", func() bool {
		for _, e := range others {
			e.mu.Lock()
			begun := e.acked > 0
			e.mu.Unlock()
			if !begun {
				return false
			}
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	proxies[0].Set(faultproxy.Stall)
	proxies[1].Set(faultproxy.Blackhole)

	var worst time.Duration
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for i := range live {
		<-tick.C
		stored := make(chan uint64, 1)
		if err := well.add(ctx, i, begin.Add(time.Duration(i)*time.Second), func(seq uint64) { stored <- seq }); err != nil {
			t.Fatal(err)
		}
		seq, at := <-stored, time.Now()
		if err := w.until(ctx, 10*time.Second, "a record of the edge that is well", func() bool {
			well.mu.Lock()
			defer well.mu.Unlock()
			return well.acked >= seq
		}); err != nil {
			t.Fatal(err)
		}
		worst = max(worst, time.Since(at))
	}
	cancel()
	loops.Wait()
	t.Logf("a record took %s at most; garbage was sent %d times", worst.Round(time.Millisecond), insulted)
	if worst > 5*time.Second { // silent ones are given up after 30
		t.Errorf("bad neighbours held a record up for %s", worst)
	}
	if insulted < 3 {
		t.Errorf("garbage was sent %d times only", insulted)
	}
	for _, p := range proxies {
		p.Set(faultproxy.Pass)
	}
	if err := w.until(t.Context(), time.Minute+30*time.Second, "the silent edges to be back", func() bool { return !others[0].behind() && !others[1].behind() }); err != nil {
		t.Fatal(err)
	}
	for i, stop := range stops {
		if err := errors.Join(stop(), w.edges[i].reopen(t.Context())); err != nil {
			t.Error(err)
		}
	}
	w.whole(t, (2*backlog+live)*5*100)
}

// insult connects again and again: it sends what is no frame, frames that are
// malformed, or records that cannot be read.
func insult(ctx context.Context, t *testing.T, e *sessionstest.Edge) (times int) {
	for ctx.Err() == nil {
		ws, err := edgelink.DialWebSocket(ctx, e.URL, edgelink.PathLink, edgelink.Subprotocol, e.TLS(), nil, nil)
		if err != nil {
			if ctx.Err() == nil {
				t.Errorf("an edge with a good certificate is not let in: %v", err)
			}
			return times
		}
		if times%3 > 0 {
			hello, err := edgelink.AppendFrame(nil, &pb.Frame{Id: 1, Body: &pb.Frame_Hello{Hello: e.Hello("E1")}})
			if err != nil {
				t.Error(err)
			}
			_ = ws.Write(ctx, websocket.MessageBinary, hello) // it may be sent away at once
		}
		garbage := make([]byte, 100<<10)
		_, _ = rand.Read(garbage) // never fails
		if times%3 == 2 {
			if garbage, err = edgelink.AppendFrame(nil, &pb.Frame{Body: &pb.Frame_Batch{Batch: &pb.Batch{Epoch: "E1", Records: []*pb.Numbered{{Seq: 1, Record: garbage}}}}}); err != nil {
				t.Error(err)
			}
		}
		for range 20 {
			if ws.Write(ctx, websocket.MessageBinary, garbage) != nil {
				break
			}
		}
		_ = ws.CloseNow()
		times++
	}
	return times
}

// deaf connects an edge that never reads what it is sent, and gives the hub much to
// send to it. It stays until the test ends.
func deaf(t *testing.T, w *fleetWorld, e *sessionstest.Edge) {
	t.Helper()
	conn, err := edgelink.Dial(t.Context(), e.URL, e.TLS())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.CloseNow() })
	for d := range 100 {
		if err := w.device(t.Context(), "fleet", e.Node, fmt.Sprintf("deaf-%d", d), "127.0.0.1:1"); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.Send(t.Context(), &pb.Frame{Id: 1, Body: &pb.Frame_Hello{Hello: e.Hello("E1")}}); err != nil {
		t.Fatal(err)
	}
}

// TestManyStreams: streams of 1,000 twins that change all the time cost memory for
// what they have seen and not for what they have missed: those that do not read at
// all do not make the hub grow, and those that do come to the last value.
func TestManyStreams(t *testing.T) {
	const streams, rounds = 20, 100
	w := pressed(t, fleet{edges: 1, devices: 1000, properties: 2, perRecord: 1})
	edge := w.edges[0]
	begin := time.Now().Add(-time.Hour).Truncate(time.Second)
	stop := edge.run(t.Context(), true)
	put := func(i int) {
		t.Helper()
		stored := make(chan uint64, 1)
		if err := edge.add(t.Context(), i, begin.Add(time.Duration(i)*time.Second), func(seq uint64) { stored <- seq }); err != nil {
			t.Fatal(err)
		}
		<-stored
	}
	put(0)
	ctx, cancel := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	defer func() { cancel(); readers.Wait() }()
	var told [streams / 2]atomic.Int64 // devices whose last value a stream has told of
	last := begin.Add(rounds * time.Second).UTC()
	for i := range streams {
		body, err := w.stream(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer body.Close()
		if i%2 == 1 {
			continue // nobody reads it
		}
		readers.Go(func() {
			have := map[string]bool{}
			_ = twinEvents(body, func(d twinEvent) bool {
				if d.Properties[propertyName(0)].Reported.Time.Equal(last) && !have[d.Device] {
					have[d.Device] = true
					told[i/2].Add(1)
				}
				return true
			})
		})
	}
	half := 0.0
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for i := 1; i <= rounds; i++ {
		<-tick.C
		put(i)
		if i == rounds/2 {
			half = w.memory(t)
		}
	}
	before, err := cpuOf(w.hub.cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.until(ctx, time.Minute, "every stream that is read to tell of the last value of every device", func() bool {
		for i := range told {
			if told[i].Load() < 1000 {
				return false
			}
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	after, err := cpuOf(w.hub.cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	end := w.memory(t)
	t.Logf("the hub has %.0f MiB after %d rounds of 2,000 values with %d streams, %.0f MiB after %d; it took %s of CPU to come to the end of them", half, rounds/2, streams, end, rounds, after-before)
	if end > half+64 {
		t.Errorf("the hub grew from %.0f to %.0f MiB", half, end)
	}
	if err := errors.Join(stop(), edge.reopen(t.Context())); err != nil {
		t.Error(err)
	}
}
