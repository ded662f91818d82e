package store

import (
	"bytes"
	"encoding/base64"
	"os"
	"path/filepath"
	"testing"

	"github.com/whimbrel-edge/whimbrel/internal/pki"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

func TestSecretsAreSealed(t *testing.T) {
	const marker = "correct-horse-battery-staple"
	dir := t.TempDir()
	path := filepath.Join(dir, "edge.db")
	line := func(b byte) string { return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{b}, 32)) + "\n" }
	with := func(keys string) *Store {
		t.Helper()
		key, err := pki.ParseSealKey([]byte(keys))
		if err != nil {
			t.Fatal(err)
		}
		s, err := Open(t.Context(), path, key)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	secret := func(s *Store) string {
		t.Helper()
		items, err := s.Items(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range items {
			if i.Kind == KindSecret {
				return string(i.JSON)
			}
		}
		return ""
	}
	body := `{"data":{"password":"` + marker + `"}}`
	s := with(line(1))
	if err := s.ApplySync(t.Context(), &pb.Sync{Full: true, Items: []*pb.Item{
		{Kind: KindSecret, Namespace: "default", Name: "plc", Uid: "u1", Revision: 3, Json: []byte(body)}, item(KindDevice, "a", "u2", 4)}}); err != nil {
		t.Fatal(err)
	}
	if got := secret(s); got != body {
		t.Errorf("holds %q", got)
	}
	holds(t, s, "Device/a/u2@4", "Secret/plc/u1@3")
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	for _, f := range files { // the write-ahead log, too
		if text, err := os.ReadFile(f); err != nil || bytes.Contains(text, []byte(marker)) {
			t.Errorf("%s holds the secret in the clear, %v", f, err)
		}
	}
	_ = s.Close()
	// A new first key takes over.
	s = with(line(2) + line(1))
	if got := secret(s); got != body {
		t.Errorf("with both keys holds %q", got)
	}
	_ = s.Close()
	s = with(line(2))
	if got := secret(s); got != body {
		t.Errorf("with the new key holds %q", got)
	}
	_ = s.Close()
	// With another key it is as if it were not there: the hub sends it again.
	s = with(line(3))
	if got := secret(s); got != "" {
		t.Errorf("with another key holds %q", got)
	}
	holds(t, s, "Device/a/u2@4")
}
