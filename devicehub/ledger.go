package devicehub

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/whimbrel-edge/whimbrel/devicehub/registry"
	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/twin"
)

// What is kept of writes: those that ended, and were asked, in the last
// writesAge, of one property at most writesKept; and always those that are
// desired now. Of devices that were deleted everything is kept for deletedAge.
const (
	writesAge  = 90 * 24 * time.Hour
	writesKept = 10_000
	deletedAge = 30 * 24 * time.Hour

	tidyEvery   = 15 * time.Minute
	forgetAtOne = 20 // devices in one transaction
)

// tidy deletes what is too old, until ctx ends.
func (h *Hub) tidy(ctx context.Context) error {
	tick := time.NewTicker(tidyEvery)
	defer tick.Stop()
	for {
		if err := h.tidyOnce(ctx); err != nil && ctx.Err() == nil {
			h.log.Error("what is too old is not deleted", "error", err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

func (h *Hub) tidyOnce(ctx context.Context) error {
	now := h.calendar.Now(ctx)
	if err := h.cfg.Store.TrimWrites(ctx, store.WriteBounds{Before: now.Add(-writesAge), PerProperty: writesKept}); err != nil {
		return err
	}
	for more := true; more && ctx.Err() == nil; {
		var err error
		if more, err = h.cfg.Store.ForgetDeleted(ctx, now.Add(-deletedAge), forgetAtOne); err != nil {
			return err
		}
	}
	return nil
}

// subject finds the device that a question about the past is about: the one that
// has the name, or with a uid also one that had it and was deleted. view is that
// of a device that is there.
func (h *Hub) subject(ctx context.Context, namespace, name, uid string) (deviceUID string, view *registry.DeviceView, err error) {
	here, err := h.Registry.Device(namespace, name)
	if err == nil && (uid == "" || uid == here.Device.Metadata.UID) {
		return here.Device.Metadata.UID, &here, nil
	}
	missing := err
	gone, err := h.cfg.Store.DeletedDevices(ctx, namespace, name)
	if err != nil {
		return "", nil, h.unavailable(ctx, err)
	}
	if uid == "" {
		if len(gone) > 0 {
			return "", nil, models.Errorf(models.KindNotFound, "device %s was deleted at %s; its history, its writes and its past twins are kept for a while, and uid=%s asks for them", name, gone[0].Deleted.Format(time.RFC3339), gone[0].UID)
		}
		return "", nil, missing
	}
	if slices.ContainsFunc(gone, func(d store.DeletedDevice) bool { return d.UID == uid }) {
		return uid, nil, nil
	}
	return "", nil, models.Errorf(models.KindNotFound, "no device %s has, or had, the uid %.40q, or it is kept no longer", name, uid)
}

// Writes returns a page of a device's ledger, the newest first.
func (h *Hub) Writes(ctx context.Context, namespace, name string, q models.LedgerQuery) ([]twin.LedgerEntry, string, error) {
	if _, err := ulid.ParseStrict(q.Continue); q.Continue != "" && err != nil {
		return nil, "", models.BadParameter(models.KindMalformed, "continue", "must be what the page before gave, got %.40q", q.Continue)
	}
	uid, _, err := h.subject(ctx, namespace, name, q.UID)
	if err != nil {
		return nil, "", err
	}
	found, err := h.cfg.Store.WritesPage(ctx, store.WriteQuery{DeviceUID: uid, Property: q.Property, State: q.State, Since: q.Since, Before: q.Continue, Limit: q.Limit + 1})
	if err != nil {
		return nil, "", h.unavailable(ctx, err)
	}
	out, next := []twin.LedgerEntry{}, ""
	for i := range found {
		if i == q.Limit {
			next = found[i-1].ID
			break
		}
		e, err := ledgerEntry(&found[i])
		if err != nil {
			return nil, "", h.unavailable(ctx, err)
		}
		out = append(out, e)
	}
	return out, next, nil
}

func ledgerEntry(w *store.Write) (twin.LedgerEntry, error) {
	e := twin.LedgerEntry{ID: w.ID, Property: w.Property, Version: w.Version, By: w.By, Origin: w.Origin, Reason: w.Reason, Asked: w.Asked, Sent: moment(w.Sent),
		Confirmed: moment(w.Confirmed), Ended: moment(w.Ended), State: w.State, Error: w.Error, Refused: w.Refused, Late: w.Late,
		SupersededBy: w.SupersededBy, Since: moment(w.Since), Until: moment(w.Until), Expires: moment(w.Expires), Traceparent: w.Trace}
	if err := json.Unmarshal([]byte(w.Value), &e.Value); err != nil {
		return e, fmt.Errorf("stored write %s: %w", w.ID, err)
	}
	if w.Before != "" {
		if err := json.Unmarshal([]byte(w.Before), &e.Before); err != nil {
			return e, fmt.Errorf("stored write %s: %w", w.ID, err)
		}
	}
	return e, nil
}

func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return new(t.UTC())
}
