package modbus

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/whimbrel-edge/whimbrel/internal/schema"
	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
)

// What the hub lets through by the schemas, the driver takes, and the other way
// round: else a device would be found misconfigured only at the edge, or a good
// one be refused.
func TestSchemasAndDriverAgree(t *testing.T) {
	t.Parallel()
	address, err := schema.Compile(addressSchema)
	if err != nil {
		t.Fatal(err)
	}
	property, err := schema.CompileProperty(propertySchema)
	if err != nil {
		t.Fatal(err)
	}
	places := []string{`"table":"coil","register":1`, `"table":"discrete","register":1`, `"table":"input","register":1`, `"table":"holding","register":1`,
		`"reference":"00001"`, `"reference":"10001"`, `"reference":10001`, `"reference":30001`, `"reference":"40001"`, `"reference":40001`,
		`"reference":300001`, `"reference":400001`, `"reference":165536`}
	encodings := []string{"", "bool", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64", "string"}
	more := []string{"", `,"bit":3`, `,"length":4`, `,"length":124`, `,"scale":2`, `,"scale":0.5`, `,"offset":1.5`, `,"scaleFrom":7`, `,"nullValue":-1`, `,"nullValue":65536`,
		`,"nullValue":1.5`, `,"nullValue":"x"`, `,"nullValue":-9223372036854775808`, `,"order":"CDAB"`, `,"writeFunction":"single"`}
	driver := New()
	n, good := 0, 0
	for _, kind := range models.Types {
		for _, access := range []models.Access{models.Read, models.Write, models.ReadWrite} {
			for i, place := range places {
				for j, encoding := range encodings {
					for k, rest := range more {
						// One in seven, of every two of them together each.
						if k > 0 && (i+3*j+5*k)%7 != 0 {
							continue
						}
						text := "{" + place
						if encoding != "" {
							text += `,"encoding":"` + encoding + `"`
						}
						text += rest + "}"
						whole := fmt.Sprintf(`{"name":"p","type":%q,"access":%q,"address":%s}`, kind, access, text)
						_, err := driver.Open(mappers.DeviceConfig{Connection: json.RawMessage(`{"url":"tcp://192.0.2.1"}`),
							Points: []mappers.Point{{Property: "p", Type: kind, Access: access, Address: json.RawMessage(text)}}})
						wrong := address.Check([]byte(text), "")
						if len(wrong) == 0 {
							wrong = property.Check([]byte(whole), "")
						}
						if n++; err == nil {
							good++
						}
						if (err == nil) != (len(wrong) == 0) {
							t.Errorf("%s\n\tdriver: %v\n\tschemas: %v", whole, err, wrong)
						}
					}
				}
			}
		}
	}
	if good < 500 || n-good < 500 {
		t.Errorf("of %d cases %d are good", n, good)
	}
}
