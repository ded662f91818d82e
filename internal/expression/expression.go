// Package expression compiles and evaluates the expressions of routes: when and
// transform. The language is expr-lang's, cut down to what ends soon and stays
// small, because one expression runs for every message of an edge. What it
// costs is bounded before it runs: the number of its nodes, no loop inside a
// loop, no operation that multiplies texts, and a message's size times the number of
// its elements where there is a loop.
package expression

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/vm"
)

// Limits.
const (
	MaxSource   = 4096     // bytes of an expression
	maxNodes    = 200      // of its syntax tree
	maxConstant = 256      // bytes of a text that replace or join puts in many times
	maxWork     = 64 << 20 // a payload's bytes times its elements, for an expression with a loop
	maxDepth    = 100      // of a payload
	memory      = 100_000  // of the machine, in its own units: about elements of lists
)

// Message is what an expression sees.
type Message struct {
	Payload  []byte // nil payload in the expression when it is not JSON
	Topic    string // "" when it came by REST
	Node     string // where it was published; "" at the hub
	Device   string // of a twin's message, else ""
	Property string
}

// Program is a compiled expression. It may be used by many goroutines.
type Program struct {
	program *vm.Program
	source  string
	loops   bool
}

// environment has an example of everything that an expression may name.
var environment = map[string]any{"topic": "", "node": "", "device": "", "property": ""}

// forbidden are the functions that have no bound of their own, with the reason.
var forbidden = map[string]string{
	"repeat":  "it makes texts of any length",
	"reduce":  "what it gathers may double with every element",
	"uniq":    "it compares every element with every other",
	"now":     "a message that is tried again must give the same result",
	"flatten": "it copies lists into lists",
}

// Condition compiles an expression that is true or false.
func Condition(source string) (*Program, error) { return compile(source, expr.AsBool()) }

// Transform compiles an expression whose value is sent as JSON.
func Transform(source string) (*Program, error) { return compile(source, expr.AsAny()) }

func compile(source string, result expr.Option) (*Program, error) {
	if strings.TrimSpace(source) == "" {
		return nil, errors.New("is empty")
	}
	if len(source) > MaxSource {
		return nil, fmt.Errorf("has %d bytes, at most %d are allowed", len(source), MaxSource)
	}
	tree, err := parser.Parse(source)
	if err != nil {
		return nil, oneLine(err)
	}
	c := &checker{}
	ast.Walk(&tree.Node, c)
	if c.err == nil && c.unknown != "" {
		c.fail("unknown name %s: there are payload, topic, node, device and property", c.unknown)
	}
	if c.err != nil {
		return nil, c.err
	}
	// payload may be anything, so it has no type here; checker knows the names.
	program, err := expr.Compile(source, expr.Env(environment), expr.AllowUndefinedVariables(), result, expr.MaxNodes(maxNodes), expr.Timezone("UTC"))
	if err != nil {
		return nil, oneLine(err)
	}
	return &Program{program: program, source: source, loops: c.loops}, nil
}

// oneLine makes the compiler's drawing of where an error is a sentence.
func oneLine(err error) error {
	var at *file.Error
	if errors.As(err, &at) {
		return fmt.Errorf("%s (line %d, column %d)", at.Message, at.Line, at.Column+1)
	}
	return err
}

// checker looks at every node of an expression for what has no bound.
type checker struct {
	err     error
	unknown string // a name that is nobody's, unless err says why it is not
	loops   bool
}

func (c *checker) fail(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf(format, args...)
	}
}

// Visit implements ast.Visitor; nodes come after their children.
func (c *checker) Visit(node *ast.Node) {
	switch n := (*node).(type) {
	case *ast.VariableDeclaratorNode:
		c.fail("let is not allowed: what it names could be doubled again and again")
	case *ast.BinaryNode:
		if n.Operator == ".." {
			c.fail("a range (..) is not allowed")
		}
		if n.Operator == "matches" {
			if _, ok := n.Right.(*ast.StringNode); !ok {
				c.fail("the pattern of matches must be a constant")
			}
		}
	case *ast.IdentifierNode:
		if _, ok := environment[n.Value]; !ok && n.Value != "payload" {
			c.unknown = cmp.Or(c.unknown, n.Value)
		}
	case *ast.CallNode:
		name := "this"
		if id, ok := n.Callee.(*ast.IdentifierNode); ok {
			name = id.Value
		}
		c.fail("unknown function %s", name)
	case *ast.BuiltinNode:
		c.builtin(n)
	case *ast.PredicateNode:
		c.loops = true
		inner := &nesting{}
		ast.Walk(&n.Node, inner)
		if inner.found {
			c.fail("a loop inside a loop is not allowed")
		}
	}
}

func (c *checker) builtin(n *ast.BuiltinNode) {
	if why, ok := forbidden[n.Name]; ok {
		c.fail("%s is not allowed: %s", n.Name, why)
	}
	repeated := map[string][]int{"replace": {2}, "join": {1}}[n.Name]
	for i, a := range n.Arguments {
		if !slices.Contains(repeated, i) {
			continue
		}
		if s, ok := a.(*ast.StringNode); !ok || len(s.Value) > maxConstant {
			c.fail("argument %d of %s must be a constant text of at most %d bytes", i+1, n.Name, maxConstant)
		}
	}
}

type nesting struct{ found bool }

func (n *nesting) Visit(node *ast.Node) {
	if _, ok := (*node).(*ast.PredicateNode); ok {
		n.found = true
	}
}

// True evaluates a condition. An error says why it has no answer, as when a
// field that it compares is absent.
func (p *Program) True(m Message) (bool, error) {
	v, err := p.run(m)
	if err != nil {
		return false, err
	}
	b, ok := v.(bool)
	if !ok {
		return false, fmt.Errorf("%s: is %T, not true or false", short(p.source), v)
	}
	return b, nil
}

// Value evaluates a transform and returns its value as JSON.
func (p *Program) Value(m Message) ([]byte, error) {
	v, err := p.run(m)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("%s: its value is no JSON: %w", short(p.source), err)
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

func (p *Program) run(m Message) (v any, err error) {
	payload, elements := decode(m.Payload)
	if p.loops && elements*len(m.Payload) > maxWork {
		return nil, fmt.Errorf("%s: the payload is too large for a loop: %d bytes with %d elements", short(p.source), len(m.Payload), elements)
	}
	machine := vm.VM{MemoryBudget: memory}
	v, err = machine.Run(p.program, map[string]any{"payload": payload, "topic": m.Topic, "node": m.Node, "device": m.Device, "property": m.Property})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", short(p.source), oneLine(err))
	}
	return v, nil
}

func short(source string) string {
	source = strings.Join(strings.Fields(source), " ")
	if len(source) > 60 {
		source = strings.ToValidUTF8(source[:57], "") + "..."
	}
	return source
}

// decode reads JSON the way expressions calculate: integers stay exact as far as
// 64 bits go. What is no JSON is nil.
func decode(text []byte) (v any, elements int) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	if dec.Decode(&v) != nil {
		return nil, 0
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, 0 // more than one value
	}
	ok := true
	v = numbers(v, &elements, 0, &ok)
	if !ok {
		return nil, 0
	}
	return v, elements
}

func numbers(v any, elements *int, depth int, ok *bool) any {
	*elements++
	if depth > maxDepth {
		*ok = false
		return nil
	}
	switch v := v.(type) {
	case json.Number:
		if i, err := strconv.ParseInt(v.String(), 10, 64); err == nil {
			return int(i)
		}
		if u, err := strconv.ParseUint(v.String(), 10, 64); err == nil {
			return u
		}
		f, err := v.Float64()
		if err != nil || math.IsInf(f, 0) {
			*ok = false
			return nil
		}
		return f
	case map[string]any:
		for k := range v {
			v[k] = numbers(v[k], elements, depth+1, ok)
		}
	case []any:
		for i := range v {
			v[i] = numbers(v[i], elements, depth+1, ok)
		}
	}
	return v
}
