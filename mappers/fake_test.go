package mappers

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

// fake is a device whose answers a test decides. Each Read takes took.
type fake struct {
	mu     sync.Mutex
	values map[int]Result
	fail   error // of every Read and Write
	failN  int   // if above 0, only so many fail
	took   time.Duration
	reads  []readCall
	writes [][]WriteRequest
	refuse map[int]error                   // of writes, by point
	store  func(models.Value) models.Value // what the device makes of a written value
	lag    time.Duration                   // until a written value can be read
	line   string
	closed int
}

type readCall struct {
	at     time.Time
	points []int
}

func newFake(values ...models.Value) *fake {
	f := &fake{values: map[int]Result{}}
	for i, v := range values {
		f.values[i] = Result{Value: v}
	}
	return f
}

func (f *fake) set(p int, r Result) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.values[p] = r
}

func (f *fake) setFail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = err
}

func (f *fake) failing() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail == nil {
		return nil
	}
	if f.failN > 0 {
		if f.failN--; f.failN == 0 {
			err := f.fail
			f.fail = nil
			return err
		}
	}
	return f.fail
}

func wait(ctx context.Context, d time.Duration) error {
	if d == 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *fake) Read(ctx context.Context, points []int, out []Result) error {
	f.mu.Lock()
	f.reads = append(f.reads, readCall{time.Now(), slices.Clone(points)})
	took := f.took
	f.mu.Unlock()
	if err := wait(ctx, took); err != nil {
		return err
	}
	if err := f.failing(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, p := range points {
		out[i] = f.values[p]
	}
	return nil
}

func (f *fake) Write(ctx context.Context, writes []WriteRequest) []error {
	f.mu.Lock()
	f.writes = append(f.writes, slices.Clone(writes))
	f.mu.Unlock()
	errs := make([]error, len(writes))
	failed := f.failing()
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, w := range writes {
		if errs[i] = f.refuse[w.Point]; errs[i] == nil {
			errs[i] = failed
		}
		if errs[i] != nil {
			continue
		}
		v := w.Value
		if f.store != nil {
			v = f.store(v)
		}
		if f.lag > 0 {
			time.AfterFunc(f.lag, func() { f.set(w.Point, Result{Value: v}) })
			continue
		}
		f.values[w.Point] = Result{Value: v}
	}
	return errs
}

func (f *fake) Close() error { f.closed++; return nil }
func (f *fake) Line() string { return f.line }

func (f *fake) readTimes() []time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []time.Time
	for _, r := range f.reads {
		out = append(out, r.at)
	}
	return out
}

func (f *fake) readCalls() []readCall {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.reads)
}

func (f *fake) writeCalls() [][]WriteRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.writes)
}

// sink records what a Runner tells.
type sink struct {
	mu      sync.Mutex
	seen    []seen
	states  []stateSeen
	written []WriteResult
	batches []Batch
	onState func(models.DeviceState)
}

type seen struct {
	property int
	at       time.Time
	sample   models.Sample
}

type stateSeen struct {
	at     time.Time
	state  models.DeviceState
	reason models.Reason
	err    error
}

func (s *sink) Report(b Batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.batches = append(s.batches, Batch{Time: b.Time, Refreshed: slices.Clone(b.Refreshed), Changed: slices.Clone(b.Changed)})
	for _, o := range b.Changed {
		s.seen = append(s.seen, seen{o.Property, time.Now(), o.Sample})
	}
}

func (s *sink) Written(w WriteResult) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.written = append(s.written, w)
}

func (s *sink) State(state models.DeviceState, reason models.Reason, err error) {
	s.mu.Lock()
	s.states = append(s.states, stateSeen{time.Now(), state, reason, err})
	s.mu.Unlock()
	if s.onState != nil {
		s.onState(state)
	}
}

func (s *sink) reports(property int) []seen {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []seen
	for _, r := range s.seen {
		if r.property == property {
			out = append(out, r)
		}
	}
	return out
}

func (s *sink) result(id string) (WriteResult, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.written {
		if w.ID == id {
			return w, true
		}
	}
	return WriteResult{}, false
}

// told is every state that was told; for a Runner that still runs.
func (s *sink) told() []stateSeen {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.states)
}

// reported is every batch; for a Runner that still runs.
func (s *sink) reported() []Batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.batches)
}

func (s *sink) state() models.DeviceState {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.states) == 0 {
		return models.StateUnknown
	}
	return s.states[len(s.states)-1].state
}

func prop(name string, t models.Type, every time.Duration) models.ResolvedProperty {
	return models.ResolvedProperty{Name: name, Type: t, Access: models.ReadWrite, Every: every, Heartbeat: time.Minute, Write: models.Once}
}

// start runs a Runner until the test ends or stop is called.
func start(t testing.TB, cfg RunnerConfig) (r *Runner, stop func()) {
	t.Helper()
	if cfg.Sink == nil {
		cfg.Sink = &sink{}
	}
	cfg.Protocol = "fake"
	r = NewRunner(cfg)
	ctx, cancel := context.WithCancelCause(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	stopped := errors.New("stopped")
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel(stopped)
			if err := <-done; !errors.Is(err, stopped) {
				t.Errorf("Run returned %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return r, stop
}
