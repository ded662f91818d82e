package workload

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/engine"
	"github.com/whimbrel-edge/whimbrel/internal/podstream"
	"github.com/whimbrel-edge/whimbrel/models"
)

// instance is a container of a pod as it is at one moment, for who looks into it.
type instance struct {
	pod, container string
	revision       int64
	seen           engine.Container
	last           *models.ContainerTerminated // how a life of it ended, the last that did
	why            problem                     // why it does not run
	over           bool                        // it is not to be started any more
	removed        bool                        // with its revision, which was given up
	changed        <-chan struct{}             // closed when this may be out of date
}

// errGone is of a pod that this node does not have, or has no more.
func errGone(k key) error {
	return models.Errorf(models.KindNotFound, "this node does not run pod %s of namespace %s", k.name, k.namespace)
}

func (m *Manager) slot(k key) *slot {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.slots[k]
}

// look returns a container of the pod: of the generation with a revision, 0 for the
// one that serves.
func (s *slot) look(name string, revision int64) (instance, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wanted == nil && len(s.gens) == 0 {
		return instance{}, errGone(s.key)
	}
	g := s.serving()
	if revision != 0 {
		var others []string
		g = nil
		for _, o := range slices.Backward(s.gens) {
			if len(o.spec().Containers) == 0 {
				continue // of an earlier life
			}
			if others = append(others, fmt.Sprint(o.Pod.Revision())); o.Pod.Revision() == revision {
				g = o
				break
			}
		}
		if g == nil {
			return instance{}, models.Errorf(models.KindNotFound, "pod %s has nothing of revision %d here; it has: %s", s.key.name, revision, strings.Join(others, ", "))
		}
	}
	if g == nil && len(s.gens) > 0 {
		g = s.gens[len(s.gens)-1] // nothing is wanted, and this ends
	}
	in := instance{pod: s.key.name, changed: s.changed}
	spec := &models.PodSpec{}
	if g != nil {
		spec = g.spec()
	} else {
		spec = &s.wanted.Spec
	}
	var err error
	if in.container, err = podstream.Container(s.key.name, spec, name); err != nil {
		return in, err
	}
	switch down := s.m.engineProblem(); {
	case s.away || g == nil:
		in.why = problem{models.ReasonEngineUnavailable, "the container engine is being asked"}
		if down.message != "" {
			in.why = down
		}
	}
	if g == nil {
		return in, nil
	}
	in.revision = g.Pod.Revision()
	l := g.lives[in.container]
	in.seen = l.seen
	if last, ok := g.Last[in.container]; ok {
		in.last = &last
	}
	in.over = g.done(in.container) || l.seen.State == engine.Exited && !again(spec.RestartPolicy, l.seen.ExitCode) || s.wanted == nil && l.seen.State != engine.Running
	in.removed = g.GivenUp != "" && l.seen.ID == ""
	if in.why.reason == "" && l.seen.State != engine.Running {
		for _, st := range s.containers(g, time.Now()) {
			if st.Name != in.container {
				continue
			}
			if w := st.State.Waiting; w != nil {
				in.why = problem{w.Reason, w.Message}
			} else if t := st.State.Terminated; t != nil {
				in.why = problem{t.Reason, fmt.Sprintf("it ended with exit code %d", t.ExitCode)}
			}
		}
	}
	return in, nil
}

// notRunning is the error of a container that would have to run.
func (in *instance) notRunning(what string) error {
	kind := models.KindConflict
	if in.why.reason == models.ReasonEngineUnavailable {
		kind = models.KindUnavailable
	}
	why := in.why.reason
	if in.why.message != "" {
		why += ": " + in.why.message
	}
	return models.Errorf(kind, "container %s of pod %s %s: %s", in.container, in.pod, what, why)
}

// OpenExec returns what runs a command in a container that runs, and ends it when
// its ctx ends. Errors are KindNotFound, KindConflict where the container does not
// run, KindUnavailable without an engine.
func (m *Manager) OpenExec(r podstream.ExecRequest) (run func(context.Context, engine.ExecSpec) (int, error), err error) {
	k := key{r.Namespace, r.Pod}
	s := m.slot(k)
	if s == nil {
		return nil, errGone(k)
	}
	in, err := s.look(r.Container, 0)
	if err != nil {
		return nil, err
	}
	if in.seen.State != engine.Running || in.why.reason == models.ReasonEngineUnavailable {
		return nil, in.notRunning("does not run")
	}
	return func(ctx context.Context, spec engine.ExecSpec) (int, error) {
		code, err := m.cfg.Engine.Exec(ctx, in.seen.ID, spec)
		if errors.Is(err, engine.ErrLeftRunning) {
			m.cfg.Log.Warn("a command of somebody who has gone could not be ended", "pod", k, "container", in.container, "error", err)
		}
		return code, engineError(err)
	}, nil
}

// engineError is what an error of the engine means to who looks into a pod.
func engineError(err error) error {
	switch {
	case err == nil || models.KindOf(err) != models.KindInternal:
		return err
	case errors.Is(err, engine.ErrUnavailable):
		return models.Errorf(models.KindUnavailable, "%v", err)
	case errors.Is(err, engine.ErrConflict):
		return models.Errorf(models.KindConflict, "%v", err)
	case errors.Is(err, engine.ErrNotFound):
		return models.Errorf(models.KindConflict, "the container is gone: %v", err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	return models.Errorf(models.KindRefused, "the container engine: %v", err)
}

// readable reports whether there is a log.
func (in *instance) readable() bool {
	return in.seen.ID != "" && !in.seen.StartedAt.IsZero() && in.why.reason != models.ReasonEngineUnavailable
}

// Times around the lives of a container. One container has one log for all its
// lives, in which they are told apart by time: by the engine's own, which is that
// of the entries. It notes a start a moment after the first words may have come.
const (
	startNoted    = 100 * time.Millisecond
	maxStartNoted = time.Second
)

// boundary is a time between a life that ended, zero for none that is known, and one
// that started: all that the one said is before, all that the other said is after.
func boundary(ended, started time.Time) time.Time {
	if ended.IsZero() || !ended.Before(started) {
		return started.Add(-startNoted)
	}
	return started.Add(-min(maxStartNoted, started.Sub(ended)/2))
}

// extent is what of a container's log belongs to one life. Zero: no bound.
type extent struct{ since, until time.Time }

// current is the extent of the life that was started last.
func (in *instance) current() (e extent) {
	if in.last == nil || in.last.StartedAt == nil || in.last.StartedAt.Before(in.seen.CreatedAt) {
		return e // the first in this container
	}
	if !in.last.StartedAt.Before(in.seen.StartedAt) { // it is that one
		e.since = boundary(time.Time{}, in.seen.StartedAt)
		return e
	}
	ended := time.Time{}
	if in.last.FinishedAt != nil {
		ended = *in.last.FinishedAt
	}
	e.since = boundary(ended, in.seen.StartedAt)
	return e
}

// previous is the extent of the life that ended last.
func (in *instance) previous() (e extent, err error) {
	switch {
	case in.last == nil || in.last.StartedAt == nil:
		return e, models.Errorf(models.KindNotFound, "no earlier life of container %s of pod %s is known", in.container, in.pod)
	case in.seen.ID == "" || in.last.StartedAt.Before(in.seen.CreatedAt):
		return e, models.Errorf(models.KindNotFound, "the log of the life before of container %s of pod %s is gone: it was made anew since", in.container, in.pod)
	}
	e.since = boundary(time.Time{}, *in.last.StartedAt)
	if in.last.StartedAt.Before(in.seen.StartedAt) {
		e.until = (&instance{seen: in.seen, last: in.last}).current().since
	}
	return e, nil
}

// position is how far a log was read: the time of the last entry, and how many in a
// row had it.
type position struct {
	at time.Time
	n  int
}

// passer passes on entries from a position on, and moves it.
func (p *position) passer(emit func(engine.LogEntry) error) func(engine.LogEntry) error {
	skip := *p
	return func(e engine.LogEntry) error {
		if e.Time.Equal(skip.at) && skip.n > 0 {
			skip.n--
			return nil
		}
		skip.n = 0
		if !e.Time.Equal(p.at) {
			*p = position{at: e.Time}
		}
		p.n++
		return emit(e)
	}
}

// reopen is how long a log that ended although its container runs is left alone.
const reopen = time.Second

// OpenLog returns what calls emit with what a container of a pod has said, as r
// asks, and with Follow with what it says until the pod is gone or has done what it
// was for: also in later lives, in containers made anew, and in revisions to come
// unless r names one. Errors are KindNotFound, KindConflict where the container has
// said nothing because it was never started, KindUnavailable without an engine.
func (m *Manager) OpenLog(r podstream.LogRequest) (read func(ctx context.Context, emit func(engine.LogEntry) error) error, err error) {
	k := key{r.Namespace, r.Pod}
	s := m.slot(k)
	if s == nil {
		return nil, errGone(k)
	}
	in, err := s.look(r.Container, r.Revision)
	if err != nil {
		return nil, err
	}
	o := engine.LogOptions{Tail: -1, Only: map[string]engine.Stream{"stdout": engine.Stdout, "stderr": engine.Stderr}[r.Stream], Since: r.Since}
	if r.Tail != nil {
		o.Tail = *r.Tail
	}
	if r.SinceSeconds > 0 {
		o.Since = time.Now().Add(-time.Duration(r.SinceSeconds) * time.Second)
	}
	var e extent
	never := in.seen.ID == "" || in.seen.StartedAt.IsZero()
	switch {
	case in.why.reason == models.ReasonEngineUnavailable && !r.Follow:
		return nil, in.notRunning("cannot be asked for its log")
	case in.removed:
		return nil, models.Errorf(models.KindNotFound, "the log of container %s of pod %s at revision %d went with the container", in.container, in.pod, in.revision)
	case r.Previous:
		if e, err = in.previous(); err != nil {
			return nil, err
		}
	case never && !r.Follow:
		return nil, in.notRunning("was not started yet")
	case !never:
		e = in.current()
	}
	// Who follows from a time on goes on with what broke off: a life that has ended
	// meanwhile is theirs, too.
	if e.since.After(o.Since) && !(r.Follow && !r.Since.IsZero()) {
		o.Since = e.since
	}
	o.Until = e.until
	return func(ctx context.Context, emit func(engine.LogEntry) error) error {
		if r.Follow {
			return m.follow(ctx, s, r, in, o, emit)
		}
		return engineError(m.cfg.Engine.Logs(ctx, in.seen.ID, o, emit))
	}, nil
}

// follow reads the log of a container, and goes on with its later lives.
func (m *Manager) follow(ctx context.Context, s *slot, r podstream.LogRequest, in instance, o engine.LogOptions, emit func(engine.LogEntry) error) error {
	var at position
	for id := ""; ; {
		if in.readable() {
			if id != "" && in.seen.ID != id { // made anew: all of it is new
				at, o.Since, o.Tail = position{}, time.Time{}, -1
			}
			id = in.seen.ID
			opened := time.Now()
			err := m.read(ctx, id, &o, &at, emit)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil && !errors.Is(err, engine.ErrUnavailable) && !errors.Is(err, engine.ErrNotFound) {
				return engineError(err)
			}
			if at.at.IsZero() && o.Tail >= 0 { // what was there then was left out
				o.Since, o.Tail = opened, -1
			}
		}
		started := in.seen.StartedAt
		for again := false; !again; {
			var err error
			if in, err = s.look(r.Container, r.Revision); models.KindOf(err) == models.KindNotFound {
				return nil // it ended
			} else if err != nil {
				return err
			}
			if in.readable() && (in.seen.ID != id || in.seen.StartedAt.After(started)) {
				break
			}
			if in.over || in.removed {
				return nil
			}
			timer := time.NewTimer(reopen)
			select {
			case <-ctx.Done():
				timer.Stop()
				return ctx.Err()
			case <-in.changed:
			case <-timer.C:
				again = in.seen.State == engine.Running
			}
			timer.Stop()
		}
	}
}

// read follows one container's log from a position on, to the end of one of its
// lives.
func (m *Manager) read(ctx context.Context, id string, o *engine.LogOptions, at *position, emit func(engine.LogEntry) error) error {
	for _, follow := range []bool{true, false} { // what came while the end was noticed
		if !at.at.IsZero() {
			o.Since, o.Tail = at.at, -1
		}
		one := *o
		one.Follow = follow
		if !follow && at.at.IsZero() {
			return nil // it said nothing
		}
		if err := m.cfg.Engine.Logs(ctx, id, one, at.passer(emit)); err != nil {
			return err
		}
	}
	return nil
}
