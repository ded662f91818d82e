package twins

import (
	"context"
	"slices"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/twin"
)

// What became of a write is in the ledger before it is here, and the edge that told of
// it does not do so again once that is acknowledged, but at the start of a session. A
// hub that was killed between the two, and whose edge stays away, would say pending for
// ever, and withdraw as overdue what the device has confirmed. So after a start
// the ledger is asked.

// readWritesFor bounds how long Run reads the ledger until it looks after other things.
const readWritesFor = time.Second

// always is a time at which a desired value that stands still is one, whatever clocks
// have shown.
var always = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

// unsettled are the devices with a desired value of which no final state is known.
func (c *Cache) unsettled() (uids []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, uid := range c.registry.DeviceUIDs(models.ListOptions{}) {
		view, there := c.registry.DeviceByUID(uid)
		if !there {
			continue
		}
		for property := range view.Desired.Properties {
			if v, live := view.Desired.Live(property); live && !c.writeLocked(uid, property, v.ID).State.Final() {
				uids = append(uids, uid)
				break
			}
		}
	}
	slices.Sort(uids)
	return uids
}

// readWrites takes from the ledger what is final there and not here, and reports
// whether it has done so for all devices. What fails is tried again with the next
// checkpoint.
func (c *Cache) readWrites(ctx context.Context) (all bool) {
	for began := time.Now(); len(c.unread) > 0; c.unread = c.unread[1:] {
		if time.Since(began) > readWritesFor {
			return false
		}
		uid := c.unread[0]
		writes, err := c.store.DesiredAt(ctx, uid, always)
		if err != nil {
			if ctx.Err() == nil {
				c.log.Warn("what became of writes is not read from the ledger; will try again", "devices", len(c.unread), "error", err)
			}
			return false
		}
		c.takeWrites(uid, writes)
	}
	return true
}

// takeWrites takes what the ledger says of the writes that are desired now.
func (c *Cache) takeWrites(uid string, writes []store.Write) {
	c.mu.Lock()
	defer c.mu.Unlock()
	view, there := c.registry.DeviceByUID(uid)
	if !there {
		return
	}
	d, changed := c.deviceLocked(view), false
	for i := range writes {
		w := &writes[i]
		v, live := view.Desired.Live(w.Property)
		if !live || v.ID != w.ID || !twin.WriteState(w.State).Final() || c.writeLocked(uid, w.Property, w.ID).State.Final() {
			continue
		}
		changed = d.setWrite(view, w.Property, twin.Write{ID: w.ID, State: twin.WriteState(w.State), Error: w.Error, Refused: w.Refused, Late: w.Late, Time: w.Ended}) || changed
	}
	if changed {
		c.changedLocked(d, false)
	}
}
