package models

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// SecretOpaque is the one type of Secret there is.
const SecretOpaque = "Opaque"

// Secret is passwords, keys and certificates that devices and apps refer to.
// Only admins see it, and its values only when they ask for the one Secret. It
// does not print.
type Secret struct {
	TypeMeta
	Metadata   ObjectMeta        `json:"metadata"`
	SecretType string            `json:"type,omitempty"`
	Data       map[string][]byte `json:"data,omitempty"`       // base64
	StringData map[string]string `json:"stringData,omitempty"` // plain text; goes into data, and is never shown
	Status     *SecretStatus     `json:"status,omitempty"`
}

// SecretStatus says what is in a Secret whose values are not shown.
type SecretStatus struct {
	Keys []string `json:"keys"`
}

// Type implements Object.
func (s *Secret) Type() *TypeMeta { return &s.TypeMeta }

// Meta implements Object.
func (s *Secret) Meta() *ObjectMeta { return &s.Metadata }

// ClearStatus implements Object.
func (s *Secret) ClearStatus() { s.Status = nil }

// Default implements Object.
func (s *Secret) Default() {
	if s.SecretType == "" {
		s.SecretType = SecretOpaque
	}
	if s.Data == nil && len(s.StringData) > 0 {
		s.Data = map[string][]byte{}
	}
	for k, v := range s.StringData {
		s.Data[k] = []byte(v)
	}
	s.StringData = nil
}

// Validate implements Object. Its errors name keys and never values.
func (s *Secret) Validate() (errs []FieldError) {
	errs = validateMeta(&s.Metadata, true, CheckSubdomain)
	if s.SecretType != SecretOpaque {
		errs = append(errs, FieldError{"/type", "must be " + SecretOpaque + ": other types are not known"})
	}
	if len(s.Data) == 0 {
		errs = append(errs, FieldError{"/data", "needs at least one key, here or in stringData; a list of secrets leaves the values out, so what it prints cannot be applied"})
	}
	for _, k := range sortedKeys(s.Data) {
		if msg := checkConfigKey(k); msg != "" {
			errs = append(errs, FieldError{"/data/" + escapePointer(k), msg})
		}
	}
	return errs
}

// String hides the values.
func (s *Secret) String() string { return "Secret " + s.Metadata.Namespace + "/" + s.Metadata.Name }

// GoString hides the values.
func (s *Secret) GoString() string { return s.String() }

// Redacted returns the Secret without its values, with the names of its keys.
func (s *Secret) Redacted() Object {
	out := *s
	out.Data, out.StringData = nil, nil
	out.Status = &SecretStatus{Keys: slices.Sorted(maps.Keys(s.Data))}
	return &out
}

// Redacted returns what may be shown of an object in lists, events and answers to
// changes: the object itself, but for a Secret, which is without its values.
func Redacted(o Object) Object {
	if r, ok := o.(interface{ Redacted() Object }); ok {
		return r.Redacted()
	}
	return o
}

// ConnectionSecret is where a device's connection takes a field from: one key of a
// Secret of the device's namespace.
type ConnectionSecret struct {
	Field  string // of the connection, such as "passwordFrom"
	Secret string
	Key    string
}

// secretField ends the names of such fields.
const secretField = "From"

// SecretRefs returns the secrets that a device's connection refers to: its fields
// whose names end in "From" and that are {"secret": …, "key": …}, sorted by field.
func (d *Device) SecretRefs() (refs []ConnectionSecret) {
	var fields map[string]json.RawMessage
	if json.Unmarshal(d.Spec.Connection, &fields) != nil {
		return nil // the mapper's schema refuses it
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if !strings.HasSuffix(name, secretField) {
			continue
		}
		var from map[string]string
		if json.Unmarshal(fields[name], &from) == nil && len(from) == 2 && from["secret"] != "" && from["key"] != "" {
			refs = append(refs, ConnectionSecret{Field: name, Secret: from["secret"], Key: from["key"]})
		}
	}
	return refs
}
