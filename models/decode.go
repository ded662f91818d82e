package models

import (
	"bytes"
	"encoding"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// MaxDocumentBytes bounds one object's document.
const MaxDocumentBytes = 1 << 20

// DecodeObject decodes exactly one object of any known kind from JSON or YAML,
// strictly: an unknown, misspelt or repeated field is an error that points to
// it. Status and server-owned metadata are accepted and dropped. The object is
// defaulted and validated. The error is an *Error: KindMalformed when the text
// cannot be read at all, else KindInvalid.
func DecodeObject(text []byte) (Object, error) {
	tree, err := decodeDocument(text)
	if err != nil {
		return nil, err
	}
	return objectOfTree(tree, "")
}

// DecodeKind is DecodeObject for a document whose kind the caller knows: kind
// and apiVersion may be left out, and must fit when they are there.
func DecodeKind(kind string, text []byte) (Object, error) {
	tree, err := decodeDocument(text)
	if err != nil {
		return nil, err
	}
	return objectOfTree(tree, kind)
}

// DecodeObjects decodes every object of a YAML stream of documents, of a JSON
// document, or of a List of either. Empty documents are skipped.
func DecodeObjects(text []byte) ([]Object, error) {
	var out []Object
	trees, err := decodeStream(text)
	if err != nil {
		return nil, err
	}
	for i, tree := range trees {
		items := []any{tree}
		if m, ok := tree.(map[string]any); ok && m["items"] != nil {
			if kind, _ := m["kind"].(string); strings.HasSuffix(kind, "List") {
				list, ok := m["items"].([]any)
				if !ok {
					return nil, Invalid("/items", "must be a list")
				}
				items = list
			}
		}
		for _, item := range items {
			o, err := objectOfTree(item, "")
			if err != nil {
				if len(trees) > 1 {
					return nil, fmt.Errorf("document %d: %w", i+1, err)
				}
				return nil, err
			}
			out = append(out, o)
		}
	}
	return out, nil
}

// DecodeInto decodes a JSON or YAML document into v strictly, by v's json tags.
// It does not default or validate.
func DecodeInto(text []byte, v any) error {
	tree, err := decodeDocument(text)
	if err != nil {
		return err
	}
	var d strictDecoder
	d.into(tree, reflect.ValueOf(v).Elem(), "")
	return d.err()
}

// DecodePatch decodes a desired merge patch (RFC 7396 at the level of
// properties): a JSON or YAML object of property to value, null to withdraw.
// Keys that start with "$" are returned apart in meta.
func DecodePatch(text []byte) (patch map[string]Value, meta map[string]Value, err error) {
	tree, err := decodeDocument(text)
	if err != nil {
		return nil, nil, err
	}
	object, ok := tree.(map[string]any)
	if !ok {
		return nil, nil, Errorf(KindMalformed, "must be an object of property to value")
	}
	patch, meta = map[string]Value{}, map[string]Value{}
	for k, sub := range object {
		v, err := valueOfTree(sub)
		if err != nil {
			return nil, nil, Invalid("/"+escapePointer(k), "%s", err.Error())
		}
		if strings.HasPrefix(k, "$") {
			meta[k] = v
		} else {
			patch[k] = v
		}
	}
	return patch, meta, nil
}

// MergePatch applies a JSON or YAML merge patch (RFC 7396) to a JSON document
// and returns the new document as JSON.
func MergePatch(document, patch []byte) ([]byte, error) {
	target, err := decodeJSONTree(document)
	if err != nil {
		return nil, err
	}
	p, err := decodeDocument(patch)
	if err != nil {
		return nil, err
	}
	if _, ok := p.(map[string]any); !ok {
		return nil, Errorf(KindMalformed, "a merge patch must be an object")
	}
	return json.Marshal(mergeTree(target, p))
}

func mergeTree(target, patch any) any {
	p, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	t, ok := target.(map[string]any)
	if !ok {
		t = map[string]any{}
	}
	for k, v := range p {
		if v == nil {
			delete(t, k)
		} else {
			t[k] = mergeTree(t[k], v)
		}
	}
	return t
}

func decodeDocument(text []byte) (any, error) {
	trees, err := decodeStream(text)
	if err != nil {
		return nil, err
	}
	if len(trees) != 1 {
		return nil, Errorf(KindMalformed, "expected one document, found %d", len(trees))
	}
	return trees[0], nil
}

// decodeStream reads JSON or YAML: JSON when the text starts with '{' or '['
// and is JSON, since YAML's reader is slower and its messages speak of YAML. What
// was meant as JSON and is not is refused, though it might be YAML: {"a": tru} is
// a slip and not the text "tru".
func decodeStream(text []byte) ([]any, error) {
	trimmed := bytes.TrimSpace(text)
	if len(trimmed) > 0 && (trimmed[0] == '{' || trimmed[0] == '[') {
		tree, err := decodeJSONTree(trimmed)
		if err == nil {
			return []any{tree}, nil
		}
		if json.Valid(trimmed) || meantAsJSON(trimmed) {
			return nil, Errorf(KindMalformed, "%s", err.Error())
		}
	}
	var trees []any
	dec := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var node yaml.Node
		err := dec.Decode(&node)
		if errors.Is(err, io.EOF) {
			return trees, nil
		}
		if err != nil {
			return nil, Errorf(KindMalformed, "not JSON or YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
		}
		budget := 100_000
		tree, err := yamlTree(&node, "", 0, &budget)
		if err != nil {
			return nil, Errorf(KindMalformed, "%s", err.Error())
		}
		if tree != nil {
			trees = append(trees, tree)
		}
	}
}

// meantAsJSON tells {"a": …}, [1, … and the like from YAML's flow style, {a: …}: by
// what comes first in it.
func meantAsJSON(text []byte) bool {
	rest := bytes.TrimLeft(text, "{[ \t\r\n")
	if len(rest) == 0 || bytes.IndexByte([]byte(`"}]-0123456789`), rest[0]) >= 0 {
		return true
	}
	for _, word := range []string{"true", "false", "null"} {
		if after, ok := bytes.CutPrefix(rest, []byte(word)); ok {
			after = bytes.TrimLeft(after, " \t\r\n")
			return len(after) == 0 || after[0] == ',' || after[0] == ']'
		}
	}
	return false
}

// yamlTree turns a YAML node into the tree that JSON would give. budget bounds
// the nodes visited, so that aliases cannot blow a small text up.
func yamlTree(n *yaml.Node, pointer string, depth int, budget *int) (any, error) {
	if *budget--; *budget < 0 || depth > maxDepth {
		return nil, errors.New("the document is nested too deep or expands too far")
	}
	switch n.Kind {
	case 0:
		return nil, nil
	case yaml.DocumentNode:
		return yamlTree(n.Content[0], pointer, depth+1, budget)
	case yaml.AliasNode:
		return yamlTree(n.Alias, pointer, depth+1, budget)
	case yaml.SequenceNode:
		list := make([]any, 0, len(n.Content))
		for i, c := range n.Content {
			item, err := yamlTree(c, pointer+"/"+strconv.Itoa(i), depth+1, budget)
			if err != nil {
				return nil, err
			}
			list = append(list, item)
		}
		return list, nil
	case yaml.MappingNode:
		object := make(map[string]any, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			k := n.Content[i]
			if k.Kind != yaml.ScalarNode || k.Tag == "!!merge" {
				return nil, fmt.Errorf("line %d: a key must be a plain scalar", k.Line)
			}
			at := pointer + "/" + escapePointer(k.Value)
			if _, twice := object[k.Value]; twice {
				return nil, fmt.Errorf("line %d: %s: key appears twice", k.Line, at)
			}
			v, err := yamlTree(n.Content[i+1], at, depth+1, budget)
			if err != nil {
				return nil, err
			}
			object[k.Value] = v
		}
		return object, nil
	}
	switch n.ShortTag() {
	case "!!null":
		return nil, nil
	case "!!bool":
		var b bool
		err := n.Decode(&b)
		return b, err
	case "!!int", "!!float":
		return yamlNumber(n)
	case "!!str", "!!timestamp", "!!binary":
		return n.Value, nil
	}
	return nil, fmt.Errorf("line %d: %s: tag %s is not supported", n.Line, pointer, n.Tag)
}

func yamlNumber(n *yaml.Node) (any, error) {
	if text := strings.ReplaceAll(n.Value, "_", ""); json.Valid([]byte(text)) {
		return json.Number(text), nil
	}
	var i int64
	if n.ShortTag() == "!!int" && n.Decode(&i) == nil { // 0x1F, 0o17, +5
		return json.Number(strconv.FormatInt(i, 10)), nil
	}
	var f float64
	if err := n.Decode(&f); err != nil {
		return nil, fmt.Errorf("line %d: %q is not a number", n.Line, n.Value)
	}
	v := Float(f)
	if v.IsNull() {
		return nil, fmt.Errorf("line %d: %s is not a finite number", n.Line, n.Value)
	}
	return json.Number(v.AppendJSON(nil)), nil
}

// objectOfTree decodes, defaults and validates one object. want is the kind it
// must have, "" for any.
func objectOfTree(tree any, want string) (Object, error) {
	root, ok := tree.(map[string]any)
	if !ok {
		return nil, Errorf(KindMalformed, "an object must be a map with kind, metadata and spec")
	}
	kind, _ := root["kind"].(string)
	if kind == "" {
		kind = want
	}
	if kind == "" {
		return nil, Invalid("/kind", "is required, one of %s", kindNames())
	}
	if want != "" && kind != want {
		return nil, Invalid("/kind", "must be %s here, got %s", want, quoteShort(kind))
	}
	info, ok := KindByName(kind)
	if instead := Instead(kind); instead != "" {
		return nil, Invalid("/kind", "%s is not supported; use %s", kind, instead)
	}
	if !ok || info.Kind != kind {
		return nil, Invalid("/kind", "%s is not known; known are %s", quoteShort(kind), kindNames())
	}
	if v, _ := root["apiVersion"].(string); v == "" && want != "" {
		root["apiVersion"] = info.APIVersion
	} else if v != info.APIVersion {
		return nil, Invalid("/apiVersion", "must be %s for kind %s", info.APIVersion, kind)
	}
	root["kind"] = kind
	delete(root, "status")
	if meta, ok := root["metadata"].(map[string]any); ok {
		for _, owned := range []string{"uid", "generation", "resourceVersion", "creationTimestamp", "ownerReferences"} {
			delete(meta, owned)
		}
	}
	o := info.New()
	var d strictDecoder
	d.into(root, reflect.ValueOf(o).Elem(), "")
	if len(d.errs) > 0 {
		return nil, d.err()
	}
	if info.Namespaced && o.Meta().Namespace == "" {
		o.Meta().Namespace = DefaultNamespace
	}
	o.Default()
	if errs := o.Validate(); len(errs) > 0 {
		return nil, &Error{Kind: KindInvalid, Fields: errs}
	}
	return o, nil
}

func kindNames() string {
	names := make([]string, len(Kinds))
	for i, k := range Kinds {
		names[i] = k.Kind
	}
	return strings.Join(names, ", ")
}

// maxFieldErrors bounds how many things one answer names.
const maxFieldErrors = 20

// strictDecoder copies a tree into Go values by their json tags and collects
// what does not fit, with pointers.
type strictDecoder struct{ errs []FieldError }

func (d *strictDecoder) err() error {
	if len(d.errs) == 0 {
		return nil
	}
	return &Error{Kind: KindInvalid, Fields: d.errs[:min(len(d.errs), maxFieldErrors)]}
}

func (d *strictDecoder) fail(at, format string, args ...any) {
	d.errs = append(d.errs, FieldError{at, fmt.Sprintf(format, args...)})
}

var (
	jsonUnmarshaler = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
	rawMessage      = reflect.TypeFor[json.RawMessage]()
	timeType        = reflect.TypeFor[time.Time]()
)

func (d *strictDecoder) into(tree any, v reflect.Value, at string) {
	if tree == nil {
		v.SetZero()
		return
	}
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		d.into(tree, v.Elem(), at)
		return
	}
	t := v.Type()
	switch {
	case t == rawMessage:
		text, err := appendTree(nil, tree)
		if err != nil {
			d.fail(at, "%s", err.Error())
			return
		}
		v.SetBytes(text)
		return
	case t != timeType && reflect.PointerTo(t).Implements(jsonUnmarshaler):
		text, err := appendTree(nil, tree)
		if err == nil {
			err = v.Addr().Interface().(json.Unmarshaler).UnmarshalJSON(text)
		}
		if err != nil {
			d.fail(at, "%s", err.Error())
		}
		return
	case reflect.PointerTo(t).Implements(textUnmarshaler):
		s, ok := tree.(string)
		if !ok {
			d.fail(at, "must be a string")
		} else if err := v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(s)); err != nil {
			d.fail(at, "%s", err.Error())
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		object, ok := tree.(map[string]any)
		if !ok {
			d.fail(at, "must be an object")
			return
		}
		d.object(object, v, at)
	case reflect.Map:
		object, ok := tree.(map[string]any)
		if !ok {
			d.fail(at, "must be an object")
			return
		}
		v.Set(reflect.MakeMapWithSize(t, len(object)))
		for _, k := range sortedKeys(object) {
			key := reflect.New(t.Key()).Elem()
			if key.Kind() == reflect.String {
				key.SetString(k)
			} else if i, err := strconv.ParseInt(k, 10, 64); err == nil {
				key.SetInt(i)
			} else {
				d.fail(at+"/"+escapePointer(k), "key must be an int")
				continue
			}
			item := reflect.New(t.Elem()).Elem()
			d.into(object[k], item, at+"/"+escapePointer(k))
			v.SetMapIndex(key, item)
		}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			d.base64(tree, v, at)
			return
		}
		list, ok := tree.([]any)
		if !ok {
			d.fail(at, "must be a list")
			return
		}
		v.Set(reflect.MakeSlice(t, len(list), len(list)))
		for i, item := range list {
			d.into(item, v.Index(i), at+"/"+strconv.Itoa(i))
		}
	default:
		d.scalar(tree, v, at)
	}
}

func (d *strictDecoder) base64(tree any, v reflect.Value, at string) {
	text, ok := tree.(string)
	bytes, err := base64.StdEncoding.DecodeString(text)
	if !ok || err != nil {
		d.fail(at, "must be a string in base64")
		return
	}
	v.SetBytes(bytes)
}

func (d *strictDecoder) scalar(tree any, v reflect.Value, at string) {
	switch v.Kind() {
	case reflect.String:
		s, ok := tree.(string)
		if !ok {
			d.fail(at, "must be a string")
			return
		}
		v.SetString(s)
	case reflect.Bool:
		b, ok := tree.(bool)
		if !ok {
			d.fail(at, "must be true or false")
			return
		}
		v.SetBool(b)
	case reflect.Int, reflect.Int64, reflect.Int32, reflect.Int16, reflect.Int8:
		n, ok := tree.(json.Number)
		i, err := strconv.ParseInt(wholeNumber(n), 10, v.Type().Bits())
		if !ok || err != nil {
			d.fail(at, "must be an int")
			return
		}
		v.SetInt(i)
	case reflect.Uint, reflect.Uint64, reflect.Uint32, reflect.Uint16, reflect.Uint8:
		n, ok := tree.(json.Number)
		i, err := strconv.ParseUint(wholeNumber(n), 10, v.Type().Bits())
		if !ok || err != nil {
			d.fail(at, "must be an int from 0")
			return
		}
		v.SetUint(i)
	case reflect.Float64:
		n, ok := tree.(json.Number)
		f, err := n.Float64()
		if !ok || err != nil {
			d.fail(at, "must be a number")
			return
		}
		v.SetFloat(f)
	case reflect.Interface:
		text, err := appendTree(nil, tree)
		if err == nil {
			err = json.Unmarshal(text, v.Addr().Interface())
		}
		if err != nil {
			d.fail(at, "%s", err.Error())
		}
	default:
		d.fail(at, "cannot hold this")
	}
}

// wholeNumber writes a number that is whole, though with a fraction or an exponent
// (1.0, 2e3), without them: JSON does not tell the one from the other.
func wholeNumber(n json.Number) string {
	text := n.String()
	if !strings.ContainsAny(text, ".eE") {
		return text
	}
	f, err := n.Float64()
	if err != nil || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
		return text
	}
	return strconv.FormatInt(int64(f), 10)
}

func (d *strictDecoder) object(object map[string]any, v reflect.Value, at string) {
	fields := map[string]reflect.Value{}
	collectFields(v, fields)
	for _, k := range sortedKeys(object) {
		field, ok := fields[k]
		if !ok {
			d.fail(at+"/"+escapePointer(k), "unknown field; %s", Suggest(k, sortedKeys(fields)))
			continue
		}
		d.into(object[k], field, at+"/"+escapePointer(k))
	}
}

func collectFields(v reflect.Value, fields map[string]reflect.Value) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			collectFields(v.Field(i), fields)
		case f.IsExported() && name != "-" && name != "":
			fields[name] = v.Field(i)
		}
	}
}

// Suggest says which of the known names an unknown one may have been meant as,
// or else lists them.
func Suggest(name string, known []string) string {
	best, bestDistance := "", 3
	for _, f := range known {
		if dist := editDistance(strings.ToLower(name), strings.ToLower(f)); dist < bestDistance {
			best, bestDistance = f, dist
		}
	}
	switch {
	case best != "":
		return "did you mean " + best + "?"
	case len(known) == 0:
		return "nothing is known here"
	}
	return "known are " + strings.Join(known, ", ")
}

func editDistance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost = 1 + min(diagonal, row[j], row[j-1])
			}
			diagonal, row[j] = row[j], cost
		}
	}
	return row[len(b)]
}
