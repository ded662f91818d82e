package models

import (
	"fmt"
	"strings"
	"testing"
)

func TestModelOf(t *testing.T) {
	f := func(path, note string, p *Property) Found {
		return Found{Path: strings.Split(path, "/"), Note: note, Property: p}
	}
	p := &Property{Type: TypeInt, Address: []byte(`{}`)}
	long := strings.Repeat("l", 70)
	m, notes := ModelOf("plc", "opcua", []Found{f("press/temp", "", p), f("oven/temp", "", p), f("press/speed", "", p), f("press/Größe (mm)", "", p),
		f("a/b", "", p), f("a/b", "", p), f("a/"+long, "", p), f("a/"+long, "", p), f("press/matrix", "has two dimensions", nil), {Note: "cut"}, f("a/---", "", p)})
	var names []string
	for _, p := range m.Spec.Properties {
		names = append(names, p.Name)
		if !propertyName.MatchString(p.Name) {
			t.Errorf("%q is no name", p.Name)
		}
	}
	l := strings.Repeat("l", 63)
	want := []string{"press.temp", "oven.temp", "speed", "Gr__e__mm_", "a.b", "a.b-2", l, l[:61] + "-2", "x"}
	if fmt.Sprint(names) != fmt.Sprint(want) {
		t.Errorf("names %v, want %v", names, want)
	}
	if fmt.Sprint(notes) != "[press/matrix: has two dimensions cut]" {
		t.Errorf("notes %q", notes)
	}
}
