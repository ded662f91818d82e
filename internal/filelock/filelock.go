// Package filelock keeps a second process out of what a first one works on.
package filelock

import (
	"errors"
	"fmt"
	"os"
)

// ErrTaken: another process, or another part of this one, holds the lock.
var ErrTaken = errors.New("another process is using it")

// Lock takes the lock that the file at path stands for, without waiting. It is
// held until the file is closed, or the process ends in whatever way; the file
// itself stays, empty.
func Lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := lock(f); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return f, nil
}
