package modbussim

import (
	"cmp"
	"errors"
	"fmt"
	"math"

	"github.com/whimbrel-edge/whimbrel/protocols/modbus"
	"github.com/whimbrel-edge/whimbrel/simulators/signal"
)

// unit is a device ready to run. Its name and points are fixed; the contents
// of its tables belong to the server's lock.
type unit struct {
	cfg    Unit
	name   string
	port   *port
	tables [modbus.Holding + 1]cells
	points []*point
	byName map[string]*point
	state  counters
}

// cells is the contents of one table, from base on. Registers take two bytes
// each, bits one.
type cells struct {
	base  int
	width int
	data  []byte
	mode  []mode // a cell each
}

type mode uint8

const (
	absent mode = iota
	readable
	writable
)

// cell gives the bytes of count cells, nil when they are not all there. In
// want mode writable they must be writable, too.
func (c *cells) cells(address uint16, count int, want mode) []byte {
	at := int(address) - c.base
	if at < 0 || at+count > len(c.mode) {
		return nil
	}
	for _, m := range c.mode[at : at+count] {
		if m < want {
			return nil
		}
	}
	return c.data[at*c.width : (at+count)*c.width]
}

// grow makes room for cells at an address and after.
func (c *cells) grow(address, count, width int) {
	if c.mode == nil {
		c.base, c.width = address, width
	}
	low, high := min(c.base, address), max(c.base+len(c.mode), address+count)
	data, modes := make([]byte, (high-low)*width), make([]mode, high-low)
	copy(data[(c.base-low)*width:], c.data)
	copy(modes[c.base-low:], c.mode)
	c.base, c.data, c.mode = low, data, modes
}

// point is one value of a unit, ready to run.
type point struct {
	cfg      Point
	name     string
	signal   string
	table    modbus.Table
	address  uint16
	count    int // cells
	encoding modbus.Encoding
	order    modbus.Order
	bit      int // in a register; -1: the whole of it
	scale    float64
	shown    any // the signal's value that the cells hold
}

func (p Point) compile() (*point, error) {
	out := &point{cfg: p, name: p.Name, signal: cmp.Or(p.Signal, p.Name), bit: -1, scale: cmp.Or(p.Scale, 1)}
	if p.Name == "" {
		return nil, errors.New("a point needs a name")
	}
	var errs []error
	keep := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	var err error
	switch {
	case p.Reference != "" && (p.Table != "" || p.Register != nil):
		keep(errors.New("reference stands for table and register: give one or the other"))
	case p.Reference != "":
		out.table, out.address, err = modbus.ParseReference(p.Reference)
		keep(err)
	case p.Register == nil:
		keep(errors.New("register is missing"))
	default:
		out.address = *p.Register
		out.table, err = modbus.ParseTable(p.Table)
		keep(err)
	}
	natural := "uint16"
	if out.table.Bits() || p.Bit != nil {
		natural = "bool"
	}
	out.encoding, err = modbus.ParseEncoding(cmp.Or(p.Encoding, natural))
	keep(err)
	out.order, err = modbus.ParseOrder(p.Order)
	keep(err)
	out.count = out.encoding.Registers()
	if out.encoding == modbus.String {
		out.count = p.Length
	}
	if p.Bit != nil {
		out.bit = *p.Bit
	}
	plain := p.Scale == 0 && p.Offset == 0
	switch {
	case natural == "bool" && out.encoding != modbus.Bool:
		keep(fmt.Errorf("one bit cannot hold %v", out.encoding))
	case out.table.Bits() && p.Bit != nil:
		keep(errors.New("bit is for registers"))
	case out.table.Bits() && p.Order != "":
		keep(errors.New("order is for registers"))
	case p.Bit != nil && (*p.Bit < 0 || *p.Bit > 15):
		keep(fmt.Errorf("bit %d is not within 0 to 15", *p.Bit))
	case (out.encoding == modbus.String) != (p.Length > 0):
		keep(errors.New("length goes with string, and must be above 0"))
	case !plain && (out.encoding == modbus.String || out.encoding == modbus.Bool):
		keep(fmt.Errorf("scale and offset are for numbers, not for %v", out.encoding))
	case (p.Minimum != nil || p.Maximum != nil) && (!p.Writable || out.encoding == modbus.String):
		keep(errors.New("minimum and maximum are for writable numbers"))
	case p.Writable && out.table != 0 && !out.table.Writable():
		keep(fmt.Errorf("nobody can write to table %v", out.table))
	case int(out.address)+out.count > 1<<16:
		keep(errors.New("it ends beyond register 65535"))
	}
	return out, errors.Join(errs...)
}

// builder gathers what the points of all units make of signals.
type builder struct {
	signals  map[string]signal.Spec
	inputs   map[string]any
	declared map[string]string // input -> unit.point
}

func (b *builder) unit(u *unit) error {
	u.byName = map[string]*point{}
	var errs []error
	for i := range u.tables {
		u.tables[i].width = 2
		if modbus.Table(i).Bits() {
			u.tables[i].width = 1
		}
	}
	for _, m := range u.cfg.Memory {
		t, err := modbus.ParseTable(m.Table)
		switch {
		case err != nil:
		case m.Count < 1 || int(m.Register)+m.Count > 1<<16:
			err = fmt.Errorf("count %d from register %d is not within 65536", m.Count, m.Register)
		default:
			kind := readable
			if t.Writable() {
				kind = writable
			}
			u.tables[t].claim(int(m.Register), m.Count, kind)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("memory: %w", err))
		}
	}
	taken := map[[2]int]*point{} // by table and address
	for _, pc := range u.cfg.Points {
		p, err := pc.compile()
		if err == nil && u.byName[p.name] != nil {
			err = errors.New("two points have this name")
		}
		if err == nil {
			for i := range p.count {
				key := [2]int{int(p.table), int(p.address) + i}
				if o := taken[key]; o != nil && (o.bit < 0 || p.bit < 0 || o.bit == p.bit) {
					err = fmt.Errorf("%v %d is taken by %s", p.table, key[1], o.name)
				}
				taken[key] = p
			}
		}
		if err == nil {
			err = b.point(u, p)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("point %s: %w", pc.Name, err))
			continue
		}
		u.points = append(u.points, p)
		u.byName[p.name] = p
	}
	// Points come after memory: theirs is the last word on who may write.
	for _, p := range u.points {
		kind := readable
		for _, o := range u.touched(p.table, p.address, p.count) {
			if o.cfg.Writable { // itself, or another bit of its register
				kind = writable
			}
		}
		u.tables[p.table].claim(int(p.address), p.count, kind)
	}
	return errors.Join(errs...)
}

func (c *cells) claim(address, count int, kind mode) {
	c.grow(address, count, c.width)
	for i := range count {
		c.mode[address-c.base+i] = kind
	}
}

// touched lists the points that lie in these cells, wholly or in part.
func (u *unit) touched(t modbus.Table, address uint16, count int) []*point {
	var out []*point
	for _, p := range u.points {
		if p.table == t && int(p.address) < int(address)+count && int(address) < int(p.address)+p.count {
			out = append(out, p)
		}
	}
	return out
}

// point declares the point's input or its constant.
func (b *builder) point(u *unit, p *point) error {
	full := u.name + "." + p.name
	switch {
	case p.cfg.Writable:
		if _, ok := b.signals[p.signal]; ok {
			return fmt.Errorf("a writable point is an input, but %s is a signal: let the signal be an expression over the input", p.signal)
		}
		if other, ok := b.declared[p.signal]; ok {
			return fmt.Errorf("the input %s is declared by %s already: give one of them another signal name", p.signal, other)
		}
		b.declared[p.signal] = full
		b.inputs[p.signal] = p.cfg.Value
		if p.cfg.Value == nil {
			b.inputs[p.signal] = p.zero()
		}
	case p.cfg.Value != nil && p.cfg.Signal != "":
		return errors.New("value and signal: give one or the other")
	case p.cfg.Value != nil:
		// No identifier, so no expression can mean it and no signal can clash.
		p.signal = full
		b.inputs[full] = p.cfg.Value
	}
	return nil
}

// zero is what an unwritten input holds.
func (p *point) zero() any {
	switch p.encoding {
	case modbus.Bool:
		return false
	case modbus.String:
		return ""
	}
	return 0.0
}

// resolve finds points whose signal is not there.
func (b *builder) resolve(units []*unit) error {
	var errs []error
	for _, u := range units {
		for _, p := range u.points {
			_, isSignal := b.signals[p.signal]
			_, isInput := b.inputs[p.signal]
			if !isSignal && !isInput {
				errs = append(errs, fmt.Errorf("unit %s: point %s: there is no signal %s, and no value", u.name, p.name, p.signal))
			}
		}
	}
	return errors.Join(errs...)
}

// checkKinds finds points that cannot show their signals, and constants that
// do not fit.
func (b *builder) checkKinds(units []*unit, set *signal.Set) error {
	var errs []error
	for _, u := range units {
		for _, p := range u.points {
			v, _ := set.Value(p.signal)
			_, isText := v.(string)
			_, isBool := v.(bool)
			var err error
			switch {
			case isText != (p.encoding == modbus.String):
				err = fmt.Errorf("%v cannot be shown as %v", v, p.encoding)
			case p.cfg.Writable && isBool != (p.encoding == modbus.Bool):
				err = fmt.Errorf("value %v does not fit %v", v, p.encoding)
			case set.IsInput(p.signal):
				err = p.encoding.Encode(p.order, make([]byte, 2*p.count), p.raw(v))
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("unit %s: point %s: %w", u.name, p.name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// raw is a signal's value as the device holds it, before encoding.
func (p *point) raw(v any) modbus.Value {
	if p.scale == 1 && p.cfg.Offset == 0 || p.encoding == modbus.Bool {
		switch v := v.(type) {
		case bool:
			return modbus.BoolValue(v)
		case int64:
			return modbus.IntValue(v)
		case uint64:
			return modbus.UintValue(v)
		case string:
			return modbus.StringValue(v)
		}
	}
	f, _ := signal.Number(v)
	return modbus.FloatValue((f - p.cfg.Offset) / p.scale)
}

// value is the inverse of raw.
func (p *point) value(raw modbus.Value) any {
	switch raw.Kind() {
	case modbus.KindBool:
		return raw.Bool()
	case modbus.KindString:
		return raw.Text()
	}
	if p.scale == 1 && p.cfg.Offset == 0 {
		switch raw.Kind() {
		case modbus.KindInt:
			return raw.Int()
		case modbus.KindUint:
			return raw.Uint()
		}
	}
	return p.times(raw.Float()) + p.cfg.Offset
}

// times scales a raw number. 0.1 has no exact float and 10 has: dividing by 10
// gives the 71.3 that a person would write where 713*0.1 does not.
func (p *point) times(raw float64) float64 {
	if whole := math.Round(1 / p.scale); whole != 0 && math.Abs(whole*p.scale-1) < 1e-12 {
		return raw / whole
	}
	return raw * p.scale
}

// write puts a signal's value into the unit's cells. What is out of range
// stays at the end of the range, and text is cut, as in a device.
func (u *unit) write(p *point, v any) error {
	c := u.tables[p.table].cells(p.address, p.count, readable)
	raw := p.raw(v)
	if p.table.Bits() {
		c[0] = 0
		if raw.Float() != 0 {
			c[0] = 1
		}
		return nil
	}
	if p.bit >= 0 {
		word, err := modbus.Uint16.Decode(p.order, c)
		if err != nil {
			return err
		}
		bits := word.Uint() &^ (1 << p.bit)
		if raw.Float() != 0 {
			bits |= 1 << p.bit
		}
		return modbus.Uint16.Encode(p.order, c, modbus.UintValue(bits))
	}
	err := p.encoding.Encode(p.order, c, raw)
	if errors.Is(err, modbus.ErrOverflow) {
		err = p.encoding.Encode(p.order, c, p.saturate(raw))
	}
	return err
}

func (p *point) saturate(raw modbus.Value) modbus.Value {
	if raw.Kind() == modbus.KindString {
		return modbus.StringValue(raw.Text()[:2*p.count])
	}
	f := raw.Float()
	low, high := modbus.IntValue(0), modbus.UintValue(math.MaxUint64)
	switch p.encoding {
	case modbus.Int16:
		low, high = modbus.IntValue(math.MinInt16), modbus.IntValue(math.MaxInt16)
	case modbus.Int32:
		low, high = modbus.IntValue(math.MinInt32), modbus.IntValue(math.MaxInt32)
	case modbus.Int64:
		low, high = modbus.IntValue(math.MinInt64), modbus.IntValue(math.MaxInt64)
	case modbus.Uint16:
		high = modbus.UintValue(math.MaxUint16)
	case modbus.Uint32:
		high = modbus.UintValue(math.MaxUint32)
	case modbus.Float32:
		low, high = modbus.FloatValue(-math.MaxFloat32), modbus.FloatValue(math.MaxFloat32)
	}
	switch {
	case math.IsNaN(f):
		return raw // no end of the range is nearer: the cells stay
	case f < 0:
		return low
	}
	return high
}

// read is a point's value as a client would understand it.
func (u *unit) read(p *point) (any, error) {
	c := u.tables[p.table].cells(p.address, p.count, readable)
	if p.table.Bits() {
		return c[0] != 0, nil
	}
	if p.bit >= 0 {
		word, err := modbus.Uint16.Decode(p.order, c)
		return word.Uint()>>p.bit&1 == 1, err
	}
	raw, err := p.encoding.Decode(p.order, c)
	if err != nil {
		return nil, err
	}
	return p.value(raw), nil
}
