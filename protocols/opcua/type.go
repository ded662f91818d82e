package opcua

import (
	"fmt"
	"reflect"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
)

// Shape is what a variant holds: values of one type, one or an array of them.
type Shape struct {
	Type  ua.TypeID // 0 (null) when it is not known
	Array bool
}

// ShapeOf is a variant's.
func ShapeOf(v *ua.Variant) Shape {
	if v == nil {
		return Shape{}
	}
	return Shape{Type: v.Type(), Array: v.Has(ua.VariantArrayValues)}
}

var names = map[ua.TypeID]string{
	ua.TypeIDBoolean: "Boolean", ua.TypeIDSByte: "SByte", ua.TypeIDByte: "Byte", ua.TypeIDInt16: "Int16", ua.TypeIDUint16: "UInt16",
	ua.TypeIDInt32: "Int32", ua.TypeIDUint32: "UInt32", ua.TypeIDInt64: "Int64", ua.TypeIDUint64: "UInt64", ua.TypeIDFloat: "Float",
	ua.TypeIDDouble: "Double", ua.TypeIDString: "String", ua.TypeIDDateTime: "DateTime", ua.TypeIDGUID: "Guid",
	ua.TypeIDByteString: "ByteString", ua.TypeIDXMLElement: "XmlElement", ua.TypeIDNodeID: "NodeId", ua.TypeIDStatusCode: "StatusCode",
	ua.TypeIDQualifiedName: "QualifiedName", ua.TypeIDLocalizedText: "LocalizedText",
}

// ParseType finds a type by the name that the specification gives it.
func ParseType(name string) (ua.TypeID, error) {
	for t, n := range names {
		if n == name {
			return t, nil
		}
	}
	return 0, fmt.Errorf("type %q is none of Boolean, SByte, Byte, Int16, UInt16, Int32, UInt32, Int64, UInt64, Float, Double, String, "+
		"DateTime, Guid, ByteString, XmlElement, NodeId, StatusCode, QualifiedName, LocalizedText", name)
}

// TypeName is the inverse of ParseType.
func TypeName(t ua.TypeID) string {
	if n, ok := names[t]; ok {
		return n
	}
	return fmt.Sprintf("type %d", t)
}

func (s Shape) String() string {
	if s.Array {
		return TypeName(s.Type) + "[]"
	}
	return TypeName(s.Type)
}

// subtypes are the types of the specification that travel as another.
var subtypes = map[uint32]ua.TypeID{
	id.Enumeration: ua.TypeIDInt32,
	id.Duration:    ua.TypeIDDouble,
	id.UtcTime:     ua.TypeIDDateTime,
	id.LocaleID:    ua.TypeIDString,
	id.Counter:     ua.TypeIDUint32,
	id.IntegerID:   ua.TypeIDUint32,
	id.Image:       ua.TypeIDByteString,
}

// TypeOf is the type in which values of a node's DataType travel. It is not
// known for abstract types and those that a server defines itself.
func TypeOf(dataType *ua.NodeID) (ua.TypeID, bool) {
	if dataType == nil || dataType.Namespace() != 0 {
		return 0, false
	}
	if t := ua.TypeID(dataType.IntID()); dataType.IntID() < 256 && names[t] != "" {
		return t, true
	}
	t, ok := subtypes[dataType.IntID()]
	return t, ok
}

// Carries reports whether values of a type can be carried.
func Carries(t ua.TypeID) bool { return names[t] != "" }

// goTypes are what gopcua holds the types in that can be written.
var goTypes = map[ua.TypeID]reflect.Type{
	ua.TypeIDBoolean:       reflect.TypeFor[bool](),
	ua.TypeIDSByte:         reflect.TypeFor[int8](),
	ua.TypeIDByte:          reflect.TypeFor[uint8](),
	ua.TypeIDInt16:         reflect.TypeFor[int16](),
	ua.TypeIDUint16:        reflect.TypeFor[uint16](),
	ua.TypeIDInt32:         reflect.TypeFor[int32](),
	ua.TypeIDUint32:        reflect.TypeFor[uint32](),
	ua.TypeIDInt64:         reflect.TypeFor[int64](),
	ua.TypeIDUint64:        reflect.TypeFor[uint64](),
	ua.TypeIDFloat:         reflect.TypeFor[float32](),
	ua.TypeIDDouble:        reflect.TypeFor[float64](),
	ua.TypeIDString:        reflect.TypeFor[string](),
	ua.TypeIDDateTime:      reflect.TypeFor[time.Time](),
	ua.TypeIDGUID:          reflect.TypeFor[*ua.GUID](),
	ua.TypeIDByteString:    reflect.TypeFor[[]byte](),
	ua.TypeIDXMLElement:    reflect.TypeFor[ua.XMLElement](),
	ua.TypeIDNodeID:        reflect.TypeFor[*ua.NodeID](),
	ua.TypeIDStatusCode:    reflect.TypeFor[ua.StatusCode](),
	ua.TypeIDQualifiedName: reflect.TypeFor[*ua.QualifiedName](),
	ua.TypeIDLocalizedText: reflect.TypeFor[*ua.LocalizedText](),
}
