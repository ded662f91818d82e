package mapperseed

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/mappers/builtin"
	"github.com/whimbrel-edge/whimbrel/models"
)

// tried is one case of testdata/*.yaml: a device with one property, as the hub and
// the driver are to see it. What is left out is what the file's first case has.
type tried struct {
	Name       string          `json:"name"`
	Connection json.RawMessage `json:"connection"`
	Type       models.Type     `json:"type"`
	Access     models.Access   `json:"access"`
	Address    json.RawMessage `json:"address"`
	// Refused is where the hub's error points to, under /spec of the device
	// (connection…) or in the property (address…); "" when both take it.
	Refused string `json:"refused"`
	// Says is a part of the hub's text.
	Says string `json:"says"`
	// Lines is how many lines there are beside that one.
	Lines int `json:"lines"`
	// Driver is why the driver takes what the hub refuses.
	Driver string `json:"driver"`
}

// machine finds what a person should not have to read in a refusal.
var machine = regexp.MustCompile(`\^|\\d|×|ruled out|schema|oneOf|anyOf|additional properties|got string|<nil>`)

// What a driver refuses, the hub refuses before it reaches an edge, and what the
// hub takes, the driver takes.
func TestHubAndDriversAgree(t *testing.T) {
	for protocol, driver := range builtin.Drivers() {
		t.Run(protocol, func(t *testing.T) {
			text, err := os.ReadFile("testdata/" + protocol + ".yaml")
			if err != nil {
				t.Fatal(err)
			}
			var cases struct {
				Cases []tried `json:"cases"`
			}
			if err := models.DecodeInto(text, &cases); err != nil {
				t.Fatal(err)
			}
			first := cases.Cases[0]
			r := seeded(t)
			refused := 0
			for i, c := range cases.Cases {
				if len(c.Connection) == 0 {
					c.Connection = first.Connection
				}
				if len(c.Address) == 0 {
					c.Address = first.Address
				}
				if c.Type == "" {
					c.Type = first.Type
				}
				if c.Access == "" {
					c.Access = models.Read
				}
				what := fmt.Sprintf("%d %s: %s %s %s %s", i, c.Name, c.Connection, c.Type, c.Access, c.Address)

				name := fmt.Sprintf("m%d", i)
				hub := put(t, r, fmt.Sprintf(`{apiVersion: whimbrel/v1, kind: DeviceModel, metadata: {name: %s}, spec: {protocol: %s, properties: [{name: p, type: %s, access: %s, address: %s}]}}`,
					name, protocol, c.Type, c.Access, c.Address))
				if hub == nil {
					hub = put(t, r, fmt.Sprintf(`{apiVersion: whimbrel/v1, kind: Device, metadata: {name: %s}, spec: {model: %s, connection: %s}}`, name, name, c.Connection))
				}
				dev, edge := driver.Open(mappers.DeviceConfig{Connection: c.Connection, Secrets: map[string]mappers.Secret{"passwordFrom": mappers.NewSecret([]byte("x"))},
					Points: []mappers.Point{{Property: "p", Type: c.Type, Access: c.Access, Address: c.Address}}})
				if dev != nil {
					dev.Close()
				}

				switch {
				case c.Refused == "":
					if hub != nil || edge != nil {
						t.Errorf("%s\n\thub: %v\n\tdriver: %v", what, hub, edge)
					}
					continue
				case c.Driver != "" && edge != nil:
					t.Errorf("%s\n\tthe driver refuses it too: %v", what, edge)
				case c.Driver == "" && edge == nil:
					t.Errorf("%s\n\tthe driver takes it", what)
				}
				refused++
				var e *models.Error
				if !errors.As(hub, &e) || e.Kind != models.KindInvalid {
					t.Errorf("%s\n\tthe hub says %v, the driver %v", what, hub, edge)
					continue
				}
				at, found := "/spec/"+c.Refused, false
				if !strings.HasPrefix(c.Refused, "connection") {
					at = "/spec/properties/0/" + c.Refused
				}
				for _, f := range e.Fields {
					found = found || f.Pointer == at && strings.Contains(f.Detail, c.Says)
					if bad := machine.FindString(f.Detail); bad != "" {
						t.Errorf("%s: %q in %s", what, bad, f.Detail)
					}
				}
				if !found || c.Says == "" {
					t.Errorf("%s\n\thub: %v, want %s: …%s…\n\tdriver: %v", what, hub, at, c.Says, edge)
				}
				if len(e.Fields) > c.Lines+1 {
					t.Errorf("%s: %d lines for one thing: %v", what, len(e.Fields), e.Fields)
				}
			}
			if good := len(cases.Cases) - refused; good < 10 || refused < 20 {
				t.Errorf("%d cases are good and %d refused", good, refused)
			}
		})
	}
}
