package images

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/engine"
)

// Digest is what registries call an image that was brought here, NAME@sha256:…, by
// the engine's id; "" when that is not known.
func (p *Puller) Digest(id string) (digest string) {
	_ = p.book.look(func(g *page) { // whoever changes it says so
		if e := g.Images[id]; e != nil {
			digest = e.Digest
		}
	})
	return digest
}

// note changes the book. That it cannot be written is no reason not to go on: at
// worst an image stays that could go.
func (p *Puller) note(do func(*page)) {
	if err := p.book.change(do); err != nil {
		p.cfg.Log.Warn("images: what is noted of those in the engine is not kept", "error", err)
	}
}

// Recover finishes what a life before this one has begun: an image that the engine
// has got, and that has not got its name.
func (p *Puller) Recover(ctx context.Context) error {
	left := map[string]arrival{}
	p.note(func(g *page) { left = maps.Clone(g.Pulls) })
	p.mu.Lock()
	maps.DeleteFunc(left, func(name string, _ arrival) bool { return p.busy[name] })
	p.mu.Unlock()
	for name, a := range left {
		_, err := p.cfg.Engine.Image(ctx, a.Name)
		if err != nil && !errors.Is(err, engine.ErrNotFound) {
			return err
		}
		if err == nil {
			a.Name = "" // it was fetched again, or is somebody else's
		}
		if err := p.arrive(ctx, name, a); err != nil && !errors.Is(err, engine.ErrNotFound) {
			return err
		}
		p.note(func(g *page) { delete(g.Pulls, name) })
	}
	return nil
}

// arrive gives an image that the engine has pulled by a name that means nothing the
// one that it is to have.
func (p *Puller) arrive(ctx context.Context, name string, a arrival) error {
	here, err := p.cfg.Engine.Image(ctx, name)
	if err != nil {
		return err
	}
	e := entry{Digest: a.Digest, Size: here.Size, Fetched: len(here.Names) == 0}
	if a.Name != "" {
		e.Names = []string{a.Name}
	}
	p.note(func(g *page) { g.add(here.ID, e) })
	if a.Name != "" {
		if err := p.cfg.Engine.Tag(ctx, here.ID, a.Name); err != nil {
			return err
		}
	}
	if err := p.cfg.Engine.Untag(ctx, name); err != nil && !errors.Is(err, engine.ErrNotFound) {
		p.cfg.Log.Warn("images: the engine keeps a name that means nothing", "name", name, "error", err)
	}
	return nil
}

// Collect removes images from the engine that were brought here by a Puller of this
// folder, and that nobody has used for so long, or that so many others are beside,
// that they are not worth their room. used says of an image, by its id and by the
// names that are ours, whether a pod needs it, without waiting for anything. Images of others stay, and so do
// ours while somebody else has a container of them, or has given them a name.
func (p *Puller) Collect(ctx context.Context, used func(id string, names []string) bool) error {
	if err := p.Recover(ctx); err != nil {
		return err
	}
	now := time.Now()
	var doomed []string
	p.note(func(g *page) {
		g.see(now, used)
		doomed = g.doomed(now, false)
	})
	held := map[string]bool{} // by somebody else
	for _, id := range doomed {
		if err := p.remove(ctx, id, held); err != nil {
			return err
		}
	}
	for p.short(ctx) {
		p.note(func(g *page) {
			doomed = slices.DeleteFunc(g.doomed(now, true), func(id string) bool { return held[id] })
		})
		if len(doomed) == 0 {
			break
		}
		if err := p.remove(ctx, doomed[0], held); err != nil {
			return err
		}
	}
	return nil
}

// short reports whether the engine's disk has little room.
func (p *Puller) short(ctx context.Context) bool {
	if p.cfg.Room == nil {
		return false
	}
	free, total, err := p.cfg.Room(ctx)
	return err == nil && total > 0 && float64(free) < scarce*float64(total)
}

// remove takes our names from an image, and with the last one the image.
func (p *Puller) remove(ctx context.Context, id string, held map[string]bool) error {
	var e entry
	p.note(func(g *page) {
		if is := g.Images[id]; is != nil {
			e = *is
			e.Names = slices.Clone(is.Names)
		}
	})
	untag := func(ref string) error {
		err := p.cfg.Engine.Untag(ctx, ref)
		switch {
		case errors.Is(err, engine.ErrConflict):
			held[id] = true
			p.cfg.Log.Debug("images: an image that no app needs is used by somebody else", "image", ref, "error", err)
			return nil
		case errors.Is(err, engine.ErrNotFound):
			return nil
		}
		return err
	}
	for _, name := range e.Names {
		here, err := p.cfg.Engine.Image(ctx, name)
		if errors.Is(err, engine.ErrNotFound) || err == nil && here.ID != id {
			continue // that name is somebody else's by now
		}
		if err == nil {
			err = untag(name)
		}
		if err != nil {
			return err
		}
	}
	here, err := p.cfg.Engine.Image(ctx, id)
	if err == nil && e.Fetched && len(here.Names) == 0 && len(here.Digests) == 0 {
		err = untag(id)
	}
	if err != nil && !errors.Is(err, engine.ErrNotFound) {
		return err
	}
	if held[id] {
		return nil // tried again with the next round
	}
	p.cfg.Log.Info("images: no app needs it any more, removed from the engine", "image", strings.Join(e.Names, " "), "id", id, "unused", e.Unused)
	p.note(func(g *page) { delete(g.Images, id) })
	return nil
}
