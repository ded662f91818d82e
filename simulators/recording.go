package simulators

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/recording"
	"github.com/whimbrel-edge/whimbrel/simulators/modbussim"
	"github.com/whimbrel-edge/whimbrel/simulators/opcuasim"
	"github.com/whimbrel-edge/whimbrel/simulators/replay"
	"github.com/whimbrel-edge/whimbrel/simulators/scenario"
	"github.com/whimbrel-edge/whimbrel/simulators/serialsim"
)

// Replay is how a recording is played.
type Replay = replay.Options

// Recorded is a simulator that plays a recording.
type Recorded struct {
	Simulator
	Recording *recording.Recording

	playing playing
	url     func() string
}

// playing is what a simulator of a recording can do beside the others.
type playing interface {
	Report() []string
	Seek(time.Duration)
}

// isRecording tells whether a file begins as one.
func isRecording(path string) bool {
	file, err := os.Open(path)
	if err != nil {
		return false
	}
	defer file.Close()
	first, err := bufio.NewReaderSize(file, recording.MaxLine).ReadSlice('\n')
	return err == nil && recording.Sniff(first)
}

// LoadRecording makes the simulator that plays a recording. It does not listen
// yet.
func LoadRecording(path string, o Replay) (*Recorded, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("simulators: %w", err)
	}
	defer file.Close()
	rec, err := recording.Read(file)
	if err != nil {
		return nil, fmt.Errorf("simulators: %s: %w", path, err)
	}
	out := &Recorded{Recording: rec}
	switch rec.Protocol {
	case "modbus":
		s, err := modbussim.NewReplay(rec, o)
		if err != nil {
			return nil, fmt.Errorf("simulators: %s: %w", path, err)
		}
		out.Simulator, out.playing, out.url = s, s, func() string { return s.URL(modbussim.ModelUnit) }
	case "serial":
		s, err := serialsim.NewReplay(rec, o)
		if err != nil {
			return nil, fmt.Errorf("simulators: %s: %w", path, err)
		}
		out.Simulator, out.playing, out.url = s, s, s.URL
	case "opcua":
		s, err := opcuasim.NewReplay(rec, o)
		if err != nil {
			return nil, fmt.Errorf("simulators: %s: %w", path, err)
		}
		out.Simulator, out.playing, out.url = s, s, s.URL
	default:
		return nil, fmt.Errorf("simulators: %s: recordings of the protocols modbus, opcua and serial can be played, not of %s", path, rec.Protocol)
	}
	return out, nil
}

// StartRecording plays a recording for the length of a test.
func StartRecording(t TB, path string, o Replay) *Recorded {
	t.Helper()
	return scenario.Start(t, path, func(path string) (*Recorded, error) { return LoadRecording(path, o) },
		func(r *Recorded) (*Recorded, error) { return r, nil })
}

// Report says what was asked and is not in the recording, and what was written.
func (r *Recorded) Report() []string { return r.playing.Report() }

// Seek puts the recording's time where a test wants it, and holds it there.
func (r *Recorded) Seek(t time.Duration) { r.playing.Seek(t) }

// Describe says what is played, and what listens where.
func (r *Recorded) Describe() []string {
	line := fmt.Sprintf("%s, a recording of %s", r.url(), r.Recording.Length())
	if r.Recording.Dropped > 0 {
		line += fmt.Sprintf(", which lacks %d events", r.Recording.Dropped)
	}
	if r.Recording.Cut {
		line += ", which ends early"
	}
	return []string{line}
}

// Manifest is the model and the Device as YAML, on a node.
func (r *Recorded) Manifest(node string) ([]byte, error) {
	m, err := r.Model()
	if err != nil {
		return nil, err
	}
	d, err := r.Device()
	if err != nil {
		return nil, err
	}
	d.Spec.Node = node
	return manifest(m, d)
}

// replayed is the name of what is made of a recording.
func (r *Recorded) replayed() string { return r.Recording.Device + "-replay" }

// Model is a DeviceModel of the recorded device. Recordings that tell nothing of
// its properties have none.
func (r *Recorded) Model() (*models.DeviceModel, error) {
	if len(r.Recording.Properties) == 0 {
		return nil, errors.New("simulators: the recording does not tell of the device's properties")
	}
	return &models.DeviceModel{
		TypeMeta: models.TypeMeta{APIVersion: models.APIVersion, Kind: "DeviceModel"},
		Metadata: models.ObjectMeta{Name: r.replayed()},
		Spec:     models.DeviceModelSpec{Protocol: r.Recording.Protocol, Properties: r.Recording.Properties},
	}, nil
}

// Device is a Device that leads to the simulator, with the recorded connection
// otherwise, on no node. It is whole once the simulator listens.
func (r *Recorded) Device() (*models.Device, error) {
	connection := map[string]json.RawMessage{}
	if err := json.Unmarshal(r.Recording.Connection, &connection); err != nil {
		return nil, fmt.Errorf("simulators: the recording's connection: %w", err)
	}
	url, err := json.Marshal(r.url())
	if err != nil {
		return nil, err
	}
	connection["url"] = url
	text, err := json.Marshal(connection)
	if err != nil {
		return nil, err
	}
	return &models.Device{
		TypeMeta: models.TypeMeta{APIVersion: models.APIVersion, Kind: "Device"},
		Metadata: models.ObjectMeta{Name: r.replayed()},
		Spec:     models.DeviceSpec{Model: r.replayed(), Connection: text},
	}, nil
}
