//go:build !unix

package edgeruntime

import (
	"fmt"
	"os"
)

// lock is nothing where there is no flock: whoever starts two edges in one
// directory is not stopped there.
func lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the data directory: %w", err)
	}
	return f, nil
}
