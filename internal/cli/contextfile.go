package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// contextFile is context.json, in which a hub leaves how to reach it.
type contextFile struct {
	Server string `json:"server"` // URL
	Token  string `json:"token"`  // API token
	CA     string `json:"ca"`     // path of the PEM to trust; "" for the system's
}

// contextName is the file's name in a folder.
const contextName = "context.json"

// readContext reads the context file at path. A relative CA is meant from the
// file's folder. The error wraps fs.ErrNotExist where there is no file.
func readContext(path string) (contextFile, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return contextFile{}, fmt.Errorf("context: %w", err)
	}
	var c contextFile
	if err := json.Unmarshal(text, &c); err != nil {
		return contextFile{}, fmt.Errorf("context %s is not what a hub wrote: %w", path, err)
	}
	if c.CA != "" && !filepath.IsAbs(c.CA) {
		c.CA = filepath.Join(filepath.Dir(path), c.CA)
	}
	return c, nil
}
