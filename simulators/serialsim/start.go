package serialsim

import (
	"context"
	"fmt"
)

// TB is the part of testing.TB that Start needs, so that no program that
// carries simulators carries package testing.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	Cleanup(func())
}

// Start runs a simulator for the length of a test. It is given a Config or the
// path of a file with one SerialSimulator.
func Start[C Config | string](t TB, c C) *Server {
	t.Helper()
	s, err := open(any(c))
	if err != nil {
		t.Fatalf("%v", err)
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Fatalf("%v", err)
		}
	})
	return s
}

func open(c any) (*Server, error) {
	cfg, ok := c.(Config)
	if !ok {
		var err error
		if cfg, err = Load(fmt.Sprint(c)); err != nil {
			return nil, err
		}
	}
	s, err := New(cfg)
	if err != nil {
		return nil, err
	}
	return s, s.Listen()
}
