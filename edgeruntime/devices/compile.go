package devices

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/store"
	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/mqtt"
	"github.com/whimbrel-edge/whimbrel/twin"
)

// device is a wanted device, compiled from what the hub says. It is never
// changed.
type device struct {
	id         string // local
	namespace  string
	name       string
	uid        string
	assignment uint64
	model      string
	protocol   string
	connection json.RawMessage
	defs       []models.ResolvedProperty
	secrets    map[string]mappers.Secret // by field of the connection
	driver     mappers.Driver            // nil with a problem
	problem    string                    // why it cannot be served as it is configured
	locked     bool
	desired    *wish // nil while the hub has said nothing
	// key is equal for two that one open connection can serve: it leaves out
	// locked and desired, which a running loop takes over.
	key string
}

// wish is the hub's desired values, and the text they came in, to tell whether
// they have changed.
type wish struct {
	twin.Desired
	text string
}

func (w *wish) equal(other *wish) bool {
	return w == other || w != nil && other != nil && w.text == other.text
}

func (d *device) ref() edgelink.DeviceRef {
	return edgelink.DeviceRef{UID: d.uid, Assignment: d.assignment}
}

// compiler turns what the hub wants into devices, and keeps what came of it: of
// thousands of items one changes at a time, and the devices that it does not concern
// stay the same ones.
type compiler struct {
	items   map[itemKey]decoded // every item, by the text that it was read from
	devices map[string]compiled // by local id
}

type itemKey struct{ kind, namespace, name string }

// decoded is an item's text and what was read from it, nil where it cannot be.
type decoded struct {
	text   []byte
	object any
}

// compiled is a device, and all that it was compiled from.
type compiled struct {
	device     *device
	item       *models.Device // nil: it cannot be read
	uid        string
	assignment uint64
	model      *models.DeviceModel
	desired    *wish
	driver     mappers.Driver // the same one until forget
	secrets    []*models.Secret
}

func (c compiled) same(o compiled) bool {
	return c.item != nil && c.item == o.item && c.uid == o.uid && c.assignment == o.assignment && c.model == o.model && c.desired == o.desired &&
		slices.Equal(c.secrets, o.secrets)
}

// forget has all devices compiled anew: the drivers are others.
func (c *compiler) forget() { c.devices = nil }

// compile turns items into devices, by local id. Decoding is tolerant, as the
// hub may be newer; what cannot be served gets a problem and harms no other.
func (c *compiler) compile(items []store.Item, drivers map[string]mappers.Driver, log *slog.Logger) map[string]*device {
	was := *c
	c.items, c.devices = make(map[itemKey]decoded, len(items)), make(map[string]compiled, len(was.devices))
	desired := map[string]*wish{} // by the device's uid
	for _, i := range items {
		key := itemKey{i.Kind, i.Namespace, i.Name}
		r, known := was.items[key]
		if !known || !bytes.Equal(r.text, i.JSON) {
			object, err := readItem(i)
			if err != nil {
				log.Error("the hub sent what cannot be read", "kind", i.Kind, "namespace", i.Namespace, "name", i.Name, "revision", i.Revision, "error", err)
			}
			r = decoded{i.JSON, object}
		}
		c.items[key] = r
		if w, ok := r.object.(*wish); ok {
			desired[i.UID] = w
		}
	}
	out := make(map[string]*device, len(was.devices))
	for _, i := range items {
		if i.Kind != store.KindDevice {
			continue
		}
		id := mqtt.LocalID(i.Namespace, i.Name)
		now := compiled{uid: i.UID, assignment: i.Assignment, desired: desired[i.UID]}
		var refs []models.ConnectionSecret
		if object, ok := c.items[itemKey{i.Kind, i.Namespace, i.Name}].object.(*models.Device); ok {
			now.item = object
			if m, ok := c.items[itemKey{store.KindDeviceModel, i.Namespace, object.Spec.Model}].object.(*models.DeviceModel); ok {
				now.model, now.driver = m, drivers[m.Spec.Protocol]
			}
			refs = object.SecretRefs()
			for _, ref := range refs {
				secret, _ := c.items[itemKey{store.KindSecret, i.Namespace, ref.Secret}].object.(*models.Secret)
				now.secrets = append(now.secrets, secret)
			}
		}
		if before, there := was.devices[id]; there && before.same(now) {
			now.device = before.device
		} else {
			now.device = newDevice(id, i, now, refs)
		}
		c.devices[id], out[id] = now, now.device
	}
	return out
}

// readItem reads an item of a kind that devices are made of; nil is none.
func readItem(i store.Item) (object any, err error) {
	switch i.Kind {
	case store.KindDevice:
		d := &models.Device{}
		if json.Unmarshal(i.JSON, d) != nil {
			return nil, nil // the device says so
		}
		d.Default()
		return d, nil
	case store.KindDeviceModel:
		m := &models.DeviceModel{}
		if err := json.Unmarshal(i.JSON, m); err != nil {
			return nil, err
		}
		m.Default()
		return m, nil
	case store.KindSecret:
		s := &models.Secret{}
		if json.Unmarshal(i.JSON, s) != nil {
			return nil, nil // as if it were not there; the error might tell of it
		}
		return s, nil
	case store.KindDesired:
		w := &wish{text: string(i.JSON)}
		if err := json.Unmarshal(i.JSON, &w.Desired); err != nil {
			return nil, err
		}
		return w, nil
	}
	return nil, nil
}

func newDevice(id string, i store.Item, of compiled, refs []models.ConnectionSecret) *device {
	d := &device{id: id, namespace: i.Namespace, name: i.Name, uid: i.UID, assignment: i.Assignment, desired: of.desired}
	object := of.item
	if object == nil {
		err := json.Unmarshal(i.JSON, &models.Device{})
		d.problem = fmt.Sprintf("the device cannot be read by this release: %v", err)
		d.key = string(i.JSON)
		return d
	}
	d.model, d.locked, d.connection = object.Spec.Model, object.Spec.Locked, object.Spec.Connection
	d.resolve(of.model, object, of.driver)
	for n, ref := range refs {
		d.takeSecret(ref, of.secrets[n])
	}
	d.setKey(of.model, object.Spec)
	return d
}

// resolve finds the device's properties and its driver, or its problem.
func (d *device) resolve(model *models.DeviceModel, object *models.Device, driver mappers.Driver) {
	if model == nil {
		d.problem = fmt.Sprintf("there is no model %s on this edge", object.Spec.Model)
		return
	}
	defs, err := models.Resolve(model, object)
	if err != nil {
		d.problem = err.Error()
		return
	}
	for i := range defs {
		defs[i].Every = max(defs[i].Every, models.MinEvery) // the hub checks it; a loop must not spin for its mistake
	}
	d.defs, d.protocol = defs, model.Spec.Protocol
	if d.driver = driver; d.driver == nil {
		d.problem = fmt.Sprintf("no driver for protocol %s in this edge", model.Spec.Protocol)
	}
}

// takeSecret resolves one field of the connection; secret is nil when it is not
// there.
func (d *device) takeSecret(ref models.ConnectionSecret, secret *models.Secret) {
	problem := ""
	if secret == nil {
		problem = fmt.Sprintf("%s: Secret %s is not there", ref.Field, ref.Secret)
	} else if value, ok := secret.Data[ref.Key]; !ok {
		problem = fmt.Sprintf("%s: Secret %s has no key %s", ref.Field, ref.Secret, ref.Key)
	} else {
		if d.secrets == nil {
			d.secrets = map[string]mappers.Secret{}
		}
		d.secrets[ref.Field] = mappers.NewSecret(value)
	}
	if d.problem == "" {
		d.problem = problem
	}
}

func (d *device) setKey(model *models.DeviceModel, spec models.DeviceSpec) {
	spec.Locked, spec.Description, spec.Node = false, "", ""
	key := struct {
		UID        string
		Assignment uint64
		Device     models.DeviceSpec
		Model      *models.DeviceModelSpec
		Secrets    map[string][]byte // hashes
		Problem    string
		Driver     bool
	}{Problem: d.problem, UID: d.uid, Assignment: d.assignment, Device: spec, Secrets: map[string][]byte{}, Driver: d.driver != nil}
	for field, secret := range d.secrets {
		sum := sha256.Sum256([]byte(secret.Reveal()))
		key.Secrets[field] = sum[:]
	}
	if model != nil {
		m := model.Spec
		m.Description = ""
		key.Model = &m
	}
	text, err := json.Marshal(key)
	if err != nil { // of raw JSON that is none: as good as any other key
		text = []byte(err.Error())
	}
	d.key = string(text)
}
