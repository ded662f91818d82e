// Package serialsim plays devices on a serial line that are asked in words, or
// that talk unasked, for demos and tests: a pty under a path that stays the
// same, answers made of moving signals, and faults on demand. In a test:
//
//	sim := serialsim.Start(t, "scale.yaml")
//	device := connect(sim.URL())
//	sim.Set("weight", 12.5)
//
// A file holds documents like this one; every field is known or refused:
//
//	kind: SerialSimulator
//	name: scale                    # for messages
//	listen: serial:///tmp/ttyScale?baud=9600   # the path becomes a symbolic link
//	                               # to a pty; serial:// (default) finds one
//	terminator: "\r\n"             # the default; or length: 10, of what it says
//	checksum: none                 # or xor, sum8, crc16 (see protocols/serial)
//	tick: 100ms                    # how often signals move (default)
//	seed: 1                        # of the faults' probabilities
//	signals:                       # see package signal
//	  weight: {walk: {start: 12, step: 0.5, min: 0, max: 30}}
//	inputs: {limit: 25.0, lamp: false}   # what commands set
//	commands:
//	- {ask: 'W\?', answer: "W={weight:.2f} kg"}
//	- {ask: 'LIM\?', answer: "LIM={limit}"}
//	- {ask: 'LIM ([-0-9.]+)', set: limit, minimum: 0, maximum: 30, answer: OK, refuse: ERR}
//	unknown: "?"                   # the answer to all else (default: none)
//	unasked:
//	- {every: 1s, send: "S {weight:07.2f}"}
//	faults:                        # from the start; tests use Inject and Clear
//	- {kind: slow, delay: 200ms, probability: 0.1}
//
// ask is a regular expression for the whole message. In what the device says,
// {name} is a signal or an input and {name:.2f} the same in a format of Go's
// package fmt; bools are 1 and 0.
//
// The faults are silent, slow (delay), partial, garbage, wrong-checksum and
// hang-up, each with probability (0 to 1), count (gone after that many), on
// (answers or unasked) and, for silent and hang-up, executed: what was asked is
// done and only its answer lost.
package serialsim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/whimbrel-edge/whimbrel/protocols/serial"
	"github.com/whimbrel-edge/whimbrel/simulators/ptyline"
	"github.com/whimbrel-edge/whimbrel/simulators/replay"
	"github.com/whimbrel-edge/whimbrel/simulators/signal"
)

// Server is a running or stopped simulator. It is safe for concurrent use.
type Server struct {
	cfg      Config
	framing  serial.Framing
	line     serial.Config
	query    string
	commands []command
	unknown  template
	unasked  []template
	player   *replay.Player // of a recording, or nil
	listens  bool           // the recording is of one that talks
	plugged  chan struct{}  // wakes run; full means it will look anyway

	// mu guards the signals and the logs: whoever holds it sees one moment.
	mu       sync.Mutex
	set      *signal.Set
	requests []Request // the last maxLog, oldest first
	writes   []Write
	problem  signal.Problem

	faultMu sync.Mutex
	faults  []*fault
	random  *rand.Rand

	portMu sync.Mutex
	path   string // "" until one is found
	out    bool   // unplugged
	ln     net.Listener
	conn   net.Conn // of the session under way

	// sending is held from when a message is made until it is sent. It is taken
	// before mu.
	sending sync.Mutex
}

// maxLog bounds each of the logs; the oldest go first.
const maxLog = 10_000

// Request is a message that came, right or not.
type Request struct {
	Time time.Time
	Text string
}

// Write is one value that a client has set.
type Write struct {
	Time  time.Time
	Input string
	Value any
}

// New checks a configuration and makes its simulator, which does not listen
// yet.
func New(cfg Config) (*Server, error) {
	s, err := compile(cfg)
	if err != nil {
		return nil, err
	}
	s.random = rand.New(rand.NewPCG(s.cfg.Seed, 1))
	for _, f := range s.cfg.Faults {
		s.inject(f)
	}
	if err := s.Step(time.Now()); err != nil {
		return nil, fmt.Errorf("serialsim: %s: %w", s.cfg.Name, err)
	}
	return s, nil
}

// Name is the simulator's name.
func (s *Server) Name() string { return s.cfg.Name }

// Listen makes the line, so that Addr is known before Run.
func (s *Server) Listen() error {
	s.portMu.Lock()
	defer s.portMu.Unlock()
	if s.ln != nil || s.out {
		return nil
	}
	ln, err := ptyline.Listen(s.path)
	if err != nil {
		return fmt.Errorf("serialsim: %s: %w", s.cfg.Name, err)
	}
	s.ln, s.path = ln, ln.Addr().String()
	select {
	case s.plugged <- struct{}{}:
	default:
	}
	return nil
}

// Addr is the path of the line. Before Listen it may be "".
func (s *Server) Addr() string {
	s.portMu.Lock()
	defer s.portMu.Unlock()
	return s.path
}

// URL is what a device's connection calls the line.
func (s *Server) URL() string {
	u := url.URL{Scheme: "serial", Path: s.Addr(), RawQuery: s.query}
	return u.String()
}

// Describe says what is on the line.
func (s *Server) Describe() []string {
	what := fmt.Sprintf("%d commands", len(s.commands))
	if len(s.unasked) > 0 {
		what += fmt.Sprintf(", %d messages unasked", len(s.unasked))
	}
	return []string{fmt.Sprintf("%s, %s", s.URL(), what)}
}

// Unplug pulls the cable: the path is gone, and whoever has it open is hung up
// on. Plug undoes it.
func (s *Server) Unplug() {
	s.portMu.Lock()
	ln, conn := s.ln, s.conn
	s.ln, s.conn, s.out = nil, nil, true
	s.portMu.Unlock()
	if ln != nil {
		_ = ln.Close() // it does not fail
	}
	if conn != nil {
		_ = conn.Close()
	}
}

// Plug makes the line again, under the same path.
func (s *Server) Plug() error {
	s.portMu.Lock()
	s.out = false
	s.portMu.Unlock()
	return s.Listen()
}

// Run serves until ctx ends, then unplugs the line and returns nil. It listens
// first where Listen was not called.
func (s *Server) Run(ctx context.Context) error {
	if err := s.Listen(); err != nil {
		return err
	}
	var wg sync.WaitGroup
	wg.Go(func() { s.serveAll(ctx) })
	if s.player != nil {
		wg.Go(func() { s.player.Follow(ctx, s.Unplug, s.Plug, s.cfg.Log) })
		wg.Go(func() { s.sayRecorded(ctx) })
	}
	for i := range s.unasked {
		wg.Go(func() { s.talk(ctx, i) })
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
	s.Unplug()
	wg.Wait()
	s.Unplug() // what was plugged meanwhile
	return nil
}

// serveAll serves one session after the other.
func (s *Server) serveAll(ctx context.Context) {
	for ctx.Err() == nil {
		s.portMu.Lock()
		ln := s.ln
		s.portMu.Unlock()
		if ln == nil {
			select {
			case <-s.plugged:
			case <-ctx.Done():
			}
			continue
		}
		conn, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			continue // unplugged
		}
		if err != nil {
			s.cfg.Log.Warn("a simulated line cannot be made", "simulator", s.cfg.Name, "error", err)
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
			continue
		}
		s.portMu.Lock()
		current := s.ln == ln
		if current {
			s.conn = conn
		}
		s.portMu.Unlock()
		if current {
			s.serve(ctx, conn)
		}
		_ = conn.Close()
	}
}

// serve reads what clients ask until the connection ends.
func (s *Server) serve(ctx context.Context, conn net.Conn) {
	split := serial.NewSplitter(s.framing)
	buf := make([]byte, 1024)
	var pending []byte // of messages without an end of their own
	last := time.Now()
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		if s.framing.Length == 0 {
			split.Feed(buf[:n], func(m []byte, err error) bool {
				if err == nil {
					s.hear(ctx, conn, m)
				}
				return true
			})
			continue
		}
		if now := time.Now(); now.Sub(last) > 50*time.Millisecond || len(pending) > serial.MaxMessage {
			pending = pending[:0] // silence ends a message
		}
		last = time.Now()
		pending = append(pending, buf[:n]...)
		if s.understands(pending) {
			s.hear(ctx, conn, pending)
			pending = pending[:0]
		}
	}
}

// text is a message as commands see it.
func (s *Server) text(message []byte) (string, error) {
	b, err := s.framing.Text(message)
	if err != nil {
		return "", err
	}
	if s.framing.Length == 0 && utf8.Valid(b) {
		return string(b), nil
	}
	runes := make([]rune, len(b))
	for i, v := range b {
		runes[i] = rune(v)
	}
	return string(runes), nil
}

// bytes is a text as it is sent.
func (s *Server) bytes(text string) []byte {
	if s.framing.Length == 0 {
		return []byte(text)
	}
	var b []byte
	for _, r := range text {
		b = append(b, byte(r))
	}
	return b
}

func (s *Server) understands(message []byte) bool {
	if s.player != nil {
		_, known := s.player.Answer(string(message), time.Now())
		return known
	}
	text, err := s.text(message)
	return err == nil && slices.ContainsFunc(s.commands, func(c command) bool { return c.ask.MatchString(text) })
}

// hear answers one message.
func (s *Server) hear(ctx context.Context, conn net.Conn, message []byte) {
	if s.player != nil {
		s.answerRecorded(ctx, conn, message)
		return
	}
	text, err := s.text(message)
	if err != nil {
		s.log(string(message))
		return // damaged: a device does not answer what it cannot trust
	}
	s.log(text)
	f, struck := s.strike("answers")
	if struck && !f.Executed {
		switch f.Kind {
		case Silent:
			return
		case HangUp:
			_ = conn.Close()
			return
		}
	}
	if struck && f.Kind == Slow && !pause(ctx, f.Delay) {
		return
	}
	s.sending.Lock() // what is said later tells of what is done here
	defer s.sending.Unlock()
	answer := s.answer(text)
	if answer == "" && f.Kind != HangUp {
		return
	}
	s.sendLocked(conn, answer, f)
}

// answer carries out what was asked and returns what is said to it, "" for
// nothing.
func (s *Server) answer(text string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.commands {
		m := c.ask.FindStringSubmatch(text)
		if m == nil {
			continue
		}
		if c.Set == "" {
			return c.answer.render(s.set)
		}
		like, _ := s.set.Value(c.Set)
		v, err := parseLike(m[1], like)
		f, isNumber := signal.Number(v)
		switch {
		case err != nil, isNumber && c.Minimum != nil && f < *c.Minimum, isNumber && c.Maximum != nil && f > *c.Maximum:
			return c.refuse.render(s.set)
		}
		if err := s.set.Put(c.Set, v); err != nil {
			return c.refuse.render(s.set)
		}
		now := time.Now()
		if len(s.writes) == maxLog {
			s.writes = slices.Delete(s.writes, 0, maxLog/10)
		}
		s.writes = append(s.writes, Write{Time: now, Input: c.Set, Value: v})
		_ = s.stepLocked(now) // it is set even if a signal cannot follow; that was logged
		return c.answer.render(s.set)
	}
	return s.unknown.render(s.set)
}

func (s *Server) log(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.requests) == maxLog {
		s.requests = slices.Delete(s.requests, 0, maxLog/10)
	}
	s.requests = append(s.requests, Request{Time: time.Now(), Text: text})
}

// talk says something again and again.
func (s *Server) talk(ctx context.Context, i int) {
	tick := time.NewTicker(s.cfg.Unasked[i].Every)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.portMu.Lock()
		conn := s.conn
		s.portMu.Unlock()
		if conn == nil {
			continue
		}
		f, struck := s.strike("unasked")
		if struck && f.Kind == Slow && !pause(ctx, f.Delay) {
			return
		}
		s.sending.Lock()
		s.mu.Lock()
		text := s.unasked[i].render(s.set)
		s.mu.Unlock()
		s.sendLocked(conn, text, f)
		s.sending.Unlock()
	}
}

// Say makes the device say a text now, unasked. Faults do not meet it.
func (s *Server) Say(text string) {
	s.portMu.Lock()
	conn := s.conn
	s.portMu.Unlock()
	if conn != nil {
		s.sending.Lock()
		defer s.sending.Unlock()
		s.sendLocked(conn, text, Fault{})
	}
}

// sendLocked sends a text, as the fault has it. What the line does not take is
// lost, as on a line.
func (s *Server) sendLocked(conn net.Conn, text string, f Fault) {
	message := s.framing.Append(nil, s.bytes(text))
	if s.framing.Length > 0 && len(message) != s.framing.Length {
		s.cfg.Log.Warn("a simulated message has another length", "simulator", s.cfg.Name, "text", text, "bytes", len(message), "length", s.framing.Length)
	}
	switch f.Kind {
	case Silent:
		return
	case HangUp:
		_ = conn.Close()
		return
	case Partial:
		message = message[:len(message)/2]
	case Garbage:
		s.garble(message[:len(message)-len(s.framing.Terminator)])
	case WrongChecksum:
		// The text of another message with the checksum of this one.
		message[0] ^= 0x01
	}
	_, _ = conn.Write(message)
}

// garble puts bytes that mean nothing in the place of others.
func (s *Server) garble(b []byte) {
	s.faultMu.Lock()
	defer s.faultMu.Unlock()
	for i := range b {
		b[i] = byte(0x80 + s.random.IntN(0x80))
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Step moves the signals to now, as Run does at every tick, for tests with
// their own idea of time.
func (s *Server) Step(now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stepLocked(now)
}

func (s *Server) stepLocked(now time.Time) error {
	err := s.set.Step(now)
	s.problem.Tell(s.cfg.Log, s.cfg.Name, err)
	return err
}

// Requests lists what came, oldest first: the last ten thousand or a little
// less.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Writes lists what clients have set, oldest first: the last ten thousand or a
// little less.
func (s *Server) Writes() []Write {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.writes)
}

// Get is the value of a signal or an input.
func (s *Server) Get(name string) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.set.Value(name)
	if !ok {
		return nil, fmt.Errorf("serialsim: %s has no signal %q", s.cfg.Name, name)
	}
	return v, nil
}

// Set gives a signal or an input a value at once: an input as if somebody had
// turned it at the device's own panel, a signal until Release.
func (s *Server) Set(name string, value any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.set.Force(name, value); err != nil {
		return fmt.Errorf("serialsim: %s: %w", s.cfg.Name, err)
	}
	return s.stepLocked(time.Now())
}

// Release lets a signal that was Set go on by itself.
func (s *Server) Release(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set.Release(name)
	return s.stepLocked(time.Now())
}

// Reset is a power cut: what clients have set is forgotten, and signals with a
// past begin again.
func (s *Server) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set.Reset()
	_ = s.stepLocked(time.Now()) // logged
}

// fault is a Fault with what is left of its count.
type fault struct {
	Fault
	left int // -1: no end
}

// Inject makes something go wrong with what the device says from now on.
// Several faults are tried in the order they came, and the first that strikes
// is the one.
func (s *Server) Inject(f Fault) error {
	if err := f.check(s.cfg.Checksum); err != nil {
		return fmt.Errorf("serialsim: %w", err)
	}
	s.inject(f)
	return nil
}

func (s *Server) inject(f Fault) {
	left := -1
	if f.Count > 0 {
		left = f.Count
	}
	s.faultMu.Lock()
	defer s.faultMu.Unlock()
	s.faults = append(s.faults, &fault{Fault: f, left: left})
}

// Clear ends all faults.
func (s *Server) Clear() {
	s.faultMu.Lock()
	defer s.faultMu.Unlock()
	s.faults = nil
}

// strike tells which fault, if any, meets a message.
func (s *Server) strike(on string) (Fault, bool) {
	s.faultMu.Lock()
	defer s.faultMu.Unlock()
	for _, f := range s.faults {
		if f.left == 0 || f.On != "" && f.On != on || f.Probability > 0 && s.random.Float64() >= f.Probability {
			continue
		}
		if f.left > 0 {
			f.left--
		}
		return f.Fault, true
	}
	return Fault{}, false
}
