package images

import (
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/whimbrel-edge/whimbrel/internal/atomicfile"
	"github.com/whimbrel-edge/whimbrel/internal/oci"
)

func unknownBlob(repo string, d digest.Digest) error {
	return oci.Errorf(oci.CodeBlobUnknown, "repository %s has no blob %s", repo, d)
}

// Stat returns the size of a repository's blob. From then on it is kept for the
// grace, also when nothing refers to it: whoever asks is about to.
func (s *Store) Stat(repo string, d digest.Digest) (int64, error) {
	if err := check(repo); err != nil {
		return 0, err
	}
	s.refs.RLock()
	defer s.refs.RUnlock()
	if ok, err := exists(s.linkPath(repo, d)); err != nil || !ok {
		if err == nil {
			err = unknownBlob(repo, d)
		}
		return 0, err
	}
	info, err := os.Stat(s.blobPath(d))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, unknownBlob(repo, d)
	}
	if err != nil {
		return 0, fmt.Errorf("images: %w", err)
	}
	return info.Size(), s.touch(repo, d, info.ModTime())
}

// touch begins the grace of a blob anew. s.refs is held.
func (s *Store) touch(repo string, d digest.Digest, was time.Time) error {
	now := s.cfg.Now()
	if now.Sub(was) < s.cfg.Grace/8 {
		return nil
	}
	for _, path := range []string{s.blobPath(d), s.linkPath(repo, d)} {
		if err := os.Chtimes(path, time.Time{}, now); err != nil {
			return fmt.Errorf("images: %w", err)
		}
	}
	return nil
}

// Mount makes a blob of one repository, or with from "" of any, one of another
// without its bytes being sent again. ok is false when there is none.
func (s *Store) Mount(repo, from string, d digest.Digest) (ok bool, err error) {
	if err := check(repo); err != nil {
		return false, err
	}
	s.refs.RLock()
	defer s.refs.RUnlock()
	if from != "" {
		if err := check(from); err != nil {
			return false, err
		}
		if ok, err := exists(s.linkPath(from, d)); err != nil || !ok {
			return false, err
		}
	}
	if ok, err := exists(s.blobPath(d)); err != nil || !ok {
		return false, err
	}
	if err := place(s.linkPath(repo, d), nil); err != nil {
		return false, err
	}
	return true, s.touch(repo, d, time.Time{})
}

// DeleteBlob makes a blob no longer one of the repository.
func (s *Store) DeleteBlob(repo string, d digest.Digest) error {
	if err := check(repo); err != nil {
		return err
	}
	s.refs.RLock()
	defer s.refs.RUnlock()
	if ok, err := exists(s.manifestPath(repo, d)); err != nil || ok {
		if err == nil {
			err = oci.Errorf(oci.CodeUnsupported, "%s is a manifest: delete it as one", d)
		}
		return err
	}
	err := os.Remove(s.linkPath(repo, d))
	if errors.Is(err, fs.ErrNotExist) {
		return unknownBlob(repo, d)
	}
	return err
}

// blob is one that is being read.
type blob struct {
	size   int64
	digest digest.Digest

	s    *Store
	f    *os.File
	at   int64
	sum  hash.Hash
	seen int64 // so many bytes are in sum
}

// OpenBlob opens a blob of a repository. Its bytes are checked on the way: whoever
// reads it from its beginning does not get the last of them when they are not those
// of its digest, but an error, and the blob is removed, so that it can be pushed
// again.
func (s *Store) OpenBlob(repo string, d digest.Digest) (io.ReadSeekCloser, error) {
	if _, err := s.Stat(repo, d); err != nil {
		return nil, err
	}
	b, err := s.open(d)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, unknownBlob(repo, d)
	}
	if err != nil {
		return nil, fmt.Errorf("images: %w", err)
	}
	return b, nil
}

func (s *Store) open(d digest.Digest) (*blob, error) {
	f, err := os.Open(s.blobPath(d))
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &blob{size: info.Size(), digest: d, s: s, f: f, sum: d.Algorithm().Hash()}, nil
}

// Close implements io.Closer.
func (b *blob) Close() error { return b.f.Close() }

// Seek implements io.Seeker.
func (b *blob) Seek(offset int64, whence int) (int64, error) {
	at, err := b.f.Seek(offset, whence)
	b.at = at
	return at, err
}

// Read implements io.Reader.
func (b *blob) Read(p []byte) (int, error) {
	n, err := b.f.Read(p)
	if b.seen == b.at && n > 0 {
		_, _ = b.sum.Write(p[:n]) // never fails
		b.seen += int64(n)
	}
	b.at += int64(n)
	// What was not read from the beginning cannot be told; whoever puts it together can.
	if b.seen == b.size && b.at == b.size && (n > 0 || b.size == 0) && digest.NewDigest(b.digest.Algorithm(), b.sum) != b.digest {
		return 0, errors.Join(fmt.Errorf("images: blob %s was corrupt on the disk", b.digest), b.s.spoilt(b.digest))
	}
	return n, err
}

// spoilt removes a blob that is not what it should be.
func (s *Store) spoilt(d digest.Digest) error {
	info, err := os.Stat(s.blobPath(d))
	if err != nil {
		return ignoreAbsent(err)
	}
	s.cfg.Log.Error("images: a blob was corrupt on the disk and is removed; push the images that need it again", "digest", d)
	if err := os.Remove(s.blobPath(d)); err != nil {
		return ignoreAbsent(err)
	}
	s.used.Add(-info.Size())
	return nil
}

// read reads a blob that is small, such as a manifest.
func (s *Store) read(d digest.Digest) ([]byte, error) {
	b, err := s.open(d)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	if b.size > oci.MaxManifest {
		return nil, fmt.Errorf("images: blob %s has %d bytes: it is no manifest", d, b.size)
	}
	return io.ReadAll(b)
}

// keep brings a file into its place as a blob, or removes it when the blob is
// there. s.refs is held.
func (s *Store) keep(path string, size int64, d digest.Digest) error {
	if ok, err := exists(s.blobPath(d)); err != nil {
		return err
	} else if ok {
		s.used.Add(-size)
		return os.Remove(path)
	}
	dir := filepath.Dir(s.blobPath(d))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return failed("images", err)
	}
	if err := os.Rename(path, s.blobPath(d)); err != nil {
		return failed("images", err)
	}
	return atomicfile.SyncDir(dir)
}
