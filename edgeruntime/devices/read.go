package devices

import (
	"context"
	"errors"
	"fmt"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
)

// Read reads properties of the device with a local id from the device, now: those
// with the names, or all that can be read without names. The twin learns of it
// like of any poll. Errors are *models.Error: KindInvalid for a property that
// cannot be read, KindTimeout for a device that does not answer, KindRefused for
// one that refuses or cannot be served.
func (m *Manager) Read(ctx context.Context, id string, names []string) (map[string]models.Reading, error) {
	return m.read(ctx, func() (*loop, error) { return m.loop(id) }, names, false)
}

// ReadForHub is Read of the device with a uid, for the hub: properties that are
// to stay at the edge cannot be read.
func (m *Manager) ReadForHub(ctx context.Context, uid string, names []string) (map[string]models.Reading, error) {
	return m.read(ctx, func() (*loop, error) { return m.loopOf(uid) }, names, true)
}

// loopOf returns the running loop of the device with a uid.
func (m *Manager) loopOf(uid string) (*loop, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, d := range m.wanted {
		if d.uid != uid {
			continue
		}
		if s := m.slots[id]; s != nil && s.loop != nil && s.loop.d.uid == uid {
			return s.loop, nil
		}
		return nil, models.Errorf(models.KindUnavailable, "device %s is being started", id)
	}
	return nil, models.Errorf(models.KindUnavailable, "the edge has not heard of the device yet; try again")
}

func (m *Manager) read(ctx context.Context, find func() (*loop, error), names []string, uplink bool) (map[string]models.Reading, error) {
	for tries := 0; ; tries++ {
		l, err := find()
		if err == nil {
			var out map[string]models.Reading
			if out, err = l.read(ctx, names, uplink); err == nil {
				return out, nil
			}
		}
		// A device that is opened anew with another configuration is back soon.
		if models.KindOf(err) != models.KindUnavailable || tries == restartTries || !pause(ctx, restartPause) {
			return nil, err
		}
	}
}

func (l *loop) read(ctx context.Context, names []string, uplink bool) (map[string]models.Reading, error) {
	if l.runner == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		return nil, models.Errorf(models.KindRefused, "device %s cannot be served: %s", l.d.id, l.twin.Problem)
	}
	at, err := models.Readable(l.d.defs, names, uplink)
	if err != nil {
		return nil, err
	}
	samples, err := l.runner.Read(ctx, at)
	if err != nil {
		return nil, l.readError(ctx, err)
	}
	out := make(map[string]models.Reading, len(at))
	silent, refused := models.ReasonNone, models.ReasonNone
	answered := false
	for n, i := range at {
		s := samples[n]
		out[l.d.defs[i].Name] = models.ReadingOf(&l.d.defs[i], s)
		switch {
		case s.Quality != models.Bad, s.Reason == models.ReasonNotANumber, s.Reason == models.ReasonNotImplemented:
			answered = true
		case s.Reason == models.ReasonTimeout, s.Reason == models.ReasonNotConnected:
			silent = s.Reason
		default:
			refused = s.Reason
		}
	}
	switch {
	case answered: // what is bad beside says so itself
		return out, nil
	case refused != models.ReasonNone:
		return nil, models.Errorf(models.KindRefused, "device %s refused to be read: %s", l.d.id, refused)
	}
	return nil, models.Errorf(models.KindTimeout, "device %s did not answer: %s", l.d.id, silent)
}

// readError gives an error of Runner.Read its kind.
func (l *loop) readError(ctx context.Context, err error) error {
	if errors.Is(err, mappers.ErrBusy) {
		return models.Errorf(models.KindTooMany, "device %s: %v", l.d.id, err)
	}
	var f *mappers.Failure
	if !errors.As(err, &f) { // ctx has ended
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return models.Errorf(models.KindTimeout, "device %s did not answer in time", l.d.id)
		}
		return fmt.Errorf("read device %s: %w", l.d.id, err)
	}
	if errors.Is(f, mappers.ErrClosed) {
		return models.Errorf(models.KindUnavailable, "device %s is being restarted; try again", l.d.id)
	}
	switch f.Reason {
	case models.ReasonTimeout, models.ReasonNotConnected, models.ReasonMapperLost:
		return models.Errorf(models.KindTimeout, "device %s does not answer: %v", l.d.id, f)
	}
	return models.Errorf(models.KindRefused, "device %s cannot be read: %v", l.d.id, f)
}

// BrowseForHub looks around in the device with a uid and calls found with what
// it offers. It has a connection of its own, so that polling goes on beside it.
// Errors are *models.Error, as Read's, or found's.
func (m *Manager) BrowseForHub(ctx context.Context, uid string, found func(models.Found) error) error {
	l, err := m.loopOf(uid)
	if err != nil {
		return err
	}
	if l.runner == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		return models.Errorf(models.KindRefused, "device %s cannot be served: %s", l.d.id, l.twin.Problem)
	}
	browser, ok := l.d.driver.(mappers.Browser)
	if !ok {
		return models.Errorf(models.KindRefused, "devices of protocol %s do not say what they offer, so they cannot be browsed", l.d.protocol)
	}
	var own error // found's
	err = browser.Browse(ctx, l.config(), func(f models.Found) error {
		own = found(f)
		return own
	})
	if err == nil || own != nil {
		return own
	}
	return l.readError(ctx, err)
}
