package twins

import (
	"context"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/history"
	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/twin"
)

// History is what a cache needs of the store to know what came between its last
// checkpoint and the end of the process before.
type History interface {
	LastSince(ctx context.Context, since map[string]map[string]int64, atUS int64) (map[string]map[string]store.Sample, error)
}

// replayAhead is how far an edge's clock may be ahead for its samples to be
// replayed. History has no order but time: what is dated later is of a clock that
// was wrong, and may be older than what the shadow has.
const replayAhead = time.Minute

// replayPart is how many devices are asked for at once: what has just arrived lies in
// rows of many series each, which are read once for all of them.
const replayPart = 128

// replay brings the shadows up to what was committed: a hub that was killed has
// acknowledged more than it had checkpointed, and an edge that stays away does not
// say it again. It runs once, beside everything else: a device that says something
// meanwhile is left alone. What is not kept as history cannot be found again.
func (c *Cache) replay(ctx context.Context) {
	if c.history == nil {
		return
	}
	began, replayed := time.Now(), 0
	until := c.now().Add(replayAhead).UnixMicro()
	uids := c.registry.DeviceUIDs(models.ListOptions{})
	slices.Sort(uids) // those that were made one after the other are neighbours in history, too
	for part := range slices.Chunk(uids, replayPart) {
		if ctx.Err() != nil {
			return
		}
		at, since := map[string]map[string]twin.Position{}, map[string]map[string]int64{}
		for _, uid := range part {
			at[uid], since[uid] = c.checkpointed(uid)
		}
		last, err := c.history.LastSince(ctx, since, until)
		if err != nil {
			if ctx.Err() == nil {
				c.log.Error("twins may be older than what was acknowledged, until their edges say them anew", "devices", len(part), "first", part[0], "error", err)
			}
			continue
		}
		for _, uid := range part {
			if c.catchUp(uid, at[uid], last[uid]) {
				replayed++
			}
		}
	}
	if replayed > 0 {
		c.log.Info("twins are brought up to what was committed", "devices", replayed, "took", time.Since(began).Round(time.Millisecond))
	}
}

// checkpointed returns where the reported values of a device's shadow were said, and
// the times after which a sample is news, of the properties that history knows.
func (c *Cache) checkpointed(uid string) (at map[string]twin.Position, since map[string]int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	view, there := c.registry.DeviceByUID(uid)
	if !there {
		return nil, nil
	}
	at, since = map[string]twin.Position{}, map[string]int64{}
	d := c.devices[uid]
	for _, p := range view.Properties {
		if !p.History {
			continue
		}
		at[p.Name], since[p.Name] = twin.Position{}, math.MinInt64
		if d != nil {
			if known := d.shadow.Property(p.Name); known != nil {
				at[p.Name] = known.At
				if r := known.Reported; r.Known() { // catchUp takes nothing that is older
					since[p.Name] = max(r.Time.UnixMicro(), r.Since.UnixMicro()) - 1
				}
			}
		}
	}
	return at, since
}

// catchUp takes samples that are newer than the shadow, of properties of which
// nothing has been said since.
func (c *Cache) catchUp(uid string, at map[string]twin.Position, last map[string]store.Sample) (changed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	view, there := c.registry.DeviceByUID(uid)
	if !there {
		return false
	}
	d := c.deviceLocked(view)
	if d.session != 0 || c.liveLocked(view.Device.Spec.Node) {
		return false // its edge says everything of it, in the order in which it was
	}
	for name, v := range last {
		was, kept := at[name]
		if !kept {
			continue // of a model that the device had before, or none of its values
		}
		value, err := history.Value(v)
		if err != nil {
			continue
		}
		sample := models.Sample{Value: value, Quality: min(models.Quality(v.Quality), models.Bad), Reason: models.Reason(v.Reason), Time: clamp(time.UnixMicro(v.TimeUS).UTC())}
		if p := d.shadow.Property(name); p != nil && (p.At != was || !sample.Time.After(p.Reported.Time) || !sample.Time.After(p.Reported.Since)) {
			continue
		}
		if sample.Quality != models.Bad {
			d.seen(sample.Time, c.now())
		}
		changed = d.shadow.Report(strings.Clone(name), sample, was) || changed
	}
	if changed {
		c.changedLocked(d, false)
	}
	return changed
}
