package drivertest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// box is a device in memory: cells by name, and ways to misbehave.
type box struct {
	mu     sync.Mutex
	cells  map[string]models.Value
	unplug bool
	silent chan struct{} // open while silent, nil otherwise
}

// driver opens boxes by their number.
type driver struct {
	mu    sync.Mutex
	boxes []*box
}

func (d *driver) Info() mappers.Info {
	object := `{"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "additionalProperties": false,
		"required": [%q], "properties": {%q: {"type": %q}}}`
	return mappers.Info{Name: "box", Version: "1", Connection: json.RawMessage(fmt.Sprintf(object, "box", "box", "integer")),
		Address: json.RawMessage(fmt.Sprintf(object, "cell", "cell", "string"))}
}

func (d *driver) Open(cfg mappers.DeviceConfig) (mappers.Device, error) {
	var connection struct {
		Box int `json:"box"`
	}
	prefix := func(at string, err error) error {
		var e *models.Error
		if !errors.As(err, &e) {
			return err
		}
		for i := range e.Fields {
			e.Fields[i].Pointer = at + e.Fields[i].Pointer
		}
		return e
	}
	if err := models.DecodeInto(cfg.Connection, &connection); err != nil {
		return nil, prefix("/spec/connection", err)
	}
	dev := &device{points: cfg.Points}
	for _, p := range cfg.Points {
		var address struct {
			Cell string `json:"cell"`
		}
		if err := models.DecodeInto(p.Address, &address); err != nil {
			return nil, prefix("/spec/properties/"+p.Property+"/address", err)
		}
		dev.cells = append(dev.cells, address.Cell)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	dev.box = d.boxes[connection.Box]
	return dev, nil
}

type device struct {
	box    *box
	points []mappers.Point
	cells  []string
}

// reach waits for an answer for at most the device's timeout.
func (d *device) reach(ctx context.Context) *mappers.Failure {
	d.box.mu.Lock()
	unplugged, silent := d.box.unplug, d.box.silent
	d.box.mu.Unlock()
	if unplugged {
		return &mappers.Failure{Reason: models.ReasonNotConnected, Unsent: true, Err: errors.New("unplugged")}
	}
	if silent == nil {
		silent = make(chan struct{})
		close(silent)
	}
	timeout := time.NewTimer(200 * time.Millisecond)
	defer timeout.Stop()
	select {
	case <-silent:
		return nil
	case <-ctx.Done():
		return mappers.Fail(models.ReasonTimeout, ctx.Err())
	case <-timeout.C:
		return mappers.Fail(models.ReasonTimeout, errors.New("no answer"))
	}
}

func (d *device) Read(ctx context.Context, points []int, out []mappers.Result) error {
	if f := d.reach(ctx); f != nil {
		return f
	}
	d.box.mu.Lock()
	defer d.box.mu.Unlock()
	for i, p := range points {
		v, ok := d.box.cells[d.cells[p]]
		out[i] = mappers.Result{Value: v}
		if !ok {
			out[i] = mappers.Result{Quality: models.Bad, Reason: models.ReasonDeviceError}
		}
	}
	return nil
}

func (d *device) Write(ctx context.Context, writes []mappers.WriteRequest) []error {
	errs := make([]error, len(writes))
	for i, w := range writes {
		if f := d.reach(ctx); f != nil {
			errs[i] = f
			continue
		}
		if n, ok := w.Value.AsInt(); ok && n > 99 {
			errs[i] = &mappers.Failure{Reason: models.ReasonConfiguration, Refused: true, Err: errors.New("must be at most 99")}
			continue
		}
		d.box.mu.Lock()
		d.box.cells[d.cells[w.Point]] = w.Value
		d.box.mu.Unlock()
	}
	return errs
}

func (d *device) Close() error { return nil }

func (d *device) Subscribes(p int) bool { return d.cells[p] == "a" }

func (d *device) Subscribe(ctx context.Context, points []mappers.Subscription, deliver func([]int, []mappers.Result)) error {
	for _, s := range points {
		out := make([]mappers.Result, 1)
		if err := d.Read(ctx, []int{s.Point}, out); err != nil {
			return err
		}
		deliver([]int{s.Point}, out)
	}
	<-ctx.Done()
	return ctx.Err()
}

func TestTheFakePasses(t *testing.T) {
	d := &driver{}
	Run(t, Harness{Driver: d, BadAddress: json.RawMessage(`{"cell": 5}`), Start: func(t *testing.T) Device {
		b := &box{cells: map[string]models.Value{"a": models.Int(1), "b": models.Int(2), "c": models.String("x")}}
		d.mu.Lock()
		defer d.mu.Unlock()
		d.boxes = append(d.boxes, b)
		point := func(name string, kind models.Type, value, other, beyond models.Value) Point {
			return Point{Point: mappers.Point{Property: name, Type: kind, Access: models.ReadWrite,
				Address: json.RawMessage(fmt.Sprintf(`{"cell": %q}`, name))}, Value: value, Other: other, Beyond: beyond}
		}
		set := func(f func()) func() {
			return func() {
				b.mu.Lock()
				defer b.mu.Unlock()
				f()
			}
		}
		return Device{
			Connection: json.RawMessage(fmt.Sprintf(`{"box": %d}`, len(d.boxes)-1)),
			Points: []Point{point("a", models.TypeInt, models.Int(1), models.Int(5), models.Int(100)),
				point("b", models.TypeInt, models.Int(2), models.Int(6), models.Null),
				point("c", models.TypeString, models.String("x"), models.String("y"), models.Null)},
			Refused: mappers.Point{Property: "d", Type: models.TypeInt, Access: models.Read, Address: json.RawMessage(`{"cell": "d"}`)},
			Unplug:  set(func() { b.unplug = true }),
			Plug:    set(func() { b.unplug = false }),
			Silence: set(func() { b.silent = make(chan struct{}) }),
			Speak:   set(func() { close(b.silent); b.silent = nil }),
		}
	}})
}
