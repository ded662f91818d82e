package ingest

import (
	"fmt"
	"testing"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
)

// TestDevicesShareNamings: the ids of series are found by any order of properties,
// devices of the same properties share their names, and names that no device has
// any more are forgotten.
func TestDevicesShareNamings(t *testing.T) {
	g := New(Config{})
	next := int64(0)
	want := map[store.SeriesKey]int64{}
	add := func(device string, properties ...string) {
		var keys []store.SeriesKey
		var ids []int64
		for _, p := range properties {
			next++
			key := store.SeriesKey{DeviceUID: device, Assignment: 1, Property: p}
			keys, ids, want[key] = append(keys, key), append(ids, next), next
		}
		g.found(keys, ids)
	}
	of := func(device string) *known { return g.knownOf(edgelink.DeviceRef{UID: device, Assignment: 1}) }
	add("d0", "a", "b", "c")
	add("d1", "a", "b", "c")
	add("d2", "a")
	add("d2", "b")
	if of("d0").naming != of("d1").naming || of("d0").naming == of("d2").naming || len(g.namings) != 2 {
		t.Errorf("namings %v", g.namings)
	}
	add("d2", "c")
	add("d1", "d")
	if of("d0").naming != of("d2").naming || len(g.namings) != 2 {
		t.Errorf("namings %v", g.namings)
	}
	for key, id := range want {
		for range 2 {
			if got, ok := of(key.DeviceUID).id(key.Property); !ok || got != id {
				t.Errorf("%v is %d %v, want %d", key, got, ok, id)
			}
		}
	}
	if _, ok := of("d0").id("d"); ok {
		t.Error("d0 has got a property of d1")
	}
	// One by one, as properties that seldom change come.
	for i := range 1000 {
		add("slow", fmt.Sprint("p", i))
	}
	if len(g.namings) != 3 || len(of("slow").names) != 1000 {
		t.Errorf("%d namings after a thousand properties came one by one", len(g.namings))
	}
}
