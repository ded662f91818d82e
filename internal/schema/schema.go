// Package schema holds what a mapper's JSON Schemas say, and says in words what
// does not fit them. They are draft 2020-12 with keywords of Whimbrel's own for
// what the draft cannot say:
//
//	x-url       a text is a URL whose parts fit a schema
//	x-duration  a text is a duration within bounds
//	x-regexp    a text is a regular expression (RE2) with groups
//	x-rules     how fields go together, as expressions
//	x-line      which connections name a line that devices share
//
// x-rules and x-line stand at the root of a schema. Programs that do not know the
// keywords may leave them out of account: they only ever refuse more.
package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/whimbrel-edge/whimbrel/models"
)

// MaxBytes bounds a schema's text: the hub compiles it while other changes wait.
const MaxBytes = 256 << 10

// maxErrors bounds how many things one answer names.
const maxErrors = 10

// Schema is a compiled schema. It may be used by many goroutines.
type Schema struct {
	compiled *jsonschema.Schema
	doc      any // its text as a tree, for what the compiler does not keep
	// explained says that descriptions are made to be read by whoever broke a rule,
	// and stand for the rule.
	explained bool
	rules     []rule // over the document alone
	crossing  []rule // over the document and the connection
	fields    []string
	line      *lineRule
}

// noLoader refuses references to anything outside the schema itself.
type noLoader struct{}

func (noLoader) Load(url string) (any, error) {
	return nil, fmt.Errorf("reference to %s: a mapper's schema must stand alone", url)
}

// Compile compiles the schema of a connection or an address.
func Compile(text []byte) (*Schema, error) { return compile(text, false) }

// CompileProperty compiles the schema of a property as a whole. Its rules may
// look at the connection of the device, and its descriptions say what is wrong.
func CompileProperty(text []byte) (*Schema, error) { return compile(text, true) }

func compile(text []byte, property bool) (*Schema, error) {
	if len(text) > MaxBytes {
		return nil, fmt.Errorf("has %d bytes, at most %d are allowed", len(text), MaxBytes)
	}
	s := &Schema{explained: property}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err == nil {
		if at, found := beyond(doc, ""); found {
			return nil, fmt.Errorf("%s has a number that is too large or too long", at)
		}
		s.doc = doc
		c := jsonschema.NewCompiler()
		c.DefaultDraft(jsonschema.Draft2020)
		c.UseLoader(noLoader{})
		var own *jsonschema.Vocabulary
		if own, err = vocabulary(); err == nil {
			c.RegisterVocabulary(own)
			c.AssertVocabs()
			const url = "mapper:///schema"
			if err = c.AddResource(url, doc); err == nil {
				s.compiled, err = c.Compile(url)
			}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("is not a JSON Schema (2020-12) that stands alone: %w", mistake(err))
	}
	return s, s.compileRoot(property)
}

// mistake says what is wrong with a schema in one line, and where, without the
// validator's names for schemas that have none.
func mistake(err error) error {
	var invalid *jsonschema.SchemaValidationError
	var why *jsonschema.ValidationError
	if !errors.As(err, &invalid) || !errors.As(invalid.Err, &why) {
		return err
	}
	const most = 3
	var wrong []string
	var leaves func(e *jsonschema.ValidationError)
	leaves = func(e *jsonschema.ValidationError) {
		for _, c := range e.Causes {
			leaves(c)
		}
		if len(e.Causes) > 0 {
			return
		}
		at := ""
		for _, step := range e.InstanceLocation {
			at += "/" + escape(step)
		}
		if detail := at + ": " + e.ErrorKind.LocalizedString(english); len(wrong) < most && !slices.Contains(wrong, detail) {
			wrong = append(wrong, detail)
		}
	}
	leaves(why)
	return errors.New(strings.Join(wrong, "; or "))
}

// Check checks a document; at is where it stands. It does not look at the rules
// that need a connection.
func (s *Schema) Check(text []byte, at string) []models.FieldError {
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return []models.FieldError{{Pointer: at, Detail: "is not JSON"}}
	}
	if pointer, found := beyond(v, at); found {
		return []models.FieldError{{Pointer: pointer, Detail: "must be a number from -1.7e308 to 1.7e308, of at most 400 digits"}}
	}
	if err = s.compiled.Validate(v); err == nil {
		return s.follow(text, at)
	}
	var invalid *jsonschema.ValidationError
	if !errors.As(err, &invalid) {
		return []models.FieldError{{Pointer: at, Detail: err.Error()}}
	}
	return (&explainer{schema: s.doc, doc: v, at: at, explained: s.explained}).all(invalid)
}

// ConnectionFields are the fields of the connection that the rules of a property
// look at; none when no rule does.
func (s *Schema) ConnectionFields() []string { return s.fields }

// CheckAgainst checks a property, which fits the schema, against its device's
// connection.
func (s *Schema) CheckAgainst(property, connection []byte) []Clash {
	var out []Clash
	if len(s.crossing) == 0 {
		return nil
	}
	for r, f := range broken(s.crossing, sight(property, connection), "") {
		out = append(out, Clash{Property: f, Connection: r.blame})
	}
	return out
}

// Clash is a property and a connection that do not go together.
type Clash struct {
	Property   models.FieldError // what is wrong, with a pointer into the property
	Connection string            // the pointer into the connection to what may be wrong instead
}

// maxDigits bounds how long a number is, and its exponent.
const maxDigits = 400

// beyond finds a number that the validator, which reckons exactly, cannot handle or
// would need long for.
func beyond(v any, at string) (string, bool) {
	switch v := v.(type) {
	case json.Number:
		f, err := v.Float64()
		_, exponent, _ := strings.Cut(strings.ToLower(v.String()), "e")
		e, bad := strconv.Atoi(exponent)
		return at, err != nil || math.IsInf(f, 0) || len(v) > maxDigits || exponent != "" && (bad != nil || e < -maxDigits)
	case map[string]any:
		for k, sub := range v {
			if found, ok := beyond(sub, at+"/"+escape(k)); ok {
				return found, true
			}
		}
	case []any:
		for i, sub := range v {
			if found, ok := beyond(sub, at+"/"+strconv.Itoa(i)); ok {
				return found, true
			}
		}
	}
	return "", false
}

func escape(step string) string {
	return pointerEscape.Replace(step)
}

// text writes a value of a document or a schema for people, cut where it is long.
func text(v any) string {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if enc.Encode(v) != nil {
		return "something else"
	}
	s := string(bytes.TrimSpace(out.Bytes()))
	const most = 80
	if len(s) > most {
		s = string(bytes.ToValidUTF8([]byte(s[:most-3]), nil)) + "..."
	}
	return s
}
