// Package modbus is the driver for devices that speak Modbus, over TCP and on
// serial lines (RTU, ASCII, and RTU over TCP). It compiles addresses into points, plans the fewest requests that read them,
// learns where a device refuses to be read, and turns registers into values
// and back. Bytes and connections are protocols/modbus's.
package modbus

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/internal/hostport"
	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
	wire "github.com/whimbrel-edge/whimbrel/protocols/modbus"
	"github.com/whimbrel-edge/whimbrel/protocols/serial"
)

// Name is the protocol's, as DeviceModel.spec.protocol says it.
const Name = "modbus"

// Version is the driver's own.
const Version = "1.1.0"

//go:embed connection.schema.json
var connectionSchema []byte

//go:embed address.schema.json
var addressSchema []byte

//go:embed property.schema.json
var propertySchema []byte

// Driver is the Modbus driver. Devices opened by one Driver that lead to the
// same host and port, or are on the same serial line, share one connection.
type Driver struct{ lines lines }

var _ mappers.Driver = (*Driver)(nil)

// New returns a driver without devices.
func New() *Driver {
	return &Driver{lines: lines{byTarget: map[place]*line{}}}
}

// Info implements mappers.Driver.
func (d *Driver) Info() mappers.Info {
	return mappers.Info{Name: Name, Version: Version, Connection: connectionSchema, Address: addressSchema, Property: propertySchema}
}

// connection is Device.spec.connection as users write it
// (connection.schema.json).
type connection struct {
	URL          string           `json:"url"`
	Unit         *int             `json:"unit"`
	Timeout      *models.Duration `json:"timeout"`
	MaxRegisters *int             `json:"maxRegisters"`
	MaxBits      *int             `json:"maxBits"`
	MaxGap       *int             `json:"maxGap"`
	Pause        *models.Duration `json:"pause"`
}

// target is a connection, compiled.
type target struct {
	place
	unit    byte
	timeout time.Duration
	pause   time.Duration
	limits  limits
}

// place is where a line leads. Two devices with the same place share it.
type place struct {
	scheme  string        // tcp, rtutcp, rtu or ascii
	address string        // host:port, of tcp and rtutcp
	port    serial.Config // of rtu and ascii
}

func (p place) serial() bool { return p.scheme == "rtu" || p.scheme == "ascii" }

// String is a url that names everything.
func (p place) String() string {
	if !p.serial() {
		return p.scheme + "://" + p.address
	}
	return fmt.Sprintf("%s://%s?baud=%d&parity=%s&dataBits=%d&stopBits=%d", p.scheme, p.port.Device, p.port.Baud, p.port.Parity, p.port.DataBits, p.port.StopBits)
}

// line is the configuration of a line to the place.
func (p place) line(pause time.Duration) wire.LineConfig {
	cfg := wire.LineConfig{Address: p.address, Pause: pause}
	switch p.scheme {
	case "rtu", "rtutcp":
		cfg.Framing = wire.RTU
	case "ascii":
		cfg.Framing = wire.ASCII
	}
	if p.serial() {
		cfg.Serial = &p.port
	} else {
		cfg.Dial = dial
	}
	return cfg
}

// The defaults and bounds of a connection.
const (
	defaultPort   = "502"
	defaultUnit   = 1
	defaultMaxGap = 8
	maxTimeout    = 5 * time.Minute
	maxPause      = time.Minute
)

// Open implements mappers.Driver.
func (d *Driver) Open(cfg mappers.DeviceConfig) (mappers.Device, error) {
	var c checker
	c.Connection()
	t := c.target(cfg.Connection)
	points := make([]point, len(cfg.Points))
	for i, p := range cfg.Points {
		c.Address(p.Property)
		points[i] = c.compile(p, t.limits)
	}
	if err := c.Err(); err != nil {
		return nil, err
	}
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return newDevice(&d.lines, t, points, cfg.Points, log), nil
}

// target checks a connection.
func (c *checker) target(text json.RawMessage) target {
	t := target{unit: defaultUnit, timeout: wire.DefaultTimeout,
		limits: limits{maxRegisters: wire.MaxReadRegisters, maxBits: wire.MaxReadBits, maxGap: defaultMaxGap}}
	var conn connection
	if len(text) == 0 {
		text = json.RawMessage("{}")
	}
	if !c.Decode(text, &conn) {
		return t
	}
	t.place = c.url(conn.URL)
	bounded := func(field string, v *int, into *int, low, high int) {
		if v == nil {
			return
		}
		if *v < low || *v > high {
			c.Fail(field, "must be from %d to %d, got %d", low, high, *v)
			return
		}
		*into = *v
	}
	unit := defaultUnit
	if t.scheme == "" || t.scheme == "tcp" {
		bounded("/unit", conn.Unit, &unit, 0, 255)
	} else { // 0 is all of them, and what is above 247 reserved
		bounded("/unit", conn.Unit, &unit, 1, 247)
	}
	t.unit = byte(unit)
	bounded("/maxRegisters", conn.MaxRegisters, &t.limits.maxRegisters, 1, wire.MaxReadRegisters)
	bounded("/maxBits", conn.MaxBits, &t.limits.maxBits, 1, wire.MaxReadBits)
	bounded("/maxGap", conn.MaxGap, &t.limits.maxGap, 0, wire.MaxReadBits)
	c.Duration("/timeout", conn.Timeout, &t.timeout, time.Millisecond, maxTimeout)
	c.Duration("/pause", conn.Pause, &t.pause, 0, maxPause)
	return t
}

// url returns where a connection leads.
func (c *checker) url(text string) place {
	if text == "" {
		c.Fail("/url", "is required, such as tcp://192.0.2.1:502 or rtu:///dev/ttyUSB0?baud=9600")
		return place{}
	}
	u, err := url.Parse(text)
	if err != nil {
		c.Fail("/url", "must be such as tcp://192.0.2.1:502 or rtu:///dev/ttyUSB0?baud=9600, got %q", text)
		return place{}
	}
	p := place{scheme: u.Scheme}
	switch u.Scheme {
	case "tcp", "rtutcp":
		p.address = c.hostPort(u, text)
	case "rtu", "ascii":
		if _, p.port, err = serial.ParseURL(text); err != nil {
			c.Fail("/url", "%s", strings.TrimPrefix(err.Error(), "serial: url "))
		}
	default:
		c.Fail("/url", "must begin with tcp://, rtutcp://, rtu:// or ascii://, got %q", text)
		p.scheme = ""
	}
	return p
}

func (c *checker) hostPort(u *url.URL, text string) string {
	if u.Hostname() == "" || u.User != nil || u.RawQuery != "" || strings.Contains(text, "#") || u.Path != "" && u.Path != "/" {
		c.Fail("/url", "must be %s://host:port and nothing more, got %q", u.Scheme, text)
		return ""
	}
	if !hostport.Valid(u.Hostname()) {
		c.Fail("/url", "has a host that is neither a name nor an address, %q", u.Hostname())
		return ""
	}
	port := u.Port()
	if port == "" && u.Scheme == "tcp" {
		port = defaultPort
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		c.Fail("/url", "port must be from 1 to 65535, got %q", text)
	}
	return net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}
