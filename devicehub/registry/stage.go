package registry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/twin"
)

// stage is the registry as it will be when the group at hand is stored. Only
// the sequencer has one; it reads the registry's maps without a lock because
// nobody else writes them.
type stage struct {
	r        *Registry
	revision int64
	changes  []change
	objects  map[models.Key]*entry // nil: deleted
	desired  map[string]desiredEntry
	by       string   // who makes the change at hand
	undo     []func() // takes back what the change at hand has staged, last first
}

// change is one change of one object, or of one device's desired values.
type change struct {
	revision  int64
	typ       models.EventType
	entry     *entry        // as it is now; as it was, for Deleted
	before    *entry        // as it was, nil for Added
	desired   *desiredEntry // set: the desired values of deviceUID changed
	json      []byte        // of desired
	deviceUID string
	ledger    ledger // what it means to the ledger of writes
	by        string // who changed it; "" for the hub itself
	quiet     bool   // stored and delivered, but no event: only what belongs to the hub changed
}

func newStage(r *Registry) *stage {
	return &stage{r: r, revision: r.revision, objects: map[models.Key]*entry{}, desired: map[string]desiredEntry{}}
}

// try applies one change; an error leaves the stage as it was.
func (s *stage) try(apply func(*stage) error) error {
	revision, changes := s.revision, len(s.changes)
	s.undo, s.by = s.undo[:0], ""
	if err := apply(s); err != nil {
		for _, back := range slices.Backward(s.undo) {
			back()
		}
		s.revision, s.changes = revision, s.changes[:changes]
		return err
	}
	return nil
}

// setStaged puts v into one of the stage's maps so that try can take it back.
func setStaged[K comparable, V any](s *stage, m map[K]V, k K, v V) {
	old, had := m[k]
	s.undo = append(s.undo, func() {
		if had {
			m[k] = old
		} else {
			delete(m, k)
		}
	})
	m[k] = v
}

// get returns an object as staged, nil when there is none.
func (s *stage) get(key models.Key) *entry {
	if e, staged := s.objects[key]; staged {
		return e
	}
	return s.r.objects[key]
}

// devicesOf returns the staged devices of a model, in the order of their names.
func (s *stage) devicesOf(model models.Key) (out []*entry) {
	for uid := range s.r.byModel[model] {
		e := s.r.byUID[uid]
		if _, staged := s.objects[models.KeyOf(e.object)]; !staged {
			out = append(out, e)
		}
	}
	for _, e := range s.objects {
		if e != nil {
			if d, is := e.object.(*models.Device); is && modelKey(d) == model {
				out = append(out, e)
			}
		}
	}
	slices.SortFunc(out, func(a, b *entry) int { return strings.Compare(a.object.Meta().Name, b.object.Meta().Name) })
	return out
}

// modelsOf returns the staged DeviceModels of a protocol.
func (s *stage) modelsOf(protocol string) (out []*models.DeviceModel) {
	for key := range s.keys("DeviceModel") {
		if m := s.get(key).object.(*models.DeviceModel); m.Spec.Protocol == protocol {
			out = append(out, m)
		}
	}
	return out
}

// keys yields the keys of the staged objects of a kind.
func (s *stage) keys(kind string) func(func(models.Key) bool) {
	return func(yield func(models.Key) bool) {
		for k := range s.r.objects {
			if _, staged := s.objects[k]; k.Kind == kind && !staged && !yield(k) {
				return
			}
		}
		for k, e := range s.objects {
			if k.Kind == kind && e != nil && !yield(k) {
				return
			}
		}
	}
}

// desiredOf returns a device's staged desired values.
func (s *stage) desiredOf(uid string) twin.Desired {
	if d, staged := s.desired[uid]; staged {
		return d.desired
	}
	return s.r.desired[uid].desired
}

// put stages an object that has been checked. It fills in what the hub owns and
// returns the object as stored; nothing changes when it equals what is there.
func (s *stage) put(o models.Object, e *entry) error {
	key := models.KeyOf(o)
	before := s.get(key)
	o.ClearStatus()
	m := o.Meta()
	m.UID, m.Generation, m.ResourceVersion, m.CreationTimestamp = "", 0, "", nil
	if key.Kind != "Pod" { // those the hub alone makes
		m.DeletionTimestamp = nil
	}
	text, err := json.Marshal(o)
	if err != nil {
		return fmt.Errorf("encode %s: %w", key, err)
	}
	if len(text) > models.MaxDocumentBytes {
		return models.Invalid("", "the object has %d bytes, at most %d are allowed", len(text), models.MaxDocumentBytes)
	}
	e.object, e.json = o, text
	typ := models.Added
	uid, generation, created := "", int64(1), s.r.now()
	if before != nil {
		if bytes.Equal(before.json, text) {
			*e = *before
			return nil
		}
		typ = models.Modified
		bm := before.object.Meta()
		uid, generation, created = bm.UID, bm.Generation, *bm.CreationTimestamp
		if !sameSpec(before.json, text) {
			generation++
		}
		e.assignment = before.assignment
	} else {
		uid = NewUID()
	}
	if d, ok := o.(*models.Device); ok && (before == nil || before.object.(*models.Device).Spec.Node != d.Spec.Node) {
		e.assignment++
	}
	e.secrets = secretsOf(o)
	if e.storedAs, err = s.r.storedForm(o, uid, text); err != nil {
		return err
	}
	s.revision++
	e.revision = s.revision
	stamp(o, uid, generation, e.revision, created)
	setStaged(s, s.objects, key, e)
	s.changes = append(s.changes, change{revision: s.revision, typ: typ, entry: e, before: before, by: s.by})
	return nil
}

func sameSpec(a, b []byte) bool {
	var x, y struct{ Spec json.RawMessage }
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	return bytes.Equal(x.Spec, y.Spec)
}

// drop stages the deletion of an object that is there.
func (s *stage) drop(key models.Key) {
	before := s.get(key)
	var l ledger
	if key.Kind == "Device" {
		l = deletedLedger(s.desiredOf(before.object.Meta().UID), s.r.now().UTC())
	}
	s.revision++
	setStaged(s, s.objects, key, nil)
	gone := *before // the deletion has a revision of its own
	gone.revision = s.revision
	gone.object = clone(before.object)
	gone.object.Meta().ResourceVersion = strconv.FormatInt(s.revision, 10)
	s.changes = append(s.changes, change{revision: s.revision, typ: models.Deleted, entry: &gone, before: before, by: s.by, ledger: l})
}

// setDesired stages a device's desired values, and what the ledger is to tell of
// the change.
func (s *stage) setDesired(uid string, d twin.Desired, t told) error {
	l := ledgerOf(uid, s.desiredOf(uid), d, t, s.r.now().UTC())
	text, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("encode desired values of %s: %w", uid, err)
	}
	// An edge takes them in one message: what does not fit could never be delivered.
	if len(text) > models.MaxDocumentBytes {
		return models.Invalid("", "the device's desired values have %d bytes together, at most %d are allowed", len(text), models.MaxDocumentBytes)
	}
	s.revision++
	e := desiredEntry{s.revision, d}
	setStaged(s, s.desired, uid, e)
	s.changes = append(s.changes, change{revision: s.revision, desired: &e, json: text, deviceUID: uid, ledger: l})
	return nil
}

// noteDesired stages desired values in which only what the hub keeps for itself
// has changed: they keep their revision, and no edge is sent them again.
func (s *stage) noteDesired(uid string, d twin.Desired) error {
	text, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("encode desired values of %s: %w", uid, err)
	}
	revision := s.r.desired[uid].revision
	if staged, ok := s.desired[uid]; ok {
		revision = staged.revision
	}
	s.revision++
	e := desiredEntry{revision, d}
	setStaged(s, s.desired, uid, e)
	s.changes = append(s.changes, change{revision: s.revision, desired: &e, json: text, deviceUID: uid, quiet: true})
	return nil
}

// stored returns the group as the store takes it.
func (s *stage) stored() store.Commit {
	c := store.Commit{Revision: s.revision, Audit: s.audited(), Events: s.happened()}
	gone := map[string]bool{}   // uids of devices that were deleted, be it that they came in this very group
	desired := map[string]int{} // device uid to its place in c.PutDesired
	for _, ch := range s.changes {
		switch {
		case ch.desired != nil:
			row := store.Desired{DeviceUID: ch.deviceUID, Revision: ch.desired.revision, JSON: ch.json}
			if i, ok := desired[ch.deviceUID]; ok {
				c.PutDesired[i] = row
			} else {
				desired[ch.deviceUID] = len(c.PutDesired)
				c.PutDesired = append(c.PutDesired, row)
			}
		case ch.typ == models.Deleted:
			gone[ch.entry.object.Meta().UID] = true
		}
	}
	for key, e := range s.objects { // only the last state of each counts
		before := s.r.objects[key]
		if e == nil || before != nil && before.object.Meta().UID != e.object.Meta().UID {
			if before != nil {
				c.Delete = append(c.Delete, store.Object{Kind: key.Kind, Namespace: key.Namespace, Name: key.Name, UID: before.object.Meta().UID})
				if key.Kind == "Device" {
					c.DeletedDevices = append(c.DeletedDevices, before.object.Meta().UID)
				}
			}
		}
		if e == nil || e == before || before != nil && before.revision == e.revision {
			continue // gone, or only what is compiled from it changed
		}
		m := e.object.Meta()
		c.Put = append(c.Put, store.Object{Kind: key.Kind, Namespace: key.Namespace, Name: key.Name, UID: m.UID, Revision: e.revision,
			Generation: m.Generation, Assignment: int64(e.assignment), Created: *m.CreationTimestamp, JSON: e.storedAs})
	}
	s.kept(&c)
	c.PutDesired = slices.DeleteFunc(c.PutDesired, func(d store.Desired) bool { return gone[d.DeviceUID] })
	return c
}
