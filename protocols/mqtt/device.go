package mqtt

import (
	"fmt"
	"strings"
)

// DefaultNamespace is the namespace that a local id leaves out.
const DefaultNamespace = "default"

// Kind tells which of Whimbrel's topics a topic is.
type Kind int

// The topics of a device, in the order of their forms below.
const (
	Other    Kind = iota // none of them
	Property             // devices/{device}/properties/{prop}
	State                // devices/{device}/state
	Desired              // devices/{device}/desired
	Result               // devices/{device}/desired/result
	Writes               // devices/{device}/writes
)

// A DeviceTopic is a topic of a device, taken apart.
type DeviceTopic struct {
	Kind     Kind
	Device   string // the local id, as it stands in the topic; see ParseLocalID
	Property string // for Kind Property
}

// PropertyTopic is where a property's reported value is published, retained.
func PropertyTopic(device, prop string) string { return "devices/" + device + "/properties/" + prop }

// StateTopic is where a device's state is published, retained.
func StateTopic(device string) string { return "devices/" + device + "/state" }

// DesiredTopic is where apps publish what they want of a device.
func DesiredTopic(device string) string { return "devices/" + device + "/desired" }

// ResultTopic is where the answer to DesiredTopic is published.
func ResultTopic(device string) string { return "devices/" + device + "/desired/result" }

// WritesTopic is where each change of a write's state is published.
func WritesTopic(device string) string { return "devices/" + device + "/writes" }

// String is the topic again; "" for Kind Other.
func (t DeviceTopic) String() string {
	switch t.Kind {
	case Property:
		return PropertyTopic(t.Device, t.Property)
	case State:
		return StateTopic(t.Device)
	case Desired:
		return DesiredTopic(t.Device)
	case Result:
		return ResultTopic(t.Device)
	case Writes:
		return WritesTopic(t.Device)
	default:
		return ""
	}
}

// ParseTopic takes a topic name apart. Any other topic than a device's, and one
// with an empty part, has Kind Other. Whether there is such a device, or could
// be, is not looked at.
func ParseTopic(topic string) DeviceTopic {
	rest, ok := strings.CutPrefix(topic, "devices/")
	if !ok {
		return DeviceTopic{}
	}
	device, form, ok := strings.Cut(rest, "/")
	if !ok || device == "" {
		return DeviceTopic{}
	}
	switch form {
	case "state":
		return DeviceTopic{Kind: State, Device: device}
	case "desired":
		return DeviceTopic{Kind: Desired, Device: device}
	case "desired/result":
		return DeviceTopic{Kind: Result, Device: device}
	case "writes":
		return DeviceTopic{Kind: Writes, Device: device}
	}
	prop, ok := strings.CutPrefix(form, "properties/")
	if !ok || prop == "" || strings.Contains(prop, "/") {
		return DeviceTopic{}
	}
	return DeviceTopic{Kind: Property, Device: device, Property: prop}
}

// LocalID is what a device is called in topics and local paths: its name, with
// the namespace and a dot before it when that is not the default one.
func LocalID(namespace, name string) string {
	if namespace == DefaultNamespace {
		return name
	}
	return namespace + "." + name
}

// ParseLocalID is the inverse of LocalID. Namespaces and device names are RFC
// 1123 labels, so an id has at most one dot. "default.x" is refused: a device
// has one id.
func ParseLocalID(id string) (namespace, name string, err error) {
	namespace, name, dotted := strings.Cut(id, ".")
	if !dotted {
		namespace, name = DefaultNamespace, id
	}
	if !isLabel(namespace) || !isLabel(name) {
		return "", "", fmt.Errorf("device id %q: want {name} or {namespace}.{name}, both of a-z, 0-9 and - (63 at most, no - at either end)", id)
	}
	if dotted && namespace == DefaultNamespace {
		return "", "", fmt.Errorf("device id %q: a device of namespace %s is called by its name alone", id, DefaultNamespace)
	}
	return namespace, name, nil
}

// isLabel reports whether s is an RFC 1123 label in lower case.
func isLabel(s string) bool {
	if len(s) == 0 || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}
