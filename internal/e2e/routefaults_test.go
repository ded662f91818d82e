package e2e

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// TestRoutesUnderFaults publishes while hub, edge and target are killed at
// random. Every message whose PUBACK came is delivered, those of a topic in
// order, copies with the key of the first; what the target refuses for ever is a
// dead letter and holds up nobody. WHIMBREL_ROUTE_FAULTS=SECONDS for longer.
func TestRoutesUnderFaults(t *testing.T) {
	seconds := 6
	if text := os.Getenv("WHIMBREL_ROUTE_FAULTS"); text != "" {
		var err error
		if seconds, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d, %d s", seed, seconds)
	random := rand.New(rand.NewPCG(seed, 0))

	h := newHub(t, "")
	e := newEdge(t, h, "gateway", h.link)
	target := newTarget(t)
	h.apply(fmt.Sprintf("apiVersion: whimbrel/v1\nkind: Route\nmetadata: {name: out}\nspec: {from: {mqtt: \"out/#\"}, to: {http: {url: \"http://%s/in\", timeout: 2s}}, delivery: {retries: 100}}\n", target.addr))
	eventually(t, 20*time.Second, "the route carries", func() error {
		in := subscribe(t, e.mqtt, "none")
		in.publish(t, "out/probe", "probe")
		if len(target.seen("probe")) == 0 {
			return fmt.Errorf("nothing yet")
		}
		return nil
	})

	stop := make(chan struct{})
	var wait sync.WaitGroup
	const topics = 3
	acked := make([]int, topics) // all of a topic below are acknowledged
	var again atomic.Int64       // messages that were published more than once
	for topic := range topics {
		wait.Go(func() {
			p := newPublisher(t, e.mqtt, topic)
			defer p.client.Disconnect(100)
			for n := 0; ; n++ {
				text := fmt.Sprintf("%d-%d", topic, n)
				if n%40 == 39 {
					text += "-poison"
				}
				for !p.publish(fmt.Sprint("out/", topic), text) {
					again.Add(1)
					select {
					case <-stop:
						return
					case <-time.After(50 * time.Millisecond):
					}
				}
				acked[topic] = n + 1
				select {
				case <-stop:
					return
				case <-time.After(2 * time.Millisecond):
				}
			}
		})
	}
	faults := map[string]int{}
	for end := time.Now().Add(time.Duration(seconds) * time.Second); time.Now().Before(end); {
		time.Sleep(time.Duration(200+random.IntN(1200)) * time.Millisecond) //sleep: the faults come at random moments
		switch which := []string{"hub", "edge", "target"}[random.IntN(3)]; which {
		case "hub":
			faults[which]++
			h.kill()
			h.begin()
		case "edge":
			faults[which]++
			e.kill()
			e.again()
		case "target":
			faults[which]++
			target.down()
			time.Sleep(time.Duration(random.IntN(500)) * time.Millisecond) //sleep: it is away for a while
			target.up(t)
		}
	}
	close(stop)
	wait.Wait()
	h.awaitReady()

	total := 0
	for _, n := range acked {
		total += n
	}
	eventually(t, 60*time.Second, "all are delivered", func() error {
		for topic, n := range acked {
			for i := range n {
				text := fmt.Sprintf("%d-%d", topic, i)
				if i%40 == 39 {
					continue
				}
				if len(target.seen(text)) == 0 {
					return fmt.Errorf("%s is missing, %d of the topic are acknowledged", text, n)
				}
			}
		}
		return nil
	})
	copies := target.check(t)
	poison := 0
	for _, n := range acked {
		poison += n / 40
	}
	doc := awaitRoute(t, h, "out", "has given up what is refused", func(d routeDoc) bool { return d.Status.Failed >= poison && d.Status.Queued == 0 })
	if doc.Status.Failed != doc.Status.DeadLetters || doc.Status.Failed > poison+int(again.Load())+topics {
		t.Errorf("%d poison messages, %d published again; status %+v", poison, again.Load(), doc.Status)
	}
	t.Logf("faults %v: %d messages acknowledged, %d copies delivered, %d dead letters", faults, total, copies, doc.Status.DeadLetters)
	if total < 50 {
		t.Errorf("only %d messages", total)
	}
}

// publisher publishes one message at a time with QoS 1, and knows whether it was
// acknowledged.
type publisher struct {
	client mqtt.Client
	lost   atomic.Int64
}

func newPublisher(t *testing.T, addr string, n int) *publisher {
	p := &publisher{}
	o := mqtt.NewClientOptions().AddBroker("tcp://" + addr).SetClientID(fmt.Sprint("route-faults-", n)).SetCleanSession(true).SetConnectRetry(true).
		SetConnectRetryInterval(50 * time.Millisecond).SetMaxReconnectInterval(100 * time.Millisecond).SetWriteTimeout(2 * time.Second)
	o.SetConnectionLostHandler(func(mqtt.Client, error) { p.lost.Add(1) })
	p.client = mqtt.NewClient(o)
	p.client.Connect()
	return p
}

func (p *publisher) publish(topic, payload string) bool {
	if !p.client.IsConnectionOpen() {
		return false
	}
	lost := p.lost.Load()
	token := p.client.Publish(topic, 1, false, payload)
	// A token ends well also when its connection is lost.
	return token.WaitTimeout(3*time.Second) && token.Error() == nil && p.client.IsConnectionOpen() && p.lost.Load() == lost
}

// faultTarget is an HTTP server that comes and goes at one address, and remembers.
type faultTarget struct {
	addr string

	mu     sync.Mutex
	server *http.Server
	got    []delivered
	index  map[string][]int // by body
}

func newTarget(t *testing.T) *faultTarget {
	s := &faultTarget{addr: holdPort(t), index: map[string][]int{}}
	s.up(t)
	t.Cleanup(s.down)
	return s
}

func (s *faultTarget) up(t *testing.T) {
	t.Helper()
	var ln net.Listener
	eventually(t, 10*time.Second, "the target listens", func() (err error) {
		ln, err = net.Listen("tcp", s.addr)
		return err
	})
	server := &http.Server{Handler: s}
	s.mu.Lock()
	s.server = server
	s.mu.Unlock()
	go func() { _ = server.Serve(ln) }() // ends with down
}

func (s *faultTarget) down() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server != nil {
		_ = s.server.Close()
		s.server = nil
	}
}

func (s *faultTarget) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the caller has gone
	}
	text := string(body)
	if strings.HasSuffix(text, "-poison") {
		w.WriteHeader(422)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.index[text] = append(s.index[text], len(s.got))
	s.got = append(s.got, delivered{body: text, key: r.Header.Get("Idempotency-Key"), topic: r.Header.Get("X-Whimbrel-Topic")})
}

func (s *faultTarget) seen(body string) []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.index[body]
}

// check checks order and keys, and returns how many copies came.
func (s *faultTarget) check(t *testing.T) (copies int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := map[string]string{}
	last := map[string]int{}
	for _, d := range s.got {
		if body, ok := keys[d.key]; ok {
			copies++
			if body != d.body {
				t.Errorf("key %s came with %s and with %s", d.key, body, d.body)
			}
			continue
		}
		keys[d.key] = d.body
		parts := strings.Split(d.body, "-")
		if len(parts) < 2 {
			continue
		}
		n, err := strconv.Atoi(parts[1])
		if err != nil {
			t.Fatal(err)
		}
		if before, ok := last[d.topic]; ok && n < before {
			t.Errorf("topic %s: %d came after %d", d.topic, n, before)
		}
		last[d.topic] = n
	}
	return copies
}
