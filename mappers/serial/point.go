package serial

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
	wire "github.com/whimbrel-edge/whimbrel/protocols/serial"
)

// point is a property, ready to be read and written.
type point struct {
	property string
	kind     models.Type
	framing  wire.Framing
	ask      []byte         // nil where nothing is asked
	asked    string         // the same as its user wrote it
	match    *regexp.Regexp // nil: the whole answer
	write    [][]byte       // what stands around the values; nil where nothing is written
	expect   *regexp.Regexp // nil: no answer is waited for
	expected string
}

// fits tells whether a message is the property's, and which part of it is the
// value.
func (pt *point) fits(message string) (value string, ok bool) {
	if pt.match == nil {
		return strings.TrimSpace(message), true
	}
	m := pt.match.FindStringSubmatchIndex(message)
	switch {
	case m == nil:
		return "", false
	case m[2] < 0: // the group took no part
		return "", true
	}
	return message[m[2]:m[3]], true
}

// decode makes a value of the part of a message that fits. bytewise says that
// each of its characters was one byte.
func (pt *point) decode(value string, bytewise bool) mappers.Result {
	v, ok := models.Null, true
	switch pt.kind {
	case models.TypeString:
		v = models.String(value)
	case models.TypeBytes:
		raw := []byte(value)
		if bytewise {
			raw, _ = latin1(value)
		}
		v = models.Bytes(raw)
	case models.TypeBool:
		v, ok = parseBool(value)
	default:
		v, ok = parseNumber(value)
		if ok && v.IsNull() {
			return bad(models.ReasonNotANumber)
		}
		if fitted, err := v.Fit(pt.kind); err != nil {
			ok = false
		} else {
			v = fitted
		}
	}
	if !ok {
		r := bad(models.ReasonProtocolError)
		r.Err = fmt.Errorf("the device says %q, which is no %s", short(value), pt.kind)
		return r
	}
	return mappers.Result{Value: v, Quality: models.Good}
}

// misfit is what a message is for a point whose match it does not fit.
func (pt *point) misfit(message string) mappers.Result {
	r := bad(models.ReasonProtocolError)
	r.Err = fmt.Errorf("the answer to %q is %q, which does not fit match %s", pt.asked, short(message), pt.match)
	return r
}

// short cuts what a device says for an error's text.
func short(text string) string {
	const enough = 80
	if len(text) > enough {
		return text[:enough] + "…"
	}
	return text
}

func bad(reason models.Reason) mappers.Result {
	return mappers.Result{Quality: models.Bad, Reason: reason}
}

// parseBool takes the words that devices have for on and off.
func parseBool(text string) (models.Value, bool) {
	switch strings.ToLower(strings.TrimSpace(text)) {
	case "1", "true", "on", "yes":
		return models.Bool(true), true
	case "0", "false", "off", "no":
		return models.Bool(false), true
	}
	return models.Null, false
}

// parseNumber takes numbers as devices print them: with spaces around them and
// after the sign, a plus, leading zeros, an exponent. It is Null for NaN and
// infinities.
func parseNumber(text string) (models.Value, bool) {
	text = strings.TrimSpace(text)
	if len(text) > 1 && (text[0] == '+' || text[0] == '-') {
		text = text[:1] + strings.TrimLeft(text[1:], " ")
	}
	if i, err := strconv.ParseInt(text, 10, 64); err == nil {
		return models.Int(i), true
	}
	if u, err := strconv.ParseUint(strings.TrimPrefix(text, "+"), 10, 64); err == nil {
		return models.Uint(u), true
	}
	if strings.ContainsAny(text, "xXpP_") {
		return models.Null, false // Go's own ways to write a number
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return models.Null, false
	}
	return models.Float(f), true
}

// request makes the text that writes v, or says why it cannot.
func (pt *point) request(v models.Value) ([]byte, error) {
	if pt.write == nil {
		return nil, errors.New("the property has no write")
	}
	value, err := pt.format(v)
	if err != nil {
		return nil, err
	}
	text := bytes.Join(pt.write, value)
	if len(text) > wire.MaxMessage/2 {
		return nil, fmt.Errorf("the message has %d bytes, more than %d", len(text), wire.MaxMessage/2)
	}
	if t := pt.framing.Terminator; t != "" && bytes.Contains(text, []byte(t)) {
		return nil, fmt.Errorf("the message must not hold the terminator, %q", t)
	}
	return text, nil
}

// format writes a value as devices read it: 1 and 0, digits without exponent,
// text as it is.
func (pt *point) format(v models.Value) ([]byte, error) {
	v, err := v.Fit(pt.kind)
	if err != nil {
		return nil, err
	}
	switch pt.kind {
	case models.TypeBool:
		if on, ok := v.AsBool(); !ok {
			return nil, fmt.Errorf("must be a bool, got %s", v)
		} else if on {
			return []byte("1"), nil
		}
		return []byte("0"), nil
	case models.TypeFloat:
		f, ok := v.AsFloat()
		if !ok {
			return nil, fmt.Errorf("must be a number, got %s", v)
		}
		return strconv.AppendFloat(nil, f, 'f', -1, 64), nil
	case models.TypeInt:
		if !v.IsNumber() {
			return nil, fmt.Errorf("must be a number, got %s", v)
		}
		return []byte(v.String()), nil
	case models.TypeBytes:
		b, ok := v.AsBytes()
		if !ok {
			return nil, fmt.Errorf("must be bytes, got %s", v)
		}
		return b, nil
	}
	s, ok := v.AsString()
	if !ok {
		return nil, fmt.Errorf("must be a string, got %s", v)
	}
	// A line end in a value would be a command of its own.
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7F }) {
		return nil, errors.New("must not hold control characters")
	}
	if pt.framing.Length > 0 {
		b, ok := latin1(s)
		if !ok {
			return nil, errors.New("must hold characters up to U+00FF only: with length, each is one byte")
		}
		return b, nil
	}
	return []byte(s), nil
}

// canonical is v as it reads back.
func (pt *point) canonical(v models.Value) (models.Value, error) {
	if _, err := pt.request(v); err != nil {
		return models.Null, err
	}
	return v.Fit(pt.kind)
}
