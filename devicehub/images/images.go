// Package images keeps container images for the edges, as a registry does: blobs
// by their digest, and in repositories manifests and the tags that name them. It
// is a folder of files and nothing else:
//
//	blobs/sha256/ab/ab12…                  layers, configurations and manifests
//	repositories/NAME/_blobs/ab12…         the blob belongs to the repository
//	repositories/NAME/_manifests/ab12…     the blob is a manifest of it: its type, when it came
//	repositories/NAME/_tags/TAG            which manifest this names
//	uploads/ID, uploads/ID.json            what is being uploaded
//	id                                     tells this folder from others
//
// Each file comes into its place by a rename, after what it refers to, so what is
// there is whole whenever the power fails. Several processes may share a folder.
package images

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/whimbrel-edge/whimbrel/internal/atomicfile"
	"github.com/whimbrel-edge/whimbrel/internal/oci"
)

// Defaults of Config, and bounds.
const (
	DefaultSpace = 50 << 30
	DefaultGrace = time.Hour
	// maxUploads are kept at a time, begun ones included; one more is refused.
	maxUploads = 256
	// uploadLife is how long an upload on which nothing moves can be resumed.
	uploadLife = 24 * time.Hour
	// collectEvery is how often what nothing refers to is looked for.
	collectEvery = 15 * time.Minute
)

// Config is what a Store needs.
type Config struct {
	Dir   string
	Space int64 // bytes that blobs and uploads may have together; 0: DefaultSpace
	// Grace is how long a blob that nothing refers to is kept since it came or was
	// last asked for: the manifest comes after the blobs. 0: DefaultGrace.
	Grace time.Duration
	// Changed records who changed what; nil: nobody.
	Changed func(ctx context.Context, c Change) error
	Log     *slog.Logger
	Now     func() time.Time
}

// Change is something that was done to an image.
type Change struct {
	Deleted bool          // else pushed
	Name    string        // REPOSITORY:TAG or REPOSITORY@DIGEST
	Digest  digest.Digest // "" where a tag was deleted
	By      string        // user
}

// Store is an open folder of images. All methods may be called from any goroutine.
type Store struct {
	cfg  Config
	id   string
	used atomic.Int64 // bytes in blobs and uploads

	// Whoever makes a reference holds it for reading, whoever looks for what has
	// none for writing.
	refs sync.RWMutex

	mu      sync.Mutex
	uploads map[string]*upload
}

// Open opens a folder, which is made if need be.
func Open(cfg Config) (*Store, error) {
	if cfg.Space == 0 {
		cfg.Space = DefaultSpace
	}
	if cfg.Grace == 0 {
		cfg.Grace = DefaultGrace
	}
	s := &Store{cfg: cfg, uploads: map[string]*upload{}}
	for _, name := range []string{"blobs/sha256", "repositories", "uploads"} {
		if err := os.MkdirAll(filepath.Join(cfg.Dir, name), 0o700); err != nil {
			return nil, fmt.Errorf("images: %w", err)
		}
	}
	var err error
	if s.id, err = identify(filepath.Join(cfg.Dir, "id")); err != nil {
		return nil, fmt.Errorf("images: %w", err)
	}
	if err := s.loadUploads(); err != nil {
		return nil, fmt.Errorf("images: %w", err)
	}
	return s, s.measure()
}

// identify reads a folder's id, and gives it one when it has none. Of several that do
// so at the same time one wins.
func identify(path string) (string, error) {
	for {
		id, err := os.ReadFile(path)
		if err == nil && len(id) > 0 {
			return string(id), nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		if err == nil { // a power cut has taken what was in it
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return "", err
			}
		}
		fresh := path + "." + rand.Text()
		if err := atomicfile.WriteFile(fresh, []byte(rand.Text()), 0o600); err != nil {
			return "", err
		}
		err = os.Link(fresh, path)
		if errors.Is(err, fs.ErrExist) {
			err = nil // somebody was quicker
		} else if err != nil {
			err = os.Rename(fresh, path) // a file system without links
			fresh = ""
		}
		if fresh != "" {
			err = errors.Join(err, os.Remove(fresh))
		}
		if err != nil {
			return "", err
		}
	}
}

// ID tells this folder from others, whoever has it open and wherever it is mounted.
func (s *Store) ID() string { return s.id }

// Run removes what nothing refers to, from time to time, until ctx ends.
func (s *Store) Run(ctx context.Context) error {
	tick := time.NewTicker(collectEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if freed, err := s.Collect(); err != nil {
			s.cfg.Log.Error("images: collecting what nothing refers to failed", "error", err)
		} else if freed > 0 {
			s.cfg.Log.Info("images: removed what nothing referred to", "bytes", freed)
		}
	}
}

// Used is how many bytes there are, and how many there may be.
func (s *Store) Used() (used, space int64) { return s.used.Load(), s.cfg.Space }

// measure counts the bytes there are.
func (s *Store) measure() error {
	var n int64
	for _, name := range []string{"blobs", "uploads"} {
		err := filepath.WalkDir(filepath.Join(s.cfg.Dir, name), func(_ string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return ignoreAbsent(err)
			}
			info, err := e.Info()
			if err == nil {
				n += info.Size()
			}
			return ignoreAbsent(err)
		})
		if err != nil {
			return fmt.Errorf("images: %w", err)
		}
	}
	s.used.Store(n)
	return nil
}

func ignoreAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// take reserves room for n bytes.
func (s *Store) take(n int64) error {
	if used := s.used.Add(n); used > s.cfg.Space {
		s.used.Add(-n)
		return oci.Errorf(oci.CodeSizeInvalid, "the hub's images would take more than %d MB, its bound (--image-space): remove some with `whimbrel image rm` and `whimbrel image prune`", s.cfg.Space>>20)
	}
	return nil
}

// failed makes errors of the file system such that callers learn what they can do.
func failed(what string, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return oci.Errorf(oci.CodeUnavailable, "%s: the hub's disk is full", what)
	}
	return fmt.Errorf("%s: %w", what, err)
}

func (s *Store) blobPath(d digest.Digest) string {
	hex := d.Encoded()
	return filepath.Join(s.cfg.Dir, "blobs", "sha256", hex[:2], hex)
}

// repository is the folder of a repository. Its own files begin with _, which no
// part of a name does.
func (s *Store) repository(name string, more ...string) string {
	return filepath.Join(append([]string{s.cfg.Dir, "repositories", filepath.FromSlash(name)}, more...)...)
}

func (s *Store) linkPath(repo string, d digest.Digest) string {
	return s.repository(repo, "_blobs", d.Encoded())
}

func (s *Store) manifestPath(repo string, d digest.Digest) string {
	return s.repository(repo, "_manifests", d.Encoded())
}

// check looks at names before they become paths.
func check(repo string) error {
	if !oci.ValidRepository(repo) {
		return oci.Errorf(oci.CodeNameInvalid, "%.100q is no name of a repository: lower case letters, digits, and . _ - between them, in parts with / between", repo)
	}
	return nil
}

func exists(path string) (bool, error) {
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// place makes a small file, whole or not at all, and its folder.
func place(path string, v any) error {
	text := []byte{}
	if v != nil {
		var err error
		if text, err = json.Marshal(v); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return failed("images", err)
	}
	if err := atomicfile.WriteFile(path, text, 0o600); err != nil {
		return failed("images", err)
	}
	return nil
}

func load(path string, v any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// names lists a folder, in order; one that is not there is empty.
func names(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("images: %w", err)
	}
	var out []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") { // a file on its way
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// Repositories lists the repositories that have manifests.
func (s *Store) Repositories() (out []string, err error) {
	root := s.repository("")
	err = s.eachRepository(func(name string) error {
		all, err := names(filepath.Join(root, filepath.FromSlash(name), "_manifests"))
		if err == nil && len(all) > 0 {
			out = append(out, name)
		}
		return err
	})
	slices.Sort(out)
	return out, err
}

// eachRepository calls do with every repository's name, also of empty ones.
func (s *Store) eachRepository(do func(name string) error) error {
	root := s.repository("")
	return filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return ignoreAbsent(err)
		}
		if !e.IsDir() || path == root {
			return nil
		}
		if strings.HasPrefix(e.Name(), "_") {
			return fs.SkipDir
		}
		own, err := filepath.Glob(filepath.Join(path, "_*"))
		if err != nil || len(own) == 0 {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		return do(filepath.ToSlash(name))
	})
}
