package devicehub

import (
	"context"
	"fmt"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/sessions"
	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/models"
)

// defaultComeBack is Config.ComeBack where that is not set.
const defaultComeBack = time.Minute

// absences tells, once, of the nodes that were there when the hub ended and have not
// come back: nobody saw their links end, or the hub was killed before it had stored
// that.
func (h *Hub) absences(ctx context.Context) error {
	wait := h.cfg.ComeBack
	if wait == 0 {
		wait = defaultComeBack
	}
	tick := time.NewTicker(wait)
	defer tick.Stop()
	for told := false; ; {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		if told {
			continue
		}
		err := h.tellAbsent(ctx)
		if told = err == nil; !told && ctx.Err() == nil {
			h.log.Error("which nodes have not come back is not known; will look again", "error", err)
		}
	}
}

func (h *Hub) tellAbsent(ctx context.Context) error {
	nodes, err := h.Registry.List(ctx, models.ListOptions{Kind: "Node"})
	if err != nil {
		return err
	}
	for _, o := range nodes.Items {
		m := o.Meta()
		if h.sessions.Live(m.Name) {
			continue
		}
		there, err := h.lastToldThere(ctx, m.UID)
		if err != nil {
			return err
		}
		if !there || h.sessions.Live(m.Name) {
			continue
		}
		h.events.Note(ctx, models.Occurrence{Object: models.ObjectReference{Kind: "Node", Name: m.Name, UID: m.UID}, Severity: models.SeverityWarning,
			Reason: sessions.NodeNotReady, Message: fmt.Sprintf("it has not come back since the hub started, %v ago", h.now().Sub(h.started).Round(time.Second)), Source: "link"})
	}
	return nil
}

// lastToldThere reports whether the last that the events tell of a node is that it
// connected.
func (h *Hub) lastToldThere(ctx context.Context, uid string) (bool, error) {
	last := map[string]int64{} // reason to revision, which tells the order also where the clock has jumped
	for _, reason := range []string{sessions.NodeReady, sessions.NodeNotReady} {
		found, err := h.cfg.Store.EventsPage(ctx, store.EventQuery{Kind: "Node", UID: uid, Reason: reason, Limit: 10})
		if err != nil {
			return false, err
		}
		for i := range found {
			last[reason] = max(last[reason], found[i].Revision)
		}
	}
	return last[sessions.NodeReady] > last[sessions.NodeNotReady], nil
}
