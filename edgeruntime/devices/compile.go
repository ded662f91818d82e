package devices

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"log/slog"

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

// compile turns items into devices, by local id. Decoding is tolerant, as the
// hub may be newer; what cannot be served gets a problem and harms no other.
func compile(items []store.Item, drivers map[string]mappers.Driver, log *slog.Logger) map[string]*device {
	type name struct{ namespace, name string }
	modelsBy := map[name]*models.DeviceModel{}
	desired := map[string]*wish{} // by the device's uid
	secrets := map[name]*models.Secret{}
	for _, i := range items {
		var err error
		switch i.Kind {
		case store.KindDeviceModel:
			m := &models.DeviceModel{}
			if err = json.Unmarshal(i.JSON, m); err == nil {
				m.Default()
				modelsBy[name{i.Namespace, i.Name}] = m
			}
		case store.KindSecret:
			o := &models.Secret{}
			if json.Unmarshal(i.JSON, o) == nil { // else it is as if it were not there; the error might tell of it
				secrets[name{i.Namespace, i.Name}] = o
			}
		case store.KindDesired:
			d := &wish{text: string(i.JSON)}
			if err = json.Unmarshal(i.JSON, &d.Desired); err == nil {
				desired[i.UID] = d
			}
		}
		if err != nil {
			log.Error("the hub sent what cannot be read", "kind", i.Kind, "namespace", i.Namespace, "name", i.Name, "revision", i.Revision, "error", err)
		}
	}
	out := map[string]*device{}
	for _, i := range items {
		if i.Kind != store.KindDevice {
			continue
		}
		d := &device{id: mqtt.LocalID(i.Namespace, i.Name), namespace: i.Namespace, name: i.Name, uid: i.UID, assignment: i.Assignment, desired: desired[i.UID]}
		out[d.id] = d
		var object models.Device
		if err := json.Unmarshal(i.JSON, &object); err != nil {
			d.problem = "the device cannot be read by this release: " + err.Error()
			d.key = string(i.JSON)
			continue
		}
		object.Default()
		d.model, d.locked, d.connection = object.Spec.Model, object.Spec.Locked, object.Spec.Connection
		model := modelsBy[name{i.Namespace, object.Spec.Model}]
		d.resolve(model, &object, drivers)
		for _, ref := range object.SecretRefs() {
			d.takeSecret(ref, secrets[name{i.Namespace, ref.Secret}])
		}
		d.setKey(model, object.Spec)
	}
	return out
}

// resolve finds the device's properties and its driver, or its problem.
func (d *device) resolve(model *models.DeviceModel, object *models.Device, drivers map[string]mappers.Driver) {
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
	if d.driver = drivers[model.Spec.Protocol]; d.driver == nil {
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
