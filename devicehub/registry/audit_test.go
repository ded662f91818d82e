package registry

import (
	"slices"
	"testing"
)

func TestChangedFields(t *testing.T) {
	for _, c := range []struct {
		before, after string
		want          []string
	}{
		{`{"a":1}`, `{"a":1}`, nil},
		{`{"a":1,"b":{"c":1,"d":[1]}}`, `{"a":2,"b":{"c":1,"d":[2]}}`, []string{"/a", "/b/d"}},
		{`{"spec":{"x":1}}`, `{"spec":{"y/z~":1}}`, []string{"/spec/x", "/spec/y~1z~0"}},
		{`{"spec":{"x":null}}`, `{"spec":{"x":{}}}`, []string{"/spec/x"}},
		{`{"spec":{"x":1}}`, `{}`, []string{"/spec"}},
		{`1`, `2`, []string{""}},
	} {
		if have := changedFields([]byte(c.before), []byte(c.after)); !slices.Equal(have, c.want) {
			t.Errorf("%s to %s: %q, want %q", c.before, c.after, have, c.want)
		}
	}
}
