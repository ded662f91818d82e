package opcuasim

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/opcua"
	"github.com/whimbrel-edge/whimbrel/simulators/signal"
)

// node is a variable ready to run. What it shows belongs to the server's lock.
type node struct {
	cfg    Node
	name   string
	id     *ua.NodeID
	signal string // "" for an array, and where it is replayed
	// replayed nodes show a recording; their shape may change.
	replayed bool
	shape    opcua.Shape

	shown   any // the signal's value that variant holds
	variant *ua.Variant
	initial *ua.Variant // of an array
	at      time.Time   // the source timestamp
	status  ua.StatusCode
}

// zero is what an unwritten input holds.
func (n *node) zero() any {
	switch n.shape.Type {
	case ua.TypeIDBoolean:
		return false
	case ua.TypeIDDateTime:
		return "1970-01-01T00:00:00Z"
	case ua.TypeIDGUID:
		return "00000000-0000-0000-0000-000000000000"
	case ua.TypeIDNodeID:
		return "i=0"
	case ua.TypeIDString, ua.TypeIDByteString, ua.TypeIDXMLElement, ua.TypeIDQualifiedName, ua.TypeIDLocalizedText:
		return ""
	}
	return 0.0
}

// keep makes an array show a list, as YAML or Go has it.
func (n *node) keep(list any) error {
	if list == nil {
		list = []any{}
	}
	text, err := json.Marshal(list)
	if err != nil {
		return err
	}
	v, err := models.JSON(text)
	if err != nil {
		return fmt.Errorf("value: an array needs a list: %w", err)
	}
	variant, err := opcua.Variant(v, n.shape)
	if err != nil {
		return fmt.Errorf("value: %w", err)
	}
	n.variant = variant
	if n.initial == nil {
		n.initial = variant
	}
	return nil
}

// fits checks that a node can show its signal.
func (n *node) fits(set *signal.Set) error {
	if n.signal == "" {
		return nil
	}
	v, _ := set.Value(n.signal)
	_, isText := v.(string)
	_, isBool := v.(bool)
	_, wantsText := n.zero().(string)
	if isText != wantsText || isBool != (n.shape.Type == ua.TypeIDBoolean) {
		return fmt.Errorf("%v cannot be shown as %s", v, n.shape)
	}
	if set.IsInput(n.signal) {
		_, err := opcua.Variant(asValue(v), n.shape)
		return err
	}
	return nil
}

// show makes the node hold a signal's value. What is out of range stays at the
// end of the range, as in a device.
func (n *node) show(v any, now time.Time) error {
	variant, err := n.encode(v)
	if err != nil {
		return err
	}
	n.shown, n.variant, n.at = v, variant, now
	return nil
}

func (n *node) encode(v any) (*ua.Variant, error) {
	low, high, isInt := bounds(n.shape.Type)
	f, isNumber := signal.Number(v)
	switch {
	case isNumber && isInt && math.IsNaN(f):
		return nil, errors.New("NaN is no integer")
	case isNumber && isInt:
		if f, isFloat := v.(float64); isFloat {
			f = math.RoundToEven(f)
			switch {
			case f <= float64(low):
				return opcua.Variant(models.Int(low), n.shape)
			case f >= float64(high):
				return opcua.Variant(models.Uint(high), n.shape)
			}
			v = f
		}
	case isNumber && n.shape.Type == ua.TypeIDFloat:
		return ua.NewVariant(float32(f)) // NaN and infinities too
	case isNumber && n.shape.Type == ua.TypeIDDouble:
		return ua.NewVariant(f)
	}
	return opcua.Variant(asValue(v), n.shape)
}

func bounds(t ua.TypeID) (low int64, high uint64, ok bool) {
	switch t {
	case ua.TypeIDSByte:
		return math.MinInt8, math.MaxInt8, true
	case ua.TypeIDInt16:
		return math.MinInt16, math.MaxInt16, true
	case ua.TypeIDInt32:
		return math.MinInt32, math.MaxInt32, true
	case ua.TypeIDInt64:
		return math.MinInt64, math.MaxInt64, true
	case ua.TypeIDByte:
		return 0, math.MaxUint8, true
	case ua.TypeIDUint16:
		return 0, math.MaxUint16, true
	case ua.TypeIDUint32, ua.TypeIDStatusCode:
		return 0, math.MaxUint32, true
	case ua.TypeIDUint64:
		return 0, math.MaxUint64, true
	}
	return 0, 0, false
}

// asValue is a signal's value in Whimbrel's words.
func asValue(v any) models.Value {
	switch v := v.(type) {
	case bool:
		return models.Bool(v)
	case int64:
		return models.Int(v)
	case uint64:
		return models.Uint(v)
	case float64:
		return models.Float(v)
	case string:
		return models.String(v)
	}
	return models.Null
}

// asSignal is what a client wrote, as signals have it.
func (n *node) asSignal(v *ua.Variant) (any, error) {
	switch x := v.Value().(type) {
	case bool:
		return x, nil
	case float32:
		return float64(x), nil
	case float64:
		return x, nil
	}
	want := models.TypeString
	if _, _, isInt := bounds(n.shape.Type); isInt {
		want = models.TypeInt
	}
	if n.shape.Type == ua.TypeIDByteString {
		b, _ := v.Value().([]byte)
		text, _ := json.Marshal(b)
		var s string
		err := json.Unmarshal(text, &s)
		return s, err
	}
	out, err := opcua.Value(v, want)
	if err != nil {
		return nil, err
	}
	if i, ok := out.AsInt(); ok {
		return i, nil
	}
	if u, ok := out.AsUint(); ok {
		return u, nil
	}
	s, _ := out.AsString()
	return s, nil
}

// within tells whether a written value respects the node's bounds.
func (n *node) within(v any) bool {
	f, ok := signal.Number(v)
	if !ok {
		return true
	}
	return (n.cfg.Minimum == nil || f >= *n.cfg.Minimum) && (n.cfg.Maximum == nil || f <= *n.cfg.Maximum)
}

// value is what a read of the value attribute gives.
func (n *node) value(now time.Time) *ua.DataValue {
	dv := &ua.DataValue{Value: n.variant, Status: n.status, SourceTimestamp: n.at, ServerTimestamp: now,
		EncodingMask: ua.DataValueValue | ua.DataValueSourceTimestamp | ua.DataValueServerTimestamp}
	if n.status != ua.StatusOK {
		dv.EncodingMask |= ua.DataValueStatusCode
	}
	if uint32(n.status)&0x8000_0000 != 0 {
		dv.Value = nil
		dv.EncodingMask &^= ua.DataValueValue
	}
	return dv
}

// attribute is any attribute but the value; nil for those that gopcua's own
// node knows.
func (n *node) attribute(a ua.AttributeID) *ua.Variant {
	access := byte(ua.AccessLevelTypeCurrentRead)
	if n.cfg.Writable {
		access |= byte(ua.AccessLevelTypeCurrentWrite)
	}
	switch a {
	case ua.AttributeIDDataType:
		return ua.MustVariant(ua.NewNumericNodeID(0, uint32(n.shape.Type)))
	case ua.AttributeIDValueRank:
		if n.shape.Array {
			return ua.MustVariant(int32(1))
		}
		return ua.MustVariant(int32(-1))
	case ua.AttributeIDAccessLevel, ua.AttributeIDUserAccessLevel:
		return ua.MustVariant(access)
	case ua.AttributeIDHistorizing:
		return ua.MustVariant(false)
	case ua.AttributeIDMinimumSamplingInterval:
		return ua.MustVariant(float64(0))
	case ua.AttributeIDNodeClass:
		return ua.MustVariant(int32(ua.NodeClassVariable))
	case ua.AttributeIDBrowseName:
		return ua.MustVariant(&ua.QualifiedName{NamespaceIndex: n.id.Namespace(), Name: n.name})
	}
	return nil
}

// objects is where the nodes hang.
var objects = ua.NewNumericNodeID(0, id.ObjectsFolder)
