package store

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/whimbrel-edge/whimbrel/internal/pki"
)

func TestPods(t *testing.T) {
	path, key := filepath.Join(t.TempDir(), "edge.db"), pki.NewSealKey()
	open := func(key pki.SealKey) *Store {
		t.Helper()
		s, err := Open(t.Context(), path, key)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	s := open(key)
	for _, save := range [][2]string{{"b", "old"}, {"a", "first"}, {"b", "correct-horse-battery-staple"}, {"c", "gone"}} {
		if err := s.SavePod(t.Context(), "default", save[0], []byte(save[1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.DropPod(t.Context(), "default", "c"); err != nil {
		t.Fatal(err)
	}
	check := func(s *Store, want int) {
		t.Helper()
		pods, err := s.Pods(t.Context())
		if err != nil || len(pods) != want {
			t.Fatalf("%d pods, %v; want %d", len(pods), err, want)
		}
		if want == 2 && (pods[0].Name != "a" || string(pods[1].State) != "correct-horse-battery-staple") {
			t.Errorf("pods %+v", pods)
		}
	}
	check(s, 2)
	_ = s.Close()
	files, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*"))
	for _, f := range files {
		if text, err := os.ReadFile(f); err != nil || bytes.Contains(text, []byte("correct-horse")) {
			t.Errorf("%s holds it in the clear, %v", f, err)
		}
	}
	s = open(key)
	check(s, 2)
	_ = s.Close()
	check(open(pki.NewSealKey()), 0)
}
