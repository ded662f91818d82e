package modbus

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
	wire "github.com/whimbrel-edge/whimbrel/protocols/modbus"
)

// point is a property's address, compiled. The fields at its end are what has
// been learned while reading; they belong to whoever calls Read and Write.
type point struct {
	kind      models.Type
	table     wire.Table
	register  uint16 // or coil
	width     int    // in registers or bits
	encoding  wire.Encoding
	order     wire.Order
	bit       int // -1: none
	scale     float64
	offset    float64
	linear    linear // for type float
	whole     whole  // for type int
	scaleFrom int    // -1: none
	null      []byte // registers that mean "not implemented"
	writable  bool
	multiple  bool // write with function 15 or 16

	power int // the scale factor last read, noPower before
	text  struct {
		raw   []byte
		value models.Value
	} // the string last read: most stay as they are
}

// noPower is the scale factor that SunSpec gives to what is not implemented,
// and that stands for one not read yet.
const noPower = math.MinInt16

// setPower takes the scale factor just read.
func (pt *point) setPower(power int) {
	if power != pt.power {
		pt.power = power
		pt.linear = newLinear(pt.scale, pt.offset, power)
	}
}

// decode makes a value of registers as they travelled. For a table of bits, on
// is the bit.
func (pt *point) decode(regs []byte, on bool) mappers.Result {
	if pt.table.Bits() {
		return mappers.Result{Value: models.Bool(on)}
	}
	if pt.null != nil && bytes.Equal(regs, pt.null) || pt.scaleFrom >= 0 && pt.power == noPower {
		return bad(models.ReasonNotImplemented)
	}
	if pt.bit >= 0 {
		return mappers.Result{Value: models.Bool(pt.register16(regs)>>pt.bit&1 == 1)}
	}
	if pt.encoding == wire.String {
		if pt.text.raw == nil || !bytes.Equal(pt.text.raw, regs) {
			v, err := pt.encoding.Decode(pt.order, regs)
			if err != nil {
				return bad(models.ReasonProtocolError)
			}
			pt.text.raw = append(pt.text.raw[:0], regs...)
			pt.text.value = models.String(v.Text())
		}
		return mappers.Result{Value: pt.text.value}
	}
	v, err := pt.encoding.Decode(pt.order, regs)
	if err != nil {
		return bad(models.ReasonProtocolError)
	}
	return pt.value(v)
}

// value makes a property's value of a decoded number or truth.
func (pt *point) value(v wire.Value) mappers.Result {
	switch pt.kind {
	case models.TypeBool:
		return mappers.Result{Value: models.Bool(v.Bool())}
	case models.TypeInt:
		switch {
		case v.Kind() == wire.KindUint && pt.whole == (whole{scale: 1}):
			return mappers.Result{Value: models.Uint(v.Uint())}
		case v.Kind() == wire.KindUint && v.Uint() > math.MaxInt64:
			return bad(models.ReasonOutOfRange)
		}
		i, ok := pt.whole.apply(v.Int())
		if !ok {
			return bad(models.ReasonOutOfRange)
		}
		return mappers.Result{Value: models.Int(i)}
	}
	f := v.Float()
	if !pt.linear.identity() {
		f = pt.linear.apply(f)
	}
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return bad(models.ReasonNotANumber)
	}
	return mappers.Result{Value: models.Float(f)}
}

func bad(reason models.Reason) mappers.Result {
	return mappers.Result{Quality: models.Bad, Reason: reason}
}

// register16 is the register that a bit lies in, with its bytes in order.
func (pt *point) register16(regs []byte) uint16 {
	if pt.order.SwapBytes {
		return binary.LittleEndian.Uint16(regs)
	}
	return binary.BigEndian.Uint16(regs)
}

// setBit changes the point's bit in its register.
func (pt *point) setBit(reg []byte, on bool) {
	r := pt.register16(reg)
	if on {
		r |= 1 << pt.bit
	} else {
		r &^= 1 << pt.bit
	}
	if pt.order.SwapBytes {
		binary.LittleEndian.PutUint16(reg, r)
	} else {
		binary.BigEndian.PutUint16(reg, r)
	}
}

// encode lays a value as the registers that are to be written. It is not for
// bits.
func (pt *point) encode(v models.Value) ([]byte, error) {
	regs := make([]byte, 2*pt.width)
	w, err := pt.raw(v)
	if err == nil {
		err = pt.encoding.Encode(pt.order, regs, w)
	}
	switch {
	case errors.Is(err, wire.ErrOverflow):
		return nil, fmt.Errorf("%s, got %s", pt.holds(), v)
	case err != nil:
		return nil, fmt.Errorf("%s cannot be written as %s", v, pt.encoding)
	case pt.null != nil && bytes.Equal(regs, pt.null):
		return nil, fmt.Errorf("%s cannot be written: its raw value means not implemented", v)
	}
	return regs, nil
}

// raw makes the number or text that the registers are to hold.
func (pt *point) raw(v models.Value) (wire.Value, error) {
	switch pt.kind {
	case models.TypeBool:
		if b, ok := v.AsBool(); ok {
			return wire.BoolValue(b), nil
		}
	case models.TypeString:
		if s, ok := v.AsString(); ok {
			return wire.StringValue(s), nil
		}
	case models.TypeInt:
		i, isInt := v.AsInt()
		u, isUint := v.AsUint()
		switch {
		case pt.whole == (whole{scale: 1}) && isInt:
			return wire.IntValue(i), nil
		case pt.whole == (whole{scale: 1}) && isUint:
			return wire.UintValue(u), nil
		case isInt || isUint:
			raw, ok := pt.whole.invert(i)
			if !isInt || !ok {
				return wire.Value{}, wire.ErrOverflow
			}
			return wire.IntValue(raw), nil
		}
	case models.TypeFloat:
		if f, ok := v.AsFloat(); ok {
			if !pt.linear.identity() {
				f = pt.linear.invert(f)
			}
			return wire.FloatValue(f), nil
		}
	}
	return wire.Value{}, errors.New("wrong type")
}

// holds says which values the point can be given.
func (pt *point) holds() string {
	scaled := pt.encoding.String()
	if pt.scale != 1 {
		scaled += fmt.Sprintf(" with scale %v", pt.scale)
	}
	if pt.offset != 0 {
		scaled += fmt.Sprintf(" and offset %v", pt.offset)
	}
	if pt.scaleFrom >= 0 && pt.power != noPower {
		scaled += fmt.Sprintf(" and scale factor %d", pt.power)
	}
	if pt.encoding == wire.String {
		return fmt.Sprintf("must be at most %d bytes (%s)", 2*pt.width, plural(pt.width, "register"))
	}
	var least, most wire.Value
	switch bits := 16 * pt.width; pt.encoding {
	case wire.Int16, wire.Int32, wire.Int64:
		least, most = wire.IntValue(int64(math.MinInt64)>>(64-bits)), wire.IntValue(int64(math.MaxInt64)>>(64-bits))
	case wire.Uint16, wire.Uint32, wire.Uint64:
		least, most = wire.UintValue(0), wire.UintValue(uint64(math.MaxUint64)>>(64-bits))
	default:
		least, most = wire.FloatValue(-math.MaxFloat32), wire.FloatValue(math.MaxFloat32)
	}
	a, b := pt.value(least).Value, pt.value(most).Value
	if a.IsNull() || b.IsNull() { // a scaled 64-bit encoding holds more than a value can be
		return fmt.Sprintf("does not fit %s", scaled)
	}
	if order, _ := a.Compare(b); order > 0 {
		a, b = b, a
	}
	return fmt.Sprintf("must be from %s to %s (%s)", a, b, scaled)
}

// canonical is the value as decode would give it after encode.
func (pt *point) canonical(v models.Value) (models.Value, error) {
	if pt.table.Bits() || pt.bit >= 0 {
		if _, ok := v.AsBool(); !ok {
			return models.Null, fmt.Errorf("must be a bool, got %s", v)
		}
		return v, nil
	}
	if pt.scaleFrom >= 0 && pt.power == noPower {
		return v, nil // how it is scaled is known only after a read
	}
	regs, err := pt.encode(v)
	if err != nil {
		return models.Null, err
	}
	if pt.encoding == wire.String {
		w, err := pt.encoding.Decode(pt.order, regs)
		if err != nil {
			return models.Null, err
		}
		return models.String(w.Text()), nil
	}
	return pt.decode(regs, false).Value, nil
}
