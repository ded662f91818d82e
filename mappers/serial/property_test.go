package serial

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/whimbrel-edge/whimbrel/internal/schema"
	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
)

// What the hub lets through by the schemas, the driver takes, for a device that
// is asked and for one that talks unasked, and the other way round.
func TestSchemasAndDriverAgree(t *testing.T) {
	address, err := schema.Compile(addressSchema)
	if err != nil {
		t.Fatal(err)
	}
	property, err := schema.CompileProperty(propertySchema)
	if err != nil {
		t.Fatal(err)
	}
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
				whole := fmt.Appendf(nil, `{"name": "p", "type": %q, "access": %q, "address": %s}`, kind, access, text)
				for _, listen := range []bool{false, true} {
					connection := fmt.Appendf(nil, `{"url": "serial:///dev/null", "listen": %v}`, listen)
					dev, err := d.Open(mappers.DeviceConfig{Connection: connection, Points: []mappers.Point{{Property: "p", Type: kind, Access: access, Address: text}}})
					if err == nil {
						dev.Close()
					}
					wrong := append(address.Check(text, ""), property.Check(whole, "")...)
					clashes := property.CheckAgainst(whole, connection)
					if (err == nil) != (len(wrong)+len(clashes) == 0) {
						t.Errorf("%s, listen %v\n\tdriver: %v\n\tschemas: %v %v", whole, listen, err, wrong, clashes)
					}
				}
			}
		}
	}
}
