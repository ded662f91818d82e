// Package serial is the driver for devices that are asked in words on a serial
// line, and answer in words, and for those that talk unasked: scales, meters,
// pumps, receivers. It asks each question of a cycle once, finds the values in
// the answers by regular expressions, and turns broken answers into bad values
// that say why. Bytes and ports are protocols/serial's.
package serial

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
	wire "github.com/whimbrel-edge/whimbrel/protocols/serial"
)

// Name is the protocol's, as DeviceModel.spec.protocol says it.
const Name = "serial"

// Version is the driver's own.
const Version = "1.1.0"

// ReasonChecksum says that an answer came, and its checksum is wrong.
const ReasonChecksum models.Reason = "checksum-error"

//go:embed connection.schema.json
var connectionSchema []byte

//go:embed address.schema.json
var addressSchema []byte

//go:embed property.schema.json
var propertySchema []byte

// Driver is the serial driver. Devices opened by one Driver that are on the
// same port share it.
type Driver struct {
	lines lines
	ears  ears
}

var _ mappers.Driver = (*Driver)(nil)

// New returns a driver without devices.
func New() *Driver {
	return &Driver{lines: lines{byPort: map[wire.Config]*line{}}, ears: ears{byPort: map[wire.Config]*ear{}}}
}

// Info implements mappers.Driver.
func (d *Driver) Info() mappers.Info {
	return mappers.Info{Name: Name, Version: Version, Connection: connectionSchema, Address: addressSchema, Property: propertySchema}
}

// connection is Device.spec.connection as users write it
// (connection.schema.json).
type connection struct {
	URL        string           `json:"url"`
	Timeout    *models.Duration `json:"timeout"`
	Terminator *string          `json:"terminator"`
	Length     *int             `json:"length"`
	Checksum   *string          `json:"checksum"`
	Pause      *models.Duration `json:"pause"`
	Listen     bool             `json:"listen"`
}

// target is a connection, compiled.
type target struct {
	port    wire.Config
	framing wire.Framing
	timeout time.Duration
	pause   time.Duration
	listen  bool
}

// The defaults and bounds of a connection.
const (
	defaultTerminator = "\r\n"
	defaultTimeout    = time.Second
	defaultSilence    = 10 * time.Second // timeout of devices that talk unasked
	maxTimeout        = time.Hour
	maxPause          = time.Minute
)

// Open implements mappers.Driver.
func (d *Driver) Open(cfg mappers.DeviceConfig) (mappers.Device, error) {
	var c checker
	c.Connection()
	t := c.target(cfg.Connection)
	points := make([]point, len(cfg.Points))
	for i, p := range cfg.Points {
		c.Address(p.Property)
		points[i] = c.compile(p, t)
	}
	if err := c.Err(); err != nil {
		return nil, err
	}
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if t.listen {
		return newListener(&d.ears, t, points, log), nil
	}
	return newDevice(&d.lines, t, points, log), nil
}

// target checks a connection.
func (c *checker) target(text json.RawMessage) target {
	t := target{timeout: defaultTimeout, framing: wire.Framing{Terminator: defaultTerminator, Checksum: wire.NoChecksum}}
	var conn connection
	if len(text) == 0 {
		text = json.RawMessage("{}")
	}
	if !c.Decode(text, &conn) {
		return t
	}
	t.listen = conn.Listen
	t.port = c.port(conn.URL)
	c.framing(&t.framing, conn)
	if t.listen {
		t.timeout = defaultSilence
	}
	c.Duration("/timeout", conn.Timeout, &t.timeout, time.Millisecond, maxTimeout)
	c.Duration("/pause", conn.Pause, &t.pause, 0, maxPause)
	return t
}

func (c *checker) port(text string) wire.Config {
	if text == "" {
		c.Fail("/url", "is required, such as serial:///dev/ttyUSB0?baud=9600")
		return wire.Config{}
	}
	scheme, port, err := wire.ParseURL(text)
	switch {
	case err != nil:
		c.Fail("/url", "%s", strings.TrimPrefix(err.Error(), "serial: "))
	case scheme != "serial":
		c.Fail("/url", "must begin with serial://, got %q", text)
	}
	return port
}

func (c *checker) framing(f *wire.Framing, conn connection) {
	if conn.Checksum != nil {
		f.Checksum = wire.Checksum(*conn.Checksum)
	}
	switch {
	case conn.Length != nil && conn.Terminator != nil:
		c.Fail("/length", "must be left out when terminator is given: a message ends by the one or the other")
		return
	case conn.Length != nil:
		f.Terminator, f.Length = "", *conn.Length
		if f.Length == 0 {
			f.Length = -1 // refused below
		}
	case conn.Terminator != nil:
		if f.Terminator = *conn.Terminator; f.Terminator == "" {
			c.Fail("/terminator", "must not be empty")
			return
		}
	}
	if err := f.Check(); err != nil {
		field := "/terminator"
		switch {
		case strings.Contains(err.Error(), "serial: checksum"):
			field = "/checksum"
		case conn.Length != nil:
			field = "/length"
		}
		detail := strings.TrimPrefix(err.Error(), "serial: ")
		if conn.Length != nil && *conn.Length == 0 {
			detail = fmt.Sprintf("must be from 1 to %d, got 0", wire.MaxMessage)
		}
		c.Fail(field, "%s", detail)
	}
}
