package routes

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"hash/maphash"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/whimbrel-edge/whimbrel/internal/courier"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
	"github.com/whimbrel-edge/whimbrel/protocols/mqtt"
)

const (
	bridgeTimeout = 10 * time.Second // for another broker to answer
	bridgeIdle    = 2 * time.Minute  // after which a connection that nothing is published on ends
	echoLife      = 10 * time.Second // within which another broker gives back what was published on it
	repeatLife    = 5 * time.Minute  // within which it gives back the same once more
	maxEchoes     = 10_000           // remembered; beyond, the oldest seconds are forgotten
)

// bridges are the connections to other brokers. Its loop owns sources; targets
// come and go with what is published on them.
type bridges struct {
	r *Router

	mu      sync.Mutex
	sources map[string]*source // by sourceKey
	targets map[string]*target // by targetKey
	echoes  map[string]*echoes // by broker's host and port, of those that are sources too
}

// source is a subscription of a route at another broker.
type source struct {
	client paho.Client
	cancel context.CancelFunc
}

// target is a connection that messages are published on.
type target struct {
	client paho.Client
	lost   atomic.Uint64 // counts lost connections: a token of before proves nothing
	reason atomic.Pointer[string]
	used   time.Time
}

func sourceKey(rt *route, secrets string) string {
	return fmt.Sprintf("%s %d %s", rt.uid, rt.generation, secrets)
}

// dialOptions are what sources and targets have in common.
func (b *bridges) dialOptions(namespace string, to *models.RouteBroker) (*paho.ClientOptions, error) {
	u, err := url.Parse(to.URL)
	if err != nil {
		return nil, err
	}
	secure := u.Scheme == "mqtts" || u.Scheme == "ssl"
	if u.Port() == "" {
		u.Host += map[bool]string{true: ":8883", false: ":1883"}[secure]
	}
	u.Scheme = map[bool]string{true: "ssl", false: "tcp"}[secure]
	o := paho.NewClientOptions().AddBroker(u.String()).SetConnectRetry(true).SetConnectRetryInterval(2 * time.Second).SetMaxReconnectInterval(15 * time.Second).
		SetKeepAlive(15 * time.Second).SetPingTimeout(10 * time.Second).SetConnectTimeout(bridgeTimeout).SetWriteTimeout(bridgeTimeout).SetUsername(to.Username)
	if ref := to.PasswordFrom; ref != nil {
		password, err := b.r.table.Load().secret(namespace, *ref)
		if err != nil {
			return nil, fmt.Errorf("passwordFrom: %w", err)
		}
		o.SetPassword(string(password))
	}
	if secure {
		conf := &tls.Config{MinVersion: tls.VersionTLS12}
		if ref := to.CAFrom; ref != nil {
			pem, err := b.r.table.Load().secret(namespace, *ref)
			if err != nil {
				return nil, fmt.Errorf("caFrom: %w", err)
			}
			conf.RootCAs = x509.NewCertPool()
			if !conf.RootCAs.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("caFrom: key %s of secret %s has no certificate in PEM", ref.Key, ref.Secret)
			}
		}
		if ref := to.CertificateFrom; ref != nil {
			pem, err := b.r.table.Load().secret(namespace, *ref)
			if err != nil {
				return nil, fmt.Errorf("certificateFrom: %w", err)
			}
			cert, err := tls.X509KeyPair(pem, pem)
			if err != nil {
				return nil, fmt.Errorf("certificateFrom: key %s of secret %s must have a certificate and its private key in PEM: %w", ref.Key, ref.Secret, err)
			}
			conf.Certificates = []tls.Certificate{cert}
		}
		o.SetTLSConfig(conf)
	}
	return o, nil
}

// hostOf tells brokers apart.
func hostOf(to *models.RouteBroker) string {
	u, err := url.Parse(to.URL)
	if err != nil {
		return to.URL
	}
	port := u.Port()
	if port == "" {
		port = map[bool]string{true: "8883", false: "1883"}[u.Scheme == "mqtts" || u.Scheme == "ssl"]
	}
	return strings.ToLower(u.Hostname()) + ":" + port
}

// publish delivers a message to another broker.
func (b *bridges) publish(ctx context.Context, m *pb.RouteMessage, to *models.RouteBroker) error {
	topic, err := mqtt.Pattern{Topic: to.Topic, Filter: m.Filter}.Fill(mqtt.Origin{Topic: m.Topic, Node: m.Node, Device: m.Device, Property: m.Property})
	if err != nil {
		return &courier.Refused{Final: true, Err: err}
	}
	t, err := b.target(m.Namespace, to)
	if err != nil {
		return err
	}
	if !t.client.IsConnectionOpen() {
		if !b.connected(ctx, t) {
			why := "no answer"
			if r := t.reason.Load(); r != nil {
				why = *r
			}
			return fmt.Errorf("not connected to %s: %s", hostOf(to), why)
		}
	}
	lost := t.lost.Load()
	b.expect(to, topic, m.Payload)
	token := t.client.Publish(topic, byte(*to.QoS), to.Retain, m.Payload)
	select {
	case <-token.Done():
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(bridgeTimeout):
		return fmt.Errorf("%s does not acknowledge", hostOf(to))
	}
	if err := token.Error(); err != nil {
		return fmt.Errorf("publish at %s: %w", hostOf(to), err)
	}
	// A token ends without an error, too, when its connection is lost.
	if t.lost.Load() != lost || !t.client.IsConnectionOpen() {
		return fmt.Errorf("the connection to %s was lost", hostOf(to))
	}
	return nil
}

// connected waits a little for a connection that is being made.
func (b *bridges) connected(ctx context.Context, t *target) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !t.client.IsConnectionOpen() {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
	return true
}

// target returns the connection for a route's target, and makes it.
func (b *bridges) target(namespace string, to *models.RouteBroker) (*target, error) {
	o, err := b.dialOptions(namespace, to)
	if err != nil {
		return nil, err
	}
	// What one may trust, or shows, is not for another.
	key := fmt.Sprintf("%s %s %s", o.Servers[0], o.Username, to.ClientID)
	for _, ref := range to.Secrets() {
		value, err := b.r.table.Load().secret(namespace, ref)
		if err != nil {
			return nil, err
		}
		key += fmt.Sprintf(" %x", maphash.Bytes(seed, value))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.targets[key]
	if t == nil {
		t = &target{}
		id := to.ClientID
		if id == "" {
			id = "whimbrel-" + b.r.cfg.Node + "-" + b.r.cfg.NewID()
		}
		o.SetClientID(id).SetCleanSession(true).SetAutoReconnect(true).
			SetConnectionLostHandler(func(_ paho.Client, err error) { t.lost.Add(1); t.reason.Store(new(err.Error())) }).
			SetConnectionNotificationHandler(func(_ paho.Client, n paho.ConnectionNotification) {
				if f, ok := n.(paho.ConnectionNotificationBrokerFailed); ok {
					t.reason.Store(new(f.Reason.Error()))
				}
			})
		t.client = paho.NewClient(o)
		t.client.Connect() // goes on in the background
		b.targets[key] = t
	}
	t.used = time.Now()
	return t, nil
}

var seed = maphash.MakeSeed()

// run keeps the sources as the table has them, until ctx ends.
func (b *bridges) run(ctx context.Context, changed <-chan struct{}) {
	tick := time.NewTicker(bridgeIdle / 4)
	defer tick.Stop()
	defer b.end()
	for {
		b.reconcile(ctx)
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-tick.C:
		}
	}
}

func (b *bridges) reconcile(ctx context.Context) {
	table := b.r.table.Load()
	wanted := map[string]*route{}
	hosts := map[string][]string{} // filters by broker
	for _, rt := range table.routes {
		if from := rt.spec.From.Broker; from != nil {
			wanted[sourceKey(rt, table.secretsOf(rt.namespace, from))] = rt
			hosts[hostOf(from)] = append(hosts[hostOf(from)], from.Topic)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for host := range b.echoes {
		if hosts[host] == nil {
			delete(b.echoes, host)
		}
	}
	for host, filters := range hosts {
		if b.echoes[host] == nil {
			b.echoes[host] = &echoes{sums: map[uint64][]time.Time{}, back: map[uint64]time.Time{}}
		}
		b.echoes[host].filters = filters
	}
	for key, s := range b.sources {
		if wanted[key] == nil {
			s.cancel()
			go s.client.Disconnect(250) // it waits
			delete(b.sources, key)
		}
	}
	for key, rt := range wanted {
		if b.sources[key] == nil {
			s, err := b.subscribe(ctx, rt)
			if err != nil {
				b.r.queue.count(rt.uid, func(t *total) { t.lastError, t.lastErrorAt = err.Error(), b.r.cfg.Now() })
				continue // tried again with the next change or tick
			}
			b.sources[key] = s
		}
	}
	for key, t := range b.targets {
		if time.Since(t.used) > bridgeIdle {
			go t.client.Disconnect(250)
			delete(b.targets, key)
		}
	}
}

func (b *bridges) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.sources {
		s.cancel()
		s.client.Disconnect(100)
	}
	for _, t := range b.targets {
		t.client.Disconnect(100)
	}
	clear(b.sources)
	clear(b.targets)
}

// subscribe opens a source. Its session is kept by the other broker while the
// edge is away, and a message is acknowledged when it is durable here.
func (b *bridges) subscribe(ctx context.Context, rt *route) (*source, error) {
	from := rt.spec.From.Broker
	o, err := b.dialOptions(rt.namespace, from)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	id := from.ClientID
	if id == "" {
		id = "whimbrel-" + b.r.cfg.Node + "-" + rt.uid
	}
	fail := func(err error) {
		b.r.queue.count(rt.uid, func(t *total) {
			t.lastError, t.lastErrorAt = fmt.Sprintf("source %s: %v", hostOf(from), err), b.r.cfg.Now()
		})
	}
	o.SetClientID(id).SetCleanSession(false).SetAutoReconnect(true).SetAutoAckDisabled(true).SetOrderMatters(true).
		SetDefaultPublishHandler(func(_ paho.Client, m paho.Message) { b.received(ctx, rt, m) }).
		SetOnConnectHandler(func(c paho.Client) {
			token := c.Subscribe(from.Topic, byte(*from.QoS), func(_ paho.Client, m paho.Message) { b.received(ctx, rt, m) })
			go func() { // handlers must not wait
				if token.WaitTimeout(bridgeTimeout) && token.Error() != nil {
					fail(token.Error())
				} else if sub, ok := token.(*paho.SubscribeToken); ok && sub.Result()[from.Topic] == 0x80 {
					fail(fmt.Errorf("it refuses the subscription to %s", from.Topic))
				}
			}()
		}).
		SetConnectionLostHandler(func(_ paho.Client, err error) { fail(err) }).
		SetConnectionNotificationHandler(func(_ paho.Client, n paho.ConnectionNotification) {
			if f, ok := n.(paho.ConnectionNotificationBrokerFailed); ok {
				fail(f.Reason)
			}
		})
	s := &source{client: paho.NewClient(o), cancel: cancel}
	s.client.Connect()
	return s, nil
}

// received takes a message of another broker. While the queue is full it holds
// the connection up, and so the other broker.
func (b *bridges) received(ctx context.Context, rt *route, in paho.Message) {
	if b.isEcho(rt.spec.From.Broker, in.Topic(), in.Payload(), in.Duplicate()) {
		in.Ack()
		return
	}
	m := &message{topic: in.Topic(), payload: slices.Clone(in.Payload())}
	ways := b.r.ways(rt, m)
	for {
		err := b.r.carry(ctx, ways)
		if err == nil {
			in.Ack()
			return
		}
		if !errors.Is(err, ErrFull) {
			b.r.log.Error("a message of another broker cannot be taken; it is tried again", "route", rt.name, "error", err)
		}
		select {
		case <-ctx.Done():
			return // it comes again: it was not acknowledged
		case <-time.After(time.Second):
		}
	}
}

// echoes remembers what was published on a broker that is a source too, and will
// come back from it.
type echoes struct {
	filters []string
	sums    map[uint64][]time.Time
	// back has those that have come back: the other broker sends one again whose
	// acknowledgement it has not heard of.
	back  map[uint64]time.Time
	count int
}

func sum(topic string, payload []byte) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	_, _ = h.WriteString(topic)
	_ = h.WriteByte(0)
	_, _ = h.Write(payload)
	return h.Sum64()
}

// expect notes that a message will come back.
func (b *bridges) expect(to *models.RouteBroker, topic string, payload []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.echoes[hostOf(to)]
	if e == nil || !slices.ContainsFunc(e.filters, func(f string) bool { return mqtt.Match(f, topic) }) {
		return
	}
	if e.count >= maxEchoes {
		e.forget(time.Now().Add(-echoLife))
		if e.count >= maxEchoes {
			clear(e.sums)
			e.count = 0
		}
	}
	s := sum(topic, payload)
	e.sums[s] = append(e.sums[s], time.Now())
	e.count++
}

func (e *echoes) forget(before time.Time) {
	for s, at := range e.back {
		if time.Since(at) > repeatLife {
			delete(e.back, s)
		}
	}
	for s, at := range e.sums {
		kept := slices.DeleteFunc(at, func(t time.Time) bool { return t.Before(before) })
		e.count -= len(at) - len(kept)
		if len(kept) == 0 {
			delete(e.sums, s)
		} else {
			e.sums[s] = kept
		}
	}
}

// isEcho reports whether a message is one that was published from here.
func (b *bridges) isEcho(from *models.RouteBroker, topic string, payload []byte, again bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.echoes[hostOf(from)]
	if e == nil {
		return false
	}
	s := sum(topic, payload)
	at := slices.DeleteFunc(e.sums[s], func(t time.Time) bool { return time.Since(t) > echoLife })
	e.count -= len(e.sums[s]) - len(at)
	if len(at) == 0 {
		delete(e.sums, s)
		return again && time.Since(e.back[s]) < repeatLife
	}
	if len(e.back) > maxEchoes {
		e.forget(time.Now().Add(-echoLife))
		if len(e.back) > maxEchoes {
			clear(e.back)
		}
	}
	e.back[s] = time.Now()
	e.sums[s] = at[1:]
	e.count--
	return true
}
