package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/whimbrel-edge/whimbrel/models"
)

// output is the flag -o.
type output struct {
	format  string
	formats []string // "" is the default one
}

func (o *output) addFlag(cmd *cobra.Command, formats ...string) {
	o.formats = formats
	cmd.Flags().StringVarP(&o.format, "output", "o", "", "how to print: "+strings.Join(formats, ", "))
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp)) // fails for unknown flags only
}

func (o *output) check() error {
	if o.format == "" || slices.Contains(o.formats, o.format) {
		return nil
	}
	return Usagef("--output must be one of %s, got %q", strings.Join(o.formats, ", "), o.format)
}

// document reports whether objects are to be printed whole, not as a table.
func (o *output) document() bool { return o.format == "json" || o.format == "yaml" }

// print writes v as the document that the flag asks for.
func (o *output) print(w io.Writer, v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	text := b.Bytes()
	if o.format == "yaml" {
		var err error
		if text, err = toYAML(text); err != nil {
			return fmt.Errorf("encode: %w", err)
		}
	}
	_, err := w.Write(text)
	return err
}

// line writes v as JSON on a line of its own.
func line(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// toYAML turns JSON into YAML in the same order; numbers keep their digits.
func toYAML(text []byte) ([]byte, error) {
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil {
		return nil, err
	}
	blockStyle(&root)
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(&root); err != nil {
		return nil, err
	}
	return b.Bytes(), e.Close()
}

// blockStyle takes the braces and quotes of JSON away where YAML does without.
func blockStyle(n *yaml.Node) {
	if n.Style&yaml.DoubleQuotedStyle != 0 {
		n.Tag = "!!str" // stays a string where the plain text would read as something else
	}
	n.Style = 0
	if n.Kind != yaml.ScalarNode && len(n.Content) == 0 {
		n.Style = yaml.FlowStyle // {} and []
	}
	for _, c := range n.Content {
		blockStyle(c)
	}
}

// listDocument is how objects of one kind, or of several, are printed together.
type listDocument struct {
	Kind     string       `json:"kind"`
	Metadata listMetadata `json:"metadata"`
	Items    any          `json:"items"`
}

type listMetadata struct {
	ResourceVersion string `json:"resourceVersion,omitempty"`
	Continue        string `json:"continue"`
}

// logDocument is how events and the audit are printed: each item in full, [] for none.
func logDocument[T any](kind, resourceVersion string, items []T) listDocument {
	return listDocument{Kind: kind, Metadata: listMetadata{ResourceVersion: resourceVersion}, Items: append([]T{}, items...)}
}

// short is how an object is called in a line: its kind and name.
func short(key models.Key) string { return strings.ToLower(key.Kind) + "/" + key.Name }

// where is short, and the namespace where the object has one.
func where(key models.Key) string {
	if key.Namespace == "" {
		return short(key)
	}
	return short(key) + " in " + key.Namespace + " namespace"
}
