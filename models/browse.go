package models

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Found is one thing that a device offers when it is looked around in. One
// without a Path is a remark on the whole.
type Found struct {
	Path     []string  `json:"path,omitempty"`     // names from the outside to it
	DataType string    `json:"dataType,omitempty"` // in the protocol's words
	Property *Property `json:"property,omitempty"` // what it would be in a model, without a name; nil where it cannot be one
	Note     string    `json:"note,omitempty"`     // what could not be carried over, or why nothing could
}

// ModelOf makes a DeviceModel of what was found. Names are the last of each path,
// with as many of those before it as it takes to be unlike all others. notes say
// what is not in the model.
func ModelOf(name, protocol string, found []Found) (m *DeviceModel, notes []string) {
	m = &DeviceModel{TypeMeta: TypeMeta{APIVersion: APIVersion, Kind: "DeviceModel"}, Metadata: ObjectMeta{Name: name}, Spec: DeviceModelSpec{Protocol: protocol}}
	var fitting []Found
	for _, f := range found {
		if f.Note != "" {
			notes = append(notes, strings.TrimPrefix(strings.Join(f.Path, "/")+": "+f.Note, ": "))
		}
		if f.Property != nil && len(f.Path) > 0 {
			fitting = append(fitting, f)
		}
	}
	if more := len(fitting) - MaxProperties; more > 0 {
		notes = append(notes, fmt.Sprintf("a model has at most %d properties; the last %d are left out", MaxProperties, more))
		fitting = fitting[:MaxProperties]
	}
	names := propertyNames(fitting)
	for i, f := range fitting {
		p := *f.Property
		p.Name = names[i]
		m.Spec.Properties = append(m.Spec.Properties, p)
	}
	return m, notes
}

func propertyNames(found []Found) []string {
	names := make([]string, len(found))
	depth := make([]int, len(found))
	for i := range depth {
		depth[i] = 1
	}
	for { // each round makes names longer, until they differ or cannot grow
		users := map[string][]int{}
		for i, f := range found {
			names[i] = nameOfPath(f.Path[max(len(f.Path)-depth[i], 0):])
			users[names[i]] = append(users[names[i]], i)
		}
		grown := false
		for _, same := range users {
			if len(same) == 1 {
				continue
			}
			for _, i := range same {
				if depth[i] < len(found[i].Path) {
					depth[i]++
					grown = true
				}
			}
		}
		if !grown {
			break
		}
	}
	taken := map[string]bool{}
	for i, n := range names {
		unique := n
		for k := 2; taken[unique]; k++ {
			suffix := "-" + strconv.Itoa(k)
			unique = n[:min(len(n), maxPropertyName-len(suffix))] + suffix
		}
		taken[unique] = true
		names[i] = unique
	}
	return names
}

const maxPropertyName = 63

// nameOfPath is a path as a property's name: letters, digits, '.', '_' and '-'. Of
// one that is too long the end counts.
func nameOfPath(path []string) string {
	parts := slices.Clone(path)
	for i, p := range parts {
		parts[i] = strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-' || r == '.' {
				return r
			}
			return '_'
		}, p)
	}
	name := strings.Join(parts, ".")
	name = strings.TrimLeft(name[max(len(name)-maxPropertyName, 0):], "._-")
	if name == "" {
		return "x"
	}
	return name
}
