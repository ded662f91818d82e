package serial

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Parity is the parity bit of each character.
type Parity string

// The parities.
const (
	None Parity = "none"
	Even Parity = "even"
	Odd  Parity = "odd"
)

// Config says which device to open, and how characters travel on it.
type Config struct {
	Device   string // path, such as /dev/ttyUSB0
	Baud     int
	DataBits int // 5 to 8
	Parity   Parity
	StopBits int // 1 or 2
}

// Bauds is every rate that can be set.
func Bauds() []int { return slices.Clone(bauds) }

// bauds are the rates that tarm/serial knows on Linux.
var bauds = []int{50, 75, 110, 134, 150, 200, 300, 600, 1200, 1800, 2400, 4800, 9600, 19200, 38400, 57600, 115200, 230400,
	460800, 500000, 576000, 921600, 1000000, 1152000, 1500000, 2000000, 2500000, 3000000, 3500000, 4000000}

// Check tells what is wrong with a Config. It does not look at the device.
func (c Config) Check() error {
	switch {
	case !strings.HasPrefix(c.Device, "/"):
		return fmt.Errorf("serial: device %q is not an absolute path such as /dev/ttyUSB0", c.Device)
	case !slices.Contains(bauds, c.Baud):
		return fmt.Errorf("serial: baud %d is not a usual rate such as 9600, 19200 or 115200", c.Baud)
	case c.DataBits < 5 || c.DataBits > 8:
		return fmt.Errorf("serial: dataBits %d is not within 5 to 8", c.DataBits)
	case c.Parity != None && c.Parity != Even && c.Parity != Odd:
		return fmt.Errorf("serial: parity %q is not none, even or odd", string(c.Parity))
	case c.StopBits != 1 && c.StopBits != 2:
		return fmt.Errorf("serial: stopBits %d is not 1 or 2", c.StopBits)
	}
	return nil
}

// CharTime is how long n characters take on the wire: start bit, data, parity
// and stop bits each.
func (c Config) CharTime(n int) time.Duration {
	bits := 1 + c.DataBits + c.StopBits
	if c.Parity != None {
		bits++
	}
	return time.Duration(n*bits) * time.Second / time.Duration(c.Baud)
}

// String is such as "/dev/ttyUSB0 9600 8N1".
func (c Config) String() string {
	p := "?"
	if c.Parity != "" {
		p = strings.ToUpper(string(c.Parity[:1]))
	}
	return fmt.Sprintf("%s %d %d%s%d", c.Device, c.Baud, c.DataBits, p, c.StopBits)
}

// Defaults is what a URL of a scheme says where it says nothing:
//
//	serial  9600 8N1
//	rtu    19200 8E1, as the Modbus specification wants it
//	ascii  19200 7E1, as the Modbus specification wants it
//
// It is false for another scheme.
func Defaults(scheme string) (Config, bool) {
	switch scheme {
	case "serial":
		return Config{Baud: 9600, DataBits: 8, Parity: None, StopBits: 1}, true
	case "rtu":
		return Config{Baud: 19200, DataBits: 8, Parity: Even, StopBits: 1}, true
	case "ascii":
		return Config{Baud: 19200, DataBits: 7, Parity: Even, StopBits: 1}, true
	}
	return Config{}, false
}

// ParseURL reads serial:///dev/ttyX?baud=9600&parity=even&dataBits=8&stopBits=1
// and the same with rtu and ascii. All keys may be left out (see Defaults);
// another key, one given twice, or an empty value is refused. An rtu line has 8
// data bits, an ascii line 7 or 8. The error names the part that is wrong.
func ParseURL(text string) (scheme string, cfg Config, err error) {
	wrong := func(format string, args ...any) (string, Config, error) {
		return "", Config{}, fmt.Errorf("serial: url %q: "+format, append([]any{text}, args...)...)
	}
	u, err := url.Parse(text)
	if err != nil {
		return wrong("is no url such as serial:///dev/ttyUSB0?baud=9600")
	}
	cfg, ok := Defaults(u.Scheme)
	if !ok {
		return wrong("must begin with serial://, rtu:// or ascii://")
	}
	if u.Host != "" || u.User != nil || u.Opaque != "" || !strings.HasPrefix(u.Path, "/") || strings.HasSuffix(u.Path, "/") {
		return wrong("must name a device by its whole path, with three slashes: %s:///dev/ttyUSB0", u.Scheme)
	}
	if u.Fragment != "" || strings.Contains(text, "#") {
		return wrong("has no part after #")
	}
	cfg.Device = u.Path
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return wrong("what follows ? must be such as baud=9600&parity=even")
	}
	keys := make([]string, 0, len(query))
	for key := range query {
		keys = append(keys, key)
	}
	slices.Sort(keys) // the same error every time
	for _, key := range keys {
		values := query[key]
		if len(values) != 1 {
			return wrong("%s is given %d times", key, len(values))
		}
		into := map[string]*int{"baud": &cfg.Baud, "dataBits": &cfg.DataBits, "stopBits": &cfg.StopBits}[key]
		switch {
		case key == "parity":
			cfg.Parity = Parity(values[0])
		case into == nil:
			return wrong("%s is not one of baud, parity, dataBits, stopBits", key)
		default:
			n, err := strconv.ParseUint(values[0], 10, 31)
			if err != nil {
				return wrong("%s must be a whole number, got %q", key, values[0])
			}
			*into = int(n)
		}
	}
	if err := cfg.Check(); err != nil {
		return wrong("%s", strings.TrimPrefix(err.Error(), "serial: "))
	}
	switch {
	case u.Scheme == "rtu" && cfg.DataBits != 8:
		return wrong("dataBits %d: a Modbus RTU line has 8", cfg.DataBits)
	case u.Scheme == "ascii" && cfg.DataBits < 7:
		return wrong("dataBits %d: a Modbus ASCII line has 7 or 8", cfg.DataBits)
	}
	return u.Scheme, cfg, nil
}
