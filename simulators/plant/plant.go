// Package plant is the demo plant that comes with Whimbrel: a boiler, a pump
// and an energy meter on Modbus TCP, coupled as they would be in a boiler house,
// a press that speaks OPC UA and a scale on a serial line (plant.yaml), and the
// DeviceModels and Devices that describe them (manifests.yaml). Commands and
// tests import it.
package plant

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"sync"
	"text/template"

	"github.com/whimbrel-edge/whimbrel/simulators/modbussim"
	"github.com/whimbrel-edge/whimbrel/simulators/opcuasim"
	"github.com/whimbrel-edge/whimbrel/simulators/scenario"
	"github.com/whimbrel-edge/whimbrel/simulators/serialsim"
)

//go:embed plant.yaml
var scenarioFile []byte

//go:embed manifests.yaml
var manifestFile string

// Plant is the plant. The embedded simulator is the boiler house, whose units
// carry the names of the devices, so a test can turn a knob with Set or pull a
// cable with Unplug.
type Plant struct {
	*modbussim.Server
	Press *opcuasim.Server
	Scale *serialsim.Server // nil where NoScale says why

	// NoScale is why there is no scale: this machine has no ptys.
	NoScale error

	manifests []byte
	done      chan struct{} // of Start
	err       error
}

// New makes a plant that listens on free ports of the loopback interface, and
// on a pty where there are any. Its devices answer while Run runs.
func New() (*Plant, error) {
	p, err := load()
	if err != nil {
		return nil, fmt.Errorf("plant: %w", err)
	}
	if err := p.listen(); err != nil {
		p.close()
		return nil, fmt.Errorf("plant: %w", err)
	}
	return p, nil
}

func load() (*Plant, error) {
	docs, err := scenario.Split(scenarioFile)
	if err != nil {
		return nil, err
	}
	if len(docs) != 3 {
		return nil, fmt.Errorf("plant.yaml holds %d documents", len(docs))
	}
	house, houseErr := scenario.As[modbussim.Config](docs[0])
	press, pressErr := scenario.As[opcuasim.Config](docs[1])
	scale, scaleErr := scenario.As[serialsim.Config](docs[2])
	if err := errors.Join(houseErr, pressErr, scaleErr); err != nil {
		return nil, err
	}
	p := &Plant{}
	p.Server, houseErr = modbussim.New(house)
	p.Press, pressErr = opcuasim.New(press)
	p.Scale, scaleErr = serialsim.New(scale)
	return p, errors.Join(houseErr, pressErr, scaleErr)
}

// listen takes the addresses and writes them into the manifests.
func (p *Plant) listen() error {
	if err := p.Server.Listen(); err != nil {
		return err
	}
	if err := p.Press.Listen(); err != nil {
		return err
	}
	where := struct{ Press, Scale string }{Press: p.Press.URL()}
	if err := p.Scale.Listen(); err != nil {
		p.Scale, p.NoScale = nil, err
	} else {
		where.Scale = p.Scale.URL()
	}
	t, err := template.New("manifests").Funcs(template.FuncMap{"addr": p.UnitAddr}).Parse(manifestFile)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	err = t.Execute(&out, where)
	p.manifests = out.Bytes()
	return err
}

// close lets go of what a plant that never ran listens on.
func (p *Plant) close() {
	over, cancel := context.WithCancel(context.Background())
	cancel()
	_ = p.Run(over) // nothing has begun that could fail
}

// Listen implements the simulators' interface: New has.
func (p *Plant) Listen() error { return nil }

// Describe says in a line per device what listens where.
func (p *Plant) Describe() []string {
	out := append(p.Server.Describe(), p.Press.Describe()[0]+": press-1")
	if p.Scale == nil {
		return append(out, fmt.Sprintf("no scale-1: %v", p.NoScale))
	}
	return append(out, p.Scale.Describe()[0]+": scale-1")
}

// Run serves until ctx ends or one of the devices fails.
func (p *Plant) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	runs := []func(context.Context) error{p.Server.Run, p.Press.Run}
	if p.Scale != nil {
		runs = append(runs, p.Scale.Run)
	}
	errs := make([]error, len(runs))
	var wg sync.WaitGroup
	for i, run := range runs {
		wg.Go(func() {
			if errs[i] = run(ctx); errs[i] != nil {
				cancel()
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
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
