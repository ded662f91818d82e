// Package imagearchive reads container images out of tar files: what `docker save`
// writes, of any version, and layouts as the OCI has them. It makes of them what a
// registry takes: blobs, and manifests that name them.
package imagearchive

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/whimbrel-edge/whimbrel/internal/oci"
)

// Bounds of what an archive may have.
const (
	maxEntries  = 100_000
	maxDocument = oci.MaxManifest
	maxLinks    = 8 // from a name to its file
	maxDepth    = 4 // of indexes in one another
)

// Archive is an open one.
type Archive struct {
	f     *os.File
	temp  []string // files to remove at the end
	dir   string   // for such
	files map[string]place
	links map[string]string
}

// place is where in the archive the bytes of a file are.
type place struct{ at, size int64 }

// Image is one in an archive.
type Image struct {
	Names []string // as the archive has them; there may be none

	docker *dockerImage   // of `docker save`
	root   *v1.Descriptor // of a layout
}

// dockerImage is one in the manifest.json of `docker save`.
type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// Blob is something that a registry keeps beside manifests.
type Blob struct {
	v1.Descriptor
	Open func(from int64) (io.ReadCloser, error)
}

// Content is what is pushed of an image: blobs, then manifests, the last of which
// is the image's own.
type Content struct {
	Blobs     []Blob
	Manifests []oci.Stored
}

// Open opens an archive, "-" for stdin. One that is compressed with gzip, or comes
// from stdin, is put into a file first, below dir ("": the usual place).
func Open(name, dir string) (_ *Archive, err error) {
	a := &Archive{dir: dir, files: map[string]place{}, links: map[string]string{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.Close())
		}
	}()
	in := os.Stdin
	if name != "-" {
		if in, err = os.Open(name); err != nil {
			return nil, err
		}
		if info, err := in.Stat(); err == nil && info.IsDir() {
			return nil, errors.Join(fmt.Errorf("%s is a folder: push a tar of it, such as tar -C %s -cf - . | whimbrel image push -", name, name), in.Close())
		}
	}
	head := bufio.NewReader(in)
	magic, err := head.Peek(2)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.Join(fmt.Errorf("read %s: %w", name, err), in.Close())
	}
	if gzipped := bytes.Equal(magic, []byte{0x1f, 0x8b}); name == "-" || gzipped {
		err := a.spool(head, gzipped)
		if name != "-" {
			err = errors.Join(err, in.Close())
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
	} else {
		a.f = in
	}
	if err := a.index(); err != nil {
		return nil, fmt.Errorf("%s is no archive of images: %w", name, err)
	}
	return a, nil
}

// spool puts an archive into a file.
func (a *Archive) spool(r io.Reader, gzipped bool) error {
	if gzipped {
		z, err := gzip.NewReader(r)
		if err != nil {
			return err
		}
		r = z
	}
	var err error
	if a.f, err = a.tempFile(); err != nil {
		return err
	}
	_, err = io.Copy(a.f, r)
	return err
}

func (a *Archive) tempFile() (*os.File, error) {
	f, err := os.CreateTemp(a.dir, "whimbrel-image-*")
	if err == nil {
		a.temp = append(a.temp, f.Name())
	}
	return f, err
}

// Close closes the archive, and what Content has made of it.
func (a *Archive) Close() error {
	var errs []error
	if a.f != nil {
		errs = append(errs, a.f.Close())
	}
	for _, name := range a.temp {
		errs = append(errs, os.Remove(name))
	}
	return errors.Join(errs...)
}

// index finds where things are.
func (a *Archive) index() error {
	if _, err := a.f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	r := tar.NewReader(a.f)
	for n := 0; ; n++ {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if n == maxEntries {
			return fmt.Errorf("it has more than %d entries", maxEntries)
		}
		name := path.Clean(h.Name)
		switch h.Typeflag {
		case tar.TypeReg:
			at, err := a.f.Seek(0, io.SeekCurrent) // tar.Reader reads no further than it has to
			if err != nil {
				return err
			}
			a.files[name] = place{at, h.Size}
		case tar.TypeSymlink: // docker of old writes a layer once
			a.links[name] = path.Join(path.Dir(name), h.Linkname)
		case tar.TypeLink:
			a.links[name] = path.Clean(h.Linkname)
		}
	}
	info, err := a.f.Stat()
	if err != nil {
		return err
	}
	for name, p := range a.files {
		if p.at+p.size > info.Size() {
			return fmt.Errorf("%s is cut off", name)
		}
	}
	return nil
}

// file returns a file of the archive.
func (a *Archive) file(name string) (*io.SectionReader, error) {
	name = path.Clean(name)
	for range maxLinks {
		if p, ok := a.files[name]; ok {
			return io.NewSectionReader(a.f, p.at, p.size), nil
		}
		to, ok := a.links[name]
		if !ok {
			break
		}
		name = to
	}
	return nil, fmt.Errorf("it has no file %q", name)
}

func (a *Archive) read(name string) ([]byte, error) {
	f, err := a.file(name)
	if err != nil {
		return nil, err
	}
	if f.Size() > maxDocument {
		return nil, fmt.Errorf("%q has %d bytes, more than %d", name, f.Size(), maxDocument)
	}
	return io.ReadAll(f)
}

func (a *Archive) document(name string, v any) error {
	text, err := a.read(name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func (a *Archive) has(name string) bool {
	_, err := a.file(name)
	return err == nil
}

// Annotations that say what an image in a layout is called.
const (
	containerdName = "io.containerd.image.name"
	refName        = v1.AnnotationRefName
)

// Images lists what is in the archive.
func (a *Archive) Images() ([]Image, error) {
	var out []Image
	switch {
	case a.has("manifest.json"):
		var all []dockerImage
		if err := a.document("manifest.json", &all); err != nil {
			return nil, err
		}
		for _, d := range all {
			out = append(out, Image{Names: d.RepoTags, docker: &d})
		}
	case a.has("index.json"):
		var index v1.Index
		if err := a.document("index.json", &index); err != nil {
			return nil, err
		}
		for _, d := range index.Manifests {
			i := Image{root: &d}
			if name := d.Annotations[containerdName]; name != "" {
				i.Names = []string{name}
			} else if name := d.Annotations[refName]; strings.ContainsAny(name, ":/") { // else it is a tag only
				i.Names = []string{name}
			}
			out = append(out, i)
		}
	default:
		return nil, errors.New("the archive has neither the manifest.json of `docker save` nor the index.json of an OCI layout")
	}
	if len(out) == 0 {
		return nil, errors.New("the archive has no image")
	}
	return out, nil
}

// Content makes of an image what is to be pushed. Layers that are not compressed
// are, into files that Close removes; note is told of each.
func (a *Archive) Content(ctx context.Context, i Image, note func(layer, of int)) (*Content, error) {
	c := &Content{}
	if i.docker != nil {
		return c, a.dockerContent(ctx, c, i.docker, note)
	}
	return c, a.layoutContent(ctx, c, *i.root, 0)
}

// config is what of an image's configuration matters here.
type config struct {
	RootFS struct {
		DiffIDs []digest.Digest `json:"diff_ids"`
	} `json:"rootfs"`
}

func (a *Archive) dockerContent(ctx context.Context, c *Content, d *dockerImage, note func(layer, of int)) error {
	text, err := a.read(d.Config)
	if err != nil {
		return fmt.Errorf("the image's configuration: %w", err)
	}
	var conf config
	if err := json.Unmarshal(text, &conf); err != nil {
		return fmt.Errorf("the image's configuration: %w", err)
	}
	if len(conf.RootFS.DiffIDs) != len(d.Layers) {
		return fmt.Errorf("the image's configuration has %d layers, the archive has %d", len(conf.RootFS.DiffIDs), len(d.Layers))
	}
	manifest := v1.Manifest{MediaType: oci.DockerManifest, Config: v1.Descriptor{MediaType: oci.DockerConfig, Digest: digest.FromBytes(text), Size: int64(len(text))}, Layers: []v1.Descriptor{}}
	manifest.SchemaVersion = 2
	for n, name := range d.Layers {
		note(n+1, len(d.Layers))
		layer, err := a.layer(ctx, name, conf.RootFS.DiffIDs[n])
		if err != nil {
			return fmt.Errorf("layer %d of the image: %w", n+1, err)
		}
		manifest.Layers = append(manifest.Layers, layer.Descriptor)
		c.add(layer)
	}
	c.add(Blob{Descriptor: manifest.Config, Open: openBytes(text)})
	return c.addManifest(manifest)
}

// add adds a blob, once.
func (c *Content) add(b Blob) {
	if !slices.ContainsFunc(c.Blobs, func(o Blob) bool { return o.Digest == b.Digest }) {
		c.Blobs = append(c.Blobs, b)
	}
}

func (c *Content) addManifest(m v1.Manifest) error {
	text, err := json.MarshalIndent(m, "", "   ")
	if err == nil {
		c.Manifests = append(c.Manifests, oci.Stored{Digest: digest.FromBytes(text), MediaType: m.MediaType, Text: text})
	}
	return err
}

func openBytes(text []byte) func(int64) (io.ReadCloser, error) {
	return func(from int64) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text[from:])), nil }
}

// layer returns a layer, compressed. diffID is what it is when it is not.
func (a *Archive) layer(ctx context.Context, name string, diffID digest.Digest) (Blob, error) {
	if _, err := oci.ParseDigest(diffID.String()); err != nil {
		return Blob{}, err
	}
	in, err := a.file(name)
	if err != nil {
		return Blob{}, err
	}
	magic := make([]byte, 2)
	if n, _ := in.ReadAt(magic, 0); n == 2 && bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		return a.compressed(ctx, in, diffID)
	}
	out, err := a.tempFile()
	if err != nil {
		return Blob{}, err
	}
	size, sum := &counter{}, digest.SHA256.Digester()
	plain := digest.SHA256.Digester()
	z, err := gzip.NewWriterLevel(io.MultiWriter(out, sum.Hash(), size), gzip.DefaultCompression)
	if err == nil {
		_, err = io.Copy(io.MultiWriter(z, plain.Hash()), reader{ctx, in})
		err = errors.Join(err, z.Close())
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return Blob{}, err
	}
	if plain.Digest() != diffID {
		return Blob{}, fmt.Errorf("it is %s, and should be %s: the archive is damaged", plain.Digest(), diffID)
	}
	return Blob{v1.Descriptor{MediaType: oci.DockerLayerGzip, Digest: sum.Digest(), Size: size.n}, openFile(out.Name())}, nil
}

// compressed is a layer that is so already.
func (a *Archive) compressed(ctx context.Context, in *io.SectionReader, diffID digest.Digest) (Blob, error) {
	sum, plain := digest.SHA256.Digester(), digest.SHA256.Digester()
	z, err := gzip.NewReader(in)
	if err == nil {
		_, err = io.Copy(plain.Hash(), reader{ctx, z})
	}
	if err == nil {
		_, err = io.Copy(sum.Hash(), reader{ctx, io.NewSectionReader(in, 0, in.Size())})
	}
	if err != nil {
		return Blob{}, err
	}
	if plain.Digest() != diffID {
		return Blob{}, fmt.Errorf("it is %s, and should be %s: the archive is damaged", plain.Digest(), diffID)
	}
	return Blob{v1.Descriptor{MediaType: oci.DockerLayerGzip, Digest: sum.Digest(), Size: in.Size()}, openSection(in)}, nil
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

// reader ends with its context.
type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

func openFile(name string) func(int64) (io.ReadCloser, error) {
	return func(from int64) (io.ReadCloser, error) {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		if _, err := f.Seek(from, io.SeekStart); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		return f, nil
	}
}

func openSection(in *io.SectionReader) func(int64) (io.ReadCloser, error) {
	return func(from int64) (io.ReadCloser, error) {
		return io.NopCloser(io.NewSectionReader(in, from, in.Size()-from)), nil
	}
}

// layoutContent adds what a manifest of a layout names, and then the manifest.
func (a *Archive) layoutContent(ctx context.Context, c *Content, d v1.Descriptor, depth int) error {
	if depth == maxDepth {
		return fmt.Errorf("indexes are in one another more than %d deep", maxDepth)
	}
	text, err := a.blobText(d.Digest)
	if err != nil {
		return err
	}
	m, err := oci.ParseManifest(d.MediaType, text)
	if err != nil {
		return err
	}
	for _, part := range m.Images {
		// An image saved for one platform still names those of the others.
		if m.Index() && !a.has(blobName(part.Digest)) {
			return fmt.Errorf("the index names the image %s, which is not in the archive; save all platforms, or one with --platform", part.Digest)
		}
		if err := a.layoutContent(ctx, c, part, depth+1); err != nil {
			return err
		}
	}
	for _, part := range m.Blobs() {
		in, err := a.file(blobName(part.Digest))
		if err != nil {
			return err
		}
		sum := digest.SHA256.Digester()
		if _, err := io.Copy(sum.Hash(), reader{ctx, in}); err != nil {
			return err
		}
		if sum.Digest() != part.Digest || in.Size() != part.Size {
			return fmt.Errorf("%s is something else: the archive is damaged", part.Digest)
		}
		c.add(Blob{part, openSection(in)})
	}
	if !slices.ContainsFunc(c.Manifests, func(o oci.Stored) bool { return o.Digest == d.Digest }) {
		c.Manifests = append(c.Manifests, oci.Stored{Digest: d.Digest, MediaType: m.MediaType, Text: text})
	}
	return nil
}

func blobName(d digest.Digest) string { return "blobs/sha256/" + d.Encoded() }

func (a *Archive) blobText(d digest.Digest) ([]byte, error) {
	if _, err := oci.ParseDigest(d.String()); err != nil {
		return nil, err
	}
	text, err := a.read(blobName(d))
	if err != nil {
		return nil, err
	}
	if digest.FromBytes(text) != d {
		return nil, fmt.Errorf("%s is something else: the archive is damaged", d)
	}
	return text, nil
}
