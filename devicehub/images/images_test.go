package images

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"

	"github.com/whimbrel-edge/whimbrel/internal/oci"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a folder of images with a clock of its own.
type world struct {
	*Store
	t       *testing.T
	now     time.Time
	changes []Change
}

func newWorld(t *testing.T, edit ...func(*Config)) *world {
	w := &world{t: t, now: time.Now()}
	cfg := Config{Dir: t.TempDir(), Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Now: func() time.Time { return w.now },
		Changed: func(_ context.Context, c Change) error { w.changes = append(w.changes, c); return nil }}
	for _, f := range edit {
		f(&cfg)
	}
	w.open(cfg)
	return w
}

func (w *world) open(cfg Config) {
	w.t.Helper()
	s, err := Open(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.Store = s
}

func (w *world) blob(repo string, text string) digest.Digest {
	w.t.Helper()
	d := digest.FromString(text)
	id, _, err := w.StartUpload(w.t.Context(), repo, "", "ann")
	if err == nil {
		err = w.Commit(w.t.Context(), repo, id, "ann", 0, strings.NewReader(text), d)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

// image pushes an image of these layers.
func (w *world) image(repo, tag string, layers ...string) digest.Digest {
	w.t.Helper()
	part := func(text string) string {
		return fmt.Sprintf(`{"mediaType":"x","digest":"%s","size":%d}`, w.blob(repo, text), len(text))
	}
	var parts []string
	for _, l := range layers {
		parts = append(parts, part(l))
	}
	text := `{"schemaVersion":2,"config":` + part("config of "+strings.Join(layers, "+")) + `,"layers":[` + strings.Join(parts, ",") + `]}`
	if tag == "" {
		tag = digest.FromString(text).String()
	}
	d, err := w.PutManifest(w.t.Context(), repo, tag, oci.OCIManifest, []byte(text), "ann")
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

func (w *world) code(err error, want string) {
	w.t.Helper()
	var e *oci.Error
	if !errors.As(err, &e) || e.Code != want {
		w.t.Errorf("%v, want %s", err, want)
	}
}

// has reports whether a blob is there, without asking for it.
func (w *world) has(repo, text string) bool {
	d := digest.FromString(text)
	_, err := os.Stat(w.linkPath(repo, d))
	_, err2 := os.Stat(w.blobPath(d))
	return err == nil && err2 == nil
}

func TestPushAndFind(t *testing.T) {
	w := newWorld(t)
	d := w.image("plant/app", "1", "one", "two")
	for _, ref := range []string{"1", d.String()} {
		m, err := w.Find("plant/app", ref)
		if err != nil || m.Digest != d || m.MediaType != oci.OCIManifest || digest.FromBytes(m.Text) != d {
			t.Errorf("%s: %+v %v", ref, m, err)
		}
	}
	again := w.image("plant/app", "1", "one", "two") // a push of the same
	used, _ := w.Used()
	if again != d {
		t.Errorf("%s, then %s", d, again)
	}
	w.image("plant/app", "2", "one", "three")
	if _, err := w.PutManifest(t.Context(), "plant/app", "all", oci.OCIIndex, fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[{"digest":"%s","size":1,"platform":{"os":"linux","architecture":"arm","variant":"v7"}}]}`, d), "ann"); err != nil {
		t.Error(err)
	}
	list, err := w.List()
	if err != nil || len(list) != 3 || list[0].Tag != "1" || list[0].Size == 0 || list[0].By != "ann" || list[2].Tag != "all" || list[2].Platforms[0] != "linux/arm/v7" || list[2].Size < list[0].Size {
		t.Errorf("%+v %v", list, err)
	}
	if tags, err := w.Tags("plant/app"); err != nil || strings.Join(tags, " ") != "1 2 all" {
		t.Errorf("%v %v", tags, err)
	}
	if repos, err := w.Repositories(); err != nil || strings.Join(repos, " ") != "plant/app" {
		t.Errorf("%v %v", repos, err)
	}
	if w.changes[0].Name != "plant/app:1" || w.changes[0].Digest != d || w.changes[0].By != "ann" {
		t.Errorf("%+v", w.changes)
	}
	fresh, err := Open(w.cfg) // another process
	if err != nil {
		t.Fatal(err)
	}
	if n, _ := fresh.Used(); n <= used {
		t.Errorf("%d bytes, before the second image %d", n, used)
	}
}

func TestRefusals(t *testing.T) {
	w := newWorld(t)
	d := w.image("a", "1", "layer")
	_, err := w.Find("a", "2")
	w.code(err, oci.CodeManifestUnknown)
	_, err = w.Find("../a", "1")
	w.code(err, oci.CodeNameInvalid)
	_, err = w.Find("a", "../1")
	w.code(err, oci.CodeManifestInvalid)
	_, err = w.Find("b", d.String()) // is in another repository
	w.code(err, oci.CodeManifestUnknown)
	_, err = w.OpenBlob("b", digest.FromString("layer"))
	w.code(err, oci.CodeBlobUnknown)
	_, err = w.Tags("b")
	w.code(err, oci.CodeNameUnknown)
	put := func(repo, ref, text string) error {
		_, err := w.PutManifest(t.Context(), repo, ref, oci.OCIManifest, []byte(text), "ann")
		return err
	}
	layer := digest.FromString("layer")
	w.code(put("b", "1", fmt.Sprintf(`{"schemaVersion":2,"config":{"digest":"%s","size":5}}`, layer)), oci.CodeManifestBlobUnknown)
	w.code(put("a", "1", fmt.Sprintf(`{"schemaVersion":2,"config":{"digest":"%s","size":6}}`, layer)), oci.CodeManifestInvalid)
	w.code(put("a", d.String(), fmt.Sprintf(`{"schemaVersion":2,"config":{"digest":"%s","size":5}}`, layer)), oci.CodeDigestInvalid)
	w.code(put("a", "1", "nothing"), oci.CodeManifestInvalid)
	_, err = w.PutManifest(t.Context(), "a", "1", oci.OCIIndex, fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[{"digest":"%s","size":5}]}`, layer), "ann")
	w.code(err, oci.CodeManifestBlobUnknown)
	if m, err := w.Find("a", "1"); err != nil || m.Digest != d {
		t.Errorf("the tag has moved: %v %v", m, err)
	}
	w.code(w.DeleteManifest(t.Context(), "a", "9", "ann"), oci.CodeManifestUnknown)
	w.code(w.DeleteBlob("a", d), oci.CodeUnsupported)
}

func TestUploads(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	text := strings.Repeat("0123456789", 1000)
	d := digest.FromString(text)
	id, _, err := w.StartUpload(ctx, "a", d, "ann")
	if err != nil {
		t.Fatal(err)
	}
	cut := io.MultiReader(strings.NewReader(text[:4000]), errReader{})
	if n, err := w.Append(ctx, "a", id, "ann", 0, cut); n != 4000 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("%d %v", n, err)
	}
	_, err = w.Upload(ctx, "a", id, "bob")
	w.code(err, oci.CodeBlobUploadUnknown)
	_, err = w.Upload(ctx, "b", id, "ann")
	w.code(err, oci.CodeBlobUploadUnknown)
	_, err = w.Append(ctx, "a", id, "ann", 3999, strings.NewReader("x"))
	w.code(err, oci.CodeRangeInvalid)
	w.open(w.cfg) // the hub was killed
	again, size, err := w.StartUpload(ctx, "a", d, "ann")
	if again != id || size != 4000 || err != nil {
		t.Fatalf("%s %d %v, want %s", again, size, err, id)
	}
	if other, size, err := w.StartUpload(ctx, "a", d, "bob"); err != nil || other == id || size != 0 {
		t.Errorf("bob goes on with ann's: %v", err)
	}
	if _, err := w.Append(ctx, "a", id, "ann", 4000, strings.NewReader(text[4000:9000])); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(ctx, "a", id, "ann", -1, strings.NewReader(text[9000:]), d); err != nil {
		t.Fatal(err)
	}
	b, err := w.OpenBlob("a", d)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if got, err := io.ReadAll(b); err != nil || string(got) != text {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	wrong, _, err := w.StartUpload(ctx, "a", "", "ann")
	if err != nil {
		t.Fatal(err)
	}
	w.code(w.Commit(ctx, "a", wrong, "ann", 0, strings.NewReader("x"), d), oci.CodeDigestInvalid)
	_, err = w.Upload(ctx, "a", wrong, "ann")
	w.code(err, oci.CodeBlobUploadUnknown)
	if ok, err := w.Mount("b", "a", d); !ok || err != nil || !w.has("b", text) {
		t.Errorf("mount: %v %v", ok, err)
	}
	if ok, err := w.Mount("b", "c", d); ok || err != nil {
		t.Errorf("mount from where it is not: %v %v", ok, err)
	}
	w.now = w.now.Add(uploadLife + time.Hour)
	if _, err := w.Collect(); err != nil {
		t.Error(err)
	}
	if len(w.uploads) != 0 {
		t.Errorf("uploads %v", w.uploads)
	}
	if files, _ := os.ReadDir(w.uploadPath("")); len(files) > 0 {
		t.Errorf("left: %v", files)
	}
	if n, _ := w.Used(); n != 0 { // nothing refers to the blob
		t.Errorf("%d bytes are used", n)
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestSpace(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Space = 1000 })
	id, _, err := w.StartUpload(t.Context(), "a", "", "ann")
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Append(t.Context(), "a", id, "ann", -1, io.LimitReader(zeroes{}, 2000))
	w.code(err, oci.CodeSizeInvalid)
	if !strings.Contains(err.Error(), "image prune") {
		t.Error(err)
	}
	if err := w.Cancel(t.Context(), "a", id, "ann"); err != nil {
		t.Error(err)
	}
	w.image("a", "1", "fits")
	for range maxUploads {
		if _, _, err := w.StartUpload(t.Context(), "a", "", "ann"); err != nil {
			t.Fatal(err)
		}
	}
	_, _, err = w.StartUpload(t.Context(), "a", "", "ann")
	w.code(err, oci.CodeTooManyRequests)
}

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestCorruptOnDisk(t *testing.T) {
	w := newWorld(t)
	text := strings.Repeat("layer", 50000)
	w.image("a", "1", text)
	d := digest.FromString(text)
	path := w.blobPath(d)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	raw[1234] ^= 1
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := w.OpenBlob("a", d)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if got, err := io.ReadAll(b); err == nil || len(got) >= len(text) {
		t.Errorf("it was read whole: %v", err)
	}
	if w.has("a", text) {
		t.Error("it is still there")
	}
	w.image("a", "1", text) // the push that heals
	b, err = w.OpenBlob("a", d)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, []byte(text)) {
		t.Errorf("%v", err)
	}
}

func TestCollectAndPrune(t *testing.T) {
	w := newWorld(t)
	none := func(string, digest.Digest) bool { return false }
	old := w.image("a", "1", "shared", "old")
	pinned := w.image("a", "", "pinned")
	child := w.image("a", "", "child")
	if _, err := w.PutManifest(t.Context(), "a", "multi", oci.OCIIndex, fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[{"digest":"%s","size":1}]}`, child), "ann"); err != nil {
		t.Fatal(err)
	}
	w.image("b", "1", "only b")
	w.now = w.now.Add(2 * DefaultGrace)
	w.image("a", "1", "shared", "new")
	w.blob("a", "on its way") // its manifest has not come yet
	if _, err := w.Collect(); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"shared", "old", "new", "on its way", "child", "pinned"} {
		if !w.has("a", text) {
			t.Errorf("%q is gone", text)
		}
	}
	removed, freed, err := w.Prune(t.Context(), func(_ string, d digest.Digest) bool { return d == pinned }, "ann")
	if err != nil || removed != 1 || freed == 0 {
		t.Errorf("%d %d %v", removed, freed, err)
	}
	for text, want := range map[string]bool{"shared": true, "old": false, "new": true, "on its way": true, "child": true, "pinned": true} {
		if w.has("a", text) != want {
			t.Errorf("%q: %v", text, !want)
		}
	}
	if _, err := w.Find("a", old.String()); err == nil {
		t.Error("the old manifest is there")
	}
	// Asked for, it stays for the grace, although nothing refers to it.
	w.now = w.now.Add(DefaultGrace / 2)
	if _, err := w.Stat("a", digest.FromString("on its way")); err != nil {
		t.Error(err)
	}
	w.now = w.now.Add(DefaultGrace * 3 / 4)
	if _, err := w.Collect(); err != nil || !w.has("a", "on its way") {
		t.Errorf("what is being pushed was collected: %v", err)
	}
	if err := w.DeleteManifest(t.Context(), "b", "1", "ann"); err != nil {
		t.Error(err)
	}
	w.now = w.now.Add(2 * DefaultGrace)
	if removed, _, err := w.Prune(t.Context(), none, "ann"); err != nil || removed != 2 {
		t.Errorf("%d %v", removed, err)
	}
	if _, err := os.Stat(w.repository("b")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the empty repository is there: %v", err)
	}
	if w.has("b", "only b") || w.has("a", "on its way") || !w.has("a", "new") || !w.has("a", "child") {
		t.Error("another set of blobs")
	}
	counted := w.used.Load()
	if err := w.measure(); err != nil {
		t.Fatal(err)
	}
	if there := w.used.Load(); counted != there {
		t.Errorf("counted %d, there are %d", counted, there)
	}
}

func TestResolve(t *testing.T) {
	w := newWorld(t)
	w.image("app", "1", "x")
	w.image("library/tool", "1", "x")
	w.image("ghcr.io/some/thing", "2", "x")
	hosts := func(h string) bool { return h == "hub:8080" }
	for name, want := range map[string]string{"app:1": "app", "docker.io/library/app:1": "app", "tool:1": "library/tool", "ghcr.io/some/thing:2": "ghcr.io/some/thing",
		"hub:8080/app:1": "app", "hub:8080/library/tool:1": "library/tool",
		"app:2": "", "other:8080/app:1": "", "hub:8080/nix:1": "", "some/thing:2": ""} {
		ref, err := oci.ParseReference(name)
		if err != nil {
			t.Fatal(err)
		}
		repo, _, own, err := w.Resolve(ref, hosts)
		if repo != want || (err == nil) != (want != "") || own != strings.HasPrefix(name, "hub:8080/") {
			t.Errorf("%s is in %q, %v, %v", name, repo, own, err)
		}
	}
}

// A folder that somebody has put things into is no reason to stop, or to remove
// what is in use.
func TestStrangeFiles(t *testing.T) {
	w := newWorld(t)
	d := w.image("a", "1", "x")
	for path, text := range map[string]string{w.repository("a", "_manifests", "README"): "hello", w.uploadPath("stray"): "x", w.uploadPath("bad.json"): "{"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.open(w.cfg)
	w.now = w.now.Add(3 * DefaultGrace)
	if _, err := w.Collect(); err != nil || !w.has("a", "x") {
		t.Errorf("%v", err)
	}
	if err := os.WriteFile(w.repository("a", "_tags", "1"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Find("a", "1"); err == nil {
		t.Error("a broken tag names something")
	}
	if m, err := w.Find("a", d.String()); err != nil || !json.Valid(m.Text) {
		t.Error(err)
	}
}
