package simulators

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"

	"go.yaml.in/yaml/v3"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/models/catalog"
	"github.com/whimbrel-edge/whimbrel/simulators/lifelike"
	"github.com/whimbrel-edge/whimbrel/simulators/modbussim"
	"github.com/whimbrel-edge/whimbrel/simulators/opcuasim"
	"github.com/whimbrel-edge/whimbrel/simulators/scenario"
	"github.com/whimbrel-edge/whimbrel/simulators/serialsim"
)

// Modelled is a simulator that was made of a DeviceModel.
type Modelled struct {
	Simulator
	Model *models.DeviceModel
	// Notes say what of the model it does not play as a device would.
	Notes []string

	modelled interface{ ModelConnection() json.RawMessage }
	get      func(property string) (any, error)
	set      func(property string, value any) error
}

// LoadModel reads a file that holds one DeviceModel, or takes the ready model of
// that name.
func LoadModel(path string) (*models.DeviceModel, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if m, known := catalog.Model(path); known == nil {
			return m, nil
		}
		return nil, fmt.Errorf("simulators: %s is neither a file nor a ready model; whimbrel model list has those", path)
	}
	if err != nil {
		return nil, fmt.Errorf("simulators: %w", err)
	}
	objects, err := models.DecodeObjects(text)
	if err != nil {
		return nil, fmt.Errorf("simulators: %s: %w", path, err)
	}
	if len(objects) == 1 {
		if m, ok := objects[0].(*models.DeviceModel); ok {
			m.Default()
			if errs := m.Validate(); len(errs) > 0 {
				return nil, fmt.Errorf("simulators: %s: %w", path, &models.Error{Kind: models.KindInvalid, Fields: errs})
			}
			return m, nil
		}
	}
	return nil, fmt.Errorf("simulators: %s must hold one DeviceModel, and nothing else", path)
}

// FromModel makes a simulator that has every property of a model where the
// model says: what is read moves within the property's bounds, what is written
// is remembered. listen is where, in the words of that kind of simulator; ""
// finds a free address.
func FromModel(m *models.DeviceModel, listen string, log *slog.Logger) (*Modelled, error) {
	out := &Modelled{Model: m}
	switch m.Spec.Protocol {
	case "modbus":
		cfg, notes, err := modbussim.FromModel(m)
		cfg.Listen, cfg.Log, out.Notes = listen, log, notes
		s, err := made(cfg, err, modbussim.New)
		if err != nil {
			return nil, err
		}
		out.Simulator, out.modelled = s, s
		out.get = func(p string) (any, error) { return s.Get(modbussim.ModelUnit, p) }
		out.set = func(p string, v any) error { return s.Set(modbussim.ModelUnit, p, v) }
	case "opcua":
		cfg, notes, err := opcuasim.FromModel(m)
		cfg.Listen, cfg.Log, out.Notes = listen, log, notes
		s, err := made(cfg, err, opcuasim.New)
		if err != nil {
			return nil, err
		}
		out.Simulator, out.modelled, out.get, out.set = s, s, s.Get, s.Set
	case "serial":
		cfg, err := serialsim.FromModel(m)
		cfg.Listen, cfg.Log = listen, log
		s, err := made(cfg, err, serialsim.New)
		if err != nil {
			return nil, err
		}
		out.Simulator, out.modelled = s, s
		out.get = func(p string) (any, error) { return s.Get(lifelike.Name(p)) }
		out.set = func(p string, v any) error { return s.Set(lifelike.Name(p), v) }
	default:
		return nil, fmt.Errorf("simulators: model %s: there are simulators for the protocols modbus, opcua and serial, not for %s", m.Metadata.Name, m.Spec.Protocol)
	}
	return out, nil
}

func made[C any, S Simulator](cfg C, err error, build func(C) (S, error)) (s S, _ error) {
	if err != nil {
		return s, err
	}
	return build(cfg)
}

// Get is what a property shows.
func (m *Modelled) Get(property string) (any, error) { return m.get(property) }

// Set makes a property show a value from now on.
func (m *Modelled) Set(property string, value any) error { return m.set(property, value) }

// Device is a Device that fits the simulator, on no node. It is whole once the
// simulator listens.
func (m *Modelled) Device() *models.Device {
	return &models.Device{
		TypeMeta: models.TypeMeta{APIVersion: models.APIVersion, Kind: "Device"},
		Metadata: models.ObjectMeta{Name: m.Model.Metadata.Name + "-1", Namespace: m.Model.Metadata.Namespace},
		Spec:     models.DeviceSpec{Model: m.Model.Metadata.Name, Connection: m.modelled.ModelConnection()},
	}
}

// Manifest is the Device as YAML, on a node.
func (m *Modelled) Manifest(node string) ([]byte, error) {
	d := m.Device()
	d.Spec.Node = node
	return manifest(d)
}

// manifest is objects as YAML documents.
func manifest(objects ...models.Object) ([]byte, error) {
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	for _, o := range objects {
		if meta := o.Meta(); meta.Namespace == models.DefaultNamespace {
			meta.Namespace = ""
		}
		text, err := json.Marshal(o)
		if err != nil {
			return nil, fmt.Errorf("simulators: %w", err)
		}
		var tree yaml.Node // keeps the order of the fields
		if err := yaml.Unmarshal(text, &tree); err != nil {
			return nil, fmt.Errorf("simulators: %w", err)
		}
		plain(&tree)
		if err := encoder.Encode(&tree); err != nil {
			return nil, fmt.Errorf("simulators: %w", err)
		}
	}
	return out.Bytes(), encoder.Close()
}

// plain takes JSON's braces and quotes away where YAML does without.
func plain(n *yaml.Node) {
	n.Style = 0
	for _, c := range n.Content {
		plain(c)
	}
}

// TB is the part of testing.TB that the functions for tests need.
type TB = scenario.TB

// StartModel plays the DeviceModel of a file for the length of a test.
func StartModel(t TB, path string) *Modelled {
	t.Helper()
	build := func(m *models.DeviceModel) (*Modelled, error) { return FromModel(m, "", nil) }
	return scenario.Start(t, path, LoadModel, build)
}
