// Package modbussim is a Modbus device, or a gateway or serial line with several
// on it, for demos and tests: real frames on real sockets and ptys, values that
// move by signals, and faults on demand. Tests of users' own code may use it, too.
//
//	sim := modbussim.Start(t, "boiler.yaml")
//	device := connect(sim.Addr())
//	sim.Set("boiler", "temperature", 99)
//
// A file holds documents like this one; every field is known or refused:
//
//	kind: ModbusSimulator
//	name: boiler-room              # for messages
//	listen: 127.0.0.1:5020         # Modbus TCP; default 127.0.0.1:0, a free port
//	# or rtutcp://127.0.0.1:5021   # RTU frames over TCP
//	# or rtu:///tmp/ttyMeters?baud=9600&parity=even (or ascii:///…): a serial
//	# line, a pty to which this path is a symbolic link; rtu:// finds a path
//	pace: false                    # true: a serial line as slow as its baud rate
//	tick: 100ms                    # how often signals move (default)
//	unknownUnit: silent            # or refuse: exception 11
//	seed: 1                        # of the faults' probabilities
//	signals:                       # see package signal
//	  ambient: {sine: {min: 15, max: 25, period: 10m}}
//	  temperature: {expr: "lag(self, running ? setpoint : ambient, 20, dt)", start: 20}
//	units:
//	- unit: 1
//	  name: boiler                 # default unit-1
//	  listen: 127.0.0.1:5021       # an address of its own (default: the simulator's)
//	  points:
//	  - {name: temperature, table: input, register: 0, encoding: int16, scale: 0.1}
//	  - {name: setpoint, table: holding, register: 10, encoding: float32, order: CDAB,
//	     writable: true, value: 45, minimum: 0, maximum: 95}
//	  - {name: running, table: coil, register: 0, writable: true}
//	  - {name: room, reference: "30002", encoding: int16, scale: 0.1, signal: ambient}
//	  - {name: serial, table: holding, register: 100, encoding: string, length: 8, value: WB-20}
//	  - {name: alarm, table: holding, register: 20, bit: 3, value: true}
//	  memory:                      # plain registers that keep what is written
//	  - {table: holding, register: 1000, count: 100}
//	  faults:                      # from the start; tests use Inject and Clear
//	  - {kind: slow, delay: 200ms, probability: 0.1}
//	faults: []                     # of all units
//
// A point shows the signal of its own name, another one (signal), or a value
// that never changes (value). A writable point starts with value, and what
// clients write is the input of its name in expressions. What a request reads
// is one moment: signals move between requests, and right after each write.
// Registers outside points and memory are exception 2, and so are writes to
// what is not writable; writes beyond minimum and maximum are exception 3.
//
// The faults are silent, slow (delay), exception (exception: 6),
// wrong-transaction-id, wrong-checksum (not on Modbus TCP), truncated-frame,
// reset, garbage and duplicate, each
// with probability (0 to 1), count (gone after that many), on (reads or
// writes) and, for silent and reset, executed: the request is carried out and
// only its answer lost.
package modbussim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/whimbrel-edge/whimbrel/protocols/modbus"
	"github.com/whimbrel-edge/whimbrel/simulators/signal"
)

// Server is a running or stopped simulator. It is safe for concurrent use.
type Server struct {
	cfg    Config
	units  []*unit
	byName map[string]*unit
	ports  []*port
	player *player // of a recording, or nil

	// mu guards the signals, the contents of all tables and the log: whoever
	// holds it for reading sees one moment.
	mu      sync.RWMutex
	set     *signal.Set
	writes  []Write // the last maxWrites, oldest first
	problem signal.Problem

	faulty  atomic.Bool // any fault at all: the quick answer
	faultMu sync.Mutex
	faults  map[string][]*fault // by unit; "" is all of them
	random  *rand.Rand
}

// counters is what a unit has seen.
type counters struct{ requests atomic.Uint64 }

// maxWrites bounds the log of writes; the oldest go first.
const maxWrites = 10_000

// Write is one value that a client wrote.
type Write struct {
	Time     time.Time
	Unit     string
	Point    string // "" for plain memory
	Value    any    // the point's value, scaled; nil for plain memory
	Function modbus.Function
	Table    modbus.Table
	Register uint16 // where the request began
	Data     []byte // what the request carried: registers, or packed bits
}

// New checks a configuration and makes its simulator, which does not listen
// yet.
func New(cfg Config) (*Server, error) {
	s, err := compile(cfg)
	if err != nil {
		return nil, err
	}
	s.random = rand.New(rand.NewPCG(s.cfg.Seed, 1))
	s.faults = map[string][]*fault{}
	for _, f := range s.cfg.Faults {
		s.inject("", f)
	}
	for _, u := range s.units {
		for _, f := range u.cfg.Faults {
			s.inject(u.name, f)
		}
	}
	if err := s.Step(time.Now()); err != nil {
		return nil, fmt.Errorf("modbussim: %s: %w", s.cfg.Name, err)
	}
	return s, nil
}

// Name is the simulator's name.
func (s *Server) Name() string { return s.cfg.Name }

// Run serves until ctx ends, then hangs up on everyone and returns nil. It
// listens first where Listen was not called.
func (s *Server) Run(ctx context.Context) error {
	if err := s.Listen(); err != nil {
		return err
	}
	var wg sync.WaitGroup
	for _, p := range s.ports {
		wg.Go(func() { p.run(ctx) })
	}
	if s.player != nil {
		wg.Go(func() { s.player.Follow(ctx, func() { s.Unplug() }, func() error { return s.Plug() }, s.cfg.Log) })
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
	wg.Wait()
	return nil
}

// Step moves the signals to now, as Run does at every tick, for tests with
// their own idea of time.
func (s *Server) Step(now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stepLocked(now)
}

func (s *Server) stepLocked(now time.Time) error {
	errs := []error{s.set.Step(now)}
	for _, u := range s.units {
		for _, p := range u.points {
			v, _ := s.set.Value(p.signal)
			if v == p.shown {
				continue
			}
			if err := u.write(p, v); err != nil {
				errs = append(errs, fmt.Errorf("unit %s: point %s: %w", u.name, p.name, err))
				continue
			}
			p.shown = v
		}
	}
	err := errors.Join(errs...)
	s.problem.Tell(s.cfg.Log, s.cfg.Name, err)
	return err
}

// answer carries out a request and appends the answer's PDU to b.
func (s *Server) answer(u *unit, pdu, b []byte) []byte {
	r, err := modbus.ParseRequest(pdu)
	if err == nil {
		if r.Function.Writes() {
			if err = s.carryOut(u, r); err == nil {
				return r.AppendWritten(b)
			}
		} else {
			var out []byte
			if out, err = s.show(u, r, b); err == nil {
				return out
			}
		}
	}
	var refusal *modbus.Exception
	if !errors.As(err, &refusal) {
		refusal = &modbus.Exception{Function: r.Function, Code: modbus.DeviceFailure}
	}
	return refusal.AppendTo(b)
}

// show reads a block of cells in one moment.
func (s *Server) show(u *unit, r modbus.Request, b []byte) ([]byte, error) {
	t := r.Function.Table()
	s.mu.RLock()
	defer s.mu.RUnlock()
	cells := u.tables[t].cells(r.Address, int(r.Count), readable)
	if cells == nil {
		return b, &modbus.Exception{Function: r.Function, Code: modbus.IllegalDataAddress}
	}
	if !t.Bits() {
		return r.AppendRead(b, cells), nil
	}
	var packed [modbus.MaxReadBits / 8]byte
	for i, on := range cells {
		if on != 0 {
			modbus.SetBit(packed[:], i, true)
		}
	}
	return r.AppendRead(b, packed[:(len(cells)+7)/8]), nil
}

// carryOut writes a block of cells, hands the points in it to the signals and
// moves those. All of it happens or nothing does.
func (s *Server) carryOut(u *unit, r modbus.Request) error {
	t := r.Function.Table()
	refuse := func(c modbus.Code) error { return &modbus.Exception{Function: r.Function, Code: c} }
	s.mu.Lock()
	defer s.mu.Unlock()
	cells := u.tables[t].cells(r.Address, int(r.Count), writable)
	if cells == nil {
		return refuse(modbus.IllegalDataAddress)
	}
	before := slices.Clone(cells)
	if t.Bits() {
		for i := range cells {
			cells[i] = 0
			if modbus.Bit(r.Data, i) {
				cells[i] = 1
			}
		}
	} else {
		copy(cells, r.Data)
	}
	points := u.touched(t, r.Address, int(r.Count))
	values := make([]any, len(points))
	for i, p := range points {
		v, err := u.read(p)
		if err != nil {
			copy(cells, before)
			return refuse(modbus.DeviceFailure)
		}
		if p.cfg.Writable && !p.within(v) {
			copy(cells, before)
			return refuse(modbus.IllegalDataValue)
		}
		values[i] = v
	}
	now := time.Now()
	w := Write{Time: now, Unit: u.name, Function: r.Function, Table: t, Register: r.Address, Data: slices.Clone(r.Data)}
	logged := false
	for i, p := range points {
		if !p.cfg.Writable { // a bit beside the one that was meant
			p.shown = nil
			continue
		}
		if err := s.set.Put(p.signal, values[i]); err != nil {
			copy(cells, before)
			return refuse(modbus.DeviceFailure)
		}
		p.shown, _ = s.set.Value(p.signal)
		w.Point, w.Value = p.name, values[i]
		s.log(w)
		logged = true
	}
	if !logged {
		s.log(w)
	}
	// The write is done even if a signal cannot follow; that was logged.
	_ = s.stepLocked(now)
	return nil
}

func (s *Server) log(w Write) {
	if len(s.writes) == maxWrites {
		s.writes = slices.Delete(s.writes, 0, maxWrites/10)
	}
	s.writes = append(s.writes, w)
}

// within tells whether a written value respects the point's bounds.
func (p *point) within(v any) bool {
	f, ok := signal.Number(v)
	if !ok {
		return true
	}
	return (p.cfg.Minimum == nil || f >= *p.cfg.Minimum) && (p.cfg.Maximum == nil || f <= *p.cfg.Maximum)
}

// Writes lists what clients wrote, oldest first: the last ten thousand or a
// little less.
func (s *Server) Writes() []Write {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Clone(s.writes)
}

// Requests is how many requests a unit has got since the start, answered or
// not.
func (s *Server) Requests(unit string) uint64 {
	u := s.byName[unit]
	if u == nil {
		return 0
	}
	return u.state.requests.Load()
}

// find gives a unit and its point.
func (s *Server) find(unitName, pointName string) (*unit, *point, error) {
	u := s.byName[unitName]
	if u == nil {
		return nil, nil, fmt.Errorf("modbussim: %s has no unit %q", s.cfg.Name, unitName)
	}
	p := u.byName[pointName]
	if p == nil {
		return nil, nil, fmt.Errorf("modbussim: unit %s has no point %q", unitName, pointName)
	}
	return u, p, nil
}

// Get is a point's value as a client would understand it now.
func (s *Server) Get(unit, point string) (any, error) {
	u, p, err := s.find(unit, point)
	if err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return u.read(p)
}

// Set makes a point show a value at once: an input as if somebody had turned
// it at the device's own panel, a signal until Release.
func (s *Server) Set(unit, point string, value any) error {
	_, p, err := s.find(unit, point)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.set.Force(p.signal, value); err != nil {
		return fmt.Errorf("modbussim: unit %s: point %s: %w", unit, point, err)
	}
	return s.stepLocked(time.Now())
}

// Release lets a point that was Set follow its signal again.
func (s *Server) Release(unit, point string) error {
	_, p, err := s.find(unit, point)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set.Release(p.signal)
	return s.stepLocked(time.Now())
}

// Reset is a power cut: what clients wrote is forgotten, and signals with a
// past begin again. Plain memory keeps its contents.
func (s *Server) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set.Reset()
	_ = s.stepLocked(time.Now()) // logged
}
