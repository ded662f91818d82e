// Package scenario reads files that describe simulators: YAML documents
// separated by ---, each with a kind, and runs what is made of them in tests. It
// knows the documents, not the kinds: packages of simulators decode their own.
// Only simulators import it.
package scenario

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Document is one document of a file.
type Document struct {
	Kind string
	// data is the document's text behind as many empty lines as stand before it
	// in the file, so that the decoder's line numbers are the file's.
	data []byte
}

// Split finds the documents in a file. Documents that hold nothing but comments
// are left out.
func Split(data []byte) ([]Document, error) {
	var docs []Document
	line, first := 0, 0
	var text strings.Builder
	flush := func() error {
		padded := append(bytes.Repeat([]byte("\n"), first), text.String()...)
		text.Reset()
		var head struct {
			Kind string `yaml:"kind"`
		}
		err := yaml.Unmarshal(padded, &head)
		var te *yaml.TypeError
		switch {
		case errors.As(err, &te):
			return plain(err)
		case err != nil:
			return fmt.Errorf("scenario: %w", err)
		}
		var content yaml.Node
		if err := yaml.Unmarshal(padded, &content); err != nil {
			return fmt.Errorf("scenario: %w", err)
		}
		if content.IsZero() {
			return nil
		}
		if head.Kind == "" {
			return fmt.Errorf("scenario: the document at line %d has no kind", first+1)
		}
		docs = append(docs, Document{Kind: head.Kind, data: padded})
		return nil
	}
	for l := range strings.Lines(string(data)) {
		line++
		// At the beginning of a line --- always ends a document, even inside a
		// text block.
		if rest, ok := strings.CutPrefix(l, "---"); ok && strings.TrimSpace(rest) == "" {
			if err := flush(); err != nil {
				return nil, err
			}
			first = line
			continue
		}
		text.WriteString(l)
	}
	if err := flush(); err != nil {
		return nil, err
	}
	return docs, nil
}

// Decode reads a document into a struct with a field for kind. A field that
// the struct does not have is refused with its line.
func (d Document) Decode(into any) error {
	dec := yaml.NewDecoder(bytes.NewReader(d.data))
	dec.KnownFields(true)
	if err := dec.Decode(into); err != nil && err != io.EOF {
		return plain(err)
	}
	return nil
}

var goTypes = regexp.MustCompile(`field (\S+) not found in type \S+`)

// plain says what is wrong in the file's words, not in Go's.
func plain(err error) error {
	var te *yaml.TypeError
	if !errors.As(err, &te) {
		return fmt.Errorf("scenario: %w", err)
	}
	lines := make([]string, len(te.Errors))
	for i, l := range te.Errors {
		lines[i] = goTypes.ReplaceAllString(l, "unknown field $1")
	}
	return fmt.Errorf("scenario: %s", strings.Join(lines, "; "))
}
