package signal

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/types"
	"github.com/expr-lang/expr/vm"
)

// Set is a number of signals and inputs that move together. It is not safe for
// concurrent use.
type Set struct {
	signals []*signal // each after those it needs
	byName  map[string]*signal
	env     map[string]any // what expressions see
	prev    map[string]any // the values of the last step
	vm      vm.VM
	start   time.Time
	last    time.Time
}

// signal is a signal or an input, ready to run.
type signal struct {
	name    string
	value   any
	initial any
	next    generator   // nil for inputs and expressions
	program *vm.Program // for expressions
	input   bool
	forced  bool
}

// Compile checks the signals and puts them in an order in which each comes
// after those it needs. Inputs start with the values given. The error names
// every signal that is wrong.
func Compile(signals map[string]Spec, inputs map[string]any) (*Set, error) {
	s := &Set{byName: map[string]*signal{}, env: map[string]any{}, prev: map[string]any{}}
	var errs []error
	wrong := func(name string, err error) {
		errs = append(errs, fmt.Errorf("signal %s: %w", name, err))
	}
	for _, name := range sorted(inputs) {
		v, err := normal(inputs[name])
		if err == nil && reserved[name] {
			err = fmt.Errorf("the name is taken: expressions mean something else by it")
		}
		if err != nil {
			wrong(name, err)
			continue
		}
		s.add(&signal{name: name, value: v, initial: v, input: true})
	}
	needs := map[string][]string{}
	for _, name := range sorted(signals) {
		spec := signals[name]
		g, err := spec.generator(name)
		switch {
		case !identifier.MatchString(name):
			err = fmt.Errorf("a signal's name is a letter followed by letters, digits and _")
		case reserved[name]:
			err = fmt.Errorf("the name is taken: expressions mean something else by it")
		case s.byName[name] != nil:
			err = fmt.Errorf("clients write an input of the same name")
		}
		if err != nil {
			wrong(name, err)
			continue
		}
		sig := &signal{name: name, next: g}
		if g != nil {
			sig.value = g(0)
			sig.initial = sig.value
		}
		s.byName[name] = sig
		if spec.Expr != "" {
			if needs[name], err = names(spec.Expr); err != nil {
				wrong(name, err)
			}
		}
	}
	order, err := order(sorted(signals), needs)
	if err = errors.Join(append(errs, err)...); err != nil {
		return nil, err
	}
	if err := s.compile(order, signals); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Set) add(sig *signal) {
	s.byName[sig.name] = sig
	s.signals = append(s.signals, sig)
	s.show(sig)
	s.prev[sig.name] = s.env[sig.name]
}

// show lets expressions see the signal's value.
func (s *Set) show(sig *signal) {
	s.env[sig.name] = visible(sig.value)
}

// visible is a value as expressions see it: every number a float, so that
// dividing and comparing mean one thing.
func visible(v any) any {
	if kindOf(v) == number {
		f, _ := Number(v)
		return f
	}
	return v
}

// compile compiles the expressions in order. What an expression gives is known
// when those after it are compiled, so mistakes of kind show here, not later.
func (s *Set) compile(order []string, specs map[string]Spec) error {
	env := types.Map{"t": types.Float64, "dt": types.Float64}
	before := types.Map{}
	for name, sig := range s.byName {
		if sig.value != nil {
			env[name] = types.TypeOf(visible(sig.value))
			before[name] = env[name]
		}
	}
	for _, name := range order {
		if spec := specs[name]; spec.Expr != "" {
			before[name] = types.Any
			if v, err := normal(spec.Start); err == nil {
				before[name] = types.TypeOf(visible(v))
			}
		}
	}
	env["prev"] = before
	var errs []error
	for _, name := range order {
		sig, spec := s.byName[name], specs[name]
		if spec.Expr != "" {
			env["self"] = before[name]
			if err := sig.compile(spec, env); err != nil {
				errs = append(errs, fmt.Errorf("signal %s: %w", name, err))
				sig.value = 0.0
			}
			env[name] = types.TypeOf(visible(sig.value))
		}
		s.add(sig)
	}
	return errors.Join(errs...)
}

func (sig *signal) compile(spec Spec, env types.Map) error {
	program, err := expr.Compile(spec.Expr, append(functions(), expr.Env(env))...)
	if err != nil {
		return err
	}
	sig.program = program
	gives := number
	t := program.Node().Type()
	switch k := t.Kind(); {
	case k == reflect.Bool:
		gives = truth
	case k == reflect.String:
		gives = text
	case k == reflect.Interface: // known when it runs
	case k < reflect.Int || k > reflect.Float64:
		return fmt.Errorf("the expression gives a %v, not a bool, a number or a string", t)
	}
	sig.value = map[kind]any{number: 0.0, truth: false, text: ""}[gives]
	if spec.Start != nil {
		if sig.value, err = normal(spec.Start); err != nil {
			return fmt.Errorf("start: %w", err)
		}
		if kindOf(sig.value) != gives && t.Kind() != reflect.Interface {
			return fmt.Errorf("start %v is a %s, the expression gives a %s", spec.Start, kindOf(sig.value), gives)
		}
	}
	sig.initial = sig.value
	return nil
}

// Step moves every signal to now. The first call is time 0; a now before the
// last one is taken as the last one. A signal whose expression fails keeps its
// value, and the error names it; the others move on.
func (s *Set) Step(now time.Time) error {
	if s.start.IsZero() {
		s.start, s.last = now, now
	}
	if now.Before(s.last) {
		now = s.last
	}
	elapsed := now.Sub(s.start)
	s.env["t"] = elapsed.Seconds()
	s.env["dt"] = now.Sub(s.last).Seconds()
	s.env["prev"] = s.prev
	s.last = now
	var errs []error
	for _, sig := range s.signals {
		switch {
		case sig.forced, sig.input:
			continue
		case sig.next != nil:
			sig.value = sig.next(elapsed)
		default:
			if err := s.evaluate(sig); err != nil {
				errs = append(errs, fmt.Errorf("signal %s: %w", sig.name, err))
			}
		}
		s.show(sig)
	}
	for _, sig := range s.signals {
		s.prev[sig.name] = s.env[sig.name]
	}
	return errors.Join(errs...)
}

func (s *Set) evaluate(sig *signal) error {
	s.env["self"] = visible(sig.value)
	out, err := s.vm.Run(sig.program, s.env)
	if err != nil {
		return err
	}
	v, err := normal(out)
	if err != nil {
		return err
	}
	v = visible(v)
	if kindOf(v) != kindOf(sig.value) {
		return fmt.Errorf("gave %v, which is a %s where it was a %s", v, kindOf(v), kindOf(sig.value))
	}
	sig.value = v
	return nil
}

// Value is a signal's or input's value, and whether there is one of that name.
func (s *Set) Value(name string) (any, bool) {
	sig, ok := s.byName[name]
	if !ok {
		return nil, false
	}
	return sig.value, true
}

// IsInput tells inputs from signals.
func (s *Set) IsInput(name string) bool {
	sig, ok := s.byName[name]
	return ok && sig.input
}

// Put sets an input; the signals follow with the next Step.
func (s *Set) Put(name string, value any) error {
	sig, ok := s.byName[name]
	if !ok || !sig.input {
		return fmt.Errorf("signal: there is no input %s", name)
	}
	return s.put(sig, value)
}

// Force holds a signal at a value until Release, whatever it would do; an
// input just gets the value. An expression goes on from it afterwards.
func (s *Set) Force(name string, value any) error {
	sig, ok := s.byName[name]
	if !ok {
		return fmt.Errorf("signal: there is no signal %s", name)
	}
	if err := s.put(sig, value); err != nil {
		return err
	}
	sig.forced = !sig.input
	return nil
}

// Release ends Force.
func (s *Set) Release(name string) {
	if sig, ok := s.byName[name]; ok {
		sig.forced = false
	}
}

func (s *Set) put(sig *signal, value any) error {
	v, err := normal(value)
	if err == nil && kindOf(v) != kindOf(sig.value) {
		err = fmt.Errorf("%v is a %s, not a %s", v, kindOf(v), kindOf(sig.value))
	}
	if err != nil {
		return fmt.Errorf("signal: %s: %w", sig.name, err)
	}
	sig.value = v
	s.show(sig)
	return nil
}

// Reset puts every input and every expression back to where it began, as after
// a power cut. Time, and what depends on nothing else, goes on.
func (s *Set) Reset() {
	for _, sig := range s.signals {
		sig.forced = false
		if sig.next == nil {
			sig.value = sig.initial
			s.show(sig)
		}
		s.prev[sig.name] = s.env[sig.name]
	}
}

// Names lists signals and inputs, sorted.
func (s *Set) Names() []string { return sorted(s.byName) }

var identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// reserved are the names that would not mean a signal in an expression.
var reserved = map[string]bool{
	"t": true, "dt": true, "self": true, "prev": true,
	"true": true, "false": true, "nil": true, "in": true, "not": true, "and": true, "or": true, "let": true,
	"if": true, "else": true, "matches": true, "contains": true, "startsWith": true, "endsWith": true,
}

// functions is what expressions have on top of expr-lang's own.
func functions() []expr.Option {
	var options []expr.Option
	define := func(name string, typ any, f func(a []float64) float64) {
		options = append(options, expr.Function(name, func(args ...any) (any, error) {
			// The checker has counted the arguments, but an int may hide in one
			// whose type it cannot tell, such as `on ? 0 : level`.
			numbers := make([]float64, len(args))
			for i, arg := range args {
				v, err := normal(arg)
				if err == nil && kindOf(v) != number {
					err = fmt.Errorf("%v is a %s, not a number", v, kindOf(v))
				}
				if err != nil {
					return nil, fmt.Errorf("%s: %w", name, err)
				}
				numbers[i], _ = Number(v)
			}
			return f(numbers), nil
		}, typ))
	}
	for name, f := range map[string]func(float64) float64{
		"sin": math.Sin, "cos": math.Cos, "exp": math.Exp, "ln": math.Log, "sqrt": math.Sqrt,
	} {
		define(name, f, func(a []float64) float64 { return f(a[0]) })
	}
	define("clamp", func(x, low, high float64) float64 { return 0 }, func(a []float64) float64 {
		return min(max(a[0], a[1]), a[2])
	})
	define("lag", func(from, to, tau, dt float64) float64 { return 0 }, func(a []float64) float64 {
		from, to, tau, dt := a[0], a[1], a[2], a[3]
		if tau <= 0 {
			return to
		}
		return to + (from-to)*math.Exp(-dt/tau)
	})
	return options
}

// names lists the signals that an expression needs in the same step.
func names(source string) ([]string, error) {
	tree, err := parser.Parse(source)
	if err != nil {
		return nil, err
	}
	var v visitor
	ast.Walk(&tree.Node, &v)
	if slices.Contains(v.names, "$env") {
		return nil, fmt.Errorf("$env hides what the expression needs: use the names")
	}
	slices.Sort(v.names)
	return slices.Compact(v.names), nil
}

type visitor struct{ names []string }

func (v *visitor) Visit(n *ast.Node) {
	if id, ok := (*n).(*ast.IdentifierNode); ok {
		v.names = append(v.names, id.Value)
	}
}

// order sorts so that each name comes after those it needs, and otherwise by
// name. Names that are not among all are inputs, or unknown: not its concern.
func order(all []string, needs map[string][]string) ([]string, error) {
	var out, path []string
	state := map[string]int{} // 1 on the path, 2 done
	var visit func(name string) error
	visit = func(name string) error {
		if state[name] == 2 || !slices.Contains(all, name) {
			return nil
		}
		path = append(path, name)
		if state[name] == 1 {
			circle := path[slices.Index(path, name):]
			return fmt.Errorf("signals need each other in a circle: %s; use prev.%s in one of them to take the value of the step before",
				strings.Join(circle, " -> "), name)
		}
		state[name] = 1
		for _, n := range needs[name] {
			if err := visit(n); err != nil {
				return err
			}
		}
		state[name] = 2
		path = path[:len(path)-1]
		out = append(out, name)
		return nil
	}
	for _, name := range all {
		if err := visit(name); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func sorted[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}
