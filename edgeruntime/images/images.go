// Package images brings images from the hub into the container engine of this
// machine. The engine pulls them as it does from any registry, from one that this
// package plays on a loopback port while there is something to pull: so the engine
// asks for those layers only that it does not have, and they come through the link
// once, whichever images they are of. What was fetched is kept in files until the
// engine has all of an image: a cut, of the link, the hub, the edge or the engine,
// costs nothing but time.
package images

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/engine"
	"github.com/whimbrel-edge/whimbrel/internal/backoff"
	"github.com/whimbrel-edge/whimbrel/internal/oci"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/bulk"
)

// Bounds of what is kept of images on their way.
const (
	// maxKept bounds the files of pulls that did not come to their end, and keptFor
	// their age; the oldest go first. What runs is not bounded but by the images.
	maxKept = 2 << 30
	keptFor = 24 * time.Hour

	askTimeout   = 30 * time.Second // for the hub's answer, not for what follows
	tellEvery    = 500 * time.Millisecond
	maxManifests = 64 // of one image: an index and what of it the engine asks for
)

// Engine is what takes the images.
type Engine interface {
	Image(ctx context.Context, ref string) (engine.Image, error)
	Pull(ctx context.Context, ref string, progress func(engine.Progress)) error
	Tag(ctx context.Context, image, ref string) error
	Untag(ctx context.Context, ref string) error
}

// Hub opens streams to the hub. Without a link it fails with KindUnavailable.
type Hub interface {
	Stream(ctx context.Context, h bulk.Header) (*bulk.Stream, error)
}

// Config is what a Puller needs.
type Config struct {
	Dir    string // of its own
	Engine Engine
	Hub    func() Hub
	// Room is how much of the engine's disk is free; nil: that is not known.
	Room func(ctx context.Context) (free, total uint64, err error)
	Log  *slog.Logger
}

// Puller pulls images. All methods may be called from any goroutine.
type Puller struct {
	cfg   Config
	retry backoff.Policy
	book  *book

	mu     sync.Mutex
	pulls  map[string]*pull // by the secret in the path of their requests
	server *registry        // while there are pulls
	parts  map[digest.Digest]chan struct{}
	busy   map[string]bool // what the engine pulls from us, by the name that it has for it
}

// New returns a Puller that pulls nothing.
func New(cfg Config) *Puller {
	return &Puller{cfg: cfg, retry: backoff.Policy{Min: 200 * time.Millisecond, Max: 10 * time.Second, Factor: 2, Jitter: 0.3},
		book:  &book{path: filepath.Join(cfg.Dir, bookName)},
		pulls: map[string]*pull{}, parts: map[digest.Digest]chan struct{}{}, busy: map[string]bool{}}
}

// LocalName is what an image is called in the engine that a pod calls ref. An
// engine knows images by a digest only when it pulled them from where they are
// called so; those of the hub have it in their tag.
func LocalName(ref oci.Reference) string {
	if ref.Digest != "" {
		return ref.Name() + ":sha256-" + ref.Digest.Encoded()
	}
	return ref.String()
}

// Pull brings an image here: from the hub, and when that does not have it, by the
// engine from the registry that its name says. When the hub cannot be asked, no
// registry is: one could have another image of that name.
func (p *Puller) Pull(ctx context.Context, name string, progress func(engine.Progress)) error {
	ref, err := oci.ParseReference(name)
	if err != nil {
		return err
	}
	if progress == nil {
		progress = func(engine.Progress) {}
	}
	one := p.newPull(ctx, name)
	defer one.client.CloseIdleConnections()
	root, err := one.ask(ctx, "/manifest")
	switch models.KindOf(err) {
	case "":
	case models.KindNotFound, models.KindRefused: // an older hub refuses
		if upstream := p.pullElsewhere(ctx, ref, progress); upstream != nil {
			return fmt.Errorf("%s; asked of its registry: %w", models.ProblemOf(err).Detail, upstream)
		}
		return nil
	case models.KindGone:
		return errors.New(models.ProblemOf(err).Detail)
	default:
		return fmt.Errorf("the hub cannot be asked for %s: %w", ref, err)
	}
	if c := root.parsed.Config; c != nil {
		if here, err := p.cfg.Engine.Image(ctx, c.Digest.String()); err == nil {
			p.note(func(g *page) {
				g.add(here.ID, entry{Names: []string{LocalName(ref)}, Digest: digestName(ref, root.digest), Size: here.Size})
			})
			return p.cfg.Engine.Tag(ctx, here.ID, LocalName(ref))
		}
	}
	one.root = root
	return p.pull(ctx, one, ref, progress)
}

// digestName is what registries call an image.
func digestName(ref oci.Reference, d digest.Digest) string { return ref.Name() + "@" + d.String() }

// pullElsewhere has the engine pull what the hub does not have.
func (p *Puller) pullElsewhere(ctx context.Context, ref oci.Reference, progress func(engine.Progress)) error {
	before, err := p.cfg.Engine.Image(ctx, ref.String())
	if err != nil && !errors.Is(err, engine.ErrNotFound) {
		return err
	}
	if err := p.cfg.Engine.Pull(ctx, ref.String(), progress); err != nil {
		return err
	}
	if here, err := p.cfg.Engine.Image(ctx, ref.String()); err == nil && here.ID != before.ID {
		e := entry{Names: []string{ref.String()}, Size: here.Size, Fetched: len(here.Names) <= 1}
		if len(here.Digests) > 0 {
			e.Digest = here.Digests[0]
		}
		p.note(func(g *page) { g.add(here.ID, e) })
	}
	return nil
}

// pull has the engine pull what the hub has.
func (p *Puller) pull(ctx context.Context, one *pull, ref oci.Reference, progress func(engine.Progress)) error {
	host, err := p.begin(one)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("%s/%s/image@%s", host, one.secret, one.root.digest)
	as := arrival{LocalName(ref), digestName(ref, one.root.digest)}
	p.mu.Lock()
	p.busy[name] = true
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.busy, name)
		p.mu.Unlock()
	}()
	p.note(func(g *page) { g.Pulls[name] = as })
	ctx, cancel := context.WithCancel(ctx)
	one.giveUp = cancel
	var telling sync.WaitGroup
	telling.Go(func() {
		tick := time.NewTicker(tellEvery)
		defer tick.Stop()
		for {
			progress(one.progress())
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	})
	pulled := p.cfg.Engine.Pull(ctx, name, one.present)
	cancel()
	telling.Wait()
	if pulled == nil {
		progress(one.progress())
	}
	p.end(one, pulled == nil)
	ctx = one.ctx
	if pulled != nil {
		if _, err := p.cfg.Engine.Image(ctx, name); errors.Is(err, engine.ErrNotFound) {
			p.note(func(g *page) { delete(g.Pulls, name) })
		}
		if err := one.failure(); err != nil {
			return err // the engine knows only that it got no answer
		}
		// The engine's words have a name in them that means nothing to anybody.
		return rewrite(pulled, name, ref.String())
	}
	if err := p.arrive(ctx, name, as); err != nil {
		return rewrite(err, name, ref.String())
	}
	p.note(func(g *page) { delete(g.Pulls, name) })
	return nil
}

// rewritten is an error in other words.
type rewritten struct {
	error
	text string
}

func (e rewritten) Error() string { return e.text }

func (e rewritten) Unwrap() error { return e.error }

func rewrite(err error, from, to string) error {
	repo, _, _ := strings.Cut(from, "@")
	return rewritten{err, strings.ReplaceAll(strings.ReplaceAll(err.Error(), from, to), repo, to)}
}

// begin makes a pull one that the engine may ask for, and returns where.
func (p *Puller) begin(one *pull) (host string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.server == nil {
		if err := os.MkdirAll(p.cfg.Dir, 0o700); err != nil {
			return "", fmt.Errorf("images: %w", err)
		}
		p.tidyLocked(false)
		if p.server, err = p.serve(); err != nil {
			return "", err
		}
	}
	p.pulls[one.secret] = one
	return p.server.addr, nil
}

// end makes an end of a pull. The last one takes the registry with it, and the
// files when they are not needed any more.
func (p *Puller) end(one *pull, done bool) {
	p.mu.Lock()
	delete(p.pulls, one.secret)
	server := p.server
	if len(p.pulls) > 0 {
		server = nil
	} else {
		p.server = nil
	}
	p.mu.Unlock()
	if server == nil {
		return
	}
	server.close()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.server == nil { // nobody has begun meanwhile
		p.tidyLocked(done)
	}
}

// tidyLocked removes files of parts: all that are whole, when everything that they
// were for is in the engine, and what is too old or too much of the rest. p.mu is
// held and nothing is being pulled.
func (p *Puller) tidyLocked(done bool) {
	entries, err := os.ReadDir(p.cfg.Dir)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			p.cfg.Log.Warn("images", "error", err)
		}
		return
	}
	var files []fs.FileInfo
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() && e.Name() != bookName {
			files = append(files, info)
		}
	}
	slices.SortFunc(files, func(a, b fs.FileInfo) int { return b.ModTime().Compare(a.ModTime()) })
	var kept int64
	for _, f := range files {
		kept += f.Size()
		if kept > maxKept || time.Since(f.ModTime()) > keptFor || done && !strings.HasSuffix(f.Name(), partial) {
			kept -= f.Size()
			if err := os.Remove(filepath.Join(p.cfg.Dir, f.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				p.cfg.Log.Warn("images", "error", err)
			}
		}
	}
}

// partial is the end of the name of a file that is not whole.
const partial = ".part"

// pull is one image on its way.
type pull struct {
	p      *Puller
	ctx    context.Context // of whoever wants it
	name   string
	secret string
	client *http.Client
	root   manifest

	mu        sync.Mutex
	manifests map[digest.Digest]manifest
	sizes     map[digest.Digest]int64 // of the parts that the engine may ask for
	here      []string                // beginnings of digests of layers that the engine has
	got       map[digest.Digest]int64
	waiting   string
	err       error
	giveUp    func() // ends the engine's pull
}

// manifest is one that came from the hub.
type manifest struct {
	digest digest.Digest
	text   []byte
	parsed *oci.Manifest
}

func (p *Puller) newPull(ctx context.Context, name string) *pull {
	one := &pull{p: p, ctx: ctx, name: name, secret: strings.ToLower(rand.Text()), manifests: map[digest.Digest]manifest{},
		sizes: map[digest.Digest]int64{}, got: map[digest.Digest]int64{}}
	one.client = &http.Client{Transport: &http.Transport{DialContext: one.dial, DisableCompression: true, MaxIdleConnsPerHost: 4, IdleConnTimeout: 30 * time.Second, ResponseHeaderTimeout: askTimeout}}
	return one
}

// dial opens a stream for requests about this image.
func (one *pull) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	head, err := bulk.NewHeader(bulk.KindImage, "", bulk.ImageWanted{Reference: one.name})
	if err != nil {
		return nil, err
	}
	stream, err := one.p.cfg.Hub().Stream(ctx, head)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, stream.Abort)
	err = stream.Answered()
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = stream.Close()
		return nil, err
	}
	return stream, nil
}

// get asks the hub for something of the image, from an offset on.
func (one *pull) get(ctx context.Context, path string, from int64) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://hub"+path, nil)
	if err != nil {
		return nil, err
	}
	if from > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", from))
	}
	resp, err := one.client.Do(req)
	if err != nil {
		var known *models.Error
		if errors.As(err, &known) {
			return nil, known // without the words of net/http around it
		}
		return nil, models.Errorf(models.KindUnavailable, "the link was lost: %v", err)
	}
	if resp.StatusCode >= 300 {
		defer resp.Body.Close()
		text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
		if err != nil {
			return nil, models.Errorf(models.KindUnavailable, "the link was lost: %v", err)
		}
		return nil, oci.ParseDocument(resp.StatusCode, text)
	}
	return resp, nil
}

// ask fetches a manifest.
func (one *pull) ask(ctx context.Context, path string) (manifest, error) {
	resp, err := one.get(ctx, path, 0)
	if err != nil {
		return manifest{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, oci.MaxManifest+1))
	if err != nil {
		return manifest{}, models.Errorf(models.KindUnavailable, "the link was lost: %v", err)
	}
	parsed, err := oci.ParseManifest(resp.Header.Get("Content-Type"), text)
	if err != nil {
		return manifest{}, fmt.Errorf("the manifest of %s: %w", one.name, err)
	}
	m := manifest{digest.FromBytes(text), text, parsed}
	if want, ok := strings.CutPrefix(path, "/manifests/"); ok && want != m.digest.String() {
		return manifest{}, fmt.Errorf("the manifest of %s came as %s instead of %s", one.name, m.digest, want)
	}
	return m, nil
}

// manifest returns one that the engine asks for.
func (one *pull) manifest(ctx context.Context, d digest.Digest) (manifest, error) {
	one.mu.Lock()
	m, ok := one.manifests[d]
	full := len(one.manifests) >= maxManifests
	one.mu.Unlock()
	if d == one.root.digest {
		m, ok = one.root, true
	}
	if !ok {
		if full {
			return m, oci.Errorf(oci.CodeManifestUnknown, "more than %d manifests are asked for", maxManifests)
		}
		err := one.patiently(ctx, func() (err error) {
			m, err = one.ask(ctx, "/manifests/"+d.String())
			return err
		})
		if err != nil {
			return m, err
		}
	}
	one.mu.Lock()
	defer one.mu.Unlock()
	one.manifests[d] = m
	for _, b := range m.parsed.Blobs() {
		one.sizes[b.Digest] = b.Size
	}
	return m, nil
}

// patiently does something that needs the link until it is done, or it will never
// be.
func (one *pull) patiently(ctx context.Context, do func() error) error {
	for n := 1; ; n++ {
		err := do()
		if err == nil {
			one.wait("")
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if kind := models.KindOf(err); kind != models.KindUnavailable && kind != models.KindTooMany && kind != models.KindTimeout {
			one.fail(err)
			return err
		}
		one.wait(err.Error())
		t := time.NewTimer(one.p.retry.Delay(n, 0))
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-t.C:
		}
	}
}

func (one *pull) wait(why string) {
	one.mu.Lock()
	defer one.mu.Unlock()
	one.waiting = why
}

// fail remembers why a pull cannot succeed: the engine will not know.
func (one *pull) fail(err error) {
	one.mu.Lock()
	defer one.mu.Unlock()
	one.err = err
	if one.giveUp != nil {
		one.giveUp()
	}
}

func (one *pull) failure() error {
	one.mu.Lock()
	defer one.mu.Unlock()
	return one.err
}

// present takes from the engine's report which layers it has.
func (one *pull) present(p engine.Progress) {
	one.mu.Lock()
	defer one.mu.Unlock()
	one.here = p.Here
}

func (one *pull) progress() (p engine.Progress) {
	one.mu.Lock()
	defer one.mu.Unlock()
	seen := map[digest.Digest]bool{}
	for _, m := range one.manifests {
		for _, l := range m.parsed.Layers {
			if seen[l.Digest] || slices.ContainsFunc(one.here, func(begin string) bool { return strings.HasPrefix(l.Digest.Encoded(), begin) }) {
				continue
			}
			seen[l.Digest] = true
			p.Layers++
			p.Total += l.Size
			p.Done += min(one.got[l.Digest], l.Size)
		}
	}
	p.Waiting = one.waiting
	return p
}
