package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/whimbrel-edge/whimbrel/models"
)

// applyOrder is the order in which kinds are applied: what others refer to comes
// first. Deleting goes the other way.
var applyOrder = []string{"Mapper", "Node", "User", "DeviceModel", "Device", "ConfigMap", "Service", "Deployment", "DaemonSet", "StatefulSet", "Route"}

// files is the flags -f and -R.
type files struct {
	names     []string
	recursive bool
}

func (f *files) addFlags(cmd *cobra.Command, what string) {
	cmd.Flags().StringArrayVarP(&f.names, "filename", "f", nil, what+": a file, a folder of .yaml, .yml and .json files, or - for standard input")
	cmd.Flags().BoolVarP(&f.recursive, "recursive", "R", false, "also the folders inside a folder")
	_ = cmd.MarkFlagFilename("filename", "yaml", "yml", "json") // fails for unknown flags only
}

// entry is one object of a file, or what is wrong with it.
type entry struct {
	from   string // the file, for messages
	object models.Object
	err    error
}

// read returns the objects of all files in the order in which they are to be
// applied; those that cannot be read come first. An object that names no
// namespace gets that of the connection; where a person gave it, objects of
// another one are refused.
func (f *files) read(stdin io.Reader, conn *connection) ([]entry, error) {
	var entries []entry
	for _, name := range f.names {
		paths, err := f.expand(name)
		if err != nil {
			return nil, err
		}
		for _, path := range paths {
			more, err := readFile(path, stdin, conn)
			if err != nil {
				return nil, err
			}
			entries = append(entries, more...)
		}
	}
	if len(entries) == 0 {
		return nil, fmt.Errorf("there are no objects in %s: nothing but blanks and comments, or no .yaml, .yml or .json file in a folder (-R looks in folders inside, too)", strings.Join(f.names, ", "))
	}
	slices.SortStableFunc(entries, func(a, b entry) int { return rank(a) - rank(b) })
	return entries, nil
}

func rank(e entry) int {
	if e.err != nil {
		return -1
	}
	return slices.Index(applyOrder, e.object.Type().Kind)
}

// expand lists the files that name means.
func (f *files) expand(name string) ([]string, error) {
	if name == "-" {
		return []string{name}, nil
	}
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{name}, nil
	}
	var paths []string
	err = filepath.WalkDir(name, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != name && !f.recursive:
			return fs.SkipDir
		case !d.IsDir() && slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(path)):
			paths = append(paths, path)
		}
		return nil
	})
	return paths, err
}

func readFile(path string, stdin io.Reader, conn *connection) ([]entry, error) {
	var text []byte
	var err error
	if path == "-" {
		path = "standard input"
		text, err = io.ReadAll(stdin)
	} else {
		text, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, err
	}
	var entries []entry
	for _, doc := range split(text) {
		o, err := decode(doc, conn)
		if err != nil {
			err = fmt.Errorf("%s: %w", path, err)
		}
		entries = append(entries, entry{from: path, object: o, err: err})
	}
	number(entries)
	return entries, nil
}

// number tells which of several objects of a file is wrong.
func number(entries []entry) {
	if len(entries) < 2 {
		return
	}
	for i := range entries {
		if err := entries[i].err; err != nil {
			entries[i].err = fmt.Errorf("object %d of %w", i+1, err)
		}
	}
}

func decode(doc []byte, conn *connection) (models.Object, error) {
	o, err := models.DecodeObject(doc)
	if err != nil {
		return nil, named(doc, err)
	}
	info, _ := models.KindByName(o.Type().Kind)
	if !info.Namespaced {
		return o, nil
	}
	var head documentHead
	_ = yaml.Unmarshal(doc, &head) // it was decoded above already
	switch meta := o.Meta(); {
	case head.Metadata.Namespace == "":
		meta.Namespace = conn.namespace
	case conn.explicit() && meta.Namespace != conn.namespace:
		return nil, named(doc, models.Invalid("/metadata/namespace", "is %s, but --namespace is %s", meta.Namespace, conn.namespace))
	}
	return o, nil
}

// documentHead is what a document says of itself.
type documentHead struct {
	Kind     string `yaml:"kind"`
	Metadata struct {
		Name      string `yaml:"name"`
		Namespace string `yaml:"namespace"`
	} `yaml:"metadata"`
	Items yaml.Node `yaml:"items"`
}

// named says which object an error is about, as far as the document does.
func named(doc []byte, err error) error {
	var head documentHead
	if yaml.Unmarshal(doc, &head) != nil || head.Kind == "" || head.Metadata.Name == "" {
		return err
	}
	return fmt.Errorf("%s/%s: %w", strings.ToLower(head.Kind), head.Metadata.Name, err)
}

// split finds the documents in a YAML stream or in JSON texts one after the
// other, and the items in lists. Documents that hold nothing are left out. In a
// document's text lines have the numbers that they have in the file.
func split(text []byte) (docs [][]byte) {
	for _, doc := range documents(text) {
		items, ok := listItems(doc)
		if !ok {
			items = [][]byte{doc}
		}
		docs = append(docs, items...)
	}
	return docs
}

func documents(text []byte) (docs [][]byte) {
	if trimmed := bytes.TrimSpace(text); len(trimmed) > 0 && trimmed[0] == '{' {
		dec := json.NewDecoder(bytes.NewReader(trimmed))
		for {
			var raw json.RawMessage
			if err := dec.Decode(&raw); err == io.EOF {
				return docs
			} else if err != nil {
				break // flow-style YAML, or broken: models says which
			}
			docs = append(docs, raw)
		}
		docs = nil
	}
	var doc []byte
	lines := 0
	flush := func(next []byte) {
		var node yaml.Node
		if err := yaml.Unmarshal(doc, &node); err != nil || !node.IsZero() {
			docs = append(docs, doc)
		}
		doc = append(bytes.Repeat([]byte("\n"), lines), next...)
	}
	for l := range bytes.Lines(text) {
		rest, marks := bytes.CutPrefix(l, []byte("---"))
		if marks && (len(rest) == 0 || bytes.ContainsRune([]byte(" \t\r\n"), rune(rest[0]))) {
			flush(append([]byte("   "), rest...))
		} else {
			doc = append(doc, l...)
		}
		lines++
	}
	flush(nil)
	return docs
}

// listItems returns the items of a document that is a list of objects.
func listItems(doc []byte) (items [][]byte, ok bool) {
	var head documentHead
	if err := yaml.Unmarshal(doc, &head); err != nil || !strings.HasSuffix(head.Kind, "List") || head.Items.Kind != yaml.SequenceNode {
		return nil, false
	}
	for _, n := range head.Items.Content {
		text, err := yaml.Marshal(n)
		if err != nil {
			return nil, false
		}
		items = append(items, text)
	}
	return items, true
}

// given reports whether there was a -f.
func (f *files) given() bool { return len(f.names) > 0 }
