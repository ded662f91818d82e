package serialsim

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/protocols/serial"
	"github.com/whimbrel-edge/whimbrel/simulators/scenario"
	"github.com/whimbrel-edge/whimbrel/simulators/signal"
)

// Kind is the kind of this simulator's documents in a file.
const Kind = "SerialSimulator"

// What is used where a Config says nothing.
const (
	DefaultListen     = "serial://"
	DefaultTick       = 100 * time.Millisecond
	DefaultTerminator = "\r\n"
)

// Config describes a simulator. See the package comment for the same as YAML.
type Config struct {
	Name string `yaml:"name"`
	// Listen is serial:///path?baud=…, where path becomes a symbolic link to the
	// pty of the moment; serial:// finds a path of its own.
	Listen     string          `yaml:"listen"`
	Terminator string          `yaml:"terminator"`
	Length     int             `yaml:"length"`
	Checksum   serial.Checksum `yaml:"checksum"`
	// Tick is how often signals move; they also do after every write.
	Tick    time.Duration          `yaml:"tick"`
	Seed    uint64                 `yaml:"seed"` // of the faults' probabilities and garbage
	Signals map[string]signal.Spec `yaml:"signals"`
	// Inputs are what commands set, and what they begin with.
	Inputs   map[string]any `yaml:"inputs"`
	Commands []Command      `yaml:"commands"`
	// Unknown answers what is no command. Without it there is no answer.
	Unknown string       `yaml:"unknown"`
	Unasked []Unasked    `yaml:"unasked"`
	Faults  []Fault      `yaml:"faults"` // from the start
	Log     *slog.Logger `yaml:"-"`
}

// Command is something that the device understands.
type Command struct {
	// Ask is a regular expression that the whole message must fit.
	Ask string `yaml:"ask"`
	// Answer is the template of the answer; "" is none.
	Answer string `yaml:"answer"`
	// Set is the input that gets what the first group of Ask holds.
	Set     string   `yaml:"set"`
	Minimum *float64 `yaml:"minimum"` // beyond them nothing is set, and Refuse is the answer
	Maximum *float64 `yaml:"maximum"`
	Refuse  string   `yaml:"refuse"` // "" is none
}

// Unasked is something that the device says again and again.
type Unasked struct {
	Every time.Duration `yaml:"every"`
	Send  string        `yaml:"send"` // a template
}

// Names of faults.
const (
	Silent        = "silent"         // nothing is said
	Slow          = "slow"           // Delay passes first
	Partial       = "partial"        // the second half of the message never comes
	Garbage       = "garbage"        // bytes that mean nothing
	WrongChecksum = "wrong-checksum" // the checksum is another's
	HangUp        = "hang-up"        // the port goes away, and comes back
)

// Fault is something that goes wrong with what the device says.
type Fault struct {
	Kind        string        `yaml:"kind"`
	Delay       time.Duration `yaml:"delay"`       // of slow
	Probability float64       `yaml:"probability"` // 0 is always
	Count       int           `yaml:"count"`       // gone after that many; 0 is never
	On          string        `yaml:"on"`          // "answers" or "unasked" only
	// Executed makes silent and hang-up lose the answer only, not what was
	// asked: an input is set although nobody is told.
	Executed bool `yaml:"executed"`
}

func (f Fault) check(sum serial.Checksum) error {
	switch f.Kind {
	case Silent, Slow, Partial, Garbage, WrongChecksum, HangUp:
	default:
		return fmt.Errorf("fault %q is not one of %s, %s, %s, %s, %s, %s", f.Kind, Silent, Slow, Partial, Garbage, WrongChecksum, HangUp)
	}
	switch {
	case (f.Kind == Slow) != (f.Delay > 0):
		return fmt.Errorf("fault %s: delay goes with slow, and must be above 0", f.Kind)
	case f.Kind == WrongChecksum && sum == serial.NoChecksum:
		return fmt.Errorf("fault %s: the simulator has no checksum", f.Kind)
	case f.Executed && f.Kind != Silent && f.Kind != HangUp:
		return fmt.Errorf("fault %s: executed goes with silent and hang-up", f.Kind)
	case f.Probability < 0 || f.Probability > 1:
		return fmt.Errorf("fault %s: probability %v is not within 0 to 1", f.Kind, f.Probability)
	case f.Count < 0:
		return fmt.Errorf("fault %s: count %d is below 0", f.Kind, f.Count)
	case f.On != "" && f.On != "answers" && f.On != "unasked":
		return fmt.Errorf("fault %s: on is answers or unasked, not %q", f.Kind, f.On)
	}
	return nil
}

// Load reads the one SerialSimulator of a file.
func Load(path string) (Config, error) { return scenario.Load[Config](path, Kind) }

// command is a Command, compiled.
type command struct {
	Command
	ask            *regexp.Regexp
	answer, refuse template
}

// compile checks a Config and makes it ready to run. The error names all that
// is wrong.
func compile(cfg Config) (*Server, error) {
	cfg.Name = cmp.Or(cfg.Name, "serial")
	cfg.Listen = cmp.Or(cfg.Listen, DefaultListen)
	cfg.Checksum = cmp.Or(cfg.Checksum, serial.NoChecksum)
	if cfg.Terminator == "" && cfg.Length == 0 {
		cfg.Terminator = DefaultTerminator
	}
	if cfg.Tick == 0 {
		cfg.Tick = DefaultTick
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, framing: serial.Framing{Terminator: cfg.Terminator, Length: cfg.Length, Checksum: cfg.Checksum},
		plugged: make(chan struct{}, 1)}
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if err := s.endpoint(cfg.Listen); err != nil {
		wrong("listen: %w", err)
	}
	if err := s.framing.Check(); err != nil {
		errs = append(errs, err)
	}
	if cfg.Tick < time.Millisecond {
		wrong("tick %v is below 1ms", cfg.Tick)
	}
	if len(cfg.Commands) == 0 && len(cfg.Unasked) == 0 {
		wrong("neither commands nor unasked: the device would never say anything")
	}
	set, err := signal.Compile(cfg.Signals, cfg.Inputs)
	if err != nil {
		return nil, fmt.Errorf("serialsim: %s: %w", cfg.Name, errors.Join(append(errs, err)...))
	}
	s.set = set
	for _, c := range cfg.Commands {
		made, err := compileCommand(c, set)
		if err != nil {
			wrong("command %q: %w", c.Ask, err)
			continue
		}
		s.commands = append(s.commands, made)
	}
	if s.unknown, err = parseTemplate(cfg.Unknown, set); err != nil {
		wrong("unknown: %w", err)
	}
	for _, u := range cfg.Unasked {
		t, err := parseTemplate(u.Send, set)
		switch {
		case err != nil:
			wrong("unasked %q: %w", u.Send, err)
		case u.Send == "":
			wrong("unasked: send is empty")
		case u.Every < time.Millisecond:
			wrong("unasked %q: every %v is below 1ms", u.Send, u.Every)
		}
		s.unasked = append(s.unasked, t)
	}
	for _, f := range cfg.Faults {
		if err := f.check(cfg.Checksum); err != nil {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("serialsim: %s: %w", cfg.Name, err)
	}
	return s, nil
}

// endpoint takes a listen apart.
func (s *Server) endpoint(listen string) error {
	path, query, _ := strings.Cut(strings.TrimPrefix(listen, "serial://"), "?")
	whole := listen
	if path == "" { // any will do; the line's settings are checked all the same
		whole = "serial:///pty?" + query
	}
	scheme, port, err := serial.ParseURL(whole)
	switch {
	case err != nil:
		return err
	case scheme != "serial" || !strings.HasPrefix(listen, "serial://"):
		return fmt.Errorf("%q does not begin with serial://", listen)
	}
	s.line, s.query = port, query
	if path != "" {
		s.path = port.Device
	}
	return nil
}

func compileCommand(c Command, set *signal.Set) (made command, err error) {
	made.Command = c
	if c.Ask == "" {
		return made, errors.New("ask is empty")
	}
	if made.ask, err = regexp.Compile(`^(?s:` + c.Ask + `)$`); err != nil {
		return made, fmt.Errorf("ask: %w", err)
	}
	if made.answer, err = parseTemplate(c.Answer, set); err != nil {
		return made, fmt.Errorf("answer: %w", err)
	}
	if made.refuse, err = parseTemplate(c.Refuse, set); err != nil {
		return made, fmt.Errorf("refuse: %w", err)
	}
	switch {
	case c.Set == "" && (c.Minimum != nil || c.Maximum != nil || c.Refuse != ""):
		err = errors.New("minimum, maximum and refuse go with set")
	case c.Set == "":
	case !set.IsInput(c.Set):
		err = fmt.Errorf("set: there is no input %s", c.Set)
	case made.ask.NumSubexp() == 0:
		err = errors.New("set needs a group in ask")
	}
	return made, err
}
