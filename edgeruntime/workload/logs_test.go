package workload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/engine"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/engine/enginetest"
	"github.com/whimbrel-edge/whimbrel/internal/podstream"
	"github.com/whimbrel-edge/whimbrel/models"
)

func TestExtents(t *testing.T) {
	at := func(seconds float64) time.Time { return time.Unix(1000, int64(seconds*1e9)).UTC() }
	last := func(from, to float64) *models.ContainerTerminated {
		return &models.ContainerTerminated{StartedAt: new(at(from)), FinishedAt: new(at(to))}
	}
	seen := func(created, started float64) engine.Container {
		return engine.Container{ID: "c", CreatedAt: at(created), StartedAt: at(started)}
	}
	span := func(e extent) string {
		text := ""
		for _, t := range []time.Time{e.since, e.until} {
			if t.IsZero() {
				text += " -"
			} else {
				text += fmt.Sprintf(" %.2f", t.Sub(at(0)).Seconds())
			}
		}
		return strings.TrimSpace(text)
	}
	for what, c := range map[string]struct {
		in                instance
		current, previous string
	}{
		"the first life":                      {instance{seen: seen(0, 1)}, "- -", "not-found"},
		"the second":                          {instance{seen: seen(0, 10), last: last(1, 9)}, "9.50 -", "0.90 9.50"},
		"the second, much later":              {instance{seen: seen(0, 100), last: last(1, 9)}, "99.00 -", "0.90 99.00"},
		"one that has ended":                  {instance{seen: seen(0, 10), last: last(10, 12)}, "9.90 -", "9.90 -"},
		"made anew":                           {instance{seen: seen(10, 11), last: last(1, 9)}, "- -", "not-found"},
		"removed":                             {instance{last: last(1, 9)}, "- -", "not-found"},
		"the clock went back between them":    {instance{seen: seen(0, 5), last: last(1, 9)}, "4.90 -", "0.90 4.90"},
		"nothing is known of how long it was": {instance{seen: seen(0, 10), last: &models.ContainerTerminated{StartedAt: new(at(1))}}, "9.90 -", "0.90 9.90"},
	} {
		if c.in.seen.ID != "" || what != "removed" {
			if got := span(c.in.current()); got != c.current {
				t.Errorf("%s: current %s, want %s", what, got, c.current)
			}
		}
		e, err := c.in.previous()
		got := span(e)
		if err != nil {
			got = string(models.KindOf(err))
		}
		if got != c.previous {
			t.Errorf("%s: previous %s, want %s", what, got, c.previous)
		}
	}
}

// heard is what a follower has been told.
type heard struct {
	mu    sync.Mutex
	text  string
	ended error
	over  bool
}

func (h *heard) String() string {
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	text := strings.ReplaceAll(h.text, "\n", " ")
	if h.over {
		text += fmt.Sprintf("END %v", h.ended)
	}
	return text
}

// follow reads a log until it ends or the test does.
func (w *world) follow(r podstream.LogRequest) *heard {
	w.t.Helper()
	r.Namespace, r.Follow = "default", true
	read, err := w.m.OpenLog(r)
	if err != nil {
		w.t.Fatal(err)
	}
	h := &heard{}
	ctx, cancel := context.WithCancel(w.t.Context())
	w.ends = append(w.ends, cancel)
	go func() { // ends with ctx
		err := read(ctx, func(e engine.LogEntry) error {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.text += string(e.Data)
			return nil
		})
		h.mu.Lock()
		defer h.mu.Unlock()
		h.ended, h.over = err, true
	}()
	synctest.Wait()
	return h
}

// containerOf is the name of a pod's only container.
func (w *world) containerOf(pod string) string {
	w.t.Helper()
	list, err := w.fake.List(w.t.Context(), map[string]string{labelPod: pod})
	if err != nil || len(list) != 1 {
		w.t.Fatalf("%v, %v", list, err)
	}
	return list[0].Name
}

func (w *world) log(r podstream.LogRequest) string {
	r.Namespace = "default"
	read, err := w.m.OpenLog(r)
	text := ""
	if err == nil {
		err = read(w.t.Context(), func(e engine.LogEntry) error { text += string(e.Data); return nil })
	}
	if err != nil {
		return string(models.KindOf(err)) + ": " + err.Error()
	}
	return strings.ReplaceAll(text, "\n", " ")
}

// TestLogs follows a pod through all that can happen to it.
func TestLogs(t *testing.T) {
	inWorld(t, func(w *world) {
		n := 0
		w.fake.Behave = func(c engine.Spec) enginetest.Behaviour {
			n++
			return enginetest.Behaviour{Says: fmt.Sprintf("life%d\n", n), Grumbles: "hm\n"}
		}
		pod := podstream.LogRequest{Pod: "web-0"}
		expect := func(what, got, want string) {
			t.Helper()
			if got != want && (!strings.HasSuffix(want, "…") || !strings.HasPrefix(got, strings.TrimSuffix(want, "…"))) {
				t.Errorf("%s: %q, want %q", what, got, want)
			}
		}
		expect("of no pod", w.log(pod), "not-found: this node does not run pod web-0…")
		w.apply(w.pod("web-0", 1, nil))
		w.readyAt("web-0", 1)
		all := w.follow(pod)
		later := w.follow(podstream.LogRequest{Pod: "web-0", Tail: new(0)})
		errs := w.follow(podstream.LogRequest{Pod: "web-0", Stream: "stderr"})
		w.fake.Say(w.containerOf("web-0"), engine.Stdout, "two\n")
		expect("all", all.String(), "life1 hm two ")
		expect("later", later.String(), "two ")
		expect("tail", w.log(podstream.LogRequest{Pod: "web-0", Tail: new(1)}), "two ")
		expect("previous", w.log(podstream.LogRequest{Pod: "web-0", Previous: true}), "not-found: no earlier life…")
		expect("of no container", w.log(podstream.LogRequest{Pod: "web-0", Container: "x"}), "not-found: pod web-0 has no container x; it has: main")
		expect("of no revision", w.log(podstream.LogRequest{Pod: "web-0", Revision: 9}), "not-found: pod web-0 has nothing of revision 9 here; it has: 1")

		time.Sleep(time.Minute)
		w.fake.End(w.containerOf("web-0"), 1, false)
		w.await("web-0", "restarted", func(s *models.PodStatus) bool { return ready(s) && s.RestartCount == 1 })
		time.Sleep(2 * time.Second)
		expect("all, after a restart", all.String(), "life1 hm two life2 hm ")
		expect("later, after a restart", later.String(), "two life2 hm ")
		expect("its errors", errs.String(), "hm hm ")
		expect("the life of now", w.log(pod), "life2 hm ")
		expect("the life before", w.log(podstream.LogRequest{Pod: "web-0", Previous: true}), "life1 hm two ")
		expect("the end of the life before", w.log(podstream.LogRequest{Pod: "web-0", Previous: true, Tail: new(1)}), "two ")
		expect("of the last 30 s", w.log(podstream.LogRequest{Pod: "web-0", SinceSeconds: 30}), "life2 hm ")
		// As who goes on after a break asks: the life before is theirs, too.
		expect("from a time on", w.follow(podstream.LogRequest{Pod: "web-0", Since: time.Now().Add(-time.Hour)}).String(), "life1 hm two life2 hm ")

		w.fake.SetDown(engine.ErrUnavailable)
		time.Sleep(time.Second)
		expect("without an engine", w.log(pod), "unavailable: container main of pod web-0 cannot be asked for its log: EngineUnavailable…")
		w.fake.SetDown(nil)
		w.readyAt("web-0", 1)
		time.Sleep(2 * time.Second)
		w.fake.Say(w.containerOf("web-0"), engine.Stdout, "back\n")
		expect("all, after the engine was away", all.String(), "life1 hm two life2 hm back ")

		w.apply(w.pod("web-0", 2, nil))
		w.readyAt("web-0", 2)
		time.Sleep(time.Second)
		expect("all, of the next revision too", all.String(), "life1 hm two life2 hm back life3 hm ")
		only := w.follow(podstream.LogRequest{Pod: "web-0", Revision: 2})
		expect("the life before, which was in another container", w.log(podstream.LogRequest{Pod: "web-0", Previous: true}), "not-found: no earlier life…")

		// Restarted: as revision 2 was, made anew.
		before := w.containerOf("web-0")
		again := w.pod("web-0", 3, func(s *models.PodSpec) { s.Containers[0].Env[0].Value = "2" })
		w.apply(again)
		w.readyAt("web-0", 3)
		time.Sleep(time.Minute)
		if got := w.containerOf("web-0"); got != before {
			t.Errorf("the same spec is made anew: %s, then %s", before, got)
		}
		again.JSON = bytes.Replace(again.JSON, []byte(`"annotations":{`), []byte(`"annotations":{"whimbrel/restartedAt":"2026-01-01T00:00:00Z",`), 1)
		w.apply(again)
		time.Sleep(time.Minute)
		if got := w.containerOf("web-0"); got == before {
			t.Errorf("a restart makes nothing anew: %s", got)
		}
		expect("all, after it", all.String(), "life1 hm two life2 hm back life3 hm life4 hm ")

		w.apply()
		w.await("web-0", "gone", func(s *models.PodStatus) bool { return s == nil })
		time.Sleep(2 * time.Second)
		expect("all, at the end", all.String(), "life1 hm two life2 hm back life3 hm life4 hm END <nil>")
		expect("of one revision, at the end", only.String(), "life3 hm END <nil>")
	})
}

// TestLogsOfJobs: what is not to be started again ends who follows it, and what is
// not started yet is waited for.
func TestLogsOfJobs(t *testing.T) {
	inWorld(t, func(w *world) {
		w.fake.Behave = func(engine.Spec) enginetest.Behaviour {
			return enginetest.Behaviour{Says: "a\n", Last: "z", Exits: true, After: time.Minute}
		}
		pod := w.pod("job-0", 1, func(s *models.PodSpec) { s.RestartPolicy, s.Containers[0].Image = models.RestartNever, "late:1" })
		w.apply(pod)
		time.Sleep(time.Second)
		if got := w.log(podstream.LogRequest{Pod: "job-0"}); !strings.HasPrefix(got, "conflict: container main of pod job-0 was not started yet: ErrImagePull") {
			t.Error(got)
		}
		h := w.follow(podstream.LogRequest{Pod: "job-0"})
		w.fake.Publish("late:1")
		w.await("job-0", "running", func(s *models.PodStatus) bool { return s.Phase == models.PodRunning })
		if got := h.String(); got != "a " {
			t.Errorf("meanwhile: %s", got)
		}
		w.await("job-0", "done", func(s *models.PodStatus) bool { return s.Phase == models.PodSucceeded })
		time.Sleep(2 * time.Second)
		if got := h.String(); got != "a zEND <nil>" {
			t.Errorf("at the end: %s", got)
		}
		if got := w.log(podstream.LogRequest{Pod: "job-0"}); got != "a z" {
			t.Errorf("afterwards: %s", got)
		}
		if _, err := w.m.OpenExec(podstream.ExecRequest{Namespace: "default", Pod: "job-0", Command: []string{"x"}}); models.KindOf(err) != models.KindConflict || !strings.Contains(err.Error(), "does not run: Completed") {
			t.Errorf("a command in it: %v", err)
		}
	})
}

func TestExec(t *testing.T) {
	inWorld(t, func(w *world) {
		w.fake.OnExec = enginetest.ExecSteps
		w.apply(w.pod("web-0", 1, nil))
		w.readyAt("web-0", 1)
		r := podstream.ExecRequest{Namespace: "default", Pod: "web-0", Command: []string{"/app", "say=hello", "exit=4"}}
		run, err := w.m.OpenExec(r)
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		if code, err := run(w.t.Context(), engine.ExecSpec{Command: r.Command, Stdout: &out}); code != 4 || err != nil || out.String() != "hello\n" {
			t.Errorf("%q, exit %d, %v", out.String(), code, err)
		}
		ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
		defer cancel()
		if _, err := run(ctx, engine.ExecSpec{Command: []string{"/app", "sleep=1h"}}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("one that is given up: %v", err)
		}
		w.fake.SetDown(engine.ErrUnavailable)
		time.Sleep(time.Second)
		if _, err := run(w.t.Context(), engine.ExecSpec{}); models.KindOf(err) != models.KindUnavailable {
			t.Errorf("without an engine: %v", err)
		}
		if _, err := w.m.OpenExec(r); models.KindOf(err) != models.KindUnavailable {
			t.Errorf("without an engine: %v", err)
		}
		w.fake.SetDown(nil)
		if _, err := w.m.OpenExec(podstream.ExecRequest{Namespace: "other", Pod: "web-0"}); models.KindOf(err) != models.KindNotFound {
			t.Errorf("of another namespace: %v", err)
		}
	})
}
