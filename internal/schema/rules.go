package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/whimbrel-edge/whimbrel/internal/expression"
	"github.com/whimbrel-edge/whimbrel/models"
)

// maxRules bounds x-rules: all of them run for every document.
const maxRules = 50

// rule is one of x-rules, compiled.
type rule struct {
	program *expression.Program
	message string
	at      []string // pointers into the document; the first that is there counts
	fields  []string // of the connection
	blame   string   // the pointer into the connection to what may be wrong instead
}

// lineRule is x-line.
type lineRule struct {
	// URL is the field of the connection that has the URL.
	URL string `json:"url"`
	// Schemes are those of URLs that name a line by their path, each with the
	// defaults of the settings in the query.
	Schemes map[string]map[string]any `json:"schemes"`
	// With are fields of the connection that belong to the settings too, with their
	// defaults.
	With map[string]any `json:"with"`
}

// Line is a line that devices share: a serial port of their node.
type Line struct {
	Path     string            // such as /dev/ttyUSB0
	Settings map[string]string // how it is used; devices that share it must agree
}

// compileRoot compiles x-rules and x-line.
func (s *Schema) compileRoot(property bool) error {
	root, _ := s.doc.(map[string]any)
	if deep := below(s.doc, "", 0); deep != "" {
		return fmt.Errorf("%s: x-rules and x-line stand at the root of a schema only", deep)
	}
	if given, ok := root["x-rules"]; ok {
		var rules []struct {
			Rule, Message, Connection string
			At                        json.RawMessage
		}
		if err := strict(given, &rules); err != nil {
			return fmt.Errorf("x-rules must be a list of {rule, message, at, connection}: %w", err)
		}
		if len(rules) > maxRules {
			return fmt.Errorf("x-rules has %d rules, at most %d are allowed", len(rules), maxRules)
		}
		for i, r := range rules {
			wrong := func(err error) error { return fmt.Errorf("x-rules/%d: %w", i, err) }
			if r.Message == "" {
				return wrong(errors.New("needs a message: what the user reads where the rule does not hold"))
			}
			program, fields, err := expression.Rule(r.Rule)
			if err != nil {
				return wrong(fmt.Errorf("rule %w", err))
			}
			compiled := rule{program: program, message: r.Message, fields: fields}
			if compiled.at, err = places(r.At); err != nil {
				return wrong(err)
			}
			switch {
			case len(fields) == 0:
				s.rules = append(s.rules, compiled)
			case !property:
				return wrong(errors.New("only the rules of property may look at the connection"))
			case r.Connection != "" && !strings.HasPrefix(r.Connection, "/"):
				return wrong(fmt.Errorf("connection must be a JSON Pointer into it, got %q", r.Connection))
			default:
				if compiled.blame = r.Connection; r.Connection == "" {
					compiled.blame = "/" + escape(fields[0])
				}
				s.crossing = append(s.crossing, compiled)
				s.fields = append(s.fields, fields...)
			}
		}
		slices.Sort(s.fields)
		s.fields = slices.Compact(s.fields)
	}
	if given, ok := root["x-line"]; ok {
		s.line = &lineRule{}
		if err := strict(given, s.line); err != nil || s.line.URL == "" || len(s.line.Schemes) == 0 {
			return fmt.Errorf("x-line must be {url: FIELD, schemes: {SCHEME: {SETTING: DEFAULT}}, with: {FIELD: DEFAULT}}")
		}
	}
	return nil
}

// below finds x-rules or x-line anywhere but at the root.
func below(v any, at string, depth int) string {
	switch v := v.(type) {
	case map[string]any:
		for k, sub := range v {
			if at != "" && (k == "x-rules" || k == "x-line") {
				return at
			}
			if found := below(sub, at+"/"+escape(k), depth+1); found != "" {
				return found
			}
		}
	case []any:
		for _, sub := range v {
			if found := below(sub, at+"/-", depth+1); found != "" {
				return found
			}
		}
	}
	return ""
}

func strict(tree, into any) error {
	text, err := json.Marshal(tree)
	if err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	return dec.Decode(into)
}

// places reads at: a pointer or a list of them.
func places(at json.RawMessage) ([]string, error) {
	if len(at) == 0 {
		return nil, nil
	}
	var one string
	var many []string
	if json.Unmarshal(at, &one) == nil {
		many = []string{one}
	} else if err := json.Unmarshal(at, &many); err != nil {
		return nil, errors.New("at must be a JSON Pointer or a list of them")
	}
	for _, p := range many {
		if !strings.HasPrefix(p, "/") {
			return nil, fmt.Errorf("at must be a JSON Pointer such as /address/register, got %q", p)
		}
	}
	return many, nil
}

// sight is what rules see: the documents, read once for all of them.
func sight(document, connection []byte) map[string]any {
	vars := map[string]any{"self": expression.Document(document), "connection": nil}
	if connection != nil {
		vars["connection"] = expression.Document(connection)
	}
	return vars
}

// broken finds the rules that do not hold, for a document that fits the schema
// otherwise, and what is to be said of each.
func broken(rules []rule, vars map[string]any, at string) func(func(rule, models.FieldError) bool) {
	return func(yield func(rule, models.FieldError) bool) {
		for _, r := range rules {
			holds, err := r.program.Holds(vars)
			if !holds && !yield(r, r.say(vars["self"], err, at)) {
				return
			}
		}
	}
}

// say is what a user reads where the rule does not hold, or has no answer: err.
func (r *rule) say(self any, err error, at string) models.FieldError {
	f := models.FieldError{Pointer: at, Detail: r.message}
	if err != nil {
		f.Detail = fmt.Sprintf("the mapper's rule has no answer here: %s", err)
	}
	for _, p := range r.at {
		v, there := find(self, p)
		if !there && len(r.at) > 1 {
			continue
		}
		f.Pointer = at + p
		switch v.(type) {
		case nil, map[string]any, []any:
		default:
			if err == nil {
				f.Detail += ", got " + text(v)
			}
		}
		break
	}
	return f
}

// follow evaluates the rules that look at a document alone.
func (s *Schema) follow(document []byte, at string) (out []models.FieldError) {
	if len(s.rules) == 0 {
		return nil
	}
	for _, f := range broken(s.rules, sight(document, nil), at) {
		// The first thing that is wrong with a field is the one to mend.
		if !slices.ContainsFunc(out, func(o models.FieldError) bool { return o.Pointer == f.Pointer }) && len(out) < maxErrors {
			out = append(out, f)
		}
	}
	return out
}

// find returns what a JSON Pointer points to.
func find(v any, pointer string) (any, bool) {
	for step := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		m, ok := v.(map[string]any)
		if !ok {
			return nil, false
		}
		if v, ok = m[pointerUnescape.Replace(step)]; !ok {
			return nil, false
		}
	}
	return v, true
}

var (
	pointerEscape   = strings.NewReplacer("~", "~0", "/", "~1")
	pointerUnescape = strings.NewReplacer("~1", "/", "~0", "~")
)

// HasLines reports whether connections may name lines.
func (s *Schema) HasLines() bool { return s.line != nil }

// LineOf returns the line that a connection, which fits the schema, names. It is
// false for one that names none.
func (s *Schema) LineOf(connection []byte) (Line, bool) {
	if s.line == nil || !s.line.maybe(connection) {
		return Line{}, false
	}
	fields := map[string]any{}
	if json.Unmarshal(connection, &fields) != nil {
		return Line{}, false
	}
	given, _ := fields[s.line.URL].(string)
	u, err := url.Parse(given)
	if err != nil || u.Path == "" {
		return Line{}, false
	}
	defaults, ok := s.line.Schemes[u.Scheme]
	if !ok {
		return Line{}, false
	}
	l := Line{Path: path.Clean(u.Path), Settings: map[string]string{"scheme": u.Scheme}}
	for name, value := range defaults {
		l.Settings[name] = fmt.Sprint(value)
	}
	for name, values := range u.Query() {
		if len(values) > 0 {
			l.Settings[name] = fmt.Sprint(digits(values[0]))
		}
	}
	for name, value := range s.line.With {
		if v, ok := fields[name]; ok {
			value = v
		}
		l.Settings[name] = fmt.Sprint(value)
	}
	return l, true
}

// maybe reports whether a connection has one of the schemes in it: most have not,
// and need not be read.
func (l *lineRule) maybe(connection []byte) bool {
	lower := bytes.ToLower(connection)
	for scheme := range l.Schemes {
		if bytes.Contains(lower, []byte(scheme+":")) {
			return true
		}
	}
	return false
}

// Differences says in words how another device uses the same line otherwise; ""
// when they agree.
func (l Line) Differences(other Line) string {
	var names []string
	for name := range l.Settings {
		names = append(names, name)
	}
	for name := range other.Settings {
		if _, ok := l.Settings[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	if l.Settings["scheme"] != other.Settings["scheme"] {
		names = []string{"scheme"} // what follows from it need not be said
	}
	var out []string
	for _, name := range names {
		a, b := l.Settings[name], other.Settings[name]
		if a == b {
			continue
		}
		if name == "scheme" {
			a, b = a+"://", b+"://"
		}
		if a == "" {
			a = "not set"
		}
		if b == "" {
			b = "not set"
		}
		out = append(out, fmt.Sprintf("%s is %s here and %s there", name, a, b))
	}
	return strings.Join(out, ", ")
}
