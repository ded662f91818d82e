package models

import (
	"maps"
	"slices"
	"strings"
)

// Selector chooses objects by their labels, in Kubernetes' syntax. The zero
// Selector matches everything.
type Selector struct{ terms []selectorTerm }

type selectorTerm struct {
	key    string
	negate bool
	exists bool     // no values: the key is there
	values []string // the key's value is one of these
}

// ParseSelector parses terms joined by commas: "a", "!a", "a=b", "a==b",
// "a!=b", "a in (b,c)", "a notin (b,c)".
func ParseSelector(text string) (Selector, error) {
	var s Selector
	rest := strings.TrimSpace(text)
	for rest != "" {
		var term string
		if i := strings.IndexAny(rest, ",("); i >= 0 && rest[i] == '(' {
			end := strings.IndexByte(rest, ')')
			if end < 0 {
				return s, Errorf(KindMalformed, "label selector %q: '(' without ')'", text)
			}
			term, rest = rest[:end+1], strings.TrimSpace(rest[end+1:])
			if rest != "" {
				if rest[0] != ',' {
					return s, Errorf(KindMalformed, "label selector %q: expected ',' after ')'", text)
				}
				rest = rest[1:]
			}
		} else {
			term, rest, _ = strings.Cut(rest, ",")
		}
		t, msg := parseTerm(strings.TrimSpace(term))
		if msg != "" {
			return s, Errorf(KindMalformed, "label selector %q: %s", text, msg)
		}
		s.terms = append(s.terms, t)
		rest = strings.TrimSpace(rest)
	}
	return s, nil
}

func parseTerm(term string) (t selectorTerm, msg string) {
	if open := strings.IndexByte(term, '('); open >= 0 {
		words := strings.Fields(term[:open])
		if len(words) != 2 || words[1] != "in" && words[1] != "notin" {
			return t, "expected 'key in (a,b)' or 'key notin (a,b)'"
		}
		t.key, t.negate = words[0], words[1] == "notin"
		for v := range strings.SplitSeq(strings.TrimSuffix(term[open+1:], ")"), ",") {
			t.values = append(t.values, strings.TrimSpace(v))
		}
	} else if k, v, ok := strings.Cut(term, "!="); ok {
		t = selectorTerm{key: k, negate: true, values: []string{v}}
	} else if k, v, ok := strings.Cut(term, "=="); ok {
		t = selectorTerm{key: k, values: []string{v}}
	} else if k, v, ok := strings.Cut(term, "="); ok {
		t = selectorTerm{key: k, values: []string{v}}
	} else if k, ok := strings.CutPrefix(term, "!"); ok {
		t = selectorTerm{key: k, negate: true, exists: true}
	} else {
		t = selectorTerm{key: term, exists: true}
	}
	t.key = strings.TrimSpace(t.key)
	for i := range t.values {
		t.values[i] = strings.TrimSpace(t.values[i])
		if !labelValue.MatchString(t.values[i]) {
			return t, "bad label value " + quoteShort(t.values[i])
		}
	}
	return t, checkLabelKey(t.key)
}

// Empty reports whether the selector matches everything.
func (s Selector) Empty() bool { return len(s.terms) == 0 }

// Matches reports whether labels satisfy every term. As in Kubernetes, "a!=b"
// and "a notin (b)" hold where the key is absent.
func (s Selector) Matches(labels map[string]string) bool {
	for _, t := range s.terms {
		v, has := labels[t.key]
		holds := has
		if !t.exists {
			holds = has && slices.Contains(t.values, v)
		}
		if holds == t.negate {
			return false
		}
	}
	return true
}

func sortedKeys[V any](m map[string]V) []string {
	return slices.Sorted(maps.Keys(m))
}
