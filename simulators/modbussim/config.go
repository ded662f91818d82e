package modbussim

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/whimbrel-edge/whimbrel/protocols/modbus"
	"github.com/whimbrel-edge/whimbrel/simulators/scenario"
	"github.com/whimbrel-edge/whimbrel/simulators/signal"
)

// Kind is the kind of this simulator's documents in a file.
const Kind = "ModbusSimulator"

// What is used where a Config says nothing.
const (
	DefaultListen = "127.0.0.1:0"
	DefaultTick   = 100 * time.Millisecond
)

// Config describes a simulator: one or several units and the signals that
// drive them. See the package comment for the same as YAML.
type Config struct {
	Name string `yaml:"name"`
	// Listen is host:port or tcp://host:port for Modbus TCP, rtutcp://host:port
	// for RTU frames over TCP (port 0 takes a free one), or a serial line on a
	// pty: rtu:///path?baud=9600 or ascii:///path?baud=9600, where path becomes
	// a symbolic link to the pty; rtu:// finds a path of its own.
	Listen string `yaml:"listen"`
	// Pace lets answers on serial lines take as long as their characters, the
	// request's and the silence between them would at the line's baud rate.
	Pace bool `yaml:"pace"`
	// Tick is how often signals move; they also do after every write.
	Tick time.Duration `yaml:"tick"`
	// UnknownUnit says what happens to requests for a unit that is not there:
	// "silent" (default), as a gateway with a dead unit behind it, or "refuse"
	// with exception 11, as a gateway that notices.
	UnknownUnit string                 `yaml:"unknownUnit"`
	Seed        uint64                 `yaml:"seed"` // of the faults' probabilities
	Signals     map[string]signal.Spec `yaml:"signals"`
	Units       []Unit                 `yaml:"units"`
	Faults      []Fault                `yaml:"faults"` // of all units, from the start
	Log         *slog.Logger           `yaml:"-"`
}

// Unit is one device.
type Unit struct {
	Unit   byte     `yaml:"unit"`
	Name   string   `yaml:"name"`   // default unit-N
	Listen string   `yaml:"listen"` // an address of its own instead of the simulator's
	Points []Point  `yaml:"points"`
	Memory []Memory `yaml:"memory"`
	Faults []Fault  `yaml:"faults"` // from the start
}

// Point is one value of a unit, in registers or bits. What it shows is the
// signal named Signal (by default the point's own name), or Value, which never
// changes. A writable point is an input: it starts with Value, and signals see
// what clients write under that name.
type Point struct {
	Name      string   `yaml:"name"`
	Table     string   `yaml:"table"`     // coil, discrete, input, holding
	Register  *uint16  `yaml:"register"`  // 0-based, or
	Reference string   `yaml:"reference"` // 40001-style, instead of table and register
	Encoding  string   `yaml:"encoding"`  // default bool for bits, uint16 for registers
	Order     string   `yaml:"order"`
	Length    int      `yaml:"length"` // registers, for string
	Bit       *int     `yaml:"bit"`    // 0-15: a bool in one bit of a register
	Scale     float64  `yaml:"scale"`  // value = raw*scale + offset; 0 is 1
	Offset    float64  `yaml:"offset"`
	Signal    string   `yaml:"signal"`
	Value     any      `yaml:"value"`
	Writable  bool     `yaml:"writable"`
	Minimum   *float64 `yaml:"minimum"` // writes beyond get exception 3
	Maximum   *float64 `yaml:"maximum"`
}

// Memory is plain registers or bits that keep what is written to them. Points
// may lie inside.
type Memory struct {
	Table    string `yaml:"table"`
	Register uint16 `yaml:"register"`
	Count    int    `yaml:"count"`
}

// Names of faults.
const (
	Silent           = "silent"               // no answer
	Slow             = "slow"                 // Delay passes before the request is carried out
	Refuse           = "exception"            // Exception is the answer
	WrongTransaction = "wrong-transaction-id" // the answer belongs to an earlier request; without numbers it is another unit's
	WrongChecksum    = "wrong-checksum"       // of an RTU or ASCII frame
	Truncated        = "truncated-frame"      // the last byte never comes
	Reset            = "reset"                // the connection is reset; a serial line is hung up on and comes back
	Garbage          = "garbage"              // bytes that are no Modbus
	Duplicate        = "duplicate"            // the answer comes twice
)

// Fault is something that goes wrong with requests.
type Fault struct {
	Kind        string        `yaml:"kind"`
	Delay       time.Duration `yaml:"delay"`       // of slow
	Exception   modbus.Code   `yaml:"exception"`   // of exception; default 4
	Probability float64       `yaml:"probability"` // 0 is always
	Count       int           `yaml:"count"`       // gone after that many; 0 is never
	On          string        `yaml:"on"`          // "reads" or "writes" only
	// Executed makes silent and reset lose the answer only, not the request:
	// a write is done although nobody is told.
	Executed bool `yaml:"executed"`
}

func (f Fault) check() error {
	switch f.Kind {
	case Silent, Reset, Refuse, WrongTransaction, WrongChecksum, Truncated, Garbage, Duplicate, Slow:
	default:
		return fmt.Errorf("fault %q is not one of %s, %s, %s, %s, %s, %s, %s, %s, %s", f.Kind,
			Silent, Slow, Refuse, WrongTransaction, WrongChecksum, Truncated, Reset, Garbage, Duplicate)
	}
	switch {
	case (f.Kind == Slow) != (f.Delay > 0):
		return fmt.Errorf("fault %s: delay goes with slow, and must be above 0", f.Kind)
	case f.Exception != 0 && f.Kind != Refuse:
		return fmt.Errorf("fault %s: exception goes with the fault exception", f.Kind)
	case f.Executed && f.Kind != Silent && f.Kind != Reset:
		return fmt.Errorf("fault %s: executed goes with silent and reset", f.Kind)
	case f.Probability < 0 || f.Probability > 1:
		return fmt.Errorf("fault %s: probability %v is not within 0 to 1", f.Kind, f.Probability)
	case f.Count < 0:
		return fmt.Errorf("fault %s: count %d is below 0", f.Kind, f.Count)
	case f.On != "" && f.On != "reads" && f.On != "writes":
		return fmt.Errorf("fault %s: on is reads or writes, not %q", f.Kind, f.On)
	}
	return nil
}

// checkOn tells whether the fault can happen on a port.
func (f Fault) checkOn(p *port) error {
	if f.Kind == WrongChecksum && p != nil && p.asked.scheme == "tcp" {
		return fmt.Errorf("fault %s: frames of Modbus TCP have no checksum", f.Kind)
	}
	return nil
}

// Load reads the one ModbusSimulator of a file.
func Load(path string) (Config, error) { return scenario.Load[Config](path, Kind) }

// compile checks a Config and makes it ready to run. The error names all that
// is wrong.
func compile(cfg Config) (*Server, error) {
	cfg.Name = cmp.Or(cfg.Name, "modbus")
	cfg.Listen = cmp.Or(cfg.Listen, DefaultListen)
	cfg.UnknownUnit = cmp.Or(cfg.UnknownUnit, "silent")
	if cfg.Tick == 0 {
		cfg.Tick = DefaultTick
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, byName: map[string]*unit{}}
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if cfg.UnknownUnit != "silent" && cfg.UnknownUnit != "refuse" {
		wrong("unknownUnit is silent or refuse, not %q", cfg.UnknownUnit)
	}
	if cfg.Tick < time.Millisecond {
		wrong("tick %v is below 1ms", cfg.Tick)
	}
	if len(cfg.Units) == 0 {
		wrong("no units")
	}
	b := builder{signals: map[string]signal.Spec{}, inputs: map[string]any{}, declared: map[string]string{}}
	for name, spec := range cfg.Signals {
		b.signals[name] = spec
	}
	for _, uc := range cfg.Units {
		uc.Name = cmp.Or(uc.Name, fmt.Sprintf("unit-%d", uc.Unit))
		u := &unit{cfg: uc, name: uc.Name}
		if s.byName[uc.Name] != nil {
			wrong("unit %s: two units have this name", uc.Name)
			continue
		}
		s.byName[uc.Name] = u
		s.units = append(s.units, u)
		p, err := s.portFor(uc)
		if err != nil {
			wrong("unit %s: %w", uc.Name, err)
			continue
		}
		u.port = p
		p.units[uc.Unit] = u
		if err := b.unit(u); err != nil {
			wrong("unit %s: %w", uc.Name, err)
		}
		for _, f := range uc.Faults {
			if err := cmp.Or(f.check(), f.checkOn(p)); err != nil {
				wrong("unit %s: %w", uc.Name, err)
			}
		}
		if cfg.Pace && !p.asked.serial() {
			wrong("unit %s: pace goes with rtu:// and ascii:// lines", uc.Name)
		}
	}
	for _, f := range cfg.Faults {
		if err := f.check(); err != nil {
			errs = append(errs, err)
			continue
		}
		for _, p := range s.ports {
			if err := f.checkOn(p); err != nil {
				errs = append(errs, err)
				break
			}
		}
	}
	if err := b.resolve(s.units); err != nil {
		errs = append(errs, err)
	}
	set, err := signal.Compile(b.signals, b.inputs)
	if err != nil {
		errs = append(errs, err)
	} else if err := b.checkKinds(s.units, set); err != nil {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("modbussim: %s: %w", cfg.Name, err)
	}
	s.set = set
	return s, nil
}

// portFor finds or makes the port that a unit listens on. Units share one when
// they name the same address; port 0 in a unit's own listen is always its own.
func (s *Server) portFor(u Unit) (*port, error) {
	asked, err := parseEndpoint(cmp.Or(u.Listen, s.cfg.Listen))
	if err != nil {
		return nil, err
	}
	if asked.scheme != "tcp" && (u.Unit < 1 || u.Unit > 247) {
		return nil, fmt.Errorf("unit id %d is not within 1 to 247, as on a serial line", u.Unit)
	}
	own := u.Listen != "" && asked.free
	if !own {
		for _, p := range s.ports {
			if p.asked.addr != asked.addr || p.own {
				continue
			}
			if p.asked != asked {
				return nil, fmt.Errorf("listen: %s is a %s line already, or one with other settings", asked.addr, p.asked.scheme)
			}
			if p.units[u.Unit] != nil {
				return nil, fmt.Errorf("unit id %d on %s is taken by %s", u.Unit, asked.addr, p.units[u.Unit].name)
			}
			return p, nil
		}
	}
	p := &port{asked: asked, own: own, addr: asked.addr, srv: s, plugged: make(chan struct{}, 1)}
	s.ports = append(s.ports, p)
	return p, nil
}
