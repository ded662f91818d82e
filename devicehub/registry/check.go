package registry

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/whimbrel-edge/whimbrel/internal/schema"
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
	case models.Workload:
		return &entry{}, s.checkAppName(o)
	case *models.Route:
		if s.r.checkRoute != nil {
			if errs := s.r.checkRoute(o); len(errs) > 0 {
				return nil, &models.Error{Kind: models.KindInvalid, Fields: errs}
			}
		}
	}
	return &entry{}, nil
}

// checkAppName refuses a second app of a name: pods and revisions are called after it.
func (s *stage) checkAppName(app models.Workload) error {
	key := models.KeyOf(app)
	for _, kind := range models.WorkloadKinds {
		other := models.Key{Kind: kind, Namespace: key.Namespace, Name: key.Name}
		if kind != key.Kind && s.get(other) != nil {
			return models.Errorf(models.KindConflict, "%s has that name, and pods are called after their app: choose another name, or delete it first", other)
		}
	}
	return nil
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
			return nil, models.Invalid("/spec", "%s no longer fits: %s", models.KeyOf(model), errs[0].Error())
		}
		for _, d := range s.devicesOf(models.KeyOf(model)) {
			if err := compiled.checkDevice(d.object.(*models.Device), d.props); err != nil {
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
		if err == nil && sameProtocol {
			errs := mapper.schemas.checkOverrides(device, props)
			if len(errs) == 0 {
				errs = mapper.schemas.checkTogether(device, props)
			}
			err = invalid(errs)
		} else if err == nil {
			err = mapper.schemas.checkDevice(device, props)
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
	if err := mapper.schemas.checkDevice(d, props); err != nil {
		return nil, err
	}
	if err := checkAddresses(props); err != nil {
		return nil, err
	}
	return &entry{props: props}, s.checkLine(d)
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
	connection, address *schema.Schema
	property            *schema.Schema // nil where the mapper has none
	broken              error          // stored schemas that no longer compile
	// fits remembers how properties go with connections: thousands of devices of one
	// model have the same few. Only the sequencer uses it.
	fits map[fit][]models.FieldError
}

// fit is the properties of a model, and what their rules see of a connection.
type fit struct {
	props *models.ResolvedProperty // the first of those that the model's devices share
	seen  string
}

// maxFits bounds what is remembered; then it begins anew.
const maxFits = 256

// maxErrors bounds how many things one answer names.
const maxErrors = 10

func compileSchemas(m *models.Mapper) (*schemas, error) {
	var out schemas
	for _, c := range []struct {
		field   string
		text    json.RawMessage
		compile func([]byte) (*schema.Schema, error)
		into    **schema.Schema
	}{{"connection", m.Spec.Connection, schema.Compile, &out.connection}, {"address", m.Spec.Address, schema.Compile, &out.address},
		{"property", m.Spec.Property, schema.CompileProperty, &out.property}} {
		if len(c.text) == 0 {
			continue // property may be left out; the others have defaults
		}
		var err error
		if *c.into, err = c.compile(c.text); err != nil {
			return nil, models.Invalid("/spec/"+c.field, "%s", err)
		}
	}
	return &out, nil
}

func (c *schemas) checkModel(m *models.DeviceModel) (errs []models.FieldError) {
	if c.broken != nil {
		return []models.FieldError{{Pointer: "/spec/protocol", Detail: "the mapper's schemas do not compile"}}
	}
	for i, p := range m.Spec.Properties {
		if len(p.Address) == 0 {
			continue // its devices must give one
		}
		at := "/spec/properties/" + strconv.Itoa(i)
		bad := c.address.Check(p.Address, at+"/address")
		if len(bad) == 0 { // else it says twice what is wrong
			whole := models.ResolvedProperty{Name: p.Name, Type: p.Type, Access: p.Access, Unit: p.Unit, Write: p.Write, Enum: p.Enum, Address: p.Address}
			if p.Minimum != nil {
				whole.Minimum = *p.Minimum
			}
			if p.Maximum != nil {
				whole.Maximum = *p.Maximum
			}
			bad = c.checkProperty(&whole, at)
		}
		errs = append(errs, bad...)
	}
	return errs
}

// checkDevice checks what a device itself says; props are its properties as
// they hold.
func (c *schemas) checkDevice(d *models.Device, props []models.ResolvedProperty) error {
	if c.broken != nil {
		return models.Invalid("/spec/model", "its mapper's schemas do not compile")
	}
	errs := append(c.connection.Check(d.Spec.Connection, "/spec/connection"), checkSecretNames(d)...)
	errs = append(errs, c.checkOverrides(d, props)...)
	if len(errs) == 0 {
		errs = c.checkTogether(d, props)
	}
	return invalid(errs)
}

// checkSecretNames checks that what a connection refers to could be a Secret.
func checkSecretNames(d *models.Device) (errs []models.FieldError) {
	for _, ref := range d.SecretRefs() {
		if why := models.CheckSubdomain(ref.Secret); why != "" {
			errs = append(errs, models.FieldError{Pointer: "/spec/connection/" + escape.Replace(ref.Field) + "/secret", Detail: why})
		}
	}
	return errs
}

// checkTogether checks a device's properties against its connection. What the
// model says is at fault where the device has chosen otherwise: in its connection.
func (c *schemas) checkTogether(d *models.Device, props []models.ResolvedProperty) (errs []models.FieldError) {
	if c.property == nil || len(c.property.ConnectionFields()) == 0 || len(props) == 0 {
		return nil
	}
	if len(d.Spec.Properties) == 0 { // the properties are the model's
		key := fit{&props[0], seenOf(c.property, d.Spec.Connection)}
		if errs, known := c.fits[key]; known {
			return errs
		}
		defer func() {
			if c.fits == nil || len(c.fits) >= maxFits {
				c.fits = map[fit][]models.FieldError{}
			}
			c.fits[key] = errs
		}()
	}
	for i := range props {
		p := &props[i]
		if len(p.Address) == 0 {
			continue
		}
		own := slices.IndexFunc(d.Spec.Properties, func(o models.PropertyOverride) bool { return o.Name == p.Name && len(o.Address) > 0 })
		text, err := propertyDocument(p)
		if err != nil {
			continue // checkProperty says so
		}
		for _, clash := range c.property.CheckAgainst(text, d.Spec.Connection) {
			f := clash.Property
			if own >= 0 {
				f.Pointer = "/spec/properties/" + strconv.Itoa(own) + f.Pointer
			} else {
				f = models.FieldError{Pointer: "/spec/connection" + clash.Connection, Detail: fmt.Sprintf("property %s of model %s does not go with it: %s %s", p.Name, d.Spec.Model,
					strings.TrimPrefix(f.Pointer, "/"), f.Detail)}
			}
			if len(errs) < maxErrors {
				errs = append(errs, f)
			}
		}
	}
	return errs
}

// checkOverrides checks what a device says otherwise than its model.
func (c *schemas) checkOverrides(d *models.Device, props []models.ResolvedProperty) (errs []models.FieldError) {
	for i, o := range d.Spec.Properties {
		at := "/spec/properties/" + strconv.Itoa(i)
		var bad []models.FieldError
		if len(o.Address) > 0 {
			bad = c.address.Check(o.Address, at+"/address")
		}
		own := len(o.Address) > 0 || o.Minimum != nil || o.Maximum != nil // else it is the model's
		if p := slices.IndexFunc(props, func(p models.ResolvedProperty) bool { return p.Name == o.Name }); len(bad) == 0 && own && p >= 0 && len(props[p].Address) > 0 {
			bad = c.checkProperty(&props[p], at)
			for k, f := range bad {
				if !strings.HasPrefix(f.Pointer, at+"/address") && !strings.HasPrefix(f.Pointer, at+"/minimum") && !strings.HasPrefix(f.Pointer, at+"/maximum") {
					bad[k].Pointer = at // the device says nothing of it
				}
			}
		}
		errs = append(errs, bad...)
	}
	return errs
}

// checkProperty checks a property, whose address fits its schema, as a whole.
func (c *schemas) checkProperty(p *models.ResolvedProperty, at string) []models.FieldError {
	if c.property == nil {
		return nil
	}
	text, err := propertyDocument(p)
	if err != nil {
		return []models.FieldError{{Pointer: at + "/address", Detail: "is not JSON"}}
	}
	return c.property.Check(text, at)
}

// propertyDocument is a property as a mapper's schema of it sees it.
func propertyDocument(p *models.ResolvedProperty) ([]byte, error) {
	doc := struct {
		Name    string           `json:"name"`
		Type    models.Type      `json:"type"`
		Access  models.Access    `json:"access"`
		Unit    string           `json:"unit,omitempty"`
		Minimum *models.Value    `json:"minimum,omitempty"`
		Maximum *models.Value    `json:"maximum,omitempty"`
		Enum    map[int64]string `json:"enum,omitempty"`
		Write   models.WriteMode `json:"write,omitempty"`
		Address json.RawMessage  `json:"address"`
	}{p.Name, p.Type, p.Access, p.Unit, nil, nil, p.Enum, p.Write, p.Address}
	if !p.Minimum.IsNull() {
		doc.Minimum = &p.Minimum
	}
	if !p.Maximum.IsNull() {
		doc.Maximum = &p.Maximum
	}
	return json.Marshal(doc)
}

// seenOf is what the rules of a property see of a connection.
func seenOf(property *schema.Schema, connection json.RawMessage) string {
	var fields map[string]json.RawMessage
	if json.Unmarshal(connection, &fields) != nil {
		return string(connection)
	}
	var out strings.Builder
	for _, name := range property.ConnectionFields() {
		fmt.Fprintf(&out, "%q:%s,", name, fields[name])
	}
	return out.String()
}

// invalid is an error of what is wrong, nil when nothing is.
func invalid(errs []models.FieldError) error {
	if len(errs) == 0 {
		return nil
	}
	return &models.Error{Kind: models.KindInvalid, Fields: errs}
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
