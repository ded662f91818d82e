// Package opcuasim is an OPC UA server for demos and tests: real messages on
// real sockets, values that move by signals, typed nodes that can be written,
// users, all security policies, and faults on demand. Tests of users' own code
// may use it, too.
//
//	sim := opcuasim.Start(t, "press.yaml")
//	client := connect(sim.URL())
//	sim.Set("temperature", 99)
//
// A file holds documents like this one; every field is known or refused:
//
//	kind: OPCUASimulator
//	name: press                    # the folder that the nodes are in
//	listen: 127.0.0.1:4840         # default 127.0.0.1:0, a free port
//	tick: 100ms                    # how often signals move (default)
//	security: [None, Basic256Sha256/SignAndEncrypt]  # or [all]; default [None]
//	certificate: press.pem         # keeps the server's; default: another one each time
//	users: {operator: secret}      # nobody may be anonymous then, unless
//	anonymous: true                # this says so
//	userCertificates: [operator.pem]  # who may sign in with a certificate
//	maxMonitoredItems: 0           # more are refused; 0 is any number, -1 none
//	namespaces: ["urn:factory:press"]   # URIs from index 2 on; default: its own
//	signals:                       # see package signal
//	  temperature: {sine: {min: 15, max: 25, period: 10m}}
//	nodes:
//	- {name: temperature, type: Double, unit: "°C"}       # ns=2;s=temperature
//	- {name: setpoint, node: "ns=2;i=7", type: Float, writable: true, value: 45, minimum: 0, maximum: 95}
//	- {name: serial, type: String, value: WB-20}
//	- {name: profile, type: Int16, array: true, writable: true, value: [1, 2, 3]}
//
// A node shows the signal of its own name, another one (signal), or a value
// that never changes (value). A writable node starts with value, and what
// clients write is the input of its name in expressions. Writes are checked:
// BadTypeMismatch, BadOutOfRange, BadNotWritable. Sampling intervals, queues
// and filters of monitored items are not honoured: the newest value is
// published with each interval. Browsing needs no session.
//
// Unplug and Plug restart the server: sessions and subscriptions are gone.
// HangUp resets connections, Silence keeps them and loses all that is sent.
package opcuasim

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopcua/opcua/server"
	"github.com/gopcua/opcua/ua"

	"github.com/whimbrel-edge/whimbrel/protocols/opcua"
	"github.com/whimbrel-edge/whimbrel/simulators/signal"
)

// Server is a running or stopped simulator. It is safe for concurrent use.
type Server struct {
	cfg       Config
	security  []security
	anonymous bool
	users     []*x509.Certificate
	// namespaces are URIs by index; nodes may be in further ones.
	namespaces []string
	nodes      []*node
	byName     map[string]*node
	byID       map[string]*node
	cable      cable
	player     *player         // of a recording, or nil
	key        *rsa.PrivateKey // nil without security
	cert       []byte

	started sync.Mutex     // guards srv until it is set
	srv     *server.Server // made by Listen
	stop    context.CancelFunc
	reads   atomic.Uint64

	subscriptions uint32 // ever created; under the subscription service's lock

	// mu guards the signals, what the nodes show, sessions and the log. It is
	// taken after gopcua's own locks.
	mu      sync.Mutex
	set     *signal.Set
	writes  []Write
	dirty   []*node        // changed, to be told
	again   map[*node]bool // to be told again: a subscription was busy
	active  map[string]bool
	problem signal.Problem
}

// maxWrites bounds the log of writes; the oldest go first.
const maxWrites = 10_000

// Write is one value that a client wrote.
type Write struct {
	Time  time.Time
	Node  string
	Value any
}

// New checks a configuration and makes its simulator, which does not listen
// yet.
func New(cfg Config) (*Server, error) {
	s, err := compile(cfg)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	for _, n := range s.nodes {
		n.at = now
	}
	if err := s.Step(now); err != nil {
		return nil, fmt.Errorf("opcuasim: %s: %w", s.cfg.Name, err)
	}
	return s, nil
}

// certify gives the server a key and a certificate, signed by itself as those
// of devices usually are.
func (s *Server) certify() (err error) {
	app := opcua.Application{Name: s.cfg.Name, URI: "urn:whimbrel:simulator:" + url.PathEscape(s.cfg.Name),
		DNS: []string{"localhost"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}}
	var id *opcua.Identity
	if s.cfg.Certificate == "" {
		id, err = opcua.MakeIdentity(app)
	} else {
		id, err = opcua.KeepIdentity(s.cfg.Certificate, app)
	}
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	s.key, s.cert = id.Key, id.Certificate
	return nil
}

// Name is the simulator's name.
func (s *Server) Name() string { return s.cfg.Name }

// Addr is the server's address, host:port.
func (s *Server) Addr() string { return s.cable.address() }

// URL is the server's, as clients name it.
func (s *Server) URL() string { return "opc.tcp://" + s.Addr() }

// Certificate is the server's own, DER; nil without security and before Listen.
func (s *Server) Certificate() []byte { return s.cert }

// Describe says what listens where.
func (s *Server) Describe() []string {
	return []string{fmt.Sprintf("opcua %s, %d nodes", s.URL(), len(s.nodes))}
}

// Listen takes the address, so that Addr is known before Run, and starts the
// server.
func (s *Server) Listen() error {
	s.started.Lock()
	defer s.started.Unlock()
	if s.srv != nil {
		return nil
	}
	if s.key == nil && slices.ContainsFunc(s.security, func(x security) bool { return !x.none() }) {
		if err := s.certify(); err != nil {
			return fmt.Errorf("opcuasim: %s: %w", s.cfg.Name, err)
		}
	}
	if err := s.cable.plug(); err != nil {
		return fmt.Errorf("opcuasim: %s: %w", s.cfg.Name, err)
	}
	// gopcua wants to know its port beforehand: somebody may take it between
	// finding and listening.
	var err error
	for range 3 {
		if err = s.start(); err == nil {
			return nil
		}
	}
	s.cable.close()
	return fmt.Errorf("opcuasim: %s: %w", s.cfg.Name, err)
}

// start starts gopcua's server behind the cable.
func (s *Server) start() error {
	port, err := freePort()
	if err != nil {
		return err
	}
	host, outer, err := net.SplitHostPort(s.cable.address())
	if err != nil {
		return err
	}
	number, err := strconv.Atoi(outer)
	if err != nil {
		return err
	}
	if ip := net.ParseIP(host); ip != nil && ip.To4() == nil {
		host = "[" + host + "]"
	}
	options := []server.Option{server.EndPoint("127.0.0.1", port), server.EndPoint(host, number), server.ServerName(s.cfg.Name),
		server.ProductName("Whimbrel simulator"), server.ManufacturerName("Whimbrel"),
		server.EnableAuthMode(ua.UserTokenTypeAnonymous)}
	if s.key != nil {
		options = append(options, server.PrivateKey(s.key), server.Certificate(s.cert))
	}
	for _, x := range s.security {
		options = append(options, server.EnableSecurity(x.policy, x.mode))
	}
	srv := server.New(options...)
	s.build(srv)
	s.srv = srv
	s.handle(srv)
	ctx, cancel := context.WithCancel(context.Background())
	if err := srv.Start(ctx); err != nil {
		cancel()
		s.srv = nil
		return err
	}
	s.stop = cancel
	s.cable.inner = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	s.cable.serve(ctx)
	return nil
}

func freePort() (int, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port, nil
}

// Run serves until ctx ends, then hangs up on everyone and returns nil. It
// listens first where Listen was not called.
func (s *Server) Run(ctx context.Context) error {
	if err := s.Listen(); err != nil {
		return err
	}
	var playing sync.WaitGroup
	if p := s.player; p != nil {
		playing.Go(func() { p.run(ctx, s) })
		playing.Go(func() { p.Follow(ctx, s.Unplug, s.Plug, s.cfg.Log) })
	}
	tick := time.NewTicker(s.cfg.Tick)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case now := <-tick.C:
			// What a signal's error means was logged; the others went on.
			_ = s.Step(now)
		}
	}
	playing.Wait()
	// gopcua's server gives way only while its own loop still runs.
	s.cable.close()
	err := s.srv.Close()
	s.forget()
	s.stop()
	return err
}

// Step moves the signals to now, as Run does at every tick.
func (s *Server) Step(now time.Time) error {
	s.mu.Lock()
	err := s.stepLocked(now)
	changed := s.changedLocked()
	s.mu.Unlock()
	if s.running() {
		s.notify(changed)
	}
	return err
}

func (s *Server) running() bool {
	s.started.Lock()
	defer s.started.Unlock()
	return s.srv != nil
}

// changedLocked takes the nodes that subscriptions have to hear of.
func (s *Server) changedLocked() []*node {
	changed := s.dirty
	s.dirty = nil
	for n := range s.again {
		changed = append(changed, n)
	}
	clear(s.again)
	return changed
}

func (s *Server) stepLocked(now time.Time) error {
	errs := []error{s.set.Step(now)}
	for _, n := range s.nodes {
		if n.signal == "" {
			continue
		}
		v, _ := s.set.Value(n.signal)
		if v == n.shown {
			continue
		}
		if err := n.show(v, now); err != nil {
			errs = append(errs, fmt.Errorf("node %s: %w", n.name, err))
			continue
		}
		s.dirty = append(s.dirty, n)
	}
	err := errors.Join(errs...)
	s.problem.Tell(s.cfg.Log, s.cfg.Name, err)
	return err
}

func (s *Server) log(w Write) {
	if len(s.writes) == maxWrites {
		s.writes = slices.Delete(s.writes, 0, maxWrites/10)
	}
	s.writes = append(s.writes, w)
}

// Writes lists what clients wrote, oldest first: the last ten thousand or a
// little less.
func (s *Server) Writes() []Write {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.writes)
}

// Reads is how many read requests there were.
func (s *Server) Reads() uint64 { return s.reads.Load() }

// Connections is how many clients are connected now.
func (s *Server) Connections() int { return s.cable.connections() }

func (s *Server) find(name string) (*node, error) {
	n := s.byName[name]
	if n == nil {
		return nil, fmt.Errorf("opcuasim: %s has no node %q", s.cfg.Name, name)
	}
	return n, nil
}

// Get is a node's value as gopcua has it.
func (s *Server) Get(name string) (any, error) {
	n, err := s.find(name)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return n.variant.Value(), nil
}

// Set makes a node show a value at once: an input as if somebody had turned it
// at the device's own panel, a signal until Release.
func (s *Server) Set(name string, value any) error {
	return s.change(name, func(n *node) error {
		if n.signal == "" {
			n.at = time.Now()
			s.dirty = append(s.dirty, n)
			return n.keep(value)
		}
		return s.set.Force(n.signal, value)
	})
}

// Release lets a node that was Set follow its signal again.
func (s *Server) Release(name string) error {
	return s.change(name, func(n *node) error {
		s.set.Release(n.signal)
		return nil
	})
}

// SetStatus makes a node's value carry a status code, StatusOK to end that. A
// bad one hides the value.
func (s *Server) SetStatus(name string, status ua.StatusCode) error {
	return s.change(name, func(n *node) error {
		n.status, n.at = status, time.Now()
		s.dirty = append(s.dirty, n)
		return nil
	})
}

func (s *Server) change(name string, f func(*node) error) error {
	n, err := s.find(name)
	if err != nil {
		return err
	}
	s.mu.Lock()
	if err = f(n); err == nil {
		err = s.stepLocked(time.Now())
	}
	changed := s.changedLocked()
	s.mu.Unlock()
	if s.running() {
		s.notify(changed)
	}
	if err != nil {
		return fmt.Errorf("opcuasim: node %s: %w", name, err)
	}
	return nil
}

// Reset is a power cut: what clients wrote is forgotten, and signals with a
// past begin again.
func (s *Server) Reset() {
	s.mu.Lock()
	s.set.Reset()
	for _, n := range s.nodes {
		n.status = ua.StatusOK
		if n.initial != nil {
			n.variant, n.at = n.initial, time.Now()
			s.dirty = append(s.dirty, n)
		}
	}
	_ = s.stepLocked(time.Now()) // logged
	changed := s.changedLocked()
	s.mu.Unlock()
	if s.running() {
		s.notify(changed)
	}
}

// Unplug stops the server: whoever is connected is hung up on, nobody can
// connect, and sessions and subscriptions are forgotten. Signals go on.
func (s *Server) Unplug() {
	s.cable.unplug()
	s.forget()
}

// forget drops all sessions and subscriptions.
func (s *Server) forget() {
	s.mu.Lock()
	clear(s.active)
	s.mu.Unlock()
	s.dropSubscriptions(func(*server.Subscription) bool { return true })
}

// Plug starts the server again, at the same address. It fails when somebody
// else has taken that meanwhile.
func (s *Server) Plug() error {
	if err := s.cable.plug(); err != nil {
		return fmt.Errorf("opcuasim: %s: %w", s.cfg.Name, err)
	}
	s.cable.serve(context.Background())
	return nil
}

// HangUp resets every connection. Sessions and subscriptions live on.
func (s *Server) HangUp() { s.cable.reset() }

// Silence keeps every connection, and new ones, but loses all that is sent
// either way, until Speak.
func (s *Server) Silence() { s.cable.hush(true) }

// Speak ends Silence. Connections that lost something are reset.
func (s *Server) Speak() { s.cable.hush(false) }

// CloseSessions forgets every session and its subscriptions, as servers do when
// an administrator ends them. Connections and their secure channels live on, and
// nobody is told.
func (s *Server) CloseSessions() { s.forget() }

// DropSubscriptions forgets every subscription, as servers do that are short of
// memory. Nobody is told.
func (s *Server) DropSubscriptions() {
	s.dropSubscriptions(func(*server.Subscription) bool { return true })
}
