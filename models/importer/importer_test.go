package importer_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/mappers/builtin"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/models/importer"
)

var update = flag.Bool("update", false, "write the golden files")

// drivers compiles models as the edge does.
var drivers = builtin.Drivers()

func compiles(m *models.DeviceModel) []models.FieldError {
	connection := map[string]string{"modbus": `{"url": "tcp://192.0.2.1"}`, "opcua": `{"url": "opc.tcp://192.0.2.1"}`}[m.Spec.Protocol]
	props, err := models.Resolve(m, &models.Device{})
	if err == nil {
		var d mappers.Device
		d, err = drivers[m.Spec.Protocol].Open(mappers.DeviceConfig{Connection: json.RawMessage(connection), Points: mappers.PointsOf(props)})
		if err == nil {
			_ = d.Close()
			return nil
		}
	}
	var e *models.Error
	if errors.As(err, &e) {
		return e.Fields
	}
	return []models.FieldError{{Detail: err.Error()}}
}

// options are how a file of testdata is imported besides by default.
var options = map[string]importer.Options{
	"sunspec-103":   {Base: new(40069)},
	"sunspec-705":   {Repeat: 2},
	"edge-cases":    {Base: new(0)},
	"boiler":        {Under: "Boiler"},
	"no-header.csv": {Format: importer.CSV},
}

// A golden file holds what is said and the model that comes out.
func TestFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/*.*")
	if err != nil || len(files) < 20 {
		t.Fatal(len(files), err)
	}
	for _, file := range files {
		ext := filepath.Ext(file)
		if ext == ".md" || ext == ".golden" {
			continue
		}
		base := filepath.Base(file)
		t.Run(base, func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			o, ok := options[strings.TrimSuffix(base, ext)]
			if !ok {
				o = options[base]
			}
			o.Fallback, o.Check = "fallback", compiles
			// Byte by byte it must be the same.
			result, err := importer.Import(iotest{bytes.NewReader(text)}, o)
			var got bytes.Buffer
			for _, w := range result.Warnings {
				fmt.Fprintln(&got, "warning:", w)
			}
			if err != nil {
				fmt.Fprintln(&got, "error:", err)
			} else {
				acceptable(t, result)
				e := json.NewEncoder(&got)
				e.SetEscapeHTML(false)
				fmt.Fprintf(&got, "%s %s %s %q\n", result.Format, result.Model.Spec.Protocol, result.Model.Metadata.Name, result.Model.Spec.Description)
				for _, p := range result.Model.Spec.Properties {
					if err := e.Encode(p); err != nil {
						t.Fatal(err)
					}
				}
			}
			golden := file + ".golden"
			if *update {
				if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got.String() != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got.String(), want)
			}
		})
	}
}

// iotest gives a few bytes at a time.
type iotest struct{ r io.Reader }

func (r iotest) Read(p []byte) (int, error) { return r.r.Read(p[:min(len(p), 7)]) }

// acceptable checks that a model survives being written and read strictly, and
// that the drivers take it.
func acceptable(t *testing.T, r importer.Result) {
	t.Helper()
	text, err := json.Marshal(r.Model)
	if err != nil {
		t.Fatal(err)
	}
	o, err := models.DecodeObject(text)
	if err != nil {
		if len(text) > models.MaxDocumentBytes {
			return // which is said
		}
		t.Fatalf("%v\n%s", err, text)
	}
	if errs := compiles(o.(*models.DeviceModel)); errs != nil {
		t.Fatalf("%v\n%s", errs, text)
	}
}

// Whatever is read, a model that comes out of it is one, also without the
// driver's help where the importer decides on the address alone.
func fuzz(f *testing.F, format importer.Format, pattern string) {
	files, err := filepath.Glob("testdata/" + pattern)
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		result, err := importer.Import(bytes.NewReader(text), importer.Options{Format: format, Repeat: 2, Check: compiles})
		if err == nil {
			acceptable(t, result)
		}
		if len(result.Warnings) > 600 {
			t.Errorf("%d warnings", len(result.Warnings))
		}
	})
}

func FuzzCSV(f *testing.F)     { fuzz(f, importer.CSV, "*.csv") }
func FuzzSunSpec(f *testing.F) { fuzz(f, importer.SunSpec, "*.json") }
func FuzzNodeSet(f *testing.F) { fuzz(f, importer.NodeSet, "*.xml") }

func TestInputIsBounded(t *testing.T) {
	t.Cleanup(importer.LowerBounds())
	for format, line := range map[importer.Format]string{
		importer.CSV:     "abcdefgh,coil,1\n",
		importer.SunSpec: "                \n",
		importer.NodeSet: "<UANodeSet><UAObject NodeId=\"i=1\">" + strings.Repeat(" ", 1000),
	} {
		endless := &endless{text: []byte(line)}
		if format == importer.CSV {
			endless.head = []byte("name,table,register\n")
		}
		_, err := importer.Import(endless, importer.Options{Format: format})
		if err == nil || !strings.Contains(err.Error(), "MiB") {
			t.Errorf("%s: %v", format, err)
		}
	}
}

type endless struct{ head, text []byte }

func (e *endless) Read(p []byte) (int, error) {
	if len(e.head) > 0 {
		n := copy(p, e.head)
		e.head = e.head[n:]
		return n, nil
	}
	return copy(p, e.text), nil
}

func TestAModelHoldsOnlySoMuch(t *testing.T) {
	var b strings.Builder
	b.WriteString("name,table,register\n")
	for i := range models.MaxProperties + 500 {
		fmt.Fprintf(&b, "p%d,coil,%d\n", i, i)
	}
	r, err := importer.Import(strings.NewReader(b.String()), importer.Options{})
	if err != nil || len(r.Model.Spec.Properties) != models.MaxProperties || !slices.ContainsFunc(r.Warnings, func(w importer.Warning) bool {
		return w.Line == models.MaxProperties+2 && strings.Contains(w.Text, "all after it are left out")
	}) {
		t.Errorf("%d properties, %v, %v", len(r.Model.Spec.Properties), r.Warnings, err)
	}
}

// Counts within counts and one name for all must not take for ever.
func TestWhatMultipliesEnds(t *testing.T) {
	text := `{"name": "v", "type": "uint16", "size": 1}`
	group := `{"name": "g", "count": 1000, "points": [` + text + `]}`
	empty := `{"name": "e", "count": 1000}`
	for range 7 {
		group = `{"name": "g", "count": 1000, "groups": [` + group + `]}`
		empty = `{"name": "e", "count": 1000, "groups": [` + empty + `]}`
	}
	for _, g := range []string{group, empty} {
		r, err := importer.Import(strings.NewReader(`{"id": 1, "group": {"name": "x", "points": [`+text+`], "groups": [`+g+`]}}`), importer.Options{})
		if err != nil || len(r.Warnings) > 600 {
			t.Error(err, len(r.Warnings))
		}
	}
	same := "name,table,register\n" + strings.Repeat("p,coil,1\n", models.MaxProperties)
	if r, err := importer.Import(strings.NewReader(same), importer.Options{}); err != nil || len(r.Model.Spec.Properties) != models.MaxProperties {
		t.Error(err)
	}
}

// TestOptionsOfAnotherFormat are refused, not ignored.
func TestOptionsOfAnotherFormat(t *testing.T) {
	csv := "name,table,register\na,holding,1\n"
	for _, tt := range []struct {
		o    importer.Options
		want string
	}{
		{importer.Options{Base: new(5)}, "base is of SunSpec models: the file is taken for csv"},
		{importer.Options{Repeat: 2}, "repeat is of SunSpec"},
		{importer.Options{Under: "x"}, "under is of OPC UA NodeSets: the file is taken for csv"},
		{importer.Options{Fallback: "m"}, ""},
	} {
		_, err := importer.Import(strings.NewReader(csv), tt.o)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.HasPrefix(err.Error(), tt.want)) {
			t.Errorf("%+v: %v, want %s", tt.o, err, tt.want)
		}
	}
}

func TestRecognise(t *testing.T) {
	for text, want := range map[string]importer.Format{
		"\uFEFF<?xml version=\"1.0\"?>\n<UANodeSet ": importer.NodeSet,
		"name;table":     importer.CSV,
		"\n {\"id\": 1}": importer.SunSpec,
		"a\tb\n":         importer.CSV,
		"":               "",
		"<html/>":        "",
		"hello":          "",
		"kind: Device\n": "",
	} {
		got, err := importer.Recognise([]byte(text))
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q is %q, %v", text, got, err)
		}
	}
}
