// Package lifelike chooses what a simulated device shows for the properties of a
// DeviceModel: signals that move as such values do, within what the model and
// the device's format allow. It is pure. Only simulators import it.
package lifelike

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/simulators/signal"
)

// Format is the numbers that a device's format can hold: Zero + n*Step from Low
// to High. The zero Format holds any.
type Format struct {
	Low, High  float64
	Zero, Step float64
	// Avoid is the one that means "not implemented"; NaN or nil for none.
	Avoid *float64
}

// Any holds any number that is exact as a float64.
var Any = Format{Low: -1 << 53, High: 1 << 53}

// Texts, where nothing else is known of them.
const text = "simulated"

// Values is what a property shows: a signal where it moves, and what it begins
// with where clients write it.
type Values struct {
	Signal signal.Spec
	Start  any
}

// For chooses for one property, the n-th of its device.
func For(p models.Property, f Format, n int) Values {
	switch p.Type {
	case models.TypeBool:
		every := time.Duration(9+n%5) * time.Second
		return Values{Signal: signal.Spec{List: &signal.List{Values: []any{n%2 == 0, n%2 != 0}, Every: every}}, Start: n%2 == 0}
	case models.TypeInt, models.TypeFloat:
		return number(p, f, n)
	}
	return Values{Signal: signal.Spec{Constant: text}, Start: text}
}

// Text is a text of at most so many bytes that is not the one to avoid.
func Text(most int, avoid string) string {
	s := text[:min(len(text), max(most, 0))]
	if s == avoid && s != "" {
		s = strings.Repeat("x", len(s))
	}
	return s
}

func number(p models.Property, f Format, n int) Values {
	if len(p.Enum) > 0 {
		var keys []int64
		for k := range p.Enum {
			if f.holds(float64(k)) && within(p, float64(k)) {
				keys = append(keys, k)
			}
		}
		slices.Sort(keys)
		if len(keys) > 0 {
			list := &signal.List{Every: time.Duration(8+n%5) * time.Second}
			for _, k := range keys {
				list.Values = append(list.Values, k)
			}
			return Values{Signal: signal.Spec{List: list}, Start: keys[0]}
		}
	}
	if v, far := beyond(p); far {
		return Values{Signal: signal.Spec{Constant: v}, Start: v}
	}
	low, high := f.span(p)
	start := f.snap((low+high)/2, math.Round)
	if start < low || start > high {
		start = low
	}
	v := Values{Start: start}
	switch {
	case low >= high:
		v.Signal = signal.Spec{Constant: low}
	case counts[p.Unit]:
		v.Signal = signal.Spec{Ramp: &signal.Ramp{From: low, To: high, Over: 24 * time.Hour, Repeat: true}}
	default:
		period := time.Duration(40+7*(n%7)) * time.Second
		v.Signal = signal.Spec{Sine: &signal.Sine{Min: low, Max: high, Period: period, Phase: time.Duration(n) * 3 * time.Second}}
	}
	return v
}

// beyond is a bound of the property where floats are too coarse for ints.
func beyond(p models.Property) (any, bool) {
	for _, b := range []*models.Value{p.Minimum, p.Maximum} {
		if f, ok := bound(b); ok && p.Type == models.TypeInt && math.Abs(f) > Any.High {
			for _, near := range []*models.Value{p.Minimum, p.Maximum} { // zero may be within
				if v, ok := bound(near); ok && math.Abs(v) <= Any.High {
					return nil, false
				}
			}
			if i, ok := b.AsInt(); ok {
				return i, true
			}
			u, ok := b.AsUint()
			return u, ok
		}
	}
	return nil, false
}

// usual is where values of a unit are in a plant that works.
var usual = map[string][2]float64{
	"°C": {18, 75}, "K": {290, 350}, "°F": {65, 170}, "%": {20, 80}, "V": {227, 233}, "kV": {9.9, 10.1}, "A": {1, 12}, "mA": {4, 20},
	"W": {200, 4000}, "kW": {0.5, 12}, "MW": {0.2, 3}, "VA": {200, 4200}, "kVA": {0.5, 13}, "var": {20, 500}, "kvar": {0.1, 2},
	"Hz": {49.95, 50.05}, "bar": {1, 6}, "mbar": {980, 1030}, "hPa": {980, 1030}, "Pa": {100, 600}, "kPa": {100, 600}, "rpm": {900, 1500},
	"1/min": {900, 1500}, "m/s": {0.5, 12}, "mm/s": {0.5, 4}, "m³/h": {2, 12}, "l/min": {5, 60}, "l/h": {100, 900}, "kg": {2, 25}, "g": {50, 900},
	"t": {1, 20}, "mm": {10, 400}, "m": {0.5, 8}, "lx": {100, 900}, "ppm": {400, 1200}, "ms": {1, 50}, "s": {1, 600}, "min": {1, 60},
	"Wh": {1e5, 2e5}, "kWh": {1200, 2200}, "MWh": {12, 22}, "varh": {1e4, 2e4}, "kvarh": {120, 220}, "VAh": {1e5, 2e5}, "kVAh": {1200, 2200},
	"Ah": {100, 200}, "m³": {300, 900}, "l": {3000, 9000}, "h": {2000, 3000},
}

// counts are the units of what only grows.
var counts = map[string]bool{"Wh": true, "kWh": true, "MWh": true, "varh": true, "kvarh": true, "VAh": true, "kVAh": true, "Ah": true, "m³": true, "h": true}

// span is where the property moves: on the format's grid, inside the model's
// bounds as far as the format can.
func (f Format) span(p models.Property) (low, high float64) {
	if p.Type == models.TypeInt && f.Step == 0 {
		f.Step = 1
	}
	if f.Low == 0 && f.High == 0 {
		f.Low, f.High = Any.Low, Any.High
	}
	floor, hasFloor := bound(p.Minimum)
	ceiling, hasCeiling := bound(p.Maximum)
	common, known := usual[p.Unit]
	if !known {
		common = [2]float64{10, 90}
	}
	switch {
	case hasFloor && hasCeiling:
		low, high = floor, ceiling
		if room := (high - low) / 10; room > f.Step {
			low, high = low+room, high-room
		}
		if known && common[0] >= low && common[1] <= high {
			low, high = common[0], common[1]
		}
	case hasFloor:
		low, high = max(floor, common[0]), common[1]
		if high <= low {
			high = low + 100
		}
	case hasCeiling:
		low, high = common[0], min(ceiling, common[1])
		if high <= low {
			low = high - 100
		}
	default:
		low, high = common[0], common[1]
	}
	low, high = f.snap(max(low, f.Low), math.Ceil), f.snap(min(high, f.High), math.Floor)
	if low > high { // the grid is coarser than the span, or the format ends before it
		low = f.snap(max(f.Low, min(f.High, low)), math.Floor)
		high = low
		if hasFloor && low < floor && low+f.Step <= f.High {
			low, high = low+f.Step, low+f.Step
		}
	}
	if f.Avoid == nil || *f.Avoid < low || *f.Avoid > high {
		return low, high
	}
	step := f.Step
	if step == 0 {
		step = (high - low) / 100
	}
	switch avoid := *f.Avoid; {
	case low == high && low+step <= f.High && (!hasCeiling || low+step <= ceiling):
		return low + step, high + step
	case low == high:
		return low - step, high - step
	case avoid-low > high-avoid:
		return low, avoid - step
	default:
		return avoid + step, high
	}
}

// snap brings a number to the format's grid.
func (f Format) snap(v float64, round func(float64) float64) float64 {
	if f.Step == 0 {
		return v
	}
	n := (v - f.Zero) / f.Step
	if near := math.Round(n); math.Abs(n-near) < 1e-9*max(1, math.Abs(n)) {
		n = near
	} else {
		n = round(n)
	}
	// Dividing by 10 gives the 71.3 that a person would write where 713*0.1 does
	// not.
	if whole := math.Round(1 / f.Step); whole != 0 && math.Abs(whole*f.Step-1) < 1e-12 {
		return n/whole + f.Zero
	}
	return n*f.Step + f.Zero
}

func (f Format) holds(v float64) bool {
	if f.Avoid != nil && v == *f.Avoid {
		return false
	}
	return f.Low == 0 && f.High == 0 || v >= f.Low && v <= f.High && math.Abs(f.snap(v, math.Round)-v) < 1e-9
}

func within(p models.Property, v float64) bool {
	floor, hasFloor := bound(p.Minimum)
	ceiling, hasCeiling := bound(p.Maximum)
	return (!hasFloor || v >= floor) && (!hasCeiling || v <= ceiling)
}

func bound(v *models.Value) (float64, bool) {
	if v == nil {
		return 0, false
	}
	return v.AsFloat()
}

// Bounds are the model's, as simulators have them; nil where it has none.
func Bounds(p models.Property) (minimum, maximum *float64) {
	if f, ok := bound(p.Minimum); ok {
		minimum = &f
	}
	if f, ok := bound(p.Maximum); ok {
		maximum = &f
	}
	return minimum, maximum
}

// Name is the name of a property's signal or input: expressions take fewer
// characters than properties may have. No two properties have the same.
func Name(property string) string {
	name := []byte("p_")
	for _, c := range []byte(property) {
		switch {
		case c == '_':
			name = append(name, "__"...)
		case c >= '0' && c <= '9', c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z':
			name = append(name, c)
		default:
			name = fmt.Appendf(name, "_%02x", c)
		}
	}
	return string(name)
}
