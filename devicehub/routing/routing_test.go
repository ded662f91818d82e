package routing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"go.uber.org/goleak"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/devicehub/store/storetest"
	"github.com/whimbrel-edge/whimbrel/internal/courier"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestGuard(t *testing.T) {
	g, err := ParseGuard([]string{"127.0.0.2", "169.254.7.0/24"})
	if err != nil {
		t.Fatal(err)
	}
	for addr, forbidden := range map[string]bool{
		"127.0.0.1": true, "127.0.0.2": false, "127.9.9.9": true, "::1": true, "::ffff:127.0.0.1": true, "::ffff:127.0.0.2": false, "0.0.0.0": true, "::": true,
		"169.254.169.254": true, "169.254.7.9": false, "fe80::1": true, "224.0.0.1": true, "ff02::1": true, "255.255.255.255": true,
		"::7f00:1": true, "::7f00:2": false, "64:ff9b::a9fe:a9fe": true, "2002:7f00:1::1": true, "2002:a00:1::1": false, "64:ff9b::808:808": false, "fe80::1%eth0": true,
		"fd00:ec2::254": true, "fd00:ec2::253": false, "100.100.100.200": true, "168.63.129.16": true, "10.0.0.1": false, "192.168.1.1": false, "8.8.8.8": false, "2001:db8::1": false,
	} {
		if err := g.Check(netip.MustParseAddr(addr)); (err != nil) != forbidden {
			t.Errorf("%s: %v, want forbidden %t", addr, err, forbidden)
		}
	}
	for text, forbidden := range map[string]bool{"http://localhost:80/": true, "http://127.0.0.1/": true, "http://[::1]/": true, "http://erp.example/": false, "https://10.0.0.1:8443/x": false,
		"http://LocalHost./": true, "http://erp.localhost/": true, "http://127.0.0.2./": false, "http://127.0.0.3./": true, "http://[FD00:EC2::254]/": true} {
		if err := g.CheckURL(text); (err != nil) != forbidden {
			t.Errorf("%s: %v, want forbidden %t", text, err, forbidden)
		}
	}
	if _, err := ParseGuard([]string{"localhost"}); err == nil || !strings.Contains(err.Error(), "--route-allow") {
		t.Errorf("a name: %v", err)
	}
}

// TestClient has targets that lead where the guard does not allow it, in ways that
// their URLs do not tell.
func TestClient(t *testing.T) {
	g, err := ParseGuard([]string{"127.0.0.2"})
	if err != nil {
		t.Fatal(err)
	}
	var reached atomic.Int64
	forbidden := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	defer forbidden.Close()
	ln, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Skip("this machine has no 127.0.0.2: ", err)
	}
	allowed := httptest.NewUnstartedServer(http.RedirectHandler(forbidden.URL, http.StatusTemporaryRedirect))
	_ = allowed.Listener.Close()
	allowed.Listener = ln
	allowed.Start()
	defer allowed.Close()
	t.Setenv("HTTP_PROXY", forbidden.URL)
	c := newClient(g)
	defer c.close()
	_, port, _ := net.SplitHostPort(forbidden.Listener.Addr().String())
	for url, refused := range map[string]bool{
		allowed.URL: false, forbidden.URL: true, "http://LocalHost:" + port: true, "http://localhost.:" + port: true, "http://[::ffff:127.0.0.1]:" + port: true,
		"http://0.0.0.0:" + port: true, "http://[::]:" + port: true, "http://127.1:" + port: true, "http://2130706433:" + port: true, "http://0x7f.1:" + port: true,
	} {
		req, err := http.NewRequest("POST", url, strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		res, err := c.do(req.WithContext(t.Context()))
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode != http.StatusTemporaryRedirect {
				t.Errorf("%s: %s", url, res.Status)
			}
		}
		if (err != nil) != refused {
			t.Errorf("%s: %v", url, err)
		}
		// There is no use in asking again, unless something else is wrong, too: a resolver may know no such name.
		var final *courier.Refused
		if ip := strings.HasPrefix(url, "http://[") || strings.HasPrefix(url, "http://0.0.0.0"); refused && ip && (!errors.As(err, &final) || !final.Final || !strings.Contains(err.Error(), "--route-allow")) {
			t.Errorf("%s: %v is no final refusal", url, err)
		}
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("the forbidden one was reached %d times", n)
	}
}

// objects is a registry of one route and some nodes.
type objects struct {
	route *models.Route
	nodes map[string]map[string]string
	pods  []string
	away  []string
}

func (o *objects) Get(_ context.Context, key models.Key) (models.Object, error) {
	if key != models.KeyOf(o.route) {
		return nil, models.Errorf(models.KindNotFound, "%s not found", key)
	}
	return o.route, nil
}

func (o *objects) List(_ context.Context, _ models.ListOptions) (list models.List, _ error) {
	for name, labels := range o.nodes {
		list.Items = append(list.Items, &models.Node{Metadata: models.ObjectMeta{Name: name, Labels: labels}})
	}
	return list, nil
}

func (o *objects) Watch(ctx context.Context, _ models.ListOptions, _ string, send func(models.Event) error) error {
	if err := send(models.Event{Type: models.Added, Object: o.route}); err != nil {
		return err
	}
	if err := send(models.Event{Type: models.Bookmark, Object: o.route}); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func (o *objects) StatusChanged(models.Key)            {}
func (o *objects) ServiceNodes(_, _ string) []string   { return o.pods }
func (o *objects) Live(node string) bool               { return !slices.Contains(o.away, node) }
func (o *objects) Reply(node string, a *pb.RouteReply) {}

type bench struct {
	*Router
	t       *testing.T
	store   *storetest.Memory
	objects *objects
	target  *httptest.Server
	stop    func()

	mu     sync.Mutex
	now    time.Duration // ahead of the clock
	status int
	got    []string
	raised []string // "Kind name Reason: message"
}

// Raise implements Events.
func (b *bench) Raise(o models.Occurrence) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.raised = append(b.raised, fmt.Sprintf("%s %s %s: %s", o.Object.Kind, o.Object.Name, o.Reason, o.Message))
}

func (b *bench) events() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.raised)
}

func newBench(t *testing.T, spec string) *bench {
	b := &bench{t: t, store: storetest.NewMemory(), status: 200}
	b.target = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		b.mu.Lock()
		defer b.mu.Unlock()
		b.got = append(b.got, fmt.Sprintf("%s %s", body, r.Header.Get("X-Secret")))
		w.WriteHeader(b.status)
	}))
	t.Cleanup(b.target.Close)
	o, err := models.DecodeObject([]byte("apiVersion: whimbrel/v1\nkind: Route\nmetadata: {name: r}\nspec: {" + strings.ReplaceAll(spec, "TARGET", b.target.URL) + "}\n"))
	if err != nil {
		t.Fatal(err)
	}
	b.objects = &objects{route: o.(*models.Route), nodes: map[string]map[string]string{"gw-1": {"site": "north"}, "gw-2": {"site": "south"}, "gw-3": {"site": "north"}}}
	b.objects.route.Metadata.UID, b.objects.route.Metadata.Generation = "uid", 1
	b.open()
	t.Cleanup(func() { b.stop() })
	return b
}

func (b *bench) open() {
	b.t.Helper()
	r, err := New(b.t.Context(), Config{Store: b.store, Objects: b.objects, Nodes: b.objects, Events: b, Guard: Guard{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
		Secret: func(_, name string) (map[string][]byte, error) {
			return map[string][]byte{"X-Secret": []byte("of " + name)}, nil
		},
		NewID: func() string { return ulid.Make().String() }, Log: slog.New(slog.DiscardHandler),
		Now: func() time.Time { b.mu.Lock(); defer b.mu.Unlock(); return time.Now().Add(b.now) }})
	if err != nil {
		b.t.Fatal(err)
	}
	b.Router = r
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	b.stop = func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Error(err)
		}
		b.stop = func() {}
	}
}

func (b *bench) eventually(what string, holds func() bool) {
	b.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !holds(); {
		if time.Now().After(deadline) {
			b.t.Fatalf("%s: not within 10s; status %+v", what, b.Status(b.objects.route))
		}
		time.Sleep(5 * time.Millisecond) //sleep: between looks
	}
}

func (b *bench) seen() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.got)
}

func (b *bench) receive(keys ...string) *pb.RouteAcks {
	b.t.Helper()
	var ms []*pb.RouteMessage
	for _, k := range keys {
		ms = append(ms, &pb.RouteMessage{Key: k, Route: "uid", Generation: 1, Namespace: "default", Name: "r", Topic: "a/b", Payload: []byte("payload " + k)})
	}
	acks, err := b.Received(b.t.Context(), "gw-1", ms)
	if err != nil {
		b.t.Fatal(err)
	}
	return acks
}

func TestToHTTP(t *testing.T) {
	b := newBench(t, `from: {mqtt: "a/#"}, to: {http: {url: "TARGET", headersFrom: {secret: erp}}}, delivery: {retries: 0}`)
	if acks := b.receive("k1", "k2", "k1"); !slices.Equal(acks.Keys, []string{"k1", "k2", "k1"}) {
		t.Errorf("acks %v", acks)
	}
	b.eventually("both are delivered", func() bool { return b.Status(b.objects.route).Delivered == 2 })
	if got := b.seen(); !slices.Equal(got, []string{"payload k1 of erp", "payload k2 of erp"}) {
		t.Errorf("got %q", got)
	}
	b.mu.Lock()
	b.status = 503
	b.mu.Unlock()
	b.receive("k3")
	b.eventually("it is a dead letter", func() bool { return b.Status(b.objects.route).DeadLetters == 1 })
	b.eventually("people are told", func() bool {
		e := b.events()
		return len(e) == 1 && strings.HasPrefix(e[0], "Route r RouteFailed: a message") && strings.Contains(e[0], "is a dead letter now: ")
	})
	s := b.Status(b.objects.route)
	if s.Failed != 1 || s.Queued != 0 || !strings.Contains(s.LastError, "503") || strings.Contains(s.LastError, "of erp") {
		t.Errorf("status %+v", s)
	}
	// It is there after a restart, and goes when it is tried again.
	b.stop()
	b.open()
	b.mu.Lock()
	b.status = 200
	b.mu.Unlock()
	if n, err := b.Replay(t.Context(), "uid", nil); n != 1 || err != nil {
		t.Errorf("replayed %d, %v", n, err)
	}
	b.eventually("it is delivered", func() bool { s := b.Status(b.objects.route); return s.Delivered == 3 && s.DeadLetters == 0 })
}

// TestFresh delivers messages from memory, as many as there is room for, and the
// others from the store.
func TestFresh(t *testing.T) {
	b := newBench(t, `from: {mqtt: "a/#"}, to: {http: {url: "TARGET"}}, delivery: {retries: 0}`)
	b.Router.mu.Lock()
	b.freshLeft = 2 * freshSize(&store.RoutedMessage{Payload: make([]byte, 100)})
	room := b.freshLeft
	b.Router.mu.Unlock()
	var keys []string
	for i := range 50 {
		keys = append(keys, fmt.Sprintf("k%02d", i))
	}
	b.receive(keys...)
	b.eventually("all are delivered", func() bool { return b.Status(b.objects.route).Delivered == 50 })
	for i, got := range b.seen() {
		if got != "payload "+keys[i]+" " {
			t.Fatalf("%q comes as number %d", got, i)
		}
	}
	b.mu.Lock()
	b.status = 400
	b.mu.Unlock()
	b.receive("dead")
	b.eventually("it is a dead letter", func() bool { return b.Status(b.objects.route).DeadLetters == 1 })
	b.eventually("nothing is left behind", func() bool {
		b.Router.mu.Lock()
		defer b.Router.mu.Unlock()
		return len(b.fresh) == 0 && b.freshLeft == room && len(b.flying) == 0
	})
}

// A message goes where the route said when it was taken.
func TestChangedRoute(t *testing.T) {
	b := newBench(t, `from: {mqtt: "a/#"}, to: {http: {url: "TARGET/old"}}`)
	b.eventually("the spec is remembered", func() bool { _, err := b.store.RouteSpec(t.Context(), "uid", 1); return err == nil })
	b.stop()
	b.objects.route.Spec.To.HTTP.URL = "http://127.0.0.1:1/new"
	b.objects.route.Metadata.Generation = 2
	b.open()
	b.receive("k1")
	b.eventually("it comes to the old target", func() bool { return len(b.seen()) == 1 })
}

func TestToNodes(t *testing.T) {
	b := newBench(t, `from: {rest: true}, to: {mqtt: {topic: "x/{node}", nodeSelector: {site: north}}}, delivery: {ttl: 1m}`)
	done := make(chan models.RouteReply, 1)
	go func() {
		reply, err := b.Publish(context.Background(), "default", "r", "", "text/plain", []byte("hello"), 10*time.Second)
		if err != nil {
			t.Error(err)
		}
		done <- reply
	}()
	for _, node := range []string{"gw-1", "gw-3"} {
		var p Parcel
		b.eventually("there is something for "+node, func() bool {
			var err error
			if p, err = b.Parcel(t.Context(), node, 1<<20); err != nil {
				t.Fatal(err)
			}
			return len(p.Messages) == 1
		})
		m := p.Messages[0]
		var to models.RouteTarget
		if err := json.Unmarshal(m.Target, &to); err != nil || to.MQTT.Topic != "x/" || string(m.Payload) != "hello" {
			t.Errorf("to %s: %v, %v", node, m, err)
		}
		if more, err := b.Sent(t.Context(), p, &pb.RouteAcks{Keys: []string{m.Key}}); err != nil || !more {
			t.Error(more, err)
		}
	}
	if reply := <-done; !reply.Published || reply.Answered || reply.Key == "" {
		t.Errorf("reply %+v", reply)
	}
	if p, err := b.Parcel(t.Context(), "gw-2", 1<<20); err != nil || len(p.Messages) != 0 {
		t.Errorf("for a node that is not chosen: %v, %v", p.Messages, err)
	}
	// A node that does not come in time.
	if _, err := b.Publish(t.Context(), "default", "r", "", "", []byte("late"), 0); err != nil {
		t.Fatal(err)
	}
	b.eventually("it waits for both", func() bool { return b.Status(b.objects.route).Queued == 2 })
	b.mu.Lock()
	b.now = 2 * time.Minute
	b.mu.Unlock()
	b.expire(t.Context())
	if e := b.events(); len(e) != 2 {
		t.Errorf("people were told %q", e)
	}
	if s := b.Status(b.objects.route); s.DeadLetters != 2 || !strings.Contains(s.LastError, "was not there within the route's ttl") {
		t.Errorf("status %+v", s)
	}
}

// TestWaiting says what who waits for an answer is told when there is none: at once,
// and of which kind.
func TestWaiting(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	big := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(make([]byte, courier.MaxReply+1)) }))
	defer big.Close()
	for _, c := range []struct {
		to     string
		away   []string
		kind   models.ErrorKind
		say    string
		queued uint64 // afterwards
	}{
		{`http: {url: "http://127.0.0.1:1/x?key=hidden"}`, nil, models.KindUnavailable, "POST 127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused; the message stays queued", 1},
		{`http: {url: "http://` + silent.Addr().String() + `", timeout: 50ms}`, nil, models.KindTimeout, "did not answer in 50ms", 1},
		{`http: {url: "` + big.URL + `"}`, nil, models.KindRefused, "answered 200 with more than", 0},
		{`http: {url: "http://[::1]:9/"}`, nil, models.KindRefused, "is a loopback address, which routes may not reach from the hub", 0},
		{`service: {name: web}`, nil, models.KindUnavailable, "runs pods of service web", 1},
		{`mqtt: {topic: x}`, []string{"gw-2"}, models.KindUnavailable, "node gw-2 is offline; the message stays queued", 3},
		{`mqtt: {topic: x, nodeSelector: {site: nowhere}}`, nil, models.KindUnavailable, "no node matches the target's nodeSelector", 1},
	} {
		b := newBench(t, "from: {rest: true}, to: {"+c.to+"}")
		b.objects.away = c.away
		begun := time.Now()
		reply, err := b.Publish(t.Context(), "default", "r", "", "", []byte("x"), time.Minute)
		if err != nil || reply.Answered || reply.Published || !reply.Matched || reply.Kind != c.kind || !strings.Contains(reply.Error, c.say) || strings.Contains(reply.Error, "hidden") {
			t.Errorf("%s: %+v, %v", c.to, reply, err)
		}
		if d := time.Since(begun); d > 30*time.Second {
			t.Errorf("%s: told after %v", c.to, d)
		}
		b.eventually(c.to+" is settled", func() bool { return b.Status(b.objects.route).Queued == c.queued })
		b.stop()
	}
}

// TestWaitingBehind: who waits behind a message whose target is not to be had is told
// so as soon as that one is, and not at the end of their wait.
func TestWaitingBehind(t *testing.T) {
	b := newBench(t, "from: {rest: true}, to: {service: {name: web}}")
	defer b.stop()
	for i := range 5 {
		begun := time.Now()
		reply, err := b.Publish(t.Context(), "default", "r", "", "", []byte("x"), time.Minute)
		say := "no node that is there runs pods of service web; the message stays queued"
		if i > 0 {
			say = "an earlier message of the route waits for its target: " + say
		}
		if err != nil || reply.Kind != models.KindUnavailable || reply.Error != say {
			t.Errorf("%+v, %v", reply, err)
		}
		if d := time.Since(begun); d > 30*time.Second {
			t.Errorf("told after %v", d)
		}
	}
	if n := b.Status(b.objects.route).Queued; n != 5 {
		t.Errorf("%d are queued", n)
	}
}

// TestPublishAgain repeats with its key what got no answer: it is one message.
func TestPublishAgain(t *testing.T) {
	b := newBench(t, `from: {rest: true}, to: {http: {url: "http://127.0.0.1:1/"}}`)
	keys := map[string]int{}
	for i, key := range []string{"a", "a", "b", "", ""} {
		wait := time.Duration(0) // they come after the first, which is never delivered
		if i == 0 {
			wait = time.Minute
		}
		reply, err := b.Publish(t.Context(), "default", "r", key, "", []byte("x"), wait)
		if err != nil || reply.Answered || len(reply.Key) > 64 {
			t.Fatalf("%+v, %v", reply, err)
		}
		keys[reply.Key]++
	}
	if len(keys) != 4 {
		t.Errorf("keys %v", keys)
	}
	if s := b.Status(b.objects.route); s.Queued != 4 {
		t.Errorf("%d wait", s.Queued)
	}
}

// Beyond the bounds edges keep theirs, in order.
func TestFull(t *testing.T) {
	b := newBench(t, `from: {mqtt: "a/#"}, to: {http: {url: "http://127.0.0.1:1/"}}`)
	b.Router.mu.Lock()
	b.Router.waiting["uid"] = maxRouteWaiting - 2
	b.Router.mu.Unlock()
	acks := b.receive("k1", "k2", "k3", "k4")
	if !slices.Equal(acks.Keys, []string{"k1", "k2"}) || !slices.Equal(acks.Refused, []string{"k3", "k4"}) {
		t.Errorf("acks %v", acks)
	}
	if _, err := b.Publish(t.Context(), "default", "r", "", "", nil, 0); models.KindOf(err) != models.KindInvalid {
		t.Errorf("a route that is no REST source: %v", err)
	}
	if _, err := b.Received(t.Context(), "gw-1", []*pb.RouteMessage{{Key: strings.Repeat("k", 65), Route: "uid"}}); err == nil {
		t.Error("a key of 65 bytes is taken")
	}
	// Of a route that nobody knows: it is gone, and its messages with it.
	acks, err := b.Received(t.Context(), "gw-1", []*pb.RouteMessage{{Key: "x", Route: "other", Namespace: "default", Name: "other"}})
	if err != nil || len(acks.Keys) != 1 {
		t.Errorf("acks %v, %v", acks, err)
	}
	if page, err := b.store.Routed(t.Context(), store.RoutedQuery{Route: "other", Limit: 10}); err != nil || len(page) != 0 {
		t.Errorf("it is stored: %v, %v", page, err)
	}
}
