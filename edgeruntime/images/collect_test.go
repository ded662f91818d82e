package images

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
)

func (p *player) names() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(slices.Sorted(maps.Keys(p.images)), ", ")
}

// offline is a Puller that asks nobody: what it knows came before.
func offline(t *testing.T, dir string, e Engine) *Puller {
	return New(Config{Dir: dir, Engine: e, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
}

func configOf(ref string) string { return digest.FromString("config of " + ref).String() }

func none(string, []string) bool { return false }

func TestCollect(t *testing.T) {
	h, e := newHub(t), newPlayer()
	p := newPuller(t, h, e)
	ctx := t.Context()
	h.image("app:1", random(100))
	h.image("theirs:1", random(100))
	h.image("both:1", random(100))
	e.images["mine:1"] = "sha256:mine"
	e.images["built:1"] = configOf("theirs:1") // the hub's theirs:1 was built here
	e.others = map[string]string{"upstream:1": "sha256:upstream", "held:1": "sha256:held"}
	e.inUse = map[string]bool{"sha256:held": true}
	for _, name := range []string{"app:1", "theirs:1", "both:1", "upstream:1", "held:1"} {
		if err := p.Pull(ctx, name, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Tag(ctx, configOf("both:1"), "somebodys:1"); err != nil {
		t.Fatal(err)
	}
	if got, want := p.Digest(e.images["app:1"]), "app@"+h.refs["app:1"].Digest.String(); got != want {
		t.Errorf("the digest is %q, want %q", got, want)
	}
	all := e.names()
	needs := map[string]bool{"app:1": true}
	used := func(_ string, names []string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return needs[n] })
	}
	age := func(by time.Duration) { // the book's entries
		t.Helper()
		err := p.book.change(func(g *page) {
			for _, i := range g.Images {
				if !i.Unused.IsZero() {
					i.Unused = i.Unused.Add(-by)
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	collect := func(want string) {
		t.Helper()
		if err := p.Collect(ctx, used); err != nil {
			t.Fatal(err)
		}
		if got := e.names(); got != want {
			t.Errorf("the engine has %s\nwant %s", got, want)
		}
	}
	collect(all)
	age(keepUnused - time.Hour)
	p = newPullerIn(t, p, h, e) // another process
	collect(all)
	age(time.Hour)
	// What others have given a name or a container stays, as does what was here before.
	collect("app:1, built:1, held:1, mine:1, somebodys:1")
	// Used again, the time begins anew.
	delete(needs, "app:1")
	collect("app:1, built:1, held:1, mine:1, somebodys:1")
	age(keepUnused - time.Hour)
	needs["app:1"] = true
	collect("app:1, built:1, held:1, mine:1, somebodys:1")
	delete(needs, "app:1")
	e.inUse = nil
	collect("app:1, built:1, mine:1, somebodys:1")
	age(keepUnused)
	collect("built:1, mine:1, somebodys:1")
	if p.Digest("sha256:held") != "" || len(p.book.page.Images) != 0 {
		t.Errorf("the book has %+v", p.book.page.Images)
	}
}

// A tag that went to a newer image leaves one behind that has no name.
func TestCollectNameless(t *testing.T) {
	h, e := newHub(t), newPlayer()
	p := newPuller(t, h, e)
	var ids []string
	h.image("app:1", random(100))
	h.image("app:2", random(100))
	for n := range 2 {
		if n == 1 {
			h.mu.Lock()
			h.refs["app:1"] = h.refs["app:2"]
			h.mu.Unlock()
		}
		if err := p.Pull(t.Context(), "app:1", nil); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, e.images["app:1"])
	}
	if got := e.names(); got != nameless+ids[0]+", app:1" {
		t.Fatalf("the engine has %s", got)
	}
	used := func(id string, names []string) bool { return slices.Contains(names, "app:1") }
	for range 2 {
		if err := p.Collect(t.Context(), used); err != nil {
			t.Fatal(err)
		}
		if p.Digest(ids[0]) != "" {
			err := p.book.change(func(g *page) { g.Images[ids[0]].Unused = time.Now().Add(-keepUnused) })
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := e.names(); got != "app:1" || e.images["app:1"] != ids[1] {
		t.Errorf("the engine has %s", got)
	}
}

func TestDoomed(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) *entry { return &entry{Unused: now.Add(-d), Size: 3 << 29} }
	g := page{Images: map[string]*entry{"used": {Size: 100 << 30}, "a": ago(time.Minute), "b": ago(time.Hour), "c": ago(2 * time.Hour), "d": ago(3 * time.Hour), "old": ago(8 * 24 * time.Hour), "future": ago(-time.Hour)}}
	if got := fmt.Sprint(g.doomed(now, false)); got != "[old d c]" { // future, a and b have 4.5 of 5 GiB
		t.Errorf("%s goes", got)
	}
	if got := fmt.Sprint(g.doomed(now, true)); got != "[old d c b]" {
		t.Errorf("with little room %s goes", got)
	}
	g.see(now, none)
	if !g.Images["future"].Unused.Equal(now) || g.Images["used"].Unused.IsZero() {
		t.Errorf("%+v", g.Images)
	}
}

func TestCollectForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newPlayer()
		p := offline(t, t.TempDir(), e)
		free := uint64(10)
		p.cfg.Room = func(context.Context) (uint64, uint64, error) { return free + 4*uint64(3-len(e.images)), 100, nil }
		for n := range 3 {
			name := fmt.Sprintf("app:%d", n)
			e.images[name] = "sha256:" + name
			p.note(func(g *page) { g.add("sha256:"+name, entry{Names: []string{name}, Fetched: true, Size: 1}) })
			if err := p.Collect(t.Context(), none); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
		}
		time.Sleep(graceUnused)
		if err := p.Collect(t.Context(), none); err != nil {
			t.Fatal(err)
		}
		if got := e.names(); got != "app:2" { // 18 are free then
			t.Errorf("the engine has %s", got)
		}
	})
}

// The edge is killed when the engine has an image, and before it has its name.
func TestKilledBeforeItsName(t *testing.T) {
	h, e := newHub(t), newPlayer()
	p := newPuller(t, h, e)
	h.image("app:1", random(1000))
	ctx, kill := context.WithCancel(t.Context())
	e.die = kill
	if err := p.Pull(ctx, "app:1", nil); err == nil {
		t.Fatal("it was not killed")
	}
	e.die = nil
	if got := e.names(); !strings.HasPrefix(got, "127.0.0.1:") || strings.Contains(got, ",") {
		t.Fatalf("the engine has %s", got)
	}
	again := offline(t, p.cfg.Dir, e) // and there is no hub
	if err := again.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := e.names(); got != "app:1" || again.Digest(e.images["app:1"]) == "" || len(again.book.page.Pulls) != 0 {
		t.Errorf("the engine has %s, the book %+v", got, again.book.page)
	}
	// One that never came, and one that has come again meanwhile.
	e.images["127.0.0.1:1/secret/image@sha256:1"] = "sha256:former"
	again.note(func(g *page) {
		g.Pulls["127.0.0.1:1/secret/image@sha256:1"] = arrival{"app:1", "app@sha256:1"}
		g.Pulls["127.0.0.1:1/secret/image@sha256:2"] = arrival{"app:2", "app@sha256:2"}
	})
	if err := again.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := e.names(); got != "app:1" || e.images["app:1"] == "sha256:former" || len(again.book.page.Pulls) != 0 {
		t.Errorf("the engine has %s, the book %+v", got, again.book.page)
	}
}

// What cannot be read is as good as nothing: no image is removed for it.
func TestDamagedBook(t *testing.T) {
	dir, e := t.TempDir(), newPlayer()
	if err := os.WriteFile(filepath.Join(dir, bookName), []byte(`{"images": {"sha`), 0o600); err != nil {
		t.Fatal(err)
	}
	e.images["app:1"] = "sha256:1"
	p := offline(t, dir, e)
	if err := p.Collect(t.Context(), none); err != nil {
		t.Fatal(err)
	}
	p.note(func(g *page) { g.add("sha256:2", entry{Names: []string{"app:2"}, Digest: "app@sha256:2"}) })
	if got := offline(t, dir, e).Digest("sha256:2"); got != "app@sha256:2" || e.names() != "app:1" {
		t.Errorf("digest %q, the engine has %s", got, e.names())
	}
}
