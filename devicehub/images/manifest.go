package images

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/whimbrel-edge/whimbrel/internal/atomicfile"
	"github.com/whimbrel-edge/whimbrel/internal/oci"
)

// manifestLink is stored of a manifest beside its bytes.
type manifestLink struct {
	MediaType string    `json:"mediaType"`
	Time      time.Time `json:"time"`
	By        string    `json:"by"`
}

// tagLink is what a tag is.
type tagLink struct {
	Digest digest.Digest `json:"digest"`
	Time   time.Time     `json:"time"`
	By     string        `json:"by"`
}

func unknownManifest(repo, ref string) error {
	sep := ":"
	if strings.Contains(ref, ":") {
		sep = "@"
	}
	return oci.Errorf(oci.CodeManifestUnknown, "the hub has no image %s%s%s", repo, sep, ref)
}

// checkRef reads what stands for a manifest: a digest, or else a tag.
func checkRef(repo, ref string) (d digest.Digest, err error) {
	if err := check(repo); err != nil {
		return "", err
	}
	if strings.Contains(ref, ":") {
		return oci.ParseDigest(ref)
	}
	if !oci.ValidTag(ref) {
		return "", oci.Errorf(oci.CodeManifestInvalid, "%.140q is no tag", ref)
	}
	return "", nil
}

// PutManifest stores a manifest under a tag or its digest. Everything that it
// names must be in the repository already.
func (s *Store) PutManifest(ctx context.Context, repo, ref, mediaType string, text []byte, by string) (digest.Digest, error) {
	want, err := checkRef(repo, ref)
	if err != nil {
		return "", err
	}
	m, err := oci.ParseManifest(mediaType, text)
	if err != nil {
		return "", err
	}
	d := digest.FromBytes(text)
	if want != "" && want != d {
		return "", oci.Errorf(oci.CodeDigestInvalid, "the manifest is %s, not %s", d, want)
	}
	s.refs.RLock()
	defer s.refs.RUnlock()
	for _, part := range m.Blobs() {
		info, err := os.Stat(s.blobPath(part.Digest))
		if err == nil {
			_, err = os.Stat(s.linkPath(repo, part.Digest))
		}
		if errors.Is(err, fs.ErrNotExist) {
			return "", oci.Errorf(oci.CodeManifestBlobUnknown, "the manifest names %s, which repository %s does not have; push it first", part.Digest, repo)
		}
		if err != nil {
			return "", fmt.Errorf("images: %w", err)
		}
		if info.Size() != part.Size {
			return "", oci.Errorf(oci.CodeManifestInvalid, "the manifest says that %s has %d bytes, it has %d", part.Digest, part.Size, info.Size())
		}
	}
	for _, part := range m.Images {
		if ok, err := exists(s.manifestPath(repo, part.Digest)); err != nil {
			return "", fmt.Errorf("images: %w", err)
		} else if !ok {
			return "", oci.Errorf(oci.CodeManifestBlobUnknown, "the index names the image %s, which repository %s does not have; push it first", part.Digest, repo)
		}
	}
	if err := s.putText(d, text); err != nil {
		return "", err
	}
	now := s.cfg.Now().UTC()
	if err := place(s.manifestPath(repo, d), manifestLink{m.MediaType, now, by}); err != nil {
		return "", err
	}
	name := repo + "@" + d.String()
	if want == "" {
		if err := place(s.repository(repo, "_tags", ref), tagLink{d, now, by}); err != nil {
			return "", err
		}
		name = repo + ":" + ref
	}
	return d, s.changed(ctx, Change{Name: name, Digest: d, By: by})
}

func (s *Store) changed(ctx context.Context, c Change) error {
	if s.cfg.Changed == nil {
		return nil
	}
	return s.cfg.Changed(ctx, c)
}

// putText keeps a manifest's bytes. s.refs is held.
func (s *Store) putText(d digest.Digest, text []byte) error {
	if err := s.take(int64(len(text))); err != nil {
		return err
	}
	f, err := os.CreateTemp(s.uploadPath(""), ".manifest-*")
	if err == nil {
		_, err = f.Write(text)
		if err == nil {
			err = f.Sync()
		}
		err = errors.Join(err, f.Close())
		if err == nil {
			err = s.keep(f.Name(), int64(len(text)), d)
		}
		if err != nil {
			_ = os.Remove(f.Name()) // it may have found its place
		}
	}
	if err != nil {
		s.used.Add(int64(-len(text)))
		return failed("images", err)
	}
	return nil
}

// Find returns what a tag or a digest stands for in a repository.
func (s *Store) Find(repo, ref string) (oci.Stored, error) {
	d, err := checkRef(repo, ref)
	if err != nil {
		return oci.Stored{}, err
	}
	s.refs.RLock()
	defer s.refs.RUnlock()
	if d == "" {
		var tag tagLink
		err := load(s.repository(repo, "_tags", ref), &tag)
		if errors.Is(err, fs.ErrNotExist) {
			return oci.Stored{}, unknownManifest(repo, ref)
		}
		if err != nil {
			return oci.Stored{}, fmt.Errorf("images: %w", err)
		}
		d = tag.Digest
	}
	m, _, err := s.manifest(repo, d)
	if errors.Is(err, fs.ErrNotExist) {
		return oci.Stored{}, unknownManifest(repo, ref)
	}
	return m, err
}

// manifest reads one by its digest. s.refs is held.
func (s *Store) manifest(repo string, d digest.Digest) (oci.Stored, manifestLink, error) {
	var link manifestLink
	if err := load(s.manifestPath(repo, d), &link); err != nil {
		return oci.Stored{}, link, err
	}
	text, err := s.read(d)
	return oci.Stored{Digest: d, MediaType: link.MediaType, Text: text}, link, err
}

// DeleteManifest removes a tag, or by its digest a manifest and all of its tags.
func (s *Store) DeleteManifest(ctx context.Context, repo, ref, by string) error {
	d, err := checkRef(repo, ref)
	if err != nil {
		return err
	}
	s.refs.RLock()
	defer s.refs.RUnlock()
	path, name := s.repository(repo, "_tags", ref), repo+":"+ref
	if d != "" {
		path, name = s.manifestPath(repo, d), repo+"@"+ref
		tags, err := s.tags(repo)
		if err != nil {
			return err
		}
		for tag, link := range tags {
			if link.Digest == d {
				if err := ignoreAbsent(os.Remove(s.repository(repo, "_tags", tag))); err != nil {
					return fmt.Errorf("images: %w", err)
				}
			}
		}
	}
	err = os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return unknownManifest(repo, ref)
	}
	if err == nil {
		err = atomicfile.SyncDir(path[:strings.LastIndexByte(path, '/')])
	}
	if err != nil {
		return fmt.Errorf("images: %w", err)
	}
	return s.changed(ctx, Change{Deleted: true, Name: name, Digest: d, By: by})
}

func (s *Store) tags(repo string) (map[string]tagLink, error) {
	all, err := names(s.repository(repo, "_tags"))
	if err != nil {
		return nil, err
	}
	out := map[string]tagLink{}
	for _, tag := range all {
		var link tagLink
		err := load(s.repository(repo, "_tags", tag), &link)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("images: %w", err)
		}
		out[tag] = link
	}
	return out, nil
}

// Tags lists a repository's tags, in order.
func (s *Store) Tags(repo string) ([]string, error) {
	if err := check(repo); err != nil {
		return nil, err
	}
	all, err := names(s.repository(repo, "_manifests"))
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, oci.Errorf(oci.CodeNameUnknown, "the hub has no repository %s", repo)
	}
	tags, err := names(s.repository(repo, "_tags"))
	slices.Sort(tags)
	return tags, err
}

// List returns all images, by repository and tag. Those of an index are left to it.
func (s *Store) List() ([]oci.Image, error) {
	repos, err := s.Repositories()
	if err != nil {
		return nil, err
	}
	var out []oci.Image
	for _, repo := range repos {
		more, err := s.list(repo)
		if err != nil {
			return nil, err
		}
		out = append(out, more...)
	}
	return out, nil
}

func (s *Store) list(repo string) (out []oci.Image, err error) {
	s.refs.RLock()
	defer s.refs.RUnlock()
	tags, err := s.tags(repo)
	if err != nil {
		return nil, err
	}
	all, err := s.manifests(repo)
	if err != nil {
		return nil, err
	}
	tagged, parts := map[digest.Digest]bool{}, map[digest.Digest]bool{}
	describe := func(d digest.Digest) oci.Image {
		i := oci.Image{Repository: repo, Digest: d}
		m, ok := all[d]
		if !ok {
			return i
		}
		i.Pushed, i.By, i.Size = m.link.Time, m.link.By, m.parsed.Size()+m.size
		if m.parsed.Config != nil {
			i.ImageID = m.parsed.Config.Digest
		}
		for _, part := range m.parsed.Images {
			parts[part.Digest] = true
			if of, ok := all[part.Digest]; ok {
				i.Size += of.parsed.Size() + of.size
			}
			if p := part.Platform; p != nil && p.OS != "unknown" {
				i.Platforms = append(i.Platforms, strings.Trim(p.OS+"/"+p.Architecture+"/"+p.Variant, "/"))
			}
		}
		return i
	}
	for tag, link := range tags {
		i := describe(link.Digest)
		i.Tag, i.Pushed, i.By = tag, link.Time, link.By
		tagged[link.Digest] = true
		out = append(out, i)
	}
	var rest []oci.Image
	for d := range all {
		if !tagged[d] {
			rest = append(rest, describe(d))
		}
	}
	for _, i := range rest {
		if !parts[i.Digest] {
			out = append(out, i)
		}
	}
	slices.SortFunc(out, func(a, b oci.Image) int {
		if a.Tag == "" != (b.Tag == "") {
			return strings.Compare(b.Tag, a.Tag) // those without a tag last
		}
		return strings.Compare(a.Tag+a.Digest.String(), b.Tag+b.Digest.String())
	})
	return out, nil
}

// kept is a manifest as it is kept.
type kept struct {
	link   manifestLink
	parsed *oci.Manifest
	size   int64
}

// manifests reads all of a repository. One whose bytes are gone is left out. s.refs
// is held.
func (s *Store) manifests(repo string) (map[digest.Digest]kept, error) {
	all, err := names(s.repository(repo, "_manifests"))
	if err != nil {
		return nil, err
	}
	out := map[digest.Digest]kept{}
	for _, hex := range all {
		d, err := oci.ParseDigest("sha256:" + hex)
		if err != nil {
			continue // nothing of ours
		}
		m, link, err := s.manifest(repo, d)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("images: manifest %s of %s: %w", d, repo, err)
		}
		parsed, err := oci.ParseManifest(m.MediaType, m.Text)
		if err != nil {
			return nil, fmt.Errorf("images: manifest %s of %s: %w", d, repo, err)
		}
		out[d] = kept{link, parsed, int64(len(m.Text))}
	}
	return out, nil
}
