package catalog_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.uber.org/goleak"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/mappers/builtin"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/models/catalog"
	"github.com/whimbrel-edge/whimbrel/simulators/modbussim"
	"github.com/whimbrel-edge/whimbrel/simulators/serialsim"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open compiles a model for a device at url.
func open(t *testing.T, m *models.DeviceModel, url string) mappers.Device {
	t.Helper()
	driver := builtin.Drivers()[m.Spec.Protocol]
	if driver == nil {
		t.Fatalf("no driver for %s", m.Spec.Protocol)
	}
	props, err := models.Resolve(m, &models.Device{})
	if err != nil {
		t.Fatal(err)
	}
	connection, err := json.Marshal(map[string]string{"url": url})
	if err != nil {
		t.Fatal(err)
	}
	device, err := driver.Open(mappers.DeviceConfig{Name: m.Metadata.Name, Connection: connection, Points: mappers.PointsOf(props)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = device.Close() })
	return device
}

// read reads all properties, by name.
func read(t *testing.T, m *models.DeviceModel, d mappers.Device) map[string]mappers.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	points := make([]int, len(m.Spec.Properties))
	for i := range points {
		points[i] = i
	}
	out := make([]mappers.Result, len(points))
	if err := d.Read(ctx, points, out); err != nil {
		t.Fatal(err)
	}
	byName := map[string]mappers.Result{}
	for i, p := range m.Spec.Properties {
		byName[p.Name] = out[i]
	}
	return byName
}

func model(t *testing.T, name string) *models.DeviceModel {
	t.Helper()
	m, err := catalog.Model(name)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Every model is decoded strictly, fits its mapper's schema, compiles in the
// driver and says where it comes from.
func TestModelsAreReady(t *testing.T) {
	names := catalog.Names()
	if len(names) < 12 {
		t.Errorf("%d models", len(names))
	}
	urls := map[string]string{"modbus": "tcp://192.0.2.1", "opcua": "opc.tcp://192.0.2.1", "serial": "serial:///dev/null"}
	schemas := map[string]*jsonschema.Schema{}
	for protocol, driver := range builtin.Drivers() {
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(driver.Info().Address))
		if err != nil {
			t.Fatal(err)
		}
		c := jsonschema.NewCompiler()
		if err := c.AddResource("mapper:///address", doc); err != nil {
			t.Fatal(err)
		}
		schemas[protocol] = c.MustCompile("mapper:///address")
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			m := model(t, name)
			if m.Metadata.Name != name {
				t.Errorf("is called %s", m.Metadata.Name)
			}
			for _, key := range []string{catalog.SourceAnnotation, catalog.LicenceAnnotation} {
				if m.Metadata.Annotations[key] == "" {
					t.Errorf("has no annotation %s", key)
				}
			}
			if m.Spec.Description == "" {
				t.Error("has no description")
			}
			text, err := catalog.Text(name)
			if err != nil || !bytes.HasPrefix(text, []byte("# ")) {
				t.Errorf("begins with no comment: %v", err)
			}
			for _, p := range m.Spec.Properties {
				doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(p.Address))
				if err == nil {
					err = schemas[m.Spec.Protocol].Validate(doc)
				}
				if err != nil {
					t.Errorf("%s: %v", p.Name, err)
				}
			}
			open(t, m, urls[m.Spec.Protocol])
		})
	}
}

func TestUnknownNames(t *testing.T) {
	for _, name := range []string{"", "nope", "../catalog/sdm120", "sdm120.yaml", "catalog.go"} {
		if _, err := catalog.Text(name); models.KindOf(err) != models.KindNotFound {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// The notice must go with what it is for.
func TestNoticeNamesLicences(t *testing.T) {
	text, err := os.ReadFile("NOTICE.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Mathias Dalheimer", "Redistributions in binary form", "OPC Foundation MIT License 1.00", "Apache-2.0"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("lacks %q", want)
		}
	}
	if _, err := fs.Stat(os.DirFS("../.."), "LICENSE"); err != nil {
		t.Error(err)
	}
}

func float(name string, register uint16, encoding string, value float64) modbussim.Point {
	return modbussim.Point{Name: name, Table: "holding", Register: &register, Encoding: encoding, Value: value}
}

// A SunSpec device at its conventional place: raw values, scale factors in
// registers of their own, and what it does not have.
func TestSunSpecInverterIsReadWithItsScaleFactors(t *testing.T) {
	for _, base := range []int{40070, 40069} {
		at := func(offset int) uint16 { return uint16(base + offset) }
		sim := modbussim.Start(t, modbussim.Config{Units: []modbussim.Unit{{Unit: 1,
			Memory: []modbussim.Memory{{Table: "holding", Register: 40000, Count: 200}},
			Points: []modbussim.Point{
				float("A", at(2), "uint16", 1234), float("A_SF", at(6), "int16", -2),
				float("AphB", at(4), "uint16", 65535),
				float("PhVphA", at(10), "uint16", 2301), float("V_SF", at(13), "int16", -1),
				float("W", at(14), "int16", -321), float("W_SF", at(15), "int16", 1),
				float("Hz", at(16), "uint16", 50000), float("Hz_SF", at(17), "int16", -32768),
				float("WH", at(24), "uint32", 7_000_001), float("WH_SF", at(26), "int16", 0),
				float("TmpCab", at(33), "int16", 415), float("Tmp_SF", at(37), "int16", -1),
				float("TmpSnk", at(34), "int16", -32768),
				float("St", at(38), "uint16", 4),
				float("Evt1", at(40), "uint32", 1<<7),
				float("Evt2", at(42), "uint32", 1<<32-1),
			}}}})
		m := model(t, "sunspec-inverter-103")
		if base != 40070 {
			if err := catalog.Rebase(m, base); err != nil {
				t.Fatal(err)
			}
		}
		got := read(t, m, open(t, m, sim.URL("unit-1")))
		for name, want := range map[string]string{
			"A": "12.34", "PhVphA": "230.1", "W": "-3210", "WH": "7000001", "TmpCab": "41.5", "St": "4", "Evt1.OVER_TEMP": "true", "Evt1.GROUND_FAULT": "false",
		} {
			if r := got[name]; r.Quality != models.Good || r.Value.String() != want {
				t.Errorf("base %d: %s is %+v, want %s", base, name, r, want)
			}
		}
		// Not implemented: the value itself, its scale factor, a bit field as a whole.
		for _, name := range []string{"AphB", "Hz", "TmpSnk", "Evt2"} {
			if r := got[name]; r.Quality != models.Bad || r.Reason != models.ReasonNotImplemented {
				t.Errorf("base %d: %s is %+v", base, name, r)
			}
		}
	}
}

func TestSunSpecMeterIsReadWithItsScaleFactors(t *testing.T) {
	m := model(t, "sunspec-meter-203")
	registers := map[string]uint16{}
	factors := map[string]uint16{}
	for _, p := range m.Spec.Properties {
		var a struct{ Register, ScaleFrom uint16 }
		if err := json.Unmarshal(p.Address, &a); err != nil {
			t.Fatal(err)
		}
		registers[p.Name], factors[p.Name] = a.Register, a.ScaleFrom
	}
	sim := modbussim.Start(t, modbussim.Config{Units: []modbussim.Unit{{Unit: 1,
		Memory: []modbussim.Memory{{Table: "holding", Register: 40000, Count: 250}},
		Points: []modbussim.Point{
			float("A", registers["A"], "int16", -150), float("A_SF", factors["A"], "int16", -1),
			float("Hz", registers["Hz"], "int16", 4998), float("Hz_SF", factors["Hz"], "int16", -2),
			float("AphC", registers["AphC"], "int16", -32768),
			float("TotWhExp", registers["TotWhExp"], "uint32", 123456), float("TotWh_SF", factors["TotWhExp"], "int16", 2),
			float("TotWhImp", registers["TotWhImp"], "uint32", 0),
		}}}})
	got := read(t, m, open(t, m, sim.URL("unit-1")))
	for name, want := range map[string]string{"A": "-15", "Hz": "49.98", "TotWhExp": "12345600"} {
		if r := got[name]; r.Quality != models.Good || r.Value.String() != want {
			t.Errorf("%s is %+v, want %s", name, r, want)
		}
	}
	for _, name := range []string{"AphC", "TotWhImp"} { // an accumulator's 0 is "not implemented"
		if r := got[name]; r.Reason != models.ReasonNotImplemented {
			t.Errorf("%s is %+v", name, r)
		}
	}
}

func TestRebaseRefuses(t *testing.T) {
	if err := catalog.Rebase(model(t, "sdm630"), 40069); models.KindOf(err) != models.KindInvalid {
		t.Error(err)
	}
	if err := catalog.Rebase(model(t, "sunspec-inverter-103"), 65530); models.KindOf(err) != models.KindInvalid {
		t.Error(err)
	}
}

// A meter whose maker puts things in other orders and widths.
func TestMetersAreReadInTheirEncodings(t *testing.T) {
	for _, tc := range []struct {
		model  string
		points []modbussim.Point
		want   map[string]string
	}{
		{"schneider-iem3000", []modbussim.Point{float("p", 3059, "float32", 1.5), float("i", 3203, "int64", 123456789), float("u", 3027, "float32", 230.5)},
			map[string]string{"power": "1500", "import": "123456.789", "voltageL1": "230.5"}},
		{"abb-b23", []modbussim.Point{float("u", 23296, "uint32", 2305), float("i", 20480, "uint64", 100), float("pf", 23354, "int16", -999)},
			map[string]string{"voltageL1": "230.5", "import": "1", "cosphi": "-0.999"}},
	} {
		sim := modbussim.Start(t, modbussim.Config{Units: []modbussim.Unit{{Unit: 1, Points: tc.points,
			Memory: []modbussim.Memory{{Table: "holding", Register: 2900, Count: 800}, {Table: "holding", Register: 20000, Count: 5000}}}}})
		m := model(t, tc.model)
		got := read(t, m, open(t, m, sim.URL("unit-1")))
		for name, want := range tc.want {
			if r := got[name]; r.Quality != models.Good || r.Value.String() != want {
				t.Errorf("%s: %s is %+v, want %s", tc.model, name, r, want)
			}
		}
	}
}

// A scale as the published command set has it: stable, moving, and overloaded.
func TestScaleIsRead(t *testing.T) {
	for _, tc := range []struct{ answer, weight, unit, state string }{
		{"S S     100.09 g", "100.09", `"g"`, `"S"`},
		{"S D     -12.5 kg", "-12.5", `"kg"`, `"D"`},
		{"S +", "", "", `"+"`},
		{"S I", "", "", `"I"`},
	} {
		sim := serialsim.Start(t, serialsim.Config{Commands: []serialsim.Command{
			{Ask: "SI", Answer: tc.answer}, {Ask: "TA", Answer: "TA A      10.00 g"},
			{Ask: "I2", Answer: `I2 A "XP204 220.00 g"`}, {Ask: "I4", Answer: `I4 A "0123456789"`},
		}})
		m := model(t, "mt-sics-scale")
		got := read(t, m, open(t, m, sim.URL()))
		for name, want := range map[string]string{"weight": tc.weight, "unit": tc.unit, "state": tc.state, "tare": "10", "model": `"XP204 220.00 g"`, "serialNumber": `"0123456789"`} {
			switch r := got[name]; {
			case want == "" && r.Quality != models.Bad:
				t.Errorf("%s: %s is %+v", tc.answer, name, r)
			case want != "" && (r.Quality != models.Good || string(r.Value.AppendJSON(nil)) != want):
				t.Errorf("%s: %s is %+v, want %s", tc.answer, name, r, want)
			}
		}
	}
}
