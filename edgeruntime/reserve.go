package edgeruntime

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// A full disk must not keep an edge from starting: without it nobody polls, and
// nobody holds what is to be held. So there is a file that holds some space for
// starts, of which each that needs it gives a piece back to the disk. Once a start
// finds plenty of space the file is whole again.
const (
	reserveName  = "reserve"
	reserveBytes = 4 << 20
	reservePiece = 256 << 10 // of one start: what SQLite needs to open the edge's files and to note the start
	// reserveFrom is how much has to be free for the file to be made: it is not to be what
	// fills a small disk.
	reserveFrom = 8 * reserveBytes
)

// useReserve gives a piece of the reserve in dir back to the disk. It reports whether
// there was one.
func useReserve(dir string) bool {
	path := filepath.Join(dir, reserveName)
	info, err := os.Stat(path)
	if err != nil || info.Size() == 0 {
		return false
	}
	return os.Truncate(path, max(info.Size()-reservePiece, 0)) == nil
}

// keepReserve makes the reserve in dir whole, if there is plenty of space.
func keepReserve(dir string) (err error) {
	path := filepath.Join(dir, reserveName)
	if info, err := os.Stat(path); err == nil && info.Size() >= reserveBytes {
		return nil
	}
	if free, err := freeBytes(dir); err != nil || free < reserveFrom {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("space for starts: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	// Written, because a hole takes no space; and not with zeros, which some file
	// systems do not store.
	block := make([]byte, 64<<10)
	for i := range block {
		block[i] = byte(i*7 + i>>8)
	}
	for n := 0; n < reserveBytes; n += len(block) {
		if _, err := f.Write(block); err != nil {
			return fmt.Errorf("space for starts: %w", err)
		}
	}
	return f.Sync()
}
