// Package simulators starts simulated devices from files. Each kind of
// simulator is a package of its own below; this one knows them by the kind of
// their documents. Commands and tests import it, nothing else.
package simulators

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/whimbrel-edge/whimbrel/simulators/modbussim"
	"github.com/whimbrel-edge/whimbrel/simulators/opcuasim"
	"github.com/whimbrel-edge/whimbrel/simulators/scenario"
	"github.com/whimbrel-edge/whimbrel/simulators/serialsim"
)

// Simulator is a device, or several, on a network.
type Simulator interface {
	Name() string
	// Listen takes the addresses; Run does so where it was not called.
	Listen() error
	// Addr is the first address. Before Listen its port may be 0.
	Addr() string
	// Describe says in a line per device what listens where.
	Describe() []string
	// Run serves until ctx ends and nothing of it is left, then returns nil.
	Run(ctx context.Context) error
}

// kinds is every kind of document that Load knows.
var kinds = map[string]func(scenario.Document) (Simulator, error){
	modbussim.Kind: builder(modbussim.New),
	opcuasim.Kind:  builder(opcuasim.New),
	serialsim.Kind: builder(serialsim.New),
}

// builder makes a simulator of a document that describes a C.
func builder[C any, S Simulator](build func(C) (S, error)) func(scenario.Document) (Simulator, error) {
	return func(d scenario.Document) (Simulator, error) {
		cfg, err := scenario.As[C](d)
		if err != nil {
			return nil, err
		}
		s, err := build(cfg)
		if err != nil {
			return nil, err // and no typed nil
		}
		return s, nil
	}
}

// Load makes the simulators of a file, in its order: those that it describes, or
// the one that plays the recording that it is, as how says. They do not listen
// yet.
func Load(path string, how ...Replay) ([]Simulator, error) {
	if isRecording(path) {
		var o Replay
		if len(how) > 0 {
			o = how[0]
		}
		s, err := LoadRecording(path, o)
		if err != nil {
			return nil, err
		}
		return []Simulator{s}, nil
	}
	docs, err := scenario.Read(path)
	if err != nil {
		return nil, fmt.Errorf("simulators: %w", err)
	}
	var sims []Simulator
	for _, d := range docs {
		build, ok := kinds[d.Kind]
		if !ok {
			return nil, fmt.Errorf("simulators: %s: kind %s is not one of %s", path, d.Kind, known())
		}
		s, err := build(d)
		if err != nil {
			return nil, fmt.Errorf("simulators: %s: %w", path, err)
		}
		sims = append(sims, s)
	}
	return sims, nil
}

func known() string {
	var names []string
	for k := range kinds {
		names = append(names, k)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// Run starts all of them, tells out what listens where, and serves until ctx
// ends or one of them fails.
func Run(ctx context.Context, sims []Simulator, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	var listening []Simulator
	var err error
	for _, s := range sims {
		if err = s.Listen(); err != nil {
			cancel() // the others close what they listen on when they run
			break
		}
		listening = append(listening, s)
	}
	if err == nil {
		for _, s := range sims {
			for _, line := range s.Describe() {
				fmt.Fprintf(out, "%s: %s\n", s.Name(), line)
			}
		}
	}
	errs := make([]error, len(listening))
	var wg sync.WaitGroup
	for i, s := range listening {
		wg.Go(func() {
			if errs[i] = s.Run(ctx); errs[i] != nil {
				cancel()
			}
		})
	}
	wg.Wait()
	cancel()
	for _, s := range listening {
		if r, ok := s.(interface{ Report() []string }); ok {
			for _, line := range r.Report() {
				fmt.Fprintf(out, "%s: %s\n", s.Name(), line)
			}
		}
	}
	return errors.Join(append(errs, err)...)
}
