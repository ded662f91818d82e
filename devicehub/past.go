package devicehub

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/history"
	"github.com/whimbrel-edge/whimbrel/devicehub/ingest"
	"github.com/whimbrel-edge/whimbrel/devicehub/registry"
	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/twin"
)

// services are the nodes that serve a device or did: those whose logs brought
// something, and the one that it is assigned to, which may have lost all it had.
func (h *Hub) services(ctx context.Context, uid string, view *registry.DeviceView) ([]store.Service, error) {
	nodes, err := h.cfg.Store.Services(ctx, uid)
	if err != nil || view == nil {
		return nodes, err
	}
	node, err := h.Registry.Get(ctx, models.Key{Kind: "Node", Name: view.Device.Spec.Node})
	if err != nil {
		return nodes, nil // it names no node, or one that has not joined
	}
	present := node.Meta().UID
	if !slices.ContainsFunc(nodes, func(s store.Service) bool { return s.NodeUID == present && s.Till.IsZero() }) {
		now := store.Service{NodeUID: present}
		for _, s := range nodes {
			if s.Till.After(now.Since) {
				now.Since = s.Till
			}
		}
		nodes = append(nodes, now)
	}
	return nodes, nil
}

// TwinAt returns a device's twin as it was at a time: what was reported from
// history, what was desired from the ledger. Properties are those that the model
// has now; of a device that was deleted, which its uid asks for, those that it has
// history of.
func (h *Hub) TwinAt(ctx context.Context, namespace, name, uid string, at time.Time) (twin.Document, error) {
	if now := h.now(); at.After(now) {
		return twin.Document{}, models.BadParameter(models.KindInvalid, "at", "(%s) is in the future; it is %s now", at.UTC().Format(time.RFC3339Nano), now.UTC().Format(time.RFC3339Nano))
	}
	uid, view, err := h.subject(ctx, namespace, name, uid)
	if err == nil && view == nil {
		view, err = h.deleted(ctx, namespace, name, uid, at)
	}
	if err != nil {
		return twin.Document{}, err
	}
	if made := view.Device.Metadata.CreationTimestamp; made != nil && at.Before(*made) {
		return twin.Document{}, models.Errorf(models.KindNotFound, "device %s was not there yet: it was created at %s", name, made.UTC().Format(time.RFC3339))
	}
	past := twin.Past{Device: name, Namespace: namespace, At: at, Properties: view.Properties}
	names := []string{ingest.StateSeries}
	for i := range view.Properties {
		if p := &view.Properties[i]; p.History && p.Uplink != models.UplinkNone {
			names = append(names, p.Name)
		}
	}
	var last map[string]store.Sample
	if past.Reported, last, err = history.ReportedAt(ctx, h.cfg.Store, uid, names, at.UnixMicro()); err != nil {
		return twin.Document{}, h.unavailable(ctx, err)
	}
	past.State = models.DeviceState(last[ingest.StateSeries].Text)
	if past.Desired, err = h.desiredAt(ctx, uid, view, at); err != nil {
		return twin.Document{}, h.unavailable(ctx, err)
	}
	return past.Document(), nil
}

// deleted is what is left of the view of a device that was deleted.
func (h *Hub) deleted(ctx context.Context, namespace, name, uid string, at time.Time) (*registry.DeviceView, error) {
	gone, err := h.cfg.Store.DeletedDevices(ctx, namespace, name)
	if err != nil {
		return nil, h.unavailable(ctx, err)
	}
	for _, d := range gone {
		if d.UID == uid && !at.Before(d.Deleted) {
			return nil, models.Errorf(models.KindNotFound, "device %s was not there any more: it was deleted at %s", name, d.Deleted.Format(time.RFC3339))
		}
	}
	names, err := h.cfg.Store.Properties(ctx, uid)
	if err != nil {
		return nil, h.unavailable(ctx, err)
	}
	view := &registry.DeviceView{Device: &models.Device{}}
	for _, p := range names {
		if !strings.HasPrefix(p, "$") {
			// Its intervals went with it. With the usual ones a slow property may seem
			// stale, and none fresher than it was.
			view.Properties = append(view.Properties, models.ResolvedProperty{Name: p, Access: models.Read, Every: models.DefaultEvery, Heartbeat: models.DefaultHeartbeat,
				History: true, Uplink: models.UplinkAll})
		}
	}
	return view, nil
}

// desiredAt returns what was desired of a device at a time.
func (h *Hub) desiredAt(ctx context.Context, uid string, view *registry.DeviceView, at time.Time) (out []twin.LedgerEntry, err error) {
	writes, err := h.cfg.Store.DesiredAt(ctx, uid, at)
	if err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for i := range writes {
		e, err := ledgerEntry(&writes[i])
		if err != nil {
			return nil, err
		}
		out, known[e.Property] = append(out, e), true
	}
	// What has been desired since before there was a ledger is in none.
	for property, v := range view.Desired.Properties {
		if known[property] || v.Value.IsNull() || v.Time.After(at) {
			continue
		}
		any, err := h.cfg.Store.WritesPage(ctx, store.WriteQuery{DeviceUID: uid, Property: property, Limit: 1})
		if err != nil {
			return nil, err
		}
		if len(any) == 0 {
			out = append(out, twin.LedgerEntry{ID: v.ID, Property: property, Value: v.Value, Version: v.Version, By: v.By, Reason: v.Reason, Asked: v.Time, Expires: v.Expires})
		}
	}
	return out, nil
}
