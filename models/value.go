package models

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Type is the type of a property's value.
type Type string

// The property types of a DeviceModel.
const (
	TypeBool   Type = "bool"
	TypeInt    Type = "int" // exact over the whole int64 and uint64 range
	TypeFloat  Type = "float"
	TypeString Type = "string"
	TypeBytes  Type = "bytes" // base64 (RFC 4648 section 4) in JSON
	TypeObject Type = "object"
	TypeArray  Type = "array"
)

// Types lists every Type in the order documents show them.
var Types = []Type{TypeBool, TypeInt, TypeFloat, TypeString, TypeBytes, TypeObject, TypeArray}

// Kind says which of its forms a Value has. Its numbers are written to disk and
// to the wire: append only.
type Kind uint8

// The kinds of Value.
const (
	KindNull   Kind = 0
	KindBool   Kind = 1
	KindInt    Kind = 2 // an int64
	KindUint   Kind = 3 // a uint64 above the largest int64
	KindFloat  Kind = 4 // finite
	KindString Kind = 5
	KindBytes  Kind = 6
	KindJSON   Kind = 7 // an object or array in compact JSON with sorted keys
)

// Value is one typed value. The zero Value is null. Values are comparable with
// ==: equal values are the same value, and no value is a NaN or an infinity.
type Value struct {
	kind Kind
	num  uint64 // bool, int64 and uint64 bits, float64 bits
	str  string // string, bytes, JSON
}

// Null is the value of a property that has none.
var Null Value

// Bool returns a bool value.
func Bool(b bool) Value {
	if b {
		return Value{kind: KindBool, num: 1}
	}
	return Value{kind: KindBool}
}

// Int returns an int value.
func Int(i int64) Value { return Value{kind: KindInt, num: uint64(i)} }

// Uint returns an int value from the unsigned range.
func Uint(u uint64) Value {
	if u <= math.MaxInt64 {
		return Int(int64(u))
	}
	return Value{kind: KindUint, num: u}
}

// Float returns a float value, or Null when f is a NaN or an infinity.
// Negative zero becomes zero, so that equal values are ==.
func Float(f float64) Value {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return Null
	}
	if f == 0 {
		f = 0
	}
	return Value{kind: KindFloat, num: math.Float64bits(f)}
}

// String returns a string value. Bytes that are not UTF-8 become U+FFFD.
func String(s string) Value {
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "�")
	}
	return Value{kind: KindString, str: s}
}

// Bytes returns a bytes value holding a copy of b.
func Bytes(b []byte) Value { return Value{kind: KindBytes, str: string(b)} }

// JSON returns an object or array value from its JSON text, or an error when
// the text is not one object or array.
func JSON(text []byte) (Value, error) {
	tree, err := decodeJSONTree(text)
	if err != nil {
		return Null, err
	}
	switch tree.(type) {
	case map[string]any, []any:
		return valueOfTree(tree)
	}
	return Null, errors.New("not an object or array")
}

// Kind returns the value's kind.
func (v Value) Kind() Kind { return v.kind }

// IsNull reports whether the value is null.
func (v Value) IsNull() bool { return v.kind == KindNull }

// IsNumber reports whether the value is an int or a float.
func (v Value) IsNumber() bool {
	return v.kind == KindInt || v.kind == KindUint || v.kind == KindFloat
}

// AsBool returns a bool value's content.
func (v Value) AsBool() (b, ok bool) { return v.num != 0, v.kind == KindBool }

// AsInt returns the content of an int value that fits an int64.
func (v Value) AsInt() (i int64, ok bool) { return int64(v.num), v.kind == KindInt }

// AsUint returns the content of an int value that is not negative.
func (v Value) AsUint() (u uint64, ok bool) {
	return v.num, v.kind == KindUint || v.kind == KindInt && int64(v.num) >= 0
}

// AsFloat returns a number's content, rounded to the nearest float64 when it is
// an int that has no exact one.
func (v Value) AsFloat() (f float64, ok bool) {
	switch v.kind {
	case KindInt:
		return float64(int64(v.num)), true
	case KindUint:
		return float64(v.num), true
	case KindFloat:
		return math.Float64frombits(v.num), true
	}
	return 0, false
}

// AsString returns a string value's content.
func (v Value) AsString() (s string, ok bool) { return v.str, v.kind == KindString }

// AsBytes returns a copy of a bytes value's content.
func (v Value) AsBytes() (b []byte, ok bool) { return []byte(v.str), v.kind == KindBytes }

// AsJSON returns the compact JSON text of an object or array value.
func (v Value) AsJSON() (text string, ok bool) { return v.str, v.kind == KindJSON }

// Raw returns the parts of v for a codec: the kind, the 64 bits of a bool, int
// or float, and the text of the other kinds. FromRaw is its inverse.
func (v Value) Raw() (kind Kind, bits uint64, text string) { return v.kind, v.num, v.str }

// FromRaw rebuilds a Value from a codec's parts and refuses what Raw cannot
// have returned.
func FromRaw(kind Kind, bits uint64, text string) (Value, error) {
	switch kind {
	case KindNull:
		return Null, nil
	case KindBool:
		return Bool(bits != 0), nil
	case KindInt:
		return Int(int64(bits)), nil
	case KindUint:
		return Uint(bits), nil
	case KindFloat:
		f := math.Float64frombits(bits)
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return Null, errors.New("float is not finite")
		}
		return Float(f), nil
	case KindString:
		return String(text), nil
	case KindBytes:
		return Value{kind: KindBytes, str: text}, nil
	case KindJSON:
		return JSON([]byte(text))
	}
	return Null, fmt.Errorf("unknown value kind %d", kind)
}

// Compare orders two numbers exactly, across int and float. ok is false when
// either is not a number.
func (v Value) Compare(w Value) (order int, ok bool) {
	if !v.IsNumber() || !w.IsNumber() {
		return 0, false
	}
	if v.kind == KindFloat || w.kind == KindFloat {
		if v.kind == w.kind {
			a, _ := v.AsFloat()
			b, _ := w.AsFloat()
			return cmpFloat(a, b), true
		}
		if v.kind == KindFloat {
			order, _ = w.Compare(v)
			return -order, true
		}
		f, _ := w.AsFloat()
		return v.compareIntFloat(f), true
	}
	a, aNeg := v.num, v.kind == KindInt && int64(v.num) < 0
	b, bNeg := w.num, w.kind == KindInt && int64(w.num) < 0
	switch {
	case aNeg != bNeg && aNeg:
		return -1, true
	case aNeg != bNeg:
		return 1, true
	case a < b: // two's complement keeps the order among negatives
		return -1, true
	case a > b:
		return 1, true
	}
	return 0, true
}

// compareIntFloat orders the int v and f without rounding v.
func (v Value) compareIntFloat(f float64) int {
	switch {
	case f >= 1<<64:
		return -1
	case f < -(1 << 63):
		return 1
	}
	whole := math.Trunc(f)
	var w Value
	if whole < 0 {
		w = Int(int64(whole))
	} else {
		w = Uint(uint64(whole))
	}
	if order, _ := v.Compare(w); order != 0 {
		return order
	}
	return cmpFloat(whole, f)
}

func cmpFloat(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// AppendJSON appends v's JSON text to b.
func (v Value) AppendJSON(b []byte) []byte {
	switch v.kind {
	case KindBool:
		return strconv.AppendBool(b, v.num != 0)
	case KindInt:
		return strconv.AppendInt(b, int64(v.num), 10)
	case KindUint:
		return strconv.AppendUint(b, v.num, 10)
	case KindFloat:
		return appendFloat(b, math.Float64frombits(v.num))
	case KindString:
		text, _ := marshalPlain(v.str)
		return append(b, text...)
	case KindBytes:
		b = append(b, '"')
		b = base64.StdEncoding.AppendEncode(b, []byte(v.str))
		return append(b, '"')
	case KindJSON:
		return append(b, v.str...)
	}
	return append(b, "null"...)
}

// appendFloat writes the shortest text that reads back as f, in JSON's form.
func appendFloat(b []byte, f float64) []byte {
	format := byte('f')
	if abs := math.Abs(f); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	return strconv.AppendFloat(b, f, format, -1, 64)
}

// MarshalJSON implements json.Marshaler.
func (v Value) MarshalJSON() ([]byte, error) { return v.AppendJSON(nil), nil }

// UnmarshalJSON implements json.Unmarshaler. A number without fraction and
// exponent becomes an int when it fits one, any other a float; a string stays a
// string (Fit makes it bytes where a property asks for bytes).
func (v *Value) UnmarshalJSON(text []byte) error {
	tree, err := decodeJSONTree(text)
	if err != nil {
		return err
	}
	*v, err = valueOfTree(tree)
	return err
}

// String returns the value as a person reads it: strings unquoted.
func (v Value) String() string {
	if v.kind == KindString {
		return v.str
	}
	return string(v.AppendJSON(nil))
}

// ParseNumber returns the number that text is in JSON.
func ParseNumber(text string) (Value, error) {
	if i, err := strconv.ParseInt(text, 10, 64); err == nil {
		if i == 0 && strings.HasPrefix(text, "-") {
			return Int(0), nil
		}
		return Int(i), nil
	}
	if u, err := strconv.ParseUint(text, 10, 64); err == nil {
		return Uint(u), nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
		return Null, fmt.Errorf("number %s is out of range", text)
	}
	return Float(f), nil
}

// Fit converts v to type t without losing anything, or says why it cannot. An
// int may become a float it equals, a float without fraction an int it equals,
// a base64 string bytes. Null fits no type.
func (v Value) Fit(t Type) (Value, error) {
	switch t {
	case TypeBool:
		if v.kind == KindBool {
			return v, nil
		}
	case TypeInt:
		switch v.kind {
		case KindInt, KindUint:
			return v, nil
		case KindFloat:
			f := math.Float64frombits(v.num)
			if f == math.Trunc(f) && f >= -(1<<63) && f < 1<<64 {
				if f < 0 {
					return Int(int64(f)), nil
				}
				return Uint(uint64(f)), nil
			}
			return Null, fmt.Errorf("must be an int, got %s", v)
		}
	case TypeFloat:
		if v.IsNumber() {
			f, _ := v.AsFloat()
			return Float(f), nil
		}
	case TypeString:
		if v.kind == KindString {
			return v, nil
		}
	case TypeBytes:
		if v.kind == KindBytes {
			return v, nil
		}
		if v.kind == KindString {
			b, err := base64.StdEncoding.DecodeString(v.str)
			if err != nil {
				return Null, errors.New("must be bytes in base64")
			}
			return Value{kind: KindBytes, str: string(b)}, nil
		}
	case TypeObject:
		if v.kind == KindJSON && v.str[0] == '{' {
			return v, nil
		}
	case TypeArray:
		if v.kind == KindJSON && v.str[0] == '[' {
			return v, nil
		}
	}
	return Null, fmt.Errorf("must be %s %s, got %s", article(t), t, v.describe())
}

func article(t Type) string {
	switch t {
	case TypeInt, TypeObject, TypeArray:
		return "an"
	case TypeBytes:
		return "base64"
	}
	return "a"
}

// describe names v in an error without echoing a long value.
func (v Value) describe() string {
	text := string(v.AppendJSON(nil))
	if len(text) > 40 {
		text = strings.ToValidUTF8(text[:37], "") + "..."
	}
	kind := map[Kind]string{KindNull: "", KindBool: "bool ", KindInt: "int ", KindUint: "int ", KindFloat: "float ",
		KindString: "string ", KindBytes: "bytes ", KindJSON: ""}[v.kind]
	return kind + text
}

// decodeJSONTree decodes exactly one JSON value, numbers as json.Number. It
// refuses duplicate keys and nesting beyond maxDepth.
func decodeJSONTree(text []byte) (any, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	tree, err := decodeTree(dec, "", 0)
	if err != nil {
		return nil, err
	}
	if _, err := dec.Token(); err == nil {
		return nil, errors.New("more than one JSON value")
	}
	if rest := bytes.TrimSpace(text[min(int(dec.InputOffset()), len(text)):]); len(rest) > 0 {
		return nil, errors.New("text after the JSON value")
	}
	return tree, nil
}

// maxDepth bounds nesting, so that a hostile document cannot exhaust the stack.
const maxDepth = 64

func decodeTree(dec *json.Decoder, pointer string, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("nested deeper than %d levels", maxDepth)
	}
	tok, err := dec.Token()
	if err != nil {
		return nil, syntaxError(err)
	}
	delim, ok := tok.(json.Delim)
	if !ok {
		return tok, nil
	}
	if delim == '[' {
		list := []any{}
		for dec.More() {
			item, err := decodeTree(dec, pointer+"/"+strconv.Itoa(len(list)), depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, item)
		}
		_, err := dec.Token()
		return list, syntaxError(err)
	}
	object := map[string]any{}
	for dec.More() {
		keyTok, err := dec.Token()
		if err != nil {
			return nil, syntaxError(err)
		}
		key := keyTok.(string)
		at := pointer + "/" + escapePointer(key)
		if _, twice := object[key]; twice {
			return nil, fmt.Errorf("%s: key appears twice", at)
		}
		if object[key], err = decodeTree(dec, at, depth+1); err != nil {
			return nil, err
		}
	}
	_, err = dec.Token()
	return object, syntaxError(err)
}

func syntaxError(err error) error {
	if err == nil {
		return nil
	}
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Errorf("not JSON: %s at byte %d", syntax.Error(), syntax.Offset)
	}
	return fmt.Errorf("not JSON: %s", strings.Replace(err.Error(), "EOF", "unexpected end", 1))
}

// valueOfTree turns a decoded tree into a Value.
func valueOfTree(tree any) (Value, error) {
	switch t := tree.(type) {
	case nil:
		return Null, nil
	case bool:
		return Bool(t), nil
	case string:
		return String(t), nil
	case json.Number:
		return ParseNumber(t.String())
	}
	text, err := appendTree(nil, tree)
	if err != nil {
		return Null, err
	}
	return Value{kind: KindJSON, str: string(text)}, nil
}

// appendTree writes a tree in its one canonical form: compact, keys sorted,
// numbers as Value writes them.
func appendTree(b []byte, tree any) ([]byte, error) {
	switch t := tree.(type) {
	case map[string]any:
		keys := make([]string, 0, len(t))
		for k := range t {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		b = append(b, '{')
		for i, k := range keys {
			if i > 0 {
				b = append(b, ',')
			}
			text, err := marshalPlain(k)
			if err != nil {
				return nil, err
			}
			b = append(append(b, text...), ':')
			if b, err = appendTree(b, t[k]); err != nil {
				return nil, err
			}
		}
		return append(b, '}'), nil
	case []any:
		b = append(b, '[')
		for i, item := range t {
			if i > 0 {
				b = append(b, ',')
			}
			var err error
			if b, err = appendTree(b, item); err != nil {
				return nil, err
			}
		}
		return append(b, ']'), nil
	}
	v, err := valueOfTree(tree)
	if err != nil {
		return nil, err
	}
	return v.AppendJSON(b), nil
}

// marshalPlain is json.Marshal without HTML escapes.
func marshalPlain(s string) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}

// pointerEscapes writes a name as a step of a JSON Pointer (RFC 6901).
var pointerEscapes = strings.NewReplacer("~", "~0", "/", "~1")

func escapePointer(key string) string { return pointerEscapes.Replace(key) }
