package mapperseed

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/whimbrel-edge/whimbrel/devicehub/registry"
	"github.com/whimbrel-edge/whimbrel/devicehub/store/storetest"
	"github.com/whimbrel-edge/whimbrel/mappers/builtin"
	"github.com/whimbrel-edge/whimbrel/models"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// seeded is a registry with the mappers that ship.
func seeded(t *testing.T) *registry.Registry {
	t.Helper()
	r, err := registry.Open(t.Context(), registry.Config{Store: storetest.NewMemory(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	if err := r.Seed(t.Context(), Objects(builtin.Drivers())); err != nil {
		t.Fatal(err)
	}
	return r
}

func put(t *testing.T, r *registry.Registry, text string) error {
	t.Helper()
	o, err := models.DecodeObject([]byte("---\n" + text)) // YAML, not JSON
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	_, _, err = r.Update(t.Context(), models.KeyOf(o), models.WriteOptions{}, func(models.Object) (models.Object, error) { return o, nil })
	return err
}

func model(protocol, properties string) string {
	return "{apiVersion: whimbrel/v1, kind: DeviceModel, metadata: {name: m}, spec: {protocol: " + protocol + ", properties: [" + properties + "]}}"
}

// says checks that an error points to a field and explains it in words.
func says(t *testing.T, what string, err error, pointer, words string) {
	t.Helper()
	var e *models.Error
	if !errors.As(err, &e) {
		t.Errorf("%s: %v", what, err)
		return
	}
	for _, f := range e.Fields {
		if f.Pointer == pointer && strings.Contains(f.Detail, words) {
			return
		}
	}
	t.Errorf("%s: %v; want %s: …%s…", what, err, pointer, words)
}

// A property that does not fit its protocol is refused before anything reaches
// an edge, where it stands and with what would be right.
func TestMisfitsAreRefusedWithAnExplanation(t *testing.T) {
	r := seeded(t)
	for _, tc := range []struct{ protocol, property, field, words string }{
		{"modbus", "type: float, access: ReadWrite, address: {table: input, register: 1}", "address/table", "read-only: the property's access must be Read"},
		{"modbus", `type: float, access: ReadWrite, address: {reference: 30001}`, "address/reference", "access must be Read"},
		{"modbus", "type: int, address: {table: holding, register: 1, encoding: float32}", "address/encoding", "make the property a float"},
		{"modbus", "type: int, address: {table: holding, register: 1, scale: 0.1}", "address/scale", "must be whole for type int"},
		{"modbus", "type: float, address: {table: coil, register: 1}", "address/table", "type must be bool"},
		{"modbus", "type: float, address: {table: holding, register: 1, bit: 3}", "address/bit", "a bit needs type bool"},
		{"modbus", "type: bool, address: {table: holding, register: 1, encoding: int16}", "address/encoding", "type bool needs encoding bool"},
		{"modbus", "type: string, address: {table: holding, register: 1}", "address/encoding", "type string needs encoding string and length"},
		{"modbus", "type: array, address: {table: holding, register: 1}", "type", "Modbus has no other values"},
		{"modbus", "type: int, address: {table: holding, register: 1, nullValue: 70000}", "address/nullValue", "one register can hold"},
		{"modbus", "type: bool, address: {table: coil, register: 1, bit: 3}", "address/bit", "must be left out: the tables coil and discrete hold bits"},
		{"modbus", "type: int, address: {table: holding, register: 1, length: 2}", "address/length", "must be left out: length goes with encoding string"},
		{"opcua", "type: object, address: {node: i=1}", "type", "nodes hold no objects"},
		{"serial", "type: float, access: ReadWrite, address: {read: a}", "address/write", "is needed to write the property"},
		{"serial", "type: float, address: {read: a, write: 'b {value}'}", "address/write", "access is Read"},
		{"serial", "type: float, access: Write, address: {read: a, write: 'b {value}'}", "address/read", "access is Write"},
		{"serial", "type: array, address: {read: a}", "type", "no objects and arrays"},
	} {
		err := put(t, r, model(tc.protocol, "{name: good, type: string, address: "+map[string]string{
			"modbus": "{table: holding, register: 0, encoding: string, length: 2}", "opcua": "{node: i=1}", "serial": "{read: x}"}[tc.protocol]+"}, {name: p, "+tc.property+"}"))
		says(t, tc.property, err, "/spec/properties/1/"+tc.field, tc.words)
	}
}

// A device's own address must fit the model's property, and a model its devices'
// addresses.
func TestOverridesMustFitTheModel(t *testing.T) {
	r := seeded(t)
	const properties = "{name: a, type: int, address: {table: holding, register: 1}}, {name: b, type: bool, access: ReadWrite, address: {table: coil, register: 1}}"
	if err := put(t, r, model("modbus", properties)); err != nil {
		t.Fatal(err)
	}
	device := func(overrides string) string {
		return `{apiVersion: whimbrel/v1, kind: Device, metadata: {name: d}, spec: {model: m, node: n, connection: {url: "tcp://h:502"}, properties: [` + overrides + "]}}"
	}
	says(t, "encoding", put(t, r, device("{name: b, every: 5s}, {name: a, address: {table: holding, register: 2, encoding: float32}}")), "/spec/properties/1/address/encoding", "make the property a float")
	says(t, "table", put(t, r, device("{name: b, address: {table: discrete, register: 2}}")), "/spec/properties/0/address/table", "access must be Read")
	if err := put(t, r, device("{name: a, address: {table: input, register: 2, encoding: int32}}")); err != nil {
		t.Fatal(err)
	}
	err := put(t, r, model("modbus", strings.Replace(properties, "type: int", "type: int, access: ReadWrite", 1)))
	says(t, "the model turns against the device", err, "/spec", "Device default/d would no longer fit: /spec/properties/0/address/table")
}
