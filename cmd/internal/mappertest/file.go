package mappertest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/mappers/conformance"
	"github.com/whimbrel-edge/whimbrel/models"
)

// file is what the user says of the device that the mapper is tested with
// (docs/mapper-protocol.md).
type file struct {
	Device     device          `json:"device"`
	Connection json.RawMessage `json:"connection"`
	Properties []property      `json:"properties"`
	BadAddress json.RawMessage `json:"badAddress"`
	Refused    *property       `json:"refused"`

	dir string // the file's, in which its commands run
}

// device is how the device is started and disturbed: run for a simulated one,
// the commands for any other.
type device struct {
	Run   []string `json:"run"`
	Ready string   `json:"ready"` // tcp://host:port that it then listens on

	Unplug  []string `json:"unplug"`
	Plug    []string `json:"plug"`
	Silence []string `json:"silence"`
	Speak   []string `json:"speak"`
}

type property struct {
	Name    string          `json:"name"`
	Type    models.Type     `json:"type"`
	Access  models.Access   `json:"access"`
	Address json.RawMessage `json:"address"`
	Value   models.Value    `json:"value"`
	Other   models.Value    `json:"other"`
	Beyond  models.Value    `json:"beyond"`
}

func readFile(path string) (*file, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var f file
	if err := models.DecodeInto(text, &f); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if errs := f.check(); len(errs) > 0 {
		return nil, fmt.Errorf("%s: %w", path, &models.Error{Kind: models.KindInvalid, Fields: errs})
	}
	if f.dir, err = filepath.Abs(filepath.Dir(path)); err != nil {
		return nil, err
	}
	return &f, nil
}

func (f *file) check() (errs []models.FieldError) {
	fail := func(pointer, format string, args ...any) {
		errs = append(errs, models.FieldError{Pointer: pointer, Detail: fmt.Sprintf(format, args...)})
	}
	if len(f.Connection) == 0 {
		fail("/connection", "is required: the device's, as in a Device")
	}
	if len(f.BadAddress) == 0 {
		fail("/badAddress", "is required: an address that the mapper must refuse")
	}
	writable := 0
	for i := range f.Properties {
		p := &f.Properties[i]
		at := fmt.Sprintf("/properties/%d", i)
		if p.Access == "" {
			p.Access = models.Read
		}
		if p.Name == "" {
			fail(at+"/name", "is required")
		}
		if !p.Access.Readable() {
			fail(at+"/access", "must be Read or ReadWrite: the test reads everything")
		}
		for _, v := range []struct {
			field    string
			value    *models.Value
			required bool
		}{{"value", &p.Value, true}, {"other", &p.Other, false}, {"beyond", &p.Beyond, false}} {
			if v.value.IsNull() && !v.required {
				continue
			}
			fitted, err := v.value.Fit(p.Type)
			if err != nil {
				fail(at+"/"+v.field, "%s", err)
				continue
			}
			*v.value = fitted
		}
		if p.Access.Writable() && !p.Other.IsNull() {
			writable++
		}
	}
	if writable < 2 {
		fail("/properties", "two of them must be ReadWrite and have an other value")
	}
	if f.Refused != nil && (f.Refused.Name == "" || f.Refused.Type == "") {
		fail("/refused", "needs name, type and address")
	}
	if f.Refused != nil && f.Refused.Access == "" {
		f.Refused.Access = models.Read
	}
	d := &f.Device
	if len(d.Run) > 0 && len(d.Unplug)+len(d.Plug)+len(d.Silence)+len(d.Speak) > 0 {
		fail("/device", "has run, which is stopped and started by itself, or commands")
	}
	if (len(d.Unplug) == 0) != (len(d.Plug) == 0) {
		fail("/device", "unplug and plug belong together")
	}
	if (len(d.Silence) == 0) != (len(d.Speak) == 0) {
		fail("/device", "silence and speak belong together")
	}
	if d.Ready != "" && !strings.HasPrefix(d.Ready, "tcp://") {
		fail("/device/ready", "must be tcp://host:port")
	}
	return errs
}

func (p *property) point() mappers.Point {
	return mappers.Point{Property: p.Name, Type: p.Type, Access: p.Access, Address: p.Address}
}

// what is the file's device, without what disturbs it.
func (f *file) what() conformance.Device {
	d := conformance.Device{Connection: f.Connection}
	for i := range f.Properties {
		p := &f.Properties[i]
		d.Points = append(d.Points, conformance.Point{Point: p.point(), Value: p.Value, Other: p.Other, Beyond: p.Beyond})
	}
	if f.Refused != nil {
		d.Refused = f.Refused.point()
	}
	return d
}

// readyWithin is how long a device may take to listen.
const readyWithin = 20 * time.Second
