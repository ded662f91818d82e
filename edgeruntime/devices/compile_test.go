package devices

import (
	"fmt"
	"log/slog"
	"testing"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/store"
	"github.com/whimbrel-edge/whimbrel/mappers"
)

// wanted is what a hub wants of n devices of one model, which has 20 properties.
func wanted(n int) (items []store.Item) {
	model := `{"apiVersion":"whimbrel/v1","kind":"DeviceModel","metadata":{"name":"m"},"spec":{"protocol":"fake","properties":[`
	for i := range 20 {
		if i > 0 {
			model += ","
		}
		model += fmt.Sprintf(`{"name":"p%d","type":"float","access":"ReadWrite","every":"1h","address":{"id":"p%d"}}`, i, i)
	}
	items = append(items, store.Item{Kind: store.KindDeviceModel, Namespace: "default", Name: "m", UID: "m", JSON: []byte(model + `]}}`)})
	for i := range n {
		name := fmt.Sprintf("d%04d", i)
		items = append(items,
			store.Item{Kind: store.KindDevice, Namespace: "default", Name: name, UID: "uid-" + name, Assignment: 1,
				JSON: []byte(`{"apiVersion":"whimbrel/v1","kind":"Device","metadata":{"name":"` + name + `"},"spec":{"model":"m","node":"n","connection":{"id":"` + name + `"}}}`)},
			store.Item{Kind: store.KindDesired, Namespace: "default", Name: name, UID: "uid-" + name, JSON: []byte(`{"version":1}`)})
	}
	return items
}

// TestCompileKeepsDevices: a device stays the same one until something that it was made
// from changes, and then is as if it had been made from the start.
func TestCompileKeepsDevices(t *testing.T) {
	drivers := map[string]mappers.Driver{"fake": newFakeDriver()}
	log := slog.New(slog.DiscardHandler)
	withSecret := func(items []store.Item, value string) []store.Item {
		items[1].JSON = []byte(`{"metadata":{"name":"d0000"},"spec":{"model":"m","node":"n","connection":{"id":"d0000","passwordFrom":{"secret":"s","key":"k"}}}}`)
		if value != "" {
			items = append(items, store.Item{Kind: store.KindSecret, Namespace: "default", Name: "s", UID: "s", JSON: []byte(`{"metadata":{"name":"s"},"data":{"k":"` + value + `"}}`)})
		}
		return items
	}
	set := func(n int, edit func(*store.Item)) []store.Item {
		items := wanted(3)
		edit(&items[n])
		return items
	}
	var c compiler
	before := c.compile(wanted(3), drivers, log)
	for _, step := range []struct {
		name    string
		items   []store.Item
		changed string
	}{
		{"the same", wanted(3), ""},
		{"a device", set(3, func(i *store.Item) { i.JSON = []byte(string(i.JSON[:len(i.JSON)-2]) + `,"locked":true}}`) }), "d0001"},
		{"back", wanted(3), "d0001"},
		{"a desired value", set(6, func(i *store.Item) { i.JSON = []byte(`{"version":2}`) }), "d0002"},
		{"another assignment", set(5, func(i *store.Item) { i.Assignment = 2 }), "d0002"}, // and desired, back
		{"made anew", set(1, func(i *store.Item) { i.UID = "other" }), "d0000 d0002"},
		{"a secret that is not there", withSecret(wanted(3), ""), "d0000"},
		{"a secret", withSecret(wanted(3), "YQ=="), "d0000"},
		{"the same secret", withSecret(wanted(3), "YQ=="), ""},
		{"another secret", withSecret(wanted(3), "Yg=="), "d0000"},
		{"the model", set(0, func(i *store.Item) {
			i.JSON = []byte(`{"metadata":{"name":"m"},"spec":{"protocol":"fake","properties":[{"name":"p","type":"int"}]}}`)
		}), "d0000 d0001 d0002"},
		{"no model", wanted(3)[1:], "d0000 d0001 d0002"},
		{"what cannot be read", set(1, func(i *store.Item) { i.JSON = []byte(`{`) }), "d0000 d0001 d0002"},
		{"one less", wanted(2), "d0000"},
		{"one more", wanted(3), "d0002"},
	} {
		after := c.compile(step.items, drivers, log)
		changed := ""
		fresh := (&compiler{}).compile(step.items, drivers, log)
		for _, id := range []string{"d0000", "d0001", "d0002"} {
			if after[id] != before[id] && after[id] != nil {
				changed += " " + id
			}
			if d, f := after[id], fresh[id]; (d == nil) != (f == nil) || d != nil && (d.key != f.key || d.problem != f.problem || d.locked != f.locked || !d.desired.equal(f.desired) || d.driver != f.driver) {
				t.Errorf("%s: %s is not what it would be from the start: %+v, %+v", step.name, id, d, f)
			}
		}
		if changed != "" {
			changed = changed[1:]
		}
		if changed != step.changed {
			t.Errorf("%s: changed are %q, want %q", step.name, changed, step.changed)
		}
		before = after
	}
	drivers = map[string]mappers.Driver{"fake": newFakeDriver()}
	c.forget()
	if after := c.compile(wanted(3), drivers, log); after["d0000"].driver != drivers["fake"] {
		t.Error("it is served by the driver that was replaced")
	}
}

// BenchmarkApply is what one change costs an edge of 2,000 devices, and all of them when
// they come one by one.
func BenchmarkApply(b *testing.B) {
	const n = 2000
	log, drivers := slog.New(slog.DiscardHandler), map[string]mappers.Driver{"fake": newFakeDriver()}
	all := wanted(n)
	b.Run("one of 2000 changes", func(b *testing.B) {
		m := New(Config{Drivers: drivers, Log: log})
		m.Apply(all)
		for i := 0; b.Loop(); i++ {
			items := append([]store.Item{}, all...)
			items[2+i%n*2].JSON = fmt.Appendf(nil, `{"version":%d}`, i+2)
			m.Apply(items)
		}
	})
	b.Run("2000 one by one", func(b *testing.B) {
		for b.Loop() {
			m := New(Config{Drivers: drivers, Log: log})
			for i := range n {
				m.Apply(all[:3+2*i])
			}
		}
	})
}
