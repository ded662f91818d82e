package mqtt

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// MaxLength is the longest topic name or filter in bytes: its length is sent
// in two bytes (section 1.5.4).
const MaxLength = 65535

// sharePrefix begins a shared subscription (section 4.8.2).
const sharePrefix = "$share/"

// ValidateTopic says what keeps topic from being a topic name, the address of
// one message (section 4.7).
func ValidateTopic(topic string) error {
	if err := validateString(topic); err != nil {
		return fmt.Errorf("topic name: %w", err)
	}
	if strings.ContainsAny(topic, "+#") {
		return errors.New("topic name: has a wildcard")
	}
	return nil
}

// ValidateFilter says what keeps filter from being a topic filter, which may
// have wildcards and may be shared.
func ValidateFilter(filter string) error {
	if err := validateString(filter); err != nil {
		return fmt.Errorf("topic filter: %w", err)
	}
	if strings.HasPrefix(filter, sharePrefix) || filter == "$share" {
		group, inner, ok := ParseShared(filter)
		if !ok {
			return errors.New("topic filter: a shared one is $share/{group}/{filter}")
		}
		if strings.ContainsAny(group, "+#") {
			return errors.New("topic filter: the group of a shared one has a wildcard")
		}
		filter = inner
	}
	for more := true; more; {
		var level string
		level, filter, more = strings.Cut(filter, "/")
		switch {
		case level == "#" && more:
			return errors.New("topic filter: # is not the last level")
		case level != "#" && level != "+" && strings.ContainsAny(level, "+#"):
			return errors.New("topic filter: a wildcard shares its level with other characters")
		}
	}
	return nil
}

// validateString holds what names and filters have in common (section 4.7.3).
func validateString(s string) error {
	switch {
	case s == "":
		return errors.New("is empty")
	case len(s) > MaxLength:
		return fmt.Errorf("is longer than %d bytes", MaxLength)
	case !utf8.ValidString(s):
		return errors.New("is not UTF-8")
	case strings.IndexByte(s, 0) >= 0:
		return errors.New("contains the null character")
	}
	return nil
}

// ParseShared splits the filter of a shared subscription, $share/{group}/{filter},
// into its two parts. ok is false for any other filter and when a part is empty.
func ParseShared(filter string) (group, inner string, ok bool) {
	rest, ok := strings.CutPrefix(filter, sharePrefix)
	if !ok {
		return "", "", false
	}
	group, inner, ok = strings.Cut(rest, "/")
	if !ok || group == "" || inner == "" {
		return "", "", false
	}
	return group, inner, true
}

// Match reports whether a message with that topic name is for a subscription
// with that filter. A shared filter matches what the filter inside it matches.
// Both must be valid; an invalid one has no defined answer. It does not allocate.
func Match(filter, topic string) bool {
	if _, inner, ok := ParseShared(filter); ok {
		filter = inner
	}
	return Overlap(filter, topic)
}

// Overlap reports whether some topic name matches both filters. A topic name is
// a filter too, so Overlap with one of them is Match; shared filters are not
// looked into. It does not allocate.
func Overlap(a, b string) bool {
	// Section 4.7.2: a filter that begins with a wildcard is not for topics
	// that begin with $.
	if startsWild(a) && strings.HasPrefix(b, "$") || startsWild(b) && strings.HasPrefix(a, "$") {
		return false
	}
	for {
		la, resta, morea := strings.Cut(a, "/")
		lb, restb, moreb := strings.Cut(b, "/")
		switch {
		case la == "#" || lb == "#":
			return true
		case la != lb && la != "+" && lb != "+":
			return false
		case !morea && !moreb:
			return true
		case !morea:
			// # stands for its parent level too (section 4.7.1.2).
			return restb == "#"
		case !moreb:
			return resta == "#"
		}
		a, b = resta, restb
	}
}

func startsWild(filter string) bool {
	return strings.HasPrefix(filter, "#") || strings.HasPrefix(filter, "+")
}
