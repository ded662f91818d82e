package catalog_test

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/models/catalog"
	"github.com/whimbrel-edge/whimbrel/models/importer"
)

// sourcesFolder names a folder with mbmd/registers.csv (columns device,
// measurement, address, function, transform) and sunspec/json/model_N.json: the
// models are then compared with them line by line. Without it, by the digests
// below, which were made from those files.
const sourcesFolder = "WHIMBREL_CATALOG_SOURCES"

// meters are the models made from mbmd's tables: the meter's name there, and the
// digest of its lines "measurement table register" (see lines).
var meters = map[string]struct{ device, digest string }{
	"abb-b23":             {"ABB", "c2d131830788199d"},
	"carlo-gavazzi-em340": {"CGEX3X0", "cdbbdb23ded49774"},
	"inepro-pro380":       {"INEPRO", "3d98b18f9007d121"},
	"janitza-b23":         {"JANITZA", "5df5b7381267e10d"},
	"schneider-iem3000":   {"IEM3000", "9c5a9a416c9f82bf"},
	"sdm120":              {"SDM120", "8c7ec96d05b277a9"},
	"sdm220":              {"SDM220", "fc16d6ce5d3d8eef"},
	"sdm230":              {"SDM230", "fc16d6ce5d3d8eef"},
	"sdm630":              {"SDM", "9bb553c723328ebc"},
	"sdm72-v2":            {"SDM72V2", "01db0c0dda88f89d"},
	"siemens-pac2200":     {"PAC2200", "f335d575aeb2198c"},
}

// imports are the models made by the importer: the file, among the importer's
// own test data or in the folder of sources, and the digest of the lines
// "property type address".
var imports = map[string]struct{ file, digest string }{
	"opcua-machinery":      {"machinery.xml", "49e5bbe133445816"},
	"sunspec-common":       {"sunspec-1.json", "6931e98294bf7b65"},
	"sunspec-inverter-101": {"model_101.json", "d8d78a0e6d56969a"},
	"sunspec-inverter-103": {"sunspec-103.json", "d8d78a0e6d56969a"},
	"sunspec-meter-201":    {"model_201.json", "1fb19537e0703ace"},
	"sunspec-meter-203":    {"sunspec-203.json", "5efb3945e14bc7b3"},
}

// written are models whose text is their own source: a published command set.
var written = []string{"mt-sics-scale"}

// Whatever a model says of a device stands in its source.
func TestEveryModelHasACheckedSource(t *testing.T) {
	known := slices.Concat(slices.Collect(maps.Keys(meters)), slices.Collect(maps.Keys(imports)), written)
	slices.Sort(known)
	if names := catalog.Names(); !slices.Equal(names, known) {
		t.Errorf("the catalog has %v, checked are %v", names, known)
	}
}

func TestMetersHaveTheRegistersOfTheirSource(t *testing.T) {
	table := mbmd(t)
	for name, source := range meters {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, p := range model(t, name).Spec.Properties {
				var a struct {
					Table    string
					Register int
				}
				if err := json.Unmarshal(p.Address, &a); err != nil {
					t.Fatal(err)
				}
				got = append(got, fmt.Sprintf("%s %s %d", strings.ToLower(p.Name), a.Table, a.Register))
			}
			compare(t, got, table[source.device], source.digest)
		})
	}
}

func TestImportedModelsAreWhatTheImporterMakes(t *testing.T) {
	for name, source := range imports {
		t.Run(name, func(t *testing.T) {
			m := model(t, name)
			var want []string
			if text := sourceFile(t, source.file); text != nil {
				got, err := importer.Import(bytes.NewReader(text), importer.Options{Name: name})
				if err != nil {
					t.Fatal(err)
				}
				want = addresses(t, got.Model)
			}
			compare(t, addresses(t, m), want, source.digest)
		})
	}
}

// addresses are the lines "property type unit address" of a model.
func addresses(t *testing.T, m *models.DeviceModel) []string {
	t.Helper()
	var lines []string
	for _, p := range m.Spec.Properties {
		var a map[string]any
		if err := json.Unmarshal(p.Address, &a); err != nil {
			t.Fatal(err)
		}
		address, err := json.Marshal(a) // sorted
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, fmt.Sprintf("%s %s %q %s", p.Name, p.Type, p.Unit, address))
	}
	return lines
}

// compare holds a model's lines against its source, where that is at hand, and
// against the digest.
func compare(t *testing.T, got, want []string, digest string) {
	t.Helper()
	slices.Sort(got)
	slices.Sort(want)
	if want != nil && !slices.Equal(got, want) {
		for _, line := range got {
			if !slices.Contains(want, line) {
				t.Errorf("not in the source: %s", line)
			}
		}
		for _, line := range want {
			if !slices.Contains(got, line) {
				t.Errorf("only in the source: %s", line)
			}
		}
	}
	sum := sha256.Sum256([]byte(strings.Join(got, "\n")))
	if hash := hex.EncodeToString(sum[:8]); hash != digest {
		t.Errorf("the registers are not those of the source any more (digest %s, want %s); compare them line by line with %s=DIR, then note the digest",
			hash, digest, sourcesFolder)
	}
}

// mbmd is the lines of each of mbmd's meters; empty without the sources.
func mbmd(t *testing.T) map[string][]string {
	t.Helper()
	folder := os.Getenv(sourcesFolder)
	if folder == "" {
		return nil
	}
	f, err := os.Open(filepath.Join(folder, "mbmd", "registers.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	column := map[string]int{}
	for i, name := range rows[0] {
		column[name] = i
	}
	tables := map[string]string{"ReadInputReg": "input", "ReadHoldingReg": "holding"}
	lines := map[string][]string{}
	for _, row := range rows[1:] {
		device := row[column["device"]]
		lines[device] = append(lines[device], fmt.Sprintf("%s %s %s", strings.ToLower(row[column["measurement"]]),
			cmp.Or(tables[row[column["function"]]], row[column["function"]]), row[column["address"]]))
	}
	return lines
}

// sourceFile is a file of the importer's test data, or of the folder of
// sources; nil where that is not at hand.
func sourceFile(t *testing.T, name string) []byte {
	t.Helper()
	path := filepath.Join("..", "importer", "testdata", name)
	if strings.HasPrefix(name, "model_") {
		folder := os.Getenv(sourcesFolder)
		if folder == "" {
			return nil
		}
		path = filepath.Join(folder, "sunspec", "json", name)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
