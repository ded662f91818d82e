package devicehub

import (
	"bytes"
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store/sqlite"
	"github.com/whimbrel-edge/whimbrel/internal/oci"
	"github.com/whimbrel-edge/whimbrel/internal/pki"
	"github.com/whimbrel-edge/whimbrel/models"
)

// A hub that takes the place of another, and has not got its images, says where
// they were.
func TestImagesElsewhere(t *testing.T) {
	dir, key, now := t.TempDir(), pki.NewSealKey(), time.Now()
	run := func(images string, test func(h *Hub, said func() string)) {
		t.Helper()
		var log bytes.Buffer
		db, err := sqlite.Open(t.Context(), filepath.Join(dir, "hub.db"), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		h, err := New(t.Context(), Config{Store: db, Key: key, LinkAddr: "127.0.0.1:0", ImageDir: filepath.Join(dir, images), Log: slog.New(slog.NewTextHandler(&log, nil)), Now: func() time.Time { return now }})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- h.runImages(ctx) }()
		for deadline := time.Now().Add(10 * time.Second); ; { // until it has told of its folder
			_, folders, err := h.folders(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if f, ok := folders[h.images.ID()]; ok && f.Seen.Equal(now.UTC()) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("it does not tell where its images are")
			}
		}
		test(h, func() string {
			stop()
			<-ended
			return log.String()
		})
		stop()
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	}
	missing := func(h *Hub) string {
		return h.elsewhere(t.Context(), oci.Errorf(oci.CodeManifestUnknown, "the hub has no image app:1")).Error()
	}
	run("a", func(h *Hub, said func() string) {
		if got := missing(h); strings.Contains(got, "--images") || strings.Contains(said(), "--images") {
			t.Errorf("the only hub says %s", got)
		}
	})
	run("a", func(h *Hub, said func() string) {
		if got := missing(h); strings.Contains(got, "--images") || strings.Contains(said(), "--images") {
			t.Errorf("with the same folder it says %s", got)
		}
	})
	now = now.Add(time.Hour)
	run("b", func(h *Hub, said func() string) {
		got := missing(h)
		for _, want := range []string{"the hub has no image app:1; ", filepath.Join(dir, "a"), "--images", "push the image again"} {
			if !strings.Contains(got, want) {
				t.Errorf("it says %q, without %q", got, want)
			}
		}
		if err := h.elsewhere(t.Context(), models.Errorf(models.KindForbidden, "no")); err.Error() != "no" {
			t.Errorf("of something else: %v", err)
		}
		if text := said(); !strings.Contains(text, "--images") {
			t.Errorf("its log: %s", text)
		}
	})
	now = now.Add(folderLife)
	run("b", func(h *Hub, _ func() string) {
		if got := missing(h); strings.Contains(got, "--images") {
			t.Errorf("after a while it says %s", got)
		}
	})
}
