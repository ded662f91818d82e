package scenario

import (
	"fmt"
	"os"
)

// Read reads a file and finds its documents, at least one.
func Read(path string) ([]Document, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("scenario: %w", err)
	}
	docs, err := Split(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(docs) == 0 {
		return nil, fmt.Errorf("scenario: %s holds no document", path)
	}
	return docs, nil
}

// As reads a document into a C, whose fields stand beside kind.
func As[C any](d Document) (C, error) {
	var doc struct {
		Kind   string `yaml:"kind"`
		Config C      `yaml:",inline"`
	}
	err := d.Decode(&doc)
	return doc.Config, err
}

// Load reads a file that holds one document, of this kind, into a C.
func Load[C any](path, kind string) (c C, err error) {
	docs, err := Read(path)
	if err != nil {
		return c, err
	}
	if len(docs) != 1 || docs[0].Kind != kind {
		return c, fmt.Errorf("scenario: %s must hold one %s, and nothing else", path, kind)
	}
	if c, err = As[C](docs[0]); err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}
