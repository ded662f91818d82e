package images

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/whimbrel-edge/whimbrel/internal/oci"
)

// upload is a blob on its way. Whoever holds busy may use the rest.
type upload struct {
	busy chan struct{} // holds a token while somebody writes to it

	id    string
	about about
	size  int64
	sum   hash.Hash // of all that is there; nil when that must be read again
	moved time.Time
	gone  bool
}

// about is what is stored of an upload beside its bytes.
type about struct {
	Repository string        `json:"repository"`
	Expect     digest.Digest `json:"expect,omitempty"` // what it will be, where that was said
	By         string        `json:"by"`
}

func (s *Store) uploadPath(id string) string { return filepath.Join(s.cfg.Dir, "uploads", id) }

// loadUploads finds those of an earlier process, which can be resumed.
func (s *Store) loadUploads() error {
	all, err := names(filepath.Join(s.cfg.Dir, "uploads"))
	if err != nil {
		return err
	}
	for _, name := range all {
		id, described := strings.CutSuffix(name, ".json")
		if !described {
			if ok, err := exists(s.uploadPath(name + ".json")); err == nil && !ok {
				_ = os.Remove(s.uploadPath(name)) // was made at the moment of a crash
			}
			continue
		}
		u := &upload{busy: make(chan struct{}, 1), id: id, moved: s.cfg.Now()}
		info, err := os.Stat(s.uploadPath(id))
		if err == nil {
			u.size, u.moved, err = info.Size(), info.ModTime(), load(s.uploadPath(name), &u.about)
		}
		if err != nil {
			s.cfg.Log.Warn("images: an upload cannot be resumed", "upload", id, "error", err)
			s.dropUpload(u)
			continue
		}
		s.uploads[id] = u
	}
	return nil
}

// dropUpload removes an upload's files. Busy is held, or nobody knows of it.
func (s *Store) dropUpload(u *upload) {
	u.gone = true
	for _, path := range []string{s.uploadPath(u.id), s.uploadPath(u.id + ".json")} {
		if err := os.Remove(path); ignoreAbsent(err) != nil {
			s.cfg.Log.Warn("images: removing an upload failed", "error", err)
		}
	}
	s.mu.Lock()
	delete(s.uploads, u.id)
	s.mu.Unlock()
}

// StartUpload begins an upload. With expect, one of the same user's that was to be
// the same blob of the repository goes on, if there is one: size says where.
func (s *Store) StartUpload(ctx context.Context, repo string, expect digest.Digest, by string) (id string, size int64, err error) {
	if err := check(repo); err != nil {
		return "", 0, err
	}
	want := about{repo, expect, by}
	s.mu.Lock()
	var same *upload
	for _, u := range s.uploads {
		if expect != "" && u.about == want {
			same = u
		}
	}
	full := len(s.uploads) >= maxUploads
	s.mu.Unlock()
	if same != nil {
		if size, err := s.Upload(ctx, repo, same.id, by); err == nil {
			return same.id, size, nil
		}
	}
	if full {
		return "", 0, oci.Errorf(oci.CodeTooManyRequests, "%d uploads have been begun; they end when they are cancelled, or %s after they last moved", maxUploads, uploadLife)
	}
	u := &upload{busy: make(chan struct{}, 1), id: strings.ToLower(rand.Text()), about: want, sum: digest.SHA256.Hash(), moved: s.cfg.Now()}
	f, err := os.OpenFile(s.uploadPath(u.id), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err == nil {
		err = f.Close()
	}
	if err == nil {
		err = place(s.uploadPath(u.id+".json"), u.about)
	}
	if err != nil {
		return "", 0, failed("begin an upload", err)
	}
	s.mu.Lock()
	s.uploads[u.id] = u
	s.mu.Unlock()
	return u.id, 0, nil
}

// hold returns an upload that is the caller's until it calls free. It waits for
// whoever writes to it: a connection that was cut may be still there.
func (s *Store) hold(ctx context.Context, repo, id, by string) (u *upload, free func(), err error) {
	if err := check(repo); err != nil {
		return nil, nil, err
	}
	s.mu.Lock()
	u = s.uploads[id]
	s.mu.Unlock()
	unknown := oci.Errorf(oci.CodeBlobUploadUnknown, "there is no upload %.60q in repository %s; it may have expired", id, repo)
	if u == nil || u.about.Repository != repo || u.about.By != by {
		return nil, nil, unknown
	}
	wait, cancel := context.WithTimeout(ctx, holdTimeout)
	defer cancel()
	select {
	case u.busy <- struct{}{}:
	case <-wait.Done():
		return nil, nil, oci.Errorf(oci.CodeBlobUploadInvalid, "the upload is being written to by another request")
	}
	if u.gone {
		<-u.busy
		return nil, nil, unknown
	}
	return u, func() { <-u.busy }, nil
}

// holdTimeout bounds the wait for an upload that somebody else writes to.
const holdTimeout = 10 * time.Second

// Upload says how much of an upload is there.
func (s *Store) Upload(ctx context.Context, repo, id, by string) (size int64, err error) {
	u, free, err := s.hold(ctx, repo, id, by)
	if err != nil {
		return 0, err
	}
	defer free()
	return u.size, nil
}

// Append adds what r has. at is where it belongs, negative for the end; size is
// how much is there then, also with an error: what came before it is kept.
func (s *Store) Append(ctx context.Context, repo, id, by string, at int64, r io.Reader) (size int64, err error) {
	u, free, err := s.hold(ctx, repo, id, by)
	if err != nil {
		return 0, err
	}
	defer free()
	return u.size, s.append(u, at, r)
}

func (s *Store) append(u *upload, at int64, r io.Reader) (err error) {
	if at >= 0 && at != u.size {
		return oci.Errorf(oci.CodeRangeInvalid, "the upload has %d bytes, what came begins at %d", u.size, at)
	}
	f, err := os.OpenFile(s.uploadPath(u.id), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return fmt.Errorf("images: %w", err)
	}
	defer func() {
		if e := f.Close(); err == nil && e != nil {
			err = failed("images", e)
		}
		u.moved = s.cfg.Now()
	}()
	buffer := make([]byte, 256<<10)
	for {
		n, readErr := r.Read(buffer)
		if n > 0 {
			if err := s.take(int64(n)); err != nil {
				return err
			}
			wrote, err := f.Write(buffer[:n])
			u.size += int64(wrote)
			if u.sum != nil {
				_, _ = u.sum.Write(buffer[:wrote]) // never fails
			}
			if err != nil {
				s.used.Add(int64(wrote - n))
				return failed("images", err)
			}
		}
		if errors.Is(readErr, io.EOF) {
			return nil
		}
		if readErr != nil {
			return readErr
		}
	}
}

// Commit adds what r has, nil for nothing, and makes the upload the blob d of its
// repository. When the bytes are not those of d, the upload is over.
func (s *Store) Commit(ctx context.Context, repo, id, by string, at int64, r io.Reader, d digest.Digest) error {
	u, free, err := s.hold(ctx, repo, id, by)
	if err != nil {
		return err
	}
	defer free()
	if r != nil {
		if err := s.append(u, at, r); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(s.uploadPath(u.id), os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("images: %w", err)
	}
	defer f.Close()
	if u.sum == nil { // begun in an earlier process
		u.sum = digest.SHA256.Hash()
		if _, err := io.Copy(u.sum, f); err != nil {
			u.sum = nil
			return fmt.Errorf("images: %w", err)
		}
	}
	if got := digest.NewDigest(digest.SHA256, u.sum); got != d {
		s.used.Add(-u.size)
		s.dropUpload(u)
		return oci.Errorf(oci.CodeDigestInvalid, "what was uploaded is %s, not %s; the upload is over", got, d)
	}
	if err := f.Sync(); err != nil {
		return failed("images", err)
	}
	s.refs.RLock()
	defer s.refs.RUnlock()
	if err := s.keep(s.uploadPath(u.id), u.size, d); err != nil {
		return err
	}
	s.dropUpload(u)
	if err := place(s.linkPath(repo, d), nil); err != nil {
		return err
	}
	return s.touch(repo, d, time.Time{})
}

// Cancel ends an upload.
func (s *Store) Cancel(ctx context.Context, repo, id, by string) error {
	u, free, err := s.hold(ctx, repo, id, by)
	if err != nil {
		return err
	}
	defer free()
	s.used.Add(-u.size)
	s.dropUpload(u)
	return nil
}

// expire ends the uploads on which nothing has moved for long.
func (s *Store) expire(now time.Time) (freed int64) {
	s.mu.Lock()
	var all []*upload
	for _, u := range s.uploads {
		all = append(all, u)
	}
	s.mu.Unlock()
	for _, u := range all {
		select {
		case u.busy <- struct{}{}:
		default:
			continue // it is being written to
		}
		if !u.gone && now.Sub(u.moved) > uploadLife {
			freed += u.size
			s.used.Add(-u.size)
			s.dropUpload(u)
		}
		<-u.busy
	}
	return freed
}
