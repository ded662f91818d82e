package simulators

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/mappers/builtin"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/models/catalog"
)

// open opens the device that fits a simulator, by the real driver.
func open(t *testing.T, sim *Modelled) (mappers.Device, []models.ResolvedProperty) {
	t.Helper()
	text, err := sim.Manifest("local")
	if err != nil {
		t.Fatal(err)
	}
	objects, err := models.DecodeObjects(text)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	d := objects[0].(*models.Device)
	if errs := d.Validate(); len(errs) > 0 {
		t.Fatal(errs)
	}
	properties, err := models.Resolve(sim.Model, d)
	if err != nil {
		t.Fatal(err)
	}
	// These simulators answer everything, if not soon beside all the others.
	var connection map[string]any
	if err := json.Unmarshal(d.Spec.Connection, &connection); err != nil {
		t.Fatal(err)
	}
	connection["timeout"] = "30s"
	patient, err := json.Marshal(connection)
	if err != nil {
		t.Fatal(err)
	}
	device, err := builtin.Drivers()[sim.Model.Spec.Protocol].Open(mappers.DeviceConfig{Name: d.Metadata.Name, Connection: patient, Points: mappers.PointsOf(properties)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { device.Close() })
	return device, properties
}

// TestModels: every property of a model reads good and within its bounds from
// the simulator that was made of it, by the real driver, at any time; what is
// written is read back.
func TestModels(t *testing.T) {
	files, err := filepath.Glob("testdata/models/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range append(files, catalog.Names()...) {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			t.Parallel()
			sim := StartModel(t, file)
			t.Log(sim.Notes)
			device, properties := open(t, sim)
			var read []int
			for i, p := range properties {
				if p.Access.Readable() {
					read = append(read, i)
				}
			}
			look := func() []mappers.Result {
				t.Helper()
				results := make([]mappers.Result, len(read))
				if err := device.Read(t.Context(), read, results); err != nil {
					t.Fatal(err)
				}
				for i, r := range results {
					p := &properties[read[i]]
					if r.Quality != models.Good {
						t.Errorf("%s is %v, %v", p.Name, r.Quality, r.Reason)
						continue
					}
					if order, ok := r.Value.Compare(p.Minimum); ok && order < 0 {
						t.Errorf("%s is %v, below %v", p.Name, r.Value, p.Minimum)
					}
					if order, ok := r.Value.Compare(p.Maximum); ok && order > 0 {
						t.Errorf("%s is %v, above %v", p.Name, r.Value, p.Maximum)
					}
					if n, ok := r.Value.AsInt(); ok && len(p.Enum) > 0 && p.Enum[n] == "" {
						t.Errorf("%s is %v, which is none of %v", p.Name, r.Value, p.Enum)
					}
				}
				return results
			}
			first := look()
			// Hours later it is still within.
			stepped, ok := sim.Simulator.(interface{ Step(time.Time) error })
			if !ok {
				t.Fatalf("a %T does not step", sim.Simulator)
			}
			moved := false
			for i := range 5 {
				if err := stepped.Step(time.Now().Add(time.Duration(i) * 17 * time.Minute)); err != nil {
					t.Error(err)
				}
				if strings.HasSuffix(file, "unasked.yaml") && i > 0 {
					break // reading it waits for what it says
				}
				for k, r := range look() {
					moved = moved || r.Value != first[k].Value
				}
			}
			if !moved && strings.HasSuffix(file, ".yaml") { // some ready models have nothing that could
				t.Error("nothing moves")
			}
			for i, p := range properties {
				if p.Access.Writable() {
					wrote(t, device, i, p)
				}
			}
		})
	}
}

// wrote writes another value and reads it back.
func wrote(t *testing.T, device mappers.Device, i int, p models.ResolvedProperty) {
	t.Helper()
	var v models.Value
	switch p.Type {
	case models.TypeBool:
		v = models.Bool(false)
	case models.TypeString:
		v = models.String("new")
	case models.TypeBytes:
		v = models.Bytes([]byte{9, 8})
	case models.TypeArray:
		v, _ = models.JSON([]byte("[7]"))
	default:
		v = models.Int(60)
		if !p.Minimum.IsNull() {
			v = p.Minimum
		}
		for k := range p.Enum {
			v = models.Int(k)
		}
		if p.Type == models.TypeFloat {
			f, _ := v.AsFloat()
			v = models.Float(f)
		}
	}
	if errs := device.Write(t.Context(), []mappers.WriteRequest{{Point: i, Value: v}}); errs != nil && errs[0] != nil {
		t.Errorf("%s: writing %v: %v", p.Name, v, errs[0])
		return
	}
	if !p.Access.Readable() {
		return
	}
	out := make([]mappers.Result, 1)
	if err := device.Read(t.Context(), []int{i}, out); err != nil || out[0].Quality != models.Good {
		t.Errorf("%s: reading back: %v, %v %v", p.Name, err, out[0].Quality, out[0].Reason)
	} else if order, ok := out[0].Value.Compare(v); out[0].Value != v && !(ok && order == 0) {
		t.Errorf("%s: wrote %v, read %v", p.Name, v, out[0].Value)
	}
}

func TestModelsSet(t *testing.T) {
	sim := StartModel(t, "testdata/models/modbus-all.yaml")
	device, properties := open(t, sim)
	if err := sim.Set("float32", 17.5); err != nil {
		t.Fatal(err)
	}
	for i, p := range properties {
		out := make([]mappers.Result, 1)
		if p.Name != "float32" {
			continue
		}
		if err := device.Read(t.Context(), []int{i}, out); err != nil || out[0].Value != models.Float(17.5) {
			t.Errorf("%v, %v", out[0], err)
		}
	}
	if got, err := sim.Get("float32"); err != nil || fmt.Sprint(got) != "17.5" {
		t.Errorf("%v, %v", got, err)
	}
}

func TestModelsRefused(t *testing.T) {
	model := func(protocol, properties string) string {
		return "apiVersion: whimbrel/v1\nkind: DeviceModel\nmetadata: {name: m}\nspec:\n  protocol: " + protocol + "\n  properties: [" + properties + "]\n"
	}
	for _, c := range []struct{ text, want string }{
		{"kind: ModbusSimulator\n", "kind"},
		{model("mqtt", `{name: x, type: int, address: {}}`), "not for mqtt"},
		{model("modbus", `{name: x, type: int}`), "property x: it has no address"},
		{model("modbus", `{name: x, type: int, address: {table: holding}}`), "property x: register is missing"},
		{model("modbus", `{name: x, type: int, address: {table: holding, register: 1, colour: red}}`), "colour"},
		{model("modbus", `{name: x, type: float, address: {table: holding, register: 1, scaleFrom: 2}}, {name: f, type: int, access: ReadWrite, address: {table: holding, register: 2}}`), "property f: it is written to the scale factor in holding 2"},
		{model("opcua", `{name: x, type: object, address: {node: "ns=2;s=x"}}`), "property x: nodes hold no values of type object"},
		{model("opcua", `{name: x, type: int, address: {node: "ns=2;x=x"}}`), "property x"},
		{model("serial", `{name: x, type: int, address: {read: A, match: '(\d)'}}, {name: y, type: int, address: {match: '(\d)'}}`), "property y has no read, and others do"},
		{model("serial", `{name: x, type: int, address: {read: A, match: '([a-f])'}}`), "property x: no value comes to mind"},
		{model("serial", `{name: x, type: int, address: {read: A, match: '^a(\d+)$'}}, {name: y, type: int, address: {read: A, match: '^b(\d+)$'}}`), "property y: no answer to \"A\" comes to mind"},
		{model("opcua", "{name: x, type: int, address: {node: \"ns=2;s=x\"}}") + "---\n" + model("opcua", `{name: x, type: int, address: {node: "ns=2;s=x"}}`), "must hold one DeviceModel"},
	} {
		path := filepath.Join(t.TempDir(), "model.yaml")
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := LoadModel(path)
		if err == nil {
			_, err = FromModel(m, "", nil)
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v\nwant …%s…", err, c.want)
		}
	}
}
