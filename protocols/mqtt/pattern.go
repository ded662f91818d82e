package mqtt

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Pattern is where to publish what was published elsewhere: a topic name in which
// {topic}, {node}, {device} and {property} stand for a message's, and {#} for the
// levels of its topic that the # of the filter which took it stood for.
type Pattern struct {
	Topic  string
	Filter string // that took the message, "" for none
}

// Origin is what a Pattern is filled in with.
type Origin struct{ Topic, Node, Device, Property string }

// Fill returns the topic for a message. It is never one of Whimbrel's own.
func (p Pattern) Fill(o Origin) (string, error) {
	topic := strings.NewReplacer("{topic}", o.Topic, "{#}", p.rest(o.Topic), "{node}", o.Node, "{device}", o.Device, "{property}", o.Property).Replace(p.Topic)
	if err := ValidateTopic(topic); err != nil {
		return "", fmt.Errorf("topic %q: %w", topic, err)
	}
	if Reserved(topic) {
		return "", fmt.Errorf("topic %q is not for routes to publish on: devices/, mappers/, whimbrel/ and $ topics have their own ways in", topic)
	}
	return topic, nil
}

func (p Pattern) rest(topic string) string {
	prefix, ok := strings.CutSuffix(p.Filter, "#")
	if !ok {
		return topic
	}
	for range strings.Count(prefix, "/") {
		_, topic, _ = strings.Cut(topic, "/")
	}
	return topic
}

// placeholder is what looks as if it were to be filled in.
var placeholder = regexp.MustCompile(`\{[^{}/]*\}`)

// Check says what is wrong with a pattern whatever it is filled in with. has are the
// placeholders that messages have something for.
func (p Pattern) Check(has ...string) error {
	for _, name := range placeholder.FindAllString(p.Topic, -1) {
		if !slices.Contains(has, name) {
			return fmt.Errorf("topic %q: %s is nothing that messages of this source have; they have %s", p.Topic, name, strings.Join(has, ", "))
		}
	}
	_, err := p.Fill(Origin{Topic: "t", Node: "n", Device: "d", Property: "p"})
	return err
}

// Reserved reports whether a topic, or every topic that a filter matches, is one
// of Whimbrel's own or a broker's.
func Reserved(topic string) bool {
	first, _, _ := strings.Cut(topic, "/")
	return first == "devices" || first == "mappers" || first == "whimbrel" || strings.HasPrefix(first, "$")
}
