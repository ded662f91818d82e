package routes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/oklog/ulid/v2"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/store"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is a router with a broker and apps that only remember.
type bench struct {
	*Router
	t    *testing.T
	path string
	app  *httptest.Server
	stop func()

	mu        sync.Mutex
	published []string
	answer    func(r *http.Request, body string) (int, string)
	asked     []string
	headers   http.Header // of what was asked last
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, path: filepath.Join(t.TempDir(), "routes.db")}
	b.app = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		b.mu.Lock()
		b.asked = append(b.asked, fmt.Sprintf("%s %s %s key=%t", r.Method, r.URL.Path, body, r.Header.Get("Idempotency-Key") != ""))
		answer := b.answer
		b.headers = r.Header.Clone()
		b.mu.Unlock()
		status, text := 200, ""
		if answer != nil {
			status, text = answer(r, string(body))
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}))
	t.Cleanup(b.app.Close)
	b.open()
	t.Cleanup(func() { b.stop() })
	return b
}

// Do implements Services.
func (b *bench) Do(ctx context.Context, namespace, service string, r *http.Request) (*http.Response, error) {
	if service != "detector" || namespace != "default" {
		return nil, models.Errorf(models.KindUnavailable, "no ready pod of service %s", service)
	}
	r.URL.Scheme, r.URL.Host = "http", strings.TrimPrefix(b.app.URL, "http://")
	return http.DefaultTransport.RoundTrip(r.WithContext(ctx))
}

func (b *bench) open() {
	b.t.Helper()
	r, err := Open(b.t.Context(), Config{Path: b.path, Node: "gw", NewID: func() string { return ulid.Make().String() }, Services: b, Log: slog.New(slog.DiscardHandler),
		Publish: func(topic string, m *pb.RouteMessage, to *models.RouteMQTT) error {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.published = append(b.published, fmt.Sprintf("%s %s %t", topic, m.Payload, to.Retain))
			return nil
		}})
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
		if err := r.Close(); err != nil {
			b.t.Error(err)
		}
		b.stop = func() {}
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	}
}

func (b *bench) again() { b.stop(); b.open() }

// routes makes items of specs in YAML's flow style. Names say where the target
// is: here, beyond or both.
func (b *bench) routes(specs ...string) {
	b.t.Helper()
	var items []store.Item
	for i, spec := range specs {
		where, text, _ := strings.Cut(spec, ": ")
		o, err := models.DecodeObject([]byte(fmt.Sprintf("apiVersion: whimbrel/v1\nkind: Route\nmetadata: {name: r%d}\nspec: {%s}\n", i, text)))
		if err != nil {
			b.t.Fatal(err)
		}
		r := o.(*models.Route)
		r.Metadata.Generation = 1
		doc, err := json.Marshal(models.NodeRoute{Route: *r, Here: where != "beyond", Beyond: where != "here"})
		if err != nil {
			b.t.Fatal(err)
		}
		items = append(items, store.Item{Kind: store.KindRoute, Namespace: "default", Name: r.Metadata.Name, UID: fmt.Sprint("uid", i), Revision: 1, JSON: doc})
	}
	for name, doc := range map[string]string{
		"DeviceModel tank": `{"spec":{"protocol":"modbus","properties":[{"name":"level","type":"int","access":"Read"},{"name":"secret","type":"int","access":"Read","uplink":"none"}]}}`,
		"Device tank-1":    `{"metadata":{"labels":{"area":"yard"}},"spec":{"model":"tank"}}`,
	} {
		kind, name, _ := strings.Cut(name, " ")
		items = append(items, store.Item{Kind: kind, Namespace: "default", Name: name, JSON: []byte(doc)})
	}
	b.Apply(items)
}

func (b *bench) publish(topic, payload string) {
	b.t.Helper()
	if err := b.Published(b.t.Context(), topic, "", []byte(payload)); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) parcel() (out []string, p Parcel) {
	b.t.Helper()
	p, err := b.Parcel(b.t.Context(), 1<<20)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, m := range p.Messages {
		text := string(m.Payload)
		if m.Dead != "" {
			text += " dead: " + m.Dead
		}
		out = append(out, text)
	}
	return out, p
}

func (b *bench) seen() (published, asked []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.published), slices.Clone(b.asked)
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !holds(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 10s", what)
		}
		time.Sleep(5 * time.Millisecond) //sleep: between looks
	}
}

func (b *bench) count(i int) *pb.RouteCount {
	for _, c := range b.Counts().Routes {
		if c.Route == fmt.Sprint("uid", i) {
			return c
		}
	}
	return &pb.RouteCount{}
}

func TestWays(t *testing.T) {
	b := newBench(t)
	b.routes(
		`here: from: {mqtt: "in/#"}, to: {mqtt: {topic: "out/{#}/{node}", retain: true}}`,
		`beyond: from: {mqtt: "in/+"}, when: 'payload.n > 1', transform: '{"n": payload.n}', to: {http: {url: "http://x"}}`,
		`both: from: {mqtt: "both"}, to: {mqtt: {topic: "all", nodeSelector: {a: b}}}`,
		`here: from: {twin: {properties: [level, secret]}}, to: {mqtt: {topic: "twin/{device}/{property}"}}`,
		`beyond: from: {twin: {labelSelector: "area=yard"}}, to: {http: {url: "http://x"}}`,
		`beyond: from: {twin: {labelSelector: "area=hall"}}, to: {http: {url: "http://x"}}`,
	)
	if b.Wants("else") || !b.Wants("in/x") || !b.Wants("both") {
		t.Error("wants what no route takes, or does not")
	}
	b.publish("in/a", `{"n": 2, "x": 1}`)
	b.publish("in/b", `{"n": 1}`)
	b.publish("in/c", `text`)
	b.publish("both", `hello`)
	b.Reported("devices/tank-1/properties/level", []byte(`{"value":7,"quality":"good"}`))
	b.Reported("devices/tank-1/properties/secret", []byte(`{"value":8,"quality":"good"}`))
	b.Reported("devices/other/properties/level", []byte(`{"value":9}`))
	b.Reported("devices/tank-1/state", []byte(`{}`))
	b.Reported("devices/tank-1/properties/level", nil) // cleared
	eventually(t, "twins are taken", func() bool { p, _ := b.seen(); return len(p) == 6 })
	published, _ := b.seen()
	want := []string{`out/a/gw {"n": 2, "x": 1} true`, `out/b/gw {"n": 1} true`, `out/c/gw text true`, `all hello false`,
		`twin/tank-1/level {"device":"tank-1","property":"level","quality":"good","value":7} false`, `twin/tank-1/secret {"device":"tank-1","property":"secret","quality":"good","value":8} false`}
	if !slices.Equal(published, want) {
		t.Errorf("published\n%s", strings.Join(published, "\n"))
	}
	// What is not to leave the edge does not.
	if got, _ := b.parcel(); !slices.Equal(got, []string{`{"n":2}`, `hello`, `{"device":"tank-1","property":"level","quality":"good","value":7}`}) {
		t.Errorf("for the hub: %q", got)
	}
	if c := b.count(1); c.Dropped != 1 || !strings.Contains(c.LastError, "when") || c.Queued != 1 {
		t.Errorf("counts %v", c)
	}
	if c := b.count(0); c.Delivered != 3 {
		t.Errorf("counts %v", c)
	}
}

// What was taken survives, in order, and goes when the hub has it.
func TestQueue(t *testing.T) {
	b := newBench(t)
	b.routes(`beyond: from: {mqtt: "a/#"}, to: {http: {url: "http://x"}}`)
	for i := range 100 {
		b.publish("a/b", fmt.Sprint(i))
	}
	b.again()
	b.routes(`beyond: from: {mqtt: "a/#"}, to: {http: {url: "http://y"}}`)
	got, p := b.parcel()
	if len(got) != 100 || got[0] != "0" || got[99] != "99" {
		t.Fatalf("for the hub: %q", got)
	}
	acks := &pb.RouteAcks{}
	for i, m := range p.Messages {
		if i < 40 {
			acks.Keys = append(acks.Keys, m.Key)
		} else {
			acks.Refused = append(acks.Refused, m.Key)
		}
	}
	if more, err := b.Sent(t.Context(), p, acks); err != nil || more {
		t.Fatal(more, err)
	}
	if got, _ := b.parcel(); len(got) != 60 || got[0] != "40" {
		t.Fatalf("left: %q", got)
	}
	if p, err := b.Parcel(t.Context(), 300); err != nil || len(p.Messages) == 0 || len(p.Messages) > 3 {
		t.Errorf("a small parcel has %d messages: %v", len(p.Messages), err)
	}
	if c := b.count(0); c.Queued != 60 {
		t.Errorf("counts %v", c)
	}

	b.queue.maxMessages = 61
	b.publish("a/b", "last")
	if err := b.Published(t.Context(), "a/b", "", []byte("over")); !errors.Is(err, ErrFull) {
		t.Errorf("a full queue: %v", err)
	}
	b.queue.maxMessages, b.queue.maxBytes = 1000, b.queue.bytes+150
	if err := b.Published(t.Context(), "a/b", "", make([]byte, 200)); !errors.Is(err, ErrFull) {
		t.Errorf("a full queue: %v", err)
	}
}

// Apps are asked in order; what they refuse becomes a dead letter for the hub.
func TestService(t *testing.T) {
	b := newBench(t)
	b.answer = func(_ *http.Request, body string) (int, string) {
		switch body {
		case "poison":
			return 400, "no"
		case "tea":
			return 418, "pot"
		}
		return 200, "got " + body
	}
	b.routes(`here: from: {mqtt: "img/#"}, to: {service: {name: detector, path: /detect, method: PUT}}, delivery: {retries: 0}`,
		`here: from: {rest: true}, to: {service: {name: detector}}`, `here: from: {mqtt: "none"}, to: {service: {name: absent}}, delivery: {ttl: 1s}`,
		`here: from: {rest: true}, to: {service: {name: absent}}`, `here: from: {rest: true}, to: {mqtt: {topic: posted, qos: 2}}`)
	for _, m := range []string{"1", "poison", "2"} {
		b.publish("img/x", m)
	}
	eventually(t, "all are asked", func() bool { _, asked := b.seen(); return len(asked) == 3 })
	if _, asked := b.seen(); !slices.Equal(asked, []string{"PUT /detect 1 key=true", "PUT /detect poison key=true", "PUT /detect 2 key=true"}) {
		t.Errorf("asked %q", asked)
	}
	eventually(t, "the dead letter is there", func() bool { got, _ := b.parcel(); return len(got) == 1 })
	if got, p := b.parcel(); got[0] != "poison dead: detector answers 400 Bad Request" || string(p.Messages[0].Target) == "" || p.Messages[0].Attempts != 1 {
		t.Errorf("dead letter %q", got)
	}
	eventually(t, "counts", func() bool { return b.count(0).Delivered == 2 && b.count(0).Failed == 1 })

	// Who waits is told at once that there will be no answer soon.
	if reply, err := b.Post(t.Context(), Posted{Namespace: "default", Route: "r3", Payload: []byte("x")}, time.Minute); err != nil || reply.Answered || reply.Kind != models.KindUnavailable || !strings.Contains(reply.Error, "no ready pod of service absent; the message stays queued") {
		t.Errorf("no app: %+v, %v", reply, err)
	}
	if reply, err := b.Post(t.Context(), Posted{Namespace: "default", Route: "r3", Payload: []byte("y")}, time.Minute); err != nil || reply.Kind != models.KindUnavailable || !strings.HasPrefix(reply.Error, "an earlier message of the route waits for its target: no ready pod") {
		t.Errorf("behind one without an app: %+v, %v", reply, err)
	}
	if reply, err := b.Post(t.Context(), Posted{Namespace: "default", Route: "r4", Payload: []byte("x")}, time.Minute); err != nil || !reply.Published || reply.Key == "" {
		t.Errorf("to the broker: %+v, %v", reply, err)
	}
	b.mu.Lock()
	h := b.headers
	b.mu.Unlock()
	if h.Get("X-Whimbrel-Route") != "default/r0" || h.Get("X-Whimbrel-Topic") != "img/x" || h.Get("X-Whimbrel-Node") != "gw" || h.Get("X-Whimbrel-Time") == "" || h.Get("User-Agent") != "whimbrel" {
		t.Errorf("headers %v", h)
	}
	reply, err := b.Post(t.Context(), Posted{Namespace: "default", Route: "r1", ContentType: "text/plain", Payload: []byte("tea")}, 5*time.Second)
	if err != nil || !reply.Answered || reply.Status != 418 || string(reply.Body) != "pot" {
		t.Errorf("reply %+v, %v", reply, err)
	}
	if _, err := b.Post(t.Context(), Posted{Namespace: "default", Route: "r0"}, 0); models.KindOf(err) != models.KindNotFound {
		t.Errorf("a route that is no REST source: %v", err)
	}
	if _, err := b.Post(t.Context(), Posted{Namespace: "default", Route: "r1", Payload: make([]byte, MaxPayload+1)}, 0); models.KindOf(err) != models.KindTooLarge {
		t.Errorf("too large: %v", err)
	}
	// An app that is not there is not given up before the ttl.
	b.publish("none", "x")
	eventually(t, "it is given up at last", func() bool {
		got, _ := b.parcel()
		return slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, "x dead: no ready pod") })
	})
}

// A post whose target is beyond waits for the hub's answer.
func TestPostBeyond(t *testing.T) {
	b := newBench(t)
	live := false
	b.cfg.Live = func() bool { return live }
	b.routes(`beyond: from: {rest: true}, when: 'payload == 1', to: {http: {url: "http://x"}}`)
	reply, err := b.Post(t.Context(), Posted{Namespace: "default", Route: "r0", Payload: []byte("1")}, time.Minute)
	if err != nil || reply.Answered || !strings.Contains(reply.Error, "hub is away") {
		t.Fatalf("without a hub: %+v, %v", reply, err)
	}
	if reply, err := b.Post(t.Context(), Posted{Namespace: "default", Route: "r0", Payload: []byte("2")}, time.Minute); err != nil || reply.Matched {
		t.Errorf("not wanted: %+v, %v", reply, err)
	}
	live = true
	go func() {
		for {
			p, err := b.Parcel(context.Background(), 1<<20)
			if err != nil {
				return
			}
			for _, m := range p.Messages {
				b.Answer(&pb.RouteReply{Key: m.Key, Status: 201, Body: []byte("made")})
			}
			if len(p.Messages) == 2 {
				return
			}
			<-b.Waiting()
		}
	}()
	reply, err = b.Post(t.Context(), Posted{Namespace: "default", Route: "r0", Payload: []byte("1")}, 10*time.Second)
	if err != nil || reply.Status != 201 || string(reply.Body) != "made" {
		t.Errorf("reply %+v, %v", reply, err)
	}
	if reply, err = b.Post(t.Context(), Posted{Namespace: "default", Route: "r0", Payload: []byte("1")}, 20*time.Millisecond); err != nil || reply.Answered || reply.Kind != models.KindTimeout {
		t.Errorf("no answer: %+v, %v", reply, err)
	}
}

// Who repeats a post with its own key gives the same message once more, and nobody
// else can.
func TestPostWithKey(t *testing.T) {
	b := newBench(t)
	b.cfg.Live = func() bool { return true }
	b.routes(`beyond: from: {rest: true}, to: {http: {url: "http://x"}}`, `beyond: from: {rest: true}, to: {http: {url: "http://x"}}`)
	post := func(route, by, key string) string {
		t.Helper()
		reply, err := b.Post(t.Context(), Posted{Namespace: "default", Route: route, Payload: []byte("x"), By: by, Key: key}, 0)
		if err != nil || reply.Key == "" || len(reply.Key) > 64 {
			t.Fatalf("%+v, %v", reply, err)
		}
		return reply.Key
	}
	first := post("r0", "a", "k")
	if again := post("r0", "a", "k"); again != first {
		t.Errorf("keys %s and %s", first, again)
	}
	for _, other := range []string{post("r0", "a", "l"), post("r0", "b", "k"), post("r1", "a", "k"), post("r0", "a", ""), post("r0", "a", "")} {
		if other == first {
			t.Errorf("another message has the key %s", other)
		}
	}
	if got, _ := b.parcel(); len(got) != 6 {
		t.Errorf("%d messages wait", len(got))
	}
	if _, err := b.Post(t.Context(), Posted{Namespace: "default", Route: "r0", Key: strings.Repeat("k", maxKey+1)}, 0); models.KindOf(err) != models.KindMalformed {
		t.Errorf("a long key: %v", err)
	}
	// Two cannot wait for one answer.
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, err := b.Post(ctx, Posted{Namespace: "default", Route: "r0", By: "a", Key: "w"}, time.Minute)
		done <- err
	}()
	eventually(t, "the first waits", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.Router.mu.Lock()
		defer b.Router.mu.Unlock()
		return len(b.waiters) == 1
	})
	if _, err := b.Post(t.Context(), Posted{Namespace: "default", Route: "r0", By: "a", Key: "w"}, time.Minute); models.KindOf(err) != models.KindConflict {
		t.Errorf("the second: %v", err)
	}
	cancel()
	<-done
}

// Messages of the hub are delivered once for each key that waits here.
func TestFromHub(t *testing.T) {
	b := newBench(t)
	target := func(to models.RouteTarget) []byte {
		text, err := json.Marshal(to)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	qos := 1
	down := []*pb.RouteMessage{
		{Key: "k1", Route: "u", Payload: []byte("one"), Target: target(models.RouteTarget{MQTT: &models.RouteMQTT{Topic: "recipes/new", QoS: &qos, Retain: true}})},
		{Key: "k2", Route: "u", Namespace: "default", Payload: []byte("two"), TtlMs: 60000, Target: target(models.RouteTarget{Service: &models.RouteService{Name: "detector", Path: "/", Method: "POST", Timeout: new(models.Duration(time.Second))}}), Wait: true},
		{Key: "k3", Route: "u", Payload: []byte("three"), Target: target(models.RouteTarget{MQTT: &models.RouteMQTT{Topic: "devices/x/desired", QoS: &qos}})},
		{Key: "k4", Route: "u", Payload: []byte("four"), Target: []byte("not json")},
	}
	acks := b.Deliver(t.Context(), down)
	if !slices.Equal(acks.Keys, []string{"k1", "k2", "k3", "k4"}) || len(acks.Refused) != 0 {
		t.Fatalf("acks %v", acks)
	}
	select {
	case a := <-b.Replies():
		if a.Key != "k2" || a.Status != 200 {
			t.Errorf("reply %v", a)
		}
	case <-time.After(10 * time.Second):
		t.Error("no reply")
	}
	if published, asked := b.seen(); !slices.Equal(published, []string{"recipes/new one true"}) || !slices.Equal(asked, []string{"POST / two key=true"}) {
		t.Errorf("published %q, asked %q", published, asked)
	}
	got, _ := b.parcel()
	if len(got) != 2 || !strings.Contains(got[0], "three dead") || !strings.Contains(got[1], "four dead") {
		t.Errorf("dead letters %q", got)
	}
	away := target(models.RouteTarget{Service: &models.RouteService{Name: "absent", Path: "/", Method: "POST", Timeout: new(models.Duration(time.Second))}})
	b.Deliver(t.Context(), []*pb.RouteMessage{{Key: "k6", Route: "u", Namespace: "default", TtlMs: 60000, Target: away, Wait: true}, {Key: "k7", Route: "u", Namespace: "default", TtlMs: 60000, Target: away, Wait: true}})
	for _, want := range []string{"k6 no ready pod", "k7 an earlier message of the route waits for its target: no ready pod"} {
		select {
		case a := <-b.Replies():
			if !strings.HasPrefix(a.Key+" "+a.Error, want) || a.Status != 0 {
				t.Errorf("reply %v, want %s", a, want)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("no reply: %s", want)
		}
	}
	b.queue.maxMessages = 0
	if acks := b.Deliver(t.Context(), []*pb.RouteMessage{down[0], {Key: "k5", Target: down[1].Target}, down[0]}); len(acks.Keys) != 1 || !slices.Equal(acks.Refused, []string{"k5", "k1"}) {
		t.Errorf("acks of a full queue %v", acks)
	}
}
