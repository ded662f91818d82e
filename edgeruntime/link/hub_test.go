package link

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/devices"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/outbox"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/store"
	"github.com/whimbrel-edge/whimbrel/internal/backoff"
	"github.com/whimbrel-edge/whimbrel/internal/faultproxy"
	"github.com/whimbrel-edge/whimbrel/internal/pki"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 60 * time.Second

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); {
		time.Sleep(2 * time.Millisecond) //sleep: polls real sockets
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// fakeHub is a hub over real TLS and real WebSockets whose answers a test
// decides.
type fakeHub struct {
	t     *testing.T
	ca    *pki.CA
	token pki.JoinToken
	addr  string

	mu        sync.Mutex
	now       func() time.Time
	lifetime  time.Duration
	lineage   string
	window    uint32
	mute      bool                                          // acknowledges nothing
	status    int                                           // of answers to GET /link, 0 to open it
	noRenewal int                                           // status of answers to POST /renew, 0 to renew
	silent    bool                                          // answers no hello
	deaf      bool                                          // reads nothing after the welcome
	raw       func(ctx context.Context, ws *websocket.Conn) // plays the hub's end
	// chaos decides what happens to a batch: how many of its records are committed,
	// whether that is acknowledged, and whether the link is dropped.
	chaos     func(records int) (commit int, ack, drop bool)
	bye       *pb.Goodbye
	loseJoin  int      // answers to lose
	joins     []string // hashes of the keys that joined
	refusals  int      // of joins
	renewals  int
	hellos    []*pb.Hello
	greeted   time.Time         // when the last of them came
	committed map[string]uint64 // epoch to seq
	records   []record
	batches   int
	latest    []*pb.LatestTwin
	syncs     []*pb.Sync // to be sent at each welcome
	done      []uint64
	reports   []*pb.NodeReport
	byes      []string
	pods      []*pb.PodStatuses
	responses []*pb.Frame
	conn      *edgelink.Conn
	lane      *lane // of conn
	stopped   chan struct{}
}

type record struct {
	epoch    string
	seq      uint64
	backfill bool
	bytes    int
	values   []string
}

func newHub(t *testing.T) *fakeHub {
	ca, err := pki.NewCA(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	server, err := pki.NewServerCert(ca, []string{"127.0.0.1"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	h := &fakeHub{t: t, ca: ca, token: pki.NewJoinToken(ca.Hash()), now: time.Now, lifetime: time.Hour, lineage: "one", window: 1 << 20, committed: map[string]uint64{}, stopped: make(chan struct{})}
	// Little room for what is not read, so that a Send to a deaf hub blocks.
	small := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 64<<10) })
	}}
	ln, err := small.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.addr = ln.Addr().String()
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+edgelink.PathJoin, h.join)
	mux.HandleFunc("POST "+edgelink.PathRenew, h.renew)
	var sessions sync.WaitGroup
	mux.HandleFunc("GET "+edgelink.PathLink, func(w http.ResponseWriter, r *http.Request) {
		sessions.Add(1)
		defer sessions.Done()
		h.link(w, r)
	})
	srv := &http.Server{Handler: mux, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		TLSConfig: pki.HubTLS(server, func() []*x509.Certificate { return []*x509.Certificate{ca.Cert} }, time.Now)}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(tls.NewListener(ln, srv.TLSConfig))
	}()
	t.Cleanup(func() {
		close(h.stopped)
		_ = srv.Close()
		<-served
		sessions.Wait()
	})
	return h
}

func (h *fakeHub) set(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
}

// is reports on the hub's state under its lock.
func (h *fakeHub) is(f func() bool) func() bool {
	return func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return f()
	}
}

func refuse(w http.ResponseWriter, kind models.ErrorKind, detail string) {
	w.WriteHeader(kind.Status())
	_ = json.NewEncoder(w).Encode(models.ProblemOf(models.Errorf(kind, "%s", detail)))
}

func (h *fakeHub) join(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var req edgelink.JoinRequest
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		refuse(w, models.KindMalformed, err.Error())
		return
	}
	csr, err := pki.CheckCSR([]byte(req.CSR), req.Node)
	token, tokenErr := pki.ParseJoinToken(req.Token)
	if err != nil || tokenErr != nil || token.SecretHash() != h.token.SecretHash() {
		h.refusals++
		refuse(w, models.KindForbidden, "the token is unknown")
		return
	}
	if len(h.joins) > 0 && h.joins[0] != csr.KeyHash {
		refuse(w, models.KindForbidden, "the token was used by another")
		return
	}
	h.joins = append(h.joins, csr.KeyHash)
	if h.loseJoin > 0 {
		h.loseJoin--
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_ = conn.Close()
		}
		return
	}
	cert, err := h.ca.SignNode(csr, h.lifetime, h.now())
	if err != nil {
		refuse(w, models.KindInternal, err.Error())
		return
	}
	_ = json.NewEncoder(w).Encode(edgelink.JoinResponse{Certificate: string(pki.EncodeCerts(cert)), CA: string(pki.EncodeCerts(h.ca.Cert)), NodeUID: "node-uid", Lineage: h.lineage})
}

func (h *fakeHub) renew(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var req edgelink.RenewRequest
	if len(r.TLS.PeerCertificates) == 0 || json.NewDecoder(r.Body).Decode(&req) != nil {
		refuse(w, models.KindUnauthorized, "no certificate")
		return
	}
	csr, err := pki.CheckCSR([]byte(req.CSR), r.TLS.PeerCertificates[0].Subject.CommonName)
	if err != nil {
		refuse(w, models.KindInvalid, err.Error())
		return
	}
	h.renewals++
	if h.noRenewal != 0 {
		refuse(w, models.KindOfStatus(h.noRenewal), "there is no such node")
		return
	}
	cert, err := h.ca.SignNode(csr, time.Hour, h.now())
	if err != nil {
		refuse(w, models.KindInternal, err.Error())
		return
	}
	_ = json.NewEncoder(w).Encode(edgelink.RenewResponse{Certificate: string(pki.EncodeCerts(cert)), CA: string(pki.EncodeCerts(h.ca.Cert))})
}

func (h *fakeHub) link(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	status := h.status
	if len(r.TLS.PeerCertificates) == 0 {
		status = http.StatusUnauthorized
	} else if h.now().After(r.TLS.PeerCertificates[0].NotAfter) {
		status = http.StatusUnauthorized
	}
	h.mu.Unlock()
	if status != 0 {
		refuse(w, models.KindOfStatus(status), "refused")
		return
	}
	if h.raw != nil {
		ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{edgelink.Subprotocol}, CompressionMode: websocket.CompressionDisabled})
		if err == nil {
			h.raw(context.WithoutCancel(r.Context()), ws)
			_ = ws.CloseNow()
		}
		return
	}
	conn, err := edgelink.Accept(w, r)
	if err != nil {
		return
	}
	defer conn.CloseNow()
	_ = h.session(context.WithoutCancel(r.Context()), conn)
}

// lane is the log lane of one session as the hub sees it. It holds the edge to
// the rules.
type lane struct {
	named  map[string]bool
	last   map[string]uint64
	window int
	flying []record // received and not acknowledged
}

func (l *lane) take(t *testing.T, b *pb.Batch) {
	if !l.named[b.Epoch] {
		t.Errorf("a batch of epoch %s, which the hello did not name", b.Epoch)
	}
	for _, n := range b.Records {
		if n.Seq <= l.last[b.Epoch] {
			t.Errorf("record %d of %s comes after %d, in one session", n.Seq, b.Epoch, l.last[b.Epoch])
		}
		l.last[b.Epoch] = n.Seq
		l.flying = append(l.flying, record{epoch: b.Epoch, seq: n.Seq, bytes: len(n.Record)})
	}
	size := 0
	for _, r := range l.flying {
		size += r.bytes
	}
	if size > l.window && len(l.flying) > 1 {
		t.Errorf("%d records with %d bytes are on their way in a window of %d", len(l.flying), size, l.window)
	}
}

func (l *lane) acknowledge(epoch string, seq uint64) {
	l.flying = slices.DeleteFunc(l.flying, func(r record) bool { return r.epoch == epoch && r.seq <= seq })
}

func (h *fakeHub) session(ctx context.Context, conn *edgelink.Conn) error {
	f, err := conn.Recv(ctx)
	if err != nil || f.GetHello() == nil {
		return errors.Join(err, errors.New("no hello"))
	}
	h.mu.Lock()
	hello := f.GetHello()
	h.hellos, h.greeted = append(h.hellos, hello), time.Now()
	bye := h.bye
	welcome := &pb.Welcome{Capability: edgelink.Capability, Lineage: h.lineage, NodeUid: "node-uid", WindowBytes: h.window}
	l := &lane{named: map[string]bool{}, last: map[string]uint64{}, window: int(h.window)}
	for _, e := range hello.Epochs {
		l.named[e.Id] = true
		welcome.Acks = append(welcome.Acks, &pb.EpochAck{Epoch: e.Id, Seq: h.committed[e.Id]})
	}
	syncs := h.syncs
	h.conn, h.lane = conn, l
	silent, deaf := h.silent, h.deaf
	h.mu.Unlock()
	if silent {
		_, err := conn.Recv(ctx) // until the edge gives up
		return err
	}
	if bye != nil {
		_ = conn.Send(ctx, &pb.Frame{Body: &pb.Frame_Goodbye{Goodbye: bye}})
		return conn.Close(bye.Reason)
	}
	if err := conn.Send(ctx, &pb.Frame{Re: f.Id, Body: &pb.Frame_Welcome{Welcome: welcome}}); err != nil {
		return err
	}
	if deaf {
		<-h.stopped
		return nil
	}
	for _, s := range syncs {
		if err := conn.Send(ctx, &pb.Frame{Id: s.Id, Body: &pb.Frame_Sync{Sync: s}}); err != nil {
			return err
		}
	}
	for {
		f, err := conn.Recv(ctx)
		if err != nil {
			return err
		}
		if err := h.handle(ctx, conn, l, f); err != nil {
			return err
		}
	}
}

func (h *fakeHub) handle(ctx context.Context, conn *edgelink.Conn, l *lane, f *pb.Frame) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch body := f.Body.(type) {
	case *pb.Frame_Batch:
		h.batches++
		b := body.Batch
		l.take(h.t, b)
		commit, ack, drop := len(b.Records), !h.mute, false
		if h.chaos != nil {
			commit, ack, drop = h.chaos(len(b.Records))
		}
		for _, n := range b.Records[:commit] {
			if n.Seq <= h.committed[b.Epoch] {
				continue // a resend
			}
			rec, err := edgelink.DecodeRecord(n.Record)
			if err != nil {
				return err
			}
			r := record{epoch: b.Epoch, seq: n.Seq, backfill: n.Backfill}
			for _, s := range rec.Series {
				for i := range s.Len() {
					r.values = append(r.values, s.At(i).Value.String())
				}
			}
			h.records = append(h.records, r)
			h.committed[r.epoch] = r.seq
		}
		if ack {
			if err := h.ackLocked(ctx); err != nil {
				return err
			}
		}
		if drop {
			return errors.New("dropped")
		}
	case *pb.Frame_Latest:
		h.latest = append(h.latest, body.Latest.Twins...)
	case *pb.Frame_SyncDone:
		h.done = append(h.done, body.SyncDone.Id)
	case *pb.Frame_Report:
		h.reports = append(h.reports, body.Report)
	case *pb.Frame_PodStatuses:
		h.pods = append(h.pods, body.PodStatuses)
	case *pb.Frame_Response:
		h.responses = append(h.responses, f)
	case *pb.Frame_Goodbye:
		h.byes = append(h.byes, body.Goodbye.Reason)
		return errors.New("goodbye")
	}
	return nil
}

// ackLocked acknowledges what is committed of the epochs of the session.
func (h *fakeHub) ackLocked(ctx context.Context) error {
	ack := &pb.Ack{}
	for epoch := range h.lane.last {
		ack.Acks = append(ack.Acks, &pb.EpochAck{Epoch: epoch, Seq: h.committed[epoch]})
		h.lane.acknowledge(epoch, h.committed[epoch])
	}
	return h.conn.Send(ctx, &pb.Frame{Body: &pb.Frame_Ack{Ack: ack}})
}

// acknowledge tells the edge what is committed, also of batches after which none
// comes because the window is full.
func (h *fakeHub) acknowledge() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.lane != nil {
		_ = h.ackLocked(context.Background()) // the link may be down
	}
}

// fakeDevices are what a Link needs of a devices.Manager.
type fakeDevices struct {
	mu      sync.Mutex
	applied [][]store.Item
	wanted  []devices.LatestWanted
	wake    chan struct{}
	twins   func(devices.LatestWanted) []*pb.LatestTwin
}

func (d *fakeDevices) Apply(items []store.Item) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.applied = append(d.applied, items)
}

func (d *fakeDevices) Latest(want devices.LatestWanted) []*pb.LatestTwin {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wanted = append(d.wanted, want)
	if d.twins == nil {
		return nil
	}
	return d.twins(want)
}

func (d *fakeDevices) LatestWake() <-chan struct{} { return d.wake }

func (d *fakeDevices) Seen() []*pb.Seen { return []*pb.Seen{{Uid: "u", SeenUs: 1}} }

// edge is a Link with a real store and a real outbox.
type edge struct {
	t       *testing.T
	dir     string
	cfg     Config
	store   *store.Store
	outbox  *outbox.Outbox
	devices *fakeDevices
	proxy   *faultproxy.Proxy
	times   times
	wrap    func(*Config) // puts something between the link and its store or outbox
	link    *Link
	stop    func() error
	log     *logged
	n       int
}

// logged keeps what was logged.
type logged struct {
	mu    sync.Mutex
	lines []string
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(p))
	return len(p), nil
}

func (l *logged) text() (all string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		all += line
	}
	return all
}

func newEdge(t *testing.T, h *fakeHub) *edge {
	proxy := faultproxy.New(t, h.addr)
	e := &edge{t: t, dir: t.TempDir(), proxy: proxy, log: &logged{}, times: quick(), devices: &fakeDevices{wake: make(chan struct{}, 1)}}
	e.cfg = Config{URL: "https://" + proxy.Addr(), Node: "gateway-1", Token: h.token.Encode(), Labels: map[string]string{"site": "north"}, Version: "test",
		Dir: filepath.Join(e.dir, "pki"), Devices: e.devices, Log: slog.New(slog.NewTextHandler(e.log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	return e
}

func quick() times {
	q := defaultTimes
	q.ping, q.silent, q.report, q.latest, q.behind, q.leave = 100*time.Millisecond, 400*time.Millisecond, 50*time.Millisecond, 20*time.Millisecond, 100*time.Millisecond, 500*time.Millisecond
	q.welcome = 2 * time.Second
	q.quick, q.reread, q.store = 10*time.Millisecond, 10*time.Millisecond, 20*time.Millisecond
	q.retry = backoff.Policy{Min: 10 * time.Millisecond, Max: 50 * time.Millisecond, Factor: 2}
	return q
}

// start begins a life of the process. stop returns what Run returned.
func (e *edge) start() *edge {
	e.t.Helper()
	var err error
	ctx := context.Background()
	if e.store, err = store.Open(ctx, filepath.Join(e.dir, "edge.db"), pki.SealKey{}); err != nil {
		e.t.Fatal(err)
	}
	if e.outbox, err = outbox.Open(ctx, outbox.Config{Path: filepath.Join(e.dir, "outbox.db"), Linger: time.Millisecond, Fsync: 20 * time.Millisecond, Log: slog.New(slog.DiscardHandler), Now: time.Now}); err != nil {
		e.t.Fatal(err)
	}
	e.cfg.Store, e.cfg.Outbox = e.store, e.outbox
	if e.wrap != nil {
		e.wrap(&e.cfg)
	}
	if e.link, err = New(e.cfg); err != nil {
		e.t.Fatal(err)
	}
	e.link.times = e.times
	linkCtx, stopLink := context.WithCancel(ctx)
	boxCtx, stopBox := context.WithCancel(ctx)
	linked, boxed := make(chan error, 1), make(chan error, 1)
	go func() { linked <- e.link.Run(linkCtx) }()
	go func() { boxed <- e.outbox.Run(boxCtx) }()
	var once sync.Once
	var result error
	e.stop = func() error {
		once.Do(func() {
			stopLink()
			result = <-linked
			stopBox()
			<-boxed
			_ = e.outbox.Close()
			_ = e.store.Close()
		})
		return result
	}
	e.t.Cleanup(func() { _ = e.stop() })
	return e
}

func (e *edge) linked() {
	e.t.Helper()
	eventually(e.t, "linked", func() bool { return e.link.Status().Connected })
}

// staysAway reports whether the edge has said that it pauses for long.
func (e *edge) staysAway() bool {
	return longPause.MatchString(e.log.text())
}

var longPause = regexp.MustCompile(`retry=1[0-2]m[0-9]`)

// record puts one record with one sample into the log and returns its seq.
func (e *edge) record() uint64 {
	e.t.Helper()
	return e.recordValue(models.Int(int64(e.n)))
}

func (e *edge) recordValue(v models.Value) uint64 {
	e.t.Helper()
	e.n++
	seqs := make(chan uint64, 1)
	err := e.outbox.Append(e.t.Context(), outbox.Entry{Device: edgelink.DeviceRef{UID: "u", Assignment: 1}, Urgent: true,
		Samples: []outbox.Sample{{Property: "p", Sample: models.Sample{Value: v, Time: time.Now()}}}},
		func(seq uint64, err error) {
			if err != nil {
				e.t.Error(err)
			}
			seqs <- seq
		})
	if err != nil {
		e.t.Fatal(err)
	}
	return <-seqs
}
