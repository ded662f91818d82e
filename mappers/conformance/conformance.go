// Package conformance is what a driver has to do, as numbered requirements that
// can be checked: the suite behind mappers/drivertest, which checks drivers in Go
// tests, and behind `whimbrel mapper test`, which checks mappers that are
// processes of their own.
package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
)

// T is what a requirement says its findings to; *testing.T is one. Fatal, Fatalf
// and Skip end the goroutine.
type T interface {
	Helper()
	Context() context.Context
	Error(args ...any)
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Skip(args ...any)
}

// Harness is a driver and how to get at a device that speaks its protocol.
type Harness struct {
	Driver mappers.Driver
	// Start starts a device of its own for one requirement. It sees to its end.
	Start func(t T) Device
	// BadAddress is an address that Open must refuse.
	BadAddress json.RawMessage
	// OpenWithin is how long Open may take; 0 is 100 ms.
	OpenWithin time.Duration
	// Watch begins to look for what a requirement leaves behind, and returns what
	// finds it. Unless nil.
	Watch func() (leaks func() error)
}

// Device is a real or simulated device for a test.
type Device struct {
	Connection json.RawMessage // with a timeout of at most two seconds
	// Points the device has, at least two of them writable and readable.
	Points []Point
	// Refused is a point that Open accepts and the device has not; it lies
	// among the others. Its zero value says that the protocol knows no such
	// thing.
	Refused mappers.Point
	// Unplug cuts the device off, so that connecting fails; Plug undoes it. Nil
	// for a device of which it cannot be had; what needs it is skipped then.
	Unplug, Plug func()
	// Silence keeps the device connected, but it answers nothing; Speak undoes
	// it. Nil as above.
	Silence, Speak func()
	// Slow makes the device answer nothing for so long, and then everything. Nil
	// as above.
	Slow func(d time.Duration)
}

// Point is a point and what it holds.
type Point struct {
	mappers.Point
	Value models.Value // when the device starts
	// Other is another value that the device stores exactly, for writable
	// points.
	Other models.Value
	// Beyond is a value of the point's type that the device cannot store; Null
	// when there is none.
	Beyond models.Value
}

// The bounds that the suite holds drivers to.
const (
	cancelWithin = time.Second
	closeWithin  = 2 * time.Second
	backWithin   = 10 * time.Second
	failWithin   = 10 * time.Second // a read of a silent device; its timeout is at most two seconds
	late         = 100 * time.Millisecond
)

// needs is what of a device a requirement cannot do without.
type needs int

const (
	nothing needs = iota
	unplugging
	silencing
	slowing
)

var requirements = []struct {
	id, name string
	needs    needs
	f        func(T, *env)
}{
	{"D01", "info names the driver", nothing, infoNames},
	{"D02", "schemas are JSON Schema 2020-12", nothing, schemasCompile},
	{"D03", "schemas accept what Open accepts, and no unknown field", nothing, schemasFit},
	{"D04", "open refuses a bad address with a pointer to it", nothing, openRefusesAddress},
	{"D05", "open refuses an unknown field of the connection with a pointer to it", nothing, openRefusesConnection},
	{"D06", "open does not reach for the device", unplugging, openIsQuiet},
	{"D07", "one batch reads every point in its type", nothing, readBatch},
	{"D08", "points may be read in any choice and order", nothing, readSome},
	{"D09", "what is written is read back", nothing, writeReadBack},
	{"D10", "several values are written in one call", nothing, writeMany},
	{"D11", "a value that the device cannot hold is refused and not sent", nothing, writeBeyond},
	{"D12", "a bad point is bad alone", nothing, refusedAlone},
	{"D13", "a lost device fails as a whole, and comes back by itself", unplugging, lostAndBack},
	{"D14", "a write to a lost device does not succeed, nor claim to be refused", unplugging, writeLost},
	{"D15", "a silent device is a timeout", silencing, silentTimesOut},
	{"D16", "read and write return soon after their context ends", silencing, cancelled},
	{"D17", "close is quick, also while the device is silent", silencing, closeQuick},
	{"D18", "devices of one driver may be used at the same time", nothing, together},
	{"D19", "plans cover the points, and lines keep their names", nothing, plans},
	{"D20", "subscriptions deliver present values and end with their context", nothing, subscriptions},
	{"D21", "a slow device is waited for", slowing, slowIsWaitedFor},
	{"D22", "who reads by himself reports every point again and again, and that the device is gone, and that it is back", unplugging, reports},
}

// Run hands each requirement to run, with its number and name, which is to call
// check with a T of its own and wait for it.
func Run(h Harness, run func(id, name string, check func(T))) {
	for _, r := range requirements {
		run(r.id, r.name, func(t T) {
			e := &env{Harness: h, Device: h.Start(t), t: t}
			switch {
			case r.needs == unplugging && (e.Unplug == nil || e.Plug == nil):
				t.Skip("the device cannot be unplugged")
			case r.needs == silencing && (e.Silence == nil || e.Speak == nil):
				t.Skip("the device cannot be silenced")
			case r.needs == slowing && e.Slow == nil:
				t.Skip("the device cannot be slowed down")
			}
			leaks := func() error { return nil }
			if h.Watch != nil {
				leaks = h.Watch()
			}
			// D00: whatever a test does, closing what it opened leaves nothing behind.
			defer func() {
				e.closeAll(t)
				if err := leaks(); err != nil {
					t.Errorf("D00 left behind after Close: %v", err)
				}
			}()
			r.f(t, e)
		})
	}
}

// env is one requirement's device and what was opened for it.
type env struct {
	Harness
	Device
	t    T
	open []mappers.Device
	made int // devices
}

// config is a device's, under a name of its own.
func (e *env) config(connection json.RawMessage, points []mappers.Point) mappers.DeviceConfig {
	e.made++
	return mappers.DeviceConfig{Name: fmt.Sprintf("conformance-%d", e.made), Connection: connection, Points: points}
}

func (e *env) points() []mappers.Point {
	points := make([]mappers.Point, len(e.Points))
	for i, p := range e.Points {
		points[i] = p.Point
	}
	return points
}

// opened opens the device; the suite closes it.
func (e *env) opened(t T, points ...mappers.Point) mappers.Device {
	t.Helper()
	if points == nil {
		points = e.points()
	}
	dev, err := e.Driver.Open(e.config(e.Connection, points))
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	e.open = append(e.open, dev)
	return dev
}

func (e *env) closeAll(t T) {
	for _, dev := range e.open {
		if err := dev.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	e.open = nil
}

func upTo(n int) []int {
	points := make([]int, n)
	for i := range points {
		points[i] = i
	}
	return points
}
