package broker

import (
	"strings"

	"github.com/whimbrel-edge/whimbrel/protocols/mqtt"
)

// An Authenticator decides who a connecting client is.
type Authenticator interface {
	// Authenticate returns the identity that username and password prove, or
	// false. It is called for every connection, from many goroutines.
	Authenticate(username, password string) (Identity, bool)
}

// An Identity is who a client is and what it may do.
type Identity struct {
	// Name stands in logs and behind desired values. A session belongs to a
	// name: another one cannot take it over by its client id.
	Name string
	// Admin may read everything and publish whatever is not the edge's own.
	Admin bool
	// Rules allow; what none of them and not Access allows is denied.
	Rules []Rule
	// Access allows, too, and is asked each time anew; nil: Rules alone do.
	Access Access
	// Current reports whether what the identity was proved with still holds: once
	// it does not, the connection is ended within recheck, and its session with it.
	// It is called from Run, one connection after the other. nil: it always holds.
	Current func() bool
}

// Access is what an app may do, by what the devices are called and labelled now.
// Its methods are called for each message, from many goroutines.
type Access interface {
	// Device reports whether the app may read, or write, a property of the device
	// with that local id; property "" asks whether any at all.
	Device(device, property string, write bool) bool
	// AnyDevice reports whether there are grants about devices, whichever.
	AnyDevice(write bool) bool
	// Topic reports whether the app may publish to a topic of the apps' own, or read
	// one of those that match a filter.
	Topic(filter string, publish bool) bool
}

// A Rule allows publishing to, or reading, the topics that match a filter. A
// filter that begins with a wildcard is for the apps' own topics: it does not
// reach into devices/, mappers/, whimbrel/ and $ topics, as # does not reach $
// topics in MQTT itself.
type Rule struct {
	Filter             string
	Publish, Subscribe bool
}

// anonymous is who connects without a name where that is allowed.
var anonymous = Identity{Name: "anonymous", Rules: []Rule{
	{Filter: "devices/#", Subscribe: true},
	{Filter: "devices/+/desired", Publish: true},
	{Filter: "#", Publish: true, Subscribe: true},
}}

// mayPublish reports whether id may publish to a topic name.
func (id Identity) mayPublish(topic string) bool {
	if mqtt.ValidateTopic(topic) != nil {
		return false
	}
	speech := isMapperSpeech(topic)
	if reserved(topic) && mqtt.ParseTopic(topic).Kind != mqtt.Desired && !speech {
		return false
	}
	if id.Admin {
		return !speech // a mapper is who was made one
	}
	for _, r := range id.Rules {
		if r.Publish && r.reaches(topic) {
			return true
		}
	}
	if id.Access == nil {
		return false
	}
	if t := mqtt.ParseTopic(topic); t.Kind == mqtt.Desired {
		return id.Access.Device(t.Device, "", true) // which properties, applyDesired looks at
	}
	return !reserved(topic) && id.Access.Topic(topic, true)
}

// mayWrite reports whether id, who may publish to the desired topic of a device,
// may set one property of it.
func (id Identity) mayWrite(device, property string) bool {
	if id.Admin || id.Access == nil || id.Access.Device(device, property, true) {
		return true
	}
	for _, r := range id.Rules {
		if r.Publish && r.reaches(mqtt.DesiredTopic(device)) {
			return true
		}
	}
	return false
}

// mayRead reports whether id may read a topic or, given a filter, any topic that
// matches it.
func (id Identity) mayRead(filter string) bool {
	if mqtt.ValidateFilter(filter) != nil {
		return false
	}
	if _, inner, ok := mqtt.ParseShared(filter); ok {
		filter = inner
	}
	if id.Admin {
		return true
	}
	for _, r := range id.Rules {
		if r.Subscribe && r.reaches(filter) {
			return true
		}
	}
	return id.Access != nil && accessReaches(id.Access, filter)
}

// accessReaches reports whether a may read a topic, or given a filter one of those
// that match it. A filter that names no device is let through where there is any
// to be read: what is delivered is asked for again, by its topic.
func accessReaches(a Access, filter string) bool {
	first, rest, _ := strings.Cut(filter, "/")
	switch {
	case first == "+" || first == "#":
		return a.Topic(filter, false) || a.AnyDevice(false) || a.AnyDevice(true)
	case first != "devices":
		return !reserved(filter) && a.Topic(filter, false)
	}
	device, form, _ := strings.Cut(rest, "/")
	if device == "+" || device == "#" {
		return a.AnyDevice(false) || a.AnyDevice(true)
	}
	kind, property, _ := strings.Cut(form, "/")
	if kind == "properties" && property != "" && property != "#" && property != "+" {
		return a.Device(device, property, false)
	}
	if kind == "properties" {
		return a.Device(device, "", false)
	}
	return a.Device(device, "", false) || a.Device(device, "", true)
}

// reaches reports whether r is about a topic that matches filter.
func (r Rule) reaches(filter string) bool {
	wild := strings.HasPrefix(r.Filter, "#") || strings.HasPrefix(r.Filter, "+")
	return !(wild && reserved(filter)) && mqtt.Overlap(r.Filter, filter)
}

// isMapperSpeech reports whether mappers publish to that topic.
func isMapperSpeech(topic string) bool {
	_, kind, ok := mqtt.ParseMapperTopic(topic)
	return ok && kind.FromMapper()
}

// isMapperBye reports whether topic is where a mapper says that it stops: also as
// a last will, although the broker tells of the end of its connection anyway.
func isMapperBye(topic string) bool {
	_, kind, ok := mqtt.ParseMapperTopic(topic)
	return ok && kind == mqtt.MapperBye
}

// reserved reports whether topic, or every topic that matches a filter, is one
// that the edge keeps for itself.
func reserved(topic string) bool {
	first, _, _ := strings.Cut(topic, "/")
	switch first {
	case "devices", "mappers", "whimbrel":
		return true
	}
	return strings.HasPrefix(first, "$")
}
