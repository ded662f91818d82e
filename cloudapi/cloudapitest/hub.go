// Package cloudapitest is a hub in memory for tests of the API, its client and
// the commands that use it. It keeps the promises of cloudapi's interfaces, but
// for two: it does not check connections and addresses against a mapper's
// schemas, and it keeps nothing. Devices do as they are told (Behaviour).
package cloudapitest

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/whimbrel-edge/whimbrel/cloudapi"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/twin"
)

// Behaviour is what a device does with a write.
type Behaviour int

// The behaviours.
const (
	Confirms Behaviour = iota // applies it at once
	Refuses                   // answers no
	Silent                    // never answers
)

// Hub is a hub in memory. It implements every interface of cloudapi.
type Hub struct {
	mu       sync.Mutex
	dead     []models.DeadLetter
	services map[models.Key]string // addresses
	pods     map[models.Key]*playedPod
	commands []string
	changed  chan struct{} // closed and made anew with every change
	objects  map[models.Key]models.Object
	revision int64
	events   []event // oldest first, all that came after floor
	floor    int64

	devices    map[models.Key]*device
	twinCursor uint64 // counts changes of twins
	twinFloor  uint64

	happened []models.LoggedEvent // the n-th has the version n

	watchers int // Watch calls that are past the first objects

	tokens  map[string]cloudapi.TokenInfo // by secret
	wrong   map[string]int                // wrong tokens by address
	answers map[string]*keptAnswer        // by caller and key
}

type event struct {
	revision int64
	typ      models.EventType
	object   models.Object
	before   models.Object // nil for a new one
}

// device is the twin of one device.
type device struct {
	shadow    twin.Shadow
	desired   twin.Desired
	behaviour Behaviour
	away      time.Time                        // when its node went, zero while it is there
	changed   map[string]uint64                // by property, the twinCursor of the last change
	touched   uint64                           // the twinCursor of the last change of anything
	history   map[string][]models.HistoryPoint // by property, as they came
	ledger    []twin.LedgerEntry               // oldest first, as they were asked
}

var (
	_ cloudapi.Objects     = (*Hub)(nil)
	_ cloudapi.Twins       = (*Hub)(nil)
	_ cloudapi.Devices     = (*Hub)(nil)
	_ cloudapi.History     = (*Hub)(nil)
	_ cloudapi.Audit       = (*Hub)(nil)
	_ cloudapi.Events      = (*Hub)(nil)
	_ cloudapi.Services    = (*Hub)(nil)
	_ cloudapi.Access      = (*Hub)(nil)
	_ cloudapi.Idempotency = (*Hub)(nil)
)

// AdminToken is the API token of the user admin, who is there from the start.
const AdminToken = "whk_test-admin"

// New returns a hub with the user admin and the mapper modbus.
func New() *Hub {
	h := &Hub{changed: make(chan struct{}), objects: map[models.Key]models.Object{}, devices: map[models.Key]*device{},
		tokens: map[string]cloudapi.TokenInfo{}, wrong: map[string]int{}, answers: map[string]*keptAnswer{}}
	h.mustAdd(`{"kind":"User","metadata":{"name":"admin"},"spec":{"role":"admin","namespace":"*"}}`)
	h.mustAdd(`{"kind":"Mapper","metadata":{"name":"modbus"},"spec":{"version":"test"}}`)
	h.tokens[AdminToken] = cloudapi.TokenInfo{ID: ulid.Make().String(), Kind: "user", User: "admin", Created: time.Now().UTC()}
	return h
}

func (h *Hub) mustAdd(text string) {
	var kind models.TypeMeta
	err := json.Unmarshal([]byte(text), &kind)
	if err == nil {
		var o models.Object
		if o, err = models.DecodeKind(kind.Kind, []byte(text)); err == nil {
			err = h.Put(o)
		}
	}
	if err != nil {
		panic(err)
	}
}

// Put creates or replaces an object as the hub itself would.
func (h *Hub) Put(o models.Object) error {
	_, _, err := h.Update(context.Background(), models.KeyOf(o), models.WriteOptions{}, func(models.Object) (models.Object, error) { return clone(o), nil })
	return err
}

// AddUser makes a user and returns an API token.
func (h *Hub) AddUser(name string, role models.Role, namespace string) (token string, err error) {
	u := &models.User{TypeMeta: models.TypeMeta{APIVersion: models.APIVersion, Kind: "User"}, Metadata: models.ObjectMeta{Name: name},
		Spec: models.UserSpec{Role: role, Namespace: namespace}}
	if err := h.Put(u); err != nil {
		return "", err
	}
	token, _, _, err = h.CreateUserToken(context.Background(), name, 0, "test")
	return token, err
}

// wakeLocked tells everyone who waits that something has changed.
func (h *Hub) wakeLocked() {
	close(h.changed)
	h.changed = make(chan struct{})
}

func clone(o models.Object) models.Object {
	info, _ := models.KindByName(o.Type().Kind)
	c := info.New()
	text, err := json.Marshal(o)
	if err == nil {
		err = json.Unmarshal(text, c)
	}
	if err != nil {
		panic(err) // unreachable: an object's own text decodes
	}
	return c
}

func matches(ifMatch, version string) bool {
	for tag := range strings.SplitSeq(ifMatch, ",") {
		if tag = strings.TrimSpace(tag); tag == "" || tag == "*" || tag == `"`+version+`"` {
			return true
		}
	}
	return false
}

// shownLocked returns an object with its status.
func (h *Hub) shownLocked(o models.Object) models.Object {
	c := clone(o)
	if d, ok := c.(*models.Device); ok {
		d.Status = &models.DeviceStatus{State: models.StateUnknown}
		if t := h.devices[models.KeyOf(o)]; t != nil && t.away.IsZero() && t.shadow.State != "" {
			d.Status.State = t.shadow.State
		}
	}
	return c
}

// Get implements cloudapi.Objects.
func (h *Hub) Get(_ context.Context, key models.Key) (models.Object, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	o := h.objects[key]
	if o == nil {
		return nil, notFound(key)
	}
	return h.shownLocked(o), nil
}

func notFound(key models.Key) error {
	return models.Errorf(models.KindNotFound, "%s does not exist", key)
}

func place(k models.Key) string { return k.Namespace + "/" + k.Name }

// pageLocked chooses objects in order, and where the next page goes on.
func (h *Hub) pageLocked(o models.ListOptions) (page []models.Object, next string, err error) {
	if o.Continue != "" && !strings.Contains(o.Continue, "/") {
		return nil, "", models.BadParameter(models.KindMalformed, "continue", "is not one that a list gave")
	}
	for key, object := range h.objects {
		if key.Kind == o.Kind && chosen(object, o) && place(key) > o.Continue {
			page = append(page, h.shownLocked(object))
		}
	}
	slices.SortFunc(page, func(a, b models.Object) int {
		return strings.Compare(place(models.KeyOf(a)), place(models.KeyOf(b)))
	})
	if o.Limit > 0 && len(page) > o.Limit {
		page = page[:o.Limit]
		next = place(models.KeyOf(page[o.Limit-1]))
	}
	return page, next, nil
}

func chosen(o models.Object, opts models.ListOptions) bool {
	return o != nil && o.Type().Kind == opts.Kind && (opts.Namespace == "" || o.Meta().Namespace == opts.Namespace) &&
		opts.Selector.Matches(o.Meta().Labels)
}

// List implements cloudapi.Objects.
func (h *Hub) List(_ context.Context, o models.ListOptions) (models.List, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	page, next, err := h.pageLocked(o)
	return models.List{Items: page, ResourceVersion: strconv.FormatInt(h.revision, 10), Continue: next}, err
}

// Update implements cloudapi.Objects.
func (h *Hub) Update(_ context.Context, key models.Key, o models.WriteOptions, change func(models.Object) (models.Object, error)) (models.Object, bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	before := h.objects[key]
	var current models.Object
	switch {
	case before != nil && o.Create:
		return nil, false, models.Errorf(models.KindConflict, "%s already exists", key)
	case before != nil:
		if !matches(o.IfMatch, before.Meta().ResourceVersion) {
			return nil, false, models.Errorf(models.KindPrecondition, "%s has been changed since", key)
		}
		current = clone(before)
	case o.IfMatch != "":
		return nil, false, models.Errorf(models.KindPrecondition, "%s does not exist", key)
	}
	wanted, err := change(current)
	if err != nil {
		return nil, false, err
	}
	wanted = clone(wanted)
	wanted.ClearStatus()
	if err := h.checkLocked(wanted); err != nil {
		return nil, false, err
	}
	meta := wanted.Meta()
	if before == nil {
		now := time.Now().UTC()
		meta.UID, meta.CreationTimestamp, meta.Generation = ulid.Make().String(), &now, 1
	} else {
		was := before.Meta()
		meta.UID, meta.CreationTimestamp, meta.Generation, meta.ResourceVersion = was.UID, was.CreationTimestamp, was.Generation, was.ResourceVersion
		if same(before, wanted) {
			return h.shownLocked(before), false, nil
		}
		meta.Generation++
	}
	h.revision++
	meta.ResourceVersion = strconv.FormatInt(h.revision, 10)
	h.objects[key] = wanted
	if key.Kind == "Device" && h.devices[key] == nil {
		h.devices[key] = &device{changed: map[string]uint64{}}
		h.touchLocked(h.devices[key])
	}
	typ := models.Modified
	if before == nil {
		typ = models.Added
	}
	h.events = append(h.events, event{h.revision, typ, wanted, before})
	h.wakeLocked()
	return h.shownLocked(wanted), before == nil, nil
}

func same(a, b models.Object) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

// checkLocked checks what an object says of others.
func (h *Hub) checkLocked(o models.Object) error {
	switch o := o.(type) {
	case *models.DeviceModel:
		if h.objects[models.Key{Kind: "Mapper", Name: o.Spec.Protocol}] == nil {
			return models.Invalid("/spec/protocol", "there is no mapper %s", o.Spec.Protocol)
		}
	case *models.Device:
		m, ok := h.objects[models.Key{Kind: "DeviceModel", Namespace: o.Metadata.Namespace, Name: o.Spec.Model}].(*models.DeviceModel)
		if !ok {
			return models.Invalid("/spec/model", "there is no DeviceModel %s in namespace %s", o.Spec.Model, o.Metadata.Namespace)
		}
		_, err := models.Resolve(m, o)
		return err
	}
	return nil
}

// Delete implements cloudapi.Objects.
func (h *Hub) Delete(_ context.Context, key models.Key, o models.WriteOptions) (models.Object, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	before := h.objects[key]
	if before == nil {
		return nil, notFound(key)
	}
	if !matches(o.IfMatch, before.Meta().ResourceVersion) {
		return nil, models.Errorf(models.KindPrecondition, "%s has been changed since", key)
	}
	for other, object := range h.objects {
		switch object := object.(type) {
		case *models.Device:
			if key.Kind == "DeviceModel" && other.Namespace == key.Namespace && object.Spec.Model == key.Name {
				return nil, models.Errorf(models.KindConflict, "%s is in use by %s", key, other)
			}
		case *models.DeviceModel:
			if key.Kind == "Mapper" && object.Spec.Protocol == key.Name {
				return nil, models.Errorf(models.KindConflict, "%s is in use by %s", key, other)
			}
		}
	}
	shown := h.shownLocked(before)
	h.revision++
	gone := clone(before)
	gone.Meta().ResourceVersion = strconv.FormatInt(h.revision, 10)
	delete(h.objects, key)
	delete(h.devices, key)
	h.events = append(h.events, event{h.revision, models.Deleted, gone, before})
	h.wakeLocked()
	return shown, nil
}

// Forget makes every resourceVersion and every twin cursor given out so far too
// old.
func (h *Hub) Forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.revision++
	h.events, h.floor = nil, h.revision
	h.twinCursor++
	h.twinFloor = h.twinCursor
}

// Watch implements cloudapi.Objects.
func (h *Hub) Watch(ctx context.Context, o models.ListOptions, resourceVersion string, send func(models.Event) error) error {
	var cursor int64
	if resourceVersion == "" {
		h.mu.Lock()
		all := o
		all.Limit, all.Continue = 0, ""
		page, _, err := h.pageLocked(all)
		cursor = h.revision
		h.mu.Unlock()
		if err != nil {
			return err
		}
		for _, object := range page {
			if err := send(models.Event{Type: models.Added, Object: object}); err != nil {
				return err
			}
		}
		if err := send(bookmark(o.Kind, cursor)); err != nil {
			return err
		}
	} else if v, err := strconv.ParseInt(resourceVersion, 10, 64); err != nil {
		return models.BadParameter(models.KindMalformed, "resourceVersion", "is not one that a list gave")
	} else {
		cursor = v
	}
	h.countWatchers(1)
	defer h.countWatchers(-1)
	tick := time.NewTicker(30 * time.Second)
	defer tick.Stop()
	for {
		h.mu.Lock()
		changed, floor, revision := h.changed, h.floor, h.revision
		var events []models.Event
		for _, ev := range h.events {
			if typ := seen(ev, o); ev.revision > cursor && typ != "" {
				events = append(events, models.Event{Type: typ, Object: h.shownLocked(ev.object)})
			}
		}
		h.mu.Unlock()
		if cursor < floor || cursor > revision {
			return models.Errorf(models.KindGone, "resourceVersion %d is too old: list again", cursor)
		}
		for _, ev := range events {
			if err := send(ev); err != nil {
				return err
			}
		}
		cursor = revision
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-tick.C:
			if err := send(bookmark(o.Kind, cursor)); err != nil {
				return err
			}
		}
	}
}

// seen is what an event is to someone who watches through a selector.
func seen(ev event, o models.ListOptions) models.EventType {
	was, is := chosen(ev.before, o), ev.typ != models.Deleted && chosen(ev.object, o)
	switch {
	case was && is:
		return models.Modified
	case is:
		return models.Added
	case was:
		return models.Deleted
	}
	return ""
}

func bookmark(kind string, revision int64) models.Event {
	info, _ := models.KindByName(kind)
	o := info.New()
	*o.Type() = models.TypeMeta{APIVersion: info.APIVersion, Kind: info.Kind}
	o.Meta().ResourceVersion = strconv.FormatInt(revision, 10)
	return models.Event{Type: models.Bookmark, Object: o}
}

// Watchers is how many watches have had their first objects and follow changes.
func (h *Hub) Watchers() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.watchers
}

func (h *Hub) countWatchers(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.watchers += n
}
