// Package enginetest is what every engine.Engine must pass, and an engine that
// pretends, for tests that are to be quick or need one that misbehaves.
package enginetest

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/engine"
)

// Image is the reference of the image that the engine under test must have: the
// program of internal/dockertest, or something that behaves like it.
const Image = "whimbrel.test/app:1"

// Suite runs the conformance tests against one engine, which has Image. archive,
// when loaded, brings the image loaded.
func Suite(t *testing.T, e engine.Engine, archive []byte, loaded string) {
	labels := map[string]string{"whimbrel.test/suite": t.Name()}
	network, err := e.Network(t.Context(), "suite", labels)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.RemoveNetwork(context.WithoutCancel(t.Context()), "suite"); err != nil {
			t.Error(err)
		}
	})
	s := &suite{e: e, labels: labels}
	t.Run("info and network", func(t *testing.T) {
		info, err := e.Info(t.Context())
		if err != nil || info.Name == "" || info.Version == "" || info.CPUs == 0 || info.Memory == 0 {
			t.Errorf("info %+v, %v", info, err)
		}
		again, err := e.Network(t.Context(), "suite", labels)
		if err != nil || again != network || network.Gateway == "" {
			t.Errorf("the same network is %+v, then %+v, %v", network, again, err)
		}
		if err := e.RemoveNetwork(t.Context(), "never-was"); err != nil {
			t.Errorf("removing a network that never was: %v", err)
		}
	})
	t.Run("life", s.life)
	t.Run("ends", s.ends)
	t.Run("errors", s.errors)
	t.Run("events", s.events)
	t.Run("logs", s.logs)
	t.Run("exec and stats", s.exec)
	t.Run("load", func(t *testing.T) {
		if _, err := e.Image(t.Context(), loaded); !errors.Is(err, engine.ErrNotFound) {
			t.Fatalf("before: %v", err)
		}
		names, err := e.Load(t.Context(), bytes.NewReader(archive))
		if err != nil || !slices.Contains(names, loaded) {
			t.Fatalf("loaded %v, %v", names, err)
		}
		i, err := e.Image(t.Context(), loaded)
		if err != nil || i.ID == "" || i.Size == 0 {
			t.Errorf("after: %+v, %v", i, err)
		}
		const other = "whimbrel.test/other:2"
		if err := e.Tag(t.Context(), i.ID, other); err != nil {
			t.Error(err)
		}
		if again, err := e.Image(t.Context(), other); err != nil || again.ID != i.ID || len(i.Names) != 1 || len(again.Names) != 2 || !slices.Contains(again.Names, other) {
			t.Errorf("by its other name: %+v, before %+v, %v", again, i, err)
		}
		if err := e.Untag(t.Context(), other); err != nil {
			t.Error(err)
		}
		if _, err := e.Image(t.Context(), other); !errors.Is(err, engine.ErrNotFound) {
			t.Errorf("without its name: %v", err)
		}
		if _, err := e.Image(t.Context(), i.ID); err != nil {
			t.Errorf("the image went with a name that was not its last: %v", err)
		}
		if err := e.Tag(t.Context(), "whimbrel.test/never-was:1", other); !errors.Is(err, engine.ErrNotFound) {
			t.Errorf("a name for nothing: %v", err)
		}
		if err := e.Untag(t.Context(), other); !errors.Is(err, engine.ErrNotFound) {
			t.Errorf("nothing without its name: %v", err)
		}
		id := s.make(t, "of-it", func(spec *engine.Spec) { spec.Image = loaded })
		if err := e.Untag(t.Context(), loaded); !errors.Is(err, engine.ErrConflict) {
			t.Errorf("an image that a container needs, without its last name: %v", err)
		}
		if err := e.Remove(t.Context(), id); err != nil {
			t.Error(err)
		}
		if err := e.Untag(t.Context(), loaded); err != nil {
			t.Error(err)
		}
		if _, err := e.Image(t.Context(), i.ID); !errors.Is(err, engine.ErrNotFound) {
			t.Errorf("the image is there without a name: %v", err)
		}
	})
}

type suite struct {
	e      engine.Engine
	labels map[string]string
}

// make makes a container, which goes when the test does.
func (s *suite) make(t *testing.T, name string, change func(*engine.Spec)) string {
	t.Helper()
	spec := engine.Spec{Name: "suite-" + name, Image: Image, Labels: map[string]string{"name": name}, Network: "suite", Args: []string{"serve=8080"}}
	maps.Copy(spec.Labels, s.labels)
	if change != nil {
		change(&spec)
	}
	id, err := s.e.Create(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.e.Remove(context.WithoutCancel(t.Context()), id); err != nil && !errors.Is(err, engine.ErrNotFound) {
			t.Error(err)
		}
	})
	return id
}

func (s *suite) start(t *testing.T, id string) {
	t.Helper()
	if err := s.e.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
}

// await waits until the container is in a state.
func (s *suite) await(t *testing.T, id string, state engine.State) engine.Container {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		c, err := s.e.Inspect(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		if c.State == state {
			return c
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the container is %s, not %s", c.State, state)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (s *suite) life(t *testing.T) {
	id := s.make(t, "life", func(spec *engine.Spec) {
		spec.Env = []string{"COLOUR=green"}
		spec.Args = []string{"env=COLOUR", "serve=8080"}
		spec.Memory, spec.NanoCPUs, spec.LogBytes, spec.LogFiles = 64<<20, 5e8, 1<<20, 2
	})
	c, err := s.e.Inspect(t.Context(), id)
	if err != nil || c.State != engine.Created || c.Image != Image || c.ImageID == "" || c.Labels["name"] != "life" || !c.StartedAt.IsZero() {
		t.Errorf("created: %+v, %v", c, err)
	}
	s.start(t, id)
	s.start(t, id) // does nothing
	c = s.await(t, id, engine.Running)
	if c.StartedAt.IsZero() || c.IP == "" {
		t.Errorf("running: %+v", c)
	}
	list, err := s.e.List(t.Context(), s.labels)
	if err != nil || len(list) != 1 || list[0].ID != id || list[0].State != engine.Running || list[0].Labels["name"] != "life" || list[0].Name != "suite-life" {
		t.Errorf("list: %+v, %v", list, err)
	}
	if list, err := s.e.List(t.Context(), map[string]string{"whimbrel.test/suite": "another"}); err != nil || len(list) != 0 {
		t.Errorf("list of others: %+v, %v", list, err)
	}
	s.says(t, id, "green")
	if err := s.e.Stop(t.Context(), id, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if c = s.await(t, id, engine.Exited); c.ExitCode != 0 || c.FinishedAt.IsZero() {
		t.Errorf("stopped: %+v", c)
	}
	if err := s.e.Stop(t.Context(), id, time.Second); err != nil {
		t.Errorf("stopping a stopped one: %v", err)
	}
	s.start(t, id)
	s.await(t, id, engine.Running)
	if err := s.e.Remove(t.Context(), id); err != nil {
		t.Errorf("removing a running one: %v", err)
	}
	if _, err := s.e.Inspect(t.Context(), id); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("after that it is: %v", err)
	}
}

func (s *suite) says(t *testing.T, id, want string) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		out := text(s.log(t, id, engine.LogOptions{Tail: -1}))
		if strings.Contains(out, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("it says %q, not %q", out, want)
		}
		<-time.After(10 * time.Millisecond)
	}
}

func (s *suite) ends(t *testing.T) {
	id := s.make(t, "ends", func(spec *engine.Spec) { spec.Args = []string{"say=goodbye", "exit=3"} })
	s.start(t, id)
	if c := s.await(t, id, engine.Exited); c.ExitCode != 3 || c.OOMKilled || c.FinishedAt.Before(c.StartedAt) {
		t.Errorf("ended: %+v", c)
	}
	s.says(t, id, "goodbye")
	id = s.make(t, "oom", func(spec *engine.Spec) { spec.Args, spec.Memory = []string{"eat=200"}, 32<<20 })
	s.start(t, id)
	if c := s.await(t, id, engine.Exited); !c.OOMKilled || c.ExitCode != 137 {
		t.Errorf("out of memory: %+v", c)
	}
}

func (s *suite) errors(t *testing.T) {
	s.make(t, "twice", nil)
	if _, err := s.e.Create(t.Context(), engine.Spec{Name: "suite-twice", Image: Image}); !errors.Is(err, engine.ErrConflict) {
		t.Errorf("the same name: %v", err)
	}
	if _, err := s.e.Create(t.Context(), engine.Spec{Name: "suite-imageless", Image: "whimbrel.test/none:1"}); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("no image: %v", err)
	}
	for what, err := range map[string]error{
		"start":  s.e.Start(t.Context(), "feedfacefeed"),
		"stop":   s.e.Stop(t.Context(), "feedfacefeed", time.Second),
		"remove": s.e.Remove(t.Context(), "feedfacefeed"),
		"logs":   s.e.Logs(t.Context(), "feedfacefeed", engine.LogOptions{}, func(engine.LogEntry) error { return nil }),
	} {
		if !errors.Is(err, engine.ErrNotFound) {
			t.Errorf("%s of no container: %v", what, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.e.List(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a call that is given up: %v", err)
	}
}

func (s *suite) events(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	labels := map[string]string{"whimbrel.test/events": t.Name()} // not those of the containers before
	since := time.Now()
	id := s.make(t, "events", func(spec *engine.Spec) { spec.Args, spec.Labels = []string{"sleep=50ms", "exit=1"}, labels })
	seen := make(chan engine.Event, 100) // far more than there are
	ended := make(chan error, 1)
	go func() { // ends with ctx
		ended <- s.e.Events(ctx, labels, since, func(e engine.Event) { seen <- e })
	}()
	s.start(t, id)
	for _, want := range []string{"create", "start", "die"} {
		select {
		case e := <-seen:
			if e.Action != want || e.Container != id || e.Time.IsZero() {
				t.Errorf("event %+v, want %s of %s", e, want, id)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("no event %s", want)
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the stream ended with %v", err)
	}
}

// log reads a log.
func (s *suite) log(t *testing.T, id string, o engine.LogOptions) (all []engine.LogEntry) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := s.e.Logs(ctx, id, o, func(e engine.LogEntry) error {
		e.Data = bytes.Clone(e.Data)
		all = append(all, e)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

// text is what entries say.
func text(all []engine.LogEntry) string {
	var b strings.Builder
	for _, e := range all {
		b.Write(e.Data)
	}
	return b.String()
}

// of are those of a stream.
func of(stream engine.Stream, all []engine.LogEntry) (some []engine.LogEntry) {
	for _, e := range all {
		if e.Stream == stream {
			some = append(some, e)
		}
	}
	return some
}

func (s *suite) logs(t *testing.T) {
	before := time.Now()
	id := s.make(t, "logs", func(spec *engine.Spec) {
		spec.Args = []string{"say=one", "say=two", "grumble=three", "sleep=100ms", "say=four", "exit=0"}
	})
	s.start(t, id)
	s.await(t, id, engine.Exited)
	all := s.log(t, id, engine.LogOptions{Tail: -1})
	if text(of(engine.Stdout, all)) != "one\ntwo\nfour\n" || text(of(engine.Stderr, all)) != "three\n" {
		t.Fatalf("it says %q", text(all))
	}
	last := before
	for _, e := range of(engine.Stdout, all) {
		if e.Time.Before(last) {
			t.Errorf("times go back: %+v", all)
		}
		last = e.Time
	}
	for what, c := range map[string]struct {
		o    engine.LogOptions
		want string
	}{
		"tail":             {engine.LogOptions{Tail: 1}, "four\n"},
		"no tail":          {engine.LogOptions{Tail: 0}, ""},
		"since":            {engine.LogOptions{Tail: -1, Since: last}, "four\n"},
		"since later":      {engine.LogOptions{Tail: -1, Since: last.Add(time.Nanosecond)}, ""},
		"stderr":           {engine.LogOptions{Tail: -1, Only: engine.Stderr}, "three\n"},
		"tail of stderr":   {engine.LogOptions{Tail: 5, Only: engine.Stderr}, "three\n"},
		"tail of stdout":   {engine.LogOptions{Tail: 2, Only: engine.Stdout}, "two\nfour\n"},
		"until":            {engine.LogOptions{Tail: -1, Only: engine.Stdout, Until: last.Add(-50 * time.Millisecond)}, "one\ntwo\n"},
		"tail of until":    {engine.LogOptions{Tail: 1, Only: engine.Stdout, Until: last.Add(-50 * time.Millisecond)}, "two\n"},
		"follow an end":    {engine.LogOptions{Tail: 1, Follow: true}, "four\n"},
		"follow from when": {engine.LogOptions{Tail: -1, Since: last, Follow: true}, "four\n"},
	} {
		if got := text(s.log(t, id, c.o)); got != c.want {
			t.Errorf("%s: %q, want %q", what, got, c.want)
		}
	}
	// A start goes on with the same log. Who follows hears it to its end.
	s.start(t, id)
	var heard strings.Builder
	if err := s.e.Logs(t.Context(), id, engine.LogOptions{Tail: -1, Follow: true, Since: last.Add(time.Nanosecond), Only: engine.Stdout}, func(e engine.LogEntry) error {
		heard.Write(e.Data)
		return nil
	}); err != nil || heard.String() != "one\ntwo\nfour\n" {
		t.Errorf("heard %q, %v", heard.String(), err)
	}
	enough := errors.New("enough")
	n := 0
	if err := s.e.Logs(t.Context(), id, engine.LogOptions{Tail: -1}, func(engine.LogEntry) error { n++; return enough }); !errors.Is(err, enough) || n != 1 {
		t.Errorf("who has heard enough: %v after %d", err, n)
	}

	const long = 100_000
	id = s.make(t, "long", func(spec *engine.Spec) { spec.Args = []string{"long=100000", "say=short", "sleep=1h"} })
	s.start(t, id)
	s.says(t, id, "short")
	all = s.log(t, id, engine.LogOptions{Tail: -1})
	if got := text(all); len(all) < 3 || got != strings.Repeat("x", long)+"\nshort\n" || len(all[0].Data) == 0 || all[0].Data[len(all[0].Data)-1] == '\n' {
		t.Errorf("a long line is %d entries and %d bytes", len(all), len(got))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := s.e.Logs(ctx, id, engine.LogOptions{Tail: 0, Follow: true}, func(engine.LogEntry) error { return nil }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("who is called away: %v", err)
	}
}

func (s *suite) exec(t *testing.T) {
	id := s.make(t, "exec", func(spec *engine.Spec) { spec.Args = []string{"serve=8080"} })
	if _, err := s.e.Exec(t.Context(), id, engine.ExecSpec{Command: []string{"/app", "exit=0"}}); !errors.Is(err, engine.ErrConflict) {
		t.Errorf("in one that does not run: %v", err)
	}
	s.start(t, id)
	if code, err := s.e.Exec(t.Context(), id, engine.ExecSpec{Command: []string{"/app", "exit=0"}}); err != nil || code != 0 {
		t.Errorf("exec: %d, %v", code, err)
	}
	for _, c := range []struct {
		steps, in, out, errs string
		code                 int
	}{
		{"exit=7", "", "", "", 7},
		{"say=a grumble=b say=c exit=3", "", "a\nc\n", "b\n", 3},
		{"echo say=over", "hello\nthere\n", "hello\nthere\nover\n", "", 0},
		{"winsize", "", "no terminal\n", "", 0},
	} {
		var out, errs bytes.Buffer
		e := engine.ExecSpec{Command: append([]string{"/app"}, strings.Fields(c.steps)...), Stdout: &out, Stderr: &errs}
		if c.in != "" {
			e.Stdin = strings.NewReader(c.in)
		}
		if code, err := s.e.Exec(t.Context(), id, e); err != nil || code != c.code || out.String() != c.out || errs.String() != c.errs {
			t.Errorf("%s: %q and %q, exit %d, %v", c.steps, out.String(), errs.String(), code, err)
		}
	}
	sizes := make(chan engine.Size, 1)
	sizes <- engine.Size{Columns: 100, Rows: 30}
	var shown terminal
	shown.saw = func(text string) {
		if strings.Contains(text, "100 by 30") {
			select {
			case sizes <- engine.Size{Columns: 60, Rows: 20}:
			default:
			}
		}
	}
	if code, err := s.e.Exec(t.Context(), id, engine.ExecSpec{Command: []string{"/app", "winsize=1", "exit=4"}, TTY: true, Resize: sizes, Stdout: &shown}); err != nil || code != 4 ||
		!strings.Contains(shown.String(), "100 by 30\r\n") || !strings.Contains(shown.String(), "60 by 20\r\n") {
		t.Errorf("in a terminal: %q, exit %d, %v", shown.String(), code, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	if _, err := s.e.Exec(ctx, id, engine.ExecSpec{Command: []string{"/app", "sleep=1h"}}); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, engine.ErrLeftRunning) || time.Since(began) > 20*time.Second {
		t.Errorf("one that takes too long: %v after %v", err, time.Since(began))
	}
	stats, err := s.e.Stats(t.Context(), id)
	if err != nil || stats.Memory <= 0 || stats.Limit <= 0 || stats.Time.IsZero() {
		t.Errorf("stats %+v, %v", stats, err)
	}
}

// terminal is what a command in one shows.
type terminal struct {
	strings.Builder
	saw func(string)
}

func (t *terminal) Write(p []byte) (int, error) {
	n, err := t.Builder.Write(p)
	t.saw(t.String())
	return n, err
}
