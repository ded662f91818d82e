package mqtt

import (
	"strings"
	"testing"
)

func TestValidateTopic(t *testing.T) {
	for _, tt := range []struct {
		topic string
		want  string // part of the error, "" when valid
	}{
		{"a", ""},
		{"/", ""},
		{"a//b", ""},
		{"Straße/温度/a b", ""},
		{"$SYS/x", ""},
		{strings.Repeat("a", MaxLength), ""},
		{"", "empty"},
		{"a/+", "wildcard"},
		{"a#", "wildcard"},
		{"a\x00b", "null"},
		{"a\xffb", "UTF-8"},
		{"a\xed\xa0\x80", "UTF-8"}, // a surrogate half (section 1.5.4)
		{strings.Repeat("a", MaxLength+1), "longer"},
	} {
		check(t, tt.topic, ValidateTopic(tt.topic), tt.want)
	}
}

func TestValidateFilter(t *testing.T) {
	for _, tt := range []struct {
		filter string
		want   string
	}{
		{"#", ""},
		{"+", ""},
		{"/", ""},
		{"+/+", ""},
		{"/+", ""},
		{"a/#", ""},
		{"a/+/b/#", ""},
		{"$share/g/a", ""},
		{"$share/g/#", ""},
		{"$share/g//a", ""},
		{"$shared/a", ""}, // not a shared one
		{"", "empty"},
		{"a#", "shares its level"},
		{"a/#b", "shares its level"},
		{"a+/b", "shares its level"},
		{"++", "shares its level"},
		{"#/a", "not the last"},
		{"a/#/b", "not the last"},
		{"$share", "$share/{group}/{filter}"},
		{"$share/g", "$share/{group}/{filter}"},
		{"$share/g/", "$share/{group}/{filter}"},
		{"$share//a", "$share/{group}/{filter}"},
		{"$share/+/a", "group"},
		{"$share/g#/a", "group"},
		{"$share/g/a/#/b", "not the last"},
		{"a\x00", "null"},
	} {
		check(t, tt.filter, ValidateFilter(tt.filter), tt.want)
	}
}

func check(t *testing.T, in string, err error, want string) {
	t.Helper()
	if len(in) > 40 {
		in = in[:40] + "…"
	}
	switch {
	case want == "" && err != nil:
		t.Errorf("%q: %v", in, err)
	case want != "" && err == nil:
		t.Errorf("%q: valid, want an error with %q", in, want)
	case want != "" && !strings.Contains(err.Error(), want):
		t.Errorf("%q: error %q, want one with %q", in, err, want)
	}
}

func TestMatch(t *testing.T) {
	for _, tt := range []struct {
		filter, topic string
		want          bool
	}{
		// The examples of sections 4.7.1 and 4.7.2.
		{"sport/tennis/player1/#", "sport/tennis/player1", true},
		{"sport/tennis/player1/#", "sport/tennis/player1/ranking", true},
		{"sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true},
		{"sport/tennis/player1/#", "sport/tennis/player2", false},
		{"sport/#", "sport", true},
		{"#", "a", true},
		{"#", "/", true},
		{"sport/tennis/+", "sport/tennis/player1", true},
		{"sport/tennis/+", "sport/tennis/player1/ranking", false},
		{"sport/+", "sport", false},
		{"sport/+", "sport/", true},
		{"+/+", "/finance", true},
		{"/+", "/finance", true},
		{"+", "/finance", false},
		{"#", "$SYS/a", false},
		{"+/monitor/Clients", "$SYS/monitor/Clients", false},
		{"$SYS/#", "$SYS/a", true},
		{"$SYS/#", "$SYS", true},
		{"$SYS/monitor/+", "$SYS/monitor/Clients", true},
		{"+/+", "a", false},
		{"+", "", true}, // an empty level is a level; the name itself is not valid
		// Case and spaces count.
		{"ACCOUNTS", "Accounts", false},
		{"a b", "a b", true},
		{"a", "a/", false},
		{"a/", "a", false},
		{"a//b", "a/b", false},
		{"a/+/b", "a//b", true},
		{"a/#", "ab", false},
		{"+/#", "a", true},
		// Shared subscriptions match by the filter inside.
		{"$share/g/a/+", "a/b", true},
		{"$share/g/a/+", "b/b", false},
		{"$share/g/#", "$SYS/a", false},
		{"$share/g/#", "a", true},
		{"$share/g/$SYS/#", "$SYS/a", true},
		{"$share/g/a", "$share/g/a", false},
	} {
		if got := Match(tt.filter, tt.topic); got != tt.want {
			t.Errorf("Match(%q, %q) = %v, want %v", tt.filter, tt.topic, got, tt.want)
		}
	}
}

func TestOverlap(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"#", "#", true},
		{"#", "devices/#", true},
		{"+/x", "devices/+", true},
		{"+/x", "devices/y", false},
		{"devices/+/state", "devices/boiler-1/#", true},
		{"devices/+/state", "devices/boiler-1", false},
		{"devices/+/#", "devices/boiler-1", true},
		{"a/b/#", "a/b", true},
		{"a/b/#", "a", false},
		{"a/+/c", "+/b/+", true},
		{"a/+/c", "+/b/d", false},
		{"#", "$SYS/#", false},
		{"$SYS/#", "$SYS/+/a", true},
		{"+/a", "$SYS/a", false},
	} {
		if got := Overlap(tt.a, tt.b); got != tt.want {
			t.Errorf("Overlap(%q, %q) = %v, want %v", tt.a, tt.b, got, tt.want)
		}
		if got := Overlap(tt.b, tt.a); got != tt.want {
			t.Errorf("Overlap(%q, %q) = %v, want %v", tt.b, tt.a, got, tt.want)
		}
	}
}

func TestMatchDoesNotAllocate(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() { Match("$share/g/devices/+/properties/#", "devices/boiler-1/properties/temperature") }); n != 0 {
		t.Errorf("Match allocates %v times", n)
	}
}

// matchBySplit is section 4.7 in the plainest form there is, for the fuzz target
// to compare with.
func matchBySplit(filter, topic string) bool {
	f, n := strings.Split(filter, "/"), strings.Split(topic, "/")
	if strings.HasPrefix(topic, "$") && (f[0] == "#" || f[0] == "+") {
		return false
	}
	for i, level := range f {
		if level == "#" {
			return true
		}
		if i >= len(n) || level != "+" && level != n[i] {
			return false
		}
		if i == len(n)-1 && i == len(f)-2 && f[i+1] == "#" {
			return true
		}
	}
	return len(f) == len(n)
}

func FuzzMatch(f *testing.F) {
	f.Add("a/+/#", "a/b")
	f.Add("$share/g/a/#", "a")
	f.Add("#", "$SYS/a")
	f.Add("+", "/")
	f.Fuzz(func(t *testing.T, filter, topic string) {
		if ValidateFilter(filter) != nil || ValidateTopic(topic) != nil {
			return
		}
		if err := ValidateFilter(topic); err != nil && !strings.HasPrefix(topic, "$share") {
			t.Errorf("topic name %q is no filter: %v", topic, err)
		}
		inner := filter
		if _, in, ok := ParseShared(filter); ok {
			inner = in
		}
		if got, want := Match(filter, topic), matchBySplit(inner, topic); got != want {
			t.Errorf("Match(%q, %q) = %v, want %v", filter, topic, got, want)
		}
		if Overlap(inner, topic) != Overlap(topic, inner) {
			t.Errorf("Overlap of %q and %q depends on their order", inner, topic)
		}
	})
}
