// Package hostport tells whether a URL's host can be one, so that a slip of the
// keyboard is found when it is written down and not when it is looked up.
package hostport

import (
	"net/netip"
	"strings"
)

// Valid reports whether host, as url.URL.Hostname gives it, is an IP address or
// could be a name: labels of letters, digits, '-' and '_' with dots between them.
// Letters are those of any language.
func Valid(host string) bool {
	if strings.ContainsAny(host, ":%") {
		_, err := netip.ParseAddr(host)
		return err == nil
	}
	host = strings.TrimSuffix(host, ".")
	if host == "" || len(host) > 253 {
		return false
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, r := range label {
			switch {
			case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_', r > 0x9F && r != 0xFFFD && r != 0xA0 && r != 0xAD:
			default:
				return false
			}
		}
	}
	return true
}
