// Package expression compiles and evaluates the expressions of routes, when and
// transform, and the rules of mappers' schemas. The language is expr-lang's, cut
// down to what ends soon and stays small, because one expression runs for every
// message of an edge. What it costs is bounded before it runs: the number of its
// nodes, no loop inside a loop, no operation that multiplies texts, and a message's
// size times the number of its elements where there is a loop.
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

// environment has an example of everything that an expression of a route may
// name, but for the payload, which may be anything.
var environment = map[string]any{"topic": "", "node": "", "device": "", "property": ""}

// language is what the expressions of one use may say.
type language struct {
	typed   map[string]any // names, with an example of each
	untyped []string       // names that may be anything
	loops   bool
	list    string // of all names, for an error
}

var (
	ofRoutes = language{typed: environment, untyped: []string{"payload"}, loops: true, list: "payload, topic, node, device and property"}
	// Rules have no loops, so that what they cost does not depend on the document.
	ofRules = language{typed: map[string]any{}, untyped: []string{"self", "connection"}, list: "self and connection"}
)

// forbidden are the functions that have no bound of their own, with the reason.
var forbidden = map[string]string{
	"repeat":  "it makes texts of any length",
	"reduce":  "what it gathers may double with every element",
	"uniq":    "it compares every element with every other",
	"now":     "a message that is tried again must give the same result",
	"flatten": "it copies lists into lists",
}

// Condition compiles an expression that is true or false.
func Condition(source string) (*Program, error) { return compile(source, ofRoutes, expr.AsBool()) }

// Transform compiles an expression whose value is sent as JSON.
func Transform(source string) (*Program, error) { return compile(source, ofRoutes, expr.AsAny()) }

// Rule compiles a rule over documents, which is true or false: Holds evaluates
// it. It may name self and connection. fields are the fields of connection that it
// looks at, sorted; it cannot look at all of it at once.
func Rule(source string) (rule *Program, fields []string, err error) {
	rule, err = compile(source, ofRules, expr.AsBool())
	if err != nil {
		return nil, nil, err
	}
	tree, err := parser.Parse(source)
	if err != nil {
		return nil, nil, oneLine(err)
	}
	f := &fieldFinder{seen: map[ast.Node]bool{}}
	ast.Walk(&tree.Node, f)
	if f.whole {
		return nil, nil, errors.New("connection must be followed by one of its fields, such as connection.url")
	}
	slices.Sort(f.fields)
	return rule, slices.Compact(f.fields), nil
}

// fieldFinder finds what connection.FIELD names. Nodes come after their
// children, so that a whole connection is one of which no member was taken.
type fieldFinder struct {
	fields []string
	seen   map[ast.Node]bool // a connection that has yet to be followed by a field
	whole  bool
}

// Visit implements ast.Visitor.
func (f *fieldFinder) Visit(node *ast.Node) {
	switch n := (*node).(type) {
	case *ast.IdentifierNode:
		if n.Value == "connection" {
			f.seen[n] = true
			f.whole = true
		}
	case *ast.MemberNode:
		if name, ok := n.Property.(*ast.StringNode); ok && f.seen[n.Node] {
			delete(f.seen, n.Node)
			f.fields = append(f.fields, name.Value)
			f.whole = len(f.seen) > 0
		}
	}
}

func compile(source string, lang language, result expr.Option) (*Program, error) {
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
	c := &checker{lang: lang}
	ast.Walk(&tree.Node, c)
	if c.err == nil && c.unknown != "" {
		c.fail("unknown name %s: there are %s", c.unknown, lang.list)
	}
	if c.err != nil {
		return nil, c.err
	}
	// What may be anything has no type here; checker knows the names.
	program, err := expr.Compile(source, expr.Env(lang.typed), expr.AllowUndefinedVariables(), result, expr.MaxNodes(maxNodes), expr.Timezone("UTC"))
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
	lang    language
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
		if _, ok := c.lang.typed[n.Value]; !ok && !slices.Contains(c.lang.untyped, n.Value) {
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
		if !c.lang.loops {
			c.fail("a loop is not allowed here")
		}
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

// Holds evaluates a rule over documents as Document gives them. An error says why
// it has no answer.
func (p *Program) Holds(documents map[string]any) (bool, error) {
	machine := vm.VM{MemoryBudget: memory}
	v, err := machine.Run(p.program, documents)
	if err != nil {
		return false, fmt.Errorf("%s: %w", short(p.source), oneLine(err))
	}
	b, ok := v.(bool)
	if !ok {
		return false, fmt.Errorf("%s: is %T, not true or false", short(p.source), v)
	}
	return b, nil
}

// Document reads JSON for a rule; nil when it is none.
func Document(text []byte) any {
	v, _ := decode(text)
	return v
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
