package models

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// Device is one physical device, served by one node.
type Device struct {
	TypeMeta
	Metadata ObjectMeta    `json:"metadata"`
	Spec     DeviceSpec    `json:"spec"`
	Status   *DeviceStatus `json:"status,omitempty"`
}

// DeviceSpec is what a user says of a device.
type DeviceSpec struct {
	Description string             `json:"description,omitempty"`
	Model       string             `json:"model"`                // a DeviceModel of the same namespace
	Node        string             `json:"node,omitempty"`       // "" while no node serves it
	Connection  json.RawMessage    `json:"connection,omitempty"` // checked by the Mapper's schema
	Properties  []PropertyOverride `json:"properties,omitempty"`
	Locked      bool               `json:"locked,omitempty"` // maintenance: nothing writes to the device
	Retention   *Retention         `json:"retention,omitempty"`
}

// DeviceStatus is what the hub knows of a device.
type DeviceStatus struct {
	State      DeviceState `json:"state"`
	LastSeen   *time.Time  `json:"lastSeen,omitempty"` // last time the device answered
	Conditions []Condition `json:"conditions,omitempty"`
	// ReadPlan is how the mapper reads the device, as the edge reports it.
	ReadPlan *ReadPlan `json:"readPlan,omitempty"`
}

// ReadPlan is what polling a device costs on the wire.
type ReadPlan struct {
	RequestsPerCycle int         `json:"requestsPerCycle"` // over all intervals
	Groups           []ReadGroup `json:"groups,omitempty"`
}

// ReadGroup is the requests of the properties that share an interval.
type ReadGroup struct {
	Every    Duration      `json:"every"`
	Points   int           `json:"points"`
	Requests []ReadRequest `json:"requests,omitempty"`
}

// ReadRequest is one request on the wire, in the protocol's own words.
type ReadRequest struct {
	Text   string `json:"text"`             // such as "holding 0-19 (20 registers)"
	Points int    `json:"points"`           // properties that it feeds
	Unused int    `json:"unused,omitempty"` // registers or bits read to bridge gaps
}

// Condition is one aspect of an object's state, as Kubernetes writes it.
type Condition struct {
	Type               string    `json:"type"`
	Status             string    `json:"status"` // True, False or Unknown
	Reason             string    `json:"reason,omitempty"`
	Message            string    `json:"message,omitempty"`
	LastTransitionTime time.Time `json:"lastTransitionTime"`
}

// Type implements Object.
func (d *Device) Type() *TypeMeta { return &d.TypeMeta }

// Meta implements Object.
func (d *Device) Meta() *ObjectMeta { return &d.Metadata }

// ClearStatus implements Object.
func (d *Device) ClearStatus() { d.Status = nil }

// Default implements Object.
func (d *Device) Default() {
	if len(d.Spec.Connection) == 0 {
		d.Spec.Connection = json.RawMessage("{}")
	}
}

// Validate implements Object.
func (d *Device) Validate() []FieldError {
	errs := validateMeta(&d.Metadata, true, CheckLabelName)
	if d.Spec.Model == "" {
		errs = append(errs, FieldError{"/spec/model", "is required: the name of a DeviceModel"})
	} else if msg := CheckLabelName(d.Spec.Model); msg != "" {
		errs = append(errs, FieldError{"/spec/model", msg})
	}
	if d.Spec.Node != "" {
		if msg := CheckSubdomain(d.Spec.Node); msg != "" {
			errs = append(errs, FieldError{"/spec/node", msg})
		}
	}
	errs = append(errs, d.Spec.Retention.validate("/spec/retention")...)
	seen := map[string]int{}
	for i, o := range d.Spec.Properties {
		at := "/spec/properties/" + strconv.Itoa(i) + "/name"
		if o.Name == "" {
			errs = append(errs, FieldError{at, "is required"})
		} else if first, twice := seen[o.Name]; twice {
			errs = append(errs, FieldError{at, fmt.Sprintf("%s is already overridden by /spec/properties/%d", quoteShort(o.Name), first)})
		}
		seen[o.Name] = i
		errs = append(errs, validatePercent("/spec/properties/"+strconv.Itoa(i)+"/deadband", o.Deadband)...)
	}
	return errs
}
