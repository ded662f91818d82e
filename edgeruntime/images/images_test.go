package images

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/goleak"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/engine"
	"github.com/whimbrel-edge/whimbrel/internal/backoff"
	"github.com/whimbrel-edge/whimbrel/internal/oci"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/bulk"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hub has images, and a second connection that breaks when it is told to.
type hub struct {
	t      *testing.T
	server *httptest.Server

	mu     sync.Mutex
	conn   *bulk.Conn
	away   bool
	refs   map[string]oci.Stored
	texts  map[digest.Digest][]byte
	sent   map[digest.Digest]int // bytes of blobs that left
	asked  int                   // for blobs
	cut    int                   // break off after so many bytes of blobs; 0: never
	ranges []string
	refuse error
}

func newHub(t *testing.T) *hub {
	h := &hub{t: t, refs: map[string]oci.Stored{}, texts: map[digest.Digest][]byte{}, sent: map[digest.Digest]int{}}
	var serving sync.WaitGroup
	h.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := bulk.Accept(w, r)
		if err != nil {
			t.Error(err)
			return
		}
		serving.Go(func() {
			_ = c.Serve(context.Background(), map[string]bulk.Handler{bulk.KindImage: h.stream}, slog.New(slog.DiscardHandler)) // ends with the connection
		})
	}))
	t.Cleanup(func() {
		h.mu.Lock()
		if h.conn != nil {
			_ = h.conn.Close()
		}
		h.mu.Unlock()
		h.server.Close()
		serving.Wait()
	})
	return h
}

// Stream implements Hub.
func (h *hub) Stream(ctx context.Context, head bulk.Header) (*bulk.Stream, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.away {
		return nil, models.Errorf(models.KindUnavailable, "there is no link to the hub")
	}
	if h.conn == nil || h.conn.Closed() {
		c, err := bulk.Dial(ctx, h.server.URL, nil, "epoch")
		if err != nil {
			return nil, models.Errorf(models.KindUnavailable, "%v", err)
		}
		h.conn = c
	}
	return h.conn.Open(head)
}

func (h *hub) stream(ctx context.Context, head bulk.Header, s *bulk.Stream) error {
	var wanted bulk.ImageWanted
	if err := json.Unmarshal(head.Body, &wanted); err != nil {
		return err
	}
	h.mu.Lock()
	root, ok := h.refs[wanted.Reference]
	refuse := h.refuse
	h.mu.Unlock()
	if refuse != nil {
		return refuse
	}
	if !ok {
		return models.Errorf(models.KindNotFound, "the hub has no image %s", wanted.Reference)
	}
	if err := s.Accept(); err != nil {
		return err
	}
	bulk.ServeHTTP(ctx, s, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		what, name, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		d := digest.Digest(name)
		if what == "manifest" {
			d = root.Digest
		}
		h.mu.Lock()
		text, ok := h.texts[d]
		if what == "blobs" {
			h.asked++
			h.ranges = append(h.ranges, r.Header.Get("Range"))
		}
		h.mu.Unlock()
		if !ok {
			status, text := oci.Document(oci.Errorf(oci.CodeBlobUnknown, "the hub has lost %s", d))
			w.WriteHeader(status)
			_, _ = w.Write(text)
			return
		}
		if what != "blobs" {
			w.Header().Set("Content-Type", root.MediaType)
			if what == "manifests" {
				w.Header().Set("Content-Type", oci.OCIManifest)
			}
			_, _ = w.Write(text)
			return
		}
		http.ServeContent(cutter{w, h, d}, r, "", time.Time{}, bytes.NewReader(text))
	}))
	return nil
}

// cutter counts what leaves, and cuts it.
type cutter struct {
	http.ResponseWriter
	h *hub
	d digest.Digest
}

func (c cutter) Write(p []byte) (int, error) {
	c.h.mu.Lock()
	c.h.sent[c.d] += len(p)
	cut := c.h.cut > 0
	if cut {
		if c.h.cut -= len(p); c.h.cut > 0 {
			cut = false
		} else {
			c.h.cut = 0
		}
	}
	conn := c.h.conn
	c.h.mu.Unlock()
	n, err := c.ResponseWriter.Write(p)
	if cut {
		_ = http.NewResponseController(c.ResponseWriter).Flush()
		_ = conn.Close()
	}
	return n, err
}

func (h *hub) keep(text []byte) v1.Descriptor {
	d := digest.FromBytes(text)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.texts[d] = text
	return v1.Descriptor{MediaType: "x", Digest: d, Size: int64(len(text))}
}

// image gives the hub an image.
func (h *hub) image(ref string, layers ...[]byte) v1.Descriptor {
	h.t.Helper()
	m := v1.Manifest{MediaType: oci.OCIManifest, Config: h.keep([]byte("config of " + ref))}
	m.SchemaVersion = 2
	for _, l := range layers {
		m.Layers = append(m.Layers, h.keep(l))
	}
	return h.root(ref, oci.OCIManifest, m)
}

func (h *hub) root(ref, mediaType string, m any) v1.Descriptor {
	h.t.Helper()
	text, err := json.Marshal(m)
	if err != nil {
		h.t.Fatal(err)
	}
	d := h.keep(text)
	d.MediaType = mediaType
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refs[ref] = oci.Stored{Digest: d.Digest, MediaType: mediaType, Text: text}
	return d
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

// player is an engine that pulls as docker does.
type player struct {
	mu     sync.Mutex
	layers map[digest.Digest]bool
	images map[string]string // ids by name
	pulled []string          // names that were pulled
	others map[string]string // what other registries have: ids by name
	inUse  map[string]bool   // ids of images that somebody has containers of
	err    error             // of other registries
	die    func()            // is called when an image has come, before anybody hears of it
}

func newPlayer() *player {
	return &player{layers: map[digest.Digest]bool{}, images: map[string]string{}}
}

func (p *player) Image(_ context.Context, ref string) (engine.Image, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	id, ok := p.images[ref]
	for _, is := range p.images {
		if is == ref {
			id, ok = ref, true
		}
	}
	if !ok {
		return engine.Image{}, engine.ErrNotFound
	}
	out := engine.Image{ID: id, Size: 1 << 30}
	for name, is := range p.images {
		switch {
		case is != id || name == "":
		case strings.Contains(name, "@"):
			out.Digests = append(out.Digests, name)
		case !strings.HasPrefix(name, nameless):
			out.Names = append(out.Names, name)
		}
	}
	return out, nil
}

// nameless begins what stands for an image that has lost its names to others.
const nameless = "<none> "

func (p *player) Tag(_ context.Context, id, ref string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.name(ref, id)
	return nil
}

// name is under the lock.
func (p *player) name(ref, id string) {
	if before := p.images[ref]; before != "" && before != id {
		p.images[nameless+before] = before
	}
	p.images[ref] = id
	delete(p.images, nameless+id)
}

func (p *player) Untag(_ context.Context, ref string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	id := p.images[ref]
	if p.images[nameless+ref] != "" {
		id, ref = ref, nameless+ref
	}
	if id == "" {
		return engine.ErrNotFound
	}
	left := 0
	for _, is := range p.images {
		if is == id {
			left++
		}
	}
	if left == 1 && p.inUse[id] {
		return engine.ErrConflict
	}
	delete(p.images, ref)
	return nil
}

func (p *player) Pull(ctx context.Context, ref string, progress func(engine.Progress)) error {
	p.mu.Lock()
	p.pulled = append(p.pulled, ref)
	p.mu.Unlock()
	host, rest, _ := strings.Cut(ref, "/")
	if !strings.HasPrefix(host, "127.0.0.1:") {
		p.mu.Lock()
		defer p.mu.Unlock()
		if id := p.others[ref]; id != "" {
			p.name(ref, id)
		}
		return p.err
	}
	repo, d, _ := strings.Cut(rest, "@")
	base := "http://" + host + "/v2/" + repo
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	var m v1.Manifest
	for {
		text, kind, err := fetch(ctx, client, base+"/manifests/"+d)
		if err != nil {
			return err
		}
		if digest.FromBytes(text).String() != d {
			return errors.New("another manifest")
		}
		if kind != oci.OCIIndex {
			if err := json.Unmarshal(text, &m); err != nil {
				return err
			}
			break
		}
		var index v1.Index
		if err := json.Unmarshal(text, &index); err != nil {
			return err
		}
		d = index.Manifests[0].Digest.String()
	}
	var known []string
	for _, l := range append(m.Layers, m.Config) {
		p.mu.Lock()
		here := p.layers[l.Digest]
		p.mu.Unlock()
		if here {
			known = append(known, l.Digest.Encoded()[:12])
			progress(engine.Progress{Here: known})
			continue
		}
		var err error
		for range 3 {
			var text []byte
			if text, _, err = fetch(ctx, client, base+"/blobs/"+l.Digest.String()); err == nil && digest.FromBytes(text) != l.Digest {
				err = errors.New("filesystem layer verification failed")
			}
			if err == nil {
				break
			}
		}
		if err != nil {
			return fmt.Errorf("pull %s: %w", ref, err)
		}
		p.mu.Lock()
		p.layers[l.Digest] = true
		p.mu.Unlock()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.name(ref, m.Config.Digest.String())
	if p.die != nil {
		p.die()
		return errors.New("killed")
	}
	return nil
}

func fetch(ctx context.Context, client *http.Client, url string) (text []byte, contentType string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	text, err = io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != 200 {
		err = fmt.Errorf("%s: %s", resp.Status, text)
	}
	return text, resp.Header.Get("Content-Type"), err
}

func newPuller(t *testing.T, h *hub, e Engine) *Puller {
	p := New(Config{Dir: filepath.Join(t.TempDir(), "images"), Engine: e, Hub: func() Hub { return h }, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	p.retry = backoff.Policy{Min: 5 * time.Millisecond, Max: 20 * time.Millisecond, Factor: 2}
	return p
}

func left(t *testing.T, p *Puller) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(p.cfg.Dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != bookName {
			names = append(names, e.Name())
		}
	}
	return names
}

func TestEachLayerOnce(t *testing.T) {
	h, e := newHub(t), newPlayer()
	p := newPuller(t, h, e)
	shared, one, two := random(300_000), random(200_000), random(100_000)
	h.image("app:1", shared, one)
	h.image("app:2", shared, two)
	h.image("app:3", shared, one, two) // everything is there by then
	var last engine.Progress
	for _, ref := range []string{"app:1", "app:2", "app:3"} {
		if err := p.Pull(t.Context(), ref, func(p engine.Progress) { last = p }); err != nil {
			t.Fatal(err)
		}
		if _, err := e.Image(t.Context(), ref); err != nil {
			t.Errorf("%s is not there", ref)
		}
		if want := map[string]int64{"app:1": 500_000, "app:2": 100_000}[ref]; last.Done != want || last.Total != want {
			t.Errorf("%s: %+v at the end, want %d bytes", ref, last, want)
		}
	}
	for d, n := range h.sent {
		if n != len(h.texts[d]) {
			t.Errorf("%d bytes of %s were sent, it has %d", n, d, len(h.texts[d]))
		}
	}
	if len(e.images) != 3 || len(left(t, p)) != 0 || p.server != nil {
		t.Errorf("the engine has %v, left is %v", e.images, left(t, p))
	}
	pulls := len(e.pulled)
	h.mu.Lock()
	h.refs["again:1"] = h.refs["app:1"] // the image has one more name
	h.mu.Unlock()
	if err := p.Pull(t.Context(), "again:1", nil); err != nil || len(e.pulled) != pulls || e.images["again:1"] != e.images["app:1"] {
		t.Errorf("%v: %v", err, e.pulled[pulls:])
	}
}

func TestAtOnce(t *testing.T) {
	h, e := newHub(t), newPlayer()
	p := newPuller(t, h, e)
	shared := random(500_000)
	var all sync.WaitGroup
	for n := range 4 {
		ref := fmt.Sprintf("app:%d", n)
		h.image(ref, shared, random(50_000))
		all.Go(func() {
			if err := p.Pull(t.Context(), ref, nil); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := h.sent[digest.FromBytes(shared)]; n != len(shared) {
		t.Errorf("%d bytes of the shared layer were sent, it has %d", n, len(shared))
	}
	if l := left(t, p); len(l) != 0 {
		t.Errorf("left: %v", l)
	}
}

func TestCuts(t *testing.T) {
	h, e := newHub(t), newPlayer()
	p := newPuller(t, h, e)
	layer := random(3_000_000)
	h.image("app:1", layer)
	h.cut = 1_000_000
	if err := p.Pull(t.Context(), "app:1", nil); err != nil {
		t.Fatal(err)
	}
	// What was on its way at the cut is sent again.
	if n := h.sent[digest.FromBytes(layer)]; h.asked < 3 || n > len(layer)+4*bulk.Window+1_000_000 || !strings.HasPrefix(strings.Join(h.ranges, ","), ",bytes=") {
		t.Errorf("%d bytes in %d requests, %q", n, h.asked, h.ranges)
	}

	t.Run("whoever pulls is killed", func(t *testing.T) {
		layer := random(2_000_000)
		h.image("app:2", layer)
		ctx, cancel := context.WithCancel(t.Context())
		if err := p.Pull(ctx, "app:2", func(p engine.Progress) {
			if p.Done > 0 || p.Total > 0 {
				cancel()
			}
		}); err == nil {
			t.Skip("it was quicker")
		}
		before := h.sent[digest.FromBytes(layer)]
		if err := newPullerIn(t, p, h, e).Pull(t.Context(), "app:2", nil); err != nil {
			t.Fatal(err)
		}
		t.Logf("%d bytes were sent of %d before", h.sent[digest.FromBytes(layer)], before)
		if l := left(t, p); len(l) != 0 {
			t.Errorf("left: %v", l)
		}
	})
}

func newPullerIn(t *testing.T, old *Puller, h *hub, e Engine) *Puller {
	p := newPuller(t, h, e)
	p.cfg.Dir, p.book = old.cfg.Dir, &book{path: old.book.path}
	return p
}

func TestWhatIsOnTheDisk(t *testing.T) {
	h, e := newHub(t), newPlayer()
	p := newPuller(t, h, e)
	layer := random(1_000_000)
	h.image("app:1", layer)
	path := filepath.Join(p.cfg.Dir, digest.FromBytes(layer).Encoded())
	for what, c := range map[string]struct {
		name string
		text []byte
		most int
	}{
		"a good beginning":     {path + partial, layer[:900_000], 100_000},
		"all of it":            {path, layer, 0},
		"all, not yet renamed": {path + partial, layer, 0},
		"a spoilt beginning":   {path + partial, append(random(10), layer[10:900_000]...), 1_100_000},
		"all of it, spoilt":    {path, append(random(10), layer[10:]...), 1_000_000},
		"too much":             {path + partial, append(bytes.Clone(layer), 'x'), 1_000_000},
	} {
		e := newPlayer()
		p.cfg.Engine = e
		h.mu.Lock()
		clear(h.sent)
		h.mu.Unlock()
		if err := os.MkdirAll(p.cfg.Dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(c.name, c.text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := p.Pull(t.Context(), "app:1", nil); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if n := h.sent[digest.FromBytes(layer)]; n != c.most {
			t.Errorf("%s: %d bytes were sent, want %d", what, n, c.most)
		}
		if l := left(t, p); len(l) != 0 {
			t.Errorf("%s: left: %v", what, l)
		}
	}
	old := filepath.Join(p.cfg.Dir, strings.Repeat("0", 64)+partial)
	if err := os.WriteFile(old, []byte("of long ago"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(old, time.Time{}, time.Now().Add(-2*keptFor)); err != nil {
		t.Fatal(err)
	}
	h.image("other:1", random(10))
	if err := p.Pull(t.Context(), "other:1", nil); err != nil {
		t.Error(err)
	}
	if l := left(t, p); len(l) != 0 {
		t.Errorf("left: %v", l)
	}
}

func TestWhoIsAsked(t *testing.T) {
	h, e := newHub(t), newPlayer()
	p := newPuller(t, h, e)
	if err := p.Pull(t.Context(), "upstream:1", nil); err != nil || strings.Join(e.pulled, " ") != "upstream:1" {
		t.Errorf("what the hub does not have: %v, %v", e.pulled, err)
	}
	e.err = errors.New("pull access denied")
	if err := p.Pull(t.Context(), "upstream:1", nil); err == nil || !strings.Contains(err.Error(), "the hub has no image upstream:1") || !strings.Contains(err.Error(), "access denied") {
		t.Error(err)
	}
	e.pulled = nil
	for _, c := range []struct {
		refuse error
		says   string
	}{
		{models.Errorf(models.KindGone, "the hub has no image hub:8080/app:1"), "the hub has no image hub:8080/app:1"},
		{models.Errorf(models.KindForbidden, "node runs no such pod"), "runs no such pod"},
		{models.Errorf(models.KindUnavailable, "away"), "cannot be asked"},
	} {
		h.refuse = c.refuse
		if err := p.Pull(t.Context(), "app:1", nil); err == nil || !strings.Contains(err.Error(), c.says) || len(e.pulled) != 0 {
			t.Errorf("%v: %v, asked %v", c.refuse, err, e.pulled)
		}
	}
	h.refuse = nil
	h.mu.Lock()
	h.away = true
	h.mu.Unlock()
	if err := p.Pull(t.Context(), "app:1", nil); err == nil || len(e.pulled) != 0 { // not even when there is no link
		t.Errorf("%v, asked %v", err, e.pulled)
	}
	if err := p.Pull(t.Context(), "Not A Name", nil); models.KindOf(err) != models.KindMalformed {
		t.Error(err)
	}
}

func TestFailures(t *testing.T) {
	h, e := newHub(t), newPlayer()
	p := newPuller(t, h, e)
	layer := random(100_000)
	h.image("lost:1", layer)
	h.mu.Lock()
	delete(h.texts, digest.FromBytes(layer))
	h.mu.Unlock()
	if err := p.Pull(t.Context(), "lost:1", nil); err == nil || !strings.Contains(err.Error(), "the hub has lost") || strings.Contains(err.Error(), "127.0.0.1") {
		t.Errorf("%v", err)
	}
	spoilt := random(100_000)
	h.image("spoilt:1", spoilt)
	h.mu.Lock()
	h.texts[digest.FromBytes(spoilt)] = random(100_000)
	h.mu.Unlock()
	if err := p.Pull(t.Context(), "spoilt:1", nil); err == nil || strings.Contains(err.Error(), "127.0.0.1") {
		t.Errorf("%v", err)
	}
	if _, err := e.Image(t.Context(), "spoilt:1"); err == nil {
		t.Error("it is there")
	}
	h.root("nonsense:1", oci.OCIManifest, map[string]int{"schemaVersion": 1})
	if err := p.Pull(t.Context(), "nonsense:1", nil); err == nil || !strings.Contains(err.Error(), "schemaVersion") {
		t.Errorf("%v", err)
	}
}

func TestIndexAndDigest(t *testing.T) {
	h, e := newHub(t), newPlayer()
	p := newPuller(t, h, e)
	image := h.image("child:1", random(1000))
	index := v1.Index{MediaType: oci.OCIIndex, Manifests: []v1.Descriptor{image}}
	index.SchemaVersion = 2
	root := h.root("multi:1", oci.OCIIndex, index)
	name := "multi@" + root.Digest.String()
	h.mu.Lock()
	h.refs[name] = h.refs["multi:1"]
	h.mu.Unlock()
	for _, name := range []string{"multi:1", name} {
		if err := p.Pull(t.Context(), name, nil); err != nil {
			t.Fatal(err)
		}
	}
	if e.images["multi:1"] == "" || e.images["multi:sha256-"+root.Digest.Encoded()] == "" {
		t.Errorf("the engine has %v", e.images)
	}
}

// Whoever is on this machine, and is not the engine, finds nothing.
func TestRegistryIsClosedToOthers(t *testing.T) {
	h, e := newHub(t), newPlayer()
	p := newPuller(t, h, e)
	layer := random(1000)
	d := h.image("app:1", layer)
	one := p.newPull(t.Context(), "app:1")
	defer one.client.CloseIdleConnections()
	var err error
	if one.root, err = one.ask(t.Context(), "/manifest"); err != nil {
		t.Fatal(err)
	}
	host, err := p.begin(one)
	if err != nil {
		t.Fatal(err)
	}
	defer p.end(one, true)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for path, status := range map[string]string{
		"/v2/": "200", "/v2/_catalog": "404", "/v2/guess/image/manifests/" + d.Digest.String(): "404", "/v2/app/manifests/1": "404",
		"/v2/" + one.secret + "/image/manifests/" + d.Digest.String():           "200",
		"/v2/" + one.secret + "/image/manifests/1":                              "400",
		"/v2/" + one.secret + "/image/blobs/" + digest.FromString("x").String(): "404",
		"/v2/" + one.secret + "/image/blobs/../../x":                            "404",
		"/v2/" + one.secret + "/image/tags/" + d.Digest.String():                "400",
	} {
		_, _, err := fetch(t.Context(), client, "http://"+host+path)
		got := "200"
		if err != nil {
			got = err.Error()
		}
		if !strings.HasPrefix(got, status) {
			t.Errorf("%s: %s, want %s", path, got, status)
		}
	}
	resp, err := client.Post("http://"+host+"/v2/"+one.secret+"/image/blobs/uploads/", "", nil)
	if err != nil || resp.StatusCode != 405 {
		t.Errorf("%v %v", resp, err)
	} else {
		_ = resp.Body.Close()
	}
}
