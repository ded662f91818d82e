package serial

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
	"unicode/utf8"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
	wire "github.com/whimbrel-edge/whimbrel/protocols/serial"
)

// address is a property's address as users write it (address.schema.json).
type address struct {
	Read   *string `json:"read"`
	Match  *string `json:"match"`
	Write  *string `json:"write"`
	Expect *string `json:"expect"`
}

// maxText is how many characters a read, match, write or expect has at most.
const maxText = 1024

// placeholder is where a value goes in a write.
const placeholder = "{value}"

// checker collects what is wrong with a document, with pointers from its root.
type checker struct{ mappers.Checker }

// compile checks a property's address and makes a point of it.
func (c *checker) compile(p mappers.Point, t target) (pt point) {
	pt = point{property: p.Property, kind: p.Type, framing: t.framing}
	switch p.Type {
	case models.TypeObject, models.TypeArray:
		c.Fail("", "serial has no values of type %s: use bool, int, float, string or bytes", p.Type)
		return pt
	}
	if len(p.Address) == 0 {
		c.Fail("", "is required: read, match or write")
		return pt
	}
	var a address
	if !c.Decode(p.Address, &a) {
		return pt
	}
	if p.Access.Readable() {
		c.reading(&pt, a, t.listen)
	} else {
		c.absent("/read", a.Read, p.Access)
		c.absent("/match", a.Match, p.Access)
	}
	if p.Access.Writable() {
		c.writing(&pt, a)
	} else {
		c.absent("/write", a.Write, p.Access)
		c.absent("/expect", a.Expect, p.Access)
	}
	return pt
}

// absent refuses a field that would mean nothing.
func (c *checker) absent(field string, given *string, access models.Access) {
	if given != nil {
		c.Fail(field, "must be left out: the property's access is %s", access)
	}
}

// reading finds how the property is read.
func (c *checker) reading(pt *point, a address, listen bool) {
	switch {
	case listen && a.Read != nil:
		c.Fail("/read", "must be left out: the device talks unasked (listen in its connection)")
	case listen && a.Match == nil:
		c.Fail("/match", "is required where the device talks unasked (listen in its connection): it tells which messages are the property's")
	case !listen && a.Read == nil:
		c.Fail("/read", "is required to read the property; a device that talks unasked has listen: true in its connection")
	case !listen:
		pt.ask = c.bytes("/read", *a.Read, pt.framing)
		pt.asked = *a.Read
	}
	if a.Match == nil {
		return
	}
	if re := c.expression("/match", *a.Match, ""); re != nil {
		if re.NumSubexp() == 0 {
			c.Fail("/match", "has no group: put the part that is the value in parentheses, such as TEMP=([-0-9.]+)")
		}
		pt.match = re
	}
}

// writing finds how the property is written.
func (c *checker) writing(pt *point, a address) {
	switch {
	case a.Write == nil:
		c.Fail("/write", "is required to write the property, such as SP {value}")
	case !strings.Contains(*a.Write, placeholder):
		c.Fail("/write", "must hold %s, the place of the new value, got %q", placeholder, *a.Write)
	default:
		for i, part := range strings.Split(*a.Write, placeholder) {
			b := c.bytes("/write", part, pt.framing)
			if i == 0 {
				b = append([]byte{}, b...) // not nil: the point is writable
			}
			pt.write = append(pt.write, b)
		}
	}
	if a.Expect != nil {
		pt.expect = c.expression("/expect", *a.Expect, `^(?:%s)$`)
		pt.expected = *a.Expect
	}
}

// expression compiles a regular expression, put into whole where that is given.
func (c *checker) expression(field, text, whole string) *regexp.Regexp {
	if text == "" {
		c.Fail(field, "must not be empty")
		return nil
	}
	if n := utf8.RuneCountInString(text); n > maxText {
		c.Fail(field, "must have at most %d characters, got %d", maxText, n)
		return nil
	}
	re, err := regexp.Compile(text)
	if err == nil && whole != "" {
		// In its plain form: a \Q that nothing ends would swallow what stands after it.
		var parsed *syntax.Regexp
		if parsed, err = syntax.Parse(text, syntax.Perl); err == nil {
			re, err = regexp.Compile(fmt.Sprintf(whole, parsed))
		}
	}
	if err != nil {
		c.Fail(field, "must be a regular expression: %s", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
		return nil
	}
	return re
}

// bytes is a text as it is sent: of messages with a length a byte for each
// character, of others UTF-8.
func (c *checker) bytes(field, text string, f wire.Framing) []byte {
	if text == "" && field == "/read" {
		c.Fail(field, "must not be empty")
	}
	if n := utf8.RuneCountInString(text); n > maxText {
		c.Fail(field, "must have at most %d characters, got %d", maxText, n)
		return nil
	}
	if f.Length == 0 {
		if f.Terminator != "" && strings.Contains(text, f.Terminator) {
			c.Fail(field, "must not hold the terminator, %q: it is sent after every message", f.Terminator)
		}
		return []byte(text)
	}
	b, ok := latin1(text)
	if !ok {
		c.Fail(field, "must hold characters up to U+00FF only: with length, each is one byte")
	}
	return b
}

// latin1 encodes each character as the byte of its number.
func latin1(text string) ([]byte, bool) {
	b := make([]byte, 0, len(text))
	for _, r := range text {
		if r > 0xFF {
			return nil, false
		}
		b = append(b, byte(r))
	}
	return b, true
}

// text is what a message says: bytes that are not UTF-8, and those of messages
// with a length, are a character each.
func text(message []byte, f wire.Framing) (s string, bytewise bool) {
	if f.Length == 0 && utf8.Valid(message) {
		return string(message), false
	}
	runes := make([]rune, len(message))
	for i, v := range message {
		runes[i] = rune(v)
	}
	return string(runes), true
}
