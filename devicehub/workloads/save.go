package workloads

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
)

const (
	saveEvery = time.Second // so much of what nodes told may be old after a crash
	saveLast  = 5 * time.Second
)

// load takes in what nodes told of their pods before the hub was started. What is
// of pods that are gone goes with the first look at everything.
func (c *Controller) load(ctx context.Context) error {
	b := &c.book
	b.mu.Lock()
	defer b.mu.Unlock()
	return c.store.PodStates(ctx, func(p store.PodState) error {
		r := report{node: p.Node, at: p.Told}
		if err := json.Unmarshal(p.JSON, &r.status); err != nil {
			c.log.Error("what a node told of a pod cannot be read; it is left out", "node", p.Node, "pod", p.PodUID, "error", err)
			b.unsaved[p.PodUID] = true
			return nil
		}
		if r.status.Ready {
			r.ready = r.at // at the latest
		}
		b.reports[p.PodUID] = r
		return nil
	})
}

// save stores what nodes tell until ctx ends, and then the last of it. Every
// transaction takes what has come in a second, of each pod the latest only; what
// cannot be stored is tried again with what comes next.
func (c *Controller) save(ctx context.Context) {
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := c.saveOnce(ctx); err != nil && ctx.Err() == nil {
				c.log.Warn("what nodes told of their pods is not stored; it is tried again", "error", err)
			}
		case <-ctx.Done():
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveLast)
			defer cancel()
			if err := c.saveOnce(ctx); err != nil {
				c.log.Warn("the last that nodes told of their pods is not stored", "error", err)
			}
			return
		}
	}
}

func (c *Controller) saveOnce(ctx context.Context) (err error) {
	b := &c.book
	b.mu.Lock()
	uids := b.unsaved
	b.unsaved = map[string]bool{}
	reports := map[string]report{} // their statuses are never changed
	for uid := range uids {
		if r, ok := b.reports[uid]; ok {
			reports[uid] = r
		}
	}
	b.mu.Unlock()
	defer func() {
		if err != nil {
			b.mu.Lock()
			defer b.mu.Unlock()
			for uid := range uids {
				b.unsaved[uid] = true
			}
		}
	}()
	var put []store.PodState
	var drop []string
	for uid := range uids {
		r, ok := reports[uid]
		if !ok {
			drop = append(drop, uid)
			continue
		}
		text, err := json.Marshal(r.status)
		if err != nil {
			return fmt.Errorf("status of pod %s: %w", uid, err)
		}
		put = append(put, store.PodState{PodUID: uid, Node: r.node, Told: r.at, JSON: text})
	}
	return c.store.SavePodStates(ctx, put, drop)
}
