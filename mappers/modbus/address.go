package modbus

import (
	"fmt"
	"math"
	"strconv"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
	wire "github.com/whimbrel-edge/whimbrel/protocols/modbus"
)

// address is a property's address as users write it (address.schema.json).
type address struct {
	Table         string        `json:"table"`
	Register      *int          `json:"register"`
	Reference     *models.Value `json:"reference"`
	Encoding      string        `json:"encoding"`
	Order         string        `json:"order"`
	Length        *int          `json:"length"`
	Bit           *int          `json:"bit"`
	Scale         *float64      `json:"scale"`
	Offset        *float64      `json:"offset"`
	ScaleFrom     *int          `json:"scaleFrom"`
	NullValue     *models.Value `json:"nullValue"`
	WriteFunction string        `json:"writeFunction"`
}

// checker collects what is wrong with a document, with pointers from its root.
type checker struct{ mappers.Checker }

// compile checks a property's address and makes a point of it.
func (c *checker) compile(p mappers.Point, limits limits) (pt point) {
	if len(p.Address) == 0 {
		c.Fail("", "is required: table and register, or reference")
		return pt
	}
	var a address
	if !c.Decode(p.Address, &a) {
		return pt
	}
	before := len(c.Found())
	pt = point{kind: p.Type, bit: -1, scaleFrom: -1, width: 1, writable: p.Access.Writable(), power: noPower}
	c.place(&pt, a)
	if len(c.Found()) > before {
		return pt // what follows depends on the table
	}
	c.encoding(&pt, a, limits)
	if len(c.Found()) > before {
		return pt // what follows depends on the encoding
	}
	c.typeFits(&pt, a)
	c.scaling(&pt, a)
	c.null(&pt, a)
	c.writing(&pt, a)
	if int(pt.register)+pt.width > 1<<16 {
		c.Fail(registerField(a), "%s from register %d goes beyond register 65535", plural(pt.width, "register"), pt.register)
	}
	return pt
}

// wholeFloat takes a number such as 40001.0, which JSON does not tell from 40001.
func wholeFloat(v models.Value, n *int64) bool {
	if !v.IsNumber() {
		return false
	}
	fitted, err := v.Fit(models.TypeInt)
	if err != nil {
		return false
	}
	i, ok := fitted.AsInt()
	*n = i
	return ok
}

func registerField(a address) string {
	if a.Reference != nil {
		return "/reference"
	}
	return "/register"
}

// place finds table and register.
func (c *checker) place(pt *point, a address) {
	switch {
	case a.Register != nil && a.Reference != nil:
		c.Fail("/reference", "must be left out when register is given")
		return
	case a.Register == nil && a.Reference == nil:
		c.Fail("/register", "is required, or else reference")
		return
	}
	if a.Table != "" {
		t, err := wire.ParseTable(a.Table)
		if err != nil {
			c.Fail("/table", "must be coil, discrete, input or holding, got %q", a.Table)
			return
		}
		pt.table = t
	}
	if a.Register != nil {
		if a.Table == "" {
			c.Fail("/table", "is required with register: coil, discrete, input or holding")
		}
		if *a.Register < 0 || *a.Register > math.MaxUint16 {
			c.Fail("/register", "must be from 0 to 65535, got %d", *a.Register)
		}
		pt.register = uint16(*a.Register)
		return
	}
	text, isText := a.Reference.AsString()
	if n, ok := a.Reference.AsInt(); ok || wholeFloat(*a.Reference, &n) {
		if n < 10001 {
			c.Fail("/reference", `must have 5 or 6 digits, such as 40001; a coil's begins with 0 and has to be a string, such as "00001"; got %d`, n)
			return
		}
		text, isText = strconv.FormatInt(n, 10), true
	}
	if !isText {
		c.Fail("/reference", "must be such as 40001, got %s", *a.Reference)
		return
	}
	table, register, err := wire.ParseReference(text)
	if err != nil {
		c.Fail("/reference", "must have 5 or 6 digits: 0 (coil), 1 (discrete), 3 (input) or 4 (holding), then a number from 1 to 65536; got %q", text)
		return
	}
	if pt.table != 0 && pt.table != table {
		c.Fail("/table", "is %s, but reference %s is in the table %s", pt.table, text, table)
	}
	pt.table, pt.register = table, register
}

// encoding finds what the registers hold, and how many there are.
func (c *checker) encoding(pt *point, a address, limits limits) {
	if pt.table.Bits() {
		if a.Encoding != "" && a.Encoding != "bool" {
			c.Fail("/encoding", "must be bool, or left out, in the table %s", pt.table)
		}
		for _, f := range []struct {
			name  string
			given bool
		}{{"order", a.Order != ""}, {"length", a.Length != nil}, {"bit", a.Bit != nil}} {
			if f.given {
				c.Fail("/"+f.name, "must be left out in the table %s: it holds bits", pt.table)
			}
		}
		pt.encoding = wire.Bool
		return
	}
	name := a.Encoding
	switch {
	case name != "":
	case a.Bit != nil:
		name = "uint16"
	case pt.kind == models.TypeBool:
		name = "bool"
	case pt.kind == models.TypeInt || pt.kind == models.TypeFloat:
		name = "uint16"
	default:
		c.Fail("/encoding", "is required for type %s", pt.kind)
		return
	}
	encoding, err := wire.ParseEncoding(name)
	if err != nil {
		c.Fail("/encoding", "must be bool, int16, uint16, int32, uint32, int64, uint64, float32, float64 or string, got %q", name)
		return
	}
	pt.encoding, pt.width = encoding, encoding.Registers()
	if pt.order, err = wire.ParseOrder(a.Order); err != nil {
		c.Fail("/order", "must be ABCD, CDAB, BADC or DCBA, got %q", a.Order)
	}
	switch {
	case encoding == wire.String && a.Length == nil:
		c.Fail("/length", "is required for encoding string: the number of registers")
	case encoding == wire.String && (*a.Length < 1 || *a.Length > wire.MaxReadRegisters):
		c.Fail("/length", "must be from 1 to %d registers, got %d", wire.MaxReadRegisters, *a.Length)
	case encoding == wire.String && pt.writable && *a.Length > wire.MaxWriteRegisters:
		c.Fail("/length", "must be at most %d registers for a property that is written, got %d", wire.MaxWriteRegisters, *a.Length)
	case encoding == wire.String:
		pt.width = *a.Length
	case a.Length != nil:
		c.Fail("/length", "needs encoding string: %s takes %s", encoding, plural(pt.width, "register"))
	}
	if pt.width > limits.maxRegisters {
		c.Fail("/encoding", "takes %d registers, and the connection's maxRegisters is %d", pt.width, limits.maxRegisters)
	}
	if a.Bit != nil {
		if encoding != wire.Int16 && encoding != wire.Uint16 && encoding != wire.Bool {
			c.Fail("/bit", "needs encoding int16, uint16 or bool, the address's is %s", encoding)
		}
		if *a.Bit < 0 || *a.Bit > 15 {
			c.Fail("/bit", "must be from 0 to 15, got %d", *a.Bit)
		}
		pt.bit = *a.Bit
	}
}

// typeFits checks that the property's type can hold what the registers do.
func (c *checker) typeFits(pt *point, a address) {
	holdsBool := pt.bit >= 0 || pt.encoding == wire.Bool
	field, holds := "/encoding", "encoding "+pt.encoding.String()
	switch {
	case pt.table.Bits():
		field, holds = "/table", "the table "+pt.table.String()
	case pt.bit >= 0:
		field, holds = "/bit", "a bit"
	}
	switch pt.kind {
	case models.TypeBool:
		if !holdsBool {
			c.Fail(field, "type bool needs a bit, encoding bool, or the table coil or discrete; it cannot hold %s", holds)
		}
	case models.TypeInt:
		switch {
		case pt.encoding == wire.Float32 || pt.encoding == wire.Float64:
			c.Fail(field, "type int cannot hold %s without rounding; make the property a float", holds)
		case holdsBool || pt.encoding == wire.String:
			c.Fail(field, "type int needs an encoding of ints; it cannot hold %s", holds)
		}
	case models.TypeFloat:
		if holdsBool || pt.encoding == wire.String {
			c.Fail(field, "type float needs an encoding of numbers; it cannot hold %s", holds)
		}
	case models.TypeString:
		if pt.encoding != wire.String {
			c.Fail(field, "type string needs encoding string and length; it cannot hold %s", holds)
		}
	default:
		c.Fail("", "modbus has no values of type %s: use bool, int, float or string", pt.kind)
	}
}

// scaling finds how raw numbers become values.
func (c *checker) scaling(pt *point, a address) {
	scale, offset := 1.0, 0.0
	number := pt.bit < 0 && pt.encoding != wire.Bool && pt.encoding != wire.String
	for _, f := range []struct {
		name  string
		given bool
	}{{"scale", a.Scale != nil}, {"offset", a.Offset != nil}, {"scaleFrom", a.ScaleFrom != nil}} {
		if f.given && !number {
			c.Fail("/"+f.name, "needs an encoding of numbers")
		}
	}
	if a.Scale != nil {
		scale = *a.Scale
	}
	if scale == 0 || math.IsInf(scale, 0) {
		c.Fail("/scale", "must not be %v", scale)
		scale = 1
	}
	if a.Offset != nil {
		offset = *a.Offset
	}
	if a.ScaleFrom != nil {
		pt.scaleFrom = *a.ScaleFrom
		if *a.ScaleFrom < 0 || *a.ScaleFrom > math.MaxUint16 {
			c.Fail("/scaleFrom", "must be from 0 to 65535, got %d", *a.ScaleFrom)
		}
	}
	pt.scale, pt.offset = scale, offset
	if pt.kind != models.TypeInt {
		pt.linear = newLinear(scale, offset, 0)
		return
	}
	// Whole scales keep ints exact; any other would have to round them.
	const hint = "must be whole for type int; make the property a float"
	if scale != math.Trunc(scale) || math.Abs(scale) >= 1<<53 {
		c.Fail("/scale", hint)
	}
	if offset != math.Trunc(offset) || math.Abs(offset) >= 1<<53 {
		c.Fail("/offset", hint)
	}
	if a.ScaleFrom != nil {
		c.Fail("/scaleFrom", "needs type float: the scale factor may be a fraction")
	}
	pt.whole = whole{scale: int64(scale), offset: int64(offset)}
}

// null finds the raw registers that mean "not implemented".
func (c *checker) null(pt *point, a address) {
	if a.NullValue == nil {
		return
	}
	if pt.table.Bits() {
		c.Fail("/nullValue", "must be left out in the table %s: it holds bits", pt.table)
		return
	}
	raw, err := pt.rawOf(*a.NullValue)
	if err != nil {
		c.Fail("/nullValue", "%s", err.Error())
		return
	}
	pt.null = raw
}

// rawOf encodes a raw value as the registers would hold it.
func (pt *point) rawOf(v models.Value) ([]byte, error) {
	regs := make([]byte, 2*pt.width)
	encoding := pt.encoding
	if encoding == wire.Bool || pt.bit >= 0 {
		encoding = wire.Uint16 // the register, not the bit in it
	}
	misfit := fmt.Errorf("must be a raw value that encoding %s can hold, got %s", pt.encoding, v)
	text, isText := v.AsString()
	if encoding == wire.String {
		if !isText || encoding.Encode(pt.order, regs, wire.StringValue(text)) != nil {
			return nil, misfit
		}
		return regs, nil
	}
	if isText || !v.IsNumber() {
		return nil, misfit
	}
	if encoding == wire.Float32 || encoding == wire.Float64 {
		f, _ := v.AsFloat()
		if encoding.Encode(pt.order, regs, wire.FloatValue(f)) != nil {
			return nil, misfit
		}
		return regs, nil
	}
	whole, err := v.Fit(models.TypeInt)
	if err != nil {
		return nil, misfit
	}
	// Signed or unsigned: manuals write 0x8000 for an int16.
	signed := map[int]wire.Encoding{1: wire.Int16, 2: wire.Int32, 4: wire.Int64}[pt.width]
	unsigned := map[int]wire.Encoding{1: wire.Uint16, 2: wire.Uint32, 4: wire.Uint64}[pt.width]
	if i, ok := whole.AsInt(); ok && signed.Encode(pt.order, regs, wire.IntValue(i)) == nil {
		return regs, nil
	}
	if u, ok := whole.AsUint(); ok && unsigned.Encode(pt.order, regs, wire.UintValue(u)) == nil {
		return regs, nil
	}
	return nil, misfit
}

// writing finds the function that writes the point.
func (c *checker) writing(pt *point, a address) {
	if pt.writable && !pt.table.Writable() {
		c.Fail(tableField(a), "the table %s is read-only; the property's access must be Read", pt.table)
	}
	switch a.WriteFunction {
	case "", "auto":
		pt.multiple = pt.width > 1
	case "single":
		if pt.width > 1 {
			c.Fail("/writeFunction", "single writes one register, encoding %s takes %d; use auto or multiple", pt.encoding, pt.width)
		}
	case "multiple":
		pt.multiple = true
	default:
		c.Fail("/writeFunction", "must be auto, single or multiple, got %q", a.WriteFunction)
	}
	if a.WriteFunction != "" && !pt.table.Writable() {
		c.Fail("/writeFunction", "must be left out in the table %s, which is read-only", pt.table)
	}
}

func tableField(a address) string {
	if a.Table == "" {
		return "/reference"
	}
	return "/table"
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}
