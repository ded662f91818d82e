package images

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/whimbrel-edge/whimbrel/internal/atomicfile"
)

// Bounds of the images in the engine that no pod needs. What pods need is not
// bounded but by the disk.
const (
	// keepUnused is how long one stays: the revision before may be wanted again.
	keepUnused = 7 * 24 * time.Hour
	// maxUnused is how much all of them may take; the longest unused go first.
	maxUnused = 5 << 30
	// scarce is the part of the engine's disk that is to be free. While it is not,
	// images go that were unused for graceUnused.
	scarce      = 0.15
	graceUnused = 10 * time.Minute
)

// bookName is the book's file, in the folder of what is on its way.
const bookName = "engine.json"

// book knows which images the engine has because of us: others are somebody
// else's, and stay.
type book struct {
	path string

	mu    sync.Mutex
	page  page
	saved []byte // what the file has; nil: it was not read yet
}

// page is what the file holds.
type page struct {
	Images map[string]*entry `json:"images"` // by the engine's id
	// Pulls are the names that images have in the engine while it pulls them from
	// us, written before: a kill in between leaves no name that nobody knows.
	Pulls map[string]arrival `json:"pulls,omitempty"`
}

// entry is an image that we had brought here, or gave a name.
type entry struct {
	Names   []string  `json:"names"`             // that are ours
	Digest  string    `json:"digest,omitempty"`  // NAME@sha256:…, as registries call it
	Fetched bool      `json:"fetched,omitempty"` // it was not here before: once it has no name it is ours to remove
	Size    int64     `json:"size"`
	Unused  time.Time `json:"unused,omitzero"` // since when no pod needs it
}

// arrival is what an image is to be called that is on its way.
type arrival struct {
	Name   string `json:"name"`
	Digest string `json:"digest"`
}

// change changes the page. What has changed is on the disk when it returns nil; when
// it returns an error it holds until the process ends.
func (b *book) change(do func(*page)) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	damage := b.openLocked()
	do(&b.page)
	text, err := json.MarshalIndent(b.page, "", " ")
	if err == nil && string(text) != string(b.saved) {
		if err = os.MkdirAll(filepath.Dir(b.path), 0o700); err == nil {
			err = atomicfile.WriteFile(b.path, text, 0o600)
		}
		if err == nil {
			b.saved = text
		}
	}
	return errors.Join(damage, err)
}

// look reads the page.
func (b *book) look(do func(*page)) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	err := b.openLocked()
	do(&b.page)
	return err
}

// openLocked reads the file, once.
func (b *book) openLocked() error {
	if b.saved != nil {
		return nil
	}
	text, err := os.ReadFile(b.path)
	if err == nil {
		err = json.Unmarshal(text, &b.page)
	}
	b.saved = append([]byte{}, text...)
	if err != nil {
		b.page = page{}
	}
	if b.page.Images == nil {
		b.page.Images = map[string]*entry{}
	}
	if b.page.Pulls == nil {
		b.page.Pulls = map[string]arrival{}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s cannot be read, so the images that it told of stay in the engine: %w", b.path, err)
	}
	return nil
}

// add takes note of an image that is in the engine.
func (g *page) add(id string, add entry) {
	e := g.Images[id]
	if e == nil {
		e = &entry{}
		g.Images[id] = e
	}
	for _, name := range add.Names {
		// It means this one now.
		for _, other := range g.Images {
			other.Names = slices.DeleteFunc(other.Names, func(n string) bool { return n == name })
		}
		e.Names = append(e.Names, name)
	}
	e.Digest, e.Size, e.Fetched, e.Unused = add.Digest, add.Size, e.Fetched || add.Fetched, time.Time{}
}

// see takes note of which images are used.
func (g *page) see(now time.Time, used func(id string, names []string) bool) {
	for id, e := range g.Images {
		switch {
		case used(id, e.Names):
			e.Unused = time.Time{}
		case e.Unused.IsZero(), e.Unused.After(now): // or the clock was set back
			e.Unused = now
		}
	}
}

// doomed are the images that are to go, the longest unused first. short: the disk
// has little room.
func (g *page) doomed(now time.Time, short bool) (ids []string) {
	unused := slices.DeleteFunc(slices.Sorted(maps.Keys(g.Images)), func(id string) bool { return g.Images[id].Unused.IsZero() })
	slices.SortStableFunc(unused, func(a, b string) int { return g.Images[b].Unused.Compare(g.Images[a].Unused) })
	var kept int64
	for _, id := range unused { // the shortest unused first
		e := g.Images[id]
		age := now.Sub(e.Unused)
		kept += e.Size
		if age >= keepUnused || age >= graceUnused && (short || kept > maxUnused) {
			kept -= e.Size
			ids = append(ids, id)
		}
	}
	slices.Reverse(ids)
	return ids
}
