package modbussim

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/modbus"
	"github.com/whimbrel-edge/whimbrel/simulators/lifelike"
	"github.com/whimbrel-edge/whimbrel/simulators/signal"
)

// ModelUnit is the unit that FromModel makes, its id and the simulator's name
// apart.
const ModelUnit = "device"

// address is a property's address as the Modbus driver takes it.
type address struct {
	Table         string        `json:"table"`
	Register      *uint16       `json:"register"`
	Reference     *models.Value `json:"reference"`
	Encoding      string        `json:"encoding"`
	Order         string        `json:"order"`
	Length        int           `json:"length"`
	Bit           *int          `json:"bit"`
	Scale         float64       `json:"scale"`
	Offset        float64       `json:"offset"`
	ScaleFrom     *uint16       `json:"scaleFrom"`
	NullValue     *models.Value `json:"nullValue"`
	WriteFunction string        `json:"writeFunction"` // both functions are answered
}

// mapped is a property with its place in the map.
type mapped struct {
	property models.Property
	n        int
	address  address
	point    Point
	compiled *point
	shared   bool // shows what others put where it lies
}

// FromModel makes a configuration of one unit, 1, whose map is the model's:
// what is read moves, what is written is remembered. Notes say where properties
// lie on top of each other, so that they cannot all move.
func FromModel(m *models.DeviceModel) (cfg Config, notes []string, err error) {
	b := mapBuilder{factors: map[[2]int]int{}, owners: map[[2]int][]*mapped{}, signals: map[string]signal.Spec{}}
	var all []*mapped
	var errs []error
	for n, p := range m.Spec.Properties {
		mp, err := b.place(p, n)
		if err != nil {
			errs = append(errs, fmt.Errorf("property %s: %w", p.Name, err))
			continue
		}
		all = append(all, mp)
	}
	if err := errors.Join(errs...); err != nil {
		return Config{}, nil, fmt.Errorf("modbussim: model %s: %w", m.Metadata.Name, err)
	}
	for _, mp := range all {
		b.factor(mp)
	}
	b.layFactors()
	// Those that are written come first: what they hold must be theirs.
	slices.SortStableFunc(all, func(a, c *mapped) int {
		return writtenLast(a) - writtenLast(c)
	})
	for _, mp := range all {
		if err := b.lay(mp); err != nil {
			errs = append(errs, fmt.Errorf("property %s: %w", mp.property.Name, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return Config{}, nil, fmt.Errorf("modbussim: model %s: %w", m.Metadata.Name, err)
	}
	unit := Unit{Unit: 1, Name: ModelUnit, Memory: b.memory}
	for _, mp := range b.laid {
		unit.Points = append(unit.Points, mp.point)
	}
	return Config{Name: m.Metadata.Name, Signals: b.signals, Units: []Unit{unit}}, b.notes, nil
}

func writtenLast(mp *mapped) int {
	if mp.property.Access.Writable() {
		return 0
	}
	return 1
}

// mapBuilder lays properties into tables.
type mapBuilder struct {
	factors map[[2]int]int       // scale factors by table and register
	owners  map[[2]int][]*mapped // what a cell shows
	laid    []*mapped
	memory  []Memory
	signals map[string]signal.Spec
	notes   []string
}

// place reads a property's address.
func (b *mapBuilder) place(p models.Property, n int) (*mapped, error) {
	mp := &mapped{property: p, n: n}
	a := &mp.address
	if len(p.Address) == 0 {
		return nil, errors.New("it has no address")
	}
	if err := models.DecodeInto(p.Address, a); err != nil {
		return nil, fmt.Errorf("address: %w", err)
	}
	pt := Point{Name: p.Name, Table: a.Table, Register: a.Register, Encoding: a.Encoding, Order: a.Order, Length: a.Length, Bit: a.Bit, Scale: a.Scale, Offset: a.Offset}
	if a.Bit != nil {
		pt.Encoding = "" // the register's; a point's is the bit's
	} else if p.Type == models.TypeBool && pt.Encoding == "" {
		pt.Encoding = "bool"
	}
	if v := a.Reference; v != nil {
		text, isText := v.AsString()
		if !isText {
			text = v.String()
		}
		pt.Reference, pt.Table = text, ""
	}
	mp.point = pt
	var err error
	mp.compiled, err = pt.compile()
	return mp, err
}

// factor chooses the scale factor that a property needs: one for all who share
// the register.
func (b *mapBuilder) factor(mp *mapped) {
	if mp.address.ScaleFrom == nil {
		return
	}
	at := [2]int{int(mp.compiled.table), int(*mp.address.ScaleFrom)}
	for power := -2; ; power++ {
		f := mp.format(power)
		low, high := values(mp.property, f, mp.n)
		if power == 3 || low >= f.Low && high <= f.High && high < f.High*0.9 {
			if old, any := b.factors[at]; !any || power > old {
				b.factors[at] = power
			}
			return
		}
	}
}

// values is how far a property would go, were its format no limit.
func values(p models.Property, f lifelike.Format, n int) (low, high float64) {
	v := lifelike.For(p, lifelike.Format{}, n)
	if s := v.Signal.Sine; s != nil {
		return s.Min, s.Max
	}
	if r := v.Signal.Ramp; r != nil {
		return r.From, r.To
	}
	low, _ = signal.Number(v.Start)
	return low, low
}

// layFactors makes points of the scale factors, before anything else: nothing
// may move them.
func (b *mapBuilder) layFactors() {
	for _, at := range slices.SortedFunc(maps.Keys(b.factors), func(a, c [2]int) int { return 1<<17*(a[0]-c[0]) + a[1] - c[1] }) {
		table, register := modbus.Table(at[0]), uint16(at[1])
		pt := Point{Name: fmt.Sprintf("scale factor in %s %d", table, register), Table: table.String(), Register: &register, Encoding: "int16", Value: int64(b.factors[at])}
		mp := &mapped{point: pt, n: -1}
		b.laid = append(b.laid, mp)
		b.owners[at] = []*mapped{mp}
	}
}

// format is the numbers that a property's registers can hold.
func (mp *mapped) format(power int) lifelike.Format {
	c := mp.compiled
	scale := c.scale * math.Pow10(power)
	f := lifelike.Format{Zero: mp.point.Offset, Step: math.Abs(scale)}
	low, high := 0.0, 0.0
	switch e := c.encoding; e {
	case modbus.Int16, modbus.Int32, modbus.Int64:
		high = math.Pow(2, float64(16*e.Registers()-1)) - 1
		low = -high
	case modbus.Uint16, modbus.Uint32, modbus.Uint64:
		high = math.Pow(2, float64(16*e.Registers())) - 1
	default: // floats have no grid
		f.Step = 0
		if mp.property.Type == models.TypeInt {
			f.Step = 1
		}
		low, high = lifelike.Any.Low, lifelike.Any.High
	}
	// Whole numbers stay exact in the floats that signals are.
	low, high = max(low, lifelike.Any.Low), min(high, lifelike.Any.High)
	f.Low, f.High = low*scale+f.Zero, high*scale+f.Zero
	if f.Low > f.High {
		f.Low, f.High = f.High, f.Low
	}
	if raw, ok := mp.null(); ok {
		avoid := raw*scale + f.Zero
		f.Avoid = &avoid
	}
	return f
}

// null is the raw number that means "not implemented". Manuals write 0x8000 for
// an int16, too.
func (mp *mapped) null() (float64, bool) {
	v := mp.address.NullValue
	if v == nil || !v.IsNumber() {
		return 0, false
	}
	raw, _ := v.AsFloat()
	bits := 16 * mp.compiled.encoding.Registers()
	half := math.Pow(2, float64(bits-1))
	switch mp.compiled.encoding {
	case modbus.Int16, modbus.Int32, modbus.Int64:
		if raw >= half {
			raw -= 2 * half
		}
	case modbus.Uint16, modbus.Uint32, modbus.Uint64:
		if raw < 0 {
			raw += 2 * half
		}
	}
	return raw, true
}

// lay puts a property into its cells, or lets it show what is there.
func (b *mapBuilder) lay(mp *mapped) error {
	c := mp.compiled
	writable := mp.property.Access.Writable()
	var others []*mapped
	for i := range c.count {
		for _, o := range b.owners[[2]int{int(c.table), int(c.address) + i}] {
			apart := c.bit >= 0 && o.compiled != nil && o.compiled.bit >= 0 && o.compiled.bit != c.bit
			if !apart && !slices.Contains(others, o) {
				others = append(others, o)
			}
		}
	}
	if len(others) > 0 {
		return b.share(mp, others)
	}
	power := 0
	if mp.address.ScaleFrom != nil {
		power = b.factors[[2]int{int(c.table), int(*mp.address.ScaleFrom)}]
		mp.point.Scale = c.scale * math.Pow10(power)
	}
	v := lifelike.For(mp.property, mp.format(power), mp.n)
	if c.encoding == modbus.String {
		avoid := ""
		if mp.address.NullValue != nil {
			avoid, _ = mp.address.NullValue.AsString()
		}
		text := lifelike.Text(2*c.count, avoid)
		v = lifelike.Values{Signal: signal.Spec{Constant: text}, Start: text}
	}
	if raw, ok := mp.null(); ok && c.bit >= 0 && len(b.owners[[2]int{int(c.table), int(c.address)}]) == 0 {
		// One bit keeps the register from meaning "not implemented".
		off := uint16(int64(raw))>>c.bit&1 == 1
		v = lifelike.Values{Signal: signal.Spec{Constant: !off}, Start: !off}
	}
	name := lifelike.Name(mp.property.Name)
	mp.point.Signal = name
	if writable {
		mp.point.Writable, mp.point.Value = true, v.Start
		if isNumber := mp.property.Type == models.TypeInt || mp.property.Type == models.TypeFloat; isNumber {
			mp.point.Minimum, mp.point.Maximum = lifelike.Bounds(mp.property)
		}
	} else {
		b.signals[name] = v.Signal
	}
	b.laid = append(b.laid, mp)
	for i := range c.count {
		at := [2]int{int(c.table), int(c.address) + i}
		b.owners[at] = append(b.owners[at], mp)
	}
	return nil
}

// share lets a property lie on others. Memory takes the cells that are nobody's,
// and what is written.
func (b *mapBuilder) share(mp *mapped, others []*mapped) error {
	c := mp.compiled
	names := ""
	for _, o := range others {
		if o.compiled == nil && mp.property.Access.Writable() {
			return fmt.Errorf("it is written to the %s", o.point.Name)
		}
		names += ", " + o.point.Name
	}
	b.memory = append(b.memory, Memory{Table: c.table.String(), Register: c.address, Count: c.count})
	b.notes = append(b.notes, fmt.Sprintf("%s shows what %s put where it lies", mp.property.Name, names[2:]))
	return nil
}

// ModelConnection is what a device's connection says to reach the unit that
// FromModel made.
func (s *Server) ModelConnection() json.RawMessage {
	text, _ := json.Marshal(map[string]any{"url": s.URL(ModelUnit), "unit": 1}) // strings and numbers do not fail
	return text
}
