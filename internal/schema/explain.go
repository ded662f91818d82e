package schema

import (
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"github.com/whimbrel-edge/whimbrel/models"
)

// explainer turns what a validator found into what a person can mend.
type explainer struct {
	schema    any // the whole schema's text
	doc       any // what was checked
	at        string
	explained bool
	ofURL     bool // doc is the parts of a URL
}

// finding is one thing that is wrong.
type finding struct {
	path   []string // to the field, from the document's root
	detail string
	// together says that it is about how fields go together, which may be no more
	// than what follows from a field that is wrong by itself.
	together bool
}

// all explains an error of the validator, the fields before what they must be
// together.
func (x *explainer) all(e *jsonschema.ValidationError) []models.FieldError {
	var out []models.FieldError
	for _, f := range x.findings(e) {
		pointer := x.at
		for _, step := range f.path {
			pointer += "/" + escape(step)
		}
		field := models.FieldError{Pointer: pointer, Detail: f.detail}
		if len(out) < maxErrors && !slices.Contains(out, field) {
			out = append(out, field)
		}
	}
	return out
}

func (x *explainer) findings(e *jsonschema.ValidationError) []finding {
	all := x.explain(e)
	if slices.ContainsFunc(all, func(f finding) bool { return !f.together }) {
		all = slices.DeleteFunc(all, func(f finding) bool { return f.together })
	}
	// Objects are checked in no order.
	slices.SortStableFunc(all, func(a, b finding) int { return slices.Compare(a.path, b.path) })
	// That a field must be left out says more than what it would have to be.
	gone := map[string]bool{}
	for _, f := range all {
		if strings.HasPrefix(f.detail, leftOut) {
			gone[strings.Join(f.path, "/")] = true
		}
	}
	return slices.DeleteFunc(all, func(f finding) bool {
		return gone[strings.Join(f.path, "/")] && !strings.HasPrefix(f.detail, leftOut)
	})
}

const leftOut = "must be left out"

func (x *explainer) explain(e *jsonschema.ValidationError) []finding {
	switch k := e.ErrorKind.(type) {
	case *kind.Schema, *kind.Group, *kind.AllOf, *kind.Reference:
		var out []finding
		for _, c := range e.Causes {
			out = append(out, x.explain(c)...)
		}
		return out
	case *kind.AnyOf:
		return x.alternatives(e)
	case *kind.OneOf:
		if len(k.Subschemas) == 0 {
			return x.alternatives(e)
		}
	}
	node := x.node(e)
	if k, ok := e.ErrorKind.(*kind.PropertyNames); ok {
		// The validator's path to it shares memory with those to its neighbours.
		e.InstanceLocation = holder(x.doc, k.Property, len(e.InstanceLocation))
	}
	f := finding{path: e.InstanceLocation, together: node.together(e.ErrorKind)}
	one := func(detail string) []finding { f.detail = detail; return []finding{f} }
	each := func(names []string, detail func(name string) string) (out []finding) {
		for _, name := range names {
			out = append(out, finding{path: append(slices.Clone(e.InstanceLocation), name), detail: detail(name), together: f.together})
		}
		return out
	}
	why := node.why(x.explained)
	if x.explained && why != "" {
		switch k := e.ErrorKind.(type) {
		case *kind.Required:
			return each(k.Missing, func(string) string { return why })
		case *kind.AdditionalProperties:
			return each(k.Properties, func(string) string { return why })
		}
		return one(why)
	}
	suffix := ""
	if why != "" {
		suffix = ": " + why
	}
	switch k := e.ErrorKind.(type) {
	case *kind.Required:
		return each(k.Missing, func(name string) string {
			if such := hint(node.property(name)); such != "" {
				return "is required," + such + suffix
			}
			return "is required" + suffix
		})
	case *kind.DependentRequired:
		return each(k.Missing, func(name string) string { return "is required with " + k.Prop + suffix })
	case *kind.Dependency:
		return each(k.Missing, func(name string) string { return "is required with " + k.Prop + suffix })
	case *kind.AdditionalProperties:
		known := node.properties()
		return each(k.Properties, func(name string) string { return "unknown field; " + models.Suggest(name, known) })
	case *kind.FalseSchema: // a field that some other field rules out
		return one(leftOut + suffix)
	case *kind.Not:
		return x.not(e, node, f, suffix)
	case *kind.OneOf:
		return one("fits more than one of its forms" + suffix)
	case *wrongURL:
		return one(x.url(k))
	case said:
		return one(string(k) + suffix)
	}
	return one(x.leaf(e, node) + suffix)
}

// leaf explains a keyword that looks at one value alone.
func (x *explainer) leaf(e *jsonschema.ValidationError, node place) string {
	got := ", got " + x.value(e.InstanceLocation)
	switch k := e.ErrorKind.(type) {
	case *kind.Type:
		return "must be " + typeNames(k.Want) + hint(node.node) + got
	case *kind.Enum:
		if x.ofURL && slices.Equal(e.InstanceLocation, []string{"scheme"}) {
			return "must begin with " + schemes(k.Want) + got
		}
		if nearest := x.nearest(k); nearest != "" {
			return nearest + got
		}
		return "must be " + choice(k.Want) + got
	case *kind.Const:
		if x.ofURL && slices.Equal(e.InstanceLocation, []string{"scheme"}) {
			return "must begin with " + schemes([]any{k.Want}) + got
		}
		return "must be " + choice([]any{k.Want}) + got
	case *kind.Pattern:
		field := node.field()
		if such := hint(field); such != "" {
			return "must be" + such + got + about(field)
		}
		if said := about(field); said != "" {
			return "has not the right form" + got + said
		}
		return "must match the regular expression " + k.Want + got
	case *kind.Format:
		return "must be a valid " + k.Want + got
	case *kind.Minimum, *kind.Maximum, *kind.ExclusiveMinimum, *kind.ExclusiveMaximum:
		return "must be " + node.within() + got
	case *kind.MultipleOf:
		if k.Want.IsInt() && k.Want.Num().IsInt64() && k.Want.Num().Int64() == 1 {
			return "must be a whole number" + got
		}
		return "must be a multiple of " + number(k.Want) + got
	case *kind.MinLength:
		if k.Got == 0 && k.Want == 1 {
			return "must not be empty"
		}
		return fmt.Sprintf("must have at least %d characters, got %d", k.Want, k.Got)
	case *kind.MaxLength:
		return fmt.Sprintf("must have at most %d characters, got %d", k.Want, k.Got)
	case *kind.MinItems:
		return fmt.Sprintf("must have at least %d items, got %d", k.Want, k.Got)
	case *kind.MaxItems:
		return fmt.Sprintf("must have at most %d items, got %d", k.Want, k.Got)
	case *kind.MinProperties:
		return fmt.Sprintf("must have at least %d fields, got %d", k.Want, k.Got)
	case *kind.MaxProperties:
		return fmt.Sprintf("must have at most %d fields, got %d", k.Want, k.Got)
	case *kind.UniqueItems:
		return fmt.Sprintf("has the same item twice, at %d and %d", k.Duplicates[0], k.Duplicates[1])
	case *kind.PropertyNames:
		return "must not have a field called " + text(k.Property)
	case *kind.RefCycle:
		return "cannot be checked: the mapper's schema goes round in circles"
	}
	return e.ErrorKind.LocalizedString(english)
}

// nearest shortens a long list of numbers for a number that is not in it.
func (x *explainer) nearest(k *kind.Enum) string {
	const most = 12
	got, ok := asNumber(k.Got)
	if !ok || len(k.Want) <= most {
		return ""
	}
	numbers := make([]float64, len(k.Want))
	for i, v := range k.Want {
		if numbers[i], ok = asNumber(v); !ok {
			return ""
		}
	}
	slices.Sort(numbers)
	show := func(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }
	first, last := numbers[0], numbers[len(numbers)-1]
	near := "is " + show(first)
	if i, _ := slices.BinarySearch(numbers, got); i == len(numbers) {
		near = "is " + show(last)
	} else if i > 0 {
		near = "are " + show(numbers[i-1]) + " and " + show(numbers[i])
	}
	return fmt.Sprintf("must be one of %d numbers from %s to %s, nearest %s", len(numbers), show(first), show(last), near)
}

func asNumber(v any) (float64, bool) {
	n, ok := v.(json.Number)
	if !ok {
		return 0, false
	}
	f, err := n.Float64()
	return f, err == nil
}

var english = message.NewPrinter(language.English)

// not explains that something is what it must not be.
func (x *explainer) not(e *jsonschema.ValidationError, node place, f finding, suffix string) []finding {
	inner, _ := node.node["not"].(map[string]any)
	switch names, all := textsOf(inner["required"]); {
	case inner != nil && len(inner) == 0:
		f.detail = leftOut + suffix
	case all && len(names) > 1 && len(inner) == 1:
		f.path = append(slices.Clone(f.path), names[len(names)-1])
		f.detail = "cannot stand beside " + list(names[:len(names)-1], "and") + ": leave one of them out"
		if suffix != "" {
			f.detail = strings.TrimPrefix(suffix, ": ")
		}
	case all && len(names) == 1 && len(inner) == 1:
		f.path = append(slices.Clone(f.path), names[0])
		f.detail = leftOut + suffix
	case inner["const"] != nil:
		f.detail = "must not be " + text(inner["const"]) + suffix
	case inner["enum"] != nil:
		values, _ := inner["enum"].([]any)
		f.detail = "must not be " + choice(values) + suffix
	case suffix != "":
		f.detail = "is not right" + suffix
	default:
		f.detail = "is not allowed by the mapper's schema" + about(node.node)
	}
	return []finding{f}
}

// alternatives explains that none of several schemas fits: by what all of them
// lack, or else by the one that was missed by the least.
func (x *explainer) alternatives(e *jsonschema.ValidationError) []finding {
	node := x.node(e)
	together := node.together(e.ErrorKind)
	here := func(detail string) []finding {
		return []finding{{path: e.InstanceLocation, detail: detail, together: together}}
	}
	why := node.why(x.explained)
	if x.explained && why != "" {
		return here(why)
	}
	var lacking, types []string
	onlyLacking, onlyTypes := len(e.Causes) > 0, len(e.Causes) > 0
	for _, c := range e.Causes {
		if k, ok := c.ErrorKind.(*kind.Required); ok && slices.Equal(c.InstanceLocation, e.InstanceLocation) {
			if name := list(k.Missing, "and"); !slices.Contains(lacking, name) {
				lacking = append(lacking, name)
			}
		} else {
			onlyLacking = false
		}
		if k, ok := c.ErrorKind.(*kind.Type); ok && slices.Equal(c.InstanceLocation, e.InstanceLocation) {
			types = append(types, k.Want...)
		} else {
			onlyTypes = false
		}
	}
	switch {
	case onlyLacking && why != "":
		return here(why)
	case onlyLacking:
		sep := " or "
		if slices.ContainsFunc(lacking, func(s string) bool { return strings.Contains(s, " and ") }) {
			sep = ", or "
		}
		return here("needs " + strings.Join(lacking, sep))
	case onlyTypes:
		return here("must be " + typeNames(types) + hint(node.node) + ", got " + x.value(e.InstanceLocation))
	}
	var best []finding
	for _, c := range e.Causes {
		if k, ok := c.ErrorKind.(*kind.Type); ok && slices.Equal(c.InstanceLocation, e.InstanceLocation) && k != nil {
			continue // meant for another type
		}
		found := x.explain(c)
		for i := range found {
			found[i].together = together
		}
		if best == nil || len(found) < len(best) {
			best = found
		}
	}
	if why != "" {
		return here(why)
	}
	return best
}

// url explains a URL whose parts do not fit.
func (x *explainer) url(w *wrongURL) string {
	inner := &explainer{schema: x.schema, doc: w.parts, explained: x.explained, ofURL: true}
	var out []string
	for _, f := range inner.findings(w.err) {
		if s := inner.part(f); !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return strings.Join(out, "; ")
}

// part says what is wrong with a part of a URL.
func (x *explainer) part(f finding) string {
	value, _ := find(x.doc, "/"+strings.Join(f.path, "/"))
	scheme, _ := find(x.doc, "/scheme")
	unknown := strings.HasPrefix(f.detail, "unknown field; ")
	switch {
	case len(f.path) == 0:
		return f.detail
	case f.path[0] == "scheme":
		return f.detail
	case f.path[0] == "query" && len(f.path) > 1:
		name := f.path[1]
		if list, ok := value.([]any); ok {
			return fmt.Sprintf("%s is given %d times", name, len(list))
		}
		if unknown {
			return fmt.Sprintf("%s is unknown after the question mark; %s", name, strings.TrimPrefix(f.detail, "unknown field; "))
		}
		return name + " " + f.detail
	case unknown:
		f.detail = leftOut
	}
	name := map[string]string{"user": "a user before the host", "query": "what follows the question mark", "fragment": "what follows #"}[f.path[0]]
	if name == "" {
		name = "the " + f.path[0]
	}
	if rest, ok := strings.CutPrefix(f.detail, "is required"); ok {
		if s, ok := scheme.(string); ok {
			return fmt.Sprintf("%s is required after %s://%s", name, s, rest)
		}
	}
	return name + " " + f.detail
}

// holder finds the path of a length to an object that has a field.
func holder(v any, field string, length int) []string {
	m, _ := v.(map[string]any)
	if length == 0 {
		if _, ok := m[field]; ok {
			return []string{}
		}
		return nil
	}
	steps := map[string]any(m)
	if list, ok := v.([]any); ok {
		steps = map[string]any{}
		for i, item := range list {
			steps[strconv.Itoa(i)] = item
		}
	}
	for step, sub := range steps {
		if path := holder(sub, field, length-1); path != nil {
			return append([]string{step}, path...)
		}
	}
	return nil
}

// value writes what stands in the document.
func (x *explainer) value(path []string) string {
	v := x.doc
	for _, step := range path {
		switch at := v.(type) {
		case map[string]any:
			v = at[step]
		case []any:
			i, err := strconv.Atoi(step)
			if err != nil || i < 0 || i >= len(at) {
				return "something else"
			}
			v = at[i]
		}
	}
	return text(v)
}

// place is where in the schema a keyword stands: the steps to it and the objects
// on the way.
type place struct {
	steps []string
	along []any // along[i] is what is reached after i steps
	node  map[string]any
}

func (x *explainer) node(e *jsonschema.ValidationError) place {
	_, fragment, _ := strings.Cut(e.SchemaURL, "#")
	p := place{along: []any{x.schema}}
	at := x.schema
	for step := range strings.SplitSeq(strings.Trim(fragment, "/"), "/") {
		if step == "" {
			continue
		}
		name := pointerUnescape.Replace(unpercent(step))
		switch here := at.(type) {
		case map[string]any:
			at = here[name]
		case []any:
			n, err := strconv.Atoi(name)
			if err != nil || n < 0 || n >= len(here) {
				return p
			}
			at = here[n]
		default:
			return p
		}
		p.steps, p.along = append(p.steps, name), append(p.along, at)
	}
	p.node, _ = at.(map[string]any)
	return p
}

// unpercent undoes what a URL's fragment writes with %.
func unpercent(s string) string {
	for i := 0; i+2 < len(s); i++ {
		if s[i] != '%' {
			continue
		}
		if n, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
			s = s[:i] + string([]byte{byte(n)}) + s[i+3:]
		}
	}
	return s
}

// field is the schema of the field that the keyword is about: the keyword's own, or
// the nearest one around it that says anything of the field, when it stands in
// one of several alternatives.
func (p place) field() map[string]any {
	for i := len(p.along) - 1; i > 0; i-- {
		if m, ok := p.along[i].(map[string]any); ok && (m["examples"] != nil || m["description"] != nil || m["title"] != nil) {
			return m
		}
		if i > 1 && p.steps[i-2] == "properties" {
			break
		}
	}
	return p.node
}

// together reports whether the keyword is about fields that go together.
func (p place) together(k jsonschema.ErrorKind) bool {
	begin := slices.Index(p.steps, "x-url") + 1 // the parts of a URL are fields of their own
	for i, step := range p.steps {
		if i < begin || i > begin && (p.steps[i-1] == "properties" || p.steps[i-1] == "$defs") {
			continue // a field's name
		}
		switch step {
		case "properties", "items", "additionalProperties":
			return false
		case "allOf", "anyOf", "oneOf", "then", "else", "dependentSchemas":
			return true
		}
	}
	switch k.(type) {
	case *kind.AnyOf, *kind.OneOf, *kind.Not, *kind.DependentRequired, *kind.Dependency:
		return true
	}
	return false
}

// why is the description of the rule that the keyword belongs to: the nearest one
// within if, then, allOf and the like. Where descriptions are made to be read by
// who broke a rule, the nearest of all. The root's describes the whole, and
// is never meant.
func (p place) why(explained bool) string {
	why, within := "", explained
	for i, at := range p.along {
		if i > 0 {
			step, name := p.steps[i-1], i > 1 && p.steps[i-2] == "properties"
			switch step {
			case "allOf", "anyOf", "oneOf", "then", "else", "dependentSchemas", "not":
				within = within || !name
			}
		}
		m, ok := at.(map[string]any)
		if !ok || i == 0 || !within {
			continue
		}
		if d, ok := m["description"].(string); ok && d != "" {
			why = d
		}
	}
	return why
}

// property is the schema of a field of the object that the place describes.
func (p place) property(name string) map[string]any {
	fields, _ := p.node["properties"].(map[string]any)
	field, _ := fields[name].(map[string]any)
	return field
}

func (p place) properties() []string {
	fields, _ := p.node["properties"].(map[string]any)
	names := make([]string, 0, len(fields))
	for name := range fields {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// within says which numbers are allowed.
func (p place) within() string {
	low, high := p.node["minimum"], p.node["maximum"]
	over, under := p.node["exclusiveMinimum"], p.node["exclusiveMaximum"]
	var parts []string
	switch {
	case low != nil && high != nil:
		return "from " + text(low) + " to " + text(high)
	case low != nil:
		parts = append(parts, "at least "+text(low))
	case over != nil:
		parts = append(parts, "above "+text(over))
	}
	switch {
	case high != nil:
		parts = append(parts, "at most "+text(high))
	case under != nil:
		parts = append(parts, "below "+text(under))
	}
	return strings.Join(parts, " and ")
}

// hint gives an example of what a schema wants.
func hint(node map[string]any) string {
	examples, _ := node["examples"].([]any)
	if len(examples) == 0 {
		return ""
	}
	if len(examples) > 2 {
		examples = examples[:2]
	}
	return " such as " + choice(examples)
}

// about is what a schema says of itself.
func about(node map[string]any) string {
	for _, name := range []string{"description", "title"} {
		if s, ok := node[name].(string); ok && s != "" {
			return ": " + s
		}
	}
	return ""
}

func typeNames(types []string) string {
	names := map[string]string{"string": "a string", "integer": "a whole number", "number": "a number", "boolean": "true or false",
		"object": "an object", "array": "a list", "null": "null"}
	var out []string
	for _, t := range types {
		if !slices.Contains(out, names[t]) {
			out = append(out, names[t])
		}
	}
	return list(out, "or")
}

// choice lists values: a, b or c. Words stand for themselves.
func choice(values []any) string {
	out := make([]string, len(values))
	for i, v := range values {
		s, ok := v.(string)
		if !ok || s == "" || strings.ContainsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) || r == ',' || r == '"' }) {
			s = text(v)
		}
		out[i] = s
	}
	return list(out, "or")
}

// schemes lists schemes of URLs: tcp:// or rtu://.
func schemes(values []any) string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = fmt.Sprint(v) + "://"
	}
	return list(out, "or")
}

func list(items []string, last string) string {
	if len(items) < 2 {
		return strings.Join(items, "")
	}
	return strings.Join(items[:len(items)-1], ", ") + " " + last + " " + items[len(items)-1]
}

// textsOf returns a list of texts, and whether it is one.
func textsOf(v any) ([]string, bool) {
	items, ok := v.([]any)
	out := make([]string, 0, len(items))
	for _, item := range items {
		s, is := item.(string)
		if !is {
			return nil, false
		}
		out = append(out, s)
	}
	return out, ok && len(out) > 0
}

// number writes a number of a schema.
func number(r *big.Rat) string {
	if r.IsInt() {
		return r.Num().String()
	}
	f, _ := r.Float64()
	out, err := json.Marshal(f)
	if err != nil {
		return r.RatString()
	}
	return string(out)
}
