package imagearchive

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/whimbrel-edge/whimbrel/internal/oci"
)

// file is an entry of an archive under test.
type file struct{ name, text, link string }

func tarOf(t testing.TB, files ...file) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.text)), Typeflag: tar.TypeReg}
		if f.link != "" {
			h.Typeflag, h.Linkname = tar.TypeSymlink, f.link
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func gz(text string) string {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = io.WriteString(w, text) // never fails
	_ = w.Close()
	return out.String()
}

func open(t testing.TB, archive []byte) (*Archive, error) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "image.tar")
	if err := os.WriteFile(name, archive, 0o600); err != nil {
		t.Fatal(err)
	}
	temp := t.TempDir()
	a, err := Open(name, temp)
	t.Cleanup(func() {
		if a != nil {
			if err := a.Close(); err != nil {
				t.Error(err)
			}
		}
		if left, _ := os.ReadDir(temp); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	})
	return a, err
}

func configOf(layers ...string) string {
	var ids []string
	for _, l := range layers {
		ids = append(ids, `"`+digest.FromString(l).String()+`"`)
	}
	return `{"rootfs":{"type":"layers","diff_ids":[` + strings.Join(ids, ",") + `]}}`
}

func content(t testing.TB, archive []byte) (*Content, []Image, error) {
	t.Helper()
	a, err := open(t, archive)
	if err != nil {
		return nil, nil, err
	}
	return check(t, a)
}

// check reads the first image of an archive, and that all of it is what it is said to be.
func check(t testing.TB, a *Archive) (*Content, []Image, error) {
	t.Helper()
	images, err := a.Images()
	if err != nil {
		return nil, nil, err
	}
	c, err := a.Content(t.Context(), images[0], func(int, int) {})
	if err != nil {
		return nil, images, err
	}
	for _, b := range c.Blobs {
		for _, from := range []int64{0, b.Size / 2} {
			r, err := b.Open(from)
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(r)
			if err = errors.Join(err, r.Close()); err != nil || int64(len(text)) != b.Size-from || from == 0 && digest.FromBytes(text) != b.Digest {
				t.Errorf("blob %s from %d: %d bytes, %v", b.Digest, from, len(text), err)
			}
		}
	}
	for _, m := range c.Manifests {
		if _, err := oci.ParseManifest(m.MediaType, m.Text); err != nil || digest.FromBytes(m.Text) != m.Digest {
			t.Errorf("manifest %s: %v", m.Text, err)
		}
	}
	return c, images, nil
}

func TestDockerSave(t *testing.T) {
	one, two := strings.Repeat("layer one ", 1000), "layer two"
	archive := tarOf(t,
		file{name: "conf.json", text: configOf(one, two, one)},
		file{name: "a/layer.tar", text: one}, file{name: "b/layer.tar", text: gz(two)}, file{name: "c/layer.tar", link: "../a/layer.tar"},
		file{name: "manifest.json", text: `[{"Config":"conf.json","RepoTags":["x/app:1","app:latest"],"Layers":["a/layer.tar","b/layer.tar","c/layer.tar"]}]`})
	c, images, err := content(t, archive)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(images[0].Names, " ") != "x/app:1 app:latest" || len(c.Blobs) != 3 || len(c.Manifests) != 1 {
		t.Errorf("%+v %+v", images, c)
	}
	m, err := oci.ParseManifest(c.Manifests[0].MediaType, c.Manifests[0].Text)
	if err != nil || len(m.Layers) != 3 || m.Layers[0].Digest != m.Layers[2].Digest || m.Layers[0].Size >= int64(len(one)) || m.Layers[1].Size != int64(len(gz(two))) {
		t.Errorf("%+v %v", m, err)
	}
	again, _, err := content(t, []byte(gz(string(archive)))) // docker save | gzip
	if err != nil || again.Manifests[0].Digest != c.Manifests[0].Digest {
		t.Errorf("the same archive is another image: %v", err)
	}
}

func TestLayout(t *testing.T) {
	blob := func(text string) (file, string) {
		d := digest.FromString(text)
		return file{name: blobName(d), text: text}, fmt.Sprintf(`"digest":"%s","size":%d`, d, len(text))
	}
	layer, layerAt := blob(gz("layer"))
	conf, confAt := blob(configOf("layer"))
	manifest, manifestAt := blob(`{"schemaVersion":2,"config":{"mediaType":"x",` + confAt + `},"layers":[{"mediaType":"y",` + layerAt + `}]}`)
	multi, multiAt := blob(`{"schemaVersion":2,"mediaType":"` + oci.OCIIndex + `","manifests":[{"mediaType":"` + oci.OCIManifest + `",` + manifestAt + `,"platform":{"os":"linux","architecture":"amd64"}}]}`)
	index := func(mediaType, at, annotations string) file {
		return file{name: "./index.json", text: `{"schemaVersion":2,"manifests":[{"mediaType":"` + mediaType + `",` + at + `,"annotations":{` + annotations + `}}]}`}
	}
	mark := file{name: "oci-layout", text: `{"imageLayoutVersion":"1.0.0"}`}
	c, images, err := content(t, tarOf(t, mark, layer, conf, manifest, index(oci.OCIManifest, manifestAt, `"org.opencontainers.image.ref.name":"v1"`)))
	if err != nil || len(images[0].Names) != 0 || len(c.Blobs) != 2 || len(c.Manifests) != 1 {
		t.Errorf("%+v %+v %v", images, c, err)
	}
	c, images, err = content(t, tarOf(t, mark, layer, conf, manifest, multi, index(oci.OCIIndex, multiAt, `"io.containerd.image.name":"docker.io/x/app:1"`)))
	if err != nil || images[0].Names[0] != "docker.io/x/app:1" || len(c.Manifests) != 2 || c.Manifests[1].MediaType != oci.OCIIndex {
		t.Errorf("%+v %+v %v", images, c, err)
	}
	bad := layer
	bad.text = "X" + bad.text[1:]
	for what, files := range map[string][]file{
		"damaged":            {mark, bad, conf, manifest, index(oci.OCIManifest, manifestAt, "")},
		"no file":            {mark, conf, manifest, index(oci.OCIManifest, manifestAt, "")},
		"not in the archive": {mark, layer, conf, multi, index(oci.OCIIndex, multiAt, "")},
	} {
		if _, _, err := content(t, tarOf(t, files...)); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestNoImages(t *testing.T) {
	long := make([]dockerImage, 0)
	text, _ := json.Marshal(long)
	layered := func(config, layers string) []file {
		return []file{{name: "c", text: config}, {name: "l", text: "layer"}, {name: "manifest.json", text: `[{"Config":"c","Layers":[` + layers + `]}]`}}
	}
	for what, archive := range map[string][]byte{
		"neither the manifest.json": tarOf(t, file{name: "x", text: "y"}),
		"has no image":              tarOf(t, file{name: "manifest.json", text: string(text)}),
		"manifest.json:":            tarOf(t, file{name: "manifest.json", text: `{`}),
		"no archive of images":      []byte("hello, this is no tar file, but it is long enough to have a header of 512 bytes" + strings.Repeat(".", 1000)),
		"has no file":               tarOf(t, file{name: "manifest.json", text: `[{"Config":"../../etc/passwd","Layers":[]}]`}),
		"archive is damaged":        tarOf(t, layered(configOf("another"), `"l"`)...),
		"has 1 layers":              tarOf(t, layered(configOf("layer"), ``)...),
		"is cut off":                tarOf(t, layered(configOf("layer"), `"l"`)...)[:600],
		"no file \"a\"":             tarOf(t, file{name: "a", link: "b"}, file{name: "b", link: "a"}, file{name: "manifest.json", text: `[{"Config":"a","Layers":[]}]`}),
	} {
		if _, _, err := content(t, archive); err == nil || !strings.Contains(err.Error(), what) && what != "is cut off" {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := Open(t.TempDir(), ""); err == nil || !strings.Contains(err.Error(), "is a folder") {
		t.Error(err)
	}
	a, err := open(t, tarOf(t, layered(configOf("layer"), `"l"`)...))
	if err != nil {
		t.Fatal(err)
	}
	images, err := a.Images()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.Content(ctx, images[0], func(int, int) {}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// FuzzArchive mutates the bytes of archives, and, where there are none, what is in
// the files of one: a tar's checksums keep almost all else from being read.
func FuzzArchive(f *testing.F) {
	layer, config := "layer", configOf("layer")
	manifest := `{"schemaVersion":2,"config":{"digest":"` + digest.FromString(config).String() + `","size":` + fmt.Sprint(len(config)) + `},"layers":[]}`
	d := digest.FromString(manifest)
	f.Add([]byte{}, "c", config, "l", layer, `[{"Config":"c","Layers":["l"]}]`, "")
	f.Add([]byte{}, "c", config, "l", gz(layer), `[{"Config":"c","RepoTags":["a:1"],"Layers":["l"]}]`, "")
	f.Add([]byte{}, blobName(d), manifest, blobName(digest.FromString(config)), config, "", `{"schemaVersion":2,"manifests":[{"mediaType":"`+oci.OCIManifest+`","digest":"`+d.String()+`","size":`+fmt.Sprint(len(manifest))+`}]}`)
	f.Add([]byte(gz("x")), "", "", "", "", "", "")
	f.Add(tarOf(f, file{name: "index.json", text: `{"schemaVersion":2,"manifests":[{"mediaType":"x","digest":"sha256:00","size":1}]}`}), "", "", "", "", "", "")
	dir := f.TempDir() // folders for each run took most of the time
	f.Fuzz(func(t *testing.T, archive []byte, name, text, otherName, otherText, manifest, index string) {
		if len(archive) == 0 {
			var out bytes.Buffer
			w := tar.NewWriter(&out)
			for _, e := range []file{{name: name, text: text}, {name: otherName, text: otherText}, {name: "manifest.json", text: manifest}, {name: "index.json", text: index}} {
				if e.text == "" {
					continue
				}
				if err := w.WriteHeader(&tar.Header{Name: e.name, Mode: 0o644, Size: int64(len(e.text)), Typeflag: tar.TypeReg}); err != nil {
					return // a name that tar cannot have
				}
				_, _ = io.WriteString(w, e.text) // into memory
			}
			_ = w.Close() // what was begun is whole
			archive = out.Bytes()
		}
		path := filepath.Join(dir, fmt.Sprint(os.Getpid()))
		if err := os.WriteFile(path, archive, 0o600); err != nil {
			t.Fatal(err)
		}
		a, err := Open(path, dir)
		if err != nil {
			return
		}
		defer func() {
			if err := a.Close(); err != nil {
				t.Error(err)
			}
		}()
		check(t, a)
	})
}
