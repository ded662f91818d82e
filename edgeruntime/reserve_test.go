package edgeruntime

import (
	"os"
	"path/filepath"
	"testing"
)

func TestReserve(t *testing.T) {
	dir := t.TempDir()
	if useReserve(dir) {
		t.Error("there was a reserve before it was made")
	}
	if free, err := freeBytes(dir); err != nil || free < reserveFrom {
		t.Skipf("%d bytes are free here: %v", free, err)
	}
	size := func() int64 {
		t.Helper()
		info, err := os.Stat(filepath.Join(dir, reserveName))
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	for range 2 {
		if err := keepReserve(dir); err != nil || size() != reserveBytes {
			t.Fatalf("%d bytes, %v", size(), err)
		}
		uses := 0
		for useReserve(dir) {
			uses++
		}
		if uses != reserveBytes/reservePiece || size() != 0 {
			t.Errorf("it was good for %d starts, %d bytes are left", uses, size())
		}
	}
}
