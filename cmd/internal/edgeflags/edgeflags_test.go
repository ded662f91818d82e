package edgeflags

import (
	"maps"
	"testing"
)

func TestParseBytes(t *testing.T) {
	for text, want := range map[string]int64{"1": 1, "1000": 1000, "500MB": 500e6, "1GiB": 1 << 30, "1.5 KiB": 1536, "2kB": 2000, "64 KiB": 65536} {
		if got, err := parseBytes(text); err != nil || got != want {
			t.Errorf("%q: %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "x", "1 XB", "-1", "0", "0.1", "1e30GB", "MB", "NaN", "1GB2"} {
		if got, err := parseBytes(text); err == nil {
			t.Errorf("%q is %d", text, got)
		}
	}
}

func TestParseLabels(t *testing.T) {
	for text, want := range map[string]map[string]string{"": {}, "a=b": {"a": "b"}, " a=b , c= ,": {"a": "b", "c": ""}, "x/y=1=2": {"x/y": "1=2"}} {
		if got, err := parseLabels(text); err != nil || !maps.Equal(got, want) {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"a", "=b", "a=1,a=2"} {
		if got, err := parseLabels(text); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
}
