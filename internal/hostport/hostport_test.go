package hostport

import (
	"strings"
	"testing"
)

func TestValid(t *testing.T) {
	for host, want := range map[string]bool{
		"plc": true, "plc.example": true, "plc-1.hall_a.example.": true, "192.0.2.1": true, "::1": true, "fe80::1%eth0": true, "steuerung-süd": true,
		"": false, ".": false, "a..b": false, "a,b": false, "a b": false, "-a": false, "a-": false, "a\x00": false, "h/1": false, ":::": false, "1::2::3": false,
		strings.Repeat("a", 64): false, strings.Repeat("a.", 127) + "a": false, strings.Repeat("a", 63): true,
	} {
		if got := Valid(host); got != want {
			t.Errorf("%q: %v, want %v", host, got, want)
		}
	}
}
