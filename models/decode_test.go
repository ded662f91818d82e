package models

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const boilerYAML = `
apiVersion: whimbrel/v1
kind: DeviceModel
metadata: {name: boiler}
spec:
  protocol: modbus
  defaults: {every: 1s}
  properties:
  - name: temperature
    type: float
    unit: "°C"
    access: Read
    minimum: -20
    maximum: 150
    every: 1s
    deadband: 0.2
    heartbeat: 60s
    address: {table: input, register: 0, encoding: int16, scale: 0.1}
  - name: setpoint
    type: float
    access: ReadWrite
    minimum: 0
    maximum: 95
    write: hold
    address: {table: holding, register: 10, encoding: float32, order: CDAB}
  - name: mode
    type: int
    access: ReadWrite
    enum: {0: "off", 1: heat, 2: cool}
    history: false
    uplink: none
    address: {table: holding, register: 12, encoding: uint16}
---
apiVersion: whimbrel/v1
kind: Device
metadata: {name: boiler-1, labels: {area: hall-a}}
spec:
  model: boiler
  node: gateway-1
  connection: {url: "tcp://127.0.0.1:5020", unit: 1}
  properties:
  - {name: temperature, every: 5s}
  locked: true
status: {state: online}
`

func decodeBoiler(t *testing.T) (*DeviceModel, *Device) {
	t.Helper()
	objects, err := DecodeObjects([]byte(boilerYAML))
	if err != nil {
		t.Fatal(err)
	}
	return objects[0].(*DeviceModel), objects[1].(*Device)
}

func TestContractExampleDecodes(t *testing.T) {
	m, d := decodeBoiler(t)
	if d.Metadata.Namespace != "default" || d.Status != nil {
		t.Errorf("namespace %q, status %v", d.Metadata.Namespace, d.Status)
	}
	props, err := Resolve(m, d)
	if err != nil {
		t.Fatal(err)
	}
	temp, mode := props[0], props[2]
	if temp.Every.String() != "5s" || temp.Deadband != 0.2 || temp.Minimum != Float(-20) {
		t.Errorf("temperature resolved to %+v", temp)
	}
	if mode.History || mode.Uplink != UplinkNone || mode.Enum[1] != "heat" {
		t.Errorf("mode resolved to %+v", mode)
	}
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := DecodeObject(text); err != nil {
		t.Errorf("what was written is refused: %v\n%s", err, text)
	} else if second, _ := json.Marshal(again); string(second) != string(text) {
		t.Errorf("not the same after a round trip:\n%s\n%s", text, second)
	}
}

func TestStrictDecodingNamesTheField(t *testing.T) {
	for name, c := range map[string]struct{ replace, by, pointer, detail string }{
		"misspelt":         {"deadband: 0.2", "deadbnd: 0.2", "/spec/properties/0/deadbnd", "did you mean deadband?"},
		"unknown at root":  {"spec:\n  protocol", "extra: 1\nspec:\n  protocol", "/extra", "unknown field"},
		"bad duration":     {"every: 1s\n    deadband", "every: 10\n    deadband", "/spec/properties/0/every", "must be a string"},
		"no such unit":     {"every: 1s\n    deadband", "every: 1 s\n    deadband", "/spec/properties/0/every", "must be a duration"},
		"bad type":         {"type: float\n    unit", "type: double\n    unit", "/spec/properties/0/type", "must be one of"},
		"min above max":    {"maximum: 150", "maximum: -150", "/spec/properties/0/minimum", "above the maximum"},
		"enum on float":    {"type: int\n", "type: float\n", "/spec/properties/2/enum", "needs type int"},
		"bad name":         {"metadata: {name: boiler}", "metadata: {name: Boiler}", "/metadata/name", "must be at most 63"},
		"duplicate":        {"name: setpoint", "name: temperature", "/spec/properties/1/name", "already the name"},
		"percent unbound":  {"write: hold", "write: hold\n    deadband: 1%\n    unit: x", "", ""},
		"access":           {"access: Read\n", "access: R\n", "/spec/properties/0/access", "must be Read, Write or ReadWrite"},
		"wrong apiVersion": {"whimbrel/v1\nkind: DeviceModel", "v1\nkind: DeviceModel", "/apiVersion", "must be whimbrel/v1"},
		"key twice":        {"protocol: modbus", "protocol: modbus\n  protocol: opcua", "", "key appears twice"},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(boilerYAML, c.replace, c.by, 1)
			if text == boilerYAML {
				t.Fatal("the case changes nothing")
			}
			_, err := DecodeObjects([]byte(text))
			if c.detail == "" {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.pointer) || !strings.Contains(err.Error(), c.detail) {
				t.Errorf("got %v, want %s: ...%s...", err, c.pointer, c.detail)
			}
		})
	}
}

func TestCheckDesired(t *testing.T) {
	m, d := decodeBoiler(t)
	props, _ := Resolve(m, d)
	for _, c := range []struct {
		prop       int
		json       string
		want, fail string
	}{
		{1, "45.5", "45.5", ""},
		{1, "60", "60", ""},
		{1, "96", "", "/x: setpoint must be from 0 to 95, got 96"},
		{1, `"hot"`, "", `/x: setpoint must be a float, got string "hot"`},
		{1, "true", "", "/x: setpoint must be a float, got bool true"},
		{0, "1", "", "/x: temperature is read-only (access Read)"},
		{2, `"heat"`, "1", ""},
		{2, "2", "2", ""},
		{2, "2.0", "2", ""},
		{2, "2.5", "", "must be an int"},
		{2, "7", "", "/x: mode must be one of off (0), heat (1), cool (2), got 7"},
		{2, `"warm"`, "", "must be one of off (0)"},
	} {
		var v Value
		if err := json.Unmarshal([]byte(c.json), &v); err != nil {
			t.Fatal(err)
		}
		got, err := props[c.prop].CheckDesired(v, "/x")
		if c.fail == "" && (err != nil || got.String() != c.want) || c.fail != "" && (err == nil || !strings.Contains(err.Error(), c.fail)) {
			t.Errorf("%s = %s: got %v, %v; want %s %s", props[c.prop].Name, c.json, got, err, c.want, c.fail)
		}
	}
}

func TestSelector(t *testing.T) {
	labels := map[string]string{"area": "hall-a", "tier": "1"}
	for text, want := range map[string]bool{
		"": true, "area=hall-a": true, "area==hall-a,tier=1": true, "area!=hall-a": false, "area": true, "!area": false,
		"area in (hall-a, hall-b)": true, "area notin (hall-b),tier": true, "other!=x": true, "other": false, "area in (x),tier": false,
	} {
		s, err := ParseSelector(text)
		if err != nil || s.Matches(labels) != want {
			t.Errorf("%q: %v, %v; want %v", text, s.Matches(labels), err, want)
		}
	}
	for _, bad := range []string{"area in (a", "a b", "=x", "area in (a) b", "a=$"} {
		if _, err := ParseSelector(bad); KindOf(err) != KindMalformed {
			t.Errorf("%q: got %v, want malformed", bad, err)
		}
	}
}

// TestFlowStyle: YAML may begin with a brace, and what was meant as JSON is read as
// nothing else.
func TestFlowStyle(t *testing.T) {
	for text, want := range map[string]string{
		`{kind: Device}`: `{"kind":"Device"}`,
		"{kind: Device, # the kind\n 'a b': [x, 1, {y: null}]}\n": `{"a b":["x",1,{"y":null}],"kind":"Device"}`,
		"{ # a comment\n  a: 1}":                                  `{"a":1}`,
		`{nullable: true, 5: five}`:                               `{"5":"five","nullable":true}`,
		"{a: 1}\n---\n{a: 2}\n":                                   `{"a":1} {"a":2}`,
		`[{kind: Device}, {kind: x}]`:                             `[{"kind":"Device"},{"kind":"x"}]`,
		`{"a": 1}`:                                                `{"a":1}`,
		`{"a": tru}`:                                              "not JSON: invalid character '}' in literal true (expecting 'e') at byte 7",
		`{"a": 1,}`:                                               "at byte 8",
		"{\"a\": 1,\n\"b\" 2}":                                    "at byte 13",
		`{"a": 1`:                                                 "not JSON: unexpected end",
		`[1, 2`:                                                   "not JSON: unexpected end",
		`{`:                                                       "not JSON: unexpected end",
		`[true, x]`:                                               "not JSON: invalid character 'x' looking for beginning of value at byte 5",
		`{"a": 1} {"a": 2}`:                                       "more than one JSON value",
		`{kind: Device`:                                           "not JSON or YAML: line 1: did not find expected ',' or '}'",
		`{kind: Device, kind: Device}`:                            "line 1: /kind: key appears twice",
	} {
		trees, err := decodeStream([]byte(text))
		var out []string
		for _, tree := range trees {
			b, _ := appendTree(nil, tree)
			out = append(out, string(b))
		}
		got := strings.Join(out, " ")
		if err != nil {
			got = err.Error()
			if KindOf(err) != KindMalformed {
				t.Errorf("%s: %v is %s", text, err, KindOf(err))
			}
		}
		if got != want && (err == nil || !strings.Contains(got, want)) {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
}

func FuzzDecodeObjects(f *testing.F) {
	f.Add([]byte(boilerYAML))
	f.Add([]byte(`{"kind":"Node","apiVersion":"v1","metadata":{"name":"a"}}`))
	f.Add([]byte("a: &a [*a, *a]"))
	files, err := filepath.Glob("testdata/workloads/*.yaml")
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
		objects, err := DecodeObjects(text)
		if err != nil {
			return
		}
		for _, o := range objects {
			out, err := json.Marshal(o)
			if err != nil {
				t.Fatalf("accepted and cannot be written: %v", err)
			}
			if _, err := DecodeObject(out); err != nil {
				t.Fatalf("accepted, written as %s, then refused: %v", out, err)
			}
		}
	})
}

// FuzzDecodePatch is about what apps publish to devices/{device}/desired and
// send as a REST patch.
func FuzzDecodePatch(f *testing.F) {
	for _, seed := range []string{`{"setpoint": 45.5, "old": null}`, `{"$id": "a", "mode": "heat"}`, `{"a": {"b": [1, 1e400]}}`, "setpoint: 60", `{"a":1,"a":2}`, `[]`} {
		f.Add([]byte(seed))
	}
	props := []ResolvedProperty{
		{Name: "setpoint", Type: TypeFloat, Access: ReadWrite, Minimum: Float(0), Maximum: Float(95)},
		{Name: "mode", Type: TypeInt, Access: ReadWrite, Enum: map[int64]string{1: "heat"}},
		{Name: "blob", Type: TypeBytes, Access: Write}, {Name: "doc", Type: TypeObject, Access: ReadWrite},
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		patch, meta, err := DecodePatch(text)
		if err != nil {
			return
		}
		for name := range meta {
			if !strings.HasPrefix(name, "$") {
				t.Fatalf("%q is no meta key", name)
			}
		}
		for name, v := range patch {
			if strings.HasPrefix(name, "$") {
				t.Fatalf("%q is a property", name)
			}
			for i := range props {
				checked, err := props[i].CheckDesired(v, "/x")
				if err != nil {
					continue
				}
				if !props[i].InRange(checked) {
					t.Fatalf("%s = %v accepted out of range", props[i].Name, checked)
				}
				again, err := checked.Fit(props[i].Type)
				if err != nil || again != checked {
					t.Fatalf("%v is not of type %s after the check: %v", checked, props[i].Type, err)
				}
			}
		}
	})
}

func TestADeadbandIsAtMostTheWholeRange(t *testing.T) {
	const model = "{apiVersion: whimbrel/v1, kind: DeviceModel, metadata: {name: m}, spec: {protocol: x, %s properties: [{name: p, type: float, minimum: 0, maximum: 9, deadband: %s}]}}"
	for text, want := range map[string]string{
		fmt.Sprintf(model, "", `"100%"`):                           "",
		fmt.Sprintf(model, "", "500"):                              "",
		fmt.Sprintf(model, "", `"101%"`):                           "/spec/properties/0/deadband: must be at most 100%, got 101%: no value moves further within minimum and maximum",
		fmt.Sprintf(model, `defaults: {deadband: "100.5%"},`, "1"): "/spec/defaults/deadband: must be at most 100%, got 100.5%",
		`{apiVersion: whimbrel/v1, kind: Device, metadata: {name: d}, spec: {model: m, properties: [{name: p, deadband: "1e9%"}]}}`: "/spec/properties/0/deadband: must be at most 100%",
	} {
		_, err := DecodeObject([]byte(text))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}
