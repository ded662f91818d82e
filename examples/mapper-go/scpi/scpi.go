// Package scpi is a Whimbrel driver for instruments that speak SCPI over TCP
// (raw sockets, usually port 5025): power supplies, multimeters, generators. A
// query is a line, its answer is a line; after a write the instrument's error
// queue says whether it took it (SCPI-99, IEEE 488.2).
package scpi

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
)

// Name is the protocol, as models name it.
const Name = "scpi"

//go:embed connection.schema.json
var connectionSchema []byte

//go:embed address.schema.json
var addressSchema []byte

// Driver speaks SCPI.
type Driver struct{}

var _ mappers.Driver = Driver{}

// Info implements mappers.Driver.
func (Driver) Info() mappers.Info {
	return mappers.Info{Name: Name, Version: "1.0.0", Description: "SCPI instruments over TCP", Connection: connectionSchema, Address: addressSchema}
}

// point is a property, compiled.
type point struct {
	kind       models.Type
	query, set string
}

// Open implements mappers.Driver.
func (Driver) Open(cfg mappers.DeviceConfig) (mappers.Device, error) {
	var connection struct {
		URL     string           `json:"url"`
		Timeout *models.Duration `json:"timeout"`
	}
	if err := decode(cfg.Connection, &connection, "/spec/connection"); err != nil {
		return nil, err
	}
	u, err := url.Parse(connection.URL)
	if err != nil || u.Scheme != "tcp" || u.Port() == "" {
		return nil, models.Invalid("/spec/connection/url", "must be tcp://host:port")
	}
	d := &device{addr: u.Host, timeout: time.Second, points: make([]point, len(cfg.Points))}
	if connection.Timeout != nil {
		if d.timeout = connection.Timeout.Std(); d.timeout <= 0 {
			return nil, models.Invalid("/spec/connection/timeout", "must be positive")
		}
	}
	for i, p := range cfg.Points {
		if d.points[i], err = compile(p); err != nil {
			return nil, err
		}
	}
	return d, nil
}

func decode(text []byte, into any, at string) error {
	err := models.DecodeInto(text, into)
	var e *models.Error
	if errors.As(err, &e) && len(e.Fields) > 0 {
		out := &models.Error{Kind: models.KindInvalid}
		for _, f := range e.Fields {
			out.Fields = append(out.Fields, models.FieldError{Pointer: at + f.Pointer, Detail: f.Detail})
		}
		return out
	}
	if err != nil {
		return models.Invalid(at, "%s", err)
	}
	return nil
}

func compile(p mappers.Point) (point, error) {
	at := "/spec/properties/" + p.Property + "/address"
	var address struct {
		Query string `json:"query"`
		Set   string `json:"set"`
	}
	if err := decode(p.Address, &address, at); err != nil {
		return point{}, err
	}
	switch {
	case p.Access.Readable() && !strings.Contains(address.Query, "?"):
		return point{}, models.Invalid(at+"/query", "is required to read, and has a ?")
	case p.Access.Writable() && !strings.Contains(address.Set, "{value}"):
		return point{}, models.Invalid(at+"/set", "is required to write, and has {value}")
	case strings.ContainsAny(address.Query+address.Set, "\r\n"):
		return point{}, models.Invalid(at, "query and set are one line each")
	}
	switch p.Type {
	case models.TypeBool, models.TypeInt, models.TypeFloat, models.TypeString:
		return point{p.Type, address.Query, address.Set}, nil
	}
	return point{}, models.Invalid(at, "SCPI has no values of type %s: use bool, int, float or string", p.Type)
}

// parse makes a result of an answer.
func (p *point) parse(answer string) mappers.Result {
	var v models.Value
	var err error
	switch upper := strings.ToUpper(answer); {
	case p.kind == models.TypeString:
		if len(answer) >= 2 && answer[0] == '"' && answer[len(answer)-1] == '"' {
			answer = strings.ReplaceAll(answer[1:len(answer)-1], `""`, `"`)
		}
		v = models.String(answer)
	case p.kind == models.TypeBool && (upper == "1" || upper == "ON"):
		v = models.Bool(true)
	case p.kind == models.TypeBool && (upper == "0" || upper == "OFF"):
		v = models.Bool(false)
	case p.kind == models.TypeBool:
		err = fmt.Errorf("%q is no boolean", answer)
	default:
		if v, err = models.ParseNumber(strings.TrimPrefix(answer, "+")); err == nil {
			if f, _ := v.AsFloat(); f >= 9.9e37 || f <= -9.9e37 { // SCPI's NaN and infinities
				return mappers.Result{Quality: models.Bad, Reason: models.ReasonNotANumber}
			}
			v, err = v.Fit(p.kind)
		}
	}
	if err != nil {
		return mappers.Result{Quality: models.Bad, Reason: models.ReasonProtocolError}
	}
	return mappers.Result{Value: v}
}

func (p *point) format(v models.Value) (string, error) {
	text := v.String()
	switch p.kind {
	case models.TypeBool:
		text = "0"
		if b, _ := v.AsBool(); b {
			text = "1"
		}
	case models.TypeString:
		if strings.ContainsAny(text, "\r\n") {
			return "", &mappers.Failure{Reason: models.ReasonConfiguration, Refused: true, Err: errors.New("a string must be one line")}
		}
		text = `"` + strings.ReplaceAll(text, `"`, `""`) + `"`
	}
	return strings.ReplaceAll(p.set, "{value}", text), nil
}

// device is one instrument.
type device struct {
	addr    string
	timeout time.Duration
	points  []point
	conn    net.Conn // nil until the first request, and after every loss
	in      *bufio.Reader
}

func (d *device) connect(ctx context.Context) error {
	if d.conn != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", d.addr)
	if err != nil {
		return &mappers.Failure{Reason: models.ReasonNotConnected, Unsent: true, Err: err}
	}
	d.conn, d.in = conn, bufio.NewReaderSize(conn, 64<<10)
	return nil
}

// send sends a line and, if that asks, returns the answer. Whatever goes wrong
// ends the connection: a late answer must not be taken for the next one.
func (d *device) send(ctx context.Context, line string, asks bool) (answer string, err error) {
	if err := d.connect(ctx); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = d.conn.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		if !stop() || err != nil {
			_ = d.Close()
		}
	}()
	if _, err = d.conn.Write([]byte(line + "\n")); err == nil && asks {
		var text []byte
		text, err = d.in.ReadSlice('\n') // no longer than the buffer
		answer = strings.TrimSpace(string(text))
	}
	switch {
	case ctx.Err() != nil:
		return "", mappers.Fail(models.ReasonTimeout, fmt.Errorf("no answer to %s: %w", line, ctx.Err()))
	case errors.Is(err, bufio.ErrBufferFull):
		return "", mappers.Fail(models.ReasonProtocolError, errors.New("an answer without end"))
	case err != nil:
		return "", mappers.Fail(models.ReasonNotConnected, err)
	}
	return answer, nil
}

// Read implements mappers.Device. An instrument says nothing to a query that it
// does not know, which looks like one that is away; *IDN? tells the two apart.
func (d *device) Read(ctx context.Context, points []int, out []mappers.Result) error {
	for i, p := range points {
		answer, err := d.send(ctx, d.points[p].query, true)
		if err != nil && mappers.FailureOf(err).Reason == models.ReasonTimeout && ctx.Err() == nil {
			if _, silent := d.send(ctx, "*IDN?", true); silent == nil {
				out[i] = mappers.Result{Quality: models.Bad, Reason: models.ReasonDeviceError}
				continue
			}
		}
		if err != nil {
			return err
		}
		out[i] = d.points[p].parse(answer)
	}
	return nil
}

// Write implements mappers.Device.
func (d *device) Write(ctx context.Context, writes []mappers.WriteRequest) []error {
	errs := make([]error, len(writes))
	for i, w := range writes {
		errs[i] = d.write(ctx, &d.points[w.Point], w.Value)
	}
	return errs
}

func (d *device) write(ctx context.Context, p *point, v models.Value) error {
	line, err := p.format(v)
	if err != nil {
		return err
	}
	// What went wrong before is not this write's fault.
	for range maxErrors {
		old, err := d.send(ctx, "SYST:ERR?", true)
		if err != nil {
			f := *mappers.FailureOf(err)
			f.Unsent = true // the value has not been sent
			return &f
		}
		if noError(old) {
			break
		}
	}
	if _, err := d.send(ctx, line, false); err != nil {
		return err
	}
	answer, err := d.send(ctx, "SYST:ERR?", true)
	if err == nil && !noError(answer) {
		err = &mappers.Failure{Reason: models.ReasonDeviceError, Refused: true, Err: errors.New(answer)}
	} else if err != nil { // the value may have arrived, whatever has become of the question
		f := *mappers.FailureOf(err)
		f.Unsent = false
		return &f
	}
	return err
}

// maxErrors is how many errors an instrument may keep; what keeps more answers
// the same for ever.
const maxErrors = 100

func noError(answer string) bool {
	return strings.HasPrefix(answer, "0,") || strings.HasPrefix(answer, "+0,")
}

// Close implements mappers.Device.
func (d *device) Close() error {
	if d.conn == nil {
		return nil
	}
	conn := d.conn
	d.conn, d.in = nil, nil
	return conn.Close()
}
