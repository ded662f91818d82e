package schema

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/whimbrel-edge/whimbrel/models"
)

// told is what Check says, a line for each thing.
func told(errs []models.FieldError) string {
	var out []string
	for _, e := range errs {
		out = append(out, e.Pointer+": "+e.Detail)
	}
	return strings.Join(out, "\n")
}

// TestTexts: testdata/*.txt are schemas of anyone and what is said of documents
// that do not fit them.
func TestTexts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		parts := strings.Split(string(text), "\n---\n")
		s, err := Compile([]byte(parts[0]))
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		for _, p := range parts[1:] {
			doc, want, _ := strings.Cut(strings.TrimSpace(p), "\n")
			if got := told(s.Check([]byte(doc), "/spec")); got != strings.TrimSpace(want) {
				t.Errorf("%s: %s\ngot\n%s\nwant\n%s", file, doc, got, want)
			}
		}
	}
}

func TestSchemasThatAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		`{"$ref": "file:///etc/passwd"}`: "must stand alone",
		`{"maximum": 1e999999999}`:       "/maximum has a number",
		`{"type": 7}`:                    "is not a JSON Schema",
		`{"type": "objekt"}`:             "stands alone: /type: value must be one of 'array'",
		`{"description": "` + strings.Repeat("x", MaxBytes) + `"}`:                                                       "at most 262144",
		`{"properties": {"a": {"x-duration": "1s"}}}`:                                                                    "is not a JSON Schema",
		`{"properties": {"a": {"x-duration": {"min": "1s"}}}}`:                                                           "is not a JSON Schema",
		`{"properties": {"a": {"x-duration": {"minimum": "soon"}}}}`:                                                     "must be a duration such as 1s",
		`{"properties": {"a": {"x-regexp": {"groups": -1}}}}`:                                                            "is not a JSON Schema",
		`{"properties": {"a": {"x-url": 5}}}`:                                                                            "is not a JSON Schema",
		`{"properties": {"a": {"x-url": {"type": 7}}}}`:                                                                  "is not a JSON Schema",
		`{"properties": {"a": {"x-rules": []}}}`:                                                                         "/properties/a: x-rules and x-line stand at the root",
		`{"allOf": [{"x-line": {}}]}`:                                                                                    "stand at the root",
		`{"x-rules": {}}`:                                                                                                "x-rules must be a list",
		`{"x-rules": [{"rule": "true", "mesage": "x"}]}`:                                                                 "x-rules must be a list",
		`{"x-rules": [{"rule": "self.a > 1"}]}`:                                                                          "needs a message",
		`{"x-rules": [{"rule": "self.a >", "message": "m"}]}`:                                                            "x-rules/0: rule unexpected token",
		`{"x-rules": [{"rule": "self.a + 1", "message": "m"}]}`:                                                          "", // what it gives is known when it runs
		`{"x-rules": [{"rule": "payload.a > 1", "message": "m"}]}`:                                                       "unknown name payload: there are self and connection",
		`{"x-rules": [{"rule": "all(self.a, # > 1)", "message": "m"}]}`:                                                  "a loop is not allowed here",
		`{"x-rules": [{"rule": "repeat(self.a, 99999) != nil", "message": "m"}]}`:                                        "repeat is not allowed",
		`{"x-rules": [{"rule": "connection.a > 1", "message": "m"}]}`:                                                    "only the rules of property may look at the connection",
		`{"x-rules": [{"rule": "self.a > 1", "message": "m", "at": "a"}]}`:                                               "must be a JSON Pointer",
		`{"x-rules": [{"rule": "self.a > 1", "message": "m", "at": 1}]}`:                                                 "must be a JSON Pointer or a list",
		`{"x-rules": [` + strings.Repeat(`{"rule": "true", "message": "m"},`, 50) + `{"rule": "true", "message": "m"}]}`: "at most 50",
		`{"x-line": {"url": "url"}}`:                                                                                     "x-line must be",
		`{"x-line": {"url": "url", "schemes": {"a": {}}, "more": 1}}`:                                                    "x-line must be",
	} {
		_, err := Compile([]byte(text))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%.80s: %v, want %s", text, err, want)
		}
	}
}

func TestRulesThatLookAtTheConnection(t *testing.T) {
	s, err := CompileProperty([]byte(`{"x-rules": [
		{"rule": "connection.a == nil or self.address.n <= connection.a + (connection?.b ?? 0)", "message": "must be at most a", "at": "/address/n"},
		{"rule": "connection.c != true or self.address.n > 0", "message": "must be above 0 with c", "at": "/address/n", "connection": "/c"},
		{"rule": "self.address.n < 100", "message": "must be below 100", "at": "/address/n"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(s.ConnectionFields(), " "); got != "a b c" {
		t.Errorf("fields %s", got)
	}
	for _, c := range []struct{ property, connection, want string }{
		{`{"address": {"n": 3}}`, `{}`, ""},
		{`{"address": {"n": 3}}`, `{"a": 2}`, "/address/n: must be at most a, got 3 (/a)"},
		{`{"address": {"n": 3}}`, `{"a": 2, "b": 1}`, ""},
		{`{"address": {"n": 0}}`, `{"c": true}`, "/address/n: must be above 0 with c, got 0 (/c)"},
		{`{"address": {}}`, `{"a": 1}`, "the mapper's rule has no answer here"},
	} {
		got := ""
		for _, clash := range s.CheckAgainst([]byte(c.property), []byte(c.connection)) {
			got += clash.Property.Error() + " (" + clash.Connection + ")"
		}
		if got != c.want && (c.want == "" || !strings.Contains(got, c.want)) {
			t.Errorf("%s %s: %q, want %q", c.property, c.connection, got, c.want)
		}
	}
	if got := told(s.Check([]byte(`{"address": {"n": 100}}`), "/p")); got != "/p/address/n: must be below 100, got 100" {
		t.Error(got)
	}
	if _, err := CompileProperty([]byte(`{"x-rules": [{"rule": "len(connection) > 0", "message": "m"}]}`)); err == nil || !strings.Contains(err.Error(), "followed by one of its fields") {
		t.Errorf("a rule over the whole connection: %v", err)
	}
}

func TestLines(t *testing.T) {
	s, err := Compile([]byte(`{"x-line": {"url": "url", "schemes": {"rtu": {"baud": 19200, "parity": "even"}, "ascii": {"baud": 19200}}, "with": {"listen": false}}}`))
	if err != nil {
		t.Fatal(err)
	}
	line := func(text string) Line {
		t.Helper()
		l, ok := s.LineOf([]byte(text))
		if !ok {
			t.Fatalf("%s names no line", text)
		}
		return l
	}
	plain := line(`{"url": "rtu:///dev/ttyUSB0"}`)
	if plain.Path != "/dev/ttyUSB0" {
		t.Error(plain)
	}
	for text, want := range map[string]string{
		`{"url": "rtu:///dev//ttyUSB0?baud=019200&parity=even", "listen": false}`: "",
		`{"url": "rtu:///dev/ttyUSB0?baud=9600"}`:                                 "baud is 19200 here and 9600 there",
		`{"url": "rtu:///dev/ttyUSB0?baud=9600&parity=none"}`:                     "baud is 19200 here and 9600 there, parity is even here and none there",
		`{"url": "ascii:///dev/ttyUSB0"}`:                                         "scheme is rtu:// here and ascii:// there",
		`{"url": "rtu:///dev/ttyUSB0", "listen": true}`:                           "listen is false here and true there",
		`{"url": "rtu:///dev/ttyUSB0?stopBits=2"}`:                                "stopBits is not set here and 2 there",
	} {
		if other := line(text); other.Path != plain.Path || plain.Differences(other) != want {
			t.Errorf("%s: %v: %q, want %q", text, other, plain.Differences(other), want)
		}
	}
	for _, text := range []string{`{}`, `[]`, `{"url": 5}`, `{"url": "tcp://h:1/dev/ttyUSB0"}`, `{"url": "rtu://"}`, `{"url": ":"}`, ``} {
		if l, ok := s.LineOf([]byte(text)); ok {
			t.Errorf("%s names %v", text, l)
		}
	}
}

// FuzzCheck: whatever a schema and a document are, Check returns, and says
// something of what does not fit.
func FuzzCheck(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.txt")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		parts := strings.Split(string(text), "\n---\n")
		for _, p := range parts[1:] {
			doc, _, _ := strings.Cut(strings.TrimSpace(p), "\n")
			f.Add(parts[0], doc)
		}
	}
	f.Add(`{"x-rules": [{"rule": "self.a[1:] == \"\"", "message": "m"}]}`, `{"a": "é"}`)
	f.Fuzz(func(t *testing.T, schema, doc string) {
		s, err := CompileProperty([]byte(schema))
		if err != nil {
			return
		}
		for _, e := range s.Check([]byte(doc), "/x") {
			if e.Detail == "" || !strings.HasPrefix(e.Pointer, "/x") {
				t.Errorf("%s: %s: %+v", schema, doc, e)
			}
		}
		s.CheckAgainst([]byte(doc), []byte(doc))
		s.LineOf([]byte(doc))
	})
}

// TestTheGuide: the schemas that the guide shows do what it says of them.
func TestTheGuide(t *testing.T) {
	guide, err := os.ReadFile("../../docs/writing-a-driver.md")
	if err != nil {
		t.Fatal(err)
	}
	block := func(start string) []byte {
		_, rest, ok := strings.Cut(string(guide), start)
		text, _, end := strings.Cut(rest, "```")
		if !ok || !end {
			t.Fatalf("the guide has no block that begins with %q", start)
		}
		return []byte(text)
	}
	var spec struct {
		Version    string          `json:"version"`
		Connection json.RawMessage `json:"connection"`
		Property   json.RawMessage `json:"property"`
	}
	if err := models.DecodeInto(block("metadata: {name: channels}\nspec:\n"), &spec); err != nil {
		t.Fatal(err)
	}
	connection, err := Compile(spec.Connection)
	if err != nil {
		t.Fatal(err)
	}
	property, err := CompileProperty(spec.Property)
	if err != nil {
		t.Fatal(err)
	}
	if got := told(connection.Check([]byte(`{"url": "scpi://192.0.2.7:99999", "timeout": "0s"}`), "")); got != "/timeout: must be from 1ms to 1m, got 0s\n/url: the port must be from 1 to 65535, got 99999" {
		t.Error(got)
	}
	clashes := property.CheckAgainst([]byte(`{"address": {"channel": 3}}`), []byte(`{"url": "scpi://h"}`))
	if len(clashes) != 1 || clashes[0].Connection != "/channels" || clashes[0].Property.Error() != "/address/channel: must not be above the connection's channels, got 3" {
		t.Errorf("%+v", clashes)
	}
	if s, err := Compile(append([]byte(`{"x-line`), block("```json\n{\"x-line")...)); err != nil || !s.HasLines() {
		t.Errorf("x-line: %v", err)
	}
}
