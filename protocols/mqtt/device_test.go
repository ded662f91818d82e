package mqtt

import (
	"strings"
	"testing"
)

func TestParseTopic(t *testing.T) {
	for _, tt := range []struct {
		topic string
		want  DeviceTopic
	}{
		{"devices/boiler-1/properties/temperature", DeviceTopic{Kind: Property, Device: "boiler-1", Property: "temperature"}},
		{"devices/plant.boiler-1/properties/a.b_c-D", DeviceTopic{Kind: Property, Device: "plant.boiler-1", Property: "a.b_c-D"}},
		{"devices/boiler-1/state", DeviceTopic{Kind: State, Device: "boiler-1"}},
		{"devices/boiler-1/desired", DeviceTopic{Kind: Desired, Device: "boiler-1"}},
		{"devices/boiler-1/desired/result", DeviceTopic{Kind: Result, Device: "boiler-1"}},
		{"devices/boiler-1/writes", DeviceTopic{Kind: Writes, Device: "boiler-1"}},
		{"devices/boiler-1", DeviceTopic{}},
		{"devices//state", DeviceTopic{}},
		{"devices/boiler-1/", DeviceTopic{}},
		{"devices/boiler-1/properties", DeviceTopic{}},
		{"devices/boiler-1/properties/", DeviceTopic{}},
		{"devices/boiler-1/properties/a/b", DeviceTopic{}},
		{"devices/boiler-1/desired/", DeviceTopic{}},
		{"devices/boiler-1/state/x", DeviceTopic{}},
		{"/devices/boiler-1/state", DeviceTopic{}},
		{"Devices/boiler-1/state", DeviceTopic{}},
		{"", DeviceTopic{}},
	} {
		got := ParseTopic(tt.topic)
		if got != tt.want {
			t.Errorf("ParseTopic(%q) = %+v, want %+v", tt.topic, got, tt.want)
		}
		if got.Kind != Other && got.String() != tt.topic {
			t.Errorf("ParseTopic(%q) builds %q", tt.topic, got)
		}
	}
}

func TestLocalID(t *testing.T) {
	for _, tt := range []struct{ namespace, name, id string }{
		{"default", "boiler-1", "boiler-1"},
		{"plant-a", "boiler-1", "plant-a.boiler-1"},
		{"a", "0", "a.0"},
		{"a", "default", "a.default"},
	} {
		if got := LocalID(tt.namespace, tt.name); got != tt.id {
			t.Errorf("LocalID(%q, %q) = %q, want %q", tt.namespace, tt.name, got, tt.id)
		}
		namespace, name, err := ParseLocalID(tt.id)
		if err != nil || namespace != tt.namespace || name != tt.name {
			t.Errorf("ParseLocalID(%q) = %q, %q, %v, want %q, %q", tt.id, namespace, name, err, tt.namespace, tt.name)
		}
	}
	long := strings.Repeat("a", 64)
	for _, id := range []string{"", ".", "a.", ".a", "a.b.c", "default.a", "A", "a_b", "-a", "a-", "a b", "ä", "a/b", "+", "#", long, "a." + long} {
		if namespace, name, err := ParseLocalID(id); err == nil {
			t.Errorf("ParseLocalID(%q) = %q, %q, want an error", id, namespace, name)
		}
	}
}

func FuzzParseTopic(f *testing.F) {
	f.Add("devices/boiler-1/properties/temperature")
	f.Add("devices/boiler-1/desired/result")
	f.Add("devices/a.b/state")
	f.Fuzz(func(t *testing.T, topic string) {
		got := ParseTopic(topic)
		if got.Kind == Other {
			return
		}
		if got.String() != topic {
			t.Errorf("ParseTopic(%q) builds %q", topic, got)
		}
		if ValidateTopic(topic) == nil && !Match("devices/+/#", topic) {
			t.Errorf("%q has kind %d and is not under devices/", topic, got.Kind)
		}
		if namespace, name, err := ParseLocalID(got.Device); err == nil && LocalID(namespace, name) != got.Device {
			t.Errorf("ParseLocalID(%q) builds %q", got.Device, LocalID(namespace, name))
		}
	})
}
