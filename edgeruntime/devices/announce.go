package devices

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/outbox"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/mqtt"
	"github.com/whimbrel-edge/whimbrel/twin"
)

// announcement is what apps and the latest lane are told once the outbox has it.
type announcement struct {
	samples []sampleOut
	writes  []writeOut
	state   *stateTold
	again   bool     // the state was announced before
	locals  []string // ids of the local writes in it
	replies []func()
	stored  []func(error)
}

// stateTold is how a device is doing.
type stateTold struct {
	state   models.DeviceState
	reason  models.Reason
	message string
	at      time.Time
}

// tell puts what the turn brought into the outbox. What is not for the outbox is
// announced at once. When ctx ends it keeps what the outbox did not take.
func (l *loop) tell(ctx context.Context, now time.Time) {
	o := &l.out
	if o.locals {
		l.mu.Lock()
		locals := l.twin.Uplink()
		l.mu.Unlock()
		l.forgetUplinks(locals)
		o.locals = false
		if entry, ann := l.localEntry(locals); ann != nil {
			// The replies are for whoever made these local writes.
			ann.replies, o.replies = o.replies, nil
			if !l.append(ctx, entry, ann) {
				for _, id := range ann.locals {
					delete(l.uplinked, id)
				}
				o.locals = true
				o.replies = ann.replies
				return
			}
		}
	}
	if len(o.samples) == 0 && len(o.writes) == 0 && !o.state && len(o.replies) == 0 && len(o.stored) == 0 {
		return
	}
	ann := &announcement{samples: o.samples, writes: o.writes, replies: o.replies, stored: o.stored, again: o.again}
	entry := outbox.Entry{Device: l.d.ref(), Urgent: len(o.writes) > 0}
	for _, s := range o.samples {
		if def := &l.d.defs[s.property]; def.History && def.Uplink != models.UplinkNone {
			entry.Samples = append(entry.Samples, outbox.Sample{Property: def.Name, Sample: s.sample})
		}
	}
	for _, w := range o.writes {
		if e, ok := l.writeEvent(w.WriteChange); ok {
			entry.Writes = append(entry.Writes, e)
		}
	}
	if o.state {
		ann.state = new(l.state)
		ann.state.at = now
		entry.States = []edgelink.StateEvent{{State: l.state.state, Reason: string(l.state.reason), Message: l.state.message, Time: now}}
	}
	if len(entry.Samples)+len(entry.Writes)+len(entry.States) == 0 {
		l.wasTold(ann.writes) // all there is to tell of them: the hub is not to hear it
		l.announce(ann, commit{})
	} else if !l.append(ctx, entry, ann) {
		return
	}
	l.out = outgoing{dirty: o.dirty}
}

// writeEvent is a write's change as the hub hears it. Of a property whose values
// stay at the edge it hears what became of its own writes, without texts, which
// may quote values, and nothing of local ones.
func (l *loop) writeEvent(w twin.WriteChange) (edgelink.WriteEvent, bool) {
	e := edgelink.WriteEvent{Property: w.Name, ID: w.Write.ID, State: string(w.Write.State), Error: w.Write.Error, Time: w.Write.Time,
		Late: w.Write.Late, Refused: w.Write.Refused, Sent: w.Write.SentAt}
	if w.Asked != nil {
		e.Asked = new(localDesired(*w.Asked))
	}
	if !w.Private {
		return e, true
	}
	if e.Error != "" {
		e.Error = "the edge says why; what concerns this property stays there (uplink: none)"
	}
	return e, !w.Local
}

// append hands an entry to the outbox. It returns false, with nothing handed
// over, when ctx ended.
func (l *loop) append(ctx context.Context, e outbox.Entry, ann *announcement) bool {
	l.waiting = append(l.waiting, *ann)
	err := l.m.cfg.Outbox.Append(ctx, e, l.commits.add)
	if err == nil {
		return true
	}
	l.waiting = l.waiting[:len(l.waiting)-1]
	switch {
	case errors.Is(err, outbox.ErrTooLarge) && max(len(e.Samples), len(e.Writes), len(e.Locals)) > 1:
		return l.split(ctx, e, ann)
	case errors.Is(err, outbox.ErrTooLarge), errors.Is(err, outbox.ErrClosed):
		l.m.cfg.Log.Error("the outbox does not take what the device says", "device", l.d.id, "error", err)
		l.commitInOrder(ann, commit{err: err})
		return true
	case ctx.Err() != nil:
		return false
	}
	l.m.cfg.Log.Error("the outbox does not take what the device says", "device", l.d.id, "error", err)
	l.commitInOrder(ann, commit{err: err})
	return true
}

// commitInOrder announces what the outbox refused, after all that it took before.
func (l *loop) commitInOrder(ann *announcement, c commit) {
	l.lose(ann.writes)
	if len(l.waiting) == 0 {
		l.announce(ann, c)
		return
	}
	last := &l.waiting[len(l.waiting)-1]
	last.replies = append(last.replies, func() { l.announce(ann, c) })
}

// split tells an entry in two, of which the last one carries what is one. Where the
// first comes to the log alone, all is told again: that does no harm.
func (l *loop) split(ctx context.Context, e outbox.Entry, ann *announcement) bool {
	first, told, rest := outbox.Entry{Device: e.Device}, &announcement{}, *ann
	switch {
	case len(e.Samples) > 1:
		half := len(e.Samples) / 2
		first.Samples, e.Samples = e.Samples[:half], e.Samples[half:]
		// Who waits for the samples hears of the first half's fate too.
		var lost error
		told.stored = []func(error){func(err error) { lost = err }}
		rest.stored = []func(error){func(err error) {
			for _, f := range ann.stored {
				f(errors.Join(lost, err))
			}
		}}
	case len(e.Writes) > 1:
		half, at := len(e.Writes)/2, 0
		for events := 0; events < half; at++ { // not each of them is the hub's to hear
			if _, ok := l.writeEvent(ann.writes[at].WriteChange); ok {
				events++
			}
		}
		first.Urgent = true
		first.Writes, e.Writes = e.Writes[:half], e.Writes[half:]
		told.writes, rest.writes = ann.writes[:at], ann.writes[at:]
	default:
		half := len(e.Locals) / 2
		first.Urgent = true
		first.Locals, e.Locals = e.Locals[:half], e.Locals[half:]
		told.locals, rest.locals = ann.locals[:half], ann.locals[half:]
	}
	return l.append(ctx, first, told) && l.append(ctx, e, &rest)
}

// committed announces what the outbox has answered for.
func (l *loop) committed() {
	for _, c := range l.commits.take() {
		if len(l.waiting) == 0 {
			return // unreachable: one answer for each entry
		}
		ann := l.waiting[0]
		l.waiting = l.waiting[1:]
		if c.err != nil {
			l.lose(ann.writes)
		} else {
			l.outdate(ann.writes)
			l.wasTold(ann.writes)
		}
		l.announce(&ann, c)
	}
}

// wasTold has the intent forget, soon, that these are untold. Where storing it is to
// be tried again anyhow, that does it.
func (l *loop) wasTold(writes []writeOut) {
	if len(writes) > 0 && l.forgetAt.IsZero() && l.intentAt.IsZero() {
		l.forgetAt = time.Now().Add(forgetAfter)
	}
}

// announce tells apps and the latest lane. c says which record holds it: with an
// error none does, apps are told all the same, and events are told the outbox
// again later.
func (l *loop) announce(ann *announcement, c commit) {
	wake := l.told.take(l, ann, c)
	if wake {
		notify(l.m.latest)
	}
	if c.err != nil && (len(ann.writes) > 0 || ann.state != nil || len(ann.locals) > 0) && l.retryAt.IsZero() {
		l.retryAt = time.Now().Add(retryEvents)
	}
	for _, id := range ann.locals {
		if u := l.uplinked[id]; c.err != nil {
			delete(l.uplinked, id)
		} else if u != nil {
			u.seq = c.seq
		}
	}
	for _, s := range ann.samples {
		l.slot.publish(l.propertyMessage(s.property, s.reported))
	}
	if ann.state != nil && !ann.again {
		l.slot.publish(l.stateMessage(*ann.state))
	}
	for _, w := range ann.writes {
		if !w.again {
			l.publishWrite(w.WriteChange)
		}
	}
	for _, reply := range ann.replies {
		reply()
	}
	for _, stored := range ann.stored {
		stored(c.err)
	}
}

// tellAgain puts what did not reach the outbox into the next entry.
func (l *loop) tellAgain() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.waiting { // told before it in any case
		l.outdate(l.waiting[i].writes)
	}
	var again []writeOut
	said := map[string]bool{}
	for _, w := range l.lost {
		w.again = true
		// Of a write that is under way still the last word is told, after which the one
		// that got lost would be a step back.
		if now, _ := l.write(w.Property); now.ID == w.Write.ID {
			if said[now.ID] {
				continue
			}
			said[now.ID] = true
			w.Write, w.Local = now, l.twin.WriteIsLocal(w.Property)
		}
		again = append(again, w)
	}
	l.out.writes, l.lost = append(again, l.out.writes...), nil
	if l.told.stateLost {
		l.told.stateLost = false
		l.out.again = !l.out.state
		l.out.state = true
	}
	l.out.locals = true
}

// write is the property's write now, none for a property that the model has lost.
func (l *loop) write(property int) (twin.Write, models.Value) {
	if property < 0 {
		return twin.Write{}, models.Null
	}
	return l.twin.Write(property)
}

// outdate brings what the outbox refused up to what it has taken since of the same
// writes: told again as it was, it would be a step back, and the hub may not even
// know the write that it has heard the end of.
func (l *loop) outdate(writes []writeOut) {
	for _, w := range writes {
		for i := range l.lost {
			if lost := &l.lost[i]; lost.Write.ID == w.Write.ID {
				lost.Write, lost.Local = w.Write, w.Local
			}
		}
	}
}

// lose keeps what the outbox refused, to be told again: of each write the last word.
func (l *loop) lose(writes []writeOut) {
	for _, w := range writes {
		l.outdate([]writeOut{w})
		if !slices.ContainsFunc(l.lost, func(lost writeOut) bool { return lost.Write.ID == w.Write.ID }) {
			l.lost = append(l.lost, w)
		}
	}
	if n := len(l.lost) - maxLost; n > 0 {
		l.lost = slices.Delete(l.lost, 0, n)
		l.m.cfg.Log.Warn("the hub will not hear what became of writes: too much waits for the outbox to take it", "device", l.d.id, "writes", n)
	}
}

// intent is what must be durable, with these local writes.
func (l *loop) intent(locals ...twin.Local) twin.Intent {
	i := l.twin.IntentWith(locals...)
	add := func(writes []writeOut) {
		for _, w := range writes {
			i.Untold = append(i.Untold, twin.Untold{Property: w.Name, Private: w.Private, Write: w.Write, ClientID: w.ClientID, Local: w.Local, Asked: w.Asked})
		}
	}
	add(l.lost)
	for j := range l.waiting {
		add(l.waiting[j].writes)
	}
	add(l.out.writes)
	return i
}

// recall has told what a former life has, or may have, not told any more.
func (l *loop) recall(untold []twin.Untold) {
	for _, u := range untold {
		c := twin.WriteChange{Property: -1, Name: u.Property, Private: u.Private, Write: u.Write, ClientID: u.ClientID, Local: u.Local, Asked: u.Asked}
		if i, ok := l.twin.Index(u.Property); ok { // else the model has lost it since
			c.Property, c.Private = i, c.Private || l.d.defs[i].Uplink == models.UplinkNone
		}
		l.out.changed(c)
	}
}

// localEntry is the local writes that the outbox does not have yet, nil when there are
// none.
func (l *loop) localEntry(locals []twin.Local) (outbox.Entry, *announcement) {
	e := outbox.Entry{Device: l.d.ref(), Urgent: true}
	ann := &announcement{}
	for _, w := range locals {
		if l.uplinked[w.ID] != nil {
			continue
		}
		l.uplinked[w.ID] = &uplink{}
		ann.locals = append(ann.locals, w.ID)
		e.Locals = append(e.Locals, localDesired(w))
	}
	if len(e.Locals) == 0 {
		return e, nil
	}
	return e, ann
}

// localDesired is a local write as the hub hears it.
func localDesired(w twin.Local) edgelink.LocalDesired {
	l := edgelink.LocalDesired{Property: w.Property, ID: w.ID, Value: w.Value, Base: w.Base, Time: w.Time, By: w.By, After: w.After, Reason: w.Reason, Origin: w.Origin}
	if w.Before.Known() {
		s := w.Before.Told()
		l.Before = &s
	}
	return l
}

// forgetUplinks forgets the local writes that wait no more.
func (l *loop) forgetUplinks(waiting []twin.Local) {
	keep := map[string]bool{}
	for _, w := range waiting {
		keep[w.ID] = true
	}
	for id := range l.uplinked {
		if !keep[id] {
			delete(l.uplinked, id)
		}
	}
}

// checkUplinks finds local writes whose record has left the outbox and that the
// hub has not judged: the record was dropped, or the hub lost it. They are told
// once more, which does no harm where it was heard.
func (l *loop) checkUplinks(now time.Time) {
	if len(l.uplinked) == 0 {
		return
	}
	oldest := oldestWaiting(l.m.cfg.Outbox.Epochs())
	for id, u := range l.uplinked {
		switch {
		case u.seq == 0 || u.seq >= oldest:
		case u.gone.IsZero():
			u.gone = now
		case now.Sub(u.gone) >= judgeWithin:
			delete(l.uplinked, id)
			l.out.locals = true
		}
	}
}

// propertyMessage is a property's retained message.
func (l *loop) propertyMessage(i int, r twin.Reported) (topic string, payload []byte) {
	m := struct {
		Value   models.Value   `json:"value"`
		Quality models.Quality `json:"quality"`
		Reason  models.Reason  `json:"reason,omitempty"`
		Time    *time.Time     `json:"time,omitempty"`
		Since   *time.Time     `json:"since,omitempty"`
		Unit    string         `json:"unit,omitempty"`
	}{Value: r.Value, Quality: r.Quality, Reason: r.Reason, Time: moment(r.Time), Since: moment(r.Since), Unit: l.d.defs[i].Unit}
	return mqtt.PropertyTopic(l.d.id, l.d.defs[i].Name), mustJSON(m)
}

func (l *loop) stateMessage(s stateTold) (topic string, payload []byte) {
	m := struct {
		State   models.DeviceState `json:"state"`
		Time    *time.Time         `json:"time"`
		Reason  models.Reason      `json:"reason,omitempty"`
		Message string             `json:"message,omitempty"`
	}{s.state, moment(s.at), s.reason, s.message}
	return mqtt.StateTopic(l.d.id), mustJSON(m)
}

func (l *loop) publishWrite(w twin.WriteChange) {
	m := struct {
		ID       string          `json:"id"`
		ClientID *models.Value   `json:"$id,omitempty"`
		Property string          `json:"property"`
		State    twin.WriteState `json:"state"`
		Error    string          `json:"error,omitempty"`
		Late     bool            `json:"late,omitempty"`
		Time     *time.Time      `json:"time"`
	}{ID: w.Write.ID, Property: w.Name, State: w.Write.State, Error: w.Write.Error, Late: w.Write.Late, Time: moment(w.Write.Time)}
	if !w.ClientID.IsNull() {
		m.ClientID = &w.ClientID
	}
	topic := mqtt.WritesTopic(l.d.id)
	if err := l.m.cfg.Publish(topic, mustJSON(m), false); err != nil {
		l.m.cfg.Log.Warn("publishing failed", "topic", topic, "error", err)
	}
}

// clearTopics clears the retained messages of properties that are no more.
func (l *loop) clearTopics() {
	keep := map[string]bool{mqtt.StateTopic(l.d.id): true}
	for i := range l.d.defs {
		keep[mqtt.PropertyTopic(l.d.id, l.d.defs[i].Name)] = true
	}
	for topic := range l.slot.published {
		if !keep[topic] {
			l.slot.publish(topic, nil)
			delete(l.slot.published, topic)
		}
	}
}

func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return new(t.UTC())
}

// mustJSON encodes what always can be.
func mustJSON(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return text
}
