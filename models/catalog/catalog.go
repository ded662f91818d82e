// Package catalog holds ready DeviceModels of devices that people own. Each is
// a YAML file of its own that names where its register map comes from; NOTICE.md
// holds the licences. They are data: what a device speaks is for its mapper.
package catalog

import (
	"embed"
	"encoding/json"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/whimbrel-edge/whimbrel/models"
)

//go:embed *.yaml
var files embed.FS

// The annotations of the catalog's models.
const (
	SourceAnnotation  = "whimbrel/source"
	LicenceAnnotation = "whimbrel/licence"
	// BaseAnnotation is the register at which a SunSpec model is taken to begin,
	// that of its ID.
	BaseAnnotation = "whimbrel/sunspec-base"
)

// Names lists the models by name, in order.
func Names() []string {
	entries, err := files.ReadDir(".")
	if err != nil {
		return nil // unreachable: the folder is embedded
	}
	var names []string
	for _, e := range entries { // ReadDir sorts
		names = append(names, strings.TrimSuffix(e.Name(), path.Ext(e.Name())))
	}
	return names
}

// Text is a model as its file has it, comments included. KindNotFound: there is
// none of this name.
func Text(name string) ([]byte, error) {
	text, err := files.ReadFile(name + ".yaml")
	if err != nil || strings.ContainsAny(name, "/.") {
		return nil, models.Errorf(models.KindNotFound, "no model in the catalog is called %q; list them with: whimbrel model list", name)
	}
	return text, nil
}

// Model is a model, decoded.
func Model(name string) (*models.DeviceModel, error) {
	text, err := Text(name)
	if err != nil {
		return nil, err
	}
	o, err := models.DecodeKind("DeviceModel", text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return o.(*models.DeviceModel), nil
}

// Rebase moves a SunSpec model to where a device has it: base is the register
// of the model's ID.
func Rebase(m *models.DeviceModel, base int) error {
	from, err := strconv.Atoi(m.Metadata.Annotations[BaseAnnotation])
	if err != nil {
		return models.Errorf(models.KindInvalid, "%s is no SunSpec model: its registers are where they are, leave the base (--base) out", m.Metadata.Name)
	}
	for i := range m.Spec.Properties {
		p := &m.Spec.Properties[i]
		var address map[string]json.RawMessage
		if err := json.Unmarshal(p.Address, &address); err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
		for _, field := range []string{"register", "scaleFrom"} {
			var register int
			if address[field] == nil {
				continue
			}
			if err := json.Unmarshal(address[field], &register); err != nil {
				return fmt.Errorf("%s: %s: %w", p.Name, field, err)
			}
			if register += base - from; register < 0 || register > 65535 {
				return models.Errorf(models.KindInvalid, "base %d puts %s at register %d; registers are from 0 to 65535", base, p.Name, register)
			}
			address[field] = json.RawMessage(strconv.Itoa(register))
		}
		if p.Address, err = json.Marshal(address); err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
	}
	m.Metadata.Annotations[BaseAnnotation] = strconv.Itoa(base)
	return nil
}
