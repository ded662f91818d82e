package importer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

// Where SunSpec's registers begin by convention: the marker "SunS" takes two
// registers from 40000, the common model (1) follows with its 2 registers of
// head and 66 of content, and then the models of the device.
const (
	sunspecMarker = 40000
	sunspecCommon = sunspecMarker + 2
	sunspecFirst  = sunspecCommon + 2 + 66
)

const (
	maxGroupDepth = 8
	maxRepeat     = 1000
	maxGroups     = 20_000 // instances of all groups: counts within counts multiply
)

// sunspecModel is one model as SunSpec's repository writes it.
type sunspecModel struct {
	ID    int          `json:"id"`
	Group sunspecGroup `json:"group"`
}

type sunspecGroup struct {
	Name   string          `json:"name"`
	Label  string          `json:"label"`
	Desc   string          `json:"desc"`
	Count  json.RawMessage `json:"count"` // 0: as often as fits; a number; or the name of a point
	Points []sunspecPoint  `json:"points"`
	Groups []sunspecGroup  `json:"groups"`
}

type sunspecPoint struct {
	Name    string          `json:"name"`
	Label   string          `json:"label"`
	Desc    string          `json:"desc"`
	Type    string          `json:"type"`
	Size    int             `json:"size"`
	Count   int             `json:"count"`
	SF      json.RawMessage `json:"sf"` // the name of a point, or a power of ten
	Units   string          `json:"units"`
	Access  string          `json:"access"`
	Static  string          `json:"static"`
	Symbols []sunspecSymbol `json:"symbols"`
}

type sunspecSymbol struct {
	Name  string `json:"name"`
	Value int64  `json:"value"`
}

// sunspecType is how a type of SunSpec travels, and the raw value by which a
// device says that it has no such point.
type sunspecType struct {
	encoding string
	size     int // registers, 0: the point's own
	null     any
}

var sunspecTypes = map[string]sunspecType{
	"int16": {"int16", 1, -32768}, "uint16": {"uint16", 1, 65535}, "raw16": {"uint16", 1, nil}, "acc16": {"uint16", 1, 0},
	"count": {"uint16", 1, 65535}, "enum16": {"uint16", 1, 65535}, "bitfield16": {"uint16", 1, 65535},
	"int32": {"int32", 2, math.MinInt32}, "uint32": {"uint32", 2, uint32(math.MaxUint32)}, "acc32": {"uint32", 2, 0},
	"enum32": {"uint32", 2, uint32(math.MaxUint32)}, "bitfield32": {"uint32", 2, uint32(math.MaxUint32)}, "ipaddr": {"uint32", 2, 0},
	"int64": {"int64", 4, int64(math.MinInt64)}, "uint64": {"uint64", 4, uint64(math.MaxUint64)}, "acc64": {"uint64", 4, 0},
	"bitfield64": {"uint64", 4, uint64(math.MaxUint64)},
	// A float that is not implemented is a NaN, which is told without help.
	"float32": {"float32", 2, nil}, "float64": {"float64", 4, nil},
	"string": {"string", 0, ""}, "sunssf": {"int16", 1, nil}, "pad": {"", 1, nil},
}

// sunspec reads one SunSpec model.
func (b *builder) sunspec(r io.Reader) error {
	text, err := readAll(r, "SunSpec models")
	if err != nil {
		return err
	}
	var m sunspecModel
	dec := json.NewDecoder(bytes.NewReader(bytes.TrimPrefix(text, []byte("\uFEFF"))))
	if err := dec.Decode(&m); err != nil {
		return jsonError(text, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more follows the model; import one model at a time")
	}
	if len(m.Group.Points) == 0 {
		return errors.New("/group/points: there are none; a SunSpec model as JSON has id and group{name, points}")
	}
	if b.o.Repeat < 0 || b.o.Repeat > maxRepeat {
		return fmt.Errorf("repeat must be from 0 to %d, got %d", maxRepeat, b.o.Repeat)
	}
	base := sunspecFirst
	if m.ID == 1 {
		base = sunspecCommon
	}
	switch {
	case b.o.Base != nil:
		base = *b.o.Base
	case m.ID == 1:
		b.warn(place{}, "the model is taken to begin at register %d, behind the marker at %d; if the device's does not, give --base", base, sunspecMarker)
	default:
		b.warn(place{}, "the model is taken to begin at register %d: the marker at %d, the common model with 66 registers at %d, then this one. Models may stand in any order and elsewhere (marker also at 0 or 50000): give --base REGISTER, that of the model's ID",
			base, sunspecMarker, sunspecCommon)
	}
	if base < 0 || base > 65535 {
		return fmt.Errorf("base must be from 0 to 65535, got %d", base)
	}
	b.model.Spec.Protocol = "modbus"
	b.model.Spec.Description = cut(strings.TrimSpace(fmt.Sprintf("SunSpec model %d, %s", m.ID, m.Group.Label)), 300)
	b.model.Metadata.Name = "sunspec-" + strconv.Itoa(m.ID)
	b.model.Metadata.Annotations = map[string]string{"whimbrel/sunspec-base": strconv.Itoa(base)}
	w := &sunspecWalk{b: b}
	w.group(&m.Group, base, "/group", "", nil, 0)
	return nil
}

// jsonError says in which line JSON is broken.
func jsonError(text []byte, err error) error {
	at := int64(-1)
	var syntax *json.SyntaxError
	var misfit *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		at = syntax.Offset
	case errors.As(err, &misfit):
		at = misfit.Offset
		err = fmt.Errorf("%s must not be a %s", strings.ReplaceAll("/"+misfit.Field, ".", "/"), misfit.Value)
	case errors.Is(err, io.ErrUnexpectedEOF):
		at, err = int64(len(text)), errors.New("the file ends too early")
	}
	if at < 0 || at > int64(len(text)) {
		return err
	}
	return fmt.Errorf("line %d: %w", 1+bytes.Count(text[:at], []byte("\n")), err)
}

// sunspecWalk lays a model's points out over registers.
type sunspecWalk struct {
	b      *builder
	groups int    // instances so far
	lost   string // the group whose size is not known: where anything after it is, is neither
}

// scope finds scale factors: those of a group, then those around it.
type scope struct {
	factors map[string]int // registers
	outer   *scope
}

func (s *scope) factor(name string) (int, bool) {
	for ; s != nil; s = s.outer {
		if register, ok := s.factors[name]; ok {
			return register, true
		}
	}
	return 0, false
}

// group takes one instance of a group from a register on, and returns where it
// ends.
func (w *sunspecWalk) group(g *sunspecGroup, at int, pointer, prefix string, outer *scope, depth int) int {
	if depth > maxGroupDepth {
		w.b.warn(place{pointer: pointer}, "groups nested deeper than %d are left out", maxGroupDepth)
		w.lost = g.Name
		return at
	}
	if w.groups++; w.groups > maxGroups {
		if w.groups == maxGroups+1 {
			w.b.warn(place{pointer: pointer}, "the groups repeat more than %d times: this instance and all after it are left out", maxGroups)
		}
		w.lost = g.Name
		return at
	}
	s := &scope{factors: map[string]int{}, outer: outer}
	starts := make([]int, len(g.Points))
	for i, p := range g.Points {
		starts[i] = at
		if p.Type == "sunssf" {
			s.factors[p.Name] = at
		}
		size := p.Size
		if t, ok := sunspecTypes[p.Type]; ok && t.size > 0 {
			size = t.size
		}
		if size < 1 || size > 1000 || p.Count < 0 || p.Count > 1000 {
			w.b.warn(place{pointer: fmt.Sprintf("%s/points/%d", pointer, i)}, "%s takes %d registers: it and what follows is left out", short(p.Name), size)
			w.lost = p.Name
			starts = starts[:i]
			break
		}
		at += size * max(p.Count, 1)
	}
	for i := range starts {
		w.point(&g.Points[i], starts[i], place{pointer: fmt.Sprintf("%s/points/%d", pointer, i)}, prefix, s, depth == 0)
	}
	for i := range g.Groups {
		at = w.instances(&g.Groups[i], at, fmt.Sprintf("%s/groups/%d", pointer, i), prefix, s, depth+1)
	}
	return at
}

// instances takes a group as often as it is there.
func (w *sunspecWalk) instances(g *sunspecGroup, at int, pointer, prefix string, s *scope, depth int) int {
	if w.lost != "" {
		w.b.warn(place{pointer: pointer}, "group %s is left out: where it is depends on %s, whose size is not known", short(g.Name), short(w.lost))
		return at
	}
	n, fixed, counter := 1, true, ""
	if len(g.Count) > 0 {
		if err := json.Unmarshal(g.Count, &n); err != nil || n <= 0 {
			fixed = false
			_ = json.Unmarshal(g.Count, &counter) // "" where it is no name either
		}
		n = min(n, maxRepeat)
	}
	if fixed {
		for i := range n {
			if w.b.full || w.groups > maxGroups {
				return at
			}
			name := prefix + g.Name + "."
			if n > 1 {
				name = prefix + g.Name + "." + strconv.Itoa(i+1) + "."
			}
			at = w.group(g, at, pointer, name, s, depth)
		}
		return at
	}
	often := "as often as the device has it"
	if counter != "" {
		often = "as often as its point " + short(counter) + " says"
	}
	if w.b.o.Repeat == 0 {
		w.b.warn(place{pointer: pointer}, "group %s repeats %s and is left out; take a number of instances with --repeat N", short(g.Name), often)
		w.lost = g.Name
		return at
	}
	w.b.warn(place{pointer: pointer}, "group %s repeats %s: %d are taken", short(g.Name), often, w.b.o.Repeat)
	for i := range w.b.o.Repeat {
		if w.b.full || w.groups > maxGroups {
			return at
		}
		at = w.group(g, at, pointer, prefix+g.Name+"."+strconv.Itoa(i+1)+".", s, depth)
	}
	return at
}

func (w *sunspecWalk) point(p *sunspecPoint, register int, at place, prefix string, s *scope, top bool) {
	if p.Type == "sunssf" || p.Type == "pad" || top && (p.Name == "ID" || p.Name == "L") {
		return // no values of the device's, but of its register map's
	}
	t, known := sunspecTypes[p.Type]
	name := prefix + p.Name
	switch {
	case !known:
		w.b.warn(at, "%s is left out: there is no encoding for type %s", short(name), short(p.Type))
		return
	case register > 65535:
		w.b.warn(at, "%s is left out: register %d is beyond 65535", short(name), register)
		return
	case p.Count > 1:
		w.b.warn(at, "%s has %d elements: each is a property", short(name), p.Count)
	}
	if p.Type == "ipaddr" {
		w.b.warn(at, "%s is an IP address: it is carried as a number", short(name))
	}
	size := max(t.size, 1)
	if t.size == 0 {
		size = p.Size
	}
	for i := range max(p.Count, 1) {
		each := name
		if p.Count > 1 {
			each += "." + strconv.Itoa(i+1)
		}
		w.element(p, t, register+i*size, at, each, s)
	}
}

// element takes a point, or one of a point's elements.
func (w *sunspecWalk) element(p *sunspecPoint, t sunspecType, register int, at place, name string, s *scope) {
	property := models.Property{Name: name, Description: p.Desc, Unit: p.Units, Access: models.Read, Type: models.TypeInt}
	if property.Description == "" {
		property.Description = p.Label
	}
	if p.Access == "RW" {
		property.Access = models.ReadWrite
	}
	if p.Static == "S" {
		property.Every = new(models.Duration(staticEvery))
	}
	a := registers{Table: "holding", Register: new(register), Encoding: t.encoding, NullValue: t.null}
	switch t.encoding {
	case "string":
		property.Type, a.Length = models.TypeString, new(p.Size)
		if p.Size > 125 {
			w.b.warn(at, "%s is left out: %d registers are more than one request reads", short(name), p.Size)
			return
		}
	case "float32", "float64":
		property.Type = models.TypeFloat
	}
	if len(p.SF) > 0 && string(p.SF) != "null" && t.encoding != "string" {
		property.Type = models.TypeFloat
		w.scale(p, &a, at, name, s)
	}
	switch {
	case strings.HasPrefix(p.Type, "bitfield") && len(p.Symbols) > 0:
		w.bits(p, property, a, at, name)
		return
	case len(p.Symbols) > 0 && property.Type == models.TypeInt:
		property.Enum = enumOf(p.Symbols)
	}
	property.Address = mustJSON(a)
	w.b.add(at, property)
}

// scale finds what a point is multiplied by.
func (w *sunspecWalk) scale(p *sunspecPoint, a *registers, at place, name string, s *scope) {
	var power int
	var factor string
	switch {
	case json.Unmarshal(p.SF, &power) == nil && power >= -10 && power <= 10:
		a.Scale = new(math.Pow10(power))
	case json.Unmarshal(p.SF, &factor) == nil:
		if register, ok := s.factor(factor); ok && register <= 65535 {
			a.ScaleFrom = new(register)
			return
		}
		w.b.warn(at, "%s: its scale factor %s is not in the model; the value is not scaled", short(name), short(factor))
	default:
		w.b.warn(at, "%s: sf must be a point's name or a power of ten from -10 to 10, got %s; the value is not scaled", short(name), short(string(p.SF)))
	}
}

// bits takes a bit field apart: a bool for each bit that has a name.
func (w *sunspecWalk) bits(p *sunspecPoint, whole models.Property, a registers, at place, name string) {
	width := map[string]int{"uint16": 16, "uint32": 32, "uint64": 64}[a.Encoding]
	seen := map[int64]bool{}
	for i, symbol := range p.Symbols {
		spot := place{pointer: fmt.Sprintf("%s/symbols/%d", at.pointer, i)}
		if symbol.Value < 0 || symbol.Value >= int64(width) || seen[symbol.Value] {
			w.b.warn(spot, "bit %d of %s is left out: a %s has one each of bits 0 to %d", symbol.Value, short(name), p.Type, width-1)
			continue
		}
		seen[symbol.Value] = true
		word := (width - 1 - int(symbol.Value)) / 16 // the high word comes first
		bit := models.Property{Name: name + "." + symbol.Name, Description: whole.Description, Type: models.TypeBool, Access: whole.Access, Every: whole.Every}
		bit.Address = mustJSON(registers{Table: a.Table, Register: new(*a.Register + word), Bit: new(int(symbol.Value) % 16), NullValue: 65535})
		w.b.add(spot, bit)
	}
}

// enumOf names numbers; a name that comes twice gets its number.
func enumOf(symbols []sunspecSymbol) map[int64]string {
	out, taken := map[int64]string{}, map[string]bool{}
	for _, s := range symbols {
		name := cut(strings.ToValidUTF8(s.Name, "?"), 200)
		if name == "" || taken[name] {
			name = strings.TrimPrefix(name+"-"+strconv.FormatInt(s.Value, 10), "-")
		}
		if _, twice := out[s.Value]; twice || taken[name] {
			continue
		}
		taken[name], out[s.Value] = true, name
	}
	return out
}

// staticEvery is how often what does not change while a device runs is read.
const staticEvery = time.Minute
