package models

import (
	"fmt"
	"slices"
	"strconv"
	"time"
)

// Reading is what a device answered for one property when it was read on
// demand. A bad one has no value: there is no older one to show here.
type Reading struct {
	Value   Value     `json:"value"`
	Name    string    `json:"name,omitempty"` // of an enum's value
	Quality Quality   `json:"quality"`
	Reason  Reason    `json:"reason,omitempty"`
	Time    time.Time `json:"time"`
}

// ReadingsRequest asks for a read on demand.
type ReadingsRequest struct {
	Properties []string `json:"properties,omitempty"` // left out: all that can be read
}

// Readings answers it.
type Readings struct {
	Device     string             `json:"device"`
	Properties map[string]Reading `json:"properties"`
}

// ReadingOf is a sample as a Reading of the property.
func ReadingOf(p *ResolvedProperty, s Sample) Reading {
	r := Reading{Value: s.Value, Quality: s.Quality, Reason: s.Reason, Time: s.Time.UTC()}
	if n, ok := s.Value.AsInt(); ok {
		r.Name = p.Enum[n]
	}
	return r
}

// Readable finds the properties that are to be read on demand, by index and
// each once: those with the names, or without names all that can be read.
// uplink says that the values are to leave the edge, which some may not.
// Pointers in the error are into names.
func Readable(properties []ResolvedProperty, names []string, uplink bool) ([]int, error) {
	var at []int
	if names == nil {
		for i := range properties {
			if p := &properties[i]; p.Access.Readable() && !(uplink && p.Uplink == UplinkNone) {
				at = append(at, i)
			}
		}
		if len(at) == 0 {
			return nil, Invalid("/properties", "the device has no property that can be read")
		}
		return at, nil
	}
	index := make(map[string]int, len(properties))
	for i := range properties {
		index[properties[i].Name] = i
	}
	var errs []FieldError
	for n, name := range names {
		i, known := index[name]
		detail := ""
		switch {
		case !known:
			detail = fmt.Sprintf("the device has no property %s", quoteShort(name))
		case !properties[i].Access.Readable():
			detail = fmt.Sprintf("%s can only be written (access %s)", name, properties[i].Access)
		case uplink && properties[i].Uplink == UplinkNone:
			detail = fmt.Sprintf("%s stays at the edge (uplink %s): read it there", name, UplinkNone)
		case !slices.Contains(at, i):
			at = append(at, i)
		}
		if detail != "" && len(errs) < maxReadErrors {
			errs = append(errs, FieldError{Pointer: "/properties/" + strconv.Itoa(n), Detail: detail})
		}
	}
	if len(names) == 0 {
		errs = []FieldError{{Pointer: "/properties", Detail: "must name at least one property; without this field all are read"}}
	}
	if len(errs) > 0 {
		return nil, &Error{Kind: KindInvalid, Fields: errs}
	}
	return at, nil
}

// maxReadErrors bounds how many wrong names one answer tells of.
const maxReadErrors = 20
