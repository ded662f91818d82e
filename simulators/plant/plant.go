// Package plant is the demo plant that comes with Whimbrel: a boiler, a pump
// and an energy meter on Modbus TCP, coupled as they would be in a boiler house
// (plant.yaml), and the DeviceModels and Devices that describe them
// (manifests.yaml). Commands and tests import it.
package plant

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"text/template"

	"github.com/whimbrel-edge/whimbrel/simulators/modbussim"
	"github.com/whimbrel-edge/whimbrel/simulators/scenario"
)

//go:embed plant.yaml
var scenarioFile []byte

//go:embed manifests.yaml
var manifestFile string

// Plant is the plant. The embedded simulator's units carry the names of the
// devices, so a test can turn a knob with Set or pull a cable with Unplug.
type Plant struct {
	*modbussim.Server
	manifests []byte
	done      chan struct{} // of Start
	err       error
}

// New makes a plant that listens on free ports of the loopback interface. Its
// devices answer while Run runs.
func New() (*Plant, error) {
	docs, err := scenario.Split(scenarioFile)
	if err != nil {
		return nil, fmt.Errorf("plant: %w", err)
	}
	cfg, err := modbussim.Decode(docs[0])
	if err != nil {
		return nil, fmt.Errorf("plant: %w", err)
	}
	sim, err := modbussim.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("plant: %w", err)
	}
	t, err := template.New("manifests").Funcs(template.FuncMap{"addr": sim.UnitAddr}).Parse(manifestFile)
	if err != nil {
		return nil, fmt.Errorf("plant: %w", err)
	}
	if err := sim.Listen(); err != nil {
		return nil, fmt.Errorf("plant: %w", err)
	}
	var out bytes.Buffer
	if err := t.Execute(&out, nil); err != nil {
		sim.Unplug()
		return nil, fmt.Errorf("plant: %w", err)
	}
	return &Plant{Server: sim, manifests: out.Bytes()}, nil
}

// Start makes a plant and runs it until ctx ends. Whoever starts it calls Wait.
func Start(ctx context.Context) (*Plant, error) {
	p, err := New()
	if err != nil {
		return nil, err
	}
	p.done = make(chan struct{})
	go func() { // Wait waits for it
		defer close(p.done)
		p.err = p.Run(ctx)
	}()
	return p, nil
}

// Wait blocks until a plant that Start made is gone.
func (p *Plant) Wait() error {
	<-p.done
	return p.err
}

// Manifests gives the plant's DeviceModels and Devices as YAML documents, with
// the addresses that it listens on and the node local.
func (p *Plant) Manifests() []byte { return bytes.Clone(p.manifests) }
