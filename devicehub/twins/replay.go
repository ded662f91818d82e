package twins

import (
	"context"
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
	LastSamples(ctx context.Context, deviceUID string, properties []string, atUS int64) (map[string]store.Sample, error)
}

// replayAhead is how far an edge's clock may be ahead for its samples to be
// replayed. History has no order but time: what is dated later is of a clock that
// was wrong, and may be older than what the shadow has.
const replayAhead = time.Minute

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
	for _, uid := range c.registry.DeviceUIDs(models.ListOptions{}) {
		if ctx.Err() != nil {
			return
		}
		at, names := c.checkpointed(uid)
		if len(names) == 0 {
			continue
		}
		last, err := c.history.LastSamples(ctx, uid, names, until)
		if err != nil {
			if ctx.Err() == nil {
				c.log.Error("a twin may be older than what was acknowledged, until its edge says it anew", "device", uid, "error", err)
			}
			continue
		}
		if c.catchUp(uid, at, last) {
			replayed++
		}
	}
	if replayed > 0 {
		c.log.Info("twins are brought up to what was committed", "devices", replayed, "took", time.Since(began).Round(time.Millisecond))
	}
}

// checkpointed returns the properties that history knows of a device, and where the
// reported values of its shadow were said.
func (c *Cache) checkpointed(uid string) (at map[string]twin.Position, names []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	view, there := c.registry.DeviceByUID(uid)
	if !there {
		return nil, nil
	}
	at = map[string]twin.Position{}
	d := c.devices[uid]
	for _, p := range view.Properties {
		if !p.History {
			continue
		}
		names = append(names, p.Name)
		if d != nil {
			if known := d.shadow.Properties[p.Name]; known != nil {
				at[p.Name] = known.At
			}
		}
	}
	return at, names
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
		value, err := history.Value(v)
		if err != nil {
			continue
		}
		sample := models.Sample{Value: value, Quality: min(models.Quality(v.Quality), models.Bad), Reason: models.Reason(v.Reason), Time: clamp(time.UnixMicro(v.TimeUS).UTC())}
		if p := d.shadow.Properties[name]; p != nil && (p.At != at[name] || !sample.Time.After(p.Reported.Time) || !sample.Time.After(p.Reported.Since)) {
			continue
		}
		if sample.Quality != models.Bad {
			d.seen(sample.Time, c.now())
		}
		changed = d.shadow.Report(strings.Clone(name), sample, at[name]) || changed
	}
	if changed {
		c.changedLocked(d, false)
	}
	return changed
}
