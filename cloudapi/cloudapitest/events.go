package cloudapitest

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

// Raise records something that happened. Everything is an event of its own here.
func (h *Hub) Raise(o models.Occurrence) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if o.Time.IsZero() {
		o.Time = time.Now()
	}
	version := strconv.Itoa(len(h.happened) + 1)
	h.happened = append(h.happened, models.LoggedEvent{TypeMeta: models.TypeMeta{APIVersion: models.APIVersionCore, Kind: "Event"},
		Metadata:       models.ObjectMeta{Name: o.Object.Name + "." + version, Namespace: o.Object.Namespace, ResourceVersion: version},
		InvolvedObject: o.Object, Type: o.Severity, Reason: o.Reason, Message: o.Message, Source: models.EventSource{Component: o.Source},
		FirstTimestamp: o.Time.UTC(), LastTimestamp: o.Time.UTC(), Count: 1})
	h.wakeLocked()
}

func picked(o models.EventOptions, e *models.LoggedEvent) bool {
	of := &e.InvolvedObject
	return (len(o.Namespaces) == 0 || slices.Contains(o.Namespaces, of.Namespace)) && !slices.Contains(o.HideKinds, of.Kind) &&
		(o.Kind == "" || o.Kind == of.Kind) && (o.Name == "" || o.Name == of.Name) && (o.UID == "" || o.UID == of.UID) &&
		(o.Type == "" || o.Type == e.Type) && (o.Reason == "" || o.Reason == e.Reason) && !e.LastTimestamp.Before(o.Since)
}

// Events implements cloudapi.Events.
func (h *Hub) Events(_ context.Context, o models.EventOptions) (models.LoggedEvents, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := models.LoggedEvents{ResourceVersion: strconv.Itoa(len(h.happened))}
	before := len(h.happened)
	if o.Continue != "" {
		var err error
		if before, err = strconv.Atoi(o.Continue); err != nil || before > len(h.happened) {
			return out, models.BadParameter(models.KindMalformed, "continue", "must be what the page before gave")
		}
	}
	for i := before - 1; i >= 0; i-- {
		if !picked(o, &h.happened[i]) {
			continue
		}
		if len(out.Items) == o.Limit {
			out.Continue = strconv.Itoa(i + 1)
			break
		}
		out.Items = append(out.Items, h.happened[i])
	}
	return out, nil
}

// WatchEvents implements cloudapi.Events.
func (h *Hub) WatchEvents(ctx context.Context, o models.EventOptions, resourceVersion string, send func(models.EventChange) error) error {
	at, _ := strconv.Atoi(resourceVersion) // "" is 0, and the API has checked the rest
	for {
		h.mu.Lock()
		if at > len(h.happened) {
			h.mu.Unlock()
			return models.Errorf(models.KindGone, "resourceVersion %d is ahead", at)
		}
		fresh, changed := slices.Clone(h.happened[at:]), h.changed
		h.mu.Unlock()
		at += len(fresh)
		for i := range fresh {
			if picked(o, &fresh[i]) {
				if err := send(models.EventChange{Type: models.Added, Event: fresh[i]}); err != nil {
					return err
				}
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// WatchAudit implements cloudapi.Audit.
func (h *Hub) WatchAudit(ctx context.Context, o models.AuditOptions, after int64, send func(models.AuditEntry) error) error {
	for {
		h.mu.Lock()
		changed := h.changed
		h.mu.Unlock()
		all, err := h.Audit(ctx, o, 0, 1<<30)
		if err != nil {
			return err
		}
		slices.Reverse(all)
		for _, e := range all {
			if id, err := strconv.ParseInt(strings.TrimSpace(e.ID), 10, 64); err == nil && id > after {
				if err := send(e); err != nil {
					return err
				}
				after = id
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}
