//go:build unix

package filelock

import (
	"errors"
	"path/filepath"
	"testing"
)

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(path); !errors.Is(err, ErrTaken) {
		t.Errorf("a second lock: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Lock(path)
	if err != nil {
		t.Fatalf("after the first is closed: %v", err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
	if _, err := Lock(filepath.Join(t.TempDir(), "none", "lock")); err == nil {
		t.Error("a lock in no directory")
	}
}
