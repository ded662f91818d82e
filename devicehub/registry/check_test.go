package registry

import (
	"fmt"
	"strings"
	"testing"

	"github.com/whimbrel-edge/whimbrel/devicehub/store/storetest"
	"github.com/whimbrel-edge/whimbrel/internal/schema"
	"github.com/whimbrel-edge/whimbrel/models"
)

// pointers lists where an error says that something is wrong.
func pointers(t testing.TB, err error) string {
	t.Helper()
	e, ok := err.(*models.Error)
	if !ok {
		t.Fatalf("%v is no *models.Error", err)
	}
	var out []string
	for _, f := range e.Fields {
		out = append(out, f.Pointer+" "+f.Detail)
	}
	return strings.Join(out, "; ")
}

func TestWhatDoesNotFitIsRefusedWithPointers(t *testing.T) {
	r := plant(t, storetest.NewMemory(), "b1")
	for _, c := range []struct{ name, text, want string }{
		{"no model", strings.Replace(deviceText("x", "n"), "model: boiler", "model: furnace", 1), `/spec/model no DeviceModel is called "furnace" in namespace default`},
		{"no url", strings.Replace(deviceText("x", "n"), `url: "tcp://h:1"`, "", 1), "/spec/connection/url is required"},
		{"bad url", strings.Replace(deviceText("x", "n"), "tcp://h:1", "http://h", 1), `/spec/connection/url must match the regular expression ^tcp://, got "http://h"`},
		{"unknown field", strings.Replace(deviceText("x", "n"), "{url:", "{units: 1, url:", 1), "/spec/connection/units unknown field; did you mean unit?"},
		{"unit", strings.Replace(deviceText("x", "n"), "{url:", "{unit: 256, url:", 1), "/spec/connection/unit must be from 0 to 255, got 256"},
		{"override", strings.Replace(deviceText("x", "n"), "spec: {", "spec: {properties: [{name: mode, address: {register: -1}}], ", 1), "/spec/properties/0/address/register must be at least 0, got -1"},
		{"unknown override", strings.Replace(deviceText("x", "n"), "spec: {", "spec: {properties: [{name: moda, every: 1s}], ", 1), `/spec/properties/0/name model boiler has no property "moda"`},
		{"protocol", strings.Replace(modelText, "protocol: modbus", "protocol: opcua", 1), `/spec/protocol no mapper is called "opcua"; there are: modbus`},
		{"address", strings.Replace(modelText, "{register: 10}", "{register: ten}", 1), `/spec/properties/1/address/register must be a whole number, got "ten"`},
		{"number as large as it gets", strings.Replace(deviceText("x", "n"), "{url:", "{unit: 1e999999999, url:", 1), "/spec/connection"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := put(r, object(t, c.text), models.WriteOptions{})
			refused(t, err, models.KindInvalid)
			if got := pointers(t, err); !strings.Contains(got, c.want) {
				t.Errorf("got %s\nwant %s", got, c.want)
			}
		})
	}
	// An address may come from the device.
	apply(t, r, strings.Replace(strings.Replace(modelText, "name: boiler", "name: partial", 1), ", address: {register: 12}", "", 1))
	partial := strings.Replace(deviceText("p1", "n"), "model: boiler", "model: partial", 1)
	_, _, err := put(r, object(t, partial), models.WriteOptions{})
	refused(t, err, models.KindInvalid, "/spec/properties", "mode has no address")
	apply(t, r, strings.Replace(partial, "spec: {", "spec: {properties: [{name: mode, address: {register: 3}}], ", 1))
}

func TestLastAdminStays(t *testing.T) {
	r := running(t, storetest.NewMemory())
	user := func(name, namespace string) models.Object {
		return object(t, "apiVersion: whimbrel/v1\nkind: User\nmetadata: {name: "+name+"}\nspec: {role: admin, namespace: '"+namespace+"'}")
	}
	for _, u := range []models.Object{user("admin", "*"), user("local", "default")} {
		if _, _, err := put(r, u, models.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	key := models.Key{Kind: "User", Name: "admin"}
	_, err := r.Delete(t.Context(), key, models.WriteOptions{})
	refused(t, err, models.KindConflict, "last admin")
	if _, _, err := put(r, user("other", "*"), models.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Delete(t.Context(), key, models.WriteOptions{}); err != nil {
		t.Error(err)
	}
}

func TestHostileSchemas(t *testing.T) {
	r := running(t, storetest.NewMemory())
	mapper := func(s string) models.Object {
		o := object(t, mapperText)
		o.(*models.Mapper).Spec.Connection = []byte(s)
		return o
	}
	for _, s := range []string{
		`{"$ref": "file:///etc/passwd"}`,
		`{"$ref": "http://127.0.0.1:1/schema"}`,
		`{"$ref": "other.json"}`,
		`{"$schema": "http://evil.example/meta", "type": "object"}`,
		`{"type": 7}`,
		`{"pattern": "("}`,
		`{"description": "` + strings.Repeat("x", schema.MaxBytes) + `"}`,
		`{"$id": "file:///etc/x", "$ref": "passwd"}`,
		`{"$ref": "address"}`,
	} {
		_, _, err := put(r, mapper(s), models.WriteOptions{})
		if models.KindOf(err) != models.KindInvalid {
			t.Errorf("%.60s: %v", s, err)
			continue
		}
		if got := pointers(t, err); !strings.HasPrefix(got, "/spec/connection ") {
			t.Errorf("%.60s: %s", s, got)
		}
	}
	// A schema that goes round in circles fits nothing, and ends.
	if _, _, err := put(r, mapper(`{"$ref": "#"}`), models.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	apply(t, r, modelText)
	_, _, err := put(r, object(t, deviceText("b1", "n1")), models.WriteOptions{})
	refused(t, err, models.KindInvalid, "/spec/connection")
	apply(t, r, mapperText)
}

func TestInUse(t *testing.T) {
	r := plant(t, storetest.NewMemory(), "b1", "b2")
	model := models.Key{Kind: "DeviceModel", Namespace: "default", Name: "boiler"}
	_, err := r.Delete(t.Context(), model, models.WriteOptions{})
	refused(t, err, models.KindConflict, "devices b1, b2")
	_, err = r.Delete(t.Context(), models.Key{Kind: "Mapper", Name: "modbus"}, models.WriteOptions{})
	refused(t, err, models.KindConflict, "device models default/boiler")
	for i := range 12 {
		apply(t, r, deviceText(fmt.Sprintf("c%02d", i), "n1"))
	}
	_, err = r.Delete(t.Context(), model, models.WriteOptions{})
	refused(t, err, models.KindConflict, "and 4 more")
}

func TestAModelMayNotLeaveItsDevicesBehind(t *testing.T) {
	r := plant(t, storetest.NewMemory(), "b1")
	apply(t, r, strings.Replace(deviceText("b2", "n1"), "spec: {", "spec: {properties: [{name: mode, every: 5s}], ", 1))
	without := strings.Replace(modelText, ",\n  {name: mode, type: int, access: ReadWrite, enum: {0: \"off\", 1: heat}, address: {register: 12}}", "", 1)
	_, _, err := put(r, object(t, without), models.WriteOptions{})
	refused(t, err, models.KindInvalid, "default/b2 would no longer fit", "/spec/properties/0/name")
	if v, _ := r.Device("default", "b1"); len(v.Properties) != 3 {
		t.Fatal("a refused model shows")
	}
	// Another protocol's connection is another one.
	apply(t, r, strings.NewReplacer("name: modbus", "name: other", "required: [url], ", "required: [port], ", "url: {type: string, pattern: \"^tcp://\"}", "port: {}").Replace(mapperText))
	_, _, err = put(r, object(t, strings.Replace(modelText, "protocol: modbus", "protocol: other", 1)), models.WriteOptions{})
	refused(t, err, models.KindInvalid, "/spec/connection/port")
	// A mapper's schema may not leave what is registered behind either.
	_, _, err = put(r, object(t, strings.Replace(mapperText, "required: [url]", "required: [url, unit]", 1)), models.WriteOptions{})
	refused(t, err, models.KindInvalid, "b1", "/spec/connection/unit")
}

func TestSeed(t *testing.T) {
	s := storetest.NewMemory()
	r := plant(t, s, "b1")
	user := object(t, strings.NewReplacer("name: modbus", "name: modbus, labels: {mine: yes-it-is}", "tcp://", "^x").Replace(mapperText))
	if _, _, err := put(r, user, models.WriteOptions{}); err == nil {
		t.Fatal("a mapper may not turn its devices away")
	}
	apply(t, r, strings.Replace(mapperText, "name: modbus", "name: modbus, labels: {mine: yes-it-is}", 1))
	given := object(t, strings.Replace(mapperText, `version: "1"`, `version: "2"`, 1)).(*models.Mapper)
	given.TypeMeta = models.TypeMeta{}
	for range 2 {
		if err := r.Seed(t.Context(), []*models.Mapper{given}); err != nil {
			t.Fatal(err)
		}
	}
	o, _ := r.Get(t.Context(), models.Key{Kind: "Mapper", Name: "modbus"})
	m := o.(*models.Mapper)
	if m.Spec.Version != "2" || m.Metadata.Labels["mine"] == "" || m.Metadata.Generation != 2 {
		t.Fatalf("%+v", m.Metadata)
	}
	if given.Metadata.UID != "" || given.Metadata.Labels != nil {
		t.Fatal("seeding changed what it was given")
	}
	// Seeding what is stored makes no revision.
	again := running(t, s)
	before := again.revision
	if err := again.Seed(t.Context(), []*models.Mapper{given}); err != nil || again.revision != before {
		t.Fatal(again.revision, before, err)
	}
}

func TestAnnounce(t *testing.T) {
	r := plant(t, storetest.NewMemory())
	spec := func(version, address string) models.MapperSpec {
		return models.MapperSpec{Version: version, Connection: []byte(`{"type":"object"}`), Address: []byte(address)}
	}
	get := func(name string) *models.Mapper {
		t.Helper()
		o, err := r.Get(t.Context(), models.Key{Kind: "Mapper", Name: name})
		if err != nil {
			t.Fatal(err)
		}
		return o.(*models.Mapper)
	}
	announce := func(node, version, address string) error {
		return r.Announce(t.Context(), node, "scpi", spec(version, address))
	}
	if err := announce("n1", "1.9.0", `{"required":["query"]}`); err != nil {
		t.Fatal(err)
	}
	first := get("scpi")
	if first.Spec.Version != "1.9.0" || first.Metadata.Annotations[AnnouncedBy] != "n1" {
		t.Fatalf("%+v", first)
	}
	// The same again, written otherwise, from another node; and an older one.
	for _, again := range []string{`{"required": ["query"]}`} {
		if err := announce("n2", "1.9.0", again); err != nil {
			t.Fatal(err)
		}
	}
	if err := announce("n2", "1.8.9", `{"required":["old"]}`); err != nil {
		t.Fatal(err)
	}
	refused(t, announce("n2", "1.9.0", `{"required":["other"]}`), models.KindConflict, "n2", "a version of its own")
	refused(t, announce("n2", "1.10.0", `{"type":5}`), models.KindInvalid, "/spec/address")
	if now := get("scpi"); rev(t, now) != rev(t, first) {
		t.Fatalf("changed: %+v", now)
	}
	// A newer one replaces it, as long as what there is goes on to fit.
	apply(t, r, `{apiVersion: whimbrel/v1, kind: DeviceModel, metadata: {name: psu}, spec: {protocol: scpi, properties: [{name: v, type: float, address: {query: "V?"}}]}}`)
	refused(t, announce("n2", "1.10.0", `{"required":["other"]}`), models.KindInvalid, "no longer fits")
	if err := announce("n2", "1.10.0", `{"required":["query"],"properties":{"set":{}}}`); err != nil {
		t.Fatal(err)
	}
	if now := get("scpi"); now.Spec.Version != "1.10.0" || now.Metadata.Annotations[AnnouncedBy] != "n2" {
		t.Fatalf("%+v", now)
	}
	// What ships with the hub, or is a user's, no node changes.
	if err := r.Announce(t.Context(), "n1", "modbus", spec("99", `true`)); err != nil {
		t.Fatal(err)
	}
	if now := get("modbus"); now.Spec.Version == "99" {
		t.Fatal("a node replaced the hub's own mapper")
	}
	refused(t, r.Announce(t.Context(), "n1", "modbus", spec(get("modbus").Spec.Version, `{"required":["other"]}`)), models.KindConflict, "other schemas")
}

func TestCompareVersions(t *testing.T) {
	for i, order := 1, []string{"0.9", "1.0.0-rc1", "1.0.0-rc2", "1.0.0", "1.0.1", "1.9.0", "v1.10.0", "1.10.0.1", "2"}; i < len(order); i++ {
		if compareVersions(order[i-1], order[i]) >= 0 || compareVersions(order[i], order[i-1]) <= 0 {
			t.Errorf("%s is not before %s", order[i-1], order[i])
		}
	}
	if compareVersions("1.0", "v1.0") != 0 {
		t.Error("the v counts")
	}
}

// What is remembered of one device is not taken for another's: its connection, its
// model, or the mapper may differ.
func TestPropertiesGoWithTheConnection(t *testing.T) {
	r := running(t, storetest.NewMemory())
	mapper := func(message string) string {
		return `{kind: Mapper, apiVersion: whimbrel/v1, metadata: {name: bus}, spec: {version: "1", connection: {}, address: {},
			property: {x-rules: [{rule: "self.address.n <= (connection.most ?? 5)", message: "` + message + `", at: /address/n, connection: /most}]}}}`
	}
	model := func(n int) string {
		return fmt.Sprintf(`{kind: DeviceModel, apiVersion: whimbrel/v1, metadata: {name: m}, spec: {protocol: bus, properties: [{name: a, type: int, address: {n: %d}}]}}`, n)
	}
	device := func(name, connection, properties string) string {
		return fmt.Sprintf(`{kind: Device, apiVersion: whimbrel/v1, metadata: {name: %s}, spec: {model: m, connection: {%s}, properties: [%s]}}`, name, connection, properties)
	}
	apply(t, r, mapper("is too much"))
	apply(t, r, model(7))
	for range 2 { // once reckoned, once remembered
		_, _, err := put(r, object(t, device("d", "", "")), models.WriteOptions{})
		refused(t, err, models.KindInvalid, "/spec/connection/most", "property a of model m does not go with it: address/n is too much, got 7")
		_, _, err = put(r, object(t, device("d", "most: 6, other: 1", "")), models.WriteOptions{})
		refused(t, err, models.KindInvalid, "/spec/connection/most", "is too much")
		_, _, err = put(r, object(t, device("d", "", "{name: a, address: {n: 8}}")), models.WriteOptions{})
		refused(t, err, models.KindInvalid, "/spec/properties/0/address/n", "is too much, got 8")
	}
	apply(t, r, device("d7", "most: 7", ""))
	apply(t, r, device("d7b", "most: 7, other: 2", ""))
	apply(t, r, device("own", "", "{name: a, address: {n: 1}}"))
	// The model may not leave its devices behind.
	_, _, err := put(r, object(t, model(8)), models.WriteOptions{})
	refused(t, err, models.KindInvalid, "/spec", "Device default/d7 would no longer fit", "address/n is too much, got 8")
	apply(t, r, model(6))
	apply(t, r, device("d", "most: 6", ""))
	apply(t, r, mapper("is more than can be"))
	_, _, err = put(r, object(t, device("e", "", "")), models.WriteOptions{})
	refused(t, err, models.KindInvalid, "is more than can be")
}
