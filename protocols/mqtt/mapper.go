package mqtt

import "strings"

// MapperTopicKind is the last level of mappers/{mapper}/{kind}.
type MapperTopicKind string

// What a mapper in a process of its own publishes.
const (
	MapperAnnounce  MapperTopicKind = "announce"  // who it is and what it accepts
	MapperHeartbeat MapperTopicKind = "heartbeat" // it lives
	MapperBatch     MapperTopicKind = "batch"     // what it read
	MapperState     MapperTopicKind = "state"     // how a device of its is doing
	MapperAnswer    MapperTopicKind = "answer"    // to read and write
	MapperBye       MapperTopicKind = "bye"       // it stops
)

// What the edge publishes to it.
const (
	MapperWelcome MapperTopicKind = "welcome" // the answer to announce
	MapperDevices MapperTopicKind = "devices" // a device that it is to serve, or no longer
	MapperRead    MapperTopicKind = "read"    // read now
	MapperWrite   MapperTopicKind = "write"
	MapperProblem MapperTopicKind = "problem" // what was wrong with a message of the mapper's
)

// FromMapper reports whether mappers publish it, and not the edge.
func (k MapperTopicKind) FromMapper() bool {
	switch k {
	case MapperAnnounce, MapperHeartbeat, MapperBatch, MapperState, MapperAnswer, MapperBye:
		return true
	}
	return false
}

// MapperTopic is mappers/{mapper}/{kind}.
func MapperTopic(mapper string, kind MapperTopicKind) string {
	return "mappers/" + mapper + "/" + string(kind)
}

// ParseMapperTopic is the inverse of MapperTopic; ok is false for a topic of
// another form. Whether there is such a kind is not looked at.
func ParseMapperTopic(topic string) (mapper string, kind MapperTopicKind, ok bool) {
	rest, ok := strings.CutPrefix(topic, "mappers/")
	if !ok {
		return "", "", false
	}
	mapper, leaf, ok := strings.Cut(rest, "/")
	if !ok || mapper == "" || leaf == "" || strings.Contains(leaf, "/") {
		return "", "", false
	}
	return mapper, MapperTopicKind(leaf), true
}
