package schema

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"golang.org/x/text/message"

	"github.com/whimbrel-edge/whimbrel/internal/hostport"
)

const vocabularyURL = "https://whimbrel.invalid/vocabulary/mapper"

// vocabularySchema is what the keywords themselves must be.
const vocabularySchema = `{"properties": {
	"x-url": {"$ref": "https://json-schema.org/draft/2020-12/schema"},
	"x-duration": {"type": "object", "additionalProperties": false, "properties": {"minimum": {"type": "string"}, "maximum": {"type": "string"}}},
	"x-regexp": {"type": "object", "additionalProperties": false, "properties": {"groups": {"type": "integer", "minimum": 0}}}}}`

// vocabulary is the keywords that stand anywhere in a schema.
var vocabulary = sync.OnceValues(func() (*jsonschema.Vocabulary, error) {
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(vocabularySchema))
	if err != nil {
		return nil, err
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource(vocabularyURL, doc); err != nil {
		return nil, err
	}
	meta, err := c.Compile(vocabularyURL)
	if err != nil {
		return nil, err
	}
	return &jsonschema.Vocabulary{URL: vocabularyURL, Schema: meta, Subschemas: []jsonschema.SchemaPath{{jsonschema.Prop("x-url")}}, Compile: compileKeywords}, nil
})

// keywords is what one schema object says with Whimbrel's keywords.
type keywords struct {
	url      *jsonschema.Schema
	duration *bounds
	groups   int // of x-regexp; -1: the text is none
}

type bounds struct {
	minimum, maximum time.Duration
	low, high        string // as the schema writes them; "": none
}

func compileKeywords(ctx *jsonschema.CompilerContext, obj map[string]any) (jsonschema.SchemaExt, error) {
	k := &keywords{groups: -1}
	if _, ok := obj["x-url"]; ok {
		k.url = ctx.Enqueue([]string{"x-url"})
	}
	if m, ok := obj["x-duration"].(map[string]any); ok {
		k.duration = &bounds{}
		for _, b := range []struct {
			name string
			text *string
			into *time.Duration
		}{{"minimum", &k.duration.low, &k.duration.minimum}, {"maximum", &k.duration.high, &k.duration.maximum}} {
			s, ok := m[b.name].(string)
			if !ok {
				continue
			}
			d, err := time.ParseDuration(s)
			if err != nil {
				return nil, fmt.Errorf("x-duration: %s must be a duration such as 1s, got %q", b.name, s)
			}
			*b.text, *b.into = s, d
		}
	}
	if m, ok := obj["x-regexp"].(map[string]any); ok {
		k.groups = 0
		if n, ok := m["groups"].(json.Number); ok {
			i, err := strconv.Atoi(n.String())
			if err != nil {
				return nil, fmt.Errorf("x-regexp: groups must be a whole number, got %s", n)
			}
			k.groups = i
		}
	}
	if k.url == nil && k.duration == nil && k.groups < 0 {
		return nil, nil
	}
	return k, nil
}

// Validate implements jsonschema.SchemaExt. Whatever is no text is the business of
// type.
func (k *keywords) Validate(ctx *jsonschema.ValidatorContext, v any) {
	s, ok := v.(string)
	if !ok {
		return
	}
	if k.url != nil {
		parts, err := partsOf(s)
		if err != nil {
			ctx.AddError(said(err.Error() + ", got " + text(s)))
		} else if err := k.url.Validate(parts); err != nil {
			var invalid *jsonschema.ValidationError
			if errors.As(err, &invalid) {
				ctx.AddError(&wrongURL{url: s, parts: parts, err: invalid})
			}
		}
	}
	if k.duration != nil {
		if why := k.duration.check(s); why != "" {
			ctx.AddError(said(why))
		}
	}
	if k.groups >= 0 {
		if why := checkRegexp(s, k.groups); why != "" {
			ctx.AddError(said(why))
		}
	}
}

// said is a keyword's own words on what is wrong.
type said string

// KeywordPath implements jsonschema.ErrorKind.
func (said) KeywordPath() []string { return nil }

// LocalizedString implements jsonschema.ErrorKind.
func (s said) LocalizedString(*message.Printer) string { return string(s) }

// wrongURL is a URL whose parts do not fit.
type wrongURL struct {
	url   string
	parts any
	err   *jsonschema.ValidationError
}

// KeywordPath implements jsonschema.ErrorKind.
func (*wrongURL) KeywordPath() []string { return []string{"x-url"} }

// LocalizedString implements jsonschema.ErrorKind.
func (w *wrongURL) LocalizedString(*message.Printer) string { return w.err.Error() }

// partsOf takes a URL apart for the schema of x-url: scheme, user, host, port, path,
// query and fragment, those that it has. A port is a number, and so is a value of the query that has
// only digits; what the query gives twice is a list.
func partsOf(s string) (map[string]any, error) {
	if s == "" {
		return nil, errors.New("must not be empty")
	}
	u, err := url.Parse(s)
	if err != nil {
		var why *url.Error
		if errors.As(err, &why) {
			err = why.Err
		}
		return nil, fmt.Errorf("is no URL: %w", err)
	}
	parts := map[string]any{}
	set := func(name, value string) {
		if value != "" {
			parts[name] = value
		}
	}
	set("scheme", u.Scheme)
	if u.Scheme == "" {
		return nil, errors.New("must begin with a scheme, such as tcp://")
	}
	if u.Opaque != "" {
		return nil, fmt.Errorf("must have // after %s:", u.Scheme)
	}
	if u.User != nil {
		parts["user"] = u.User.Username()
	}
	set("host", u.Hostname())
	if host := u.Hostname(); host != "" && !hostport.Valid(host) {
		return nil, fmt.Errorf("has a host that is neither a name nor an address, %s", text(host))
	}
	if p := u.Port(); p != "" {
		parts["port"] = digits(p)
	}
	set("path", u.Path)
	if strings.Contains(s, "#") {
		parts["fragment"] = u.Fragment
	}
	if u.RawQuery != "" {
		values, err := url.ParseQuery(u.RawQuery)
		if err != nil {
			return nil, errors.New("what follows ? must be such as baud=9600&parity=even")
		}
		query := map[string]any{}
		for name, all := range values {
			if len(all) == 1 {
				query[name] = digits(all[0])
				continue
			}
			list := make([]any, len(all))
			for i, v := range all {
				list[i] = digits(v)
			}
			query[name] = list
		}
		parts["query"] = query
	}
	return parts, nil
}

// digits makes a number of a text that has nothing else.
func digits(s string) any {
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return json.Number(strconv.FormatUint(n, 10))
	}
	return s
}

// check returns what is wrong with a duration, "" for nothing.
func (b *bounds) check(s string) string {
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		return fmt.Sprintf(`must be a duration such as "500ms", "1s" or "1h30m", got %s`, text(s))
	case (b.low == "" || d >= b.minimum) && (b.high == "" || d <= b.maximum):
		return ""
	case b.low != "" && b.high != "":
		return fmt.Sprintf("must be from %s to %s, got %s", b.low, b.high, s)
	case b.low != "":
		return fmt.Sprintf("must be at least %s, got %s", b.low, s)
	}
	return fmt.Sprintf("must be at most %s, got %s", b.high, s)
}

// checkRegexp returns what is wrong with a regular expression, "" for nothing.
func checkRegexp(s string, groups int) string {
	re, err := regexp.Compile(s)
	switch {
	case err != nil:
		return fmt.Sprintf("must be a regular expression (RE2), got %s: %s", text(s), strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	case re.NumSubexp() >= groups:
		return ""
	case groups == 1:
		return fmt.Sprintf("must have a group: put the part that is the value in parentheses, such as TEMP=([-0-9.]+); got %s", text(s))
	}
	return fmt.Sprintf("must have %d groups, in parentheses, got %s", groups, text(s))
}
