package scenario

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

// Server is what Start runs.
type Server interface {
	Listen() error
	Run(ctx context.Context) error // returns nil when ctx ends
}

// Start runs a simulator for the length of a test: one made of c, which is a C
// or the path of a file that load reads a C from.
func Start[C any, S Server](t TB, c any, load func(path string) (C, error), build func(C) (S, error)) S {
	t.Helper()
	s, err := open(c, load, build)
	if err != nil {
		t.Fatalf("%v", err)
		return s
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

func open[C any, S Server](c any, load func(path string) (C, error), build func(C) (S, error)) (s S, err error) {
	cfg, ok := c.(C)
	if !ok {
		if cfg, err = load(fmt.Sprint(c)); err != nil {
			return s, err
		}
	}
	made, err := build(cfg)
	if err != nil {
		return s, err
	}
	if err := made.Listen(); err != nil {
		return s, err
	}
	return made, nil
}
