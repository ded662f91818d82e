//go:build unix

package edgeruntime

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// lock keeps a second edge out of the data directory until the file is closed:
// two would number their records alike.
func lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the data directory: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = errors.New("another edge is using it")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock the data directory (%s): %w", path, err), f.Close())
	}
	return f, nil
}
