package images

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/whimbrel-edge/whimbrel/internal/oci"
	"github.com/whimbrel-edge/whimbrel/models"
)

// registry is what the engine pulls from. It is on loopback, where anybody of this
// machine comes in, but who does not know a pull's secret finds nothing.
type registry struct {
	addr string
	srv  *http.Server
	done chan struct{}
}

func (p *Puller) serve() (*registry, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("images: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &registry{addr: l.Addr().String(), done: make(chan struct{}), srv: &http.Server{Handler: http.HandlerFunc(p.answer), ReadHeaderTimeout: 10 * time.Second,
		MaxHeaderBytes: 16 << 10, BaseContext: func(net.Listener) context.Context { return ctx }, ErrorLog: slog.NewLogLogger(p.cfg.Log.Handler(), slog.LevelDebug)}}
	go func() { // ends with close
		defer close(r.done)
		defer cancel()
		_ = r.srv.Serve(l)
	}()
	return r, nil
}

func (r *registry) close() {
	_ = r.srv.Close()
	<-r.done
}

// answer answers the engine.
func (p *Puller) answer(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	if r.URL.Path == "/v2/" {
		return
	}
	path := strings.Split(strings.TrimPrefix(r.URL.Path, "/v2/"), "/")
	var one *pull
	if len(path) == 4 && path[1] == "image" {
		p.mu.Lock()
		one = p.pulls[path[0]]
		p.mu.Unlock()
	}
	err := error(oci.Errorf(oci.CodeNameUnknown, "there is nothing at this path"))
	if one != nil {
		// The pull's end is that of its requests, too.
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		stop := context.AfterFunc(one.ctx, cancel)
		defer stop()
		var d digest.Digest
		if d, err = oci.ParseDigest(path[3]); err == nil {
			switch path[2] {
			case "manifests":
				err = one.serveManifest(ctx, w, r, d)
			case "blobs":
				err = one.serveBlob(ctx, w, r, d)
			default:
				err = oci.Errorf(oci.CodeUnsupported, "there is nothing at this path")
			}
		}
	}
	if err == nil {
		return
	}
	status, text := oci.Document(err)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Del("Content-Length")
	w.WriteHeader(status)
	_, _ = w.Write(text) // an engine that is gone learns nothing
}

func (one *pull) serveManifest(ctx context.Context, w http.ResponseWriter, r *http.Request, d digest.Digest) error {
	m, err := one.manifest(ctx, d)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", m.parsed.MediaType)
	h.Set("Docker-Content-Digest", d.String())
	h.Set("Content-Length", strconv.Itoa(len(m.text)))
	if r.Method == http.MethodGet {
		_, _ = w.Write(m.text) // an engine that is gone learns nothing
	}
	return nil
}

// serveBlob gives the engine a part of the image while it comes.
func (one *pull) serveBlob(ctx context.Context, w http.ResponseWriter, r *http.Request, d digest.Digest) error {
	one.mu.Lock()
	size, ok := one.sizes[d]
	one.mu.Unlock()
	if !ok {
		return oci.Errorf(oci.CodeBlobUnknown, "%s is no part of the image", d)
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Docker-Content-Digest", d.String())
	if r.Method == http.MethodHead {
		h.Set("Content-Length", strconv.FormatInt(size, 10))
		return nil
	}
	// One that fetches a part at a time: another image may have it, too.
	free, err := one.p.hold(ctx, d)
	if err != nil {
		return err
	}
	defer free()
	part, err := one.open(d, size)
	if err != nil {
		one.fail(err)
		return err
	}
	fetchCtx, cancel := context.WithCancel(ctx)
	var fetching sync.WaitGroup
	defer func() {
		cancel()
		fetching.Wait()
		_ = part.f.Close()
	}()
	if !part.whole {
		fetching.Go(func() { one.fetch(fetchCtx, part) })
	}
	http.ServeContent(w, r, "", time.Time{}, &tail{ctx: ctx, part: part})
	return nil
}

// hold waits until nobody else fetches a part.
func (p *Puller) hold(ctx context.Context, d digest.Digest) (free func(), err error) {
	for {
		p.mu.Lock()
		busy := p.parts[d]
		if busy == nil {
			mine := make(chan struct{})
			p.parts[d] = mine
			p.mu.Unlock()
			return func() {
				p.mu.Lock()
				delete(p.parts, d)
				p.mu.Unlock()
				close(mine)
			}, nil
		}
		p.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// part is one of an image that comes into a file.
type part struct {
	digest digest.Digest
	total  int64
	path   string
	f      *os.File
	whole  bool // it was there
	sum    hash.Hash

	mu   sync.Mutex
	size int64         // so much is there
	end  error         // nothing comes any more; io.EOF when it is whole and right
	news chan struct{} // closed when that changes
}

// open opens what is there of a part, which nobody else has.
func (one *pull) open(d digest.Digest, total int64) (*part, error) {
	path := filepath.Join(one.p.cfg.Dir, d.Encoded())
	p := &part{digest: d, total: total, path: path, sum: digest.SHA256.Hash(), news: make(chan struct{})}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = os.OpenFile(path+partial, os.O_CREATE|os.O_RDWR, 0o600)
	} else {
		p.whole = true
	}
	if err != nil {
		return nil, fmt.Errorf("images: %w", err)
	}
	p.f = f
	n, err := io.Copy(p.sum, f)
	switch {
	case err != nil:
	case p.whole && (n != total || digest.NewDigest(digest.SHA256, p.sum) != d):
		// The disk has lost it.
		err = errors.Join(f.Close(), os.Remove(path))
		if err == nil {
			return one.open(d, total)
		}
	case p.whole:
		p.size, p.end = n, io.EOF
	case n > total:
		n, err = 0, p.restart()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("images: %w", err), f.Close())
	}
	p.size = n
	one.count(d, n)
	return p, nil
}

func (one *pull) count(d digest.Digest, n int64) {
	one.mu.Lock()
	defer one.mu.Unlock()
	one.got[d] = n
}

// restart forgets what is there.
func (p *part) restart() error {
	p.sum.Reset()
	if err := p.f.Truncate(0); err != nil {
		return err
	}
	_, err := p.f.Seek(0, io.SeekStart)
	return err
}

// fetch brings the rest of a part from the hub.
func (one *pull) fetch(ctx context.Context, p *part) {
	err := one.patiently(ctx, func() error {
		if p.size == p.total {
			return nil
		}
		resp, err := one.get(ctx, "/blobs/"+p.digest.String(), p.size)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if p.size > 0 && resp.StatusCode != http.StatusPartialContent {
			return fmt.Errorf("the hub does not go on with %s where it was cut", p.digest)
		}
		if err := one.take(p, resp.Body); err != nil {
			return err
		}
		if p.size < p.total {
			return models.Errorf(models.KindUnavailable, "the link was lost: %s broke off", p.digest)
		}
		return nil
	})
	if err == nil && digest.NewDigest(digest.SHA256, p.sum) != p.digest {
		// The engine notices, too, and asks once more.
		one.p.cfg.Log.Warn("images: a part came damaged", "image", one.name, "digest", p.digest)
		err = errors.Join(fmt.Errorf("%s came damaged", p.digest), os.Remove(p.path+partial))
	}
	if err == nil {
		err = os.Rename(p.path+partial, p.path)
	}
	if err == nil {
		err = io.EOF
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end = err
	close(p.news)
}

// take writes what comes.
func (one *pull) take(p *part, r io.Reader) error {
	buffer := make([]byte, 64<<10)
	for p.size < p.total {
		n, err := r.Read(buffer[:min(int64(len(buffer)), p.total-p.size)])
		if n > 0 {
			if _, err := p.f.WriteAt(buffer[:n], p.size); err != nil {
				return fmt.Errorf("images: the disk takes no more of %s: %w", one.name, err)
			}
			_, _ = p.sum.Write(buffer[:n]) // never fails
			p.mu.Lock()
			p.size += int64(n)
			close(p.news)
			p.news = make(chan struct{})
			p.mu.Unlock()
			one.count(p.digest, p.size)
			one.wait("")
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return models.Errorf(models.KindUnavailable, "the link was lost: %v", err)
		}
	}
	return nil
}

// tail reads a part, and waits for what has not come yet.
type tail struct {
	ctx  context.Context
	part *part
	at   int64
}

// Seek implements io.Seeker.
func (t *tail) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += t.at
	case io.SeekEnd:
		offset += t.part.total
	}
	if offset < 0 {
		return t.at, errors.New("images: a place before the beginning")
	}
	t.at = offset
	return offset, nil
}

// Read implements io.Reader.
func (t *tail) Read(b []byte) (int, error) {
	p := t.part
	for {
		if t.at >= p.total {
			return 0, io.EOF
		}
		p.mu.Lock()
		size, end, news := p.size, p.end, p.news
		p.mu.Unlock()
		// The last byte is for whoever waits until it is known that all are right.
		if end == nil {
			size = min(size, p.total-1)
		}
		switch {
		case end != nil && !errors.Is(end, io.EOF):
			return 0, end
		case t.at < size:
			n, err := p.f.ReadAt(b[:min(int64(len(b)), size-t.at)], t.at)
			t.at += int64(n)
			if n > 0 {
				err = nil
			}
			return n, err
		}
		select {
		case <-news:
		case <-t.ctx.Done():
			return 0, t.ctx.Err()
		}
	}
}
