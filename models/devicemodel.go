package models

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// DeviceModel describes a kind of device: its protocol and its properties.
type DeviceModel struct {
	TypeMeta
	Metadata ObjectMeta      `json:"metadata"`
	Spec     DeviceModelSpec `json:"spec"`
	Status   json.RawMessage `json:"status,omitempty"`
}

// DeviceModelSpec is what a user says of a kind of device.
type DeviceModelSpec struct {
	Description string           `json:"description,omitempty"`
	Protocol    string           `json:"protocol"` // a Mapper's name
	Defaults    PropertySettings `json:"defaults,omitzero"`
	Properties  []Property       `json:"properties"`
	Retention   *Retention       `json:"retention,omitempty"`
	// Commands is reserved for OPC UA methods and the like, and refused when set.
	Commands json.RawMessage `json:"commands,omitempty"`
}

// PropertySettings are the settings a model's defaults may give for all its
// properties. Nil means not said.
type PropertySettings struct {
	Every     *Duration `json:"every,omitempty"`
	Deadband  *Deadband `json:"deadband,omitempty"`
	Heartbeat *Duration `json:"heartbeat,omitempty"`
	History   *bool     `json:"history,omitempty"`
	Uplink    Uplink    `json:"uplink,omitempty"`
}

// Access says what may be done with a property.
type Access string

// The accesses.
const (
	Read      Access = "Read"
	Write     Access = "Write"
	ReadWrite Access = "ReadWrite"
)

// Readable reports whether the property is polled.
func (a Access) Readable() bool { return a != Write }

// Writable reports whether desired values are accepted.
func (a Access) Writable() bool { return a == Write || a == ReadWrite }

// WriteMode says how often a desired value is written.
type WriteMode string

// The write modes.
const (
	Once WriteMode = "once" // written once per desired version, never repeated
	Hold WriteMode = "hold" // re-asserted, with back-off, when the device drifts or restarts
)

// Uplink says whether a property's values leave the edge.
type Uplink string

// The uplinks.
const (
	UplinkAll  Uplink = "all"
	UplinkNone Uplink = "none"
)

// Property is one property of a DeviceModel.
type Property struct {
	Name        string           `json:"name"`
	Description string           `json:"description,omitempty"`
	Type        Type             `json:"type"`
	Unit        string           `json:"unit,omitempty"`
	Access      Access           `json:"access,omitempty"` // default Read
	Minimum     *Value           `json:"minimum,omitempty"`
	Maximum     *Value           `json:"maximum,omitempty"`
	Every       *Duration        `json:"every,omitempty"`
	Deadband    *Deadband        `json:"deadband,omitempty"`
	Heartbeat   *Duration        `json:"heartbeat,omitempty"`
	Write       WriteMode        `json:"write,omitempty"` // default once
	Enum        map[int64]string `json:"enum,omitempty"`  // int properties only
	History     *bool            `json:"history,omitempty"`
	Uplink      Uplink           `json:"uplink,omitempty"`
	Address     json.RawMessage  `json:"address,omitempty"` // checked by the Mapper's schema
}

// PropertyOverride is what a Device may say differently of a property.
type PropertyOverride struct {
	Name      string          `json:"name"`
	Every     *Duration       `json:"every,omitempty"`
	Deadband  *Deadband       `json:"deadband,omitempty"`
	Heartbeat *Duration       `json:"heartbeat,omitempty"`
	Address   json.RawMessage `json:"address,omitempty"` // replaces the model's whole
	Minimum   *Value          `json:"minimum,omitempty"`
	Maximum   *Value          `json:"maximum,omitempty"`
	History   *bool           `json:"history,omitempty"`
	Uplink    Uplink          `json:"uplink,omitempty"`
}

// The defaults of a property's settings, and their bounds.
const (
	DefaultEvery     = time.Second
	DefaultHeartbeat = time.Minute
	MinEvery         = time.Millisecond
	MaxEvery         = 24 * time.Hour
	MaxProperties    = 10_000
)

// Deadband is how far a number must move to be reported: in the property's
// unit, or in percent of maximum - minimum. The zero Deadband reports every
// change.
type Deadband struct {
	Size    float64
	Percent bool
}

// MarshalJSON implements json.Marshaler.
func (d Deadband) MarshalJSON() ([]byte, error) {
	text := string(appendFloat(nil, d.Size))
	if d.Percent {
		return []byte(`"` + text + `%"`), nil
	}
	return []byte(text), nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (d *Deadband) UnmarshalJSON(text []byte) error {
	s := string(text)
	*d = Deadband{}
	if len(s) > 1 && s[0] == '"' {
		s, d.Percent = strings.CutSuffix(s[1:len(s)-1], "%")
		if !d.Percent {
			return errors.New(`must be a number or a percentage such as "1%"`)
		}
	}
	f, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	if err != nil || f < 0 || math.IsInf(f, 0) || math.IsNaN(f) {
		return errors.New(`must be a number from 0, or a percentage such as "1%"`)
	}
	d.Size = f
	return nil
}

// Type implements Object.
func (m *DeviceModel) Type() *TypeMeta { return &m.TypeMeta }

// Meta implements Object.
func (m *DeviceModel) Meta() *ObjectMeta { return &m.Metadata }

// ClearStatus implements Object.
func (m *DeviceModel) ClearStatus() { m.Status = nil }

// Default implements Object.
func (m *DeviceModel) Default() {
	for i := range m.Spec.Properties {
		p := &m.Spec.Properties[i]
		if p.Access == "" {
			p.Access = Read
		}
	}
}

// Validate implements Object.
func (m *DeviceModel) Validate() []FieldError {
	errs := validateMeta(&m.Metadata, true, CheckLabelName)
	if m.Spec.Protocol == "" {
		errs = append(errs, FieldError{"/spec/protocol", "is required: the name of a mapper, such as modbus"})
	}
	if len(m.Spec.Commands) > 0 {
		errs = append(errs, FieldError{"/spec/commands", "is reserved and not supported yet; leave it out"})
	}
	errs = append(errs, m.Spec.Defaults.validate("/spec/defaults")...)
	errs = append(errs, validatePercent("/spec/defaults/deadband", m.Spec.Defaults.Deadband)...)
	errs = append(errs, m.Spec.Retention.validate("/spec/retention")...)
	if len(m.Spec.Properties) == 0 {
		errs = append(errs, FieldError{"/spec/properties", "needs at least one property"})
	}
	if len(m.Spec.Properties) > MaxProperties {
		errs = append(errs, FieldError{"/spec/properties", fmt.Sprintf("has %d properties, at most %d are allowed", len(m.Spec.Properties), MaxProperties)})
		return errs
	}
	seen := map[string]int{}
	for i := range m.Spec.Properties {
		p := &m.Spec.Properties[i]
		at := "/spec/properties/" + strconv.Itoa(i)
		if first, twice := seen[p.Name]; twice && p.Name != "" {
			errs = append(errs, FieldError{at + "/name", fmt.Sprintf("%s is already the name of /spec/properties/%d", quoteShort(p.Name), first)})
		}
		seen[p.Name] = i
		errs = append(errs, p.validate(at, m.Spec.Defaults)...)
	}
	return errs
}

func (s PropertySettings) validate(at string) (errs []FieldError) {
	check := func(field string, d *Duration, least time.Duration) {
		if d != nil && (d.Std() < least || d.Std() > MaxEvery) {
			errs = append(errs, FieldError{at + "/" + field, fmt.Sprintf("must be from %s to %s, got %s", least, MaxEvery, d.Std())})
		}
	}
	check("every", s.Every, MinEvery)
	check("heartbeat", s.Heartbeat, MinEvery)
	switch s.Uplink {
	case "", UplinkAll, UplinkNone:
	default:
		errs = append(errs, FieldError{at + "/uplink", fmt.Sprintf("must be all or none, got %s", quoteShort(string(s.Uplink)))})
	}
	return errs
}

func (p *Property) settings() PropertySettings {
	return PropertySettings{Every: p.Every, Deadband: p.Deadband, Heartbeat: p.Heartbeat, History: p.History, Uplink: p.Uplink}
}

func (p *Property) validate(at string, defaults PropertySettings) (errs []FieldError) {
	fail := func(field, format string, args ...any) {
		errs = append(errs, FieldError{at + field, fmt.Sprintf(format, args...)})
	}
	if !propertyName.MatchString(p.Name) {
		fail("/name", "must be at most 63 letters, digits, '.', '_' and '-', starting with a letter or digit, got %s", quoteShort(p.Name))
	}
	if !slices.Contains(Types, p.Type) {
		fail("/type", "must be one of bool, int, float, string, bytes, object, array, got %s", quoteShort(string(p.Type)))
		return errs
	}
	switch p.Access {
	case Read, Write, ReadWrite:
	default:
		fail("/access", "must be Read, Write or ReadWrite, got %s", quoteShort(string(p.Access)))
	}
	switch p.Write {
	case "":
	case Once, Hold:
		if !p.Access.Writable() {
			fail("/write", "needs access Write or ReadWrite")
		} else if p.Write == Hold && p.Access == Write {
			fail("/write", "hold needs access ReadWrite: a value that cannot be read back cannot be held")
		}
	default:
		fail("/write", "must be hold or once, got %s", quoteShort(string(p.Write)))
	}
	if len(p.Enum) > 0 && p.Type != TypeInt {
		fail("/enum", "needs type int, the property's is %s", p.Type)
	}
	names := map[string]int64{}
	for _, k := range slices.Sorted(mapKeys(p.Enum)) {
		name := p.Enum[k]
		if name == "" {
			fail("/enum/"+strconv.FormatInt(k, 10), "needs a name")
		}
		if other, twice := names[name]; twice {
			fail("/enum/"+strconv.FormatInt(k, 10), "%s already names %d", quoteShort(name), other)
		}
		names[name] = k
	}
	errs = append(errs, p.settings().validate(at)...)
	errs = append(errs, validateBounds(at, p.Type, &p.Minimum, &p.Maximum)...)
	errs = append(errs, validateDeadband(at+"/deadband", p.Type, p.Deadband, p.Minimum, p.Maximum)...)
	errs = append(errs, validatePercent(at+"/deadband", p.Deadband)...)
	if d := defaults.Deadband; p.Deadband == nil && d != nil && isNumber(p.Type) {
		errs = append(errs, validateDeadband("/spec/defaults/deadband", p.Type, d, p.Minimum, p.Maximum)...)
	}
	return errs
}

func mapKeys(m map[int64]string) func(func(int64) bool) {
	return func(yield func(int64) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func isNumber(t Type) bool { return t == TypeInt || t == TypeFloat }

// validateBounds checks minimum and maximum against the type and each other,
// and converts them to it.
func validateBounds(at string, t Type, minimum, maximum **Value) (errs []FieldError) {
	for _, b := range []struct {
		field string
		v     **Value
	}{{"/minimum", minimum}, {"/maximum", maximum}} {
		if *b.v == nil {
			continue
		}
		if !isNumber(t) {
			errs = append(errs, FieldError{at + b.field, fmt.Sprintf("needs type int or float, the property's is %s", t)})
			continue
		}
		fitted, err := (*b.v).Fit(t)
		if err != nil {
			errs = append(errs, FieldError{at + b.field, err.Error()})
			continue
		}
		*b.v = &fitted
	}
	if len(errs) == 0 && *minimum != nil && *maximum != nil {
		if order, _ := (*minimum).Compare(**maximum); order > 0 {
			errs = append(errs, FieldError{at + "/minimum", fmt.Sprintf("%s is above the maximum %s", **minimum, **maximum)})
		}
	}
	return errs
}

func validateDeadband(at string, t Type, d *Deadband, minimum, maximum *Value) []FieldError {
	switch {
	case d == nil:
	case !isNumber(t):
		return []FieldError{{at, fmt.Sprintf("needs type int or float, the property's is %s", t)}}
	case d.Percent && (minimum == nil || maximum == nil):
		return []FieldError{{at, "in percent needs minimum and maximum"}}
	}
	return nil
}

// validatePercent checks a deadband as it is written down. It is no part of Resolve,
// which takes what was stored before it was checked.
func validatePercent(at string, d *Deadband) []FieldError {
	if d == nil || !d.Percent || d.Size <= 100 {
		return nil
	}
	return []FieldError{{at, fmt.Sprintf("must be at most 100%%, got %s%%: no value moves further within minimum and maximum", appendFloat(nil, d.Size))}}
}

// ResolvedProperty is a property as it holds for one device: the model's, with
// the device's overrides and every default filled in. It is a value; its Enum
// and Address are shared and must not be changed.
type ResolvedProperty struct {
	Name      string
	Type      Type
	Unit      string
	Access    Access
	Minimum   Value // Null when unbounded
	Maximum   Value
	Every     time.Duration
	Deadband  float64 // in the property's unit, 0: report every change
	Heartbeat time.Duration
	Write     WriteMode
	Enum      map[int64]string
	History   bool
	Uplink    Uplink
	Address   json.RawMessage
}

// Resolve returns the device's properties as they hold, in the model's order.
// Pointers in the error are into the device's document.
func Resolve(m *DeviceModel, d *Device) ([]ResolvedProperty, error) {
	overrides := map[string]int{}
	var errs []FieldError
	for i, o := range d.Spec.Properties {
		at := "/spec/properties/" + strconv.Itoa(i)
		if !slices.ContainsFunc(m.Spec.Properties, func(p Property) bool { return p.Name == o.Name }) {
			errs = append(errs, FieldError{at + "/name", fmt.Sprintf("model %s has no property %s", m.Metadata.Name, quoteShort(o.Name))})
		}
		overrides[o.Name] = i
	}
	out := make([]ResolvedProperty, 0, len(m.Spec.Properties))
	for _, p := range m.Spec.Properties {
		at := ""
		if i, ok := overrides[p.Name]; ok {
			at = "/spec/properties/" + strconv.Itoa(i)
			p.override(d.Spec.Properties[i])
			errs = append(errs, p.settings().validate(at)...)
			errs = append(errs, validateBounds(at, p.Type, &p.Minimum, &p.Maximum)...)
			errs = append(errs, validateDeadband(at+"/deadband", p.Type, p.Deadband, p.Minimum, p.Maximum)...)
		}
		out = append(out, p.resolve(m.Spec.Defaults))
	}
	if len(errs) > 0 {
		return nil, &Error{Kind: KindInvalid, Fields: errs}
	}
	return out, nil
}

func (p *Property) override(o PropertyOverride) {
	if o.Every != nil {
		p.Every = o.Every
	}
	if o.Deadband != nil {
		p.Deadband = o.Deadband
	}
	if o.Heartbeat != nil {
		p.Heartbeat = o.Heartbeat
	}
	if o.Address != nil {
		p.Address = o.Address
	}
	if o.Minimum != nil {
		p.Minimum = o.Minimum
	}
	if o.Maximum != nil {
		p.Maximum = o.Maximum
	}
	if o.History != nil {
		p.History = o.History
	}
	if o.Uplink != "" {
		p.Uplink = o.Uplink
	}
}

func (p *Property) resolve(defaults PropertySettings) ResolvedProperty {
	r := ResolvedProperty{Name: p.Name, Type: p.Type, Unit: p.Unit, Access: p.Access, Every: DefaultEvery, Heartbeat: DefaultHeartbeat,
		Write: p.Write, Enum: p.Enum, History: true, Uplink: UplinkAll, Address: p.Address}
	if p.Minimum != nil {
		r.Minimum = *p.Minimum
	}
	if p.Maximum != nil {
		r.Maximum = *p.Maximum
	}
	if r.Write == "" {
		r.Write = Once
	}
	for _, s := range []PropertySettings{defaults, p.settings()} {
		if s.Every != nil {
			r.Every = s.Every.Std()
		}
		if s.Heartbeat != nil {
			r.Heartbeat = s.Heartbeat.Std()
		}
		if s.History != nil {
			r.History = *s.History
		}
		if s.Uplink != "" {
			r.Uplink = s.Uplink
		}
		if s.Deadband != nil && isNumber(p.Type) {
			r.Deadband = s.Deadband.Size
			if s.Deadband.Percent && p.Minimum != nil && p.Maximum != nil {
				low, _ := p.Minimum.AsFloat()
				high, _ := p.Maximum.AsFloat()
				r.Deadband = s.Deadband.Size / 100 * (high - low)
			}
		}
	}
	return r
}

// CheckDesired checks a value that someone wants the property to have, and
// returns it in the property's type: an enum's name becomes its number. Errors
// name the property and its bounds; pointer is where the value stands.
func (p *ResolvedProperty) CheckDesired(v Value, pointer string) (Value, error) {
	if !p.Access.Writable() {
		return Null, Invalid(pointer, "%s is read-only (access %s)", p.Name, p.Access)
	}
	if name, ok := v.AsString(); ok && len(p.Enum) > 0 {
		for k, n := range p.Enum {
			if n == name {
				return Int(k), nil
			}
		}
		return Null, Invalid(pointer, "%s must be one of %s, got %s", p.Name, p.enumList(), quoteShort(name))
	}
	fitted, err := v.Fit(p.Type)
	if err != nil {
		return Null, Invalid(pointer, "%s %s", p.Name, err.Error())
	}
	if !p.InRange(fitted) {
		return Null, Invalid(pointer, "%s must be %s, got %s", p.Name, p.Bounds(), fitted)
	}
	if i, ok := fitted.AsInt(); len(p.Enum) > 0 {
		if _, known := p.Enum[i]; !ok || !known {
			return Null, Invalid(pointer, "%s must be one of %s, got %s", p.Name, p.enumList(), fitted)
		}
	}
	return fitted, nil
}

// InRange reports whether v lies within minimum and maximum. Values that are
// no numbers do.
func (p *ResolvedProperty) InRange(v Value) bool {
	if order, ok := v.Compare(p.Minimum); ok && order < 0 {
		return false
	}
	order, ok := v.Compare(p.Maximum)
	return !ok || order <= 0
}

// Bounds describes minimum and maximum for an error message.
func (p *ResolvedProperty) Bounds() string {
	switch {
	case p.Minimum.IsNull() && p.Maximum.IsNull():
		return "unbounded"
	case p.Maximum.IsNull():
		return "at least " + p.Minimum.String()
	case p.Minimum.IsNull():
		return "at most " + p.Maximum.String()
	}
	return "from " + p.Minimum.String() + " to " + p.Maximum.String()
}

func (p *ResolvedProperty) enumList() string {
	var parts []string
	for _, k := range slices.Sorted(mapKeys(p.Enum)) {
		parts = append(parts, fmt.Sprintf("%s (%d)", p.Enum[k], k))
	}
	return strings.Join(parts, ", ")
}
