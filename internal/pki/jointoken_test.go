package pki

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
)

func TestJoinToken(t *testing.T) {
	ca := newCA(t)
	token := NewJoinToken(ca.Hash())
	text := token.Encode()
	if !regexp.MustCompile(`^wt1\.[0-9a-f]{64}\.[A-Za-z0-9_-]{43}$`).MatchString(text) {
		t.Fatalf("encoded as %q", text)
	}
	for _, s := range []string{text, " " + text + "\r\n"} {
		if have, err := ParseJoinToken(s); err != nil || have != token || have.SecretHash() != token.SecretHash() {
			t.Errorf("%q: %v", s, err)
		}
	}
	if NewJoinToken(ca.Hash()).SecretHash() == token.SecretHash() {
		t.Error("two tokens share a secret")
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		if s := fmt.Sprintf(verb, token); s != "(join token)" && s != `"(join token)"` {
			t.Errorf("%s prints %s", verb, s)
		}
	}

	parts := strings.Split(text, ".")
	for _, s := range []string{
		"", "wt1", text + ".x", "wt2." + parts[1] + "." + parts[2], "wt1." + parts[1][1:] + "." + parts[2],
		"wt1." + parts[1] + "." + parts[2][1:], "wt1." + parts[1] + "." + parts[2] + "=", "wt1..", text[:40] + " " + text[40:], text[:80] + "\n" + text[80:],
		"wt1." + strings.Repeat("g", 64) + "." + parts[2],
	} {
		if _, err := ParseJoinToken(s); !errors.Is(err, ErrJoinToken) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func FuzzParseJoinToken(f *testing.F) {
	f.Add(NewJoinToken("sha256:" + strings.Repeat("0a", 32)).Encode())
	f.Add("wt1..")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := ParseJoinToken(text)
		if err != nil {
			return
		}
		if again, err := ParseJoinToken(token.Encode()); err != nil || again != token {
			t.Errorf("%q reads as another token after Encode: %v", text, err)
		}
		// Upper-case hash digits aside there is one text for one token.
		if !strings.EqualFold(strings.TrimSpace(text), token.Encode()) {
			t.Errorf("%q is read as %q", text, token.Encode())
		}
	})
}
