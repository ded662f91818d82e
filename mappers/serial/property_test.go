package serial

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
)

func schemaOf(t *testing.T, text []byte) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("mapper:///schema", doc); err != nil {
		t.Fatal(err)
	}
	return c.MustCompile("mapper:///schema")
}

func fits(t *testing.T, s *jsonschema.Schema, text string) bool {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader([]byte(text)))
	if err != nil {
		t.Fatal(err)
	}
	return s.Validate(doc) == nil
}

// What the hub lets through by the schemas, the driver takes for a device that
// is asked or for one that talks unasked, and the other way round.
func TestSchemasAndDriverAgree(t *testing.T) {
	address, property := schemaOf(t, addressSchema), schemaOf(t, propertySchema)
	d := New()
	for _, kind := range models.Types {
		for _, access := range []models.Access{models.Read, models.Write, models.ReadWrite} {
			for fields := range 16 {
				a := map[string]string{}
				for bit, f := range []struct{ name, text string }{{"read", "W?"}, {"match", "W=(.*)"}, {"write", "W {value}"}, {"expect", "OK"}} {
					if fields>>bit&1 == 1 {
						a[f.name] = f.text
					}
				}
				text, err := json.Marshal(a)
				if err != nil {
					t.Fatal(err)
				}
				taken := false
				var why error
				for _, listen := range []bool{false, true} {
					_, err := d.Open(mappers.DeviceConfig{Connection: json.RawMessage(fmt.Sprintf(`{"url": "serial:///dev/null", "listen": %v}`, listen)),
						Points: []mappers.Point{{Property: "p", Type: kind, Access: access, Address: text}}})
					if err == nil {
						taken = true
					} else {
						why = err
					}
				}
				whole := fmt.Sprintf(`{"name": "p", "type": %q, "access": %q, "address": %s}`, kind, access, text)
				if ok := fits(t, address, string(text)) && fits(t, property, whole); ok != taken {
					t.Errorf("%s: by the schemas %v, by the driver %v: %v", whole, ok, taken, why)
				}
			}
		}
	}
}
