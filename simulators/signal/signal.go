// Package signal makes the values that simulated devices show: constants,
// ramps, sine waves, random walks, lists, and expressions over other signals,
// over what clients have written (inputs) and over their own past, so that
// things can be coupled as they are in a plant. It is pure: a Set moves when
// Step is called with a time, and the same times and writes give the same
// values.
//
// A value is a bool, an int64, a uint64, a float64 or a string.
package signal

import (
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"time"
)

// Spec describes one signal. Exactly one of its fields says what it is; Start
// goes with Expr.
type Spec struct {
	// Constant never changes. It is a bool, a number or a string.
	Constant any   `yaml:"constant,omitempty"`
	Ramp     *Ramp `yaml:"ramp,omitempty"`
	Sine     *Sine `yaml:"sine,omitempty"`
	Walk     *Walk `yaml:"walk,omitempty"`
	List     *List `yaml:"list,omitempty"`
	// Expr is an expression (expr-lang) over: the other signals and the inputs
	// by name, as they are in this step; `t`, seconds since the first step;
	// `dt`, seconds since the one before; `self`, the signal's own last value;
	// and `prev.NAME`, the last value of any, which may go round in circles
	// where a plain name may not. Numbers are floats in it. On top of
	// expr-lang's own functions there are sin, cos, exp, ln, sqrt,
	// clamp(x, low, high) and lag(from, to, tau, dt), which moves from one value
	// toward another with the time constant tau, in steps of any length.
	Expr string `yaml:"expr,omitempty"`
	// Start is `self` in the first step: by default 0, false or "".
	Start any `yaml:"start,omitempty"`
}

// Ramp goes from one value to another in a straight line.
type Ramp struct {
	From   float64       `yaml:"from"`
	To     float64       `yaml:"to"`
	Over   time.Duration `yaml:"over"`
	Repeat bool          `yaml:"repeat"` // starts again instead of staying at To
}

// Sine swings between Min and Max, beginning in the middle and rising.
type Sine struct {
	Min    float64       `yaml:"min"`
	Max    float64       `yaml:"max"`
	Period time.Duration `yaml:"period"`
	Phase  time.Duration `yaml:"phase"` // how far into the wave it begins
}

// Walk takes a random step of at most Step, up or down, every Every (default
// 1s), and stays between Min and Max. The same Seed walks the same way; without
// one it follows from the signal's name.
type Walk struct {
	Start float64       `yaml:"start"`
	Step  float64       `yaml:"step"`
	Min   float64       `yaml:"min"`
	Max   float64       `yaml:"max"`
	Every time.Duration `yaml:"every"`
	Seed  uint64        `yaml:"seed"`
}

// List shows its values in turn, each for Every (default 1s), again and again.
type List struct {
	Values []any         `yaml:"values"`
	Every  time.Duration `yaml:"every"`
}

// generator gives the value at a time since the first step. Times only grow.
type generator func(elapsed time.Duration) any

// generator gives what makes the signal's values; nil for an expression.
func (s Spec) generator(name string) (generator, error) {
	var made []generator
	add := func(g generator, err error) error {
		made = append(made, g)
		return err
	}
	var err error
	if s.Constant != nil {
		v, cerr := normal(s.Constant)
		err = add(func(time.Duration) any { return v }, cerr)
	}
	if s.Ramp != nil && err == nil {
		err = add(s.Ramp.generator())
	}
	if s.Sine != nil && err == nil {
		err = add(s.Sine.generator())
	}
	if s.Walk != nil && err == nil {
		err = add(s.Walk.generator(name))
	}
	if s.List != nil && err == nil {
		err = add(s.List.generator())
	}
	if s.Expr != "" && err == nil {
		err = add(nil, nil)
	}
	if err != nil {
		return nil, err
	}
	if len(made) != 1 {
		return nil, fmt.Errorf("needs exactly one of constant, ramp, sine, walk, list, expr; has %d", len(made))
	}
	if s.Start != nil && s.Expr == "" {
		return nil, fmt.Errorf("start goes with expr only")
	}
	return made[0], nil
}

func (r *Ramp) generator() (generator, error) {
	if r.Over <= 0 {
		return nil, fmt.Errorf("ramp: over must be a duration above 0")
	}
	return func(elapsed time.Duration) any {
		if r.Repeat {
			elapsed %= r.Over
		}
		part := min(1, float64(elapsed)/float64(r.Over))
		return r.From + part*(r.To-r.From)
	}, nil
}

func (s *Sine) generator() (generator, error) {
	if s.Period <= 0 {
		return nil, fmt.Errorf("sine: period must be a duration above 0")
	}
	if s.Min > s.Max {
		return nil, fmt.Errorf("sine: min %v is above max %v", s.Min, s.Max)
	}
	return func(elapsed time.Duration) any {
		turn := float64((elapsed+s.Phase)%s.Period) / float64(s.Period)
		return s.Min + (s.Max-s.Min)*(1+math.Sin(2*math.Pi*turn))/2
	}, nil
}

// maxCatchUp bounds the steps that a walk makes up for after a long pause.
const maxCatchUp = 10_000

func (w *Walk) generator(name string) (generator, error) {
	every := w.Every
	switch {
	case every < 0:
		return nil, fmt.Errorf("walk: every must be a duration above 0")
	case every == 0:
		every = time.Second
	}
	if w.Min >= w.Max || w.Start < w.Min || w.Start > w.Max {
		return nil, fmt.Errorf("walk: start %v must lie between min %v and max %v", w.Start, w.Min, w.Max)
	}
	if w.Step <= 0 {
		return nil, fmt.Errorf("walk: step must be above 0")
	}
	seed := w.Seed
	if seed == 0 {
		h := fnv.New64a()
		h.Write([]byte(name))
		seed = h.Sum64()
	}
	random := rand.New(rand.NewPCG(seed, 0))
	value, done := w.Start, int64(0)
	return func(elapsed time.Duration) any {
		due := int64(elapsed / every)
		done = max(done, due-maxCatchUp)
		for ; done < due; done++ {
			value = min(w.Max, max(w.Min, value+(2*random.Float64()-1)*w.Step))
		}
		return value
	}, nil
}

func (l *List) generator() (generator, error) {
	every := l.Every
	switch {
	case every < 0:
		return nil, fmt.Errorf("list: every must be a duration above 0")
	case every == 0:
		every = time.Second
	}
	if len(l.Values) == 0 {
		return nil, fmt.Errorf("list: no values")
	}
	values := make([]any, len(l.Values))
	for i, v := range l.Values {
		n, err := normal(v)
		if err != nil {
			return nil, fmt.Errorf("list: %w", err)
		}
		if i > 0 && kindOf(n) != kindOf(values[0]) {
			return nil, fmt.Errorf("list: %v and %v are of different kinds", values[0], n)
		}
		values[i] = n
	}
	return func(elapsed time.Duration) any {
		return values[int(int64(elapsed/every)%int64(len(values)))]
	}, nil
}

// normal brings what YAML, Go callers and expressions give to the five types
// of a value.
func normal(v any) (any, error) {
	switch v := v.(type) {
	case bool, int64, uint64, float64, string:
		return v, nil
	case int:
		return int64(v), nil
	case int8:
		return int64(v), nil
	case int16:
		return int64(v), nil
	case int32:
		return int64(v), nil
	case uint:
		return uint64(v), nil
	case uint8:
		return uint64(v), nil
	case uint16:
		return uint64(v), nil
	case uint32:
		return uint64(v), nil
	case float32:
		return float64(v), nil
	}
	return nil, fmt.Errorf("%v is a %T, not a bool, a number or a string", v, v)
}

// kind sorts values by what can take each other's place.
type kind string

const (
	number kind = "number"
	truth  kind = "bool"
	text   kind = "string"
)

func kindOf(v any) kind {
	switch v.(type) {
	case bool:
		return truth
	case string:
		return text
	}
	return number
}

// Number is the number of a value, true being 1; a string has none.
func Number(v any) (float64, bool) {
	switch v := v.(type) {
	case bool:
		if v {
			return 1, true
		}
		return 0, true
	case int64:
		return float64(v), true
	case uint64:
		return float64(v), true
	case float64:
		return v, true
	}
	return 0, false
}
