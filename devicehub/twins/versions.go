package twins

import (
	"context"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/twin"
)

// The version of a twin never goes back: whoever has seen one may take a later
// document for the newer by it. Checkpoints are behind what was shown, so a life of
// the hub that was killed may have shown versions that are stored nowhere. The next
// one counts on from an era of its own, above all of them.

// nextEra is the era of a life that begins with checkpoints whose highest version is
// this.
func nextEra(v store.Versions, highest uint64) int64 {
	if !v.Open {
		return v.Era // the checkpoints have all that was shown
	}
	return max(v.Era, int64((highest+twin.EraSize/2)/twin.EraSize)) + 1
}

// beginVersions moves all twins to where this life counts on. The era is stored before
// anybody is shown one.
func (c *Cache) beginVersions(ctx context.Context, highest uint64) error {
	v, err := c.store.Versions(ctx)
	if err != nil {
		return err
	}
	c.era = nextEra(v, highest)
	if err := c.store.SetVersions(ctx, store.Versions{Era: c.era, Open: true}); err != nil {
		return err
	}
	for _, d := range c.devices {
		// Also where nothing is missing: until its edge is back the twin looks different.
		d.shadow.Version = max(d.shadow.Version+1, c.firstVersion())
	}
	return nil
}

// firstVersion is that of a twin of which no checkpoint tells.
func (c *Cache) firstVersion() uint64 { return uint64(c.era) * twin.EraSize }

// endVersions notes that the checkpoints have all that was shown.
func (c *Cache) endVersions(ctx context.Context) {
	if err := c.store.SetVersions(ctx, store.Versions{Era: c.era}); err != nil {
		c.log.Warn("the end of this life is not noted; versions of twins go on above all that there may have been", "error", err)
	}
}
