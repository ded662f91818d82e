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
	// Rules allow; what none of them allows is denied.
	Rules []Rule
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
	return false
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
