package modbussim

import (
	"cmp"
	"fmt"

	"github.com/whimbrel-edge/whimbrel/protocols/modbus"
)

// fault is a Fault with what is left of its count.
type fault struct {
	Fault
	left int // -1: no end
}

// Inject makes something go wrong with a unit's requests from now on, or with
// all units' for "". Several faults are tried in the order they came, a unit's
// own first, and the first that strikes is the one.
func (s *Server) Inject(unit string, f Fault) error {
	if unit != "" && s.byName[unit] == nil {
		return fmt.Errorf("modbussim: %s has no unit %q", s.cfg.Name, unit)
	}
	err := f.check()
	for _, p := range s.ports {
		if unit == "" || p == s.byName[unit].port {
			err = cmp.Or(err, f.checkOn(p))
		}
	}
	if err != nil {
		return fmt.Errorf("modbussim: %w", err)
	}
	s.inject(unit, f)
	return nil
}

func (s *Server) inject(unit string, f Fault) {
	f.Exception = cmp.Or(f.Exception, modbus.DeviceFailure)
	left := -1
	if f.Count > 0 {
		left = f.Count
	}
	s.faultMu.Lock()
	defer s.faultMu.Unlock()
	s.faults[unit] = append(s.faults[unit], &fault{Fault: f, left: left})
	s.faulty.Store(true)
}

// Clear ends a unit's faults, or those injected for all units for "".
func (s *Server) Clear(unit string) {
	s.faultMu.Lock()
	defer s.faultMu.Unlock()
	delete(s.faults, unit)
	s.faulty.Store(len(s.faults) > 0)
}

// strike tells which fault, if any, meets a request.
func (s *Server) strike(u *unit, pdu []byte) (Fault, bool) {
	if !s.faulty.Load() {
		return Fault{}, false
	}
	on := "reads"
	if modbus.Function(pdu[0]).Writes() {
		on = "writes"
	}
	s.faultMu.Lock()
	defer s.faultMu.Unlock()
	for _, name := range []string{u.name, ""} {
		for _, f := range s.faults[name] {
			if f.left == 0 || f.On != "" && f.On != on || f.Probability > 0 && s.random.Float64() >= f.Probability {
				continue
			}
			if f.left > 0 {
				f.left--
			}
			return f.Fault, true
		}
	}
	return Fault{}, false
}
