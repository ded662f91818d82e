package cloudapitest

import (
	"context"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

// ReadDevice implements cloudapi.Devices: the device answers what it reported
// last, unless it misbehaves.
func (h *Hub) ReadDevice(ctx context.Context, namespace, name string, properties []string, _ string) (map[string]models.Reading, error) {
	h.mu.Lock()
	key := deviceKey(namespace, name)
	d := h.devices[key]
	if d == nil {
		h.mu.Unlock()
		return nil, models.Errorf(models.KindNotFound, "%s not found", key)
	}
	props := h.propertiesLocked(key)
	behaviour, away := d.behaviour, !d.away.IsZero()
	out := map[string]models.Reading{}
	at, err := models.Readable(props, properties, true)
	for _, i := range at {
		s := models.Sample{Quality: models.Bad, Reason: models.ReasonNotImplemented, Time: time.Now()}
		if p := d.shadow.Property(props[i].Name); p != nil {
			s = p.Reported.Sample()
		}
		out[props[i].Name] = models.ReadingOf(&props[i], s)
	}
	h.mu.Unlock()
	switch {
	case err != nil:
		return nil, err
	case away:
		return nil, models.Errorf(models.KindUnavailable, "node is offline")
	case behaviour == Refuses:
		return nil, models.Errorf(models.KindRefused, "device %s refused to be read: device-error", name)
	case behaviour == Silent:
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	return out, nil
}

// RecordDevice implements cloudapi.Devices: a recording of two lines.
func (h *Hub) RecordDevice(ctx context.Context, namespace, name string, length time.Duration, _ string, lines func([]byte) error) error {
	h.mu.Lock()
	key := deviceKey(namespace, name)
	d := h.devices[key]
	away := d != nil && !d.away.IsZero()
	h.mu.Unlock()
	switch {
	case d == nil:
		return models.Errorf(models.KindNotFound, "%s not found", key)
	case away:
		return models.Errorf(models.KindUnavailable, "node is offline")
	}
	if err := lines([]byte(`{"recording":1,"protocol":"modbus","device":"` + name + `"}` + "\n")); err != nil {
		return err
	}
	select {
	case <-time.After(length):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return lines([]byte(`{"ms":1,"over":true}` + "\n"))
}

// BrowseDevice implements cloudapi.Devices: a device offers what its model has.
func (h *Hub) BrowseDevice(ctx context.Context, namespace, name, trace string, found func(models.Found) error) error {
	if _, err := h.ReadDevice(ctx, namespace, name, nil, trace); err != nil {
		return err
	}
	h.mu.Lock()
	props := h.propertiesLocked(deviceKey(namespace, name))
	h.mu.Unlock()
	for _, p := range props {
		if err := found(models.Found{Path: []string{name, p.Name}, DataType: string(p.Type), Property: &models.Property{Type: p.Type, Unit: p.Unit, Access: p.Access, Address: p.Address}}); err != nil {
			return err
		}
	}
	return found(models.Found{Path: []string{name, "matrix"}, Note: "has 2 dimensions, which no property can hold"})
}
