package opcua

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/gopcua/opcua/ua"

	"github.com/whimbrel-edge/whimbrel/models"
)

// maxDepth bounds variants within variants.
const maxDepth = 16

// Value is a variant as a property of the type would hold it. Integers stay
// exact; a DateTime is a string (RFC 3339, UTC); a Byte array is bytes where the
// property says so and an array of ints elsewhere. Null is a variant that
// holds nothing, and a NaN or infinity.
func Value(v *ua.Variant, want models.Type) (models.Value, error) {
	if v == nil || v.Value() == nil {
		return models.Null, nil
	}
	if b, ok := v.Value().(ua.ByteArray); ok && want == models.TypeBytes {
		return models.Bytes(b), nil
	}
	out, err := valueOf(v.Value(), 0)
	if err != nil || out.IsNull() {
		return models.Null, err
	}
	fitted, err := out.Fit(want)
	if err != nil {
		return models.Null, fmt.Errorf("the node holds %s, the property %s", ShapeOf(v), want)
	}
	return fitted, nil
}

// Plain is what a variant holds, as the property would that suits it best. Null
// is one that holds nothing, and a NaN or infinity.
func Plain(v *ua.Variant) (models.Value, error) {
	if v == nil || v.Value() == nil {
		return models.Null, nil
	}
	return valueOf(v.Value(), 0)
}

// Element is one element of an array.
func Element(v *ua.Variant, index int, want models.Type) (models.Value, error) {
	if v == nil || v.Value() == nil {
		return models.Null, nil
	}
	list := reflect.ValueOf(v.Value())
	if !v.Has(ua.VariantArrayValues) || list.Kind() != reflect.Slice {
		return models.Null, fmt.Errorf("index %d: the node holds one %s, no array", index, TypeName(v.Type()))
	}
	if index >= list.Len() {
		return models.Null, fmt.Errorf("index %d: the node holds %d elements", index, list.Len())
	}
	out, err := valueOf(list.Index(index).Interface(), 0)
	if err != nil || out.IsNull() {
		return models.Null, err
	}
	fitted, err := out.Fit(want)
	if err != nil {
		return models.Null, fmt.Errorf("the node's elements are %s, the property %s", TypeName(v.Type()), want)
	}
	return fitted, nil
}

func valueOf(x any, depth int) (models.Value, error) {
	if depth > maxDepth {
		return models.Null, errors.New("nested too deep")
	}
	switch x := x.(type) {
	case nil:
		return models.Null, nil
	case bool:
		return models.Bool(x), nil
	case int8:
		return models.Int(int64(x)), nil
	case int16:
		return models.Int(int64(x)), nil
	case int32:
		return models.Int(int64(x)), nil
	case int64:
		return models.Int(x), nil
	case uint8:
		return models.Uint(uint64(x)), nil
	case uint16:
		return models.Uint(uint64(x)), nil
	case uint32:
		return models.Uint(uint64(x)), nil
	case uint64:
		return models.Uint(x), nil
	case float32:
		return single(x), nil
	case float64:
		return models.Float(x), nil
	case string:
		return models.String(x), nil
	case ua.XMLElement:
		return models.String(string(x)), nil
	case []byte:
		return models.Bytes(x), nil
	case time.Time:
		if x.IsZero() {
			return models.Null, nil
		}
		return models.String(x.UTC().Format(time.RFC3339Nano)), nil
	case ua.StatusCode:
		return models.Uint(uint64(x)), nil
	}
	return valueOfPointer(x, depth)
}

func valueOfPointer(x any, depth int) (models.Value, error) {
	if r := reflect.ValueOf(x); r.Kind() == reflect.Pointer && r.IsNil() {
		return models.Null, nil
	}
	switch x := x.(type) {
	case *ua.GUID:
		return models.String(x.String()), nil
	case *ua.NodeID:
		return models.String(x.String()), nil
	case *ua.ExpandedNodeID:
		return models.String(x.String()), nil
	case *ua.LocalizedText:
		return models.String(x.Text), nil
	case *ua.QualifiedName:
		if x.NamespaceIndex == 0 {
			return models.String(x.Name), nil
		}
		return models.String(strconv.Itoa(int(x.NamespaceIndex)) + ":" + x.Name), nil
	case *ua.Variant:
		return valueOf(x.Value(), depth+1)
	case *ua.DataValue:
		if x.Value == nil {
			return models.Null, nil
		}
		return valueOf(x.Value.Value(), depth+1)
	}
	r := reflect.ValueOf(x)
	if r.Kind() != reflect.Slice {
		return models.Null, fmt.Errorf("values of type %s are not supported", strings.TrimPrefix(r.Type().String(), "*ua."))
	}
	text := []byte{'['}
	for i := range r.Len() {
		v, err := valueOf(r.Index(i).Interface(), depth+1)
		if err != nil {
			return models.Null, err
		}
		if i > 0 {
			text = append(text, ',')
		}
		text = v.AppendJSON(text)
	}
	return models.JSON(append(text, ']'))
}

// single is a float32 as the shortest decimal that means it: 21.3, not
// 21.299999237060547.
func single(x float32) models.Value {
	if f := float64(x); math.IsNaN(f) || math.IsInf(f, 0) {
		return models.Null
	}
	f, _ := strconv.ParseFloat(strconv.FormatFloat(float64(x), 'g', -1, 32), 64)
	return models.Float(f)
}

// Variant lays a value out as the node holds it, or says why the node cannot
// hold it.
func Variant(v models.Value, s Shape) (*ua.Variant, error) {
	if !s.Array {
		x, err := goValue(v, s.Type)
		if err != nil {
			return nil, err
		}
		return ua.NewVariant(x)
	}
	if b, ok := v.AsBytes(); ok && s.Type == ua.TypeIDByte {
		return ua.NewVariant(ua.ByteArray(b))
	}
	list, err := goSlice(v, s.Type, 0)
	if err != nil {
		return nil, err
	}
	return ua.NewVariant(list.Interface())
}

// goSlice is a JSON array as a slice, or slices of slices.
func goSlice(v models.Value, t ua.TypeID, depth int) (reflect.Value, error) {
	none := reflect.Value{}
	text, ok := v.AsJSON()
	if !ok || text[0] != '[' {
		return none, fmt.Errorf("must be an array of %s, got %s", TypeName(t), v)
	}
	if depth > maxDepth {
		return none, errors.New("nested too deep")
	}
	var items []models.Value
	if err := json.Unmarshal([]byte(text), &items); err != nil {
		return none, err
	}
	elem, ok := goTypes[t]
	if !ok {
		return none, fmt.Errorf("values of %s cannot be written", TypeName(t))
	}
	inner := func(item models.Value) bool { text, ok := item.AsJSON(); return ok && text[0] == '[' }
	if len(items) == 0 || !inner(items[0]) {
		slice := reflect.SliceOf(elem)
		if t == ua.TypeIDByte {
			slice = reflect.TypeFor[ua.ByteArray]()
		}
		out := reflect.MakeSlice(slice, 0, len(items))
		for i, item := range items {
			x, err := goValue(item, t)
			if err != nil {
				return none, fmt.Errorf("element %d: %w", i, err)
			}
			out = reflect.Append(out, reflect.ValueOf(x))
		}
		return out, nil
	}
	var out reflect.Value
	for i, item := range items {
		row, err := goSlice(item, t, depth+1)
		switch {
		case err != nil:
			return none, fmt.Errorf("element %d: %w", i, err)
		case i == 0:
			out = reflect.MakeSlice(reflect.SliceOf(row.Type()), 0, len(items))
		case row.Type() != out.Type().Elem() || row.Len() != out.Index(0).Len():
			return none, fmt.Errorf("element %d: the rows of an array must be of one length", i)
		}
		out = reflect.Append(out, row)
	}
	return out, nil
}

var guidForm = regexp.MustCompile(`^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$`)

// goValue is one value as gopcua holds it.
func goValue(v models.Value, t ua.TypeID) (any, error) {
	switch t {
	case ua.TypeIDBoolean:
		if b, ok := v.AsBool(); ok {
			return b, nil
		}
	case ua.TypeIDSByte:
		return signed[int8](v, math.MinInt8, math.MaxInt8)
	case ua.TypeIDInt16:
		return signed[int16](v, math.MinInt16, math.MaxInt16)
	case ua.TypeIDInt32:
		return signed[int32](v, math.MinInt32, math.MaxInt32)
	case ua.TypeIDInt64:
		return signed[int64](v, math.MinInt64, math.MaxInt64)
	case ua.TypeIDByte:
		return unsigned[uint8](v, math.MaxUint8)
	case ua.TypeIDUint16:
		return unsigned[uint16](v, math.MaxUint16)
	case ua.TypeIDUint32:
		return unsigned[uint32](v, math.MaxUint32)
	case ua.TypeIDUint64:
		return unsigned[uint64](v, math.MaxUint64)
	case ua.TypeIDStatusCode:
		return unsigned[ua.StatusCode](v, math.MaxUint32)
	case ua.TypeIDFloat:
		f, ok := v.AsFloat()
		if ok && math.IsInf(float64(float32(f)), 0) {
			return nil, fmt.Errorf("%s is too large for Float", v)
		}
		if ok {
			return float32(f), nil
		}
	case ua.TypeIDDouble:
		if f, ok := v.AsFloat(); ok {
			return f, nil
		}
	case ua.TypeIDByteString:
		if fitted, err := v.Fit(models.TypeBytes); err == nil {
			b, _ := fitted.AsBytes()
			return b, nil
		}
	default:
		if s, ok := v.AsString(); ok {
			return fromText(s, t)
		}
	}
	return nil, fmt.Errorf("the node holds %s, which cannot be %s", TypeName(t), v)
}

func fromText(s string, t ua.TypeID) (any, error) {
	switch t {
	case ua.TypeIDString:
		return s, nil
	case ua.TypeIDXMLElement:
		return ua.XMLElement(s), nil
	case ua.TypeIDLocalizedText:
		return ua.NewLocalizedText(s), nil
	case ua.TypeIDQualifiedName:
		ns, name, ok := strings.Cut(s, ":")
		n, err := strconv.ParseUint(ns, 10, 16)
		if !ok || err != nil {
			return &ua.QualifiedName{Name: s}, nil
		}
		return &ua.QualifiedName{NamespaceIndex: uint16(n), Name: name}, nil
	case ua.TypeIDNodeID:
		return ParseNode(s)
	case ua.TypeIDGUID:
		if !guidForm.MatchString(s) {
			return nil, fmt.Errorf("must be a GUID, got %q", s)
		}
		return ua.NewGUID(s), nil
	case ua.TypeIDDateTime:
		at, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			return nil, fmt.Errorf("must be a time such as 2026-01-31T12:00:00Z, got %q", s)
		}
		at = at.UTC()
		// A DateTime counts 100 ns from 1601 on; gopcua counts in an int64 of
		// nanoseconds from 1970 on.
		if at.Year() < 1678 || at.Year() > 2261 {
			return nil, fmt.Errorf("the year %d does not fit", at.Year())
		}
		return at.Truncate(100 * time.Nanosecond), nil
	}
	return nil, fmt.Errorf("values of %s cannot be written", TypeName(t))
}

func signed[T int8 | int16 | int32 | int64](v models.Value, low, high int64) (any, error) {
	fitted, err := v.Fit(models.TypeInt)
	if err != nil {
		return nil, err
	}
	i, ok := fitted.AsInt()
	if !ok || i < low || i > high {
		return nil, fmt.Errorf("must be from %d to %d, got %s", low, high, v)
	}
	return T(i), nil
}

func unsigned[T uint8 | uint16 | uint32 | uint64 | ua.StatusCode](v models.Value, high uint64) (any, error) {
	fitted, err := v.Fit(models.TypeInt)
	if err != nil {
		return nil, err
	}
	u, ok := fitted.AsUint()
	if !ok || u > high {
		return nil, fmt.Errorf("must be from 0 to %d, got %s", high, v)
	}
	return T(u), nil
}

// HoldsNumber reports whether a variant holds a Float or Double, of which a
// null Value is a NaN or infinity.
func HoldsNumber(v *ua.Variant) bool {
	return v != nil && (v.Type() == ua.TypeIDFloat || v.Type() == ua.TypeIDDouble) && v.Value() != nil
}
