package devices

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/twin"
)

// Patch is a change of desired values made at this edge.
type Patch struct {
	Body    []byte // a desired merge patch, JSON or YAML, which may have a "$id"
	By      string
	Origin  string // by which way it came: OriginREST, OriginMQTT or OriginApp
	Reason  string
	IfMatch string // the desiredVersion there must be, as an ETag; "" for any
}

// The ways by which local writes come.
const (
	OriginREST = "edge-rest"
	OriginMQTT = "mqtt"
	OriginApp  = "app" // from an app in a pod, by either
)

// Patched is what became of a Patch that was accepted.
type Patched struct {
	ClientID       models.Value      // the "$id"
	DesiredVersion int64             // what the patch makes it, unless the hub's has changed meanwhile
	Writes         map[string]string // property to the write's id, of those the patch sets
}

// Desired implements broker.Devices.
func (m *Manager) Desired(ctx context.Context, id, by string, app bool, patch []byte) ([]byte, error) {
	origin := OriginMQTT
	if app {
		origin = OriginApp
	}
	p, err := m.Patch(ctx, id, Patch{Body: patch, By: by, Origin: origin})
	if err != nil {
		return nil, err
	}
	answer := struct {
		ClientID       *models.Value `json:"$id,omitempty"`
		DesiredVersion int64         `json:"desiredVersion"`
	}{DesiredVersion: p.DesiredVersion}
	if !p.ClientID.IsNull() {
		answer.ClientID = &p.ClientID
	}
	return json.Marshal(answer)
}

// Patch checks and stores a patch of the desired values of the device with a
// local id, all of it or nothing. When it returns nil the patch survives a power
// loss. Errors are *models.Error.
func (m *Manager) Patch(ctx context.Context, id string, p Patch) (Patched, error) {
	values, meta, err := models.DecodePatch(p.Body)
	if err != nil {
		return Patched{}, err
	}
	for _, name := range slices.Sorted(maps.Keys(meta)) {
		if name != "$id" {
			return Patched{}, models.Invalid(pointer(name), "unknown; of the names that begin with $ there is $id alone")
		}
	}
	type answer struct {
		patched Patched
		err     error
	}
	answers := make(chan answer, 1)
	for tries := 0; ; tries++ {
		l, err := m.loop(id)
		if err == nil {
			err = l.ask(ctx, func() {
				l.patch(ctx, p, values, meta["$id"], func(patched Patched, err error) { answers <- answer{patched, err} })
			})
		}
		if err == nil {
			break
		}
		// A device that is opened anew with another configuration is back soon.
		if models.KindOf(err) != models.KindUnavailable || tries == restartTries || !pause(ctx, restartPause) {
			return Patched{}, err
		}
	}
	select {
	case a := <-answers:
		return a.patched, a.err
	case <-ctx.Done():
		return Patched{}, models.Errorf(models.KindUnavailable, "device %s: the edge is busy; the write may still come about: %v", id, context.Cause(ctx))
	}
}

// How long a caller waits for a device that is just opened anew.
const (
	restartTries = 40
	restartPause = 50 * time.Millisecond
)

// pause waits, and reports whether ctx is still there then.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// patch runs in the loop. It calls reply exactly once, now or when the outbox has
// answered.
func (l *loop) patch(ctx context.Context, p Patch, values map[string]models.Value, client models.Value, reply func(Patched, error)) {
	locals, err := l.checkPatch(p, values)
	if err != nil {
		reply(Patched{}, err)
		return
	}
	now := time.Now()
	patched := Patched{ClientID: client, DesiredVersion: l.twin.ComingVersion(), Writes: map[string]string{}}
	for i := range locals {
		w := &locals[i]
		w.ID, w.Time, w.By, w.Reason, w.ClientID = l.m.cfg.NewID(), now.UTC(), p.By, p.Reason, client
		w.Origin = p.Origin
		if at, known := l.twin.Index(w.Property); known {
			w.Before = l.twin.Reported(at)
		}
		*w = l.twin.NextLocal(*w)
		if !w.Value.IsNull() {
			patched.Writes[w.Property] = w.ID
		}
	}
	if len(locals) == 0 {
		reply(patched, nil)
		return
	}
	if err := l.m.cfg.Store.SaveIntent(context.WithoutCancel(ctx), l.d.uid, l.intent(locals...)); err != nil {
		l.m.cfg.Log.Error("storing a local write failed", "device", l.d.id, "error", err)
		reply(Patched{}, models.Errorf(models.KindUnavailable, "the edge cannot store the write, so it is not made; its log says why"))
		return
	}
	l.mu.Lock()
	for _, w := range locals {
		l.out.changed(l.twin.SetLocal(w, now)...)
	}
	patched.DesiredVersion = l.twin.ComingVersion()
	l.mu.Unlock()
	l.out.dirty, l.out.locals = true, true
	l.out.replies = append(l.out.replies, func() { reply(patched, nil) })
}

// checkPatch checks a patch and returns the local writes that it asks for.
func (l *loop) checkPatch(p Patch, values map[string]models.Value) (locals []twin.Local, err error) {
	if l.slot.locked() {
		return nil, models.Errorf(models.KindLocked, "device %s is locked for maintenance (spec.locked)", l.d.id)
	}
	if version := strconv.FormatInt(l.twin.DesiredVersion(), 10); !matches(p.IfMatch, version) {
		return nil, models.Errorf(models.KindPrecondition, "the desired values have been changed since: their ETag is %q", version)
	}
	var fields []models.FieldError
	for _, name := range slices.Sorted(maps.Keys(values)) {
		v := values[name]
		i, known := l.twin.Index(name)
		live := l.twin.Live(name)
		switch {
		case v.IsNull() && live: // accepted also for what the model no longer has
			locals = append(locals, twin.Local{Property: name})
		case v.IsNull(): // there is nothing to withdraw, whether or not a former model had it
		case !known:
			fields = append(fields, models.FieldError{Pointer: pointer(name), Detail: l.unknown(name)})
		default:
			fitted, err := l.d.defs[i].CheckDesired(v, pointer(name))
			var e *models.Error
			if errors.As(err, &e) {
				fields = append(fields, e.Fields...)
			} else if err != nil {
				return nil, err
			}
			locals = append(locals, twin.Local{Property: name, Value: fitted})
		}
	}
	if len(fields) > 0 {
		return nil, &models.Error{Kind: models.KindInvalid, Fields: fields}
	}
	return locals, nil
}

func (l *loop) unknown(name string) string {
	if l.d.defs == nil {
		return "the properties of device " + l.d.id + " are not known: " + l.d.problem
	}
	return "device " + l.d.id + " has no property " + strconv.Quote(name)
}

func (s *slot) locked() bool {
	d := s.wanted()
	return d != nil && d.locked
}

// matches reports whether an If-Match header allows a version.
func matches(ifMatch, version string) bool {
	if strings.TrimSpace(ifMatch) == "" {
		return true
	}
	for tag := range strings.SplitSeq(ifMatch, ",") {
		if tag = strings.TrimSpace(tag); tag == "*" || tag == strconv.Quote(version) {
			return true
		}
	}
	return false
}

func pointer(name string) string {
	return "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}

// AwaitWrites blocks until every write (property to id) is confirmed, which is
// nil, or one has come to another end, or ctx ends (KindTimeout: it stays
// pending).
func (m *Manager) AwaitWrites(ctx context.Context, id string, writes map[string]string) error {
	for {
		l, err := m.loop(id)
		if models.KindOf(err) == models.KindUnavailable && pause(ctx, restartPause) {
			continue
		}
		if err != nil {
			return err
		}
		l.mu.Lock()
		changed := l.changed
		pending, err := l.fate(writes)
		l.mu.Unlock()
		if err != nil || pending == "" {
			return err
		}
		select {
		case <-changed:
		case <-l.over: // it goes on with the next loop, or with none
			if !pause(ctx, restartPause) {
				break
			}
			if next, err := m.loop(id); err == nil && next == l {
				return models.Errorf(models.KindUnavailable, "the edge is stopping; %s stays pending", pending)
			}
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			return models.Errorf(models.KindTimeout, "%s was not confirmed in time; the write stays pending", pending)
		}
	}
}

// fate says which write is still pending, or which came to a bad end. Called
// under mu.
func (l *loop) fate(writes map[string]string) (pending string, err error) {
	for _, name := range slices.Sorted(maps.Keys(writes)) {
		i, ok := l.twin.Index(name)
		if !ok {
			return "", models.Errorf(models.KindConflict, "device %s has no property %s any more", l.d.id, name)
		}
		w, _ := l.twin.Write(i)
		switch {
		case w.ID != writes[name]:
			return "", models.Errorf(models.KindConflict, "%s: the write was superseded by a later one", name)
		case w.State == twin.Pending:
			if pending == "" {
				pending = name
			}
		case w.State == twin.Expired:
			return "", models.Errorf(models.KindTimeout, "%s: %s", name, orElse(w.Error, "not confirmed in time"))
		case w.State != twin.Applied:
			return "", models.Errorf(models.KindRefused, "%s: %s", name, orElse(w.Error, string(w.State)))
		}
	}
	return pending, nil
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
