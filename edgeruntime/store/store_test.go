package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/internal/pki"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
	"github.com/whimbrel-edge/whimbrel/twin"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(t.Context(), path, pki.SealKey{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func item(kind, name, uid string, revision uint64) *pb.Item {
	return &pb.Item{Kind: kind, Namespace: "default", Name: name, Uid: uid, Revision: revision, Json: []byte(`{"r":` + fmt.Sprint(revision) + `}`)}
}

func held(kind, name, uid string) *pb.Held {
	return &pb.Held{Kind: kind, Namespace: "default", Name: name, Uid: uid}
}

func holds(t *testing.T, s *Store, want ...string) {
	t.Helper()
	h, err := s.Held(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, h := range h {
		got = append(got, fmt.Sprintf("%s/%s/%s@%d", h.Kind, h.Name, h.Uid, h.Revision))
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("holds %v, want %v", got, want)
	}
}

func TestSync(t *testing.T) {
	path := filepath.Join(t.TempDir(), "edge.db")
	s := open(t, path)
	apply := func(sync *pb.Sync) {
		t.Helper()
		if err := s.ApplySync(t.Context(), sync); err != nil {
			t.Fatal(err)
		}
	}
	apply(&pb.Sync{Full: true, Items: []*pb.Item{item("Device", "a", "u1", 5), item("Device", "b", "u2", 6), item("Comet", "c", "u3", 7)}})
	holds(t, s, "Comet/c/u3@7", "Device/a/u1@5", "Device/b/u2@6")

	apply(&pb.Sync{Items: []*pb.Item{item("Device", "a", "u1", 9)}})
	holds(t, s, "Comet/c/u3@7", "Device/a/u1@9", "Device/b/u2@6")

	// Made anew under its name: the removal of the old one may come after.
	apply(&pb.Sync{Items: []*pb.Item{item("Device", "b", "u9", 10)}, Removed: []*pb.Held{held("Device", "b", "u2")}})
	apply(&pb.Sync{Removed: []*pb.Held{held("Device", "b", "u2")}})
	holds(t, s, "Comet/c/u3@7", "Device/a/u1@9", "Device/b/u9@10")

	// Full: what is neither kept nor sent goes, and so does another by a kept name.
	apply(&pb.Sync{Full: true, Keep: []*pb.Held{held("Device", "a", "u1"), held("Device", "b", "other")}})
	holds(t, s, "Device/a/u1@9")

	if err := s.ForgetRevisions(t.Context()); err != nil {
		t.Fatal(err)
	}
	holds(t, s, "Device/a/u1@0")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path)
	items, err := s.Items(t.Context())
	if err != nil || len(items) != 1 || string(items[0].JSON) != `{"r":9}` {
		t.Errorf("after a restart %+v, %v", items, err)
	}
}

func TestTwin(t *testing.T) {
	path := filepath.Join(t.TempDir(), "edge.db")
	s := open(t, path)
	if got, err := s.Twin(t.Context(), "none"); err != nil || got.Version != 0 {
		t.Errorf("of nobody: %+v, %v", got, err)
	}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	defs := []models.ResolvedProperty{{Name: "p", Type: models.TypeFloat, Access: models.ReadWrite, Write: models.Once, Every: time.Second}}
	tw := twin.New(defs, twin.Stored{}, now)
	tw.SetLocal(tw.NextLocal(twin.Local{Property: "p", ID: "w", Value: models.Float(1), Time: now}), now)
	tw.Due(now)
	tw.Report(0, models.Sample{Value: models.Float(2.5), Time: now}, now)
	// Either part may come first.
	if err := s.SaveObserved(t.Context(), map[string]twin.Observed{"u": tw.Observed(), "v": tw.Observed()}); err != nil {
		t.Fatal(err)
	}
	if err := s.SaveIntent(t.Context(), "u", tw.Intent()); err != nil {
		t.Fatal(err)
	}
	if err := s.DropTwin(t.Context(), "v"); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path)
	stored, err := s.Twin(t.Context(), "u")
	if err != nil {
		t.Fatal(err)
	}
	again := twin.New(defs, stored, now)
	if r := again.Reported(0); r.Value != models.Float(2.5) {
		t.Errorf("reported %+v", r)
	}
	if w, _ := again.Write(0); w.ID != "w" || !again.Unsettled(0) {
		t.Errorf("write %+v: it was sent, and that is forgotten", w)
	}
	if got, err := s.Twin(t.Context(), "v"); err != nil || got.Version != 0 {
		t.Errorf("dropped: %+v, %v", got, err)
	}
	if err := s.KeepTwins(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if got, _ := s.Twin(t.Context(), "u"); got.Version != 0 {
		t.Error("not forgotten")
	}
}

func TestManyIntentsAtOnce(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "edge.db"))
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			uid := fmt.Sprint(i)
			for v := range int64(10) {
				if err := s.SaveIntent(t.Context(), uid, twin.Intent{Cloud: twin.Desired{Version: v}}); err != nil {
					t.Error(err)
					return
				}
				if got, err := s.Twin(t.Context(), uid); err != nil || got.Cloud.Version != v {
					t.Errorf("saved version %d, found %d, %v", v, got.Cloud.Version, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestSettings(t *testing.T) {
	path := filepath.Join(t.TempDir(), "edge.db")
	s := open(t, path)
	if err := s.SetSettings(t.Context(), map[string]string{"node": "n", "hub": "h"}); err != nil {
		t.Fatal(err)
	}
	if err := s.SetSettings(t.Context(), map[string]string{"hub": "h2", "": "x"}); err == nil {
		t.Error("a setting without a name was taken")
	}
	if v, err := s.Setting(t.Context(), "hub"); err != nil || v != "h" {
		t.Errorf("hub is %q, %v: half a change was kept", v, err)
	}
	if v, err := s.Setting(t.Context(), "none"); err != nil || v != "" {
		t.Errorf("none is %q, %v", v, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestDamage(t *testing.T) {
	for name, damage := range map[string]func(text []byte) []byte{
		"no database":     func([]byte) []byte { return []byte("this is a text of more than a few bytes, and no database at all") },
		"a page of zeros": func(text []byte) []byte { clear(text[8192:12288]); return text },
		"cut off":         func(text []byte) []byte { return text[:len(text)-4096*2] },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "edge.db")
			s := open(t, path)
			sync := &pb.Sync{}
			for i := range 200 {
				sync.Items = append(sync.Items, item("Device", fmt.Sprintf("device-%d", i), "u", 1))
			}
			if err := s.ApplySync(t.Context(), sync); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, damage(text), 0o600); err != nil {
				t.Fatal(err)
			}
			s, err = Open(t.Context(), path, pki.SealKey{})
			if err == nil {
				_ = s.Close()
			}
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("opened a damaged file: %v", err)
			}
		})
	}
}
