// Package drivertest checks drivers against the numbered requirements of
// mappers/conformance. A driver's tests hand Run a Harness. Only tests import it.
package drivertest

import (
	"encoding/json"
	"testing"

	"go.uber.org/goleak"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/mappers/conformance"
)

// Device and Point are what a Harness starts and what that has.
type (
	Device = conformance.Device
	Point  = conformance.Point
)

// Harness is a driver and how to get at a device that speaks its protocol.
type Harness struct {
	Driver mappers.Driver
	// Start starts a device of its own for one requirement. It registers its
	// end with t.Cleanup.
	Start func(t *testing.T) Device
	// BadAddress is an address that Open must refuse.
	BadAddress json.RawMessage
	// Ignore names the goroutines that simulated devices start while they run,
	// so that they are not taken for the driver's.
	Ignore []goleak.Option
	// Parallel says that Start can start several devices at a time, each for
	// itself: the requirements are then checked beside each other, and that
	// nothing is left behind once, after all of them.
	Parallel bool
}

// Run runs the whole suite.
func Run(t *testing.T, h Harness) {
	watch := func() func() error {
		running := goleak.IgnoreCurrent()
		return func() error { return goleak.Find(append(h.Ignore, running)...) }
	}
	suite := conformance.Harness{
		Driver:     h.Driver,
		BadAddress: h.BadAddress,
		Start:      func(t conformance.T) Device { return h.Start(t.(*testing.T)) }, // as check got it below
	}
	if !h.Parallel {
		suite.Watch = watch
		conformance.Run(suite, func(id, name string, check func(conformance.T)) {
			t.Run(id+" "+name, func(t *testing.T) { check(t) })
		})
		return
	}
	leaks := watch()
	t.Run("all", func(t *testing.T) {
		conformance.Run(suite, func(id, name string, check func(conformance.T)) {
			t.Run(id+" "+name, func(t *testing.T) {
				t.Parallel()
				check(t)
			})
		})
	})
	if err := leaks(); err != nil {
		t.Errorf("D00 left behind after Close: %v", err)
	}
}
