package twin

import (
	"maps"
	"slices"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

// staleAfter is how many intervals without a refresh make a value stale.
const staleAfter = 3

// Twin is the edge's side of a device's twin. It has one owner, the device's
// loop, and no lock. Properties are named by their index in the resolved list.
type Twin struct {
	Version  uint64
	State    models.DeviceState
	Problem  string // why State is not online
	LastSeen time.Time
	// Paused holds orders back: the device is locked, or nothing serves it.
	// Deadlines run on.
	Paused bool

	defs   []models.ResolvedProperty
	index  map[string]int
	props  []property
	cloud  Desired
	locals []Local           // on their way to the hub, oldest first: at most two of a property, see addLocal
	others map[string]effort // writes of properties that the model lacks now: it may get them back
}

type property struct {
	reported  Reported
	fresh     Reported  // reported as it was before Stale turned it
	refreshed time.Time // by the edge's clock, while fresh may carry the device's
	write     effort
}

// Stored is what a Twin must find again after a restart.
type Stored struct {
	Intent
	Observed
}

// Intent is the part of a Stored that must be durable before anyone is told of
// a change in it: forgetting it would repeat a once write or lose a promise.
type Intent struct {
	Cloud  Desired           `json:"cloud"`
	Locals []Local           `json:"locals,omitempty"`
	Writes map[string]effort `json:"writes,omitempty"`
	Untold []Untold          `json:"untold,omitempty"` // in their order
}

// EraSize is how many versions of a twin an era has. Versions are stored behind what
// was shown of them, so whoever starts anew counts on from an era of its own. That is
// as many changes of one twin between two checkpoints, half of them, as nobody lives
// to see; so round a number shows in a version where it comes from; and all stay
// below 2^53, the integers that are exact in JSON, for nine million eras.
const EraSize = 1_000_000_000

// Observed is the part that a restart finds again by reading the device.
type Observed struct {
	Version  uint64              `json:"version"`
	LastSeen time.Time           `json:"lastSeen,omitzero"`
	Reported map[string]Reported `json:"reported,omitempty"`
}

// New returns the twin of a device with these properties, as stored (the zero
// Stored for a new one). now is when the process started: what was reported
// before is uncertain/stale until it is read again, and a write that was sent
// and not settled has lost its outcome.
func New(defs []models.ResolvedProperty, stored Stored, now time.Time) *Twin {
	t := &Twin{Version: stored.Version, State: models.StateUnknown, LastSeen: stored.LastSeen, defs: defs,
		index: make(map[string]int, len(defs)), props: make([]property, len(defs)), cloud: stored.Cloud.Clone(), locals: slices.Clone(stored.Locals),
		others: maps.Clone(stored.Writes)}
	for i := range defs {
		name := defs[i].Name
		t.index[name] = i
		t.props[i].reported = stored.Reported[name].Degrade(now)
		t.props[i].reported.Value = refit(t.props[i].reported.Value, defs[i].Type)
		t.props[i].refreshed = now
		if e, ok := stored.Writes[name]; ok {
			// With an error the outcome is not hidden: it was unclear already then.
			if e.State == Pending && e.Sent && e.Error == "" {
				e.Hidden = true
			}
			e.Want = refit(e.Want, defs[i].Type)
			t.props[i].write = e
			delete(t.others, name)
		}
	}
	return t
}

// refit gives a value that went through JSON its type again, as far as it fits:
// 5.0 comes back as an int and bytes as a string.
func refit(v models.Value, t models.Type) models.Value {
	if fitted, err := v.Fit(t); err == nil && !v.IsNull() {
		return fitted
	}
	return v
}

// Stored returns what must be kept. It shares nothing with t.
func (t *Twin) Stored() Stored { return Stored{Intent: t.Intent(), Observed: t.Observed()} }

// Intent returns what must be durable, but for what is untold: the twin does not
// know what the log holds. It shares nothing with t.
func (t *Twin) Intent() Intent {
	s := Intent{Cloud: t.cloud.Clone(), Locals: slices.Clone(t.locals), Writes: map[string]effort{}}
	for name, e := range t.others {
		if want, _ := t.wantedOf(name); want.ID == e.ID || e.ID == "" { // else nobody will ask for it again
			s.Writes[name] = e
		}
	}
	for i := range t.props {
		if e := &t.props[i].write; e.ID != "" || len(e.Spent) > 0 {
			s.Writes[t.defs[i].Name] = t.props[i].write
		}
	}
	return s
}

// IntentWith returns Intent, without what is untold, as it will be once SetLocal has taken these.
func (t *Twin) IntentWith(locals ...Local) Intent {
	s := t.Intent()
	for _, l := range locals {
		s.Locals = t.addLocal(s.Locals, l)
	}
	return s
}

// Observed returns what was observed. It shares nothing with t.
func (t *Twin) Observed() Observed {
	s := Observed{Version: t.Version, LastSeen: t.LastSeen, Reported: make(map[string]Reported, len(t.props))}
	for i := range t.props {
		if t.props[i].reported.Known() {
			s.Reported[t.defs[i].Name] = t.props[i].reported
		}
	}
	return s
}

// Properties returns the resolved properties. They must not be changed.
func (t *Twin) Properties() []models.ResolvedProperty { return t.defs }

// Index returns the index of a property.
func (t *Twin) Index(name string) (int, bool) {
	i, ok := t.index[name]
	return i, ok
}

// Reported returns what is known of property i.
func (t *Twin) Reported(i int) Reported { return t.props[i].reported }

// Write returns the state of property i's write, and the "$id" to echo.
func (t *Twin) Write(i int) (Write, models.Value) {
	return t.props[i].write.Write, t.props[i].write.ClientID
}

// WriteIsLocal reports whether property i's write was made at this edge and is
// not the hub's desired value yet.
func (t *Twin) WriteIsLocal(i int) bool { return t.props[i].write.Version == 0 }

// WriteIsPrivate reports whether the hub is not to hear the texts of property i's
// write, nor of it at all while it is local.
func (t *Twin) WriteIsPrivate(i int) bool {
	return t.defs[i].Uplink == models.UplinkNone || t.props[i].write.Private
}

// DesiredVersion returns the hub's desired version as the edge knows it.
func (t *Twin) DesiredVersion() int64 { return t.cloud.Version }

// Locals returns the local writes that wait for the hub's verdict.
func (t *Twin) Locals() []Local { return slices.Clone(t.locals) }

// Uplink returns the local writes that the hub is to be told now: of each
// property the oldest that waits, unless its values stay at the edge.
func (t *Twin) Uplink() (out []Local) {
	for i, l := range t.locals {
		if !t.stays(l) && firstOf(t.locals, l.Property) == i {
			out = append(out, l)
		}
	}
	return out
}

// ComingVersion is what DesiredVersion becomes when the hub takes the local
// writes as they are and nothing else changes: one version each.
func (t *Twin) ComingVersion() int64 {
	version := t.cloud.Version
	for _, l := range t.locals {
		if !t.stays(l) {
			version++
		}
	}
	return version
}

// Report takes a sample of property i, which arrived at that time, and reports
// whether the twin changed.
func (t *Twin) Report(i int, s models.Sample, at time.Time) bool {
	p := &t.props[i]
	next, changed := p.reported.Observe(s)
	if changed || !next.Time.Equal(p.reported.Time) {
		t.Version++
	}
	p.reported, p.fresh = next, Reported{}
	if s.Quality != models.Bad {
		p.refreshed = at
	}
	return changed
}

// Refresh says that property i was read at that time and had not changed. It
// reports whether a value that had turned stale is as good as before again.
func (t *Twin) Refresh(i int, at time.Time) bool {
	p := &t.props[i]
	p.refreshed = at
	t.LastSeen = at
	if !p.fresh.Known() {
		return false
	}
	p.reported, p.fresh = p.fresh, Reported{}
	t.Version++
	return true
}

// Stale turns the values stale that were not refreshed for three of their
// intervals and returns their indices.
func (t *Twin) Stale(now time.Time) (turned []int) {
	for i := range t.props {
		p, def := &t.props[i], &t.defs[i]
		if !p.reported.Known() || p.reported.Quality == models.Bad || p.reported.Reason == models.ReasonStale ||
			!def.Access.Readable() || now.Sub(p.refreshed) < staleAfter*def.Every {
			continue
		}
		p.fresh = p.reported
		p.reported = p.reported.Degrade(now)
		t.Version++
		turned = append(turned, i)
	}
	return turned
}

// SetState takes the device's state and reports whether it changed. A device
// that is back gets its pending writes at once, whatever they waited for.
func (t *Twin) SetState(s models.DeviceState, problem string) bool {
	if t.State == s && t.Problem == problem {
		return false
	}
	if up := func(s models.DeviceState) bool { return s == models.StateOnline || s == models.StateDegraded }; up(s) && !up(t.State) {
		for i := range t.props {
			t.props[i].write.next, t.props[i].write.tries = time.Time{}, 0
		}
	}
	t.State, t.Problem = s, problem
	t.Version++
	return true
}

// WriteChange is a change of a write's state, to be told. Whoever tells it keeps it
// as Untold until it is told.
type WriteChange struct {
	Property int    // -1 for a property that the model has lost
	Name     string // of the property
	Private  bool   // its values are to stay at the edge, or were when the write was made
	Write    Write
	ClientID models.Value
	Local    bool // made at this edge, and not the hub's desired value yet
	// Asked is the local write itself, with the first word of it: the hub may never
	// hear of it otherwise, when others follow before it was told.
	Asked *Local
}

func (t *Twin) changed(i int) WriteChange {
	t.Version++
	e := &t.props[i].write
	return WriteChange{Property: i, Name: t.defs[i].Name, Private: t.WriteIsPrivate(i), Write: e.Write, ClientID: e.ClientID, Local: e.Version == 0}
}

// SetCloud takes the hub's desired values, which replace the ones before.
// Local writes that they override are superseded.
func (t *Twin) SetCloud(d Desired, now time.Time) (changes []WriteChange) {
	// The hub was restored from an older copy: what it says now is what is wanted.
	restored := d.Version < t.cloud.Version
	if restored {
		t.Version++
	}
	kept := t.locals[:0]
	for _, l := range t.locals {
		// Of what stays here the hub gives no verdict, and its versions may have gone back
		// behind the write's: another value than the one before is of after it.
		later := t.stays(l) && d.Properties[l.Property].ID != t.cloud.Properties[l.Property].ID
		if d.Judge(l) == Waiting && !later {
			kept = append(kept, l)
		}
	}
	t.cloud = d.Clone()
	t.locals = kept
	for i := range t.props {
		before := t.props[i].write.ID
		changes = append(changes, t.aim(i, now)...)
		// It may have forgotten what became of a write that it still knows.
		if e := &t.props[i].write; restored && e.ID != "" && e.ID == before {
			changes = append(changes, t.changed(i))
		}
	}
	return append(changes, t.aimOthers(restored, now)...)
}

// Resume makes the writes follow what is wanted, after a restart that may have come
// between storing the one and the other.
func (t *Twin) Resume(now time.Time) (changes []WriteChange) { return t.SetCloud(t.cloud, now) }

// aimOthers ends the writes of properties that the model has lost and that nobody asks
// for any more. The others it tells once more if the hub was restored.
func (t *Twin) aimOthers(restored bool, now time.Time) (changes []WriteChange) {
	for _, name := range slices.Sorted(maps.Keys(t.others)) {
		e := t.others[name]
		want, _ := t.wantedOf(name)
		asked := want.ID == e.ID && !want.Value.IsNull()
		if spent := e.spent(); !asked && len(spent) > 0 {
			t.others[name] = effort{Spent: spent}
		} else if !asked {
			delete(t.others, name)
		}
		switch {
		case asked && !restored, !asked && e.State != Pending:
			continue
		case asked:
		case want.ID == e.ID:
			e.settle(Expired, "not confirmed in time", now)
		default:
			e.settle(Superseded, "", now)
		}
		t.Version++
		changes = append(changes, WriteChange{Property: -1, Name: name, Private: e.Private, Write: e.Write, ClientID: e.ClientID, Local: e.Version == 0})
	}
	return changes
}

// SetLocal takes a desired value set at this edge, checked by the caller, and
// stored (IntentWith) before anyone is told. A null withdraws.
func (t *Twin) SetLocal(l Local, now time.Time) (changes []WriteChange) {
	i, ok := t.index[l.Property]
	t.locals = t.addLocal(t.locals, l)
	t.Version++
	if !ok {
		return t.aimOthers(false, now)
	}
	return t.aim(i, now)
}

// NextLocal completes a local write with what it is based on.
func (t *Twin) NextLocal(l Local) Local {
	l.Base, l.After, l.Private = t.cloud.Version, "", t.private(l.Property)
	if first := firstOf(t.locals, l.Property); first >= 0 && !l.Private {
		l.After = t.locals[first].ID
	}
	return l
}

// addLocal appends l. Of a property it keeps the oldest, which the hub may be
// hearing of already, and the newest, which goes up when the hub has judged the
// oldest: so an edge that is away for months keeps two, and its hub can follow
// from one to the next. Of values that stay at the edge it keeps the newest.
func (t *Twin) addLocal(locals []Local, l Local) []Local {
	out := make([]Local, 0, len(locals)+1)
	first := firstOf(locals, l.Property)
	for i, other := range locals {
		if other.Property != l.Property || i == first && !t.stays(l) && !t.stays(other) {
			out = append(out, other)
		}
	}
	return append(out, l)
}

func firstOf(locals []Local, property string) int {
	return slices.IndexFunc(locals, func(l Local) bool { return l.Property == property })
}

// stays reports whether the hub is not to hear of a local write.
func (t *Twin) stays(l Local) bool { return l.Private || t.private(l.Property) }

// private reports whether the property's values stay at the edge.
func (t *Twin) private(property string) bool {
	i, ok := t.index[property]
	return ok && t.defs[i].Uplink == models.UplinkNone
}

// wanted returns the desired value that holds for property i now.
func (t *Twin) wanted(i int) (v DesiredValue, client models.Value) { return t.wantedOf(t.defs[i].Name) }

// wantedOf returns the newest local desired value, else the cloud's.
func (t *Twin) wantedOf(name string) (v DesiredValue, client models.Value) {
	for _, l := range slices.Backward(t.locals) {
		if l.Property == name {
			return DesiredValue{Value: l.Value, ID: l.ID, Time: l.Time, By: l.By, Reason: l.Reason}, l.ClientID
		}
	}
	return t.cloud.Properties[name], models.Null
}

// Live reports whether the property, in the model or not, has a desired value.
func (t *Twin) Live(name string) bool {
	v, _ := t.wantedOf(name)
	return !v.Value.IsNull()
}

// aim makes property i's write follow what is wanted.
func (t *Twin) aim(i int, now time.Time) (changes []WriteChange) {
	e := &t.props[i].write
	want, client := t.wanted(i)
	sent := t.defs[i].Write == models.Once && t.Unsettled(i) // and what became of it is hidden
	if e.ID == want.ID {
		e.Version = want.Version
		if !want.Value.IsNull() && want.Hidden && e.State == Pending && !e.Sent {
			return t.hide(i, now) // this disk is a copy from before it was sent
		}
		if !want.Value.IsNull() || e.ID == "" {
			return nil
		}
		// Withdrawn under the same id: it expired at the hub. Where the device had
		// confirmed it meanwhile the hub's word stands, or a hold would go on
		// asserting what nobody asks for.
		switch e.State {
		case Pending:
			e.settle(Expired, "not confirmed in time", now)
		case Applied:
			e.settle(Expired, "not confirmed in time", now)
			e.Late = true
		default:
			return nil
		}
		return append(changes, t.changed(i))
	}
	if e.State == Pending {
		e.settle(Superseded, "", now)
		if sent {
			e.settle(Unknown, "it was sent, and another value took its place before a reading told whether it arrived", now)
		}
		changes = append(changes, t.changed(i))
	}
	var spent []string
	if t.defs[i].Write == models.Once {
		spent = e.spent()
	}
	if want.Value.IsNull() {
		*e = effort{Spent: spent}
		return changes
	}
	asked := t.localOf(want.ID)
	*e = effort{Write: Write{ID: want.ID, State: Pending, Time: now}, Value: want.Value, Version: want.Version, ClientID: client, Trace: want.Trace,
		Private: t.private(t.defs[i].Name) || asked != nil && asked.Private, Spent: spent}
	want.Hidden = want.Hidden || slices.Contains(e.Spent, want.ID) && want.Settled == ""
	if want.Settled.Final() && !want.Hidden && t.defs[i].Write == models.Once {
		// Some edge has written it already: this one, before it lost its disk, or the
		// one that served the device before.
		e.State, e.Sent = want.Settled, true
		return changes
	}
	if want.ExpiresInMS > 0 {
		e.Deadline = now.Add(time.Duration(want.ExpiresInMS) * time.Millisecond)
	}
	first := t.changed(i)
	first.Asked = asked
	changes = append(changes, first)
	if want.Hidden {
		changes = append(changes, t.hide(i, now)...)
	}
	return changes
}

// hide takes a pending once write of property i for one that may have been sent by
// somebody else: the next reading tells, or nothing ever does.
func (t *Twin) hide(i int, now time.Time) []WriteChange {
	e := &t.props[i].write
	if t.defs[i].Write != models.Once {
		return nil
	}
	e.Sent, e.Hidden = true, true
	if t.defs[i].Access.Readable() {
		return nil
	}
	e.Hidden = false
	e.settle(Unknown, "it may have been written before by an edge that cannot be asked any more, and the property cannot be read", now)
	return []WriteChange{t.changed(i)}
}

// localOf returns the local write with an id, nil when there is none.
func (t *Twin) localOf(id string) *Local {
	for i := range t.locals {
		if t.locals[i].ID == id {
			return new(t.locals[i])
		}
	}
	return nil
}

// Expire ends the pending writes whose time is over.
func (t *Twin) Expire(now time.Time) (changes []WriteChange) {
	for i := range t.props {
		e := &t.props[i].write
		if e.State == Pending && !e.Deadline.IsZero() && !now.Before(e.Deadline) {
			e.settle(Expired, "not confirmed in time", now)
			changes = append(changes, t.changed(i))
		}
	}
	return changes
}

// Due returns the writes to send now, and those that it ended because the model
// has changed and no longer allows them. The caller stores the twin before it
// sends a once write, so that a crash cannot make it a second one.
func (t *Twin) Due(now time.Time) (orders []Order, changes []WriteChange) {
	if t.Paused {
		return nil, nil
	}
	for i := range t.props {
		p, def := &t.props[i], &t.defs[i]
		e := &p.write
		if e.ID == "" || e.inFlight || now.Before(e.next) || !t.owed(p, def) {
			continue
		}
		v, err := def.CheckDesired(e.Value, "")
		if err != nil {
			e.settle(Failed, err.Error(), now)
			e.Refused = true
			changes = append(changes, t.changed(i))
			continue
		}
		if e.State == Applied && now.Sub(e.next) > e.wait {
			e.tries = 0 // it stuck for longer than it was waited for: this is a new drift, not the same fight
		}
		e.Value = v
		e.inFlight, e.Sent, e.before, e.SentAt = true, true, e.SentAt, now
		orders = append(orders, Order{Property: i, ID: e.ID, Value: e.Value, Once: def.Write == models.Once, Trace: e.Trace})
	}
	return orders, changes
}

// NextDue returns the earliest time at which Due or Expire may have something
// that they do not have now; zero for never.
func (t *Twin) NextDue() (at time.Time) {
	earlier := func(other time.Time) {
		if at.IsZero() || other.Before(at) {
			at = other
		}
	}
	for i := range t.props {
		e := &t.props[i].write
		if e.ID == "" {
			continue
		}
		if e.State == Pending && !e.Deadline.IsZero() {
			earlier(e.Deadline)
		}
		if !t.Paused && !e.inFlight && !e.next.IsZero() && t.owed(&t.props[i], &t.defs[i]) {
			earlier(e.next)
		}
	}
	return at
}

// owed reports whether the device is to be written to, were it time.
func (t *Twin) owed(p *property, def *models.ResolvedProperty) bool {
	e := &p.write
	if def.Write == models.Once {
		return e.State == Pending && !e.Sent
	}
	switch e.State {
	case Pending:
		return true
	case Applied: // it held: does it still?
		return p.reported.Known() && p.reported.Quality == models.Good && !Same(p.reported.Value, e.Want)
	}
	return false
}

// Settle takes the outcome of an order. A read-back is to be given to Report
// by the caller as well.
func (t *Twin) Settle(r Result, now time.Time) (changes []WriteChange) {
	e := &t.props[r.Property].write
	if e.ID != r.ID {
		return nil // superseded meanwhile, and told so
	}
	e.inFlight = false
	if !r.Sent.IsZero() {
		e.SentAt = r.Sent
	}
	once := t.defs[r.Property].Write == models.Once
	expired := e.State == Expired
	switch r.Outcome {
	case Confirmed:
		e.Want = e.Value
		if r.ReadBack != nil {
			e.Want = r.ReadBack.Value
		}
		if expired {
			e.Late = true
		} else {
			e.settle(Applied, "", now)
		}
		e.backOff(now) // of the next assertion, if it does not stick
		return append(changes, t.changed(r.Property))
	case NotSent:
		e.Sent, e.SentAt = false, e.before // an attempt before may have reached the device
		e.backOff(now)
		e.Error = r.Err
		return nil
	}
	if expired {
		return nil
	}
	switch {
	case r.Outcome == Refusal:
		e.settle(Failed, r.Err, now)
		e.Refused = true
	case !once:
		e.backOff(now)
		if e.Error == r.Err {
			return nil
		}
		e.Error = r.Err // pending as before, but now it can be seen why
	case r.ReadBack != nil:
		e.settle(Failed, r.Err, now)
	case !t.defs[r.Property].Access.Readable():
		e.settle(Unknown, r.Err, now)
	default:
		e.Error = r.Err // the next good reading tells
		return nil
	}
	return append(changes, t.changed(r.Property))
}

// Learn settles writes whose outcome went missing by what property i reads
// now. The caller calls it after a Report or Refresh of i that tells of the time
// after the write was sent; canonical is the pending value as the device would
// show it.
func (t *Twin) Learn(i int, canonical models.Value, now time.Time) (changes []WriteChange) {
	p, def := &t.props[i], &t.defs[i]
	e := &p.write
	if !t.Unsettled(i) || p.reported.Quality != models.Good {
		return nil
	}
	switch {
	case Same(p.reported.Value, canonical):
		e.Want = p.reported.Value
		e.settle(Applied, "", now)
	case def.Write == models.Hold:
		e.Hidden, e.Sent = false, false
		return nil // it is sent again
	case e.Hidden:
		e.settle(Unknown, "nobody heard the device's answer; it now reads "+p.reported.Value.String(), now)
	default:
		e.settle(Failed, e.Error+"; the device now reads "+p.reported.Value.String()+", and it is not written again (write: once)", now)
	}
	e.Hidden = false
	return append(changes, t.changed(i))
}

// Unsettled reports whether property i has a write that was sent and whose
// outcome only a reading can tell.
func (t *Twin) Unsettled(i int) bool {
	e := &t.props[i].write
	return e.State == Pending && e.Sent && !e.inFlight && (e.Hidden || t.defs[i].Write == models.Once)
}

// Pending returns the value that property i's write is to bring about.
func (t *Twin) Pending(i int) models.Value { return t.props[i].write.Value }

// HideUnreadable ends, after a restart, the once writes whose outcome nothing
// can ever tell because their property cannot be read, or not any more.
func (t *Twin) HideUnreadable(now time.Time) (changes []WriteChange) {
	for i := range t.props {
		if e := &t.props[i].write; t.Unsettled(i) && t.defs[i].Write == models.Once && !t.defs[i].Access.Readable() {
			why := "the edge stopped before the device answered"
			if !e.Hidden {
				why = e.Error + "; and the property cannot be read any more"
			}
			e.Hidden = false
			e.settle(Unknown, why, now)
			changes = append(changes, t.changed(i))
		}
	}
	return changes
}

// Document shows the twin.
func (t *Twin) Document(device, namespace string) Document {
	doc := Document{Device: device, Version: t.Version, State: t.State, DesiredVersion: t.cloud.Version,
		Properties: make(map[string]PropertyDoc, len(t.props))}
	if namespace != models.DefaultNamespace {
		doc.Namespace = namespace
	}
	if !t.LastSeen.IsZero() {
		doc.LastSeen = new(t.LastSeen.UTC())
	}
	for i := range t.props {
		def := &t.defs[i]
		out := PropertyDoc{Unit: def.Unit, Reported: t.props[i].reported.doc(def.Enum), Write: t.props[i].write.doc()}
		if want, _ := t.wanted(i); !want.Value.IsNull() {
			out.Desired = want.doc(def.Enum)
		}
		doc.Properties[def.Name] = out
	}
	return doc
}
