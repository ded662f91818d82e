package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"github.com/whimbrel-edge/whimbrel/models"
)

// check checks an object against the others, and compiles what it needs.
func (s *stage) check(o models.Object) (*entry, error) {
	switch o := o.(type) {
	case *models.Mapper:
		return s.checkMapper(o)
	case *models.DeviceModel:
		return s.checkModel(o)
	case *models.Device:
		return s.checkDevice(o)
	case *models.Route:
		return nil, models.Invalid("/kind", "routes are not carried by this release yet")
	}
	return &entry{}, nil
}

func (s *stage) mapper(name string) *entry { return s.get(models.Key{Kind: "Mapper", Name: name}) }

func (s *stage) checkMapper(m *models.Mapper) (*entry, error) {
	compiled, err := compileSchemas(m)
	if err != nil {
		return nil, err
	}
	e := &entry{schemas: compiled}
	// What is registered must go on fitting.
	for _, model := range s.modelsOf(m.Metadata.Name) {
		if errs := compiled.checkModel(model); len(errs) > 0 {
			return nil, models.Invalid("/spec/address", "%s no longer fits: %s", models.KeyOf(model), errs[0].Error())
		}
		for _, d := range s.devicesOf(models.KeyOf(model)) {
			if err := compiled.checkDevice(d.object.(*models.Device)); err != nil {
				return nil, models.Invalid("/spec", "%s no longer fits: %s", models.KeyOf(d.object), err)
			}
		}
	}
	return e, nil
}

func (s *stage) checkModel(m *models.DeviceModel) (*entry, error) {
	mapper := s.mapper(m.Spec.Protocol)
	if mapper == nil {
		var known []string
		for k := range s.keys("Mapper") {
			known = append(known, k.Name)
		}
		slices.Sort(known)
		return nil, models.Invalid("/spec/protocol", "no mapper is called %q; there are: %s", m.Spec.Protocol, strings.Join(known, ", "))
	}
	if errs := mapper.schemas.checkModel(m); len(errs) > 0 {
		return nil, &models.Error{Kind: models.KindInvalid, Fields: errs}
	}
	props, err := models.Resolve(m, &models.Device{})
	if err != nil {
		return nil, err
	}
	model := &entry{object: m, props: props}
	key := models.KeyOf(m)
	before := s.get(key)
	sameProtocol := before != nil && before.object.(*models.DeviceModel).Spec.Protocol == m.Spec.Protocol
	// Its devices must go on fitting; they follow the model at once.
	for _, d := range s.devicesOf(key) {
		device := d.object.(*models.Device)
		props, err := model.resolve(device)
		if err == nil && !sameProtocol {
			err = mapper.schemas.checkDevice(device)
		}
		if err == nil {
			err = checkAddresses(props)
		}
		if err != nil {
			return nil, models.Invalid("/spec", "%s would no longer fit: %s", models.KeyOf(device), err)
		}
		next := *d
		next.props = props
		setStaged(s, s.objects, models.KeyOf(device), &next)
		s.changes = append(s.changes, change{revision: s.revision, typ: models.Modified, entry: &next, before: d, quiet: true})
	}
	return model, nil
}

func (s *stage) checkDevice(d *models.Device) (*entry, error) {
	model := s.get(modelKey(d))
	if model == nil {
		return nil, models.Invalid("/spec/model", "no DeviceModel is called %q in namespace %s; apply the model first", d.Spec.Model, d.Metadata.Namespace)
	}
	props, err := model.resolve(d)
	if err != nil {
		return nil, err
	}
	protocol := model.object.(*models.DeviceModel).Spec.Protocol
	mapper := s.mapper(protocol)
	if mapper == nil {
		return nil, models.Invalid("/spec/model", "its protocol's mapper %q is gone", protocol)
	}
	if err := mapper.schemas.checkDevice(d); err != nil {
		return nil, err
	}
	return &entry{props: props}, checkAddresses(props)
}

// inUse refuses the deletion of what others refer to.
func (s *stage) inUse(o models.Object) error {
	var users []string
	switch o := o.(type) {
	case *models.DeviceModel:
		for _, d := range s.devicesOf(models.KeyOf(o)) {
			users = append(users, d.object.Meta().Name)
		}
		return inUseError(o, "devices", users)
	case *models.Mapper:
		for _, m := range s.modelsOf(o.Metadata.Name) {
			users = append(users, m.Metadata.Namespace+"/"+m.Metadata.Name)
		}
		slices.Sort(users)
		return inUseError(o, "device models", users)
	case *models.User:
		if !adminOfAll(o) {
			return nil
		}
		for k := range s.keys("User") {
			if other := s.get(k).object.(*models.User); other.Metadata.Name != o.Metadata.Name && adminOfAll(other) {
				return nil
			}
		}
		return models.Errorf(models.KindConflict, "%s is the last admin of all namespaces; make another one first", models.KeyOf(o))
	}
	return nil
}

func adminOfAll(u *models.User) bool {
	return u.Spec.Role == models.Admin && u.Spec.Namespace == models.AllNamespaces
}

func inUseError(o models.Object, what string, users []string) error {
	if len(users) == 0 {
		return nil
	}
	more := ""
	if len(users) > 10 {
		more = fmt.Sprintf(" and %d more", len(users)-10)
		users = users[:10]
	}
	return models.Errorf(models.KindConflict, "%s is in use by %s %s%s", models.KeyOf(o), what, strings.Join(users, ", "), more)
}

// schemas is a Mapper's schemas, compiled.
type schemas struct {
	connection, address schema
	broken              error // stored schemas that no longer compile
}

// schema is one compiled schema, and its text as a tree for what the compiler
// does not keep.
type schema struct {
	*jsonschema.Schema
	doc any
}

// noLoader refuses references to anything outside the schema itself.
type noLoader struct{}

func (noLoader) Load(url string) (any, error) {
	return nil, fmt.Errorf("reference to %s: a mapper's schema must stand alone", url)
}

// maxSchema bounds one schema: it is compiled while other changes wait.
const maxSchema = 256 << 10

// maxErrors bounds how many things one answer names.
const maxErrors = 10

func compileSchemas(m *models.Mapper) (*schemas, error) {
	var out schemas
	for _, c := range []struct {
		field string
		text  json.RawMessage
		into  *schema
	}{{"connection", m.Spec.Connection, &out.connection}, {"address", m.Spec.Address, &out.address}} {
		if len(c.text) > maxSchema {
			return nil, models.Invalid("/spec/"+c.field, "has %d bytes, at most %d are allowed", len(c.text), maxSchema)
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(c.text))
		if err == nil {
			compiler := jsonschema.NewCompiler()
			compiler.DefaultDraft(jsonschema.Draft2020)
			compiler.UseLoader(noLoader{})
			url := "mapper:///" + c.field
			if err = compiler.AddResource(url, doc); err == nil {
				c.into.doc = doc
				c.into.Schema, err = compiler.Compile(url)
			}
		}
		if err != nil {
			return nil, models.Invalid("/spec/"+c.field, "is not a JSON Schema (2020-12) that stands alone: %s", err)
		}
	}
	return &out, nil
}

func (c *schemas) checkModel(m *models.DeviceModel) (errs []models.FieldError) {
	if c.broken != nil {
		return []models.FieldError{{Pointer: "/spec/protocol", Detail: "the mapper's schemas do not compile"}}
	}
	for i, p := range m.Spec.Properties {
		if len(p.Address) > 0 { // else its devices must give one
			errs = append(errs, validate(c.address, p.Address, "/spec/properties/"+strconv.Itoa(i)+"/address")...)
		}
	}
	return errs
}

// checkDevice checks what a device itself says.
func (c *schemas) checkDevice(d *models.Device) error {
	if c.broken != nil {
		return models.Invalid("/spec/model", "its mapper's schemas do not compile")
	}
	errs := validate(c.connection, d.Spec.Connection, "/spec/connection")
	for i, o := range d.Spec.Properties {
		if len(o.Address) > 0 {
			errs = append(errs, validate(c.address, o.Address, "/spec/properties/"+strconv.Itoa(i)+"/address")...)
		}
	}
	if len(errs) > 0 {
		return &models.Error{Kind: models.KindInvalid, Fields: errs}
	}
	return nil
}

// checkAddresses checks that each of a device's properties has an address.
func checkAddresses(props []models.ResolvedProperty) error {
	var errs []models.FieldError
	for i := range props {
		if len(props[i].Address) == 0 && len(errs) < maxErrors {
			errs = append(errs, models.FieldError{Pointer: "/spec/properties", Detail: fmt.Sprintf("%s has no address, neither in the model nor here", props[i].Name)})
		}
	}
	if len(errs) > 0 {
		return &models.Error{Kind: models.KindInvalid, Fields: errs}
	}
	return nil
}

// validate checks a document against a schema; at is where it stands.
func validate(schema schema, doc json.RawMessage, at string) []models.FieldError {
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(doc))
	if err != nil {
		return []models.FieldError{{Pointer: at, Detail: "is not JSON"}}
	}
	err = schema.Validate(v)
	if err == nil {
		return nil
	}
	var invalid *jsonschema.ValidationError
	if !errors.As(err, &invalid) {
		return []models.FieldError{{Pointer: at, Detail: err.Error()}}
	}
	var out []models.FieldError
	leaves(invalid, func(leaf *jsonschema.ValidationError) {
		pointer := at
		for _, step := range leaf.InstanceLocation {
			pointer += "/" + escape.Replace(step)
		}
		add := func(f models.FieldError) {
			if len(out) < maxErrors && !slices.Contains(out, f) {
				out = append(out, f)
			}
		}
		switch k := leaf.ErrorKind.(type) { // what is missing or too many has a place of its own
		case *kind.Required:
			for _, name := range k.Missing {
				add(models.FieldError{Pointer: pointer + "/" + escape.Replace(name), Detail: "is required"})
			}
		case *kind.AdditionalProperties:
			for _, name := range k.Properties {
				add(models.FieldError{Pointer: pointer + "/" + escape.Replace(name), Detail: "unknown field"})
			}
		case *kind.Not: // which says nothing of what is ruled out, or why
			add(models.FieldError{Pointer: pointer, Detail: "is ruled out: " + schema.describe(leaf.SchemaURL)})
		default:
			add(models.FieldError{Pointer: pointer, Detail: leaf.ErrorKind.LocalizedString(printer)})
		}
	})
	return out
}

// describe returns what the schema says of the part that a failed keyword
// stands in: its description.
func (s schema) describe(url string) string {
	_, fragment, _ := strings.Cut(url, "#")
	steps := strings.Split(strings.Trim(fragment, "/"), "/")
	at, text := s.doc, "see the mapper's schema"
	for i := 0; ; i++ {
		if m, ok := at.(map[string]any); ok {
			if d, ok := m["description"].(string); ok && d != "" {
				text = d
			}
		}
		if i == len(steps) {
			return text
		}
		name := strings.NewReplacer("~1", "/", "~0", "~").Replace(steps[i])
		switch node := at.(type) {
		case map[string]any:
			at = node[name]
		case []any:
			n, err := strconv.Atoi(name)
			if err != nil || n < 0 || n >= len(node) {
				return text
			}
			at = node[n]
		default:
			return text
		}
	}
}

// escape writes a name as a step of a JSON Pointer.
var escape = strings.NewReplacer("~", "~0", "/", "~1")

var printer = message.NewPrinter(language.English)

// leaves visits the errors that have no causes: the ones to mend.
func leaves(e *jsonschema.ValidationError, visit func(*jsonschema.ValidationError)) {
	if len(e.Causes) == 0 {
		visit(e)
		return
	}
	for _, c := range e.Causes {
		leaves(c, visit)
	}
}
