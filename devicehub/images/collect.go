package images

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/whimbrel-edge/whimbrel/internal/oci"
)

// Collect removes blobs that no manifest names, and uploads that have expired, and
// returns how many bytes were freed. While it looks, nobody can make a reference.
func (s *Store) Collect() (freed int64, err error) {
	now := s.cfg.Now()
	freed = s.expire(now)
	s.refs.Lock()
	defer s.refs.Unlock()
	needed := map[digest.Digest]bool{}
	err = s.eachRepository(func(repo string) error {
		own, err := s.collectRepository(repo, now)
		for d := range own {
			needed[d] = true
		}
		return err
	})
	if err != nil { // what cannot be read may name anything
		return freed, err
	}
	n, err := s.sweep(filepath.Join(s.cfg.Dir, "blobs", "sha256"), func(hex string) bool { return needed[digest.NewDigestFromEncoded(digest.SHA256, hex)] }, now)
	freed += n
	if err != nil {
		return freed, err
	}
	// Others may share the folder: what they have brought or removed counts, too.
	return freed, s.measure()
}

// collectRepository returns what a repository's manifests need, takes from it the
// blobs that they do not, and the whole of it when it is empty.
func (s *Store) collectRepository(repo string, now time.Time) (needed map[digest.Digest]bool, err error) {
	all, err := s.manifests(repo)
	if err != nil {
		return nil, err
	}
	needed = map[digest.Digest]bool{}
	for d, m := range all {
		needed[d] = true
		for _, part := range m.parsed.Blobs() {
			needed[part.Digest] = true
		}
	}
	if _, err := s.sweep(s.repository(repo, "_blobs"), func(hex string) bool { return needed[digest.NewDigestFromEncoded(digest.SHA256, hex)] }, now); err != nil {
		return nil, err
	}
	for _, dir := range []string{"_blobs", "_manifests", "_tags", ""} {
		_ = os.Remove(s.repository(repo, dir)) // stays unless it is empty
	}
	return needed, nil
}

// sweep removes the files below dir that are not needed and have been there for
// the grace.
func (s *Store) sweep(dir string, needed func(name string) bool, now time.Time) (freed int64, err error) {
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return ignoreAbsent(err)
		}
		if e.IsDir() || needed(e.Name()) {
			return nil
		}
		info, err := e.Info()
		if err != nil || now.Sub(info.ModTime()) < s.cfg.Grace {
			return ignoreAbsent(err)
		}
		freed += info.Size()
		return ignoreAbsent(os.Remove(path))
	})
	if err != nil {
		return freed, fmt.Errorf("images: %w", err)
	}
	return freed, nil
}

// Prune removes the manifests that have no tag, are in no index that has, are not
// in use, and came longer ago than the grace; and then what nothing refers to any
// more.
func (s *Store) Prune(ctx context.Context, inUse func(repo string, d digest.Digest) bool, by string) (removed int, freed int64, err error) {
	repos, err := s.Repositories()
	if err != nil {
		return 0, 0, err
	}
	for _, repo := range repos {
		n, err := s.prune(ctx, repo, inUse, by)
		removed += n
		if err != nil {
			return removed, 0, err
		}
	}
	freed, err = s.Collect()
	return removed, freed, err
}

func (s *Store) prune(ctx context.Context, repo string, inUse func(string, digest.Digest) bool, by string) (removed int, err error) {
	s.refs.Lock()
	defer s.refs.Unlock()
	all, err := s.manifests(repo)
	if err != nil {
		return 0, err
	}
	tags, err := s.tags(repo)
	if err != nil {
		return 0, err
	}
	stays := map[digest.Digest]bool{}
	var stay func(digest.Digest)
	stay = func(d digest.Digest) {
		if m, ok := all[d]; ok && !stays[d] {
			stays[d] = true
			for _, part := range m.parsed.Images {
				stay(part.Digest)
			}
		}
	}
	for _, link := range tags {
		stay(link.Digest)
	}
	for d, m := range all {
		if s.cfg.Now().Sub(m.link.Time) < s.cfg.Grace || inUse(repo, d) {
			stay(d)
		}
	}
	for d := range all {
		if stays[d] {
			continue
		}
		if err := os.Remove(s.manifestPath(repo, d)); err != nil {
			return removed, fmt.Errorf("images: %w", err)
		}
		removed++
		if err := s.changed(ctx, Change{Deleted: true, Name: repo + "@" + d.String(), Digest: d, By: by}); err != nil {
			return removed, err
		}
	}
	return removed, nil
}

// Resolve finds what a pod calls an image, and returns the repository that it is
// in. hosts are what the hub itself is called by those who push to it: a name that
// begins with one of them is never another registry's, which own says.
func (s *Store) Resolve(ref oci.Reference, hosts func(string) bool) (repo string, m oci.Stored, own bool, err error) {
	var candidates []string
	switch {
	case ref.Host == "":
		candidates = []string{ref.Repository, "library/" + ref.Repository, "docker.io/" + ref.Repository, "docker.io/library/" + ref.Repository}
	case hosts(ref.Host):
		candidates, own = []string{ref.Repository}, true
	default:
		candidates = []string{ref.Name()}
	}
	for _, repo := range candidates {
		if !oci.ValidRepository(repo) {
			continue // such as that of a registry with a port
		}
		m, err := s.Find(repo, ref.At())
		var unknown *oci.Error
		if err == nil || !errors.As(err, &unknown) {
			return repo, m, own, err
		}
	}
	return "", oci.Stored{}, own, oci.Errorf(oci.CodeManifestUnknown, "the hub has no image %s", ref)
}
