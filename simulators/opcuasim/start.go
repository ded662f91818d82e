package opcuasim

import "github.com/whimbrel-edge/whimbrel/simulators/scenario"

// TB is the part of testing.TB that Start needs.
type TB = scenario.TB

// Start runs a simulator for the length of a test. It is given a Config or the
// path of a file with one OPCUASimulator.
func Start[C Config | string](t TB, c C) *Server {
	t.Helper()
	return scenario.Start(t, c, Load, New)
}
